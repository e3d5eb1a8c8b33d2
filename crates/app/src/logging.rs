//! The log: to standard error or to a file; for kcptun-libev's files to the sinks that those name, which can change while the
//! program runs.
//!
//! Whoever logs formats a line and queues it; one thread writes ([`queue`]), so that no terminal, pipe or disk holds up a tunnel.
//!
//! | module | what |
//! |---|---|
//! | `levels` | which lines are shown |
//! | `limit` | and how many of those that somebody outside can cause |
//! | `format` | what a line looks like |
//! | `queue` | lines on their way, and the thread that writes them |
//! | `outlets` | what is written to |

mod format;
mod levels;
mod limit;
mod outlets;
mod queue;

use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use fulmar_config::text;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use crate::exit::Exit;
use crate::persona;
use format::{Lines, Style};
use limit::Limit;
use outlets::{Journal, LogFile, Standard, write_all};
use queue::{Output, Queue};

/// How long the end of the program waits for a log that is written to slowly.
const FLUSH: Duration = Duration::from_secs(1);

/// Where lines go.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sink {
    /// The log file.
    File,
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

impl Sink {
    fn output(self) -> Option<Output> {
        match self {
            Self::File => Some(Output::File),
            Self::Stdout => Some(Output::Stdout),
            Self::Stderr | Self::Terminal => Some(Output::Stderr),
            Self::Syslog => Some(Output::Syslog),
            Self::Discard => None,
        }
    }
}

/// The log that is written, and the way to change it.
struct Control {
    levels: reload::Handle<Targets, Registry>,
    log: Log,
}

static CONTROL: OnceLock<Control> = OnceLock::new();

/// Starts logging as kcptun's options say, to standard error or to a file.
///
/// To be called when the process will fork no more: a thread does the writing.
pub(crate) fn start(log: &fulmar_config::Log) -> Result<(), Exit> {
    let levels = environment_levels(log.quiet)?;
    match &log.file {
        None => install(levels, Sink::Stderr, None),
        Some(path) => {
            let file = LogFile::open(path).map_err(|e| {
                Exit::usage(format!(
                    "the log file {} cannot be opened: {e}; give a file that can be written",
                    text::path(path)
                ))
            })?;
            install(levels, Sink::File, Some(file))
        }
    }
}

fn environment_levels(quiet: bool) -> Result<Targets, Exit> {
    levels::filter(std::env::var(levels::LEVELS).ok().as_deref(), quiet)
}

/// Starts logging for kcptun-libev's files: `level` 0 to 8 as their `loglevel` (docs/spec/kcptun-libev.md, section 3.2), greater ones are 8.
/// [`change`] changes both later.
pub(crate) fn start_libev(level: u8, sink: Sink) -> Result<(), Exit> {
    install(levels::levels_of(level), sink, None)
}

fn install(levels: Targets, sink: Sink, file: Option<LogFile>) -> Result<(), Exit> {
    let failed =
        |e: &dyn std::fmt::Display| Exit::failed(format!("logging cannot be started: {e}"));
    let limit = Limit::of_environment()?;
    let log = Log::start(sink, file, limit).map_err(|e| failed(&e))?;
    let (filter, levels) = reload::Layer::new(levels);
    tracing_subscriber::registry()
        .with(log.layer().with_filter(filter))
        .try_init()
        .map_err(|e| failed(&e))?;
    // Logging starts once, or the line above failed.
    let _ = CONTROL.set(Control { levels, log });
    Ok(())
}

/// Changes what [`start_libev`] began, as after a reload of the configuration.
///
/// # Errors
/// When nothing was begun.
pub(crate) fn change(level: u8, sink: Sink) -> Result<(), String> {
    let control = CONTROL.get().ok_or("logging was not started")?;
    control.log.change(sink);
    control.show(levels::levels_of(level))
}

/// Changes what [`start`] began, as after a reload of the configuration.
///
/// # Errors
/// When nothing was begun.
pub(crate) fn change_quiet(quiet: bool) -> Result<(), String> {
    let control = CONTROL.get().ok_or("logging was not started")?;
    // The environment is as it was, and has been understood.
    match environment_levels(quiet) {
        Ok(levels) => control.show(levels),
        Err(_) => Ok(()),
    }
}

impl Control {
    fn show(&self, levels: Targets) -> Result<(), String> {
        let changed = self.levels.reload(levels);
        changed.map_err(|e| format!("the log's level cannot be changed: {e}"))
    }
}

/// Asks for the log file to be opened again, behind what has been logged so far. False when there is none. [`reopened`] tells how it
/// went.
#[cfg_attr(not(unix), allow(dead_code))]
pub(crate) fn reopen() -> bool {
    let log = CONTROL.get().map(|control| &control.log);
    match log.filter(|log| log.sink() == Sink::File) {
        Some(log) => {
            log.0.queue.reopen();
            true
        }
        None => false,
    }
}

/// What became of [`reopen`], told once; `None` before it is done, which on a disk that hangs is long.
#[cfg_attr(not(unix), allow(dead_code))]
pub(crate) fn reopened() -> Option<io::Result<()>> {
    CONTROL.get()?.log.0.queue.reopened()
}

/// Writes `text` to standard error, wherever the log goes: what a user is told when a command ends. Behind a log that is stuck it
/// does not wait.
pub(crate) fn stderr(level: Level, text: &str) {
    let Some(control) = CONTROL.get() else {
        // There is nowhere else to say that this failed.
        let _ = write_all(
            &io::stderr(),
            prefixed(Journal::of_process(), level, text).as_bytes(),
        );
        return;
    };
    let log = &control.log.0;
    let text = prefixed(log.journal, level, text);
    log.queue.push_urgent(Output::Stderr, text.as_bytes());
}

/// `text` as it is written to standard error: a journal takes the level of each line from the line.
fn prefixed(journal: Journal, level: Level, text: &str) -> String {
    let begin = match journal.stderr {
        true => Style::Journal.begin(level, ""),
        false => String::new(),
    };
    text.lines()
        .map(|line| format!("{begin}{line}\n"))
        .collect()
}

/// Tells what the limit of lines leaves out, when it is due, until it is dropped.
pub(crate) async fn tell_left_out() {
    match CONTROL.get() {
        Some(Control { log, .. }) => log.0.limit.run(|text| log.warn(text)).await,
        None => std::future::pending().await,
    }
}

/// Writes what is still to be written, for a second at most. To be called when the program ends.
pub(crate) fn flush() {
    if let Some(control) = CONTROL.get() {
        if let Some(text) = control.log.0.limit.finish() {
            control.log.warn(&text);
        }
        control.log.0.queue.flush(FLUSH);
    }
}

/// Makes a panic known as everything else is: on standard error, and in the log if that is elsewhere. Whoever panics does not wait.
pub(crate) fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let text = panic_text(panic, &std::backtrace::Backtrace::capture());
        stderr(Level::ERROR, &text);
        if let Some(control) = CONTROL.get() {
            control.log.tell_of_panic(&text);
        }
    }));
}

fn panic_text(
    panic: &std::panic::PanicHookInfo<'_>,
    backtrace: &std::backtrace::Backtrace,
) -> String {
    let thread = std::thread::current();
    let mut text = format!("thread '{}' {panic}", thread.name().unwrap_or("?"));
    if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
        text += &format!("\n{backtrace}");
    }
    text
}

/// A log: where lines go, and their way there.
#[derive(Clone)]
struct Log(Arc<Inner>);

struct Inner {
    sink: Mutex<Sink>,
    journal: Journal,
    /// The name that the system's log knows the program by: the one that it was called by.
    ident: String,
    limit: Limit,
    queue: &'static Queue<Standard>,
}

impl Log {
    fn start(sink: Sink, file: Option<LogFile>, limit: Limit) -> io::Result<Self> {
        Ok(Self(Arc::new(Inner {
            sink: Mutex::new(sink),
            journal: Journal::of_process(),
            ident: ident(&std::env::args_os().next().unwrap_or_default()),
            limit,
            queue: Queue::start(Standard::new(file))?,
        })))
    }

    fn layer(&self) -> impl Layer<Registry> + Send + Sync + use<> {
        tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .event_format(Lines(self.clone()))
            .with_writer(self.clone())
    }

    fn sink(&self) -> Sink {
        *self.0.sink.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, sink: Sink) {
        *self.0.sink.lock().unwrap_or_else(PoisonError::into_inner) = sink;
    }

    fn ident(&self) -> &str {
        &self.0.ident
    }

    fn style(&self) -> Style {
        match self.sink() {
            Sink::Syslog => Style::Syslog,
            Sink::Stdout if self.0.journal.stdout => Style::Journal,
            Sink::Stderr | Sink::Terminal if self.0.journal.stderr => Style::Journal,
            Sink::Terminal => Style::Colours,
            Sink::File | Sink::Stdout | Sink::Stderr | Sink::Discard => Style::Plain,
        }
    }

    /// Queues a line that is formatted.
    fn push(&self, line: &[u8]) {
        let Some(output) = self.sink().output() else {
            return;
        };
        self.0.queue.push(output, line, || {
            let style = match self.style() {
                Style::Colours => Style::Plain,
                style => style,
            };
            style.begin(Level::WARN, self.ident())
        });
    }

    /// Whether an event gets a line.
    fn admits(&self, metadata: &'static Metadata<'static>) -> bool {
        self.0.limit.admit(metadata)
    }

    /// A line about the log itself, which is no event.
    fn warn(&self, text: &str) {
        let style = self.style();
        let begin = style.begin(Level::WARN, self.ident());
        self.push(format!("{begin}{text}{}", style.end()).as_bytes());
    }

    /// Not by way of an event: a panic may come from within one.
    fn tell_of_panic(&self, text: &str) {
        let style = self.style();
        if self.sink().output() == Some(Output::Stderr) {
            return;
        }
        let begin = style.begin(Level::ERROR, self.ident());
        let text = text.replace(char::is_control, " ");
        self.push(format!("{begin}{text}{}", style.end()).as_bytes());
    }
}

/// What the system's log is to call a program that was called by `name`: the last part of its path.
fn ident(name: &OsStr) -> String {
    let name = Path::new(name).file_name().unwrap_or_default();
    let name = name.to_string_lossy().replace(char::is_control, "?");
    match name.is_empty() {
        true => persona::FULMAR.to_owned(),
        false => name,
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        LineWriter(self)
    }

    fn make_writer_for(&'a self, _meta: &Metadata<'_>) -> Self::Writer {
        LineWriter(self)
    }
}

/// Takes one line in one call.
struct LineWriter<'a>(&'a Log);

impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::levels::STREAMS;
    use super::*;
    use tracing::{debug, info, warn};

    /// A log in a file, and how to read it.
    struct Logged {
        log: Log,
        dir: tempfile::TempDir,
    }

    impl Logged {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("dir");
            let file = LogFile::open(&dir.path().join("log")).expect("open");
            let log = Log::start(Sink::File, Some(file), Limit::default()).expect("thread");
            Self { log, dir }
        }

        fn lines(&self) -> Vec<String> {
            assert!(self.log.0.queue.flush(Duration::from_secs(20)));
            let text = std::fs::read_to_string(self.dir.path().join("log")).expect("read");
            text.lines().map(str::to_owned).collect()
        }
    }

    /// The lines that `speak` logs.
    fn lines(levels: Option<&str>, quiet: bool, speak: impl FnOnce()) -> Vec<String> {
        let logged = Logged::new();
        let filter = levels::filter(levels, quiet).expect("levels");
        let layer = logged.log.layer().with_filter(filter);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), speak);
        logged.lines()
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
    }

    #[test]
    fn levels_change_while_lines_are_written() {
        let logged = Logged::new();
        let (filter, levels) = reload::Layer::new(levels::levels_of(3));
        let layer = logged.log.layer().with_filter(filter);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            info!("hidden");
            levels.reload(levels::levels_of(5)).expect("reload");
            info!("shown");
            logged.log.change(Sink::Discard);
            info!("nowhere");
            logged.log.change(Sink::File);
            info!("again");
        });
        let lines = logged.lines();
        let ends: Vec<_> = lines.iter().map(|line| &line[20..]).collect();
        assert_eq!(ends, ["INFO shown", "INFO again"]);
    }

    #[test]
    fn each_sink_has_its_style() {
        let mut log = Logged::new().log;
        let style = |log: &Log, sink| {
            log.change(sink);
            log.style()
        };
        let inner = |journal| {
            let queue = Logged::new().log.0.queue;
            Log(Arc::new(Inner {
                sink: Mutex::new(Sink::Stderr),
                journal,
                ident: "a-name".into(),
                limit: Limit::default(),
                queue,
            }))
        };
        for sink in [Sink::File, Sink::Stdout, Sink::Stderr] {
            assert_eq!(style(&log, sink), Style::Plain);
        }
        assert_eq!(style(&log, Sink::Terminal), Style::Colours);
        log = inner(Journal {
            stdout: false,
            stderr: true,
        });
        assert_eq!(style(&log, Sink::Stdout), Style::Plain);
        assert_eq!(style(&log, Sink::Stderr), Style::Journal);
        assert_eq!(style(&log, Sink::Terminal), Style::Journal);
        assert_eq!(style(&log, Sink::File), Style::Plain);
        assert_eq!(style(&log, Sink::Syslog), Style::Syslog);

        assert_eq!(Style::Journal.begin(Level::WARN, "a"), "<4>");
        let coloured = Style::Colours.begin(Level::INFO, "a");
        assert!(
            coloured.starts_with("\x1b[92m2") && coloured.ends_with(" INFO "),
            "{coloured}"
        );
        #[cfg(unix)]
        {
            let head = Style::Syslog.begin(Level::INFO, "a-name");
            let from = format!(" a-name[{}]: ", std::process::id());
            assert!(head.starts_with("<14>") && head.ends_with(&from), "{head}");
        }
        let journal = Journal {
            stdout: false,
            stderr: true,
        };
        assert_eq!(prefixed(journal, Level::ERROR, "a\nb\n"), "<3>a\n<3>b\n");
        assert_eq!(prefixed(Journal::default(), Level::ERROR, "a\n"), "a\n");
    }

    #[test]
    fn the_system_s_log_has_the_name_that_was_called() {
        for (name, want) in [
            ("/usr/bin/kcptun-libev", "kcptun-libev"),
            ("./fulmar", "fulmar"),
            ("client_linux_amd64", "client_linux_amd64"),
            ("a\nb", "a?b"),
            ("", "fulmar"),
        ] {
            assert_eq!(ident(OsStr::new(name)), want);
        }
    }

    #[test]
    fn a_panic_says_who_where_and_why() {
        let said = Arc::new(Mutex::new(String::new()));
        let keep = Arc::clone(&said);
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let text = panic_text(panic, &std::backtrace::Backtrace::disabled());
            *keep.lock().expect("lock") = text;
        }));
        let panicked = std::thread::Builder::new()
            .name("a-thread".into())
            .spawn(|| panic!("oh dear"))
            .expect("thread")
            .join();
        std::panic::set_hook(before);
        assert!(panicked.is_err());
        let text = said.lock().expect("lock").clone();
        assert!(text.starts_with("thread 'a-thread' panicked at "), "{text}");
        assert!(text.ends_with("\noh dear"), "{text}");
    }

    #[test]
    fn a_panic_is_in_a_log_file_too() {
        let logged = Logged::new();
        logged.log.tell_of_panic("thread 'x' panicked at\nwhy");
        let lines = logged.lines();
        assert_eq!(&lines[0][20..], "ERROR thread 'x' panicked at why");
    }
}
