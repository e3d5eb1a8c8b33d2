//! The emulator: datagrams in, the same datagrams out later, or not.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{IpAddr, SocketAddr};

use fulmar_wire::time::Instant;

use crate::nat::Nat;
use crate::path::{Counters, Direction, Path, Rate};
use crate::rng::Rng;

/// Buffers kept for the next datagrams.
const MAX_SPARE: usize = 256;

/// Two sides and a path each way.
///
/// - [`send`](Self::send) hands in a datagram; [`change_address`](Self::change_address) and [`path_mut`](Self::path_mut)
///   change conditions.
/// - [`next_arrival`](Self::next_arrival) says when to call next, [`poll`](Self::poll) hands out what has
///   arrived, until it returns none.
///
/// Time that goes backwards is taken as the latest seen.
#[derive(Debug)]
pub struct Net {
    up: Lane,
    down: Lane,
    /// Address translation of the first and of the second side.
    nats: [Nat; 2],
    under_way: BinaryHeap<Reverse<UnderWay>>,
    /// Numbers datagrams, so that equal times keep their order.
    sequence: u64,
    now: Instant,
    spare: Vec<Vec<u8>>,
}

/// A datagram that has arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// When it arrived; not after the `now` it was polled with.
    pub at: Instant,
    /// Which way it went.
    pub direction: Direction,
    /// Its sender, as the receiver sees it.
    pub from: SocketAddr,
    /// Its receiver, as it knows itself.
    pub to: SocketAddr,
    /// What is left of its payload. May be empty.
    pub data: Vec<u8>,
}

impl Net {
    /// A net with these paths; `seed` decides everything random.
    #[must_use]
    pub fn new(seed: u64, up: Path, down: Path) -> Self {
        let mut rng = Rng::new(seed);
        Self {
            up: Lane::new(up, rng.bits()),
            down: Lane::new(down, rng.bits()),
            nats: [Nat::default(), Nat::default()],
            under_way: BinaryHeap::new(),
            sequence: 0,
            now: Instant::ZERO,
            spare: Vec::new(),
        }
    }

    /// Hands in one datagram.
    pub fn send(
        &mut self,
        now: Instant,
        direction: Direction,
        from: SocketAddr,
        to: SocketAddr,
        data: &[u8],
    ) {
        let now = self.advance(now);
        let from = self.nats[direction as usize].outbound(now, from);
        let lane = match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        };
        let Some(fate) = lane.fate(now, data.len()) else {
            return;
        };
        let mut copy = self.spare.pop().unwrap_or_default();
        copy.extend_from_slice(data);
        damage(&mut copy, fate.damage);
        lane.in_flight += 1 + usize::from(fate.twice);
        let first = UnderWay {
            at: fate.at,
            sequence: self.sequence,
            delivery: Delivery {
                at: fate.at,
                direction,
                from,
                to,
                data: copy,
            },
        };
        if fate.twice {
            let mut second = first.clone();
            second.sequence += 1;
            self.under_way.push(Reverse(second));
        }
        self.under_way.push(Reverse(first));
        self.sequence += 2;
    }

    /// Hands in a run: datagrams back to back, each `segment` bytes long, only the last may be shorter. A `segment` of 0
    /// means one datagram.
    pub fn send_run(
        &mut self,
        now: Instant,
        direction: Direction,
        from: SocketAddr,
        to: SocketAddr,
        run: &[u8],
        segment: usize,
    ) {
        if segment == 0 {
            return self.send(now, direction, from, to, run);
        }
        for datagram in run.chunks(segment) {
            self.send(now, direction, from, to, datagram);
        }
    }

    /// When the next datagram arrives.
    #[must_use]
    pub fn next_arrival(&self) -> Option<Instant> {
        self.under_way.peek().map(|Reverse(next)| next.at)
    }

    /// The next datagram that has arrived by `now`, in the order of arrival. Call until there is none.
    pub fn poll(&mut self, now: Instant) -> Option<Delivery> {
        let now = self.advance(now);
        loop {
            if self.next_arrival()? > now {
                return None;
            }
            let Reverse(UnderWay { at, delivery, .. }) = self.under_way.pop()?;
            let receiver = &mut self.nats[delivery.direction.reverse() as usize];
            let target = receiver.inbound(at, delivery.to);
            let lane = match delivery.direction {
                Direction::Up => &mut self.up,
                Direction::Down => &mut self.down,
            };
            lane.in_flight -= 1;
            if let Some(to) = target {
                lane.counters.delivered += 1;
                lane.counters.delivered_bytes += delivery.data.len() as u64;
                return Some(Delivery { to, ..delivery });
            }
            lane.counters.lost_address += 1;
            self.recycle(delivery.data);
        }
    }

    /// Takes back the buffer of a delivery, so that the next datagram needs no new one.
    pub fn recycle(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < MAX_SPARE {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// From `at` on, the sending side of `direction` is seen under other source ports, and under the
    /// address `host` if that is given: what a NAT that lost its state does, or a host that moved to
    /// another network. Datagrams to its former addresses are lost, until it sends and so opens a way back.
    ///
    /// `at` must not be earlier than the latest time passed in.
    pub fn change_address(&mut self, at: Instant, direction: Direction, host: Option<IpAddr>) {
        self.nats[direction as usize].change(at, host);
    }

    /// One direction's path, to read.
    #[must_use]
    pub const fn path(&self, direction: Direction) -> &Path {
        match direction {
            Direction::Up => &self.up.path,
            Direction::Down => &self.down.path,
        }
    }

    /// One direction's path, to change; what is under way is not affected.
    pub const fn path_mut(&mut self, direction: Direction) -> &mut Path {
        match direction {
            Direction::Up => &mut self.up.path,
            Direction::Down => &mut self.down.path,
        }
    }

    /// What happened so far in one direction.
    #[must_use]
    pub const fn counters(&self, direction: Direction) -> &Counters {
        match direction {
            Direction::Up => &self.up.counters,
            Direction::Down => &self.down.counters,
        }
    }

    /// Datagrams that have been sent and have not arrived yet, both directions.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.under_way.len()
    }

    fn advance(&mut self, now: Instant) -> Instant {
        self.now = self.now.max(now);
        self.now
    }
}

#[derive(Clone, Debug)]
struct UnderWay {
    at: Instant,
    sequence: u64,
    delivery: Delivery,
}

impl UnderWay {
    const fn key(&self) -> (Instant, u64) {
        (self.at, self.sequence)
    }
}

impl PartialEq for UnderWay {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for UnderWay {}

impl PartialOrd for UnderWay {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for UnderWay {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

/// One direction with its state.
#[derive(Debug)]
struct Lane {
    path: Path,
    counters: Counters,
    rng: Rng,
    /// In the bad state of [`Bursts`](crate::Bursts).
    burst: bool,
    /// When the bottleneck has passed all that it took, in nanoseconds: finer than an [`Instant`], because
    /// a datagram may take less than a microsecond.
    busy_until_nanos: u64,
    /// When the bucket of the policer is full again, in nanoseconds.
    bucket_full_at_nanos: u64,
    /// When the latest datagram arrives of those that keep their order.
    latest: Instant,
    in_flight: usize,
}

/// What becomes of a datagram that arrives.
struct Fate {
    at: Instant,
    twice: bool,
    damage: Damage,
}

/// What a datagram suffers; seeds for where.
#[derive(Copy, Clone)]
struct Damage {
    flip: Option<u64>,
    cut: Option<u64>,
}

impl Lane {
    fn new(path: Path, seed: u64) -> Self {
        Self {
            path,
            counters: Counters::default(),
            rng: Rng::new(seed),
            burst: false,
            busy_until_nanos: 0,
            bucket_full_at_nanos: 0,
            latest: Instant::ZERO,
            in_flight: 0,
        }
    }

    /// Decides about a datagram of `len` bytes that is sent now; none if it is lost.
    fn fate(&mut self, now: Instant, len: usize) -> Option<Fate> {
        // Every datagram draws the same numbers in the same order, whatever the path is set to do. So one
        // setting can be changed in an experiment without a new throw of the dice for all others.
        let mut dice = Rng::new(self.rng.bits());
        let mut each = || Rng::new(dice.bits());
        let [
            mut loss,
            mut burst,
            mut twice,
            mut flip,
            mut cut,
            mut jitter,
            mut reorder,
        ] = core::array::from_fn(|_| each());
        let path = &self.path;
        let counters = &mut self.counters;

        counters.sent += 1;
        counters.sent_bytes += len as u64;
        if path.blackouts.iter().any(|window| window.contains(&now)) {
            counters.lost_blackout += 1;
            return None;
        }
        if path.mtu.is_some_and(|mtu| len > mtu) {
            counters.lost_mtu += 1;
            return None;
        }
        let now_nanos = now.as_micros().saturating_mul(1000);
        let passes = path.policer.is_none_or(|policer| {
            policer.passes(
                &mut self.bucket_full_at_nanos,
                now_nanos,
                len + Rate::HEADERS,
            )
        });
        if !passes {
            counters.lost_policer += 1;
            return None;
        }
        let Some(sent) = pass(path.rate, &mut self.busy_until_nanos, now, len) else {
            counters.lost_queue += 1;
            return None;
        };
        // The state of bursts moves on also with datagrams that are lost otherwise.
        let burst_loss = path.bursts.is_some_and(|bursts| {
            let change = if self.burst {
                bursts.leave
            } else {
                bursts.enter
            };
            self.burst ^= burst.chance(change);
            burst.chance(if self.burst {
                bursts.loss_bad
            } else {
                bursts.loss_good
            })
        });
        if loss.chance(path.loss) {
            counters.lost_random += 1;
            return None;
        }
        if burst_loss {
            counters.lost_burst += 1;
            return None;
        }
        let twice = twice.chance(path.duplication);
        if self.in_flight + usize::from(twice) >= path.max_in_flight {
            counters.lost_queue += 1;
            return None;
        }

        let damage = Damage {
            flip: (len > 0 && flip.chance(path.corruption)).then(|| flip.bits()),
            cut: (len > 0 && cut.chance(path.truncation)).then(|| cut.bits()),
        };
        counters.duplicated += u64::from(twice);
        counters.corrupted += u64::from(damage.flip.is_some());
        counters.truncated += u64::from(damage.cut.is_some());

        let spread = |rng: &mut Rng, up_to: core::time::Duration| {
            let micros = u64::try_from(up_to.as_micros()).unwrap_or(u64::MAX);
            core::time::Duration::from_micros(rng.below(micros.saturating_add(1)))
        };
        let mut at = (sent + path.delay + spread(&mut jitter, path.jitter)).max(self.latest);
        match path.reordering {
            Some(r) if reorder.chance(r.probability) => {
                counters.reordered += 1;
                at += spread(&mut reorder, r.by);
            }
            _ => self.latest = at,
        }
        Some(Fate { at, twice, damage })
    }
}

/// Does to `data` what its fate says.
fn damage(data: &mut Vec<u8>, damage: Damage) {
    if let Some(seed) = damage.flip {
        let mut rng = Rng::new(seed);
        // Always different bits, because fewer than 8 steps of 13 never add up to whole bytes: a bit
        // flipped twice would leave the datagram as it was.
        let bits = data.len() as u64 * 8;
        let start = rng.below(bits);
        for i in 0..=rng.below(8) {
            let bit = (start + i * 13) % bits;
            if let Some(byte) = data.get_mut(usize::try_from(bit / 8).unwrap_or(usize::MAX)) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }
    if let Some(seed) = damage.cut {
        let rest = Rng::new(seed).below(data.len() as u64);
        data.truncate(usize::try_from(rest).unwrap_or(0));
    }
}

/// When the bottleneck has passed a datagram of `len` bytes that is sent now; none if its queue is full.
fn pass(rate: Option<Rate>, busy_until: &mut u64, now: Instant, len: usize) -> Option<Instant> {
    let Some(rate) = rate else {
        return Some(now);
    };
    if rate.bits_per_second == 0 {
        return None;
    }
    let now_nanos = now.as_micros().saturating_mul(1000);
    let start = (*busy_until).max(now_nanos);
    let size = len + Rate::HEADERS;
    // A datagram that finds the bottleneck free passes whatever the size of the queue.
    let waiting = rate.bytes(start - now_nanos);
    if waiting > 0 && waiting + size as u128 > rate.queue_bytes as u128 {
        return None;
    }
    *busy_until = start.saturating_add(rate.nanos(size));
    Some(Instant::from_micros(busy_until.div_ceil(1000)))
}

#[cfg(test)]
mod tests;
