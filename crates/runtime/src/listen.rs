//! Where local connections come from: a TCP or a Unix listener.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fulmar_config::StreamAddr;
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::Instant;
use tracing::warn;

#[cfg(unix)]
mod unix;

use crate::conn::{Conn, Tuning};
use crate::log_kind;
use crate::log_limit::LogLimit;
use crate::resolve;

/// Pause after a connection that could not be accepted, for instance for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener for local connections.
pub(crate) struct Listener {
    socket: Socket,
    tuning: Tuning,
    /// What went wrong with accepting.
    failures: Mutex<LogLimit>,
}

enum Socket {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket; the file is removed when the listener is dropped.
    #[cfg(unix)]
    Unix {
        /// It.
        listener: tokio::net::UnixListener,
        /// Removes the file at the end.
        _file: Option<unix::SocketFile>,
    },
}

impl Listener {
    /// Listens on `addr`. An empty host is every address of this machine.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub(crate) async fn bind(addr: &StreamAddr, tuning: Tuning) -> io::Result<Self> {
        let socket = Socket::bind(addr).await?;
        Ok(Self::new(socket, tuning))
    }

    /// One that was opened elsewhere.
    pub(crate) fn tcp(listener: TcpListener, tuning: Tuning) -> Self {
        Self::new(Socket::Tcp(listener), tuning)
    }

    fn new(socket: Socket, tuning: Tuning) -> Self {
        let failures = Mutex::default();
        Self {
            socket,
            tuning,
            failures,
        }
    }

    /// What it listens on, for the log.
    pub(crate) fn name(&self) -> String {
        match &self.socket {
            Socket::Tcp(l) => l
                .local_addr()
                .map_or_else(|_| "?".into(), |a| a.to_string()),
            #[cfg(unix)]
            Socket::Unix { listener: l, .. } => l
                .local_addr()
                .ok()
                .and_then(|a| a.as_pathname().map(fulmar_config::text::path))
                .unwrap_or_else(|| "@".into()),
        }
    }

    /// The next connection. Errors of accepting (a connection gone already, too many open files) cost a pause, never
    /// the listener.
    pub(crate) async fn accept(&self) -> Conn {
        loop {
            let accepted = match &self.socket {
                Socket::Tcp(l) => l.accept().await.map(|(s, _)| Conn::Tcp(s)),
                #[cfg(unix)]
                Socket::Unix { listener: l, .. } => l.accept().await.map(|(s, _)| Conn::Unix(s)),
            };
            match accepted {
                Ok(conn) => {
                    conn.tune(self.tuning);
                    return conn;
                }
                Err(e) => {
                    let text = format!("cannot accept a connection, trying again: {e}");
                    let line = self.failed(&text);
                    if let Some(line) = line {
                        warn!(name: log_kind::ACCEPTS, "{line}");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Listener {
    /// What to log of a failure to accept. A success in between, because another connection has just ended, is no end of it.
    fn failed(&self, text: &str) -> Option<String> {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.line(Instant::now(), text)
    }
}

impl Socket {
    async fn bind(addr: &StreamAddr) -> io::Result<Self> {
        match addr {
            StreamAddr::Tcp { host, port } if host.is_empty() => {
                // Both families where the system has both.
                match listen(([0u16; 8], *port).into()) {
                    Ok(l) => Ok(Self::Tcp(l)),
                    Err(e) if e.kind() == io::ErrorKind::AddrInUse => Err(e),
                    Err(_) => listen(([0; 4], *port).into()).map(Self::Tcp),
                }
            }
            StreamAddr::Tcp { host, port } => {
                let mut last = None;
                for addr in resolve::local(host, *port).await? {
                    match listen(addr) {
                        Ok(l) => return Ok(Self::Tcp(l)),
                        Err(e) => last = Some(e),
                    }
                }
                Err(last.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
            }
            #[cfg(unix)]
            StreamAddr::Unix(path) => {
                let (listener, file) = unix::bind(path)?;
                Ok(Self::Unix {
                    listener,
                    _file: file,
                })
            }
            #[cfg(not(unix))]
            StreamAddr::Unix(path) => {
                let message = format!(
                    "{}: this system has no Unix sockets",
                    fulmar_config::text::path(path)
                );
                Err(io::Error::new(io::ErrorKind::Unsupported, message))
            }
        }
    }
}

/// A TCP listener for something else than streams.
///
/// # Errors
/// When the address cannot be had, or is none of TCP.
pub(crate) async fn tcp(addr: &StreamAddr) -> io::Result<TcpListener> {
    match Socket::bind(addr).await? {
        Socket::Tcp(listener) => Ok(listener),
        #[cfg(unix)]
        Socket::Unix { .. } => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// Connections that the kernel holds until they are accepted; systems cut it to their own limit. A burst beyond it waits
/// for a retransmitted SYN, a whole second.
const BACKLOG: u32 = 4096;

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    // Connections of an earlier run may linger. On Windows the option means something else.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}
