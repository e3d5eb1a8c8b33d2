//! KCP as it was: the profiles of docs/spec/kcptun.md, section 3.3, with the congestion window of section 7.7. It has no pacing.

use fulmar_wire::time::Instant;

use super::{Acked, Cause, Congestion, Evidence, Limits, Lost, SenderControl};
use crate::config::Config;

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

    /// Section 7.7.
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
    fn skip_threshold(&self) -> Option<u32> {
        Some(self.resend)
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
