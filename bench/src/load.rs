//! The load: what applications do with the tunnel, timed. Every byte is checked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fulmar_interop::load;
pub(crate) use fulmar_interop::load::Fault;
use fulmar_interop::pattern::Kind;
use fulmar_interop::target::{Op, Request};
use portable_atomic::AtomicU64;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// More than any measurement moves.
const ENDLESS: u64 = 1 << 50;
const CHUNK: usize = 256 * 1024;
/// How long the last answers may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a load came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Work {
    /// Useful bytes that arrived.
    pub(crate) bytes: u64,
    /// How long they took.
    pub(crate) elapsed: Duration,
    /// Round trips, sorted, milliseconds.
    pub(crate) latencies_ms: Vec<f64>,
}

/// Downloads (`down`) or uploads for a while.
pub(crate) async fn bulk(
    entry: SocketAddr,
    seconds: u64,
    connections: u32,
    down: bool,
) -> Result<Work, Fault> {
    let stop = Arc::new(AtomicBool::new(false));
    let moved = Arc::new(AtomicU64::new(0));
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    for stream in 0..connections {
        let (up, down) = if down { (0, ENDLESS) } else { (ENDLESS, 0) };
        let request = Request {
            op: Op::Exchange,
            kind: Kind::Noise,
            stream,
            up,
            down,
            option: 0,
        };
        let (stop, moved) = (Arc::clone(&stop), Arc::clone(&moved));
        tasks.spawn(async move {
            let connection = load::begin(entry, &request).await?;
            if request.down > 0 {
                download(connection, &request, &stop, &moved).await
            } else {
                upload(connection, &request, &stop, &moved).await
            }
        });
    }
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let bytes = moved.load(Ordering::Relaxed);
    let elapsed = begin.elapsed();
    stop.store(true, Ordering::Relaxed);
    while let Some(done) = tasks.join_next().await {
        done.unwrap_or(Err(Fault::Late))?;
    }
    Ok(Work {
        bytes,
        elapsed,
        latencies_ms: Vec::new(),
    })
}

async fn download(
    mut connection: TcpStream,
    request: &Request,
    stop: &AtomicBool,
    moved: &AtomicU64,
) -> Result<(), Fault> {
    let pattern = request.down_pattern();
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while !stop.load(Ordering::Relaxed) {
        // A look at the stop sign now and then, also when nothing comes.
        let Ok(read) =
            tokio::time::timeout(Duration::from_millis(100), connection.read(&mut buffer)).await
        else {
            continue;
        };
        match read {
            Ok(0) => {
                return Err(Fault::Short {
                    got: at,
                    want: ENDLESS,
                });
            }
            Ok(n) => {
                pattern
                    .check(at, &buffer[..n])
                    .map_err(|at| Fault::Wrong { at })?;
                at += n as u64;
                moved.fetch_add(n as u64, Ordering::Relaxed);
            }
            Err(e) => {
                return Err(Fault::Cut {
                    kind: e.kind(),
                    got: at,
                    want: ENDLESS,
                });
            }
        }
    }
    if at == 0 { Err(Fault::Late) } else { Ok(()) }
}

async fn upload(
    mut connection: TcpStream,
    request: &Request,
    stop: &AtomicBool,
    moved: &AtomicU64,
) -> Result<(), Fault> {
    let pattern = request.up_pattern();
    let mut at = 0;
    while !stop.load(Ordering::Relaxed) {
        let piece = pattern.slice(at, 128 * 1024);
        let Ok(written) =
            tokio::time::timeout(Duration::from_millis(100), connection.write(piece)).await
        else {
            continue;
        };
        match written {
            Ok(n) => {
                at += n as u64;
                moved.fetch_add(n as u64, Ordering::Relaxed);
            }
            Err(e) => {
                return Err(Fault::Send {
                    kind: e.kind(),
                    sent: at,
                    want: ENDLESS,
                });
            }
        }
    }
    Ok(())
}

/// Messages at a steady pace on one connection. A late answer delays no later message.
pub(crate) async fn ping(
    entry: SocketAddr,
    count: u32,
    every: Duration,
    size: usize,
) -> Result<Work, Fault> {
    let request = Request {
        op: Op::Echo,
        kind: Kind::Noise,
        stream: 1,
        up: 0,
        down: 0,
        option: 0,
    };
    let connection = load::begin(entry, &request).await?;
    let (mut rx, mut tx) = connection.into_split();
    let pattern = request.up_pattern();
    let begin = Instant::now();
    let total = u64::from(count) * size as u64;
    let sender = tokio::spawn(async move {
        for n in 0..count {
            tokio::time::sleep_until((begin + every * n).into()).await;
            let from = u64::from(n) * size as u64;
            tx.write_all(pattern.slice(from, size)).await?;
        }
        // Held open until everything is back.
        Ok::<_, std::io::Error>(tx)
    });
    let mut latencies_ms = Vec::with_capacity(usize::try_from(count).unwrap_or(0));
    let mut buffer = vec![0; size];
    for n in 0..count {
        let got = u64::from(n) * size as u64;
        match tokio::time::timeout(PATIENCE + every * n, rx.read_exact(&mut buffer)).await {
            Ok(Ok(_)) => {}
            Ok(Err(e)) => {
                return Err(Fault::Cut {
                    kind: e.kind(),
                    got,
                    want: total,
                });
            }
            Err(_) => return Err(Fault::Late),
        }
        pattern
            .check(got, &buffer)
            .map_err(|at| Fault::Wrong { at })?;
        latencies_ms.push((begin + every * n).elapsed().as_secs_f64() * 1e3);
    }
    let _ = sender.await;
    latencies_ms.sort_by(f64::total_cmp);
    Ok(Work {
        bytes: 0,
        elapsed: begin.elapsed(),
        latencies_ms,
    })
}

/// A new connection for each message, begun at a steady pace.
pub(crate) async fn requests(
    entry: SocketAddr,
    count: u32,
    every: Duration,
    size: usize,
) -> Result<Work, Fault> {
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    for stream in 0..count {
        tokio::time::sleep_until((begin + every * stream).into()).await;
        tasks.spawn(async move {
            let begin = Instant::now();
            let request = Request {
                op: Op::Echo,
                kind: Kind::Noise,
                stream,
                up: 0,
                down: 0,
                option: 0,
            };
            let mut connection = load::begin(entry, &request).await?;
            load::echo_once(&mut connection, request.up_pattern(), 0, size as u64).await?;
            Ok::<_, Fault>(begin.elapsed().as_secs_f64() * 1e3)
        });
    }
    let mut latencies_ms = Vec::new();
    while let Some(done) = tasks.join_next().await {
        latencies_ms.push(done.unwrap_or(Err(Fault::Late))?);
    }
    latencies_ms.sort_by(f64::total_cmp);
    Ok(Work {
        bytes: 0,
        elapsed: begin.elapsed(),
        latencies_ms,
    })
}

/// Connections that return one message and stay. Returned still open.
pub(crate) async fn hold(entry: SocketAddr, connections: u32) -> Result<Vec<TcpStream>, Fault> {
    let mut open = Vec::new();
    for stream in 0..connections {
        let request = Request {
            op: Op::Echo,
            kind: Kind::Noise,
            stream,
            up: 0,
            down: 0,
            option: 0,
        };
        open.push((request, load::begin(entry, &request).await?));
    }
    let mut held = Vec::new();
    for (request, mut connection) in open {
        load::echo_once(&mut connection, request.up_pattern(), 0, 16).await?;
        held.push(connection);
    }
    Ok(held)
}
