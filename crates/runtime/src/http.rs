//! The HTTP status interface (section 16 of the specification of kcptun-libev): `/healthy`, `/stats`, and `/metrics`
//! for Prometheus.
//!
//! [`serve`] speaks HTTP and knows nothing of tunnels; what it says comes from a [`StatusSource`]. [`Rates`],
//! [`health`] and [`metrics_text`] turn plain data into the texts.

use std::fmt::Write as _;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fulmar_config::{gotime, localtime};
use fulmar_session::Counters;
use fulmar_session::counters::Kind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Longest request, in bytes: its line and headers.
const MAX_REQUEST: usize = 4095;
/// Connections at one time; more wait for one of them to end.
const MAX_CONNECTIONS: usize = 64;
/// What one connection may take.
const LIMIT: Duration = Duration::from_secs(15);
/// How long, and for how many bytes, a body that nobody wants is read after the answer: closed earlier, the connection
/// would be reset, and the answer with it.
const LINGER: (Duration, usize) = (Duration::from_secs(1), 64 * 1024);
/// Pause after a connection that could not be accepted, for instance for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is said about the program.
pub trait StatusSource: Send + Sync {
    /// Status code and one line of text, without its end; see [`health`].
    fn healthy(&self) -> (u16, String);
    /// The text of `/stats`; with `post` the rates since the last such request are in it. See [`Rates::text`].
    fn stats(
        self: Arc<Self>,
        query: StatsQuery,
        post: bool,
    ) -> Pin<Box<dyn Future<Output = String> + Send>>;
    /// The text of `/metrics`; see [`metrics_text`].
    fn metrics(&self) -> String;
}

/// Which sessions `/stats` lists.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Listed {
    /// None.
    None,
    /// Those that are established.
    #[default]
    Connected,
    /// All but those that are only remembered.
    Active,
    /// All.
    All,
}

/// The query of `/stats`.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct StatsQuery {
    /// `sessions`: which of them are listed.
    pub sessions: Listed,
    /// `nobanner`: name and version are left out.
    pub nobanner: bool,
}

impl Default for StatsQuery {
    fn default() -> Self {
        Self {
            sessions: Listed::default(),
            nobanner: true,
        }
    }
}

impl StatsQuery {
    /// Reads what stands behind the `?`. Unknown keys and values change nothing; of a key that is repeated the last
    /// counts.
    #[must_use]
    pub fn parse(query: &str) -> Self {
        let mut out = Self::default();
        for pair in query.split('&') {
            let (key, value) = match pair.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (pair, None),
            };
            match (key, value) {
                ("sessions", Some("0" | "none")) => out.sessions = Listed::None,
                ("sessions", Some("1" | "connected")) => out.sessions = Listed::Connected,
                ("sessions", Some("2" | "active")) => out.sessions = Listed::Active,
                ("sessions", Some("3" | "all")) => out.sessions = Listed::All,
                ("nobanner", value) => {
                    out.nobanner =
                        matches!(value, None | Some("1" | "y" | "yes" | "on" | "t" | "true"));
                }
                _ => {}
            }
        }
        out
    }
}

/// Answers on `listener` until the future is dropped; connections end with it.
pub async fn serve(listener: TcpListener, source: Arc<dyn StatusSource>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    let source = Arc::clone(&source);
                    connections.spawn(async move {
                        // Who is too slow, or goes away, gets nothing.
                        let _ = timeout(LIMIT, converse(stream, source)).await;
                    });
                }
                Err(e) => {
                    tracing::debug!("HTTP: a connection cannot be accepted: {e}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One request and its answer.
async fn converse(mut stream: TcpStream, source: Arc<dyn StatusSource>) -> io::Result<()> {
    let mut request = Vec::with_capacity(512);
    let answer = loop {
        // One byte more than is permitted, to see that there is more.
        let room = MAX_REQUEST + 1 - request.len();
        let n = (&mut stream)
            .take(room as u64)
            .read_buf(&mut request)
            .await?;
        if let Some(end) = head_end(&request) {
            break match end <= MAX_REQUEST {
                true => respond(&request[..end], source).await,
                false => Answer::error(413),
            };
        }
        match n {
            // Nothing, as of somebody who only looks whether the port is open.
            0 if request.is_empty() => return Ok(()),
            0 => break Answer::error(400),
            _ if request.len() > MAX_REQUEST => break Answer::error(413),
            _ => {}
        }
    };
    stream
        .write_all(&answer.bytes(unix_seconds(SystemTime::now())))
        .await?;
    stream.shutdown().await?;
    let _ = timeout(LINGER.0, async {
        let mut rest = (&mut stream).take(LINGER.1 as u64);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    })
    .await;
    Ok(())
}

/// Behind the empty line that ends the headers.
fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .map(|at| at + 4)
}

/// A request, as far as it matters.
#[derive(Debug, PartialEq, Eq)]
struct Request<'a> {
    method: &'a str,
    path: &'a str,
    query: &'a str,
}

impl<'a> Request<'a> {
    /// Reads line and headers, empty line included. `None`: this is not HTTP/1.
    fn parse(head: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(head).ok()?.strip_suffix("\r\n\r\n")?;
        let mut lines = text.split("\r\n");
        let mut words = lines.next()?.split(' ');
        let (method, target, version) = (words.next()?, words.next()?, words.next()?);
        let digit = version.strip_prefix("HTTP/1.")?;
        if words.next().is_some() || !is_token(method) || digit.len() != 1 {
            return None;
        }
        if !digit.bytes().all(|b| b.is_ascii_digit())
            || !target.bytes().all(|b| b.is_ascii_graphic())
        {
            return None;
        }
        for line in lines {
            let (name, value) = line.split_once(':')?;
            if !is_token(name) || value.bytes().any(|b| b != b'\t' && b.is_ascii_control()) {
                return None;
            }
        }
        // A proxy's form of a target names the server first.
        let target = match target.strip_prefix("http://") {
            Some(rest) => rest.find('/').map_or("/", |at| &rest[at..]),
            None => target,
        };
        if !target.starts_with('/') && target != "*" {
            return None;
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Some(Self {
            method,
            path,
            query,
        })
    }
}

/// Whether `text` is a method or a header's name may be.
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

async fn respond(head: &[u8], source: Arc<dyn StatusSource>) -> Answer {
    let Some(request) = Request::parse(head) else {
        return Answer::error(400);
    };
    let get = matches!(request.method, "GET" | "HEAD");
    let mut answer = match request.path {
        "/healthy" => {
            let (status, text) = source.healthy();
            Answer::text(status, text)
        }
        "/stats" if get || request.method == "POST" => {
            let query = StatsQuery::parse(request.query);
            Answer::text(200, source.stats(query, request.method == "POST").await)
        }
        "/metrics" if get => Answer {
            kind: "text/plain; version=0.0.4; charset=utf-8",
            ..Answer::text(200, source.metrics())
        },
        "/stats" => Answer {
            allow: Some("GET, HEAD, POST"),
            ..Answer::error(405)
        },
        "/metrics" => Answer {
            allow: Some("GET, HEAD"),
            ..Answer::error(405)
        },
        _ => Answer::error(404),
    };
    answer.only_head = request.method == "HEAD";
    answer
}

/// An answer before it is written.
struct Answer {
    status: u16,
    kind: &'static str,
    /// Methods that would have been right.
    allow: Option<&'static str>,
    body: String,
    only_head: bool,
}

impl Answer {
    fn text(status: u16, mut body: String) -> Self {
        if !body.ends_with('\n') {
            body.push('\n');
        }
        Self {
            status,
            kind: "text/plain; charset=utf-8",
            allow: None,
            body,
            only_head: false,
        }
    }

    fn error(status: u16) -> Self {
        let title = format!("{status} {}", reason(status));
        Self {
            kind: "text/html",
            ..Self::text(
                status,
                format!(
                    "<!DOCTYPE html>\n<html><head><title>{title}</title></head>\
                     <body><h1>{title}</h1></body></html>\n"
                ),
            )
        }
    }

    fn bytes(&self, now: u64) -> Vec<u8> {
        let mut out = format!(
            "HTTP/1.1 {} {}\r\nDate: {}\r\nConnection: close\r\nContent-type: {}\r\nContent-Length: {}\r\n",
            self.status,
            reason(self.status),
            http_date(now),
            self.kind,
            self.body.len(),
        );
        if let Some(methods) = self.allow {
            out.push_str("Allow: ");
            out.push_str(methods);
            out.push_str("\r\n");
        }
        out.push_str("Cache-Control: no-store\r\n\r\n");
        if !self.only_head {
            out.push_str(&self.body);
        }
        out.into_bytes()
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        503 => "Service Unavailable",
        _ => "Unknown",
    }
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// The date of a header, `Sun, 06 Nov 1994 08:49:37 GMT`, from seconds since 1970.
fn http_date(seconds: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [(&str, u64); 12] = [
        ("Jan", 31),
        ("Feb", 28),
        ("Mar", 31),
        ("Apr", 30),
        ("May", 31),
        ("Jun", 30),
        ("Jul", 31),
        ("Aug", 31),
        ("Sep", 30),
        ("Oct", 31),
        ("Nov", 30),
        ("Dec", 31),
    ];
    // A clock beyond the year 9999 would make this long, and is wrong anyway.
    let seconds = seconds.min(253_402_300_799);
    let (days, rest) = (seconds / 86400, seconds % 86400);
    let weekday = DAYS[(days % 7) as usize];
    let leap = |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    let (mut year, mut day) = (1970, days);
    loop {
        let length = 365 + u64::from(leap(year));
        if day < length {
            break;
        }
        day -= length;
        year += 1;
    }
    let mut month = "Dec";
    for (name, length) in MONTHS {
        month = name;
        let length = length + u64::from(name == "Feb" && leap(year));
        if day < length {
            break;
        }
        day -= length;
    }
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!(
        "{weekday}, {:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT",
        day + 1
    )
}

/// The answer of `/healthy`: status code and text.
///
/// `listen`: this end is a client, which needs its peer. `rendezvous_pending`: the peer is not known yet. `last_heard`:
/// how long ago a datagram that could be opened came from the peer (others do not count, section 19, number 13);
/// `None`: never. `limit`: silence that is tolerated.
#[must_use]
pub fn health(
    listen: bool,
    rendezvous_pending: bool,
    last_heard: Option<Duration>,
    limit: Duration,
) -> (u16, String) {
    match last_heard {
        _ if !listen => (200, "healthy".into()),
        _ if rendezvous_pending => (503, "rendezvous pending".into()),
        None => (503, "peer unreachable".into()),
        Some(ago) if ago > limit => (503, format!("peer not responding ({}s)", ago.as_secs())),
        Some(ago) => (200, format!("healthy (peer seen {}s ago)", ago.as_secs())),
    }
}

/// The time of now as `/stats` shows it: `2026-11-20T20:46:23+0000`, local time.
#[must_use]
pub fn server_time() -> String {
    gotime::format("2006-01-02T15:04:05-0700", &localtime::now())
}

/// What a session is about, as `/stats` shows it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// `>`: being opened.
    HalfOpen,
    /// `-`: carries data.
    Connected,
    /// `.`: one side has finished.
    Linger,
    /// `x`: over, but remembered.
    TimeWait,
}

impl SessionState {
    const fn sign(self) -> char {
        match self {
            Self::HalfOpen => '>',
            Self::Connected => '-',
            Self::Linger => '.',
            Self::TimeWait => 'x',
        }
    }
}

/// Two directions.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// Received.
    pub rx: u64,
    /// Sent.
    pub tx: u64,
}

impl Pair {
    fn since(self, before: Self) -> Self {
        Self {
            rx: self.rx.saturating_sub(before.rx),
            tx: self.tx.saturating_sub(before.tx),
        }
    }
}

/// One session in `/stats`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// Its conversation.
    pub conv: u32,
    /// What it is about.
    pub state: SessionState,
    /// Address of the peer.
    pub peer: String,
    /// Seconds since its last traffic.
    pub seen_secs: u64,
    /// Smoothed round trip in milliseconds; `None` when its KCP is gone, shown as -1.
    pub rtt_ms: Option<u32>,
    /// Retransmission timeout in milliseconds; the same.
    pub rto_ms: Option<u32>,
    /// Segments queued.
    pub waitsnd: u64,
    /// Bytes written to the local TCP connection.
    pub rx: u64,
    /// Bytes read from it.
    pub tx: u64,
}

/// Sessions by state.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// [`SessionState::HalfOpen`].
    pub halfopen: u64,
    /// [`SessionState::Connected`].
    pub connected: u64,
    /// [`SessionState::Linger`].
    pub linger: u64,
    /// [`SessionState::TimeWait`].
    pub time_wait: u64,
    /// Segments queued, of all.
    pub waitsnd: u64,
}

/// Bytes since the start.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// At the local application.
    pub tcp: Pair,
    /// Datagrams of KCP after they were opened, before they are sealed.
    pub kcp: Pair,
    /// Datagrams as they are on the wire; with obfuscation, their headers included.
    pub pkt: Pair,
}

/// What an obfuscation context has seen of its peer.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum ContextState {
    /// `>`: nothing captured.
    Opening,
    /// `?`: captured, nothing authenticated.
    Captured,
    /// `-`: authenticated.
    Authenticated,
}

/// One obfuscation context in `/stats`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextView {
    /// Address of the peer.
    pub peer: String,
    /// What it has seen.
    pub state: ContextState,
    /// Seconds since its last packet.
    pub seen_secs: u64,
    /// Bytes received and sent.
    pub bytes: Pair,
    /// Packets marked by congestion.
    pub ecn: u64,
    /// Packets that echo such marks.
    pub ece: u64,
}

/// Obfuscation in `/stats`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObfsView {
    /// Its contexts.
    pub contexts: Vec<ContextView>,
    /// Packets dropped since the start.
    pub dropped: u64,
    /// Their bytes.
    pub dropped_bytes: u64,
}

/// What `/stats` shows, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatsView {
    /// Name and version.
    pub banner: String,
    /// [`server_time`].
    pub server_time: String,
    /// All sessions.
    pub sessions: Vec<SessionView>,
    /// How many there are.
    pub counts: Counts,
    /// Bytes since the start.
    pub traffic: Traffic,
    /// Time since the start.
    pub uptime: Duration,
    /// Processor time since the start; `None` where it is not known.
    pub cpu: Option<Duration>,
    /// Obfuscation, if it is in use.
    pub obfs: Option<ObfsView>,
}

/// What was at the last POST; at first, all 0.
#[derive(Copy, Clone, Debug, Default)]
struct Sample {
    traffic: Traffic,
    uptime: Duration,
    cpu: Option<Duration>,
    dropped: u64,
    dropped_bytes: u64,
}

/// Remembers the last POST, to say how much there was in a second since.
#[derive(Debug, Default)]
pub struct Rates(Mutex<Sample>);

impl Rates {
    /// The text of `/stats` (section 16). With `post` it has the rates since the last such call, or since the start.
    #[must_use]
    pub fn text(&self, view: &StatsView, query: StatsQuery, post: bool) -> String {
        let before = post.then(|| {
            let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let (dropped, dropped_bytes) = view
                .obfs
                .as_ref()
                .map_or((0, 0), |o| (o.dropped, o.dropped_bytes));
            std::mem::replace(
                &mut *last,
                Sample {
                    traffic: view.traffic,
                    uptime: view.uptime,
                    cpu: view.cpu,
                    dropped,
                    dropped_bytes,
                },
            )
        });
        let mut out = String::with_capacity(512 + 96 * view.sessions.len());
        if !query.nobanner {
            let _ = writeln!(out, "{}", view.banner);
        }
        let _ = writeln!(out, "server time: {}\n", view.server_time);
        write_sessions(&mut out, view, query.sessions);
        write_traffic(&mut out, view, before.as_ref());
        if let Some(obfs) = &view.obfs {
            write_obfs(&mut out, obfs, view.uptime, before.as_ref());
        }
        out
    }
}

// Writing to a string does not fail, so the results of `write!` say nothing here.

fn write_sessions(out: &mut String, view: &StatsView, listed: Listed) {
    let shown = |state| match listed {
        Listed::None => false,
        Listed::Connected => state == SessionState::Connected,
        Listed::Active => state != SessionState::TimeWait,
        Listed::All => true,
    };
    let ms = |value: Option<u32>| value.map_or(-1, i64::from);
    for s in view.sessions.iter().filter(|s| shown(s.state)) {
        let _ = writeln!(
            out,
            "[{:08X}] {} peer={} seen={}s rtt={} rto={} waitsnd={} rx/tx={}/{}",
            s.conv,
            s.state.sign(),
            s.peer,
            s.seen_secs,
            ms(s.rtt_ms),
            ms(s.rto_ms),
            s.waitsnd,
            size(s.rx as f64),
            size(s.tx as f64),
        );
    }
    let c = &view.counts;
    let all = [c.halfopen, c.connected, c.linger, c.time_wait];
    let _ = writeln!(
        out,
        "  = {} sessions: {} halfopen, {} connected, {} linger, {} time_wait; waitsnd={}\n",
        all.iter().fold(0_u64, |sum, n| sum.saturating_add(*n)),
        c.halfopen,
        c.connected,
        c.linger,
        c.time_wait,
        c.waitsnd,
    );
}

fn write_traffic(out: &mut String, view: &StatsView, before: Option<&Sample>) {
    let Traffic { tcp, kcp, pkt } = view.traffic;
    let total = |p: Pair| format!("{}, {}", size(p.rx as f64), size(p.tx as f64));
    let totals = format!(
        "[total] tcp: {}; kcp: {}; pkt: {}",
        total(tcp),
        total(kcp),
        total(pkt)
    );
    let uptime = duration(view.uptime);
    let Some(before) = before else {
        let _ = writeln!(out, "{totals}\n  = uptime: {uptime}");
        return;
    };
    let elapsed = view.uptime.saturating_sub(before.uptime);
    let rate = |now: Pair, then: Pair| {
        let p = now.since(then);
        format!(
            "{}, {}",
            per_second(p.rx, elapsed),
            per_second(p.tx, elapsed)
        )
    };
    let (app, wire) = (tcp.since(before.traffic.tcp), kcp.since(before.traffic.kcp));
    // What KCP received is what the application is sent.
    let _ = writeln!(
        out,
        "[rx,tx] tcp: {}; kcp: {}; efficiency: {}, {}",
        rate(tcp, before.traffic.tcp),
        rate(kcp, before.traffic.kcp),
        percent(app.tx as f64, wire.rx as f64),
        percent(app.rx as f64, wire.tx as f64),
    );
    let load = match view.cpu {
        Some(cpu) if !elapsed.is_zero() => {
            let busy = cpu.saturating_sub(before.cpu.unwrap_or_default());
            percent(busy.as_secs_f64(), elapsed.as_secs_f64())
        }
        _ => "(unknown)".into(),
    };
    let _ = writeln!(
        out,
        "{totals}\n  = load: {load} (last {}); pkt: {}; uptime: {uptime}",
        duration(elapsed),
        rate(pkt, before.traffic.pkt),
    );
}

fn write_obfs(out: &mut String, obfs: &ObfsView, uptime: Duration, before: Option<&Sample>) {
    out.push('\n');
    let mut authenticated = 0;
    for c in &obfs.contexts {
        let sign = match c.state {
            ContextState::Opening => '>',
            ContextState::Captured => '?',
            ContextState::Authenticated => '-',
        };
        authenticated += usize::from(c.state == ContextState::Authenticated);
        let _ = writeln!(
            out,
            "[{}] {sign} seen={}s rx/tx={}/{} ecn/ece={}/{}",
            c.peer,
            c.seen_secs,
            size(c.bytes.rx as f64),
            size(c.bytes.tx as f64),
            c.ecn,
            c.ece,
        );
    }
    let others = obfs.contexts.len() - authenticated;
    let _ = write!(out, "  = {authenticated}(+{others}) contexts; drop ");
    if let Some(before) = before {
        let elapsed = uptime.saturating_sub(before.uptime);
        let packets = obfs.dropped.saturating_sub(before.dropped);
        let bytes = obfs.dropped_bytes.saturating_sub(before.dropped_bytes);
        let _ = write!(
            out,
            "{:.1}/s ({}), ",
            over(packets as f64, elapsed.as_secs_f64()),
            per_second(bytes, elapsed)
        );
    }
    let _ = writeln!(out, "{}", size(obfs.dropped_bytes as f64));
}

/// A quotient; 0 where there is nothing to divide by.
fn over(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}

fn percent(part: f64, whole: f64) -> String {
    match whole > 0.0 {
        true => format!("{:.1}%", part / whole * 100.0),
        false => "(unknown)".into(),
    }
}

fn per_second(bytes: u64, elapsed: Duration) -> String {
    format!("{}/s", size(over(bytes as f64, elapsed.as_secs_f64())))
}

/// A number of bytes: whole ones below 8192, then three digits or more of the unit in which it is 8 or more.
fn size(bytes: f64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 8192.0 {
        return format!("{bytes:.0}B");
    }
    let (mut value, mut unit) = (bytes, "B");
    for next in UNITS {
        if value < 8192.0 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    match value {
        v if v < 9.995 => format!("{v:.2}{unit}"),
        v if v < 99.95 => format!("{v:.1}{unit}"),
        v => format!("{v:.0}{unit}"),
    }
}

/// A length of time: milliseconds below ten seconds, then `12.3s`, from a minute on `1:02:03`, with days `4d 1:02:03`.
fn duration(d: Duration) -> String {
    let s = d.as_secs();
    let clock = format!("{}:{:02}:{:02}", s / 3600 % 24, s / 60 % 60, s % 60);
    match s {
        0..10 => format!("{}ms", d.as_millis()),
        10..60 => format!("{s}.{}s", d.subsec_millis() / 100),
        60..86400 => clock,
        _ => format!("{}d {clock}", s / 86400),
    }
}

/// The text of `/metrics`, in the text format of Prometheus: all [`Counters`], then `extra`, each with its name without
/// `fulmar_` and, of a [`Kind::Counter`], without `_total`; a sentence of help; its kind; its value.
#[must_use]
pub fn metrics_text(counters: &Counters, extra: &[(&str, &str, Kind, u64)]) -> String {
    let mut out = String::with_capacity(12 * 1024);
    for (about, value) in Counters::ABOUT.iter().zip(counters.values()) {
        write_metric(&mut out, about.name, about.help(), about.kind, value);
    }
    for (name, help, kind, value) in extra {
        write_metric(&mut out, name, help, *kind, *value);
    }
    out
}

fn write_metric(out: &mut String, name: &str, help: &str, kind: Kind, value: u64) {
    let (kind, end) = match kind {
        Kind::Counter => ("counter", "_total"),
        Kind::Gauge => ("gauge", ""),
    };
    let help = help.replace('\\', "\\\\").replace('\n', "\\n");
    let _ = write!(
        out,
        "# HELP fulmar_{name}{end} {help}\n# TYPE fulmar_{name}{end} {kind}\nfulmar_{name}{end} {value}\n"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    /// The example of section 16.
    fn example() -> StatsView {
        StatsView {
            banner: "fulmar 1.2.3".into(),
            server_time: "2026-11-20T20:46:23+0000".into(),
            sessions: vec![SessionView {
                conv: 0x82E0_3659,
                state: SessionState::Connected,
                peer: "10.9.0.2:8080".into(),
                seen_secs: 1,
                rtt_ms: Some(0),
                rto_ms: Some(100),
                waitsnd: 0,
                rx: 17,
                tx: 22,
            }],
            counts: Counts {
                connected: 1,
                ..Counts::default()
            },
            traffic: Traffic {
                tcp: Pair { rx: 22, tx: 17 },
                kcp: Pair { rx: 172, tx: 158 },
                pkt: Pair { rx: 1088, tx: 702 },
            },
            uptime: Duration::from_millis(4617),
            cpu: None,
            obfs: Some(ObfsView {
                contexts: vec![ContextView {
                    peer: "10.9.0.2:8080".into(),
                    state: ContextState::Authenticated,
                    seen_secs: 1,
                    bytes: Pair { rx: 452, tx: 702 },
                    ecn: 0,
                    ece: 0,
                }],
                dropped: 8,
                dropped_bytes: 424,
            }),
        }
    }

    #[test]
    fn the_text_is_that_of_the_specification() {
        let text = Rates::default().text(&example(), StatsQuery::default(), true);
        let want = "\
server time: 2026-11-20T20:46:23+0000

[82E03659] - peer=10.9.0.2:8080 seen=1s rtt=0 rto=100 waitsnd=0 rx/tx=17B/22B
  = 1 sessions: 0 halfopen, 1 connected, 0 linger, 0 time_wait; waitsnd=0

[rx,tx] tcp: 5B/s, 4B/s; kcp: 37B/s, 34B/s; efficiency: 9.9%, 13.9%
[total] tcp: 22B, 17B; kcp: 172B, 158B; pkt: 1088B, 702B
  = load: (unknown) (last 4617ms); pkt: 236B/s, 152B/s; uptime: 4617ms

[10.9.0.2:8080] - seen=1s rx/tx=452B/702B ecn/ece=0/0
  = 1(+0) contexts; drop 1.7/s (92B/s), 424B
";
        assert_eq!(text, want);
    }

    #[test]
    fn only_a_post_has_rates_and_moves_their_start() {
        let rates = Rates::default();
        let (mut view, query) = (example(), StatsQuery::default());
        view.obfs = None;
        view.cpu = Some(Duration::from_secs(1));
        let get = rates.text(&view, query, false);
        assert!(
            get.ends_with("pkt: 1088B, 702B\n  = uptime: 4617ms\n"),
            "{get}"
        );
        assert!(!get.contains("[rx,tx]") && !get.contains("load"), "{get}");
        let _ = rates.text(&view, query, true);
        // Two seconds later.
        view.uptime += Duration::from_secs(2);
        view.traffic.tcp.rx += 684 << 20;
        view.cpu = Some(Duration::from_millis(1500));
        let post = rates.text(&view, query, true);
        assert!(
            post.contains("[rx,tx] tcp: 342MiB/s, 0B/s; kcp: 0B/s, 0B/s;"),
            "{post}"
        );
        assert!(post.contains("= load: 25.0% (last 2000ms)"), "{post}");
        // At once: nothing to divide by.
        let again = rates.text(&view, query, true);
        assert!(
            again.contains("load: (unknown) (last 0ms); pkt: 0B/s, 0B/s"),
            "{again}"
        );
    }

    #[test]
    fn which_sessions_are_listed() {
        let mut view = example();
        let states = [
            SessionState::HalfOpen,
            SessionState::Connected,
            SessionState::Linger,
            SessionState::TimeWait,
        ];
        let one = view.sessions[0].clone();
        view.sessions = states
            .map(|state| SessionView {
                state,
                rtt_ms: None,
                ..one.clone()
            })
            .into();
        let signs = |query: &str| -> String {
            let text = Rates::default().text(&view, StatsQuery::parse(query), false);
            text.lines()
                .filter(|line| line.starts_with("[82E03659]"))
                .map(|line| {
                    assert!(line.contains("rtt=-1 "), "{line}");
                    line.as_bytes()[11] as char
                })
                .collect()
        };
        for (query, want) in [
            ("", "-"),
            ("sessions=none", ""),
            ("sessions=0", ""),
            ("sessions=connected", "-"),
            ("x=y&sessions=2&nobanner", ">-."),
            ("sessions=active", ">-."),
            ("sessions=all", ">-.x"),
            ("sessions=3", ">-.x"),
            ("sessions=nonsense", "-"),
        ] {
            assert_eq!(signs(query), want, "{query}");
        }
        let banner = |query| {
            let text = Rates::default().text(&view, StatsQuery::parse(query), false);
            text.starts_with("fulmar 1.2.3\nserver time")
        };
        for query in ["nobanner=0", "nobanner=false", "nobanner=1&nobanner=no"] {
            assert!(banner(query), "{query}");
        }
        for query in [
            "",
            "nobanner",
            "nobanner=1",
            "nobanner=yes",
            "nobanner=on",
            "nobanner=t",
        ] {
            assert!(!banner(query), "{query}");
        }
    }

    #[test]
    fn sizes_and_times() {
        for (bytes, want) in [
            (0, "0B"),
            (8191, "8191B"),
            (8192, "8.00KiB"),
            (100_000, "97.7KiB"),
            (342 << 20, "342MiB"),
            (u64::MAX, "16.0EiB"),
        ] {
            assert_eq!(size(bytes as f64), want);
        }
        for (ms, want) in [
            (0, "0ms"),
            (9999, "9999ms"),
            (12_345, "12.3s"),
            (3_723_000, "1:02:03"),
            (2 * 86_400_000 + 61_000, "2d 0:01:01"),
        ] {
            assert_eq!(duration(Duration::from_millis(ms)), want);
        }
        for (seconds, want) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_767_225_599, "Wed, 31 Dec 2025 23:59:59 GMT"),
            (u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(http_date(seconds), want);
        }
    }

    #[test]
    fn health_in_words() {
        let s = Duration::from_secs;
        let limit = s(75);
        assert_eq!(health(false, true, None, limit), (200, "healthy".into()));
        assert_eq!(
            health(true, true, None, limit),
            (503, "rendezvous pending".into())
        );
        assert_eq!(
            health(true, false, None, limit),
            (503, "peer unreachable".into())
        );
        assert_eq!(
            health(true, false, Some(s(76)), limit),
            (503, "peer not responding (76s)".into())
        );
        assert_eq!(
            health(true, false, Some(s(75)), limit),
            (200, "healthy (peer seen 75s ago)".into())
        );
    }

    #[test]
    fn metrics_are_prometheus() {
        let counters = Counters {
            in_pkts: 7,
            curr_estab: 2,
            ..Counters::default()
        };
        let extra = [("uptime_seconds", "Time since\nthe start.", Kind::Gauge, 5)];
        let text = metrics_text(&counters, &extra);
        assert!(text.ends_with('\n'));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3 * (Counters::LEN + extra.len()));
        let (mut names, mut values) = (HashSet::new(), Vec::new());
        for triple in lines.chunks(3) {
            let [help, kind, value] = triple else {
                panic!("{triple:?}");
            };
            let (name, words) = help
                .strip_prefix("# HELP ")
                .and_then(|rest| rest.split_once(' '))
                .expect("help");
            assert!(!words.is_empty());
            assert!(name.starts_with("fulmar_"), "{name}");
            assert!(
                name.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{name}"
            );
            let kind = kind.strip_prefix(&format!("# TYPE {name} ")).expect("type");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
            assert!(matches!(kind, "counter" | "gauge"));
            let value = value.strip_prefix(&format!("{name} ")).expect("value");
            values.push((name, value.parse::<u64>().expect("number")));
            assert!(names.insert(name), "{name} twice");
        }
        for expected in [
            ("fulmar_in_pkts_total", 7),
            ("fulmar_curr_estab", 2),
            ("fulmar_uptime_seconds", 5),
        ] {
            assert!(values.contains(&expected), "{expected:?}");
        }
    }

    /// Says how often it was asked.
    #[derive(Default)]
    struct Source(AtomicUsize);

    impl StatusSource for Source {
        fn healthy(&self) -> (u16, String) {
            (503, "peer unreachable".into())
        }

        fn stats(
            self: Arc<Self>,
            query: StatsQuery,
            post: bool,
        ) -> Pin<Box<dyn Future<Output = String> + Send>> {
            let n = self.0.fetch_add(1, Relaxed);
            let text = format!("{n} {:?} {} {post}", query.sessions, query.nobanner);
            Box::pin(std::future::ready(text))
        }

        fn metrics(&self) -> String {
            metrics_text(&Counters::default(), &[])
        }
    }

    async fn start() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let addr = listener.local_addr().expect("address");
        tokio::spawn(serve(listener, Arc::new(Source::default())));
        addr
    }

    /// What the server answers to `request`, up to the end of the connection.
    async fn ask(addr: SocketAddr, request: &[u8]) -> String {
        let work = async {
            let mut stream = TcpStream::connect(addr).await.expect("connect");
            // The server may have answered and gone before all is written.
            let _ = stream.write_all(request).await;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.expect("read");
            String::from_utf8(answer).expect("text")
        };
        timeout(Duration::from_secs(20), work).await.expect("time")
    }

    #[tokio::test]
    async fn requests_and_answers() {
        let addr = start().await;
        for (request, status, ends) in [
            (
                "GET /healthy",
                "503 Service Unavailable",
                "\r\n\r\npeer unreachable\n",
            ),
            (
                "BREW /healthy",
                "503 Service Unavailable",
                "\r\n\r\npeer unreachable\n",
            ),
            ("HEAD /healthy", "503 Service Unavailable", "\r\n\r\n"),
            ("GET /stats", "200 OK", "\r\n\r\n0 Connected true false\n"),
            (
                "POST /stats?sessions=all&nobanner=0",
                "200 OK",
                "\r\n\r\n1 All false true\n",
            ),
            (
                "GET http://host:80/stats",
                "200 OK",
                "\r\n\r\n2 Connected true false\n",
            ),
            ("HEAD /stats", "200 OK", "\r\n\r\n"),
            ("PUT /stats", "405 Method Not Allowed", "</html>\n"),
            ("GET /metrics", "200 OK", " 0\n"),
            ("POST /metrics", "405 Method Not Allowed", "</html>\n"),
            ("GET /", "404 Not Found", "</html>\n"),
            ("GET /stats/x", "404 Not Found", "</html>\n"),
            ("OPTIONS *", "404 Not Found", "</html>\n"),
        ] {
            let bytes = format!("{request} HTTP/1.1\r\nHost: a\r\n\r\n");
            let answer = ask(addr, bytes.as_bytes()).await;
            let want = format!("HTTP/1.1 {status}\r\nDate: ");
            assert!(answer.starts_with(&want), "{request}: {answer}");
            assert!(answer.ends_with(ends), "{request}: {answer}");
            assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
            let html = answer.contains("\r\nContent-type: text/html\r\n");
            assert_eq!(html, answer.contains("</html>"), "{answer}");
            let (head, body) = answer.split_once("\r\n\r\n").expect("head");
            if !request.starts_with("HEAD") {
                let length = format!("\r\nContent-Length: {}\r\n", body.len());
                assert!(head.contains(&length), "{answer}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_request() {
        let addr = start().await;
        for bad in [
            "nonsense\r\n\r\n",
            "GET /stats\r\n\r\n",
            "GET  /stats HTTP/1.1\r\n\r\n",
            "GET /stats HTTP/2.0\r\n\r\n",
            "GET /stats HTTP/1.1 x\r\n\r\n",
            "GET stats HTTP/1.1\r\n\r\n",
            "G(T /stats HTTP/1.1\r\n\r\n",
            "GET /stats HTTP/1.1\r\nno colon\r\n\r\n",
            "GET /stats HTTP/1.1\r\na: b\r\n folded: x\r\n\r\n",
            "GET /st\u{e4}ts HTTP/1.1\r\n\r\n",
        ] {
            let answer = ask(addr, bad.as_bytes()).await;
            assert!(
                answer.starts_with("HTTP/1.1 400 Bad Request\r\n"),
                "{bad}: {answer}"
            );
        }
        // One that fits exactly, and one that does not.
        let of = |length: usize| {
            let (head, end) = ("GET /healthy HTTP/1.0\r\nX: ", "\r\n\r\n");
            format!("{head}{}{end}", "y".repeat(length - head.len() - end.len()))
        };
        let fits = ask(addr, of(MAX_REQUEST).as_bytes()).await;
        assert!(fits.starts_with("HTTP/1.1 503"), "{fits}");
        for long in [of(MAX_REQUEST + 1), of(MAX_REQUEST + 2), of(60_000)] {
            let answer = ask(addr, long.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        }
    }

    #[tokio::test]
    async fn an_end_before_the_end_of_the_request() {
        let addr = start().await;
        let mut stream = TcpStream::connect(addr).await.expect("connect");
        stream.write_all(b"GET /st").await.expect("write");
        stream.shutdown().await.expect("shutdown");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("read");
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }

    #[tokio::test]
    async fn a_body_is_ignored_and_pieces_are_joined() {
        let addr = start().await;
        let body = "z".repeat(20_000);
        let request = format!("POST /stats HTTP/1.1\r\nContent-Length: 20000\r\n\r\n{body}");
        let answer = ask(addr, request.as_bytes()).await;
        assert!(answer.ends_with("Connected true true\n"), "{answer}");
        let mut stream = TcpStream::connect(addr).await.expect("connect");
        stream.set_nodelay(true).expect("no delay");
        for byte in b"GET /healthy HTTP/1.1\r\n\r\n" {
            stream.write_all(&[*byte]).await.expect("write");
            tokio::task::yield_now().await;
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("read");
        assert!(answer.ends_with("peer unreachable\n"), "{answer}");
    }

    #[tokio::test]
    async fn connections_are_bounded_and_the_idle_ones_end() {
        let addr = start().await;
        let mut idle = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            idle.push(TcpStream::connect(addr).await.expect("connect"));
        }
        let mut next = TcpStream::connect(addr).await.expect("connect");
        next.write_all(b"GET /healthy HTTP/1.1\r\n\r\n")
            .await
            .expect("write");
        let mut buf = [0; 16];
        // All places are taken: this one waits.
        let early = timeout(Duration::from_millis(200), next.read(&mut buf)).await;
        assert!(early.is_err(), "{early:?}");
        drop(idle.pop());
        let read = timeout(Duration::from_secs(10), next.read(&mut buf)).await;
        assert!(read.expect("a place").expect("read") > 0);
    }
}
