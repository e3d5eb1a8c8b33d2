//! When to be woken for each datagram, and when to look at intervals.
//!
//! A sender that gives the network one packet at a time wakes its receiver for nearly each of them, and a wake-up costs
//! several times what the packet itself does. While that goes on, a driver does not wait for datagrams but looks for them at
//! short intervals, as network cards do with interrupts. Few datagrams, or datagrams that come in long runs, wake it as
//! ever: nothing waits that would not have waited for others of its kind anyway. Nor does a driver whose sessions have more to
//! send as soon as acknowledgements arrive.

use core::time::Duration;

use fulmar_wire::time::Instant;

/// Wake-ups that are looked at together.
const WAKES: u32 = 16;
/// Sixteen wake-ups within this time are many: more than 4000 in a second.
const MANY: Duration = Duration::from_millis(4);
/// Wake-ups that bring so many datagrams on average are worth their price.
const FEW_DATAGRAMS: usize = 8;
/// The interval, and how short it becomes when much arrives.
const INTERVAL: Duration = Duration::from_millis(1);
const SHORT: Duration = Duration::from_micros(250);
/// With more than so many datagrams found, the next look is earlier: receive buffers of sockets are not large everywhere.
const ENOUGH: usize = 64;
/// Looks that are judged together, and how many datagrams they have to find on average.
const LOOKS: u32 = 16;
const WORTH: usize = 3;
/// How long wake-ups are not judged after looking was not worth it.
const PAUSE: Duration = Duration::from_millis(50);

/// How a driver learns of datagrams. See the module's documentation.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// The socket wakes it.
    Wakes,
    /// It looks after this time.
    Looks(Duration),
}

/// Decides on the [`Mode`].
#[derive(Debug)]
pub(crate) struct Moderation {
    mode: Mode,
    /// Since when wake-ups, or looks, are counted; in the future while they are not judged.
    since: Instant,
    times: u32,
    datagrams: usize,
}

impl Moderation {
    pub(crate) const fn new() -> Self {
        Self {
            mode: Mode::Wakes,
            since: Instant::ZERO,
            times: 0,
            datagrams: 0,
        }
    }

    /// After a wake-up, or a look, that brought `datagrams` until the socket was empty. `hurry`: what arrives next is
    /// waited for.
    pub(crate) fn after(&mut self, now: Instant, datagrams: usize, hurry: bool) -> Mode {
        if hurry && matches!(self.mode, Mode::Looks(_)) {
            self.give_up(now);
        }
        if now < self.since {
            return self.mode;
        }
        if self.times == 0 && matches!(self.mode, Mode::Wakes) {
            self.since = now;
        }
        self.times += 1;
        self.datagrams += datagrams;
        match self.mode {
            Mode::Wakes if self.times == WAKES => {
                let many = now - self.since < MANY;
                if many && !hurry && self.datagrams < FEW_DATAGRAMS * WAKES as usize {
                    self.mode = Mode::Looks(INTERVAL);
                }
                self.reset(now);
            }
            Mode::Wakes => {}
            Mode::Looks(_) if self.times == LOOKS => {
                if self.datagrams < WORTH * LOOKS as usize {
                    self.give_up(now);
                } else {
                    self.reset(now);
                }
            }
            Mode::Looks(_) => {
                self.mode = Mode::Looks(if datagrams > ENOUGH { SHORT } else { INTERVAL });
            }
        }
        self.mode
    }

    /// Looking is not worth it, or not possible: for a while it is not considered again.
    pub(crate) fn give_up(&mut self, now: Instant) {
        self.mode = Mode::Wakes;
        self.reset(now + PAUSE);
    }

    const fn reset(&mut self, since: Instant) {
        self.since = since;
        self.times = 0;
        self.datagrams = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets datagrams arrive every `gap` µs for `wakes` wake-ups or looks, from `at` on.
    fn run(m: &mut Moderation, at: &mut u64, gap: u64, wakes: usize) -> Vec<Mode> {
        let mut mode = m.mode;
        (0..wakes)
            .map(|_| {
                let wait = match mode {
                    Mode::Wakes => gap,
                    Mode::Looks(interval) => u64::try_from(interval.as_micros()).expect("small"),
                };
                *at += wait;
                let found = usize::try_from(wait / gap).expect("few");
                mode = m.after(Instant::from_micros(*at), found, false);
                mode
            })
            .collect()
    }

    #[test]
    fn a_stream_of_single_packets_is_looked_for() {
        let (mut m, mut at) = (Moderation::new(), 0);
        assert_eq!(run(&mut m, &mut at, 50, 15), [Mode::Wakes; 15]);
        assert_eq!(run(&mut m, &mut at, 50, 100), [Mode::Looks(INTERVAL); 100]);
    }

    #[test]
    fn a_flood_is_looked_for_more_often() {
        let (mut m, mut at) = (Moderation::new(), 0);
        let modes = run(&mut m, &mut at, 5, 60);
        assert!(modes.contains(&Mode::Looks(SHORT)));
        assert!(!modes[16..].contains(&Mode::Wakes));
    }

    #[test]
    fn rare_datagrams_wake() {
        let (mut m, mut at) = (Moderation::new(), 0);
        assert_eq!(run(&mut m, &mut at, 300, 1000), [Mode::Wakes; 1000]);
    }

    #[test]
    fn long_runs_wake() {
        let mut m = Moderation::new();
        for i in 0..1000 {
            assert_eq!(
                m.after(Instant::from_micros(i * 100), 40, false),
                Mode::Wakes
            );
        }
    }

    #[test]
    fn looking_ends_when_it_finds_little() {
        let (mut m, mut at) = (Moderation::new(), 0);
        run(&mut m, &mut at, 50, 20);
        // An echo that waits for each answer: one datagram for each look.
        let modes = run(&mut m, &mut at, 900, 2 * LOOKS as usize);
        assert_eq!(modes.last(), Some(&Mode::Wakes));
        // And it is not tried again at once.
        assert_eq!(run(&mut m, &mut at, 100, 100), [Mode::Wakes; 100]);
        at += 60_000;
        assert!(run(&mut m, &mut at, 50, 20).contains(&Mode::Looks(INTERVAL)));
    }

    #[test]
    fn a_gap_does_not_end_looking_and_silence_does() {
        let (mut m, mut at) = (Moderation::new(), 0);
        run(&mut m, &mut at, 50, 16);
        for found in [30, 0, 0, 30, 0, 0, 0, 30] {
            at += 1000;
            assert_eq!(
                m.after(Instant::from_micros(at), found, false),
                Mode::Looks(INTERVAL)
            );
        }
        let silent = (0..2 * LOOKS).map(|_| {
            at += 1000;
            m.after(Instant::from_micros(at), 0, false)
        });
        assert_eq!(silent.last(), Some(Mode::Wakes));
    }

    #[test]
    fn who_waits_for_acknowledgements_is_woken() {
        let mut m = Moderation::new();
        for i in 0..100 {
            assert_eq!(m.after(Instant::from_micros(i * 50), 1, true), Mode::Wakes);
        }
        let mut at = 100_000;
        run(&mut m, &mut at, 50, 20);
        assert_eq!(m.after(Instant::from_micros(at), 20, true), Mode::Wakes);
    }
}
