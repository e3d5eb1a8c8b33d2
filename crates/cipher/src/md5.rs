//! MD5 over runs of packets (RFC 1321), many at once where the CPU has vectors for it.
//!
//! Not for what it protects, but because kcptun of 2016 asks for it (docs/spec/kcptun2016.md, section 5).

use md5::{Digest as _, Md5};

use crate::kernel::{Kernel, Tier};

/// A digest.
pub(crate) type Digest = [u8; 16];

/// Bytes of a block.
pub(crate) const BLOCK: usize = 64;
/// Most messages at once.
pub(crate) const MAX_LANES: usize = 32;
/// The state before the first block.
pub(crate) const INITIAL: [u32; 4] = [0x6745_2301, 0xEFCD_AB89, 0x98BA_DCFE, 0x1032_5476];
/// How far each step of the four rounds rotates; they repeat.
pub(crate) const SHIFTS: [[u32; 4]; 4] = [
    [7, 12, 17, 22],
    [5, 9, 14, 20],
    [4, 11, 16, 23],
    [6, 10, 15, 21],
];
/// 2^32 times the absolute sine of each step's number, rounded down.
#[rustfmt::skip]
pub(crate) const SINES: [u32; 64] = [
    0xD76A_A478, 0xE8C7_B756, 0x2420_70DB, 0xC1BD_CEEE, 0xF57C_0FAF, 0x4787_C62A, 0xA830_4613, 0xFD46_9501,
    0x6980_98D8, 0x8B44_F7AF, 0xFFFF_5BB1, 0x895C_D7BE, 0x6B90_1122, 0xFD98_7193, 0xA679_438E, 0x49B4_0821,
    0xF61E_2562, 0xC040_B340, 0x265E_5A51, 0xE9B6_C7AA, 0xD62F_105D, 0x0244_1453, 0xD8A1_E681, 0xE7D3_FBC8,
    0x21E1_CDE6, 0xC337_07D6, 0xF4D5_0D87, 0x455A_14ED, 0xA9E3_E905, 0xFCEF_A3F8, 0x676F_02D9, 0x8D2A_4C8A,
    0xFFFA_3942, 0x8771_F681, 0x6D9D_6122, 0xFDE5_380C, 0xA4BE_EA44, 0x4BDE_CFA9, 0xF6BB_4B60, 0xBEBF_BC70,
    0x289B_7EC6, 0xEAA1_27FA, 0xD4EF_3085, 0x0488_1D05, 0xD9D4_D039, 0xE6DB_99E5, 0x1FA2_7CF8, 0xC4AC_5665,
    0xF429_2244, 0x432A_FF97, 0xAB94_23A7, 0xFC93_A039, 0x655B_59C3, 0x8F0C_CC92, 0xFFEF_F47D, 0x8584_5DD1,
    0x6FA8_7E4F, 0xFE2C_E6E0, 0xA301_4314, 0x4E08_11A1, 0xF753_7E82, 0xBD3A_F235, 0x2AD7_D2BB, 0xEB86_D391,
];

/// Instructions that digest several messages at once.
pub(crate) trait Lanes: Copy {
    /// How many fill a vector; up to twice as many are taken.
    const LANES: usize;

    /// Digests of the messages that begin at `starts` of `run`, of `len` bytes each but for the last, which has `last` and no more than the
    /// others. There are 1 to `2 * LANES` of them, all within `run`, and as much room in `out`.
    fn digest(self, run: &[u8], starts: &[usize], len: usize, last: usize, out: &mut [Digest]);
}

/// Writes what stands behind the whole blocks of a message of `len` bytes: its rest, and the padding. One or two blocks.
pub(crate) fn tail(rest: &[u8], len: usize, out: &mut [u8; 2 * BLOCK]) -> usize {
    let size = if rest.len() < BLOCK - 8 {
        BLOCK
    } else {
        2 * BLOCK
    };
    out[..rest.len()].copy_from_slice(rest);
    out[rest.len()] = 0x80;
    out[rest.len() + 1..size].fill(0);
    out[size - 8..size].copy_from_slice(&(8 * len as u64).to_le_bytes());
    size
}

/// Digests of the datagrams of a run, each `segment` bytes long (the last perhaps shorter), without their first `skip` bytes. One that is
/// shorter than that is taken for empty.
pub(crate) fn digests(
    kernel: Kernel,
    run: &[u8],
    segment: usize,
    skip: usize,
    out: &mut Vec<Digest>,
) {
    match kernel.0 {
        #[cfg(target_arch = "x86_64")]
        Tier::Aesni(token) => many(token, run, segment, skip, out),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx2(token) => many(token, run, segment, skip, out),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx512(token) => many(token, run, segment, skip, out),
        _ => {
            out.clear();
            out.extend(run.chunks(segment).map(|d| one(d, skip)));
        }
    }
}

fn one(datagram: &[u8], skip: usize) -> Digest {
    Md5::digest(datagram.get(skip..).unwrap_or_default()).into()
}

#[cfg(target_arch = "x86_64")]
fn many<L: Lanes>(lanes: L, run: &[u8], segment: usize, skip: usize, out: &mut Vec<Digest>) {
    out.clear();
    out.resize(run.len().div_ceil(segment), [0; 16]);
    for (some, digests) in run
        .chunks(segment * 2 * L::LANES)
        .zip(out.chunks_mut(2 * L::LANES))
    {
        let last = some.len() - (digests.len() - 1) * segment;
        if digests.len() == 1 || last < skip {
            for (digest, datagram) in digests.iter_mut().zip(some.chunks(segment)) {
                *digest = one(datagram, skip);
            }
            continue;
        }
        let mut starts = [0; MAX_LANES];
        for (i, start) in starts.iter_mut().enumerate() {
            *start = i * segment + skip;
        }
        let starts = &starts[..digests.len()];
        lanes.digest(some, starts, segment - skip, last - skip, digests);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_testkit::vectors::xs;

    #[test]
    fn every_kernel_gives_the_digests_of_the_crate() {
        let run = xs(5, 70 * 1500);
        let lens = (0..200).chain(1300..1400);
        for (i, len) in lens.enumerate() {
            let skip = [0, 1, 32][i % 3];
            let segment = skip + len;
            if segment == 0 {
                continue;
            }
            for count in [1, 2, 3, 5, 8, 9, 16, 17, 31, 32, 33, 64, 65, 70] {
                for shorter in [0, segment / 2] {
                    let run = &run[..count * segment - shorter];
                    let want: Vec<_> = run.chunks(segment).map(|d| one(d, skip)).collect();
                    for kernel in Kernel::available() {
                        let mut got = Vec::new();
                        digests(kernel, run, segment, skip, &mut got);
                        assert!(got == want, "{count} of {len} less {shorter}, {kernel:?}");
                    }
                }
            }
        }
    }
}
