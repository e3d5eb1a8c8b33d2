//! A UDP socket where there is nothing better: it wakes its driver.

use std::io;
use std::task::{Context, Poll, ready};

use crate::log_kind;
use fulmar_netio::{
    Details, IcmpError, IoCounters, RecvBuffers, RecvMeta, Sent, SockRef, Transmit, UdpState,
};
use fulmar_wire::time::Instant;
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// See the module's documentation.
pub(crate) struct Udp {
    socket: UdpSocket,
    state: UdpState,
}

impl Udp {
    /// A socket that is bound and non-blocking, and what is to be known of its datagrams.
    ///
    /// # Errors
    /// When the system does not let the socket be polled.
    pub(crate) fn new(socket: std::net::UdpSocket, details: Details) -> io::Result<Self> {
        let state = UdpState::new(SockRef::from(&socket))?;
        state.ask(SockRef::from(&socket), details);
        Ok(Self {
            socket: UdpSocket::from_std(socket)?,
            state,
        })
    }

    /// See [`crate::socket::Datagrams::poll_recv`].
    pub(crate) fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        _now: Instant,
        _hurry: bool,
        buffers: &mut RecvBuffers,
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let Self { socket, state } = self;
        loop {
            ready!(socket.poll_recv_ready(cx))?;
            match socket.try_io(Interest::READABLE, || {
                state.recv((&*socket).into(), buffers, metas)
            }) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }

    /// See [`crate::socket::Datagrams::poll_send`].
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        runs: &[Transmit<'_>],
    ) -> Poll<io::Result<Sent>> {
        let Self { socket, state } = self;
        loop {
            ready!(socket.poll_send_ready(cx))?;
            match socket.try_io(Interest::WRITABLE, || {
                state.send_many((&*socket).into(), runs)
            }) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }

    /// See [`crate::socket::Datagrams::watch_icmp`].
    pub(crate) fn watch_icmp(&self) {
        if let Err(e) = self.state.watch_icmp(SockRef::from(&self.socket)) {
            tracing::debug!(name: log_kind::SOCKETS, "ICMP errors will not be told: {e}");
        }
    }

    /// See [`crate::socket::Datagrams::drain_icmp`].
    pub(crate) fn drain_icmp(&self, each: impl FnMut(IcmpError)) {
        self.state.drain_icmp(SockRef::from(&self.socket), each);
    }

    /// Its local address.
    pub(crate) fn local_addr(&self) -> Option<std::net::SocketAddr> {
        self.socket.local_addr().ok()
    }

    /// What happened on it.
    pub(crate) fn counters(&self) -> IoCounters {
        self.state.counters()
    }
}
