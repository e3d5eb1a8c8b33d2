//! SM4: one word of 4 or 16 blocks per vector, several vectors at once, the S-box computed instead of looked up.
//!
//! The S-box of SM4 is, like that of AES, an inversion in a field of 256 elements between two affine maps. The
//! fields are the same up to the numbering of their elements, so inverting in the field of AES, between two other
//! affine maps, does it. AES instructions bring the inversion with AES's own affine map behind it, which the second
//! map undoes; GFNI has all three steps.

use core::arch::x86_64::*;

use super::words::{Words, transpose};
use super::{Aesni, Avx512};
use crate::cfb::{LaneCipher, WideCipher};
use crate::sm4::Sm4;

/// A key and the proof that a kernel for it can run.
pub(crate) struct On<T> {
    pub(crate) token: T,
    pub(crate) key: Sm4,
}

/// Below these numbers of blocks the table is faster than vectors that are partly empty.
const FEW_128: usize = 16;
const FEW_512: usize = 4;

impl WideCipher<16, 16> for On<Aesni> {
    fn encrypt(&self, blocks: &mut [[u8; 16]; 16]) {
        #[target_feature(enable = "aes,ssse3,sse4.1")]
        fn kernel(key: &Sm4, blocks: &mut [[u8; 16]; 16]) {
            // SAFETY: this function is compiled with the instructions, and the blocks fill that many sets of vectors.
            unsafe { sm4::<__m128i, 4>(key, blocks.as_mut_ptr().cast()) }
        }
        let Aesni(()) = self.token;
        // SAFETY: the token proves that the instructions exist.
        unsafe { kernel(&self.key, blocks) }
    }

    fn encrypt_few<const L: usize>(&self, blocks: &mut [[u8; 16]; L]) -> bool {
        if L < FEW_128 {
            self.key.encrypt(blocks);
        }
        L < FEW_128
    }
}

impl WideCipher<16, 32> for On<Avx512> {
    fn encrypt(&self, blocks: &mut [[u8; 16]; 32]) {
        #[target_feature(enable = "avx512f,avx512bw,gfni")]
        fn kernel(key: &Sm4, blocks: &mut [[u8; 16]; 32]) {
            // SAFETY: this function is compiled with the instructions, and the blocks fill that many sets of vectors.
            unsafe { sm4::<__m512i, 2>(key, blocks.as_mut_ptr().cast()) }
        }
        let Avx512(()) = self.token;
        // SAFETY: the token proves that the instructions exist.
        unsafe { kernel(&self.key, blocks) }
    }

    fn encrypt_few<const L: usize>(&self, blocks: &mut [[u8; 16]; L]) -> bool {
        if L < FEW_512 {
            self.key.encrypt(blocks);
        }
        L < FEW_512
    }
}

/// Vectors that can put each of their bytes through the S-box.
///
/// # Safety
/// As for [`Words`], with AES-NI and SSE4.1 for 128 bits and GFNI for 512.
trait Substitute: Words {
    unsafe fn substitute(self) -> Self;
}

impl Substitute for __m512i {
    #[inline(always)]
    unsafe fn substitute(self) -> Self {
        // SAFETY: the caller vouches for the instructions.
        unsafe {
            let before = _mm512_set1_epi64(0x4C28_7DB9_1A22_505D);
            let after = _mm512_set1_epi64(0xF3AB_34A9_74A6_B589_u64.cast_signed());
            let x = _mm512_gf2p8affine_epi64_epi8::<0x3E>(self, before);
            _mm512_gf2p8affineinv_epi64_epi8::<0xD3>(x, after)
        }
    }
}

/// The same map before the inversion as above: of the lower and of the upper four bits of a byte.
const BEFORE: [[u8; 16]; 2] = [
    [
        0x3E, 0xB2, 0x0E, 0x82, 0xBB, 0x37, 0x8B, 0x07, 0xA1, 0x2D, 0x91, 0x1D, 0x24, 0xA8, 0x14,
        0x98,
    ],
    [
        0x00, 0xDC, 0x2E, 0xF2, 0xC5, 0x19, 0xEB, 0x37, 0x08, 0xD4, 0x26, 0xFA, 0xCD, 0x11, 0xE3,
        0x3F,
    ],
];

/// The map after the inversion as above, with AES's affine map undone first.
const AFTER: [[u8; 16]; 2] = [
    [
        0x6C, 0xD4, 0xA6, 0x1E, 0x52, 0xEA, 0x98, 0x20, 0x0B, 0xB3, 0xC1, 0x79, 0x35, 0x8D, 0xFF,
        0x47,
    ],
    [
        0x00, 0xE0, 0x50, 0xB0, 0x9D, 0x7D, 0xCD, 0x2D, 0xC0, 0x20, 0x90, 0x70, 0x5D, 0xBD, 0x0D,
        0xED,
    ],
];

/// Where AES's rotation of the rows has put each byte.
const UNSHIFT: [u8; 16] = [0, 13, 10, 7, 4, 1, 14, 11, 8, 5, 2, 15, 12, 9, 6, 3];

impl Substitute for __m128i {
    #[inline(always)]
    unsafe fn substitute(self) -> Self {
        // SAFETY: the caller vouches for the instructions; the tables are vectors.
        unsafe {
            let x = _mm_aesenclast_si128(affine(self, &BEFORE), _mm_setzero_si128());
            affine(x.shuffle(UNSHIFT), &AFTER)
        }
    }
}

/// An affine map of every byte.
///
/// # Safety
/// SSSE3 must exist.
#[inline(always)]
unsafe fn affine(x: __m128i, table: &[[u8; 16]; 2]) -> __m128i {
    // SAFETY: the caller vouches for the instructions; the tables are vectors.
    unsafe {
        let nibbles = _mm_set1_epi8(15);
        let low = _mm_and_si128(x, nibbles);
        let high = _mm_and_si128(_mm_srli_epi16::<4>(x), nibbles);
        _mm_xor_si128(
            _mm_shuffle_epi8(Words::load(table[0].as_ptr()), low),
            _mm_shuffle_epi8(Words::load(table[1].as_ptr()), high),
        )
    }
}

/// # Safety
/// As for [`Substitute`]; `blocks` points to `4 * SETS` vectors that can be read and written.
#[inline(always)]
unsafe fn sm4<V: Substitute, const SETS: usize>(key: &Sm4, blocks: *mut u8) {
    // SAFETY: the same conditions.
    unsafe {
        let zero = V::splat(0);
        let (mut x0, mut x1, mut x2, mut x3) =
            ([zero; SETS], [zero; SETS], [zero; SETS], [zero; SETS]);
        for i in 0..SETS {
            // No closure: it would be compiled without the instructions of the kernel.
            let mut rows = [zero; 4];
            for (n, row) in rows.iter_mut().enumerate() {
                *row = V::load(blocks.add((4 * i + n) * size_of::<V>())).swap_bytes();
            }
            [x0[i], x1[i], x2[i], x3[i]] = transpose(rows);
        }
        for [k0, k1, k2, k3] in key.round_keys().as_chunks::<4>().0 {
            for i in 0..SETS {
                x0[i] = x0[i].xor(mix(x1[i], x2[i], x3[i], *k0));
            }
            for i in 0..SETS {
                x1[i] = x1[i].xor(mix(x2[i], x3[i], x0[i], *k1));
            }
            for i in 0..SETS {
                x2[i] = x2[i].xor(mix(x3[i], x0[i], x1[i], *k2));
            }
            for i in 0..SETS {
                x3[i] = x3[i].xor(mix(x0[i], x1[i], x2[i], *k3));
            }
        }
        for i in 0..SETS {
            let rows = transpose([x3[i], x2[i], x1[i], x0[i]]);
            for (n, row) in rows.into_iter().enumerate() {
                row.swap_bytes()
                    .store(blocks.add((4 * i + n) * size_of::<V>()));
            }
        }
    }
}

/// What a round adds to a word, from the three others.
///
/// # Safety
/// As for [`Substitute`].
#[inline(always)]
unsafe fn mix<V: Substitute>(a: V, b: V, c: V, key: u32) -> V {
    // SAFETY: the same conditions.
    unsafe {
        // `c` is the word that the round before has just made.
        let y = a.xor(b).xor(V::splat(key)).xor(c).substitute();
        y.xor(y.rotate(2).xor(y.rotate(10)))
            .xor(y.rotate(18).xor(y.rotate(24)))
    }
}
