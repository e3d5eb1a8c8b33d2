//! A session without streams at rest: what has to be known of it when nobody speaks, in little memory.

use super::input::Parser;
use super::{Counters, Mux, yamux};
use crate::event::Peer;
use fulmar_wire::time::Instant;

/// See the module. Everything else of a [`Mux`] follows from its [`Config`](super::Config), which must be the same, with the same token.
#[derive(Debug)]
pub struct Rest {
    peer: Peer,
    heard: bool,
    going_away: bool,
    next_wire: Option<u32>,
    peer_token: Option<u64>,
    exchanges_tokens: bool,
    emitted_at: Instant,
    nop_at: Instant,
    check_at: Instant,
    heard_since_check: bool,
    heard_at: Instant,
    parser: Parser,
    frames_received: u64,
    bytes_received: u64,
    yamux: yamux::State,
}

impl Rest {
    /// When the session has something to say or to look at, and has to go on.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        self.nop_at.min(self.check_at)
    }

    /// What the peer believes, should we end the session.
    #[must_use]
    pub const fn peer_token(&self) -> Option<u64> {
        self.peer_token
    }
}

impl Mux {
    /// Whether it has no stream, nothing to say, nothing to tell, and no input that waits: [`Self::rest`] loses nothing then.
    #[must_use]
    pub fn is_restful(&self) -> bool {
        self.over.is_none()
            && self.streams.len() == 0
            && self.timers.is_empty()
            && self.unread == 0
            && !self.peer_news
            && !self.has_frames()
            && self.yamux.is_restful()
    }

    /// What has to be known of it; only if it is [restful](Self::is_restful).
    #[must_use]
    pub fn rest(self) -> Rest {
        debug_assert!(self.is_restful());
        Rest {
            exchanges_tokens: self.exchanges_tokens(),
            peer: self.peer,
            heard: self.heard,
            going_away: self.going_away,
            next_wire: self.next_wire,
            peer_token: self.peer_token,
            emitted_at: self.emitted_at,
            nop_at: self.nop_at,
            check_at: self.check_at,
            heard_since_check: self.heard_since_check,
            heard_at: self.heard_at,
            parser: self.parser,
            frames_received: self.counters.frames_received,
            bytes_received: self.counters.bytes_received,
            yamux: self.yamux,
        }
    }

    /// Goes on where a session rested. It must be new.
    pub fn resume(&mut self, rest: Rest) {
        self.peer = rest.peer;
        self.peer_news = false;
        self.heard = rest.heard;
        self.going_away = rest.going_away;
        self.next_wire = rest.next_wire;
        self.peer_token = rest.peer_token;
        self.hello_due = false;
        self.emitted_at = rest.emitted_at;
        self.nop_at = rest.nop_at;
        self.check_at = rest.check_at;
        self.heard_since_check = rest.heard_since_check;
        self.heard_at = rest.heard_at;
        self.parser = rest.parser;
        self.counters = Counters {
            frames_received: rest.frames_received,
            bytes_received: rest.bytes_received,
            ..Counters::default()
        };
        self.yamux = rest.yamux;
        debug_assert_eq!(self.exchanges_tokens(), rest.exchanges_tokens);
    }
}
