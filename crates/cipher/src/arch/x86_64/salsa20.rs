//! Salsa20/20: the word of one place of 4, 8 or 16 blocks per vector.

use core::arch::x86_64::*;

use super::words::{Words, transpose};
use super::{Aesni, Avx2, Avx512};
use crate::salsa20::{Blocks, KeyStream, MAX_BLOCKS, Stream};

impl Blocks for Aesni {
    const BLOCKS: usize = 4;

    fn stream(self, state: &[u32; 16], blocks: &Stream, out: &mut KeyStream) {
        #[target_feature(enable = "ssse3")]
        unsafe fn with_ssse3(state: &[u32; 16], blocks: &Stream, out: &mut KeyStream) {
            // SAFETY: this function is compiled with the instructions.
            unsafe { stream::<__m128i>(state, blocks, out) }
        }
        // SAFETY: `self` proves that the instructions exist.
        unsafe { with_ssse3(state, blocks, out) }
    }
}

impl Blocks for Avx2 {
    const BLOCKS: usize = 8;

    fn stream(self, state: &[u32; 16], blocks: &Stream, out: &mut KeyStream) {
        #[target_feature(enable = "avx2")]
        unsafe fn with_avx2(state: &[u32; 16], blocks: &Stream, out: &mut KeyStream) {
            // SAFETY: this function is compiled with the instructions.
            unsafe { stream::<__m256i>(state, blocks, out) }
        }
        // SAFETY: `self` proves that the instructions exist.
        unsafe { with_avx2(state, blocks, out) }
    }
}

impl Blocks for Avx512 {
    const BLOCKS: usize = 16;

    fn stream(self, state: &[u32; 16], blocks: &Stream, out: &mut KeyStream) {
        #[target_feature(enable = "avx512f,avx512bw")]
        unsafe fn with_avx512(state: &[u32; 16], blocks: &Stream, out: &mut KeyStream) {
            // SAFETY: this function is compiled with the instructions.
            unsafe { stream::<__m512i>(state, blocks, out) }
        }
        // SAFETY: `self` proves that the instructions exist.
        unsafe { with_avx512(state, blocks, out) }
    }
}

/// The key stream of `V::LEN` blocks.
///
/// # Safety
/// As for [`Words`].
#[inline(always)]
unsafe fn stream<V: Words>(state: &[u32; 16], blocks: &Stream, out: &mut KeyStream) {
    const { assert!(V::LEN <= MAX_BLOCKS) };
    // SAFETY: the caller vouches for the instructions. The arrays of `blocks` and each of the 16 parts of `out`
    // have room for MAX_BLOCKS words or quarters of blocks, which is at least a vector.
    unsafe {
        let mut input = [V::splat(0); 16];
        for (word, value) in input.iter_mut().zip(state) {
            *word = V::splat(*value);
        }
        input[6] = V::load(blocks.nonces[0].as_ptr().cast());
        input[7] = V::load(blocks.nonces[1].as_ptr().cast());
        input[8] = V::load(blocks.counters.as_ptr().cast());

        let mut x = rounds(input);
        for (word, input) in x.iter_mut().zip(input) {
            *word = word.add(input);
        }
        for (rows, out) in x.as_chunks::<4>().0.iter().zip(&mut out.0) {
            for (row, out) in transpose(*rows).into_iter().zip(out) {
                row.store(out.as_mut_ptr().cast());
            }
        }
    }
}

/// Twenty rounds of Salsa.
///
/// # Safety
/// As for [`Words`].
#[inline(always)]
pub(super) unsafe fn rounds<V: Words>(x: [V; 16]) -> [V; 16] {
    // The diagonals of the matrix; a double round works on its columns, then on its rows.
    let mut a = [x[0], x[5], x[10], x[15]];
    let mut b = [x[4], x[9], x[14], x[3]];
    let mut c = [x[8], x[13], x[2], x[7]];
    let mut d = [x[12], x[1], x[6], x[11]];
    for _ in 0..10 {
        // SAFETY: the same conditions.
        unsafe {
            [a, b, c, d] = quarter_rounds(a, b, c, d);
            let (b1, c2, d3) = (turn::<V, 1>(d), turn::<V, 2>(c), turn::<V, 3>(b));
            let [a1, b1, c2, d3] = quarter_rounds(a, b1, c2, d3);
            (a, b, c, d) = (a1, turn::<V, 1>(d3), turn::<V, 2>(c2), turn::<V, 3>(b1));
        }
    }
    let mut out = x;
    for (from, diagonal) in [(0, a), (4, b), (8, c), (12, d)] {
        for (i, word) in diagonal.into_iter().enumerate() {
            out[(from + 5 * i) % 16] = word;
        }
    }
    out
}

/// The vectors, the first `N` of them last.
#[inline(always)]
pub(super) fn turn<V: Copy, const N: usize>(x: [V; 4]) -> [V; 4] {
    [x[N], x[(N + 1) % 4], x[(N + 2) % 4], x[(N + 3) % 4]]
}

/// Four quarter rounds, one per place in the arrays.
///
/// # Safety
/// As for [`Words`].
#[inline(always)]
unsafe fn quarter_rounds<V: Words>(
    mut a: [V; 4],
    mut b: [V; 4],
    mut c: [V; 4],
    mut d: [V; 4],
) -> [[V; 4]; 4] {
    // Step by step for all four: the CPU finds work while it waits for one.
    // SAFETY: the same conditions.
    unsafe {
        for i in 0..4 {
            b[i] = b[i].xor(a[i].add(d[i]).rotate(7));
        }
        for i in 0..4 {
            c[i] = c[i].xor(b[i].add(a[i]).rotate(9));
        }
        for i in 0..4 {
            d[i] = d[i].xor(c[i].add(b[i]).rotate(13));
        }
        for i in 0..4 {
            a[i] = a[i].xor(d[i].add(c[i]).rotate(18));
        }
    }
    [a, b, c, d]
}
