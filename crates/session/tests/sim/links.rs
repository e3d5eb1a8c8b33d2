//! Bad links, one kind of badness at a time, with upstream's defaults, for each family of dialects.

use fulmar_netem::{Bursts, Direction, Path as Link, Rate, Reordering};

use fulmar_session::endpoint::Event;

use crate::apps::{bulk, half_close, requests};
use crate::harness::{Sim, link, ms, secs, seeds};
use crate::setup::Options;

/// Carries a mixed load over `link` in both directions, and gives what became of it to `look`, with the settings.
fn carries(
    name: &'static str,
    seed: u64,
    link: &Link,
    limit_secs: u64,
    mut look: impl FnMut(&Sim, &Options),
) {
    for (client, server) in Options::families(false) {
        let mut sim = Sim::new(name, seed, link.clone(), link.clone(), (&client, &server));
        sim.open(bulk(200_000, 500_000));
        sim.open(requests(20, 100, 100, ms(50)));
        sim.open(half_close(5_000, 50_000, ms(10)));
        sim.finish(secs(limit_secs));
        look(&sim, &client);
    }
}

#[test]
fn loss_up_to_forty_percent() {
    for seed in seeds(2) {
        for (loss, limit) in [
            (0.0, 5),
            (0.01, 10),
            (0.05, 10),
            (0.1, 15),
            (0.2, 30),
            (0.3, 60),
            (0.4, 120),
        ] {
            carries("loss", seed, &link(40, loss), limit, |sim, client| {
                assert_eq!(
                    loss > 0.0,
                    sim.net.counters(Direction::Down).lost_random > 0
                );
                let counters = sim.client().endpoint.counters();
                let repaired = loss > 0.0 && client.fec.is_some();
                assert_eq!(repaired, counters.fec_recovered > 0, "{counters:?}");
                assert_eq!(counters.fec_errs, 0);
            });
        }
    }
}

#[test]
fn bursts_of_loss() {
    for seed in seeds(2) {
        let mut lost = 0;
        for (enter, leave) in [(0.002, 0.05), (0.02, 0.3), (0.01, 0.1)] {
            let bad = Link {
                bursts: Some(Bursts {
                    enter,
                    leave,
                    loss_good: 0.0,
                    loss_bad: 0.9,
                }),
                ..link(30, 0.0)
            };
            carries("bursts", seed, &bad, 60, |sim, _| {
                lost += sim.net.counters(Direction::Down).lost_burst;
            });
        }
        assert!(lost > 50, "{lost}");
    }
}

#[test]
fn disorder_and_repetition() {
    for seed in seeds(2) {
        let disorder = Link {
            jitter: ms(10),
            reordering: Some(Reordering {
                probability: 0.3,
                by: ms(80),
            }),
            duplication: 0.3,
            ..link(20, 0.0)
        };
        carries("disorder", seed, &disorder, 20, |sim, _| {
            assert!(sim.server.endpoint.counters().repeat_segs > 0);
        });
    }
}

#[test]
fn damage() {
    for seed in seeds(2) {
        let damage = Link {
            corruption: 0.1,
            truncation: 0.1,
            ..link(20, 0.0)
        };
        carries("damage", seed, &damage, 20, |sim, _| {
            let counters = sim.server.endpoint.counters();
            assert!(counters.in_csum_errors > 0 && counters.short_datagrams > 0);
            assert_eq!(counters.kcp_in_errors, 0);
        });
    }
}

/// A window of some times what the link holds. (With a window of hundreds of packets and no pacing, each timeout of
/// KCP is a burst of which a small queue takes only the beginning: see the table.)
#[test]
fn slow_links_with_small_queues() {
    for seed in seeds(1) {
        for (rate, queue, window) in [
            (1_000_000, 50, 16),
            (1_000_000, 300, 64),
            (10_000_000, 20, 32),
            (10_000_000, 200, 256),
        ] {
            let slow = Link {
                rate: Some(Rate::with_queue_time(rate, ms(queue))),
                ..link(20, 0.0)
            };
            for ends in Options::families(false) {
                let [client, server] = [ends.0, ends.1].map(|end| Options {
                    snd_wnd: window,
                    ..end
                });
                let mut sim =
                    Sim::new("slow", seed, slow.clone(), slow.clone(), (&client, &server));
                sim.open(bulk(200_000, 500_000));
                sim.open(requests(20, 100, 100, ms(50)));
                let took = sim.finish(secs(60)).as_secs_f64();
                let share = 8.0 * 500_000.0 / took / rate as f64;
                assert!(share > 0.1, "{share} of {rate} bit/s, queue {queue} ms");
            }
        }
    }
}

#[test]
fn our_own_rate_limit_holds() {
    for seed in seeds(1) {
        for limit in [5_000, 20_000, 500_000] {
            for ends in Options::families(false) {
                let [client, server] = [ends.0, ends.1].map(|end| Options {
                    rate_limit: Some(limit),
                    ..end
                });
                let good = link(15, 0.01);
                let mut sim = Sim::new("rate limit", seed, good.clone(), good, (&client, &server));
                let start = sim.now;
                sim.open(bulk(0, 10 * limit));
                sim.finish(secs(60));
                let took = (sim.now - start).as_secs_f64();
                let sent = sim.net.counters(Direction::Down).sent_bytes;
                assert!(sent as f64 <= limit as f64 * took + 96_000.0 + 12_000.0);
                // Parity, headers and lost packets take their part.
                assert!(took < 20.0, "{took} s at {limit} bytes/s");
                let suspect = |e: &Event| matches!(e, Event::Suspect(_));
                assert_eq!(sim.server.times_of(suspect), [], "{}", sim.report());
            }
        }
    }
}

#[test]
fn a_path_that_takes_only_smaller_packets_than_ours() {
    // Nothing large passes; nothing breaks, and small things go through.
    for seed in seeds(1) {
        let narrow = Link {
            mtu: Some(600),
            ..link(20, 0.0)
        };
        for ends in Options::families(false) {
            let [client, server] = [ends.0, ends.1].map(|end| Options { mtu: 600, ..end });
            let mut sim = Sim::new(
                "narrow",
                seed,
                narrow.clone(),
                narrow.clone(),
                (&client, &server),
            );
            sim.open(bulk(50_000, 50_000));
            sim.finish(secs(10));
        }
    }
}

#[test]
fn a_size_that_passes_in_fragments_only_is_not_taken() {
    for seed in seeds(1) {
        let mut all = Options::families(true);
        all.push(Options::libev(
            fulmar_wire::libev::Method::XChaCha20Poly1305,
            true,
        ));
        // Parity could give the other end a probe that has not passed.
        let (client, server) = all[0].clone();
        let with_parity = |end: Options| Options {
            fec: Some((3, 2)),
            ..end
        };
        all.push((with_parity(client), with_parity(server)));
        for (client, server) in all {
            let link = Link {
                rate: Some(Rate::with_queue_time(5_000_000, secs(2))),
                ..link(20, 0.0)
            };
            let mut sim = Sim::new("fragments", seed, link.clone(), link, (&client, &server));
            sim.client_mut().one_piece = Some(1252);
            sim.server.one_piece = Some(1252);
            let streams = |sim: &mut Sim| {
                sim.open(bulk(3_000_000, 3_000_000));
                sim.finish(secs(60));
                [sim.client().fragmented, sim.server.fragmented]
            };
            // Acknowledgements and data together may be larger until something is known to be lost.
            let before = streams(&mut sim);
            // Where each stream is a session, its successors learn from it when it has ended.
            sim.run_for(secs(60));
            assert_eq!(streams(&mut sim), before, "{}", client.dialect());
            for host in [sim.client(), &sim.server] {
                let counters = host.endpoint.counters();
                let size = counters.path_datagram_size;
                assert!(
                    (1236..=1252).contains(&size),
                    "{}: {size}",
                    client.dialect()
                );
                assert!(counters.size_probes > 3);
                assert_eq!(counters.black_holes, 0, "{}", client.dialect());
            }
        }
    }
}
