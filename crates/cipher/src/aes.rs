//! AES in CFB: the methods `aes`, `aes-192` and `aes-128` (spec/kcptun.md, section 3.2).

use aes::cipher::{Array, BlockCipherEncrypt, BlockSizeUser, KeyInit, KeySizeUser, consts::U16};
use fulmar_wire::kcptun::Method;

#[cfg(target_arch = "aarch64")]
use crate::arch::aarch64::aes::AesKey;
#[cfg(target_arch = "x86_64")]
use crate::arch::x86_64::{Aesni, aesni::AesKey, vaes::VaesKey};
use crate::cfb::{Cfb, LaneCipher};
use crate::framed::CrcFramed;
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
        16 => sized::<aes::Aes128Enc, 10>(method, key, nonces, kernel),
        24 => sized::<aes::Aes192Enc, 12>(method, key, nonces, kernel),
        _ => sized::<aes::Aes256Enc, 14>(method, key, nonces, kernel),
    }
}

fn sized<A, const R: usize>(
    method: Method,
    key: &[u8],
    nonces: NonceSource,
    kernel: Kernel,
) -> Box<dyn PacketCipher>
where
    A: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16> + KeyInit + KeySizeUser + Send + 'static,
{
    #[cfg(target_arch = "x86_64")]
    let aesni = |token: Aesni, nonces| {
        CrcFramed::boxed(
            kernel,
            method,
            Cfb::<16, 8, _>::new(AesKey::<R>::new(token, key)),
            nonces,
        )
    };
    match kernel.0 {
        Tier::Portable => {
            let mut whole = Array::<u8, A::KeySize>::default();
            for (to, from) in whole.iter_mut().zip(key) {
                *to = *from;
            }
            let cipher = Portable(A::new(&whole));
            CrcFramed::boxed(kernel, method, Cfb::<16, 8, _>::new(cipher), nonces)
        }
        #[cfg(target_arch = "x86_64")]
        Tier::Aesni(token) => aesni(token, nonces),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx2(token) => aesni(token.aesni(), nonces),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx512(token) => {
            let cipher = VaesKey::<R>::new(token, key);
            CrcFramed::boxed(kernel, method, Cfb::<16, 32, _>::new(cipher), nonces)
        }
        #[cfg(target_arch = "aarch64")]
        Tier::Neon(token) => {
            let cipher = AesKey::<R>::new(token, key);
            CrcFramed::boxed(kernel, method, Cfb::<16, 8, _>::new(cipher), nonces)
        }
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
