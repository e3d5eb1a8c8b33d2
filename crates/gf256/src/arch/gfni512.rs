//! x86-64 with GFNI and AVX-512: 64 products per instruction.
#![allow(unsafe_code)]

use core::arch::x86_64::{
    __m512i, _mm512_gf2p8affine_epi64_epi8, _mm512_loadu_si512, _mm512_mask_storeu_epi8,
    _mm512_maskz_loadu_epi8, _mm512_set1_epi64, _mm512_setzero_si512, _mm512_storeu_si512,
    _mm512_xor_si512,
};

use super::generic::{self, Vector};
use super::{Job, Kernel, Method};

static METHOD: Method = Method {
    name: "gfni-avx512",
    // Of 32 registers 16 hold sums, the rest inputs and factors.
    rows: 8,
    affine: true,
    run,
};

/// The kernel, if the CPU has what it needs.
pub(super) fn kernel() -> Option<Kernel> {
    let supported = is_x86_feature_detected!("gfni")
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw");
    supported.then_some(Kernel(&METHOD))
}

#[target_feature(enable = "gfni,avx512f,avx512bw")]
unsafe fn run(job: Job<'_>) {
    // SAFETY: the instruction set is enabled, the row counts match.
    unsafe {
        match job.rows {
            1 => generic::run::<__m512i, 1, 4>(job),
            2 => generic::run::<__m512i, 2, 4>(job),
            3 => generic::run::<__m512i, 3, 4>(job),
            4 => generic::run::<__m512i, 4, 2>(job),
            5 => generic::run::<__m512i, 5, 2>(job),
            6 => generic::run::<__m512i, 6, 2>(job),
            7 => generic::run::<__m512i, 7, 2>(job),
            8 => generic::run::<__m512i, 8, 2>(job),
            _ => super::scalar::run(job),
        }
    }
}

// SAFETY: 64 bytes.
unsafe impl Vector for __m512i {
    const BYTES: usize = 64;
    type Factor = Self;
    type Input = Self;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: as the trait demands of callers.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    unsafe fn load(at: *const u8) -> Self {
        // SAFETY: as the trait demands of callers.
        unsafe { _mm512_loadu_si512(at.cast()) }
    }

    #[inline(always)]
    unsafe fn store(self, at: *mut u8) {
        // SAFETY: as the trait demands of callers.
        unsafe { _mm512_storeu_si512(at.cast(), self) }
    }

    #[inline(always)]
    unsafe fn factor(job: &Job<'_>, index: usize) -> Self {
        // SAFETY: as the trait demands of callers; the bit matrices are there because `METHOD` asks for them.
        unsafe { _mm512_set1_epi64(job.affine.get_unchecked(index).cast_signed()) }
    }

    #[inline(always)]
    unsafe fn input(self) -> Self {
        self
    }

    #[inline(always)]
    unsafe fn add_product(self, input: Self, factor: Self) -> Self {
        // SAFETY: as the trait demands of callers.
        unsafe { _mm512_xor_si512(self, _mm512_gf2p8affine_epi64_epi8::<0>(input, factor)) }
    }

    #[inline(always)]
    unsafe fn load_part(at: *const u8, len: usize) -> Self {
        // SAFETY: as the trait demands of callers; masked bytes are not read.
        unsafe { _mm512_maskz_loadu_epi8((1 << len) - 1, at.cast()) }
    }

    #[inline(always)]
    unsafe fn store_part(self, at: *mut u8, len: usize) {
        // SAFETY: as the trait demands of callers; masked bytes are not written.
        unsafe { _mm512_mask_storeu_epi8(at.cast(), (1 << len) - 1, self) }
    }
}
