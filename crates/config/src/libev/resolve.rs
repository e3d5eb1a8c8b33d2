//! From what a file says to a checked model. The checks come in the order of docs/spec/kcptun-libev.md, section 3.2.

use core::time::Duration;
use std::collections::BTreeMap;

use fulmar_wire::libev::{MAX_SERVICE_ID, Method};

use crate::hint::nearest;
use crate::libev::addr;
use crate::libev::file::{Given, LibevFile, Raw};
use crate::libev::keys::{self, LIBEV_KEYS, LibevKind};
use crate::libev::model::{
    Crypto, Explicit, HostPort, KcpSettings, LibevConfig, LibevLog, LibevRole, Mode, Obfs, Ours,
    Place as Meeting, Secret, Sink, TcpSettings, UdpSettings,
};
use crate::libev::psk;
use crate::origin::{Origin, Provenance};
use crate::problem::{Failure, Place, Problem, Severity};
use crate::secret::{Key, Psk};
use crate::services::Services;
use crate::strength;
use crate::text::printable;

/// The key that kcptun-libev has without being given one (section 4.2).
const KEYLESS: [u8; 32] = [0xdb; 32];
/// Longest name of a device, in bytes.
const LONGEST_DEVICE: usize = 15;
/// Above this many seconds a NAT may forget a server that waits at a relay.
const NAT_SECONDS: u64 = 25;
/// Windows below this act as this.
const LEAST_RCVWND: u32 = 128;
/// Largest window that the wire can say.
const LARGEST_RCVWND: u32 = 65_535;
/// Socket buffers below this many bytes are no use.
const SMALL_BUFFER: u64 = 4096;

/// A configuration of kcptun-libev that can be used, and what is to be said about it.
#[derive(Clone, PartialEq, Debug)]
pub struct LibevLoaded {
    /// What to run.
    pub config: LibevConfig,
    /// What was found; none of it is an error.
    pub problems: Vec<Problem>,
}

/// Makes the model.
pub(super) fn resolve(file: LibevFile<'_>, services: Services<'_>) -> Result<LibevLoaded, Failure> {
    let unreadable = file.problems.iter().any(|p| p.is_fatal(false));
    let mut checks = Checks {
        unreadable,
        path_place: Place::File {
            path: file.path.into(),
            at: None,
        },
        given: file.given,
        problems: file.problems,
        services,
    };
    let config = checks.config();
    let problems = checks.problems;
    match config {
        Some(config) if !problems.iter().any(|p| p.is_fatal(false)) => {
            Ok(LibevLoaded { config, problems })
        }
        _ => Err(Failure { problems }),
    }
}

struct Checks<'a> {
    path_place: Place,
    /// Whether a value was refused, so that a key that seems missing may be that one.
    unreadable: bool,
    given: BTreeMap<&'static str, Given>,
    problems: Vec<Problem>,
    services: Services<'a>,
}

impl Checks<'_> {
    /// `None` with an error among the problems.
    fn config(&mut self) -> Option<LibevConfig> {
        let addresses = Addresses {
            listen: self.address("listen"),
            connect: self.address("connect"),
            kcp_bind: self.address("kcp_bind"),
            kcp_connect: self.address("kcp_connect"),
            rendezvous: self.address("rendezvous_server"),
        };
        let http_listen = self.address("http_listen").flatten();
        let service_id = self.service_id();
        let both = self.has("listen") && self.has("connect");
        if both {
            self.error(
                "listen",
                "\"listen\" makes this a client and \"connect\" a server",
                "remove one of them",
            );
        }
        let keepalive = self.keepalive();
        let role = if both { None } else { self.role(addresses) };
        let crypto = self.crypto();
        let obfs = self.obfs(crypto.as_ref());
        let kcp = self.kcp();
        let config = LibevConfig {
            client_bind: self.client_bind(role.as_ref()),
            crypto: crypto.unwrap_or(Crypto::Plain),
            obfs,
            netdev: self.netdev(),
            service_id,
            http_listen,
            keepalive,
            timeout: self.seconds("timeout"),
            linger: self.seconds("linger"),
            time_wait: self.seconds("time_wait"),
            kcp,
            tcp: TcpSettings {
                reuseport: self.bool("tcp.reuseport"),
                keepalive: self.bool("tcp.keepalive"),
                nodelay: self.bool("tcp.nodelay"),
                sndbuf: self.buffer("tcp.sndbuf"),
                rcvbuf: self.buffer("tcp.rcvbuf"),
            },
            udp: UdpSettings {
                reuseport: self.bool("udp.reuseport"),
                sndbuf: self.buffer("udp.sndbuf"),
                rcvbuf: self.buffer("udp.rcvbuf"),
            },
            log: LibevLog {
                level: self.small("loglevel"),
                sink: self.sink(),
            },
            user: self.user(),
            ours: self.ours(role.as_ref(), obfs, kcp.explicit),
            provenance: self.provenance(),
            role: role?,
        };
        Some(config)
    }

    /// `Some(None)` if it is not given, `None` with an error if it is none.
    fn address(&mut self, name: &'static str) -> Option<Option<HostPort>> {
        let local = keys::find(name).is_some_and(|key| key.kind == LibevKind::Local);
        let Some(text) = self.text(name) else {
            return Some(None);
        };
        match addr::parse(text, local, self.services) {
            Ok(address) => Some(Some(address)),
            Err(e) => {
                self.error(name, e.what, e.hint);
                None
            }
        }
    }

    fn service_id(&mut self) -> Vec<u8> {
        let id = self
            .text("service_id")
            .unwrap_or_default()
            .as_bytes()
            .to_vec();
        if id.len() > MAX_SERVICE_ID {
            self.error(
                "service_id",
                format!(
                    "the name has {} bytes, and at most {MAX_SERVICE_ID} are possible",
                    id.len()
                ),
                "write a shorter one",
            );
        } else if !id.is_empty() && !self.has("rendezvous_server") {
            self.note(
                "service_id",
                "it has no effect without \"rendezvous_server\"",
                "remove it",
            );
        }
        id
    }

    fn keepalive(&mut self) -> Option<Duration> {
        let seconds = self.int("keepalive");
        if self.has("rendezvous_server") {
            if seconds == 0 {
                self.error(
                    "keepalive",
                    "0 turns off what holds the way through the NATs open, which \"rendezvous_server\" needs",
                    "write 1 to 25 s",
                );
            } else if seconds > NAT_SECONDS {
                self.warning(
                    "keepalive",
                    format!(
                        "{seconds} s may be longer than a NAT remembers the way to \"rendezvous_server\""
                    ),
                    "write 1 to 25 s",
                );
            }
        }
        (seconds > 0).then_some(Duration::from_secs(seconds))
    }

    /// `None` with an error.
    fn role(&mut self, addresses: Addresses) -> Option<LibevRole> {
        // What is given counts, also where it is no address: one mistake, one message.
        let rendezvous = self.has("rendezvous_server");
        if self.has("listen") {
            if !rendezvous && !self.has("kcp_connect") {
                return self.missing(
                    "a client (it has \"listen\") needs \"kcp_connect\" or \"rendezvous_server\", and neither is given",
                    "write \"kcp_connect\": \"server:port\"",
                );
            }
            if rendezvous && self.has("kcp_connect") {
                self.error(
                    "kcp_connect",
                    "a client either connects to its server or finds it at \"rendezvous_server\"",
                    "remove one of the two keys",
                );
                return None;
            }
            let listen = addresses.listen??;
            let place = match addresses.rendezvous? {
                Some(relay) => Meeting::Rendezvous {
                    relay,
                    bind: addresses.kcp_bind?,
                },
                None => Meeting::Direct(addresses.kcp_connect??),
            };
            return Some(LibevRole::Client { listen, place });
        }
        if self.has("connect") {
            if self.has("kcp_connect") {
                self.mistake(
                    "kcp_connect",
                    "it is ignored: it is a client's key, and this is a server (it has \"connect\")",
                    "remove it",
                );
            }
            if !rendezvous && !self.has("kcp_bind") {
                return self.missing(
                    "a server (it has \"connect\") needs \"kcp_bind\" or \"rendezvous_server\", and neither is given",
                    "write \"kcp_bind\": \":port\"",
                );
            }
            let connect = addresses.connect??;
            let place = match addresses.rendezvous? {
                Some(relay) => Meeting::Rendezvous {
                    relay,
                    bind: addresses.kcp_bind?,
                },
                None => Meeting::Direct(addresses.kcp_bind??),
            };
            return Some(LibevRole::Server { connect, place });
        }
        if self.has("kcp_connect") {
            return self.missing(
                "\"kcp_connect\" is a client's key, and a client needs \"listen\", which is not given",
                "write \"listen\": \"127.0.0.1:port\"",
            );
        }
        if !self.has("kcp_bind") {
            return self.missing(
                "no address is given",
                "write \"listen\" and \"kcp_connect\" for a client, \"connect\" and \"kcp_bind\" for a server, \"kcp_bind\" alone for a relay",
            );
        }
        Some(LibevRole::Relay {
            bind: addresses.kcp_bind??,
            upstream_relay: addresses.rendezvous?,
        })
    }

    fn missing<T>(&mut self, what: &str, hint: &str) -> Option<T> {
        if !self.unreadable {
            let problem = Problem::error(self.path_place.clone(), what).hint(hint);
            self.problems.push(problem);
        }
        None
    }

    fn client_bind(&mut self, role: Option<&LibevRole>) -> Option<HostPort> {
        let direct = matches!(
            role,
            Some(LibevRole::Client {
                place: Meeting::Direct(_),
                ..
            })
        );
        // What is wrong with it was said when the addresses were read.
        let text = self.text("kcp_bind").filter(|_| direct)?;
        addr::parse(text, true, self.services).ok()
    }

    /// `None` with an error.
    fn crypto(&mut self) -> Option<Crypto> {
        let (password, psk) = (self.has("password"), self.has("psk"));
        if password && psk {
            self.error(
                "psk",
                "there is a \"password\", too, and only one of them can be the key",
                "remove one of them",
            );
        }
        let Some(name) = self.text("method").map(str::to_owned) else {
            for key in ["password", "psk"] {
                if self.has(key) {
                    self.mistake(
                        key,
                        "NOTHING IS ENCRYPTED: without \"method\" the key is not used",
                        "write \"method\": \"xchacha20poly1305_ietf\", at the other end as well, or remove the key",
                    );
                }
            }
            if !password && !psk {
                self.problems.push(
                    Problem::new(
                        Severity::Warning,
                        self.path_place.clone(),
                        "nothing is encrypted: anyone can read, change and use this tunnel",
                    )
                    .hint("write \"method\" and \"psk\" at both ends; fulmar genpsk METHOD makes a key"),
                );
            }
            return Some(Crypto::Plain);
        };
        let Some(method) = Method::from_name(&name) else {
            self.no_such_name("method", &name, "no method", Severity::Error);
            return None;
        };
        let secret = self.secret(method)?;
        Some(Crypto::Sealed { method, secret })
    }

    /// `None` with an error.
    fn secret(&mut self, method: Method) -> Option<Secret> {
        if let Some(text) = self.text("psk") {
            return match psk::decode_psk(text) {
                Ok(key) => Some(Secret::Psk(Psk::new(*key))),
                Err(e) => {
                    self.error(
                        "psk",
                        format!("this is not 32 bytes in base64: {e}"),
                        format!(
                            "write 43 of A-Z a-z 0-9 + / and one =; fulmar genpsk {} makes one",
                            method.name()
                        ),
                    );
                    None
                }
            };
        }
        if let Some(text) = self.text("password") {
            let key = Key::new(text.as_bytes().to_vec());
            if let Some(weakness) = strength::weakness(key.as_bytes()) {
                self.warning(
                    "password",
                    format!("whoever records packets can try out passwords {weakness} cheaply"),
                    format!(
                        "write \"psk\" with what fulmar genpsk {} prints, at both ends",
                        method.name()
                    ),
                );
            }
            return Some(Secret::Password(key));
        }
        if !self.bool("fulmar.accept_keyless") {
            self.error(
                "method",
                "neither \"psk\" nor \"password\" is given, and kcptun-libev then takes a key that everybody knows",
                format!(
                    "write \"psk\" with what fulmar genpsk {} prints, at both ends; \"fulmar\": {{\"accept_keyless\": true}} takes the known key",
                    method.name()
                ),
            );
            return None;
        }
        self.warning(
            "method",
            "the key is the one that everybody knows: anyone can read, change and use this tunnel",
            "write \"psk\" at both ends",
        );
        Some(Secret::Psk(Psk::new(KEYLESS)))
    }

    /// `crypto` is `None` if that has an error of its own.
    fn obfs(&mut self, crypto: Option<&Crypto>) -> Option<Obfs> {
        let name = self.text("obfs")?.to_owned();
        let Some(obfs) = [Obfs::TcpWnd, Obfs::Tcp]
            .into_iter()
            .find(|obfs| obfs.name() == name)
        else {
            self.no_such_name("obfs", &name, "no obfuscation", Severity::Error);
            return None;
        };
        if !cfg!(target_os = "linux") {
            self.error(
                "obfs",
                "there is obfuscation on Linux only",
                "remove it at both ends",
            );
        }
        if crypto == Some(&Crypto::Plain) {
            self.error(
                "obfs",
                "obfuscation needs encryption",
                "write \"method\" and \"psk\", or remove it",
            );
        }
        if self.has("rendezvous_server") {
            self.error(
                "obfs",
                "obfuscation and \"rendezvous_server\" exclude each other",
                "remove one of them",
            );
        } else if !self.has("listen") && !self.has("connect") {
            self.error("obfs", "a relay has no obfuscation", "remove it");
        }
        Some(obfs)
    }

    fn netdev(&mut self) -> Option<String> {
        let name = self.text("netdev")?.to_owned();
        if name.is_empty() {
            self.note(
                "netdev",
                "an empty text counts as not given",
                "remove the key",
            );
            return None;
        }
        if name.len() > LONGEST_DEVICE {
            self.error(
                "netdev",
                format!(
                    "\"{}\" has {} bytes, and names of devices at most {LONGEST_DEVICE}",
                    printable(&name),
                    name.len()
                ),
                "write the name of a network device",
            );
        }
        Some(name)
    }

    fn user(&mut self) -> Option<String> {
        let user = self.text("user")?.to_owned();
        if user.is_empty() || user == ":" {
            self.mistake(
                "user",
                "it names neither a user nor a group and counts as not given",
                "write \"user\", \"user:group\" or \":group\", or remove it",
            );
            return None;
        }
        if user.matches(':').count() > 1 {
            self.error(
                "user",
                format!("\"{}\" has several colons", printable(&user)),
                "write \"user\", \"user:group\" or \":group\"",
            );
        }
        Some(user)
    }

    fn sink(&mut self) -> Sink {
        let Some(name) = self.text("log").map(str::to_owned) else {
            return Sink::Stdout;
        };
        match Sink::ALL.into_iter().find(|sink| sink.name() == name) {
            Some(sink) => sink,
            None => {
                self.no_such_name(
                    "log",
                    &name,
                    "no place for a log, and counts as not given",
                    Severity::Mistake,
                );
                Sink::Stdout
            }
        }
    }

    fn kcp(&mut self) -> KcpSettings {
        let rcvwnd: u32 = self.small("kcp.rcvwnd");
        let explicit = Explicit {
            mtu: self.has("kcp.mtu"),
            sndwnd: self.has("kcp.sndwnd"),
            rcvwnd: self.has("kcp.rcvwnd"),
            profile: [
                "kcp.nodelay",
                "kcp.interval",
                "kcp.resend",
                "kcp.nc",
                "kcp.flush",
            ]
            .into_iter()
            .any(|key| self.has(key)),
        };
        let in_force = rcvwnd.clamp(LEAST_RCVWND, LARGEST_RCVWND);
        if rcvwnd < in_force {
            self.note(
                "kcp.rcvwnd",
                format!("{rcvwnd} acts as {in_force}, as in kcptun-libev"),
                "write 128 to 65535 segments",
            );
        } else if rcvwnd > in_force {
            self.note(
                "kcp.rcvwnd",
                format!(
                    "{rcvwnd} acts as {in_force}: the wire cannot say more, and kcptun-libev says 0"
                ),
                "write 128 to 65535 segments",
            );
        }
        KcpSettings {
            mtu: self.small("kcp.mtu"),
            sndwnd: self.small("kcp.sndwnd"),
            rcvwnd: in_force,
            nodelay: self.small("kcp.nodelay"),
            interval: Duration::from_millis(self.int("kcp.interval")),
            resend: self.small("kcp.resend"),
            nc: self.int("kcp.nc") != 0,
            flush: self.small("kcp.flush"),
            explicit,
        }
    }

    fn ours(&mut self, role: Option<&LibevRole>, obfs: Option<Obfs>, explicit: Explicit) -> Ours {
        let mode = match self.text("fulmar.mode").map(str::to_owned) {
            None if explicit.profile => {
                self.problems.push(
                    Problem::new(
                        Severity::Note,
                        self.path_place.clone(),
                        "the sender does what the keys of \"kcp\" say and does not follow the path",
                    )
                    .hint("remove nodelay, interval, resend, nc and flush, or write \"fulmar\": {\"mode\": \"auto\"}"),
                );
                Mode::Classic
            }
            None => Mode::Auto,
            Some(name) => {
                let mode = [Mode::Auto, Mode::Classic]
                    .into_iter()
                    .find(|mode| mode.name() == name);
                if mode.is_none() {
                    self.no_such_name("fulmar.mode", &name, "no mode", Severity::Error);
                }
                mode.unwrap_or(Mode::Auto)
            }
        };
        if mode == Mode::Classic {
            for key in ["fulmar.redundancy", "fulmar.memory"] {
                if self.has(key) {
                    self.note(key, "it has no effect: the mode is classic", "remove it");
                }
            }
        }
        let delay_eof = self.bool("fulmar.delay_eof");
        if delay_eof && role.is_some_and(|role| !matches!(role, LibevRole::Client { .. })) {
            self.note(
                "fulmar.delay_eof",
                "it has no effect: this is no client",
                "remove it",
            );
        }
        let accept_bad_checksums = self.bool("fulmar.accept_bad_checksums");
        if accept_bad_checksums && obfs.is_none() {
            self.note(
                "fulmar.accept_bad_checksums",
                "it has no effect without \"obfs\"",
                "remove it",
            );
        }
        Ours {
            mode,
            redundancy: self.small("fulmar.redundancy"),
            memory: self.size("fulmar.memory"),
            delay_eof,
            accept_bad_checksums,
        }
    }

    fn buffer(&mut self, name: &'static str) -> usize {
        let bytes = self.int(name);
        if (1..SMALL_BUFFER).contains(&bytes) {
            self.warning(
                name,
                format!("{bytes} bytes hold hardly a packet"),
                "write 4096 to 33554432 bytes, or 0 for the system's choice",
            );
        }
        self.size(name)
    }

    fn provenance(&self) -> Provenance {
        let mut provenance = Provenance::default();
        for key in &LIBEV_KEYS {
            let origin = match self.given.get(key.name) {
                Some(given) => given.origin.clone(),
                None => Origin::Default(key.program()),
            };
            provenance.set(key.name, origin);
        }
        provenance
    }

    fn has(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    fn text(&self, name: &str) -> Option<&str> {
        match &self.given.get(name)?.raw {
            Raw::Text(text) => Some(text),
            Raw::Int(_) | Raw::Bool(_) => None,
        }
    }

    /// The value or the default.
    fn int(&self, name: &str) -> u64 {
        match (
            self.given.get(name).map(|given| &given.raw),
            keys::find(name).map(|key| key.kind),
        ) {
            (Some(Raw::Int(n)), _) => *n,
            (_, Some(LibevKind::Int { default, .. })) => default,
            _ => 0,
        }
    }

    /// As [`Self::int`], for keys whose largest value fits.
    fn small<T: TryFrom<u64> + Default>(&self, name: &str) -> T {
        T::try_from(self.int(name)).unwrap_or_default()
    }

    fn size(&self, name: &str) -> usize {
        usize::try_from(self.int(name)).unwrap_or(usize::MAX)
    }

    fn seconds(&self, name: &str) -> Duration {
        Duration::from_secs(self.int(name))
    }

    fn bool(&self, name: &str) -> bool {
        match (
            self.given.get(name).map(|given| &given.raw),
            keys::find(name).map(|key| key.kind),
        ) {
            (Some(Raw::Bool(on)), _) => *on,
            (_, Some(LibevKind::Bool(default))) => default,
            _ => false,
        }
    }

    fn no_such_name(&mut self, key: &'static str, name: &str, what: &str, severity: Severity) {
        let Some(kind) = keys::find(key).map(|key| key.kind) else {
            return;
        };
        let names: &[&str] = match kind {
            LibevKind::Name(names) => names,
            _ => &[],
        };
        let hint = match nearest(name, names.iter().copied()) {
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None => kind.wanted(),
        };
        self.say(
            severity,
            key,
            format!("\"{}\" is {what}", printable(name)),
            hint,
        );
    }

    fn say(
        &mut self,
        severity: Severity,
        key: &str,
        what: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let place = match self.given.get(key) {
            Some(given) => Place::Value(given.origin.clone()),
            None => self.path_place.clone(),
        };
        self.problems
            .push(Problem::new(severity, place, what).hint(hint));
    }

    fn error(&mut self, key: &str, what: impl Into<String>, hint: impl Into<String>) {
        self.say(Severity::Error, key, what, hint);
    }

    fn mistake(&mut self, key: &str, what: impl Into<String>, hint: impl Into<String>) {
        self.say(Severity::Mistake, key, what, hint);
    }

    fn warning(&mut self, key: &str, what: impl Into<String>, hint: impl Into<String>) {
        self.say(Severity::Warning, key, what, hint);
    }

    fn note(&mut self, key: &str, what: impl Into<String>, hint: impl Into<String>) {
        self.say(Severity::Note, key, what, hint);
    }
}

/// The addresses of the role: outer `None` with an error, inner `None` if not given.
struct Addresses {
    listen: Option<Option<HostPort>>,
    connect: Option<Option<HostPort>>,
    kcp_bind: Option<Option<HostPort>>,
    kcp_connect: Option<Option<HostPort>>,
    rendezvous: Option<Option<HostPort>>,
}
