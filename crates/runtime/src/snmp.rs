//! The SNMP log: a CSV line of counters every period (docs/spec/kcptun.md, section 14.1).
//!
//! The last element of the path is a Go time layout, so a file a day or an hour comes by itself. A file is opened and
//! closed for each line; an empty one gets a header first. What cannot be written is logged, and the next period tries
//! again.

use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fulmar_config::{gotime, localtime};
use fulmar_session::Counters;
use tracing::warn;

use crate::log_kind;
use crate::stats::Hub;

/// The first line of a file.
#[must_use]
pub fn header() -> String {
    format!("Unix,{}", Counters::NAMES[..Counters::UPSTREAM].join(","))
}

/// One line.
#[must_use]
pub fn line(unix_seconds: u64, counters: &Counters) -> String {
    let mut line = unix_seconds.to_string();
    for value in counters.values().iter().take(Counters::UPSTREAM) {
        line.push(',');
        line.push_str(&value.to_string());
    }
    line
}

/// Appends a line to the file that `layout` names now.
///
/// # Errors
/// When the file cannot be opened or written.
pub fn append(path: &Path, unix_seconds: u64, counters: &Counters) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)?;
    let mut text = String::new();
    if file.metadata()?.len() == 0 {
        text.push_str(&header());
        text.push('\n');
    }
    text.push_str(&line(unix_seconds, counters));
    text.push('\n');
    file.write_all(text.as_bytes())
}

/// Writes a line after every period, for ever.
pub(crate) async fn write_periodically(layout: String, period: Duration, hub: Hub) {
    let mut ticks = tokio::time::interval(period);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let path = gotime::file_name(&layout, &localtime::now());
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_secs());
        let counters = hub.totals();
        let shown = path.clone();
        let written =
            tokio::task::spawn_blocking(move || append(Path::new(&path), unix, &counters)).await;
        if let Ok(Err(e)) = written {
            warn!(name: log_kind::SNMP_LOG, "snmp log {}: {e}", fulmar_config::text::path(&shown));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_once_then_lines() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("snmp.log");
        let counters = Counters {
            bytes_sent: 7,
            oob_packets: 3,
            streams_opened: 99,
            ..Counters::default()
        };
        append(&path, 1000, &counters).expect("written");
        append(&path, 1060, &counters).expect("written");
        let text = std::fs::read_to_string(&path).expect("read");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0], header());
        assert!(lines[1].starts_with("1000,7,0,") && lines[1].ends_with(",3"));
        assert_eq!(lines[2].split(',').count(), lines[0].split(',').count());
    }

    #[test]
    fn a_directory_that_is_missing_is_an_error() {
        assert!(append(Path::new("/nonexistent/dir/x"), 0, &Counters::default()).is_err());
    }
}
