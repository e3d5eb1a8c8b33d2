//! Histories that follow from a seed: settings, a link, a load, and several attacks at once; then the session ends, and everything
//! is sent again.
//!
//! Each dialect and cipher has 200 of them in the ordinary test, and each class of ciphers 100,000 in `cargo xtask long adversary`. A
//! failure says how to repeat it.

use std::time::Duration;

use fulmar_netem::{Path as Link, Rng};

use super::attacks::{
    Change, Copies, Echo, Openings, Redirection, Reflection, Span, Whence, send_all_again,
};
use super::invariants::{MAX_STALL, assert_holds, longest_stall};
use super::observer::Observer;
use super::setups::{Class, Setup, of_class};
use crate::apps::{Expect, Program, Step, bulk, requests};
use crate::harness::{Sim, link, ms, secs, seeds};
use crate::setup::Options;
use crate::storm::pick;

/// Histories of each dialect and cipher in the ordinary test.
const ORDINARY: u64 = 200;
/// Histories of each class of ciphers in the long test.
const LONG: usize = 100_000;
/// An application reads nothing for so long if its client's opening was lost and copies of it came from many addresses first: they are
/// asked one after the other (docs/design/roaming.md, "What was left out").
const MAX_STALL_OF_MANY: Duration = secs(20);
/// Names one setup for all histories, as `FULMAR_SIM_SEED` names a seed.
const ONLY: &str = "FULMAR_SIM_SETUP";

/// Says how to repeat what fails.
struct Repeat<'a> {
    name: &'a str,
    seed: u64,
}

impl Drop for Repeat<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            #[allow(clippy::print_stderr)]
            {
                eprintln!(
                    "again: {ONLY}='{}' FULMAR_SIM_SEED={} cargo test -p fulmar-session --test sim adversary::history -- --include-ignored",
                    self.name, self.seed
                );
            }
        }
    }
}

/// A client and a server that carry something, with an observer between them who does nothing yet.
pub(crate) fn scene(
    name: &'static str,
    seed: u64,
    setup: &Setup,
    (client, server): &(Options, Options),
    path: Link,
) -> Sim {
    let mut sim = Sim::empty(name, seed, path.clone(), path, server);
    if !setup.by_address {
        sim.share_port(2);
    }
    sim.add_client(client);
    let (client, server) = (sim.client().addr, sim.server.addr);
    sim.observer = Some(Observer::new(seed, client, server, setup.by_address));
    // Whoever opens a stream gets a lot, and nobody checks what it says.
    let generous = Program::new(Expect::Anything, [Step::Write(200_000), Step::ReadEnd]);
    sim.unexpected = Some(generous.tolerant());
    sim
}

/// One of the attacks, as the seed has it. How long it may keep an application waiting.
fn begin_one(observer: &mut Observer, rng: &mut Rng, setup: &Setup, path: &Link) -> Duration {
    let delay = path.delay;
    let whence = pick(rng, &[Whence::Same, Whence::Elsewhere, Whence::Both]);
    let other_port = !setup.by_address && rng.chance(0.3);
    let chance = pick(rng, &[0.1, 0.5, 1.0]);
    let change = pick(
        rng,
        &[
            Change::Bits(1),
            Change::Bits(3),
            Change::Nonce(setup.nonce),
            Change::Length,
            Change::Splice,
            Change::Noise,
        ],
    );
    let early = Span(ms(1), delay);
    let late = Span(delay, delay + ms(400));
    let overtakes = rng.chance(0.5);
    let copies = |after, change| Copies {
        whence,
        other_port,
        after,
        change,
        chance,
    };
    let relay = observer.hand.address();
    match rng.below(7) {
        0 => observer.begin(Reflection {
            change: pick(rng, &[Change::Nothing, Change::Nonce(setup.nonce)]),
            after: ms(1 + rng.below(60)),
        }),
        1 => observer.begin(copies(late, Change::Nothing)),
        2 => observer.begin(copies(Span(early.0, late.1), change)),
        3 => {
            observer.begin(Openings {
                first: 1 + rng.below(3) as usize,
                // One that overtakes is found out about at once; of several, one after the other.
                addresses: if overtakes { 1 } else { 20 },
                after: if overtakes { early } else { late },
            });
            if path.loss > 0.0 && !overtakes {
                return MAX_STALL_OF_MANY;
            }
        }
        4 => observer.begin(copies(early, Change::Nothing)),
        // If it passes on what the path loses, it is the better path.
        5 if path.loss == 0.0 => observer.begin(Redirection {
            relay,
            after: delay + ms(1 + rng.below(50)),
        }),
        _ => observer.begin(Echo),
    }
    MAX_STALL
}

/// Runs one; how long an application had to wait at most.
fn history(setup: &Setup, seed: u64) -> Duration {
    let _repeat = Repeat {
        name: &setup.name,
        seed,
    };
    let mut rng = Rng::new(seed ^ 0x5eed_0000);
    let ends = setup.varied(&mut rng);
    let delay = pick(&mut rng, &[5, 15, 40]);
    let path = link(delay, pick(&mut rng, &[0.0, 0.0, 0.01, 0.05]));
    let mut sim = scene("history", seed, setup, &ends, path.clone());
    let attacks = 1 + rng.below(3);
    let observer = sim.observer.as_mut().expect("it is there");
    let waits = (0..attacks).map(|_| begin_one(observer, &mut rng, setup, &path));
    let most = waits.max().unwrap_or(MAX_STALL);
    let volumes = [(); 2].map(|()| pick(&mut rng, &[100, 4000, 30_000]));
    begin_load(&mut sim, setup.class, volumes);
    settle_load(&mut sim, setup, most);
    let stall = longest_stall(&sim);
    let whence = pick(&mut rng, &[Whence::Same, Whence::Elsewhere, Whence::Both]);
    let other_port = !setup.by_address && rng.chance(0.5);
    again(&mut sim, rng.chance(0.5), whence, other_port);
    assert_holds(&sim, setup.class, &setup.name);
    stall
}

/// A transfer of so many bytes each way, and small messages.
pub(crate) fn begin_load(sim: &mut Sim, class: Class, [up, down]: [u64; 2]) {
    for load in [bulk(up, down), requests(5, 150, 500, ms(20))] {
        // Where anybody can say anything, nothing is expected of what arrives.
        let (ours, theirs) = load;
        match class {
            Class::Open => sim.open((ours.tolerant(), theirs.tolerant())),
            Class::Checked | Class::Authenticated => sim.open((ours, theirs)),
        };
    }
}

/// Lets the load come to its end, which it does if the cipher protects it. Nobody waits longer than `most`.
pub(crate) fn settle_load(sim: &mut Sim, setup: &Setup, most: Duration) {
    if setup.class == Class::Open {
        return sim.run_for(secs(2));
    }
    sim.finish_clients(secs(60));
    let stall = longest_stall(sim);
    assert!(stall <= most, "{}: waited {stall:?}", setup.name);
}

/// Everything once more, while the session is there or after its client has ended it.
pub(crate) fn again(sim: &mut Sim, ended: bool, whence: Whence, other_port: bool) {
    if ended {
        let keys: Vec<_> = sim.client().endpoint.sessions().collect();
        for key in keys {
            sim.client_mut().endpoint.close_session(key);
        }
        sim.run_for(ms(100));
    }
    let observer = sim.observer.as_mut().expect("it is there");
    observer.rest();
    observer.hand.now = sim.now;
    send_all_again(&mut observer.hand, whence, other_port);
    sim.run_for(secs(1));
}

/// These histories of some setups; the longest wait.
fn histories(of: &[Setup], seeds: &[u64]) -> Duration {
    let only = std::env::var(ONLY).ok();
    let mut longest = Duration::ZERO;
    for setup in of {
        if only.as_ref().is_some_and(|name| *name != setup.name) {
            continue;
        }
        for &seed in seeds {
            longest = longest.max(history(setup, seed));
        }
    }
    longest
}

#[test]
fn histories_of_authenticated_ciphers() {
    histories(&of_class(Class::Authenticated), &seeds(ORDINARY));
}

#[test]
fn histories_of_checked_ciphers() {
    histories(&of_class(Class::Checked), &seeds(ORDINARY));
}

#[test]
fn histories_of_open_ciphers() {
    histories(&of_class(Class::Open), &seeds(ORDINARY));
}

/// The histories of a class that are not in the ordinary test.
#[allow(clippy::print_stdout)]
fn long(class: Class) {
    let setups = of_class(class);
    let last = (LONG / setups.len()) as u64 + 1;
    let start = std::time::Instant::now();
    let longest = histories(&setups, &(ORDINARY + 1..=last).collect::<Vec<_>>());
    println!(
        "{} setups, seeds {} to {last}: longest wait {longest:?}, took {:?}",
        setups.len(),
        ORDINARY + 1,
        start.elapsed()
    );
}

#[test]
#[ignore = "long"]
fn long_authenticated() {
    long(Class::Authenticated);
}

#[test]
#[ignore = "long"]
fn long_checked() {
    long(Class::Checked);
}

#[test]
#[ignore = "long"]
fn long_open() {
    long(Class::Open);
}
