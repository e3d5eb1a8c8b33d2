//! UDP sockets in runs, and raw TCP segments.
//!
//! A *run* is datagrams of one peer, stored back to back, each `segment` bytes long; only the last may be
//! shorter. That is what the kernel's segmentation offload takes and gives in one call, and a call is what
//! costs: about 3 µs for each packet buffer that passes the kernel's network code, however full it is.
//!
//! This crate knows sockets and bytes. It knows nothing of KCP, of keys or of sessions, and it has no
//! runtime: the caller owns the socket and its readiness, and calls [`UdpState::send`] and
//! [`UdpState::recv`] when the socket is ready. With tokio that is one line each:
//!
//! ```ignore
//! socket.try_io(Interest::WRITABLE, || state.send((&socket).into(), &transmit))
//! socket.try_io(Interest::READABLE, || state.recv((&socket).into(), &mut buffers, &mut metas))
//! ```
//!
//! [`RawTcp`] has the same shape, for paths that pass TCP only; it owns its sockets and gives a duplicate
//! descriptor to wait for. [`Obfs`] is the same of another dialect, and gives one descriptor for each direction.
//!
//! | module | what |
//! |---|---|
//! | `options` | every socket option, set and read back in one place |
//! | `run` | what goes in and comes out: [`Transmit`], [`Sent`], [`RecvMeta`], [`RecvBuffers`] |
//! | `udp` | [`UdpState`]: what a UDP socket can do, and doing it |
//! | `icmp` | [`IcmpError`]: what came back for a datagram, and how to ask for that |
//! | `rawtcp` | [`RawTcp`]: flows, sequence numbers, firewall rules |
//! | `obfs` | [`Obfs`]: kcptun-libev's obfuscation, datagrams in TCP segments beside the kernel's connection or without |
//! | `counters` | what happened, for the operator |
//! | `sys` | the system calls: one folder per system, all of one shape, and all `unsafe` code |
//!
//! # No error of a datagram is an error of the socket
//!
//! A refused port, an unreachable network, a full queue, a firewall, a datagram that is too long: each is
//! counted, reported in [`Sent::trouble`], and costs the datagrams that it concerned, as the network itself
//! may cost them at any time. `send` and `recv` return an error in two cases only: the socket is not ready
//! ([`std::io::ErrorKind::WouldBlock`]), or the descriptor is no usable socket at all.

mod addr;
mod counters;
mod icmp;
mod obfs;
mod options;
mod rawtcp;
mod run;
mod sys;
mod udp;

pub use addr::unmapped;
pub use counters::IoCounters;
pub use icmp::{IcmpError, IcmpKind};
pub use obfs::{Obfs, ObfsContext, ObfsError, ObfsKind, ObfsOptions, ObfsState, ObfsTotals};
pub use options::{
    GROUPS_BALANCE, Granted, KernelSetting, OptionError, SocketOptions, adopt, bind, bind_group,
    bind_wildcard,
};
pub use rawtcp::firewall;
pub use rawtcp::{FirewallUse, RawTcp, RawTcpError, RawTcpOptions};
pub use run::{
    DEFAULT_BUFFERS, Ecn, MAX_RUN_BYTES, MAX_RUN_SEGMENTS, RECV_BUFFER_LEN, RecvBuffers, RecvMeta,
    Sent, Transmit, Trouble,
};
pub use socket2::SockRef;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub use sys::Alarm;
pub use udp::{Details, MAX_ICMP_ERRORS, Offload, UdpState};

/// Asks the allocator to give memory that nobody uses back to the system; it may take some milliseconds. Does nothing where
/// the allocator does so by itself, or cannot be asked.
pub fn return_free_memory() {
    sys::return_free_memory();
}

/// Lets this process have as many files open as it may permit itself: each stream of a tunnel is one, and systems often
/// start programs with 1024 and permit many more. Returns how many there may be now, `None` where the system has no such
/// number.
pub fn permit_open_files() -> Option<u64> {
    sys::permit_open_files()
}

/// Processor time of this process so far, in user mode and in the kernel; `None` where the system does not tell.
#[must_use]
pub fn cpu_time() -> Option<std::time::Duration> {
    sys::cpu_time()
}

/// What a thread of [`start_plain_thread`] does.
pub trait PlainThread: Sync {
    /// The whole life of the thread. A panic ends the process.
    fn run(&self);
}

/// Starts a thread that takes no signals and costs no more address space than its stack, of `stack` bytes or the least that the
/// system permits. It is not waited for: it ends with the process at the latest.
///
/// A thread of [`std::thread`] allocates before it does anything, and with glibc the first allocation of a thread reserves
/// 64 MiB, which a limit on address space (`ulimit -v`) may not leave. So [`PlainThread::run`] must allocate and free nothing
/// in its usual course, nor use thread-local values that have to be dropped.
///
/// # Errors
/// When the system permits no further thread.
pub fn start_plain_thread<T: PlainThread>(stack: usize, work: &'static T) -> std::io::Result<()> {
    sys::start_plain_thread(stack, work)
}
