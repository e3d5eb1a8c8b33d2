//! Datagrams that come back to the end that sent them.

use super::attacks::{Change, Reflection};
use super::history::scene;
use super::invariants::assert_unharmed;
use super::setups::{Class, Nonce, Setup, setups};
use crate::apps::{bulk, requests};
use crate::harness::{Sim, link, ms, secs, seeds};

/// A transfer and small messages, while everything comes back at once.
fn under_reflection(seed: u64, setup: &Setup, measuring: bool, change: Change) -> Sim {
    let ends = setup.ends(measuring);
    let mut sim = scene("reflection", seed, setup, &ends, link(15, 0.02));
    sim.open(bulk(60_000, 60_000));
    sim.open(requests(10, 100, 300, ms(20)));
    let observer = sim.observer.as_mut().expect("it is there");
    let after = ms(1);
    observer.begin(Reflection { change, after });
    sim.finish(secs(60));
    sim.run_for(secs(1));
    sim
}

/// Seen in the field: 13 of 13 sessions ended with "malformed stream", or the application read its own requests as answers.
#[test]
fn reflected_datagrams_end_feed_and_move_nothing() {
    for seed in seeds(2) {
        for setup in setups() {
            // Without a nonce nothing tells whose datagrams these are.
            if setup.nonce == Nonce::None {
                continue;
            }
            for measuring in [false, true] {
                let sim = under_reflection(seed, &setup, measuring, Change::Nothing);
                assert_unharmed(&sim, &setup.name);
                let hosts = sim.servers().chain([sim.client()]);
                let seen = hosts.map(|h| h.endpoint.counters().reflected_datagrams);
                let observer = sim.observer.as_ref().expect("it is there");
                assert_eq!(seen.sum::<u64>(), observer.hand.sent(), "{}", setup.name);
            }
        }
    }
}

/// A nonce that was changed on the way back makes no packet of ours the peer's.
#[test]
fn reflected_datagrams_with_another_nonce_end_feed_and_move_nothing() {
    for seed in seeds(2) {
        for setup in setups() {
            // What is open to everybody is open to this.
            if setup.class == Class::Open {
                continue;
            }
            let change = Change::Nonce(setup.nonce);
            let sim = under_reflection(seed, &setup, seed % 2 == 0, change);
            assert_unharmed(&sim, &setup.name);
        }
    }
}
