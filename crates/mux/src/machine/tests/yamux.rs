//! What is particular to yamux: its frames, what lies about them, peers of 2016 and how two Fulmar ends recognise each other.

use super::*;
use crate::{OpenError, ReadState, WriteState};
use core::time::Duration;
use fulmar_testkit::vectors::{self, bytes};
use fulmar_wire::yamux::{
    Flags, HEADER_LEN as HEAD, Header as YamuxHeader, Hello as YamuxHello, INITIAL_WINDOW,
    ParseError, Type,
};
use proptest::prelude::*;

const START: Instant = Instant::from_millis(7);

fn at(millis: u64) -> Instant {
    START + Duration::from_millis(millis)
}

fn end(role: Role, change: impl FnOnce(&mut Config)) -> Mux {
    let mut config = Config::new(Protocol::Yamux, role);
    change(&mut config);
    Mux::new(config, START).expect("valid")
}

/// A frame; `length` is that of `payload` for data.
fn says(kind: Type, flags: u16, stream: u32, length: u32) -> Vec<u8> {
    let header = YamuxHeader {
        kind,
        flags: Flags(flags),
        stream,
        length,
    };
    header.to_bytes().to_vec()
}

fn syn(id: u32) -> Vec<u8> {
    says(Type::WindowUpdate, 1, id, 0)
}

fn data(id: u32, payload: &[u8]) -> Vec<u8> {
    [
        says(Type::Data, 0, id, payload.len() as u32),
        payload.to_vec(),
    ]
    .concat()
}

/// The headers in `bytes`, which are whole frames.
fn headers(mut bytes: &[u8]) -> Vec<(Type, u16, u32, u32)> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let h = YamuxHeader::parse(bytes).expect("a header");
        all.push((h.kind, h.flags.0, h.stream, h.length));
        let body = if h.kind == Type::Data { h.length } else { 0 };
        bytes = &bytes[HEAD + body as usize..];
    }
    all
}

/// An acceptor that has heard the ping of a peer of that time.
fn acceptor(change: impl FnOnce(&mut Config)) -> Mux {
    let mut b = end(Role::Acceptor, change);
    assert!(drain(&mut b, START).is_empty(), "it does not speak first");
    b.handle_input(START, &says(Type::Ping, 1, 0, 0))
        .expect("sound");
    assert_eq!(headers(&drain(&mut b, START)), [(Type::Ping, 2, 0, 0)]);
    assert_eq!(events(&mut b), [Event::PeerPlain]);
    b
}

fn opened(seen: &[Event]) -> Vec<StreamId> {
    let id = |e: &Event| match e {
        Event::Opened(id) => Some(*id),
        _ => None,
    };
    seen.iter().filter_map(id).collect()
}

#[test]
fn frames_of_a_stream() {
    let mut a = end(Role::Opener, |c| {
        c.hello = false;
        c.stream_buffer = 300_000;
    });
    let id = a.open(START).expect("open");
    assert_eq!(id.wire(), 1);
    a.write(id, b"hello").expect("room");
    a.finish(START, id);
    // Held, as one of 2016 would drop the answer.
    let sent = drain(&mut a, START);
    assert_eq!(
        headers(&sent),
        [
            (Type::WindowUpdate, 1, 1, 300_000 - INITIAL_WINDOW),
            (Type::Data, 0, 1, 5)
        ]
    );
    a.handle_input(START, &says(Type::WindowUpdate, 2, 1, 0))
        .expect("sound");
    a.handle_input(START, &data(1, &[7; 160_000]))
        .expect("sound");
    assert_eq!(read(&mut a, START, id).len(), 160_000);
    assert_eq!(
        headers(&drain(&mut a, START)),
        [(Type::WindowUpdate, 0, 1, 160_000)],
        "credit is what was read, when that is half of the window"
    );
    a.handle_input(START, &says(Type::WindowUpdate, 4, 1, 0))
        .expect("sound");
    assert_eq!(
        headers(&drain(&mut a, START)),
        [(Type::WindowUpdate, 4, 1, 0)]
    );
    assert_eq!(a.read_state(id), ReadState::Finished);
    a.close(START, id);
    assert_eq!(a.streams(), 0);
    assert_eq!(a.open(START).map(StreamId::wire), Ok(3));
}

/// One `ACK` for each stream, and before anything else is said of it.
#[test]
fn every_stream_is_acknowledged_once() {
    let mut b = acceptor(|_| ());
    for id in [1, 3, 5] {
        b.handle_input(START, &[syn(id), data(id, b"abc")].concat())
            .expect("sound");
    }
    let streams = opened(&events(&mut b));
    // Answered, closed and cut before a frame could leave.
    b.write(streams[0], b"x").expect("room");
    b.close(START, streams[1]);
    b.reset(streams[2], ResetReason::REFUSED);
    let sent = headers(&drain(&mut b, START));
    for id in [1, 3, 5] {
        let acks = sent.iter().filter(|h| h.1 & 2 != 0 && h.2 == id).count();
        assert_eq!(acks, 1, "{sent:?}");
        let first = sent.iter().find(|h| h.2 == id).expect("a frame");
        assert_eq!(first.1, 2, "{sent:?}");
        assert!(sent.iter().all(|h| h.1.count_ones() <= 1), "{sent:?}");
    }
    let last = |id| sent.iter().rfind(|h| h.2 == id).expect("a frame").1;
    assert_eq!([last(1), last(3), last(5)], [0, 4, 8]);
    // Whatever the peer says of it from now on.
    b.handle_input(START, &says(Type::WindowUpdate, 2, 1, 5))
        .expect("sound");
    assert!(headers(&drain(&mut b, START)).is_empty());
}

#[test]
fn streams_beyond_the_backlog_are_refused_one_by_one() {
    let mut b = acceptor(|c| c.max_streams = 10);
    let limit = 10 + 256;
    for i in 0..limit + 20 {
        b.handle_input(START, &syn(2 * i + 1)).expect("sound");
    }
    let sent = headers(&drain(&mut b, START));
    assert_eq!(sent.iter().filter(|h| h.1 == 2).count() as u32, limit + 20);
    let refused: Vec<_> = sent.iter().filter(|h| h.1 == 8).map(|h| h.2).collect();
    assert_eq!(refused.len(), 20);
    assert!(refused.iter().all(|id| *id > 2 * limit));
    assert_eq!(b.counters().streams_refused, 20);
    // Who goes on without taking the refusals is not served.
    let mut b = acceptor(|c| c.max_streams = 10);
    let flood = (0..).map(|i| b.handle_input(START, &syn(2 * i + 1)));
    let (n, error) = flood
        .enumerate()
        .find_map(|(n, r)| Some((n, r.err()?)))
        .expect("it ends");
    assert_eq!(error, Error::TooManyStreams { limit });
    assert_eq!(n as u32, 2 * limit);
}

#[test]
fn what_cannot_be_ends_the_session() {
    for (bytes, error) in [
        (vec![1; HEAD], Error::BadFrame(ParseError::Version(1))),
        (
            [&[0, 4][..], &[0; 10]].concat(),
            Error::BadFrame(ParseError::Type(4)),
        ),
        (syn(0), Error::BadStream { stream: 0 }),
        (syn(2), Error::BadStream { stream: 2 }),
        ([syn(1), syn(1)].concat(), Error::BadStream { stream: 1 }),
        (
            [syn(1), says(Type::Data, 0, 1, INITIAL_WINDOW + 1)].concat(),
            Error::WindowOverrun {
                stream: 1,
                unread: u64::from(INITIAL_WINDOW) + 1,
            },
        ),
        (
            [syn(1), says(Type::Data, 0, 1, u32::MAX)].concat(),
            Error::WindowOverrun {
                stream: 1,
                unread: u64::from(u32::MAX),
            },
        ),
        (says(Type::GoAway, 0, 0, 1), Error::GoneAway(1)),
        (says(Type::GoAway, 0, 0, 2), Error::GoneAway(2)),
        (
            says(Type::GoAway, 0, 0, u32::MAX),
            Error::GoneAway(u32::MAX),
        ),
    ] {
        for cut in [1, 5, 100] {
            let mut b = acceptor(|c| c.stream_buffer = INITIAL_WINDOW);
            let mut pieces = bytes.chunks(cut);
            let got = pieces.find_map(|piece| b.handle_input(START, piece).err());
            assert_eq!(got, Some(error), "{bytes:?}");
            assert_eq!(b.error(), Some(error));
            assert!(!b.has_frames());
        }
    }
}

/// Nonsense that an honest peer may say, or that costs nobody but its sender.
#[test]
fn frames_about_nothing_are_counted() {
    let mut b = acceptor(|_| ());
    let nothing = [
        data(77, b"ghost"),
        says(Type::WindowUpdate, 0, 77, u32::MAX),
        says(Type::WindowUpdate, 4, 77, 0),
        says(Type::WindowUpdate, 8, 77, 0),
        says(Type::WindowUpdate, 2, 77, 0),
        says(Type::Data, 0, 0, 3),
        b"zzz".to_vec(),
        // Answers to pings that nobody asked.
        says(Type::Ping, 2, 0, 12),
        says(Type::GoAway, 0, 0, 0),
    ];
    b.handle_input(START, &nothing.concat()).expect("sound");
    assert_eq!(b.counters().frames_unknown, 6);
    assert_eq!(b.counters().bytes_skipped, 8);
    assert_eq!(b.streams(), 0);
    // A stream of which everything is said twice, with all flags at once.
    b.handle_input(
        START,
        &[
            says(Type::Data, 1 | 4, 1, 2),
            b"ab".to_vec(),
            says(Type::WindowUpdate, 4, 1, 0),
            says(Type::Data, 0, 1, 4),
            b"late".to_vec(),
        ]
        .concat(),
    )
    .expect("sound");
    let streams = opened(&events(&mut b));
    assert_eq!(read(&mut b, START, streams[0]), b"ab");
    assert_eq!(b.read_state(streams[0]), ReadState::Finished);
    assert_eq!(b.counters().fins_repeated, 1);
    b.handle_input(START, &says(Type::Data, 1 | 2 | 4 | 8, 3, 0))
        .expect("sound");
    assert_eq!(opened(&events(&mut b)), [], "nobody heard of it");
    check(&b);
}

#[test]
fn credit_is_added_up_and_never_overflows() {
    let mut a = end(Role::Opener, |c| {
        c.hello = false;
        c.send_buffer = 1 << 20;
    });
    let id = a.open(START).expect("open");
    a.write(id, &vec![1; 1 << 20]).expect("room");
    let sent = |a: &mut Mux| -> usize {
        headers(&drain(a, START))
            .iter()
            .filter(|h| h.0 == Type::Data)
            .map(|h| h.3 as usize)
            .sum()
    };
    assert_eq!(sent(&mut a), INITIAL_WINDOW as usize);
    assert!(a.stream_info(id).expect("held").window_closed);
    a.handle_input(START, &says(Type::WindowUpdate, 2, 1, 1000))
        .expect("sound");
    assert_eq!(sent(&mut a), 1000);
    // Twice half of all there is: counted modulo 2^32 that were nothing.
    for _ in 0..2 {
        a.handle_input(START, &says(Type::WindowUpdate, 0, 1, 1 << 31))
            .expect("sound");
    }
    assert_eq!(sent(&mut a), (1 << 20) - INITIAL_WINDOW as usize - 1000);
}

#[test]
fn pings_are_answered_and_floods_are_not() {
    let mut b = acceptor(|_| ());
    for value in 0..1000 {
        b.handle_input(START, &says(Type::Ping, 1, 0, value))
            .expect("sound");
    }
    let sent = headers(&drain(&mut b, START));
    assert!(sent.len() <= 16, "{}", sent.len());
    assert_eq!(sent[3], (Type::Ping, 2, 0, 3));
    assert!(!b.has_frames());
}

#[test]
fn a_peer_that_goes_away_gets_no_new_streams() {
    let mut a = end(Role::Opener, |_| ());
    let id = a.open(START).expect("open");
    a.handle_input(START, &says(Type::GoAway, 0, 0, 0))
        .expect("sound");
    assert_eq!(a.open(START), Err(OpenError::GoingAway));
    assert_eq!(a.write(id, b"goes on"), Ok(7));
}

/// The last frame of a session, also of one that failed; not to somebody who has not spoken.
#[test]
fn a_session_that_ends_says_so() {
    let mut b = acceptor(|_| ());
    b.handle_input(START, &syn(1)).expect("sound");
    assert!(b.farewell(false));
    assert_eq!(headers(&drain(&mut b, START))[0], (Type::GoAway, 0, 0, 2));
    let mut b = acceptor(|_| ());
    b.handle_input(START, &syn(2)).expect_err("not theirs");
    assert!(!b.has_frames());
    assert!(b.farewell(true));
    assert_eq!(headers(&drain(&mut b, START)), [(Type::GoAway, 0, 0, 1)]);
    assert!(!end(Role::Acceptor, |_| ()).farewell(false));
    let mut a = end(Role::Opener, |_| ());
    a.handle_input(START, &says(Type::Ping, 1, 0, 0))
        .expect("sound");
    assert_eq!(
        a.handle_input(START, &says(Type::GoAway, 0, 0, 2)),
        Err(Error::GoneAway(2))
    );
}

#[test]
fn keep_alives_count_and_silence_ends() {
    let mut a = end(Role::Opener, |c| c.hello = false);
    let mut pings = Vec::new();
    let mut error = None;
    for _ in 0..10 {
        let due = a.poll_timeout().expect("it lives");
        error = a.handle_timeout(due).err();
        if error.is_some() {
            break;
        }
        pings.extend(headers(&drain(&mut a, due)));
        if pings.len() < 3 {
            // An answer is a sign of life.
            a.handle_input(due, &says(Type::Ping, 2, 0, 0))
                .expect("sound");
        }
    }
    assert_eq!(error, Some(Error::PeerSilent));
    assert_eq!(pings[..3], [0, 1, 2].map(|value| (Type::Ping, 1, 0, value)));
    // An acceptor that nobody has spoken to says nothing.
    let mut b = end(Role::Acceptor, |_| ());
    b.handle_timeout(at(31_000)).expect("in time");
    assert!(!b.has_frames());
}

#[test]
fn two_fulmar_ends_recognise_each_other() {
    let features = Features::HALF_CLOSE.with(Features::ACK_RANGES);
    let mut a = end(Role::Opener, |c| c.features = features);
    let mut b = end(Role::Acceptor, |c| c.features = features);
    let id = a.open(START).expect("open");
    a.write(id, b"early").expect("room");
    let first = drain(&mut a, START);
    let hello = YamuxHello {
        answer: false,
        features,
    };
    assert_eq!(headers(&first)[0], (Type::Ping, 1, 0, hello.value()));
    b.handle_input(START, &first).expect("sound");
    let seen = events(&mut b);
    assert_eq!(seen[0], Event::PeerHello(features));
    let answer = drain(&mut b, START);
    assert_eq!(
        headers(&answer)[..2],
        [
            (
                Type::Ping,
                1,
                0,
                YamuxHello {
                    answer: true,
                    features
                }
                .value()
            ),
            (Type::Ping, 2, 0, hello.value())
        ]
    );
    a.handle_input(START, &answer).expect("sound");
    assert_eq!(events(&mut a), [Event::PeerHello(features)]);
    settle(&mut a, &mut b, START);
    // Each direction ends by itself.
    let there = opened(&seen)[0];
    a.finish(START, id);
    settle(&mut a, &mut b, START);
    assert_eq!(read(&mut b, START, there), b"early");
    assert_eq!(b.read_state(there), ReadState::Finished);
    b.write(there, b"answer").expect("still open");
    b.close(START, there);
    settle(&mut a, &mut b, START);
    assert_eq!(read(&mut a, START, id), b"answer");
    a.close(START, id);
    settle(&mut a, &mut b, START);
    assert_eq!((a.streams(), b.streams()), (0, 0));
}

/// A peer of that time answers our hello as any ping.
#[test]
fn an_answer_without_hello_is_a_plain_peer() {
    let mut a = end(Role::Opener, |_| ());
    let hello = headers(&drain(&mut a, START))[0];
    assert_eq!(a.peer(), Peer::Unknown);
    a.handle_input(START, &says(Type::Ping, 1, 0, 5))
        .expect("sound");
    assert_eq!(a.peer(), Peer::Unknown);
    a.handle_input(START, &says(Type::Ping, 2, 0, hello.3))
        .expect("sound");
    assert_eq!(a.peer(), Peer::Plain);
    // Too late, or a joke.
    let late = YamuxHello {
        answer: true,
        features: Features::HALF_CLOSE,
    };
    a.handle_input(START, &says(Type::Ping, 1, 0, late.value()))
        .expect("sound");
    assert_eq!(a.peer(), Peer::Plain);
}

/// Between Fulmar ends who goes on sending to nobody is told once; the one of 2016 would lose what it has not read.
#[test]
fn data_for_a_closed_stream() {
    for ours in [false, true] {
        let mut b = end(Role::Acceptor, |_| ());
        let hello = YamuxHello {
            answer: false,
            features: Features::HALF_CLOSE,
        };
        let value = if ours { hello.value() } else { 0 };
        b.handle_input(START, &[says(Type::Ping, 1, 0, value), syn(1)].concat())
            .expect("sound");
        let id = opened(&events(&mut b))[0];
        b.write(id, b"last words").expect("room");
        b.close(START, id);
        for _ in 0..3 {
            b.handle_input(START, &data(1, b"nobody reads this"))
                .expect("sound");
        }
        let sent: Vec<_> = headers(&drain(&mut b, START))
            .into_iter()
            .filter(|h| h.2 == 1)
            .map(|h| (h.0, h.1))
            .collect();
        // What was written leaves before the end, and the end before the cut.
        let mut want = vec![
            (Type::WindowUpdate, 2),
            (Type::Data, 0),
            (Type::WindowUpdate, 4),
        ];
        if ours {
            want.push((Type::WindowUpdate, 8));
        }
        assert_eq!(sent, want);
        assert_eq!(b.streams(), usize::from(!ours));
        if !ours {
            // Its end, or half a minute without one.
            let mut c = b;
            for _ in 0..6 {
                let due = c.poll_timeout().expect("it lives").max(at(30_000));
                c.handle_input(due, &says(Type::Ping, 1, 0, 1))
                    .expect("sound");
                c.handle_timeout(due).expect("it lives");
            }
            assert_eq!(c.streams(), 0);
            assert!(headers(&drain(&mut c, at(99_000))).iter().all(|h| h.2 == 0));
        }
    }
}

/// What was read counts until credit for it was given: the peer does not know of it before.
#[test]
fn room_is_what_the_peer_was_told() {
    for beyond in [0, 1] {
        let mut b = acceptor(|c| c.stream_buffer = INITIAL_WINDOW);
        b.handle_input(START, &[syn(1), data(1, &[7; 100_000])].concat())
            .expect("sound");
        let id = opened(&events(&mut b))[0];
        assert_eq!(read(&mut b, START, id).len(), 100_000);
        let sent = headers(&drain(&mut b, START));
        assert_eq!(sent, [(Type::WindowUpdate, 2, 1, 0)], "less than half");
        let rest = INITIAL_WINDOW - 100_000 + beyond;
        let overrun = Error::WindowOverrun {
            stream: 1,
            unread: u64::from(INITIAL_WINDOW) + 1,
        };
        assert_eq!(
            b.handle_input(START, &data(1, &vec![7; rest as usize])),
            if beyond == 0 { Ok(()) } else { Err(overrun) }
        );
    }
}

/// A session of either kind of peer, in which it has opened stream 1 and we have closed it.
fn closed_stream(ours: bool, change: impl FnOnce(&mut Config)) -> Mux {
    let mut b = end(Role::Acceptor, change);
    let hello = YamuxHello {
        answer: false,
        features: Features::HALF_CLOSE,
    };
    let value = if ours { hello.value() } else { 0 };
    b.handle_input(START, &[says(Type::Ping, 1, 0, value), syn(1)].concat())
        .expect("sound");
    let id = opened(&events(&mut b))[0];
    b.close(START, id);
    b
}

/// A frame's type and flags, of stream 1 only.
fn about_it(b: &mut Mux, now: Instant) -> Vec<(Type, u16)> {
    headers(&drain(b, now))
        .into_iter()
        .filter(|h| h.2 == 1)
        .map(|h| (h.0, h.1))
        .collect()
}

/// A Fulmar peer is told that the stream is gone; one of 2016 may still be reading it.
#[test]
fn a_closed_stream_that_the_peer_never_ends() {
    for ours in [false, true] {
        let linger = Duration::from_secs(5);
        let mut b = closed_stream(ours, |c| c.linger = linger);
        let (ack, fin) = ((Type::WindowUpdate, 2), (Type::WindowUpdate, 4));
        assert_eq!(about_it(&mut b, START), [ack, fin]);
        assert_eq!(b.streams(), 1);
        assert_eq!(b.poll_timeout(), Some(START + linger));
        b.handle_timeout(START + linger).expect("it lives");
        let told = about_it(&mut b, START + linger);
        assert_eq!(told, vec![(Type::WindowUpdate, 8); usize::from(ours)]);
        assert_eq!(b.streams(), 0);
        check(&b);
    }
}

/// While nothing can leave, patience with the peer does not end: one of 2016 keeps a token for the stream until its `ACK` comes.
#[test]
fn what_is_owed_outlives_the_linger() {
    for ours in [false, true] {
        let linger = Duration::from_secs(5);
        let mut b = closed_stream(ours, |c| c.linger = linger);
        for n in 1..=3 {
            b.handle_timeout(START + linger * n).expect("it lives");
            assert_eq!(b.streams(), 1);
        }
        let now = START + linger * 3;
        assert_eq!(
            about_it(&mut b, now),
            [(Type::WindowUpdate, 2), (Type::WindowUpdate, 4)]
        );
        check(&b);
    }
}

#[test]
fn a_cut_is_seen_by_everybody() {
    let mut b = acceptor(|_| ());
    b.handle_input(START, &[syn(1), syn(3), data(3, b"abc")].concat())
        .expect("sound");
    let streams = opened(&events(&mut b));
    b.reset(streams[0], ResetReason::ABORTED);
    let sent = headers(&drain(&mut b, START));
    assert!(sent.contains(&(Type::WindowUpdate, 8, 1, 0)), "{sent:?}");
    assert_eq!(b.streams(), 1);
    b.handle_input(START, &says(Type::WindowUpdate, 8, 3, 0))
        .expect("sound");
    assert_eq!(
        events(&mut b),
        [Event::Reset(streams[1], ResetReason::ABORTED)]
    );
    assert!(matches!(b.write_state(streams[1]), WriteState::Stopped(_)));
    b.close(START, streams[1]);
    assert_eq!(b.streams(), 0);
    assert!(!b.has_frames());
}

/// Whole sessions of the program of 2016: what each side said, given to our other side, whose applications do what theirs did.
#[test]
fn captured_sessions() {
    for name in ["fixed_iv", "readme", "notuncrypt", "tuncrypt"] {
        let file = vectors::load(&format!("kcptun-2016/session_{name}.json"));
        let script: Vec<(Vec<u8>, Vec<u8>)> = file["app_script"]
            .as_array()
            .expect("a script")
            .iter()
            .map(|s| (bytes(s, "written_hex"), bytes(s, "read_hex")))
            .collect();
        // Not so long that an answer and the end of its request arrive together.
        for cut in [1, 7, 12] {
            // Their client, our server.
            let mut b = end(Role::Acceptor, |_| ());
            let mut sent = Vec::new();
            let mut streams = Vec::new();
            for piece in bytes(&file, "yamux_c2s_hex").chunks(cut) {
                b.handle_input(START, piece).expect("sound");
                for id in opened(&events(&mut b)) {
                    streams.push((id, Vec::<u8>::new()));
                }
                for ((id, got), (said, answer)) in streams.iter_mut().zip(&script) {
                    let more = read(&mut b, START, *id);
                    got.extend(&more);
                    if !more.is_empty() && got == said {
                        b.write(*id, answer).expect("room");
                    }
                }
                sent.extend(drain(&mut b, START));
            }
            for ((id, got), (said, _)) in streams.iter().zip(&script) {
                assert_eq!(got, said);
                assert_eq!(b.read_state(*id), ReadState::Finished, "{name}");
                b.close(START, *id);
            }
            sent.extend(drain(&mut b, START));
            assert_eq!(b.streams(), 0, "{name}");
            for id in [1, 3] {
                // Theirs: the same to the end, with credit in the first; ours grants what it has beyond the usual at once.
                let of = |all: &[(Type, u16, u32, u32)]| -> Vec<_> {
                    all.iter()
                        .filter(|h| h.2 == id)
                        .map(|h| (h.0, h.1, if h.0 == Type::Data { h.3 } else { 0 }))
                        .collect()
                };
                let theirs = of(&headers(&bytes(&file, "yamux_s2c_hex")));
                assert_eq!(of(&headers(&sent)), theirs, "{name}");
            }
            // Our client, their server.
            let mut a = end(Role::Opener, |c| {
                c.hello = false;
                c.stream_buffer = INITIAL_WINDOW;
            });
            let mut sent = Vec::new();
            let mut ids = Vec::new();
            for (said, _) in &script {
                let id = a.open(START).expect("open");
                a.write(id, said).expect("room");
                sent.extend(drain(&mut a, START));
                ids.push(id);
            }
            let mut got = vec![Vec::new(); ids.len()];
            for piece in bytes(&file, "yamux_s2c_hex").chunks(cut) {
                a.handle_input(START, piece).expect("sound");
                for (id, got) in ids.iter().zip(&mut got) {
                    got.extend(read(&mut a, START, *id));
                }
            }
            for ((id, got), (_, answer)) in ids.iter().zip(&got).zip(&script) {
                assert_eq!(got, answer);
                assert_eq!(a.read_state(*id), ReadState::Finished, "{name}");
                a.close(START, *id);
            }
            sent.extend(drain(&mut a, START));
            assert_eq!(a.streams(), 0, "{name}");
            let theirs = headers(&bytes(&file, "yamux_c2s_hex"));
            assert_eq!(headers(&sent), theirs, "{name}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever arrives, however it is cut: no panic, no frame of more than one flag, and memory within its limits.
    #[test]
    fn arbitrary_frames(
        acceptor: bool,
        frames in prop::collection::vec(
            (0u8..5, 0u16..32, 0u32..8, prop_oneof![0u32..40, 0u32..300_000, any::<u32>()], 0usize..60, 0u8..8),
            0..60,
        ),
        cut in 1usize..100,
    ) {
        let role = if acceptor { Role::Acceptor } else { Role::Opener };
        let mut smux = end(role, |c| {
            c.max_streams = 4;
            c.session_buffer = 300_000;
            c.stream_buffer = INITIAL_WINDOW;
        });
        if !acceptor {
            for _ in 0..3 {
                let _ = smux.open(START);
            }
        }
        let mut now = START;
        for (kind, flags, stream, length, body, act) in frames {
            now += Duration::from_millis(u64::from(length % 2000));
            let mut bytes = vec![0, kind];
            bytes.extend(flags.to_be_bytes());
            bytes.extend(stream.to_be_bytes());
            bytes.extend(length.to_be_bytes());
            bytes.resize(HEAD + body, 0x55);
            for piece in bytes.chunks(cut) {
                if smux.wants_input() {
                    let _ = smux.handle_input(now, piece);
                }
            }
            let _ = smux.handle_timeout(now);
            let held: Vec<_> = smux.held().collect();
            if let Some(&id) = held.get(act as usize % held.len().max(1)) {
                match act {
                    0 => smux.finish(now, id),
                    1 => smux.close(now, id),
                    2 => smux.reset(id, ResetReason::ABORTED),
                    3 | 4 => {
                        let n = smux.readable(id);
                        smux.consume(now, id, n);
                    }
                    _ => {
                        let _ = smux.write(id, &[9; 500]);
                    }
                }
            }
            let _ = events(&mut smux);
            if smux.error().is_none() {
                for h in headers(&drain(&mut smux, now)) {
                    prop_assert!(h.1.count_ones() <= 1);
                }
                check(&smux);
            }
            prop_assert!(smux.streams() <= 2 * (4 + 256));
            prop_assert!(smux.buffer_memory() <= 8 << 20);
        }
    }
}
