//! AES-128-GCM and AES-256-GCM with AES-NI and PCLMULQDQ, or their 512-bit forms.
//!
//! A packet is a handful of groups of blocks whose encryption and authentication do not depend on each other; the
//! only chain, the reduction of the GHASH sum, comes once per packet.

use core::arch::x86_64::*;

use super::aesni::{self, AesKey};
use super::ghash::{GhashKey, POWERS, Sum, load, reverse};
use super::vaes;
use super::{Aesni, Avx512};
use crate::aead::{Aead, equal};

/// Bytes that one reduction serves; whole registers, and one power left for the block of lengths.
const CHUNK: usize = (POWERS - 4) * 16;

/// AES-GCM with `R` rounds on 128-bit registers.
pub(crate) struct Gcm<const R: usize> {
    token: Aesni,
    aes: AesKey<R>,
    ghash: GhashKey,
    /// What the associated data come to, to be added to the first block of every packet; and their length in bits.
    data: (u128, u8),
}

impl<const R: usize> Gcm<R> {
    /// With a key of `4 * (R - 6)` bytes and at most one block of associated data, which all packets have.
    pub(crate) fn new(token: Aesni, key: &[u8], data: &'static [u8]) -> Self {
        assert!(data.len() <= 16);
        let aes = AesKey::new(token, key);
        let ghash = GhashKey::new(token, &aes);
        let mut block = [0; 16];
        block[..data.len()].copy_from_slice(data);
        let data = (ghash.times(token, block), 8 * data.len() as u8);
        Self {
            token,
            aes,
            ghash,
            data,
        }
    }

    /// What the associated data come to, as a vector.
    #[inline]
    #[target_feature(enable = "sse4.1")]
    fn carried(&self) -> __m128i {
        load(&self.data.0.to_le_bytes())
    }
}

impl<const R: usize> Aead<12> for Gcm<R> {
    fn seal(&self, nonce: &[u8; 12], body: &mut [u8]) -> [u8; 16] {
        let Aesni(()) = self.token;
        // SAFETY: the token proves that the instructions exist.
        unsafe { crypt::<R, true>(self, nonce, body) }
    }

    fn open(&self, nonce: &[u8; 12], body: &mut [u8], tag: &[u8; 16]) -> bool {
        let Aesni(()) = self.token;
        // SAFETY: the token proves that the instructions exist.
        let wanted = unsafe { crypt::<R, false>(self, nonce, body) };
        equal(&wanted, tag)
    }
}

/// AES-GCM with `R` rounds on 512-bit registers.
pub(crate) struct WideGcm<const R: usize> {
    token: Avx512,
    narrow: Gcm<R>,
}

impl<const R: usize> WideGcm<R> {
    /// As [`Gcm::new`].
    pub(crate) fn new(token: Avx512, key: &[u8], data: &'static [u8]) -> Self {
        Self {
            token,
            narrow: Gcm::new(token.aesni(), key, data),
        }
    }
}

impl<const R: usize> Aead<12> for WideGcm<R> {
    fn seal(&self, nonce: &[u8; 12], body: &mut [u8]) -> [u8; 16] {
        let Avx512(()) = self.token;
        // SAFETY: the token proves that the instructions exist.
        unsafe { crypt_wide::<R, true>(&self.narrow, nonce, body) }
    }

    fn open(&self, nonce: &[u8; 12], body: &mut [u8], tag: &[u8; 16]) -> bool {
        let Avx512(()) = self.token;
        // SAFETY: the token proves that the instructions exist.
        let wanted = unsafe { crypt_wide::<R, false>(&self.narrow, nonce, body) };
        equal(&wanted, tag)
    }
}

/// The counter block 0 of a nonce, with the bytes of the counter in machine order.
#[inline]
#[target_feature(enable = "sse4.1")]
fn counter_block(nonce: &[u8; 12]) -> __m128i {
    let mut block = [0; 16];
    block[..12].copy_from_slice(nonce);
    load(&block)
}

/// A counter block as it goes into the cipher.
#[inline]
#[target_feature(enable = "ssse3,sse4.1")]
fn wire_order(counter: __m128i) -> __m128i {
    let order = _mm_set_epi64x(0x0C0D_0E0F_0B0A_0908, 0x0706_0504_0302_0100);
    _mm_shuffle_epi8(counter, order)
}

/// The tag of a message of `len` bytes: `sum` holds the products of all its blocks, each power one above its own, and
/// `carried` is what no block has taken.
#[inline]
#[target_feature(enable = "aes,ssse3,sse4.1,pclmulqdq")]
fn tag<const R: usize>(
    gcm: &Gcm<R>,
    mut sum: Sum<__m128i>,
    carried: __m128i,
    base: __m128i,
    len: usize,
) -> [u8; 16] {
    let bits = (len as u64).wrapping_mul(8).cast_signed();
    let lengths = _mm_set_epi64x(i64::from(gcm.data.1), bits);
    sum.add(_mm_xor_si128(lengths, carried), load(gcm.ghash.first()));
    let first = _mm_insert_epi32::<3>(base, 1);
    let mut mask = [_mm_xor_si128(wire_order(first), gcm.aes.keys()[0])];
    aesni::middle_rounds::<R, 1>(gcm.aes.keys(), &mut mask);
    let mask = _mm_aesenclast_si128(mask[0], gcm.aes.keys()[R]);
    let mut tag = [0; 16];
    let sealed = _mm_xor_si128(reverse(sum.reduce()), mask);
    // SAFETY: writes the 16 bytes of `tag`, at any alignment.
    unsafe { _mm_storeu_si128(tag.as_mut_ptr().cast(), sealed) };
    tag
}

/// Encrypts or decrypts `body` and returns the tag of the ciphertext.
#[target_feature(enable = "aes,ssse3,sse4.1,pclmulqdq")]
fn crypt<const R: usize, const SEAL: bool>(
    gcm: &Gcm<R>,
    nonce: &[u8; 12],
    body: &mut [u8],
) -> [u8; 16] {
    const GROUP: usize = 8;
    let len = body.len();
    let base = counter_block(nonce);
    let mut state = State {
        gcm,
        counter: _mm_insert_epi32::<3>(base, 2),
        carried: gcm.carried(),
        sum: Sum::zero(),
    };
    let chunks = len.div_ceil(CHUNK);
    for (i, chunk) in body.chunks_mut(CHUNK).enumerate() {
        let last = i + 1 == chunks;
        let blocks = chunk.len().div_ceil(16);
        // The block of lengths takes the lowest power of the last chunk.
        let mut powers = gcm.ghash.for_blocks(blocks + usize::from(last));
        let (groups, rest) = chunk.as_chunks_mut::<{ 16 * GROUP }>();
        for group in groups {
            let (now, later) = powers.split_at(GROUP);
            state.group::<SEAL, GROUP>(group, 16 * GROUP, now);
            powers = later;
        }
        for part in rest.chunks_mut(16) {
            let (now, later) = powers.split_at(1);
            let mut block = [0; 16];
            block[..part.len()].copy_from_slice(part);
            state.group::<SEAL, 1>(&mut block, part.len(), now);
            part.copy_from_slice(&block[..part.len()]);
            powers = later;
        }
        if !last {
            state.carried = state.sum.reduce();
            state.sum = Sum::zero();
        }
    }
    tag(gcm, state.sum, state.carried, base, len)
}

/// What goes from group to group.
struct State<'a, const R: usize> {
    gcm: &'a Gcm<R>,
    /// The counter of the next block, in machine order.
    counter: __m128i,
    /// What former chunks came to, to be added to the next block.
    carried: __m128i,
    sum: Sum<__m128i>,
}

impl<const R: usize> State<'_, R> {
    /// Encrypts or decrypts `N` blocks, of which the first `len` bytes are text, and adds their products to the sum.
    #[inline]
    #[target_feature(enable = "aes,ssse3,sse4.1,pclmulqdq")]
    fn group<const SEAL: bool, const N: usize>(
        &mut self,
        group: &mut [u8],
        len: usize,
        powers: &[[u8; 16]],
    ) {
        if !SEAL {
            self.authenticate(group, powers);
        }
        let keys = self.gcm.aes.keys();
        let one = _mm_set_epi32(1, 0, 0, 0);
        let mut x = [_mm_setzero_si128(); N];
        for x in &mut x {
            *x = _mm_xor_si128(wire_order(self.counter), keys[0]);
            self.counter = _mm_add_epi32(self.counter, one);
        }
        aesni::middle_rounds::<R, N>(keys, &mut x);
        for (block, x) in group.as_chunks_mut::<16>().0.iter_mut().zip(x) {
            let text = _mm_xor_si128(load(block), keys[R]);
            // SAFETY: writes the 16 bytes of `block`, at any alignment.
            unsafe {
                _mm_storeu_si128(block.as_mut_ptr().cast(), _mm_aesenclast_si128(x, text));
            }
        }
        if SEAL {
            // The sum must not see the key stream behind the text.
            group[len..].fill(0);
            self.authenticate(group, powers);
        }
    }

    #[inline]
    #[target_feature(enable = "ssse3,sse4.1,pclmulqdq")]
    fn authenticate(&mut self, group: &[u8], powers: &[[u8; 16]]) {
        for (block, power) in group.as_chunks::<16>().0.iter().zip(powers) {
            let text = _mm_xor_si128(reverse(load(block)), self.carried);
            self.carried = _mm_setzero_si128();
            self.sum.add(text, load(power));
        }
    }
}

/// Encrypts or decrypts `body` and returns the tag of the ciphertext.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq,aes,ssse3,sse4.1,pclmulqdq")]
fn crypt_wide<const R: usize, const SEAL: bool>(
    gcm: &Gcm<R>,
    nonce: &[u8; 12],
    body: &mut [u8],
) -> [u8; 16] {
    const WIDE: usize = 4;
    let keys = vaes::broadcast(gcm.aes.keys());
    let len = body.len();
    let base = counter_block(nonce);
    let mut state = WideState {
        counter: _mm512_add_epi32(
            _mm512_broadcast_i32x4(base),
            _mm512_set_epi32(5, 0, 0, 0, 4, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0),
        ),
        carried: _mm512_zextsi128_si512(gcm.carried()),
        sum: Sum {
            low: _mm512_setzero_si512(),
            middle: _mm512_setzero_si512(),
            high: _mm512_setzero_si512(),
        },
    };
    let mut result = Sum::zero();
    let chunks = len.div_ceil(CHUNK);
    for (i, chunk) in body.chunks_mut(CHUNK).enumerate() {
        let last = i + 1 == chunks;
        let blocks = chunk.len().div_ceil(16);
        // The block of lengths takes the lowest power of the last chunk.
        let mut powers = gcm.ghash.for_blocks(blocks + usize::from(last));
        let (groups, rest) = chunk.as_chunks_mut::<{ 64 * WIDE }>();
        for group in groups {
            state.group::<R, SEAL, WIDE>(&keys, group, powers);
            powers = &powers[4 * WIDE..];
        }
        match rest.len().div_ceil(64) {
            0 => {}
            1 => state.group::<R, SEAL, 1>(&keys, rest, powers),
            2 => state.group::<R, SEAL, 2>(&keys, rest, powers),
            3 => state.group::<R, SEAL, 3>(&keys, rest, powers),
            _ => state.group::<R, SEAL, 4>(&keys, rest, powers),
        }
        result = Sum {
            low: quarters(state.sum.low),
            middle: quarters(state.sum.middle),
            high: quarters(state.sum.high),
        };
        if !last {
            state.carried = _mm512_zextsi128_si512(result.reduce());
            state.sum = Sum {
                low: _mm512_setzero_si512(),
                middle: _mm512_setzero_si512(),
                high: _mm512_setzero_si512(),
            };
        }
    }
    let carried = _mm512_castsi512_si128(state.carried);
    tag(gcm, result, carried, base, len)
}

/// What goes from group to group.
struct WideState {
    /// The counters of the next four blocks, in machine order.
    counter: __m512i,
    /// What former chunks came to, to be added to the next block.
    carried: __m512i,
    sum: Sum<__m512i>,
}

impl WideState {
    /// Encrypts or decrypts the `Z` registers that `group` fills, the last of them perhaps in part, and adds their
    /// products to the sum.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    fn group<const R: usize, const SEAL: bool, const Z: usize>(
        &mut self,
        keys: &[__m512i; crate::arch::schedule::MAX_KEYS],
        group: &mut [u8],
        powers: &[[u8; 16]],
    ) {
        let wire_order =
            _mm512_broadcast_i32x4(_mm_set_epi64x(0x0C0D_0E0F_0B0A_0908, 0x0706_0504_0302_0100));
        let reverse =
            _mm512_broadcast_i32x4(_mm_set_epi64x(0x0001_0203_0405_0607, 0x0809_0A0B_0C0D_0E0F));
        let four = _mm512_set_epi32(4, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0);

        let mut x = [_mm512_setzero_si512(); Z];
        for x in &mut x {
            *x = _mm512_xor_si512(_mm512_shuffle_epi8(self.counter, wire_order), keys[0]);
            self.counter = _mm512_add_epi32(self.counter, four);
        }
        vaes::middle_rounds::<R, Z>(keys, &mut x);
        for ((bytes, x), power) in group.chunks_mut(64).zip(x).zip(powers.as_chunks::<4>().0) {
            let mask = vaes::mask(bytes.len());
            // SAFETY: the mask covers the bytes of `bytes` and no others; reads the 64 bytes of `power`.
            let (before, power) = unsafe {
                (
                    _mm512_maskz_loadu_epi8(mask, bytes.as_ptr().cast()),
                    _mm512_loadu_si512(power.as_ptr().cast()),
                )
            };
            let after = _mm512_aesenclast_epi128(x, _mm512_xor_si512(before, keys[R]));
            // SAFETY: as above.
            unsafe { _mm512_mask_storeu_epi8(bytes.as_mut_ptr().cast(), mask, after) };
            let text = if SEAL {
                // The sum must not see the key stream behind the text.
                _mm512_maskz_mov_epi8(mask, after)
            } else {
                before
            };
            let text = _mm512_xor_si512(_mm512_shuffle_epi8(text, reverse), self.carried);
            self.carried = _mm512_setzero_si512();
            let low = _mm512_clmulepi64_epi128::<0x00>(text, power);
            let high = _mm512_clmulepi64_epi128::<0x11>(text, power);
            let one = _mm512_clmulepi64_epi128::<0x01>(text, power);
            let other = _mm512_clmulepi64_epi128::<0x10>(text, power);
            self.sum.low = _mm512_xor_si512(self.sum.low, low);
            self.sum.high = _mm512_xor_si512(self.sum.high, high);
            self.sum.middle = _mm512_ternarylogic_epi64::<0x96>(self.sum.middle, one, other);
        }
    }
}

/// The sum of the four quarters.
#[inline]
#[target_feature(enable = "avx512f,avx2")]
fn quarters(x: __m512i) -> __m128i {
    let halves = _mm256_xor_si256(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64::<1>(x));
    _mm_xor_si128(
        _mm256_castsi256_si128(halves),
        _mm256_extracti128_si256::<1>(halves),
    )
}
