//! AES in CFB: the methods `aes`, `aes-192` and `aes-128` (docs/spec/kcptun.md, section 4.2).

use aes::cipher::{Array, BlockCipherEncrypt, BlockSizeUser, KeyInit, KeySizeUser, consts::U16};
use fulmar_wire::kcptun::Method;

#[cfg(target_arch = "aarch64")]
use crate::arch::aarch64::aes::AesKey;
#[cfg(target_arch = "x86_64")]
use crate::arch::x86_64::{aesni::AesKey, vaes::VaesKey};
use crate::cfb::{Cfb, LaneCipher};
use crate::framed::{CrcFramed, Transform};
use crate::kcptun2016::{Feedback, Lanes};
use crate::kernel::{Kernel, Tier};
use crate::{NonceSource, PacketCipher};

/// The packet cipher of an AES method, for a key of 16, 24 or 32 bytes.
pub(crate) fn aes(
    method: Method,
    key: &[u8],
    nonces: NonceSource,
    kernel: Kernel,
) -> Box<dyn PacketCipher> {
    match key.len() {
        16 => sized::<aes::Aes128Enc, 10, _>(key, kernel, Packets(method, nonces, kernel)),
        24 => sized::<aes::Aes192Enc, 12, _>(key, kernel, Packets(method, nonces, kernel)),
        _ => sized::<aes::Aes256Enc, 14, _>(key, kernel, Packets(method, nonces, kernel)),
    }
}

/// AES-256 in CFB over runs of packets, whatever is in front of them.
pub(crate) fn transform(key: &[u8; 32], kernel: Kernel) -> Box<dyn Transform> {
    sized::<aes::Aes256Enc, 14, _>(key, kernel, Runs)
}

/// AES-256 in CFB over a stream of bytes.
pub(crate) fn feedback(key: &[u8; 32], kernel: Kernel) -> Box<dyn Feedback> {
    sized::<aes::Aes256Enc, 14, _>(key, kernel, Stream)
}

/// What is made of AES, once the kernel is known.
trait Make {
    type Made;
    /// With so many lanes.
    fn make<const L: usize, C: LaneCipher<16> + 'static>(self, cipher: C) -> Self::Made;
}

struct Packets(Method, NonceSource, Kernel);

impl Make for Packets {
    type Made = Box<dyn PacketCipher>;
    fn make<const L: usize, C: LaneCipher<16> + 'static>(self, cipher: C) -> Self::Made {
        CrcFramed::boxed(self.2, self.0, Cfb::<16, L, _>::new(cipher), self.1)
    }
}

struct Runs;

impl Make for Runs {
    type Made = Box<dyn Transform>;
    fn make<const L: usize, C: LaneCipher<16> + 'static>(self, cipher: C) -> Self::Made {
        Box::new(Cfb::<16, L, _>::new(cipher))
    }
}

struct Stream;

impl Make for Stream {
    type Made = Box<dyn Feedback>;
    fn make<const L: usize, C: LaneCipher<16> + 'static>(self, cipher: C) -> Self::Made {
        Box::new(Lanes::<L, _>(cipher))
    }
}

fn sized<A, const R: usize, M: Make>(key: &[u8], kernel: Kernel, make: M) -> M::Made
where
    A: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16> + KeyInit + KeySizeUser + Send + 'static,
{
    match kernel.0 {
        Tier::Portable => {
            let mut whole = Array::<u8, A::KeySize>::default();
            for (to, from) in whole.iter_mut().zip(key) {
                *to = *from;
            }
            make.make::<8, _>(Portable(A::new(&whole)))
        }
        #[cfg(target_arch = "x86_64")]
        Tier::Aesni(token) => make.make::<8, _>(AesKey::<R>::new(token, key)),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx2(token) => make.make::<8, _>(AesKey::<R>::new(token.aesni(), key)),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx512(token) => make.make::<32, _>(VaesKey::<R>::new(token, key)),
        #[cfg(target_arch = "aarch64")]
        Tier::Neon(token) => make.make::<8, _>(AesKey::<R>::new(token, key)),
    }
}

/// AES through the `aes` crate: constant-time bit-sliced code where there are no AES instructions, which takes
/// several blocks for the price of one.
struct Portable<A>(A);

impl<A> LaneCipher<16> for Portable<A>
where
    A: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16> + Send,
{
    fn encrypt<const L: usize>(&self, blocks: &mut [[u8; 16]; L]) {
        self.0
            .encrypt_blocks(Array::cast_slice_from_core_mut(blocks));
    }
}
