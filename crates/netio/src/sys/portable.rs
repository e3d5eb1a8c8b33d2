//! One call per datagram, with what every system has. No source address can be chosen, and nothing is known
//! of an arrived datagram but its sender.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};

use socket2::{MaybeUninitSlice, SockAddr, Socket};

use crate::addr::{mapped, unmapped};
use crate::counters::{Live, add};
use crate::run::{RecvBuffers, RecvMeta, Sent, Transmit, Trouble};

/// How often in a row an error or a useless datagram is skipped before the caller gets its turn back.
const MAX_SKIPS: usize = 64;

/// A UDP socket that is called once per datagram.
#[derive(Debug)]
pub(crate) struct Portable {
    v6: bool,
    connected: Option<SocketAddr>,
    /// Our only address, if the socket is bound to one.
    local_ip: Option<IpAddr>,
}

impl Portable {
    pub(crate) fn new(socket: &Socket, _segmentation: bool) -> io::Result<Self> {
        let local = socket.local_addr()?.as_socket();
        Ok(Self {
            v6: local.is_some_and(|a| a.is_ipv6()),
            connected: socket
                .peer_addr()
                .ok()
                .and_then(|a| a.as_socket())
                .map(unmapped),
            local_ip: local
                .map(|a| unmapped(a).ip())
                .filter(|ip| !ip.is_unspecified()),
        })
    }

    /// Whether a run leaves in one call.
    pub(crate) fn segmentation(&self) -> bool {
        false
    }

    /// See [`crate::UdpState::ask`]: there is nothing to choose.
    #[cfg_attr(any(target_os = "linux", target_os = "android"), allow(dead_code))]
    pub(crate) fn ask(&self, _socket: &Socket, _details: crate::udp::Details) {}

    /// See [`crate::UdpState::watch_icmp`]: there is no portable way.
    #[cfg_attr(any(target_os = "linux", target_os = "android"), allow(dead_code))]
    pub(crate) fn watch_icmp(&self, _socket: &Socket) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn send(
        &self,
        socket: &Socket,
        transmits: &[Transmit<'_>],
        counters: &Live,
    ) -> io::Result<Sent> {
        let mut sent = Sent::default();
        for transmit in transmits {
            let to = if self.connected == Some(transmit.dst) {
                None
            } else if self.v6 {
                Some(SockAddr::from(mapped(transmit.dst)))
            } else {
                Some(SockAddr::from(transmit.dst))
            };
            for datagram in transmit.iter() {
                match send_one(socket, datagram, to.as_ref(), counters) {
                    Ok(()) => {
                        sent.datagrams += 1;
                        add(&counters.sent_datagrams, 1);
                        add(&counters.sent_bytes, datagram.len());
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        add(&counters.send_would_block, 1);
                        return if sent.datagrams + sent.lost == 0 {
                            Err(e)
                        } else {
                            Ok(sent)
                        };
                    }
                    Err(e) if super::is_fatal(&e) => return Err(e),
                    Err(e) => {
                        let trouble = super::trouble(&e);
                        counters.lost(trouble, 1);
                        sent.lost += 1;
                        sent.trouble = Some(trouble);
                    }
                }
                sent.bytes += datagram.len();
            }
            sent.runs += 1;
            sent.bytes = 0;
        }
        Ok(sent)
    }

    pub(crate) fn recv(
        &self,
        socket: &Socket,
        buffers: &mut RecvBuffers,
        metas: &mut [RecvMeta],
        counters: &Live,
    ) -> io::Result<usize> {
        let mut filled = 0;
        let mut skips = 0;
        let mut places = buffers.offer().zip(metas.iter_mut());
        let mut place = places.next();
        while skips < MAX_SKIPS {
            let Some((buffer, meta)) = &mut place else {
                break;
            };
            add(&counters.recv_calls, 1);
            match recv_one(socket, buffer) {
                Ok((0, false, _)) => {
                    add(&counters.recv_empty, 1);
                    skips += 1;
                }
                Ok((_, true, _)) => {
                    add(&counters.recv_truncated, 1);
                    skips += 1;
                }
                Ok((len, false, src)) => {
                    let Some(src) = src.or(self.connected) else {
                        skips += 1;
                        continue;
                    };
                    **meta = RecvMeta {
                        src: unmapped(src),
                        dst_ip: self.local_ip,
                        ecn: None,
                        len,
                        segment: len,
                        buffer: filled,
                        offset: 0,
                    };
                    add(&counters.recv_datagrams, 1);
                    add(&counters.recv_bytes, len);
                    filled += 1;
                    place = places.next();
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => skips += 1,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock || super::is_fatal(&e) => {
                    if filled == 0 {
                        return Err(e);
                    }
                    break;
                }
                Err(_) => {
                    add(&counters.recv_errors, 1);
                    skips += 1;
                }
            }
        }
        drop(places);
        Ok(buffers.join(&mut metas[..filled], filled))
    }
}

/// Sends one datagram. An error that an earlier one caused is reported in its place, so it is offered twice.
fn send_one(
    socket: &Socket,
    datagram: &[u8],
    to: Option<&SockAddr>,
    counters: &Live,
) -> io::Result<()> {
    let mut tries = 0;
    loop {
        add(&counters.send_calls, 1);
        let result = match to {
            Some(to) => socket.send_to(datagram, to),
            None => socket.send(datagram),
        };
        tries += 1;
        match result {
            Ok(_) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if tries < 2 && super::trouble(&e) == Trouble::Refused => {}
            Err(e) => return Err(e),
        }
    }
}

/// Receives one datagram: its length, whether it was cut off, its sender.
fn recv_one(socket: &Socket, buffer: &mut [u8]) -> io::Result<(usize, bool, Option<SocketAddr>)> {
    // SAFETY: `MaybeUninit<u8>` has the layout of `u8`, the slice covers exactly the borrowed bytes, and
    // receiving only ever writes initialised bytes into it.
    let uninit: &mut [MaybeUninit<u8>] =
        unsafe { std::slice::from_raw_parts_mut(buffer.as_mut_ptr().cast(), buffer.len()) };
    let (len, flags, src) = socket.recv_from_vectored(&mut [MaybeUninitSlice::new(uninit)])?;
    Ok((len, flags.is_truncated(), src.as_socket()))
}
