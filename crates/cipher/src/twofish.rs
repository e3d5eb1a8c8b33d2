//! Twofish with a 256-bit key, in CFB (docs/spec/kcptun.md, section 4.2).
//!
//! The function g of the cipher (four key-dependent substitutions and a matrix product) is four look-ups in tables of
//! 256 words, computed once per key. The tables take 4 KiB. Their look-ups depend on key and data: see the note on
//! timing at the top of the crate.

use zeroize::Zeroizing;

use crate::cfb::{Cfb, LaneCipher};

const LANES: usize = 4;
const ROUNDS: usize = 16;

/// The permutations of 4 bits that the byte permutations q0 and q1 consist of.
const NIBBLES: [[[u8; 16]; 4]; 2] = [
    [
        [8, 1, 7, 13, 6, 15, 3, 2, 0, 11, 5, 9, 14, 12, 10, 4],
        [14, 12, 11, 8, 1, 2, 3, 5, 15, 4, 10, 6, 7, 0, 9, 13],
        [11, 10, 5, 14, 6, 13, 9, 0, 12, 8, 15, 3, 2, 4, 7, 1],
        [13, 7, 15, 4, 1, 2, 6, 14, 9, 11, 3, 0, 8, 5, 12, 10],
    ],
    [
        [2, 8, 11, 13, 15, 7, 6, 14, 3, 1, 9, 4, 0, 10, 12, 5],
        [1, 14, 2, 11, 4, 12, 3, 7, 6, 13, 10, 5, 15, 9, 0, 8],
        [4, 12, 7, 5, 1, 6, 9, 10, 0, 14, 13, 8, 2, 11, 3, 15],
        [11, 9, 5, 1, 12, 3, 13, 14, 6, 4, 7, 15, 2, 0, 8, 10],
    ],
];

const MDS: [[u8; 4]; 4] = [
    [0x01, 0xEF, 0x5B, 0x5B],
    [0x5B, 0xEF, 0xEF, 0x01],
    [0xEF, 0x5B, 0x01, 0xEF],
    [0xEF, 0x01, 0xEF, 0x5B],
];
const MDS_POLY: u16 = 0x169;

const RS: [[u8; 8]; 4] = [
    [0x01, 0xA4, 0x55, 0x87, 0x5A, 0x58, 0xDB, 0x9E],
    [0xA4, 0x56, 0x82, 0xF3, 0x1E, 0xC6, 0x68, 0xE5],
    [0x02, 0xA1, 0xFC, 0xC1, 0x47, 0xAE, 0x3D, 0x19],
    [0xA4, 0x55, 0x87, 0x5A, 0x58, 0xDB, 0x9E, 0x03],
];
const RS_POLY: u16 = 0x14D;

/// Which of q0 and q1 a byte position takes in front of each of the four key words, and last.
const Q_ORDER: [[usize; 5]; 4] = [
    [1, 1, 0, 0, 1],
    [0, 1, 1, 0, 0],
    [0, 0, 0, 1, 1],
    [1, 0, 1, 1, 0],
];

static Q: [[u8; 256]; 2] = [byte_permutation(0), byte_permutation(1)];
/// Column `i` of the matrix times each byte, as a little-endian word.
static MDS_COLUMNS: [[u32; 256]; 4] = [mds_column(0), mds_column(1), mds_column(2), mds_column(3)];

/// A key set up: whitening and round words, and the tables of g.
pub(crate) struct Twofish {
    subkeys: Zeroizing<[u32; 8 + 2 * ROUNDS]>,
    g: Box<Zeroizing<[[u32; 256]; 4]>>,
}

/// The scheme of method `twofish`.
pub(crate) fn cfb(key: &[u8; 32]) -> Cfb<16, LANES, Twofish> {
    Cfb::new(Twofish::new(key))
}

impl Twofish {
    fn new(key: &[u8; 32]) -> Self {
        let mut even = Zeroizing::new([[0; 4]; 4]);
        let mut odd = Zeroizing::new([[0; 4]; 4]);
        let mut mixed = Zeroizing::new([[0; 4]; 4]);
        for (i, bytes) in key.as_chunks::<8>().0.iter().enumerate() {
            even[i].copy_from_slice(&bytes[..4]);
            odd[i].copy_from_slice(&bytes[4..]);
            for (row, out) in RS.iter().zip(&mut mixed[3 - i]) {
                *out = row
                    .iter()
                    .zip(bytes)
                    .fold(0, |sum, (&m, &b)| sum ^ multiply(m, b, RS_POLY));
            }
        }

        let mut subkeys = Zeroizing::new([0; 8 + 2 * ROUNDS]);
        for (i, pair) in (0u8..).zip(subkeys.as_chunks_mut::<2>().0) {
            let a = h(2 * i, &even);
            let b = h(2 * i + 1, &odd).rotate_left(8);
            pair[0] = a.wrapping_add(b);
            pair[1] = a.wrapping_add(b).wrapping_add(b).rotate_left(9);
        }

        let mut g = Box::new(Zeroizing::new([[0; 256]; 4]));
        for (position, table) in g.iter_mut().enumerate() {
            for (x, word) in (0u8..=255).zip(table) {
                *word = substitute(position, x, &mixed);
            }
        }
        Self { subkeys, g }
    }

    #[inline(always)]
    fn g(&self, x: u32) -> u32 {
        let [a, b, c, d] = x.to_le_bytes();
        self.g[0][usize::from(a)]
            ^ self.g[1][usize::from(b)]
            ^ self.g[2][usize::from(c)]
            ^ self.g[3][usize::from(d)]
    }
}

impl LaneCipher<16> for Twofish {
    fn encrypt<const L: usize>(&self, blocks: &mut [[u8; 16]; L]) {
        let k = &*self.subkeys;
        let mut lanes: [[u32; 4]; L] = core::array::from_fn(|lane| {
            let words = blocks[lane].as_chunks().0;
            core::array::from_fn(|i| u32::from_le_bytes(words[i]) ^ k[i])
        });
        for pair in k[8..].as_chunks::<4>().0 {
            for [r0, r1, r2, r3] in &mut lanes {
                let (t0, t1) = (self.g(*r0), self.g(r1.rotate_left(8)));
                let sum = t0.wrapping_add(t1);
                *r2 = (*r2 ^ sum.wrapping_add(pair[0])).rotate_right(1);
                *r3 = r3.rotate_left(1) ^ sum.wrapping_add(t1).wrapping_add(pair[1]);
            }
            for [r0, r1, r2, r3] in &mut lanes {
                let (t0, t1) = (self.g(*r2), self.g(r3.rotate_left(8)));
                let sum = t0.wrapping_add(t1);
                *r0 = (*r0 ^ sum.wrapping_add(pair[2])).rotate_right(1);
                *r1 = r1.rotate_left(1) ^ sum.wrapping_add(t1).wrapping_add(pair[3]);
            }
        }
        for (block, [r0, r1, r2, r3]) in blocks.iter_mut().zip(lanes) {
            let out = [r2 ^ k[4], r3 ^ k[5], r0 ^ k[6], r1 ^ k[7]];
            for (bytes, word) in block.as_chunks_mut().0.iter_mut().zip(out) {
                *bytes = word.to_le_bytes();
            }
        }
    }
}

/// The function h of four equal input bytes `x`.
fn h(x: u8, key: &[[u8; 4]; 4]) -> u32 {
    (0..4).fold(0, |sum, position| sum ^ substitute(position, x, key))
}

/// What byte `x` at `position` contributes to h with the key words `key`.
fn substitute(position: usize, x: u8, key: &[[u8; 4]; 4]) -> u32 {
    let order = &Q_ORDER[position];
    let y = (0..4).fold(x, |y, i| Q[order[i]][usize::from(y)] ^ key[3 - i][position]);
    MDS_COLUMNS[position][usize::from(Q[order[4]][usize::from(y)])]
}

const fn byte_permutation(which: usize) -> [u8; 256] {
    const fn mix(a: u8, b: u8) -> (u8, u8) {
        let turned = (b >> 1) | (b << 3 & 8);
        (a ^ b, a ^ turned ^ (a << 3 & 8))
    }
    let t = &NIBBLES[which];
    let mut table = [0; 256];
    let mut x = 0;
    while x < 256 {
        let (a, b) = mix((x >> 4) as u8, (x & 15) as u8);
        let (a, b) = mix(t[0][a as usize], t[1][b as usize]);
        table[x] = t[3][b as usize] << 4 | t[2][a as usize];
        x += 1;
    }
    table
}

const fn mds_column(column: usize) -> [u32; 256] {
    let mut table = [0; 256];
    let mut x = 0;
    while x < 256 {
        let mut row = 0;
        while row < 4 {
            let byte = multiply(MDS[row][column], x as u8, MDS_POLY);
            table[x] |= (byte as u32) << (8 * row);
            row += 1;
        }
        x += 1;
    }
    table
}

/// Product in GF(2^8) modulo `poly`; for tables and key set-up only, time depends on the values.
const fn multiply(a: u8, b: u8, poly: u16) -> u8 {
    let (mut a, mut b, mut product) = (a as u16, b, 0);
    while b != 0 {
        if b & 1 != 0 {
            product ^= a;
        }
        a <<= 1;
        if a & 0x100 != 0 {
            a ^= poly;
        }
        b >>= 1;
    }
    product as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answer for a key of 256 bits in the design paper's appendix.
    #[test]
    fn known_answer() {
        let key: Vec<u8> = fulmar_testkit::vectors::hex(
            "0123456789abcdeffedcba987654321000112233445566778899aabbccddeeff",
        );
        let cipher = Twofish::new(&key.try_into().expect("32 bytes"));
        let mut blocks = [[0; 16]; 3];
        cipher.encrypt(&mut blocks);
        for block in blocks {
            assert_eq!(
                fulmar_testkit::vectors::to_hex(&block),
                "37527be0052334b89f0cfccae87cfa20"
            );
        }
    }
}
