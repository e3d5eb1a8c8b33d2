//! The parts, layer by layer. Each makes its own world, warms it up, and counts some hundred packets.

pub(crate) mod arq;
mod cipher;
mod mux;
mod parity;
mod session;
mod snappy;

use crate::count::Parts;

/// Bytes of a datagram: the default of `--mtu`.
const PACKET: usize = 1350;
/// Bytes of KCP's stream in one: less nonce and checksum, FEC and KCP header.
const PAYLOAD: usize = PACKET - 20 - 8 - 24;
/// The kernels that both valgrind and every present CPU have.
const KERNEL: &str = "avx2";

/// Runs all parts.
///
/// # Errors
/// When the CPU cannot run them.
pub(crate) fn all(parts: &mut Parts) -> Result<(), String> {
    let cipher = fulmar_cipher::Kernel::from_name(KERNEL);
    let parity = fulmar_fec::Kernel::available().find(|kernel| kernel.name() == KERNEL);
    let (Some(cipher), Some(parity)) = (cipher, parity) else {
        return Err(format!("the CPU, or valgrind, has no {KERNEL} kernels"));
    };
    cipher::parts(parts, cipher);
    parity::parts(parts, parity);
    arq::parts(parts);
    mux::parts(parts);
    snappy::parts(parts);
    session::parts(parts, cipher);
    Ok(())
}

/// Bytes that do not compress.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(len).collect()
}
