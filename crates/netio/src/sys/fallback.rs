//! Systems without kernel features of their own here: one call per datagram, and the options that the
//! system has.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};

use fulmar_wire::rawtcp::Flags;
use socket2::Socket;

use crate::counters::Live;
use crate::icmp::IcmpError;
use crate::options::{Granted, KernelSetting, OptionError, SocketOptions};
use crate::rawtcp::{Agreed, Incoming, Outgoing};
use crate::run::Ecn;

/// The best socket of this system.
pub(crate) use super::portable::Portable as Native;

/// Granted buffer sizes are in the unit in which they are asked for.
pub(crate) const BUFFER_FACTOR: usize = 1;

fn unsupported<T>(what: &str) -> io::Result<T> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        format!("{what} is not available on this system"),
    ))
}

/// Whether an error of opening a socket means that the system lacks the address family.
pub(crate) fn is_family_missing(_error: &io::Error) -> bool {
    false
}

/// There is no error queue here.
pub(crate) fn icmp_error(_socket: &Socket) -> io::Result<Option<IcmpError>> {
    Err(io::ErrorKind::WouldBlock.into())
}

/// Gives the memory behind `bytes` back where there is a portable way; there is none.
pub(crate) fn forget_pages(_bytes: &mut [u8]) {}

/// See [`crate::return_free_memory`]: the allocator does as it sees fit.
pub(crate) fn return_free_memory() {}

#[cfg(all(unix, not(any(target_os = "solaris", target_os = "illumos"))))]
pub(crate) fn set_reuse_port(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_port(true)
}

#[cfg(not(all(unix, not(any(target_os = "solaris", target_os = "illumos")))))]
pub(crate) fn set_reuse_port(_socket: &Socket) -> io::Result<()> {
    unsupported("sharing a port")
}

#[cfg(any(
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd"
))]
pub(crate) fn set_traffic_class_v6(socket: &Socket, class: u32) -> io::Result<()> {
    socket.set_tclass_v6(class)
}

#[cfg(any(
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd"
))]
pub(crate) fn traffic_class_v6(socket: &Socket) -> io::Result<u32> {
    socket.tclass_v6()
}

#[cfg(not(any(
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd"
)))]
pub(crate) fn set_traffic_class_v6(_socket: &Socket, _class: u32) -> io::Result<()> {
    unsupported("an IPv6 traffic class")
}

#[cfg(not(any(
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd"
)))]
pub(crate) fn traffic_class_v6(_socket: &Socket) -> io::Result<u32> {
    unsupported("an IPv6 traffic class")
}

pub(crate) fn force_recv_buffer(_socket: &Socket, _bytes: usize) -> io::Result<()> {
    unsupported("a buffer beyond the limit")
}

pub(crate) fn force_send_buffer(_socket: &Socket, _bytes: usize) -> io::Result<()> {
    unsupported("a buffer beyond the limit")
}

/// Fresh sockets of these systems leave DF off, which is what is relied on; there is no portable way to ask.
pub(crate) fn set_relied(
    _socket: &Socket,
    _v6: bool,
    _refused: &mut Vec<OptionError>,
) -> Vec<KernelSetting> {
    Vec::new()
}

pub(crate) fn set_mark(_socket: &Socket, _mark: u32) -> io::Result<()> {
    unsupported("a mark")
}

pub(crate) fn mark(_socket: &Socket) -> io::Result<u32> {
    unsupported("a mark")
}

pub(crate) fn set_device(_socket: &Socket, _device: &str) -> io::Result<()> {
    unsupported("binding to a device")
}

pub(crate) fn device(_socket: &Socket) -> io::Result<Option<String>> {
    unsupported("binding to a device")
}

/// Raw TCP segments are not available on this system: nothing constructs this.
#[derive(Debug)]
pub(crate) enum RawSocket {}

impl RawSocket {
    pub(crate) fn open(
        _local: SocketAddr,
        _remote: Option<SocketAddr>,
        _flags: Flags,
        _options: &SocketOptions,
    ) -> io::Result<(Self, Granted)> {
        unsupported("sending TCP segments past the system's own TCP")
    }

    pub(crate) fn is_v6(&self) -> bool {
        match *self {}
    }

    pub(crate) fn recv(
        &self,
        _room: &mut [u8],
        _arrived: &mut [Incoming],
        _counters: &Live,
    ) -> io::Result<usize> {
        match *self {}
    }

    pub(crate) fn send(
        &self,
        _dst: Option<SocketAddr>,
        _src: Option<IpAddr>,
        _ecn: Option<Ecn>,
        _segments: &[Outgoing<'_>],
    ) -> io::Result<usize> {
        match *self {}
    }

    pub(crate) fn duplicate(&self) -> io::Result<UdpSocket> {
        match *self {}
    }

    #[cfg(unix)]
    pub(crate) fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match *self {}
    }
}

pub(crate) fn is_missing_capability(_error: &io::Error) -> bool {
    false
}

pub(crate) fn agreed(_connection: &TcpStream) -> Agreed {
    Agreed::default()
}

pub(crate) fn close_silently(connection: TcpStream) {
    drop(connection);
}
