//! The HTTP status interface (docs/spec/kcptun-libev.md, section 15): `/healthy`, `/stats`, `/metrics`
//! for Prometheus, and `/`, which links to them.
//!
//! [`serve`] speaks HTTP and knows nothing of tunnels; what it says comes from a [`StatusSource`]. The texts are made in
//! `text`: [`Rates`], [`health`] and [`metrics_text`] turn plain data into them.

mod text;

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use crate::log_kind;

pub use text::{
    ContextState, ContextView, Counts, ObfsView, Pair, Rates, SessionState, SessionView, StatsView,
    Traffic, health, metrics_text, server_time,
};

/// Longest request, in bytes: its line and headers.
const MAX_REQUEST: usize = 4095;
/// Connections at one time. For one more, the oldest is ended whose request is not being answered; if all are, it waits (or is one more, if
/// that changed while it came).
const MAX_CONNECTIONS: usize = 64;
/// What one connection may take.
const LIMIT: Duration = Duration::from_secs(15);
/// How long, and for how many bytes, a body that nobody wants is read after the answer: closed earlier, the connection
/// would be reset, and the answer with it.
const LINGER: (Duration, usize) = (Duration::from_secs(1), 64 * 1024);
/// Pause after a connection that could not be accepted, for instance for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What `/` shows: where to go from there.
const INDEX: &str = concat!(
    "<!DOCTYPE html>\n<html><head><title>fulmar ",
    env!("CARGO_PKG_VERSION"),
    "</title></head><body><h1>fulmar ",
    env!("CARGO_PKG_VERSION"),
    r#"</h1><ul>
<li><a href="/healthy">/healthy</a>: whether the tunnel works, for a watchdog</li>
<li><a href="/stats">/stats</a>: sessions and traffic; <a href="/stats?sessions=all">all sessions</a></li>
<li><a href="/metrics">/metrics</a>: every counter, for Prometheus</li>
</ul></body></html>
"#
);

/// What [`StatusSource::healthy`] gives.
pub type Healthy = Pin<Box<dyn Future<Output = (u16, String)> + Send>>;

/// What is said about the program.
pub trait StatusSource: Send + Sync {
    /// Status code and one line of text, without its end; see [`health`]. It may ask the other end first, and takes some
    /// seconds at most.
    fn healthy(self: Arc<Self>) -> Healthy;
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
    let mut places = Places::default();
    let freed = Arc::new(Notify::new());
    loop {
        let room = places.has_room();
        tokio::select! {
            accepted = listener.accept(), if room => match accepted {
                Ok((stream, _)) => {
                    places.make_room();
                    let source = Arc::clone(&source);
                    let place = Place {
                        answering: Arc::default(),
                        freed: Arc::clone(&freed),
                    };
                    let answering = Arc::clone(&place.answering);
                    let task = connections.spawn(async move {
                        // Who is too slow, or goes away, gets nothing.
                        let _ = timeout(LIMIT, converse(stream, source, place)).await;
                    });
                    places.0.push_back((task, answering));
                    // It may have asked already: it reads that before others take its place.
                    tokio::task::yield_now().await;
                }
                Err(e) => {
                    tracing::debug!(name: log_kind::HTTP, "HTTP: a connection cannot be accepted: {e}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = freed.notified() => {}
        }
    }
}

/// The connections that there are, the oldest first, and whether their requests are being answered.
#[derive(Default)]
struct Places(VecDeque<(AbortHandle, Arc<AtomicBool>)>);

impl Places {
    /// Whether another connection has a place, or can be given one.
    fn has_room(&mut self) -> bool {
        self.0.retain(|(task, _)| !task.is_finished());
        self.0.len() < MAX_CONNECTIONS || self.idle().is_some()
    }

    /// The oldest connection that nobody is answering.
    fn idle(&self) -> Option<usize> {
        self.0
            .iter()
            .position(|(_, answering)| !answering.load(Relaxed))
    }

    /// Ends a connection if another one needs its place.
    fn make_room(&mut self) {
        if self.0.len() >= MAX_CONNECTIONS
            && let Some(idle) = self.idle()
            && let Some((task, _)) = self.0.remove(idle)
        {
            tracing::debug!(name: log_kind::HTTP, "HTTP: an idle connection was ended for the sake of a new one");
            task.abort();
        }
    }
}

/// What a connection knows of its place.
struct Place {
    answering: Arc<AtomicBool>,
    /// Somebody is not being answered any more.
    freed: Arc<Notify>,
}

/// One request and its answer.
async fn converse(
    mut stream: TcpStream,
    source: Arc<dyn StatusSource>,
    place: Place,
) -> io::Result<()> {
    let mut request = Vec::with_capacity(512);
    let answer = loop {
        // One byte more than is permitted, to see that there is more.
        let room = MAX_REQUEST + 1 - request.len();
        let n = (&mut stream)
            .take(room as u64)
            .read_buf(&mut request)
            .await?;
        if let Some(end) = head_end(&request) {
            if end > MAX_REQUEST {
                break Answer::error(413);
            }
            place.answering.store(true, Relaxed);
            let answer = respond(&request[..end], source).await;
            place.answering.store(false, Relaxed);
            place.freed.notify_one();
            break answer;
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
        "/" if get => Answer {
            kind: "text/html",
            ..Answer::text(200, INDEX.into())
        },
        "/healthy" => {
            let (status, text) = source.healthy().await;
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
        "/" | "/metrics" => Answer {
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

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_session::Counters;
    use std::net::SocketAddr;
    use std::sync::atomic::AtomicUsize;

    /// Says how often it was asked.
    #[derive(Default)]
    struct Source(AtomicUsize);

    impl StatusSource for Source {
        fn healthy(self: Arc<Self>) -> Healthy {
            Box::pin(std::future::ready((503, "peer unreachable".into())))
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
            ("GET /", "200 OK", "</html>\n"),
            ("POST /", "405 Method Not Allowed", "</html>\n"),
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

    /// Seen in the field: 64 connections that said nothing kept a watchdog from its answer for a minute.
    #[tokio::test]
    async fn idle_connections_keep_nobody_out() {
        let addr = start().await;
        let mut idle = Vec::new();
        for _ in 0..3 * MAX_CONNECTIONS {
            idle.push(TcpStream::connect(addr).await.expect("connect"));
        }
        let answer = ask(addr, b"GET /healthy HTTP/1.1\r\n\r\n").await;
        assert!(answer.ends_with("peer unreachable\n"), "{answer}");
        // The oldest have made room, and the latest are still there.
        let end = timeout(Duration::from_secs(20), idle[0].read(&mut [0; 16])).await;
        assert!(!matches!(end.expect("time"), Ok(1..)));
        let mut last = idle.pop().expect("a connection");
        last.write_all(b"GET /healthy HTTP/1.1\r\n\r\n")
            .await
            .expect("write");
        let mut answer = String::new();
        last.read_to_string(&mut answer).await.expect("read");
        assert!(answer.ends_with("peer unreachable\n"), "{answer}");
    }

    /// Answers when it is told to.
    struct Slow {
        asked: AtomicUsize,
        answer: tokio::sync::Semaphore,
    }

    impl StatusSource for Slow {
        fn healthy(self: Arc<Self>) -> Healthy {
            self.asked.fetch_add(1, Relaxed);
            Box::pin(async move {
                self.answer.acquire().await.expect("open").forget();
                (200, "slow".into())
            })
        }

        fn stats(
            self: Arc<Self>,
            _: StatsQuery,
            _: bool,
        ) -> Pin<Box<dyn Future<Output = String> + Send>> {
            Box::pin(std::future::ready(String::new()))
        }

        fn metrics(&self) -> String {
            String::new()
        }
    }

    #[tokio::test]
    async fn what_is_being_answered_is_not_ended() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let addr = listener.local_addr().expect("address");
        let source = Arc::new(Slow {
            answer: tokio::sync::Semaphore::new(0),
            asked: AtomicUsize::new(0),
        });
        tokio::spawn(serve(
            listener,
            Arc::clone(&source) as Arc<dyn StatusSource>,
        ));
        let asked = async |n| {
            let reached = async {
                while source.asked.load(Relaxed) < n {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            timeout(Duration::from_secs(20), reached)
                .await
                .expect("asked");
        };
        let mut asking = Vec::new();
        for n in 1..=MAX_CONNECTIONS {
            asking.push(tokio::spawn(ask(addr, b"GET /healthy HTTP/1.1\r\n\r\n")));
            asked(n).await;
        }
        // All places are taken; one has to wait, and so do those that ask nothing.
        let _idle = TcpStream::connect(addr).await.expect("connect");
        asking.push(tokio::spawn(ask(addr, b"GET /healthy HTTP/1.1\r\n\r\n")));
        source.answer.add_permits(2);
        asked(MAX_CONNECTIONS + 1).await;
        source.answer.add_permits(MAX_CONNECTIONS);
        for asked in asking {
            let answer = asked.await.expect("an answer");
            assert!(answer.ends_with("slow\n"), "{answer}");
        }
    }
}
