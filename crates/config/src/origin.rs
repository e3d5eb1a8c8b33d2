//! Where a value came from: which default, flag, variable, file and key, or plugin option.

use core::fmt;
use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::text;

/// Whose default a value is.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Program {
    /// kcptun (Go) in its last state.
    Kcptun,
    /// The shadowsocks plugin builds of kcptun (docs/spec/kcptun.md, section 16).
    KcptunPlugin,
    /// The kcptun of spring 2016 (docs/spec/kcptun2016.md, section 3).
    KcptunFirst,
    /// kcptun-libev (docs/spec/kcptun-libev.md, section 3.2).
    KcptunLibev,
    /// Ours: kcptun has no such option.
    Fulmar,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kcptun => "kcptun",
            Self::KcptunPlugin => "kcptun's shadowsocks plugin",
            Self::KcptunFirst => "the kcptun of 2016",
            Self::KcptunLibev => "kcptun-libev",
            Self::Fulmar => "fulmar",
        })
    }
}

/// Where one value came from.
///
/// Displayed as the beginning of an error message, without the value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// Nobody gave it.
    Default(Program),
    /// A flag on the command line, spelled as the user did, dashes included.
    Flag(String),
    /// An environment variable.
    Environment(String),
    /// A key of a configuration file, JSON or TOML.
    Json {
        /// The file as given.
        file: PathBuf,
        /// The key as spelled in the file.
        key: String,
        /// Line of the value, from 1.
        line: u32,
        /// Column of the value in characters, from 1.
        column: u32,
    },
    /// An option in `SS_PLUGIN_OPTIONS`, as spelled there.
    PluginOption(String),
}

impl Origin {
    /// Whether nobody gave the value.
    #[must_use]
    pub fn is_default(&self) -> bool {
        matches!(self, Self::Default(_))
    }

    /// The place in few words, for a table that names the option already.
    #[must_use]
    pub fn brief(&self) -> String {
        match self {
            Self::Json { file, line, .. } => format!("{}:{line}", text::path(file)),
            Self::PluginOption(_) => "SS_PLUGIN_OPTIONS".into(),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default(program) => write!(f, "default of {program}"),
            Self::Flag(flag) => write!(f, "command line, {flag}"),
            Self::Environment(name) => write!(f, "environment, {name}"),
            Self::Json {
                file,
                key,
                line,
                column,
            } => write!(f, "{}:{line}:{column}, \"{key}\"", text::path(file)),
            Self::PluginOption(name) => write!(f, "SS_PLUGIN_OPTIONS, {name}"),
        }
    }
}

/// Where each option of a configuration came from, by the option's name (its long flag, without dashes).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Provenance {
    origins: BTreeMap<&'static str, Origin>,
}

impl Provenance {
    /// Where option `name` came from; `None` for a name that this role does not have.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<&Origin> {
        self.origins.get(name)
    }

    /// Whether somebody gave option `name`, even if the value equals the default.
    #[must_use]
    pub fn is_explicit(&self, name: &str) -> bool {
        self.of(name).is_some_and(|origin| !origin.is_default())
    }

    /// Notes the origin of option `name`.
    pub fn set(&mut self, name: &'static str, origin: Origin) {
        self.origins.insert(name, origin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_place() {
        let json = Origin::Json {
            file: "etc/c.json".into(),
            key: "MTU".into(),
            line: 3,
            column: 8,
        };
        assert_eq!(json.to_string(), "etc/c.json:3:8, \"MTU\"");
        assert_eq!(Origin::Flag("-ds".into()).to_string(), "command line, -ds");
        let mut all = Provenance::default();
        all.set("mtu", json);
        all.set("conn", Origin::Default(Program::Kcptun));
        assert!(all.is_explicit("mtu"));
        assert!(!all.is_explicit("conn"));
        assert_eq!(all.of("nope"), None);
    }
}
