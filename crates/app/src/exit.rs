//! How the program ends: 0 well, 1 something failed at run time, 2 a mistake in the command line or configuration.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use fulmar_config::{Failure, Severity, text};
use tracing::Level;

use crate::logging;

/// Why the program ends other than well.
#[derive(Debug)]
pub(crate) enum Exit {
    /// A configuration that cannot be used.
    Config(Failure),
    /// A configuration that a check refuses; what is wrong was said already.
    Checked,
    /// A wrong use of a command.
    Usage(String),
    /// What clap says about a command line; help and version are among it.
    Clap(Box<clap::Error>),
    /// Something failed at run time.
    Failed(String),
}

impl Exit {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    /// Says why on standard error, and gives the code.
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Self::Config(failure) => {
                for problem in &failure.problems {
                    if problem.severity >= Severity::Mistake {
                        say(problem.severity, &problem.to_string());
                    }
                }
                ExitCode::from(2)
            }
            Self::Checked => ExitCode::from(2),
            Self::Usage(message) => {
                say(Severity::Error, &message);
                ExitCode::from(2)
            }
            Self::Clap(e) => {
                if !e.use_stderr() {
                    // A closed pipe is nobody's mistake.
                    let _ = e.print();
                } else if is_bare_word(&e) {
                    // It may be anything, also a key.
                    say(
                        Severity::Error,
                        "one argument is neither a flag nor a flag's value; --help shows what there is",
                    );
                } else {
                    let lines = e.render().to_string();
                    let lines: Vec<_> = lines.lines().map(text::one_line).collect();
                    note(&format!("{}\n", lines.join("\n")));
                }
                ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(2))
            }
            Self::Failed(message) => {
                say(Severity::Error, &message);
                ExitCode::FAILURE
            }
        }
    }
}

/// Whether clap does not know what to do with an argument that has no hyphen.
fn is_bare_word(error: &clap::Error) -> bool {
    let word = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(word)) => word,
        _ => return false,
    };
    error.kind() == ErrorKind::UnknownArgument && !word.starts_with('-')
}

impl From<Failure> for Exit {
    fn from(failure: Failure) -> Self {
        Self::Config(failure)
    }
}

/// How a problem is called.
pub(crate) const fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Mistake | Severity::Warning => "warning",
        Severity::Note => "note",
    }
}

/// One line on standard error.
pub(crate) fn say(severity: Severity, message: &str) {
    let word = word(severity);
    let level = match severity {
        Severity::Error => Level::ERROR,
        Severity::Mistake | Severity::Warning => Level::WARN,
        Severity::Note => Level::INFO,
    };
    logging::stderr(level, &format!("{word}: {}", text::one_line(message)));
}

/// Writes to standard error as it is: what was asked for and is no problem.
pub(crate) fn note(text: &str) {
    // There is nowhere else to say that this failed.
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Writes to standard output; a reader that went away is no failure.
pub(crate) fn print(text: &str) -> Result<(), Exit> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Exit::failed(format!(
            "cannot write to standard output: {e}"
        ))),
        _ => Ok(()),
    }
}
