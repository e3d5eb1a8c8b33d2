//! Whether the other end still hears us.
//!
//! KCP itself never gives up (spec/kcptun.md, section 6.2) and the mux notices a silent peer only after 30 to 60
//! seconds (section 8.6). This machine notices within seconds: data or a probe that stays unanswered over several
//! retransmission timeouts makes a session *suspect*. A suspect session keeps its streams, because a path that was
//! dead for a while comes back; but it gets no new ones, it is probed every second, and the first datagram that
//! arrives makes it live again and everything in flight is sent at once.

use core::time::Duration;

use fulmar_wire::time::Instant;

/// Retransmission timeouts that have to pass without any answer.
const TIMEOUTS: u32 = 6;
/// No session is suspect sooner than this, however short its round trip.
const FLOOR: Duration = Duration::from_millis(1500);
/// No session is trusted longer than this, however long its timeouts have grown.
const CEILING: Duration = Duration::from_secs(6);
/// Time between probes of a suspect session.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// What a check found.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// The session has become suspect.
    Suspected,
    /// The peer was heard again.
    Recovered,
}

/// The liveness of one session.
///
/// ```text
///            unanswered over several timeouts
///   live  ─────────────────────────────────────▶  suspect ──┐ probe
///    ▲                                               │  ▲    │ every second
///    └───────────────── a datagram arrived ──────────┘  └────┘
/// ```
#[derive(Debug, Default)]
pub struct Liveness {
    suspect: bool,
    next_probe: Option<Instant>,
}

impl Liveness {
    /// Whether the peer has been silent for too long.
    #[must_use]
    pub const fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// A valid datagram of the peer arrived.
    pub fn heard(&mut self) -> Option<Change> {
        self.next_probe = None;
        std::mem::take(&mut self.suspect).then_some(Change::Recovered)
    }

    /// Looks at how long the oldest unanswered transmission has waited; `rto` is the current timeout.
    pub fn check(
        &mut self,
        now: Instant,
        unanswered_since: Option<Instant>,
        rto: Duration,
    ) -> Option<Change> {
        let due = Self::due(unanswered_since?, rto);
        if self.suspect || now < due {
            return None;
        }
        self.suspect = true;
        self.next_probe = Some(now);
        Some(Change::Suspected)
    }

    /// Whether a probe is due; the next one is due a second later.
    pub fn take_probe(&mut self, now: Instant) -> bool {
        match self.next_probe {
            Some(at) if at <= now => {
                self.next_probe = Some(now + PROBE_EVERY);
                true
            }
            _ => false,
        }
    }

    /// When to look again.
    #[must_use]
    pub fn poll_timeout(
        &self,
        unanswered_since: Option<Instant>,
        rto: Duration,
    ) -> Option<Instant> {
        if self.suspect {
            self.next_probe
        } else {
            unanswered_since.map(|since| Self::due(since, rto))
        }
    }

    fn due(since: Instant, rto: Duration) -> Instant {
        since + (rto * TIMEOUTS).clamp(FLOOR, CEILING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTO: Duration = Duration::from_millis(300);

    #[test]
    fn suspect_after_several_timeouts_and_back() {
        let mut l = Liveness::default();
        let t0 = Instant::from_millis(1000);
        let at = |ms| t0 + Duration::from_millis(ms);
        assert_eq!(l.check(at(0), None, RTO), None);
        assert_eq!(l.poll_timeout(Some(t0), RTO), Some(at(1800)));
        assert_eq!(l.check(at(1799), Some(t0), RTO), None);
        assert_eq!(l.check(at(1800), Some(t0), RTO), Some(Change::Suspected));
        assert_eq!(l.check(at(1900), Some(t0), RTO), None);
        assert!(l.take_probe(at(1900)));
        assert!(!l.take_probe(at(2000)));
        assert_eq!(l.poll_timeout(Some(t0), RTO), Some(at(2900)));
        assert!(l.take_probe(at(2900)));
        assert_eq!(l.heard(), Some(Change::Recovered));
        assert_eq!(l.heard(), None);
        assert_eq!(l.poll_timeout(None, RTO), None);
    }

    #[test]
    fn bounded_for_very_short_and_very_long_timeouts() {
        let l = Liveness::default();
        assert_eq!(
            l.poll_timeout(Some(Instant::ZERO), Duration::from_millis(30)),
            Some(Instant::ZERO + FLOOR)
        );
        assert_eq!(
            l.poll_timeout(Some(Instant::ZERO), Duration::from_secs(60)),
            Some(Instant::ZERO + CEILING)
        );
    }
}
