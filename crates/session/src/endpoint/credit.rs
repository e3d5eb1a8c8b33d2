//! What sessions may send to peers that have not been shown to be where they seem to be ([`crate::addresses`]).

use std::net::SocketAddr;

use fulmar_wire::time::Instant;

use super::{Endpoint, Source};
use crate::addresses::{Allowance, REMEMBERED_FOR};
use crate::session::Session;
use crate::slots::SessionKey;

impl Endpoint {
    /// A datagram has come from an address that is not known to be that of the session's peer, and its session has taken it.
    pub(super) fn heard_stranger(
        &mut self,
        now: Instant,
        source: Source<'_>,
        key: SessionKey,
        body: usize,
    ) {
        let addr = source.path.remote;
        let bytes = source.sealed.len().max(body);
        let forgotten = self.addresses.heard(now, addr, bytes);
        self.counters.forgotten_addresses += u64::from(forgotten);
        let shown = self.sessions.get_mut(key).is_some_and(Session::take_echo);
        if shown {
            self.validate(now, addr, key);
        }
    }

    /// The peer of a session has been shown to be at `addr`.
    pub(super) fn validate(&mut self, now: Instant, addr: SocketAddr, key: SessionKey) {
        let forgotten = self.addresses.validate(now, addr);
        self.counters.forgotten_addresses += u64::from(forgotten);
        self.counters.validated_addresses += 1;
        if let Some(session) = self.sessions.get_mut(key) {
            session.trust(now);
        }
        self.blocked.remove(&(addr, key));
        self.touch(key);
        // Others that wait for it.
        let first = (addr, SessionKey::FIRST);
        while let Some(&place) = self.blocked.range(first..).next()
            && place.0 == addr
        {
            self.blocked.remove(&place);
            self.touch(place.1);
        }
    }

    /// A session has ended: when its peer was heard last.
    pub(super) fn remember_address(&mut self, session: &Session) {
        if let Some(heard) = session.known_heard()
            && self.clock.since(heard) < REMEMBERED_FOR
        {
            let forgotten = self.addresses.validate(heard, session.path.remote);
            self.counters.forgotten_addresses += u64::from(forgotten);
        }
    }

    /// What a session may send now. What is left is to be given back.
    pub(super) fn allowance(&self, now: Instant, session: &Session) -> Allowance {
        if session.is_known() {
            return Allowance::UNLIMITED;
        }
        self.allowed(now, session.path.remote)
    }

    /// What may go to an address now. What is left is to be given back.
    pub(super) fn allowed(&self, now: Instant, addr: SocketAddr) -> Allowance {
        let limited = self.addresses.take(now, addr);
        limited.unwrap_or(Allowance::UNLIMITED)
    }

    /// Gives back what has not been used.
    pub(super) fn give_back(&self, now: Instant, addr: SocketAddr, left: Allowance) {
        if left.is_limited() {
            self.addresses.give_back(now, addr, left);
        }
    }
}
