//! Whether the other end of a client can be reached, as far as questions and answers tell.
//!
//! A question is anything that a server answers: the beginning of a session, a retransmission, a probe, a ping. A proof is
//! anything of the server that opens with the key. This machine counts the one and remembers the other; what follows from
//! it, apart from words in the log, is said with each function. It does no I/O and reads no clock.
//!
//! ```text
//!             asked                  ASKS questions over DOWN_AFTER, no proof
//!   quiet ────────────▶ contacting ─────────────────────────────────────────▶ down
//!     ▲                     │                                                  │
//!     └────────────────────────────────── proof ───────────────────────────────┘
//! ```

use core::time::Duration;

use fulmar_wire::time::Instant;

/// Questions without any answer that make a server *down*, if they were asked over [`DOWN_AFTER`].
pub const ASKS: u32 = 3;
/// See [`ASKS`].
pub const DOWN_AFTER: Duration = Duration::from_secs(6);
/// How long a connection waits for a server that is down.
pub const GIVE_UP: Duration = Duration::from_secs(5);
/// How old a proof may be when somebody wants to know whether the server lives.
pub const FRESH: Duration = Duration::from_secs(30);
/// Time between two questions that are asked only because somebody wants to know: at first, and at most while none is
/// answered.
const ASK_EVERY: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));

/// What has changed.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// The server is down: nothing has come back for long enough.
    Down,
    /// It has answered after it was down.
    Up,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Reachability {
    proof: Option<Instant>,
    /// The first question since the last proof, and how many there were.
    asked: Option<Instant>,
    asks: u32,
    down: Option<Instant>,
    /// The last question that was asked for somebody's sake, and the pause after it.
    inquired: Option<(Instant, Duration)>,
}

impl Reachability {
    /// A question has left.
    pub fn asked(&mut self, now: Instant) {
        self.asked.get_or_insert(now);
        self.asks = self.asks.saturating_add(1);
    }

    /// Something of the server has opened.
    pub fn proven(&mut self, now: Instant) -> Option<Change> {
        self.proof = Some(now);
        self.asked = None;
        self.asks = 0;
        self.down.take().map(|_| Change::Up)
    }

    /// The server is another one, or somewhere else: what was asked before says nothing of it.
    pub fn forget_questions(&mut self) {
        self.asked = None;
        self.asks = 0;
    }

    /// Whether the server has been found to be down in this moment.
    pub fn check(&mut self, now: Instant) -> Option<Change> {
        if self.poll_timeout().is_none_or(|at| now < at) {
            return None;
        }
        self.down = Some(now);
        Some(Change::Down)
    }

    /// When [`Self::check`] should be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.down.is_some() || self.asks < ASKS {
            return None;
        }
        self.asked.map(|at| at + DOWN_AFTER)
    }

    /// Since when the server has been down, if it is.
    #[must_use]
    pub const fn down_since(&self) -> Option<Instant> {
        self.down
    }

    /// Whether something was asked that nothing has answered yet.
    #[must_use]
    pub const fn is_contacting(&self) -> bool {
        self.asked.is_some()
    }

    /// Somebody wants to know whether the server lives: whether it should be asked. Not while there is a proof that is
    /// [`FRESH`], not more often than every 10 s, and less often, down to every 5 minutes, while it does not answer.
    pub fn inquire(&mut self, now: Instant) -> bool {
        if self.proof.is_some_and(|at| now < at + FRESH) {
            return false;
        }
        let answered = |at| self.proof.is_some_and(|proof| proof >= at);
        let pause = match self.inquired {
            Some((at, pause)) if !answered(at) => {
                if now < at + pause {
                    return false;
                }
                pause.saturating_mul(2).min(ASK_EVERY.1)
            }
            // What was answered begins at the shortest pause again.
            Some((at, _)) if now < at + ASK_EVERY.0 => return false,
            _ => ASK_EVERY.0,
        };
        self.inquired = Some((now, pause));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    #[test]
    fn down_takes_three_questions_and_six_seconds() {
        let mut server = Reachability::default();
        assert_eq!(server.poll_timeout(), None);
        // Often, but not for long enough.
        for ms in (0..6000).step_by(100) {
            server.asked(at(ms));
            assert_eq!(server.check(at(ms)), None);
        }
        assert_eq!(server.poll_timeout(), Some(at(6000)));
        assert_eq!(server.check(at(6000)), Some(Change::Down));
        assert_eq!(server.check(at(9000)), None, "told once");
        assert_eq!(server.down_since(), Some(at(6000)));
        assert_eq!(server.proven(at(9500)), Some(Change::Up));
        assert_eq!(server.proven(at(9600)), None);
        // For long, but not often enough.
        server.asked(at(10_000));
        server.asked(at(40_000));
        assert_eq!(server.check(at(50_000)), None);
        server.asked(at(60_000));
        assert_eq!(server.check(at(60_000)), Some(Change::Down));
    }

    #[test]
    fn a_server_that_answers_now_and_then_is_not_down() {
        let mut server = Reachability::default();
        for second in 0..60 {
            server.asked(at(second * 1000));
            if second % 5 == 4 {
                assert_eq!(server.proven(at(second * 1000 + 1)), None);
            }
            assert_eq!(server.check(at(second * 1000 + 2)), None);
        }
    }

    #[test]
    fn who_wants_to_know_asks_rarely() {
        let mut server = Reachability::default();
        // Somebody looks every second for an hour, and nothing answers.
        let mut asked = Vec::new();
        for second in 0..3600 {
            if server.inquire(at(second * 1000)) {
                asked.push(second);
            }
        }
        assert_eq!(asked[..6], [0, 10, 30, 70, 150, 310]);
        assert!(
            asked[6..].windows(2).all(|w| w[1] - w[0] == 300),
            "{asked:?}"
        );
        // It answers each time: a proof is good for half a minute.
        let mut asked = 0;
        for second in 4000..7600 {
            if server.inquire(at(second * 1000)) {
                asked += 1;
                server.proven(at(second * 1000 + 40));
            }
        }
        assert_eq!(asked, 3600 / 31 + 1);
    }
}
