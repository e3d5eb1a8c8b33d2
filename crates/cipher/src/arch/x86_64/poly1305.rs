//! Poly1305 of eight or sixteen packets at once, with the 52-bit multiplications of AVX-512.
//!
//! Every packet has a key of its own, so that powers of it do not pay; but packets do not depend on each other. Lane `i`
//! of every vector is packet `i`. Numbers have three limbs of 44, 44 and 42 bits.

use core::arch::x86_64::*;

use super::Ifma;
use super::vaes::mask;
use crate::poly::finish;
use crate::streams::{BATCH, Batch, Cipher};

/// Fewer packets than this are quicker one by one.
const FEWEST: usize = 3;
const LANES: usize = 8;
const LOW: u64 = (1 << 44) - 1;
const HIGH: u64 = (1 << 42) - 1;
/// What stands above the 128 bits of a whole block, in the last limb.
const WHOLE: u64 = 1 << 40;

/// The tags of a batch, if this kernel can make them quicker than packet by packet; otherwise `false`.
pub(super) fn tags<C: Cipher>(
    token: Option<Ifma>,
    batch: &Batch,
    run: &[u8],
    tags: &mut [[u8; 16]; BATCH],
) -> bool {
    let Some(Ifma(())) = token else {
        return false;
    };
    match batch.count {
        ..FEWEST => return false,
        // SAFETY: the token proves that the instructions exist.
        FEWEST..=LANES => unsafe { sums::<C, 1>(batch, run, tags) },
        // SAFETY: the same.
        _ => unsafe { sums::<C, 2>(batch, run, tags) },
    }
    true
}

/// The numbers of eight packets.
#[derive(Copy, Clone)]
struct Eight {
    h: [__m512i; 3],
    r: [__m512i; 3],
    /// The upper limbs of `r` times 20: what they are worth two or three limbs lower.
    folded: [__m512i; 2],
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma")]
fn sums<C: Cipher, const G: usize>(batch: &Batch, run: &[u8], tags: &mut [[u8; 16]; BATCH]) {
    // Lanes without a packet repeat the first.
    let packet = |i: usize| &batch.packets[if i < batch.count { i } else { 0 }];
    let mut bodies = [[&run[..0]; LANES]; G];
    let mut states = [Eight {
        h: [_mm512_setzero_si512(); 3],
        r: [_mm512_setzero_si512(); 3],
        folded: [_mm512_setzero_si512(); 2],
    }; G];
    for (g, state) in states.iter_mut().enumerate() {
        let mut limbs = [[0u64; LANES]; 3];
        for lane in 0..LANES {
            let packet = packet(LANES * g + lane);
            bodies[g][lane] = &run[packet.start..packet.start + batch.len];
            let r = u128::from_le_bytes(*packet.r()) & 0x0FFF_FFFC_0FFF_FFFC_0FFF_FFFC_0FFF_FFFF;
            limbs[0][lane] = r as u64 & LOW;
            limbs[1][lane] = (r >> 44) as u64 & LOW;
            limbs[2][lane] = (r >> 88) as u64;
        }
        for (i, limbs) in limbs.iter().enumerate() {
            state.r[i] = load(limbs);
        }
        for (i, limbs) in limbs[1..].iter().enumerate() {
            state.folded[i] = load(&limbs.map(|limb| 20 * limb));
        }
    }

    if let Some(data) = C::DATA {
        let mut block = [0; 16];
        block[..data.len()].copy_from_slice(data);
        absorb_same(&mut states, block);
    }
    let mut at = 0;
    while at < batch.len {
        let len = (batch.len - at).min(64);
        let mut words = [[_mm512_setzero_si512(); 8]; G];
        for (words, bodies) in words.iter_mut().zip(&bodies) {
            for (word, body) in words.iter_mut().zip(bodies) {
                let part = &body[at..at + len];
                // SAFETY: the mask covers the bytes of `part` and no others.
                *word = unsafe { _mm512_maskz_loadu_epi8(mask(len), part.as_ptr().cast()) };
            }
            if C::DATA.is_none() && !len.is_multiple_of(16) {
                // An incomplete block ends in a bit, instead of having one above it.
                let end = _mm512_maskz_set1_epi8(1 << len, 1);
                for word in words.iter_mut() {
                    *word = _mm512_or_si512(*word, end);
                }
            }
            *words = transpose(*words);
        }
        for block in 0..len.div_ceil(16) {
            let whole = C::DATA.is_some() || 16 * (block + 1) <= len;
            let above = if whole { WHOLE } else { 0 };
            for (state, words) in states.iter_mut().zip(&words) {
                absorb(state, words[2 * block], words[2 * block + 1], above);
            }
        }
        at += len;
    }
    if let Some(data) = C::DATA {
        let lengths = u128::from(batch.len as u64) << 64 | data.len() as u128;
        absorb_same(&mut states, lengths.to_le_bytes());
    }

    for (g, state) in states.iter().enumerate() {
        let mut limbs = [[0u64; LANES]; 3];
        for (limbs, h) in limbs.iter_mut().zip(state.h) {
            // SAFETY: writes the 64 bytes of `limbs`, at any alignment.
            unsafe { _mm512_storeu_si512(limbs.as_mut_ptr().cast(), h) };
        }
        let packets = batch.packets[..batch.count].iter().zip(&mut *tags);
        let group = packets.skip(LANES * g).take(LANES);
        for (lane, (packet, tag)) in group.enumerate() {
            *tag = finish([limbs[0][lane], limbs[1][lane], limbs[2][lane]], packet.s());
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(limbs: &[u64; LANES]) -> __m512i {
    // SAFETY: reads the 64 bytes of `limbs`, at any alignment.
    unsafe { _mm512_loadu_si512(limbs.as_ptr().cast()) }
}

/// Takes in the same block for all packets.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn absorb_same<const G: usize>(states: &mut [Eight; G], block: [u8; 16]) {
    let block = u128::from_le_bytes(block);
    let low = _mm512_set1_epi64((block as u64).cast_signed());
    let high = _mm512_set1_epi64(((block >> 64) as u64).cast_signed());
    for state in states {
        absorb(state, low, high, WHOLE);
    }
}

/// Takes in the next block of every packet: its lower and upper words and what is above them.
///
/// Limbs may be longer than they should by a few bits: the first has up to 50 when it is multiplied, the others not more
/// than 45. No product leaves the 104 bits that the instructions give, no sum the 64 of a lane.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn absorb(state: &mut Eight, low: __m512i, high: __m512i, above: u64) {
    let mask = _mm512_set1_epi64(LOW.cast_signed());
    let zero = _mm512_setzero_si512();
    let middle = _mm512_or_si512(_mm512_srli_epi64::<44>(low), _mm512_slli_epi64::<20>(high));
    let above = _mm512_set1_epi64(above.cast_signed());
    let text = [
        _mm512_and_si512(low, mask),
        _mm512_and_si512(middle, mask),
        _mm512_or_si512(_mm512_srli_epi64::<24>(high), above),
    ];
    let [h0, h1, h2] = [
        _mm512_add_epi64(state.h[0], text[0]),
        _mm512_add_epi64(state.h[1], text[1]),
        _mm512_add_epi64(state.h[2], text[2]),
    ];
    let [r0, r1, r2] = state.r;
    let [f1, f2] = state.folded;
    // The first limb is there last, so it is multiplied last.
    let mut lo = [zero; 3];
    let mut hi = [zero; 3];
    let factors = [
        [(h2, f1), (h1, f2), (h0, r0)],
        [(h2, f2), (h1, r0), (h0, r1)],
        [(h2, r0), (h1, r1), (h0, r2)],
    ];
    for ((lo, hi), factors) in lo.iter_mut().zip(&mut hi).zip(factors) {
        for (a, b) in factors {
            *lo = _mm512_madd52lo_epu64(*lo, a, b);
            *hi = _mm512_madd52hi_epu64(*hi, a, b);
        }
    }
    // The upper parts begin at bit 52, 8 bits above the next limb, and 10 above what the last one folds into.
    let carry = _mm512_add_epi64(
        _mm512_srli_epi64::<44>(lo[0]),
        _mm512_slli_epi64::<8>(hi[0]),
    );
    lo[1] = _mm512_add_epi64(lo[1], carry);
    let carry = _mm512_add_epi64(
        _mm512_srli_epi64::<44>(lo[1]),
        _mm512_slli_epi64::<8>(hi[1]),
    );
    lo[2] = _mm512_add_epi64(lo[2], carry);
    let carry = _mm512_add_epi64(
        _mm512_srli_epi64::<42>(lo[2]),
        _mm512_slli_epi64::<10>(hi[2]),
    );
    let five = _mm512_add_epi64(carry, _mm512_slli_epi64::<2>(carry));
    state.h = [
        _mm512_add_epi64(_mm512_and_si512(lo[0], mask), five),
        _mm512_and_si512(lo[1], mask),
        _mm512_and_si512(lo[2], _mm512_set1_epi64(HIGH.cast_signed())),
    ];
}

/// Transposes eight vectors of eight words.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(rows: [__m512i; 8]) -> [__m512i; 8] {
    let [a, b, c, d, e, f, g, h] = rows;
    // Words of even and of odd places, of two rows each.
    let even = [
        _mm512_unpacklo_epi64(a, b),
        _mm512_unpacklo_epi64(c, d),
        _mm512_unpacklo_epi64(e, f),
        _mm512_unpacklo_epi64(g, h),
    ];
    let odd = [
        _mm512_unpackhi_epi64(a, b),
        _mm512_unpackhi_epi64(c, d),
        _mm512_unpackhi_epi64(e, f),
        _mm512_unpackhi_epi64(g, h),
    ];
    let mut out = rows;
    for (parity, pairs) in [even, odd].into_iter().enumerate() {
        let [ab, cd, ef, gh] = pairs;
        let low = [
            _mm512_shuffle_i64x2::<0x44>(ab, cd),
            _mm512_shuffle_i64x2::<0x44>(ef, gh),
        ];
        let high = [
            _mm512_shuffle_i64x2::<0xEE>(ab, cd),
            _mm512_shuffle_i64x2::<0xEE>(ef, gh),
        ];
        out[parity] = _mm512_shuffle_i64x2::<0x88>(low[0], low[1]);
        out[2 + parity] = _mm512_shuffle_i64x2::<0xDD>(low[0], low[1]);
        out[4 + parity] = _mm512_shuffle_i64x2::<0x88>(high[0], high[1]);
        out[6 + parity] = _mm512_shuffle_i64x2::<0xDD>(high[0], high[1]);
    }
    out
}
