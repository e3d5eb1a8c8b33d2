//! The commands and their flags as clap knows them.
//!
//! The flags of `client` and `server` come from the option table; clap shows, completes and documents them, while
//! `fulmar-config` reads them by kcptun's rules.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, ValueHint};
use clap::{Arg, ArgAction, Command, value_parser};
use fulmar_config::options::{self, Group, Id, Kind, Opt, Preset, first};
use fulmar_config::{Program, Side};
use fulmar_wire::kcptun2016::Variant;

use crate::persona::FULMAR;

const RULES: &str = "\
One hyphen does as well as two (-mode auto), and numbers may be written as in Go (0x546). \
A switch takes a value only with an equals sign (--quiet=false). \
Highest precedence first: the variables of a shadowsocks host, the file, flags, KCPTUN_KEY, defaults.";

const ROLES: [&str; 2] = ["client", "server"];

/// The whole program.
pub(crate) fn program() -> Command {
    Command::new(FULMAR)
        .about("Carries TCP connections across lossy, slow and far networks, over KCP")
        .after_help("fulmar client --help and fulmar server --help list the flags of kcptun.")
        .disable_version_flag(true)
        .arg(version_flag(ArgAction::Version))
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(tunnel(Side::Client, None))
        .subcommand(tunnel(Side::Server, None))
        .subcommand(
            Command::new("run")
                .about("Run what a configuration file of kcptun (JSON, or TOML) or kcptun-libev describes, recognised by its content")
                .args(file_and_role())
                .arg(
                    Arg::new("verbose")
                        .short('v')
                        .long("verbose")
                        .action(ArgAction::SetTrue)
                        .help("Log every setting at start, also defaults, and every note about them"),
                ),
        )
        .subcommand(
            Command::new("check")
                .about("Validate a configuration file and suggest fixes")
                .long_about(
                    "Validate a configuration file and suggest fixes.\n\n\
                     Stricter than a start: unknown keys, unknown names of ciphers and modes, and whatever else \
                     kcptun passes over in silence are errors here. Exit code 2 if there is one.",
                )
                .args(file_and_role())
                .arg(
                    Arg::new("all")
                        .long("all")
                        .action(ArgAction::SetTrue)
                        .help("Show every setting, also those that have their defaults"),
                ),
        )
        .subcommand(
            Command::new("genpsk")
                .about("Make a random pre-shared key")
                .arg(
                    Arg::new("method")
                        .value_name("METHOD")
                        .help("The cipher that it is for, \"qpp\" for the long key that --QPP wants, or a method of kcptun-libev")
                        .default_value("aes"),
                )
                .arg(
                    Arg::new("out")
                        .short('o')
                        .value_name("FILE")
                        .value_parser(value_parser!(PathBuf))
                        .value_hint(ValueHint::FilePath)
                        .help("Write it into a new FILE for --key-file, readable by its owner only"),
                ),
        )
        .subcommand(demo())
        .subcommand(
            Command::new("completions").about("Print a completion script").arg(
                Arg::new("shell")
                    .value_name("SHELL")
                    .required(true)
                    .value_parser(value_parser!(clap_complete::Shell))
                    .help("The shell that it is for"),
            ),
        )
        .subcommand(
            Command::new("man")
                .about("Print a manual page")
                .arg(Arg::new("command").value_name("COMMAND").help("The command that it is for"))
                .arg(
                    Arg::new("dir")
                        .long("dir")
                        .value_name("DIR")
                        .value_parser(value_parser!(PathBuf))
                        .value_hint(ValueHint::DirPath)
                        .help("Write all pages into DIR instead"),
                ),
        )
        .subcommand(Command::new("version").about("Print the version"))
}

fn demo() -> Command {
    let number =
        |name: &'static str, value: &'static str, default: &'static str, help: &'static str| {
            Arg::new(name)
                .long(name)
                .value_name(value)
                .default_value(default)
                .help(help)
        };
    Command::new("demo")
        .about("Target, server, a lossy link and client in one process: what it takes, and what the link could carry")
        .arg(number("size", "MB", "32", "Megabytes to carry").value_parser(value_parser!(u32).range(1..=4096)))
        .arg(number("loss", "PERCENT", "5", "Packets that the link loses").value_parser(value_parser!(u8).range(0..=60)))
        .arg(number("rtt", "MS", "60", "Round-trip time of the link").value_parser(value_parser!(u32).range(0..=5000)))
        .arg(number("rate", "MBIT/S", "100", "Rate of the link").value_parser(value_parser!(u32).range(1..=100_000)))
        .arg(number("seed", "N", "1", "What the losses are drawn from").value_parser(value_parser!(u64)))
}

fn file_and_role() -> [Arg; 2] {
    [
        Arg::new("file")
            .short('c')
            .value_name("FILE")
            .required(true)
            .value_parser(value_parser!(PathBuf))
            .value_hint(ValueHint::FilePath)
            .help("The configuration file; NAME finds NAME.json or NAME.toml"),
        Arg::new("role")
            .long("role")
            .value_name("ROLE")
            .value_parser(PossibleValuesParser::new(ROLES))
            .help("Whose file it is, when its content does not tell"),
    ]
}

/// The command `client` or `server`; with `compat`, the variant of the kcptun of 2016 that it is for, with its defaults and
/// without what it lacks.
pub(crate) fn tunnel(side: Side, compat: Option<Variant>) -> Command {
    let about = match side {
        Side::Client => "Accept TCP connections here and carry them to a server",
        Side::Server => "Accept tunnels here and carry their streams to a target",
    };
    let about = match compat {
        None => format!("{about}, with kcptun's flags"),
        Some(_) => format!("{about}, for the kcptun of spring 2016"),
    };
    let mut command = Command::new(side.name())
        .about(about)
        .after_help(RULES)
        .disable_version_flag(true)
        .disable_help_flag(true)
        .next_line_help(false);
    for group in Group::ALL {
        for opt in options::of(side).filter(|opt| opt.group == group) {
            command = command.arg(flag(opt, side, compat));
        }
    }
    let help = Arg::new("help")
        .short('h')
        .long("help")
        .help("Print help")
        .action(ArgAction::HelpShort);
    command
        .arg(help.help_heading(Group::Other.heading()))
        .arg(version_flag(ArgAction::SetTrue).help_heading(Group::Other.heading()))
}

fn version_flag(action: ArgAction) -> Arg {
    Arg::new("version")
        .short('v')
        .long("version")
        .help("Print the version")
        .action(action)
}

fn flag(opt: &'static Opt, side: Side, compat: Option<Variant>) -> Arg {
    let mut arg = Arg::new(opt.flag)
        .help(opt.help)
        .help_heading(opt.group.heading());
    for name in opt.flags() {
        let mut letters = name.chars();
        arg = match (letters.next(), letters.next()) {
            (Some(letter), None) => arg.short(letter),
            _ if name == opt.flag => arg.long(name),
            _ => arg.visible_alias(name),
        };
    }
    // Plugin matters are nobody's to type.
    let lacking = first::lacking(opt.id).or(first::idle(opt.id)).is_some();
    if opt.program == Program::KcptunPlugin || (compat.is_some() && lacking) {
        arg = arg.hide(true);
    }
    if opt.kind == Kind::Bool {
        return arg.action(ArgAction::SetTrue);
    }
    arg = arg.value_name(opt.value_name).allow_hyphen_values(true);
    match opt.kind {
        Kind::Name { .. } if opt.id == Id::Mode && compat.is_some() => {
            let modes = compat.map_or(&[][..], first::modes).iter();
            let names = modes.map(|numbers| numbers.mode.name()).chain(["auto"]);
            arg = arg.value_parser(PossibleValuesParser::new(names));
        }
        Kind::Name { names, .. } => {
            // A client speaks first, so it cannot find out the cipher.
            let names = names
                .iter()
                .filter(|name| side == Side::Server || opt.id != Id::Crypt || **name != "auto");
            arg = arg.value_parser(PossibleValuesParser::new(names));
        }
        Kind::Path => {
            arg = arg
                .value_parser(value_parser!(PathBuf))
                .value_hint(ValueHint::FilePath);
        }
        Kind::Text | Kind::Int { .. } | Kind::Bool => {}
    }
    let preset = match compat {
        None => opt.preset(side),
        Some(_) => first::preset(opt, side),
    };
    match preset {
        Preset::Text("") | Preset::Off => arg,
        Preset::Text(text) => arg.default_value(text),
        Preset::Int(n) => arg.default_value(n.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clap_finds_no_fault() {
        program().debug_assert();
        for side in [Side::Client, Side::Server] {
            tunnel(side, None).debug_assert();
            for variant in Variant::ALL {
                tunnel(side, Some(variant)).debug_assert();
            }
        }
    }

    #[test]
    fn auto_is_a_mode_of_both_ends_and_a_cipher_of_the_server() {
        for (side, name, has) in [
            (Side::Client, "mode", true),
            (Side::Server, "mode", true),
            (Side::Client, "crypt", false),
            (Side::Server, "crypt", true),
        ] {
            let command = tunnel(side, None);
            let arg = command.get_arguments().find(|arg| arg.get_id() == name);
            let names = arg.expect(name).get_possible_values();
            let found = names.iter().any(|value| value.get_name() == "auto");
            assert_eq!(found, has, "{} {name}", side.name());
        }
    }

    #[test]
    fn every_option_is_a_flag_with_all_its_names() {
        for side in [Side::Client, Side::Server] {
            let command = tunnel(side, None);
            for opt in options::of(side) {
                let arg = command
                    .get_arguments()
                    .find(|arg| arg.get_id() == opt.flag)
                    .expect(opt.flag);
                let mut names: Vec<String> = arg.get_long().map(Into::into).into_iter().collect();
                names.extend(arg.get_short().map(String::from));
                names.extend(
                    arg.get_all_aliases()
                        .into_iter()
                        .flatten()
                        .map(String::from),
                );
                assert!(
                    opt.flags()
                        .all(|flag| names.iter().any(|name| name == flag)),
                    "{names:?}"
                );
            }
        }
    }
}
