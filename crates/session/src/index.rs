//! Which session a datagram belongs to: by conversation and address, by conversation, by address.
//!
//! A conversation number may be shared by several peers where numbers belong to addresses (kcptun-libev). All sessions with one number
//! are in one entry, so that none of them is lost when another one ends or moves.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

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
    /// Sessions of an address, oldest first; only where datagrams without a number have to be assigned.
    by_addr: Option<HashMap<SocketAddr, Vec<SessionKey>>>,
}

impl SessionIndex {
    /// An empty index. `by_addr`: sessions are also found by address alone.
    pub(crate) fn new(by_addr: bool) -> Self {
        Self {
            by_conv: HashMap::new(),
            by_addr: by_addr.then(HashMap::new),
        }
    }

    /// Adds a session.
    pub(crate) fn insert(&mut self, conv: u32, addr: SocketAddr, key: SessionKey) {
        self.insert_conv(conv, addr, key);
        if let Some(by_addr) = &mut self.by_addr {
            by_addr.entry(addr).or_default().push(key);
        }
    }

    /// The peer of a session has moved from `old` to `new`.
    pub(crate) fn rebind(&mut self, conv: u32, old: SocketAddr, new: SocketAddr, key: SessionKey) {
        self.remove(conv, old, key);
        self.insert(conv, new, key);
    }

    /// Removes a session. Whether no other one has its conversation number.
    pub(crate) fn remove(&mut self, conv: u32, addr: SocketAddr, key: SessionKey) -> bool {
        if let Some(by_addr) = &mut self.by_addr
            && let Some(keys) = by_addr.get_mut(&addr)
        {
            keys.retain(|k| *k != key);
            if keys.is_empty() {
                by_addr.remove(&addr);
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

    /// The youngest session of the peer at `addr`.
    pub(crate) fn youngest(&self, addr: SocketAddr) -> Option<SessionKey> {
        self.by_addr.as_ref()?.get(&addr)?.last().copied()
    }

    /// Sessions of the peer at `addr` that are older than `key`.
    pub(crate) fn older(&self, addr: SocketAddr, key: SessionKey) -> Vec<SessionKey> {
        let keys = self.by_addr.as_ref().and_then(|a| a.get(&addr));
        let older = keys.into_iter().flatten().take_while(|k| **k != key);
        older.copied().collect()
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
        let mut slots = Slots::default();
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

    proptest! {
        /// Against a list of sessions that is searched from one end to the other.
        #[test]
        fn finds_what_a_search_of_all_sessions_finds(
            by_addr: bool,
            ops in prop::collection::vec((0u8..3, 0u32..3, 0u8..5, 0u8..5), 1..200),
        ) {
            let mut slots = Slots::default();
            let mut index = SessionIndex::new(by_addr);
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
                    let here: Vec<_> = model.iter().filter(|m| by_addr && m.1 == addr(n)).map(|m| m.2).collect();
                    prop_assert_eq!(index.youngest(addr(n)), here.last().copied());
                    if let Some((last, older)) = here.split_last() {
                        prop_assert_eq!(&index.older(addr(n), *last)[..], older);
                    }
                }
            }
        }
    }
}
