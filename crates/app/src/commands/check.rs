//! `fulmar check`: what is wrong in a configuration file, and what it comes to.

use std::path::Path;

use fulmar_config::report::{self, Shown};
use fulmar_config::{
    AnyLoaded, Compat, Environment, Failure, Problem, Severity, Side, any_from_file, text,
};

use crate::exit::{Exit, print, word};

/// Most characters of a line.
const WIDTH: usize = 80;
/// Blanks before all lines of a problem but the first.
const INDENT: usize = 4;

/// Checks the file, more strictly than a start does. The file is named first, the verdict comes last. `all`: defaults are shown,
/// too.
pub(crate) fn check(
    file: &Path,
    role: Option<Side>,
    all: bool,
    environment: &Environment,
) -> Result<(), Exit> {
    let shown = Shown {
        defaults: all,
        file: Some(file),
    };
    let (loaded, problems) = match any_from_file(file, role, environment) {
        Ok(AnyLoaded::Kcptun(loaded)) => {
            let config = loaded.config;
            let program = match config.tunnel.compat {
                Compat::Current => "kcptun",
                Compat::First(_) => "kcptun-2016",
            };
            let whose = format!("{program} {}", config.role.name());
            let lines = report::lines_as(&config, &shown);
            (Some((whose, lines)), loaded.problems)
        }
        Ok(AnyLoaded::Libev(loaded)) => {
            let config = loaded.config;
            let whose = format!("kcptun-libev {}", config.role.name());
            let lines = report::libev_lines_as(&config, &shown);
            (Some((whose, lines)), loaded.problems)
        }
        Err(Failure { problems }) => (None, problems),
    };
    let mut lines = Vec::new();
    let named = text::path(file);
    let heading = match &loaded {
        Some((whose, _)) => format!("{named}: a {whose}'s configuration"),
        None => named,
    };
    lines.extend(text::wrap(&heading, WIDTH, INDENT));
    for problem in &problems {
        let line = format!("{}: {}", word(strictly(problem)), problem.within(file));
        lines.extend(text::wrap(&text::one_line(&line), WIDTH, INDENT));
    }
    if let Some((_, settings)) = &loaded {
        for line in settings {
            lines.extend(fitted(line));
        }
        if !all {
            lines.push("  (all others have their defaults, which --all shows)".into());
        }
    }
    let verdict = verdict(loaded.is_some(), &problems);
    lines.push(format!("verdict: {verdict}"));
    print(&format!("{}\n", lines.join("\n")))?;
    if problems.iter().any(|problem| problem.is_fatal(true)) {
        Err(Exit::Checked)
    } else {
        Ok(())
    }
}

/// How bad `problem` is in a check: what stops one is an error.
fn strictly(problem: &Problem) -> Severity {
    if problem.is_fatal(true) {
        Severity::Error
    } else {
        problem.severity
    }
}

fn verdict(starts: bool, problems: &[Problem]) -> String {
    let of = |severity| {
        let all = problems.iter().filter(|p| strictly(p) == severity);
        all.count() as u64
    };
    let (errors, warnings) = (of(Severity::Error), of(Severity::Warning));
    match (errors, warnings) {
        (0, 0) => "good".into(),
        (0, n) => format!("good, with {}", text::count(n, "warning")),
        (n, _) if starts => format!("would start, but has {}", text::count(n, "error")),
        (n, _) => format!("does not start: {}", text::count(n, "error")),
    }
}

/// A line of settings in pieces that fit: the value stays in its column, and where it came from in one piece.
fn fitted(line: &str) -> Vec<String> {
    const ORIGIN: &str = "  <- ";
    let column = value_column(line);
    if line.chars().count() <= WIDTH || !line.is_char_boundary(column) {
        return text::wrap(line, WIDTH, column);
    }
    let (name, rest) = line.split_at(column);
    let (value, origin) = rest.split_at(rest.rfind(ORIGIN).unwrap_or(rest.len()));
    let mut pieces = text::wrap(value, WIDTH - column, 0);
    if !origin.is_empty() {
        pieces.extend(text::wrap(origin.trim_start(), WIDTH - column, 0));
    }
    let pieces = pieces.iter().enumerate();
    let pieces = pieces.map(|(i, piece)| match i {
        0 => format!("{name}{piece}"),
        _ => format!("{:column$}{piece}", ""),
    });
    pieces.collect()
}

/// Where the value begins in a line of settings: behind the name and the blanks that follow it.
fn value_column(line: &str) -> usize {
    let name = line.trim_start();
    let indent = line.len() - name.len();
    let column = name.find("  ").map(|at| {
        let value = name[at..].trim_start();
        indent + name.len() - value.len()
    });
    column
        .filter(|column| *column < WIDTH / 2)
        .unwrap_or(INDENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_wrapped_stays_in_its_column() {
        assert_eq!(value_column("  mode         auto: x"), 15);
        assert_eq!(value_column("Addresses"), INDENT);
        let line = format!("  log          {}  <- line 3", "long/".repeat(20));
        let pieces = fitted(&line);
        assert!(pieces.iter().all(|piece| piece.chars().count() <= WIDTH));
        assert!(pieces[0].starts_with("  log          long/long/"));
        assert_eq!(
            pieces.last().map(String::as_str),
            Some("               <- line 3")
        );
    }
}
