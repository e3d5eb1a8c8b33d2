//! Telling a Fulmar peer that a conversation has ended here, when it still uses it (docs/design/liveness.md).
//!
//! The format of kcptun has no word for the end of a session. An end that was asleep for longer than the other one waits would send into
//! a conversation that nobody has, until its own patience ends. Two Fulmar ends therefore give each other a token when the session
//! begins. Who has ended the session remembers the peer's token, and answers data that is newer than all that it had heard with it.
//! A recording of what was heard is not newer, so nobody else gets an answer; and nobody else knows a token that would be believed.

use core::time::Duration;
use std::collections::{HashMap, VecDeque};

use fulmar_wire::time::{Instant, Millis};

/// Conversations that are remembered; the oldest are forgotten first (about 60 bytes each).
const REMEMBERED: usize = 16_384;
/// Shortest time between two answers in one conversation.
const ANSWER_EVERY: Duration = Duration::from_secs(1);

/// A conversation that has ended here.
#[derive(Debug)]
struct Ended {
    token: u64,
    /// The latest time on data of the peer, by its clock.
    newest: Millis,
    answered: Option<Instant>,
}

/// Conversations that have ended here and whose peers believe a token.
#[derive(Debug, Default)]
pub(crate) struct EndedConversations {
    by_conv: HashMap<u32, Ended>,
    order: VecDeque<u32>,
}

impl EndedConversations {
    /// The session of `conv` has ended. Its peer believes `token`; `newest` is the latest time on its data.
    pub(crate) fn insert(&mut self, conv: u32, token: u64, newest: Millis) {
        let ended = Ended {
            token,
            newest,
            answered: None,
        };
        if self.by_conv.insert(conv, ended).is_none() {
            self.order.push_back(conv);
            if self.order.len() > REMEMBERED
                && let Some(oldest) = self.order.pop_front()
            {
                self.by_conv.remove(&oldest);
            }
        }
    }

    /// Whether `conv` is one of them.
    pub(crate) fn contains(&self, conv: u32) -> bool {
        self.by_conv.contains_key(&conv)
    }

    /// Data of `conv` has arrived that left at `sent` by its sender's clock. The token to answer with, if it is to be answered.
    pub(crate) fn answer(&mut self, now: Instant, conv: u32, sent: Millis) -> Option<u64> {
        let ended = self.by_conv.get_mut(&conv)?;
        if sent.diff(ended.newest) <= 0 {
            return None;
        }
        // Answered or not, a recording of it gets nothing.
        ended.newest = sent;
        if ended
            .answered
            .is_some_and(|at| now.since(at) < ANSWER_EVERY)
        {
            return None;
        }
        ended.answered = Some(now);
        Some(ended.token)
    }

    /// Gives back memory that a burst took.
    pub(crate) fn shrink(&mut self) {
        self.by_conv.shrink_to_fit();
        self.order.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    #[test]
    fn only_what_is_newer_is_answered_and_once_a_second() {
        let mut ended = EndedConversations::default();
        ended.insert(7, 99, Millis(1000));
        assert!(ended.contains(7) && !ended.contains(8));
        for (now, conv, sent, answer) in [
            (5000, 8, 2000, None),
            (5000, 7, 1000, None),
            (5000, 7, 400, None),
            (5000, 7, 1001, Some(99)),
            // The same again; something newer, too soon; that again, later.
            (7000, 7, 1001, None),
            (7000, 7, 1002, Some(99)),
            (7999, 7, 1900, None),
            (9000, 7, 1900, None),
            (9000, 7, 1901, Some(99)),
            // Half a period of the clock back is not forward.
            (12_000, 7, 1901 + (1 << 31), None),
        ] {
            let got = ended.answer(at(now), conv, Millis(sent));
            assert_eq!(got, answer, "at {now}: {conv}, {sent}");
        }
        // The clock of the wire wraps.
        ended.insert(9, 1, Millis(u32::MAX));
        assert_eq!(ended.answer(at(0), 9, Millis(3)), Some(1));
    }

    #[test]
    fn bounded() {
        let mut ended = EndedConversations::default();
        for conv in 0..2 * REMEMBERED as u32 {
            ended.insert(conv, 1, Millis(0));
            ended.insert(conv, 2, Millis(0));
        }
        let kept = (ended.by_conv.len(), ended.order.len());
        assert_eq!(kept, (REMEMBERED, REMEMBERED));
        assert!(!ended.contains(REMEMBERED as u32 - 1) && ended.contains(REMEMBERED as u32));
    }
}
