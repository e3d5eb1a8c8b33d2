//! The unit for systemd: what it starts is told from the unit itself, and a service manager of the test's own is told how it goes.
#![cfg(target_os = "linux")]

#[allow(dead_code, reason = "some of it is for the tests of others")]
mod kit;

use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use kit::{Program, SOON, Service, connect, fulmar, run, service};
use tempfile::TempDir;

const UNIT: &str = include_str!("../../../contrib/fulmar@.service");

/// The value of a setting of the unit.
fn setting(name: &str) -> &'static str {
    let mut lines = UNIT.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("the unit has no {name}"))
}

/// A command of the unit, for an instance whose files are in `dir`.
fn command(name: &str, dir: &Path, instance: &str) -> Vec<String> {
    let line = setting(name)
        .replace("/usr/bin/fulmar", env!("CARGO_BIN_EXE_fulmar"))
        .replace("/etc/fulmar", dir.to_str().expect("text"))
        .replace("%i", instance);
    assert!(!line.contains('%'), "{line}");
    line.split(' ').map(str::to_owned).collect()
}

/// What is written to a socket at `path`. It is read all the time: whoever writes does not wait.
fn service_manager(path: &Path) -> Receiver<String> {
    let notify = UnixDatagram::bind(path).expect("bound");
    let (told, inbox) = channel();
    thread::spawn(move || {
        let mut buffer = [0; 1024];
        while let Ok(n) = notify.recv(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
            if told.send(text).is_err() {
                break;
            }
        }
    });
    inbox
}

/// A service as systemd would start it.
struct Unit {
    program: Program,
    told: Receiver<String>,
    dir: TempDir,
    file: PathBuf,
}

impl Unit {
    fn start(name: &str, text: &str) -> Self {
        let dir = TempDir::new().expect("dir");
        let file = dir.path().join(name);
        fs::write(&file, text).expect("written");
        let socket = dir.path().join("notify");
        let told = service_manager(&socket);
        let args = command("ExecStart", dir.path(), "office");
        let mut command = Command::new(&args[0]);
        command
            .args(&args[1..])
            .env("NOTIFY_SOCKET", &socket)
            .env("WATCHDOG_USEC", "200000");
        Self {
            program: Program::start(command),
            told,
            dir,
            file,
        }
    }

    /// The next message that has the assignment `wanted`.
    fn told(&self, wanted: &str) -> String {
        self.next(wanted, |text| text.lines().any(|line| line == wanted))
    }

    /// The next message in whose status line `wanted` is.
    fn status(&self, wanted: &str) -> String {
        self.next(wanted, |text| {
            let mut lines = text.lines();
            lines.any(|line| line.starts_with("STATUS=") && line.contains(wanted))
        })
    }

    fn next(&self, wanted: &str, is_it: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + SOON;
        let mut all = Vec::new();
        while let Ok(text) = self
            .told
            .recv_timeout(end.saturating_duration_since(Instant::now()))
        {
            if is_it(&text) {
                return text;
            }
            all.push(text);
        }
        panic!("not told {wanted}, but {all:#?}");
    }

    fn reload(&self) {
        let line = command("ExecReload", self.dir.path(), "office").join(" ");
        let done = Command::new("sh")
            .args(["-c", &line])
            .env("MAINPID", self.program.id().to_string())
            .status();
        assert!(
            done.is_ok_and(|status: ExitStatus| status.success()),
            "{line}"
        );
    }
}

fn free_port() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
    socket.local_addr().expect("address")
}

fn expect(conn: &mut TcpStream, name: &str) {
    let mut said = vec![0; name.len()];
    conn.read_exact(&mut said).expect("read");
    assert_eq!(String::from_utf8_lossy(&said), name);
}

/// From the start to the end of a server whose file `text` makes, and which `client` reaches.
fn a_life(
    name: &str,
    text: impl Fn(SocketAddr) -> String,
    client: impl FnOnce() -> (Program, SocketAddr),
) {
    let old = service(Service::Named("old"));
    let mut unit = Unit::start(name, &text(old));
    let ready = unit.told("READY=1");
    assert!(ready.contains("STATUS=listening on "), "{ready}");
    unit.told("WATCHDOG=1");
    let (_client, entry) = client();
    expect(&mut connect(entry), "old");

    fs::write(&unit.file, text(service(Service::Named("new")))).expect("written");
    unit.reload();
    let reloading = unit.told("RELOADING=1");
    let us = reloading
        .lines()
        .find_map(|line| line.strip_prefix("MONOTONIC_USEC=")?.parse::<u64>().ok());
    assert!(us.is_some_and(|us| us > 0), "{reloading}");
    unit.told("READY=1");
    expect(&mut connect(entry), "new");

    unit.program.signal("TERM");
    unit.told("STOPPING=1");
    assert_eq!(unit.program.end("TERM").code(), Some(0));
}

#[test]
fn the_unit_runs_a_kcptun_file() {
    let at = free_port();
    let text = |target| format!(r#"{{"listen": "{at}", "target": "{target}", "key": "k"}}"#);
    a_life("office.json", text, || tunnel_client(at, &[]));
}

#[test]
fn the_unit_runs_a_file_of_2016_in_toml() {
    let at = free_port();
    let text = |target| {
        format!("listen = \"{at}\"\ntarget = \"{target}\"\nkey = \"k\"\ncompat = \"2016\"\n")
    };
    a_life("office.toml", text, || {
        tunnel_client(at, &["--compat", "2016"])
    });
}

fn tunnel_client(at: SocketAddr, flags: &[&str]) -> (Program, SocketAddr) {
    let mut command = fulmar();
    command.args(["client", "-l", "127.0.0.1:0", "--key", "k"]);
    command.args(["-r", &at.to_string()]).args(flags);
    let client = Program::start(command);
    let entry = client.address("");
    (client, entry)
}

#[test]
fn the_unit_runs_a_file_of_kcptun_libev() {
    let at = free_port();
    let sealed = r#""method": "aes256gcm", "password": "a rather long password""#;
    let text = |target| {
        format!(r#"{{"kcp_bind": "{at}", "connect": "{target}", "log": "stderr", {sealed}}}"#)
    };
    let dir = TempDir::new().expect("dir");
    let members = format!(r#""listen": "127.0.0.1:0", "kcp_connect": "{at}", {sealed}"#);
    let file = kit::file(dir.path(), "client.json", &members);
    a_life("office.json", text, || {
        let client = run(&file);
        let entry = client.address("/tcp");
        (client, entry)
    });
}

/// At boot, before there is a network.
#[test]
fn a_name_that_does_not_resolve_delays_no_start() {
    let name = "no-such-host.invalid";
    let texts = [
        format!(r#"{{"localaddr": "127.0.0.1:0", "remoteaddr": "{name}:1", "key": "k"}}"#),
        format!(r#"{{"listen": "127.0.0.1:0", "kcp_connect": "{name}:1", "log": "stderr"}}"#),
        format!(r#"{{"kcp_bind": "127.0.0.1:0", "connect": "{name}:1", "log": "stderr"}}"#),
    ];
    for text in texts {
        let mut unit = Unit::start("office.json", &text);
        let missing = format!("; missing: {name} does not resolve");
        // It may have been tried before the start, or after.
        if !unit.told("READY=1").contains(&missing) {
            unit.status(&missing);
        }
        unit.told("WATCHDOG=1");
        assert!(unit.program.runs());
        assert_eq!(unit.program.end("TERM").code(), Some(0));
    }
}

#[test]
fn a_mistake_is_not_tried_again() {
    let status: i32 = setting("RestartPreventExitStatus").parse().expect("number");
    let texts = [
        "{",
        r#"{"listen": 5, "target": "127.0.0.1:1", "key": "k"}"#,
        r#"{"kcp_bind": ":29900", "connect": 5}"#,
    ];
    for text in texts {
        let mut unit = Unit::start("office.json", text);
        assert_eq!(unit.program.wait().code(), Some(status), "{text}");
    }
}

/// What systemd itself thinks of the unit.
#[test]
fn systemd_understands_the_unit() {
    assert_eq!(setting("Type"), "notify");
    let limit = setting("WatchdogSec").strip_suffix('s').expect("seconds");
    assert!(
        limit
            .parse::<u64>()
            .is_ok_and(|s| Duration::from_secs(s) >= Duration::from_secs(10))
    );
    let dir = TempDir::new().expect("dir");
    let path = dir.path().join("fulmar@.service");
    // The program need not be installed.
    let unit = UNIT.replace("/usr/bin/fulmar", env!("CARGO_BIN_EXE_fulmar"));
    fs::write(&path, unit).expect("written");
    let verified = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(dir.path().join("fulmar@office.service"))
        .env("SYSTEMD_UNIT_PATH", format!("{}:", dir.path().display()))
        .output();
    let Ok(output) = verified else {
        return kit::skipped("systemd_understands_the_unit: there is no systemd-analyze");
    };
    let text = String::from_utf8_lossy(&output.stderr);
    let ours: Vec<_> = text
        .lines()
        .filter(|line| line.contains("fulmar@"))
        .collect();
    assert!(ours.is_empty(), "{text}");
}
