//! Whose datagram it is: a session's, a new one's, another endpoint's, or nobody's.

use fulmar_wire::time::Instant;

use super::{Batch, Endpoint, Event, JUDGE_EVERY, Role, Source};
use crate::admission::{Body, Peek};
use crate::crowds::Room;
use crate::diagnosis::Suspicion;
use crate::dialect::{Beside, Stranger};
use crate::session::{Reason, Session};
use crate::sharing::Owner;
use crate::slots::SessionKey;
use crate::transmit::Path;

impl Endpoint {
    /// A client's oldest session that has not come to life yet.
    pub(super) fn lifeless(&mut self) -> Option<SessionKey> {
        loop {
            let key = *self.newcomers.front()?;
            if self
                .sessions
                .get(key)
                .is_some_and(|s| !s.traces.came_to_life())
            {
                return Some(key);
            }
            self.newcomers.pop_front();
        }
    }

    /// The cipher of the session that sends from `path`.
    pub(super) fn known_cipher(&self, path: Path) -> Option<usize> {
        match self.role {
            Role::Client => Some(0),
            Role::Server => match self.index.youngest(path.remote) {
                Some(key) => match self.sessions.get(key) {
                    Some(session) => Some(session.cipher),
                    None => self.sessions.stub(key).map(|stub| stub.cipher as usize),
                },
                None => self.sharing.as_ref()?.cipher_of(path.remote),
            },
        }
    }

    /// The cipher that opens the first datagram of a stranger's run.
    pub(super) fn find_cipher(&mut self, run: &[u8], segment: usize) -> Option<usize> {
        let scheme = self.dialect.probe(&run[..segment.min(run.len())])?;
        self.ciphers.iter().position(|c| c.scheme() == scheme)
    }

    /// Gives an opened datagram to its session, if it has one. `batch` is what came before it.
    pub(super) fn take(
        &mut self,
        now: Instant,
        source: Source<'_>,
        peek: Peek,
        body: &[u8],
        batch: &mut Batch,
    ) {
        let replay =
            (peek.opens || peek.body == Body::Beside) && self.dialect.is_replay(source.sealed);
        if replay && peek.body == Body::Beside {
            self.counters.refused_replays += 1;
            return;
        }
        // What was copied on the way and comes late begins nothing, but what it began may be its sender's.
        let source = Source { replay, ..source };
        match peek.body {
            Body::Beside => return self.handle_beside(now, source.path, body),
            Body::Ended => return self.peer_ended(source, body),
            Body::Plain | Body::FecData | Body::FecParity | Body::OutOfBand => {}
        }
        let Some(key) = self.session_of(now, source, peek, body) else {
            return;
        };
        if batch.session != Some(key) {
            self.taken(now, batch);
            *batch = Batch {
                session: Some(key),
                heard: 0,
            };
        }
        batch.heard += 1;
        if let Some(session) = self.sessions.get_mut(key) {
            session.handle_body(now, body, peek, &mut self.counters);
            if session.candidate.is_some() {
                self.heard_at_home(key);
            }
            if self.sessions.get(key).is_some_and(|s| !s.is_known()) {
                self.heard_stranger(now, source, key, body.len());
            }
        }
    }

    /// A message beside all conversations.
    fn handle_beside(&mut self, now: Instant, path: Path, body: &[u8]) {
        match self.dialect.handle_beside(now, path, body) {
            None => {}
            Some(Beside::Reset { conv }) => {
                // Only its peer can say so, from where it is.
                if let Some(key) = self.index.find(conv, path.remote) {
                    self.wake(now, key);
                    self.counters.resets_received += 1;
                    let goes_on = self
                        .sessions
                        .get_mut(key)
                        .is_some_and(|s| s.layer.peer_reset());
                    if !goes_on {
                        self.remove(key, Reason::PeerReset);
                    }
                }
            }
            // Told once for each peer, so it may cost something.
            Some(Beside::Fulmar { ack_ranges }) => {
                for key in self.index.at(path.remote) {
                    if let Some(session) = self.sessions.get_mut(key) {
                        session.layer.peer_told(ack_ranges);
                    }
                }
            }
        }
    }

    /// Nothing follows on `batch`.
    pub(super) fn taken(&mut self, now: Instant, batch: &Batch) {
        if let Some(key) = batch.session {
            if let Some(session) = self.sessions.get(key) {
                self.dialect.heard(now, session.path.remote);
                self.answered = Some(now);
            }
            self.after_input(now, key, batch.heard);
        }
    }

    /// The session that a datagram belongs to, made on the spot if it may open one.
    fn session_of(
        &mut self,
        now: Instant,
        source: Source<'_>,
        peek: Peek,
        body: &[u8],
    ) -> Option<SessionKey> {
        let Source { path, cipher, .. } = source;
        let Some(conv) = peek.conv else {
            return self.session_of_nameless(source, body);
        };
        match self.role {
            Role::Client => {
                let key = self.index.any(conv);
                if key.is_none() {
                    self.counters.in_errs += 1;
                    self.answer_ended(now, source, conv, peek, body);
                    self.dialect.unknown(now, path, conv);
                }
                key
            }
            Role::Server => {
                if let Some(key) = self.index.find(conv, path.remote) {
                    self.wake(now, key);
                    if let Some(session) = self.sessions.get_mut(key) {
                        // A server that is reached at several addresses answers from the one that was asked.
                        session.path.local = path.local;
                    }
                    return Some(key);
                }
                let unique = self.dialect.conversations_are_unique();
                // Of several sessions with that number it could be anyone's.
                if let Some(key) = self.index.only(conv)
                    && (unique || !peek.first || self.dialect.is_copy(now, conv, peek.time))
                {
                    self.wake(now, key);
                    self.follow(now, key, source, peek, body);
                    return None;
                }
                if self.ended.contains(conv) {
                    self.answer_ended(now, source, conv, peek, body);
                    self.count_past(peek);
                    return None;
                }
                if source.handed {
                    // It was ours. What opens a session is sent again, and goes to whom the kernel gives it.
                    self.counters.stranger_datagrams += 1;
                    return None;
                }
                let owner = self
                    .sharing
                    .as_mut()
                    .map_or(Owner::Free, |s| s.directory.owner(conv));
                match owner {
                    Owner::Free => self.admit(now, source, conv, peek),
                    Owner::Other(to) => {
                        self.hand_over(to, path, cipher, body);
                        None
                    }
                    Owner::Past(had_it) => {
                        self.hand_over_past(now, had_it, source, conv, peek, body);
                        self.count_past(peek);
                        None
                    }
                }
            }
        }
    }

    /// The session of parity, which does not say whose it is: a client's only one, or the youngest of that address.
    fn session_of_nameless(&mut self, source: Source<'_>, body: &[u8]) -> Option<SessionKey> {
        if self.role == Role::Client {
            return self.sessions.key_at(0);
        }
        let key = self.index.youngest(source.path.remote);
        if let Some(key) = key {
            self.wake(self.clock, key);
        } else if !self.guest_of_another(source, body) {
            self.counters.stranger_datagrams += 1;
        }
        key
    }

    /// Hands over a datagram that does not say whose it is, if its sender's last one that did was another endpoint's.
    fn guest_of_another(&mut self, source: Source<'_>, body: &[u8]) -> bool {
        let sharing = self.sharing.as_ref().filter(|_| !source.handed);
        let owner = sharing.and_then(|s| s.owner_of(source.path.remote));
        if let Some(to) = owner {
            self.hand_over(to, source.path, source.cipher, body);
        }
        owner.is_some()
    }

    pub(super) fn hand_over(&mut self, to: usize, path: Path, cipher: usize, body: &[u8]) {
        let taken = self
            .sharing
            .as_mut()
            .is_some_and(|s| s.hand_over(to, path, cipher, body));
        self.counters.handovers += 1;
        self.counters.handovers_lost += u64::from(!taken);
    }

    /// A stranger's datagram: a new session, if it may have one.
    fn admit(
        &mut self,
        now: Instant,
        source: Source<'_>,
        conv: u32,
        peek: Peek,
    ) -> Option<SessionKey> {
        let Source { path, cipher, .. } = source;
        let ip = path.remote.ip();
        if source.replay {
            self.counters.refused_replays += 1;
            return None;
        }
        let over = self.dialect.has_ended(now, conv, path.remote)
            || self.dialect.is_copy(now, conv, peek.time);
        if !peek.opens || over {
            self.counters.stranger_datagrams += 1;
            self.dialect.unknown(now, path, conv);
            return None;
        }
        if self.used.contains(conv) {
            self.counters.refused_replays += 1;
            return None;
        }
        if !self.make_room(ip) {
            self.counters.refused_sessions += 1;
            return None;
        }
        if let Some(sharing) = &mut self.sharing
            && !sharing.directory.claim(conv)
        {
            // Another endpoint has got it in this moment; the next datagram is handed over.
            self.counters.stranger_datagrams += 1;
            return None;
        }
        let scheme = self.ciphers[cipher].scheme();
        let stranger = Stranger {
            path,
            conv,
            time: peek.time,
            cipher,
            scheme,
        };
        let parts = self.dialect.accept(now, stranger);
        self.counters.passive_opens += 1;
        let mut session = Session::new(parts, now);
        session.limit_until_proven();
        if self.addresses.is_validated(now, path.remote) {
            session.trust(now);
        } else {
            session.distrust();
        }
        if let Some(ack_ranges) = self.dialect.peer_at(path.remote) {
            session.layer.peer_told(ack_ranges);
        }
        let key = self.insert(session);
        self.crowds.insert(ip, key);
        Some(key)
    }

    /// Whether one more session of `ip` may be; an older one that is unproven goes for it if there are too many.
    fn make_room(&mut self, ip: std::net::IpAddr) -> bool {
        if self.sessions.len() >= self.limits.sessions {
            return false;
        }
        match self.crowds.room(ip, &self.limits) {
            Room::Free => true,
            Room::None => false,
            Room::InPlaceOf(oldest) => {
                self.remove(oldest, Reason::Crowded);
                true
            }
        }
    }

    /// No cipher of ours opens a stranger's run.
    pub(super) fn nothing_opens(
        &mut self,
        now: Instant,
        path: Path,
        run: &[u8],
        segment: usize,
        datagrams: u64,
    ) {
        self.counters.in_csum_errors += run.chunks(segment).count() as u64;
        if now >= self.next_judgement {
            let first = run[..segment.min(run.len())].to_vec();
            self.judge_forged(now, path, &first, datagrams);
        }
    }

    /// Datagrams did not open: finds out why, rarely, because it means trying every cipher.
    pub(super) fn judge_forged(&mut self, now: Instant, path: Path, datagram: &[u8], forged: u64) {
        self.next_judgement = now + JUDGE_EVERY;
        let other = self.dialect.probe(datagram);
        match self.role {
            Role::Server => {
                let ours = self.ciphers[0].scheme();
                let suspicion = match other {
                    // It is not what it looks like at first, but it opens nothing either.
                    Some(theirs) if theirs == ours => return,
                    Some(theirs) => Suspicion::OtherCipher { theirs, ours },
                    None => Suspicion::NothingOpens,
                };
                self.events
                    .push_back(Event::Stranger(path.remote, suspicion));
            }
            Role::Client => {
                if let Some(key) = self.lifeless()
                    && let Some(session) = self.sessions.get_mut(key)
                {
                    session.traces.forged(forged, other);
                }
            }
        }
    }
}
