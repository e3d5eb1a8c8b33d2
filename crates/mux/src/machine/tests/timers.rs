//! Keep-alive, the dead-peer rule, and bytes that nobody takes.

use super::*;
use core::time::Duration;
use fulmar_wire::smux::Update;

const START: Instant = Instant::from_millis(77_000);

fn secs(secs: u64) -> Instant {
    START + Duration::from_secs(secs)
}

fn end(role: Role) -> Mux {
    Mux::new(Config::new(Version::V2, role), START).expect("valid")
}

fn nop() -> Vec<u8> {
    frame(Version::V2, Command::Nop, 0, 0, &[])
}

#[test]
fn keepalives_fill_silence_only() {
    let mut a = end(Role::Opener);
    drain(&mut a, START);
    assert_eq!(a.poll_timeout(), Some(secs(10)));
    a.handle_timeout(secs(4)).expect("early");
    assert!(!a.has_frames());
    // Something else was sent in between: the next silence is counted from there.
    a.open(secs(6)).expect("open");
    drain(&mut a, secs(6));
    a.handle_timeout(secs(10)).expect("alive");
    assert!(!a.has_frames());
    assert_eq!(a.poll_timeout(), Some(secs(16)));
    a.handle_timeout(secs(16)).expect("alive");
    // However long nobody asks for it, it is one.
    a.handle_timeout(secs(26)).expect("alive");
    assert_eq!(drain(&mut a, secs(26)), nop());
    assert_eq!(a.counters().nops_sent, 1);
}

#[test]
fn a_peer_that_never_answers_is_dead_after_30_seconds() {
    for role in [Role::Opener, Role::Acceptor] {
        let mut end = end(role);
        let mut now = START;
        let mut died = None;
        while died.is_none() {
            now = end.poll_timeout().expect("something is due");
            died = end.handle_timeout(now).err();
            drain(&mut end, now);
        }
        assert_eq!(died, Some(Error::PeerSilent));
        assert_eq!(now, secs(30));
        assert_eq!(end.error(), died);
        assert_eq!(end.poll_timeout(), None);
        assert!(!end.has_frames());
        assert_eq!(end.handle_input(now, &nop()), Err(Error::PeerSilent));
        assert_eq!(
            end.open(now),
            Err(crate::OpenError::Ended(Error::PeerSilent))
        );
    }
}

#[test]
fn a_peer_that_falls_silent_is_dead_at_the_second_check() {
    let mut a = end(Role::Opener);
    a.handle_input(secs(1), &nop()).expect("nop");
    a.handle_timeout(secs(30)).expect("heard in the period");
    a.handle_timeout(secs(59)).expect("not due");
    assert_eq!(a.handle_timeout(secs(60)), Err(Error::PeerSilent));

    let mut a = end(Role::Opener);
    for check in 1..20 {
        a.handle_input(secs(30 * check - 1), &nop()).expect("nop");
        a.handle_timeout(secs(30 * check)).expect("alive");
    }
}

#[test]
fn silence_that_we_asked_for_is_not_death() {
    let config = Config {
        session_buffer: 1000,
        stream_buffer: 1000,
        ..Config::new(Version::V1, Role::Acceptor)
    };
    let mut b = Mux::new(config, START).expect("valid");
    b.handle_input(START, &frame(Version::V1, Command::Syn, 3, 0, &[]))
        .expect("syn");
    b.handle_input(
        START,
        &frame(Version::V1, Command::Psh, 3, 1000, &[1; 1000]),
    )
    .expect("psh");
    assert!(!b.wants_input());
    for check in 1..5 {
        b.handle_timeout(secs(30 * check)).expect("back-pressure");
    }
    let id = match events(&mut b).as_slice() {
        [Event::PeerPlain, Event::Opened(id), Event::Readable(_)] => *id,
        other => panic!("{other:?}"),
    };
    b.consume(secs(121), id, 1);
    assert!(b.wants_input());
    assert_eq!(b.handle_timeout(secs(150)), Err(Error::PeerSilent));
}

#[test]
fn a_long_pause_is_one_check() {
    let mut a = end(Role::Opener);
    a.handle_input(secs(1), &nop()).expect("nop");
    // The machine slept.
    a.handle_timeout(secs(10_000)).expect("one check");
    assert!(a.poll_timeout().is_some_and(|at| at > secs(10_000)));
    a.handle_input(secs(10_001), &nop()).expect("nop");
    a.handle_timeout(secs(10_030)).expect("alive");
}

#[test]
fn last_words_that_the_window_never_lets_go_are_cut() {
    let mut a = Mux::new(
        Config {
            send_buffer: 400_000,
            keepalive_timeout: Duration::from_secs(3600),
            hello: false,
            ..Config::new(Version::V2, Role::Opener)
        },
        START,
    )
    .expect("valid");
    let id = a.open(START).expect("open");
    assert_eq!(a.write(id, &[1; 300_000]), Ok(300_000));
    drain(&mut a, START);
    let info = a.stream_info(id).expect("held");
    assert!(info.window_closed);
    assert_eq!((info.sent, info.unsent), (262_144, 37_856));
    assert_eq!(info.sent_at, START);
    a.close(secs(1), id);
    assert!(!a.has_frames());
    a.handle_timeout(secs(30)).expect("alive");
    assert_eq!(commands(&drain(&mut a, secs(30))), [(Command::Nop, 0, 0)]);
    // A little progress buys time.
    let update = |consumed| {
        let update = Update {
            consumed,
            window: 262_144,
        };
        frame(Version::V2, Command::Upd, 3, 8, &update.to_bytes())
    };
    a.handle_input(secs(30), &update(1000)).expect("update");
    check(&a);
    // Frames wait to be asked for, which is not the window's fault.
    a.handle_timeout(secs(31)).expect("alive");
    a.handle_timeout(secs(61)).expect("alive");
    assert_eq!(
        commands(&drain(&mut a, secs(62))),
        [(Command::Nop, 0, 0), (Command::Psh, 3, 1000)]
    );
    let mut now = secs(62);
    while a.streams() > 0 {
        now = a.poll_timeout().expect("a timer");
        a.handle_timeout(now).expect("alive");
        check(&a);
        let sent = commands(&drain(&mut a, now));
        assert!(
            sent.is_empty() || sent[0] == (Command::Nop, 0, 0) || sent == [(Command::Fin, 3, 0)]
        );
    }
    assert_eq!(now, secs(92));
    assert_eq!(a.counters().lingers_cut, 1);
    assert_eq!(a.counters().bytes_dropped, 36_856);
}

#[test]
fn memory_of_a_burst_is_returned() {
    let mut a = end(Role::Opener);
    let ids: Vec<StreamId> = (0..100).map(|_| a.open(START).expect("open")).collect();
    for &id in &ids {
        assert_eq!(a.write(id, &[0; 60_000]), Ok(60_000));
    }
    assert!(a.buffer_memory() >= 6_000_000);
    drain(&mut a, START);
    assert!(a.buffer_memory() >= 6_000_000, "kept for the next burst");
    a.handle_input(secs(1), &nop()).expect("nop");
    for tick in [10, 20] {
        a.handle_timeout(secs(tick)).expect("alive");
        drain(&mut a, secs(tick));
    }
    assert_eq!(a.buffer_memory(), 0);
    check(&a);
}
