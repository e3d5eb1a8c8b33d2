//! Network namespaces: a cell that sets firewall rules, needs raw sockets or takes a wildcard address runs in a copy
//! of this program inside a namespace of its own, which has nothing but a loopback interface and vanishes with it.

use std::process::Command;
use std::sync::OnceLock;

use crate::program::{Pair, Programs};
use crate::rows::Observed;

/// How a namespace can be made here: the options of `unshare`.
///
/// # Errors
/// Why none can be made.
pub fn available() -> Result<&'static [&'static str], String> {
    static FLAGS: OnceLock<Result<&'static [&'static str], String>> = OnceLock::new();
    FLAGS.get_or_init(probe).clone()
}

fn probe() -> Result<&'static [&'static str], String> {
    let mut reasons = Vec::new();
    // As root directly; otherwise with a user namespace, where the system permits it.
    for flags in [&["--net"][..], &["--net", "--map-root-user"][..]] {
        match Command::new("unshare")
            .args(flags)
            .args(["sh", "-c", "ip link set lo up"])
            .output()
        {
            Ok(output) if output.status.success() => return Ok(flags),
            Ok(output) => reasons.push(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => reasons.push(format!("unshare: {error}")),
        }
    }
    Err(format!(
        "no network namespace can be made here (run as root): {}",
        reasons.join("; ")
    ))
}

/// Runs one cell in a namespace of its own. Blocks.
///
/// # Errors
/// What the cell reports as a failure, or that it ended without a report.
pub fn run(programs: &Programs, row: usize, pair: Pair) -> Observed {
    let flags = available()?;
    let me = std::env::current_exe().map_err(|e| e.to_string())?;
    let mut command = Command::new("unshare");
    command
        .args(flags)
        .args(["sh", "-c", "ip link set lo up && exec \"$@\"", "sh"])
        .arg(me)
        .args(["--cell", &row.to_string(), pair.code()]);
    // Found or not: the copy need not look again.
    command.env(
        "FULMAR_BIN",
        programs
            .fulmar
            .as_deref()
            .unwrap_or("/nonexistent/fulmar".as_ref()),
    );
    let output = command.output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.lines().last().and_then(|line| line.split_once('\t')) {
        Some(("seen", observation)) => Ok(observation.to_owned()),
        Some(("failed", failure)) => Err(failure.to_owned()),
        _ => Err(format!(
            "the copy in the namespace said nothing: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}

/// The line that [`run`] reads.
#[must_use]
pub fn report(observed: &Observed) -> String {
    let (word, text) = match observed {
        Ok(observation) => ("seen", observation),
        Err(failure) => ("failed", failure),
    };
    format!("{word}\t{}", text.replace(['\n', '\t'], " "))
}
