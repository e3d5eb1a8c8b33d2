//! Opens sockets with what the configuration asks for, and says what was not granted.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use fulmar_cipher::NonceSpace;
use fulmar_config::Config;
use fulmar_netio::{Details, Granted, RawTcp, RawTcpError, RawTcpOptions, SocketOptions};
use tracing::{debug, info, warn};

use crate::Error;
use crate::log_kind::START_LOG;
use crate::socket::Datagrams;

/// What a session or a socket needs of chance.
pub(crate) struct Random {
    /// A conversation number.
    pub(crate) conv: u32,
    /// For drawing a port.
    pub(crate) number: u64,
}

/// Fresh randomness of the system.
///
/// # Errors
/// When the system has none.
pub(crate) fn random() -> Result<Random, Error> {
    let conv = getrandom::u32().map_err(|e| Error::Random(e.to_string()))?;
    let number = getrandom::u64().map_err(|e| Error::Random(e.to_string()))?;
    Ok(Random { conv, number })
}

/// Nonces for all ciphers of one service. It keeps them as long as it lives, so that it knows its own packets.
///
/// # Errors
/// When the system has no randomness.
pub(crate) fn nonces() -> Result<NonceSpace, Error> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|e| Error::Random(e.to_string()))?;
    Ok(NonceSpace::new(seed))
}

fn options(config: &Config) -> SocketOptions {
    SocketOptions {
        recv_buffer: Some(config.tunnel.sock_buf),
        send_buffer: Some(config.tunnel.sock_buf),
        dscp: (config.tunnel.dscp != 0).then_some(config.tunnel.dscp),
        ..SocketOptions::default()
    }
}

/// A UDP socket on `addr`; `wildcard` serves both families when `addr` is every address.
///
/// # Errors
/// When the address cannot be had.
pub(crate) fn udp(config: &Config, addr: SocketAddr, wildcard: bool) -> Result<Datagrams, Error> {
    let options = options(config);
    let bound = if wildcard && addr.ip().is_unspecified() {
        fulmar_netio::bind_wildcard(addr.port(), &options)
    } else {
        fulmar_netio::bind(addr, &options)
    };
    datagrams(addr, &options, bound, wildcard)
}

/// The sockets of several drivers on one port, among which the kernel divides the peers.
pub(crate) struct Group {
    addr: SocketAddr,
    /// How many are open.
    members: Mutex<usize>,
}

impl Group {
    /// A group on `addr`, with its first socket.
    ///
    /// # Errors
    /// When the address cannot be had, or the system has no such groups.
    pub(crate) fn new(config: &Config, addr: SocketAddr) -> Result<(Self, Datagrams), Error> {
        let group = Self {
            addr,
            members: Mutex::new(0),
        };
        let first = group.open(config)?;
        Ok((group, first))
    }

    /// Another socket of the group. When none is open any more the port is taken anew, so that the group never mixes with that
    /// of another program.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub(crate) fn open(&self, config: &Config) -> Result<Datagrams, Error> {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        let mut options = options(config);
        let bound = if *members == 0 {
            fulmar_netio::bind_group(self.addr, true, &options)
        } else {
            options.reuse_port = true;
            if self.addr.ip().is_unspecified() {
                fulmar_netio::bind_wildcard(self.addr.port(), &options)
            } else {
                fulmar_netio::bind(self.addr, &options)
            }
        };
        let socket = datagrams(self.addr, &options, bound, true)?;
        *members += 1;
        Ok(socket)
    }

    /// Its address.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// One of its sockets has been closed.
    pub(crate) fn closed(&self) {
        *self.members.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
    }
}

fn datagrams(
    addr: SocketAddr,
    options: &SocketOptions,
    bound: io::Result<(std::net::UdpSocket, Granted)>,
    server: bool,
) -> Result<Datagrams, Error> {
    let (socket, granted) = bound.map_err(listen_error(addr))?;
    tell_granted(options, &granted, "--sockbuf");
    // Only who is reached at several addresses has to know which one was asked.
    let details = Details {
        destination: server,
        congestion: false,
    };
    Datagrams::udp(socket, details).map_err(listen_error(addr))
}

fn listen_error(addr: SocketAddr) -> impl Fn(io::Error) -> Error {
    move |source| Error::Listen {
        addr: format!("{addr}/udp"),
        source,
    }
}

/// Says once what the system did not grant.
pub(crate) fn tell_granted(options: &SocketOptions, granted: &Granted, option: &str) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    for setting in &granted.relied {
        debug!(target: START_LOG, "socket option {setting}");
    }
    let receive = granted.recv_buffer_clamped(options);
    let send = granted.send_buffer_clamped(options);
    if (receive.is_none() && send.is_none() && granted.refused.is_empty())
        || TOLD.swap(true, Relaxed)
    {
        return;
    }
    if let Some(asked) = receive {
        warn!(
            target: START_LOG, "the receive buffer is {} bytes, not the {asked} of {option}: raise net.core.rmem_max",
            granted.recv_buffer
        );
    }
    if let Some(asked) = send {
        warn!(
            target: START_LOG, "the send buffer is {} bytes, not the {asked} of {option}: raise net.core.wmem_max",
            granted.send_buffer
        );
    }
    for refused in &granted.refused {
        warn!(target: START_LOG, "the system refuses {refused}");
    }
}

/// TCP-looking packets to `remote`. The kernels connect first, which may take seconds.
///
/// # Errors
/// When the system has none, the program may not, or nobody accepts there.
pub(crate) async fn raw_client(config: &Config, remote: SocketAddr) -> Result<Datagrams, Error> {
    let options = raw_options(config);
    blocking(move || RawTcp::dial(remote, &options)).await
}

/// TCP-looking packets on `addr`.
///
/// # Errors
/// When the system has none, the program may not, or the port is taken.
pub(crate) async fn raw_server(config: &Config, addr: SocketAddr) -> Result<Datagrams, Error> {
    let options = raw_options(config);
    blocking(move || RawTcp::listen(addr, &options)).await
}

fn raw_options(config: &Config) -> RawTcpOptions {
    RawTcpOptions {
        socket: options(config),
        ..RawTcpOptions::default()
    }
}

async fn blocking(
    make: impl FnOnce() -> Result<RawTcp, RawTcpError> + Send + 'static,
) -> Result<Datagrams, Error> {
    let made = tokio::task::spawn_blocking(make)
        .await
        .map_err(|e| Error::RawTcp(e.to_string()))?;
    let raw = made.map_err(|e| Error::RawTcp(e.to_string()))?;
    if let Some(firewall) = raw.firewall() {
        info!(target: START_LOG, "firewall rule in force: {firewall}");
    }
    Datagrams::raw(raw).map_err(|e| Error::RawTcp(e.to_string()))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use fulmar_config::{Environment, Invocation, Side, from_args};

    #[tokio::test]
    async fn a_group_comes_back_and_never_mixes_with_another() {
        let config = match from_args(Side::Server, &[], &Environment::default()) {
            Ok(Invocation::Run(loaded)) => loaded.config,
            other => panic!("{other:?}"),
        };
        let free = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let addr = free.local_addr().expect("bound");
        drop(free);
        let (group, first) = Group::new(&config, addr).expect("the port is free");
        let second = group.open(&config).expect("joined");
        // One fails and comes back, with the other there.
        drop(first);
        group.closed();
        let first = group.open(&config).expect("joined");
        assert!(Group::new(&config, addr).is_err(), "somebody else's port");
        // Both fail, and somebody else is faster.
        drop((first, second));
        group.closed();
        group.closed();
        let (other, theirs) = Group::new(&config, addr).expect("the port is free");
        assert!(group.open(&config).is_err(), "it would join the others");
        drop(theirs);
        other.closed();
        group.open(&config).expect("the port is free");
    }
}
