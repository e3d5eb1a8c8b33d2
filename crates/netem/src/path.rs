//! What one direction of a path does, and what it has done.

use core::ops::Range;
use core::time::Duration;

use fulmar_wire::time::Instant;

/// One of the two directions between the two sides of a [`Net`](crate::Net).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the first side (the client, where there is one) to the second.
    Up,
    /// From the second side to the first.
    Down,
}

impl Direction {
    /// The other one.
    #[must_use]
    pub const fn reverse(self) -> Self {
        match self {
            Self::Up => Self::Down,
            Self::Down => Self::Up,
        }
    }
}

/// One direction of a path. The default is perfect: no delay, no loss, no limit.
///
/// Probabilities are per datagram, 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    /// What every datagram takes.
    pub delay: Duration,
    /// What a datagram takes on top, evenly distributed from nothing to this. Order is kept: a datagram
    /// waits for a slower one ahead of it.
    pub jitter: Duration,
    /// Datagrams that others overtake.
    pub reordering: Option<Reordering>,
    /// Probability of independent loss.
    pub loss: f64,
    /// Loss in bursts, besides [`loss`](Self::loss).
    pub bursts: Option<Bursts>,
    /// Probability that a datagram arrives twice, the copy right behind.
    pub duplication: f64,
    /// Probability that 1 to 8 bits of a datagram arrive flipped.
    pub corruption: f64,
    /// Probability that a datagram arrives without its end; how much is missing is random, at least one byte.
    pub truncation: f64,
    /// What drops datagrams above a rate, ahead of the bottleneck. None: nothing does.
    pub policer: Option<Policer>,
    /// The bottleneck. None: unlimited.
    pub rate: Option<Rate>,
    /// Datagrams (UDP payloads) of more bytes vanish without a word. None: all sizes pass.
    pub mtu: Option<usize>,
    /// What is sent within one of these times is lost.
    pub blackouts: Vec<Range<Instant>>,
    /// The most datagrams under way; what exceeds it is dropped like at a full queue. Bounds memory where
    /// nothing else does. Default 65536.
    pub max_in_flight: usize,
}

impl Default for Path {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            reordering: None,
            loss: 0.0,
            bursts: None,
            duplication: 0.0,
            corruption: 0.0,
            truncation: 0.0,
            policer: None,
            rate: None,
            mtu: None,
            blackouts: Vec::new(),
            max_in_flight: 65536,
        }
    }
}

/// Datagrams that others overtake.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Reordering {
    /// Probability that a datagram is held back.
    pub probability: f64,
    /// For how long at most; the time is even from nothing to this. Those behind do not wait for it.
    pub by: Duration,
}

/// Loss in bursts (the Gilbert-Elliott model): a good and a bad state; before each datagram the path may
/// change from one to the other. It begins good.
///
/// The mean length of a burst is 1 / `leave` datagrams, the share of time in it `enter` / (`enter` + `leave`).
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Bursts {
    /// Probability to go from good to bad.
    pub enter: f64,
    /// Probability to go from bad to good.
    pub leave: f64,
    /// Probability of loss in the good state, usually 0.
    pub loss_good: f64,
    /// Probability of loss in the bad state, up to 1.
    pub loss_bad: f64,
}

/// A bottleneck: datagrams leave one after the other and queue ahead of it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Bits per second, headers ([`Rate::HEADERS`]) included; 0 lets nothing pass.
    pub bits_per_second: u64,
    /// Bytes that may wait, headers included; a datagram that finds no room is dropped. The delay of a full queue is
    /// `8 * queue_bytes / bits_per_second` seconds.
    pub queue_bytes: usize,
}

impl Rate {
    /// What a datagram takes on the wire besides its payload: the headers of IPv4 and UDP.
    pub const HEADERS: usize = 28;

    /// The rate, and a queue that holds what passes within `queue`; one full-size datagram at least.
    #[must_use]
    pub fn with_queue_time(bits_per_second: u64, queue: Duration) -> Self {
        let bytes = u128::from(bits_per_second) * queue.as_micros() / 8_000_000;
        Self {
            bits_per_second,
            queue_bytes: usize::try_from(bytes).unwrap_or(usize::MAX).max(1500),
        }
    }

    /// Nanoseconds that `bytes` take to pass.
    pub(crate) fn nanos(self, bytes: usize) -> u64 {
        nanos(self.bits_per_second, bytes)
    }

    /// Bytes that pass in that many nanoseconds.
    pub(crate) fn bytes(self, nanos: u64) -> u128 {
        u128::from(nanos) * u128::from(self.bits_per_second) / 8_000_000_000
    }
}

/// A token bucket, as providers enforce a tariff: what exceeds the rate is dropped at once, nothing ever waits. So unlike
/// a [`Rate`] it shows by loss alone, not by a longer round trip.
///
/// The bucket begins full. A datagram that finds fewer tokens than its size is dropped and takes none.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Policer {
    /// Bits per second that tokens come in for, headers ([`Rate::HEADERS`]) included; 0 lets nothing pass.
    pub bits_per_second: u64,
    /// Bytes that the bucket holds, headers included: what passes at once after a pause. Less than a datagram lets none of
    /// that size pass.
    pub burst_bytes: usize,
}

impl Policer {
    /// Whether a datagram of `size` bytes, headers included, passes now. `full_at` is when the bucket will be full again, in
    /// nanoseconds.
    pub(crate) fn passes(self, full_at: &mut u64, now_nanos: u64, size: usize) -> bool {
        if self.bits_per_second == 0 {
            return false;
        }
        let nanos = |bytes| nanos(self.bits_per_second, bytes);
        // What is missing from the bucket now, and then.
        let missing = full_at.saturating_sub(now_nanos);
        let after = missing.saturating_add(nanos(size));
        if after > nanos(self.burst_bytes) {
            return false;
        }
        *full_at = now_nanos.saturating_add(after);
        true
    }
}

/// Nanoseconds that `bytes` take at so many bits per second.
fn nanos(bits_per_second: u64, bytes: usize) -> u64 {
    let nanos = (bytes as u128 * 8_000_000_000).div_ceil(u128::from(bits_per_second));
    u64::try_from(nanos).unwrap_or(u64::MAX)
}

/// What happened to the datagrams of one direction.
///
/// `sent + duplicated` = `delivered` + [`lost`](Self::lost) + those still under way.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams handed in.
    pub sent: u64,
    /// Bytes of these, payload only.
    pub sent_bytes: u64,
    /// Datagrams handed out.
    pub delivered: u64,
    /// Bytes of these.
    pub delivered_bytes: u64,
    /// Lost to [`Path::loss`].
    pub lost_random: u64,
    /// Lost to [`Path::bursts`].
    pub lost_burst: u64,
    /// Lost to a blackout.
    pub lost_blackout: u64,
    /// Larger than the MTU.
    pub lost_mtu: u64,
    /// Dropped by [`Path::policer`].
    pub lost_policer: u64,
    /// Found the queue of the bottleneck full, or too many under way.
    pub lost_queue: u64,
    /// Sent to an address that its receiver no longer has.
    pub lost_address: u64,
    /// Copies made.
    pub duplicated: u64,
    /// Delivered or under way with flipped bits.
    pub corrupted: u64,
    /// Delivered or under way without their end.
    pub truncated: u64,
    /// Held back so that others could overtake.
    pub reordered: u64,
}

impl Counters {
    /// All that never arrives.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost_random
            + self.lost_burst
            + self.lost_blackout
            + self.lost_mtu
            + self.lost_policer
            + self.lost_queue
            + self.lost_address
    }
}
