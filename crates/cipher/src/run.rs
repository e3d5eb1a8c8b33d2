//! The shape of a run: where its datagrams are.

/// The datagram length that `segment` stands for: never 0, never more than the run unless that is empty.
#[inline]
pub(crate) fn stride(run_len: usize, segment: usize) -> usize {
    if segment == 0 || segment > run_len {
        run_len.max(1)
    } else {
        segment
    }
}

/// The datagrams of a run, in order.
#[inline]
pub(crate) fn datagrams(run: &mut [u8], segment: usize) -> core::slice::ChunksMut<'_, u8> {
    let stride = stride(run.len(), segment);
    run.chunks_mut(stride)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes() {
        let lens = |len: usize, segment: usize| -> Vec<usize> {
            datagrams(&mut vec![0; len], segment)
                .map(|d| d.len())
                .collect()
        };
        assert_eq!(lens(10, 4), [4, 4, 2]);
        assert_eq!(lens(8, 4), [4, 4]);
        assert_eq!(lens(8, 0), [8]);
        assert_eq!(lens(8, usize::MAX), [8]);
        assert_eq!(lens(3, 4), [3]);
        assert!(lens(0, 4).is_empty());
        assert!(lens(0, 0).is_empty());
    }
}
