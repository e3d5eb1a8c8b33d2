//! kcptun-libev: its command line under its own name, and running what its file describes.

use std::ffi::OsString;
use std::path::Path;

use fulmar_config::libev::{LibevArgs, LibevArgsError, Sink, encode_psk, libev_usage};
use fulmar_config::{LibevInvocation, LibevLoaded, libev_args, libev_from_file, report};
use fulmar_wire::libev::Method;

use crate::commands::opening::{Opening, tell};
use crate::exit::{Exit, note, print};
use crate::persona::KCPTUN_LIBEV;
use crate::process::daemon::{self, Stage};
use crate::process::{dumpable, user};
use crate::{launch, logging};

use super::tunnel::mistakes;

/// kcptun-libev's command line (docs/spec/kcptun-libev.md, section 2). Every failure ends with exit code 1.
pub(crate) fn persona(args: &[OsString]) -> Result<(), Exit> {
    dumpable::forbid()?;
    match libev_args(args) {
        Ok(LibevInvocation::Help) => note(&libev_usage(KCPTUN_LIBEV)),
        Ok(LibevInvocation::ListMethods) => {
            let names = Method::SEALED.map(Method::name).join("\n");
            note(&format!("{names}\n"));
        }
        Ok(LibevInvocation::Genpsk(_)) => print(&format!("{}\n", random_psk()?))?,
        Ok(LibevInvocation::Run(args)) => {
            let loaded = libev_from_file(&args.config)?;
            let verbose = args.verbosity > 0;
            return start_with(args, loaded, verbose);
        }
        Err(e) => {
            if e == LibevArgsError::NoConfig {
                note(&libev_usage(KCPTUN_LIBEV));
            }
            return Err(Exit::failed(e.to_string()));
        }
    }
    Ok(())
}

/// Runs what the file describes.
pub(crate) fn start(file: &Path, loaded: LibevLoaded, verbose: bool) -> Result<(), Exit> {
    let args = LibevArgs {
        config: file.to_owned(),
        daemonize: false,
        user: None,
        verbosity: 0,
    };
    start_with(args, loaded, verbose)
}

/// Runs what the file describes, with what the command line adds.
fn start_with(args: LibevArgs, loaded: LibevLoaded, verbose: bool) -> Result<(), Exit> {
    let LibevLoaded { config, problems } = loaded;
    if let Some(user) = &args.user {
        user::check(user).map_err(|e| Exit::failed(format!("-u: {e}")))?;
    }
    let readiness = match daemon::start(args.daemonize).map_err(Exit::failed)? {
        Stage::Foreground => None,
        Stage::Parent => return Ok(()),
        Stage::Child(readiness) => Some(readiness),
    };
    let background = readiness.is_some();
    let level = args.level(config.log.level);
    logging::start_libev(level, sink(config.log.sink, background))?;
    let opening = Opening {
        role: config.role.name(),
        brief: report::libev_brief(&config),
        all: report::libev_lines(&config),
        problems: &problems,
        verbose,
    };
    opening.log();
    let user = args.user.clone().or_else(|| config.user.clone());
    let reload = move || {
        let loaded = libev_from_file(&args.config).map_err(|failure| mistakes(&failure))?;
        let LibevLoaded { config, problems } = loaded;
        let level = args.level(config.log.level);
        logging::change(level, sink(config.log.sink, background))?;
        tell(&problems);
        Ok(config)
    };
    launch::libev(config, user, readiness, reload).map_err(|e| {
        if background {
            tracing::error!("{e}");
        }
        Exit::failed(e.to_string())
    })
}

/// Where lines go: what runs in the background has no standard streams (section 14.3).
const fn sink(sink: Sink, background: bool) -> logging::Sink {
    match sink {
        Sink::Discard => logging::Sink::Discard,
        _ if background => logging::Sink::Syslog,
        Sink::Stdout => logging::Sink::Stdout,
        Sink::Stderr => logging::Sink::Stderr,
        Sink::Terminal => logging::Sink::Terminal,
        Sink::Syslog => logging::Sink::Syslog,
    }
}

/// A random key as text, for any of the methods.
pub(crate) fn random_psk() -> Result<String, Exit> {
    let mut key = [0; 32];
    getrandom::fill(&mut key)
        .map_err(|e| Exit::failed(format!("the system gives no randomness: {e}")))?;
    Ok(encode_psk(&key))
}
