//! A slab with generation-checked keys: a key of something that is gone finds nothing, never its successor.

/// Names a session of one endpoint.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionKey {
    index: u32,
    generation: u32,
}

impl SessionKey {
    /// The least of all.
    pub(crate) const FIRST: Self = Self {
        index: 0,
        generation: 0,
    };

    /// Its slot: small, and reused after the session is gone.
    #[must_use]
    pub const fn index(self) -> usize {
        self.index as usize
    }
}

#[derive(Debug)]
struct Slot<T, S> {
    generation: u32,
    /// In memory of its own, so that a crowd that grows moves nobody.
    value: Value<T, S>,
    /// Whether its owner has put it on the list of work.
    marked: bool,
}

#[derive(Debug)]
enum Value<T, S> {
    Vacant,
    Whole(Box<T>),
    Stub(Box<S>),
}

/// Values under [`SessionKey`]s. In the place of a whole one may be what is left of it while it rests.
#[derive(Debug)]
pub(crate) struct Slots<T, S = ()> {
    slots: Vec<Slot<T, S>>,
    free: Vec<u32>,
}

impl<T, S> Default for Slots<T, S> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T, S> Slots<T, S> {
    pub(crate) fn insert(&mut self, value: T) -> SessionKey {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                value: Value::Vacant,
                marked: false,
            });
            // Endpoints cap their sessions far below 2^32.
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let slot = &mut self.slots[index as usize];
        slot.value = Value::Whole(Box::new(value));
        slot.marked = false;
        SessionKey {
            index,
            generation: slot.generation,
        }
    }

    /// Removes a whole value.
    pub(crate) fn remove(&mut self, key: SessionKey) -> Option<T> {
        let slot = self.slot_mut(key)?;
        match std::mem::replace(&mut slot.value, Value::Vacant) {
            Value::Whole(value) => {
                slot.generation = slot.generation.wrapping_add(1);
                self.free.push(key.index);
                Some(*value)
            }
            other => {
                slot.value = other;
                None
            }
        }
    }

    /// A whole value.
    #[inline]
    pub(crate) fn get(&self, key: SessionKey) -> Option<&T> {
        match &self.slot(key)?.value {
            Value::Whole(value) => Some(value),
            Value::Vacant | Value::Stub(_) => None,
        }
    }

    /// The same.
    #[inline]
    pub(crate) fn get_mut(&mut self, key: SessionKey) -> Option<&mut T> {
        match &mut self.slot_mut(key)?.value {
            Value::Whole(value) => Some(value),
            Value::Vacant | Value::Stub(_) => None,
        }
    }

    /// What is left of a value that rests.
    pub(crate) fn stub(&self, key: SessionKey) -> Option<&S> {
        match &self.slot(key)?.value {
            Value::Stub(stub) => Some(stub),
            Value::Vacant | Value::Whole(_) => None,
        }
    }

    /// A whole value rests: `rest` says what is left.
    pub(crate) fn rest(&mut self, key: SessionKey, rest: impl FnOnce(T) -> S) {
        if let Some(slot) = self.slot_mut(key) {
            slot.value = match std::mem::replace(&mut slot.value, Value::Vacant) {
                Value::Whole(value) => Value::Stub(Box::new(rest(*value))),
                other => other,
            };
        }
    }

    /// It is whole again.
    pub(crate) fn resume(&mut self, key: SessionKey, resume: impl FnOnce(S) -> T) {
        if let Some(slot) = self.slot_mut(key) {
            slot.value = match std::mem::replace(&mut slot.value, Value::Vacant) {
                Value::Stub(stub) => Value::Whole(Box::new(resume(*stub))),
                other => other,
            };
        }
    }

    fn slot(&self, key: SessionKey) -> Option<&Slot<T, S>> {
        let slot = self.slots.get(key.index())?;
        (slot.generation == key.generation).then_some(slot)
    }

    fn slot_mut(&mut self, key: SessionKey) -> Option<&mut Slot<T, S>> {
        let slot = self.slots.get_mut(key.index())?;
        (slot.generation == key.generation).then_some(slot)
    }

    /// The key of what is in slot `index` now.
    pub(crate) fn key_at(&self, index: usize) -> Option<SessionKey> {
        let slot = self.slots.get(index)?;
        if matches!(slot.value, Value::Vacant) {
            return None;
        }
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

    /// Whether `key` is marked.
    pub(crate) fn is_marked(&self, key: SessionKey) -> bool {
        self.slot(key).is_some_and(|slot| slot.marked)
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
        let mut slots = Slots::<char, u8>::default();
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

    #[test]
    fn what_rests_keeps_its_key() {
        let mut slots = Slots::<char, u8>::default();
        let a = slots.insert('a');
        slots.rest(a, |c| c as u8);
        assert_eq!((slots.get(a), slots.stub(a)), (None, Some(&97)));
        assert_eq!(
            (slots.remove(a), slots.len(), slots.key_at(0)),
            (None, 1, Some(a))
        );
        slots.resume(a, char::from);
        assert_eq!((slots.get(a), slots.stub(a)), (Some(&'a'), None));
        slots.resume(a, |_| 'b');
        assert_eq!(slots.remove(a), Some('a'));
        slots.rest(a, |c| c as u8);
        assert_eq!((slots.stub(a), slots.len()), (None, 0));
    }
}
