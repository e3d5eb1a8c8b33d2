//! The layout of every method without authentication: nonce, CRC-32, body, all encrypted as one message
//! (docs/spec/kcptun.md, sections 5.1 and 5.3).

use fulmar_wire::kcptun::{CRC_HEADER_LEN, Method, NONCE_LEN};

#[cfg(target_arch = "x86_64")]
use crate::arch::x86_64::{Avx512, crc::crc32};
use crate::kernel::Kernel;
#[cfg(target_arch = "x86_64")]
use crate::kernel::Tier;
use crate::run::datagrams;
use crate::{NonceSource, Overhead, PacketCipher, Scheme, Verdict};

/// What happens to the bytes of a run once nonce and checksum are in place. Lengths keep; datagrams are independent
/// of each other.
pub(crate) trait Transform: Send {
    /// Encrypts every datagram. Its first `from` bytes, whole blocks, are ciphertext already: of a nonce that peers ignore, it
    /// does not matter what they decrypt to.
    fn encrypt(&mut self, run: &mut [u8], segment: usize, from: usize);
    fn decrypt(&mut self, run: &mut [u8], segment: usize);
}

/// The transform of method `none`: all bytes stay as they are.
pub(crate) struct Identity;

impl Transform for Identity {
    fn encrypt(&mut self, _: &mut [u8], _: usize, _: usize) {}
    fn decrypt(&mut self, _: &mut [u8], _: usize) {}
}

/// Where in the ciphertext our own nonces are known again: in a block that the checksum depends on, or whoever reflects a datagram
/// would change a bit there and the rest would still open. In feedback mode a block of ciphertext changes the clear text of
/// its own and of the next one, and the checksum is behind the nonce: with blocks of 16 bytes in the second, with
/// blocks of eight in the third. With salsa20 the first eight bytes make the key stream. With `xor` and `none` any bit can be changed.
const fn own_at(method: Method) -> usize {
    match method {
        Method::Blowfish | Method::Cast5 | Method::TripleDes | Method::Tea | Method::Xtea => 8,
        _ => 0,
    }
}

/// Nonce and CRC-32 around a [`Transform`].
pub(crate) struct CrcFramed<S> {
    method: Method,
    crc: Crc,
    transform: S,
    nonces: NonceSource,
    /// Where in the ciphertext our nonces are known again.
    own_at: usize,
}

/// How checksums are computed.
#[derive(Copy, Clone)]
enum Crc {
    /// By the `crc32fast` crate, which uses PCLMULQDQ or the CRC instructions of ARM where they exist.
    Crate,
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
}

impl Crc {
    fn new(kernel: Kernel) -> Self {
        match kernel.0 {
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512(token) => Self::Avx512(token),
            _ => Self::Crate,
        }
    }

    #[inline]
    fn of(self, data: &[u8]) -> u32 {
        match self {
            Self::Crate => crc32fast::hash(data),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(token) => crc32(token, data),
        }
    }

    /// Whether the checksum of a decrypted packet is right.
    #[inline]
    fn verify(self, datagram: &[u8]) -> Verdict {
        match datagram.split_first_chunk::<CRC_HEADER_LEN>() {
            None => Verdict::TooShort,
            Some((header, body)) if header[NONCE_LEN..] == self.of(body).to_le_bytes() => {
                Verdict::Ok
            }
            Some(_) => Verdict::Forged,
        }
    }
}

impl<S: Transform + 'static> CrcFramed<S> {
    pub(crate) fn boxed(
        kernel: Kernel,
        method: Method,
        transform: S,
        nonces: NonceSource,
    ) -> Box<dyn PacketCipher> {
        Box::new(Self {
            method,
            crc: Crc::new(kernel),
            transform,
            nonces,
            own_at: own_at(method),
        })
    }
}

impl<S: Transform> PacketCipher for CrcFramed<S> {
    fn overhead(&self) -> Overhead {
        Overhead::of(self.method)
    }

    fn scheme(&self) -> Scheme {
        Scheme::Kcptun(self.method)
    }

    fn seal(&mut self, run: &mut [u8], segment: usize) {
        for datagram in datagrams(run, segment) {
            let Some((header, body)) = datagram.split_first_chunk_mut::<CRC_HEADER_LEN>() else {
                datagram.fill(0);
                continue;
            };
            let crc = self.crc.of(body);
            let (nonce, sum) = header.split_at_mut(NONCE_LEN);
            self.nonces.fill_at(self.own_at, nonce);
            sum.copy_from_slice(&crc.to_le_bytes());
        }
        let from = self.nonces.sealed_len(NONCE_LEN);
        self.transform.encrypt(run, segment, from);
    }

    fn open(&mut self, run: &mut [u8], segment: usize, verdicts: &mut Vec<Verdict>) {
        self.nonces.judge(self.own_at, run, segment, verdicts);
        self.transform.decrypt(run, segment);
        for (verdict, datagram) in verdicts.iter_mut().zip(datagrams(run, segment)) {
            if *verdict != Verdict::Reflected {
                *verdict = self.crc.verify(datagram);
            }
        }
    }
}
