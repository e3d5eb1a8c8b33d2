//! Queues of slab slots that are linked through an array: a slot is in a queue at most once, joins and leaves in
//! constant time, and a queue never needs more memory than the slab.

/// "No slot".
const NONE: u32 = u32::MAX;
/// A slot that is not in the queue.
const OUT: Link = Link {
    prev: u32::MAX - 1,
    next: NONE,
};

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
struct Link {
    prev: u32,
    next: u32,
}

/// A queue of slots.
#[derive(Debug)]
pub(crate) struct List {
    head: u32,
    tail: u32,
    links: Vec<Link>,
}

impl List {
    pub(crate) const fn new() -> Self {
        Self {
            head: NONE,
            tail: NONE,
            links: Vec::new(),
        }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.head == NONE
    }

    pub(crate) fn contains(&self, slot: u32) -> bool {
        self.links
            .get(slot as usize)
            .is_some_and(|link| link.prev != OUT.prev)
    }

    pub(crate) fn front(&self) -> Option<u32> {
        (self.head != NONE).then_some(self.head)
    }

    /// Appends `slot` unless it already is in the queue.
    pub(crate) fn push_back(&mut self, slot: u32) {
        let index = slot as usize;
        if index >= self.links.len() {
            self.links.resize(index + 1, OUT);
        }
        if self.links[index].prev != OUT.prev {
            return;
        }
        self.links[index] = Link {
            prev: self.tail,
            next: NONE,
        };
        match self.tail {
            NONE => self.head = slot,
            tail => self.links[tail as usize].next = slot,
        }
        self.tail = slot;
    }

    /// Takes `slot` out, wherever it is; nothing happens if it is not in the queue.
    pub(crate) fn remove(&mut self, slot: u32) {
        if !self.contains(slot) {
            return;
        }
        let Link { prev, next } = self.links[slot as usize];
        match prev {
            NONE => self.head = next,
            prev => self.links[prev as usize].next = next,
        }
        match next {
            NONE => self.tail = prev,
            next => self.links[next as usize].prev = prev,
        }
        self.links[slot as usize] = OUT;
    }

    pub(crate) fn pop_front(&mut self) -> Option<u32> {
        let slot = self.front()?;
        self.remove(slot);
        Some(slot)
    }

    /// Gives the memory of slots from `end` on back, none of which may be in the queue.
    pub(crate) fn shrink(&mut self, end: u32) {
        debug_assert!(
            self.links
                .iter()
                .skip(end as usize)
                .all(|&link| link == OUT),
            "slots are queued"
        );
        self.links.truncate(end as usize);
        self.links.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::List;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn behaves_like_a_queue_without_duplicates(ops in proptest::collection::vec((0u8..4, 0u32..8), 0..64)) {
            let mut list = List::new();
            let mut model = VecDeque::new();
            for (op, slot) in ops {
                match op {
                    0 => {
                        list.push_back(slot);
                        if !model.contains(&slot) {
                            model.push_back(slot);
                        }
                    }
                    1 => {
                        list.remove(slot);
                        model.retain(|&s| s != slot);
                    }
                    2 => list.shrink(model.iter().max().map_or(0, |&last| last + 1)),
                    _ => prop_assert_eq!(list.pop_front(), model.pop_front()),
                }
                prop_assert_eq!(list.front(), model.front().copied());
                prop_assert_eq!(list.is_empty(), model.is_empty());
                for slot in 0..8 {
                    prop_assert_eq!(list.contains(slot), model.contains(&slot));
                }
            }
        }
    }
}
