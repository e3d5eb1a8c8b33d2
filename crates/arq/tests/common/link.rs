//! Two conversations on an emulated link in virtual time, driven the way a session drives them: one flush per run of
//! received datagrams or of writes, and the timer. Every byte is checked.

use std::collections::BinaryHeap;
use std::time::Duration;

use fulmar_arq::{Kcp, Origin, SenderControl};
use fulmar_wire::time::Instant;

use super::Datagrams;

/// Small and good enough (splitmix64).
#[derive(Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    pub(crate) fn percent(&mut self, p: u64) -> bool {
        self.below(100) < p
    }
}

/// What the link does to each datagram. Times are milliseconds.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Weather {
    pub(crate) delay: u64,
    pub(crate) jitter: u64,
    pub(crate) loss: u64,
    pub(crate) duplicate: u64,
    /// Percentage that is held back for up to `late`.
    pub(crate) reorder: u64,
    pub(crate) late: u64,
}

pub(crate) const CALM: Weather = Weather {
    delay: 20,
    jitter: 0,
    loss: 0,
    duplicate: 0,
    reorder: 0,
    late: 0,
};

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Flying {
    /// Negated: the heap gives the largest first.
    at: std::cmp::Reverse<u64>,
    order: std::cmp::Reverse<u64>,
    to: usize,
    bytes: Vec<u8>,
}

/// One end with its application.
pub(crate) struct End<C> {
    pub(crate) kcp: Kcp<C>,
    pub(crate) out: Datagrams,
    /// What the application wants to send, and how much of it has been given.
    pub(crate) to_send: Vec<u8>,
    pub(crate) given: usize,
    pub(crate) received: Vec<u8>,
    /// Segments read per wake-up; `None` = all.
    pub(crate) reads: Option<usize>,
    /// Largest write.
    pub(crate) write: usize,
    /// Datagrams of the sink per flush; `None` = any number.
    pub(crate) room: Option<usize>,
}

impl<C: SenderControl> End<C> {
    pub(crate) fn new(kcp: Kcp<C>, to_send: Vec<u8>) -> Self {
        Self {
            kcp,
            out: Datagrams::default(),
            to_send,
            given: 0,
            received: Vec::new(),
            reads: None,
            write: 4000,
            room: None,
        }
    }
}

pub(crate) struct Pair<C> {
    pub(crate) ends: [End<C>; 2],
    pub(crate) now: Instant,
    pub(crate) weather: [Weather; 2],
    pub(crate) random: Random,
    flying: BinaryHeap<Flying>,
    order: u64,
    /// How often a timer fired.
    pub(crate) wakeups: u64,
    pub(crate) datagrams: u64,
    /// What arrived at each end since someone took it.
    pub(crate) heard: [Vec<Vec<u8>>; 2],
}

impl<C: SenderControl> Pair<C> {
    pub(crate) fn new(a: End<C>, b: End<C>, weather: Weather, seed: u64, start_ms: u64) -> Self {
        Self {
            ends: [a, b],
            now: Instant::from_millis(start_ms),
            weather: [weather; 2],
            random: Random(seed),
            flying: BinaryHeap::new(),
            order: 0,
            wakeups: 0,
            datagrams: 0,
            heard: Default::default(),
        }
    }

    /// Gives the applications a turn, flushes what is wanted, puts what was written on the link.
    pub(crate) fn pump(&mut self, i: usize) {
        let now = self.now;
        let end = &mut self.ends[i];
        let mut reads = end.reads.unwrap_or(usize::MAX);
        while reads > 0 {
            let received = &mut end.received;
            if end
                .kcp
                .recv(|data| received.extend_from_slice(data))
                .is_none()
            {
                break;
            }
            reads -= 1;
        }
        loop {
            while end.given < end.to_send.len() && end.kcp.has_room() {
                let n = end.write.min(end.to_send.len() - end.given);
                end.kcp.send(&end.to_send[end.given..end.given + n]);
                end.kcp.end_message();
                end.given += n;
            }
            if let Some(kind) = end.kcp.flush_wanted().kind() {
                end.out.room = end.room;
                end.kcp.flush(now, kind, &mut end.out);
            }
            // A strategy that keeps its queue short may take more at once.
            if end.given == end.to_send.len() || !end.kcp.has_room() {
                break;
            }
        }
        if end.given == end.to_send.len() {
            end.kcp.drained(now);
        }
        self.launch(i);
    }

    pub(crate) fn launch(&mut self, from: usize) {
        let w = self.weather[from];
        for bytes in self.ends[from].out.take() {
            assert!(bytes.len() <= self.ends[from].kcp.config().mtu);
            self.datagrams += 1;
            let copies = 1 + u64::from(self.random.percent(w.duplicate));
            for _ in 0..copies {
                if self.random.percent(w.loss) {
                    continue;
                }
                let mut at =
                    self.now.as_micros() + 1000 * w.delay + self.random.below(1000 * w.jitter + 1);
                if self.random.percent(w.reorder) {
                    at += self.random.below(1000 * w.late);
                }
                self.order += 1;
                self.flying.push(Flying {
                    at: std::cmp::Reverse(at),
                    order: std::cmp::Reverse(self.order),
                    to: 1 - from,
                    bytes: bytes.clone(),
                });
            }
        }
    }

    /// The next thing happens. `false` when nothing ever will, or not before `until`.
    pub(crate) fn step(&mut self, until: Instant) -> bool {
        let arrival = self.flying.peek().map(|f| Instant::from_micros(f.at.0));
        let timers = [0, 1].map(|i| self.ends[i].kcp.poll_timeout());
        let Some(next) = timers.into_iter().chain([arrival]).flatten().min() else {
            return false;
        };
        let next = next.max(self.now);
        if next > until {
            self.now = until;
            return false;
        }
        self.now = next;
        let mut touched = [false; 2];
        // All that arrives at the same moment is one run.
        while self
            .flying
            .peek()
            .is_some_and(|f| f.at.0 <= next.as_micros())
        {
            let f = self.flying.pop().expect("peeked");
            touched[f.to] = true;
            self.ends[f.to]
                .kcp
                .handle_datagram(next, &f.bytes, Origin::Wire)
                .expect("sound");
            self.heard[f.to].push(f.bytes);
        }
        for i in [0, 1] {
            if timers[i].is_some_and(|t| t <= next) {
                let end = &mut self.ends[i];
                end.out.room = end.room;
                end.kcp.handle_timeout(next, &mut end.out);
                self.wakeups += 1;
                if end.room.is_none() {
                    let again = end.kcp.poll_timeout();
                    assert!(again.is_none_or(|t| t > next), "{again:?} at {next:?}");
                }
                touched[i] = true;
            }
            if touched[i] {
                self.launch(i);
                self.pump(i);
            }
        }
        true
    }

    /// Until both applications have everything and nothing is left to do, or `limit` has passed.
    pub(crate) fn run(&mut self, limit: Duration) {
        let until = self.now + limit;
        self.pump(0);
        self.pump(1);
        while self.step(until) {}
    }

    /// Everything has arrived, once and in order, and both ends are at rest.
    pub(crate) fn assert_done(&self) {
        for i in [0, 1] {
            let (end, other) = (&self.ends[i], &self.ends[1 - i]);
            assert_eq!(end.given, end.to_send.len(), "end {i} still writing");
            assert!(
                other.received == end.to_send,
                "end {i}: {} of {} bytes arrived, first difference at {:?}",
                other.received.len(),
                end.to_send.len(),
                other
                    .received
                    .iter()
                    .zip(&end.to_send)
                    .position(|(a, b)| a != b),
            );
            assert!(end.kcp.is_idle());
            assert_eq!(end.kcp.poll_timeout(), None);
            assert_eq!(end.kcp.in_flight(), 0);
            assert_eq!(end.kcp.unanswered_since(self.now), None);
            assert!(!end.kcp.peer_restarted());
            let c = end.kcp.counters();
            assert_eq!(c.bytes_sent, end.to_send.len() as u64);
            assert_eq!(c.bytes_received, end.received.len() as u64);
            assert_eq!((c.kcp_in_errors, c.invalid_acks), (0, 0));
            assert_eq!(
                c.retrans_segs,
                c.fast_retrans_segs
                    + c.early_retrans_segs
                    + c.lost_segs
                    + c.overdue_segs
                    + c.probed_segs
            );
        }
    }
}
