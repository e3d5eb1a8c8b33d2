//! A session at rest, in little memory: who the peer is and the numbers of its conversation.
//!
//! A session without streams has nothing to do but to be there when its peer comes back. There may be very many of those, whoever leaves them
//! behind; so one that was not heard for a while becomes a stub, and is whole again with its next datagram or when its layer
//! has something to say. The peer notices nothing. What the session has measured of the path is forgotten, as it is old by then.
//!
//! ```text
//!             no streams, not heard for UNHEARD,
//!             or too many such sessions and unheard for longest          too many stubs, unheard for longest
//!   session ────────────────────────────────────────────────▶ stub ─────────────────────────────────────────▶ ended
//!      ▲       a datagram, or something to say or to look at    │
//!      └────────────────────────────────────────────────────────┘
//! ```

use core::time::Duration;
use std::net::IpAddr;

use fulmar_arq::{self as arq, Restful};
use fulmar_fec as fec;
use fulmar_wire::time::Instant;

use crate::layer::{Rested, Stillness};
use crate::liveness::Liveness;
use crate::loss::Resent;
use crate::session::{Parts, Session, Standing};
use crate::transmit::Path;

/// A session without streams that was not heard for so long becomes a stub: two keep-alives of any peer that lives.
pub(crate) const UNHEARD: Duration = Duration::from_secs(20);
/// Longest time between two transmissions of what a stub has not got acknowledged.
const RESEND_EVERY: Duration = Duration::from_secs(10);
/// Shortest rest.
const LEAST: Duration = Duration::from_millis(100);
/// After so many, it goes again only with what the layer says, if that says something by itself.
const RESENDS: u8 = 5;

/// See the module.
pub(crate) struct Stub {
    kcp: arq::Rest,
    layer: Rested,
    pub(crate) conv: u32,
    pub(crate) path: Path,
    pub(crate) cipher: u32,
    pub(crate) first_ip: IpAddr,
    /// What is known of the address.
    standing: Standing,
    opened_at: Instant,
    /// Since when it rests.
    since: Instant,
    /// Where parity's groups stand, if there are some.
    groups: Option<(fec::Shape, u32)>,
    /// UDP payload that the path was found to carry.
    carried: usize,
    liveness: Liveness,
    resent: Resent,
    /// How often the last bytes were sent again since the peer was heard.
    resends: u8,
    silence: Option<Duration>,
}

impl Stub {
    /// Whether its peer is known to be where it seems to be.
    pub(crate) const fn is_known(&self) -> bool {
        self.standing.is_known()
    }

    /// When it has to be whole again although nothing arrives.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let rto = self.kcp.rto() * 2;
        let wait = rto
            .saturating_mul(1 << self.resends.min(10))
            .min(RESEND_EVERY);
        let own = self.resends < RESENDS || self.layer.timeout.is_none();
        let resend = (own && self.kcp.waits()).then(|| self.since + wait);
        let heard = self.kcp.last_heard().unwrap_or(self.opened_at);
        let silent = self.silence.map(|silence| heard + silence);
        let times = [self.layer.timeout, resend, silent];
        let first = times.into_iter().flatten().min()?;
        // What it was whole for has been done as far as it could be.
        Some(first.max(self.since + LEAST))
    }
}

impl Session {
    /// How far it is from being a stub.
    pub(crate) fn stillness(&self) -> Stillness {
        match (self.layer.stillness(), self.kcp.restful(self.is_silenced())) {
            (Stillness::Streams, _) => Stillness::Streams,
            (Stillness::Full, _) | (_, Restful::No) => Stillness::Full,
            _ if self.is_paced() => Stillness::Busy,
            (Stillness::Busy, _) | (_, Restful::Busy) => Stillness::Busy,
            (Stillness::Still, Restful::Yes) => Stillness::Still,
        }
    }

    /// What has to be known of it. Only if it is [`Stillness::Still`].
    pub(crate) fn into_stub(self, now: Instant) -> Stub {
        Stub {
            since: now,
            conv: self.conv(),
            groups: self.groups(),
            carried: self.carried(),
            kcp: self.kcp.rest(),
            layer: self.layer.rest(),
            path: self.path,
            cipher: self.cipher as u32,
            first_ip: self.first_ip,
            standing: self.standing,
            opened_at: self.opened_at,
            liveness: self.liveness,
            resent: self.resent,
            resends: self.resends,
            silence: self.silence.map(|silence| silence.then),
        }
    }

    /// Goes on where it rested. `parts` are those that a stranger with its conversation gets.
    pub(crate) fn resume(stub: Stub, mut parts: Parts, now: Instant) -> Self {
        parts.kcp.resume(&stub.kcp);
        parts.layer = parts.layer.resume(now, stub.layer);
        parts.path = stub.path;
        parts.cipher = stub.cipher as usize;
        if let Some(measuring) = &mut parts.measuring
            && stub.carried > 0
        {
            measuring.known = stub.carried;
        }
        let mut session = Self::new(parts, now);
        session.proven = true;
        session.first_ip = stub.first_ip;
        session.opened_at = stub.opened_at;
        session.liveness = stub.liveness;
        session.resent = stub.resent;
        session.resends = stub.resends;
        session.go_on(now, stub.groups);
        if stub.standing.is_known() {
            session.standing = stub.standing;
        } else {
            session.distrust();
        }
        session
    }
}

#[cfg(test)]
mod tests {
    /// There may be tens of thousands: all of one is a KiB at most, with the layer's part in its box and what is unacknowledged.
    #[test]
    #[cfg(target_pointer_width = "64")]
    fn a_stub_is_small() {
        let layer = size_of::<fulmar_mux::Rest>() + 32;
        assert!(size_of::<super::Stub>() + layer + fulmar_arq::Rest::MOST_WAITING <= 1024);
    }
}
