//! The running program: what it logs at start, and what signals do. The client listens on a Unix socket, and
//! nobody answers at the port where it looks for its server.
#![cfg(unix)]

#[allow(dead_code, reason = "some of it is for the tests of others")]
mod kit;

use std::io::{BufRead, BufReader, Lines};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};

use tempfile::TempDir;

struct Client {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
    socket: PathBuf,
    _dir: TempDir,
}

impl Client {
    /// Starts it with `key` and more flags.
    fn start(flags: &[&str]) -> Self {
        let dir = TempDir::new().expect("dir");
        let socket = dir.path().join("client.sock");
        let mut child = Command::new(env!("CARGO_BIN_EXE_fulmar"))
            .args(["client", "-r", "127.0.0.1:1", "-l"])
            .arg(&socket)
            .args(flags)
            .env("KCPTUN_KEY", "swordfish")
            .env_remove("FULMAR_LOG")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let log = BufReader::new(child.stderr.take().expect("piped")).lines();
        Self {
            child,
            log,
            socket,
            _dir: dir,
        }
    }

    /// The log up to and with the line that has `text`.
    fn log_until(&mut self, text: &str) -> Vec<String> {
        let mut lines = Vec::new();
        for line in self.log.by_ref() {
            lines.push(line.expect("text"));
            if lines.last().is_some_and(|line| line.contains(text)) {
                return lines;
            }
        }
        panic!("no line has \"{text}\": {lines:#?}");
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args(["-s", name, &self.child.id().to_string()])
            .status()
            .expect("kill");
        assert!(sent.success());
    }

    fn end(&mut self) -> ExitStatus {
        self.child.wait().expect("ended")
    }
}

/// A test that fails leaves no process behind.
impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_log_begins_with_what_matters() {
    let mut client = Client::start(&["-mode=nonsense"]);
    let lines = client.log_until("listening on");
    client.signal("TERM");
    let rest: Vec<&str> = lines
        .iter()
        .map(|line| line.splitn(3, ' ').nth(2).expect("date, time, rest"))
        .collect();
    assert_eq!(
        rest[0],
        concat!("INFO fulmar ", env!("CARGO_PKG_VERSION"), " client")
    );
    let has = |start: &str| {
        assert!(
            rest.iter().any(|line| line.starts_with(start)),
            "{start}: {rest:#?}"
        );
    };
    assert!(
        rest[1].starts_with("INFO addresses: localaddr "),
        "{rest:#?}"
    );
    has("INFO equal at both ends: key (9 bytes), crypt aes, QPP off, compression on, smuxver 2");
    has("INFO not the defaults: mode nonsense");
    has("WARN command line, -mode: \"nonsense\" is no mode, and means manual as in kcptun; ");
    assert!(!lines.iter().any(|line| line.contains("swordfish")));
    client.end();
}

#[test]
fn the_block_at_start_has_ten_lines_and_all_on_demand() {
    // Every flag that the next line has is wrong in its own way.
    let odd = [
        "-mode=x",
        "-dscp=64",
        "-sockbuf=0",
        "-ratelimit=-1",
        "-autoexpire=-1",
        "-closewait=-1",
        "-scavengettl=-1",
        "-mtu=9",
        "-sndwnd=0",
        "-rcvwnd=0",
        "-snmpperiod=-1",
        "-crypt=y",
        "-conn=7",
        "-keepalive=9",
        "-framesize=9000",
        "-nocomp",
        "-quiet",
    ];
    let mut client = Client::start(&odd);
    let lines = client.log_until("listening on");
    client.signal("TERM");
    assert_eq!(lines.len(), 11, "{lines:#?}");
    assert!(
        lines[9].ends_with("more warnings: --verbose, or fulmar check -c FILE, shows them"),
        "{lines:#?}"
    );
    client.end();

    let mut client = Client::start(&[&odd[..], &["--verbose"]].concat());
    let lines = client.log_until("listening on");
    client.signal("TERM");
    for text in [
        "INFO Addresses",
        "INFO   streambuf    2 MiB",
        "-closewait: -1 means 0",
    ] {
        let found = lines.iter().any(|line| line.contains(text));
        assert!(found, "{text}: {lines:#?}");
    }
    client.end();
}

#[test]
fn interrupt_and_terminate_end_well_and_leave_no_socket_file() {
    for name in ["INT", "TERM"] {
        let mut client = Client::start(&[]);
        client.log_until("listening on");
        assert!(client.socket.exists());
        client.signal(name);
        let said = client.log_until("stopping after");
        assert!(
            said.last()
                .is_some_and(|line| line.ends_with(&format!("SIG{name}")))
        );
        assert_eq!(client.end().code(), Some(0), "{name}");
        assert!(!client.socket.exists(), "{name}");
    }
}

#[test]
fn the_user_signal_logs_the_counters() {
    let mut client = Client::start(&[]);
    client.log_until("listening on");
    client.signal("USR1");
    let lines = client.log_until("KCP SNMP:&{");
    assert!(
        lines
            .last()
            .is_some_and(|line| line.contains("BytesReceived:0 ")),
        "{lines:?}"
    );
    client.signal("TERM");
    client.end();
}

#[test]
fn an_address_in_use_ends_with_1() {
    let mut first = Client::start(&[]);
    first.log_until("listening on");
    let output = Command::new(env!("CARGO_BIN_EXE_fulmar"))
        .args(["client", "-r", "127.0.0.1:1", "-key", "k", "-l"])
        .arg(&first.socket)
        .output()
        .expect("ran");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let last = text.lines().last().expect("error");
    assert!(
        last.starts_with("error: cannot listen on ") && last.contains("client.sock"),
        "{last}"
    );
    first.signal("TERM");
    assert!(first.end().success());
}

/// What starts kcptun may wait for this line, with its colon.
#[test]
fn under_kcptuns_names_the_line_that_it_listens_has_a_colon() {
    let dir = TempDir::new().expect("dir");
    for (name, flag, colon) in [
        ("kcptun-server", "-t", true),
        ("kcps", "-t", true),
        ("kcptun", "-t", true),
        ("kcptun", "-r", true),
        ("client_linux_amd64", "-r", true),
        ("fulmar", "-t", false),
        ("fulmar", "-r", false),
    ] {
        let path = dir.path().join(name);
        if !path.exists() {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_fulmar"), &path).expect("linked");
        }
        let mut command = Command::new(path);
        if name == "fulmar" {
            command.arg(if flag == "-t" { "server" } else { "client" });
        }
        // A server cannot let the system choose.
        let port = std::net::UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let listen = port.expect("a free port").to_string();
        command.args(["-l", &listen, flag, "127.0.0.1:1", "--key", "k"]);
        let program = kit::Program::start(command);
        let line = program.line("listening on");
        let (_, rest) = line.split_once("listening on").expect("has it");
        let begins = format!("{} {listen}", if colon { ":" } else { "" });
        assert!(rest.starts_with(&begins), "{name} {flag}: {line}");
    }
}
