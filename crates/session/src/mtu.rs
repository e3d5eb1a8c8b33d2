//! Finds the largest datagram that a path carries, and notices when it no longer carries it.
//!
//! A numbered KCP segment cannot be cut again: one that is too large for the path is lost however often it is sent. So
//! data never leave in datagrams larger than a size that was shown to pass. This is the search of RFC 8899 with what
//! every KCP peer already does: a probe is a window question (WASK, docs/spec/kcptun.md, section 7.1) padded to the size in
//! question, and the window announcement (WINS) that answers it is the confirmation (RFC 8899, sections 4.1 and 4.2).
//! A lost probe loses no data and says nothing about congestion.
//!
//! ```text
//!           answered               the largest size passes, or steps have become small
//!   base ────────────▶ searching ──────────────────────────────────────────────────────▶ done
//!    ▲                     ▲                                                              │ │
//!    │                     └────────── ten minutes, if it is not the largest ─────────────┘ │
//!    └───────────── black hole: large ones vanish and smaller ones arrive ──────────────────┘
//! ```
//!
//! Where it differs from RFC 8899: the smallest size is assumed, not confirmed, until data contradict it (section 5.2); a probe
//! is given up after a retransmission timeout, not after a second or more (section 5.1.1), since an answer takes one
//! round trip; what routers report (section 4.6) is not used. It does not know what a datagram is made of: the owner pads,
//! sends and tells what was answered, delivered and lost.

use core::time::Duration;

use fulmar_wire::time::Instant;

/// The size that data have before anything is known, in bytes of UDP payload: BASE_PLPMTU (RFC 8899, section 5.1.2).
pub const BASE: usize = 1200;
/// The size when even [`BASE`] does not pass: what is left of 576 bytes, which every IPv4 path is expected to carry, after
/// the headers of IPv4 and UDP.
pub const FLOOR: usize = 548;

/// A search ends when the smallest size that failed is no more than this above the size in use.
const STEP: usize = 16;
/// Unanswered tries after which a size has failed: MAX_PROBES (RFC 8899, section 5.1.2).
const TRIES: u8 = 3;
/// Most tries, with those that are not counted because nothing else was delivered meanwhile: a server that is not up yet and
/// an outage say nothing about sizes.
const MOST_TRIES: u8 = 12;
/// No try is given up sooner: the other side may take its flush interval to answer.
const SHORTEST_WAIT: Duration = Duration::from_millis(200);
/// Time until a larger size is tried again: PMTU_RAISE_TIMER (RFC 8899, section 5.1.1).
const RAISE_EVERY: Duration = Duration::from_secs(600);
/// Shortest and longest time from a black hole to the next search; doubled by each that follows.
const PAUSE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(600));
/// Falls this close to each other are steps down the same hole.
const SAME_HOLE: Duration = Duration::from_secs(10);
/// How long after the last sign of traffic a session still probes.
const ACTIVE: Duration = Duration::from_secs(2);

/// Fewest large datagrams in a row that have to be lost.
const FEWEST_LOSSES: u32 = 6;
/// So many more that chance would do it this rarely.
const CHANCE: f32 = 1e-10;
/// Smaller datagrams that have to arrive meanwhile, and how recently.
const SMALLER: u32 = 2;
const RECENT: Duration = Duration::from_millis(1500);
/// Losses of large datagrams have to come in at least so many rows, with smaller ones delivered between them: what an
/// outage took is found out all at once, and smaller ones may be the first to arrive after it.
const ROUNDS: u32 = 2;
/// And they have to go on for so long: a full queue has more often room for small datagrams than for large ones, and a sender that
/// looks for the rate of a path fills it for some round trips.
const LASTS: Duration = Duration::from_millis(500);
/// Losses in a row after which the machine asks for itself whether smaller datagrams arrive.
const DOUBTFUL: u32 = 3;
/// Time between these questions, and how long after the last loss they are asked.
const DOUBT_EVERY: Duration = Duration::from_millis(100);
const DOUBT_LASTS: Duration = Duration::from_secs(3);
/// Time between them while enough smaller datagrams arrive.
const DOUBT_RESTS: Duration = Duration::from_millis(500);

/// Packets over which the loss is averaged, and what it is taken for before any.
const LOSS_OVER: f32 = 64.0;
const LOSS_AT_FIRST: f32 = 0.1;

/// The search for one direction of one session. All sizes are bytes of UDP payload.
#[derive(Debug)]
pub struct MtuSearch {
    max: usize,
    size: usize,
    /// The smallest size that has failed in this search.
    failed: Option<usize>,
    /// Something larger than `size` is known not to pass.
    narrow: bool,
    /// When the search goes on, if the size is not the largest.
    next: Instant,
    probe: Option<Probe>,
    active_until: Option<Instant>,
    /// When anything was last delivered.
    heard: Instant,
    streak: Streak,
    /// Share of datagrams that are lost whatever their size.
    loss: f32,
    /// When the last question about smaller datagrams was asked, and whether it was answered.
    doubted: Option<(Instant, bool)>,
    hole: Option<Instant>,
    pause: Duration,
    probes: u64,
    black_holes: u64,
}

/// A question that is out.
#[derive(Copy, Clone, Debug)]
struct Probe {
    purpose: Purpose,
    size: usize,
    tries: u8,
    /// Tries that were given up although other datagrams were delivered meanwhile.
    failed: u8,
    /// When the first and the latest try left.
    first: Instant,
    latest: Instant,
    /// How long the latest may take.
    wait: Duration,
    /// Whether an answer to the latest would not have been known as one.
    doubtful: bool,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Purpose {
    /// Does this larger size pass?
    Search,
    /// Does this smaller size pass while large ones do not?
    Doubt,
}

/// What has happened since a large datagram was last delivered.
#[derive(Copy, Clone, Default, Debug)]
struct Streak {
    /// Large ones lost in a row, and when the first and the latest were found out.
    lost: u32,
    began: Instant,
    lost_at: Instant,
    /// Rows of such losses, between which smaller ones were delivered.
    rounds: u32,
    /// Whether a smaller one was delivered after the latest loss.
    between: bool,
    /// Smaller ones, after the first loss.
    smaller_delivered: u32,
    smaller_lost: u32,
    smaller_at: Instant,
}

impl MtuSearch {
    /// Searches between [`BASE`] and `max`, the configured MTU. When `max` is no larger than [`BASE`], data have that size
    /// from the beginning and only a black hole makes a session probe.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            max,
            size: max.min(BASE),
            failed: None,
            narrow: false,
            next: Instant::ZERO,
            probe: None,
            active_until: None,
            heard: Instant::ZERO,
            streak: Streak::default(),
            loss: LOSS_AT_FIRST,
            doubted: None,
            hole: None,
            pause: PAUSE.0,
            probes: 0,
            black_holes: 0,
        }
    }

    /// A path to which others of ours have sent datagrams of `known` bytes, lately: the search begins there. A path that no longer
    /// carries them is a black hole like any other.
    #[must_use]
    pub fn from_known(max: usize, known: usize) -> Self {
        let fresh = Self::new(max);
        Self {
            size: known.clamp(fresh.size, max.max(fresh.size)),
            narrow: known > BASE && known < max,
            ..fresh
        }
    }

    /// The largest size that data may have now.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.size
    }

    /// Whether something larger than [`Self::size`] is known not to pass. While it is not known, what can be sent again in
    /// another shape may be larger, up to the configured MTU.
    #[must_use]
    pub const fn is_narrow(&self) -> bool {
        self.narrow
    }

    /// Probes sent, repetitions included.
    #[must_use]
    pub const fn probes(&self) -> u64 {
        self.probes
    }

    /// Times that a size which had passed no longer did.
    #[must_use]
    pub const fn black_holes(&self) -> u64 {
        self.black_holes
    }

    /// The session has something to do: data left, or wait for an acknowledgement. A session that is idle is never probed.
    pub fn active(&mut self, now: Instant) {
        self.active_until = Some(now + ACTIVE);
    }

    /// The size of a probe that should leave now; it counts as sent. `rto` is the current retransmission timeout.
    pub fn poll_probe(&mut self, now: Instant, rto: Duration) -> Option<usize> {
        if self.active_until.is_none_or(|until| until < now) {
            self.active_until = None;
            return None;
        }
        let wait = rto.max(SHORTEST_WAIT);
        if let Some(probe) = self.probe {
            if now < probe.due() {
                return None;
            }
            self.probe = None;
            let failed = probe.failed + u8::from(self.heard > probe.latest && !probe.doubtful);
            match probe.purpose {
                // A doubt is more urgent; the search begins again afterwards.
                Purpose::Search if self.streak.lost >= DOUBTFUL => {}
                Purpose::Search if failed < TRIES && probe.tries < MOST_TRIES => {
                    return self.send(Probe {
                        tries: probe.tries + 1,
                        failed,
                        latest: now,
                        wait,
                        doubtful: false,
                        ..probe
                    });
                }
                Purpose::Search => {
                    self.failed = Some(probe.size);
                    self.narrow = true;
                    self.conclude(now);
                }
                Purpose::Doubt => self.streak.smaller_lost += 1,
            }
        }
        let (purpose, size) = if let Some((_, size)) = self.doubt().filter(|(at, _)| *at <= now) {
            self.doubted = Some((now, false));
            // Its answer must not be taken for that to a search, however late it comes.
            self.next = self.next.max(now + wait * 2);
            (Purpose::Doubt, size)
        } else if self.next <= now {
            (Purpose::Search, self.candidate()?)
        } else {
            return None;
        };
        self.send(Probe {
            purpose,
            size,
            tries: 1,
            failed: 0,
            first: now,
            latest: now,
            wait,
            doubtful: false,
        })
    }

    /// When [`Self::poll_probe`] has something to do; `None` while the session is idle.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let until = self.active_until?;
        let at = match &self.probe {
            Some(probe) => probe.due(),
            None => {
                let search = self.candidate().map(|_| self.next);
                let doubt = self.doubt().map(|(at, _)| at);
                [search, doubt].into_iter().flatten().min()?
            }
        };
        (at <= until).then_some(at)
    }

    /// Whether a probe is out.
    #[must_use]
    pub const fn is_asking(&self) -> bool {
        self.probe.is_some()
    }

    /// Announcements cannot be told from the answer to the probe that is out: whether it passes stays open.
    pub const fn doubt_answer(&mut self) {
        if let Some(probe) = &mut self.probe {
            probe.doubtful = true;
        }
    }

    /// A window announcement arrived: the answer, if a probe is out. `min_rtt` is the shortest round trip seen: what arrives
    /// sooner after the probe than that was announced for another reason. An announcement does not say what it answers, so
    /// other window questions should not leave while a probe is out, see [`Self::is_asking`]. Returns the new size if it
    /// changes.
    pub fn on_answer(&mut self, now: Instant, min_rtt: Duration) -> Option<usize> {
        // Round trips are measured in whole milliseconds.
        let slack = Duration::from_millis(1);
        let probe = self
            .probe
            .take_if(|probe| now.since(probe.first) + slack >= min_rtt)?;
        self.heard = now;
        match probe.purpose {
            Purpose::Search => {
                self.size = probe.size;
                self.narrow &= self.size < self.max;
                self.streak = Streak::default();
                // Answers to the other tries may still be under way, and must not be taken for that to the next, larger size.
                self.next = if probe.tries > 1 {
                    probe.due() + probe.wait
                } else {
                    now
                };
                self.conclude(now);
                Some(self.size)
            }
            Purpose::Doubt => {
                self.doubted = Some((probe.latest, true));
                self.smaller_delivered(now)
            }
        }
    }

    /// A data datagram of `size` bytes was acknowledged. Returns the new size if it changes.
    pub fn on_delivered(&mut self, now: Instant, size: usize) -> Option<usize> {
        self.heard = now;
        // Larger ones are left from before a black hole.
        let lower = self.lower().filter(|_| size <= self.size)?;
        if size <= lower {
            self.average(0);
            return self.smaller_delivered(now);
        }
        let streak = std::mem::take(&mut self.streak);
        self.average(streak.lost);
        self.doubted = None;
        None
    }

    /// A data datagram of `size` bytes was found to be lost. Returns the new size if it changes.
    pub fn on_lost(&mut self, now: Instant, size: usize) -> Option<usize> {
        let lower = self.lower().filter(|_| size <= self.size)?;
        if size <= lower {
            self.loss += (1.0 - self.loss) / LOSS_OVER;
            self.streak.smaller_lost += u32::from(self.streak.lost > 0);
            return None;
        }
        let streak = &mut self.streak;
        if streak.smaller_delivered > 0 && now.since(streak.smaller_at) > RECENT {
            streak.smaller_delivered = 0;
            streak.smaller_lost = 0;
        }
        if streak.lost == 0 {
            streak.began = now;
        }
        streak.rounds += u32::from(streak.lost == 0 || streak.between);
        streak.between = false;
        streak.lost = streak.lost.saturating_add(1);
        streak.lost_at = now;
        self.judge(now)
    }

    fn smaller_delivered(&mut self, now: Instant) -> Option<usize> {
        if self.streak.lost == 0 {
            return None;
        }
        self.streak.smaller_delivered += 1;
        self.streak.smaller_at = now;
        self.streak.between = true;
        self.judge(now)
    }

    /// Whether what has happened is a black hole (RFC 8899, section 4.3); then data become smaller.
    fn judge(&mut self, now: Instant) -> Option<usize> {
        let lower = self.lower()?;
        let streak = &self.streak;
        let arrive = streak.smaller_delivered >= SMALLER
            && streak.smaller_delivered > streak.smaller_lost
            && now.since(streak.smaller_at) <= RECENT;
        let lasts = now.since(streak.began) >= LASTS;
        if !arrive || !lasts || streak.rounds < ROUNDS || streak.lost < self.enough() {
            return None;
        }
        let since = self.hole.map(|at| now.since(at));
        if since.is_none_or(|since| since > SAME_HOLE) {
            self.black_holes += 1;
            self.pause = match since {
                // One that came back soon after the search.
                Some(since) if since < self.pause + RAISE_EVERY => (self.pause * 2).min(PAUSE.1),
                _ => PAUSE.0,
            };
        }
        self.hole = Some(now);
        self.narrow = true;
        self.size = lower;
        self.failed = None;
        self.next = now + self.pause;
        self.probe = None;
        self.doubted = None;
        self.streak = Streak::default();
        Some(lower)
    }

    /// Losses in a row that cannot be chance.
    fn enough(&self) -> u32 {
        let losses = (CHANCE.ln() / self.loss.clamp(0.01, 0.7).ln()).ceil();
        // At most ln(1e-10) / ln(0.7), 65.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        (losses as u32).max(FEWEST_LOSSES)
    }

    /// Adds `lost` datagrams and one that was delivered to the average.
    fn average(&mut self, lost: u32) {
        let keep = 1.0 - 1.0 / LOSS_OVER;
        let exponent = i32::try_from(lost).unwrap_or(i32::MAX);
        self.loss = (1.0 - (1.0 - self.loss) * keep.powi(exponent)) * keep;
    }

    /// Where data would fall to. What is larger is a large datagram; what is not is a smaller one.
    fn lower(&self) -> Option<usize> {
        [BASE, FLOOR].into_iter().find(|lower| *lower < self.size)
    }

    /// The size to search with: the largest first, because most paths carry it, then halves (RFC 8899, section 5.3).
    fn candidate(&self) -> Option<usize> {
        if self.size >= self.max {
            return None;
        }
        match self.failed {
            None => Some(self.max),
            Some(failed) if failed > self.size + STEP => Some(self.size + (failed - self.size) / 2),
            Some(_) => None,
        }
    }

    /// When to ask whether smaller datagrams arrive, and with which size: the one to fall to, and the smallest in turn
    /// when that is not answered.
    fn doubt(&self) -> Option<(Instant, usize)> {
        let lower = self.lower().filter(|_| self.streak.lost >= DOUBTFUL)?;
        let mut at = self.streak.lost_at;
        let mut size = lower;
        if let Some((asked, answered)) = self.doubted {
            at = at.max(asked + DOUBT_EVERY);
            if !answered {
                size = FLOOR;
            }
        }
        if self.streak.smaller_delivered >= SMALLER {
            at = at.max(self.streak.smaller_at + DOUBT_RESTS);
        }
        (at <= self.streak.lost_at + DOUBT_LASTS).then_some((at, size))
    }

    /// Ends a search that has nothing left to try.
    fn conclude(&mut self, now: Instant) {
        if self.candidate().is_none() {
            self.failed = None;
            self.next = now + RAISE_EVERY;
        }
    }

    fn send(&mut self, probe: Probe) -> Option<usize> {
        self.probes += 1;
        self.probe = Some(probe);
        Some(probe.size)
    }
}

impl Probe {
    /// When the latest try is given up.
    fn due(&self) -> Instant {
        self.latest + self.wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_netem::Rng;
    use proptest::prelude::*;
    use std::collections::BinaryHeap;

    const RTO: Duration = Duration::from_millis(200);
    const RTT: Duration = Duration::from_millis(50);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A search on a path that carries `limit` bytes and loses nothing else, for so long; the probes and when they left.
    fn search(m: &mut MtuSearch, from: u64, until: u64, limit: usize) -> Vec<(u64, usize)> {
        let mut out = Vec::new();
        let mut answers = Vec::new();
        for t in from..until {
            let now = Instant::from_millis(t);
            if answers.first() == Some(&now) {
                answers.remove(0);
                m.on_answer(now, RTT);
            }
            m.active(now);
            m.on_delivered(now, 100);
            if let Some(size) = m.poll_probe(now, RTO) {
                out.push((t, size));
                if size <= limit {
                    answers.push(now + RTT);
                }
            }
            assert!(m.poll_timeout().is_none_or(|at| at > now));
        }
        out
    }

    fn at_max() -> MtuSearch {
        let mut m = MtuSearch::new(1350);
        assert_eq!(search(&mut m, 0, 100, 1500), [(0, 1350)]);
        assert_eq!(m.size(), 1350);
        m
    }

    #[test]
    fn most_paths_take_one_probe() {
        let mut m = at_max();
        // And never another one.
        assert_eq!(search(&mut m, 100, 1_300_000, 1500), []);
        assert_eq!((m.probes(), m.black_holes()), (1, 0));
    }

    #[test]
    fn halves_until_steps_are_small() {
        let mut m = MtuSearch::new(1400);
        let probes = search(&mut m, 0, 5000, 1280);
        let sizes: Vec<_> = probes.iter().map(|p| p.1).collect();
        assert_eq!(
            sizes,
            [
                1400, 1400, 1400, 1300, 1300, 1300, 1250, 1275, 1287, 1287, 1287
            ]
        );
        assert_eq!(m.size(), 1275);
        // Ten minutes later the largest is tried again, and now it passes.
        assert!(m.is_narrow());
        let failed = probes[10].0 + 200;
        assert_eq!(
            search(&mut m, 5000, 700_000, 1500),
            [(failed + 600_000, 1400)]
        );
        assert_eq!((m.size(), m.is_narrow()), (1400, false));
    }

    #[test]
    fn a_size_whose_answer_cannot_be_told_has_not_failed() {
        let mut m = MtuSearch::new(1350);
        let mut probes = Vec::new();
        let mut answer = None;
        for t in 0..5000 {
            let now = Instant::from_millis(t);
            m.active(now);
            m.on_delivered(now, 100);
            // Until then the window of the receiver is full all the time.
            if t < 1500 {
                m.doubt_answer();
            } else if answer == Some(now) {
                m.on_answer(now, RTT);
            }
            if let Some(size) = m.poll_probe(now, RTO) {
                probes.push(size);
                answer = Some(now + RTT);
            }
        }
        assert_eq!(probes, [1350; 9]);
        assert_eq!(m.size(), 1350);
    }

    #[test]
    fn every_limit_is_found_and_never_exceeded() {
        for max in 548..=1500 {
            for limit in [1199, 1200, 1201, 1216, 1217, 1300, 1349, 1350, 1480, 1500] {
                let mut m = MtuSearch::new(max);
                search(&mut m, 0, 7000, limit);
                let best = max.min(limit.max(BASE));
                assert!(m.size() <= best && m.size() + STEP >= best, "{max} {limit}");
                assert!(max > BASE || m.probes() == 0);
            }
        }
    }

    #[test]
    fn late_answers_are_not_taken_for_those_to_larger_sizes() {
        let mut m = MtuSearch::new(1400);
        let at = Instant::from_millis;
        m.active(at(1000));
        let poll = |m: &mut MtuSearch, t| {
            m.active(at(t));
            m.on_delivered(at(t), 100);
            m.poll_probe(at(t), RTO)
        };
        for t in [1000, 1200, 1400] {
            assert_eq!(poll(&mut m, t), Some(1400));
        }
        assert_eq!(poll(&mut m, 1600), Some(1300));
        assert_eq!(poll(&mut m, 1800), Some(1300));
        // Sooner than any answer can be.
        assert_eq!(m.on_answer(at(1600), RTT), None);
        assert_eq!(m.on_answer(at(1850), RTT), Some(1300));
        // The second answer finds nothing to confirm.
        assert_eq!(poll(&mut m, 1850), None);
        assert_eq!(m.on_answer(at(2050), RTT), None);
        assert_eq!(m.poll_timeout(), Some(at(2200)));
        assert_eq!(poll(&mut m, 2200), Some(1350));
    }

    #[test]
    fn an_outage_does_not_end_the_search() {
        let mut m = MtuSearch::new(1350);
        for t in 0..2100 {
            m.active(Instant::from_millis(t));
            m.poll_probe(Instant::from_millis(t), RTO);
        }
        assert_eq!(m.probes(), 11);
        search(&mut m, 2100, 3000, 1500);
        assert_eq!(m.size(), 1350);
    }

    #[test]
    fn nothing_while_idle() {
        let at = Instant::from_millis;
        let mut m = MtuSearch::new(1350);
        assert_eq!((m.poll_timeout(), m.poll_probe(at(5), RTO)), (None, None));
        m.active(at(10));
        assert_eq!(m.poll_timeout(), Some(Instant::ZERO));
        assert_eq!(m.poll_probe(at(10), RTO), Some(1350));
        assert_eq!(m.poll_timeout(), Some(at(210)));
        assert_eq!(m.poll_probe(at(3000), RTO), None);
        assert_eq!(m.poll_timeout(), None);
        m.active(at(60_000));
        assert_eq!(m.poll_timeout(), Some(at(210)));
        assert_eq!(m.poll_probe(at(60_000), RTO), Some(1350));
        assert_eq!(m.poll_timeout(), Some(at(60_200)));
    }

    /// A bulk sender with a round trip of 300 ms and a timeout of 450 ms.
    struct Sender {
        rng: Rng,
        loss: f64,
        /// Milliseconds between data datagrams, and how many of a hundred are small.
        every: u64,
        small: u64,
        events: BinaryHeap<std::cmp::Reverse<(u64, u64, usize)>>,
    }

    const ANSWERED: u64 = 0;
    const DELIVERED: u64 = 1;
    const LOST: u64 = 2;

    impl Sender {
        fn new(seed: u64, loss: f64, every: u64, small: u64) -> Self {
            Self {
                rng: Rng::new(seed),
                loss,
                every,
                small,
                events: BinaryHeap::new(),
            }
        }

        /// Until the machine's size is `goal` or time is up; when that was.
        fn run(
            &mut self,
            m: &mut MtuSearch,
            from: u64,
            until: u64,
            limit: impl Fn(u64) -> usize,
            goal: usize,
        ) -> u64 {
            for t in from..until {
                let now = Instant::from_millis(t);
                while let Some(std::cmp::Reverse((at, what, size))) = self.events.peek().copied() {
                    if at > t {
                        break;
                    }
                    self.events.pop();
                    match what {
                        ANSWERED => m.on_answer(now, ms(290)),
                        DELIVERED => m.on_delivered(now, size),
                        _ => m.on_lost(now, size),
                    };
                }
                if m.size() == goal {
                    return t;
                }
                m.active(now);
                let mut push =
                    |at, what, size| self.events.push(std::cmp::Reverse((at, what, size)));
                if t % self.every == 0 {
                    let small = self.rng.below(100) < self.small;
                    let size = if small { 200 } else { m.size() };
                    if size > limit(t) || self.rng.chance(self.loss) {
                        push(t + 450, LOST, size);
                    } else {
                        push(t + 300, DELIVERED, size);
                    }
                }
                if let Some(size) = m.poll_probe(now, ms(450)) {
                    let there = size <= limit(t) && !self.rng.chance(self.loss);
                    if there && !self.rng.chance(self.loss) {
                        push(t + 300, ANSWERED, size);
                    }
                }
            }
            until
        }
    }

    #[test]
    fn a_black_hole_is_left_within_two_seconds() {
        for (loss, every, small) in [
            (0.0, 1, 0),
            (0.0, 10, 0),
            (0.0, 50, 0),
            (0.0, 10, 30),
            (0.0, 50, 50),
            (0.02, 10, 10),
            (0.05, 20, 20),
            (0.1, 20, 20),
            (0.3, 10, 20),
            (0.3, 20, 40),
        ] {
            for seed in 0..20 {
                let mut m = at_max();
                let mut s = Sender::new(seed, loss, every, small);
                assert_eq!(s.run(&mut m, 100, 60_000, |_| 1500, BASE), 60_000);
                let at = s.run(&mut m, 60_000, 70_000, |_| 1280, BASE);
                assert!(at <= 62_000, "{loss} {every} {small} {seed}: {at}");
                assert_eq!(m.black_holes(), 1);
                // Half a minute later the size below the limit is found.
                s.run(&mut m, at + 1, at + 29_900, |_| 1280, 0);
                assert_eq!(m.size(), BASE);
                if loss == 0.0 {
                    s.run(&mut m, at + 29_900, at + 40_000, |_| 1280, 0);
                    assert!((1264..=1280).contains(&m.size()), "{}", m.size());
                }
            }
        }
    }

    #[test]
    fn down_to_the_floor_when_the_base_vanishes() {
        let mut m = MtuSearch::new(1350);
        let mut s = Sender::new(1, 0.0, 10, 10);
        let at = s.run(&mut m, 0, 20_000, |_| 1000, FLOOR);
        assert!(at <= 2000, "{at}");
        let at = s.run(&mut m, at + 1, at + 60_000, |_| 1000, 0);
        assert!((984..=1000).contains(&m.size()), "{}", m.size());

        // From above the base it takes two steps, which are one black hole.
        let mut m = at_max();
        let from = at + 1000;
        let mut s = Sender::new(1, 0.0, 10, 10);
        s.run(&mut m, from, from + 2000, |_| 1500, 0);
        let down = s.run(&mut m, from + 2000, from + 20_000, |_| 600, FLOOR);
        assert!(down - from - 2000 <= 4000, "{}", down - from - 2000);
        assert_eq!(m.black_holes(), 1);

        // A small configured size has only the floor below it.
        let mut m = MtuSearch::new(800);
        let mut s = Sender::new(1, 0.0, 10, 10);
        assert_eq!(s.run(&mut m, 0, 20_000, |_| 1500, FLOOR), 20_000);
        assert!(s.run(&mut m, 20_000, 30_000, |_| 700, FLOOR) < 22_000);
        let mut m = MtuSearch::new(500);
        assert_eq!(s.run(&mut m, 30_000, 90_000, |_| 300, FLOOR), 90_000);
        assert_eq!((m.size(), m.probes()), (500, 0));
    }

    #[test]
    fn heavy_random_loss_is_not_a_black_hole() {
        for (seed, small) in [(1, 1), (2, 20), (3, 50), (4, 90)] {
            let mut m = at_max();
            let mut s = Sender::new(seed, 0.3, 1, small);
            s.run(&mut m, 1000, 1_001_000, |_| 1500, 0);
            assert_eq!((m.size(), m.black_holes()), (1350, 0), "{seed}");
        }
    }

    #[test]
    fn an_outage_is_not_a_black_hole() {
        for seed in 0..10 {
            for (every, small) in [(1, 0), (5, 10), (10, 50), (40, 30)] {
                let mut m = at_max();
                let mut s = Sender::new(seed, 0.01, every, small);
                // 1.3 s in every 10.
                let limit = |t| if t % 10_000 < 1300 { 0 } else { 1500 };
                s.run(&mut m, 100, 300_000, limit, 0);
                assert_eq!((m.size(), m.black_holes()), (1350, 0), "{seed} {every}");
            }
        }
    }

    #[test]
    fn each_black_hole_is_given_more_time() {
        let mut m = at_max();
        let mut t = 1000;
        let mut pauses = Vec::new();
        for _ in 0..7 {
            let fell = (t..t + 1000)
                .step_by(10)
                .find(|t| {
                    let now = Instant::from_millis(*t);
                    m.on_lost(now, 1300)
                        .or_else(|| m.on_delivered(now, 100))
                        .is_some()
                })
                .expect("a fall");
            let probes = search(&mut m, fell, fell + 601_000, 1500);
            pauses.push((probes[0].0 - fell) / 1000);
            assert_eq!(m.size(), 1350);
            t = probes[0].0 + 1000;
        }
        assert_eq!(pauses, [30, 60, 120, 240, 480, 600, 600]);
        assert_eq!(m.black_holes(), 7);
    }

    proptest! {
        /// Whatever is reported, sizes stay in range and a driver that follows the timeouts does not spin.
        #[test]
        fn any_reports(max in 0usize..1600, steps in proptest::collection::vec((0u8..6, 0u64..3000, 0usize..1600), 0..400)) {
            let mut m = MtuSearch::new(max);
            let mut now = Instant::ZERO;
            for (what, after, size) in steps {
                now += ms(after / 10);
                match what {
                    0 => m.active(now),
                    1 => drop(m.on_answer(now, RTT)),
                    2 => drop(m.on_delivered(now, size)),
                    3 => drop(m.on_lost(now, size)),
                    _ => {
                        if let Some(size) = m.poll_probe(now, RTO) {
                            prop_assert!(size <= max);
                        }
                        prop_assert!(m.poll_timeout().is_none_or(|at| at > now));
                    }
                }
                prop_assert!(m.size() <= max && m.size() >= max.min(FLOOR));
            }
        }
    }
}
