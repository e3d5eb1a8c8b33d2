//! Commands on sessions and streams, for the owner of an endpoint.

use fulmar_wire::time::Instant;

use std::net::SocketAddr;
use std::time::Duration;

use super::Endpoint;
use crate::dialect::Opening;
use crate::dialect::libev::Settings;
use crate::layer::{OpenError, Progress, Readable, StreamId, StreamLayer, Writable};
use crate::memory;
use crate::session::{Reason, Session};
use crate::slots::SessionKey;

/// Conversations that are tried before one is free.
const OPENING_TRIES: u32 = 64;

/// Commands on sessions and streams.
impl Endpoint {
    /// The session `key`, to look at.
    #[must_use]
    pub fn session(&self, key: SessionKey) -> Option<&Session> {
        self.sessions.get(key)
    }

    /// Whether the peer of a session is known to be where it seems to be: it has our key, where there is one that proves something, or
    /// its address is validated ([`crate::addresses`]). An address that is forged can have neither.
    #[must_use]
    pub fn is_vouched(&self, key: SessionKey) -> bool {
        let keyed = |cipher: usize| self.ciphers[cipher].scheme().proves_key();
        match (self.sessions.get(key), self.sessions.stub(key)) {
            (Some(session), _) => session.proven && keyed(session.cipher) || session.is_known(),
            (None, Some(stub)) => keyed(stub.cipher as usize) || stub.is_known(),
            (None, None) => false,
        }
    }

    /// Keys of all sessions.
    pub fn sessions(&self) -> impl Iterator<Item = SessionKey> + '_ {
        self.sessions.keys()
    }

    /// Ends a session. The peer is told if the dialect has a word for it; kcptun has none (docs/spec/kcptun.md, section 8.3).
    pub fn close_session(&mut self, key: SessionKey) {
        self.remove(key, Reason::Closed);
    }

    /// Opens a stream.
    ///
    /// # Errors
    /// When the session is gone or opens no more.
    pub fn open_stream(&mut self, now: Instant, key: SessionKey) -> Result<StreamId, OpenError> {
        let session = self.sessions.get_mut(key).ok_or(OpenError::Closed)?;
        let id = session.layer.open(now)?;
        self.counters.streams_opened += 1;
        self.touch(key);
        Ok(id)
    }

    /// Opens a stream where the dialect says: on the session that there is, or on one of its own.
    ///
    /// # Errors
    /// When there is no more room, or no session, or it is not known where the other end is.
    pub fn open(&mut self, now: Instant) -> Result<(SessionKey, StreamId), OpenError> {
        for _ in 0..OPENING_TRIES {
            match self.dialect.open(now) {
                Opening::NoPeer => return Err(OpenError::NoPeer),
                Opening::Existing => {
                    let key = self.sessions.key_at(0).ok_or(OpenError::Closed)?;
                    return Ok((key, self.open_stream(now, key)?));
                }
                Opening::Session(parts) => {
                    if self.sessions.len() >= self.limits.sessions {
                        return Err(OpenError::Exhausted);
                    }
                    if self.index.any(parts.kcp.conv()).is_some() {
                        continue;
                    }
                    self.clock = now;
                    self.counters.active_opens += 1;
                    let mut session = Session::new(parts, now);
                    if let Some(ack_ranges) = self.dialect.peer_at(session.path.remote) {
                        session.layer.peer_told(ack_ranges);
                    }
                    let key = self.insert(session);
                    return Ok((key, self.open_stream(now, key)?));
                }
            }
        }
        Err(OpenError::Exhausted)
    }

    /// Somebody wants to know whether the other end is there, and the last proof of that is old: asks it, beside
    /// conversations where the dialect can, else within the sessions that there are. Whether a question leaves.
    pub fn inquire(&mut self, now: Instant) -> bool {
        if let Some(asked) = self.dialect.inquire(now) {
            return asked;
        }
        let keys: Vec<_> = self.sessions.keys().collect();
        for key in &keys {
            self.stream_command(*key, |layer| layer.ping());
        }
        !keys.is_empty()
    }

    /// Names were looked up again: where the other end is now, best first.
    pub fn resolved(&mut self, now: Instant, addrs: Vec<SocketAddr>) {
        self.dialect.resolved(now, addrs);
    }

    /// Our own addresses are others now.
    pub fn local_changed(&mut self, addrs: Vec<SocketAddr>) {
        self.dialect.local_changed(addrs);
    }

    /// The configuration was read again: new sessions are built from `settings`, and a client pings after so much silence.
    pub fn reload(&mut self, settings: &Settings, keepalive: Option<Duration>) {
        self.dialect.reload(settings, keepalive);
    }

    /// The head of what arrived on a stream.
    pub fn read(&mut self, key: SessionKey, id: StreamId) -> Readable<'_> {
        self.sessions
            .get_mut(key)
            .map_or(Readable::Reset, |s| s.layer.read(id))
    }

    /// What [`Endpoint::read`] has shown and what follows it, in pieces for one vectored write: how many of `pieces`
    /// were filled.
    pub fn pieces<'a>(&'a self, key: SessionKey, id: StreamId, pieces: &mut [&'a [u8]]) -> usize {
        self.sessions
            .get(key)
            .map_or(0, |s| s.layer.pieces(id, pieces))
    }

    /// Drops the first `n` bytes of what [`Endpoint::read`] showed.
    pub fn consume(&mut self, now: Instant, key: SessionKey, id: StreamId, n: usize) {
        if let Some(session) = self.sessions.get_mut(key) {
            session.layer.consume(now, id, n);
            self.touch(key);
        }
    }

    /// Room for at most `max` bytes to send on a stream, within what all of them may hold ([`crate::memory`]).
    pub fn write(&mut self, key: SessionKey, id: StreamId, max: usize) -> Writable<'_> {
        let Some(session) = self.sessions.get_mut(key) else {
            return Writable::Stopped;
        };
        let allowance = self.memory.allowance().sending;
        if memory::is_plenty(allowance, session.held.sending) {
            return session.layer.write(id, max);
        }
        let most = memory::stream_allowance(allowance, session.layer.held().sending);
        let unsent = session.layer.unsent(id);
        if unsent < most {
            return session.layer.write(id, max.min(most - unsent));
        }
        self.counters.send_limited += 1;
        session.layer.starve(id);
        match session.layer.write(id, 0) {
            Writable::Stopped => Writable::Stopped,
            Writable::Full | Writable::Room(_) => Writable::Full,
        }
    }

    /// The same, within what the stream may hold and no other limit: for what was taken from its sender before, and would be lost.
    pub fn rewrite(&mut self, key: SessionKey, id: StreamId, max: usize) -> Writable<'_> {
        self.sessions
            .get_mut(key)
            .map_or(Writable::Stopped, |s| s.layer.write(id, max))
    }

    /// Sends the first `n` bytes of the room that [`Endpoint::write`] gave; 0 gives the room back.
    pub fn commit(&mut self, key: SessionKey, id: StreamId, n: usize) {
        if let Some(session) = self.sessions.get_mut(key) {
            session.layer.commit(id, n);
            if n > 0 {
                // The next flush says it exactly.
                session.held.sending += n;
                self.memory.add_sending(n);
                self.touch(key);
            }
        }
    }

    /// Nothing more will be written to a stream.
    pub fn finish(&mut self, now: Instant, key: SessionKey, id: StreamId) {
        self.stream_command(key, |layer| layer.finish(now, id));
    }

    /// Cuts a stream.
    pub fn reset(&mut self, now: Instant, key: SessionKey, id: StreamId) {
        self.counters.streams_reset += 1;
        self.stream_command(key, |layer| layer.reset(now, id));
    }

    /// Forgets a stream after what was written has been sent.
    pub fn close(&mut self, now: Instant, key: SessionKey, id: StreamId) {
        self.stream_command(key, |layer| layer.close(now, id));
    }

    /// How far a stream has come.
    #[must_use]
    pub fn progress(&self, key: SessionKey, id: StreamId) -> Option<Progress> {
        self.sessions.get(key)?.layer.progress(id)
    }

    fn stream_command(&mut self, key: SessionKey, command: impl FnOnce(&mut dyn StreamLayer)) {
        if let Some(session) = self.sessions.get_mut(key) {
            command(&mut *session.layer);
            self.touch(key);
        }
    }
}
