//! The rate limit of `--ratelimit`: bytes of UDP payload per second and session (docs/spec/kcptun.md, section 8.4).
//!
//! Runs leave one after the other at the rate; an idle session may send [`BURST`] bytes at once. A run that is
//! larger than the burst waits like any other.

use core::time::Duration;
use std::collections::VecDeque;

use fulmar_wire::time::Instant;

use crate::transmit::Run;

/// Bytes that may leave at once after a pause: upstream's 64 packets of 1500 bytes.
pub const BURST: u64 = 64 * 1500;
/// Most datagrams in one paced run, so that a slow link is not hit by a window-sized burst.
pub const RUN_SEGMENTS: usize = 8;

/// Most datagrams of one flush of a paced session: what waits here ages, so not much should.
const FLUSH_DATAGRAMS: u64 = 32;

/// Holds the runs of one session until their time.
#[derive(Debug)]
pub struct Pacer {
    bytes_per_second: u64,
    /// When the bytes sent so far are paid for.
    paid: Instant,
    waiting: VecDeque<Run>,
}

impl Pacer {
    /// `bytes_per_second` of UDP payload, at least 1.
    #[must_use]
    pub fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second: bytes_per_second.max(1),
            paid: Instant::ZERO,
            waiting: VecDeque::new(),
        }
    }

    /// Where new runs go.
    pub fn queue(&mut self) -> &mut VecDeque<Run> {
        &mut self.waiting
    }

    /// Datagrams of one flush: what leaves in a quarter of a second.
    #[must_use]
    pub fn flush_datagrams(&self) -> u64 {
        (self.bytes_per_second / 4 / 1500).clamp(2, FLUSH_DATAGRAMS)
    }

    /// Whether runs are waiting.
    #[must_use]
    pub fn is_backlogged(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Moves the runs whose time has come.
    pub fn release(&mut self, now: Instant, out: &mut VecDeque<Run>) {
        while self.poll_timeout().is_some_and(|at| at <= now) {
            let Some(run) = self.waiting.pop_front() else {
                break;
            };
            // Time not used is worth no more than one burst.
            let floor = Instant::from_micros(
                now.as_micros()
                    .saturating_sub(self.cost(BURST).as_micros() as u64),
            );
            self.paid = self.paid.max(floor) + self.cost(run.data().len() as u64);
            out.push_back(run);
        }
    }

    /// When the next run may leave.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.waiting.front().map(|_| self.paid)
    }

    fn cost(&self, bytes: u64) -> Duration {
        Duration::from_micros(bytes.saturating_mul(1_000_000) / self.bytes_per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transmit::{BufferPool, Path, RunWriter};
    use fulmar_cipher::NonceSource;
    use fulmar_wire::kcptun::Method;

    #[test]
    fn the_rate_holds_after_the_burst() {
        let key = fulmar_cipher::derive_key(b"k");
        let mut cipher = fulmar_cipher::kcptun(Method::Null, &key, NonceSource::seeded([1; 32]));
        let path = Path {
            remote: ([127, 0, 0, 1], 1).into(),
            local: None,
        };
        let mut pacer = Pacer::new(100_000);
        let mut pool = BufferPool::default();
        let mut out = VecDeque::new();
        let mut now = Instant::from_millis(5000);
        for _ in 0..1000 {
            let mut w = RunWriter::new(pacer.queue(), &mut pool, &mut *cipher, path, RUN_SEGMENTS);
            w.reserve(1000);
            w.commit(1000);
            w.finish();
        }
        let mut last = 0;
        while let Some(at) = pacer.poll_timeout() {
            now = now.max(at);
            pacer.release(now, &mut out);
            let sent: u64 = out.iter().map(|r| r.data().len() as u64).sum();
            let allowed = BURST + (now - Instant::from_millis(5000)).as_micros() as u64 / 10 + 1000;
            assert!(sent <= allowed, "{sent} > {allowed}");
            last = sent;
        }
        assert_eq!(last, 1_000_000);
        let took = (now - Instant::from_millis(5000)).as_millis();
        assert!((8900..=9200).contains(&took), "{took} ms");
    }
}
