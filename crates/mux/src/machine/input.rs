//! Bytes that arrive: frames are taken apart at any split point.

use super::{ACCEPT_QUEUE, Mux, Protocol};
use crate::event::ResetReason;
use crate::machine::stream::{Changes, Holder, Inbound, Outbound};
use crate::{Error, StreamId};
use fulmar_wire::time::Instant;
use fulmar_wire::{smux, yamux};

/// Bytes of the longest header.
const LONGEST_HEADER: usize = yamux::HEADER_LEN;
/// Streams that wait for the application: the length of yamux's accept backlog (docs/spec/kcptun2016.md, section 9).
const YAMUX_QUEUE: u32 = 256;

/// Where in a frame the input stands.
#[derive(Debug)]
pub(super) struct Parser {
    pub(super) expect: Expect,
    /// The stream that ends with the payload that is coming.
    pub(super) ends: Option<u32>,
    /// The beginning of a header or of a payload of fixed size.
    partial: [u8; LONGEST_HEADER],
    have: usize,
}

#[derive(Copy, Clone, Debug)]
pub(super) enum Expect {
    Header,
    /// So many bytes for that stream, or for nobody.
    Bytes(Option<StreamId>, usize),
    Update(u32),
    Reset(u32),
    Token,
}

impl Parser {
    pub(super) const fn new() -> Self {
        Self {
            expect: Expect::Header,
            ends: None,
            partial: [0; LONGEST_HEADER],
            have: 0,
        }
    }

    /// Takes `size` bytes off the front of `input`, or what there is of them; `Some` when they are complete.
    fn fixed(&mut self, input: &mut &[u8], size: usize) -> Option<[u8; LONGEST_HEADER]> {
        let room = self.partial.get_mut(self.have..size)?;
        let n = room.len().min(input.len());
        let (now, later) = input.split_at(n);
        room[..n].copy_from_slice(now);
        *input = later;
        self.have += n;
        if self.have < size {
            return None;
        }
        self.have = 0;
        Some(self.partial)
    }
}

impl Mux {
    /// Takes bytes from the peer, cut anywhere. All of them are taken: call it only while
    /// [`wants_input`](Self::wants_input) says yes, and with no more than some 64 KiB at once.
    ///
    /// # Errors
    /// When the session is over; the same error again each time.
    pub fn handle_input(&mut self, now: Instant, mut input: &[u8]) -> Result<(), Error> {
        if let Some(error) = self.over {
            return Err(error);
        }
        while !input.is_empty() {
            match self.parser.expect {
                Expect::Header => match self.config.protocol {
                    Protocol::Smux(version) => {
                        if let Some(bytes) = self.parser.fixed(&mut input, smux::HEADER_LEN) {
                            self.on_smux(now, version, &bytes)?;
                        }
                    }
                    Protocol::Yamux => {
                        if let Some(bytes) = self.parser.fixed(&mut input, yamux::HEADER_LEN) {
                            self.on_yamux(now, &bytes)?;
                        }
                    }
                },
                Expect::Bytes(target, left) => {
                    let n = left.min(input.len());
                    let (bytes, later) = input.split_at(n);
                    input = later;
                    self.parser.expect = match left - n {
                        0 => Expect::Header,
                        rest => Expect::Bytes(target, rest),
                    };
                    self.on_bytes(now, target, bytes, left);
                    if left == n
                        && let Some(wire) = self.parser.ends.take()
                    {
                        self.on_fin(wire);
                    }
                }
                Expect::Update(stream) => {
                    if let Some(bytes) = self.parser.fixed(&mut input, smux::UPDATE_LEN) {
                        self.parser.expect = Expect::Header;
                        if let Ok(update) = smux::Update::parse(&bytes) {
                            self.on_update(stream, update)?;
                        }
                    }
                }
                Expect::Token => {
                    if let Some(bytes) = self.parser.fixed(&mut input, smux::TOKEN_LEN) {
                        self.parser.expect = Expect::Header;
                        if let Some(token) = bytes.first_chunk() {
                            self.peer_token.get_or_insert(u64::from_le_bytes(*token));
                        }
                    }
                }
                Expect::Reset(stream) => {
                    if let Some(bytes) = self.parser.fixed(&mut input, smux::RESET_LEN) {
                        self.parser.expect = Expect::Header;
                        if let Ok(reset) = smux::Reset::parse(&bytes) {
                            self.on_smux_reset(stream, ResetReason(reset.reason));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// The peer opens a stream that does not exist.
    pub(super) fn on_syn(&mut self, now: Instant, wire: u32) -> Result<(), Error> {
        let yamux = self.terms().yamux;
        let queue = if yamux { YAMUX_QUEUE } else { ACCEPT_QUEUE };
        let limit = self.config.max_streams.saturating_add(queue);
        let full = self.streams.len() >= limit as usize;
        // Where there is a word for it, streams beyond the limit are refused; who goes on and takes no refusals is not served.
        if full && (!yamux || self.streams.len() >= 2 * limit as usize) {
            return self.fail(Error::TooManyStreams { limit });
        }
        if self.going_away || full {
            self.counters.streams_refused += 1;
            let id = self.insert(wire, Holder::Nobody, now);
            if let Some(stream) = self.streams.get_mut(id) {
                stream.inbound = Inbound::Discarded;
                stream.outbound = Outbound::Cut;
                stream.reset_due = Some(ResetReason::REFUSED);
                stream.syn_due = yamux;
            }
            self.refresh(id.slot);
            return Ok(());
        }
        self.counters.streams_accepted += 1;
        let id = self.insert(wire, Holder::Queue, now);
        self.arrivals.push_back(id.slot);
        if yamux && let Some(stream) = self.streams.get_mut(id) {
            stream.syn_due = true;
            self.refresh(id.slot);
        }
        Ok(())
    }

    /// The peer ends its direction.
    pub(super) fn on_fin(&mut self, wire: u32) {
        let Some(slot) = self.find_or_count(wire) else {
            return;
        };
        let half_close = self.peer.half_close();
        let Some(stream) = self.streams.at_mut(slot) else {
            return;
        };
        match stream.inbound {
            Inbound::Open => {
                stream.inbound = Inbound::Finished;
                if stream.unread.is_empty() {
                    self.note(slot, Changes::FINISHED);
                }
            }
            // The application closed the stream; that the peer is done too spares it the reset.
            Inbound::Discarded => {
                stream.inbound = Inbound::Finished;
                if stream.outbound != Outbound::Cut {
                    stream.reset_due = None;
                }
            }
            Inbound::Finished | Inbound::Reset(_) => {
                self.counters.fins_repeated += 1;
                return;
            }
        }
        if !half_close {
            self.stop(slot, ResetReason::CLOSED);
        }
        self.release_fin(slot);
        self.refresh(slot);
    }

    /// `left` bytes of the payload were missing before these.
    fn on_bytes(&mut self, now: Instant, target: Option<StreamId>, bytes: &[u8], left: usize) {
        let stream = target
            .and_then(|id| self.streams.get_mut(id))
            // It may have been closed since the header came.
            .filter(|stream| stream.inbound == Inbound::Open);
        let (Some(id), Some(stream)) = (target, stream) else {
            self.counters.bytes_skipped += bytes.len() as u64;
            return;
        };
        let was_empty = stream.unread.is_empty();
        self.inbox.append(&mut stream.unread, bytes, left);
        stream.arrived_at = now;
        self.unread += bytes.len() as u64;
        self.counters.bytes_received += bytes.len() as u64;
        if was_empty {
            self.note(id.slot, Changes::READABLE);
        }
    }

    /// The peer cuts both directions.
    pub(super) fn on_cut(&mut self, slot: u32, reason: ResetReason) {
        let Some(stream) = self.streams.at_mut(slot) else {
            return;
        };
        stream.gone = true;
        if stream.holder == Holder::Queue {
            // The application never heard of it.
            self.forget(slot);
            return;
        }
        if stream.inbound == Inbound::Open {
            stream.inbound = Inbound::Reset(reason);
            stream.stopped = Some(reason);
            stream.changes = Changes::default();
            self.changed.remove(slot);
            self.drop_unread(slot);
            self.drop_unsent(slot);
            self.note(slot, Changes::RESET);
        } else {
            self.stop(slot, reason);
        }
        if let Some(stream) = self.streams.at_mut(slot)
            && stream.outbound == Outbound::Ending
        {
            // The peer forgot the stream with everything on its way; there is no end to send any more.
            stream.outbound = Outbound::Ended;
        }
        self.release_fin(slot);
        self.refresh(slot);
    }

    pub(super) fn find(&mut self, wire: u32) -> Option<u32> {
        if let Some((recent, slot)) = self.recent
            && recent == wire
        {
            return Some(slot);
        }
        let slot = *self.slots.get(&wire)?;
        self.recent = Some((wire, slot));
        Some(slot)
    }

    pub(super) fn find_or_count(&mut self, wire: u32) -> Option<u32> {
        let slot = self.find(wire);
        if slot.is_none() {
            self.counters.frames_unknown += 1;
        }
        slot
    }
}
