//! Datagrams as TCP segments, for paths that pass TCP only (spec/kcptun.md, section 12).
//!
//! Behind a flow is a real connection of the two kernels, which opens the way through NATs and firewalls.
//! It stays idle. The datagrams travel in segments of our own making, one each, with the ports of that
//! connection and numbers that continue it. Nothing is retransmitted or put in order: it is UDP in the
//! clothes of TCP.
//!
//! ```text
//!            client                                                  server
//!   kernel:  connect ── SYN, SYN-ACK, ACK ──────────────────────────▶ accept
//!            TTL 1, dropped by a firewall rule of each host           TTL 1
//!   raw:     PSH+ACK, datagram ─────────────────────────────────────▶ raw socket, filtered by port
//!            raw socket, filtered by both ports ◀───────────────────── PSH+ACK, datagram
//! ```
//!
//! The kernels see the segments too, understand some of them, and would answer; the firewall rule keeps the
//! answers in the host. Needs Linux, `CAP_NET_RAW`, and `CAP_NET_ADMIN` with `nft` or `iptables` for the rule.

pub mod firewall;
mod flow;
mod server;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fulmar_wire::rawtcp::{self as wire, Flags, MAX_EMITTED_LEN, Segment};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::addr::unmapped;
use crate::counters::{IoCounters, Live, add};
use crate::options::{Granted, SocketOptions, route};
use crate::run::{Ecn, RecvBuffers, RecvMeta, Sent, Transmit, Trouble};
use crate::sys;

use firewall::{Firewall, FirewallError, Rule};
pub(crate) use flow::Agreed;
use flow::Flow;

/// Most segments of one call, in either direction. As with UDP, more are not faster.
pub(crate) const BATCH: usize = 32;

/// Bytes of room for one packet: headers of IP and TCP at their longest (120 bytes), and any datagram that
/// fits an Ethernet frame, with some to spare.
pub(crate) const SLOT: usize = 2048;

/// How often in a row a call that brings nothing of use is repeated before the caller gets its turn back.
const MAX_ROUNDS: usize = 16;

/// What a raw TCP end should be like.
#[derive(Clone, Debug)]
pub struct RawTcpOptions {
    /// Options of the sockets. Buffers and the code point are those of the raw socket; the kernel's own
    /// packets, which open the connection, look like everyone's. `reuse_port` is ignored: two raw sockets of
    /// one port would both receive everything.
    pub socket: SocketOptions,
    /// How long a client waits for the server's kernel to accept the connection. Default: 5 s.
    pub connect_timeout: Duration,
    /// Whether to work without the firewall rule.
    pub firewall: FirewallUse,
    /// Most flows of a server; each costs a descriptor and some kB in the kernel. Further connections are
    /// closed as they come. Default: 4096.
    pub max_flows: usize,
    /// A server forgets a flow that has been silent for so long. Default: 60 s, as kcptun does; shorter than
    /// the peer's keep-alive would end live sessions.
    pub idle_timeout: Duration,
}

impl Default for RawTcpOptions {
    fn default() -> Self {
        Self {
            socket: SocketOptions::default(),
            connect_timeout: Duration::from_secs(5),
            firewall: FirewallUse::default(),
            max_flows: 4096,
            idle_timeout: Duration::from_secs(60),
        }
    }
}

/// What to do about the firewall rule.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub enum FirewallUse {
    /// No rule, no flow.
    #[default]
    Required,
    /// Try, and go on without. The kernel's answers then leave with a TTL of 1: they die at the first
    /// router, which says so by ICMP, and peers on the same link receive them.
    Optional,
    /// Do not touch the firewall; the administrator has a rule of their own.
    Off,
}

/// Why there is no raw TCP.
#[derive(Debug)]
#[non_exhaustive]
pub enum RawTcpError {
    /// This system has no raw sockets for TCP.
    Unsupported,
    /// The program may not open raw sockets.
    MissingCapability,
    /// The kernel's connection to the server failed.
    Connect(io::Error),
    /// The kernel's listening socket failed.
    Listen(io::Error),
    /// The connection was made, but its handshake was not seen on the raw socket.
    HandshakeUnseen,
    /// The raw socket, an option of it, or the thread that serves it, failed.
    Socket(io::Error),
    /// The firewall rule could not be set.
    Firewall(FirewallError),
}

impl fmt::Display for RawTcpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported => f.write_str("TCP segments can be sent raw on Linux only"),
            Self::MissingCapability => f.write_str(
                "raw sockets need the capability CAP_NET_RAW, and the firewall rule CAP_NET_ADMIN: run as root or \
                 grant them",
            ),
            Self::Connect(e) => write!(f, "TCP connection: {e}"),
            Self::Listen(e) => write!(f, "TCP listener: {e}"),
            Self::HandshakeUnseen => f.write_str("the raw socket did not see the TCP handshake"),
            Self::Socket(e) => write!(f, "raw socket: {e}"),
            Self::Firewall(e) => write!(f, "firewall rule against the kernel's own TCP packets: {e}"),
        }
    }
}

impl std::error::Error for RawTcpError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connect(e) | Self::Listen(e) | Self::Socket(e) => Some(e),
            Self::Firewall(e) => Some(e),
            Self::Unsupported | Self::MissingCapability | Self::HandshakeUnseen => None,
        }
    }
}

/// One end of raw TCP: a client with one flow, or a server with many.
///
/// It owns its sockets; wait for [`RawTcp::readiness`] and call [`RawTcp::recv`] and [`RawTcp::send`], which
/// are those of [`crate::UdpState`]. A server has a thread that
/// accepts the kernel's connections and forgets silent flows; it sleeps while there are none.
///
/// Dropping it ends the flows and removes the firewall rule, which takes some ms.
#[derive(Debug)]
pub struct RawTcp {
    pub(crate) raw: sys::RawSocket,
    local: SocketAddr,
    /// The server of a client.
    remote: Option<SocketAddr>,
    shared: Arc<Shared>,
    granted: Granted,
    listener: Option<(TcpListener, JoinHandle<()>)>,
    firewall: Option<Firewall>,
    firewall_error: Option<FirewallError>,
}

/// What the thread of a server shares with the one that sends and receives.
#[derive(Debug)]
pub(crate) struct Shared {
    flows: Mutex<HashMap<SocketAddr, Entry>>,
    counters: Live,
    /// Set for the thread to end.
    ending: AtomicBool,
    /// The server's kernel has ended a client's connection.
    reset: AtomicBool,
    max_flows: usize,
    idle_timeout: Duration,
}

/// A flow and the kernel's connection behind it.
#[derive(Debug)]
struct Entry {
    flow: Flow,
    connection: TcpStream,
    local_ip: IpAddr,
    heard: Instant,
    /// Whether a datagram has ever arrived.
    confirmed: bool,
}

impl Shared {
    fn new(options: &RawTcpOptions) -> Self {
        Self {
            flows: Mutex::new(HashMap::new()),
            counters: Live::default(),
            ending: AtomicBool::new(false),
            reset: AtomicBool::new(false),
            max_flows: options.max_flows,
            idle_timeout: options.idle_timeout,
        }
    }

    fn flows(&self) -> MutexGuard<'_, HashMap<SocketAddr, Entry>> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A segment to send.
#[derive(Copy, Clone)]
pub(crate) struct Outgoing<'a> {
    pub(crate) header: [u8; MAX_EMITTED_LEN],
    pub(crate) header_len: usize,
    pub(crate) payload: &'a [u8],
}

impl Outgoing<'_> {
    const EMPTY: Self = Self {
        header: [0; MAX_EMITTED_LEN],
        header_len: 0,
        payload: &[],
    };
}

/// What is known of a packet besides its bytes. With IPv4 the addresses are in the bytes.
#[derive(Copy, Clone, Default)]
pub(crate) struct Incoming {
    pub(crate) len: usize,
    pub(crate) truncated: bool,
    /// The sender; its port means nothing.
    pub(crate) src: Option<SocketAddr>,
    pub(crate) dst: Option<IpAddr>,
    pub(crate) class: u8,
}

impl RawTcp {
    /// A client's end of a flow to `remote`. Blocks until the kernels have connected.
    ///
    /// # Errors
    ///
    /// Any [`RawTcpError`].
    pub fn dial(remote: SocketAddr, options: &RawTcpOptions) -> Result<Self, RawTcpError> {
        let remote = unmapped(remote);
        let wildcard = if remote.is_ipv6() {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        } else {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        };
        let connection = tcp_socket(remote, options).map_err(RawTcpError::Connect)?;
        connection
            .bind(&SocketAddr::new(wildcard, 0).into())
            .map_err(RawTcpError::Connect)?;
        let port = local_of(&connection).map_err(RawTcpError::Connect)?.port();

        // Before the handshake, because that is where the numbers are learned from.
        let see = Flags::PSH
            .with(Flags::SYN)
            .with(Flags::RST)
            .with(Flags::FIN);
        let (raw, granted) = open(SocketAddr::new(wildcard, port), Some(remote), see, options)?;

        connection
            .connect_timeout(&remote.into(), options.connect_timeout)
            .map_err(RawTcpError::Connect)?;
        let local = local_of(&connection).map_err(RawTcpError::Connect)?;
        let connection = TcpStream::from(connection);
        let now = Instant::now();
        let mut flow = Flow::new(port, remote.port(), sys::agreed(&connection), now);
        quieten(&connection, remote.is_ipv6()).map_err(RawTcpError::Connect)?;
        if !learn_handshake(&raw, &mut flow, remote) {
            return Err(RawTcpError::HandshakeUnseen);
        }

        let rule = Rule {
            local,
            remote: Some(remote),
        };
        let (firewall, firewall_error) = rule_for(&rule, options)?;
        let shared = Shared::new(options);
        shared.flows().insert(
            remote,
            Entry {
                flow,
                connection,
                local_ip: local.ip(),
                heard: now,
                confirmed: true,
            },
        );
        Ok(Self {
            raw,
            local,
            remote: Some(remote),
            shared: Arc::new(shared),
            granted,
            listener: None,
            firewall,
            firewall_error,
        })
    }

    /// A server's end on `local`, whose port must not be 0 unless any will do.
    ///
    /// A wildcard address serves one family; a server of both has two of these.
    ///
    /// # Errors
    ///
    /// Any [`RawTcpError`].
    pub fn listen(local: SocketAddr, options: &RawTcpOptions) -> Result<Self, RawTcpError> {
        let listener = tcp_socket(local, options).map_err(RawTcpError::Listen)?;
        let bound = (|| {
            if local.is_ipv6() {
                listener.set_only_v6(true)?;
            }
            // Connections of an earlier run may linger.
            listener.set_reuse_address(true)?;
            listener.bind(&local.into())?;
            local_of(&listener)
        })()
        .map_err(RawTcpError::Listen)?;

        let (raw, granted) = open(bound, None, Flags::PSH, options)?;
        let rule = Rule {
            local: bound,
            remote: None,
        };
        let (firewall, firewall_error) = rule_for(&rule, options)?;
        listener
            .listen(server::BACKLOG)
            .map_err(RawTcpError::Listen)?;
        let listener = TcpListener::from(listener);
        let shared = Arc::new(Shared::new(options));
        let thread = server::start(&listener, &shared).map_err(RawTcpError::Socket)?;
        Ok(Self {
            raw,
            local: bound,
            remote: None,
            shared,
            granted,
            listener: Some((listener, thread)),
            firewall,
            firewall_error,
        })
    }

    /// Our address and port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Something to wait for: ready when this end is ready to send or to receive.
    ///
    /// It is a duplicate of the raw socket's descriptor. It calls itself a UDP socket only so that a runtime
    /// waits for both kinds in the same way, with tokio by `UdpSocket::from_std` and `UdpSocket::try_io`;
    /// do not send or receive with it. Drop it together with this.
    ///
    /// # Errors
    ///
    /// There are no descriptors left.
    pub fn readiness(&self) -> io::Result<UdpSocket> {
        self.raw.duplicate()
    }

    /// What the system granted of the socket options, for the raw socket.
    #[must_use]
    pub fn granted(&self) -> &Granted {
        &self.granted
    }

    /// Which firewall rule is in force, in words.
    #[must_use]
    pub fn firewall(&self) -> Option<String> {
        self.firewall.as_ref().map(Firewall::describe)
    }

    /// Why no firewall rule is in force although one was wanted ([`FirewallUse::Optional`]).
    #[must_use]
    pub fn firewall_error(&self) -> Option<&FirewallError> {
        self.firewall_error.as_ref()
    }

    /// How many flows there are.
    #[must_use]
    pub fn flows(&self) -> usize {
        self.shared.flows().len()
    }

    /// Client: whether the server's kernel has said, since the last datagram from there, that it knows
    /// nothing of this connection or has ended it.
    ///
    /// Anyone on the path can say that, so it is a hint and ends nothing: together with silence it is a
    /// reason to dial again.
    #[must_use]
    pub fn peer_reset(&self) -> bool {
        self.shared.reset.load(Relaxed)
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> IoCounters {
        self.shared.counters.snapshot()
    }

    /// Sends a run, a segment for each datagram. See [`crate::UdpState::send`]; a peer without an accepted
    /// connection is [`Trouble::NoFlow`]. `src_ip` is not looked at: a flow has its address.
    ///
    /// # Errors
    ///
    /// See [`crate::UdpState::send`].
    pub fn send(&self, transmit: &Transmit<'_>) -> io::Result<Sent> {
        self.send_many(std::slice::from_ref(transmit))
    }

    /// Sends runs of any sizes to any peers, in their order.
    ///
    /// # Errors
    ///
    /// See [`crate::UdpState::send`].
    pub fn send_many(&self, transmits: &[Transmit<'_>]) -> io::Result<Sent> {
        let counters = &self.shared.counters;
        let mut sent = Sent::default();
        let mut flows = self.shared.flows();
        let now = Instant::now();
        for transmit in transmits {
            let entry = flows
                .get_mut(&transmit.dst)
                .filter(|e| e.flow.position().is_some());
            let Some(entry) = entry else {
                let datagrams = transmit.datagrams();
                sent.give_up(Trouble::NoFlow, datagrams, counters);
                sent.runs += 1;
                continue;
            };
            if let Err(e) = self.send_run(entry, transmit, now, &mut sent) {
                if e.kind() != io::ErrorKind::WouldBlock || sent.datagrams + sent.lost == 0 {
                    return Err(e);
                }
                return Ok(sent);
            }
            sent.runs += 1;
            sent.bytes = 0;
        }
        Ok(sent)
    }

    /// Sends the datagrams of a run. An error ends the call: no room, or no socket.
    fn send_run(
        &self,
        entry: &mut Entry,
        transmit: &Transmit<'_>,
        now: Instant,
        sent: &mut Sent,
    ) -> io::Result<()> {
        let counters = &self.shared.counters;
        let (dst, src) = match self.remote {
            // Its socket is connected.
            Some(_) => (None, None),
            None => (
                Some(transmit.dst),
                self.local.ip().is_unspecified().then_some(entry.local_ip),
            ),
        };
        let mut again = false;
        loop {
            let rest = transmit.rest(sent.bytes);
            if rest.data.is_empty() {
                return Ok(());
            }
            let mut batch = [Outgoing::EMPTY; BATCH];
            let mut positions = [None; BATCH];
            let mut count = 0;
            for ((payload, outgoing), position) in rest.iter().zip(&mut batch).zip(&mut positions) {
                *position = entry.flow.position();
                let Some(header) = entry.flow.next_header(payload.len(), Flags::DATA, now) else {
                    break;
                };
                outgoing.header_len = header.emit(&mut outgoing.header);
                if let Some(header) = outgoing.header.get_mut(..outgoing.header_len) {
                    wire::seal(header, payload, entry.local_ip, transmit.dst.ip());
                }
                outgoing.payload = payload;
                count += 1;
            }
            let batch = batch.get(..count).unwrap_or_default();
            add(&counters.send_calls, 1);
            let (taken, error) = match self.raw.send(dst, src, transmit.ecn, batch) {
                Ok(taken) => (taken, None),
                Err(e) => (0, Some(e)),
            };
            let bytes: usize = batch.iter().take(taken).map(|s| s.payload.len()).sum();
            sent.datagrams += taken;
            sent.bytes += bytes;
            add(&counters.sent_datagrams, taken);
            add(&counters.sent_bytes, bytes);
            if let Some(&position) = positions.get(taken).filter(|_| taken < count) {
                entry.flow.unsend(position);
            }
            let Some(e) = error else {
                again = false;
                continue;
            };
            match e.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => {
                    add(&counters.send_would_block, 1);
                    return Err(e);
                }
                _ if sys::is_fatal(&e) => return Err(e),
                // A connected socket reports what became of an earlier segment in place of sending this one.
                io::ErrorKind::ConnectionRefused
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable
                    if !again =>
                {
                    again = true;
                }
                _ => {
                    again = false;
                    sent.bytes += batch.first().map_or(0, |s| s.payload.len());
                    sent.give_up(sys::trouble(&e), 1, counters);
                }
            }
        }
    }

    /// Receives datagrams into `buffers` and describes them in the first of `metas`; returns how many
    /// runs. See [`crate::UdpState::recv`]: datagrams of one size and peer that come together are one run.
    ///
    /// At most as many datagrams are received as there are `metas`, and at most 32: give it 32.
    ///
    /// # Errors
    ///
    /// See [`crate::UdpState::recv`].
    pub fn recv(&self, buffers: &mut RecvBuffers, metas: &mut [RecvMeta]) -> io::Result<usize> {
        let counters = &self.shared.counters;
        let mut arrived = [Incoming::default(); BATCH];
        let Some(room) = buffers.raw().first_mut() else {
            return Ok(0);
        };
        for _ in 0..MAX_ROUNDS {
            let most = metas.len().min(BATCH);
            let count =
                match self
                    .raw
                    .recv(room, arrived.get_mut(..most).unwrap_or_default(), counters)
                {
                    Ok(count) => count,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock || sys::is_fatal(&e) => {
                        return Err(e);
                    }
                    Err(_) => {
                        // What became of a segment that was sent from here.
                        add(&counters.recv_errors, 1);
                        continue;
                    }
                };
            let runs = self.sort(room, arrived.get(..count).unwrap_or_default(), metas);
            if runs > 0 {
                return Ok(runs);
            }
        }
        Ok(0)
    }

    /// Takes the datagrams out of the packets and makes runs of them; returns how many.
    fn sort(&self, room: &mut [u8], arrived: &[Incoming], metas: &mut [RecvMeta]) -> usize {
        let counters = &self.shared.counters;
        let now = Instant::now();
        let mut runs = 0_usize;
        let mut datagrams = 0;
        let mut bytes = 0;
        let mut flows = self.shared.flows();
        for (i, incoming) in arrived.iter().enumerate() {
            let slot = i * SLOT;
            let Some(packet) = room.get(slot..slot + incoming.len.min(SLOT)) else {
                break;
            };
            if incoming.truncated {
                add(&counters.recv_truncated, 1);
                continue;
            }
            let Some(found) = self.find(packet, incoming, &mut flows, now) else {
                continue;
            };
            let (from, len) = (slot + found.at, found.len);
            datagrams += 1;
            bytes += len;

            // Behind the last run, if it is of the same peer and all of one length so far: there is always
            // room between it and this datagram, because the packets have headers.
            let last = runs
                .checked_sub(1)
                .and_then(|last| metas.get_mut(last))
                .filter(|last| {
                    last.src == found.src
                        && last.dst_ip == Some(found.dst)
                        && last.ecn == found.ecn
                        && len <= last.segment
                        && last.len.is_multiple_of(last.segment)
                });
            if let Some(last) = last {
                room.copy_within(from..from + len, last.offset + last.len);
                last.len += len;
            } else if let Some(meta) = metas.get_mut(runs) {
                *meta = RecvMeta {
                    src: found.src,
                    dst_ip: Some(found.dst),
                    ecn: found.ecn,
                    len,
                    segment: len,
                    buffer: 0,
                    offset: from,
                };
                runs += 1;
            }
        }
        drop(flows);
        let coalesced = metas
            .iter()
            .take(runs)
            .filter(|m| m.len > m.segment)
            .count();
        add(&counters.recv_coalesced_runs, coalesced);
        add(&counters.recv_datagrams, datagrams);
        add(&counters.recv_bytes, bytes);
        runs
    }

    /// The datagram in a packet, if it is one of ours.
    fn find(
        &self,
        packet: &[u8],
        incoming: &Incoming,
        flows: &mut HashMap<SocketAddr, Entry>,
        now: Instant,
    ) -> Option<Found> {
        let counters = &self.shared.counters;
        let parsed = Parsed::new(packet, incoming, self.raw.is_v6(), self.local.ip())
            .filter(|p| p.segment.dst_port() == self.local.port());
        let Some(Parsed {
            src,
            dst,
            class,
            at,
            segment,
        }) = parsed
        else {
            add(&counters.raw_malformed, 1);
            return None;
        };
        let header = segment.header();
        let payload = segment.payload();
        let Some(entry) = flows.get_mut(&src) else {
            add(&counters.raw_strangers, 1);
            return None;
        };
        if !segment.checksum_is_right(src.ip(), dst) {
            add(&counters.raw_bad_checksum, 1);
            return None;
        }
        if header.flags.has(Flags::RST) || header.flags.has(Flags::FIN) {
            if self.remote.is_some() && entry.flow.is_current(&header) {
                self.shared.reset.store(true, Relaxed);
            }
            return None;
        }
        if !header.flags.has(Flags::PSH) || header.flags.has(Flags::SYN) {
            return None;
        }
        if payload.is_empty() {
            add(&counters.recv_empty, 1);
            return None;
        }
        entry.flow.on_segment(&header, payload.len());
        entry.heard = now;
        entry.confirmed = true;
        if self.remote.is_some() {
            self.shared.reset.store(false, Relaxed);
        }
        Some(Found {
            src,
            dst,
            ecn: Ecn::from_bits(class),
            at,
            len: payload.len(),
        })
    }
}

impl Drop for RawTcp {
    fn drop(&mut self) {
        self.shared.ending.store(true, Relaxed);
        if let Some((listener, thread)) = self.listener.take() {
            // Wakes the thread out of its wait for a connection.
            let _ = SockRef::from(&listener).shutdown(std::net::Shutdown::Both);
            let _ = thread.join();
        }
        let flows = std::mem::take(&mut *self.shared.flows());
        let now = Instant::now();
        #[allow(clippy::iter_over_hash_type)] // Each flow ends by itself, in any order.
        for (peer, mut entry) in flows {
            self.say_goodbye(peer, &mut entry, now);
            sys::close_silently(entry.connection);
        }
    }
}

impl RawTcp {
    /// Tells whoever tracks the connection that it ends, with numbers that they believe.
    fn say_goodbye(&self, peer: SocketAddr, entry: &mut Entry, now: Instant) {
        let Some(header) = entry.flow.next_header(0, Flags::FIN.with(Flags::ACK), now) else {
            return;
        };
        let mut outgoing = Outgoing::EMPTY;
        outgoing.header_len = header.emit(&mut outgoing.header);
        if let Some(header) = outgoing.header.get_mut(..outgoing.header_len) {
            wire::seal(header, &[], entry.local_ip, peer.ip());
        }
        let (dst, src) = match self.remote {
            Some(_) => (None, None),
            None => (
                Some(peer),
                self.local.ip().is_unspecified().then_some(entry.local_ip),
            ),
        };
        let _ = self.raw.send(dst, src, None, &[outgoing]);
    }
}

impl Sent {
    /// Counts datagrams as lost.
    fn give_up(&mut self, trouble: Trouble, datagrams: usize, counters: &Live) {
        counters.lost(trouble, datagrams);
        self.lost += datagrams;
        self.trouble = Some(trouble);
    }
}

/// A datagram in a packet.
struct Found {
    src: SocketAddr,
    dst: IpAddr,
    ecn: Option<Ecn>,
    /// Where in the packet.
    at: usize,
    len: usize,
}

/// A packet, taken apart.
struct Parsed<'a> {
    src: SocketAddr,
    dst: IpAddr,
    /// Traffic class.
    class: u8,
    /// Where in the packet the payload begins.
    at: usize,
    segment: Segment<'a>,
}

impl<'a> Parsed<'a> {
    /// `local` is our address, or a wildcard.
    fn new(packet: &'a [u8], incoming: &Incoming, v6: bool, local: IpAddr) -> Option<Self> {
        if v6 {
            let segment = Segment::parse(packet).ok()?;
            // With the scope, without which a link-local peer would not be found.
            let mut src = incoming.src?;
            src.set_port(segment.src_port());
            Some(Self {
                src,
                dst: incoming
                    .dst
                    .or(Some(local).filter(|ip| !ip.is_unspecified()))?,
                class: incoming.class,
                at: segment.header_len(),
                segment,
            })
        } else {
            let packet = wire::Ipv4::parse(packet).ok()?;
            let segment = Segment::parse(packet.payload).ok()?;
            Some(Self {
                src: (packet.src, segment.src_port()).into(),
                dst: IpAddr::V4(packet.dst),
                class: packet.tos,
                at: packet.header_len + segment.header_len(),
                segment,
            })
        }
    }
}

/// A TCP socket of `addr`'s family that takes the way that the options say.
fn tcp_socket(addr: SocketAddr, options: &RawTcpOptions) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    route(&socket, &options.socket, &mut Granted::default())?;
    Ok(socket)
}

fn local_of(socket: &Socket) -> io::Result<SocketAddr> {
    socket
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not an internet socket"))
}

fn open(
    local: SocketAddr,
    remote: Option<SocketAddr>,
    flags: Flags,
    options: &RawTcpOptions,
) -> Result<(sys::RawSocket, Granted), RawTcpError> {
    sys::RawSocket::open(local, remote, flags, &options.socket).map_err(|e| {
        if e.kind() == io::ErrorKind::Unsupported {
            RawTcpError::Unsupported
        } else if sys::is_missing_capability(&e) {
            RawTcpError::MissingCapability
        } else {
            RawTcpError::Socket(e)
        }
    })
}

/// Makes the kernel's packets of a connection such that the firewall rule catches them, and keeps it from
/// storing what it takes for data.
fn quieten(connection: &TcpStream, v6: bool) -> io::Result<()> {
    let socket = SockRef::from(connection);
    if v6 {
        socket.set_unicast_hops_v6(1)?;
    } else {
        socket.set_ttl_v4(1)?;
    }
    // Only now: before the handshake it would show in the announced window.
    let _ = socket.set_recv_buffer_size(0);
    connection.set_nonblocking(true)
}

/// Finds the server's answer of the handshake among the packets that have arrived.
fn learn_handshake(raw: &sys::RawSocket, flow: &mut Flow, remote: SocketAddr) -> bool {
    let counters = Live::default();
    let mut room = vec![0; SLOT * BATCH];
    let mut arrived = [Incoming::default(); BATCH];
    loop {
        let count = match raw.recv(&mut room, &mut arrived, &counters) {
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return false,
        };
        for (packet, incoming) in room.chunks_exact(SLOT).zip(&arrived).take(count) {
            let packet = packet.get(..incoming.len).unwrap_or_default();
            let Some(parsed) = Parsed::new(packet, incoming, raw.is_v6(), remote.ip()) else {
                continue;
            };
            // Its checksum may not have been filled in, if it comes from this host. The kernel has looked at
            // the same packet and connected.
            let header = parsed.segment.header();
            if parsed.src == remote && header.flags.has(Flags::SYN.with(Flags::ACK)) {
                flow.on_segment(&header, 0);
                return true;
            }
        }
    }
}

fn rule_for(
    rule: &Rule,
    options: &RawTcpOptions,
) -> Result<(Option<Firewall>, Option<FirewallError>), RawTcpError> {
    if options.firewall == FirewallUse::Off {
        return Ok((None, None));
    }
    match Firewall::install(rule) {
        Ok(firewall) => Ok((Some(firewall), None)),
        Err(e) if options.firewall == FirewallUse::Optional => Ok((None, Some(e))),
        Err(e) => Err(RawTcpError::Firewall(e)),
    }
}
