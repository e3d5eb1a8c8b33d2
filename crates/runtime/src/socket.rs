//! The datagram socket of a driver: UDP, or TCP-looking packets.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};

use fulmar_netio::{Details, IoCounters, RawTcp, RecvBuffers, RecvMeta, Sent, Transmit};
use fulmar_wire::time::Instant;
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::udp::Udp;

/// A datagram socket, polled from a driver.
pub(crate) enum Datagrams {
    /// UDP.
    Udp(Udp),
    /// TCP-looking packets.
    Raw {
        /// Its readiness.
        socket: UdpSocket,
        /// Everything else of it.
        raw: RawTcp,
    },
}

impl Datagrams {
    /// A UDP socket that is bound and non-blocking, and what is to be known of its datagrams.
    ///
    /// # Errors
    /// When the system does not let the socket be polled.
    pub(crate) fn udp(socket: std::net::UdpSocket, details: Details) -> io::Result<Self> {
        Udp::new(socket, details).map(Self::Udp)
    }

    /// TCP-looking packets.
    ///
    /// # Errors
    /// When the system does not let the socket be polled.
    pub(crate) fn raw(raw: RawTcp) -> io::Result<Self> {
        let socket = UdpSocket::from_std(raw.readiness()?)?;
        Ok(Self::Raw { socket, raw })
    }

    /// Receives what is there; when nothing is, the task of `cx` is woken as soon as it should look again: at once if it
    /// is in a `hurry`.
    pub(crate) fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        hurry: bool,
        buffers: &mut RecvBuffers,
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Udp(udp) => udp.poll_recv(cx, now, hurry, buffers, metas),
            Self::Raw { socket, raw } => loop {
                ready!(socket.poll_recv_ready(cx))?;
                match socket.try_io(Interest::READABLE, || raw.recv(buffers, metas)) {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    done => return Poll::Ready(done),
                }
            },
        }
    }

    /// Sends runs; registers the waker of `cx` when the socket is full before all were taken.
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        runs: &[Transmit<'_>],
    ) -> Poll<io::Result<Sent>> {
        match self {
            Self::Udp(udp) => udp.poll_send(cx, runs),
            Self::Raw { socket, raw } => loop {
                ready!(socket.poll_send_ready(cx))?;
                match socket.try_io(Interest::WRITABLE, || raw.send_many(runs)) {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    done => return Poll::Ready(done),
                }
            },
        }
    }

    /// Its local address.
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Udp(udp) => udp.local_addr(),
            Self::Raw { raw, .. } => Some(raw.local_addr()),
        }
    }

    /// What it is and where, for the log.
    pub(crate) fn describe(&self) -> String {
        let kind = match self {
            Self::Udp(_) => "udp",
            Self::Raw { .. } => "tcp",
        };
        self.local_addr()
            .map_or_else(|| kind.into(), |addr| format!("{addr}/{kind}"))
    }

    /// What happened on it.
    pub(crate) fn counters(&self) -> IoCounters {
        match self {
            Self::Udp(udp) => udp.counters(),
            Self::Raw { raw, .. } => raw.counters(),
        }
    }
}
