//! Where streams live: slots that are used again, and keys that notice when they are.

use core::fmt;

/// Names a stream of one multiplexer from the moment it is opened until it is closed or reset by its holder.
///
/// A key that outlives its stream names nothing: every call with it does nothing or says so, even when the slot
/// or the number on the wire is in use again.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
    pub(crate) wire: u32,
}

impl StreamId {
    /// The number of the stream on the wire, the one that both ends log.
    #[must_use]
    pub const fn wire(self) -> u32 {
        self.wire
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream {}@{}", self.wire, self.slot)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.wire, f)
    }
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    wire: u32,
    value: Option<Box<T>>,
}

/// Values in numbered slots, each in memory of its own: a crowd that leaves leaves 16 bytes a head behind, and
/// growing moves nobody.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    entries: Vec<Entry<T>>,
    vacant: Vec<u32>,
    /// Counts insertions; never starts over, so a shrunk slab does not revive old keys.
    generation: u32,
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self {
            entries: Vec::new(),
            vacant: Vec::new(),
            generation: 0,
        }
    }

    /// How many values there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.vacant.len()
    }

    /// One more than the highest slot in use since the last shrinking.
    pub(crate) fn end(&self) -> u32 {
        self.entries.len() as u32
    }

    pub(crate) fn insert(&mut self, wire: u32, value: T) -> StreamId {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let entry = Entry {
            generation,
            wire,
            value: Some(Box::new(value)),
        };
        let slot = match self.vacant.pop() {
            Some(slot) => {
                self.entries[slot as usize] = entry;
                slot
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        };
        StreamId {
            slot,
            generation,
            wire,
        }
    }

    pub(crate) fn remove(&mut self, slot: u32) -> Option<T> {
        let value = self.entries.get_mut(slot as usize)?.value.take()?;
        self.vacant.push(slot);
        if self.vacant.len() == self.entries.len() {
            self.entries.clear();
            self.vacant.clear();
        }
        Some(*value)
    }

    pub(crate) fn get(&self, id: StreamId) -> Option<&T> {
        let entry = self.entries.get(id.slot as usize)?;
        (entry.generation == id.generation)
            .then_some(entry.value.as_deref())
            .flatten()
    }

    pub(crate) fn get_mut(&mut self, id: StreamId) -> Option<&mut T> {
        let entry = self.entries.get_mut(id.slot as usize)?;
        (entry.generation == id.generation)
            .then_some(entry.value.as_deref_mut())
            .flatten()
    }

    pub(crate) fn at(&self, slot: u32) -> Option<&T> {
        self.entries.get(slot as usize)?.value.as_deref()
    }

    pub(crate) fn at_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.entries.get_mut(slot as usize)?.value.as_deref_mut()
    }

    /// The key of what is in `slot`.
    pub(crate) fn key(&self, slot: u32) -> Option<StreamId> {
        let entry = self.entries.get(slot as usize)?;
        entry.value.as_ref().map(|_| StreamId {
            slot,
            generation: entry.generation,
            wire: entry.wire,
        })
    }

    /// Gives the memory of slots behind the last one in use back; returns how many slots are left.
    pub(crate) fn shrink(&mut self) -> u32 {
        let used = self.entries.iter().rposition(|entry| entry.value.is_some());
        let end = used.map_or(0, |last| last + 1);
        if end < self.entries.len() {
            self.entries.truncate(end);
            self.vacant.retain(|&slot| (slot as usize) < end);
        }
        self.entries.shrink_to_fit();
        self.vacant.shrink_to_fit();
        end as u32
    }
}

#[cfg(test)]
mod tests {
    use super::Slab;

    #[test]
    fn stale_keys_name_nothing() {
        let mut slab = Slab::new();
        let a = slab.insert(3, 'a');
        let b = slab.insert(5, 'b');
        assert_eq!(slab.remove(a.slot), Some('a'));
        assert_eq!(slab.remove(a.slot), None);
        let c = slab.insert(3, 'c');
        assert_eq!(c.slot, a.slot);
        assert_eq!(slab.get(a), None);
        assert_eq!(slab.get(c), Some(&'c'));
        assert_eq!(slab.key(c.slot), Some(c));
        slab.remove(b.slot);
        assert_eq!(slab.shrink(), 1);
        assert_eq!((slab.len(), slab.get(c)), (1, Some(&'c')));
        slab.remove(c.slot);
        assert_eq!(slab.len(), 0);
        assert_eq!(slab.shrink(), 0);
        let d = slab.insert(3, 'd');
        assert_eq!(d.slot, a.slot);
        assert_eq!(slab.get(a), None);
        assert_eq!(slab.get(c), None);
        assert_eq!(slab.get_mut(d), Some(&mut 'd'));
    }
}
