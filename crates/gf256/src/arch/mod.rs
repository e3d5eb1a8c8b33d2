//! Kernels: the multiplication of a few rows by byte columns, per instruction set.
//!
//! A kernel computes a block of output rows at once: all outputs of one stretch of bytes stay in registers while
//! each input is read once. A [`Kernel`] can only be had where the CPU supports it.

use core::fmt;
use core::ops::Range;

use crate::plan::{Rows, RowsMut};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod generic;
#[cfg(target_arch = "x86_64")]
mod gfni256;
#[cfg(target_arch = "x86_64")]
mod gfni512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod ssse3;

/// One way to multiply, proven to work on this CPU.
#[derive(Copy, Clone)]
pub struct Kernel(&'static Method);

/// What a kernel is. Only the modules of kernels make a [`Kernel`] of theirs, after asking the CPU.
struct Method {
    name: &'static str,
    /// Most rows that it computes at once.
    rows: usize,
    /// Whether it takes its factors as bit matrices.
    affine: bool,
    /// Does a job of at most `rows` rows.
    ///
    /// # Safety
    /// The CPU must support it.
    run: unsafe fn(Job<'_>),
}

impl Kernel {
    /// The fastest that this CPU supports.
    #[must_use]
    pub fn best() -> Self {
        Self::available().next().unwrap_or(Self::scalar())
    }

    /// The one that works everywhere, in portable code.
    #[must_use]
    pub const fn scalar() -> Self {
        Self(&scalar::METHOD)
    }

    /// All that this CPU supports, fastest first: for tests and measurements that force each.
    pub fn available() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let vector = [
            gfni512::kernel,
            gfni256::kernel,
            avx2::kernel,
            ssse3::kernel,
        ];
        #[cfg(target_arch = "aarch64")]
        let vector = [neon::kernel];
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let vector: [fn() -> Option<Self>; 0] = [];
        vector
            .into_iter()
            .filter_map(|kernel| kernel())
            .chain([Self::scalar()])
    }

    /// Its name, for status, measurements and tests.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.0.name
    }

    /// `rows` in blocks that it can compute at once, which differ by at most one row in height.
    pub(crate) fn blocks(self, rows: usize) -> impl Iterator<Item = Range<usize>> {
        let count = rows.div_ceil(self.0.rows).max(1);
        (0..count).map(move |i| rows * i / count..rows * (i + 1) / count)
    }

    /// Whether it takes its factors as bit matrices.
    pub(crate) const fn wants_affine(self) -> bool {
        self.0.affine
    }

    /// Does the job.
    #[allow(unsafe_code)]
    pub(crate) fn run(self, job: Job<'_>) {
        assert!(job.rows <= self.0.rows, "too many rows for a block");
        assert!(!self.0.affine || job.affine.len() == job.factors.len());
        // SAFETY: this kernel exists, so its module found that the CPU supports it.
        unsafe { (self.0.run)(job) }
    }
}

impl PartialEq for Kernel {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Kernel {}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Default for Kernel {
    fn default() -> Self {
        Self::best()
    }
}

/// One block of rows of one multiplication, checked: kernels rely on what [`Job::new`] asserts.
pub(crate) struct Job<'a> {
    rows: usize,
    factors: &'a [u8],
    affine: &'a [u64],
    sources: Rows<'a>,
    sinks: RowsMut<'a>,
    len: usize,
}

impl<'a> Job<'a> {
    /// `factors`, and `affine` unless it is empty, hold the `rows` factors of each source in turn.
    ///
    /// # Panics
    /// Unless every row lies within its buffer and sinks do not overlap.
    pub(crate) fn new(
        rows: usize,
        factors: &'a [u8],
        affine: &'a [u64],
        sources: Rows<'a>,
        sinks: RowsMut<'a>,
        len: usize,
    ) -> Self {
        assert_eq!(factors.len(), rows * sources.starts.len());
        let last = sources.bytes.len().checked_sub(len);
        assert!(
            last.is_some_and(|last| sources.starts.iter().all(|&s| s <= last)),
            "a source exceeds its buffer"
        );
        if rows > 0 {
            assert!(rows == 1 || sinks.stride >= len, "sinks overlap");
            let end = (rows - 1)
                .checked_mul(sinks.stride)
                .and_then(|offset| offset.checked_add(sinks.first)?.checked_add(len));
            assert!(
                end.is_some_and(|end| end <= sinks.bytes.len()),
                "a sink exceeds its buffer"
            );
        }
        Self {
            rows,
            factors,
            affine,
            sources,
            sinks,
            len,
        }
    }

    /// Where row `row` of the sinks begins.
    ///
    /// # Safety
    /// There must be such a row.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    #[allow(unsafe_code)]
    #[inline(always)]
    unsafe fn sink(&mut self, row: usize) -> *mut u8 {
        let offset = self.sinks.first + row * self.sinks.stride;
        // SAFETY: `new` checked that all rows lie within the buffer.
        unsafe { self.sinks.bytes.as_mut_ptr().add(offset) }
    }
}

/// The multiplication by `factor` as the bit matrix that `gf2p8affineqb` takes: byte 7-i holds the mask of input
/// bits whose parity is output bit i.
pub(crate) fn affine(factor: u8) -> u64 {
    static MATRICES: [u64; 256] = affine_matrices();
    MATRICES[usize::from(factor)]
}

const fn affine_matrices() -> [u64; 256] {
    let mut table = [0; 256];
    let mut factor = 0;
    while factor < 256 {
        let mut input_bit = 0;
        while input_bit < 8 {
            let product = crate::field::mul_slow(factor as u8, 1 << input_bit);
            let mut output_bit = 0;
            while output_bit < 8 {
                if product >> output_bit & 1 != 0 {
                    table[factor] |= 1 << (8 * (7 - output_bit) + input_bit);
                }
                output_bit += 1;
            }
            input_bit += 1;
        }
        factor += 1;
    }
    table
}
