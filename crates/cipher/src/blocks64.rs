//! Blowfish and CAST-128 in CFB (spec/kcptun.md, section 3.2).

use blowfish::cipher::{Array, BlockCipherEncrypt, BlockSizeUser, KeyInit, consts::U8};

use crate::cfb::{Cfb, LaneCipher};

const LANES: usize = 4;

/// A block cipher of another crate with blocks of 8 bytes.
pub(crate) struct Foreign<C>(C);

/// The scheme of method `blowfish`: with a key of 32 bytes.
pub(crate) fn blowfish(key: &[u8; 32]) -> Cfb<8, LANES, Foreign<blowfish::Blowfish>> {
    let cipher = blowfish::Blowfish::new_from_slice(key);
    Cfb::new(Foreign(cipher.expect("32 bytes are a Blowfish key")))
}

/// The scheme of method `cast5`.
pub(crate) fn cast5(key: &[u8; 16]) -> Cfb<8, LANES, Foreign<cast5::Cast5>> {
    Cfb::new(Foreign(cast5::Cast5::new(key.into())))
}

impl<C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U8> + Send> LaneCipher<8> for Foreign<C> {
    fn encrypt<const L: usize>(&self, blocks: &mut [[u8; 8]; L]) {
        self.0
            .encrypt_blocks(Array::cast_slice_from_core_mut(blocks));
    }
}
