//! Which lines are shown.

use std::str::FromStr;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

use crate::exit::Exit;

/// The target of lines about single streams, which `--quiet` drops.
pub(super) const STREAMS: &str = "fulmar::stream";
/// The variable that sets levels: `debug`, or `info,fulmar_session=trace`.
pub(super) const LEVELS: &str = "FULMAR_LOG";

/// What is shown with `levels` of the environment; `quiet` leaves out the lines about single streams.
///
/// # Errors
/// When `levels` cannot be understood.
pub(super) fn filter(levels: Option<&str>, quiet: bool) -> Result<Targets, Exit> {
    let targets = match levels {
        None => Targets::new().with_default(LevelFilter::INFO),
        Some(text) => Targets::from_str(text).map_err(|e| {
            Exit::usage(format!(
                "environment, {LEVELS}: \"{text}\": {e}; write a level such as info or debug"
            ))
        })?,
    };
    Ok(match quiet {
        true => targets.with_target(STREAMS, LevelFilter::OFF),
        false => targets,
    })
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
        assert!(filter(Some("fulmar=loud"), false).is_err());
    }
}
