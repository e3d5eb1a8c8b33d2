//! `fulmar-lab`: measures tunnels from outside, ours and others, on the same work and the same machine.
//!
//! A case puts a tunnel on plain loopback or over the network emulator, drives it with TCP load that checks every byte,
//! and reports goodput, latency, processor time per gigabyte of both ends, memory, and datagram bytes per useful byte.
//! Tunnels take turns, so that a drift of the machine hits all alike; only ratios within one run mean anything.

// A program that reports to whoever started it: printing is its purpose.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod cases;
mod load;
mod measure;
mod report;

use std::process::ExitCode;

use fulmar_interop::program::Programs;

use crate::cases::{Case, TunnelKind};
use crate::report::Samples;

const USAGE: &str = "\
fulmar-lab [--run NAMES] [--case NAMES] [--repeat N] [--both \"FLAGS\"] [--list]
  --run NAMES    tunnels, separated by commas: fulmar, kcptun, fulmar-kcptun, kcptun-fulmar (client first),
                 each also with -tuned; default fulmar,kcptun,fulmar-tuned,kcptun-tuned
  --case NAMES   default loop-get,loss5-100,game-10,hold-1000
  --repeat N     measurements per tunnel and case; medians are shown (default 3)
  --both FLAGS   more flags for both ends, for example \"--crypt aes-128\"
  --list         the cases";

#[derive(Debug)]
struct Options {
    tunnels: Vec<TunnelKind>,
    cases: Vec<Case>,
    repeat: usize,
    both: String,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(Some(options)) => options,
        Ok(None) => return ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    let programs = Programs::find();
    for tunnel in &options.tunnels {
        if let Some(reason) = programs.missing(tunnel.pair) {
            eprintln!("{}: {reason}", tunnel.name);
            return ExitCode::FAILURE;
        }
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let failed = runtime.block_on(run(&programs, &options));
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs everything and prints a table per case. Returns how many measurements failed.
async fn run(programs: &Programs, options: &Options) -> usize {
    let mut failed = 0;
    for case in &options.cases {
        let mut samples: Vec<Samples> =
            options.tunnels.iter().map(|_| Samples::default()).collect();
        for _ in 0..options.repeat {
            for (tunnel, samples) in options.tunnels.iter().zip(&mut samples) {
                match measure::measure(programs, tunnel, case, &options.both).await {
                    Ok(figures) => samples.push(&figures),
                    Err(error) => {
                        failed += 1;
                        println!("FAILED {} {}: {error}", case.name, tunnel.name);
                    }
                }
            }
        }
        println!("\n{}: {}\n", case.name, case.describe());
        print!("{}", report::table(&options.tunnels, &samples));
    }
    failed
}

fn options() -> Result<Option<Options>, String> {
    let mut names = "fulmar,kcptun,fulmar-tuned,kcptun-tuned".to_owned();
    let mut cases = "loop-get,loss5-100,game-10,hold-1000".to_owned();
    let (mut repeat, mut both) = (3, String::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} wants a value"));
        match argument.as_str() {
            "--run" => names = value()?,
            "--case" => cases = value()?,
            "--repeat" => repeat = value()?.parse().map_err(|e| format!("--repeat: {e}"))?,
            "--both" => both = value()?,
            "--list" => {
                for case in cases::all() {
                    println!("{:12} {}", case.name, case.describe());
                }
                return Ok(None);
            }
            other => return Err(format!("unknown argument {other}\n{USAGE}")),
        }
    }
    let tunnels = names
        .split(',')
        .map(TunnelKind::named)
        .collect::<Result<_, _>>()?;
    let cases = cases
        .split(',')
        .map(Case::named)
        .collect::<Result<_, _>>()?;
    Ok(Some(Options {
        tunnels,
        cases,
        repeat,
        both,
    }))
}
