//! Packet ciphers: seal and open runs of datagrams.
//!
//! A *run* is what one system call sends or receives: datagrams of one peer, back to back in one buffer, each
//! `segment` bytes long, only the last may be shorter. [`PacketCipher`] works on whole runs, because a cipher in
//! feedback mode is a serial chain within a packet: several packets at once keep the CPU busy, one does not.
//!
//! [`kcptun()`] makes the packet cipher of any of kcptun's methods (docs/spec/kcptun.md, sections 4 and 5.1 to 5.3),
//! [`libev()`] that of any of kcptun-libev's (docs/spec/kcptun-libev.md, section 4); [`Prober`] and [`libev_probe`] find
//! the method of a stranger's datagram. This crate knows nothing of what the bodies carry and
//! neither sockets nor random sources: nonces come from a [`NonceSpace`] that the caller seeds.
//!
//! # What the methods are worth
//! All encrypting methods of kcptun-libev detect tampering. Of kcptun's only `aes-128-gcm` does. All others protect a packet with a CRC-32 that an attacker can adjust, and
//! none of them refuses a replayed packet. `xor`, `none` and `null` do not hide anything from somebody who looks.
//!
//! # Speed
//! The instructions of the CPU are found out at run time and chosen once per cipher, see [`Kernel`]; all of them
//! give the same bytes. Encryption in feedback mode is several times faster per packet in runs of 8 (AES-NI, NEON)
//! to 32 (AVX-512) packets than packet by packet; decryption and AES-GCM are as fast for one packet as for many.
//! ChaCha20 and Salsa20 are quicker in runs too, Poly1305 in runs of three packets and more where there is AVX-512 IFMA.
//! `cargo bench -p fulmar-cipher` measures all methods.
//!
//! # Timing
//! AES runs on the AES instructions of the CPU, or on the constant-time bit-sliced code of the `aes` crate where
//! there are none; Salsa20, ChaCha20, Poly1305, TEA, XTEA and CRC have no secret-dependent memory access anywhere.
//! Blowfish, CAST-128,
//! Twofish, 3DES and SM4 look up tables at key-dependent places, as their usual implementations do (SM4 not where
//! it works on many packets with vectors of AVX-512 or AES-NI): whoever can run code on the same core may learn
//! about the key from the state of the caches. Pick an AES method on a machine shared with strangers.

#![deny(unsafe_code)]

mod aead;
mod aes;
mod arch;
mod blowfish;
mod cast5;
mod cfb;
mod des;
mod framed;
mod gcm;
mod kcptun2016;
mod kdf;
mod kernel;
mod libev;
mod md5;
mod nonce;
mod null;
#[cfg(target_arch = "x86_64")]
mod poly;
mod probe;
mod run;
mod salsa20;
mod scheme;
mod secretbox;
mod sm4;
#[cfg(target_arch = "x86_64")]
mod streams;
mod tea;
mod twofish;
mod xor;

use core::fmt;

pub use fulmar_wire::kcptun::Method;
pub use kcptun2016::{Position, StreamCfb, kcptun2016, kcptun2016_key, kcptun2016_on};
pub use kdf::{MasterKey, derive_key};
pub use kernel::Kernel;
pub use libev::{LibevKey, PskError, libev, libev_on, libev_probe};
pub use nonce::{NonceSource, NonceSpace};
pub use probe::{Prober, probe};
pub use scheme::Scheme;

/// Bytes that sealing puts around a body.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct Overhead {
    /// Bytes in front of the body: nonce, and the checksum if the method has one.
    pub front: usize,
    /// Bytes behind the body: the tag of an authenticated method.
    pub back: usize,
}

impl Overhead {
    /// Bytes around the body together.
    #[must_use]
    pub const fn total(self) -> usize {
        self.front + self.back
    }

    /// The overhead of a kcptun method (docs/spec/kcptun.md, section 5.2).
    #[must_use]
    pub const fn of(method: Method) -> Self {
        Self {
            front: method.front(),
            back: method.back(),
        }
    }
}

/// What [`PacketCipher::open`] found out about one datagram.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Verdict {
    /// The checksum or the tag is right: the body can be read.
    Ok,
    /// Shorter than the overhead; never counted as forged (section 5.3, step 1).
    TooShort,
    /// Wrong checksum or tag: damaged, made with another key or method, or forged. Counts in `InCsumErrors`.
    Forged,
    /// Its nonce is one that this service made: a packet of ours that somebody sent back. Found out by bytes that cannot be
    /// changed without breaking the packet (with `xor` and `none` they can); `null` and plain kcptun-libev have no nonce.
    Reflected,
}

/// Seals and opens runs of datagrams in place, without allocation.
///
/// `segment` is the length of every datagram of the run in bytes, the last excepted, which is what remains (1 to
/// `segment` bytes). 0, or more than the run has, means that the run is one datagram. An empty run has no
/// datagrams. No length makes these functions panic.
pub trait PacketCipher: Send {
    /// How many bytes lie around a body.
    fn overhead(&self) -> Overhead;

    /// The dialect and method of this cipher.
    fn scheme(&self) -> Scheme;

    /// Encrypts every datagram of `run` in place.
    ///
    /// The caller has left [`Overhead::front`] bytes in front of each body and [`Overhead::back`] behind it, of any
    /// content; nonce, checksum or tag are written there. A datagram without room for the overhead has no body: its
    /// bytes are overwritten, so that no clear bytes leave by mistake.
    fn seal(&mut self, run: &mut [u8], segment: usize);

    /// Decrypts every datagram of `run` in place and puts one verdict per datagram into `verdicts` (cleared first).
    ///
    /// After [`Verdict::Ok`] the body lies at `[front .. len - back]` of its datagram; after any other verdict the
    /// bytes of that datagram are unspecified.
    fn open(&mut self, run: &mut [u8], segment: usize, verdicts: &mut Vec<Verdict>);
}

impl fmt::Debug for dyn PacketCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacketCipher")
            .field("scheme", &self.scheme())
            .finish_non_exhaustive()
    }
}

/// The packet cipher of a kcptun method (docs/spec/kcptun.md, section 4.2), for one direction or both.
///
/// `key` comes from [`derive_key`]; each method takes its first [`Method::key_len`] bytes. Making a cipher costs a
/// few microseconds for most methods, some 30 for `blowfish` and about half a millisecond for `xor`; make it once
/// per session or socket.
///
/// Ciphers that seal with the same key must have independent nonce sources; those of one service have them from one [`NonceSpace`].
#[must_use]
pub fn kcptun(method: Method, key: &MasterKey, nonces: NonceSource) -> Box<dyn PacketCipher> {
    kcptun_on(Kernel::best(), method, key, nonces)
}

/// [`kcptun()`] with a chosen kernel, for tests and measurements.
#[must_use]
pub fn kcptun_on(
    kernel: Kernel,
    method: Method,
    key: &MasterKey,
    nonces: NonceSource,
) -> Box<dyn PacketCipher> {
    use framed::CrcFramed;
    match method {
        Method::Aes | Method::Aes192 | Method::Aes128 => {
            aes::aes(method, &key.as_bytes()[..method.key_len()], nonces, kernel)
        }
        Method::Twofish => CrcFramed::boxed(kernel, method, twofish::cfb(key.prefix()), nonces),
        Method::Sm4 => sm4::sm4(key.prefix(), nonces, kernel),
        Method::Blowfish => CrcFramed::boxed(kernel, method, blowfish::cfb(key.prefix()), nonces),
        Method::Cast5 => CrcFramed::boxed(kernel, method, cast5::cfb(key.prefix()), nonces),
        Method::TripleDes => CrcFramed::boxed(kernel, method, des::cfb(key.prefix()), nonces),
        Method::Tea => tea::tea(key.prefix(), nonces, kernel),
        Method::Xtea => tea::xtea(key.prefix(), nonces, kernel),
        Method::Salsa20 => salsa20::salsa20(key.prefix(), nonces, kernel),
        Method::Xor => CrcFramed::boxed(kernel, method, xor::Pad::new(key), nonces),
        Method::None => CrcFramed::boxed(kernel, method, framed::Identity, nonces),
        Method::Aes128Gcm => gcm::aes_128_gcm(key.prefix(), nonces, kernel),
        Method::Null => Box::new(null::Null(Scheme::Kcptun(Method::Null))),
    }
}
