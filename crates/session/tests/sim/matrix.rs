//! Every setting on a bad link: profiles, parity, smux, compression, QPP, ciphers.

use fulmar_arq::Profile;
use fulmar_netem::{Direction, Path as Link, Reordering};
use fulmar_wire::kcptun::Method;

use crate::apps::{Pair, bulk, half_close, requests};
use crate::harness::{Sim, ms, secs, seeds};
use crate::setup::Options;

/// Loss, disorder, repetition and damage in moderation.
pub(crate) fn bad(damage: bool) -> Link {
    let damage = if damage { 0.005 } else { 0.0 };
    Link {
        delay: ms(25),
        jitter: ms(5),
        reordering: Some(Reordering {
            probability: 0.02,
            by: ms(20),
        }),
        loss: 0.05,
        duplication: 0.01,
        corruption: damage,
        truncation: damage,
        ..Link::default()
    }
}

/// Some of everything that applications do.
pub(crate) fn load() -> Vec<Pair> {
    vec![
        bulk(150_000, 300_000),
        bulk(0, 1),
        half_close(40_000, 90_000, ms(300)),
        requests(15, 200, 1500, ms(20)),
        bulk(30_000, 0),
    ]
}

fn carries(name: &'static str, seed: u64, link: Link, client: &Options, server: &Options) -> Sim {
    let mut sim = Sim::new(name, seed, link.clone(), link, (client, server));
    for pair in load() {
        sim.open(pair);
    }
    sim.finish(secs(60));
    sim.run_for(secs(3));
    for (host, keys) in [(sim.client(), 1), (&sim.server, 1)] {
        assert_eq!(host.endpoint.sessions().count(), keys);
        for key in host.endpoint.sessions() {
            let session = host.endpoint.session(key).expect("it is there");
            assert!(session.kcp().is_idle(), "{}", sim.report());
        }
    }
    sim
}

const PROFILES: [Profile; 6] = [
    Profile::NORMAL,
    Profile::FAST,
    Profile::FAST2,
    Profile::FAST3,
    Profile::MANUAL,
    Profile::new(1, 15, 3, true),
];
const SHAPES: [Option<(usize, usize)>; 5] = [
    None,
    Some((10, 3)),
    Some((1, 1)),
    Some((5, 5)),
    Some((60, 3)),
];

#[test]
fn all_profiles_and_parity_shapes() {
    for seed in seeds(1) {
        for (i, profile) in PROFILES.into_iter().enumerate() {
            for (j, fec) in SHAPES.into_iter().enumerate() {
                // The other end has another shape, or none: each direction stands for itself.
                let (smux, compression) = (1 + (i + j) as u8 % 2, (i / 2 + j) % 2 == 1);
                let client = Options {
                    profile,
                    fec,
                    smux,
                    compression,
                    ..Options::client()
                };
                let theirs = SHAPES[(i + 2 * j) % SHAPES.len()];
                let server = Options {
                    profile,
                    fec: theirs,
                    smux,
                    compression,
                    ..Options::server()
                };
                let sim = carries("profile and parity", seed, bad(true), &client, &server);
                // Another shape than the own one is learned from some hundred packets, if few are lost.
                let counters = sim.server.endpoint.counters();
                if fec.is_none() || fec == theirs {
                    assert_eq!(
                        fec.is_some(),
                        counters.fec_parity_shards > 0,
                        "{counters:?}"
                    );
                }
                assert_eq!(counters.fec_errs, 0);
            }
        }
    }
}

#[test]
fn all_ciphers() {
    for seed in seeds(1) {
        for (i, method) in Method::ALL.into_iter().enumerate() {
            for auto in [false, true] {
                let client = Options {
                    method,
                    smux: 1 + i as u8 % 2,
                    compression: i % 3 == 0,
                    fec: (i % 4 != 0).then_some((10, 3)),
                    ..Options::client()
                };
                let server = Options {
                    auto,
                    ..Options {
                        snd_wnd: 1024,
                        rcv_wnd: 1024,
                        ..client.clone()
                    }
                };
                let auto = (client.clone().measuring(), server.clone().measuring());
                for (client, server) in [(client, server), auto] {
                    // Nothing finds damage in what has no checksum.
                    let link = bad(method != Method::Null);
                    let sim = carries("cipher", seed, link, &client, &server);
                    let damaged = sim.net.counters(Direction::Up).corrupted;
                    let found = sim.server.endpoint.counters().in_csum_errors;
                    assert!(found >= damaged.saturating_sub(3), "{found} of {damaged}");
                }
            }
        }
    }
}

#[test]
fn qpp_and_compression_and_smux_versions() {
    for seed in seeds(2) {
        for smux in [1, 2] {
            for (compression, measuring) in
                [(false, false), (true, false), (false, true), (true, true)]
            {
                let ends = Options::ends(measuring);
                let [client, server] = [ends.0, ends.1].map(|end| Options {
                    smux,
                    compression,
                    qpp: true,
                    method: Method::Aes128,
                    ..end
                });
                carries("qpp", seed, bad(true), &client, &server);
            }
        }
    }
}

#[test]
fn packet_sizes_and_windows() {
    for seed in seeds(1) {
        for mtu in [100, 128, 500, 1500] {
            for (snd_wnd, rcv_wnd) in [(4, 4), (32, 2048), (2048, 32)] {
                let client = Options {
                    mtu,
                    snd_wnd,
                    rcv_wnd,
                    fec: (mtu != 100).then_some((3, 1)),
                    ack_no_delay: snd_wnd == 4,
                    ..Options::client()
                };
                let server = Options {
                    mtu: 1600 - mtu,
                    ..client.clone()
                };
                // Such a sender next to the windows of others; its own is what they leave it.
                let measuring = |end: &Options| Options {
                    rcv_wnd,
                    ..end.clone().measuring()
                };
                let auto = (measuring(&client), measuring(&server));
                for (client, server) in [(client, server), auto] {
                    let mut sim = Sim::new("sizes", seed, bad(true), bad(true), (&client, &server));
                    sim.open(bulk(40_000, 40_000));
                    sim.open(requests(5, 10, 3000, ms(1)));
                    sim.finish(secs(120));
                }
            }
        }
    }
}

#[test]
fn all_ways_to_speak_it_in_2016() {
    for seed in seeds(1) {
        // Its own, and some that it never had.
        let profiles = [
            Profile::new(1, 10, 2, false),
            Profile::new(0, 20, 0, false),
            Profile::new(0, 40, 0, true),
            Profile::FAST3,
        ];
        for (client, server) in Options::first(false) {
            for (profile, mtu) in profiles.into_iter().zip([1400, 100, 500, 1500]) {
                let [client, server] = [client.clone(), server.clone()].map(|end| Options {
                    profile,
                    mtu,
                    ..end
                });
                carries("2016", seed, bad(true), &client, &server);
            }
        }
        for (client, server) in Options::first(true) {
            carries("2016 auto", seed, bad(true), &client, &server);
            // Each end has the sender that it has.
            let (classic, _) = Options::first(false).swap_remove(1);
            let classic = Options {
                wire: client.wire,
                ..classic
            };
            carries("2016 auto up", seed, bad(true), &client, &classic);
            carries("2016 auto down", seed, bad(true), &classic, &server);
        }
    }
}
