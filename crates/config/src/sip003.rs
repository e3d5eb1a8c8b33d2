//! Shadowsocks plugin mode (SIP003; docs/spec/kcptun.md, section 16).
//!
//! A shadowsocks host starts its plugin with four variables that say where to listen and where to connect, and
//! `SS_PLUGIN_OPTIONS`: `name=value;name;…` with `\` before a byte that is meant literally. The plugin is a server
//! when the options have `server` (or `s`), or when it was started as one. A host with several addresses has `|` between
//! them.

use core::fmt;
use core::net::IpAddr;
use std::ffi::OsString;

use crate::golang;
use crate::options::{self, Id, Kind, Side};
use crate::origin::Origin;
use crate::problem::{Place, Problem, Severity};
use crate::text::{count, printable, quoted};
use crate::values::{Raw, Values, meant};

/// The names that say where to listen and where to connect.
pub(crate) const VARIABLES: [&str; 4] = [
    "SS_REMOTE_HOST",
    "SS_REMOTE_PORT",
    "SS_LOCAL_HOST",
    "SS_LOCAL_PORT",
];
/// The name of the options.
pub(crate) const OPTIONS: &str = "SS_PLUGIN_OPTIONS";

/// The options that say which end it is. Other plugins have the short ones.
const ROLES: [(&str, Side); 4] = [
    ("server", Side::Server),
    ("s", Side::Server),
    ("client", Side::Client),
    ("c", Side::Client),
];

/// What a shadowsocks host says.
///
/// The options may have a key: [`fmt::Debug`] shows only how many there are.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Plugin {
    remote: Address,
    local: Address,
    options: Vec<(String, String)>,
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            remote,
            local,
            options,
        } = self;
        let options = options.len();
        write!(f, "Plugin({remote:?}, {local:?}, {options} options)")
    }
}

/// Hosts and a port, as two of the variables say them.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Address {
    hosts: Vec<String>,
    port: String,
}

impl Address {
    fn new(hosts: &str, port: String) -> Self {
        let hosts = hosts.split('|').map(str::trim);
        let mut hosts: Vec<String> = hosts
            .filter(|host| !host.is_empty())
            .map(str::to_owned)
            .collect();
        let any = |host: &String| host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified());
        // Every address of both families: one socket serves them.
        if hosts.len() > 1 && hosts.iter().all(any) {
            hosts = vec![String::new()];
        }
        Self { hosts, port }
    }

    /// The first host and the port, and further ones.
    fn texts(&self) -> (String, Vec<String>) {
        let mut all = self.hosts.iter().map(|host| {
            if host.contains(':') && !host.starts_with('[') {
                format!("[{host}]:{}", self.port)
            } else {
                format!("{host}:{}", self.port)
            }
        });
        let first = all.next().unwrap_or_else(|| format!(":{}", self.port));
        (first, all.collect())
    }
}

impl Plugin {
    /// Reads the variables through `get`; `None` unless all four addresses are there and not empty.
    pub(crate) fn read(get: impl Fn(&str) -> Option<OsString>) -> Result<Option<Self>, Problem> {
        let mut address = Vec::new();
        for name in VARIABLES {
            match get(name).filter(|value| !value.is_empty()) {
                None => return Ok(None),
                Some(value) => {
                    let value = value.into_string().map_err(|value| {
                        not_utf8(name, format!("{} is not UTF-8", quoted(value)))
                    })?;
                    address.push(value);
                }
            }
        }
        let options = match get(OPTIONS).map(OsString::into_string) {
            None => Vec::new(),
            Some(Ok(value)) => split(&value)?,
            // There may be a key in it.
            Some(Err(_)) => return Err(not_utf8(OPTIONS, "the options are not UTF-8".into())),
        };
        let mut address = address.into_iter();
        let mut next = || {
            let hosts = address.next().unwrap_or_default();
            Address::new(&hosts, address.next().unwrap_or_default())
        };
        let (remote, local) = (next(), next());
        Ok(Some(Self {
            remote,
            local,
            options,
        }))
    }

    /// Which side the options ask for, if they say.
    pub(crate) fn side(&self) -> Option<Side> {
        self.options.iter().rev().find_map(|(name, value)| {
            let on = golang::parse_bool(value)?;
            let side = role(name)?;
            Some(if on { side } else { side.other() })
        })
    }

    /// Writes addresses and options into `values`; they override everything else.
    pub(crate) fn apply(self, values: &mut Values, problems: &mut Vec<Problem>) {
        let side = values.side();
        let (local, remote) = match side {
            Side::Client => (Id::LocalAddr, Id::RemoteAddr),
            Side::Server => (Id::Target, Id::Listen),
        };
        for (id, address, variables) in [
            (local, &self.local, "SS_LOCAL_HOST and SS_LOCAL_PORT"),
            (remote, &self.remote, "SS_REMOTE_HOST and SS_REMOTE_PORT"),
        ] {
            let origin = Origin::Environment(variables.into());
            let (first, more) = address.texts();
            if !more.is_empty() && id == Id::Listen {
                values.listen_also(more);
            } else if !more.is_empty() {
                problems.push(
                    Problem::new(
                        Severity::Warning,
                        Place::Value(origin.clone()),
                        format!(
                            "of {} only the first is used here: {}",
                            count(address.hosts.len() as u64, "host"),
                            quoted(&first)
                        ),
                    )
                    .hint("write one host"),
                );
            }
            values.set(id, Raw::Text(first.into()), origin);
        }
        for (index, (name, value)) in self.options.into_iter().enumerate() {
            let canonical = match name.as_str() {
                name if role(name).is_some() => {
                    if golang::parse_bool(&value).is_none() {
                        problems.push(
                            Problem::error(
                                Place::Value(Origin::PluginOption(printable(name))),
                                format!("{} is neither true nor false", quoted(&value)),
                            )
                            .hint("write server on the server, and nothing on the client"),
                        );
                    }
                    continue;
                }
                "__android_vpn" => "V",
                name => name,
            };
            let opt = options::of(side)
                .find(|opt| opt.plugin && opt.flags().chain(opt.key).any(|flag| flag == canonical));
            let problem = match opt {
                Some(opt) => {
                    let origin = Origin::PluginOption(printable(&name));
                    // Only texts may have blanks at their ends.
                    let value = match opt.kind {
                        Kind::Text | Kind::Path => value,
                        _ => value.trim().to_owned(),
                    };
                    if opt.id == Id::Listen {
                        // It takes the place of all that the host gave.
                        values.listen_also(Vec::new());
                    }
                    values.set_text(opt, value.into(), origin).err()
                }
                None => Some(unknown(side, index + 1, &name)),
            };
            problems.extend(problem);
        }
    }
}

/// The side that the option `name` asks for, if it is one of those.
fn role(name: &str) -> Option<Side> {
    ROLES
        .into_iter()
        .find(|(known, _)| *known == name)
        .map(|(_, side)| side)
}

/// An option that there is not. Its name may be the rest of a key with a semicolon in it, so it is shown only where it
/// resembles a name.
fn unknown(side: Side, number: usize, name: &str) -> Problem {
    let say = |place: String, hint: String| {
        Problem::new(
            Severity::Mistake,
            Place::Value(Origin::PluginOption(place)),
            format!("ignored: the {} has no such option", side.name()),
        )
        .hint(hint)
    };
    match meant(side, name).filter(|opt| opt.plugin) {
        Some(opt) => {
            let value = if opt.kind == Kind::Bool { "" } else { "=…" };
            say(
                printable(name),
                format!("did you mean {}{value}?", opt.flag),
            )
        }
        None => say(
            format!("option {number}"),
            "remove it; a semicolon in a value is written \\;".into(),
        ),
    }
}

fn not_utf8(name: &str, message: String) -> Problem {
    Problem::error(Place::Value(Origin::Environment(name.into())), message)
}

/// Names and values; a name alone has the value `1`. Blanks around a name are not part of it.
fn split(text: &str) -> Result<Vec<(String, String)>, Problem> {
    let mut options = Vec::new();
    let mut rest = text.chars().peekable();
    while rest.peek().is_some() {
        let (name, end) = until(&mut rest, &['=', ';']);
        let value = match end {
            Some('=') => until(&mut rest, &[';']).0,
            _ => "1".into(),
        };
        let name = name.trim();
        if name.is_empty() && end.is_none() {
            // Blanks at the end.
            break;
        }
        if name.is_empty() {
            return Err(Problem::error(
                Place::Value(Origin::Environment(OPTIONS.into())),
                format!("option {} has no name", options.len() + 1),
            )
            .hint(
                "write name=value;name=value, and \\; \\= \\\\ for these characters in a value",
            ));
        }
        options.push((name.to_owned(), value));
    }
    Ok(options)
}

/// The characters up to one of `ends`, without it; which one it was.
fn until(text: &mut impl Iterator<Item = char>, ends: &[char]) -> (String, Option<char>) {
    let mut out = String::new();
    while let Some(c) = text.next() {
        match c {
            '\\' => out.extend(text.next()),
            c if ends.contains(&c) => return (out, Some(c)),
            c => out.push(c),
        }
    }
    (out, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plugin(options: &str) -> Plugin {
        let get = |name: &str| {
            let value = match name {
                "SS_REMOTE_HOST" => "2001:db8::1",
                "SS_REMOTE_PORT" => "8388",
                "SS_LOCAL_HOST" => "127.0.0.1",
                "SS_LOCAL_PORT" => "1984",
                "SS_PLUGIN_OPTIONS" => options,
                _ => return None,
            };
            Some(value.into())
        };
        Plugin::read(get).expect(options).expect("plugin mode")
    }

    fn apply(side: Side, options: &str) -> (Values, Vec<String>) {
        let mut values = Values::defaults(side, true);
        let mut problems = Vec::new();
        plugin(options).apply(&mut values, &mut problems);
        let problems = problems
            .iter()
            .map(|p| format!("{:?} {p}", p.severity))
            .collect();
        (values, problems)
    }

    fn shown(values: &Values, id: Id) -> String {
        match &values.given(id).raw {
            Raw::Text(text) => text.to_str().expect("text").into(),
            Raw::Int(n) => n.to_string(),
            Raw::Bool(on) => on.to_string(),
        }
    }

    #[test]
    fn all_four_variables_make_a_plugin() {
        for missing in VARIABLES {
            for value in [None, Some("")] {
                let get = |name: &str| {
                    if name == missing { value } else { Some("1") }.map(OsString::from)
                };
                assert!(Plugin::read(get).expect("read").is_none());
            }
        }
    }

    #[test]
    fn addresses_by_side() {
        let (values, problems) = apply(Side::Client, "");
        assert_eq!(shown(&values, Id::LocalAddr), "127.0.0.1:1984");
        assert_eq!(shown(&values, Id::RemoteAddr), "[2001:db8::1]:8388");
        assert_eq!(problems, [""; 0]);
        let (values, _) = apply(Side::Server, "");
        assert_eq!(shown(&values, Id::Listen), "[2001:db8::1]:8388");
        assert_eq!(shown(&values, Id::Target), "127.0.0.1:1984");
    }

    #[test]
    fn options_with_escapes_and_bare_names() {
        let (values, problems) = apply(
            Side::Client,
            r"key=a\;b\=c\\d=e;nocomp;mode=fast3;qpp;quiet=f;fast-open;remoteaddr=h:1-2;",
        );
        assert_eq!(problems, [""; 0]);
        assert_eq!(shown(&values, Id::Key), r"a;b=c\d=e");
        assert_eq!(shown(&values, Id::NoComp), "true");
        assert_eq!(shown(&values, Id::Qpp), "true");
        assert_eq!(shown(&values, Id::Quiet), "false");
        assert_eq!(shown(&values, Id::RemoteAddr), "h:1-2");
        assert_eq!(
            values.given(Id::Mode).origin,
            Origin::PluginOption("mode".into())
        );
    }

    #[test]
    fn which_side_the_options_ask_for() {
        for (options, side) in [
            ("", None),
            ("mode=fast", None),
            ("server", Some(Side::Server)),
            ("mode=fast;server;key=x", Some(Side::Server)),
            ("server=false", Some(Side::Client)),
            ("server=maybe", None),
            ("s", Some(Side::Server)),
            (" s ; mode=fast", Some(Side::Server)),
            ("c", Some(Side::Client)),
            ("client", Some(Side::Client)),
        ] {
            assert_eq!(plugin(options).side(), side, "{options}");
        }
    }

    #[test]
    fn blanks_around_names_are_no_part_of_them() {
        let (values, problems) = apply(Side::Client, " mode =fast3; mtu = 1200 ;key= k ; nocomp; ");
        assert_eq!(problems, [""; 0]);
        assert_eq!(shown(&values, Id::Mode), "fast3");
        assert_eq!(shown(&values, Id::Mtu), "1200");
        assert_eq!(shown(&values, Id::Key), " k ");
        assert_eq!(shown(&values, Id::NoComp), "true");
    }

    #[test]
    fn a_host_with_several_addresses() {
        for (hosts, listen, more) in [
            ("::0|0.0.0.0", ":8388", &[][..]),
            ("0.0.0.0 | ::", ":8388", &[]),
            ("::0", "[::0]:8388", &[]),
            (
                "192.0.2.1|2001:db8::1",
                "192.0.2.1:8388",
                &["[2001:db8::1]:8388"],
            ),
            ("0.0.0.0|192.0.2.1", "0.0.0.0:8388", &["192.0.2.1:8388"]),
        ] {
            let get = |name: &str| match name {
                "SS_REMOTE_HOST" => Some(hosts.into()),
                "SS_PLUGIN_OPTIONS" => None,
                "SS_LOCAL_HOST" => Some("127.0.0.1".into()),
                _ => Some("8388".into()),
            };
            for side in [Side::Server, Side::Client] {
                let plugin = Plugin::read(get).expect(hosts).expect("plugin mode");
                let (mut values, mut problems) = (Values::defaults(side, true), Vec::new());
                plugin.apply(&mut values, &mut problems);
                let server = side == Side::Server;
                let id = if server { Id::Listen } else { Id::RemoteAddr };
                assert_eq!(shown(&values, id), listen);
                let expected = if server { more } else { &[] };
                assert_eq!(values.also(), expected);
                assert_eq!(problems.len(), usize::from(!server && !more.is_empty()));
            }
        }
    }

    #[cfg(unix)]
    #[test]
    fn no_message_shows_a_key() {
        use std::os::unix::ffi::OsStringExt;
        let get = |name: &str| {
            Some(match name {
                "SS_PLUGIN_OPTIONS" => OsString::from_vec(b"key=S3CRET\xff".to_vec()),
                _ => "1".into(),
            })
        };
        let problem = Plugin::read(get).expect_err("no text").to_string();
        assert!(!problem.contains("S3CRET"), "{problem}");
        for options in ["key=S3CRET;=", "S3CRET;=x", "key=a\\;S3CRET;;"] {
            let problem = split(options).expect_err("no name").to_string();
            assert!(!problem.contains("S3CRET"), "{problem}");
        }
        assert!(!format!("{:?}", plugin("key=S3CRET")).contains("S3CRET"));
    }

    #[test]
    fn mistakes() {
        for (options, problem) in [
            (
                "mtu=big",
                "Error SS_PLUGIN_OPTIONS, mtu: \"big\" is not a whole number; write 50 to 1500 bytes",
            ),
            (
                "mod=x",
                "Mistake SS_PLUGIN_OPTIONS, mod: ignored: the client has no such option; did you mean mode=…?",
            ),
            (
                "no-comp",
                "Mistake SS_PLUGIN_OPTIONS, no-comp: ignored: the client has no such option; did you mean nocomp?",
            ),
            (
                "mtu=9;key=pass;S3CRET;mode=fast",
                "Mistake SS_PLUGIN_OPTIONS, option 3: ignored: the client has no such option; remove it; a semicolon in a value is written \\;",
            ),
            (
                "server=maybe",
                "Error SS_PLUGIN_OPTIONS, server: \"maybe\" is neither true nor false; write server on the server, and nothing on the client",
            ),
        ] {
            assert_eq!(apply(Side::Client, options).1, [problem], "{options}");
        }
        let error = split("mode=fast;;x").expect_err("no name").to_string();
        assert!(error.contains("option 2 has no name"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn any_options_are_read_without_panic(text in "((key|mtu|server|é)?=?[;=\\\\a1]{0,3}){0,5}") {
            if let Ok(options) = split(&text) {
                prop_assert!(options.iter().all(|(name, _)| !name.is_empty()));
            }
        }

        #[test]
        fn escaped_options_round_trip(name in "[^ \\s]{1,6}", value in ".{0,6}") {
            let escape = |text: &str| -> String {
                text.chars().flat_map(|c| if matches!(c, ';' | '=' | '\\') { vec!['\\', c] } else { vec![c] }).collect()
            };
            let text = format!("{}={};", escape(&name), escape(&value));
            prop_assert_eq!(split(&text), Ok(vec![(name, value)]));
        }
    }
}
