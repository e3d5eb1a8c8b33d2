//! A server with several drivers on one port, over loopback: clients spread, sessions live through changes of address, and
//! nobody else gets in.
#![cfg(target_os = "linux")]

use std::ffi::OsString;
use std::net::SocketAddr;
use std::time::Duration;

use fulmar_config::{Config, Environment, Invocation, Side, from_args};
use fulmar_netem::Rng;
use fulmar_runtime::{Counters, Error, Hub, Tunnel};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Longer than anything here takes on a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(120);

fn config(side: Side, flags: &[&str]) -> Config {
    let common = ["--key", "k", "--quiet", "--mode", "fast3"];
    let windows = ["--sndwnd", "1024", "--rcvwnd", "1024"];
    let args: Vec<OsString> = [&common[..], &windows, flags]
        .concat()
        .into_iter()
        .map(OsString::from)
        .collect();
    match from_args(side, &args, &Environment::default()) {
        Ok(Invocation::Run(loaded)) => loaded.config,
        other => panic!("{other:?}"),
    }
}

/// A tunnel's end that runs.
struct End {
    hub: Hub,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), Error>>,
}

impl End {
    /// Starts it; what it says when it is ready.
    async fn start(config: Config) -> (Self, String) {
        let tunnel = Tunnel::new(config);
        let (stop, stopped) = oneshot::channel();
        let (ready, said) = oneshot::channel();
        let hub = tunnel.hub();
        let run = async move {
            let ready = move |text: &str| drop(ready.send(text.to_owned()));
            let stopped = async { drop(stopped.await) };
            tunnel.run(ready, stopped).await
        };
        let task = tokio::spawn(run);
        let said = said.await.expect("it starts");
        (Self { hub, stop, task }, said)
    }

    async fn server(port: u16, threads: &str, target: SocketAddr) -> Self {
        let (listen, target) = (format!("127.0.0.1:{port}"), target.to_string());
        let flags = ["-l", &listen, "-t", &target, "--threads", threads];
        Self::start(config(Side::Server, &flags)).await.0
    }

    /// With `conn` sessions; the address for applications.
    async fn client(remote: SocketAddr, conn: &str) -> (Self, SocketAddr) {
        let remote = remote.to_string();
        let flags = ["-l", "127.0.0.1:0", "-r", &remote, "--conn", conn];
        let (end, said) = Self::start(config(Side::Client, &flags)).await;
        let addr = said.split('/').next().expect("an address");
        (end, addr.parse().expect("an address"))
    }

    /// Ends it; what it counted.
    async fn end(self) -> Counters {
        self.stop.send(()).expect("it runs");
        self.task.await.expect("no panic").expect("no error");
        self.hub.totals()
    }

    /// What each driver says of itself, once all of it together is as `right` wants it. Drivers tell when they rest.
    async fn drivers(&self, right: impl Fn(&[Counters]) -> bool) -> Vec<Counters> {
        let found = async {
            loop {
                let drivers = self.hub.drivers();
                if right(&drivers) {
                    return drivers;
                }
                tokio::task::yield_now().await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, found).await;
        found.unwrap_or_else(|_| panic!("{:?}", self.hub.drivers()))
    }
}

/// A UDP port that nobody has at the moment.
fn free_port() -> u16 {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.local_addr().expect("bound").port()
}

/// A target that sends everything back.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let addr = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = socket.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    addr
}

/// Sends `bytes` bytes, checks that all of them come back, and ends as both sides want it: a client that stopped before
/// would cut the stream.
async fn exchange(addr: SocketAddr, seed: u64, bytes: usize) {
    let mut socket = TcpStream::connect(addr).await.expect("connected");
    let (mut from, mut to) = socket.split();
    let mut rng = Rng::new(seed);
    let sent: Vec<u8> = (0..bytes.div_ceil(8))
        .flat_map(|_| rng.bits().to_le_bytes())
        .collect();
    let mut received = vec![0; sent.len()];
    let (wrote, read) = tokio::join!(to.write_all(&sent), from.read_exact(&mut received));
    wrote.expect("written");
    read.expect("read");
    assert!(received == sent, "stream {seed}: every byte as it was sent");
    to.shutdown().await.expect("half closed");
    let rest = from.read(&mut [0]).await.expect("the other half's end");
    assert_eq!(rest, 0);
}

/// Exchanges on as many streams as `seeds` at once.
async fn exchanges(addr: SocketAddr, seeds: std::ops::Range<u64>, bytes: usize) {
    let streams: Vec<_> = seeds
        .map(|seed| tokio::spawn(exchange(addr, seed, bytes)))
        .collect();
    for stream in streams {
        let done = tokio::time::timeout(PATIENCE, stream).await;
        done.expect("in time").expect("no panic");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sessions_spread_over_drivers_and_all_work() {
    let port = free_port();
    let server = End::server(port, "4", echo().await).await;
    let (client, addr) = End::client(([127, 0, 0, 1], port).into(), "32").await;
    exchanges(addr, 0..64, 100_000).await;
    client.end().await;
    let opened = |drivers: &[Counters]| drivers.iter().map(|c| c.passive_opens).sum::<u64>();
    let drivers = server.drivers(|all| opened(all) == 32).await;
    let sessions: Vec<u64> = drivers.iter().map(|c| c.passive_opens).collect();
    assert_eq!(sessions.len(), 4);
    // All at one of four: once in 4^31.
    let busy = sessions.iter().filter(|n| **n > 0).count();
    assert!(busy > 1, "{sessions:?}");
    let totals = server.end().await;
    assert_eq!((totals.passive_opens, totals.max_conn), (32, 32));
    assert_eq!(totals.handovers, 0);
}

/// A relay whose sending port changes after every `every` datagrams from the client, until it gets an empty one. How
/// often it has.
async fn changing_relay(near: UdpSocket, server: SocketAddr, every: u32) -> u32 {
    let mut peer = None;
    let (mut changes, mut passed) = (0, 0);
    let (mut up, mut down) = (vec![0; 2048], vec![0; 2048]);
    let mut far = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    loop {
        tokio::select! {
            got = near.recv_from(&mut up) => {
                let (n, from) = got.expect("received");
                if n == 0 {
                    return changes;
                }
                peer = Some(from);
                if passed == every {
                    passed = 0;
                    changes += 1;
                    far = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
                }
                passed += 1;
                far.send_to(&up[..n], server).await.expect("sent");
            }
            Ok((n, _)) = far.recv_from(&mut down) => {
                if let Some(peer) = peer {
                    near.send_to(&down[..n], peer).await.expect("sent");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_session_lives_through_many_changes_of_its_address() {
    let port = free_port();
    let server = End::server(port, "4", echo().await).await;
    let near = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let through = near.local_addr().expect("bound");
    let relay = tokio::spawn(changing_relay(near, ([127, 0, 0, 1], port).into(), 400));
    let (client, addr) = End::client(through, "1").await;
    exchanges(addr, 0..4, 2_000_000).await;
    let lost = client.end().await.streams_reset;
    let totals = server.end().await;
    let stop = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    stop.send_to(&[], through).await.expect("sent");
    let changes = relay.await.expect("no panic");
    // At the same of four drivers every time: once in 4^12.
    assert!(changes >= 12, "{changes}");
    assert_eq!(
        (totals.passive_opens, totals.streams_opened, lost),
        (1, 4, 0)
    );
    assert!(totals.moved_peers > 0 && totals.handovers > 0, "{totals:?}");
}

#[tokio::test]
async fn a_second_server_is_refused_whatever_its_threads() {
    let target: SocketAddr = ([127, 0, 0, 1], 9).into();
    for (first, second) in [("4", "4"), ("4", "1"), ("1", "4"), ("1", "1")] {
        let port = free_port();
        let server = End::server(port, first, target).await;
        let listen = format!("127.0.0.1:{port}");
        let flags = ["-l", &listen, "-t", "127.0.0.1:9", "--threads", second];
        let again = Tunnel::new(config(Side::Server, &flags));
        let refused = again.run(|_| panic!("it listens"), std::future::pending());
        match refused.await {
            Err(Error::Listen { addr, source }) => {
                assert_eq!(addr, format!("{listen}/udp"));
                assert_eq!(source.kind(), std::io::ErrorKind::AddrInUse);
            }
            other => panic!("{first} {second}: {other:?}"),
        }
        let drivers = first.parse().expect("a number");
        server.drivers(|all| all.len() == drivers).await;
        server.end().await;
    }
}
