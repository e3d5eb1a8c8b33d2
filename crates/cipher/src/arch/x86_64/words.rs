//! Vectors of 32-bit words in three widths behind one trait, for ciphers that are the same arithmetic on every word.
//!
//! The methods are inlined into kernels that are compiled with the instructions they need; that is why they are
//! unsafe.

use core::arch::x86_64::*;

/// A vector of 32-bit words.
///
/// # Safety
/// Every method must only be called where the instructions of the implementation exist: SSSE3 for 128 bits, AVX2
/// for 256, AVX-512 F and BW for 512. Pointers are to a whole vector of bytes, at any alignment.
pub(super) trait Words: Copy {
    /// Words per vector.
    const LEN: usize;

    unsafe fn load(from: *const u8) -> Self;
    unsafe fn store(self, to: *mut u8);
    /// The same word everywhere.
    unsafe fn splat(word: u32) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn xor(self, other: Self) -> Self;
    /// Shifted left by a constant.
    unsafe fn shl(self, n: u32) -> Self;
    /// Shifted right by a constant.
    unsafe fn shr(self, n: u32) -> Self;
    /// Rotated left by a constant, 1 to 31.
    unsafe fn rotate(self, n: u32) -> Self;
    /// Each 128 bits with its bytes in the given order.
    unsafe fn shuffle(self, order: [u8; 16]) -> Self;
    /// The four bytes of every word in reverse order.
    #[inline(always)]
    unsafe fn swap_bytes(self) -> Self {
        // SAFETY: the same conditions.
        unsafe { self.shuffle([3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12]) }
    }
    /// Interleaves the words of the lower halves of each 128 bits of two vectors.
    unsafe fn zip_low(self, other: Self) -> Self;
    /// The same with the upper halves.
    unsafe fn zip_high(self, other: Self) -> Self;
    /// The lower halves of each 128 bits of both vectors.
    unsafe fn pair_low(self, other: Self) -> Self;
    /// The upper halves of each 128 bits of both vectors.
    unsafe fn pair_high(self, other: Self) -> Self;
}

/// Implements [`Words`]; all intrinsics of a width differ in prefix and suffix only.
macro_rules! words {
    (
        $vector:ty, $len:literal, $load:ident, $store:ident, $splat:ident, $add:ident, $xor:ident, $shl:ident, $shr:ident,
        $zip_low:ident, $zip_high:ident, $pair_low:ident, $pair_high:ident,
        $shuffle:ident, $rotate:expr
    ) => {
        // SAFETY of the blocks: the trait hands the conditions on to the caller.
        impl Words for $vector {
            const LEN: usize = $len;

            #[inline(always)]
            unsafe fn load(from: *const u8) -> Self {
                // SAFETY: see the trait.
                unsafe { $load(from.cast()) }
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut u8) {
                // SAFETY: see the trait.
                unsafe { $store(to.cast(), self) }
            }
            #[inline(always)]
            unsafe fn splat(word: u32) -> Self {
                // SAFETY: see the trait.
                unsafe { $splat(word.cast_signed()) }
            }
            #[inline(always)]
            unsafe fn add(self, other: Self) -> Self {
                // SAFETY: see the trait.
                unsafe { $add(self, other) }
            }
            #[inline(always)]
            unsafe fn xor(self, other: Self) -> Self {
                // SAFETY: see the trait.
                unsafe { $xor(self, other) }
            }
            #[inline(always)]
            unsafe fn shl(self, n: u32) -> Self {
                // SAFETY: see the trait.
                unsafe { $shl(self, _mm_cvtsi32_si128(n.cast_signed())) }
            }
            #[inline(always)]
            unsafe fn shr(self, n: u32) -> Self {
                // SAFETY: see the trait.
                unsafe { $shr(self, _mm_cvtsi32_si128(n.cast_signed())) }
            }
            #[inline(always)]
            unsafe fn rotate(self, n: u32) -> Self {
                // SAFETY: see the trait.
                unsafe { $rotate(self, n) }
            }
            #[inline(always)]
            unsafe fn shuffle(self, order: [u8; 16]) -> Self {
                let order = [order; $len / 4];
                // SAFETY: see the trait; `order` is as long as a vector.
                unsafe { $shuffle(self, Self::load(order.as_ptr().cast())) }
            }
            #[inline(always)]
            unsafe fn zip_low(self, other: Self) -> Self {
                // SAFETY: see the trait.
                unsafe { $zip_low(self, other) }
            }
            #[inline(always)]
            unsafe fn zip_high(self, other: Self) -> Self {
                // SAFETY: see the trait.
                unsafe { $zip_high(self, other) }
            }
            #[inline(always)]
            unsafe fn pair_low(self, other: Self) -> Self {
                // SAFETY: see the trait.
                unsafe { $pair_low(self, other) }
            }
            #[inline(always)]
            unsafe fn pair_high(self, other: Self) -> Self {
                // SAFETY: see the trait.
                unsafe { $pair_high(self, other) }
            }
        }
    };
}

#[rustfmt::skip]
words!(
    __m128i, 4, _mm_loadu_si128, _mm_storeu_si128, _mm_set1_epi32, _mm_add_epi32, _mm_xor_si128, _mm_sll_epi32, _mm_srl_epi32,
    _mm_unpacklo_epi32, _mm_unpackhi_epi32, _mm_unpacklo_epi64, _mm_unpackhi_epi64,
    _mm_shuffle_epi8, rotate_by_shifts
);
#[rustfmt::skip]
words!(
    __m256i, 8, _mm256_loadu_si256, _mm256_storeu_si256, _mm256_set1_epi32, _mm256_add_epi32, _mm256_xor_si256, _mm256_sll_epi32,
    _mm256_srl_epi32, _mm256_unpacklo_epi32, _mm256_unpackhi_epi32, _mm256_unpacklo_epi64, _mm256_unpackhi_epi64,
    _mm256_shuffle_epi8, rotate_by_shifts
);
#[rustfmt::skip]
words!(
    __m512i, 16, _mm512_loadu_si512, _mm512_storeu_si512, _mm512_set1_epi32, _mm512_add_epi32, _mm512_xor_si512, _mm512_sll_epi32,
    _mm512_srl_epi32, _mm512_unpacklo_epi32, _mm512_unpackhi_epi32, _mm512_unpacklo_epi64, _mm512_unpackhi_epi64,
    _mm512_shuffle_epi8, rotate_by_instruction
);

/// # Safety
/// As for [`Words`].
#[inline(always)]
unsafe fn rotate_by_shifts<V: Words>(x: V, n: u32) -> V {
    // SAFETY: the same conditions. The shifted parts have no bit in common.
    unsafe { x.shl(n).xor(x.shr(32 - n)) }
}

/// # Safety
/// As for [`Words`].
#[inline(always)]
unsafe fn rotate_by_instruction(x: __m512i, n: u32) -> __m512i {
    // SAFETY: the same conditions.
    unsafe { _mm512_rolv_epi32(x, _mm512_set1_epi32(n.cast_signed())) }
}

/// Transposes the 4x4 matrices that each 128 bits of four vectors make.
///
/// # Safety
/// As for [`Words`].
#[inline(always)]
pub(super) unsafe fn transpose<V: Words>([a, b, c, d]: [V; 4]) -> [V; 4] {
    // SAFETY: the same conditions.
    unsafe {
        let (ab_low, ab_high) = (a.zip_low(b), a.zip_high(b));
        let (cd_low, cd_high) = (c.zip_low(d), c.zip_high(d));
        [
            ab_low.pair_low(cd_low),
            ab_low.pair_high(cd_low),
            ab_high.pair_low(cd_high),
            ab_high.pair_high(cd_high),
        ]
    }
}
