//! Input that no correct end sends.

use super::*;
use proptest::prelude::*;

const NOW: Instant = Instant::from_millis(9);

fn end(version: Version, role: Role, hello: bool) -> Mux {
    let config = Config {
        hello,
        session_buffer: 200_000,
        stream_buffer: 50_000,
        max_streams: 4,
        ..Config::new(version, role)
    };
    Mux::new(config, NOW).expect("valid")
}

fn fails(version: Version, bytes: &[u8], error: Error) {
    for split in 0..bytes.len() {
        let mut b = end(version, Role::Acceptor, true);
        let (head, tail) = bytes.split_at(split);
        let result = b
            .handle_input(NOW, head)
            .and_then(|()| b.handle_input(NOW, tail));
        assert_eq!(result, Err(error));
        assert_eq!(b.handle_input(NOW, b""), Err(error), "for good");
        assert_eq!(b.error(), Some(error));
        assert!(!b.has_frames());
        assert!(b.poll_frame(NOW).is_none());
        check(&b);
    }
}

#[test]
fn wrong_protocols() {
    let ours = Version::V2;
    for got in [1, 0, 3, 0xff] {
        fails(
            ours,
            &[got, 0, 0, 0, 3, 0, 0, 0],
            Error::BadVersion { got, ours },
        );
    }
    // With another version the command says nothing.
    fails(
        ours,
        &[0xff, 0x06, 0, 0, b's', b'N', b'a', b'P'],
        Error::BadVersion { got: 0xff, ours },
    );
    fails(ours, &[2, 5, 0, 0, 3, 0, 0, 0], Error::BadCommand(5));
    fails(Version::V1, &[1, 4, 8, 0, 3, 0, 0, 0], Error::UpdInV1);
}

#[test]
fn lies_about_lengths() {
    for (command, len) in [
        (Command::Syn, 1),
        (Command::Fin, 65535),
        (Command::Nop, 8),
        (Command::Upd, 0),
        (Command::Upd, 9),
    ] {
        let bytes = frame(Version::V2, command, 3, len, &[]);
        let command = command.number();
        fails(Version::V2, &bytes, Error::BadLength { command, len });
    }
}

#[test]
fn frames_about_nothing() {
    let mut b = end(Version::V2, Role::Acceptor, true);
    let bytes = [
        frame(Version::V2, Command::Psh, 77, 5, b"ghost"),
        frame(Version::V2, Command::Fin, 77, 0, &[]),
        frame(Version::V2, Command::Upd, 77, 8, &[0xff; 8]),
        frame(Version::V2, Command::Syn, 3, 0, &[]),
        frame(Version::V2, Command::Syn, 3, 0, &[]),
        frame(Version::V2, Command::Psh, 3, 0, &[]),
        frame(Version::V2, Command::Fin, 3, 0, &[]),
        frame(Version::V2, Command::Fin, 3, 0, &[]),
        frame(Version::V2, Command::Psh, 3, 4, b"late"),
    ]
    .concat();
    for byte in bytes {
        b.handle_input(NOW, &[byte]).expect("tolerated");
        check(&b);
    }
    let counters = b.counters();
    assert_eq!(counters.frames_received, 9);
    assert_eq!(counters.frames_unknown, 3);
    assert_eq!(counters.bytes_skipped, 9);
    assert_eq!(counters.syns_ignored, 1);
    assert_eq!(counters.empty_frames, 1);
    assert_eq!(counters.fins_repeated, 1);
    assert_eq!(counters.bytes_received, 0);
    let seen = events(&mut b);
    let &[
        Event::PeerPlain,
        Event::Opened(id),
        Event::Stopped(..),
        Event::Finished(_),
    ] = seen.as_slice()
    else {
        panic!("{seen:?}");
    };
    assert_eq!(b.readable(id), 0);
}

#[test]
fn opening_and_cutting_without_end_costs_nothing() {
    let mut b = end(Version::V2, Role::Acceptor, true);
    let hello = Hello { features: FEATURES }.header(Version::V2);
    b.handle_input(NOW, &hello.to_bytes()).expect("hello");
    for round in 0..10_000 {
        let id = 3 + 2 * round;
        let bytes = [
            frame(Version::V2, Command::Syn, id, 0, &[]),
            frame(Version::V2, Command::Psh, id, 3, b"abc"),
            frame(Version::V2, Command::Rst, id, 4, &[1; 4]),
        ]
        .concat();
        b.handle_input(NOW, &bytes).expect("tolerated");
    }
    check(&b);
    assert_eq!(b.streams(), 0);
    assert!(b.buffer_memory() < 10_000);
    assert_eq!(events(&mut b).len(), 1, "nothing to tell but the hello");
}

/// A frame that is plausible, mostly.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let id = prop_oneof![Just(3u32), Just(5), Just(7), Just(0), any::<u32>()];
    let small = prop_oneof![Just(0u32), 0u32..100_000, any::<u32>()];
    (0u8..7, id, 0u16..3000, small.clone(), small, 0u8..40).prop_map(
        |(kind, id, len, a, b, lie)| {
            let (command, mut payload) = match kind {
                0 => (Command::Syn, vec![]),
                1 => (Command::Fin, vec![]),
                2 | 3 => (Command::Psh, vec![0x11; usize::from(len)]),
                4 => (Command::Nop, vec![]),
                5 => (Command::Upd, [a.to_le_bytes(), b.to_le_bytes()].concat()),
                _ => (Command::Rst, a.to_le_bytes().to_vec()),
            };
            let mut len = payload.len() as u16;
            match lie {
                0 => len = len.wrapping_add(1),
                1 => payload.push(0),
                2 => len = u16::MAX,
                _ => {}
            }
            frame(Version::V2, command, id, len, &payload)
        },
    )
}

/// What the application does between inputs, on the stream that comes `which`-th among those it holds.
fn act(smux: &mut Mux, what: u8, which: usize, n: usize) {
    let ids: Vec<StreamId> = smux.held().collect();
    let id = (!ids.is_empty()).then(|| ids[which % ids.len()]);
    match (what, id) {
        (0, _) => drop(events(smux)),
        (1, _) => drop(drain(smux, NOW)),
        (2, Some(id)) => smux.consume(NOW, id, n),
        (3, Some(id)) => drop(smux.write(id, &vec![0; n])),
        (4, Some(id)) => smux.finish(NOW, id),
        (5, Some(id)) => smux.close(NOW, id),
        (6, Some(id)) => smux.reset(id, ResetReason::ABORTED),
        (7, _) => drop(smux.open(NOW)),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn arbitrary_bytes(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..600),
        opener: bool,
        v2: bool,
        version_right in 0u8..4,
        cut in 1usize..50,
    ) {
        let (role, version) = (
            if opener { Role::Opener } else { Role::Acceptor },
            if v2 { Version::V2 } else { Version::V1 },
        );
        // Without help random bytes hardly get past the first byte.
        if version_right > 0 {
            for (i, byte) in bytes.iter_mut().enumerate() {
                match i % 8 {
                    0 => *byte = version.number(),
                    1 => *byte %= 5,
                    2 | 3 if version_right > 1 => *byte = 0,
                    _ => {}
                }
            }
        }
        let mut smux = end(version, role, true);
        for piece in bytes.chunks(cut) {
            let result = smux.handle_input(NOW, piece);
            check(&smux);
            prop_assert_eq!(result.err(), smux.error());
        }
        prop_assert!(smux.unread() as usize <= bytes.len());
        prop_assert!(smux.buffer_memory() <= 2048 * (1 + bytes.len() / 17) + 16384);
    }

    #[test]
    fn plausible_frames_and_a_busy_application(
        steps in proptest::collection::vec((frames(), 0u8..8, 0usize..4, 0usize..5000), 0..80),
        opener: bool,
        hello: bool,
    ) {
        let role = if opener { Role::Opener } else { Role::Acceptor };
        let mut smux = end(Version::V2, role, true);
        if hello {
            let hello = Hello { features: FEATURES }.header(Version::V2);
            smux.handle_input(NOW, &hello.to_bytes()).expect("hello");
        }
        for (bytes, what, which, n) in steps {
            if smux.wants_input() && smux.handle_input(NOW, &bytes).is_err() {
                break;
            }
            check(&smux);
            act(&mut smux, what, which, n);
            check(&smux);
            // One input beyond the limit, at most.
            prop_assert!(smux.unread() <= 200_000 + 3000);
        }
        for id in smux.held().collect::<Vec<_>>() {
            smux.close(NOW, id);
        }
        check(&smux);
        prop_assert_eq!(smux.held_streams(), 0);
    }
}
