//! The datagram socket of a driver: UDP, or TCP-looking packets of one kind or another.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};

use fulmar_netio::{
    Details, IcmpError, IoCounters, Obfs, RawTcp, RecvBuffers, RecvMeta, Sent, Transmit,
};
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
    /// kcptun-libev's obfuscation.
    Obfs {
        /// Its readiness to receive and to send.
        receive: UdpSocket,
        send: UdpSocket,
        /// Everything else of it.
        obfs: Box<Obfs>,
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

    /// kcptun-libev's obfuscation.
    ///
    /// # Errors
    /// When the system does not let the sockets be polled.
    pub(crate) fn obfs(obfs: Obfs) -> io::Result<Self> {
        Ok(Self::Obfs {
            receive: UdpSocket::from_std(obfs.readiness()?)?,
            send: UdpSocket::from_std(obfs.send_readiness()?)?,
            obfs: Box::new(obfs),
        })
    }

    /// Something that opened has come from `peer`: it is no stranger.
    pub(crate) fn authenticate(&self, peer: SocketAddr) {
        if let Self::Obfs { obfs, .. } = self {
            // A peer that has dialled anew in this moment is authenticated by what comes next.
            let _ = obfs.authenticate(peer);
        }
    }

    /// Whether what comes from strangers costs more than memory of ours, so that [`Self::authenticate`] is worth a call.
    pub(crate) const fn has_strangers(&self) -> bool {
        matches!(self, Self::Obfs { .. })
    }

    /// Names were looked up again.
    pub(crate) fn resolved(&self, remote: &[SocketAddr]) {
        if let (Self::Obfs { obfs, .. }, Some(remote)) = (self, remote.first()) {
            obfs.redial(*remote);
        }
    }

    /// Asks the system to tell what routers and hosts say of our datagrams ([`Self::drain_icmp`]), if it can. For clients.
    pub(crate) fn watch_icmp(&self) {
        if let Self::Udp(udp) = self {
            udp.watch_icmp();
        }
    }

    /// What routers and hosts have said of our datagrams. Costs nothing while they say nothing.
    pub(crate) fn drain_icmp(&self, each: impl FnMut(IcmpError)) {
        if let Self::Udp(udp) = self {
            udp.drain_icmp(each);
        }
    }

    /// What the status page says of obfuscation.
    pub(crate) fn obfs_contexts(&self) -> Option<Vec<fulmar_netio::ObfsContext>> {
        match self {
            Self::Obfs { obfs, .. } => Some(obfs.contexts()),
            Self::Udp(_) | Self::Raw { .. } => None,
        }
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
            Self::Obfs { receive, obfs, .. } => loop {
                ready!(receive.poll_recv_ready(cx))?;
                match receive.try_io(Interest::READABLE, || obfs.recv(buffers, metas)) {
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
            Self::Obfs { send, obfs, .. } => loop {
                ready!(send.poll_send_ready(cx))?;
                match send.try_io(Interest::WRITABLE, || obfs.send_many(runs)) {
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
            Self::Obfs { obfs, .. } => obfs.local_addr(),
        }
    }

    /// What it is and where, for the log.
    pub(crate) fn describe(&self) -> String {
        let kind = match self {
            Self::Udp(_) => "udp",
            Self::Raw { .. } => "tcp",
            Self::Obfs { obfs, .. } => obfs.kind().name(),
        };
        self.local_addr()
            .map_or_else(|| kind.into(), |addr| format!("{addr}/{kind}"))
    }

    /// What happened on it.
    pub(crate) fn counters(&self) -> IoCounters {
        match self {
            Self::Udp(udp) => udp.counters(),
            Self::Raw { raw, .. } => raw.counters(),
            Self::Obfs { obfs, .. } => obfs.counters(),
        }
    }
}
