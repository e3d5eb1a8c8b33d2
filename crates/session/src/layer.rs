//! The upper half of a dialect: what turns the reliable bytes of a conversation into streams.
//!
//! A [`StreamLayer`] sits between the ARQ, whose in-order bytes it takes and gives, and the application, whose
//! streams it serves. Compression, multiplexing and per-stream ciphers of a dialect live behind it, so that
//! forwarding, limits and status are written once for all dialects.

use std::any::Any;

use fulmar_wire::time::Instant;

use crate::memory::Held;

/// Whether a frame is worth being carried more than once.
pub use fulmar_mux::Class;
/// A stream of one session: a key that finds nothing once the stream is gone.
pub use fulmar_mux::StreamId;

/// What happened to a stream. Each is a change: look at the stream for its state.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum StreamEvent {
    /// The peer opened it.
    Opened(StreamId),
    /// Bytes, or the end of them, can be read.
    Readable(StreamId),
    /// There is room to write again, or writing has become pointless.
    Writable(StreamId),
    /// It was cut: what was not read is lost, and nothing more can be written.
    Reset(StreamId),
}

/// What a dialect found out about the other end, for the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// The other end is one of ours: half-close and resets work.
    PeerIsFulmar,
    /// The client's smux version differs from ours; it is used for this session.
    SmuxVersion {
        /// What the client speaks.
        theirs: u8,
        /// What we were told to speak.
        ours: u8,
    },
    /// What a client was found to speak, where a server recognises it.
    Variant(&'static str),
    /// The client's compression differs from ours; it is used for this session.
    Compression {
        /// Whether the client compresses.
        theirs: bool,
        /// Whether we were told to.
        ours: bool,
    },
}

/// How a session that has nothing more to carry ends.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Over {
    /// Both directions have ended and all of it has arrived.
    Done,
    /// We cut it: the peer is told, where the dialect has a word for that.
    Cut,
}

/// Why a session cannot go on.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LayerError {
    /// The bytes are not what the dialect's framing allows.
    #[error("malformed stream: {0}")]
    Malformed(String),
    /// The peer broke a rule of the dialect: too many streams, more bytes than its window.
    #[error("the peer misbehaved: {0}")]
    Misbehaved(String),
    /// The peer says that the session is over, with this code of its multiplexer.
    #[error("ended by the other end (code {0})")]
    Ended(u32),
    /// The peer was silent for the whole keep-alive time.
    #[error("the peer was silent for {0:?}")]
    Silent(core::time::Duration),
}

/// Why a stream could not be opened.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpenError {
    /// Too many streams are open, or all numbers were used.
    #[error("no more streams on this session")]
    Exhausted,
    /// This end does not open streams, or the session has ended.
    #[error("this session opens no streams")]
    Closed,
    /// It is not known yet where the other end is.
    #[error("the other end has not been found yet")]
    NoPeer,
}

/// What a reader finds at the head of a stream.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Readable<'a> {
    /// Bytes, in order, until consumed.
    Bytes(&'a [u8]),
    /// Nothing yet.
    Pending,
    /// The peer has finished sending and everything was read.
    Finished,
    /// The stream is gone: reset, or unknown.
    Reset,
}

/// What a writer may do.
#[derive(PartialEq, Eq, Debug)]
pub enum Writable<'a> {
    /// Room to write into; [`StreamLayer::commit`] takes what was written.
    Room(&'a mut [u8]),
    /// No room now.
    Full,
    /// The peer no longer takes anything of this stream, or it is finished or gone.
    Stopped,
}

/// How far a stream has come.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// When bytes of the peer last arrived.
    pub received: Option<Instant>,
    /// When bytes of ours last left for the ARQ.
    pub sent: Option<Instant>,
    /// Whether bytes of ours wait for the window or the ARQ.
    pub unsent: bool,
}

/// How far something is from being at rest.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Stillness {
    /// Nothing is lost if only numbers are kept.
    Still,
    /// It has something to say first.
    Busy,
    /// It holds more than numbers, and will not before something arrives.
    Full,
    /// It has streams.
    Streams,
}

/// A layer at rest.
pub struct Rested {
    /// What its dialect knows of it.
    pub state: Box<dyn Any + Send>,
    /// When it has to go on, whoever speaks.
    pub timeout: Option<Instant>,
}

/// The upper half of a dialect.
pub trait StreamLayer: Send {
    /// Whether it takes bytes now; `false` is back-pressure towards the peer.
    fn wants_input(&self) -> bool;

    /// Takes the next bytes of the conversation, cut anywhere.
    ///
    /// # Errors
    /// When the session cannot go on.
    fn handle_input(&mut self, now: Instant, bytes: &[u8]) -> Result<(), LayerError>;

    /// The same; `last`: the bytes end a message of KCP, in dialects where that means something.
    ///
    /// # Errors
    /// As [`handle_input`](Self::handle_input).
    fn handle_fragment(
        &mut self,
        now: Instant,
        bytes: &[u8],
        _last: bool,
    ) -> Result<(), LayerError> {
        self.handle_input(now, bytes)
    }

    /// Gives the next frame to `sink`, as one or more pieces with its class; `false` when there is none. It has no
    /// more than `limit` bytes of a stream, where the dialect has a choice; what it adds to them is not counted.
    fn poll_output(&mut self, now: Instant, limit: u32, sink: &mut dyn FnMut(&[u8], Class))
    -> bool;

    /// When [`StreamLayer::handle_timeout`] is due.
    fn poll_timeout(&self) -> Option<Instant>;

    /// Does what is due.
    ///
    /// # Errors
    /// When the session cannot go on: the peer has been silent.
    fn handle_timeout(&mut self, now: Instant) -> Result<(), LayerError>;

    /// The next change of a stream.
    fn poll_event(&mut self) -> Option<StreamEvent>;

    /// The next thing found out about the other end.
    fn poll_notice(&mut self) -> Option<Notice>;

    /// Whether a valid frame of the peer has arrived.
    fn is_proven(&self) -> bool;

    /// Whether the other end is known to be one of ours.
    fn peer_is_fulmar(&self) -> bool;

    /// Whether the other end takes ranges for acknowledgements ([`fulmar_arq::Kcp::send_ack_ranges`]).
    fn peer_takes_ack_ranges(&self) -> bool;

    /// What the peer has to say to be believed that it has ended the session, where two Fulmar ends have agreed on that.
    fn token(&self) -> Option<u64> {
        None
    }

    /// What the peer believes, should this end end the session.
    fn peer_token(&self) -> Option<u64> {
        None
    }

    /// The other end has said what it understands: it is one of ours. Dialects whose streams say so themselves have no use for it.
    fn peer_told(&mut self, _ack_ranges: bool) {}

    /// Whether everything that was given to the ARQ has been acknowledged; told at every flush.
    fn acknowledged(&mut self, _now: Instant, _all: bool) {}

    /// The peer says that it does not know this session any more. Whether the session goes on nevertheless, for what has arrived to be
    /// read.
    fn peer_reset(&mut self) -> bool {
        false
    }

    /// The session ends here, because of what the peer did (`fault`) or of us. Whether there is something to say about it, in dialects whose
    /// streams have a word for that; it is sent once.
    fn last_words(&mut self, _fault: bool) -> bool {
        false
    }

    /// Whether the session has nothing more to carry. In dialects with many streams it never has.
    fn over(&self) -> Option<Over> {
        None
    }

    /// Streams that exist now.
    fn streams(&self) -> usize;

    /// Bytes of streams that have arrived so far.
    fn payload_received(&self) -> u64;

    /// Sends something that the peer acknowledges and that means nothing.
    fn ping(&mut self);

    /// Opens a stream.
    ///
    /// # Errors
    /// When this session opens none, or no more.
    fn open(&mut self, now: Instant) -> Result<StreamId, OpenError>;

    /// The head of what arrived on `id`.
    fn read(&mut self, id: StreamId) -> Readable<'_>;

    /// What [`read`](Self::read) has shown and what follows it, in pieces for one vectored write: fills `pieces` from the
    /// front and returns how many there are, 0 if `read` would not give bytes.
    fn pieces<'a>(&'a self, id: StreamId, pieces: &mut [&'a [u8]]) -> usize;

    /// Drops the first `n` bytes of what [`StreamLayer::read`] showed.
    fn consume(&mut self, now: Instant, id: StreamId, n: usize);

    /// Room for at most `max` bytes to send on `id`.
    fn write(&mut self, id: StreamId, max: usize) -> Writable<'_>;

    /// Bytes of `id` that wait to be given to the ARQ.
    fn unsent(&self, id: StreamId) -> usize;

    /// There was no more room for `id` although [`write`](Self::write) would have given it: [`StreamEvent::Writable`] is to tell when all
    /// that waits has left.
    fn starve(&mut self, id: StreamId);

    /// Bytes of memory that hold what streams have written, and what of them has arrived and was not consumed.
    fn held(&self) -> Held;

    /// Sends the first `n` bytes of the room.
    fn commit(&mut self, id: StreamId, n: usize);

    /// Nothing more will be written to `id`; the other direction goes on.
    fn finish(&mut self, now: Instant, id: StreamId);

    /// Drops `id` at once, in a way that the peer sees as a cut where the dialect can say so.
    fn reset(&mut self, now: Instant, id: StreamId);

    /// Forgets `id` after what was written has been sent.
    fn close(&mut self, now: Instant, id: StreamId);

    /// Gives back memory that a burst took.
    fn shrink(&mut self);

    /// Whether it can [`rest`](Self::rest).
    fn stillness(&self) -> Stillness;

    /// What has to be known of it when nobody speaks. Only if it is [`Stillness::Still`].
    fn rest(self: Box<Self>) -> Rested;

    /// Goes on where one of the same dialect rested. It must be one that a stranger's session is built with.
    fn resume(self: Box<Self>, now: Instant, rested: Rested) -> Box<dyn StreamLayer>;

    /// How far `id` has come.
    fn progress(&self, id: StreamId) -> Option<Progress>;
}
