//! Proof that the other side has forgotten the conversation.
//!
//! The other side's `una` reached U, and after we had heard that, at time A, we sent something. Whoever receives it and
//! still knows the conversation acknowledges with a `una` of at least U, whatever the network delays, repeats or swaps:
//! an acknowledgement echoes the time of the very transmission that it answers, and `una` never falls. So an acknowledgement that
//! echoes a time after A, with a `una` outside of `U..=` what was ever sent, comes from someone who started anew.

use fulmar_wire::seq::Seq;
use fulmar_wire::time::{Instant, Millis};

/// Datagrams with such an acknowledgement that it takes, so that one that is damaged and passes its checksum is not enough.
const ENOUGH: u8 = 2;

#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Restart {
    /// U and A.
    reached: Option<(Seq, Instant)>,
    seen: u8,
}

impl Restart {
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
        let mut r = Restart::default();
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
        let mut r = Restart::default();
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
    fn one_is_not_enough() {
        let mut r = Restart::default();
        r.record();
        assert!(!r.is_proven());
        r.record();
        assert!(r.is_proven());
    }
}
