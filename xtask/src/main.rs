//! `cargo xtask <command>`: everything that is checked, by the same command on a laptop and on a build machine.
//!
//! `cargo xtask test` is the whole of it. Every part is a command of its own. A part that fails does not stop the
//! others; the closing line is `N passed, N failed, N skipped`, what was skipped is said above it with the reason,
//! and the exit status is 1 when anything failed.

// A program for people at a terminal: printing is its purpose.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod dist;
mod flame;
mod licences;
mod long;
mod peers;
mod steps;
mod tally;

use std::process::ExitCode;

use tally::Tally;

const USAGE: &str = "\
cargo xtask <command>

  test          fmt, lint, licences, unit, doc, fuzz, interop: all that a change must pass
  fmt           rustfmt finds nothing to change
  lint          clippy finds nothing to complain about
  licences      every dependency has a licence that deny.toml allows
  unit          cargo test of the whole workspace
  doc           rustdoc without warnings
  fuzz          the fuzz targets compile
  interop       Fulmar against the real kcptun and itself; rewrites the tables of docs/compatibility.md
                (arguments go to fulmar-interop: --filter TEXT, --pairs fk,kf,ff,kk, --list ...)
  deny          cargo-deny with deny.toml, where it is installed
  bench         cargo bench of the whole workspace (arguments go to cargo)
  instructions  what each part spends on a packet, beside bench/instructions.txt; needs valgrind
                (arguments go to fulmar-instructions: --update, --list, TEXT)
  dist          the release build as a package: target/dist/fulmar-VERSION-TARGET.tar.gz with the program, manual pages,
                completions and the systemd unit; free of symbols and of paths of this machine
  long          tests that take too long for every change, in pieces, resumable: long NAME [--again]; a wrong name lists them
  lab           measures the release build beside others (arguments go to fulmar-lab: --list, --case ...)
  flamegraph    docs/img/flame-server.svg and flame-client.svg of the lab's loop-get, and the largest costs; needs perf
                (--out DIR; other arguments go to fulmar-lab: --case loop-put, --both \"--crypt null\" ...)";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    let mut tally = Tally::default();
    match command.as_str() {
        "test" => {
            // Tests use what these packages bring, too; what cannot be had is said by the step that needs it most.
            let _ = peers::install();
            for step in [
                steps::fmt,
                steps::lint,
                steps::licences,
                steps::unit,
                steps::doc,
                steps::fuzz,
            ] {
                step(&mut tally);
            }
            steps::interop(&mut tally, &rest);
        }
        "fmt" => steps::fmt(&mut tally),
        "lint" => steps::lint(&mut tally),
        "licences" => steps::licences(&mut tally),
        "unit" => steps::unit(&mut tally),
        "doc" => steps::doc(&mut tally),
        "fuzz" => steps::fuzz(&mut tally),
        "interop" => steps::interop(&mut tally, &rest),
        "deny" => steps::deny(&mut tally),
        "bench" => steps::bench(&mut tally, &rest),
        "instructions" => steps::instructions(&mut tally, &rest),
        "flamegraph" => steps::flamegraph(&mut tally, &rest),
        "lab" => steps::lab(&mut tally, &rest),
        "long" => steps::long(&mut tally, &rest),
        "dist" => steps::dist(&mut tally, &rest),
        "" | "help" | "--help" | "-h" => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        unknown => {
            eprintln!("there is no command {unknown:?}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    }
    tally.conclude()
}
