//! The newest groups of a stream of shards: what arrived of each, and what follows from it.
//!
//! A group is a number, a shard in it a position; how packets name them, and which shapes there are, is their
//! user's business (`decoder`). Memory: at most [`HELD`] groups of fewer than `data` shards each plus one shard,
//! whatever numbers arrive; shards live in one pool that grows to what was needed and is reused.

use fulmar_gf256::{Code, Kernel, Rebuild, Rows, RowsMut};
use fulmar_wire::seq::Seq;

use crate::decoder::Late;
use crate::shape::Shape;

/// Groups held: the newest and the three behind it (docs/spec/kcptun.md, section 6.4, step 7).
pub(crate) const HELD: usize = 4;
/// How many groups behind the newest the oldest may be.
const BEHIND: u32 = 3;

/// Shards are kept at multiples of this, in bytes: a cache line, and the longest vector of any kernel.
const ALIGN: usize = 64;

/// What became of a shard.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Stored {
    /// Kept; the group is not complete.
    Kept,
    /// It is there already.
    Duplicate,
    /// Its group is finished and does not take more.
    Late,
    /// With it all data of the group has arrived.
    Complete,
    /// With it this many lost shards were rebuilt and handed over.
    Rebuilt(usize),
    /// The group had enough shards and yet could not be rebuilt.
    Failed,
}

/// The newest groups.
#[derive(Debug)]
pub(crate) struct Groups {
    shape: Shape,
    late: Late,
    code: Code,
    rebuild: Rebuild,
    /// One more than are held: a shard is stored before the group that it pushes out is dropped.
    slots: [Slot; HELD + 1],
    newest: u32,
    /// Shards in succession whose group is too old to be held.
    stale: usize,
    pool: Pool,
    /// Positions and places of the shards of the group being rebuilt.
    have: Vec<u8>,
    starts: Vec<usize>,
    /// Rebuilt shards, while they are handed over.
    rebuilt: Vec<u8>,
}

impl Groups {
    pub(crate) fn new(shape: Shape, late: Late, kernel: Kernel) -> Self {
        // Before a shard is stored, each held group lacks at least one.
        let rows = HELD * (shape.data() - 1) + 1;
        Self {
            shape,
            late,
            code: shape.code(),
            rebuild: Rebuild::new(kernel),
            slots: Default::default(),
            newest: 0,
            stale: 0,
            pool: Pool::new(rows, shape.data()),
            have: Vec::new(),
            starts: Vec::new(),
            rebuilt: Vec::new(),
        }
    }

    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    /// The newest group's number, 0 at first.
    pub(crate) fn newest(&self) -> u32 {
        self.newest
    }

    /// Groups held, finished ones included.
    pub(crate) fn held(&self) -> usize {
        self.slots.iter().filter(|s| s.used).count()
    }

    /// Bytes of shard storage, for the bound on memory.
    #[cfg(test)]
    pub(crate) fn storage(&self) -> usize {
        self.pool.bytes.len()
    }

    /// Drops all groups.
    pub(crate) fn forget(&mut self) {
        for slot in &mut self.slots {
            slot.free(&mut self.pool);
        }
    }

    /// Says what `newest` is.
    pub(crate) fn set_newest(&mut self, group: u32) {
        self.newest = group;
    }

    /// Stores one shard (steps 5 to 7). When its group then holds enough, the lost data shards go to `rebuilt` in
    /// the order of their positions, each as long as the longest shard of the group.
    ///
    /// `position` must be below the shape's total. Call [`Self::advance`] after it, unless it is a duplicate.
    pub(crate) fn store(
        &mut self,
        group: u32,
        position: u8,
        shard: &[u8],
        rebuilt: &mut dyn FnMut(&[u8]),
    ) -> Stored {
        let Some(slot) = slot_of(&mut self.slots, group) else {
            return Stored::Failed;
        };
        if !slot.seen.insert(position) {
            return Stored::Duplicate;
        }
        if slot.finished {
            return Stored::Late;
        }
        let is_data = usize::from(position) < self.shape.data();
        slot.data += usize::from(is_data);
        slot.longest = slot.longest.max(shard.len());
        slot.shards.push(Shard {
            position,
            row: self.pool.put(shard),
            len: shard.len(),
        });
        if slot.shards.len() < self.shape.data() {
            return Stored::Kept;
        }
        let longest = slot.longest;
        let stored = if slot.data == self.shape.data() {
            Stored::Complete
        } else {
            self.have.clear();
            self.starts.clear();
            for shard in &slot.shards {
                self.have.push(shard.position);
                self.starts.push(self.pool.start(shard.row));
                self.pool.pad(shard, longest);
            }
            match self.rebuild.prepare(&self.code, &self.have) {
                Ok(()) => Stored::Rebuilt(self.rebuild.missing().len()),
                Err(_) => Stored::Failed,
            }
        };
        slot.empty(&mut self.pool);
        match self.late {
            Late::Ignore => slot.finished = true,
            Late::Reopen => slot.seen = Positions::default(),
        }
        if let Stored::Rebuilt(count) = stored {
            self.hand_over(count, longest, rebuilt);
        }
        stored
    }

    /// Rebuilds what [`Self::store`] prepared. The pool still holds the shards, though they count as free.
    fn hand_over(&mut self, count: usize, len: usize, rebuilt: &mut dyn FnMut(&[u8])) {
        let stride = len.max(1).next_multiple_of(ALIGN);
        if self.rebuilt.len() < count * stride {
            self.rebuilt.resize(count * stride, 0);
        }
        let sources = Rows {
            bytes: &self.pool.bytes,
            starts: &self.starts,
        };
        let sinks = RowsMut {
            bytes: &mut self.rebuilt,
            first: 0,
            stride,
        };
        self.rebuild.apply(sources, sinks, len);
        for shard in self.rebuilt.chunks_exact(stride).take(count) {
            rebuilt(&shard[..len]);
        }
    }

    /// Moves on to `group` if that is newer, and drops what is then too old (steps 8 and 9).
    ///
    /// A sender that starts again from a lower number, or one whose number was forged upwards, would never be
    /// helped again: after more shards in succession than a group has that are all too old, theirs is the newest.
    pub(crate) fn advance(&mut self, group: u32) {
        if group == self.newest {
            // Nearly always; what is too old was dropped when it became the newest.
            self.stale = 0;
            return;
        }
        let step = self.shape.step();
        let oldest = i64::from(BEHIND) * i64::from(step);
        let behind =
            |newest: u32, group: u32| i64::from(seqid(newest, step).diff(seqid(group, step)));

        let age = behind(self.newest, group);
        self.stale = if age > oldest { self.stale + 1 } else { 0 };
        if age < 0 || self.stale > self.shape.total() {
            self.newest = group;
            self.stale = 0;
        }
        for slot in &mut self.slots {
            if slot.used && !(0..=oldest).contains(&behind(self.newest, slot.group)) {
                slot.free(&mut self.pool);
            }
        }
    }
}

/// The sequence number at which `group` begins.
fn seqid(group: u32, step: u32) -> Seq {
    Seq(group.wrapping_mul(step))
}

/// The slot of `group`, or an unused one made its slot.
fn slot_of(slots: &mut [Slot], group: u32) -> Option<&mut Slot> {
    let held = slots.iter().position(|s| s.used && s.group == group);
    let at = held.or_else(|| slots.iter().position(|s| !s.used))?;
    let slot = &mut slots[at];
    slot.used = true;
    slot.group = group;
    Some(slot)
}

/// What is there of one group.
#[derive(Debug, Default)]
struct Slot {
    used: bool,
    group: u32,
    /// Complete once, and closed to more.
    finished: bool,
    seen: Positions,
    /// In the order of arrival.
    shards: Vec<Shard>,
    /// How many of them are data.
    data: usize,
    /// The length of the longest.
    longest: usize,
}

impl Slot {
    /// Gives the shards back.
    fn empty(&mut self, pool: &mut Pool) {
        pool.free.extend(self.shards.drain(..).map(|s| s.row));
        self.data = 0;
        self.longest = 0;
    }

    /// Becomes unused.
    fn free(&mut self, pool: &mut Pool) {
        self.empty(pool);
        self.used = false;
        self.finished = false;
        self.seen = Positions::default();
    }
}

#[derive(Copy, Clone, Debug)]
struct Shard {
    position: u8,
    /// Its row of the pool.
    row: usize,
    len: usize,
}

/// Equal rows of bytes in one buffer.
#[derive(Debug)]
struct Pool {
    bytes: Vec<u8>,
    /// Where row 0 begins.
    first: usize,
    /// From row to row, in bytes.
    stride: usize,
    rows: usize,
    /// Never more than this many rows.
    most: usize,
    /// As many rows are added at a time.
    batch: usize,
    /// Rows not in use; the last used is taken first, as it is the likeliest to be in the cache.
    free: Vec<usize>,
}

impl Pool {
    fn new(most: usize, batch: usize) -> Self {
        Self {
            bytes: Vec::new(),
            first: 0,
            stride: 0,
            rows: 0,
            most,
            batch,
            free: Vec::new(),
        }
    }

    /// Stores `shard` in a row of its own.
    fn put(&mut self, shard: &[u8]) -> usize {
        if shard.len() > self.stride || self.free.is_empty() {
            self.grow(shard.len());
        }
        let row = self.free.pop().unwrap_or_default();
        let start = self.start(row);
        self.bytes[start..start + shard.len()].copy_from_slice(shard);
        row
    }

    /// Where `row` begins.
    fn start(&self, row: usize) -> usize {
        self.first + row * self.stride
    }

    /// Fills the row of `shard` with zeros up to `len` bytes.
    fn pad(&mut self, shard: &Shard, len: usize) {
        let start = self.start(shard.row);
        self.bytes[start + shard.len..start + len].fill(0);
    }

    /// Makes rows at least `len` bytes wide, and more of them if none is free.
    fn grow(&mut self, len: usize) {
        let rows = if self.free.is_empty() {
            (self.rows + self.batch).min(self.most)
        } else {
            self.rows
        };
        let stride = self.stride.max(len.next_multiple_of(ALIGN));
        let bytes = vec![0; rows * stride + ALIGN];
        let first = bytes.as_ptr().align_offset(ALIGN) % ALIGN;
        let old = core::mem::replace(&mut self.bytes, bytes);
        for row in 0..self.rows {
            let from = self.first + row * self.stride;
            let to = first + row * stride;
            self.bytes[to..to + self.stride].copy_from_slice(&old[from..from + self.stride]);
        }
        self.free.extend((self.rows..rows).rev());
        (self.first, self.stride, self.rows) = (first, stride, rows);
    }
}

/// A set of positions.
#[derive(Copy, Clone, Default, Debug)]
struct Positions([u64; 4]);

impl Positions {
    /// Adds `p`; false when it was there.
    fn insert(&mut self, p: u8) -> bool {
        let (word, bit) = (&mut self.0[usize::from(p >> 6)], 1 << (p & 63));
        let added = *word & bit == 0;
        *word |= bit;
        added
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn groups(data: usize, parity: usize) -> Groups {
        let shape = Shape::new(data, parity).expect("a shape");
        Groups::new(shape, Late::Ignore, Kernel::best())
    }

    fn store(groups: &mut Groups, group: u32, position: u8) -> Stored {
        let stored = groups.store(group, position, &[0; 40], &mut |_| {});
        groups.advance(group);
        stored
    }

    #[test]
    fn a_sender_that_starts_again_is_helped_again() {
        let mut groups = groups(2, 1);
        store(&mut groups, 1000, 0);
        assert_eq!(groups.newest(), 1000);
        // A few late shards are just late.
        for group in 0..3 {
            store(&mut groups, group, 0);
        }
        assert_eq!((groups.newest(), groups.held()), (1000, 1));
        store(&mut groups, 1001, 0);
        for group in 0..4 {
            store(&mut groups, group, 0);
        }
        assert_eq!((groups.newest(), groups.held()), (3, 1));
        assert_eq!(store(&mut groups, 3, 2), Stored::Rebuilt(1));
    }

    #[test]
    fn a_finished_group_stays_finished() {
        let mut groups = groups(1, 2);
        assert_eq!(store(&mut groups, 0, 1), Stored::Rebuilt(1));
        assert_eq!(store(&mut groups, 0, 1), Stored::Duplicate);
        assert_eq!(store(&mut groups, 0, 0), Stored::Late);
        assert_eq!(store(&mut groups, 0, 0), Stored::Duplicate);
        assert_eq!(store(&mut groups, 0, 2), Stored::Late);
        assert_eq!(groups.held(), 1);
    }

    #[test]
    fn no_memory_is_taken_for_what_is_not_lost() {
        let mut groups = groups(10, 3);
        for group in 0..100 {
            for position in 0..13 {
                groups.store(group, position, &[0; 1344], &mut |_| {});
                groups.advance(group);
            }
        }
        assert_eq!(groups.storage(), 10 * 1344 + ALIGN);
    }

    #[test]
    fn buffers_are_reused() {
        let mut groups = groups(10, 3);
        let run = |groups: &mut Groups, numbers: core::ops::Range<u32>| {
            for group in numbers {
                // Always three lost, always different ones.
                for position in (0..13).filter(|p| (group + p) % 4 != 0) {
                    let position = u8::try_from(position).expect("small");
                    groups.store(group, position, &[0; 1344], &mut |_| {});
                    groups.advance(group);
                }
            }
            let slots = groups.slots.iter().map(|s| s.shards.capacity());
            let scratch = [
                groups.pool.bytes.as_ptr() as usize,
                groups.pool.free.as_ptr() as usize,
                groups.have.as_ptr() as usize,
                groups.starts.as_ptr() as usize,
                groups.rebuilt.as_ptr() as usize,
            ];
            slots.chain(scratch).collect::<Vec<_>>()
        };
        let warm = run(&mut groups, 0..50);
        assert_eq!(run(&mut groups, 50..500), warm);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever numbers come, no more is held than the bound says, and the pool neither leaks nor mixes rows.
        #[test]
        fn memory_is_bounded(
            data in 1usize..5, parity in 1usize..5, reopen: bool,
            shards in prop::collection::vec((0u32..12, any::<u8>(), 0usize..100, 0u8..8), 0..400),
        ) {
            let shape = Shape::new(data, parity).expect("a shape");
            let late = if reopen { Late::Reopen } else { Late::Ignore };
            let mut groups = Groups::new(shape, late, Kernel::best());
            for (group, position, len, far) in shards {
                // Mostly neighbours, sometimes numbers from anywhere.
                let last = shape.wrap() / shape.step() - 1;
                let group = match far {
                    0 => last - group,
                    1 => last / 2 + group,
                    _ => group,
                };
                let position = position % u8::try_from(shape.total()).expect("small");
                let shard = vec![position; len];
                groups.store(group, position, &shard, &mut |rebuilt| assert!(rebuilt.len() < 100));
                groups.advance(group);
                prop_assert!(groups.held() <= HELD);
                prop_assert!(groups.pool.rows <= HELD * (data - 1) + 1);
                prop_assert!(groups.storage() <= (HELD * data) * 128 + ALIGN);
                let mut rows: Vec<usize> = groups.pool.free.clone();
                rows.extend(groups.slots.iter().flat_map(|s| s.shards.iter().map(|s| s.row)));
                rows.sort_unstable();
                prop_assert_eq!(rows, (0..groups.pool.rows).collect::<Vec<_>>());
                for slot in &groups.slots {
                    prop_assert!(slot.shards.len() < data);
                    for shard in &slot.shards {
                        let start = groups.pool.start(shard.row);
                        let bytes = &groups.pool.bytes[start..start + shard.len];
                        prop_assert!(bytes.iter().all(|&b| b == shard.position));
                    }
                }
            }
        }
    }
}
