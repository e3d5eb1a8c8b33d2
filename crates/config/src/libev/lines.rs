//! What is in force in a process of kcptun-libev, all of it and what matters.

use std::path::Path;

use crate::libev::keys::{LIBEV_KEYS, LibevGroup, LibevKey};
use crate::libev::load::libev_from_bytes;
use crate::libev::model::{Crypto, HostPort, LibevConfig, LibevRole, Mode, Place, Secret};
use crate::report::{Row, Shown, block, brief_lines, bytes, on_off, seconds};
use crate::text::{count, printable, quoted};

/// The block at start, one string per line: a heading per group, then its keys, aligned, with where each came from.
/// Keys that have no effect are left out. Never the key.
#[must_use]
pub fn libev_lines(config: &LibevConfig) -> Vec<String> {
    libev_lines_as(config, &Shown::default())
}

/// As [`libev_lines`], as far as `shown` says.
#[must_use]
pub fn libev_lines_as(config: &LibevConfig, shown: &Shown<'_>) -> Vec<String> {
    let mut rows: Vec<_> = LIBEV_KEYS
        .iter()
        .filter_map(|key| {
            let value = value(config, key.name)?;
            let origin = config.provenance.of(key.name);
            let row = Row {
                heading: key.group.heading(),
                matters: matches!(key.group, LibevGroup::Addresses | LibevGroup::Encryption),
                name: key.name,
                value,
                origin: origin.filter(|origin| !origin.is_default()).cloned(),
            };
            Some((key.group, row))
        })
        .collect();
    rows.sort_by_key(|(group, _)| *group);
    let rows: Vec<Row> = rows.into_iter().map(|(_, row)| row).collect();
    block(&rows, shown)
}

/// What matters, in at most [`BRIEF`](crate::report::BRIEF) lines: the addresses, what has to be equal at both ends, what differs from the
/// defaults.
#[must_use]
pub fn libev_brief(config: &LibevConfig) -> Vec<String> {
    let defaults = defaults(config);
    let shown = |key: &LibevKey| value(config, key.name);
    let of = |group: LibevGroup| {
        let keys = LIBEV_KEYS.iter().filter(move |key| key.group == group);
        keys.filter_map(|key| Some((key.name, shown(key)?)))
    };
    // What both ends call the service is no address of this one.
    let service = |name: &str| name == "service_id";
    let own = |name: &str| name.starts_with("fulmar.");
    let addresses = of(LibevGroup::Addresses).filter(|(name, _)| !service(name));
    let equal = of(LibevGroup::Addresses)
        .filter(|(name, _)| service(name))
        .chain(of(LibevGroup::Encryption).filter(|(name, _)| !own(name)));
    let differs = LIBEV_KEYS.iter().filter(|key| {
        !matches!(key.group, LibevGroup::Addresses | LibevGroup::Encryption) || own(key.name)
    });
    let differs = differs.filter_map(|key| {
        let value = shown(key)?;
        // The mode follows from other keys.
        let given = config.provenance.is_explicit(key.name) || key.name == "fulmar.mode";
        let default = defaults
            .as_ref()
            .and_then(|defaults| self::value(defaults, key.name));
        (given && default.as_ref() != Some(&value)).then_some((key.name, value))
    });
    brief_lines(addresses, equal, differs)
}

/// What a file with nothing but the addresses of `config` comes to.
fn defaults(config: &LibevConfig) -> Option<LibevConfig> {
    const KEYS: [&str; 5] = [
        "listen",
        "connect",
        "kcp_bind",
        "kcp_connect",
        "rendezvous_server",
    ];
    let members = KEYS.iter().filter_map(|key| {
        let value = value(config, key)?;
        Some(format!("\"{key}\": \"{value}\""))
    });
    let text = format!("{{{}}}", members.collect::<Vec<_>>().join(", "));
    let loaded = libev_from_bytes(Path::new(""), text.as_bytes()).ok()?;
    Some(loaded.config)
}

/// The value of key `name` as shown; `None` when it has no effect.
fn value(config: &LibevConfig, name: &str) -> Option<String> {
    let LibevConfig {
        role,
        kcp,
        tcp,
        udp,
        ours,
        ..
    } = config;
    let auto = ours.mode == Mode::Auto;
    let rendezvous = matches!(role.place(), Some(Place::Rendezvous { .. }));
    let relay = matches!(role, LibevRole::Relay { .. });
    Some(match name {
        "listen" => match role {
            LibevRole::Client { listen, .. } => listen.to_string(),
            _ => return None,
        },
        "connect" => match role {
            LibevRole::Server { connect, .. } => connect.to_string(),
            _ => return None,
        },
        "kcp_bind" => local(config)?.to_string(),
        "kcp_connect" => match role {
            LibevRole::Client {
                place: Place::Direct(server),
                ..
            } => server.to_string(),
            _ => return None,
        },
        "rendezvous_server" => match role {
            LibevRole::Relay { upstream_relay, .. } => upstream_relay.as_ref()?.to_string(),
            _ => match role.place()? {
                Place::Rendezvous { relay, .. } => relay.to_string(),
                Place::Direct(_) => return None,
            },
        },
        "service_id" if rendezvous => {
            let id = String::from_utf8_lossy(&config.service_id);
            if id.is_empty() {
                "none".into()
            } else {
                quoted(&*id)
            }
        }
        "http_listen" => config.http_listen.as_ref()?.to_string(),
        "netdev" => printable(config.netdev.as_ref()?),
        "method" => match config.crypto {
            Crypto::Plain => "none: NOTHING IS ENCRYPTED".into(),
            Crypto::Sealed { method, .. } => method.name().into(),
        },
        "password" => match &config.crypto {
            Crypto::Sealed {
                secret: Secret::Password(key),
                ..
            } => format!("({})", count(key.len() as u64, "byte")),
            _ => return None,
        },
        "psk" => match &config.crypto {
            Crypto::Sealed {
                secret: Secret::Psk(_),
                ..
            } if config.provenance.is_explicit("psk") => "(32 bytes)".into(),
            _ => return None,
        },
        "obfs" => config.obfs?.name().into(),
        "keepalive" if !relay => config.keepalive.map_or("never".into(), seconds),
        "timeout" => seconds(config.timeout),
        "linger" if !relay => seconds(config.linger),
        "time_wait" if !relay => seconds(config.time_wait),
        "kcp.mtu" if !relay => format!("{} bytes with IP header", kcp.mtu),
        "fulmar.mode" if !relay && auto => "auto: the sender follows the path".into(),
        "fulmar.mode" if !relay => format!(
            "classic: nodelay {}, interval {} ms, resend {}, nc {}, flush {}",
            kcp.nodelay,
            kcp.interval.as_millis(),
            kcp.resend,
            u8::from(kcp.nc),
            kcp.flush
        ),
        "kcp.sndwnd" if !relay => window(kcp.sndwnd, auto && !kcp.explicit.sndwnd),
        "kcp.rcvwnd" if !relay => window(kcp.rcvwnd, auto && !kcp.explicit.rcvwnd),
        "fulmar.redundancy" if !relay && auto => format!("up to {} % of bulk", ours.redundancy),
        "fulmar.memory" if !relay && auto => {
            format!("{} for each session", bytes(ours.memory as u64))
        }
        "fulmar.delay_eof" if matches!(role, LibevRole::Client { .. }) => on_off(ours.delay_eof),
        "fulmar.accept_bad_checksums" if config.obfs.is_some() => on_off(ours.accept_bad_checksums),
        "fulmar.accept_keyless" => keyless(config)?,
        "tcp.reuseport" if !relay => on_off(tcp.reuseport),
        "tcp.keepalive" if !relay => on_off(tcp.keepalive),
        "tcp.nodelay" if !relay => on_off(tcp.nodelay),
        "tcp.sndbuf" if !relay => buffer(tcp.sndbuf),
        "tcp.rcvbuf" if !relay => buffer(tcp.rcvbuf),
        "udp.reuseport" => on_off(udp.reuseport),
        "udp.sndbuf" => buffer(udp.sndbuf),
        "udp.rcvbuf" => buffer(udp.rcvbuf),
        "loglevel" => config.log.level.to_string(),
        "log" => config.log.sink.name().into(),
        "user" => printable(config.user.as_ref()?),
        // What has no effect; and what the line of the mode shows.
        _ => return None,
    })
}

fn local(config: &LibevConfig) -> Option<&HostPort> {
    match &config.role {
        LibevRole::Relay { bind, .. }
        | LibevRole::Server {
            place: Place::Direct(bind),
            ..
        } => Some(bind),
        LibevRole::Client {
            place: Place::Direct(_),
            ..
        } => config.client_bind.as_ref(),
        LibevRole::Client {
            place: Place::Rendezvous { bind, .. },
            ..
        }
        | LibevRole::Server {
            place: Place::Rendezvous { bind, .. },
            ..
        } => bind.as_ref(),
    }
}

/// Says so when the key is the one that everybody knows.
fn keyless(config: &LibevConfig) -> Option<String> {
    let given = |key| config.provenance.is_explicit(key);
    let keyless = config.crypto != Crypto::Plain && !given("psk") && !given("password");
    keyless.then(|| "on: the key is PUBLIC".into())
}

fn window(segments: u32, follows: bool) -> String {
    if follows {
        "follows the path".into()
    } else {
        format!("{segments} segments")
    }
}

fn buffer(size: usize) -> String {
    if size == 0 {
        return "default".into();
    }
    bytes(size as u64)
}
