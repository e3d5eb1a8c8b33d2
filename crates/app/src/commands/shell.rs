//! `fulmar completions`, `fulmar man`, `fulmar version`.

use std::path::PathBuf;

use clap::ArgMatches;
use clap_complete::Shell;
use clap_mangen::Man;
use fulmar_config::hint::nearest;

use crate::cli;
use crate::exit::{Exit, print};
use crate::persona::{FULMAR, Persona};

/// A completion script.
pub(crate) fn completions(matches: &ArgMatches) -> Result<(), Exit> {
    let Some(shell) = matches.get_one::<Shell>("shell") else {
        return Err(Exit::usage("completions: no shell is given"));
    };
    let mut script = Vec::new();
    clap_complete::generate(*shell, &mut cli::program(), FULMAR, &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// One manual page on standard output, or all into `dir`.
pub(crate) fn man(command: Option<&str>, dir: Option<&PathBuf>) -> Result<(), Exit> {
    let mut program = cli::program().disable_help_subcommand(true);
    program.build();
    if let Some(dir) = dir {
        return clap_mangen::generate_to(program, dir).map_err(|e| {
            Exit::failed(format!(
                "cannot write manual pages into {}: {e}",
                dir.display()
            ))
        });
    }
    let page = match command {
        None => program,
        Some(name) => match program.find_subcommand(name) {
            Some(command) => command.clone(),
            None => {
                let names: Vec<&str> = program
                    .get_subcommands()
                    .map(clap::Command::get_name)
                    .collect();
                let hint = match nearest(name, names.iter().copied()) {
                    Some(meant) => format!("did you mean {meant}?"),
                    None => format!("write one of {}", names.join(", ")),
                };
                return Err(Exit::usage(format!(
                    "man: there is no command \"{name}\"; {hint}"
                )));
            }
        },
    };
    let mut text = Vec::new();
    Man::new(page)
        .render(&mut text)
        .map_err(|e| Exit::failed(format!("cannot make the manual page: {e}")))?;
    print(&String::from_utf8_lossy(&text))
}

/// The version, in the words of the program that was called.
pub(crate) fn version(persona: Persona) -> Result<(), Exit> {
    print(&format!("{}\n", persona.version()))
}
