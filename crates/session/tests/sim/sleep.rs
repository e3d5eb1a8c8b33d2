//! Ends that sleep: a stopped process, whose clock jumps when it goes on, and a suspended machine, whose clock stands still.

use std::time::Duration;

use fulmar_netem::{Path as Link, Rate};
use fulmar_session::endpoint::Event;
use fulmar_session::session::Reason;
use fulmar_wire::ended::Ended;
use fulmar_wire::kcptun::Method;
use fulmar_wire::libev;
use fulmar_wire::smux::Command;
use fulmar_wire::time::Instant;

use crate::apps::{Expect, Pair, Program, Step, bulk, requests};
use crate::harness::{Host, Sim, Sleep, link, ms, secs, seeds, stranger};
use crate::raw::{Raw, open, seal};
use crate::setup::Options;

const BOTH: [Sleep; 2] = [Sleep::Stopped, Sleep::Suspended];

fn reasons(host: &Host) -> Vec<(Instant, Reason)> {
    let closed = host.events.iter().filter_map(|(at, e)| match e {
        Event::Closed(_, _, reason) => Some((*at, reason.clone())),
        _ => None,
    });
    closed.collect()
}

/// kcptun with a cipher, with and without parity.
fn kcptun(method: Method, fec: bool) -> (Options, Options) {
    let (client, server) = Options::ends(false);
    let end = |end: Options| Options {
        method,
        fec: fec.then_some((10, 3)),
        ..end
    };
    (end(client), end(server))
}

/// Every cipher of kcptun, every variant of 2016, and mode auto of both.
fn sessions() -> Vec<(Options, Options)> {
    let ciphers = Method::ALL.into_iter().enumerate();
    let mut all: Vec<_> = ciphers.map(|(i, m)| kcptun(m, i % 2 == 0)).collect();
    all.extend(Options::dialects(false));
    all.extend(Options::families(true));
    all
}

const LIBEV: [libev::Method; 5] = [
    libev::Method::XChaCha20Poly1305,
    libev::Method::XSalsa20Poly1305,
    libev::Method::ChaCha20Poly1305,
    libev::Method::Aes256Gcm,
    libev::Method::Plain,
];

fn narrow(loss: f64) -> Link {
    Link {
        rate: Some(Rate::with_queue_time(10_000_000, ms(200))),
        ..link(30, loss)
    }
}

fn start(name: &'static str, seed: u64, loss: f64, ends: &(Options, Options)) -> Sim {
    let l = narrow(loss);
    Sim::new(name, seed, l.clone(), l, (&ends.0, &ends.1))
}

fn slept(sim: &mut Sim, how: Sleep, time: Duration) -> Instant {
    let now = sim.now;
    sim.client_mut().sleep(now, how);
    sim.run_for(time);
    let now = sim.now;
    sim.client_mut().wake(now);
    now
}

/// Connections hung for a minute after their client had slept for longer than half a minute.
#[test]
fn connections_outlive_75_seconds_of_sleep() {
    // With windows that the queue of the link holds.
    let small = |end: Options| Options {
        snd_wnd: 128,
        ..end
    };
    let mut all = vec![kcptun(Method::Aes128Gcm, false), kcptun(Method::Null, true)];
    all.extend(Options::dialects(false));
    all.extend(LIBEV.map(|method| Options::libev(method, false)));
    let mut all: Vec<_> = all.into_iter().map(|(c, s)| (small(c), small(s))).collect();
    all.extend(Options::families(true));
    all.push(Options::libev(libev::Method::Aes256Gcm, true));
    for seed in seeds(1) {
        for ends in all.iter().cloned() {
            for how in BOTH {
                let mut sim = start("short sleep", seed, 0.01, &ends);
                let idle = sim.open(requests(2, 10, 10, secs(100)));
                let chat = sim.open(requests(60, 10, 10, ms(300)));
                let down = sim.open(bulk(0, 6_000_000));
                let up = sim.open(bulk(6_000_000, 0));
                sim.run_for(secs(3));
                let woke = slept(&mut sim, how, secs(75));
                let dialect = ends.0.dialect();
                for stream in [chat, down] {
                    let before = sim.client().apps.get(stream).read;
                    let goes_on = |sim: &Sim| sim.client().apps.get(stream).read > before;
                    assert!(
                        sim.run_until(woke + secs(3), goes_on),
                        "{how:?}, {dialect}: {}",
                        sim.report()
                    );
                }
                sim.finish(secs(260));
                for host in [sim.client(), &sim.server] {
                    let bad = |(_, reason): &(Instant, Reason)| *reason != Reason::Finished;
                    assert!(!reasons(host).iter().any(bad), "{how:?}, {dialect}");
                }
                let _ = (idle, up);
            }
        }
    }
}

fn lost(steps: impl Into<Vec<Step>>) -> Pair {
    let theirs = Program::new(Expect::Lost, [Step::Write(10), Step::ReadEnd]);
    (Program::new(Expect::Lost, steps), theirs)
}

/// A client that has slept for longer than the server waits.
fn overslept(name: &'static str, seed: u64, busy: bool, ends: &(Options, Options)) -> Sim {
    let mut sim = start(name, seed, 0.05, ends);
    let steps = if busy {
        let wait = [Step::Wait(ms(400)), Step::Write(10)];
        wait.iter().cycle().take(2000).cloned().collect()
    } else {
        vec![Step::Write(10), Step::ReadEnd]
    };
    sim.open(lost(steps));
    sim.run_for(secs(20));
    assert_eq!(reasons(sim.client()), []);
    slept(&mut sim, Sleep::Suspended, secs(200));
    assert_eq!(reasons(&sim.server).len(), 1, "given up meanwhile");
    sim
}

#[test]
fn who_slept_too_long_is_told_that_the_session_is_over() {
    for seed in seeds(2) {
        for ends in sessions() {
            for (busy, limit) in [(true, secs(4)), (false, secs(14))] {
                let mut sim = overslept("long sleep", seed, busy, &ends);
                let woke = sim.now;
                let gone = |sim: &Sim| !reasons(sim.client()).is_empty();
                let dialect = ends.0.dialect();
                // Where nothing is sent, a keep-alive finds out.
                assert!(
                    sim.run_until(woke + limit, gone),
                    "{dialect}: {}",
                    sim.report()
                );
                assert_eq!(reasons(sim.client())[0].1, Reason::PeerEnded, "{dialect}");
                let told = sim.server.endpoint.counters().ended_told;
                assert!((1..=14).contains(&told), "{dialect}: {told}");
                assert_eq!(sim.client().endpoint.counters().ended_by_peer, 1);
                sim.check_outcomes();
            }
        }
    }
}

/// A process that was stopped sees by its clock that it is too late.
#[test]
fn who_was_stopped_too_long_gives_up_at_once() {
    for ends in sessions() {
        let mut sim = start("stopped", 1, 0.0, &ends);
        sim.open(lost([Step::Write(10), Step::ReadEnd]));
        sim.run_for(secs(20));
        let woke = slept(&mut sim, Sleep::Stopped, secs(200));
        let gone = |sim: &Sim| !reasons(sim.client()).is_empty();
        assert!(sim.run_until(woke + ms(100), gone), "{}", sim.report());
    }
}

/// kcptun-libev has a word of its own for it, and waits for as long as it is told.
#[test]
fn a_conversation_of_libev_that_slept_too_long_is_reset() {
    for method in LIBEV {
        for auto in [false, true] {
            let patience = (secs(60), secs(30));
            let ends = Options::libev(method, auto);
            let ends = (
                Options { patience, ..ends.0 },
                Options { patience, ..ends.1 },
            );
            for (busy, limit) in [(true, secs(3)), (false, secs(20))] {
                let mut sim = overslept("libev", 1, busy, &ends);
                let woke = sim.now;
                let gone = |sim: &Sim| !reasons(sim.client()).is_empty();
                assert!(sim.run_until(woke + limit, gone), "{}", sim.report());
                assert_eq!(reasons(sim.client())[0].1, Reason::PeerReset);
            }
        }
    }
}

/// After a long sleep the client has another address, and its datagrams arrive at another driver.
#[test]
fn who_slept_and_moved_is_told_by_the_driver_that_had_its_session() {
    for seed in seeds(2) {
        for ends in [
            kcptun(Method::Aes, true),
            kcptun(Method::Null, false),
            Options::first(false).remove(1),
        ] {
            let mut sim = Sim::empty("moved", seed, narrow(0.0), narrow(0.0), &ends.1);
            sim.share_port(4);
            sim.add_client(&ends.0);
            sim.open(lost([Step::Write(10), Step::ReadEnd]));
            sim.run_for(secs(20));
            let home = sim.steer(sim.client().addr);
            slept(&mut sim, Sleep::Suspended, secs(200));
            let elsewhere = (1..)
                .map(|port| std::net::SocketAddr::from(([198, 51, 100, 7], port)))
                .find(|a| sim.steer(*a) != home);
            sim.client_mut().addr = elsewhere.expect("one of them");
            let woke = sim.now;
            let gone = |sim: &Sim| !reasons(sim.client()).is_empty();
            assert!(sim.run_until(woke + secs(14), gone), "{}", sim.report());
            assert_eq!(reasons(sim.client())[0].1, Reason::PeerEnded);
        }
    }
}

/// The other way round: the server's machine was suspended, and the client has given up.
#[test]
fn a_server_that_slept_too_long_is_told_as_well() {
    for ends in sessions() {
        let mut sim = start("server asleep", 1, 0.0, &ends);
        sim.open(lost([Step::Write(10), Step::ReadEnd]));
        sim.run_for(secs(20));
        let now = sim.now;
        sim.server.sleep(now, Sleep::Suspended);
        sim.run_for(secs(200));
        assert_eq!(reasons(sim.client()).len(), 1);
        let woke = sim.now;
        sim.server.wake(woke);
        let gone = |sim: &Sim| !reasons(&sim.server).is_empty();
        assert!(sim.run_until(woke + secs(14), gone), "{}", sim.report());
        assert_eq!(reasons(&sim.server)[0].1, Reason::PeerEnded);
    }
}

/// A port that is silent to strangers stays silent to recordings, whatever they are of.
#[test]
fn an_outsider_who_plays_a_recording_gets_no_answer() {
    for drivers in [1, 4] {
        for ends in sessions() {
            let mut sim = Sim::empty("recording", 3, narrow(0.02), narrow(0.02), &ends.1);
            if drivers > 1 {
                sim.share_port(drivers);
            }
            sim.add_client(&ends.0);
            sim.heard = Some(Vec::new());
            sim.open(lost([Step::Write(30_000), Step::ReadEnd]));
            sim.run_for(secs(30));
            let recording = sim.heard.take().expect("it was on");
            assert!(recording.len() > 20);
            let client = sim.client().addr;
            slept(&mut sim, Sleep::Suspended, secs(200));
            sim.clients.clear();
            let sent = |sim: &Sim| sim.servers().map(|h| h.sent).sum::<u64>();
            let before = sent(&sim);
            for from in [client, stranger(5), stranger(6), stranger(7)] {
                for datagram in recording.iter().chain(recording.iter().rev()) {
                    sim.inject(from, datagram);
                }
                sim.run_for(secs(3));
            }
            let dialect = ends.0.dialect();
            assert_eq!(sent(&sim), before, "{dialect}, {drivers} drivers");
            assert_eq!(sim.server_counters().ended_told, 0);
        }
    }
}

/// What is new is answered once a second, with no more than it had, and only while it is new.
#[test]
fn answers_are_rare_and_short() {
    for ends in sessions() {
        let mut sim = overslept("answers", 1, true, &ends);
        // Nothing comes back, so the client goes on.
        for direction in [fulmar_netem::Direction::Up, fulmar_netem::Direction::Down] {
            sim.net.path_mut(direction).loss = 0.0;
        }
        sim.net.path_mut(fulmar_netem::Direction::Down).loss = 1.0;
        sim.heard = Some(Vec::new());
        sim.record = Some(Vec::new());
        let before = sim.server.sent;
        sim.run_for(secs(20));
        let answers = sim.server.sent - before;
        assert!((5..=21).contains(&answers), "{answers}");
        let heard = sim.heard.take().expect("it was on");
        let record = sim.record.take().expect("it was on");
        let of_server =
            |r: &&crate::harness::Recorded| r.direction == fulmar_netem::Direction::Down;
        let longest = record.iter().filter(of_server).map(|r| r.data.len()).max();
        let shortest = heard.iter().map(Vec::len).min();
        assert!(longest <= shortest, "{longest:?} to {shortest:?}");
        // The same once more is old.
        sim.client_mut().sleep(Instant::ZERO, Sleep::Suspended);
        let before = sim.server.sent;
        for _ in 0..3 {
            for datagram in &heard {
                sim.inject(stranger(5), datagram);
            }
            sim.run_for(secs(3));
        }
        assert_eq!(sim.server.sent, before);
    }
}

/// Somebody who has the key, but not the token, ends nothing.
#[test]
fn a_forged_end_is_ignored() {
    for ends in sessions() {
        let mut sim = start("forged", 1, 0.0, &ends);
        sim.open(requests(40, 100, 100, ms(200)));
        sim.run_for(secs(2));
        let conv = sim.clients[0].conv;
        let mut cipher = ends.0.cipher(ends.0.method, 99);
        let (server, client) = (sim.server.addr, sim.client().addr);
        for token in (0..300).chain([u64::MAX, u64::from(conv)]) {
            let forged = seal(&mut *cipher, &Ended { conv, token }.to_bytes());
            sim.inject(client, &forged);
            sim.inject(stranger(1), &forged);
            let now = sim.now;
            let path = fulmar_session::transmit::Path {
                remote: server,
                local: None,
            };
            let client = sim.client_mut();
            client
                .endpoint
                .handle_run(now, path, &mut forged.clone(), 0);
        }
        sim.finish(secs(20));
        for host in [sim.client(), &sim.server] {
            assert_eq!(host.endpoint.counters().ended_by_peer, 0);
            assert!(host.endpoint.counters().stranger_datagrams >= 300);
        }
    }
}

/// The end of one session is told with the token of that session, so that it is of no use in another one.
#[test]
fn every_session_has_a_token_of_its_own() {
    for ends in [kcptun(Method::Aes, false), Options::first(false).remove(0)] {
        let mut tokens = std::collections::BTreeSet::new();
        for seed in 1..5 {
            let mut sim = overslept("tokens", seed, true, &ends);
            sim.record = Some(Vec::new());
            let end = sim.now + secs(4);
            sim.run_until(end, |sim| !reasons(sim.client()).is_empty());
            let mut cipher = ends.0.cipher(ends.0.method, 99);
            for sent in sim.record.take().expect("it was on") {
                let body = open(&mut *cipher, &sent.data);
                if let Some(ended) = body.and_then(|body| Ended::parse(&body)) {
                    assert_eq!(ended.conv, sim.clients[0].conv);
                    tokens.insert(ended.token);
                }
            }
        }
        assert_eq!(tokens.len(), 4, "{tokens:x?}");
    }
}

/// With an end that gives no tokens everything is as it was: half a minute to a minute of patience, and nothing is told.
#[test]
fn ends_without_tokens_go_on_as_before() {
    let without = |end: Options| Options {
        tokens: false,
        ..end
    };
    for (client, server) in Options::dialects(false) {
        for ends in [
            (without(client.clone()), server.clone()),
            (client.clone(), without(server.clone())),
            (without(client.clone()), without(server.clone())),
        ] {
            let mut sim = start("before", 1, 0.0, &ends);
            sim.open(lost([Step::Write(10), Step::ReadEnd]));
            sim.run_for(secs(20));
            let asleep = sim.now;
            let woke = slept(&mut sim, Sleep::Suspended, secs(200));
            let old = without(ends.0.clone()).silence();
            let (at, _) = reasons(&sim.server)[0].clone();
            assert!(old.contains(&(at - asleep)), "{:?}", at - asleep);
            let before = sim.server.sent;
            sim.run_for(secs(90));
            let (at, reason) = reasons(sim.client())[0].clone();
            assert!(matches!(reason, Reason::Layer(_)), "{reason}");
            assert!(at - woke <= *old.end(), "{:?}", at - woke);
            assert_eq!(sim.server.sent, before, "nobody is told");
        }
    }
}

/// A client that is no Fulmar hears nothing new, while its session lives and afterwards.
#[test]
fn a_peer_that_is_no_fulmar_is_told_nothing() {
    for smux in [1, 2] {
        let options = Options {
            smux,
            fec: None,
            ..Options::server()
        };
        let mut sim = Sim::empty("plain peer", 1, link(10, 0.0), link(10, 0.0), &options);
        let mut raw = Raw::new(&options, stranger(1), 77);
        sim.expect_stream(77, 3, Program::new(Expect::Lost, []).unchecked());
        raw.frame(Command::Syn, 3, 0, &[]);
        raw.live(&mut sim, 100);
        // Silent for as long as it takes.
        sim.run_for(secs(70));
        assert_eq!(sim.server.endpoint.sessions().count(), 0);
        let before = sim.server.sent;
        for _ in 0..50 {
            raw.frame(Command::Nop, 0, 0, &[]);
            raw.live(&mut sim, 20);
        }
        assert_eq!(sim.server.sent, before);
        assert_eq!(sim.server.endpoint.counters().ended_told, 0);
    }
}
