//! Paths that die and come back, servers that start anew, peers that fall silent.

use std::time::Duration;

use fulmar_arq::Profile;
use fulmar_netem::{Direction, Path as Link, Rate};
use fulmar_session::Reason;
use fulmar_session::endpoint::Event;
use fulmar_session::layer::LayerError;
use fulmar_wire::kcptun::Method;
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

/// Each seed with upstream's defaults, and in mode auto.
fn both_modes(seeds: Vec<u64>) -> impl Iterator<Item = (u64, bool)> {
    seeds
        .into_iter()
        .flat_map(|seed| [(seed, false), (seed, true)])
}

/// A sender in mode auto takes all that a link has, so it must have an end.
fn limited(auto: bool, link: Link) -> Link {
    Link {
        rate: auto.then(|| Rate::with_queue_time(20_000_000, ms(50))),
        ..link
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
        // None: mode auto.
        for profile in [
            Some(Profile::NORMAL),
            Some(Profile::FAST),
            Some(Profile::FAST3),
            None,
        ] {
            for (length, delay) in [(2, 20), (10, 20), (25, 20), (10, 150)] {
                for (mut client, mut server) in Options::families(profile.is_none()) {
                    if let Some(profile) = profile {
                        (client.profile, server.profile) = (profile, profile);
                    }
                    let l = limited(profile.is_none(), link(delay, 0.01));
                    let mut sim = Sim::new("blackout", seed, l.clone(), l, (&client, &server));
                    // Busy for a second before, and for some seconds after.
                    let download = sim.open(bulk(10_000, 4_000_000_000));
                    sim.open(bulk(4_000_000_000, 10_000));
                    let pings = sim.open(requests(1000, 64, 64, ms(100)));
                    sim.run_for(ms(1000));
                    let start = sim.now;
                    let end = blackout(&mut sim, secs(length));
                    sim.run_to(end);
                    // A probe at most a second later, its answer, and what then leaves.
                    let round_trip = ms(2 * delay);
                    for stream in [download, pings] {
                        let goes_on = |sim: &Sim| sim.client().apps.get(stream).last_read > end;
                        let deadline = end + ms(1200) + round_trip * 3;
                        assert!(sim.run_until(deadline, goes_on), "{}", sim.report());
                    }
                    // Who sends much learns of it by what is acknowledged, a little later.
                    sim.run_for(ms(500));
                    for host in [sim.client(), &sim.server] {
                        takes_turns(host);
                        let suspected = host.times_of(is_suspect);
                        let recovered = host.times_of(is_recovered);
                        if length > 2 {
                            let first = suspected.first().unwrap_or_else(|| {
                                panic!("not noticed, auto {}: {}", profile.is_none(), sim.report())
                            });
                            let noticed = *first - start;
                            assert!(noticed < ms(5000), "noticed after {noticed:?}");
                            let last = recovered.last().unwrap_or_else(|| {
                                panic!("not back, auto {}: {}", profile.is_none(), sim.report())
                            });
                            assert!(*last >= end && *last - end < secs(2), "{recovered:?}");
                        }
                        assert!(host.first(closed).is_none());
                    }
                }
            }
        }
    }
}

/// A client loses a server that is replaced by one that knows nothing: how it ends, and how long after.
fn restart(
    seed: u64,
    run: Duration,
    up: u64,
    down: u64,
    ends: &(Options, Options),
) -> (Reason, Duration) {
    let l = link(25, 0.02);
    let mut sim = Sim::new("restart", seed, l.clone(), l, (&ends.0, &ends.1));
    let lost = |n| Program::new(Expect::Lost, [Step::Write(n), Step::ReadEnd]);
    sim.open((lost(up), lost(down)));
    sim.run_for(run);
    assert_eq!(sim.client().apps.open, 1, "not done yet");
    let start = sim.now;
    sim.restart_server();
    let over = |sim: &Sim| sim.client().apps.open == 0;
    assert!(sim.run_until(start + secs(70), over), "{}", sim.report());
    let took = sim.now - start;
    let (_, reason) = sim.client().first(closed).expect("it ended");
    // What the server had made of it goes away soon.
    sim.run_for(secs(12));
    assert_eq!(sim.server.endpoint.sessions().count(), 0);
    assert_eq!(sim.server.endpoint.counters().streams_opened, 0);
    (reason, took)
}

#[test]
fn a_restarted_server_is_noticed() {
    let kcptun = |method, fec: bool| {
        let ends = Options::ends(false);
        let [client, server] = [ends.0, ends.1].map(|end| Options {
            method,
            fec: fec.then_some((10, 3)),
            ..end
        });
        (client, server)
    };
    let kcptun = [Method::Aes, Method::Aes128Gcm, Method::Null]
        .into_iter()
        .flat_map(|method| [kcptun(method, false), kcptun(method, true)]);
    let all: Vec<_> = kcptun.chain(Options::first(false)).collect();
    for seed in seeds(2) {
        for ends in &all {
            for (what, run, up, down, limit) in [
                // Within the first window of the new server, and far beyond it.
                ("early upload", 300, 100_000_000, 0, 700),
                ("upload", 6000, 100_000_000, 0, 5000),
                ("early download", 300, 100, 100_000_000, 4000),
                ("download", 3000, 100, 100_000_000, 4000),
                ("both", 3000, 100_000_000, 100_000_000, 5000),
                // Nothing is on its way: the next keep-alive finds out.
                ("idle", 3000, 100, 100, 11_500),
                ("idle after much", 6000, 2_000_000, 100, 14_000),
            ] {
                let (reason, took) = restart(seed, ms(run), up, down, ends);
                let dialect = ends.0.dialect();
                assert_eq!(reason, Reason::PeerLostState, "{what}, {dialect}");
                assert!(took < ms(limit), "{what}, {dialect}: {took:?}");
            }
        }
    }
}

#[test]
fn a_silent_peer_ends_the_session_after_a_keep_alive_timeout() {
    for seed in seeds(2) {
        for (busy, auto) in [(false, false), (true, false), (false, true), (true, true)] {
            for (client, server) in Options::families(auto) {
                let l = limited(auto, link(20, 0.0));
                let mut sim = Sim::new("silence", seed, l.clone(), l, (&client, &server));
                let n = if busy { 1 << 40 } else { 10 };
                let lost = Program::new(Expect::Lost, [Step::Write(n), Step::ReadEnd]);
                sim.open((lost.clone(), lost));
                sim.run_for(secs(17));
                let start = sim.now;
                blackout(&mut sim, secs(1000));
                sim.run_for(*client.silence().end());
                sim.check_outcomes();
                for host in [sim.client(), &sim.server] {
                    let (at, reason) = host.first(closed).expect("it ended");
                    assert!(
                        matches!(reason, Reason::Layer(LayerError::Silent(_))),
                        "{reason:?}"
                    );
                    assert!(client.silence().contains(&(at - start)), "{:?}", at - start);
                    let (at, ()) = host
                        .first(|e| is_suspect(e).then_some(()))
                        .expect("noticed");
                    let limit = if busy { secs(3) } else { secs(17) };
                    assert!(at - start < limit, "{:?}", at - start);
                    assert_eq!(host.endpoint.counters().silent_sessions, 1);
                    assert_eq!(host.endpoint.poll_timeout(), None);
                }
            }
        }
    }
}

#[test]
fn loss_alone_makes_nobody_suspicious() {
    for seed in seeds(3) {
        for (loss, delay, auto) in [(0.1, 20), (0.3, 20), (0.3, 150), (0.0, 600)]
            .into_iter()
            .flat_map(|(loss, delay)| [(loss, delay, false), (loss, delay, true)])
        {
            for (client, server) in Options::families(auto) {
                let l = link(delay, loss);
                let mut sim = Sim::new("loss", seed, l.clone(), l, (&client, &server));
                sim.open(bulk(200_000, 1_000_000));
                sim.open(requests(30, 100, 100, ms(200)));
                sim.finish(secs(100));
                for host in [sim.client(), &sim.server] {
                    // Where half of all questions go unanswered, a dozen in a row may.
                    let most = usize::from(loss > 0.2);
                    let suspect = host.times_of(is_suspect);
                    assert!(
                        suspect.len() <= most,
                        "{suspect:?} at loss {loss}, delay {delay}"
                    );
                }
            }
        }
    }
}

/// Our datagrams get lost and the peer's arrive.
#[test]
fn one_deaf_direction_is_noticed_by_who_sends_into_it() {
    for (seed, auto) in both_modes(seeds(2)) {
        for (client, server) in Options::families(auto) {
            let l = limited(auto, link(20, 0.0));
            let mut sim = Sim::new("deaf", seed, l.clone(), l, (&client, &server));
            sim.open(bulk(3_000_000, 3_000_000));
            sim.run_for(ms(400));
            let start = sim.now;
            let end = start + secs(10);
            sim.net.path_mut(Direction::Up).blackouts.push(start..end);
            sim.run_to(end);
            let suspected = sim.client().times_of(is_suspect);
            assert_eq!(suspected.len(), 1, "{}", sim.report());
            assert!(suspected[0] - start < secs(3));
            assert_eq!(sim.client().times_of(is_recovered), []);
            sim.finish(secs(20));
            let recovered = sim.client().times_of(is_recovered);
            assert_eq!(recovered.len(), 1);
            assert!(recovered[0] - end < ms(1500), "{:?}", recovered[0] - end);
            takes_turns(&sim.server);
        }
    }
}

#[test]
fn two_hours_of_small_misfortunes() {
    for seed in seeds(1) {
        for ends in Options::families(false) {
            two_hours(seed, &ends);
        }
    }
}

/// One end takes wrong bytes for a segment, and the session ends as malformed.
#[test]
fn two_hours_of_small_misfortunes_in_mode_auto() {
    for seed in seeds(3) {
        for ends in Options::families(true) {
            two_hours(seed, &ends);
        }
    }
}

/// A session lives on through two hours in which something happens every few minutes, and does not grow.
fn two_hours(seed: u64, ends: &(Options, Options)) {
    let l = link(30, 0.03);
    let mut sim = Sim::new("two hours", seed, l.clone(), l, (&ends.0, &ends.1));
    let start = sim.now;
    for i in 0..8 {
        sim.open(requests(600 - 50 * i, 200 + i, 20_000, secs(7 + i)));
    }
    for minute in 1..110 {
        sim.run_to(start + secs(60 * minute));
        match minute % 4 {
            0 => sim.net.change_address(sim.now, Direction::Up, None),
            1 => {
                blackout(&mut sim, secs(minute % 9));
            }
            _ => {
                sim.open(bulk(10_000 * (minute % 50), 100_000));
            }
        }
    }
    sim.finish(secs(3600));
    sim.run_for(secs(60));
    for host in [sim.client(), &sim.server] {
        takes_turns(host);
        assert!(host.first(closed).is_none());
        let key = host.endpoint.sessions().next().expect("it lives");
        let held = host.endpoint.session(key).map(|s| s.kcp().held_bytes());
        assert!(held.is_some_and(|bytes| bytes < 100_000), "{held:?}");
    }
    let counters = sim.server.endpoint.counters();
    assert_eq!((counters.passive_opens, counters.moved_peers), (1, 27));
}
