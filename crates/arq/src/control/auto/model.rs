//! What the path can carry, and how fast to send because of it.
//!
//! The model is that of BBR (draft-ietf-ccwg-bbr): the largest delivery rate and the shortest round trip of late; data
//! leaves at that rate, so that no queue builds up, and now and then faster, to see whether more is possible. What differs, and why:
//!
//! * *Chance loss is made up for.* What arrives is less than what passes the bottleneck by what gets lost by chance, so the pace is the
//!   delivery rate divided by the share that arrives. Only losses count that happen while we send less than the path delivers
//!   (see [`super::loss`]), so a full queue or a policer is not answered with more.
//! * *The queue is looked at.* While round trips are longer than the shortest by more than a target, the pace is lower, by 15 % at most:
//!   alone, the queue melts within a few round trips; beside a flow that fills it, what is probed for keeps our share.
//! * *Losses beyond chance make room.* A round that loses clearly more than chance ends a probe, and the pace is 15 % lower until the
//!   next: a flow that needs losses to be told finds its share.
//! * *A probe that finds something is followed by another startup*, so that a path that has become ten times as fast is filled within a second or two.
//! * *A path that has become much slower is believed at once*: when rounds are long and deliver less than half of what
//!   was thought, older rounds are forgotten.
//! * *The shortest round trip is measured anew when rounds stay longer for a second*, not only every ten.
//!
//! ```text
//!     ┌────────────────────── more found, or a longer path ──────────────────┐
//!     ▼                                                                      │
//!   startup ──no longer growing──▶ drain ──▶ cruise ──4 to 8 rounds──▶ probe-up
//!                                    ▲         │ ▲                          │ no more found, or a queue
//!                                    │   rounds│ │the same path             │
//!                                    │stay long▼ │                          │
//!                                    │       probe-rtt                      │
//!                                    └──────────────────────────────────────┘
//! ```

use super::flight::Sample;

/// Rounds over which the largest delivery rate counts.
const ROUNDS: usize = 10;
/// Gain that doubles the rate each round (STARTUP in that draft).
const STARTUP_GAIN: f64 = 2.77;
/// What may be in flight in startup: twice what is known to fit, and a little for what measuring lags behind.
const STARTUP_FLIGHT: f64 = 2.25;
/// The same when startup is begun again: others may be there by now.
const AGAIN_GAIN: f64 = 2.0;
/// In startup where acknowledgements come in bursts, what may be in flight leaves so much faster than within a round trip.
const BURST_STARTUP_GAIN: f64 = 1.25;
/// Gain of a probe.
const PROBE_GAIN: f64 = 1.18;
/// What a probe may add to a queue before it shows, microseconds.
const PROBE_QUEUE: f64 = 10_000.0;
/// Share of losses by chance above which probes stay strong.
const GENTLE_LOSS: f64 = 0.15;
/// How much faster than on average what a window lets go may leave.
const MOST_RUSH: f64 = 4.0;
/// The same where nothing gets lost.
const LEAST_RUSH: f64 = 1.5;
/// The same when holes keep the average low.
const RUSH_LIMIT: f64 = 16.0;
/// How long it is remembered that less was too much, microseconds.
const REMEMBER_RUSH: u64 = 10_000_000;
/// Gain while a queue that we have made melts.
const DRAIN_GAIN: f64 = 0.75;
/// The same after startup, which makes a large one.
const FIRST_DRAIN_GAIN: f64 = 0.4;
/// Lowest gain at which a queue of whatever origin is answered.
const LOWEST_GAIN: f64 = 0.85;
/// Twice what the path holds may be in flight.
const FLIGHT_GAIN: f64 = 2.0;
/// How long a shortest round trip counts: two halves of this, microseconds.
const HALF_WINDOW: u64 = 5_000_000;
/// Rounds that stay longer for this time make the shortest round trip doubtful, microseconds.
const DOUBT: u64 = 600_000;
/// Shortest time of a round-trip probe, microseconds.
const PROBE_RTT: u64 = 60_000;
/// Datagrams that come within this time may be one word of a receiver that acknowledges by a clock, as long as that is not known,
/// microseconds: then only the last of them tells of the path.
const ONE_WORD: u64 = 1_000;
/// Segments in flight before anything is known.
const FIRST_FLIGHT: f64 = 72.0;
/// Segments that may always be in flight.
const LEAST_FLIGHT: f64 = 8.0;

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    Startup,
    Drain,
    Cruise,
    ProbeUp,
    ProbeRtt,
}

impl Phase {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Drain => "drain",
            Self::Cruise => "cruise",
            Self::ProbeUp => "probe-up",
            Self::ProbeRtt => "probe-rtt",
        }
    }
}

/// What a datagram of acknowledgements brings.
#[derive(Copy, Clone, Debug)]
pub(super) struct News {
    /// Microseconds.
    pub(super) now: u64,
    pub(super) sample: Option<Sample>,
    /// Round trip of the newest transmission that was acknowledged, microseconds.
    pub(super) rtt: Option<u64>,
    /// In a burst: what of that round trip cannot be waiting for the receiver's clock; nothing if all that was sent has arrived.
    pub(super) queued: Option<Option<u64>>,
    /// Bytes per second that arrived between the burst before and this one.
    pub(super) arrival: f64,
    /// What acknowledgements wait for each other, if they come in bursts; else 0.
    pub(super) wait: u64,
    /// When the path was last found silent, microseconds.
    pub(super) silent: u64,
    /// Bytes delivered so far, lost so far, and in flight.
    pub(super) delivered: u64,
    pub(super) lost: u64,
    pub(super) flight: u64,
    /// Share of losses by chance.
    pub(super) loss: f64,
}

#[derive(Debug)]
pub(super) struct Model {
    phase: Phase,
    /// When the phase began, and how many rounds ago.
    since: u64,
    rounds_in_phase: u32,
    /// Rounds that this cruise lasts.
    cruise: u32,
    /// Bytes of a full segment on the path.
    segment: f64,
    loss: f64,

    /// Largest rate of each of the latest rounds, bytes per second.
    rates: [f64; ROUNDS],
    round: usize,
    /// What has to be delivered until the round is over; when it began, and what had been delivered then.
    round_ends: u64,
    round_began: (u64, u64),
    /// Whether the application had nothing more to send in this round, and in the one before.
    drained: (bool, bool),
    /// Whether as much was in flight as may be, likewise.
    full: (bool, bool),

    /// Largest rate when growth was last looked at, and looks without growth.
    full_rate: f64,
    full_looks: u32,
    /// The same within a probe, and how much bolder it has become.
    probe_rate: f64,
    probe_step: f64,
    /// A probe has lost more than chance does.
    gentle: bool,
    /// When the latest probe ended, and whether it made a queue.
    probed: u64,
    probe_queued: bool,
    /// Bytes that may be in flight when startup begins; what leaves the path is added (RFC 5681, slow start; but a loss is not
    /// taken for congestion).
    slow_start: f64,
    /// What had left the path when startup began, and what has by now, bytes.
    left_before: u64,
    left: u64,
    /// The path, and not what there was to send, has been measured.
    seen: bool,
    /// It is not the first startup.
    again: bool,
    drain_gain: f64,

    /// Shortest round trips of this half of the window and of the half before, and when this half began.
    min_rtts: (u64, u64),
    half_began: u64,
    /// It was in startup before it drained.
    started: bool,
    /// Of this round and of the one before.
    round_rtt: u64,
    /// Shortest of the samples since a block of eight began, their number, when it began, and the shortest of the block before.
    block: (u64, u32),
    block_began: u64,
    block_rtt: u64,
    last_round_rtt: u64,
    /// Smoothed over few acknowledgements.
    rtt: f64,
    /// Since when every round has been longer than the shortest round trip.
    long_since: Option<u64>,
    /// More was lost in a round of this cycle than chance loses: someone needs the room.
    crowded: bool,
    /// What had been delivered and lost when the round began.
    round_lost: (u64, u64),
    /// The flight has been small since then (in a round-trip probe).
    small_since: Option<u64>,
    /// Longest time between acknowledgements lately, and when the last came.
    ack_gap: f64,
    last_ack: u64,
    /// What acknowledgements wait for each other, microseconds; 0 if they do not come in bursts.
    wait: u64,
    /// They have come in bursts before.
    knows_bursts: bool,
    /// What the burst before had queued.
    queued: u64,
    /// The other side's window was full since the burst before, and in the one before.
    windowed: (bool, bool),
    /// That window, in segments.
    window: u32,
    /// How much faster than on average what a window lets go leaves.
    rush: f64,
    /// How fast turned out too much, and when.
    rushed: (f64, u64),
    /// Makes lengths of phases differ between flows.
    dice: u32,
}

/// No round trip.
const NEVER: u64 = u64::MAX;

impl Model {
    pub(super) fn new(segment: u64, seed: u32) -> Self {
        Self {
            phase: Phase::Startup,
            since: 0,
            rounds_in_phase: 0,
            cruise: 0,
            segment: segment as f64,
            loss: 0.0,
            rates: [0.0; ROUNDS],
            round: 0,
            round_ends: 0,
            round_began: (0, 0),
            drained: (true, true),
            full: (false, false),
            full_rate: 0.0,
            full_looks: 0,
            probe_rate: 0.0,
            probe_step: 1.0,
            gentle: false,
            probed: 0,
            probe_queued: false,
            slow_start: FIRST_FLIGHT * segment as f64,
            left_before: 0,
            left: 0,
            seen: false,
            again: false,
            drain_gain: DRAIN_GAIN,
            min_rtts: (NEVER, NEVER),
            half_began: 0,
            started: false,
            round_rtt: NEVER,
            block: (NEVER, 0),
            block_began: 0,
            block_rtt: 0,
            last_round_rtt: NEVER,
            rtt: 0.0,
            long_since: None,
            crowded: false,
            round_lost: (0, 0),
            small_since: None,
            ack_gap: 0.0,
            last_ack: 0,
            wait: 0,
            knows_bursts: false,
            queued: 0,
            windowed: (false, false),
            window: 0,
            rush: 1.0,
            rushed: (RUSH_LIMIT, 0),
            dice: seed | 1,
        }
    }

    /// Full segments take so many bytes from now on.
    pub(super) const fn set_segment(&mut self, bytes: u64) {
        self.segment = bytes as f64;
    }

    pub(super) const fn phase(&self) -> Phase {
        self.phase
    }

    /// Bytes per second that arrive, 0 when unknown.
    pub(super) fn bandwidth(&self) -> f64 {
        self.rates.iter().copied().fold(0.0, f64::max)
    }

    /// Shortest round trip of late, microseconds; 0 when unknown.
    pub(super) fn min_rtt(&self) -> u64 {
        match self.min_rtts.0.min(self.min_rtts.1) {
            NEVER => 0,
            rtt => rtt,
        }
    }

    /// Whether there was more to send than the path takes.
    #[inline]
    pub(super) const fn is_network_limited(&self) -> bool {
        self.full.0 || self.full.1 || !self.drained.0 && !self.drained.1
    }

    /// Whether what is sent now goes out no faster than it is known to arrive.
    pub(super) fn is_calm(&self) -> bool {
        matches!(self.phase, Phase::Drain | Phase::ProbeRtt)
            || self.drained.0
            || self.wait > 0
                && self.phase == Phase::Cruise
                && self.rush <= 1.0
                && self.cruise_gain() <= 1.0 - self.loss
    }

    /// As much is in flight as may be.
    pub(super) const fn full(&mut self) {
        self.full.0 = true;
    }

    /// As much as the other side has room for is on its way.
    pub(super) const fn window_full(&mut self, segments: u32) {
        self.windowed.0 = true;
        self.window = segments;
    }

    /// There was nothing more to send.
    pub(super) const fn drained(&mut self) {
        self.drained.0 = true;
    }

    /// Bytes per second to send at; `None` while nothing is known.
    pub(super) fn pace(&self) -> Option<f64> {
        let bandwidth = self.bandwidth();
        let min_rtt = self.min_rtt();
        if self.phase == Phase::Startup && self.wait > 0 {
            // What may be in flight leaves over most of the time until it is acknowledged, or the queue that it makes for a moment
            // would be taken for the end.
            let cycle = (min_rtt + self.wait) as f64;
            return Some(BURST_STARTUP_GAIN * self.startup_flight() * 1e6 / cycle);
        }
        if self.phase == Phase::Startup {
            // What little there was to send until now says nothing about what the path takes.
            let slow_start = if self.again {
                0.0
            } else {
                2.0 * self.startup_flight() * 1e6 / min_rtt as f64
            };
            let gain = if self.again { AGAIN_GAIN } else { STARTUP_GAIN };
            let measured = gain * bandwidth / (1.0 - self.loss);
            return (min_rtt > 0).then_some(measured.max(slow_start));
        }
        let gain = match self.phase {
            // No more than arrives: what is lost now is lost by chance.
            Phase::Startup | Phase::Drain => self.drain_gain,
            Phase::ProbeRtt if self.wait > 0 => DRAIN_GAIN,
            Phase::ProbeRtt => LOWEST_GAIN,
            Phase::ProbeUp => self.probe_gain() / (1.0 - self.loss),
            Phase::Cruise if self.wait > 0 && self.is_windowed() && self.rush > 1.0 => {
                return Some(self.rushing());
            }
            Phase::Cruise => self.cruise_gain() / (1.0 - self.loss),
        };
        // Eight segments in a second whatever was measured.
        Some((gain * bandwidth).max(8.0 * self.segment))
    }

    /// Round trip through what queues there are, without waiting for the receiver's clock, microseconds.
    pub(super) fn path_rtt(&self) -> u64 {
        self.min_rtt().max(self.rtt as u64)
    }

    /// Bytes per second at which what a window lets go leaves.
    fn rushing(&self) -> f64 {
        let usual = self.bandwidth() / (1.0 - self.loss);
        let cycle = (self.min_rtt() + self.wait) as f64;
        // Where nothing gets lost, nothing has to be there before the tick; on a long way a tick is little.
        let gain = if self.loss < 0.005 {
            LEAST_RUSH
        } else {
            1.0 + (MOST_RUSH - 1.0) * self.wait as f64 / cycle
        };
        let at_most = gain * f64::from(self.window) * self.segment * 1e6 / cycle;
        (usual * self.rush).min(at_most).max(usual)
    }

    /// Queue on the path, microseconds of waiting.
    fn queue(&self) -> f64 {
        (self.rtt - self.min_rtt() as f64).max(0.0)
    }

    /// Queue that is tolerated, microseconds.
    fn target(&self) -> f64 {
        (self.min_rtt() as f64 / 10.0).clamp(3_000.0, 10_000.0)
    }

    fn cruise_gain(&self) -> f64 {
        if self.crowded {
            return LOWEST_GAIN;
        }
        let above = self.queue() - self.target();
        if above <= 0.0 {
            return 1.0;
        }
        let scale = 2.0 * ((self.min_rtt() + self.wait) as f64).max(20_000.0);
        (1.0 - above / scale).max(LOWEST_GAIN)
    }

    fn probe_gain(&self) -> f64 {
        if !self.probes_gently() {
            return PROBE_GAIN;
        }
        // What it makes is seen a round trip (and a burst) later.
        let step = self.probe_step * PROBE_QUEUE / (self.min_rtt() + self.wait).max(1) as f64;
        1.0 + step.min(PROBE_GAIN - 1.0)
    }

    /// Whether probes are so weak that one of them shows little: where bursts hide what they do, and where a stronger one was more than
    /// the queue holds.
    const fn probes_gently(&self) -> bool {
        self.wait > 0 || self.gentle
    }

    /// Whether the other side's window is what limits.
    pub(super) const fn is_windowed(&self) -> bool {
        self.windowed.0 || self.windowed.1
    }

    /// Bytes that arrive while acknowledgements wait.
    fn waits(&self) -> f64 {
        self.bandwidth() / (1.0 - self.loss) * self.wait as f64 / 1e6
    }

    /// Bytes that the path holds without a queue.
    fn holds(&self) -> f64 {
        self.bandwidth() / (1.0 - self.loss) * self.min_rtt() as f64 / 1e6
    }

    /// Bytes that may be in flight in startup.
    fn startup_flight(&self) -> f64 {
        let least = if self.again {
            LEAST_FLIGHT
        } else {
            FIRST_FLIGHT
        };
        let most = (STARTUP_FLIGHT * (self.holds() + self.waits())).max(least * self.segment);
        (self.slow_start + (self.left - self.left_before) as f64).min(most)
    }

    /// Segments that may be in flight.
    pub(super) fn flight_limit(&self) -> u32 {
        let holds = self.holds();
        if self.phase == Phase::Startup {
            return (self.startup_flight() / self.segment) as u32;
        }
        let gain = match self.phase {
            Phase::ProbeRtt if self.wait == 0 => 0.5,
            _ => FLIGHT_GAIN,
        };
        // What comes between two acknowledgements is in flight as well.
        let between = (self.bandwidth() * self.ack_gap / 1e6).max(FLIGHT_GAIN * self.waits());
        let bytes = gain * holds
            + if self.phase == Phase::ProbeRtt && self.wait == 0 {
                0.0
            } else {
                between
            };
        let least = if self.phase == Phase::ProbeRtt {
            4.0
        } else {
            LEAST_FLIGHT
        };
        (bytes / self.segment).max(least).min(1e9) as u32
    }

    /// So much has been delivered and lost.
    pub(super) fn left(&mut self, delivered: u64, lost: u64) {
        // Losses may be chance, so they count as having left; but no more of them than what arrived.
        self.left = delivered + lost.min(delivered);
    }

    /// A round is over. Where a window is what limits, what it lets go leaves the faster the longer nothing speaks against it: what
    /// comes after the next tick waits for another one.
    fn rush_or_not(&mut self, now: u64) {
        if now.saturating_sub(self.rushed.1) > REMEMBER_RUSH {
            self.rushed.0 = RUSH_LIMIT;
        }
        if self.crowded || self.queue() > self.target() {
            if self.rush > 1.0 {
                // That was too fast, and no sign of others.
                self.rush = if self.crowded { self.rush / 1.5 } else { 1.0 }.max(1.0);
                self.rushed = (self.rush, now);
                self.crowded = false;
            }
        } else if self.is_windowed() {
            self.rush = (self.rush * 1.25).min(self.rushed.0);
        }
    }

    /// A burst is over.
    fn look_at_window(&mut self) {
        self.windowed = (false, self.windowed.0);
    }

    /// Whether a startup has just ended, whose losses say little of the path.
    pub(super) const fn take_started(&mut self) -> bool {
        std::mem::replace(&mut self.started, false)
    }

    pub(super) fn on_acked(&mut self, news: &News) {
        self.loss = news.loss;
        self.left(news.delivered, news.lost);
        let now = news.now;
        if news.wait > 0 && !self.knows_bursts {
            self.knows_bursts = true;
            if self.phase != Phase::Startup {
                // What ended it was taken for a queue, and was the receiver's clock.
                self.wait = news.wait;
                self.enter(Phase::Startup, now);
                self.again = false;
                // All of it has arrived since, so growth goes on where it was.
                self.slow_start *= 2.0;
            }
        }
        self.wait = news.wait;
        if news.wait == 0 && self.last_ack > 0 && self.is_network_limited() {
            let gap = now.saturating_sub(self.last_ack).min(50_000) as f64;
            self.ack_gap = gap.max(self.ack_gap * 0.99);
        }
        self.last_ack = now;
        match (news.rtt, news.queued) {
            (Some(rtt), Some(queued)) => self.measured_burst(news, rtt, queued),
            (Some(rtt), None) => self.measured(now, rtt),
            _ => {}
        }
        if news.wait > 0 {
            self.look_at_window();
        }
        let Some(sample) = news.sample else {
            return self.turn(news, false);
        };
        let ended = sample.prior_delivered >= self.round_ends;
        if ended {
            self.end_round(news);
        }
        // Of many measurements the largest is mostly chance; growth must be seen at once, the rest can wait for the round.
        let growing = self.phase == Phase::Startup
            || self.phase == Phase::Drain && self.drain_gain == FIRST_DRAIN_GAIN;
        if growing && (!sample.app_limited || sample.rate > self.bandwidth()) {
            let rate = &mut self.rates[self.round % ROUNDS];
            *rate = rate.max(sample.rate);
            self.seen |= !sample.app_limited && self.is_much(sample.bytes);
        }
        self.believe_less(&sample);
        self.turn(news, ended);
    }

    /// Whether so many bytes tell of the path.
    fn is_much(&self, bytes: u64) -> bool {
        bytes as f64 >= LEAST_FLIGHT * self.segment
    }

    fn look_at_min_rtt(&mut self, now: u64, rtt: u64) {
        if now.saturating_sub(self.half_began) > HALF_WINDOW {
            self.half_began = now;
            self.min_rtts = (NEVER, self.min_rtts.0);
        }
        self.min_rtts.0 = self.min_rtts.0.min(rtt);
    }

    /// A burst brought this round trip, of which so much is not waiting to be acknowledged.
    fn measured_burst(&mut self, news: &News, rtt: u64, queued: Option<u64>) {
        self.look_at_min_rtt(news.now, rtt.max(1));
        let min_rtt = self.min_rtt();
        // One alone may come of losses at the end.
        let queued = queued.unwrap_or(0).max(min_rtt);
        let both = std::mem::replace(&mut self.queued, queued).min(queued);
        if both as f64 > min_rtt as f64 + self.target() {
            // There was a queue all the time: that is what the path takes.
            let rate = &mut self.rates[self.round % ROUNDS];
            *rate = rate.max(news.arrival);
        }
        let rtt = if self.loss > 0.005 { both } else { queued };
        self.round_rtt = self.round_rtt.min(rtt);
        self.block_rtt = rtt;
        self.rtt = rtt as f64;
    }

    fn measured(&mut self, now: u64, rtt: u64) {
        let rtt = rtt.max(1);
        self.look_at_min_rtt(now, rtt);
        self.round_rtt = self.round_rtt.min(rtt);
        if self.block.1 == 0 {
            self.block_began = now;
        }
        self.block = (self.block.0.min(rtt), self.block.1 + 1);
        let may_be_burst = !self.knows_bursts && now - self.block_began < ONE_WORD;
        if self.block.1 >= 8 && !may_be_burst {
            self.block_rtt = self.block.0;
            self.block = (NEVER, 0);
        }
        self.rtt = if self.rtt == 0.0 {
            rtt as f64
        } else {
            0.75 * self.rtt + 0.25 * rtt as f64
        };
    }

    fn end_round(&mut self, news: &News) {
        let (began, delivered) = self.round_began;
        let took = news.now.saturating_sub(began);
        if began > 0 && took >= self.min_rtt().max(self.wait) / 2 && took > 0 {
            let rate = (news.delivered - delivered) as f64 * 1e6 / took as f64;
            // A gap in the path is no measure of what it carries.
            let limited = self.drained.0 || began < news.silent;
            self.seen |= !limited && self.is_much(news.delivered - delivered);
            if !limited || rate > self.bandwidth() {
                let last = &mut self.rates[self.round % ROUNDS];
                *last = last.max(rate);
            }
        }
        self.round_began = (news.now, news.delivered);
        self.look_at_losses(news);
        self.rush_or_not(news.now);
        self.rounds_in_phase += 1;
        // Rounds in which there was little to send say nothing, and nothing is forgotten for them.
        if !self.drained.0 {
            self.round += 1;
            self.rates[self.round % ROUNDS] = 0.0;
        }
        self.round_ends = news.delivered;
        self.drained = (false, self.drained.0);
        self.full = (false, self.full.0);
        self.last_round_rtt = std::mem::replace(&mut self.round_rtt, NEVER);
        let limit = 1.25 * self.min_rtt() as f64 + 4_000.0;
        let long = self.last_round_rtt != NEVER && self.last_round_rtt as f64 > limit;
        if long {
            self.long_since.get_or_insert(news.now);
        } else {
            self.long_since = None;
        }
    }

    /// Whether a round has lost clearly more than chance does (BBR's limit of 2 % beyond that, and what chance deviates by).
    fn look_at_losses(&mut self, news: &News) {
        let (delivered, lost) =
            std::mem::replace(&mut self.round_lost, (news.delivered, news.lost));
        let (delivered, lost) = (news.delivered - delivered, news.lost - lost);
        let packets = (delivered + lost) as f64 / self.segment;
        if packets < 8.0 {
            return;
        }
        let share = lost as f64 / (delivered + lost) as f64;
        if self.phase == Phase::Startup {
            // Half is no chance any more.
            if share > 0.5 && packets > 32.0 && self.bandwidth() > 0.0 {
                if self.seen {
                    self.enter(Phase::Drain, news.now);
                } else {
                    // What is known is what little there was to send, and would be believed for long.
                    self.enter(Phase::Startup, news.now);
                    self.slow_start = LEAST_FLIGHT * self.segment;
                    self.again = false;
                }
            }
            return;
        }
        let chance = self.loss;
        let deviation = (chance.max(0.01) * (1.0 - chance) / packets).sqrt();
        if share > chance + 0.02 + 3.0 * deviation {
            self.crowded = true;
            // On a short way, or where much gets lost, a weaker one would show nothing.
            // And without a queue it lost for another reason.
            let probed = self.phase == Phase::ProbeUp
                || self.phase != Phase::Startup && news.now < self.probed + 3 * self.min_rtt();
            let probed = probed && self.probe_queued;
            let long = self.min_rtt() as f64 * (PROBE_GAIN - 1.0) > PROBE_QUEUE;
            self.gentle |= probed && long && chance < GENTLE_LOSS;
        }
    }

    /// A path that delivers less than half of what was thought, behind a queue, has become slower.
    fn believe_less(&mut self, sample: &Sample) {
        // Once; what a queue that is still there tells is old.
        let settled = matches!(self.phase, Phase::Cruise | Phase::ProbeUp);
        let windowed = self.wait > 0 && self.is_windowed();
        if !settled || sample.app_limited || windowed || self.rounds_in_phase == 0 {
            return;
        }
        // Each of several round trips, so that neither one that was long ago nor a gap in the path is taken for a queue.
        let queued = self.block_rtt as f64 > 1.5 * self.min_rtt() as f64 + 10_000.0;
        if queued && sample.rate < 0.5 * self.bandwidth() {
            self.rates = [0.0; ROUNDS];
            self.rates[self.round % ROUNDS] = sample.rate;
            self.enter(Phase::Drain, self.last_ack);
        }
    }

    /// Goes to the next phase if it is time.
    fn turn(&mut self, news: &News, round_ended: bool) {
        let now = news.now;
        match self.phase {
            Phase::Startup => {
                if self.is_queue_building() || round_ended && self.has_stopped_growing() {
                    let windowed = self.wait > 0 && self.is_windowed();
                    let idle = windowed && self.queue() <= self.target();
                    self.enter(if idle { Phase::Cruise } else { Phase::Drain }, now);
                }
            }
            Phase::Drain => {
                let half = self.min_rtt() / 2;
                let melted = news.flight as f64 <= self.holds();
                let waited = now.saturating_sub(self.since);
                // What was lost counts as in flight until it is sent again, so the queue may be gone before.
                let empty = waited >= self.min_rtt() && self.queue() <= self.target();
                if melted && waited >= half || empty || self.rounds_in_phase >= 3 {
                    self.enter(Phase::Cruise, now);
                }
            }
            Phase::Cruise => {
                if self.is_doubtful(now) {
                    self.enter(Phase::ProbeRtt, now);
                } else if self.rounds_in_phase >= self.cruise && !self.drained.0 {
                    // More does not help where the other side's window is full.
                    let windowed = self.wait > 0 && self.is_windowed();
                    self.enter(
                        if windowed {
                            Phase::Cruise
                        } else {
                            Phase::ProbeUp
                        },
                        now,
                    );
                    self.crowded = false;
                }
            }
            Phase::ProbeUp => {
                let waited = now.saturating_sub(self.since) >= self.min_rtt();
                let queued = self.queue() > 1.5 * self.target();
                self.probe_queued |= queued;
                if waited && queued || self.drained.0 || self.crowded {
                    self.enter(Phase::Drain, now);
                } else if self.probes_gently() {
                    if round_ended && self.rounds_in_phase >= 2 {
                        self.go_on_probing(now);
                    }
                } else if round_ended && self.rounds_in_phase >= 2 {
                    // The path takes more: how much is found out as in the beginning.
                    let more = self.bandwidth() > 1.1 * self.full_rate;
                    self.enter(if more { Phase::Startup } else { Phase::Drain }, now);
                }
            }
            Phase::ProbeRtt => self.probe_rtt(news),
        }
    }

    /// The end of a probe whose gain is low: as long as more arrives, it goes on.
    fn go_on_probing(&mut self, now: u64) {
        let bandwidth = self.bandwidth();
        if bandwidth > 1.4 * self.full_rate {
            self.enter(Phase::Startup, now);
        } else if bandwidth > (0.4 + 0.6 * self.probe_gain()) * self.probe_rate {
            self.probe_rate = bandwidth;
            self.probe_step *= 2.0;
            self.rounds_in_phase = 0;
        } else if self.queue() <= self.target() {
            self.enter(Phase::Cruise, now);
        } else {
            self.enter(Phase::Drain, now);
        }
    }

    /// In startup: whether each of several round trips in a row took longer than they would without a queue of ours
    /// (after RFC 9406, HyStart++, section 4.2).
    fn is_queue_building(&self) -> bool {
        let threshold = (self.min_rtt() / 8).clamp(4_000, 16_000);
        // One that sends little does not make the queue that it sees.
        (self.full.0 || self.full.1) && self.block_rtt > self.min_rtt() + threshold
    }

    /// In startup: three rounds without growth mean that the path is full, and a queue tells it in one.
    fn has_stopped_growing(&mut self) -> bool {
        if self.drained.1 && !self.full.1 {
            // The first startup waits for something to send; another one was for what there was.
            return self.again;
        }
        let bandwidth = self.bandwidth();
        if bandwidth >= 1.25 * self.full_rate {
            self.full_rate = bandwidth;
            self.full_looks = 0;
            return false;
        }
        self.full_looks += 1;
        let queued = self.last_round_rtt != NEVER
            && self.last_round_rtt as f64 > self.min_rtt() as f64 + self.target();
        self.full_looks >= 3 || queued
    }

    /// Whether the shortest round trip may be out of date.
    fn is_doubtful(&self, now: u64) -> bool {
        if !self.is_network_limited() {
            return false;
        }
        let doubt = if self.wait == 0 { DOUBT } else { 3_000_000 };
        let long = self.long_since.is_some_and(|at| now - at >= doubt);
        let expired = self.wait == 0
            && self.min_rtts.0 != NEVER
            && now.saturating_sub(self.half_began) > HALF_WINDOW * 9 / 10
            && self.min_rtts.0 as f64 > 1.1 * self.min_rtt() as f64 + 2_000.0;
        long || expired
    }

    /// Waits until little is in flight, and then for what that shows.
    fn probe_rtt(&mut self, news: &News) {
        let now = news.now;
        if self.wait > 0 {
            return self.probe_rtt_of_bursts(now);
        }
        let small = news.flight as f64 <= 0.55 * self.holds() + 4.0 * self.segment;
        match self.small_since {
            None if small => {
                self.small_since = Some(now);
                self.round_rtt = NEVER;
            }
            Some(at) if now - at >= PROBE_RTT.max(self.min_rtt()) && self.round_rtt != NEVER => {
                let before = self.min_rtt();
                self.min_rtts = (self.round_rtt, self.round_rtt);
                self.half_began = now;
                self.long_since = None;
                // On a longer path, too little was in flight for what it carries, and less was measured.
                let longer = self.round_rtt > before + before / 4;
                self.enter(
                    if longer {
                        Phase::Startup
                    } else {
                        Phase::Cruise
                    },
                    now,
                );
            }
            _ if now.saturating_sub(self.since) > 3_000_000 => self.enter(Phase::Cruise, now),
            _ => {}
        }
    }

    /// The same where acknowledgements come in bursts: with a small flight they would wait longer still, so data leaves more slowly
    /// than it arrives, and what is still queued then is none of ours.
    fn probe_rtt_of_bursts(&mut self, now: u64) {
        let patience = 1_000_000 + 4 * (self.min_rtt() + self.wait);
        if self.queue() <= self.target() {
            self.long_since = None;
            self.enter(Phase::Cruise, now);
        } else if now.saturating_sub(self.since) > patience {
            self.min_rtts = (self.rtt as u64, self.rtt as u64);
            self.half_began = now;
            self.long_since = None;
            self.enter(Phase::Cruise, now);
        }
    }

    fn enter(&mut self, phase: Phase, now: u64) {
        let first = self.phase == Phase::Startup
            || self.phase == Phase::Drain && self.drain_gain == FIRST_DRAIN_GAIN;
        self.drain_gain = match self.phase {
            Phase::Startup => FIRST_DRAIN_GAIN,
            _ => DRAIN_GAIN,
        };
        if self.phase == Phase::ProbeUp {
            self.probed = now;
        }
        self.phase = phase;
        self.since = now;
        self.rounds_in_phase = 0;
        match phase {
            Phase::Cruise => {
                self.started = first;
                // Xorshift: two flows that began together shall not probe together for ever.
                self.dice ^= self.dice << 13;
                self.dice ^= self.dice >> 17;
                self.dice ^= self.dice << 5;
                self.cruise = 4 + self.dice % 5;
            }
            Phase::ProbeUp => {
                self.crowded = false;
                self.full_rate = self.bandwidth();
                self.probe_rate = self.full_rate;
                self.probe_step = 1.0;
                self.probe_queued = false;
            }
            Phase::ProbeRtt => self.small_since = None,
            Phase::Startup => {
                self.gentle = false;
                self.full_rate = self.bandwidth();
                self.full_looks = 0;
                self.slow_start = (self.holds() + self.waits()).max(LEAST_FLIGHT * self.segment);
                self.again = true;
                self.left_before = self.left;
                self.block_rtt = 0;
                self.block = (NEVER, 0);
            }
            Phase::Drain => {}
        }
    }
}
