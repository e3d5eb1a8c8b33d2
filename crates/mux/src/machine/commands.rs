//! What the application does with streams.

use super::{Mux, Protocol, Role, Version};
use crate::event::{ReadState, ResetReason, StreamInfo, WriteState};
use crate::machine::stream::{Changes, Flow, Holder, Inbound, Outbound, Stream};
use crate::pool::Slices;
use crate::slab::Slab;
use crate::{OpenError, StreamId, WriteError};
use fulmar_wire::time::Instant;

impl Mux {
    /// Opens a stream. Its `SYN` is the next frame of the stream; nothing answers it.
    ///
    /// # Errors
    /// See [`OpenError`]; an acceptor opens no streams.
    pub fn open(&mut self, now: Instant) -> Result<StreamId, OpenError> {
        if let Some(error) = self.over {
            return Err(OpenError::Ended(error));
        }
        if self.config.role == Role::Acceptor {
            return Err(OpenError::NotOpener);
        }
        if self.going_away || self.yamux.peer_goes_away {
            return Err(OpenError::GoingAway);
        }
        let wire = self.next_wire.ok_or(OpenError::Exhausted)?;
        if self.held >= self.config.max_streams {
            return Err(OpenError::TooMany);
        }
        self.next_wire = wire.checked_add(2);
        let id = self.insert(wire, Holder::Application, now);
        if let Some(stream) = self.streams.get_mut(id) {
            stream.syn_due = true;
        }
        self.held += 1;
        self.counters.streams_opened += 1;
        self.refresh(id.slot);
        Ok(id)
    }

    /// Bytes that [`write`](Self::write) would take now; 0 when the direction is not open.
    #[must_use]
    pub fn write_space(&self, id: StreamId) -> usize {
        match self.stream(id) {
            Some(stream) if stream.outbound == Outbound::Open && self.over.is_none() => {
                (self.config.send_buffer as usize).saturating_sub(stream.unsent.len())
            }
            _ => 0,
        }
    }

    /// Bytes of a stream that wait to leave.
    #[must_use]
    pub fn unsent(&self, id: StreamId) -> usize {
        self.stream(id).map_or(0, |stream| stream.unsent.len())
    }

    /// Whoever writes to this stream takes no more room than it has taken, for reasons of its own:
    /// [`Event::Writable`](crate::Event::Writable) is to tell when all that waits has left. To be called while something waits.
    pub fn starve(&mut self, id: StreamId) {
        if let Some(stream) = self.stream_mut(id) {
            stream.starved = !stream.unsent.is_empty();
        }
    }

    /// Takes as much of `data` as there is room for; returns how much that was. After a short write
    /// [`Event::Writable`](crate::Event::Writable) tells when to go on.
    ///
    /// # Errors
    /// When the direction is not open.
    pub fn write(&mut self, id: StreamId, data: &[u8]) -> Result<usize, WriteError> {
        self.check_write(id)?;
        let n = self.write_space(id).min(data.len());
        if let (Some(stream), Some((data, _))) =
            (self.streams.get_mut(id), data.split_at_checked(n))
        {
            self.outbox.append(&mut stream.unsent, data, n);
        }
        self.refresh(id.slot);
        Ok(n)
    }

    /// Room for at most `max` bytes at the end of the send buffer: to be filled, for instance by reading a socket
    /// right into it, and then made part of the stream by [`write_commit`](Self::write_commit). Fewer than `max`,
    /// and none when the buffer is full. What the room contains is unspecified.
    ///
    /// Every reservation ends with a commit, of 0 bytes if need be, or with the direction: an open one keeps memory.
    /// Until then the same call returns the same room with its contents, so that they can be worked on in place
    /// (encrypted, for instance), and [`write`](Self::write) must not be called for this stream.
    ///
    /// # Errors
    /// When the direction is not open.
    pub fn write_reserve(&mut self, id: StreamId, max: usize) -> Result<&mut [u8], WriteError> {
        self.check_write(id)?;
        let n = self.write_space(id).min(max);
        match self.streams.get_mut(id) {
            Some(stream) => Ok(self.outbox.reserve(&mut stream.unsent, n)),
            None => Err(WriteError::Closed),
        }
    }

    /// Makes the first `n` bytes of the reserved room part of the stream; returns how many there were, which is `n`
    /// if no more than the room is asked for.
    ///
    /// # Errors
    /// When the direction has been closed since: the bytes are dropped.
    pub fn write_commit(&mut self, id: StreamId, n: usize) -> Result<usize, WriteError> {
        self.check_write(id)?;
        let n = n.min(self.write_space(id));
        let taken = match self.streams.get_mut(id) {
            Some(stream) => self.outbox.commit(&mut stream.unsent, n),
            None => 0,
        };
        debug_assert_eq!(taken, n, "more than was reserved");
        self.refresh(id.slot);
        Ok(taken)
    }

    /// Nothing more will be written: the peer sees the end after the last byte. When exactly `FIN` leaves depends on
    /// the peer, see the [module](super). The other direction is not touched. Repeating it does nothing.
    pub fn finish(&mut self, now: Instant, id: StreamId) {
        let opener = self.config.role == Role::Opener;
        let Some(stream) = held(&mut self.streams, id) else {
            return;
        };
        if !matches!(stream.outbound, Outbound::Open | Outbound::Stopped) || stream.gone {
            return;
        }
        stream.outbound = Outbound::Ending;
        stream.changes.remove(Changes::WRITABLE);
        // Room that was lent and not committed is not needed any more.
        self.outbox.commit(&mut stream.unsent, 0);
        if opener && stream.inbound == Inbound::Open && !self.peer.half_close() {
            self.hold_fin(id.slot, now);
        }
        self.refresh(id.slot);
    }

    /// Drops both directions: bytes written before still leave, then the peer is told; what it sent and still sends
    /// is thrown away. The key names nothing from now on.
    pub fn close(&mut self, now: Instant, id: StreamId) {
        let opener = self.config.role == Role::Opener;
        let yamux = self.terms().yamux;
        let Some(stream) = self.release(id) else {
            return;
        };
        match stream.outbound {
            Outbound::Open | Outbound::Stopped => stream.outbound = Outbound::Ending,
            Outbound::Ending | Outbound::Ended | Outbound::Cut => {}
        }
        if stream.inbound == Inbound::Open {
            stream.inbound = Inbound::Discarded;
            // yamux has no word for it: who goes on sending is cut then.
            stream.reset_due = (!yamux).then_some(ResetReason::CLOSED);
        }
        let unborn = opener && stream.syn_due && stream.unsent.is_empty();
        if unborn {
            self.forget(id.slot);
            return;
        }
        self.set_timer(id.slot, Some(now + self.config.linger));
        self.refresh(id.slot);
    }

    /// Cuts the stream: unsent and unread bytes are dropped, and the peer is told `reason` if it understands
    /// ([`ResetReason::CLOSED`], which is not a cut, counts as [`ResetReason::ABORTED`]). The key names nothing from
    /// now on.
    pub fn reset(&mut self, id: StreamId, reason: ResetReason) {
        let reason = match reason {
            ResetReason::CLOSED => ResetReason::ABORTED,
            other => other,
        };
        let opener = self.config.role == Role::Opener;
        let Some(stream) = self.release(id) else {
            return;
        };
        let done = stream.outbound == Outbound::Ended && stream.inbound == Inbound::Finished;
        if !done {
            stream.reset_due = Some(reason);
        }
        if stream.outbound != Outbound::Ended {
            stream.outbound = Outbound::Cut;
        }
        if stream.inbound == Inbound::Open {
            stream.inbound = Inbound::Discarded;
        }
        let unborn = opener && stream.syn_due;
        self.drop_unsent(id.slot);
        if unborn {
            self.forget(id.slot);
        } else {
            self.refresh(id.slot);
        }
    }

    /// What can be read.
    #[must_use]
    pub fn read_state(&self, id: StreamId) -> ReadState {
        self.stream(id)
            .map_or(ReadState::Closed, Stream::read_state)
    }

    /// What can be written.
    #[must_use]
    pub fn write_state(&self, id: StreamId) -> WriteState {
        self.stream(id)
            .map_or(WriteState::Closed, Stream::write_state)
    }

    /// Bytes that wait to be consumed.
    #[must_use]
    pub fn readable(&self, id: StreamId) -> usize {
        self.stream(id).map_or(0, |stream| stream.unread.len())
    }

    /// The first bytes that wait, in at most two pieces; not always all of them. Both are empty when none wait.
    #[must_use]
    pub fn read_chunks(&self, id: StreamId) -> [&[u8]; 2] {
        let mut slices = self.read_slices(id);
        [
            slices.next().unwrap_or_default(),
            slices.next().unwrap_or_default(),
        ]
    }

    /// All bytes that wait, in as many pieces as there are; for vectored writes.
    #[must_use]
    pub fn read_slices(&self, id: StreamId) -> Slices<'_> {
        self.stream(id)
            .map_or_else(Slices::none, |stream| self.inbox.slices(&stream.unread))
    }

    /// The pieces of [`read_chunks`](Self::read_chunks), to be worked on in place (decrypted, for instance). They keep
    /// what is done to them until they are consumed.
    pub fn read_chunks_mut(&mut self, id: StreamId) -> [&mut [u8]; 2] {
        match self.streams.get(id) {
            Some(stream) if stream.holder == Holder::Application => {
                self.inbox.first_two_mut(&stream.unread)
            }
            _ => [&mut [], &mut []],
        }
    }

    /// Drops the first `n` bytes that wait, at most all: the application has them. smux version 2 tells the peer at the
    /// first time, and then each time half of the stream buffer has been consumed (docs/spec/kcptun.md, section 9.5); yamux each time.
    pub fn consume(&mut self, now: Instant, id: StreamId, n: usize) {
        let threshold = self.config.stream_buffer / 2;
        let (tells, at_first) = match self.config.protocol {
            Protocol::Smux(version) => (version == Version::V2, true),
            Protocol::Yamux => (true, false),
        };
        let Some(stream) = held(&mut self.streams, id) else {
            return;
        };
        let n = n.min(stream.unread.len());
        if n == 0 {
            return;
        }
        self.inbox.consume(&mut stream.unread, n);
        self.unread -= n as u64;
        let first = stream.read == 0;
        stream.read += n as u64;
        stream.read_at = now;
        stream.read_untold = stream.read_untold.saturating_add(n as u32);
        let due = at_first && first || stream.read_untold >= threshold;
        // Who has ended needs no more room.
        stream.update_due |= tells && due && (at_first || stream.inbound == Inbound::Open);
        if stream.unread.is_empty() {
            // Bytes that have not been told of any more must not be told of.
            stream.changes.remove(Changes::READABLE);
            if stream.inbound == Inbound::Finished {
                self.note(id.slot, Changes::FINISHED);
            }
        }
        self.refresh(id.slot);
    }

    /// How far the stream has come, `None` when the key names nothing.
    #[must_use]
    pub fn stream_info(&self, id: StreamId) -> Option<StreamInfo> {
        self.stream(id).map(Stream::info)
    }

    /// Makes a stream known.
    pub(super) fn insert(&mut self, wire: u32, holder: Holder, now: Instant) -> StreamId {
        let flow = match self.config.protocol {
            Protocol::Smux(Version::V1) => Flow::Unlimited,
            Protocol::Smux(Version::V2) => Flow::Told {
                consumed: 0,
                window: fulmar_wire::smux::INITIAL_WINDOW,
            },
            Protocol::Yamux => Flow::Credit(fulmar_wire::yamux::INITIAL_WINDOW),
        };
        let id = self
            .streams
            .insert(wire, Stream::new(wire, holder, flow, now));
        self.slots.insert(wire, id.slot);
        id
    }

    fn check_write(&self, id: StreamId) -> Result<(), WriteError> {
        if let Some(error) = self.over {
            return Err(WriteError::Ended(error));
        }
        let stream = self.stream(id).ok_or(WriteError::Closed)?;
        if stream.stopped.is_some() {
            return Err(WriteError::Stopped);
        }
        match stream.outbound {
            Outbound::Open => Ok(()),
            Outbound::Ending | Outbound::Ended => Err(WriteError::Finished),
            Outbound::Stopped => Err(WriteError::Stopped),
            Outbound::Cut => Err(WriteError::Closed),
        }
    }

    /// Takes a stream from the application, with everything that only it wanted.
    fn release(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.stream_mut(id)?.holder = Holder::Nobody;
        self.held -= 1;
        self.changed.remove(id.slot);
        self.set_timer(id.slot, None);
        self.drop_unread(id.slot);
        let stream = self.streams.get_mut(id)?;
        self.outbox.commit(&mut stream.unsent, 0);
        stream.changes = Changes::default();
        stream.update_due = false;
        stream.fin_held = false;
        Some(stream)
    }
}

/// The stream behind a key that the application holds, without the rest of the session.
pub(super) fn held(streams: &mut Slab<Stream>, id: StreamId) -> Option<&mut Stream> {
    streams
        .get_mut(id)
        .filter(|stream| stream.holder == Holder::Application)
}
