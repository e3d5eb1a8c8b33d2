//! From the configuration to an endpoint.

use std::time::Duration;

use fulmar_cipher::{LibevKey, NonceSpace, PacketCipher};
use fulmar_config::libev::{Crypto, LibevConfig, LibevRole, Mode, Place, Secret};
use fulmar_session::admission::Limits;
use fulmar_session::dialect::libev::control::{self, Control};
use fulmar_session::dialect::libev::{Libev, Role, Settings};
use fulmar_session::{Endpoint, arq, measuring};
use fulmar_wire::libev::{Carrier, Method};
use fulmar_wire::time::Instant;

use super::Addrs;
use crate::Error;
use crate::open::{self, Random};

/// Bytes of a stream that wait for a slow reader beside KCP's window.
const RECEIVE_BUFFER: usize = 256 * 1024;
/// Share of [`Ours::memory`](fulmar_config::libev::Ours) that one stream may hold in KCP's window: here a session is one
/// stream, and a client has many.
const MEMORY_SHARE: usize = 4;
/// Sessions of one address: a site behind one NAT.
const SESSIONS_PER_IP: usize = 32_768;
/// Unproven ones: the first datagram proves an honest client's, so these are few.
const UNPROVEN_PER_IP: usize = 256;

/// What all sessions of a process share: the key, which a reload does not change.
pub(super) struct Link {
    method: Method,
    key: Option<LibevKey>,
    nonces: NonceSpace,
}

impl Link {
    /// Derives the key.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub(super) fn new(config: &LibevConfig) -> Result<Self, Error> {
        let key = match &config.crypto {
            Crypto::Plain => None,
            Crypto::Sealed { secret, .. } => Some(match secret {
                Secret::Password(password) => LibevKey::from_password(password.as_bytes()),
                Secret::Psk(psk) => LibevKey::from_bytes(*psk.as_bytes()),
            }),
        };
        Ok(Self {
            method: config.crypto.method(),
            key,
            nonces: open::nonces()?,
        })
    }

    /// `new` with what a reload never changes as in `old` (docs/spec/kcptun-libev.md, section 3.4).
    pub(super) fn keep(&self, old: &LibevConfig, mut new: LibevConfig) -> LibevConfig {
        new.crypto = old.crypto.clone();
        new.obfs = old.obfs;
        new.http_listen.clone_from(&old.http_listen);
        new.user.clone_from(&old.user);
        if let (LibevRole::Client { listen, .. }, LibevRole::Client { listen: was, .. }) =
            (&mut new.role, &old.role)
        {
            listen.clone_from(was);
        }
        new
    }

    /// What sessions are built from.
    pub(super) fn settings(&self, config: &LibevConfig) -> Settings {
        let kcp = &config.kcp;
        let auto = config.ours.mode == Mode::Auto;
        let segment = usize::from(kcp.mtu);
        let window = config.ours.memory / MEMORY_SHARE / (2 * segment);
        let measured = u32::try_from(window)
            .unwrap_or(u32::MAX)
            .clamp(1024, arq::MAX_WINDOW);
        Settings {
            role: match config.role {
                LibevRole::Client { .. } => Role::Client,
                LibevRole::Server { .. } => Role::Server,
                LibevRole::Relay { .. } => Role::Relay,
            },
            method: self.method,
            carrier: if config.obfs.is_some() {
                Carrier::Tcp
            } else {
                Carrier::Udp
            },
            ip_mtu: kcp.mtu.into(),
            profile: if auto {
                // Only how long acknowledgements wait.
                arq::Profile::new(1, 10, 0, false)
            } else {
                arq::Profile::new(
                    kcp.nodelay.into(),
                    u32::try_from(kcp.interval.as_millis()).unwrap_or(u32::MAX),
                    kcp.resend,
                    !kcp.nc,
                )
            },
            snd_wnd: if auto && !kcp.explicit.sndwnd {
                arq::MAX_WINDOW
            } else {
                kcp.sndwnd
            },
            rcv_wnd: if auto && !kcp.explicit.rcvwnd {
                measured
            } else {
                kcp.rcvwnd
            },
            write_delay: !auto && kcp.flush == 0,
            ack_no_delay: !auto && kcp.flush == 2,
            auto: auto.then_some(measuring::Settings {
                redundancy: config.ours.redundancy,
                parity: false,
                mtu: segment,
                known: 0,
            }),
            timeout: config.timeout,
            linger: config.linger,
            time_wait: config.time_wait,
            receive_buffer: RECEIVE_BUFFER,
            hold_end: config.ours.delay_eof && matches!(config.role, LibevRole::Client { .. }),
        }
    }

    /// The endpoint of the process.
    pub(super) fn endpoint(
        &self,
        config: &LibevConfig,
        addrs: &Addrs,
        random: &Random,
        now: Instant,
    ) -> Endpoint {
        let id = config.service_id.clone();
        let (relays, local) = (addrs.remote.clone(), addrs.local.clone());
        let place = match (&config.role, config.role.place()) {
            (LibevRole::Client { .. }, Some(Place::Rendezvous { .. })) => {
                control::Place::RendezvousClient { relays, id, local }
            }
            (_, Some(Place::Rendezvous { .. })) => {
                control::Place::RendezvousServer { relays, id, local }
            }
            (LibevRole::Client { .. }, _) => control::Place::Client { servers: relays },
            _ => control::Place::Bound,
        };
        let control = Control::new(
            control::Settings {
                place,
                keepalive: config.keepalive,
                timeout: config.timeout,
                seed: random.number,
                allow_loopback: false,
            },
            now,
        );
        let key = self.key.clone();
        let probe = move |datagram: &[u8]| fulmar_cipher::libev_probe(key.as_ref()?, datagram);
        let settings = self.settings(config);
        let client = settings.role == Role::Client;
        let seed = random.number ^ u64::from(random.conv) << 32;
        let dialect = Libev::new(settings, control, seed, Box::new(probe));
        let dialect = Box::new(dialect.with_clocks(self.nonces.source()));
        let cipher = self.cipher();
        if client {
            Endpoint::opener(dialect, cipher)
        } else {
            let limits = Limits {
                unproven_per_ip: UNPROVEN_PER_IP,
                sessions_per_ip: SESSIONS_PER_IP,
                unproven_for: Duration::from_secs(10),
                ..Limits::default()
            };
            Endpoint::server(dialect, vec![cipher], limits)
        }
    }

    fn cipher(&self) -> Box<dyn PacketCipher> {
        let nonces = self.nonces.source();
        match &self.key {
            Some(key) => fulmar_cipher::libev(self.method, key, nonces),
            None => fulmar_cipher::libev(Method::Plain, &LibevKey::from_bytes([0; 32]), nonces),
        }
    }
}
