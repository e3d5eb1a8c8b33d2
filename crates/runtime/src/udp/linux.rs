//! A UDP socket on Linux: it wakes its driver, or is looked at at intervals (see [`super::moderation`]).

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::task::{Context, Poll, ready};

use fulmar_netio::{
    Alarm, Details, IcmpError, IoCounters, RecvBuffers, RecvMeta, Sent, SockRef, Transmit, UdpState,
};
use fulmar_wire::time::Instant;
use tokio::net::unix::pipe;

use super::moderation::{Mode, Moderation};

/// See the module's documentation.
pub(crate) struct Udp {
    socket: UdpSocket,
    state: UdpState,
    moderation: Moderation,
    /// Datagrams since the socket was empty last.
    found: usize,
    /// Told when datagrams arrive. Not there while the socket is looked at: being told costs a wake-up of the thread
    /// each time, whether anybody listens or not.
    readable: Option<Readable>,
    /// The next look.
    alarm: Option<(Alarm, Readable)>,
    /// It is time for a look, or one is going on.
    looking: bool,
    /// Told when there is room to send; made when there was none for the first time.
    writable: Option<Writable>,
}

impl Udp {
    /// A socket that is bound and non-blocking, and what is to be known of its datagrams.
    ///
    /// # Errors
    /// When the system does not let the socket be polled.
    pub(crate) fn new(socket: UdpSocket, details: Details) -> io::Result<Self> {
        let state = UdpState::new(SockRef::from(&socket))?;
        state.ask(SockRef::from(&socket), details);
        Ok(Self {
            readable: Some(Readable::new(&socket)?),
            socket,
            state,
            moderation: Moderation::new(),
            found: 0,
            alarm: None,
            looking: false,
            writable: None,
        })
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
                let alarm = self.alarm.as_ref().map(|(_, readable)| readable);
                if let Some(readable) = self.readable.as_ref().or(alarm) {
                    ready!(readable.poll_wait(cx))?;
                }
                self.looking = true;
            }
            match self.state.recv(SockRef::from(&self.socket), buffers, metas) {
                Ok(runs) => {
                    let datagrams = metas.iter().take(runs).map(RecvMeta::datagrams);
                    self.found += datagrams.sum::<usize>();
                    if buffers.drained() {
                        self.emptied(now, hurry)?;
                    }
                    return Poll::Ready(Ok(runs));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.emptied(now, hurry)?,
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }

    /// The socket is empty: decides how to learn of the next datagrams.
    fn emptied(&mut self, now: Instant, hurry: bool) -> io::Result<()> {
        self.looking = false;
        match self
            .moderation
            .after(now, std::mem::take(&mut self.found), hurry)
        {
            Mode::Wakes if self.readable.is_none() => {
                self.readable = Some(Readable::new(&self.socket)?);
            }
            Mode::Wakes => {}
            Mode::Looks(after) => {
                let (alarm, _) = match &self.alarm {
                    Some(alarm) => alarm,
                    None => {
                        let alarm = Alarm::new()?;
                        let readable = Readable::new(&alarm)?;
                        self.alarm.insert((alarm, readable))
                    }
                };
                alarm.set(after)?;
                self.readable = None;
            }
        }
        Ok(())
    }

    /// See [`crate::socket::Datagrams::poll_send`].
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        runs: &[Transmit<'_>],
    ) -> Poll<io::Result<Sent>> {
        loop {
            match self.state.send_many(SockRef::from(&self.socket), runs) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
            let writable = match &self.writable {
                Some(writable) => writable,
                None => self.writable.insert(Writable::new(&self.socket)?),
            };
            ready!(writable.poll_wait(cx))?;
        }
    }

    /// See [`crate::socket::Datagrams::watch_icmp`].
    pub(crate) fn watch_icmp(&self) {
        if let Err(e) = self.state.watch_icmp(SockRef::from(&self.socket)) {
            tracing::debug!("ICMP errors will not be told: {e}");
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

/// Waits for one direction of a descriptor. A socket of the runtime waits for both, and each wake-up for the direction
/// that nobody asks for is one too many. Its pipes wait for one, whatever the descriptor is.
struct Readable(pipe::Receiver);

impl Readable {
    fn new(of: &impl AsFd) -> io::Result<Self> {
        let fd = of.as_fd().try_clone_to_owned()?;
        pipe::Receiver::from_owned_fd_unchecked(fd).map(Self)
    }

    /// Ready once for each time that it became readable.
    fn poll_wait(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.0.poll_read_ready(cx))?;
        // What says "not now" is waited for again.
        let _ = self
            .0
            .try_io(|| Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        Poll::Ready(Ok(()))
    }
}

/// As [`Readable`].
struct Writable(pipe::Sender);

impl Writable {
    fn new(of: &impl AsFd) -> io::Result<Self> {
        let fd = of.as_fd().try_clone_to_owned()?;
        pipe::Sender::from_owned_fd_unchecked(fd).map(Self)
    }

    fn poll_wait(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.0.poll_write_ready(cx))?;
        let _ = self
            .0
            .try_io(|| Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        Poll::Ready(Ok(()))
    }
}
