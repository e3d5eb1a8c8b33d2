//! What the counters say of the path, in every mode.

use fulmar_session::Counters;

use crate::apps::bulk;
use crate::harness::{Sim, link, secs, seeds};
use crate::setup::Options;

/// The gauges of a path have a round trip and a loss whoever sends: with `--mode fast` they were 0.
#[test]
fn round_trip_and_loss_are_told_in_every_mode() {
    for seed in seeds(1) {
        for (mode, measuring) in [("classic", false), ("auto", true)] {
            for (client, server) in Options::families(measuring) {
                let [client, server] = [client, server].map(|end| Options { fec: None, ..end });
                for loss in [0.0, 0.05] {
                    let l = link(20, loss);
                    let mut sim = Sim::new(mode, seed, l.clone(), l, (&client, &server));
                    sim.open(bulk(3_000_000, 3_000_000));
                    sim.finish(secs(120));
                    for host in [sim.client(), &sim.server] {
                        let counters = host.endpoint.counters();
                        told(&counters, loss, &format!("{mode} {}", client.dialect()));
                    }
                }
            }
        }
    }
}

fn told(counters: &Counters, loss: f64, what: &str) {
    let ms = 38_000..=200_000;
    assert!(ms.contains(&counters.path_srtt_us), "{what}: {counters:?}");
    assert!(
        ms.contains(&counters.path_min_rtt_us),
        "{what}: {counters:?}"
    );
    let ppm = counters.path_loss_ppm as f64;
    // Segments can be sent again without need, and twice for one loss.
    let most = loss * 4e6 + 10_000.0;
    assert!(ppm >= loss * 0.3e6 && ppm <= most, "{what}: {counters:?}");
}
