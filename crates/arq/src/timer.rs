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
            due.add(self.acks_since + interval);
        }
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
        if self.rmt_wnd == 0 {
            // Not yet asking: the next flush begins with it.
            due.add(if self.probe_wait == 0 {
                next_round
            } else {
                Instant::from_millis(self.probe_at)
            });
        }
        due.0
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
