//! What is in force: all of it with one line per option, grouped, with where it came from; and what matters, for the log at
//! start.

use core::fmt::Write;
use core::time::Duration;
use std::ffi::OsString;
use std::path::Path;

use crate::load::{Environment, Invocation, from_args};
use crate::model::{Auto, Config, Crypt, First, Kcptun, Mode, Role};
use crate::options::{self, Group, Id, Opt, Side, first};
use crate::origin::Origin;
use crate::text;

pub use crate::libev::{libev_brief, libev_lines, libev_lines_as};

/// One option in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setting {
    /// Where it is shown.
    pub group: Group,
    /// The option's long flag.
    pub name: &'static str,
    /// The value with its unit. Never the key.
    pub value: String,
    /// Where it came from, unless it is a default.
    pub origin: Option<Origin>,
}

/// What is in force, in order of display. Options that have no effect are left out.
#[must_use]
pub fn settings(config: &Config) -> Vec<Setting> {
    let side = side(config);
    let row = |opt: &'static Opt| {
        let value = value(config, opt.id)?;
        let origin = config
            .provenance
            .of(opt.flag)
            .filter(|origin| !origin.is_default());
        Some(Setting {
            group: opt.group,
            name: opt.flag,
            value,
            origin: origin.cloned(),
        })
    };
    let mut settings: Vec<_> = options::of(side).filter_map(row).collect();
    settings.sort_by_key(|setting| setting.group);
    settings
}

fn side(config: &Config) -> Side {
    match config.role {
        Role::Client(_) => Side::Client,
        Role::Server(_) => Side::Server,
    }
}

/// All settings, one string per line: a heading per group, then its options, aligned.
#[must_use]
pub fn lines(config: &Config) -> Vec<String> {
    lines_as(config, &Shown::default())
}

/// As [`lines`], as far as `shown` says.
#[must_use]
pub fn lines_as(config: &Config, shown: &Shown<'_>) -> Vec<String> {
    let settings = settings(config);
    let rows = settings.iter().map(|setting| Row {
        heading: setting.group.heading(),
        matters: matches!(setting.group, Group::Addresses | Group::Security),
        name: setting.name,
        value: setting.value.clone(),
        origin: setting.origin.clone(),
    });
    block(&rows.collect::<Vec<_>>(), shown)
}

/// What of the settings is shown, and how.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Shown<'a> {
    /// Also defaults. Addresses, and what has to be equal at both ends, are always shown.
    pub defaults: bool,
    /// A file that has been named already: of what it says only the line is shown.
    pub file: Option<&'a Path>,
}

impl Default for Shown<'_> {
    /// Everything.
    fn default() -> Self {
        Self {
            defaults: true,
            file: None,
        }
    }
}

/// What matters, in at most [`BRIEF`] lines: the addresses, what has to be equal at both ends, what differs from the
/// defaults.
#[must_use]
pub fn brief(config: &Config) -> Vec<String> {
    let mut args = Vec::new();
    if let Some(first) = config.tunnel.compat.first() {
        let named = first::NAMES.iter().rev();
        let mut named = named.filter(|(_, variant)| *variant == first.variant);
        args.extend(named.next().map(|(name, _)| format!("--compat={name}")));
    }
    let args: Vec<_> = args.into_iter().map(OsString::from).collect();
    let side = side(config);
    let defaults = match from_args(side, &args, &Environment::default()) {
        Ok(Invocation::Run(loaded)) => settings(&loaded.config),
        // There are defaults.
        _ => Vec::new(),
    };
    let settings = settings(config);
    let pairs = |group: Group| {
        let all = settings
            .iter()
            .filter(move |setting| setting.group == group);
        all.map(|setting| (setting.name, shortly(config, setting)))
    };
    let get = |id| value(config, id).map(|value| (options::get(id).flag, value));
    let compression = [("compression", on_off(config.tunnel.compression))];
    let equal = pairs(Group::Security);
    let equal = equal.chain(match config.tunnel.compat.first() {
        Some(_) => Vec::new(),
        None => compression.into_iter().chain(get(Id::SmuxVer)).collect(),
    });
    let shown_above = |setting: &Setting| {
        matches!(setting.group, Group::Addresses | Group::Security)
            || [Id::NoComp, Id::SmuxVer]
                .map(|id| options::get(id).flag)
                .contains(&setting.name)
    };
    let default = |setting: &Setting| {
        let same = |other: &&Setting| other.name == setting.name;
        defaults
            .iter()
            .find(same)
            .is_some_and(|other| other.value == setting.value)
    };
    let differs = settings
        .iter()
        .filter(|setting| setting.origin.is_some() && !shown_above(setting) && !default(setting))
        .map(|setting| (setting.name, shortly(config, setting)));
    brief_lines(pairs(Group::Addresses), equal, differs)
}

/// The value of `setting` where there is little room.
fn shortly(config: &Config, setting: &Setting) -> String {
    if setting.name == options::get(Id::Mode).flag {
        text::printable(config.tunnel.mode.name())
    } else {
        setting.value.clone()
    }
}

/// Most lines of [`brief`] and [`libev_brief`].
pub const BRIEF: usize = 7;
/// Most characters of such a line.
const BRIEF_WIDTH: usize = 100;

/// Three lists of names and values as lines.
pub(crate) fn brief_lines<'a>(
    addresses: impl Iterator<Item = (&'a str, String)>,
    equal: impl Iterator<Item = (&'a str, String)>,
    differs: impl Iterator<Item = (&'a str, String)>,
) -> Vec<String> {
    fn list<'a>(pairs: impl Iterator<Item = (&'a str, String)>) -> String {
        let all: Vec<_> = pairs
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        all.join(", ")
    }
    let mut lines = Vec::new();
    let differs = list(differs);
    for (heading, list, most) in [
        ("addresses", list(addresses), 2),
        ("equal at both ends", list(equal), 2),
        ("not the defaults", differs, 3),
    ] {
        if list.is_empty() {
            continue;
        }
        let mut wrapped = text::wrap(&format!("{heading}: {list}"), BRIEF_WIDTH, 2);
        if wrapped.len() > most {
            wrapped.truncate(most);
            if let Some(last) = wrapped.last_mut() {
                *last += " …";
            }
        }
        lines.extend(wrapped);
    }
    lines
}

/// One line of a block.
pub(crate) struct Row {
    pub(crate) heading: &'static str,
    /// Whether it is shown even as a default.
    pub(crate) matters: bool,
    pub(crate) name: &'static str,
    pub(crate) value: String,
    pub(crate) origin: Option<Origin>,
}

/// `rows` below their headings, aligned.
pub(crate) fn block(rows: &[Row], shown: &Shown<'_>) -> Vec<String> {
    let rows = rows
        .iter()
        .filter(|row| shown.defaults || row.matters || row.origin.is_some());
    let rows: Vec<_> = rows.collect();
    let widest = |of: fn(&Row) -> usize| rows.iter().map(|row| of(row)).max().unwrap_or(0);
    let names = widest(|row| row.name.len());
    // A long path must not push the origins of all others away.
    let values = widest(|row| row.value.chars().count()).min(28);
    let mut lines = Vec::new();
    let mut heading = None;
    for row in rows {
        if heading != Some(row.heading) {
            heading = Some(row.heading);
            lines.push(row.heading.to_owned());
        }
        let mut line = format!("  {:names$}  ", row.name);
        // Writing to a string cannot fail.
        let _ = match &row.origin {
            Some(origin) => {
                let origin = match (origin, shown.file) {
                    (Origin::Json { file, line, .. }, Some(named)) if file == named => {
                        format!("line {line}")
                    }
                    (origin, _) => origin.brief(),
                };
                write!(line, "{:values$}  <- {origin}", row.value)
            }
            None => write!(line, "{}", row.value),
        };
        lines.push(line);
    }
    lines
}

/// The value of option `id` as shown; `None` when it has no effect.
fn value(config: &Config, id: Id) -> Option<String> {
    let tunnel = &config.tunnel;
    let (client, server) = match &config.role {
        Role::Client(client) => (Some(client), None),
        Role::Server(server) => (None, Some(server)),
    };
    let manual = matches!(tunnel.mode, Mode::Manual(_));
    let first = tunnel.compat.first();
    Some(match id {
        // What the kcptun of 2016 does not have; its cipher has another name.
        _ if first.is_some()
            && id != Id::Crypt
            && (first::lacking(id).or(first::idle(id))).is_some() =>
        {
            return None;
        }
        Id::Compat => kcptun_of_2016(first?, client.is_some()),
        Id::TunCrypt => tuncrypt(first?, client.is_some())?.into(),
        Id::Crypt if first.is_some() => {
            let names: Vec<_> = first?.methods.iter().map(|method| method.name()).collect();
            names.join(" or ")
        }
        Id::LocalAddr => client?.listen.to_string(),
        Id::RemoteAddr => client?.remote.to_string(),
        Id::Listen => {
            let all = core::iter::once(&server?.listen).chain(&server?.also);
            let all: Vec<_> = all.map(ToString::to_string).collect();
            let kind = if tunnel.tcp { "udp and tcp" } else { "udp" };
            format!("{}/{kind}", all.join(", "))
        }
        Id::Target => server?.target.to_string(),
        Id::Key => key(tunnel),
        // Shown with the key.
        Id::KeyFile => return None,
        Id::Crypt => match tunnel.crypt {
            Crypt::Auto => "auto".into(),
            Crypt::Method(method) => method.name().into(),
        },
        Id::Qpp => on_off(tunnel.qpp.is_some()),
        Id::QppCount => text::count(tunnel.qpp?.count, "pad"),
        Id::QppCompat => tunnel.qpp?.generation.name().into(),
        Id::Mode => mode(tunnel),
        Id::Redundancy => redundancy(tunnel.auto.as_ref()?, first.is_none()),
        Id::Memory => format!("{} for each session", bytes(tunnel.auto?.memory as u64)),
        Id::AckNoDelay => on_off(tunnel.ack_no_delay),
        Id::NoDelay if manual => u8::from(tunnel.nodelay).to_string(),
        Id::Interval if manual => format!("{} ms", tunnel.interval.as_millis()),
        Id::Resend if manual => tunnel.resend.to_string(),
        Id::Nc if manual => u8::from(!tunnel.congestion_control).to_string(),
        Id::NoDelay | Id::Interval | Id::Resend | Id::Nc => return None,
        Id::SndWnd => window(tunnel.snd_wnd, tunnel.auto.map(|auto| auto.snd_wnd)),
        Id::RcvWnd => window(tunnel.rcv_wnd, tunnel.auto.map(|auto| auto.rcv_wnd)),
        Id::RateLimit => tunnel.rate_limit.map_or("none".into(), |rate| {
            format!("{}/s", text::count(rate, "byte"))
        }),
        Id::Threads => config
            .threads
            .map_or_else(|| per_core(client.is_some()).into(), |n| n.to_string()),
        Id::Mtu => text::count(tunnel.mtu as u64, "byte"),
        Id::DataShard => shards(tunnel, tunnel.fec.map(|fec| fec.data)),
        Id::ParityShard => shards(tunnel, tunnel.fec.map(|fec| fec.parity)),
        Id::Dscp => tunnel.dscp.to_string(),
        Id::SockBuf => bytes(tunnel.sock_buf as u64),
        Id::Tcp => on_off(tunnel.tcp),
        Id::Conn => client?.conn.to_string(),
        Id::AutoExpire => client?.autoexpire.map_or("never".into(), seconds),
        Id::ScavengeTtl => {
            client?.autoexpire?;
            client?.scavenge_ttl.map_or("no limit".into(), seconds)
        }
        Id::NoComp => if tunnel.compression {
            "no (compression on)"
        } else {
            "yes (compression off)"
        }
        .into(),
        Id::SmuxVer => tunnel.smux.version.to_string(),
        Id::SmuxBuf => buffer(config, id, tunnel.smux.buffer, Id::Memory),
        Id::FrameSize => text::count(tunnel.smux.frame_size, "byte"),
        Id::StreamBuf => buffer(config, id, tunnel.smux.stream_buffer, Id::SmuxBuf),
        Id::KeepAlive => seconds(tunnel.smux.keep_alive),
        Id::CloseWait => seconds(tunnel.close_wait),
        Id::SnmpLog => text::path(config.stats.snmp_log.as_ref()?),
        Id::SnmpPeriod => {
            config.stats.snmp_log.as_ref()?;
            seconds(config.stats.period)
        }
        Id::HttpListen => config.stats.http_listen.as_ref()?.to_string(),
        Id::Log => text::path(config.log.file.as_ref()?),
        Id::Quiet => on_off(config.log.quiet),
        Id::Verbose | Id::Pprof | Id::Config | Id::AndroidVpn | Id::FastOpen => return None,
    })
}

fn key(tunnel: &Kcptun) -> String {
    let public = if tunnel.key_is_default {
        ", PUBLIC"
    } else {
        ""
    };
    format!("({}{public})", text::count(tunnel.key.len() as u64, "byte"))
}

fn kcptun_of_2016(first: First, client: bool) -> String {
    if client {
        format!("kcptun of spring 2016, variant {}", first.variant.name())
    } else {
        "kcptun of spring 2016, the variant that a client speaks".into()
    }
}

/// Whether the stream is encrypted, too; `None` where there is no choice.
fn tuncrypt(first: First, client: bool) -> Option<&'static str> {
    match (client, first.variant) {
        (false, _) => Some("as a client does"),
        (true, variant) if variant.has_tuncrypt() => {
            Some(if first.tuncrypt { "on" } else { "off" })
        }
        (true, _) => None,
    }
}

fn mode(tunnel: &Kcptun) -> String {
    if let Some(auto) = &tunnel.auto {
        return auto_mode(auto, tunnel.compat.first().is_none());
    }
    format!(
        "{}: nodelay {}, interval {} ms, resend {}, nc {}",
        text::printable(tunnel.mode.name()),
        u8::from(tunnel.nodelay),
        tunnel.interval.as_millis(),
        tunnel.resend,
        u8::from(!tunnel.congestion_control),
    )
}

/// What follows the path, and what does not. `parity`: whether there can be any.
fn auto_mode(auto: &Auto, parity: bool) -> String {
    let all = [
        ("retransmission", true),
        ("send window", auto.snd_wnd),
        ("receive window", auto.rcv_wnd),
        ("parity", parity_follows(auto)),
    ];
    let parts = &all[..if parity { all.len() } else { all.len() - 1 }];
    let names = |follows| {
        let named = parts.iter().filter(|part| part.1 == follows);
        named.map(|part| part.0).collect::<Vec<_>>()
    };
    let mut text = match names(true).as_slice() {
        [more @ .., last] if !more.is_empty() => {
            format!("auto: {} and {last} follow the path", more.join(", "))
        }
        one => format!("auto: {} follows the path", one.concat()),
    };
    let fixed = names(false);
    if !fixed.is_empty() {
        text = format!("{text}; fixed: {}", fixed.join(", "));
    }
    text
}

fn parity_follows(auto: &Auto) -> bool {
    auto.parity && auto.redundancy > 0
}

/// `parity`: whether the other end may understand any.
fn redundancy(auto: &Auto, parity: bool) -> String {
    match (auto.redundancy, auto.parity) {
        (0, true) => "0: no parity, no copies".into(),
        (0, false) => "0: no copies".into(),
        (percent, _) if !parity => format!("{percent}: copies of small messages"),
        (percent, _) => format!("up to {percent} % of bulk"),
    }
}

/// `follows`: with mode auto, whether the window follows the path.
fn window(packets: u32, follows: Option<bool>) -> String {
    match follows {
        None => text::count(packets, "packet"),
        Some(true) => format!("follows the path, up to {}", text::count(packets, "packet")),
        Some(false) => format!("{}, fixed", text::count(packets, "packet")),
    }
}

fn shards(tunnel: &Kcptun, count: Option<u8>) -> String {
    let text = count.map_or("no parity".into(), |n| text::count(n, "packet"));
    match &tunnel.auto {
        Some(auto) if parity_follows(auto) => "follows the path".into(),
        Some(auto) if !auto.parity => text + ", fixed",
        _ => text,
    }
}

/// With mode auto, a size that nobody gave is that of option `same`.
fn buffer(config: &Config, id: Id, size: u32, same: Id) -> String {
    let text = bytes(size.into());
    if config.tunnel.auto.is_none() {
        text
    } else if config.provenance.is_explicit(options::get(id).flag) {
        text + ", fixed"
    } else {
        format!("{text}, as {}", options::get(same).flag)
    }
}

fn per_core(client: bool) -> &'static str {
    if client {
        "one for each session, if there are cores"
    } else {
        "one for each core"
    }
}

pub(crate) fn on_off(on: bool) -> String {
    if on { "on" } else { "off" }.into()
}

pub(crate) fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs())
}

/// In MiB or KiB where that is exact.
pub(crate) fn bytes(n: u64) -> String {
    match n {
        n if n >= 1 << 20 && n.is_multiple_of(1 << 20) => format!("{} MiB", n >> 20),
        n if n >= 1 << 10 && n.is_multiple_of(1 << 10) => format!("{} KiB", n >> 10),
        n => text::count(n, "byte"),
    }
}
