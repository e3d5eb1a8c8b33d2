//! Datagrams as TCP segments, for paths that pass TCP only (docs/spec/kcptun.md, section 13).
//!
//! Behind a flow is a real connection of the two kernels, which opens the way through NATs and firewalls.
//! It stays idle. The datagrams travel in segments of our own making, one each, with the ports of that
//! connection and numbers that continue it. Nothing is retransmitted or put in order: it is UDP in the
//! clothes of TCP.
//!
//! ```text
//!            client                                                  server
//!   kernel:  connect ── SYN, SYN-ACK, ACK ──────────────────────────▶ accept
//!            TTL 1, dropped by a firewall rule of each host           TTL 1
//!   raw:     PSH+ACK, datagram ─────────────────────────────────────▶ raw socket, filtered by port
//!            raw socket, filtered by both ports ◀───────────────────── PSH+ACK, datagram
//! ```
//!
//! The kernels see the segments too, understand some of them, and would answer; the firewall rule keeps the
//! answers in the host. Needs Linux, `CAP_NET_RAW`, and `CAP_NET_ADMIN` with `nft` or `iptables` for the rule.

pub mod firewall;
mod flow;
mod options;
mod recv;
mod send;
mod server;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fulmar_wire::rawtcp::Flags;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::addr::unmapped;
use crate::counters::{IoCounters, Live};
use crate::options::{Granted, route};
use crate::sys;

use firewall::{Firewall, FirewallError, Hook, Rule};
pub(crate) use flow::Agreed;
use flow::Flow;
pub use options::{FirewallUse, RawTcpError, RawTcpOptions};
pub(crate) use recv::Incoming;
use recv::learn_handshake;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use recv::{Found, Gather};
pub(crate) use send::Outgoing;

/// Most segments of one call, in either direction. As with UDP, more are not faster.
pub(crate) const BATCH: usize = 32;

/// Bytes of room for one packet: headers of IP and TCP at their longest (120 bytes), and any datagram that
/// fits an Ethernet frame, with some to spare.
pub(crate) const SLOT: usize = 2048;

/// One end of raw TCP: a client with one flow, or a server with many.
///
/// It owns its sockets; wait for [`RawTcp::readiness`] and call [`RawTcp::recv`] and [`RawTcp::send`], which
/// are those of [`crate::UdpState`]. A server has a thread that accepts the kernel's connections and forgets
/// silent flows; it sleeps while there are none.
///
/// Dropping it ends the flows and removes the firewall rule, which takes some ms.
#[derive(Debug)]
pub struct RawTcp {
    pub(crate) raw: sys::RawSocket,
    local: SocketAddr,
    /// The server of a client.
    remote: Option<SocketAddr>,
    shared: Arc<Shared>,
    granted: Granted,
    listener: Option<(TcpListener, JoinHandle<()>)>,
    firewall: Option<Firewall>,
    firewall_error: Option<FirewallError>,
}

/// What the thread of a server shares with the one that sends and receives.
#[derive(Debug)]
pub(crate) struct Shared {
    flows: Mutex<HashMap<SocketAddr, Entry>>,
    counters: Live,
    /// Set for the thread to end.
    ending: AtomicBool,
    /// The server's kernel has ended a client's connection.
    reset: AtomicBool,
    max_flows: usize,
    idle_timeout: Duration,
}

/// A flow and the kernel's connection behind it.
#[derive(Debug)]
struct Entry {
    flow: Flow,
    connection: TcpStream,
    local_ip: IpAddr,
    heard: Instant,
    /// Whether a datagram has ever arrived.
    confirmed: bool,
}

impl Shared {
    fn new(options: &RawTcpOptions) -> Self {
        Self {
            flows: Mutex::new(HashMap::new()),
            counters: Live::default(),
            ending: AtomicBool::new(false),
            reset: AtomicBool::new(false),
            max_flows: options.max_flows,
            idle_timeout: options.idle_timeout,
        }
    }

    fn flows(&self) -> MutexGuard<'_, HashMap<SocketAddr, Entry>> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RawTcp {
    /// A client's end of a flow to `remote`. Blocks until the kernels have connected.
    ///
    /// # Errors
    ///
    /// Any [`RawTcpError`].
    pub fn dial(remote: SocketAddr, options: &RawTcpOptions) -> Result<Self, RawTcpError> {
        let remote = unmapped(remote);
        let wildcard = if remote.is_ipv6() {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        } else {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        };
        let connection = tcp_socket(remote, options).map_err(RawTcpError::Connect)?;
        connection
            .bind(&SocketAddr::new(wildcard, 0).into())
            .map_err(RawTcpError::Connect)?;
        let port = local_of(&connection).map_err(RawTcpError::Connect)?.port();

        // Before the handshake, because that is where the numbers are learned from.
        let see = Flags::PSH
            .with(Flags::SYN)
            .with(Flags::RST)
            .with(Flags::FIN);
        let (raw, granted) = open(SocketAddr::new(wildcard, port), Some(remote), see, options)?;

        connection
            .connect_timeout(&remote.into(), options.connect_timeout)
            .map_err(RawTcpError::Connect)?;
        let local = local_of(&connection).map_err(RawTcpError::Connect)?;
        let connection = TcpStream::from(connection);
        let now = Instant::now();
        let mut flow = Flow::new(port, remote.port(), sys::agreed(&connection), now);
        quieten(&connection, remote.is_ipv6()).map_err(RawTcpError::Connect)?;
        if !learn_handshake(&raw, &mut flow, remote) {
            return Err(RawTcpError::HandshakeUnseen);
        }

        let rule = Rule {
            hook: Hook::Leaving,
            local,
            remote: Some(remote),
        };
        let (firewall, firewall_error) = rule_for(&rule, options)?;
        let shared = Shared::new(options);
        shared.flows().insert(
            remote,
            Entry {
                flow,
                connection,
                local_ip: local.ip(),
                heard: now,
                confirmed: true,
            },
        );
        Ok(Self {
            raw,
            local,
            remote: Some(remote),
            shared: Arc::new(shared),
            granted,
            listener: None,
            firewall,
            firewall_error,
        })
    }

    /// A server's end on `local`, whose port must not be 0 unless any will do.
    ///
    /// A wildcard address serves one family; a server of both has two of these.
    ///
    /// # Errors
    ///
    /// Any [`RawTcpError`].
    pub fn listen(local: SocketAddr, options: &RawTcpOptions) -> Result<Self, RawTcpError> {
        let listener = tcp_socket(local, options).map_err(RawTcpError::Listen)?;
        let bound = (|| {
            if local.is_ipv6() {
                listener.set_only_v6(true)?;
            }
            // Connections of an earlier run may linger.
            listener.set_reuse_address(true)?;
            listener.bind(&local.into())?;
            local_of(&listener)
        })()
        .map_err(RawTcpError::Listen)?;

        let (raw, granted) = open(bound, None, Flags::PSH, options)?;
        let rule = Rule {
            hook: Hook::Leaving,
            local: bound,
            remote: None,
        };
        let (firewall, firewall_error) = rule_for(&rule, options)?;
        listener
            .listen(server::BACKLOG)
            .map_err(RawTcpError::Listen)?;
        let listener = TcpListener::from(listener);
        let shared = Arc::new(Shared::new(options));
        let thread = server::start(&listener, &shared).map_err(RawTcpError::Socket)?;
        Ok(Self {
            raw,
            local: bound,
            remote: None,
            shared,
            granted,
            listener: Some((listener, thread)),
            firewall,
            firewall_error,
        })
    }

    /// Our address and port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Something to wait for: ready when this end is ready to send or to receive.
    ///
    /// It is a duplicate of the raw socket's descriptor. It calls itself a UDP socket only so that a runtime
    /// waits for both kinds in the same way, with tokio by `UdpSocket::from_std` and `UdpSocket::try_io`;
    /// do not send or receive with it. Drop it together with this.
    ///
    /// # Errors
    ///
    /// There are no descriptors left.
    pub fn readiness(&self) -> io::Result<UdpSocket> {
        self.raw.duplicate()
    }

    /// What the system granted of the socket options, for the raw socket.
    #[must_use]
    pub fn granted(&self) -> &Granted {
        &self.granted
    }

    /// Which firewall rule is in force, in words.
    #[must_use]
    pub fn firewall(&self) -> Option<String> {
        self.firewall.as_ref().map(Firewall::describe)
    }

    /// Why no firewall rule is in force although one was wanted ([`FirewallUse::Optional`]).
    #[must_use]
    pub fn firewall_error(&self) -> Option<&FirewallError> {
        self.firewall_error.as_ref()
    }

    /// How many flows there are.
    #[must_use]
    pub fn flows(&self) -> usize {
        self.shared.flows().len()
    }

    /// Client: whether the server's kernel has said, since the last datagram from there, that it knows
    /// nothing of this connection or has ended it.
    ///
    /// Anyone on the path can say that, so it is a hint and ends nothing: together with silence it is a
    /// reason to dial again.
    #[must_use]
    pub fn peer_reset(&self) -> bool {
        self.shared.reset.load(Relaxed)
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> IoCounters {
        self.shared.counters.snapshot()
    }
}

impl Drop for RawTcp {
    fn drop(&mut self) {
        self.shared.ending.store(true, Relaxed);
        if let Some((listener, thread)) = self.listener.take() {
            // Wakes the thread out of its wait for a connection.
            let _ = SockRef::from(&listener).shutdown(std::net::Shutdown::Both);
            let _ = thread.join();
        }
        let flows = std::mem::take(&mut *self.shared.flows());
        let now = Instant::now();
        #[allow(clippy::iter_over_hash_type)] // Each flow ends by itself, in any order.
        for (peer, mut entry) in flows {
            self.say_goodbye(peer, &mut entry, now);
            sys::close_silently(entry.connection);
        }
    }
}

/// A TCP socket of `addr`'s family that takes the way that the options say.
fn tcp_socket(addr: SocketAddr, options: &RawTcpOptions) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    route(&socket, &options.socket, &mut Granted::default())?;
    Ok(socket)
}

fn local_of(socket: &Socket) -> io::Result<SocketAddr> {
    socket
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not an internet socket"))
}

fn open(
    local: SocketAddr,
    remote: Option<SocketAddr>,
    flags: Flags,
    options: &RawTcpOptions,
) -> Result<(sys::RawSocket, Granted), RawTcpError> {
    sys::RawSocket::open(local, remote, flags, &options.socket).map_err(|e| {
        if e.kind() == io::ErrorKind::Unsupported {
            RawTcpError::Unsupported
        } else if sys::is_missing_capability(&e) {
            RawTcpError::MissingCapability
        } else {
            RawTcpError::Socket(e)
        }
    })
}

/// Makes the kernel's packets of a connection such that the firewall rule catches them, and keeps it from
/// storing what it takes for data.
fn quieten(connection: &TcpStream, v6: bool) -> io::Result<()> {
    let socket = SockRef::from(connection);
    if v6 {
        socket.set_unicast_hops_v6(1)?;
    } else {
        socket.set_ttl_v4(1)?;
    }
    // Only now: before the handshake it would show in the announced window.
    let _ = socket.set_recv_buffer_size(0);
    connection.set_nonblocking(true)
}

fn rule_for(
    rule: &Rule,
    options: &RawTcpOptions,
) -> Result<(Option<Firewall>, Option<FirewallError>), RawTcpError> {
    if options.firewall == FirewallUse::Off {
        return Ok((None, None));
    }
    match Firewall::install(rule) {
        Ok(firewall) => Ok((Some(firewall), None)),
        Err(e) if options.firewall == FirewallUse::Optional => Ok((None, Some(e))),
        Err(e) => Err(RawTcpError::Firewall(e)),
    }
}
