//! What a line looks like: `YYYY/MM/DD HH:MM:SS LEVEL message` in local time, as kcptun's plus the level, where nobody adds these.

use std::fmt;

use fulmar_config::{gotime, localtime};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::Log;

/// Looks of a line.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// With time and level.
    Plain,
    /// The same in colours.
    Colours,
    /// For systemd's journal, which knows the time: the level is a number (sd-daemon(3)).
    Journal,
    /// For the system's log: the head of a datagram.
    #[cfg_attr(not(unix), allow(dead_code))]
    Syslog,
}

impl Style {
    /// How a line of `level` begins. `ident` is the name of the program.
    pub(super) fn begin(self, level: Level, ident: &str) -> String {
        match self {
            Self::Plain => format!("{} {level} ", timestamp()),
            Self::Colours => format!("\x1b[{}m{} {level} ", colour(level), timestamp()),
            Self::Journal => format!("<{}>", severity(level)),
            #[cfg(unix)]
            Self::Syslog => crate::process::syslog::head(severity(level), ident),
            #[cfg(not(unix))]
            Self::Syslog => ident.to_owned(),
        }
    }

    /// How it ends.
    pub(super) const fn end(self) -> &'static str {
        match self {
            Self::Colours => "\x1b[0m\n",
            Self::Plain | Self::Journal | Self::Syslog => "\n",
        }
    }
}

fn timestamp() -> String {
    gotime::format("2006/01/02 15:04:05", &localtime::now())
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

/// The severity of `level` as the system's log and the journal have it: error 3, warning 4, info 6, the rest 7.
pub(super) fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

/// The format of a line for the sink in use.
pub(super) struct Lines(pub(super) Log);

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
        // Not by a filter of the layer: in tracing-subscriber 0.3.23 one that looks at events fails an assertion of debug builds. What is
        // empty is not written.
        if !self.0.admits(event.metadata()) {
            return Ok(());
        }
        let text = message(ctx, event)?;
        let style = self.0.style();
        let begin = style.begin(*event.metadata().level(), self.0.ident());
        write!(writer, "{begin}{text}{}", style.end())
    }
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
