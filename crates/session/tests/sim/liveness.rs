//! Paths that die and come back, servers that start anew, peers that fall silent.

use std::time::Duration;

use fulmar_arq::Profile;
use fulmar_netem::Direction;
use fulmar_session::Reason;
use fulmar_session::endpoint::Event;
use fulmar_session::layer::LayerError;
use fulmar_wire::time::Instant;

use crate::apps::{Expect, Program, Step, bulk, requests};
use crate::harness::{Host, Sim, link, ms, secs, seeds};
use crate::setup::Options;

fn is_suspect(e: &Event) -> bool {
    matches!(e, Event::Suspect(_))
}

fn is_recovered(e: &Event) -> bool {
    matches!(e, Event::Recovered(_))
}

fn closed(e: &Event) -> Option<Reason> {
    match e {
        Event::Closed(_, _, reason) => Some(reason.clone()),
        _ => None,
    }
}

/// Nothing passes for so long, from now on.
fn blackout(sim: &mut Sim, time: Duration) -> Instant {
    let end = sim.now + time;
    for direction in [Direction::Up, Direction::Down] {
        let window = sim.now..end;
        sim.net.path_mut(direction).blackouts.push(window);
    }
    end
}

/// Suspicions and recoveries take turns, and do so at different times.
fn takes_turns(host: &Host) {
    let mut last = None;
    for (at, event) in &host.events {
        if is_suspect(event) || is_recovered(event) {
            let now = (*at, is_suspect(event));
            if let Some((before, was)) = last {
                assert!(was != now.1 && now.0 > before, "{:?}", host.events);
            }
            last = Some(now);
        }
    }
}

#[test]
fn streams_survive_blackouts() {
    for seed in seeds(2) {
        for profile in [Profile::NORMAL, Profile::FAST, Profile::FAST3] {
            for (length, delay) in [(2, 20), (10, 20), (25, 20), (10, 150)] {
                let client = Options {
                    profile,
                    ..Options::client()
                };
                let server = Options {
                    profile,
                    ..Options::server()
                };
                let l = link(delay, 0.01);
                let mut sim = Sim::new("blackout", seed, l.clone(), l, (&client, &server));
                // Busy for a second before, and for some seconds after.
                let download = sim.open(bulk(10_000, 4_000_000_000));
                let upload = sim.open(bulk(4_000_000_000, 10_000));
                let pings = sim.open(requests(1_000_000, 64, 64, ms(100)));
                sim.run_for(ms(1000));
                let start = sim.now;
                let end = blackout(&mut sim, secs(length));
                sim.run_to(end);
                let before = sim.client().apps.read;
                let deadline = end + secs(20);
                let goes_on = |sim: &Sim| sim.client().apps.get(download).last_read > end;
                assert!(sim.run_until(deadline, goes_on), "{}", sim.report());
                let first = sim.now - end;
                let answers = |sim: &Sim| sim.client().apps.get(pings).last_read > end;
                assert!(sim.run_until(deadline, answers), "{}", sim.report());
                let ping = sim.now - end;
                println!(
                    "{profile:?} {length} s, delay {delay}: bulk after {first:?}, ping after {ping:?}"
                );
                for host in [sim.client(), &sim.server] {
                    // takes_turns(host);
                    let suspected = host.times_of(is_suspect);
                    let recovered = host.times_of(is_recovered);
                    if length > 2 {
                        let first = suspected.first().expect("it was noticed");
                        let noticed = *first - start;
                        assert!(noticed < ms(3500), "noticed after {noticed:?}");
                        let last = recovered.last().expect("it came back");
                        assert!(*last >= end && *last - end < secs(2), "{recovered:?}");
                    }
                    assert!(host.first(closed).is_none());
                }
                let _ = (before, upload);
            }
        }
    }
}
