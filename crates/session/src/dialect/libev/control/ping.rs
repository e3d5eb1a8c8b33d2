//! Pings that are out (docs/spec/kcptun-libev.md, section 11.1).

use core::time::Duration;
use std::collections::VecDeque;
use std::net::SocketAddr;

use fulmar_wire::time::Instant;

use super::PING_TIMEOUT;

/// Most pings that are out; the oldest are given up.
const OUT: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pings {
    out: VecDeque<(Instant, SocketAddr, u32)>,
}

impl Pings {
    /// A ping with this time has left.
    pub(super) fn sent(&mut self, now: Instant, to: SocketAddr, time: u32) {
        if self.out.len() >= OUT {
            self.out.pop_front();
        }
        self.out.push_back((now, to, time));
    }

    /// A pong has come: how long it took, if such a ping is out. It may have been answered from another address than it
    /// went to: behind a NAT the peer is seen elsewhere than it says.
    pub(super) fn answered(
        &mut self,
        now: Instant,
        from: SocketAddr,
        time: u32,
    ) -> Option<Duration> {
        let same = |&(_, to, t): &(Instant, SocketAddr, u32)| t == time && to == from;
        let other = |&(_, _, t): &(Instant, SocketAddr, u32)| t == time;
        let at = self
            .out
            .iter()
            .position(same)
            .or_else(|| self.out.iter().position(other))?;
        let (sent, ..) = self.out.remove(at)?;
        Some(now - sent)
    }

    /// Gives up what is too old; how many.
    pub(super) fn expire(&mut self, now: Instant) -> u64 {
        let before = self.out.len();
        while let Some((at, ..)) = self.out.front()
            && *at + PING_TIMEOUT <= now
        {
            self.out.pop_front();
        }
        (before - self.out.len()) as u64
    }

    /// When the oldest is given up.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.out.front().map(|(at, ..)| *at + PING_TIMEOUT)
    }
}
