//! Across the ends of the number space: segment numbers and the 32-bit millisecond clock.
// Seeds, for whoever sees a failure.
#![allow(clippy::print_stdout)]

mod common;

use std::time::Duration;

use common::Datagrams;
use common::link::{CALM, End, Pair, Weather};
use fulmar_arq::control::Classic;
use fulmar_arq::{Config, Flush, Kcp, Origin, Profile};
use fulmar_testkit::vectors::xs;
use fulmar_wire::seq::Seq;
use fulmar_wire::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);
const DAY_MS: u64 = 24 * 3_600_000;

fn end(config: Config, snd: u32, rcv: u32, to_send: Vec<u8>) -> End<Classic> {
    End::new(
        Kcp::with_numbers(5, config, Classic::new(&config), Seq(snd), Seq(rcv)),
        to_send,
    )
}

fn config(profile: Profile) -> Config {
    Config {
        mtu: 124,
        profile,
        snd_wnd: 100,
        rcv_wnd: 100,
        ..Config::default()
    }
}

#[test]
fn transfers_across_every_edge() {
    let edges = [u32::MAX, 1 << 31, (1 << 31) - 1];
    for (i, &edge) in edges.iter().enumerate() {
        for (k, profile) in [Profile::FAST3, Profile::NORMAL, Profile::MANUAL]
            .into_iter()
            .enumerate()
        {
            let seed = (i * 10 + k) as u64;
            println!("edge {edge:#x}, {profile:?}, seed {seed}");
            let weather = Weather {
                jitter: 15,
                loss: 15,
                duplicate: 5,
                reorder: 10,
                late: 200,
                ..CALM
            };
            let (a, b) = (edge - 150, edge - 40);
            let mut pair = Pair::new(
                end(config(profile), a, b, xs(1, 60_000)),
                end(config(profile), b, a, xs(2, 30_000)),
                weather,
                seed,
                // The clock passes its edge a second after the start.
                u64::from(edge) - 1000,
            );
            pair.run(20 * MINUTE);
            pair.assert_done();
            assert!(Seq(edge).before(pair.ends[0].kcp.snd_una()));
            assert!(pair.now.as_millis() > u64::from(edge));
        }
    }
}

#[test]
fn a_window_straddles_the_edge_while_it_grows() {
    // Nothing is acknowledged while the ring doubles several times.
    let config = Config {
        mtu: 50,
        snd_wnd: 1000,
        rcv_wnd: 1000,
        ..Config::default()
    };
    let first = u32::MAX - 300;
    let mut pair = Pair::new(
        end(config, first, 0, xs(1, 26 * 1500)),
        end(config, 0, first, Vec::new()),
        Weather {
            loss: 10,
            jitter: 40,
            ..CALM
        },
        9,
        0,
    );
    pair.ends[0].write = 100;
    pair.run(10 * MINUTE);
    pair.assert_done();
}

#[test]
fn a_pause_longer_than_the_clock_can_tell() {
    for days in [24, 25, 49, 50, 100] {
        let mut pair = Pair::new(
            end(config(Profile::FAST), 0, 0, xs(1, 5000)),
            end(config(Profile::FAST), 0, 0, xs(2, 5000)),
            Weather { loss: 10, ..CALM },
            3,
            77,
        );
        pair.run(MINUTE);
        pair.assert_done();
        pair.now += Duration::from_millis(days * DAY_MS + 123);
        for e in &mut pair.ends {
            e.to_send.extend(xs(4, 5000));
        }
        pair.run(MINUTE);
        pair.assert_done();
        assert!(
            pair.ends[0].kcp.srtt() < Some(Duration::from_millis(200)),
            "{days} days"
        );
    }
}

#[test]
fn a_timeout_due_beyond_the_edge_of_the_clock_comes_in_time() {
    let mut out = Datagrams::default();
    for edge in [1u64 << 31, 1 << 32, 3 << 31] {
        let c = config(Profile::FAST);
        let mut kcp = Kcp::new(1, c);
        kcp.send(b"x");
        kcp.flush(Instant::from_millis(edge - 50), Flush::Full, &mut out);
        assert_eq!(out.take().len(), 1);
        assert_eq!(kcp.poll_timeout(), Some(Instant::from_millis(edge + 150)));
        kcp.handle_timeout(Instant::from_millis(edge + 149), &mut out);
        assert!(out.take().is_empty());
        kcp.handle_timeout(Instant::from_millis(edge + 150), &mut out);
        assert_eq!(out.take().len(), 1);
        assert_eq!(kcp.counters().lost_segs, 1);
    }
}

#[test]
fn a_round_trip_across_the_edge_is_measured() {
    let mut out = Datagrams::default();
    let (mut a, mut b) = (
        Kcp::new(1, Config::default()),
        Kcp::new(1, Config::default()),
    );
    let start = (1u64 << 32) - 20;
    a.send(b"x");
    a.flush(Instant::from_millis(start), Flush::Full, &mut out);
    for d in out.take() {
        b.handle_datagram(Instant::from_millis(start + 15), &d, Origin::Wire)
            .expect("sound");
    }
    b.flush(Instant::from_millis(start + 15), Flush::AckOnly, &mut out);
    for d in out.take() {
        a.handle_datagram(Instant::from_millis(start + 40), &d, Origin::Wire)
            .expect("sound");
    }
    assert_eq!(a.srtt(), Some(Duration::from_millis(40)));
}
