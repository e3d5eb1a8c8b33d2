//! Method `xor`: a fixed pad (docs/spec/kcptun.md, section 4.4). It hides nothing from anyone who sees two packets.

use zeroize::Zeroizing;

use crate::framed::Transform;
use crate::kdf::{MasterKey, PAD_LEN, xor_pad};
use crate::run::datagrams;

/// The pad of one key. Longer packets, which no kcptun peer reads, take it from its start again.
pub(crate) struct Pad(Box<Zeroizing<[u8; PAD_LEN]>>);

impl Pad {
    pub(crate) fn new(key: &MasterKey) -> Self {
        Self(Box::new(xor_pad(key)))
    }

    fn apply(&self, run: &mut [u8], segment: usize, from: usize) {
        for datagram in datagrams(run, segment) {
            let mut from = from;
            for part in datagram.chunks_mut(PAD_LEN) {
                for (b, p) in part.iter_mut().zip(self.0.iter()).skip(from) {
                    *b ^= p;
                }
                from = 0;
            }
        }
    }
}

impl Transform for Pad {
    fn encrypt(&mut self, run: &mut [u8], segment: usize, from: usize) {
        self.apply(run, segment, from);
    }

    fn decrypt(&mut self, run: &mut [u8], segment: usize) {
        self.apply(run, segment, 0);
    }
}
