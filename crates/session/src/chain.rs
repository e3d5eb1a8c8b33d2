//! Lists of sessions, threaded through their slots: joining, leaving and the neighbours cost the same however many there are.

use crate::slots::SessionKey;

/// No session.
const NIL: u32 = u32::MAX;

#[derive(Copy, Clone, Debug)]
struct Link {
    key: SessionKey,
    prev: u32,
    next: u32,
    /// Whether it is in a list now.
    linked: bool,
}

/// Ends of one list. Its links are in one [`Links`].
#[derive(Copy, Clone, Debug)]
pub(crate) struct Chain {
    head: u32,
    tail: u32,
    len: u32,
}

impl Chain {
    pub(crate) const EMPTY: Self = Self {
        head: NIL,
        tail: NIL,
        len: 0,
    };

    pub(crate) const fn len(&self) -> usize {
        self.len as usize
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// The links of any number of lists of which each session is in one at most.
#[derive(Default, Debug)]
pub(crate) struct Links {
    links: Vec<Link>,
    /// Links that were looked at, for tests: time says little.
    #[cfg(test)]
    pub(crate) looked: std::cell::Cell<u64>,
}

impl Links {
    fn at(&self, slot: u32) -> Option<&Link> {
        #[cfg(test)]
        self.looked.set(self.looked.get() + 1);
        self.links.get(slot as usize).filter(|link| link.linked)
    }

    fn at_mut(&mut self, slot: u32) -> Option<&mut Link> {
        #[cfg(test)]
        self.looked.set(self.looked.get() + 1);
        self.links.get_mut(slot as usize)
    }

    /// Puts `key` at the end of `chain`. It must not be in a list of these links.
    pub(crate) fn push_back(&mut self, chain: &mut Chain, key: SessionKey) {
        let slot = slot(key);
        let tail = std::mem::replace(&mut chain.tail, slot);
        let link = Link {
            key,
            prev: tail,
            next: NIL,
            linked: true,
        };
        if key.index() >= self.links.len() {
            let none = Link {
                linked: false,
                ..link
            };
            self.links.resize(key.index() + 1, none);
        }
        debug_assert!(!self.links[key.index()].linked, "in one list at most");
        self.links[key.index()] = link;
        match self.at_mut(tail) {
            Some(before) => before.next = slot,
            None => chain.head = slot,
        }
        chain.len += 1;
    }

    /// Puts `key` at the head of `chain`. It must not be in a list of these links.
    pub(crate) fn push_front(&mut self, chain: &mut Chain, key: SessionKey) {
        let Some(head) = self.first(chain) else {
            return self.push_back(chain, key);
        };
        // At the end of an empty list first, for its place.
        let mut alone = Chain::EMPTY;
        self.push_back(&mut alone, key);
        self.links[head.index()].prev = slot(key);
        self.links[key.index()].next = slot(head);
        chain.head = slot(key);
        chain.len += 1;
    }

    /// Takes `key` out of `chain`; `false` if it is in no list.
    pub(crate) fn remove(&mut self, chain: &mut Chain, key: SessionKey) -> bool {
        let Some(&Link { prev, next, .. }) = self.at(slot(key)).filter(|link| link.key == key)
        else {
            return false;
        };
        self.links[key.index()].linked = false;
        match self.at_mut(prev) {
            Some(before) => before.next = next,
            None => chain.head = next,
        }
        match self.at_mut(next) {
            Some(behind) => behind.prev = prev,
            None => chain.tail = prev,
        }
        chain.len -= 1;
        true
    }

    /// The first of `chain`: who has been in it for longest.
    pub(crate) fn first(&self, chain: &Chain) -> Option<SessionKey> {
        self.at(chain.head).map(|link| link.key)
    }

    /// The last of `chain`.
    pub(crate) fn last(&self, chain: &Chain) -> Option<SessionKey> {
        self.at(chain.tail).map(|link| link.key)
    }

    /// Who is in `chain`, the first one first.
    pub(crate) fn iter(&self, chain: Chain) -> impl Iterator<Item = SessionKey> + '_ {
        let mut next = chain.head;
        std::iter::from_fn(move || {
            let link = self.at(next)?;
            next = link.next;
            Some(link.key)
        })
    }

    /// Gives back what a crowd took, behind the last of them.
    pub(crate) fn shrink(&mut self) {
        let used = self.links.iter().rposition(|link| link.linked);
        self.links.truncate(used.map_or(0, |at| at + 1));
        self.links.shrink_to_fit();
    }
}

fn slot(key: SessionKey) -> u32 {
    // Endpoints cap their sessions far below 2^32.
    u32::try_from(key.index()).unwrap_or(NIL - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slots::Slots;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        /// Against two queues.
        #[test]
        fn same_as_queues(ops in prop::collection::vec((0u8..3, any::<bool>(), 0usize..6), 1..200)) {
            let mut slots = Slots::<_>::default();
            let keys: Vec<_> = (0..6).map(|n| slots.insert(n)).collect();
            let (mut links, mut chains) = (Links::default(), [Chain::EMPTY; 2]);
            let mut model = [VecDeque::new(), VecDeque::new()];
            for (add, which, n) in ops {
                let (key, which) = (keys[n], usize::from(which));
                let at = model.iter().position(|m| m.contains(&key));
                match (add, at) {
                    (2, None) => {
                        links.push_front(&mut chains[which], key);
                        model[which].push_front(key);
                    }
                    (1, None) => {
                        links.push_back(&mut chains[which], key);
                        model[which].push_back(key);
                    }
                    (0, Some(at)) => {
                        prop_assert!(links.remove(&mut chains[at], key));
                        model[at].retain(|k| *k != key);
                    }
                    (_, None) => prop_assert!(!links.remove(&mut chains[which], key)),
                    (_, Some(_)) => {}
                }
                for (chain, model) in chains.iter().zip(&model) {
                    prop_assert_eq!(links.first(chain), model.front().copied());
                    prop_assert_eq!(links.last(chain), model.back().copied());
                    prop_assert!(links.iter(*chain).eq(model.iter().copied()));
                    prop_assert_eq!((chain.len(), chain.is_empty()), (model.len(), model.is_empty()));
                }
            }
        }
    }
}
