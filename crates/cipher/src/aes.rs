//! AES in CFB: the methods `aes`, `aes-192` and `aes-128` (spec/kcptun.md, section 3.2).

use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};

use crate::cfb::{Cfb, LaneCipher};

/// Eight blocks at once suit the bit-sliced code for CPUs without AES instructions and those with.
const LANES: usize = 8;

/// AES through the `aes` crate, which finds out about AES instructions at run time.
pub(crate) enum Aes {
    K128(aes::Aes128Enc),
    K192(aes::Aes192Enc),
    K256(aes::Aes256Enc),
}

/// The scheme of an AES method.
pub(crate) type AesCfb = Cfb<16, LANES, Aes>;

impl AesCfb {
    pub(crate) fn aes128(key: &[u8; 16]) -> Self {
        Self::new(Aes::K128(aes::Aes128Enc::new(key.into())))
    }

    pub(crate) fn aes192(key: &[u8; 24]) -> Self {
        Self::new(Aes::K192(aes::Aes192Enc::new(key.into())))
    }

    pub(crate) fn aes256(key: &[u8; 32]) -> Self {
        Self::new(Aes::K256(aes::Aes256Enc::new(key.into())))
    }
}

impl LaneCipher<16> for Aes {
    fn encrypt<const L: usize>(&self, blocks: &mut [[u8; 16]; L]) {
        let blocks = Array::cast_slice_from_core_mut(blocks);
        match self {
            Self::K128(aes) => aes.encrypt_blocks(blocks),
            Self::K192(aes) => aes.encrypt_blocks(blocks),
            Self::K256(aes) => aes.encrypt_blocks(blocks),
        }
    }
}
