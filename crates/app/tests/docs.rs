//! docs/compatibility.md is true: its tables are those that the source makes. `UPDATE_DOCS=1` writes them.

#[path = "docs/references.rs"]
mod references;

use std::fmt::Write as _;
use std::path::PathBuf;

use fulmar_config::libev::{LIBEV_KEYS, LibevKey, LibevKind, libev_usage};
use fulmar_config::options::{Id, Kind, Opt, Preset, TABLE, first};
use fulmar_config::{Program, Side};
use fulmar_wire::kcptun2016::Variant;

/// Where the counters are defined, each behind one line of documentation.
const COUNTERS: &str = include_str!("../../session/src/counters.rs");

#[test]
fn tables_of_the_compatibility_document() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/compatibility.md");
    let old = std::fs::read_to_string(&path).expect("docs/compatibility.md");
    let new = put(&old, "flags and keys", &flags());
    let new = put(&new, "counters", &counters());
    let new = put(&new, "keys of kcptun-libev", &libev_keys());
    let new = put(&new, "options with the kcptun of 2016", &first_options());
    let new = put(&new, "modes of the kcptun of 2016", &first_modes());
    name_libev_options(&new);
    if std::env::var_os("UPDATE_DOCS").is_some_and(|value| value == "1") {
        std::fs::write(&path, new).expect("write");
        return;
    }
    assert!(
        old == new,
        "docs/compatibility.md is out of date: UPDATE_DOCS=1 cargo test -p fulmar --test docs"
    );
}

/// `text` with `table` between the markers of `name`.
fn put(text: &str, name: &str, table: &str) -> String {
    let begin = text.find(&format!("<!-- {name}")).expect("marker");
    let begin = begin + text[begin..].find("-->\n").expect("marker") + 4;
    let end = text
        .find(&format!("<!-- end of {name} -->"))
        .expect("end marker");
    assert!(begin <= end, "{name}: markers in order");
    format!("{}\n{table}\n{}", &text[..begin], &text[end..])
}

fn flags() -> String {
    let mut out = String::from(
        "| flag | JSON key | default | values | supported | |\n|---|---|---|---|---|---|\n",
    );
    for opt in &TABLE {
        let names: Vec<String> = opt
            .flags()
            .map(|name| match name.len() {
                1 => format!("`-{name}`"),
                _ => format!("`--{name}`"),
            })
            .collect();
        let key = opt.key.map_or("–".into(), |key| format!("`{key}`"));
        let side = opt.only.map_or(String::new(), |side| {
            format!("{} only. ", capital(side.name()))
        });
        let _ = writeln!(
            out,
            "| {} | {key} | {} | {} | {} | {side}{} |",
            names.join(", "),
            default(opt),
            values(opt),
            supported(opt),
            how(opt)
        );
    }
    out
}

fn default(opt: &Opt) -> String {
    default_by(opt, |side| opt.preset(side))
}

fn default_by(opt: &Opt, preset: impl Fn(Side) -> Preset) -> String {
    let shown = |side| match preset(side) {
        Preset::Text("") => "–".to_owned(),
        Preset::Text(text) => format!("`{text}`"),
        Preset::Int(n) => n.to_string(),
        Preset::Off => "off".to_owned(),
    };
    match opt.only {
        Some(side) => shown(side),
        None => {
            let (client, server) = (shown(Side::Client), shown(Side::Server));
            if client == server {
                client
            } else {
                format!("{client} / {server}")
            }
        }
    }
}

fn values(opt: &Opt) -> String {
    match opt.kind {
        Kind::Text | Kind::Path => format!("`{}`", opt.value_name),
        Kind::Name { names, .. } => {
            let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            names.join(" ")
        }
        Kind::Int { min, max, unit } => {
            let max = if max == i64::from(i32::MAX) {
                "2³¹−1".to_owned()
            } else {
                max.to_string()
            };
            format!("{min} to {max} {unit}").trim_end().to_owned()
        }
        Kind::Bool => "switch".to_owned(),
    }
}

fn supported(opt: &Opt) -> &'static str {
    match (opt.id, opt.program) {
        (Id::Pprof | Id::AndroidVpn, _) => "refused",
        (Id::FastOpen, _) => "ignored",
        (_, Program::Fulmar) => "Fulmar only",
        _ => "yes",
    }
}

/// How, or why not.
fn how(opt: &Opt) -> String {
    match (opt.note, opt.program) {
        ("", Program::Fulmar) => format!("{}.", opt.help),
        ("", _) => "As in kcptun.".to_owned(),
        (note, _) => format!("{note}."),
    }
}

/// Every option of kcptun-libev is in `text`, the document.
fn name_libev_options(text: &str) {
    let section = text.split("\n## kcptun-libev\n").nth(1).expect("section");
    let section = section.split("\n## ").next().expect("end");
    let mut options = 0;
    for word in libev_usage("x").split([' ', ',', '\n']) {
        if word.starts_with('-') {
            assert!(section.contains(&format!("`{word}`")), "{word}");
            options += 1;
        }
    }
    assert!(options > 14, "{options} options found");
}

fn libev_keys() -> String {
    let mut out = String::from("| key | default | values | supported | |\n|---|---|---|---|---|\n");
    for key in &LIBEV_KEYS {
        let supported = match key.program() {
            Program::Fulmar => "Fulmar only",
            _ => "yes",
        };
        let how = match key.note {
            "" => "As in kcptun-libev.".to_owned(),
            note => format!("{note}."),
        };
        let (default, values) = libev_values(key);
        let _ = writeln!(
            out,
            "| `{}` | {default} | {values} | {supported} | {how} |",
            key.name
        );
    }
    out
}

/// The default and the values.
fn libev_values(key: &LibevKey) -> (String, String) {
    let text = |values: &str| ("–".to_owned(), values.to_owned());
    match key.kind {
        LibevKind::Local => text("`[HOST]:PORT`"),
        LibevKind::Remote => text("`HOST:PORT`"),
        LibevKind::Text | LibevKind::Secret => text("`TEXT`"),
        LibevKind::Name(names) => {
            let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            let default = match key.name {
                "log" => "`stdout`",
                "fulmar.mode" => "`auto`",
                _ => "–",
            };
            (default.to_owned(), names.join(" "))
        }
        LibevKind::Int {
            min,
            max,
            default,
            unit,
        } => (
            default.to_string(),
            format!("{min} to {max} {unit}").trim_end().to_owned(),
        ),
        LibevKind::Bool(default) => (default.to_string(), "`true` `false`".to_owned()),
    }
}

/// What `--compat 2016` makes of options, where it makes something else of them.
fn first_options() -> String {
    let mut out = String::from("| option | with `--compat 2016…` | today |\n|---|---|---|\n");
    let mut rows = 0;
    for opt in &TABLE {
        let today = default(opt);
        let then = match (first::lacking(opt.id), first::idle(opt.id)) {
            (Some(why), _) => {
                let when = match opt.id {
                    Id::Crypt => " unless it is `aes`",
                    Id::DataShard | Id::ParityShard => " above 0",
                    _ => "",
                };
                format!("refused{when}: {why}")
            }
            (_, Some(why)) => format!("no effect: {why}"),
            (None, None) => default_by(opt, |side| first::preset(opt, side)),
        };
        if then != today {
            let _ = writeln!(out, "| `--{}` | {then} | {today} |", opt.flag);
            rows += 1;
        }
    }
    assert!(rows > 12, "{rows} rows");
    out
}

/// The modes of each variant, as `nodelay, interval, resend, nc`.
fn first_modes() -> String {
    let numbers = |variant, name| {
        let found = first::modes(variant).iter().find(|n| n.mode.name() == name);
        found.map_or("–".to_owned(), |n| {
            let [nodelay, nc] = [n.nodelay, !n.congestion_control].map(u8::from);
            format!("{nodelay}, {}, {}, {nc}", n.interval_ms, n.resend)
        })
    };
    for variant in [Variant::A, Variant::Bt] {
        assert_eq!(first::modes(variant), first::modes(Variant::B));
    }
    let mut out =
        String::from("| mode | `2016`, `2016a`, `2016b`, `2016bt` | `2016c` |\n|---|---|---|\n");
    for n in first::modes(Variant::C) {
        let name = n.mode.name();
        let [early, late] = [Variant::B, Variant::C].map(|variant| numbers(variant, name));
        let _ = writeln!(out, "| `{name}` | {early} | {late} |");
    }
    out
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters
        .next()
        .map(|c| c.to_uppercase().to_string())
        .unwrap_or_default();
    first + letters.as_str()
}

fn counters() -> String {
    let mut out = String::from("| counter | in `--snmplog` | what it counts |\n|---|---|---|\n");
    let mut ours = false;
    let mut words: Vec<&str> = Vec::new();
    let mut rows = 0;
    let block = COUNTERS.split("\ncounters! {").nth(1).expect("counters");
    let block = block.split("\n}\n").next().expect("end");
    for line in block.lines().map(str::trim) {
        if let Some(word) = line.strip_prefix("///") {
            words.push(word.trim());
        } else if line.starts_with("ours") {
            ours = true;
        } else if let Some((_, name)) = line.split_once(" = ") {
            let name = name.trim_matches([',', '"']);
            let text = words
                .join(" ")
                .replace('`', "")
                .replace("[Counters::", "")
                .replace(']', "");
            let column = if ours { "no" } else { "yes" };
            let _ = writeln!(
                out,
                "| `{name}` | {column} | {} |",
                text.replace("See retrans_segs.", "See RetransSegs.")
            );
            words.clear();
            rows += 1;
        }
    }
    assert!(rows > 30 && ours, "{rows} counters found");
    out
}
