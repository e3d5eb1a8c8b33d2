//! A UDP socket: what it can do, found out once, and doing it.

use std::io;
use std::sync::atomic::Ordering::Relaxed;

use portable_atomic::AtomicU64;
use socket2::SockRef;

use crate::counters::{IoCounters, Live, add};
use crate::icmp::IcmpError;
use crate::run::{RecvBuffers, RecvMeta, Sent, Transmit};
use crate::sys;

/// How much of the system's help to use.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub enum Offload {
    /// All that there is: a run leaves and arrives in one call where the system can.
    #[default]
    Full,
    /// Several datagrams in one call, but each by itself: for drivers whose segmentation is broken.
    Batch,
    /// A call for each datagram, no choice of the source address, no congestion bits: what every system can.
    Single,
}

/// What the kernel is to tell of each datagram besides its bytes and its sender. Each costs time for each datagram (some
/// 5 % of receiving one), so who does not look at it should not ask for it.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Details {
    /// Which of our addresses it was sent to: [`RecvMeta::dst_ip`]. A socket that is bound to one address knows without
    /// asking.
    pub destination: bool,
    /// Its congestion bits: [`RecvMeta::ecn`].
    pub congestion: bool,
}

/// Most ICMP errors that one call takes out of the queue. The kernel bounds the queue by the receive buffer.
pub const MAX_ICMP_ERRORS: usize = 64;

/// What a UDP socket can do, and the counters of what it did.
///
/// It does not own the socket: every call borrows it. Options (see [`crate::bind`]) and a connection of the
/// socket, if wanted, come first; they are read once, here.
#[derive(Debug)]
pub struct UdpState {
    backend: Backend,
    counters: Live,
    /// Errors that calls had met when the error queue was emptied last.
    drained_at: AtomicU64,
}

#[derive(Debug)]
enum Backend {
    Native(sys::Native),
    Portable(sys::Portable),
}

impl UdpState {
    /// Finds out what `socket`, which must be bound, can do, and uses all of it.
    ///
    /// # Errors
    ///
    /// The socket has no address, or no internet address.
    pub fn new(socket: SockRef<'_>) -> io::Result<Self> {
        Self::with_offload(socket, Offload::Full)
    }

    /// As [`UdpState::new`], and uses what `offload` permits.
    ///
    /// # Errors
    ///
    /// See [`UdpState::new`].
    #[allow(clippy::needless_pass_by_value)] // A borrow of a borrow would be a burden on every caller.
    pub fn with_offload(socket: SockRef<'_>, offload: Offload) -> io::Result<Self> {
        let backend = match offload {
            Offload::Full => Backend::Native(sys::Native::new(&socket, true)?),
            Offload::Batch => Backend::Native(sys::Native::new(&socket, false)?),
            Offload::Single => Backend::Portable(sys::Portable::new(&socket, false)?),
        };
        let state = Self {
            backend,
            counters: Live::default(),
            drained_at: AtomicU64::new(0),
        };
        state
            .counters
            .segmentation_off
            .store(!state.segmentation(), Relaxed);
        Ok(state)
    }

    /// Chooses what the kernel tells of datagrams from now on; all of it at first. Where a system cannot tell, or cannot
    /// be kept from telling, nothing changes.
    #[allow(clippy::needless_pass_by_value)]
    pub fn ask(&self, socket: SockRef<'_>, details: Details) {
        match &self.backend {
            Backend::Native(b) => b.ask(&socket, details),
            Backend::Portable(_) => {}
        }
    }

    /// Whether a run of equal datagrams leaves in one call. Where it does not, runs work all the same.
    #[must_use]
    pub fn segmentation(&self) -> bool {
        match &self.backend {
            Backend::Native(b) => b.segmentation(),
            Backend::Portable(b) => b.segmentation(),
        }
    }

    /// Sends a run.
    ///
    /// `Ok` says how far it got: see [`Sent`]. Datagrams that the system refuses are lost, as on the network,
    /// and the next ones are sent.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] if the socket has no room, and nothing was done with. Any other error
    /// means that the descriptor is no socket any more.
    pub fn send(&self, socket: SockRef<'_>, transmit: &Transmit<'_>) -> io::Result<Sent> {
        self.send_many(socket, std::slice::from_ref(transmit))
    }

    /// Sends runs of any sizes to any peers, in their order, in as few calls as there are.
    ///
    /// # Errors
    ///
    /// See [`UdpState::send`].
    #[allow(clippy::needless_pass_by_value)]
    pub fn send_many(&self, socket: SockRef<'_>, transmits: &[Transmit<'_>]) -> io::Result<Sent> {
        match &self.backend {
            Backend::Native(b) => b.send(&socket, transmits, &self.counters),
            Backend::Portable(b) => b.send(&socket, transmits, &self.counters),
        }
    }

    /// Receives runs into `buffers` and describes them in the first of `metas`; returns how many.
    ///
    /// A few `metas` suffice: no more runs are received than there are buffers. `Ok(0)` means that only
    /// useless datagrams or errors were found, and that there may be more.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] if there is nothing to receive. Any other error means that the
    /// descriptor is no socket any more; errors of earlier datagrams, which systems report here, are counted
    /// and skipped.
    #[allow(clippy::needless_pass_by_value)]
    pub fn recv(
        &self,
        socket: SockRef<'_>,
        buffers: &mut RecvBuffers,
        metas: &mut [RecvMeta],
    ) -> io::Result<usize> {
        match &self.backend {
            Backend::Native(b) => b.recv(&socket, buffers, metas, &self.counters),
            Backend::Portable(b) => b.recv(&socket, buffers, metas, &self.counters),
        }
    }

    /// Makes the kernel keep ICMP errors about datagrams of this socket, for [`UdpState::drain_icmp`]. For clients; off by
    /// default. See [`IcmpError`] for how to use both.
    ///
    /// Calls then meet these errors, count them ([`IoCounters::send_errors`], [`IoCounters::recv_errors`]) and go on.
    /// A full queue of the network device is reported from now on as well ([`Trouble::NoBuffers`](crate::Trouble)), where
    /// it drops datagrams silently otherwise.
    ///
    /// # Errors
    ///
    /// The system does not tell of them ([`io::ErrorKind::Unsupported`] where it never does). The socket works without.
    #[allow(clippy::needless_pass_by_value)]
    pub fn watch_icmp(&self, socket: SockRef<'_>) -> io::Result<()> {
        match &self.backend {
            Backend::Native(b) => b.watch_icmp(&socket),
            Backend::Portable(b) => b.watch_icmp(&socket),
        }
    }

    /// Gives `each` the ICMP errors that have come back, if a call has met an error since the last time: at most
    /// [`MAX_ICMP_ERRORS`] at once. If no call has met an error, no system call is made.
    #[allow(clippy::needless_pass_by_value)]
    pub fn drain_icmp(&self, socket: SockRef<'_>, mut each: impl FnMut(IcmpError)) {
        let met = self.counters.send_errors.load(Relaxed) + self.counters.recv_errors.load(Relaxed);
        if met == self.drained_at.load(Relaxed) {
            return;
        }
        for _ in 0..MAX_ICMP_ERRORS {
            match sys::icmp_error(&socket) {
                Ok(Some(error)) => {
                    add(&self.counters.icmp_errors, 1);
                    each(error);
                }
                Ok(None) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.drained_at.store(met, Relaxed);
                    return;
                }
            }
        }
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> IoCounters {
        self.counters.snapshot()
    }
}
