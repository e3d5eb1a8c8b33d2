//! kcptun-libev: a conversation for each stream, over the same network and with the same applications as kcptun.

use std::net::SocketAddr;
use std::time::Duration;

use fulmar_netem::{Direction, Path as Link, Rate};
use fulmar_session::endpoint::Event;
use fulmar_session::session::{Reason, Session};
use fulmar_wire::kcp::{Command, Format, Header};
use fulmar_wire::libev::{Method, Session0};
use fulmar_wire::seq::Seq;
use fulmar_wire::time::Millis;

use crate::apps::{Expect, Program, Step, bulk, requests};
use crate::harness::{Sim, link, ms, secs, seeds, stranger};
use crate::matrix::{bad, load};
use crate::setup::{Options, libev_cipher};

const METHODS: [Method; 5] = [
    Method::XChaCha20Poly1305,
    Method::XSalsa20Poly1305,
    Method::ChaCha20Poly1305,
    Method::Aes256Gcm,
    Method::Plain,
];

fn pair(name: &'static str, seed: u64, link: &Link, ends: &(Options, Options)) -> Sim {
    Sim::new(name, seed, link.clone(), link.clone(), (&ends.0, &ends.1))
}

fn with_patience(ends: (Options, Options), timeout: u64, linger: u64) -> (Options, Options) {
    let patience = (secs(timeout), secs(linger));
    let set = |end: Options| Options { patience, ..end };
    (set(ends.0), set(ends.1))
}

/// Both senders: upstream's and ours.
fn both(method: Method) -> impl Iterator<Item = (Options, Options)> {
    [false, true]
        .into_iter()
        .map(move |auto| Options::libev(method, auto))
}

fn reasons(host: &crate::harness::Host) -> Vec<Reason> {
    let closed = host.events.iter().filter_map(|(_, e)| match e {
        Event::Closed(_, _, reason) => Some(reason.clone()),
        _ => None,
    });
    closed.collect()
}

#[test]
fn all_methods_carry_everything_and_leave_nothing() {
    for seed in seeds(1) {
        for method in METHODS {
            for ends in both(method) {
                let link = bad(method != Method::Plain);
                let mut sim = pair("libev", seed, &link, &ends);
                for pair in load() {
                    sim.open(pair);
                }
                sim.finish(secs(60));
                assert_eq!(sim.server.endpoint.counters().passive_opens, 5);
                assert_eq!(sim.server.endpoint.counters().streams_reset, 0);
                // Sessions linger, and go.
                sim.run_for(secs(40));
                for host in [sim.client(), &sim.server] {
                    assert_eq!(host.endpoint.sessions().count(), 0, "{}", sim.report());
                    assert!(reasons(host).iter().all(|r| *r == Reason::Finished));
                }
            }
        }
    }
}

/// The request is a datagram, and so is the answer: no handshake before, no interval to wait for.
#[test]
fn an_exchange_on_a_new_stream_takes_one_round_trip() {
    for ends in both(Method::XChaCha20Poly1305) {
        let mut sim = pair("first byte", 1, &link(50, 0.0), &ends);
        sim.run_for(secs(1));
        let start = sim.now;
        let (at, id) = sim.open(requests(1, 100, 100, ms(0)));
        let read = |sim: &Sim| sim.client().apps.get((at, id)).read > 0;
        assert!(sim.run_until(start + secs(2), read));
        assert!(sim.now - start <= ms(102), "{:?}", sim.now - start);
    }
}

#[test]
fn a_client_that_changes_its_address_keeps_every_stream() {
    for seed in seeds(2) {
        for method in METHODS.into_iter().filter(|m| *m != Method::Plain) {
            for ends in both(method) {
                let mut sim = pair("roaming", seed, &link(30, 0.02), &ends);
                for _ in 0..3 {
                    sim.open(bulk(300_000, 300_000));
                    sim.open(requests(300, 50, 200, ms(20)));
                }
                let idle = sim.open(requests(2, 50, 200, secs(20)));
                sim.run_for(ms(700));
                for port in 0..3 {
                    sim.clients[0].host.addr = SocketAddr::from(([10, 0, 7, 1], 1000 + port));
                    sim.run_for(secs(1));
                }
                sim.finish(secs(90));
                let counters = sim.server.endpoint.counters();
                assert_eq!(counters.passive_opens, 7, "no ghosts");
                assert!(counters.moved_peers >= 7, "{counters:?}");
                assert!(sim.client().apps.get(idle).read > 0);
            }
        }
    }
}

/// Without a key anybody could say where a client is: it is told that nobody knows it there, and opens anew.
#[test]
fn without_encryption_a_client_that_moves_is_told_so() {
    for ends in both(Method::Plain) {
        let narrow = Link {
            rate: Some(Rate::with_queue_time(20_000_000, ms(100))),
            ..link(30, 0.0)
        };
        let mut sim = pair("plain roaming", 3, &narrow, &ends);
        let lost = |n| Program::new(Expect::Lost, [Step::Write(n), Step::ReadEnd]);
        sim.open((lost(50_000_000), lost(50_000_000)));
        sim.run_for(secs(2));
        sim.clients[0].host.addr = stranger(1);
        let gone = |sim: &Sim| !reasons(sim.client()).is_empty();
        let start = sim.now;
        assert!(sim.run_until(start + secs(5), gone), "{}", sim.report());
        assert_eq!(reasons(sim.client()), [Reason::PeerReset]);
        sim.open(bulk(1000, 1000));
    }
}

#[test]
fn a_restarted_server_is_noticed_at_once_and_new_streams_work() {
    for seed in seeds(2) {
        for ends in both(Method::Aes256Gcm) {
            let narrow = Link {
                rate: Some(Rate::with_queue_time(20_000_000, ms(100))),
                ..link(30, 0.05)
            };
            let mut sim = pair("restart", seed, &narrow, &ends);
            let lost = |n| Program::new(Expect::Lost, [Step::Write(n), Step::ReadEnd]);
            for _ in 0..3 {
                sim.open((lost(50_000_000), lost(50_000_000)));
            }
            // Nothing to send at all.
            let idle = Program::new(Expect::Lost, [Step::Write(10), Step::ReadEnd]);
            sim.open((idle.clone(), idle));
            sim.run_for(secs(3));
            sim.restart_server();
            let start = sim.now;
            let gone = |n: usize| move |sim: &Sim| reasons(sim.client()).len() >= n;
            assert!(sim.run_until(start + secs(5), gone(3)), "{}", sim.report());
            assert!(sim.run_until(start + secs(40), gone(4)), "{}", sim.report());
            for reason in reasons(sim.client()) {
                assert!(matches!(reason, Reason::PeerReset | Reason::PeerLostState));
            }
            // No ghosts.
            assert_eq!(sim.server.endpoint.counters().passive_opens, 0);
            sim.open(bulk(10_000, 10_000));
            sim.finish(secs(20));
        }
    }
}

#[test]
fn a_restarted_client_makes_the_server_forget_its_streams() {
    for ends in both(Method::XSalsa20Poly1305) {
        let narrow = Link {
            rate: Some(Rate::with_queue_time(20_000_000, ms(100))),
            ..link(30, 0.0)
        };
        let mut sim = pair("client restart", 5, &narrow, &ends);
        let lost = |n| Program::new(Expect::Lost, [Step::Write(n), Step::ReadEnd]);
        sim.open((lost(50_000_000), lost(50_000_000)));
        sim.run_for(secs(2));
        // Killed: nothing is said. Another one comes up on the same port.
        let addr = sim.client().addr;
        sim.clients.clear();
        sim.add_client_at(addr, &ends.0);
        let start = sim.now;
        let gone = |sim: &Sim| reasons(&sim.server) == [Reason::PeerReset];
        assert!(sim.run_until(start + secs(5), gone), "{}", sim.report());
        sim.open(bulk(10_000, 10_000));
        sim.finish(secs(20));
    }
}

/// Whatever takes longer than `timeout` in one direction goes on.
#[test]
fn one_way_transfers_outlive_the_timeout() {
    for ends in both(Method::ChaCha20Poly1305) {
        let ends = with_patience(ends, 60, 5);
        for pair_of in [bulk(0, 6_000_000), bulk(6_000_000, 0)] {
            let slow = Link {
                delay: ms(20),
                rate: Some(Rate::with_queue_time(400_000, secs(1))),
                ..Link::default()
            };
            let mut sim = pair("one way", 1, &slow, &ends);
            sim.open(pair_of);
            let took = sim.finish(secs(600));
            assert!(took > secs(110), "{took:?}");
        }
    }
}

#[test]
fn idle_streams_live_and_cost_little() {
    for ends in both(Method::XChaCha20Poly1305) {
        let ends = with_patience(ends, 60, 30);
        let mut sim = pair("idle", 1, &link(30, 0.1), &ends);
        let at: Vec<_> = (0..20)
            .map(|_| sim.open(requests(2, 100, 100, secs(400))))
            .collect();
        sim.run_for(secs(10));
        let sent = sim.client().sent + sim.server.sent;
        sim.run_for(secs(300));
        assert_eq!(sim.client().endpoint.sessions().count(), at.len());
        // A keep-alive every 15 seconds and its echo, with what loss and acknowledgements add.
        let each = (sim.client().sent + sim.server.sent - sent) / at.len() as u64;
        assert!((60..200).contains(&each), "{each}");
        sim.finish(secs(700));
    }
}

/// A peer that has gone for good is given up after the timeout, by both ends, and not before.
#[test]
fn silence_ends_a_stream_after_the_timeout() {
    for ends in both(Method::Aes256Gcm) {
        let ends = with_patience(ends, 60, 30);
        let mut sim = pair("silence", 1, &link(30, 0.0), &ends);
        let lost = |n| Program::new(Expect::Lost, [Step::Write(n), Step::ReadEnd]);
        sim.open((lost(10), lost(10)));
        sim.run_for(secs(5));
        for direction in [Direction::Up, Direction::Down] {
            sim.net.path_mut(direction).loss = 1.0;
        }
        let start = sim.now;
        sim.run_for(secs(45));
        assert!(reasons(sim.client()).is_empty() && reasons(&sim.server).is_empty());
        let gone = |sim: &Sim| reasons(sim.client()).len() + reasons(&sim.server).len() == 2;
        assert!(sim.run_until(start + secs(66), gone), "{}", sim.report());
    }
}

#[test]
fn a_cut_is_told_and_seen_at_once() {
    for ends in both(Method::XChaCha20Poly1305) {
        for ours in [true, false] {
            let mut sim = pair("cut", 1, &link(30, 0.0), &ends);
            let cut = Program::new(
                Expect::Cut,
                [Step::Write(5000), Step::Wait(secs(1)), Step::Reset],
            );
            let sees = Program::new(Expect::Lost, [Step::Write(5000), Step::ReadEnd]);
            let at = sim.now;
            sim.open(if ours { (cut, sees) } else { (sees, cut) });
            let gone = |sim: &Sim| reasons(sim.client()).len() + reasons(&sim.server).len() == 2;
            assert!(sim.run_until(at + ms(1300), gone), "{}", sim.report());
            let told = if ours { &sim.server } else { sim.client() };
            assert_eq!(reasons(told), [Reason::PeerReset]);
            assert_eq!(told.endpoint.counters().resets_received, 1);
        }
    }
}

#[test]
fn what_comes_back_to_its_sender_is_refused() {
    for method in METHODS.into_iter().filter(|m| *m != Method::Plain) {
        let ends = Options::libev(method, true);
        let mut sim = pair("reflection", 1, &link(30, 0.0), &ends);
        sim.record = Some(Vec::new());
        sim.open(bulk(20_000, 20_000));
        sim.finish(secs(10));
        let record = sim.record.take().expect("it was on");
        let (now, server) = (sim.now, sim.server.addr);
        let mut reflected = [0, 0];
        for datagram in &record {
            let mut data = datagram.data.clone();
            let path = |remote| fulmar_session::transmit::Path {
                remote,
                local: None,
            };
            let client_addr = sim.client().addr;
            if datagram.direction == Direction::Up {
                sim.client_mut()
                    .endpoint
                    .handle_run(now, path(server), &mut data, 0);
                reflected[0] += 1;
            } else {
                sim.server
                    .endpoint
                    .handle_run(now, path(client_addr), &mut data, 0);
                reflected[1] += 1;
            }
        }
        let counted =
            [sim.client(), &sim.server].map(|h| h.endpoint.counters().reflected_datagrams);
        assert_eq!(counted, reflected);
        sim.run_for(secs(40));
        assert!(reasons(sim.client()).iter().all(|r| *r == Reason::Finished));
    }
}

#[test]
fn a_recording_opens_nothing() {
    for method in METHODS.into_iter().filter(|m| *m != Method::Plain) {
        let ends = with_patience(Options::libev(method, true), 60, 5);
        let mut sim = pair("replay", 1, &link(30, 0.05), &ends);
        sim.heard = Some(Vec::new());
        sim.open(bulk(300_000, 30_000));
        sim.finish(secs(10));
        let heard = sim.heard.take().expect("it was on");
        for round in 0..3 {
            for datagram in &heard {
                sim.inject(stranger(round), datagram);
                let same = sim.client().addr;
                sim.inject(same, datagram);
            }
            // While the session lingers, when it is remembered, and when it is forgotten.
            sim.run_for(secs(130));
        }
        let counters = sim.server.endpoint.counters();
        assert_eq!(
            (counters.passive_opens, counters.moved_peers),
            (1, 0),
            "{counters:?}"
        );
        assert_eq!(counters.streams_opened, 1);
    }
}

/// One plain segment of a conversation that is not known.
fn segment(conv: u32, command: Command, sn: u32, una: u32, data: &[u8]) -> Vec<u8> {
    segment_at(77, conv, command, sn, una, data)
}

fn segment_at(ts: u32, conv: u32, command: Command, sn: u32, una: u32, data: &[u8]) -> Vec<u8> {
    let header = Header {
        conv,
        command,
        frg: 0,
        wnd: 256,
        ts: Millis(ts),
        sn: Seq(sn),
        una: Seq(una),
        len: data.len() as u32,
    };
    let mut out = Format::BigEndian.emit(&header).to_vec();
    out.extend_from_slice(data);
    out
}

#[test]
fn only_a_first_flight_opens_and_everything_else_is_told_that_it_is_unknown() {
    let ends = Options::libev(Method::Plain, false);
    let mut sim = pair("strangers", 1, &link(5, 0.0), &ends);
    let from = stranger(9);
    for (what, answered) in [
        (segment(1, Command::Push, 3, 9, b"x"), true),
        (segment(2, Command::Ack, 0, 0, b""), true),
        (segment(3, Command::WindowAsk, 0, 0, b""), true),
        (segment(4, Command::Push, 128, 0, b"x"), true),
        (vec![0, 0, 0, 5], false),
        (segment(6, Command::Push, 0, 0, b"x")[..20].to_vec(), false),
        (vec![1, 2], false),
    ] {
        sim.strays.clear();
        sim.inject(from, &what);
        sim.run_for(secs(1));
        let answers: Vec<_> = sim.strays.iter().map(|d| d.data.clone()).collect();
        let conv = u32::from_be_bytes([0, 0, 0, *what.get(3).unwrap_or(&0)]);
        let mut reset = Vec::new();
        Session0::Reset { conv }.emit(&mut reset);
        let expected: &[_] = if answered { &[reset] } else { &[] };
        assert_eq!(answers, expected, "{what:?}");
        assert_eq!(sim.server.endpoint.sessions().count(), 0);
    }
    // A flood of them is not answered without end, and nothing is kept.
    for conv in 1..5000 {
        sim.inject(from, &segment(conv, Command::Ack, 0, 0, b""));
    }
    sim.run_for(ms(500));
    assert!(sim.strays.len() <= 300, "{}", sim.strays.len());
    // So many that begin are not kept either.
    for conv in 10_000..15_000 {
        sim.inject(from, &segment(conv, Command::Push, 0, 0, &[0, 1]));
    }
    let most = ends.1.limits.unproven_per_ip;
    assert!(sim.server.endpoint.sessions().count() <= most);
    sim.run_for(secs(12));
    assert_eq!(sim.server.endpoint.sessions().count(), 0);
}

/// A number belongs to an address: two clients may have the same.
#[test]
fn two_clients_may_have_the_same_number() {
    let ends = Options::libev(Method::Plain, false);
    let mut sim = pair("twins", 1, &link(5, 0.0), &ends);
    let dial = [0, 0, 0, 4];
    let convs = |sim: &Sim| -> Vec<u32> {
        let server = &sim.server.endpoint;
        let all = server.sessions().filter_map(|k| server.session(k));
        all.map(Session::conv).collect()
    };
    for i in 0..3 {
        sim.expect_stream(77, 77, Program::new(Expect::Anything, [Step::ReadEnd]));
        sim.inject(stranger(i), &segment(77, Command::Push, 0, 0, &dial));
    }
    assert_eq!(convs(&sim), [77, 77, 77]);
    // A reset of one, from where it is, and from elsewhere.
    let mut reset = Vec::new();
    Session0::Reset { conv: 77 }.emit(&mut reset);
    sim.inject(stranger(7), &reset);
    assert_eq!(convs(&sim).len(), 3);
    sim.inject(stranger(1), &reset);
    assert_eq!(convs(&sim).len(), 2);
    // It is remembered: what comes late does not begin it again.
    sim.inject(stranger(1), &segment(77, Command::Push, 0, 0, &dial));
    assert_eq!(convs(&sim).len(), 2);
    sim.run_for(Duration::from_secs(1));
}

/// Bytes that arrive at the server from these places, each with a session of the same number.
fn heard_from(sim: &mut Sim, places: &[u16], sn: u32) -> u64 {
    sim.run_for(secs(1));
    let before = sim.server.endpoint.counters().bytes_received;
    for &i in places {
        let data = segment(77, Command::Push, sn, 1, &[0, 1, 0, 5, b'x']);
        sim.inject(stranger(i), &data);
    }
    sim.run_for(secs(1));
    sim.server.endpoint.counters().bytes_received - before
}

/// Two peers with one number: when the first of them ends, datagrams of the others were answered with RESET.
#[test]
fn a_session_is_not_lost_with_another_of_the_same_number() {
    let ends = Options::libev(Method::Plain, false);
    for first_to_go in 0..3 {
        let mut sim = pair("lost twin", 1, &link(5, 0.0), &ends);
        for i in 0..3 {
            sim.expect_stream(
                77,
                77,
                Program::new(Expect::Anything, [Step::ReadEnd]).unchecked(),
            );
            sim.inject(
                stranger(i),
                &segment(77, Command::Push, 0, 0, &[0, 0, 0, 4]),
            );
        }
        let all = heard_from(&mut sim, &[0, 1, 2], 1);
        let mut reset = Vec::new();
        Session0::Reset { conv: 77 }.emit(&mut reset);
        sim.inject(stranger(first_to_go), &reset);
        let left: Vec<u16> = (0..3).filter(|i| *i != first_to_go).collect();
        sim.strays.clear();
        let bytes = heard_from(&mut sim, &left, 2);
        assert_eq!(bytes, all / 3 * 2, "after {first_to_go} ended");
        assert!(!sim.strays.iter().any(|d| d.data == reset), "told to go");
        // The same with the second of them.
        sim.inject(stranger(left[1]), &reset);
        assert_eq!(heard_from(&mut sim, &left[..1], 3), all / 3);
        assert_eq!(sim.server.endpoint.sessions().count(), 1);
    }
}

/// A copy that overtook the opening, or an opening that got lost and was sent again later by somebody else, began a second conversation of that
/// number at another address: the target was dialled and told twice, and what it answered there could be mixed into the first.
#[test]
fn an_opening_that_was_copied_or_kept_back_opens_nothing_elsewhere() {
    for method in Method::SEALED {
        for ends in both(method) {
            let mut sim = pair("copies", 1, &link(5, 0.0), &ends);
            let mut cipher = libev_cipher(method, 99);
            let mut open = |sim: &mut Sim, i: u16, ts: u32| {
                let opening = segment_at(ts, 77, Command::Push, 0, 0, &[0, 0, 0, 4]);
                let program = Program::new(Expect::Anything, [Step::ReadEnd]).unchecked();
                sim.expect_stream(77, 77, program);
                // A client seals what it sends again with another nonce.
                sim.inject(stranger(i), &crate::raw::seal(&mut *cipher, &opening));
                let counters = sim.server.endpoint.counters();
                (counters.curr_estab, counters.passive_opens)
            };
            assert_eq!(open(&mut sim, 0, 1000), (1, 1));
            assert_eq!(open(&mut sim, 1, 1200), (1, 1));
            // Somebody else who has drawn the same number has another clock.
            assert_eq!(open(&mut sim, 2, 1_000_000_000), (2, 2));
            let keys: Vec<_> = sim.server.endpoint.sessions().collect();
            for key in keys {
                sim.server.endpoint.close_session(key);
            }
            sim.settle();
            sim.strays.clear();
            assert_eq!(open(&mut sim, 3, 1300), (0, 2));
            sim.run_for(ms(10));
            assert!(sim.strays.iter().any(|d| d.to == stranger(3)), "told");
            // As long as its end is remembered.
            sim.run_for(secs(121));
            assert_eq!(open(&mut sim, 4, 1300), (1, 3));
        }
    }
}

/// What comes from a new place and could be of either of two sessions goes into neither.
#[test]
fn nobody_is_followed_whose_number_is_shared() {
    for ends in both(Method::Aes256Gcm) {
        let mut sim = pair("moving twin", 1, &link(5, 0.0), &ends);
        let mut cipher = libev_cipher(Method::Aes256Gcm, 99);
        let mut seal = |body: &[u8]| crate::raw::seal(&mut *cipher, body);
        for i in 0..2 {
            sim.expect_stream(
                77,
                77,
                Program::new(Expect::Anything, [Step::ReadEnd]).unchecked(),
            );
            // Their clocks are not the same.
            let ts = 77 + 10_000_000 * u32::from(i);
            let opening = segment_at(ts, 77, Command::Push, 0, 0, &[0, 0, 0, 4]);
            sim.inject(stranger(i), &seal(&opening));
        }
        sim.run_for(secs(1));
        let before = sim.server.endpoint.counters().bytes_received;
        for sn in 1..4 {
            let data = segment(77, Command::Push, sn, 1, &[0, 1, 0, 5, b'x']);
            sim.inject(stranger(5), &seal(&data));
        }
        sim.run_for(secs(1));
        let counters = sim.server.endpoint.counters();
        assert_eq!((counters.bytes_received, counters.moved_peers), (before, 0));
        // It is told, so that it opens another one.
        assert!(sim.strays.iter().any(|d| d.to == stranger(5)));
    }
}

#[test]
fn a_hundred_streams_at_once_and_a_slow_reader_among_them() {
    for ends in both(Method::XChaCha20Poly1305) {
        let mut sim = pair("many", 1, &link(20, 0.01), &ends);
        for _ in 0..100 {
            sim.open(bulk(3000, 9000));
        }
        let (ours, theirs) = bulk(0, 3_000_000);
        let pace = crate::apps::Pace {
            from: sim.now + secs(5),
            bytes: 100_000,
            every: ms(100),
        };
        sim.open((ours.paced(pace), theirs));
        sim.finish(secs(120));
        assert_eq!(sim.server.endpoint.counters().passive_opens, 101);
    }
}

/// What opens with another key, or another method, is told in seconds.
#[test]
fn another_method_is_named() {
    use fulmar_session::diagnosis::Suspicion;
    let client = Options::libev(Method::Aes256Gcm, true).0;
    let server = Options::libev(Method::XChaCha20Poly1305, true).1;
    let mut sim = pair("mismatch", 1, &link(20, 0.0), &(client, server));
    sim.open((
        Program::new(Expect::Anything, [Step::Write(10)]),
        Program::new(Expect::Anything, []),
    ));
    sim.run_for(secs(6));
    let told = sim.server.first(|e| match e {
        Event::Stranger(_, suspicion) => Some(suspicion.clone()),
        _ => None,
    });
    let (theirs, ours) = (Method::Aes256Gcm, Method::XChaCha20Poly1305);
    let [theirs, ours] = [theirs, ours].map(fulmar_cipher::Scheme::Libev);
    assert_eq!(
        told.map(|t| t.1),
        Some(Suspicion::OtherCipher { theirs, ours })
    );
    let told = sim.client().first(|e| match e {
        Event::Suspicion(_, suspicion) => Some(suspicion.clone()),
        _ => None,
    });
    assert_eq!(told.map(|t| t.1), Some(Suspicion::Silence));
    // Both ends seal with the same function that production uses.
    assert_eq!(libev_cipher(Method::Plain, 1).overhead().total(), 0);
}

/// Sessions that real processes had: what their client sent, to our server; what their server sent, to the parts of our
/// client. (Ours would have another number and another clock.)
#[test]
fn captured_sessions_are_understood() {
    use fulmar_arq::{Config, Kcp, Origin, Rules};
    use fulmar_mux::single;
    use fulmar_testkit::vectors;
    use fulmar_wire::time::Instant;

    let names = [
        "client_close_aes256gcm",
        "client_close_chacha20poly1305_ietf",
        "client_close_none",
        "client_close_xchacha20poly1305_ietf",
        "client_close_xsalsa20poly1305",
        "dial_refused",
        "half_close",
        "keepalive",
        "loss_retransmit",
        "no_data",
        "reset_unknown_conv",
        "server_close",
        "zero_window_probe",
        "nat_rebind_upstream_behaviour",
    ];
    let mut pushed_in_all = 0;
    for name in names {
        let file = vectors::load(&format!("kcptun-libev/session_{name}.json"));
        let method = file["method"].as_str().and_then(Method::from_name);
        let method = method.unwrap_or(Method::Plain);
        let ends = Options::libev(method, false);
        let mut sim = Sim::empty("capture", 1, link(1, 0.0), link(1, 0.0), &ends.1);
        let start = sim.now;
        let from = stranger(1);
        // What the client's streams hold, by conversation.
        let mut sent: std::collections::BTreeMap<u32, Vec<u8>> = Default::default();
        let mut theirs: std::collections::BTreeMap<u32, (Kcp, single::Single)> = Default::default();
        let mut cipher = libev_cipher(method, 99);
        let mut resets = 0;
        for record in file["records"].as_array().expect("records") {
            let Some(direction) = record["dir"].as_str() else {
                continue;
            };
            if record["dropped_by_test"].as_bool() == Some(true) {
                continue;
            }
            let micros = (record["t_ms"].as_f64().expect("a time") * 1000.0) as u64;
            let at = start + Duration::from_micros(micros);
            let mut packet = vectors::bytes(record, "packet_hex");
            if direction == "c2s" {
                sim.run_to(at);
                let field = if method == Method::Plain {
                    "packet_hex"
                } else {
                    "plain_hex"
                };
                let plain = vectors::bytes(record, field);
                let conv = u32::from_be_bytes(*plain.first_chunk().expect("four bytes"));
                if conv == 0 {
                    resets += u64::from(plain[5] == 2);
                } else if let Some(segments) = record["decoded"]["segments"].as_array() {
                    let all = sent.entry(conv).or_default();
                    for s in segments.iter().filter(|s| s["cmd"] == "PUSH") {
                        let sn = s["sn"].as_u64().expect("a number");
                        if sn == 0 && all.is_empty() {
                            sim.expect_stream(
                                conv,
                                conv,
                                Program::new(Expect::Anything, [Step::ReadEnd, Step::Finish])
                                    .unchecked(),
                            );
                        }
                        all.extend(vectors::bytes(s, "data_hex"));
                    }
                }
                sim.inject(from, &packet);
            } else {
                let mut verdicts = Vec::new();
                cipher.open(&mut packet, 0, &mut verdicts);
                assert_eq!(verdicts, [fulmar_cipher::Verdict::Ok]);
                let body = &packet[..packet.len() - method.overhead()];
                let conv = u32::from_be_bytes(*body.first_chunk().expect("four bytes"));
                if conv == 0 {
                    Session0::parse(body).expect("a message");
                    continue;
                }
                let (kcp, stream) = theirs.entry(conv).or_insert_with(|| {
                    let config = Config {
                        rules: Rules::LIBEV,
                        rcv_wnd: 256,
                        ..Config::default()
                    };
                    let single = single::Config {
                        opener: true,
                        number: conv,
                        send_buffer: 1,
                        receive_buffer: usize::MAX,
                        keepalive: secs(15),
                        hold_end: false,
                    };
                    (
                        Kcp::new(conv, config),
                        single::Single::new(single, Instant::ZERO),
                    )
                });
                kcp.handle_datagram(at, body, Origin::Wire)
                    .expect("segments");
                while let Some(done) = kcp.recv(|bytes| stream.handle_input(at, bytes)) {
                    done.expect("messages");
                }
            }
        }
        sim.run_for(secs(1));
        let counters = sim.server.endpoint.counters();
        // Some recordings begin later.
        let whole = sent.values().filter(|all| !all.is_empty()).count();
        assert_eq!(counters.passive_opens, whole as u64, "{name}");
        assert_eq!(
            (counters.misbehaved_sessions, counters.in_csum_errors),
            (0, 0),
            "{name}"
        );
        assert!(counters.resets_received <= resets, "{name}");
        // Retransmissions carry the same again, so there is at least as much as was delivered.
        let pushed: usize = sent.values().map(Vec::len).sum();
        let delivered = counters.bytes_received as usize;
        assert!(
            delivered <= pushed && (pushed == 0 || delivered > 0),
            "{name}: {delivered} of {pushed}"
        );
        pushed_in_all += delivered;
    }
    assert!(pushed_in_all > 100, "{pushed_in_all}");
}

/// A session is short, a path is not: what one has found out about the size of datagrams, the next ones know.
#[test]
fn the_size_that_a_path_carries_is_found_once() {
    let ends = with_patience(Options::libev(Method::Aes256Gcm, true), 60, 5);
    let mut sim = pair("size", 1, &link(20, 0.0), &ends);
    sim.open(bulk(100_000, 100_000));
    sim.finish(secs(10));
    sim.run_for(secs(8));
    let first = [sim.client(), &sim.server].map(|h| h.endpoint.counters().size_probes);
    assert!(first.iter().all(|n| *n > 0), "{first:?}");
    for _ in 0..5 {
        sim.open(bulk(100_000, 100_000));
        sim.finish(secs(10));
        sim.run_for(secs(8));
    }
    let later = [sim.client(), &sim.server].map(|h| h.endpoint.counters().size_probes);
    assert_eq!(later, first);
}

/// What is not full is padded, before it is sealed, by at most 15 bytes of that value; what is not sealed is not.
#[test]
fn padding_is_as_upstreams() {
    for method in METHODS {
        let ends = Options::libev(method, false);
        let mut sim = pair("padding", 1, &link(20, 0.0), &ends);
        // So that the server knows where its client is, and segments are full.
        sim.open(bulk(1, 1));
        sim.finish(secs(20));
        sim.record = Some(Vec::new());
        for _ in 0..40 {
            sim.open(bulk(100, 3000));
        }
        sim.finish(secs(20));
        let mut cipher = libev_cipher(method, 99);
        let (mut padded, mut longest) = (std::collections::BTreeSet::new(), 0);
        for mut datagram in sim.record.take().expect("it was on") {
            longest = longest.max(datagram.data.len());
            let mut verdicts = Vec::new();
            cipher.open(&mut datagram.data, 0, &mut verdicts);
            let body = &datagram.data[..datagram.data.len() - method.overhead()];
            if body.starts_with(&[0; 4]) {
                continue;
            }
            let mut rest = body;
            while let Ok(view) = Format::BigEndian.view(rest) {
                rest = view.parse().expect("a segment").2;
            }
            assert!(
                rest.iter().all(|b| usize::from(*b) == rest.len()),
                "{rest:?}"
            );
            padded.insert(rest.len());
        }
        let all = if method == Method::Plain { 1 } else { 16 };
        assert_eq!(padded.len(), all, "{padded:?}");
        assert_eq!(longest, 1400 - 28);
    }
}
