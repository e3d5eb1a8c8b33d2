//! MD5 of several messages of one length at once: 4, 8 or 16 in a vector, and two vectors side by side, because a step of MD5 waits for the
//! one before.

use core::arch::x86_64::*;

use super::words::{Words, transpose};
use super::{Aesni, Avx2, Avx512};
use crate::md5::{BLOCK, Digest, INITIAL, Lanes, MAX_LANES, SHIFTS, SINES, tail};

/// Vectors side by side.
const GROUPS: usize = 2;
/// A message without its last blocks ends within so many bytes.
const TAIL: usize = 2 * BLOCK;

impl Lanes for Aesni {
    const LANES: usize = 4;

    fn digest(self, run: &[u8], starts: &[usize], len: usize, last: usize, out: &mut [Digest]) {
        #[target_feature(enable = "ssse3")]
        unsafe fn with_ssse3(run: &[u8], starts: &[usize], lens: [usize; 2], out: &mut [Digest]) {
            // SAFETY: this function is compiled with the instructions.
            unsafe { digest::<__m128i>(run, starts, lens, out) }
        }
        // SAFETY: `self` proves that the instructions exist.
        unsafe { with_ssse3(run, starts, [len, last], out) }
    }
}

impl Lanes for Avx2 {
    const LANES: usize = 8;

    fn digest(self, run: &[u8], starts: &[usize], len: usize, last: usize, out: &mut [Digest]) {
        #[target_feature(enable = "avx2")]
        unsafe fn with_avx2(run: &[u8], starts: &[usize], lens: [usize; 2], out: &mut [Digest]) {
            // SAFETY: this function is compiled with the instructions.
            unsafe { digest::<__m256i>(run, starts, lens, out) }
        }
        // SAFETY: `self` proves that the instructions exist.
        unsafe { with_avx2(run, starts, [len, last], out) }
    }
}

impl Lanes for Avx512 {
    const LANES: usize = 16;

    fn digest(self, run: &[u8], starts: &[usize], len: usize, last: usize, out: &mut [Digest]) {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq")]
        unsafe fn with_avx512(run: &[u8], starts: &[usize], lens: [usize; 2], out: &mut [Digest]) {
            // SAFETY: this function is compiled with the instructions.
            unsafe { digest::<__m512i>(run, starts, lens, out) }
        }
        // SAFETY: `self` proves that the instructions exist.
        unsafe { with_avx512(run, starts, [len, last], out) }
    }
}

/// What MD5 needs of vectors beside arithmetic.
///
/// # Safety
/// As for [`Words`]; for 512 bits also AVX-512 DQ.
trait Md5Words: Words {
    /// 16 bytes from each fourth of `LEN` places, one after the other. All 16 must be readable.
    unsafe fn rows(at: &[*const u8]) -> Self;
    /// The functions of the four rounds.
    unsafe fn f(b: Self, c: Self, d: Self) -> Self;
    unsafe fn g(b: Self, c: Self, d: Self) -> Self;
    unsafe fn h(b: Self, c: Self, d: Self) -> Self;
    unsafe fn i(b: Self, c: Self, d: Self) -> Self;
}

/// The four functions where there are only the usual two-input instructions.
macro_rules! by_two {
    ($and:ident, $or:ident, $xor:ident, $ones:expr) => {
        // SAFETY of the blocks: the trait hands the conditions on to the caller.
        #[inline(always)]
        unsafe fn f(b: Self, c: Self, d: Self) -> Self {
            // SAFETY: see the trait.
            unsafe { $xor(d, $and(b, $xor(c, d))) }
        }
        #[inline(always)]
        unsafe fn g(b: Self, c: Self, d: Self) -> Self {
            // SAFETY: see the trait.
            unsafe { $xor(c, $and(d, $xor(b, c))) }
        }
        #[inline(always)]
        unsafe fn h(b: Self, c: Self, d: Self) -> Self {
            // SAFETY: see the trait.
            unsafe { $xor(b, $xor(c, d)) }
        }
        #[inline(always)]
        unsafe fn i(b: Self, c: Self, d: Self) -> Self {
            // SAFETY: see the trait.
            unsafe { $xor(c, $or(b, $xor(d, $ones))) }
        }
    };
}

impl Md5Words for __m128i {
    #[inline(always)]
    unsafe fn rows(at: &[*const u8]) -> Self {
        // SAFETY: see the trait.
        unsafe { _mm_loadu_si128(at[0].cast()) }
    }
    by_two!(
        _mm_and_si128,
        _mm_or_si128,
        _mm_xor_si128,
        _mm_set1_epi32(-1)
    );
}

impl Md5Words for __m256i {
    #[inline(always)]
    unsafe fn rows(at: &[*const u8]) -> Self {
        // SAFETY: see the trait.
        unsafe { _mm256_loadu2_m128i(at[4].cast(), at[0].cast()) }
    }
    by_two!(
        _mm256_and_si256,
        _mm256_or_si256,
        _mm256_xor_si256,
        _mm256_set1_epi32(-1)
    );
}

impl Md5Words for __m512i {
    #[inline(always)]
    unsafe fn rows(at: &[*const u8]) -> Self {
        // SAFETY: see the trait.
        unsafe {
            let x = _mm512_castsi128_si512(_mm_loadu_si128(at[0].cast()));
            let x = _mm512_inserti32x4::<1>(x, _mm_loadu_si128(at[4].cast()));
            let x = _mm512_inserti32x4::<2>(x, _mm_loadu_si128(at[8].cast()));
            _mm512_inserti32x4::<3>(x, _mm_loadu_si128(at[12].cast()))
        }
    }
    // Each is one instruction: its truth table, with b as the highest bit.
    #[inline(always)]
    unsafe fn f(b: Self, c: Self, d: Self) -> Self {
        // SAFETY: see the trait.
        unsafe { _mm512_ternarylogic_epi32::<0b1100_1010>(b, c, d) }
    }
    #[inline(always)]
    unsafe fn g(b: Self, c: Self, d: Self) -> Self {
        // SAFETY: see the trait.
        unsafe { _mm512_ternarylogic_epi32::<0b1110_0100>(b, c, d) }
    }
    #[inline(always)]
    unsafe fn h(b: Self, c: Self, d: Self) -> Self {
        // SAFETY: see the trait.
        unsafe { _mm512_ternarylogic_epi32::<0b1001_0110>(b, c, d) }
    }
    #[inline(always)]
    unsafe fn i(b: Self, c: Self, d: Self) -> Self {
        // SAFETY: see the trait.
        unsafe { _mm512_ternarylogic_epi32::<0b0011_1001>(b, c, d) }
    }
}

/// Digests of the messages at `starts`, as many as a vector has words, or up to twice as many; `lens`: of each, and of the last.
///
/// # Safety
/// As for [`Md5Words`].
#[inline(always)]
unsafe fn digest<V: Md5Words>(run: &[u8], starts: &[usize], lens: [usize; 2], out: &mut [Digest]) {
    let [len, last] = lens;
    let (others, end) = match starts {
        [others @ .., end] => (others, end + last),
        [] => return,
    };
    assert!(last <= len && end <= run.len());
    assert!(others.iter().all(|start| start + len <= run.len()));
    assert!(starts.len() <= GROUPS * V::LEN && starts.len() <= out.len());
    // SAFETY: the conditions are handed on; every message lies within `run`, as was just checked.
    unsafe {
        if starts.len() > V::LEN {
            groups::<V, GROUPS>(run, starts, lens, out);
        } else {
            groups::<V, 1>(run, starts, lens, out);
        }
    }
}

/// # Safety
/// As for [`Md5Words`]; each message must lie within `run`, and the last be no longer than the others.
#[inline(always)]
unsafe fn groups<V: Md5Words, const G: usize>(
    run: &[u8],
    starts: &[usize],
    [len, last]: [usize; 2],
    out: &mut [Digest],
) {
    // Lanes without a message of their own repeat the last one, and so does what is behind the end of that.
    let shorter = starts.len() - 1;
    let mut tails = [[0; TAIL]; MAX_LANES];
    let mut at = [core::ptr::null(); MAX_LANES];
    let (whole, whole_last) = (len / BLOCK, last / BLOCK);
    let (mut blocks, mut blocks_last) = (0, 0);
    for lane in 0..G * V::LEN {
        let start = starts[lane.min(shorter)];
        let (len, blocks) = if lane < shorter {
            (len, &mut blocks)
        } else {
            (last, &mut blocks_last)
        };
        let rest = &run[start + len / BLOCK * BLOCK..start + len];
        *blocks = len / BLOCK + tail(rest, len, &mut tails[lane]) / BLOCK;
        at[lane] = run[start..].as_ptr();
    }
    // No closures where vectors are: they would be compiled without the instructions.
    // SAFETY: the conditions are handed on. A block of a message lies within `run`, one of a tail within its array; who is done stays
    // where it was.
    unsafe {
        let mut initial = [V::splat(0); 4];
        for (word, value) in initial.iter_mut().zip(INITIAL) {
            *word = V::splat(value);
        }
        let mut state = [initial; G];
        for done in 0..blocks.max(blocks_last) {
            if done == whole {
                for (at, tail) in at.iter_mut().zip(&tails).take(shorter) {
                    *at = tail.as_ptr();
                }
            }
            if done == whole_last {
                for (at, tail) in at.iter_mut().zip(&tails).skip(shorter) {
                    *at = tail.as_ptr();
                }
            }
            block(&mut state, &at);
            for at in &mut at[..shorter] {
                *at = at.wrapping_add(BLOCK);
            }
            if done + 1 < blocks_last {
                for at in &mut at[shorter..G * V::LEN] {
                    *at = at.wrapping_add(BLOCK);
                }
            } else if done + 1 == blocks_last {
                emit(&state, out, shorter..shorter + 1);
            }
        }
        emit(&state, out, 0..shorter);
    }
}

/// Writes the digests of some lanes.
///
/// # Safety
/// As for [`Md5Words`].
#[inline(always)]
unsafe fn emit<V: Md5Words, const G: usize>(
    state: &[[V; 4]; G],
    out: &mut [Digest],
    lanes: core::ops::Range<usize>,
) {
    let mut words = [[0_u32; 2 * MAX_LANES]; 4];
    for (g, group) in state.iter().enumerate() {
        for (word, words) in group.iter().zip(&mut words) {
            // SAFETY: the conditions are handed on; there is room for a vector behind `g` of them.
            unsafe { word.store(words[g * V::LEN..].as_mut_ptr().cast()) };
        }
    }
    for lane in lanes {
        for (bytes, words) in out[lane].as_chunks_mut::<4>().0.iter_mut().zip(&words) {
            *bytes = words[lane].to_le_bytes();
        }
    }
}

/// One block of each message, which goes on at its place in `at`.
///
/// # Safety
/// As for [`Md5Words`]; 64 bytes must be readable at each of the first `G * LEN` places.
#[inline(always)]
unsafe fn block<V: Md5Words, const G: usize>(state: &mut [[V; 4]; G], at: &[*const u8; MAX_LANES]) {
    // SAFETY: the conditions are handed on; `part` stays within the 64 bytes.
    unsafe {
        let mut text = [[V::splat(0); 16]; G];
        for (text, at) in text.iter_mut().zip(at.chunks_exact(V::LEN)) {
            for (part, words) in text.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                let mut here = [core::ptr::null(); MAX_LANES];
                for (here, at) in here.iter_mut().zip(at) {
                    *here = at.add(16 * part);
                }
                *words = transpose([
                    V::rows(&here),
                    V::rows(&here[1..]),
                    V::rows(&here[2..]),
                    V::rows(&here[3..]),
                ]);
            }
        }
        let mut x = *state;
        round::<V, G, 0>(&mut x, &text);
        round::<V, G, 1>(&mut x, &text);
        round::<V, G, 2>(&mut x, &text);
        round::<V, G, 3>(&mut x, &text);
        for (state, x) in state.iter_mut().zip(x) {
            for (word, x) in state.iter_mut().zip(x) {
                *word = word.add(x);
            }
        }
    }
}

/// 16 steps, written out: numbers of words and rotations have to be constants.
///
/// # Safety
/// As for [`Md5Words`].
#[inline(always)]
unsafe fn round<V: Md5Words, const G: usize, const R: usize>(
    x: &mut [[V; 4]; G],
    text: &[[V; 16]; G],
) {
    macro_rules! steps {
        ($($step:literal)*) => {
            // SAFETY: the conditions are handed on.
            unsafe { $( step::<V, G, R, $step>(x, text); )* }
        };
    }
    steps!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
}

/// # Safety
/// As for [`Md5Words`].
#[inline(always)]
unsafe fn step<V: Md5Words, const G: usize, const R: usize, const S: usize>(
    x: &mut [[V; 4]; G],
    text: &[[V; 16]; G],
) {
    let word = const {
        match R {
            0 => S,
            1 => (5 * S + 1) % 16,
            2 => (3 * S + 5) % 16,
            _ => 7 * S % 16,
        }
    };
    let turn = const { SHIFTS[R][S % 4] };
    // SAFETY: the conditions are handed on.
    unsafe {
        let sine = V::splat(const { SINES[16 * R + S] });
        for (x, text) in x.iter_mut().zip(text) {
            let [a, b, c, d] = *x;
            // What does not depend on the step before comes first.
            let early = a.add(sine).add(text[word]);
            let mixed = match R {
                0 => V::f(b, c, d),
                1 => V::g(b, c, d),
                2 => V::h(b, c, d),
                _ => V::i(b, c, d),
            };
            let turned = early.add(mixed).rotate(turn);
            *x = [d, b.add(turned), b, c];
        }
    }
}
