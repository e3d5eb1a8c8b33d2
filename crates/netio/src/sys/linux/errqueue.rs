//! The error queue of a socket: what became of datagrams that have left (IP_RECVERR).

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::Relaxed;

use socket2::Socket;

use super::control::{self, Control};
use super::name::Name;
use super::options::{int, set_int};
use super::udp::Native;
use crate::addr::unmapped;
use crate::icmp::{IcmpError, IcmpKind};

/// What the kernel writes of an error, before the address of whoever reported it.
#[derive(Copy, Clone)]
pub(super) struct Report {
    pub(super) origin: u8,
    pub(super) r#type: u8,
    pub(super) code: u8,
    pub(super) info: u32,
    pub(super) reporter: Option<std::net::SocketAddr>,
}

impl Report {
    fn kind(&self) -> Option<IcmpKind> {
        match self.origin {
            libc::SO_EE_ORIGIN_ICMP => Some(IcmpKind::from_v4(self.r#type, self.code, self.info)),
            libc::SO_EE_ORIGIN_ICMP6 => Some(IcmpKind::from_v6(self.r#type, self.code, self.info)),
            // This host refused a datagram; whoever sent it was told in the same moment.
            _ => None,
        }
    }
}

impl Native {
    /// See [`crate::UdpState::watch_icmp`].
    pub(crate) fn watch_icmp(&self, socket: &Socket) -> io::Result<()> {
        // An IPv4 peer of a dual-stack socket obeys the IPv4 option.
        set_on(socket, libc::IPPROTO_IP, libc::IP_RECVERR)?;
        if self.v6 {
            set_on(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR)?;
        }
        self.watches_icmp.store(true, Relaxed);
        Ok(())
    }
}

/// Sets an option and reads it back.
fn set_on(socket: &Socket, level: libc::c_int, name: libc::c_int) -> io::Result<()> {
    set_int(socket, level, name, 1)?;
    match int(socket, level, name)? {
        0 => Err(io::ErrorKind::Unsupported.into()),
        _ => Ok(()),
    }
}

/// Takes one message out of the error queue. `Ok(None)`: it was no ICMP error.
///
/// # Errors
///
/// [`io::ErrorKind::WouldBlock`] when the queue is empty.
pub(crate) fn icmp_error(socket: &Socket) -> io::Result<Option<IcmpError>> {
    let mut name = Name::EMPTY;
    let mut control = Control::EMPTY;
    // The datagram itself, of which nothing is wanted.
    let mut vector = libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    };
    // SAFETY: all-zero bytes are a valid `msghdr`.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = Name::LEN;
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1 as _;
    header.msg_control = control.as_mut_ptr();
    header.msg_controllen = Control::LEN as _;
    // SAFETY: the header describes locals that outlive the call.
    let rc = unsafe {
        libc::recvmsg(
            socket.as_raw_fd(),
            &raw mut header,
            libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT,
        )
    };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has filled in the header, and its control buffer is still there.
    let Some(report) = unsafe { control::read(&header) }.error else {
        return Ok(None);
    };
    Ok(name
        .decode(header.msg_namelen)
        .zip(report.kind())
        .map(|(remote, kind)| IcmpError {
            remote: unmapped(remote),
            kind,
            reporter: report.reporter.map(|a| unmapped(a).ip()),
        }))
}

/// Whether a send may have failed with `number` because of a datagram that was sent before: every error that an ICMP
/// message of either version becomes.
pub(super) fn may_be_of_earlier(number: i32) -> bool {
    matches!(
        number,
        libc::ECONNREFUSED
            | libc::ECONNRESET
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::EHOSTDOWN
            | libc::ENONET
            | libc::EACCES
            | libc::EPROTO
            | libc::ENOPROTOOPT
            | libc::EOPNOTSUPP
            | libc::EMSGSIZE
    )
}
