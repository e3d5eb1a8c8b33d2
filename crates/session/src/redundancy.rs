//! How much to send twice, from how much is lost: copies of small segments, parity for steady flows, and a budget.
//!
//! A lost datagram costs a round trip or more until it is repeated. Three kinds of traffic need three answers. A sparse flow of
//! small segments (a keystroke, a request) costs so little that it is simply sent again, [`Redundancy::copies`] times. A steady
//! flow fills groups of the code quickly, so parity (docs/spec/kcptun.md, section 6) repairs within half a round trip. A
//! transfer that sends all the path takes gains nothing from either: whatever is added displaces data, and what is lost is
//! repeated while other data flow.
//!
//! The machine decides, for one direction of one session, and counts. What is lost it is told; groups, copies and their
//! spacing are its owner's.

use core::time::Duration;

use fulmar_wire::time::Instant;

/// A segment of a sparse flow may stay missing, after all its copies, this rarely.
const MISSING: f32 = 0.0003;
/// Most copies.
const MOST_COPIES: u8 = 3;
/// The same on a way whose round trip is longer than [`FAR`]: what is missing holds up all that was sent in a round trip after it. On one
/// that is longer than [`TOO_FAR`] nobody waits for an echo.
const MOST_COPIES_FAR: u8 = 4;
const FAR: Duration = Duration::from_millis(115);
const TOO_FAR: Duration = Duration::from_millis(400);
/// Packets that an estimate of loss has to rest on before it is taken as it is. Until then it is mixed with an assumption, so
/// that a new session is protected before it has measured anything.
const ENOUGH_SAMPLES: u32 = 50;
/// The assumption, and how many packets it counts for.
const ASSUMED: (f32, f32) = (0.1, 10.0);

/// A path that loses less than this is clean: no parity.
const CLEAN: f32 = 0.005;
/// The shapes of groups, (data, parity), preferred ones first: few parity packets, and among those small groups, because
/// a receiver learns a shape from one whole group without loss (docs/spec/kcptun.md, section 6.5), and repairs sooner.
const SHAPES: [(usize, usize); 8] = [
    (10, 1),
    (16, 1),
    (20, 1),
    (10, 2),
    (8, 2),
    (12, 3),
    (16, 4),
    (20, 5),
];
/// A shape is good when this share of groups, or less, loses more packets than it has parity.
const GOOD: f32 = 0.02;
/// The shape in use stays while it is no worse than this, so that noise in the estimate does not change it.
const GOOD_ENOUGH: f32 = 0.04;
/// It makes way for a cheaper one, of less than this share of its cost, that fails no more often than [`SURE`].
const CHEAPER: f32 = 0.85;
const SURE: f32 = 0.01;
/// A shape that fails in more than this share of the groups that lose anything is not worth its bytes: bursts are longer than
/// its parity, or losses too many.
const USELESS: f32 = 0.5;

/// Shortest time between two changes of the shape: each costs the receiver a new search.
const CHANGE_EVERY: Duration = Duration::from_secs(5);
/// Shortest time from the first view to the first parity.
const FIRST_AFTER: Duration = Duration::from_secs(2);

/// Parity bytes that may leave before their share of own bytes has: one group of the largest shape, in the largest datagrams.
pub const BURST: u64 = 5 * 1500;
/// What was saved beyond [`BURST`] fades over this time, so that hours of small packets are not followed by a flood.
const FADES_OVER: Duration = Duration::from_secs(2);

/// What is known about our direction of the path.
#[derive(Copy, Clone, PartialEq, Debug)]
pub struct PathView {
    /// Share of datagrams that are lost at random, 0 to 1.
    pub loss: f32,
    /// Mean length of a row of losses, in packets, at least 1.
    pub burst: f32,
    /// Data packets sent per second.
    pub packets_per_second: f32,
    /// The round trip.
    pub rtt: Duration,
    /// There is more to send than the path takes.
    pub network_limited: bool,
    /// Packets that `loss` rests on.
    pub samples: u32,
}

/// What a datagram was sent for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Sent {
    /// Data, acknowledgements, repetitions: what would have left without this machine.
    Own,
    /// Parity of a group. The budget of [`Redundancy::allows`] pays for it.
    Parity,
    /// A copy of a small segment. Only counted: the flows that get copies are too small for any budget in percent.
    Copy,
}

/// Decides and counts for one direction of one session.
#[derive(Debug)]
pub struct Redundancy {
    /// Parity bytes for each hundred own bytes, 0 to 100.
    percent: u8,
    /// Whether there may be parity at all.
    enabled: bool,
    copies: u8,
    shape: Option<(usize, usize)>,
    /// When the shape last changed; at first, of the first view.
    changed: Option<Instant>,
    /// Whether there has been parity.
    begun: bool,
    /// When parity was last worth having.
    wished: Instant,
    network_limited: bool,
    /// Parity that may leave now, in hundredths of bytes. Below zero when more left than was allowed.
    credit: i64,
    /// When the credit last faded.
    faded: Instant,
    own: u64,
    parity: u64,
    copied: u64,
}

impl Redundancy {
    /// `percent` is `--redundancy`: parity bytes for each hundred bytes of one's own, 0 to 100 (more is taken for 100). 0 turns
    /// copies off as well; below 5 no shape fits. `parity`: whether the other end understands it and the operator wants it.
    #[must_use]
    pub fn new(percent: u8, parity: bool) -> Self {
        let mut it = Self {
            percent: percent.min(100),
            enabled: parity,
            copies: 0,
            shape: None,
            changed: None,
            begun: false,
            wished: Instant::ZERO,
            network_limited: false,
            credit: if percent == 0 { 0 } else { BURST_CREDIT },
            faded: Instant::ZERO,
            own: 0,
            parity: 0,
            copied: 0,
        };
        it.copies = it.copies_for(mixed(0.0, 0), Duration::ZERO);
        it
    }

    /// Decides anew. To be called once per round trip or every 100 ms while there is traffic.
    pub fn update(&mut self, now: Instant, view: &PathView) {
        let view = PathView {
            loss: share(view.loss),
            ..*view
        };
        self.copies = if is_far(view.rtt) {
            self.copies_for(careful(&view), view.rtt)
        } else {
            self.copies_for(mixed(view.loss, view.samples), Duration::ZERO)
        };
        self.network_limited = view.network_limited;
        self.fade(now);

        let wish = self.wish(&view);
        if wish.is_some() {
            self.wished = now;
        }
        let since = now.since(*self.changed.get_or_insert(now));
        let pause = if self.begun {
            CHANGE_EVERY
        } else {
            FIRST_AFTER
        };
        if wish == self.shape || since < pause {
            return;
        }
        // Flows pause. Parity that is not worth having for a moment costs little: none is sent while the path is full, and
        // what is not sent fills no groups.
        if wish.is_none() && now.since(self.wished) < CHANGE_EVERY {
            return;
        }
        self.shape = wish;
        self.changed = Some(now);
        self.begun = true;
    }

    /// A datagram of `bytes` (UDP payload) has left.
    pub fn on_sent(&mut self, bytes: usize, what: Sent) {
        let bytes = bytes as u64;
        match what {
            Sent::Own => {
                self.own = self.own.saturating_add(bytes);
                self.credit = self
                    .credit
                    .saturating_add(hundredths(bytes, u64::from(self.percent)));
            }
            Sent::Parity => {
                self.parity = self.parity.saturating_add(bytes);
                self.credit = self.credit.saturating_sub(hundredths(bytes, 100));
            }
            Sent::Copy => self.copied = self.copied.saturating_add(bytes),
        }
    }

    /// How many more times, 0 to 4, a small segment of a sparse flow is to be sent: so many that it stays missing in fewer than
    /// 3 of 10,000 cases. That takes losses for independent, so copies should not leave together.
    #[must_use]
    pub const fn copies(&self) -> u8 {
        self.copies
    }

    /// The shape of groups, (data, parity) packets; `None`: no parity.
    #[must_use]
    pub const fn parity(&self) -> Option<(usize, usize)> {
        self.shape
    }

    /// Whether `bytes` of parity may leave now. If not, the group goes without: the shape stays, and the receiver takes
    /// it for lost. Parity that is only sent when allowed never exceeds [`BURST`] and the percentage of own bytes
    /// together.
    #[must_use]
    pub fn allows(&self, bytes: usize) -> bool {
        !self.network_limited && hundredths(bytes as u64, 100) <= self.credit
    }

    /// Bytes of one's own that have left.
    #[must_use]
    pub const fn own_bytes(&self) -> u64 {
        self.own
    }

    /// Bytes of parity that have left.
    #[must_use]
    pub const fn parity_bytes(&self) -> u64 {
        self.parity
    }

    /// Bytes of copies that have left.
    #[must_use]
    pub const fn copy_bytes(&self) -> u64 {
        self.copied
    }

    /// Bytes of parity and copies that have left.
    #[must_use]
    pub const fn redundant_bytes(&self) -> u64 {
        self.parity.saturating_add(self.copied)
    }

    fn copies_for(&self, loss: f32, rtt: Duration) -> u8 {
        if self.percent == 0 {
            return 0;
        }
        let far = rtt.max(FAR).as_secs_f32() / FAR.as_secs_f32();
        let most = if rtt > FAR {
            MOST_COPIES_FAR
        } else {
            MOST_COPIES
        };
        let mut missing = loss;
        for copies in 0..most {
            if missing * far <= MISSING {
                return copies;
            }
            missing *= loss;
        }
        most
    }

    /// The shape that would be best now.
    fn wish(&self, view: &PathView) -> Option<(usize, usize)> {
        // Without enough samples it would be turned on for nothing in each new session.
        if !self.enabled
            || view.samples < ENOUGH_SAMPLES
            || view.loss < CLEAN
            || view.network_limited
        {
            return None;
        }
        let half_round_trip = view.rtt.as_secs_f32() / 2.0;
        // How often a shape fails, if it fits and helps.
        let judge = |(data, parity): (usize, usize)| {
            let affordable = parity * 100 <= data * usize::from(self.percent);
            // More parity than this comes too late. False for a rate that is no number.
            let in_time = small(data) <= view.packets_per_second * half_round_trip;
            if !affordable || !in_time {
                return None;
            }
            let more_than = |lost| more_than(lost, data + parity, view.loss, view.burst);
            let fails = more_than(parity);
            (fails <= USELESS * more_than(0)).then_some(fails)
        };
        // The first that fails so rarely, or the one that fails least.
        let choose = |goal: f32| {
            let mut best: Option<((usize, usize), f32)> = None;
            for shape in SHAPES {
                let Some(fails) = judge(shape) else { continue };
                if best.is_none_or(|(_, least)| fails < least) {
                    best = Some((shape, fails));
                }
                if fails <= goal {
                    break;
                }
            }
            best
        };
        let (best, least) = choose(GOOD)?;
        let Some(current) = self.shape else {
            return Some(best);
        };
        if judge(current).is_none_or(|fails| fails > GOOD_ENOUGH && fails > 2.0 * least) {
            return Some(best);
        }
        match choose(SURE) {
            Some((other, fails)) if fails <= SURE && cost(other) < CHEAPER * cost(current) => {
                Some(other)
            }
            _ => Some(current),
        }
    }

    fn fade(&mut self, now: Instant) {
        let share = now.since(self.faded).as_micros() * 1000 / FADES_OVER.as_micros();
        let excess = self.credit - BURST_CREDIT;
        if share == 0 {
            return;
        }
        self.faded = self.faded.max(now);
        if excess > 0 {
            let share = i64::try_from(share.min(1000)).unwrap_or(1000);
            self.credit = BURST_CREDIT + excess / 1000 * (1000 - share);
        }
    }
}

/// [`BURST`] in hundredths of bytes.
#[allow(clippy::cast_possible_wrap)]
const BURST_CREDIT: i64 = BURST as i64 * 100;

fn hundredths(bytes: u64, each: u64) -> i64 {
    i64::try_from(bytes.saturating_mul(each)).unwrap_or(i64::MAX)
}

/// Within 0 to 1; 0 for what is no number.
fn share(x: f32) -> f32 {
    if x.is_nan() { 0.0 } else { x.clamp(0.0, 1.0) }
}

fn small(n: usize) -> f32 {
    f32::from(u16::try_from(n).unwrap_or(u16::MAX))
}

fn cost((data, parity): (usize, usize)) -> f32 {
    small(parity) / small(data)
}

/// Whether what is missing holds up much, and somebody waits for it.
fn is_far(rtt: Duration) -> bool {
    rtt > FAR && rtt <= TOO_FAR
}

/// The loss that copies are for, on a long way. Where one that is missing holds up much, a few dozen packets that happened to arrive are not believed:
/// the assumption counts for longer, and the estimate is taken to be two deviations too low.
fn careful(view: &PathView) -> f32 {
    let (samples, (assumed, weight)) = (small(view.samples as usize), ASSUMED);
    let few = view.samples < 4 * ENOUGH_SAMPLES;
    let loss = if few {
        (view.loss * samples + assumed * weight) / (samples + weight)
    } else {
        view.loss
    };
    if few || view.loss > 0.0 {
        let deviation = (loss * (1.0 - loss) / (samples + weight)).max(0.0).sqrt();
        (loss + 2.0 * deviation).min(1.0)
    } else {
        loss
    }
}

/// The measured loss, mixed with an assumption while it rests on few packets.
fn mixed(loss: f32, samples: u32) -> f32 {
    if samples >= ENOUGH_SAMPLES {
        return loss;
    }
    let (assumed, weight) = ASSUMED;
    let samples = small(samples as usize);
    (loss * samples + assumed * weight) / (samples + weight)
}

/// The probability that more than `parity` (at most 7) of `total` packets in a row are lost: two states, in one of which
/// all are lost (Gilbert's model), with this mean loss and this mean length of bursts.
fn more_than(parity: usize, total: usize, loss: f32, burst: f32) -> f32 {
    const LOST: usize = 8;
    let loss = loss.min(0.99);
    // Losses that do not depend on each other come in rows, too; shorter ones are taken for those.
    let leave = (1.0 - loss).min(1.0 / burst.max(1.0));
    let enter = (loss * leave / (1.0 - loss)).min(1.0);
    // The probability of so many losses up to here, by whether the latest was lost.
    let mut arrived = [0.0_f32; LOST];
    let mut lost = [0.0_f32; LOST];
    arrived[0] = 1.0 - loss;
    lost[1] = loss;
    let most = parity.min(LOST - 1);
    for _ in 1..total {
        // From many to few, so that each is computed from what was before this packet.
        for n in (0..=most).rev() {
            let fewer = if n == 0 {
                0.0
            } else {
                arrived[n - 1] * enter + lost[n - 1] * (1.0 - leave)
            };
            arrived[n] = arrived[n] * (1.0 - enter) + lost[n] * leave;
            lost[n] = fewer;
        }
    }
    let few: f32 = (0..=most).map(|n| arrived[n] + lost[n]).sum();
    share(1.0 - few)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_netem::Rng;
    use proptest::prelude::*;

    const STEADY: PathView = PathView {
        loss: 0.02,
        burst: 1.0,
        packets_per_second: 500.0,
        rtt: Duration::from_millis(200),
        network_limited: false,
        samples: 1000,
    };

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    /// The shape after so long on such a path.
    fn settled(percent: u8, view: PathView) -> Option<(usize, usize)> {
        let mut r = Redundancy::new(percent, true);
        for t in 0..100 {
            r.update(at(t * 100), &view);
        }
        r.parity()
    }

    #[test]
    fn more_copies_on_a_long_way() {
        let copies = |rtt, loss, samples| {
            let mut r = Redundancy::new(20, true);
            let rtt = Duration::from_millis(rtt);
            let view = PathView {
                loss,
                samples,
                rtt,
                ..STEADY
            };
            r.update(at(0), &view);
            r.copies()
        };
        assert_eq!((copies(100, 0.15, 1000), copies(200, 0.15, 1000)), (3, 4));
        assert_eq!(copies(600, 0.15, 1000), 3);
        // What was lucky is not believed at once; a path that loses nothing is in the end.
        assert_eq!((copies(100, 0.0, 60), copies(300, 0.0, 60)), (0, 2));
        assert_eq!(copies(300, 0.0, 1000), 0);
    }

    #[test]
    fn copies_follow_loss() {
        let copies = |loss, samples| {
            let mut r = Redundancy::new(20, true);
            r.update(
                at(0),
                &PathView {
                    loss,
                    samples,
                    rtt: Duration::from_millis(50),
                    ..STEADY
                },
            );
            r.copies()
        };
        for (loss, expected) in [
            (0.0, 0),
            (0.0002, 0),
            (0.003, 1),
            (0.017, 1),
            (0.018, 2),
            (0.066, 2),
            (0.068, 3),
            (0.5, 3),
            (1.0, 3),
            (f32::NAN, 0),
            (-1.0, 0),
            (f32::INFINITY, 3),
        ] {
            assert_eq!(copies(loss, 50), expected, "{loss}");
        }
        // New sessions are protected, and less so the more has arrived.
        assert_eq!(Redundancy::new(20, true).copies(), 3);
        assert_eq!(
            (copies(0.0, 0), copies(0.0, 10), copies(0.0, 49)),
            (3, 2, 1)
        );
        assert_eq!((copies(1.0, 1), copies(0.2, 20)), (3, 3));
        let mut r = Redundancy::new(0, true);
        assert_eq!(r.copies(), 0);
        r.update(
            at(0),
            &PathView {
                loss: 0.3,
                ..STEADY
            },
        );
        assert_eq!(r.copies(), 0);
    }

    #[test]
    fn parity_only_where_it_helps() {
        assert_eq!(settled(10, STEADY), Some((10, 1)));
        let [mut calm, mut full, mut new, mut near] = [STEADY; 4];
        calm.loss = 0.004;
        full.network_limited = true;
        new.samples = 49;
        near.rtt = Duration::ZERO;
        for view in [calm, full, new, near] {
            assert_eq!(settled(25, view), None);
        }
        // 99 packets a second are 9.9 in half a round trip.
        let rate = |packets_per_second| PathView {
            packets_per_second,
            ..STEADY
        };
        assert_eq!(settled(10, rate(99.0)), None);
        assert_eq!(settled(10, rate(101.0)), Some((10, 1)));
        assert_eq!(settled(10, rate(f32::NAN)), None);
        let mut off = Redundancy::new(25, false);
        (0..100).for_each(|t| off.update(at(t * 100), &STEADY));
        assert_eq!(off.parity(), None);
    }

    #[test]
    fn shapes() {
        let fast = |loss, burst| PathView {
            loss,
            burst,
            packets_per_second: 2000.0,
            ..STEADY
        };
        for (percent, loss, burst, expected) in [
            (0, 0.01, 1.0, None),
            (4, 0.01, 1.0, None),
            (5, 0.01, 1.0, Some((20, 1))),
            (7, 0.01, 1.0, Some((16, 1))),
            (10, 0.01, 1.0, Some((10, 1))),
            (100, 0.01, 1.0, Some((10, 1))),
            (20, 0.03, 1.0, Some((10, 2))),
            (25, 0.045, 1.0, Some((10, 2))),
            (25, 0.055, 1.0, Some((8, 2))),
            (25, 0.07, 1.0, Some((12, 3))),
            (25, 0.08, 1.0, Some((16, 4))),
            // None is good: the one that fails least.
            (25, 0.12, 1.0, Some((20, 5))),
            (10, 0.1, 1.0, Some((10, 1))),
            (25, 0.4, 1.0, None),
            (25, 1.0, 1.0, None),
            // Bursts need more parity than single losses.
            (25, 0.01, 3.0, Some((10, 2))),
            (25, 0.02, 3.0, Some((20, 5))),
            // None repairs long ones.
            (25, 0.01, 20.0, None),
            (25, 0.01, 1e9, None),
            (25, 0.01, f32::NAN, Some((10, 1))),
        ] {
            assert_eq!(
                settled(percent, fast(loss, burst)),
                expected,
                "{percent} {loss} {burst}"
            );
        }
    }

    #[test]
    fn failures_are_as_frequent_as_computed() {
        let mut rng = Rng::new(1);
        for (parity, total, loss, burst) in [
            (1, 11, 0.02, 1.0),
            (2, 10, 0.1, 1.0),
            (5, 25, 0.2, 1.0),
            (3, 15, 0.05, 3.0),
            (5, 25, 0.1, 4.0),
        ] {
            let (loss, burst) = (f64::from(loss as f32), f64::from(burst as f32));
            let leave = (1.0 - loss).min(1.0 / burst);
            let enter = loss * leave / (1.0 - loss);
            let groups = 100_000;
            let failed = (0..groups)
                .filter(|_| {
                    let mut bad = rng.chance(loss);
                    let mut lost = 0;
                    for _ in 0..total {
                        lost += usize::from(bad);
                        bad = if bad {
                            !rng.chance(leave)
                        } else {
                            rng.chance(enter)
                        };
                    }
                    lost > parity
                })
                .count();
            let seen = failed as f32 / groups as f32;
            let computed = more_than(parity, total, loss as f32, burst as f32);
            assert!((seen - computed).abs() < 0.004, "{seen} {computed}");
        }
    }

    #[test]
    fn changes_are_rare() {
        let mut r = Redundancy::new(25, true);
        let mut rng = Rng::new(3);
        let mut last = None;
        let mut changes = Vec::new();
        for t in (0..600_000).step_by(50) {
            let view = PathView {
                loss: [0.001, 0.01, 0.05, 0.1][rng.below(4) as usize],
                network_limited: rng.chance(0.2),
                packets_per_second: [10.0, 2000.0][rng.below(2) as usize],
                ..STEADY
            };
            r.update(at(t), &view);
            if r.parity() != last {
                last = r.parity();
                changes.push(t);
            }
        }
        assert!(changes[0] >= 2000, "{changes:?}");
        assert!(
            changes.windows(2).all(|w| w[1] - w[0] >= 5000),
            "{changes:?}"
        );
    }

    #[test]
    fn noise_does_not_change_the_shape_and_pauses_do_not_end_it() {
        let mut r = Redundancy::new(25, true);
        let mut shapes = std::collections::BTreeSet::new();
        let mut rng = Rng::new(4);
        for t in (0..120_000).step_by(100) {
            let loss = 0.017 + rng.below(100) as f32 * 0.0001;
            let pause = t % 10_000 > 6000;
            r.update(
                at(t),
                &PathView {
                    loss,
                    packets_per_second: if pause { 1.0 } else { 500.0 },
                    ..STEADY
                },
            );
            if t > 2000 {
                shapes.insert(r.parity());
            }
        }
        assert_eq!(shapes.len(), 1, "{shapes:?}");
        // Nor does a moment in which the path is full; only no parity is sent then.
        assert!(r.allows(1000));
        r.update(
            at(120_000),
            &PathView {
                network_limited: true,
                ..STEADY
            },
        );
        assert!(r.parity().is_some() && !r.allows(1000));
        r.update(at(120_100), &STEADY);
        assert!(r.allows(1000));
        // What has become clean, or much better or worse, does.
        let mut t = 120_200;
        for (loss, shape) in [
            (0.0, None),
            (0.1, Some((20, 5))),
            (0.02, Some((10, 2))),
            (0.01, Some((10, 1))),
            (0.001, None),
        ] {
            let view = PathView {
                loss,
                packets_per_second: 2000.0,
                ..STEADY
            };
            for _ in 0..100 {
                r.update(at(t), &view);
                t += 100;
            }
            assert_eq!(r.parity(), shape, "{loss}");
        }
    }

    #[test]
    fn a_steady_flow_affords_its_groups() {
        let mut r = Redundancy::new(10, true);
        for group in 0..1000 {
            (0..10).for_each(|_| r.on_sent(1350, Sent::Own));
            r.update(at(group * 20), &STEADY);
            assert!(r.allows(1350), "{group}");
            r.on_sent(1350, Sent::Parity);
            r.on_sent(100, Sent::Copy);
        }
        assert_eq!((r.own_bytes(), r.parity_bytes()), (13_500_000, 1_350_000));
        assert_eq!((r.copy_bytes(), r.redundant_bytes()), (100_000, 1_450_000));
    }

    #[test]
    fn what_is_saved_fades() {
        let mut r = Redundancy::new(100, true);
        (0..1000).for_each(|_| r.on_sent(1000, Sent::Own));
        assert!(r.allows(1_000_000));
        for t in 0..100 {
            r.update(at(t * 100), &STEADY);
        }
        assert!(r.allows(7500) && !r.allows(20_000));
        // What was taken without asking is owed.
        r.on_sent(50_000, Sent::Parity);
        assert!(!r.allows(0) && !r.allows(1));
    }

    proptest! {
        #[test]
        fn the_budget_holds_under_any_input(
            percent in 0u8..=255,
            steps in proptest::collection::vec((0u8..4, 0usize..3000, any::<(u32, f32, f32, f32, u32, bool)>()), 0..500),
        ) {
            let mut r = Redundancy::new(percent, true);
            let mut now = Instant::ZERO;
            let share = u64::from(percent.min(100));
            let burst = if percent == 0 { 0 } else { BURST };
            for (what, bytes, (wait, loss, burst_length, rate, samples, network_limited)) in steps {
                match what {
                    0 => r.on_sent(bytes, Sent::Own),
                    1 => r.on_sent(bytes, Sent::Copy),
                    2 => {
                        now += Duration::from_millis(u64::from(wait % 1000));
                        r.update(now, &PathView {
                            loss,
                            burst: burst_length,
                            packets_per_second: rate,
                            rtt: Duration::from_micros(u64::from(wait)),
                            network_limited,
                            samples,
                        });
                    }
                    _ => {
                        // As many as are allowed.
                        while r.allows(bytes.max(1)) {
                            r.on_sent(bytes.max(1), Sent::Parity);
                        }
                    }
                }
                prop_assert!(r.parity_bytes() * 100 <= r.own_bytes() * share + burst * 100);
                prop_assert!(r.copies() <= MOST_COPIES_FAR);
                if let Some((data, parity)) = r.parity() {
                    prop_assert!(data + parity < 256 && parity as u64 * 100 <= data as u64 * share);
                }
            }
        }
    }
}
