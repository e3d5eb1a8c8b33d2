//! The machine alone, and three of them with two NATs between.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use super::*;
use fulmar_testkit::vectors;

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn path(text: &str) -> Path {
    Path {
        remote: addr(text),
        local: None,
    }
}

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

fn settings(place: Place) -> Settings {
    Settings {
        place,
        keepalive: Some(Duration::from_secs(25)),
        timeout: Duration::from_secs(600),
        seed: 7,
        allow_loopback: true,
    }
}

fn said(control: &mut Control) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut all = Vec::new();
    loop {
        let mut bytes = Vec::new();
        match control.poll_transmit(&mut bytes) {
            Some(path) => all.push((path.remote, bytes)),
            None => return all,
        }
    }
}

fn events(control: &mut Control) -> Vec<Event> {
    std::iter::from_fn(|| control.poll_event()).collect()
}

/// What a real relay answered to hand-made messages, ours answers as well.
#[test]
fn a_relay_answers_as_upstream() {
    let file = vectors::load("kcptun-libev/rendezvous_blackbox.json");
    let mut relay = Control::new(settings(Place::Bound), at(0));
    let hosts = [("client", "127.0.0.1:1001"), ("server", "127.0.0.1:1002")];
    let records = file["records"].as_array().expect("records");
    let mut waiting: Vec<(SocketAddr, Vec<u8>)> = Vec::new();
    let mut compared = 0;
    for record in records {
        let direction = record["dir"].as_str().unwrap_or_default();
        let label = record["label"].as_str().unwrap_or_default();
        let Some((from, to)) = direction.split_once("->") else {
            continue;
        };
        let host = |name: &str| hosts.iter().find(|(n, _)| *n == name).map(|(_, a)| *a);
        if to == "rendezvous" {
            let Some(host) = host(from) else { continue };
            let body = vectors::bytes(record, "plain_hex");
            if body.starts_with(&[0; 4]) {
                relay.handle(at(1), path(host), &body, true);
                waiting.extend(said(&mut relay));
            }
        } else if record["result"] == "no reply" {
            assert!(waiting.is_empty(), "{label}: {waiting:?}");
        } else if let Some(host) = host(to)
            && record["plain_hex"].is_string()
            && record["decoded"]["kind"] == "session0"
        {
            let theirs = vectors::bytes(record, "plain_hex");
            let theirs = Session0::parse(&theirs).expect("a message");
            if matches!(theirs, Session0::Reset { .. }) {
                // That is the endpoint's.
                continue;
            }
            let same = waiting.iter().position(|(to, bytes)| {
                let ours = Session0::parse(bytes).expect("a message");
                *to == addr(host)
                    && match (ours, theirs) {
                        (Session0::Pong { time: a, .. }, Session0::Pong { time: b, .. }) => a == b,
                        // Ports of the test that recorded it are others.
                        (Session0::Punch { local: a, .. }, Session0::Punch { local: b, .. }) => {
                            a == b
                        }
                        _ => false,
                    }
            });
            let same = same.unwrap_or_else(|| panic!("{label}: {theirs:?} not in {waiting:?}"));
            waiting.remove(same);
            compared += 1;
        }
    }
    assert!(compared >= 4, "{compared}");
}

#[test]
fn everything_that_three_processes_said_is_understood() {
    let file = vectors::load("kcptun-libev/rendezvous_nat_capture.json");
    let mut order = Vec::new();
    for place in ["wan", "client_lan", "server_lan"] {
        for record in file[place].as_array().expect("records") {
            if !record["plain_hex"].is_string() {
                continue;
            }
            let body = vectors::bytes(record, "plain_hex");
            if !body.starts_with(&[0; 4]) {
                continue;
            }
            Session0::parse(&body).expect("a message");
            if place == "wan" {
                order.push(body[5]);
            }
        }
    }
    // LISTEN, CONNECT, and a PUNCH to each.
    assert_eq!(order[..4], [3, 4, 5, 5]);
}

#[test]
fn a_client_pings_first_and_then_when_it_is_quiet() {
    let servers = vec![addr("192.0.2.1:9")];
    let mut client = Control::new(settings(Place::Client { servers }), at(0));
    let first = said(&mut client);
    let Ok(Session0::Ping { time, hello }) = Session0::parse(&first[0].1) else {
        panic!("{first:?}");
    };
    assert_eq!((first.len(), hello), (1, Some(OURS)));
    let mut pong = Vec::new();
    Session0::Pong { time, hello: None }.emit(&mut pong);
    client.handle(at(40), path("192.0.2.1:9"), &pong, true);
    let found = Event::PeerFound {
        peer: addr("192.0.2.1:9"),
    };
    assert_eq!(
        events(&mut client),
        [Event::Rtt(Duration::from_millis(40)), found]
    );
    assert_eq!(client.hello(addr("192.0.2.1:9")), None);
    // Twice is nobody's.
    client.handle(at(50), path("192.0.2.1:9"), &pong, true);
    assert_eq!(events(&mut client), []);
    // Something is sent all the time: no ping.
    for s in 1..100 {
        client.sent(at(s * 1000));
        client.heard(at(s * 1000), addr("192.0.2.1:9"));
        client.handle_timeout(at(s * 1000));
    }
    assert_eq!(said(&mut client), []);
    let next = client.poll_timeout().expect("a ping");
    let wait = next - at(99_000);
    assert!(
        wait >= Duration::from_secs(25) && wait <= Duration::from_millis(31_250),
        "{wait:?}"
    );
    client.handle_timeout(next);
    assert_eq!(said(&mut client).len(), 1);
    // Silence.
    let mut resolves = 0;
    let mut now = next;
    while now < at(400_000) {
        now = client.poll_timeout().expect("something");
        client.handle_timeout(now);
        said(&mut client);
        resolves += events(&mut client)
            .iter()
            .filter(|e| **e == Event::Resolve)
            .count();
    }
    assert!((3..=4).contains(&resolves), "{resolves}");
}

#[test]
fn the_first_address_that_answers_is_the_server() {
    let servers = vec![
        addr("192.0.2.1:9"),
        addr("[2001:db8::1]:9"),
        addr("192.0.2.3:9"),
    ];
    let mut client = Control::new(settings(Place::Client { servers }), at(0));
    assert_eq!(client.server(), Some(addr("192.0.2.1:9")));
    let mut pinged: Vec<_> = said(&mut client);
    client.handle_timeout(at(250));
    pinged.extend(said(&mut client));
    assert_eq!(pinged.len(), 2);
    let Ok(Session0::Ping { time, .. }) = Session0::parse(&pinged[1].1) else {
        panic!();
    };
    let mut pong = Vec::new();
    Session0::Pong {
        time,
        hello: Some(OURS),
    }
    .emit(&mut pong);
    client.handle(at(300), path("[2001:db8::1]:9"), &pong, true);
    assert_eq!(client.server(), Some(addr("[2001:db8::1]:9")));
    assert!(events(&mut client).contains(&Event::PeerChanged {
        peer: addr("[2001:db8::1]:9")
    }));
    assert_eq!(client.hello(addr("[2001:db8::1]:9")), Some(OURS));
    client.handle_timeout(at(600));
    assert_eq!(said(&mut client), [], "the third is not needed");
}

/// Lets time pass up to `until`; what was told, and when.
fn run(control: &mut Control, until: u64) -> Vec<(u64, Event)> {
    let mut told = Vec::new();
    while let Some(now) = control.poll_timeout().filter(|now| *now < at(until)) {
        control.handle_timeout(now);
        said(control);
        let ms = now.as_micros() / 1000;
        told.extend(events(control).into_iter().map(|event| (ms, event)));
    }
    told
}

#[test]
fn a_server_that_was_asked_three_times_over_six_seconds_is_down() {
    let servers = vec![addr("192.0.2.1:9")];
    let mut client = Control::new(settings(Place::Client { servers }), at(0));
    assert_eq!(run(&mut client, 8000), [(6000, Event::Down)]);
    let mut pong = Vec::new();
    client.handle_timeout(at(9000));
    client.inquire(at(9000));
    let asked = said(&mut client);
    let Ok(Session0::Ping { time, .. }) = Session0::parse(&asked[0].1) else {
        panic!("{asked:?}");
    };
    Session0::Pong { time, hello: None }.emit(&mut pong);
    client.handle(at(9050), path("192.0.2.1:9"), &pong, true);
    assert_eq!(events(&mut client)[0], Event::Up);
    // One that answers is never down.
    let told = run(&mut client, 60_000);
    assert!(!told.iter().any(|(_, e)| *e == Event::Up), "{told:?}");
}

/// The service may not be known there yet.
#[test]
fn a_relay_that_is_silent_is_no_server_that_is_down() {
    let (relays, id) = (vec![addr("192.0.2.1:9")], b"x".to_vec());
    let local = vec![addr("10.0.0.5:77")];
    let place = Place::RendezvousClient { relays, id, local };
    let mut client = Control::new(settings(place), at(0));
    let told = run(&mut client, 60_000);
    assert!(!told.iter().any(|(_, e)| *e == Event::Down), "{told:?}");
}

#[test]
fn a_client_asks_for_somebody_who_wants_to_know_but_rarely() {
    let servers = vec![addr("192.0.2.1:9")];
    let keepalive = None;
    let mut client = Control::new(
        Settings {
            keepalive,
            ..settings(Place::Client { servers })
        },
        at(0),
    );
    let first = said(&mut client);
    let Ok(Session0::Ping { time, .. }) = Session0::parse(&first[0].1) else {
        panic!("{first:?}");
    };
    let mut pong = Vec::new();
    Session0::Pong { time, hello: None }.emit(&mut pong);
    client.handle(at(40), path("192.0.2.1:9"), &pong, true);
    // What was heard a moment ago need not be asked.
    assert!(!client.inquire(at(20_000)));
    assert_eq!(said(&mut client), []);
    assert!(client.inquire(at(31_000)));
    assert_eq!(said(&mut client).len(), 1, "a ping, and no session");
    assert!(!client.inquire(at(32_000)));
    // Who is no client asks nobody.
    let mut server = Control::new(settings(Place::Bound), at(0));
    assert!(!server.inquire(at(31_000)));
}

#[test]
fn a_relay_whose_name_does_not_resolve_is_told_when_it_does() {
    let (relays, id) = (Vec::new(), b"x".to_vec());
    let local = vec![addr("10.0.0.5:77")];
    let place = Place::RendezvousServer { relays, id, local };
    let mut server = Control::new(settings(place), at(0));
    assert_eq!(said(&mut server), []);
    run(&mut server, 20_000);
    server.resolved(at(20_000), vec![addr("192.0.2.1:9")]);
    let told = said(&mut server);
    assert!(
        matches!(Session0::parse(&told[0].1), Ok(Session0::Listen { .. })),
        "{told:?}"
    );
}

#[test]
fn a_client_whose_servers_name_does_not_resolve_begins_when_it_does() {
    let servers = Vec::new();
    let mut client = Control::new(settings(Place::Client { servers }), at(0));
    assert_eq!(said(&mut client), []);
    assert_eq!(client.server(), None);
    run(&mut client, 20_000);
    client.resolved(at(20_000), vec![addr("192.0.2.1:9")]);
    assert_eq!(client.server(), Some(addr("192.0.2.1:9")));
    assert_eq!(said(&mut client).len(), 1);
}

#[test]
fn nobody_makes_us_ping_what_a_relay_has_not_named() {
    let relays = vec![addr("192.0.2.1:9")];
    let id = b"x".to_vec();
    let place = Place::RendezvousServer {
        relays,
        id,
        local: vec![addr("10.0.0.5:77")],
    };
    let mut server = Control::new(settings(place), at(0));
    assert_eq!(said(&mut server).len(), 1);
    let mut punch = Vec::new();
    let (local, observed) = (addr("10.0.0.1:1"), addr("198.51.100.1:2"));
    Session0::Punch { local, observed }.emit(&mut punch);
    server.handle(at(1), path("192.0.2.66:9"), &punch, true);
    assert_eq!(said(&mut server), []);
    server.handle(at(1), path("192.0.2.1:9"), &punch, true);
    let to: Vec<_> = said(&mut server).into_iter().map(|(to, _)| to).collect();
    assert_eq!(to, [observed, local]);
    // Named a thousand times: six pings to each, and to no more than a bounded number.
    for i in 0..1000u16 {
        let mut punch = Vec::new();
        let local = addr(&format!("10.0.{}.{}:7", i / 250, i % 250 + 1));
        Session0::Punch { local, observed }.emit(&mut punch);
        server.handle(at(2), path("192.0.2.1:9"), &punch, true);
    }
    let mut pings = said(&mut server).len();
    for ms in (3..5000).step_by(10) {
        server.handle_timeout(at(ms));
        pings += said(&mut server).len();
    }
    assert!(pings <= 64 * 6, "{pings}");
    for (text, may) in [
        ("8.8.8.8:1", true),
        ("192.168.1.1:1", true),
        ("10.1.1.1:0", false),
        ("100.64.0.1:1", false),
        ("169.254.0.1:1", false),
        ("224.0.0.1:1", false),
        ("0.0.0.0:1", false),
        ("127.0.0.1:1", false),
        ("[fd00::1]:1", true),
        ("[fec0::1]:1", true),
        ("[2001:db8::1]:1", true),
        ("[fe80::1]:1", false),
        ("[::1]:1", false),
        ("[ff02::1]:1", false),
        ("[::ffff:127.0.0.1]:1", false),
    ] {
        assert_eq!(may_punch(addr(text), false), may, "{text}");
    }
}

fn ping(time: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    Session0::Ping { time, hello: None }.emit(&mut bytes);
    bytes
}

/// The answer to a ping that was said.
fn pong_to(bytes: &[u8]) -> Vec<u8> {
    let Ok(Session0::Ping { time, .. }) = Session0::parse(bytes) else {
        panic!("no ping: {bytes:?}");
    };
    let mut pong = Vec::new();
    Session0::Pong { time, hello: None }.emit(&mut pong);
    pong
}

fn drive(control: &mut Control, until: Instant) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut all = said(control);
    while let Some(next) = control.poll_timeout().filter(|t| *t <= until) {
        control.handle_timeout(next);
        all.extend(said(control));
        events(control);
    }
    all
}

#[test]
fn a_replayed_message_changes_nothing() {
    let mut relay = Control::new(settings(Place::Bound), at(0));
    let listen = |port: u16| {
        let mut bytes = Vec::new();
        let local = SocketAddr::from(([10, 0, 0, 1], port));
        Session0::Listen { local, id: b"x" }.emit(&mut bytes);
        bytes
    };
    relay.handle(at(1), path("192.0.2.1:1"), &listen(1), true);
    relay.handle(at(2), path("192.0.2.66:6"), &listen(2), false);
    relay.handle(at(2), path("192.0.2.66:6"), &ping(2), false);
    assert_eq!(said(&mut relay), []);
    let mut connect = Vec::new();
    let local = addr("10.0.0.2:2");
    Session0::Connect { local, id: b"x" }.emit(&mut connect);
    relay.handle(at(3), path("192.0.2.2:2"), &connect, true);
    let to: Vec<_> = said(&mut relay).into_iter().map(|(to, _)| to).collect();
    assert_eq!(to, [addr("192.0.2.1:1"), addr("192.0.2.2:2")]);
    // And it is forgotten in time.
    relay.handle(at(600_001), path("192.0.2.2:2"), &connect, true);
    assert_eq!(said(&mut relay), []);
}

#[test]
fn a_client_asks_again_when_the_first_ping_is_lost() {
    let servers = vec![addr("192.0.2.1:9"), addr("192.0.2.2:9")];
    let mut client = Control::new(settings(Place::Client { servers }), at(0));
    let pings = drive(&mut client, at(20_000));
    assert_eq!(pings.len(), 8, "all of them, and three times more");
    let pong = pong_to(&pings[7].1);
    client.handle(at(20_000), path("192.0.2.2:9"), &pong, true);
    assert_eq!(client.server(), Some(addr("192.0.2.1:9")), "that was late");
}

#[test]
fn only_the_servers_addresses_become_the_server() {
    let servers = vec![addr("192.0.2.1:9"), addr("[2001:db8::1]:9")];
    let mut client = Control::new(settings(Place::Client { servers }), at(0));
    let pong = pong_to(&said(&mut client)[0].1);
    client.handle(at(20), path("192.0.2.66:9"), &pong, true);
    assert_eq!(client.server(), Some(addr("192.0.2.1:9")));
    let pong = pong_to(&drive(&mut client, at(250))[0].1);
    // As sockets of both families say it, and with a scope.
    let from = SocketAddr::V6(std::net::SocketAddrV6::new(
        "2001:db8::1".parse().expect("an address"),
        9,
        0,
        3,
    ));
    let from = Path {
        remote: from,
        local: None,
    };
    client.handle(at(300), from, &pong, true);
    assert_eq!(client.server(), Some(from.remote));
}

#[test]
fn new_addresses_of_a_server_are_asked_at_once() {
    let servers = vec![addr("192.0.2.1:9")];
    let mut client = Control::new(settings(Place::Client { servers }), at(0));
    let pong = pong_to(&said(&mut client)[0].1);
    client.handle(at(20), path("192.0.2.1:9"), &pong, true);
    // The same, and one more: nothing changes.
    client.resolved(at(30), vec![addr("192.0.2.3:9"), addr("192.0.2.1:9")]);
    assert_eq!(said(&mut client), []);
    assert_eq!(client.server(), Some(addr("192.0.2.1:9")));
    client.resolved(at(40), vec![addr("192.0.2.4:9")]);
    assert_eq!(client.server(), Some(addr("192.0.2.4:9")));
    let pings = said(&mut client);
    assert_eq!(pings.len(), 1);
    assert_eq!(pings[0].0, addr("192.0.2.4:9"));
}

#[test]
fn a_suspect_server_is_not_cleared_by_others() {
    let relay = addr("192.0.2.1:9");
    let place = Place::RendezvousClient {
        relays: vec![relay],
        id: b"x".to_vec(),
        local: vec![addr("10.0.0.5:77")],
    };
    let mut client = Control::new(settings(place), at(0));
    let mut punch = Vec::new();
    let (local, observed) = (addr("10.0.0.1:1"), addr("198.51.100.1:2"));
    Session0::Punch { local, observed }.emit(&mut punch);
    said(&mut client);
    client.handle(at(10), path("192.0.2.1:9"), &punch, true);
    let pings = said(&mut client);
    let pong = pong_to(&pings[0].1);
    client.handle(at(50), path("198.51.100.1:2"), &pong, true);
    assert_eq!(client.server(), Some(observed));
    client.suspect(at(100));
    // The other of the two punched addresses answers late.
    client.handle(at(110), path("10.0.0.1:1"), &pong, true);
    let pings = drive(&mut client, at(3200));
    assert_eq!(client.server(), None);
    // Three pings, and the relay is asked.
    assert_eq!(pings.len(), 4);
    assert_eq!(pings[3].0, relay);
}

#[test]
fn a_ping_proves_but_pings_go_on_until_a_pong() {
    let place = Place::RendezvousClient {
        relays: vec![addr("192.0.2.1:9")],
        id: b"x".to_vec(),
        local: vec![addr("10.0.0.5:77")],
    };
    let mut client = Control::new(settings(place), at(0));
    let mut punch = Vec::new();
    let (local, observed) = (addr("10.0.0.1:0"), addr("198.51.100.1:2"));
    Session0::Punch { local, observed }.emit(&mut punch);
    said(&mut client);
    client.handle(at(10), path("192.0.2.1:9"), &punch, true);
    assert_eq!(said(&mut client).len(), 1);
    client.handle(at(20), path("198.51.100.1:2"), &ping(1), true);
    assert_eq!(said(&mut client).len(), 2, "a pong and a ping");
    client.handle(at(21), path("198.51.100.1:2"), &ping(2), true);
    assert_eq!(said(&mut client).len(), 1, "a pong");
    // All of that was lost.
    let pinged = |all: &[(SocketAddr, Vec<u8>)], to| all.iter().filter(|(a, _)| *a == to).count();
    assert_eq!(pinged(&drive(&mut client, at(3010)), observed), 5);
    // It is seen under another port than the relay sees it.
    let elsewhere = addr("198.51.100.1:4444");
    client.handle(at(3100), path("198.51.100.1:4444"), &ping(3), true);
    let all = said(&mut client);
    assert_eq!(pinged(&all, elsewhere), 2);
    let pong = pong_to(&all[1].1);
    client.handle(at(3150), path("198.51.100.1:4444"), &pong, true);
    assert_eq!(client.server(), Some(elsewhere));
    // Any other host gets its pong, and that is all.
    client.handle(at(3200), path("198.51.100.9:1"), &ping(4), true);
    assert_eq!(said(&mut client).len(), 1);
}

#[test]
fn odd_intervals_are_harmless() {
    for keepalive in [None, Some(Duration::ZERO), Some(Duration::MAX)] {
        let servers = vec![addr("192.0.2.1:9")];
        let mut client = Control::new(
            Settings {
                keepalive,
                ..settings(Place::Client { servers })
            },
            at(0),
        );
        let pong = pong_to(&said(&mut client)[0].1);
        client.handle(at(20), path("192.0.2.1:9"), &pong, true);
        let said = drive(&mut client, at(9000));
        assert_eq!(said, [], "{keepalive:?}");
    }
}

/// A masquerading NAT: a mapping for each inner address, and nothing comes in from whom nothing went out to.
#[derive(Default)]
struct Nat {
    outer: Option<IpAddr>,
    next: u16,
    mappings: HashMap<SocketAddr, u16>,
    known: HashSet<(u16, SocketAddr)>,
}

impl Nat {
    fn rebind(&mut self) {
        self.mappings.clear();
        self.known.clear();
    }
}

/// Machines behind NATs, 20 ms from each other.
struct World {
    now: Instant,
    hosts: Vec<(SocketAddr, usize, Control)>,
    nats: Vec<Nat>,
    flying: BTreeMap<(Instant, u64), (SocketAddr, SocketAddr, Vec<u8>)>,
    count: u64,
    log: Vec<(usize, Event)>,
    lose: u64,
}

impl World {
    fn new() -> Self {
        Self {
            now: at(1000),
            hosts: Vec::new(),
            nats: vec![Nat::default()],
            flying: BTreeMap::new(),
            count: 0,
            log: Vec::new(),
            lose: 0,
        }
    }

    fn nat(&mut self, outer: &str) -> usize {
        self.nats.push(Nat {
            outer: Some(outer.parse().expect("an address")),
            next: 30_000,
            ..Nat::default()
        });
        self.nats.len() - 1
    }

    fn host(&mut self, local: &str, nat: usize, place: Place) -> usize {
        let control = Control::new(settings(place), self.now);
        self.hosts.push((addr(local), nat, control));
        self.hosts.len() - 1
    }

    fn client(&mut self, local: &str, nat: usize, relay: &str, id: &str) -> usize {
        let place = Place::RendezvousClient {
            relays: vec![addr(relay)],
            id: id.into(),
            local: vec![addr(local)],
        };
        self.host(local, nat, place)
    }

    fn server(&mut self, local: &str, nat: usize, relay: &str, id: &str) -> usize {
        let place = Place::RendezvousServer {
            relays: vec![addr(relay)],
            id: id.into(),
            local: vec![addr(local)],
        };
        self.host(local, nat, place)
    }

    fn run_for(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        loop {
            for i in 0..self.hosts.len() {
                let (local, nat, control) = &mut self.hosts[i];
                if control.poll_timeout().is_some_and(|at| at <= self.now) {
                    control.handle_timeout(self.now);
                }
                for (to, bytes) in said(control) {
                    let nat = &mut self.nats[*nat];
                    let from = match nat.outer {
                        None => *local,
                        Some(outer) => {
                            let port = *nat.mappings.entry(*local).or_insert_with(|| {
                                nat.next += 1;
                                nat.next
                            });
                            nat.known.insert((port, to));
                            SocketAddr::new(outer, port)
                        }
                    };
                    self.count += 1;
                    let drawn = (self.count + 77).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
                    if self.lose > 0 && drawn.is_multiple_of(self.lose) {
                        continue;
                    }
                    let arrives = self.now + Duration::from_millis(20);
                    self.flying.insert((arrives, self.count), (from, to, bytes));
                }
                for event in events(control) {
                    self.log.push((i, event));
                }
            }
            let timers = self.hosts.iter().filter_map(|(.., c)| c.poll_timeout());
            let next = timers.chain(self.flying.keys().map(|(at, _)| *at)).min();
            match next {
                Some(next) if next <= end => self.now = self.now.max(next),
                _ => break,
            }
            while let Some(((when, n), _)) = self.flying.first_key_value().map(|(k, v)| (*k, v))
                && when <= self.now
            {
                let Some((from, to, bytes)) = self.flying.remove(&(when, n)) else {
                    break;
                };
                let now = self.now;
                for (local, nat, control) in &mut self.hosts {
                    let nat = &self.nats[*nat];
                    let here = match nat.outer {
                        None => *local == to,
                        Some(outer) => {
                            let port = nat.mappings.get(local);
                            port.is_some_and(|p| {
                                SocketAddr::new(outer, *p) == to && nat.known.contains(&(*p, from))
                            })
                        }
                    };
                    if here {
                        let path = Path {
                            remote: from,
                            local: None,
                        };
                        control.handle(now, path, &bytes, true);
                    }
                }
            }
        }
        self.now = end;
    }

    fn server_of(&self, host: usize) -> Option<SocketAddr> {
        self.hosts[host].2.server()
    }
}

/// A world with a relay, two NATs, a server and a client behind them.
fn world(v6: bool) -> (World, usize, usize) {
    let mut w = World::new();
    let (relay, outer, inner) = if v6 {
        (
            "[2001:db8::1]:9",
            ["2001:db8::11", "2001:db8::12"],
            ["[fd01::2]:50", "[fd02::2]:50"],
        )
    } else {
        (
            "203.0.113.1:9",
            ["203.0.113.11", "203.0.113.12"],
            ["10.1.0.2:50", "10.2.0.2:50"],
        )
    };
    w.host(relay, 0, Place::Bound);
    let nats = outer.map(|o| w.nat(o));
    let server = w.server(inner[1], nats[1], relay, "svc");
    w.run_for(100);
    let client = w.client(inner[0], nats[0], relay, "svc");
    (w, client, server)
}

#[test]
fn two_behind_nats_find_each_other_at_the_first_try() {
    for v6 in [false, true] {
        let (mut w, client, _) = world(v6);
        let start = w.now;
        w.run_for(400);
        let found = w.server_of(client).expect("found");
        assert_eq!(found.port(), 30_001);
        assert!(w.now - start <= Duration::from_millis(400));
    }
}

#[test]
fn lost_messages_cost_little() {
    for lose in 3..9 {
        let (mut w, client, _) = world(false);
        w.lose = lose;
        w.run_for(9000);
        assert!(w.server_of(client).is_some(), "one of {lose} lost");
    }
}

#[test]
fn a_server_that_comes_later_is_found() {
    let mut w = World::new();
    w.host("203.0.113.1:9", 0, Place::Bound);
    let nats = ["203.0.113.11", "203.0.113.12"].map(|o| w.nat(o));
    let client = w.client("10.1.0.2:50", nats[0], "203.0.113.1:9", "");
    w.run_for(30_000);
    assert_eq!(w.server_of(client), None);
    w.server("10.2.0.2:50", nats[1], "203.0.113.1:9", "");
    w.run_for(5000);
    assert!(w.server_of(client).is_some());
}

#[test]
fn a_mistyped_service_is_named_within_seconds() {
    let mut w = World::new();
    let relay = "203.0.113.1:9";
    w.host(relay, 0, Place::Bound);
    let nats = ["203.0.113.11", "203.0.113.12", "203.0.113.13"].map(|o| w.nat(o));
    w.server("10.1.0.2:50", nats[0], relay, "office");
    w.run_for(100);
    let right = w.client("10.2.0.2:50", nats[1], relay, "office");
    let wrong = w.client("10.3.0.2:50", nats[2], relay, "ofice");
    let alone = w.client("10.3.0.3:50", nats[2], "203.0.113.77:9", "office");
    w.run_for(4000);
    let told = |host: usize, event: &Event| {
        let all = w.log.iter();
        all.filter(|(at, e)| *at == host && e == event).count()
    };
    let unknown = Event::UnknownService { relay: addr(relay) };
    assert_eq!(told(wrong, &unknown), 1);
    assert_eq!(told(wrong, &Event::RelaySilent), 0);
    assert_eq!(told(alone, &Event::RelaySilent), 1);
    for event in [&unknown, &Event::RelaySilent] {
        assert_eq!(told(right, event), 0);
    }
    // The relay is never taken for the server.
    assert_eq!(w.server_of(wrong), None);
    assert!(w.server_of(right).is_some());
    // It is found when it comes.
    w.server("10.1.0.3:50", nats[0], relay, "ofice");
    w.run_for(30_000);
    assert!(w.server_of(wrong).is_some());
}

#[test]
fn new_mappings_and_a_restarted_relay_heal() {
    for which in 0..3 {
        let (mut w, client, server) = world(false);
        w.run_for(2000);
        let before = w.server_of(client).expect("found");
        match which {
            // The server's NAT forgets; its next LISTEN makes a new mapping.
            0 => w.nats[2].rebind(),
            1 => w.nats[1].rebind(),
            _ => w.hosts[0].2 = Control::new(settings(Place::Bound), w.now),
        }
        w.run_for(26_000);
        // Sessions get no answer.
        if which == 0 {
            let now = w.now;
            w.hosts[client].2.suspect(now);
            w.run_for(6000);
            let after = w.server_of(client).expect("found again");
            assert_ne!(after, before);
            assert!(w.log.contains(&(client, Event::PeerLost)));
        } else {
            w.run_for(40_000);
            assert_eq!(w.server_of(client), Some(before));
        }
        assert_eq!(w.server_of(server), None);
    }
}

#[test]
fn one_relay_serves_many_services_and_clients() {
    let mut w = World::new();
    let relay = "203.0.113.1:9";
    w.host(relay, 0, Place::Bound);
    let mut outer = Vec::new();
    for i in 0..3 {
        let nat = w.nat(&format!("203.0.113.{}", 50 + i));
        w.server(&format!("10.5.{i}.2:50"), nat, relay, &format!("svc{i}"));
        outer.push(IpAddr::from([203, 0, 113, 50 + i]));
    }
    // Two services in one house have one NAT.
    let shared = w.nat("203.0.113.99");
    w.server("10.9.0.2:50", shared, relay, "a");
    w.server("10.9.0.3:50", shared, relay, "b");
    w.run_for(200);
    let mut clients = Vec::new();
    for i in 0..4usize {
        let nat = w.nat(&format!("203.0.113.{}", 100 + i));
        let service = i % 3;
        let client = w.client(
            &format!("10.6.{i}.2:50"),
            nat,
            relay,
            &format!("svc{service}"),
        );
        clients.push((client, outer[service]));
    }
    w.run_for(1000);
    for (client, ip) in clients {
        assert_eq!(w.server_of(client).map(|a| a.ip()), Some(ip));
    }
    assert!(
        w.log
            .iter()
            .all(|(_, e)| !matches!(e, Event::NoSuchService { .. }))
    );
}

proptest::proptest! {
    /// Whatever arrives, nothing panics, grows, or stays due.
    #[test]
    fn arbitrary_messages(
        bodies in proptest::collection::vec((0u8..7, proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40)), 0..60),
        place in 0u8..4,
    ) {
        let one = vec![addr("192.0.2.1:9")];
        let (id, local) = (b"x".to_vec(), vec![addr("10.0.0.1:5")]);
        let place = match place {
            0 => Place::Bound,
            1 => Place::Client { servers: one },
            2 => Place::RendezvousClient { relays: one, id, local },
            _ => Place::RendezvousServer { relays: one, id, local },
        };
        let mut control = Control::new(settings(place), at(0));
        for (i, (what, body)) in bodies.iter().enumerate() {
            let mut bytes = vec![0, 0, 0, 0, 0, *what];
            bytes.extend_from_slice(body);
            let now = at(i as u64 * 37);
            control.handle(now, path("192.0.2.1:9"), &bytes, i % 5 != 0);
            control.handle_timeout(now);
            said(&mut control);
            events(&mut control);
            proptest::prop_assert!(control.poll_timeout().is_none_or(|t| t > now));
        }
    }
}

/// What a client does about a server that has fallen silent it does in the same turn: no timer is left behind.
#[test]
fn a_server_that_is_lost_is_asked_for_at_once() {
    let servers = vec![addr("192.0.2.1:1"), addr("192.0.2.2:1")];
    let mut client = Control::new(settings(Place::Client { servers }), at(0));
    let mut now = at(0);
    let mut lost = 0;
    for _ in 0..200 {
        said(&mut client);
        lost += usize::from(events(&mut client).contains(&Event::Resolve));
        let next = client.poll_timeout().expect("a client goes on");
        assert!(next > now, "a timer stands still at {now:?}");
        now = next;
        client.handle_timeout(now);
    }
    assert!(lost > 3);
}
