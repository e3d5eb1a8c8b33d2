//! Snappy around smux frames of 8 KiB that do not compress, which is what most traffic is; counts are per packet's worth.

use std::hint::black_box;

use fulmar_codec::snappy::{Decoder, Encoder, IDENTIFIER};

use super::PAYLOAD;
use crate::count::{Parts, counted};

/// A full frame and its header.
const FRAME: usize = 8192 + 8;
/// Frames that are counted.
const FRAMES: usize = 32;

pub(crate) fn parts(parts: &mut Parts) {
    let packets = (FRAMES * FRAME / PAYLOAD) as u64;
    let data = super::noise(FRAMES * FRAME);
    let encode = |encoder: &mut Encoder, wire: &mut Vec<u8>| {
        wire.clear();
        for frame in data.chunks(FRAME) {
            let (header, payload) = frame.split_at(8);
            encoder.encode(&[header, payload], |piece| wire.extend_from_slice(piece));
        }
    };
    let warm = || {
        let (mut encoder, mut wire) = (Encoder::new(), Vec::new());
        encode(&mut encoder, &mut wire);
        (encoder, wire)
    };
    parts.part("snappy, sending noise", || {
        let (mut encoder, mut wire) = warm();
        counted(|| encode(&mut encoder, &mut wire));
        packets
    });
    parts.part("snappy, receiving noise", || {
        let (_, wire) = warm();
        let mut decoder = Decoder::new();
        let mut total = 0;
        let mut take = |wire: &[u8]| {
            for segment in wire.chunks(PAYLOAD) {
                let taken = decoder.decode(segment, &mut |bytes| total += black_box(bytes).len());
                taken.expect("a snappy stream");
            }
        };
        take(&wire);
        counted(|| take(&wire[IDENTIFIER.len()..]));
        assert_eq!(total, 2 * data.len());
        packets
    });
}
