//! Tokio glue: drivers, listeners, name lookup, statistics, shutdown.
//!
//! A [`Tunnel`] is what a [`Config`] describes, and runs until it is told to stop; [`demo`] runs both ends and an emulated link in one
//! process. Everything that decides something about bytes lives below, in `fulmar-session`; everything that knows
//! the command line lives above, in the program.
//!
//! | module | what |
//! |---|---|
//! | `driver` | the task that owns a socket, its sessions and their local connections |
//! | `pump` | one stream joined to one local connection |
//! | `client`, `server` | what each end does around its drivers |
//! | `registry` | what several drivers of one port know together |
//! | `link` | from the configuration to endpoints |
//! | `open`, `socket`, `listen`, `conn`, `dial` | sockets of all kinds |
//! | `resolve` | names to addresses |
//! | `advice`, `log_limit` | what the log says of the other end, and how often |
//! | `inquiry` | whether the server lives, for who looks at the status page |
//! | `refusal` | what to do about an address that cannot be had |
//! | `stats`, [`snmp`] | counters of the process |
//! | `access` | the log of a server's clients |
//! | `describe` | what drivers say of their sessions |
//! | [`http`] | the HTTP status interface |
//! | [`notify`] | what systemd is told |
//! | [`reload`] | what becomes of a configuration that is read again |
#![forbid(unsafe_code)]

mod access;
mod advice;
mod client;
mod clock;
mod conn;
pub mod demo;

mod describe;
mod dial;
mod driver;
pub mod http;
mod inquiry;
pub mod libev;
mod link;
mod listen;
pub mod log_kind;
mod log_limit;
pub mod notify;
mod open;
mod pump;
mod refusal;
mod registry;
pub mod reload;
mod resolve;
mod server;
pub mod snmp;
mod socket;
mod stats;
mod status;
mod udp;
mod wake;

use std::io;
use std::sync::Arc;

use fulmar_config::{Config, Role};
use tokio::sync::mpsc;

use crate::log_kind::START_LOG;

pub use access::ACCESS_LOG;
pub use driver::STREAM_LOG;
pub use fulmar_netio::{PlainThread, permit_open_files, start_plain_thread};
pub use fulmar_session::Counters;
pub use fulmar_session::counters::{About, Kind};
pub use stats::{Hub, dump, dump_own};

/// Cores that this process may use, 1 to 256: what affinity and, on Linux, control groups leave it.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get().min(256))
}

/// How many threads `config` means, 1 to 256. Where it names no number it is one for each of the [`cores`]; a client has no use
/// for more than it has sessions.
#[must_use]
pub fn threads(config: &Config) -> usize {
    match (config.threads, &config.role) {
        (Some(n), _) => n.get().into(),
        (None, Role::Client(client)) => cores().min(client.conn.into()).max(1),
        (None, Role::Server(_)) => cores(),
    }
}

/// Why a tunnel cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A local address cannot be had.
    #[error("cannot listen on {addr}: {source}{}", refusal::advice(addr, source))]
    Listen {
        /// Which.
        addr: String,
        /// Why.
        source: io::Error,
    },
    /// A name does not resolve.
    #[error("cannot resolve {host}: {source}")]
    Resolve {
        /// Which.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// TCP-looking packets cannot be had.
    #[error("--tcp: {0}")]
    RawTcp(String),
    /// Obfuscation cannot be had.
    #[error("obfs {0}")]
    Obfs(String),
    /// The system gives no randomness.
    #[error("the system gives no randomness: {0}")]
    Random(String),
    /// Anything else of the system.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What both ends of a tunnel are made from.
#[derive(Clone)]
struct Common {
    config: Arc<Config>,
    clock: clock::Clock,
    hub: Hub,
    resolver: Arc<resolve::Resolver>,
}

/// A tunnel that is about to run.
pub struct Tunnel {
    config: Arc<Config>,
    hub: Hub,
    reloads: (
        mpsc::Sender<reload::Reload<Config>>,
        mpsc::Receiver<reload::Reload<Config>>,
    ),
}

impl Tunnel {
    /// A tunnel as `config` describes it.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config: Arc::new(config),
            hub: Hub::default(),
            reloads: mpsc::channel(1),
        }
    }

    /// Where a configuration goes that was read again while it runs.
    #[must_use]
    pub fn reloads(&self) -> mpsc::Sender<reload::Reload<Config>> {
        self.reloads.0.clone()
    }

    /// Its counters, which can be read while it runs.
    #[must_use]
    pub fn hub(&self) -> Hub {
        self.hub.clone()
    }

    /// Runs until `shutdown` completes. `ready` is called with the addresses once they are open.
    ///
    /// # Errors
    /// When an address cannot be had. Nothing that happens later ends a tunnel.
    pub async fn run(
        self,
        ready: impl FnOnce(&str),
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let clock = clock::Clock::start();
        let snmp = self.config.stats.snmp_log.clone().map(|layout| {
            tokio::spawn(snmp::write_periodically(
                layout,
                self.config.stats.period,
                self.hub.clone(),
            ))
        });
        let (inquiry, questions) = inquiry::Inquiry::new(self.hub.clone(), clock);
        let client = matches!(self.config.role, Role::Client(_));
        let http = match &self.config.stats.http_listen {
            Some(addr) => {
                let listener = listen::tcp(addr).await.map_err(|source| Error::Listen {
                    addr: addr.to_string(),
                    source,
                })?;
                if let Ok(addr) = listener.local_addr() {
                    tracing::info!(target: START_LOG, "listening on http://{addr} for status requests");
                }
                let status =
                    status::Status::new(self.hub.clone(), clock, client.then_some(inquiry));
                Some(tokio::spawn(http::serve(listener, status)))
            }
            None => None,
        };
        let raw = self.config.tunnel.tcp;
        // The sender stays, so that nothing looks like the end of it.
        let (_sender, reloads) = self.reloads;
        let role = self.config.role.clone();
        let common = Common {
            config: self.config,
            clock,
            hub: self.hub,
            resolver: resolve::Resolver::system(),
        };
        let result = match role {
            Role::Client(client) => {
                client::run(common, client, questions, reloads, ready, shutdown).await
            }
            Role::Server(server) => server::run(common, server, reloads, ready, shutdown).await,
        };
        for task in [snmp, http].into_iter().flatten() {
            task.abort();
        }
        if raw {
            // Drivers have removed their rules; one that did not end in time has not.
            let _ = tokio::task::spawn_blocking(fulmar_netio::firewall::cleanup).await;
        }
        result
    }
}
