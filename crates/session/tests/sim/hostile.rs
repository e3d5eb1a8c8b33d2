//! Peers that hold the key and lie.

use fulmar_session::Reason;
use fulmar_session::endpoint::Event;
use fulmar_session::layer::LayerError;
use fulmar_wire::smux::Command;

use crate::apps::{Expect, Pace, Program, Step, bulk, fill};
use crate::harness::{Sim, link, ms, secs, seeds, stranger};
use crate::raw::Raw;
use crate::setup::Options;

/// A server and a liar that has no part in honest smux.
fn scene(seed: u64, smux: u8) -> (Sim, Raw) {
    let options = Options {
        fec: None,
        smux,
        ..Options::server()
    };
    let l = link(5, 0.0);
    let sim = Sim::empty("liar", seed, l.clone(), l, &options);
    let raw = Raw::new(&options, stranger(9), 4711);
    (sim, raw)
}

fn end(sim: &Sim) -> Option<Reason> {
    let closed = |e: &Event| match e {
        Event::Closed(_, _, reason) => Some(reason.clone()),
        _ => None,
    };
    sim.server.first(closed).map(|(_, reason)| reason)
}

/// An application that opens its eyes in a year.
fn asleep(sim: &Sim, expect: Expect) -> Program {
    Program::new(expect, [Step::ReadEnd]).paced(Pace {
        from: sim.now + secs(365 * 86_400),
        bytes: 1,
        every: secs(1),
    })
}

#[test]
fn more_than_the_window_of_a_stream_ends_the_session() {
    for seed in seeds(1) {
        let (mut sim, mut raw) = scene(seed, 2);
        let program = asleep(&sim, Expect::Lost);
        sim.expect_stream(4711, 3, program);
        raw.frame(Command::Syn, 3, 0, &[]);
        for _ in 0..60 {
            raw.frame(Command::Psh, 3, 60_000, &[7; 60_000]);
        }
        raw.live(&mut sim, 300);
        let reason = end(&sim);
        assert!(
            matches!(reason, Some(Reason::Layer(LayerError::Misbehaved(_)))),
            "{reason:?}"
        );
        assert_eq!(sim.server.endpoint.counters().misbehaved_sessions, 1);
        sim.check_outcomes();
    }
}

#[test]
fn without_windows_a_reader_that_sleeps_stops_the_sender() {
    for seed in seeds(1) {
        let (mut sim, mut raw) = scene(seed, 1);
        let program = asleep(&sim, Expect::Anything);
        sim.expect_stream(4711, 3, program);
        raw.frame(Command::Syn, 3, 0, &[]);
        for _ in 0..200 {
            raw.frame(Command::Psh, 3, 60_000, &[7; 60_000]);
        }
        raw.live(&mut sim, 1000);
        // 12 MB were said; the buffer of 4 MB and the window of KCP are full, no more.
        assert_eq!(end(&sim), None);
        let key = sim.server.endpoint.sessions().next().expect("it lives");
        let session = sim.server.endpoint.session(key).expect("it lives");
        assert!(
            session.kcp().held_bytes() < 4 << 20,
            "{}",
            session.kcp().held_bytes()
        );
        assert_eq!(raw.kcp.remote_window(), 0);
        assert!(raw.kcp.waiting() > 4000);
    }
}

#[test]
fn streams_without_end_end_the_session() {
    for seed in seeds(1) {
        for smux in [1, 2] {
            let (mut sim, mut raw) = scene(seed, smux);
            for i in 0..20_000 {
                let program = Program::new(Expect::Lost, [Step::ReadEnd]);
                sim.expect_stream(4711, 3 + 2 * i, program);
                raw.frame(Command::Syn, 3 + 2 * i, 0, &[]);
            }
            raw.live(&mut sim, 200);
            let reason = end(&sim);
            assert!(
                matches!(&reason, Some(Reason::Layer(LayerError::Misbehaved(why))) if why.contains("streams")),
                "{reason:?}"
            );
            sim.check_outcomes();
        }
    }
}

#[test]
fn frames_that_are_none_end_the_session() {
    type Lie = fn(&mut Raw);
    let lies: [(&str, Lie); 9] = [
        ("another version", |raw| raw.say(&[9, 0, 0, 0, 3, 0, 0, 0])),
        ("no command", |raw| raw.say(&[2, 77, 0, 0, 3, 0, 0, 0])),
        ("a long SYN", |raw| raw.frame(Command::Syn, 5, 8, &[0; 8])),
        ("a long FIN", |raw| raw.frame(Command::Fin, 3, 1, &[0])),
        ("a short update", |raw| {
            raw.frame(Command::Upd, 3, 4, &[0; 4]);
        }),
        ("more consumed than sent", |raw| {
            raw.frame(Command::Upd, 3, 8, &[255, 255, 0, 0, 0, 0, 1, 0]);
        }),
        ("a reset from who did not say hello", |raw| {
            raw.frame(Command::Rst, 3, 4, &[0; 4]);
        }),
        ("zeros", |raw| raw.say(&[0; 100])),
        ("the other version", |raw| {
            raw.say(&[1, 0, 0, 0, 5, 0, 0, 0]);
        }),
    ];
    for seed in seeds(1) {
        for (name, lie) in lies {
            let (mut sim, mut raw) = scene(seed, 2);
            sim.expect_stream(
                4711,
                3,
                Program::new(Expect::Lost, [Step::Write(50), Step::ReadEnd]),
            );
            raw.frame(Command::Syn, 3, 0, &[]);
            raw.live(&mut sim, 10);
            assert!(end(&sim).is_none() && sim.server.apps.open == 1, "{name}");
            lie(&mut raw);
            raw.live(&mut sim, 10);
            let reason = end(&sim);
            assert!(
                matches!(reason, Some(Reason::Layer(_))),
                "{name}: {reason:?}"
            );
            assert_eq!(
                sim.server.endpoint.counters().misbehaved_sessions,
                1,
                "{name}"
            );
            assert_eq!(sim.server.endpoint.sessions().count(), 0);
            sim.check_outcomes();
        }
    }
}

#[test]
fn a_stream_that_is_neither_compressed_nor_smux_opens_no_session_for_long() {
    for seed in seeds(1) {
        let openings: [&[u8]; 4] = [
            b"GET / HTTP/1.0\r\n\r\n",
            &[0; 40],
            // Compression that is none.
            &[
                0xff, 6, 0, 0, b's', b'n', b'a', b'p', b'p', b'x', 0, 0, 0, 0,
            ],
            // Compressed, and what comes out is no smux.
            &[
                0xff, 6, 0, 0, b's', b'N', b'a', b'P', b'p', b'Y', 1, 5, 0, 0, 0, 0, 0, 0, 9,
            ],
        ];
        for opening in openings {
            let (mut sim, mut raw) = scene(seed, 2);
            raw.say(opening);
            raw.live(&mut sim, 10);
            let reason = end(&sim);
            assert!(
                matches!(reason, Some(Reason::Layer(LayerError::Malformed(_)))),
                "{opening:?}: {reason:?}"
            );
            assert_eq!(sim.server.endpoint.sessions().count(), 0);
        }
    }
}

#[test]
fn a_compressed_opening_that_never_says_its_version_ends() {
    for seed in seeds(1) {
        let (mut sim, mut raw) = scene(seed, 2);
        raw.say(b"\xff\x06\0\0sNaPpY");
        // Padding chunks are legal and mean nothing.
        let start = sim.now;
        while sim.now - start < secs(12) {
            raw.say(&[0xfe, 200, 0, 0]);
            raw.say(&[0; 200]);
            raw.live(&mut sim, 10);
        }
        assert!(matches!(
            sim.server.events.iter().find_map(|(_, e)| match e {
                Event::Closed(_, _, reason) => Some(reason),
                _ => None,
            }),
            Some(Reason::Unproven(_))
        ));
    }
}

/// A peer that acknowledges nothing, or shuts its window for good, makes the server keep no more than its send window.
#[test]
fn a_peer_that_takes_nothing_costs_one_window() {
    for seed in seeds(1) {
        let (mut sim, mut raw) = scene(seed, 2);
        sim.expect_stream(
            4711,
            3,
            Program::new(Expect::Anything, [Step::Write(1 << 40), Step::ReadEnd]),
        );
        raw.hello();
        raw.frame(Command::Syn, 3, 0, &[]);
        // The largest window that there is.
        raw.frame(Command::Upd, 3, 8, &[0, 0, 0, 0, 255, 255, 255, 255]);
        raw.live(&mut sim, 3);
        // From now on it only says that it lives, and takes nothing in.
        for _ in 0..100 {
            raw.frame(Command::Nop, 0, 0, &[]);
            for datagram in raw.datagrams(sim.now) {
                sim.inject(raw.addr, &datagram);
            }
            sim.strays.clear();
            sim.run_for(ms(100));
        }
        let key = sim.server.endpoint.sessions().next().expect("it lives");
        let session = sim.server.endpoint.session(key).expect("it lives");
        let state = session.kcp().state();
        assert!(
            state.len_snd_buf + state.len_snd_queue <= 1024 + 10,
            "{state:?}"
        );
        assert!(session.kcp().held_bytes() < 4 << 20);
    }
}

/// Numbers in acknowledgements that were never sent, windows that jump, times that lie.
#[test]
fn lies_in_headers_do_not_hurt_an_honest_transfer() {
    use fulmar_wire::kcp::{self, Format, Header};
    use fulmar_wire::seq::Seq;
    use fulmar_wire::time::Millis;
    for seed in seeds(1) {
        let client = Options {
            fec: None,
            ..Options::client()
        };
        let server = Options {
            fec: None,
            ..Options::server()
        };
        let l = link(20, 0.01);
        let mut sim = Sim::new("forged acks", seed, l.clone(), l, (&client, &server));
        let mut cipher = client.cipher(client.method, 5);
        sim.open(bulk(300_000, 300_000));
        let (conv, from) = (sim.clients[0].conv, sim.client().addr);
        for i in 0..100u32 {
            sim.run_for(ms(5));
            let header = Header {
                conv,
                command: kcp::Command::Ack,
                frg: 7,
                wnd: 65_535,
                ts: Millis(i.wrapping_mul(0x9999_9999)),
                // Neither was ever sent.
                sn: Seq(1_000_000 + i),
                una: Seq(2_000_000 + i),
                len: 0,
            };
            let body = Format::LittleEndian.emit(&header);
            let datagram = crate::raw::seal(&mut *cipher, &body);
            sim.inject(from, &datagram);
        }
        sim.finish(secs(30));
    }
}

/// The liar of these tests can be honest, so what they find is not a fault of its own.
#[test]
fn the_raw_peer_can_speak_the_truth() {
    for seed in seeds(1) {
        for smux in [1, 2] {
            let (mut sim, mut raw) = scene(seed, smux);
            sim.expect_stream(
                4711,
                3,
                Program::new(
                    Expect::End(500),
                    [Step::Read(500), Step::Write(700), Step::Finish],
                ),
            );
            raw.hello();
            raw.frame(Command::Syn, 3, 0, &[]);
            let mut data = [0; 500];
            // What the harness sends on stream 3 of this conversation.
            fill((4711 << 33) + (3 << 2) + 1, 0, &mut data);
            raw.frame(Command::Psh, 3, 500, &data);
            raw.frame(Command::Fin, 3, 0, &[]);
            raw.live(&mut sim, 30);
            assert_eq!(sim.server.apps.open, 0, "{}", sim.report());
            sim.check_outcomes();
            assert!(raw.heard.len() > 700);
        }
    }
}
