//! AArch64 with NEON: 16 products per two look-ups by half bytes.
#![allow(unsafe_code)]

use core::arch::aarch64::{
    uint8x16_t, vandq_u8, vdupq_n_u8, veorq_u8, vld1q_u8, vqtbl1q_u8, vshrq_n_u8, vst1q_u8,
};

use super::generic::{self, NIBBLES, Vector};
use super::{Job, Kernel, Method};

static METHOD: Method = Method {
    name: "neon",
    // Of 32 registers 16 hold sums, 8 the halves of inputs, 2 a factor's tables.
    rows: 8,
    affine: false,
    run,
};

/// The kernel, if the CPU has what it needs.
pub(super) fn kernel() -> Option<Kernel> {
    std::arch::is_aarch64_feature_detected!("neon").then_some(Kernel(&METHOD))
}

#[target_feature(enable = "neon")]
unsafe fn run(job: Job<'_>) {
    // SAFETY: the instruction set is enabled, the row counts match.
    unsafe {
        match job.rows {
            1 => generic::run::<Halves, 1, 4>(job),
            2 => generic::run::<Halves, 2, 4>(job),
            3 => generic::run::<Halves, 3, 4>(job),
            4 => generic::run::<Halves, 4, 4>(job),
            5 => generic::run::<Halves, 5, 2>(job),
            6 => generic::run::<Halves, 6, 2>(job),
            7 => generic::run::<Halves, 7, 2>(job),
            8 => generic::run::<Halves, 8, 2>(job),
            _ => super::scalar::run(job),
        }
    }
}

/// 16 bytes, multiplied by look-ups.
#[derive(Copy, Clone)]
struct Halves(uint8x16_t);

// SAFETY: 16 bytes.
unsafe impl Vector for Halves {
    const BYTES: usize = 16;
    /// Products of low and of high halves.
    type Factor = (uint8x16_t, uint8x16_t);
    /// Low and high halves.
    type Input = (uint8x16_t, uint8x16_t);

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: as the trait demands of callers.
        unsafe { Self(vdupq_n_u8(0)) }
    }

    #[inline(always)]
    unsafe fn load(at: *const u8) -> Self {
        // SAFETY: as the trait demands of callers.
        unsafe { Self(vld1q_u8(at)) }
    }

    #[inline(always)]
    unsafe fn store(self, at: *mut u8) {
        // SAFETY: as the trait demands of callers.
        unsafe { vst1q_u8(at, self.0) }
    }

    #[inline(always)]
    unsafe fn factor(job: &Job<'_>, index: usize) -> Self::Factor {
        // SAFETY: as the trait demands of callers; a table row has 32 bytes.
        unsafe {
            let factor = *job.factors.get_unchecked(index);
            let products = NIBBLES[usize::from(factor)].as_ptr();
            (vld1q_u8(products), vld1q_u8(products.add(16)))
        }
    }

    #[inline(always)]
    unsafe fn input(self) -> Self::Input {
        // SAFETY: as the trait demands of callers.
        unsafe { (vandq_u8(self.0, vdupq_n_u8(0x0f)), vshrq_n_u8::<4>(self.0)) }
    }

    #[inline(always)]
    unsafe fn add_product(self, input: Self::Input, factor: Self::Factor) -> Self {
        // SAFETY: as the trait demands of callers.
        unsafe {
            let low = vqtbl1q_u8(factor.0, input.0);
            let high = vqtbl1q_u8(factor.1, input.1);
            Self(veorq_u8(veorq_u8(self.0, low), high))
        }
    }
}
