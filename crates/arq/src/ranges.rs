//! Acknowledgements as ranges, between two ends that find losses by time.
//!
//! KCP says once of each segment behind a gap that it has arrived, in 24 bytes; when that gets lost, the segment is sent
//! again. Two Fulmar ends that know of each other ([`crate::Kcp::send_ack_ranges`]) put into an ACK what has arrived of late:
//! its data are ranges, so that each is said in several datagrams and takes four bytes.
//!
//! ```text
//!   ACK header: una = U, sn and ts of the latest arrival, len = 4 n
//!   n times:    gap u16 | count u16        big or little endian, as the header
//! ```
//! The first range ends with the highest segment that has arrived: `gap` is how far behind `U` that is, `count` how many there are
//! down from it. Each further one begins `gap` segments below the end of the one before and goes on downwards for `count`. All lie above `U`.
//! Who does not know of it takes such an ACK for an ordinary one: KCP reads past the data of an ACK (docs/spec/kcptun.md, section 7.4).

use fulmar_wire::kcp::Format;
use fulmar_wire::seq::Seq;

/// Most ranges in one acknowledgement: with a loss in twenty, what a thousand segments need.
pub(crate) const MOST: usize = 64;
/// Bytes of a range.
pub(crate) const LEN: usize = 4;
/// Segments that one datagram's ranges may name at most; more is not looked at. Bounds what a hostile one costs.
pub(crate) const MOST_NAMED: u32 = 16_384;

/// Appends a range to `out`.
pub(crate) fn emit(format: Format, gap: u16, count: u16, out: &mut [u8; LEN]) {
    let (g, c) = match format {
        Format::LittleEndian => (gap.to_le_bytes(), count.to_le_bytes()),
        Format::BigEndian => (gap.to_be_bytes(), count.to_be_bytes()),
    };
    *out = [g[0], g[1], c[0], c[1]];
}

/// The ranges in the data of an ACK, each as its lowest segment and how many there are. What does not lie above `una` ends it.
pub(crate) fn parse(
    format: Format,
    una: Seq,
    data: &[u8],
) -> impl Iterator<Item = (Seq, u32)> + '_ {
    let mut below: Option<Seq> = None;
    data.chunks_exact(LEN).map_while(move |range| {
        let [a, b, c, d] = *range else {
            return None;
        };
        let (gap, count) = match format {
            Format::LittleEndian => (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])),
            Format::BigEndian => (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])),
        };
        let (gap, count) = (u32::from(gap), u32::from(count));
        let top = match below {
            None => una.plus(gap),
            Some(below) => Seq(below.0.wrapping_sub(gap)),
        };
        let lowest = Seq(top.0.wrapping_sub(count.wrapping_sub(1)));
        if count == 0 || !una.before(lowest) || below.is_some_and(|b| !top.before(b)) {
            return None;
        }
        below = Some(lowest);
        Some((lowest, count))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(format: Format, ranges: &[(u16, u16)]) -> Vec<u8> {
        let mut all = Vec::new();
        for &(gap, count) in ranges {
            let mut one = [0; LEN];
            emit(format, gap, count, &mut one);
            all.extend_from_slice(&one);
        }
        all
    }

    #[test]
    fn ranges_go_down_from_the_highest() {
        for format in [Format::LittleEndian, Format::BigEndian] {
            let una = Seq(u32::MAX - 2);
            // 10 above una and the 2 below it; a gap of two segments; one more.
            let data = bytes(format, &[(10, 3), (3, 1)]);
            let got: Vec<_> = parse(format, una, &data).collect();
            assert_eq!(got, [(una.plus(8), 3), (una.plus(5), 1)]);
        }
    }

    #[test]
    fn nonsense_ends_it() {
        let f = Format::LittleEndian;
        let una = Seq(100);
        for bad in [
            &[(0, 1)][..],
            &[(5, 0)],
            &[(5, 6)],
            &[(5, 1), (0, 1)],
            &[(5, 1), (9, 1)],
        ] {
            let got = parse(f, una, &bytes(f, bad)).count();
            assert!(got < bad.len(), "{bad:?}");
        }
        assert_eq!(parse(f, una, &[1, 0, 1]).count(), 0);
    }

    proptest! {
        #[test]
        fn whatever_is_there_lies_above_una_and_goes_down(una: u32, data in prop::collection::vec(any::<u8>(), 0..300)) {
            let una = Seq(una);
            let mut below: Option<Seq> = None;
            for (lowest, count) in parse(Format::LittleEndian, una, &data) {
                prop_assert!(count > 0 && una.before(lowest));
                if let Some(b) = below {
                    prop_assert!(lowest.plus(count - 1).before(b));
                }
                below = Some(lowest);
            }
        }
    }
}
