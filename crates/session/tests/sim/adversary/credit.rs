//! What goes to an address before the peer is known to be there, and who can make a session move.

use std::net::SocketAddr;
use std::time::Duration;

use fulmar_netem::Direction;
use fulmar_session::addresses::{FACTOR, REPEAT_BYTES, REPEATS};
use fulmar_wire::kcptun::Method;

use super::setups::{Class, setups};
use crate::apps::{Expect, Program, Step, bulk};
use crate::harness::{Sim, Sleep, link, ms, secs, seeds, stranger};
use crate::raw::Raw;
use crate::setup::{Options, Wire};

/// What may go to an address that so many bytes came from.
const fn allowed(heard: u64) -> u64 {
    FACTOR * heard + REPEATS as u64 * REPEAT_BYTES as u64
}

/// A client asks for 10 MB and is gone, or was never there. Bytes that the server heard, and that it sent.
fn ask_and_fall_silent(sim: &mut Sim, stay: Duration) -> (u64, u64) {
    sim.heard = Some(Vec::new());
    let any = |steps: &[Step]| Program::new(Expect::Anything, steps);
    for _ in 0..3 {
        sim.open((
            any(&[Step::Write(100)]),
            any(&[Step::Read(1), Step::Write(10_000_000)]),
        ));
    }
    sim.settle();
    let now = sim.now;
    // What it has sent is under way.
    sim.run_for(stay);
    sim.client_mut().sleep(now, Sleep::Suspended);
    sim.run_for(secs(200));
    let heard = sim.heard.take().expect("it is on");
    let heard = heard.iter().map(|d| d.len() as u64).sum();
    (heard, sim.server.endpoint.counters().out_bytes)
}

/// Seen in the field: one datagram drew up to 80,000 times its bytes: probes of sizes, and a full window of data.
#[test]
fn who_opens_and_falls_silent_draws_little() {
    for seed in seeds(1) {
        for measuring in [false, true] {
            for setup in setups() {
                let (client, server) = setup.ends(measuring);
                for fec in [None, Some((2, 2)), Some((10, 3))] {
                    if fec.is_some() && client.wire != Wire::Kcptun {
                        continue;
                    }
                    let set = |end: &Options| Options { fec, ..end.clone() };
                    let l = link(20, 0.0);
                    let mut sim = Sim::new(
                        "silence",
                        seed,
                        l.clone(),
                        l,
                        (&set(&client), &set(&server)),
                    );
                    // Nothing of the answer reaches it.
                    let (heard, sent) = ask_and_fall_silent(&mut sim, Duration::ZERO);
                    let what = format!("{} {fec:?}", setup.name);
                    assert!(heard > 0 && sent > 0, "{what}");
                    assert!(sent <= allowed(heard), "{what}: {sent} for {heard}");
                    let counters = sim.server.endpoint.counters();
                    assert!(counters.credit_waits > 0, "{what}");
                    let none = (counters.validated_addresses, counters.size_probes);
                    assert_eq!(none, (0, 0), "{what}");
                    assert_eq!(
                        (counters.copied_segs, counters.moved_peers),
                        (0, 0),
                        "{what}"
                    );
                }
            }
        }
    }
}

/// A request that is so short that three times its bytes hold no answer: it is answered all the same, without a word more of the client.
#[test]
fn a_tiny_request_is_answered() {
    use fulmar_wire::smux::Command;
    for measuring in [false, true] {
        for method in [Method::Null, Method::None, Method::Aes] {
            let (_, server) = Options::ends(measuring);
            let server = Options {
                method,
                fec: None,
                smux: 1,
                ..server
            };
            let l = link(20, 0.0);
            let mut sim = Sim::empty("tiny", 1, l.clone(), l, &server);
            let mut raw = Raw::new(&server, stranger(1), 4711);
            let answer = [Step::Read(1), Step::Write(3000)];
            sim.expect_stream(4711, 3, Program::new(Expect::Anything, answer).unchecked());
            raw.frame(Command::Syn, 3, 0, &[]);
            raw.frame(Command::Psh, 3, 1, &[7]);
            raw.live(&mut sim, 30);
            assert!(raw.heard.len() > 3000, "{method:?}: {}", raw.heard.len());
        }
    }
}

/// The repeats are those of the address, not of each conversation that somebody opens there.
#[test]
fn many_conversations_of_an_address_draw_no_more_than_one() {
    for seed in seeds(1) {
        for measuring in [false, true] {
            let (client, server) = Options::libev(fulmar_wire::libev::Method::Plain, measuring);
            let l = link(20, 0.0);
            let mut sim = Sim::new("many", seed, l.clone(), l, (&client, &server));
            for _ in 0..60 {
                let any = |steps: &[Step]| Program::new(Expect::Anything, steps);
                sim.open((
                    any(&[Step::Write(1)]),
                    any(&[Step::Read(1), Step::Write(1_000_000)]),
                ));
            }
            let (heard, sent) = ask_and_fall_silent(&mut sim, Duration::ZERO);
            assert!(sent <= allowed(heard), "{sent} for {heard}");
            assert_eq!(
                sim.server.endpoint.counters().credit_repeats,
                u64::from(REPEATS)
            );
        }
    }
}

/// How long a client waits for 1 MB that it asks for with 100 bytes: where the server knows that it is there, and where not.
fn first_answer(
    seed: u64,
    (client, server): &(Options, Options),
    loss: f64,
    known: bool,
) -> Duration {
    let l = link(25, loss);
    let mut sim = Sim::new("first answer", seed, l.clone(), l, (client, server));
    if known {
        sim.know_clients();
    }
    let end = |read| Expect::End(read);
    sim.open((
        Program::new(
            end(1_000_000),
            [Step::Write(100), Step::Read(1_000_000), Step::Finish],
        ),
        Program::new(
            end(100),
            [Step::Read(100), Step::Write(1_000_000), Step::Finish],
        ),
    ));
    sim.finish(secs(120))
}

#[test]
fn a_first_answer_comes_at_most_one_round_trip_later() {
    let (aes, server) = Options::ends(false);
    let mut all = vec![(aes.clone(), server.clone())];
    all.push(Options::ends(true));
    all.extend(Options::first(false).into_iter().take(1));
    for measuring in [false, true] {
        all.push(Options::libev(
            fulmar_wire::libev::Method::SEALED[0],
            measuring,
        ));
    }
    for ends in all {
        for loss in [0.0, 0.05, 0.2] {
            let median = |known| {
                let mut took: Vec<_> = (1..=21)
                    .map(|seed| first_answer(seed, &ends, loss, known))
                    .collect();
                took.sort_unstable();
                took[10]
            };
            let (known, unknown) = (median(true), median(false));
            // A round trip, and what chance makes of medians of 21.
            let chance = known.mul_f64(loss.max(0.01) * 1.5);
            let most = known + ms(50) + chance;
            assert!(
                unknown <= most,
                "{} at {loss}: {unknown:?} instead of {known:?}",
                ends.0.dialect()
            );
        }
    }
}

/// An address that is validated stays so for all its conversations, until it was silent for five minutes.
#[test]
fn conversations_of_a_validated_address_wait_for_nothing() {
    for seed in seeds(1) {
        let (client, server) = Options::libev(fulmar_wire::libev::Method::SEALED[0], true);
        let l = link(25, 0.0);
        let mut sim = Sim::new("validated", seed, l.clone(), l, (&client, &server));
        let mut validated = Vec::new();
        for pause in [0, 30, 280, 400, 30] {
            sim.run_for(secs(pause));
            sim.open(bulk(100, 100_000));
            sim.finish(secs(30));
            sim.run_for(secs(1));
            validated.push(sim.server.endpoint.counters().validated_addresses);
        }
        assert_eq!(validated, [1, 1, 1, 2, 2]);
    }
}

/// An outsider who guesses at acknowledgements, where no key is needed: what it says of numbers shows nothing.
#[test]
fn acknowledgements_without_the_echo_of_a_time_show_nothing() {
    use fulmar_wire::kcp::{Command, Format, Header};
    use fulmar_wire::seq::Seq;
    use fulmar_wire::time::Millis;
    for seed in seeds(4) {
        let (client, server) = (
            Options {
                method: Method::None,
                fec: None,
                ..Options::client()
            },
            Options {
                method: Method::None,
                fec: None,
                ..Options::server()
            },
        );
        let l = link(20, 0.0);
        let mut sim = Sim::new("guesses", seed, l.clone(), l, (&client, &server));
        let addr = sim.client().addr;
        let conv = sim.clients[0].conv;
        let mut forged = 0;
        let (now, mut cipher) = (sim.now, client.cipher(Method::None, 3));
        let any = |steps: &[Step]| Program::new(Expect::Anything, steps);
        sim.heard = Some(Vec::new());
        sim.open((
            any(&[Step::Write(100)]),
            any(&[Step::Read(1), Step::Write(10_000_000)]),
        ));
        sim.settle();
        sim.client_mut().sleep(now, Sleep::Suspended);
        for i in 0..3000 {
            sim.run_for(ms(2));
            // Times around every beginning that a program may have, and others.
            let ts = match i % 3 {
                0 => sim.now.wire_millis(),
                1 => Millis(i),
                _ => Millis(sim.rng.bits() as u32),
            };
            let header = Header {
                conv,
                command: Command::Ack,
                frg: 0,
                wnd: 1000,
                ts,
                sn: Seq(i % 5),
                una: Seq(i % 7),
                len: 0,
            };
            let body = Format::LittleEndian.emit(&header);
            let datagram = crate::raw::seal(&mut *cipher, &body);
            forged += datagram.len() as u64;
            sim.inject(addr, &datagram);
        }
        let heard: u64 = sim
            .heard
            .take()
            .expect("on")
            .iter()
            .map(|d| d.len() as u64)
            .sum();
        let counters = sim.server.endpoint.counters();
        assert_eq!(counters.validated_addresses, 0);
        assert!(
            counters.out_bytes <= allowed(heard + forged),
            "{counters:?}"
        );
    }
}

/// Somebody beside the path sends a copy of each datagram that is faster than the datagram itself.
fn overtake(sim: &mut Sim, from: SocketAddr, time: Duration) -> u64 {
    let mut due: std::collections::VecDeque<(fulmar_wire::time::Instant, Vec<u8>)> =
        std::collections::VecDeque::new();
    sim.record = Some(Vec::new());
    let end = sim.now + time;
    let mut bytes = 0;
    while sim.now < end {
        let record = sim.record.replace(Vec::new()).unwrap_or_default();
        let up = record.into_iter().filter(|r| r.direction == Direction::Up);
        // The way takes 30 ms, and a copy 10.
        let at = sim.now + ms(10);
        due.extend(up.map(|r| (at, r.data)));
        while due.front().is_some_and(|(at, _)| *at <= sim.now) {
            let (_, data) = due.pop_front().expect("it is there");
            bytes += data.len() as u64;
            sim.inject(from, &data);
        }
        sim.run_for(ms(1));
    }
    bytes
}

/// Bytes that have arrived where nobody of ours is.
fn drawn(sim: &Sim, to: SocketAddr) -> u64 {
    let there = sim.strays.iter().filter(|d| d.to == to);
    there.map(|d| d.data.len() as u64).sum()
}

/// Seen in the field: copies that arrived 20 ms before their originals, from another address, moved a session there and drew 10 MB.
#[test]
fn early_copies_from_elsewhere_move_nothing_and_draw_little() {
    for seed in seeds(1) {
        for measuring in [false, true] {
            for setup in setups() {
                let (client, server) = setup.ends(measuring);
                for wait in [ms(0), ms(300)] {
                    let what = format!("{} {wait:?}", setup.name);
                    let l = link(30, 0.01);
                    let mut sim = Sim::new("early", seed, l.clone(), l, (&client, &server));
                    // Which conversation is whose is told by the address there: a copy begins one of its own.
                    if wait.is_zero() && setup.by_address {
                        continue;
                    }
                    let at = sim.open(bulk(200_000, 2_000_000));
                    sim.run_for(wait);
                    let bytes = overtake(&mut sim, stranger(3), secs(3));
                    let counters = sim.server.endpoint.counters();
                    let drawn = drawn(&sim, stranger(3));
                    assert!(drawn <= allowed(bytes), "{what}: {drawn} for {bytes}");
                    if wait.is_zero() {
                        // The copy has opened it, and it moves to where it belongs, if it can.
                        assert!(counters.moved_peers <= 1, "{what}");
                        if setup.class == Class::Open {
                            continue;
                        }
                    } else {
                        assert_eq!(counters.moved_peers, 0, "{what}");
                    }
                    let gap = sim.client().apps.get(at).longest_gap;
                    assert!(gap < ms(1500), "{what}: nothing for {gap:?}");
                    sim.finish(secs(60));
                }
            }
        }
    }
}

/// Everything that arrives is sent again at once, from elsewhere, and what is answered there is thrown away.
#[test]
fn a_client_that_moves_is_followed_whatever_is_replayed_meanwhile() {
    for seed in seeds(1) {
        for measuring in [false, true] {
            let (client, server) = Options::ends(measuring);
            let l = link(30, 0.0);
            let mut sim = Sim::new("replay", seed, l.clone(), l, (&client, &server));
            let at = sim.open(bulk(100, 20_000_000));
            let pings = sim.open(crate::apps::requests(60, 50, 50, ms(50)));
            sim.heard = Some(Vec::new());
            for round in 0..300u16 {
                if round == 100 {
                    let now = sim.now;
                    sim.net.change_address(now, Direction::Up, None);
                }
                sim.run_for(ms(10));
                let heard = sim.heard.replace(Vec::new()).expect("it is on");
                for datagram in heard {
                    sim.inject(stranger(round % 9), &datagram);
                }
            }
            sim.finish(secs(60));
            let gaps = [at, pings].map(|at| sim.client().apps.get(at).longest_gap);
            assert!(
                gaps.iter().all(|gap| *gap < ms(2700)),
                "nothing for {gaps:?}"
            );
            let counters = sim.server.endpoint.counters();
            assert_eq!(counters.moved_peers, 1, "{counters:?}");
            assert!(sim.server.endpoint.sessions().count() <= 1);
            let all: u64 = (0..9).map(|i| drawn(&sim, stranger(i))).sum();
            assert!(all < 400_000, "{all}");
        }
    }
}

/// Where the last block of a packet can be changed: what acknowledgements say of numbers is what somebody wants, and their times are those
/// that the client has echoed. Such an acknowledgement can say that more has arrived than has; it moves nothing and shows nothing.
#[test]
fn acknowledgements_with_other_numbers_move_nothing() {
    use fulmar_wire::kcp::{Command, Format};
    use fulmar_wire::seq::Seq;
    for seed in seeds(2) {
        for measuring in [false, true] {
            for method in [Method::Aes, Method::Salsa20, Method::Tea] {
                let (client, server) = Options::ends(measuring);
                let set = |end: Options| Options {
                    method,
                    fec: None,
                    ..end
                };
                let (client, server) = (set(client), set(server));
                let l = link(30, 0.01);
                let mut sim = Sim::new("numbers", seed, l.clone(), l, (&client, &server));
                let any = |n| Program::new(Expect::Anything, [Step::Write(n)]);
                sim.open((any(20_000_000), any(20_000_000)));
                let mut cipher = client.cipher(method, 77);
                sim.heard = Some(Vec::new());
                let (mut bytes, mut forged) = (0, 0);
                for _ in 0..300 {
                    sim.run_for(ms(10));
                    for datagram in sim.heard.replace(Vec::new()).expect("it is on") {
                        let Some(body) = crate::raw::open(&mut *cipher, &datagram) else {
                            continue;
                        };
                        let Ok((mut header, ..)) =
                            Format::LittleEndian.view(&body).expect("a segment").parse()
                        else {
                            continue;
                        };
                        if header.command != Command::Ack {
                            continue;
                        }
                        let random = sim.rng.bits() as u32;
                        header.sn =
                            Seq([0, 1, header.una.0.wrapping_sub(1), random][random as usize % 4]);
                        header.una = header.una.plus(random >> 8 & 1);
                        header.len = 0;
                        let body = Format::LittleEndian.emit(&header);
                        let datagram = crate::raw::seal(&mut *cipher, &body);
                        bytes += datagram.len() as u64;
                        forged += 1;
                        sim.inject(stranger(3), &datagram);
                    }
                }
                assert!(forged > 50, "{forged}");
                let counters = sim.server.endpoint.counters();
                assert_eq!(counters.moved_peers, 0, "{method:?}");
                assert_eq!(counters.validated_addresses, 1, "{method:?}");
                let drawn = drawn(&sim, stranger(3));
                assert!(drawn <= allowed(bytes), "{drawn} for {bytes}");
            }
        }
    }
}
