//! The layout of every method without authentication: nonce, CRC-32, body, all encrypted as one message
//! (spec/kcptun.md, sections 4.1 and 4.3).

use fulmar_wire::kcptun::{CRC_HEADER_LEN, Method, NONCE_LEN};

use crate::run::datagrams;
use crate::{NonceSource, Overhead, PacketCipher, Verdict};

/// What happens to the bytes of a run once nonce and checksum are in place. Lengths keep; datagrams are independent of
/// each other.
pub(crate) trait Scheme: Send {
    fn encrypt(&mut self, run: &mut [u8], segment: usize);
    fn decrypt(&mut self, run: &mut [u8], segment: usize);
}

/// The scheme of method `none`: all bytes stay as they are.
pub(crate) struct Identity;

impl Scheme for Identity {
    fn encrypt(&mut self, _: &mut [u8], _: usize) {}
    fn decrypt(&mut self, _: &mut [u8], _: usize) {}
}

/// Nonce and CRC-32 around a [`Scheme`].
pub(crate) struct CrcFramed<S> {
    method: Method,
    scheme: S,
    nonces: NonceSource,
}

impl<S: Scheme + 'static> CrcFramed<S> {
    pub(crate) fn boxed(method: Method, scheme: S, nonces: NonceSource) -> Box<dyn PacketCipher> {
        Box::new(Self {
            method,
            scheme,
            nonces,
        })
    }
}

impl<S: Scheme> PacketCipher for CrcFramed<S> {
    fn overhead(&self) -> Overhead {
        Overhead::of(self.method)
    }

    fn method(&self) -> Method {
        self.method
    }

    fn seal(&mut self, run: &mut [u8], segment: usize) {
        for datagram in datagrams(run, segment) {
            let Some((header, body)) = datagram.split_first_chunk_mut::<CRC_HEADER_LEN>() else {
                datagram.fill(0);
                continue;
            };
            let crc = crc32fast::hash(body);
            let (nonce, sum) = header.split_at_mut(NONCE_LEN);
            self.nonces.fill(nonce);
            sum.copy_from_slice(&crc.to_le_bytes());
        }
        self.scheme.encrypt(run, segment);
    }

    fn open(&mut self, run: &mut [u8], segment: usize, verdicts: &mut Vec<Verdict>) {
        verdicts.clear();
        self.scheme.decrypt(run, segment);
        verdicts.extend(datagrams(run, segment).map(|d| verify(d)));
    }
}

/// Whether the checksum of a decrypted packet is right.
pub(crate) fn verify(datagram: &[u8]) -> Verdict {
    match datagram.split_first_chunk::<CRC_HEADER_LEN>() {
        None => Verdict::TooShort,
        Some((header, body)) => {
            if header[NONCE_LEN..] == crc32fast::hash(body).to_le_bytes() {
                Verdict::Ok
            } else {
                Verdict::Forged
            }
        }
    }
}
