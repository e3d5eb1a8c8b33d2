//! `cargo xtask flamegraph`: where both ends of a tunnel spend their processor time.
//!
//! The program is built with symbols in a target folder of its own and put under the load of `cargo xtask lab`; perf
//! attaches to either end as it starts. Out come `flame-server.svg`, `flame-client.svg` and, on the terminal, the largest
//! costs.
//!
//! Stacks are followed by unwind tables, not frame pointers: C libraries have none, so calls through them would lose
//! their callers.

mod stacks;
mod svg;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::tally::Tally;
use stacks::Profile;

/// Samples per second of processor time. A prime: nothing that happens every millisecond hides from it.
const HERTZ: u32 = 997;
/// How long perf may take to finish its file.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of stack that are kept per sample. What lies below is the scaffold of the runtime.
const STACK: u32 = 16_384;
const ENDS: [&str; 2] = ["server", "client"];

/// What the command line says.
struct Options {
    /// Where the pictures go.
    out: PathBuf,
    /// What the lab is told.
    lab: Vec<String>,
}

/// Builds, records and draws. `arguments`: `--out DIR`, and what fulmar-lab understands.
pub(crate) fn flamegraph(
    tally: &mut Tally,
    root: &Path,
    target: &Path,
    mut cargo: Command,
    arguments: &[String],
) {
    if !cfg!(target_os = "linux") || !runs("perf") {
        let why = "flamegraph: needs Linux and perf (Debian: apt install linux-perf)";
        tally.skip(1, why.to_owned());
        return;
    }
    let options = match options(root, arguments) {
        Ok(options) => options,
        Err(error) => return tally.fail(format!("flamegraph: {error}")),
    };
    let target = target.join("flame");
    cargo
        .args(["build", "--locked", "--profile", "bench"])
        .args(["--package", "fulmar", "--package", "fulmar-lab"])
        .env("CARGO_TARGET_DIR", &target);
    if !cargo.status().is_ok_and(|status| status.success()) {
        return tally.fail("flamegraph: the build".to_owned());
    }
    match record(&target, &options) {
        Ok(()) => tally.check("flamegraph", true),
        Err(error) => tally.fail(format!("flamegraph: {error}")),
    }
}

impl Options {
    /// The load in words: the case and the flags, if any.
    fn load(&self) -> String {
        let last = |name: &str| {
            let at = self.lab.iter().rposition(|argument| argument == name)?;
            self.lab.get(at + 1)
        };
        let case = last("--case").map_or("", String::as_str);
        match last("--both") {
            Some(flags) => format!("{case}, {flags}"),
            None => format!("{case}, defaults"),
        }
    }
}

fn options(root: &Path, arguments: &[String]) -> Result<Options, String> {
    let mut options = Options {
        out: root.join("docs/img"),
        // What comes later counts.
        lab: ["--run", "fulmar", "--case", "loop-get", "--repeat", "1"]
            .map(str::to_owned)
            .to_vec(),
    };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        if argument == "--out" {
            options.out = arguments.next().ok_or("--out wants a folder")?.into();
        } else {
            options.lab.push(argument.clone());
        }
    }
    Ok(options)
}

/// Runs the lab with a program that perf watches, and draws what perf saw.
fn record(target: &Path, options: &Options) -> Result<(), String> {
    let folder = target.join("record");
    let _ = std::fs::remove_dir_all(&folder);
    let text = |error: std::io::Error| error.to_string();
    std::fs::create_dir_all(&folder).map_err(text)?;
    let built = target.join("release");
    let watched = watched(&folder, &built.join("fulmar"))?;
    let lab = Command::new(built.join("fulmar-lab"))
        .args(&options.lab)
        .env("FULMAR_BIN", &watched)
        .env("FULMAR_DUMPABLE", "yes")
        .status()
        .map_err(text)?;
    if !lab.success() {
        return Err("the load failed".to_owned());
    }
    std::fs::create_dir_all(&options.out).map_err(text)?;
    for end in ENDS {
        finished(&folder, end)?;
        let output = Command::new("perf")
            .args(["script", "--no-inline", "-F", "comm,ip,sym,dso", "-i"])
            .arg(folder.join(format!("{end}.data")))
            .stderr(Stdio::null())
            .output()
            .map_err(text)?;
        let profile = Profile::parse(&String::from_utf8_lossy(&output.stdout));
        if !profile.has_ours() {
            return Err(format!("perf saw no function of ours in the {end}"));
        }
        let name = format!("flame-{end}.svg");
        let heading = format!("fulmar {end}, {}", options.load());
        let picture = svg::draw(&profile, &heading, HERTZ);
        std::fs::write(options.out.join(&name), picture).map_err(text)?;
        println!("\n{name}: {} samples", profile.total());
        print!("{}", profile.summary());
    }
    Ok(())
}

/// A program that has perf look at it and then becomes `fulmar`. So it keeps its process number, and whoever stops it
/// stops `fulmar`; perf ends when its subject does.
fn watched(folder: &Path, fulmar: &Path) -> Result<PathBuf, String> {
    let (folder, fulmar) = (quoted(folder)?, quoted(fulmar)?);
    let script = format!(
        "#!/bin/sh\n\
         cd {folder} || exit 1\n\
         ( perf record -q -g --call-graph=dwarf,{STACK} -F {HERTZ} -o \"$1.data\" -p $$ 2>\"$1.log\"; : >\"$1.done\" ) \
         </dev/null >/dev/null 2>&1 &\n\
         exec {fulmar} \"$@\"\n"
    );
    let path = Path::new(folder.trim_matches('\'')).join("fulmar");
    std::fs::write(&path, script).map_err(|e| e.to_string())?;
    let made = Command::new("chmod").arg("+x").arg(&path).status();
    match made {
        Ok(status) if status.success() => Ok(path),
        _ => Err("chmod failed".to_owned()),
    }
}

/// A path as the shell takes it.
fn quoted(path: &Path) -> Result<String, String> {
    match path.to_str() {
        Some(text) if !text.contains('\'') => Ok(format!("'{text}'")),
        _ => Err(format!("{} has a quote in it", path.display())),
    }
}

/// Waits until perf has written everything about an end.
fn finished(folder: &Path, end: &str) -> Result<(), String> {
    let begin = Instant::now();
    while !folder.join(format!("{end}.done")).exists() {
        if begin.elapsed() > PATIENCE {
            return Err(format!("perf does not end with the {end}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    if folder.join(format!("{end}.data")).exists() {
        return Ok(());
    }
    let log = std::fs::read_to_string(folder.join(format!("{end}.log"))).unwrap_or_default();
    Err(format!(
        "perf recorded nothing of the {end}: {}",
        log.trim()
    ))
}

fn runs(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdout(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_later_counts() {
        let parsed = |arguments: &[&str]| {
            let arguments: Vec<_> = arguments.iter().map(|a| (*a).to_owned()).collect();
            options(Path::new("root"), &arguments).map(|options| (options.load(), options.out))
        };
        let out = PathBuf::from("root/docs/img");
        assert_eq!(
            parsed(&[]),
            Ok(("loop-get, defaults".to_owned(), out.clone()))
        );
        assert_eq!(
            parsed(&["--case", "loop-put", "--both", "--crypt null"]),
            Ok(("loop-put, --crypt null".to_owned(), out))
        );
        assert_eq!(
            parsed(&["--out", "x"]),
            Ok(("loop-get, defaults".to_owned(), PathBuf::from("x")))
        );
        assert!(parsed(&["--out"]).is_err());
    }

    #[test]
    fn paths_survive_the_shell() {
        assert_eq!(quoted(Path::new("a b/$c")).as_deref(), Ok("'a b/$c'"));
        assert!(quoted(Path::new("a'b")).is_err());
    }
}
