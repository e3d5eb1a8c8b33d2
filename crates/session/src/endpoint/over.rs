//! Ends that have slept: what is not measured afterwards, and sessions that are over at one end: what this one tells, and what it believes
//! ([`crate::ended`]).

use core::time::Duration;

use fulmar_wire::ended::Ended;
use fulmar_wire::time::Instant;

use super::{Endpoint, MAX_WAITING_RUNS, Source};
use crate::admission::{self, Peek};
use crate::session::{Reason, Session};
use crate::sharing::Owner;
use crate::transmit::RunWriter;

/// Time between two datagrams of past conversations that are handed to the endpoint that had them: recordings that somebody plays back
/// must not fill the line.
const PAST_EVERY: Duration = Duration::from_millis(20);

/// A timer that is so late tells that this process, or its machine, has not run.
const STALL: Duration = Duration::from_millis(1500);

impl Endpoint {
    /// Time goes on. What was sent before this end stood still says nothing about round trips.
    pub(super) fn tick(&mut self, now: Instant) {
        let last = std::mem::replace(&mut self.clock, now);
        let late = |at: Instant| now.since(at) > STALL;
        if !late(last) || !self.timers.first().is_some_and(|(at, _)| late(at)) {
            return;
        }
        let keys: Vec<_> = self.sessions.keys().collect();
        for key in keys {
            if let Some(session) = self.sessions.get_mut(key) {
                session.stalled(now);
            }
        }
    }

    /// A session has ended here. If its peer may go on with it, and would believe that, it is remembered.
    pub(super) fn remember_end(&mut self, session: &Session, reason: &Reason) {
        if session.proven
            && *reason != Reason::PeerEnded
            && let Some(token) = session.layer.peer_token()
            && let Some(newest) = session.kcp().newest_heard()
        {
            self.ended.insert(session.conv(), token, newest);
        }
    }

    /// Something of a conversation that has ended has arrived: its sender is told, if it does not know and would believe it. The answer is
    /// never longer than what it answers: that had a segment.
    pub(super) fn answer_ended(
        &mut self,
        now: Instant,
        source: Source<'_>,
        conv: u32,
        peek: Peek,
        body: &[u8],
    ) {
        if self.ready.len() >= MAX_WAITING_RUNS {
            return;
        }
        let Some(sent) = admission::newest_push(conv, peek, body) else {
            return;
        };
        let Some(token) = self.ended.answer(now, conv, sent) else {
            return;
        };
        let message = Ended { conv, token }.to_bytes();
        debug_assert!(message.len() <= body.len(), "no amplification");
        let cipher = &mut *self.ciphers[source.cipher];
        let (ready, pool) = (&mut self.ready, &mut self.pool);
        let mut writer = RunWriter::new(ready, pool, cipher, source.path, 1);
        writer.reserve(message.len())[..message.len()].copy_from_slice(&message);
        writer.commit(message.len());
        let written = writer.finish();
        self.counters.out_pkts += written.datagrams;
        self.counters.out_bytes += written.bytes;
        self.counters.ended_told += 1;
    }

    /// The same, where another endpoint behind the port had the session.
    pub(super) fn hand_over_past(
        &mut self,
        now: Instant,
        had_it: Option<usize>,
        source: Source<'_>,
        conv: u32,
        peek: Peek,
        body: &[u8],
    ) {
        if let Some(to) = had_it
            && now >= self.next_past
            && admission::newest_push(conv, peek, body).is_some()
        {
            self.next_past = now + PAST_EVERY;
            self.hand_over(to, source.path, source.cipher, body);
        }
    }

    /// A peer says that it has ended a session. It is believed if it knows the token that only the peer was given; where it sends from does not matter.
    pub(super) fn peer_ended(&mut self, source: Source<'_>, body: &[u8]) {
        let Some(Ended { conv, token }) = Ended::parse(body) else {
            return;
        };
        let key = self.index.any(conv);
        if let Some(key) = key {
            self.wake(self.clock, key);
        }
        let session = key.and_then(|key| self.sessions.get(key));
        if let Some(key) = key
            && session.and_then(|s| s.layer.token()) == Some(token)
        {
            return self.remove(key, Reason::PeerEnded);
        }
        if key.is_none()
            && !source.handed
            && let Some(sharing) = &mut self.sharing
            && let Owner::Other(to) = sharing.directory.owner(conv)
        {
            return self.hand_over(to, source.path, source.cipher, body);
        }
        self.counters.stranger_datagrams += 1;
    }

    /// Counts what belongs to a conversation that is over.
    pub(super) const fn count_past(&mut self, peek: Peek) {
        self.counters.refused_replays += peek.opens as u64;
        self.counters.stranger_datagrams += !peek.opens as u64;
    }
}
