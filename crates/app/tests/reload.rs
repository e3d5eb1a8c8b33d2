//! SIGHUP with kcptun's dialects: it reads the configuration again, says what it made of it, and never ends a process.
#![cfg(unix)]

#[allow(dead_code, reason = "some of it is for the tests of others")]
mod kit;

use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};

use kit::{Program, SOON, Service, connect, echo, fulmar, run, service};
use tempfile::TempDir;

/// A UDP port that was free a moment ago.
fn free_port() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
    socket.local_addr().expect("address")
}

/// A configuration of kcptun's.
fn written(dir: &Path, name: &str, members: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, format!("{{{members}}}")).expect("written");
    path
}

fn server(at: SocketAddr, flags: &[&str]) -> Program {
    let mut command = fulmar();
    command.args(["server", "-l", &at.to_string(), "--key", "k"]);
    command.args(flags);
    let server = Program::start(command);
    server.line("listening on");
    server
}

fn client(remote: SocketAddr, flags: &[&str]) -> Program {
    let mut command = fulmar();
    command.args(["client", "-l", "127.0.0.1:0", "--key", "k"]);
    command.args(["-r", &remote.to_string()]).args(flags);
    Program::start(command)
}

/// Reads what a [`Service::Named`] says first.
fn expect(conn: &mut TcpStream, name: &str) {
    let mut said = vec![0; name.len()];
    conn.read_exact(&mut said).expect("read");
    assert_eq!(String::from_utf8_lossy(&said), name);
}

/// Sends SIGHUP; the line that tells of it.
fn hang_up(program: &Program, line: &str) -> String {
    let from = program.lines();
    program.signal("HUP");
    program.line_from(from, line, SOON)
}

/// A shell that ends, or a unit that recommends it: without `--log` it used to kill.
#[test]
fn a_hangup_ends_no_tunnel() {
    for flags in [&[][..], &["--compat", "2016"], &["--threads", "2"]] {
        let at = free_port();
        let target = service(Service::Echo).to_string();
        let mut server = server(at, &[flags, &["-t", &target]].concat());
        let mut client = client(at, flags);
        let mut conn = connect(client.address(""));
        echo(&mut conn, "before");
        for end in [&server, &client] {
            hang_up(end, "the configuration was read again: nothing has changed");
        }
        echo(&mut conn, "after");
        echo(&mut connect(client.address("")), "and a new one");
        assert!(server.runs() && client.runs());
        for end in [&mut server, &mut client] {
            assert_eq!(end.end("TERM").code(), Some(0));
        }
    }
}

#[test]
fn a_server_sends_new_streams_to_the_new_target() {
    let dir = TempDir::new().expect("dir");
    let at = free_port();
    // Several drivers share the port: each takes the target over.
    let members = |target: SocketAddr, more: &str| {
        format!(r#""listen": "{at}", "target": "{target}", "key": "k", "threads": 3{more}"#)
    };
    let (old, new) = (Service::Named("old"), Service::Named("new"));
    let file = written(dir.path(), "server.json", &members(service(old), ""));
    let mut server = run(&file);
    server.line("listening on");
    let clients: Vec<_> = (0..4).map(|_| client(at, &[])).collect();
    let mut open = connect(clients[0].address(""));
    expect(&mut open, "old");

    let target = service(new);
    written(
        dir.path(),
        "server.json",
        &members(target, r#", "mtu": 1200"#),
    );
    let from = server.lines();
    hang_up(&server, "the configuration was read again");
    server.line_from(from, "target changed: in effect for new connections", SOON);
    let line = server.line_from(from, "mtu changed: takes effect at the next start", SOON);
    assert!(line.contains(" WARN "), "{line}");
    for client in &clients {
        expect(&mut connect(client.address("")), "new");
    }
    echo(&mut open, "still here");

    // Mistakes change nothing, and say what they are.
    for (text, why) in [
        ("{", "server.json"),
        (
            r#"{"localaddr": ":1", "remoteaddr": "127.0.0.1:2"}"#,
            "client",
        ),
        (
            r#"{"kcp_bind": ":1", "connect": "127.0.0.1:2"}"#,
            "kcptun-libev",
        ),
    ] {
        fs::write(&file, text).expect("written");
        let line = hang_up(&server, "the configuration stays as it is: ");
        assert!(line.contains(why), "{line}");
        assert!(server.runs());
    }
    expect(&mut connect(clients[1].address("")), "new");
}

#[test]
fn a_client_goes_to_the_new_server() {
    let dir = TempDir::new().expect("dir");
    let [one, two] = [free_port(), free_port()];
    let target = |name| service(Service::Named(name)).to_string();
    let _servers = [
        server(one, &["-t", &target("one")]),
        server(two, &["-t", &target("two"), "--crypt", "salsa20"]),
    ];
    let taken = TcpListener::bind("127.0.0.1:0").expect("bound");
    let file = written(
        dir.path(),
        "client.json",
        &format!(r#""localaddr": "127.0.0.1:0", "remoteaddr": "{one}", "key": "k""#),
    );
    let mut command = fulmar();
    // The file goes before the flags, as ever.
    command
        .args(["client", "-r", "127.0.0.1:1", "-c"])
        .arg(&file);
    let client = Program::start(command);
    let mut open = connect(client.address(""));
    expect(&mut open, "one");

    let elsewhere = taken.local_addr().expect("address");
    written(
        dir.path(),
        "client.json",
        &format!(
            r#""localaddr": "{elsewhere}", "remoteaddr": "{two}", "key": "k", "crypt": "salsa20""#
        ),
    );
    let from = client.lines();
    hang_up(&client, "the configuration was read again");
    for line in [
        "localaddr changed: takes effect at the next start",
        "remoteaddr changed: in effect for new connections",
        "crypt changed: in effect for new connections",
    ] {
        client.line_from(from, line, SOON);
    }
    expect(&mut connect(client.address("")), "two");
    echo(&mut open, "still at the first");
    // What a start would change is still to be done.
    hang_up(&client, "the configuration was read again");
    let from = client.lines();
    hang_up(&client, "localaddr changed: takes effect at the next start");
    assert_eq!(
        client
            .line_from(from, "changed: ", SOON)
            .matches("localaddr")
            .count(),
        1
    );
}

/// `quiet` is in effect at once.
#[test]
fn a_reload_makes_a_log_quiet() {
    let dir = TempDir::new().expect("dir");
    // A stream is open once its server answers.
    let remote = free_port();
    let _server = server(remote, &["-t", "127.0.0.1:9"]);
    let members = |more: &str| {
        format!(r#""localaddr": "127.0.0.1:0", "remoteaddr": "{remote}", "key": "k"{more}"#)
    };
    written(dir.path(), "client.json", &members(""));
    let client = run(&dir.path().join("client"));
    client.line("listening on");
    let _conn = connect(client.address(""));
    client.line("stream opened");
    written(dir.path(), "client.json", &members(r#", "quiet": true"#));
    hang_up(&client, "quiet changed: in effect");
    let from = client.lines();
    let _conn = connect(client.address(""));
    hang_up(&client, "nothing has changed");
    let all = client.all_from(from);
    assert!(
        all.iter().all(|line| !line.contains("stream opened")),
        "{all:#?}"
    );
}
