//! A UDP socket with everything that this kernel offers.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32};

use socket2::Socket;

use super::options::{int, set_int};
use super::segmentation::Gate;
use crate::addr::unmapped;
use crate::udp::Details;

/// A UDP socket that is called once per run.
#[derive(Debug)]
pub(crate) struct Native {
    pub(super) v6: bool,
    pub(super) connected: Option<SocketAddr>,
    /// Our only address, if the socket is bound to one.
    pub(super) local_ip: Option<IpAddr>,
    /// The TOS byte and the traffic class of the socket, without the congestion bits.
    pub(super) tos_v4: u8,
    pub(super) class_v6: u8,
    pub(super) gate: Gate,
    /// The kernel's count of datagrams dropped on this socket when it was last seen.
    pub(super) drops: AtomicU32,
    /// Whether the kernel tells of ICMP errors, in place of sending or receiving.
    pub(super) watches_icmp: AtomicBool,
}

impl Native {
    /// Finds out what `socket` can do, and switches on what arrives beside the bytes. `segmentation` permits
    /// runs in one call, in both directions.
    pub(crate) fn new(socket: &Socket, segmentation: bool) -> io::Result<Self> {
        let local = socket
            .local_addr()?
            .as_socket()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not an internet socket"))?;
        let v6 = local.is_ipv6();
        let local_ip = Some(unmapped(local).ip()).filter(|ip| !ip.is_unspecified());

        // A convenience that an older kernel may lack; the socket works without.
        let _ = set_int(socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1);
        let _ = set_int(
            socket,
            libc::SOL_UDP,
            libc::UDP_GRO,
            libc::c_int::from(segmentation),
        );

        let class = |class: io::Result<u32>| class.map_or(0, |c| (c & 0xfc) as u8);
        let native = Self {
            v6,
            connected: socket
                .peer_addr()
                .ok()
                .and_then(|a| a.as_socket())
                .map(unmapped),
            local_ip,
            tos_v4: class(socket.tos_v4()),
            class_v6: if v6 { class(socket.tclass_v6()) } else { 0 },
            gate: Gate::new(segmentation && int(socket, libc::SOL_UDP, libc::UDP_SEGMENT).is_ok()),
            drops: AtomicU32::new(0),
            watches_icmp: AtomicBool::new(false),
        };
        native.ask(
            socket,
            Details {
                destination: true,
                congestion: true,
            },
        );
        Ok(native)
    }

    /// See [`crate::UdpState::ask`].
    pub(crate) fn ask(&self, socket: &Socket, details: Details) {
        // Each of these is a convenience that an older kernel may lack; the socket works without.
        let set = |level, name, on| set_int(socket, level, name, libc::c_int::from(on)).is_ok();
        set(libc::IPPROTO_IP, libc::IP_RECVTOS, details.congestion);
        if self.v6 {
            set(
                libc::IPPROTO_IPV6,
                libc::IPV6_RECVTCLASS,
                details.congestion,
            );
        }
        let destination = details.destination && self.local_ip.is_none();
        if self.v6 {
            set(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, destination);
        } else {
            set(libc::IPPROTO_IP, libc::IP_PKTINFO, destination);
        }
    }

    /// Whether a run leaves in one call.
    pub(crate) fn segmentation(&self) -> bool {
        self.gate.enabled()
    }
}
