//! A conversation at rest: what has to be known of it when nobody speaks, in little memory.
//!
//! Numbers, times and the last few unacknowledged bytes. Everything else of a [`Kcp`] follows from its configuration, or is found out again: what a
//! strategy has measured of the path is old by then.

use fulmar_wire::kcp::HEADER_LEN;
use fulmar_wire::seq::Seq;
use fulmar_wire::time::{Instant, Millis};

use crate::control::SenderControl;
use crate::counters::Counters;
use crate::kcp::{DatagramSink, Flush, Kcp};
use crate::receive::ReceiveBuffer;
use crate::restart::Restart;
use crate::rtt::Rtt;
use crate::send::SendBuffer;

/// Unacknowledged segments that a conversation at rest may have: some keep-alives.
const MOST_SEGMENTS: u32 = 16;
/// Bytes of them.
const MOST_BYTES: usize = 224;

/// See the module.
#[derive(Debug)]
pub struct Rest {
    /// What the clock on the wire showed at the caller's epoch: it goes on.
    clock: u32,
    una: Seq,
    rcv_nxt: Seq,
    rmt_wnd: u32,
    /// Unacknowledged segments, each behind its length in one byte.
    waiting: Box<[u8]>,
    /// When the last of them was sent.
    sent: Instant,
    rtt: Rtt,
    restart: Restart,
    measured_from: Instant,
    last_heard: Option<Instant>,
    last_answer: Option<Instant>,
    newest_push: Option<Millis>,
    newest_heard: Option<Millis>,
    progress: Instant,
    bytes_sent: u64,
    bytes_received: u64,
}

impl Rest {
    /// Most bytes of memory for what is unacknowledged.
    pub const MOST_WAITING: usize = MOST_BYTES + MOST_SEGMENTS as usize;

    /// Everything before it has been acknowledged.
    #[must_use]
    pub const fn snd_una(&self) -> Seq {
        self.una
    }

    /// When something of the other side last arrived.
    #[must_use]
    pub const fn last_heard(&self) -> Option<Instant> {
        self.last_heard
    }

    /// Whether something is unacknowledged.
    #[must_use]
    pub fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The retransmission timeout.
    #[must_use]
    pub fn rto(&self) -> core::time::Duration {
        core::time::Duration::from_millis(u64::from(self.rtt.rto()))
    }
}

/// Where segments go that were sent before.
struct Nowhere(Vec<u8>);

impl DatagramSink for Nowhere {
    fn reserve(&mut self, max_len: usize) -> &mut [u8] {
        self.0.resize(max_len.max(self.0.len()), 0);
        &mut self.0
    }

    fn commit(&mut self, _: usize) {}
}

/// How a conversation stands to rest.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Restful {
    /// It can.
    Yes,
    /// It has something to say first.
    Busy,
    /// It holds what does not fit: data of either side that waits for the other.
    No,
}

impl<C: SenderControl> Kcp<C> {
    /// Whether [`Self::rest`] loses nothing. `silenced`: nothing may leave, so what there is to say is no reason to stay: what has not left goes as
    /// what got lost does, and the other side repeats what is not acknowledged.
    #[must_use]
    pub fn restful(&self, silenced: bool) -> Restful {
        if self.rx.queued() > 0 || self.rx.ahead() > 0 {
            return Restful::No;
        }
        if self.tx.waiting() > MOST_SEGMENTS {
            return Restful::No;
        }
        let asks = self.ask || self.challenge || self.ask_home;
        let said = !self.acks.is_empty() || asks || self.tell;
        if !silenced && (said || self.tx.not_sent() > 0) {
            return Restful::Busy;
        }
        let mut bytes = 0;
        let mut sn = self.tx.una();
        while sn != self.tx.end() {
            let segment = self.tx.get(sn);
            if !segment.acked {
                bytes += self.tx.payload(sn).len();
            }
            if segment.acked || segment.frg != 0 {
                // A hole in what was sent: what came behind it is known to have arrived, which would have to be remembered.
                return Restful::No;
            }
            sn = sn.next();
        }
        // Each of them has room behind the other, so that it is not cut anew.
        if bytes > MOST_BYTES || bytes + HEADER_LEN > self.tx.mss() {
            return Restful::No;
        }
        Restful::Yes
    }

    /// What has to be known of it; only if it is [`restful`](Self::restful).
    #[must_use]
    pub fn rest(&self) -> Rest {
        debug_assert_eq!(self.restful(true), Restful::Yes);
        let mut waiting = Vec::new();
        let mut sn = self.tx.una();
        while sn != self.tx.end() {
            let payload = self.tx.payload(sn);
            waiting.push(payload.len() as u8);
            waiting.extend_from_slice(payload);
            sn = sn.next();
        }
        Rest {
            clock: self.config.clock,
            una: self.tx.una(),
            rcv_nxt: self.rx.nxt(),
            rmt_wnd: self.rmt_wnd,
            waiting: waiting.into(),
            sent: self.last_flush,
            rtt: self.rtt,
            restart: self.restart,
            measured_from: self.measured_from,
            last_heard: self.last_heard,
            last_answer: self.last_answer,
            newest_push: self.newest_push,
            newest_heard: self.newest_heard,
            progress: self.progress,
            bytes_sent: self.counters.bytes_sent,
            bytes_received: self.counters.bytes_received,
        }
    }

    /// Goes on where a conversation with the same number and configuration rested. It must be new.
    pub fn resume(&mut self, rest: &Rest) {
        self.config.clock = rest.clock;
        let config = &self.config;
        let threshold = self.control.skip_threshold();
        self.tx = SendBuffer::new(rest.una, config.mss(), config.max_fragments, threshold);
        self.rx = ReceiveBuffer::new(rest.rcv_nxt, config.rcv_wnd, config.max_payload);
        self.rmt_wnd = rest.rmt_wnd;
        self.rtt = rest.rtt;
        let mut waiting = &rest.waiting[..];
        while let Some((&len, behind)) = waiting.split_first() {
            let (payload, next) = behind.split_at(usize::from(len).min(behind.len()));
            self.tx.push(payload, false);
            self.tx.end_segment();
            waiting = next;
        }
        if rest.una != self.restart.first() || self.tx.waiting() > 0 {
            self.tx.first_message_is_over();
        }
        if self.tx.waiting() > 0 {
            // They left then; what is sent of them from now on is sent again.
            self.flush(rest.sent, Flush::Full, &mut Nowhere(Vec::new()));
        }
        self.restart = rest.restart;
        self.measured_from = rest.measured_from;
        self.last_heard = rest.last_heard;
        self.last_answer = rest.last_answer;
        self.newest_push = rest.newest_push;
        self.newest_heard = rest.newest_heard;
        self.progress = rest.progress;
        self.counters = Counters {
            bytes_sent: rest.bytes_sent,
            bytes_received: rest.bytes_received,
            ..Counters::default()
        };
    }
}
