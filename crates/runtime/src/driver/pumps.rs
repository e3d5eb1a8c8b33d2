//! The pumps of a driver: by number, by stream, and by session without a look at those of others.
//!
//! A stranger can make sessions begin and end thousands of times a second, so what is done for one of them must not depend on how many
//! streams others have.

use std::collections::BTreeMap;

/// Things that belong to streams `S` of sessions `K`, each with a small number that wakers use.
#[derive(Debug)]
pub(super) struct Pumps<K, S, P> {
    slots: Vec<Option<Box<P>>>,
    vacant: Vec<usize>,
    /// Ordered, so that the streams of a session are next to each other, behind the place where none would be.
    by_stream: BTreeMap<(K, Option<S>), usize>,
}

impl<K, S, P> Default for Pumps<K, S, P> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            vacant: Vec::new(),
            by_stream: BTreeMap::new(),
        }
    }
}

impl<K: Copy + Ord, S: Copy + Ord, P> Pumps<K, S, P> {
    pub(super) fn len(&self) -> usize {
        self.by_stream.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_stream.is_empty()
    }

    /// One more than the highest number in use.
    pub(super) fn end(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &P> {
        self.slots.iter().flatten().map(AsRef::as_ref)
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut P> {
        self.slots.get_mut(index)?.as_deref_mut()
    }

    /// The number of a stream's pump.
    pub(super) fn index_of(&self, session: K, stream: S) -> Option<usize> {
        self.by_stream.get(&(session, Some(stream))).copied()
    }

    /// Puts a pump in that `make` makes of its number; a pump that the stream has had is dropped.
    pub(super) fn insert(&mut self, session: K, stream: S, make: impl FnOnce(usize) -> P) {
        self.remove(session, stream);
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[index] = Some(Box::new(make(index)));
        self.by_stream.insert((session, Some(stream)), index);
    }

    /// Takes the pump of a stream out.
    pub(super) fn remove(&mut self, session: K, stream: S) -> Option<Box<P>> {
        let index = self.by_stream.remove(&(session, Some(stream)))?;
        self.vacant.push(index);
        self.slots.get_mut(index)?.take()
    }

    /// Takes a pump of `session` out, if there is one left.
    pub(super) fn pop_of(&mut self, session: K) -> Option<Box<P>> {
        let (&(of, stream), _) = self.by_stream.range((session, None)..).next()?;
        match stream {
            Some(stream) if of == session => self.remove(session, stream),
            _ => None,
        }
    }

    /// Gives back the places behind the last pump that there is.
    pub(super) fn shrink(&mut self) {
        let used = self.slots.iter().rposition(Option::is_some);
        let end = used.map_or(0, |last| last + 1);
        self.slots.truncate(end);
        self.slots.shrink_to_fit();
        self.vacant.retain(|&index| index < end);
        self.vacant.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::cmp::Ordering;

    thread_local! {
        static COMPARED: Cell<usize> = const { Cell::new(0) };
    }

    /// A session that counts how often it is looked at.
    #[derive(Copy, Clone, PartialEq, Eq, Debug)]
    struct Session(u32);

    impl Ord for Session {
        fn cmp(&self, other: &Self) -> Ordering {
            COMPARED.with(|n| n.set(n.get() + 1));
            self.0.cmp(&other.0)
        }
    }

    impl PartialOrd for Session {
        fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
            Some(self.cmp(other))
        }
    }

    /// Seen in the field: each session that ended cost a look at all streams of the others.
    #[test]
    fn the_end_of_a_session_looks_at_no_others() {
        let work = |idle: u32| {
            let mut pumps = Pumps::default();
            for stream in 0..idle {
                pumps.insert(Session(1 + stream % 7), stream, |_| stream);
            }
            COMPARED.with(|n| n.set(0));
            for n in 0..1000 {
                let session = Session(100 + n);
                assert_eq!(pumps.pop_of(session), None);
                pumps.insert(session, 1, |_| 1);
                assert_eq!(pumps.pop_of(session).as_deref(), Some(&1));
            }
            assert_eq!(pumps.len(), idle as usize);
            COMPARED.with(Cell::get)
        };
        // A search among a thousand times as many takes a few steps more.
        let (few, many) = (work(15), work(15_000));
        assert!(many < 8 * few, "{few} {many}");
    }

    #[test]
    fn a_session_is_taken_out_and_the_others_stay() {
        let mut pumps = Pumps::default();
        for stream in 0..30 {
            pumps.insert(stream % 3, stream, |index| (index, stream));
        }
        for (n, pump) in pumps.iter().enumerate() {
            assert_eq!(pump.0, n, "each knows its number");
        }
        let mut taken = Vec::new();
        while let Some(pump) = pumps.pop_of(1) {
            taken.push(pump.1);
        }
        assert_eq!(taken, (0..30).filter(|n| n % 3 == 1).collect::<Vec<_>>());
        assert_eq!(
            (pumps.len(), pumps.is_empty(), pumps.end()),
            (20, false, 30)
        );
        assert_eq!(pumps.index_of(1, 4), None);
        for stream in (0..30).filter(|n| n % 3 != 1) {
            let index = pumps.index_of(stream % 3, stream).expect("there");
            assert_eq!(pumps.get_mut(index), Some(&mut (index, stream)));
        }
        // Places are used again, and those at the end given back.
        pumps.insert(9, 1, |index| (index, 1));
        assert_eq!(pumps.end(), 30);
        for stream in 9..30 {
            pumps.remove(stream % 3, stream);
        }
        pumps.remove(9, 1);
        pumps.shrink();
        assert_eq!(pumps.end(), 9);
        pumps.insert(9, 2, |index| (index, 2));
        assert!(pumps.end() <= 9);
    }

    #[test]
    fn a_stream_has_one_pump() {
        let mut pumps = Pumps::default();
        pumps.insert(1, 1, |_| "old");
        pumps.insert(1, 1, |_| "new");
        assert_eq!(pumps.iter().collect::<Vec<_>>(), [&"new"]);
        assert_eq!(pumps.remove(1, 1).as_deref(), Some(&"new"));
        assert_eq!(pumps.remove(1, 1), None);
    }
}
