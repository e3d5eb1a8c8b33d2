//! Who is unproven, in all and of each IP address, and who makes room when there are too many.
//!
//! A flood of openings is refused or replaced here, so nothing in it may take longer the more sessions there are.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::admission::Limits;
use crate::chain::{Chain, Links};
use crate::slots::SessionKey;

/// Sessions of one IP address.
#[derive(Copy, Clone, Debug)]
struct Crowd {
    all: usize,
    /// Those that are unproven, oldest first.
    unproven: Chain,
}

/// Whether one more may come.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Room {
    /// Yes.
    Free,
    /// Once this one has gone.
    InPlaceOf(SessionKey),
    /// No.
    None,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Crowds {
    by_ip: HashMap<IpAddr, Crowd>,
    /// All that are unproven, oldest first.
    unproven: Chain,
    links: Links,
    /// Links of the lists of each address.
    links_of_ip: Links,
}

impl Default for Crowds {
    fn default() -> Self {
        Self {
            by_ip: HashMap::new(),
            unproven: Chain::EMPTY,
            links: Links::default(),
            links_of_ip: Links::default(),
        }
    }
}

impl Crowds {
    /// Whether `ip` may have one more session, unproven as all are at first. The oldest of those goes if there are too many: an
    /// honest client is proven with its first datagram, or the second, so a flood of others does not keep it out.
    pub(crate) fn room(&self, ip: IpAddr, limits: &Limits) -> Room {
        let of_ip = self.by_ip.get(&ip);
        if of_ip.is_some_and(|crowd| crowd.all >= limits.sessions_per_ip) {
            return Room::None;
        }
        let unproven_of_ip = of_ip.map_or(Chain::EMPTY, |crowd| crowd.unproven);
        let oldest = if unproven_of_ip.len() >= limits.unproven_per_ip {
            self.links_of_ip.first(&unproven_of_ip)
        } else if self.unproven.len() >= limits.unproven {
            self.links.first(&self.unproven)
        } else {
            return Room::Free;
        };
        oldest.map_or(Room::None, Room::InPlaceOf)
    }

    /// `ip` has got a session.
    pub(crate) fn insert(&mut self, ip: IpAddr, key: SessionKey) {
        let crowd = self.by_ip.entry(ip).or_insert(Crowd {
            all: 0,
            unproven: Chain::EMPTY,
        });
        crowd.all += 1;
        self.links_of_ip.push_back(&mut crowd.unproven, key);
        self.links.push_back(&mut self.unproven, key);
    }

    /// It has proven itself, or ends unproven.
    pub(crate) fn no_longer_unproven(&mut self, ip: IpAddr, key: SessionKey) {
        self.links.remove(&mut self.unproven, key);
        if let Some(crowd) = self.by_ip.get_mut(&ip) {
            self.links_of_ip.remove(&mut crowd.unproven, key);
        }
    }

    /// A session of `ip` has ended.
    pub(crate) fn leave(&mut self, ip: IpAddr) {
        if let Some(crowd) = self.by_ip.get_mut(&ip) {
            crowd.all -= 1;
            if crowd.all == 0 {
                self.by_ip.remove(&ip);
            }
        }
    }

    /// Gives back memory that a crowd took.
    pub(crate) fn shrink(&mut self) {
        self.by_ip.shrink_to_fit();
        self.links.shrink();
        self.links_of_ip.shrink();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slots::Slots;

    fn ip(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    /// Once all sessions that had come since the oldest unproven one were searched for each opening.
    #[test]
    fn an_opening_costs_the_same_however_many_sessions_there_are() {
        let limits = Limits::default();
        let mut work = Vec::new();
        for proven in [10, 20_000] {
            let (mut slots, mut crowds) = (Slots::<_>::default(), Crowds::default());
            let first = slots.insert(());
            crowds.insert(ip(0), first);
            for n in 0..proven {
                let key = slots.insert(());
                crowds.insert(ip(1), key);
                crowds.no_longer_unproven(ip(1), key);
                // The others of the flood, behind them.
                if n < limits.unproven_per_ip - 1 {
                    crowds.insert(ip(2), slots.insert(()));
                }
            }
            while crowds.room(ip(2), &limits) == Room::Free {
                crowds.insert(ip(2), slots.insert(()));
            }
            let looked = |c: &Crowds| c.links.looked.get() + c.links_of_ip.looked.get();
            let before = looked(&crowds);
            for _ in 0..1000 {
                let Room::InPlaceOf(oldest) = crowds.room(ip(2), &limits) else {
                    panic!("not full");
                };
                assert_ne!(oldest, first, "another address is not to blame");
                crowds.no_longer_unproven(ip(2), oldest);
                crowds.leave(ip(2));
                slots.remove(oldest);
                crowds.insert(ip(2), slots.insert(()));
            }
            work.push(looked(&crowds) - before);
        }
        assert_eq!(work[0], work[1]);
        assert!(work[0] <= 20_000, "{work:?}");
    }

    #[test]
    fn the_oldest_of_all_goes_when_there_are_too_many_in_all() {
        let limits = Limits {
            unproven: 3,
            sessions_per_ip: 2,
            ..Limits::default()
        };
        let (mut slots, mut crowds) = (Slots::<_>::default(), Crowds::default());
        let keys: Vec<_> = (0..3).map(|_| slots.insert(())).collect();
        for (n, key) in (0..).zip(&keys) {
            assert_eq!(crowds.room(ip(n), &limits), Room::Free);
            crowds.insert(ip(n), *key);
        }
        assert_eq!(crowds.room(ip(9), &limits), Room::InPlaceOf(keys[0]));
        crowds.no_longer_unproven(ip(0), keys[0]);
        assert_eq!(crowds.room(ip(0), &limits), Room::Free);
        crowds.insert(ip(0), slots.insert(()));
        assert_eq!(crowds.room(ip(0), &limits), Room::None);
        crowds.leave(ip(0));
        assert_eq!(crowds.room(ip(0), &limits), Room::InPlaceOf(keys[1]));
    }
}
