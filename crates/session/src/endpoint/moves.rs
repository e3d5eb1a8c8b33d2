//! Peers that seem to have moved: both addresses are asked, and who answers is believed (docs/design/roaming.md).

use core::time::Duration;

use fulmar_wire::time::Instant;

use super::{Endpoint, Event, Source};
use crate::addresses::Allowance;
use crate::admission::Peek;
use crate::session::{Candidate, Outlet};
use crate::slots::SessionKey;
use crate::transmit::Path;

/// Questions to an address, at retransmission timeouts that double, before it is taken for somebody else's.
const TRIES: u32 = 5;
/// How long an address that there is nothing to ask with is remembered.
const WAITS: Duration = Duration::from_secs(30);

impl Endpoint {
    /// A datagram of a known conversation has come from another address. It is taken, and acknowledged where it came from; everything else goes
    /// where the peer was, until it has been shown to have moved.
    pub(super) fn follow(
        &mut self,
        now: Instant,
        key: SessionKey,
        source: Source<'_>,
        peek: Peek,
        body: &[u8],
    ) {
        let (path, cipher) = (source.path, source.cipher);
        let keyed = self.ciphers[cipher].scheme().proves_key();
        let Some(home) = self
            .sessions
            .get(key)
            .filter(|s| s.cipher == cipher && keyed)
            .map(|s| s.path)
        else {
            // Where nothing shows who sent it, nobody is followed.
            self.counters.stranger_datagrams += 1;
            return self.dialect.unknown(now, path, peek.conv.unwrap_or(0));
        };
        // What waits is owed to the address that was known before.
        self.acknowledge(now, key, home);
        let bytes = source.sealed.len().max(body.len());
        let forgotten = self.addresses.heard(now, path.remote, bytes);
        self.counters.forgotten_addresses += u64::from(forgotten);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let before = (session.kcp().snd_una(), session.kcp().newest_push());
        session.handle_body(now, body, peek, &mut self.counters);
        let answers = session.take_answers();
        let news = (session.kcp().snd_una(), session.kcp().newest_push()) != before;
        // Nobody has shown to be where such a session sends to either: a copy may have overtaken what it was made of.
        let open = news || !session.is_known();
        match &mut session.candidate {
            Some(candidate) if candidate.path.remote == path.remote => {
                candidate.path = path;
                candidate.heard = now;
                if answers.away {
                    candidate.shown.get_or_insert(now);
                }
            }
            // What brings nothing new may be a recording.
            Some(_) if !news => self.counters.stranger_datagrams += 1,
            _ if open => {
                session.end_question();
                session.candidate = Some(Box::new(Candidate {
                    path,
                    heard: now,
                    asked: None,
                    next: now,
                    tries: 0,
                    shown: None,
                }));
                self.counters.asked_moves += 1;
            }
            _ => self.counters.stranger_datagrams += 1,
        }
        self.acknowledge(now, key, path);
        self.after_input(now, key, 1);
    }

    /// A datagram of a session that may have moved has come from where its peer was, and has been taken.
    pub(super) fn heard_at_home(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let answers = session.take_answers();
        // Whoever answers from there is there, whatever it was that reached it. Before that was shown it may be a copy that overtakes the answer.
        if answers.elsewhere || answers.away && session.is_known() {
            session.end_question();
            self.counters.declined_moves += 1;
        }
    }

    /// Does what is due about the other address of a session.
    pub(super) fn look_away(&mut self, now: Instant, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let patience = session.patience();
        let Some(candidate) = session.candidate.as_deref_mut() else {
            return;
        };
        let path = candidate.path;
        if let Some(over) = candidate.over_at(patience) {
            if now >= over {
                self.move_session(now, key, path);
            }
            return;
        }
        if candidate.next > now {
            return;
        }
        if candidate.tries >= TRIES || now.since(candidate.heard) >= WAITS {
            session.end_question();
            self.counters.declined_moves += 1;
            return;
        }
        // Where there is nothing to ask with, nothing has to go there but acknowledgements.
        candidate.next = now + patience * (1 << candidate.tries);
        if session.kcp().has_question() && self.ask_away(now, key, path) {
            let session = self.sessions.get_mut(key);
            if let Some(candidate) = session.and_then(|s| s.candidate.as_deref_mut()) {
                candidate.tries += 1;
                candidate.asked.get_or_insert(now);
            }
        }
    }

    fn move_session(&mut self, now: Instant, key: SessionKey, path: Path) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let conv = session.conv();
        if self.index.find(conv, path.remote).is_some() {
            // Where numbers belong to addresses, another conversation has begun there.
            return session.end_question();
        }
        let old = session.move_to(now, path);
        self.index.rebind(conv, old.remote, path.remote, key);
        self.blocked.remove(&(old.remote, key));
        self.counters.moved_peers += 1;
        self.events.push_back(Event::Moved(key, path));
        self.validate(now, path.remote, key);
    }

    /// Asks an address about a session; whether the question left.
    fn ask_away(&mut self, now: Instant, key: SessionKey, path: Path) -> bool {
        let remote = path.remote;
        let mut allowance = self.allowed(now, remote);
        let Some(session) = self.sessions.get_mut(key) else {
            return false;
        };
        let mut outlet = Outlet {
            cipher: &mut *self.ciphers[session.cipher],
            pool: &mut self.pool,
            out: &mut self.ready,
            credit: &mut allowance,
        };
        let mut written = session.ask_away(now, path, &mut outlet);
        if written.datagrams == 0 && outlet.credit.repeats > 0 {
            let all = std::mem::replace(outlet.credit, Allowance::ONE_REPEAT);
            written = session.ask_away(now, path, &mut outlet);
            *outlet.credit = all;
            outlet.credit.repeats -= u8::from(written.datagrams > 0);
            self.counters.credit_repeats += written.datagrams;
        }
        self.counters.out_pkts += written.datagrams;
        self.counters.out_bytes += written.bytes;
        self.give_back(now, remote, allowance);
        written.datagrams > 0
    }

    /// Sends the acknowledgements that a session owes to `path`.
    fn acknowledge(&mut self, now: Instant, key: SessionKey, path: Path) {
        let owes = |key| self.sessions.get(key).is_some_and(|s| s.kcp().owes());
        if !owes(key) {
            return;
        }
        let mut allowance = self.allowed(now, path.remote);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let mut outlet = Outlet {
            cipher: &mut *self.ciphers[session.cipher],
            pool: &mut self.pool,
            out: &mut self.ready,
            credit: &mut allowance,
        };
        let written = session.acknowledge(now, path, &mut outlet);
        self.counters.out_pkts += written.datagrams;
        self.counters.out_bytes += written.bytes;
        self.give_back(now, path.remote, allowance);
    }
}
