//! Nonces that do not repeat and that their maker knows again (docs/spec/kcptun-libev.md, sections 4.1 and 17).
//!
//! Both directions and all peers of kcptun-libev share one key, and packets carry no direction: a packet of ours that is
//! sent back to us opens. So nonces are made such that we recognise them without remembering any. The first 12 bytes
//! of every nonce are a counter of 96 bits behind a keyed permutation. Whoever has the key of the permutation
//! inverts it and looks whether the counter has been used.
//!
//! That no nonce repeats rests on the counter and on the permutation being one, not on its quality. It need not be
//! hard to break: nonces are public. It only makes them look random to those who sort traffic by its looks. Between
//! processes, nonces of 12 bytes are as good as random ones; those of 24 bytes have 12 random bytes besides.

use core::fmt;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use crate::NonceSource;

/// Bits of one half of a counter.
const HALF: u32 = 48;
const HALF_MASK: u64 = (1 << HALF) - 1;
const COUNTER_MASK: u128 = (1 << (2 * HALF)) - 1;
/// Bytes of the permuted counter.
const COUNTER_LEN: usize = 12;
const ROUNDS: usize = 6;
/// Where in a counter the lane is, in bits from the low end.
const LANE_SHIFT: u32 = 88;
/// How many nonces of each lane its siblings know again.
const LANE_REACH: u128 = 1 << 48;

/// Where the nonces of one [`libev`](crate::libev()) cipher come from, and which it knows to be its own.
pub struct LibevNonces(Source);

enum Source {
    Counted(Box<Counted>),
    Fixed(NonceSource),
}

/// Permuted counters.
struct Counted {
    permutation: Permutation,
    /// The counter of the first nonce; of lane 0 when there are lanes.
    start: u128,
    /// What the lane adds, if others have lanes too.
    lane: Option<u128>,
    /// Nonces made so far.
    made: u128,
    /// The bytes behind the counter of longer nonces.
    tail: NonceSource,
}

impl LibevNonces {
    /// Nonces of a cipher of its own. `seed` must be secret, random and used once. Of all nonces that the cipher opens,
    /// exactly those that it made itself are [`Reflected`](crate::Verdict::Reflected).
    #[must_use]
    pub fn seeded(seed: [u8; 32]) -> Self {
        Self::counted(seed, None)
    }

    /// Nonces of one of up to 256 ciphers that know each other's nonces again. `seed` is the same for all of them, and
    /// otherwise as for [`Self::seeded`]; each cipher that seals must have a `lane` of its own, or they repeat each other's
    /// nonces.
    ///
    /// A cipher does not know how many nonces the others made, so it takes the first 2^48 of every lane for theirs. A
    /// stranger's nonce is among them with a chance of 2^-40: such a packet is lost, as packets are.
    #[must_use]
    pub fn shared_key(seed: [u8; 32], lane: u8) -> Self {
        Self::counted(seed, Some(lane))
    }

    /// The given bytes in order, from the start again after the last: for golden vectors and captures only. Ciphers
    /// made with it repeat their nonces and take none for their own.
    #[must_use]
    pub fn fixed(bytes: Vec<u8>) -> Self {
        Self(Source::Fixed(NonceSource::fixed(bytes)))
    }

    fn counted(seed: [u8; 32], lane: Option<u8>) -> Self {
        let mut rng = ChaCha8Rng::from_seed(seed);
        let permutation = Permutation {
            keys: core::array::from_fn(|_| rng.next_u64()),
        };
        let start = u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64());
        // A stream of its own for every lane: tails need not differ, but they had better look unrelated.
        rng.set_stream(1 + u64::from(lane.unwrap_or(0)));
        let mut tail = [0; 32];
        rng.fill_bytes(&mut tail);
        Self(Source::Counted(Box::new(Counted {
            permutation,
            start: start & COUNTER_MASK,
            lane: lane.map(|lane| u128::from(lane) << LANE_SHIFT),
            made: 0,
            tail: NonceSource::seeded(tail),
        })))
    }

    /// Makes the next nonce, of 12 bytes or more.
    #[inline]
    pub(super) fn fill(&mut self, nonce: &mut [u8]) {
        match &mut self.0 {
            Source::Fixed(bytes) => bytes.fill(nonce),
            Source::Counted(counted) => {
                let head = counted.next();
                if let Some((first, rest)) = nonce.split_first_chunk_mut() {
                    *first = head;
                    counted.tail.fill(rest);
                }
            }
        }
    }

    /// Whether a nonce of 12 bytes or more is one that this source, or one of its siblings, made.
    #[inline]
    pub(super) fn is_own(&self, nonce: &[u8]) -> bool {
        match (&self.0, nonce.first_chunk()) {
            (Source::Counted(counted), Some(head)) => counted.has_made(*head),
            _ => false,
        }
    }
}

impl Counted {
    #[inline]
    fn next(&mut self) -> [u8; COUNTER_LEN] {
        let counter = self.start + self.lane.unwrap_or(0) + self.made;
        self.made += 1;
        to_bytes(self.permutation.apply(counter & COUNTER_MASK))
    }

    #[inline]
    fn has_made(&self, head: [u8; COUNTER_LEN]) -> bool {
        let counter = self.permutation.invert(from_bytes(head));
        let offset = counter.wrapping_sub(self.start) & COUNTER_MASK;
        match self.lane {
            None => offset < self.made,
            Some(_) => offset & ((1 << LANE_SHIFT) - 1) < LANE_REACH,
        }
    }
}

impl fmt::Debug for LibevNonces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Source::Counted(_) => "LibevNonces::seeded(..)",
            Source::Fixed(_) => "LibevNonces::fixed(..)",
        })
    }
}

fn to_bytes(value: u128) -> [u8; COUNTER_LEN] {
    let mut bytes = [0; COUNTER_LEN];
    bytes.copy_from_slice(&value.to_le_bytes()[..COUNTER_LEN]);
    bytes
}

fn from_bytes(bytes: [u8; COUNTER_LEN]) -> u128 {
    let mut wide = [0; 16];
    wide[..COUNTER_LEN].copy_from_slice(&bytes);
    u128::from_le_bytes(wide)
}

/// A keyed permutation of the numbers below 2^96: a Feistel network, so that it is one whatever its rounds do.
struct Permutation {
    keys: [u64; ROUNDS],
}

impl Permutation {
    #[inline]
    fn apply(&self, x: u128) -> u128 {
        let (mut left, mut right) = halves(x);
        for key in self.keys {
            (left, right) = (right, left ^ mix(right, key));
        }
        whole(left, right)
    }

    #[inline]
    fn invert(&self, x: u128) -> u128 {
        let (mut left, mut right) = halves(x);
        for key in self.keys.into_iter().rev() {
            (left, right) = (right ^ mix(left, key), left);
        }
        whole(left, right)
    }
}

fn halves(x: u128) -> (u64, u64) {
    ((x >> HALF) as u64 & HALF_MASK, x as u64 & HALF_MASK)
}

fn whole(left: u64, right: u64) -> u128 {
    u128::from(left) << HALF | u128::from(right)
}

/// What a round adds to a half: every bit of it depends on every bit of the other half and of the key.
#[inline]
fn mix(half: u64, key: u64) -> u64 {
    // The odd number nearest to 2^64 divided by the golden ratio.
    let x = (half ^ key).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ x >> 32 ^ key.rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x >> (64 - HALF)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn take(nonces: &mut LibevNonces, len: usize) -> Vec<u8> {
        let mut nonce = vec![0; len];
        nonces.fill(&mut nonce);
        nonce
    }

    #[test]
    fn nonces_differ_and_are_known_again() {
        for len in [12, 24] {
            let mut nonces = LibevNonces::seeded([7; 32]);
            // The same source, one nonce ahead: what will be made is not yet our own.
            let mut ahead = LibevNonces::seeded([7; 32]);
            let mut stranger = LibevNonces::seeded([8; 32]);
            let mut seen = HashSet::new();
            for _ in 0..5000 {
                let next = take(&mut ahead, len);
                assert!(!nonces.is_own(&next));
                assert_eq!(take(&mut nonces, len), next);
                assert!(nonces.is_own(&next));
                assert!(!nonces.is_own(&take(&mut stranger, len)));
                assert!(seen.insert(next[..12].to_vec()));
            }
            assert!(seen.iter().all(|nonce| nonces.is_own(nonce)));
        }
    }

    #[test]
    fn lanes_know_each_other() {
        let mut lanes: Vec<_> = [0, 1, 2, 128, 255]
            .map(|lane| LibevNonces::shared_key([3; 32], lane))
            .into();
        let mut seen = HashSet::new();
        for _ in 0..1000 {
            for i in 0..lanes.len() {
                let nonce = take(&mut lanes[i], 12);
                assert!(lanes.iter().all(|lane| lane.is_own(&nonce)));
                assert!(seen.insert(nonce));
            }
        }
        let mut stranger = LibevNonces::shared_key([4; 32], 0);
        for _ in 0..1000 {
            let nonce = take(&mut stranger, 24);
            assert!(lanes.iter().all(|lane| !lane.is_own(&nonce)));
        }
    }

    #[test]
    fn nonces_look_random() {
        let mut nonces = LibevNonces::seeded([1; 32]);
        let mut ones = [0u32; 96];
        let mut flips = [0u32; 96];
        let mut last = take(&mut nonces, 12);
        for _ in 0..4096 {
            let nonce = take(&mut nonces, 12);
            for (i, (a, b)) in nonce.iter().zip(&last).enumerate() {
                for bit in 0..8 {
                    ones[i * 8 + bit] += u32::from(a >> bit & 1);
                    flips[i * 8 + bit] += u32::from((a ^ b) >> bit & 1);
                }
            }
            last = nonce;
        }
        // Half of 4096, give or take nine standard deviations.
        assert!(ones.iter().chain(&flips).all(|n| (1760..2336).contains(n)));
    }

    #[test]
    fn fixed_bytes_are_nobodys() {
        let mut nonces = LibevNonces::fixed((0..24).collect());
        let nonce = take(&mut nonces, 12);
        assert_eq!(nonce, (0..12).collect::<Vec<_>>());
        assert!(!nonces.is_own(&nonce));
    }

    proptest::proptest! {
        #[test]
        fn the_permutation_is_one(x in 0..=COUNTER_MASK, keys: [u64; ROUNDS]) {
            let permutation = Permutation { keys };
            let y = permutation.apply(x);
            proptest::prop_assert!(y <= COUNTER_MASK);
            proptest::prop_assert_eq!(permutation.invert(y), x);
        }
    }
}
