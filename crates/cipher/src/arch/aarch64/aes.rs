//! AES: key set-up, and CFB over up to eight packets or blocks at once.

use core::arch::aarch64::*;
use core::ops::Range;

use zeroize::Zeroizing;

use super::Neon;
use crate::arch::schedule::{MAX_KEYS, expand};
use crate::arch::{check_chain, tail_blocks};
use crate::cfb::{LaneCipher, iv, starts};

/// Blocks that fill the AES units of one core: more lanes gain nothing.
const LANES: usize = 8;

/// Round keys as they lie in memory.
type Keys = [[u8; 16]; MAX_KEYS];

/// An AES key with `R` rounds (10, 12 or 14), expanded, and the proof that AES instructions exist.
#[derive(Clone)]
pub(crate) struct AesKey<const R: usize> {
    token: Neon,
    keys: Zeroizing<Keys>,
}

impl<const R: usize> AesKey<R> {
    /// Expands `key`, which has `4 * (R - 6)` bytes.
    pub(crate) fn new(token: Neon, key: &[u8]) -> Self {
        // SAFETY: `token` proves that the instructions exist.
        let keys = expand::<R>(key, |word| unsafe { sub_word(word) });
        Self { token, keys }
    }
}

impl<const R: usize> LaneCipher<16> for AesKey<R> {
    fn encrypt<const L: usize>(&self, blocks: &mut [[u8; 16]; L]) {
        let Neon(()) = self.token;
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
        let Neon(()) = self.token;
        check_chain(run, stride, count, &range, 16);
        // SAFETY: the token proves that the instructions exist; the range was just checked for every packet.
        unsafe { chain::<R, L>(&self.keys, run.as_mut_ptr(), &starts(stride, count), range) };
    }

    fn unchain<const L: usize>(&self, packet: &mut [u8]) {
        let Neon(()) = self.token;
        // SAFETY: the token proves that the instructions exist.
        unsafe { unchain::<R>(&self.keys, packet) };
    }
}

/// Each byte of `word` through the S-box.
#[target_feature(enable = "neon,aes")]
fn sub_word(word: u32) -> u32 {
    // With four equal columns the rotation of the rows changes nothing.
    let columns = vreinterpretq_u8_u32(vdupq_n_u32(word));
    let substituted = vaeseq_u8(columns, vdupq_n_u8(0));
    vgetq_lane_u32::<0>(vreinterpretq_u32_u8(substituted))
}

#[inline]
#[target_feature(enable = "neon")]
fn load(bytes: &[u8; 16]) -> uint8x16_t {
    // SAFETY: reads the 16 bytes of `bytes`.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
fn store(bytes: &mut [u8; 16], x: uint8x16_t) {
    // SAFETY: writes the 16 bytes of `bytes`.
    unsafe { vst1q_u8(bytes.as_mut_ptr(), x) };
}

/// All of the cipher but the addition of the last key. An instruction adds a key before it substitutes.
#[inline]
#[target_feature(enable = "neon,aes")]
fn rounds<const R: usize, const L: usize>(keys: &Keys, x: &mut [uint8x16_t; L]) {
    for key in &keys[..R - 1] {
        let key = load(key);
        for x in x.iter_mut() {
            *x = vaesmcq_u8(vaeseq_u8(*x, key));
        }
    }
    let key = load(&keys[R - 1]);
    for x in x.iter_mut() {
        *x = vaeseq_u8(*x, key);
    }
}

#[target_feature(enable = "neon,aes")]
fn encrypt<const R: usize, const L: usize>(keys: &Keys, blocks: &mut [[u8; 16]; L]) {
    let mut x = [vdupq_n_u8(0); L];
    for (x, block) in x.iter_mut().zip(&*blocks) {
        *x = load(block);
    }
    rounds::<R, L>(keys, &mut x);
    let last = load(&keys[R]);
    for (block, x) in blocks.iter_mut().zip(x) {
        store(block, veorq_u8(x, last));
    }
}

/// CFB encryption of the blocks of `range` of the packets at `starts`.
///
/// # Safety
/// `range` consists of whole blocks; `run + start + range`, and the block in front of it unless the range begins at
/// 0, must be valid for reads and writes for every start.
#[target_feature(enable = "neon,aes")]
unsafe fn chain<const R: usize, const L: usize>(
    keys: &Keys,
    run: *mut u8,
    starts: &[usize; L],
    range: Range<usize>,
) {
    let iv = iv::<16>();
    let mut x = [vdupq_n_u8(0); L];
    for (x, start) in x.iter_mut().zip(starts) {
        let from = if range.start == 0 {
            iv.as_ptr()
        } else {
            // SAFETY: the caller vouches for the block in front of the range.
            unsafe { run.add(start + range.start - 16) }
        };
        // SAFETY: `from` points to 16 readable bytes.
        *x = unsafe { vld1q_u8(from) };
    }
    let last = load(&keys[R]);
    for at in range.step_by(16) {
        rounds::<R, L>(keys, &mut x);
        for (x, start) in x.iter_mut().zip(starts) {
            // SAFETY: the caller vouches for all blocks of the range.
            let text = unsafe { vld1q_u8(run.add(start + at)) };
            *x = veorq_u8(*x, veorq_u8(text, last));
        }
        // Only now: several lanes may stand for one packet.
        for (x, start) in x.iter().zip(starts) {
            // SAFETY: as above.
            unsafe { vst1q_u8(run.add(start + at), *x) };
        }
    }
}

/// CFB decryption of a whole packet.
#[target_feature(enable = "neon,aes")]
fn unchain<const R: usize>(keys: &Keys, packet: &mut [u8]) {
    let mut feedback = load(&iv::<16>());
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
#[target_feature(enable = "neon,aes")]
fn unchain_group<const R: usize>(
    keys: &Keys,
    feedback: uint8x16_t,
    group: &mut [u8; 16 * LANES],
) -> uint8x16_t {
    let mut text = [feedback; LANES];
    for (text, block) in text.iter_mut().zip(group.as_chunks::<16>().0) {
        *text = load(block);
    }
    let mut x = [feedback; LANES];
    x[1..].copy_from_slice(&text[..LANES - 1]);
    rounds::<R, LANES>(keys, &mut x);
    let last = load(&keys[R]);
    for ((block, x), text) in group.as_chunks_mut::<16>().0.iter_mut().zip(x).zip(text) {
        store(block, veorq_u8(x, veorq_u8(text, last)));
    }
    text[LANES - 1]
}
