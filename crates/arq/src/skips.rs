//! How often segments that were sent once have been skipped, without a count in each (see `send.rs`).

use fulmar_wire::seq::Seq;

/// Fast-ack counts of the segments that were sent once: `below[k]` is the first segment that was skipped at most `k` times.
///
/// An acknowledgement of `sn` adds 1 to all segments before `sn`; so the places where the count falls are in descending
/// order, and each is moved up to the place of the next lower count, or to `sn`.
#[derive(Debug)]
pub(crate) struct Skips {
    /// Upstream's `resend`; what goes beyond (or beyond 1, when it is 0) is not counted.
    pub(crate) threshold: u32,
    below: Vec<Seq>,
}

impl Skips {
    pub(crate) fn new(threshold: u32, una: Seq) -> Self {
        Self {
            threshold,
            below: vec![una; threshold.clamp(1, 255) as usize],
        }
    }

    /// Counts an acknowledgement of `sn`.
    #[inline]
    pub(crate) fn add(&mut self, sn: Seq) {
        for k in (0..self.below.len()).rev() {
            let limit = match k {
                0 => sn,
                _ if self.below[k - 1].before(sn) => self.below[k - 1],
                _ => sn,
            };
            if self.below[k].before(limit) {
                self.below[k] = limit;
            }
        }
    }

    /// The count of `sn`, up to the threshold.
    #[inline]
    pub(crate) fn of(&self, sn: Seq) -> u32 {
        // Counts fall along the places, so the first that does not cover `sn` ends the search.
        self.below.iter().take_while(|b| sn.before(**b)).count() as u32
    }

    /// Whether `sn`, which the last acknowledgement covered, is at the threshold.
    #[inline]
    pub(crate) fn reached(&self, sn: Seq) -> bool {
        self.threshold == 0 || self.below.last().is_some_and(|b| sn.before(*b))
    }

    /// Keeps the places from falling behind by half of the number space.
    #[inline]
    pub(crate) fn forget_before(&mut self, una: Seq) {
        for b in &mut self.below {
            if b.before(una) {
                *b = una;
            }
        }
    }
}
