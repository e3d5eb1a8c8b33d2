//! The system's log: datagrams of RFC 3164 to its socket, facility USER (docs/spec/kcptun-libev.md, section 14.6). Whoever logs
//! writes the [`head`] of a datagram, another thread sends it.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use fulmar_config::{gotime, localtime};

/// Where the system's log listens.
const SOCKET: &str = "/dev/log";
/// Facility USER, as it stands in the priority.
const FACILITY: u8 = 1 << 3;

/// How a line of the program `ident` begins. `severity` is 0 to 7.
pub(crate) fn head(severity: u8, ident: &str) -> String {
    let time = gotime::format("Jan _2 15:04:05", &localtime::now());
    let (priority, id) = (FACILITY | severity, std::process::id());
    format!("<{priority}>{time} {ident}[{id}]: ")
}

/// A way to the system's log. A log that is not there, or does not keep up, loses lines; it stops nobody.
#[derive(Debug)]
pub(crate) struct Syslog {
    path: PathBuf,
    socket: Option<UnixDatagram>,
}

impl Syslog {
    /// To the system's own socket.
    pub(crate) fn new() -> Self {
        Self::at(SOCKET)
    }

    fn at(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            socket: None,
        }
    }

    /// Sends one line with its [`head`]. The socket is opened anew once if it has gone away, as after a restart of the log.
    ///
    /// # Errors
    /// When the log is not there, or does not keep up; the line is lost.
    pub(crate) fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        let mut failed = io::ErrorKind::NotConnected.into();
        for _ in 0..2 {
            match self.connected().and_then(|s| s.send(datagram)) {
                Ok(_) => return Ok(()),
                // Full: it does not keep up.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(e),
                Err(e) => (self.socket, failed) = (None, e),
            }
        }
        Err(failed)
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
        let mut syslog = Syslog::at(&path);
        // Nobody listens: lost, and no harm.
        assert!(syslog.send(b"lost").is_err());
        for (severity, priority) in [(3, "<11>"), (4, "<12>"), (6, "<14>"), (7, "<15>")] {
            let first = log(&path);
            let line = format!("{}a line", head(severity, "kcptun-libev"));
            syslog.send(line.as_bytes()).expect("sent");
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
        let mut syslog = Syslog::at(&path);
        let line = format!("{}line", head(6, "x"));
        let lost = (0..5000).filter(|_| syslog.send(line.as_bytes()).is_err());
        assert!(lost.count() > 0);
        assert!(received(&log).ends_with(": line"));
    }
}
