//! Log lines, `YYYY/MM/DD HH:MM:SS LEVEL message` in local time as kcptun's plus the level, to standard error or
//! to a file; for kcptun-libev's files to the sinks that those name, which can change while the program runs.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use fulmar_config::{Log, gotime, localtime};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use crate::exit::Exit;
#[cfg(unix)]
use crate::process::syslog::Syslog;

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
    let place = Place { file: file.clone() };
    let layer = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .event_format(Lines)
        .with_writer(place);
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
struct Place {
    file: Option<LogFile>,
}

impl<'a> MakeWriter<'a> for Place {
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
        let text = message(ctx, event)?;
        let now = timestamp();
        writeln!(writer, "{now} {} {text}", event.metadata().level())
    }
}

fn timestamp() -> String {
    gotime::format("2006/01/02 15:04:05", &localtime::now())
}

/// What an event says, on one line.
fn message<S, N>(ctx: &FmtContext<'_, S, N>, event: &Event<'_>) -> Result<String, fmt::Error>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    let mut text = String::new();
    ctx.format_fields(Writer::new(&mut text), event)?;
    // Names from elsewhere must not forge lines.
    if text.contains(char::is_control) {
        text = text.replace(char::is_control, "\u{fffd}");
    }
    Ok(text)
}

/// The name that the system's log knows the program by in kcptun-libev's place.
#[cfg(unix)]
const IDENT: &str = "kcptun-libev";

/// Where lines go: the values of kcptun-libev's key `log`.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sink {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Standard error, with colours.
    Terminal,
    /// The system's log; nowhere on systems without.
    Syslog,
    /// Nowhere.
    Discard,
}

/// The way to change what [`start_libev`] began.
struct Control {
    levels: reload::Handle<Targets, Registry>,
    output: Output,
}

static CONTROL: OnceLock<Control> = OnceLock::new();

/// Starts logging for kcptun-libev's files: `level` 0 to 8 as their `loglevel` (docs/spec/kcptun-libev.md, section 3.2), greater ones are 8.
/// [`change`] changes both later.
pub(crate) fn start_libev(level: u8, sink: Sink) -> Result<(), Exit> {
    let output = Output::new(sink);
    let (filter, levels) = reload::Layer::new(levels_of(level));
    tracing_subscriber::registry()
        .with(libev_layer(filter, output.clone()))
        .try_init()
        .map_err(|e| Exit::failed(format!("logging cannot be started: {e}")))?;
    // Logging starts once, or the line above failed.
    let _ = CONTROL.set(Control { levels, output });
    Ok(())
}

/// Changes what [`start_libev`] began, as after a reload of the configuration.
///
/// # Errors
/// When nothing was begun.
pub(crate) fn change(level: u8, sink: Sink) -> Result<(), String> {
    let control = CONTROL.get().ok_or("logging was not started")?;
    control.output.change(sink);
    control
        .levels
        .reload(levels_of(level))
        .map_err(|e| format!("the log's level cannot be changed: {e}"))
}

fn libev_layer(
    filter: reload::Layer<Targets, Registry>,
    output: Output,
) -> impl Layer<Registry> + Send + Sync {
    tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .event_format(SinkLines(output.clone()))
        .with_writer(output)
        .with_filter(filter)
}

/// What a `loglevel` shows. Notice (4) and info (5) share a level here: notice leaves out the lines about single
/// streams.
fn levels_of(level: u8) -> Targets {
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

/// The sink in use, shared by all who write.
#[derive(Clone, Debug)]
struct Output(Arc<Mutex<Open>>);

#[derive(Debug)]
struct Open {
    sink: Sink,
    #[cfg(unix)]
    syslog: Syslog,
}

impl Output {
    fn new(sink: Sink) -> Self {
        Self(Arc::new(Mutex::new(Open {
            sink,
            #[cfg(unix)]
            syslog: Syslog::new(IDENT),
        })))
    }

    fn change(&self, sink: Sink) {
        self.open().sink = sink;
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> MakeWriter<'a> for Output {
    type Writer = SinkWriter<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        SinkWriter {
            output: self,
            level: Level::INFO,
        }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Self::Writer {
        SinkWriter {
            output: self,
            level: *meta.level(),
        }
    }
}

/// Takes one line in one call. A sink that fails loses the line: there is nowhere else to say so.
struct SinkWriter<'a> {
    output: &'a Output,
    level: Level,
}

impl Write for SinkWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // The lock also keeps lines apart.
        let mut open = self.output.open();
        let _ = match open.sink {
            Sink::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(line).and_then(|()| out.flush())
            }
            Sink::Stderr | Sink::Terminal => io::stderr().write_all(line),
            Sink::Syslog => {
                open.syslog(self.level, line);
                Ok(())
            }
            Sink::Discard => Ok(()),
        };
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Open {
    #[cfg(unix)]
    fn syslog(&mut self, level: Level, line: &[u8]) {
        self.syslog.send(level, &String::from_utf8_lossy(line));
    }

    #[cfg(not(unix))]
    fn syslog(&mut self, _level: Level, _line: &[u8]) {}
}

/// The format of a line for the sink in use: the system's log has its own time and level.
struct SinkLines(Output);

impl<S, N> FormatEvent<S, N> for SinkLines
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
        let sink = self.0.open().sink;
        let level = *event.metadata().level();
        let text = message(ctx, event)?;
        match sink {
            Sink::Syslog => writeln!(writer, "{text}"),
            Sink::Terminal => {
                let (colour, now) = (colour(level), timestamp());
                writeln!(writer, "\x1b[{colour}m{now} {level} {text}\x1b[0m")
            }
            Sink::Stdout | Sink::Stderr | Sink::Discard => {
                writeln!(writer, "{} {level} {text}", timestamp())
            }
        }
    }
}

/// The number of a terminal's colour.
fn colour(level: Level) -> u8 {
    match level {
        Level::ERROR => 91,
        Level::WARN => 93,
        Level::INFO => 92,
        Level::DEBUG => 96,
        Level::TRACE => 37,
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
            .with_writer(Place { file: Some(file) });
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

    /// What is written to the system's log, and how a line looks elsewhere.
    #[test]
    fn a_sink_changes_while_lines_are_written() {
        let written = Arc::new(Mutex::new(Vec::new()));
        /// Keeps lines as they are formatted.
        #[derive(Clone)]
        struct Keep(Arc<Mutex<Vec<u8>>>);
        impl Write for Keep {
            fn write(&mut self, line: &[u8]) -> io::Result<usize> {
                self.0.lock().expect("lock").extend_from_slice(line);
                Ok(line.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (output, keep) = (Output::new(Sink::Syslog), Keep(Arc::clone(&written)));
        let (filter, levels) = reload::Layer::new(levels_of(3));
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .event_format(SinkLines(output.clone()))
            .with_writer(move || keep.clone())
            .with_filter(filter);
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            warn!("one\nmore");
            info!("hidden");
            levels.reload(levels_of(5)).expect("reload");
            output.change(Sink::Terminal);
            info!("two");
            output.change(Sink::Stdout);
            info!("three");
        });
        let text = String::from_utf8(written.lock().expect("lock").clone()).expect("text");
        let lines: Vec<_> = text.lines().collect();
        let [one, two, three] = lines[..] else {
            panic!("{lines:?}");
        };
        assert_eq!(one, "one\u{fffd}more");
        assert!(
            two.starts_with("\x1b[92m2") && two.ends_with(" INFO two\x1b[0m"),
            "{two}"
        );
        assert!(
            three.starts_with('2') && three.ends_with(" INFO three"),
            "{three}"
        );
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
