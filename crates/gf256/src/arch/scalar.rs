//! Portable kernel: one table row per factor. What the others are tested against.

use super::{Job, Method};
use crate::field::PRODUCTS;

pub(super) static METHOD: Method = Method {
    name: "scalar",
    rows: 8,
    affine: false,
    run,
};

/// Does the job.
pub(super) fn run(job: Job<'_>) {
    let Job {
        rows,
        factors,
        sources,
        sinks,
        len,
        ..
    } = job;
    for row in 0..rows {
        let sink = &mut sinks.bytes[sinks.first + row * sinks.stride..][..len];
        sink.fill(0);
        for (column, &start) in sources.starts.iter().enumerate() {
            let products = &PRODUCTS[usize::from(factors[column * rows + row])];
            let source = &sources.bytes[start..][..len];
            for (out, &byte) in sink.iter_mut().zip(source) {
                *out ^= products[usize::from(byte)];
            }
        }
    }
}
