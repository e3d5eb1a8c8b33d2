//! A slab with generation-checked keys: a key of something that is gone finds nothing, never its successor.

/// Names a session of one endpoint.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionKey {
    index: u32,
    generation: u32,
}

impl SessionKey {
    /// Its slot: small, and reused after the session is gone.
    #[must_use]
    pub const fn index(self) -> usize {
        self.index as usize
    }
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    /// In memory of its own, so that a crowd that grows moves nobody.
    value: Option<Box<T>>,
    /// Whether its owner has put it on the list of work.
    marked: bool,
}

/// Values under [`SessionKey`]s.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slots<T> {
    pub(crate) fn insert(&mut self, value: T) -> SessionKey {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                value: None,
                marked: false,
            });
            // Endpoints cap their sessions far below 2^32.
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let slot = &mut self.slots[index as usize];
        slot.value = Some(Box::new(value));
        slot.marked = false;
        SessionKey {
            index,
            generation: slot.generation,
        }
    }

    pub(crate) fn remove(&mut self, key: SessionKey) -> Option<T> {
        let slot = self.slots.get_mut(key.index())?;
        if slot.generation != key.generation {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(key.index);
        Some(*value)
    }

    pub(crate) fn get(&self, key: SessionKey) -> Option<&T> {
        self.slots
            .get(key.index())
            .filter(|s| s.generation == key.generation)?
            .value
            .as_deref()
    }

    pub(crate) fn get_mut(&mut self, key: SessionKey) -> Option<&mut T> {
        self.slots
            .get_mut(key.index())
            .filter(|s| s.generation == key.generation)?
            .value
            .as_deref_mut()
    }

    /// The key of what is in slot `index` now.
    pub(crate) fn key_at(&self, index: usize) -> Option<SessionKey> {
        let slot = self.slots.get(index)?;
        slot.value.as_ref()?;
        Some(SessionKey {
            index: u32::try_from(index).ok()?,
            generation: slot.generation,
        })
    }

    /// Marks `key`; `true` if it was not marked before.
    pub(crate) fn mark(&mut self, key: SessionKey) -> bool {
        match self.slots.get_mut(key.index()) {
            Some(slot) if slot.generation == key.generation => {
                !std::mem::replace(&mut slot.marked, true)
            }
            _ => false,
        }
    }

    /// Takes the mark off.
    pub(crate) fn unmark(&mut self, key: SessionKey) {
        if let Some(slot) = self.slots.get_mut(key.index()) {
            slot.marked = false;
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = SessionKey> + '_ {
        (0..self.slots.len()).filter_map(|i| self.key_at(i))
    }
}

#[cfg(test)]
mod tests {
    use super::Slots;

    #[test]
    fn a_stale_key_finds_nothing() {
        let mut slots = Slots::default();
        let a = slots.insert('a');
        assert!(slots.mark(a) && !slots.mark(a));
        assert_eq!(slots.remove(a), Some('a'));
        let b = slots.insert('b');
        assert_eq!(a.index(), b.index());
        assert_eq!((slots.get(a), slots.get(b)), (None, Some(&'b')));
        assert_eq!(slots.remove(a), None);
        assert!(!slots.mark(a) && slots.mark(b));
        assert_eq!(slots.len(), 1);
        assert_eq!(slots.keys().collect::<Vec<_>>(), [b]);
    }
}
