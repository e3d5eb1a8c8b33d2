//! Method `aes-128-gcm`: nonce, encrypted body, tag (docs/spec/kcptun.md, sections 4.5 and 5.1).

use aes_gcm::aead::KeyInit;
use fulmar_wire::kcptun::{AEAD_NONCE_LEN, AEAD_TAG_LEN, Method};

use crate::aead::{Aead, Crate};
#[cfg(target_arch = "x86_64")]
use crate::arch::x86_64::{Aesni, gcm};
use crate::kernel::Kernel;
#[cfg(target_arch = "x86_64")]
use crate::kernel::Tier;
use crate::run::datagrams;
use crate::{NonceSource, Overhead, PacketCipher, Scheme, Verdict};

/// The packet cipher: random 96-bit nonces in front, tags behind.
struct Gcm<A> {
    aead: A,
    nonces: NonceSource,
}

/// The packet cipher of method `aes-128-gcm`.
pub(crate) fn aes_128_gcm(
    key: &[u8; 16],
    nonces: NonceSource,
    kernel: Kernel,
) -> Box<dyn PacketCipher> {
    #[cfg(target_arch = "x86_64")]
    let narrow = |token: Aesni, nonces| {
        let aead = gcm::Gcm::<10>::new(token, key, &[]);
        Box::new(Gcm { aead, nonces })
    };
    match kernel.0 {
        #[cfg(target_arch = "x86_64")]
        Tier::Aesni(token) => narrow(token, nonces),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx2(token) => narrow(token.aesni(), nonces),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx512(token) => {
            let aead = gcm::WideGcm::<10>::new(token, key, &[]);
            Box::new(Gcm { aead, nonces })
        }
        _ => {
            let aead = Crate(aes_gcm::Aes128Gcm::new(key.into()), &[]);
            Box::new(Gcm { aead, nonces })
        }
    }
}

impl<A: Aead<AEAD_NONCE_LEN>> PacketCipher for Gcm<A> {
    fn overhead(&self) -> Overhead {
        Overhead::of(Method::Aes128Gcm)
    }

    fn scheme(&self) -> Scheme {
        Scheme::Kcptun(Method::Aes128Gcm)
    }

    fn seal(&mut self, run: &mut [u8], segment: usize) {
        // In two passes, so that the packets do not wait for the generator one by one.
        for datagram in datagrams(run, segment) {
            match parts(datagram) {
                Some((nonce, ..)) => self.nonces.fill_at(0, nonce),
                None => datagram.fill(0),
            }
        }
        for datagram in datagrams(run, segment) {
            if let Some((nonce, body, tag)) = parts(datagram) {
                *tag = self.aead.seal(nonce, body);
            }
        }
    }

    fn open(&mut self, run: &mut [u8], segment: usize, verdicts: &mut Vec<Verdict>) {
        self.nonces.judge(0, run, segment, verdicts);
        for (verdict, datagram) in verdicts.iter_mut().zip(datagrams(run, segment)) {
            match parts(datagram) {
                None => *verdict = Verdict::TooShort,
                Some((nonce, body, tag)) => {
                    if *verdict == Verdict::Ok && !self.aead.open(nonce, body, tag) {
                        *verdict = Verdict::Forged;
                    }
                }
            }
        }
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
