//! Which sessions without streams rest as stubs ([`crate::stub`]), and which end when there are too many. Servers only: who opens sessions has
//! them for its streams.

use core::time::Duration;

use fulmar_wire::time::{Instant, Millis};

use super::{Endpoint, Role};
use crate::chain::{Chain, Links};
use crate::dialect::Stranger;
use crate::layer::Stillness;
use crate::session::{Reason, Session};
use crate::slots::SessionKey;
use crate::stub::{Stub, UNHEARD};

/// Sessions that are looked at in one flush although they cannot rest now.
const LOOKS: u32 = 64;
/// When those that could not rest are looked at again.
const AGAIN: Duration = Duration::from_secs(1);

/// Sessions without streams, in lines: at the head of each who was not heard for longest.
#[derive(Debug)]
pub(super) struct Resting {
    links: Links,
    /// Whole ones.
    whole: Chain,
    /// Whole ones that hold what does not fit into a stub.
    full: Chain,
    stubs: Chain,
    /// Not before then is it time for the first of `whole`.
    next: Instant,
}

impl Default for Resting {
    fn default() -> Self {
        Self {
            links: Links::default(),
            whole: Chain::EMPTY,
            full: Chain::EMPTY,
            stubs: Chain::EMPTY,
            next: Instant::ZERO,
        }
    }
}

/// The line that a whole session stands in.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Line {
    /// It rests as soon as it is its turn.
    Whole,
    /// It ends if there are too many.
    Full,
}

impl Resting {
    fn leave(&mut self, line: Option<Line>, key: SessionKey) {
        match line {
            None => {}
            Some(Line::Whole) => {
                self.links.remove(&mut self.whole, key);
            }
            Some(Line::Full) => {
                self.links.remove(&mut self.full, key);
            }
        }
    }

    pub(super) fn shrink(&mut self) {
        self.links.shrink();
    }
}

impl Endpoint {
    /// Sessions that rest as stubs.
    #[must_use]
    pub const fn stubs(&self) -> usize {
        self.resting.stubs.len()
    }

    /// When the next session may have to rest.
    pub(super) fn rest_due(&self) -> Option<Instant> {
        let first = self.resting.links.first(&self.resting.whole)?;
        let heard = self.sessions.get(first).map(heard)?;
        Some((heard + UNHEARD).max(self.resting.next))
    }

    /// After whatever may have given a session streams or taken the last one away, or after its peer was heard.
    pub(super) fn line_up(&mut self, now: Instant, key: SessionKey) {
        if self.role != Role::Server {
            return;
        }
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if !session.proven {
            return;
        }
        if session.layer.streams() > 0 {
            let line = session.line.take();
            return self.resting.leave(line, key);
        }
        let heard = heard(session);
        if session.line.is_some() && session.lined_up == heard {
            return;
        }
        session.lined_up = heard;
        let line = session.line.replace(Line::Whole);
        self.resting.leave(line, key);
        let Resting { links, whole, .. } = &mut self.resting;
        if heard + UNHEARD <= now {
            links.push_front(whole, key);
        } else {
            links.push_back(whole, key);
        }
    }

    /// Lets those rest whose time has come, and ends some if there are too many.
    pub(super) fn rest_some(&mut self, now: Instant) {
        let mut looks = 0;
        while looks < LOOKS
            && let Some(key) = self.resting.links.first(&self.resting.whole)
            && let Some(session) = self.sessions.get_mut(key)
            && (self.resting.whole.len() > self.limits.resting || heard(session) + UNHEARD <= now)
        {
            let Resting {
                links, whole, full, ..
            } = &mut self.resting;
            let marked = self.sessions.is_marked(key);
            let Some(session) = self.sessions.get_mut(key) else {
                return;
            };
            links.remove(whole, key);
            match session.stillness() {
                Stillness::Still if !marked => self.make_stub(now, key),
                Stillness::Streams => session.line = None,
                Stillness::Full => {
                    session.line = Some(Line::Full);
                    links.push_back(full, key);
                }
                Stillness::Busy | Stillness::Still => {
                    links.push_back(whole, key);
                    self.resting.next = now + AGAIN;
                    looks += 1;
                }
            }
        }
        while self.resting.full.len() > self.limits.full
            && let Some(key) = self.resting.links.first(&self.resting.full)
        {
            self.counters.crowded_sessions += 1;
            self.remove(key, Reason::Crowded);
        }
        while self.resting.stubs.len() > self.limits.stubs
            && let Some(key) = self.resting.links.first(&self.resting.stubs)
        {
            self.counters.crowded_sessions += 1;
            self.remove(key, Reason::Crowded);
        }
    }

    fn make_stub(&mut self, now: Instant, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        session.line = None;
        self.blocked.remove(&(session.path.remote, key));
        self.held_back -= usize::from(std::mem::take(&mut session.held_back));
        self.memory.change(
            std::mem::take(&mut session.held),
            crate::memory::Held::default(),
        );
        self.sessions.rest(key, |session| session.into_stub(now));
        let timeout = self.sessions.stub(key).and_then(Stub::poll_timeout);
        self.timers.set(key.index(), timeout);
        let Resting { links, stubs, .. } = &mut self.resting;
        links.push_back(stubs, key);
        self.counters.stub_sessions += 1;
    }

    /// Makes a session whole if it is a stub.
    pub(super) fn wake(&mut self, now: Instant, key: SessionKey) {
        let Some(stub) = self.sessions.stub(key) else {
            return;
        };
        let cipher = stub.cipher as usize;
        let stranger = Stranger {
            path: stub.path,
            conv: stub.conv,
            // When it began is known.
            time: Millis(0),
            cipher,
            scheme: self.ciphers[cipher].scheme(),
        };
        let parts = self.dialect.accept(now, stranger);
        self.sessions
            .resume(key, |stub| Session::resume(stub, parts, now));
        if let Some(session) = self.sessions.get_mut(key)
            && let Some(ack_ranges) = self.dialect.peer_at(session.path.remote)
        {
            session.layer.peer_told(ack_ranges);
        }
        let Resting { links, stubs, .. } = &mut self.resting;
        links.remove(stubs, key);
        self.counters.stub_sessions -= 1;
        self.counters.woken_stubs += 1;
        self.touch(key);
    }

    /// A stub has to say something, or to say it again.
    pub(super) fn wake_in_time(&mut self, now: Instant, key: SessionKey) {
        if self.sessions.stub(key).is_some() {
            self.wake(now, key);
            if let Some(session) = self.sessions.get_mut(key) {
                session.resends = session.resends.saturating_add(1);
            }
        }
    }

    /// A session ends.
    pub(super) fn leave_line(&mut self, session: &Session, key: SessionKey) {
        self.resting.leave(session.line, key);
    }
}

/// When the peer of a session was last heard.
fn heard(session: &Session) -> Instant {
    session.kcp().last_heard().unwrap_or(session.opened_at)
}
