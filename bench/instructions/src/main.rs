//! `fulmar-instructions`: how many instructions each part spends on a packet, beside a committed table.
//!
//! Times differ by a factor of two between a quiet and a busy hour of the same machine; instructions do not. The
//! program runs itself under valgrind's callgrind, which counts what is executed inside [`count::counted`] and nothing
//! else, so that set-up, the other end, and copies that a socket would make cost nothing. A part that costs more
//! than its row in `bench/instructions.txt` by 3 % (and an instruction) is a failure.
//!
//! What the counts do not show: cache misses, instructions of different weight, AVX-512 (valgrind has none, so ciphers
//! and parity run on their AVX2 kernels), system calls. For those there are the criterion benches and the lab.

// A program that reports to whoever started it: printing is its purpose.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod callgrind;
mod count;
mod parts;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::callgrind::{Failure, Measured};
use crate::count::Parts;
use crate::table::{Outcome, Table};

const USAGE: &str = "\
fulmar-instructions [--update] [--list] [TEXT]
  --update   writes what was counted into the table instead of comparing
  --list     the parts
  TEXT       only parts whose name contains it";

/// What must not depend on the window: the second costs no more than the first.
const ANY_WINDOW: [(&str, &str); 3] = [
    (parts::arq::SEND_SMALL, parts::arq::SEND_LARGE),
    (parts::arq::RECEIVE_SMALL, parts::arq::RECEIVE_LARGE),
    (parts::arq::IDLE_SMALL, parts::arq::IDLE_LARGE),
];

fn main() -> ExitCode {
    let (mut update, mut list, mut work, mut filter) = (false, false, false, None);
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--update" => update = true,
            "--list" => list = true,
            callgrind::WORK => work = true,
            "--help" | "-h" => {
                println!("{USAGE}");
                return ExitCode::SUCCESS;
            }
            option if option.starts_with('-') => {
                eprintln!("unknown argument {option}\n{USAGE}");
                return ExitCode::from(2);
            }
            _ => filter = Some(argument),
        }
    }
    if list || work {
        return match parts::all(&mut Parts::new(filter, work)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(reason) => {
                println!("{}{reason}", callgrind::UNABLE);
                ExitCode::SUCCESS
            }
        };
    }
    match callgrind::measure(filter.as_deref()) {
        Ok(measured) => conclude(&measured, update, filter.is_some()),
        Err(Failure::Unable(reason)) => {
            println!("SKIPPED {reason}");
            println!("0 passed, 0 failed, 1 skipped");
            ExitCode::SUCCESS
        }
        Err(Failure::Broken(reason)) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}

/// Compares with the table, or writes it. `some`: not all parts were measured.
fn conclude(measured: &Measured, update: bool, some: bool) -> ExitCode {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../instructions.txt");
    let old = match Table::read(&path) {
        Ok(table) => table,
        Err(error) => {
            eprintln!("bench/instructions.txt: {error}");
            return ExitCode::FAILURE;
        }
    };
    if measured.parts.is_empty() {
        eprintln!("no part has such a name");
        return ExitCode::from(2);
    }
    let mut verdicts = table::compare(&old, measured, some);
    verdicts.extend(
        ANY_WINDOW
            .iter()
            .filter_map(|(small, large)| table::no_more(measured, small, large)),
    );
    for verdict in &verdicts {
        println!("{}", verdict.text);
    }
    if update {
        if some && old.tools() != Some(measured.tools.as_str()) {
            eprintln!("the table was counted with other tools: --update of all parts, please");
            return ExitCode::FAILURE;
        }
        if let Err(error) = old.updated(measured, some).write(&path) {
            eprintln!("bench/instructions.txt: {error}");
            return ExitCode::FAILURE;
        }
        println!("bench/instructions.txt is written");
        return ExitCode::SUCCESS;
    }
    let number = |outcome| verdicts.iter().filter(|v| v.outcome == outcome).count();
    let (mut failed, mut skipped) = (number(Outcome::Wrong), number(Outcome::Dear));
    // Another compiler or library alone changes counts by more than is allowed.
    if old.tools() == Some(measured.tools.as_str()) {
        failed += std::mem::take(&mut skipped);
    } else if skipped > 0 {
        println!(
            "SKIPPED {skipped} parts that cost more than their rows: those were counted with {}, these with {}",
            old.tools().unwrap_or("something else"),
            measured.tools
        );
    }
    if failed > 0 {
        println!("a cost that is meant: cargo xtask instructions --update");
    }
    println!(
        "{} passed, {failed} failed, {skipped} skipped",
        number(Outcome::Fine)
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
