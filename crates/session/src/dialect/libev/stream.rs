//! The upper half of kcptun-libev: a conversation is one stream, and its two ends are the conversation's
//! (docs/spec/kcptun-libev.md, sections 8 and 9).
//!
//! ```text
//!            one direction ended                 both ended, all acknowledged, closed here
//!   open ──────────────────────▶ half-closed ─────────────────────────────────────────────▶ lingers ──▶ over
//!     │                              │  the peer says no more for `linger`, and is none of ours: taken as its end
//!     └────────── reset here ────────┴──▶ cut: the peer is told beside the conversation
//! ```
//! It lingers because the peer may not know yet that its end has arrived: it sends it again, and is answered.

use core::time::Duration;

use fulmar_mux::Single;
use fulmar_mux::single::{Config, SingleEvent};
use fulmar_wire::time::Instant;

use crate::layer::{
    Class, LayerError, Notice, OpenError, Over, Progress, Readable, Rested, Stillness, StreamEvent,
    StreamId, StreamLayer, Writable,
};
use crate::memory::Held;

/// See the module.
pub(super) struct Layer {
    single: Single,
    linger: Duration,
    opener: bool,
    /// The application has it.
    held: bool,
    /// The application has given it back.
    closed: bool,
    cut: bool,
    /// The peer has dropped the conversation; what it had sent before can still be read.
    peer_gone: bool,
    /// Since when everything sent has been acknowledged.
    acknowledged: Option<Instant>,
    /// When it has lingered enough.
    over_at: Option<Instant>,
    over: bool,
    told_fulmar: bool,
    takes_ranges: bool,
}

impl Layer {
    pub(super) fn new(config: Config, linger: Duration, now: Instant) -> Self {
        Self {
            single: Single::new(config, now),
            linger,
            opener: config.opener,
            held: false,
            closed: false,
            cut: false,
            peer_gone: false,
            acknowledged: None,
            over_at: None,
            over: false,
            told_fulmar: false,
            takes_ranges: false,
        }
    }

    fn both_ended(&self) -> bool {
        self.single.is_finished() && self.single.is_ended()
    }

    /// When a peer that says nothing behind our end is taken to have ended as well. One of ours says so itself.
    fn assumed_end(&self) -> Option<Instant> {
        if !self.single.is_ended() || self.single.is_finished() || self.single.peer_is_fulmar() {
            return None;
        }
        let last = self.acknowledged?.max(self.single.sent_at());
        let last = self.single.arrived_at().map_or(last, |at| at.max(last));
        Some(last + self.linger)
    }
}

impl StreamLayer for Layer {
    fn wants_input(&self) -> bool {
        self.single.wants_input()
    }

    fn handle_input(&mut self, now: Instant, bytes: &[u8]) -> Result<(), LayerError> {
        self.single
            .handle_input(now, bytes)
            .map_err(|e| LayerError::Malformed(e.to_string()))
    }

    fn poll_output(
        &mut self,
        now: Instant,
        limit: u32,
        sink: &mut dyn FnMut(&[u8], Class),
    ) -> bool {
        if self.cut || self.peer_gone {
            return false;
        }
        let Some(frame) = self.single.poll_frame(now, limit) else {
            return false;
        };
        let class = frame.class();
        for piece in frame.parts() {
            if !piece.is_empty() {
                sink(piece, class);
            }
        }
        true
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.over || self.peer_gone {
            return None;
        }
        [self.single.poll_timeout(), self.assumed_end(), self.over_at]
            .into_iter()
            .flatten()
            .min()
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), LayerError> {
        self.single.handle_timeout(now);
        if self.assumed_end().is_some_and(|at| at <= now) {
            self.single.assume_finished();
        }
        self.over |= self.over_at.is_some_and(|at| at <= now);
        Ok(())
    }

    fn acknowledged(&mut self, now: Instant, all: bool) {
        self.acknowledged = if all {
            self.acknowledged.or(Some(now))
        } else {
            None
        };
        if all && self.closed && self.both_ended() && self.over_at.is_none() {
            self.over_at = Some(now + self.linger);
        }
    }

    fn over(&self) -> Option<Over> {
        if self.cut {
            return Some(Over::Cut);
        }
        (self.over || self.peer_gone && self.closed).then_some(Over::Done)
    }

    fn peer_reset(&mut self) -> bool {
        // What has been accepted is not lost because its sender, who has sent all of it, has forgotten it since.
        self.peer_gone = self.single.is_finished() && !self.closed;
        self.peer_gone
    }

    fn poll_event(&mut self) -> Option<StreamEvent> {
        let id = self.single.id();
        Some(match self.single.poll_event()? {
            SingleEvent::Opened => {
                self.held = true;
                StreamEvent::Opened(id)
            }
            SingleEvent::Readable => StreamEvent::Readable(id),
            SingleEvent::Writable => StreamEvent::Writable(id),
        })
    }

    fn poll_notice(&mut self) -> Option<Notice> {
        core::mem::take(&mut self.told_fulmar).then_some(Notice::PeerIsFulmar)
    }

    fn is_proven(&self) -> bool {
        self.single.is_proven()
    }

    fn peer_is_fulmar(&self) -> bool {
        self.single.peer_is_fulmar()
    }

    fn peer_takes_ack_ranges(&self) -> bool {
        self.takes_ranges
    }

    fn peer_told(&mut self, ack_ranges: bool) {
        self.told_fulmar = !self.single.peer_is_fulmar();
        self.single.set_peer_is_fulmar();
        self.takes_ranges = ack_ranges;
    }

    fn streams(&self) -> usize {
        usize::from(self.held && !self.closed)
    }

    fn payload_received(&self) -> u64 {
        self.single.bytes_received()
    }

    fn ping(&mut self) {
        self.single.ping();
    }

    fn open(&mut self, _now: Instant) -> Result<StreamId, OpenError> {
        if !self.opener {
            return Err(OpenError::Closed);
        }
        if core::mem::replace(&mut self.held, true) {
            return Err(OpenError::Exhausted);
        }
        Ok(self.single.id())
    }

    fn read(&mut self, _id: StreamId) -> Readable<'_> {
        if self.cut || self.closed {
            return Readable::Reset;
        }
        match self.single.read_slices().next() {
            Some(bytes) => Readable::Bytes(bytes),
            None if self.single.is_finished() => Readable::Finished,
            None => Readable::Pending,
        }
    }

    fn pieces<'a>(&'a self, _id: StreamId, pieces: &mut [&'a [u8]]) -> usize {
        let mut found = 0;
        for (to, piece) in pieces.iter_mut().zip(self.single.read_slices()) {
            *to = piece;
            found += 1;
        }
        found
    }

    fn consume(&mut self, _now: Instant, _id: StreamId, n: usize) {
        self.single.consume(n);
    }

    fn write(&mut self, _id: StreamId, max: usize) -> Writable<'_> {
        if self.cut || self.closed || self.peer_gone || !self.single.is_writable() {
            return Writable::Stopped;
        }
        if self.single.write_space() == 0 {
            return Writable::Full;
        }
        Writable::Room(self.single.write_reserve(max))
    }

    fn unsent(&self, _id: StreamId) -> usize {
        self.single.unsent()
    }

    fn starve(&mut self, _id: StreamId) {
        self.single.starve();
    }

    fn held(&self) -> Held {
        let [sending, receiving] = self.single.held();
        Held { sending, receiving }
    }

    fn commit(&mut self, _id: StreamId, n: usize) {
        self.single.write_commit(n);
    }

    fn finish(&mut self, _now: Instant, _id: StreamId) {
        self.single.finish();
    }

    fn reset(&mut self, _now: Instant, _id: StreamId) {
        self.cut = true;
    }

    fn close(&mut self, _now: Instant, _id: StreamId) {
        self.closed = true;
        self.single.finish();
        self.single.discard();
    }

    fn shrink(&mut self) {
        self.single.trim();
    }

    fn stillness(&self) -> Stillness {
        if !self.closed {
            Stillness::Streams
        } else if !self.single.is_restful() || self.told_fulmar || self.over().is_some() {
            Stillness::Busy
        } else {
            Stillness::Still
        }
    }

    fn rest(self: Box<Self>) -> Rested {
        Rested {
            timeout: self.poll_timeout(),
            state: self,
        }
    }

    fn resume(self: Box<Self>, _now: Instant, rested: Rested) -> Box<dyn StreamLayer> {
        match rested.state.downcast::<Self>() {
            Ok(layer) => layer,
            Err(_) => self,
        }
    }

    fn progress(&self, _id: StreamId) -> Option<Progress> {
        (!self.closed).then(|| Progress {
            received: self.single.arrived_at(),
            sent: self.single.data_at(),
            unsent: self.single.unsent() > 0,
        })
    }
}
