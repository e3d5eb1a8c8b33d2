//! Packets in batches, one call for many, as all sockets for packets want them.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::control::{self, Control};
use super::name::Name;
use crate::counters::{Live, add};
use crate::rawtcp::{BATCH, Incoming, SLOT};

/// Receives packets, the i-th into the i-th [`SLOT`] bytes of `room`, and describes them; returns how many.
///
/// `drops_before` is what the kernel had dropped before, modulo 2^32.
pub(super) fn recv(
    socket: &impl AsFd,
    room: &mut [u8],
    arrived: &mut [Incoming],
    counters: &Live,
    drops_before: &AtomicU32,
) -> io::Result<usize> {
    let mut names = [Name::EMPTY; BATCH];
    let mut controls = [const { Control::EMPTY }; BATCH];
    let mut vectors = [libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    }; BATCH];
    // SAFETY: all-zero bytes are a valid `mmsghdr`.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
    let mut count = 0;
    for ((((slot, header), name), control), vector) in room
        .chunks_exact_mut(SLOT)
        .take(arrived.len())
        .zip(&mut headers)
        .zip(&mut names)
        .zip(&mut controls)
        .zip(&mut vectors)
    {
        *vector = libc::iovec {
            iov_base: slot.as_mut_ptr().cast(),
            iov_len: slot.len(),
        };
        header.msg_hdr.msg_name = (&raw mut *name).cast();
        header.msg_hdr.msg_namelen = Name::LEN;
        header.msg_hdr.msg_iov = &raw mut *vector;
        header.msg_hdr.msg_iovlen = 1 as _;
        header.msg_hdr.msg_control = control.as_mut_ptr();
        header.msg_hdr.msg_controllen = Control::LEN as _;
        count += 1;
    }
    add(&counters.recv_calls, 1);
    // SAFETY: the first `count` headers were filled in above; they point to arrays of this function and
    // to the caller's room, which all outlive the call.
    let rc = unsafe {
        libc::recvmmsg(
            socket.as_fd().as_raw_fd(),
            headers.as_mut_ptr(),
            count,
            libc::MSG_DONTWAIT as _,
            std::ptr::null_mut(),
        )
    };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    let filled = usize::try_from(rc).unwrap_or(0);
    for ((header, name), incoming) in headers
        .iter()
        .zip(&names)
        .zip(arrived.iter_mut())
        .take(filled)
    {
        // SAFETY: the kernel has filled in the header, and its control buffer is still there.
        let beside = unsafe { control::read(&header.msg_hdr) };
        if let Some(drops) = beside.drops {
            let new = drops.wrapping_sub(drops_before.swap(drops, Relaxed));
            add(&counters.recv_overflows, new as usize);
        }
        *incoming = Incoming {
            len: header.msg_len as usize,
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            src: name.decode(header.msg_hdr.msg_namelen),
            dst: beside.dst_ip,
            class: beside.class.unwrap_or(0),
            device: name.device(header.msg_hdr.msg_namelen),
            unsummed: beside.unsummed,
        };
    }
    Ok(filled)
}

/// Sends packets of two parts each, at most [`BATCH`] of them, to one peer; returns how many the kernel took.
///
/// Name and control messages come with their lengths in bytes; of length 0 they are not looked at.
pub(super) fn send<'a>(
    socket: &impl AsFd,
    (name, name_len): (&mut Name, libc::socklen_t),
    (control, control_len): (&mut Control, usize),
    parts: impl Iterator<Item = [&'a [u8]; 2]>,
) -> io::Result<usize> {
    let mut vectors = [[libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    }; 2]; BATCH];
    // SAFETY: all-zero bytes are a valid `mmsghdr`.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
    let mut count: libc::c_uint = 0;
    for ((packet, header), vector) in parts.zip(&mut headers).zip(&mut vectors) {
        // The kernel only reads them.
        for (part, bytes) in vector.iter_mut().zip(packet) {
            part.iov_base = bytes.as_ptr().cast_mut().cast();
            part.iov_len = bytes.len();
        }
        header.msg_hdr.msg_iov = vector.as_mut_ptr();
        header.msg_hdr.msg_iovlen = 2 as _;
        if name_len != 0 {
            header.msg_hdr.msg_name = (&raw mut *name).cast();
            header.msg_hdr.msg_namelen = name_len;
        }
        if control_len != 0 {
            header.msg_hdr.msg_control = control.as_mut_ptr();
            header.msg_hdr.msg_controllen = control_len as _;
        }
        count += 1;
    }
    // The call itself for the reason given in `send.rs`.
    //
    // SAFETY: the first `count` headers were filled in above; they point to arrays of this function and
    // to the caller's packets, which all outlive the call. Several of them point to the same name and
    // control messages, which the kernel only reads.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_sendmmsg,
            socket.as_fd().as_raw_fd(),
            headers.as_mut_ptr(),
            count,
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(rc).unwrap_or(0))
}
