//! Names of replaced programs: called by one of them, the program takes that program's command line, so that a
//! symbolic link migrates a machine.

use std::ffi::OsStr;
use std::path::Path;

use fulmar_config::Side;

/// The name of kcptun-libev (docs/spec/kcptun-libev.md, section 2).
pub(crate) const KCPTUN_LIBEV: &str = "kcptun-libev";
/// Our own name.
pub(crate) const FULMAR: &str = "fulmar";
/// The state of kcptun that we stand for: the date of its last sources.
const KCPTUN_STATE: &str = "20260126";

/// Whose command line is taken.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Persona {
    /// Ours.
    Fulmar,
    /// That of kcptun's client or server.
    Kcptun(Side),
    /// That of kcptun-libev.
    KcptunLibev,
}

impl Persona {
    /// By the name that the program was called by (docs/spec/kcptun.md, section 3.7): `kcptun-client`,
    /// `client_linux_amd64`, `client`, and the same of the server; and `kcptun-libev`. All with or without `.exe`.
    pub(crate) fn of(name: &OsStr) -> Self {
        let name = Path::new(name)
            .file_name()
            .and_then(OsStr::to_str)
            .unwrap_or_default();
        let name = name
            .get(name.len().saturating_sub(4)..)
            .filter(|end| end.eq_ignore_ascii_case(".exe"))
            .map_or(name, |end| &name[..name.len() - end.len()]);
        if name == KCPTUN_LIBEV {
            return Self::KcptunLibev;
        }
        for side in [Side::Client, Side::Server] {
            let word = side.name();
            let released = name
                .strip_prefix(word)
                .and_then(|rest| rest.strip_prefix('_'))
                .and_then(|rest| rest.split_once('_'))
                .is_some_and(|(os, arch)| !os.is_empty() && !arch.is_empty());
            if name == word || released || name.strip_prefix("kcptun-") == Some(word) {
                return Self::Kcptun(side);
            }
        }
        Self::Fulmar
    }

    /// What `--version` says.
    pub(crate) fn version(self) -> String {
        let ours = concat!("fulmar ", env!("CARGO_PKG_VERSION"));
        match self {
            // kcptun-libev has no such option.
            Self::Fulmar | Self::KcptunLibev => ours.into(),
            Self::Kcptun(_) => format!("kcptun version {KCPTUN_STATE} ({ours})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in [
            "kcptun-client",
            "/bin/client",
            "client_linux_amd64",
            "./client_windows_386.exe",
            "client_x_y.EXE",
        ] {
            assert_eq!(
                Persona::of(OsStr::new(name)),
                Persona::Kcptun(Side::Client),
                "{name}"
            );
        }
        for name in [
            "kcptun-server",
            "/usr/bin/kcptun-server",
            "server_darwin_arm64",
            "server.exe",
        ] {
            assert_eq!(
                Persona::of(OsStr::new(name)),
                Persona::Kcptun(Side::Server),
                "{name}"
            );
        }
        for name in [
            "kcptun-libev",
            "/usr/bin/kcptun-libev",
            "./kcptun-libev.exe",
        ] {
            assert_eq!(
                Persona::of(OsStr::new(name)),
                Persona::KcptunLibev,
                "{name}"
            );
        }
        for name in [
            "",
            "kcptun-libev2",
            "libev",
            "fulmar",
            "client-x",
            "clients",
            "client_linux",
            "client__",
            "server_a_",
            ".exe",
            "kcptun",
            "é",
        ] {
            assert_eq!(Persona::of(OsStr::new(name)), Persona::Fulmar, "{name}");
        }
    }
}
