//! What floods of garbage, of sessions and of streams do to a server's log: it says how much there was, and stays small.
#![cfg(unix)]

#[allow(dead_code, reason = "some of it is for the tests of others")]
mod kit;

use std::net::{SocketAddr, UdpSocket};

use kit::{Program, SOON, Service, fulmar, http, service, wait_for};

/// Lines that one second may have: the access log's, and all others (docs/compatibility.md).
const LINES_PER_SECOND: u64 = 20;

/// Lines about the configuration and the start.
const START_LINES: u64 = 60;

/// A server that needs no key, so that datagrams are made easily; its log shows everything that its limit permits.
fn server(target: SocketAddr) -> (Program, SocketAddr) {
    let at = UdpSocket::bind("127.0.0.1:0").and_then(|s| s.local_addr());
    let at = at.expect("a free port");
    let mut command = fulmar();
    command.args(["server", "-l", &at.to_string()]);
    command.args(["-t", &target.to_string()]);
    command.args(["--crypt", "null", "--datashard", "0", "--parityshard", "0"]);
    command.args(["--nocomp", "--http-listen", "127.0.0.1:0"]);
    let server = Program::start_with_limits(command, "debug");
    server.line(&format!("listening on {at}/udp"));
    (server, at)
}

/// The first datagram of conversation `conv`: a PUSH of KCP that opens streams of smux with these numbers.
fn opening(conv: u32, streams: impl Iterator<Item = u32>) -> Vec<u8> {
    let frames: Vec<_> = streams
        .flat_map(|n| [&[2, 0, 0, 0][..], &n.to_le_bytes()].concat())
        .collect();
    let mut datagram = conv.to_le_bytes().to_vec();
    datagram.extend([81, 0, 0, 1]);
    datagram.extend([0; 12]);
    datagram.extend((frames.len() as u32).to_le_bytes());
    datagram.extend(frames);
    datagram
}

/// Clients at some ports; each sends as fast as the server takes it, so that little is lost in its socket.
fn clients() -> Vec<UdpSocket> {
    let bind = |_| UdpSocket::bind("127.0.0.1:0").expect("bound");
    (0..50).map(bind).collect()
}

/// A counter of the server.
fn counter(server: &Program, name: &str) -> u64 {
    let (status, text) = http(server.address("http://"), "GET", "/metrics");
    assert_eq!(status, 200);
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let line = line.unwrap_or_else(|| panic!("{name} in {text}"));
    line.trim().parse().expect("a number")
}

/// How many lines of a kind there would have been: those with one of `texts`, and those that were left out.
fn told(server: &Program, kind: &str, texts: &[&str]) -> u64 {
    let mut told = 0;
    for line in server.log().lines() {
        if let Some((_, list)) = line.split_once(" are shown per second: ") {
            let of_kind = list.split(", ").find_map(|part| part.strip_suffix(kind));
            told += of_kind.map_or(0, |n| n.trim().parse().expect("a number"));
        } else {
            told += u64::from(texts.iter().any(|text| line.contains(text)));
        }
    }
    told
}

/// Lines in the log, and for how many they are few: those at start, and those of each second that the log covers.
fn few(server: &Program) {
    let log = server.log();
    let second = |line: &str| {
        let time = line.get(11..19)?;
        let part = |at: usize| time.get(at..at + 2)?.parse::<u64>().ok();
        Some(part(0)? * 3600 + part(3)? * 60 + part(6)?)
    };
    let mut seconds: Vec<_> = log.lines().filter_map(second).collect();
    // Past midnight they begin anew.
    seconds.dedup();
    let span = seconds
        .windows(2)
        .map(|w| (86_400 + w[1] - w[0]) % 86_400)
        .sum::<u64>();
    let lines = log.lines().count() as u64;
    let most = START_LINES + (span + 2) * LINES_PER_SECOND;
    assert!(lines <= most, "{lines} lines in {span} s:\n{log}");
}

#[test]
fn a_flood_of_sessions_with_streams_is_told_in_few_lines() {
    let (server, at) = server(service(Service::Echo));
    let clients = clients();
    for round in 0..80u32 {
        for (n, client) in (0u32..).zip(&clients) {
            let conv = 1 + round * 1000 + n;
            client
                .send_to(&opening(conv, [3].into_iter()), at)
                .expect("sent");
        }
        // Those that are lost on the way are not missed.
        wait_for("the server takes most", SOON, || {
            (counter(&server, "fulmar_passive_opens_total") >= u64::from(round) * 25).then_some(())
        });
    }
    let opened = || counter(&server, "fulmar_streams_opened_total");
    wait_for("every stream is shown or counted", SOON, || {
        (told(&server, "streams opened", &["stream opened: "]) == opened()).then_some(())
    });
    assert!(opened() >= 1000, "{}", opened());
    few(&server);
}

#[test]
fn a_flood_of_streams_is_told_in_few_lines() {
    // Nobody listens there: each stream is opened, fails and is reset.
    let target = UdpSocket::bind("127.0.0.1:0").and_then(|s| s.local_addr());
    let (server, at) = server(target.expect("a port"));
    let client = UdpSocket::bind("127.0.0.1:0").expect("bound");
    for conv in 1..=20 {
        let streams = (0..150).map(|n| 2 * n + 1);
        client.send_to(&opening(conv, streams), at).expect("sent");
        wait_for("the server takes it", SOON, || {
            (counter(&server, "fulmar_streams_opened_total") >= u64::from(conv) * 150).then_some(())
        });
    }
    wait_for("every stream is shown or counted", SOON, || {
        (told(&server, "streams opened", &["stream opened: "]) == 3000).then_some(())
    });
    // Others end with their session, which another one of this client replaces.
    let reset = told(&server, "streams reset", &["stream reset: "]);
    assert!(reset >= 1000, "{reset}");
    few(&server);
}

#[test]
fn a_flood_of_garbage_and_of_openings_without_streams_is_told_in_few_lines() {
    let (server, at) = server(service(Service::Echo));
    let clients = clients();
    for round in 0..80u32 {
        for (n, client) in (0u32..).zip(&clients) {
            let conv = 1 + round * 1000 + n;
            client
                .send_to(&opening(conv, std::iter::empty()), at)
                .expect("sent");
            let garbage: Vec<_> = (0..200).map(|i| (conv * 31 + i * 7) as u8).collect();
            client.send_to(&garbage, at).expect("sent");
        }
        wait_for("the server takes most", SOON, || {
            (counter(&server, "fulmar_in_pkts_total") >= u64::from(round) * 50).then_some(())
        });
    }
    few(&server);
}
