//! `fulmar-interop`: runs the interoperability rows and prints what came out.
//!
//! Exit status 0 when nothing failed, 1 when something did, 2 when the command line is wrong. The closing line is
//! `N passed, N failed, N skipped`.

// A program that reports to whoever started it: printing is its purpose.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use fulmar_interop::isolation;
use fulmar_interop::program::{Pair, Programs};
use fulmar_interop::rows::{self, Context, Row};
use fulmar_interop::runner::{self, Choice, Outcome, Report, Results};
use fulmar_interop::table;

const USAGE: &str = "\
fulmar-interop [--filter TEXT] [--pairs fk,kf,ff,kk] [--jobs N] [--write FILE] [--list]
  --filter TEXT   only rows whose name contains TEXT
  --pairs LIST    client first: f = Fulmar, k = kcptun; default all, kk only where behaviour is described
  --jobs N        busy tunnels at a time (default: one and a half per processor)
  --write FILE    put the tables between the markers of FILE, when everything was run
  --list          print the names of the rows";

#[derive(Debug)]
struct Options {
    choice: Choice,
    jobs: usize,
    write: Option<PathBuf>,
    list: bool,
    /// Run this one cell here and print its observation: what the copy inside a network namespace does.
    cell: Option<(usize, Pair)>,
}

fn options() -> Result<Options, String> {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let mut options = Options {
        choice: Choice::default(),
        jobs: cores + cores.div_ceil(2),
        write: None,
        list: false,
        cell: None,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} wants a value"));
        match argument.as_str() {
            "--filter" => options.choice.filter = value()?,
            "--pairs" => {
                for code in value()?.split(',') {
                    let pair = Pair::ALL.into_iter().find(|p| p.code() == code);
                    options
                        .choice
                        .pairs
                        .push(pair.ok_or(format!("no pair {code}; known: fk, kf, ff, kk"))?);
                }
            }
            "--jobs" => options.jobs = value()?.parse().map_err(|e| format!("--jobs: {e}"))?,
            "--write" => options.write = Some(value()?.into()),
            "--list" => options.list = true,
            "--cell" => {
                let row = value()?.parse().map_err(|e| format!("--cell: {e}"))?;
                options.cell = Some((row, pair(&value()?)?));
            }
            other => return Err(format!("unknown argument {other}\n{USAGE}")),
        }
    }
    Ok(options)
}

fn pair(code: &str) -> Result<Pair, String> {
    let known = Pair::ALL.into_iter().find(|p| p.code() == code);
    known.ok_or(format!("no pair {code}; known: fk, kf, ff, kk"))
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    let rows = rows::all();
    if options.list {
        for row in &rows {
            println!("{}", row.id());
        }
        return ExitCode::SUCCESS;
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let programs = Programs::find();
    if let Some((row, pair)) = options.cell {
        let observed = match rows.get(row) {
            Some(row) => runtime.block_on(row.run(Context { programs, pair })),
            None => Err(format!("there is no row {row}")),
        };
        println!("{}", isolation::report(&observed));
        return ExitCode::SUCCESS;
    }
    let begin = Instant::now();
    let run = runner::run(&rows, &programs, &options.choice, options.jobs, |report| {
        print(&rows, report);
    });
    let results = runtime.block_on(run);
    // Tunnels of rows that ran into their deadline are torn down here, not leaked.
    runtime.shutdown_timeout(Duration::from_secs(5));
    conclude(&rows, &programs, &options, &results, begin.elapsed())
}

fn print(rows: &[Row], report: &Report) {
    let name = rows.get(report.row).map(Row::id).unwrap_or_default();
    let seconds = report.took.as_secs_f64();
    match &report.outcome {
        Outcome::Passed(seen) => {
            println!("ok      {name} [{}] {seen} ({seconds:.1} s)", report.pair);
        }
        Outcome::Failed(seen) => {
            println!("FAILED  {name} [{}] {seen} ({seconds:.1} s)", report.pair);
        }
        Outcome::Skipped(_) | Outcome::Impossible(_) => {}
    }
}

fn conclude(
    rows: &[Row],
    programs: &Programs,
    options: &Options,
    results: &Results,
    took: Duration,
) -> ExitCode {
    let (passed, failed, skipped) = runner::totals(results);
    let mut reasons: Vec<(&str, usize)> = Vec::new();
    for outcome in results.values() {
        if let Outcome::Skipped(reason) = outcome {
            match reasons.iter_mut().find(|(known, _)| known == reason) {
                Some((_, count)) => *count += 1,
                None => reasons.push((reason, 1)),
            }
        }
    }
    println!();
    for ((index, pair), outcome) in results {
        if let Outcome::Failed(seen) = outcome {
            println!(
                "FAILED  {} [{pair}] {seen}",
                rows.get(*index).map(Row::id).unwrap_or_default()
            );
        }
    }
    for (reason, count) in &reasons {
        println!("SKIPPED {count} cells: {reason}");
    }
    if let Some(path) = &options.write {
        let complete =
            options.choice.filter.is_empty() && options.choice.pairs.is_empty() && skipped == 0;
        if !complete {
            println!(
                "{} keeps its tables: not everything was run",
                path.display()
            );
        } else if let Err(error) = write(path, &table::markdown(rows, results)) {
            println!("FAILED  {}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    }
    let fulmar = programs
        .fulmar
        .as_ref()
        .map_or("missing".to_owned(), |p| p.display().to_string());
    println!("fulmar: {fulmar}; {:.0} s", took.as_secs_f64());
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn write(path: &std::path::Path, tables: &str) -> Result<(), String> {
    let document = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    let new = table::put(&document, tables)?;
    if new != document {
        std::fs::write(path, new).map_err(|e| e.to_string())?;
    }
    Ok(())
}
