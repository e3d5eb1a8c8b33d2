//! A UDP socket on Linux: it wakes its driver, or is looked at at intervals (see [`super::moderation`]).
//!
//! A process may have a thousand of them and not many more descriptors, so each takes one: the socket itself is registered with
//! the runtime, and only for what it waits for at present. Each wake-up for a direction that nobody asks for is one too many.

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use fulmar_netio::{
    Alarm, Details, IcmpError, IoCounters, RecvBuffers, RecvMeta, Sent, SockRef, Transmit, UdpState,
};
use fulmar_wire::time::Instant;
use tokio::net::unix::pipe;

use super::moderation::{Mode, Moderation};
use crate::log_kind;

/// See the module's documentation.
pub(crate) struct Udp {
    socket: Registered,
    state: UdpState,
    moderation: Moderation,
    /// Datagrams since the socket was empty last.
    found: usize,
    /// Told when datagrams arrive. Not while the socket is looked at: being told costs a wake-up of the thread each time,
    /// whether anybody listens or not.
    wakes: bool,
    /// Told when there is room to send, because there was none.
    full: bool,
    /// The next look.
    alarm: Option<pipe::Receiver>,
    /// It is time for a look, or one is going on.
    looking: bool,
}

impl Udp {
    /// A socket that is bound and non-blocking, and what is to be known of its datagrams.
    ///
    /// # Errors
    /// When the system does not let the socket be polled.
    pub(crate) fn new(socket: UdpSocket, details: Details) -> io::Result<Self> {
        let state = UdpState::new(SockRef::from(&socket))?;
        state.ask(SockRef::from(&socket), details);
        let mut udp = Self {
            socket: Registered::Not(socket.into()),
            state,
            moderation: Moderation::new(),
            found: 0,
            wakes: true,
            full: false,
            alarm: None,
            looking: false,
        };
        udp.register(&mut Context::from_waker(Waker::noop()))?;
        Ok(udp)
    }

    /// See [`crate::socket::Datagrams::poll_recv`].
    pub(crate) fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        hurry: bool,
        buffers: &mut RecvBuffers,
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            if !self.looking {
                // Whatever arrives from here on is told of again.
                match (self.wakes, &self.alarm) {
                    (false, Some(alarm)) => ready!(readable(alarm, cx))?,
                    _ => ready!(self.socket.poll_readable(cx))?,
                }
                self.looking = true;
            }
            let socket = self.socket.as_fd()?;
            match self.state.recv(SockRef::from(&socket), buffers, metas) {
                Ok(runs) => {
                    let datagrams = metas.iter().take(runs).map(RecvMeta::datagrams);
                    self.found += datagrams.sum::<usize>();
                    if buffers.drained() {
                        self.emptied(cx, now, hurry)?;
                    }
                    return Poll::Ready(Ok(runs));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.emptied(cx, now, hurry)?,
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }

    /// The socket is empty: decides how to learn of the next datagrams.
    fn emptied(&mut self, cx: &mut Context<'_>, now: Instant, hurry: bool) -> io::Result<()> {
        self.looking = false;
        let found = std::mem::take(&mut self.found);
        let wakes = match self.moderation.after(now, found, hurry) {
            Mode::Wakes => true,
            // Without a descriptor for a timer it is told as ever.
            Mode::Looks(after) => {
                let looks = self.look_after(after).is_ok();
                if !looks {
                    self.moderation.give_up(now);
                }
                !looks
            }
        };
        if std::mem::replace(&mut self.wakes, wakes) != wakes {
            self.register(cx)?;
        }
        Ok(())
    }

    fn look_after(&mut self, time: Duration) -> io::Result<()> {
        let alarm = match &self.alarm {
            Some(alarm) => alarm,
            None => {
                let alarm = pipe::Receiver::from_owned_fd_unchecked(Alarm::new()?.into())?;
                self.alarm.insert(alarm)
            }
        };
        Alarm::set_on(alarm, time)
    }

    /// Registers the socket for what is waited for from now on, and wakes the task of `cx` for it. What is ready already is
    /// told of once more.
    fn register(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let socket = std::mem::replace(&mut self.socket, Registered::Lost).into_fd()?;
        self.socket = Registered::new(socket, self.wakes, self.full)?;
        // A task that waits already has to be woken by this registration.
        if self.wakes && self.socket.poll_readable(cx).is_ready() {
            self.looking = true;
            cx.waker().wake_by_ref();
        }
        if self.full && self.socket.poll_writable(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Ok(())
    }

    /// See [`crate::socket::Datagrams::poll_send`].
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        runs: &[Transmit<'_>],
    ) -> Poll<io::Result<Sent>> {
        let socket = self.socket.as_fd()?;
        match self.state.send_many(SockRef::from(&socket), runs) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                self.full = true;
                // Anew each time: an error that the socket reports makes a registration seem writable for ever.
                self.register(cx)?;
                Poll::Pending
            }
            done => {
                let all = !matches!(&done, Ok(sent) if sent.runs < runs.len());
                if all && std::mem::take(&mut self.full) {
                    self.register(cx)?;
                }
                Poll::Ready(done)
            }
        }
    }

    /// See [`crate::socket::Datagrams::watch_icmp`].
    pub(crate) fn watch_icmp(&self) {
        let watched = |socket| self.state.watch_icmp(SockRef::from(&socket));
        if let Err(e) = self.socket.as_fd().and_then(watched) {
            tracing::debug!(name: log_kind::SOCKETS, "ICMP errors will not be told: {e}");
        }
    }

    /// See [`crate::socket::Datagrams::drain_icmp`].
    pub(crate) fn drain_icmp(&self, each: impl FnMut(IcmpError)) {
        if let Ok(socket) = self.socket.as_fd() {
            self.state.drain_icmp(SockRef::from(&socket), each);
        }
    }

    /// Its local address.
    pub(crate) fn local_addr(&self) -> Option<std::net::SocketAddr> {
        let socket = self.socket.as_fd().ok()?;
        SockRef::from(&socket).local_addr().ok()?.as_socket()
    }

    /// What happened on it.
    pub(crate) fn counters(&self) -> IoCounters {
        self.state.counters()
    }
}

/// A socket with the runtime, for what is waited for. A socket of the runtime waits for both directions; its pipes wait for one,
/// whatever the descriptor is.
enum Registered {
    Not(OwnedFd),
    Reads(pipe::Receiver),
    Writes(pipe::Sender),
    Both(tokio::net::UdpSocket),
    /// It could not be registered, and is closed.
    Lost,
}

impl Registered {
    fn new(socket: OwnedFd, reads: bool, writes: bool) -> io::Result<Self> {
        Ok(match (reads, writes) {
            (true, false) => Self::Reads(pipe::Receiver::from_owned_fd_unchecked(socket)?),
            (false, true) => Self::Writes(pipe::Sender::from_owned_fd_unchecked(socket)?),
            (true, true) => Self::Both(tokio::net::UdpSocket::from_std(socket.into())?),
            (false, false) => Self::Not(socket),
        })
    }

    fn into_fd(self) -> io::Result<OwnedFd> {
        match self {
            Self::Not(fd) => Ok(fd),
            Self::Reads(receiver) => receiver.into_nonblocking_fd(),
            Self::Writes(sender) => sender.into_nonblocking_fd(),
            Self::Both(socket) => Ok(socket.into_std()?.into()),
            Self::Lost => Err(lost()),
        }
    }

    fn as_fd(&self) -> io::Result<BorrowedFd<'_>> {
        match self {
            Self::Not(fd) => Ok(fd.as_fd()),
            Self::Reads(receiver) => Ok(receiver.as_fd()),
            Self::Writes(sender) => Ok(sender.as_fd()),
            Self::Both(socket) => Ok(socket.as_fd()),
            Self::Lost => Err(lost()),
        }
    }

    /// Ready once for each time that it became readable, if it is registered for that.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Reads(receiver) => readable(receiver, cx),
            Self::Both(socket) => {
                ready!(socket.poll_recv_ready(cx))?;
                clear(|not_now| socket.try_io(tokio::io::Interest::READABLE, not_now))
            }
            Self::Not(_) | Self::Writes(_) => Poll::Pending,
            Self::Lost => Poll::Ready(Err(lost())),
        }
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Writes(sender) => {
                ready!(sender.poll_write_ready(cx))?;
                clear(|not_now| sender.try_io(not_now))
            }
            Self::Both(socket) => {
                ready!(socket.poll_send_ready(cx))?;
                clear(|not_now| socket.try_io(tokio::io::Interest::WRITABLE, not_now))
            }
            Self::Not(_) | Self::Reads(_) => Poll::Pending,
            Self::Lost => Poll::Ready(Err(lost())),
        }
    }
}

fn readable(of: &pipe::Receiver, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    ready!(of.poll_read_ready(cx))?;
    clear(|not_now| of.try_io(not_now))
}

/// What says "not now" is waited for again.
fn clear(attempt: impl FnOnce(fn() -> io::Result<()>) -> io::Result<()>) -> Poll<io::Result<()>> {
    let _ = attempt(|| Err(io::ErrorKind::WouldBlock.into()));
    Poll::Ready(Ok(()))
}

fn lost() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the socket is closed")
}
