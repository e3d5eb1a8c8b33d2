//! Acknowledgements that come in bursts.
//!
//! A receiver that acknowledges when a clock of its own ticks tells of all that arrived since the tick before at once, and the round
//! trips of these differ by as much; the shortest is a lucky one. A burst as a whole says more: what it acknowledges arrived
//! between two ticks, and the newest segment in it waited least. When the one sent after that one is still under way,
//! that one waited no longer than the time between the two, and what its round trip is longer than the shortest is queue. When
//! nothing is under way any more, none of what we sent is in a queue, however long it waited to be acknowledged.
//!
//! How long acknowledgements wait is estimated as draft-ietf-ccwg-bbr estimates the extra acknowledged data: what comes in a
//! burst beyond a segment, at the rate of the path, took so long to arrive; but no longer than since the burst before.

use fulmar_wire::seq::Seq;

/// Bursts that are told together from here on count as such, microseconds: other receivers wait up to 5 ms, and longer when
/// some of what they say gets lost.
const SHORTEST: u64 = 8_000;
/// Longest wait that is believed, microseconds.
const LONGEST: u64 = 600_000;
/// How long a wait counts: two halves of this, microseconds; at least of eight times the wait.
const HALF_WINDOW: u64 = 2_000_000;
/// Bursts that are remembered. Most of what they brought must have waited.
const LATEST: usize = 16;
/// Datagrams that come within this time are one burst, microseconds, or within an eighth of the wait.
const GAP: u64 = 1_000;
/// Bursts of the beginning.
const BEGINNING: u32 = 12;

/// What came together.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Burst {
    /// When its first and its last datagram came, microseconds.
    pub(super) began: u64,
    pub(super) ended: u64,
    /// Bytes per second that arrived since the one before; 0 if that is not known.
    pub(super) arrival: f64,
    /// Bytes that it acknowledged.
    bytes: u64,
    /// Of the segments that were sent once, the one that left last, when, and how long ago that was.
    pub(super) newest: Option<(Seq, u64, u64)>,
    /// When the one left that left first.
    oldest: Option<u64>,
    /// Bytes still in flight after it.
    pub(super) flight: u64,
}

#[derive(Debug, Default)]
pub(super) struct Bursts {
    open: Option<Burst>,
    /// When the one before ended.
    before: Option<u64>,
    /// Bursts that were looked at, and of the latest: how long the first segment waited, and bytes.
    count: u32,
    latest: [(u32, u32); LATEST],
    wait: u64,
    /// The two longest waits of this half of the window and of the half before: one alone may be an accident.
    longest: [[u64; 2]; 2],
    half_began: u64,
    prompt: bool,
    /// Bytes delivered so far.
    delivered: u64,
}

impl Bursts {
    /// How long acknowledgements wait for each other, microseconds; 0 when that is not worth a thought.
    pub(super) const fn wait(&self) -> u64 {
        self.wait
    }

    fn gap(&self) -> u64 {
        GAP.max(self.wait() / 8)
    }

    /// The present burst, if it is over.
    pub(super) fn close(
        &mut self,
        now: u64,
        bandwidth: f64,
        min_rtt: u64,
        segment: u64,
    ) -> Option<Burst> {
        let gap = self.gap();
        let mut burst = self.open.take_if(|b| now > b.ended + gap)?;
        if let Some(before) = self.before
            && bandwidth > 0.0
        {
            let extra = burst.bytes.saturating_sub(segment) as f64 * 1e6 / bandwidth;
            let mut wait = (extra as u64).min(burst.began - before).min(LONGEST);
            if self.count < BEGINNING {
                // While the rate is not known.
                let late = burst.oldest.map_or(0, |at| burst.began - at);
                wait = wait.min(late.saturating_sub(min_rtt));
            }
            self.waited(burst.ended, wait, burst.bytes);
            let since = burst.ended - before;
            if since > self.wait() / 2 && since > SHORTEST / 2 {
                burst.arrival = burst.bytes as f64 * 1e6 / since as f64;
            }
        }
        self.before = Some(burst.ended);
        Some(burst)
    }

    /// When the present burst is over, if that matters.
    pub(super) fn closes_at(&self) -> Option<u64> {
        let burst = self.open.as_ref().filter(|_| self.wait() > 0)?;
        Some(burst.ended + self.gap() + 1)
    }

    /// So much came in a burst whose first segment waited so long.
    fn waited(&mut self, now: u64, wait: u64, bytes: u64) {
        let short = |n| u32::try_from(n).unwrap_or(u32::MAX);
        self.latest[self.count as usize % LATEST] = (short(wait), short(bytes));
        self.count = self.count.wrapping_add(1);
        if now.saturating_sub(self.half_began) > HALF_WINDOW.max(8 * self.wait) {
            self.half_began = now;
            self.longest = [[0; 2], self.longest[0]];
        }
        let [first, second] = &mut self.longest[0];
        if wait > *first {
            *second = std::mem::replace(first, wait);
        } else {
            *second = (*second).max(wait);
        }
        let enough = if self.wait > 0 {
            SHORTEST / 2
        } else {
            SHORTEST
        };
        let [[a, b], [c, d]] = self.longest;
        // The second of all four; in the beginning, when growth depends on it, the first.
        let usual = if self.count < BEGINNING {
            a
        } else {
            a.min(c).max(if a > c { b } else { d })
        };
        self.wait = if self.median() >= enough && !self.prompt {
            usual.max(SHORTEST)
        } else {
            0
        };
    }

    /// At least half of what came lately waited so long, or longer.
    fn median(&self) -> u64 {
        let mut waits = self.latest;
        waits.sort_unstable();
        let all: u64 = waits.iter().map(|w| u64::from(w.1)).sum();
        let mut sum = 0;
        let median = waits.iter().find(|w| {
            sum += u64::from(w.1);
            2 * sum >= all
        });
        median.map_or(0, |w| u64::from(w.0))
    }

    /// The receiver is known to acknowledge within a few milliseconds; gaps are lost acknowledgements.
    pub(super) const fn prompt(&mut self, prompt: bool) {
        self.prompt = prompt;
        if prompt {
            self.wait = 0;
        }
    }

    /// A segment that was sent once has been acknowledged.
    #[inline]
    pub(super) fn delivered(&mut self, now: u64, sn: Seq, sent: u64) {
        let burst = self.open_at(now);
        if burst.newest.is_none_or(|n| sent >= n.1) {
            burst.newest = Some((sn, sent, now - sent));
        }
        burst.oldest = Some(burst.oldest.map_or(sent, |at| at.min(sent)));
    }

    /// A datagram has acknowledged something. So much has been delivered by now, and so much is in flight.
    pub(super) fn acked(&mut self, now: u64, delivered: u64, flight: u64) {
        let bytes = delivered - std::mem::replace(&mut self.delivered, delivered);
        let burst = self.open_at(now);
        burst.ended = now;
        burst.bytes += bytes;
        burst.flight = flight;
    }

    fn open_at(&mut self, now: u64) -> &mut Burst {
        self.open.get_or_insert_with(|| Burst {
            began: now,
            ended: now,
            ..Burst::default()
        })
    }

    /// Nothing was to be sent: what comes next tells nothing of waiting.
    pub(super) const fn paused(&mut self) {
        self.before = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream of a segment of 1000 bytes each millisecond over 20 ms, which is acknowledged each so many milliseconds.
    fn acknowledged_each(ms: u64) -> (Bursts, Vec<Burst>) {
        let mut bursts = Bursts::default();
        let mut closed = Vec::new();
        for i in 1..3000 / ms {
            let now = 1_000 * ms * i;
            closed.extend(bursts.close(now, 1e6, 20_000, 1000));
            for k in 0..ms {
                let sn = ms * (i - 1) + k;
                bursts.delivered(
                    now,
                    Seq(sn as u32),
                    now.saturating_sub(20_000 + 1_000 * (ms - k)),
                );
            }
            bursts.acked(now, ms * i * 1000, 20_000);
        }
        (bursts, closed)
    }

    #[test]
    fn the_time_between_ticks_is_found() {
        for ms in [20, 50, 100, 200] {
            let (bursts, closed) = acknowledged_each(ms);
            let found = bursts.wait();
            assert!(found <= 1_000 * ms && found >= 900 * ms, "{ms} ms: {found}");
            let last = closed.last().expect("many");
            assert!((last.arrival - 1e6).abs() < 1e3, "{last:?}");
            // What left last waited least.
            assert_eq!(last.newest.map(|n| n.2), Some(21_000));
        }
    }

    #[test]
    fn acknowledgements_within_a_few_milliseconds_are_no_bursts() {
        for ms in [1, 2, 5] {
            assert_eq!(acknowledged_each(ms).0.wait(), 0);
        }
        let (mut bursts, _) = acknowledged_each(50);
        bursts.prompt(true);
        assert_eq!(bursts.wait(), 0);
    }

    #[test]
    fn one_gap_is_none_either() {
        let (mut bursts, _) = acknowledged_each(5);
        let now = 5_000_000;
        for sn in 0..500 {
            bursts.delivered(now, Seq(10_000 + sn), now - 520_000 + 1_000 * u64::from(sn));
        }
        bursts.acked(now, 5_000_000, 20_000);
        for i in 1..20 {
            let now = now + 5_000 * i;
            bursts.close(now, 1e6, 20_000, 1000);
            bursts.delivered(now, Seq(20_000 + i as u32), now - 21_000);
            bursts.acked(now, 5_000_000 + 5_000 * i, 20_000);
        }
        assert_eq!(bursts.wait(), 0);
    }
}
