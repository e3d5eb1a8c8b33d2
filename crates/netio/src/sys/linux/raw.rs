//! Raw sockets for TCP segments, and what only the kernel knows of its own connections.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::AtomicU32;

use fulmar_wire::rawtcp::Flags;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::batch;
use super::control::{Control, Writer};
use super::name::Name;
use super::options::{int, set_int};
use crate::counters::Live;
use crate::options::{Granted, SocketOptions, apply};
use crate::rawtcp::{Agreed, Incoming, Outgoing};
use crate::run::Ecn;

/// A raw socket that sees the TCP segments for one port.
#[derive(Debug)]
pub(crate) struct RawSocket {
    socket: Socket,
    v6: bool,
    tos_v4: u8,
    class_v6: u8,
    drops: AtomicU32,
}

impl RawSocket {
    /// A socket for segments to `local`'s port, of `remote`'s port if given, that have one of `flags`.
    ///
    /// It is bound to `local`'s address, unless that is a wildcard, and connected to `remote`'s.
    pub(crate) fn open(
        local: SocketAddr,
        remote: Option<SocketAddr>,
        flags: Flags,
        options: &SocketOptions,
    ) -> io::Result<(Self, Granted)> {
        let v6 = local.is_ipv6();
        let socket = Socket::new(Domain::for_address(local), Type::RAW, Some(Protocol::TCP))?;
        socket.attach_filter(&filter(v6, local.port(), remote.map(|r| r.port()), flags))?;
        socket.set_nonblocking(true)?;
        let granted = apply(&socket, v6, options)?;
        // A raw socket has no port; one of IPv6 takes only 0 there.
        let no_port = |addr: SocketAddr| {
            let mut addr = addr;
            addr.set_port(0);
            socket2::SockAddr::from(addr)
        };
        if !local.ip().is_unspecified() {
            socket.bind(&no_port(local))?;
        }
        if let Some(remote) = remote {
            socket.connect(&no_port(remote))?;
        }
        let on = |level, name| set_int(&socket, level, name, 1).is_ok();
        on(libc::SOL_SOCKET, libc::SO_RXQ_OVFL);
        if v6 {
            on(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO);
            on(libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS);
        }
        // What arrived between opening the socket and attaching the filter may be anyone's.
        while socket
            .recv(&mut [std::mem::MaybeUninit::uninit(); 1])
            .is_ok()
        {}

        let class = |class: io::Result<u32>| class.map_or(0, |c| (c & 0xfc) as u8);
        let raw = Self {
            tos_v4: if v6 { 0 } else { class(socket.tos_v4()) },
            class_v6: if v6 { class(socket.tclass_v6()) } else { 0 },
            v6,
            socket,
            drops: AtomicU32::new(0),
        };
        Ok((raw, granted))
    }

    pub(crate) fn is_v6(&self) -> bool {
        self.v6
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(crate) fn duplicate(&self) -> io::Result<UdpSocket> {
        Ok(self.socket.try_clone()?.into())
    }

    /// Receives packets, the i-th into the i-th [`SLOT`] bytes of `room`, and describes them; returns how many.
    pub(crate) fn recv(
        &self,
        room: &mut [u8],
        arrived: &mut [Incoming],
        counters: &Live,
    ) -> io::Result<usize> {
        batch::recv(&self.socket, room, arrived, counters, &self.drops)
    }

    /// Sends `segments` to one peer (`None`: the one that the socket is connected to), from `src` if given;
    /// returns how many the kernel took.
    pub(crate) fn send(
        &self,
        dst: Option<SocketAddr>,
        src: Option<IpAddr>,
        ecn: Option<Ecn>,
        segments: &[Outgoing<'_>],
    ) -> io::Result<usize> {
        let (mut name, name_len) = match dst {
            Some(mut dst) => {
                dst.set_port(0);
                Name::encode(dst, self.v6)
            }
            None => (Name::EMPTY, 0),
        };
        let mut control = Control::EMPTY;
        let mut writer = Writer::new(&mut control);
        if let Some(ecn) = ecn {
            if self.v6 {
                writer.class_v6(self.class_v6 | ecn.bits());
            } else {
                writer.tos_v4(self.tos_v4 | ecn.bits());
            }
        }
        if let Some(src) = src {
            writer.source(src);
        }
        let control_len = writer.len();

        let parts = segments.iter().map(|segment| {
            let front = segment.header.get(..segment.header_len).unwrap_or_default();
            [front, segment.payload]
        });
        batch::send(
            &self.socket,
            (&mut name, name_len),
            (&mut control, control_len),
            parts,
        )
    }
}

/// Whether an error means that the program may not open raw sockets.
pub(crate) fn is_missing_capability(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES))
}

/// What the kernels at both ends of a connection agreed on.
pub(crate) fn agreed(connection: &TcpStream) -> Agreed {
    // The beginning of `struct tcp_info`: six single bytes, of which the last holds the options, and two
    // fields of four bits, which C compilers begin at the end where the machine begins its bytes.
    const OPTIONS_AT: usize = 5;
    const SCALES_AT: usize = 6;
    const TIMESTAMPS: u8 = 1;
    const WINDOW_SCALING: u8 = 4;
    let mut info = [0_u8; 8];
    let mut len = info.len() as libc::socklen_t;
    // SAFETY: the descriptor is open for as long as it is borrowed; the pointers describe `info` and `len`,
    // which live until the call returns, and the kernel writes at most `len` bytes.
    let rc = unsafe {
        libc::getsockopt(
            connection.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if rc != 0 || (len as usize) <= SCALES_AT {
        return Agreed::default();
    }
    let options = info[OPTIONS_AT];
    // The scale of what we may send.
    let scale = if cfg!(target_endian = "little") {
        info[SCALES_AT] & 15
    } else {
        info[SCALES_AT] >> 4
    };
    Agreed {
        peer_scale: if options & WINDOW_SCALING != 0 {
            scale
        } else {
            0
        },
        timestamps: int(connection, libc::IPPROTO_TCP, libc::TCP_TIMESTAMP)
            .ok()
            .filter(|_| options & TIMESTAMPS != 0)
            // A 32-bit clock in a signed type.
            .map(i32::cast_unsigned),
    }
}

/// Closes a connection without a word to the peer, where the kernel permits it (`CAP_NET_ADMIN`).
///
/// The kernel's own end of a connection has numbers that nobody on the path knows any more, and it would
/// repeat its FIN for minutes.
pub(crate) fn close_silently(connection: TcpStream) {
    let _ = set_int(&connection, libc::IPPROTO_TCP, libc::TCP_REPAIR, 1);
    drop(connection);
}

/// A filter that accepts TCP segments to `port`, from `from_port` if given, with any of `flags`.
fn filter(v6: bool, port: u16, from_port: Option<u16>, flags: Flags) -> Vec<SockFilter> {
    // Classic BPF, by its numbers: not every C library's headers have them.
    const LOAD_HALF: u16 = 0x48;
    const LOAD_BYTE: u16 = 0x50;
    const HEADER_LEN_TO_X: u16 = 0xb1;
    const SET_X: u16 = 0x01;
    const IF_EQUAL: u16 = 0x15;
    const IF_ANY: u16 = 0x45;
    const RETURN: u16 = 0x06;

    let mut program = Vec::with_capacity(9);
    // A raw socket of IPv4 sees the IP header, whose length is in its first byte; one of IPv6 does not.
    program.push(if v6 {
        SockFilter::new(SET_X, 0, 0, 0)
    } else {
        SockFilter::new(HEADER_LEN_TO_X, 0, 0, 0)
    });
    // How far it is from a test to the instruction that refuses.
    let mut tests_left = if from_port.is_some() { 3_u8 } else { 2 };
    let mut refuse = || {
        tests_left -= 1;
        tests_left * 2 + 1
    };
    program.push(SockFilter::new(LOAD_HALF, 0, 0, 2));
    program.push(SockFilter::new(IF_EQUAL, 0, refuse(), u32::from(port)));
    if let Some(from_port) = from_port {
        program.push(SockFilter::new(LOAD_HALF, 0, 0, 0));
        program.push(SockFilter::new(IF_EQUAL, 0, refuse(), u32::from(from_port)));
    }
    program.push(SockFilter::new(LOAD_BYTE, 0, 0, 13));
    program.push(SockFilter::new(IF_ANY, 0, refuse(), u32::from(flags.0)));
    program.push(SockFilter::new(RETURN, 0, 0, u32::MAX));
    program.push(SockFilter::new(RETURN, 0, 0, 0));
    program
}
