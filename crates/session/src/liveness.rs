//! Whether the other end still hears us.
//!
//! KCP itself never gives up (docs/spec/kcptun.md, section 7.2) and the mux notices a silent peer only after 30 to 60
//! seconds (section 9.6). This machine notices within seconds: data or a probe that stays unanswered over several
//! retransmission timeouts makes a session *suspect*. A suspect session keeps its streams, because a path that was
//! dead for a while comes back; but it gets no new ones, it is probed every second, and the first answer that
//! arrives makes it live again and everything in flight is sent at once.
//!
//! An answer is what a peer sends only because it has heard us: acknowledgements, and what a probe asks for. Its own
//! data says nothing about our direction.

use core::time::Duration;

use fulmar_wire::time::Instant;

/// Retransmission timeouts that have to pass without any answer.
const TIMEOUTS: u32 = 6;
/// Timeouts after which a session begins to probe: KCP itself would send only two or three times meanwhile, and that
/// many are lost easily.
const DOUBTS: u32 = 2;
/// No session is suspect sooner than this, however short its round trip.
const FLOOR: Duration = Duration::from_millis(1500);
/// No session is trusted longer than this, however long its timeouts have grown.
const CEILING: Duration = Duration::from_secs(6);
/// Shortest and longest time between probes of a session that is not suspect yet; in between, half a timeout. On a path
/// that loses a third both ways, half of the probes go unanswered.
const DOUBT_EVERY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(300));
/// Time between probes of a suspect session.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// What a check found.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// The session has become suspect.
    Suspected,
    /// The peer has answered again.
    Recovered,
}

/// The liveness of one session.
///
/// ```text
///            unanswered over several timeouts
///   live  ─────────────────────────────────────▶  suspect ──┐ probe
///    ▲                                               │  ▲    │ every second
///    └───────────────── an answer arrived ───────────┘  └────┘
/// ```
#[derive(Debug, Default)]
pub struct Liveness {
    suspect: bool,
    /// Whether a suspect peer has sent something, though no answer.
    stirred: bool,
    /// When the peer last answered.
    answered: Instant,
    next_probe: Option<Instant>,
}

impl Liveness {
    /// Whether the peer has been silent for too long.
    #[must_use]
    pub const fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// The peer has answered.
    pub fn answered(&mut self, now: Instant) -> Option<Change> {
        self.answered = now;
        self.next_probe = None;
        self.stirred = false;
        std::mem::take(&mut self.suspect).then_some(Change::Recovered)
    }

    /// Something else arrived. Whether it is the first such thing from a suspect peer: then the path may be back, and
    /// a probe is due.
    pub fn stirred(&mut self, now: Instant) -> bool {
        if !self.suspect || std::mem::replace(&mut self.stirred, true) {
            return false;
        }
        self.next_probe = Some(now);
        true
    }

    /// Looks at how long the oldest unanswered transmission has waited; `rto` is the current timeout.
    pub fn check(
        &mut self,
        now: Instant,
        unanswered_since: Option<Instant>,
        rto: Duration,
    ) -> Option<Change> {
        if self.suspect {
            return None;
        }
        let Some(since) = unanswered_since else {
            self.next_probe = None;
            return None;
        };
        let doubt = self.doubt(since, rto);
        self.next_probe = Some(self.next_probe.map_or(doubt, |at| at.max(doubt)));
        if now < self.due(since, rto) {
            return None;
        }
        self.suspect = true;
        self.next_probe = Some(now);
        Some(Change::Suspected)
    }

    /// Whether a probe is due; then the next one is due later.
    pub fn take_probe(&mut self, now: Instant, rto: Duration) -> bool {
        let every = if self.suspect {
            PROBE_EVERY
        } else {
            (rto / 2).clamp(DOUBT_EVERY.0, DOUBT_EVERY.1)
        };
        match self.next_probe {
            Some(at) if at <= now => {
                self.next_probe = Some(now + every);
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
            return self.next_probe;
        }
        let since = unanswered_since?;
        let doubt = self.doubt(since, rto);
        let probe = self.next_probe.map_or(doubt, |at| at.max(doubt));
        Some(probe.min(self.due(since, rto)))
    }

    /// When to probe what has been unanswered since then.
    fn doubt(&self, since: Instant, rto: Duration) -> Instant {
        since.max(self.answered) + rto * DOUBTS
    }

    /// When the patience with what has been unanswered since then ends.
    fn due(&self, since: Instant, rto: Duration) -> Instant {
        since.max(self.answered) + (rto * TIMEOUTS).clamp(FLOOR, CEILING)
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
        assert_eq!(l.poll_timeout(Some(t0), RTO), Some(at(600)));
        // Probes come first.
        let mut probes = Vec::new();
        for ms in 0..1800 {
            assert_eq!(l.check(at(ms), Some(t0), RTO), None);
            if l.take_probe(at(ms), RTO) {
                probes.push(ms);
            }
        }
        assert_eq!(probes, [600, 750, 900, 1050, 1200, 1350, 1500, 1650]);
        assert_eq!(l.poll_timeout(Some(t0), RTO), Some(at(1800)));
        assert_eq!(l.check(at(1800), Some(t0), RTO), Some(Change::Suspected));
        assert_eq!(l.check(at(1900), Some(t0), RTO), None);
        assert!(l.take_probe(at(1900), RTO));
        assert!(!l.take_probe(at(2000), RTO));
        assert_eq!(l.poll_timeout(Some(t0), RTO), Some(at(2900)));
        assert!(l.take_probe(at(2900), RTO));
        assert_eq!(l.answered(at(3000)), Some(Change::Recovered));
        assert_eq!(l.answered(at(3001)), None);
        assert_eq!(l.poll_timeout(None, RTO), None);
        // What was unanswered still is: patience begins anew.
        assert_eq!(l.check(at(3001), Some(t0), RTO), None);
        assert_eq!(l.poll_timeout(Some(t0), RTO), Some(at(3601)));
        assert_eq!(l.check(at(4801), Some(t0), RTO), Some(Change::Suspected));
    }

    #[test]
    fn what_is_answered_in_time_needs_no_probe() {
        let mut l = Liveness::default();
        for i in 0..100 {
            let sent = Instant::from_millis(250 * i);
            assert_eq!(l.check(sent, Some(sent), RTO), None);
            assert!(!l.take_probe(sent, RTO));
            assert_eq!(l.answered(sent + Duration::from_millis(240)), None);
        }
    }

    #[test]
    fn the_first_sign_of_a_suspect_peer_is_followed_up_at_once() {
        let mut l = Liveness::default();
        let at = Instant::from_millis;
        assert!(!l.stirred(at(1)));
        l.check(at(5000), Some(at(0)), RTO);
        assert!(l.is_suspect() && l.take_probe(at(5000), RTO) && !l.take_probe(at(5100), RTO));
        assert!(l.stirred(at(5200)) && l.take_probe(at(5200), RTO));
        assert!(!l.stirred(at(5300)));
    }

    #[test]
    fn bounded_for_very_short_and_very_long_timeouts() {
        let suspect_at = |rto| {
            let mut l = Liveness::default();
            (0..10_000).find(|ms| {
                let now = Instant::from_millis(*ms);
                l.check(now, Some(Instant::ZERO), Duration::from_millis(rto))
                    .is_some()
            })
        };
        assert_eq!(suspect_at(30), Some(1500));
        assert_eq!(suspect_at(60_000), Some(6000));
    }
}
