//! One end: its sockets, its thread, and what it tells.

use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::client::Dialler;
use super::options::{ObfsContext, ObfsError, ObfsKind, ObfsOptions, ObfsTotals};
use super::server;
use super::table::{Table, key};
use crate::counters::{IoCounters, Live};
use crate::options::{Granted, route};
use crate::rawtcp::FirewallUse;
use crate::rawtcp::firewall::{Firewall, FirewallError, Hook, Rule};
use crate::sys;

/// One end of kcptun-libev's obfuscation: a client with one server, or a server with many clients.
///
/// It owns its sockets. Wait for [`Obfs::readiness`] to receive, for [`Obfs::send_readiness`] to send, and call
/// [`Obfs::recv`] and [`Obfs::send_many`], which are those of [`crate::UdpState`]. Say which peers prove to know the
/// key by [`Obfs::authenticate`]: whoever does not is forgotten after 30 s.
///
/// A client dials in a thread of its own, and again when the link is gone; a server of `dpi/tcp-wnd` has a thread that
/// accepts connections. Everything that needs a capability is done at construction, except for removing the firewall
/// rule when this is dropped.
#[derive(Debug)]
pub struct Obfs {
    pub(super) shared: Arc<Shared>,
    granted: Granted,
    thread: Option<JoinHandle<()>>,
    /// Server of `dpi/tcp-wnd`.
    listener: Option<TcpListener>,
    /// Client: wakes the thread.
    bell: Option<UnixStream>,
    firewall_use: FirewallUse,
    firewall: Mutex<Guard>,
}

/// The firewall rule, if there is one.
#[derive(Debug, Default)]
struct Guard {
    rule: Option<Rule>,
    firewall: Option<Firewall>,
    error: Option<FirewallError>,
}

/// What the thread shares with the one that sends and receives.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) kind: ObfsKind,
    pub(super) is_server: bool,
    /// Server: where it is bound.
    pub(super) local: SocketAddr,
    pub(super) capture: sys::Capture,
    pub(super) injector: sys::Injector,
    table: Mutex<Table>,
    pub(super) counters: Live,
    /// Set for the thread to end.
    pub(super) ending: AtomicBool,
    pub(super) accept_bad_checksums: AtomicBool,
    pub(super) dscp: u8,
    pub(super) max_contexts: usize,
    pub(super) idle_timeout: Duration,
}

impl Shared {
    /// Both sockets. `device`: the scope of an address, 0 for none.
    fn open(
        kind: ObfsKind,
        local: SocketAddr,
        remote: Option<SocketAddr>,
        options: &ObfsOptions,
    ) -> Result<(Self, Granted), ObfsError> {
        let failed = |e: io::Error| {
            if sys::is_missing_capability(&e) {
                ObfsError::MissingCapability
            } else {
                ObfsError::Socket(e)
            }
        };
        let device = match (&options.socket.device, local) {
            (Some(name), _) => {
                sys::device_number(name).map_err(|e| ObfsError::Device(name.clone(), e))?
            }
            (None, SocketAddr::V6(local)) => local.scope_id(),
            (None, SocketAddr::V4(_)) => 0,
        };
        if let Some(dscp) = options.socket.dscp.filter(|&dscp| dscp > 63) {
            return Err(ObfsError::Socket(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("dscp {dscp}: a code point is 0 to 63"),
            )));
        }
        let v6 = local.is_ipv6();
        let (capture, seen) = sys::Capture::open(v6, device, &options.socket).map_err(failed)?;
        let (injector, mut granted) = sys::Injector::open(v6, &options.socket).map_err(failed)?;
        granted.recv_buffer = seen.recv_buffer;
        granted.refused.extend(seen.refused);
        granted.dscp = options.socket.dscp;
        let shared = Self {
            kind,
            is_server: remote.is_none(),
            local,
            capture,
            injector,
            table: Mutex::new(Table::new(remote)),
            counters: Live::default(),
            ending: AtomicBool::new(false),
            accept_bad_checksums: AtomicBool::new(options.accept_bad_checksums),
            dscp: options.socket.dscp.unwrap_or(0),
            max_contexts: options.max_contexts,
            idle_timeout: options.idle_timeout.max(Duration::from_millis(100)),
        };
        Ok((shared, granted))
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Obfs {
    /// A server on `local`, whose port must not be 0. A wildcard address serves one family; a server of both has two of
    /// these.
    ///
    /// # Errors
    ///
    /// Any [`ObfsError`].
    pub fn listen(
        kind: ObfsKind,
        local: SocketAddr,
        options: &ObfsOptions,
    ) -> Result<Self, ObfsError> {
        let local = key_of_bind(local);
        if local.port() == 0 {
            return Err(ObfsError::NoPort);
        }
        let (shared, granted) = Shared::open(kind, local, None, options)?;
        // Of `dpi/tcp` it only keeps the port from others, and does not listen.
        let listener = bound(local, kind, options).map_err(ObfsError::Listen)?;
        let guard = match kind {
            ObfsKind::TcpWnd => Guard::default(),
            ObfsKind::Tcp => Guard::install(
                Rule {
                    hook: Hook::Arriving,
                    local,
                    remote: None,
                },
                options.firewall,
            )?,
        };
        shared
            .capture
            .only(local, None)
            .map_err(ObfsError::Socket)?;
        if kind == ObfsKind::TcpWnd {
            listener
                .listen(server::BACKLOG)
                .map_err(ObfsError::Listen)?;
        }
        let listener = TcpListener::from(listener);
        let shared = Arc::new(shared);
        let thread = match kind {
            ObfsKind::TcpWnd => Some(server::start(&listener, &shared).map_err(ObfsError::Socket)?),
            ObfsKind::Tcp => None,
        };
        Ok(Self {
            shared,
            granted,
            thread,
            listener: Some(listener),
            bell: None,
            firewall_use: options.firewall,
            firewall: Mutex::new(guard),
        })
    }

    /// A client of `remote`. Returns at once and dials in the background: [`Obfs::is_ready`] says when the link is
    /// there, provided that [`Obfs::recv`] is called. `local_bind` is the address to dial from, and the port if it is
    /// not 0.
    ///
    /// # Errors
    ///
    /// Any [`ObfsError`]. That there is no way to the server is none, because there may be one later.
    pub fn dial(
        kind: ObfsKind,
        remote: SocketAddr,
        local_bind: Option<SocketAddr>,
        options: &ObfsOptions,
    ) -> Result<Self, ObfsError> {
        let remote = key(remote, 0);
        let bind = local_bind.map(key_of_bind);
        if bind.is_some_and(|bind| bind.is_ipv6() != remote.is_ipv6()) {
            return Err(ObfsError::Families);
        }
        let wildcard = match remote {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let (shared, granted) =
            Shared::open(kind, bind.unwrap_or(wildcard), Some(remote), options)?;
        let guard = match kind {
            ObfsKind::TcpWnd => Guard::default(),
            ObfsKind::Tcp => Guard::install(arriving_from(remote), options.firewall)?,
        };
        let shared = Arc::new(shared);
        let (bell, ear) = UnixStream::pair().map_err(ObfsError::Socket)?;
        bell.set_nonblocking(true).map_err(ObfsError::Socket)?;
        let thread = Dialler {
            shared: Arc::clone(&shared),
            bell: ear,
            host: options.host.clone(),
            options: options.socket.clone(),
            connect_timeout: options.connect_timeout,
            bind,
        }
        .start()
        .map_err(ObfsError::Socket)?;
        Ok(Self {
            shared,
            granted,
            thread: Some(thread),
            listener: None,
            bell: Some(bell),
            firewall_use: options.firewall,
            firewall: Mutex::new(guard),
        })
    }

    /// Which obfuscation.
    #[must_use]
    pub fn kind(&self) -> ObfsKind {
        self.shared.kind
    }

    /// Our address and port: where a server is bound, or what a client dials from at the moment.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        if self.shared.is_server {
            return Some(self.shared.local);
        }
        let table = self.shared.table();
        let remote = table.remote?;
        table.get(&remote).map(|context| context.local)
    }

    /// Something to wait for until there is something to receive; see [`crate::RawTcp::readiness`].
    ///
    /// # Errors
    ///
    /// There are no descriptors left.
    pub fn readiness(&self) -> io::Result<UdpSocket> {
        self.shared.capture.duplicate()
    }

    /// Something to wait for until there is room to send: that is another socket. In all else as
    /// [`Obfs::readiness`].
    ///
    /// # Errors
    ///
    /// There are no descriptors left.
    pub fn send_readiness(&self) -> io::Result<UdpSocket> {
        self.shared.injector.duplicate()
    }

    /// What the system granted of the socket options.
    #[must_use]
    pub fn granted(&self) -> &Granted {
        &self.granted
    }

    /// Which firewall rule is in force, in words. `dpi/tcp-wnd` needs none.
    #[must_use]
    pub fn firewall(&self) -> Option<String> {
        self.guard().firewall.as_ref().map(Firewall::describe)
    }

    /// Why no firewall rule is in force although one was wanted ([`FirewallUse::Optional`], or a new address after
    /// [`Obfs::redial`]), with the rule that is needed in the words of nftables.
    #[must_use]
    pub fn firewall_error(&self) -> Option<String> {
        let guard = self.guard();
        let (error, rule) = (guard.error.as_ref()?, guard.rule?);
        Some(format!(
            "{error}; needed in an input chain: {}",
            rule.words()
        ))
    }

    /// Whether datagrams can be sent: a server always; a client when its link is there.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        if self.shared.is_server {
            return true;
        }
        let table = self.shared.table();
        // The kernels may have connected before anything was taken out of the capture socket.
        table.ready
            && table
                .remote
                .and_then(|remote| table.get(&remote))
                .is_some_and(|context| context.flow.is_open())
    }

    /// Client: dials again, to `remote`, which may be another address than before. A server does nothing.
    pub fn redial(&self, remote: SocketAddr) {
        let Some(bell) = &self.bell else { return };
        let remote = key(remote, 0);
        if remote.is_ipv6() != self.shared.local.is_ipv6() {
            return;
        }
        let before = self.shared.table().remote.replace(remote);
        let mut guard = self.guard();
        if before != Some(remote)
            && self.shared.kind == ObfsKind::Tcp
            && self.firewall_use != FirewallUse::Off
        {
            let rule = arriving_from(remote);
            // The old one goes first: a process without privileges any more can do neither.
            guard.firewall = None;
            guard.rule = Some(rule);
            match Firewall::install(&rule) {
                Ok(firewall) => {
                    guard.firewall = Some(firewall);
                    guard.error = None;
                }
                Err(e) => guard.error = Some(e),
            }
        }
        drop(guard);
        ring(bell);
    }

    /// A datagram of `peer` was opened with the key; returns whether there is a context of it. Call it for every run
    /// that opens, or at least for the first of each peer.
    pub fn authenticate(&self, peer: SocketAddr) -> bool {
        self.shared.table().authenticate(&key(peer, 0))
    }

    /// Changes [`ObfsOptions::accept_bad_checksums`].
    pub fn accept_bad_checksums(&self, accept: bool) {
        self.shared.accept_bad_checksums.store(accept, Relaxed);
    }

    /// The peers, for the operator, ordered by their addresses.
    #[must_use]
    pub fn contexts(&self) -> Vec<ObfsContext> {
        let now = Instant::now();
        let mut table = self.shared.table();
        if self.shared.is_server {
            table.expire(now, self.shared.idle_timeout);
        }
        table.list(now)
    }

    /// What became of contexts so far.
    #[must_use]
    pub fn totals(&self) -> ObfsTotals {
        self.shared.table().totals
    }

    /// What happened so far. Segments that were dropped are `raw_malformed`, `raw_bad_checksum`, `raw_strangers` and
    /// `recv_truncated`.
    #[must_use]
    pub fn counters(&self) -> IoCounters {
        self.shared.counters.snapshot()
    }

    fn guard(&self) -> MutexGuard<'_, Guard> {
        self.firewall.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Obfs {
    fn drop(&mut self) {
        self.shared.ending.store(true, Relaxed);
        if let Some(listener) = self.listener.take() {
            // Wakes the thread out of its wait for a connection.
            let _ = SockRef::from(&listener).shutdown(std::net::Shutdown::Both);
        }
        if let Some(bell) = &self.bell {
            ring(bell);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Guard {
    fn install(rule: Rule, wanted: FirewallUse) -> Result<Self, ObfsError> {
        if wanted == FirewallUse::Off {
            return Ok(Self::default());
        }
        let (firewall, error) = match Firewall::install(&rule) {
            Ok(firewall) => (Some(firewall), None),
            Err(e) if wanted == FirewallUse::Optional => (None, Some(e)),
            Err(error) => {
                return Err(ObfsError::Firewall {
                    rule: rule.words(),
                    error,
                });
            }
        };
        Ok(Self {
            rule: Some(rule),
            firewall,
            error,
        })
    }
}

/// The rule of a client of `dpi/tcp`. Our own port is a new one with every link, and our address may be.
fn arriving_from(remote: SocketAddr) -> Rule {
    let wildcard: IpAddr = match remote {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    Rule {
        hook: Hook::Arriving,
        local: SocketAddr::new(wildcard, 0),
        remote: Some(remote),
    }
}

/// An address to bind to, as addresses of packets are written; the scope stays.
fn key_of_bind(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V6(a) => key(addr, a.scope_id()),
        SocketAddr::V4(_) => addr,
    }
}

fn ring(mut bell: &UnixStream) {
    // When there is no room, it has been rung already.
    let _ = bell.write(&[0]);
}

/// A server's TCP socket, bound.
fn bound(local: SocketAddr, kind: ObfsKind, options: &ObfsOptions) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(local),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    route(&socket, &options.socket, &mut Granted::default())?;
    if local.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if kind == ObfsKind::TcpWnd {
        sys::narrow(&socket)?;
    }
    // Connections of an earlier run may linger.
    socket.set_reuse_address(true)?;
    socket.bind(&local.into())?;
    Ok(socket)
}

/// The local address of a connection.
pub(super) fn local_of(connection: &std::net::TcpStream) -> io::Result<SocketAddr> {
    connection.local_addr().map(|addr| key(addr, 0))
}
