//! Whole IP packets: seen by a packet socket before the kernel's own TCP and its firewall, and sent by a raw socket
//! that is given their headers.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use fulmar_wire::libev_obfs::MAX_FRAME_LEN;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::batch;
use super::control::{Control, PACKET_AUXDATA};
use super::name::Name;
use super::options::set_int;
use crate::counters::Live;
use crate::options::{Granted, SocketOptions, apply};
use crate::rawtcp::Incoming;

/// The headers of a packet to send, and its payload.
#[derive(Copy, Clone)]
pub(crate) struct Whole<'a> {
    pub(crate) header: [u8; MAX_FRAME_LEN],
    pub(crate) header_len: usize,
    pub(crate) payload: &'a [u8],
}

impl Whole<'_> {
    pub(crate) const EMPTY: Self = Self {
        header: [0; MAX_FRAME_LEN],
        header_len: 0,
        payload: &[],
    };
}

/// A socket that sees the TCP packets of one IP version that are for an address of ours.
#[derive(Debug)]
pub(crate) struct Capture {
    socket: Socket,
    v6: bool,
    drops: AtomicU32,
}

impl Capture {
    /// A socket that sees nothing before [`Self::only`] says what it is to see. `device`: a device's number, 0 for all.
    pub(crate) fn open(
        v6: bool,
        device: u32,
        options: &SocketOptions,
    ) -> io::Result<(Self, Granted)> {
        // Without a protocol nothing arrives, so that no packet gets in before there is a filter.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, None)?;
        socket.attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)])?;
        socket.set_nonblocking(true)?;
        let granted = apply(
            &socket,
            false,
            &SocketOptions {
                recv_buffer: options.recv_buffer,
                ..SocketOptions::default()
            },
        )?;
        set_int(&socket, libc::SOL_PACKET, PACKET_AUXDATA, 1)?;
        let _ = set_int(&socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1);
        let protocol = if v6 { libc::ETH_P_IPV6 } else { libc::ETH_P_IP };
        let (name, len) = Name::link(protocol as u16, device);
        // SAFETY: the descriptor is open for as long as it is borrowed; the pointer and the length describe `name`,
        // which lives until the call returns.
        let rc = unsafe {
            libc::bind(
                socket.as_fd().as_raw_fd(),
                (&raw const name).cast::<libc::sockaddr>(),
                len,
            )
        };
        if rc != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((
            Self {
                socket,
                v6,
                drops: AtomicU32::new(0),
            },
            granted,
        ))
    }

    /// Sees from now on what is for `local`, whose address counts unless it is a wildcard, from `remote` if given.
    pub(crate) fn only(&self, local: SocketAddr, remote: Option<SocketAddr>) -> io::Result<()> {
        self.socket
            .attach_filter(&filter(self.v6, local, remote.map(|r| r.port())))
    }

    pub(crate) fn duplicate(&self) -> io::Result<UdpSocket> {
        Ok(self.socket.try_clone()?.into())
    }

    /// See [`super::RawSocket::recv`]. The packets begin with their IP header.
    pub(crate) fn recv(
        &self,
        room: &mut [u8],
        arrived: &mut [Incoming],
        counters: &Live,
    ) -> io::Result<usize> {
        batch::recv(&self.socket, room, arrived, counters, &self.drops)
    }
}

/// A socket that sends packets whose headers are given.
#[derive(Debug)]
pub(crate) struct Injector {
    socket: Socket,
    v6: bool,
}

impl Injector {
    pub(crate) fn open(v6: bool, options: &SocketOptions) -> io::Result<(Self, Granted)> {
        let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
        // That protocol means that headers are given.
        let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
        socket.set_nonblocking(true)?;
        let granted = apply(
            &socket,
            v6,
            &SocketOptions {
                recv_buffer: None,
                dscp: None,
                ..options.clone()
            },
        )?;
        Ok((Self { socket, v6 }, granted))
    }

    pub(crate) fn duplicate(&self) -> io::Result<UdpSocket> {
        Ok(self.socket.try_clone()?.into())
    }

    /// Sends packets to one peer; returns how many the kernel took.
    pub(crate) fn send(&self, mut dst: SocketAddr, packets: &[Whole<'_>]) -> io::Result<usize> {
        dst.set_port(0);
        let (mut name, name_len) = Name::encode(dst, self.v6);
        let mut control = Control::EMPTY;
        let parts = packets.iter().map(|packet| {
            let front = packet.header.get(..packet.header_len).unwrap_or_default();
            [front, packet.payload]
        });
        batch::send(
            &self.socket,
            (&mut name, name_len),
            (&mut control, 0),
            parts,
        )
    }
}

/// The number of the device of that name.
pub(crate) fn device_number(name: &str) -> io::Result<u32> {
    let name = std::ffi::CString::new(name)?;
    // SAFETY: the pointer is to a string with its terminator, which lives until the call returns.
    let number = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if number == 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(number)
}

/// Makes the window that the kernel announces for a connection as small as it can be (docs/spec/kcptun-libev.md, section 13.4).
pub(crate) fn narrow(socket: &Socket) -> io::Result<()> {
    socket.set_send_buffer_size(1)?;
    socket.set_recv_buffer_size(1)?;
    socket.set_tcp_nodelay(true)?;
    set_int(socket, libc::IPPROTO_TCP, libc::TCP_WINDOW_CLAMP, 1)?;
    set_int(socket, libc::IPPROTO_TCP, libc::TCP_QUICKACK, 0)
}

/// What to wait for on a descriptor.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Wanted {
    Readable,
    Writable,
}

/// Waits until something of the wanted comes true, or an error of a descriptor; returns for each whether it has. All
/// false: the time is over, or a signal came.
pub(crate) fn wait(
    wanted: &[(BorrowedFd<'_>, Wanted)],
    timeout: Option<Duration>,
) -> io::Result<Vec<bool>> {
    let mut polls: Vec<_> = wanted
        .iter()
        .map(|(fd, wanted)| libc::pollfd {
            fd: fd.as_raw_fd(),
            events: match wanted {
                Wanted::Readable => libc::POLLIN,
                Wanted::Writable => libc::POLLOUT,
            },
            revents: 0,
        })
        .collect();
    // Rounded up, so that who waits for a moment does not come before it.
    let timeout = timeout.map_or(-1, |t| {
        libc::c_int::try_from(t.as_micros().div_ceil(1000)).unwrap_or(libc::c_int::MAX)
    });
    // SAFETY: the pointer and the count describe `polls`, which lives until the call returns; its descriptors are
    // open for as long as they are borrowed.
    let rc = unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as _, timeout) };
    if rc < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
        return Ok(vec![false; wanted.len()]);
    }
    Ok(polls.iter().map(|poll| poll.revents != 0).collect())
}

const RETURN: u16 = 0x06;

/// A filter of whole IP packets (section 13.1): TCP right behind the IP header, no piece of a packet, for `local`, from
/// the port if given, and not for another host.
fn filter(v6: bool, local: SocketAddr, from_port: Option<u16>) -> Vec<SockFilter> {
    // Classic BPF, by its numbers: not every C library's headers have them.
    const LOAD_WORD: u16 = 0x20;
    const LOAD_HALF: u16 = 0x28;
    const LOAD_BYTE: u16 = 0x30;
    const LOAD_HALF_AT_X: u16 = 0x48;
    const HEADER_LEN_TO_X: u16 = 0xb1;
    const SET_X: u16 = 0x01;
    const AND: u16 = 0x54;
    const IF_EQUAL: u16 = 0x15;
    const IF_ANY: u16 = 0x45;
    /// Where the kernel shows the kind of a packet; 0 is "for this host".
    const KIND_AT: u32 = 0xffff_f000 + 4;

    // Both tests refuse by a jump to the end, whose distance is known when all is written.
    let mut code: Vec<(u16, u32)> = Vec::with_capacity(32);
    code.push((LOAD_HALF, KIND_AT));
    code.push((IF_EQUAL, 0));
    code.push((LOAD_BYTE, 0));
    code.push((AND, 0xf0));
    code.push((IF_EQUAL, if v6 { 0x60 } else { 0x40 }));
    code.push((LOAD_BYTE, if v6 { 6 } else { 9 }));
    code.push((IF_EQUAL, 6));
    if v6 {
        code.push((SET_X, 40));
    } else {
        // More fragments, or an offset.
        code.push((LOAD_HALF, 6));
        code.push((IF_ANY, 0x3fff));
        code.push((HEADER_LEN_TO_X, 0));
    }
    code.push((LOAD_HALF_AT_X, 2));
    code.push((IF_EQUAL, u32::from(local.port())));
    if let Some(from_port) = from_port {
        code.push((LOAD_HALF_AT_X, 0));
        code.push((IF_EQUAL, u32::from(from_port)));
    }
    if !local.ip().is_unspecified() {
        let (at, octets) = match local.ip() {
            IpAddr::V4(ip) => (16, ip.octets().to_vec()),
            IpAddr::V6(ip) => (24, ip.octets().to_vec()),
        };
        for (word, at) in octets.as_chunks::<4>().0.iter().zip((at..).step_by(4)) {
            code.push((LOAD_WORD, at));
            code.push((IF_EQUAL, u32::from_be_bytes(*word)));
        }
    }
    code.push((RETURN, u32::MAX));
    let refuse = code.len();
    code.iter()
        .enumerate()
        .map(|(i, &(operation, value))| {
            // Less than 40 instructions.
            let jump = (refuse - i - 1) as u8;
            match operation {
                IF_EQUAL => SockFilter::new(operation, 0, jump, value),
                IF_ANY => SockFilter::new(operation, jump, 0, value),
                _ => SockFilter::new(operation, 0, 0, value),
            }
        })
        .chain([SockFilter::new(RETURN, 0, 0, 0)])
        .collect()
}
