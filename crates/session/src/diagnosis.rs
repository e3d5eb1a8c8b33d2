//! What most likely differs between the two ends, told within seconds.
//!
//! Nothing is negotiated in this format and a mismatch is never reported by the other end (docs/spec/kcptun.md,
//! sections 1 and 15). But each kind leaves its own trace: silence, datagrams that do not open, or a peer that
//! acknowledges the first bytes and then behaves as if it had never seen them. A session that was opened from
//! here and has not come to life after [`PATIENCE`] is judged once by those traces.

use core::time::Duration;

use fulmar_cipher::Scheme;
use fulmar_wire::time::Instant;

/// How long a new session may take to come to life before its traces are judged.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// The likely cause. What is said of it depends on the options of the configuration in use, so it is worded above.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Suspicion {
    /// Nothing came back at all.
    Silence,
    /// Datagrams came back but none opened with our key and cipher.
    NothingOpens,
    /// They open with our key and another cipher.
    OtherCipher {
        /// What the other end uses.
        theirs: Scheme,
        /// What we use.
        ours: Scheme,
    },
    /// The peer opens our datagrams but throws away the streams in them.
    StreamsRefused,
}

/// The traces of one session that we opened.
#[derive(Debug, Default)]
pub struct Traces {
    first_sent: Option<Instant>,
    forged: u64,
    other_cipher: Option<Scheme>,
    opened: u64,
    frames: bool,
    restarts: u64,
    judged: bool,
    /// It acknowledges and says nothing.
    quiet: bool,
}

impl Traces {
    /// The first datagram left.
    pub fn sent(&mut self, now: Instant) {
        self.first_sent.get_or_insert(now);
    }

    /// `n` datagrams did not open; `other_cipher` is what opens one of them with our key.
    pub fn forged(&mut self, n: u64, other_cipher: Option<Scheme>) {
        self.forged += n;
        self.other_cipher = other_cipher.or(self.other_cipher);
    }

    /// `n` datagrams opened.
    pub fn opened(&mut self, n: u64) {
        self.opened += n;
    }

    /// A valid frame of the mux arrived: both ends agree on everything that can be seen.
    pub fn frame(&mut self) {
        self.frames = true;
    }

    /// The peer showed that it has no state of this session.
    pub fn peer_lost_state(&mut self) {
        self.restarts += 1;
    }

    /// Whether a frame has arrived.
    #[must_use]
    pub const fn came_to_life(&self) -> bool {
        self.frames
    }

    /// Whether the peer lost the state of a session that had never come to life: it refuses our streams.
    #[must_use]
    pub const fn streams_refused(&self) -> bool {
        !self.frames && self.restarts > 0
    }

    /// When [`Traces::judge`] should be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.judged || self.quiet || self.frames {
            None
        } else {
            self.first_sent.map(|t| t + PATIENCE)
        }
    }

    /// The likely cause, once, when the time has come; `ours` is the method that we use.
    pub fn judge(&mut self, now: Instant, ours: Scheme) -> Option<Suspicion> {
        if self.judged
            || self.frames
            || self.restarts == 0 && self.poll_timeout().is_none_or(|at| now < at)
        {
            return None;
        }
        let found = if self.restarts > 0 {
            Suspicion::StreamsRefused
        } else if self.opened > 0 {
            // Acknowledged and quiet: nothing is wrong with that so far.
            self.quiet = true;
            return None;
        } else if let Some(theirs) = self.other_cipher {
            Suspicion::OtherCipher { theirs, ours }
        } else if self.forged > 0 {
            Suspicion::NothingOpens
        } else {
            Suspicion::Silence
        };
        self.judged = true;
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_wire::kcptun::Method;

    const AES: Scheme = Scheme::Kcptun(Method::Aes);
    const SM4: Scheme = Scheme::Kcptun(Method::Sm4);

    fn traces() -> (Traces, Instant) {
        let mut t = Traces::default();
        t.sent(Instant::ZERO);
        (t, Instant::ZERO + PATIENCE)
    }

    #[test]
    fn silence_then_nothing_twice() {
        let (mut t, late) = traces();
        assert_eq!(t.judge(Instant::ZERO, AES), None);
        assert_eq!(t.judge(late, AES), Some(Suspicion::Silence));
        assert_eq!(t.judge(late, AES), None);
        assert_eq!(t.poll_timeout(), None);
    }

    #[test]
    fn each_trace_has_its_cause() {
        let (mut t, late) = traces();
        t.forged(3, None);
        assert_eq!(t.judge(late, AES), Some(Suspicion::NothingOpens));
        let (mut t, late) = traces();
        t.forged(3, Some(SM4));
        let found = t.judge(late, AES);
        assert_eq!(
            found,
            Some(Suspicion::OtherCipher {
                theirs: SM4,
                ours: AES
            })
        );
        let (mut t, _) = traces();
        t.opened(1);
        t.peer_lost_state();
        assert_eq!(t.judge(Instant::ZERO, AES), Some(Suspicion::StreamsRefused));
    }

    #[test]
    fn a_quiet_peer_that_acknowledges_is_fine() {
        let (mut t, late) = traces();
        t.opened(1);
        assert_eq!(t.judge(late, AES), None);
        assert_eq!(t.poll_timeout(), None);
        t.peer_lost_state();
        assert_eq!(t.judge(late, AES), Some(Suspicion::StreamsRefused));
        let (mut t, late) = traces();
        t.frame();
        assert_eq!(t.judge(late, AES), None);
    }
}
