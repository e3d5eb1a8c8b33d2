//! Method `salsa20`: the first eight bytes stay in clear and are the nonce (spec/kcptun.md, section 3.4).

use salsa20::cipher::{KeyIvInit, StreamCipher};
use zeroize::Zeroizing;

use crate::framed::Scheme;
use crate::run::datagrams;

const NONCE: usize = 8;

/// Salsa20/20 with the key of all packets.
pub(crate) struct Salsa(Zeroizing<[u8; 32]>);

impl Salsa {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self(Zeroizing::new(*key))
    }

    fn apply(&self, run: &mut [u8], segment: usize) {
        for datagram in datagrams(run, segment) {
            if let Some((nonce, rest)) = datagram.split_first_chunk_mut::<NONCE>() {
                salsa20::Salsa20::new((&*self.0).into(), (&*nonce).into()).apply_keystream(rest);
            }
        }
    }
}

impl Scheme for Salsa {
    fn encrypt(&mut self, run: &mut [u8], segment: usize) {
        self.apply(run, segment);
    }

    fn decrypt(&mut self, run: &mut [u8], segment: usize) {
        self.apply(run, segment);
    }
}
