//! Going into the background (docs/spec/kcptun-libev.md, section 14.3), without a fork.
//!
//! A program with threads cannot fork safely, so it starts itself again: the [parent](Stage::Parent) waits until the
//! [child](Stage::Child), in a session of its own, has said that it is ready, prints the child's process id and ends
//! well. What goes wrong before that is said where the parent was started, and the parent ends badly. Standard output
//! of the child is the pipe to the parent, and standard error the parent's, until the child is ready; then both go
//! nowhere.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, parent_id};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::stat::{Mode, umask};
use nix::unistd::{dup2_stderr, dup2_stdout, setsid};

/// Set for the child: the process id of the parent, so that nobody else's environment makes a child, and its name.
const MARK: &str = "FULMAR_DAEMON_PARENT";
/// First word of the child's line when it is ready, before its process id.
const READY: &str = "ready";
/// First word of the child's line when it is not.
const FAILED: &str = "failed";
/// Bytes of a line of the child that are read.
const MAX_LINE: u64 = 64 * 1024;

/// Which process this is.
#[derive(Debug)]
pub(crate) enum Stage {
    /// No daemon is wanted: go on as usual.
    Foreground,
    /// The daemon runs, and its process id was printed: end well.
    Parent,
    /// This is the daemon: go on, and say when all is open.
    Child(Readiness),
}

/// How the daemon tells its parent how it went. A daemon that ends without a word has failed.
#[derive(Debug)]
#[must_use = "the parent waits for it"]
pub(crate) struct Readiness {
    silent: File,
}

impl Readiness {
    /// All is open: the parent ends well, and standard output and error go nowhere from now on.
    ///
    /// # Errors
    /// When the parent is gone, or the streams cannot be turned away.
    pub(crate) fn ready(self) -> io::Result<()> {
        say(&format!("{READY} {}\n", std::process::id()))?;
        dup2_stdout(&self.silent)?;
        dup2_stderr(&self.silent)?;
        Ok(())
    }

    /// It cannot run: the parent says why, and ends badly. The caller ends the process.
    pub(crate) fn failed(self, why: &str) {
        // A parent that is gone cannot be told.
        let _ = say(&format!("{FAILED} {}\n", why.replace('\n', "\u{b}")));
    }
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes())?;
    out.flush()
}

/// Finds out which process this is, and starts the daemon where one is `wanted` and this is not yet it.
///
/// To be called before there are threads or open files: the daemon begins anew with the same arguments.
///
/// # Errors
/// Why there is no daemon; in the child, why it cannot be one.
pub(crate) fn start(wanted: bool) -> Result<Stage, String> {
    if !wanted {
        return Ok(Stage::Foreground);
    }
    let parent = parent_id().to_string();
    let mark = std::env::var(MARK).unwrap_or_default();
    let (id, name) = mark.split_once(' ').unwrap_or((&mark, ""));
    if id == parent {
        set_name(name);
        return become_daemon().map(Stage::Child);
    }
    let program = std::env::current_exe()
        .map_err(|e| format!("the program's own file cannot be found: {e}"))?;
    let args: Vec<OsString> = std::env::args_os().collect();
    let pid = launch(&program, &args)?;
    // Nobody may be there to read it.
    let _ = say(&format!("{pid}\n"));
    Ok(Stage::Parent)
}

/// The name of the process, as `ps`, `pidof` and `killall` know it: the last part of the path that it was started by, which for the
/// daemon is the program's own file and not the symbolic link that somebody uses.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn name() -> String {
    let name = nix::sys::prctl::get_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Elsewhere it is `argv[0]`, which the daemon has as well.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn name() -> String {
    String::new()
}

/// Gives the daemon the [`name`] that its parent had.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn set_name(name: &str) {
    if let Ok(name) = std::ffi::CString::new(name)
        && !name.is_empty()
    {
        // Another name does no harm.
        let _ = nix::sys::prctl::set_name(&name);
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn set_name(_name: &str) {}

/// A session of its own, files as their modes say, nothing on standard error once it is ready.
fn become_daemon() -> Result<Readiness, String> {
    setsid().map_err(|e| format!("there is no new session for the daemon: {e}"))?;
    umask(Mode::empty());
    let silent = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(|e| format!("/dev/null cannot be opened: {e}"))?;
    Ok(Readiness { silent })
}

/// Starts `program` with `args`, its name first, and waits until it is ready: its process id.
fn launch(program: &Path, args: &[OsString]) -> Result<u32, String> {
    let mut command = Command::new(program);
    if let [name, rest @ ..] = args {
        // The name decides whose command line it is.
        command.arg0(name).args(rest);
    }
    let mut child = command
        .env(MARK, format!("{} {}", std::process::id(), name()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("the daemon cannot be started: {e}"))?;
    let said = match child.stdout.take() {
        Some(out) => verdict(out),
        None => None,
    };
    match said {
        Some(Ok(())) => return Ok(child.id()),
        Some(Err(why)) => {
            // It ends by itself now.
            let _ = child.wait();
            return Err(why);
        }
        None => {}
    }
    match child.wait() {
        Ok(status) => Err(format!("the daemon ended before it was ready: {status}")),
        Err(e) => Err(format!("the daemon cannot be waited for: {e}")),
    }
}

/// What the child says; `None` if it ends, or closes the pipe, without a word to us.
fn verdict(out: impl Read) -> Option<Result<(), String>> {
    let mut out = BufReader::new(out);
    loop {
        let mut line = Vec::new();
        let n = (&mut out)
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)
            .ok()?;
        if n == 0 {
            return None;
        }
        let line = String::from_utf8_lossy(&line);
        match line.trim_end().split_once(' ') {
            Some((READY, _)) => return Some(Ok(())),
            Some((FAILED, why)) => return Some(Err(why.replace('\u{b}', "\n"))),
            // Somebody printed something.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_child_says() {
        let verdict = |text: &str| verdict(text.as_bytes());
        assert_eq!(verdict("ready 5\n"), Some(Ok(())));
        assert_eq!(verdict("noise\n\nready 5\n"), Some(Ok(())));
        assert_eq!(verdict("failed a\u{b}b\n"), Some(Err("a\nb".into())));
        assert_eq!(verdict(""), None);
        assert_eq!(verdict("noise"), None);
    }
}
