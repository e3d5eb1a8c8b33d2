//! CAST-128 with a key of 16 bytes, in CFB (docs/spec/kcptun.md, section 4.2; RFC 2144).
//!
//! Sixteen rounds of four look-ups in fixed boxes of 4 KiB: see the note on timing at the top of the crate. A block
//! alone waits for memory most of the time; several take turns.

mod boxes;

use zeroize::Zeroizing;

use crate::cfb::{Cfb, LaneCipher};

const LANES: usize = 4;
const ROUNDS: usize = 16;

static S: [[u32; 256]; 4] = boxes::ROUND;
static SCHEDULE: [[u32; 256]; 4] = boxes::SCHEDULE;

/// One word of a step of the key schedule (RFC 2144, section 2.4): the word of the old bytes that it begins with,
/// the bytes that go through S5 to S8, and which of these boxes one more old byte goes through.
struct Mix {
    word: usize,
    bytes: [usize; 4],
    extra: (usize, usize),
}

const fn mix(word: usize, bytes: [usize; 4], extra: (usize, usize)) -> Mix {
    Mix { word, bytes, extra }
}

/// From x to z. The bytes of the first word are old ones, those of the others are new.
const TO_Z: [Mix; 4] = [
    mix(0, [0xD, 0xF, 0xC, 0xE], (2, 0x8)),
    mix(2, [0x0, 0x2, 0x1, 0x3], (3, 0xA)),
    mix(3, [0x7, 0x6, 0x5, 0x4], (0, 0x9)),
    mix(1, [0xA, 0x9, 0xB, 0x8], (1, 0xB)),
];
/// From z to x.
const TO_X: [Mix; 4] = [
    mix(2, [0x5, 0x7, 0x4, 0x6], (2, 0x0)),
    mix(0, [0x0, 0x2, 0x1, 0x3], (3, 0x2)),
    mix(1, [0x7, 0x6, 0x5, 0x4], (0, 0x1)),
    mix(3, [0xA, 0x9, 0xB, 0x8], (1, 0x3)),
];
/// Four keys behind each step: the bytes that go through S5 to S8, and one more that goes through S5 for the first
/// key, S6 for the second and so on.
const KEYS: [[[usize; 5]; 4]; 4] = [
    [
        [0x8, 0x9, 0x7, 0x6, 0x2],
        [0xA, 0xB, 0x5, 0x4, 0x6],
        [0xC, 0xD, 0x3, 0x2, 0x9],
        [0xE, 0xF, 0x1, 0x0, 0xC],
    ],
    [
        [0x3, 0x2, 0xC, 0xD, 0x8],
        [0x1, 0x0, 0xE, 0xF, 0xD],
        [0x7, 0x6, 0x8, 0x9, 0x3],
        [0x5, 0x4, 0xA, 0xB, 0x7],
    ],
    [
        [0x3, 0x2, 0xC, 0xD, 0x9],
        [0x1, 0x0, 0xE, 0xF, 0xC],
        [0x7, 0x6, 0x8, 0x9, 0x2],
        [0x5, 0x4, 0xA, 0xB, 0x6],
    ],
    [
        [0x8, 0x9, 0x7, 0x6, 0x3],
        [0xA, 0xB, 0x5, 0x4, 0x7],
        [0xC, 0xD, 0x3, 0x2, 0x8],
        [0xE, 0xF, 0x1, 0x0, 0xD],
    ],
];

/// A key set up: what is combined with the data in each round, and by how much the result is rotated.
pub(crate) struct Cast5 {
    masking: Zeroizing<[u32; ROUNDS]>,
    rotation: Zeroizing<[u32; ROUNDS]>,
}

/// The scheme of method `cast5`.
pub(crate) fn cfb(key: &[u8; 16]) -> Cfb<8, LANES, Cast5> {
    Cfb::new(Cast5::new(key))
}

impl Cast5 {
    fn new(key: &[u8; 16]) -> Self {
        let mut state = Zeroizing::new(*key);
        let mut keys = Zeroizing::new([0; 2 * ROUNDS]);
        for (step, four) in keys.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            advance(&mut state, if step % 2 == 0 { &TO_Z } else { &TO_X });
            for (i, (key, bytes)) in four.iter_mut().zip(KEYS[step % 4]).enumerate() {
                *key = (0..4).fold(0, |sum, j| sum ^ substitute(j, state[bytes[j]]))
                    ^ substitute(i, state[bytes[4]]);
            }
        }
        let mut cipher = Self {
            masking: Zeroizing::new([0; ROUNDS]),
            rotation: Zeroizing::new([0; ROUNDS]),
        };
        cipher.masking.copy_from_slice(&keys[..ROUNDS]);
        cipher.rotation.copy_from_slice(&keys[ROUNDS..]);
        for rotation in cipher.rotation.iter_mut() {
            *rotation &= 31;
        }
        cipher
    }
}

impl Cast5 {
    /// A round of the given kind (0 to 2, types 1 to 3 of the standard) that changes half `TO`.
    #[inline(always)]
    fn round<const KIND: usize, const TO: usize, const L: usize>(
        &self,
        i: usize,
        lanes: &mut [[u32; 2]; L],
    ) {
        let (key, by) = (self.masking[i], self.rotation[i]);
        for lane in lanes {
            let data = lane[1 - TO];
            let mixed = match KIND {
                0 => key.wrapping_add(data),
                1 => key ^ data,
                _ => key.wrapping_sub(data),
            };
            let mixed = mixed.rotate_left(by);
            let byte = |shift: u32| (mixed >> shift & 255) as usize;
            let (a, b, c, d) = (S[0][byte(24)], S[1][byte(16)], S[2][byte(8)], S[3][byte(0)]);
            lane[TO] ^= match KIND {
                0 => (a ^ b).wrapping_sub(c).wrapping_add(d),
                1 => a.wrapping_sub(b).wrapping_add(c) ^ d,
                _ => (a.wrapping_add(b) ^ c).wrapping_sub(d),
            };
        }
    }
}

/// Byte `x` through one of S5 to S8.
fn substitute(which: usize, x: u8) -> u32 {
    SCHEDULE[which][usize::from(x)]
}

/// One step of the key schedule.
fn advance(state: &mut [u8; 16], step: &[Mix; 4]) {
    let old = Zeroizing::new(*state);
    for (i, mix) in step.iter().enumerate() {
        let source = if i == 0 { &*old } else { &*state };
        let sum = (0..4).fold(0, |sum, j| sum ^ substitute(j, source[mix.bytes[j]]))
            ^ substitute(mix.extra.0, old[mix.extra.1]);
        for (j, byte) in sum.to_be_bytes().into_iter().enumerate() {
            state[4 * i + j] = old[4 * mix.word + j] ^ byte;
        }
    }
}

impl LaneCipher<8> for Cast5 {
    fn encrypt<const L: usize>(&self, blocks: &mut [[u8; 8]; L]) {
        let mut lanes = [[0; 2]; L];
        for (lane, block) in lanes.iter_mut().zip(&*blocks) {
            for (word, bytes) in lane.iter_mut().zip(block.as_chunks().0) {
                *word = u32::from_be_bytes(*bytes);
            }
        }
        // Three kinds of rounds in turn, and the halves in turn: six rounds until both are where they were.
        for i in [0, 6] {
            self.round::<0, 0, L>(i, &mut lanes);
            self.round::<1, 1, L>(i + 1, &mut lanes);
            self.round::<2, 0, L>(i + 2, &mut lanes);
            self.round::<0, 1, L>(i + 3, &mut lanes);
            self.round::<1, 0, L>(i + 4, &mut lanes);
            self.round::<2, 1, L>(i + 5, &mut lanes);
        }
        self.round::<0, 0, L>(12, &mut lanes);
        self.round::<1, 1, L>(13, &mut lanes);
        self.round::<2, 0, L>(14, &mut lanes);
        self.round::<0, 1, L>(15, &mut lanes);
        for (block, [l, r]) in blocks.iter_mut().zip(lanes) {
            for (bytes, word) in block.as_chunks_mut().0.iter_mut().zip([r, l]) {
                *bytes = word.to_be_bytes();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_testkit::vectors::hex;

    /// RFC 2144, appendix B.1, the key of 128 bits.
    #[test]
    fn known_answer() {
        let key = hex("0123456712345678234567893456789a");
        let cipher = Cast5::new(&key.try_into().expect("16 bytes"));
        let mut blocks = [0x0123_4567_89AB_CDEFu64.to_be_bytes(); 3];
        cipher.encrypt(&mut blocks);
        assert_eq!(blocks, [0x238B_4FE5_847E_44B2u64.to_be_bytes(); 3]);
    }
}
