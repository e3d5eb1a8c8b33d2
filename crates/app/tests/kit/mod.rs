//! What tests of whole processes need: the program with its log, services to be reached, applications.

#[cfg(target_os = "linux")]
pub(crate) mod namespaces;
pub(crate) mod pair;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take that should happen soon; machines that run tests are slow.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Says something past the test runner, which keeps quiet about tests that pass.
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Says that a test does nothing here.
#[cfg(target_os = "linux")]
pub(crate) fn skipped(why: &str) {
    say(&format!("SKIPPED: {why}"));
}

/// Waits until `done` gives something.
pub(crate) fn wait_for<T>(what: &str, limit: Duration, mut done: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(Instant::now() < end, "{what}: not within {limit:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    more: Condvar,
}

/// A running program. One that a test has not ended is killed.
pub(crate) struct Program {
    child: Child,
    log: Arc<Log>,
    ended: Option<ExitStatus>,
}

impl Program {
    /// Starts `command`, whose standard error is its log.
    pub(crate) fn start(mut command: Command) -> Self {
        command.env_remove("FULMAR_LOG");
        Self::spawn(command)
    }

    /// The same with other levels of the log.
    pub(crate) fn start_with_levels(mut command: Command, levels: &str) -> Self {
        command.env("FULMAR_LOG", levels);
        Self::spawn(command)
    }

    /// The same with more of an environment.
    pub(crate) fn start_with(mut command: Command, environment: &[(&str, &str)]) -> Self {
        command.env_remove("FULMAR_LOG");
        let all = [("FULMAR_LOG_LINES", "all")];
        Self::spawn_in(command, all.iter().chain(environment))
    }

    /// The same with the limits of lines that a log has, which the other ones have not: a test does in a moment what takes people
    /// minutes.
    pub(crate) fn start_with_limits(mut command: Command, levels: &str) -> Self {
        command.env("FULMAR_LOG", levels);
        Self::spawn_with(command, "limited")
    }

    fn spawn(command: Command) -> Self {
        Self::spawn_with(command, "all")
    }

    fn spawn_with(command: Command, lines: &str) -> Self {
        // Some tests look into processes, which are closed otherwise.
        let environment = [("FULMAR_LOG_LINES", lines), ("FULMAR_DUMPABLE", "yes")];
        Self::spawn_in(command, environment.iter())
    }

    fn spawn_in<'a>(
        mut command: Command,
        environment: impl Iterator<Item = &'a (&'a str, &'a str)>,
    ) -> Self {
        let mut child = command
            .envs(environment.copied())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let log = Arc::new(Log::default());
        let filled = Arc::clone(&log);
        thread::spawn(move || {
            for line in stderr.lines() {
                let Ok(line) = line else { break };
                filled.lines.lock().expect("log").push(line);
                filled.more.notify_all();
            }
        });
        Self {
            child,
            log,
            ended: None,
        }
    }

    /// The first line of the log that has `text`, from line `from` on; waits for it.
    pub(crate) fn line_from(&self, from: usize, text: &str, limit: Duration) -> String {
        let end = Instant::now() + limit;
        let mut lines = self.log.lines.lock().expect("log");
        loop {
            let found = lines.iter().skip(from).find(|line| line.contains(text));
            if let Some(line) = found {
                return line.clone();
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no line has \"{text}\": {lines:#?}");
            lines = self.log.more.wait_timeout(lines, left).expect("log").0;
        }
    }

    /// The first line of the log so far that is `wanted`.
    pub(crate) fn find(&self, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let lines = self.log.lines.lock().expect("log");
        lines.iter().find(|line| wanted(line)).cloned()
    }

    /// How many lines of the log so far have `text`.
    pub(crate) fn count(&self, text: &str) -> usize {
        let lines = self.log.lines.lock().expect("log");
        lines.iter().filter(|line| line.contains(text)).count()
    }

    pub(crate) fn line(&self, text: &str) -> String {
        self.line_from(0, text, SOON)
    }

    /// The log so far.
    pub(crate) fn log(&self) -> String {
        self.log.lines.lock().expect("log").join("\n")
    }

    /// Lines in the log so far.
    pub(crate) fn lines(&self) -> usize {
        self.log.lines.lock().expect("log").len()
    }

    /// The lines of the log from line `from` on.
    pub(crate) fn all_from(&self, from: usize) -> Vec<String> {
        self.log.lines.lock().expect("log")[from..].to_vec()
    }

    /// The addresses that it listens on, by kind: `/tcp`, `/udp`, `http://`.
    pub(crate) fn address(&self, kind: &str) -> SocketAddr {
        let line = self.line("listening on ");
        let list = line.split_once("listening on ").expect("has it").1;
        let mut all = list.split([' ', ',']);
        let text = all.find_map(|part| {
            let part = part.trim();
            part.strip_suffix(kind).or_else(|| part.strip_prefix(kind))
        });
        text.unwrap_or_else(|| panic!("{kind} in {list}"))
            .parse()
            .expect("address")
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.id(), name);
    }

    /// Ends it with a signal; its exit.
    pub(crate) fn end(&mut self, name: &str) -> ExitStatus {
        self.signal(name);
        self.wait()
    }

    /// Waits until it ends by itself; its exit.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let status = wait_for("the program ends", SOON, || {
            self.child.try_wait().expect("waited")
        });
        self.ended = Some(status);
        status
    }

    /// It has not ended.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().expect("waited").is_none()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.ended.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if thread::panicking() {
            let lines = self.log.lines.lock().map(|l| l.clone());
            let lines = lines.unwrap_or_default();
            say(&format!("log of {}: {lines:#?}", self.id()));
        }
    }
}

/// Sends a signal to one process.
pub(crate) fn signal(id: u32, name: &str) {
    let sent = Command::new("kill")
        .args(["-s", name, &id.to_string()])
        .status()
        .expect("kill");
    assert!(sent.success(), "SIG{name} to {id}");
}

/// The program.
pub(crate) fn fulmar() -> Command {
    Command::new(env!("CARGO_BIN_EXE_fulmar"))
}

/// Writes a file of kcptun-libev's; `members` is the inside of the object.
pub(crate) fn file(dir: &Path, name: &str, members: &str) -> PathBuf {
    let path = dir.join(name);
    let text = format!("{{\"loglevel\": 6, \"log\": \"stderr\", {members}}}\n");
    std::fs::write(&path, text).expect("written");
    path
}

/// Starts the program with a file.
pub(crate) fn run(file: &Path) -> Program {
    let mut command = fulmar();
    command.args(["run", "-c"]).arg(file);
    Program::start(command)
}

/// What a service does with a connection.
#[derive(Copy, Clone)]
pub(crate) enum Service {
    /// Sends back what comes, and ends when the other side has.
    Echo,
    /// Says its name, and goes on as [`Self::Echo`].
    Named(&'static str),
    /// Reads 8 bytes, a number in network order, and sends so many bytes of [`pattern`].
    Source,
    /// Reads to the end, and then answers with how many bytes of [`pattern`] there were.
    Sink,
}

/// Serves for ever on `listener`.
pub(crate) fn serve(listener: TcpListener, service: Service) -> SocketAddr {
    let addr = listener.local_addr().expect("address");
    thread::spawn(move || {
        for conn in listener.incoming() {
            let Ok(conn) = conn else { break };
            // Who has gone need not be served.
            thread::spawn(move || drop(served(conn, service)));
        }
    });
    addr
}

fn served(mut conn: TcpStream, service: Service) -> io::Result<()> {
    match service {
        Service::Source => {
            let mut size = [0; 8];
            conn.read_exact(&mut size)?;
            let size = usize::try_from(u64::from_be_bytes(size)).expect("fits");
            conn.write_all(&pattern(size))?;
            return conn.shutdown(Shutdown::Write);
        }
        Service::Sink => {
            let mut all = Vec::new();
            conn.read_to_end(&mut all)?;
            let good = all == pattern(all.len());
            let answer = format!("{} {good}", all.len());
            conn.write_all(answer.as_bytes())?;
            return conn.shutdown(Shutdown::Write);
        }
        Service::Named(name) => conn.write_all(name.as_bytes())?,
        Service::Echo => {}
    }
    let mut buffer = [0; 16384];
    loop {
        let n = conn.read(&mut buffer)?;
        if n == 0 {
            return conn.shutdown(Shutdown::Write);
        }
        conn.write_all(&buffer[..n])?;
    }
}

/// Bytes that repeat late and unevenly.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (i % 251) as u8 ^ (i / 65_537) as u8)
        .collect()
}

/// A service on the loopback device.
pub(crate) fn service(service: Service) -> SocketAddr {
    serve(TcpListener::bind("127.0.0.1:0").expect("bound"), service)
}

/// An application's connection, with limits on waiting.
pub(crate) fn connect(addr: SocketAddr) -> TcpStream {
    let conn = TcpStream::connect_timeout(&addr, SOON).expect("connected");
    conn.set_read_timeout(Some(SOON)).expect("limit");
    conn.set_write_timeout(Some(SOON)).expect("limit");
    conn
}

/// Sends `text` and reads it back.
pub(crate) fn try_echo(conn: &mut TcpStream, text: &str) -> io::Result<()> {
    conn.write_all(text.as_bytes())?;
    let mut back = vec![0; text.len()];
    conn.read_exact(&mut back)?;
    assert_eq!(String::from_utf8_lossy(&back), text);
    Ok(())
}

pub(crate) fn echo(conn: &mut TcpStream, text: &str) {
    try_echo(conn, text).unwrap_or_else(|e| panic!("{text}: {e}"));
}

/// Fetches `len` bytes from [`Service::Source`] through `conn`, to the end.
pub(crate) fn download(mut conn: TcpStream, len: usize) {
    conn.write_all(&(len as u64).to_be_bytes()).expect("asked");
    let mut all = Vec::with_capacity(len);
    conn.read_to_end(&mut all).expect("read");
    assert_eq!(all.len(), len);
    assert!(all == pattern(len), "the bytes are others");
}

/// The status and the body of an answer.
pub(crate) fn http(addr: SocketAddr, method: &str, path: &str) -> (u16, String) {
    let mut conn = connect(addr);
    write!(conn, "{method} {path} HTTP/1.1\r\nHost: here\r\n\r\n").expect("asked");
    let mut answer = String::new();
    conn.read_to_string(&mut answer).expect("answered");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).expect("status");
    (status.parse().expect("number"), body.to_owned())
}
