//! KCP: what one packet costs its sender (queue, write, take the acknowledgement) and its receiver (take in, hand up,
//! acknowledge), with the window full all the time; and a flush that finds nothing to do.

use std::collections::VecDeque;
use std::time::Duration;

use fulmar_arq::{Config, DatagramSink, Flush, Kcp, Origin, Profile};
use fulmar_wire::time::Instant;

use super::PAYLOAD;
use crate::count::{Parts, charge, counted};

pub(crate) const SEND_SMALL: &str = "KCP, sending, window 128";
pub(crate) const SEND_LARGE: &str = "KCP, sending, window 32768";
pub(crate) const RECEIVE_SMALL: &str = "KCP, receiving, window 128";
pub(crate) const RECEIVE_LARGE: &str = "KCP, receiving, window 32768";
pub(crate) const IDLE_SMALL: &str = "KCP, a flush with nothing to do, 128 in flight";
pub(crate) const IDLE_LARGE: &str = "KCP, a flush with nothing to do, 32768 in flight";

/// Packets per run, as netio delivers them.
const RUN: usize = 32;
const ROUND_TRIP: Duration = Duration::from_millis(50);
/// Runs that are counted.
const RUNS: usize = 128;

pub(crate) fn parts(parts: &mut Parts) {
    for (window, loss, send, receive) in [
        (128, 0, SEND_SMALL, RECEIVE_SMALL),
        (32_768, 0, SEND_LARGE, RECEIVE_LARGE),
        (
            1024,
            5,
            "KCP, sending, window 1024, 5 % lost",
            "KCP, receiving, window 1024, 5 % lost",
        ),
    ] {
        parts.part(send, || transfer(window, loss, Side::Sender));
        parts.part(receive, || transfer(window, loss, Side::Receiver));
    }
    for (in_flight, name) in [(128, IDLE_SMALL), (32_768, IDLE_LARGE)] {
        parts.part(name, || idle(in_flight));
    }
}

#[derive(Copy, Clone, PartialEq, Eq)]
enum Side {
    Nobody,
    Sender,
    Receiver,
}

fn config(window: u32) -> Config {
    Config {
        mtu: PAYLOAD + 24,
        profile: Profile::FAST,
        snd_wnd: window,
        rcv_wnd: window,
        measure_repairs: false,
        ..Config::default()
    }
}

/// Counts what `side` does for as many packets as are returned.
fn transfer(window: u32, loss_percent: u32, side: Side) -> u64 {
    let mut ends = Ends::new(window, loss_percent);
    // Until the window has been full for a while.
    for _ in 0..2 * window as usize / RUN + 500 {
        ends.turn(Side::Nobody);
    }
    let before = ends.a.counters().out_segs;
    for _ in 0..RUNS {
        ends.turn(side);
    }
    ends.a.counters().out_segs - before
}

/// Flushes while everything is in flight and nothing is due.
fn idle(in_flight: u32) -> u64 {
    const FLUSHES: u64 = 100;
    let mut ends = Ends::new(in_flight, 0);
    // The other side's window is not known before it has said something.
    let mut turns = 0;
    while ends.a.in_flight() < in_flight {
        ends.turn(Side::Nobody);
        turns += 1;
        assert!(turns < 100_000, "the window is never full");
    }
    ends.run.clear();
    let now = ends.now;
    ends.a.flush(now, Flush::Full, &mut ends.run);
    ends.run.clear();
    counted(|| {
        for _ in 0..FLUSHES {
            ends.a.flush(now, Flush::Full, &mut ends.run);
            assert!(ends.a.poll_timeout().is_some());
        }
    });
    assert_eq!(ends.run.datagrams().count(), 0, "nothing was to be sent");
    assert_eq!(ends.a.in_flight(), in_flight);
    FLUSHES
}

/// Datagrams back to back, as in the transmit queue.
#[derive(Default)]
struct Run {
    bytes: Vec<u8>,
    used: usize,
    ends: Vec<usize>,
}

impl Run {
    fn clear(&mut self) {
        self.used = 0;
        self.ends.clear();
    }

    fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(a, &b)| &self.bytes[a..b])
    }
}

impl DatagramSink for Run {
    fn reserve(&mut self, max_len: usize) -> &mut [u8] {
        let end = self.used + max_len;
        if self.bytes.len() < end {
            self.bytes.resize(end.next_power_of_two(), 0);
        }
        &mut self.bytes[self.used..end]
    }

    fn commit(&mut self, len: usize) {
        self.used += len;
        self.ends.push(self.used);
    }
}

/// A sender with a full window. Data arrives at once; acknowledgements travel for a round trip.
struct Ends {
    a: Kcp,
    b: Kcp,
    now: Instant,
    step: Duration,
    data: Vec<u8>,
    run: Run,
    back: Run,
    /// Acknowledgements on their way, with their time of arrival.
    acks: VecDeque<(Instant, Vec<u8>)>,
    loss_percent: u32,
    random: u32,
}

impl Ends {
    fn new(window: u32, loss_percent: u32) -> Self {
        let config = config(window);
        Self {
            a: Kcp::new(1, config),
            b: Kcp::new(1, config),
            now: Instant::from_millis(1000),
            step: ROUND_TRIP * RUN as u32 / window,
            data: super::noise(config.mss() * RUN),
            run: Run::default(),
            back: Run::default(),
            acks: VecDeque::new(),
            loss_percent,
            random: 1,
        }
    }

    /// A run of packets there and its acknowledgements back. What `side` does is counted.
    fn turn(&mut self, side: Side) {
        self.now += self.step;
        self.run.clear();
        charge(side == Side::Sender, || self.send());
        self.lose();
        self.back.clear();
        charge(side == Side::Receiver, || self.receive());
        for datagram in self.back.datagrams() {
            self.acks
                .push_back((self.now + ROUND_TRIP, datagram.to_vec()));
        }
    }

    fn send(&mut self) {
        let arrived = self.acks.iter().take_while(|(at, _)| *at <= self.now);
        let mut taken = 0;
        for (_, datagram) in arrived {
            let _ = self.a.handle_datagram(self.now, datagram, Origin::Wire);
            taken += 1;
        }
        self.acks.drain(..taken);
        if self.a.has_room() {
            self.a.send(&self.data);
        }
        self.a.handle_timeout(self.now, &mut self.run);
    }

    /// Takes what gets lost out of the run.
    fn lose(&mut self) {
        if self.loss_percent == 0 {
            return;
        }
        let mut kept = Run::default();
        for datagram in self.run.datagrams() {
            self.random = self
                .random
                .wrapping_mul(1_664_525)
                .wrapping_add(1_013_904_223);
            if (self.random >> 16) % 100 >= self.loss_percent {
                kept.reserve(datagram.len()).copy_from_slice(datagram);
                kept.commit(datagram.len());
            }
        }
        self.run = kept;
    }

    fn receive(&mut self) {
        for datagram in self.run.datagrams() {
            let _ = self.b.handle_datagram(self.now, datagram, Origin::Wire);
        }
        let mut read = 0;
        while self.b.recv(|data| read += data.len()).is_some() {}
        std::hint::black_box(read);
        let kind = self.b.flush_wanted().kind().unwrap_or(Flush::AckOnly);
        self.b.flush(self.now, kind, &mut self.back);
    }
}
