//! From raw values to the checked [`Config`]: every rule of docs/spec/kcptun.md, section 3.5, before anything is opened. The
//! rules of the kcptun of 2016 are in `first`, and `leniency` has what kcptun makes of numbers that are none.

mod first;
mod leniency;

use core::num::NonZeroU16;
use core::time::Duration;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use fulmar_wire::kcptun::{Method, kcp_mtu};

use crate::addr::{AddrError, PortRange, StreamAddr};
use crate::hint::nearest;
use crate::json;
use crate::kcptun_file;
use crate::model::{
    Auto, Client, Compat, Config, Crypt, Kcptun, Log, Mode, Qpp, QppGeneration, Role, Server,
    Shards, Smux, Stats,
};
use crate::options::{self, DEFAULT_KEY, Id, Kind, Opt, Side};
use crate::origin::{Origin, Provenance};
use crate::problem::{Failure, Place, Problem, Severity};
use crate::secret::Key;
use crate::strength;
use crate::text::{self, count, printable, quoted};
use crate::values::{Raw, Values, wanted};

/// The largest UDP payload of the format, and the one that kcptun keeps when the one that is given is too small
/// (section 3.5), in bytes.
const LARGEST_MTU: usize = 1500;
const FIRST_MTU: usize = 1400;
/// The bounds of KCP's flush interval in milliseconds; it clamps to them.
const INTERVAL_MS: core::ops::RangeInclusive<u64> = 10..=5000;
/// What QPP asks of a key, in bytes, and of the number of pads, before it is content (section 3.5).
const QPP_KEY: usize = 211;
const QPP_PADS: u16 = 7;

/// Where smux's sizes end.
const I32_MAX: u32 = i32::MAX as u32;
/// The largest window of KCP's format in segments, and the smallest receive window that mode auto chooses.
const LARGEST_WINDOW: u32 = 65535;
const SMALLEST_AUTO_WINDOW: usize = 1024;
/// What a segment of the receive window may take, in bytes: no packet is larger.
const SEGMENT: usize = 1500;

/// A configuration that can be used.
#[derive(Clone, PartialEq, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is worth saying about it; none of them is an error.
    pub problems: Vec<Problem>,
}

/// Checks `values` and builds the model. `problems` is what the front ends found.
pub(crate) fn resolve(
    values: &Values,
    plugin: bool,
    problems: Vec<Problem>,
) -> Result<Loaded, Failure> {
    let mut resolver = Resolver { values, problems };
    let config = resolver.config(plugin);
    let mut problems = resolver.problems;
    // Worst first; otherwise in the order found.
    problems.sort_by_key(|problem| core::cmp::Reverse(problem.severity));
    match config {
        Some(config)
            if !problems
                .iter()
                .any(|problem| problem.severity == Severity::Error) =>
        {
            Ok(Loaded { config, problems })
        }
        _ => Err(Failure { problems }),
    }
}

struct Resolver<'a> {
    values: &'a Values,
    problems: Vec<Problem>,
}

impl Resolver<'_> {
    /// `None` only together with an error among the problems.
    fn config(&mut self, plugin: bool) -> Option<Config> {
        let role = self.role();
        let tunnel = self.tunnel();
        let stats = self.stats();
        let log = Log {
            file: self.path(Id::Log),
            quiet: self.bool(Id::Quiet),
            verbose: self.bool(Id::Verbose),
        };
        let threads = NonZeroU16::new(self.int(Id::Threads));
        self.unsupported();
        let mut provenance = Provenance::default();
        for opt in options::of(self.values.side()) {
            provenance.set(opt.flag, self.origin(opt.id));
        }
        Some(Config {
            role: role?,
            tunnel: tunnel?,
            log,
            stats,
            threads,
            sip003: plugin,
            provenance,
        })
    }

    fn role(&mut self) -> Option<Role> {
        match self.values.side() {
            Side::Client => {
                let listen = self.stream_addr(Id::LocalAddr);
                let remote = self.port_range(Id::RemoteAddr);
                let conn = self.int(Id::Conn);
                let autoexpire = self.autoexpire();
                let scavenge_ttl = self.scavenge_ttl();
                if let Some(scavenge_ttl) = scavenge_ttl
                    && !autoexpire.is_zero()
                    && scavenge_ttl > autoexpire
                {
                    self.warn(
                        Id::ScavengeTtl,
                        format!(
                            "{} s are longer than autoexpire ({} s), so several sessions compete for the line",
                            scavenge_ttl.as_secs(),
                            autoexpire.as_secs()
                        ),
                        "make scavengettl shorter",
                    );
                }
                let mut remote = remote?;
                // kcptun dials this machine then.
                if remote.host.is_empty() {
                    remote.host = "127.0.0.1".into();
                }
                if self.origin(Id::RemoteAddr).is_default() {
                    self.warn(
                        Id::RemoteAddr,
                        format!("the server \"{}\" will be looked up", remote.host),
                        "give --remoteaddr host:port",
                    );
                }
                Some(Role::Client(Client {
                    listen: listen?,
                    remote,
                    conn,
                    autoexpire: (!autoexpire.is_zero()).then_some(autoexpire),
                    scavenge_ttl,
                }))
            }
            Side::Server => {
                let listen = self.port_range(Id::Listen);
                let mut target = self.stream_addr(Id::Target);
                match &mut target {
                    Some(StreamAddr::Tcp { port: 0, .. }) => {
                        self.error(
                            Id::Target,
                            "nobody can be reached at port 0",
                            "write a port from 1 to 65535",
                        );
                    }
                    Some(StreamAddr::Tcp { host, .. }) if host.is_empty() => {
                        *host = "127.0.0.1".into();
                    }
                    _ => {}
                }
                let also = self.listen_also();
                Some(Role::Server(Server {
                    listen: listen?,
                    also: also?,
                    target: target?,
                }))
            }
        }
    }

    fn tunnel(&mut self) -> Option<Kcptun> {
        let mut first = self.first();
        let key = self.key(first.is_some());
        if let (Some(first), Some((key, _))) = (&mut first, &key) {
            first.methods = self.first_methods(*first, key);
        }
        let (crypt, crypt_unknown_name) = match first {
            Some(_) => (Crypt::Method(Method::Aes), None),
            None => self.crypt(),
        };
        let (mode, profile) = match first {
            Some(first) => self.first_mode(first),
            None => self.mode(),
        };
        let auto = self.auto(&mode, first.is_none());
        let follows = auto.is_some_and(|auto| auto.parity);
        let fec = if follows || first.is_some() {
            None
        } else {
            self.shards()
        };
        let mtu = match first {
            Some(first) => self.first_mtu(first.methods),
            // Parity that comes only when the path asks for it needs its room from the start.
            None => self.mtu(crypt, fec.is_some() || follows),
        };
        let smux = self.smux(auto.as_ref());
        if first.is_some() {
            self.first_window(&smux);
        }
        if let Some(auto) = auto {
            self.contradictions(&auto, fec.is_some());
        }
        let (key, key_is_default) = key?;
        let qpp = match first {
            Some(_) => None,
            None => self.qpp(&key),
        };
        let snd_wnd = match auto {
            Some(auto) if auto.snd_wnd => LARGEST_WINDOW,
            _ => self.window(Id::SndWnd),
        };
        let rcv_wnd = match auto {
            Some(auto) if auto.rcv_wnd => window_of(auto.memory),
            _ => self.window(Id::RcvWnd),
        };
        Some(Kcptun {
            compat: first.map_or(Compat::Current, Compat::First),
            key,
            key_is_default,
            crypt,
            crypt_unknown_name,
            mode,
            auto,
            nodelay: profile.nodelay,
            interval: profile.interval,
            resend: profile.resend,
            congestion_control: profile.congestion_control,
            ack_no_delay: self.bool(Id::AckNoDelay),
            mtu,
            snd_wnd,
            rcv_wnd,
            fec,
            dscp: self.dscp(),
            compression: first.is_none() && !self.bool(Id::NoComp),
            smux,
            qpp,
            rate_limit: self.rate_limit(),
            sock_buf: self.sock_buf(),
            tcp: first.is_none() && self.bool(Id::Tcp),
            close_wait: self.close_wait(),
            close_wait_explicit: !self.origin(Id::CloseWait).is_default(),
        })
    }

    /// The secret and whether it is the public default. Of `key` and `key-file` the one with precedence counts. `first`: for
    /// the kcptun of 2016.
    fn key(&mut self, first: bool) -> Option<(Key, bool)> {
        let (text, file) = (self.origin(Id::Key), self.origin(Id::KeyFile));
        if !file.is_default() && layer(&file) == layer(&text) {
            self.error(
                Id::KeyFile,
                "both a key and a key file are given",
                "give one of them",
            );
            return None;
        }
        let from_file = layer(&file) > layer(&text);
        let (id, key) = if from_file {
            (Id::KeyFile, self.key_file()?)
        } else {
            (
                Id::Key,
                Key::new(self.text(Id::Key).as_encoded_bytes().to_vec()),
            )
        };
        let public = key.as_bytes() == DEFAULT_KEY.as_bytes();
        let crypt = self.text(Id::Crypt);
        let used = first || !matches!(crypt.to_str(), Some("none" | "null"));
        if public && used {
            self.warn(
                id,
                "the key is kcptun's default, which everybody knows",
                "give the same key of your own to both ends (fulmar genpsk makes one)",
            );
        } else if key.is_empty() && !first {
            self.warn(
                id,
                "the key is empty",
                "give the same key to both ends (fulmar genpsk makes one)",
            );
        } else if let Some(weakness) = strength::weakness(key.as_bytes())
            && used
            && !key.is_empty()
        {
            self.warn(
                id,
                format!("whoever records packets can try out keys {weakness} cheaply"),
                "give a long random key to both ends (fulmar genpsk makes one)",
            );
        }
        if first {
            self.first_protection(&key, id);
        }
        self.odd_ends(&key, id);
        if id == Id::Key && matches!(self.origin(Id::Key), Origin::Flag(_)) {
            self.note(
                id,
                "other users of this machine see the key in the process list",
                "use KCPTUN_KEY or --key-file",
            );
        }
        Some((key, public))
    }

    /// Warns of a key that begins or ends with what people hardly mean.
    fn odd_ends(&mut self, key: &Key, id: Id) {
        let Ok(text) = core::str::from_utf8(key.as_bytes()) else {
            return;
        };
        let odd = |c: &char| c.is_whitespace() || c.is_control() || text::lookalike(*c).is_some();
        let ends = [text.chars().next(), text.chars().next_back()];
        if let Some(c) = ends.into_iter().flatten().find(|c| odd(c)) {
            self.warn(
                id,
                format!(
                    "the key begins or ends with {}, which is part of it",
                    text::name(c)
                ),
                "remove it at both ends unless it is meant",
            );
        }
    }

    /// The name of the file is not shown: somebody may have written the key in its place.
    fn key_file(&mut self) -> Option<Key> {
        let path = self.path(Id::KeyFile)?;
        let key = match kcptun_file::read(&path) {
            Ok(mut content) => Key::new(std::mem::take(&mut content)),
            Err(problem) => {
                self.error(
                    Id::KeyFile,
                    problem.message,
                    "give a file that holds the key and nothing else",
                );
                return None;
            }
        };
        let marked = json::without_mark(key.as_bytes()).1;
        if marked || json::is_utf16(key.as_bytes()) {
            let what = if marked {
                "the file begins with a byte-order mark, which would be part of the key"
            } else {
                "the file is in UTF-16, whose zeros would be part of the key"
            };
            self.error(Id::KeyFile, what, "save it as UTF-8 without such a mark");
            return None;
        }
        if let Some(at) = key
            .as_bytes()
            .iter()
            .position(|b| matches!(b, b'\n' | b'\r'))
        {
            let message = if key.as_bytes()[at..]
                .iter()
                .all(|b| matches!(b, b'\n' | b'\r'))
            {
                "the file ends in a newline, which would be part of the key"
            } else {
                "the file has more than one line"
            };
            self.error(
                Id::KeyFile,
                message,
                "write it without a newline: printf %s 'KEY' > FILE, or fulmar genpsk -o FILE",
            );
            return None;
        }
        Some(key)
    }

    fn crypt(&mut self) -> (Crypt, Option<String>) {
        let name = self.text(Id::Crypt).to_string_lossy().into_owned();
        let method = match (Method::from_name(&name), name.as_str()) {
            (Some(method), _) => method,
            (None, "auto") if self.values.side() == Side::Server => return (Crypt::Auto, None),
            (None, "auto") => {
                self.error(
                    Id::Crypt,
                    "\"auto\" is for servers: a client speaks first",
                    "write the server's cipher",
                );
                return (Crypt::Auto, None);
            }
            (None, _) => {
                let methods = || Method::ALL.into_iter().map(Method::name);
                let hint = match nearest(&name, methods()) {
                    _ if name.to_ascii_lowercase().starts_with("aes") && name.contains("256") => {
                        "write aes, which is AES-256".into()
                    }
                    Some(meant) => format!("did you mean {meant}? Otherwise write aes"),
                    None => format!("write one of {}", methods().collect::<Vec<_>>().join(", ")),
                };
                let message = format!("{} is no cipher, and means aes as in kcptun", quoted(&name));
                self.mistake(Id::Crypt, message, hint);
                return (Crypt::Method(Method::Aes), Some(name));
            }
        };
        if method.is_plaintext() {
            self.warn(
                Id::Crypt,
                format!(
                    "{} neither hides nor protects anything; anyone can read and forge packets",
                    method.name()
                ),
                "choose aes-128-gcm if both ends have it, or aes",
            );
        }
        (Crypt::Method(method), None)
    }

    fn qpp(&mut self, key: &Key) -> Option<Qpp> {
        let on = self.bool(Id::Qpp);
        let generation = match self.text(Id::QppCompat).to_str() {
            Some("current") => QppGeneration::Current,
            Some("20251219") => QppGeneration::V20251219,
            Some("2024") => QppGeneration::V2024,
            _ => {
                let given = quoted(self.text(Id::QppCompat));
                self.error(
                    Id::QppCompat,
                    format!("{given} is none of them"),
                    wanted(options::get(Id::QppCompat)),
                );
                QppGeneration::Current
            }
        };
        if !on {
            // kcptun does not look at the number then.
            return None;
        }
        let pads: u16 = self.int(Id::QppCount);
        if key.len() < QPP_KEY {
            let message = format!(
                "QPP: the key has {}, {QPP_KEY} are advised",
                count(key.len() as u64, "byte")
            );
            self.warn(
                Id::Key,
                message,
                "give a longer key (fulmar genpsk qpp makes one)",
            );
        }
        if pads < QPP_PADS {
            self.warn(
                Id::QppCount,
                format!("QPP: {}, {QPP_PADS} are advised", count(pads, "pad")),
                "write 61",
            );
        }
        if pads.is_multiple_of(2) {
            self.warn(
                Id::QppCount,
                format!("QPP: {}, a prime number is advised", count(pads, "pad")),
                "write 61",
            );
        }
        Some(Qpp {
            count: pads,
            generation,
        })
    }

    fn mode(&mut self) -> (Mode, Profile) {
        let name = self.text(Id::Mode).to_string_lossy().into_owned();
        let (mode, nodelay, millis, resend) = match name.as_str() {
            "normal" => (Mode::Normal, false, 40, 2),
            "fast" => (Mode::Fast, false, 30, 2),
            "fast2" => (Mode::Fast2, true, 20, 2),
            "fast3" => (Mode::Fast3, true, 10, 2),
            // Which segments are lost it finds out itself.
            "auto" => (Mode::Auto, true, 10, 0),
            _ => return (Mode::Manual(name.clone()), self.manual(&name)),
        };
        self.without_effect(
            &[Id::NoDelay, Id::Interval, Id::Resend, Id::Nc],
            &name,
            "manual",
        );
        let profile = Profile {
            nodelay,
            interval: Duration::from_millis(millis),
            resend,
            congestion_control: false,
        };
        (mode, profile)
    }

    /// Notes those of `ids` that somebody gave although `mode` takes none of them; `taken_by` is the mode that does.
    fn without_effect(&mut self, ids: &[Id], mode: &str, taken_by: &str) {
        for &id in ids {
            if !self.origin(id).is_default() {
                self.note(
                    id,
                    format!("has no effect with mode {}", printable(mode)),
                    format!("write mode {taken_by} to use it, or remove it"),
                );
            }
        }
    }

    /// The bounds of mode auto, and what nobody has fixed. `parity`: whether the other end may understand any.
    fn auto(&mut self, mode: &Mode, parity: bool) -> Option<Auto> {
        let redundancy = self.int(Id::Redundancy);
        let memory = self.int::<usize>(Id::Memory) << 20;
        if *mode != Mode::Auto {
            self.without_effect(&[Id::Redundancy, Id::Memory], mode.name(), "auto");
            return None;
        }
        let open = |id| self.origin(id).is_default();
        Some(Auto {
            redundancy,
            memory,
            parity: parity && open(Id::DataShard) && open(Id::ParityShard),
            snd_wnd: open(Id::SndWnd),
            rcv_wnd: open(Id::RcvWnd),
        })
    }

    /// What of mode auto's bounds something else that was given overrides.
    fn contradictions(&mut self, auto: &Auto, fixed_parity: bool) {
        if fixed_parity && auto.redundancy == 0 {
            self.note(
                Id::Redundancy,
                "the parity that datashard and parityshard ask for is sent all the same",
                "write parityshard 0, or remove both",
            );
        }
    }

    fn manual(&mut self, name: &str) -> Profile {
        if name != "manual" {
            let Kind::Name { names, .. } = options::get(Id::Mode).kind else {
                unreachable!("mode is a name");
            };
            let hint = match nearest(name, names.iter().copied()) {
                Some(meant) => format!("did you mean {meant}? Otherwise write manual"),
                None => wanted(options::get(Id::Mode)),
            };
            let message = format!("{} is no mode, and means manual as in kcptun", quoted(name));
            self.mistake(Id::Mode, message, hint);
        }
        let given = match u64::try_from(self.number(Id::Interval)) {
            Ok(given) => given,
            Err(_) => self.manual_number(Id::Interval),
        };
        let millis = given.clamp(*INTERVAL_MS.start(), *INTERVAL_MS.end());
        if millis != given {
            self.mistake(
                Id::Interval,
                format!("{given} ms counts as {millis} ms, as in kcptun"),
                "write 10 to 5000 milliseconds",
            );
        }
        Profile {
            nodelay: self.manual_number(Id::NoDelay) != 0,
            interval: Duration::from_millis(millis),
            resend: u32::try_from(self.manual_number(Id::Resend)).unwrap_or(u32::MAX),
            congestion_control: self.manual_number(Id::Nc) == 0,
        }
    }

    fn shards(&mut self) -> Option<Shards> {
        let [data, parity] = [Id::DataShard, Id::ParityShard].map(|id| {
            let count = self.number(id);
            if count < 0 {
                self.mistake(
                    id,
                    format!("{count} means no parity, as in kcptun"),
                    "write 0 for that",
                );
            }
            count
        });
        if data <= 0 || parity <= 0 {
            return None;
        }
        // A number that is too large alone is an error of its own.
        let (data, parity): (u8, u8) = (self.int(Id::DataShard), self.int(Id::ParityShard));
        if u16::from(data) + u16::from(parity) > 256 {
            let id = match self.origin(Id::ParityShard) {
                Origin::Default(_) => Id::DataShard,
                _ => Id::ParityShard,
            };
            let message = format!(
                "{data} data and {} are more than 256 in a group",
                count(parity, "parity packet")
            );
            self.error(id, message, "make their sum 256 or less");
        }
        // The header is there in any case.
        Some(Shards { data, parity })
    }

    /// The size of a UDP payload. What kcptun makes of one that cannot be: the largest, or what it begins with.
    fn mtu(&mut self, crypt: Crypt, fec: bool) -> usize {
        let given = self.number(Id::Mtu);
        let (methods, name): (&[Method], _) = match &crypt {
            Crypt::Auto => (&Method::ALL, "auto"),
            Crypt::Method(method) => (core::slice::from_ref(method), method.name()),
        };
        let fits = |mtu: usize| {
            methods
                .iter()
                .all(|method| kcp_mtu(*method, fec, mtu).is_some())
        };
        let smallest = (50..=LARGEST_MTU)
            .find(|&mtu| fits(mtu))
            .unwrap_or(LARGEST_MTU);
        let hint = format!("write {smallest} to {LARGEST_MTU} bytes");
        match usize::try_from(given) {
            Ok(mtu) if mtu > LARGEST_MTU => {
                let message = format!("{given} counts as {LARGEST_MTU}, as in kcptun");
                self.mistake(Id::Mtu, message, hint);
                LARGEST_MTU
            }
            Ok(mtu) if fits(mtu) => mtu,
            _ => {
                let parity = if fec { " and parity" } else { "" };
                let message = format!(
                    "{given} leaves no room beside the headers of {name}{parity} and counts as {FIRST_MTU}, as in kcptun"
                );
                self.mistake(Id::Mtu, message, hint);
                FIRST_MTU
            }
        }
    }

    fn smux(&mut self, auto: Option<&Auto>) -> Smux {
        let buffer = match auto {
            Some(auto) if self.origin(Id::SmuxBuf).is_default() => {
                u32::try_from(auto.memory).map_or(I32_MAX, |memory| memory.min(I32_MAX))
            }
            _ => self.int(Id::SmuxBuf),
        };
        let stream_buffer = match auto {
            Some(_) if self.origin(Id::StreamBuf).is_default() => buffer,
            _ => self.int(Id::StreamBuf),
        };
        let smux = Smux {
            version: self.int(Id::SmuxVer),
            buffer,
            frame_size: self.int(Id::FrameSize),
            stream_buffer,
            keep_alive: Duration::from_secs(self.int(Id::KeepAlive)),
        };
        if smux.stream_buffer > smux.buffer {
            let given = !self.origin(Id::SmuxBuf).is_default();
            let id = if given { Id::SmuxBuf } else { Id::StreamBuf };
            let (limit, hint) = if auto.is_some() && !given {
                ("memory", "make streambuf smaller, or give more memory")
            } else {
                ("smuxbuf", "make smuxbuf at least as large as streambuf")
            };
            let message = format!(
                "streambuf ({}) is larger than {limit} ({})",
                smux.stream_buffer, smux.buffer
            );
            self.error(id, message, hint);
        }
        smux
    }

    fn stats(&mut self) -> Stats {
        let period = self.snmp_period();
        let log = self.text(Id::SnmpLog);
        let snmp_log = match log.to_str() {
            Some("") => None,
            Some(path) => Some(path.to_owned()),
            None => {
                let message = format!("{} is not UTF-8", quoted(log));
                self.error(Id::SnmpLog, message, "write a path in UTF-8");
                None
            }
        };
        if snmp_log.is_some() && period.is_zero() {
            self.warn(
                Id::SnmpPeriod,
                "a period of 0 means that no counters are written",
                "write a number of seconds",
            );
        }
        let http_listen = self.http_listen();
        Stats {
            http_listen,
            snmp_log: snmp_log.filter(|_| !period.is_zero()),
            period: period.max(Duration::from_secs(1)),
        }
    }

    fn http_listen(&mut self) -> Option<StreamAddr> {
        let text = self.text(Id::HttpListen);
        if text.is_empty() {
            return None;
        }
        match StreamAddr::parse(text) {
            Ok(addr @ StreamAddr::Tcp { .. }) => Some(addr),
            Ok(StreamAddr::Unix(_)) | Err(_) => {
                let message = format!("{} is no address with a port", quoted(text));
                self.error(Id::HttpListen, message, "write it like 127.0.0.1:9100");
                None
            }
        }
    }

    /// Options that are understood and refused.
    fn unsupported(&mut self) {
        if self.bool(Id::Pprof) {
            self.error(
                Id::Pprof,
                "there is no Go profiler in this program",
                "remove it, and use perf record -p PID",
            );
        }
        if self.bool(Id::AndroidVpn) {
            self.error(
                Id::AndroidVpn,
                "this program cannot ask an Android VPN service to exempt its sockets",
                "exempt the whole program from the VPN",
            );
        }
        if self.bool(Id::Tcp) && !cfg!(target_os = "linux") {
            self.error(
                Id::Tcp,
                "packets can look like TCP only on Linux",
                "remove it on both ends",
            );
        }
    }

    fn stream_addr(&mut self, id: Id) -> Option<StreamAddr> {
        match StreamAddr::parse(self.text(id)) {
            Ok(addr) => {
                if addr.looks_mistaken() {
                    let message = format!(
                        "{} has no port and is taken for the path of a Unix socket",
                        quoted(self.text(id))
                    );
                    self.mistake(
                        id,
                        message,
                        "write host:port, [address]:port for IPv6, or ./name for a path",
                    );
                }
                Some(addr)
            }
            Err(e) => {
                let text = self.text(id).to_owned();
                self.bad_addr(id, &text, &e, "host:port, or the path of a Unix socket");
                None
            }
        }
    }

    fn port_range(&mut self, id: Id) -> Option<PortRange> {
        let text = self.text(id).to_owned();
        self.port_range_of(id, &text)
    }

    /// Addresses that a server listens on besides the one of its option; `None` with an error.
    fn listen_also(&mut self) -> Option<Vec<PortRange>> {
        let also = self.values.also().iter();
        also.map(|text| self.port_range_of(Id::Listen, OsStr::new(text)))
            .collect()
    }

    /// `text`, which is the value of option `id`, or one of them.
    fn port_range_of(&mut self, id: Id, text: &OsStr) -> Option<PortRange> {
        let parsed = text
            .to_str()
            .ok_or_else(|| AddrError::Host(text.to_string_lossy().into_owned()));
        match parsed.and_then(PortRange::parse) {
            Ok((range, "")) => Some(range),
            Ok((range, rest)) => {
                let message = format!("{} behind the ports is ignored", quoted(rest));
                self.mistake(id, message, format!("write {range}"));
                Some(range)
            }
            Err(e) => {
                self.bad_addr(id, text, &e, "host:port or host:min-max");
                None
            }
        }
    }

    fn bad_addr(&mut self, id: Id, text: &OsStr, error: &AddrError, form: &str) {
        let given = quoted(text);
        self.error(id, format!("{given}: {error}"), format!("write {form}"));
    }

    fn given(&self, id: Id) -> &Raw {
        &self.values.given(id).raw
    }

    fn origin(&self, id: Id) -> Origin {
        self.values.given(id).origin.clone()
    }

    fn bool(&self, id: Id) -> bool {
        matches!(self.given(id), Raw::Bool(true))
    }

    fn text(&self, id: Id) -> &OsStr {
        match self.given(id) {
            Raw::Text(text) => text,
            _ => OsStr::new(""),
        }
    }

    /// The path, unless it is empty, which means unset.
    fn path(&self, id: Id) -> Option<PathBuf> {
        Some(Path::new(self.text(id)))
            .filter(|path| !path.as_os_str().is_empty())
            .map(Path::to_owned)
    }

    fn in_range(&self, id: Id) -> bool {
        match (options::get(id).kind, self.given(id)) {
            (Kind::Int { min, max, .. }, Raw::Int(n)) => (min..=max).contains(n),
            _ => true,
        }
    }

    /// The number, which the table's range makes fit. Out of range it is an error, and the nearest bound stands in.
    fn int<T: TryFrom<i64> + Default>(&mut self, id: Id) -> T {
        let (Kind::Int { min, max, .. }, &Raw::Int(n)) = (options::get(id).kind, self.given(id))
        else {
            return T::default();
        };
        if !self.in_range(id) {
            let opt: &Opt = options::get(id);
            let size = if n > max { "large" } else { "small" };
            self.error(id, format!("{n} is too {size}"), wanted(opt));
        }
        T::try_from(n.clamp(min, max)).unwrap_or_default()
    }

    /// The number as given, in or out of its range.
    fn number(&self, id: Id) -> i64 {
        match self.given(id) {
            Raw::Int(n) => *n,
            _ => 0,
        }
    }

    fn error(&mut self, id: Id, message: impl Into<String>, hint: impl Into<String>) {
        self.say(Severity::Error, id, message, hint);
    }

    fn mistake(&mut self, id: Id, message: impl Into<String>, hint: impl Into<String>) {
        self.say(Severity::Mistake, id, message, hint);
    }

    fn warn(&mut self, id: Id, message: impl Into<String>, hint: impl Into<String>) {
        self.say(Severity::Warning, id, message, hint);
    }

    fn note(&mut self, id: Id, message: impl Into<String>, hint: impl Into<String>) {
        self.say(Severity::Note, id, message, hint);
    }

    fn say(
        &mut self,
        severity: Severity,
        id: Id,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let place = match self.origin(id) {
            Origin::Default(_) => Place::NotGiven(options::get(id).flag),
            origin => Place::Value(origin),
        };
        self.problems
            .push(Problem::new(severity, place, message).hint(hint));
    }
}

/// The receive window that `memory` bytes hold, in segments.
fn window_of(memory: usize) -> u32 {
    u32::try_from((memory / SEGMENT).max(SMALLEST_AUTO_WINDOW))
        .map_or(LARGEST_WINDOW, |segments| segments.min(LARGEST_WINDOW))
}

struct Profile {
    nodelay: bool,
    interval: Duration,
    resend: u32,
    congestion_control: bool,
}

/// The rank of a value by where it came from.
fn layer(origin: &Origin) -> u8 {
    match origin {
        Origin::Default(_) => 0,
        Origin::Environment(_) => 1,
        Origin::Flag(_) => 2,
        Origin::Json { .. } => 3,
        Origin::PluginOption(_) => 4,
    }
}
