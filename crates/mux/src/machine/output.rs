//! Frames that leave: one at a time, when the layer below has room.

use super::{Class, Mux, Protocol, smux, yamux};
use crate::event::ResetReason;
use crate::machine::stream::{Changes, Next, Outbound};
use crate::pool::Span;
use fulmar_wire::smux::{self as smux_wire, HEADER_LEN, UPDATE_LEN};
use fulmar_wire::time::Instant;
use fulmar_wire::yamux as yamux_wire;
use std::fmt;

/// Bytes at the beginning of a stream that somebody is taken to wait for: a handshake, a request, the head of an
/// answer.
const FIRST_BYTES: u64 = 8 * 1024;

/// Bytes of a header and the fixed payload behind it, at most.
const LONGEST_HEAD: usize = HEADER_LEN + UPDATE_LEN;

/// A whole frame, ready to be sent: its pieces, in order, are what [`parts`](Self::parts) returns.
///
/// It borrows the payload from the stream's buffer; the bytes count as sent.
#[derive(Copy, Clone)]
pub struct Frame<'a> {
    head: [u8; LONGEST_HEAD],
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
        let mut frame = f.debug_struct("Frame");
        // Only yamux has a version 0.
        match yamux_wire::Header::parse(self.head()) {
            Ok(header) => frame.field("header", &header),
            Err(_) => frame.field("header", &smux_wire::Header::parse(self.head())),
        };
        frame.field("class", &self.class).finish_non_exhaustive()
    }
}

/// What is to be said of a stream.
#[derive(Copy, Clone, Debug)]
pub(super) enum Say {
    /// It opens, or in yamux was accepted.
    Open,
    /// So much was read, so much may be in flight, and so much may come beyond what was said before.
    Update {
        consumed: u32,
        window: u32,
        credit: u32,
    },
    /// So many bytes.
    Data(usize),
    /// Our direction ends.
    End,
    /// Both are cut.
    Cut(ResetReason),
}

/// A frame whose payload has been taken from its buffer but not yet been borrowed.
pub(super) struct Draft {
    head: [u8; LONGEST_HEAD],
    head_len: usize,
    class: Class,
    payload: [Span; 2],
}

impl Draft {
    /// A header alone.
    pub(super) fn control(header: &[u8]) -> Self {
        Self::with(header, &[])
    }

    /// A header and what follows it; together they are no longer than any frame without data.
    pub(super) fn with(header: &[u8], body: &[u8]) -> Self {
        let mut head = [0; LONGEST_HEAD];
        for (to, from) in head.iter_mut().zip(header.iter().chain(body)) {
            *to = *from;
        }
        Self {
            head,
            head_len: header.len() + body.len(),
            class: Class::Sparse,
            payload: Default::default(),
        }
    }
}

impl Mux {
    /// Whether [`poll_frame`](Self::poll_frame) would return a frame.
    #[must_use]
    pub fn has_frames(&self) -> bool {
        self.yamux.owes_farewell()
            || self.over.is_none()
                && (self.hello_due
                    || self.token_due
                    || self.nop_due
                    || self.yamux.owes_answers()
                    || !self.schedule.is_empty())
    }

    /// The next frame to send; whose it is, see the [module](super).
    pub fn poll_frame(&mut self, now: Instant) -> Option<Frame<'_>> {
        self.poll_frame_within(now, u32::MAX)
    }

    /// The next frame to send, as [`poll_frame`](Self::poll_frame), but with no more than `limit` bytes of data: a
    /// caller that has room for less than a full frame need not wait with what fits. 0 counts as 1; frames without
    /// data are not affected, and have up to 16 bytes.
    pub fn poll_frame_within(&mut self, now: Instant, limit: u32) -> Option<Frame<'_>> {
        let draft = match self.yamux.farewell() {
            Some(draft) => Some(draft),
            None if self.over.is_some() => return None,
            None => self.session_frame(),
        };
        let draft = match draft {
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
            let features = self.config.features;
            return Some(match self.config.protocol {
                Protocol::Smux(version) => smux::hello(version, features),
                Protocol::Yamux => yamux::hello(self.config.role, features),
            });
        }
        if core::mem::take(&mut self.token_due)
            && let Some(token) = self.config.token
        {
            return Some(match self.config.protocol {
                Protocol::Smux(version) => smux::token(version, token),
                Protocol::Yamux => yamux::token(token),
            });
        }
        if let Some(answer) = self.yamux.answer() {
            return Some(answer);
        }
        if core::mem::take(&mut self.nop_due) {
            self.counters.nops_sent += 1;
            return Some(match self.config.protocol {
                Protocol::Smux(version) => smux::nop(version),
                Protocol::Yamux => self.yamux.ping(),
            });
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
        let terms = self.terms();
        let stream = self.streams.at_mut(slot)?;
        let wire = stream.wire;
        let draft = |say| match config.protocol {
            Protocol::Smux(version) => smux::draft(version, wire, say),
            Protocol::Yamux => yamux::draft(config, wire, say),
        };
        match stream.next(terms)? {
            Next::Syn => {
                stream.syn_due = false;
                stream.budget.pay_anyhow(now, HEADER_LEN);
                let drained = stream.unsent.is_empty();
                self.schedule
                    .charge(slot, &mut stream.turn, HEADER_LEN, drained);
                Some(draft(Say::Open))
            }
            Next::Upd => {
                stream.update_due = false;
                self.counters.updates_sent += 1;
                Some(draft(Say::Update {
                    consumed: stream.read as u32,
                    window: config.stream_buffer,
                    credit: core::mem::take(&mut stream.read_untold),
                }))
            }
            Next::Psh(window) => {
                let before = stream.unsent.len();
                let most = config.max_frame.min(window).min(limit) as usize;
                let payload = self.outbox.take(&mut stream.unsent, most);
                let n = payload[0].len() + payload[1].len();
                stream.send(n);
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
                let relieved = before > half && before - n <= half || drained && stream.starved;
                let draft = Draft {
                    class,
                    payload,
                    ..draft(Say::Data(n))
                };
                if relieved && stream.outbound == Outbound::Open {
                    stream.starved = false;
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
                Some(draft(Say::End))
            }
            Next::Rst(reason) => {
                stream.reset_due = None;
                stream.gone = terms.yamux || reason != ResetReason::CLOSED;
                self.counters.resets_sent += 1;
                Some(draft(Say::Cut(reason)))
            }
        }
    }
}
