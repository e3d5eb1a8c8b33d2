//! SM4 in CFB (spec/kcptun.md, section 3.2).

use sm4::cipher::{Array, BlockCipherEncrypt, KeyInit};

use crate::cfb::{Cfb, LaneCipher};

const LANES: usize = 4;

/// SM4 with its round keys.
pub(crate) struct Sm4(sm4::Sm4);

/// The scheme of method `sm4`.
pub(crate) fn cfb(key: &[u8; 16]) -> Cfb<16, LANES, Sm4> {
    Cfb::new(Sm4(sm4::Sm4::new(key.into())))
}

impl LaneCipher<16> for Sm4 {
    fn encrypt<const L: usize>(&self, blocks: &mut [[u8; 16]; L]) {
        self.0
            .encrypt_blocks(Array::cast_slice_from_core_mut(blocks));
    }
}
