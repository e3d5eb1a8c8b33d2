//! Settings of both ends, as the program would build them from its configuration.

use std::num::NonZeroU16;
use std::sync::OnceLock;
use std::time::Duration;

use fulmar_arq::Profile;
use fulmar_cipher::{
    LibevKey, MasterKey, NonceSource, NonceSpace, PacketCipher, Prober, Scheme, derive_key,
    kcptun2016_key,
};
use fulmar_codec::qpp;
use fulmar_session::admission::Limits;
use fulmar_session::dialect::kcptun::{Kcptun, Settings};
use fulmar_session::dialect::kcptun2016::{self as kcptun2016_dialect, Kcptun2016, Vectors};
use fulmar_session::dialect::libev::control::{self, Control};
use fulmar_session::dialect::libev::{self as libev_dialect, Libev};
use fulmar_session::measuring;
use fulmar_session::transmit::Path;
use fulmar_session::{Endpoint, SessionKey};
use fulmar_wire::kcptun::Method;
use fulmar_wire::kcptun2016::{self, Variant};
use fulmar_wire::libev;
use fulmar_wire::time::Instant;

/// The key that most tests use.
pub(crate) const KEY: &str = "it's a secrect";
/// Another one.
pub(crate) const OTHER_KEY: &str = "another secret";

/// What is spoken.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Wire {
    /// Today's kcptun.
    Kcptun,
    /// kcptun-libev, sealed like this.
    Libev(libev::Method),
    /// kcptun of spring 2016, and whether a client encrypts the stream where its variant leaves the choice.
    First(Variant, bool),
}

/// Every way to speak kcptun of spring 2016. BT with an encrypted stream has B's bytes.
const FIRST: [Wire; 5] = [
    Wire::First(Variant::A, false),
    Wire::First(Variant::B, false),
    Wire::First(Variant::C, false),
    Wire::First(Variant::C, true),
    Wire::First(Variant::Bt, false),
];

/// What one end is configured with; the defaults are upstream's.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) key: &'static str,
    pub(crate) method: Method,
    /// `--crypt auto`: a server takes any method.
    pub(crate) auto: bool,
    pub(crate) profile: Profile,
    pub(crate) fec: Option<(usize, usize)>,
    pub(crate) smux: u8,
    pub(crate) compression: bool,
    pub(crate) qpp: bool,
    pub(crate) mtu: usize,
    pub(crate) snd_wnd: u32,
    pub(crate) rcv_wnd: u32,
    pub(crate) ack_no_delay: bool,
    pub(crate) rate_limit: Option<u64>,
    /// `--mode auto`.
    pub(crate) sender: Option<measuring::Settings>,
    pub(crate) frame_size: u16,
    pub(crate) smux_buffer: u32,
    pub(crate) stream_buffer: u32,
    pub(crate) keep_alive: Duration,
    pub(crate) limits: Limits,
    pub(crate) wire: Wire,
    /// `timeout` and `linger` of kcptun-libev.
    pub(crate) patience: (Duration, Duration),
    /// Whether tokens are given, by which the end of a session can be told. Without them it is a Fulmar of before.
    pub(crate) tokens: bool,
}

impl Options {
    /// A client with upstream's defaults, without compression.
    pub(crate) fn client() -> Self {
        Self {
            key: KEY,
            method: Method::Aes,
            auto: false,
            profile: Profile::FAST,
            fec: Some((10, 3)),
            smux: 2,
            compression: false,
            qpp: false,
            mtu: 1350,
            snd_wnd: 128,
            rcv_wnd: 512,
            ack_no_delay: false,
            rate_limit: None,
            sender: None,
            frame_size: 8192,
            smux_buffer: 4 << 20,
            stream_buffer: 2 << 20,
            keep_alive: Duration::from_secs(10),
            limits: Limits::default(),
            wire: Wire::Kcptun,
            patience: (Duration::from_secs(600), Duration::from_secs(30)),
            tokens: true,
        }
    }

    /// Both ends speaking kcptun-libev: with its defaults, or in mode auto.
    pub(crate) fn libev(method: libev::Method, measuring: bool) -> (Self, Self) {
        let end = Self {
            wire: Wire::Libev(method),
            profile: Profile::new(1, 100, 0, false),
            fec: None,
            mtu: 1400,
            snd_wnd: 256,
            rcv_wnd: 256,
            ..Self::client()
        };
        let end = if measuring {
            Self {
                rcv_wnd: 6000,
                ..end.measuring()
            }
        } else {
            end
        };
        (end.clone(), end)
    }

    /// Both ends with the defaults of each way to speak kcptun of spring 2016, or in mode auto.
    pub(crate) fn first(measuring: bool) -> Vec<(Self, Self)> {
        let end = Self {
            profile: Profile::new(1, 10, 2, false),
            fec: None,
            mtu: 1400,
            rcv_wnd: 1024,
            frame_size: 32_768,
            ..Self::client()
        };
        let pair = |wire| {
            let client = Self {
                wire,
                ..end.clone()
            };
            let server = Self {
                snd_wnd: 1024,
                ..client.clone()
            };
            if measuring {
                (client.measuring(), server.measuring())
            } else {
                (client, server)
            }
        };
        FIRST.into_iter().map(pair).collect()
    }

    /// Both ends with the defaults of each dialect that has many streams in a session, or in mode auto: what a scenario that is about
    /// sessions and streams has to hold for.
    pub(crate) fn dialects(measuring: bool) -> Vec<(Self, Self)> {
        let (client, server) = Self::ends(measuring);
        let older = |end: &Self| Self {
            smux: 1,
            ..end.clone()
        };
        let mut all = vec![(older(&client), older(&server)), (client, server)];
        all.extend(Self::first(measuring));
        all
    }

    /// The same of one for each family of them, where a scenario takes long.
    pub(crate) fn families(measuring: bool) -> Vec<(Self, Self)> {
        let readme = Self::first(measuring).into_iter().nth(1);
        std::iter::once(Self::ends(measuring))
            .chain(readme)
            .collect()
    }

    /// How long this end takes at least and at most to give up a peer that says nothing.
    pub(crate) fn silence(&self) -> std::ops::RangeInclusive<Duration> {
        let secs = Duration::from_secs;
        match self.wire {
            // From the last keep-alive that arrived.
            _ if self.tokens => secs(105)..=secs(122),
            Wire::First(..) => secs(20)..=secs(81),
            _ => secs(20)..=secs(61),
        }
    }

    /// Whether it speaks kcptun of spring 2016.
    pub(crate) const fn is_first(&self) -> bool {
        matches!(self.wire, Wire::First(..))
    }

    /// What it speaks, for messages.
    pub(crate) fn dialect(&self) -> String {
        match self.wire {
            Wire::Kcptun => format!("kcptun, smux {}", self.smux),
            other => format!("{other:?}"),
        }
    }

    /// The same in mode auto, with the defaults of that.
    pub(crate) fn measuring(self) -> Self {
        Self {
            profile: Profile::new(1, 10, 0, false),
            fec: None,
            snd_wnd: 65_535,
            rcv_wnd: 44_739,
            smux_buffer: 64 << 20,
            stream_buffer: 64 << 20,
            sender: Some(measuring::Settings {
                redundancy: 25,
                parity: true,
                mtu: self.mtu,
                known: 0,
            }),
            ..self
        }
    }

    /// A client and a server, with upstream's defaults or in mode auto.
    pub(crate) fn ends(measuring: bool) -> (Self, Self) {
        let (client, server) = (Self::client(), Self::server());
        if measuring {
            (client.measuring(), server.measuring())
        } else {
            (client, server)
        }
    }

    /// A server with upstream's defaults, without compression.
    pub(crate) fn server() -> Self {
        Self {
            snd_wnd: 1024,
            rcv_wnd: 1024,
            ..Self::client()
        }
    }

    fn settings(&self, server: bool) -> Settings {
        Settings {
            server,
            mtu: self.mtu,
            profile: self.profile,
            snd_wnd: self.snd_wnd,
            rcv_wnd: self.rcv_wnd,
            ack_no_delay: self.ack_no_delay,
            fec: self.fec,
            smux_version: self.smux,
            smux_buffer: self.smux_buffer,
            frame_size: self.frame_size,
            stream_buffer: self.stream_buffer,
            keep_alive: self.keep_alive,
            fin_hold: Duration::from_secs(30),
            compression: self.compression,
            qpp: self.qpp.then(|| pads(self.key)),
            rate_limit: self.rate_limit,
            auto: self.sender,
        }
    }

    pub(crate) fn master_key(&self) -> MasterKey {
        master_key(self.key)
    }

    /// The cipher of this end. `seed` makes its nonces.
    pub(crate) fn cipher(&self, method: Method, seed: u64) -> Box<dyn PacketCipher> {
        if let Wire::First(..) = self.wire {
            return self.first_cipher(self.first_methods(false)[0], nonces(seed));
        }
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8] = method.name().len() as u8 ^ method.name().as_bytes()[0];
        fulmar_cipher::kcptun(method, &self.master_key(), NonceSource::seeded(bytes))
    }

    /// The endpoint of a server.
    pub(crate) fn build_server(&self, seed: u64) -> Endpoint {
        self.build_server_of(&NonceSpace::new(seed_bytes(seed)), seed)
    }

    /// An endpoint of a service whose ciphers all have their nonces from `space`.
    pub(crate) fn build_server_of(&self, space: &NonceSpace, seed: u64) -> Endpoint {
        match self.wire {
            Wire::Kcptun => {}
            Wire::Libev(method) => {
                let place = control::Place::Bound;
                let dialect = self.libev_dialect(method, place, seed, Instant::ZERO);
                let cipher = fulmar_cipher::libev(method, &libev_key(), space.source());
                return Endpoint::server(dialect, vec![cipher], self.limits);
            }
            Wire::First(..) => {
                let dialect = Box::new(self.first_dialect(true, seed));
                let methods = self.first_methods(true).iter();
                let ciphers = methods.map(|&m| self.first_cipher(m, space.source()));
                let ciphers = ciphers.collect();
                return Endpoint::server(dialect, ciphers, self.limits);
            }
        }
        let methods = if self.auto {
            Method::ALL.to_vec()
        } else {
            vec![self.method]
        };
        let key = self.master_key();
        let cipher = |method: &Method| fulmar_cipher::kcptun(*method, &key, space.source());
        let ciphers = methods.iter().map(cipher).collect();
        let dialect = self.kcptun_dialect(true, seed);
        Endpoint::server(Box::new(dialect), ciphers, self.limits)
    }

    /// The endpoint of a client, with its session.
    pub(crate) fn build_client(
        &self,
        path: Path,
        conv: u32,
        seed: u64,
        now: Instant,
    ) -> (Endpoint, Option<SessionKey>) {
        match self.wire {
            Wire::Kcptun => {}
            Wire::Libev(method) => {
                let servers = vec![path.remote];
                let place = control::Place::Client { servers };
                let dialect = self.libev_dialect(method, place, seed, now);
                return (Endpoint::opener(dialect, libev_cipher(method, seed)), None);
            }
            Wire::First(variant, tuncrypt) => {
                let mut random = [0; 32];
                nonces(seed ^ 1).fill(&mut random);
                let vectors = Vectors::new(variant, tuncrypt, random);
                let (endpoint, key) = self.build_first(path, conv, seed, vectors, now);
                return (endpoint, Some(key));
            }
        }
        let mut dialect = self.kcptun_dialect(false, seed);
        let parts = dialect.open(path, conv, self.method, now);
        let cipher = self.cipher(self.method, seed);
        let (endpoint, key) = Endpoint::client(Box::new(dialect), cipher, parts, now);
        (endpoint, Some(key))
    }

    /// The endpoint of a client of spring 2016, with its session that begins like this.
    pub(crate) fn build_first(
        &self,
        path: Path,
        conv: u32,
        seed: u64,
        vectors: Vectors,
        now: Instant,
    ) -> (Endpoint, SessionKey) {
        let mut dialect = self.first_dialect(false, seed);
        let parts = dialect.open(path, conv, vectors, now);
        let cipher = self.first_cipher(self.first_methods(false)[0], nonces(seed));
        Endpoint::client(Box::new(dialect), cipher, parts, now)
    }

    fn kcptun_dialect(&self, server: bool, seed: u64) -> Kcptun {
        let dialect = Kcptun::new(self.settings(server), self.master_key());
        if self.tokens {
            dialect.with_tokens(nonces(seed ^ 2))
        } else {
            dialect
        }
    }

    fn first_dialect(&self, server: bool, seed: u64) -> Kcptun2016 {
        let settings = kcptun2016_dialect::Settings {
            server,
            methods: self.first_methods(server),
            mtu: self.mtu,
            profile: self.profile,
            snd_wnd: self.snd_wnd,
            rcv_wnd: self.rcv_wnd,
            ack_no_delay: self.ack_no_delay,
            mux_buffer: self.smux_buffer,
            frame_size: self.frame_size,
            stream_buffer: self.stream_buffer,
            keep_alive: self.keep_alive,
            fin_hold: Duration::from_secs(30),
            rate_limit: self.rate_limit,
            auto: self.sender,
        };
        let key = kcptun2016_key(self.key.as_bytes());
        let mut prober = Prober::new(&self.master_key(), &Method::ALL);
        let probe = move |datagram: &[u8]| prober.probe(datagram).map(Scheme::Kcptun);
        let dialect = Kcptun2016::new(settings, key, Box::new(probe));
        if self.tokens {
            dialect.with_tokens(nonces(seed ^ 2))
        } else {
            dialect
        }
    }

    /// What protects packets of spring 2016.
    fn first_methods(&self, server: bool) -> &'static [kcptun2016::Method] {
        use kcptun2016::Method::{Plain, Sealed};
        match self.wire {
            _ if !self.key.is_empty() => &[Sealed],
            _ if server => &[Sealed, Plain],
            Wire::First(variant, _) if variant.without_key() == Plain => &[Plain],
            _ => &[Sealed],
        }
    }

    fn first_cipher(
        &self,
        method: kcptun2016::Method,
        nonces: NonceSource,
    ) -> Box<dyn PacketCipher> {
        let key = kcptun2016_key(self.key.as_bytes());
        fulmar_cipher::kcptun2016(method, &key, nonces)
    }

    fn libev_dialect(
        &self,
        method: libev::Method,
        place: control::Place,
        seed: u64,
        now: Instant,
    ) -> Box<Libev> {
        let client = matches!(place, control::Place::Client { .. });
        let settings = control::Settings {
            place,
            keepalive: Some(Duration::from_secs(25)),
            timeout: self.patience.0,
            seed,
            allow_loopback: false,
        };
        let control = Control::new(settings, now);
        let settings = libev_dialect::Settings {
            role: if client {
                libev_dialect::Role::Client
            } else {
                libev_dialect::Role::Server
            },
            method,
            carrier: libev::Carrier::Udp,
            ip_mtu: self.mtu,
            profile: self.profile,
            snd_wnd: self.snd_wnd,
            rcv_wnd: self.rcv_wnd,
            write_delay: false,
            ack_no_delay: self.ack_no_delay,
            auto: self.sender,
            timeout: self.patience.0,
            linger: self.patience.1,
            time_wait: Duration::from_secs(120),
            receive_buffer: 256 * 1024,
            hold_end: false,
        };
        let probe = |datagram: &[u8]| fulmar_cipher::libev_probe(&libev_key(), datagram);
        let dialect = Libev::new(settings, control, seed, Box::new(probe));
        Box::new(dialect.with_clocks(nonces(seed ^ 2)))
    }
}

fn libev_key() -> LibevKey {
    LibevKey::from_password(b"golden")
}

/// The cipher of one end. `seed` makes its nonces.
pub(crate) fn libev_cipher(method: libev::Method, seed: u64) -> Box<dyn PacketCipher> {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    fulmar_cipher::libev(method, &libev_key(), NonceSource::seeded(bytes))
}

fn nonces(seed: u64) -> NonceSource {
    NonceSource::seeded(seed_bytes(seed))
}

fn seed_bytes(seed: u64) -> [u8; 32] {
    let mut bytes = [9; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes
}

/// Derivation takes milliseconds, so each key is derived once.
fn master_key(password: &'static str) -> MasterKey {
    static KEYS: [OnceLock<MasterKey>; 3] = [const { OnceLock::new() }; 3];
    let place = match password {
        KEY => &KEYS[0],
        OTHER_KEY => &KEYS[1],
        "" => &KEYS[2],
        _ => return derive_key(password.as_bytes()),
    };
    place
        .get_or_init(|| derive_key(password.as_bytes()))
        .clone()
}

fn pads(password: &'static str) -> qpp::Pads {
    static PADS: OnceLock<qpp::Pads> = OnceLock::new();
    let make = || {
        let count = NonZeroU16::new(61).expect("not zero");
        qpp::Pads::new(password.as_bytes(), count, qpp::Generation::Current)
    };
    if password == KEY {
        PADS.get_or_init(make).clone()
    } else {
        make()
    }
}
