//! What a session knows of its path when its sender does not measure it: round trips, and how much is sent again.

use fulmar_arq::Kcp;
use fulmar_wire::seq::Seq;

use crate::counters::Counters;

/// Segments that the share rests on; beyond that, older ones weigh half.
const MEMORY: u32 = 1000;

/// Data segments sent, and those of them that were sent again.
#[derive(Copy, Clone, Default, Debug)]
pub(crate) struct Resent {
    sent: u32,
    again: u32,
    /// The next new segment, when it was last counted.
    next: Seq,
}

impl Resent {
    /// `again` segments have been sent again since the last time, beside those that were new.
    pub(crate) fn add(&mut self, kcp: &Kcp, again: u64) {
        let again = u32::try_from(again).unwrap_or(u32::MAX);
        let next = kcp.snd_nxt();
        let new = next.0.wrapping_sub(self.next.0);
        self.next = next;
        self.sent = self.sent.saturating_add(new).saturating_add(again);
        self.again = self.again.saturating_add(again);
        while self.sent > 2 * MEMORY {
            self.sent /= 2;
            self.again /= 2;
        }
    }

    /// Says what is known of the path, if anything is.
    pub(crate) fn count(self, kcp: &Kcp, to: &mut Counters) {
        let micros = |d: core::time::Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        let Some(srtt) = kcp.srtt() else {
            return;
        };
        to.path_srtt_us = micros(srtt);
        to.path_min_rtt_us = micros(kcp.min_rtt().unwrap_or(srtt));
        to.path_loss_ppm = u64::from(self.again) * 1_000_000 / u64::from(self.sent.max(1));
    }
}
