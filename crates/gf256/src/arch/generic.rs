//! The loop that all vector kernels share, over what one vector register of an instruction set can do.
//!
//! Everything here is inlined into functions of `arch/<isa>.rs` that enable the instruction set; nothing else may
//! call it.
#![allow(unsafe_code)]

use super::Job;

/// A vector register.
///
/// # Safety
/// `BYTES` is the size of what `load` reads and `store` writes, and at most 64. All methods need the instruction
/// set of the implementing type.
pub(super) unsafe trait Vector: Copy {
    /// Its size.
    const BYTES: usize;
    /// A factor as this instruction set multiplies by it.
    type Factor: Copy;
    /// An input as this instruction set multiplies it.
    type Input: Copy;

    /// All zero.
    unsafe fn zero() -> Self;
    /// Reads [`Self::BYTES`] from `at`, which need not be aligned.
    unsafe fn load(at: *const u8) -> Self;
    /// Writes [`Self::BYTES`] to `at`, which need not be aligned.
    unsafe fn store(self, at: *mut u8);
    /// The factor at `index` of the job, which must have one there.
    unsafe fn factor(job: &Job<'_>, index: usize) -> Self::Factor;
    /// Does once per input what the products with all factors share.
    unsafe fn input(self) -> Self::Input;
    /// `self` plus `factor` times `input`.
    unsafe fn add_product(self, input: Self::Input, factor: Self::Factor) -> Self;

    /// Reads `len` bytes, fewer than [`Self::BYTES`].
    #[inline(always)]
    unsafe fn load_part(at: *const u8, len: usize) -> Self {
        let mut whole = [0u8; 64];
        // SAFETY: `len` bytes may be read by the caller's promise, and fit.
        unsafe {
            core::ptr::copy_nonoverlapping(at, whole.as_mut_ptr(), len);
            Self::load(whole.as_ptr())
        }
    }

    /// Writes the first `len` bytes, fewer than [`Self::BYTES`].
    #[inline(always)]
    unsafe fn store_part(self, at: *mut u8, len: usize) {
        let mut whole = [0u8; 64];
        // SAFETY: `len` bytes may be written by the caller's promise; a vector fits.
        unsafe {
            self.store(whole.as_mut_ptr());
            core::ptr::copy_nonoverlapping(whole.as_ptr(), at, len);
        }
    }
}

/// Does a job of `R` rows, `W` vectors at a time.
///
/// # Safety
/// The CPU must support `V`, and the job must have `R` rows.
#[inline(always)]
pub(super) unsafe fn run<V: Vector, const R: usize, const W: usize>(mut job: Job<'_>) {
    debug_assert_eq!(job.rows, R);
    let len = job.len;
    // SAFETY: the caller vouches for the instruction set, `Job` for all rows being `len` bytes long.
    unsafe {
        if len < V::BYTES {
            return short::<V, R>(&mut job);
        }
        let mut at = 0;
        while at + W * V::BYTES <= len {
            columns::<V, R, W>(&mut job, at);
            at += W * V::BYTES;
        }
        while at + V::BYTES <= len {
            columns::<V, R, 1>(&mut job, at);
            at += V::BYTES;
        }
        if at < len {
            // The last vector once more, from further back: it computes some bytes again that it already wrote.
            columns::<V, R, 1>(&mut job, len - V::BYTES);
        }
    }
}

/// The columns of `W` vectors at `at`.
///
/// # Safety
/// As [`run`]; `at` plus the vectors must not exceed the length of the job.
#[inline(always)]
unsafe fn columns<V: Vector, const R: usize, const W: usize>(job: &mut Job<'_>, at: usize) {
    // SAFETY: the offsets lie within the rows by the caller's promise, the factors by the checks of `Job`.
    unsafe {
        let mut sums = [[V::zero(); W]; R];
        let bytes = job.sources.bytes.as_ptr();
        for (column, &start) in job.sources.starts.iter().enumerate() {
            let source = bytes.add(start + at);
            let mut inputs = [V::zero().input(); W];
            for (w, input) in inputs.iter_mut().enumerate() {
                *input = V::load(source.add(w * V::BYTES)).input();
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let factor = V::factor(job, column * R + r);
                for (sum, &input) in sums.iter_mut().zip(&inputs) {
                    *sum = sum.add_product(input, factor);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            let sink = job.sink(r).add(at);
            for (w, sum) in sums.iter().enumerate() {
                sum.store(sink.add(w * V::BYTES));
            }
        }
    }
}

/// Rows shorter than a vector.
///
/// # Safety
/// As [`run`].
#[inline(always)]
unsafe fn short<V: Vector, const R: usize>(job: &mut Job<'_>) {
    let len = job.len;
    // SAFETY: as in `columns`, and no more than `len` bytes are touched.
    unsafe {
        let mut sums = [V::zero(); R];
        let bytes = job.sources.bytes.as_ptr();
        for (column, &start) in job.sources.starts.iter().enumerate() {
            let input = V::load_part(bytes.add(start), len).input();
            for (r, sum) in sums.iter_mut().enumerate() {
                *sum = sum.add_product(input, V::factor(job, column * R + r));
            }
        }
        for (r, sum) in sums.iter().enumerate() {
            sum.store_part(job.sink(r), len);
        }
    }
}

/// Low and high halves of products: `NIBBLES[f][n]` is `f * n`, `NIBBLES[f][16 + n]` is `f * 16n`, for kernels that
/// look products up by half bytes.
pub(super) static NIBBLES: [[u8; 32]; 256] = nibbles();

const fn nibbles() -> [[u8; 32]; 256] {
    let mut table = [[0; 32]; 256];
    let mut factor = 0;
    while factor < 256 {
        let mut n = 0;
        while n < 16 {
            table[factor][n] = crate::field::mul_slow(factor as u8, n as u8);
            table[factor][16 + n] = crate::field::mul_slow(factor as u8, (n as u8) << 4);
            n += 1;
        }
        factor += 1;
    }
    table
}
