//! AES on 128-bit registers: key set-up, and CFB over up to eight packets or blocks at once.

use core::arch::x86_64::*;
use core::ops::Range;

use zeroize::Zeroizing;

use super::Aesni;
use crate::arch::schedule::{MAX_KEYS, expand};
use crate::arch::{check_chain, tail_blocks};
use crate::cfb::{LaneCipher, iv, starts};

/// Blocks that fill the AES units of one core: more lanes gain nothing.
const LANES: usize = 8;

/// An AES key with `R` rounds (10, 12 or 14), expanded, and the proof that AES instructions exist.
#[derive(Clone)]
pub(crate) struct AesKey<const R: usize> {
    token: Aesni,
    keys: Zeroizing<[__m128i; MAX_KEYS]>,
}

impl<const R: usize> AesKey<R> {
    /// Expands `key`, which has `4 * (R - 6)` bytes.
    pub(crate) fn new(token: Aesni, key: &[u8]) -> Self {
        // SAFETY: `token` proves that the instructions exist.
        let bytes = expand::<R>(key, |word| unsafe { sub_word(word) });
        let keys = bytes.map(|key| {
            // SAFETY: any 16 bytes are a valid vector, and SSE2 is part of the architecture.
            unsafe { core::mem::transmute::<[u8; 16], __m128i>(key) }
        });
        Self {
            token,
            keys: Zeroizing::new(keys),
        }
    }

    /// The round keys; the first `R + 1` are in use.
    #[inline(always)]
    pub(crate) fn keys(&self) -> &[__m128i; MAX_KEYS] {
        &self.keys
    }
}

impl<const R: usize> LaneCipher<16> for AesKey<R> {
    fn encrypt<const L: usize>(&self, blocks: &mut [[u8; 16]; L]) {
        let Aesni(()) = self.token;
        let (groups, rest) = blocks.as_chunks_mut::<LANES>();
        for group in groups {
            // SAFETY: the token proves that the instructions exist.
            unsafe { encrypt::<R, LANES>(&self.keys, group) };
        }
        for block in rest {
            // SAFETY: the token proves that the instructions exist.
            unsafe { encrypt::<R, 1>(&self.keys, core::array::from_mut(block)) };
        }
    }

    fn chain<const L: usize>(
        &self,
        run: &mut [u8],
        stride: usize,
        count: usize,
        range: Range<usize>,
    ) {
        let Aesni(()) = self.token;
        check_chain(run, stride, count, &range, 16);
        // SAFETY: the token proves that the instructions exist; the range was just checked for every packet.
        unsafe { chain::<R, L>(&self.keys, run.as_mut_ptr(), &starts(stride, count), range) };
    }

    fn unchain<const L: usize>(&self, packet: &mut [u8]) {
        let Aesni(()) = self.token;
        // SAFETY: the token proves that the instructions exist.
        unsafe { unchain::<R>(&self.keys, packet) };
    }
}

/// Each byte of `word` through the S-box.
#[target_feature(enable = "aes,sse4.1")]
fn sub_word(word: u32) -> u32 {
    // With four equal columns the rotation of the rows changes nothing.
    let columns = _mm_set1_epi32(word.cast_signed());
    let substituted = _mm_aesenclast_si128(columns, _mm_setzero_si128());
    _mm_cvtsi128_si32(substituted).cast_unsigned()
}

/// All rounds but the last of blocks to which the first round key has been added.
#[inline]
#[target_feature(enable = "aes,sse4.1")]
pub(super) fn middle_rounds<const R: usize, const L: usize>(
    keys: &[__m128i; MAX_KEYS],
    x: &mut [__m128i; L],
) {
    for key in &keys[1..R] {
        for x in x.iter_mut() {
            *x = _mm_aesenc_si128(*x, *key);
        }
    }
}

#[target_feature(enable = "aes,sse4.1")]
fn encrypt<const R: usize, const L: usize>(keys: &[__m128i; MAX_KEYS], blocks: &mut [[u8; 16]; L]) {
    let mut x = [keys[0]; L];
    for (x, block) in x.iter_mut().zip(&*blocks) {
        // SAFETY: reads the 16 bytes of `block`, at any alignment.
        *x = _mm_xor_si128(*x, unsafe { _mm_loadu_si128(block.as_ptr().cast()) });
    }
    middle_rounds::<R, L>(keys, &mut x);
    for (block, x) in blocks.iter_mut().zip(x) {
        // SAFETY: writes the 16 bytes of `block`, at any alignment.
        unsafe { _mm_storeu_si128(block.as_mut_ptr().cast(), _mm_aesenclast_si128(x, keys[R])) };
    }
}

/// CFB encryption of the blocks of `range` of the packets at `starts`.
///
/// # Safety
/// `range` consists of whole blocks; `run + start + range`, and the block in front of it unless the range begins at
/// 0, must be valid for reads and writes for every start.
#[target_feature(enable = "aes,sse4.1")]
unsafe fn chain<const R: usize, const L: usize>(
    keys: &[__m128i; MAX_KEYS],
    run: *mut u8,
    starts: &[usize; L],
    range: Range<usize>,
) {
    let iv = iv::<16>();
    let mut x = [keys[0]; L];
    for (x, start) in x.iter_mut().zip(starts) {
        let from = if range.start == 0 {
            iv.as_ptr()
        } else {
            // SAFETY: the caller vouches for the block in front of the range.
            unsafe { run.add(start + range.start - 16) }
        };
        // SAFETY: `from` points to 16 readable bytes.
        *x = _mm_xor_si128(*x, unsafe { _mm_loadu_si128(from.cast()) });
    }
    // The last round adds the text and the first key of the next block with one instruction.
    let ends = _mm_xor_si128(keys[R], keys[0]);
    for at in range.step_by(16) {
        middle_rounds::<R, L>(keys, &mut x);
        for (x, start) in x.iter_mut().zip(starts) {
            // SAFETY: the caller vouches for all blocks of the range.
            let text = unsafe { _mm_loadu_si128(run.add(start + at).cast()) };
            *x = _mm_aesenclast_si128(*x, _mm_xor_si128(text, ends));
        }
        // Only now: several lanes may stand for one packet.
        for (x, start) in x.iter().zip(starts) {
            // SAFETY: as above.
            unsafe { _mm_storeu_si128(run.add(start + at).cast(), _mm_xor_si128(*x, keys[0])) };
        }
    }
}

/// CFB decryption of a whole packet.
#[target_feature(enable = "aes,sse4.1")]
fn unchain<const R: usize>(keys: &[__m128i; MAX_KEYS], packet: &mut [u8]) {
    let iv = iv::<16>();
    // SAFETY: `iv` has 16 bytes.
    let mut feedback = unsafe { _mm_loadu_si128(iv.as_ptr().cast()) };
    let (groups, rest) = packet.as_chunks_mut::<{ 16 * LANES }>();
    for group in groups {
        feedback = unchain_group::<R>(keys, feedback, group);
    }
    tail_blocks(rest, |group| {
        unchain_group::<R>(keys, feedback, group);
    });
}

/// Decrypts one group and returns its last block of ciphertext.
#[inline]
#[target_feature(enable = "aes,sse4.1")]
fn unchain_group<const R: usize>(
    keys: &[__m128i; MAX_KEYS],
    feedback: __m128i,
    group: &mut [u8; 16 * LANES],
) -> __m128i {
    let mut text = [_mm_setzero_si128(); LANES];
    for (text, block) in text.iter_mut().zip(group.as_chunks::<16>().0) {
        // SAFETY: reads the 16 bytes of `block`, at any alignment.
        *text = unsafe { _mm_loadu_si128(block.as_ptr().cast()) };
    }
    let mut x = [_mm_xor_si128(feedback, keys[0]); LANES];
    for (x, text) in x[1..].iter_mut().zip(text) {
        *x = _mm_xor_si128(text, keys[0]);
    }
    middle_rounds::<R, LANES>(keys, &mut x);
    for ((block, x), text) in group.as_chunks_mut::<16>().0.iter_mut().zip(x).zip(text) {
        let clear = _mm_aesenclast_si128(x, _mm_xor_si128(text, keys[R]));
        // SAFETY: writes the 16 bytes of `block`, at any alignment.
        unsafe { _mm_storeu_si128(block.as_mut_ptr().cast(), clear) };
    }
    text[LANES - 1]
}
