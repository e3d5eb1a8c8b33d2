//! Bytes that arrive: frames are taken apart at any split point.

use super::{ACCEPT_QUEUE, Role, Smux, Version};
use crate::event::{Peer, ResetReason};
use crate::smux::stream::{Changes, Flow, Holder, Inbound, Outbound};
use crate::{Error, StreamId};
use fulmar_wire::smux::{
    Command, HEADER_LEN, Header, Hello, INITIAL_WINDOW, MAX_PAYLOAD, ParseError, RESET_LEN, Reset,
    UPDATE_LEN, Update,
};
use fulmar_wire::time::Instant;

/// Bytes that a version 2 peer may be over its window: one frame, in case its arithmetic is a frame behind ours.
const TOLERANCE: u32 = MAX_PAYLOAD as u32;

/// Where in a frame the input stands.
#[derive(Debug)]
pub(super) struct Parser {
    expect: Expect,
    /// The beginning of a header or of a payload of fixed size.
    partial: [u8; HEADER_LEN],
    have: usize,
}

#[derive(Copy, Clone, Debug)]
enum Expect {
    Header,
    /// So many bytes for that stream, or for nobody.
    Bytes(Option<StreamId>, usize),
    Update(u32),
    Reset(u32),
}

impl Parser {
    pub(super) const fn new() -> Self {
        Self {
            expect: Expect::Header,
            partial: [0; HEADER_LEN],
            have: 0,
        }
    }

    /// Takes `size` bytes off the front of `input`, or what there is of them; `Some` when they are complete.
    fn fixed(&mut self, input: &mut &[u8], size: usize) -> Option<[u8; HEADER_LEN]> {
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

impl Smux {
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
                Expect::Header => {
                    if let Some(bytes) = self.parser.fixed(&mut input, HEADER_LEN) {
                        self.on_header(now, &bytes)?;
                    }
                }
                Expect::Bytes(target, left) => {
                    let n = left.min(input.len());
                    let (bytes, later) = input.split_at(n);
                    input = later;
                    self.parser.expect = match left - n {
                        0 => Expect::Header,
                        rest => Expect::Bytes(target, rest),
                    };
                    self.on_bytes(now, target, bytes, left);
                }
                Expect::Update(stream) => {
                    if let Some(bytes) = self.parser.fixed(&mut input, UPDATE_LEN) {
                        self.parser.expect = Expect::Header;
                        if let Ok(update) = Update::parse(&bytes) {
                            self.on_update(stream, update)?;
                        }
                    }
                }
                Expect::Reset(stream) => {
                    if let Some(bytes) = self.parser.fixed(&mut input, RESET_LEN) {
                        self.parser.expect = Expect::Header;
                        if let Ok(reset) = Reset::parse(&bytes) {
                            self.on_reset(stream, ResetReason(reset.reason));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn on_header(&mut self, now: Instant, bytes: &[u8]) -> Result<(), Error> {
        let ours = self.config.version;
        // The version first: in bytes that are not smux at all the command means nothing.
        let got = bytes.first().copied().unwrap_or_default();
        if got != ours.number() {
            return self.fail(Error::BadVersion { got, ours });
        }
        let header = match Header::parse(bytes) {
            Ok(header) => header,
            Err(ParseError::Command(command)) => return self.fail(Error::BadCommand(command)),
            // Neither is possible: the header is complete and its version was looked at.
            Err(ParseError::Version(got)) => return self.fail(Error::BadVersion { got, ours }),
            Err(ParseError::Short) => return Ok(()),
        };
        if let Some(error) = self.misuse(&header) {
            return self.fail(error);
        }
        self.counters.frames_received += 1;
        self.heard = true;
        self.heard_since_check = true;
        if self.peer == Peer::Unknown {
            self.meet(now, Hello::parse(&header));
        }
        match header.command {
            Command::Syn => self.on_syn(now, header.stream)?,
            Command::Fin => self.on_fin(header.stream),
            Command::Psh => self.on_psh(&header)?,
            Command::Nop => self.counters.nops_received += 1,
            Command::Upd => self.parser.expect = Expect::Update(header.stream),
            Command::Rst => self.parser.expect = Expect::Reset(header.stream),
        }
        Ok(())
    }

    /// What is wrong with a header of our version, if anything.
    fn misuse(&self, header: &Header) -> Option<Error> {
        let command = header.command.number();
        if header.command == Command::Rst && !self.peer.half_close() {
            return Some(Error::BadCommand(command));
        }
        if header.command == Command::Upd && self.config.version == Version::V1 {
            return Some(Error::UpdInV1);
        }
        // Upstream would read the announced payload as the next header, or a longer update as its first 8 bytes; no
        // correct sender gets that far.
        match header.command.fixed_len() {
            Some(len) if len != usize::from(header.len) => Some(Error::BadLength {
                command,
                len: header.len,
            }),
            _ => None,
        }
    }

    fn on_syn(&mut self, now: Instant, wire: u32) -> Result<(), Error> {
        if self.config.role == Role::Opener || self.find(wire).is_some() {
            self.counters.syns_ignored += 1;
            return Ok(());
        }
        let limit = self.config.max_streams.saturating_add(ACCEPT_QUEUE);
        if self.streams.len() >= limit as usize {
            return self.fail(Error::TooManyStreams { limit });
        }
        if self.going_away {
            self.counters.streams_refused += 1;
            let id = self.insert(wire, Holder::Nobody, now);
            if let Some(stream) = self.streams.get_mut(id) {
                stream.inbound = Inbound::Discarded;
                stream.outbound = Outbound::Cut;
                stream.reset_due = Some(ResetReason::REFUSED);
            }
            self.refresh(id.slot);
            return Ok(());
        }
        self.counters.streams_accepted += 1;
        let id = self.insert(wire, Holder::Queue, now);
        self.arrivals.push_back(id.slot);
        Ok(())
    }

    fn on_fin(&mut self, wire: u32) {
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

    fn on_psh(&mut self, header: &Header) -> Result<(), Error> {
        let len = usize::from(header.len);
        if len == 0 {
            self.counters.empty_frames += 1;
            return Ok(());
        }
        let mut target = None;
        if let Some(slot) = self.find_or_count(header.stream)
            && let Some(stream) = self.streams.at(slot)
            && stream.inbound == Inbound::Open
        {
            if stream.flow.is_some() {
                let unread = stream.unread.len() as u64 + len as u64;
                let window = self.config.stream_buffer.max(INITIAL_WINDOW);
                if unread > u64::from(window) + u64::from(TOLERANCE) {
                    return self.fail(Error::WindowOverrun {
                        stream: header.stream,
                        unread,
                    });
                }
            }
            target = self.streams.key(slot);
        }
        self.parser.expect = Expect::Bytes(target, len);
        Ok(())
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

    fn on_update(&mut self, wire: u32, update: Update) -> Result<(), Error> {
        self.counters.updates_received += 1;
        let Some(slot) = self.find_or_count(wire) else {
            return Ok(());
        };
        let Some(stream) = self.streams.at_mut(slot) else {
            return Ok(());
        };
        if stream.in_flight(update.consumed) > i32::MAX as u32 {
            return self.fail(Error::ConsumedAhead { stream: wire });
        }
        stream.flow = Some(Flow {
            consumed: update.consumed,
            // More could not be told from a negative number in the check above.
            window: update.window.min(i32::MAX as u32),
        });
        self.refresh(slot);
        Ok(())
    }

    fn on_reset(&mut self, wire: u32, reason: ResetReason) {
        self.counters.resets_received += 1;
        let Some(slot) = self.find_or_count(wire) else {
            return;
        };
        let Some(stream) = self.streams.at_mut(slot) else {
            return;
        };
        if reason == ResetReason::CLOSED {
            self.on_deaf(slot);
            return;
        }
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

    /// The peer reads nothing more of this stream; what it sends goes on to its end.
    fn on_deaf(&mut self, slot: u32) {
        self.stop(slot, ResetReason::CLOSED);
        if let Some(stream) = self.streams.at_mut(slot) {
            // Nobody waits for our end there.
            if stream.outbound != Outbound::Cut {
                stream.outbound = Outbound::Ended;
            }
        }
        self.release_fin(slot);
        self.refresh(slot);
    }

    fn find(&mut self, wire: u32) -> Option<u32> {
        if let Some((recent, slot)) = self.recent
            && recent == wire
        {
            return Some(slot);
        }
        let slot = *self.slots.get(&wire)?;
        self.recent = Some((wire, slot));
        Some(slot)
    }

    fn find_or_count(&mut self, wire: u32) -> Option<u32> {
        let slot = self.find(wire);
        if slot.is_none() {
            self.counters.frames_unknown += 1;
        }
        slot
    }
}
