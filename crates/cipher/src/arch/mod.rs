//! Kernels for particular CPUs: the only unsafe code of the crate.
//!
//! A kernel is reached through a token type that can be made only where its instructions exist. Their public
//! functions are safe: they check all bounds before they turn slices into pointers.

#![allow(unsafe_code)]

#[cfg(target_arch = "aarch64")]
pub(crate) mod aarch64;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod schedule;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86_64;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use core::ops::Range;

/// Checks what a kernel for CFB encryption relies on: `range` consists of whole blocks, lies within `run` for each
/// of `count` packets `stride` bytes apart, and has a block in front of it unless it begins at 0.
///
/// # Panics
/// When that is not so: a mistake of the caller within this crate, which must not become an access out of bounds.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[inline]
fn check_chain(run: &[u8], stride: usize, count: usize, range: &Range<usize>, block: usize) {
    assert!(range.start.is_multiple_of(block) && range.end.is_multiple_of(block));
    assert!(count > 0 && range.start <= range.end && range.end <= run.len());
    let last = (count - 1).checked_mul(stride);
    assert!(last.is_some_and(|last| last <= run.len() - range.end));
}

/// Gives `f` a full group that begins with `rest`, which is shorter, and takes those bytes back; not called if
/// there are none.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[inline]
fn tail_blocks<const N: usize>(rest: &mut [u8], f: impl FnOnce(&mut [u8; N])) {
    if rest.is_empty() {
        return;
    }
    let mut group = [0; N];
    group[..rest.len()].copy_from_slice(rest);
    f(&mut group);
    rest.copy_from_slice(&group[..rest.len()]);
}
