//! The applications in front of the tunnel's client: they connect, talk to the [`target`](crate::target) through
//! the tunnel, and check every byte.
//!
//! Each function is one conversation. It ends by itself: with success, with a [`Fault`] that says what was wrong
//! and where, or with [`Fault::Late`] when nothing moved for too long.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::pattern::{Kind, Pattern};
use crate::target::{Op, Request, VERDICT_GOOD};

const CHUNK: usize = 65_536;

/// How long a conversation may stand still before it counts as late.
pub const STALL_LIMIT: Duration = Duration::from_secs(60);

/// Why a conversation failed.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The tunnel's client did not accept the connection.
    #[error("cannot connect: {0}")]
    Connect(ErrorKind),
    /// A byte arrived that does not belong there.
    #[error("wrong byte at offset {at}")]
    Wrong {
        /// Offset of the byte in its direction.
        at: u64,
    },
    /// The other side ended before everything had arrived.
    #[error("ended after {got} of {want} bytes")]
    Short {
        /// Bytes that arrived.
        got: u64,
        /// Bytes that were expected.
        want: u64,
    },
    /// More arrived than was sent.
    #[error("more than the {want} bytes that were sent arrived")]
    Long {
        /// Bytes that were expected.
        want: u64,
    },
    /// The connection was cut.
    #[error("cut ({kind}) after {got} of {want} bytes")]
    Cut {
        /// The error that the application sees.
        kind: ErrorKind,
        /// Bytes that arrived.
        got: u64,
        /// Bytes that were expected.
        want: u64,
    },
    /// Sending failed.
    #[error("sending failed ({kind}) after {sent} of {want} bytes")]
    Send {
        /// The error that the application sees.
        kind: ErrorKind,
        /// Bytes handed over.
        sent: u64,
        /// Bytes to send.
        want: u64,
    },
    /// The service found that what it received was wrong or incomplete.
    #[error("the service received wrong or missing bytes")]
    Verdict,
    /// Nothing moved for too long.
    #[error("nothing moved for {} s", STALL_LIMIT.as_secs())]
    Late,
}

/// Connects to the tunnel.
///
/// # Errors
/// [`Fault::Connect`].
pub async fn connect(entry: SocketAddr) -> Result<TcpStream, Fault> {
    let stream = match tokio::time::timeout(STALL_LIMIT, TcpStream::connect(entry)).await {
        Ok(connected) => connected.map_err(|e| Fault::Connect(e.kind()))?,
        Err(_) => return Err(Fault::Connect(ErrorKind::TimedOut)),
    };
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// Connects and sends the request.
///
/// # Errors
/// See [`Fault`].
pub async fn begin(entry: SocketAddr, request: &Request) -> Result<TcpStream, Fault> {
    let mut stream = connect(entry).await?;
    stream
        .write_all(&request.encode())
        .await
        .map_err(|e| Fault::Send {
            kind: e.kind(),
            sent: 0,
            want: 32,
        })?;
    Ok(stream)
}

/// A stream that sends `up` and receives `down` bytes at the same time; both ends check.
///
/// # Errors
/// See [`Fault`].
pub async fn exchange(
    entry: SocketAddr,
    kind: Kind,
    stream: u32,
    up: u64,
    down: u64,
) -> Result<(), Fault> {
    let request = Request {
        op: Op::Exchange,
        kind,
        stream,
        up,
        down,
        option: 0,
    };
    let mut connection = begin(entry, &request).await?;
    converse(&request, &mut connection).await
}

/// As [`exchange`] through a client that listens on a Unix socket.
///
/// # Errors
/// See [`Fault`].
pub async fn exchange_unix(
    entry: &Path,
    kind: Kind,
    stream: u32,
    up: u64,
    down: u64,
) -> Result<(), Fault> {
    let request = Request {
        op: Op::Exchange,
        kind,
        stream,
        up,
        down,
        option: 0,
    };
    let mut connection = UnixStream::connect(entry)
        .await
        .map_err(|e| Fault::Connect(e.kind()))?;
    connection
        .write_all(&request.encode())
        .await
        .map_err(|e| Fault::Send {
            kind: e.kind(),
            sent: 0,
            want: 32,
        })?;
    converse(&request, &mut connection).await
}

/// As [`exchange`] with a service that takes no more than `rate_kib` KiB per second.
///
/// # Errors
/// See [`Fault`].
pub async fn slow_exchange(
    entry: SocketAddr,
    stream: u32,
    up: u64,
    down: u64,
    rate_kib: u32,
) -> Result<(), Fault> {
    let request = Request {
        op: Op::Slow,
        kind: Kind::Noise,
        stream,
        up,
        down,
        option: rate_kib,
    };
    let mut connection = begin(entry, &request).await?;
    converse(&request, &mut connection).await
}

/// The two halves of an exchange on a connection whose request was sent already.
///
/// # Errors
/// See [`Fault`].
pub async fn converse<S>(request: &Request, connection: &mut S) -> Result<(), Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut rx, mut tx) = tokio::io::split(connection);
    let sending = send(request.up_pattern(), request.up, &mut tx);
    let receiving = async {
        receive(request.down_pattern(), request.down, &mut rx).await?;
        verdict(&mut rx).await
    };
    tokio::try_join!(sending, receiving).map(|_| ())
}

/// Many exchanges, `at_once` of them open at any time, with consecutive stream numbers.
///
/// # Errors
/// The first fault with its stream number; the others are dropped.
pub async fn crowd(
    entry: SocketAddr,
    kind: Kind,
    first: u32,
    streams: u32,
    at_once: usize,
    up: u64,
    down: u64,
) -> Result<(), (u32, Fault)> {
    let permits = Arc::new(Semaphore::new(at_once));
    let mut tasks = JoinSet::new();
    for stream in first..first + streams {
        let permits = Arc::clone(&permits);
        tasks.spawn(async move {
            let _permit = permits.acquire_owned().await;
            exchange(entry, kind, stream, up, down)
                .await
                .map_err(|fault| (stream, fault))
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap_or(Err((0, Fault::Late)))?;
    }
    Ok(())
}

/// Messages of many sizes, one after the other, each returned by the service before the next is sent.
///
/// # Errors
/// See [`Fault`].
pub async fn ping_pong(entry: SocketAddr, stream: u32, sizes: &[usize]) -> Result<(), Fault> {
    let request = Request {
        op: Op::Echo,
        kind: Kind::Noise,
        stream,
        up: 0,
        down: 0,
        option: 0,
    };
    let mut connection = begin(entry, &request).await?;
    let mut at = 0;
    for &size in sizes {
        echo_once(&mut connection, request.up_pattern(), at, size as u64).await?;
        at += size as u64;
    }
    connection.shutdown().await.map_err(|e| Fault::Send {
        kind: e.kind(),
        sent: at,
        want: at,
    })
}

/// One message of an echo conversation, checked.
///
/// # Errors
/// See [`Fault`].
pub async fn echo_once(
    connection: &mut TcpStream,
    pattern: Pattern,
    from: u64,
    size: u64,
) -> Result<(), Fault> {
    let (mut rx, mut tx) = connection.split();
    let shifted = Shifted { pattern, from };
    tokio::try_join!(shifted.send(size, &mut tx), shifted.receive(size, &mut rx)).map(|_| ())
}

/// Proves that a stream works without ending it: one message for an echo, half a megabyte each way for an exchange.
///
/// # Errors
/// See [`Fault`].
pub async fn prove(connection: &mut TcpStream, request: &Request) -> Result<(), Fault> {
    if request.op == Op::Echo {
        return echo_once(connection, request.up_pattern(), 0, 5000).await;
    }
    let (mut rx, mut tx) = connection.split();
    let sending = send(request.up_pattern(), 500_000, &mut tx);
    let receiving = receive(request.down_pattern(), 500_000, &mut rx);
    tokio::try_join!(sending, receiving).map(|_| ())
}

/// Sends everything, ends its side, and only then receives the answer: from a service that knows the length of the
/// request ([`Op::AnswerRequest`]) or waits for its end ([`Op::AnswerAfterEof`]).
///
/// # Errors
/// See [`Fault`].
pub async fn ask_and_end(
    entry: SocketAddr,
    op: Op,
    stream: u32,
    up: u64,
    down: u64,
    think_ms: u32,
) -> Result<(), Fault> {
    let request = Request {
        op,
        kind: Kind::Noise,
        stream,
        up,
        down,
        option: think_ms,
    };
    let mut connection = begin(entry, &request).await?;
    let (mut rx, mut tx) = connection.split();
    send(request.up_pattern(), up, &mut tx).await?;
    tx.shutdown().await.map_err(|e| Fault::Send {
        kind: e.kind(),
        sent: up,
        want: up,
    })?;
    receive(request.down_pattern(), down, &mut rx).await?;
    verdict(&mut rx).await?;
    at_end(&mut rx, down).await
}

/// Receives everything up to the service's end, and only then sends; the service's record tells what arrived.
///
/// # Errors
/// See [`Fault`].
pub async fn listen_then_talk(
    entry: SocketAddr,
    stream: u32,
    up: u64,
    down: u64,
) -> Result<(), Fault> {
    let request = Request {
        op: Op::EndFirst,
        kind: Kind::Noise,
        stream,
        up,
        down,
        option: 0,
    };
    let mut connection = begin(entry, &request).await?;
    let (mut rx, mut tx) = connection.split();
    receive(request.down_pattern(), down, &mut rx).await?;
    at_end(&mut rx, down).await?;
    send(request.up_pattern(), up, &mut tx).await?;
    tx.shutdown().await.map_err(|e| Fault::Send {
        kind: e.kind(),
        sent: up,
        want: up,
    })
}

/// Sends `up` bytes of a pattern.
///
/// # Errors
/// [`Fault::Send`] or [`Fault::Late`].
pub async fn send<W: AsyncWrite + Unpin>(
    pattern: Pattern,
    up: u64,
    tx: &mut W,
) -> Result<(), Fault> {
    Shifted { pattern, from: 0 }.send(up, tx).await
}

/// Receives and checks `down` bytes of a pattern.
///
/// # Errors
/// See [`Fault`].
pub async fn receive<R: AsyncRead + Unpin>(
    pattern: Pattern,
    down: u64,
    rx: &mut R,
) -> Result<(), Fault> {
    Shifted { pattern, from: 0 }.receive(down, rx).await
}

/// Expects a clean end of the input.
///
/// # Errors
/// See [`Fault`].
pub async fn at_end<R: AsyncRead + Unpin>(rx: &mut R, so_far: u64) -> Result<(), Fault> {
    let mut extra = [0; 64];
    match limited(rx.read(&mut extra)).await? {
        Ok(0) => Ok(()),
        Ok(_) => Err(Fault::Long { want: so_far }),
        Err(e) => Err(Fault::Cut {
            kind: e.kind(),
            got: so_far,
            want: so_far,
        }),
    }
}

async fn verdict<R: AsyncRead + Unpin>(rx: &mut R) -> Result<(), Fault> {
    let mut byte = [0; 1];
    match limited(rx.read(&mut byte)).await? {
        Ok(0) => Err(Fault::Short { got: 0, want: 1 }),
        Ok(_) if byte[0] == VERDICT_GOOD => Ok(()),
        Ok(_) => Err(Fault::Verdict),
        Err(e) => Err(Fault::Cut {
            kind: e.kind(),
            got: 0,
            want: 1,
        }),
    }
}

async fn limited<T>(step: impl Future<Output = T>) -> Result<T, Fault> {
    tokio::time::timeout(STALL_LIMIT, step)
        .await
        .map_err(|_| Fault::Late)
}

/// A pattern from some offset on.
#[derive(Clone, Copy)]
struct Shifted {
    pattern: Pattern,
    from: u64,
}

impl Shifted {
    async fn send<W: AsyncWrite + Unpin>(&self, len: u64, tx: &mut W) -> Result<(), Fault> {
        let mut sent = 0;
        while sent < len {
            let left = usize::try_from(len - sent).unwrap_or(CHUNK).min(CHUNK);
            let piece = self.pattern.slice(self.from + sent, left);
            let mut rest = piece;
            while !rest.is_empty() {
                match limited(tx.write(rest)).await? {
                    Ok(n) => rest = &rest[n..],
                    Err(e) => {
                        return Err(Fault::Send {
                            kind: e.kind(),
                            sent,
                            want: len,
                        });
                    }
                }
            }
            sent += piece.len() as u64;
        }
        Ok(())
    }

    async fn receive<R: AsyncRead + Unpin>(&self, len: u64, rx: &mut R) -> Result<(), Fault> {
        let mut buffer = vec![0; CHUNK.min(usize::try_from(len).unwrap_or(CHUNK)).max(1)];
        let mut got = 0;
        while got < len {
            let room = usize::try_from(len - got)
                .unwrap_or(CHUNK)
                .min(buffer.len());
            match limited(rx.read(&mut buffer[..room])).await? {
                Ok(0) => return Err(Fault::Short { got, want: len }),
                Ok(n) => {
                    self.pattern
                        .check(self.from + got, &buffer[..n])
                        .map_err(|at| Fault::Wrong { at })?;
                    got += n as u64;
                }
                Err(e) => {
                    return Err(Fault::Cut {
                        kind: e.kind(),
                        got,
                        want: len,
                    });
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::{End, Target};

    fn service() -> (Target, SocketAddr) {
        let target = Target::tcp(([127, 0, 0, 1], 0).into()).unwrap();
        let crate::target::Where::Tcp(address) = *target.address() else {
            unreachable!()
        };
        (target, address)
    }

    // The service and the load without a tunnel between them: what they call right is right.
    #[tokio::test]
    async fn every_conversation_works_over_plain_tcp() {
        let (target, at) = service();
        exchange(at, Kind::Noise, 1, 3_000_000, 2_000_000)
            .await
            .unwrap();
        exchange(at, Kind::Text, 2, 0, 0).await.unwrap();
        ping_pong(at, 3, &[1, 7, 1350, 100_000]).await.unwrap();
        ask_and_end(at, Op::AnswerAfterEof, 4, 300_000, 400_000, 0)
            .await
            .unwrap();
        ask_and_end(at, Op::AnswerRequest, 7, 300_000, 400_000, 0)
            .await
            .unwrap();
        listen_then_talk(at, 5, 300_000, 400_000).await.unwrap();
        slow_exchange(at, 6, 60_000, 60_000, 1 << 20).await.unwrap();
        crowd(at, Kind::Noise, 100, 50, 50, 10_000, 10_000)
            .await
            .unwrap();
        assert!(target.wait_idle(Duration::from_secs(20)).await);
        let book = target.book();
        assert_eq!(book.accepted, 57);
        let late = book.records[&5];
        assert_eq!(
            (late.received, late.wrong_at, late.end),
            (300_000, None, Some(End::Clean))
        );
    }

    #[tokio::test]
    async fn a_cut_is_told_from_an_end() {
        let (_target, at) = service();
        let request = Request {
            op: Op::Reset,
            kind: Kind::Noise,
            stream: 1,
            up: 0,
            down: 10,
            option: 0,
        };
        let mut c = begin(at, &request).await.unwrap();
        let (mut rx, _tx) = c.split();
        let outcome = async {
            receive(request.down_pattern(), 10, &mut rx).await?;
            at_end(&mut rx, 10).await
        };
        assert!(matches!(
            outcome.await,
            Err(Fault::Cut {
                kind: ErrorKind::ConnectionReset,
                ..
            })
        ));
    }

    #[tokio::test]
    async fn wrong_bytes_are_reported_by_both_sides() {
        let (target, at) = service();
        // Announces stream 1 and sends the bytes of stream 2.
        let request = Request {
            op: Op::Exchange,
            kind: Kind::Noise,
            stream: 1,
            up: 5000,
            down: 5000,
            option: 0,
        };
        let mut c = begin(at, &request).await.unwrap();
        let other = Request {
            stream: 2,
            ..request
        };
        assert!(matches!(
            converse(&other, &mut c).await,
            Err(Fault::Wrong { .. })
        ));
        drop(c);
        assert!(
            target
                .wait(Duration::from_secs(20), |b| b.records[&1].closed)
                .await
        );
        assert!(target.book().records[&1].wrong_at.is_some());
    }
}
