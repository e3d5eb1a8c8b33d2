//! What is said beside conversations: whether the other end is there, and where it is (docs/spec/kcptun-libev.md, sections 10
//! to 12).
//!
//! A [`Control`] takes messages of conversation 0 and the passing of time, and gives messages to send and events. It does
//! no I/O and reads no clock.
//!
//! | module | what |
//! |---|---|
//! | `ping` | pings that are out, to whom they went, and the round trip |
//! | `punch` | addresses that a relay has named, and the pings that open the way to them |
//! | `relay` | services that others have made known here |
//! | `service` | whether a relay knows the service that is asked for |
//!
//! # The four places
//! ```text
//! Bound                answers everybody, and brings others together
//! Client               pings the server's addresses, best first; who answers first is the server
//! RendezvousClient     CONNECT to the relay ──▶ PUNCH from it ──▶ PING to what it names ──▶ who answers is the server
//! RendezvousServer     LISTEN to the relay, again and again; PUNCH from it ──▶ PING to what it names
//! ```
//! A ping from an address that a relay has named proves as much as a pong: it is answered, and asked back at once. So one
//! of the two first pings may get lost, which is what happens when it arrives before the other NAT has a mapping
//! (section 12). Should the answer get lost as well, the pings of the plan go on until there is one.

mod ping;
mod punch;
mod relay;
mod service;

use core::time::Duration;
use std::collections::VecDeque;
use std::net::SocketAddr;

use fulmar_wire::libev::{Hello, Session0};
use fulmar_wire::time::Instant;

use crate::reachability::{Change, Reachability};
use crate::transmit::Path;

use ping::Pings;
use punch::Punches;
use relay::Services;
use service::Probe;

pub use punch::may_punch;

/// What we tell of ourselves.
const OURS: Hello = Hello {
    features: Hello::ACK_RANGES,
};
/// Times at which a client asks a relay for its server, after the first one, until it is told; then every last one.
const CONNECTS: [Duration; 4] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];
/// How long the best address of a server has before the next one is asked as well.
const NEXT_CANDIDATE: Duration = Duration::from_millis(250);
/// A client that no address of its server has answered asks them all again, so long after the last one, and then waits
/// for the keep-alive.
const ROUNDS: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];
/// Longest time between two LISTEN messages: NAT mappings live for 30 seconds and more.
const LONGEST_LISTEN: Duration = Duration::from_secs(25);
/// A peer that does not answer is asked so often, at such intervals, before the relay is.
const SUSPECT_PINGS: u32 = 3;
const SUSPECT_EVERY: Duration = Duration::from_secs(1);
/// How long a ping may take (section 11.1).
const PING_TIMEOUT: Duration = Duration::from_secs(4);
/// Peers whose hello is remembered.
const HELLOS: usize = 1024;
/// Messages that wait for the socket, and events that wait for the owner; more are dropped.
const WAITING: usize = 256;

/// What this end is beside conversations.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// A server with an address of its own, or a relay.
    Bound,
    /// A client of a server that can be reached.
    Client {
        /// The server's addresses, best first; empty while its name does not resolve.
        servers: Vec<SocketAddr>,
    },
    /// A client that finds its server at a relay.
    RendezvousClient {
        /// The relay's addresses, best first; empty until they are known.
        relays: Vec<SocketAddr>,
        /// The service, at most 256 bytes.
        id: Vec<u8>,
        /// Our own addresses, with the port of the socket.
        local: Vec<SocketAddr>,
    },
    /// A server that makes itself known to a relay.
    RendezvousServer {
        /// The relay's addresses, best first; empty until they are known.
        relays: Vec<SocketAddr>,
        /// The service, at most 256 bytes.
        id: Vec<u8>,
        /// Our own addresses, with the port of the socket.
        local: Vec<SocketAddr>,
    },
}

/// What a [`Control`] is made from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// What this end is.
    pub place: Place,
    /// A client that has sent nothing for so long pings; a server makes itself known as often. `None` or 0: never, and at a
    /// relay every 25 s.
    pub keepalive: Option<Duration>,
    /// How long a service is known without being made known again.
    pub timeout: Duration,
    /// Chance for intervals.
    pub seed: u64,
    /// Addresses of this machine may be pinged on behalf of a relay: for tests on one machine.
    pub allow_loopback: bool,
}

/// What a message means for conversations.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Told {
    /// The sender knows no such conversation.
    Reset {
        /// Which.
        conv: u32,
    },
}

/// Something the owner should know of.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The server has been found, or has answered for the first time.
    PeerFound {
        /// Where it is.
        peer: SocketAddr,
    },
    /// The server is somewhere else now.
    PeerChanged {
        /// Where it is.
        peer: SocketAddr,
    },
    /// A rendezvous client's server does not answer: the relay is asked again.
    PeerLost,
    /// The server was asked several times and nothing opened ([`crate::reachability`]). A relay that does not answer is no
    /// such server: it may be that the service is not known there yet.
    Down,
    /// Something has opened after [`Self::Down`].
    Up,
    /// Nothing has been heard for long: names should be looked up again, see [`Control::resolved`].
    Resolve,
    /// A ping took so long.
    Rtt(Duration),
    /// A service was made known here, for the first time or from another place.
    Registered {
        /// From where.
        from: SocketAddr,
    },
    /// The relay answers, but names no server: it does not know the service.
    UnknownService {
        /// The relay.
        relay: SocketAddr,
    },
    /// The relay does not answer, neither when it is asked for the service nor when it is pinged.
    RelaySilent,
    /// Somebody asked for a service that nobody has made known.
    NoSuchService {
        /// Who.
        from: SocketAddr,
    },
}

/// What was counted.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub struct ControlCounters {
    /// Messages that were none, or unknown.
    pub malformed: u64,
    /// Pings that nobody answered in time.
    pub lost_pings: u64,
    /// Services that could not be made known for want of room.
    pub refused_services: u64,
    /// Addresses that a relay named and that were not pinged.
    pub refused_punches: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Control {
    settings: Settings,
    pings: Pings,
    punches: Punches,
    services: Services,
    /// Where sessions go.
    server: Option<SocketAddr>,
    /// The server has answered.
    answered: bool,
    /// Next candidate of a client to be pinged, and when.
    next_candidate: Option<(usize, Instant)>,
    /// How often all candidates were asked without an answer.
    round: usize,
    /// When the relay is next told or asked, and how often it was asked in a row.
    next_relay: Option<Instant>,
    asked: usize,
    probe: Probe,
    /// When anything was last sent to the server.
    sent: Instant,
    next_ping: Option<Instant>,
    /// A server that sessions get no answer from: pings left.
    suspect: Option<u32>,
    heard: Option<Instant>,
    reachability: Reachability,
    /// Since when silence is counted: something was heard, or names were looked up.
    quiet_since: Instant,
    hellos: VecDeque<(SocketAddr, Hello)>,
    out: VecDeque<(Path, Vec<u8>)>,
    events: VecDeque<Event>,
    counters: ControlCounters,
    chance: u64,
    /// The latest time seen.
    now: Instant,
}

impl Control {
    /// A machine at its beginning; what it has to say can be polled at once.
    #[must_use]
    pub fn new(settings: Settings, now: Instant) -> Self {
        let server = match &settings.place {
            Place::Client { servers } => servers.first().copied(),
            _ => None,
        };
        let mut this = Self {
            pings: Pings::default(),
            punches: Punches::default(),
            services: Services::default(),
            server,
            answered: false,
            next_candidate: None,
            round: 0,
            next_relay: None,
            asked: 0,
            probe: Probe::default(),
            sent: now,
            next_ping: None,
            suspect: None,
            heard: None,
            reachability: Reachability::default(),
            quiet_since: now,
            hellos: VecDeque::new(),
            out: VecDeque::new(),
            events: VecDeque::new(),
            counters: ControlCounters::default(),
            chance: settings.seed | 1,
            settings,
            now,
        };
        this.begin(now);
        this
    }

    /// Says the first things.
    fn begin(&mut self, now: Instant) {
        match self.settings.place {
            Place::Bound => {}
            Place::Client { .. } => self.race(now),
            Place::RendezvousClient { .. } | Place::RendezvousServer { .. } => {
                self.asked = 0;
                self.probe = Probe::default();
                self.next_relay = Some(now);
            }
        }
        self.handle_timeout(now);
    }

    /// A datagram of conversation 0 that opened. One that is not `fresh` was here before: it changes nothing.
    pub fn handle(&mut self, now: Instant, path: Path, body: &[u8], fresh: bool) -> Option<Told> {
        self.now = now;
        let Ok(message) = Session0::parse(body) else {
            self.counters.malformed += 1;
            return None;
        };
        if !fresh {
            return None;
        }
        // Not a sign of life of the server's.
        if let Session0::Pong { time, .. } = message
            && self.probe.answered(time)
        {
            if self.server.is_none() {
                let relay = path.remote;
                self.tell(Event::UnknownService { relay });
            }
            return None;
        }
        self.alive(now);
        match message {
            Session0::Ping { time, hello } => {
                self.remember(path.remote, hello);
                let hello = Some(OURS);
                self.say(path, &Session0::Pong { time, hello });
                self.pinged(now, path.remote);
                None
            }
            Session0::Pong { time, hello } => {
                self.remember(path.remote, hello);
                self.pong(now, path.remote, time);
                None
            }
            Session0::Reset { conv } => Some(Told::Reset { conv }),
            Session0::Listen { local, id } => {
                let until = now + self.settings.timeout;
                let known = self.services.find(now, id);
                let news = known.is_none_or(|(_, p)| p.remote != path.remote);
                if self.services.insert(now, id, local, path, until) {
                    if news {
                        self.tell(Event::Registered { from: path.remote });
                    }
                } else {
                    self.counters.refused_services += 1;
                }
                None
            }
            Session0::Connect { local, id } => {
                match self.services.find(now, id) {
                    Some((theirs, server)) => {
                        let observed = path.remote;
                        self.say(server, &Session0::Punch { local, observed });
                        let (local, observed) = (theirs, server.remote);
                        self.say(path, &Session0::Punch { local, observed });
                    }
                    None => self.tell(Event::NoSuchService { from: path.remote }),
                }
                None
            }
            Session0::Punch { local, observed } => {
                self.punch(now, path.remote, [observed, local]);
                None
            }
        }
    }

    /// A relay has named addresses of a peer.
    fn punch(&mut self, now: Instant, from: SocketAddr, addrs: [SocketAddr; 2]) {
        let (relays, wanted) = match &self.settings.place {
            Place::RendezvousServer { relays, .. } => (relays, true),
            // One that has found its server needs no other.
            Place::RendezvousClient { relays, .. } => (relays, self.server.is_none()),
            // Others answer too, as upstream does, but to nobody they know.
            Place::Bound | Place::Client { .. } => {
                self.counters.refused_punches += 1;
                return;
            }
        };
        if !relays.contains(&from) || !wanted {
            self.counters.refused_punches += 1;
            return;
        }
        self.probe.named();
        let v4 = from.is_ipv4();
        for addr in addrs {
            // A socket has one family, or both; the relay's is one that it has.
            let fits = addr.is_ipv4() == v4 && may_punch(addr, self.settings.allow_loopback);
            if !fits || !self.punches.insert(now, addr) {
                self.counters.refused_punches += 1;
            }
        }
        self.handle_timeout(now);
    }

    /// A ping has come: one from an address that a relay has named has found its way here, so ours to it is open as well.
    fn pinged(&mut self, now: Instant, from: SocketAddr) {
        if self.punches.proves(from) {
            self.ping(now, from);
        } else if matches!(self.settings.place, Place::RendezvousClient { .. })
            && self.server.is_none()
            && self.punches.is_host(from.ip())
            && self.punches.insert(now, from)
        {
            // The peer's NAT shows us another port than it shows the relay.
            self.handle_timeout(now);
        }
    }

    /// A ping was answered.
    fn pong(&mut self, now: Instant, from: SocketAddr, time: u32) {
        let Some(rtt) = self.pings.answered(now, from, time) else {
            // Nobody asked.
            return;
        };
        self.tell(Event::Rtt(rtt));
        if self.server.is_some_and(|s| same_place(s, from)) {
            self.suspect = None;
        }
        self.punches.done(from);
        match &self.settings.place {
            // Nobody else is the server: who sends our ping on to it gets its pong, and would get our sessions.
            Place::Client { servers }
                if !self.answered && servers.iter().any(|s| same_place(*s, from)) =>
            {
                self.answered = true;
                self.next_candidate = None;
                self.found(from);
            }
            Place::RendezvousClient { .. } if self.server.is_none() => {
                self.next_relay = None;
                self.asked = 0;
                self.punches.clear();
                self.found(from);
            }
            _ => {}
        }
        self.sent = now;
        self.schedule_ping(now);
    }

    fn found(&mut self, peer: SocketAddr) {
        let before = self.server.replace(peer);
        self.tell(match before {
            Some(old) if old != peer => Event::PeerChanged { peer },
            _ => Event::PeerFound { peer },
        });
    }

    /// Something of a conversation has come from there, and opened.
    pub fn heard(&mut self, now: Instant, from: SocketAddr) {
        self.now = now;
        self.alive(now);
        if self.server == Some(from) {
            self.suspect = None;
        }
    }

    fn alive(&mut self, now: Instant) {
        self.heard = Some(now);
        self.quiet_since = now;
        if self.reachability.proven(now) == Some(Change::Up) {
            self.tell(Event::Up);
        }
    }

    /// Datagrams of conversations have left for the server.
    pub fn sent(&mut self, now: Instant) {
        self.sent = now;
    }

    /// Sessions get no answer: finds out soon whether the server is still where it was.
    pub fn suspect(&mut self, now: Instant) {
        self.now = now;
        if self.is_client() && self.server.is_some() && self.suspect.is_none() {
            self.suspect = Some(SUSPECT_PINGS);
            self.next_ping = Some(now);
            self.handle_timeout(now);
        }
    }

    /// Somebody wants to know whether the server is there: asks it, if it was neither heard nor asked a short while ago.
    pub fn inquire(&mut self, now: Instant) -> bool {
        self.now = now;
        if !self.is_client() || !self.reachability.inquire(now) {
            return false;
        }
        match self.server {
            Some(server) if self.answered || !self.is_direct() => self.ping(now, server),
            // None of its addresses has answered yet, or the relay has not: what a lost server brings about.
            _ => {
                self.lose(now);
                self.handle_timeout(now);
            }
        }
        true
    }

    const fn is_direct(&self) -> bool {
        matches!(self.settings.place, Place::Client { .. })
    }

    const fn is_client(&self) -> bool {
        matches!(
            self.settings.place,
            Place::Client { .. } | Place::RendezvousClient { .. }
        )
    }

    /// When [`Self::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if !self.out.is_empty() || !self.events.is_empty() {
            return Some(self.now);
        }
        [
            self.next_candidate.map(|(_, at)| at),
            self.next_relay,
            self.next_ping.map(|at| self.ping_due(at)),
            self.pings.poll_timeout(),
            self.punches.poll_timeout(),
            self.silence(),
            self.reachability.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// When silence has lasted for so long that names should be looked up again; nobody's peer has to be found otherwise.
    fn silence(&self) -> Option<Instant> {
        (self.settings.place != Place::Bound).then(|| self.quiet_since + self.patience())
    }

    /// The time between signs of life, which is not 0.
    fn keepalive(&self) -> Option<Duration> {
        self.settings.keepalive.filter(|every| !every.is_zero())
    }

    /// T of section 11.2.
    fn patience(&self) -> Duration {
        let keepalive = self.keepalive().unwrap_or_default();
        keepalive
            .saturating_mul(3)
            .saturating_add(Duration::from_secs(4))
            .clamp(Duration::from_secs(10), Duration::from_secs(1800))
    }

    /// When a ping that was planned for `at` is due: later, if something has been sent meanwhile.
    fn ping_due(&self, at: Instant) -> Instant {
        match (self.suspect, self.keepalive()) {
            (None, Some(keepalive)) => at.max(self.sent + keepalive),
            _ => at,
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        self.counters.lost_pings += self.pings.expire(now);
        // First what may find that the server is lost: what follows from it is due at once.
        if due(self.next_ping.map(|at| self.ping_due(at))) {
            self.next_ping = None;
            self.ping_server(now);
        }
        if due(self.silence()) {
            self.quiet_since = now;
            if self.is_client() {
                self.lose(now);
            }
            self.tell(Event::Resolve);
        }
        if let Some((index, at)) = self.next_candidate
            && at <= now
            && let Place::Client { servers } = &self.settings.place
        {
            let candidate = servers.get(index).copied();
            self.next_candidate = if index + 1 < servers.len() {
                Some((index + 1, now + NEXT_CANDIDATE))
            } else {
                let again = ROUNDS.get(self.round).map(|after| (0, now + *after));
                self.round += 1;
                again
            };
            if let Some(candidate) = candidate {
                self.ping(now, candidate);
            }
        }
        while let Some(addr) = self.punches.pop_due(now) {
            self.ping(now, addr);
        }
        if due(self.next_relay) {
            self.tell_relay(now);
        }
        if self.reachability.check(now) == Some(Change::Down) {
            self.tell(Event::Down);
        }
    }

    /// A client's server is not where it was, as far as can be told. What is done about it is due now.
    fn lose(&mut self, now: Instant) {
        self.suspect = None;
        match &self.settings.place {
            Place::RendezvousClient { .. } => {
                if self.server.take().is_some() {
                    self.tell(Event::PeerLost);
                }
                self.asked = 0;
                self.probe = Probe::default();
                self.next_relay = Some(now);
                self.next_ping = None;
            }
            // All addresses are tried again; sessions go on where they are.
            Place::Client { .. } => self.race(now),
            Place::Bound | Place::RendezvousServer { .. } => {}
        }
    }

    /// Asks a client's candidates, from the best on.
    const fn race(&mut self, now: Instant) {
        self.answered = false;
        self.round = 0;
        self.next_candidate = Some((0, now));
    }

    fn ping_server(&mut self, now: Instant) {
        let Some(server) = self.server else {
            return;
        };
        if let Some(left) = &mut self.suspect {
            if *left == 0 {
                return self.lose(now);
            }
            *left -= 1;
            self.next_ping = Some(now + SUSPECT_EVERY);
            self.ping(now, server);
            return;
        }
        self.ping(now, server);
        self.schedule_ping(now);
    }

    /// The next ping, when nothing is sent until then (section 11.1): 1 to 1.25 times the keep-alive.
    fn schedule_ping(&mut self, now: Instant) {
        if !self.is_client() || self.suspect.is_some() {
            return;
        }
        self.next_ping = self.keepalive().map(|keepalive| {
            self.chance ^= self.chance << 13;
            self.chance ^= self.chance >> 7;
            self.chance ^= self.chance << 17;
            let parts = u32::try_from(self.chance >> 40).unwrap_or(0) % 256;
            now + keepalive + keepalive.saturating_mul(parts) / 1024
        });
    }

    fn ping(&mut self, now: Instant, to: SocketAddr) {
        let time = now.wire_millis().0;
        if self.is_client() {
            self.reachability.asked(now);
        }
        self.pings.sent(now, to, time);
        let path = Path {
            remote: to,
            local: None,
        };
        let hello = Some(OURS);
        self.say(path, &Session0::Ping { time, hello });
        if self.next_ping.is_none() && self.server == Some(to) {
            self.schedule_ping(now);
        }
    }

    /// Tells the relay of a service, or asks it for one.
    fn tell_relay(&mut self, now: Instant) {
        let (relays, id, local, listens) = match &self.settings.place {
            Place::RendezvousServer { relays, id, local } => (relays, id, local, true),
            Place::RendezvousClient { relays, id, local } if self.server.is_none() => {
                (relays, id, local, false)
            }
            _ => {
                self.next_relay = None;
                return;
            }
        };
        let ping = match listens {
            true => None,
            false => self.probe.ping(self.asked, now.wire_millis().0),
        };
        let mut messages = Vec::new();
        // All addresses of a relay that has several: it is one machine, and one of them works.
        for remote in relays {
            let any: SocketAddr = match remote {
                SocketAddr::V4(_) => ([0; 4], 0).into(),
                SocketAddr::V6(_) => ([0; 16], 0).into(),
            };
            let same = |a: &&SocketAddr| a.is_ipv4() == remote.is_ipv4();
            let local = local.iter().find(same).copied().unwrap_or(any);
            let message = if listens {
                Session0::Listen { local, id }
            } else {
                Session0::Connect { local, id }
            };
            let mut bytes = Vec::new();
            message.emit(&mut bytes);
            let path = Path {
                remote: *remote,
                local: None,
            };
            messages.push((path, bytes));
            if let Some(time) = ping {
                let hello = Some(OURS);
                let mut bytes = Vec::new();
                Session0::Ping { time, hello }.emit(&mut bytes);
                messages.push((path, bytes));
            }
        }
        for (path, bytes) in messages {
            self.push(path, bytes);
        }
        let every = if listens {
            let keepalive = self.keepalive().unwrap_or(LONGEST_LISTEN);
            keepalive.min(LONGEST_LISTEN)
        } else {
            if self.probe.silent(self.asked) {
                self.tell(Event::RelaySilent);
            }
            let wait = CONNECTS[self.asked.min(CONNECTS.len() - 1)];
            self.asked += 1;
            wait
        };
        self.next_relay = Some(now + every);
    }

    fn say(&mut self, path: Path, message: &Session0<'_>) {
        let mut bytes = Vec::new();
        message.emit(&mut bytes);
        self.push(path, bytes);
    }

    fn tell(&mut self, event: Event) {
        if self.events.len() < WAITING {
            self.events.push_back(event);
        }
    }

    fn push(&mut self, path: Path, bytes: Vec<u8>) {
        if self.out.len() < WAITING {
            self.out.push_back((path, bytes));
        }
    }

    fn remember(&mut self, addr: SocketAddr, hello: Option<Hello>) {
        let known = self.hellos.iter().position(|(a, _)| *a == addr);
        match (known, hello) {
            (Some(at), Some(hello)) => self.hellos[at].1 = hello,
            // Somebody else is there now.
            (Some(at), None) => {
                self.hellos.remove(at);
            }
            (None, Some(hello)) => {
                if self.hellos.len() >= HELLOS {
                    self.hellos.pop_front();
                }
                self.hellos.push_back((addr, hello));
            }
            (None, None) => {}
        }
    }

    /// The next message to send, appended to `out`.
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>) -> Option<Path> {
        let (path, bytes) = self.out.pop_front()?;
        out.extend_from_slice(&bytes);
        Some(path)
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Where new sessions go now; `None` while a rendezvous client has no server, and at who is no client.
    #[must_use]
    pub const fn server(&self) -> Option<SocketAddr> {
        self.server
    }

    /// What the peer there has said of itself: it is one of ours.
    #[must_use]
    pub fn hello(&self, of: SocketAddr) -> Option<Hello> {
        let found = self.hellos.iter().find(|(addr, _)| *addr == of);
        found.map(|(_, hello)| *hello)
    }

    /// Names were looked up again.
    pub fn resolved(&mut self, now: Instant, addrs: Vec<SocketAddr>) {
        if addrs.is_empty() {
            return;
        }
        self.now = now;
        match &mut self.settings.place {
            Place::Bound => return,
            Place::Client { servers } => {
                if *servers == addrs && self.answered {
                    return;
                }
                *servers = addrs;
                // New sessions go to the best address at once.
                let keeps = |s| servers.iter().any(|other| same_place(*other, s));
                if !self.server.is_some_and(keeps) {
                    self.server = servers.first().copied();
                    self.suspect = None;
                    self.answered = false;
                }
            }
            Place::RendezvousClient { relays, .. } | Place::RendezvousServer { relays, .. } => {
                *relays = addrs;
            }
        }
        if self.server.is_none() || !self.answered {
            self.begin(now);
        }
    }

    /// Our own addresses, with the port of the socket, are others now.
    pub fn local_changed(&mut self, addrs: Vec<SocketAddr>) {
        let now = self.now;
        match &mut self.settings.place {
            Place::RendezvousClient { local, .. } | Place::RendezvousServer { local, .. } => {
                *local = addrs;
            }
            Place::Bound | Place::Client { .. } => return,
        }
        if self.server.is_none() {
            self.begin(now);
        }
    }

    /// The configuration was read again.
    pub fn set_keepalive(&mut self, keepalive: Option<Duration>, timeout: Duration) {
        self.settings.keepalive = keepalive;
        self.settings.timeout = timeout;
        let now = self.now;
        self.next_ping = None;
        if self.server.is_some() {
            self.schedule_ping(now);
        }
    }

    /// When anything was last heard that opened.
    #[must_use]
    pub const fn last_heard(&self) -> Option<Instant> {
        self.heard
    }

    /// What was counted.
    #[must_use]
    pub const fn counters(&self) -> ControlCounters {
        self.counters
    }
}

/// Whether two addresses are the same host and port: what else is in an address of IPv6 differs between what was resolved
/// and what was received from.
fn same_place(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && a.ip().to_canonical() == b.ip().to_canonical()
}

#[cfg(test)]
mod tests;
