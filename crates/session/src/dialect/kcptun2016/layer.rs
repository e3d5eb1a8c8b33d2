//! Streams of one session: yamux, its bytes encrypted once more where the variant does so.

use fulmar_cipher::{MasterKey, Position};
use fulmar_mux::{self as mux, Config as MuxConfig, Mux, Protocol, Role};
use fulmar_wire::smux::Features;
use fulmar_wire::time::Instant;

use super::vectors::{Ciphers, Recognised, Recogniser, Vectors};
use super::{PATIENCE, Settings};
use crate::dialect::muxed;
use crate::layer::{
    Class, LayerError, Notice, OpenError, Progress, Readable, Rested, Stillness, StreamEvent,
    StreamId, StreamLayer, Writable,
};
use crate::memory::Held;

/// After how much silence a peer that has spoken is given up, twice at most: one of that time pings every 30 s and waits 10 s (docs/spec/kcptun2016.md, section 9).
const KEEPALIVE_TIMEOUT: core::time::Duration = core::time::Duration::from_secs(40);
/// Bytes that a stream holds for sending: what one run of datagrams carries, so that it is full when all of it leaves at once; where the
/// sender measures, what the pace lets leave.
const SEND_BUFFER: [u32; 2] = [60 * 1024, 240 * 1024];

/// The two ends of a session.
pub(super) struct Layer {
    settings: Settings,
    token: Option<u64>,
    state: State,
    notices: Vec<Notice>,
}

/// What is known of the client. It is small for a moment only, so the large variant is not boxed.
#[allow(clippy::large_enum_variant)]
enum State {
    /// A server does not know yet what is spoken.
    Waiting(Waiting),
    /// It is.
    Known(Known),
}

struct Waiting {
    key: MasterKey,
    recogniser: Recogniser,
    /// When a client that only began is given up.
    until: Instant,
}

struct Known {
    mux: Mux,
    ciphers: Option<Ciphers>,
    /// A client's first message, until it has left.
    first: Option<Vectors>,
    /// Bytes on their way through a cipher.
    scratch: Vec<u8>,
}

/// A session without streams at rest.
struct AtRest {
    token: Option<u64>,
    stage: Stage,
}

// It is in a box, and the larger one is what there are many of.
#[allow(clippy::large_enum_variant)]
enum Stage {
    Waiting(Waiting),
    Known(mux::Rest, Option<[Position; 2]>),
}

impl Known {
    fn new(
        settings: &Settings,
        token: Option<u64>,
        ciphers: Option<Ciphers>,
        now: Instant,
    ) -> Self {
        let role = if settings.server {
            Role::Acceptor
        } else {
            Role::Opener
        };
        let measuring = settings.auto.is_some();
        let config = MuxConfig {
            max_frame: settings.frame_size.into(),
            session_buffer: settings.mux_buffer,
            stream_buffer: settings.stream_buffer,
            send_buffer: SEND_BUFFER[usize::from(measuring)],
            keepalive: settings.keep_alive,
            keepalive_timeout: KEEPALIVE_TIMEOUT,
            fin_hold: settings.fin_hold,
            token,
            features: if measuring {
                Features::HALF_CLOSE.with(Features::ACK_RANGES)
            } else {
                Features::HALF_CLOSE
            },
            ..MuxConfig::new(Protocol::Yamux, role)
        };
        // The configuration has applied the same rules, so the first attempt succeeds; a session with defaults beats none.
        let mux = Mux::new(config, now)
            .or_else(|_| Mux::new(MuxConfig::new(Protocol::Yamux, role), now))
            .expect("the defaults keep the rules");
        Self {
            mux,
            ciphers,
            first: None,
            scratch: Vec::new(),
        }
    }

    fn handle_input(&mut self, now: Instant, bytes: &[u8]) -> Result<(), LayerError> {
        let bytes = match &mut self.ciphers {
            None => bytes,
            Some(ciphers) => {
                self.scratch.clear();
                self.scratch.extend_from_slice(bytes);
                ciphers.open.decrypt(&mut self.scratch);
                &self.scratch
            }
        };
        self.mux.handle_input(now, bytes).map_err(fault)
    }
}

impl Layer {
    /// Of a session that we open.
    pub(super) fn client(
        settings: &Settings,
        key: &MasterKey,
        token: Option<u64>,
        vectors: Vectors,
        now: Instant,
    ) -> Self {
        let mut known = Known::new(settings, token, vectors.ciphers(key, false), now);
        known.first = Some(vectors).filter(|v| !v.message().is_empty());
        Self {
            settings: settings.clone(),
            token,
            state: State::Known(known),
            notices: Vec::new(),
        }
    }

    /// Of a session that a stranger opens.
    pub(super) fn server(
        settings: &Settings,
        key: &MasterKey,
        token: Option<u64>,
        now: Instant,
    ) -> Self {
        Self {
            settings: settings.clone(),
            token,
            state: State::Waiting(Waiting {
                key: key.clone(),
                recogniser: Recogniser::default(),
                until: now + PATIENCE,
            }),
            notices: Vec::new(),
        }
    }

    const fn mux(&self) -> Option<&Mux> {
        match &self.state {
            State::Waiting(_) => None,
            State::Known(k) => Some(&k.mux),
        }
    }

    const fn mux_mut(&mut self) -> Option<&mut Mux> {
        match &mut self.state {
            State::Waiting(_) => None,
            State::Known(k) => Some(&mut k.mux),
        }
    }
}

fn fault(e: mux::Error) -> LayerError {
    muxed::fault(e, KEEPALIVE_TIMEOUT)
}

impl StreamLayer for Layer {
    fn wants_input(&self) -> bool {
        self.mux().is_none_or(Mux::wants_input)
    }

    fn handle_input(&mut self, now: Instant, bytes: &[u8]) -> Result<(), LayerError> {
        self.handle_fragment(now, bytes, true)
    }

    fn handle_fragment(
        &mut self,
        now: Instant,
        bytes: &[u8],
        last: bool,
    ) -> Result<(), LayerError> {
        let waiting = match &mut self.state {
            State::Known(known) => return known.handle_input(now, bytes),
            State::Waiting(waiting) => waiting,
        };
        let recognised = waiting
            .recogniser
            .take(&waiting.key, bytes, last)
            .map_err(|e| LayerError::Malformed(e.to_string()))?;
        let Some(Recognised { vectors, rest }) = recognised else {
            return Ok(());
        };
        self.notices.push(Notice::Variant(vectors.describe()));
        let ciphers = vectors.ciphers(&waiting.key, true);
        let mut known = Known::new(&self.settings, self.token, ciphers, now);
        let taken = known.handle_input(now, &rest);
        self.state = State::Known(known);
        taken
    }

    fn poll_output(
        &mut self,
        now: Instant,
        limit: u32,
        sink: &mut dyn FnMut(&[u8], Class),
    ) -> bool {
        let State::Known(known) = &mut self.state else {
            return false;
        };
        if let Some(first) = known.first.take() {
            sink(first.message(), Class::Sparse);
            return true;
        }
        let Some(frame) = known.mux.poll_frame_within(now, limit) else {
            return false;
        };
        let (class, parts) = (frame.class(), frame.parts());
        match &mut known.ciphers {
            None => parts
                .into_iter()
                .filter(|p| !p.is_empty())
                .for_each(|p| sink(p, class)),
            Some(ciphers) => {
                known.scratch.clear();
                for part in parts {
                    known.scratch.extend_from_slice(part);
                }
                ciphers.seal.encrypt(&mut known.scratch);
                sink(&known.scratch, class);
            }
        }
        true
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting(waiting) => Some(waiting.until),
            State::Known(known) => known.mux.poll_timeout(),
        }
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), LayerError> {
        match &mut self.state {
            State::Waiting(waiting) if now < waiting.until => Ok(()),
            State::Waiting(_) => Err(LayerError::Silent(PATIENCE)),
            State::Known(known) => muxed::handle_timeout(&mut known.mux, now),
        }
    }

    fn poll_event(&mut self) -> Option<StreamEvent> {
        let Self { state, notices, .. } = self;
        match state {
            State::Waiting(_) => None,
            State::Known(known) => muxed::poll_event(&mut known.mux, notices),
        }
    }

    fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop()
    }

    /// A client that begins with vectors may say nothing behind its first message for half a minute: its packet is proof enough, as it opened
    /// with the key.
    fn is_proven(&self) -> bool {
        match &self.state {
            State::Waiting(waiting) => waiting.recogniser.is_begun(),
            State::Known(known) => self.settings.server || known.mux.counters().frames_received > 0,
        }
    }

    fn last_words(&mut self, fault: bool) -> bool {
        self.mux_mut().is_some_and(|mux| mux.farewell(fault))
    }

    fn streams(&self) -> usize {
        self.mux().map_or(0, Mux::held_streams)
    }

    fn peer_is_fulmar(&self) -> bool {
        self.mux().is_some_and(muxed::peer_is_fulmar)
    }

    fn peer_takes_ack_ranges(&self) -> bool {
        self.mux().is_some_and(muxed::peer_takes_ack_ranges)
    }

    fn token(&self) -> Option<u64> {
        self.mux().and_then(Mux::token)
    }

    fn peer_token(&self) -> Option<u64> {
        self.mux().and_then(Mux::peer_token)
    }

    fn payload_received(&self) -> u64 {
        self.mux().map_or(0, |m| m.counters().bytes_received)
    }

    fn ping(&mut self) {
        if let Some(mux) = self.mux_mut() {
            mux.ping();
        }
    }

    fn open(&mut self, now: Instant) -> Result<StreamId, OpenError> {
        muxed::open(self.mux_mut(), now)
    }

    fn read(&mut self, id: StreamId) -> Readable<'_> {
        self.mux()
            .map_or(Readable::Reset, |mux| muxed::read(mux, id))
    }

    fn pieces<'a>(&'a self, id: StreamId, pieces: &mut [&'a [u8]]) -> usize {
        self.mux().map_or(0, |mux| muxed::pieces(mux, id, pieces))
    }

    fn consume(&mut self, now: Instant, id: StreamId, n: usize) {
        if let Some(mux) = self.mux_mut() {
            mux.consume(now, id, n);
        }
    }

    fn write(&mut self, id: StreamId, max: usize) -> Writable<'_> {
        muxed::write(self.mux_mut(), id, max)
    }

    fn unsent(&self, id: StreamId) -> usize {
        self.mux().map_or(0, |mux| mux.unsent(id))
    }

    fn starve(&mut self, id: StreamId) {
        if let Some(mux) = self.mux_mut() {
            mux.starve(id);
        }
    }

    fn held(&self) -> Held {
        muxed::held(self.mux())
    }

    fn commit(&mut self, id: StreamId, n: usize) {
        if let Some(mux) = self.mux_mut() {
            // A stream that was closed meanwhile takes nothing.
            let _ = mux.write_commit(id, n);
        }
    }

    fn finish(&mut self, now: Instant, id: StreamId) {
        if let Some(mux) = self.mux_mut() {
            mux.finish(now, id);
        }
    }

    fn reset(&mut self, _now: Instant, id: StreamId) {
        if let Some(mux) = self.mux_mut() {
            mux.reset(id, mux::ResetReason::ABORTED);
        }
    }

    fn close(&mut self, now: Instant, id: StreamId) {
        if let Some(mux) = self.mux_mut() {
            mux.close(now, id);
        }
    }

    fn shrink(&mut self) {
        if let State::Known(known) = &mut self.state {
            muxed::shrink(&mut known.mux);
            known.scratch = Vec::new();
        }
        self.notices.shrink_to_fit();
    }

    fn stillness(&self) -> Stillness {
        match &self.state {
            State::Known(known) if known.first.is_some() => Stillness::Busy,
            State::Known(known) => muxed::stillness(&known.mux, self.notices.is_empty()),
            State::Waiting(_) if self.notices.is_empty() => Stillness::Still,
            State::Waiting(_) => Stillness::Busy,
        }
    }

    fn rest(self: Box<Self>) -> Rested {
        let timeout = self.poll_timeout();
        let state = match self.state {
            State::Waiting(waiting) => Stage::Waiting(waiting),
            State::Known(Known { mux, ciphers, .. }) => {
                Stage::Known(mux.rest(), ciphers.map(|c| c.positions()))
            }
        };
        let token = self.token;
        Rested {
            timeout,
            state: Box::new(AtRest {
                token,
                stage: state,
            }),
        }
    }

    fn resume(mut self: Box<Self>, now: Instant, rested: Rested) -> Box<dyn StreamLayer> {
        if let Ok(rested) = rested.state.downcast::<AtRest>() {
            self.token = rested.token;
            self.state = match rested.stage {
                Stage::Waiting(waiting) => State::Waiting(waiting),
                Stage::Known(mux, positions) => {
                    let State::Waiting(fresh) = &self.state else {
                        return self;
                    };
                    let ciphers = positions.map(|p| Ciphers::resumed(&fresh.key, &p));
                    let mut known = Known::new(&self.settings, self.token, ciphers, now);
                    known.mux.resume(mux);
                    State::Known(known)
                }
            };
        }
        self
    }

    fn progress(&self, id: StreamId) -> Option<Progress> {
        muxed::progress(self.mux()?, id)
    }
}
