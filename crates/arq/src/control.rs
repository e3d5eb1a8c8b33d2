//! The seam where it is decided what may be sent and when.
//!
//! The machine keeps segments, numbers, acknowledgements and clocks. Everything that is a *choice* of the sender is asked
//! of a [`SenderControl`]: how many segments may be in flight, when the next may leave, which evidence is enough to send one
//! again, and how long one then waits. In return it is told what was sent, delivered, found lost or timed out. A receiver
//! accepts any pattern within its window, so strategies can differ freely between the two ends.
//!
//! [`Classic`] is KCP as it was: the profiles of spec/kcptun.md, section 2.5, with the congestion window of sections 6.5
//! (step 7) and 6.6. It has no pacing.
//!
//! What a strategy that paces and measures finds here: [`SenderControl::on_delivered`] names each segment with its time of sending,
//! so that delivery rate can be sampled from a ring of its own that is indexed by number; [`SenderControl::on_acked`] brings the
//! round-trip sample and the sums once per datagram; [`SenderControl::next_send_time`] holds back the next segment and becomes part of the
//! machine's timer; [`SenderControl::lost_before`] declares losses by time instead of by counting.

use fulmar_wire::seq::Seq;
use fulmar_wire::time::{Instant, Millis};

use crate::config::Config;

/// Why a segment is transmitted.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Cause {
    /// For the first time.
    First,
    /// `resend` later segments have been acknowledged.
    Fast,
    /// Some later segment has been acknowledged, and there is nothing new to send.
    Early,
    /// A strategy's clock says that it is lost ([`SenderControl::lost_before`]).
    Overdue,
    /// Its retransmission timeout has passed.
    Timeout,
}

/// What speaks for sending a segment again.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Evidence {
    /// Acknowledgements of later segments since the last transmission that counts; stops at
    /// [`SenderControl::skip_threshold`] (at 1 when that is 0). 0 after a fast or early retransmission, until the next timeout.
    pub skipped: u32,
    /// Its retransmission timeout has passed.
    pub expired: bool,
    /// It was last sent at or before [`SenderControl::lost_before`].
    pub overdue: bool,
    /// This flush numbered new segments.
    pub new_data: bool,
}

/// The sizes that limit a window, in segments.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Configured.
    pub snd_wnd: u32,
    /// Last told by the other side.
    pub rmt_wnd: u32,
}

/// One transmission.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Sent {
    /// Which segment.
    pub sn: Seq,
    /// Payload bytes.
    pub len: usize,
    /// Why.
    pub cause: Cause,
    /// Segments sent and unacknowledged, this one included.
    pub in_flight: u32,
}

/// One segment that turned out to be delivered.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Delivered {
    /// Which segment.
    pub sn: Seq,
    /// Payload bytes.
    pub len: usize,
    /// When it was last transmitted.
    pub sent: Millis,
    /// How often it was transmitted.
    pub transmissions: u32,
}

/// What one datagram acknowledged.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Acked {
    /// Segments that were in flight and are no longer.
    pub segments: u32,
    /// Their payload bytes.
    pub bytes: u64,
    /// Whether `snd_una` moved.
    pub advanced: bool,
    /// A round trip measured by it, in milliseconds. Free of ambiguity: the time is echoed.
    pub rtt_ms: Option<u32>,
    /// Segments still in flight.
    pub in_flight: u32,
    /// The other side's window now.
    pub rmt_wnd: u32,
}

/// What one flush sent again, for one kind of reason.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Lost {
    /// How many segments.
    pub segments: u32,
    /// `snd_nxt - snd_una`.
    pub outstanding: u32,
    /// The window that this flush worked with.
    pub window: u32,
}

/// Numbers for the status page; zeros where a strategy has none.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Congestion {
    /// Congestion window, in segments.
    pub cwnd: u32,
    /// Slow-start threshold, in segments.
    pub ssthresh: u32,
    /// Bytes gathered towards the next increase.
    pub incr: u32,
}

/// See the module.
pub trait SenderControl {
    /// How far `snd_nxt` may run ahead of `snd_una`, in segments.
    fn window(&self, now: Instant, limits: Limits) -> u32;

    /// Before when no data segment may leave. `None`, or a time that has come: now.
    #[inline]
    fn next_send_time(&self, _now: Instant) -> Option<Instant> {
        None
    }

    /// How many acknowledgements of later segments are counted, at most 255. From this count on, a flush is asked for as
    /// soon as a datagram adds one.
    fn skip_threshold(&self) -> u32;

    /// Segments last sent at or before this time are overdue.
    #[inline]
    fn lost_before(&self, _now: Instant) -> Option<Instant> {
        None
    }

    /// Whether to send a segment again. Asked in a full flush about segments for which anything speaks.
    fn resend(&self, evidence: &Evidence) -> Option<Cause>;

    /// How long the segment that is being sent waits until its timeout. `waited` is what it had before (0 at first), `rto` the
    /// current estimate, all in milliseconds.
    fn timeout(&self, cause: Cause, waited: u32, rto: u32) -> u32;

    /// A segment has been sent.
    #[inline]
    fn on_sent(&mut self, _now: Instant, _sent: &Sent) {}

    /// A segment has been delivered. Called for each, before [`Self::on_acked`].
    #[inline]
    fn on_delivered(&mut self, _now: Instant, _delivered: &Delivered) {}

    /// A datagram has been taken in that acknowledged something or brought a round-trip sample.
    #[inline]
    fn on_acked(&mut self, _now: Instant, _acked: &Acked) {}

    /// A flush has sent segments again because of acknowledgements or by [`Self::lost_before`].
    #[inline]
    fn on_lost(&mut self, _now: Instant, _lost: &Lost) {}

    /// A flush has sent segments again because of their timeouts. After [`Self::on_lost`] when both happened.
    #[inline]
    fn on_timeout(&mut self, _now: Instant, _lost: &Lost) {}

    /// A flush has ended.
    #[inline]
    fn on_flushed(&mut self, _now: Instant) {}

    /// For display.
    #[inline]
    fn congestion(&self) -> Congestion {
        Congestion::default()
    }
}

/// KCP's own rules.
#[derive(Copy, Clone, Debug)]
pub struct Classic {
    backoff_half: bool,
    resend: u32,
    /// Off in every named profile.
    congestion_control: bool,
    mss: u32,
    cwnd: u32,
    ssthresh: u32,
    incr: u32,
}

/// Smallest slow-start threshold, in segments.
const MIN_SSTHRESH: u32 = 2;

impl Classic {
    /// The rules of `config.profile`.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let config = config.normalized();
        Self {
            backoff_half: config.profile.nodelay != 0,
            resend: config.profile.resend,
            congestion_control: config.profile.congestion_control,
            mss: u32::try_from(config.mss()).unwrap_or(u32::MAX),
            cwnd: 0,
            ssthresh: MIN_SSTHRESH,
            incr: 0,
        }
    }

    /// Section 6.6.
    fn grow(&mut self, rmt_wnd: u32) {
        if self.cwnd >= rmt_wnd {
            return;
        }
        let mss = self.mss.max(1);
        if self.cwnd < self.ssthresh {
            self.cwnd += 1;
            self.incr = self.incr.saturating_add(mss);
        } else {
            self.incr = self.incr.max(mss);
            // mss is at most 16 bits, so its square fits.
            self.incr = self
                .incr
                .saturating_add(mss.saturating_mul(mss) / self.incr + mss / 16);
            if (self.cwnd + 1).saturating_mul(mss) <= self.incr {
                self.cwnd = self.incr.div_ceil(mss);
            }
        }
        if self.cwnd > rmt_wnd {
            self.cwnd = rmt_wnd;
            self.incr = rmt_wnd.saturating_mul(mss);
        }
    }
}

impl SenderControl for Classic {
    #[inline]
    fn window(&self, _now: Instant, limits: Limits) -> u32 {
        let window = limits.snd_wnd.min(limits.rmt_wnd);
        if self.congestion_control {
            window.min(self.cwnd)
        } else {
            window
        }
    }

    #[inline]
    fn skip_threshold(&self) -> u32 {
        self.resend
    }

    #[inline]
    fn resend(&self, e: &Evidence) -> Option<Cause> {
        if self.resend > 0 && e.skipped >= self.resend {
            Some(Cause::Fast)
        } else if e.skipped > 0 && !e.new_data {
            Some(Cause::Early)
        } else if e.expired {
            Some(Cause::Timeout)
        } else {
            None
        }
    }

    #[inline]
    fn timeout(&self, cause: Cause, waited: u32, rto: u32) -> u32 {
        match cause {
            // Additive: each timeout adds the same again.
            Cause::Timeout if self.backoff_half => waited.saturating_add(rto / 2),
            Cause::Timeout => waited.saturating_add(rto),
            _ => rto,
        }
    }

    #[inline]
    fn on_acked(&mut self, _now: Instant, acked: &Acked) {
        if self.congestion_control && acked.advanced {
            self.grow(acked.rmt_wnd);
        }
    }

    fn on_lost(&mut self, _now: Instant, lost: &Lost) {
        if self.congestion_control {
            self.ssthresh = (lost.outstanding / 2).max(MIN_SSTHRESH);
            // With fast resend off, upstream adds a threshold of 2^32 - 1 here, which wraps to one less.
            let resend = if self.resend == 0 {
                u32::MAX
            } else {
                self.resend
            };
            self.cwnd = self.ssthresh.wrapping_add(resend);
            self.incr = self.cwnd.saturating_mul(self.mss);
        }
    }

    fn on_timeout(&mut self, _now: Instant, lost: &Lost) {
        if self.congestion_control {
            self.ssthresh = (lost.window / 2).max(MIN_SSTHRESH);
            self.cwnd = 1;
            self.incr = self.mss;
        }
    }

    #[inline]
    fn on_flushed(&mut self, _now: Instant) {
        if self.congestion_control && self.cwnd < 1 {
            self.cwnd = 1;
            self.incr = self.mss;
        }
    }

    fn congestion(&self) -> Congestion {
        Congestion {
            cwnd: self.cwnd,
            ssthresh: self.ssthresh,
            incr: self.incr,
        }
    }
}

/// The strategies that a configuration can name.
#[derive(Copy, Clone, Debug)]
#[non_exhaustive]
pub enum Strategy {
    /// KCP's own rules.
    Classic(Classic),
}

/// Calls the same method of whichever strategy it is.
macro_rules! each {
    ($self:expr, $control:ident => $call:expr) => {
        match $self {
            Strategy::Classic($control) => $call,
        }
    };
}

impl SenderControl for Strategy {
    #[inline]
    fn window(&self, now: Instant, limits: Limits) -> u32 {
        each!(self, c => c.window(now, limits))
    }

    #[inline]
    fn next_send_time(&self, now: Instant) -> Option<Instant> {
        each!(self, c => c.next_send_time(now))
    }

    #[inline]
    fn skip_threshold(&self) -> u32 {
        each!(self, c => c.skip_threshold())
    }

    #[inline]
    fn lost_before(&self, now: Instant) -> Option<Instant> {
        each!(self, c => c.lost_before(now))
    }

    #[inline]
    fn resend(&self, evidence: &Evidence) -> Option<Cause> {
        each!(self, c => c.resend(evidence))
    }

    #[inline]
    fn timeout(&self, cause: Cause, waited: u32, rto: u32) -> u32 {
        each!(self, c => c.timeout(cause, waited, rto))
    }

    #[inline]
    fn on_sent(&mut self, now: Instant, sent: &Sent) {
        each!(self, c => c.on_sent(now, sent));
    }

    #[inline]
    fn on_delivered(&mut self, now: Instant, delivered: &Delivered) {
        each!(self, c => c.on_delivered(now, delivered));
    }

    #[inline]
    fn on_acked(&mut self, now: Instant, acked: &Acked) {
        each!(self, c => c.on_acked(now, acked));
    }

    #[inline]
    fn on_lost(&mut self, now: Instant, lost: &Lost) {
        each!(self, c => c.on_lost(now, lost));
    }

    #[inline]
    fn on_timeout(&mut self, now: Instant, lost: &Lost) {
        each!(self, c => c.on_timeout(now, lost));
    }

    #[inline]
    fn on_flushed(&mut self, now: Instant) {
        each!(self, c => c.on_flushed(now));
    }

    fn congestion(&self) -> Congestion {
        each!(self, c => c.congestion())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Profile;

    fn classic(profile: Profile) -> Classic {
        Classic::new(&Config {
            mtu: 112,
            profile,
            ..Config::default()
        })
    }

    fn evidence(skipped: u32, expired: bool, new_data: bool) -> Evidence {
        Evidence {
            skipped,
            expired,
            overdue: false,
            new_data,
        }
    }

    #[test]
    fn resend_rules_in_their_order() {
        let c = classic(Profile::FAST);
        assert_eq!(c.resend(&evidence(2, true, true)), Some(Cause::Fast));
        assert_eq!(c.resend(&evidence(1, true, false)), Some(Cause::Early));
        assert_eq!(c.resend(&evidence(1, true, true)), Some(Cause::Timeout));
        assert_eq!(c.resend(&evidence(1, false, true)), None);
        assert_eq!(c.resend(&evidence(0, false, false)), None);
        let off = classic(Profile::MANUAL);
        assert_eq!(off.resend(&evidence(1, false, true)), None);
        assert_eq!(off.resend(&evidence(1, false, false)), Some(Cause::Early));
    }

    #[test]
    fn back_off_is_additive() {
        let slow = classic(Profile::NORMAL);
        assert_eq!(slow.timeout(Cause::First, 0, 200), 200);
        assert_eq!(slow.timeout(Cause::Timeout, 200, 200), 400);
        assert_eq!(slow.timeout(Cause::Timeout, 400, 200), 600);
        assert_eq!(slow.timeout(Cause::Fast, 600, 200), 200);
        let quick = classic(Profile::FAST3);
        assert_eq!(quick.timeout(Cause::Timeout, 200, 200), 300);
        assert_eq!(slow.timeout(Cause::Timeout, u32::MAX, 200), u32::MAX);
    }

    #[test]
    fn without_congestion_control_only_the_two_windows_count() {
        let mut c = classic(Profile::FAST);
        let limits = Limits {
            snd_wnd: 100,
            rmt_wnd: 40,
        };
        c.on_timeout(
            Instant::ZERO,
            &Lost {
                segments: 5,
                outstanding: 40,
                window: 40,
            },
        );
        assert_eq!(c.window(Instant::ZERO, limits), 40);
    }

    #[test]
    fn a_loss_with_fast_resend_off_leaves_one_less_than_the_threshold() {
        let mut c = classic(Profile::MANUAL);
        c.on_lost(
            Instant::ZERO,
            &Lost {
                segments: 1,
                outstanding: 20,
                window: 20,
            },
        );
        assert_eq!(
            c.congestion(),
            Congestion {
                cwnd: 9,
                ssthresh: 10,
                incr: 9 * 88
            }
        );
    }
}
