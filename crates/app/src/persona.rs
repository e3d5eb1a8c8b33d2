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
    /// That of one of these; flags or the file tell which.
    KcptunEither,
    /// That of kcptun-libev.
    KcptunLibev,
}

/// Names that kcptun's two programs are installed under.
const CLIENTS: [&str; 7] = [
    "client",
    "kcptun-client",
    "kcptun_client",
    "kcpclient",
    "kcp-client",
    "kcp_client",
    "kcpc",
];
const SERVERS: [&str; 7] = [
    "server",
    "kcptun-server",
    "kcptun_server",
    "kcpserver",
    "kcp-server",
    "kcp_server",
    "kcps",
];
/// A name that does not tell which of the two it is.
const EITHER: &str = "kcptun";
/// Systems as they are named in releases.
const SYSTEMS: [&str; 8] = [
    "linux",
    "darwin",
    "windows",
    "freebsd",
    "netbsd",
    "openbsd",
    "dragonfly",
    "android",
];

/// Whether `name` is `known`, perhaps with system and processor behind it: `_linux_amd64`, `-linux-arm7`.
fn is_installed_as(name: &str, known: &str) -> bool {
    let Some(rest) = name.strip_prefix(known) else {
        return false;
    };
    let mut marks = rest.chars();
    let Some(mark @ ('_' | '-')) = marks.next() else {
        return rest.is_empty();
    };
    let released = |(system, processor): (&str, &str)| {
        // kcptun's own releases, of any system.
        let own = mark == '_' && matches!(known, "client" | "server") && !system.is_empty();
        !processor.is_empty() && (own || SYSTEMS.contains(&system))
    };
    marks.as_str().split_once(mark).is_some_and(released)
}

impl Persona {
    /// By the name that the program was called by (docs/spec/kcptun.md, section 3.7), with or without `.exe`.
    pub(crate) fn of(name: &OsStr) -> Self {
        let name = Path::new(name)
            .file_name()
            .and_then(OsStr::to_str)
            .unwrap_or_default();
        let name = name
            .get(name.len().saturating_sub(4)..)
            .filter(|end| end.eq_ignore_ascii_case(".exe"))
            .map_or(name, |end| &name[..name.len() - end.len()]);
        let is = |known: &str| is_installed_as(name, known);
        if name == KCPTUN_LIBEV {
            Self::KcptunLibev
        } else if CLIENTS.into_iter().any(is) {
            Self::Kcptun(Side::Client)
        } else if SERVERS.into_iter().any(is) {
            Self::Kcptun(Side::Server)
        } else if is(EITHER) {
            Self::KcptunEither
        } else {
            Self::Fulmar
        }
    }

    /// How the log line begins that says where the program listens. What starts kcptun may wait for its colon.
    pub(crate) const fn listening(self) -> &'static str {
        match self {
            Self::Kcptun(_) | Self::KcptunEither => "listening on:",
            Self::Fulmar | Self::KcptunLibev => "listening on",
        }
    }

    /// What `--version` says.
    pub(crate) fn version(self) -> String {
        let ours = concat!("fulmar ", env!("CARGO_PKG_VERSION"));
        match self {
            // kcptun-libev has no such option.
            Self::Fulmar | Self::KcptunLibev => ours.into(),
            Self::Kcptun(_) | Self::KcptunEither => {
                format!("kcptun version {KCPTUN_STATE} ({ours})")
            }
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
            "kcptun_client",
            "kcpclient",
            "kcp-client",
            "/opt/kcp_client",
            "kcpc",
            "kcptun_client_linux_mipsle",
            "kcptun-client-linux-amd64",
            "kcptun-client_linux_arm7",
            "kcpclient_darwin_arm64",
            "kcpc.exe",
            "client-linux-amd64",
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
            "kcptun_server",
            "kcpserver",
            "kcp-server",
            "kcp_server",
            "kcps",
            "kcptun_server_windows_amd64.exe",
            "kcps_freebsd_amd64",
        ] {
            assert_eq!(
                Persona::of(OsStr::new(name)),
                Persona::Kcptun(Side::Server),
                "{name}"
            );
        }
        for name in [
            "kcptun",
            "/usr/bin/kcptun",
            "kcptun.exe",
            "kcptun_linux_amd64",
            "kcptun-linux-arm64",
        ] {
            assert_eq!(
                Persona::of(OsStr::new(name)),
                Persona::KcptunEither,
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
            "kcptun-",
            "kcptun_",
            "kcptun2",
            "kcptun_x_y",
            "kcptun_libev_x",
            "kcptun_client_linux",
            "kcptun_clients",
            "kcpc_linux_",
            "kcpcd",
            "kcp",
            "kcp-",
            "é",
        ] {
            assert_eq!(Persona::of(OsStr::new(name)), Persona::Fulmar, "{name}");
        }
    }
}
