//! What lines of the log are about.
//!
//! Whatever a peer or a stranger can cause is logged under one of these names: they are the names of the events
//! (`info!(name: log_kind::STREAMS_OPENED, …)`). The program's log limits lines by these names and says how many of each it left out, so each
//! reads well behind a number. What is logged once while the program starts has the target [`START_LOG`] instead and is not limited.
//!
//! A test below finds events of this crate that have neither.

/// The log target of what is said while sockets are opened.
pub const START_LOG: &str = "fulmar::start";

/// Streams of proven sessions, by client. These lines have a limit of their own.
pub const CLIENTS: &str = "streams of proven clients";
/// The same of sessions that are not proven: their addresses may be forged.
pub const UNPROVEN_CLIENTS: &str = "streams of unproven clients";
/// A stream was opened.
pub const STREAMS_OPENED: &str = "streams opened";
/// A client's stream waits for the server.
pub const STREAMS_WAITING: &str = "streams waiting";
/// A stream has ended in order.
pub const STREAMS_CLOSED: &str = "streams closed";
/// A stream was reset by either end.
pub const STREAMS_RESET: &str = "streams reset";
/// A session begins, or has shown that it is alive.
pub const SESSIONS_BEGUN: &str = "sessions begun";
/// A session has ended.
pub const SESSIONS_ENDED: &str = "sessions ended";
/// A session does not answer, or answers again.
pub const SESSIONS_SILENT: &str = "sessions silent or back";
/// A session has moved to another address.
pub const SESSIONS_MOVED: &str = "sessions moved";
/// A window limits a session.
pub const SMALL_WINDOWS: &str = "small windows";
/// What a peer speaks differs from what was configured.
pub const PEER_SETTINGS: &str = "settings of peers";
/// Datagrams that do not open, and why.
pub const STRANGERS: &str = "strangers";
/// The likely cause of what does not work.
pub const ADVICE: &str = "advices";
/// The server is there, or is not.
pub const SERVER_STATE: &str = "changes of the server's state";
/// What kcptun-libev's rendezvous has found out.
pub const RENDEZVOUS: &str = "rendezvous events";
/// Names were looked up.
pub const NAMES: &str = "names looked up";
/// Datagrams could not be sent, or a socket failed.
pub const SOCKETS: &str = "socket errors";
/// A connection could not be accepted.
pub const ACCEPTS: &str = "connections not accepted";
/// Sessions of a client are made, replaced or retired.
pub const CLIENT_SESSIONS: &str = "sessions made or retired";
/// What ICMP said.
pub const ICMP: &str = "ICMP errors";
/// Requests of the status page.
pub const HTTP: &str = "HTTP connections";
/// The file of `--snmplog`.
pub const SNMP_LOG: &str = "SNMP log errors";
/// The service manager.
pub const SERVICE_MANAGER: &str = "notices to the service manager";

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Source files below `dir`.
    fn sources(dir: &Path, to: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                sources(&path, to);
            } else if path.extension().is_some_and(|end| end == "rs") {
                to.push(path);
            }
        }
    }

    /// The beginnings of the arguments of all logging macros in `text`.
    fn events(text: &str) -> Vec<&str> {
        let mut found = Vec::new();
        for name in [
            "error!(", "warn!(", "info!(", "debug!(", "trace!(", "event!(",
        ] {
            for (at, _) in text.match_indices(name) {
                let before = text[..at].chars().next_back();
                if before.is_none_or(|c| !c.is_alphanumeric() && c != '_') {
                    found.push(text[at + name.len()..].trim_start());
                }
            }
        }
        found
    }

    /// A line without a kind is limited all the same, but what is left out of it cannot be named.
    #[test]
    fn every_event_has_a_kind() {
        let (mut files, mut kinds) = (Vec::new(), 0);
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        sources(&dir, &mut files);
        for file in files.iter().filter(|file| !file.ends_with("log_kind.rs")) {
            let text = std::fs::read_to_string(file).expect("a source file");
            for event in events(&text) {
                let named =
                    event.starts_with("name: log_kind::") || event.starts_with("target: START_LOG");
                let line = event.lines().next().unwrap_or_default();
                assert!(named, "{}: {line}", file.display());
                kinds += 1;
            }
        }
        assert!(kinds > 40, "{kinds} events found");
    }

    #[test]
    fn bare_events_are_found() {
        let text = "a warn!(\n  \"x\") tracing::info!(name: y) prewarn!(\"no\") debug!(z)";
        assert_eq!(events(text).len(), 3);
    }
}
