//! What tests share: golden vectors, a virtual clock's network emulator. For tests only.
#![forbid(unsafe_code)]

pub mod vectors;
