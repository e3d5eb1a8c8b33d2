//! A link with a rate, a queue, a delay and losses, and a receiver at its end that acknowledges by a free-running clock.

use std::collections::BTreeSet;

use fulmar_wire::kcp::HEADER_LEN;
use fulmar_wire::seq::Seq;
use fulmar_wire::time::Millis;

use crate::common::link::Random;

/// Bytes of IP and UDP before a datagram.
pub(crate) const HEADERS: u64 = 28;
/// Largest datagram.
pub(crate) const MTU: usize = 1400;

/// One case: times in microseconds.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Cell {
    /// Time between two flushes of the receiver.
    pub(crate) tick: u64,
    /// Its window, in segments.
    pub(crate) window: u32,
    /// Round trip without queue and tick.
    pub(crate) rtt: u64,
    /// Rate of the link, Mbit/s.
    pub(crate) mbit: u64,
    /// What its queue holds, as time.
    pub(crate) queue: u64,
    /// Percent of the datagrams that carry data.
    pub(crate) loss: u64,
    pub(crate) kind: Kind,
}

/// Whose receiver it is.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Every acknowledgement is sent, at ticks only (kcptun-libev).
    Libev,
    /// Only those that the cumulative one does not cover, and as soon as a datagram could be full of them (kcp-go).
    Go,
}

impl Cell {
    pub(crate) fn name(&self) -> String {
        format!(
            "{:?} tick {} window {} rtt {} mbit {} queue {} loss {}",
            self.kind,
            self.tick / 1000,
            self.window,
            self.rtt as f64 / 1e3,
            self.mbit,
            self.queue / 1000,
            self.loss
        )
    }

    /// Datagrams of full size that the link takes in a second.
    pub(crate) fn link_rate(&self) -> f64 {
        self.mbit as f64 * 1e6 / 8.0 / (MTU as u64 + HEADERS) as f64
    }

    /// What a window allows in a second when each segment waits for a tick.
    pub(crate) fn window_rate(&self) -> f64 {
        f64::from(self.window) * 1e6 / (self.rtt + self.tick) as f64
    }
}

/// The way there.
pub(crate) struct Lane {
    nanos_per_byte: u64,
    queue: u64,
    delay: u64,
    loss: u64,
    busy_until: u64,
    random: Random,
}

/// What became of a datagram: when it arrives, or when it would have.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Fate {
    Arrives(u64),
    Lost(u64),
}

impl Lane {
    pub(crate) fn new(cell: &Cell, seed: u64) -> Self {
        Self {
            nanos_per_byte: 8_000 / cell.mbit,
            // A queue of any length holds some packets.
            queue: (cell.queue * 1000).max(8 * (MTU as u64 + HEADERS) * 8_000 / cell.mbit),
            delay: cell.rtt / 2,
            loss: cell.loss,
            busy_until: 0,
            random: Random(seed),
        }
    }

    pub(crate) fn send(&mut self, now: u64, len: usize) -> Fate {
        let begin = self.busy_until.max(now * 1000);
        if begin - now * 1000 > self.queue {
            return Fate::Lost(begin / 1000 + self.delay);
        }
        self.busy_until = begin + (len as u64 + HEADERS) * self.nanos_per_byte;
        let at = self.busy_until.div_ceil(1000) + self.delay;
        if self.random.percent(self.loss) {
            Fate::Lost(at)
        } else {
            Fate::Arrives(at)
        }
    }
}

/// A datagram of acknowledgements, with the receiver's next number.
pub(crate) struct Acks {
    pub(crate) una: Seq,
    pub(crate) acks: Vec<(Seq, Millis)>,
}

/// A receiver whose application reads all at once.
pub(crate) struct Receiver {
    kind: Kind,
    window: u32,
    pub(crate) next: u32,
    beyond: BTreeSet<u32>,
    acks: Vec<(Seq, Millis)>,
    /// Segments that came again.
    pub(crate) repeated: u64,
    tick: u64,
    next_tick: u64,
    jitter: u64,
    random: Random,
}

impl Receiver {
    pub(crate) fn new(cell: &Cell, seed: u64) -> Self {
        let mut random = Random(seed);
        Self {
            kind: cell.kind,
            window: cell.window,
            next: 0,
            beyond: BTreeSet::new(),
            acks: Vec::new(),
            repeated: 0,
            tick: cell.tick,
            next_tick: random.below(cell.tick),
            jitter: 0,
            random,
        }
    }

    /// When its clock fires.
    pub(crate) const fn due(&self) -> u64 {
        self.next_tick + self.jitter
    }

    /// A segment arrives. Whether it flushes at once.
    pub(crate) fn arrived(&mut self, sn: u32, ts: Millis) -> bool {
        if sn >= self.next + self.window {
            return false;
        }
        if sn < self.next || !self.beyond.insert(sn) {
            self.repeated += 1;
        }
        while self.beyond.remove(&self.next) {
            self.next += 1;
        }
        self.acks.push((Seq(sn), ts));
        self.kind == Kind::Go && self.acks.len() >= MTU / HEADER_LEN
    }

    /// The clock has fired.
    pub(crate) fn ticked(&mut self) {
        self.next_tick += self.tick;
        // A loop that has other things to do is late now and then.
        self.jitter = self.random.below(1_000);
    }

    /// What it acknowledges, in datagrams.
    pub(crate) fn flush(&mut self) -> Vec<Acks> {
        let una = Seq(self.next);
        let mut acks = std::mem::take(&mut self.acks);
        if self.kind == Kind::Go
            && let Some(last) = acks.pop()
        {
            acks.retain(|(sn, _)| sn.at_or_after(una));
            acks.push(last);
        }
        let datagrams = acks.chunks(MTU / HEADER_LEN);
        datagrams
            .map(|some| Acks {
                una,
                acks: some.to_vec(),
            })
            .collect()
    }
}
