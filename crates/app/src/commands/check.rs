//! `fulmar check`: what is wrong in a configuration file, and what it comes to.

use std::path::Path;

use fulmar_config::{Environment, Failure, Side, from_file, report};

use crate::exit::{Exit, print, say};

/// Checks the file, more strictly than a start does.
pub(crate) fn check(
    file: &Path,
    role: Option<Side>,
    environment: &Environment,
) -> Result<(), Exit> {
    let (config, problems) = match from_file(file, role, environment) {
        Ok(loaded) => (Some(loaded.config), loaded.problems),
        Err(Failure { problems }) => (None, problems),
    };
    let mut refused = false;
    for problem in &problems {
        let fatal = problem.is_fatal(true);
        refused |= fatal;
        let severity = if fatal {
            fulmar_config::Severity::Error
        } else {
            problem.severity
        };
        say(severity, &problem.to_string());
    }
    if let Some(config) = config {
        let role = config.role.name();
        let lines = report::lines(&config).join("\n");
        let verdict = if refused {
            "would start, with the errors above"
        } else {
            "good"
        };
        print(&format!(
            "{}: a kcptun {role}'s configuration: {verdict}\n{lines}\n",
            file.display()
        ))?;
    }
    if refused { Err(Exit::Checked) } else { Ok(()) }
}
