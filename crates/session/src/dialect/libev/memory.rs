//! What an endpoint of kcptun-libev remembers of what is over: nonces of datagrams that opened something, and
//! conversations that have ended (docs/spec/kcptun-libev.md, sections 4.4 and 9.4).

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;

use fulmar_wire::time::{Instant, Millis};

/// Nonces in one generation; the last one to two generations are remembered.
const GENERATION: usize = 65_536;
/// Conversations that are remembered after their end; the oldest are forgotten first.
const ENDED: usize = 16_384;

/// Nonces of datagrams that may open a session, or that say something beside sessions. What belongs to a session that lives needs none: KCP takes
/// nothing twice.
#[derive(Debug, Default)]
pub(super) struct Nonces {
    now: HashSet<u64>,
    before: HashSet<u64>,
}

impl Nonces {
    /// Remembers a nonce; whether it was known.
    pub(super) fn seen(&mut self, nonce: &[u8]) -> bool {
        let hash = fold(nonce);
        if self.before.contains(&hash) || !self.now.insert(hash) {
            return true;
        }
        if self.now.len() >= GENERATION {
            self.before = std::mem::take(&mut self.now);
        }
        false
    }
}

/// Eight bytes of a nonce: who makes them up has the key, and nonces of others are random.
fn fold(nonce: &[u8]) -> u64 {
    nonce.chunks(8).fold(0u64, |hash, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        (hash ^ u64::from_le_bytes(word))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29)
    })
}

/// Conversations that have ended, for `time_wait`.
#[derive(Debug, Default)]
pub(super) struct Ended {
    until: HashMap<(u32, SocketAddr), Instant>,
    order: VecDeque<(u32, SocketAddr)>,
}

impl Ended {
    /// `conv` of `peer` must not begin again until then.
    pub(super) fn insert(&mut self, now: Instant, conv: u32, peer: SocketAddr, until: Instant) {
        while let Some(oldest) = self.order.front()
            && (self.order.len() >= ENDED || self.until.get(oldest).is_none_or(|at| *at <= now))
        {
            self.until.remove(oldest);
            self.order.pop_front();
        }
        if self.until.insert((conv, peer), until).is_none() {
            self.order.push_back((conv, peer));
        }
    }

    /// Whether it is one of them.
    pub(super) fn contains(&self, now: Instant, conv: u32, peer: SocketAddr) -> bool {
        self.until.get(&(conv, peer)).is_some_and(|at| *at > now)
    }

    pub(super) fn shrink(&mut self) {
        self.until.shrink_to_fit();
        self.order.shrink_to_fit();
    }
}

/// Times at which conversations have begun, by their clients' clocks, while they exist and for `time_wait`. Where packets are authenticated, another that
/// begins with the same number at about that time is a copy.
#[derive(Debug, Default)]
pub(super) struct Begun {
    at: HashMap<u32, (Millis, Option<Instant>)>,
    /// Those that have ended.
    order: VecDeque<u32>,
}

/// A client says for so long that it begins, milliseconds: twice what the first answer may take.
const BEGINS_FOR: i32 = 60_000;

impl Begun {
    pub(super) fn insert(&mut self, conv: u32, time: Millis) {
        let begun = self.at.entry(conv).or_insert((time, None));
        // Of two with one number, the first.
        if begun.1.is_some() {
            *begun = (time, None);
        }
    }

    /// It has ended, and is remembered until then.
    pub(super) fn end(&mut self, now: Instant, conv: u32, until: Instant) {
        let over = |at: Option<&(Millis, Option<Instant>)>| {
            at.is_none_or(|(_, until)| until.is_some_and(|until| until <= now))
        };
        while let Some(oldest) = self.order.front()
            && (self.order.len() >= ENDED || over(self.at.get(oldest)))
        {
            self.at.remove(oldest);
            self.order.pop_front();
        }
        if let Some((_, end)) = self.at.get_mut(&conv)
            && end.replace(until).is_none()
        {
            self.order.push_back(conv);
        }
    }

    /// Whether one with that number has begun about then.
    pub(super) fn contains(&self, now: Instant, conv: u32, time: Millis) -> bool {
        self.at.get(&conv).is_some_and(|(began, until)| {
            time.diff(*began).unsigned_abs() < BEGINS_FOR.unsigned_abs()
                && until.is_none_or(|until| until > now)
        })
    }

    pub(super) fn shrink(&mut self) {
        self.at.shrink_to_fit();
        self.order.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonces_are_known_for_a_generation_at_least() {
        let mut nonces = Nonces::default();
        let nonce = |n: usize| {
            let mut bytes = [0xa5; 24];
            bytes[..8].copy_from_slice(&n.to_le_bytes());
            bytes
        };
        for n in 0..2 * GENERATION + 10 {
            assert!(!nonces.seen(&nonce(n)), "{n}");
            assert!(nonces.seen(&nonce(n)), "{n}");
        }
        assert!((GENERATION + 10..2 * GENERATION + 10).all(|n| nonces.seen(&nonce(n))));
        assert!(nonces.now.len() + nonces.before.len() <= 2 * GENERATION);
        // 12 bytes that count up.
        let mut nonces = Nonces::default();
        assert!((0..1000u128).all(|n| !nonces.seen(&n.to_le_bytes()[..12])));
    }

    #[test]
    fn what_has_ended_is_forgotten_in_time_and_bounded() {
        let mut ended = Ended::default();
        let peer = |n: usize| SocketAddr::from(([10, 0, 0, 1], n as u16));
        let at = Instant::from_millis;
        ended.insert(at(0), 7, peer(1), at(100));
        assert!(ended.contains(at(99), 7, peer(1)));
        assert!(!ended.contains(at(99), 7, peer(2)) && !ended.contains(at(100), 7, peer(1)));
        for n in 0..2 * ENDED {
            ended.insert(at(1), n as u32, peer(n), at(1000));
        }
        assert!(ended.until.len() <= ENDED && ended.order.len() <= ENDED);
        ended.insert(at(2000), 1, peer(1), at(3000));
        assert_eq!((ended.until.len(), ended.order.len()), (1, 1));
    }
}
