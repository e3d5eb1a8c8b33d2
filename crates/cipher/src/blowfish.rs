//! Blowfish with a key of 32 bytes, in CFB (docs/spec/kcptun.md, section 4.2).
//!
//! Sixteen rounds of four look-ups in key-dependent boxes of 4 KiB: see the note on timing at the top of the crate.
//! A block alone waits for memory most of the time; several take turns.

mod pi;

use zeroize::Zeroizing;

use crate::cfb::{Cfb, LaneCipher};

const LANES: usize = 4;
const ROUNDS: usize = 16;

/// A key set up.
pub(crate) struct Blowfish {
    p: Zeroizing<[u32; ROUNDS + 2]>,
    s: Box<Zeroizing<[[u32; 256]; 4]>>,
}

/// The scheme of method `blowfish`.
pub(crate) fn cfb(key: &[u8; 32]) -> Cfb<8, LANES, Blowfish> {
    Cfb::new(Blowfish::new(key))
}

impl Blowfish {
    /// Any length but 0 is a key; kcptun's has 32 bytes.
    fn new(key: &[u8]) -> Self {
        let mut cipher = Self {
            p: Zeroizing::new(pi::P),
            s: Box::new(Zeroizing::new(pi::S)),
        };
        let mut bytes = key.iter().cycle();
        for word in cipher.p.iter_mut() {
            for _ in 0..4 {
                let byte = bytes.next().map_or(0, |&b| u32::from(b));
                *word ^= byte.rotate_left(24);
                *word = word.rotate_left(8);
            }
        }
        // Every pair of words becomes the encryption of the pair before it.
        let mut pair = [[0, 0]];
        for i in 0..cipher.p.len() / 2 {
            cipher.rounds(&mut pair);
            cipher.p[2 * i..][..2].copy_from_slice(&pair[0]);
        }
        for i in 0..4 * 128 {
            cipher.rounds(&mut pair);
            cipher.s[i / 128][i % 128 * 2..][..2].copy_from_slice(&pair[0]);
        }
        cipher
    }

    #[inline(always)]
    fn rounds<const L: usize>(&self, lanes: &mut [[u32; 2]; L]) {
        let [rounds @ .., last_right, last_left] = &*self.p;
        for keys in rounds.as_chunks::<2>().0 {
            for [l, r] in &mut *lanes {
                *l ^= keys[0];
                *r ^= self.f(*l);
            }
            for [l, r] in &mut *lanes {
                *r ^= keys[1];
                *l ^= self.f(*r);
            }
        }
        for lane in lanes {
            *lane = [lane[1] ^ last_left, lane[0] ^ last_right];
        }
    }

    #[inline(always)]
    fn f(&self, x: u32) -> u32 {
        let byte = |shift: u32| (x >> shift & 255) as usize;
        let (a, b, c, d) = (byte(24), byte(16), byte(8), byte(0));
        (self.s[0][a].wrapping_add(self.s[1][b]) ^ self.s[2][c]).wrapping_add(self.s[3][d])
    }
}

impl LaneCipher<8> for Blowfish {
    fn encrypt<const L: usize>(&self, blocks: &mut [[u8; 8]; L]) {
        let mut lanes = [[0; 2]; L];
        for (lane, block) in lanes.iter_mut().zip(&*blocks) {
            for (word, bytes) in lane.iter_mut().zip(block.as_chunks().0) {
                *word = u32::from_be_bytes(*bytes);
            }
        }
        self.rounds(&mut lanes);
        for (block, lane) in blocks.iter_mut().zip(lanes) {
            for (bytes, word) in block.as_chunks_mut().0.iter_mut().zip(lane) {
                *bytes = word.to_be_bytes();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the author's list of test vectors.
    #[test]
    fn known_answers() {
        for (key, clear, want) in [
            (
                0x0000_0000_0000_0000u64,
                0x0000_0000_0000_0000u64,
                0x4EF9_9745_6198_DD78u64,
            ),
            (
                0xFFFF_FFFF_FFFF_FFFF,
                0xFFFF_FFFF_FFFF_FFFF,
                0x5186_6FD5_B85E_CB8A,
            ),
            (
                0x0123_4567_89AB_CDEF,
                0x1111_1111_1111_1111,
                0x61F9_C380_2281_B096,
            ),
        ] {
            let mut blocks = [clear.to_be_bytes(); 3];
            Blowfish::new(&key.to_be_bytes()).encrypt(&mut blocks);
            assert_eq!(blocks, [want.to_be_bytes(); 3]);
        }
    }
}
