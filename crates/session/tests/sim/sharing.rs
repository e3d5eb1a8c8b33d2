//! Several endpoints behind one port: the network chooses by the address of the peer, and addresses change.

use std::net::SocketAddr;

use fulmar_session::endpoint::Event;
use fulmar_wire::kcptun::Method;

use crate::apps::{bulk, requests};
use crate::harness::{Sim, link, ms, secs, seeds, stranger};
use crate::setup::Options;

fn options(method: Method) -> (Options, Options) {
    let client = Options {
        method,
        ..Options::client()
    };
    let server = Options {
        method,
        ..Options::server()
    };
    (client, server)
}

/// Settings of kcptun with these ciphers, and of kcptun of spring 2016.
fn keyed(methods: &[Method]) -> Vec<(Options, Options)> {
    let kcptun = methods.iter().map(|&method| options(method));
    kcptun.chain(Options::first(false)).collect()
}

fn moves(sim: &Sim) -> usize {
    let moved = |e: &Event| matches!(e, Event::Moved(..));
    sim.servers().map(|h| h.times_of(moved).len()).sum()
}

/// The first client gets another address, one whose datagrams arrive at another endpoint than its session's.
fn move_away(sim: &mut Sim, round: u8) {
    let home = home(sim);
    let elsewhere = (1..)
        .map(|port| SocketAddr::from(([198, 51, 100, round], port)))
        .find(|a| sim.steer(*a) != home);
    sim.client_mut().addr = elsewhere.expect("one of them");
}

/// The endpoint that has the only session.
fn home(sim: &Sim) -> usize {
    let has = |h: &crate::harness::Host| h.endpoint.sessions().count() == 1;
    let homes: Vec<_> = (0..).zip(sim.servers()).filter(|(_, h)| has(h)).collect();
    assert_eq!(homes.len(), 1, "one session at one endpoint");
    homes[0].0
}

#[test]
fn clients_spread_and_all_are_served() {
    for seed in seeds(2) {
        for (client, server) in keyed(&[Method::Aes]) {
            let l = link(30, 0.03);
            let mut sim = Sim::empty("32 clients", seed, l.clone(), l, &server);
            sim.share_port(4);
            for _ in 0..32 {
                let i = sim.add_client(&client);
                sim.open_on(i, bulk(50_000, 50_000));
            }
            sim.finish(secs(30));
            let spread: Vec<_> = sim
                .servers()
                .map(|h| h.endpoint.sessions().count())
                .collect();
            assert_eq!(spread.iter().sum::<usize>(), 32);
            assert!(spread.iter().filter(|n| **n > 0).count() >= 3, "{spread:?}");
            let counters = sim.server_counters();
            // Everybody stays where they began: nothing is handed over.
            assert_eq!((counters.passive_opens, counters.handovers), (32, 0));
        }
    }
}

#[test]
fn a_session_stays_where_it_began_whatever_its_address_is() {
    for seed in seeds(2) {
        let kcptun = [
            (Method::Aes, false, true),
            (Method::Aes, true, true),
            (Method::Aes128Gcm, false, false),
            (Method::Salsa20, true, false),
        ];
        let kcptun = kcptun.map(|(method, auto, fec)| {
            let (mut client, mut server) = options(method);
            server.auto = auto;
            client.fec = fec.then_some((10, 3));
            server.fec = client.fec;
            (client, server)
        });
        for (client, server) in kcptun.into_iter().chain(Options::first(false)) {
            let l = link(30, 0.03);
            let mut sim = Sim::empty("moving about", seed, l.clone(), l, &server);
            sim.share_port(4);
            sim.add_client(&client);
            sim.open(bulk(3_000_000, 3_000_000));
            let pings = sim.open(requests(40, 50, 50, ms(50)));
            sim.run_for(ms(300));
            let began = home(&sim);
            for round in 0..3 {
                move_away(&mut sim, round);
                sim.run_for(ms(500));
                assert_eq!(home(&sim), began);
            }
            sim.finish(secs(30));
            assert_eq!(moves(&sim), 3);
            let counters = sim.server_counters();
            assert_eq!((counters.passive_opens, counters.moved_peers), (1, 3));
            assert!(counters.handovers > 1000, "{counters:?}");
            assert_eq!(counters.handovers_lost, 0);
            let gap = sim.client().apps.get(pings).longest_gap;
            assert!(gap < ms(2500), "nothing for {gap:?}");
        }
    }
}

/// The kernel may choose anew, as it does when a socket joins or leaves: with any cipher, for who has not moved.
#[test]
fn the_network_changes_its_mind() {
    for seed in seeds(2) {
        for (client, server) in keyed(&[Method::Aes, Method::Null, Method::None, Method::Xor]) {
            let l = link(30, 0.03);
            let mut sim = Sim::empty("steering", seed, l.clone(), l, &server);
            sim.share_port(4);
            for _ in 0..8 {
                let i = sim.add_client(&client);
                sim.open_on(i, bulk(1_000_000, 1_000_000));
            }
            for _ in 0..4 {
                sim.run_for(ms(150));
                sim.steering += 1;
            }
            sim.finish(secs(30));
            let counters = sim.server_counters();
            assert_eq!((counters.passive_opens, counters.moved_peers), (8, 0));
            assert!(counters.handovers > 1000, "{counters:?}");
            assert_eq!(moves(&sim), 0);
        }
    }
}

/// A client moves to an address that another session, of the endpoint that now gets its datagrams, had just before.
#[test]
fn an_address_that_somebody_else_just_had() {
    for seed in seeds(2) {
        for (client, server) in keyed(&[Method::Aes]) {
            let l = link(30, 0.0);
            let mut sim = Sim::empty("used address", seed, l.clone(), l, &server);
            sim.share_port(4);
            sim.add_client(&client);
            sim.open(bulk(10_000_000, 10_000_000));
            sim.run_for(ms(300));
            let began = home(&sim);
            // Somebody else, at another endpoint, falls silent; the server does not know it yet.
            let other = (0..)
                .map(|i| SocketAddr::from(([10, 0, 0, 9], 50_000 + i)))
                .find(|a| sim.steer(*a) != began)
                .expect("one of them");
            let second = sim.add_client_at(other, &client);
            sim.open_on(second, bulk(1000, 1000));
            sim.run_for(ms(500));
            let key = sim.clients[second].key();
            sim.clients[second].host.endpoint.close_session(key);
            sim.clients.pop();
            sim.clients[0].host.addr = other;
            sim.finish(secs(60));
            let counters = sim.server_counters();
            assert_eq!((counters.passive_opens, counters.moved_peers), (2, 1));
            assert!(counters.handovers > 500, "{counters:?}");
        }
    }
}

#[test]
fn a_replay_opens_nothing_at_any_endpoint() {
    for seed in seeds(1) {
        for (client, server) in keyed(&[Method::Aes, Method::Aes128Gcm, Method::None]) {
            let l = link(30, 0.0);
            let mut sim = Sim::empty("old session", seed, l.clone(), l, &server);
            sim.share_port(4);
            sim.add_client(&client);
            sim.heard = Some(Vec::new());
            sim.open(bulk(30_000, 30_000));
            sim.finish(secs(30));
            let recording = sim.heard.take().expect("it was on");
            let key = sim.clients[0].key();
            // While it lives, after the client is gone, and after it has ended at the server.
            for round in 0..3 {
                match round {
                    0 => {}
                    1 => sim.client_mut().endpoint.close_session(key),
                    _ => sim.run_for(*server.silence().end() + secs(4)),
                }
                let lives = usize::from(round < 2);
                for (i, datagram) in (0..).zip(&recording) {
                    // From so many places that every endpoint gets some.
                    sim.inject(stranger(round * 500 + i % 40), datagram);
                    let all: usize = sim.servers().map(|h| h.endpoint.sessions().count()).sum();
                    assert_eq!(all, lives);
                }
            }
            let counters = sim.server_counters();
            assert_eq!((counters.passive_opens, counters.moved_peers), (1, 0));
            assert!(counters.refused_replays > 10, "{counters:?}");
            assert!(counters.handovers > 10, "{counters:?}");
            assert_eq!(counters.streams_opened, 1);
        }
    }
}
