//! When something is due.
//!
//! Upstream flushes every interval whether or not there is anything to do. Here a timer exists only while
//! something waits for it, so a conversation that is at rest costs nothing; what waits does so no longer than it would upstream.

use std::time::Duration;

use fulmar_wire::time::Instant;

use crate::control::{Limits, SenderControl};
use crate::kcp::{DatagramSink, Flush, FlushWanted, Kcp};

impl<C: SenderControl> Kcp<C> {
    /// When [`Self::handle_timeout`] has something to do; `None` when only a datagram or a write can change that.
    ///
    /// | waiting | due |
    /// |---|---|
    /// | a flush that was asked for ([`Self::flush_wanted`]) | now |
    /// | acknowledgements, an answer to a window probe | an interval after the first of them arrived |
    /// | data that may leave; a segment that was skipped too rarely for a fast retransmission | an interval after the last flush |
    /// | segments in flight | at the earliest of their timeouts |
    /// | data before a closed window | at the next probe |
    /// | a copy of a segment of a sparse flow | when it has found no company |
    ///
    /// With a strategy that finds losses by time, data and what is lost leave at the strategy's pace, and what is in flight is due when the
    /// strategy says.
    ///
    /// Data never before the time that the strategy allows. After a flush that ran out of room, nothing before an
    /// interval has passed: the caller knows better when there is room again.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let interval = Duration::from_millis(u64::from(self.config.profile.interval_ms));
        let next_round = self.last_flush + interval;
        let mut due = Earliest(None);
        if self.wanted != FlushWanted::None {
            due.add(self.clock);
        }
        if !self.acks.is_empty() || self.tell {
            let busy = self.arrivals.1 + self.arrivals.2 > 4;
            due.add(self.acks_since + self.control.ack_delay(interval, busy));
        }
        due.add_all(self.copies.poll_timeout());
        if self.ask {
            due.add(next_round);
        }
        if self.tx.waiting() > 0 {
            due.add_all(self.data_due(next_round));
        }
        match due.0 {
            Some(at) if self.blocked => Some(at.max(next_round)),
            at => at,
        }
    }

    /// A full flush, if [`Self::poll_timeout`] has come.
    pub fn handle_timeout<S: DatagramSink + ?Sized>(&mut self, now: Instant, out: &mut S) {
        if self.poll_timeout().is_some_and(|at| at <= now) {
            self.flush(now, Flush::Full, out);
        }
    }

    fn data_due(&self, next_round: Instant) -> Option<Instant> {
        if self.control.skip_threshold().is_none() {
            return self.data_due_by_time(next_round);
        }
        let mut due = Earliest(self.next_timeout.map(Instant::from_millis));
        let window = self.control.window(
            self.clock,
            Limits {
                snd_wnd: self.config.snd_wnd,
                rmt_wnd: self.rmt_wnd,
            },
        );
        // A strategy that closes its window with nothing in flight (as classic congestion control does at
        // first) is asked again: nothing else would come to wake us.
        let open = self.tx.outstanding() < window || self.tx.outstanding() == 0 && self.rmt_wnd > 0;
        let may_leave = self.tx.unsent() != self.tx.nxt() || self.tx.queued() > 0 && open;
        if may_leave || self.tx.has_skipped() {
            due.add(next_round);
        }
        if let Some(at) = self.control.next_send_time(self.clock) {
            due.0 = due.0.map(|d| d.max(at));
            if may_leave {
                due.add(at);
            }
        }
        due.add_all(self.window_probe_due(next_round));
        due.0
    }

    /// The same for a strategy that finds losses by time: nothing waits for the next interval.
    fn data_due_by_time(&self, next_round: Instant) -> Option<Instant> {
        let clock = self.clock;
        let mut due = Earliest(None);
        let limits = Limits {
            snd_wnd: self.config.snd_wnd,
            rmt_wnd: self.rmt_wnd,
        };
        let window = self.control.window(clock, limits);
        let open = self.tx.outstanding() < window;
        let may_leave = (self.tx.unsent() != self.tx.nxt() || self.tx.queued() > 0 && open)
            && self.tx.in_flight() < self.control.flight_limit();
        let pace = self.control.next_send_time(clock).unwrap_or(clock);
        if may_leave {
            due.add(pace);
        }
        if let Some(oldest) = self.tx.oldest_sent() {
            let age = u64::from(clock.wire_millis().0.wrapping_sub(oldest.0));
            let sent = Instant::from_millis(clock.as_millis().saturating_sub(age));
            let overdue = if self.lost_until.is_some_and(|until| oldest.diff(until) <= 0) {
                Some(clock)
            } else {
                self.control.overdue_at(sent)
            };
            due.add_all(overdue.map(|at| at.max(pace)));
            if self.tx.in_flight() > 0 {
                due.add_all(self.control.probe_at());
            }
        }
        due.add_all(self.window_probe_due(next_round));
        due.0
    }

    /// When a closed window is asked about.
    fn window_probe_due(&self, next_round: Instant) -> Option<Instant> {
        // Not yet asking: the next flush begins with it.
        (self.rmt_wnd == 0).then(|| {
            if self.probe_wait == 0 {
                next_round
            } else {
                Instant::from_millis(self.probe_at)
            }
        })
    }
}

/// The earliest of several times.
struct Earliest(Option<Instant>);

impl Earliest {
    fn add(&mut self, at: Instant) {
        self.0 = Some(self.0.map_or(at, |d| d.min(at)));
    }

    fn add_all(&mut self, at: Option<Instant>) {
        if let Some(at) = at {
            self.add(at);
        }
    }
}
