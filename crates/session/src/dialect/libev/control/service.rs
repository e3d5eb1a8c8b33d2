//! Whether a relay knows the service that a client asks it for.
//!
//! A relay is silent to a client that asks for a service which nobody has made known there (docs/spec/kcptun-libev.md, section 12), but
//! answers a ping like everybody. So a client that has asked several times pings the relay itself: an answer means that the
//! name of the service is another one, or that its server is not there; silence means that the relay is not, or has another
//! key.

/// Times that a service was asked for without an answer before the relay is pinged, and before its silence is told.
const PING_AFTER: usize = 2;
const SILENT_AFTER: usize = 3;
/// Tells the time in such a ping from that in all others: clocks are never that far apart.
const MARK: u32 = 1 << 31;

/// See the module.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub(super) enum Probe {
    /// Nothing was asked.
    #[default]
    Idle,
    /// A ping with this time is out.
    Out(u32),
    /// The matter is settled until the relay is asked again from the beginning.
    Settled,
}

impl Probe {
    /// The relay was asked `asked` times for the service, and is asked again now. The time for a ping to it, if that is due;
    /// `now` is the clock of the wire in milliseconds.
    pub(super) fn ping(&mut self, asked: usize, now: u32) -> Option<u32> {
        if *self != Self::Idle || asked != PING_AFTER {
            return None;
        }
        let time = now ^ MARK;
        *self = Self::Out(time);
        Some(time)
    }

    /// A pong has come: whether it answers this ping, which says so once.
    pub(super) fn answered(&mut self, time: u32) -> bool {
        let ours = *self == Self::Out(time);
        if ours {
            *self = Self::Settled;
        }
        ours
    }

    /// The relay was asked `asked` times: whether its silence is to be told now.
    pub(super) fn silent(&mut self, asked: usize) -> bool {
        let silent = asked >= SILENT_AFTER && matches!(self, Self::Out(_));
        if silent {
            *self = Self::Settled;
        }
        silent
    }

    /// The relay has named a server.
    pub(super) fn named(&mut self) {
        *self = Self::Settled;
    }
}
