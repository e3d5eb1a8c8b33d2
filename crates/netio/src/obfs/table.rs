//! Who is known: a context for each peer, and how many may stand unproved.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, SocketAddr, SocketAddrV6, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::flow::Flow;
use super::options::{ObfsContext, ObfsState, ObfsTotals};
use crate::addr::unmapped;

/// How long a context lives that nothing has proved (docs/spec/kcptun-libev.md, section 13.4).
pub(super) const UNPROVED: Duration = Duration::from_secs(30);

/// From how many unproved contexts on a server that accepts connections refuses some, and all (section 13.4).
const SOME: usize = 10;
const ALL: usize = 60;

/// A peer.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) flow: Flow,
    /// Our side.
    pub(super) local: SocketAddr,
    /// Of the peer's first packet; `None`: nothing of it was captured.
    pub(super) label: Option<u32>,
    /// The kernel's connection beside it.
    pub(super) connection: Option<Arc<TcpStream>>,
    /// `dpi/tcp`, server: the number of the client's first segment.
    pub(super) theirs: u32,
    pub(super) created: Instant,
    pub(super) heard: Instant,
    pub(super) rx: u64,
    pub(super) tx: u64,
    pub(super) ecn: u64,
    pub(super) ece: u64,
    authenticated: bool,
    serial: u64,
}

impl Context {
    pub(super) fn new(flow: Flow, local: SocketAddr, now: Instant) -> Self {
        Self {
            flow,
            local,
            label: None,
            connection: None,
            theirs: 0,
            created: now,
            heard: now,
            rx: 0,
            tx: 0,
            ecn: 0,
            ece: 0,
            authenticated: false,
            serial: 0,
        }
    }

    pub(super) fn is_authenticated(&self) -> bool {
        self.authenticated
    }

    /// Tells this context from another of the same peer.
    pub(super) fn serial(&self) -> u64 {
        self.serial
    }

    /// Whether it has been silent, or unproved, for too long.
    pub(super) fn is_over(&self, now: Instant, idle: Duration) -> bool {
        if self.authenticated {
            now.saturating_duration_since(self.heard) >= idle
        } else {
            now.saturating_duration_since(self.created) >= UNPROVED
        }
    }
}

/// All contexts of one end.
#[derive(Debug)]
pub(super) struct Table {
    contexts: HashMap<SocketAddr, Context>,
    /// Peers in the order in which their contexts were made, with their serial numbers; only those that are still
    /// unproved count.
    order: VecDeque<(SocketAddr, u64)>,
    unproved: usize,
    serial: u64,
    looked: Instant,
    random: u64,
    pub(super) totals: ObfsTotals,
    /// Client: the server.
    pub(super) remote: Option<SocketAddr>,
    /// Client: the link is there.
    pub(super) ready: bool,
    /// The address that was last found to be ours.
    own: Option<IpAddr>,
}

impl Table {
    pub(super) fn new(remote: Option<SocketAddr>) -> Self {
        Self {
            contexts: HashMap::new(),
            order: VecDeque::new(),
            unproved: 0,
            serial: 0,
            looked: Instant::now(),
            random: RandomState::new().hash_one(0x0bf5),
            totals: ObfsTotals::default(),
            remote,
            ready: false,
            own: None,
        }
    }

    /// 32 bits that nobody knows beforehand.
    pub(super) fn random(&mut self) -> u32 {
        // Splitmix64.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z >> 32) as u32
    }

    pub(super) fn get(&self, peer: &SocketAddr) -> Option<&Context> {
        self.contexts.get(peer)
    }

    pub(super) fn get_mut(&mut self, peer: &SocketAddr) -> Option<&mut Context> {
        self.contexts.get_mut(peer)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.contexts.is_empty()
    }

    /// Adds a context, in place of an older one of that peer; returns its serial number.
    pub(super) fn insert(&mut self, peer: SocketAddr, mut context: Context) -> u64 {
        self.remove(&peer);
        self.serial += 1;
        context.serial = self.serial;
        self.contexts.insert(peer, context);
        self.unproved += 1;
        while let Some(&(peer, serial)) = self.order.front() {
            if self.is_unproved(&peer, serial) {
                break;
            }
            self.order.pop_front();
        }
        self.order.push_back((peer, self.serial));
        self.totals.opened += 1;
        self.serial
    }

    fn is_unproved(&self, peer: &SocketAddr, serial: u64) -> bool {
        self.contexts
            .get(peer)
            .is_some_and(|c| c.serial == serial && !c.authenticated)
    }

    pub(super) fn remove(&mut self, peer: &SocketAddr) -> Option<Context> {
        let context = self.contexts.remove(peer)?;
        if !context.authenticated {
            self.unproved -= 1;
        }
        Some(context)
    }

    /// A datagram of that peer was opened.
    pub(super) fn authenticate(&mut self, peer: &SocketAddr) -> bool {
        let Some(context) = self.contexts.get_mut(peer) else {
            return false;
        };
        if !context.authenticated {
            context.authenticated = true;
            self.unproved -= 1;
        }
        true
    }

    /// Whether there is room for one more context among `most`, made by forgetting the oldest unproved one if need be.
    pub(super) fn make_room(&mut self, most: usize) -> bool {
        if self.contexts.len() < most {
            return true;
        }
        while let Some((peer, serial)) = self.order.pop_front() {
            if self.is_unproved(&peer, serial) {
                self.remove(&peer);
                self.totals.evicted += 1;
                return true;
            }
        }
        self.totals.refused += 1;
        false
    }

    /// Whether a server accepts one more connection (section 13.4).
    pub(super) fn accepts(&mut self, most: usize) -> bool {
        let refused = self.contexts.len() >= most
            || self.unproved >= ALL
            || self.unproved >= SOME && self.random() % 10 < 3;
        self.totals.refused += u64::from(refused);
        !refused
    }

    /// Forgets contexts that are over, if that was not done lately.
    pub(super) fn expire(&mut self, now: Instant, idle: Duration) {
        const ROUND: Duration = Duration::from_secs(1);
        if now.saturating_duration_since(self.looked) < ROUND.min(idle / 4) {
            return;
        }
        self.looked = now;
        let before = self.contexts.len();
        self.contexts.retain(|_, c| !c.is_over(now, idle));
        self.totals.expired += (before - self.contexts.len()) as u64;
        self.unproved = self.contexts.values().filter(|c| !c.authenticated).count();
    }

    /// Whether `ip` is an address of this host: a router sees packets for others, too.
    pub(super) fn is_ours(&mut self, ip: IpAddr, scope: u32) -> bool {
        if self.own == Some(ip) {
            return true;
        }
        let addr = match ip {
            IpAddr::V4(_) => SocketAddr::new(ip, 0),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, 0, 0, scope).into(),
        };
        let ours = std::net::UdpSocket::bind(addr).is_ok();
        if ours {
            self.own = Some(ip);
        }
        ours
    }

    /// All of them, for the operator, by address.
    pub(super) fn list(&self, now: Instant) -> Vec<ObfsContext> {
        let mut list: Vec<_> = self
            .contexts
            .iter()
            .map(|(&peer, c)| ObfsContext {
                peer,
                local: c.local,
                state: if !c.flow.is_open() {
                    ObfsState::Uncaptured
                } else if c.authenticated {
                    ObfsState::Authenticated
                } else {
                    ObfsState::Unauthenticated
                },
                seen: now.saturating_duration_since(c.heard),
                rx_bytes: c.rx,
                tx_bytes: c.tx,
                ecn: c.ecn,
                ece: c.ece,
            })
            .collect();
        list.sort_unstable_by_key(|c| c.peer);
        list
    }
}

/// The address by which a peer is known: with the scope only where the address means nothing without, and without what
/// else the system may write there. `device`: the scope if the address comes without.
pub(super) fn key(addr: SocketAddr, device: u32) -> SocketAddr {
    match unmapped(addr) {
        SocketAddr::V6(a) => {
            let scope = match (a.ip().is_unicast_link_local(), a.scope_id()) {
                (false, _) => 0,
                (true, 0) => device,
                (true, scope) => scope,
            };
            SocketAddrV6::new(*a.ip(), a.port(), 0, scope).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_wire::seq::Seq;

    fn peer(n: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], n))
    }

    fn context(now: Instant) -> Context {
        let flow = Flow::answering(1, 2, Seq(3), Seq(4));
        Context::new(flow, SocketAddr::from(([192, 0, 2, 2], 1)), now)
    }

    #[test]
    fn a_flood_leaves_the_proved_alone() {
        let now = Instant::now();
        let mut table = Table::new(None);
        for n in 0..10 {
            assert!(table.make_room(20));
            table.insert(peer(n), context(now));
            assert!(table.authenticate(&peer(n)));
        }
        for n in 1000..30_000 {
            assert!(table.make_room(20));
            table.insert(peer(n), context(now));
            assert!(table.order.len() <= 20);
        }
        assert_eq!(table.list(now).len(), 20);
        assert!((0..10).all(|n| table.get(&peer(n)).is_some()));
        // The newest ten.
        assert!((29_990..30_000).all(|n| table.get(&peer(n)).is_some()));
        assert_eq!(table.totals.evicted, 28_990);
        for n in 29_990..30_000 {
            table.authenticate(&peer(n));
        }
        assert!(!table.make_room(20));
        assert!(!table.authenticate(&peer(500)));
    }

    #[test]
    fn connections_are_refused_when_too_many_are_unproved() {
        let now = Instant::now();
        let mut table = Table::new(None);
        let mut accepted = 0;
        for n in 0..1000 {
            if table.accepts(4095) {
                table.insert(peer(n), context(now));
                accepted += 1;
            } else {
                assert!(accepted >= SOME);
            }
        }
        assert_eq!(accepted, ALL);
        for n in 0..1000 {
            table.authenticate(&peer(n));
        }
        assert!(table.accepts(4095));
        assert!(!table.accepts(ALL));
    }

    #[test]
    fn contexts_end() {
        let now = Instant::now();
        let idle = Duration::from_secs(79);
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut table = Table::new(None);
        table.insert(peer(1), context(now));
        table.insert(peer(2), context(now));
        table.authenticate(&peer(2));
        table.expire(at(29), idle);
        assert_eq!(table.list(now).len(), 2);
        table.expire(at(31), idle);
        assert!(table.get(&peer(1)).is_none());
        table.get_mut(&peer(2)).expect("there").heard = at(40);
        table.expire(at(118), idle);
        assert!(!table.is_empty());
        table.expire(at(120), idle);
        assert!(table.is_empty());
        assert_eq!((table.totals.expired, table.unproved), (2, 0));
    }

    #[test]
    fn peers_have_one_name() {
        let addr = |text: &str| text.parse::<SocketAddr>().expect("address");
        assert_eq!(key(addr("[::ffff:192.0.2.1]:7"), 3), addr("192.0.2.1:7"));
        assert_eq!(key(addr("[fe80::1]:7"), 3), addr("[fe80::1%3]:7"));
        assert_eq!(key(addr("[fe80::1%2]:7"), 3), addr("[fe80::1%2]:7"));
        assert_eq!(key(addr("[2001:db8::1%2]:7"), 3), addr("[2001:db8::1]:7"));
    }
}
