//! Threads of the running program, who may have its port, and how many files it may open.
#![cfg(target_os = "linux")]

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStderr, Command, Stdio};

/// The thread that writes the log.
const LOG: usize = 1;

struct Running {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
}

impl Running {
    /// Starts a server with `flags` and lets it come to rest.
    fn server(flags: &[&str]) -> Self {
        Self::start(&[&["server", "-t", "127.0.0.1:1"], flags].concat())
    }

    /// The same with a client.
    fn client(flags: &[&str]) -> Self {
        let ends = ["client", "-l", "127.0.0.1:0", "-r", "127.0.0.1:1"];
        Self::start(&[&ends, flags].concat())
    }

    fn start(args: &[&str]) -> Self {
        let mut running = Self::launch(args);
        running.log_until("listening on");
        running
    }

    fn launch(args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_fulmar"))
            .args(args)
            .env("KCPTUN_KEY", "swordfish")
            .env_remove("FULMAR_LOG")
            .env("FULMAR_DUMPABLE", "yes")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let log = BufReader::new(child.stderr.take().expect("piped")).lines();
        Self { child, log }
    }

    /// The line of the log that has `text`, the next of them.
    fn log_until(&mut self, text: &str) -> String {
        let mut said = Vec::new();
        for line in self.log.by_ref() {
            said.push(line.expect("text"));
            if said.last().is_some_and(|line| line.contains(text)) {
                return said.pop().expect("there is one");
            }
        }
        panic!("no line has \"{text}\": {said:#?}");
    }

    /// Threads that the system counts.
    fn threads(&self) -> usize {
        let tasks = format!("/proc/{}/task", self.child.id());
        std::fs::read_dir(tasks).expect("tasks").count()
    }
}

/// A test that fails leaves no process behind.
impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A UDP port that nobody has at the moment.
fn free_port() -> String {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    format!("127.0.0.1:{}", socket.local_addr().expect("bound").port())
}

#[test]
fn a_second_server_on_the_port_ends_with_1() {
    let port = free_port();
    let mut first = Running::server(&["-l", &port, "--threads", "4"]);
    let output = Command::new(env!("CARGO_BIN_EXE_fulmar"))
        .args(["server", "-t", "127.0.0.1:1", "-key", "k"])
        .args(["-l", &port, "--threads", "4"])
        .output()
        .expect("ran");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let last = text.lines().last().expect("error");
    let start = format!("error: cannot listen on {port}/udp: ");
    assert!(last.starts_with(&start), "{last}");
    assert!(last.contains("in use"), "{last}");
    // The first has not noticed.
    assert!(first.child.try_wait().expect("a child").is_none());
}

#[test]
fn one_thread_is_one_thread_and_the_log_s() {
    let server = Running::server(&["-l", &free_port(), "--threads", "1"]);
    assert_eq!(server.threads(), 1 + LOG);
}

#[test]
fn more_threads_are_as_many_and_the_main_one_and_the_log_s() {
    let server = Running::server(&["-l", &free_port(), "--threads", "3"]);
    assert_eq!(server.threads(), 4 + LOG);
}

#[test]
fn as_many_files_as_the_system_permits() {
    // Started by a shell that lowers what the program begins with.
    let mut child = Command::new("sh")
        .args(["-c", "ulimit -Sn 100 && exec \"$@\"", "sh"])
        .arg(env!("CARGO_BIN_EXE_fulmar"))
        .args(["server", "-t", "127.0.0.1:1", "-l", &free_port()])
        .env("KCPTUN_KEY", "swordfish")
        .env_remove("FULMAR_LOG")
        .env("FULMAR_DUMPABLE", "yes")
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let log = BufReader::new(child.stderr.take().expect("piped")).lines();
    let mut server = Running { child, log };
    server.log_until("listening on");
    let limits = format!("/proc/{}/limits", server.child.id());
    let limits = std::fs::read_to_string(limits).expect("limits");
    let line = limits.lines().find(|l| l.starts_with("Max open files"));
    let words: Vec<&str> = line.expect("a line").split_ascii_whitespace().collect();
    assert_eq!(words[3], words[4], "soft and hard: {words:?}");
    assert_ne!(words[3], "100");
}

#[test]
fn a_thousand_ports_under_a_limit_of_1024_files() {
    let target = TcpListener::bind("127.0.0.1:0").expect("bound");
    let to = target.local_addr().expect("address").to_string();
    let first = 21_000;
    let range = format!("127.0.0.1:{first}-{}", first + 1000);
    let mut child = Command::new("sh")
        .args(["-c", "ulimit -n 1024 && exec \"$@\"", "sh"])
        .arg(env!("CARGO_BIN_EXE_fulmar"))
        .args(["server", "-t", &to, "-l", &range])
        .env("KCPTUN_KEY", "swordfish")
        .env_remove("FULMAR_LOG")
        .env("FULMAR_DUMPABLE", "yes")
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let log = BufReader::new(child.stderr.take().expect("piped")).lines();
    let mut server = Running { child, log };
    server.log_until("listening on");
    let files = format!("/proc/{}/fd", server.child.id());
    let files = std::fs::read_dir(files).expect("files").count();
    assert!((1001..1024).contains(&files), "{files} files");
    // There are some left for connections, and a socket wakes its driver.
    let last = format!("127.0.0.1:{}", first + 1000);
    let args = ["client", "-l", "127.0.0.1:0", "-r", &last];
    let mut client = Running::launch(&args);
    let line = client.log_until("listening on");
    let (_, listen) = line.split_once("listening on ").expect("it says so");
    let mut conn = TcpStream::connect(listen.trim()).expect("connected");
    conn.write_all(b"through").expect("sent");
    let (mut served, _) = target.accept().expect("it arrives");
    let mut got = [0; 7];
    served.read_exact(&mut got).expect("it arrives");
    assert_eq!(&got, b"through");
}

#[test]
fn a_client_with_one_session_needs_one_thread() {
    assert_eq!(Running::client(&[]).threads(), 1 + LOG);
    assert_eq!(Running::client(&["--threads", "2"]).threads(), 3 + LOG);
    assert!(Running::client(&["--conn", "2"]).threads() <= 3 + LOG);
}
