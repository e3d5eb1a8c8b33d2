//! An imperfect network between the two ends: a UDP relay in this process around [`fulmar_netem::Net`], which
//! decides what becomes of each datagram.
//!
//! Clients send to the relay's front; towards the server each client address has a socket of its own, so that the
//! server tells them apart, and a change of address is a change of socket. Needs no privileges. Delays are kept to the
//! millisecond, the grain of the runtime's timers.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fulmar_netem::{Counters, Direction, Net, Path};
use fulmar_wire::time::Instant;
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// Datagrams taken from a socket before others get their turn.
const BATCH: usize = 64;

/// A running relay. It ends when dropped.
#[derive(Debug)]
pub struct Relay {
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// Carries datagrams between clients that send to `front` and `server`, over the same `path` each way.
    ///
    /// # Errors
    /// When `front` cannot be bound.
    pub fn start(
        front: SocketAddr,
        server: SocketAddr,
        path: &Path,
        seed: u64,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            epoch: std::time::Instant::now(),
            server,
            front: bind(front)?,
            state: Mutex::new(State {
                net: Net::new(seed, path.clone(), path.clone()),
                outside: BTreeMap::new(),
            }),
            earlier: Notify::new(),
            unread: Notify::new(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(read_front(Arc::clone(&shared)));
        tasks.spawn(read_outside(Arc::clone(&shared)));
        tasks.spawn(deliver_in_time(Arc::clone(&shared)));
        Ok(Self {
            shared,
            _tasks: tasks,
        })
    }

    /// While dark, everything is lost.
    pub fn set_dark(&self, dark: bool) {
        let now = self.shared.now();
        let mut state = self.shared.lock();
        for direction in [Direction::Up, Direction::Down] {
            let blackouts = &mut state.net.path_mut(direction).blackouts;
            blackouts.clear();
            if dark {
                blackouts.push(now..Instant::FAR_FUTURE);
            }
        }
    }

    /// From now on the server hears its clients from new ports; what it sends to the old ones is lost.
    pub fn change_address(&self) {
        let now = self.shared.now();
        self.shared
            .lock()
            .net
            .change_address(now, Direction::Up, None);
    }

    /// What happened so far, towards the server or away from it.
    #[must_use]
    pub fn counters(&self, direction: Direction) -> Counters {
        *self.shared.lock().net.counters(direction)
    }

    /// Checks that each disturbance asked for was really applied: a row on a bad link must not pass on a good one.
    ///
    /// # Errors
    /// What never happened.
    pub fn did_its_part(&self) -> Result<(), String> {
        let path = self.shared.lock().net.path(Direction::Up).clone();
        let (up, down) = (self.counters(Direction::Up), self.counters(Direction::Down));
        for (what, asked, count) in [
            ("lost", path.loss > 0.0, up.lost_random + down.lost_random),
            (
                "lost in a burst",
                path.bursts.is_some(),
                up.lost_burst + down.lost_burst,
            ),
            (
                "doubled",
                path.duplication > 0.0,
                up.duplicated + down.duplicated,
            ),
            (
                "held back",
                path.reordering.is_some(),
                up.reordered + down.reordered,
            ),
            (
                "corrupted",
                path.corruption > 0.0,
                up.corrupted + down.corrupted,
            ),
        ] {
            if asked && count == 0 {
                return Err(format!("no datagram was {what}"));
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Shared {
    epoch: std::time::Instant,
    server: SocketAddr,
    front: UdpSocket,
    state: Mutex<State>,
    /// Something arrives earlier than what the deliverer waits for.
    earlier: Notify,
    /// There is a new socket to read from.
    unread: Notify,
}

#[derive(Debug)]
struct State {
    net: Net,
    /// The sockets towards the server, by the address under which the net shows the client.
    outside: BTreeMap<SocketAddr, Outside>,
}

#[derive(Debug)]
struct Outside {
    socket: Arc<UdpSocket>,
    reader: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Instant {
        Instant::from_micros(u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Hands a batch to the net and delivers what has arrived by now.
    fn pass(&self, batch: &[(Direction, SocketAddr, SocketAddr, &[u8])]) {
        let now = self.now();
        let mut state = self.lock();
        let before = state.net.next_arrival();
        for (direction, from, to, data) in batch {
            state.net.send(now, *direction, *from, *to, data);
        }
        self.deliver(&mut state, now);
        let after = state.net.next_arrival();
        if after.is_some_and(|after| before.is_none_or(|before| after < before)) {
            self.earlier.notify_one();
        }
    }

    /// Delivers what has arrived by `now`.
    fn deliver(&self, state: &mut State, now: Instant) {
        while let Some(delivery) = state.net.poll(now) {
            match delivery.direction {
                Direction::Down => {
                    send(&self.front, &delivery.data, delivery.to);
                }
                Direction::Up => {
                    let outside = match state.outside.entry(delivery.from) {
                        Entry::Occupied(known) => known.into_mut(),
                        Entry::Vacant(new) => {
                            let Ok(socket) = bind((self.front_ip(), 0).into()) else {
                                continue;
                            };
                            self.unread.notify_one();
                            new.insert(Outside {
                                socket: Arc::new(socket),
                                reader: false,
                            })
                        }
                    };
                    send(&outside.socket, &delivery.data, delivery.to);
                }
            }
            state.net.recycle(delivery.data);
        }
    }

    fn front_ip(&self) -> std::net::IpAddr {
        self.front.local_addr().map_or(self.server.ip(), |a| a.ip())
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

/// Sends without asking the runtime, which does not know yet that a fresh socket is writable. A socket that would
/// block loses its datagram, as a full queue does.
fn send(socket: &UdpSocket, data: &[u8], to: SocketAddr) {
    let _ = socket2::SockRef::from(socket).send_to(data, &to.into());
}

/// Everything that is in a socket's queue now, up to a batch, goes to `pass`.
fn drain(
    shared: &Shared,
    socket: &UdpSocket,
    buffers: &mut [Vec<u8>],
    way: impl Fn(SocketAddr) -> Way,
) {
    let mut lens = Vec::with_capacity(BATCH);
    for buffer in buffers.iter_mut() {
        match socket.try_recv_from(buffer) {
            Ok((len, from)) => lens.push((len, way(from))),
            Err(_) => break,
        }
    }
    let batch: Vec<_> = lens
        .iter()
        .zip(buffers.iter())
        .map(|((len, way), buffer)| (way.direction, way.from, way.to, &buffer[..*len]))
        .collect();
    shared.pass(&batch);
}

struct Way {
    direction: Direction,
    from: SocketAddr,
    to: SocketAddr,
}

fn buffers() -> Vec<Vec<u8>> {
    vec![vec![0; 2048]; BATCH]
}

async fn read_front(shared: Arc<Shared>) {
    let mut buffers = buffers();
    while shared.front.readable().await.is_ok() {
        drain(&shared, &shared.front, &mut buffers, |client| Way {
            direction: Direction::Up,
            from: client,
            to: shared.server,
        });
    }
}

/// Keeps one reader per outside socket.
async fn read_outside(shared: Arc<Shared>) {
    let mut readers = JoinSet::new();
    loop {
        shared.unread.notified().await;
        let mut state = shared.lock();
        for (client, outside) in state
            .outside
            .iter_mut()
            .filter(|(_, outside)| !outside.reader)
        {
            outside.reader = true;
            readers.spawn(read_one(
                Arc::clone(&shared),
                Arc::clone(&outside.socket),
                *client,
            ));
        }
    }
}

async fn read_one(shared: Arc<Shared>, socket: Arc<UdpSocket>, client: SocketAddr) {
    let mut buffers = buffers();
    while socket.readable().await.is_ok() {
        drain(&shared, &socket, &mut buffers, |server| Way {
            direction: Direction::Down,
            from: server,
            to: client,
        });
    }
}

async fn deliver_in_time(shared: Arc<Shared>) {
    loop {
        let next = {
            let now = shared.now();
            let mut state = shared.lock();
            shared.deliver(&mut state, now);
            state.net.next_arrival()
        };
        let due = async {
            match next {
                Some(at) => {
                    let at = shared.epoch + Duration::from_micros(at.as_micros());
                    tokio::time::sleep_until(at.into()).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            () = shared.earlier.notified() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::{Place, RELAY_PORT, SERVER_PORT};
    use fulmar_netem::Reordering;

    async fn arrivals(path: &Path, count: u32) -> (Vec<u32>, Relay) {
        let place = Place::claim().unwrap();
        let server = bind(place.at(SERVER_PORT)).unwrap();
        let relay = Relay::start(place.at(RELAY_PORT), place.at(SERVER_PORT), path, 42).unwrap();
        let client = UdpSocket::bind((place.ip(), 0)).await.unwrap();
        for n in 0..count {
            client
                .send_to(&n.to_be_bytes(), place.at(RELAY_PORT))
                .await
                .unwrap();
        }
        let mut got = Vec::new();
        let mut buffer = [0; 16];
        loop {
            let c = relay.counters(Direction::Up);
            let all_decided =
                c.sent == u64::from(count) && c.sent + c.duplicated == c.delivered + c.lost();
            if all_decided && got.len() as u64 == c.delivered {
                return (got, relay);
            }
            let received =
                tokio::time::timeout(Duration::from_millis(20), server.recv(&mut buffer));
            if received.await.is_ok() {
                got.push(u32::from_be_bytes(buffer[..4].try_into().unwrap()));
            }
        }
    }

    #[tokio::test]
    async fn a_perfect_path_changes_nothing() {
        let (got, _) = arrivals(&Path::default(), 300).await;
        assert_eq!(got, (0..300).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn an_imperfect_path_does_what_it_says() {
        let path = Path {
            loss: 0.2,
            duplication: 0.2,
            reordering: Some(Reordering {
                probability: 0.2,
                by: Duration::from_millis(9),
            }),
            ..Path::default()
        };
        let (got, relay) = arrivals(&path, 1000).await;
        assert!(relay.did_its_part().is_ok());
        assert!(got.len() > 700 && got.len() < 1150, "{}", got.len());
        let perfect = Relay::start(
            Place::claim().unwrap().at(RELAY_PORT),
            ([127, 0, 0, 1], 9).into(),
            &path,
            1,
        )
        .unwrap();
        assert!(perfect.did_its_part().is_err());
    }

    #[tokio::test]
    async fn a_new_address_is_another_socket_and_the_old_one_is_dead() {
        let place = Place::claim().unwrap();
        let server = UdpSocket::bind(place.at(SERVER_PORT)).await.unwrap();
        let relay = Relay::start(
            place.at(RELAY_PORT),
            place.at(SERVER_PORT),
            &Path::default(),
            1,
        )
        .unwrap();
        let client = UdpSocket::bind((place.ip(), 0)).await.unwrap();
        let mut buffer = [0; 16];
        client.send_to(b"a", place.at(RELAY_PORT)).await.unwrap();
        let (_, first) = server.recv_from(&mut buffer).await.unwrap();
        relay.change_address();
        client.send_to(b"b", place.at(RELAY_PORT)).await.unwrap();
        let (_, second) = server.recv_from(&mut buffer).await.unwrap();
        assert_ne!(first, second);
        server.send_to(b"old", first).await.unwrap();
        server.send_to(b"new", second).await.unwrap();
        let n = client.recv(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..n], b"new");
        relay.set_dark(true);
        client.send_to(b"c", place.at(RELAY_PORT)).await.unwrap();
        relay.set_dark(true);
        while relay.counters(Direction::Up).lost_blackout == 0 {
            tokio::task::yield_now().await;
        }
        relay.set_dark(false);
        client.send_to(b"d", place.at(RELAY_PORT)).await.unwrap();
        let n = server.recv(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..n], b"d");
    }
}
