//! Random numbers that are the same in every run and on every machine.

/// A small seeded generator (SplitMix64). For emulation and tests, not for secrets.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator whose numbers follow from `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 random bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 if `n` is 0. Even, up to one part in 2^64 / `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        // The high half of the product is below n.
        u64::try_from((u128::from(self.bits()) * u128::from(n)) >> 64).unwrap_or(0)
    }

    /// True with this probability: never at 0 and below (or for a NaN), always at 1 and above.
    pub fn chance(&mut self, probability: f64) -> bool {
        // 53 random bits make every multiple of 2^-53 below 1 equally likely.
        #[allow(clippy::cast_precision_loss)]
        let x = (self.bits() >> 11) as f64 / (1u64 << 53) as f64;
        x < probability
    }

    /// Fills `out` with random bytes.
    pub fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&self.bits().to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_published_ones() {
        // The first outputs of SplitMix64 for the seed 1234567.
        let mut rng = Rng::new(1_234_567);
        assert_eq!(rng.bits(), 6_457_827_717_110_365_317);
        assert_eq!(rng.bits(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn numbers_stay_below_and_are_even() {
        let mut rng = Rng::new(5);
        let mut seen = [0u32; 10];
        for _ in 0..10_000 {
            seen[usize::try_from(rng.below(10)).unwrap()] += 1;
        }
        assert!(seen.iter().all(|n| (850..1150).contains(n)), "{seen:?}");
        assert_eq!((rng.below(0), rng.below(1)), (0, 0));
    }

    #[test]
    fn chances() {
        let mut rng = Rng::new(6);
        let mut count = |p| (0..10_000).filter(|_| rng.chance(p)).count();
        assert_eq!((count(0.0), count(-1.0), count(f64::NAN)), (0, 0, 0));
        assert_eq!((count(1.0), count(2.0)), (10_000, 10_000));
        assert!((2800..3200).contains(&count(0.3)));
    }
}
