//! The one table of options: names, types, ranges, defaults and meaning.
//!
//! Command lines, JSON files, plugin options, help texts, completions, manual pages, the table in
//! docs/compatibility.md and "did you mean" hints are all made from [`TABLE`].

use crate::origin::Program;

pub mod first;
mod table;

pub use table::TABLE;

/// The pre-shared secret that kcptun uses when none is given (sic).
pub const DEFAULT_KEY: &str = "it's a secrect";

/// Which end of a tunnel.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Side {
    /// The end with the TCP (or Unix) listener.
    Client,
    /// The end with the UDP listener.
    Server,
}

impl Side {
    /// `client` or `server`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }

    /// The other end.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// Names an option in code; the position of its row in [`TABLE`].
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[allow(missing_docs)] // TABLE says what each one is.
pub enum Id {
    LocalAddr,
    RemoteAddr,
    Listen,
    Target,
    Key,
    KeyFile,
    Compat,
    TunCrypt,
    Crypt,
    Qpp,
    QppCount,
    QppCompat,
    Mode,
    Redundancy,
    Memory,
    AckNoDelay,
    NoDelay,
    Interval,
    Resend,
    Nc,
    SndWnd,
    RcvWnd,
    RateLimit,
    Threads,
    Mtu,
    DataShard,
    ParityShard,
    Dscp,
    SockBuf,
    Tcp,
    Conn,
    AutoExpire,
    ScavengeTtl,
    NoComp,
    SmuxVer,
    SmuxBuf,
    FrameSize,
    StreamBuf,
    KeepAlive,
    CloseWait,
    SnmpLog,
    SnmpPeriod,
    HttpListen,
    Log,
    Quiet,
    Verbose,
    Pprof,
    Config,
    AndroidVpn,
    FastOpen,
}

/// Headings of help texts and of the block at start.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Group {
    /// Where things are.
    Addresses,
    /// Keys and ciphers.
    Security,
    /// The profile, windows and rate.
    Speed,
    /// Values that only mode manual takes.
    Manual,
    /// Packets: their size, parity, marking.
    Packets,
    /// Sessions and streams.
    Streams,
    /// Logs and counters.
    Observation,
    /// The file, and plugin matters.
    Other,
}

impl Group {
    /// All of them, in order of display.
    pub const ALL: [Self; 8] = [
        Self::Addresses,
        Self::Security,
        Self::Speed,
        Self::Manual,
        Self::Packets,
        Self::Streams,
        Self::Observation,
        Self::Other,
    ];

    /// The heading.
    #[must_use]
    pub const fn heading(self) -> &'static str {
        match self {
            Self::Addresses => "Addresses",
            Self::Security => "Security (equal on both ends)",
            Self::Speed => "Speed",
            Self::Manual => "Manual mode",
            Self::Packets => "Packets",
            Self::Streams => "Sessions and streams",
            Self::Observation => "Logs and counters",
            Self::Other => "Other",
        }
    }
}

/// What an option's value is.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Text.
    Text,
    /// One of these names. `open`: any other name is accepted too, with a warning.
    Name {
        /// The names.
        names: &'static [&'static str],
        /// Whether others are accepted.
        open: bool,
    },
    /// A file.
    Path,
    /// A whole number of `unit`s within the range; both ends belong to it.
    Int {
        /// Smallest.
        min: i64,
        /// Largest.
        max: i64,
        /// What is counted.
        unit: &'static str,
    },
    /// On or off.
    Bool,
}

/// A default.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Preset {
    /// Text; empty means unset.
    Text(&'static str),
    /// A number.
    Int(i64),
    /// Off. Nothing is on by default.
    Off,
}

/// One option.
#[derive(Debug)]
pub struct Opt {
    /// Its name in code.
    pub id: Id,
    /// The long flag without dashes; also the option's name in plugin options and provenance.
    pub flag: &'static str,
    /// Other flags for it, without dashes.
    pub aliases: &'static [&'static str],
    /// Its key in a kcptun JSON file.
    pub key: Option<&'static str>,
    /// Whether `SS_PLUGIN_OPTIONS` may carry it.
    pub plugin: bool,
    /// The only side that has it; `None`: both.
    pub only: Option<Side>,
    /// Whose option it is.
    pub program: Program,
    /// Type, range and unit.
    pub kind: Kind,
    /// What the help text calls the value; empty for booleans.
    pub value_name: &'static str,
    /// Default of the client.
    pub client: Preset,
    /// Default of the server.
    pub server: Preset,
    /// Where it is shown.
    pub group: Group,
    /// Whether kcptun's help leaves it out.
    pub hidden: bool,
    /// One line of help.
    pub help: &'static str,
    /// How we treat it where a word more is needed, for the compatibility table.
    pub note: &'static str,
}

impl Opt {
    /// Whether `side` has it.
    #[must_use]
    pub fn is_for(&self, side: Side) -> bool {
        self.only.is_none_or(|only| only == side)
    }

    /// The default of `side`.
    #[must_use]
    pub fn preset(&self, side: Side) -> Preset {
        match side {
            Side::Client => self.client,
            Side::Server => self.server,
        }
    }

    /// Whether the value must not be shown.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.id == Id::Key
    }

    /// Every flag, the long one first, without dashes.
    pub fn flags(&self) -> impl Iterator<Item = &'static str> + use<> {
        core::iter::once(self.flag).chain(self.aliases.iter().copied())
    }
}

/// The row of `id`.
#[must_use]
pub fn get(id: Id) -> &'static Opt {
    &TABLE[id as usize]
}

/// The options of `side`, in order.
pub fn of(side: Side) -> impl Iterator<Item = &'static Opt> {
    TABLE.iter().filter(move |opt| opt.is_for(side))
}

#[cfg(test)]
mod tests {
    use super::table::{COMPATS, CRYPTS};
    use super::*;
    use fulmar_wire::kcptun::Method;
    use fulmar_wire::kcptun2016::Variant;
    use std::collections::BTreeSet;

    #[test]
    fn rows_are_where_their_names_say() {
        for (i, opt) in TABLE.iter().enumerate() {
            assert_eq!(opt.id as usize, i, "{}", opt.flag);
            assert!(!opt.help.is_empty() && !opt.flag.is_empty());
            assert_eq!(
                opt.kind == Kind::Bool,
                opt.value_name.is_empty(),
                "{}",
                opt.flag
            );
        }
    }

    #[test]
    fn names_are_unique_per_side() {
        for side in [Side::Client, Side::Server] {
            let mut flags = BTreeSet::new();
            let mut keys = BTreeSet::new();
            for opt in of(side) {
                assert!(opt.flags().all(|flag| flags.insert(flag)), "{}", opt.flag);
                assert!(opt.key.is_none_or(|key| keys.insert(key)), "{}", opt.flag);
            }
        }
    }

    #[test]
    fn defaults_have_the_type_and_range_of_their_option() {
        for side in [Side::Client, Side::Server] {
            for opt in of(side) {
                match (opt.kind, opt.preset(side)) {
                    (Kind::Int { min, max, .. }, Preset::Int(n)) => assert!(n >= min && n <= max),
                    (Kind::Text | Kind::Path, Preset::Text(_)) | (Kind::Bool, Preset::Off) => {}
                    (Kind::Name { names, .. }, Preset::Text(name)) => {
                        assert!(name.is_empty() || names.contains(&name));
                    }
                    other => panic!("{}: {other:?}", opt.flag),
                }
                let first = first::preset(opt, side);
                if let (Kind::Int { min, max, .. }, Preset::Int(n)) = (opt.kind, first) {
                    assert!(n >= min && n <= max, "{}", opt.flag);
                } else {
                    assert_eq!(first, opt.preset(side), "{}", opt.flag);
                }
            }
        }
    }

    #[test]
    fn every_variant_of_2016_has_a_name_and_no_two_modes_of_one_name() {
        let names: Vec<_> = first::NAMES.iter().map(|(name, _)| *name).collect();
        assert_eq!(COMPATS, names);
        for variant in Variant::ALL {
            assert!(first::NAMES.iter().any(|(_, known)| *known == variant));
            let modes: BTreeSet<_> = first::modes(variant)
                .iter()
                .map(|numbers| numbers.mode.name())
                .collect();
            assert_eq!(modes.len(), first::modes(variant).len());
        }
    }

    #[test]
    fn every_method_has_its_name_here() {
        let methods: Vec<_> = Method::ALL
            .iter()
            .map(|m| m.name())
            .chain(["auto"])
            .collect();
        assert_eq!(CRYPTS, methods);
    }
}
