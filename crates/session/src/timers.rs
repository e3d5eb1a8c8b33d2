//! The timer table of an endpoint: one deadline per session, earliest first.
//!
//! An indexed binary heap: setting, moving and removing a deadline cost O(log n), reading the earliest O(1),
//! and nothing is allocated once it has grown to the number of sessions.

use fulmar_wire::time::Instant;

const ABSENT: u32 = u32::MAX;

/// Deadlines of slots `0..n`.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: Vec<(Instant, u32)>,
    /// Where each slot stands in the heap, [`ABSENT`] if it has no deadline.
    position: Vec<u32>,
}

impl Timers {
    /// Sets, moves or removes the deadline of `slot`.
    pub(crate) fn set(&mut self, slot: usize, deadline: Option<Instant>) {
        if slot >= self.position.len() {
            if deadline.is_none() {
                return;
            }
            self.position.resize(slot + 1, ABSENT);
        }
        let at = self.position[slot];
        match (deadline, at) {
            (None, ABSENT) => {}
            (None, at) => self.remove(at as usize),
            (Some(when), ABSENT) => {
                let end = self.heap.len();
                self.heap.push((when, index(slot)));
                self.position[slot] = index(end);
                self.up(end);
            }
            (Some(when), at) => {
                let at = at as usize;
                let before = self.heap[at].0;
                self.heap[at].0 = when;
                if when < before {
                    self.up(at);
                } else {
                    self.down(at);
                }
            }
        }
    }

    /// The earliest deadline and its slot.
    #[must_use]
    pub(crate) fn first(&self) -> Option<(Instant, usize)> {
        self.heap.first().map(|&(when, slot)| (when, slot as usize))
    }

    /// Removes and returns a slot whose deadline is not after `now`.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<usize> {
        let (when, slot) = self.first()?;
        if when > now {
            return None;
        }
        self.remove(0);
        Some(slot)
    }

    fn remove(&mut self, at: usize) {
        let (_, slot) = self.heap.swap_remove(at);
        self.position[slot as usize] = ABSENT;
        if at < self.heap.len() {
            self.position[self.heap[at].1 as usize] = index(at);
            self.up(at);
            self.down(at);
        }
    }

    fn up(&mut self, mut at: usize) {
        while at > 0 {
            let parent = (at - 1) / 2;
            if self.heap[parent].0 <= self.heap[at].0 {
                break;
            }
            self.swap(at, parent);
            at = parent;
        }
    }

    fn down(&mut self, mut at: usize) {
        loop {
            let left = 2 * at + 1;
            if left >= self.heap.len() {
                break;
            }
            let right = left + 1;
            let child = if right < self.heap.len() && self.heap[right].0 < self.heap[left].0 {
                right
            } else {
                left
            };
            if self.heap[at].0 <= self.heap[child].0 {
                break;
            }
            self.swap(at, child);
            at = child;
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.position[self.heap[a].1 as usize] = index(a);
        self.position[self.heap[b].1 as usize] = index(b);
    }
}

fn index(n: usize) -> u32 {
    // Slots are sessions; an endpoint caps them far below 2^32.
    u32::try_from(n).unwrap_or(ABSENT - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn same_as_a_sorted_map(ops in prop::collection::vec((0usize..20, prop::option::of(0u64..1000), any::<bool>()), 1..300)) {
            let mut timers = Timers::default();
            let mut model = BTreeMap::<usize, u64>::new();
            for (slot, when, pop) in ops {
                if pop {
                    let now = when.unwrap_or(500);
                    let due = timers.pop_due(Instant::from_millis(now));
                    let earliest = model.values().min().copied().filter(|&w| w <= now);
                    prop_assert_eq!(due.map(|s| model[&s]), earliest);
                    if let Some(s) = due { model.remove(&s); }
                } else {
                    timers.set(slot, when.map(Instant::from_millis));
                    match when { Some(w) => { model.insert(slot, w); } None => { model.remove(&slot); } }
                }
                prop_assert_eq!(timers.first().map(|(w, _)| w.as_millis()), model.values().min().copied());
            }
        }
    }
}
