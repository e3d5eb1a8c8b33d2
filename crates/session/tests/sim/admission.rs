//! Strangers: what they can cost.

use std::net::SocketAddr;

use fulmar_netem::Rng;
use fulmar_session::admission::Limits;
use fulmar_session::endpoint::Event;
use fulmar_session::transmit::Path;
use fulmar_session::{Reason, SessionKey};
use fulmar_wire::kcp::{Command, Format, Header};
use fulmar_wire::kcptun::Method;
use fulmar_wire::seq::Seq;
use fulmar_wire::time::{Instant, Millis};
use proptest::prelude::*;

use crate::apps::bulk;
use crate::harness::{Sim, link, ms, secs, seeds, stranger};
use crate::raw::seal;
use crate::setup::Options;

/// A PUSH segment.
fn push(conv: u32, sn: u32, payload: &[u8]) -> Vec<u8> {
    let header = Header {
        conv,
        command: Command::Push,
        frg: 0,
        wnd: 128,
        ts: Millis(0),
        sn: Seq(sn),
        una: Seq(0),
        len: u32::try_from(payload.len()).expect("short"),
    };
    let mut out = Format::LittleEndian.emit(&header).to_vec();
    out.extend_from_slice(payload);
    out
}

#[test]
fn noise_costs_nothing() {
    for seed in seeds(1) {
        let kcptun = |method| {
            [false, true].map(|auto| Options {
                method,
                auto,
                ..Options::server()
            })
        };
        let first = Options::first(false).swap_remove(0).1;
        let kcptun = Method::ALL.into_iter().flat_map(kcptun);
        for options in kcptun.chain([first]) {
            let l = link(1, 0.0);
            let mut sim = Sim::empty("noise", seed, l.clone(), l, &options);
            let mut rng = Rng::new(seed);
            let mut sent = 0;
            for i in 0..200u16 {
                let len = match i % 4 {
                    0 => i.into(),
                    1 => rng.below(60),
                    2 => rng.below(1500),
                    _ => 1400 + rng.below(9000),
                };
                let mut data = vec![0; usize::try_from(len).expect("short")];
                rng.fill(&mut data);
                sent += u64::from(!data.is_empty());
                sim.inject(stranger(i % 7), &data);
            }
            let c = sim.server.endpoint.counters();
            assert_eq!(c.curr_estab, 0);
            assert_eq!(
                c.in_csum_errors + c.short_datagrams + c.stranger_datagrams,
                sent,
                "{options:?} {c:?}"
            );
            assert_eq!(c.out_pkts, 0);
            // One report in ten seconds, however much comes.
            let told = |e: &Event| matches!(e, Event::Stranger(..));
            assert!(sim.server.times_of(told).len() <= 1);
            assert_eq!(sim.server.endpoint.poll_timeout(), None);
        }
    }
}

/// A client that sends noise instead of what it should costs only its own session.
#[test]
fn noise_from_the_address_of_a_session_changes_nothing() {
    for seed in seeds(1) {
        let kcptun = [Method::Aes, Method::Aes128Gcm, Method::None].map(|method| {
            let ends = Options::ends(false);
            let [client, server] = [ends.0, ends.1].map(|end| Options { method, ..end });
            (client, server)
        });
        for (client, server) in kcptun.into_iter().chain(Options::first(false)) {
            let l = link(20, 0.01);
            let mut sim = Sim::new("noise", seed, l.clone(), l, (&client, &server));
            sim.open(bulk(200_000, 200_000));
            let mut rng = Rng::new(seed);
            for _ in 0..50 {
                sim.run_for(ms(7));
                let len = usize::try_from(rng.below(1600)).expect("short");
                let mut data = vec![0; len + 1];
                rng.fill(&mut data);
                let from = sim.client().addr;
                sim.inject(from, &data);
                // And to the client, from the server's address.
                let path = Path {
                    remote: sim.server.addr,
                    local: None,
                };
                let now = sim.now;
                sim.client_mut()
                    .endpoint
                    .handle_run(now, path, &mut data, 0);
            }
            sim.finish(secs(20));
        }
    }
}

#[test]
fn openings_are_capped_and_short_lived() {
    for seed in seeds(1) {
        let limits = Limits {
            unproven: 100,
            unproven_per_ip: 10,
            ..Limits::default()
        };
        for (client, server) in Options::families(false) {
            let server = Options {
                fec: None,
                limits,
                ..server
            };
            let l = link(20, 0.0);
            let mut sim = Sim::empty("flood", seed, l.clone(), l, &server);
            let mut cipher = server.cipher(server.method, 99);
            let mut conv = 0;
            let mut flood = |sim: &mut Sim, ips: u8, each: u16| {
                for i in 0..each {
                    for ip in 0..ips {
                        conv += 1;
                        // Never valid: the first segment does not come.
                        let datagram = seal(&mut *cipher, &push(conv, 1, b"x"));
                        sim.inject(SocketAddr::from(([192, 0, 2, ip], 1000 + i)), &datagram);
                    }
                }
            };
            let start = sim.now;
            flood(&mut sim, 1, 50);
            assert_eq!(sim.server.endpoint.sessions().count(), 10);
            flood(&mut sim, 50, 50);
            assert_eq!(sim.server.endpoint.sessions().count(), 100);
            let c = sim.server.endpoint.counters();
            assert_eq!(c.passive_opens, 50 + 2500);
            assert_eq!(c.max_conn, 100);
            // An honest client from elsewhere gets in all the same, at once.
            let honest = sim.add_client(&Options {
                fec: None,
                ..client
            });
            sim.open_on(honest, bulk(1000, 1000));
            let took = sim.finish(secs(3));
            assert!(took < ms(300), "{took:?}");
            sim.run_to(start + secs(11));
            assert_eq!(sim.server.endpoint.sessions().count(), 1);
            let ended = |e: &Event| matches!(e, Event::Closed(_, _, Reason::Unproven(_)));
            assert_eq!(sim.server.times_of(ended).len(), 99);
            let crowded = |e: &Event| matches!(e, Event::Closed(_, _, Reason::Crowded));
            assert_eq!(sim.server.times_of(crowded).len(), 2550 - 99);
            assert_eq!(sim.server.endpoint.counters().unproven_sessions, 2550);
        }
    }
}

#[test]
fn an_honest_client_behind_the_address_of_a_flood_gets_in() {
    for seed in seeds(1) {
        for ends in Options::families(false) {
            let [client, server] = [ends.0, ends.1].map(|end| Options { fec: None, ..end });
            let l = link(20, 0.1);
            let mut sim = Sim::empty("same NAT", seed, l.clone(), l, &server);
            let mut cipher = server.cipher(server.method, 99);
            let honest = sim.add_client(&client);
            let mut conv = 0;
            let mut flood = |sim: &mut Sim| {
                for port in 0..100 {
                    conv += 1;
                    let datagram = seal(&mut *cipher, &push(conv, 1, b"x"));
                    let ip = sim.client().addr.ip();
                    sim.inject(SocketAddr::new(ip, 1000 + port), &datagram);
                }
            };
            flood(&mut sim);
            sim.open_on(honest, bulk(100_000, 100_000));
            let end = sim.now + secs(5);
            while sim.client().apps.open + sim.server.apps.open > 0 && sim.now < end {
                sim.run_for(ms(10));
                flood(&mut sim);
            }
            sim.check_outcomes();
        }
    }
}

/// What a session costs before it is proven: the first window of an honest client, no more.
#[test]
fn an_unproven_session_takes_only_a_small_window() {
    for seed in seeds(1) {
        for (_, server) in Options::families(false) {
            let server = Options {
                fec: None,
                rcv_wnd: 4096,
                ..server
            };
            let l = link(20, 0.0);
            let mut sim = Sim::empty("window", seed, l.clone(), l, &server);
            let mut cipher = server.cipher(server.method, 99);
            for sn in 1..3000 {
                let datagram = seal(&mut *cipher, &push(7, sn, &[0; 1200]));
                sim.inject(stranger(1), &datagram);
            }
            let key = sim.server.endpoint.sessions().next().expect("a session");
            let session = sim.server.endpoint.session(key).expect("it is there");
            let held = session.kcp().held_bytes();
            assert!(held <= 64 * 1024, "{held} bytes");
        }
    }
}

#[test]
fn sessions_are_capped_in_all() {
    for seed in seeds(1) {
        for (client, server) in Options::families(false) {
            let server = Options {
                limits: Limits {
                    sessions: 5,
                    ..Limits::default()
                },
                ..server
            };
            let l = link(20, 0.0);
            let mut sim = Sim::empty("full", seed, l.clone(), l, &server);
            for _ in 0..8 {
                let i = sim.add_client(&client);
                let pair = bulk(100, 100);
                let any = |mut p: crate::apps::Program| {
                    p.expect = crate::apps::Expect::Anything;
                    p
                };
                sim.open_on(i, (any(pair.0), any(pair.1)));
            }
            sim.run_for(secs(2));
            assert_eq!(sim.server.endpoint.sessions().count(), 5);
            assert!(sim.server.endpoint.counters().refused_sessions >= 3);
        }
    }
}

/// Endpoints of both kinds, to be fed with anything.
fn endpoints(
    method: Method,
    auto: bool,
) -> (
    fulmar_session::Endpoint,
    fulmar_session::Endpoint,
    SessionKey,
) {
    let options = Options {
        method,
        auto,
        ..Options::server()
    };
    let path = Path {
        remote: stranger(3),
        local: None,
    };
    let client = Options {
        method,
        ..Options::client()
    };
    let (client, key) = client.build_client(path, 1, 2, Instant::ZERO);
    let key = key.expect("a session");
    (options.build_server(5), client, key)
}

/// Calls everything that a driver calls, in the order that the contract wants.
fn drive(endpoint: &mut fulmar_session::Endpoint, now: Instant) {
    while !endpoint.flush(now) {
        while let Some(run) = endpoint.next_run() {
            endpoint.recycle(run);
        }
    }
    while let Some(run) = endpoint.next_run() {
        endpoint.recycle(run);
    }
    while endpoint.poll_event().is_some() {}
    assert!(endpoint.poll_timeout().is_none_or(|at| at > now));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_runs_never_panic_and_leave_nothing(
        method in 0..Method::ALL.len(),
        auto in any::<bool>(),
        runs in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..200), 0usize..80), 1..20),
    ) {
        let (mut server, mut client, _) = endpoints(Method::ALL[method], auto);
        for (i, (run, segment)) in runs.into_iter().enumerate() {
            let now = Instant::from_millis(i as u64 * 100);
            for endpoint in [&mut server, &mut client] {
                let path = Path { remote: stranger(i as u16), local: None };
                endpoint.handle_run(now, path, &mut run.clone(), segment);
                drive(endpoint, now);
            }
        }
        prop_assert_eq!(server.sessions().count(), 0);
        prop_assert_eq!(client.sessions().count(), 1);
    }

    /// Someone who has the key says anything, in KCP and below.
    #[test]
    fn sealed_nonsense_never_panics_and_takes_no_more_than_its_windows(
        bodies in prop::collection::vec(
            (0u32..3, 0u8..8, any::<u16>(), prop_oneof![0u32..40, any::<u32>()], prop_oneof![0u32..40, any::<u32>()],
             0u32..90, prop::collection::vec(any::<u8>(), 0..90), any::<u32>()),
            1..60,
        ),
        fec in any::<bool>(),
    ) {
        let options = Options { method: Method::Aes128, ..Options::server() };
        let (mut server, mut client, _) = endpoints(Method::Aes128, false);
        let mut cipher = options.cipher(Method::Aes128, 77);
        for (i, (conv, cmd, wnd, sn, una, len, payload, ts)) in bodies.into_iter().enumerate() {
            let mut body = Vec::new();
            if fec {
                body.extend((i as u32).to_le_bytes());
                body.extend([0xf1 + cmd % 3, 0]);
                body.extend((payload.len() as u16 + 26).to_le_bytes());
            }
            body.extend(conv.to_le_bytes());
            body.extend([0x50 + cmd, 0]);
            body.extend(wnd.to_le_bytes());
            body.extend(ts.to_le_bytes());
            body.extend(sn.to_le_bytes());
            body.extend(una.to_le_bytes());
            body.extend(len.to_le_bytes());
            body.extend(&payload);
            let datagram = seal(&mut *cipher, &body);
            let now = Instant::from_millis(i as u64 * 50);
            for endpoint in [&mut server, &mut client] {
                let path = Path { remote: stranger(i as u16 % 3), local: None };
                endpoint.handle_run(now, path, &mut datagram.clone(), 0);
                drive(endpoint, now);
            }
        }
        for key in server.sessions().collect::<Vec<_>>() {
            let held = server.session(key).expect("it is there").kcp().held_bytes();
            prop_assert!(held < 200_000, "{} bytes", held);
        }
    }
}
