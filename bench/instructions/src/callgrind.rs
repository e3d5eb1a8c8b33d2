//! Runs the parts under callgrind and reads what it counted.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::count::{COUNTED, PART_ENDS};

/// The argument that makes this program do the parts' work.
pub(crate) const WORK: &str = "--work";
/// What it prints in front of the reason when it cannot.
pub(crate) const UNABLE: &str = "unable: ";

/// Keeps glibc from copying by `rep movsb`, each byte of which counts as an instruction.
const COPIES: (&str, &str) = ("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-ERMS");

/// What was counted.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Names, and instructions per packet.
    pub(crate) parts: Vec<(String, f64)>,
    /// The compiler, the C library and valgrind.
    pub(crate) tools: String,
}

/// Why there is nothing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// This machine lacks something.
    Unable(String),
    /// Something went wrong.
    Broken(String),
}

/// Runs the parts whose name contains `filter`, or all.
pub(crate) fn measure(filter: Option<&str>) -> Result<Measured, Failure> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        return Err(Failure::Unable(
            "the table is that of x86-64 Linux".to_owned(),
        ));
    }
    let valgrind = version("valgrind", "--version").ok_or_else(|| {
        Failure::Unable("valgrind is not installed (apt install valgrind)".to_owned())
    })?;
    let compiler = version("rustc", "--version").unwrap_or_else(|| "rustc".to_owned());
    let library = version("getconf", "GNU_LIBC_VERSION").unwrap_or_else(|| "no glibc".to_owned());
    let broken = |error: std::io::Error| Failure::Broken(error.to_string());
    let folder = tempfile::tempdir().map_err(broken)?;
    let out = folder.path().join("out");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "-q"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(format!("--dump-before={PART_ENDS}"))
        .arg(std::env::current_exe().map_err(broken)?)
        .arg(WORK)
        .args(filter)
        .env(COPIES.0, COPIES.1)
        .stderr(Stdio::inherit())
        .output()
        .map_err(broken)?;
    if !output.status.success() {
        return Err(Failure::Broken(format!("valgrind: {}", output.status)));
    }
    let told = String::from_utf8_lossy(&output.stdout);
    if let Some(reason) = told.lines().find_map(|line| line.strip_prefix(UNABLE)) {
        return Err(Failure::Unable(reason.to_owned()));
    }
    let mut parts = Vec::new();
    for (number, line) in (1..).zip(told.lines()) {
        let path = folder.path().join(format!("out.{number}"));
        parts.push(part(line, &path).map_err(Failure::Broken)?);
    }
    Ok(Measured {
        parts,
        tools: format!("{compiler}, {library}, {valgrind}"),
    })
}

/// A line of the work and the file that callgrind wrote at its end.
fn part(line: &str, path: &Path) -> Result<(String, f64), String> {
    let file = std::fs::read_to_string(path).map_err(|e| format!("no count of {line}: {e}"))?;
    let (packets, name) = line
        .split_once('\t')
        .and_then(|(packets, name)| Some((packets.parse::<f64>().ok()?, name)))
        .ok_or_else(|| format!("the work said {line:?}"))?;
    let total = total(&file).ok_or_else(|| format!("callgrind counted nothing for {name}"))?;
    Ok((name.to_owned(), total as f64 / packets))
}

/// The instructions of a file of callgrind's: its summary.
fn total(file: &str) -> Option<u64> {
    let summary = file
        .lines()
        .find_map(|line| line.strip_prefix("summary: "))?;
    let total = summary.split_ascii_whitespace().next()?.parse().ok()?;
    (total > 0).then_some(total)
}

/// The first two words of what a program says about versions.
fn version(program: &str, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout).replace("valgrind-", "valgrind ");
    let words: Vec<_> = said.split_ascii_whitespace().take(2).collect();
    (output.status.success() && words.len() == 2).then(|| words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_the_count() {
        let file = "version: 1\nevents: Ir\n\nsummary: 4711\n\nfn=(1) f\n1 2\ntotals: 4711\n";
        assert_eq!(total(file), Some(4711));
        assert_eq!(total("events: Ir\nsummary: 0\n"), None);
        assert_eq!(total("events: Ir\n"), None);
    }
}
