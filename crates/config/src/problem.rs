//! What is wrong with a configuration, where, and what to write instead.

use core::fmt;
use std::path::{Path, PathBuf};

use crate::origin::Origin;
use crate::text;

/// How bad a [`Problem`] is.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// Worth knowing; only `fulmar check` shows it.
    Note,
    /// Shown at start.
    Warning,
    /// Shown at start; `fulmar check` refuses it.
    Mistake,
    /// Nothing is started.
    Error,
}

/// Where a problem is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// At one value.
    Value(Origin),
    /// At the default of an option (its long flag), which nobody gave.
    NotGiven(&'static str),
    /// On the command line as a whole.
    CommandLine,
    /// In the environment.
    Environment,
    /// In a file, at a line and column (both from 1) if known.
    File {
        /// The file as given.
        path: PathBuf,
        /// Line and column.
        at: Option<(u32, u32)>,
    },
}

impl Place {
    /// The place where the file at `file` has been named already; `None` for that file as a whole.
    fn within(&self, file: &Path) -> Option<String> {
        match self {
            Self::File { path, at } if path == file => {
                at.map(|(line, column)| format!("{line}:{column}"))
            }
            Self::Value(Origin::Json {
                file: path,
                key,
                line,
                column,
            }) if path == file => Some(format!("{line}:{column}, \"{key}\"")),
            other => Some(other.to_string()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(origin) => origin.fmt(f),
            Self::NotGiven(flag) => write!(f, "--{flag} is not given"),
            Self::CommandLine => f.write_str("command line"),
            Self::Environment => f.write_str("environment"),
            Self::File { path, at: None } => f.write_str(&text::path(path)),
            Self::File {
                path,
                at: Some((line, column)),
            } => write!(f, "{}:{line}:{column}", text::path(path)),
        }
    }
}

/// One thing that is wrong. It never shows the key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// Where it is.
    pub place: Place,
    /// What is wrong, with the value.
    pub message: String,
    /// What to write or do instead.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem without a hint.
    #[must_use]
    pub fn new(severity: Severity, place: Place, message: impl Into<String>) -> Self {
        Self {
            severity,
            place,
            message: message.into(),
            hint: None,
        }
    }

    /// An error.
    #[must_use]
    pub fn error(place: Place, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, place, message)
    }

    /// The same with what to write or do instead.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Whether this stops a start (`strict` false) or a check (`strict` true).
    #[must_use]
    pub fn is_fatal(&self, strict: bool) -> bool {
        self.severity
            >= if strict {
                Severity::Mistake
            } else {
                Severity::Error
            }
    }
}

impl Problem {
    /// As it is displayed, where the file at `file` has been named already.
    #[must_use]
    pub fn within(&self, file: &Path) -> String {
        let place = self.place.within(file);
        let place = place.map_or(String::new(), |place| format!("{place}: "));
        match &self.hint {
            Some(hint) => format!("{place}{}; {hint}", self.message),
            None => format!("{place}{}", self.message),
        }
    }
}

/// `place: message; hint`, on one line, without the severity.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// A configuration that cannot be used: at least one problem is an error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// All that was found, also what is no error.
    pub problems: Vec<Problem>,
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self {
            problems: vec![problem],
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors = self
            .problems
            .iter()
            .filter(|p| p.severity == Severity::Error);
        for (i, problem) in errors.enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl core::error::Error for Failure {}
