//! Ends that are configured differently: what can be seen is followed, what cannot is named.

use fulmar_arq::{Config, Flush, Kcp, Origin};
use fulmar_cipher::Scheme;
use fulmar_session::Reason;
use fulmar_session::diagnosis::Suspicion;
use fulmar_session::endpoint::Event;
use fulmar_session::layer::Notice;
use fulmar_session::transmit::Path;
use fulmar_wire::kcptun::Method;
use fulmar_wire::time::Instant;

use crate::apps::{Expect, Program, Step, bulk, half_close, requests};
use crate::harness::{Host, Sim, at, link, ms, secs, seeds, stranger};
use crate::raw;
use crate::setup::{OTHER_KEY, Options};

fn notices(host: &Host) -> Vec<Notice> {
    let notice = |e: &Event| match e {
        Event::Notice(_, Notice::PeerIsFulmar) => None,
        Event::Notice(_, notice) => Some(notice.clone()),
        _ => None,
    };
    host.events.iter().filter_map(|(_, e)| notice(e)).collect()
}

fn suspicion(e: &Event) -> Option<Suspicion> {
    match e {
        Event::Suspicion(_, s) | Event::Stranger(_, s) => Some(s.clone()),
        _ => None,
    }
}

#[test]
fn a_server_adapts_to_compression_and_smux_version() {
    for seed in seeds(2) {
        for (ours, theirs) in [(1, 2), (2, 1), (1, 1), (2, 2)] {
            for (our_comp, their_comp) in [(true, false), (false, true), (true, true)] {
                let client = Options {
                    smux: theirs,
                    compression: their_comp,
                    ..Options::client()
                };
                let server = Options {
                    smux: ours,
                    compression: our_comp,
                    ..Options::server()
                };
                let l = link(20, 0.1);
                let mut sim = Sim::new("adapt", seed, l.clone(), l, (&client, &server));
                sim.open(bulk(50_000, 50_000));
                sim.open(half_close(5000, 9000, ms(100)));
                sim.finish(secs(20));
                let mut expected = Vec::new();
                if ours != theirs {
                    expected.push(Notice::SmuxVersion { theirs, ours });
                }
                if our_comp != their_comp {
                    expected.push(Notice::Compression {
                        theirs: their_comp,
                        ours: our_comp,
                    });
                }
                let mut told = notices(&sim.server);
                told.sort_by_key(|n| matches!(n, Notice::Compression { .. }));
                assert_eq!(told, expected);
                assert_eq!(notices(sim.client()), []);
            }
        }
    }
}

/// A client that gets no session; what each end suspects, and after how many milliseconds.
fn suspicions(
    name: &'static str,
    seed: u64,
    client: &Options,
    server: &Options,
) -> [Option<(u64, Suspicion)>; 2] {
    let l = link(20, 0.02);
    let mut sim = Sim::new(name, seed, l.clone(), l, (client, server));
    let start = sim.now;
    let lost = Program::new(Expect::Lost, [Step::Write(300), Step::ReadEnd]);
    sim.open((lost.clone(), lost));
    sim.run_for(secs(9));
    assert_eq!(sim.server.endpoint.counters().curr_estab, 0);
    [sim.client(), &sim.server].map(|host| {
        let found: Vec<_> = host
            .events
            .iter()
            .filter_map(|(_, e)| suspicion(e))
            .collect();
        assert!(found.len() <= 1, "told once: {found:?}");
        let (at, suspicion) = host.first(suspicion)?;
        let after = u64::try_from((at - start).as_millis()).expect("not long");
        Some((after, suspicion))
    })
}

#[test]
fn another_key_is_named_by_both_ends() {
    for seed in seeds(1) {
        for method in Method::ALL {
            // `none` and `null` have no key.
            if method.is_plaintext() {
                continue;
            }
            for auto in [false, true] {
                let client = Options {
                    method,
                    key: OTHER_KEY,
                    ..Options::client()
                };
                let server = Options {
                    method,
                    auto,
                    ..Options::server()
                };
                let [at_client, at_server] = suspicions("key", seed, &client, &server);
                let (after, what) = at_client.expect("the client says something");
                assert_eq!(what, Suspicion::Silence, "{method:?}");
                assert!(after < 4000, "{after}");
                let (after, what) = at_server.expect("the server says something");
                assert_eq!(what, Suspicion::NothingOpens, "{method:?}");
                assert!(after < 1000, "{after}");
            }
        }
    }
}

#[test]
fn another_cipher_is_named_by_the_server() {
    for seed in seeds(1) {
        for ours in Method::ALL {
            for theirs in Method::ALL {
                if ours == theirs {
                    continue;
                }
                let client = Options {
                    method: theirs,
                    // The first datagram is recognised with and without FEC.
                    fec: (ours.name().len() % 2 == 0).then_some((10, 3)),
                    ..Options::client()
                };
                let server = Options {
                    method: ours,
                    ..Options::server()
                };
                let [at_client, at_server] = suspicions("cipher", seed, &client, &server);
                let (after, what) = at_client.expect("the client says something");
                assert_eq!(what, Suspicion::Silence, "{theirs:?} at {ours:?}");
                assert!(after < 4000, "{after}");
                let (after, what) = at_server
                    .unwrap_or_else(|| panic!("{theirs:?} at {ours:?}: the server says something"));
                let [theirs, ours] = [theirs, ours].map(Scheme::Kcptun);
                assert_eq!(what, Suspicion::OtherCipher { theirs, ours });
                assert!(after < 1000, "{after}");
            }
        }
    }
}

#[test]
fn no_server_at_all_is_named() {
    for seed in seeds(1) {
        let gone = link(20, 1.0);
        let (client, server) = (Options::client(), Options::server());
        let mut sim = Sim::new("no server", seed, gone.clone(), gone, (&client, &server));
        let lost = Program::new(Expect::Lost, [Step::Write(300), Step::ReadEnd]);
        let start = sim.now;
        sim.open((lost.clone(), lost));
        sim.run_for(secs(40));
        let host = sim.client();
        let (at, what) = host.first(suspicion).expect("it says something");
        assert_eq!(what, Suspicion::Silence);
        assert!(at - start < secs(4));
        let suspect = host.times_of(|e| matches!(e, Event::Suspect(_)));
        assert_eq!(suspect.len(), 1);
        assert!(suspect[0] - start < secs(3));
        let closed = host.times_of(|e| matches!(e, Event::Closed(..)));
        assert_eq!(closed.len(), 1);
        assert!(closed[0] - start <= secs(31));
        assert_eq!(host.endpoint.poll_timeout(), None);
    }
}

/// What a server of the old kind does when smux version or compression differ: it acknowledges the first bytes, ends its
/// session without a word, and answers what follows from a session that has nothing (docs/spec/kcptun.md, section 15).
#[test]
fn a_server_that_takes_the_datagrams_and_drops_the_streams_is_named() {
    let options = Options {
        fec: None,
        ..Options::client()
    };
    let path = Path {
        remote: stranger(1),
        local: None,
    };
    let (mut client, key) = options.build_client(path, 9, 1, at(0));
    let key = key.expect("a session");
    let mut cipher = options.cipher(options.method, 2);
    let mut server: Option<Kcp> = None;
    let mut answers: Vec<(Instant, Vec<u8>)> = Vec::new();
    let mut told = Vec::new();
    for now in (0..5000).map(at) {
        if now.as_millis() % 400 == 0 {
            // Ends with the session.
            let _ = client.open_stream(now, key);
        }
        for (_, mut datagram) in answers.extract_if(.., |(due, _)| *due <= now) {
            client.handle_run(now, path, &mut datagram, 0);
        }
        assert!(client.flush(now));
        while let Some(run) = client.next_run() {
            for datagram in run.data().chunks(run.segment()) {
                let body = raw::open(&mut *cipher, datagram).expect("the same key");
                let first = server.is_none() && now == at(0);
                let kcp = server.get_or_insert_with(|| Kcp::new(9, Config::default()));
                kcp.handle_datagram(now, &body, Origin::Wire)
                    .expect("sound");
                let mut out = raw::Datagrams::default();
                kcp.flush(now, Flush::Full, &mut out);
                for body in out.done {
                    let datagram = raw::seal(&mut *cipher, &body);
                    answers.push((now + ms(40), datagram));
                }
                if first {
                    server = None;
                }
            }
            client.recycle(run);
        }
        while let Some(event) = client.poll_event() {
            told.push((now, event));
        }
    }
    let named = told.iter().find_map(|(at, e)| Some((*at, suspicion(e)?)));
    let (when, what) = named.expect("it says something");
    assert_eq!(what, Suspicion::StreamsRefused);
    assert!(when <= at(1500), "{when:?}");
    let (_, last) = told.last().expect("it ended");
    assert!(matches!(last, Event::Closed(_, _, Reason::PeerLostState)));
    assert_eq!(client.poll_timeout(), None);
}

/// Answers that do not open: a server of another key or cipher that speaks all the same.
#[test]
fn answers_that_do_not_open_are_named() {
    let server = Options::server();
    let other_key = Options {
        key: OTHER_KEY,
        ..server.clone()
    };
    let other_cipher = Suspicion::OtherCipher {
        theirs: Scheme::Kcptun(Method::Twofish),
        ours: Scheme::Kcptun(Method::Aes),
    };
    for (theirs, method, expected) in [
        (&other_key, Method::Aes, Suspicion::NothingOpens),
        (&server, Method::Twofish, other_cipher),
    ] {
        let path = Path {
            remote: stranger(1),
            local: None,
        };
        let (mut client, key) = Options::client().build_client(path, 9, 1, at(0));
        let key = key.expect("a session");
        client.open_stream(at(0), key).expect("a stream");
        let mut cipher = theirs.cipher(method, 3);
        let mut told = Vec::new();
        for now in (0..5000).map(at) {
            if now.as_millis() % 100 == 50 {
                let mut answer = raw::seal(&mut *cipher, &[0x51; 60]);
                client.handle_run(now, path, &mut answer, 0);
            }
            assert!(client.flush(now));
            while let Some(run) = client.next_run() {
                client.recycle(run);
            }
            while let Some(event) = client.poll_event() {
                told.extend(suspicion(&event).map(|s| (now, s)));
            }
        }
        assert_eq!(told, [(at(3000), expected)]);
    }
}

#[test]
fn auto_takes_clients_of_all_ciphers_at_once() {
    for seed in seeds(1) {
        let server = Options {
            auto: true,
            ..Options::server()
        };
        let l = link(20, 0.02);
        let mut sim = Sim::empty("auto", seed, l.clone(), l, &server);
        for (i, method) in Method::ALL.into_iter().enumerate() {
            let client = Options {
                method,
                fec: (i % 2 == 0).then_some((10, 3)),
                ..Options::client()
            };
            let i = sim.add_client(&client);
            sim.open_on(i, bulk(20_000, 20_000));
            sim.open_on(i, requests(3, 50, 50, ms(10)));
        }
        sim.finish(secs(10));
        assert_eq!(sim.server.endpoint.sessions().count(), Method::ALL.len());
    }
}
