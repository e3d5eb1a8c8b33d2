//! Where nonces come from (docs/spec/kcptun.md, section 4.6).
//!
//! A nonce is not secret, but with `aes-128-gcm` and `salsa20` a repeated one gives the contents of two packets
//! away, so in production the seed comes from the operating system and every cipher has a source of its own.

use core::fmt;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// An endless supply of nonces for one sealing cipher.
pub struct NonceSource(Source);

enum Source {
    Random(Box<ChaCha8Rng>),
    Fixed { bytes: Vec<u8>, next: usize },
}

impl NonceSource {
    /// Unpredictable nonces: the ChaCha8 stream of `seed`, which must be secret, random and used once.
    #[must_use]
    pub fn seeded(seed: [u8; 32]) -> Self {
        Self(Source::Random(Box::new(ChaCha8Rng::from_seed(seed))))
    }

    /// The given bytes in order, from the start again after the last: for golden vectors and captures only. Ciphers
    /// made with it repeat their nonces.
    #[must_use]
    pub fn fixed(bytes: Vec<u8>) -> Self {
        Self(Source::Fixed { bytes, next: 0 })
    }

    /// Fills `out` with the next bytes.
    #[inline]
    pub fn fill(&mut self, out: &mut [u8]) {
        match &mut self.0 {
            Source::Random(rng) => rng.fill_bytes(out),
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
}

impl fmt::Debug for NonceSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::Random(_) => "NonceSource::seeded(..)",
            Source::Fixed { .. } => "NonceSource::fixed(..)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(source: &mut NonceSource, n: usize) -> Vec<u8> {
        let mut out = vec![0; n];
        source.fill(&mut out);
        out
    }

    #[test]
    fn seeds_decide_the_nonces() {
        let mut a = NonceSource::seeded([1; 32]);
        let mut b = NonceSource::seeded([1; 32]);
        let mut c = NonceSource::seeded([2; 32]);
        let first = take(&mut a, 16);
        assert_eq!(first, take(&mut b, 16));
        assert_ne!(first, take(&mut a, 16));
        assert_ne!(first, take(&mut c, 16));
    }

    #[test]
    fn fixed_bytes_repeat() {
        let mut s = NonceSource::fixed(vec![1, 2, 3]);
        assert_eq!(take(&mut s, 7), [1, 2, 3, 1, 2, 3, 1]);
        assert_eq!(take(&mut NonceSource::fixed(Vec::new()), 2), [0, 0]);
    }
}
