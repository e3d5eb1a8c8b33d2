//! x86-64 with AVX2: 32 products per two look-ups by half bytes.
#![allow(unsafe_code)]

use core::arch::x86_64::{
    __m256i, _mm_loadu_si128, _mm256_and_si256, _mm256_broadcastsi128_si256, _mm256_loadu_si256,
    _mm256_set1_epi8, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_srli_epi64,
    _mm256_storeu_si256, _mm256_xor_si256,
};

use super::generic::{self, NIBBLES, Vector};
use super::{Job, Kernel, Method};

static METHOD: Method = Method {
    name: "avx2",
    // Of 16 registers 8 hold sums, 4 the halves of inputs, 2 a factor's tables.
    rows: 4,
    affine: false,
    run,
};

/// The kernel, if the CPU has what it needs.
pub(super) fn kernel() -> Option<Kernel> {
    is_x86_feature_detected!("avx2").then_some(Kernel(&METHOD))
}

#[target_feature(enable = "avx2")]
unsafe fn run(job: Job<'_>) {
    // SAFETY: the instruction set is enabled, the row counts match.
    unsafe {
        match job.rows {
            1 => generic::run::<Halves, 1, 2>(job),
            2 => generic::run::<Halves, 2, 2>(job),
            3 => generic::run::<Halves, 3, 2>(job),
            4 => generic::run::<Halves, 4, 2>(job),
            _ => super::scalar::run(job),
        }
    }
}

/// 32 bytes, multiplied by look-ups.
#[derive(Copy, Clone)]
struct Halves(__m256i);

// SAFETY: 32 bytes.
unsafe impl Vector for Halves {
    const BYTES: usize = 32;
    /// Products of low and of high halves.
    type Factor = (__m256i, __m256i);
    /// Low and high halves.
    type Input = (__m256i, __m256i);

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: as the trait demands of callers.
        unsafe { Self(_mm256_setzero_si256()) }
    }

    #[inline(always)]
    unsafe fn load(at: *const u8) -> Self {
        // SAFETY: as the trait demands of callers.
        unsafe { Self(_mm256_loadu_si256(at.cast())) }
    }

    #[inline(always)]
    unsafe fn store(self, at: *mut u8) {
        // SAFETY: as the trait demands of callers.
        unsafe { _mm256_storeu_si256(at.cast(), self.0) }
    }

    #[inline(always)]
    unsafe fn factor(job: &Job<'_>, index: usize) -> Self::Factor {
        // SAFETY: as the trait demands of callers; a table row has 32 bytes.
        unsafe {
            let factor = *job.factors.get_unchecked(index);
            let products = NIBBLES[usize::from(factor)].as_ptr();
            let half =
                |at: usize| _mm256_broadcastsi128_si256(_mm_loadu_si128(products.add(at).cast()));
            (half(0), half(16))
        }
    }

    #[inline(always)]
    unsafe fn input(self) -> Self::Input {
        // SAFETY: as the trait demands of callers.
        unsafe {
            let low = _mm256_set1_epi8(0x0f);
            let high = _mm256_srli_epi64::<4>(self.0);
            (_mm256_and_si256(self.0, low), _mm256_and_si256(high, low))
        }
    }

    #[inline(always)]
    unsafe fn add_product(self, input: Self::Input, factor: Self::Factor) -> Self {
        // SAFETY: as the trait demands of callers.
        unsafe {
            let low = _mm256_shuffle_epi8(factor.0, input.0);
            let high = _mm256_shuffle_epi8(factor.1, input.1);
            Self(_mm256_xor_si256(_mm256_xor_si256(self.0, low), high))
        }
    }
}
