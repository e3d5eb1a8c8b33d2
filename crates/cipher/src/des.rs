//! DES-EDE3 in CFB: method `3des` (docs/spec/kcptun.md, section 4.2).
//!
//! The eight S-boxes with the permutation behind them are tables of 64 words. Halves are kept rotated right by one
//! bit, so that every second group of the expansion lies in place and the others are one rotation away. Between the
//! three passes the final and the initial permutation cancel out. Look-ups depend on key and data: see the note on
//! timing at the top of the crate.

use zeroize::Zeroizing;

use crate::cfb::{Cfb, LaneCipher};

const LANES: usize = 4;
const ROUNDS: usize = 16;

/// S-boxes as the standard prints them: rows of 16.
const S: [[u8; 64]; 8] = [
    [
        14, 4, 13, 1, 2, 15, 11, 8, 3, 10, 6, 12, 5, 9, 0, 7, 0, 15, 7, 4, 14, 2, 13, 1, 10, 6, 12,
        11, 9, 5, 3, 8, 4, 1, 14, 8, 13, 6, 2, 11, 15, 12, 9, 7, 3, 10, 5, 0, 15, 12, 8, 2, 4, 9,
        1, 7, 5, 11, 3, 14, 10, 0, 6, 13,
    ],
    [
        15, 1, 8, 14, 6, 11, 3, 4, 9, 7, 2, 13, 12, 0, 5, 10, 3, 13, 4, 7, 15, 2, 8, 14, 12, 0, 1,
        10, 6, 9, 11, 5, 0, 14, 7, 11, 10, 4, 13, 1, 5, 8, 12, 6, 9, 3, 2, 15, 13, 8, 10, 1, 3, 15,
        4, 2, 11, 6, 7, 12, 0, 5, 14, 9,
    ],
    [
        10, 0, 9, 14, 6, 3, 15, 5, 1, 13, 12, 7, 11, 4, 2, 8, 13, 7, 0, 9, 3, 4, 6, 10, 2, 8, 5,
        14, 12, 11, 15, 1, 13, 6, 4, 9, 8, 15, 3, 0, 11, 1, 2, 12, 5, 10, 14, 7, 1, 10, 13, 0, 6,
        9, 8, 7, 4, 15, 14, 3, 11, 5, 2, 12,
    ],
    [
        7, 13, 14, 3, 0, 6, 9, 10, 1, 2, 8, 5, 11, 12, 4, 15, 13, 8, 11, 5, 6, 15, 0, 3, 4, 7, 2,
        12, 1, 10, 14, 9, 10, 6, 9, 0, 12, 11, 7, 13, 15, 1, 3, 14, 5, 2, 8, 4, 3, 15, 0, 6, 10, 1,
        13, 8, 9, 4, 5, 11, 12, 7, 2, 14,
    ],
    [
        2, 12, 4, 1, 7, 10, 11, 6, 8, 5, 3, 15, 13, 0, 14, 9, 14, 11, 2, 12, 4, 7, 13, 1, 5, 0, 15,
        10, 3, 9, 8, 6, 4, 2, 1, 11, 10, 13, 7, 8, 15, 9, 12, 5, 6, 3, 0, 14, 11, 8, 12, 7, 1, 14,
        2, 13, 6, 15, 0, 9, 10, 4, 5, 3,
    ],
    [
        12, 1, 10, 15, 9, 2, 6, 8, 0, 13, 3, 4, 14, 7, 5, 11, 10, 15, 4, 2, 7, 12, 9, 5, 6, 1, 13,
        14, 0, 11, 3, 8, 9, 14, 15, 5, 2, 8, 12, 3, 7, 0, 4, 10, 1, 13, 11, 6, 4, 3, 2, 12, 9, 5,
        15, 10, 11, 14, 1, 7, 6, 0, 8, 13,
    ],
    [
        4, 11, 2, 14, 15, 0, 8, 13, 3, 12, 9, 7, 5, 10, 6, 1, 13, 0, 11, 7, 4, 9, 1, 10, 14, 3, 5,
        12, 2, 15, 8, 6, 1, 4, 11, 13, 12, 3, 7, 14, 10, 15, 6, 8, 0, 5, 9, 2, 6, 11, 13, 8, 1, 4,
        10, 7, 9, 5, 0, 15, 14, 2, 3, 12,
    ],
    [
        13, 2, 8, 4, 6, 15, 11, 1, 10, 9, 3, 14, 5, 0, 12, 7, 1, 15, 13, 8, 10, 3, 7, 4, 12, 5, 6,
        11, 0, 14, 9, 2, 7, 11, 4, 1, 9, 12, 14, 2, 0, 6, 10, 13, 15, 3, 5, 8, 2, 1, 14, 7, 4, 10,
        8, 13, 15, 12, 9, 0, 3, 5, 6, 11,
    ],
];

/// Bit numbers of the standard count from 1 at the most significant bit.
const P: [u8; 32] = [
    16, 7, 20, 21, 29, 12, 28, 17, 1, 15, 23, 26, 5, 18, 31, 10, 2, 8, 24, 14, 32, 27, 3, 9, 19,
    13, 30, 6, 22, 11, 4, 25,
];
const PC1: [u8; 56] = [
    57, 49, 41, 33, 25, 17, 9, 1, 58, 50, 42, 34, 26, 18, 10, 2, 59, 51, 43, 35, 27, 19, 11, 3, 60,
    52, 44, 36, 63, 55, 47, 39, 31, 23, 15, 7, 62, 54, 46, 38, 30, 22, 14, 6, 61, 53, 45, 37, 29,
    21, 13, 5, 28, 20, 12, 4,
];
const PC2: [u8; 48] = [
    14, 17, 11, 24, 1, 5, 3, 28, 15, 6, 21, 10, 23, 19, 12, 4, 26, 8, 16, 7, 27, 20, 13, 2, 41, 52,
    31, 37, 47, 55, 30, 40, 51, 45, 33, 48, 44, 49, 39, 56, 34, 53, 46, 42, 50, 36, 29, 32,
];
const SHIFTS: [u32; ROUNDS] = [1, 1, 2, 2, 2, 2, 2, 2, 1, 2, 2, 2, 2, 2, 2, 1];

/// S-box, permutation P and the rotation of the halves in one table per group.
static SP: [[u32; 64]; 8] = sp_tables();

/// The two words per round that are added to the even and to the odd groups.
type Schedule = [[u32; 2]; ROUNDS];

/// Three keys set up; the middle one in reverse, for its decryption.
pub(crate) struct TripleDes(Zeroizing<[Schedule; 3]>);

/// The scheme of method `3des`.
pub(crate) fn cfb(key: &[u8; 24]) -> Cfb<8, LANES, TripleDes> {
    Cfb::new(TripleDes::new(key))
}

impl TripleDes {
    fn new(key: &[u8; 24]) -> Self {
        let mut passes = Zeroizing::new([[[0; 2]; ROUNDS]; 3]);
        for (pass, bytes) in passes.iter_mut().zip(key.as_chunks().0) {
            *pass = schedule(u64::from_be_bytes(*bytes));
        }
        passes[1].reverse();
        Self(passes)
    }
}

impl LaneCipher<8> for TripleDes {
    fn encrypt<const L: usize>(&self, blocks: &mut [[u8; 8]; L]) {
        let mut lanes: [[u32; 2]; L] = core::array::from_fn(|lane| {
            initial_permutation(u64::from_be_bytes(blocks[lane])).map(|half| half.rotate_right(1))
        });
        for pass in self.0.iter() {
            for rounds in pass.as_chunks::<2>().0 {
                for [l, r] in &mut lanes {
                    *l ^= f(*r ^ rounds[0][0], r.rotate_left(4) ^ rounds[0][1]);
                }
                for [l, r] in &mut lanes {
                    *r ^= f(*l ^ rounds[1][0], l.rotate_left(4) ^ rounds[1][1]);
                }
            }
            for lane in &mut lanes {
                lane.swap(0, 1);
            }
        }
        for (block, lane) in blocks.iter_mut().zip(lanes) {
            *block = final_permutation(lane.map(|half| half.rotate_left(1))).to_be_bytes();
        }
    }
}

/// The round function of a half that `even` is, with its key added; `odd` is the half rotated left by four with
/// another.
#[inline(always)]
fn f(even: u32, odd: u32) -> u32 {
    let group = |word: u32, shift: u32| (word >> shift & 63) as usize;
    // The tables have no bit in common, so that "or", sum and "xor" are the same; the mixture keeps the compiler from
    // making one long chain of them.
    let even = (SP[0][group(even, 26)] | SP[2][group(even, 18)])
        .wrapping_add(SP[4][group(even, 10)] | SP[6][group(even, 2)]);
    let odd = (SP[1][group(odd, 26)] | SP[3][group(odd, 18)])
        .wrapping_add(SP[5][group(odd, 10)] | SP[7][group(odd, 2)]);
    even ^ odd
}

#[inline(always)]
fn initial_permutation(block: u64) -> [u32; 2] {
    #[allow(clippy::cast_possible_truncation)]
    let (mut l, mut r) = ((block >> 32) as u32, block as u32);
    exchange(&mut l, &mut r, 4, 0x0F0F_0F0F);
    exchange(&mut l, &mut r, 16, 0x0000_FFFF);
    exchange(&mut r, &mut l, 2, 0x3333_3333);
    exchange(&mut r, &mut l, 8, 0x00FF_00FF);
    exchange(&mut l, &mut r, 1, 0x5555_5555);
    [l, r]
}

#[inline(always)]
fn final_permutation([mut l, mut r]: [u32; 2]) -> u64 {
    exchange(&mut l, &mut r, 1, 0x5555_5555);
    exchange(&mut r, &mut l, 8, 0x00FF_00FF);
    exchange(&mut r, &mut l, 2, 0x3333_3333);
    exchange(&mut l, &mut r, 16, 0x0000_FFFF);
    exchange(&mut l, &mut r, 4, 0x0F0F_0F0F);
    u64::from(l) << 32 | u64::from(r)
}

/// Exchanges the bits `mask << shift` of `a` with the bits `mask` of `b`.
#[inline(always)]
fn exchange(a: &mut u32, b: &mut u32, shift: u32, mask: u32) {
    let difference = (*a >> shift ^ *b) & mask;
    *b ^= difference;
    *a ^= difference << shift;
}

fn schedule(key: u64) -> Schedule {
    const HALF: u32 = (1 << 28) - 1;
    let chosen = PC1
        .iter()
        .fold(0u64, |bits, &b| bits << 1 | key >> (64 - b) & 1);
    #[allow(clippy::cast_possible_truncation)]
    let (mut c, mut d) = ((chosen >> 28) as u32, chosen as u32 & HALF);
    SHIFTS.map(|n| {
        c = (c << n | c >> (28 - n)) & HALF;
        d = (d << n | d >> (28 - n)) & HALF;
        let both = u64::from(c) << 28 | u64::from(d);
        let mut words = [0, 0];
        for (group, bits) in PC2.as_chunks::<6>().0.iter().enumerate() {
            let six = bits
                .iter()
                .fold(0, |six, &b| six << 1 | u32::from(both >> (56 - b) & 1 == 1));
            words[group % 2] |= six << (26 - 8 * (group / 2));
        }
        words
    })
}

const fn sp_tables() -> [[u32; 64]; 8] {
    let mut tables = [[0; 64]; 8];
    let mut group = 0;
    while group < 8 {
        let mut six = 0;
        while six < 64 {
            // Outer bits choose the row, inner bits the column.
            let row = six >> 4 & 2 | six & 1;
            let four = S[group][row * 16 + (six >> 1 & 15)] as u32;
            let before = four << (28 - 4 * group);
            let mut after = 0u32;
            let mut bit = 0;
            while bit < 32 {
                after = after << 1 | before >> (32 - P[bit] as u32) & 1;
                bit += 1;
            }
            tables[group][six] = after.rotate_right(1);
            six += 1;
        }
        group += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With three equal keys it is single DES, whose worked example is in every textbook.
    #[test]
    fn known_answer() {
        let one = [0x13, 0x34, 0x57, 0x79, 0x9B, 0xBC, 0xDF, 0xF1];
        let mut key = [0; 24];
        for part in key.as_chunks_mut().0 {
            *part = one;
        }
        let mut blocks = [0x0123_4567_89AB_CDEFu64.to_be_bytes(); 2];
        TripleDes::new(&key).encrypt(&mut blocks);
        assert_eq!(blocks, [0x85E8_1354_0F0A_B405u64.to_be_bytes(); 2]);
    }
}
