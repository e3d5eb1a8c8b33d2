//! Socket options: every one is set here, read back here, and set nowhere else.
//!
//! What is not asked for stays as the system made it, except what the rest of the program relies on
//! ([`Granted::relied`]): that is set on every UDP socket, because defaults differ between kernels, with sysctls, and on
//! sockets that are inherited. Most important is what happens to a datagram that is longer than the path takes. A segment of KCP
//! cannot be cut again once it has a number, so it must be able to pass in fragments:
//!
//! * IPv4, and IPv4 peers of a dual-stack socket: no DF (`IP_PMTUDISC_OMIT`, else `DONT`). By default Linux sets DF on
//!   single datagrams and not on those of a segmented run, so that only the former would be lost.
//! * IPv6, where routers do not fragment: this host does, by the path MTU that ICMP reports (`IPV6_PMTUDISC_WANT`).
//!
//! Raw and packet sockets are not touched. [`Transmit::probe`](crate::Transmit::probe) is the exception for single datagrams.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::sys;

/// What a socket should be like. The default asks for nothing.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct SocketOptions {
    /// Bytes of the kernel's receive buffer; `None`: as the system has it.
    ///
    /// Too small loses datagrams in bursts ([`crate::IoCounters::recv_overflows`]); too large costs up to
    /// that much memory when the program does not keep up. Systems clamp it (Linux: `net.core.rmem_max`,
    /// unless the program may exceed that); what was granted is in [`Granted::recv_buffer`].
    pub recv_buffer: Option<usize>,
    /// Bytes of the kernel's send buffer; `None`: as the system has it.
    ///
    /// Too small makes the socket full after a few runs; too large lets a queue build up in this host, which
    /// delays everything behind it. Clamped like the receive buffer (Linux: `net.core.wmem_max`).
    pub send_buffer: Option<usize>,
    /// Differentiated-services code point, 0 to 63, of every datagram; `None`: as the system has it, 0.
    ///
    /// It is written into the upper six bits of the IPv4 TOS byte and of the IPv6 traffic class alike, as
    /// RFC 2474 says. kcptun writes the unshifted number into the IPv6 traffic class (docs/spec/kcptun.md,
    /// section 8.5), which is another code point; nothing but routers ever looks at it, so nothing depends
    /// on repeating that.
    pub dscp: Option<u8>,
    /// Several sockets share the port, and the kernel spreads the peers over them.
    pub reuse_port: bool,
    /// An IPv6 socket takes IPv6 only. Otherwise one on a wildcard address takes IPv4 as well.
    pub only_v6: bool,
    /// Linux: the mark of every datagram, for routing rules and firewalls. Needs `CAP_NET_ADMIN`.
    pub mark: Option<u32>,
    /// Linux: the network device that everything goes through, whatever the routing table says.
    pub device: Option<String>,
}

/// What the system granted of [`SocketOptions`], read back from the socket.
#[derive(Default, Debug)]
pub struct Granted {
    /// Bytes of the receive buffer that hold datagrams, in the unit in which they are asked for.
    pub recv_buffer: usize,
    /// Bytes of the send buffer, in the unit in which they are asked for.
    pub send_buffer: usize,
    /// The code point in force; `None` if the system does not tell.
    pub dscp: Option<u8>,
    /// The mark in force, if one was asked for.
    pub mark: Option<u32>,
    /// The device in force, if one was asked for.
    pub device: Option<String>,
    /// What the program relies on: options that are set on every UDP socket, as they are now. Empty where the system has no
    /// such options.
    pub relied: Vec<KernelSetting>,
    /// What the system refused although the socket works without: buffer sizes, the code point, options relied on. A
    /// refused mark, device or port sharing is an error of [`bind`] instead, because datagrams would take a way that
    /// they must not take.
    pub refused: Vec<OptionError>,
}

/// A socket option as it was read back, by the names of the system's manual.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KernelSetting {
    /// Such as `IP_MTU_DISCOVER`.
    pub name: &'static str,
    /// Such as `OMIT`.
    pub value: String,
}

impl fmt::Display for KernelSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.value)
    }
}

impl Granted {
    /// The receive buffer that was asked for, if it is larger than what was granted.
    #[must_use]
    pub fn recv_buffer_clamped(&self, options: &SocketOptions) -> Option<usize> {
        options
            .recv_buffer
            .filter(|&asked| asked > self.recv_buffer)
    }

    /// The send buffer that was asked for, if it is larger than what was granted.
    #[must_use]
    pub fn send_buffer_clamped(&self, options: &SocketOptions) -> Option<usize> {
        options
            .send_buffer
            .filter(|&asked| asked > self.send_buffer)
    }
}

/// An option, or another step on the way to a bound socket, that the system refused.
///
/// It is what an [`io::Error`] of [`bind`] contains; that error's kind is the one of `source`.
#[derive(Debug)]
pub struct OptionError {
    /// What was asked for, such as `mark 7`.
    pub what: String,
    /// What the system answered.
    pub source: io::Error,
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.source)
    }
}

impl std::error::Error for OptionError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl From<OptionError> for io::Error {
    fn from(e: OptionError) -> Self {
        Self::new(e.source.kind(), e)
    }
}

/// A non-blocking UDP socket on `addr`.
///
/// # Errors
///
/// Whatever keeps the socket from being opened and bound, and a refused mark, device or port sharing; the
/// error contains an [`OptionError`] that says which. A code point above 63 is
/// [`io::ErrorKind::InvalidInput`].
pub fn bind(addr: SocketAddr, options: &SocketOptions) -> io::Result<(UdpSocket, Granted)> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))
        .map_err(|e| failed("open a UDP socket", e))?;
    if addr.is_ipv6() {
        // Set in either case: systems differ in what a fresh socket has.
        socket
            .set_only_v6(options.only_v6)
            .map_err(|e| failed(format!("only_v6 {}", options.only_v6), e))?;
    }
    if options.reuse_port {
        sys::set_reuse_port(&socket).map_err(|e| failed("share the port", e))?;
    }
    let granted = apply_udp(&socket, addr.is_ipv6(), options)?;
    socket
        .set_nonblocking(true)
        .map_err(|e| failed("make the socket non-blocking", e))?;
    socket
        .bind(&addr.into())
        .map_err(|e| failed(format!("bind {addr}"), e))?;
    Ok((socket.into(), granted))
}

/// A non-blocking UDP socket on every address of this host, of both families where the host has both.
///
/// # Errors
///
/// See [`bind`].
pub fn bind_wildcard(port: u16, options: &SocketOptions) -> io::Result<(UdpSocket, Granted)> {
    match bind((Ipv6Addr::UNSPECIFIED, port).into(), options) {
        // A host without IPv6 refuses the socket or the address. Any other reason, such as a port in use,
        // would come again or, worse, be hidden by the other family.
        Err(e)
            if !options.only_v6
                && matches!(
                    e.kind(),
                    io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported
                ) =>
        {
            bind((Ipv4Addr::UNSPECIFIED, port).into(), options)
        }
        Err(e) if !options.only_v6 && sys::is_family_missing(&e) => {
            bind((Ipv4Addr::UNSPECIFIED, port).into(), options)
        }
        other => other,
    }
}

/// Whether the kernel gives each socket of a group (see [`bind_group`]) its share of the peers. Elsewhere
/// several sockets may be allowed on one port, but one of them gets everything.
pub const GROUPS_BALANCE: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// The first socket of a group that shares a port, for `addr` or, if `wildcard` and `addr` is every address,
/// as [`bind_wildcard`] does it. The others come from [`bind`] with [`SocketOptions::reuse_port`] and the
/// local address of this one.
///
/// The port must be free: it is taken by a socket that shares nothing, then opened for sharing, and only then
/// does the first socket of the group join that one, which is closed. So of two programs that make a group in
/// this way the second always gets [`io::ErrorKind::AddrInUse`], however close they come. A program that asks
/// for sharing at once, without being the first, is let in by the kernel if it belongs to the same user: that
/// is no accident. A datagram that arrives at the socket that is closed is lost, as on the network.
///
/// # Errors
///
/// See [`bind`]; and where the kernel has no such groups.
pub fn bind_group(
    addr: SocketAddr,
    wildcard: bool,
    options: &SocketOptions,
) -> io::Result<(UdpSocket, Granted)> {
    let alone = SocketOptions {
        reuse_port: false,
        ..options.clone()
    };
    let (holder, _) = if wildcard && addr.ip().is_unspecified() {
        bind_wildcard(addr.port(), &alone)?
    } else {
        bind(addr, &alone)?
    };
    // The kernel wants it of every socket of a group, and asks when another one binds.
    sys::set_reuse_port(&SockRef::from(&holder)).map_err(|e| failed("share the port", e))?;
    let addr = holder.local_addr()?;
    let shared = SocketOptions {
        reuse_port: true,
        ..alone
    };
    bind(addr, &shared)
}

/// Sets the options on a socket that exists and is bound already, such as one inherited from a supervisor,
/// and makes it non-blocking.
///
/// `reuse_port` and `only_v6` can no longer be changed and are left as they are.
///
/// # Errors
///
/// See [`bind`].
pub fn adopt(socket: &UdpSocket, options: &SocketOptions) -> io::Result<Granted> {
    let v6 = socket.local_addr()?.is_ipv6();
    socket.set_nonblocking(true)?;
    apply_udp(&SockRef::from(socket), v6, options)
}

/// Sets and reads back what can be set on a UDP socket, bound or not.
fn apply_udp(socket: &Socket, v6: bool, options: &SocketOptions) -> io::Result<Granted> {
    let mut granted = apply(socket, v6, options)?;
    granted.relied = sys::set_relied(socket, v6, &mut granted.refused);
    Ok(granted)
}

/// Sets and reads back what can be set on any socket, bound or not, of any type.
pub(crate) fn apply(socket: &Socket, v6: bool, options: &SocketOptions) -> io::Result<Granted> {
    let mut granted = Granted::default();

    route(socket, options, &mut granted)?;
    if let Some(dscp) = options.dscp {
        if dscp > 63 {
            return Err(failed(
                format!("dscp {dscp}"),
                io::Error::new(io::ErrorKind::InvalidInput, "a code point is 0 to 63"),
            ));
        }
        let class = u32::from(dscp) << 2;
        // IPv4 through a dual-stack socket takes the IPv4 option, so both are set there.
        if let Err(e) = socket.set_tos_v4(class)
            && !(v6 && socket.only_v6().unwrap_or(false))
        {
            granted.refused.push(OptionError {
                what: format!("dscp {dscp} (IPv4)"),
                source: e,
            });
        }
        if v6 && let Err(e) = sys::set_traffic_class_v6(socket, class) {
            granted.refused.push(OptionError {
                what: format!("dscp {dscp} (IPv6)"),
                source: e,
            });
        }
    }
    granted.dscp = if v6 {
        sys::traffic_class_v6(socket)
    } else {
        socket.tos_v4()
    }
    .ok()
    .and_then(|class| u8::try_from(class >> 2).ok());

    if let Some(bytes) = options.recv_buffer {
        if let Err(e) = socket.set_recv_buffer_size(bytes) {
            granted.refused.push(OptionError {
                what: format!("receive buffer of {bytes} bytes"),
                source: e,
            });
        }
        if recv_buffer(socket)? < bytes {
            // Only a privileged program may go past the system's limit. When it may not, the clamp shows.
            let _ = sys::force_recv_buffer(socket, bytes);
        }
    }
    if let Some(bytes) = options.send_buffer {
        if let Err(e) = socket.set_send_buffer_size(bytes) {
            granted.refused.push(OptionError {
                what: format!("send buffer of {bytes} bytes"),
                source: e,
            });
        }
        if send_buffer(socket)? < bytes {
            let _ = sys::force_send_buffer(socket, bytes);
        }
    }
    granted.recv_buffer = recv_buffer(socket)?;
    granted.send_buffer = send_buffer(socket)?;
    Ok(granted)
}

/// Sets and reads back what decides which way datagrams take.
pub(crate) fn route(
    socket: &Socket,
    options: &SocketOptions,
    granted: &mut Granted,
) -> io::Result<()> {
    if let Some(mark) = options.mark {
        sys::set_mark(socket, mark).map_err(|e| failed(format!("mark {mark}"), e))?;
        granted.mark = Some(sys::mark(socket)?);
    }
    if let Some(device) = &options.device {
        sys::set_device(socket, device).map_err(|e| failed(format!("device {device}"), e))?;
        granted.device = sys::device(socket)?;
    }
    Ok(())
}

fn recv_buffer(socket: &Socket) -> io::Result<usize> {
    Ok(socket.recv_buffer_size()? / sys::BUFFER_FACTOR)
}

fn send_buffer(socket: &Socket) -> io::Result<usize> {
    Ok(socket.send_buffer_size()? / sys::BUFFER_FACTOR)
}

fn failed(what: impl Into<String>, source: io::Error) -> io::Error {
    OptionError {
        what: what.into(),
        source,
    }
    .into()
}
