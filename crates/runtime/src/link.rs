//! From the configuration to endpoints: what a session of this process is built from.

use std::num::NonZeroU16;

use fulmar_cipher::{MasterKey, NonceSpace};
use fulmar_codec::qpp;
use fulmar_config::{Config, Crypt, QppGeneration, Role};
use fulmar_session::dialect::kcptun::{Kcptun, Settings};
use fulmar_session::measuring;
use fulmar_session::transmit::Path;
use fulmar_session::{Endpoint, SessionKey, admission};
use fulmar_wire::kcptun::Method;
use fulmar_wire::time::Instant;

mod first;

/// What all sessions of this process share: keys and settings.
pub(crate) struct Link {
    key: MasterKey,
    nonces: NonceSpace,
    methods: Vec<Method>,
    settings: Settings,
    /// The wire format of spring 2016 instead.
    first: Option<first::Link>,
    /// What the same password makes in spring 2016.
    past: MasterKey,
}

impl Link {
    /// Derives the keys; takes a few milliseconds, more with QPP. `config` needs its passphrase no more then.
    pub(crate) fn new(config: &Config, nonces: NonceSpace) -> Self {
        let t = &config.tunnel;
        let qpp = t.qpp.as_ref().and_then(|q| {
            let generation = match q.generation {
                QppGeneration::Current => qpp::Generation::Current,
                QppGeneration::V20251219 => qpp::Generation::V20251219,
                QppGeneration::V2024 => qpp::Generation::V2024,
            };
            NonZeroU16::new(q.count)
                .map(|count| qpp::Pads::new(t.key.as_bytes(), count, generation))
        });
        let methods = match t.crypt {
            Crypt::Method(method) => vec![method],
            // Not those that need no key: whoever asks would be let in.
            Crypt::Auto => Method::ALL
                .into_iter()
                .filter(|m| !m.is_plaintext())
                .collect(),
        };
        let server = matches!(config.role, Role::Server(_));
        let mut link = Self {
            first: None,
            past: fulmar_cipher::kcptun2016_key(t.key.as_bytes()),
            key: fulmar_cipher::derive_key(t.key.as_bytes()),
            nonces,
            methods,
            settings: Settings {
                server,
                mtu: t.mtu,
                profile: fulmar_session::arq::Profile::new(
                    u32::from(t.nodelay),
                    u32::try_from(t.interval.as_millis()).unwrap_or(u32::MAX),
                    t.resend,
                    t.congestion_control,
                ),
                snd_wnd: t.snd_wnd,
                rcv_wnd: t.rcv_wnd,
                ack_no_delay: t.ack_no_delay,
                fec: t.fec.map(|s| (usize::from(s.data), usize::from(s.parity))),
                smux_version: t.smux.version,
                smux_buffer: t.smux.buffer,
                frame_size: t.smux.frame_size,
                stream_buffer: t.smux.stream_buffer,
                keep_alive: t.smux.keep_alive,
                fin_hold: if t.close_wait_explicit {
                    t.close_wait
                } else {
                    std::time::Duration::from_secs(30)
                },
                compression: t.compression,
                qpp,
                rate_limit: t.rate_limit,
                auto: t.auto.map(|a| measuring::Settings {
                    redundancy: a.redundancy,
                    parity: a.parity && a.redundancy > 0,
                    mtu: t.mtu,
                    known: 0,
                }),
            },
        };
        link.first = first::Link::new(config, &link.settings);
        link
    }

    /// The same service with another configuration: it still knows what it has sent.
    pub(crate) fn renewed(&self, config: &Config) -> Self {
        Self::new(config, self.nonces.clone())
    }

    /// The endpoint of a server's socket, one of `drivers` on its port. They share what is limited in all; what is limited for
    /// each address they do not.
    pub(crate) fn server(&self, drivers: usize) -> Endpoint {
        let cipher = |&method| fulmar_cipher::kcptun(method, &self.key, self.nonces.source());
        let ciphers = self.methods.iter().map(cipher).collect();
        let limits = admission::Limits::default();
        let limits = admission::Limits {
            unproven: limits.unproven / drivers.max(1),
            sessions: limits.sessions / drivers.max(1),
            resting: limits.resting / drivers.max(1),
            full: limits.full / drivers.max(1),
            stubs: limits.stubs / drivers.max(1),
            ..limits
        };
        if let Some(first) = &self.first {
            let dialect = first.dialect(&self.key).with_tokens(self.nonces.source());
            return Endpoint::server(Box::new(dialect), first.ciphers(&self.nonces), limits);
        }
        let dialect = self.dialect().with_tokens(self.nonces.source());
        Endpoint::server(Box::new(dialect), ciphers, limits)
    }

    fn dialect(&self) -> Kcptun {
        Kcptun::new(self.settings.clone(), self.key.clone()).beside(first::probe(&self.past))
    }

    /// The endpoint of a client's socket, with its one session.
    pub(crate) fn client(&self, path: Path, conv: u32, now: Instant) -> (Endpoint, SessionKey) {
        if let Some(first) = &self.first {
            let mut dialect = first.dialect(&self.key).with_tokens(self.nonces.source());
            let parts = dialect.open(path, conv, first.vectors(&self.nonces), now);
            return Endpoint::client(Box::new(dialect), first.cipher(&self.nonces), parts, now);
        }
        let method = self.methods[0];
        let cipher = fulmar_cipher::kcptun(method, &self.key, self.nonces.source());
        let mut dialect = self.dialect().with_tokens(self.nonces.source());
        let parts = dialect.open(path, conv, method, now);
        Endpoint::client(Box::new(dialect), cipher, parts, now)
    }
}
