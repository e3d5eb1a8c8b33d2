//! The strategy that measures the path, between two machines on an emulated link. What it makes of a path's rate, queue and change is in
//! the tables of the session's simulator; here is what it does to single segments.

mod common;

use std::time::Duration;

use common::Datagrams;
use common::link::{CALM, End, Pair, Weather};
use fulmar_arq::{Config, DatagramSink, Flush, Kcp, Origin, SenderControl, Strategy, StrategyKind};
use fulmar_testkit::vectors::xs;
use fulmar_wire::kcp::{Command, Format, HEADER_LEN, Header};
use fulmar_wire::seq::Seq;
use fulmar_wire::time::Instant;
use proptest::prelude::*;

fn config() -> Config {
    Config {
        mtu: 224,
        strategy: StrategyKind::Auto,
        snd_wnd: 65_535,
        rcv_wnd: 4096,
        measure_repairs: false,
        ..Config::default()
    }
}

fn pair(bytes: [usize; 2], weather: Weather, seed: u64, ranges: bool) -> Pair<Strategy> {
    let end = |i: u32, n| {
        let mut kcp = Kcp::new(3, config());
        kcp.send_ack_ranges(ranges);
        End::new(kcp, xs(i, n))
    };
    Pair::new(end(1, bytes[0]), end(2, bytes[1]), weather, seed, 1000)
}

/// The segments of a datagram: command, number, bytes of data.
fn segments(mut datagram: &[u8]) -> Vec<(Command, Seq, usize)> {
    let mut found = Vec::new();
    while datagram.len() >= HEADER_LEN {
        let (header, data, rest) = Format::LittleEndian
            .view(datagram)
            .and_then(|v| v.parse())
            .expect("sound");
        found.push((header.command, header.sn, data.len()));
        datagram = rest;
    }
    found
}

#[test]
fn everything_arrives_at_every_loss() {
    for loss in [0, 1, 10, 25, 40] {
        for ranges in [false, true] {
            let weather = Weather {
                jitter: 3,
                loss,
                duplicate: 2,
                reorder: 5,
                late: 30,
                ..CALM
            };
            let mut pair = pair([300_000, 40_000], weather, loss, ranges);
            pair.run(Duration::from_secs(600));
            pair.assert_done();
        }
    }
}

#[test]
fn with_ranges_little_more_is_sent_again_than_was_lost() {
    for loss in [1, 5, 10, 20] {
        let weather = Weather { loss, ..CALM };
        let again = |ranges| {
            let mut pair = pair([2_000_000, 0], weather, loss, ranges);
            pair.run(Duration::from_secs(600));
            pair.assert_done();
            let sent = 2_000_000 / 200;
            pair.ends[0].kcp.counters().retrans_segs * 1000 / sent
        };
        let (with, without) = (again(true), again(false));
        // What is lost is sent again, and so is what of that is lost.
        let needed = 1000 * loss / (100 - loss);
        assert!(
            with <= needed * 5 / 4 + 12,
            "{loss} %: {with} per mille, needed {needed}"
        );
        assert!(
            with <= without,
            "{loss} %: {with} with ranges, {without} without"
        );
    }
}

#[test]
fn reordering_is_learned() {
    let weather = Weather {
        reorder: 20,
        late: 15,
        ..CALM
    };
    let mut pair = pair([1_000_000, 0], weather, 1, true);
    pair.run(Duration::from_secs(600));
    pair.assert_done();
    let path = pair.ends[0].kcp.path().expect("auto tells");
    let again = pair.ends[0].kcp.counters().retrans_segs;
    assert!(again < 5_000 / 50, "{again} of 5000 sent again, {path:?}");
}

#[test]
fn a_silent_path_is_probed_ever_less_often() {
    let mut a = Kcp::new(1, config());
    let mut out = Datagrams::default();
    let mut now = Instant::from_millis(1000);
    a.send(&[7; 5000]);
    a.flush(now, Flush::Full, &mut out);
    // The rest of the first flight leaves at its pace.
    while a.in_flight() < 25 {
        now = a.poll_timeout().expect("more to send");
        a.handle_timeout(now, &mut out);
    }
    out.take();
    let mut gaps = Vec::new();
    for _ in 0..10 {
        let at = a.poll_timeout().expect("something is in flight");
        gaps.push(at.since(now));
        now = at;
        a.handle_timeout(now, &mut out);
        // The oldest and the newest.
        let numbers: Vec<_> = out
            .take()
            .iter()
            .flat_map(|d| segments(d))
            .map(|s| s.1)
            .collect();
        assert_eq!(numbers.first(), Some(&Seq(0)));
        assert_eq!(numbers.last(), Some(&Seq(24)));
        assert!(numbers.len() == 2, "{numbers:?}");
    }
    assert!(gaps.windows(2).all(|w| w[0] <= w[1]), "{gaps:?}");
    assert_eq!(gaps.last(), Some(&Duration::from_secs(1)));
    assert_eq!(a.counters().probed_segs, 20);
}

#[test]
fn a_sparse_segment_goes_out_as_often_as_asked() {
    for copies in 0..=3u8 {
        let mut a = Kcp::new(1, config());
        a.control_mut().set_copies(copies);
        let mut out = Datagrams::default();
        let mut now = Instant::from_millis(1000);
        a.send_as(&[1; 50], true);
        a.flush(now, Flush::Full, &mut out);
        // The first copy at once, in a datagram of its own.
        assert_eq!(out.take().len(), 1 + usize::from(copies.min(1)));
        // One further copy goes along with the next message.
        now += Duration::from_millis(3);
        a.send_as(&[2; 50], true);
        a.flush(now, Flush::Full, &mut out);
        let datagrams = out.take();
        let numbers: Vec<_> = segments(&datagrams[0]).iter().map(|s| s.1.0).collect();
        assert_eq!(numbers, if copies > 1 { vec![0, 1] } else { vec![1] });
        // What found no company leaves by itself; bulk gets none.
        while a.counters().copied_segs < 2 * u64::from(copies) {
            now = a.poll_timeout().expect("a copy is owed");
            a.handle_timeout(now, &mut out);
        }
        assert!(now <= Instant::from_millis(1100));
        out.take();
        let before = a.counters().copied_segs;
        a.send(&[3; 50]);
        a.flush(now, Flush::Full, &mut out);
        assert_eq!(a.counters().copied_segs, before);
    }
}

#[test]
fn without_copies_there_are_none() {
    let config = Config {
        copies: false,
        ..config()
    };
    let mut a = Kcp::new(1, config);
    a.control_mut().set_copies(3);
    let mut out = Datagrams::default();
    a.send_as(&[1; 50], true);
    a.flush(Instant::from_millis(1), Flush::Full, &mut out);
    assert_eq!((out.take().len(), a.counters().copied_segs), (1, 0));
}

#[test]
fn what_has_not_left_is_cut_anew_when_datagrams_become_smaller() {
    let (mut a, mut b) = (Kcp::new(1, config()), Kcp::new(1, config()));
    let data = xs(1, 1500);
    a.send(&data);
    a.set_datagram_size(124);
    assert_eq!(a.mss(), 100);
    let mut out = Datagrams::default();
    let now = Instant::from_millis(1000);
    a.flush(now, Flush::Full, &mut out);
    let mut got = Vec::new();
    for datagram in out.take() {
        assert!(datagram.len() <= 124);
        b.handle_datagram(now, &datagram, Origin::Wire)
            .expect("sound");
    }
    while let Some(part) = b.recv(<[u8]>::to_vec) {
        got.extend(part);
    }
    assert!(!got.is_empty() && data.starts_with(&got));
    // Never more than what it was built for.
    a.set_datagram_size(5000);
    assert_eq!(a.mss(), 200);
}

#[test]
fn datagrams_are_filled_only_to_the_size_that_passes() {
    let mut a = Kcp::new(1, config());
    a.set_datagram_size(124);
    a.send(&xs(1, 100));
    let (mut out, now) = (Datagrams::default(), Instant::from_millis(1000));
    a.flush(now, Flush::Full, &mut out);
    // A short one after a full one, both lost: together they are more than passes, and less than it was built for.
    a.send(&xs(2, 40));
    a.flush(now, Flush::Full, &mut out);
    assert!(!out.take().is_empty());
    let mut now = now;
    let mut again = 0;
    while again < 4 {
        now += Duration::from_millis(10);
        a.handle_timeout(now, &mut out);
        for datagram in out.take() {
            assert!(datagram.len() <= 124, "{}", datagram.len());
            again += 1;
        }
        assert!(now < Instant::from_millis(20_000));
    }
}

#[test]
fn an_answer_to_another_question_says_nothing_of_sizes() {
    let (mut a, mut b) = (Kcp::new(1, config()), Kcp::new(1, Config::default()));
    let (mut out, now) = (Datagrams::default(), Instant::from_millis(1000));
    a.probe_size(now, 1400);
    a.flush(now, Flush::AckOnly, &mut out);
    // That one is lost.
    assert_eq!(out.take()[0].len(), 1400);
    a.probe(now);
    a.flush(now, Flush::AckOnly, &mut out);
    for datagram in out.take() {
        b.handle_datagram(now, &datagram, Origin::Wire)
            .expect("sound");
    }
    b.flush(now, Flush::AckOnly, &mut out);
    for answer in out.take() {
        a.handle_datagram(now, &answer, Origin::Wire)
            .expect("sound");
    }
    assert!(!a.take_size_answer());
}

#[test]
fn a_question_of_any_size_is_answered() {
    let (mut a, mut b) = (Kcp::new(1, config()), Kcp::new(1, Config::default()));
    let (mut out, now) = (Datagrams::default(), Instant::from_millis(1000));
    for size in [HEADER_LEN, 200, 1400, 1500] {
        a.probe_size(now, size);
        assert!(!a.take_size_answer());
        a.flush(now, Flush::AckOnly, &mut out);
        let question = out.take();
        assert_eq!(question.iter().map(Vec::len).collect::<Vec<_>>(), [size]);
        b.handle_datagram(now, &question[0], Origin::Wire)
            .expect("sound");
        b.flush(now, Flush::AckOnly, &mut out);
        for answer in out.take() {
            a.handle_datagram(now, &answer, Origin::Wire)
                .expect("sound");
        }
        assert!(a.take_size_answer());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Acknowledgements of any ranges neither panic nor make it send what it has not, and what they leave open is sent again.
    #[test]
    fn any_ranges_are_borne(una in 0u32..70, sn in 0u32..70, data in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut a = Kcp::new(1, config());
        let mut out = Datagrams::default();
        let mut now = Instant::from_millis(1000);
        a.send(&[7; 200 * 40]);
        for _ in 0..60 {
            a.flush(now, Flush::Full, &mut out);
            now += Duration::from_millis(1);
        }
        out.take();
        let header = Header {
            conv: 1,
            command: Command::Ack,
            frg: 0,
            wnd: 100,
            ts: now.wire_millis(),
            sn: Seq(sn),
            una: Seq(una),
            len: u32::try_from(data.len()).expect("short"),
        };
        let mut ack = Format::LittleEndian.emit(&header).to_vec();
        ack.extend_from_slice(&data);
        a.handle_datagram(now, &ack, Origin::Wire).expect("sound");
        prop_assert!(a.in_flight() <= 40);
        for _ in 0..100 {
            let Some(at) = a.poll_timeout() else { break };
            now = now.max(at);
            a.handle_timeout(now, &mut out);
        }
        for (command, sn, _) in out.take().iter().flat_map(|d| segments(d)) {
            prop_assert!(command != Command::Push || sn.before(Seq(40)));
        }
        let _ = out.room();
    }
}

/// Pieces that are a little longer than a segment, as frames with their headers are, given whenever there is room: how long the
/// segments are that leave within `turns` of a peer that acknowledges each.
fn lengths_of_a_long_transfer(window: u32, turns: usize) -> Vec<usize> {
    let mut kcp = Kcp::new(
        3,
        Config {
            snd_wnd: window,
            ..config()
        },
    );
    let piece = vec![7; kcp.mss() + 4];
    let mut out = Datagrams::default();
    let mut lengths = Vec::new();
    let mut now = Instant::from_millis(1_000);
    for _ in 0..turns {
        while kcp.has_room() {
            kcp.send(&piece);
        }
        kcp.more_follows(true);
        kcp.flush(now, Flush::Full, &mut out);
        let mut last: Option<Seq> = None;
        for datagram in out.take() {
            for (command, sn, len) in segments(&datagram) {
                if command == Command::Push {
                    lengths.push(len);
                    last = Some(last.map_or(sn, |l| if l.before(sn) { sn } else { l }));
                }
            }
        }
        let sent = now;
        let Some(last) = last else {
            now = kcp.poll_timeout().expect("something waits").max(now);
            continue;
        };
        now += Duration::from_millis(1);
        let ack = Format::LittleEndian.emit(&Header {
            conv: 3,
            command: Command::Ack,
            frg: 0,
            wnd: 4096,
            ts: sent.wire_millis(),
            sn: last,
            una: last.next(),
            len: 0,
        });
        kcp.handle_datagram(now, &ack, Origin::Wire).expect("sound");
    }
    lengths
}

#[test]
fn rests_of_frames_take_no_room_in_a_window() {
    let lengths = lengths_of_a_long_transfer(4096, 400);
    let full = lengths.iter().filter(|n| **n == config().mss()).count();
    assert!(lengths.len() > 400, "{}", lengths.len());
    assert_eq!(full, lengths.len());
}

#[test]
fn a_rest_that_fills_the_window_leaves_all_the_same() {
    for window in [1, 2, 3] {
        let lengths = lengths_of_a_long_transfer(window, 400);
        assert!(lengths.len() >= 200, "{window}: {}", lengths.len());
    }
}
