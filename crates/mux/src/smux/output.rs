//! Frames that leave: one at a time, when the layer below has room.

use super::{Class, Config, Smux};
use crate::event::ResetReason;
use crate::pool::Span;
use crate::smux::stream::{Changes, Next, Outbound};
use fulmar_wire::smux::{Command, HEADER_LEN, Header, Hello, Reset, UPDATE_LEN, Update};
use fulmar_wire::time::Instant;
use std::fmt;

/// Bytes at the beginning of a stream that somebody is taken to wait for: a handshake, a request, the head of an
/// answer.
const FIRST_BYTES: u64 = 8 * 1024;

/// A whole frame, ready to be sent: its pieces, in order, are what [`parts`](Self::parts) returns.
///
/// It borrows the payload from the stream's buffer; the bytes count as sent.
#[derive(Copy, Clone)]
pub struct Frame<'a> {
    head: [u8; HEADER_LEN + UPDATE_LEN],
    head_len: u8,
    class: Class,
    payload: [&'a [u8]; 2],
}

impl<'a> Frame<'a> {
    /// The header, with the payload of a control frame.
    #[must_use]
    pub fn head(&self) -> &[u8] {
        self.head
            .get(..usize::from(self.head_len))
            .unwrap_or_default()
    }

    /// The bytes of the stream, in at most two pieces; empty for a control frame.
    #[must_use]
    pub const fn payload(&self) -> [&'a [u8]; 2] {
        self.payload
    }

    /// Head and payload: everything that goes onto the wire, in order.
    #[must_use]
    pub fn parts(&self) -> [&[u8]; 3] {
        [self.head(), self.payload[0], self.payload[1]]
    }

    /// Whether the frame is worth being carried more than once.
    #[must_use]
    pub const fn class(&self) -> Class {
        self.class
    }

    /// Bytes of the whole frame.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.head_len as usize + self.payload[0].len() + self.payload[1].len()
    }

    /// Never: a frame has a header.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }
}

/// Without the payload, which is somebody's.
impl fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("header", &Header::parse(&self.head))
            .field("class", &self.class)
            .finish_non_exhaustive()
    }
}

/// A frame whose payload has been taken from its buffer but not yet been borrowed.
struct Draft {
    head: [u8; HEADER_LEN + UPDATE_LEN],
    head_len: usize,
    class: Class,
    payload: [Span; 2],
}

impl Draft {
    fn control(header: Header) -> Self {
        Self::with(header, &[])
    }

    fn with(header: Header, body: &[u8]) -> Self {
        let mut head = [0; HEADER_LEN + UPDATE_LEN];
        header.emit(&mut head);
        if let Some(room) = head.get_mut(HEADER_LEN..HEADER_LEN + body.len()) {
            room.copy_from_slice(body);
        }
        Self {
            head,
            head_len: HEADER_LEN + body.len(),
            class: Class::Sparse,
            payload: Default::default(),
        }
    }
}

impl Smux {
    /// Whether [`poll_frame`](Self::poll_frame) would return a frame.
    #[must_use]
    pub const fn has_frames(&self) -> bool {
        self.over.is_none() && (self.hello_due || self.nop_due || !self.schedule.is_empty())
    }

    /// The next frame to send; whose it is, see the [module](super).
    pub fn poll_frame(&mut self, now: Instant) -> Option<Frame<'_>> {
        self.poll_frame_within(now, u32::MAX)
    }

    /// The next frame to send, as [`poll_frame`](Self::poll_frame), but with no more than `limit` bytes of data: a
    /// caller that has room for less than a full frame need not wait with what fits. 0 counts as 1; frames without
    /// data are not affected, and have up to 16 bytes.
    pub fn poll_frame_within(&mut self, now: Instant, limit: u32) -> Option<Frame<'_>> {
        if self.over.is_some() {
            return None;
        }
        let draft = match self.session_frame() {
            Some(draft) => draft,
            None => self.stream_frame(now, limit.max(1))?,
        };
        self.emitted_at = now;
        self.counters.frames_sent += 1;
        Some(Frame {
            head: draft.head,
            head_len: draft.head_len as u8,
            class: draft.class,
            payload: draft.payload.map(|span| self.outbox.span(span)),
        })
    }

    /// A frame that belongs to no stream.
    fn session_frame(&mut self) -> Option<Draft> {
        if core::mem::take(&mut self.hello_due) {
            let hello = Hello {
                features: self.config.features,
            };
            return Some(Draft::control(hello.header(self.config.version)));
        }
        if core::mem::take(&mut self.nop_due) {
            self.counters.nops_sent += 1;
            return Some(Draft::control(header(&self.config, Command::Nop, 0, 0)));
        }
        None
    }

    fn stream_frame(&mut self, now: Instant, limit: u32) -> Option<Draft> {
        while let Some(slot) = self.schedule.front() {
            let draft = self.next_of(slot, now, limit);
            self.refresh(slot);
            if draft.is_some() {
                return draft;
            }
            // Not possible while the list is kept up to date; and then it must not spin.
            debug_assert!(false, "a stream without a frame was ready");
            if let Some(stream) = self.streams.at_mut(slot) {
                self.schedule.leave(slot, &mut stream.turn);
            }
        }
        None
    }

    fn next_of(&mut self, slot: u32, now: Instant, limit: u32) -> Option<Draft> {
        let config = &self.config;
        let stream = self.streams.at_mut(slot)?;
        let wire = stream.wire;
        match stream.next(self.peer)? {
            Next::Syn => {
                stream.syn_due = false;
                stream.budget.pay_anyhow(now, HEADER_LEN);
                let drained = stream.unsent.is_empty();
                self.schedule
                    .charge(slot, &mut stream.turn, HEADER_LEN, drained);
                Some(Draft::control(header(config, Command::Syn, 0, wire)))
            }
            Next::Upd => {
                stream.update_due = false;
                stream.read_untold = 0;
                self.counters.updates_sent += 1;
                let update = Update {
                    consumed: stream.read as u32,
                    window: config.stream_buffer,
                };
                let header = header(config, Command::Upd, UPDATE_LEN, wire);
                Some(Draft::with(header, &update.to_bytes()))
            }
            Next::Psh(window) => {
                let before = stream.unsent.len();
                let most = config.max_frame.min(window).min(limit) as usize;
                let payload = self.outbox.take(&mut stream.unsent, most);
                let n = payload[0].len() + payload[1].len();
                stream.sent += n as u64;
                stream.sent_at = now;
                self.counters.bytes_sent += n as u64;
                let drained = stream.unsent.is_empty();
                let len = HEADER_LEN + n;
                self.schedule.charge(slot, &mut stream.turn, len, drained);
                let awaited = drained || stream.sent <= FIRST_BYTES;
                let class = if awaited && stream.budget.pay(now, len) {
                    Class::Sparse
                } else {
                    Class::Bulk
                };
                let half = config.send_buffer as usize / 2;
                let relieved = before > half && before - n <= half;
                let draft = Draft {
                    class,
                    payload,
                    ..Draft::control(header(config, Command::Psh, n, wire))
                };
                if relieved && stream.outbound == Outbound::Open {
                    self.note(slot, Changes::WRITABLE);
                }
                Some(draft)
            }
            Next::Fin => {
                if stream.outbound == Outbound::Cut {
                    // A peer that understands nothing else has been told all it can be told.
                    stream.reset_due = None;
                }
                stream.outbound = Outbound::Ended;
                stream.budget.pay_anyhow(now, HEADER_LEN);
                Some(Draft::control(header(config, Command::Fin, 0, wire)))
            }
            Next::Rst(reason) => {
                stream.reset_due = None;
                stream.gone = reason != ResetReason::CLOSED;
                self.counters.resets_sent += 1;
                let reset = Reset { reason: reason.0 }.to_bytes();
                let header = header(config, Command::Rst, reset.len(), wire);
                Some(Draft::with(header, &reset))
            }
        }
    }
}

fn header(config: &Config, command: Command, len: usize, stream: u32) -> Header {
    Header {
        version: config.version,
        command,
        // No more than `max_frame`, which fits.
        len: len as u16,
        stream,
    }
}
