//! Groups of 10+3. All counts are per data packet, with its share of the group's parity: encoding is numbering, keeping and
//! computing; decoding is keeping, finding out about loss, and rebuilding.

use fulmar_fec::{Decoder, Encoder, Kernel, Shape};
use fulmar_wire::time::Instant;

use super::PACKET;
use crate::count::{Parts, charge};

const DATA: usize = 10;
const PARITY: usize = 3;
/// What the cipher has in front of a packet.
const FRONT: usize = 20;
/// From the FEC header on.
const LEN: usize = PACKET - FRONT;
/// Groups to warm up with: the decoder has to become certain of the shape.
const WARM: usize = 20;
/// Groups that are counted.
const GROUPS: usize = 30;

pub(crate) fn parts(parts: &mut Parts, kernel: Kernel) {
    let shape = Shape::new(DATA, PARITY).expect("a shape");
    parts.part("parity of 10+3, sending", || {
        sent(shape, kernel, true);
        (GROUPS * DATA) as u64
    });
    for lost in [0, 1, 3] {
        let name = match lost {
            0 => "parity of 10+3, receiving, nothing lost".to_owned(),
            n => format!("parity of 10+3, receiving, {n} of a group rebuilt"),
        };
        parts.part(&name, || {
            let packets = sent(shape, kernel, false);
            let mut decoder = Decoder::with_kernel(Some(shape), kernel).cautious();
            let mut rebuilt = 0;
            for (number, group) in packets.chunks(DATA + PARITY).enumerate() {
                let counts = number >= WARM;
                // Which ones get lost differs from group to group.
                let is_lost = |i: usize| counts && (0..lost).any(|l| i == (number + 3 * l) % DATA);
                let arrived: Vec<_> = (0..).zip(group).filter(|(i, _)| !is_lost(*i)).collect();
                charge(counts, || {
                    for (_, packet) in &arrived {
                        let taken = decoder.handle_packet(packet, &mut |datagram| {
                            rebuilt += usize::from(!datagram.is_empty());
                        });
                        assert!(taken.is_ok());
                    }
                });
            }
            assert_eq!(rebuilt, lost * GROUPS);
            (GROUPS * DATA) as u64
        });
    }
}

/// The packets of all groups as they leave. Sending those behind the first [`WARM`] groups is counted if `charged`.
fn sent(shape: Shape, kernel: Kernel, charged: bool) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::with_kernel(shape, kernel);
    let mut sent = Vec::new();
    let mut parity = vec![0; PARITY * PACKET];
    for number in 0..WARM + GROUPS {
        let mut group: Vec<Vec<u8>> = (0..DATA)
            .map(|i| super::noise(LEN + i)[i..].to_vec())
            .collect();
        charge(charged && number >= WARM, || {
            for packet in &mut group {
                if encoder.push(Instant::from_millis(1000), packet) > 0 {
                    encoder.emit_parity(&mut parity, PACKET, FRONT);
                }
            }
        });
        sent.append(&mut group);
        sent.extend(parity.chunks(PACKET).map(|packet| packet[FRONT..].to_vec()));
    }
    sent
}
