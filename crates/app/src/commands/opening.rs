//! The block that the log begins with.

use fulmar_config::{Problem, Severity, text};
use tracing::{debug, info, warn};

use crate::persona::Persona;

/// Most lines of the block, unless everything is asked for.
const MOST_LINES: usize = 10;

/// What is known about a configuration that is about to run.
pub(crate) struct Opening<'a> {
    /// Which end this is.
    pub(crate) role: &'a str,
    /// What matters, in few lines.
    pub(crate) brief: Vec<String>,
    /// Every setting.
    pub(crate) all: Vec<String>,
    /// What is odd about it, worst first.
    pub(crate) problems: &'a [Problem],
    /// Whether everything is asked for.
    pub(crate) verbose: bool,
}

impl Opening<'_> {
    /// Logs it.
    pub(crate) fn log(&self) {
        info!("{} {}", Persona::Fulmar.version(), self.role);
        if self.verbose {
            for line in &self.all {
                info!("{line}");
            }
            tell(self.problems);
            for note in self
                .problems
                .iter()
                .filter(|p| p.severity == Severity::Note)
            {
                info!("{note}");
            }
            return;
        }
        for line in &self.brief {
            info!("{line}");
        }
        for line in &self.all {
            debug!("{line}");
        }
        let warnings: Vec<_> = self.problems.iter().filter(|p| is_told(p)).collect();
        let room = MOST_LINES.saturating_sub(1 + self.brief.len()).max(2);
        let shown = match warnings.len() {
            n if n <= room => n,
            _ => room - 1,
        };
        for problem in &warnings[..shown] {
            warn!("{problem}");
        }
        let more = warnings.len() - shown;
        if more > 0 {
            let more = text::count(more as u64, "more warning");
            warn!("{more}: --verbose, or fulmar check -c FILE, shows them");
        }
    }
}

/// Logs all that is odd, without notes.
pub(crate) fn tell(problems: &[Problem]) {
    for problem in problems.iter().filter(|p| is_told(p)) {
        warn!("{problem}");
    }
}

fn is_told(problem: &Problem) -> bool {
    problem.severity > Severity::Note
}
