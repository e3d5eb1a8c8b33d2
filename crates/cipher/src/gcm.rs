//! Method `aes-128-gcm`: nonce, encrypted body, tag (spec/kcptun.md, sections 3.6 and 4.1).

use aes_gcm::aead::{AeadInOut, KeyInit};
use fulmar_wire::kcptun::{AEAD_NONCE_LEN, AEAD_TAG_LEN, Method};

use crate::run::datagrams;
use crate::{NonceSource, Overhead, PacketCipher, Verdict};

/// AES-128-GCM with random 96-bit nonces and no additional data.
pub(crate) struct Gcm {
    cipher: aes_gcm::Aes128Gcm,
    nonces: NonceSource,
}

impl Gcm {
    pub(crate) fn new(key: &[u8; 16], nonces: NonceSource) -> Self {
        Self {
            cipher: aes_gcm::Aes128Gcm::new(key.into()),
            nonces,
        }
    }
}

impl PacketCipher for Gcm {
    fn overhead(&self) -> Overhead {
        Overhead::of(Method::Aes128Gcm)
    }

    fn method(&self) -> Method {
        Method::Aes128Gcm
    }

    fn seal(&mut self, run: &mut [u8], segment: usize) {
        for datagram in datagrams(run, segment) {
            let Some((nonce, body, tag)) = parts(datagram) else {
                datagram.fill(0);
                continue;
            };
            self.nonces.fill(nonce);
            match self
                .cipher
                .encrypt_inout_detached((&*nonce).into(), &[], (&mut *body).into())
            {
                Ok(t) => tag.copy_from_slice(&t),
                // Only for bodies of 64 GiB and more.
                Err(_) => body.fill(0),
            }
        }
    }

    fn open(&mut self, run: &mut [u8], segment: usize, verdicts: &mut Vec<Verdict>) {
        verdicts.clear();
        verdicts.extend(datagrams(run, segment).map(|datagram| {
            let Some((nonce, body, tag)) = parts(datagram) else {
                return Verdict::TooShort;
            };
            match self.cipher.decrypt_inout_detached(
                (&*nonce).into(),
                &[],
                body.into(),
                (&*tag).into(),
            ) {
                Ok(()) => Verdict::Ok,
                Err(_) => Verdict::Forged,
            }
        }));
    }
}

type Parts<'a> = (
    &'a mut [u8; AEAD_NONCE_LEN],
    &'a mut [u8],
    &'a mut [u8; AEAD_TAG_LEN],
);

/// Nonce, body and tag of a datagram that has room for all three.
fn parts(datagram: &mut [u8]) -> Option<Parts<'_>> {
    let (nonce, rest) = datagram.split_first_chunk_mut()?;
    let (body, tag) = rest.split_last_chunk_mut()?;
    Some((nonce, body, tag))
}
