//! What is sent more than once on purpose: copies of segments whose latency is worth more than their bytes.

use std::collections::VecDeque;

use fulmar_wire::seq::Seq;
use fulmar_wire::time::Instant;

/// A segment that goes along with later ones.
#[derive(Copy, Clone, Debug)]
struct Carried {
    sn: Seq,
    /// Copies that are left.
    left: u8,
    /// When the next one leaves in any case, and when the last one did.
    due: Instant,
    sent: Instant,
}

/// Copies that are owed.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    /// Segments whose first copy leaves at the end of the flush in progress.
    now: Vec<Seq>,
    /// Segments whose further copies leave later.
    later: VecDeque<Carried>,
}

/// Segments that wait to go along, at most: more would be a flow that is not sparse.
const MOST: usize = 64;

impl Copies {
    /// `sn` was sent, and is to be sent `copies` more times: once at once, the others by and by.
    pub(crate) fn add(&mut self, now: Instant, sn: Seq, copies: u8, due: Instant) {
        if copies == 0 {
            return;
        }
        self.now.push(sn);
        if copies > 1 && self.later.len() < MOST {
            let left = copies - 1;
            self.later.push_back(Carried {
                sn,
                left,
                due,
                sent: now,
            });
        }
    }

    /// The segments to copy now, and an empty list for the next.
    pub(crate) fn take_now(&mut self) -> Vec<Seq> {
        std::mem::take(&mut self.now)
    }

    /// Gives the list back for its memory.
    pub(crate) fn recycle(&mut self, mut list: Vec<Seq>) {
        list.clear();
        if list.capacity() <= MOST {
            self.now = list;
        }
    }

    pub(crate) fn has_later(&self) -> bool {
        !self.later.is_empty()
    }

    /// When a copy leaves that found no company.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.later.iter().map(|c| c.due).min()
    }

    /// Offers each segment that is owed a copy: those whose time has come, and all with `company`. `alive` says whether it is still
    /// in flight, `write` whether it found a place. What had its last copy, or is no longer in flight, is forgotten.
    pub(crate) fn offer(
        &mut self,
        now: Instant,
        company: bool,
        again: Instant,
        alive: impl Fn(Seq) -> bool,
        mut write: impl FnMut(Seq, bool) -> bool,
    ) {
        self.later.retain_mut(|c| {
            if !alive(c.sn) {
                return false;
            }
            let due = c.due <= now;
            if (due || company) && c.sent < now && write(c.sn, due) {
                c.left -= 1;
                c.due = again;
                c.sent = now;
            }
            c.left > 0
        });
    }

    pub(crate) fn release(&mut self) {
        if self.later.is_empty() {
            self.later = VecDeque::new();
        }
        self.now = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_go_along_or_leave_by_themselves() {
        let at = Instant::from_millis;
        let mut c = Copies::default();
        c.add(at(0), Seq(1), 1, at(20));
        c.add(at(0), Seq(2), 3, at(20));
        assert_eq!(c.take_now(), [Seq(1), Seq(2)]);
        assert_eq!(c.poll_timeout(), Some(at(20)));
        let mut offered = Vec::new();
        c.offer(
            at(5),
            false,
            at(25),
            |_| true,
            |sn, _| {
                offered.push(sn);
                true
            },
        );
        assert!(offered.is_empty());
        // With company, but without a place in the datagram.
        c.offer(at(5), true, at(25), |_| true, |_, due| due);
        assert_eq!(c.poll_timeout(), Some(at(20)));
        c.offer(at(6), true, at(26), |_| true, |_, _| true);
        assert_eq!(c.poll_timeout(), Some(at(26)));
        c.offer(at(26), false, at(46), |_| true, |_, _| true);
        assert_eq!(c.poll_timeout(), None);
        c.add(at(30), Seq(3), 2, at(50));
        // Not in the flush that sends it.
        c.offer(at(30), true, at(50), |_| true, |_, _| true);
        assert!(c.has_later());
        c.offer(at(31), false, at(50), |_| false, |_, _| true);
        assert!(!c.has_later());
    }
}
