//! AES on 512-bit registers: CFB over up to 32 packets, or 16 blocks of one packet, at once.

use core::arch::x86_64::*;
use core::ops::Range;

use super::Avx512;
use super::aesni::AesKey;
use crate::arch::check_chain;
use crate::arch::schedule::MAX_KEYS;
use crate::cfb::{LaneCipher, iv};

/// Registers of four blocks that are decrypted together.
const WIDE: usize = 4;

/// An AES key with `R` rounds (10, 12 or 14), and the proof that the vector instructions exist.
#[derive(Clone)]
pub(crate) struct VaesKey<const R: usize> {
    token: Avx512,
    narrow: AesKey<R>,
}

impl<const R: usize> VaesKey<R> {
    /// Expands `key`, which has `4 * (R - 6)` bytes.
    pub(crate) fn new(token: Avx512, key: &[u8]) -> Self {
        Self {
            token,
            narrow: AesKey::new(token.aesni(), key),
        }
    }
}

impl<const R: usize> LaneCipher<16> for VaesKey<R> {
    fn encrypt<const L: usize>(&self, blocks: &mut [[u8; 16]; L]) {
        self.narrow.encrypt(blocks);
    }

    fn chain<const L: usize>(
        &self,
        run: &mut [u8],
        stride: usize,
        count: usize,
        range: Range<usize>,
    ) {
        let Avx512(()) = self.token;
        check_chain(run, stride, count, &range, 16);
        let keys = self.narrow.keys();
        let run_start = run.as_mut_ptr();
        // SAFETY: the token proves that the instructions exist; the range was just checked for every packet.
        unsafe {
            match count.div_ceil(4) {
                1 if count < 3 => self.narrow.chain::<L>(run, stride, count, range),
                1 => chain::<R, 1>(keys, run_start, stride, count, range),
                2 => chain::<R, 2>(keys, run_start, stride, count, range),
                3 => chain::<R, 3>(keys, run_start, stride, count, range),
                4 => chain::<R, 4>(keys, run_start, stride, count, range),
                5 | 6 => chain::<R, 6>(keys, run_start, stride, count, range),
                _ => {
                    let mut from = run_start;
                    let mut left = count;
                    while left > 0 {
                        let now = left.min(32);
                        chain::<R, 8>(keys, from, stride, now, range.clone());
                        left -= now;
                        from = from.wrapping_add(now * stride);
                    }
                }
            }
        }
    }

    fn unchain<const L: usize>(&self, packet: &mut [u8]) {
        let Avx512(()) = self.token;
        // SAFETY: the token proves that the instructions exist.
        unsafe { unchain::<R>(self.narrow.keys(), packet) };
    }
}

/// All rounds but the last of blocks to which the first round key has been added.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,aes")]
pub(super) fn middle_rounds<const R: usize, const Z: usize>(
    keys: &[__m512i; MAX_KEYS],
    x: &mut [__m512i; Z],
) {
    for key in &keys[1..R] {
        for x in x.iter_mut() {
            *x = _mm512_aesenc_epi128(*x, *key);
        }
    }
}

/// Every round key in each quarter of a register.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn broadcast(keys: &[__m128i; MAX_KEYS]) -> [__m512i; MAX_KEYS] {
    let mut wide = [_mm512_setzero_si512(); MAX_KEYS];
    // A closure would be compiled without the instructions of this function.
    for (wide, key) in wide.iter_mut().zip(keys) {
        *wide = _mm512_broadcast_i32x4(*key);
    }
    wide
}

/// Where the other three of four packets lie, from the first.
type Offsets = [usize; 3];

/// Loads a block of each of four packets.
///
/// # Safety
/// 16 bytes at `first` and at each offset from it must be readable.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn gather(first: *const u8, [b, c, d]: Offsets) -> __m512i {
    // SAFETY: the caller vouches for 16 bytes at each place.
    unsafe {
        let x = _mm512_castsi128_si512(_mm_loadu_si128(first.cast()));
        let x = _mm512_inserti32x4::<1>(x, _mm_loadu_si128(first.add(b).cast()));
        let x = _mm512_inserti32x4::<2>(x, _mm_loadu_si128(first.add(c).cast()));
        _mm512_inserti32x4::<3>(x, _mm_loadu_si128(first.add(d).cast()))
    }
}

/// Stores the four blocks of `x` in four packets.
///
/// # Safety
/// 16 bytes at `first` and at each offset from it must be writable.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn scatter(first: *mut u8, [b, c, d]: Offsets, x: __m512i) {
    // SAFETY: the caller vouches for 16 bytes at each place.
    unsafe {
        _mm_storeu_si128(first.cast(), _mm512_castsi512_si128(x));
        _mm_storeu_si128(first.add(b).cast(), _mm512_extracti32x4_epi32::<1>(x));
        _mm_storeu_si128(first.add(c).cast(), _mm512_extracti32x4_epi32::<2>(x));
        _mm_storeu_si128(first.add(d).cast(), _mm512_extracti32x4_epi32::<3>(x));
    }
}

/// CFB encryption of the blocks of `range` of the first `count` packets, at most `4 * Z`, `stride` bytes apart.
///
/// # Safety
/// `count` is not 0; `range` consists of whole blocks; the range of each packet, and the block in front of it
/// unless the range begins at 0, must be valid for reads and writes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,aes")]
unsafe fn chain<const R: usize, const Z: usize>(
    keys: &[__m128i; MAX_KEYS],
    run: *mut u8,
    stride: usize,
    count: usize,
    range: Range<usize>,
) {
    let keys = broadcast(keys);
    let iv = iv::<16>();
    // Lanes without a packet of their own repeat the last one.
    let mut firsts = [0; Z];
    let mut offsets = [[0; 3]; Z];
    for (z, (first, offsets)) in firsts.iter_mut().zip(&mut offsets).enumerate() {
        *first = (4 * z).min(count - 1) * stride;
        for (i, offset) in offsets.iter_mut().enumerate() {
            *offset = (4 * z + 1 + i).min(count - 1) * stride - *first;
        }
    }
    let mut x = [keys[0]; Z];
    for ((x, first), offsets) in x.iter_mut().zip(firsts).zip(offsets) {
        // SAFETY: the IV has 16 bytes; the caller vouches for the block in front of the range.
        let before = unsafe {
            if range.start == 0 {
                gather(iv.as_ptr(), [0; 3])
            } else {
                gather(run.add(first + range.start - 16), offsets)
            }
        };
        *x = _mm512_xor_si512(*x, before);
    }
    // The last round adds the text and the first key of the next block with one instruction.
    let ends = _mm512_xor_si512(keys[R], keys[0]);
    for at in range.step_by(16) {
        middle_rounds::<R, Z>(&keys, &mut x);
        for ((x, first), offsets) in x.iter_mut().zip(firsts).zip(offsets) {
            // SAFETY: the caller vouches for all blocks of the range.
            let text = unsafe { gather(run.add(first + at), offsets) };
            *x = _mm512_aesenclast_epi128(*x, _mm512_xor_si512(text, ends));
        }
        // Only now: several lanes may stand for one packet.
        for ((x, first), offsets) in x.iter().zip(firsts).zip(offsets) {
            // SAFETY: as above.
            unsafe { scatter(run.add(first + at), offsets, _mm512_xor_si512(*x, keys[0])) };
        }
    }
}

/// CFB decryption of a whole packet.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,aes")]
fn unchain<const R: usize>(keys: &[__m128i; MAX_KEYS], packet: &mut [u8]) {
    let keys = broadcast(keys);
    let iv = iv::<16>();
    // SAFETY: `iv` has 16 bytes.
    let iv = unsafe { _mm_loadu_si128(iv.as_ptr().cast()) };
    // Only the last quarter, the block in front of the text that comes next, counts.
    let mut before = _mm512_broadcast_i32x4(iv);
    let (groups, rest) = packet.as_chunks_mut::<{ 64 * WIDE }>();
    for group in groups {
        let mut text = [_mm512_setzero_si512(); WIDE];
        for (text, bytes) in text.iter_mut().zip(group.as_chunks::<64>().0) {
            // SAFETY: reads the 64 bytes of `bytes`, at any alignment.
            *text = unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) };
        }
        let clear = unchain_registers::<R, WIDE>(&keys, before, text);
        for (clear, bytes) in clear.iter().zip(group.as_chunks_mut::<64>().0) {
            // SAFETY: writes the 64 bytes of `bytes`, at any alignment.
            unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), *clear) };
        }
        before = text[WIDE - 1];
    }
    match rest.len().div_ceil(64) {
        0 => {}
        1 => unchain_rest::<R, 1>(&keys, before, rest),
        2 => unchain_rest::<R, 2>(&keys, before, rest),
        3 => unchain_rest::<R, 3>(&keys, before, rest),
        _ => unchain_rest::<R, 4>(&keys, before, rest),
    }
}

/// Decrypts the `Z` registers that `rest` fills, the last of them in part.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,aes")]
fn unchain_rest<const R: usize, const Z: usize>(
    keys: &[__m512i; MAX_KEYS],
    before: __m512i,
    rest: &mut [u8],
) {
    let mut text = [_mm512_setzero_si512(); Z];
    for (text, bytes) in text.iter_mut().zip(rest.chunks(64)) {
        // SAFETY: the mask covers the bytes of `bytes` and no others.
        *text = unsafe { _mm512_maskz_loadu_epi8(mask(bytes.len()), bytes.as_ptr().cast()) };
    }
    let clear = unchain_registers::<R, Z>(keys, before, text);
    for (clear, bytes) in clear.iter().zip(rest.chunks_mut(64)) {
        // SAFETY: as above.
        unsafe {
            _mm512_mask_storeu_epi8(bytes.as_mut_ptr().cast(), mask(bytes.len()), *clear);
        }
    }
}

/// The clear text of consecutive registers of ciphertext; `before` ends with the block in front of them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,aes")]
fn unchain_registers<const R: usize, const Z: usize>(
    keys: &[__m512i; MAX_KEYS],
    mut before: __m512i,
    text: [__m512i; Z],
) -> [__m512i; Z] {
    let mut x = text;
    for x in &mut x {
        let shifted = _mm512_alignr_epi64::<6>(*x, before);
        before = *x;
        *x = _mm512_xor_si512(shifted, keys[0]);
    }
    middle_rounds::<R, Z>(keys, &mut x);
    for (x, text) in x.iter_mut().zip(text) {
        *x = _mm512_aesenclast_epi128(*x, _mm512_xor_si512(text, keys[R]));
    }
    x
}

/// A mask of the first `len` bytes, 1 to 64.
#[inline(always)]
pub(super) fn mask(len: usize) -> __mmask64 {
    u64::MAX >> (64 - len.clamp(1, 64))
}
