//! `fulmar check`: what is wrong in a configuration file, and what it comes to.

use std::path::Path;

use fulmar_config::{AnyLoaded, Compat, Environment, Failure, Side, any_from_file, report};

use crate::exit::{Exit, print, say};

/// Checks the file, more strictly than a start does.
pub(crate) fn check(
    file: &Path,
    role: Option<Side>,
    environment: &Environment,
) -> Result<(), Exit> {
    let (loaded, problems) = match any_from_file(file, role, environment) {
        Ok(AnyLoaded::Kcptun(loaded)) => {
            let config = loaded.config;
            let program = match config.tunnel.compat {
                Compat::Current => "kcptun",
                Compat::First(_) => "kcptun-2016",
            };
            let whose = format!("{program} {}", config.role.name());
            (Some((whose, report::lines(&config))), loaded.problems)
        }
        Ok(AnyLoaded::Libev(loaded)) => {
            let config = loaded.config;
            let whose = format!("kcptun-libev {}", config.role.name());
            (Some((whose, report::libev_lines(&config))), loaded.problems)
        }
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
    if let Some((whose, lines)) = loaded {
        let lines = lines.join("\n");
        let verdict = if refused {
            "would start, with the errors above"
        } else {
            "good"
        };
        print(&format!(
            "{}: a {whose}'s configuration: {verdict}\n{lines}\n",
            file.display()
        ))?;
    }
    if refused { Err(Exit::Checked) } else { Ok(()) }
}
