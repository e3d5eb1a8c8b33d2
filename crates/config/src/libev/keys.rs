//! The one table of kcptun-libev's keys: names, types, ranges, defaults, and what differs (docs/spec/kcptun-libev.md, section 3.2).

use crate::libev::model::{Mode, Obfs, Sink};
use crate::origin::Program;

/// What a key's value may be.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum LibevKind {
    /// An address of this machine: the host may be empty, the port 0.
    Local,
    /// An address to connect to.
    Remote,
    /// Any text.
    Text,
    /// Any text, never shown.
    Secret,
    /// One of these names.
    Name(&'static [&'static str]),
    /// A whole number, ends included.
    Int {
        /// The least.
        min: u64,
        /// The largest.
        max: u64,
        /// What is in force if nobody gives it.
        default: u64,
        /// `s`, `ms`, `bytes`, `segments`, or nothing.
        unit: &'static str,
    },
    /// `true` or `false`, with the default.
    Bool(bool),
}

impl LibevKind {
    /// What may be written, as the hint of an error.
    pub(super) fn wanted(self) -> String {
        match self {
            Self::Local => {
                "write \"host:port\", IPv6 addresses in brackets, nothing before the colon for any"
                    .into()
            }
            Self::Remote => "write \"host:port\", IPv6 addresses in brackets".into(),
            Self::Text | Self::Secret => "write a text in double quotes".into(),
            Self::Name(names) => format!("write one of {}, in double quotes", names.join(", ")),
            Self::Int { min, max, unit, .. } => {
                format!("write {}", format!("{min} to {max} {unit}").trim_end())
            }
            Self::Bool(_) => "write true or false without quotes".into(),
        }
    }
}

/// Where a key is shown.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum LibevGroup {
    /// Addresses.
    Addresses,
    /// Encryption and obfuscation.
    Encryption,
    /// Times.
    Times,
    /// The arq.
    Kcp,
    /// Sockets.
    Sockets,
    /// The process.
    Process,
}

impl LibevGroup {
    /// Its heading.
    #[must_use]
    pub const fn heading(self) -> &'static str {
        match self {
            Self::Addresses => "addresses",
            Self::Encryption => "encryption",
            Self::Times => "times",
            Self::Kcp => "kcp",
            Self::Sockets => "sockets",
            Self::Process => "process",
        }
    }
}

/// One key of the file.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct LibevKey {
    /// Its name; in an object with that object's name, as `kcp.mtu`.
    pub name: &'static str,
    /// What it may be.
    pub kind: LibevKind,
    /// Where it is shown.
    pub group: LibevGroup,
    /// What Fulmar does otherwise than kcptun-libev, or, of Fulmar's own keys, what they mean; may be empty.
    pub note: &'static str,
}

impl LibevKey {
    /// Whose key it is.
    #[must_use]
    pub fn program(&self) -> Program {
        if self.name.starts_with("fulmar.") {
            Program::Fulmar
        } else {
            Program::KcptunLibev
        }
    }
}

/// The objects in the file whose members are in the table.
pub(super) const OBJECTS: [&str; 4] = ["kcp", "tcp", "udp", "fulmar"];

/// Keys of v2.0 and the keys that they are today.
pub(super) const OLD_NAMES: [(&str, &str); 2] =
    [("udp_bind", "kcp_bind"), ("udp_connect", "kcp_connect")];

/// The names of the methods, those that encrypt.
const METHODS: [&str; 4] = [
    fulmar_wire::libev::Method::SEALED[0].name(),
    fulmar_wire::libev::Method::SEALED[1].name(),
    fulmar_wire::libev::Method::SEALED[2].name(),
    fulmar_wire::libev::Method::SEALED[3].name(),
];
const SINKS: [&str; 5] = [
    Sink::ALL[0].name(),
    Sink::ALL[1].name(),
    Sink::ALL[2].name(),
    Sink::ALL[3].name(),
    Sink::ALL[4].name(),
];

const fn key(
    name: &'static str,
    kind: LibevKind,
    group: LibevGroup,
    note: &'static str,
) -> LibevKey {
    LibevKey {
        name,
        kind,
        group,
        note,
    }
}

const fn int(min: u64, max: u64, default: u64, unit: &'static str) -> LibevKind {
    LibevKind::Int {
        min,
        max,
        default,
        unit,
    }
}

/// Largest socket buffer, bytes.
const BUFFER: u64 = 33_554_432;

/// All keys, in order of display.
pub const LIBEV_KEYS: [LibevKey; 41] = {
    use LibevGroup::{Addresses, Encryption, Kcp, Process, Sockets, Times};
    use LibevKind::{Bool, Local, Name, Remote, Secret, Text};
    [
        key("listen", Local, Addresses, ""),
        key("connect", Remote, Addresses, ""),
        key(
            "kcp_bind",
            Local,
            Addresses,
            "`udp_bind` of v2.0 is accepted, with a note",
        ),
        key(
            "kcp_connect",
            Remote,
            Addresses,
            "`udp_connect` of v2.0 is accepted, with a note. Together with `rendezvous_server`: refused, one of the two would be passed over",
        ),
        key("rendezvous_server", Remote, Addresses, ""),
        key("service_id", Text, Addresses, "At most 256 bytes"),
        key("http_listen", Local, Addresses, ""),
        key(
            "netdev",
            Text,
            Addresses,
            "At most 15 bytes; an empty text counts as not given",
        ),
        key(
            "method",
            Name(&METHODS),
            Encryption,
            "Without `password` and `psk`: refused, because kcptun-libev then takes a key that everybody knows; see `fulmar.accept_keyless`",
        ),
        key(
            "password",
            Secret,
            Encryption,
            "A short one gives a warning: the derivation is cheap. Without `method` it means no encryption, as in kcptun-libev; `fulmar check` refuses that",
        ),
        key(
            "psk",
            Secret,
            Encryption,
            "32 bytes in strict base64; `fulmar genpsk METHOD` makes one",
        ),
        key(
            "obfs",
            Name(&[Obfs::TcpWnd.name(), Obfs::Tcp.name()]),
            Encryption,
            "Linux only; needs encryption; not with a relay",
        ),
        key(
            "keepalive",
            int(0, 600, 25, "s"),
            Times,
            "0 is refused with `rendezvous_server`; more than 25 s there gives a warning",
        ),
        key("timeout", int(60, 86_400, 600, "s"), Times, ""),
        key("linger", int(5, 600, 30, "s"), Times, ""),
        key("time_wait", int(5, 3600, 120, "s"), Times, ""),
        key("kcp.mtu", int(300, 1500, 1400, "bytes"), Kcp, ""),
        key("kcp.sndwnd", int(16, 65_536, 256, "segments"), Kcp, ""),
        key(
            "kcp.rcvwnd",
            int(16, 65_536, 256, "segments"),
            Kcp,
            "Below 128 it acts as 128; 65536 acts as 65535, because it would stop the other end",
        ),
        key(
            "kcp.nodelay",
            int(0, 2, 1, ""),
            Kcp,
            "Together with the four below: giving any of them makes `fulmar.mode` `classic`",
        ),
        key("kcp.interval", int(10, 500, 100, "ms"), Kcp, ""),
        key("kcp.resend", int(0, 100, 0, ""), Kcp, ""),
        key("kcp.nc", int(0, 1, 1, ""), Kcp, ""),
        key("kcp.flush", int(0, 2, 1, ""), Kcp, ""),
        key("tcp.reuseport", Bool(false), Sockets, ""),
        key("tcp.keepalive", Bool(false), Sockets, ""),
        key("tcp.nodelay", Bool(true), Sockets, ""),
        key(
            "tcp.sndbuf",
            int(0, BUFFER, 0, "bytes"),
            Sockets,
            "0 is the system's; 1 to 4095 gives a warning",
        ),
        key(
            "tcp.rcvbuf",
            int(0, BUFFER, 0, "bytes"),
            Sockets,
            "0 is the system's; 1 to 4095 gives a warning",
        ),
        key("udp.reuseport", Bool(false), Sockets, ""),
        key(
            "udp.sndbuf",
            int(0, BUFFER, 0, "bytes"),
            Sockets,
            "1 to 4095 gives a warning",
        ),
        key(
            "udp.rcvbuf",
            int(0, BUFFER, 0, "bytes"),
            Sockets,
            "1 to 4095 gives a warning",
        ),
        key("loglevel", int(0, 8, 4, ""), Process, ""),
        key(
            "log",
            Name(&SINKS),
            Process,
            "An unknown name means `stdout`, with a warning",
        ),
        key(
            "user",
            Text,
            Process,
            "`[user][:[group]]`; an empty text counts as not given",
        ),
        key(
            "fulmar.mode",
            Name(&[Mode::Auto.name(), Mode::Classic.name()]),
            Kcp,
            "`auto`: the sender follows the path. `classic`: the keys of `kcp` say when to send. Default: `auto`, unless one of the five keys of `kcp` that shape sending is given",
        ),
        key(
            "fulmar.redundancy",
            int(0, 100, 25, "percent"),
            Kcp,
            "0: mode auto sends no copies of small messages. There is no parity in this format, so other values are alike",
        ),
        key(
            "fulmar.memory",
            int(1 << 20, 1 << 30, 64 << 20, "bytes"),
            Kcp,
            "What a session may hold in mode auto",
        ),
        key(
            "fulmar.delay_eof",
            Bool(false),
            Kcp,
            "A client holds back the end of an application's data until the other direction has ended: a kcptun-libev server would lose its answer. Not towards a Fulmar",
        ),
        key(
            "fulmar.accept_bad_checksums",
            Bool(false),
            Encryption,
            "With `obfs`, segments with wrong TCP checksums are taken: some builds of kcptun-libev send them",
        ),
        key(
            "fulmar.accept_keyless",
            Bool(false),
            Encryption,
            "`method` without a key is accepted, with the key that everybody knows",
        ),
    ]
};

/// The key of that exact name.
pub(super) fn find(name: &str) -> Option<&'static LibevKey> {
    LIBEV_KEYS.iter().find(|key| key.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_defaults_in_range() {
        for (i, key) in LIBEV_KEYS.iter().enumerate() {
            assert!(
                LIBEV_KEYS[i + 1..].iter().all(|k| k.name != key.name),
                "{}",
                key.name
            );
            if let LibevKind::Int {
                min, max, default, ..
            } = key.kind
            {
                assert!((min..=max).contains(&default), "{}", key.name);
            }
            if let Some((object, _)) = key.name.split_once('.') {
                assert!(OBJECTS.contains(&object), "{}", key.name);
            }
            assert!(!key.note.ends_with('.'), "{}", key.name);
        }
        assert!(OLD_NAMES.iter().all(|(_, new)| find(new).is_some()));
    }
}
