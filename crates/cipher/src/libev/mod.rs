//! The packets of kcptun-libev: ciphertext, tag, nonce (docs/spec/kcptun-libev.md, section 4).
//!
//! This file knows the layout. How a run of bodies is encrypted is behind [`Bodies`]: kernels that make key stream for
//! many packets at once want to see the whole run, others take packet after packet through [`Each`].

mod key;

use aes_gcm::aead::KeyInit;
use fulmar_wire::libev::{ASSOCIATED_DATA, Method, TAG_LEN};

use crate::aead::{Aead, Crate};
#[cfg(target_arch = "x86_64")]
use crate::arch::x86_64::{Aesni, gcm};
use crate::kernel::Kernel;
#[cfg(target_arch = "x86_64")]
use crate::kernel::Tier;
use crate::run::{datagrams, stride};
use crate::secretbox::SecretBox;
#[cfg(target_arch = "x86_64")]
use crate::streams;
use crate::{NonceSource, Overhead, PacketCipher, Scheme, Verdict};

pub use key::{LibevKey, PskError};

/// The packet cipher of a method of kcptun-libev (section 4.1), for one direction or both.
///
/// Making a cipher costs a few microseconds at most. Ciphers that seal with the same key must have independent
/// `nonces`; those of one service have them from one [`NonceSpace`](crate::NonceSpace).
///
/// Packets of which no byte is left beside tag and nonce are [`Verdict::TooShort`]; sealing fills them with zeros.
/// With [`Method::Plain`] there is neither tag nor nonce, and every datagram opens.
#[must_use]
pub fn libev(method: Method, key: &LibevKey, nonces: NonceSource) -> Box<dyn PacketCipher> {
    libev_on(Kernel::best(), method, key, nonces)
}

/// [`libev()`] with a chosen kernel, for tests and measurements.
#[must_use]
pub fn libev_on(
    kernel: Kernel,
    method: Method,
    key: &LibevKey,
    nonces: NonceSource,
) -> Box<dyn PacketCipher> {
    let key = key.as_bytes();
    #[cfg(target_arch = "x86_64")]
    {
        let streams = match kernel.0 {
            Tier::Portable => None,
            Tier::Aesni(token) => streams::bodies(token, method, key),
            Tier::Avx2(token) => streams::bodies(token, method, key),
            Tier::Avx512(token) => streams::bodies(token, method, key),
        };
        if let Some(bodies) = streams {
            return Sealed::boxed(method, bodies, nonces);
        }
    }
    match method {
        Method::XChaCha20Poly1305 => {
            let aead = chacha20poly1305::XChaCha20Poly1305::new(key.into());
            Sealed::boxed(method, Each::<_, 24>(Crate(aead, ASSOCIATED_DATA)), nonces)
        }
        Method::XSalsa20Poly1305 => {
            Sealed::boxed(method, Each::<_, 24>(SecretBox::new(key)), nonces)
        }
        Method::ChaCha20Poly1305 => {
            let aead = chacha20poly1305::ChaCha20Poly1305::new(key.into());
            Sealed::boxed(method, Each::<_, 12>(Crate(aead, ASSOCIATED_DATA)), nonces)
        }
        Method::Aes256Gcm => {
            #[cfg(target_arch = "x86_64")]
            let narrow = |token: Aesni, nonces| {
                let aead = gcm::Gcm::<14>::new(token, key, ASSOCIATED_DATA);
                Sealed::boxed(method, Each::<_, 12>(aead), nonces)
            };
            match kernel.0 {
                #[cfg(target_arch = "x86_64")]
                Tier::Aesni(token) => narrow(token, nonces),
                #[cfg(target_arch = "x86_64")]
                Tier::Avx2(token) => narrow(token.aesni(), nonces),
                #[cfg(target_arch = "x86_64")]
                Tier::Avx512(token) => {
                    let aead = gcm::WideGcm::<14>::new(token, key, ASSOCIATED_DATA);
                    Sealed::boxed(method, Each::<_, 12>(aead), nonces)
                }
                _ => {
                    let aead = aes_gcm::Aes256Gcm::new(key.into());
                    Sealed::boxed(method, Each::<_, 12>(Crate(aead, ASSOCIATED_DATA)), nonces)
                }
            }
        }
        Method::Plain => Box::new(Plain),
    }
}

/// Which of the four encrypting methods opens `datagram` with `key`, or `None`.
///
/// Tells a user whose peer has another method. It costs several microseconds; callers limit how often strangers make
/// them pay. The datagram stays as it is.
#[must_use]
pub fn libev_probe(key: &LibevKey, datagram: &[u8]) -> Option<Method> {
    let mut verdicts = Vec::with_capacity(1);
    Method::SEALED.into_iter().find(|&method| {
        let mut copy = datagram.to_vec();
        libev(method, key, NonceSource::fixed(Vec::new())).open(&mut copy, 0, &mut verdicts);
        verdicts == [Verdict::Ok]
    })
}

/// Encrypts and decrypts the bodies of runs. `stride` is the length of all datagrams but the last.
pub(crate) trait Bodies: Send {
    /// Encrypts every datagram that has a body, with the nonce at its end, and puts the tag between them.
    fn seal(&mut self, run: &mut [u8], stride: usize);

    /// Decrypts the datagrams whose verdicts are [`Verdict::Ok`], all of which have bodies, and turns the verdicts of
    /// those with wrong tags into [`Verdict::Forged`].
    fn open(&mut self, run: &mut [u8], stride: usize, verdicts: &mut [Verdict]);
}

#[cfg(target_arch = "x86_64")]
impl Bodies for Box<dyn Bodies> {
    fn seal(&mut self, run: &mut [u8], stride: usize) {
        (**self).seal(run, stride);
    }

    fn open(&mut self, run: &mut [u8], stride: usize, verdicts: &mut [Verdict]) {
        (**self).open(run, stride, verdicts);
    }
}

/// Body, tag and nonce of a datagram.
pub(crate) type Parts<'a, const NONCE: usize> =
    (&'a mut [u8], &'a mut [u8; TAG_LEN], &'a mut [u8; NONCE]);

/// The parts of a datagram that has a body.
#[inline]
pub(crate) fn parts<const NONCE: usize>(datagram: &mut [u8]) -> Option<Parts<'_, NONCE>> {
    let (rest, nonce) = datagram.split_last_chunk_mut()?;
    let (body, tag) = rest.split_last_chunk_mut()?;
    (!body.is_empty()).then_some((body, tag, nonce))
}

/// An AEAD that takes packet after packet.
struct Each<A, const NONCE: usize>(A);

impl<A: Aead<NONCE>, const NONCE: usize> Bodies for Each<A, NONCE> {
    fn seal(&mut self, run: &mut [u8], stride: usize) {
        for datagram in run.chunks_mut(stride) {
            if let Some((body, tag, nonce)) = parts::<NONCE>(datagram) {
                *tag = self.0.seal(nonce, body);
            }
        }
    }

    fn open(&mut self, run: &mut [u8], stride: usize, verdicts: &mut [Verdict]) {
        for (datagram, verdict) in run.chunks_mut(stride).zip(verdicts) {
            if *verdict == Verdict::Ok
                && let Some((body, tag, nonce)) = parts::<NONCE>(datagram)
                && !self.0.open(nonce, body, tag)
            {
                *verdict = Verdict::Forged;
            }
        }
    }
}

/// The packet cipher: nonces, lengths and the question of who made a packet.
struct Sealed<B> {
    method: Method,
    nonces: NonceSource,
    bodies: B,
}

impl<B: Bodies + 'static> Sealed<B> {
    fn boxed(method: Method, bodies: B, nonces: NonceSource) -> Box<dyn PacketCipher> {
        Box::new(Self {
            method,
            nonces,
            bodies,
        })
    }
}

impl<B: Bodies> PacketCipher for Sealed<B> {
    fn overhead(&self) -> Overhead {
        Overhead {
            front: 0,
            back: self.method.overhead(),
        }
    }

    fn scheme(&self) -> Scheme {
        Scheme::Libev(self.method)
    }

    fn seal(&mut self, run: &mut [u8], segment: usize) {
        let overhead = self.method.overhead();
        for datagram in datagrams(run, segment) {
            if datagram.len() > overhead {
                let at = datagram.len() - self.method.nonce_len();
                self.nonces.fill_at(0, &mut datagram[at..]);
            } else {
                datagram.fill(0);
            }
        }
        let stride = stride(run.len(), segment);
        self.bodies.seal(run, stride);
    }

    fn open(&mut self, run: &mut [u8], segment: usize, verdicts: &mut Vec<Verdict>) {
        let overhead = self.method.overhead();
        verdicts.clear();
        verdicts.extend(datagrams(run, segment).map(|datagram| {
            if datagram.len() <= overhead {
                return Verdict::TooShort;
            }
            let nonce = &datagram[datagram.len() - self.method.nonce_len()..];
            if self.nonces.is_own(nonce) {
                Verdict::Reflected
            } else {
                Verdict::Ok
            }
        }));
        let stride = stride(run.len(), segment);
        self.bodies.open(run, stride, verdicts);
    }
}

/// No method: the body is the datagram.
struct Plain;

impl PacketCipher for Plain {
    fn overhead(&self) -> Overhead {
        Overhead { front: 0, back: 0 }
    }

    fn scheme(&self) -> Scheme {
        Scheme::Libev(Method::Plain)
    }

    fn seal(&mut self, _: &mut [u8], _: usize) {}

    fn open(&mut self, run: &mut [u8], segment: usize, verdicts: &mut Vec<Verdict>) {
        verdicts.clear();
        verdicts.extend(datagrams(run, segment).map(|_| Verdict::Ok));
    }
}
