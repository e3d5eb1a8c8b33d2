//! A matrix made ready for a kernel, and the rows of bytes that it is applied to.

use crate::arch::{Job, Kernel};

/// Rows to read: row `i` begins at `starts[i]` of `bytes`.
///
/// Rows are offsets into one buffer, not slices, because their owners (a group of packets, a pool) keep them like
/// that: nothing has to be collected before a call.
#[derive(Copy, Clone, Debug)]
pub struct Rows<'a> {
    /// Where all rows lie.
    pub bytes: &'a [u8],
    /// Where each begins.
    pub starts: &'a [usize],
}

/// Rows to write: row `i` begins at `first + i * stride` of `bytes`.
#[derive(Debug)]
pub struct RowsMut<'a> {
    /// Where all rows lie. What is between the rows stays as it is.
    pub bytes: &'a mut [u8],
    /// Where the first begins.
    pub first: usize,
    /// From the beginning of a row to that of the next.
    pub stride: usize,
}

/// A matrix over the field, prepared for one kernel.
#[derive(Clone, Debug)]
pub struct Plan {
    kernel: Kernel,
    rows: usize,
    columns: usize,
    /// Rows are computed in blocks of nearly equal height, as many rows at once as the kernel has registers for. A
    /// block's factors lie together, column by column: the order in which a kernel needs them.
    factors: Vec<u8>,
    /// The same as 8x8 bit matrices, for kernels that multiply by those; else empty.
    affine: Vec<u64>,
}

impl Plan {
    /// The matrix without rows and columns.
    #[must_use]
    pub fn new(kernel: Kernel) -> Self {
        Self {
            kernel,
            rows: 0,
            columns: 0,
            factors: Vec::new(),
            affine: Vec::new(),
        }
    }

    /// Becomes the matrix with `factor(row, column)`, reusing memory.
    pub fn fill(&mut self, rows: usize, columns: usize, factor: impl Fn(usize, usize) -> u8) {
        (self.rows, self.columns) = (rows, columns);
        self.factors.clear();
        for block in self.kernel.blocks(rows) {
            for column in 0..columns {
                self.factors
                    .extend(block.clone().map(|row| factor(row, column)));
            }
        }
        self.affine.clear();
        if self.kernel.wants_affine() {
            let matrices = self.factors.iter().map(|&f| crate::arch::affine(f));
            self.affine.extend(matrices);
        }
    }

    /// Rows of the matrix: outputs.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of the matrix: inputs.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The kernel that does the work.
    #[must_use]
    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// Multiplies: the first `len` bytes of each row of `sinks` become the matrix times those of `sources`. What
    /// was in them before does not matter.
    ///
    /// # Panics
    /// When `sources` has not as many rows as the matrix has columns, a row does not lie within its buffer, or
    /// `sinks` overlap.
    pub fn apply(&self, sources: Rows<'_>, sinks: RowsMut<'_>, len: usize) {
        assert_eq!(sources.starts.len(), self.columns, "one row per column");
        let RowsMut {
            bytes,
            first,
            stride,
        } = sinks;
        let mut done = 0;
        for block in self.kernel.blocks(self.rows) {
            let factors = done * self.columns..(done + block.len()) * self.columns;
            let job = Job::new(
                block.len(),
                &self.factors[factors.clone()],
                self.affine.get(factors).unwrap_or_default(),
                sources,
                RowsMut {
                    bytes: &mut *bytes,
                    first: first + done * stride,
                    stride,
                },
                len,
            );
            self.kernel.run(job);
            done += block.len();
        }
    }
}
