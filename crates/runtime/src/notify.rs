//! Telling the service manager how far the program is: systemd's `Type=notify`, `notify-reload` and `WatchdogSec`
//! (docs/spec/kcptun-libev.md, section 14.5). Nothing happens where nobody asked to be told.
//!
//! The program says READY as soon as its local addresses are open, and goes on without what else it needs. Code that lacks something
//! says so with [`missing`]; systemd then shows it as the status of the service:
//!
//! ```
//! use fulmar_runtime::notify;
//!
//! let lacking = notify::missing("vps.example does not resolve");
//! // … later, when it does:
//! drop(lacking);
//! ```

#[cfg_attr(not(unix), path = "notify/absent.rs")]
mod socket;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::log_kind;
use tracing::debug;

/// The variable that says how long the service manager waits for a sign of life, in microseconds.
const WATCHDOG: &str = "WATCHDOG_USEC";
/// The variable that says whose signs of life it waits for.
const WATCHDOG_PROCESS: &str = "WATCHDOG_PID";
/// Bytes of a status line; systemd shows one line of a terminal.
const MAX_STATUS: usize = 512;

/// What the status line is made of.
struct Status {
    /// What the program does, once it is ready.
    running: Option<String>,
    /// What it lacks, by number.
    missing: BTreeMap<u64, String>,
    last: u64,
}

static STATUS: Mutex<Status> = Mutex::new(Status {
    running: None,
    missing: BTreeMap::new(),
    last: 0,
});

fn status() -> MutexGuard<'static, Status> {
    STATUS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Status {
    /// The line that systemd shows, ended; empty before the program is ready.
    fn line(&self) -> String {
        let Some(running) = &self.running else {
            return String::new();
        };
        let missing: Vec<_> = self.missing.values().map(String::as_str).collect();
        let mut text = match missing.is_empty() {
            true => running.clone(),
            false => format!("{running}; missing: {}", missing.join("; ")),
        };
        // A line break would begin another assignment.
        text = text.replace(char::is_control, " ");
        let mut end = text.len().min(MAX_STATUS);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        format!("STATUS={}\n", &text[..end])
    }
}

/// Something that the program runs without and looks for. The status of the service names it until this is dropped.
#[derive(Debug)]
#[must_use = "dropped, it is no longer missing"]
pub struct Missing(u64);

/// Names something that is missing, in few words: `vps.example does not resolve`. It does not keep the service from being
/// ready, and may be called at any time.
pub fn missing(what: impl Into<String>) -> Missing {
    let mut status = status();
    status.last += 1;
    let id = status.last;
    status.missing.insert(id, what.into());
    show(status);
    Missing(id)
}

impl Drop for Missing {
    fn drop(&mut self) {
        let mut status = status();
        status.missing.remove(&self.0);
        show(status);
    }
}

/// Sends the status line, if the program is ready.
fn show(status: MutexGuard<'_, Status>) {
    let line = status.line();
    drop(status);
    if !line.is_empty() {
        tell(&line);
    }
}

/// The program runs, or runs again after a reload. `running` says what it does, for the status line: `listening on …`.
pub fn ready(running: impl Into<String>) {
    let mut status = status();
    status.running = Some(running.into());
    let line = status.line();
    drop(status);
    tell(&format!("READY=1\n{line}"));
}

/// The program reads its configuration again; [`reloaded`] follows. Before it is [`ready`] nobody is told: that would make it so.
pub fn reloading() {
    if status().running.is_none() {
        return;
    }
    match socket::monotonic_us() {
        Ok(us) => tell(&reload_text(us)),
        Err(e) => {
            debug!(name: log_kind::SERVICE_MANAGER, "the service manager was not told of a reload: {e}");
        }
    }
}

/// The reload is over, well or not: the program runs as before.
pub fn reloaded() {
    let line = status().line();
    if !line.is_empty() {
        tell(&format!("READY=1\n{line}"));
    }
}

/// The program is about to end.
pub fn stopping() {
    tell("STOPPING=1\nSTATUS=stopping\n");
}

/// Shows the service manager that the program is alive, as often as it asked for (`WatchdogSec`), for as long as this is polled:
/// a runtime that no longer gets to its tasks is restarted. Never completes; does nothing when nobody asked.
pub async fn watchdog() {
    let Some(limit) = watchdog_limit(|name| std::env::var(name).ok()) else {
        return std::future::pending().await;
    };
    // Twice as often as demanded, as sd_watchdog_enabled(3) advises.
    let mut tick = tokio::time::interval((limit / 2).max(Duration::from_millis(1)));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        // By way of the threads that do the work: where none of them gets to it, the sign is missing.
        if tokio::spawn(async {}).await.is_ok() {
            tell("WATCHDOG=1\n");
        }
    }
}

/// How long the service manager waits for a sign of life of this process.
fn watchdog_limit(variable: impl Fn(&str) -> Option<String>) -> Option<Duration> {
    let us: u64 = variable(WATCHDOG)?.parse().ok().filter(|us| *us > 0)?;
    let ours = variable(WATCHDOG_PROCESS)
        .is_none_or(|id| id.is_empty() || id == std::process::id().to_string());
    ours.then_some(Duration::from_micros(us))
}

/// A reload is told apart from others by the time at which it began, in microseconds.
fn reload_text(us: u64) -> String {
    format!("RELOADING=1\nMONOTONIC_USEC={us}\nSTATUS=reading the configuration again\n")
}

/// Tells the service manager. One that cannot be told must not stop a tunnel.
fn tell(text: &str) {
    if let Err(e) = socket::tell(text) {
        debug!(name: log_kind::SERVICE_MANAGER, "the service manager was not told: {e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(running: Option<&str>, missing: &[&str]) -> Status {
        Status {
            running: running.map(str::to_owned),
            missing: (1..).zip(missing.iter().map(|s| (*s).to_owned())).collect(),
            last: 9,
        }
    }

    #[test]
    fn the_status_names_what_is_missing() {
        assert_eq!(with(None, &["a"]).line(), "");
        assert_eq!(with(Some("up"), &[]).line(), "STATUS=up\n");
        let both = with(Some("up"), &["a does not resolve", "b\nREADY=0"]);
        assert_eq!(
            both.line(),
            "STATUS=up; missing: a does not resolve; b READY=0\n"
        );
        let long = "ö".repeat(MAX_STATUS);
        let line = with(Some(&long), &[]).line();
        assert!(line.len() <= "STATUS=\n".len() + MAX_STATUS && line.ends_with('\n'));
    }

    #[test]
    fn missing_until_it_is_dropped() {
        let here = |text: &str| status().missing.values().any(|what| what == text);
        let name = "a name of this test";
        let lacking = missing(name);
        assert!(here(name));
        drop(lacking);
        assert!(!here(name));
    }

    #[test]
    fn a_reload_says_when() {
        let us = socket::monotonic_us();
        assert!(us.is_ok_and(|us| us > 0) || cfg!(not(unix)));
        assert!(reload_text(7).starts_with("RELOADING=1\nMONOTONIC_USEC=7\n"));
    }

    #[test]
    fn the_watchdog_is_this_process_s() {
        let limit = |us: &str, id: Option<&str>| {
            watchdog_limit(|name| match name {
                WATCHDOG => Some(us.to_owned()),
                _ => id.map(str::to_owned),
            })
        };
        let me = std::process::id().to_string();
        assert_eq!(limit("5000000", None), Some(Duration::from_secs(5)));
        assert_eq!(limit("5000000", Some(&me)), Some(Duration::from_secs(5)));
        assert_eq!(limit("5000000", Some("1")), None);
        for bad in ["", "0", "-1", "x"] {
            assert_eq!(limit(bad, None), None, "{bad}");
        }
        assert_eq!(watchdog_limit(|_| None), None);
    }
}
