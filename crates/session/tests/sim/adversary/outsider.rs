//! One attack at a time, of somebody who has no key and sees what passes: with every dialect and cipher, and both senders.

use super::attacks::{Change, Copies, Echo, Openings, Redirection, Span, Whence};
use super::history::{again, begin_load, scene, settle_load};
use super::invariants::{MAX_STALL, assert_holds};
use super::observer::Observer;
use super::setups::{Class, Setup, setups};
use crate::harness::{Sim, link, ms, seeds, stranger};

/// What the path takes one way.
const DELAY: u64 = 15;

/// A transfer and small messages under an attack, with everything that there is; then everything that was sent comes again.
fn under(name: &'static str, attack: impl Fn(&mut Observer, &Setup)) {
    under_loss(name, 0.01, attack);
}

fn under_loss(name: &'static str, loss: f64, attack: impl Fn(&mut Observer, &Setup)) {
    for seed in seeds(1) {
        for setup in setups() {
            for measuring in [false, true] {
                let ends = setup.ends(measuring);
                let mut sim = scene(name, seed, &setup, &ends, link(DELAY, loss));
                attack(sim.observer.as_mut().expect("it is there"), &setup);
                begin_load(&mut sim, setup.class, [20_000, 20_000]);
                settle_load(&mut sim, &setup, MAX_STALL);
                assert_holds(&sim, setup.class, &setup.name);
            }
        }
    }
}

/// All datagrams, from everywhere, after they have arrived.
const LATE: Copies = Copies {
    whence: Whence::Both,
    other_port: false,
    after: Span(ms(DELAY), ms(600)),
    change: Change::Nothing,
    chance: 1.0,
};

/// The same, before they arrive.
const EARLY: Copies = Copies {
    after: Span(ms(1), ms(DELAY)),
    ..LATE
};

#[test]
fn replayed_datagrams_end_feed_and_move_nothing() {
    under("replay", |observer, _| observer.begin(LATE));
}

#[test]
fn datagrams_replayed_at_another_port_end_feed_and_move_nothing() {
    under("other port", |observer, setup| {
        observer.begin(Copies {
            other_port: !setup.by_address,
            ..LATE
        });
    });
}

/// While the session is there, and after its client has ended it; at the same port and at another one.
#[test]
fn a_session_that_is_sent_again_opens_nothing() {
    for seed in seeds(4) {
        for setup in setups() {
            // What anybody can make, anybody can open.
            if setup.class == Class::Open {
                continue;
            }
            for measuring in [false, true] {
                let ends = setup.ends(measuring);
                // Nothing is lost: what has never arrived is no replay.
                let mut sim = scene("again", seed, &setup, &ends, link(DELAY, 0.0));
                begin_load(&mut sim, setup.class, [20_000, 20_000]);
                settle_load(&mut sim, &setup, MAX_STALL);
                let other_port = !setup.by_address && seed % 2 == 0;
                let opened = |sim: &Sim| sim.server_counters().streams_opened;
                let before = opened(&sim);
                again(&mut sim, seed > 2, Whence::Both, other_port);
                assert_eq!(opened(&sim), before, "{}", setup.name);
                assert_holds(&sim, setup.class, &setup.name);
            }
        }
    }
}

#[test]
fn early_copies_end_feed_and_move_nothing() {
    under("early", |observer, _| {
        observer.begin(Copies {
            whence: Whence::Same,
            ..EARLY
        });
    });
}

#[test]
fn early_copies_from_elsewhere_end_feed_and_move_nothing() {
    under("early, elsewhere", |observer, _| {
        observer.begin(Copies {
            whence: Whence::Elsewhere,
            ..EARLY
        });
    });
}

#[test]
fn openings_from_many_addresses_draw_little() {
    // What overtakes comes from one: of several, one after the other is found out about.
    let early = (Span(ms(1), ms(DELAY)), 1);
    let late = (Span(ms(DELAY), ms(200)), 30);
    for (after, addresses) in [early, late] {
        under("openings", |observer, _| {
            observer.begin(Openings {
                first: 3,
                addresses,
                after,
            });
        });
    }
}

/// A host beside the path passes everything on, both ways, a little later than the path. (If it passes on what the path loses, it is the
/// better path, and the session may move there.)
#[test]
fn a_slow_detour_ends_feeds_and_moves_nothing() {
    under_loss("detour", 0.0, |observer, _| {
        observer.begin(Redirection {
            relay: stranger(7),
            after: ms(DELAY + 5),
        });
    });
}

#[test]
fn datagrams_with_flipped_bits_end_feed_and_move_nothing() {
    under("flipped bits", |observer, _| {
        for bits in [1, 2, 5] {
            observer.begin(Copies {
                change: Change::Bits(bits),
                after: Span(ms(1), ms(100)),
                ..LATE
            });
        }
    });
}

/// Cut short, made longer, and put together from two.
#[test]
fn datagrams_in_pieces_end_feed_and_move_nothing() {
    under("pieces", |observer, _| {
        for change in [Change::Length, Change::Splice] {
            observer.begin(Copies {
                change,
                after: Span(ms(1), ms(100)),
                ..LATE
            });
        }
    });
}

#[test]
fn noise_ends_feeds_and_moves_nothing() {
    under("noise", |observer, _| {
        observer.begin(Copies {
            change: Change::Noise,
            after: Span(ms(1), ms(100)),
            ..LATE
        });
    });
}

/// What the server sends to an attacker's address comes back from there, which must be no conversation.
#[test]
fn an_echo_draws_no_more() {
    under("echo", |observer, _| {
        observer.begin(Copies {
            whence: Whence::Elsewhere,
            ..LATE
        });
        observer.begin(Echo);
    });
}
