//! From the configuration to endpoints: what a session of this process is built from.

use std::num::NonZeroU16;

use fulmar_cipher::{MasterKey, NonceSource};
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
    methods: Vec<Method>,
    settings: Settings,
    /// The wire format of spring 2016 instead.
    first: Option<first::Link>,
    password: fulmar_config::Key,
}

impl Link {
    /// Derives the keys; takes a few milliseconds, more with QPP.
    pub(crate) fn new(config: &Config) -> Self {
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
            password: t.key.clone(),
            key: fulmar_cipher::derive_key(t.key.as_bytes()),
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

    /// The endpoint of a server's socket, one of `drivers` on its port. They share what is limited in all; what is limited for
    /// each address they do not.
    pub(crate) fn server(&self, seed: [u8; 32], drivers: usize) -> Endpoint {
        let ciphers = self
            .methods
            .iter()
            .enumerate()
            .map(|(i, &m)| {
                fulmar_cipher::kcptun(m, &self.key, NonceSource::seeded(nonce_seed(seed, i)))
            })
            .collect();
        let limits = admission::Limits::default();
        let limits = admission::Limits {
            unproven: limits.unproven / drivers.max(1),
            sessions: limits.sessions / drivers.max(1),
            ..limits
        };
        if let Some(first) = &self.first {
            let dialect = first.dialect(&self.key).with_tokens(tokens(seed));
            return Endpoint::server(Box::new(dialect), first.ciphers(seed), limits);
        }
        let dialect = self.dialect().with_tokens(tokens(seed));
        Endpoint::server(Box::new(dialect), ciphers, limits)
    }

    fn dialect(&self) -> Kcptun {
        Kcptun::new(self.settings.clone(), self.key.clone())
            .beside(first::probe(self.password.as_bytes()))
    }

    /// The endpoint of a client's socket, with its one session.
    pub(crate) fn client(
        &self,
        path: Path,
        conv: u32,
        seed: [u8; 32],
        now: Instant,
    ) -> (Endpoint, SessionKey) {
        if let Some(first) = &self.first {
            let mut dialect = first.dialect(&self.key).with_tokens(tokens(seed));
            let parts = dialect.open(path, conv, first.vectors(nonce_seed(seed, 1)), now);
            return Endpoint::client(Box::new(dialect), first.cipher(seed), parts, now);
        }
        let method = self.methods[0];
        let cipher = fulmar_cipher::kcptun(method, &self.key, NonceSource::seeded(seed));
        let mut dialect = self.dialect().with_tokens(tokens(seed));
        let parts = dialect.open(path, conv, method, now);
        Endpoint::client(Box::new(dialect), cipher, parts, now)
    }
}

/// What tokens are drawn from: with a seed of its own, as nonces are public.
fn tokens(seed: [u8; 32]) -> NonceSource {
    NonceSource::seeded(nonce_seed(seed, usize::MAX))
}

/// Ciphers of one socket seal with one key, so their nonces must not follow the same sequence.
fn nonce_seed(mut seed: [u8; 32], index: usize) -> [u8; 32] {
    seed[0] ^= u8::try_from(index).unwrap_or(u8::MAX);
    seed
}
