//! Bytes from someone who wishes us ill, or from nobody in particular: no panic, no growth beyond what the windows
//! allow, and nothing that the honest side sent is lost.
// Seeds, for whoever sees a failure.
#![allow(clippy::print_stdout)]

mod common;

use common::Datagrams;
use common::link::{CALM, End, Pair, Random, Weather};
use fulmar_arq::{Config, Flush, FlushWanted, InputError, Kcp, Origin, Profile, StrategyKind};
use fulmar_testkit::vectors::xs;
use fulmar_wire::kcp::{Command, Format, Header};
use fulmar_wire::seq::Seq;
use fulmar_wire::time::{Instant, Millis};
use proptest::prelude::*;

const CONV: u32 = 0x0102_0304;

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

fn segment(command: Command, sn: u32, una: u32, ts: u32, wnd: u16, data: &[u8]) -> Vec<u8> {
    let header = Header {
        conv: CONV,
        command,
        frg: 0,
        wnd,
        ts: Millis(ts),
        sn: Seq(sn),
        una: Seq(una),
        len: u32::try_from(data.len()).expect("short"),
    };
    let mut bytes = Format::LittleEndian.emit(&header).to_vec();
    bytes.extend_from_slice(data);
    bytes
}

fn small() -> Config {
    Config {
        mtu: 100,
        snd_wnd: 16,
        rcv_wnd: 16,
        max_payload: 128,
        profile: Profile::FAST2,
        ..Config::default()
    }
}

/// What `small` may hold: both slabs with a page of slack each, and rings of 64 places.
const SMALL_MEMORY: usize = (48 + 16) * 128 + (48 + 16) * 128 + 64 * 64 * 2;

/// Whatever happened, these hold.
fn assert_sane(kcp: &Kcp) {
    let s = kcp.state();
    let config = kcp.config();
    assert!(!s.snd_nxt.before(s.snd_una));
    assert!(s.len_snd_buf <= config.snd_wnd);
    assert!(kcp.in_flight() <= s.len_snd_buf);
    assert!(s.len_rcv_queue <= config.rcv_wnd && s.len_rcv_buf <= config.rcv_wnd);
    assert!((30..=60_000).contains(&s.rx_rto));
    assert!(s.len_acklist <= 4096);
    assert!(kcp.held_bytes() <= SMALL_MEMORY, "{}", kcp.held_bytes());
}

/// Headers that are plausible enough to reach every branch, with fields around the edges.
fn any_segment() -> impl Strategy<Value = Vec<u8>> {
    let near = || {
        prop_oneof![
            4 => 0u32..40,
            1 => any::<u32>(),
            1 => Just(u32::MAX),
            1 => Just(1u32 << 31),
        ]
    };
    (
        (prop::bool::weighted(0.95), 80u8..86, near(), near(), near()),
        (
            any::<u16>(),
            0usize..200,
            prop::option::weighted(0.05, any::<u32>()),
        ),
    )
        .prop_map(|((ours, cmd, sn, una, ts), (wnd, len, lie))| {
            let mut bytes = segment(Command::Push, sn, una, ts, wnd, &vec![7; len]);
            bytes[4] = cmd;
            if !ours {
                bytes[0] ^= 1;
            }
            if let Some(lie) = lie {
                bytes[20..24].copy_from_slice(&lie.to_le_bytes());
            }
            bytes
        })
}

fn any_datagram() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..200),
        9 => prop::collection::vec(any_segment(), 1..12).prop_map(|s| s.concat()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_datagrams_at_any_time(
        steps in prop::collection::vec(
            (any_datagram(), 0u64..500, any::<bool>(), 0usize..300, 0usize..4, 0u8..4),
            1..60,
        ),
    ) {
        let mut kcp = Kcp::new(CONV, small());
        let mut out = Datagrams::default();
        let mut ms = 0;
        for (datagram, wait, recovered, write, reads, flush) in steps {
            ms += wait;
            let origin = if recovered { Origin::Recovered } else { Origin::Wire };
            let _ = kcp.handle_datagram(at(ms), &datagram, origin);
            assert_sane(&kcp);
            if kcp.has_room() {
                kcp.send(&xs(1, write));
            }
            for _ in 0..reads {
                kcp.recv(|data| assert!(!data.is_empty() && data.len() <= 128));
            }
            match flush {
                0 => kcp.flush(at(ms), Flush::Full, &mut out),
                1 => kcp.flush(at(ms), Flush::AckOnly, &mut out),
                2 => kcp.handle_timeout(at(ms), &mut out),
                _ => {}
            }
            for d in out.take() {
                assert!((24..=100).contains(&d.len()));
            }
            assert_sane(&kcp);
        }
    }

    #[test]
    fn forgeries_that_can_be_told_apart_change_nothing(seed in any::<u64>(), loss in 0u64..30) {
        println!("seed {seed}");
        let config = Config { mtu: 200, snd_wnd: 40, rcv_wnd: 40, ..Config::default() };
        let mut pair = Pair::new(
            End::new(Kcp::new(CONV, config), xs(1, 20_000)),
            End::new(Kcp::new(CONV, config), xs(2, 10_000)),
            Weather { jitter: 10, loss, ..CALM },
            seed,
            0,
        );
        let mut random = Random(seed);
        pair.pump(0);
        pair.pump(1);
        while pair.step(at(60_000)) {
            // The other side echoes it, and that is taken for a round trip.
            let ts = pair.now.wire_millis().0;
            let kcp = &mut pair.ends[random.below(2) as usize].kcp;
            let beyond = kcp.snd_nxt().plus(1 + random.below(1 << 31) as u32 / 2).0;
            let una = kcp.snd_una().0;
            let wnd = u16::try_from(kcp.remote_window()).expect("16 bits");
            let forged = match random.below(6) {
                0 => segment(Command::WindowTell, 0, beyond, 0, wnd, &[]),
                1 => segment(Command::Ack, beyond, una, u32::MAX >> 1, wnd, &[]),
                2 => segment(Command::Push, kcp.rcv_nxt().plus(40).0, una, ts, wnd, b"far"),
                3 => segment(Command::Push, kcp.rcv_nxt().plus(u32::MAX).0, una, ts, wnd, b"old"),
                4 => segment(Command::Push, kcp.rcv_nxt().0, una, ts, wnd, &[9; 1500]),
                _ => segment(Command::Push, kcp.rcv_nxt().0, una, ts, wnd, b"x")[..24].to_vec(),
            };
            let _ = kcp.handle_datagram(pair.now, &forged, Origin::Recovered);
        }
        for i in [0, 1] {
            let (got, want) = (&pair.ends[1 - i].received, &pair.ends[i].to_send);
            assert!(got == want, "end {i}: {} of {} at {:?}, {:?}", got.len(), want.len(), pair.now, pair.ends[i].kcp.state());
        }
    }
}

#[test]
fn an_acknowledgement_of_the_future_is_ignored() {
    let mut out = Datagrams::default();
    let mut kcp = Kcp::new(CONV, small());
    kcp.send(&xs(1, 76 * 20));
    kcp.flush(at(0), Flush::Full, &mut out);
    assert_eq!((kcp.in_flight(), kcp.waiting()), (16, 20));
    for forged in [
        segment(Command::WindowTell, 0, 17, 0, 32, &[]),
        segment(Command::Ack, 16, 0, 0, 32, &[]),
        segment(Command::Ack, 5_000_000, 1 << 31, 0, 32, &[]),
    ] {
        kcp.handle_datagram(at(1), &forged, Origin::Recovered)
            .expect("parses");
        assert_eq!(
            (kcp.in_flight(), kcp.waiting(), kcp.snd_una()),
            (16, 20, Seq(0))
        );
    }
    assert_eq!(kcp.counters().invalid_acks, 4);
    // The honest one still counts.
    let honest = segment(Command::Ack, 15, 16, 0, 32, &[]);
    assert_eq!(
        kcp.handle_datagram(at(2), &honest, Origin::Wire),
        Ok(FlushWanted::Full)
    );
    assert_eq!((kcp.in_flight(), kcp.waiting()), (0, 4));
}

#[test]
fn an_echo_from_before_the_segment_counts_for_nothing() {
    let mut out = Datagrams::default();
    let mut kcp = Kcp::new(CONV, small());
    for t in 0..4 {
        kcp.send(&[1; 76]);
        kcp.flush(at(1000 + t), Flush::Full, &mut out);
    }
    for _ in 0..5 {
        let forged = segment(Command::Ack, 3, 0, 1001, 32, &[]);
        assert_eq!(
            kcp.handle_datagram(at(1020), &forged, Origin::Wire),
            Ok(FlushWanted::None)
        );
    }
    let honest = segment(Command::Ack, 3, 0, 1003, 32, &[]).repeat(2);
    assert_eq!(
        kcp.handle_datagram(at(1020), &honest, Origin::Wire),
        Ok(FlushWanted::Full)
    );
}

#[test]
fn acknowledgements_owed_are_bounded() {
    let mut kcp = Kcp::new(CONV, small());
    let datagram = segment(Command::Push, 3, 0, 0, 32, &[]).repeat(60);
    for _ in 0..1000 {
        kcp.handle_datagram(at(0), &datagram, Origin::Wire)
            .expect("parses");
    }
    assert_eq!(kcp.state().len_acklist, 4096);
    let mut out = Datagrams::default();
    kcp.flush(at(0), Flush::AckOnly, &mut out);
    assert_eq!(out.take().len(), 4096 / 4);
}

#[test]
fn a_segment_too_large_is_an_error_and_not_acknowledged() {
    let mut kcp = Kcp::new(CONV, small());
    let result = kcp.handle_datagram(
        at(0),
        &segment(Command::Push, 0, 0, 0, 32, &[1; 129]),
        Origin::Wire,
    );
    assert_eq!(result, Err(InputError::TooLarge { len: 129 }));
    assert_eq!((kcp.rcv_nxt(), kcp.state().len_acklist), (Seq(0), 0));
    assert_eq!(kcp.counters().kcp_in_errors, 1);
}

#[test]
fn a_window_full_of_gaps_stays_within_its_memory() {
    let config = Config {
        rcv_wnd: 1024,
        ..Config::default()
    };
    let mut kcp = Kcp::new(CONV, config);
    for sn in (1..5000).rev() {
        let _ = kcp.handle_datagram(
            at(0),
            &segment(Command::Push, sn, 0, 0, 32, b"x"),
            Origin::Wire,
        );
    }
    assert_eq!(
        (kcp.state().len_rcv_buf, kcp.state().len_rcv_queue),
        (1023, 0)
    );
    assert!(kcp.held_bytes() < 1040 * 1536 + 2048 * 8);
    let fill = segment(Command::Push, 0, 0, 0, 32, b"x");
    kcp.handle_datagram(at(0), &fill, Origin::Wire)
        .expect("parses");
    let mut read = 0;
    while kcp.recv(|d| read += d.len()).is_some() {}
    assert_eq!(read, 1024);
}

#[test]
fn a_window_beyond_16_bits_is_advertised_as_the_largest() {
    let mut out = Datagrams::default();
    for rcv_wnd in [65_535, 65_536, 100_000, u32::MAX] {
        let mut kcp = Kcp::new(
            CONV,
            Config {
                rcv_wnd,
                ..Config::default()
            },
        );
        kcp.send(b"x");
        kcp.flush(at(0), Flush::Full, &mut out);
        let d = out.take().swap_remove(0);
        let (h, ..) = Format::LittleEndian
            .view(&d)
            .and_then(|v| v.parse())
            .expect("sound");
        assert_eq!(h.wnd, 65_535);
    }
}

/// Such a peer made the sender of mode auto ask its path in a segment that was not in flight, and its timer stayed due for ever after:
/// the driver of that session, and of all beside it, never slept again.
#[test]
fn a_peer_that_acknowledges_every_segment_and_moves_nothing_lets_us_sleep() {
    for strategy in [StrategyKind::Classic, StrategyKind::Auto] {
        // All, or all but the first, or all but the last.
        for acked in [0..5, 1..5, 0..4] {
            let config = Config {
                strategy,
                ..Config::default()
            };
            let mut kcp = Kcp::new(CONV, config);
            let mut out = Datagrams::default();
            kcp.send(&vec![7; 5 * kcp.mss()]);
            let mut now = at(0);
            kcp.flush(now, Flush::Full, &mut out);
            let (mut timers, mut sent) = (0, 0);
            while let Some(due) = kcp.poll_timeout().filter(|t| *t <= at(60_000)) {
                now = due.max(now);
                // One by one, so that there is time to ask between them.
                for sn in acked.clone().filter(|sn| now >= at(500 * u64::from(*sn))) {
                    let ack = segment(Command::Ack, sn, 0, now.wire_millis().0, 128, b"");
                    let _ = kcp.handle_datagram(now, &ack, Origin::Wire);
                }
                kcp.flush(now, Flush::Full, &mut out);
                sent += out.take().len();
                timers += 1;
                assert!(timers < 2000, "{strategy:?} {acked:?}: due at {now:?}");
            }
            assert!(sent < 500, "{strategy:?} {acked:?}: {sent}");
            assert_eq!(
                kcp.in_flight(),
                5 - acked.len() as u32,
                "{strategy:?} {acked:?}"
            );
        }
    }
}
