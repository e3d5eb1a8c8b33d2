//! Recognition of the peer, half-close, cuts: with a Fulmar and with a Go end.

use super::go_end::GoEnd;
use super::*;
use crate::{ReadState, WriteError, WriteState};
use core::time::Duration;
use fulmar_wire::smux::Update;

const VERSIONS: [Version; 2] = [Version::V1, Version::V2];
const START: Instant = Instant::from_millis(5000);

fn at(millis: u64) -> Instant {
    START + Duration::from_millis(millis)
}

fn end(version: Version, role: Role) -> Mux {
    Mux::new(Config::new(version, role), START).expect("valid")
}

/// Two Fulmar ends that know each other and a stream that both hold.
fn fulmar_pair(version: Version) -> (Mux, Mux, StreamId, StreamId) {
    let mut a = end(version, Role::Opener);
    let mut b = end(version, Role::Acceptor);
    let sa = a.open(START).expect("open");
    settle(&mut a, &mut b, START);
    let hello = Event::PeerHello(Features::HALF_CLOSE);
    assert_eq!(events(&mut a), [hello]);
    let seen = events(&mut b);
    let &[first, Event::Opened(sb)] = seen.as_slice() else {
        panic!("{seen:?}");
    };
    assert_eq!(first, hello);
    (a, b, sa, sb)
}

/// An opener and a Go server with one stream, whose number is 3. The server has not been heard yet.
fn with_go_server(version: Version) -> (Mux, GoEnd, StreamId) {
    let mut a = end(version, Role::Opener);
    let id = a.open(START).expect("open");
    let mut go = GoEnd::new(version, 1024, 4096);
    to_go(&mut a, &mut go, START);
    assert!(go.streams.contains_key(&3));
    (a, go, id)
}

/// An acceptor and a Go client with one stream, whose number is 3.
fn with_go_client(version: Version) -> (Mux, GoEnd, StreamId) {
    let mut b = end(version, Role::Acceptor);
    let mut go = GoEnd::new(version, 1024, 4096);
    assert_eq!(go.open(), 3);
    from_go(&mut b, &mut go, START);
    let seen = events(&mut b);
    let &[Event::PeerPlain, Event::Opened(id)] = seen.as_slice() else {
        panic!("{seen:?}");
    };
    (b, go, id)
}

fn to_go(smux: &mut Mux, go: &mut GoEnd, now: Instant) {
    go.input(&drain(smux, now));
    assert_eq!(go.failed, None);
    check(smux);
}

fn from_go(smux: &mut Mux, go: &mut GoEnd, now: Instant) {
    smux.handle_input(now, &go.take_output())
        .expect("a Go end misbehaves");
    check(smux);
}

#[test]
fn hello_comes_first_and_is_answered_first() {
    for version in VERSIONS {
        let mut a = end(version, Role::Opener);
        let mut b = end(version, Role::Acceptor);
        // An acceptor says nothing before it is spoken to, however long that takes.
        b.handle_timeout(at(10_000)).expect("alive");
        b.handle_timeout(at(25_000)).expect("alive");
        assert!(!b.has_frames());
        let id = a.open(START).expect("open");
        a.write(id, b"x").expect("write");
        let bytes = drain(&mut a, START);
        let hello = Hello { features: FEATURES }.header(version);
        assert_eq!(bytes[..HEADER_LEN], hello.to_bytes());
        let rest = commands(&bytes[HEADER_LEN..]);
        assert_eq!(rest, [(Command::Syn, 3, 0), (Command::Psh, 3, 1)]);
        assert_eq!((a.peer(), b.peer()), (Peer::Unknown, Peer::Unknown));
        for byte in &bytes[..HEADER_LEN] {
            b.handle_input(START, &[*byte]).expect("hello");
        }
        assert_eq!(drain(&mut b, START), hello.to_bytes());
        a.handle_input(START, &hello.to_bytes()).expect("hello");
        assert_eq!(a.peer(), Peer::Fulmar(FEATURES));
        assert_eq!(b.peer(), Peer::Fulmar(FEATURES));
        // A second hello is a keep-alive.
        a.handle_input(START, &hello.to_bytes()).expect("hello");
        assert_eq!(
            events(&mut a),
            [Event::PeerHello(FEATURES)],
            "told exactly once"
        );
        assert_eq!(a.counters().nops_received, 2);
    }
}

#[test]
fn only_the_first_frame_is_a_hello() {
    let hello = Hello { features: FEATURES }.header(Version::V2).to_bytes();
    let mut a = end(Version::V2, Role::Opener);
    let nop = frame(Version::V2, Command::Nop, 0, 0, &[]);
    a.handle_input(START, &nop).expect("nop");
    a.handle_input(START, &hello).expect("nop");
    assert_eq!(a.peer(), Peer::Plain);
    assert_eq!(events(&mut a), [Event::PeerPlain]);

    let mut b = end(Version::V2, Role::Acceptor);
    let syn = frame(Version::V2, Command::Syn, 3, 0, &[]);
    b.handle_input(START, &syn).expect("syn");
    b.handle_input(START, &hello).expect("nop");
    assert_eq!(b.peer(), Peer::Plain);
    assert!(!b.has_frames(), "a late hello is not answered");
}

#[test]
fn ends_without_hello_or_without_common_features_are_plain() {
    let quiet = |role| {
        let config = Config {
            hello: false,
            ..Config::new(Version::V2, role)
        };
        Mux::new(config, START).expect("valid")
    };
    // Only one of them speaks of itself.
    let mut a = end(Version::V2, Role::Opener);
    let mut b = quiet(Role::Acceptor);
    let id = a.open(START).expect("open");
    a.write(id, b"x").expect("write");
    settle(&mut a, &mut b, START);
    let sb = match events(&mut b).as_slice() {
        [Event::PeerPlain, Event::Opened(id), Event::Readable(_)] => *id,
        other => panic!("{other:?}"),
    };
    b.write(sb, b"y").expect("write");
    settle(&mut a, &mut b, START);
    assert_eq!((a.peer(), b.peer()), (Peer::Plain, Peer::Plain));

    let mut a = quiet(Role::Opener);
    assert_eq!(events(&mut a), [Event::PeerPlain]);
    assert!(!a.has_frames());

    // A hello of somebody with other features is answered, and both are plain.
    let other = Hello {
        features: Features(0x8000),
    };
    let mut b = end(Version::V2, Role::Acceptor);
    b.handle_input(START, &other.header(Version::V2).to_bytes())
        .expect("hello");
    assert_eq!(b.peer(), Peer::Plain);
    assert_eq!(commands(&drain(&mut b, START)).len(), 1);
}

#[test]
fn half_close_between_fulmar_ends() {
    for version in VERSIONS {
        let (mut a, mut b, sa, sb) = fulmar_pair(version);
        a.write(sa, b"request").expect("write");
        a.finish(START, sa);
        a.finish(START, sa);
        assert_eq!(a.write(sa, b"more"), Err(WriteError::Finished));
        assert_eq!(a.write_space(sa), 0);
        settle(&mut a, &mut b, START);
        assert_eq!(a.write_state(sa), WriteState::Finished);
        assert_eq!(events(&mut b), [Event::Readable(sb)]);
        assert_eq!(read(&mut b, START, sb), b"request");
        assert_eq!(events(&mut b), [Event::Finished(sb)]);
        assert_eq!(b.read_state(sb), ReadState::Finished);
        // The answer, an hour later, in pieces.
        for piece in 0..3 {
            let now = at(3_600_000 + piece);
            let answer = vec![piece as u8; 50_000];
            assert_eq!(b.write(sb, &answer), Ok(50_000));
            settle(&mut a, &mut b, now);
            assert_eq!(events(&mut a), [Event::Readable(sa)]);
            assert_eq!(read(&mut a, now, sa), answer);
        }
        b.finish(START, sb);
        settle(&mut a, &mut b, START);
        assert_eq!(events(&mut a), [Event::Finished(sa)]);
        assert_eq!(events(&mut b), []);
        a.close(START, sa);
        b.close(START, sb);
        assert!(!a.has_frames() && !b.has_frames(), "nothing is left to say");
        assert_eq!((a.streams(), b.streams()), (0, 0));
        assert_eq!(a.read_state(sa), ReadState::Closed);
        assert_eq!(a.write_state(sa), WriteState::Closed);
        assert_eq!(a.write(sa, b"x"), Err(WriteError::Closed));
    }
}

#[test]
fn a_cut_is_not_an_end() {
    for version in VERSIONS {
        let (mut a, mut b, sa, sb) = fulmar_pair(version);
        a.write(sa, b"half of").expect("write");
        settle(&mut a, &mut b, START);
        b.write(sb, &[7; 100]).expect("write");
        a.write(sa, b" a request").expect("write");
        a.reset(sa, ResetReason::ABORTED);
        assert_eq!(a.held_streams(), 0);
        let bytes = drain(&mut a, START);
        assert_eq!(commands(&bytes), [(Command::Rst, 3, 4)]);
        assert_eq!(a.streams(), 0);
        b.handle_input(START, &bytes).expect("reset");
        check(&b);
        // What had not been read is gone with the event that told of it.
        assert_eq!(events(&mut b), [Event::Reset(sb, ResetReason::ABORTED)]);
        assert_eq!(b.read_state(sb), ReadState::Reset(ResetReason::ABORTED));
        assert_eq!(b.readable(sb), 0);
        assert_eq!(b.write(sb, b"x"), Err(WriteError::Stopped));
        assert_eq!(b.write_state(sb), WriteState::Stopped(ResetReason::ABORTED));
        assert!(!b.has_frames());
        b.finish(START, sb);
        b.close(START, sb);
        assert!(!b.has_frames());
        assert_eq!(b.streams(), 0);
        assert_eq!(b.counters().bytes_dropped, 100);
    }
}

#[test]
fn a_cut_after_the_end_stops_the_other_direction_only() {
    let (mut a, mut b, sa, sb) = fulmar_pair(Version::V2);
    a.write(sa, b"whole").expect("write");
    a.finish(START, sa);
    settle(&mut a, &mut b, START);
    b.write(sb, b"unwanted").expect("write");
    a.reset(sa, ResetReason::TIMEOUT);
    b.handle_input(START, &drain(&mut a, START)).expect("reset");
    assert_eq!(
        events(&mut b),
        [
            Event::Readable(sb),
            Event::Stopped(sb, ResetReason::TIMEOUT)
        ]
    );
    assert_eq!(read(&mut b, START, sb), b"whole");
    assert_eq!(events(&mut b), [Event::Finished(sb)]);
    b.close(START, sb);
    assert_eq!((a.streams(), b.streams()), (0, 0));
}

#[test]
fn close_delivers_what_was_written_and_stops_the_peer() {
    for version in VERSIONS {
        let (mut a, mut b, sa, sb) = fulmar_pair(version);
        b.write(sb, b"never read").expect("write");
        settle(&mut a, &mut b, START);
        a.write(sa, b"last words").expect("write");
        a.close(START, sa);
        assert_eq!(a.unread(), 0, "given back at once");
        let bytes = drain(&mut a, START);
        assert_eq!(
            commands(&bytes),
            [
                (Command::Rst, 3, 4),
                (Command::Psh, 3, 10),
                (Command::Fin, 3, 0)
            ]
        );
        assert_eq!(a.streams(), 0);
        b.handle_input(START, &bytes).expect("frames");
        check(&b);
        assert_eq!(
            events(&mut b),
            [Event::Readable(sb), Event::Stopped(sb, ResetReason::CLOSED)]
        );
        assert_eq!(read(&mut b, START, sb), b"last words");
        assert_eq!(events(&mut b), [Event::Finished(sb)]);
        assert_eq!(b.write(sb, b"x"), Err(WriteError::Stopped));
        b.close(START, sb);
        settle(&mut a, &mut b, START);
        assert_eq!((a.streams(), b.streams()), (0, 0));
    }
}

#[test]
fn streams_that_never_left_are_forgotten_without_a_frame() {
    let mut a = end(Version::V2, Role::Opener);
    drain(&mut a, START);
    let closed = a.open(START).expect("open");
    let cut = a.open(START).expect("open");
    a.write(cut, b"lost").expect("write");
    let kept = a.open(START).expect("open");
    a.write(kept, b"kept").expect("write");
    a.close(START, closed);
    a.reset(cut, ResetReason::ABORTED);
    a.close(START, kept);
    let wire = kept.wire();
    assert_eq!(
        commands(&drain(&mut a, START)),
        [
            (Command::Syn, wire, 0),
            (Command::Psh, wire, 4),
            (Command::Fin, wire, 0)
        ]
    );
    check(&a);
    // Who reads there decides whether there is more to say.
    assert_eq!(a.streams(), 1);
    let hello = Hello { features: FEATURES }.header(Version::V2);
    a.handle_input(START, &hello.to_bytes()).expect("hello");
    assert_eq!(commands(&drain(&mut a, START)), [(Command::Rst, wire, 4)]);
    assert_eq!(a.streams(), 0);
}

#[test]
fn before_the_peer_is_known_ends_and_cuts_wait() {
    for fulmar in [false, true] {
        let mut a = end(Version::V2, Role::Opener);
        let ended = a.open(START).expect("open");
        let cut = a.open(START).expect("open");
        for id in [ended, cut] {
            a.write(id, b"request").expect("write");
        }
        drain(&mut a, START);
        a.finish(START, ended);
        a.reset(cut, ResetReason::SHUTDOWN);
        assert!(!a.has_frames());
        check(&a);
        a.handle_timeout(at(9_000)).expect("alive");
        assert!(!a.has_frames(), "for as long as it takes");
        let first = if fulmar {
            Hello { features: FEATURES }
                .header(Version::V2)
                .to_bytes()
                .to_vec()
        } else {
            // The Go server has read the request.
            let update = Update {
                consumed: 7,
                window: 65536,
            };
            frame(Version::V2, Command::Upd, 3, 8, &update.to_bytes())
        };
        a.handle_input(at(9_000), &first).expect("frame");
        check(&a);
        let sent = commands(&drain(&mut a, at(9_000)));
        if fulmar {
            assert_eq!(sent, [(Command::Fin, 3, 0), (Command::Rst, 5, 4)]);
        } else {
            assert_eq!(sent, [(Command::Fin, 5, 0)], "the other one is held");
            let timer = a.poll_timeout().expect("held");
            assert!(timer <= at(12_000), "{timer:?}");
        }
        assert_eq!(a.streams(), 1);
    }
}

#[test]
fn an_answer_of_a_go_server_arrives_whole_after_finish() {
    for version in VERSIONS {
        let (mut a, mut go, id) = with_go_server(version);
        a.write(id, b"request").expect("write");
        to_go(&mut a, &mut go, START);
        a.finish(START, id);
        assert_eq!(a.counters().fins_held, 1);
        to_go(&mut a, &mut go, START);
        assert_eq!(go.read(3, 100), b"request");
        let mut got = Vec::new();
        let mut now = START;
        for round in 0..20 {
            // Pauses are shorter than the hold, the whole is much longer.
            now = at(2_500 * round);
            a.handle_timeout(now).expect("alive");
            to_go(&mut a, &mut go, now);
            assert!(!go.at_eof(3), "FIN after {round} rounds");
            go.write(3, &[round as u8; 3000]).expect("open");
            while go.is_blocked(3) {
                from_go(&mut a, &mut go, now);
                got.extend(read(&mut a, now, id));
                to_go(&mut a, &mut go, now);
            }
            from_go(&mut a, &mut go, now);
            got.extend(read(&mut a, now, id));
        }
        assert_eq!(got.len(), 60_000);
        assert!((0..20).all(|round| {
            got[3000 * round..3000 * (round + 1)]
                .iter()
                .all(|&b| b == round as u8)
        }));
        go.close(3);
        from_go(&mut a, &mut go, now);
        assert_eq!(
            commands(&drain(&mut a, now))
                .into_iter()
                .filter(|frame| frame.0 == Command::Fin)
                .count(),
            1,
            "nothing more to wait for"
        );
        assert!(events(&mut a).contains(&Event::Finished(id)));
        assert_eq!(a.read_state(id), ReadState::Finished);
        a.close(now, id);
        assert_eq!(a.streams(), 0);
    }
}

#[test]
fn the_hold_ends_when_the_answer_goes_quiet() {
    let (mut a, mut go, id) = with_go_server(Version::V2);
    a.write(id, b"request").expect("write");
    to_go(&mut a, &mut go, START);
    assert_eq!(go.read(3, 100), b"request");
    from_go(&mut a, &mut go, START);
    assert_eq!(a.peer(), Peer::Plain);
    a.finish(START, id);
    assert_eq!(a.poll_timeout(), Some(at(3_000)));
    go.write(3, b"answer").expect("open");
    from_go(&mut a, &mut go, at(1_000));
    // Unread bytes keep the hold, for the application is slow and not the server silent.
    for now in [3_000, 6_000, 9_000].map(at) {
        assert!(a.poll_timeout().is_some_and(|timer| timer <= now));
        a.handle_timeout(now).expect("alive");
        check(&a);
        to_go(&mut a, &mut go, now);
        assert!(!go.streams[&3].fin_received);
    }
    assert_eq!(read(&mut a, at(9_500), id), b"answer");
    to_go(&mut a, &mut go, at(9_500));
    // The timer of 12.0 finds that something moved at 9.5.
    a.handle_timeout(at(12_000)).expect("alive");
    to_go(&mut a, &mut go, at(12_000));
    assert!(!go.streams[&3].fin_received);
    assert_eq!(a.poll_timeout(), Some(at(12_500)));
    a.handle_timeout(at(12_500)).expect("alive");
    to_go(&mut a, &mut go, at(12_500));
    assert!(go.streams[&3].fin_received);
    assert_eq!(a.write_state(id), WriteState::Finished);
    assert_eq!(a.read_state(id), ReadState::Open);
}

#[test]
fn without_hold_a_plain_peer_gets_fin_at_once() {
    let config = Config {
        fin_hold: Duration::ZERO,
        hello: false,
        ..Config::new(Version::V1, Role::Opener)
    };
    let mut a = Mux::new(config, START).expect("valid");
    let id = a.open(START).expect("open");
    a.write(id, b"x").expect("write");
    a.finish(START, id);
    check(&a);
    assert_eq!(
        commands(&drain(&mut a, START)),
        [
            (Command::Syn, 3, 0),
            (Command::Psh, 3, 1),
            (Command::Fin, 3, 0)
        ]
    );
}

#[test]
fn a_go_client_closes_both_directions() {
    for version in VERSIONS {
        let (mut b, mut go, id) = with_go_client(version);
        go.write(3, b"request").expect("open");
        go.close(3);
        from_go(&mut b, &mut go, START);
        b.handle_input(START, &frame(version, Command::Fin, 3, 0, &[]))
            .expect("twice");
        assert_eq!(
            events(&mut b),
            [Event::Readable(id), Event::Stopped(id, ResetReason::CLOSED)]
        );
        assert_eq!(b.counters().fins_repeated, 1);
        assert_eq!(b.write(id, b"answer"), Err(WriteError::Stopped));
        assert_eq!(read(&mut b, START, id), b"request");
        assert_eq!(events(&mut b), [Event::Finished(id)]);
        b.close(START, id);
        let sent = commands(&drain(&mut b, START));
        assert_eq!(sent.last(), Some(&(Command::Fin, 3, 0)));
        assert_eq!(b.streams(), 0);
    }
}

#[test]
fn finish_and_reset_towards_a_go_client_are_fin() {
    for cut in [false, true] {
        let (mut b, mut go, id) = with_go_client(Version::V2);
        b.write(id, &[1; 5000]).expect("write");
        if cut {
            b.reset(id, ResetReason::ABORTED);
        } else {
            b.finish(START, id);
        }
        to_go(&mut b, &mut go, START);
        let got = go.read(3, usize::MAX);
        assert_eq!(got.len(), if cut { 0 } else { 5000 });
        assert!(go.at_eof(3));
        assert_eq!(b.streams(), usize::from(!cut));
        assert_eq!(b.counters().resets_sent, 0);
    }
}

#[test]
fn a_private_reset_of_a_plain_peer_is_a_protocol_error() {
    let (mut b, _, _) = with_go_client(Version::V2);
    let reset = frame(Version::V2, Command::Rst, 3, 4, &[0; 4]);
    let error = Error::BadCommand(Command::Rst.number());
    assert_eq!(b.handle_input(START, &reset), Err(error));
    assert_eq!(b.handle_input(START, &[]), Err(error));
    let mut b = end(Version::V1, Role::Acceptor);
    let reset = frame(Version::V1, Command::Rst, 3, 4, &[0; 4]);
    assert_eq!(b.handle_input(START, &reset), Err(error), "as first frame");
}

#[test]
fn bytes_for_a_closed_stream_are_skipped() {
    for version in VERSIONS {
        let (mut a, mut b, sa, sb) = fulmar_pair(version);
        b.write(sb, &[5; 1000]).expect("write");
        let bytes = drain(&mut b, START);
        // In the middle of a frame.
        a.handle_input(START, &bytes[..500]).expect("frame");
        assert_eq!(a.readable(sa), 492);
        a.close(START, sa);
        a.handle_input(START, &bytes[500..]).expect("frame");
        check(&a);
        assert_eq!(a.counters().bytes_skipped, 508);
        b.write(sb, &[5; 1000]).expect("write");
        let bytes = drain(&mut b, START);
        settle(&mut a, &mut b, START);
        a.handle_input(START, &bytes).expect("late frame");
        assert_eq!(a.counters().bytes_skipped, 1508);
        assert!(a.counters().frames_unknown > 0);
        assert_eq!(b.read_state(sb), ReadState::Finished);
    }
}

#[test]
fn going_away_refuses_and_keeps_what_is_open() {
    let (mut a, mut b, sa, sb) = fulmar_pair(Version::V2);
    let late = a.open(START).expect("open");
    b.go_away();
    settle(&mut a, &mut b, START);
    assert_eq!(events(&mut b), []);
    assert_eq!(
        events(&mut a),
        [Event::Reset(late, ResetReason::REFUSED)],
        "the other stream lives"
    );
    assert_eq!(b.counters().streams_refused, 1);
    a.write(sa, b"still").expect("write");
    settle(&mut a, &mut b, START);
    assert_eq!(read(&mut b, START, sb), b"still");
    a.go_away();
    assert_eq!(a.open(START), Err(crate::OpenError::GoingAway));

    let (mut b, mut go, _) = with_go_client(Version::V1);
    b.go_away();
    assert_eq!(go.open(), 5);
    from_go(&mut b, &mut go, START);
    to_go(&mut b, &mut go, START);
    assert!(go.at_eof(5) && !go.at_eof(3));
    assert_eq!(b.streams(), 1);
}

#[test]
fn ends_that_close_on_each_other_do_not_wait_for_windows() {
    let (mut a, mut b, sa, sb) = fulmar_pair(Version::V2);
    // Nobody reads, so both windows close with bytes left.
    for _ in 0..10 {
        a.write(sa, &[1; 60_000]).expect("write");
        b.write(sb, &[2; 60_000]).expect("write");
        settle(&mut a, &mut b, START);
    }
    assert!(a.stream_info(sa).is_some_and(|info| info.window_closed));
    a.close(START, sa);
    b.close(START, sb);
    settle(&mut a, &mut b, START);
    assert_eq!((a.streams(), b.streams()), (0, 0));
}
