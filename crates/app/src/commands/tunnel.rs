//! `fulmar client`, `fulmar server`, `fulmar run`, and the same under a replaced program's name.

use std::ffi::OsString;
use std::path::Path;

use fulmar_config::{
    AnyLoaded, Environment, Failure, Invocation, Loaded, Severity, Side, any_from_file, from_args,
    report, side_of, text,
};

use crate::commands::opening::{Opening, tell};
use crate::exit::{Exit, print};
use crate::persona::Persona;
use crate::process::dumpable;
use crate::{cli, launch, logging};

/// kcptun's command line.
pub(crate) fn tunnel(
    side: Side,
    persona: Persona,
    args: &[OsString],
    environment: &Environment,
) -> Result<(), Exit> {
    // Where the system does not allow it the key stays visible, as the help says.
    #[cfg(target_os = "linux")]
    let _ = crate::process::command_line::hide_keys();
    // After that, which it would not permit.
    dumpable::forbid()?;
    match from_args(side, args, environment)? {
        Invocation::Help(compat) => {
            let name = match persona {
                Persona::Fulmar | Persona::KcptunLibev => format!("fulmar {}", side.name()),
                Persona::Kcptun(_) => format!("kcptun-{}", side.name()),
                Persona::KcptunEither => "kcptun".into(),
            };
            // A closed pipe is nobody's mistake.
            let _ = cli::tunnel(side, compat).bin_name(name).print_help();
            Ok(())
        }
        Invocation::Version => super::version(persona),
        Invocation::Run(loaded) => {
            let (args, environment) = (args.to_vec(), environment.clone());
            start(*loaded, persona, false, move || {
                match from_args(side, &args, &environment) {
                    Ok(Invocation::Run(loaded)) => Ok(*loaded),
                    // The same arguments ask for the same.
                    Ok(_) => Err("the command line asks for help".into()),
                    Err(failure) => Err(mistakes(&failure)),
                }
            })
        }
    }
}

/// The same under a name that does not tell whether it is the client's or the server's.
pub(crate) fn kcptun(args: &[OsString], environment: &Environment) -> Result<(), Exit> {
    let persona = Persona::KcptunEither;
    if let Some(side) = side_of(args, environment)? {
        return tunnel(side, persona, args, environment);
    }
    match from_args(Side::Client, args, environment)? {
        Invocation::Version => super::version(persona),
        // Nothing else is asked for.
        Invocation::Help(_) | Invocation::Run(_) => print(EITHER),
    }
}

/// The help where nothing tells whether a client or a server is meant.
const EITHER: &str = "\
kcptun's client or its server: its flags, or its file, tell which.

Usage: kcptun -r HOST:PORT [OPTIONS]    the client
       kcptun -t HOST:PORT [OPTIONS]    the server
       kcptun -c FILE                   what the file is for

kcptun -r x -h and kcptun -t x -h show the options.
";

/// A configuration file, of kcptun or of kcptun-libev. `verbose`: everything about it is logged at start.
pub(crate) fn run(
    file: &Path,
    role: Option<Side>,
    verbose: bool,
    environment: &Environment,
) -> Result<(), Exit> {
    match any_from_file(file, role, environment)? {
        AnyLoaded::Kcptun(loaded) => {
            let (file, environment) = (file.to_owned(), environment.clone());
            start(
                *loaded,
                Persona::Fulmar,
                verbose,
                move || match any_from_file(&file, role, &environment) {
                    Ok(AnyLoaded::Kcptun(loaded)) => Ok(*loaded),
                    Ok(AnyLoaded::Libev(_)) => Err(format!(
                        "{} is kcptun-libev's now, and this is a kcptun tunnel: start it anew",
                        text::path(&file)
                    )),
                    Err(failure) => Err(mistakes(&failure)),
                },
            )
        }
        AnyLoaded::Libev(loaded) => super::libev::start(file, *loaded, verbose),
    }
}

/// Why a configuration cannot be taken, on one line.
pub(super) fn mistakes(failure: &Failure) -> String {
    let all = failure.problems.iter();
    let mistakes = all.filter(|problem| problem.severity > Severity::Warning);
    let mistakes: Vec<_> = mistakes.map(ToString::to_string).collect();
    mistakes.join("; ")
}

/// Runs what was loaded; `again` loads it again. `verbose`: everything about it is logged at start.
fn start(
    loaded: Loaded,
    persona: Persona,
    verbose: bool,
    again: impl Fn() -> Result<Loaded, String> + Send + 'static,
) -> Result<(), Exit> {
    let Loaded { config, problems } = loaded;
    logging::start(&config.log)?;
    let to_file = config.log.file.is_some();
    let opening = Opening {
        role: config.role.name(),
        brief: report::brief(&config),
        all: report::lines(&config),
        problems: &problems,
        verbose: verbose || config.log.verbose,
    };
    opening.log();
    let reload = move || {
        let Loaded { config, problems } = again()?;
        logging::change_quiet(config.log.quiet)?;
        tell(&problems);
        Ok(config)
    };
    let result = launch::tunnel(config, persona.listening(), reload);
    result.map_err(|e| {
        if to_file {
            // Where its reader looks for it; standard error gets it anyway.
            tracing::error!("{e}");
        }
        Exit::failed(e.to_string())
    })
}
