//! The system's log: datagrams of RFC 3164 to its socket, facility USER (docs/spec/kcptun-libev.md, section 14.6).

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use fulmar_config::{gotime, localtime};
use tracing::Level;

/// Where the system's log listens.
const SOCKET: &str = "/dev/log";
/// Facility USER, as it stands in the priority.
const FACILITY: u8 = 1 << 3;

/// A way to the system's log. A log that is not there, or does not keep up, loses lines; it stops nobody.
#[derive(Debug)]
pub(crate) struct Syslog {
    path: PathBuf,
    ident: String,
    socket: Option<UnixDatagram>,
}

impl Syslog {
    /// To the system's own socket; lines are said to come from `ident`.
    pub(crate) fn new(ident: &str) -> Self {
        Self::at(SOCKET, ident)
    }

    fn at(path: impl Into<PathBuf>, ident: &str) -> Self {
        Self {
            path: path.into(),
            ident: ident.to_owned(),
            socket: None,
        }
    }

    /// Sends one line. The socket is opened anew once if it has gone away, as after a restart of the log.
    pub(crate) fn send(&mut self, level: Level, line: &str) {
        let time = gotime::format("Jan _2 15:04:05", &localtime::now());
        let datagram = format!(
            "<{}>{time} {}[{}]: {}",
            FACILITY | severity(level),
            self.ident,
            std::process::id(),
            line.trim_end()
        );
        for _ in 0..2 {
            match self.connected().and_then(|s| s.send(datagram.as_bytes())) {
                Ok(_) => return,
                // Full: it does not keep up.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.socket = None,
            }
        }
    }

    fn connected(&mut self) -> io::Result<&UnixDatagram> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => {
                let socket = UnixDatagram::unbound()?;
                socket.set_nonblocking(true)?;
                socket.connect(&self.path)?;
                socket
            }
        };
        Ok(self.socket.insert(socket))
    }
}

/// The severity of `level`: error 3, warning 4, info 6, the rest 7.
fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn log(path: &std::path::Path) -> UnixDatagram {
        let log = UnixDatagram::bind(path).expect("bind");
        log.set_read_timeout(Some(Duration::from_secs(10)))
            .expect("timeout");
        log
    }

    fn received(log: &UnixDatagram) -> String {
        let mut buf = [0; 512];
        let n = log.recv(&mut buf).expect("receive");
        String::from_utf8(buf[..n].to_vec()).expect("text")
    }

    #[test]
    fn lines_arrive_also_at_the_next_log() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("log");
        let mut syslog = Syslog::at(&path, "kcptun-libev");
        // Nobody listens: lost, and no harm.
        syslog.send(Level::ERROR, "lost");
        for (level, priority) in [
            (Level::ERROR, "<11>"),
            (Level::WARN, "<12>"),
            (Level::INFO, "<14>"),
            (Level::DEBUG, "<15>"),
            (Level::TRACE, "<15>"),
        ] {
            let first = log(&path);
            syslog.send(level, "a line\n");
            let got = received(&first);
            let rest = got.strip_prefix(priority).expect("priority");
            let (time, rest) = rest.split_at(16);
            let shape: String = time
                .chars()
                .map(|c| match c {
                    '0'..='9' => '9',
                    c if c.is_ascii_alphabetic() => 'a',
                    c => c,
                })
                .collect();
            let shapes = ["aaa 99 99:99:99 ", "aaa  9 99:99:99 "];
            assert!(shapes.contains(&&*shape), "{time}");
            let from = format!("kcptun-libev[{}]: a line", std::process::id());
            assert_eq!(rest, from);
            drop(first);
            std::fs::remove_file(&path).expect("remove");
        }
    }

    #[test]
    fn a_log_that_does_not_read_stops_nobody() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("log");
        let log = log(&path);
        let mut syslog = Syslog::at(&path, "x");
        for _ in 0..5000 {
            syslog.send(Level::INFO, "line");
        }
        assert!(received(&log).ends_with(": line"));
    }
}
