//! `fulmar completions`, `fulmar version`.

use clap::ArgMatches;
use clap_complete::Shell;

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

/// The version, in the words of the program that was called.
pub(crate) fn version(persona: Persona) -> Result<(), Exit> {
    print(&format!("{}\n", persona.version()))
}
