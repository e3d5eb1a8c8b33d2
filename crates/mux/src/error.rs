//! Why a call on a multiplexer fails.

use fulmar_wire::libev::MessageError;
use fulmar_wire::smux::Version;
use fulmar_wire::yamux;

/// Why a session of streams is over. Everything but [`Error::PeerSilent`] is misbehaviour of the peer or a
/// difference in configuration between the ends.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A frame has another version than ours. Anything that is not 1 or 2 is not smux at all: most likely
    /// compression is on at one end only.
    #[error("invalid protocol: smux version byte {got:#04x}, ours is {}", .ours.number())]
    BadVersion {
        /// The byte in its place.
        got: u8,
        /// The version of this end.
        ours: Version,
    },
    /// A command that does not exist, or that this peer may not use.
    #[error("invalid protocol: smux command {0:#04x}")]
    BadCommand(u8),
    /// `UPD` belongs to version 2.
    #[error("invalid protocol: window update in smux version 1")]
    UpdInV1,
    /// A frame of a fixed size claims another one.
    #[error("invalid protocol: smux command {command:#04x} with {len} bytes")]
    BadLength {
        /// The command byte.
        command: u8,
        /// The length that it claims.
        len: u16,
    },
    /// The peer sent more than the window of the stream and the tolerance allow.
    #[error("peer overran the window of stream {stream}: {unread} bytes unread")]
    WindowOverrun {
        /// The number of the stream on the wire.
        stream: u32,
        /// Bytes that would wait in our buffer.
        unread: u64,
    },
    /// The peer says that it read bytes which we have not sent.
    #[error("peer consumed more than was sent on stream {stream}")]
    ConsumedAhead {
        /// The number of the stream on the wire.
        stream: u32,
    },
    /// The peer opens streams without end.
    #[error("peer opened more than {limit} streams")]
    TooManyStreams {
        /// The most that may exist.
        limit: u32,
    },
    /// The bytes are no frame of yamux: most likely the ends differ in what encrypts the stream.
    #[error("invalid protocol: {0}")]
    BadFrame(yamux::ParseError),
    /// A stream of yamux is opened that exists, or whose number is not the peer's to give.
    #[error("invalid protocol: yamux stream {stream} cannot be opened")]
    BadStream {
        /// The number of the stream on the wire.
        stream: u32,
    },
    /// The peer ends the session for this reason of yamux: 1 protocol error, 2 internal error.
    #[error("the peer ended the session with yamux code {0}")]
    GoneAway(u32),
    /// The bytes are no message of kcptun-libev.
    #[error("invalid protocol: {0}")]
    BadMessage(MessageError),
    /// A message where it cannot be.
    #[error("invalid protocol: {0} out of order")]
    OutOfOrder(&'static str),
    /// No frame arrived during a whole keep-alive timeout.
    #[error("keep-alive timeout: nothing was heard from the peer")]
    PeerSilent,
}

/// Why a stream could not be opened.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// This end accepts streams and opens none.
    #[error("this end does not open streams")]
    NotOpener,
    /// All stream numbers have been used.
    #[error("stream numbers are exhausted")]
    Exhausted,
    /// The session finishes its streams and takes no new ones.
    #[error("the session is going away")]
    GoingAway,
    /// As many streams as configured exist.
    #[error("too many streams")]
    TooMany,
    /// The session is over.
    #[error("the session is over: {0}")]
    Ended(Error),
}

/// Why bytes were not taken.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The stream does not exist (any more).
    #[error("no such stream")]
    Closed,
    /// This end said that nothing more comes.
    #[error("the stream was finished")]
    Finished,
    /// The peer takes no more.
    #[error("the peer closed the stream")]
    Stopped,
    /// The session is over.
    #[error("the session is over: {0}")]
    Ended(Error),
}
