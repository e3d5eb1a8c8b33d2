//! What the system's error numbers mean for a datagram socket.

use std::io::{self, ErrorKind};

use crate::run::Trouble;

#[cfg(unix)]
mod number {
    pub(super) const BAD_DESCRIPTOR: i32 = libc::EBADF;
    pub(super) const NOT_A_SOCKET: i32 = libc::ENOTSOCK;
    pub(super) const TOO_LONG: i32 = libc::EMSGSIZE;
    pub(super) const NO_BUFFERS: i32 = libc::ENOBUFS;
    pub(super) const NO_MEMORY: i32 = libc::ENOMEM;
    pub(super) const HOST_DOWN: i32 = libc::EHOSTDOWN;
}

#[cfg(not(unix))]
mod number {
    // Winsock's numbers.
    pub(super) const BAD_DESCRIPTOR: i32 = 10_009;
    pub(super) const NOT_A_SOCKET: i32 = 10_038;
    pub(super) const TOO_LONG: i32 = 10_040;
    pub(super) const NO_BUFFERS: i32 = 10_055;
    pub(super) const NO_MEMORY: i32 = 8;
    pub(super) const HOST_DOWN: i32 = 10_064;
}

/// Whether the descriptor itself is of no use.
pub(crate) fn is_fatal(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(number::BAD_DESCRIPTOR | number::NOT_A_SOCKET)
    )
}

/// Why a datagram was not taken.
pub(crate) fn trouble(error: &io::Error) -> Trouble {
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => return Trouble::Refused,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown => {
            return Trouble::Unreachable;
        }
        ErrorKind::PermissionDenied => return Trouble::NotPermitted,
        _ => {}
    }
    match error.raw_os_error() {
        Some(number::TOO_LONG) => Trouble::TooLong,
        Some(number::NO_BUFFERS | number::NO_MEMORY) => Trouble::NoBuffers,
        Some(number::HOST_DOWN) => Trouble::Unreachable,
        number => Trouble::Other(number.unwrap_or(0)),
    }
}
