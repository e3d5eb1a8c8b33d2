//! What every multiplexer tells its application, whatever it speaks on the wire.

use crate::StreamId;
use core::fmt;
use fulmar_wire::smux::Features;
use fulmar_wire::time::Instant;

/// A change of state. Nothing is repeated: an event comes when something becomes so, not while it stays so.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The other end is a Fulmar; these features are in force. Comes at most once, before any stream event.
    PeerHello(Features),
    /// The other end is not a Fulmar, or has nothing in common with us. Comes at most once, as above.
    PeerPlain,
    /// The peer opened this stream. The application holds it from now on.
    Opened(StreamId),
    /// Bytes wait where none waited before. Comes again only after all of them were consumed.
    Readable(StreamId),
    /// The send buffer, which had been more than half full, is no more than half full.
    Writable(StreamId),
    /// The peer ended its direction and every byte of it has been consumed.
    Finished(StreamId),
    /// The peer takes no more bytes; what was still buffered is dropped and writes fail. What the peer sent
    /// remains readable.
    Stopped(StreamId, ResetReason),
    /// The peer cut the stream: both directions are over, and what it sent before may be incomplete.
    Reset(StreamId, ResetReason),
}

/// Why an end cut a stream.
#[derive(Copy, Clone, PartialEq, Eq, Hash)]
pub struct ResetReason(pub u32);

impl ResetReason {
    /// Nobody reads the stream any more; what was written to it still arrives. Not a failure.
    pub const CLOSED: Self = Self(0);
    /// The connection behind the stream broke.
    pub const ABORTED: Self = Self(1);
    /// The stream was not accepted, or its target could not be reached.
    pub const REFUSED: Self = Self(2);
    /// A direction made no progress for too long.
    pub const TIMEOUT: Self = Self(3);
    /// The program or the session is going away.
    pub const SHUTDOWN: Self = Self(4);
}

impl fmt::Display for ResetReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::CLOSED => f.write_str("closed"),
            Self::ABORTED => f.write_str("connection broken"),
            Self::REFUSED => f.write_str("refused"),
            Self::TIMEOUT => f.write_str("timed out"),
            Self::SHUTDOWN => f.write_str("shutting down"),
            Self(other) => write!(f, "reason {other}"),
        }
    }
}

impl fmt::Debug for ResetReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ResetReason({self})")
    }
}

/// What can be read from a stream.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum ReadState {
    /// Bytes wait, or may still come.
    Open,
    /// Everything that the peer sent has been consumed.
    Finished,
    /// The peer cut the stream.
    Reset(ResetReason),
    /// No such stream: it was closed or reset from here.
    Closed,
}

/// What can be written to a stream.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum WriteState {
    /// Bytes are taken while there is room.
    Open,
    /// The application finished; bytes or the end itself still have to leave.
    Finishing,
    /// The end has been sent.
    Finished,
    /// The peer takes no more.
    Stopped(ResetReason),
    /// No such stream: it was closed or reset from here.
    Closed,
}

/// Who the other end of a session is.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Peer {
    /// It has not been heard yet.
    Unknown,
    /// An end without features of ours, such as the Go program.
    Plain,
    /// A Fulmar; the features that both ends have.
    Fulmar(Features),
}

impl Peer {
    /// Whether a `FIN` of this peer ends one direction only.
    #[must_use]
    pub const fn half_close(self) -> bool {
        matches!(self, Self::Fulmar(features) if features.contains(Features::HALF_CLOSE))
    }
}

/// How far a stream has come; for limits on streams that no longer move, and for status pages.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct StreamInfo {
    /// What can be written.
    pub write: WriteState,
    /// What can be read.
    pub read: ReadState,
    /// Bytes in the send buffer.
    pub unsent: usize,
    /// Bytes received and not consumed.
    pub unread: usize,
    /// Bytes that left in frames since the stream was opened.
    pub sent: u64,
    /// Bytes consumed since the stream was opened.
    pub read_total: u64,
    /// Whether bytes wait for the peer's window: nothing else that we do lets them go.
    pub window_closed: bool,
    /// When bytes last left in a frame (at first: when the stream was opened).
    pub sent_at: Instant,
    /// When bytes last arrived.
    pub arrived_at: Instant,
    /// When bytes were last consumed.
    pub read_at: Instant,
}
