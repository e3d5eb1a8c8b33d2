//! What is known of the path: by the counters, in every mode, and whether the peer is at its other end.

use fulmar_session::Counters;
use fulmar_wire::kcptun::Method;

use crate::apps::bulk;
use crate::harness::{Sim, link, ms, secs, seeds, stranger};
use crate::raw::Raw;
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
    let micros = 38_000..=200_000;
    assert!(
        micros.contains(&counters.path_srtt_us),
        "{what}: {counters:?}"
    );
    assert!(
        micros.contains(&counters.path_min_rtt_us),
        "{what}: {counters:?}"
    );
    let ppm = counters.path_loss_ppm as f64;
    // Segments can be sent again without need, and twice for one loss.
    let most = loss * 4e6 + 10_000.0;
    assert!(ppm >= loss * 0.3e6 && ppm <= most, "{what}: {counters:?}");
}

/// Where packets prove no key, an address could be forged until its acknowledgements come from there.
#[test]
fn a_peer_is_vouched_for_by_its_key_or_by_what_it_acknowledges() {
    for (method, keyed) in [(Method::Aes, true), (Method::Null, false)] {
        let server = Options {
            method,
            fec: None,
            ..Options::server()
        };
        let l = link(20, 0.0);
        let mut sim = Sim::empty("vouched", 1, l.clone(), l, &server);
        let mut raw = Raw::new(&server, stranger(1), 77);
        raw.hello();
        raw.turn(&mut sim);
        sim.run_for(ms(25));
        let is_vouched = |sim: &Sim| {
            let endpoint = &sim.server.endpoint;
            let key = endpoint.sessions().next().expect("a session");
            endpoint.is_vouched(key)
        };
        assert_eq!(is_vouched(&sim), keyed, "{method:?}");
        raw.live(&mut sim, 20);
        assert!(is_vouched(&sim), "{method:?}");
    }
}
