//! The TCP (or Unix) service behind the tunnel's server.
//!
//! A connection begins with a [`Request`] of 32 bytes that says what the service shall do with it. The service
//! checks what it receives against the [`Pattern`] and keeps a [`Record`] per stream number, so that a test can
//! also ask how a connection looked from here: how much came, how it ended, whether it is still open.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::pattern::{Kind, Pattern};

/// Length of a request on the wire.
pub const REQUEST_LEN: usize = 32;
/// Last byte of an answer: everything expected arrived and was right.
pub const VERDICT_GOOD: u8 = 0x06;
/// Last byte of an answer: something was missing or wrong.
pub const VERDICT_BAD: u8 = 0x15;

const MAGIC: [u8; 4] = *b"FLM1";
const CHUNK: usize = 65_536;

/// What the service does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Returns every byte until the end of the input, then ends its own side.
    Echo,
    /// Sends `down` bytes while it receives `up` bytes, then one verdict byte; ends when the peer does.
    Exchange,
    /// Receives `up` bytes, waits `option` milliseconds, sends `down` bytes and a verdict, then waits for the end of
    /// the input.
    AnswerRequest,
    /// Receives until the *end of the input*, waits `option` milliseconds, then sends `down` bytes and a verdict.
    AnswerAfterEof,
    /// Sends `down` bytes, ends its own side at once, and goes on receiving until the end of the input.
    EndFirst,
    /// As `Exchange`, but takes no more than `option` KiB per second.
    Slow,
    /// Sends `down` bytes, then cuts the connection with a reset.
    Reset,
    /// Neither reads nor writes until the connection is cut from the other side or the service ends.
    Stall,
}

impl Op {
    const ALL: [Self; 8] = [
        Self::Echo,
        Self::Exchange,
        Self::AnswerRequest,
        Self::AnswerAfterEof,
        Self::EndFirst,
        Self::Slow,
        Self::Reset,
        Self::Stall,
    ];

    fn code(self) -> u8 {
        Self::ALL
            .iter()
            .position(|o| *o == self)
            .map_or(0, |i| u8::try_from(i).unwrap_or(0))
    }
}

/// The first bytes of every connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What to do.
    pub op: Op,
    /// Which bytes travel.
    pub kind: Kind,
    /// Number of the stream; selects the pattern and names the record. The service sends the pattern of `!stream`.
    pub stream: u32,
    /// Bytes that the client sends after the request.
    pub up: u64,
    /// Bytes that the service sends.
    pub down: u64,
    /// Meaning depends on `op`.
    pub option: u32,
}

impl Request {
    /// The request as it travels.
    #[must_use]
    pub fn encode(&self) -> [u8; REQUEST_LEN] {
        let mut out = [0; REQUEST_LEN];
        out[..4].copy_from_slice(&MAGIC);
        out[4] = self.op.code();
        out[5] = u8::from(self.kind == Kind::Text);
        out[8..12].copy_from_slice(&self.stream.to_le_bytes());
        out[12..20].copy_from_slice(&self.up.to_le_bytes());
        out[20..28].copy_from_slice(&self.down.to_le_bytes());
        out[28..32].copy_from_slice(&self.option.to_le_bytes());
        out
    }

    /// Reads a request; `None` when the bytes are not one.
    #[must_use]
    pub fn decode(raw: &[u8; REQUEST_LEN]) -> Option<Self> {
        let u32_at = |at: usize| {
            raw[at..at + 4]
                .try_into()
                .map(u32::from_le_bytes)
                .unwrap_or(0)
        };
        let u64_at = |at: usize| {
            raw[at..at + 8]
                .try_into()
                .map(u64::from_le_bytes)
                .unwrap_or(0)
        };
        if raw[..4] != MAGIC {
            return None;
        }
        Some(Self {
            op: *Op::ALL.get(usize::from(raw[4]))?,
            kind: if raw[5] == 1 { Kind::Text } else { Kind::Noise },
            stream: u32_at(8),
            up: u64_at(12),
            down: u64_at(20),
            option: u32_at(28),
        })
    }

    /// The bytes that the client sends.
    #[must_use]
    pub fn up_pattern(&self) -> Pattern {
        Pattern::new(self.kind, self.stream)
    }

    /// The bytes that the service sends.
    #[must_use]
    pub fn down_pattern(&self) -> Pattern {
        Pattern::new(self.kind, !self.stream)
    }
}

/// How the input of a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The peer ended its side in the ordinary way.
    Clean,
    /// The connection was cut.
    Cut,
}

/// One connection as the service saw it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Record {
    /// Pattern bytes received after the request.
    pub received: u64,
    /// Offset of the first wrong byte.
    pub wrong_at: Option<u64>,
    /// How the input ended, once it has.
    pub end: Option<End>,
    /// The service has let go of the connection.
    pub closed: bool,
}

/// Everything the service knows.
#[derive(Clone, Debug, Default)]
pub struct Book {
    /// Connections accepted so far.
    pub accepted: u64,
    /// Connections open now.
    pub open: u64,
    /// Connections that did not begin with a request.
    pub nonsense: u64,
    /// By stream number.
    pub records: BTreeMap<u32, Record>,
}

/// A running service; it ends, and cuts its connections, when this is dropped.
#[derive(Debug)]
pub struct Target {
    book: Arc<Shared>,
    address: Where,
    // Holds the accept task, which holds the connections' tasks.
    _tasks: JoinSet<()>,
}

/// Where a service listens.
#[derive(Clone, Debug)]
pub enum Where {
    /// A TCP address.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl std::fmt::Display for Where {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

#[derive(Debug)]
struct Shared {
    book: Mutex<Book>,
    changed: watch::Sender<u64>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update<T>(&self, f: impl FnOnce(&mut Book) -> T) -> T {
        let out = f(&mut self.lock());
        self.changed.send_modify(|n| *n += 1);
        out
    }

    fn record(&self, stream: u32, f: impl FnOnce(&mut Record)) {
        self.update(|book| f(book.records.entry(stream).or_default()));
    }
}

impl Target {
    /// Serves on a TCP address.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn tcp(address: SocketAddr) -> io::Result<Self> {
        // A backlog that holds all the connections of a crowd; tokio's own listener asks for 1024.
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::STREAM,
            None,
        )?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(16_384)?;
        let listener = TcpListener::from_std(socket.into())?;
        let address = listener.local_addr()?;
        let book = shared();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept_tcp(listener, Arc::clone(&book)));
        Ok(Self {
            book,
            address: Where::Tcp(address),
            _tasks: tasks,
        })
    }

    /// Serves on a Unix socket.
    ///
    /// # Errors
    /// When the path cannot be bound.
    pub fn unix(path: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        let book = shared();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept_unix(listener, Arc::clone(&book)));
        Ok(Self {
            book,
            address: Where::Unix(path.to_path_buf()),
            _tasks: tasks,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &Where {
        &self.address
    }

    /// What it knows now.
    #[must_use]
    pub fn book(&self) -> Book {
        self.book.lock().clone()
    }

    /// Waits until `condition` holds; false when that did not happen in time.
    pub async fn wait(&self, limit: Duration, mut condition: impl FnMut(&Book) -> bool) -> bool {
        let mut changed = self.book.changed.subscribe();
        let holds = async {
            while !condition(&self.book.lock()) {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(limit, holds).await.is_ok()
    }

    /// Waits until no connection is open.
    pub async fn wait_idle(&self, limit: Duration) -> bool {
        self.wait(limit, |book| book.open == 0).await
    }
}

fn shared() -> Arc<Shared> {
    Arc::new(Shared {
        book: Mutex::default(),
        changed: watch::Sender::new(0),
    })
}

async fn accept_tcp(listener: TcpListener, book: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let _ = stream.set_nodelay(true);
                let book = Arc::clone(&book);
                connections.spawn(async move {
                    let open = Open::new(book);
                    let cut = serve(&open.0, stream).await;
                    if let (Some(stream), true) = cut {
                        reset(stream);
                    }
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn accept_unix(listener: UnixListener, book: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let book = Arc::clone(&book);
                connections.spawn(async move {
                    let open = Open::new(book);
                    serve(&open.0, stream).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Counts a connection as open for as long as it lives, however its task ends.
struct Open(Arc<Shared>);

impl Open {
    fn new(book: Arc<Shared>) -> Self {
        book.update(|b| {
            b.accepted += 1;
            b.open += 1;
        });
        Self(book)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.update(|b| b.open -= 1);
    }
}

/// Closes with a reset instead of an ordinary end.
fn reset(stream: TcpStream) {
    if let Ok(stream) = stream.into_std() {
        let _ = socket2::Socket::from(stream).set_linger(Some(Duration::ZERO));
    }
}

/// Serves one connection. Gives it back, with true, when it shall be cut.
async fn serve<S>(book: &Shared, mut stream: S) -> (Option<S>, bool)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut raw = [0; REQUEST_LEN];
    let request = match stream.read_exact(&mut raw).await {
        Ok(_) => Request::decode(&raw),
        Err(_) => None,
    };
    let Some(request) = request else {
        book.update(|b| b.nonsense += 1);
        return (None, false);
    };
    book.record(request.stream, |r| *r = Record::default());
    let cut = perform(book, &request, &mut stream).await;
    book.record(request.stream, |r| r.closed = true);
    (Some(stream), cut)
}

async fn perform<S>(book: &Shared, request: &Request, stream: &mut S) -> bool
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut rx, mut tx) = tokio::io::split(stream);
    match request.op {
        Op::Echo => {
            let clean = echo(book, request.stream, &mut rx, &mut tx).await;
            finish(book, request.stream, &clean);
            let _ = tx.shutdown().await;
        }
        Op::Exchange | Op::Slow => {
            let rate = (request.op == Op::Slow).then_some(request.option);
            let receiving = receive(book, request, &mut rx, Some(request.up), rate);
            let ((), sent) = tokio::join!(receiving, send(request, &mut tx));
            match sent {
                Ok(()) => {
                    let _ = tx.write_all(&[verdict(book, request)]).await;
                    drain(book, request, &mut rx).await;
                }
                // The kernel reports a cut once, to whichever direction asks first.
                Err(error) => finish(book, request.stream, &Err(error)),
            }
            let _ = tx.shutdown().await;
        }
        Op::AnswerRequest => {
            receive(book, request, &mut rx, Some(request.up), None).await;
            think_and_answer(book, request, &mut tx).await;
            drain(book, request, &mut rx).await;
        }
        Op::AnswerAfterEof => {
            receive(book, request, &mut rx, None, None).await;
            think_and_answer(book, request, &mut tx).await;
        }
        Op::EndFirst => {
            if send(request, &mut tx).await.is_ok() {
                let _ = tx.shutdown().await;
            }
            receive(book, request, &mut rx, None, None).await;
        }
        Op::Reset => {
            let _ = send(request, &mut tx).await;
            return true;
        }
        Op::Stall => {
            // A writable socket that turns readable and closed can only be told from an idle one by reading, and
            // reading is what this service refuses. It stays until the test is over.
            std::future::pending::<()>().await;
        }
    }
    false
}

/// Thinking is part of what the service is asked to do.
async fn think_and_answer<W: AsyncWrite + Unpin>(book: &Shared, request: &Request, tx: &mut W) {
    if request.option > 0 {
        tokio::time::sleep(Duration::from_millis(u64::from(request.option))).await;
    }
    if send(request, tx).await.is_ok() {
        let _ = tx.write_all(&[verdict(book, request)]).await;
    }
    let _ = tx.shutdown().await;
}

fn finish(book: &Shared, stream: u32, result: &io::Result<()>) {
    let end = if result.is_ok() { End::Clean } else { End::Cut };
    book.record(stream, |r| r.end = Some(end));
}

fn verdict(book: &Shared, request: &Request) -> u8 {
    let record = book
        .lock()
        .records
        .get(&request.stream)
        .copied()
        .unwrap_or_default();
    if record.wrong_at.is_none() && record.received == request.up {
        VERDICT_GOOD
    } else {
        VERDICT_BAD
    }
}

async fn echo<R, W>(book: &Shared, stream: u32, rx: &mut R, tx: &mut W) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; CHUNK];
    loop {
        let n = rx.read(&mut buffer).await?;
        if n == 0 {
            return Ok(());
        }
        book.record(stream, |r| r.received += n as u64);
        tx.write_all(&buffer[..n]).await?;
    }
}

async fn send<W: AsyncWrite + Unpin>(request: &Request, tx: &mut W) -> io::Result<()> {
    let pattern = request.down_pattern();
    let mut at = 0;
    while at < request.down {
        let left = usize::try_from(request.down - at)
            .unwrap_or(CHUNK)
            .min(CHUNK);
        let piece = pattern.slice(at, left);
        tx.write_all(piece).await?;
        at += piece.len() as u64;
    }
    tx.flush().await
}

/// Receives and checks `up` bytes, or everything until the end of the input.
async fn receive<R: AsyncRead + Unpin>(
    book: &Shared,
    request: &Request,
    rx: &mut R,
    up: Option<u64>,
    rate_kib: Option<u32>,
) {
    let pattern = request.up_pattern();
    let mut buffer = vec![0; CHUNK];
    let mut at = 0u64;
    let begin = tokio::time::Instant::now();
    while up.is_none_or(|up| at < up) {
        let room = up.map_or(CHUNK, |up| {
            usize::try_from(up - at).unwrap_or(CHUNK).min(CHUNK)
        });
        let room = if rate_kib.is_some() {
            room.min(16_384)
        } else {
            room
        };
        match rx.read(&mut buffer[..room]).await {
            Ok(0) => return finish(book, request.stream, &Ok(())),
            Ok(n) => {
                let wrong = pattern.check(at, &buffer[..n]).err();
                at += n as u64;
                book.record(request.stream, |r| {
                    r.received = at;
                    r.wrong_at = r.wrong_at.or(wrong);
                });
            }
            Err(error) => return finish(book, request.stream, &Err(error)),
        }
        if let Some(rate) = rate_kib {
            let due = at as f64 / (f64::from(rate.max(1)) * 1024.0);
            tokio::time::sleep_until(begin + Duration::from_secs_f64(due)).await;
        }
    }
}

/// Reads what should be nothing until the end of the input.
async fn drain<R: AsyncRead + Unpin>(book: &Shared, request: &Request, rx: &mut R) {
    let mut buffer = vec![0; 4096];
    loop {
        match rx.read(&mut buffer).await {
            Ok(0) => return finish(book, request.stream, &Ok(())),
            Ok(n) => book.record(request.stream, |r| {
                // Bytes beyond the announced number: doubled or foreign.
                r.wrong_at = r.wrong_at.or(Some(r.received));
                r.received += n as u64;
            }),
            Err(error) => return finish(book, request.stream, &Err(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_round_trip() {
        for op in Op::ALL {
            let request = Request {
                op,
                kind: Kind::Text,
                stream: 9,
                up: 1 << 40,
                down: 77,
                option: 3,
            };
            assert_eq!(Request::decode(&request.encode()), Some(request));
        }
        assert_eq!(Request::decode(&[0; REQUEST_LEN]), None);
        let mut unknown = Request {
            op: Op::Echo,
            kind: Kind::Noise,
            stream: 0,
            up: 0,
            down: 0,
            option: 0,
        }
        .encode();
        unknown[4] = 200;
        assert_eq!(Request::decode(&unknown), None);
    }
}
