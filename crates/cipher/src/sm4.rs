//! SM4 in CFB (docs/spec/kcptun.md, section 4.2).
//!
//! Where no kernel of ours can run, a round is four look-ups in one table that holds the S-box with the linear map
//! behind it; see the note on timing at the top of the crate.

use fulmar_wire::kcptun::Method;
use zeroize::Zeroizing;

#[cfg(target_arch = "x86_64")]
use crate::arch::x86_64::{Aesni, sm4::On};
#[cfg(target_arch = "x86_64")]
use crate::cfb::Padded;
use crate::cfb::{Cfb, LaneCipher};
use crate::framed::CrcFramed;
use crate::kernel::Kernel;
#[cfg(target_arch = "x86_64")]
use crate::kernel::Tier;
use crate::{NonceSource, PacketCipher};

const ROUNDS: usize = 32;
const LANES: usize = 4;

/// Added to the key before its schedule.
const SYSTEM: [u32; 4] = [0xA3B1_BAC6, 0x56AA_3350, 0x677D_9197, 0xB270_22DC];

static S: [u8; 256] = s_box();
/// The linear map of a substituted byte at the top of a word.
static T: [u32; 256] = round_table();

/// SM4 with its round keys.
pub(crate) struct Sm4(Zeroizing<[u32; ROUNDS]>);

/// The packet cipher of method `sm4`.
pub(crate) fn sm4(key: &[u8; 16], nonces: NonceSource, kernel: Kernel) -> Box<dyn PacketCipher> {
    let method = Method::Sm4;
    let key = Sm4::new(key);
    #[cfg(target_arch = "x86_64")]
    let aesni = |token: Aesni, key, nonces| {
        let cipher = Padded::<16, _>(On { token, key });
        CrcFramed::boxed(kernel, method, Cfb::<16, 16, _>::new(cipher), nonces)
    };
    match kernel.0 {
        #[cfg(target_arch = "x86_64")]
        Tier::Aesni(token) => aesni(token, key, nonces),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx2(token) => aesni(token.aesni(), key, nonces),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx512(token) => {
            let cipher = Padded::<32, _>(On { token, key });
            CrcFramed::boxed(kernel, method, Cfb::<16, 32, _>::new(cipher), nonces)
        }
        _ => CrcFramed::boxed(kernel, method, Cfb::<16, LANES, _>::new(key), nonces),
    }
}

impl Sm4 {
    fn new(key: &[u8; 16]) -> Self {
        let mut k = Zeroizing::new([0; 4]);
        for ((word, bytes), system) in k.iter_mut().zip(key.as_chunks().0).zip(SYSTEM) {
            *word = u32::from_be_bytes(*bytes) ^ system;
        }
        let mut round_keys = Zeroizing::new([0; ROUNDS]);
        for (i, out) in (0u8..).zip(round_keys.iter_mut()) {
            // Multiples of seven, four per round.
            let constant = [0, 1, 2, 3].map(|j| (4 * i + j).wrapping_mul(7));
            let sum = k[1] ^ k[2] ^ k[3] ^ u32::from_be_bytes(constant);
            let y = u32::from_be_bytes(sum.to_be_bytes().map(|b| S[usize::from(b)]));
            *out = k[0] ^ y ^ y.rotate_left(13) ^ y.rotate_left(23);
            *k = [k[1], k[2], k[3], *out];
        }
        Self(round_keys)
    }

    /// The keys of the rounds in order.
    pub(crate) fn round_keys(&self) -> &[u32; ROUNDS] {
        &self.0
    }
}

impl LaneCipher<16> for Sm4 {
    fn encrypt<const L: usize>(&self, blocks: &mut [[u8; 16]; L]) {
        let mut lanes = [[0; 4]; L];
        for (lane, block) in lanes.iter_mut().zip(&*blocks) {
            for (word, bytes) in lane.iter_mut().zip(block.as_chunks().0) {
                *word = u32::from_be_bytes(*bytes);
            }
        }
        for keys in self.round_keys().as_chunks::<4>().0 {
            for (round, key) in keys.iter().enumerate() {
                for x in &mut lanes {
                    let sum = x[(round + 1) % 4] ^ x[(round + 2) % 4] ^ x[(round + 3) % 4] ^ key;
                    let byte = |shift: u32| T[(sum >> shift & 255) as usize];
                    let (a, b, c, d) = (byte(24), byte(16), byte(8), byte(0));
                    x[round] ^= a ^ b.rotate_right(8) ^ c.rotate_right(16) ^ d.rotate_right(24);
                }
            }
        }
        for (block, mut lane) in blocks.iter_mut().zip(lanes) {
            lane.reverse();
            for (bytes, word) in block.as_chunks_mut().0.iter_mut().zip(lane) {
                *bytes = word.to_be_bytes();
            }
        }
    }
}

/// The S-box: an affine map, the inverse modulo the polynomial 0x1F5, and the same map again.
const fn s_box() -> [u8; 256] {
    const fn affine(x: u8) -> u8 {
        let mut out = 0;
        let mut bit = 0;
        while bit < 8 {
            let row = 0xA7u8.rotate_left(bit);
            out |= ((row & x).count_ones() as u8 & 1) << bit;
            bit += 1;
        }
        out ^ 0xD3
    }
    const fn multiply(a: u8, b: u8) -> u8 {
        let (mut a, mut b, mut product) = (a as u16, b, 0);
        while b != 0 {
            if b & 1 == 1 {
                product ^= a;
            }
            a <<= 1;
            if a & 0x100 != 0 {
                a ^= 0x1F5;
            }
            b >>= 1;
        }
        product as u8
    }
    /// The 254th power, which is the inverse, or 0 of 0.
    const fn invert(x: u8) -> u8 {
        let mut power = x;
        let mut inverse = 1;
        let mut i = 0;
        while i < 7 {
            power = multiply(power, power);
            inverse = multiply(inverse, power);
            i += 1;
        }
        inverse
    }
    let mut table = [0; 256];
    let mut x = 0;
    while x < 256 {
        table[x] = affine(invert(affine(x as u8)));
        x += 1;
    }
    table
}

const fn round_table() -> [u32; 256] {
    let s = s_box();
    let mut table = [0; 256];
    let mut x = 0;
    while x < 256 {
        let y = (s[x] as u32) << 24;
        table[x] = y ^ y.rotate_left(2) ^ y.rotate_left(10) ^ y.rotate_left(18) ^ y.rotate_left(24);
        x += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_testkit::vectors::hex;

    /// The example of the standard.
    #[test]
    fn known_answer() {
        let text: [u8; 16] = hex("0123456789abcdeffedcba9876543210")
            .try_into()
            .expect("16 bytes");
        let mut blocks = [text; 3];
        Sm4::new(&text).encrypt(&mut blocks);
        for block in blocks {
            assert_eq!(block.to_vec(), hex("681edf34d206965e86b3e94f536e4246"));
        }
    }
}
