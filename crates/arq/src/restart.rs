//! Proof that the other side has forgotten the conversation.
//!
//! The other side's `una` reached U, and after we had heard that, at time A, we sent something. Whoever receives it and
//! still knows the conversation acknowledges with a `una` of at least U, whatever the network delays, repeats or swaps:
//! an acknowledgement echoes the time of the very transmission that it answers, and `una` never falls. So an acknowledgement that
//! echoes a time after A, with a `una` outside of `U..=` what was ever sent, comes from someone who started anew.
//!
//! # Asking for it
//!
//! Someone who started anew acknowledges only what lies within its window, and that begins at the first number again. So
//! the question whether the other side remembers us is a transmission of the *second* segment of the conversation once that is
//! long acknowledged: who remembers acknowledges it as a repetition, without looking at its data; who does not keeps it
//! behind a gap that never fills, and says so.

use fulmar_wire::seq::Seq;
use fulmar_wire::time::{Instant, Millis};

/// Datagrams with such an acknowledgement that it takes, so that one that is damaged and passes its checksum is not enough.
const ENOUGH: u8 = 2;

#[derive(Copy, Clone, Debug)]
pub(crate) struct Restart {
    /// The first segment of the conversation.
    first: Seq,
    /// U and A.
    reached: Option<(Seq, Instant)>,
    seen: u8,
    /// Something was heard that speaks for it, and the caller has not been told.
    doubt: bool,
}

impl Restart {
    /// A conversation whose first segment has this number.
    pub(crate) const fn new(first: Seq) -> Self {
        Self {
            first,
            reached: None,
            seen: 0,
            doubt: false,
        }
    }

    /// The first segment of the conversation.
    pub(crate) const fn first(&self) -> Seq {
        self.first
    }

    /// Whether it is the first segment of the conversation.
    #[inline]
    pub(crate) fn is_first(&self, sn: Seq) -> bool {
        sn == self.first
    }

    /// Whether someone who says `una` knows all that was known before.
    #[inline]
    pub(crate) fn remembers(&self, una: Seq) -> bool {
        self.reached.is_none_or(|(reached, _)| !una.before(reached))
    }

    /// The segment to ask with, when everything before `una` has been acknowledged; `None` when that is too little.
    pub(crate) fn old_segment(&self, una: Seq) -> Option<Seq> {
        let second = self.first.next();
        if second.before(una) {
            Some(second)
        } else {
            // So much was sent that numbers have come half around.
            (una.0.wrapping_sub(self.first.0) > 1).then(|| una.plus(u32::MAX))
        }
    }

    /// An acknowledged segment to ask with who is where: who remembers the conversation acknowledges it as a repetition.
    pub(crate) fn question(&self, una: Seq) -> Option<Seq> {
        self.old_segment(una)
            .or_else(|| self.first.before(una).then_some(self.first))
    }

    /// Everything before `una` has been acknowledged.
    #[inline]
    pub(crate) fn advanced(&mut self, una: Seq, now: Instant) {
        self.reached = Some((una, now));
    }

    /// Whether an acknowledgement that echoes `ts` and carries `una` proves it. `unsent` was never sent.
    #[inline]
    pub(crate) fn proves(&self, una: Seq, ts: Millis, unsent: Seq, now: Instant) -> bool {
        let Some((reached, at)) = self.reached else {
            return false;
        };
        if !una.before(reached) && !unsent.before(una) {
            return false;
        }
        // The echo is on a clock that wraps every 49.7 days: unfold it backwards from now.
        let age = now.wire_millis().0.wrapping_sub(ts.0);
        now.as_millis()
            .checked_sub(u64::from(age))
            .is_some_and(|sent| sent > at.as_millis())
    }

    /// A datagram held such an acknowledgement.
    pub(crate) fn record(&mut self) {
        self.seen = self.seen.saturating_add(1);
        self.doubt = true;
    }

    /// Something that names an earlier `una` was heard: it is late, or comes from someone who started anew.
    pub(crate) fn doubt(&mut self) {
        self.doubt = true;
    }

    /// Whether there is a doubt that the caller has not been told of; told once.
    pub(crate) fn take_doubt(&mut self) -> bool {
        std::mem::take(&mut self.doubt) && !self.is_proven()
    }

    pub(crate) const fn is_proven(&self) -> bool {
        self.seen >= ENOUGH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    #[test]
    fn only_what_was_sent_after_the_advance_counts() {
        let mut r = Restart::new(Seq(0));
        assert!(!r.proves(Seq(0), Millis(5), Seq(3), at(9)));
        r.advanced(Seq(10), at(1000));
        for (una, sent, want) in [
            (9, 1001, true),
            (0, 1500, true),
            (21, 1500, true),
            (9, 1000, false),
            (9, 400, false),
            (10, 1500, false),
            (20, 1500, false),
        ] {
            assert_eq!(
                r.proves(Seq(una), Millis(sent), Seq(20), at(2000)),
                want,
                "una {una} sent {sent}"
            );
        }
    }

    #[test]
    fn holds_across_a_long_silence_and_the_wrap_of_the_clock() {
        let mut r = Restart::new(Seq(0));
        let start = (1 << 32) - 5;
        r.advanced(Seq(10), at(start));
        // 30 days later: more than half of the clock's period.
        let now = start + 30 * 24 * HOUR;
        let sent = at(now - 40).wire_millis();
        assert!(r.proves(Seq(0), sent, Seq(12), at(now)));
        let old = at(start - 1).wire_millis();
        assert!(!r.proves(Seq(0), old, Seq(12), at(start + 100)));
    }

    #[test]
    fn what_to_ask_with() {
        let ask =
            |first: u32, una: u32| Restart::new(Seq(first)).old_segment(Seq(una)).map(|s| s.0);
        assert_eq!((ask(0, 0), ask(0, 1)), (None, None));
        assert_eq!((ask(0, 2), ask(0, 70_000)), (Some(1), Some(1)));
        assert_eq!(ask(u32::MAX, 2), Some(0));
        assert_eq!(ask(0, 3 << 30), Some((3 << 30) - 1));
    }

    #[test]
    fn one_is_not_enough() {
        let mut r = Restart::new(Seq(0));
        r.record();
        assert!(!r.is_proven());
        r.record();
        assert!(r.is_proven());
    }
}
