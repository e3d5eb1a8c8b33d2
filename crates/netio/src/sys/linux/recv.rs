//! Receiving: one call fills a few large buffers, each with a datagram or with a run that the kernel put
//! together.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::Relaxed;

use socket2::Socket;

use super::control::{self, Control};
use super::name::Name;
use super::udp::Native;
use crate::addr::unmapped;
use crate::counters::{Live, add};
use crate::run::{Ecn, RecvBuffers, RecvMeta};

/// Most messages of one call.
const BATCH: usize = 32;

/// How often in a row a call that brings nothing of use is repeated before the caller gets its turn back.
const MAX_ROUNDS: usize = 16;

impl Native {
    pub(crate) fn recv(
        &self,
        socket: &Socket,
        buffers: &mut RecvBuffers,
        metas: &mut [RecvMeta],
        counters: &Live,
    ) -> io::Result<usize> {
        for _ in 0..MAX_ROUNDS {
            match self.recv_batch(socket, buffers, metas, counters) {
                Ok(0) => {}
                Err(e) if matches!(e.raw_os_error(), Some(libc::EINTR)) => {}
                Err(e)
                    if matches!(e.raw_os_error(), Some(libc::EAGAIN))
                        || super::super::is_fatal(&e) =>
                {
                    return Err(e);
                }
                // What became of a datagram that was sent from here; it is no reason not to receive.
                Err(_) => add(&counters.recv_errors, 1),
                Ok(runs) => return Ok(runs),
            }
        }
        Ok(0)
    }

    /// One call. Returns how many runs are of use; they are the first ones of `metas`.
    fn recv_batch(
        &self,
        socket: &Socket,
        buffers: &mut RecvBuffers,
        metas: &mut [RecvMeta],
        counters: &Live,
    ) -> io::Result<usize> {
        let mut names = [Name::EMPTY; BATCH];
        let mut controls = [const { Control::EMPTY }; BATCH];
        let mut vectors = [libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        }; BATCH];
        // SAFETY: all-zero bytes are a valid `mmsghdr`.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };

        let offered = buffers.offer();
        let count = offered.len().min(metas.len()).min(BATCH);
        for ((((buffer, header), name), control), vector) in offered
            .zip(&mut headers)
            .zip(&mut names)
            .zip(&mut controls)
            .zip(&mut vectors)
            .take(count)
        {
            *vector = libc::iovec {
                iov_base: buffer.as_mut_ptr().cast(),
                iov_len: buffer.len(),
            };
            header.msg_hdr.msg_name = (&raw mut *name).cast();
            header.msg_hdr.msg_namelen = Name::LEN;
            header.msg_hdr.msg_iov = &raw mut *vector;
            header.msg_hdr.msg_iovlen = 1 as _;
            header.msg_hdr.msg_control = control.as_mut_ptr();
            header.msg_hdr.msg_controllen = Control::LEN as _;
        }
        add(&counters.recv_calls, 1);
        // SAFETY: the first `count` headers were filled in above; they point to arrays of this function and
        // to the caller's buffers, which all outlive the call.
        let rc = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        if rc < 0 {
            return Err(io::Error::last_os_error());
        }

        let mut useful = 0;
        let mut datagrams = 0;
        let mut bytes = 0;
        for (i, (header, name)) in headers
            .iter()
            .zip(&names)
            .enumerate()
            .take(usize::try_from(rc).unwrap_or(0))
        {
            // SAFETY: the kernel has filled in the header, and its control buffer is still there.
            let beside = unsafe { control::read(&header.msg_hdr) };
            if let Some(drops) = beside.drops {
                let new = drops.wrapping_sub(self.drops.swap(drops, Relaxed));
                add(&counters.recv_overflows, new as usize);
            }
            let mut len = header.msg_len as usize;
            if header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
                add(&counters.recv_truncated, 1);
                // Only whole datagrams are of use: those of a run that were not cut off.
                len -= len.checked_rem(beside.segment).unwrap_or(len);
            }
            let Some(src) = name.decode(header.msg_hdr.msg_namelen).filter(|_| len != 0) else {
                if header.msg_len == 0 {
                    add(&counters.recv_empty, 1);
                }
                continue;
            };
            let segment = match beside.segment {
                0 => len,
                s => s.min(len),
            };
            let Some(meta) = metas.get_mut(useful) else {
                break;
            };
            *meta = RecvMeta {
                src: unmapped(src),
                dst_ip: beside.dst_ip.or(self.local_ip),
                ecn: beside.class.and_then(Ecn::from_bits),
                len,
                segment,
                buffer: i,
                offset: 0,
            };
            useful += 1;
            datagrams += meta.datagrams();
            bytes += len;
            if segment < len {
                add(&counters.recv_coalesced_runs, 1);
            }
        }
        add(&counters.recv_datagrams, datagrams);
        add(&counters.recv_bytes, bytes);
        Ok(buffers.join(&mut metas[..useful], usize::try_from(rc).unwrap_or(0)))
    }
}
