//! Queues of slab slots that are linked through an array: a slot is in a queue at most once, joins and leaves in
//! constant time, and queues never need more memory than the slab.

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

#[derive(Copy, Clone, Debug)]
struct Ends {
    head: u32,
    tail: u32,
}

/// `N` queues that share their links: a slot is in one of them at most.
#[derive(Debug)]
pub(crate) struct Lists<const N: usize> {
    ends: [Ends; N],
    links: Vec<Link>,
}

impl<const N: usize> Lists<N> {
    pub(crate) const fn new() -> Self {
        let empty = Ends {
            head: NONE,
            tail: NONE,
        };
        Self {
            ends: [empty; N],
            links: Vec::new(),
        }
    }

    /// Whether `slot` is in any of the queues.
    pub(crate) fn contains(&self, slot: u32) -> bool {
        self.links
            .get(slot as usize)
            .is_some_and(|link| link.prev != OUT.prev)
    }

    pub(crate) const fn is_empty(&self, queue: usize) -> bool {
        self.ends[queue].head == NONE
    }

    pub(crate) fn front(&self, queue: usize) -> Option<u32> {
        let head = self.ends[queue].head;
        (head != NONE).then_some(head)
    }

    /// Appends `slot` unless it already is in a queue.
    pub(crate) fn push_back(&mut self, queue: usize, slot: u32) {
        let tail = self.ends[queue].tail;
        if !self.join(slot, tail, NONE) {
            return;
        }
        match tail {
            NONE => self.ends[queue].head = slot,
            tail => self.links[tail as usize].next = slot,
        }
        self.ends[queue].tail = slot;
    }

    /// Puts `slot` before all others unless it already is in a queue.
    pub(crate) fn push_front(&mut self, queue: usize, slot: u32) {
        let head = self.ends[queue].head;
        if !self.join(slot, NONE, head) {
            return;
        }
        match head {
            NONE => self.ends[queue].tail = slot,
            head => self.links[head as usize].prev = slot,
        }
        self.ends[queue].head = slot;
    }

    /// Links `slot` one way; `false` when it already is in a queue.
    fn join(&mut self, slot: u32, prev: u32, next: u32) -> bool {
        let index = slot as usize;
        if index >= self.links.len() {
            self.links.resize(index + 1, OUT);
        }
        if self.links[index].prev != OUT.prev {
            return false;
        }
        self.links[index] = Link { prev, next };
        true
    }

    /// Takes `slot` out of `queue`, wherever in it it is; nothing happens if it is in no queue.
    pub(crate) fn remove(&mut self, queue: usize, slot: u32) {
        if !self.contains(slot) {
            return;
        }
        let Link { prev, next } = self.links[slot as usize];
        debug_assert!(
            (prev != NONE || self.ends[queue].head == slot)
                && (next != NONE || self.ends[queue].tail == slot),
            "slot {slot} is in another queue"
        );
        match prev {
            NONE => self.ends[queue].head = next,
            prev => self.links[prev as usize].next = next,
        }
        match next {
            NONE => self.ends[queue].tail = prev,
            next => self.links[next as usize].prev = prev,
        }
        self.links[slot as usize] = OUT;
    }

    /// Moves `slot`, which is in `queue`, to its end.
    pub(crate) fn rotate(&mut self, queue: usize, slot: u32) {
        // A queue of one is the common case.
        if self.ends[queue].tail != slot {
            self.remove(queue, slot);
            self.push_back(queue, slot);
        }
    }

    /// Gives the memory of slots from `end` on back, none of which may be in a queue.
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

/// A queue of slots.
#[derive(Debug)]
pub(crate) struct List(Lists<1>);

impl List {
    pub(crate) const fn new() -> Self {
        Self(Lists::new())
    }

    #[cfg(test)]
    pub(crate) fn contains(&self, slot: u32) -> bool {
        self.0.contains(slot)
    }

    pub(crate) fn front(&self) -> Option<u32> {
        self.0.front(0)
    }

    /// Appends `slot` unless it already is in the queue.
    pub(crate) fn push_back(&mut self, slot: u32) {
        self.0.push_back(0, slot);
    }

    /// Takes `slot` out, wherever it is; nothing happens if it is not in the queue.
    pub(crate) fn remove(&mut self, slot: u32) {
        self.0.remove(0, slot);
    }

    pub(crate) fn pop_front(&mut self) -> Option<u32> {
        let slot = self.front()?;
        self.remove(slot);
        Some(slot)
    }

    /// Gives the memory of slots from `end` on back, none of which may be in the queue.
    pub(crate) fn shrink(&mut self, end: u32) {
        self.0.shrink(end);
    }
}

#[cfg(test)]
mod tests {
    use super::{List, Lists};
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
                for slot in 0..8 {
                    prop_assert_eq!(list.contains(slot), model.contains(&slot));
                }
            }
        }

        #[test]
        fn queues_share_links(ops in proptest::collection::vec((0u8..4, 0usize..3, 0u32..8), 0..64)) {
            let mut lists = Lists::<3>::new();
            let mut models: [VecDeque<u32>; 3] = Default::default();
            for (op, queue, slot) in ops {
                let at = models.iter().position(|model| model.contains(&slot));
                match op {
                    0 => {
                        lists.push_back(queue, slot);
                        if at.is_none() {
                            models[queue].push_back(slot);
                        }
                    }
                    1 => {
                        lists.push_front(queue, slot);
                        if at.is_none() {
                            models[queue].push_front(slot);
                        }
                    }
                    2 => {
                        if let Some(queue) = at {
                            lists.rotate(queue, slot);
                            models[queue].retain(|&s| s != slot);
                            models[queue].push_back(slot);
                        }
                    }
                    _ => {
                        lists.remove(at.unwrap_or(queue), slot);
                        models[at.unwrap_or(queue)].retain(|&s| s != slot);
                    }
                }
                for (queue, model) in models.iter().enumerate() {
                    prop_assert_eq!(lists.front(queue), model.front().copied());
                    prop_assert_eq!(lists.is_empty(queue), model.is_empty());
                }
                for slot in 0..8 {
                    let queued = models.iter().any(|model| model.contains(&slot));
                    prop_assert_eq!(lists.contains(slot), queued);
                }
            }
            // What is left comes out in order.
            for (queue, model) in models.iter_mut().enumerate() {
                while let Some(slot) = lists.front(queue) {
                    prop_assert_eq!(Some(slot), model.pop_front());
                    lists.remove(queue, slot);
                }
                prop_assert!(model.is_empty());
            }
        }
    }
}
