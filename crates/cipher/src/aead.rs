//! Authenticated encryption of one packet at a time.

/// An AEAD with its key, and associated data that is the same for all packets.
pub(crate) trait Aead<const NONCE: usize>: Send {
    /// Encrypts `body` in place and returns the tag.
    fn seal(&self, nonce: &[u8; NONCE], body: &mut [u8]) -> [u8; 16];

    /// Decrypts `body` in place and tells whether `tag` is right; if it is not, the body is unspecified.
    fn open(&self, nonce: &[u8; NONCE], body: &mut [u8], tag: &[u8; 16]) -> bool;
}

/// Whether two tags are equal, in a time that says nothing about where they differ.
#[inline]
pub(crate) fn equal(a: &[u8; 16], b: &[u8; 16]) -> bool {
    u128::from_ne_bytes(*a) ^ u128::from_ne_bytes(*b) == 0
}

/// An implementation of the AEAD traits of the `aead` crate, with its associated data.
pub(crate) struct Crate<A>(pub(crate) A, pub(crate) &'static [u8]);

macro_rules! by_crate {
    ($aead:ty, $nonce:literal) => {
        impl Aead<$nonce> for Crate<$aead> {
            fn seal(&self, nonce: &[u8; $nonce], body: &mut [u8]) -> [u8; 16] {
                use aes_gcm::aead::AeadInOut;
                let data = (&mut *body).into();
                match self.0.encrypt_inout_detached(nonce.into(), self.1, data) {
                    Ok(tag) => tag.into(),
                    Err(_) => {
                        // Only for bodies of 64 GiB and more.
                        body.fill(0);
                        [0; 16]
                    }
                }
            }

            fn open(&self, nonce: &[u8; $nonce], body: &mut [u8], tag: &[u8; 16]) -> bool {
                use aes_gcm::aead::AeadInOut;
                let (data, tag) = (body.into(), tag.into());
                self.0
                    .decrypt_inout_detached(nonce.into(), self.1, data, tag)
                    .is_ok()
            }
        }
    };
}
by_crate!(aes_gcm::Aes128Gcm, 12);
by_crate!(aes_gcm::Aes256Gcm, 12);
by_crate!(chacha20poly1305::ChaCha20Poly1305, 12);
by_crate!(chacha20poly1305::XChaCha20Poly1305, 24);
