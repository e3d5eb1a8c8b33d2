//! Which lines are shown.

use std::str::FromStr;

use fulmar_config::hint::nearest;
use fulmar_config::text::quoted;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

use crate::exit::Exit;

/// The target of lines about single streams, which `--quiet` drops.
pub(super) const STREAMS: &str = "fulmar::stream";
/// Whose lines can be chosen; further parts may follow the name of a crate.
const TARGETS: [&str; 4] = ["fulmar", "fulmar_runtime", STREAMS, "access"];
const LEVEL_NAMES: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
/// The variable that sets levels: `debug`, or `info,fulmar_runtime=trace`.
pub(super) const LEVELS: &str = "FULMAR_LOG";

/// What is shown with `levels` of the environment; `quiet` leaves out the lines about single streams.
///
/// # Errors
/// When `levels` cannot be understood.
pub(super) fn filter(levels: Option<&str>, quiet: bool) -> Result<Targets, Exit> {
    let targets = match levels {
        None | Some("") => Targets::new().with_default(LevelFilter::INFO),
        Some(text) => {
            let parts = text.split(',').map(str::trim);
            let parts: Vec<_> = parts.filter(|part| !part.is_empty()).collect();
            for part in &parts {
                check(part)?;
            }
            let refused = |e| format!("environment, {LEVELS}: {}: {e}", quoted(text));
            Targets::from_str(&parts.join(",")).map_err(|e| Exit::usage(refused(e)))?
        }
    };
    Ok(match quiet {
        true => targets.with_target(STREAMS, LevelFilter::OFF),
        false => targets,
    })
}

/// Refuses a part of the variable that names neither a level nor one of the [`TARGETS`]: it would be taken for the name of a
/// target that there is not, and nothing would be shown any more.
fn check(part: &str) -> Result<(), Exit> {
    let (target, level) = match part.split_once('=') {
        Some((target, level)) => (Some(target), Some(level)),
        None if LevelFilter::from_str(part).is_ok() => (None, Some(part)),
        None => (Some(part), None),
    };
    let wrong = |word: &str, what: &str, names: &[&str]| {
        let hint = match nearest(word, names.iter().copied()) {
            Some(meant) => format!("did you mean {meant}?"),
            None => format!("write one of {}", names.join(", ")),
        };
        let word = quoted(word);
        Err(Exit::usage(format!(
            "environment, {LEVELS}: {word} is no {what}; {hint}"
        )))
    };
    if let Some(target) = target {
        let first = target.split("::").next().unwrap_or_default();
        if !TARGETS.contains(&target) && !TARGETS.contains(&first) {
            return match level {
                None => wrong(target, "level", &LEVEL_NAMES),
                Some(_) => wrong(target, "part of the program that logs", &TARGETS),
            };
        }
    }
    match level.filter(|level| LevelFilter::from_str(level).is_err()) {
        Some(level) => wrong(level, "level", &LEVEL_NAMES),
        None => Ok(()),
    }
}

/// What a `loglevel` shows. Notice (4) and info (5) share a level here: notice leaves out the lines about single
/// streams.
pub(super) fn levels_of(level: u8) -> Targets {
    let all = Targets::new().with_default(match level {
        0 => LevelFilter::OFF,
        1 | 2 => LevelFilter::ERROR,
        3 => LevelFilter::WARN,
        4 | 5 => LevelFilter::INFO,
        6 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    });
    match level {
        4 => all.with_target(STREAMS, LevelFilter::WARN),
        _ => all,
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn levels_of_libevs_files() {
        use tracing::level_filters::LevelFilter as L;
        let most = |level| {
            let of = levels_of(level);
            [L::ERROR, L::WARN, L::INFO, L::DEBUG, L::TRACE]
                .into_iter()
                .filter(|l| {
                    l.into_level()
                        .is_some_and(|l| of.would_enable("fulmar", &l))
                })
                .count()
        };
        let all: Vec<_> = (0..=9).map(most).collect();
        assert_eq!(all, [0, 1, 1, 2, 3, 3, 4, 5, 5, 5]);
        assert!(!levels_of(4).would_enable(STREAMS, &Level::INFO));
        assert!(levels_of(4).would_enable(STREAMS, &Level::WARN));
        assert!(levels_of(5).would_enable(STREAMS, &Level::INFO));
    }

    #[test]
    fn levels_that_mean_nothing_are_refused() {
        for (levels, said) in [
            (
                "verbose",
                "\"verbose\" is no level; write one of off, error, warn, info, debug, trace",
            ),
            ("inof", "\"inof\" is no level; did you mean info?"),
            (
                "fulmar=loud",
                "\"loud\" is no level; write one of off, error, warn, info, debug, trace",
            ),
            (
                "info,fulmar_runtme=debug",
                "\"fulmar_runtme\" is no part of the program that logs; did you mean fulmar_runtime?",
            ),
        ] {
            match filter(Some(levels), false) {
                Err(Exit::Usage(text)) => {
                    assert_eq!(text, format!("environment, FULMAR_LOG: {said}"));
                }
                other => panic!("{levels}: {other:?}"),
            }
        }
    }

    #[test]
    fn levels_that_are_understood() {
        for levels in [
            "debug",
            "INFO",
            "off",
            "info,fulmar_runtime=trace",
            "warn, access=info",
            "fulmar::stream=info",
            "fulmar_runtime::driver=debug",
            "fulmar_runtime",
            "",
        ] {
            assert!(filter(Some(levels), false).is_ok(), "{levels}");
        }
    }
}
