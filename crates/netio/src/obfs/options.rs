//! What obfuscation may be asked for, what it tells, and why it may not be had.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::options::SocketOptions;
use crate::rawtcp::FirewallUse;
use crate::rawtcp::firewall::FirewallError;

/// Which obfuscation (docs/spec/kcptun-libev.md, section 13).
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum ObfsKind {
    /// `dpi/tcp-wnd`: beside a connection of the two kernels, beyond the window that they announce.
    TcpWnd,
    /// `dpi/tcp`: without any connection of the kernels.
    Tcp,
}

impl ObfsKind {
    /// The name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TcpWnd => "dpi/tcp-wnd",
            Self::Tcp => "dpi/tcp",
        }
    }

    /// The kind of that exact name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::TcpWnd, Self::Tcp]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

/// What an end of obfuscation should be like.
#[derive(Clone, Debug)]
pub struct ObfsOptions {
    /// Options of the sockets: the receive buffer is that of the capture socket, the send buffer that of the raw
    /// socket. `device` (`netdev`) is where packets are captured and what they are sent through. `reuse_port` and
    /// `only_v6` are ignored.
    pub socket: SocketOptions,
    /// Take segments with a wrong checksum, which some builds of the original send (section 13.6). Default: no.
    pub accept_bad_checksums: bool,
    /// The `Host` of the client's HTTP request: the server as it was configured. Empty: its address and port.
    pub host: String,
    /// Most contexts of a server. Default: 4095, as the original.
    pub max_contexts: usize,
    /// A context that was authenticated is forgotten, and a client dials again, after so long without a segment.
    /// Default: 79 s, which is T of section 11.2 for the default keep-alive.
    pub idle_timeout: Duration,
    /// How long the client of `dpi/tcp-wnd` waits for the connection, and how long for the answer to its request.
    /// Default: 10 s.
    pub connect_timeout: Duration,
    /// `dpi/tcp`: whether to work without the firewall rule. Without it both kernels answer every segment with a
    /// reset, which the ends ignore and what stands on the path may not.
    pub firewall: FirewallUse,
}

impl Default for ObfsOptions {
    fn default() -> Self {
        Self {
            socket: SocketOptions::default(),
            accept_bad_checksums: false,
            host: String::new(),
            max_contexts: 4095,
            idle_timeout: Duration::from_secs(79),
            connect_timeout: Duration::from_secs(10),
            firewall: FirewallUse::default(),
        }
    }
}

/// How far a context has come.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum ObfsState {
    /// No segment of the peer was captured, so nothing can be sent.
    Uncaptured,
    /// Both ways are open; no datagram of the peer has proved anything.
    Unauthenticated,
    /// A datagram of the peer was opened ([`crate::Obfs::authenticate`]).
    Authenticated,
}

/// A peer, for the operator.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct ObfsContext {
    /// The peer.
    pub peer: SocketAddr,
    /// Our address and port towards it.
    pub local: SocketAddr,
    /// How far it has come.
    pub state: ObfsState,
    /// How long ago its last segment came, or the context was made.
    pub seen: Duration,
    /// Bytes of datagrams from the peer.
    pub rx_bytes: u64,
    /// Bytes of datagrams to the peer.
    pub tx_bytes: u64,
    /// Segments that a congested router had marked.
    pub ecn: u64,
    /// Segments by which the peer said that ours were marked.
    pub ece: u64,
}

/// What became of contexts. All of them only ever grow.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub struct ObfsTotals {
    /// Contexts made.
    pub opened: u64,
    /// Connections that a server refused: too many contexts, or too many that are not authenticated.
    pub refused: u64,
    /// Contexts that had to make room before they were authenticated.
    pub evicted: u64,
    /// Contexts forgotten for their silence.
    pub expired: u64,
    /// Times that a client has dialled.
    pub dials: u64,
    /// Times that a client's dialling led to a link.
    pub connected: u64,
}

/// Why there is no obfuscation.
#[derive(Debug)]
#[non_exhaustive]
pub enum ObfsError {
    /// This system has no packet sockets.
    Unsupported,
    /// The program may not open packet and raw sockets.
    MissingCapability,
    /// The local and the remote address are of two families.
    Families,
    /// A server needs a port.
    NoPort,
    /// There is no such network device.
    Device(String, io::Error),
    /// The kernel's listening socket failed.
    Listen(io::Error),
    /// A socket, an option of it, or the thread that serves it, failed.
    Socket(io::Error),
    /// The firewall rule could not be set.
    Firewall {
        /// The rule that is needed, in the words of nftables, in a chain of the hook `input`.
        rule: String,
        /// Why it is not there.
        error: FirewallError,
    },
}

impl fmt::Display for ObfsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported => f.write_str("obfuscation works on Linux only"),
            Self::MissingCapability => f.write_str(
                "packet and raw sockets need the capability CAP_NET_RAW: run as root or grant it",
            ),
            Self::Families => f.write_str("the local and the remote address are of two families"),
            Self::NoPort => f.write_str("a server of obfuscation needs a port"),
            Self::Device(name, e) => write!(f, "network device {name}: {e}"),
            Self::Listen(e) => write!(f, "TCP listener: {e}"),
            Self::Socket(e) => write!(f, "sockets of obfuscation: {e}"),
            Self::Firewall { rule, error } => write!(
                f,
                "firewall rule against the kernel's resets: {error}; needed in an input chain: {rule}"
            ),
        }
    }
}

impl std::error::Error for ObfsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Device(_, e) | Self::Listen(e) | Self::Socket(e) => Some(e),
            Self::Firewall { error, .. } => Some(error),
            Self::Unsupported | Self::MissingCapability | Self::Families | Self::NoPort => None,
        }
    }
}
