//! Streams between two Fulmar processes over real sockets: many at once, slow readers, cut and half-closed connections,
//! services that are slow, silent or not there. Nothing may be lost, doubled, or left open.
//!
//! The `fulmar` program is built first when it is not up to date. No other program is needed.

// Helpers of tests are tests: what fails there fails the test.
#![allow(clippy::unwrap_used)]
#![cfg(target_os = "linux")]

use std::io::ErrorKind;
use std::time::Duration;

use fulmar_interop::load::{self, Fault};
use fulmar_interop::pattern::Kind;
use fulmar_interop::process::Process;
use fulmar_interop::program::{Pair, Programs};
use fulmar_interop::target::{End, Op, Request, Target};
use fulmar_interop::tunnel::{Behind, Setup, Tunnel};
use fulmar_netem::{Path, Reordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Long enough for a busy machine; nothing here waits that long when things go well.
const LIMIT: Duration = Duration::from_secs(60);

fn setup(smux: u8) -> Setup {
    Setup::new(Pair::FULMAR, smux).both("--mode fast3 --sndwnd 1024 --rcvwnd 1024")
}

async fn start(setup: Setup) -> Tunnel {
    Tunnel::start(&Programs::find(), setup).await.unwrap()
}

fn request(op: Op, stream: u32, up: u64, down: u64) -> Request {
    Request {
        op,
        kind: Kind::Noise,
        stream,
        up,
        down,
        option: 0,
    }
}

fn service(tunnel: &Tunnel) -> &Target {
    tunnel.target.as_ref().unwrap()
}

/// Number of sockets that a process has open.
fn sockets(process: &Process) -> usize {
    let links = std::fs::read_dir(format!("/proc/{}/fd", process.pid())).unwrap();
    links
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|link| link.to_string_lossy().starts_with("socket:"))
        .count()
}

/// What both processes hold when no stream is open: one stream is carried first, so that the session exists.
async fn warm_up(tunnel: &Tunnel) -> (usize, usize) {
    load::exchange(tunnel.entry(), Kind::Noise, 900_000, 1000, 1000)
        .await
        .unwrap();
    assert!(service(tunnel).wait_idle(LIMIT).await);
    let mut before = (sockets(&tunnel.client), sockets(&tunnel.server));
    // The last connection is closed at the service; the tunnel's own ends of it follow.
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = (sockets(&tunnel.client), sockets(&tunnel.server));
        if now == before {
            return now;
        }
        before = now;
    }
}

/// Everything is closed: at the service and in both processes, which are alive and well.
async fn nothing_left(tunnel: &mut Tunnel, idle: (usize, usize)) {
    let begin = std::time::Instant::now();
    assert!(
        service(tunnel).wait_idle(LIMIT).await,
        "{} open at the service",
        service(tunnel).book().open
    );
    loop {
        let now = (sockets(&tunnel.client), sockets(&tunnel.server));
        if now.0 <= idle.0 && now.1 <= idle.1 {
            break;
        }
        assert!(
            begin.elapsed() < LIMIT,
            "sockets left open: {now:?}, idle {idle:?}; {}",
            tunnel.last_words()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tunnel.healthy().unwrap();
}

/// Every record of the service is whole, and it saw so many connections (besides the one of the warm-up).
fn all_whole(tunnel: &Tunnel, connections: u64) {
    let book = service(tunnel).book();
    assert_eq!((book.accepted, book.nonsense), (connections + 1, 0));
    for (stream, record) in &book.records {
        assert_eq!(record.wrong_at, None, "stream {stream}");
        assert!(record.closed, "stream {stream}");
    }
}

async fn thousand(smux: u8) {
    let mut tunnel = start(setup(smux)).await;
    let idle = warm_up(&tunnel).await;
    // All are open before the first byte of payload moves.
    let mut open = Vec::new();
    for stream in 0..1000 {
        let request = request(Op::Exchange, stream, 3000, 3000);
        open.push((
            request,
            load::begin(tunnel.entry(), &request).await.unwrap(),
        ));
    }
    assert!(
        service(&tunnel)
            .wait(LIMIT, |b| b.records.len() == 1001)
            .await
    );
    assert_eq!(service(&tunnel).book().open, 1000);
    let mut work = tokio::task::JoinSet::new();
    for (request, mut connection) in open {
        work.spawn(async move {
            load::converse(&request, &mut connection)
                .await
                .map_err(|f| (request.stream, f))
        });
    }
    while let Some(done) = work.join_next().await {
        done.unwrap().unwrap();
    }
    nothing_left(&mut tunnel, idle).await;
    all_whole(&tunnel, 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_streams_at_once_smux_1() {
    thousand(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_streams_at_once_smux_2() {
    thousand(2).await;
}

/// Resident memory of both processes, their own, in KiB: client, server.
fn memory(tunnel: &Tunnel) -> [u64; 2] {
    [&tunnel.client, &tunnel.server].map(Process::anonymous_kib)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_idle_streams_cost_little_memory_and_leave_none() {
    let mut tunnel = start(setup(2)).await;
    let idle = warm_up(&tunnel).await;
    let before = memory(&tunnel);
    assert!(before.iter().all(|&kib| kib > 0));
    let mut open = tokio::task::JoinSet::new();
    for stream in 0..1000 {
        let entry = tunnel.entry();
        open.spawn(async move {
            let request = request(Op::Echo, stream, 0, 0);
            let mut connection = load::begin(entry, &request).await?;
            load::echo_once(&mut connection, request.up_pattern(), 0, 100).await?;
            Ok::<_, Fault>(connection)
        });
    }
    let mut held = Vec::new();
    while let Some(connection) = open.join_next().await {
        held.push(connection.unwrap().unwrap());
    }
    for (with, before) in memory(&tunnel).iter().zip(before) {
        // 2 KiB each, and what all share.
        assert!(
            *with < before + 2 * 1000 + 1024,
            "{before} KiB, then {with}"
        );
    }
    drop(held);
    nothing_left(&mut tunnel, idle).await;
    // Some seconds after the last of them, the memory is the system's again.
    let begin = std::time::Instant::now();
    loop {
        let after = memory(&tunnel);
        let mut both = after.iter().zip(before);
        if both.all(|(after, before)| *after < before + 1024) {
            break;
        }
        assert!(begin.elapsed() < LIMIT, "{before:?} KiB, then {after:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_thousand_short_lives_leave_nothing() {
    let mut tunnel = start(setup(2)).await;
    let idle = warm_up(&tunnel).await;
    load::crowd(tunnel.entry(), Kind::Noise, 1, 1000, 50, 10, 10)
        .await
        .unwrap();
    nothing_left(&mut tunnel, idle).await;
    all_whole(&tunnel, 1000);
}

#[tokio::test]
async fn readers_that_pause_hold_up_nobody_and_lose_nothing() {
    // A stream window below the session's buffer: paused streams cannot fill it.
    let mut tunnel = start(setup(2).both("--streambuf 262144")).await;
    let idle = warm_up(&tunnel).await;
    let mut paused = Vec::new();
    for stream in 0..8 {
        let request = request(Op::Exchange, stream, 0, 3_000_000);
        paused.push((
            request,
            load::begin(tunnel.entry(), &request).await.unwrap(),
        ));
    }
    assert!(service(&tunnel).wait(LIMIT, |b| b.records.len() == 9).await);
    // Nobody reads the eight. Others come and go.
    load::crowd(tunnel.entry(), Kind::Noise, 100, 20, 5, 100_000, 100_000)
        .await
        .unwrap();
    for (request, connection) in &mut paused {
        load::converse(request, connection).await.unwrap();
    }
    drop(paused);
    nothing_left(&mut tunnel, idle).await;
    all_whole(&tunnel, 28);
}

#[tokio::test]
async fn a_reader_that_takes_a_byte_at_a_time_gets_every_byte() {
    let mut tunnel = start(setup(2)).await;
    let idle = warm_up(&tunnel).await;
    let request = request(Op::Exchange, 1, 0, 20_000);
    let mut connection = load::begin(tunnel.entry(), &request).await.unwrap();
    let pattern = request.down_pattern();
    for at in 0..20_000 {
        let byte = connection.read_u8().await.unwrap();
        pattern.check(at, &[byte]).unwrap();
    }
    drop(connection);
    nothing_left(&mut tunnel, idle).await;
}

async fn half_close(smux: u8, flags: &str) {
    let mut tunnel = start(setup(smux).both(flags)).await;
    let idle = warm_up(&tunnel).await;
    // Three at a time in each direction, some with a service that thinks first.
    let entry = tunnel.entry();
    let mut work = tokio::task::JoinSet::new();
    for stream in 0..6 {
        let op = if stream < 3 {
            Op::AnswerRequest
        } else {
            Op::AnswerAfterEof
        };
        work.spawn(load::ask_and_end(
            entry,
            op,
            stream,
            700_000,
            900_000,
            stream % 3 * 700,
        ));
    }
    for stream in 10..13 {
        work.spawn(load::listen_then_talk(entry, stream, 900_000, 700_000));
    }
    while let Some(done) = work.join_next().await {
        done.unwrap().unwrap();
    }
    nothing_left(&mut tunnel, idle).await;
    all_whole(&tunnel, 9);
    let book = service(&tunnel).book();
    for stream in 10..13 {
        assert_eq!(
            (book.records[&stream].received, book.records[&stream].end),
            (900_000, Some(End::Clean))
        );
    }
}

#[tokio::test]
async fn half_closed_streams_smux_1() {
    half_close(1, "").await;
}

#[tokio::test]
async fn half_closed_streams_smux_2() {
    half_close(2, "").await;
}

#[tokio::test]
async fn half_closed_streams_without_waiting_time() {
    half_close(2, "--closewait 0 --nocomp").await;
}

#[tokio::test]
async fn an_empty_stream_ends_on_both_sides() {
    let mut tunnel = start(setup(2)).await;
    let idle = warm_up(&tunnel).await;
    for _ in 0..20 {
        let mut connection = load::connect(tunnel.entry()).await.unwrap();
        connection.shutdown().await.unwrap();
        assert_eq!(connection.read(&mut [0; 8]).await.unwrap(), 0);
    }
    nothing_left(&mut tunnel, idle).await;
    assert_eq!(service(&tunnel).book().nonsense, 20);
}

/// Closes with a reset.
fn cut(connection: TcpStream) {
    let socket = socket2::Socket::from(connection.into_std().unwrap());
    socket.set_linger(Some(Duration::ZERO)).unwrap();
}

#[tokio::test]
async fn a_cut_by_the_application_is_a_cut_for_the_service() {
    let mut tunnel = start(setup(2)).await;
    let idle = warm_up(&tunnel).await;
    for stream in 0..20 {
        // Half of them idle, half in the middle of a transfer that never ends.
        let op = if stream % 2 == 0 {
            Op::Echo
        } else {
            Op::Exchange
        };
        let request = request(op, stream, 1 << 40, 1 << 40);
        let mut connection = load::begin(tunnel.entry(), &request).await.unwrap();
        load::prove(&mut connection, &request).await.unwrap();
        cut(connection);
    }
    nothing_left(&mut tunnel, idle).await;
    let book = service(&tunnel).book();
    for stream in 0..20 {
        assert_eq!(book.records[&stream].wrong_at, None);
        assert_eq!(book.records[&stream].end, Some(End::Cut), "stream {stream}");
    }
}

#[tokio::test]
async fn a_cut_by_the_service_is_a_cut_for_the_application() {
    let mut tunnel = start(setup(2)).await;
    let idle = warm_up(&tunnel).await;
    for stream in 0..10 {
        let request = request(Op::Reset, stream, 0, 1000);
        let mut connection = load::begin(tunnel.entry(), &request).await.unwrap();
        let mut sink = Vec::new();
        let error = connection.read_to_end(&mut sink).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "stream {stream}");
        request.down_pattern().check(0, &sink).unwrap();
    }
    nothing_left(&mut tunnel, idle).await;
}

#[tokio::test]
async fn a_service_that_is_down_closes_the_connection_and_nothing_else() {
    let mut tunnel = start(setup(2).behind(Behind::Nothing)).await;
    for stream in 0..50 {
        let outcome = load::exchange(tunnel.entry(), Kind::Noise, stream, 10_000, 10_000).await;
        assert!(
            matches!(
                outcome,
                Err(Fault::Connect(ErrorKind::ConnectionReset)
                    | Fault::Short { .. }
                    | Fault::Cut { .. }
                    | Fault::Send { .. })
            ),
            "{outcome:?}"
        );
    }
    // It comes up: the same session serves it at once.
    let target = Target::tcp(tunnel.place.at(fulmar_interop::place::TARGET_PORT)).unwrap();
    load::exchange(tunnel.entry(), Kind::Noise, 100, 100_000, 100_000)
        .await
        .unwrap();
    assert!(target.wait_idle(LIMIT).await);
    tunnel.healthy().unwrap();
}

#[tokio::test]
async fn a_service_that_never_reads_fills_bounded_buffers_and_is_let_go() {
    let mut tunnel = start(setup(2).both("--streambuf 262144")).await;
    let idle = warm_up(&tunnel).await;
    let request = request(Op::Stall, 1, 1 << 40, 0);
    let mut connection = load::begin(tunnel.entry(), &request).await.unwrap();
    // Until nothing more is taken. What lies in between is bounded by buffers: kernel's and ours.
    let mut taken = 0u64;
    let piece = request.up_pattern().slice(0, 65_536);
    while let Ok(written) =
        tokio::time::timeout(Duration::from_secs(2), connection.write(piece)).await
    {
        taken += written.unwrap() as u64;
        assert!(taken < 64 << 20, "no end to what the tunnel takes");
    }
    assert!(taken > 200_000);
    // Neighbours do not notice.
    load::crowd(tunnel.entry(), Kind::Noise, 100, 10, 5, 100_000, 100_000)
        .await
        .unwrap();
    // The application gives up. The direction that cannot be delivered must not stay for ever.
    cut(connection);
    let begin = std::time::Instant::now();
    while sockets(&tunnel.client) > idle.0 || sockets(&tunnel.server) > idle.1 {
        assert!(
            begin.elapsed() < LIMIT,
            "the stalled stream stays; {}",
            tunnel.last_words()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tunnel.healthy().unwrap();
}

#[tokio::test]
async fn sixty_four_streams_over_a_bad_path() {
    let path = Path {
        loss: 0.05,
        duplication: 0.02,
        corruption: 0.02,
        delay: Duration::from_millis(5),
        jitter: Duration::from_millis(3),
        reordering: Some(Reordering {
            probability: 0.05,
            by: Duration::from_millis(8),
        }),
        ..Path::default()
    };
    let mut tunnel = start(setup(2).link(path)).await;
    let idle = warm_up(&tunnel).await;
    load::crowd(tunnel.entry(), Kind::Text, 1, 64, 64, 50_000, 50_000)
        .await
        .unwrap();
    nothing_left(&mut tunnel, idle).await;
    all_whole(&tunnel, 64);
    tunnel.relay.as_ref().unwrap().did_its_part().unwrap();
}
