//! One running child: its log, its end, and the certainty that it does not outlive the test.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::place::Listener;

/// How often a condition is looked at while it is waited for.
const LOOK: Duration = Duration::from_millis(10);

/// A child process with everything it prints in one file. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; stdout and stderr are appended to `log`.
    ///
    /// # Errors
    /// When the log cannot be opened or the program cannot be started.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> io::Result<Self> {
        let out = File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()?;
        Ok(Self {
            child,
            name: name.to_owned(),
            log: log.to_path_buf(),
        })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has printed so far.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Its exit status, when it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits until all listeners exist. Fails when the process ends first, or when `limit` passes.
    ///
    /// # Errors
    /// A sentence with the last lines of the log.
    pub async fn ready(&mut self, listeners: &[Listener], limit: Duration) -> Result<(), String> {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended() {
                return Err(format!(
                    "{} ended at once ({status}): {}",
                    self.name,
                    self.tail(3)
                ));
            }
            match listeners.iter().find(|l| !l.exists(self.pid())) {
                None => return Ok(()),
                Some(missing) if Instant::now() > until => {
                    return Err(format!(
                        "{} does not listen on {missing:?}: {}",
                        self.name,
                        self.tail(3)
                    ));
                }
                Some(_) => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// Waits until a line of the log satisfies `wanted` and returns it.
    pub async fn logged(&self, limit: Duration, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let until = Instant::now() + limit;
        loop {
            if let Some(line) = self.log().lines().find(|l| wanted(l)) {
                return Some(line.to_owned());
            }
            if Instant::now() > until {
                return None;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits for its end.
    pub async fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + limit;
        loop {
            let status = self.ended();
            if status.is_some() || Instant::now() > until {
                return status;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Sends a signal by name (`TERM`, `INT`, `STOP`, ...).
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn signal(&self, name: &str) -> io::Result<()> {
        // The shell's own `kill`: present on every system, and no system call of ours.
        let status = Command::new("sh")
            .args(["-c", &format!("kill -{name} {}", self.pid())])
            .status()?;
        if status.success() {
            Ok(())
        } else {
            Err(io::Error::other("kill failed"))
        }
    }

    /// The counters that it prints on SIGUSR1 (`KCP SNMP:&{Name:value ...}`), by name.
    pub async fn counters(&self, limit: Duration) -> Option<BTreeMap<String, u64>> {
        const MARK: &str = "KCP SNMP:&{";
        let before = self.log().matches(MARK).count();
        self.signal("USR1").ok()?;
        let until = Instant::now() + limit;
        while Instant::now() < until {
            let log = self.log();
            // The closing brace shows that the line is complete.
            if let Some((body, _)) = log
                .split(MARK)
                .skip(1)
                .nth(before)
                .and_then(|rest| rest.split_once('}'))
            {
                let pairs = body
                    .split_ascii_whitespace()
                    .filter_map(|entry| entry.split_once(':'));
                return Some(
                    pairs
                        .filter_map(|(name, n)| Some((name.to_owned(), n.parse().ok()?)))
                        .collect(),
                );
            }
            tokio::time::sleep(LOOK).await;
        }
        None
    }

    /// Kills it, as a power cut would, and reaps it.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The last `n` lines of the log, on one line.
    #[must_use]
    pub fn tail(&self, n: usize) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().filter(|l| !l.trim().is_empty()).collect();
        let last = &lines[lines.len().saturating_sub(n)..];
        if last.is_empty() {
            "(nothing in its log)".to_owned()
        } else {
            last.join(" / ")
        }
    }

    /// What no healthy program prints: a panic of either language's kind.
    #[must_use]
    pub fn crashed(&self) -> Option<String> {
        self.log()
            .lines()
            .find(|l| {
                l.starts_with("panic: ")
                    || l.starts_with("fatal error: ")
                    || l.contains("panicked at")
            })
            .map(str::to_owned)
    }

    /// Processor time used so far, user and system.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        let stat =
            std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        // Fields 14 and 15, counted after the name, which may contain blanks. In ticks of 1/100 s on every Linux.
        let fields = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_ascii_whitespace()
            .skip(11)
            .take(2);
        Duration::from_millis(fields.filter_map(|f| f.parse::<u64>().ok()).sum::<u64>() * 10)
    }

    /// Largest resident memory so far, in KiB.
    #[must_use]
    pub fn peak_kib(&self) -> u64 {
        self.status_kib("VmHWM:")
    }

    /// Resident memory of its own, without the pages of the program and its libraries, in KiB.
    #[must_use]
    pub fn anonymous_kib(&self) -> u64 {
        self.status_kib("RssAnon:")
    }

    fn status_kib(&self, field: &str) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find_map(|l| l.strip_prefix(field));
        line.and_then(|l| l.split_ascii_whitespace().next())
            .and_then(|n| n.parse().ok())
            .unwrap_or(0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn log_end_and_death() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut p = Process::start(
            "sh",
            Command::new("sh").args(["-c", "echo one; echo two >&2; exit 3"]),
            &log,
        )
        .unwrap();
        assert_eq!(
            p.wait(Duration::from_secs(20)).await.and_then(|s| s.code()),
            Some(3)
        );
        assert_eq!(p.tail(2), "one / two");
        let error = p
            .ready(
                &[Listener::Unix("/nonexistent/x".into())],
                Duration::from_secs(1),
            )
            .await;
        assert!(error.unwrap_err().contains("ended at once"));

        let p = Process::start("sleep", Command::new("sleep").arg("1000"), &log).unwrap();
        let stat = format!("/proc/{}/stat", p.pid());
        assert!(Path::new(&stat).exists());
        drop(p);
        assert!(!Path::new(&stat).exists());
    }

    #[tokio::test]
    async fn signals_reach_the_child() {
        let dir = tempfile::tempdir().unwrap();
        let script = "trap 'echo caught; exit 7' TERM; trap 'echo \"KCP SNMP:&{InPkts:5 LostSegs:0}\"' USR1; \
                      echo set; while :; do sleep 0.01; done";
        let mut p = Process::start(
            "sh",
            Command::new("sh").args(["-c", script]),
            &dir.path().join("log"),
        )
        .unwrap();
        assert!(
            p.logged(Duration::from_secs(20), |l| l == "set")
                .await
                .is_some()
        );
        for _ in 0..2 {
            let counters = p.counters(Duration::from_secs(20)).await.unwrap();
            assert_eq!((counters["InPkts"], counters["LostSegs"]), (5, 0));
        }
        p.signal("TERM").unwrap();
        assert_eq!(
            p.wait(Duration::from_secs(20)).await.and_then(|s| s.code()),
            Some(7)
        );
        assert!(p.log().contains("caught"));
        assert!(p.crashed().is_none());
    }
}
