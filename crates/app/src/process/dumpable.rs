//! Keeps other programs of the same user out of a process that holds keys: no core is written, nobody may trace it or read its memory.
//!
//! It also closes what is in `/proc/PID/fd` to them, which tests and profilers use; so there is a variable that leaves all of it open.
//! Root, and whoever has `CAP_SYS_PTRACE`, is kept out of nothing.

use crate::exit::Exit;

/// The variable that leaves the process open: `yes`.
const VARIABLE: &str = "FULMAR_DUMPABLE";

/// Closes the process, unless the environment says otherwise. To be called before keys are read, and again after the user has changed,
/// because the system then decides anew (`fs.suid_dumpable`). What is executed begins open.
///
/// # Errors
/// When the variable cannot be understood.
pub(crate) fn forbid() -> Result<(), Exit> {
    if !wanted(std::env::var(VARIABLE).ok().as_deref())? {
        close();
    }
    Ok(())
}

/// Whether `value` of the variable leaves the process open.
fn wanted(value: Option<&str>) -> Result<bool, Exit> {
    match value {
        None | Some("" | "no") => Ok(false),
        Some("yes") => Ok(true),
        Some(other) => Err(Exit::usage(format!(
            "environment, {VARIABLE}: {} is neither yes nor no",
            fulmar_config::text::quoted(other)
        ))),
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn close() {
    // It fails for other values only.
    let _ = nix::sys::prctl::set_dumpable(false);
}

/// Other systems have no such switch, or know it as a limit that users set.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn close() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_is_yes_or_no() {
        for (value, open) in [
            (None, false),
            (Some(""), false),
            (Some("no"), false),
            (Some("yes"), true),
        ] {
            assert!(wanted(value).is_ok_and(|is| is == open), "{value:?}");
        }
        match wanted(Some("1")) {
            Err(Exit::Usage(text)) => {
                assert_eq!(
                    text,
                    "environment, FULMAR_DUMPABLE: \"1\" is neither yes nor no"
                );
            }
            other => panic!("{other:?}"),
        }
    }
}
