//! Datagrams that come back to the end that sent them.

use fulmar_netem::Direction;
use fulmar_session::session::Reason;
use fulmar_wire::kcptun::Method;
use fulmar_wire::libev;

use super::{Class, class, ends_of, everything};
use crate::apps::{bulk, requests};
use crate::harness::{Sim, link, ms, secs, seeds, stranger};
use crate::setup::{Options, Wire};

/// What the outsider does with a datagram before it returns it.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Change {
    Nothing,
    /// Flips a bit of the nonce, another one each time.
    Nonce,
}

/// Gives everything that was sent since the last call back to the end that sent it: from the address of its peer, and the server's
/// from somewhere else as well. How many of each end.
fn reflect(sim: &mut Sim, change: Change, nonce: usize) -> [u64; 2] {
    let record = sim.record.replace(Vec::new()).unwrap_or_default();
    let (client, server) = (sim.client().addr, sim.server.addr);
    let mut count = [0, 0];
    for datagram in record {
        let mut data = datagram.data;
        if change == Change::Nonce {
            let bit = sim.rng.below(8 * nonce.min(data.len()) as u64) as usize;
            data[bit / 8] ^= 1 << (bit % 8);
        }
        match datagram.direction {
            Direction::Up => {
                sim.inject_client(server, &data);
                count[0] += 1;
            }
            Direction::Down => {
                sim.inject(client, &data);
                sim.inject(stranger(3), &data);
                count[1] += 2;
            }
        }
    }
    count
}

/// A transfer and small messages, while everything comes back at once.
fn under_reflection(
    seed: u64,
    (client, server): &(Options, Options),
    change: Change,
) -> (Sim, [u64; 2]) {
    let l = link(15, 0.02);
    let mut sim = Sim::new("reflection", seed, l.clone(), l, (client, server));
    sim.record = Some(Vec::new());
    sim.open(bulk(60_000, 60_000));
    sim.open(requests(10, 100, 300, ms(20)));
    let nonce = match client.wire {
        Wire::Kcptun if client.method == Method::Aes128Gcm => 12,
        _ => 16,
    };
    let mut count = [0, 0];
    for _ in 0..200 {
        sim.run_for(ms(5));
        let [c, s] = reflect(&mut sim, change, nonce);
        count = [count[0] + c, count[1] + s];
    }
    sim.finish(secs(60));
    (sim, count)
}

/// Nothing of what was reflected was taken for the peer's: sessions are where and as they were.
fn assert_unharmed(sim: &Sim, what: &str) {
    for host in [sim.client(), &sim.server] {
        let reasons = ends_of(host);
        let fine = reasons.iter().all(|r| *r == Reason::Finished);
        assert!(fine, "{what}: {reasons:?}");
        let counters = host.endpoint.counters();
        let bad = (counters.moved_peers, counters.misbehaved_sessions);
        assert_eq!(bad, (0, 0), "{what}");
    }
}

/// Seen in the field: 13 of 13 sessions ended with "malformed stream", or the application read its own requests as answers.
#[test]
fn reflected_datagrams_end_feed_and_move_nothing() {
    for seed in seeds(2) {
        for measuring in [false, true] {
            for ends in everything(measuring) {
                let what = format!("{} {:?}", ends.0.dialect(), ends.0.method);
                // Nothing tells whose datagrams these are.
                let nameless = match ends.0.wire {
                    Wire::Kcptun => ends.0.method == Method::Null,
                    Wire::Libev(method) => method == libev::Method::Plain,
                    Wire::First(..) => false,
                };
                if nameless {
                    continue;
                }
                let (sim, sent) = under_reflection(seed, &ends, Change::Nothing);
                assert_unharmed(&sim, &what);
                let seen =
                    [sim.client(), &sim.server].map(|h| h.endpoint.counters().reflected_datagrams);
                assert_eq!(seen, sent, "{what}");
            }
        }
    }
}

/// A nonce that was changed on the way back makes no packet of ours the peer's.
#[test]
fn reflected_datagrams_with_another_nonce_end_feed_and_move_nothing() {
    for seed in seeds(2) {
        for ends in everything(seed % 2 == 0) {
            // libev's nonces are at the end and authenticated; what is open to everybody is open to this.
            if matches!(ends.0.wire, Wire::Libev(_)) || class(&ends.0) == Class::Open {
                continue;
            }
            let what = format!("{} {:?}", ends.0.dialect(), ends.0.method);
            let (sim, _) = under_reflection(seed, &ends, Change::Nonce);
            assert_unharmed(&sim, &what);
        }
    }
}
