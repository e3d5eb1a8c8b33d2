//! Tests that take too long for every change: `cargo xtask long NAME`.
//!
//! A run consists of pieces, each an ignored test of at most half an hour. Which of them have passed with the present commit is
//! kept in `target/long`, so a run that was interrupted goes on where it was; `--again` begins anew.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::tally::Tally;

/// A run.
struct Run {
    name: &'static str,
    about: &'static str,
    package: &'static str,
    test: &'static str,
    /// Ignored tests of that test program.
    pieces: &'static [&'static str],
}

const RUNS: [Run; 3] = [
    Run {
        name: "ticks",
        about: "mode auto towards receivers that acknowledge by a clock: every tick, window, path, link, queue and loss",
        package: "fulmar-arq",
        test: "ticks",
        pieces: &[
            "long_tick_10",
            "long_tick_30",
            "long_tick_50",
            "long_tick_100",
            "long_tick_200",
        ],
    },
    Run {
        name: "paths",
        about: "what mode auto gets of a link in the long run: every rate, round trip, loss and queue",
        package: "fulmar-arq",
        test: "paths",
        pieces: &["long_paths"],
    },
    Run {
        name: "adversary",
        about: "100,000 histories of attacks by outsiders for each class of ciphers",
        package: "fulmar-session",
        test: "sim",
        pieces: &[
            "adversary::history::long_authenticated",
            "adversary::history::long_checked",
            "adversary::history::long_open",
        ],
    },
];

/// Runs what `arguments` name.
pub(crate) fn long(
    tally: &mut Tally,
    root: &Path,
    target: &Path,
    cargo: impl Fn() -> Command,
    arguments: &[String],
) {
    let again = arguments.iter().any(|a| a == "--again");
    let mut names = arguments.iter().filter(|a| *a != "--again");
    let (name, more) = (names.next(), names.next());
    let run = RUNS
        .iter()
        .find(|run| Some(run.name) == name.map(String::as_str));
    let (Some(run), None) = (run, more) else {
        println!("cargo xtask long NAME [--again], where NAME is one of");
        for run in &RUNS {
            println!("  {:12}{}", run.name, run.about);
        }
        return tally.fail("long: no such run".to_owned());
    };
    let file = target.join("long").join(run.name);
    let state = state(root);
    let mut passed = Vec::new();
    if !again && let Ok(text) = fs::read_to_string(&file) {
        let mut lines = text.lines().map(str::to_owned);
        if lines.next().as_deref() == Some(state.as_str()) {
            passed.extend(lines);
        }
    }
    for &piece in run.pieces {
        if passed.iter().any(|p| p == piece) {
            println!("{piece}: has passed before with the same sources");
            continue;
        }
        let mut command = cargo();
        command.args(["test", "--locked", "--profile", "bench"]);
        command.args(["--package", run.package, "--test", run.test]);
        command.args(["--", "--ignored", "--exact", "--nocapture", piece]);
        let ok = command.status().is_ok_and(|status| status.success());
        tally.check(&format!("long {} {piece}", run.name), ok);
        if ok {
            passed.push(piece.to_owned());
            let text = format!("{state}\n{}\n", passed.join("\n"));
            let written =
                fs::create_dir_all(target.join("long")).and_then(|()| fs::write(&file, text));
            if let Err(error) = written {
                println!("{}: {error}", file.display());
            }
        }
    }
}

/// The commit, and what differs from it.
fn state(root: &Path) -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .current_dir(root)
            .args(arguments)
            .output();
        output.map_or_else(|_| Vec::new(), |o| o.stdout)
    };
    let commit = String::from_utf8_lossy(&git(&["rev-parse", "HEAD"]))
        .trim()
        .to_owned();
    let difference = git(&["diff", "HEAD"]);
    // FNV-1a: only to be told from another.
    let hash = difference
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    format!("{commit} {hash:016x}")
}
