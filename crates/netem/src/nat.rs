//! Address translation of one side: what the other side sees as its source address, and which way back
//! that leaves open.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use fulmar_wire::time::Instant;

/// The most mappings that a translator remembers; a real one forgets, too.
const MAX_MAPPINGS: usize = 4096;

/// Ports move by this much with every change.
const PORT_STEP: u16 = 1009;

/// The translator in front of one side. Without changes it is not there: addresses pass as they are.
#[derive(Debug, Default)]
pub(crate) struct Nat {
    /// Changes to come, in order of time.
    pending: Vec<Change>,
    /// The host address shown outside, if it differs.
    host: Option<IpAddr>,
    /// How many changes have happened.
    changes: u16,
    /// Since the last change: what is outside for whom inside.
    mappings: BTreeMap<SocketAddr, SocketAddr>,
}

#[derive(Debug)]
struct Change {
    at: Instant,
    host: Option<IpAddr>,
}

impl Nat {
    /// From `at` on, sources are seen under other ports, and under the address `host` if that is given.
    pub(crate) fn change(&mut self, at: Instant, host: Option<IpAddr>) {
        let place = self.pending.partition_point(|c| c.at <= at);
        self.pending.insert(place, Change { at, host });
    }

    /// How the other side sees a datagram that leaves `source` now.
    pub(crate) fn outbound(&mut self, now: Instant, source: SocketAddr) -> SocketAddr {
        self.advance(now);
        if self.changes == 0 {
            return source;
        }
        let shift = PORT_STEP.wrapping_mul(self.changes);
        // Port 0 is nobody's; a wrapped sum moves past it.
        let port = match source.port().overflowing_add(shift) {
            (port, false) => port,
            (port, true) => port + 1,
        };
        let outside = SocketAddr::new(self.host.unwrap_or(source.ip()), port);
        if self.mappings.len() >= MAX_MAPPINGS && !self.mappings.contains_key(&outside) {
            self.mappings.clear();
        }
        self.mappings.insert(outside, source);
        outside
    }

    /// Who inside gets a datagram for `target` that arrives now; nobody if the address is not, or no
    /// longer, in use.
    pub(crate) fn inbound(&mut self, now: Instant, target: SocketAddr) -> Option<SocketAddr> {
        self.advance(now);
        if self.changes == 0 {
            return Some(target);
        }
        self.mappings.get(&target).copied()
    }

    fn advance(&mut self, now: Instant) {
        let due = self.pending.partition_point(|c| c.at <= now);
        for change in self.pending.drain(..due) {
            self.changes = self.changes.wrapping_add(1).max(1);
            self.host = change.host.or(self.host);
            self.mappings.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    #[test]
    fn every_change_closes_the_way_back_to_the_old_address() {
        let inside: SocketAddr = "10.0.0.1:5000".parse().unwrap();
        let other: SocketAddr = "10.0.0.1:65000".parse().unwrap();
        let host: IpAddr = "192.0.2.9".parse().unwrap();
        let mut nat = Nat::default();
        nat.change(at(20), Some(host));
        nat.change(at(10), None);

        assert_eq!(nat.outbound(at(5), inside), inside);
        assert_eq!(nat.inbound(at(9), inside), Some(inside));

        assert_eq!(nat.inbound(at(10), inside), None);
        let second = nat.outbound(at(11), inside);
        assert_eq!(second.ip(), inside.ip());
        assert_ne!(second.port(), inside.port());
        assert_eq!(nat.inbound(at(12), second), Some(inside));
        let second_other = nat.outbound(at(12), other);
        assert!(second_other.port() != second.port() && second_other.port() != 0);

        assert_eq!(nat.inbound(at(20), second), None);
        let third = nat.outbound(at(21), inside);
        assert_eq!(third.ip(), host);
        assert_eq!(nat.inbound(at(22), third), Some(inside));
        assert_eq!(nat.inbound(at(22), second_other), None);
    }

    #[test]
    fn mappings_are_bounded() {
        let mut nat = Nat::default();
        nat.change(at(0), None);
        for port in 1..=u16::MAX {
            nat.outbound(at(1), ([10, 0, 0, 1], port).into());
        }
        assert!(nat.mappings.len() <= MAX_MAPPINGS);
    }
}
