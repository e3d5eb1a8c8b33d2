//! Sealing and opening runs of 44 packets of 1350 bytes with every method and kernel; and single packets. An
//! iteration is one packet, so that the times are nanoseconds per packet. The methods of kcptun-libev work on runs of 16
//! packets of 1400 bytes: `cargo bench -p fulmar-cipher -- libev`; those of kcptun of 2016: `-- 2016`.

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use fulmar_cipher::{
    Kernel, LibevKey, Method, NonceSource, Prober, StreamCfb, derive_key, kcptun_on,
    kcptun2016_key, kcptun2016_on, libev_on,
};
use fulmar_wire::{kcptun2016, libev};

const PACKET: usize = 1350;

/// Runs `f` for at least `iterations` packets, `packets` at a time, and scales the time to `iterations`.
fn per_packet(iterations: u64, packets: usize, mut f: impl FnMut()) -> Duration {
    let calls = iterations.div_ceil(packets as u64);
    let start = Instant::now();
    for _ in 0..calls {
        f();
    }
    let share = iterations as f64 / (calls * packets as u64) as f64;
    start.elapsed().mul_f64(share)
}

fn runs(c: &mut Criterion) {
    let key = derive_key(b"it's a secrect");
    for kernel in Kernel::available() {
        for method in Method::ALL {
            for packets in [1, 44] {
                let mut group = c.benchmark_group(format!("{}/{}", method.name(), kernel.name()));
                let make = |seed| kcptun_on(kernel, method, &key, NonceSource::seeded([seed; 32]));
                let (mut cipher, mut peer) = (make(1), make(2));
                let mut run = vec![0x42; packets * PACKET];
                let mut verdicts = Vec::new();
                group.bench_function(format!("seal x{packets}"), |b| {
                    b.iter_custom(|n| per_packet(n, packets, || cipher.seal(&mut run, PACKET)));
                });
                group.bench_function(format!("open x{packets}"), |b| {
                    b.iter_custom(|n| {
                        per_packet(n, packets, || peer.open(&mut run, PACKET, &mut verdicts))
                    });
                });
                group.finish();
            }
        }
    }
}

fn libev_runs(c: &mut Criterion) {
    const PACKET: usize = 1400;
    let key = LibevKey::from_bytes([7; 32]);
    for method in libev::Method::SEALED {
        for kernel in Kernel::available() {
            for packets in [1, 16] {
                let name = format!("libev/{}/{}", method.name(), kernel.name());
                let mut group = c.benchmark_group(name);
                let make = |seed| libev_on(kernel, method, &key, NonceSource::seeded([seed; 32]));
                let (mut cipher, mut peer) = (make(1), make(2));
                let mut run = vec![0x42; packets * PACKET];
                let mut verdicts = Vec::new();
                group.bench_function(format!("seal x{packets}"), |b| {
                    b.iter_custom(|n| per_packet(n, packets, || cipher.seal(&mut run, PACKET)));
                });
                // A packet that is refused costs less, so packets that open are copied in every time.
                peer.seal(&mut run, PACKET);
                let sealed = run.clone();
                group.bench_function(format!("open x{packets}"), |b| {
                    b.iter_custom(|n| {
                        per_packet(n, packets, || {
                            run.copy_from_slice(&sealed);
                            cipher.open(&mut run, PACKET, &mut verdicts);
                        })
                    });
                });
                group.finish();
            }
        }
    }
}

/// kcptun of 2016: packets, and 32 KiB of a stream; of that an iteration is 1350 bytes, too.
fn first(c: &mut Criterion) {
    const PACKET: usize = 1400;
    const FRAME: usize = 32 * 1024;
    let key = kcptun2016_key(b"it's a secrect");
    for kernel in Kernel::available() {
        for packets in [1, 4, 16, 32, 46] {
            let mut group = c.benchmark_group(format!("2016/{}", kernel.name()));
            let make = |seed| {
                let nonces = NonceSource::seeded([seed; 32]);
                kcptun2016_on(kernel, kcptun2016::Method::Sealed, &key, nonces)
            };
            let (mut cipher, mut peer) = (make(1), make(2));
            let mut run = vec![0x42; packets * PACKET];
            let mut verdicts = Vec::new();
            group.bench_function(format!("seal x{packets}"), |b| {
                b.iter_custom(|n| per_packet(n, packets, || cipher.seal(&mut run, PACKET)));
            });
            group.bench_function(format!("open x{packets}"), |b| {
                b.iter_custom(|n| {
                    per_packet(n, packets, || peer.open(&mut run, PACKET, &mut verdicts))
                });
            });
            group.finish();
        }
    }
    let mut group = c.benchmark_group("2016/stream");
    let mut stream = StreamCfb::new(&key, [1; 16]);
    let mut frame = vec![0x42; FRAME];
    group.bench_function("encrypt", |b| {
        b.iter_custom(|n| per_packet(n, FRAME / self::PACKET, || stream.encrypt(&mut frame)));
    });
    group.bench_function("decrypt", |b| {
        b.iter_custom(|n| per_packet(n, FRAME / self::PACKET, || stream.decrypt(&mut frame)));
    });
    group.finish();
}

fn probes(c: &mut Criterion) {
    let key = derive_key(b"it's a secrect");
    let mut prober = Prober::new(&key, &Method::ALL);
    let noise = vec![0x42; PACKET];
    c.bench_function("probe noise", |b| b.iter(|| prober.probe(&noise)));
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(500))
        .sample_size(20);
    targets = runs, libev_runs, first, probes
}
criterion_main!(benches);
