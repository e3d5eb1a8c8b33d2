//! What a packet costs from end to end: two endpoints back to back, no sockets, both ends and a copy between them.
//!
//! `bulk` is a stream that the server fills; the time is that of 1,298 bytes of it, what fits one packet of 1350 bytes with
//! aes and parity, so it has the packet's share of parity and acknowledgements. `sparse` is a message of 100 bytes to
//! the server and back on a quiet session, with its acknowledgements.
//!
//! `cargo bench -p fulmar-session`.

mod pair;

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use fulmar_cipher::Kernel;
use fulmar_wire::kcptun::Method;

use pair::{Flags, Nobody, PAYLOAD, Pair};

/// The time in which so many payloads arrive, scaled from the whole turns that it takes.
fn bulk(pair: &mut Pair, payloads: u64) -> Duration {
    let (start, before) = (Instant::now(), pair.received());
    let mut turns = 0;
    while pair.received() - before < payloads * PAYLOAD as u64 {
        pair.bulk(&mut Nobody);
        turns += 1;
        assert!(turns < 1000 + 10 * payloads, "the stream stalls");
    }
    let wanted = payloads as f64 * PAYLOAD as f64;
    start
        .elapsed()
        .mul_f64(wanted / (pair.received() - before) as f64)
}

fn packets(c: &mut Criterion) {
    let defaults = Flags::defaults(Kernel::best());
    let loads = [
        ("aes, 10+3, snappy", defaults),
        (
            "aes, 10+3",
            Flags {
                compression: false,
                ..defaults
            },
        ),
        (
            "aes-128-gcm, 10+3, snappy",
            Flags {
                method: Method::Aes128Gcm,
                ..defaults
            },
        ),
        (
            "salsa20, 10+3, snappy",
            Flags {
                method: Method::Salsa20,
                ..defaults
            },
        ),
        ("null", Flags::bare(Kernel::best())),
    ];
    for (name, flags) in loads {
        let mut group = c.benchmark_group(name);
        let mut pair = Pair::new(flags);
        bulk(&mut pair, 10_000);
        group.bench_function("bulk", |b| b.iter_custom(|n| bulk(&mut pair, n)));
        let mut pair = Pair::new(flags);
        group.bench_function("sparse", |b| b.iter(|| pair.echo(100, &mut Nobody)));
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20);
    targets = packets
}
criterion_main!(benches);
