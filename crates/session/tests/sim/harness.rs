//! Endpoints, the network between them, and the clock.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fulmar_cipher::NonceSpace;
use fulmar_netem::{Delivery, Direction, Net, Path as Link, Rng};
use fulmar_session::addresses::Addresses;
use fulmar_session::endpoint::Event;
use fulmar_session::layer::StreamId;
use fulmar_session::session::Session;
use fulmar_session::sharing::{Conversations, Directory, Owner};
use fulmar_session::transmit::Path;
use fulmar_session::{Counters, Endpoint, SessionKey};
use fulmar_wire::time::Instant;

use crate::adversary::observer::{Observer, Seen, To};
use crate::apps::{Apps, Outcome, Pair, Program};
use crate::setup::Options;

/// Datagrams that arrive in one run at most, as from a socket with receive offload.
const MAX_RUN: usize = 64;
/// Rounds that one instant may take; more is a loop that eats a CPU.
const MAX_ROUNDS: usize = 100_000;

/// The seeds of a scenario: `n` of them, or the one that `FULMAR_SIM_SEED` names, or as many as `FULMAR_SIM_SEEDS` says.
pub(crate) fn seeds(n: u64) -> Vec<u64> {
    let number = |name| {
        let text = std::env::var(name).ok()?;
        Some(
            text.parse()
                .unwrap_or_else(|_| panic!("{name} is no number")),
        )
    };
    match (number("FULMAR_SIM_SEED"), number("FULMAR_SIM_SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, many) => (1..=many.unwrap_or(n)).collect(),
    }
}

/// `n` milliseconds after the beginning.
pub(crate) const fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

pub(crate) const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(crate) const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A link with this delay one way and this loss.
pub(crate) fn link(delay_ms: u64, loss: f64) -> Link {
    Link {
        delay: ms(delay_ms),
        loss,
        ..Link::default()
    }
}

/// An endpoint with its applications.
pub(crate) struct Host {
    pub(crate) endpoint: Endpoint,
    pub(crate) addr: SocketAddr,
    /// Where its datagrams seem to come from, if not from `addr`.
    pub(crate) sends_from: Option<SocketAddr>,
    direction: Direction,
    pub(crate) apps: Apps,
    /// Everything that it told, without events of streams.
    pub(crate) events: Vec<(Instant, Event)>,
    /// Times that a timer of the endpoint woke it up.
    pub(crate) wakeups: u64,
    /// Datagrams that it sent.
    pub(crate) sent: u64,
    /// By how much its clock is behind the world's.
    behind: Duration,
    /// It does nothing, and how that is.
    asleep: Option<Sleep>,
    /// Since when.
    asleep_at: Instant,
    /// What its socket holds meanwhile.
    held: Vec<Delivery>,
    /// Bytes of UDP payload that its path takes in one piece: a probe that is longer is lost, anything else is fragmented.
    pub(crate) one_piece: Option<usize>,
    /// Datagrams that were fragmented.
    pub(crate) fragmented: u64,
}

/// How a host does nothing.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Sleep {
    /// Its process is stopped: its clock jumps when it goes on, and its socket has kept what arrived.
    Stopped,
    /// The machine is suspended: its clock stands still, and what arrives is lost.
    Suspended,
}

/// Datagrams that the socket of a stopped process keeps.
const SOCKET_HOLDS: usize = 200;

/// A client's host and its session.
pub(crate) struct Client {
    pub(crate) host: Host,
    /// The latest one, where each stream has its own.
    session: Option<SessionKey>,
    pub(crate) conv: u32,
}

impl Client {
    /// Its session, which it has.
    pub(crate) fn key(&self) -> SessionKey {
        self.session.expect("a session")
    }
}

/// A datagram as it left.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) direction: Direction,
    pub(crate) data: Vec<u8>,
}

/// What one of several endpoints of a server knows of the others.
struct Entry {
    me: usize,
    known: Arc<Mutex<Conversations>>,
}

impl Directory for Entry {
    fn owner(&mut self, conv: u32) -> Owner {
        self.known.lock().expect("whole").owner(self.me, conv)
    }
    fn claim(&mut self, conv: u32) -> bool {
        self.known.lock().expect("whole").claim(self.me, conv)
    }
    fn release(&mut self, conv: u32, proven: bool) {
        self.known
            .lock()
            .expect("whole")
            .release(self.me, conv, proven);
    }
}

/// Clients, a server, and what lies between them.
pub(crate) struct Sim {
    name: &'static str,
    pub(crate) seed: u64,
    pub(crate) now: Instant,
    pub(crate) net: Net,
    pub(crate) rng: Rng,
    pub(crate) clients: Vec<Client>,
    pub(crate) server: Host,
    /// More endpoints of the server behind the same port, see [`Sim::share_port`].
    pub(crate) siblings: Vec<Host>,
    /// Decides which peer is whose: another number is another order.
    pub(crate) steering: u64,
    server_options: Options,
    /// What the server does on streams, by conversation and number on the wire.
    programs: BTreeMap<(u32, u32), Program>,
    /// Everything that was sent, if wanted.
    pub(crate) record: Option<Vec<Recorded>>,
    /// Everything that the server received, if wanted.
    pub(crate) heard: Option<Vec<Vec<u8>>>,
    /// What arrived for nobody that is an endpoint: [`crate::raw`] peers take theirs.
    pub(crate) strays: Vec<Delivery>,
    /// Somebody on the path.
    pub(crate) observer: Option<Observer>,
    /// What the server does on streams that nobody here has opened; without it they are cut.
    pub(crate) unexpected: Option<Program>,
}

impl Drop for Sim {
    fn drop(&mut self) {
        if std::thread::panicking() {
            #[allow(clippy::print_stderr)]
            {
                eprintln!(
                    "scenario `{}` failed at {:?} with FULMAR_SIM_SEED={}",
                    self.name, self.now, self.seed
                );
            }
        }
    }
}

impl Sim {
    /// A server and no client.
    pub(crate) fn empty(
        name: &'static str,
        seed: u64,
        up: Link,
        down: Link,
        server: &Options,
    ) -> Self {
        let mut rng = Rng::new(seed);
        let addr = "10.0.0.2:29900".parse().expect("an address");
        Self {
            name,
            seed,
            // Not at zero: nothing may depend on where the clock begins.
            now: at(5_000),
            net: Net::new(rng.bits(), up, down),
            server: Host::new(server.build_server(rng.bits()), addr, Direction::Down),
            siblings: Vec::new(),
            steering: 0,
            clients: Vec::new(),
            server_options: server.clone(),
            programs: BTreeMap::new(),
            record: None,
            heard: None,
            strays: Vec::new(),
            observer: None,
            unexpected: None,
            rng,
        }
    }

    /// A client and a server.
    pub(crate) fn new(
        name: &'static str,
        seed: u64,
        up: Link,
        down: Link,
        (client, server): (&Options, &Options),
    ) -> Self {
        let mut sim = Self::empty(name, seed, up, down, server);
        sim.add_client(client);
        sim
    }

    /// Another client, at an address of its own; its index.
    pub(crate) fn add_client(&mut self, options: &Options) -> usize {
        let i = self.clients.len();
        let port = 40_000 + u16::try_from(i).expect("not that many clients");
        let addr = SocketAddr::from(([10, 0, 0, 1], port));
        self.add_client_at(addr, options)
    }

    pub(crate) fn add_client_at(&mut self, addr: SocketAddr, options: &Options) -> usize {
        let path = Path {
            remote: self.server.addr,
            local: None,
        };
        let (conv, seed) = (self.rng.bits() as u32, self.rng.bits());
        let (endpoint, session) = options.build_client(path, conv, seed, self.now);
        self.clients.push(Client {
            host: Host::new(endpoint, addr, Direction::Up),
            session,
            conv,
        });
        self.clients.len() - 1
    }

    /// The server, which has no sessions yet, takes its clients to be where they seem to be, as if they had been there a minute ago.
    pub(crate) fn know_clients(&mut self) {
        let addresses = Addresses::default();
        for client in &self.clients {
            addresses.validate(self.now, client.host.addr);
        }
        self.server.endpoint.share_addresses(addresses);
    }

    /// The server is replaced by one that knows nothing.
    pub(crate) fn restart_server(&mut self) {
        let fresh = self.server_options.build_server(self.rng.bits());
        self.server = Host::new(fresh, self.server.addr, Direction::Down);
    }

    /// From now on `n` endpoints serve the port. As a kernel does, the network chooses by the peer's address, and nothing else.
    pub(crate) fn share_port(&mut self, n: usize) {
        let known = Arc::new(Mutex::new(Conversations::new(65_536)));
        self.steering = self.rng.bits();
        let space = NonceSpace::new([self.seed as u8; 32]);
        for me in 0..n {
            let seed = self.rng.bits();
            let mut endpoint = self.server_options.build_server_of(&space, seed);
            endpoint.share(Box::new(Entry {
                me,
                known: Arc::clone(&known),
            }));
            let host = Host::new(endpoint, self.server.addr, Direction::Down);
            match me {
                0 => self.server = host,
                _ => self.siblings.push(host),
            }
        }
    }

    /// The endpoints of the server.
    pub(crate) fn servers(&self) -> impl Iterator<Item = &Host> {
        std::iter::once(&self.server).chain(&self.siblings)
    }

    /// Counters of the whole server.
    pub(crate) fn server_counters(&self) -> Counters {
        let mut sum = Counters::default();
        for host in self.servers() {
            sum.add(&host.endpoint.counters());
        }
        sum
    }

    /// Which endpoint the datagrams of `peer` arrive at.
    pub(crate) fn steer(&self, peer: SocketAddr) -> usize {
        use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one((self.steering, peer));
        (hash % (1 + self.siblings.len() as u64)) as usize
    }

    fn server_at(&mut self, i: usize) -> &mut Host {
        match i {
            0 => &mut self.server,
            _ => &mut self.siblings[i - 1],
        }
    }

    /// Gives the server a run.
    fn arrive(&mut self, from: SocketAddr, run: &mut [u8], segment: usize) {
        self.arrive_at(self.steer(from), from, run, segment);
    }

    /// Gives one endpoint of the server a run, and what it opens for another, to that one.
    fn arrive_at(&mut self, at: usize, from: SocketAddr, run: &mut [u8], segment: usize) {
        let now = self.now;
        let host = self.server_at(at);
        let path = host.path_of(from);
        let here = host.clock(now);
        host.endpoint.handle_run(here, path, run, segment);
        while let Some(handover) = self.server_at(at).endpoint.poll_handover() {
            assert_ne!(handover.to, at);
            let to = self.server_at(handover.to);
            let here = to.clock(now);
            to.endpoint.take_over(here, &handover);
        }
    }

    /// Opens a stream of the first client.
    pub(crate) fn open(&mut self, pair: Pair) -> (SessionKey, StreamId) {
        self.open_on(0, pair)
    }

    /// Opens a stream of client `i`.
    pub(crate) fn open_on(&mut self, i: usize, (ours, theirs): Pair) -> (SessionKey, StreamId) {
        let client = &mut self.clients[i];
        let endpoint = &mut client.host.endpoint;
        let now = before(self.now, client.host.behind);
        let (key, id) = endpoint
            .open(now)
            .unwrap_or_else(|e| panic!("cannot open a stream: {e}"));
        client.session = Some(key);
        client.conv = endpoint.session(key).map_or(client.conv, Session::conv);
        let seed = stream_seed(client.conv, id.wire());
        client.host.apps.start(now, (key, id), ours, seed, seed + 2);
        self.programs.insert((client.conv, id.wire()), theirs);
        (key, id)
    }

    /// What the server does on a stream that a raw peer opens.
    pub(crate) fn expect_stream(&mut self, conv: u32, wire: u32, program: Program) {
        self.programs.insert((conv, wire), program);
    }

    /// Hands the server a datagram that did not pass the network.
    pub(crate) fn inject(&mut self, from: SocketAddr, data: &[u8]) {
        self.arrive(from, &mut data.to_vec(), 0);
        self.settle();
    }

    /// The first client.
    pub(crate) fn client(&self) -> &Host {
        &self.clients[0].host
    }

    pub(crate) fn client_mut(&mut self) -> &mut Host {
        &mut self.clients[0].host
    }

    /// When the next thing happens.
    fn next(&self) -> Option<Instant> {
        let hosts = self.hosts();
        hosts
            .filter(|h| h.asleep.is_none())
            .flat_map(|h| {
                [h.endpoint.poll_timeout(), h.apps.next_alarm()].map(|at| Some(at? + h.behind))
            })
            .chain([self.net.next_arrival()])
            .chain(self.observer.as_ref().map(Observer::next))
            .flatten()
            .min()
    }

    fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.clients.iter().map(|c| &c.host).chain(self.servers())
    }

    /// Lets everything happen until `end`.
    pub(crate) fn run_to(&mut self, end: Instant) {
        self.run_until(end, |_| false);
        self.now = self.now.max(end);
    }

    /// Runs for a minute in which hardly a timer may fire.
    pub(crate) fn assert_quiet_minute(&mut self) {
        let wakeups = |sim: &Self| sim.client().wakeups + sim.server.wakeups;
        let before = wakeups(self);
        self.run_for(Duration::from_secs(60));
        let rest = wakeups(self) - before;
        // Keep-alives and what their loss brings.
        assert!(rest < 150, "{rest} wake-ups in a quiet minute");
    }

    /// Lets everything happen for so long.
    pub(crate) fn run_for(&mut self, time: Duration) {
        self.run_to(self.now + time);
    }

    /// Lets things happen until `found` holds; whether it did before `end`.
    pub(crate) fn run_until(&mut self, end: Instant, found: impl Fn(&Self) -> bool) -> bool {
        self.settle();
        let mut rounds = 0;
        loop {
            if found(self) {
                return true;
            }
            let Some(next) = self.next().filter(|&at| at <= end) else {
                return false;
            };
            if next > self.now {
                rounds = 0;
                self.now = next;
            }
            rounds += 1;
            assert!(
                rounds < MAX_ROUNDS,
                "time does not go on after {:?}",
                self.now
            );
            self.deliver();
            self.deliver_forged();
            self.settle();
        }
    }

    /// Hands out what the observer has sent.
    fn deliver_forged(&mut self) {
        while let Some(mut sent) = self.observer.as_mut().and_then(|o| o.poll(self.now)) {
            match sent.to {
                To::Server { other_port } => {
                    let home = self.steer(self.clients[0].host.addr);
                    let port = (home + usize::from(other_port)) % (1 + self.siblings.len());
                    self.arrive_at(port, sent.from, &mut sent.data, 0);
                }
                To::Client => {
                    let host = &mut self.clients[0].host;
                    let (path, here) = (host.path_of(sent.from), host.clock(self.now));
                    host.endpoint.handle_run(here, path, &mut sent.data, 0);
                }
            }
        }
    }

    /// Runs until no application has anything left to do, and checks how each stream ended.
    pub(crate) fn finish(&mut self, limit: Duration) -> Duration {
        let start = self.now;
        let idle = |sim: &Self| {
            sim.hosts().all(|h| h.apps.open == 0) && sim.programs.keys().all(|at| sim.was_cut(*at))
        };
        if !self.run_until(start + limit, idle) {
            panic!("not done after {limit:?}: {}", self.report());
        }
        let took = self.now - start;
        self.check_outcomes();
        took
    }

    /// Runs until no application of a client has anything left to do, and checks how theirs ended. What servers have left may be of
    /// sessions that somebody else has opened.
    pub(crate) fn finish_clients(&mut self, limit: Duration) {
        let clients = |sim: &Self| sim.clients.iter().all(|c| c.host.apps.open == 0);
        if !self.run_until(self.now + limit, clients) {
            panic!("not done after {limit:?}: {}", self.report());
        }
        for client in &self.clients {
            client.host.check_outcomes();
        }
    }

    /// Whether a client cut the stream, perhaps before anything of it had left.
    fn was_cut(&self, (conv, wire): (u32, u32)) -> bool {
        // Where a conversation is a stream, its number is both.
        let clients = self
            .clients
            .iter()
            .filter(|c| c.conv == conv || wire == conv);
        clients
            .flat_map(|c| c.host.apps.iter())
            .any(|((_, id), app)| id.wire() == wire && app.outcome == Some(Outcome::Cut))
    }

    /// Checks how each stream ended.
    pub(crate) fn check_outcomes(&self) {
        for host in self.hosts() {
            host.check_outcomes();
        }
    }

    /// What there is to know after a failure.
    pub(crate) fn report(&self) -> String {
        use std::fmt::Write;
        let mut out = String::new();
        for host in self.hosts() {
            let _ = writeln!(out, "\n{:?} side at {:?}", host.direction, self.now);
            for (at, app) in host
                .apps
                .iter()
                .filter(|(_, a)| a.outcome.is_none())
                .take(5)
            {
                let _ = writeln!(out, "  {at:?}: {}", app.complaint().unwrap_or_default());
            }
            for key in host.endpoint.sessions().take(5) {
                if let Some(session) = host.endpoint.session(key) {
                    let kcp = session.kcp();
                    let _ = writeln!(out, "  {key:?} {:?} rto {:?}", kcp.state(), kcp.rto());
                    let _ = writeln!(out, "  {:?} under way {}", kcp.path(), kcp.in_flight());
                }
            }
            for (at, event) in host.events.iter().rev().take(8).rev() {
                let _ = writeln!(out, "  {at:?} {event:?}");
            }
            let _ = writeln!(out, "  {:?}", host.endpoint.counters());
        }
        for direction in [Direction::Up, Direction::Down] {
            let _ = writeln!(out, "{direction:?} {:?}", self.net.counters(direction));
            let _ = writeln!(out, "{direction:?} {:?}", self.net.path(direction));
        }
        out
    }

    /// Hands out what has arrived, in runs as a socket with receive offload would.
    fn deliver(&mut self) {
        let mut pending = None;
        loop {
            let Some(first) = pending.take().or_else(|| self.net.poll(self.now)) else {
                return;
            };
            let mut run = first.data.clone();
            let segment = first.data.len();
            let mut count = 1;
            while count < MAX_RUN {
                let Some(next) = self.net.poll(self.now) else {
                    break;
                };
                let fits = (next.from, next.to, next.direction)
                    == (first.from, first.to, first.direction)
                    && !next.data.is_empty()
                    && next.data.len() <= segment;
                if !fits {
                    pending = Some(next);
                    break;
                }
                run.extend_from_slice(&next.data);
                count += 1;
                let last = next.data.len() < segment;
                self.net.recycle(next.data);
                if last {
                    break;
                }
            }
            let now = self.now;
            if first.direction == Direction::Up {
                if let Some(heard) = &mut self.heard {
                    heard.extend(run.chunks(segment.max(1)).map(<[u8]>::to_vec));
                }
                if self.server.asleep.is_some() {
                    let parts = run.chunks(segment.max(1)).map(|data| Delivery {
                        data: data.to_vec(),
                        ..first.clone()
                    });
                    self.server.hold(parts);
                    continue;
                }
                self.arrive(first.from, &mut run, segment);
                self.net.recycle(first.data);
                continue;
            }
            let mut hosts = self.clients.iter_mut().map(|c| &mut c.host);
            let Some(host) = hosts.find(|h| h.addr == first.to) else {
                let parts = run.chunks(segment.max(1)).map(|data| Delivery {
                    data: data.to_vec(),
                    ..first.clone()
                });
                self.strays.extend(parts);
                continue;
            };
            if host.asleep.is_some() {
                let parts = run.chunks(segment.max(1)).map(|data| Delivery {
                    data: data.to_vec(),
                    ..first.clone()
                });
                host.hold(parts);
                continue;
            }
            let path = host.path_of(first.from);
            host.endpoint
                .handle_run(host.clock(now), path, &mut run, segment);
            self.net.recycle(first.data);
        }
    }

    /// Lets every host do what it can do now.
    pub(crate) fn settle(&mut self) {
        let now = self.now;
        let hosts = self
            .clients
            .iter_mut()
            .map(|c| &mut c.host)
            .chain([&mut self.server])
            .chain(&mut self.siblings);
        for host in hosts {
            let mut world = World {
                net: &mut self.net,
                programs: &mut self.programs,
                unexpected: self.unexpected.as_ref(),
                record: self.record.as_mut(),
                observer: self.observer.as_mut(),
            };
            if let Err(e) = host.settle(now, &mut world) {
                panic!("{:?}: {e}", host.direction);
            }
        }
    }
}

/// What a host meets when it does something.
struct World<'a> {
    net: &'a mut Net,
    programs: &'a mut BTreeMap<(u32, u32), Program>,
    unexpected: Option<&'a Program>,
    record: Option<&'a mut Vec<Recorded>>,
    observer: Option<&'a mut Observer>,
}

impl Host {
    fn new(endpoint: Endpoint, addr: SocketAddr, direction: Direction) -> Self {
        Self {
            endpoint,
            addr,
            sends_from: None,
            direction,
            apps: Apps::default(),
            events: Vec::new(),
            wakeups: 0,
            sent: 0,
            behind: Duration::ZERO,
            asleep: None,
            asleep_at: Instant::ZERO,
            held: Vec::new(),
            one_piece: None,
            fragmented: 0,
        }
    }

    fn check_outcomes(&self) {
        for (at, app) in self.apps.iter() {
            if let Some(complaint) = app.complaint() {
                panic!("{:?} {at:?}: {complaint}", self.direction);
            }
        }
    }

    /// What its clock says at `now`.
    fn clock(&self, now: Instant) -> Instant {
        before(now, self.behind)
    }

    /// Falls asleep.
    pub(crate) fn sleep(&mut self, now: Instant, how: Sleep) {
        (self.asleep, self.asleep_at) = (Some(how), now);
    }

    /// Goes on. What its socket holds it takes at once.
    pub(crate) fn wake(&mut self, now: Instant) {
        if self.asleep.take() == Some(Sleep::Suspended) {
            self.behind += now - self.asleep_at;
        }
        for delivery in std::mem::take(&mut self.held) {
            let path = self.path_of(delivery.from);
            let here = self.clock(now);
            let mut data = delivery.data;
            self.endpoint.handle_run(here, path, &mut data, 0);
        }
    }

    fn hold(&mut self, datagrams: impl Iterator<Item = Delivery>) {
        if self.asleep == Some(Sleep::Stopped) {
            let room = SOCKET_HOLDS - self.held.len().min(SOCKET_HOLDS);
            self.held.extend(datagrams.take(room));
        }
    }

    fn path_of(&self, from: SocketAddr) -> Path {
        Path {
            remote: from,
            local: Some(self.addr.ip()),
        }
    }

    /// Times of the events that `which` picks.
    pub(crate) fn times_of(&self, which: impl Fn(&Event) -> bool) -> Vec<Instant> {
        self.events
            .iter()
            .filter(|(_, e)| which(e))
            .map(|(at, _)| *at)
            .collect()
    }

    /// The first event that `which` picks something out of, with its time.
    pub(crate) fn first<T>(&self, which: impl Fn(&Event) -> Option<T>) -> Option<(Instant, T)> {
        self.events
            .iter()
            .find_map(|(at, e)| Some((*at, which(e)?)))
    }

    fn settle(&mut self, outside: Instant, world: &mut World<'_>) -> Result<(), String> {
        if self.asleep.is_some() {
            return Ok(());
        }
        let now = self.clock(outside);
        if self.endpoint.poll_timeout().is_some_and(|at| at <= now) {
            self.wakeups += 1;
        }
        for round in 0.. {
            while !self.endpoint.flush(now) {
                self.send(outside, world);
            }
            self.send(outside, world);
            let mut any = false;
            while let Some(event) = self.endpoint.poll_event() {
                any = true;
                self.on_event(outside, event, world)?;
            }
            any |= self.apps.run(&mut self.endpoint, now)?;
            if !any && !self.endpoint.wants_flush() {
                break;
            }
            if round > 10_000 {
                return Err("never gets done".into());
            }
        }
        if let Some(at) = self.endpoint.poll_timeout()
            && at <= now
        {
            return Err(format!("a timer stays due: {at:?} at {now:?}"));
        }
        Ok(())
    }

    fn send(&mut self, now: Instant, world: &mut World<'_>) {
        while let Some(run) = self.endpoint.next_run() {
            let from = match (self.sends_from, run.path().local) {
                (Some(from), _) => from,
                (None, Some(local)) => SocketAddr::new(local, self.addr.port()),
                (None, None) => self.addr,
            };
            let to = run.path().remote;
            assert!(run.data().len() <= run.segment() * run.count());
            assert_eq!(run.data().len().div_ceil(run.segment()), run.count());
            self.sent += run.count() as u64;
            if let Some(record) = &mut world.record {
                record.extend(run.data().chunks(run.segment()).map(|d| Recorded {
                    direction: self.direction,
                    data: d.to_vec(),
                }));
            }
            let too_long = self.one_piece.is_some_and(|most| run.segment() > most);
            if too_long && !run.is_probe() {
                self.fragmented += run.count() as u64;
            }
            if let Some(observer) = &mut world.observer {
                for data in run.data().chunks(run.segment()) {
                    let direction = self.direction;
                    let seen = Seen {
                        direction,
                        from,
                        to,
                        data,
                    };
                    if let Some(data) = observer.sees(now, seen) {
                        world.net.send(now, direction, from, to, &data);
                    }
                }
            } else if !(too_long && run.is_probe()) {
                let (data, segment) = (run.data(), run.segment());
                world
                    .net
                    .send_run(now, self.direction, from, to, data, segment);
            }
            self.endpoint.recycle(run);
        }
    }

    fn on_event(
        &mut self,
        now: Instant,
        event: Event,
        world: &mut World<'_>,
    ) -> Result<(), String> {
        use fulmar_session::layer::StreamEvent;
        match &event {
            Event::Stream(key, StreamEvent::Opened(id)) => {
                let Some(session) = self.endpoint.session(*key) else {
                    // Its session has ended meanwhile.
                    return Ok(());
                };
                let (conv, remote) = (session.conv(), session.path().remote);
                let stream = (conv, id.wire());
                let observer = world.observer.as_ref();
                let planned = if observer.is_some_and(|o| o.is_another(remote)) {
                    world.programs.get(&stream).cloned()
                } else {
                    world.programs.remove(&stream)
                };
                match planned.or_else(|| world.unexpected.cloned()) {
                    Some(program) => {
                        let seed = stream_seed(conv, id.wire());
                        let here = self.clock(now);
                        self.apps.start(here, (*key, *id), program, seed + 2, seed);
                    }
                    // A stream that was opened twice, or by nobody: only a restarted server, or one under attack, sees it.
                    None => {
                        let here = self.clock(now);
                        self.endpoint.reset(here, *key, *id);
                    }
                }
                return Ok(());
            }
            Event::Stream(key, event) => {
                self.apps.on_event(*key, *event);
                return Ok(());
            }
            Event::Closed(key, _, reason) => self.apps.lost(now, *key, reason),
            _ => {}
        }
        self.events.push((now, event));
        Ok(())
    }
}

fn before(at: Instant, by: Duration) -> Instant {
    Instant::from_micros(at.as_micros() - u64::try_from(by.as_micros()).expect("short"))
}

/// What the client sends on a stream; the answer has the next number of the same kind.
fn stream_seed(conv: u32, wire: u32) -> u64 {
    // The low bit says whether the stream is easy to compress: every second one is, both ways.
    (u64::from(conv) << 33) + (u64::from(wire) << 2) + u64::from(wire / 2 % 2)
}

/// An address of somebody else.
pub(crate) fn stranger(i: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::from([192, 0, 2, (i % 250) as u8 + 1]), 1000 + i)
}
