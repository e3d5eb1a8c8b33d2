//! What tests share: golden vectors. For tests only. The network emulator is `fulmar-netem`, since the
//! program uses it, too.
#![forbid(unsafe_code)]

pub mod vectors;
