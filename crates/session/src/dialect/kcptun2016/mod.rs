//! kcptun as it was in spring 2016 (docs/spec/kcptun2016.md): yamux streams, encrypted once more in most variants, over KCP in message
//! mode; no parity, no compression.
//!
//! | module | what |
//! |---|---|
//! | `layer` | the two ends of a session as streams |
//! | `vectors` | what a client's first message means, and how a server finds out |
//!
//! # A server adapts
//! Four neighbouring states of the program differ in the first message of a client: its length, and whether the first frame behind it
//! is encrypted, tell which one speaks (section 8). Until that is known a server says nothing. What tells a session
//! from a recording, and who may move it, is as in today's kcptun: a conversation is drawn at random and begins once.

mod layer;
mod vectors;

use core::time::Duration;

use fulmar_arq::{self as arq, Kcp};
use fulmar_cipher::{MasterKey, NonceSource, PacketCipher, Scheme, Verdict};
use fulmar_wire::kcp::HEADER_LEN;
use fulmar_wire::kcptun::MIN_KCP_MTU;
use fulmar_wire::kcptun2016::{MAX_FRAGMENTS, Method};
use fulmar_wire::time::Instant;

use crate::admission::{self, Body, Peek};
use crate::dialect::muxed::Tokens;
use crate::dialect::{Dialect, Probe, Stranger};
use crate::measuring;
use crate::session::Parts;
use crate::transmit::Path;

use layer::Layer;
pub use vectors::Vectors;

/// Bytes of headers below a UDP payload, with IPv4.
const IP_UDP_HEADERS: usize = 28;
/// How long a client of that time may say nothing after its first message: it pings every 30 s, and its answer may take 10 s more
/// (section 9).
const PATIENCE: Duration = Duration::from_secs(45);

/// What sessions of this dialect are built from. Ranges are checked by the configuration; see there for defaults.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether we are the server: peers open sessions and streams.
    pub server: bool,
    /// What protects packets: one method, or all that a server takes, in the order of its endpoint's ciphers.
    pub methods: &'static [Method],
    /// Largest UDP payload, bytes (`--mtu`).
    pub mtu: usize,
    /// KCP's four numbers (`--mode`).
    pub profile: arq::Profile,
    /// Send window, segments.
    pub snd_wnd: u32,
    /// Receive window, segments.
    pub rcv_wnd: u32,
    /// Whether acknowledgements leave at once.
    pub ack_no_delay: bool,
    /// Receive buffer of a session, bytes.
    pub mux_buffer: u32,
    /// Largest payload of a frame that we send, bytes.
    pub frame_size: u16,
    /// Receive window of a stream, bytes; at least yamux's 262,144.
    pub stream_buffer: u32,
    /// Time between our pings.
    pub keep_alive: Duration,
    /// How long a client holds a half-close back from a server that would drop the answer.
    pub fin_hold: Duration,
    /// Bytes of UDP payload per second and session.
    pub rate_limit: Option<u64>,
    /// The sender measures the path (`--mode auto`); then [`Self::profile`] only says how long acknowledgements wait at most. There is no
    /// parity here, whatever it says.
    pub auto: Option<measuring::Settings>,
}

/// Builds sessions of this dialect.
pub struct Kcptun2016 {
    settings: Settings,
    key: MasterKey,
    probe: Probe,
    /// Made when it is needed first, to find the method of a datagram.
    sealed: Option<Box<dyn PacketCipher>>,
    /// What Fulmar peers have to say to be believed that they have ended a session.
    tokens: Option<Tokens>,
}

impl Kcptun2016 {
    /// Sessions with `settings` and `key`, which encrypts streams; packets are the endpoint's matter.
    #[must_use]
    pub fn new(settings: Settings, key: MasterKey, probe: Probe) -> Self {
        Self {
            settings,
            key,
            probe,
            sealed: None,
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

    /// The parts of a session that we open.
    #[must_use]
    pub fn open(&mut self, path: Path, conv: u32, vectors: Vectors, now: Instant) -> Parts {
        let token = self.tokens.as_mut().map(Tokens::draw);
        let layer = Layer::client(&self.settings, &self.key, token, vectors, now);
        self.parts(path, conv, 0, layer)
    }

    fn parts(&mut self, path: Path, conv: u32, cipher: usize, layer: Layer) -> Parts {
        let clock = self.tokens.as_mut().map_or(0, Tokens::draw_clock);
        let s = &self.settings;
        let method = s.methods.get(cipher).copied().unwrap_or(Method::Sealed);
        // The configuration refuses an MTU that leaves too little.
        let mtu = method.kcp_mtu(s.mtu).unwrap_or(MIN_KCP_MTU);
        let config = arq::Config {
            mtu,
            overhead: HEADER_LEN + method.front() + IP_UDP_HEADERS,
            copies: s.auto.is_some_and(|a| a.redundancy > 0),
            strategy: match s.auto {
                Some(_) => arq::StrategyKind::Auto,
                None => arq::StrategyKind::Classic,
            },
            profile: s.profile,
            snd_wnd: s.snd_wnd,
            rcv_wnd: s.rcv_wnd,
            ack_no_delay: s.ack_no_delay,
            max_fragments: MAX_FRAGMENTS,
            measure_repairs: false,
            clock,
            ..arq::Config::default()
        };
        Parts {
            kcp: Kcp::new(conv, config),
            encoder: None,
            decoder: None,
            layer: Box::new(layer),
            path,
            cipher,
            rate_limit: s.rate_limit,
            padding: None,
            silence: None,
            thrifty: false,
            watches_quiet: !s.server,
            measuring: s.auto.map(|a| measuring::Settings { parity: false, ..a }),
        }
    }
}

fn peek(body: &[u8]) -> Option<Peek> {
    admission::peek(body).filter(|peek| matches!(peek.body, Body::Plain | Body::Ended))
}

impl Dialect for Kcptun2016 {
    fn peek(&self, body: &[u8]) -> Option<Peek> {
        peek(body)
    }

    fn accept(&mut self, now: Instant, stranger: Stranger) -> Parts {
        let token = self.tokens.as_mut().map(Tokens::draw);
        let layer = Layer::server(&self.settings, &self.key, token, now);
        self.parts(stranger.path, stranger.conv, stranger.cipher, layer)
    }

    fn probe(&mut self, datagram: &[u8]) -> Option<Scheme> {
        match self.method_of(datagram) {
            Some(method) => Some(Scheme::Kcptun2016(method)),
            None => (self.probe)(datagram),
        }
    }
}

impl Kcptun2016 {
    /// Which of our methods a stranger's datagram is protected with. With a single one the endpoint does not ask before it has tried.
    fn method_of(&mut self, datagram: &[u8]) -> Option<Method> {
        let methods = self.settings.methods;
        let mut opens = |method| match method {
            Method::Plain => peek(datagram).is_some_and(|peek| peek.opens),
            Method::Sealed => {
                let cipher = self.sealed.get_or_insert_with(|| {
                    fulmar_cipher::kcptun2016(method, &self.key, NonceSource::fixed(Vec::new()))
                });
                let mut verdicts = Vec::new();
                cipher.open(&mut datagram.to_vec(), 0, &mut verdicts);
                verdicts == [Verdict::Ok]
            }
        };
        methods.iter().copied().find(|&method| opens(method))
    }
}
