//! Nothing to do takes no CPU.

use fulmar_netem::Direction;

use crate::apps::{Expect, Program, Step, bulk};
use crate::harness::{Sim, link, secs, seeds};
use crate::setup::Options;

const HOUR: u64 = 3600;

#[test]
fn an_idle_tunnel_wakes_up_only_to_keep_alive() {
    for seed in seeds(1) {
        for open_streams in [0, 3] {
            for (client, server) in Options::families(false) {
                let l = link(20, 0.0);
                let mut sim = Sim::new("idle", seed, l.clone(), l, (&client, &server));
                sim.open(bulk(500_000, 500_000));
                sim.finish(secs(10));
                for _ in 0..open_streams {
                    // A stream that has carried something and rests.
                    sim.open((
                        Program::new(
                            Expect::End(5),
                            [
                                Step::Write(1000),
                                Step::Read(5),
                                Step::Wait(secs(HOUR)),
                                Step::Finish,
                            ],
                        ),
                        Program::new(
                            Expect::End(1000),
                            [Step::Write(5), Step::ReadEnd, Step::Finish],
                        ),
                    ));
                }
                sim.run_for(secs(20));
                let before = [sim.client(), &sim.server].map(|h| (h.wakeups, h.sent));
                let events = sim.client().events.len() + sim.server.events.len();
                sim.run_for(secs(HOUR - 60));
                for (host, (wakeups, sent)) in [sim.client(), &sim.server].into_iter().zip(before) {
                    // In each interval of 10 s: our keep-alive, the acknowledgement of theirs; and a check every 30 s.
                    let (wakeups, sent) = (host.wakeups - wakeups, host.sent - sent);
                    let intervals = HOUR / 10;
                    assert!(
                        wakeups <= 2 * intervals + intervals / 3 + 10,
                        "{wakeups} wake-ups"
                    );
                    // Parity is not sent for what is this far apart.
                    assert!(sent <= 2 * intervals + 10, "{sent} datagrams");
                }
                assert_eq!(events, sim.client().events.len() + sim.server.events.len());
                if open_streams > 0 {
                    sim.finish(secs(200));
                }
            }
        }
    }
}

#[test]
fn endpoints_without_sessions_never_wake_up() {
    let l = link(20, 0.0);
    let mut sim = Sim::empty("nobody", 1, l.clone(), l, &Options::server());
    assert_eq!(sim.server.endpoint.poll_timeout(), None);
    sim.run_for(secs(HOUR));
    assert_eq!(sim.server.wakeups, 0);
    assert_eq!(sim.net.counters(Direction::Down).sent, 0);
}

#[test]
fn a_busy_tunnel_wakes_up_no_more_often_than_its_interval() {
    for seed in seeds(1) {
        for (client, server) in Options::families(false) {
            let l = link(20, 0.01);
            let mut sim = Sim::new("busy", seed, l.clone(), l, (&client, &server));
            let start = sim.now;
            sim.open(bulk(3_000_000, 10_000_000));
            sim.finish(secs(60));
            let seconds = (sim.now - start).as_secs_f64();
            for host in [sim.client(), &sim.server] {
                // 30 ms, and timeouts of segments between.
                let rate = host.wakeups as f64 / seconds;
                assert!(rate < 70.0, "{rate} wake-ups per second");
            }
        }
    }
}
