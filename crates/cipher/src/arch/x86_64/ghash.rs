//! What both GCM kernels share: the key of GHASH and its powers, and the reduction of a sum of products.
//!
//! GHASH numbers the bits of a block from the wrong end for carry-less multiplication. In its mirror image, POLYVAL
//! (RFC 8452, appendix A), blocks with reversed bytes are plain polynomials and a product is divided by x^128, so
//! that the reduction works from the low end up. Products of many blocks with falling powers of the key are added
//! up and reduced once.

use core::arch::x86_64::*;

use zeroize::Zeroizing;

use super::Aesni;
use super::aesni::AesKey;

/// How many blocks are multiplied before their sum is reduced.
pub(crate) const POWERS: usize = 128;
/// Zero blocks behind the powers, where kernels read past the last one.
const MARGIN: usize = 7;

/// A GHASH key for messages of any length.
#[derive(Clone)]
pub(crate) struct GhashKey {
    /// The powers, the highest first, the key itself at `POWERS - 1`, zeros behind it.
    powers: Box<Zeroizing<[[u8; 16]; POWERS + MARGIN]>>,
}

impl GhashKey {
    /// The GHASH key that belongs to an AES key.
    pub(crate) fn new<const R: usize>(token: Aesni, aes: &AesKey<R>) -> Self {
        use crate::cfb::LaneCipher;
        let mut zero = [[0; 16]];
        aes.encrypt(&mut zero);
        // Times x, in constant time.
        let h = u128::from_be_bytes(zero[0]);
        let doubled = (h << 1) ^ ((h >> 127) * ((0xC2 << 120) | 1));
        let mut powers = Box::new(Zeroizing::new([[0; 16]; POWERS + MARGIN]));
        let mut power = doubled;
        for slot in powers[..POWERS].iter_mut().rev() {
            *slot = power.to_le_bytes();
            let Aesni(()) = token;
            // SAFETY: the token proves that the instructions exist.
            power = unsafe { multiply(power, doubled) };
        }
        Self { powers }
    }

    /// The powers for `count` blocks, 1 to [`POWERS`], the first to be multiplied with the highest; at least
    /// [`MARGIN`] zero blocks follow.
    #[inline(always)]
    pub(crate) fn for_blocks(&self, count: usize) -> &[[u8; 16]] {
        &self.powers[POWERS - count..]
    }

    /// A block times the key, in the order in which kernels add it to the next block.
    pub(crate) fn times(&self, token: Aesni, block: [u8; 16]) -> u128 {
        let Aesni(()) = token;
        // SAFETY: the token proves that the instructions exist.
        unsafe {
            multiply(
                u128::from_be_bytes(block),
                u128::from_le_bytes(*self.first()),
            )
        }
    }

    /// The key itself.
    #[inline(always)]
    pub(crate) fn first(&self) -> &[u8; 16] {
        &self.powers[POWERS - 1]
    }
}

/// A sum of products before its reduction, in vectors of which the low 128 bits count or all quarters do.
#[derive(Copy, Clone)]
pub(crate) struct Sum<V> {
    pub(crate) low: V,
    pub(crate) middle: V,
    pub(crate) high: V,
}

impl Sum<__m128i> {
    #[inline]
    #[target_feature(enable = "sse4.1")]
    pub(crate) fn zero() -> Self {
        let zero = _mm_setzero_si128();
        Self {
            low: zero,
            middle: zero,
            high: zero,
        }
    }

    /// Adds the product of two polynomials.
    #[inline]
    #[target_feature(enable = "sse4.1,pclmulqdq")]
    pub(crate) fn add(&mut self, a: __m128i, b: __m128i) {
        self.low = _mm_xor_si128(self.low, _mm_clmulepi64_si128::<0x00>(a, b));
        self.high = _mm_xor_si128(self.high, _mm_clmulepi64_si128::<0x11>(a, b));
        let middle = _mm_xor_si128(
            _mm_clmulepi64_si128::<0x01>(a, b),
            _mm_clmulepi64_si128::<0x10>(a, b),
        );
        self.middle = _mm_xor_si128(self.middle, middle);
    }

    /// The sum divided by x^128 and reduced.
    #[inline]
    #[target_feature(enable = "sse4.1,pclmulqdq")]
    pub(crate) fn reduce(self) -> __m128i {
        let low = _mm_xor_si128(self.low, _mm_slli_si128::<8>(self.middle));
        let high = _mm_xor_si128(self.high, _mm_srli_si128::<8>(self.middle));
        // The polynomial without x^128 and 1, shifted down by 64.
        let poly = _mm_set_epi64x(0, (0xC2u64 << 56).cast_signed());
        let low = _mm_xor_si128(
            _mm_shuffle_epi32::<0x4E>(low),
            _mm_clmulepi64_si128::<0x00>(low, poly),
        );
        let low = _mm_xor_si128(
            _mm_shuffle_epi32::<0x4E>(low),
            _mm_clmulepi64_si128::<0x00>(low, poly),
        );
        _mm_xor_si128(low, high)
    }
}

/// The product in POLYVAL's field.
#[target_feature(enable = "sse4.1,pclmulqdq")]
fn multiply(a: u128, b: u128) -> u128 {
    let mut sum = Sum::zero();
    sum.add(load(&a.to_le_bytes()), load(&b.to_le_bytes()));
    let mut bytes = [0; 16];
    // SAFETY: writes the 16 bytes of `bytes`, at any alignment.
    unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), sum.reduce()) };
    u128::from_le_bytes(bytes)
}

#[inline]
#[target_feature(enable = "sse4.1")]
pub(crate) fn load(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: reads the 16 bytes of `bytes`, at any alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

/// A block with its bytes in reverse order.
#[inline]
#[target_feature(enable = "ssse3,sse4.1")]
pub(crate) fn reverse(block: __m128i) -> __m128i {
    let order = _mm_set_epi64x(0x0001_0203_0405_0607, 0x0809_0A0B_0C0D_0E0F);
    _mm_shuffle_epi8(block, order)
}
