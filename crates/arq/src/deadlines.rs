//! When segments have to be sent again.
//!
//! All segments that leave in one flush for the same reason share one deadline, so what is ordered here is not
//! segments but *batches*: a deadline and a range of segment numbers. A batch is never updated when a segment of it is
//! acknowledged or gets another deadline; that segment is merely skipped when the batch comes to the top. Each
//! transmission is therefore looked at once more at most, and a flush adds one entry per run of neighbours.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use fulmar_wire::seq::Seq;

/// Batches that are always tolerated before dead ones are swept out.
const SLACK: usize = 64;

#[derive(Copy, Clone, Debug)]
struct Batch {
    /// Milliseconds since the caller's epoch.
    at: u64,
    start: Seq,
    end: Seq,
}

impl PartialEq for Batch {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Batch {}

impl PartialOrd for Batch {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Batch {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // Among equals the lower number first, which is merely tidy and need not hold across the wrap.
        (self.at, self.start.0).cmp(&(other.at, other.start.0))
    }
}

/// See the module. Which segments are still waiting is the caller's knowledge: `alive(sn, at)` says whether segment
/// `sn` is in flight, unacknowledged, and due at `at`.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    heap: BinaryHeap<Reverse<Batch>>,
    /// The batch that is being collected by the flush in progress.
    open: Option<Batch>,
}

impl Deadlines {
    /// Segment `sn` is due at `at`.
    #[inline]
    pub(crate) fn set(&mut self, sn: Seq, at: u64) {
        match &mut self.open {
            Some(b) if b.at == at && b.end == sn => b.end = sn.next(),
            _ => {
                self.close();
                self.open = Some(Batch {
                    at,
                    start: sn,
                    end: sn.next(),
                });
            }
        }
    }

    /// Ends a series of [`Self::set`].
    #[inline]
    pub(crate) fn close(&mut self) {
        if let Some(b) = self.open.take() {
            self.heap.push(Reverse(b));
        }
    }

    /// The earliest deadline of any segment from `una` on.
    #[inline]
    pub(crate) fn next(&mut self, una: Seq, alive: impl Fn(Seq, u64) -> bool) -> Option<u64> {
        loop {
            let mut top = self.heap.peek_mut()?;
            let Batch { at, start, end } = top.0;
            let mut sn = if start.before(una) { una } else { start };
            while sn.before(end) && !alive(sn, at) {
                sn = sn.next();
            }
            if sn.before(end) {
                if sn != start {
                    top.0.start = sn;
                }
                return Some(at);
            }
            PeekMut::pop(top);
        }
    }

    /// Reports living segments that are due at `now`, at most `limit`, and takes out what has been reported.
    #[inline]
    pub(crate) fn expire(
        &mut self,
        now: u64,
        una: Seq,
        mut limit: usize,
        alive: impl Fn(Seq, u64) -> bool,
        mut expired: impl FnMut(Seq),
    ) {
        while let Some(mut top) = self.heap.peek_mut() {
            let Batch { at, start, end } = top.0;
            if at > now {
                break;
            }
            let mut sn = if start.before(una) { una } else { start };
            while sn.before(end) {
                if alive(sn, at) {
                    if limit == 0 {
                        top.0.start = sn;
                        return;
                    }
                    limit -= 1;
                    expired(sn);
                }
                sn = sn.next();
            }
            PeekMut::pop(top);
        }
    }

    /// Sweeps when dead batches outnumber `in_flight` segments.
    pub(crate) fn tidy(&mut self, in_flight: usize, una: Seq, alive: impl Fn(Seq, u64) -> bool) {
        if self.heap.len() <= 2 * in_flight + SLACK {
            return;
        }
        self.heap.retain(|Reverse(b)| {
            let mut sn = if b.start.before(una) { una } else { b.start };
            while sn.before(b.end) {
                if alive(sn, b.at) {
                    return true;
                }
                sn = sn.next();
            }
            false
        });
    }

    /// Forgets everything: nothing is in flight.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.heap.clear();
        self.open = None;
    }

    /// Gives memory back.
    pub(crate) fn release(&mut self) {
        self.heap.shrink_to(0);
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn neighbours_share_a_batch() {
        let mut d = Deadlines::default();
        for i in 0..1000 {
            d.set(Seq(u32::MAX - 500).plus(i), 10);
        }
        d.set(Seq(7777), 10);
        d.close();
        assert_eq!(d.len(), 2);
    }

    #[test]
    fn skips_the_dead_and_reports_the_living() {
        let mut d = Deadlines::default();
        let una = Seq(u32::MAX - 3);
        let mut due: HashMap<u32, u64> = HashMap::new();
        for i in 0..10 {
            let sn = una.plus(i);
            let at = 100 + u64::from(i / 4);
            d.set(sn, at);
            due.insert(sn.0, at);
        }
        d.close();
        due.remove(&una.0);
        due.insert(una.plus(1).0, 500);
        d.set(una.plus(1), 500);
        d.close();
        let alive = |due: &HashMap<u32, u64>, sn: Seq, at| due.get(&sn.0) == Some(&at);
        assert_eq!(d.next(una, |s, t| alive(&due, s, t)), Some(100));
        let mut got = Vec::new();
        d.expire(
            101,
            una,
            usize::MAX,
            |s, t| alive(&due, s, t),
            |s| got.push(s.diff(una)),
        );
        got.sort_unstable();
        assert_eq!(got, [2, 3, 4, 5, 6, 7]);
        assert_eq!(d.next(una.plus(9), |s, t| alive(&due, s, t)), Some(102));
        due.remove(&una.plus(9).0);
        due.remove(&una.plus(8).0);
        assert_eq!(d.next(una, |s, t| alive(&due, s, t)), Some(500));
        due.clear();
        assert_eq!(d.next(una, |s, t| alive(&due, s, t)), None);
    }

    #[test]
    fn what_is_beyond_the_limit_stays() {
        let mut d = Deadlines::default();
        for i in 0..10 {
            d.set(Seq(i), 100 + u64::from(i / 5));
        }
        d.close();
        let mut got = Vec::new();
        for limit in [3, 0, 4, 99] {
            d.expire(101, Seq(0), limit, |_, _| true, |s| got.push(s.0));
        }
        assert_eq!(got, (0..10).collect::<Vec<_>>());
        assert_eq!(d.len(), 0);
    }

    #[test]
    fn dead_batches_do_not_pile_up() {
        let mut d = Deadlines::default();
        for i in 0..100_000u32 {
            // One segment in flight at a time, each with a far deadline.
            let una = Seq(i);
            d.set(una, 1_000_000 + u64::from(i));
            d.close();
            d.tidy(1, una, |sn, _| sn == una);
            assert!(d.len() <= 2 + SLACK);
        }
    }
}
