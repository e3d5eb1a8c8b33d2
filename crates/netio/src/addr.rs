//! Addresses as the rest of the program sees them: an IPv4 peer of a dual-stack socket is an IPv4 peer.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

/// `addr`, with an IPv4 address that an IPv6 socket wrote as `::ffff:a.b.c.d` turned back into IPv4.
#[must_use]
pub fn unmapped(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(_) => addr,
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(IpAddr::V4(v4), v6.port()),
            None => addr,
        },
    }
}

/// What an IPv6 socket has to be given to reach `addr`.
pub(crate) fn mapped(addr: SocketAddr) -> SocketAddrV6 {
    match addr {
        SocketAddr::V4(v4) => SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0),
        SocketAddr::V6(v6) => v6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapping_is_undone() {
        let v4: SocketAddr = "192.0.2.7:53".parse().expect("address");
        assert_eq!(unmapped(SocketAddr::V6(mapped(v4))), v4);
        assert_eq!(unmapped(v4), v4);
        let v6: SocketAddr = "[2001:db8::1]:53".parse().expect("address");
        assert_eq!(unmapped(v6), v6);
        assert_eq!(SocketAddr::V6(mapped(v6)), v6);
    }
}
