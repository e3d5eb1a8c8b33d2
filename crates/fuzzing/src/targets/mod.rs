//! The targets, by the crate that they test.

mod cipher;
mod codec;
mod fec;
mod wire;

pub use cipher::cipher_open;
pub use codec::{snappy_decoder, snappy_roundtrip};
pub use fec::{fec_decoder, fec_roundtrip};
pub use wire::{fec_packet, kcp_segments, smux_frames};
