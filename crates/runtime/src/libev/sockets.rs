//! The sockets of a kcptun-libev process, with what its configuration asks of them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use fulmar_config::libev::{HostPort, LibevConfig, LibevRole, Obfs, Place};
use fulmar_netio::{Details, Granted, ObfsKind, ObfsOptions, SocketOptions};
use tokio::net::{TcpListener, TcpSocket};
use tracing::{info, warn};

use crate::conn::Tuning;
use crate::listen::Listener;
use crate::log_kind::START_LOG;
use crate::socket::Datagrams;
use crate::{Error, open, resolve as names};

/// Connections that the kernel holds until they are accepted; it cuts this to its own limit.
const BACKLOG: u32 = 4096;
/// Bytes of the UDP socket's buffers where the file names none: the system's own are too small for a burst.
const UDP_BUFFER: usize = 4 << 20;

/// What connections of applications and services are like.
pub(super) fn tuning(config: &LibevConfig) -> Tuning {
    let bytes = |n: usize| (n > 0).then_some(n);
    Tuning {
        nodelay: config.tcp.nodelay,
        keepalive: None,
        system_keepalive: config.tcp.keepalive,
        send_buffer: bytes(config.tcp.sndbuf),
        recv_buffer: bytes(config.tcp.rcvbuf),
    }
}

/// The listener for applications.
///
/// # Errors
/// When the address cannot be had.
pub(super) async fn listener(addr: &HostPort, config: &LibevConfig) -> Result<Listener, Error> {
    Ok(Listener::tcp(tcp(addr, config).await?, tuning(config)))
}

/// A TCP listener.
///
/// # Errors
/// When the address cannot be had.
pub(super) async fn tcp(addr: &HostPort, config: &LibevConfig) -> Result<TcpListener, Error> {
    let failed = |source| Error::Listen {
        addr: format!("{addr}/tcp"),
        source,
    };
    let all = resolve(addr).await?;
    let mut last = io::ErrorKind::AddrNotAvailable.into();
    for addr in all {
        match listen(addr, config.tcp.reuseport) {
            Ok(listener) => return Ok(listener),
            Err(e) => last = e,
        }
    }
    Err(failed(last))
}

fn listen(addr: SocketAddr, reuseport: bool) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    #[cfg(unix)]
    {
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(reuseport)?;
    }
    #[cfg(not(unix))]
    if reuseport {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "tcp.reuseport: this system has no such option",
        ));
    }
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

async fn resolve(addr: &HostPort) -> Result<Vec<SocketAddr>, Error> {
    names::local(addr.host_or_any(), addr.port.number)
        .await
        .map_err(|source| Error::Resolve {
            host: addr.host.clone(),
            source,
        })
}

/// The local address that the file names for the tunnel.
pub(super) fn place(config: &LibevConfig) -> Option<&HostPort> {
    match (&config.role, config.role.place()) {
        (LibevRole::Client { .. }, Some(Place::Direct(_))) => config.client_bind.as_ref(),
        (_, Some(Place::Direct(bind))) => Some(bind),
        (_, Some(Place::Rendezvous { bind, .. })) => bind.as_ref(),
        (LibevRole::Relay { bind, .. }, _) => Some(bind),
        (_, None) => None,
    }
}

/// Whether the tunnel has a local port that somebody chose.
pub(super) fn is_bound(config: &LibevConfig) -> bool {
    place(config).is_some_and(|addr| addr.port.number != 0)
}

/// The socket of the tunnel. `remote` is whom it is for, if that is known; then it has that family, or both.
///
/// # Errors
/// When the address cannot be had.
pub(super) async fn datagrams(
    config: &LibevConfig,
    remote: &[SocketAddr],
) -> Result<Datagrams, Error> {
    if let Some(obfs) = config.obfs {
        return obfuscated(config, obfs, remote).await;
    }
    let local = match place(config) {
        Some(addr) => resolve(addr).await?[0],
        None if remote.iter().any(SocketAddr::is_ipv6) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        None => (Ipv4Addr::UNSPECIFIED, 0).into(),
    };
    let failed = |source| Error::Listen {
        addr: format!("{local}/udp"),
        source,
    };
    let (socket, granted) = udp(local, config).map_err(failed)?;
    open::tell_granted(&options(config), &granted, "udp.rcvbuf or udp.sndbuf");
    let details = Details {
        // Who has one address, or is reached through a NAT, need not know which was asked.
        destination: local.ip().is_unspecified()
            && !matches!(config.role, LibevRole::Client { .. }),
        congestion: false,
    };
    let socket = Datagrams::udp(socket, details).map_err(failed)?;
    if let LibevRole::Client { .. } = config.role {
        socket.watch_icmp();
    }
    Ok(socket)
}

/// Packets in the clothes of TCP.
async fn obfuscated(
    config: &LibevConfig,
    obfs: Obfs,
    remote: &[SocketAddr],
) -> Result<Datagrams, Error> {
    let kind = match obfs {
        Obfs::TcpWnd => ObfsKind::TcpWnd,
        Obfs::Tcp => ObfsKind::Tcp,
    };
    let failed = |e: &dyn std::fmt::Display| Error::Obfs(format!("{}: {e}", obfs.name()));
    let local = match place(config) {
        Some(addr) => Some(resolve(addr).await?[0]),
        None => None,
    };
    let host = match &config.role {
        LibevRole::Client {
            place: Place::Direct(server),
            ..
        } => server.to_string(),
        _ => String::new(),
    };
    let options = ObfsOptions {
        socket: options(config),
        accept_bad_checksums: config.ours.accept_bad_checksums,
        host,
        idle_timeout: super::silence_limit(config),
        ..ObfsOptions::default()
    };
    let (remote, client) = (
        remote.first().copied(),
        matches!(config.role, LibevRole::Client { .. }),
    );
    let made = tokio::task::spawn_blocking(move || match (client, remote, local) {
        (true, Some(remote), local) => fulmar_netio::Obfs::dial(kind, remote, local, &options),
        (_, _, Some(local)) => fulmar_netio::Obfs::listen(kind, local, &options),
        (_, _, None) => {
            let any = (Ipv4Addr::UNSPECIFIED, 0).into();
            fulmar_netio::Obfs::listen(kind, any, &options)
        }
    });
    let made = made
        .await
        .map_err(|e| failed(&e))?
        .map_err(|e| failed(&e))?;
    if let Some(rule) = made.firewall() {
        info!(target: START_LOG, "firewall rule in force: {rule}");
    }
    Datagrams::obfs(made).map_err(|e| failed(&e))
}

fn options(config: &LibevConfig) -> SocketOptions {
    let bytes = |n: usize| Some(if n == 0 { UDP_BUFFER } else { n });
    SocketOptions {
        recv_buffer: bytes(config.udp.rcvbuf),
        send_buffer: bytes(config.udp.sndbuf),
        reuse_port: config.udp.reuseport,
        device: config.netdev.clone(),
        ..SocketOptions::default()
    }
}

fn udp(local: SocketAddr, config: &LibevConfig) -> io::Result<(UdpSocket, Granted)> {
    let options = options(config);
    let bind = |options: &SocketOptions| fulmar_netio::bind(local, options);
    match bind(&options) {
        Err(e) if options.device.is_some() => {
            // As upstream: a device that cannot be had is no reason not to run (docs/spec/kcptun-libev.md, section 3.2).
            let without = SocketOptions {
                device: None,
                ..options
            };
            let bound = bind(&without)?;
            warn!(target: START_LOG, "netdev: {e}; datagrams go wherever the system sends them");
            Ok(bound)
        }
        done => done,
    }
}

/// Our addresses, as `remote` may reach them from the same network, with the `port` of the tunnel: a relay tells them to the
/// other end.
pub(super) fn local_addresses(port: Option<u16>, remote: &[SocketAddr]) -> Vec<SocketAddr> {
    let Some(port) = port else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for remote in remote {
        if let Some(ip) = source_towards(*remote)
            && !found.contains(&SocketAddr::new(ip, port))
        {
            found.push(SocketAddr::new(ip, port));
        }
    }
    found
}

/// The address that the system would send from; nothing is sent.
fn source_towards(remote: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = if remote.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(remote).ok()?;
    Some(socket.local_addr().ok()?.ip())
}
