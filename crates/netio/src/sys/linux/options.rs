//! Options that only this system has, or has under its own name.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use socket2::Socket;

/// The kernel doubles a requested buffer size, to account for its own overhead, and reports the double.
pub(crate) const BUFFER_FACTOR: usize = 2;

/// Whether an error of opening a socket means that the system lacks the address family.
pub(crate) fn is_family_missing(error: &io::Error) -> bool {
    // The error may be wrapped into one that says what was being done; the kind alone does not tell.
    let mut number = error.raw_os_error();
    if number.is_none()
        && let Some(inner) = error.get_ref()
    {
        number = std::error::Error::source(inner)
            .and_then(|e| e.downcast_ref::<io::Error>())
            .and_then(io::Error::raw_os_error);
    }
    matches!(number, Some(libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT))
}

pub(crate) fn set_reuse_port(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_port(true)
}

pub(crate) fn set_traffic_class_v6(socket: &Socket, class: u32) -> io::Result<()> {
    socket.set_tclass_v6(class)
}

pub(crate) fn traffic_class_v6(socket: &Socket) -> io::Result<u32> {
    socket.tclass_v6()
}

pub(crate) fn force_recv_buffer(socket: &Socket, bytes: usize) -> io::Result<()> {
    set_int(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, clamp(bytes))
}

pub(crate) fn force_send_buffer(socket: &Socket, bytes: usize) -> io::Result<()> {
    set_int(socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, clamp(bytes))
}

pub(crate) fn set_mark(socket: &Socket, mark: u32) -> io::Result<()> {
    socket.set_mark(mark)
}

pub(crate) fn mark(socket: &Socket) -> io::Result<u32> {
    socket.mark()
}

pub(crate) fn set_device(socket: &Socket, device: &str) -> io::Result<()> {
    socket.bind_device(Some(device.as_bytes()))
}

pub(crate) fn device(socket: &Socket) -> io::Result<Option<String>> {
    Ok(socket.device()?.map(|name| {
        String::from_utf8_lossy(&name)
            .trim_end_matches('\0')
            .to_owned()
    }))
}

/// The largest request that the kernel can double.
fn clamp(bytes: usize) -> libc::c_int {
    libc::c_int::try_from(bytes)
        .unwrap_or(libc::c_int::MAX)
        .min(libc::c_int::MAX / 2)
}

/// Sets an option whose value is an `int`.
pub(super) fn set_int(
    socket: &impl AsFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as it is borrowed; the pointer and the length describe
    // `value`, which lives until the call returns.
    let rc = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Reads an option whose value is an `int`.
pub(super) fn int(
    socket: &impl AsFd,
    level: libc::c_int,
    name: libc::c_int,
) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open for as long as it is borrowed; the pointers describe `value` and `len`,
    // which live until the call returns, and the kernel writes at most `len` bytes.
    let rc = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw mut value).cast(),
            &raw mut len,
        )
    };
    if rc == 0 {
        Ok(value)
    } else {
        Err(io::Error::last_os_error())
    }
}
