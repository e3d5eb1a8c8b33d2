//! The typed model that the runtime takes. It knows no syntax; every value in it has been checked.
//!
//! Build one with a front end, not by hand: [`Config`] promises ranges that only the checks establish.

use core::num::NonZeroU16;
use core::time::Duration;
use std::path::PathBuf;

use fulmar_wire::kcptun::Method;
use fulmar_wire::kcptun2016::{self, Variant};

use crate::addr::{PortRange, StreamAddr};
use crate::origin::Provenance;
use crate::secret::Key;

/// Everything that one process does.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// Client or server, and the addresses of that role.
    pub role: Role,
    /// Both ends' settings of the kcptun dialect.
    pub tunnel: Kcptun,
    /// Where log lines go.
    pub log: Log,
    /// The periodic counters file.
    pub stats: Stats,
    /// Threads that do the work, 1 to 256. `None` (the default): one for each core that the process may use,
    /// and at a client no more than it has sessions.
    pub threads: Option<NonZeroU16>,
    /// Whether a shadowsocks host started us as its plugin (docs/spec/kcptun.md, section 16); addresses and options are already merged.
    pub sip003: bool,
    /// Where each value came from.
    pub provenance: Provenance,
}

/// Which end of the tunnel this process is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Role {
    /// The end with the TCP (or Unix) listener.
    Client(Client),
    /// The end with the UDP listener.
    Server(Server),
}

impl Role {
    /// `client` or `server`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Client(_) => "client",
            Self::Server(_) => "server",
        }
    }
}

/// The client's own settings (docs/spec/kcptun.md, section 3.2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Client {
    /// Where applications connect to. Port 0 asks the system for a free one.
    pub listen: StreamAddr,
    /// The server; each session draws one port of the range. The host is never empty.
    pub remote: PortRange,
    /// How many sessions share the streams, 1 to 65535. Kcptun's default: 1.
    pub conn: u16,
    /// A session older than this gets no new stream. `None` (kcptun's default): never.
    pub autoexpire: Option<Duration>,
    /// How long after `autoexpire` an old session is closed with what it still carries. `None`: it ends with its last
    /// stream. Kcptun's default: 600 s.
    pub scavenge_ttl: Option<Duration>,
}

/// The server's own settings (section 3.2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Server {
    /// One UDP socket per port. An empty host means every address of this machine.
    pub listen: PortRange,
    /// Further addresses to listen on, as a shadowsocks host may give them.
    pub also: Vec<PortRange>,
    /// Where streams go. The host is never empty, the port never 0.
    pub target: StreamAddr,
}

/// Settings that both roles of the kcptun dialect have.
///
/// `key`, `crypt`, `qpp`, `compression` and `smux.version` have to be equal on both ends.
#[derive(Clone, PartialEq, Debug)]
pub struct Kcptun {
    /// Which kcptun the other end is.
    pub compat: Compat,
    /// The pre-shared secret.
    pub key: Key,
    /// Whether `key` is the one that everybody knows because it is kcptun's default.
    pub key_is_default: bool,
    /// The packet cipher.
    pub crypt: Crypt,
    /// The name that was given when it is not a method's name: kcptun takes any such name for `aes`, and so does `crypt`.
    pub crypt_unknown_name: Option<String>,
    /// The profile. The five fields after it hold what it means.
    pub mode: Mode,
    /// What the sender of mode auto may take, and what it may choose. `Some` exactly with [`Mode::Auto`].
    pub auto: Option<Auto>,
    /// KCP's nodelay: a short minimum RTO and a slower back-off.
    pub nodelay: bool,
    /// KCP's flush interval, 10 ms to 5 s.
    pub interval: Duration,
    /// Acknowledgements of later segments that make a segment be sent again; 0 = never.
    pub resend: u32,
    /// Whether KCP's congestion window limits sending (kcptun's `nc` = 0). No profile turns it on.
    pub congestion_control: bool,
    /// Whether acknowledgements are sent as soon as input was processed.
    pub ack_no_delay: bool,
    /// Largest UDP payload in bytes, 50 to 1500, and large enough for the headers of `crypt` and of parity, be it `fec` or
    /// the parity that mode auto may choose. Kcptun's default: 1350.
    pub mtu: usize,
    /// KCP's send window in segments, 1 to 65535. Kcptun's default: client 128, server 1024. With mode auto: 65535, which is
    /// no limit, unless somebody gave another.
    pub snd_wnd: u32,
    /// KCP's receive window in segments, 1 to 65535. Kcptun's default: client 512, server 1024. With mode auto: as many as
    /// [`Auto::memory`] holds, at least 1024, unless somebody gave another.
    pub rcv_wnd: u32,
    /// Parity of a fixed shape, for what this end sends. `None`: no FEC header at all, unless [`Auto::parity`] lets mode auto
    /// choose.
    pub fec: Option<Shards>,
    /// DSCP value of our datagrams, 0 to 63.
    pub dscp: u8,
    /// Whether each session's byte stream is snappy-framed.
    pub compression: bool,
    /// The stream multiplexer.
    pub smux: Smux,
    /// QPP under each stream; `None` (kcptun's default): off.
    pub qpp: Option<Qpp>,
    /// Largest rate of a session in bytes of UDP payload per second, at least 1. `None` (kcptun's default): no limit.
    pub rate_limit: Option<u64>,
    /// Size asked for SO_RCVBUF and SO_SNDBUF of UDP sockets, in bytes, 1 to 2^31-1. Kcptun's default: 4 MiB.
    pub sock_buf: usize,
    /// Whether packets look like TCP (section 13); Linux only.
    pub tcp: bool,
    /// How long one direction of a stream may live on after the other ended. Kcptun's default: client 0, server 30 s.
    pub close_wait: Duration,
    /// Whether somebody gave `close_wait`: the default is not a wish.
    pub close_wait_explicit: bool,
}

/// Which of two kcptuns, which share almost nothing on the wire, is spoken.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Compat {
    /// Today's.
    Current,
    /// That of spring 2016 (docs/spec/kcptun2016.md).
    First(First),
}

impl Kcptun {
    /// What a client speaks above KCP, in words.
    #[must_use]
    pub fn spoken(&self) -> String {
        match self.compat {
            Compat::Current => format!("smux version {}", self.smux.version),
            Compat::First(first) => format!("variant {} of spring 2016", first.variant.name()),
        }
    }
}

impl Compat {
    /// The settings of the first kcptun, if that is spoken.
    #[must_use]
    pub const fn first(self) -> Option<First> {
        match self {
            Self::Current => None,
            Self::First(first) => Some(first),
        }
    }
}

/// What only the kcptun of spring 2016 has (docs/spec/kcptun2016.md, sections 1 and 3).
///
/// The other settings of [`Kcptun`] say what that program can do, with `smux` for its multiplexer, whose `stream_buffer` is at
/// least 262144 bytes (section 9.3) and whose `version` means nothing: no parity, no compression, no QPP, never looking like TCP.
/// `crypt` means nothing: see `methods`.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct First {
    /// What a client speaks. A server finds out what each client speaks.
    pub variant: Variant,
    /// Whether a client encrypts the stream a second time: in A and B always, in BT and C if `--tuncrypt` says so. A server
    /// finds out what each client does.
    pub tuncrypt: bool,
    /// What protects packets (docs/spec/kcptun2016.md, section 4): with a key they are sealed. Without one it depends on the variant, and a server
    /// takes both.
    pub methods: &'static [kcptun2016::Method],
}

/// Which packet cipher a session uses.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Crypt {
    /// A server finds out from a stranger's first packet.
    Auto,
    /// This one.
    Method(Method),
}

/// A profile of docs/spec/kcptun.md, section 3.3; the numbers here are today's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mode {
    /// 40 ms.
    Normal,
    /// 30 ms; kcptun's default.
    Fast,
    /// nodelay, 20 ms.
    Fast2,
    /// nodelay, 10 ms.
    Fast3,
    /// Only the kcptun of 2016 has it, whose other modes have other numbers, too (docs/spec/kcptun2016.md, section 3.2): the one
    /// with a congestion window.
    Default,
    /// Ours: the sender finds out what the path carries, within the bounds of [`Auto`].
    Auto,
    /// `manual` or any unknown name, kept here: `nodelay`, `interval`, `resend` and `nc` as given.
    Manual(String),
}

impl Mode {
    /// The name as given.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Normal => "normal",
            Self::Fast => "fast",
            Self::Fast2 => "fast2",
            Self::Fast3 => "fast3",
            Self::Default => "default",
            Self::Auto => "auto",
            Self::Manual(name) => name,
        }
    }
}

/// What `--mode auto` may take, and what it may choose itself.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Auto {
    /// Most redundancy on bulk, in percent of the bytes that it protects, 0 to 100. Our default: 25.
    ///
    /// Too little, and what a lossy path drops costs a round trip each time; too much takes that part of the line from
    /// the data. 0 turns parity and copies off, but not parity whose shape somebody gave.
    pub redundancy: u8,
    /// Most bytes that one session may hold for its receiver (KCP's receive window and smux's buffers), 1 MiB to 1 GiB.
    /// Our default: 64 MiB.
    ///
    /// Less than what the path carries in a round trip, or in the few that a lost packet takes, limits the rate. A session
    /// uses it only as far as data waits in it; a server may have many sessions.
    pub memory: usize,
    /// Whether parity follows the path: nobody gave `datashard` or `parityshard`. [`Kcptun::fec`] is `None` then.
    pub parity: bool,
    /// Whether the send window follows the path: nobody gave `sndwnd`. [`Kcptun::snd_wnd`] is its upper bound then.
    pub snd_wnd: bool,
    /// Whether the receive window follows the path: nobody gave `rcvwnd`. [`Kcptun::rcv_wnd`] is its upper bound then.
    pub rcv_wnd: bool,
}

/// A parity shape: `data` packets are followed by `parity` packets.
///
/// Both are at least 1 and `data + parity` is at most 256. Kcptun's default: 10 + 3.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Shards {
    /// Data packets of a group.
    pub data: u8,
    /// Parity packets of a group.
    pub parity: u8,
}

/// The stream multiplexer's settings (docs/spec/kcptun.md, section 9).
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Smux {
    /// 1 or 2. Kcptun's default: 2 since November 2025, 1 before.
    pub version: u8,
    /// Bytes that a session buffers for streams that are not read, at least `stream_buffer`. Kcptun's default: 4 MiB. With mode
    /// auto [`Auto::memory`], unless somebody gave another.
    pub buffer: u32,
    /// Largest payload of a frame that we send, 1 to 65535 bytes. Kcptun's default: 8192.
    pub frame_size: u16,
    /// Window of a stream (version 2), at least 1 byte. Kcptun's default: 2 MiB. With mode auto the whole `buffer`, unless
    /// somebody gave another.
    pub stream_buffer: u32,
    /// Time between keep-alive frames, 1 to 30 s. Kcptun's default: 10 s.
    pub keep_alive: Duration,
}

/// QPP's settings (section 11).
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Qpp {
    /// Number of pads, at least 1. Kcptun's default: 61.
    pub count: u16,
    /// Which of the incompatible pad derivations the other end has.
    pub generation: QppGeneration,
}

/// Pad derivations of QPP (section 11.3).
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub enum QppGeneration {
    /// Since 22 December 2025.
    #[default]
    Current,
    /// Release v20251219.
    V20251219,
    /// Releases v20240729 to v20251212.
    V2024,
}

impl QppGeneration {
    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::V20251219 => "20251219",
            Self::V2024 => "2024",
        }
    }
}

/// Where log lines go.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Log {
    /// A file to append to; `None`: standard error.
    pub file: Option<PathBuf>,
    /// Whether lines about single streams (target `fulmar::stream`) are dropped.
    pub quiet: bool,
    /// Whether all settings are logged at start, also defaults.
    pub verbose: bool,
}

/// The periodic counters file (section 14.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stats {
    /// Path whose last element is a Go time layout; `None`: no file.
    pub snmp_log: Option<String>,
    /// Where the status interface listens; always TCP. `None` (the default): nowhere.
    pub http_listen: Option<StreamAddr>,
    /// Time between records, at least 1 s. Kcptun's default: 60 s.
    pub period: Duration,
}
