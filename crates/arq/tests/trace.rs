//! Golden vectors: what the real program's KCP did, byte for byte.

mod common;

use common::Datagrams;
use fulmar_arq::control::Classic;
use fulmar_arq::{Config, Flush, InputError, Kcp, Origin, Profile, State};
use fulmar_testkit::vectors::{self, Value, to_hex};
use fulmar_wire::kcp::Error as SegmentError;
use fulmar_wire::seq::Seq;
use fulmar_wire::time::Instant;

fn number(v: &Value, key: &str) -> u32 {
    let n = v[key].as_u64().unwrap_or_else(|| panic!("{key} in {v}"));
    u32::try_from(n).expect("32 bits")
}

fn config(v: &Value) -> Config {
    Config {
        mtu: number(v, "mtu") as usize,
        profile: Profile::new(
            number(v, "nodelay"),
            number(v, "interval"),
            number(v, "resend"),
            number(v, "nc") == 0,
        ),
        snd_wnd: number(v, "sndwnd"),
        rcv_wnd: number(v, "rcvwnd"),
        ..Config::default()
    }
}

/// The state in the order of the vectors' `state_fields`.
fn fields(s: &State) -> Vec<u64> {
    [
        s.snd_una.0,
        s.snd_nxt.0,
        s.rcv_nxt.0,
        s.rx_rto,
        s.rx_srtt,
        s.rx_rttvar,
        s.rmt_wnd,
        s.congestion.cwnd,
        s.congestion.ssthresh,
        s.congestion.incr,
        s.len_snd_queue,
        s.len_snd_buf,
        s.len_rcv_queue,
        s.len_rcv_buf,
        u32::try_from(s.len_acklist).expect("short"),
        u32::from(s.probe),
        s.probe_wait,
    ]
    .map(u64::from)
    .to_vec()
}

/// Result code of upstream's input function.
fn code(e: InputError) -> i64 {
    match e {
        InputError::Malformed(SegmentError::Header { .. }) | InputError::OtherConversation(_) => -1,
        InputError::Malformed(SegmentError::Data { .. }) => -2,
        InputError::Malformed(SegmentError::Command(_)) => -3,
        other => panic!("{other}"),
    }
}

#[test]
fn every_scenario_replays_byte_for_byte() {
    let file = vectors::load("kcptun/kcp_arq_trace.json");
    let mut events = 0;
    for scenario in file["scenarios"].as_array().expect("scenarios") {
        for side in ["A", "B"] {
            events += replay(scenario, side);
        }
    }
    assert!(events > 1500, "{events}");
}

fn replay(scenario: &Value, side: &str) -> usize {
    let name = format!("{} / {side}", scenario["name"]);
    let endpoint = &scenario[side];
    let events = endpoint["events"].as_array().expect("events");
    let first = Seq(number(scenario, "first_sn"));
    let (snd, rcv) = if side == "A" {
        (first, Seq(0))
    } else {
        (Seq(0), first)
    };
    let config = Config {
        ack_no_delay: events.iter().any(|e| e["acknodelay"] == true),
        ..config(&endpoint["config"])
    };
    let mut kcp = Kcp::with_numbers(
        number(scenario, "conv"),
        config,
        Classic::new(&config),
        snd,
        rcv,
    );
    let mut out = Datagrams::default();
    // The vectors' clock has 32 bits and wraps; ours goes on.
    let mut clock = u64::from(number(scenario, "clock_start"));
    for (i, event) in events.iter().enumerate() {
        let at = format!("{name}, event {i}: {event}");
        let t = number(event, "t");
        #[allow(clippy::cast_possible_truncation)]
        {
            clock += u64::from(t.wrapping_sub(clock as u32));
        }
        let now = Instant::from_millis(clock);
        match event["ev"].as_str().expect("ev") {
            "write" => {
                kcp.send(&vectors::bytes(event, "hex"));
                kcp.flush(now, Flush::Full, &mut out);
            }
            "input" => {
                let origin = if event["fec"] == true {
                    Origin::Recovered
                } else {
                    Origin::Wire
                };
                let result = kcp.handle_datagram(now, &vectors::bytes(event, "hex"), origin);
                if let Ok(Some(kind)) = result.map(fulmar_arq::FlushWanted::kind) {
                    kcp.flush(now, kind, &mut out);
                }
                assert_eq!(result.map_or_else(code, |_| 0), event["ret"], "{at}");
            }
            "update" => {
                let next = kcp.update(now, &mut out);
                assert_eq!(
                    next.as_millis(),
                    u128::from(number(event, "next_in")),
                    "{at}"
                );
            }
            "recv" => {
                let got = kcp.recv(<[u8]>::len).expect("something");
                assert_eq!(got, number(event, "n") as usize, "{at}");
            }
            other => panic!("{other}"),
        }
        let got: Vec<String> = out.take().iter().map(|d| to_hex(d)).collect();
        let want: Vec<&str> = event["out"]
            .as_array()
            .map(|list| list.iter().map(|d| d.as_str().expect("hex")).collect())
            .unwrap_or_default();
        assert_eq!(got, want, "{at}");
        let want: Vec<u64> = event["st"]
            .as_array()
            .expect("st")
            .iter()
            .map(|n| n.as_u64().expect("number"))
            .collect();
        assert_eq!(fields(&kcp.state()), want, "{at}");
    }
    events.len()
}

#[test]
fn odd_datagrams_have_upstreams_result() {
    let file = vectors::load("kcptun/kcp_segments.json");
    let cases = file["input"].as_array().expect("input");
    assert!(cases.len() > 8);
    for case in cases {
        let mut kcp = Kcp::new(5, Config::default());
        let result =
            kcp.handle_datagram(Instant::ZERO, &vectors::bytes(case, "in_hex"), Origin::Wire);
        assert_eq!(result.map_or_else(code, |_| 0), case["ret"], "{case}");
        let s = kcp.state();
        assert_eq!(s.rcv_nxt.0, number(case, "rcv_nxt"), "{case}");
        assert_eq!(s.len_rcv_buf, number(case, "rcv_buf"), "{case}");
        assert_eq!(s.len_rcv_queue, number(case, "rcv_queue"), "{case}");
        assert_eq!(s.len_acklist, number(case, "acklist") as usize, "{case}");
        let failed = u64::from(case["ret"] != 0);
        assert_eq!(kcp.counters().kcp_in_errors, failed, "{case}");
    }
}
