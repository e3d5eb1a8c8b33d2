//! Opens sockets with what the configuration asks for, and says what was not granted.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use fulmar_config::Config;
use fulmar_netio::{Details, Granted, RawTcp, RawTcpError, RawTcpOptions, SocketOptions};
use tracing::{info, warn};

use crate::Error;
use crate::socket::Datagrams;

/// What a session or a socket needs of chance.
pub(crate) struct Random {
    /// Seed of the nonces of a cipher.
    pub(crate) seed: [u8; 32],
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
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|e| Error::Random(e.to_string()))?;
    let conv = getrandom::u32().map_err(|e| Error::Random(e.to_string()))?;
    let number = getrandom::u64().map_err(|e| Error::Random(e.to_string()))?;
    Ok(Random { seed, conv, number })
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
    let (socket, granted) = bound.map_err(|e| Error::Listen {
        addr: format!("{addr}/udp"),
        source: e,
    })?;
    tell_granted(&options, &granted);
    // Only who is reached at several addresses has to know which one was asked.
    let details = Details {
        destination: wildcard,
        congestion: false,
    };
    Datagrams::udp(socket, details).map_err(|e| Error::Listen {
        addr: format!("{addr}/udp"),
        source: e,
    })
}

/// Says once what the system did not grant.
fn tell_granted(options: &SocketOptions, granted: &Granted) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    let receive = granted.recv_buffer_clamped(options);
    let send = granted.send_buffer_clamped(options);
    if (receive.is_none() && send.is_none() && granted.refused.is_empty())
        || TOLD.swap(true, Relaxed)
    {
        return;
    }
    if let Some(asked) = receive {
        warn!(
            "the receive buffer is {} bytes, not the {asked} of --sockbuf: raise net.core.rmem_max",
            granted.recv_buffer
        );
    }
    if let Some(asked) = send {
        warn!(
            "the send buffer is {} bytes, not the {asked} of --sockbuf: raise net.core.wmem_max",
            granted.send_buffer
        );
    }
    for refused in &granted.refused {
        warn!("the system refuses {refused}");
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
        info!("firewall rule in force: {firewall}");
    }
    Datagrams::raw(raw).map_err(|e| Error::RawTcp(e.to_string()))
}
