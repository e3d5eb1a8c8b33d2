//! Every kernel of this CPU against the portable one, and the code as a whole.

use fulmar_gf256::{Code, Kernel, Plan, Rebuild, Rows, RowsMut};
use fulmar_testkit::vectors::xs;
use proptest::prelude::*;

/// The rows that `kernel` computes of `starts` in `bytes`, `first` into a buffer and `stride` apart, with all of the
/// buffer around them.
fn apply(
    kernel: Kernel,
    matrix: &[Vec<u8>],
    (bytes, starts): (&[u8], &[usize]),
    (first, stride): (usize, usize),
    len: usize,
) -> Vec<u8> {
    let mut plan = Plan::new(kernel);
    plan.fill(matrix.len(), starts.len(), |row, column| {
        matrix[row][column]
    });
    let mut out = vec![0xcc; first + stride * matrix.len() + 70];
    let sinks = RowsMut {
        bytes: &mut out,
        first,
        stride,
    };
    plan.apply(Rows { bytes, starts }, sinks, len);
    out
}

fn matrix(rows: usize, columns: usize, seed: u32) -> Vec<Vec<u8>> {
    let factors = xs(seed, rows * columns);
    factors.chunks(columns).map(<[u8]>::to_vec).collect()
}

#[test]
fn the_portable_kernel_multiplies() {
    let matrix = matrix(3, 4, 5);
    let bytes = xs(6, 400);
    let out = apply(
        Kernel::scalar(),
        &matrix,
        (&bytes, &[0, 7, 100, 200]),
        (3, 160),
        150,
    );
    for (r, row) in matrix.iter().enumerate() {
        for i in 0..150 {
            let sum = row
                .iter()
                .zip([0, 7, 100, 200])
                .fold(0, |sum, (&f, start)| {
                    sum ^ fulmar_gf256::field::mul(f, bytes[start + i])
                });
            assert_eq!(out[3 + r * 160 + i], sum);
        }
    }
}

/// All lengths; the rows of sources and sinks begin at all remainders of 64 while at it.
#[test]
fn kernels_agree_for_every_length() {
    let (columns, longest) = (5, 1600);
    let bytes = xs(1, columns * (longest + 64));
    for len in 0..=longest {
        let rows = 1 + len % 9;
        let matrix = matrix(rows, columns, 7);
        let starts: Vec<usize> = (0..columns)
            .map(|c| c * longest + (len * 7 + c) % 64)
            .collect();
        let place = (len * 5 % 64, len + len % 3);
        let expected = apply(Kernel::scalar(), &matrix, (&bytes, &starts), place, len);
        for kernel in Kernel::available() {
            let found = apply(kernel, &matrix, (&bytes, &starts), place, len);
            assert!(
                found == expected,
                "{} with {rows} rows of {len}",
                kernel.name()
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn kernels_agree_for_every_shape(
        rows in 0usize..40, columns in 1usize..40, len in 0usize..700,
        places in prop::collection::vec(0usize..2000, 40), first in 0usize..70, gap in 0usize..70,
        seed: u32,
    ) {
        let bytes = xs(seed, 2700);
        let matrix = matrix(rows, columns, seed ^ 1);
        let starts = &places[..columns];
        let expected = apply(Kernel::scalar(), &matrix, (&bytes, starts), (first, len + gap), len);
        for kernel in Kernel::available() {
            let found = apply(kernel, &matrix, (&bytes, starts), (first, len + gap), len);
            prop_assert!(found == expected, "{}", kernel.name());
        }
    }

    /// Any `data` shards give back the others.
    #[test]
    fn any_data_shards_are_enough(
        data in 1usize..40, parity in 1usize..40, len in 1usize..200, seed: u32,
    ) {
        let code = Code::vandermonde(data, parity).expect("a code");
        let mut shards = xs(seed, data * len);
        shards.resize((data + parity) * len, 0);
        let starts: Vec<usize> = (0..data + parity).map(|i| i * len).collect();
        let (known, unknown) = shards.split_at_mut(data * len);
        let sinks = RowsMut { bytes: unknown, first: 0, stride: len };
        code.encoding(Kernel::best()).apply(Rows { bytes: known, starts: &starts[..data] }, sinks, len);

        let mut order: Vec<u8> = (0..=u8::MAX).take(data + parity).collect();
        for (i, random) in xs(!seed, data).into_iter().enumerate() {
            let other = i + usize::from(random) % (order.len() - i);
            order.swap(i, other);
        }
        let have = &order[..data];
        for kernel in Kernel::available() {
            let mut rebuild = Rebuild::new(kernel);
            prop_assert!(rebuild.prepare(&code, have).is_ok());
            let starts: Vec<usize> = have.iter().map(|&p| starts[usize::from(p)]).collect();
            let mut out = vec![0; rebuild.missing().len() * len];
            let sinks = RowsMut { bytes: &mut out, first: 0, stride: len };
            rebuild.apply(Rows { bytes: &shards, starts: &starts }, sinks, len);
            let lost: Vec<u8> = (0..data)
                .filter(|&p| !have.iter().any(|&h| usize::from(h) == p))
                .flat_map(|p| shards[p * len..][..len].to_vec())
                .collect();
            prop_assert_eq!(out, lost);
        }
    }
}

#[test]
#[should_panic(expected = "a source exceeds its buffer")]
fn a_source_beyond_its_buffer_is_refused() {
    apply(
        Kernel::best(),
        &matrix(1, 2, 1),
        (&[0; 100], &[0, 37]),
        (0, 64),
        64,
    );
}

#[test]
#[should_panic(expected = "sinks overlap")]
fn overlapping_sinks_are_refused() {
    apply(
        Kernel::best(),
        &matrix(2, 1, 1),
        (&[0; 100], &[0]),
        (0, 63),
        64,
    );
}

#[test]
#[should_panic(expected = "a sink exceeds its buffer")]
fn a_sink_beyond_its_buffer_is_refused() {
    let mut plan = Plan::new(Kernel::best());
    plan.fill(3, 1, |_, _| 1);
    let sinks = RowsMut {
        bytes: &mut [0; 255],
        first: 0,
        stride: 96,
    };
    plan.apply(
        Rows {
            bytes: &[0; 64],
            starts: &[0],
        },
        sinks,
        64,
    );
}

#[test]
fn the_fastest_kernel_comes_first_and_the_portable_one_last() {
    let all: Vec<Kernel> = Kernel::available().collect();
    assert_eq!(all.first(), Some(&Kernel::best()));
    assert_eq!(all.last(), Some(&Kernel::scalar()));
}
