//! One local connection: a TCP or Unix socket, polled from a driver.

use std::io;
use std::task::{Context, Poll};

use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

/// A connected local socket.
#[derive(Debug)]
pub(crate) enum Conn {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    #[cfg(unix)]
    Unix(UnixStream),
}

macro_rules! each {
    ($conn:expr, $s:ident => $e:expr) => {
        match $conn {
            Conn::Tcp($s) => $e,
            #[cfg(unix)]
            Conn::Unix($s) => $e,
        }
    };
}

impl Conn {
    /// Waits until the kernel has connected it, or has given up.
    pub(crate) fn poll_connected(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, s => {
            std::task::ready!(s.poll_write_ready(cx))?;
            Poll::Ready(s.take_error()?.map_or(Ok(()), Err))
        })
    }

    /// Reads what is there; registers the waker of `cx` when nothing is.
    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, s => loop {
            std::task::ready!(s.poll_read_ready(cx))?;
            match s.try_read(buf) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                done => return Poll::Ready(done),
            }
        })
    }

    /// Writes what fits; registers the waker of `cx` when nothing does.
    pub(crate) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, s => loop {
            std::task::ready!(s.poll_write_ready(cx))?;
            match s.try_write_vectored(pieces) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                done => return Poll::Ready(done),
            }
        })
    }

    /// What has gone wrong with it, if anything: a reset that nobody has read.
    pub(crate) fn take_error(&self) -> Option<io::Error> {
        each!(self, s => s.take_error().ok().flatten())
    }

    /// Ends our direction: the other side reads the end after what was written.
    pub(crate) fn shutdown(&self) -> io::Result<()> {
        each!(self, s => socket2::SockRef::from(s).shutdown(std::net::Shutdown::Write))
    }

    /// Closes it so that the other side sees a reset, not an end.
    pub(crate) fn abort(self) {
        match &self {
            Self::Tcp(s) => {
                // A socket that lingers for no time at all resets. If the option fails, the close is an ordinary one.
                let _ = socket2::SockRef::from(s).set_linger(Some(std::time::Duration::ZERO));
            }
            #[cfg(unix)]
            Self::Unix(_) => {}
        }
    }

    /// What upstream sets on every TCP connection: no delay, and keep-alive with 15 seconds
    /// (spec/kcptun.md, section 7.8).
    pub(crate) fn tune(&self) {
        #[cfg_attr(not(unix), allow(irrefutable_let_patterns))]
        if let Self::Tcp(s) = self {
            let keepalive = socket2::TcpKeepalive::new()
                .with_time(std::time::Duration::from_secs(15))
                .with_interval(std::time::Duration::from_secs(15));
            // Either only makes the connection better; it works without.
            let _ = s.set_nodelay(true);
            let _ = socket2::SockRef::from(s).set_tcp_keepalive(&keepalive);
        }
    }

    /// The other side's name for the log; `@` for a Unix socket, as upstream prints it.
    pub(crate) fn peer_name(&self) -> String {
        match self {
            Self::Tcp(s) => s.peer_addr().map_or_else(|_| "?".into(), |a| a.to_string()),
            #[cfg(unix)]
            Self::Unix(_) => "@".into(),
        }
    }
}
