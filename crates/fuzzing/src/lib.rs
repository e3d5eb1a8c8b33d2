//! Bodies of the fuzz targets: one function per parser or machine that meets bytes from outside.
//!
//! A target takes any bytes and panics when something is wrong: when the code under test panics, returns
//! what it must not, or holds more than its limit. The functions live here and not in the fuzz workspace,
//! so that ordinary tests compile them and replay their corpora; `fuzz/fuzz_targets` holds a stub per function for
//! coverage-guided runs:
//!
//! ```text
//! cargo +nightly fuzz run snappy_decoder          # in the root of the repository
//! cargo run -p fulmar-fuzzing --example seeds     # writes the seeds in fuzz/corpus anew, from the golden vectors
//! ```
//!
//! To add a target: write it below `targets`, name it in [`for_each_target`], give it seeds in
//! `examples/seeds`, run that, and let the test `stubs_match_the_targets` say what the stub has to look like.
#![forbid(unsafe_code)]

mod input;
mod targets;

pub use input::Script;
pub use targets::*;

/// Calls the macro `$each` with the names of all targets.
#[macro_export]
macro_rules! for_each_target {
    ($each:ident) => {
        $each! {
            cipher_open
            command_line
            config_json
            fec_decoder
            fec_packet
            fec_roundtrip
            kcp_input
            kcp_segments
            kcptun2016_endpoint
            libev_endpoint
            libev_json
            libev_stream
            rawtcp_packet
            sealed_libev
            session0
            session_endpoint
            sip003_options
            smux_frames
            smux_input
            smux_pair
            snappy_decoder
            snappy_roundtrip
            yamux_input
        }
    };
}

/// A target and its name, which is also that of its corpus folder.
#[derive(Copy, Clone, Debug)]
pub struct Target {
    /// The name.
    pub name: &'static str,
    /// The body.
    pub run: fn(&[u8]),
}

macro_rules! table {
    ($($name:ident)*) => {
        /// All targets, by name.
        pub const TARGETS: &[Target] = &[$(Target { name: stringify!($name), run: $name }),*];
    };
}
for_each_target!(table);
