//! Many streams in one session, both ends, in the frames of smux 1 and 2 (docs/spec/kcptun.md, section 9) or of yamux (docs/spec/kcptun2016.md,
//! section 9): see [`Protocol`].
//!
//! [`Mux`] is one session: many streams over one ordered, reliable stream of bytes, which somebody else carries. It
//! does no I/O and reads no clock; `now` must not go backwards. `smux` and `yamux` say what an arriving frame means and how what is to be
//! said is written; everything else is the same for both.
//!
//! | kind | methods |
//! |---|---|
//! | what arrived | [`handle_input`](Mux::handle_input), [`handle_timeout`](Mux::handle_timeout) |
//! | what must happen | [`poll_frame`](Mux::poll_frame), [`poll_frame_within`](Mux::poll_frame_within), [`poll_event`](Mux::poll_event), [`poll_timeout`](Mux::poll_timeout) |
//! | commands | [`open`](Mux::open), [`write`](Mux::write), [`consume`](Mux::consume), [`finish`](Mux::finish), [`close`](Mux::close), [`reset`](Mux::reset) |
//! | getters | everything else |
//!
//! Frames are pulled: the caller asks for the next one only while the layer below has room. After any other call
//! [`has_frames`](Mux::has_frames), [`poll_event`](Mux::poll_event) and [`poll_timeout`](Mux::poll_timeout) may
//! answer differently.
//!
//! # Life of a stream
//!
//! A stream is held by the application from [`open`](Mux::open) or [`Event::Opened`] until exactly one of
//! [`close`](Mux::close) and [`reset`](Mux::reset); nothing that the peer does takes it away before. The two
//! directions are independent:
//!
//! ```text
//!  our direction                             the peer's direction
//!  ─────────────                             ────────────────────
//!  open ── finish ──▶ finishing              open ──────────────▶ finished   Event::Finished,
//!    │                   │ drained, FIN        │    FIN                       after the last byte
//!    │                   ▼                     │                             was consumed
//!    │                finished                 └── private reset ──▶ reset   Event::Reset
//!    └── peer takes no more ──▶ stopped   Event::Stopped
//! ```
//!
//! # Who the peer is, and what `FIN` means
//!
//! The replaced programs know no half-close. In smux a Go end that sends `FIN` has closed the whole stream, and one that receives `FIN`
//! delivers what it has buffered and fails its own writes from then on. Two Fulmar ends do better, and recognise each
//! other by a frame that a Go end ignores: the first frame of an opener is a [`Hello`](fulmar_wire::smux::Hello); an acceptor whose first
//! frame received is a hello answers with its own before it sends anything else. The first frame received decides:
//!
//! ```text
//!             hello with a common feature
//!  unknown ──────────────────────────────▶ Fulmar     Event::PeerHello
//!     └────────── any other frame ───────▶ plain      Event::PeerPlain
//! ```
//! Two that have [`SESSION_TOKEN`](Features::SESSION_TOKEN) then give each other a token, by which the end of a session can be told later.
//! With [`Config::hello`] off the peer is plain from the start. In yamux hello is a ping that every end answers: an answer without a hello in
//! front of it is a plain peer's, and other frames decide nothing at an opener.
//!
//! The table is smux's. In yamux a reset is no private matter: every peer understands it, and it is never held back; there is none with
//! [`ResetReason::CLOSED`]. Instead a closed stream is kept until the peer's `FIN`, for [`Config::linger`] at most, and a Fulmar peer that
//! sends data meanwhile is cut. (A plain one would lose what it has not read.)
//!
//! | | Fulmar peer | plain peer | unknown peer |
//! |---|---|---|---|
//! | `FIN` received | that direction is over | the stream is over: `Finished` after the buffered bytes, `Stopped` at once, unsent bytes are dropped | cannot be |
//! | [`finish`](Mux::finish), opener | `FIN` after the data | `FIN` after the data, and not before the peer's `FIN` has arrived or neither direction has moved for [`Config::fin_hold`] | `FIN` is held until the peer is known |
//! | [`finish`](Mux::finish), acceptor | `FIN` after the data | `FIN` after the data | cannot be |
//! | [`close`](Mux::close) | a private reset with [`ResetReason::CLOSED`] unless the peer's `FIN` has arrived, data, `FIN` | data, `FIN` | data, `FIN`; the reset as soon as the peer is known to be a Fulmar |
//! | [`reset`](Mux::reset) | private reset | `FIN` | nothing until the peer is known |
//! | private reset received, `CLOSED` | `Stopped`; the peer's direction goes on to its `FIN` | ends the session ([`Error::BadCommand`]) | cannot be |
//! | private reset received, any other reason | after the peer's `FIN`: `Stopped`; else `Reset`, unread bytes are dropped | ends the session | cannot be |
//!
//! An acceptor sends nothing at all, not even keep-alives, before the first frame arrives, so that its hello is the
//! first frame that the opener sees.
//!
//! The `FIN` of a finished opener is held because a Go server drops the rest of its answer once it has seen it. While
//! bytes of the answer are unread, or the session has no room for more, the hold goes on. What remains lost with a Go
//! peer: an answer that begins later than [`Config::fin_hold`] after the last byte of the request.
//!
//! # Whose frame is next
//!
//! Hello and keep-alives first, then what streams have to say without data. Data goes stream by stream, fair by bytes,
//! and streams that have sent little of late go before those with a backlog (RFC 8290, section 4): an echo beside a full
//! download waits for one frame of it at most. However many streams of that kind there are, a backlog keeps moving: one
//! byte in 33 is left to those that have one.
//!
//! Within a stream the order is fixed: `SYN`, private reset, `UPD`, data, `FIN`.
//!
//! Each frame tells its [`Class`]: whether it is worth being carried more than once.
//!
//! # Limits
//!
//! * Received bytes: [`wants_input`](Mux::wants_input) is the session's token bucket (docs/spec/kcptun.md, section 9.3); the caller stops
//!   feeding input while it says no. The memory behind it counts as well as the bytes.
//! * Received bytes of one stream, yamux: [`Config::stream_buffer`], of which the peer is told. smux version 2: the larger of [`Config::stream_buffer`] and the initial window of 262144,
//!   and one frame of tolerance; more ends the session with [`Error::WindowOverrun`].
//! * Streams: [`Config::max_streams`] held by the application and 1024 that wait for it, in yamux 256.
//! * Sent bytes: [`Config::send_buffer`] per stream.

pub(crate) mod class;
mod commands;
mod config;
mod counters;
mod input;
mod output;
mod rest;
mod schedule;
mod smux;
mod stream;
mod timers;
mod yamux;

pub use class::{Class, SPARSE_BURST, SPARSE_RATE};
pub use config::{Config, ConfigError, Protocol, Role};
pub use counters::Counters;
pub use fulmar_wire::smux::{Features, Version};
pub use output::Frame;
pub use rest::Rest;

use crate::event::{Event, Peer, ResetReason};
use crate::list::List;
use crate::pool::Pool;
use crate::slab::Slab;
use crate::{Error, StreamId};
use fulmar_wire::time::Instant;
use input::Parser;
use schedule::Schedule;
use std::collections::{BTreeMap, BTreeSet};
use stream::{Changes, Holder, Inbound, Next, Outbound, Stream};

/// Streams that wait for the application: the length of upstream's accept queue.
const ACCEPT_QUEUE: u32 = 1024;
/// Memory for received bytes beyond twice the session buffer: a few chunks, so that tiny session buffers work.
const CHUNK_SLACK: u64 = 64 * 1024;

/// A session. See the [module](self).
#[derive(Debug)]
pub struct Mux {
    config: Config,
    peer: Peer,
    /// `PeerHello` or `PeerPlain` has to be told.
    peer_news: bool,
    /// A frame header has arrived.
    heard: bool,
    over: Option<Error>,
    going_away: bool,

    streams: Slab<Stream>,
    /// Slots by number on the wire.
    slots: BTreeMap<u32, u32>,
    /// The last hit in `slots`: frames of one stream come in rows.
    recent: Option<(u32, u32)>,
    /// Streams that the application holds.
    held: u32,
    /// The next number to open, `None` when all are used.
    next_wire: Option<u32>,

    /// Streams with a frame to send, and whose turn it is.
    schedule: Schedule,
    /// Held streams with something to tell.
    changed: List,
    /// Streams that wait for the application.
    arrivals: List,

    outbox: Pool,
    inbox: Pool,
    /// Bytes received and not consumed.
    unread: u64,
    parser: Parser,

    hello_due: bool,
    token_due: bool,
    /// What the peer has to be told, should we end the session.
    peer_token: Option<u64>,
    nop_due: bool,
    /// When a frame was last emitted.
    emitted_at: Instant,
    nop_at: Instant,
    check_at: Instant,
    /// A frame header has arrived since the last check.
    heard_since_check: bool,
    /// When the last one arrived.
    heard_at: Instant,
    /// Timers of streams, each with its slot.
    timers: BTreeSet<(Instant, u32)>,

    counters: Counters,
    /// What only yamux has.
    yamux: yamux::State,
}

/// What decides which frames a stream may still say.
#[derive(Copy, Clone, Debug)]
struct Terms {
    peer: Peer,
    yamux: bool,
}

impl Terms {
    /// Whether the peer understands resets. In yamux everybody does.
    const fn resets(self) -> bool {
        self.yamux || self.peer.half_close()
    }

    /// Whether all that a cut can be told by is `FIN`.
    const fn cuts_by_fin(self) -> bool {
        !self.yamux && matches!(self.peer, Peer::Plain)
    }
}

impl Mux {
    /// A session without streams that begins at `now`.
    ///
    /// # Errors
    /// The first rule of [`Config::validate`] that the settings break.
    pub fn new(config: Config, now: Instant) -> Result<Self, ConfigError> {
        config.validate()?;
        let mut config = config;
        if config.token.is_some() {
            config.features = config.features.with(Features::SESSION_TOKEN);
        }
        Ok(Self {
            peer: if config.hello {
                Peer::Unknown
            } else {
                Peer::Plain
            },
            peer_news: !config.hello,
            heard: false,
            over: None,
            going_away: false,
            streams: Slab::new(),
            slots: BTreeMap::new(),
            recent: None,
            held: 0,
            next_wire: match (config.role, config.protocol) {
                (Role::Acceptor, _) => None,
                // The counter starts at 1 and is increased before use (section 9.2).
                (Role::Opener, Protocol::Smux(_)) => Some(3),
                (Role::Opener, Protocol::Yamux) => Some(1),
            },
            schedule: Schedule::new(config.max_frame),
            changed: List::new(),
            arrivals: List::new(),
            outbox: Pool::new(),
            inbox: Pool::new(),
            unread: 0,
            parser: Parser::new(),
            hello_due: config.hello && config.role == Role::Opener,
            token_due: false,
            peer_token: None,
            nop_due: false,
            emitted_at: now,
            nop_at: now + config.keepalive,
            check_at: now + config.keepalive_timeout,
            heard_since_check: false,
            heard_at: now,
            timers: BTreeSet::new(),
            counters: Counters::default(),
            yamux: yamux::State::default(),
            config,
        })
    }

    /// The settings of this session.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Who the other end is.
    #[must_use]
    pub const fn peer(&self) -> Peer {
        self.peer
    }

    /// Whether both ends give tokens.
    #[must_use]
    pub const fn exchanges_tokens(&self) -> bool {
        matches!(self.peer, Peer::Fulmar(features) if features.contains(Features::SESSION_TOKEN))
    }

    /// What the peer has to say to be believed that it has ended the session; `None` unless it was given.
    #[must_use]
    pub const fn token(&self) -> Option<u64> {
        if self.exchanges_tokens() {
            self.config.token
        } else {
            None
        }
    }

    /// What the peer believes, should we end the session.
    #[must_use]
    pub const fn peer_token(&self) -> Option<u64> {
        self.peer_token
    }

    /// How long the peer may be silent.
    #[must_use]
    pub const fn patience(&self) -> core::time::Duration {
        if self.exchanges_tokens() {
            self.config.token_timeout
        } else {
            self.config.keepalive_timeout
        }
    }

    /// Why the session is over, `None` while it is not. Once it is, no frame leaves and none is taken; what had been
    /// received can still be read, and all streams are as good as cut.
    #[must_use]
    pub const fn error(&self) -> Option<Error> {
        self.over
    }

    /// Totals since the session began.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Streams that the application holds.
    #[must_use]
    pub const fn held_streams(&self) -> usize {
        self.held as usize
    }

    /// Streams that exist: held, waiting to be accepted, or closed and not yet forgotten.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// The streams that the application holds, in no particular but always the same order.
    pub fn held(&self) -> impl Iterator<Item = StreamId> + '_ {
        (0..self.streams.end()).filter_map(|slot| {
            let stream = self.streams.at(slot)?;
            (stream.holder == Holder::Application)
                .then(|| self.streams.key(slot))
                .flatten()
        })
    }

    /// Bytes received and not consumed, all streams together.
    #[must_use]
    pub const fn unread(&self) -> u64 {
        self.unread
    }

    /// Bytes of memory that hold what streams have written and what has not left.
    #[must_use]
    pub fn send_memory(&self) -> usize {
        self.outbox.bytes_in_use()
    }

    /// Bytes of memory that hold what has arrived and was not consumed.
    #[must_use]
    pub fn receive_memory(&self) -> usize {
        self.inbox.bytes_in_use()
    }

    /// Bytes of memory in buffers, those kept for the next burst included.
    #[must_use]
    pub fn buffer_memory(&self) -> usize {
        self.outbox.bytes_held() + self.inbox.bytes_held()
    }

    /// Whether the session takes more input: the token bucket of section 9.3. While it says no, no byte is to be
    /// given to [`handle_input`](Self::handle_input); it changes when the application consumes, closes or resets.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        let limit = u64::from(self.config.session_buffer);
        // Chunks are larger than the bytes in them; a peer that spreads single bytes over many streams meets the
        // second condition.
        let memory = 2 * limit + CHUNK_SLACK;
        self.unread < limit && (self.unread == 0 || self.inbox.bytes_in_use() as u64 <= memory)
    }

    /// Takes no new streams from now on: [`open`](Self::open) fails, streams of the peer are refused.
    pub const fn go_away(&mut self) {
        self.going_away = true;
    }

    /// Whether [`go_away`](Self::go_away) was called.
    #[must_use]
    pub const fn is_going_away(&self) -> bool {
        self.going_away
    }

    /// The next change of state, `None` when all have been told.
    pub fn poll_event(&mut self) -> Option<Event> {
        if core::mem::take(&mut self.peer_news) {
            match self.peer {
                Peer::Fulmar(features) => return Some(Event::PeerHello(features)),
                Peer::Plain => return Some(Event::PeerPlain),
                Peer::Unknown => {}
            }
        }
        while let Some(slot) = self.changed.front() {
            let key = self.streams.key(slot);
            if let (Some(id), Some(stream)) = (key, self.streams.at_mut(slot)) {
                let change = stream.changes.take_first();
                let event = event_of(change, id, stream);
                if stream.changes.is_empty() {
                    self.changed.remove(slot);
                }
                if event.is_some() {
                    return event;
                }
            } else {
                self.changed.remove(slot);
            }
        }
        if self.held < self.config.max_streams
            && let Some(slot) = self.arrivals.pop_front()
        {
            let id = self.streams.key(slot)?;
            let stream = self.streams.at_mut(slot)?;
            stream.holder = Holder::Application;
            self.held += 1;
            if !stream.changes.is_empty() {
                self.changed.push_back(slot);
            }
            return Some(Event::Opened(id));
        }
        None
    }

    const fn terms(&self) -> Terms {
        Terms {
            peer: self.peer,
            yamux: matches!(self.config.protocol, Protocol::Yamux),
        }
    }

    /// The stream behind a key that the application holds.
    fn stream_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        commands::held(&mut self.streams, id)
    }

    fn stream(&self, id: StreamId) -> Option<&Stream> {
        self.streams
            .get(id)
            .filter(|stream| stream.holder == Holder::Application)
    }

    /// Ends the session.
    fn fail<T>(&mut self, error: Error) -> Result<T, Error> {
        self.over = Some(error);
        Err(error)
    }

    /// Notes a change of a stream, to be told when the application holds it.
    fn note(&mut self, slot: u32, change: Changes) {
        if let Some(stream) = self.streams.at_mut(slot)
            && stream.holder != Holder::Nobody
        {
            stream.changes.insert(change);
            if stream.holder == Holder::Application {
                self.changed.push_back(slot);
            }
        }
    }

    /// Puts a stream into or out of the schedule, or forgets it, as its state demands. To be called after whatever
    /// may change [`Stream::next`].
    fn refresh(&mut self, slot: u32) {
        let terms = self.terms();
        let Some(stream) = self.streams.at_mut(slot) else {
            return;
        };
        if stream.is_over(terms) {
            self.forget(slot);
            return;
        }
        let next = stream.next(terms);
        let turn = &mut stream.turn;
        match next {
            Some(Next::Syn | Next::Psh(_)) => self.schedule.enter_data(slot, turn),
            Some(Next::Upd | Next::Fin | Next::Rst(_)) => self.schedule.enter_control(slot, turn),
            None => self.schedule.leave(slot, turn),
        }
    }

    fn forget(&mut self, slot: u32) {
        self.set_timer(slot, None);
        self.changed.remove(slot);
        self.arrivals.remove(slot);
        if let Some(mut stream) = self.streams.remove(slot) {
            self.schedule.leave(slot, &mut stream.turn);
            self.unread -= stream.unread.len() as u64;
            self.inbox.clear(&mut stream.unread);
            self.outbox.clear(&mut stream.unsent);
            self.slots.remove(&stream.wire);
            self.recent = None;
        }
    }

    /// Drops what a stream has received.
    fn drop_unread(&mut self, slot: u32) {
        if let Some(stream) = self.streams.at_mut(slot) {
            self.unread -= stream.unread.len() as u64;
            self.inbox.clear(&mut stream.unread);
        }
    }

    /// Drops what a stream would have sent; returns whether there was something.
    fn drop_unsent(&mut self, slot: u32) -> bool {
        let Some(stream) = self.streams.at_mut(slot) else {
            return false;
        };
        let lost = stream.unsent.len();
        self.outbox.clear(&mut stream.unsent);
        self.counters.bytes_dropped += lost as u64;
        lost > 0
    }

    /// The first frame of the peer has told who it is.
    fn meet(&mut self, now: Instant, hello: Option<Features>) {
        let common = hello.map_or(Features::default(), |features| {
            self.config.features.common(features)
        });
        let known = Peer::Fulmar(common);
        self.peer = if known.half_close() {
            known
        } else {
            Peer::Plain
        };
        self.peer_news = true;
        // A hello is answered even without a common feature: the other end decides by its own rule.
        self.hello_due = hello.is_some() && self.config.role == Role::Acceptor;
        if self.exchanges_tokens() {
            self.token_due = true;
            self.check_at = now + self.config.token_timeout;
        }
        for slot in 0..self.streams.end() {
            if let Some(stream) = self.streams.at_mut(slot) {
                if stream.fin_held {
                    if self.peer.half_close() {
                        stream.fin_held = false;
                    } else {
                        self.hold_fin(slot, now);
                    }
                }
                self.refresh(slot);
            }
        }
    }

    /// The peer takes no more bytes of this stream.
    fn stop(&mut self, slot: u32, reason: ResetReason) {
        let lost = self.drop_unsent(slot);
        let Some(stream) = self.streams.at_mut(slot) else {
            return;
        };
        let mut tell = lost;
        if stream.outbound == Outbound::Open {
            stream.outbound = Outbound::Stopped;
            tell = true;
        }
        if tell {
            stream.stopped = Some(reason);
            stream.changes.remove(Changes::WRITABLE);
            self.note(slot, Changes::STOPPED);
        }
    }
}

fn event_of(change: Changes, id: StreamId, stream: &Stream) -> Option<Event> {
    match change {
        Changes::READABLE => Some(Event::Readable(id)),
        Changes::WRITABLE => Some(Event::Writable(id)),
        Changes::STOPPED => Some(Event::Stopped(id, stream.stopped?)),
        Changes::FINISHED => Some(Event::Finished(id)),
        Changes::RESET => match stream.inbound {
            Inbound::Reset(reason) => Some(Event::Reset(id, reason)),
            Inbound::Open | Inbound::Finished | Inbound::Discarded => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests;
