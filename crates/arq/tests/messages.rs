//! Message mode (docs/spec/kcptun2016.md, section 6): what a reader of that time makes of our segments, and what we make of its.

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::Datagrams;
use common::link::{CALM, End, Pair, Weather};
use fulmar_arq::{Config, Flush, Kcp, Origin, Profile, StrategyKind};
use fulmar_testkit::vectors::xs;
use fulmar_wire::kcp::{Command, Format, HEADER_LEN, Header};
use fulmar_wire::seq::Seq;
use fulmar_wire::time::{Instant, Millis};

const STORM: Weather = Weather {
    jitter: 5,
    loss: 10,
    duplicate: 3,
    reorder: 5,
    late: 40,
    ..CALM
};

fn config(max_fragments: u8, strategy: StrategyKind) -> Config {
    Config {
        mtu: 300,
        max_fragments,
        strategy,
        profile: Profile::FAST3,
        snd_wnd: 200,
        rcv_wnd: 200,
        measure_repairs: false,
        ..Config::default()
    }
}

/// Data segments by number, each with what follows it in its message; every copy of a segment has to say the same.
fn segments(datagrams: &[Vec<u8>]) -> BTreeMap<u32, (u8, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for datagram in datagrams {
        let mut rest = &datagram[..];
        while rest.len() >= HEADER_LEN {
            let view = Format::LittleEndian.view(rest).expect("whole");
            let (header, data, behind) = view.parse().expect("sound");
            rest = behind;
            if header.command == Command::Push {
                let this = (header.frg, data.to_vec());
                let first = found.entry(header.sn.0).or_insert_with(|| this.clone());
                assert_eq!(*first, this, "segment {}", header.sn.0);
            }
        }
    }
    found
}

/// What the reader of that time hands out: it waits until as many segments as the first one announces are there, and then takes all up
/// to the one that nothing follows. `window` is all it ever has room for.
fn messages(segments: &BTreeMap<u32, (u8, Vec<u8>)>, window: usize) -> Vec<Vec<u8>> {
    let mut queue = segments.values();
    let mut out = Vec::new();
    while let Some((frg, data)) = queue.next() {
        assert!(usize::from(*frg) < window, "it would wait for ever");
        assert!(queue.len() >= usize::from(*frg), "announced and not there");
        let (mut message, mut more) = (data.clone(), *frg);
        while more > 0 {
            let (frg, data) = queue.next().expect("announced");
            message.extend_from_slice(data);
            more = *frg;
        }
        out.push(message);
    }
    out
}

#[test]
fn every_write_that_is_longer_than_a_segment_is_a_message() {
    for strategy in [StrategyKind::Classic, StrategyKind::Auto] {
        for weather in [CALM, STORM] {
            for write in [1, 12, 276, 277, 4000] {
                let sent = xs(1, 60_000.min(write * 200));
                let end = || Kcp::new(3, config(128, strategy));
                let mut pair = Pair::new(
                    End::new(end(), sent.clone()),
                    End::new(end(), xs(2, 5_000)),
                    weather,
                    7,
                    0,
                );
                pair.ends[0].write = write;
                pair.run(Duration::from_secs(120));
                pair.assert_done();
                let got = messages(&segments(&pair.heard[1]), 128);
                assert!(got.concat() == sent);
                let want: Vec<_> = sent.chunks(write).map(<[u8]>::to_vec).collect();
                if write > 276 {
                    assert!(got == want, "{} of {} messages", got.len(), want.len());
                } else {
                    // Joined, but for the first one.
                    assert_eq!(got[0], want[0]);
                    assert!(got.iter().all(|m| m.len() <= 2 * 276), "{write}");
                }
            }
        }
    }
}

/// What is small shares segments, but for the first.
#[test]
fn small_messages_are_joined() {
    let mut kcp = Kcp::new(3, config(128, StrategyKind::Classic));
    for i in 0..40 {
        kcp.send(&[i; 12]);
        kcp.end_message();
    }
    let mut out = Datagrams::default();
    kcp.flush(Instant::from_millis(10), Flush::Full, &mut out);
    let all = segments(&out.take());
    let lens: Vec<_> = all.values().map(|(frg, data)| (*frg, data.len())).collect();
    // The second begins in the datagram of the first and ends with the frame that goes beyond it.
    let sum: usize = lens.iter().map(|(_, len)| len).sum();
    assert_eq!(sum, 40 * 12);
    assert_eq!(lens[0], (0, 12));
    assert!(lens.len() <= 5, "{lens:?}");
    messages(&all, 128);
}

/// More than the other end may have room for at once is several messages.
#[test]
fn long_messages_are_split() {
    let mut kcp = Kcp::new(3, config(5, StrategyKind::Classic));
    kcp.send(&[7; 276 * 12]);
    kcp.end_message();
    let mut out = Datagrams::default();
    kcp.flush(Instant::from_millis(10), Flush::Full, &mut out);
    let mut all = BTreeMap::new();
    for round in 0..10 {
        let sent = out.take();
        all.extend(segments(&sent));
        let una = Seq(all.len() as u32);
        let ack = Header {
            conv: 3,
            command: Command::Ack,
            frg: 0,
            wnd: 128,
            ts: Millis(10 * round),
            sn: Seq(una.0.wrapping_sub(1)),
            una,
            len: 0,
        };
        let now = Instant::from_millis(u64::from(10 * round) + 20);
        kcp.handle_datagram(now, &Format::LittleEndian.emit(&ack), Origin::Wire)
            .expect("sound");
        kcp.flush(now, Flush::Full, &mut out);
    }
    let frgs: Vec<_> = all.values().map(|(frg, _)| *frg).collect();
    assert_eq!(frgs, [1, 0, 4, 3, 2, 1, 0, 4, 3, 2, 1, 0]);
    assert!(messages(&all, 5).concat() == [7; 276 * 12]);
}

/// A path that turns out to carry less: what has not been sent is cut anew, and the reader still finds every end.
#[test]
fn messages_survive_another_size() {
    for part in [0, 1, 3, 20] {
        let mut kcp = Kcp::new(3, config(128, StrategyKind::Classic));
        let sent = xs(3, 3 * 4000);
        for message in sent.chunks(4000) {
            kcp.send(message);
            kcp.end_message();
        }
        let mut out = Datagrams::default();
        out.room = Some(part);
        kcp.flush(Instant::from_millis(10), Flush::Full, &mut out);
        kcp.set_datagram_size(100);
        out.room = None;
        let mut all = segments(&out.take());
        for round in 2..20 {
            let now = Instant::from_millis(10 * round);
            let una = Seq(all.len() as u32);
            let ack = Header {
                conv: 3,
                command: Command::Ack,
                frg: 0,
                wnd: 200,
                ts: Millis(10),
                sn: Seq(una.0.wrapping_sub(1)),
                una,
                len: 0,
            };
            kcp.handle_datagram(now, &Format::LittleEndian.emit(&ack), Origin::Wire)
                .expect("sound");
            kcp.flush(now, Flush::Full, &mut out);
            all.extend(segments(&out.take()));
        }
        let got = messages(&all, 128);
        let cut: Vec<_> = got
            .iter()
            .scan(0, |sum, m| {
                *sum += m.len();
                Some(*sum)
            })
            .collect();
        // However a message was split, each write still ends with one.
        for end in [4000, 8000, 12_000] {
            assert!(cut.contains(&end), "{part}: {cut:?}");
        }
        assert!(got.concat() == sent);
    }
}

/// Our reader takes fragments as they come, and knows where a message ends.
#[test]
fn received_fragments_tell_where_a_message_ends() {
    for max_fragments in [0, 128] {
        let mut kcp = Kcp::new(3, config(max_fragments, StrategyKind::Classic));
        for (sn, frg) in [(1u32, 1u8), (0, 2), (2, 0), (3, 0)] {
            let header = Header {
                conv: 3,
                command: Command::Push,
                frg,
                wnd: 128,
                ts: Millis(1),
                sn: Seq(sn),
                una: Seq(0),
                len: 1,
            };
            let mut datagram = Format::LittleEndian.emit(&header).to_vec();
            datagram.push(sn as u8);
            kcp.handle_datagram(Instant::from_millis(5), &datagram, Origin::Wire)
                .expect("sound");
        }
        let got: Vec<_> =
            std::iter::from_fn(|| kcp.recv_fragment(|data, last| (data[0], last))).collect();
        assert_eq!(got, [(0, false), (1, false), (2, true), (3, true)]);
    }
}
