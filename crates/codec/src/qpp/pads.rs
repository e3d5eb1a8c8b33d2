//! The pads: permutations of 256 byte values, derived from the key (docs/spec/kcptun.md, section 11.1).

use core::num::NonZeroU16;
use std::sync::Arc;

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes::{Aes256, Block};
use hmac::{Hmac, Mac};
use pbkdf2::pbkdf2_hmac_array;
use sha1::Sha1;
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use super::{Generation, Prng, Stream};

const SEED_SALT: &[u8] = b"___QUANTUM_PERMUTATION_PAD_SEED_DERIVE___";
const SHUFFLE_SALT: &[u8] = b"___QUANTUM_PERMUTATION_PAD_SHUFFLE_SALT___";
const PRNG_SALT: &[u8] = b"___QUANTUM_PERMUTATION_PAD_PRNG_SALT___";
const SELECTOR: &[u8] = b"PERMUTATION_MATRIX_SELECTOR";

/// PBKDF2 rounds where the input is long already.
const FEW_ROUNDS: u32 = 128;
/// PBKDF2 rounds of the chunks.
const MANY_ROUNDS: u32 = 1024;

/// Pads that are shuffled side by side. A shuffle is one long chain of AES calls; several chains fill the
/// pipeline of the AES unit.
const ABREAST: usize = 8;

/// The pads of a process and the start of the selecting generator; cheap to clone, wiped when the last clone
/// goes.
#[derive(Clone)]
pub struct Pads(Arc<Tables>);

impl Pads {
    /// Derives `count` pads from the raw bytes of the key. Takes some milliseconds for the usual 61, a few
    /// seconds for tens of thousands, and keeps 512 bytes per pad.
    ///
    /// See [`check`](super::check()) for what to tell the user about the parameters.
    #[must_use]
    pub fn new(seed: &[u8], count: NonZeroU16, generation: Generation) -> Self {
        let chunks = chunks(seed, generation);
        let ciphers: Vec<Aes256> = chunks
            .iter()
            .map(|chunk| {
                let key = Zeroizing::new(pbkdf2_hmac_array::<Sha1, 32>(
                    &**chunk,
                    SHUFFLE_SALT,
                    FEW_ROUNDS,
                ));
                Aes256::new((&*key).into())
            })
            .collect();
        let count = usize::from(count.get());
        let mut tables = Tables {
            forward: vec![[0; 256]; count],
            inverse: vec![[0; 256]; count],
            reciprocal: reciprocal(count),
            prng: selector(seed),
        };
        for (group, forward) in tables.forward.chunks_mut(ABREAST).enumerate() {
            let mut digests = [[0; 32]; ABREAST];
            for (i, digest) in digests[..forward.len()].iter_mut().enumerate() {
                let pad = group * ABREAST + i;
                let label = format!("QPP_{pad:b}");
                *digest = hmac_sha256(&*chunks[pad % chunks.len()], label.as_bytes());
            }
            shuffle(forward, &mut digests, &ciphers, generation);
        }
        for (forward, inverse) in tables.forward.iter().zip(&mut tables.inverse) {
            for (from, to) in (0..=u8::MAX).zip(forward) {
                inverse[usize::from(*to)] = from;
            }
        }
        Self(Arc::new(tables))
    }

    /// The state of a new mux stream, both directions at position 0.
    #[must_use]
    pub fn stream(&self) -> Stream {
        Stream::new(self.clone())
    }

    /// The number of pads.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.forward.len()
    }

    /// The generator at position 0.
    pub(super) fn prng(&self) -> Prng {
        self.0.prng.clone()
    }

    /// The pad that encrypts with this word of the generator.
    #[inline]
    pub(super) fn forward(&self, word: u64) -> &[u8; 256] {
        &self.0.forward[self.0.select(word)]
    }

    /// The pad that decrypts with this word of the generator.
    #[inline]
    pub(super) fn inverse(&self, word: u64) -> &[u8; 256] {
        &self.0.inverse[self.0.select(word)]
    }

    /// All pads, and their inverses.
    #[cfg(test)]
    pub(super) fn tables(&self) -> (&[[u8; 256]], &[[u8; 256]]) {
        (&self.0.forward, &self.0.inverse)
    }
}

impl core::fmt::Debug for Pads {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Pads")
            .field("count", &self.count())
            .finish_non_exhaustive()
    }
}

struct Tables {
    forward: Vec<[u8; 256]>,
    inverse: Vec<[u8; 256]>,
    /// 2^32 / count, rounded up; see [`remainder`].
    reciprocal: u32,
    prng: Prng,
}

impl Tables {
    /// The index of the pad for this word: its low 16 bits modulo the number of pads.
    #[inline]
    fn select(&self, word: u64) -> usize {
        remainder(word, self.forward.len(), self.reciprocal)
    }
}

impl Drop for Tables {
    fn drop(&mut self) {
        self.forward.as_flattened_mut().zeroize();
        self.inverse.as_flattened_mut().zeroize();
        self.prng.state.zeroize();
        self.prng.word.zeroize();
    }
}

/// 2^32 / `count`, rounded up; 0 stands for the 2^32 of a single pad.
fn reciprocal(count: usize) -> u32 {
    #[allow(clippy::cast_possible_truncation)]
    {
        (1u64 << 32).div_ceil(count as u64) as u32
    }
}

/// The low 16 bits of `word` modulo `count` (at most 65535), without a division: the fraction that the
/// multiplication by the reciprocal leaves, times `count`. Exact, because both numbers have 16 bits and the
/// fraction has 32.
#[inline]
fn remainder(word: u64, count: usize, reciprocal: u32) -> usize {
    #[allow(clippy::cast_possible_truncation)]
    {
        let fraction = reciprocal.wrapping_mul(u32::from(word as u16));
        ((u64::from(fraction) * count as u64) >> 32) as usize
    }
}

/// The key, stretched to the chunks that everything else is derived from.
fn chunks(seed: &[u8], generation: Generation) -> Vec<Zeroizing<[u8; 32]>> {
    let base = if seed.len() >= 32 {
        Zeroizing::new(seed.to_vec())
    } else {
        Zeroizing::new(pbkdf2_hmac_array::<Sha1, 32>(seed, SEED_SALT, FEW_ROUNDS).to_vec())
    };
    (0..generation.chunks())
        .map(|i| {
            let mut raw = Zeroizing::new([0; 32]);
            let repeated = base.iter().cycle().skip((32 * i) % base.len());
            for (to, from) in raw.iter_mut().zip(repeated) {
                *to = *from;
            }
            Zeroizing::new(pbkdf2_hmac_array::<Sha1, 32>(&*raw, SEED_SALT, MANY_ROUNDS))
        })
        .collect()
}

/// The generator that selects pads, at position 0.
fn selector(seed: &[u8]) -> Prng {
    let digest = Zeroizing::new(hmac_sha256(seed, SELECTOR));
    let key = Zeroizing::new(pbkdf2_hmac_array::<Sha1, 32>(
        &*digest, PRNG_SALT, FEW_ROUNDS,
    ));
    Prng::new(&key)
}

/// Fills `pads` (at most [`ABREAST`]) with the permutations that `digests` lead to.
fn shuffle(
    pads: &mut [[u8; 256]],
    digests: &mut [[u8; 32]; ABREAST],
    ciphers: &[Aes256],
    generation: Generation,
) {
    for pad in &mut *pads {
        for (value, slot) in (0..=u8::MAX).zip(pad) {
            *slot = value;
        }
    }
    let mut first = [Block::default(); ABREAST];
    let mut second = [Block::default(); ABREAST];
    for ((digest, first), second) in digests.iter().zip(&mut first).zip(&mut second) {
        first.0.copy_from_slice(&digest[..16]);
        second.0.copy_from_slice(&digest[16..]);
    }
    for i in (1..=255usize).rev() {
        for cipher in ciphers {
            cipher.encrypt_blocks(&mut first);
            if generation.shuffles_both_halves() {
                cipher.encrypt_blocks(&mut second);
            }
        }
        for ((pad, first), second) in pads.iter_mut().zip(&first).zip(&second) {
            // The digest as one big-endian number, modulo i + 1.
            let modulus = i as u64 + 1;
            let words = first.0.as_chunks::<4>().0.iter();
            let r = words
                .chain(second.0.as_chunks::<4>().0)
                .fold(0, |r: u64, word| {
                    (r << 32 | u64::from(u32::from_be_bytes(*word))) % modulus
                });
            #[allow(clippy::cast_possible_truncation)]
            pad.swap(i, r as usize);
        }
    }
    for block in first.iter_mut().chain(&mut second) {
        block.0.zeroize();
    }
    digests.as_flattened_mut().zeroize();
}

fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    match <Hmac<Sha256> as KeyInit>::new_from_slice(key) {
        Ok(mut mac) => {
            mac.update(message);
            mac.finalize().into_bytes().into()
        }
        // HMAC takes keys of any length.
        Err(_) => unreachable!(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_testkit::vectors::{bytes, load, to_hex};

    #[test]
    fn intermediate_values_match_the_vectors() {
        let file = load("kcptun/qpp.json");
        for case in file["cases"].as_array().unwrap() {
            let chunks = chunks(&bytes(case, "seed_hex"), Generation::Current);
            let hex: Vec<_> = chunks.iter().map(|c| to_hex(&**c)).collect();
            assert_eq!(hex, *case["chunks_hex"].as_array().unwrap());
            let keys: Vec<_> = chunks
                .iter()
                .map(|c| {
                    to_hex(&pbkdf2_hmac_array::<Sha1, 32>(
                        &**c,
                        SHUFFLE_SALT,
                        FEW_ROUNDS,
                    ))
                })
                .collect();
            assert_eq!(keys, *case["aes256_keys_hex"].as_array().unwrap());
        }
    }

    #[test]
    fn remainders_are_exact() {
        let mut counts: Vec<usize> = (1..=300).collect();
        counts.extend([
            4095, 4096, 4099, 21845, 32767, 32768, 32769, 65521, 65534, 65535,
        ]);
        for count in counts {
            let reciprocal = reciprocal(count);
            for low in 0..65536 {
                assert_eq!(
                    remainder(0xdead_beef_0000_0000 | low, count, reciprocal),
                    low as usize % count
                );
            }
        }
    }

    #[test]
    fn every_pad_is_a_permutation() {
        let pads = Pads::new(
            b"some key",
            NonZeroU16::new(19).unwrap(),
            Generation::V20251219,
        );
        let (forward, inverse) = pads.tables();
        assert_eq!((forward.len(), inverse.len(), pads.count()), (19, 19, 19));
        for (forward, inverse) in forward.iter().zip(inverse) {
            for b in 0..=255u8 {
                assert_eq!(inverse[usize::from(forward[usize::from(b)])], b);
            }
        }
    }
}
