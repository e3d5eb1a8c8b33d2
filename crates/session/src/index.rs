//! Which session a datagram belongs to: by conversation and address, by conversation, by address.
//!
//! A conversation number may be shared by several peers where numbers belong to addresses (kcptun-libev). All sessions with one number
//! are in one entry, so that none of them is lost when another one ends or moves.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use crate::chain::{Chain, Links};
use crate::slots::SessionKey;

/// The sessions of one conversation number: mostly one.
#[derive(Debug)]
struct Holders {
    first: (SocketAddr, SessionKey),
    /// The others, by address.
    #[allow(clippy::box_collection)] // There are none in nearly every entry.
    others: Option<Box<BTreeMap<SocketAddr, SessionKey>>>,
}

/// Finds sessions. At most one session has the same number and address.
#[derive(Debug)]
pub(crate) struct SessionIndex {
    by_conv: HashMap<u32, Holders>,
    /// Sessions of an address, oldest first.
    by_addr: HashMap<SocketAddr, Chain>,
    /// The links of those lists.
    links: Links,
    /// Whether an address tells whose a datagram without a number is.
    nameless: bool,
}

impl SessionIndex {
    /// An empty index. `nameless`: datagrams without a number are assigned by their address.
    pub(crate) fn new(nameless: bool) -> Self {
        Self {
            by_conv: HashMap::new(),
            by_addr: HashMap::new(),
            links: Links::default(),
            nameless,
        }
    }

    /// Adds a session.
    pub(crate) fn insert(&mut self, conv: u32, addr: SocketAddr, key: SessionKey) {
        self.insert_conv(conv, addr, key);
        let chain = self.by_addr.entry(addr).or_insert(Chain::EMPTY);
        self.links.push_back(chain, key);
    }

    /// The peer of a session has moved from `old` to `new`.
    pub(crate) fn rebind(&mut self, conv: u32, old: SocketAddr, new: SocketAddr, key: SessionKey) {
        self.remove(conv, old, key);
        self.insert(conv, new, key);
    }

    /// Removes a session. Whether no other one has its conversation number.
    pub(crate) fn remove(&mut self, conv: u32, addr: SocketAddr, key: SessionKey) -> bool {
        if let Some(chain) = self.by_addr.get_mut(&addr) {
            self.links.remove(chain, key);
            if chain.is_empty() {
                self.by_addr.remove(&addr);
            }
        }
        let Some(holders) = self.by_conv.get_mut(&conv) else {
            return true;
        };
        if holders.first == (addr, key) {
            // Another one takes its place.
            match holders.others.as_mut().and_then(|o| o.pop_first()) {
                Some(next) => holders.first = next,
                None => {
                    self.by_conv.remove(&conv);
                    return true;
                }
            }
        } else if let Some(others) = &mut holders.others
            && others.get(&addr) == Some(&key)
        {
            others.remove(&addr);
        }
        if holders.others.as_ref().is_some_and(|o| o.is_empty()) {
            holders.others = None;
        }
        false
    }

    /// The session of `conv` with the peer at `addr`.
    pub(crate) fn find(&self, conv: u32, addr: SocketAddr) -> Option<SessionKey> {
        let holders = self.by_conv.get(&conv)?;
        if holders.first.0 == addr {
            return Some(holders.first.1);
        }
        holders.others.as_ref()?.get(&addr).copied()
    }

    /// A session of `conv`, whoever has it.
    pub(crate) fn any(&self, conv: u32) -> Option<SessionKey> {
        self.by_conv.get(&conv).map(|h| h.first.1)
    }

    /// The session of `conv`, if exactly one has it.
    pub(crate) fn only(&self, conv: u32) -> Option<SessionKey> {
        let holders = self.by_conv.get(&conv)?;
        holders.others.is_none().then_some(holders.first.1)
    }

    /// The youngest session of the peer at `addr`, where datagrams are assigned by that.
    pub(crate) fn youngest(&self, addr: SocketAddr) -> Option<SessionKey> {
        if !self.nameless {
            return None;
        }
        self.links.last(self.by_addr.get(&addr)?)
    }

    /// Sessions of the peer at `addr`, oldest first.
    pub(crate) fn at(&self, addr: SocketAddr) -> impl Iterator<Item = SessionKey> + '_ {
        let chain = self.by_addr.get(&addr).copied();
        self.links.iter(chain.unwrap_or(Chain::EMPTY))
    }

    /// Sessions of the peer at `addr` that are older than `key`.
    pub(crate) fn older(&self, addr: SocketAddr, key: SessionKey) -> Vec<SessionKey> {
        self.at(addr).take_while(|k| *k != key).collect()
    }

    /// Gives back memory that a crowd took.
    pub(crate) fn shrink(&mut self) {
        self.by_conv.shrink_to_fit();
        self.by_addr.shrink_to_fit();
        self.links.shrink();
    }

    fn insert_conv(&mut self, conv: u32, addr: SocketAddr, key: SessionKey) {
        debug_assert!(self.find(conv, addr).is_none(), "one for each address");
        match self.by_conv.get_mut(&conv) {
            None => {
                let (first, others) = ((addr, key), None);
                self.by_conv.insert(conv, Holders { first, others });
            }
            Some(holders) => {
                let others = holders.others.get_or_insert_default();
                others.insert(addr, key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slots::Slots;
    use proptest::prelude::*;

    fn addr(n: u8) -> SocketAddr {
        ([192, 0, 2, n], 4000).into()
    }

    /// When the session that got a shared number first ends, the others are found as before.
    #[test]
    fn a_shared_number_outlives_its_first_session() {
        let mut slots = Slots::<_>::default();
        let [a, b, c] = [(); 3].map(|()| slots.insert(()));
        let mut index = SessionIndex::new(false);
        for (n, key) in [(3, a), (1, b), (2, c)] {
            index.insert(7, addr(n), key);
        }
        assert_eq!((index.any(7), index.only(7)), (Some(a), None));
        assert!(!index.remove(7, addr(3), a));
        assert_eq!(index.find(7, addr(3)), None);
        assert_eq!(index.find(7, addr(1)), Some(b));
        assert_eq!(index.find(7, addr(2)), Some(c));
        assert!(!index.remove(7, addr(1), b));
        assert_eq!((index.find(7, addr(2)), index.only(7)), (Some(c), Some(c)));
        assert!(index.remove(7, addr(2), c));
        assert_eq!(index.any(7), None);
    }

    /// Of one address there may be very many: each end of one searched them all.
    #[test]
    fn sessions_of_one_address_come_and_go_at_the_same_cost() {
        let mut work = Vec::new();
        for n in [10, 20_000] {
            let mut slots = Slots::<_>::default();
            let mut index = SessionIndex::new(true);
            let keys: Vec<_> = (0..n).map(|_| slots.insert(())).collect();
            for (conv, key) in (0..).zip(&keys) {
                index.insert(conv, addr(1), *key);
            }
            let before = index.links.looked.get();
            for conv in 0..5 {
                index.rebind(conv, addr(1), addr(2), keys[conv as usize]);
                assert_eq!(index.youngest(addr(1)), keys.last().copied());
                index.remove(conv, addr(2), keys[conv as usize]);
            }
            work.push(index.links.looked.get() - before);
        }
        assert_eq!(work[0], work[1]);
    }

    proptest! {
        /// Against a list of sessions that is searched from one end to the other.
        #[test]
        fn finds_what_a_search_of_all_sessions_finds(
            nameless: bool,
            ops in prop::collection::vec((0u8..3, 0u32..3, 0u8..5, 0u8..5), 1..200),
        ) {
            let mut slots = Slots::<_>::default();
            let mut index = SessionIndex::new(nameless);
            let mut model: Vec<(u32, SocketAddr, SessionKey)> = Vec::new();
            for (op, conv, from, to) in ops {
                let (from, to) = (addr(from), addr(to));
                let at = |model: &[(u32, SocketAddr, SessionKey)], a| {
                    model.iter().position(|m| (m.0, m.1) == (conv, a))
                };
                match (op, at(&model, from), at(&model, to)) {
                    (0, None, _) => {
                        let key = slots.insert(());
                        model.push((conv, from, key));
                        index.insert(conv, from, key);
                    }
                    (1, Some(i), None) => {
                        // At its new address it is the youngest.
                        let (_, _, key) = model.remove(i);
                        model.push((conv, to, key));
                        index.rebind(conv, from, to, key);
                    }
                    (2, Some(i), _) => {
                        let (_, _, key) = model.remove(i);
                        slots.remove(key);
                        let last = model.iter().all(|m| m.0 != conv);
                        prop_assert_eq!(index.remove(conv, from, key), last);
                    }
                    _ => {}
                }
                for conv in 0..3 {
                    let same = || model.iter().filter(|m| m.0 == conv);
                    prop_assert_eq!(index.any(conv).is_some(), same().count() > 0);
                    prop_assert!(index.any(conv).is_none_or(|k| same().any(|m| m.2 == k)));
                    let only = (same().count() == 1).then(|| same().next().map(|m| m.2)).flatten();
                    prop_assert_eq!(index.only(conv), only);
                    for n in 0..5 {
                        let found = same().find(|m| m.1 == addr(n)).map(|m| m.2);
                        prop_assert_eq!(index.find(conv, addr(n)), found);
                    }
                }
                for n in 0..5 {
                    let here: Vec<_> = model.iter().filter(|m| m.1 == addr(n)).map(|m| m.2).collect();
                    prop_assert_eq!(index.youngest(addr(n)), here.last().copied().filter(|_| nameless));
                    prop_assert!(index.at(addr(n)).eq(here.iter().copied()));
                    if let Some((last, older)) = here.split_last() {
                        prop_assert_eq!(&index.older(addr(n), *last)[..], older);
                    }
                }
            }
        }
    }
}
