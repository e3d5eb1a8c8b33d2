//! ICMP errors: what routers and hosts say about datagrams that a socket has sent.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// An ICMP error: what came back for a datagram that was sent.
///
/// An unconnected UDP socket is told of none. [`UdpState::watch_icmp`](crate::UdpState::watch_icmp) makes the kernel keep them in
/// the socket's error queue, and [`UdpState::drain_icmp`](crate::UdpState::drain_icmp) takes them out.
///
/// # How to use it
///
/// 1. Call `state.watch_icmp(socket)` once, for sockets of clients. A server should not: any peer could fill its queue.
/// 2. Call `state.drain_icmp(socket, |error| …)` after each `send` and `recv`, or once for each turn of a driver that
///    did either. It makes a system call only if a `send` or `recv` has met an error since the last time. No error is missed:
///    the kernel reports each one in place of the next `send` or `recv`, and those count it, offer their own datagram
///    again and go on. Such an error never loses a datagram and never ends a socket.
/// 3. Compare [`IcmpError::remote`] with the server's address. ICMP can be forged by anybody who guesses the two ports, so the
///    answer may change what is logged and nothing else: it must not end, refuse or delay anything.
///
/// The kernel also reports EPOLLERR until the queue is empty. With edge-triggered polling (tokio) that does not wake a
/// task that waits to receive, so the error is found with the next retransmission. It does wake a task that waits to *send*, which
/// has to drain the queue before it waits again: otherwise it is woken at once, for ever. A level-triggered poll reports
/// the descriptor until the queue is drained.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct IcmpError {
    /// Where the datagram was sent to. An IPv4 peer of a dual-stack socket is IPv4.
    pub remote: SocketAddr,
    /// What happened to it.
    pub kind: IcmpKind,
    /// Who says so: the remote host, a router, or this host (no route, no neighbour); `None` if the system does not tell.
    pub reporter: Option<IpAddr>,
}

/// What an ICMP error says, for IPv4 and IPv6 alike.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum IcmpKind {
    /// Nobody listens on that port of the remote host.
    PortUnreachable,
    /// No way to that host: it does not answer its neighbours.
    HostUnreachable,
    /// No route to that network.
    NetworkUnreachable,
    /// A firewall or a policy forbids it.
    Prohibited,
    /// The datagram is longer than a link takes, and was not to be cut into fragments.
    PacketTooBig {
        /// Bytes that the link takes, IP header included; 0 if the router did not tell.
        mtu: u32,
    },
    /// Anything else, by the numbers of its own ICMP version.
    Other {
        /// ICMP type.
        r#type: u8,
        /// ICMP code.
        code: u8,
    },
}

impl IcmpKind {
    /// From the numbers of ICMP (RFC 792, 1122 and 1812). `info` is the MTU where the type has one.
    #[cfg_attr(not(any(target_os = "linux", target_os = "android")), allow(dead_code))]
    pub(crate) const fn from_v4(r#type: u8, code: u8, info: u32) -> Self {
        match (r#type, code) {
            (3, 3) => Self::PortUnreachable,
            (3, 1 | 7 | 8 | 12) => Self::HostUnreachable,
            (3, 0 | 6 | 11) => Self::NetworkUnreachable,
            (3, 9 | 10 | 13) => Self::Prohibited,
            (3, 4) => Self::PacketTooBig { mtu: info },
            _ => Self::Other { r#type, code },
        }
    }

    /// From the numbers of ICMPv6 (RFC 4443).
    #[cfg_attr(not(any(target_os = "linux", target_os = "android")), allow(dead_code))]
    pub(crate) const fn from_v6(r#type: u8, code: u8, info: u32) -> Self {
        match (r#type, code) {
            (1, 4) => Self::PortUnreachable,
            (1, 3) => Self::HostUnreachable,
            (1, 0) => Self::NetworkUnreachable,
            (1, 1 | 5 | 6) => Self::Prohibited,
            (2, _) => Self::PacketTooBig { mtu: info },
            _ => Self::Other { r#type, code },
        }
    }
}

impl fmt::Display for IcmpKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortUnreachable => f.write_str("port unreachable"),
            Self::HostUnreachable => f.write_str("host unreachable"),
            Self::NetworkUnreachable => f.write_str("network unreachable"),
            Self::Prohibited => f.write_str("administratively prohibited"),
            Self::PacketTooBig { mtu: 0 } => f.write_str("packet too big"),
            Self::PacketTooBig { mtu } => write!(f, "packet too big (MTU {mtu})"),
            Self::Other { r#type, code } => write!(f, "ICMP type {type}, code {code}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_have_one_meaning() {
        assert_eq!(IcmpKind::from_v4(3, 3, 0), IcmpKind::from_v6(1, 4, 0));
        assert_eq!(IcmpKind::from_v4(3, 1, 0), IcmpKind::from_v6(1, 3, 0));
        assert_eq!(IcmpKind::from_v4(3, 0, 0), IcmpKind::from_v6(1, 0, 0));
        assert_eq!(IcmpKind::from_v4(3, 13, 0), IcmpKind::from_v6(1, 1, 0));
        assert_eq!(IcmpKind::from_v4(3, 4, 1280), IcmpKind::from_v6(2, 0, 1280));
        assert_eq!(
            IcmpKind::from_v4(11, 1, 0),
            IcmpKind::Other {
                r#type: 11,
                code: 1
            }
        );
    }
}
