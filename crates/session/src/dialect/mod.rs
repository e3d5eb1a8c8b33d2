//! The compositions: what differs between wire formats, chosen when a session is built.
//!
//! [`Dialect`] is what an [`Endpoint`](crate::Endpoint) asks; each module is one that answers. A new wire format is another
//! module here, and a name in the configuration.

pub mod kcptun;
pub mod kcptun2016;
pub mod libev;
mod muxed;

use std::net::SocketAddr;

use fulmar_cipher::Scheme;
use fulmar_wire::time::{Instant, Millis};

use crate::admission::Peek;
use crate::session::Parts;
use crate::transmit::Path;

/// Finds the method of a datagram among those of another dialect, with the same password.
pub type Probe = Box<dyn FnMut(&[u8]) -> Option<Scheme> + Send>;

/// A stranger that gets a session: what the builder of its parts is told.
#[derive(Copy, Clone, Debug)]
pub struct Stranger {
    /// Where it sent from and to.
    pub path: Path,
    /// The conversation it chose.
    pub conv: u32,
    /// When the segment that opens it left, by its clock.
    pub time: Millis,
    /// Index of the cipher that opened its datagram.
    pub cipher: usize,
    /// The method of that cipher.
    pub scheme: Scheme,
}

/// What a dialect does when a stream is to be opened.
// It is taken apart at once, so the large variant is not boxed.
#[allow(clippy::large_enum_variant)]
pub enum Opening {
    /// On the session that there is.
    Existing,
    /// On a session of its own.
    Session(Parts),
    /// It is not known yet where the other end is.
    NoPeer,
}

/// What a message beside all conversations means for them.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Beside {
    /// The sender knows no such conversation.
    Reset {
        /// Which.
        conv: u32,
    },
    /// The sender is one of ours.
    Fulmar {
        /// Whether it takes acknowledgements in ranges.
        ack_ranges: bool,
    },
}

/// What is said beside conversations, for the owner of an endpoint.
pub use libev::control::Event as PathEvent;

/// A dialect: what an endpoint asks about formats and peers. Where the last group of functions has defaults, they are
/// those of a dialect in which nothing is said beside conversations.
pub trait Dialect: Send {
    /// What can be told of an opened datagram without any session; `None` when it is too short to be anything.
    fn peek(&self, body: &[u8]) -> Option<Peek>;

    /// The parts of a session that a stranger opens.
    fn accept(&mut self, now: Instant, stranger: Stranger) -> Parts;

    /// Finds the method of a datagram, among all methods and with our key.
    fn probe(&mut self, datagram: &[u8]) -> Option<Scheme>;

    /// Whether a conversation number belongs to one client in the world and begins once. Then one that was used before
    /// is a replay, and another session from the same address means that its client has given up the one before. Else
    /// it belongs to an address.
    fn conversations_are_unique(&self) -> bool {
        true
    }

    /// Where a stream that we open goes. Asked again if its conversation is in use.
    fn open(&mut self, _now: Instant) -> Opening {
        Opening::Existing
    }

    /// Whether a datagram that opens something, or says something beside conversations, was here before. `sealed` is what
    /// arrived, with whatever makes it unique still in its place.
    fn is_replay(&mut self, _sealed: &[u8]) -> bool {
        false
    }

    /// A message beside all conversations.
    fn handle_beside(&mut self, _now: Instant, _path: Path, _body: &[u8]) -> Option<Beside> {
        None
    }

    /// Something of a conversation has come from there, and opened.
    fn heard(&mut self, _now: Instant, _from: SocketAddr) {}

    /// Datagrams of conversations have left.
    fn sent(&mut self, _now: Instant) {}

    /// Whether the end of `conv` of that peer is remembered, so that nothing late begins it anew.
    fn has_ended(&self, _now: Instant, _conv: u32, _peer: SocketAddr) -> bool {
        false
    }

    /// Where a number belongs to an address: whether what begins `conv` at another address, at that time of its sender's, is nevertheless of
    /// the one that has begun. It was copied or kept back on the way, or its client has moved meanwhile.
    fn is_copy(&self, _now: Instant, _conv: u32, _time: Millis) -> bool {
        false
    }

    /// A datagram of a conversation that nobody has, and that may not begin.
    fn unknown(&mut self, _now: Instant, _path: Path, _conv: u32) {}

    /// A session has ended; `tell`: its peer does not know yet.
    fn ended(&mut self, _now: Instant, _path: Path, _conv: u32, _tell: bool) {}

    /// The path to that peer has been found to carry so many bytes of UDP payload; 0 when nothing was found.
    fn carried(&mut self, _peer: SocketAddr, _bytes: usize) {}

    /// A session does not answer.
    fn suspect(&mut self, _now: Instant) {}

    /// Whether the peer there is one of ours, and if so, whether it takes acknowledgements in ranges.
    fn peer_at(&self, _addr: SocketAddr) -> Option<bool> {
        None
    }

    /// The next message beside conversations, appended to `out`.
    fn poll_beside(&mut self, _now: Instant, _out: &mut Vec<u8>) -> Option<Path> {
        None
    }

    /// When [`Dialect::handle_timeout`] is due; in the past while there are messages.
    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Does what is due.
    fn handle_timeout(&mut self, _now: Instant) {}

    /// The next thing that the owner should know.
    fn poll_event(&mut self) -> Option<PathEvent> {
        None
    }

    /// Somebody wants to know whether the other end is there: asks it beside conversations, unless it was asked or heard
    /// a short while ago. `None` in dialects that have no question beside conversations; else whether it was asked.
    fn inquire(&mut self, _now: Instant) -> Option<bool> {
        None
    }

    /// Names were looked up again: where the other end is, best first.
    fn resolved(&mut self, _now: Instant, _addrs: Vec<SocketAddr>) {}

    /// Our own addresses are others now.
    fn local_changed(&mut self, _addrs: Vec<SocketAddr>) {}

    /// The configuration was read again. Of one dialect only, so far.
    fn reload(&mut self, _settings: &libev::Settings, _keepalive: Option<core::time::Duration>) {}

    /// Gives back memory that a burst took.
    fn shrink(&mut self) {}
}
