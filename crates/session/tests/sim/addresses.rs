//! Peers whose addresses change, and recordings that pretend so.

use std::net::{IpAddr, SocketAddr};

use fulmar_netem::Direction;
use fulmar_session::Reason;
use fulmar_session::endpoint::Event;
use fulmar_wire::kcptun::Method;

use crate::apps::{Expect, Program, Step, bulk, requests};
use crate::harness::{Recorded, Sim, link, ms, secs, seeds, stranger};
use crate::setup::Options;

fn moved(e: &Event) -> Option<SocketAddr> {
    match e {
        Event::Moved(_, path) => Some(path.remote),
        _ => None,
    }
}

fn options(method: Method, fec: bool) -> (Options, Options) {
    let client = Options {
        method,
        fec: fec.then_some((10, 3)),
        ..Options::client()
    };
    let server = Options {
        method,
        fec: fec.then_some((10, 3)),
        ..Options::server()
    };
    (client, server)
}

/// Settings of a server that knows its client by the key: of kcptun with these ciphers and with or without parity, and of every way to
/// speak it in 2016.
fn keyed(kcptun: &[(Method, bool)]) -> Vec<(Options, Options)> {
    let kcptun = kcptun.iter().map(|&(method, fec)| options(method, fec));
    kcptun.chain(Options::first(false)).collect()
}

#[test]
fn a_server_follows_its_client_to_another_address() {
    let other_host: IpAddr = [198, 51, 100, 7].into();
    for seed in seeds(2) {
        for ends in keyed(&[
            (Method::Aes, true),
            (Method::Aes, false),
            (Method::Aes128Gcm, true),
            (Method::Salsa20, true),
            (Method::Tea, false),
        ]) {
            for (auto, measuring) in [(false, false), (true, false), (true, true)] {
                let (mut client, mut server) = ends.clone();
                if measuring {
                    (client, server) = (client.measuring(), server.measuring());
                }
                server.auto = auto;
                let l = link(30, 0.03);
                let mut sim = Sim::new("rebinding", seed, l.clone(), l, (&client, &server));
                sim.open(bulk(2_000_000, 2_000_000));
                let pings = sim.open(requests(40, 50, 50, ms(50)));
                let start = sim.now;
                // A new port, then another network, then a new port there.
                let changes = [(300, None), (900, Some(other_host)), (1500, None)];
                for (after, host) in changes {
                    sim.net
                        .change_address(start + ms(after), Direction::Up, host);
                }
                sim.finish(secs(30));
                let places: Vec<_> = sim
                    .server
                    .events
                    .iter()
                    .filter_map(|(_, e)| moved(e))
                    .collect();
                // A client that waits for an answer says nothing for up to two seconds, and then it may have moved twice.
                assert!((2..=3).contains(&places.len()), "{places:?}");
                assert_eq!(places[0].ip(), sim.client().addr.ip());
                assert_eq!(places.last().map(SocketAddr::ip), Some(other_host));
                let moves = sim.server.endpoint.counters().moved_peers;
                assert_eq!(moves, places.len() as u64);
                assert_eq!(sim.server.endpoint.counters().passive_opens, 1);
                let gap = sim.client().apps.get(pings).longest_gap;
                // Those two seconds, and losses.
                assert!(gap < ms(2700), "nothing for {gap:?}");
            }
        }
    }
}

#[test]
fn a_download_goes_on_after_a_change_of_address() {
    // The client has nothing to send, and nothing to acknowledge once its old address is gone.
    for (seed, when, measuring) in seeds(2)
        .into_iter()
        .flat_map(|s| (0..40).map(move |i| (s, 600 + 3 * (i / 2), i % 2 == 1)))
    {
        let (mut client, mut server) = options(Method::Aes, true);
        if measuring {
            (client, server) = (client.measuring(), server.measuring());
        }
        let l = link(30, 0.01);
        let mut sim = Sim::new("download", seed, l.clone(), l, (&client, &server));
        let at = sim.open(bulk(100, 10_000_000));
        let start = sim.now;
        sim.net
            .change_address(start + ms(when), Direction::Up, None);
        sim.finish(secs(60));
        let gap = sim.client().apps.get(at).longest_gap;
        assert!(gap < ms(2500), "nothing for {gap:?}");
    }
}

#[test]
fn without_a_key_a_server_stays_with_the_address() {
    for seed in seeds(1) {
        for method in [Method::None, Method::Null, Method::Xor] {
            let (client, server) = options(method, true);
            let l = link(30, 0.0);
            let mut sim = Sim::new("no key", seed, l.clone(), l, (&client, &server));
            let lost = |n| Program::new(Expect::Lost, [Step::Write(n), Step::ReadEnd]);
            sim.open((lost(100_000_000), lost(100_000_000)));
            let start = sim.now;
            sim.net.change_address(start + ms(500), Direction::Up, None);
            let over = |sim: &Sim| sim.client().apps.open == 0 && sim.server.apps.open == 0;
            let silence = *server.silence().end();
            assert!(
                sim.run_until(start + silence + secs(5), over),
                "{}",
                sim.report()
            );
            sim.check_outcomes();
            assert!(sim.server.first(moved).is_none());
            assert_eq!(sim.server.endpoint.counters().passive_opens, 1);
            // The client is told long before, so that new streams go elsewhere.
            let suspect = |e: &Event| matches!(e, Event::Suspect(_)).then_some(());
            let (at, ()) = sim.client().first(suspect).expect("suspect");
            assert!(at - start < secs(4), "{:?}", at - start);
        }
    }
}

#[test]
fn a_server_may_answer_from_another_address() {
    for seed in seeds(1) {
        for (client, server) in keyed(&[(Method::Aes, true), (Method::None, true)]) {
            let l = link(30, 0.05);
            let mut sim = Sim::new("multi-homed", seed, l.clone(), l, (&client, &server));
            sim.server.sends_from = Some("10.9.9.9:31000".parse().expect("an address"));
            sim.open(bulk(300_000, 300_000));
            sim.open(requests(10, 50, 50, ms(30)));
            sim.finish(secs(20));
            assert!(sim.client().first(moved).is_none());
            // Where the client sends does not change.
            assert_eq!(sim.net.counters(Direction::Up).lost_address, 0);
            let counters = sim.server.endpoint.counters();
            assert_eq!((counters.passive_opens, counters.moved_peers), (1, 0));
        }
    }
}

fn upstream_of(record: Option<Vec<Recorded>>) -> Vec<Vec<u8>> {
    let all = record.expect("it was on");
    let up = all.into_iter().filter(|r| r.direction == Direction::Up);
    up.map(|r| r.data).collect()
}

#[test]
fn a_replayed_datagram_never_moves_a_session() {
    for seed in seeds(1) {
        for (client, server) in keyed(&[
            (Method::Aes, true),
            (Method::Aes128Gcm, false),
            (Method::Null, false),
        ]) {
            let l = link(30, 0.03);
            let mut sim = Sim::new("replay", seed, l.clone(), l, (&client, &server));
            sim.heard = Some(Vec::new());
            sim.open(bulk(400_000, 400_000));
            sim.open(requests(20, 60, 60, ms(50)));
            let end = sim.now + secs(3);
            let mut replayed = 0u16;
            let mut due = 0;
            while sim.now < end {
                sim.run_for(ms(7));
                // All that has arrived, at once and again later. (What got lost on the way would be news.)
                let heard = sim.heard.as_ref().expect("it is on");
                let old: Vec<_> = heard[due..]
                    .iter()
                    .chain(heard.get(due / 2))
                    .cloned()
                    .collect();
                due = heard.len();
                for datagram in old {
                    replayed += 1;
                    sim.inject(stranger(replayed % 500), &datagram);
                }
            }
            assert!(replayed > 50);
            sim.finish(secs(30));
            assert!(sim.server.first(moved).is_none(), "{:?}", sim.server.events);
            let counters = sim.server.endpoint.counters();
            assert_eq!((counters.passive_opens, counters.moved_peers), (1, 0));
        }
    }
}

#[test]
fn a_replayed_session_is_refused() {
    for seed in seeds(1) {
        let kcptun = [Method::Aes, Method::Aes128Gcm, Method::None].map(|method| (method, true));
        for (client, server) in keyed(&kcptun) {
            let l = link(30, 0.0);
            let mut sim = Sim::new("old session", seed, l.clone(), l, (&client, &server));
            sim.record = Some(Vec::new());
            sim.open(bulk(30_000, 30_000));
            sim.finish(secs(30));
            let recording = upstream_of(sim.record.take());
            let key = sim.clients[0].key();
            // While it lives, after the client is gone, and after it has ended at the server.
            for round in 0..3 {
                match round {
                    0 => {}
                    1 => sim.client_mut().endpoint.close_session(key),
                    _ => sim.run_for(*server.silence().end() + secs(4)),
                }
                let lives = sim.server.endpoint.sessions().count();
                assert_eq!(lives, usize::from(round < 2));
                for datagram in &recording {
                    sim.inject(stranger(round), datagram);
                    let same = sim.client().addr;
                    sim.inject(same, datagram);
                }
                assert_eq!(sim.server.endpoint.sessions().count(), lives);
            }
            let counters = sim.server.endpoint.counters();
            assert_eq!((counters.passive_opens, counters.moved_peers), (1, 0));
            assert!(counters.refused_replays > 10, "{counters:?}");
            // Nobody connected anywhere.
            assert_eq!(counters.streams_opened, 1);
        }
    }
}

/// A program that starts again on the same port: its old session is given up once the new one has proven itself.
#[test]
fn a_client_that_starts_anew_from_the_same_port() {
    for seed in seeds(2) {
        for (client, server) in keyed(&[(Method::Aes, true), (Method::Null, true)]) {
            let l = link(30, 0.05);
            let mut sim = Sim::new("same port", seed, l.clone(), l, (&client, &server));
            let lost = |n| Program::new(Expect::Lost, [Step::Write(n), Step::ReadEnd]);
            sim.open((lost(10_000), lost(10_000)));
            sim.run_for(secs(1));
            let key = sim.clients[0].key();
            sim.client_mut().endpoint.close_session(key);
            let addr = sim.client().addr;
            sim.clients.clear();
            let again = sim.add_client_at(addr, &client);
            let start = sim.now;
            sim.open_on(again, bulk(50_000, 50_000));
            sim.finish(secs(20));
            let replaced =
                |e: &Event| matches!(e, Event::Closed(_, _, Reason::Replaced)).then_some(());
            let (at, ()) = sim.server.first(replaced).expect("replaced");
            assert!(at - start < secs(2));
            assert_eq!(sim.server.endpoint.sessions().count(), 1);
        }
    }
}
