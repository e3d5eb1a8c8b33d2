//! The kcptun dialect (docs/spec/kcptun.md): smux streams, optionally snappy below them and QPP above, over KCP in stream
//! mode, optionally with Reed-Solomon parity.
//!
//! # A server adapts
//! The first byte of a client's stream is `0xFF` when it compresses, else the smux version; with compression, the first
//! decompressed byte is the version (section 17). So a server builds the upper half when that byte is there, and what
//! it was told about compression and version is only an expectation that is checked.

use std::collections::HashMap;
use std::time::Duration;

use fulmar_arq::{self as arq, Kcp};
use fulmar_cipher::{MasterKey, NonceSource, Prober, Scheme};
use fulmar_codec::{qpp, snappy};
use fulmar_fec as fec;
use fulmar_mux::{self as mux, Config as MuxConfig, Mux, Protocol, Role};
use fulmar_wire::kcp::HEADER_LEN;
use fulmar_wire::kcptun::{self as wire, Method};
use fulmar_wire::smux::{Features, Version};
use fulmar_wire::time::Instant;

use crate::admission::{self, Peek};
use crate::dialect::muxed::{self, Tokens};
use crate::dialect::{Dialect, Probe, Stranger};
use crate::layer::{
    Class, LayerError, Notice, OpenError, Progress, Readable, Rested, Stillness, StreamEvent,
    StreamId, StreamLayer, Writable,
};
use crate::measuring;
use crate::memory::Held;
use crate::session::Parts;
use crate::transmit::Path;

/// How long a peer may be silent (section 9.6).
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of headers below a UDP payload, with IPv4.
const IP_UDP_HEADERS: usize = 28;
/// First byte of a snappy stream.
const SNAPPY: u8 = snappy::IDENTIFIER[0];

/// What sessions of this dialect are built from. Ranges are checked by the configuration; see there for defaults.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether we are the server: peers open sessions and streams.
    pub server: bool,
    /// Largest UDP payload, bytes (`--mtu`, 50 to 1500).
    pub mtu: usize,
    /// KCP's four numbers (`--mode`).
    pub profile: arq::Profile,
    /// Send window, segments.
    pub snd_wnd: u32,
    /// Receive window, segments.
    pub rcv_wnd: u32,
    /// Whether acknowledgements leave at once.
    pub ack_no_delay: bool,
    /// Data and parity shards of what we send; `None` sends no FEC headers at all.
    pub fec: Option<(usize, usize)>,
    /// smux version, 1 or 2; at a server, what is expected.
    pub smux_version: u8,
    /// Receive buffer of a session, bytes (`--smuxbuf`).
    pub smux_buffer: u32,
    /// Largest payload of a frame that we send, bytes (`--framesize`).
    pub frame_size: u16,
    /// Receive window of a stream, bytes (`--streambuf`).
    pub stream_buffer: u32,
    /// Time between keep-alive frames.
    pub keep_alive: Duration,
    /// How long a client holds a half-close back from a server that would drop the answer.
    pub fin_hold: Duration,
    /// Whether snappy is used; at a server, what is expected.
    pub compression: bool,
    /// Pads, if QPP is on.
    pub qpp: Option<qpp::Pads>,
    /// Bytes of UDP payload per second and session.
    pub rate_limit: Option<u64>,
    /// The sender measures the path (`--mode auto`); then [`Self::profile`] only says how long acknowledgements wait at most.
    /// With parity that follows the path, [`Self::fec`] is `None`.
    pub auto: Option<measuring::Settings>,
}

/// Builds sessions of this dialect.
pub struct Kcptun {
    settings: Settings,
    key: MasterKey,
    /// Made when it is needed first: it has the ciphers of all methods.
    prober: Option<Prober>,
    /// Finds the method among those of another dialect.
    others: Option<Probe>,
    /// What Fulmar peers have to say to be believed that they have ended a session.
    tokens: Option<Tokens>,
}

impl Kcptun {
    /// Sessions with `settings`; `key` finds out which cipher a datagram was made with.
    #[must_use]
    pub const fn new(settings: Settings, key: MasterKey) -> Self {
        Self {
            settings,
            key,
            prober: None,
            others: None,
            tokens: None,
        }
    }

    /// The same; clocks of sessions begin at random, and sessions with Fulmar peers exchange tokens, by which the end of a session can
    /// be told (docs/design/liveness.md). Both are drawn from `random`.
    #[must_use]
    pub fn with_tokens(mut self, random: NonceSource) -> Self {
        self.tokens = Some(Tokens::new(random));
        self
    }

    /// The same; a datagram that no method of this dialect opens is judged by `others`, to name a peer that speaks another one.
    #[must_use]
    pub fn beside(mut self, others: Probe) -> Self {
        self.others = Some(others);
        self
    }

    /// The parts of a session that we open.
    #[must_use]
    pub fn open(&mut self, path: Path, conv: u32, method: Method, now: Instant) -> Parts {
        let layer = Layer::known(
            &self.settings,
            self.tokens.as_mut().map(Tokens::draw),
            self.settings.compression,
            self.version(),
            now,
        );
        self.parts(path, conv, method, 0, Box::new(layer))
    }

    fn parts(
        &mut self,
        path: Path,
        conv: u32,
        method: Method,
        cipher: usize,
        layer: Box<dyn StreamLayer>,
    ) -> Parts {
        let clock = self.tokens.as_mut().map_or(0, Tokens::draw_clock);
        let s = &self.settings;
        let shape = s
            .fec
            .and_then(|(data, parity)| fec::Shape::new(data, parity).ok());
        // Room for its header, so that parity can come and go.
        let room_for_parity = shape.is_some() || s.auto.is_some_and(|a| a.parity);
        // The configuration refuses an MTU that leaves too little; `auto` may meet a method with larger headers.
        let mtu = wire::kcp_mtu(method, room_for_parity, s.mtu).unwrap_or(wire::MIN_KCP_MTU);
        let below = wire::kcp_mtu(method, shape.is_some(), s.mtu).map_or(0, |kcp| s.mtu - kcp);
        let config = arq::Config {
            mtu,
            overhead: HEADER_LEN + below + IP_UDP_HEADERS,
            copies: s.auto.is_some_and(|a| a.redundancy > 0),
            strategy: match s.auto {
                Some(_) => arq::StrategyKind::Auto,
                None => arq::StrategyKind::Classic,
            },
            profile: s.profile,
            snd_wnd: s.snd_wnd,
            rcv_wnd: s.rcv_wnd,
            ack_no_delay: s.ack_no_delay,
            measure_repairs: false,
            clock,
            ..arq::Config::default()
        };
        Parts {
            kcp: Kcp::new(conv, config),
            encoder: shape.map(fec::Encoder::new),
            decoder: Some(fec::Decoder::new(shape).cautious()),
            layer,
            path,
            cipher,
            rate_limit: s.rate_limit,
            padding: None,
            silence: None,
            thrifty: false,
            watches_quiet: !s.server,
            measuring: s.auto,
        }
    }

    fn version(&self) -> Version {
        if self.settings.smux_version == 1 {
            Version::V1
        } else {
            Version::V2
        }
    }
}

impl Dialect for Kcptun {
    fn peek(&self, body: &[u8]) -> Option<Peek> {
        admission::peek(body)
    }

    fn accept(&mut self, _now: Instant, stranger: Stranger) -> Parts {
        let token = self.tokens.as_mut().map(Tokens::draw);
        let layer = Layer::unknown(&self.settings, token);
        let method = match stranger.scheme {
            Scheme::Kcptun(method) => method,
            // It has no cipher of another dialect.
            _ => Method::Null,
        };
        self.parts(
            stranger.path,
            stranger.conv,
            method,
            stranger.cipher,
            Box::new(layer),
        )
    }

    fn probe(&mut self, datagram: &[u8]) -> Option<Scheme> {
        self.prober
            .get_or_insert_with(|| Prober::new(&self.key, &Method::ALL))
            .probe(datagram)
            .map(Scheme::Kcptun)
            .or_else(|| self.others.as_mut()?(datagram))
    }
}

/// Compression of both directions.
#[derive(Default)]
struct Snappy {
    encoder: snappy::Encoder,
    decoder: snappy::Decoder,
}

/// QPP of one stream.
struct Pad {
    cipher: qpp::Stream,
    /// Bytes at the head of what arrived that are in clear already.
    clear: usize,
}

/// The upper half. It is small for a moment only, so the large variant is not boxed.
#[allow(clippy::large_enum_variant)]
enum Upper {
    /// A server that has not seen the client's first byte.
    Waiting(Waiting),
    /// Compression and version are known.
    Known(Known),
}

/// What a server keeps until it has seen the version.
#[derive(Default)]
struct Waiting {
    /// A compressed stream whose first chunk is not complete yet.
    decoder: Option<snappy::Decoder>,
}

struct Known {
    snappy: Option<Box<Snappy>>,
    mux: Mux,
}

/// Streams of one session. See the module's documentation.
pub struct Layer {
    settings: Settings,
    token: Option<u64>,
    upper: Upper,
    pads: HashMap<StreamId, Pad>,
    proven: bool,
    notices: Vec<Notice>,
}

/// A session without streams at rest.
struct AtRest {
    token: Option<u64>,
    protocol: Protocol,
    /// Of a compressed one: whether the identifiers have passed, ours and the peer's.
    identified: Option<(bool, bool)>,
    mux: mux::Rest,
}

impl Layer {
    fn known(
        settings: &Settings,
        token: Option<u64>,
        compression: bool,
        version: Version,
        now: Instant,
    ) -> Self {
        Self {
            upper: Upper::Known(known(settings, token, compression, version, now)),
            ..Self::unknown(settings, token)
        }
    }

    fn unknown(settings: &Settings, token: Option<u64>) -> Self {
        Self {
            settings: settings.clone(),
            token,
            upper: Upper::Waiting(Waiting::default()),
            pads: HashMap::new(),
            proven: false,
            notices: Vec::new(),
        }
    }

    fn mux(&self) -> Option<&Mux> {
        match &self.upper {
            Upper::Waiting(_) => None,
            Upper::Known(k) => Some(&k.mux),
        }
    }

    fn mux_mut(&mut self) -> Option<&mut Mux> {
        match &mut self.upper {
            Upper::Waiting(_) => None,
            Upper::Known(k) => Some(&mut k.mux),
        }
    }

    /// Compression and version are known from the client's first bytes.
    fn learn(
        &mut self,
        now: Instant,
        compression: bool,
        version: u8,
    ) -> Result<&mut Known, LayerError> {
        let v = match version {
            1 => Version::V1,
            2 => Version::V2,
            other => {
                return Err(LayerError::Malformed(format!(
                    "the first byte of the stream is {other:#04x}: neither compression nor a smux version"
                )));
            }
        };
        if version != self.settings.smux_version {
            self.notices.push(Notice::SmuxVersion {
                theirs: version,
                ours: self.settings.smux_version,
            });
        }
        if compression != self.settings.compression {
            self.notices.push(Notice::Compression {
                theirs: compression,
                ours: self.settings.compression,
            });
        }
        self.upper = Upper::Known(known(&self.settings, self.token, compression, v, now));
        match &mut self.upper {
            Upper::Known(k) => Ok(k),
            Upper::Waiting(_) => Err(LayerError::Malformed("no version".into())),
        }
    }

    /// The first bytes of a client.
    fn first_input(&mut self, now: Instant, bytes: &[u8]) -> Result<(), LayerError> {
        let Upper::Waiting(waiting) = &mut self.upper else {
            return Ok(());
        };
        let Some(&first) = bytes.first() else {
            return Ok(());
        };
        if waiting.decoder.is_none() && first != SNAPPY {
            self.learn(now, false, first)?;
            return self.handle_input(now, bytes);
        }
        // The version is the first byte that comes out of the decompressor, perhaps much later.
        let mut decoder = waiting.decoder.take().unwrap_or_default();
        let mut plain = Vec::new();
        decoder
            .decode(bytes, &mut |b| plain.extend_from_slice(b))
            .map_err(|e| LayerError::Malformed(e.to_string()))?;
        match plain.first() {
            None => {
                if let Upper::Waiting(waiting) = &mut self.upper {
                    waiting.decoder = Some(decoder);
                }
                Ok(())
            }
            Some(&version) => {
                let known = self.learn(now, true, version)?;
                if let Some(snappy) = &mut known.snappy {
                    snappy.decoder = decoder;
                }
                known.mux.handle_input(now, &plain).map_err(fault)?;
                self.after_input();
                Ok(())
            }
        }
    }

    fn after_input(&mut self) {
        if let Some(mux) = self.mux() {
            self.proven |= mux.counters().frames_received > 0;
        }
    }

    fn forget(&mut self, id: StreamId) {
        self.pads.remove(&id);
    }
}

fn known(
    settings: &Settings,
    token: Option<u64>,
    compression: bool,
    version: Version,
    now: Instant,
) -> Known {
    let role = if settings.server {
        Role::Acceptor
    } else {
        Role::Opener
    };
    let config = MuxConfig {
        max_frame: settings.frame_size.into(),
        session_buffer: settings.smux_buffer,
        stream_buffer: settings.stream_buffer,
        keepalive: settings.keep_alive,
        keepalive_timeout: KEEPALIVE_TIMEOUT,
        fin_hold: settings.fin_hold,
        token,
        // So that a stream has something whenever the pace lets it leave.
        features: if settings.auto.is_some() {
            Features::HALF_CLOSE.with(Features::ACK_RANGES)
        } else {
            Features::HALF_CLOSE
        },
        send_buffer: if settings.auto.is_some() {
            256 * 1024
        } else {
            MuxConfig::new(version, role).send_buffer
        },
        ..MuxConfig::new(version, role)
    };
    Known {
        snappy: compression.then(Box::default),
        mux: smux(config, now),
    }
}

/// The configuration has applied the same rules, so the first attempt succeeds; a session with upstream's defaults
/// beats none.
fn smux(config: MuxConfig, now: Instant) -> Mux {
    let defaults = MuxConfig::new(config.protocol, config.role);
    Mux::new(config, now)
        .or_else(|_| Mux::new(defaults, now))
        .expect("upstream's defaults keep upstream's rules")
}

fn fault(e: mux::Error) -> LayerError {
    muxed::fault(e, KEEPALIVE_TIMEOUT)
}

impl StreamLayer for Layer {
    fn wants_input(&self) -> bool {
        self.mux().is_none_or(Mux::wants_input)
    }

    fn handle_input(&mut self, now: Instant, bytes: &[u8]) -> Result<(), LayerError> {
        let Upper::Known(Known { snappy, mux }) = &mut self.upper else {
            return self.first_input(now, bytes);
        };
        match snappy {
            None => mux.handle_input(now, bytes).map_err(fault)?,
            Some(snappy) => {
                let mut outcome = Ok(());
                let decoded = snappy.decoder.decode(bytes, &mut |plain| {
                    if outcome.is_ok() {
                        outcome = mux.handle_input(now, plain);
                    }
                });
                outcome.map_err(fault)?;
                decoded.map_err(|e| LayerError::Malformed(e.to_string()))?;
            }
        }
        self.after_input();
        Ok(())
    }

    fn poll_output(
        &mut self,
        now: Instant,
        limit: u32,
        sink: &mut dyn FnMut(&[u8], Class),
    ) -> bool {
        let Upper::Known(Known { snappy, mux }) = &mut self.upper else {
            return false;
        };
        let Some(frame) = mux.poll_frame_within(now, limit) else {
            return false;
        };
        let class = frame.class();
        let mut sink = |piece: &[u8]| sink(piece, class);
        match snappy {
            None => frame
                .parts()
                .into_iter()
                .filter(|p| !p.is_empty())
                .for_each(sink),
            Some(snappy) => snappy.encoder.encode(&frame.parts(), &mut sink),
        }
        true
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.mux().and_then(Mux::poll_timeout)
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), LayerError> {
        let Upper::Known(Known { snappy, mux }) = &mut self.upper else {
            return Ok(());
        };
        if let Some(snappy) = snappy {
            // A few times a minute, as for the multiplexer's buffers.
            snappy.encoder.trim();
            snappy.decoder.trim();
        }
        muxed::handle_timeout(mux, now)
    }

    fn poll_event(&mut self) -> Option<StreamEvent> {
        match &mut self.upper {
            Upper::Waiting(_) => None,
            Upper::Known(k) => muxed::poll_event(&mut k.mux, &mut self.notices),
        }
    }

    fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop()
    }

    fn is_proven(&self) -> bool {
        self.proven
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
        let Self {
            upper: Upper::Known(Known { mux, .. }),
            settings,
            pads,
            ..
        } = self
        else {
            return Readable::Reset;
        };
        let Some(qpp) = &settings.qpp else {
            return muxed::read(mux, id);
        };
        if mux.readable(id) == 0 {
            return muxed::read(mux, id);
        }
        let pad = pads.entry(id).or_insert_with(|| Pad::new(qpp));
        let [head, _] = mux.read_chunks_mut(id);
        if let Some(fresh) = head.get_mut(pad.clear..) {
            pad.cipher.decrypt(fresh);
            pad.clear = head.len();
        }
        Readable::Bytes(head)
    }

    fn pieces<'a>(&'a self, id: StreamId, pieces: &mut [&'a [u8]]) -> usize {
        let Some(mux) = self.mux() else {
            return 0;
        };
        let found = muxed::pieces(mux, id, pieces);
        if self.settings.qpp.is_some()
            && let Some(piece) = pieces.first_mut().filter(|_| found > 0)
        {
            // Only what was shown is in clear.
            let clear = self.pads.get(&id).map_or(0, |pad| pad.clear);
            *piece = &piece[..clear.min(piece.len())];
            return 1;
        }
        found
    }

    fn consume(&mut self, now: Instant, id: StreamId, n: usize) {
        if let Some(pad) = self.pads.get_mut(&id) {
            pad.clear = pad.clear.saturating_sub(n);
        }
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
        let Self {
            upper: Upper::Known(Known { mux, .. }),
            settings,
            pads,
            ..
        } = self
        else {
            return;
        };
        if let Some(qpp) = &settings.qpp
            && let Ok(room) = mux.write_reserve(id, n)
            && let Some(fresh) = room.get_mut(..n)
        {
            // The same room again: what was written into it is still there.
            pads.entry(id)
                .or_insert_with(|| Pad::new(qpp))
                .cipher
                .encrypt(fresh);
        }
        // A stream that was closed meanwhile takes nothing.
        let _ = mux.write_commit(id, n);
    }

    fn finish(&mut self, now: Instant, id: StreamId) {
        if let Some(mux) = self.mux_mut() {
            mux.finish(now, id);
        }
    }

    fn reset(&mut self, _now: Instant, id: StreamId) {
        self.forget(id);
        if let Some(mux) = self.mux_mut() {
            mux.reset(id, mux::ResetReason::ABORTED);
        }
    }

    fn close(&mut self, now: Instant, id: StreamId) {
        self.forget(id);
        if let Some(mux) = self.mux_mut() {
            mux.close(now, id);
        }
    }

    fn shrink(&mut self) {
        if let Some(mux) = self.mux_mut() {
            muxed::shrink(mux);
        }
        if let Upper::Known(Known {
            snappy: Some(snappy),
            ..
        }) = &mut self.upper
        {
            snappy.encoder.trim();
            snappy.decoder.trim();
        }
        self.pads.shrink_to_fit();
        self.notices.shrink_to_fit();
    }

    fn stillness(&self) -> Stillness {
        match &self.upper {
            Upper::Waiting(_) => Stillness::Full,
            Upper::Known(known) if known.mux.streams() > 0 => Stillness::Streams,
            Upper::Known(Known { snappy, .. })
                if snappy.as_ref().is_some_and(|s| s.decoder.is_mid_chunk()) =>
            {
                Stillness::Full
            }
            Upper::Known(known) => muxed::stillness(&known.mux, self.notices.is_empty()),
        }
    }

    fn rest(self: Box<Self>) -> Rested {
        let Self { upper, token, .. } = *self;
        let rested = match upper {
            Upper::Waiting(_) => None,
            Upper::Known(Known { snappy, mux }) => Some(AtRest {
                token,
                protocol: mux.config().protocol,
                identified: snappy.map(|s| (s.encoder.is_identified(), s.decoder.is_identified())),
                mux: mux.rest(),
            }),
        };
        Rested {
            timeout: rested.as_ref().map(|r| r.mux.poll_timeout()),
            state: Box::new(rested),
        }
    }

    fn resume(mut self: Box<Self>, now: Instant, rested: Rested) -> Box<dyn StreamLayer> {
        if let Ok(rested) = rested.state.downcast::<Option<AtRest>>()
            && let Some(rested) = *rested
        {
            let version = match rested.protocol {
                Protocol::Smux(version) => version,
                Protocol::Yamux => Version::V2,
            };
            let compression = rested.identified.is_some();
            let mut known = known(&self.settings, rested.token, compression, version, now);
            known.mux.resume(rested.mux);
            if let (Some(snappy), Some((encoder, decoder))) = (&mut known.snappy, rested.identified)
            {
                snappy.encoder = snappy::Encoder::resumed(encoder);
                snappy.decoder = snappy::Decoder::resumed(decoder);
            }
            self.token = rested.token;
            self.upper = Upper::Known(known);
            self.proven = true;
        }
        self
    }

    fn progress(&self, id: StreamId) -> Option<Progress> {
        muxed::progress(self.mux()?, id)
    }
}

impl Pad {
    fn new(pads: &qpp::Pads) -> Self {
        Self {
            cipher: pads.stream(),
            clear: 0,
        }
    }
}
