//! Numbers of streams, buffers, turns, windows: what bounds what.

use super::*;
use crate::machine::stream::Flow;
use crate::{OpenError, WriteError, WriteState};
use core::time::Duration;
use fulmar_wire::smux::Update;

const NOW: Instant = Instant::from_millis(1);

fn end(role: Role, change: impl FnOnce(&mut Config)) -> Mux {
    let mut config = Config {
        hello: false,
        ..Config::new(Version::V2, role)
    };
    change(&mut config);
    let mut end = Mux::new(config, NOW).expect("valid");
    assert_eq!(events(&mut end), [Event::PeerPlain]);
    end
}

fn syn(id: u32) -> Vec<u8> {
    frame(Version::V2, Command::Syn, id, 0, &[])
}

fn psh(id: u32, payload: &[u8]) -> Vec<u8> {
    frame(Version::V2, Command::Psh, id, payload.len() as u16, payload)
}

fn update(id: u32, consumed: u32, window: u32) -> Vec<u8> {
    let update = Update { consumed, window };
    frame(Version::V2, Command::Upd, id, 8, &update.to_bytes())
}

#[test]
fn settings_are_checked() {
    let broken = Config {
        max_frame: 0,
        ..Config::new(Version::V1, Role::Opener)
    };
    assert_eq!(
        Mux::new(broken, NOW).map(|_| ()),
        Err(ConfigError::FrameZero)
    );
}

#[test]
fn an_idle_stream_is_small() {
    assert!(size_of::<Stream>() <= 320, "{}", size_of::<Stream>());
    let mut a = end(Role::Opener, |_| ());
    for _ in 0..1000 {
        a.open(NOW).expect("open");
    }
    drain(&mut a, NOW);
    assert_eq!(a.buffer_memory(), 0);
}

#[test]
fn numbers_are_odd_from_three_and_run_out() {
    let mut a = end(Role::Opener, |_| ());
    assert_eq!(a.open(NOW).map(StreamId::wire), Ok(3));
    assert_eq!(a.open(NOW).map(StreamId::wire), Ok(5));
    a.next_wire = Some(u32::MAX - 2);
    assert_eq!(a.open(NOW).map(StreamId::wire), Ok(u32::MAX - 2));
    assert_eq!(a.open(NOW).map(StreamId::wire), Ok(u32::MAX));
    assert_eq!(a.open(NOW), Err(OpenError::Exhausted));
    let mut b = end(Role::Acceptor, |_| ());
    assert_eq!(b.open(NOW), Err(OpenError::NotOpener));
}

#[test]
fn an_opener_holds_only_so_many() {
    let mut a = end(Role::Opener, |c| c.max_streams = 2);
    let first = a.open(NOW).expect("open");
    a.open(NOW).expect("open");
    assert_eq!(a.open(NOW), Err(OpenError::TooMany));
    assert_eq!(a.held().count(), 2);
    a.reset(first, ResetReason::ABORTED);
    a.open(NOW).expect("open");
    check(&a);
}

#[test]
fn an_opener_accepts_nothing() {
    let mut a = end(Role::Opener, |_| ());
    a.handle_input(NOW, &[syn(2), psh(2, b"hi")].concat())
        .expect("ignored");
    assert_eq!(events(&mut a), []);
    assert_eq!(a.streams(), 0);
    assert_eq!(a.counters().syns_ignored, 1);
    assert_eq!(a.counters().bytes_skipped, 2);
}

#[test]
fn streams_beyond_the_limit_wait_and_then_end_the_session() {
    let mut b = end(Role::Acceptor, |c| c.max_streams = 10);
    let flood: Vec<u8> = (0..1034).flat_map(|n| syn(3 + 2 * n)).collect();
    b.handle_input(NOW, &flood).expect("within the limit");
    b.handle_input(NOW, &syn(3)).expect("known");
    let first = events(&mut b);
    assert_eq!(first.len(), 10);
    check(&b);
    let Event::Opened(id) = first[0] else {
        panic!("{first:?}");
    };
    b.close(NOW, id);
    drain(&mut b, NOW);
    assert_eq!(events(&mut b).len(), 1, "one place, one stream");
    b.handle_input(NOW, &syn(9999)).expect("one place");
    let error = Error::TooManyStreams { limit: 1034 };
    assert_eq!(b.handle_input(NOW, &syn(10001)), Err(error));
    assert_eq!(b.error(), Some(error));
    assert_eq!(b.write(id, b"x"), Err(WriteError::Ended(error)));
}

#[test]
fn a_waiting_stream_keeps_its_bytes_and_its_end() {
    let mut b = end(Role::Acceptor, |c| c.max_streams = 1);
    b.handle_input(NOW, &[syn(3), syn(5), psh(5, b"early")].concat())
        .expect("frames");
    b.handle_input(NOW, &frame(Version::V2, Command::Fin, 5, 0, &[]))
        .expect("fin");
    let seen = events(&mut b);
    let &[Event::Opened(first)] = seen.as_slice() else {
        panic!("{seen:?}");
    };
    b.close(NOW, first);
    let seen = events(&mut b);
    let &[Event::Opened(id), Event::Readable(_), Event::Stopped(..)] = seen.as_slice() else {
        panic!("{seen:?}");
    };
    assert_eq!(read(&mut b, NOW, id), b"early");
    assert_eq!(events(&mut b), [Event::Finished(id)]);
}

#[test]
fn the_bucket_closes_and_opens() {
    let mut b = end(Role::Acceptor, |c| {
        c.session_buffer = 5000;
        c.stream_buffer = 5000;
    });
    b.handle_input(NOW, &[syn(3), psh(3, &[1; 4999])].concat())
        .expect("frames");
    assert!(b.wants_input());
    b.handle_input(NOW, &psh(3, &[1; 500])).expect("frame");
    assert!(!b.wants_input());
    assert_eq!(b.unread(), 5499);
    let seen = events(&mut b);
    let Event::Opened(id) = seen[0] else {
        panic!("{seen:?}");
    };
    b.consume(NOW, id, 499);
    assert!(!b.wants_input());
    b.consume(NOW, id, 1);
    assert!(b.wants_input());
    b.handle_input(NOW, &psh(3, &[1; 4000])).expect("frame");
    b.reset(id, ResetReason::ABORTED);
    assert_eq!(b.unread(), 0);
    check(&b);
}

#[test]
fn single_bytes_in_many_streams_do_not_outgrow_the_bucket() {
    let mut b = end(Role::Acceptor, |c| {
        c.session_buffer = 100_000;
        c.stream_buffer = 1000;
    });
    let mut opened = 0;
    while b.wants_input() {
        let id = 3 + 2 * opened;
        b.handle_input(NOW, &[syn(id), psh(id, b"!")].concat())
            .expect("frames");
        opened += 1;
        assert!(opened < 5000, "never stopped");
    }
    assert!(b.buffer_memory() <= 2 * 100_000 + 65536 + 4096);
    while let Some(event) = b.poll_event() {
        if let Event::Opened(id) = event {
            b.consume(NOW, id, 1);
        }
    }
    assert!(b.wants_input());
    assert_eq!(b.unread(), 0);
}

#[test]
fn a_window_overrun_ends_the_session() {
    for (stream_buffer, most) in [(1000, 262_144 + 65_535), (500_000, 500_000 + 65_535)] {
        let mut b = end(Role::Acceptor, |c| c.stream_buffer = stream_buffer);
        b.handle_input(NOW, &syn(3)).expect("syn");
        let mut sent = 0;
        while most - sent > 0 {
            let n = (most - sent).min(60_000);
            b.handle_input(NOW, &psh(3, &vec![1; n]))
                .expect("tolerated");
            sent += n;
        }
        assert_eq!(
            b.handle_input(NOW, &psh(3, b"!")),
            Err(Error::WindowOverrun {
                stream: 3,
                unread: most as u64 + 1
            })
        );
    }
}

#[test]
fn windows_are_obeyed_and_may_shrink() {
    let mut a = end(Role::Opener, |c| c.send_buffer = 1 << 20);
    let id = a.open(NOW).expect("open");
    a.write(id, &vec![1; 600_000]).expect("write");
    let sent = |a: &mut Mux| {
        check(a);
        commands(&drain(a, NOW))
            .iter()
            .map(|&(_, _, len)| u32::from(len))
            .sum::<u32>()
    };
    assert_eq!(sent(&mut a), 262_144);
    a.handle_input(NOW, &update(3, 100, 1000)).expect("smaller");
    assert_eq!(sent(&mut a), 0);
    a.handle_input(NOW, &update(3, 262_144, 0)).expect("zero");
    assert_eq!(sent(&mut a), 0);
    a.handle_input(NOW, &update(3, 262_144, 10)).expect("ten");
    assert_eq!(sent(&mut a), 10);
    a.handle_input(NOW, &update(3, 262_150, u32::MAX))
        .expect("huge");
    assert_eq!(sent(&mut a), 600_000 - 262_154);
    assert_eq!(
        a.handle_input(NOW, &update(3, 600_001, 1)),
        Err(Error::ConsumedAhead { stream: 3 })
    );
}

#[test]
fn byte_counters_of_a_stream_wrap() {
    let mut a = end(Role::Opener, |_| ());
    let mut b = end(Role::Acceptor, |c| c.stream_buffer = 100_000);
    let sa = a.open(NOW).expect("open");
    settle(&mut a, &mut b, NOW);
    let seen = events(&mut b);
    let &[Event::Opened(sb)] = seen.as_slice() else {
        panic!("{seen:?}");
    };
    // As if 4 GiB less 100 kB had passed.
    let before = (1u64 << 32) - 100_000;
    let stream = a.streams.get_mut(sa).expect("a");
    stream.sent = before;
    let Flow::Told { consumed, .. } = &mut stream.flow else {
        panic!("it is version 2");
    };
    *consumed = before as u32;
    b.streams.get_mut(sb).expect("b").read = before;
    let mut total = 0;
    while total < 3_000_000 {
        total += a.write(sa, &[9; 40_000]).expect("write");
        settle(&mut a, &mut b, NOW);
        read(&mut b, NOW, sb);
    }
    settle(&mut a, &mut b, NOW);
    let info = b.stream_info(sb).expect("held");
    assert_eq!(info.read_total, before + total as u64);
    assert!(b.counters().updates_sent >= 2);
}

#[test]
fn version_one_has_no_window() {
    let mut a = end(Role::Opener, |c| {
        c.protocol = Version::V1.into();
        c.send_buffer = 1 << 20;
    });
    let id = a.open(NOW).expect("open");
    a.write(id, &vec![1; 1 << 20]).expect("write");
    drain(&mut a, NOW);
    let info = a.stream_info(id).expect("held");
    assert_eq!((info.sent, info.unsent), (1 << 20, 0));
    let mut update = update(3, 0, 1000);
    update[0] = 1;
    assert_eq!(a.handle_input(NOW, &update), Err(Error::UpdInV1));
}

#[test]
fn streams_take_turns_and_control_goes_first() {
    let mut a = end(Role::Opener, |c| c.max_frame = 1000);
    let ids: Vec<StreamId> = (0..3).map(|_| a.open(NOW).expect("open")).collect();
    for (&id, len) in ids.iter().zip([3500, 500, 2000]) {
        a.write(id, &vec![0; len]).expect("write");
    }
    a.finish(NOW, ids[1]);
    let sent = commands(&drain(&mut a, NOW));
    let (syn, psh) = (Command::Syn, Command::Psh);
    assert_eq!(
        sent,
        [
            (syn, 3, 0),
            (psh, 3, 1000),
            (syn, 5, 0),
            (psh, 5, 500),
            (syn, 7, 0),
            (psh, 7, 1000),
            (psh, 3, 1000),
            (psh, 7, 1000),
            (psh, 3, 1000),
            (psh, 3, 500),
        ]
    );
    // An update overtakes all data, and its stream does not lose its turn by it.
    a.write(ids[0], &[0; 1500]).expect("write");
    a.write(ids[2], &[0; 1500]).expect("write");
    a.handle_input(NOW, &psh_to(7)).expect("frame");
    a.consume(NOW, ids[2], 4);
    let sent = commands(&drain(&mut a, NOW));
    assert_eq!(
        sent,
        [
            (Command::Upd, 7, 8),
            (psh, 7, 1000),
            (psh, 3, 1000),
            (psh, 7, 500),
            (psh, 3, 500),
        ]
    );
}

fn psh_to(id: u32) -> Vec<u8> {
    psh(id, b"data")
}

#[test]
fn nothing_that_is_logged_contains_payload() {
    let mut a = end(Role::Opener, |_| ());
    let id = a.open(NOW).expect("open");
    a.write(id, &[171; 40]).expect("write");
    a.poll_frame(NOW).expect("SYN");
    let frame = format!("{:?}", a.poll_frame(NOW).expect("PSH"));
    assert!(frame.contains("Psh") && !frame.contains("171"), "{frame}");
    a.write(id, &[171; 40]).expect("write");
    assert!(!format!("{a:?}").contains("171, 171"));
    a.handle_input(NOW, &psh(3, &[171; 40])).expect("frame");
    assert_eq!(format!("{:?}", a.read_slices(id)), "Slices(40 bytes)");
}

#[test]
fn frames_of_the_largest_size() {
    let mut a = end(Role::Opener, |c| {
        c.max_frame = 65535;
        c.send_buffer = 1 << 20;
    });
    let mut b = end(Role::Acceptor, |_| ());
    let id = a.open(NOW).expect("open");
    let data: Vec<u8> = (0..200_000u32).map(|i| (i / 7) as u8).collect();
    a.write(id, &data).expect("write");
    let bytes = drain(&mut a, NOW);
    assert!(commands(&bytes).len() < 10);
    b.handle_input(NOW, &bytes).expect("frames");
    let seen = events(&mut b);
    let Event::Opened(sb) = seen[0] else {
        panic!("{seen:?}");
    };
    assert_eq!(read(&mut b, NOW, sb), data);
}

#[test]
fn writable_tells_that_the_buffer_has_room_again() {
    let mut a = end(Role::Opener, |c| {
        c.send_buffer = 10_000;
        c.max_frame = 2500;
    });
    let id = a.open(NOW).expect("open");
    assert_eq!(a.write_space(id), 10_000);
    assert_eq!(a.write(id, &[0; 12_000]), Ok(10_000));
    assert_eq!((a.write_space(id), a.write(id, b"x")), (0, Ok(0)));
    let mut frames = 0;
    while events(&mut a).is_empty() {
        a.poll_frame(NOW).expect("a frame");
        frames += 1;
    }
    assert_eq!(frames, 3, "SYN and half of the buffer");
    drain(&mut a, NOW);
    assert_eq!(events(&mut a), [], "once");
    assert_eq!(a.write(id, &[0; 5000]), Ok(5000));
    drain(&mut a, NOW);
    assert_eq!(events(&mut a), [], "it never was more than half full");
}

#[test]
fn a_socket_can_be_read_right_into_the_buffer() {
    let mut a = end(Role::Opener, |c| c.send_buffer = 20_000);
    let mut b = end(Role::Acceptor, |_| ());
    let id = a.open(NOW).expect("open");
    a.write(id, b"one ").expect("write");
    let room = a.write_reserve(id, 1000).expect("open");
    assert_eq!(room.len(), 1000);
    room[..3].copy_from_slice(b"TWO");
    // Frames may leave in between, and the room can be worked on.
    drain(&mut a, NOW);
    let room = a.write_reserve(id, 3).expect("open");
    assert_eq!(room, b"TWO");
    room.make_ascii_lowercase();
    assert_eq!(a.write_commit(id, 3), Ok(3));
    check(&a);
    b.handle_input(NOW, &syn(3)).expect("syn");
    b.handle_input(NOW, &drain(&mut a, NOW)).expect("frames");
    let seen = events(&mut b);
    let Event::Opened(sb) = seen[0] else {
        panic!("{seen:?}");
    };
    let [first, second] = b.read_chunks_mut(sb);
    first.make_ascii_uppercase();
    assert!(second.is_empty());
    assert_eq!(b.read_chunks(sb), [&b"TWO"[..], &[]]);
    // Nothing came after all.
    assert!(!a.write_reserve(id, 8000).expect("open").is_empty());
    assert_eq!(a.write_commit(id, 0), Ok(0));
    check(&a);
    // Never more than there is space for.
    let mut total = 0;
    loop {
        let n = a.write_reserve(id, usize::MAX).expect("open").len();
        if n == 0 {
            break;
        }
        assert_eq!(a.write_commit(id, n), Ok(n));
        total += n;
    }
    assert_eq!(total, 20_000);
    // A reservation whose stream was stopped.
    drain(&mut a, NOW);
    a.write_reserve(id, 10).expect("open");
    a.handle_input(NOW, &frame(Version::V2, Command::Fin, 3, 0, &[]))
        .expect("fin");
    assert_eq!(a.write_commit(id, 10), Err(WriteError::Stopped));
    assert_eq!(a.write_state(id), WriteState::Stopped(ResetReason::CLOSED));
    check(&a);
}

#[test]
fn room_that_was_lent_comes_back_with_the_end_of_the_direction() {
    let mut a = end(Role::Opener, |_| ());
    for ending in [
        |a: &mut Mux, id| a.finish(NOW, id),
        |a: &mut Mux, id| a.close(NOW, id),
        |a: &mut Mux, id| a.reset(id, ResetReason::ABORTED),
    ] {
        let id = a.open(NOW).expect("open");
        a.write(id, b"these bytes stay").expect("write");
        a.write_reserve(id, 60_000).expect("open");
        ending(&mut a, id);
        drain(&mut a, NOW);
        // Nothing waits any more.
        check(&a);
        assert_eq!(a.outbox.bytes_in_use(), 0);
        assert!(a.write_commit(id, 10).is_err());
    }
}

#[test]
fn stream_info_tells_what_stands_still() {
    let later = |ms| NOW + Duration::from_millis(ms);
    let mut b = end(Role::Acceptor, |_| ());
    b.handle_input(NOW, &syn(3)).expect("syn");
    let seen = events(&mut b);
    let Event::Opened(id) = seen[0] else {
        panic!("{seen:?}");
    };
    b.handle_input(later(10), &psh(3, b"abc")).expect("frame");
    b.consume(later(20), id, 1);
    b.write(id, b"reply").expect("write");
    drain(&mut b, later(30));
    b.write(id, b"more").expect("write");
    let info = b.stream_info(id).expect("held");
    assert_eq!(info.arrived_at, later(10));
    assert_eq!(info.read_at, later(20));
    assert_eq!(info.sent_at, later(30));
    assert_eq!((info.sent, info.unsent), (5, 4));
    assert_eq!((info.read_total, info.unread), (1, 2));
    assert!(!info.window_closed);
    b.close(NOW, id);
    assert_eq!(b.stream_info(id), None);
}
