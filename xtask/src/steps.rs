//! The steps: each runs programs, shows what they print, and puts the outcome into the [`Tally`].

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::dist;
use crate::flame;
use crate::licences;
use crate::long;
use crate::peers;
use crate::tally::{Tally, Totals};

/// rustfmt finds nothing to change.
pub(crate) fn fmt(tally: &mut Tally) {
    simple(tally, "fmt", cargo(&["fmt", "--all", "--check"]));
}

/// clippy finds nothing to complain about.
pub(crate) fn lint(tally: &mut Tally) {
    simple(
        tally,
        "lint",
        cargo(&[
            "clippy",
            "--locked",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]),
    );
}

/// rustdoc has no warnings.
pub(crate) fn doc(tally: &mut Tally) {
    let mut command = cargo(&["doc", "--locked", "--workspace", "--no-deps"]);
    command.env("RUSTDOCFLAGS", "-D warnings");
    simple(tally, "doc", command);
}

/// All tests of the workspace.
pub(crate) fn unit(tally: &mut Tally) {
    step(tally, "unit", |tally| {
        let mut totals = Totals::default();
        let mut command = cargo(&["test", "--locked", "--workspace", "--no-fail-fast"]);
        let ok = shown(&mut command, |line| totals.add_cargo_test_line(line));
        if totals.skipped > 0 {
            tally.skip(
                0,
                format!("unit: {} tests are marked `#[ignore]`", totals.skipped),
            );
        }
        tally.add("unit", totals, ok);
    });
}

/// The fuzz targets, which form a workspace of their own, compile. What they found is replayed by ordinary tests.
pub(crate) fn fuzz(tally: &mut Tally) {
    if root().join("fuzz/Cargo.toml").exists() {
        let mut command = cargo(&["check", "--locked", "--manifest-path", "fuzz/Cargo.toml"]);
        // Beside the other build products, and shared with nothing: the flags of a fuzz build differ.
        command.env("CARGO_TARGET_DIR", target_dir().join("fuzz"));
        simple(tally, "fuzz", command);
    }
}

/// Every licence is one that deny.toml allows.
pub(crate) fn licences(tally: &mut Tally) {
    step(tally, "licences", |tally| {
        let metadata = cargo(&["metadata", "--locked", "--format-version", "1"])
            .stderr(Stdio::inherit())
            .output();
        let list =
            std::fs::read_to_string(root().join("deny.toml")).map(|text| licences::allowed(&text));
        let refused = match (metadata, list) {
            (Ok(output), Ok(list)) if output.status.success() => {
                licences::refused(&String::from_utf8_lossy(&output.stdout), &list)
            }
            (Err(error), _) | (_, Err(error)) => Err(error.to_string()),
            _ => Err("cargo metadata failed".to_owned()),
        };
        match refused {
            Ok(refused) => {
                for package in &refused {
                    println!("licence not allowed: {package}");
                }
                tally.check("licences", refused.is_empty());
            }
            Err(error) => tally.fail(format!("licences: {error}")),
        }
    });
}

/// cargo-deny, where it is installed.
pub(crate) fn deny(tally: &mut Tally) {
    if cargo(&["deny", "--version"])
        .output()
        .is_ok_and(|o| o.status.success())
    {
        // Advisories need a database from the network: a command of its own (`cargo deny check advisories`).
        simple(
            tally,
            "deny",
            cargo(&["deny", "check", "licenses", "bans", "sources"]),
        );
    } else {
        tally.skip(
            1,
            "deny: cargo-deny is not installed (cargo install cargo-deny --locked)".to_owned(),
        );
    }
}

/// Fulmar against the real programs and itself.
pub(crate) fn interop(tally: &mut Tally, arguments: &[String]) {
    step(tally, "interop", |tally| {
        if !cfg!(target_os = "linux") {
            tally.skip(1, "interop: the rows need Linux".to_owned());
            return;
        }
        for missing in peers::install() {
            tally.skip(0, format!("interop: {missing}"));
        }
        let mut closing = None;
        let mut skips = Vec::new();
        let mut command = cargo(&[
            "run",
            "--locked",
            "--quiet",
            "--package",
            "fulmar-interop",
            "--",
        ]);
        command
            .args(["--write", "docs/compatibility.md"])
            .args(arguments);
        let ok = shown(&mut command, |line| {
            if let Some(skip) = line.strip_prefix("SKIPPED ") {
                skips.push(format!("interop: {}", skip.trim()));
            }
            closing = Totals::from_closing_line(line).or(closing);
        });
        for skip in skips {
            tally.skip(0, skip);
        }
        match closing {
            // `--list` and the like.
            None if ok && !arguments.is_empty() => {}
            None => tally.fail("interop: ended without totals".to_owned()),
            Some(totals) if totals.skipped > 0 && totals.passed + totals.failed == 0 => {
                tally.skip(totals.skipped, "interop: NOTHING was run".to_owned());
            }
            Some(totals) => tally.add("interop", totals, ok),
        }
    });
}

/// Micro benches.
pub(crate) fn bench(tally: &mut Tally, arguments: &[String]) {
    let mut command = cargo(&["bench", "--workspace"]);
    command.args(arguments);
    simple(tally, "bench", command);
}

/// The lab: release builds, measured from outside.
pub(crate) fn lab(tally: &mut Tally, arguments: &[String]) {
    let mut command = cargo(&[
        "run",
        "--quiet",
        "--release",
        "--package",
        "fulmar-lab",
        "--",
    ]);
    command.args(arguments);
    simple(tally, "lab", command);
}

/// A package of the release build.
pub(crate) fn dist(tally: &mut Tally, arguments: &[String]) {
    step(tally, "dist", |tally| {
        if let Some(argument) = arguments.first() {
            tally.fail(format!("dist: takes no argument, so not {argument:?}"));
            return;
        }
        match dist::package(root(), &target_dir().join("dist"), cargo(&[])) {
            Ok(archive) => {
                println!("{}", archive.display());
                tally.check("dist", true);
            }
            Err(error) => tally.fail(format!("dist: {error}")),
        }
    });
}

/// Where both ends of a tunnel spend their time, as pictures.
pub(crate) fn flamegraph(tally: &mut Tally, arguments: &[String]) {
    step(tally, "flamegraph", |tally| {
        flame::flamegraph(tally, root(), &target_dir(), cargo(&[]), arguments);
    });
}

/// Tests that take too long for every change.
pub(crate) fn long(tally: &mut Tally, arguments: &[String]) {
    step(tally, "long", |tally| {
        let cargo = || cargo(&[]);
        long::long(tally, root(), &target_dir(), cargo, arguments);
    });
}

/// Instructions per packet, beside the table.
pub(crate) fn instructions(tally: &mut Tally, arguments: &[String]) {
    step(tally, "instructions", |tally| {
        let mut command = cargo(&[
            "run",
            "--locked",
            "--quiet",
            "--profile",
            "bench",
            "--package",
            "fulmar-instructions",
            "--",
        ]);
        command.args(arguments);
        let (mut closing, mut skips) = (None, Vec::new());
        let ok = shown(&mut command, |line| {
            if let Some(skip) = line.strip_prefix("SKIPPED ") {
                skips.push(format!("instructions: {skip}"));
            }
            closing = Totals::from_closing_line(line).or(closing);
        });
        for skip in skips {
            tally.skip(0, skip);
        }
        match closing {
            Some(totals) if totals.skipped > 0 && totals.passed + totals.failed == 0 && ok => {
                tally.skip(
                    totals.skipped,
                    "instructions: nothing was counted".to_owned(),
                );
            }
            Some(totals) => tally.add("instructions", totals, ok),
            // `--list`, `--update`.
            None if ok => {}
            None => tally.fail("instructions: ended without totals".to_owned()),
        }
    });
}

/// A step that is one command and counts as one check.
fn simple(tally: &mut Tally, name: &str, mut command: Command) {
    step(tally, name, |tally| {
        let ok = command.status().is_ok_and(|status| status.success());
        tally.check(name, ok);
    });
}

fn step(tally: &mut Tally, name: &str, work: impl FnOnce(&mut Tally)) {
    println!("\n==== {name}");
    let begin = Instant::now();
    work(tally);
    tally.timed(name, begin.elapsed());
}

/// Runs a command, shows its standard output line by line and lets `each` look at it. True when it succeeded.
fn shown(command: &mut Command, mut each: impl FnMut(&str)) -> bool {
    let Ok(mut child) = command.stdout(Stdio::piped()).spawn() else {
        return false;
    };
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            each(&line);
        }
    }
    child.wait().is_ok_and(|status| status.success())
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(arguments);
    command
}

/// The folder of the workspace.
fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}
