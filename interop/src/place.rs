//! Addresses for one tunnel, and when something listens there.
//!
//! Each tunnel gets a loopback address of its own out of `127/8`, with fixed ports below the range from which the
//! kernel picks ports for outgoing sockets. So many tunnels, also of several test processes, run side by side and
//! no port is ever guessed, freed and lost to somebody else. Readiness is read from the kernel's socket tables:
//! nothing is sent to the program that is being waited for.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// Port of the service behind the tunnel.
pub const TARGET_PORT: u16 = 7100;
/// Port where the tunnel's client accepts connections.
pub const ENTRY_PORT: u16 = 7200;
/// Port (the first one) of the tunnel's server.
pub const SERVER_PORT: u16 = 7300;
/// Number of ports that a tunnel's server may use from [`SERVER_PORT`] on.
pub const SERVER_PORTS: u16 = 10;
/// Port of the relay between the two.
pub const RELAY_PORT: u16 = 7400;

/// The address of one tunnel, held until this is dropped.
#[derive(Debug)]
pub struct Place {
    ip: IpAddr,
    // Bound for as long as the place is in use, so that no other process takes the same address.
    _claim: TcpListener,
}

/// Port whose binding means that an address is taken.
const CLAIM_PORT: u16 = 7000;

impl Place {
    /// An address that nobody uses.
    ///
    /// # Errors
    /// When none of a few thousand addresses can be bound.
    pub fn claim() -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let start = std::process::id().wrapping_mul(2_654_435_761);
        let mut last = None;
        for _ in 0..4096 {
            let n = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
            let [a, b, c, _] = n.rotate_left(8).to_be_bytes();
            // 127.16.0.1 ..: away from the addresses that people use by hand.
            let ip = Ipv4Addr::new(127, 16 + a % 224, b, 1 + c % 254);
            match TcpListener::bind((ip, CLAIM_PORT)) {
                Ok(claim) => {
                    return Ok(Self {
                        ip: ip.into(),
                        _claim: claim,
                    });
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::other("no loopback address")))
    }

    /// The address `ip`, where the caller knows that it is free.
    ///
    /// # Errors
    /// When somebody else uses it.
    pub fn fixed(ip: IpAddr) -> io::Result<Self> {
        Ok(Self {
            ip,
            _claim: TcpListener::bind((ip, CLAIM_PORT))?,
        })
    }

    /// The address.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// The address with a port.
    #[must_use]
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip, port)
    }
}

/// What is waited for.
#[derive(Clone, Debug)]
pub enum Listener {
    /// A UDP socket bound to this address, or to its port on all addresses.
    Udp(SocketAddr),
    /// A TCP socket that listens there.
    Tcp(SocketAddr),
    /// A Unix socket at this path.
    Unix(PathBuf),
}

impl Listener {
    /// True when it exists in the network namespace of process `pid`.
    #[must_use]
    pub fn exists(&self, pid: u32) -> bool {
        let (protocol, address, listening) = match self {
            Self::Unix(path) => return path.exists(),
            Self::Udp(address) => ("udp", *address, None),
            Self::Tcp(address) => ("tcp", *address, Some("0A")),
        };
        ["", "6"].iter().any(|suffix| {
            let table = std::fs::read_to_string(format!("/proc/{pid}/net/{protocol}{suffix}"))
                .unwrap_or_default();
            table.lines().skip(1).any(|line| {
                let mut fields = line.split_ascii_whitespace().skip(1);
                let (local, state) = (
                    fields.next().unwrap_or_default(),
                    fields.nth(1).unwrap_or_default(),
                );
                matches(local, address) && listening.is_none_or(|l| l == state)
            })
        })
    }
}

/// Compares `0100007F:1C84` of the kernel's table with an address. The wildcard address matches too.
fn matches(local: &str, address: SocketAddr) -> bool {
    let Some((host, port)) = local.split_once(':') else {
        return false;
    };
    if u16::from_str_radix(port, 16) != Ok(address.port()) {
        return false;
    }
    let wanted = match address.ip() {
        IpAddr::V4(v4) => words(&v4.octets()),
        IpAddr::V6(v6) => words(&v6.octets()),
    };
    host == wanted || host.bytes().all(|b| b == b'0')
}

/// The kernel prints each 32-bit word of an address in the byte order of the machine.
fn words(octets: &[u8]) -> String {
    octets
        .chunks_exact(4)
        .map(|c| format!("{:08X}", u32::from_ne_bytes([c[0], c[1], c[2], c[3]])))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_distinct_and_visible() {
        let (a, b) = (Place::claim().unwrap(), Place::claim().unwrap());
        assert_ne!(a.ip(), b.ip());
        let pid = std::process::id();
        let _listener = TcpListener::bind(a.at(ENTRY_PORT)).unwrap();
        assert!(Listener::Tcp(a.at(ENTRY_PORT)).exists(pid));
        assert!(!Listener::Tcp(b.at(ENTRY_PORT)).exists(pid));
        assert!(!Listener::Udp(a.at(ENTRY_PORT)).exists(pid));
        let _udp = std::net::UdpSocket::bind(b.at(SERVER_PORT)).unwrap();
        assert!(Listener::Udp(b.at(SERVER_PORT)).exists(pid));
    }

    #[test]
    fn kernel_spelling_of_addresses() {
        assert!(
            matches("0100007F:1C84", ([127, 0, 0, 1], 0x1C84).into())
                || cfg!(target_endian = "big")
        );
        assert!(matches("00000000:1C84", ([127, 0, 0, 1], 0x1C84).into()));
        assert!(!matches("0100007F:1C85", ([127, 0, 0, 1], 0x1C84).into()));
        let v6 = SocketAddr::new("::1".parse().unwrap(), 80);
        assert!(
            matches("00000000000000000000000001000000:0050", v6) || cfg!(target_endian = "big")
        );
    }
}
