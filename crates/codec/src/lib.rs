//! Byte-stream transformations: snappy framing and QPP.
//!
//! Both sit on byte streams, not on packets: [`snappy`] between the mux and the reliable stream of a
//! session (one instance per direction and session), [`qpp`] between an application's bytes and the mux
//! (one instance per mux stream). Neither does I/O, reads a clock or knows what the bytes mean.
#![forbid(unsafe_code)]

pub mod qpp;
pub mod snappy;
