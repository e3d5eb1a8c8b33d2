//! Addresses that a relay has named, and when each is pinged (docs/spec/kcptun-libev.md, section 12, steps 4 and 5).

use core::time::Duration;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use fulmar_wire::time::Instant;

/// When an address is pinged after it was named: a first ping may arrive before the other side's NAT has a mapping.
const TIMES: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_millis(700),
    Duration::from_millis(1500),
    Duration::from_millis(3000),
];
/// Addresses at one time: a relay cannot make us ping more, which is 6 datagrams to each in 3 seconds.
const MOST: usize = 64;

#[derive(Copy, Clone, Debug)]
struct Punch {
    addr: SocketAddr,
    named: Instant,
    sent: usize,
    /// A ping has come from there.
    proven: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Punches(Vec<Punch>);

impl Punches {
    /// A relay has named `addr`; `false` when there are too many.
    pub(super) fn insert(&mut self, now: Instant, addr: SocketAddr) -> bool {
        if let Some(known) = self.0.iter_mut().find(|p| p.addr == addr) {
            // Begins anew once it is through, not before: naming it often brings no more pings.
            if known.sent == TIMES.len() {
                (known.named, known.sent, known.proven) = (now, 0, false);
            }
            return true;
        }
        self.0
            .retain(|p| p.sent < TIMES.len() || p.named + LIFE > now);
        if self.0.len() >= MOST {
            return false;
        }
        self.0.push(Punch {
            addr,
            named: now,
            sent: 0,
            proven: false,
        });
        true
    }

    /// The next address to be pinged now.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<SocketAddr> {
        let due = self.0.iter_mut().find(|p| {
            TIMES
                .get(p.sent)
                .is_some_and(|after| p.named + *after <= now)
        })?;
        due.sent += 1;
        Some(due.addr)
    }

    /// When [`Self::pop_due`] has something.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let all = self.0.iter();
        all.filter_map(|p| TIMES.get(p.sent).map(|after| p.named + *after))
            .min()
    }

    /// A ping has come from `addr`: whether that proves that the way to it is open, which it does once for each time that it
    /// was named and not reached.
    pub(super) fn proves(&mut self, addr: SocketAddr) -> bool {
        let known = self.0.iter_mut().find(|p| p.addr == addr);
        known.is_some_and(|p| !std::mem::replace(&mut p.proven, true))
    }

    /// Whether an address of this host was named lately and has not been reached.
    pub(super) fn is_host(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|p| p.addr.ip() == ip)
    }

    /// The way to `addr` is open.
    pub(super) fn done(&mut self, addr: SocketAddr) {
        self.0.retain(|p| p.addr != addr);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// How long an address counts as named after its last ping.
const LIFE: Duration = Duration::from_secs(10);

/// Whether a relay may make us ping `addr`: a global or a site-local address with a port (section 12, step 4);
/// `loopback` allows those of this machine as well.
#[must_use]
pub fn may_punch(addr: SocketAddr, loopback: bool) -> bool {
    if addr.port() == 0 {
        return false;
    }
    match addr.ip() {
        ip if ip.is_loopback() => loopback,
        IpAddr::V4(ip) => v4(ip),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => v4(ip),
            None => v6(ip),
        },
    }
}

fn v4(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    let shared = a == 100 && (64..128).contains(&b);
    !(ip.is_unspecified()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.is_broadcast()
        || shared
        || a == 0
        || a >= 240)
}

fn v6(ip: Ipv6Addr) -> bool {
    let first = ip.segments()[0];
    let unique_local = first & 0xfe00 == 0xfc00;
    let site_local = first & 0xffc0 == 0xfec0;
    let global = first & 0xe000 == 0x2000;
    unique_local || site_local || global
}
