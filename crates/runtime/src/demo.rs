//! The whole thing in one process: a target, a server, a lossy link, a client.
//!
//! The two ends are those of `fulmar server` and `fulmar client`, with real sockets on loopback; only the link between
//! them is emulated. A download measures what gets through, echoes beforehand measure what it costs in time. Every
//! byte is checked.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant as System};

use fulmar_config::Config;
use fulmar_netem::{Direction, Net, Path, Rate};
use fulmar_netio::SocketOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::{Error, Tunnel};

/// What the link is like and how much goes over it.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes to download.
    pub bytes: u64,
    /// Bits per second of the link, either way.
    pub bits_per_second: u64,
    /// Delay in either direction.
    pub delay: Duration,
    /// Share of datagrams that are lost, 0 to 1, either way.
    pub loss: f64,
    /// Echoes before the download.
    pub echoes: u32,
    /// Seed of everything random on the link.
    pub seed: u64,
}

impl Default for Options {
    /// 32 MB over 50 Mbit/s, 60 ms there and back, 3 % loss.
    fn default() -> Self {
        Self {
            bytes: 32_000_000,
            bits_per_second: 50_000_000,
            delay: Duration::from_millis(30),
            loss: 0.03,
            echoes: 40,
            seed: 1,
        }
    }
}

/// How far it is.
#[derive(Copy, Clone, Debug)]
pub enum Progress {
    /// So many echoes have come back.
    Echoes(u32),
    /// So many bytes have come through since the download began.
    Bytes(u64, Duration),
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Report {
    /// Bytes downloaded, all of them right.
    pub bytes: u64,
    /// How long the download took.
    pub took: Duration,
    /// Bits per second of useful bytes.
    pub goodput: f64,
    /// Bits per second of useful bytes that the link could have carried: rate, less the loss, less headers.
    pub possible: f64,
    /// Bytes that entered the link (UDP payload), both ways.
    pub wire_bytes: u64,
    /// Datagrams that entered the link and that it lost.
    pub datagrams: (u64, u64),
    /// Echo times, sorted.
    pub echoes: Vec<Duration>,
    /// Segments sent again, and packets rebuilt from parity, at both ends.
    pub resent: u64,
    /// See `resent`.
    pub rebuilt: u64,
}

impl Report {
    /// The echo time that the share `p` (0 to 1) of the echoes does not exceed.
    #[must_use]
    pub fn echo(&self, p: f64) -> Duration {
        let at =
            ((self.echoes.len() as f64 * p).ceil() as usize).clamp(1, self.echoes.len().max(1)) - 1;
        self.echoes.get(at).copied().unwrap_or_default()
    }
}

/// Addresses that the two configurations need.
#[derive(Copy, Clone, Debug)]
pub struct Addresses {
    /// Where the server listens (UDP).
    pub server: SocketAddr,
    /// Where the client sends to: the near end of the link (UDP).
    pub link: SocketAddr,
    /// Where the client listens (TCP).
    pub client: SocketAddr,
    /// The target (TCP).
    pub target: SocketAddr,
}

/// Runs the demonstration. `configure` makes the configurations of server and client from the addresses.
///
/// # Errors
/// When a socket cannot be had or a byte comes out wrong.
pub async fn run(
    options: Options,
    configure: impl FnOnce(Addresses) -> Result<(Config, Config), String>,
    mut progress: impl FnMut(Progress),
) -> Result<Report, Error> {
    let target = TcpListener::bind(("127.0.0.1", 0)).await?;
    let (near, far) = (link_end()?, link_end()?);
    let addresses = Addresses {
        server: free_udp()?,
        link: near.local_addr()?,
        client: free_tcp()?,
        target: target.local_addr()?,
    };
    let (server, client) =
        configure(addresses).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
    let net = net(&options);
    let (stop_link, link_stopped) = oneshot::channel();
    let link = tokio::spawn(link(net, near, far, addresses.server, link_stopped));
    let target = tokio::spawn(serve(target));

    let (server, client) = (Tunnel::new(server), Tunnel::new(client));
    let hubs = [server.hub(), client.hub()];
    let mut stops = Vec::new();
    let mut tunnels = tokio::task::JoinSet::new();
    for tunnel in [server, client] {
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = oneshot::channel();
        stops.push(stop);
        tunnels.spawn(tunnel.run(
            move |_| {
                // Nobody waits any more when the other end failed meanwhile.
                let _ = ready.send(());
            },
            async {
                let _ = stopped.await;
            },
        ));
        if is_ready.await.is_err()
            && let Some(Ok(Err(e))) = tunnels.join_next().await
        {
            return Err(e);
        }
    }
    let mut echoes = echo(addresses.client, options.echoes, &mut progress).await?;
    echoes.sort();
    let took = download(addresses.client, options.bytes, &mut progress).await?;

    drop(stops);
    while let Some(ended) = tunnels.join_next().await {
        ended.map_err(io::Error::other)??;
    }
    target.abort();
    let _ = stop_link.send(());
    let net = link.await.map_err(io::Error::other)??;
    let (up, down) = (net.counters(Direction::Up), net.counters(Direction::Down));
    let totals = hubs.map(|h| h.totals());
    let share = 1298.0 / (1350.0 + Rate::HEADERS as f64);
    Ok(Report {
        bytes: options.bytes,
        took,
        goodput: options.bytes as f64 * 8.0 / took.as_secs_f64(),
        possible: options.bits_per_second as f64 * (1.0 - options.loss) * share,
        wire_bytes: up.sent_bytes + down.sent_bytes,
        datagrams: (up.sent + down.sent, up.lost() + down.lost()),
        echoes,
        resent: totals.iter().map(|c| c.retrans_segs).sum(),
        rebuilt: totals.iter().map(|c| c.fec_recovered).sum(),
    })
}

fn net(options: &Options) -> Net {
    let path = Path {
        delay: options.delay,
        loss: options.loss,
        rate: Some(Rate::with_queue_time(
            options.bits_per_second,
            Duration::from_millis(60),
        )),
        ..Path::default()
    };
    Net::new(options.seed, path.clone(), path)
}

/// One end of the link. The ends of the tunnel send whole windows at once, and what does not fit into the buffer here would
/// be lost before it reaches the link.
fn link_end() -> io::Result<UdpSocket> {
    let options = SocketOptions {
        recv_buffer: Some(16 << 20),
        ..SocketOptions::default()
    };
    let (socket, _) = fulmar_netio::bind(([127, 0, 0, 1], 0).into(), &options)?;
    UdpSocket::from_std(socket)
}

/// A port that is free now. Between this and its use another program could take it; then the demonstration fails with
/// a clear error.
fn free_udp() -> io::Result<SocketAddr> {
    std::net::UdpSocket::bind(("127.0.0.1", 0))?.local_addr()
}

fn free_tcp() -> io::Result<SocketAddr> {
    std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()
}

/// Passes datagrams on through the emulated net, in real time.
async fn link(
    mut net: Net,
    near: UdpSocket,
    far: UdpSocket,
    server: SocketAddr,
    mut stopped: oneshot::Receiver<()>,
) -> io::Result<Net> {
    let clock = Clock::start();
    let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
    let mut client = None;
    loop {
        let now = clock.now();
        while let Some(delivery) = net.poll(now) {
            // A full socket buffer is one more place where a path loses datagrams.
            let _ = match delivery.direction {
                Direction::Up => far.try_send_to(&delivery.data, delivery.to),
                Direction::Down => near.try_send_to(&delivery.data, delivery.to),
            };
            net.recycle(delivery.data);
        }
        let next = net.next_arrival().map_or_else(
            || clock.system(now + Duration::from_secs(1)),
            |at| clock.system(at),
        );
        tokio::select! {
            _ = &mut stopped => return Ok(net),
            () = tokio::time::sleep_until(next) => {}
            received = near.recv_from(&mut up) => {
                let (n, from) = received?;
                client = Some(from);
                net.send(clock.now(), Direction::Up, from, server, &up[..n]);
                while let Ok((n, from)) = near.try_recv_from(&mut up) {
                    net.send(clock.now(), Direction::Up, from, server, &up[..n]);
                }
            }
            received = far.recv_from(&mut down) => {
                let (mut n, _) = received?;
                loop {
                    if let Some(client) = client {
                        net.send(clock.now(), Direction::Down, server, client, &down[..n]);
                    }
                    match far.try_recv_from(&mut down) {
                        Ok((more, _)) => n = more,
                        Err(_) => break,
                    }
                }
            }
        }
    }
}

/// What a client asks the target for, in its first byte.
const ECHO: u8 = b'e';
const DOWNLOAD: u8 = b'd';
const CHUNK: usize = 64 * 1024;
const ECHO_LEN: usize = 100;

/// Byte `at` of the download: a hash of the place, so that the tunnel's compression gains nothing
/// and what is measured is the link.
fn pattern(at: u64) -> u8 {
    let x = (at ^ (at >> 15)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 32)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (x >> 56) as u8
}

async fn serve(listener: TcpListener) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(answer(stream));
    }
}

async fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buf = vec![0; CHUNK];
    if stream.read_u8().await? == DOWNLOAD {
        let bytes = stream.read_u64_le().await?;
        let mut at = 0;
        while at < bytes {
            let n = CHUNK.min(usize::try_from(bytes - at).unwrap_or(CHUNK));
            for (i, b) in buf[..n].iter_mut().enumerate() {
                *b = pattern(at + i as u64);
            }
            stream.write_all(&buf[..n]).await?;
            at += n as u64;
        }
        return stream.shutdown().await;
    }
    loop {
        let n = stream.read(&mut buf).await?;
        if n == 0 {
            return Ok(());
        }
        stream.write_all(&buf[..n]).await?;
    }
}

async fn echo(
    client: SocketAddr,
    count: u32,
    progress: &mut impl FnMut(Progress),
) -> io::Result<Vec<Duration>> {
    let mut stream = TcpStream::connect(client).await?;
    stream.set_nodelay(true)?;
    stream.write_u8(ECHO).await?;
    let mut times = Vec::new();
    let (sent, mut got) = ([0x5a; ECHO_LEN], [0; ECHO_LEN]);
    for i in 0..count {
        let start = System::now();
        stream.write_all(&sent).await?;
        stream.read_exact(&mut got).await?;
        if got != sent {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "an echo came back wrong",
            ));
        }
        times.push(start.elapsed());
        progress(Progress::Echoes(i + 1));
    }
    Ok(times)
}

async fn download(
    client: SocketAddr,
    bytes: u64,
    progress: &mut impl FnMut(Progress),
) -> io::Result<Duration> {
    let mut stream = TcpStream::connect(client).await?;
    let start = System::now();
    stream.write_u8(DOWNLOAD).await?;
    stream.write_u64_le(bytes).await?;
    let mut buf = vec![0; CHUNK];
    let (mut at, mut told) = (0, start);
    loop {
        let n = stream.read(&mut buf).await?;
        if n == 0 {
            break;
        }
        if buf[..n]
            .iter()
            .enumerate()
            .any(|(i, b)| *b != pattern(at + i as u64))
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a byte after {at} came out wrong"),
            ));
        }
        at += n as u64;
        if told.elapsed() > Duration::from_millis(200) {
            told = System::now();
            progress(Progress::Bytes(at, start.elapsed()));
        }
    }
    if at != bytes {
        let message = format!("{at} of {bytes} bytes came through");
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
    }
    progress(Progress::Bytes(at, start.elapsed()));
    Ok(start.elapsed())
}
