//! The typed model of a kcptun-libev process. It knows no syntax; every value in it has been checked.
//!
//! Build one with [`libev_from_bytes`](crate::libev_from_bytes) or [`libev_from_file`](crate::libev_from_file), not by
//! hand: it promises ranges that only the checks establish.

use core::fmt;
use core::time::Duration;

use fulmar_wire::libev::Method;

use crate::origin::Provenance;
use crate::secret::{Key, Psk};

/// Everything that one process does (docs/spec/kcptun-libev.md, section 3.2).
#[derive(Clone, PartialEq, Debug)]
pub struct LibevConfig {
    /// Client, server or relay, and the addresses of that role.
    pub role: LibevRole,
    /// How datagrams are sealed.
    pub crypto: Crypto,
    /// What packets are made to look like; Linux only. `None`: UDP. Never with a relay, a rendezvous, or without
    /// encryption.
    pub obfs: Option<Obfs>,
    /// UDP: the device that the socket is bound to. With `obfs`: the one that is captured on. 1 to 15 bytes.
    pub netdev: Option<String>,
    /// The service at the relay, at most 256 bytes; empty: the one without a name.
    pub service_id: Vec<u8>,
    /// Local address of a client's UDP socket besides [`Place::Direct`]; `None`: any. Never with other roles: a server's
    /// is its place, and a rendezvous has its own.
    pub client_bind: Option<HostPort>,
    /// Where the status interface listens (TCP).
    pub http_listen: Option<HostPort>,
    /// Silence after which a client pings, and how often a server makes itself known to its relay, 1 s to 600 s. `None`:
    /// never, which a rendezvous excludes. Default: 25 s.
    pub keepalive: Option<Duration>,
    /// Silence after which a session ends, and the life of a registration at a relay, 60 s to 86,400 s. Default: 600 s.
    pub timeout: Duration,
    /// How long an end waits for the other one at the close, 5 s to 600 s. Default: 30 s.
    pub linger: Duration,
    /// How long a dead conversation is remembered, 5 s to 3,600 s. Default: 120 s.
    pub time_wait: Duration,
    /// The arq.
    pub kcp: KcpSettings,
    /// Sockets of applications and services.
    pub tcp: TcpSettings,
    /// The socket of the tunnel.
    pub udp: UdpSettings,
    /// What is logged, and where.
    pub log: LibevLog,
    /// Whom to become after the start: `[user][:[group]]`, each a name or a number (section 14.2). Never empty. The
    /// command line's goes before this one.
    pub user: Option<String>,
    /// What only Fulmar has.
    pub ours: Ours,
    /// Where each value came from, by key; those in objects with the object's name, as `kcp.mtu`.
    pub provenance: Provenance,
}

/// What this process is (section 1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LibevRole {
    /// The end with the TCP listener.
    Client {
        /// Where applications connect to. An empty host is `0.0.0.0`.
        listen: HostPort,
        /// The server. [`Place::Direct`] is `kcp_connect`.
        place: Place,
    },
    /// The end that dials.
    Server {
        /// The service that streams go to. The host is never empty.
        connect: HostPort,
        /// Where clients come to. [`Place::Direct`] is `kcp_bind`.
        place: Place,
    },
    /// Neither: brings clients and servers together.
    Relay {
        /// Its UDP address. An empty host is `0.0.0.0`.
        bind: HostPort,
        /// Given where a file has `rendezvous_server` and `kcp_bind` and neither `connect` nor `listen` (section 1). The
        /// process is a relay all the same and never makes itself known to that address.
        upstream_relay: Option<HostPort>,
    },
}

impl LibevRole {
    /// The name in logs (section 1): `client`, `server`, `relay`, `rendezvous server`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Client { .. } => "client",
            Self::Server { .. } => "server",
            Self::Relay {
                upstream_relay: None,
                ..
            } => "relay",
            Self::Relay { .. } => "rendezvous server",
        }
    }

    /// Where client and server meet; `None` of a relay.
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::Client { place, .. } | Self::Server { place, .. } => Some(place),
            Self::Relay { .. } => None,
        }
    }
}

/// Where client and server meet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// An address of the server: a client's `kcp_connect` (the host is never empty), a server's `kcp_bind` (an empty host
    /// is `0.0.0.0`). With `obfs` a TCP address.
    Direct(HostPort),
    /// Both are behind NAT and find each other at a relay (section 12).
    Rendezvous {
        /// The relay: `rendezvous_server`. The host is never empty.
        relay: HostPort,
        /// The own UDP address: `kcp_bind`. `None`: any.
        bind: Option<HostPort>,
    },
}

/// An address as written: a host, which may have to be resolved, and a port (section 3.3).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostPort {
    /// Name or address, an IPv6 one without brackets. Empty where a local address may be any: `0.0.0.0`.
    pub host: String,
    /// The port.
    pub port: Port,
}

impl HostPort {
    /// The host to bind or resolve: `0.0.0.0` for an empty one.
    #[must_use]
    pub fn host_or_any(&self) -> &str {
        if self.host.is_empty() {
            "0.0.0.0"
        } else {
            &self.host
        }
    }
}

/// As in the file: `host:port`, IPv6 addresses in brackets.
impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A port: its number, and the service's name if it was written as one. Names are looked up when the file is read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Port {
    /// The number. 0 only in local addresses: the system chooses.
    pub number: u16,
    /// The name that was written.
    pub service: Option<String>,
}

impl From<u16> for Port {
    fn from(number: u16) -> Self {
        Self {
            number,
            service: None,
        }
    }
}

/// As in the file.
impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.service {
            Some(name) => f.write_str(name),
            None => self.number.fmt(f),
        }
    }
}

/// How datagrams are sealed (section 4).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Crypto {
    /// Not at all.
    Plain,
    /// With a key that both ends and the relay share.
    Sealed {
        /// The method; never [`Method::Plain`].
        method: Method,
        /// What the key is made of.
        secret: Secret,
    },
}

impl Crypto {
    /// Forgets a password, once the key has been derived. A `psk` is the key.
    pub fn wipe(&mut self) {
        if let Self::Sealed {
            secret: Secret::Password(password),
            ..
        } = self
        {
            password.wipe();
        }
    }

    /// The method; [`Method::Plain`] of [`Self::Plain`].
    #[must_use]
    pub fn method(&self) -> Method {
        match self {
            Self::Plain => Method::Plain,
            Self::Sealed { method, .. } => *method,
        }
    }
}

/// What the key is made of (section 4.2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Secret {
    /// A text that the key is derived from; may be empty.
    Password(Key),
    /// The key itself.
    Psk(Psk),
}

/// What packets are made to look like (section 13).
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Obfs {
    /// `dpi/tcp-wnd`: a TCP connection that the kernel made.
    TcpWnd,
    /// `dpi/tcp`: a TCP connection that no kernel knows.
    Tcp,
}

impl Obfs {
    /// The name in the file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TcpWnd => "dpi/tcp-wnd",
            Self::Tcp => "dpi/tcp",
        }
    }
}

/// The object `kcp`.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct KcpSettings {
    /// Size of the whole IP packet, 300 to 1500 bytes (section 5). Default: 1400.
    pub mtu: u16,
    /// Send window, 16 to 65,536 segments. Default: 256.
    pub sndwnd: u32,
    /// Receive window, 128 to 65,535 segments: smaller ones act as 128, and 65,536 acts as 65,535. Default: 256.
    pub rcvwnd: u32,
    /// 0 to 2 (section 7.3). Default: 1.
    pub nodelay: u8,
    /// Period of the update, 10 ms to 500 ms. Default: 100 ms.
    pub interval: Duration,
    /// Later acknowledgements after which a segment is sent again, 0 to 100; 0 (default) = never.
    pub resend: u32,
    /// Whether there is *no* congestion window. Default: true.
    pub nc: bool,
    /// When output is sent, 0 to 2 (section 7.4). Default: 1.
    pub flush: u8,
    /// What somebody gave: a default is not a wish.
    pub explicit: Explicit,
}

/// Which keys of `kcp` somebody gave.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub struct Explicit {
    /// `mtu`.
    pub mtu: bool,
    /// `sndwnd`.
    pub sndwnd: bool,
    /// `rcvwnd`.
    pub rcvwnd: bool,
    /// Any of `nodelay`, `interval`, `resend`, `nc`, `flush`.
    pub profile: bool,
}

/// The object `tcp`.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct TcpSettings {
    /// SO_REUSEPORT on listeners. Default: false.
    pub reuseport: bool,
    /// SO_KEEPALIVE. Default: false.
    pub keepalive: bool,
    /// TCP_NODELAY. Default: true.
    pub nodelay: bool,
    /// SO_SNDBUF in bytes, at most 33,554,432; 0 (default): the system's.
    pub sndbuf: usize,
    /// SO_RCVBUF in bytes, at most 33,554,432; 0 (default): the system's.
    pub rcvbuf: usize,
}

/// The object `udp`.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct UdpSettings {
    /// SO_REUSEPORT. Default: false.
    pub reuseport: bool,
    /// SO_SNDBUF in bytes, at most 33,554,432; 0 (default): upstream leaves the system's.
    pub sndbuf: usize,
    /// SO_RCVBUF in bytes, at most 33,554,432; 0 (default): upstream leaves the system's.
    pub rcvbuf: usize,
}

/// What is logged, and where (sections 3.2 and 14.6).
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct LibevLog {
    /// 0 silence, 1 fatal, 2 error, 3 warning, 4 notice (default), 5 info, 6 debug, 7 verbose, 8 very verbose. What the
    /// command line adds is not in it: see [`LibevArgs::level`](crate::LibevArgs::level).
    pub level: u8,
    /// Where lines go. Default: standard output.
    pub sink: Sink,
}

/// Where log lines go.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Sink {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Standard error, with colours.
    Terminal,
    /// The system's log.
    Syslog,
    /// Nowhere.
    Discard,
}

impl Sink {
    /// All, in the order of the documentation.
    pub const ALL: [Self; 5] = [
        Self::Stdout,
        Self::Stderr,
        Self::Terminal,
        Self::Syslog,
        Self::Discard,
    ];

    /// The name in the file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Terminal => "terminal",
            Self::Syslog => "syslog",
            Self::Discard => "discard",
        }
    }
}

/// The object `fulmar`: keys that only Fulmar knows and that kcptun-libev passes over.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Ours {
    /// Who decides when to send. Default: [`Mode::Auto`], unless [`Explicit::profile`].
    pub mode: Mode,
    /// Most parity that mode auto may add, in percent of the data, 0 to 100. Default: 25.
    pub redundancy: u8,
    /// Bytes that a session may hold in mode auto, 1 MiB to 1 GiB. Default: 64 MiB.
    pub memory: usize,
    /// A client holds an application's end of data back until the other direction has ended, because an old server drops
    /// its answer (section 9.5). Only where the peer is not Fulmar. Default: false.
    pub delay_eof: bool,
    /// With `obfs`, wrong TCP checksums of the peer are accepted: there is a build that sends them (section 13.6).
    /// Default: false.
    pub accept_bad_checksums: bool,
}

/// Who decides when to send.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Mode {
    /// The sender follows the path.
    Auto,
    /// The keys of `kcp`, as upstream.
    Classic,
}

impl Mode {
    /// The name in the file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Classic => "classic",
        }
    }
}
