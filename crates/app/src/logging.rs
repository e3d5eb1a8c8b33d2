//! Log lines, `YYYY/MM/DD HH:MM:SS LEVEL message` in local time as kcptun's plus the level, to standard error or
//! to a file.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use fulmar_config::{Log, gotime, localtime};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::exit::Exit;

/// The target of lines about single streams, which `--quiet` drops.
const STREAMS: &str = "fulmar::stream";
/// The variable that sets levels: `debug`, or `info,fulmar_session=trace`.
const LEVELS: &str = "FULMAR_LOG";

/// Starts logging; returns the file if there is one.
pub(crate) fn start(log: &Log) -> Result<Option<LogFile>, Exit> {
    let levels = filter(std::env::var(LEVELS).ok().as_deref(), log.quiet)?;
    let file = match &log.file {
        None => None,
        Some(path) => Some(LogFile::open(path).map_err(|e| {
            Exit::usage(format!(
                "the log file {} cannot be opened: {e}; give a file that can be written",
                path.display()
            ))
        })?),
    };
    let sink = Sink { file: file.clone() };
    let layer = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .event_format(Lines)
        .with_writer(sink);
    tracing_subscriber::registry()
        .with(levels)
        .with(layer)
        .try_init()
        .map_err(|e| Exit::failed(format!("logging cannot be started: {e}")))?;
    Ok(file)
}

fn filter(levels: Option<&str>, quiet: bool) -> Result<Targets, Exit> {
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

/// A log file that can be opened anew while it is written to.
// Only systems with SIGHUP open it anew.
#[cfg_attr(not(unix), allow(dead_code))]
#[derive(Clone, Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: Arc<Mutex<File>>,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            file: Arc::new(Mutex::new(append(path)?)),
        })
    }

    /// Opens the path again; without success the old file stays.
    #[cfg_attr(not(unix), allow(dead_code))]
    pub(crate) fn reopen(&self) -> io::Result<()> {
        let file = append(&self.path)?;
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// Where lines go.
struct Sink {
    file: Option<LogFile>,
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        Line(self.file.as_ref())
    }
}

/// Takes one line in one call.
struct Line<'a>(Option<&'a LogFile>);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.0 {
            Some(file) => file
                .file
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .write(line),
            None => io::stderr().write(line),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The format of a line.
struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = String::new();
        ctx.format_fields(Writer::new(&mut text), event)?;
        let now = gotime::format("2006/01/02 15:04:05", &localtime::now());
        write!(writer, "{now} {} ", event.metadata().level())?;
        // Names from elsewhere must not forge lines.
        for c in text.chars() {
            writer.write_char(if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            })?;
        }
        writeln!(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::{debug, info, warn};

    /// The lines that `speak` logs.
    fn lines(levels: Option<&str>, quiet: bool, speak: impl FnOnce()) -> Vec<String> {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("log");
        let file = LogFile::open(&path).expect("open");
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .event_format(Lines)
            .with_writer(Sink { file: Some(file) });
        let subscriber = tracing_subscriber::registry()
            .with(filter(levels, quiet).expect("levels"))
            .with(layer);
        tracing::subscriber::with_default(subscriber, speak);
        let text = std::fs::read_to_string(&path).expect("read");
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_line_has_time_level_and_message() {
        let lines = lines(None, false, || warn!(port = 5, "a\nb {}", "c"));
        let [line] = &lines[..] else {
            panic!("{lines:?}");
        };
        let (time, rest) = line.split_at(20);
        assert_eq!(rest, "WARN a\u{fffd}b c port=5");
        let shape: String = time
            .chars()
            .map(|c| if c.is_ascii_digit() { '9' } else { c })
            .collect();
        assert_eq!(shape, "9999/99/99 99:99:99 ");
    }

    #[test]
    fn what_is_logged() {
        let speak = || {
            info!("plain");
            info!(target: STREAMS, "stream");
            debug!("detail");
        };
        let words = |levels, quiet| -> Vec<String> {
            let lines = lines(levels, quiet, speak);
            lines
                .iter()
                .map(|line| line.rsplit(' ').next().unwrap_or_default().to_owned())
                .collect()
        };
        assert_eq!(words(None, false), ["plain", "stream"]);
        assert_eq!(words(None, true), ["plain"]);
        assert_eq!(words(Some("debug"), true), ["plain", "detail"]);
        assert_eq!(words(Some("fulmar::stream=info"), false), ["stream"]);
        assert!(filter(Some("fulmar=loud"), false).is_err());
    }

    #[test]
    fn a_rotated_file_is_opened_anew() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("log");
        let file = LogFile::open(&path).expect("open");
        let write = |text: &str| Line(Some(&file)).write_all(text.as_bytes()).expect("write");
        write("1");
        let old = dir.path().join("old");
        std::fs::rename(&path, &old).expect("rename");
        write("2");
        file.reopen().expect("reopen");
        write("3");
        assert_eq!(std::fs::read_to_string(&old).expect("old"), "12");
        assert_eq!(std::fs::read_to_string(&path).expect("new"), "3");
    }
}
