//! One local connection: a TCP or Unix socket, polled from a driver.

use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

/// What local TCP connections are like.
#[derive(Copy, Clone, Default, Debug)]
pub(crate) struct Tuning {
    /// Small pieces leave at once.
    pub(crate) nodelay: bool,
    /// The kernel asks with this period whether the other side is still there.
    pub(crate) keepalive: Option<Duration>,
    /// The same with the period of the system.
    pub(crate) system_keepalive: bool,
    /// Bytes of the kernel's buffers, if they are not the system's.
    pub(crate) send_buffer: Option<usize>,
    pub(crate) recv_buffer: Option<usize>,
}

impl Tuning {
    /// What kcptun sets on every connection (docs/spec/kcptun.md, section 8.5).
    pub(crate) const KCPTUN: Self = Self {
        nodelay: true,
        keepalive: Some(Duration::from_secs(15)),
        system_keepalive: false,
        send_buffer: None,
        recv_buffer: None,
    };
}

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
                let _ = socket2::SockRef::from(s).set_linger(Some(Duration::ZERO));
            }
            #[cfg(unix)]
            Self::Unix(_) => {}
        }
    }

    /// Sets what is wanted of a TCP connection. Each only makes it better; it works without.
    pub(crate) fn tune(&self, tuning: Tuning) {
        #[cfg_attr(not(unix), allow(irrefutable_let_patterns))]
        if let Self::Tcp(s) = self {
            let socket = socket2::SockRef::from(s);
            if tuning.nodelay {
                let _ = s.set_nodelay(true);
            }
            if let Some(period) = tuning.keepalive {
                let keepalive = socket2::TcpKeepalive::new()
                    .with_time(period)
                    .with_interval(period);
                let _ = socket.set_tcp_keepalive(&keepalive);
            } else if tuning.system_keepalive {
                let _ = socket.set_keepalive(true);
            }
            if let Some(bytes) = tuning.send_buffer {
                let _ = socket.set_send_buffer_size(bytes);
            }
            if let Some(bytes) = tuning.recv_buffer {
                let _ = socket.set_recv_buffer_size(bytes);
            }
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
