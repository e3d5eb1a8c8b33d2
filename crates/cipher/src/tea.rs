//! TEA and XTEA in CFB (spec/kcptun.md, section 3.3): words big endian; TEA with 8 cycles only, as kcptun has it.

use zeroize::Zeroizing;

use crate::cfb::{Cfb, LaneCipher};

const DELTA: u32 = 0x9E37_79B9;
const TEA_CYCLES: u32 = 8;
const XTEA_CYCLES: usize = 32;
const LANES: usize = 16;

/// TEA with the key words of the cipher.
pub(crate) struct Tea(Zeroizing<[u32; 4]>);

/// XTEA; per cycle the two round keys with the running sum added in.
pub(crate) struct Xtea(Zeroizing<[[u32; 2]; XTEA_CYCLES]>);

/// The scheme of method `tea`.
pub(crate) fn tea(key: &[u8; 16]) -> Cfb<8, LANES, Tea> {
    Cfb::new(Tea(Zeroizing::new(words(key))))
}

/// The scheme of method `xtea`.
pub(crate) fn xtea(key: &[u8; 16]) -> Cfb<8, LANES, Xtea> {
    let k = Zeroizing::new(words(key));
    let mut sum = 0u32;
    let mut round_keys = Zeroizing::new([[0; 2]; XTEA_CYCLES]);
    for pair in round_keys.iter_mut() {
        pair[0] = sum.wrapping_add(k[(sum & 3) as usize]);
        sum = sum.wrapping_add(DELTA);
        pair[1] = sum.wrapping_add(k[(sum >> 11 & 3) as usize]);
    }
    Cfb::new(Xtea(round_keys))
}

impl LaneCipher<8> for Tea {
    fn encrypt<const L: usize>(&self, blocks: &mut [[u8; 8]; L]) {
        let (mut v0, mut v1) = split(blocks);
        let [k0, k1, k2, k3] = *self.0;
        let mut sum = 0u32;
        for _ in 0..TEA_CYCLES {
            sum = sum.wrapping_add(DELTA);
            for (a, b) in v0.iter_mut().zip(&v1) {
                *a = a.wrapping_add(
                    (b << 4).wrapping_add(k0) ^ b.wrapping_add(sum) ^ (b >> 5).wrapping_add(k1),
                );
            }
            for (b, a) in v1.iter_mut().zip(&v0) {
                *b = b.wrapping_add(
                    (a << 4).wrapping_add(k2) ^ a.wrapping_add(sum) ^ (a >> 5).wrapping_add(k3),
                );
            }
        }
        join(blocks, &v0, &v1);
    }
}

impl LaneCipher<8> for Xtea {
    fn encrypt<const L: usize>(&self, blocks: &mut [[u8; 8]; L]) {
        let (mut v0, mut v1) = split(blocks);
        for [k0, k1] in self.0.iter() {
            for (a, b) in v0.iter_mut().zip(&v1) {
                *a = a.wrapping_add((b << 4 ^ b >> 5).wrapping_add(*b) ^ k0);
            }
            for (b, a) in v1.iter_mut().zip(&v0) {
                *b = b.wrapping_add((a << 4 ^ a >> 5).wrapping_add(*a) ^ k1);
            }
        }
        join(blocks, &v0, &v1);
    }
}

fn words(key: &[u8; 16]) -> [u32; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(key.as_chunks().0) {
        *word = u32::from_be_bytes(*bytes);
    }
    words
}

#[inline(always)]
fn split<const L: usize>(blocks: &[[u8; 8]; L]) -> ([u32; L], [u32; L]) {
    let word = |i: usize, at: usize| {
        let b = &blocks[i];
        u32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
    };
    (
        core::array::from_fn(|i| word(i, 0)),
        core::array::from_fn(|i| word(i, 4)),
    )
}

#[inline(always)]
fn join<const L: usize>(blocks: &mut [[u8; 8]; L], v0: &[u32; L], v1: &[u32; L]) {
    for ((block, a), b) in blocks.iter_mut().zip(v0).zip(v1) {
        block[..4].copy_from_slice(&a.to_be_bytes());
        block[4..].copy_from_slice(&b.to_be_bytes());
    }
}
