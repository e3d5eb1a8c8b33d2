//! The fulmar program: which command is meant, and what its outcome is for the shell.
//!
//! | module | what |
//! |---|---|
//! | `cli` | the commands and their flags, from the option table of `fulmar-config` |
//! | `persona` | command lines taken over with a replaced program's name |
//! | `commands` | one file per command |
//! | `launch` | the way into the runtime |
//! | `logging` | the log: what is shown, how it looks, where it goes |
//! | `named_file` | configuration files by a name without its end |
//! | `process` | the background, the user, the system's log, who may look into it |
//! | `signals` | when to stop, to read the configuration again, to show counters |
//! | `exit` | exit codes |
#![forbid(unsafe_code)]

mod cli;
mod commands;
mod exit;
mod launch;
mod logging;
mod named_file;
mod persona;
mod process;
mod signals;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::ArgMatches;
use fulmar_config::{Environment, Side, plugin_side};

use crate::exit::Exit;
use crate::persona::Persona;

fn main() -> ExitCode {
    logging::report_panics();
    let _flushed = Flushed;
    let mut args = std::env::args_os();
    let persona = args
        .next()
        .map_or(Persona::Fulmar, |name| Persona::of(&name));
    let args: Vec<OsString> = args.collect();
    let environment = Environment::of_process();
    match dispatch(persona, &args, &environment) {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => {
            let code = exit.report();
            // kcptun-libev has no other.
            if persona == Persona::KcptunLibev {
                ExitCode::FAILURE
            } else {
                code
            }
        }
    }
}

/// When the program ends, by a panic as well, what it has logged is written.
struct Flushed;

impl Drop for Flushed {
    fn drop(&mut self) {
        logging::flush();
    }
}

fn dispatch(persona: Persona, args: &[OsString], environment: &Environment) -> Result<(), Exit> {
    match persona {
        Persona::Kcptun(side) => return commands::tunnel(side, persona, args, environment),
        Persona::KcptunEither => return commands::kcptun(args, environment),
        Persona::KcptunLibev => return commands::kcptun_libev(args),
        Persona::Fulmar => {}
    }
    // kcptun's flags are not clap's: one hyphen is enough, and what follows the first non-flag is ignored.
    let is_plugin = || !matches!(plugin_side(environment), Ok(None));
    let side = match args.first().and_then(|arg| arg.to_str()) {
        Some("client") => Some(Side::Client),
        Some("server") => Some(Side::Server),
        // Roles as other plugins have them.
        Some("c") if is_plugin() => Some(Side::Client),
        Some("s") if is_plugin() => Some(Side::Server),
        _ => None,
    };
    if let Some(side) = side {
        return commands::tunnel(side, persona, &args[1..], environment);
    }
    // A shadowsocks host starts its plugin without a sub-command, perhaps with flags.
    let only_flags = args
        .first()
        .is_none_or(|arg| arg.as_encoded_bytes().starts_with(b"-"));
    if only_flags && let Some(side) = plugin_side(environment)? {
        return commands::tunnel(side, persona, args, environment);
    }
    process::dumpable::forbid()?;
    let name = OsString::from(persona::FULMAR);
    let matches = match cli::program().try_get_matches_from(std::iter::once(&name).chain(args)) {
        Ok(matches) => matches,
        // Also help and version come this way.
        Err(e) => return Err(Exit::Clap(Box::new(e))),
    };
    match matches.subcommand() {
        Some(("run", m)) => commands::run(&file(m)?, role(m), m.get_flag("verbose"), environment),
        Some(("check", m)) => commands::check(&file(m)?, role(m), m.get_flag("all"), environment),
        Some(("genpsk", m)) => commands::genpsk(text(m, "method"), m.get_one("out")),
        Some(("demo", m)) => commands::demo(m),
        Some(("completions", m)) => commands::completions(m),
        Some(("man", m)) => commands::man(
            text(m, "command"),
            m.get_one("dir").map(std::path::PathBuf::as_path),
        ),
        Some(("version", _)) => commands::version(persona),
        _ => Err(Exit::usage("no command is given")),
    }
}

fn file(matches: &ArgMatches) -> Result<std::path::PathBuf, Exit> {
    let path: Option<&std::path::PathBuf> = matches.get_one("file");
    named_file::find(path.map_or("".as_ref(), |path| path))
}

fn role(matches: &ArgMatches) -> Option<Side> {
    match text(matches, "role") {
        Some("client") => Some(Side::Client),
        Some("server") => Some(Side::Server),
        _ => None,
    }
}

fn text<'a>(matches: &'a ArgMatches, id: &str) -> Option<&'a str> {
    matches.get_one::<String>(id).map(String::as_str)
}
