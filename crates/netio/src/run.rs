//! What goes into a socket and what comes out of it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Most datagrams that one call hands to the kernel's segmentation: what every kernel that has it accepts.
///
/// Longer runs are split by `send`; there is nothing to gain from them.
pub const MAX_RUN_SEGMENTS: usize = 64;

/// Most bytes that one call hands to the kernel's segmentation: the largest UDP payload over IPv4.
///
/// The kernel builds one IP packet of the whole run before it cuts it, so the run is bound by the 16-bit
/// length of that packet. Longer runs are split by `send`.
pub const MAX_RUN_BYTES: usize = 65_507;

/// Bytes of one receive buffer: more than any datagram and any coalesced run that a kernel delivers.
pub const RECV_BUFFER_LEN: usize = 65_536;

/// How many receive buffers a socket has: what one call receives at most when datagrams come one by one.
///
/// They are address space; memory is behind those parts only that datagrams have reached.
pub const DEFAULT_BUFFERS: usize = 32;

/// How many of them are offered to the kernel when it puts runs together: a run fills a buffer, and then one buffer
/// for each call costs the same as 32 (63 to 71 ns for each datagram).
const BUFFERS_OF_RUNS: usize = 4;

/// What is received into a buffer by itself, without the kernel's help, is not longer than this.
const ONE_DATAGRAM: usize = 4 * 1024;

/// Explicit congestion notification: the two low bits of the IPv4 TOS byte or IPv6 traffic class.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Ecn {
    /// `01`: ECN-capable, the newer signalling.
    Ect1,
    /// `10`: ECN-capable.
    Ect0,
    /// `11`: a router on the path is congested.
    Ce,
}

impl Ecn {
    /// The two bits.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::Ect1 => 1,
            Self::Ect0 => 2,
            Self::Ce => 3,
        }
    }

    /// What the two low bits of a TOS byte or traffic class say; `None`: not ECN-capable.
    #[must_use]
    pub const fn from_bits(tos: u8) -> Option<Self> {
        match tos & 3 {
            1 => Some(Self::Ect1),
            2 => Some(Self::Ect0),
            3 => Some(Self::Ce),
            _ => None,
        }
    }
}

/// A run to send: datagrams to one peer.
#[derive(Copy, Clone, Debug)]
pub struct Transmit<'a> {
    /// The peer. An IPv4 peer of a dual-stack socket is written as IPv4.
    pub dst: SocketAddr,
    /// The address of ours to send from; `None`: the system chooses.
    ///
    /// A server on a wildcard address answers from the address that was asked, [`RecvMeta::dst_ip`]; systems
    /// without that ability, and addresses that are no longer ours, fall back to the system's choice.
    pub src_ip: Option<IpAddr>,
    /// Congestion bits of every datagram; `None`: as the socket is set.
    ///
    /// The DSCP of the socket is kept in either case.
    pub ecn: Option<Ecn>,
    /// Bytes of each datagram but the last, which may be shorter. 0 means that `data` is one datagram.
    pub segment: usize,
    /// One datagram that finds out whether its size passes: it leaves in a message of its own, with DF whatever the
    /// socket is set to, and without regard to the path MTU that the system believes in. One that this host cannot
    /// send in one piece is counted as lost, which is the answer, and is no [`Sent::trouble`].
    ///
    /// Linux, UDP. Elsewhere it leaves like any other datagram; TCP-looking packets always have DF.
    pub probe: bool,
    /// The datagrams, back to back.
    pub data: &'a [u8],
}

impl<'a> Transmit<'a> {
    /// The run without its first `bytes`: what is left after [`Sent::bytes`] of it.
    #[must_use]
    pub fn rest(&self, bytes: usize) -> Self {
        Self {
            data: self.data.get(bytes..).unwrap_or_default(),
            ..*self
        }
    }

    /// Number of datagrams.
    #[must_use]
    pub const fn datagrams(&self) -> usize {
        self.data.len().div_ceil(self.stride())
    }

    /// The bytes from one datagram to the next, never 0.
    pub(crate) const fn stride(&self) -> usize {
        if self.segment != 0 {
            self.segment
        } else if self.data.is_empty() {
            1
        } else {
            self.data.len()
        }
    }

    /// The datagrams, one by one.
    pub fn iter(&self) -> std::slice::Chunks<'a, u8> {
        self.data.chunks(self.stride())
    }
}

/// How far a send got.
///
/// A datagram is *done with* when the kernel has taken it or when it was given up on: there is no use in
/// offering it again. Everything was done with when `runs` is the number of runs offered; if not, the socket
/// is full, and the caller goes on with `transmits[runs].rest(bytes)` when it is writable again.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub struct Sent {
    /// Runs done with entirely.
    pub runs: usize,
    /// Bytes done with of the run after those; a multiple of its segment.
    pub bytes: usize,
    /// Datagrams that the kernel took.
    pub datagrams: usize,
    /// Datagrams that were given up on.
    pub lost: usize,
    /// Why the last of them was.
    pub trouble: Option<Trouble>,
}

/// Why the kernel would not take a datagram. None of these says anything about the next one.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Trouble {
    /// Longer than a datagram may be on this path, and not to be cut into fragments.
    TooLong,
    /// An earlier datagram met a port that nobody listens on (learned from an ICMP message).
    Refused,
    /// No route to the network or host, or no such network at the moment.
    Unreachable,
    /// The system is out of buffers; the queue of the network device may be full.
    NoBuffers,
    /// A firewall rule of this host forbids it.
    NotPermitted,
    /// Raw TCP: there is no accepted connection of that peer.
    NoFlow,
    /// Any other error, by the system's number.
    Other(i32),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => f.write_str("datagram too long for the path"),
            Self::Refused => f.write_str("port refused"),
            Self::Unreachable => f.write_str("network or host unreachable"),
            Self::NoBuffers => f.write_str("out of buffers"),
            Self::NotPermitted => {
                f.write_str("not permitted, perhaps by a firewall rule of this host")
            }
            Self::NoFlow => f.write_str("no connection of that peer"),
            Self::Other(number) => write!(f, "{}", std::io::Error::from_raw_os_error(*number)),
        }
    }
}

/// What is known of a run that arrived.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct RecvMeta {
    /// The sender. An IPv4 sender on a dual-stack socket is IPv4.
    pub src: SocketAddr,
    /// Which of our addresses it was sent to, where the system tells.
    pub dst_ip: Option<IpAddr>,
    /// Congestion bits of the datagrams, where the system tells.
    pub ecn: Option<Ecn>,
    /// Bytes of the whole run; at least 1.
    pub len: usize,
    /// Bytes of each datagram but the last, which may be shorter; between 1 and `len`.
    pub segment: usize,
    /// Which buffer it is in, and where.
    pub(crate) buffer: usize,
    pub(crate) offset: usize,
}

impl RecvMeta {
    /// A value to fill the array of metas with.
    pub const EMPTY: Self = Self {
        src: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        dst_ip: None,
        ecn: None,
        len: 0,
        segment: 0,
        buffer: 0,
        offset: 0,
    };

    /// Number of datagrams.
    #[must_use]
    pub const fn datagrams(&self) -> usize {
        if self.segment == 0 {
            0
        } else {
            self.len.div_ceil(self.segment)
        }
    }

    /// Whether `next` can stand behind it in one run.
    fn takes(&self, next: &Self) -> bool {
        next.segment == next.len
            && next.len <= self.segment
            && self.segment <= ONE_DATAGRAM
            && self.len.is_multiple_of(self.segment)
            && self.src == next.src
            && self.dst_ip == next.dst_ip
            && self.ecn == next.ecn
    }
}

impl Default for RecvMeta {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// Large buffers that runs are received into.
///
/// Where the kernel does not put a peer's datagrams together, `recv` does, at the price of a copy: what
/// comes after handles runs, whoever made them.
#[derive(Debug)]
pub struct RecvBuffers {
    /// All buffers, side by side.
    arena: Box<[u8]>,
    /// Bytes of each.
    len: usize,
    /// How many to offer to the kernel in the next call.
    offered: usize,
    /// The last call left buffers empty.
    drained: bool,
}

impl RecvBuffers {
    /// `count` buffers (at least one) of [`RECV_BUFFER_LEN`] bytes.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self::with_len(count, RECV_BUFFER_LEN)
    }

    /// `count` buffers (at least one) of `len` bytes (at least 2048).
    ///
    /// A run that does not fit into a buffer loses the datagrams that do not; they are counted.
    #[must_use]
    pub fn with_len(count: usize, len: usize) -> Self {
        let (count, len) = (count.max(1), len.max(2048));
        Self {
            // One allocation of zeroes, large enough to come from the system page by page, when touched.
            arena: vec![0; count * len].into_boxed_slice(),
            len,
            offered: count.min(BUFFERS_OF_RUNS),
            drained: false,
        }
    }

    /// Whether the last `recv` found less than it had buffers for, so that there was nothing more.
    #[must_use]
    pub const fn drained(&self) -> bool {
        self.drained
    }

    /// Gives the memory behind the buffers back to the system, where that is possible. What was received is gone.
    pub fn release(&mut self) {
        crate::sys::forget_pages(&mut self.arena);
    }

    /// The bytes of a run of the last `recv`, to be opened in place.
    ///
    /// Empty if `meta` does not come from a `recv` into these buffers.
    pub fn run_mut(&mut self, meta: &RecvMeta) -> &mut [u8] {
        match self.range(meta) {
            Some(range) => &mut self.arena[range],
            None => &mut [],
        }
    }

    /// The bytes of a run of the last `recv`.
    #[must_use]
    pub fn run(&self, meta: &RecvMeta) -> &[u8] {
        self.range(meta).map_or(&[], |range| &self.arena[range])
    }

    fn range(&self, meta: &RecvMeta) -> Option<std::ops::Range<usize>> {
        let end = meta.offset.checked_add(meta.len)?;
        let start = meta.buffer.checked_mul(self.len)?;
        (end <= self.len && start < self.arena.len()).then(|| start + meta.offset..start + end)
    }

    /// The buffers to receive into with the next call.
    pub(crate) fn offer(&mut self) -> impl ExactSizeIterator<Item = &mut [u8]> {
        self.arena.chunks_exact_mut(self.len).take(self.offered)
    }

    /// All buffers.
    #[cfg(test)]
    pub(crate) fn all(&mut self) -> impl ExactSizeIterator<Item = &mut [u8]> {
        self.arena.chunks_exact_mut(self.len)
    }

    /// Puts neighbours of one peer together that make a run: equal datagrams, the last perhaps shorter. Returns how
    /// many runs are left; they are the first ones of `metas`, in order. `filled` is the number of buffers that the
    /// last call filled.
    pub(crate) fn join(&mut self, metas: &mut [RecvMeta], filled: usize) -> usize {
        self.drained = filled < self.offered;
        if metas.iter().any(|m| m.len > ONE_DATAGRAM) {
            self.offered = self.offered.min(BUFFERS_OF_RUNS);
        } else if filled >= self.offered {
            self.offered = self.arena.len() / self.len;
        }
        let mut runs = 0_usize;
        for i in 0..metas.len() {
            let meta = metas[i];
            if let Some(last) = runs.checked_sub(1).map(|last| &mut metas[last])
                && last.takes(&meta)
                && last.offset + last.len + meta.len <= self.len
                && let Some(from) = self.range(&meta)
            {
                let to = last.buffer * self.len + last.offset + last.len;
                self.arena.copy_within(from, to);
                last.len += meta.len;
                continue;
            }
            metas[runs] = meta;
            runs += 1;
        }
        runs
    }
}

impl Default for RecvBuffers {
    fn default() -> Self {
        Self::new(DEFAULT_BUFFERS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_knows_its_datagrams() {
        let dst = SocketAddr::from(([127, 0, 0, 1], 9));
        let data = [7_u8; 25];
        let run = Transmit {
            dst,
            src_ip: None,
            ecn: None,
            segment: 10,
            probe: false,
            data: &data,
        };
        assert_eq!(run.datagrams(), 3);
        assert_eq!(run.iter().map(<[u8]>::len).collect::<Vec<_>>(), [10, 10, 5]);
        assert_eq!(run.rest(20).datagrams(), 1);
        assert_eq!(run.rest(25).datagrams(), 0);
        assert_eq!(run.rest(99).datagrams(), 0);
        assert_eq!(Transmit { segment: 0, ..run }.datagrams(), 1);
        assert_eq!(
            Transmit {
                segment: 0,
                data: &[],
                ..run
            }
            .datagrams(),
            0
        );
    }

    #[test]
    fn ecn_bits_round_trip() {
        for bits in 0..=3 {
            assert_eq!(Ecn::from_bits(bits | 0xb8).map_or(0, Ecn::bits), bits);
        }
    }

    #[test]
    fn neighbours_of_one_peer_become_runs() {
        let peer = |n: u8| SocketAddr::from(([10, 0, 0, n], 9));
        let sizes = [
            (1, 1000),
            (1, 1000),
            (1, 400),
            (1, 1000),
            (2, 1000),
            (1, 1000),
            (1, 1001),
        ];
        let mut buffers = RecvBuffers::with_len(8, 2500);
        for (i, buffer) in buffers.all().enumerate() {
            buffer.fill(u8::try_from(i).expect("few"));
        }
        let mut metas: Vec<_> = (0..)
            .zip(sizes)
            .map(|(buffer, (n, len))| RecvMeta {
                src: peer(n),
                len,
                segment: len,
                buffer,
                ..RecvMeta::EMPTY
            })
            .collect();
        let runs = buffers.join(&mut metas, sizes.len());
        let seen: Vec<_> = metas[..runs]
            .iter()
            .map(|m| {
                let firsts = buffers.run(m).chunks(m.segment).map(|d| d[0]);
                (m.src, m.segment, m.len, firsts.collect::<Vec<_>>())
            })
            .collect();
        assert_eq!(
            seen,
            [
                (peer(1), 1000, 2400, vec![0, 1, 2]),
                (peer(1), 1000, 1000, vec![3]),
                (peer(2), 1000, 1000, vec![4]),
                (peer(1), 1000, 1000, vec![5]),
                (peer(1), 1001, 1001, vec![6]),
            ]
        );
    }

    #[test]
    fn a_run_stays_in_its_buffer() {
        let mut buffers = RecvBuffers::with_len(4, 2500);
        let mut metas: Vec<_> = (0..3)
            .map(|buffer| RecvMeta {
                len: 1000,
                segment: 1000,
                buffer,
                ..RecvMeta::EMPTY
            })
            .collect();
        assert_eq!(buffers.join(&mut metas, 3), 2);
        assert_eq!((metas[0].len, metas[1].len), (2000, 1000));
    }

    #[test]
    fn few_buffers_are_offered_while_the_kernel_makes_runs() {
        let meta = |len, segment| RecvMeta {
            len,
            segment,
            ..RecvMeta::EMPTY
        };
        let mut buffers = RecvBuffers::new(DEFAULT_BUFFERS);
        assert_eq!(buffers.offer().len(), BUFFERS_OF_RUNS);
        buffers.join(&mut [meta(1000, 1000)], 1);
        assert_eq!(buffers.offer().len(), BUFFERS_OF_RUNS);
        buffers.join(&mut [meta(1000, 1000); BUFFERS_OF_RUNS], BUFFERS_OF_RUNS);
        assert_eq!(buffers.offer().len(), DEFAULT_BUFFERS);
        buffers.join(&mut [meta(60_000, 1000)], 1);
        assert_eq!(buffers.offer().len(), BUFFERS_OF_RUNS);
    }

    #[test]
    fn released_buffers_can_be_used_again() {
        let mut buffers = RecvBuffers::new(4);
        buffers.all().for_each(|b| b.fill(1));
        buffers.release();
        buffers.all().for_each(|b| b.fill(2));
        assert!(buffers.all().all(|b| b.iter().all(|&x| x == 2)));
    }

    #[test]
    fn a_stray_meta_finds_no_bytes() {
        let mut buffers = RecvBuffers::with_len(1, 2048);
        let stray = |buffer, offset, len| RecvMeta {
            buffer,
            offset,
            len,
            segment: len,
            ..RecvMeta::EMPTY
        };
        assert_eq!(buffers.run(&stray(0, 0, 2048)).len(), 2048);
        assert_eq!(buffers.run_mut(&stray(1, 0, 1)).len(), 0);
        assert_eq!(buffers.run_mut(&stray(0, 2000, 49)).len(), 0);
        assert_eq!(buffers.run_mut(&stray(0, usize::MAX, 2)).len(), 0);
    }
}
