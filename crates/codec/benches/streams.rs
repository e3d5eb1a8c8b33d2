//! Snappy frames of 8 KiB of text and of noise, and QPP, in both directions. Throughput is that of the plain bytes.
//!
//! `cargo bench -p fulmar-codec`.

use std::hint::black_box;
use std::num::NonZeroU16;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fulmar_codec::{qpp, snappy};

/// A full smux frame: `--framesize` and its header.
const FRAME: usize = 8192 + 8;
/// Frames per step.
const FRAMES: usize = 16;
/// What KCP hands up at a time.
const SEGMENT: usize = 1298;

/// Words in an order that is not periodic.
fn text(len: usize) -> Vec<u8> {
    const WORDS: [&str; 16] = [
        "the", "bird", "flies", "over", "a", "stormy", "sea", "and", "does", "not", "rest",
        "until", "morning", "when", "calm", "returns",
    ];
    let mut text = Vec::new();
    for number in noise(len) {
        text.extend_from_slice(WORDS[usize::from(number) % WORDS.len()].as_bytes());
        text.push(b' ');
        // A number now and then, as logs and pages have.
        if number > 200 {
            text.extend_from_slice(format!("{:04}, ", usize::from(number) * 37).as_bytes());
        }
    }
    text.truncate(len);
    text
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(len).collect()
}

fn snappy_frames(c: &mut Criterion) {
    let mut group = c.benchmark_group("snappy");
    group.throughput(Throughput::Bytes((FRAME * FRAMES) as u64));
    for (name, data) in [
        ("text", text(FRAME * FRAMES)),
        ("noise", noise(FRAME * FRAMES)),
    ] {
        let mut encoder = snappy::Encoder::new();
        let mut wire = Vec::new();
        let mut encode = |wire: &mut Vec<u8>| {
            wire.clear();
            for frame in data.chunks(FRAME) {
                let (header, payload) = frame.split_at(8);
                encoder.encode(&[header, payload], |piece| wire.extend_from_slice(piece));
            }
        };
        // The identifier comes once per stream.
        encode(&mut wire);
        assert_eq!(wire.len() < data.len() * 3 / 4, name == "text");
        let mut decoder = snappy::Decoder::new();
        decoder
            .decode(&snappy::IDENTIFIER, &mut |_| {})
            .expect("an identifier");
        group.bench_function(format!("encode {name}"), |b| b.iter(|| encode(&mut wire)));
        group.bench_function(format!("decode {name}"), |b| {
            b.iter(|| {
                let mut total = 0;
                for segment in wire.chunks(SEGMENT) {
                    decoder
                        .decode(segment, &mut |bytes| total += black_box(bytes).len())
                        .expect("chunks");
                }
                assert_eq!(total, data.len());
            });
        });
    }
    group.finish();
}

fn qpp_bytes(c: &mut Criterion) {
    let mut group = c.benchmark_group("qpp");
    group.throughput(Throughput::Bytes(FRAME as u64));
    for generation in qpp::Generation::ALL {
        let count = NonZeroU16::new(61).expect("not zero");
        let pads = qpp::Pads::new(b"it's a secrect", count, generation);
        let mut stream = pads.stream();
        let mut data = noise(FRAME);
        group.bench_function(format!("encrypt {}", generation.name()), |b| {
            b.iter(|| stream.encrypt(black_box(&mut data)));
        });
        group.bench_function(format!("decrypt {}", generation.name()), |b| {
            b.iter(|| stream.decrypt(black_box(&mut data)));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500))
        .sample_size(20);
    targets = snappy_frames, qpp_bytes
}
criterion_main!(benches);
