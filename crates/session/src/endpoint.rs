//! An endpoint: many sessions behind one socket, or one session of a client.
//!
//! Its owner feeds it what arrives ([`Endpoint::handle_run`]) and the passing of time, asks it to
//! [`flush`](Endpoint::flush), sends the runs that [`Endpoint::next_run`] gives, and takes its events. Commands on
//! streams name the session and the stream. It reads no clock and touches no socket: the same code runs in the
//! simulator.
//!
//! # Order of calls
//! After any `handle_run`, stream command or due timeout: `flush` until it returns `true`, sending the runs in
//! between; then `poll_event` until `None`; then sleep until `poll_timeout`. `now` must not go backwards.
//!
//! # Who is the peer
//! A datagram belongs to the session of its address and conversation. A client takes its session's datagrams
//! from any address, because a server with several addresses may answer from another one; where it sends does not change.
//! A server follows a session to another address when it has asked there and where the peer was, and only the new address has answered
//! (`moves.rs`). It asks when a datagram from there opens with a keyed cipher and is newer than all that has arrived: it acknowledges
//! more, or carries data with a later time. A recording is not.
//! Where several endpoints [share](Endpoint::share) a port, the datagram may arrive at one that does not have the session: it
//! hands it over ([`Endpoint::poll_handover`], [`Endpoint::take_over`]).

mod commands;
mod credit;
mod moves;
mod over;
mod resting;
mod routing;

pub(crate) use resting::Line;
use resting::Resting;

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;

use fulmar_cipher::{PacketCipher, Scheme, Verdict};
use fulmar_wire::kcptun::Method;
use fulmar_wire::time::Instant;

use crate::addresses::{Addresses, Allowance};
use crate::admission::{Limits, UsedConversations};
use crate::counters::Counters;
use crate::crowds::Crowds;
use crate::diagnosis::Suspicion;
use crate::dialect::{Dialect, PathEvent};
use crate::ended::EndedConversations;
use crate::index::SessionIndex;
use crate::layer::{LayerError, Notice, Over, StreamEvent};
use crate::liveness::Change;
use crate::memory::{Held, Memory, Share};
use crate::session::{Outlet, Parts, Reason, Session, WindowSmall};
use crate::sharing::{Directory, Handover, Sharing};
use crate::slots::{SessionKey, Slots};
use crate::stub::Stub;
use crate::timers::Timers;
use crate::transmit::{self, BufferPool, Path, Run, RunWriter};

/// How many conversations a server remembers against replays (16 bytes each).
const REMEMBERED_CONVERSATIONS: usize = 65_536;
/// Runs that may wait for the socket before no more sessions are flushed.
const MAX_WAITING_RUNS: usize = 16;

/// Something the owner should know of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A session began: a peer opened it, or we did.
    Opened(SessionKey, Path),
    /// The first valid frame of the peer arrived.
    Proven(SessionKey),
    /// Something happened to a stream.
    Stream(SessionKey, StreamEvent),
    /// The peer does not answer: no new streams should be opened on this session.
    Suspect(SessionKey),
    /// It answers again.
    Recovered(SessionKey),
    /// The peer is now at another address.
    Moved(SessionKey, Path),
    /// Something was found out about the other end.
    Notice(SessionKey, Notice),
    /// The likely reason why a session does not come to life.
    Suspicion(SessionKey, Suspicion),
    /// A stranger's datagrams do not open: [`Suspicion::NothingOpens`] or [`Suspicion::OtherCipher`].
    Stranger(SocketAddr, Suspicion),
    /// A window limits what a session carries.
    WindowSmall(SessionKey, WindowSmall),
    /// Something was found out about the path beside conversations.
    Beside(PathEvent),
    /// A session ended. Its streams are gone.
    Closed(SessionKey, Path, Reason),
}

/// Where sessions come from.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Role {
    /// We open one session.
    Client,
    /// Peers open them.
    Server,
}

/// Sessions behind one socket. See the module's documentation.
pub struct Endpoint {
    role: Role,
    dialect: Box<dyn Dialect>,
    ciphers: Vec<Box<dyn PacketCipher>>,
    sessions: Slots<Session, Stub>,
    /// Who waits to become a stub, and who is one.
    resting: Resting,
    index: SessionIndex,
    /// A server's: who is unproven, and how many each address has.
    crowds: Crowds,
    /// A client's: sessions in the order in which they were opened, from the oldest one on that has not come to life.
    newcomers: VecDeque<SessionKey>,
    used: UsedConversations,
    /// Sessions that have ended, and whose peers believe it when they are told.
    ended: EndedConversations,
    /// When a datagram of a session that another endpoint had may be handed over again.
    next_past: Instant,
    /// What it knows of other endpoints behind the same port, if there are any.
    sharing: Option<Sharing>,
    limits: Limits,
    memory: Share,
    /// Where peers have been shown to be.
    addresses: Addresses,
    /// Sessions that have more to send than their address may get.
    blocked: BTreeSet<(SocketAddr, SessionKey)>,
    timers: Timers,
    /// Sessions to be flushed, each once.
    dirty: VecDeque<SessionKey>,
    /// Sessions that wait for acknowledgements to send more.
    held_back: usize,
    ready: VecDeque<Run>,
    pool: BufferPool,
    events: VecDeque<Event>,
    counters: Counters,
    verdicts: Vec<Verdict>,
    /// A copy of a datagram as it arrived, for a judgement.
    copy: Vec<u8>,
    /// When a stranger's unreadable datagram may be judged again.
    next_judgement: Instant,
    /// When the next suspicion may be told.
    next_suspicion: Instant,
    /// A message beside conversations, being written.
    beside: Vec<u8>,
    /// When something of a session was last heard.
    answered: Option<Instant>,
    /// The latest time seen.
    clock: Instant,
}

/// Where opened datagrams come from.
#[derive(Copy, Clone)]
struct Source<'a> {
    path: Path,
    cipher: usize,
    /// The datagram as it arrived, opened in place; empty if it was handed over.
    sealed: &'a [u8],
    /// Whether another endpoint opened them and says that their conversation is ours.
    handed: bool,
    /// Whether the same has been here before.
    replay: bool,
}

/// How long a client that was answered takes its address for known to the server, which forgets it a little later.
const KNOWN_FOR: core::time::Duration = core::time::Duration::from_secs(240);

/// Bytes of UDP payload that a word about the end of a session takes at most, where dialects have one.
const LAST_WORD: u64 = 80;

/// Datagrams of one session that were taken in a row.
#[derive(Default)]
struct Batch {
    session: Option<SessionKey>,
    heard: u64,
}

/// Time between two reports about strangers whose datagrams do not open.
const JUDGE_EVERY: core::time::Duration = core::time::Duration::from_secs(10);

/// Time between two suspicions that are told.
const SUSPECT_EVERY: core::time::Duration = core::time::Duration::from_secs(5);

impl Endpoint {
    /// The endpoint of a server. A stranger's first datagram is opened with the first of `ciphers` that fits.
    #[must_use]
    pub fn server(
        dialect: Box<dyn Dialect>,
        ciphers: Vec<Box<dyn PacketCipher>>,
        limits: Limits,
    ) -> Self {
        Self::new(Role::Server, dialect, ciphers, limits)
    }

    /// The endpoint of a client, with its one session.
    #[must_use]
    pub fn client(
        dialect: Box<dyn Dialect>,
        cipher: Box<dyn PacketCipher>,
        parts: Parts,
        now: Instant,
    ) -> (Self, SessionKey) {
        let mut endpoint = Self::new(Role::Client, dialect, vec![cipher], Limits::default());
        endpoint.counters.active_opens += 1;
        let key = endpoint.insert(Session::new(parts, now));
        (endpoint, key)
    }

    /// The endpoint of a client that opens a session for each stream ([`Endpoint::open`]).
    #[must_use]
    pub fn opener(dialect: Box<dyn Dialect>, cipher: Box<dyn PacketCipher>) -> Self {
        Self::new(Role::Client, dialect, vec![cipher], Limits::default())
    }

    /// From now on other endpoints serve the same port, with the same ciphers in the same order, and `directory` knows
    /// what belongs to whom. To be called before anything arrives; for servers.
    pub fn share(&mut self, directory: Box<dyn Directory>) {
        debug_assert!(self.role == Role::Server && self.sessions.len() == 0);
        self.sharing = Some(Sharing::new(directory));
    }

    /// From now on `memory` is that of all endpoints that have been given it, each of which has one of its own else. To be called before
    /// anything arrives.
    pub fn share_memory(&mut self, memory: std::sync::Arc<Memory>) {
        debug_assert!(self.memory.own() == Held::default());
        self.memory = Share::new(memory);
    }

    /// What all its sessions hold, as the limits of [`crate::memory`] count it.
    #[must_use]
    pub const fn held(&self) -> Held {
        self.memory.own()
    }

    /// From now on it knows where peers are together with other endpoints of the service. To be called before anything arrives; for servers.
    pub fn share_addresses(&mut self, addresses: Addresses) {
        debug_assert!(self.role == Role::Server && self.sessions.len() == 0);
        self.addresses = addresses;
    }

    fn new(
        role: Role,
        dialect: Box<dyn Dialect>,
        ciphers: Vec<Box<dyn PacketCipher>>,
        limits: Limits,
    ) -> Self {
        debug_assert!(!ciphers.is_empty());
        Self {
            // Parity does not name its conversation. Where numbers belong to addresses, everything does.
            index: SessionIndex::new(dialect.conversations_are_unique()),
            role,
            dialect,
            ciphers,
            sessions: Slots::default(),
            resting: Resting::default(),
            crowds: Crowds::default(),
            newcomers: VecDeque::new(),
            used: UsedConversations::new(REMEMBERED_CONVERSATIONS),
            ended: EndedConversations::default(),
            next_past: Instant::ZERO,
            sharing: None,
            limits,
            memory: Share::default(),
            addresses: Addresses::default(),
            blocked: BTreeSet::new(),
            timers: Timers::default(),
            dirty: VecDeque::new(),
            held_back: 0,
            ready: VecDeque::new(),
            pool: BufferPool::default(),
            events: VecDeque::new(),
            counters: Counters::default(),
            verdicts: Vec::new(),
            copy: Vec::new(),
            next_judgement: Instant::ZERO,
            next_suspicion: Instant::ZERO,
            beside: Vec::new(),
            answered: None,
            clock: Instant::ZERO,
        }
    }
}

/// What arrives, and the passing of time.
impl Endpoint {
    /// Takes what the socket received: datagrams of one peer, back to back, each `segment` bytes long, the last
    /// perhaps shorter. They are decrypted in place. Never fails: what does not fit is counted and dropped.
    pub fn handle_run(&mut self, now: Instant, path: Path, run: &mut [u8], segment: usize) {
        if run.is_empty() {
            return;
        }
        self.tick(now);
        let segment = if segment == 0 { run.len() } else { segment };
        let known = self.known_cipher(path);
        let cipher = match known {
            Some(cipher) => cipher,
            None if self.ciphers.len() == 1 => 0,
            None => match self.find_cipher(run, segment) {
                Some(cipher) => cipher,
                None => return self.nothing_opens(now, path, run, segment, 1),
            },
        };
        // What a datagram looked like before it was opened, for a judgement that is rarely made.
        let keep = now >= self.next_judgement
            && match self.role {
                Role::Server => known.is_none(),
                Role::Client => self.lifeless().is_some(),
            };
        if keep {
            self.copy.clear();
            self.copy.extend_from_slice(&run[..segment.min(run.len())]);
        }
        let mut verdicts = std::mem::take(&mut self.verdicts);
        self.ciphers[cipher].open(run, segment, &mut verdicts);
        let overhead = self.ciphers[cipher].overhead();
        let mut batch = Batch::default();
        let (mut forged, mut senseless) = (0, 0);
        // Without a checksum nothing is forged; then it is nonsense that tells of another cipher.
        let unchecked =
            known.is_none() && self.ciphers[cipher].scheme() == Scheme::Kcptun(Method::Null);
        for (datagram, verdict) in run.chunks(segment).zip(&verdicts) {
            match verdict {
                Verdict::TooShort => self.counters.short_datagrams += 1,
                Verdict::Reflected => self.counters.reflected_datagrams += 1,
                Verdict::Forged => {
                    self.counters.in_csum_errors += 1;
                    forged += 1;
                }
                Verdict::Ok => {
                    let body = &datagram[overhead.front..datagram.len() - overhead.back];
                    self.counters.in_pkts += 1;
                    self.counters.in_bytes += body.len() as u64;
                    let peek = self.dialect.peek(body);
                    senseless += u64::from(unchecked && peek.is_none_or(|p| !p.opens));
                    let Some(peek) = peek else {
                        self.counters.short_datagrams += 1;
                        continue;
                    };
                    let source = Source {
                        path,
                        cipher,
                        sealed: datagram,
                        handed: false,
                        replay: false,
                    };
                    self.take(now, source, peek, body, &mut batch);
                }
            }
        }
        self.verdicts = verdicts;
        self.taken(now, &batch);
        if forged + senseless > 0 && batch.heard == 0 && keep {
            let datagram = std::mem::take(&mut self.copy);
            self.judge_forged(now, path, &datagram, forged);
            self.copy = datagram;
        }
        if let Some(sharing) = &mut self.sharing
            && forged == run.len().div_ceil(segment) as u64
        {
            sharing.forget(path.remote);
        }
    }

    /// Takes what another endpoint behind the same port has opened and handed over. What turns out to be of no session of
    /// ours is counted and dropped.
    pub fn take_over(&mut self, now: Instant, handover: &Handover) {
        self.tick(now);
        if handover.cipher >= self.ciphers.len() {
            return;
        }
        let source = Source {
            path: handover.path,
            cipher: handover.cipher,
            sealed: &[],
            handed: true,
            replay: false,
        };
        let mut batch = Batch::default();
        for body in handover.bodies() {
            if let Some(peek) = self.dialect.peek(body) {
                self.take(now, source, peek, body, &mut batch);
            }
        }
        self.taken(now, &batch);
    }

    /// What another endpoint is to have: give it to [`Endpoint::take_over`] there.
    pub fn poll_handover(&mut self) -> Option<Handover> {
        self.sharing.as_mut()?.poll()
    }

    /// A handover could not be given to whom it was for: its line was full, or it has ended.
    pub fn handover_lost(&mut self, handover: &Handover) {
        self.counters.handovers_lost += handover.datagrams();
    }

    /// The socket has got so many datagrams from its own address, which are not opened.
    pub fn reflected(&mut self, datagrams: u64) {
        self.counters.reflected_datagrams += datagrams;
    }

    /// When [`Endpoint::flush`] is due although nothing arrives.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let sessions = self.timers.first().map(|(at, _)| at);
        [sessions, self.dialect.poll_timeout(), self.rest_due()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether sessions wait to be flushed.
    #[must_use]
    pub fn wants_flush(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Whether some session has more to send as soon as acknowledgements arrive, so that they should not wait.
    #[must_use]
    pub const fn is_held_back(&self) -> bool {
        self.held_back > 0
    }

    /// Does what is due and writes what may be sent into runs. Returns `false` when it stopped because enough
    /// runs wait to be sent: send them and call again.
    pub fn flush(&mut self, now: Instant) -> bool {
        self.tick(now);
        self.flush_beside(now);
        while let Some(slot) = self.timers.pop_due(now) {
            if let Some(key) = self.sessions.key_at(slot) {
                self.touch(key);
            }
        }
        // A session that has more to write goes to the end of the line.
        for _ in 0..self.dirty.len() {
            if self.ready.len() >= MAX_WAITING_RUNS {
                return false;
            }
            let Some(key) = self.dirty.pop_front() else {
                break;
            };
            self.sessions.unmark(key);
            self.flush_session(now, key);
        }
        self.rest_some(now);
        // What has ended is told.
        self.flush_beside(now);
        self.dirty.is_empty() && self.dialect.poll_timeout().is_none_or(|at| at > now)
    }

    /// Writes what is to be said beside conversations.
    fn flush_beside(&mut self, now: Instant) {
        if self.dialect.poll_timeout().is_none_or(|at| at > now) {
            return;
        }
        self.dialect.handle_timeout(now);
        while self.ready.len() < MAX_WAITING_RUNS {
            self.beside.clear();
            let Some(path) = self.dialect.poll_beside(now, &mut self.beside) else {
                break;
            };
            let (ready, pool) = (&mut self.ready, &mut self.pool);
            let mut writer = RunWriter::new(ready, pool, &mut *self.ciphers[0], path, 1);
            let len = self.beside.len();
            writer.reserve(len)[..len].copy_from_slice(&self.beside);
            writer.commit(len);
            let written = writer.finish();
            self.counters.out_pkts += written.datagrams;
            self.counters.out_bytes += written.bytes;
            // It is no longer than what it answers, so there is always room for it; sessions have what is left.
            if let Some(mut left) = self.addresses.take(now, path.remote) {
                left.bytes = left.bytes.saturating_sub(written.bytes);
                self.addresses.give_back(now, path.remote, left);
            }
        }
        while let Some(event) = self.dialect.poll_event() {
            self.events.push_back(Event::Beside(event));
        }
    }

    /// The runs that wait to be sent, in order.
    pub fn waiting_runs(&mut self) -> &mut VecDeque<Run> {
        &mut self.ready
    }

    /// The next run to send. Give its buffer back with [`Endpoint::recycle`].
    pub fn next_run(&mut self) -> Option<Run> {
        self.ready.pop_front()
    }

    /// Takes back the buffer of a run.
    pub fn recycle(&mut self, run: Run) {
        transmit::recycle(&mut self.pool, run);
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Datagrams that have opened so far.
    #[must_use]
    pub const fn opened(&self) -> u64 {
        self.counters.in_pkts
    }

    /// A copy of all counters.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Gives back memory that a burst took; to be called when nothing has happened for a while.
    pub fn shrink(&mut self) {
        self.pool.shrink();
        self.copy = Vec::new();
        self.events.shrink_to_fit();
        self.dialect.shrink();
        self.ended.shrink();
        self.crowds.shrink();
        self.resting.shrink();
        self.index.shrink();
        self.beside = Vec::new();
        if let Some(sharing) = &mut self.sharing {
            sharing.shrink();
        }
        let keys: Vec<_> = self.sessions.keys().collect();
        for key in keys {
            if let Some(session) = self.sessions.get_mut(key) {
                session.shrink();
            }
        }
    }
}

/// The life of a session.
impl Endpoint {
    fn insert(&mut self, mut session: Session) -> SessionKey {
        let (path, conv) = (session.path, session.conv());
        if self.role == Role::Client {
            // Those that have come to life, or have gone, go.
            let _ = self.lifeless();
            let known = self
                .answered
                .is_some_and(|at| self.clock.since(at) < KNOWN_FOR);
            if !known {
                let overhead = self.ciphers[session.cipher].overhead();
                session.pad_first(overhead.front + overhead.back);
            }
        }
        let key = self.sessions.insert(session);
        self.index.insert(conv, path.remote, key);
        if self.role == Role::Client {
            self.newcomers.push_back(key);
        }
        self.counters.curr_estab += 1;
        self.counters.max_conn = self.counters.max_conn.max(self.counters.curr_estab);
        self.events.push_back(Event::Opened(key, path));
        self.touch(key);
        key
    }

    fn remove(&mut self, key: SessionKey, reason: Reason) {
        self.wake(self.clock, key);
        let Some(mut session) = self.sessions.remove(key) else {
            return;
        };
        self.timers.set(key.index(), None);
        self.leave_line(&session, key);
        self.memory.change(session.held, Held::default());
        self.blocked.remove(&(session.path.remote, key));
        self.held_back -= usize::from(session.held_back);
        let conv = session.conv();
        self.remember_end(&session, &reason);
        if self.index.remove(conv, session.path.remote, key)
            && let Some(sharing) = &mut self.sharing
        {
            sharing.directory.release(conv, session.proven);
        }
        if self.role == Role::Server {
            if !session.proven {
                self.counters.unproven_sessions += 1;
                self.crowds.no_longer_unproven(session.first_ip, key);
            }
            self.crowds.leave(session.first_ip);
        }
        let tell = match &reason {
            Reason::PeerReset
            | Reason::PeerEnded
            | Reason::PeerLostState
            | Reason::Finished
            | Reason::Replaced => false,
            Reason::Layer(_)
            | Reason::Silent(_)
            | Reason::Unproven(_)
            | Reason::Crowded
            | Reason::Closed => true,
        };
        let fault = matches!(reason, Reason::Layer(_));
        let mut credit = self.allowance(self.clock, &session);
        if tell && session.layer.last_words(fault) {
            let mut outlet = Outlet {
                cipher: &mut *self.ciphers[session.cipher],
                pool: &mut self.pool,
                out: &mut self.ready,
                credit: &mut credit,
            };
            // It is over, whatever becomes of that.
            let all = self.memory.allowance();
            let _ = session.flush(self.clock, &mut outlet, all, &mut self.counters);
        }
        // What dialects have to say of it beside conversations is said if it may be.
        let tell = tell && credit.bytes >= LAST_WORD;
        credit.spend(if tell { LAST_WORD } else { 0 });
        self.give_back(self.clock, session.path.remote, credit);
        self.remember_address(&session);
        self.dialect.carried(session.path.remote, session.carried());
        self.dialect.ended(self.clock, session.path, conv, tell);
        self.counters.curr_estab -= 1;
        match &reason {
            Reason::Layer(LayerError::Silent(_)) | Reason::Silent(_) => {
                self.counters.silent_sessions += 1;
            }
            Reason::Layer(LayerError::Malformed(_) | LayerError::Misbehaved(_)) => {
                self.counters.misbehaved_sessions += 1;
            }
            Reason::PeerLostState => self.counters.restarted_peers += 1,
            Reason::PeerEnded => self.counters.ended_by_peer += 1,
            Reason::Layer(LayerError::Ended(_))
            | Reason::Unproven(_)
            | Reason::Crowded
            | Reason::Replaced
            | Reason::PeerReset
            | Reason::Finished
            | Reason::Closed => {}
        }
        self.events
            .push_back(Event::Closed(key, session.path, reason));
    }

    fn touch(&mut self, key: SessionKey) {
        if self.sessions.mark(key) {
            self.dirty.push_back(key);
        }
    }

    /// What follows when datagrams of a session were taken.
    fn after_input(&mut self, now: Instant, key: SessionKey, datagrams: u64) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        session.resends = 0;
        if session.heard(now, datagrams) == Some(Change::Recovered) {
            self.events.push_back(Event::Recovered(key));
        }
        if self.role == Role::Client && session.kcp().peer_restarted() {
            session.traces.peer_lost_state();
            self.judge(now, key);
            return self.remove(key, Reason::PeerLostState);
        }
        let allowance = self.memory.allowance().receiving;
        match session.deliver(now, allowance, &mut self.counters) {
            Ok(()) => {
                self.collect(key);
                self.touch(key);
            }
            Err(reason) => self.remove(key, reason),
        }
    }

    fn flush_session(&mut self, now: Instant, key: SessionKey) {
        self.wake_in_time(now, key);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if self.role == Role::Server
            && !session.proven
            && now >= session.opened_at + self.limits.unproven_for
        {
            return self.remove(key, Reason::Unproven(self.limits.unproven_for));
        }
        if session.candidate.is_some() {
            self.look_away(now, key);
        }
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if let Some(refresh) = session.check_standing(now) {
            let remote = session.path.remote;
            let forgotten = self.addresses.validate(refresh.heard, remote);
            self.counters.forgotten_addresses += u64::from(forgotten);
        }
        let mut credit = Allowance::UNLIMITED;
        if !session.is_known() {
            match self.addresses.take(now, session.path.remote) {
                Some(limited) => credit = limited,
                // Another session of that address has shown it.
                None => session.trust(now),
            }
        }
        let mut outlet = Outlet {
            cipher: &mut *self.ciphers[session.cipher],
            pool: &mut self.pool,
            out: &mut self.ready,
            credit: &mut credit,
        };
        let allowance = self.memory.allowance();
        let flushed = session.flush(now, &mut outlet, allowance, &mut self.counters);
        if credit.is_limited() {
            self.addresses.give_back(now, session.path.remote, credit);
            let place = (session.path.remote, key);
            if !session.is_blocked() {
                self.blocked.remove(&place);
            } else if self.blocked.insert(place) {
                self.counters.credit_waits += 1;
            }
        }
        match flushed {
            Ok(flushed) => {
                let held = session.memory();
                self.memory
                    .change(std::mem::replace(&mut session.held, held), held);
                let held_back = session.kcp().is_window_limited();
                self.held_back += usize::from(held_back);
                self.held_back -= usize::from(std::mem::replace(&mut session.held_back, held_back));
                if flushed.sent {
                    self.dialect.sent(now);
                }
                if flushed.change == Some(Change::Suspected) {
                    self.dialect.suspect(now);
                    self.events.push_back(Event::Suspect(key));
                }
                if let Some(window) = flushed.window {
                    self.events.push_back(Event::WindowSmall(key, window));
                }
                if flushed.more {
                    self.touch(key);
                }
                self.collect(key);
                self.judge(now, key);
                match self.sessions.get(key).and_then(|s| s.layer.over()) {
                    None => {
                        self.set_timer(key);
                        self.line_up(now, key);
                    }
                    Some(Over::Done) => self.remove(key, Reason::Finished),
                    Some(Over::Cut) => self.remove(key, Reason::Closed),
                }
            }
            Err(reason) => self.remove(key, reason),
        }
    }

    fn set_timer(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let unproven = (self.role == Role::Server && !session.proven)
            .then(|| session.opened_at + self.limits.unproven_for);
        let traces = if self.role == Role::Client {
            session.traces.poll_timeout()
        } else {
            None
        };
        let next = [session.poll_timeout(), unproven, traces]
            .into_iter()
            .flatten()
            .min();
        self.timers.set(key.index(), next);
    }

    /// Takes the events of a session's streams.
    fn collect(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if !session.proven && session.layer.is_proven() {
            session.proven = true;
            session.lift_limits();
            let (ip, conv, addr) = (session.first_ip, session.conv(), session.path.remote);
            self.events.push_back(Event::Proven(key));
            if self.role == Role::Server {
                self.crowds.no_longer_unproven(ip, key);
                if self.dialect.conversations_are_unique() {
                    // The directory remembers for all endpoints, if there is one.
                    if self.sharing.is_none() {
                        self.used.insert(conv);
                    }
                    self.replace_older(addr, key);
                }
            }
        }
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        while let Some(notice) = session.layer.poll_notice() {
            self.events.push_back(Event::Notice(key, notice));
        }
        while let Some(event) = session.layer.poll_event() {
            self.counters.streams_opened += u64::from(matches!(event, StreamEvent::Opened(_)));
            self.events.push_back(Event::Stream(key, event));
        }
    }

    /// A client that opens another session from one port has given up the one before (docs/spec/kcptun.md, section 8.2). It is believed
    /// once the new one is proven, so that a forged first packet ends nothing.
    fn replace_older(&mut self, addr: SocketAddr, key: SessionKey) {
        for old in self.index.older(addr, key) {
            self.remove(old, Reason::Replaced);
        }
    }

    fn judge(&mut self, now: Instant, key: SessionKey) {
        if self.role == Role::Server {
            return;
        }
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let ours = self.ciphers[session.cipher].scheme();
        if let Some(suspicion) = session.traces.judge(now, ours)
            && now >= self.next_suspicion
        {
            // Many sessions that open at once have one reason.
            self.next_suspicion = now + SUSPECT_EVERY;
            self.events.push_back(Event::Suspicion(key, suspicion));
        }
    }
}
