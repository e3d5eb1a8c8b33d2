//! The datagram socket of a driver: UDP, or TCP-looking packets.

use std::io;
use std::task::{Context, Poll, ready};

use fulmar_netio::{IoCounters, RecvBuffers, RecvMeta, Sent, SockRef, Transmit, UdpState};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// A datagram socket, polled from a driver.
pub(crate) enum Datagrams {
    /// UDP.
    Udp {
        /// The socket.
        socket: UdpSocket,
        /// What it can do.
        state: UdpState,
    },
    /// TCP-looking packets.
    #[cfg(any())]
    Raw(tokio::io::unix::AsyncFd<fulmar_netio::RawTcp>),
}

impl Datagrams {
    /// A UDP socket that is bound and non-blocking.
    ///
    /// # Errors
    /// When the system does not let the socket be polled.
    pub(crate) fn udp(socket: std::net::UdpSocket) -> io::Result<Self> {
        let state = UdpState::new(SockRef::from(&socket))?;
        Ok(Self::Udp {
            socket: UdpSocket::from_std(socket)?,
            state,
        })
    }

    /// TCP-looking packets.
    ///
    /// # Errors
    /// When the system does not let the socket be polled.
    #[cfg(any())]
    pub(crate) fn raw(raw: fulmar_netio::RawTcp) -> io::Result<Self> {
        Ok(Self::Raw(tokio::io::unix::AsyncFd::with_interest(
            raw,
            Interest::READABLE | Interest::WRITABLE,
        )?))
    }

    /// Receives what is there; registers the waker of `cx` when nothing is.
    pub(crate) fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut RecvBuffers,
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Udp { socket, state } => loop {
                ready!(socket.poll_recv_ready(cx))?;
                match socket.try_io(Interest::READABLE, || {
                    state.recv(socket.into(), buffers, metas)
                }) {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    done => return Poll::Ready(done),
                }
            },
            #[cfg(any())]
            Self::Raw(fd) => loop {
                let mut guard = ready!(fd.poll_read_ready(cx))?;
                if let Ok(done) = guard.try_io(|fd| fd.get_ref().recv(buffers, metas)) {
                    return Poll::Ready(done);
                }
            },
        }
    }

    /// Sends runs; registers the waker of `cx` when the socket is full before all were taken.
    pub(crate) fn poll_send(
        &self,
        cx: &mut Context<'_>,
        runs: &[Transmit<'_>],
    ) -> Poll<io::Result<Sent>> {
        match self {
            Self::Udp { socket, state } => loop {
                ready!(socket.poll_send_ready(cx))?;
                match socket.try_io(Interest::WRITABLE, || state.send_many(socket.into(), runs)) {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    done => return Poll::Ready(done),
                }
            },
            #[cfg(any())]
            Self::Raw(fd) => loop {
                let mut guard = ready!(fd.poll_write_ready(cx))?;
                if let Ok(done) = guard.try_io(|fd| fd.get_ref().send_many(runs)) {
                    return Poll::Ready(done);
                }
            },
        }
    }

    /// What happened on it.
    pub(crate) fn counters(&self) -> IoCounters {
        match self {
            Self::Udp { state, .. } => state.counters(),
            #[cfg(any())]
            Self::Raw(fd) => fd.get_ref().counters(),
        }
    }
}
