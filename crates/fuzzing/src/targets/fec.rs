//! Targets of `fulmar-fec`.

use std::time::Duration;

use fulmar_fec::{Decoder, Encoder, Late, Shape};
use fulmar_wire::fec::HEADER_LEN;
use fulmar_wire::kcptun::MAX_DATAGRAM;
use fulmar_wire::time::Instant;

use crate::input::Input;

/// A decoder that meets any packets in any order.
///
/// Input: a byte each for the data and parity packets of a group (if impossible: not told), a byte for late
/// packets, then chunks, one per packet.
pub fn fec_decoder(data: &[u8]) {
    let mut input = Input::new(data);
    let shape = Shape::new(usize::from(input.byte()), usize::from(input.byte())).ok();
    let late = if input.byte() < 128 {
        Late::Ignore
    } else {
        Late::Reopen
    };
    let mut decoder = Decoder::new(shape).late_packets(late);
    let (mut packets, mut recovered) = (0, 0);
    while let Some(packet) = input.chunk() {
        packets += 1;
        let result = decoder.handle_packet(packet, &mut |payload| {
            recovered += 1;
            assert!(payload.len() + HEADER_LEN <= MAX_DATAGRAM);
        });
        if let Err(error) = result {
            assert!(!error.to_string().is_empty());
        }
        let counters = decoder.counters();
        assert!(counters.shard_sets <= 4);
        assert_eq!(counters.recovered, recovered);
        assert!(counters.rejected + counters.parity_shards + counters.out_of_band <= packets);
    }
}

/// Groups that an encoder made and a path with losses, copies and another order took to a decoder: it recovers what
/// the first packets of a group that arrive, as many as there are data packets, allow; and nothing else.
///
/// Input: a byte each for the data and parity packets of a group and two for the first group's number; then per group four bytes for
/// its fate and chunks, one per data packet.
pub fn fec_roundtrip(data: &[u8]) {
    let mut input = Input::new(data);
    let shape = Shape::new(
        1 + usize::from(input.byte() % 16),
        1 + usize::from(input.byte() % 8),
    );
    let Ok(shape) = shape else {
        unreachable!("at most 24 packets")
    };
    let mut encoder = Encoder::new(shape).starting_at(u32::from(input.u16()));
    let mut decoder = Decoder::new(Some(shape));
    let mut now = Instant::ZERO;
    // The rule of continuity compares with the packet before, so a lone first packet has no parity.
    let mut first = true;
    loop {
        // 24 bits for losses, the others for order and copies.
        let fate = u32::from(input.u16()) | u32::from(input.u16()) << 16;
        let mut packets = Vec::new();
        let mut due = 0;
        for _ in 0..shape.data() {
            let Some(payload) = input.chunk() else {
                return;
            };
            let mut packet = vec![0; HEADER_LEN];
            packet.extend_from_slice(&payload[..payload.len().min(400)]);
            now += Duration::from_millis(1);
            due = encoder.push(now, &mut packet);
            packets.push(packet);
        }
        assert_eq!(due > 0, !(first && shape.data() == 1));
        first = false;
        if due > 0 {
            assert_eq!(due, shape.parity());
            let len = encoder.parity_len();
            let mut parity = vec![0; due * (len + 7)];
            encoder.emit_parity(&mut parity, len + 7, 3);
            for packet in parity.chunks(len + 7) {
                packets.push(packet[3..][..len].to_vec());
            }
        }

        let mut arriving: Vec<usize> = (0..packets.len()).filter(|i| fate >> i & 1 == 0).collect();
        if fate >> 24 & 1 == 1 {
            arriving.reverse();
        }
        let start = (fate as usize >> 25 & 7).min(arriving.len());
        arriving.rotate_left(start);
        let copies = 1 + usize::from(fate >> 28 == 15);

        let enough = arriving.get(..shape.data());
        let expect: Vec<&[u8]> = enough.map_or(Vec::new(), |enough| {
            (0..shape.data())
                .filter(|i| !enough.contains(i))
                .map(|i| &packets[i][HEADER_LEN..])
                .collect()
        });
        let mut recovered: Vec<Vec<u8>> = Vec::new();
        for i in &arriving {
            for _ in 0..copies {
                let result = decoder.handle_packet(&packets[*i], &mut |payload| {
                    recovered.push(payload.to_vec());
                });
                assert!(result.is_ok(), "{result:?}");
            }
        }
        assert_eq!(recovered, expect);
    }
}
