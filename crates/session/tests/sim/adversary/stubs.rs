//! Sessions at rest: nobody notices, and there are never too many.

use fulmar_netem::Direction;
use fulmar_session::admission::Limits;
use fulmar_session::endpoint::Event;

use crate::apps::{Expect, Program, Step, bulk, requests};
use crate::harness::{Sim, link, ms, secs, seeds, stranger};
use crate::raw::Raw;
use crate::setup::Options;

/// Ends whose server keeps no session whole that can rest.
fn sleepy(measuring: bool) -> Vec<(Options, Options)> {
    let compressed = {
        let (client, server) = Options::ends(measuring);
        let set = |end| Options {
            compression: true,
            ..end
        };
        (set(client), set(server))
    };
    let limits = Limits {
        resting: 0,
        ..Limits::default()
    };
    let plain = {
        // Ends of before, as others are: no tokens.
        let (client, server) = Options::ends(measuring);
        let set = |end| Options {
            tokens: false,
            ..end
        };
        (set(client), set(server))
    };
    let all = Options::dialects(measuring).into_iter();
    let all = all.chain([compressed, plain]);
    all.map(|(client, server)| (client, Options { limits, ..server }))
        .collect()
}

/// A client that does nothing for minutes, and then goes on: its session is a stub nearly all the time.
#[test]
fn a_client_does_not_notice_that_its_session_rested() {
    for seed in seeds(1) {
        for measuring in [false, true] {
            for (client, server) in sleepy(measuring) {
                for loss in [0.0, 0.1] {
                    let l = link(20, loss);
                    let mut sim = Sim::new("rest", seed, l.clone(), l, (&client, &server));
                    let mut rested = 0;
                    for round in 0..4 {
                        sim.open(bulk(20_000, 20_000));
                        sim.open(requests(3, 100, 300, ms(20)));
                        sim.finish(secs(60));
                        if round == 1 {
                            // It comes back from elsewhere.
                            sim.run_for(secs(1));
                            sim.net.change_address(sim.now, Direction::Up, None);
                        }
                        for _ in 0..[5, 100, 700, 3000][round] {
                            sim.run_for(ms(100));
                            rested += sim.server.endpoint.stubs();
                        }
                    }
                    let closed = |e: &Event| matches!(e, Event::Closed(..));
                    assert!(sim.server.times_of(closed).is_empty());
                    assert!(sim.client().times_of(closed).is_empty());
                    assert_eq!(sim.server.endpoint.counters().moved_peers, 1);
                    let opened = |e: &Event| matches!(e, Event::Opened(..));
                    assert_eq!(sim.server.times_of(opened).len(), 1);
                    assert!(
                        rested > 3500,
                        "{rested} of 3805 tenths, {}",
                        client.dialect()
                    );
                }
            }
        }
    }
}

/// Members that open a session, say that they are there, and go; some leave data behind a gap, which does not fit into a stub. Those that were
/// not heard for longest make room, and nobody who has a stream does.
#[test]
fn whoever_leaves_sessions_behind_displaces_no_others() {
    const HONEST: usize = 30;
    let limits = Limits {
        resting: 10,
        full: 10,
        stubs: 50,
        unproven_per_ip: 1024,
        ..Limits::default()
    };
    for seed in seeds(1) {
        for measuring in [false, true] {
            let (client, server) = Options::ends(measuring);
            let server = Options { limits, ..server };
            let l = link(10, 0.0);
            let mut sim = Sim::empty("left behind", seed, l.clone(), l, &server);
            for _ in 0..HONEST {
                let i = sim.add_client(&client);
                let idle = Program::new(
                    Expect::End(5),
                    [Step::Write(100), Step::Wait(secs(100)), Step::Finish],
                );
                let target = Program::new(
                    Expect::End(100),
                    [Step::Write(5), Step::ReadEnd, Step::Finish],
                );
                sim.open_on(i, (idle, target));
            }
            sim.run_for(secs(2));
            let mut most = (0, 0);
            for n in 0..400u16 {
                let mut raw = Raw::new(&server, stranger(n), 5000 + u32::from(n));
                raw.hello();
                let mut datagrams = raw.datagrams(sim.now);
                if n % 3 == 0 {
                    for lost in [true, false] {
                        raw.say(&[0; 500]);
                        let next = raw.datagrams(sim.now);
                        datagrams.extend(next.into_iter().filter(|_| !lost));
                    }
                }
                for datagram in datagrams {
                    sim.inject(raw.addr, &datagram);
                }
                sim.run_for(ms(50));
                let endpoint = &sim.server.endpoint;
                most = (
                    most.0.max(endpoint.stubs()),
                    most.1.max(endpoint.sessions().count()),
                );
            }
            assert_eq!(most.0, limits.stubs);
            let all = HONEST + limits.resting + limits.full + limits.stubs;
            assert!(most.1 <= all + 2, "{} of {all}", most.1);
            let counters = sim.server.endpoint.counters();
            assert!(counters.crowded_sessions > 300, "{counters:?}");
            sim.finish(secs(200));
            sim.check_outcomes();
        }
    }
}
