//! The secretbox of NaCl: XSalsa20 and Poly1305, packet after packet.

use ::salsa20::XSalsa20;
use ::salsa20::cipher::{KeyIvInit, StreamCipher};
use poly1305::Poly1305;
use poly1305::universal_hash::KeyInit;
use zeroize::Zeroizing;

use crate::aead::{Aead, equal};

/// A key of a secretbox.
pub(crate) struct SecretBox(Zeroizing<[u8; 32]>);

impl SecretBox {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self(Zeroizing::new(*key))
    }

    /// The key stream of a packet, and the authenticator that its first 32 bytes are the key of.
    fn start(&self, nonce: &[u8; 24]) -> (XSalsa20, Poly1305) {
        let mut stream = XSalsa20::new((&*self.0).into(), nonce.into());
        let mut key = Zeroizing::new([0; 32]);
        stream.apply_keystream(key.as_mut_slice());
        (stream, Poly1305::new((&*key).into()))
    }
}

impl Aead<24> for SecretBox {
    fn seal(&self, nonce: &[u8; 24], body: &mut [u8]) -> [u8; 16] {
        let (mut stream, poly) = self.start(nonce);
        stream.apply_keystream(body);
        poly.compute_unpadded(body).into()
    }

    fn open(&self, nonce: &[u8; 24], body: &mut [u8], tag: &[u8; 16]) -> bool {
        let (mut stream, poly) = self.start(nonce);
        let wanted: [u8; 16] = poly.compute_unpadded(body).into();
        if !equal(&wanted, tag) {
            return false;
        }
        stream.apply_keystream(body);
        true
    }
}
