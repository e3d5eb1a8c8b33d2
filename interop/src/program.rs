//! Which programs can stand at the ends of a tunnel, and where they are.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A program that can be a tunnel's client or server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// Ours.
    Fulmar,
    /// Debian's `kcptun` package (20210922).
    Kcptun,
}

impl Program {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fulmar => "Fulmar",
            Self::Kcptun => "kcptun",
        }
    }
}

/// The two ends of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// The end that applications connect to.
    pub client: Program,
    /// The end that connects to the service.
    pub server: Program,
}

impl Pair {
    /// Fulmar's client, kcptun's server.
    pub const FULMAR_KCPTUN: Self = Self {
        client: Program::Fulmar,
        server: Program::Kcptun,
    };
    /// kcptun's client, Fulmar's server.
    pub const KCPTUN_FULMAR: Self = Self {
        client: Program::Kcptun,
        server: Program::Fulmar,
    };
    /// Fulmar at both ends.
    pub const FULMAR: Self = Self {
        client: Program::Fulmar,
        server: Program::Fulmar,
    };
    /// kcptun at both ends: shows that a row tests the peer's behaviour and not the harness.
    pub const KCPTUN: Self = Self {
        client: Program::Kcptun,
        server: Program::Kcptun,
    };
    /// All of them, in the order of the table's columns.
    pub const ALL: [Self; 4] = [
        Self::FULMAR_KCPTUN,
        Self::KCPTUN_FULMAR,
        Self::FULMAR,
        Self::KCPTUN,
    ];

    /// True when one end is `program`.
    #[must_use]
    pub fn has(self, program: Program) -> bool {
        self.client == program || self.server == program
    }

    /// The name on the command line and in reports: `fk`, `kf`, `ff`, `kk` (client first).
    #[must_use]
    pub fn code(self) -> &'static str {
        match (self.client, self.server) {
            (Program::Fulmar, Program::Kcptun) => "fk",
            (Program::Kcptun, Program::Fulmar) => "kf",
            (Program::Fulmar, Program::Fulmar) => "ff",
            (Program::Kcptun, Program::Kcptun) => "kk",
        }
    }
}

impl std::fmt::Display for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} -> {}", self.client.name(), self.server.name())
    }
}

/// The programs of this machine.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The `fulmar` binary.
    pub fulmar: Result<PathBuf, String>,
    /// kcptun's client and server.
    pub kcptun: Result<(PathBuf, PathBuf), String>,
}

impl Programs {
    /// Looks for all programs; builds ours when it has to be built.
    #[must_use]
    pub fn find() -> Self {
        Self {
            fulmar: fulmar(),
            kcptun: kcptun(),
        }
    }

    /// Why a pair cannot run here, if so.
    #[must_use]
    pub fn missing(&self, pair: Pair) -> Option<&str> {
        let fulmar = self
            .fulmar
            .as_ref()
            .err()
            .filter(|_| pair.has(Program::Fulmar));
        let kcptun = self
            .kcptun
            .as_ref()
            .err()
            .filter(|_| pair.has(Program::Kcptun));
        fulmar.or(kcptun).map(String::as_str)
    }

    /// A command that starts the client or the server of `program`.
    ///
    /// # Errors
    /// When the program is not there.
    pub fn command(&self, program: Program, server: bool) -> Result<Command, String> {
        let mut command = match program {
            Program::Fulmar => {
                let mut command = Command::new(self.fulmar.as_ref().map_err(Clone::clone)?);
                command.arg(if server { "server" } else { "client" });
                command
            }
            Program::Kcptun => {
                let (c, s) = self.kcptun.as_ref().map_err(Clone::clone)?;
                Command::new(if server { s } else { c })
            }
        };
        // Nothing of the caller's environment may configure a program under test.
        for name in [
            "KCPTUN_KEY",
            "SS_REMOTE_HOST",
            "SS_REMOTE_PORT",
            "SS_LOCAL_HOST",
            "SS_LOCAL_PORT",
        ] {
            command.env_remove(name);
        }
        // Its open files are counted.
        command.env("FULMAR_DUMPABLE", "yes");
        Ok(command)
    }
}

/// The `fulmar` binary: what `FULMAR_BIN` names, or the one of this build's target folder, brought up to date by
/// cargo first (which takes a moment when nothing changed). Done once per process.
///
/// # Errors
/// When it cannot be built.
pub fn fulmar() -> Result<PathBuf, String> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BUILT.get_or_init(locate).clone()
}

fn locate() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("FULMAR_BIN") {
        let path = PathBuf::from(path);
        return if path.is_file() {
            Ok(path)
        } else {
            Err(format!("FULMAR_BIN: {} is missing", path.display()))
        };
    }
    let here = std::env::current_exe().map_err(|e| e.to_string())?;
    let profile_dir =
        profile_dir(&here).ok_or("this test runs from an unusual folder; set FULMAR_BIN")?;
    let profile = match profile_dir.file_name().and_then(|n| n.to_str()) {
        Some("debug") => "dev",
        Some(other) => other,
        None => "dev",
    };
    let target = profile_dir.parent().ok_or("no target folder")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .args([
            "build",
            "--quiet",
            "--package",
            "fulmar",
            "--bin",
            "fulmar",
            "--profile",
            profile,
            "--target-dir",
        ])
        .arg(target)
        .output()
        .map_err(|e| format!("cannot run cargo: {e}"))?;
    let path = profile_dir
        .join("fulmar")
        .with_extension(std::env::consts::EXE_EXTENSION);
    if built.status.success() && path.is_file() {
        Ok(path)
    } else {
        Err(format!(
            "fulmar cannot be built: {}",
            String::from_utf8_lossy(&built.stderr).trim()
        ))
    }
}

/// `target/debug` from `target/debug/deps/streams-0123` or `target/debug/fulmar-interop`.
fn profile_dir(exe: &Path) -> Option<PathBuf> {
    let dir = exe.parent()?;
    let dir = if dir.file_name()? == "deps" {
        dir.parent()?
    } else {
        dir
    };
    Some(dir.to_path_buf())
}

fn kcptun() -> Result<(PathBuf, PathBuf), String> {
    let find = |name: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .map(|dir| dir.join(name))
            .find(|p| p.is_file())
            .ok_or_else(|| format!("{name} is not installed (Debian's package kcptun)"))
    };
    Ok((find("kcptun-client")?, find("kcptun-server")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_of_the_profile() {
        assert_eq!(
            profile_dir(Path::new("/t/debug/deps/streams-1")),
            Some("/t/debug".into())
        );
        assert_eq!(
            profile_dir(Path::new("/t/release/fulmar-interop")),
            Some("/t/release".into())
        );
    }

    #[test]
    fn a_missing_program_stops_only_its_pairs() {
        let programs = Programs {
            fulmar: Ok("/bin/true".into()),
            kcptun: Err("absent".into()),
        };
        assert_eq!(programs.missing(Pair::FULMAR), None);
        assert_eq!(programs.missing(Pair::KCPTUN_FULMAR), Some("absent"));
        assert!(programs.command(Program::Kcptun, true).is_err());
    }
}
