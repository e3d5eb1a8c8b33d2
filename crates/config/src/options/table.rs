//! The rows: every option that a kcptun program or a plugin build of it has, and ours.

use super::{DEFAULT_KEY, Group, Id, Kind, Opt, Preset, Side};
use crate::origin::Program;

/// Names of methods that `--crypt` takes, and `auto`.
pub(super) const CRYPTS: &[&str] = &[
    "aes",
    "aes-128",
    "aes-128-gcm",
    "aes-192",
    "salsa20",
    "blowfish",
    "twofish",
    "cast5",
    "3des",
    "tea",
    "xtea",
    "xor",
    "sm4",
    "none",
    "null",
    "auto",
];
const MODES: &[&str] = &["normal", "fast", "fast2", "fast3", "manual"];
const GENERATIONS: &[&str] = &["current", "20251219", "2024"];

/// Largest signed 32-bit number: what sizes and times end at.
const I32_MAX: i64 = i32::MAX as i64;
/// Ten years: longer times are typing errors, and shorter ones add up without care.
const MAX_SECONDS: i64 = 10 * 366 * 86_400;

const BASE: Opt = Opt {
    id: Id::Config,
    flag: "",
    aliases: &[],
    key: None,
    plugin: true,
    only: None,
    program: Program::Kcptun,
    kind: Kind::Bool,
    value_name: "",
    client: Preset::Off,
    server: Preset::Off,
    group: Group::Other,
    hidden: false,
    help: "",
    note: "",
};

const fn int(min: i64, max: i64, unit: &'static str) -> Kind {
    Kind::Int { min, max, unit }
}

const fn seconds(min: i64) -> Kind {
    int(min, MAX_SECONDS, "seconds")
}

/// Every option, in the order of help texts.
pub const TABLE: [Opt; 44] = [
    Opt {
        id: Id::LocalAddr,
        flag: "localaddr",
        aliases: &["l"],
        key: Some("localaddr"),
        only: Some(Side::Client),
        kind: Kind::Text,
        value_name: "ADDR",
        client: Preset::Text(":12948"),
        group: Group::Addresses,
        help: "Listen here for TCP connections: host:port, or the path of a Unix socket",
        note: "Ports are numbers; a text without a port is a Unix path as in kcptun, with a warning where it looks unintended",
        ..BASE
    },
    Opt {
        id: Id::RemoteAddr,
        flag: "remoteaddr",
        aliases: &["r"],
        key: Some("remoteaddr"),
        only: Some(Side::Client),
        kind: Kind::Text,
        value_name: "ADDR",
        client: Preset::Text("vps:29900"),
        group: Group::Addresses,
        help: "The server: host:port or host:min-max",
        note: "Checked before anything is opened; text behind the ports is ignored as in kcptun, with a warning",
        ..BASE
    },
    Opt {
        id: Id::Listen,
        flag: "listen",
        aliases: &["l"],
        key: Some("listen"),
        only: Some(Side::Server),
        kind: Kind::Text,
        value_name: "ADDR",
        server: Preset::Text(":29900"),
        group: Group::Addresses,
        help: "Listen here for clients (UDP): host:port or host:min-max",
        note: "As --remoteaddr",
        ..BASE
    },
    Opt {
        id: Id::Target,
        flag: "target",
        aliases: &["t"],
        key: Some("target"),
        only: Some(Side::Server),
        kind: Kind::Text,
        value_name: "ADDR",
        server: Preset::Text("127.0.0.1:12948"),
        group: Group::Addresses,
        help: "Where streams go: host:port, or the path of a Unix socket",
        note: "As --localaddr",
        ..BASE
    },
    Opt {
        id: Id::Key,
        flag: "key",
        key: Some("key"),
        kind: Kind::Text,
        value_name: "SECRET",
        client: Preset::Text(DEFAULT_KEY),
        server: Preset::Text(DEFAULT_KEY),
        group: Group::Security,
        help: "Pre-shared secret; the flag is visible in process lists, KCPTUN_KEY and --key-file are not",
        note: "KCPTUN_KEY is the flag's default; the public default is a warning at start",
        ..BASE
    },
    Opt {
        id: Id::KeyFile,
        flag: "key-file",
        key: Some("key-file"),
        program: Program::Fulmar,
        kind: Kind::Path,
        value_name: "FILE",
        client: Preset::Text(""),
        server: Preset::Text(""),
        group: Group::Security,
        help: "Read the secret from FILE, every byte of it; a newline in it is refused",
        ..BASE
    },
    Opt {
        id: Id::Crypt,
        flag: "crypt",
        key: Some("crypt"),
        kind: Kind::Name {
            names: CRYPTS,
            open: true,
        },
        value_name: "NAME",
        client: Preset::Text("aes"),
        server: Preset::Text("aes"),
        group: Group::Security,
        help: "Packet cipher; a server's \"auto\" finds out from each client's first packet",
        note: "An unknown name means aes as in kcptun, with a warning; \"auto\" is ours, on a server only",
        ..BASE
    },
    Opt {
        id: Id::Qpp,
        flag: "QPP",
        key: Some("qpp"),
        group: Group::Security,
        help: "Permute the bytes of each stream by pads derived from the key",
        ..BASE
    },
    Opt {
        id: Id::QppCount,
        flag: "QPPCount",
        key: Some("qpp-count"),
        kind: int(1, 65535, "pads"),
        value_name: "N",
        client: Preset::Int(61),
        server: Preset::Int(61),
        group: Group::Security,
        help: "Number of pads of --QPP; a prime number",
        ..BASE
    },
    Opt {
        id: Id::QppCompat,
        flag: "qpp-compat",
        key: Some("qpp-compat"),
        program: Program::Fulmar,
        kind: Kind::Name {
            names: GENERATIONS,
            open: false,
        },
        value_name: "RELEASE",
        client: Preset::Text("current"),
        server: Preset::Text("current"),
        group: Group::Security,
        help: "Pads of --QPP as the other end derives them: kcptun until v20251212 is 2024, v20251219 is 20251219",
        ..BASE
    },
    Opt {
        id: Id::Mode,
        flag: "mode",
        key: Some("mode"),
        kind: Kind::Name {
            names: MODES,
            open: true,
        },
        value_name: "NAME",
        client: Preset::Text("fast"),
        server: Preset::Text("fast"),
        group: Group::Speed,
        help: "Profile of retransmission",
        note: "An unknown name means manual as in kcptun, with a warning",
        ..BASE
    },
    Opt {
        id: Id::AckNoDelay,
        flag: "acknodelay",
        key: Some("acknodelay"),
        group: Group::Speed,
        hidden: true,
        help: "Acknowledge at once, not with the next flush",
        ..BASE
    },
    Opt {
        id: Id::NoDelay,
        flag: "nodelay",
        key: Some("nodelay"),
        kind: int(0, I32_MAX, ""),
        value_name: "0|1",
        client: Preset::Int(0),
        server: Preset::Int(0),
        group: Group::Manual,
        hidden: true,
        help: "Retransmit with a short minimum timeout and a slow back-off",
        note: "Takes effect with --mode manual, as in kcptun",
        ..BASE
    },
    Opt {
        id: Id::Interval,
        flag: "interval",
        key: Some("interval"),
        kind: int(0, I32_MAX, "milliseconds"),
        value_name: "MS",
        client: Preset::Int(50),
        server: Preset::Int(50),
        group: Group::Manual,
        hidden: true,
        help: "Flush interval in milliseconds, 10 to 5000",
        note: "Takes effect with --mode manual; clamped to 10 to 5000 as in kcptun, with a warning",
        ..BASE
    },
    Opt {
        id: Id::Resend,
        flag: "resend",
        key: Some("resend"),
        kind: int(0, I32_MAX, "acknowledgements"),
        value_name: "N",
        client: Preset::Int(0),
        server: Preset::Int(0),
        group: Group::Manual,
        hidden: true,
        help: "Resend a segment once N later ones were acknowledged; 0: wait for the timeout",
        note: "Takes effect with --mode manual, as in kcptun",
        ..BASE
    },
    Opt {
        id: Id::Nc,
        flag: "nc",
        key: Some("nc"),
        kind: int(0, I32_MAX, ""),
        value_name: "0|1",
        client: Preset::Int(0),
        server: Preset::Int(0),
        group: Group::Manual,
        hidden: true,
        help: "1: no congestion window",
        note: "Takes effect with --mode manual, as in kcptun",
        ..BASE
    },
    Opt {
        id: Id::SndWnd,
        flag: "sndwnd",
        key: Some("sndwnd"),
        kind: int(1, 65535, "packets"),
        value_name: "PACKETS",
        client: Preset::Int(128),
        server: Preset::Int(1024),
        group: Group::Speed,
        help: "Send window: packets on their way at once",
        ..BASE
    },
    Opt {
        id: Id::RcvWnd,
        flag: "rcvwnd",
        key: Some("rcvwnd"),
        kind: int(1, 65535, "packets"),
        value_name: "PACKETS",
        client: Preset::Int(512),
        server: Preset::Int(1024),
        group: Group::Speed,
        help: "Receive window: packets that the other end may have on their way",
        note: "65536 and more are refused: the packet format has 16 bits for it, and kcptun announces the remainder",
        ..BASE
    },
    Opt {
        id: Id::RateLimit,
        flag: "ratelimit",
        key: Some("ratelimit"),
        kind: int(i64::MIN, u32::MAX as i64, "bytes per second"),
        value_name: "BYTES/S",
        client: Preset::Int(0),
        server: Preset::Int(0),
        group: Group::Speed,
        help: "Largest rate of one session in bytes of UDP payload per second; 0: no limit",
        note: "A negative number means no limit as in kcptun, with a warning",
        ..BASE
    },
    Opt {
        id: Id::Threads,
        flag: "threads",
        key: Some("threads"),
        program: Program::Fulmar,
        kind: int(0, 256, "threads"),
        value_name: "N",
        client: Preset::Int(0),
        server: Preset::Int(0),
        group: Group::Speed,
        help: "Threads that do the work; 0: one for each core that this program may use",
        note: "0: one for each core that the program may use; a client takes no more than it has sessions. See design/threads.md",
        ..BASE
    },
    Opt {
        id: Id::Mtu,
        flag: "mtu",
        key: Some("mtu"),
        kind: int(50, 1500, "bytes"),
        value_name: "BYTES",
        client: Preset::Int(1350),
        server: Preset::Int(1350),
        group: Group::Packets,
        help: "Largest UDP payload",
        note: "Refused outside 50 to 1500, or when the headers leave less than 50 bytes; kcptun then keeps 1400",
        ..BASE
    },
    Opt {
        id: Id::DataShard,
        flag: "datashard",
        aliases: &["ds"],
        key: Some("datashard"),
        kind: int(i64::MIN, 255, "packets"),
        value_name: "N",
        client: Preset::Int(10),
        server: Preset::Int(10),
        group: Group::Packets,
        help: "Packets per parity group; 0: no parity",
        note: "Sums above 256 are refused: no parity would be sent",
        ..BASE
    },
    Opt {
        id: Id::ParityShard,
        flag: "parityshard",
        aliases: &["ps"],
        key: Some("parityshard"),
        kind: int(i64::MIN, 255, "packets"),
        value_name: "N",
        client: Preset::Int(3),
        server: Preset::Int(3),
        group: Group::Packets,
        help: "Parity packets per group, each makes good for one lost packet; 0: no parity",
        note: "As --datashard",
        ..BASE
    },
    Opt {
        id: Id::Dscp,
        flag: "dscp",
        key: Some("dscp"),
        kind: int(0, 63, ""),
        value_name: "N",
        client: Preset::Int(0),
        server: Preset::Int(0),
        group: Group::Packets,
        help: "DSCP value of our packets, 0 to 63",
        ..BASE
    },
    Opt {
        id: Id::SockBuf,
        flag: "sockbuf",
        key: Some("sockbuf"),
        kind: int(1, I32_MAX, "bytes"),
        value_name: "BYTES",
        client: Preset::Int(4_194_304),
        server: Preset::Int(4_194_304),
        group: Group::Packets,
        help: "Send and receive buffer of a UDP socket; the size that the system grants is logged",
        ..BASE
    },
    Opt {
        id: Id::Tcp,
        flag: "tcp",
        key: Some("tcp"),
        group: Group::Packets,
        help: "Packets look like TCP segments (Linux, root or CAP_NET_RAW and CAP_NET_ADMIN)",
        note: "Linux only, an error elsewhere; both roles work",
        ..BASE
    },
    Opt {
        id: Id::Conn,
        flag: "conn",
        key: Some("conn"),
        only: Some(Side::Client),
        kind: int(1, 65535, "sessions"),
        value_name: "N",
        client: Preset::Int(1),
        group: Group::Streams,
        help: "Sessions (UDP ports) that share the streams",
        ..BASE
    },
    Opt {
        id: Id::AutoExpire,
        flag: "autoexpire",
        key: Some("autoexpire"),
        only: Some(Side::Client),
        kind: seconds(0),
        value_name: "SECONDS",
        client: Preset::Int(0),
        group: Group::Streams,
        help: "Start a new session for new streams after this time; 0: never",
        ..BASE
    },
    Opt {
        id: Id::ScavengeTtl,
        flag: "scavengettl",
        key: Some("scavengettl"),
        only: Some(Side::Client),
        kind: seconds(0),
        value_name: "SECONDS",
        client: Preset::Int(600),
        group: Group::Streams,
        help: "Close an expired session after this time",
        ..BASE
    },
    Opt {
        id: Id::NoComp,
        flag: "nocomp",
        key: Some("nocomp"),
        group: Group::Streams,
        help: "No compression (equal on both ends; a Fulmar server adapts)",
        ..BASE
    },
    Opt {
        id: Id::SmuxVer,
        flag: "smuxver",
        key: Some("smuxver"),
        kind: int(1, 2, ""),
        value_name: "1|2",
        client: Preset::Int(2),
        server: Preset::Int(2),
        group: Group::Streams,
        help: "Version of the stream multiplexer (equal on both ends; a Fulmar server adapts)",
        note: "Default 2 as in the last kcptun; Debian's 20210922 and releases before v20251205 default to 1, as a plugin does",
        ..BASE
    },
    Opt {
        id: Id::SmuxBuf,
        flag: "smuxbuf",
        key: Some("smuxbuf"),
        kind: int(1, I32_MAX, "bytes"),
        value_name: "BYTES",
        client: Preset::Int(4_194_304),
        server: Preset::Int(4_194_304),
        group: Group::Streams,
        help: "Memory of one session for data that no application has read yet",
        note: "Must not be smaller than --streambuf; refused at start, not with the first session",
        ..BASE
    },
    Opt {
        id: Id::FrameSize,
        flag: "framesize",
        key: Some("framesize"),
        kind: int(1, 65535, "bytes"),
        value_name: "BYTES",
        client: Preset::Int(8192),
        server: Preset::Int(8192),
        group: Group::Streams,
        help: "Largest piece of a stream that is sent at once",
        ..BASE
    },
    Opt {
        id: Id::StreamBuf,
        flag: "streambuf",
        key: Some("streambuf"),
        kind: int(1, I32_MAX, "bytes"),
        value_name: "BYTES",
        client: Preset::Int(2_097_152),
        server: Preset::Int(2_097_152),
        group: Group::Streams,
        help: "Window of one stream (smux version 2)",
        ..BASE
    },
    Opt {
        id: Id::KeepAlive,
        flag: "keepalive",
        key: Some("keepalive"),
        kind: int(1, 30, "seconds"),
        value_name: "SECONDS",
        client: Preset::Int(10),
        server: Preset::Int(10),
        group: Group::Streams,
        help: "Time between signs of life, 1 to 30",
        note: "Refused at start outside 1 to 30, not with the first session",
        ..BASE
    },
    Opt {
        id: Id::CloseWait,
        flag: "closewait",
        key: Some("closewait"),
        kind: seconds(0),
        value_name: "SECONDS",
        client: Preset::Int(0),
        server: Preset::Int(30),
        group: Group::Streams,
        help: "How long one direction of a stream may live on after the other ended",
        note: "See the section on half-close",
        ..BASE
    },
    Opt {
        id: Id::SnmpLog,
        flag: "snmplog",
        key: Some("snmplog"),
        kind: Kind::Text,
        value_name: "FILE",
        client: Preset::Text(""),
        server: Preset::Text(""),
        group: Group::Observation,
        help: "Append counters to this CSV file; its name is a Go time layout, like ./snmp-20060102.log",
        ..BASE
    },
    Opt {
        id: Id::SnmpPeriod,
        flag: "snmpperiod",
        key: Some("snmpperiod"),
        kind: seconds(0),
        value_name: "SECONDS",
        client: Preset::Int(60),
        server: Preset::Int(60),
        group: Group::Observation,
        help: "Time between two lines of --snmplog; 0: none",
        note: "Negative numbers are refused; kcptun crashes on them",
        ..BASE
    },
    Opt {
        id: Id::Log,
        flag: "log",
        key: Some("log"),
        kind: Kind::Path,
        value_name: "FILE",
        client: Preset::Text(""),
        server: Preset::Text(""),
        group: Group::Observation,
        help: "Append log lines to FILE instead of standard error; SIGHUP opens it anew",
        ..BASE
    },
    Opt {
        id: Id::Quiet,
        flag: "quiet",
        key: Some("quiet"),
        group: Group::Observation,
        help: "No lines about single streams",
        ..BASE
    },
    Opt {
        id: Id::Pprof,
        flag: "pprof",
        key: Some("pprof"),
        group: Group::Observation,
        help: "Refused: there is no Go profiler here; use perf record -p PID",
        note: "Refused with exit code 2; --pprof=false and \"pprof\": false are accepted",
        ..BASE
    },
    Opt {
        id: Id::Config,
        flag: "c",
        plugin: false,
        kind: Kind::Path,
        value_name: "FILE",
        client: Preset::Text(""),
        server: Preset::Text(""),
        help: "Read this JSON file; what it says overrides the command line",
        ..BASE
    },
    Opt {
        id: Id::AndroidVpn,
        flag: "V",
        program: Program::KcptunPlugin,
        hidden: true,
        help: "Android: have the VPN service exempt our sockets (also the plugin option __android_vpn)",
        note: "Refused: sockets are not handed to an Android VPN service",
        ..BASE
    },
    Opt {
        id: Id::FastOpen,
        flag: "fast-open",
        program: Program::KcptunPlugin,
        hidden: true,
        help: "Accepted and ignored, as by kcptun's shadowsocks plugin",
        note: "Accepted and ignored, as there",
        ..BASE
    },
];
