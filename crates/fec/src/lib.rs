//! Forward error correction: grouping, recovery, auto-tuning.
//!
//! Implements docs/spec/kcptun.md, section 6. Packets go out in groups of `data` packets followed by `parity` packets;
//! any `data` packets of a group give the others back. The code itself is `gf256`'s, the bytes of the headers are
//! `wire`'s; here is what comes when, what is kept, and for how long.
//!
//! | module | what |
//! |---|---|
//! | `shape` | [`Shape`]: how many data and parity packets make a group |
//! | [`encoder`] | [`Encoder`]: numbers outgoing packets, computes parity into the transmit run |
//! | [`decoder`] | [`Decoder`]: keeps what arrived, recovers what did not, finds out the sender's shape |
//! | `groups` | the few newest groups and the pool of their shards |
//! | [`tune`] | the sender's shape from the order of kinds |
#![forbid(unsafe_code)]

mod certainty;
pub mod decoder;
pub mod encoder;
mod groups;
mod shape;
pub mod tune;

pub use decoder::{Accepted, Counters, DecodeError, Decoder, Late};
pub use encoder::Encoder;
pub use fulmar_gf256::Kernel;
pub use shape::{Shape, ShapeError};
