//! What is in flight, indexed by segment number, and the delivery rate that follows from it.
//!
//! Rates are sampled as draft-ietf-ccwg-bbr ("Delivery Rate Samples") describes it: each transmission remembers
//! how much had been delivered when it left, and when; its delivery then spans an interval with a known amount. The longer of the times that
//! sending and that acknowledging took is the interval, so neither bursts of ours nor bunches of acknowledgements look like bandwidth.

use fulmar_wire::seq::Seq;

/// Places of the first ring.
const FIRST_RING: usize = 16;

/// Which transmission of a segment an acknowledgement named first.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Named {
    Nothing,
    Original,
    Copy,
}

/// One segment and its last transmission.
#[derive(Copy, Clone, Debug)]
pub(super) struct Record {
    pub(super) sn: Seq,
    /// In flight.
    pub(super) live: bool,
    /// Sent while nothing was amiss: its fate tells of the path, not of us.
    pub(super) calm: bool,
    /// A copy left right behind it.
    pub(super) copied: bool,
    pub(super) named: Named,
    /// The sender had nothing more to send.
    app_limited: bool,
    /// Bytes on the path.
    pub(super) cost: u32,
    /// When it left, and when it had left the time before; microseconds.
    pub(super) sent: u64,
    pub(super) sent_before: Option<u64>,
    delivered: u64,
    delivered_at: u64,
    first_sent: u64,
}

/// A measurement of the delivery rate.
#[derive(Copy, Clone, Debug)]
pub(super) struct Sample {
    /// Bytes per second.
    pub(super) rate: f64,
    /// Bytes that it rests on.
    pub(super) bytes: u64,
    /// The path could perhaps have taken more.
    pub(super) app_limited: bool,
    /// Bytes that had been delivered when the measured segment left.
    pub(super) prior_delivered: u64,
}

#[derive(Debug, Default)]
pub(super) struct Flight {
    ring: Vec<Option<Record>>,
    /// Bytes in flight.
    bytes: u64,
    /// Bytes delivered so far, and when the last of them were.
    delivered: u64,
    delivered_at: u64,
    /// When the segment left that was delivered last.
    first_sent: u64,
    /// What is delivered before this was sent by an application that had nothing more.
    app_limited_until: u64,
    /// When nothing had been heard for so long that the path was probed.
    silent: u64,
    /// The newest transmission delivered by the datagram that is being taken in.
    best: Option<Record>,
}

impl Flight {
    /// Bytes in flight.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes delivered so far.
    pub(super) const fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Whether what is sent now measures an application rather than the path.
    pub(super) const fn is_app_limited(&self) -> bool {
        self.app_limited_until > self.delivered
    }

    /// There is nothing more to send.
    pub(super) fn app_limited(&mut self) {
        self.app_limited_until = (self.delivered + self.bytes).max(1);
    }

    /// When the path was last found silent.
    pub(super) const fn silent_at(&self) -> u64 {
        self.silent
    }

    /// Nothing has been heard for too long.
    pub(super) const fn silent(&mut self, now: u64) {
        self.silent = now;
    }

    /// `sn` leaves; what was known of its transmission before.
    #[inline]
    pub(super) fn sent(&mut self, now: u64, sn: Seq, cost: u32, calm: bool) -> Option<Record> {
        let before = self.get(sn).copied();
        if self.bytes == 0 {
            // After a pause the interval begins anew.
            self.first_sent = now;
            self.delivered_at = now;
        }
        match before {
            Some(r) => self.bytes -= u64::from(r.cost),
            None => self.make_room(sn),
        }
        self.bytes += u64::from(cost);
        let record = Record {
            sn,
            live: true,
            calm,
            copied: false,
            named: Named::Nothing,
            app_limited: self.is_app_limited(),
            cost,
            sent: now,
            sent_before: before.map(|b| b.sent),
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            first_sent: self.first_sent,
        };
        let at = self.at(sn);
        self.ring[at] = Some(record);
        before
    }

    /// A copy of `sn` leaves as well.
    pub(super) fn copied(&mut self, sn: Seq) {
        let at = self.at(sn);
        if let Some(Some(r)) = self.ring.get_mut(at)
            && r.sn == sn
        {
            r.copied = true;
        }
    }

    /// `sn` has been delivered. `measures`: by its last transmission, so that its time is the one that counts.
    #[inline]
    pub(super) fn delivered_one(&mut self, now: u64, sn: Seq, measures: bool) -> Option<Record> {
        let at = self.at(sn);
        let record = self.ring.get_mut(at)?.as_mut()?;
        if record.sn != sn || !record.live {
            return None;
        }
        record.live = false;
        let record = *record;
        self.bytes -= u64::from(record.cost);
        self.delivered += u64::from(record.cost);
        self.delivered_at = now;
        if measures && self.best.is_none_or(|b| record.delivered >= b.delivered) {
            self.best = Some(record);
        }
        Some(record)
    }

    /// The newest delivered transmission is known; what it says of the rate is asked later.
    pub(super) fn settle(&mut self) {
        if let Some(best) = self.best {
            self.first_sent = best.sent;
        }
    }

    /// What the datagram that has been taken in says about the rate. Intervals shorter than `shortest` microseconds say nothing.
    pub(super) fn sample(&mut self, shortest: u64) -> Option<Sample> {
        let best = self.best.take()?;
        self.first_sent = best.sent;
        let sending = best.sent.saturating_sub(best.first_sent);
        let acking = self.delivered_at.saturating_sub(best.delivered_at);
        let interval = sending.max(acking);
        if interval == 0 || interval < shortest {
            return None;
        }
        let bytes = self.delivered - best.delivered;
        Some(Sample {
            rate: bytes as f64 * 1e6 / interval as f64,
            bytes,
            // A gap in the path is no measure of what it carries.
            app_limited: best.app_limited || best.delivered_at < self.silent,
            prior_delivered: best.delivered,
        })
    }

    /// The record of `sn`, also after its delivery, until its place is needed.
    #[inline]
    pub(super) fn remembered(&mut self, sn: Seq) -> Option<&mut Record> {
        let at = self.at(sn);
        self.ring.get_mut(at)?.as_mut().filter(|r| r.sn == sn)
    }

    #[inline]
    fn get(&self, sn: Seq) -> Option<&Record> {
        let record = self.ring.get(self.at(sn))?.as_ref()?;
        (record.sn == sn && record.live).then_some(record)
    }

    #[inline]
    fn at(&self, sn: Seq) -> usize {
        sn.0 as usize & self.ring.len().wrapping_sub(1)
    }

    /// Makes sure that nobody in flight stands where `sn` belongs.
    #[inline]
    fn make_room(&mut self, sn: Seq) {
        while self
            .ring
            .get(self.at(sn))
            .is_none_or(|place| place.is_some_and(|r| r.live && r.sn != sn))
        {
            self.grow();
        }
    }

    #[cold]
    fn grow(&mut self) {
        let len = (2 * self.ring.len()).max(FIRST_RING);
        let old = std::mem::replace(&mut self.ring, vec![None; len]);
        for record in old.into_iter().flatten().filter(|r| r.live) {
            let at = self.at(record.sn);
            self.ring[at] = Some(record);
        }
    }

    /// Nothing is in flight.
    pub(super) fn release(&mut self) {
        if self.bytes == 0 {
            self.ring = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_stream_measures_its_rate() {
        let mut f = Flight::default();
        // 1000 bytes each millisecond over 50 ms.
        let mut rates = Vec::new();
        for i in 0..300u32 {
            let now = 1_000_000 + u64::from(i) * 1000;
            if let Some(sn) = i.checked_sub(50) {
                assert!(f.delivered_one(now, Seq(sn), true).is_some());
                rates.extend(f.sample(10_000).map(|s| s.rate));
            }
            f.sent(now, Seq(i), 1000, true);
        }
        assert_eq!(f.bytes(), 50_000);
        let late = &rates[100..];
        assert!(late.iter().all(|r| (r - 1e6).abs() < 2e4), "{late:?}");
    }

    #[test]
    fn bunched_acknowledgements_are_no_bandwidth() {
        let mut f = Flight::default();
        let mut highest: f64 = 0.0;
        for i in 0..2000u32 {
            let now = u64::from(i) * 1000;
            // Every 30 ms what has been under way for 50.
            if i % 30 == 0 {
                for sn in i.saturating_sub(80)..i.saturating_sub(50) {
                    f.delivered_one(now, Seq(sn), true);
                }
                if let Some(s) = f.sample(50_000) {
                    highest = highest.max(s.rate);
                }
            }
            f.sent(now, Seq(i), 1000, true);
        }
        assert!((0.95e6..1.05e6).contains(&highest), "{highest}");
    }

    #[test]
    fn a_gap_of_any_size_keeps_its_record() {
        let mut f = Flight::default();
        f.sent(0, Seq(u32::MAX), 10, true);
        for i in 0..5000 {
            f.sent(1, Seq(i), 10, true);
            f.delivered_one(2, Seq(i), true);
        }
        assert_eq!(f.bytes(), 10);
        let before = f.sent(3, Seq(u32::MAX), 10, false);
        assert_eq!(before.map(|r| r.sent), Some(0));
        assert!(f.delivered_one(4, Seq(u32::MAX), false).is_some());
        assert!(f.delivered_one(5, Seq(u32::MAX), false).is_none());
        f.release();
        assert_eq!(f.ring.len(), 0);
    }
}
