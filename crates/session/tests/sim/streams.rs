//! What happens to streams: ends, cuts, slow readers, many at once.

use fulmar_session::Reason;
use fulmar_session::endpoint::Event;
use fulmar_session::layer::Notice;

use crate::apps::{Expect, Outcome, Pace, Program, Step, bulk, half_close, requests};
use crate::harness::{Sim, link, ms, secs, seeds};
use crate::setup::Options;

/// Every dialect; every second seed is in mode auto.
fn dialects(seed: u64) -> Vec<(Options, Options)> {
    Options::dialects(seed.is_multiple_of(2))
}

fn sim(name: &'static str, seed: u64, ends: &(Options, Options), loss: f64) -> Sim {
    let l = link(20, loss);
    Sim::new(name, seed, l.clone(), l, (&ends.0, &ends.1))
}

#[test]
fn an_answer_after_the_end_of_the_request_arrives_whole() {
    for seed in seeds(2) {
        for ends in dialects(seed) {
            let mut sim = sim("half-close", seed, &ends, 0.1);
            sim.open(half_close(0, 100_000, ms(0)));
            sim.open(half_close(100_000, 0, ms(0)));
            sim.open(half_close(300_000, 300_000, ms(40)));
            // Longer than any keep-alive.
            sim.open(half_close(10, 10, secs(100)));
            sim.finish(secs(130));
            let told = |e: &Event| matches!(e, Event::Notice(_, Notice::PeerIsFulmar));
            assert_eq!(sim.client().times_of(told).len(), 1);
            assert_eq!(sim.server.times_of(told).len(), 1);
        }
    }
}

#[test]
fn a_cut_is_seen_as_a_cut() {
    for seed in seeds(2) {
        for ends in dialects(seed) {
            let mut sim = sim("cut", seed, &ends, 0.05);
            for (ours, theirs) in [(60_000, 0), (0, 60_000), (0, 0), (60_000, 60_000)] {
                // The client cuts in the middle of everything.
                sim.open((
                    Program::new(
                        Expect::Cut,
                        [Step::Write(ours), Step::Wait(ms(90)), Step::Reset],
                    ),
                    Program::new(Expect::Cut, [Step::Write(500_000 + theirs), Step::ReadEnd]),
                ));
                // The server does.
                sim.open((
                    Program::new(Expect::Cut, [Step::Write(500_000 + ours), Step::ReadEnd]),
                    Program::new(
                        Expect::Cut,
                        [Step::Write(theirs), Step::Wait(ms(90)), Step::Reset],
                    ),
                ));
            }
            // Neighbours do not suffer.
            sim.open(bulk(100_000, 100_000));
            sim.finish(secs(30));
        }
    }
}

#[test]
fn a_slow_reader_holds_up_only_itself_where_streams_have_windows() {
    for seed in seeds(1) {
        // All but smux version 1 have windows of streams. Small ones, so that it matters.
        for (client, server) in Options::dialects(false).into_iter().skip(1) {
            let [client, server] = [client, server].map(|end| Options {
                stream_buffer: 256 << 10,
                ..end
            });
            let l = link(20, 0.02);
            let mut sim = Sim::new("slow reader", seed, l.clone(), l, (&client, &server));
            let pace = Pace {
                from: sim.now + secs(2),
                bytes: 10_000,
                every: ms(20),
            };
            // 2 MB at 500 kB/s.
            let (ours, theirs) = bulk(0, 2_000_000);
            let slow_down = sim.open((ours.paced(pace), theirs));
            let (ours, theirs) = bulk(2_000_000, 0);
            sim.open((ours, theirs.paced(pace)));
            let quick = sim.open(bulk(1_000_000, 1_000_000));
            let pings = sim.open(requests(50, 100, 100, ms(100)));
            sim.finish(secs(20));
            let end_of = |at| sim.client().apps.get(at).done_at.expect("it is done");
            assert!(end_of(quick) - crate::harness::at(5000) < secs(3));
            assert!(end_of(slow_down) - crate::harness::at(5000) >= secs(5));
            let mut latencies = sim.client().apps.get(pings).latencies.clone();
            latencies.sort_unstable();
            assert!(latencies[45] < ms(200), "{latencies:?}");
        }
    }
}

#[test]
fn a_slow_reader_holds_up_all_in_version_1_and_nothing_is_lost() {
    for seed in seeds(1) {
        let client = Options {
            smux: 1,
            smux_buffer: 2 << 20,
            rcv_wnd: 256,
            ..Options::client()
        };
        let server = Options {
            smux: 1,
            ..Options::server()
        };
        let l = link(20, 0.02);
        let mut sim = Sim::new("slow reader", seed, l.clone(), l, (&client, &server));
        let start = sim.now;
        let pace = Pace {
            from: sim.now + secs(45),
            bytes: 200_000,
            every: ms(20),
        };
        let (ours, theirs) = bulk(0, 5_000_000);
        sim.open((ours.paced(pace), theirs));
        sim.open(bulk(1000, 3_000_000));
        // The window is shut for longer than a keep-alive timeout: the session stays.
        sim.run_to(start + secs(44));
        assert!(sim.client().apps.open > 0);
        let key = sim.clients[0].key();
        let session = sim.client().endpoint.session(key).expect("it lives");
        assert!(
            session.kcp().state().len_rcv_queue > 200,
            "{}",
            sim.report()
        );
        sim.finish(secs(30));
        let closed = |e: &Event| matches!(e, Event::Closed(..));
        assert!(sim.client().times_of(closed).is_empty());
        assert!(sim.server.times_of(closed).is_empty());
        let suspect = |e: &Event| matches!(e, Event::Suspect(..));
        assert!(
            sim.client().times_of(suspect).is_empty(),
            "{}",
            sim.report()
        );
        assert!(sim.server.times_of(suspect).is_empty(), "{}", sim.report());
    }
}

#[test]
fn a_thousand_streams() {
    for seed in seeds(2) {
        for ends in dialects(seed) {
            let mut sim = sim("a thousand", seed, &ends, 0.05);
            for i in 0..1000 {
                match i % 4 {
                    0 => sim.open(bulk(i * 7, i * 11)),
                    1 => sim.open(requests(3, 50 + i, 100, ms(i))),
                    2 => sim.open(half_close(i * 5, i * 3, ms(i))),
                    _ => sim.open((
                        Program::new(
                            Expect::Cut,
                            [Step::Write(100 + i), Step::Wait(ms(i)), Step::Reset],
                        ),
                        Program::new(Expect::Cut, [Step::Write(i * 10), Step::ReadEnd]),
                    )),
                };
                if i % 100 == 0 {
                    sim.run_for(ms(5));
                }
            }
            sim.finish(secs(60));
            let opened = sim.server.endpoint.counters().streams_opened;
            // Some are cut before anybody has heard of them.
            assert!(
                (950..=1000).contains(&opened),
                "{opened} {}",
                ends.0.dialect()
            );
            // Nothing is left behind.
            sim.run_for(secs(35));
            let key = sim.clients[0].key();
            let session = sim.client().endpoint.session(key).expect("it lives");
            assert!(session.kcp().is_idle(), "{}", sim.report());
        }
    }
}

#[test]
fn streams_one_after_the_other() {
    for seed in seeds(2) {
        for ends in dialects(seed) {
            let mut sim = sim("in a row", seed, &ends, 0.01);
            for i in 0..200 {
                sim.open(requests(1, i, 2 * i + 1, ms(0)));
                sim.finish(secs(10));
            }
        }
    }
}

#[test]
fn a_session_that_is_closed_here_ends_its_streams_here_and_later_there() {
    for seed in seeds(2) {
        for ends in dialects(seed) {
            let mut sim = sim("closed", seed, &ends, 0.0);
            let lost = |n| Program::new(Expect::Lost, [Step::Write(n), Step::ReadEnd]);
            // What is said at the end of a session stands behind all that is on its way.
            let much = if ends.0.is_first() { 1000 } else { 1_000_000 };
            sim.open((lost(much), lost(10_000)));
            sim.run_for(ms(200));
            let key = sim.clients[0].key();
            sim.client_mut().endpoint.close_session(key);
            let over = |sim: &Sim| sim.client().apps.open == 0 && sim.server.apps.open == 0;
            let start = sim.now;
            assert!(
                sim.run_until(start + *ends.1.silence().end(), over),
                "{}",
                sim.report()
            );
            sim.check_outcomes();
            let outcome = |host: &crate::harness::Host| {
                host.apps.iter().next().and_then(|(_, a)| a.outcome.clone())
            };
            assert_eq!(outcome(sim.client()), Some(Outcome::Lost(Reason::Closed)));
            if ends.0.is_first() {
                // yamux has a word for it.
                assert!(sim.now - start < secs(1));
            } else {
                // The other end is told with the next thing that it says.
                assert!(sim.now - start < secs(12));
                assert_eq!(sim.server.endpoint.counters().ended_by_peer, 1);
            }
            assert_eq!(sim.server.endpoint.counters().curr_estab, 0);
            assert_eq!(sim.client().endpoint.poll_timeout(), None);
            assert_eq!(sim.server.endpoint.poll_timeout(), None);
        }
    }
}

#[test]
fn many_clients_at_once() {
    for seed in seeds(1) {
        let l = link(20, 0.03);
        let kcptun = |i: u64| Options {
            smux: 1 + (i % 2) as u8,
            compression: i.is_multiple_of(3),
            fec: (!i.is_multiple_of(4)).then_some((10, 3)),
            ..Options::client()
        };
        let first = Options::first(false);
        // A server finds out what each of them speaks.
        let first = |i: u64| first[i as usize % first.len()].0.clone();
        let servers: [(Options, &dyn Fn(u64) -> Options); 2] = [
            (Options::server(), &kcptun),
            (Options::first(false).swap_remove(0).1, &first),
        ];
        for (server, client) in servers {
            let mut sim = Sim::empty("many clients", seed, l.clone(), l.clone(), &server);
            for i in 0..60 {
                let client = sim.add_client(&client(i));
                sim.open_on(client, bulk(30_000 + i, 60_000 + i));
                sim.open_on(client, requests(5, 100, 100, ms(40)));
                sim.run_for(ms(3));
            }
            sim.finish(secs(20));
            assert_eq!(sim.server.endpoint.sessions().count(), 60);
            let counters = sim.server.endpoint.counters();
            assert_eq!((counters.passive_opens, counters.max_conn), (60, 60));
            assert_eq!(counters.streams_opened, 120);
        }
    }
}
