//! What a frame costs in the mux alone: sending (bytes in, frames out) and receiving (frames in, bytes out), for
//! frames of 8 KiB and 1 KiB, on one stream and on a hundred. Throughput is payload; each way copies it once.
#![allow(missing_docs)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fulmar_mux::machine::{Config, Role, Version};
use fulmar_mux::{Event, Mux, StreamId};
use fulmar_wire::time::Instant;
use std::hint::black_box;

const NOW: Instant = Instant::from_millis(1);
/// Bytes per step of a single stream; of many, each sends one frame.
const STEP: usize = 64 * 1024;
/// What the layer below hands up at a time: a KCP segment of an Ethernet path.
const SEGMENT: usize = 1376;

fn config(version: Version, role: Role, frame: usize) -> Config {
    Config {
        max_frame: frame as u32,
        hello: false,
        ..Config::new(version, role)
    }
}

/// An opener and an acceptor with `count` streams that both hold.
fn pair(version: Version, count: usize, frame: usize) -> (Mux, Mux, Vec<StreamId>, Vec<StreamId>) {
    let mut a = Mux::new(config(version, Role::Opener, frame), NOW).expect("valid");
    let mut b = Mux::new(config(version, Role::Acceptor, frame), NOW).expect("valid");
    let sa = (0..count).map(|_| a.open(NOW).expect("open")).collect();
    let mut wire = Vec::new();
    frames(&mut a, &mut wire);
    b.handle_input(NOW, &wire).expect("syn");
    let mut sb = Vec::new();
    while let Some(event) = b.poll_event() {
        if let Event::Opened(id) = event {
            sb.push(id);
        }
    }
    (a, b, sa, sb)
}

fn frames(from: &mut Mux, wire: &mut Vec<u8>) {
    while let Some(frame) = from.poll_frame(NOW) {
        for part in frame.parts() {
            wire.extend_from_slice(part);
        }
    }
}

fn fill(end: &mut Mux, streams: &[StreamId], data: &[u8]) {
    let share = data.len();
    for &id in streams {
        let room = end.write_reserve(id, share).expect("open");
        let n = room.len().min(share);
        room[..n].copy_from_slice(&data[..n]);
        end.write_commit(id, n).expect("open");
        // A reservation is one chunk; the rest goes the other way.
        end.write(id, &data[n..share]).expect("open");
    }
}

fn empty(end: &mut Mux) -> usize {
    let mut total = 0;
    while let Some(event) = end.poll_event() {
        if let Event::Readable(id) = event {
            let n = end
                .read_slices(id)
                .map(|bytes| black_box(bytes).len())
                .sum();
            end.consume(NOW, id, n);
            total += n;
        }
    }
    total
}

fn bench(c: &mut Criterion) {
    for (frame, streams) in [(8192, 1), (1024, 1), (8192, 100), (1024, 100)] {
        let data = vec![0x5a; frame.max(STEP / streams) / frame * frame];
        let total = data.len() * streams;
        let name = format!("{frame} B frames, {streams} streams");
        let mut group = c.benchmark_group("smux");
        group.throughput(Throughput::Bytes(total as u64));

        // Version 1: without windows nothing but sending is measured.
        let (mut a, _, sa, _) = pair(Version::V1, streams, frame);
        group.bench_function(BenchmarkId::new("send", &name), |bench| {
            bench.iter(|| {
                fill(&mut a, &sa, &data);
                while let Some(frame) = a.poll_frame(NOW) {
                    black_box(frame.parts());
                }
                while a.poll_event().is_some() {}
            });
        });

        let (mut a, mut b, sa, _) = pair(Version::V2, streams, frame);
        fill(&mut a, &sa, &data);
        let mut wire = Vec::new();
        frames(&mut a, &mut wire);
        group.bench_function(BenchmarkId::new("receive", &name), |bench| {
            bench.iter(|| {
                for segment in wire.chunks(SEGMENT) {
                    b.handle_input(NOW, segment).expect("frames");
                }
                assert_eq!(empty(&mut b), total);
                while b.poll_frame(NOW).is_some() {}
            });
        });
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = bench
}
criterion_main!(benches);
