//! kcptun-libev's processes on the loopback device: the real program, as client and server.
#![cfg(unix)]

#[allow(dead_code, reason = "some of it is for the tests of others")]
mod kit;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use kit::{
    Program, SOON, Service, connect, download, echo, file, fulmar, http, pattern, run, service,
    signal, try_echo, wait_for,
};
use tempfile::TempDir;

const SEALED: &str = r#""method": "xchacha20poly1305_ietf", "password": "a rather long password""#;

/// A server and a client with the same members in their files.
struct Pair {
    server: Program,
    client: Program,
    server_file: PathBuf,
    dir: TempDir,
}

impl Pair {
    fn start(target: SocketAddr, both: &str) -> Self {
        Self::with(target, both, both)
    }

    fn with(target: SocketAddr, at_server: &str, at_client: &str) -> Self {
        let dir = TempDir::new().expect("dir");
        let server_file = server_file(dir.path(), target, "127.0.0.1:0", at_server);
        let server = run(&server_file);
        let client = run(&client_file(dir.path(), server.address("/udp"), at_client));
        client.line("listening on");
        Self {
            server,
            client,
            server_file,
            dir,
        }
    }

    fn connect(&self) -> TcpStream {
        connect(self.client.address("/tcp"))
    }
}

fn server_file(dir: &Path, target: SocketAddr, bind: &str, more: &str) -> PathBuf {
    let members = format!(r#""connect": "{target}", "kcp_bind": "{bind}", {more}"#);
    file(dir, "server.json", &members)
}

fn client_file(dir: &Path, server: SocketAddr, more: &str) -> PathBuf {
    let members = format!(r#""listen": "127.0.0.1:0", "kcp_connect": "{server}", {more}"#);
    file(dir, "client.json", &members)
}

#[test]
fn both_directions_and_half_close_with_each_method() {
    let all = [
        None,
        Some("xchacha20poly1305_ietf"),
        Some("xsalsa20poly1305"),
        Some("chacha20poly1305_ietf"),
        Some("aes256gcm"),
    ];
    for method in all {
        let more = match method {
            Some(name) => format!(r#""method": "{name}", "password": "a rather long password""#),
            None => r#""keepalive": 10"#.into(),
        };
        let pair = Pair::start(service(Service::Source), &more);
        // The first request works, and the end of the answer arrives.
        download(pair.connect(), 100);
        download(pair.connect(), 2_000_000);

        let pair = Pair::start(service(Service::Sink), &more);
        let mut conn = pair.connect();
        conn.write_all(&pattern(1_500_000)).expect("sent");
        // The answer comes after our end: half-close works.
        conn.shutdown(Shutdown::Write).expect("half closed");
        let mut answer = String::new();
        conn.read_to_string(&mut answer).expect("answered");
        assert_eq!(answer, "1500000 true", "{method:?}");
    }
}

/// The program under kcptun-libev's name.
fn persona(dir: &Path) -> PathBuf {
    let link = dir.join("kcptun-libev");
    symlink(env!("CARGO_BIN_EXE_fulmar"), &link).expect("linked");
    link
}

fn output(program: &Path, args: &[&str]) -> Output {
    Command::new(program).args(args).output().expect("ran")
}

#[test]
fn its_command_line_under_its_name() {
    let dir = TempDir::new().expect("dir");
    let name = persona(dir.path());

    let help = output(&name, &["-h"]);
    assert_eq!(help.status.code(), Some(0));
    let text = String::from_utf8_lossy(&help.stderr);
    assert!(
        text.contains("--config") && help.stdout.is_empty(),
        "{text}"
    );

    for wrong in [&["--nonsense"][..], &["-c"], &["file.json"], &[]] {
        let said = output(&name, wrong);
        assert_eq!(said.status.code(), Some(1), "{wrong:?}");
        assert!(!said.stderr.is_empty(), "{wrong:?}");
    }
    let missing = output(&name, &["-c", "/nonexistent/file.json"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/nonexistent/file.json"));

    let methods = output(&name, &["--list-methods"]);
    assert_eq!(methods.status.code(), Some(0));
    let methods = String::from_utf8_lossy(&methods.stderr).into_owned();
    assert_eq!(methods.lines().count(), 4, "{methods}");
    assert_eq!(output(&name, &["--genpsk", "rot13"]).status.code(), Some(1));

    // What it prints as a key works as one.
    for method in methods.lines() {
        let psk = output(&name, &["--genpsk", method]);
        assert_eq!(psk.status.code(), Some(0));
        let psk = String::from_utf8(psk.stdout).expect("text");
        let more = format!(r#""method": "{method}", "psk": "{}""#, psk.trim_end());
        let target = service(Service::Echo);
        let server = start_as(
            &name,
            &server_file(dir.path(), target, "127.0.0.1:0", &more),
        );
        let client = client_file(dir.path(), server.address("/udp"), &more);
        let client = start_as(&name, &client);
        echo(&mut connect(client.address("/tcp")), method);
    }
}

fn start_as(name: &Path, file: &Path) -> Program {
    let mut command = Command::new(name);
    command.arg("-c").arg(file);
    Program::start(command)
}

#[test]
fn a_server_that_was_killed_and_started_again() {
    let target = service(Service::Echo);
    let mut pair = Pair::start(target, SEALED);
    let (mut first, mut second) = (pair.connect(), pair.connect());
    echo(&mut first, "one");
    echo(&mut second, "two");
    let bind = pair.server.address("/udp");
    pair.server.end("KILL");
    let file = server_file(pair.dir.path(), target, &bind.to_string(), SEALED);
    pair.server = run(&file);
    pair.server.line("listening on");
    // Nobody knows the old connections: whoever uses them learns it within seconds, and not by their silence.
    for conn in [&mut first, &mut second] {
        conn.set_read_timeout(Some(Duration::from_secs(8)))
            .expect("limit");
        let lost = try_echo(conn, "anybody?").expect_err("lost");
        assert_eq!(lost.kind(), std::io::ErrorKind::ConnectionReset);
    }
    echo(&mut pair.connect(), "new");
}

#[test]
fn reload_changes_the_target_and_refuses_a_broken_file() {
    let mut pair = Pair::start(service(Service::Named("old")), SEALED);
    let mut old = pair.connect();
    expect(&mut old, "old");

    let bind = pair.server.address("/udp").to_string();
    let other = service(Service::Named("new"));
    server_file(pair.dir.path(), other, &bind, SEALED);
    let from = pair.server.lines();
    pair.server.signal("HUP");
    pair.server
        .line_from(from, "the configuration was read again", SOON);
    expect(&mut pair.connect(), "new");
    echo(&mut old, "still here");

    let broken = [
        "{\"connect\": ",
        // Another role.
        r#"{"kcp_bind": "127.0.0.1:0", "log": "stderr"}"#,
    ];
    for text in broken {
        fs::write(&pair.server_file, text).expect("written");
        let from = pair.server.lines();
        pair.server.signal("HUP");
        pair.server
            .line_from(from, "the configuration stays as it is", SOON);
        expect(&mut pair.connect(), "new");
        assert!(pair.server.runs());
    }
}

fn expect(conn: &mut TcpStream, name: &str) {
    let mut said = vec![0; name.len()];
    conn.read_exact(&mut said).expect("read");
    assert_eq!(String::from_utf8_lossy(&said), name);
}

#[test]
fn the_status_page() {
    let dir = TempDir::new().expect("dir");
    let target = service(Service::Echo);
    let server = run(&server_file(dir.path(), target, "127.0.0.1:0", SEALED));
    let bind = server.address("/udp");
    drop(server);
    // Nobody is there yet.
    let more = format!(r#"{SEALED}, "http_listen": "127.0.0.1:0""#);
    let client = run(&client_file(dir.path(), bind, &more));
    let page = client.address("http://");
    assert_eq!(http(page, "GET", "/healthy").0, 503);

    let server = run(&server_file(dir.path(), target, &bind.to_string(), &more));
    server.line("listening on");
    let mut conn = connect(client.address("/tcp"));
    echo(&mut conn, "hello");
    let (status, text) = http(page, "GET", "/healthy");
    assert_eq!(status, 200, "{text}");
    assert!(text.starts_with("healthy"), "{text}");
    assert_eq!(http(server.address("http://"), "GET", "/healthy").0, 200);

    let (status, text) = http(page, "GET", "/stats");
    assert_eq!(status, 200);
    assert!(text.contains("1 connected"), "{text}");
    assert!(text.contains(&format!("peer={bind}")), "{text}");
    let (_, text) = http(page, "POST", "/stats");
    assert!(text.contains("[rx,tx]") && text.contains("load:"), "{text}");
    assert_eq!(http(page, "DELETE", "/stats").0, 405);
    assert_eq!(http(page, "GET", "/nothing").0, 404);
    let (status, text) = http(page, "GET", "/");
    assert_eq!(status, 200);
    for link in ["/healthy", "/stats", "/stats?sessions=all", "/metrics"] {
        let link = format!("href=\"{link}\"");
        assert!(text.contains(&link), "{link}: {text}");
    }

    let (status, text) = http(page, "GET", "/metrics");
    assert_eq!(status, 200);
    let mut values = 0;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').expect("name and value");
        assert!(name.starts_with("fulmar_"), "{line}");
        value.parse::<f64>().expect(line);
        values += 1;
    }
    assert!(values > 20, "{text}");
}

#[test]
fn both_ends_say_that_the_keys_differ() {
    let other = r#""method": "xchacha20poly1305_ietf", "password": "another long password""#;
    let pair = Pair::with(service(Service::Echo), SEALED, other);
    let mut conn = pair.connect();
    conn.write_all(b"hello").expect("sent");
    let limit = Duration::from_secs(10);
    pair.server
        .line_from(0, "they arrive but none opens", limit);
    pair.client.line_from(0, "no answer at all", limit);
}

#[test]
fn interrupt_and_terminate_end_it_well() {
    for name in ["INT", "TERM"] {
        let mut pair = Pair::start(service(Service::Echo), SEALED);
        let mut conn = pair.connect();
        echo(&mut conn, "hello");
        assert_eq!(pair.client.end(name).code(), Some(0));
        assert_eq!(pair.server.end(name).code(), Some(0));
    }
}

/// Ends the process whose id a daemon's parent has printed.
struct Daemon(u32);

impl Drop for Daemon {
    fn drop(&mut self) {
        signal(self.0, "TERM");
    }
}

#[test]
fn a_daemon_says_who_it_is_and_works() {
    let dir = TempDir::new().expect("dir");
    let name = persona(dir.path());
    let target = service(Service::Echo);
    // The daemon cannot be asked for its port.
    let free = std::net::UdpSocket::bind("127.0.0.1:0").expect("bound");
    let bind = free.local_addr().expect("address");
    drop(free);
    let members =
        format!(r#""connect": "{target}", "kcp_bind": "{bind}", "log": "discard", {SEALED}"#);
    let path = file(dir.path(), "server.json", &members);
    let said = Command::new(&name)
        .args(["-d", "-c"])
        .arg(&path)
        .output()
        .expect("ran");
    let id = String::from_utf8_lossy(&said.stdout).trim().parse();
    let text = String::from_utf8_lossy(&said.stderr);
    assert_eq!(said.status.code(), Some(0), "{text}");
    let daemon = Daemon(id.expect("a process id"));
    let id = daemon.0;

    let client = run(&client_file(dir.path(), bind, SEALED));
    echo(&mut connect(client.address("/tcp")), "hello");
    drop(daemon);
    wait_for("the daemon ends", SOON, || {
        // Who is left is one that nobody has waited for.
        let stat = fs::read_to_string(format!("/proc/{id}/stat"));
        stat.map_or(true, |s| s.contains(") Z ")).then_some(())
    });

    // What fails says so where it was started.
    let broken = file(dir.path(), "broken.json", r#""connect": "127.0.0.1:1""#);
    let said = output(&name, &["-d", "-c", broken.to_str().expect("text")]);
    assert_eq!(said.status.code(), Some(1));
    assert!(!said.stderr.is_empty());
}

#[cfg(target_os = "linux")]
#[test]
fn it_works_on_as_another_user() {
    if !nix::unistd::geteuid().is_root() {
        return kit::skipped("it_works_on_as_another_user: only root can become somebody else");
    }
    let more = format!(r#"{SEALED}, "user": "nobody:""#);
    let pair = Pair::start(service(Service::Echo), &more);
    let mut conn = pair.connect();
    echo(&mut conn, "hello");
    for program in [&pair.server, &pair.client] {
        let status = fs::read_to_string(format!("/proc/{}/status", program.id())).expect("status");
        let nobody = nix::unistd::User::from_name("nobody")
            .expect("asked")
            .expect("there is one");
        let ids: Vec<_> = status
            .lines()
            .filter(|line| line.starts_with("Uid:") || line.starts_with("Gid:"))
            .flat_map(|line| line.split_ascii_whitespace().skip(1))
            .map(|id| id.parse::<u32>().expect("number"))
            .collect();
        assert_eq!(ids[..4], [nobody.uid.as_raw(); 4], "{status}");
        assert_eq!(ids[4..], [nobody.gid.as_raw(); 4], "{status}");
        assert!(status.contains("Groups:\t \n"), "{status}");
    }
    // A reload needs no privileges either, if the file may be read.
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(pair.dir.path(), all).expect("changed");
    let from = pair.client.lines();
    pair.client.signal("HUP");
    pair.client
        .line_from(from, "the configuration was read again", SOON);
    echo(&mut conn, "still here");
    echo(&mut pair.connect(), "new");
}

#[test]
fn the_program_refuses_what_the_persona_refuses() {
    let dir = TempDir::new().expect("dir");
    let path = file(
        dir.path(),
        "both.json",
        r#""connect": "127.0.0.1:1", "listen": "127.0.0.1:2""#,
    );
    let said = fulmar()
        .args(["run", "-c"])
        .arg(&path)
        .output()
        .expect("ran");
    assert_ne!(said.status.code(), Some(0));
}

/// The same page for a kcptun tunnel.
#[test]
fn a_kcptun_tunnel_has_a_status_page_too() {
    let mut command = fulmar();
    command.args([
        "server",
        "-l",
        "127.0.0.1:0",
        "-t",
        "127.0.0.1:9",
        "--key",
        "k",
    ]);
    command.args(["--http-listen", "127.0.0.1:0"]);
    // Port 0 is none of kcptun's.
    let refused = command.output().expect("it runs");
    assert_eq!(refused.status.code(), Some(2));
    let mut command = fulmar();
    command.args([
        "client",
        "-l",
        "127.0.0.1:0",
        "-r",
        "127.0.0.1:9",
        "--key",
        "k",
    ]);
    command.args(["--http-listen", "127.0.0.1:0"]);
    let client = Program::start(command);
    let line = client.line("listening on http://");
    let page = line
        .split("http://")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let page = page.and_then(|addr| addr.parse().ok()).expect("an address");
    // Nobody is there, which it finds out although nobody has used it.
    let (status, text) = http(page, "GET", "/healthy");
    assert_eq!((status, text.trim()), (503, "peer unreachable"));
    let (status, text) = http(page, "GET", "/metrics");
    assert_eq!(status, 200);
    assert!(text.contains("fulmar_in_pkts_total 0\n"), "{text}");
    assert_eq!(http(page, "GET", "/stats").0, 200);
}

#[test]
fn a_mistyped_service_id_is_named_at_the_client() {
    let dir = TempDir::new().expect("dir");
    let members = format!(r#""kcp_bind": "127.0.0.1:0", {SEALED}"#);
    let relay = run(&file(dir.path(), "relay.json", &members));
    let at = relay.address("/udp");
    let members = format!(
        r#""listen": "127.0.0.1:0", "rendezvous_server": "{at}", "service_id": "ofice", {SEALED}"#
    );
    let client = run(&file(dir.path(), "client.json", &members));
    let line = client.line("knows no service");
    let said = format!("the relay {at} answers, but knows no service \"ofice\": \"service_id\" ");
    assert!(line.contains(&said), "{line}");
}
