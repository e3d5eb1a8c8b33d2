//! Two machines on a bad link in virtual time: every byte arrives once and in order, and then both are at rest.
// Seeds, for whoever sees a failure.
#![allow(clippy::print_stdout)]

mod common;

use std::time::Duration;

use common::Datagrams;
use common::link::{CALM, End, Pair, Random, Weather};
use fulmar_arq::control::Classic;
use fulmar_arq::{Config, Flush, FlushWanted, Kcp, Origin, Profile, Strategy};
use fulmar_testkit::vectors::xs;
use fulmar_wire::kcp::{Command, Format};
use fulmar_wire::seq::Seq;
use fulmar_wire::time::Instant;
use proptest::prelude::*;

const MINUTE: Duration = Duration::from_secs(60);

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

fn config(profile: Profile, window: u32) -> Config {
    Config {
        mtu: 300,
        profile,
        snd_wnd: window,
        rcv_wnd: window,
        ..Config::default()
    }
}

fn pair(config: Config, bytes: [usize; 2], weather: Weather, seed: u64) -> Pair<Strategy> {
    println!("seed {seed}, {weather:?}, {config:?}");
    Pair::new(
        End::new(Kcp::new(3, config), xs(1, bytes[0])),
        End::new(Kcp::new(3, config), xs(2, bytes[1])),
        weather,
        seed,
        0,
    )
}

#[test]
fn every_profile_at_every_loss() {
    let profiles = [
        Profile::NORMAL,
        Profile::FAST,
        Profile::FAST2,
        Profile::FAST3,
        Profile::MANUAL,
    ];
    for (p, profile) in profiles.into_iter().enumerate() {
        for loss in [0, 1, 10, 25, 40] {
            let weather = Weather {
                jitter: 3,
                loss,
                duplicate: 2,
                reorder: 5,
                late: 30,
                ..CALM
            };
            let mut pair = pair(
                config(profile, 64),
                [150_000, 40_000],
                weather,
                p as u64 * 100 + loss,
            );
            pair.run(20 * MINUTE);
            pair.assert_done();
        }
    }
}

#[test]
fn a_calm_link_needs_no_retransmission_and_few_wakeups() {
    let mut pair = pair(config(Profile::FAST3, 256), [1_000_000, 0], CALM, 1);
    pair.run(MINUTE);
    pair.assert_done();
    let (a, b) = (pair.ends[0].kcp.counters(), pair.ends[1].kcp.counters());
    assert_eq!((a.retrans_segs, b.repeat_segs), (0, 0));
    assert_eq!(a.out_segs, 1_000_000u64.div_ceil(276));
    // 3624 segments in windows of 256 over 40 ms: 15 round trips.
    let t = pair.now.as_millis();
    assert!((560..900).contains(&t), "{t} ms");
    assert!(pair.wakeups < 100, "{}", pair.wakeups);
    assert_eq!(pair.ends[0].kcp.min_rtt(), Some(Duration::from_millis(40)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn any_settings_any_weather(
        seed in any::<u64>(),
        (delay, jitter, late) in (0u64..150, 0u64..80, 0u64..3000),
        (loss, duplicate, reorder) in (0u64..41, 0u64..30, 0u64..40),
        (nodelay, interval, resend, nc) in (0u32..2, 10u32..100, 0u32..5, any::<bool>()),
        (snd, rcv, mtu) in (1u32..300, 1u32..300, 50usize..600),
        [ack_no_delay, write_delay] in any::<[bool; 2]>(),
        (write, reads) in (1usize..3000, prop::option::of(1usize..20)),
        bytes in [0usize..20_000, 0usize..20_000],
    ) {
        let config = Config {
            mtu,
            profile: Profile::new(nodelay, interval, resend, nc),
            snd_wnd: snd,
            rcv_wnd: rcv,
            ack_no_delay,
            write_delay,
            ..Config::default()
        };
        let weather = Weather { delay, jitter, loss, duplicate, reorder, late };
        let mut pair = pair(config, bytes, weather, seed);
        for end in &mut pair.ends {
            end.write = write;
            end.room = (seed % 3 == 0).then_some(3);
        }
        pair.ends[1].reads = reads;
        // A reader that stops half-way depends on our calling it again.
        for _ in 0..2000 {
            pair.run(MINUTE);
            if pair.ends.iter().all(|e| e.kcp.is_idle() && !e.kcp.is_readable() && e.given == e.to_send.len()) {
                break;
            }
        }
        pair.assert_done();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// The network may keep every datagram and bring it again whenever it likes.
    #[test]
    fn no_replay_looks_like_a_restart(seed in any::<u64>(), loss in 0u64..30, edge in any::<bool>()) {
        println!("seed {seed}");
        let weather = Weather { jitter: 40, loss, duplicate: 10, reorder: 20, late: 500, ..CALM };
        let first = if edge { u32::MAX - 60 } else { 0 };
        let config = config(Profile::FAST2, 24);
        let end = |to_send| {
            let control = Classic::new(&config);
            End::new(Kcp::with_numbers(3, config, control, Seq(first), Seq(first)), to_send)
        };
        let mut pair = Pair::new(end(xs(1, 40_000)), end(xs(2, 40_000)), weather, seed, 0);
        let mut random = Random(seed);
        let mut archive: [Vec<Vec<u8>>; 2] = Default::default();
        pair.pump(0);
        pair.pump(1);
        for _ in 0..1500 {
            if !pair.step(at(600_000)) {
                break;
            }
            for (i, kept) in archive.iter_mut().enumerate() {
                kept.append(&mut pair.heard[i]);
                for _ in 0..random.below(3) {
                    let Some(old) = kept.get(random.below(kept.len() as u64) as usize) else {
                        continue;
                    };
                    pair.ends[i].kcp.handle_datagram(pair.now, old, Origin::Wire).expect("sound");
                }
                pair.pump(i);
                assert!(!pair.ends[i].kcp.peer_restarted());
            }
        }
        for i in [0, 1] {
            let got = &pair.ends[1 - i].received;
            assert!(pair.ends[i].to_send.starts_with(got));
            assert!(got.len() > 1000, "{}", got.len());
        }
    }
}

/// Datagrams of one end arrive at the other; what is written in answer is thrown away.
fn carry(from: &mut Datagrams, to: &mut Kcp, now: Instant) {
    for d in from.take() {
        to.handle_datagram(now, &d, Origin::Wire).expect("sound");
    }
}

fn commands(datagrams: &[Vec<u8>]) -> Vec<Command> {
    let mut list = Vec::new();
    for d in datagrams {
        let mut rest = &d[..];
        while let Ok(view) = Format::LittleEndian.view(rest) {
            let (h, _, behind) = view.parse().expect("sound");
            list.push(h.command);
            rest = behind;
        }
    }
    list
}

#[test]
fn a_machine_at_rest_has_no_timer() {
    let mut out = Datagrams::default();
    let mut a = Kcp::new(1, Config::default());
    assert_eq!(a.poll_timeout(), None);
    assert_eq!(a.flush_wanted(), FlushWanted::None);
    a.handle_timeout(at(5000), &mut out);
    assert!(out.take().is_empty());
    assert!(a.is_idle() && a.has_room());
}

#[test]
fn an_acknowledgement_waits_one_interval_at_most() {
    let mut out = Datagrams::default();
    let (mut a, mut b) = (
        Kcp::new(1, Config::default()),
        Kcp::new(1, Config::default()),
    );
    for start in [0, 10_000] {
        a.send(b"x");
        a.flush(at(start), Flush::Full, &mut out);
        carry(&mut out, &mut b, at(start + 7));
        assert_eq!(b.flush_wanted(), FlushWanted::None);
        assert_eq!(b.poll_timeout(), Some(at(start + 7 + 30)));
        b.handle_timeout(at(start + 37), &mut out);
        assert_eq!(commands(&out.sent), [Command::Ack]);
        carry(&mut out, &mut a, at(start + 50));
        assert_eq!(
            (a.in_flight(), a.poll_timeout()),
            (0, Some(at(start + 50))),
            "the window slid"
        );
        a.handle_timeout(at(start + 50), &mut out);
        assert_eq!(a.poll_timeout(), None);
    }
}

#[test]
fn ack_no_delay_asks_at_once() {
    let mut out = Datagrams::default();
    let config = Config {
        ack_no_delay: true,
        ..Config::default()
    };
    let (mut a, mut b) = (Kcp::new(1, config), Kcp::new(1, config));
    a.send(b"x");
    a.flush(at(0), Flush::Full, &mut out);
    carry(&mut out, &mut b, at(7));
    assert_eq!(b.flush_wanted(), FlushWanted::AckOnly);
    b.flush(at(7), Flush::AckOnly, &mut out);
    assert_eq!(commands(&out.sent), [Command::Ack]);
    assert_eq!(b.poll_timeout(), None);
}

#[test]
fn write_delay_leaves_data_to_the_timer() {
    let mut out = Datagrams::default();
    let mut a = Kcp::new(
        1,
        Config {
            write_delay: true,
            ..Config::default()
        },
    );
    a.flush(at(100), Flush::Full, &mut out);
    a.send(b"hel");
    a.send(b"lo");
    assert_eq!(a.flush_wanted(), FlushWanted::None);
    assert_eq!(a.poll_timeout(), Some(at(130)));
    a.handle_timeout(at(130), &mut out);
    let sent = out.take();
    assert_eq!(sent.len(), 1);
    assert!(sent[0].ends_with(b"hello"));
}

#[test]
fn a_closed_window_is_asked_about_and_reopens() {
    let mut out = Datagrams::default();
    let config = Config {
        mtu: 50,
        rcv_wnd: 4,
        ..Config::default()
    };
    let (mut a, mut b) = (Kcp::new(1, config), Kcp::new(1, config));
    a.send(&xs(1, 26 * 12));
    a.flush(at(0), Flush::Full, &mut out);
    carry(&mut out, &mut b, at(1));
    b.handle_timeout(b.poll_timeout().expect("acknowledgements"), &mut out);
    carry(&mut out, &mut a, at(40));
    assert_eq!(a.remote_window(), 0);
    a.flush(at(40), Flush::Full, &mut out);
    out.take();
    // Four more are ahead of the full queue, four were beyond.
    assert_eq!((b.state().len_rcv_queue, b.state().len_rcv_buf), (4, 4));
    let mut asked = Vec::new();
    while asked.len() < 3 {
        let now = a.poll_timeout().expect("data waits");
        a.handle_timeout(now, &mut out);
        if commands(&out.take()).contains(&Command::WindowAsk) {
            asked.push(now.as_millis());
        }
    }
    assert_eq!(asked, [540, 540 + 750, 540 + 750 + 1125]);
    // Reading makes room: the other side is told without being asked.
    let mut got = Vec::new();
    for _ in 0..5 {
        b.recv(|d| got.extend_from_slice(d)).expect("queued");
    }
    assert_eq!(b.flush_wanted(), FlushWanted::AckOnly);
    b.flush(at(3000), Flush::AckOnly, &mut out);
    assert_eq!(commands(&out.sent), [Command::WindowTell]);
    carry(&mut out, &mut a, at(3001));
    assert_eq!(a.remote_window(), 1);
}

#[test]
fn a_probe_is_answered() {
    let mut out = Datagrams::default();
    let (mut a, mut b) = (
        Kcp::new(1, Config::default()),
        Kcp::new(1, Config::default()),
    );
    assert_eq!(a.last_heard(), None);
    a.probe(at(1000));
    assert_eq!(a.flush_wanted(), FlushWanted::AckOnly);
    a.flush(at(1000), Flush::AckOnly, &mut out);
    assert_eq!(commands(&out.sent), [Command::WindowAsk]);
    assert_eq!(a.poll_timeout(), None, "asked once");
    carry(&mut out, &mut b, at(1020));
    let due = b.poll_timeout().expect("an answer is owed");
    assert_eq!(due, at(1050));
    b.handle_timeout(due, &mut out);
    assert_eq!(commands(&out.sent), [Command::WindowTell]);
    carry(&mut out, &mut a, at(1070));
    assert_eq!(a.last_heard(), Some(at(1070)));
    assert_eq!(a.last_answer(), Some(at(1070)));
    assert_eq!(b.last_answer(), None);
    assert_eq!((a.poll_timeout(), b.poll_timeout()), (None, None));
}

#[test]
fn only_new_transmissions_raise_the_time_of_the_newest() {
    let mut out = Datagrams::default();
    let config = Config {
        write_delay: true,
        ..Config::default()
    };
    let (mut a, mut b) = (Kcp::new(1, config), Kcp::new(1, config));
    let mut at_ms = |a: &mut Kcp, ms| {
        a.flush(at(ms), Flush::Full, &mut out);
        std::mem::take(&mut out.sent)
    };
    a.send(b"one");
    let first = at_ms(&mut a, 1000);
    a.send(b"two");
    let second = at_ms(&mut a, 1001);
    let again = at_ms(&mut a, 5000);
    assert_eq!((first.len(), second.len(), again.len()), (1, 1, 1));
    let mut take = |datagrams: &[Vec<u8>], ms| {
        for d in datagrams {
            b.handle_datagram(at(ms), d, Origin::Wire).expect("sound");
        }
        b.newest_push().map(|t| t.0)
    };
    assert_eq!(take(&[], 1500), None);
    assert_eq!(take(&second, 1500), Some(1001));
    // It fills a gap, but left before what has arrived.
    assert_eq!(take(&first, 1500), Some(1001));
    assert_eq!(take(&second, 1600), Some(1001));
    // Nothing in it is new but its time.
    assert_eq!(take(&again, 5100), Some(5000));
    assert_eq!(take(&first, 5200), Some(5000));
}

#[test]
fn what_parity_brings_late_is_no_measurement() {
    for measure_repairs in [true, false] {
        let mut out = Datagrams::default();
        let config = Config {
            measure_repairs,
            ..Config::default()
        };
        let (mut a, mut b) = (Kcp::new(1, config), Kcp::new(1, config));
        let flush = |kcp: &mut Kcp, ms, out: &mut Datagrams| {
            kcp.flush(at(ms), Flush::Full, out);
            std::mem::take(&mut out.sent)
        };
        let take = |kcp: &mut Kcp, datagrams: &[Vec<u8>], ms, origin| {
            for d in datagrams {
                kcp.handle_datagram(at(ms), d, origin).expect("sound");
            }
        };
        // The first transmission gets lost, the second is acknowledged in 50 ms.
        a.send(b"one");
        let lost = flush(&mut a, 1000, &mut out);
        let again = flush(&mut a, 1200, &mut out);
        take(&mut b, &again, 1225, Origin::Wire);
        let answer = flush(&mut b, 1225, &mut out);
        take(&mut a, &answer, 1250, Origin::Wire);
        assert_eq!(a.srtt(), Some(Duration::from_millis(50)));
        // Parity brings the first one much later; and then one that nobody has sent again.
        take(&mut b, &lost, 2000, Origin::Recovered);
        let answer = flush(&mut b, 2000, &mut out);
        take(&mut a, &answer, 2025, Origin::Wire);
        a.send(b"two");
        let lost = flush(&mut a, 3000, &mut out);
        a.send(b"three");
        let next = flush(&mut a, 3050, &mut out);
        take(&mut b, &next, 3075, Origin::Wire);
        take(&mut b, &lost, 3075, Origin::Recovered);
        let answer = flush(&mut b, 3075, &mut out);
        take(&mut a, &answer, 3100, Origin::Wire);
        assert_eq!(a.waiting(), 0);
        let srtt = a.srtt().expect("measured");
        assert_eq!(
            srtt > Duration::from_millis(60),
            measure_repairs,
            "{srtt:?}"
        );
    }
}

#[test]
fn silence_is_measured_from_the_last_acknowledgement() {
    let mut out = Datagrams::default();
    let (mut a, mut b) = (
        Kcp::new(1, Config::default()),
        Kcp::new(1, Config::default()),
    );
    assert_eq!(a.unanswered_since(at(0)), None);
    a.send(b"x");
    a.flush(at(1000), Flush::Full, &mut out);
    assert_eq!(
        a.unanswered_since(at(1300)),
        Some(Duration::from_millis(300))
    );
    // A retransmission does not start it again, an acknowledgement does.
    a.handle_timeout(at(1300), &mut out);
    a.send(b"y");
    a.flush(at(1310), Flush::Full, &mut out);
    assert_eq!(
        a.unanswered_since(at(1400)),
        Some(Duration::from_millis(400))
    );
    let first = out.take().swap_remove(0);
    b.handle_datagram(at(1400), &first, Origin::Wire)
        .expect("sound");
    b.flush(at(1400), Flush::AckOnly, &mut out);
    carry(&mut out, &mut a, at(1450));
    assert_eq!(
        a.unanswered_since(at(1500)),
        Some(Duration::from_millis(50))
    );
}

#[test]
fn a_peer_that_started_anew_is_found_out() {
    // It still accepts what we send, because it lies in its first window.
    for (bytes, restart_at) in [(3000, 400), (9000, 300)] {
        let mut pair = pair(config(Profile::FAST2, 64), [bytes, 500], CALM, 4);
        pair.run(Duration::from_millis(restart_at));
        assert!(pair.ends[0].kcp.snd_una().0 > 0);
        pair.ends[1] = End::new(Kcp::new(3, config(Profile::FAST2, 64)), Vec::new());
        let more = xs(9, 2000);
        for piece in more.chunks(276) {
            pair.ends[0].kcp.send(piece);
            pair.pump(0);
            let until = pair.now + Duration::from_millis(30);
            while pair.step(until) {}
        }
        let until = pair.now + Duration::from_secs(1);
        while pair.step(until) {}
        assert!(pair.ends[0].kcp.peer_restarted());
        assert!(!pair.ends[1].kcp.peer_restarted());
    }
}

#[test]
fn a_restarted_peer_whose_window_does_not_reach_our_numbers_is_found_out_by_asking() {
    let mut pair = pair(config(Profile::FAST2, 16), [20_000, 0], CALM, 4);
    pair.run(MINUTE);
    pair.assert_done();
    // Asked while it remembers, it only proves that it does.
    for _ in 0..10 {
        let now = pair.now;
        pair.ends[0].kcp.probe(now);
        pair.pump(0);
        let until = now + Duration::from_millis(200);
        while pair.step(until) {}
        pair.now = until;
        let kcp = &pair.ends[0].kcp;
        assert!(kcp.last_answer() > Some(now) && !kcp.peer_restarted());
        assert!(!pair.ends[0].kcp.take_doubt());
    }
    assert_eq!(pair.ends[1].kcp.counters().repeat_segs, 10);
    pair.ends[1] = End::new(Kcp::new(3, config(Profile::FAST2, 16)), Vec::new());
    let before = pair.ends[0].kcp.last_answer();
    let start = pair.now;
    pair.ends[0].kcp.probe(start);
    for _ in 0..2 {
        assert!(!pair.ends[0].kcp.peer_restarted());
        pair.pump(0);
        let until = pair.now + Duration::from_millis(500);
        while pair.step(until) {}
        pair.now = until;
        if pair.ends[0].kcp.take_doubt() {
            assert!(pair.ends[0].kcp.challenge(until));
        }
    }
    let kcp = &pair.ends[0].kcp;
    assert!(kcp.peer_restarted());
    assert_eq!(kcp.last_answer(), before, "it is no answer");
    // What it was asked with never reaches its reader.
    assert!(!pair.ends[1].kcp.is_readable());
}

#[test]
fn a_peer_that_cannot_accept_is_only_silent() {
    let mut pair = pair(config(Profile::FAST2, 16), [20_000, 0], CALM, 4);
    pair.run(MINUTE);
    pair.assert_done();
    pair.ends[1] = End::new(Kcp::new(3, config(Profile::FAST2, 16)), Vec::new());
    pair.ends[0].kcp.send(b"anyone?");
    let start = pair.now;
    pair.pump(0);
    while pair.step(start + Duration::from_secs(3)) {}
    let kcp = &pair.ends[0].kcp;
    assert!(!kcp.peer_restarted());
    assert!(kcp.unanswered_since(pair.now) >= Some(Duration::from_secs(3)));
    assert!(kcp.unanswered_since(pair.now) > Some(8 * kcp.rto()));
}

#[test]
fn a_full_sink_loses_nothing() {
    let mut pair = pair(
        config(Profile::FAST, 128),
        [100_000, 100_000],
        Weather { loss: 5, ..CALM },
        11,
    );
    for end in &mut pair.ends {
        end.room = Some(2);
    }
    pair.run(10 * MINUTE);
    pair.assert_done();
}

#[test]
fn a_sink_without_room_gets_nothing_and_is_asked_again_later() {
    let mut out = Datagrams::default();
    out.room = Some(0);
    let mut a = Kcp::new(1, Config::default());
    a.send(b"x");
    a.flush(at(1000), Flush::Full, &mut out);
    assert!(out.take().is_empty());
    assert_eq!(a.flush_wanted(), FlushWanted::Full);
    assert_eq!(a.poll_timeout(), Some(at(1030)));
    out.room = Some(1);
    a.flush(at(1001), Flush::Full, &mut out);
    assert_eq!(out.take().len(), 1);
    assert_eq!(a.in_flight(), 1);
    // The same for what has to go again: now and then, not all the time.
    let due = a.poll_timeout().expect("a timeout");
    assert_eq!(due, at(1201));
    out.room = Some(0);
    a.handle_timeout(due, &mut out);
    assert_eq!(a.flush_wanted(), FlushWanted::Full);
    assert_eq!(a.poll_timeout(), Some(at(1231)));
    out.room = Some(1);
    a.handle_timeout(at(1231), &mut out);
    assert_eq!((out.take().len(), a.counters().lost_segs), (1, 1));
}

#[test]
fn a_small_sink_gets_a_large_resend_bit_by_bit() {
    let mut out = Datagrams::default();
    let mut a = Kcp::new(1, config(Profile::FAST, 32));
    a.send(&xs(1, 276 * 32));
    a.flush(at(0), Flush::Full, &mut out);
    assert_eq!(out.take().len(), 32);
    let mut again = Vec::new();
    for turn in 0..16 {
        out.room = Some(2);
        a.flush(at(500 + turn), Flush::Full, &mut out);
        let wanted = if turn < 15 {
            FlushWanted::Full
        } else {
            FlushWanted::None
        };
        assert_eq!(a.flush_wanted(), wanted, "turn {turn}");
        again.extend(out.take());
    }
    assert_eq!(a.counters().lost_segs, 32);
    for (i, d) in (0..).zip(&again) {
        assert_eq!(Format::LittleEndian.view(d).expect("header").sn(), Seq(i));
    }
}

#[test]
fn windows_that_are_too_small_are_named() {
    let local = Config {
        snd_wnd: 8,
        ..config(Profile::FAST3, 64)
    };
    let mut pair = pair(local, [200_000, 0], CALM, 5);
    pair.run(MINUTE);
    let limited = pair.ends[0].kcp.window_limited(pair.now);
    let all = Duration::from_millis(pair.now.as_millis());
    assert!(limited.local > all * 8 / 10, "{limited:?} of {all:?}");
    assert_eq!(limited.remote + limited.control, Duration::ZERO);
    let remote = Config {
        rcv_wnd: 8,
        ..config(Profile::FAST3, 64)
    };
    let mut pair = self::pair(remote, [200_000, 0], CALM, 5);
    pair.run(MINUTE);
    let limited = pair.ends[0].kcp.window_limited(pair.now);
    let all = Duration::from_millis(pair.now.as_millis());
    assert!(limited.remote > all * 8 / 10, "{limited:?} of {all:?}");
}

#[test]
fn memory_comes_back_after_a_burst() {
    let config = Config {
        max_payload: 276,
        ..config(Profile::FAST3, 4096)
    };
    let mut pair = pair(config, [3_000_000, 0], Weather { loss: 3, ..CALM }, 6);
    pair.run(MINUTE);
    pair.assert_done();
    for end in &mut pair.ends {
        assert!(end.kcp.held_bytes() < 5_000_000);
        end.kcp.release_memory();
        assert_eq!(end.kcp.held_bytes(), 0);
    }
    // And it still works.
    pair.ends[0].to_send.extend(xs(8, 5000));
    pair.run(MINUTE);
    pair.assert_done();
}

#[test]
fn warm_buffers_do_not_grow() {
    let mut pair = pair(config(Profile::FAST3, 256), [0, 0], CALM, 7);
    let mut held = [0; 2];
    for round in 0..6 {
        for end in &mut pair.ends {
            end.to_send.extend(xs(round + 10, 500_000));
        }
        pair.run(MINUTE);
        pair.assert_done();
        let now = [0, 1].map(|i| pair.ends[i].kcp.held_bytes());
        if round < 3 {
            held = [0, 1].map(|i| now[i].max(held[i]));
        } else {
            assert!(now[0] <= held[0] && now[1] <= held[1], "{now:?} {held:?}");
        }
    }
}

#[test]
fn big_endian_ends_understand_each_other_and_nobody_else() {
    let mut out = Datagrams::default();
    let mut big = Config::default();
    big.rules.format = Format::BigEndian;
    let mut a = Kcp::with_control(1, big, Classic::new(&big));
    let mut b = Kcp::new(1, big);
    let mut c = Kcp::new(1, Config::default());
    a.send(b"hello");
    a.flush(at(0), Flush::Full, &mut out);
    let d = out.take().swap_remove(0);
    assert!(c.handle_datagram(at(1), &d, Origin::Wire).is_err());
    b.handle_datagram(at(1), &d, Origin::Wire).expect("sound");
    assert_eq!(b.recv(<[u8]>::to_vec).as_deref(), Some(&b"hello"[..]));
}
