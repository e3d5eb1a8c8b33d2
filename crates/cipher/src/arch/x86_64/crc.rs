//! CRC-32 (IEEE, reflected) by carry-less multiplication on 512-bit registers.
//!
//! The message is taken as a polynomial and reduced by folding: multiplying what lies in front by the remainder of
//! the power of x that stands between it and what lies behind. Zeros in front of a message do not change its
//! remainder, so it is aligned to its end and only the first register is a partial one; the initial value of the
//! CRC is added to its first four bytes.

use core::arch::x86_64::*;

use super::Avx512;

/// x^32 + ... + 1 without its highest power, reflected.
const POLY: u32 = 0xEDB8_8320;

/// The reflected remainder of x^n, in the place where multiplying reflected numbers needs it.
const fn power(n: u32) -> i64 {
    // x^0 is the highest bit.
    let mut x = 1u32 << 31;
    let mut i = 0;
    while i < n {
        x = (x >> 1) ^ if x & 1 == 1 { POLY } else { 0 };
        i += 1;
    }
    (x as i64) << 1
}

/// Factors that move the two halves of a block by `bits`.
const fn fold_by(bits: u32) -> [i64; 2] {
    [power(bits + 32), power(bits - 32)]
}

const BY_2048: [i64; 2] = fold_by(2048);
const BY_512: [i64; 2] = fold_by(512);
const BY_384: [i64; 2] = fold_by(384);
const BY_256: [i64; 2] = fold_by(256);
const BY_128: [i64; 2] = fold_by(128);

/// The polynomial with its highest power, and the quotient of x^64 by it, both reflected.
const BARRETT: [i64; 2] = [(POLY as i64) << 1 | 1, 0x1_F701_1641];

/// Four bytes of ones that a load at the right distance puts anywhere in one register or across two.
static INIT: [u8; 192] = {
    let mut bytes = [0; 192];
    let mut i = 64;
    while i < 68 {
        bytes[i] = 0xFF;
        i += 1;
    }
    bytes
};

/// The CRC-32 of `data`.
pub(crate) fn crc32(token: Avx512, data: &[u8]) -> u32 {
    let Avx512(()) = token;
    if data.len() < 4 {
        // Too short for the initial value to be added to.
        return crc32fast::hash(data);
    }
    // SAFETY: the token proves that the instructions exist.
    unsafe { fold(data) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,vpclmulqdq,pclmulqdq,sse4.1")]
fn fold(data: &[u8]) -> u32 {
    let registers = data.len().div_ceil(64);
    let pad = registers * 64 - data.len();

    // SAFETY: masked loads touch only the bytes of the mask: the last `64 - pad` of the register, which begins
    // `pad` bytes in front of the data, are the first ones of the data. INIT has 64 bytes behind both offsets as
    // `pad` < 64.
    let (mut first, init_rest) = unsafe {
        let first =
            _mm512_maskz_loadu_epi8(u64::MAX << pad, data.as_ptr().wrapping_sub(pad).cast());
        let init = _mm512_loadu_si512(INIT.as_ptr().add(64 - pad).cast());
        let rest = _mm512_loadu_si512(INIT.as_ptr().add(128 - pad).cast());
        (_mm512_xor_si512(first, init), rest)
    };
    let rest = data[64 - pad..].as_chunks::<64>().0;
    let Some((second, rest)) = rest.split_first() else {
        return finish(first);
    };
    let second = _mm512_xor_si512(load(second), init_rest);

    let rest = if let Some((head, rest)) = rest.split_at_checked(2) {
        let mut sums = [first, second, load(&head[0]), load(&head[1])];
        let (fours, rest) = rest.as_chunks::<4>();
        for four in fours {
            for (sum, text) in sums.iter_mut().zip(four) {
                *sum = move_on(*sum, BY_2048, load(text));
            }
        }
        first = sums[0];
        for sum in &sums[1..] {
            first = move_on(first, BY_512, *sum);
        }
        rest
    } else {
        first = move_on(first, BY_512, second);
        rest
    };
    for text in rest {
        first = move_on(first, BY_512, load(text));
    }
    finish(first)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: reads the 64 bytes of `bytes`, at any alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// `sum`, moved by the distance of `factors`, plus `text`.
#[inline]
#[target_feature(enable = "avx512f,vpclmulqdq")]
fn move_on(sum: __m512i, factors: [i64; 2], text: __m512i) -> __m512i {
    let factors = _mm512_broadcast_i32x4(_mm_set_epi64x(factors[1], factors[0]));
    let low = _mm512_clmulepi64_epi128::<0x00>(sum, factors);
    let high = _mm512_clmulepi64_epi128::<0x11>(sum, factors);
    _mm512_ternarylogic_epi64::<0x96>(low, high, text)
}

/// The CRC of a message that one register is congruent to.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,vpclmulqdq,pclmulqdq,sse4.1")]
fn finish(sum: __m512i) -> u32 {
    // The first three quarters onto the last.
    let factors = _mm512_set_epi64(
        0, 0, BY_128[1], BY_128[0], BY_256[1], BY_256[0], BY_384[1], BY_384[0],
    );
    let low = _mm512_clmulepi64_epi128::<0x00>(sum, factors);
    let high = _mm512_clmulepi64_epi128::<0x11>(sum, factors);
    let moved = _mm512_xor_si512(low, high);
    let both = _mm256_xor_si256(
        _mm512_castsi512_si256(moved),
        _mm512_extracti64x4_epi64::<1>(moved),
    );
    let four = _mm_xor_si128(
        _mm256_castsi256_si128(both),
        _mm256_extracti128_si256::<1>(both),
    );
    let sum = _mm_xor_si128(four, _mm512_extracti32x4_epi32::<3>(sum));

    // 128 bits to 96 to 64, which multiplies by x^32, and the remainder of those by Barrett's method.
    let factors = _mm_set_epi64x(power(64), power(96));
    let low_word = _mm_set_epi32(0, 0, 0, -1);
    let sum = _mm_xor_si128(
        _mm_srli_si128::<8>(sum),
        _mm_clmulepi64_si128::<0x00>(sum, factors),
    );
    let sum = _mm_xor_si128(
        _mm_srli_si128::<4>(sum),
        _mm_clmulepi64_si128::<0x10>(_mm_and_si128(sum, low_word), factors),
    );
    let barrett = _mm_set_epi64x(BARRETT[1], BARRETT[0]);
    let quotient = _mm_clmulepi64_si128::<0x10>(_mm_and_si128(sum, low_word), barrett);
    let product = _mm_clmulepi64_si128::<0x00>(_mm_and_si128(quotient, low_word), barrett);
    !_mm_extract_epi32::<1>(_mm_xor_si128(sum, product)).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_testkit::vectors::xs;

    #[test]
    fn as_the_crate_at_every_length() {
        let Some(token) = Avx512::detect() else {
            return;
        };
        let bytes = xs(1, 3100);
        for len in 0..3000 {
            for from in [0, 1, 63] {
                let data = &bytes[from..from + len];
                assert_eq!(crc32(token, data), crc32fast::hash(data), "{len} {from}");
            }
        }
    }
}
