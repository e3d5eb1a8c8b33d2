//! Finding losses by time and order: RACK-TLP (RFC 8985) on KCP's acknowledgements.
//!
//! An acknowledgement of KCP echoes the time of the very transmission that it answers, so it is always known which
//! transmission arrived: what RFC 8985 needs SACK and timestamps for is all there, and a retransmission that was needless shows
//! when the acknowledgement of its original arrives (the Eifel detection of RFC 3522).
//!
//! | RFC 8985 | here |
//! |---|---|
//! | section 6.2, step 2: newest delivered transmission | [`Recovery::delivered`] |
//! | step 4: reordering window | [`Recovery::reordering_window`]: a quarter of the shortest round trip, a 32nd once the path has kept the order for a while, or what reordering was seen |
//! | step 5: lost is what left so much earlier | [`Recovery::lost_before`], and [`Recovery::overdue_at`] for the timer |
//! | section 7: tail loss probe | [`Recovery::probe_at`]; each further one waits twice as long, up to a second |

/// The first probe's wait before a round trip has been measured, microseconds: KCP's first timeout.
const FIRST_PROBE: u64 = 200_000;
/// What peers wait with acknowledgements that have no company, microseconds; those who wait longer show in the variance.
const ACK_DELAY: u64 = 10_000;
/// Longest wait between probes, unless a round trip takes longer, microseconds.
const LONGEST_PROBE: u64 = 1_000_000;
/// Smallest reordering window, microseconds: the clock on the wire counts milliseconds.
const SMALLEST_WINDOW: u64 = 2_000;
/// Deliveries in order after which a path is taken for one that keeps the order.
const TRUSTED: u32 = 200;
/// How long reordering that was seen is reckoned with, microseconds.
const REMEMBER: u64 = 30_000_000;

#[derive(Debug, Default)]
pub(super) struct Recovery {
    /// When the newest transmission left that is known to have arrived.
    newest: Option<u64>,
    /// What left so long ago would have been acknowledged, had it arrived: a tick of the receiver's clock was heard since.
    told: u64,
    srtt: u64,
    rttvar: u64,
    min_rtt: u64,
    latest_rtt: u64,
    /// How much later than others something arrived lately, and when that was seen.
    reordered: (u64, u64),
    /// Deliveries in order since anything was out of order.
    in_order: u32,
    /// Since when nothing has been heard and nothing sent.
    quiet_since: u64,
    /// Probes since something was acknowledged.
    probes: u32,
    /// What acknowledgements wait for each other, microseconds.
    wait: u64,
}

impl Recovery {
    pub(super) const fn srtt(&self) -> u64 {
        self.srtt
    }

    pub(super) const fn newest(&self) -> Option<u64> {
        self.newest
    }

    /// A round trip took so long.
    pub(super) fn measured(&mut self, rtt: u64, min_rtt: u64) {
        self.min_rtt = min_rtt;
        self.latest_rtt = rtt;
        if self.srtt == 0 {
            self.srtt = rtt.max(1);
            self.rttvar = rtt / 2;
        } else {
            // RFC 6298, section 2.
            self.rttvar = (3 * self.rttvar + self.srtt.abs_diff(rtt)) / 4;
            self.srtt = (7 * self.srtt + rtt) / 8;
        }
    }

    /// A flush of a receiver that acknowledges by its clock came in: it names all that had arrived.
    pub(super) fn told(&mut self, at: u64, path_rtt: u64) {
        let sure = path_rtt + self.reordering_window(at) + SMALLEST_WINDOW;
        self.told = self.told.max(at.saturating_sub(sure));
    }

    /// Acknowledgements come in bursts, so long apart; 0: they do not.
    pub(super) const fn bursts(&mut self, wait: u64) {
        self.wait = wait;
    }

    /// What left at `sent` has arrived.
    #[inline]
    pub(super) fn delivered(&mut self, sent: u64) {
        self.in_order = self.in_order.saturating_add(1);
        self.newest = Some(self.newest.map_or(sent, |n| n.max(sent)));
    }

    /// Something arrived although what left so much later had arrived before.
    pub(super) fn reordered(&mut self, now: u64, by: u64) {
        self.in_order = 0;
        let (extent, seen) = self.reordered;
        if by >= extent || now.saturating_sub(seen) > REMEMBER {
            self.reordered = (by, now);
        }
    }

    /// How much later than its successors something may arrive and not be taken for lost.
    pub(super) fn reordering_window(&self, now: u64) -> u64 {
        // A path that has kept the order of so many is trusted to.
        let share = if self.in_order >= TRUSTED { 32 } else { 4 };
        let usual = (self.min_rtt / share).max(SMALLEST_WINDOW);
        let (extent, seen) = self.reordered;
        if extent == 0 || now.saturating_sub(seen) > REMEMBER {
            return usual;
        }
        // Half as much again, but what takes longer than a round trip costs more to wait for than to send again.
        usual
            .max(extent + extent / 2 + 1_000)
            .min(self.srtt.max(usual))
    }

    /// What last left at or before this is lost.
    #[inline]
    pub(super) fn lost_before(&self, now: u64) -> Option<u64> {
        let newest = self.newest?.checked_sub(1_000)?.max(self.told);
        let aged = now.checked_sub(self.patience(now))?;
        Some(newest.min(aged))
    }

    /// When what left at `sent` will be lost.
    #[inline]
    pub(super) fn overdue_at(&self, now: u64, sent: u64) -> Option<u64> {
        let newest = self.newest?.checked_sub(1_000)?.max(self.told);
        // Times of segments are whole milliseconds.
        (sent / 1_000 <= newest / 1_000).then(|| sent + self.patience(now))
    }

    #[inline]
    fn patience(&self, now: u64) -> u64 {
        self.latest_rtt + self.reordering_window(now)
    }

    /// Something was sent for its own sake.
    #[inline]
    pub(super) const fn sent(&mut self, now: u64) {
        self.quiet_since = now;
    }

    /// Something was acknowledged.
    pub(super) const fn acked(&mut self, now: u64) {
        self.quiet_since = now;
        self.probes = 0;
    }

    /// A probe has been sent.
    pub(super) const fn probed(&mut self, now: u64) {
        self.quiet_since = now;
        self.probes = self.probes.saturating_add(1);
    }

    /// When the path is to be probed.
    #[inline]
    pub(super) fn probe_at(&self) -> u64 {
        let once = if self.srtt == 0 {
            FIRST_PROBE
        } else {
            self.srtt + (4 * self.rttvar).max(SMALLEST_WINDOW) + ACK_DELAY + self.wait
        };
        let wait = once << self.probes.min(6);
        self.quiet_since + wait.min(LONGEST_PROBE.max(once))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: u64 = 80_000;

    fn calm() -> Recovery {
        let mut r = Recovery::default();
        (0..20).for_each(|_| r.measured(RTT, RTT));
        r
    }

    #[test]
    fn what_left_well_before_what_arrived_is_lost() {
        let mut r = calm();
        assert_eq!(r.lost_before(10_000_000), None);
        assert_eq!(r.overdue_at(10_000_000, 9_000_000), None);
        r.delivered(9_950_000);
        // Not before a round trip and a quarter have passed, however much was overtaken.
        assert_eq!(r.lost_before(10_000_000), Some(9_900_000));
        assert_eq!(r.lost_before(10_200_000), Some(9_949_000));
        assert_eq!(
            r.overdue_at(10_000_000, 9_949_000),
            Some(9_949_000 + 100_000)
        );
        assert_eq!(r.overdue_at(10_000_000, 9_950_000), None);
        // The two agree: at the time that is told, it is lost.
        let at = r.overdue_at(10_000_000, 9_940_000).expect("overdue");
        assert!(r.lost_before(at) >= Some(9_940_000));
    }

    #[test]
    fn reordering_that_was_seen_widens_the_window_for_a_while() {
        let mut r = calm();
        r.reordered(1_000_000, 30_000);
        assert_eq!(r.reordering_window(1_000_000), 46_000);
        r.reordered(2_000_000, 10_000);
        assert_eq!(r.reordering_window(2_000_000), 46_000);
        assert_eq!(r.reordering_window(1_000_000 + REMEMBER + 1), 20_000);
        (0..TRUSTED).for_each(|i| r.delivered(u64::from(i)));
        assert_eq!(r.reordering_window(1_000_000 + REMEMBER + 1), 2_500);
        r.reordered(1_000_000, 900_000);
        assert_eq!(r.reordering_window(1_000_000), RTT);
    }

    #[test]
    fn probes_back_off_to_a_second() {
        let mut r = Recovery::default();
        assert_eq!(r.probe_at(), FIRST_PROBE);
        r = calm();
        r.sent(1_000_000);
        let mut waits = Vec::new();
        let mut now = r.probe_at();
        for _ in 0..8 {
            r.probed(now);
            waits.push(r.probe_at() - now);
            now = r.probe_at();
        }
        assert!(waits.windows(2).all(|w| w[0] <= w[1]));
        assert_eq!(waits.last(), Some(&LONGEST_PROBE));
        r.acked(now);
        assert!(r.probe_at() - now < 200_000);
    }
}
