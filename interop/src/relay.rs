//! An imperfect network between the two ends: a UDP relay in this process.
//!
//! It loses, doubles, delays, reorders and corrupts datagrams by a seeded generator, can go dark, and can change the
//! address from which the server hears the client, as a NAT gateway does. It needs no privileges.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::pattern::SplitMix;

/// What the network does to a datagram, the same in both directions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shape {
    /// Lost datagrams, percent.
    pub loss: f64,
    /// Datagrams that arrive twice, percent.
    pub duplicate: f64,
    /// Datagrams that arrive `REORDER_BY` late, percent.
    pub reorder: f64,
    /// Datagrams of which one byte is changed, percent.
    pub corrupt: f64,
    /// One-way delay, milliseconds.
    pub delay_ms: u64,
}

/// How late a reordered datagram is: later than several that were sent after it.
const REORDER_BY: Duration = Duration::from_millis(4);

/// A running relay. It ends when dropped.
#[derive(Debug)]
pub struct Relay {
    shape: Shape,
    control: Arc<Control>,
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Control {
    dark: AtomicBool,
    generation: AtomicU64,
    forwarded: AtomicU64,
    lost: AtomicU64,
    doubled: AtomicU64,
    late: AtomicU64,
    corrupted: AtomicU64,
}

impl Relay {
    /// Carries datagrams between clients that send to `front` and `server`.
    ///
    /// # Errors
    /// When `front` cannot be bound.
    pub async fn start(
        front: SocketAddr,
        server: SocketAddr,
        shape: Shape,
        seed: u64,
    ) -> io::Result<Self> {
        let front = Arc::new(bind(front)?);
        let control = Arc::new(Control::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(forward(front, server, shape, seed, Arc::clone(&control)));
        Ok(Self {
            shape,
            control,
            _tasks: tasks,
        })
    }

    /// While dark, everything is lost.
    pub fn set_dark(&self, dark: bool) {
        self.control.dark.store(dark, Ordering::Relaxed);
    }

    /// From now on the server hears its clients from new ports; what it sends to the old ones is lost.
    pub fn rebind(&self) {
        self.control.generation.fetch_add(1, Ordering::Relaxed);
    }

    /// Datagrams carried so far.
    #[must_use]
    pub fn forwarded(&self) -> u64 {
        self.control.forwarded.load(Ordering::Relaxed)
    }

    /// Checks that each disturbance asked for was really applied: a row on a bad link must not pass on a good one.
    ///
    /// # Errors
    /// What never happened.
    pub fn did_its_part(&self) -> Result<(), String> {
        let Shape {
            loss,
            duplicate,
            reorder,
            corrupt,
            delay_ms: _,
        } = self.shape;
        let Control {
            lost,
            doubled,
            late,
            corrupted,
            ..
        } = &*self.control;
        for (what, percent, count) in [
            ("lost", loss, lost),
            ("doubled", duplicate, doubled),
            ("late", reorder, late),
            ("corrupted", corrupt, corrupted),
        ] {
            if percent > 0.0 && count.load(Ordering::Relaxed) == 0 {
                return Err(format!("no datagram was {what}"));
            }
        }
        Ok(())
    }

    /// Datagrams lost on purpose so far.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.control.lost.load(Ordering::Relaxed)
    }
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::DGRAM,
        None,
    )?;
    // The relay loses what it is told to lose, nothing else.
    socket.set_recv_buffer_size(8 << 20)?;
    socket.set_send_buffer_size(8 << 20)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// One client's way to the server.
struct Way {
    socket: Arc<UdpSocket>,
    generation: u64,
    back: tokio::task::AbortHandle,
}

async fn forward(
    front: Arc<UdpSocket>,
    server: SocketAddr,
    shape: Shape,
    seed: u64,
    control: Arc<Control>,
) {
    let mut ways: BTreeMap<SocketAddr, Way> = BTreeMap::new();
    // Sockets of earlier generations stay bound: the server's datagrams vanish there, no port-unreachable comes back.
    let mut old = Vec::new();
    let mut backs = JoinSet::new();
    let mut line = Line::new(shape, seed, Arc::clone(&control));
    let mut buffer = vec![0; 65_536];
    loop {
        let due = line.due();
        tokio::select! {
            received = front.recv_from(&mut buffer) => {
                let Ok((len, client)) = received else { continue };
                let generation = control.generation.load(Ordering::Relaxed);
                if ways.get(&client).is_none_or(|w| w.generation != generation) {
                    let Ok(socket) = bind((server.ip(), 0).into()) else { continue };
                    let socket = Arc::new(socket);
                    let back = backs.spawn(backward(
                        Arc::clone(&socket), Arc::clone(&front), client,
                        Line::new(shape, seed ^ 0xBACC ^ generation, Arc::clone(&control)),
                    ));
                    let way = Way { socket, generation, back };
                    if let Some(before) = ways.insert(client, way) {
                        before.back.abort();
                        old.push(before.socket);
                    }
                }
                if let Some(way) = ways.get(&client) {
                    line.pass(&mut buffer[..len], &way.socket, server).await;
                }
            }
            () = until(due) => line.deliver().await,
        }
    }
}

async fn backward(
    socket: Arc<UdpSocket>,
    front: Arc<UdpSocket>,
    client: SocketAddr,
    mut line: Line,
) {
    let mut buffer = vec![0; 65_536];
    loop {
        let due = line.due();
        tokio::select! {
            received = socket.recv_from(&mut buffer) => {
                let Ok((len, _)) = received else { continue };
                line.pass(&mut buffer[..len], &front, client).await;
            }
            () = until(due) => line.deliver().await,
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// One direction: decides about each datagram and holds those that are on their way.
struct Line {
    shape: Shape,
    random: SplitMix,
    control: Arc<Control>,
    waiting: BinaryHeap<Reverse<Held>>,
    number: u64,
}

struct Held {
    due: Instant,
    number: u64,
    data: Vec<u8>,
    from: Arc<UdpSocket>,
    to: SocketAddr,
}

impl Line {
    fn new(shape: Shape, seed: u64, control: Arc<Control>) -> Self {
        Self {
            shape,
            random: SplitMix(seed),
            control,
            waiting: BinaryHeap::new(),
            number: 0,
        }
    }

    fn due(&self) -> Option<Instant> {
        self.waiting.peek().map(|Reverse(held)| held.due)
    }

    async fn pass(&mut self, data: &mut [u8], from: &Arc<UdpSocket>, to: SocketAddr) {
        let shape = self.shape;
        // Each decision is drawn for each datagram, so that one setting does not shift the others.
        let lost = self.random.chance(shape.loss);
        let doubled = self.random.chance(shape.duplicate);
        let late = self.random.chance(shape.reorder);
        let corrupt = self.random.chance(shape.corrupt);
        if lost || self.control.dark.load(Ordering::Relaxed) {
            self.control.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let count = |happened: bool, counter: &AtomicU64| {
            counter.fetch_add(u64::from(happened), Ordering::Relaxed)
        };
        count(doubled, &self.control.doubled);
        count(late, &self.control.late);
        count(corrupt, &self.control.corrupted);
        if corrupt && !data.is_empty() {
            let bits = self.random.next();
            let at = usize::try_from(bits >> 8).unwrap_or(0) % data.len();
            data[at] ^= u8::try_from(bits & 0xFF).unwrap_or(1).max(1);
        }
        let mut delay = Duration::from_millis(shape.delay_ms);
        if late {
            delay += REORDER_BY;
        }
        for _ in 0..=usize::from(doubled) {
            if delay.is_zero() {
                let _ = from.send_to(data, to).await;
                self.control.forwarded.fetch_add(1, Ordering::Relaxed);
            } else {
                self.number += 1;
                self.waiting.push(Reverse(Held {
                    due: Instant::now() + delay,
                    number: self.number,
                    data: data.to_vec(),
                    from: Arc::clone(from),
                    to,
                }));
            }
        }
    }

    async fn deliver(&mut self) {
        let now = Instant::now();
        while self.due().is_some_and(|due| due <= now) {
            if let Some(Reverse(held)) = self.waiting.pop() {
                let _ = held.from.send_to(&held.data, held.to).await;
                self.control.forwarded.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Held {}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Held {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::{Place, RELAY_PORT, SERVER_PORT};

    async fn arrivals(shape: Shape, count: u32) -> (Vec<u32>, u64) {
        let place = Place::claim().unwrap();
        let server = UdpSocket::bind(place.at(SERVER_PORT)).await.unwrap();
        let relay = Relay::start(place.at(RELAY_PORT), place.at(SERVER_PORT), shape, 42)
            .await
            .unwrap();
        let client = UdpSocket::bind((place.ip(), 0)).await.unwrap();
        let mut got = Vec::new();
        let mut buffer = [0; 16];
        for n in 0..count {
            client
                .send_to(&n.to_be_bytes(), place.at(RELAY_PORT))
                .await
                .unwrap();
            tokio::task::yield_now().await;
            while server.try_recv(&mut buffer).is_ok_and(|n| n == 4) {
                got.push(u32::from_be_bytes(buffer[..4].try_into().unwrap()));
            }
        }
        while let Ok(Ok(_)) =
            tokio::time::timeout(Duration::from_millis(300), server.recv(&mut buffer)).await
        {
            got.push(u32::from_be_bytes(buffer[..4].try_into().unwrap()));
        }
        (got, relay.lost())
    }

    #[tokio::test]
    async fn a_perfect_line_changes_nothing() {
        let (got, lost) = arrivals(Shape::default(), 300).await;
        assert_eq!((got, lost), ((0..300).collect(), 0));
    }

    #[tokio::test]
    async fn an_imperfect_line_does_what_it_says() {
        let shape = Shape {
            loss: 20.0,
            duplicate: 20.0,
            reorder: 20.0,
            corrupt: 0.0,
            delay_ms: 1,
        };
        let (got, lost) = arrivals(shape, 1000).await;
        assert!((120..280).contains(&lost), "{lost}");
        let mut distinct = got.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len() as u64 + lost, 1000);
        assert!(
            got.len() > distinct.len() + 50,
            "doubled: {}",
            got.len() - distinct.len()
        );
        assert!(got.windows(2).any(|w| w[0] > w[1]), "nothing was reordered");
    }

    #[tokio::test]
    async fn a_new_binding_is_a_new_address_and_the_old_one_is_dead() {
        let place = Place::claim().unwrap();
        let server = UdpSocket::bind(place.at(SERVER_PORT)).await.unwrap();
        let relay = Relay::start(
            place.at(RELAY_PORT),
            place.at(SERVER_PORT),
            Shape::default(),
            1,
        )
        .await
        .unwrap();
        let client = UdpSocket::bind((place.ip(), 0)).await.unwrap();
        let mut buffer = [0; 16];
        client.send_to(b"a", place.at(RELAY_PORT)).await.unwrap();
        let (_, first) = server.recv_from(&mut buffer).await.unwrap();
        relay.rebind();
        client.send_to(b"b", place.at(RELAY_PORT)).await.unwrap();
        let (_, second) = server.recv_from(&mut buffer).await.unwrap();
        assert_ne!(first, second);
        server.send_to(b"old", first).await.unwrap();
        server.send_to(b"new", second).await.unwrap();
        let n = client.recv(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..n], b"new");
        relay.set_dark(true);
        let before = relay.lost();
        client.send_to(b"c", place.at(RELAY_PORT)).await.unwrap();
        assert!(
            tokio::time::timeout(Duration::from_millis(200), server.recv(&mut buffer))
                .await
                .is_err()
        );
        assert_eq!(relay.lost(), before + 1);
    }
}
