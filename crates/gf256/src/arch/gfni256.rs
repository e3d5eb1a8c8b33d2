//! x86-64 with GFNI and AVX2: 32 products per instruction.
#![allow(unsafe_code)]

use core::arch::x86_64::{
    __m256i, _mm256_gf2p8affine_epi64_epi8, _mm256_loadu_si256, _mm256_set1_epi64x,
    _mm256_setzero_si256, _mm256_storeu_si256, _mm256_xor_si256,
};

use super::generic::{self, Vector};
use super::{Job, Kernel, Method};

static METHOD: Method = Method {
    name: "gfni-avx2",
    // Of 16 registers 12 hold sums, three inputs and a factor.
    rows: 6,
    affine: true,
    run,
};

/// The kernel, if the CPU has what it needs.
pub(super) fn kernel() -> Option<Kernel> {
    let supported = is_x86_feature_detected!("gfni") && is_x86_feature_detected!("avx2");
    supported.then_some(Kernel(&METHOD))
}

#[target_feature(enable = "gfni,avx2")]
unsafe fn run(job: Job<'_>) {
    // SAFETY: the instruction set is enabled, the row counts match.
    unsafe {
        match job.rows {
            1 => generic::run::<Affine, 1, 4>(job),
            2 => generic::run::<Affine, 2, 4>(job),
            3 => generic::run::<Affine, 3, 3>(job),
            4 => generic::run::<Affine, 4, 2>(job),
            5 => generic::run::<Affine, 5, 2>(job),
            6 => generic::run::<Affine, 6, 2>(job),
            _ => super::scalar::run(job),
        }
    }
}

/// 32 bytes, multiplied by bit matrices.
#[derive(Copy, Clone)]
struct Affine(__m256i);

// SAFETY: 32 bytes.
unsafe impl Vector for Affine {
    const BYTES: usize = 32;
    type Factor = __m256i;
    type Input = Self;

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
    unsafe fn factor(job: &Job<'_>, index: usize) -> __m256i {
        // SAFETY: as the trait demands of callers; the bit matrices are there because `METHOD` asks for them.
        unsafe { _mm256_set1_epi64x(job.affine.get_unchecked(index).cast_signed()) }
    }

    #[inline(always)]
    unsafe fn input(self) -> Self {
        self
    }

    #[inline(always)]
    unsafe fn add_product(self, input: Self, factor: __m256i) -> Self {
        // SAFETY: as the trait demands of callers.
        unsafe {
            let product = _mm256_gf2p8affine_epi64_epi8::<0>(input.0, factor);
            Self(_mm256_xor_si256(self.0, product))
        }
    }
}
