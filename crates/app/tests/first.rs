//! kcptun of spring 2016, as whole processes: every variant, both roles, a server that dies, a target that refuses, ends that do not fit.
#![cfg(unix)]

#[allow(dead_code, reason = "some of it is for the tests of others")]
mod kit;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use kit::{Program, SOON, Service, connect, download, echo, fulmar, pattern, service, try_echo};
use tempfile::TempDir;

/// A UDP port that was free a moment ago.
fn free_port() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
    socket.local_addr().expect("address")
}

fn server(at: SocketAddr, target: SocketAddr, key: &str) -> Program {
    let mut command = fulmar();
    command.args(["server", "--compat", "2016", "--key", key]);
    command.args(["-l", &at.to_string(), "-t", &target.to_string()]);
    let server = Program::start(command);
    server.line("listening on");
    server
}

fn client(server: SocketAddr, flags: &[&str]) -> (Program, SocketAddr) {
    let mut command = fulmar();
    command.args(["client", "-l", "127.0.0.1:0", "-r", &server.to_string()]);
    command.args(flags);
    let client = Program::start(command);
    let addr = client.address("");
    (client, addr)
}

/// What is read until the end.
fn rest(mut conn: &TcpStream) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    conn.read_to_end(&mut all)?;
    Ok(all)
}

#[test]
fn every_variant_to_one_server() {
    let at = free_port();
    let server = server(at, service(Service::Sink), "k");
    for (flags, name) in [
        (&["--compat", "2016"][..], "variant B"),
        (&["--compat", "2016a"], "variant A"),
        (&["--compat", "2016c"], "variant C (May 2016), without"),
        (
            &["--compat", "2016c", "--tuncrypt"],
            "variant C (May 2016), with",
        ),
        (&["--compat", "2016bt"], "variant BT"),
        (
            &["--compat", "2016bt", "--tuncrypt"],
            "variant B (April 2016), or BT with --tuncrypt",
        ),
        (&["--compat", "2016bt", "--mode", "auto"], "variant BT"),
        (&["--compat", "2016", "--mode", "auto"], "variant B"),
        (&["--compat=2016", "-mode=default"], "variant B"),
    ] {
        let from = server.lines();
        let flags: Vec<_> = flags.iter().copied().chain(["--key", "k"]).collect();
        let (mut client, addr) = client(at, &flags);
        // A half-close: the answer comes after the end of the request.
        for len in [0, 1, 3_000_000] {
            let conn = connect(addr);
            (&conn).write_all(&pattern(len)).expect("written");
            conn.shutdown(Shutdown::Write).expect("ended");
            let answer = rest(&conn).expect("read");
            assert_eq!(String::from_utf8_lossy(&answer), format!("{len} true"));
        }
        server.line_from(from, name, SOON);
        assert!(client.end("TERM").success());
    }
}

/// Without a key the variants differ in whether packets are sealed, and C does both.
#[test]
fn every_variant_without_a_key() {
    let at = free_port();
    let _server = server(at, service(Service::Echo), "");
    for flags in [
        &["--compat", "2016a"][..],
        &["--compat", "2016"],
        &["--compat", "2016bt"],
        &["--compat", "2016c"],
        &["--compat", "2016c", "--crypt", "aes"],
    ] {
        let flags: Vec<_> = flags.iter().copied().chain(["--key", ""]).collect();
        let (_client, addr) = client(at, &flags);
        echo(&mut connect(addr), "no secret");
    }
}

#[test]
fn downloads_side_by_side() {
    let at = free_port();
    let _server = server(at, service(Service::Source), "k");
    let (_client, addr) = client(at, &["--compat", "2016", "--key", "k"]);
    std::thread::scope(|s| {
        for i in 0..4 {
            s.spawn(move || download(connect(addr), 2_000_000 + i));
        }
    });
}

#[test]
fn a_server_that_was_killed_and_started_again() {
    let (at, target) = (free_port(), service(Service::Echo));
    let mut first = server(at, target, "k");
    let (_client, addr) = client(at, &["--compat", "2016", "--key", "k"]);
    let (mut busy, mut idle) = (connect(addr), connect(addr));
    echo(&mut busy, "one");
    echo(&mut idle, "two");
    first.end("KILL");
    let _second = server(at, target, "k");
    // Who uses it learns it within seconds, and so does who only waits, by the next keep-alive at the latest.
    busy.set_read_timeout(Some(Duration::from_secs(8)))
        .expect("limit");
    try_echo(&mut busy, "anybody?").expect_err("lost");
    rest(&idle).expect_err("cut");
    echo(&mut connect(addr), "new");
}

/// A server that is stopped in good order says so, and nobody waits for a keep-alive, old clients included.
#[test]
fn a_server_that_stops_says_so() {
    let (at, target) = (free_port(), service(Service::Echo));
    let mut server = server(at, target, "k");
    let (client, addr) = client(at, &["--compat", "2016", "--key", "k"]);
    let mut conn = connect(addr);
    echo(&mut conn, "one");
    server.end("TERM");
    client.line("ended by the other end");
    rest(&conn).expect_err("cut");
}

#[test]
fn a_target_that_refuses_ends_one_stream() {
    let at = free_port();
    let refuses = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        listener.local_addr().expect("address")
    };
    let _server = server(at, refuses, "k");
    let (client, addr) = client(at, &["--compat", "2016", "--key", "k"]);
    for _ in 0..3 {
        let conn = connect(addr);
        (&conn).write_all(b"hello").expect("written");
        // A reset or an end: but at once, and of this stream.
        assert!(rest(&conn).unwrap_or_default().is_empty());
    }
    // From now on somebody is there: the same session goes on.
    let listener = TcpListener::bind(refuses).expect("bound again");
    kit::serve(listener, Service::Echo);
    let from = client.lines();
    echo(&mut connect(addr), "now");
    // The first stream of a session is number 1, and this is the fourth of one.
    client.line_from(from, "(7)", SOON);
}

/// A server tells of one stranger at a time, so each has a server of its own here.
#[test]
fn another_key_is_named() {
    let at = free_port();
    let server = server(at, service(Service::Echo), "k");
    let (client, addr) = client(at, &["--compat", "2016", "--key", "other"]);
    let _waits = connect(addr);
    client.line("--key differs from the server's");
    server.line("none opens");
}

#[test]
fn todays_kcptun_is_named() {
    let at = free_port();
    let server = server(at, service(Service::Echo), "k");
    let (_client, addr) = client(at, &["--key", "k", "--crypt", "salsa20"]);
    let _waits = connect(addr);
    server.line("the other end uses salsa20");
}

#[test]
fn the_first_kcptun_is_named_by_todays() {
    let at = free_port();
    let mut command = fulmar();
    command.args(["server", "-l", &at.to_string(), "-t", "127.0.0.1:9"]);
    command.args(["--key", "k"]);
    let server = Program::start(command);
    server.line("listening on");
    let (_client, addr) = client(at, &["--compat", "2016", "--key", "k"]);
    let _waits = connect(addr);
    server.line("the other end uses aes-256-cfb with md5 (2016)");
}

#[test]
fn a_file_in_toml_does_the_same() {
    let at = free_port();
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("fulmar.toml");
    let target = service(Service::Echo);
    let text = format!(
        "role = \"server\"\ncompat = \"2016\"\nlisten = \"{at}\"\ntarget = \"{target}\"\nkey = \"k\"\n"
    );
    std::fs::write(&path, text).expect("written");
    let mut command = fulmar();
    command.args(["run", "-c"]).arg(&path);
    let server = Program::start(command);
    server.line("listening on");
    let (_client, addr) = client(at, &["--compat", "2016c", "--key", "k"]);
    echo(&mut connect(addr), "by file");
}
