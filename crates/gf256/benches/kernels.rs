//! Time per group of 10+3 packets of 1350 bytes: encode, rebuild 1, rebuild 3; per kernel.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fulmar_gf256::{Code, Kernel, Rebuild, Rows, RowsMut};

const DATA: usize = 10;
const PARITY: usize = 3;
const LEN: usize = 1350;
/// Rows begin at cache lines, as in the encoder's and decoder's storage.
const STRIDE: usize = LEN.next_multiple_of(64);

fn benches(c: &mut Criterion) {
    let code = Code::vandermonde(DATA, PARITY).expect("a code");
    let buffer: Vec<u8> = (0..64 + (DATA + PARITY) * STRIDE)
        .map(|i| (i * 7 % 251) as u8)
        .collect();
    let first = buffer.as_ptr().align_offset(64);
    let bytes = &buffer[first..];
    let starts: Vec<usize> = (0..DATA + PARITY).map(|i| i * STRIDE).collect();
    let mut out = vec![0; 64 + PARITY * STRIDE];
    let first = out.as_ptr().align_offset(64);

    let mut group = c.benchmark_group("10+3x1350");
    group.throughput(Throughput::Bytes((DATA * LEN) as u64));
    for kernel in Kernel::available() {
        let plan = code.encoding(kernel);
        group.bench_function(format!("encode/{}", kernel.name()), |b| {
            b.iter(|| {
                let sources = Rows {
                    bytes: black_box(bytes),
                    starts: &starts[..DATA],
                };
                plan.apply(
                    sources,
                    RowsMut {
                        bytes: &mut out,
                        first,
                        stride: STRIDE,
                    },
                    LEN,
                );
            });
        });
        for lost in [1, 3] {
            let have: Vec<u8> = (lost..).take(DATA).collect();
            let sources: Vec<usize> = have.iter().map(|&p| starts[usize::from(p)]).collect();
            let mut rebuild = Rebuild::new(kernel);
            group.bench_function(format!("rebuild-{lost}/{}", kernel.name()), |b| {
                b.iter(|| {
                    rebuild.prepare(&code, black_box(&have)).expect("enough");
                    let sources = Rows {
                        bytes: black_box(bytes),
                        starts: &sources,
                    };
                    rebuild.apply(
                        sources,
                        RowsMut {
                            bytes: &mut out,
                            first,
                            stride: STRIDE,
                        },
                        LEN,
                    );
                });
            });
            if kernel == Kernel::scalar() {
                group.bench_function(format!("prepare-{lost}"), |b| {
                    b.iter(|| rebuild.prepare(&code, black_box(&have)));
                });
            }
        }
    }
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
