//! Parity per data packet of 1350 bytes, groups of 10+3: what the encoder costs (numbering, keeping, computing), and what
//! the decoder costs when everything arrives, when one data packet of each group is lost, and when three are.
//!
//! `cargo bench -p fulmar-fec`; the time is that of one data packet, with its share of the group.

use std::hint::black_box;
use std::time::{Duration, Instant as Clock};

use criterion::{Criterion, criterion_group, criterion_main};
use fulmar_fec::{Decoder, Encoder, Kernel, Shape};
use fulmar_wire::time::Instant;

const DATA: usize = 10;
const PARITY: usize = 3;
/// From the FEC header on: 1350 bytes less nonce and checksum.
const LEN: usize = 1330;
/// Groups that are prepared for the decoder: their numbers have to go on, so it is started again after them.
const GROUPS: usize = 200;

fn packet(i: usize) -> Vec<u8> {
    (0..LEN).map(|at| ((at * 7 + i * 31) % 251) as u8).collect()
}

/// The packets of `GROUPS` groups as they leave.
fn groups(shape: Shape) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new(shape);
    let mut sent = Vec::new();
    for i in 0..GROUPS * DATA {
        let mut packet = packet(i);
        let due = encoder.push(Instant::from_millis(1000), &mut packet);
        sent.push(packet);
        let mut parity = vec![0; due * LEN];
        encoder.emit_parity(&mut parity, LEN, 0);
        sent.extend(parity.chunks(LEN).map(<[u8]>::to_vec));
    }
    sent
}

fn encode(c: &mut Criterion, shape: Shape) {
    let mut group = c.benchmark_group("encode");
    for kernel in Kernel::available() {
        let mut encoder = Encoder::with_kernel(shape, kernel);
        let mut packet = packet(0);
        let mut parity = vec![0; PARITY * 1350];
        group.bench_function(kernel.name(), |b| {
            b.iter(|| {
                if encoder.push(Instant::from_millis(1000), black_box(&mut packet)) > 0 {
                    encoder.emit_parity(&mut parity, 1350, 20);
                }
            });
        });
    }
    group.finish();
}

fn decode(c: &mut Criterion, shape: Shape) {
    let sent = groups(shape);
    for lost in [0, 1, 3] {
        let arrived: Vec<&[u8]> = sent
            .chunks(DATA + PARITY)
            .flat_map(|group| &group[lost..])
            .map(Vec::as_slice)
            .collect();
        let mut group = c.benchmark_group(format!("decode, {lost} lost"));
        for kernel in Kernel::available() {
            group.bench_function(kernel.name(), |b| {
                b.iter_custom(|n| {
                    let rounds = n.div_ceil((GROUPS * DATA) as u64);
                    let mut spent = Duration::ZERO;
                    for _ in 0..rounds {
                        let mut decoder = Decoder::with_kernel(Some(shape), kernel);
                        let mut rebuilt = 0;
                        let start = Clock::now();
                        for packet in &arrived {
                            let _ = black_box(decoder.handle_packet(packet, &mut |datagram| {
                                rebuilt += usize::from(!black_box(datagram).is_empty());
                            }));
                        }
                        spent += start.elapsed();
                        assert_eq!(rebuilt, lost * GROUPS);
                    }
                    spent.mul_f64(n as f64 / (rounds as f64 * (GROUPS * DATA) as f64))
                });
            });
        }
        group.finish();
    }
}

fn benches(c: &mut Criterion) {
    let shape = Shape::new(DATA, PARITY).expect("a shape");
    encode(c, shape);
    decode(c, shape);
}

criterion_group! {
    name = all;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500))
        .sample_size(20);
    targets = benches
}
criterion_main!(all);
