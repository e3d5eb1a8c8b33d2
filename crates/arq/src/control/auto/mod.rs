//! The sender that needs no tuning: it measures the path and does what that wants.
//!
//! | question | answered by |
//! |---|---|
//! | how fast, and how much in flight | `model`: the largest delivery rate and the shortest round trip, as in BBR |
//! | what has been delivered, at which rate | `flight` |
//! | what came together, because the receiver acknowledges by a clock | `bursts` |
//! | what is lost, and when to ask | `recovery`: RACK-TLP |
//! | how much is lost by chance | `loss` |
//! | when the next datagram leaves | here: a bucket of time, filled in small runs so that segmentation offload has something to do |
//!
//! docs/design/sender.md has the reasons, the sources and the pictures. All of it is decided by the sender; the receiver may be
//! any KCP.

mod bursts;
mod flight;
mod loss;
mod model;
mod recovery;

use std::time::Duration;

use fulmar_wire::kcp::HEADER_LEN;
use fulmar_wire::seq::Seq;
use fulmar_wire::time::{Instant, Millis};

use super::{
    Acked, Cause, Congestion, Delivered, Evidence, Limits, Lost, PathStats, SenderControl, Sent,
    Sizes, Source,
};
use crate::config::Config;
use bursts::Bursts;
use flight::{Flight, Named};
use loss::Loss;
use model::{Model, News};
use recovery::Recovery;

/// Most copies of a segment of a sparse flow.
const MOST_COPIES: u8 = 4;
/// What leaves in one run: the time in which the path takes it, nanoseconds.
const QUANTUM: u64 = 2_000_000;
/// Time that a timer may be late without loss of pace, nanoseconds.
const LATE: u64 = 2_000_000;
/// Most that is owed, nanoseconds.
const MOST_OWED: u64 = 100_000_000;
/// Pace before a round trip is known, bytes per second: a segment each millisecond.
const FIRST_PACE: f64 = 1.4e6;
/// Segments that leave at once then (RFC 6928).
const FIRST_BURST: u64 = 10;
/// Time without anything to send after which the application is the limit, microseconds.
const IDLE: u64 = 3_000;
/// Shortest interval that a rate is measured over, microseconds.
const SHORTEST_SAMPLE: u64 = 500;

/// See the module.
#[derive(Debug)]
pub struct Auto {
    /// Bytes of a segment besides its payload.
    overhead: u32,
    /// Bytes of a full segment on the path.
    segment: u64,
    flight: Flight,
    bursts: Bursts,
    /// The window of the other side, and ours.
    window: (u32, u32),
    recovery: Recovery,
    loss: Loss,
    model: Model,
    /// When what has been sent is paid for, nanoseconds.
    paid: u64,
    /// Before when nothing leaves, nanoseconds.
    gate: u64,
    /// Nanoseconds that a byte takes at the present pace.
    byte_ns: f64,
    quantum: u64,
    flight_limit: u32,
    queue_limit: u32,
    copies: u8,
    /// Whether there are copies at all.
    may_copy: bool,
    /// When the newest transmission left whose round trip was measured, and what the present datagram measures.
    measured: u64,
    rtt: Option<u64>,
    /// When the newest transmission left that earlier datagrams told the arrival of: a datagram names what it acknowledges in any order.
    newest_before: Option<u64>,
    spurious: u64,
    probes: u64,
    lost_bytes: u64,
    /// Since when there is nothing to send although it could leave.
    idle_since: Option<u64>,
    /// Payload of a full segment, and what became of such and of small ones.
    mss: usize,
    sizes: Sizes,
    /// The latest time, microseconds.
    clock: u64,
}

impl Auto {
    /// The strategy for a conversation of `config`. `seed` makes the lengths of phases differ between flows.
    #[must_use]
    pub fn new(config: &Config, seed: u32) -> Self {
        let overhead = u32::try_from(config.overhead.max(HEADER_LEN)).unwrap_or(u32::MAX);
        let segment = config.mss() as u64 + u64::from(overhead);
        let mut auto = Self {
            overhead,
            segment,
            flight: Flight::default(),
            bursts: Bursts::default(),
            window: (u32::MAX, config.snd_wnd),
            recovery: Recovery::default(),
            loss: Loss::default(),
            model: Model::new(segment, seed),
            paid: 0,
            gate: 0,
            byte_ns: 1e9 / FIRST_PACE,
            quantum: 0,
            flight_limit: 0,
            queue_limit: 0,
            copies: 0,
            may_copy: config.copies,
            measured: 0,
            rtt: None,
            newest_before: None,
            spurious: 0,
            probes: 0,
            lost_bytes: 0,
            idle_since: None,
            mss: config.mss(),
            sizes: Sizes::default(),
            clock: 0,
        };
        auto.adjust();
        auto
    }

    fn cost(&self, len: usize) -> u32 {
        u32::try_from(len)
            .unwrap_or(u32::MAX)
            .saturating_add(self.overhead)
    }

    /// Takes over what the model says.
    fn adjust(&mut self) {
        let pace = self.model.pace();
        let byte_ns = 1e9 / pace.unwrap_or(FIRST_PACE);
        // What is owed is owed in bytes.
        let now = self.clock * 1_000;
        let change = byte_ns / self.byte_ns;
        let scaled = |at: u64| now + (at.saturating_sub(now) as f64 * change) as u64;
        if self.gate > now {
            self.gate = scaled(self.gate);
        }
        if self.paid > now {
            self.paid = scaled(self.paid);
        }
        self.byte_ns = byte_ns;
        // Small runs while nothing is known, except for the first.
        self.quantum = match pace {
            Some(_) => QUANTUM,
            None => (FIRST_BURST as f64 * self.segment as f64 * self.byte_ns) as u64,
        };
        self.flight_limit = self.model.flight_limit();
        let per_quantum = QUANTUM as f64 / (self.byte_ns * self.segment as f64);
        self.queue_limit = (2.0 * per_quantum).clamp(4.0, 512.0) as u32;
        if pace.is_none() {
            self.queue_limit = 64;
        }
    }

    /// Copies of a segment that has been lost before. Everything that arrives after it waits for it, a round trip for each further
    /// loss; but of a whole flight only few get lost so often. Where one or two copies of these end the matter for nearly
    /// all, and cost next to nothing, they are worth it.
    fn last_attempts(&self, sent: &Sent) -> u8 {
        let loss = self.loss.total().0;
        let losses = i32::try_from(sent.transmissions.saturating_sub(1)).unwrap_or(i32::MAX);
        let share = loss.powi(losses);
        let those = share * sent.in_flight as f32;
        let worth = |copies: u8| {
            let left = those * loss.powi(1 + i32::from(copies));
            left < 0.2 && losses > 1 && share * f32::from(copies) < 0.017
        };
        (1..=2).find(|c| worth(*c)).unwrap_or(0)
    }

    /// Takes the time that `cost` bytes need at the present pace.
    fn pay(&mut self, now: Instant, cost: u32) {
        let now = now.as_micros() * 1_000;
        let price = (f64::from(cost) * self.byte_ns) as u64;
        // What is not held back, copies and probes, shall not hold the rest back for long.
        self.paid = (self.paid.max(now.saturating_sub(self.quantum + LATE)) + price)
            .min(now + MOST_OWED.max(price));
        self.gate = if self.paid > now {
            // The next run begins when there is time for all of it.
            self.paid + self.quantum.min(QUANTUM).saturating_sub(price)
        } else {
            // A run that is being waited for is waited for.
            self.gate.max(self.paid)
        };
    }

    /// An application that is read from in turns has nothing for a moment; one that has nothing for longer limits what is sent.
    fn notice_idleness(&mut self) {
        if self.idle_since.is_some_and(|at| self.clock - at >= IDLE) {
            self.flight.app_limited();
            self.model.drained();
            self.bursts.paused();
        }
    }

    /// What came in a burst is told when it is over.
    fn close_burst(&mut self) {
        let bandwidth = self.model.bandwidth();
        let rtt = self.model.min_rtt();
        let burst = self.bursts.close(self.clock, bandwidth, rtt, self.segment);
        let Some(burst) = burst else {
            return;
        };
        let wait = self.bursts.wait();
        if wait == 0 {
            return;
        }
        let shortest = self.model.min_rtt().max(SHORTEST_SAMPLE) * 7 / 8;
        let news = News {
            now: burst.ended,
            sample: self.flight.sample(shortest.max(wait / 2)),
            rtt: burst.newest.map(|n| n.2),
            queued: burst.newest.map(|(sn, sent, rtt)| {
                let next = self.flight.remembered(sn.next());
                match next {
                    Some(r) if r.live && r.sent >= sent && r.sent < burst.began => {
                        Some(rtt.saturating_sub(r.sent - sent))
                    }
                    _ => None,
                }
            }),
            wait,
            arrival: burst.arrival,
            silent: self.flight.silent_at(),
            delivered: self.flight.delivered(),
            lost: self.lost_bytes,
            flight: burst.flight,
            loss: f64::from(self.loss.by_chance()),
        };
        self.model.on_acked(&news);
        if self.model.take_started() {
            self.loss.forget();
        }
        self.recovery.bursts(wait);
        if self.model.is_windowed() {
            // Nothing was sent for a while, so what is missing did not come after the tick.
            let path = self.model.path_rtt();
            self.recovery.told(burst.began, path);
        }
        self.adjust();
    }

    /// Unfolds a time on the wire clock, which is not later than now.
    fn unfold(&self, ts: Millis) -> u64 {
        let now = Instant::from_micros(self.clock);
        let age = u64::from(now.wire_millis().0.wrapping_sub(ts.0));
        now.as_millis().saturating_sub(age) * 1_000
    }
}

impl SenderControl for Auto {
    #[inline]
    fn window(&self, _now: Instant, limits: Limits) -> u32 {
        limits.snd_wnd.min(limits.rmt_wnd)
    }

    #[inline]
    fn flight_limit(&self) -> u32 {
        self.flight_limit
    }

    #[inline]
    fn queue_limit(&self) -> u32 {
        self.queue_limit
    }

    #[inline]
    fn next_send_time(&self, _now: Instant) -> Option<Instant> {
        Some(Instant::from_micros(self.gate.div_ceil(1_000)))
    }

    #[inline]
    fn skip_threshold(&self) -> Option<u32> {
        None
    }

    #[inline]
    fn lost_before(&self, now: Instant) -> Option<Instant> {
        let at = self.recovery.lost_before(now.as_micros())?;
        Some(Instant::from_micros(at))
    }

    #[inline]
    fn overdue_at(&self, sent: Instant) -> Option<Instant> {
        let overdue = self.recovery.overdue_at(self.clock, sent.as_micros());
        let closes = self.bursts.closes_at();
        let at = overdue.into_iter().chain(closes).min()?;
        Some(Instant::from_micros(at))
    }

    #[inline]
    fn probe_at(&self) -> Option<Instant> {
        Some(Instant::from_micros(self.recovery.probe_at()))
    }

    #[inline]
    fn resend(&self, evidence: &Evidence) -> Option<Cause> {
        evidence.overdue.then_some(Cause::Overdue)
    }

    fn copies(&self, sent: &Sent) -> u8 {
        if !self.may_copy {
            return 0;
        }
        match sent.cause {
            Cause::First if sent.sparse => self.copies,
            // What got lost with all its copies holds up everything behind it.
            Cause::Overdue | Cause::Probe if sent.sparse => self.copies.min(2),
            Cause::Overdue => self.last_attempts(sent),
            _ => 0,
        }
    }

    fn copy_delay(&self) -> Duration {
        Duration::from_micros((self.recovery.srtt() / 4).clamp(5_000, 20_000))
    }

    #[inline]
    fn ack_delay(&self, interval: Duration, busy: bool) -> Duration {
        if !busy {
            // Just long enough for an answer to go along.
            return Duration::from_millis(2).min(interval);
        }
        let share = Duration::from_micros(self.recovery.srtt() / 16);
        share
            .clamp(Duration::from_millis(2), Duration::from_millis(5))
            .min(interval)
    }

    fn on_sent(&mut self, now: Instant, sent: &Sent) {
        self.clock = now.as_micros();
        let cost = self.cost(sent.len);
        let before = self
            .flight
            .sent(self.clock, sent.sn, cost, self.model.is_calm());
        if sent.cause == Cause::First {
            self.notice_idleness();
            self.idle_since = None;
        }
        if sent.cause != Cause::First && sent.len >= self.mss {
            self.sizes.large_lost = self.sizes.large_lost.saturating_add(1);
        }
        if sent.cause == Cause::Overdue
            && let Some(before) = before
        {
            self.loss.lost(sent.sn, before.calm);
            self.lost_bytes += u64::from(before.cost);
        }
        if self.copies(sent) > 0 {
            self.flight.copied(sent.sn);
        }
        if sent.in_flight >= self.flight_limit {
            self.model.full();
        }
        let window = self.window.0.min(self.window.1);
        if sent.outstanding + 1 >= window {
            self.model.window_full(window);
        }
        self.recovery.sent(self.clock);
        self.pay(now, cost);
    }

    fn on_copied(&mut self, now: Instant, len: usize) {
        let cost = self.cost(len);
        self.pay(now, cost);
    }

    fn on_delivered(&mut self, now: Instant, d: &Delivered) {
        self.clock = now.as_micros();
        self.close_burst();
        // A copy that leaves at once says that it left a millisecond earlier.
        let by_copy = |ts: Millis| ts.0.wrapping_add(1) == d.sent.0;
        // Whether it was the last transmission that arrived, and if not, when the one left that did.
        let (measures, earlier) = match d.source {
            Source::Echo(ts) if ts == d.sent || by_copy(ts) => (true, None),
            Source::Echo(ts) => (false, Some(self.unfold(ts))),
            Source::Range if d.transmissions > 1 => {
                // What cannot have come back yet was the one before.
                let record = self.flight.remembered(d.sn).copied();
                let soonest = self.model.min_rtt() * 7 / 8;
                match record {
                    Some(r) if self.clock.saturating_sub(r.sent) < soonest => {
                        (false, r.sent_before)
                    }
                    _ => (true, None),
                }
            }
            Source::Range => (true, None),
            Source::Una => (d.transmissions == 1, None),
        };
        let needless = earlier.is_some() && d.transmissions > 1;
        let Some(record) = self.flight.delivered_one(self.clock, d.sn, measures) else {
            return;
        };
        if d.len >= self.mss {
            self.sizes.large_delivered = true;
            self.sizes.large_lost = 0;
        } else if d.len <= self.mss / 3 {
            self.sizes.small_delivered = true;
        }
        if !record.copied {
            self.loss.arrived(record.calm);
        }
        if d.transmissions == 1 {
            self.bursts.delivered(self.clock, d.sn, record.sent);
        }
        if measures {
            if d.source != Source::Una
                && d.transmissions == 1
                && let Some(newest) = self.newest_before
                && newest > record.sent + 1_000
            {
                self.recovery.reordered(self.clock, newest - record.sent);
            }
            self.recovery.delivered(record.sent);
        } else if let Some(sent) = earlier {
            if needless {
                self.spurious += 1;
                self.loss.not_lost(record.calm);
                // A range may tell of it late only because others that told it were lost.
                if let Source::Echo(_) = d.source
                    && let Some(newest) = self.recovery.newest()
                {
                    self.recovery
                        .reordered(self.clock, newest.saturating_sub(sent));
                }
            }
            self.recovery.delivered(sent);
        }
    }

    fn on_echo(&mut self, now: Instant, sn: Seq, ts: Millis) {
        let Some(record) = self.flight.remembered(sn) else {
            return;
        };
        let sent = Instant::from_micros(record.sent).wire_millis();
        let by_copy = ts.0.wrapping_add(1) == sent.0;
        if (ts == sent || by_copy) && record.sent > self.measured {
            // An acknowledgement that is repeated, or late, measures more than the path.
            let rtt = now.as_micros().saturating_sub(record.sent);
            self.measured = record.sent;
            self.rtt = Some(rtt);
        }
        if !record.copied || record.live {
            return;
        }
        // Of a pair that left together, the acknowledgement of the copy usually stands for both, and that of the
        // first alone means that the copy got lost; by symmetry the share of these is the path's.
        let (named, calm) = (record.named, record.calm);
        if ts == sent && named == Named::Nothing {
            record.named = Named::Original;
            self.loss.lost(sn, calm);
        } else if by_copy && named != Named::Copy {
            record.named = Named::Copy;
            match named {
                Named::Original => self.loss.not_lost(calm),
                _ => self.loss.arrived(calm),
            }
        }
    }

    fn on_acked(&mut self, now: Instant, acked: &Acked) {
        self.clock = now.as_micros();
        self.window.0 = acked.rmt_wnd;
        let rtt = self.rtt.take();
        self.newest_before = self.recovery.newest();
        if acked.segments == 0 {
            return;
        }
        self.recovery.acked(self.clock);
        self.notice_idleness();
        let (delivered, flight) = (self.flight.delivered(), self.flight.bytes());
        self.bursts.acked(self.clock, delivered, flight);
        if self.bursts.wait() > 0 {
            if let Some(rtt) = rtt {
                self.recovery.measured(rtt, self.model.min_rtt());
            }
            self.flight.settle();
            self.model.left(delivered, self.lost_bytes);
            return self.adjust();
        }
        let shortest = self.model.min_rtt().max(SHORTEST_SAMPLE);
        let news = News {
            now: self.clock,
            sample: self.flight.sample(shortest * 7 / 8),
            rtt,
            queued: None,
            wait: 0,
            arrival: 0.0,
            silent: self.flight.silent_at(),
            delivered,
            lost: self.lost_bytes,
            flight,
            loss: f64::from(self.loss.by_chance()),
        };
        self.model.on_acked(&news);
        if let Some(rtt) = rtt {
            self.recovery.measured(rtt, self.model.min_rtt());
        }
        self.recovery.bursts(0);
        self.adjust();
    }

    fn on_flush(&mut self, now: Instant) {
        self.clock = now.as_micros();
        self.close_burst();
    }

    fn on_timeout(&mut self, now: Instant, _lost: &Lost) {
        self.clock = now.as_micros();
        self.probes += 1;
        self.recovery.probed(self.clock);
        self.flight.silent(self.clock);
    }

    fn on_drained(&mut self, now: Instant, in_flight: u32) {
        self.clock = now.as_micros();
        if in_flight < self.flight_limit && self.gate <= self.clock * 1_000 {
            self.idle_since.get_or_insert(self.clock);
        }
        self.notice_idleness();
    }

    fn release(&mut self) {
        self.flight.release();
    }

    fn congestion(&self) -> Congestion {
        Congestion {
            cwnd: self.flight_limit,
            ..Congestion::default()
        }
    }

    fn path(&self) -> Option<PathStats> {
        let (loss, loss_samples) = self.loss.total();
        Some(PathStats {
            bandwidth: self.model.bandwidth() as u64,
            pacing_rate: (1e9 / self.byte_ns) as u64,
            min_rtt: Duration::from_micros(self.model.min_rtt()),
            srtt: Duration::from_micros(self.recovery.srtt()),
            flight_limit: self.flight_limit,
            loss,
            loss_samples,
            burst: self.loss.burst(),
            network_limited: self.model.is_network_limited(),
            phase: self.model.phase().name(),
            spurious: self.spurious,
            probes: self.probes,
        })
    }

    fn take_sizes(&mut self) -> Sizes {
        std::mem::take(&mut self.sizes)
    }

    fn set_prompt_peer(&mut self, prompt: bool) {
        self.bursts.prompt(prompt);
    }

    fn set_mss(&mut self, mss: usize) {
        self.mss = mss;
        self.sizes = Sizes::default();
        self.segment = mss as u64 + u64::from(self.overhead);
        self.model.set_segment(self.segment);
        self.adjust();
    }

    fn set_copies(&mut self, copies: u8) {
        self.copies = copies.min(MOST_COPIES);
    }
}
