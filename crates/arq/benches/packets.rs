//! What one packet costs: given to send, written, taken in, read, acknowledged, and the acknowledgement taken in.
//! Both ends together, at several windows, which are full the whole time. The figure must not depend on the window except for
//! what the cache says about it.
//!
//! `cargo bench -p fulmar-arq`; criterion's "thrpt" is packets per second, its inverse the cost of one.

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fulmar_arq::{Config, DatagramSink, Flush, Kcp, Origin, Profile};
use fulmar_wire::time::Instant;

/// Packets per run, as netio delivers them.
const RUN: usize = 32;
/// Default `--mtu 1350` with a cipher and parity.
const MTU: usize = 1322;
const ROUND_TRIP_US: u64 = 50_000;

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

/// A sender with a full window. Data arrives at once; acknowledgements travel for as long as it takes to fill the window.
struct Bench {
    a: Kcp,
    b: Kcp,
    now: Instant,
    step: Duration,
    data: Vec<u8>,
    run: Run,
    /// Acknowledgements on their way, with their time of arrival.
    acks: VecDeque<(Instant, Vec<u8>)>,
    spare: Vec<Vec<u8>>,
    loss_percent: u32,
    random: u32,
}

impl Bench {
    fn new(window: u32, loss_percent: u32) -> Self {
        let config = Config {
            mtu: MTU,
            profile: Profile::FAST3,
            snd_wnd: window,
            rcv_wnd: window,
            ..Config::default()
        };
        let mut bench = Self {
            a: Kcp::new(1, config),
            b: Kcp::new(1, config),
            now: Instant::from_millis(1000),
            step: Duration::from_micros(ROUND_TRIP_US * RUN as u64 / u64::from(window)),
            data: vec![0xA5; config.mss() * RUN],
            run: Run::default(),
            acks: VecDeque::new(),
            spare: Vec::new(),
            loss_percent,
            random: 1,
        };
        for _ in 0..4 * window as usize / RUN + 1000 {
            bench.turn();
        }
        bench
    }

    /// The time that so many packets take. Losses stop the window now and then, so it is packets that are counted, not turns.
    fn transfer(&mut self, packets: u64) -> Duration {
        let before = self.a.counters().out_segs;
        let start = std::time::Instant::now();
        let mut turns = 0u64;
        while self.a.counters().out_segs - before < packets {
            black_box(self.turn());
            turns += 1;
            assert!(turns < 1000 + packets, "the transfer stalls");
        }
        start.elapsed()
    }

    /// One run of packets both ways.
    fn turn(&mut self) -> usize {
        self.now += self.step;
        while self.acks.front().is_some_and(|(at, _)| *at <= self.now) {
            if let Some((_, datagram)) = self.acks.pop_front() {
                let _ = self.a.handle_datagram(self.now, &datagram, Origin::Wire);
                self.spare.push(datagram);
            }
        }
        if self.a.has_room() {
            self.a.send(&self.data);
        }
        self.run.clear();
        self.a.handle_timeout(self.now, &mut self.run);
        let mut read = 0;
        for datagram in self.run.datagrams() {
            if self.loss_percent > 0 {
                self.random = self
                    .random
                    .wrapping_mul(1_664_525)
                    .wrapping_add(1_013_904_223);
                if (self.random >> 16) % 100 < self.loss_percent {
                    continue;
                }
            }
            let _ = self.b.handle_datagram(self.now, datagram, Origin::Wire);
        }
        while self.b.recv(|data| read += black_box(data).len()).is_some() {}
        self.run.clear();
        match self.b.flush_wanted().kind() {
            Some(kind) => self.b.flush(self.now, kind, &mut self.run),
            None => self.b.flush(self.now, Flush::AckOnly, &mut self.run),
        }
        for datagram in self.run.datagrams() {
            let mut kept = self.spare.pop().unwrap_or_default();
            kept.clear();
            kept.extend_from_slice(datagram);
            self.acks
                .push_back((self.now + Duration::from_micros(ROUND_TRIP_US), kept));
        }
        read
    }
}

fn packets(c: &mut Criterion) {
    let mut group = c.benchmark_group("packet");
    group.throughput(Throughput::Elements(RUN as u64));
    for (loss, name) in [(0, "calm"), (5, "loss5")] {
        for window in [128, 1024, 8192, 32_768] {
            let mut bench = Bench::new(window, loss);
            group.bench_function(format!("{name}/{window}"), |b| {
                b.iter_custom(|runs| bench.transfer(runs * RUN as u64));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, packets);
criterion_main!(benches);
