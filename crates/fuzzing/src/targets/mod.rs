//! The targets, by the crate that they test; those of kcptun-libev's machines by the machine.

mod arq;
mod cipher;
mod codec;
mod config;
mod fec;
mod libev_control;
mod libev_endpoint;
mod libev_stream;
mod mux;
mod rawtcp;
mod session;
mod wire;

pub use arq::kcp_input;
pub use cipher::{cipher_open, sealed_libev};
pub use codec::{snappy_decoder, snappy_roundtrip};
pub use config::{command_line, config_json, libev_json, sip003_options};
pub use fec::{fec_decoder, fec_roundtrip};
pub use libev_control::session0;
pub use libev_endpoint::libev_endpoint;
pub use libev_stream::libev_stream;
pub use mux::{smux_input, smux_pair, yamux_input};
pub use rawtcp::rawtcp_packet;
pub use session::{kcptun2016_endpoint, session_endpoint};
pub use wire::{fec_packet, kcp_segments, smux_frames};
