//! TEA and XTEA in CFB (docs/spec/kcptun.md, section 4.3): words big endian; TEA with 8 cycles only, as kcptun has it.

use fulmar_wire::kcptun::Method;
use zeroize::Zeroizing;

#[cfg(target_arch = "x86_64")]
use crate::arch::x86_64::tea::On;
#[cfg(target_arch = "x86_64")]
use crate::cfb::Padded;
use crate::cfb::{Cfb, LaneCipher};
use crate::framed::CrcFramed;
use crate::kernel::Kernel;
#[cfg(target_arch = "x86_64")]
use crate::kernel::Tier;
use crate::{NonceSource, PacketCipher};

/// What the running sum grows by.
pub(crate) const DELTA: u32 = 0x9E37_79B9;
/// Cycles of TEA, two rounds each.
pub(crate) const TEA_CYCLES: u32 = 8;
const XTEA_CYCLES: usize = 32;

/// Blocks at once without vectors of our own: what the compiler makes vectors of.
const LANES: usize = 16;

/// TEA with the key words of the cipher.
pub(crate) struct Tea(Zeroizing<[u32; 4]>);

/// XTEA; per cycle the two round keys with the running sum added in.
pub(crate) struct Xtea(Zeroizing<[[u32; 2]; XTEA_CYCLES]>);

/// Makes the function that makes the packet cipher of `$method`.
macro_rules! packet_cipher {
    ($function:ident, $method:expr, $key:ty) => {
        #[doc = concat!("The packet cipher of method `", stringify!($function), "`.")]
        pub(crate) fn $function(
            key: &[u8; 16],
            nonces: NonceSource,
            kernel: Kernel,
        ) -> Box<dyn PacketCipher> {
            let key = <$key>::new(key);
            match kernel.0 {
                #[cfg(target_arch = "x86_64")]
                Tier::Aesni(token) => {
                    let cipher = Padded::<16, _>(On { token, key });
                    CrcFramed::boxed(kernel, $method, Cfb::<8, 16, _>::new(cipher), nonces)
                }
                #[cfg(target_arch = "x86_64")]
                Tier::Avx2(token) => {
                    let cipher = Padded::<32, _>(On { token, key });
                    CrcFramed::boxed(kernel, $method, Cfb::<8, 32, _>::new(cipher), nonces)
                }
                #[cfg(target_arch = "x86_64")]
                Tier::Avx512(token) => {
                    let cipher = Padded::<32, _>(On { token, key });
                    CrcFramed::boxed(kernel, $method, Cfb::<8, 32, _>::new(cipher), nonces)
                }
                _ => CrcFramed::boxed(kernel, $method, Cfb::<8, LANES, _>::new(key), nonces),
            }
        }
    };
}

packet_cipher!(tea, Method::Tea, Tea);
packet_cipher!(xtea, Method::Xtea, Xtea);

impl Tea {
    fn new(key: &[u8; 16]) -> Self {
        Self(words(key))
    }

    /// The key.
    pub(crate) fn words(&self) -> &[u32; 4] {
        &self.0
    }
}

impl Xtea {
    fn new(key: &[u8; 16]) -> Self {
        let k = words(key);
        let mut sum = 0u32;
        let mut round_keys = Zeroizing::new([[0; 2]; XTEA_CYCLES]);
        for pair in round_keys.iter_mut() {
            pair[0] = sum.wrapping_add(k[(sum & 3) as usize]);
            sum = sum.wrapping_add(DELTA);
            pair[1] = sum.wrapping_add(k[(sum >> 11 & 3) as usize]);
        }
        Self(round_keys)
    }

    /// The keys of the two rounds of each cycle.
    pub(crate) fn round_keys(&self) -> &[[u32; 2]; XTEA_CYCLES] {
        &self.0
    }
}
impl LaneCipher<8> for Tea {
    fn encrypt<const L: usize>(&self, blocks: &mut [[u8; 8]; L]) {
        let (mut v0, mut v1) = split(blocks);
        let [k0, k1, k2, k3] = *self.words();
        let mut sum = 0u32;
        for _ in 0..TEA_CYCLES {
            sum = sum.wrapping_add(DELTA);
            for (a, b) in v0.iter_mut().zip(&v1) {
                *a = a.wrapping_add(
                    (b << 4).wrapping_add(k0) ^ b.wrapping_add(sum) ^ (b >> 5).wrapping_add(k1),
                );
            }
            for (b, a) in v1.iter_mut().zip(&v0) {
                *b = b.wrapping_add(
                    (a << 4).wrapping_add(k2) ^ a.wrapping_add(sum) ^ (a >> 5).wrapping_add(k3),
                );
            }
        }
        join(blocks, &v0, &v1);
    }
}

impl LaneCipher<8> for Xtea {
    fn encrypt<const L: usize>(&self, blocks: &mut [[u8; 8]; L]) {
        let (mut v0, mut v1) = split(blocks);
        for [k0, k1] in self.round_keys() {
            for (a, b) in v0.iter_mut().zip(&v1) {
                *a = a.wrapping_add((b << 4 ^ b >> 5).wrapping_add(*b) ^ k0);
            }
            for (b, a) in v1.iter_mut().zip(&v0) {
                *b = b.wrapping_add((a << 4 ^ a >> 5).wrapping_add(*a) ^ k1);
            }
        }
        join(blocks, &v0, &v1);
    }
}

fn words(key: &[u8; 16]) -> Zeroizing<[u32; 4]> {
    let mut words = Zeroizing::new([0; 4]);
    for (word, bytes) in words.iter_mut().zip(key.as_chunks().0) {
        *word = u32::from_be_bytes(*bytes);
    }
    words
}

#[inline(always)]
fn split<const L: usize>(blocks: &[[u8; 8]; L]) -> ([u32; L], [u32; L]) {
    let word = |i: usize, at: usize| {
        let b = &blocks[i];
        u32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
    };
    (
        core::array::from_fn(|i| word(i, 0)),
        core::array::from_fn(|i| word(i, 4)),
    )
}

#[inline(always)]
fn join<const L: usize>(blocks: &mut [[u8; 8]; L], v0: &[u32; L], v1: &[u32; L]) {
    for ((block, a), b) in blocks.iter_mut().zip(v0).zip(v1) {
        block[..4].copy_from_slice(&a.to_be_bytes());
        block[4..].copy_from_slice(&b.to_be_bytes());
    }
}
