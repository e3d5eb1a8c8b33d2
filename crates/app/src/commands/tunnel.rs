//! `fulmar client`, `fulmar server`, `fulmar run`, and the same under a replaced program's name.

use std::ffi::OsString;
use std::path::Path;

use fulmar_config::{
    AnyLoaded, Environment, Invocation, Loaded, Severity, Side, any_from_file, from_args, report,
};

use crate::exit::Exit;
use crate::persona::Persona;
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
    match from_args(side, args, environment)? {
        Invocation::Help(compat) => {
            let name = match persona {
                Persona::Fulmar | Persona::KcptunLibev => format!("fulmar {}", side.name()),
                Persona::Kcptun(_) => format!("kcptun-{}", side.name()),
            };
            // A closed pipe is nobody's mistake.
            let _ = cli::tunnel(side, compat).bin_name(name).print_help();
            Ok(())
        }
        Invocation::Version => super::version(persona),
        Invocation::Run(loaded) => start(*loaded),
    }
}

/// A configuration file, of kcptun or of kcptun-libev.
pub(crate) fn run(file: &Path, role: Option<Side>, environment: &Environment) -> Result<(), Exit> {
    match any_from_file(file, role, environment)? {
        AnyLoaded::Kcptun(loaded) => start(*loaded),
        AnyLoaded::Libev(loaded) => super::libev::start(file, *loaded),
    }
}

fn start(loaded: Loaded) -> Result<(), Exit> {
    let Loaded { config, problems } = loaded;
    logging::start(&config.log)?;
    let to_file = config.log.file.is_some();
    tracing::info!("{} {}", Persona::Fulmar.version(), config.role.name());
    for line in report::lines(&config) {
        tracing::info!("{line}");
    }
    for problem in problems
        .iter()
        .filter(|problem| problem.severity > Severity::Note)
    {
        tracing::warn!("{problem}");
    }
    let result = launch::tunnel(config);
    result.map_err(|e| {
        if to_file {
            // Where its reader looks for it; standard error gets it anyway.
            tracing::error!("{e}");
        }
        Exit::failed(e.to_string())
    })
}
