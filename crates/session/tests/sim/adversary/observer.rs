//! Somebody on the path between a client and its server: sees every datagram that leaves, may keep or change it, and sends what
//! it likes from any address at any time. What it does is a list of [`Attack`]s; everything random comes from one seed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use fulmar_netem::{Direction, Rng};
use fulmar_wire::time::Instant;

use crate::harness::stranger;

/// A datagram that leaves a host.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) direction: Direction,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) data: &'a [u8],
}

/// The same in the observer's records.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) direction: Direction,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) data: Vec<u8>,
}

/// Whom the observer sends something to.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum To {
    /// The first client.
    Client,
    /// The server of the first client: at the port that the client uses, or at another one of the same service.
    Server { other_port: bool },
}

/// What the observer sends.
#[derive(Clone, Debug)]
pub(crate) struct Forged {
    pub(crate) from: SocketAddr,
    pub(crate) to: To,
    pub(crate) data: Vec<u8>,
}

/// What becomes of a datagram that the observer sees.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// It goes on.
    Passes,
    /// It is taken off the path.
    Taken,
    /// Another goes on in its place.
    Becomes(Vec<u8>),
}

/// Something that the observer does whenever it sees a datagram.
pub(crate) trait Attack: std::fmt::Debug {
    fn sees(&mut self, seen: &Seen<'_>, hand: &mut Hand) -> Fate;
}

/// What attacks act with.
pub(crate) struct Hand {
    pub(crate) now: Instant,
    pub(crate) rng: Rng,
    /// All that was seen, the oldest first.
    pub(crate) records: Vec<Kept>,
    /// The first client and its server.
    pub(crate) client: SocketAddr,
    pub(crate) server: SocketAddr,
    queue: BTreeMap<(Instant, u64), Forged>,
    sent: u64,
    /// Addresses of the observer's at which there is somebody who can answer: whatever goes there is asked for.
    pub(crate) inhabited: BTreeSet<SocketAddr>,
    /// Bytes that went from and to each address of the observer's.
    ledger: BTreeMap<SocketAddr, Account>,
}

/// Bytes of UDP payload.
#[derive(Copy, Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Account {
    pub(crate) to_server: u64,
    pub(crate) from_server: u64,
}

impl Hand {
    /// Sends something that arrives after this time.
    pub(crate) fn send(&mut self, after: Duration, from: SocketAddr, to: To, data: Vec<u8>) {
        let forged = Forged { from, to, data };
        self.queue.insert((self.now + after, self.sent), forged);
        self.sent += 1;
    }

    /// Sends to the other end what that end would take for `direction`'s, as if it came from `from`.
    pub(crate) fn forward(
        &mut self,
        after: Duration,
        from: SocketAddr,
        way: Direction,
        data: Vec<u8>,
    ) {
        let to = match way {
            Direction::Up => To::Server { other_port: false },
            Direction::Down => To::Client,
        };
        self.send(after, from, to, data);
    }

    /// An address of the observer's.
    pub(crate) fn address(&self) -> SocketAddr {
        stranger(3)
    }

    /// Datagrams sent so far.
    pub(crate) const fn sent(&self) -> u64 {
        self.sent
    }
}

/// See the module.
pub(crate) struct Observer {
    pub(crate) hand: Hand,
    pub(crate) attacks: Vec<Box<dyn Attack>>,
    /// Datagrams that went on changed.
    pub(crate) changed: u64,
    /// Whether conversation numbers belong to addresses, so that one at an address of the observer's is another one.
    by_address: bool,
}

impl Observer {
    pub(crate) fn new(seed: u64, client: SocketAddr, server: SocketAddr, by_address: bool) -> Self {
        let hand = Hand {
            now: Instant::ZERO,
            rng: Rng::new(seed),
            records: Vec::new(),
            client,
            server,
            queue: BTreeMap::new(),
            sent: 0,
            inhabited: BTreeSet::new(),
            ledger: BTreeMap::new(),
        };
        Self {
            hand,
            attacks: Vec::new(),
            changed: 0,
            by_address,
        }
    }

    /// From now on it does this.
    pub(crate) fn begin(&mut self, attack: impl Attack + 'static) {
        self.attacks.push(Box::new(attack));
    }

    /// From now on it only watches. What it has sent arrives.
    pub(crate) fn rest(&mut self) {
        self.attacks.clear();
    }

    /// A datagram leaves a host: what goes on.
    pub(crate) fn sees(&mut self, now: Instant, seen: Seen<'_>) -> Option<Vec<u8>> {
        self.hand.now = now;
        if is_the_observers(seen.to) {
            let account = self.hand.ledger.entry(seen.to).or_default();
            account.from_server += seen.data.len() as u64;
        }
        self.hand.records.push(Kept {
            direction: seen.direction,
            from: seen.from,
            to: seen.to,
            data: seen.data.to_vec(),
        });
        let mut data = Some(seen.data.to_vec());
        for attack in &mut self.attacks {
            let Some(left) = &data else { break };
            let seen = Seen { data: left, ..seen };
            match attack.sees(&seen, &mut self.hand) {
                Fate::Passes => {}
                Fate::Taken => data = None,
                Fate::Becomes(other) => {
                    self.changed += 1;
                    data = Some(other);
                }
            }
        }
        if let Some(data) = &data
            && is_the_observers(seen.from)
        {
            let account = self.hand.ledger.entry(seen.from).or_default();
            account.to_server += data.len() as u64;
        }
        data
    }

    /// When something that it has sent arrives.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.hand.queue.keys().next().map(|(at, _)| *at)
    }

    /// The next that has arrived.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Forged> {
        let first = self.hand.queue.first_entry()?;
        if first.key().0 > now {
            return None;
        }
        let forged = first.remove();
        if is_the_observers(forged.from) && forged.to != To::Client {
            let account = self.hand.ledger.entry(forged.from).or_default();
            account.to_server += forged.data.len() as u64;
        }
        Some(forged)
    }

    /// Whether a session of a known number at this address is another one.
    pub(crate) fn is_another(&self, addr: SocketAddr) -> bool {
        self.by_address && is_the_observers(addr)
    }

    /// What went from and to each address of the observer's where nobody is.
    pub(crate) fn ledger(&self) -> impl Iterator<Item = (&SocketAddr, &Account)> {
        let hand = &self.hand;
        let all = hand.ledger.iter();
        all.filter(|(addr, _)| !hand.inhabited.contains(addr))
    }
}

/// Whether an address is one of [`stranger`]'s.
pub(crate) fn is_the_observers(addr: SocketAddr) -> bool {
    matches!(addr.ip(), std::net::IpAddr::V4(ip) if ip.octets()[..3] == [192, 0, 2])
}
