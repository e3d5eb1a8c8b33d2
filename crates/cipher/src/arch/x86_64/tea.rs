//! TEA and XTEA: one word of 4, 8 or 16 blocks per vector, several vectors at once.

use core::arch::x86_64::*;

use super::words::Words;
use super::{Aesni, Avx2, Avx512};
use crate::cfb::{LaneCipher, WideCipher};
use crate::tea::{DELTA, TEA_CYCLES, Tea, Xtea};

/// A key and the proof that a kernel for it can run.
pub(crate) struct On<T, K> {
    pub(crate) token: T,
    pub(crate) key: K,
}

/// Below this number of blocks, vectors that are mostly empty are slower than scalar code.
const FEW: usize = 8;

/// Makes `$cipher` run on `$lanes` blocks in vectors of type `$vector` with the instructions that `$token` proves.
macro_rules! kernel {
    ($token:ident, $cipher:ident, $function:ident, $vector:ty, $lanes:literal, $features:literal) => {
        impl WideCipher<8, $lanes> for On<$token, $cipher> {
            fn encrypt(&self, blocks: &mut [[u8; 8]; $lanes]) {
                #[target_feature(enable = $features)]
                fn kernel(key: &$cipher, blocks: &mut [[u8; 8]; $lanes]) {
                    const SETS: usize = $lanes / <$vector as Words>::LEN;
                    // SAFETY: this function is compiled with the instructions, and the blocks fill two vectors per
                    // set.
                    unsafe { $function::<$vector, SETS>(key, blocks.as_mut_ptr().cast()) }
                }
                let $token(()) = self.token;
                // SAFETY: the token proves that the instructions exist.
                unsafe { kernel(&self.key, blocks) }
            }

            fn encrypt_few<const L: usize>(&self, blocks: &mut [[u8; 8]; L]) -> bool {
                if L < FEW {
                    self.key.encrypt(blocks);
                }
                L < FEW
            }
        }
    };
}

kernel!(Aesni, Tea, tea, __m128i, 16, "ssse3");
kernel!(Avx2, Tea, tea, __m256i, 32, "avx2");
kernel!(Avx512, Tea, tea, __m512i, 32, "avx512f,avx512bw");
kernel!(Aesni, Xtea, xtea, __m128i, 16, "ssse3");
kernel!(Avx2, Xtea, xtea, __m256i, 32, "avx2");
kernel!(Avx512, Xtea, xtea, __m512i, 32, "avx512f,avx512bw");

/// # Safety
/// As for [`Words`]; `blocks` points to `2 * SETS` vectors that can be read and written.
#[inline(always)]
unsafe fn tea<V: Words, const SETS: usize>(key: &Tea, blocks: *mut u8) {
    let [k0, k1, k2, k3] = *key.words();
    let mut sum = 0u32;
    // SAFETY: the same conditions.
    unsafe {
        let (mut v0, mut v1) = load_halves::<V, SETS>(blocks);
        for _ in 0..TEA_CYCLES {
            sum = sum.wrapping_add(DELTA);
            for i in 0..SETS {
                v0[i] = v0[i].add(tea_round(v1[i], sum, k0, k1));
            }
            for i in 0..SETS {
                v1[i] = v1[i].add(tea_round(v0[i], sum, k2, k3));
            }
        }
        store_halves(blocks, v0, v1);
    }
}

/// # Safety
/// As for [`Words`].
#[inline(always)]
unsafe fn tea_round<V: Words>(x: V, sum: u32, left: u32, right: u32) -> V {
    // SAFETY: the same conditions.
    unsafe {
        x.shl(4)
            .add(V::splat(left))
            .xor(x.add(V::splat(sum)))
            .xor(x.shr(5).add(V::splat(right)))
    }
}

/// # Safety
/// As for [`Words`]; `blocks` points to `2 * SETS` vectors that can be read and written.
#[inline(always)]
unsafe fn xtea<V: Words, const SETS: usize>(key: &Xtea, blocks: *mut u8) {
    // SAFETY: the same conditions.
    unsafe {
        let (mut v0, mut v1) = load_halves::<V, SETS>(blocks);
        for [k0, k1] in key.round_keys() {
            for i in 0..SETS {
                v0[i] = v0[i].add(xtea_round(v1[i], *k0));
            }
            for i in 0..SETS {
                v1[i] = v1[i].add(xtea_round(v0[i], *k1));
            }
        }
        store_halves(blocks, v0, v1);
    }
}

/// # Safety
/// As for [`Words`].
#[inline(always)]
unsafe fn xtea_round<V: Words>(x: V, key: u32) -> V {
    // SAFETY: the same conditions.
    unsafe { x.shl(4).xor(x.shr(5)).add(x).xor(V::splat(key)) }
}

/// The first and the second words of blocks, in an order that [`store_halves`] undoes.
///
/// # Safety
/// As for [`Words`]; `blocks` points to `2 * SETS` readable vectors.
#[inline(always)]
unsafe fn load_halves<V: Words, const SETS: usize>(blocks: *const u8) -> ([V; SETS], [V; SETS]) {
    // SAFETY: the same conditions.
    unsafe {
        let zero = V::splat(0);
        let (mut v0, mut v1) = ([zero; SETS], [zero; SETS]);
        for i in 0..SETS {
            let at = blocks.add(i * 2 * size_of::<V>());
            let a = V::load(at).swap_bytes();
            let b = V::load(at.add(size_of::<V>())).swap_bytes();
            let (low, high) = (a.zip_low(b), a.zip_high(b));
            v0[i] = low.pair_low(high);
            v1[i] = low.pair_high(high);
        }
        (v0, v1)
    }
}

/// Stores what [`load_halves`] loaded.
///
/// # Safety
/// As for [`Words`]; `blocks` points to `2 * SETS` writable vectors.
#[inline(always)]
unsafe fn store_halves<V: Words, const SETS: usize>(blocks: *mut u8, v0: [V; SETS], v1: [V; SETS]) {
    // SAFETY: the same conditions.
    unsafe {
        for i in 0..SETS {
            let at = blocks.add(i * 2 * size_of::<V>());
            let (low, high) = (v0[i].zip_low(v1[i]), v0[i].zip_high(v1[i]));
            low.pair_low(high).swap_bytes().store(at);
            low.pair_high(high)
                .swap_bytes()
                .store(at.add(size_of::<V>()));
        }
    }
}
