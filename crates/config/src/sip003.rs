//! Shadowsocks plugin mode (SIP003; docs/spec/kcptun.md, section 16).
//!
//! A shadowsocks host starts its plugin with four variables that say where to listen and where to connect, and
//! `SS_PLUGIN_OPTIONS`: `name=value;name;…` with `\` before a byte that is meant literally. The plugin is a server
//! when the options have `server`, or when it was started as one.

use std::ffi::OsString;

use crate::golang;
use crate::options::{self, Id, Kind, Side};
use crate::origin::Origin;
use crate::problem::{Place, Problem, Severity};
use crate::values::{Raw, Values, meant, printable};

/// The names that say where to listen and where to connect.
pub(crate) const VARIABLES: [&str; 4] = [
    "SS_REMOTE_HOST",
    "SS_REMOTE_PORT",
    "SS_LOCAL_HOST",
    "SS_LOCAL_PORT",
];
/// The name of the options.
pub(crate) const OPTIONS: &str = "SS_PLUGIN_OPTIONS";

/// What a shadowsocks host says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Plugin {
    remote: String,
    local: String,
    options: Vec<(String, String)>,
}

impl Plugin {
    /// Reads the variables through `get`; `None` unless all four addresses are there and not empty.
    pub(crate) fn read(get: impl Fn(&str) -> Option<OsString>) -> Result<Option<Self>, Problem> {
        let mut address = Vec::new();
        for name in VARIABLES {
            match get(name).filter(|value| !value.is_empty()) {
                None => return Ok(None),
                Some(value) => address.push(text(name, value)?),
            }
        }
        let options = match get(OPTIONS) {
            None => Vec::new(),
            Some(value) => split(&text(OPTIONS, value)?)?,
        };
        let join = |host: &str, port: &str| {
            if host.contains(':') && !host.starts_with('[') {
                format!("[{host}]:{port}")
            } else {
                format!("{host}:{port}")
            }
        };
        Ok(Some(Self {
            remote: join(&address[0], &address[1]),
            local: join(&address[2], &address[3]),
            options,
        }))
    }

    /// Which side the options ask for, if they say.
    pub(crate) fn side(&self) -> Option<Side> {
        self.options
            .iter()
            .rev()
            .find_map(|(name, value)| match name.as_str() {
                "server" => {
                    golang::parse_bool(value).map(|on| if on { Side::Server } else { Side::Client })
                }
                _ => None,
            })
    }

    /// Writes addresses and options into `values`; they override everything else.
    pub(crate) fn apply(self, values: &mut Values, problems: &mut Vec<Problem>) {
        let side = values.side();
        let (local, remote) = match side {
            Side::Client => (Id::LocalAddr, Id::RemoteAddr),
            Side::Server => (Id::Target, Id::Listen),
        };
        let origin = |name: &str| Origin::Environment(name.into());
        values.set(
            local,
            Raw::Text(self.local.into()),
            origin("SS_LOCAL_HOST and SS_LOCAL_PORT"),
        );
        values.set(
            remote,
            Raw::Text(self.remote.into()),
            origin("SS_REMOTE_HOST and SS_REMOTE_PORT"),
        );
        for (name, value) in self.options {
            let spelled = printable(&name);
            let origin = Origin::PluginOption(spelled.clone());
            let canonical = match name.as_str() {
                "server" => {
                    if golang::parse_bool(&value).is_none() {
                        problems.push(
                            Problem::error(
                                Place::Value(origin),
                                format!("\"{}\" is neither true nor false", printable(&value)),
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
                Some(opt) => values.set_text(opt, value.into(), origin).err(),
                None => {
                    let problem = Problem::new(
                        Severity::Mistake,
                        Place::Value(origin),
                        format!("ignored: the {} has no such option", side.name()),
                    );
                    Some(match meant(side, &name).filter(|opt| opt.plugin) {
                        Some(opt) if opt.kind == Kind::Bool => {
                            problem.hint(format!("did you mean {}?", opt.flag))
                        }
                        Some(opt) => problem.hint(format!("did you mean {}=…?", opt.flag)),
                        None => problem,
                    })
                }
            };
            problems.extend(problem);
        }
    }
}

fn text(name: &str, value: OsString) -> Result<String, Problem> {
    value.into_string().map_err(|value| {
        let message = format!("\"{}\" is not UTF-8", printable(value));
        Problem::error(Place::Value(Origin::Environment(name.into())), message)
    })
}

/// Names and values; a name alone has the value `1`.
fn split(text: &str) -> Result<Vec<(String, String)>, Problem> {
    let mut options = Vec::new();
    let mut rest = text.chars().peekable();
    while rest.peek().is_some() {
        let (name, end) = until(&mut rest, &['=', ';']);
        let value = match end {
            Some('=') => until(&mut rest, &[';']).0,
            _ => "1".into(),
        };
        if name.is_empty() {
            return Err(Problem::error(
                Place::Value(Origin::Environment(OPTIONS.into())),
                format!(
                    "\"{}\" has an option without a name",
                    printable(redacted(text))
                ),
            )
            .hint(
                "write name=value;name=value, and \\; \\= \\\\ for these characters in a value",
            ));
        }
        options.push((name, value));
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

/// `text` up to a key in it.
fn redacted(text: &str) -> String {
    match text.find("key") {
        None => text.into(),
        Some(at) => format!("{}…", &text[..at]),
    }
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
                assert_eq!(Plugin::read(get), Ok(None));
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
        ] {
            assert_eq!(plugin(options).side(), side, "{options}");
        }
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
                "c=/etc/x",
                "Mistake SS_PLUGIN_OPTIONS, c: ignored: the client has no such option",
            ),
            (
                "server=maybe",
                "Error SS_PLUGIN_OPTIONS, server: \"maybe\" is neither true nor false; write server on the server, and nothing on the client",
            ),
        ] {
            assert_eq!(apply(Side::Client, options).1, [problem], "{options}");
        }
        let error = split("mode=fast;;x").expect_err("no name").to_string();
        assert!(error.contains("without a name"), "{error}");
        assert!(
            !split("key=secret;=")
                .expect_err("no name")
                .to_string()
                .contains("secret")
        );
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
        fn escaped_options_round_trip(name in ".{1,6}", value in ".{0,6}") {
            let escape = |text: &str| -> String {
                text.chars().flat_map(|c| if matches!(c, ';' | '=' | '\\') { vec!['\\', c] } else { vec![c] }).collect()
            };
            let text = format!("{}={};", escape(&name), escape(&value));
            prop_assert_eq!(split(&text), Ok(vec![(name, value)]));
        }
    }
}
