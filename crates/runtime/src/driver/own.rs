//! Datagrams that seem to come from ourselves.
//!
//! Whoever forges our own address as the source lets us answer ourselves. Ciphers with a nonce know their own datagrams; without one (`null`,
//! kcptun-libev without a method) a session with ourselves would acknowledge and keep alive what it has sent, for ever. Nothing honest
//! comes from the address of the socket at which it arrives.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use fulmar_netio::unmapped;
use fulmar_wire::time::Instant;

/// How long it is remembered whether an address is this machine's.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Addresses that are remembered. The sources that are asked about have our port, which few honest ones have.
const ADDRESSES: usize = 32;
/// Most addresses that the system is asked about in a second; further ones are taken for others'. Each costs it some microseconds.
const ASKED: u32 = 100;
const SECOND: Duration = Duration::from_secs(1);

/// What a socket knows of its own address.
#[derive(Debug)]
pub(super) struct Own {
    local: Option<SocketAddr>,
    /// Whether addresses are this machine's, and when that was asked, the latest last.
    known: VecDeque<(IpAddr, bool, Instant)>,
    /// How many were asked about since when.
    asked: (u32, Instant),
}

impl Own {
    /// Of a socket at `local`.
    pub(super) fn new(local: Option<SocketAddr>, now: Instant) -> Self {
        Self {
            local: local.map(unmapped),
            known: VecDeque::new(),
            asked: (0, now),
        }
    }

    /// Whether `from`, which sent something to `to`, is the socket itself.
    pub(super) fn is(&mut self, now: Instant, from: SocketAddr, to: Option<IpAddr>) -> bool {
        let Some(local) = self.local.filter(|local| local.port() == from.port()) else {
            return false;
        };
        let from = unmapped(from).ip();
        if !local.ip().is_unspecified() {
            return local.ip() == from;
        }
        to.is_some_and(|to| unmapped((to, 0).into()).ip() == from) || self.is_here(now, from)
    }

    /// Whether the socket, which has every address of this machine, has `ip`.
    fn is_here(&mut self, now: Instant, ip: IpAddr) -> bool {
        while self
            .known
            .pop_front_if(|(_, _, at)| *at + REMEMBERED <= now)
            .is_some()
        {}
        if let Some((_, here, _)) = self.known.iter().find(|(known, ..)| *known == ip) {
            return *here;
        }
        if self.asked.1 + SECOND <= now {
            self.asked = (0, now);
        }
        if self.asked.0 >= ASKED {
            return false;
        }
        self.asked.0 += 1;
        // Nobody binds to what is not theirs.
        let here = UdpSocket::bind((ip, 0)).is_ok();
        if self.known.len() >= ADDRESSES {
            self.known.pop_front();
        }
        self.known.push_back((ip, here, now));
        here
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("address")
    }

    fn at(ms: u64) -> Instant {
        Instant::from_millis(1000 + ms)
    }

    #[test]
    fn what_a_socket_sends_itself_is_known() {
        let mut own = Own::new(Some(addr("127.0.0.1:4000")), at(0));
        let to = Some(addr("127.0.0.1:0").ip());
        assert!(own.is(at(0), addr("127.0.0.1:4000"), to));
        assert!(own.is(at(0), addr("[::ffff:127.0.0.1]:4000"), None));
        // A client on the same machine, and one whose NAT gave it our port.
        assert!(!own.is(at(0), addr("127.0.0.1:4001"), to));
        assert!(!own.is(at(0), addr("127.0.0.2:4000"), to));
        assert!(!own.is(at(0), addr("192.0.2.1:4000"), to));
    }

    #[test]
    fn a_socket_with_all_addresses_knows_the_others() {
        for any in ["0.0.0.0:4000", "[::]:4000"] {
            let mut own = Own::new(Some(addr(any)), at(0));
            let to = Some(addr("203.0.113.7:0").ip());
            assert!(own.is(at(0), addr("203.0.113.7:4000"), to));
            // Sent to one address of ours as if from another.
            assert!(own.is(at(0), addr("127.0.0.1:4000"), to));
            assert!(!own.is(at(0), addr("192.0.2.1:4000"), to));
            assert!(!own.is(at(0), addr("127.0.0.1:4001"), None));
            assert_eq!(own.known.len(), 2);
        }
    }

    #[test]
    fn forged_addresses_cost_a_bounded_amount() {
        let mut own = Own::new(Some(addr("0.0.0.0:4000")), at(0));
        for n in 0..1000u32 {
            let ip = std::net::Ipv4Addr::from(0xC000_0200 + n % 250);
            own.is(at(0), (ip, 4000).into(), None);
            assert!(own.known.len() <= ADDRESSES);
        }
        assert_eq!(own.asked.0, ASKED);
        // A second later it is asked again.
        assert!(own.is(at(1000), addr("127.0.0.1:4000"), None));
    }
}
