//! Where the peer of a session is: whether it has shown to be where the session sends to, what may be sent there until then, and what
//! is said to another address where it may be now. The endpoint decides (`endpoint/{credit,moves}.rs`), docs/design/roaming.md says why.

use core::time::Duration;

use fulmar_arq::{self as arq, Kcp};
use fulmar_wire::fec::HEADER_LEN as FEC_HEADER_LEN;
use fulmar_wire::kcp::HEADER_LEN;
use fulmar_wire::time::Instant;

use super::Session;
use super::packets::{Outlet, Sink};
use crate::addresses::{Allowance, REFRESH_EVERY, REMEMBERED_FOR, REPEAT_BYTES, SEGMENT};
use crate::counters::Counters;
use crate::transmit::{Path, Written};

/// UDP payload of a client's first datagram, bytes: what every path carries, and what QUIC's have (RFC 9000, section 14.1).
const FIRST_DATAGRAM: usize = 1200;

/// An address is asked again after a retransmission timeout, or after so long if that has grown.
const LONGEST_PATIENCE: Duration = Duration::from_secs(1);

/// Another address that datagrams of a conversation come from, while it is found out whether its peer is there.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Candidate {
    /// Where that is.
    pub(crate) path: Path,
    /// When something came from there last.
    pub(crate) heard: Instant,
    /// When the first question left.
    pub(crate) asked: Option<Instant>,
    /// When the next one is due.
    pub(crate) next: Instant,
    /// Questions that have left.
    pub(crate) tries: u32,
    /// Since when it is known that who is there gets what is sent there.
    pub(crate) shown: Option<Instant>,
}

impl Candidate {
    /// When the peer is believed to be there, unless the other address answers before that: `patience` after the question, and half of it
    /// after the answer, which the other one's may follow.
    pub(crate) fn over_at(&self, patience: Duration) -> Option<Instant> {
        let shown = self.shown?;
        let answered = shown + patience / 2;
        Some(
            self.asked
                .map_or(answered, |asked| answered.max(asked + patience)),
        )
    }
}

/// A validated address is still heard.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Refresh {
    /// When it was heard last.
    pub(crate) heard: Instant,
}

/// What is known of the address that a session sends to.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Standing {
    /// When it was last told that the validated address is heard; never for those that are configured. `None`: it is not validated.
    since: Option<Instant>,
    /// The last flush left something behind for which there is no allowance.
    pub(super) blocked: bool,
    /// It may still repeat something.
    pub(super) repeats: bool,
}

impl Default for Standing {
    /// That of an address that is configured.
    fn default() -> Self {
        Self {
            since: Some(Instant::FAR_FUTURE),
            blocked: false,
            repeats: true,
        }
    }
}

impl Standing {
    pub(crate) const fn is_known(&self) -> bool {
        self.since.is_some()
    }
}

impl Session {
    /// Whether the peer is known to be where it seems to be: it has been shown, or the address is configured.
    pub(crate) const fn is_known(&self) -> bool {
        self.standing.is_known()
    }

    /// When the peer was last heard from an address that has been shown to be its.
    pub(crate) fn known_heard(&self) -> Option<Instant> {
        let shown = self.standing.since? != Instant::FAR_FUTURE;
        self.kcp.last_heard().filter(|_| shown)
    }

    /// The first datagram has so many bytes of UDP payload at least, where that may be, until the other side was heard: what a server
    /// that does not know where its peers are may answer is three times as much. `around`: bytes around what KCP writes.
    pub(crate) fn pad_first(&mut self, around: usize) {
        let header = if self.encoder.is_some() {
            FEC_HEADER_LEN
        } else {
            0
        };
        self.kcp
            .pad_until_heard(FIRST_DATAGRAM.saturating_sub(around + header));
    }

    /// Whether it has something to say, and may not: nobody has shown to be where that would go.
    pub(crate) const fn is_silenced(&self) -> bool {
        self.standing.blocked && !self.standing.is_known()
    }

    /// Whether it has more to send than may go to its address.
    pub(crate) const fn is_blocked(&self) -> bool {
        self.standing.blocked
    }

    /// Whether the peer has shown that it gets what is sent to it, since this was asked last.
    pub(crate) fn take_echo(&mut self) -> bool {
        self.kcp.take_echo()
    }

    /// Anybody may have forged the address of the peer.
    pub(crate) fn distrust(&mut self) {
        self.standing = Standing {
            since: None,
            ..Standing::default()
        };
        self.kcp.expect_echo(true);
        self.kcp.set_datagram_size(SEGMENT + HEADER_LEN);
    }

    /// The peer is where it seems to be. Its address is to be told to be heard from time to time, beginning at `now`.
    pub(crate) fn trust(&mut self, now: Instant) {
        self.standing = Standing {
            since: Some(now),
            ..Standing::default()
        };
        self.kcp.expect_echo(false);
        let size = self.measuring.as_ref().map(|m| m.datagram_size());
        let size = size.unwrap_or(self.kcp.config().mtu);
        self.kcp.set_datagram_size(size);
        if self.measuring.is_none() && self.kcp.snd_una() != self.kcp.snd_nxt() {
            // The timeouts of what leaves now, all at once, are those of a path that nobody has measured.
            self.kcp.measure_from(Some(now));
        }
    }

    /// What is to be told of the address of a peer that has been shown to be there, if anything.
    pub(crate) fn check_standing(&mut self, now: Instant) -> Option<Refresh> {
        let since = self.standing.since?;
        if since == Instant::FAR_FUTURE || now.since(since) < REFRESH_EVERY {
            return None;
        }
        let heard = self.kcp.last_heard().unwrap_or(self.opened_at);
        if now.since(heard) >= REMEMBERED_FOR {
            self.distrust();
            return None;
        }
        self.standing.since = Some(now);
        Some(Refresh { heard })
    }

    /// Writes what `what` has to say to `path`, which is not where the session sends to: no parity, which would protect what goes elsewhere.
    fn write_away(
        &mut self,
        now: Instant,
        path: Path,
        outlet: &mut Outlet<'_>,
        what: impl FnOnce(&mut Kcp, &mut Sink<'_>),
    ) -> Written {
        let encoder = self.encoder.take();
        let home = std::mem::replace(&mut self.path, path);
        let written = self.write(now, outlet, what);
        self.path = home;
        self.encoder = encoder;
        written
    }

    /// Sends what acknowledgements are owed to `path`.
    pub(crate) fn acknowledge(
        &mut self,
        now: Instant,
        path: Path,
        outlet: &mut Outlet<'_>,
    ) -> Written {
        self.write_away(now, path, outlet, |kcp, sink| {
            kcp.acknowledge(now, sink);
        })
    }

    /// Asks whether the peer is at `path`, and, with the next flush, whether it is where it was. Nothing is written if there is nothing to ask with.
    pub(crate) fn ask_away(
        &mut self,
        now: Instant,
        path: Path,
        outlet: &mut Outlet<'_>,
    ) -> Written {
        self.write_away(now, path, outlet, |kcp, sink| {
            kcp.ask_away(now, sink);
        })
    }

    /// How long an address is asked before the next question, and how long the other one may take to say that the peer is still there.
    pub(crate) fn patience(&self) -> Duration {
        self.kcp.rto().min(LONGEST_PATIENCE)
    }

    /// Who sent the last datagram, as far as that has answered something.
    pub(crate) fn take_answers(&mut self) -> arq::Answers {
        self.kcp.take_answers()
    }

    /// The peer is not at the other address, or has moved there.
    pub(crate) fn end_question(&mut self) {
        self.candidate = None;
        self.kcp.end_question();
    }

    /// The peer is now at `path`; where it was. What is under way to there is sent again.
    pub(crate) fn move_to(&mut self, now: Instant, path: Path) -> Path {
        self.end_question();
        let old = std::mem::replace(&mut self.path, path);
        self.trust(now);
        self.kcp.resend_all(now);
        old
    }

    /// When something is to be done about the other address.
    pub(super) fn candidate_due(&self) -> Option<Instant> {
        let candidate = self.candidate.as_ref()?;
        Some(match candidate.asked {
            Some(_) => candidate.over_at(self.patience()).unwrap_or(candidate.next),
            None => candidate.next,
        })
    }

    /// Sends the oldest segment in flight again to an address that may get nothing else, if it is time. Whether it left.
    pub(super) fn repeat(
        &mut self,
        now: Instant,
        outlet: &mut Outlet<'_>,
        counters: &mut Counters,
    ) -> bool {
        let paid = outlet.credit.bytes >= REPEAT_BYTES as u64;
        let may = paid || outlet.credit.repeats > 0;
        if !may || self.kcp.oldest_due().is_none_or(|at| at > now) {
            return false;
        }
        let all = std::mem::replace(outlet.credit, Allowance::ONE_REPEAT);
        let written = self.write(now, outlet, |kcp, sink| {
            kcp.repeat_oldest(now, sink);
        });
        *outlet.credit = all;
        if paid {
            outlet.credit.spend(written.bytes);
        } else {
            outlet.credit.repeats -= u8::from(written.datagrams > 0);
            counters.credit_repeats += written.datagrams;
        }
        counters.out_pkts += written.datagrams;
        counters.out_bytes += written.bytes;
        written.datagrams > 0
    }

    /// The same of KCP, while little may leave: what is held back waits for an allowance, which comes with a datagram.
    pub(super) fn limited_timeout(&self) -> Option<Instant> {
        let repeat = self.kcp.oldest_due().filter(|_| self.standing.repeats);
        let held = self.standing.blocked && self.kcp.is_blocked();
        let other = self.kcp.poll_timeout().filter(|_| !held);
        [repeat, other].into_iter().flatten().min()
    }
}
