//! Echoes that show where the other side is.
//!
//! An acknowledgement echoes the time of the very transmission that it answers, and the clock of a conversation begins at random
//! ([`crate::Config::clock`]). So an echo of the time of a segment that was sent to one address only comes from somebody who gets what is sent
//! there. Nothing else that an acknowledgement says proves that: numbers can be guessed, or are the same in every conversation.

use fulmar_wire::time::Millis;

/// By how much the time on a question to another address is before that on everything else, in milliseconds: so far (12 days) that nothing else
/// has it, and before, so that receivers do not take it for the latest.
pub(crate) const QUESTIONS_BEFORE: i32 = 1 << 30;

/// Times that are remembered: more than leave until an honest answer is there. Each more makes guessing easier, by 1 in 2^32.
const KEPT: usize = 32;

/// Times, by our clock, on segments that one address was sent and no other.
#[derive(Clone, Debug)]
pub(crate) struct Echoes {
    times: [Millis; KEPT],
    count: usize,
    /// One of them has come back.
    seen: bool,
}

impl Echoes {
    pub(crate) const fn new() -> Self {
        Self {
            times: [Millis(0); KEPT],
            count: 0,
            seen: false,
        }
    }

    /// A segment with this time leaves.
    pub(crate) fn sent(&mut self, ts: Millis) {
        if self.count == 0 || self.times[(self.count - 1) % KEPT] != ts {
            self.times[self.count % KEPT] = ts;
            self.count += 1;
        }
    }

    /// Whether a segment with this time has left.
    pub(crate) fn contains(&self, ts: Millis) -> bool {
        self.times[..self.count.min(KEPT)].contains(&ts)
    }

    /// An acknowledgement has echoed it.
    pub(crate) fn heard(&mut self, ts: Millis) {
        self.seen |= self.contains(ts);
    }

    /// Whether one has come back since this was asked last.
    pub(crate) fn take(&mut self) -> bool {
        std::mem::take(&mut self.seen)
    }
}

/// What is found out about another address that the other side may have moved to.
#[derive(Clone, Debug)]
pub(crate) struct Away {
    /// Times on the questions that went there.
    pub(crate) asked: Echoes,
    /// When the first one left, by our clock.
    pub(crate) since: Millis,
    /// Something that was sent since then, and not there, has come back.
    pub(crate) elsewhere: bool,
}

impl Away {
    /// An acknowledgement has echoed this time.
    pub(crate) fn heard(&mut self, ts: Millis) {
        self.asked.heard(ts);
        self.elsewhere |= ts.diff(self.since) >= 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_sent_counts_and_the_oldest_is_forgotten() {
        let mut echoes = Echoes::new();
        // Before anything was sent, the value of places that are not used shows nothing.
        echoes.heard(Millis(0));
        assert!(!echoes.take());
        for t in 100..100 + KEPT as u32 + 1 {
            echoes.sent(Millis(t));
            echoes.sent(Millis(t));
        }
        for (ts, want) in [
            (99, false),
            (100, false),
            (101, true),
            (132, true),
            (133, false),
        ] {
            echoes.heard(Millis(ts));
            assert_eq!(echoes.take(), want, "{ts}");
        }
        assert!(!echoes.take());
    }
}
