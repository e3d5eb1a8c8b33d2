//! x86-64 with SSSE3: 16 products per two look-ups by half bytes.
#![allow(unsafe_code)]

use core::arch::x86_64::{
    __m128i, _mm_and_si128, _mm_loadu_si128, _mm_set1_epi8, _mm_setzero_si128, _mm_shuffle_epi8,
    _mm_srli_epi64, _mm_storeu_si128, _mm_xor_si128,
};

use super::generic::{self, NIBBLES, Vector};
use super::{Job, Kernel, Method};

static METHOD: Method = Method {
    name: "ssse3",
    // Of 16 registers 8 hold sums, 4 the halves of inputs, 2 a factor's tables.
    rows: 4,
    affine: false,
    run,
};

/// The kernel, if the CPU has what it needs.
pub(super) fn kernel() -> Option<Kernel> {
    is_x86_feature_detected!("ssse3").then_some(Kernel(&METHOD))
}

#[target_feature(enable = "ssse3")]
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

/// 16 bytes, multiplied by look-ups.
#[derive(Copy, Clone)]
struct Halves(__m128i);

// SAFETY: 16 bytes.
unsafe impl Vector for Halves {
    const BYTES: usize = 16;
    /// Products of low and of high halves.
    type Factor = (__m128i, __m128i);
    /// Low and high halves.
    type Input = (__m128i, __m128i);

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: as the trait demands of callers.
        unsafe { Self(_mm_setzero_si128()) }
    }

    #[inline(always)]
    unsafe fn load(at: *const u8) -> Self {
        // SAFETY: as the trait demands of callers.
        unsafe { Self(_mm_loadu_si128(at.cast())) }
    }

    #[inline(always)]
    unsafe fn store(self, at: *mut u8) {
        // SAFETY: as the trait demands of callers.
        unsafe { _mm_storeu_si128(at.cast(), self.0) }
    }

    #[inline(always)]
    unsafe fn factor(job: &Job<'_>, index: usize) -> Self::Factor {
        // SAFETY: as the trait demands of callers; a table row has 32 bytes.
        unsafe {
            let factor = *job.factors.get_unchecked(index);
            let products = NIBBLES[usize::from(factor)].as_ptr();
            let half = |at: usize| _mm_loadu_si128(products.add(at).cast());
            (half(0), half(16))
        }
    }

    #[inline(always)]
    unsafe fn input(self) -> Self::Input {
        // SAFETY: as the trait demands of callers.
        unsafe {
            let low = _mm_set1_epi8(0x0f);
            let high = _mm_srli_epi64::<4>(self.0);
            (_mm_and_si128(self.0, low), _mm_and_si128(high, low))
        }
    }

    #[inline(always)]
    unsafe fn add_product(self, input: Self::Input, factor: Self::Factor) -> Self {
        // SAFETY: as the trait demands of callers.
        unsafe {
            let low = _mm_shuffle_epi8(factor.0, input.0);
            let high = _mm_shuffle_epi8(factor.1, input.1);
            Self(_mm_xor_si128(_mm_xor_si128(self.0, low), high))
        }
    }
}
