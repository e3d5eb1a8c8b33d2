//! A log that blocks, and what else becomes of log lines of the running program.
#![cfg(target_os = "linux")]

#[allow(dead_code, reason = "some of it is for the tests of others")]
mod kit;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, PipeReader, Read};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};

use kit::{SOON, Service, connect, echo, fulmar, service, signal, wait_for};

/// A client or server of kcptun's dialect whose standard error goes where a test wants it.
struct Quiet(Child);

impl Quiet {
    fn start(args: &[&str], stderr: impl Into<Stdio>, prepare: impl FnOnce(&mut Command)) -> Self {
        let mut command = fulmar();
        command
            .args(args)
            .env("KCPTUN_KEY", "swordfish")
            .env_remove("FULMAR_LOG")
            .env("FULMAR_DUMPABLE", "yes")
            .stdin(Stdio::null())
            .stderr(stderr);
        prepare(&mut command);
        Self(command.spawn().expect("started"))
    }

    /// Asks for the counters, which are two lines of a kilobyte each.
    fn report(&self) {
        signal(self.0.id(), "USR1");
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
    socket.local_addr().expect("address")
}

/// A TCP port that nobody has at the moment.
fn free_tcp_port() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    listener.local_addr().expect("address")
}

/// A connection as soon as somebody listens.
fn connect_soon(addr: SocketAddr) -> TcpStream {
    wait_for("somebody listens", SOON, || TcpStream::connect(addr).ok());
    connect(addr)
}

/// Both ends of a tunnel, each with a pipe as its log that nobody reads.
struct Stuck {
    ends: [Quiet; 2],
    logs: [PipeReader; 2],
    client: SocketAddr,
}

impl Stuck {
    fn start() -> Self {
        let (udp, tcp) = (free_port().to_string(), free_tcp_port());
        let target = service(Service::Echo).to_string();
        let (server_log, server_stderr) = std::io::pipe().expect("pipe");
        let (client_log, client_stderr) = std::io::pipe().expect("pipe");
        let local = tcp.to_string();
        let server = ["server", "-l", &udp, "-t", &target];
        let client = ["client", "-l", &local, "-r", &udp];
        Self {
            ends: [
                Quiet::start(&server, server_stderr, |_| {}),
                Quiet::start(&client, client_stderr, |_| {}),
            ],
            logs: [server_log, client_log],
            client: tcp,
        }
    }

    /// Has both ends log until their logs are full, and goes on for a while; `conn` works all the time.
    fn fill(&self, conn: &mut TcpStream) {
        for round in 0..800 {
            for end in &self.ends {
                end.report();
            }
            echo(conn, &format!("round {round}"));
            if round % 200 == 0 {
                echo(&mut connect(self.client), "another one");
            }
        }
    }
}

/// Standard error is a pipe that nobody reads: `screen`, a supervisor, `2>&1 | sed` that was stopped.
#[test]
fn a_log_that_nobody_reads_stops_no_connection() {
    let Stuck {
        mut ends,
        logs,
        client,
    } = {
        let stuck = Stuck::start();
        let mut conn = connect_soon(stuck.client);
        stuck.fill(&mut conn);
        stuck
    };
    // Somebody reads again: what is missing is counted, and then lines come as before.
    for (end, log) in ends.iter().zip(logs) {
        let mut lines = BufReader::new(log).lines();
        let mut next = |text: &str| {
            let found = lines.by_ref().map(|line| line.expect("text"));
            let mut found = found.skip_while(|line| !line.contains(text));
            found.next().expect("a line")
        };
        let notice = next(" log lines dropped here: ");
        let count = notice.split(' ').find_map(|word| word.parse::<u64>().ok());
        assert!(count.is_some_and(|n| n > 10), "{notice}");
        assert!(notice.contains(" WARN "), "{notice}");
        end.report();
        next("KCP SNMP:");
    }
    echo(&mut connect(client), "still here");
    for end in &mut ends {
        signal(end.0.id(), "TERM");
        let status = wait_for("it ends", SOON, || end.0.try_wait().expect("waited"));
        assert_eq!(status.code(), Some(0));
    }
}

/// What nobody reads cannot keep a program from ending, either.
#[test]
fn a_log_that_nobody_reads_does_not_keep_the_program() {
    let mut stuck = Stuck::start();
    stuck.fill(&mut connect_soon(stuck.client));
    for end in &mut stuck.ends {
        signal(end.0.id(), "TERM");
        let status = wait_for("it ends", SOON, || end.0.try_wait().expect("waited"));
        assert_eq!(status.code(), Some(0));
    }
}

/// The flags of a descriptor belong to all who share it: the terminal of a shell.
#[test]
fn inherited_descriptors_keep_their_flags() {
    let (log, stderr) = std::io::pipe().expect("pipe");
    let ours = stderr.try_clone().expect("descriptor");
    let local = free_tcp_port().to_string();
    let args = ["client", "-l", &local, "-r", "127.0.0.1:1"];
    let client = Quiet::start(&args, stderr, |_| {});
    let mut lines = BufReader::new(log).lines();
    lines
        .find(|line| {
            line.as_ref()
                .is_ok_and(|line| line.contains("listening on"))
        })
        .expect("a line")
        .expect("text");
    let flags = |who: &str, fd: i32| {
        let info = fs::read_to_string(format!("/proc/{who}/fdinfo/{fd}")).expect("info");
        let line = info.lines().find(|line| line.starts_with("flags:"));
        let text = line.and_then(|line| line.split_ascii_whitespace().nth(1));
        u32::from_str_radix(text.expect("flags"), 8).expect("octal")
    };
    const O_NONBLOCK: u32 = 0o4000;
    let ours = std::os::fd::AsRawFd::as_raw_fd(&ours);
    assert_eq!(flags("self", ours) & O_NONBLOCK, 0);
    assert_eq!(flags(&client.0.id().to_string(), 2) & O_NONBLOCK, 0);
}

/// Starts a client under a limit on its address space, in kilobytes; whether it comes to listen.
fn starts_within(kilobytes: u64) -> bool {
    let script = format!("ulimit -v {kilobytes} && exec \"$@\"");
    let mut child = Command::new("sh")
        .args(["-c", &script, "sh", env!("CARGO_BIN_EXE_fulmar"), "client"])
        .args(["-l", "127.0.0.1:0", "-r", "127.0.0.1:1", "--threads", "1"])
        .env("KCPTUN_KEY", "swordfish")
        .env_remove("FULMAR_LOG")
        .env("FULMAR_DUMPABLE", "yes")
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let log = BufReader::new(child.stderr.take().expect("piped"));
    let found = log.lines().map_while(Result::ok);
    let listens = found.into_iter().any(|line| line.contains("listening on"));
    let _ = child.kill();
    let _ = child.wait();
    listens
}

/// Routers limit it. An ordinary thread would reserve 64 MiB and more.
#[test]
fn the_log_s_thread_needs_next_to_no_address_space() {
    let (log, stderr) = std::io::pipe().expect("pipe");
    let local = free_tcp_port().to_string();
    let args = [
        "client",
        "-l",
        &local,
        "-r",
        "127.0.0.1:1",
        "--threads",
        "1",
    ];
    let client = Quiet::start(&args, stderr, |_| {});
    let mut lines = BufReader::new(log).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("listening on")));
    // Nor when it works.
    for _ in 0..20 {
        client.report();
        assert!(lines.any(|line| line.contains("Fulmar:{")));
    }
    let proc = format!("/proc/{}", client.0.id());
    let status = fs::read_to_string(format!("{proc}/status")).expect("status");
    let kilobytes = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        let number = line.and_then(|line| line.split_ascii_whitespace().nth(1));
        number.expect(name).parse::<u64>().expect("number")
    };
    // What no file is behind: heap, stacks, buffers.
    let maps = fs::read_to_string(format!("{proc}/maps")).expect("maps");
    let anonymous: u64 = maps
        .lines()
        .filter(|line| !line.contains(" /"))
        .filter(|line| !line.ends_with("[vsyscall]"))
        .map(|line| {
            let range = line.split(' ').next().expect("range");
            let (from, to) = range.split_once('-').expect("range");
            let number = |text| u64::from_str_radix(text, 16).expect("address");
            (number(to) - number(from)) / 1024
        })
        .sum();
    // About 400 without the log's thread, whose stack has 64, and 2048 of the session that is made at the start: where runs of
    // datagrams are received. The rest is for other systems.
    assert!(anonymous < 2048 + 1024, "{anonymous} kB\n{maps}");
    assert!(starts_within(kilobytes("VmPeak:") + 64));
    assert!(!starts_within(kilobytes("VmPeak:") / 2));
}

/// systemd says by device and inode which stream is its journal.
#[test]
fn a_journal_gets_levels_and_no_second_time() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("journal");
    let journal = File::create(&path).expect("created");
    let meta = journal.metadata().expect("metadata");
    let stream = format!("{}:{}", meta.dev(), meta.ino());
    let local = free_tcp_port().to_string();
    let args = ["client", "-l", &local, "-r", "127.0.0.1:1"];
    let text = || fs::read_to_string(&path).expect("read");
    let client = Quiet::start(&args, journal, |command| {
        command.env("JOURNAL_STREAM", stream);
    });
    wait_for("it listens", SOON, || {
        text().contains("listening on").then_some(())
    });
    drop(client);
    for line in text().lines() {
        let rest = line.strip_prefix("<6>").or(line.strip_prefix("<4>"));
        let first = rest.and_then(|rest| rest.chars().next());
        assert!(first.is_some_and(|c| !c.is_ascii_digit()), "{line}");
    }
    // What ends the program has its level as well, on each line.
    let journal = File::create(&path).expect("created");
    let meta = journal.metadata().expect("metadata");
    let stream = format!("{}:{}", meta.dev(), meta.ino());
    let mut refused = Quiet::start(&["client", "--nonsense"], journal, |command| {
        command.env("JOURNAL_STREAM", stream);
    });
    let status = wait_for("it ends", SOON, || refused.0.try_wait().expect("waited"));
    assert_eq!(status.code(), Some(2));
    let text = text();
    assert!(
        !text.is_empty() && text.lines().all(|line| line.starts_with("<3>")),
        "{text}"
    );
}

/// What is logged last is there when the program has ended.
#[test]
fn the_last_line_is_written_before_the_end() {
    let (mut log, stderr) = std::io::pipe().expect("pipe");
    let local = free_tcp_port().to_string();
    let args = ["client", "-l", &local, "-r", "127.0.0.1:1"];
    let mut client = Quiet::start(&args, stderr, |_| {});
    drop(connect_soon(local.parse().expect("address")));
    signal(client.0.id(), "TERM");
    let status = wait_for("it ends", SOON, || client.0.try_wait().expect("waited"));
    assert!(status.success());
    let mut text = String::new();
    log.read_to_string(&mut text).expect("text");
    assert!(text.contains("stopping after SIGTERM\n"), "{text}");
}

/// A port that is taken, with the log in a file: said on standard error and in the file.
#[test]
fn an_error_is_on_standard_error_wherever_the_log_is() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let local = taken.local_addr().expect("address").to_string();
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("log");
    let output = fulmar()
        .args(["client", "-l", &local, "-r", "127.0.0.1:1", "--log"])
        .arg(&path)
        .env("KCPTUN_KEY", "k")
        .output()
        .expect("ran");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.starts_with("error: cannot listen on"), "{text}");
    let logged = fs::read_to_string(&path).expect("log");
    assert!(logged.contains("ERROR cannot listen on"), "{logged}");
}

/// Rotated while lines come: none is lost, and what comes after the signal is in the new file.
#[test]
fn a_hangup_opens_the_log_file_again() {
    let dir = tempfile::tempdir().expect("dir");
    let (path, old) = (dir.path().join("log"), dir.path().join("log.1"));
    let local = free_tcp_port().to_string();
    let file = path.to_str().expect("text");
    let args = ["client", "-l", &local, "-r", "127.0.0.1:1", "--log", file];
    let client = Quiet::start(&args, Stdio::null(), |_| {});
    let contains = |path: &std::path::Path, text: &str| {
        fs::read_to_string(path)
            .is_ok_and(|all| all.contains(text))
            .then_some(())
    };
    wait_for("it listens", SOON, || contains(&path, "listening on"));
    fs::rename(&path, &old).expect("renamed");
    client.report();
    wait_for("the counters", SOON, || contains(&old, "Fulmar:{"));
    signal(client.0.id(), "HUP");
    wait_for("the new file", SOON, || {
        contains(&path, "opened the log file anew")
    });
}
