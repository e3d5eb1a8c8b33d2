//! Nonces that do not repeat and that their makers know again.
//!
//! In every dialect here both directions and all peers share one key, and packets carry no direction: a packet of ours that
//! somebody sends back to us opens. Peers ignore what a nonce is, so ours are made such that we recognise them without remembering
//! any: eight bytes of each, as they lie on the wire, are a counter behind a keyed permutation. All sources of a [`NonceSpace`]
//! count in one space, so they know each other's. Whoever has the key of the permutation inverts it and looks whether that counter
//! has been given out.
//!
//! That no nonce repeats rests on the counter and on the permutation being one, not on its quality. It need not be
//! hard to break: nonces are public. It only makes them look random to those who sort traffic by its looks. The other bytes of
//! a nonce are random, so between processes nonces are as good as random ones.
//!
//! A stranger's nonce is taken for ours with a chance of (nonces given out) / 2^64: below one in a million until 2^44 packets (20
//! petabytes). Such a packet is lost, as packets are; what is sent again has another nonce.
//!
//! A repeated nonce of `aes-128-gcm` or `salsa20` gives the contents of two packets away, so in production a seed comes from the
//! operating system, and is used once.

use core::fmt;
use core::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;

use portable_atomic::AtomicU64;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use crate::Verdict;
use crate::run::datagrams;

/// Bytes of a nonce by which it is known again.
pub(crate) const COUNTER_LEN: usize = 8;
/// Counters that a source takes from its space at once: it touches what it shares with others once in so many packets.
const BLOCK: u64 = 1 << 16;
const ROUNDS: usize = 4;

/// Where all ciphers of one service, on all its ports and drivers, have their nonces from.
#[derive(Clone)]
pub struct NonceSpace(Arc<Space>);

struct Space {
    permutation: Permutation,
    /// The first counter.
    start: u64,
    /// Blocks of counters given out.
    blocks: AtomicU64,
    /// Sources made, and the seed of their random bytes.
    sources: AtomicU64,
    random: [u8; 32],
}

impl NonceSpace {
    /// A space of its own. `seed` must be secret, random and used once.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        let mut rng = ChaCha8Rng::from_seed(seed);
        let permutation = Permutation {
            keys: core::array::from_fn(|_| rng.next_u64()),
        };
        let start = rng.next_u64();
        let mut random = [0; 32];
        rng.fill_bytes(&mut random);
        Self(Arc::new(Space {
            permutation,
            start,
            blocks: AtomicU64::new(0),
            sources: AtomicU64::new(0),
            random,
        }))
    }

    /// Nonces for one more cipher.
    #[must_use]
    pub fn source(&self) -> NonceSource {
        let mut random = ChaCha8Rng::from_seed(self.0.random);
        random.set_stream(self.0.sources.fetch_add(1, Relaxed));
        NonceSource(Source::Counted(Box::new(Counted {
            space: self.clone(),
            next: 0,
            left: 0,
            random,
        })))
    }
}

impl fmt::Debug for NonceSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NonceSpace(..)")
    }
}

/// An endless supply of nonces for one cipher, and what it needs to know its own packets again.
pub struct NonceSource(Source);

enum Source {
    Counted(Box<Counted>),
    Fixed { bytes: Vec<u8>, next: usize },
}

struct Counted {
    space: NonceSpace,
    /// The next counter, and how many are left of its block.
    next: u64,
    left: u64,
    random: ChaCha8Rng,
}

impl NonceSource {
    /// The only source of a [`NonceSpace`] of its own.
    #[must_use]
    pub fn seeded(seed: [u8; 32]) -> Self {
        NonceSpace::new(seed).source()
    }

    /// The given bytes in order, from the start again after the last: for golden vectors and captures only. Ciphers
    /// made with it repeat their nonces and take none for their own.
    #[must_use]
    pub fn fixed(bytes: Vec<u8>) -> Self {
        Self(Source::Fixed { bytes, next: 0 })
    }

    /// Fills `out` with random bytes, or the next ones of those that were given.
    pub fn fill(&mut self, out: &mut [u8]) {
        match &mut self.0 {
            Source::Counted(counted) => counted.random.fill_bytes(out),
            Source::Fixed { bytes, next } => {
                for b in out {
                    *b = bytes.get(*next).copied().unwrap_or(0);
                    *next = if *next + 1 < bytes.len() {
                        *next + 1
                    } else {
                        0
                    };
                }
            }
        }
    }

    /// Makes the next nonce, which is to be known again by its bytes from `at` on, if it has so many.
    #[inline]
    pub(crate) fn fill_at(&mut self, at: usize, nonce: &mut [u8]) {
        if let Source::Counted(counted) = &mut self.0
            && let Some((before, rest)) = nonce.split_at_mut_checked(at)
            && let Some((counter, behind)) = rest.split_first_chunk_mut()
        {
            *counter = counted.next();
            counted.fill_random(before);
            counted.fill_random(behind);
        } else {
            self.fill(nonce);
        }
    }

    /// How much of a nonce of `len` bytes is as it shall be on the wire: golden vectors have their nonces in clear.
    #[inline]
    pub(crate) fn sealed_len(&self, len: usize) -> usize {
        match self.0 {
            Source::Counted(_) => len,
            Source::Fixed { .. } => 0,
        }
    }

    /// Whether a nonce, or what it is known by, came from this space.
    #[inline]
    pub(crate) fn is_own(&self, counter: &[u8]) -> bool {
        match (&self.0, counter.first_chunk()) {
            (Source::Counted(counted), Some(counter)) => counted.space.has_made(*counter),
            _ => false,
        }
    }

    /// Puts into `verdicts`, cleared first, which datagrams of a run that arrived are our own by their bytes from `at` on; all others
    /// are [`Verdict::Ok`] until their turn comes.
    #[inline]
    pub(crate) fn judge(
        &self,
        at: usize,
        run: &mut [u8],
        segment: usize,
        verdicts: &mut Vec<Verdict>,
    ) {
        verdicts.clear();
        verdicts.extend(
            datagrams(run, segment).map(|datagram| match datagram.get(at..) {
                Some(counter) if self.is_own(counter) => Verdict::Reflected,
                _ => Verdict::Ok,
            }),
        );
    }
}

impl Counted {
    /// Fills what is left of a nonce: eight bytes in most methods, or none.
    #[inline]
    fn fill_random(&mut self, out: &mut [u8]) {
        if let Ok(eight) = <&mut [u8; 8]>::try_from(&mut *out) {
            *eight = self.random.next_u64().to_le_bytes();
        } else if !out.is_empty() {
            self.random.fill_bytes(out);
        }
    }

    #[inline]
    fn next(&mut self) -> [u8; COUNTER_LEN] {
        let space = &*self.space.0;
        if self.left == 0 {
            let block = space.blocks.fetch_add(1, Relaxed);
            self.next = space.start.wrapping_add(block.wrapping_mul(BLOCK));
            self.left = BLOCK;
        }
        let counter = self.next;
        self.next = self.next.wrapping_add(1);
        self.left -= 1;
        space.permutation.apply(counter).to_le_bytes()
    }
}

impl NonceSpace {
    #[inline]
    fn has_made(&self, counter: [u8; COUNTER_LEN]) -> bool {
        let space = &*self.0;
        let counter = space.permutation.invert(u64::from_le_bytes(counter));
        counter.wrapping_sub(space.start) / BLOCK < space.blocks.load(Relaxed)
    }
}

impl fmt::Debug for NonceSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::Counted(_) => "NonceSource::seeded(..)",
            Source::Fixed { .. } => "NonceSource::fixed(..)",
        })
    }
}

/// A keyed permutation of 64-bit numbers: a Feistel network, so that it is one whatever its rounds do.
struct Permutation {
    keys: [u64; ROUNDS],
}

impl Permutation {
    #[inline]
    fn apply(&self, x: u64) -> u64 {
        let (mut left, mut right) = (x >> 32, x & 0xFFFF_FFFF);
        for key in self.keys {
            (left, right) = (right, left ^ mix(right, key));
        }
        left << 32 | right
    }

    #[inline]
    fn invert(&self, x: u64) -> u64 {
        let (mut left, mut right) = (x >> 32, x & 0xFFFF_FFFF);
        for key in self.keys.into_iter().rev() {
            (left, right) = (right ^ mix(left, key), left);
        }
        left << 32 | right
    }
}

/// What a round adds to a half: every bit of it depends on every bit of the other half and of the key.
#[inline]
fn mix(half: u64, key: u64) -> u64 {
    // The odd number nearest to 2^64 divided by the golden ratio.
    let x = (half ^ key).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ x >> 32 ^ key.rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x >> 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn take(source: &mut NonceSource, at: usize, len: usize) -> Vec<u8> {
        let mut nonce = vec![0; len];
        source.fill_at(at, &mut nonce);
        nonce
    }

    #[test]
    fn seeds_decide_the_nonces() {
        let [mut a, mut b, mut c] = [1, 1, 2].map(|seed| NonceSource::seeded([seed; 32]));
        let first = take(&mut a, 0, 16);
        assert_eq!(first, take(&mut b, 0, 16));
        assert_ne!(first, take(&mut a, 0, 16));
        assert_ne!(first, take(&mut c, 0, 16));
    }

    #[test]
    fn fixed_bytes_repeat_and_are_nobodys() {
        let mut fixed = NonceSource::fixed(vec![1, 2, 3]);
        let nonce = take(&mut fixed, 0, 10);
        assert_eq!(nonce, [1, 2, 3, 1, 2, 3, 1, 2, 3, 1]);
        assert!(!fixed.is_own(&nonce));
        assert_eq!(take(&mut NonceSource::fixed(Vec::new()), 8, 2), [0, 0]);
    }

    #[test]
    fn nonces_differ_and_are_known_again() {
        for (at, len) in [(0, 8), (0, 12), (8, 16), (0, 24)] {
            let mut nonces = NonceSource::seeded([7; 32]);
            let mut stranger = NonceSource::seeded([8; 32]);
            let mut seen = HashSet::new();
            // More than a block.
            for _ in 0..BLOCK + 1000 {
                let next = take(&mut nonces, at, len);
                assert!(nonces.is_own(&next[at..]));
                assert!(!nonces.is_own(&take(&mut stranger, at, len)[at..]));
                assert!(seen.insert(next[at..][..COUNTER_LEN].to_vec()));
            }
            assert!(seen.iter().all(|nonce| nonces.is_own(nonce)));
        }
    }

    #[test]
    fn what_has_not_been_given_out_is_not_known() {
        let nonces = NonceSource::seeded([7; 32]);
        // The same space, somewhere else.
        let mut ahead = NonceSource::seeded([7; 32]);
        for _ in 0..1000 {
            assert!(!nonces.is_own(&take(&mut ahead, 0, 8)));
        }
    }

    #[test]
    fn sources_of_a_space_know_each_other_and_never_repeat() {
        let space = NonceSpace::new([3; 32]);
        // As many as a service with hundreds of ports, several drivers and all methods has.
        let mut sources: Vec<_> = (0..1 << 14).map(|_| space.source()).collect();
        let mut seen = HashSet::new();
        for _ in 0..3 {
            for source in &mut sources {
                assert!(seen.insert(take(source, 0, 12)));
            }
        }
        let known = |nonce: &Vec<u8>| sources[0].is_own(nonce) && sources[77].is_own(nonce);
        assert!(seen.iter().all(known));
        let mut stranger = NonceSource::seeded([4; 32]);
        assert!((0..100_000).all(|_| !sources[0].is_own(&take(&mut stranger, 0, 8))));
    }

    #[test]
    fn nonces_look_random() {
        let mut nonces = NonceSource::seeded([1; 32]);
        let mut ones = [0u32; 96];
        let mut flips = [0u32; 96];
        let mut last = take(&mut nonces, 0, 12);
        for _ in 0..4096 {
            let nonce = take(&mut nonces, 0, 12);
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

    proptest::proptest! {
        #[test]
        fn the_permutation_is_one(x: u64, keys: [u64; ROUNDS]) {
            let permutation = Permutation { keys };
            proptest::prop_assert_eq!(permutation.invert(permutation.apply(x)), x);
        }
    }
}
