//! What raw TCP may be asked for, and why it may not be had.

use std::fmt;
use std::io;
use std::time::Duration;

use super::firewall::FirewallError;
use crate::options::SocketOptions;

/// What a raw TCP end should be like.
#[derive(Clone, Debug)]
pub struct RawTcpOptions {
    /// Options of the sockets. Buffers and the code point are those of the raw socket; the kernel's own
    /// packets, which open the connection, look like everyone's. `reuse_port` is ignored: two raw sockets of
    /// one port would both receive everything.
    pub socket: SocketOptions,
    /// How long a client waits for the server's kernel to accept the connection. Default: 5 s.
    pub connect_timeout: Duration,
    /// Whether to work without the firewall rule.
    pub firewall: FirewallUse,
    /// Most flows of a server; each costs a descriptor and some kB in the kernel. Further connections are
    /// closed as they come. Default: 4096.
    pub max_flows: usize,
    /// A server forgets a flow that has been silent for so long. Default: 60 s, as kcptun does; shorter than
    /// the peer's keep-alive would end live sessions.
    pub idle_timeout: Duration,
}

impl Default for RawTcpOptions {
    fn default() -> Self {
        Self {
            socket: SocketOptions::default(),
            connect_timeout: Duration::from_secs(5),
            firewall: FirewallUse::default(),
            max_flows: 4096,
            idle_timeout: Duration::from_secs(60),
        }
    }
}

/// What to do about the firewall rule.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub enum FirewallUse {
    /// No rule, no flow.
    #[default]
    Required,
    /// Try, and go on without. The kernel's answers then leave with a TTL of 1: they die at the first
    /// router, which says so by ICMP, and peers on the same link receive them.
    Optional,
    /// Do not touch the firewall; the administrator has a rule of their own.
    Off,
}

/// Why there is no raw TCP.
#[derive(Debug)]
#[non_exhaustive]
pub enum RawTcpError {
    /// This system has no raw sockets for TCP.
    Unsupported,
    /// The program may not open raw sockets.
    MissingCapability,
    /// The kernel's connection to the server failed.
    Connect(io::Error),
    /// The kernel's listening socket failed.
    Listen(io::Error),
    /// The connection was made, but its handshake was not seen on the raw socket.
    HandshakeUnseen,
    /// The raw socket, an option of it, or the thread that serves it, failed.
    Socket(io::Error),
    /// The firewall rule could not be set.
    Firewall(FirewallError),
}

impl fmt::Display for RawTcpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported => f.write_str("TCP segments can be sent raw on Linux only"),
            Self::MissingCapability => f.write_str(
                "raw sockets need the capability CAP_NET_RAW, and the firewall rule CAP_NET_ADMIN: run as root or \
                 grant them",
            ),
            Self::Connect(e) => write!(f, "TCP connection: {e}"),
            Self::Listen(e) => write!(f, "TCP listener: {e}"),
            Self::HandshakeUnseen => f.write_str("the raw socket did not see the TCP handshake"),
            Self::Socket(e) => write!(f, "raw socket: {e}"),
            Self::Firewall(e) => write!(f, "firewall rule against the kernel's own TCP packets: {e}"),
        }
    }
}

impl std::error::Error for RawTcpError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connect(e) | Self::Listen(e) | Self::Socket(e) => Some(e),
            Self::Firewall(e) => Some(e),
            Self::Unsupported | Self::MissingCapability | Self::HandshakeUnseen => None,
        }
    }
}
