//! `fulmar demo`: everything in one process.

use clap::ArgMatches;

use crate::exit::Exit;
use crate::launch::{self, Demo};

/// Runs the demonstration.
pub(crate) fn demo(matches: &ArgMatches) -> Result<(), Exit> {
    let number = |name: &str| matches.get_one::<u32>(name).copied().unwrap_or_default();
    let demo = Demo {
        megabytes: number("size"),
        loss_percent: matches.get_one::<u8>("loss").copied().unwrap_or_default(),
        rtt_ms: number("rtt"),
        rate_mbit: number("rate"),
        seed: matches.get_one::<u64>("seed").copied().unwrap_or_default(),
    };
    launch::demo(demo).map_err(|e| Exit::failed(e.to_string()))
}
