//! The numbers of one link's segments.
//!
//! Receivers look at none of them (docs/spec/kcptun-libev.md, section 13.2), and the original sends constant ones with `dpi/tcp-wnd`. These grow,
//! as those of a connection do, within what stands on the path and tracks connections would let pass:
//!
//! * With `dpi/tcp-wnd` data lies beyond what the peer's kernel takes, or that would mistake it for its own: it begins
//!   [`BEYOND`] bytes behind the peer's first acknowledgement, and never comes there again when the numbers wrap.
//!   When it would get further ahead of what the peer has acknowledged than the window that both announce, it goes back
//!   to that number, as a TCP that retransmits does. The original acknowledges nothing, so towards it the numbers
//!   go round within one window.
//! * With `dpi/tcp` they are plain sums (section 13.5).

use fulmar_wire::libev_obfs::{BEYOND, WINDOW_ALONE, WINDOW_BESIDE};
use fulmar_wire::rawtcp::{Flags, Header, Options};
use fulmar_wire::seq::Seq;

/// "Congestion was seen by me" in a segment.
pub(super) const ECE: Flags = Flags(0x40);

/// What the kernels take of a narrow connection.
const KERNEL_WINDOW: u32 = 1152;

/// The furthest ahead of the peer's acknowledgement that we send, in bytes: what both ends announce.
const MOST_AHEAD: i32 = WINDOW_BESIDE.cast_signed() as i32;

/// Numbers so close before the kernel's own that they are not used.
const GAP: u32 = 1 << 17;

/// The longest jump forward of a peer's number that is believed, in bytes; anything else is noise.
const BELIEVED_JUMP: i32 = 1 << 24;

/// The numbers of one link.
#[derive(Copy, Clone, Debug)]
pub(super) struct Flow {
    local_port: u16,
    remote_port: u16,
    /// Beside a connection of the kernels, or alone.
    beside: bool,
    /// Whether the peer's first segment has told what is needed to send.
    open: bool,
    /// Beside: how far behind the peer's first acknowledgement data begins. Alone: nothing.
    beyond: u32,
    /// Where data begins.
    base: Seq,
    /// Of the next byte to send.
    next: Seq,
    /// Up to where was sent.
    highest: Seq,
    /// What the peer has acknowledged.
    acked: Seq,
    /// What we acknowledge.
    ack: Seq,
    /// The next segment says that congestion was seen.
    congested: bool,
    /// How often our window was announced.
    announced: u8,
}

impl Flow {
    /// Beside a connection of the kernels, of which ours says `spoken` bytes.
    pub(super) fn beside(local_port: u16, remote_port: u16, spoken: usize) -> Self {
        let spoken = u32::try_from(spoken).unwrap_or(u32::MAX);
        Self {
            local_port,
            remote_port,
            beside: true,
            open: false,
            beyond: BEYOND.max(spoken.saturating_add(KERNEL_WINDOW + 124)),
            base: Seq(0),
            next: Seq(0),
            highest: Seq(0),
            acked: Seq(0),
            ack: Seq(0),
            congested: false,
            announced: 0,
        }
    }

    /// A client's without any connection, whose first segment has that number.
    pub(super) fn dialling(local_port: u16, remote_port: u16, first: Seq) -> Self {
        Self {
            beside: false,
            beyond: 0,
            base: first.next(),
            next: first.next(),
            highest: first.next(),
            acked: first.next(),
            ..Self::beside(local_port, remote_port, 0)
        }
    }

    /// A server's without any connection, that answers a first segment numbered `theirs` with one numbered `first`.
    pub(super) fn answering(local_port: u16, remote_port: u16, first: Seq, theirs: Seq) -> Self {
        Self {
            open: true,
            ack: theirs.next(),
            ..Self::dialling(local_port, remote_port, first)
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// Alone: whether `header` answers our first segment. Opens the flow if so.
    pub(super) fn on_answer(&mut self, header: &Header) -> bool {
        if self.beside || header.ack != self.base {
            return false;
        }
        if !self.open {
            self.ack = header.seq.next();
        }
        self.open = true;
        true
    }

    /// Learns from a segment of the peer that carries `len` bytes.
    pub(super) fn on_segment(&mut self, header: &Header, len: usize) {
        let len = u32::try_from(len).unwrap_or(0);
        if header.flags.has(Flags::RST) || !header.flags.has(Flags::ACK) {
            return;
        }
        let made = header.flags.has(Flags::PSH)
            && !header.flags.has(Flags::SYN)
            && (!self.beside || header.window == WINDOW_BESIDE);
        let end = header.seq.plus(len);
        if !self.open {
            self.open = true;
            self.ack = if made { end } else { header.seq.next() };
            if self.beside {
                self.base = header.ack.plus(self.beyond);
                self.next = self.base;
                self.highest = self.base;
                self.acked = self.base;
            }
            return;
        }
        if !made {
            return;
        }
        if self.beside {
            // The first of the peer's own making may be anywhere behind what its kernel says.
            if (0..BELIEVED_JUMP).contains(&end.diff(self.ack)) {
                self.ack = end;
            }
            if header.ack.diff(self.acked) > 0 && header.ack.diff(self.highest) <= 0 {
                self.acked = header.ack;
            }
        } else {
            self.ack = end;
        }
    }

    /// Beside: an empty segment that announces our window, in answer to one of the peer's kernel that carries `len` bytes.
    ///
    /// A NAT or firewall that tracks the connection knows the narrow windows of the kernels only, and takes data beyond
    /// them for invalid: Linux passes datagrams of up to some 800 bytes, and none that is longer. To the peer's kernel it
    /// is a plain acknowledgement. Said a few times, as it may get lost.
    pub(super) fn announcement(&mut self, header: &Header, len: usize) -> Option<Header> {
        const TIMES: u8 = 4;
        let ending = header.flags.has(Flags::RST) || header.flags.has(Flags::FIN);
        if !self.beside
            || self.announced >= TIMES
            || header.window == WINDOW_BESIDE
            || ending
            || !header.flags.has(Flags::ACK)
        {
            return None;
        }
        self.announced += 1;
        let len = u32::try_from(len).ok()? + u32::from(header.flags.has(Flags::SYN));
        Some(self.header(header.ack, header.seq.plus(len), Flags::ACK))
    }

    /// The next segment says that a router on the path was congested.
    pub(super) fn on_congestion(&mut self) {
        self.congested = self.beside;
    }

    /// The header of the next segment, which carries `len` bytes; none while nothing can be sent.
    pub(super) fn next_header(&mut self, len: usize) -> Option<Header> {
        if !self.open {
            return None;
        }
        let len = u32::try_from(len).ok()?;
        if self.beside {
            if self.next.plus(len).diff(self.acked) > MOST_AHEAD {
                self.next = self.acked;
            }
            let used = self.next.0.wrapping_sub(self.base.0);
            if used > u32::MAX - GAP {
                self.next = self.base;
                self.acked = self.base;
                self.highest = self.base;
            }
        }
        let flags = if std::mem::take(&mut self.congested) {
            Flags::DATA.with(ECE)
        } else {
            Flags::DATA
        };
        let header = self.header(self.next, self.ack, flags);
        self.next = self.next.plus(len);
        if self.next.diff(self.highest) > 0 {
            self.highest = self.next;
        }
        Some(header)
    }

    /// Alone: a client's first segment.
    pub(super) fn first(&self) -> Header {
        self.header(Seq(self.base.0.wrapping_sub(1)), Seq(0), Flags::SYN)
    }

    /// Alone: a server's answer to it.
    pub(super) fn answer(&self, theirs: Seq) -> Header {
        self.header(
            Seq(self.base.0.wrapping_sub(1)),
            theirs.next(),
            Flags::SYN.with(Flags::ACK),
        )
    }

    fn header(&self, seq: Seq, ack: Seq, flags: Flags) -> Header {
        Header {
            src_port: self.local_port,
            dst_port: self.remote_port,
            seq,
            ack,
            flags,
            window: if self.beside {
                WINDOW_BESIDE
            } else {
                WINDOW_ALONE
            },
            options: Options::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(seq: u32, ack: u32, flags: Flags, window: u16) -> Header {
        Header {
            src_port: 2,
            dst_port: 1,
            seq: Seq(seq),
            ack: Seq(ack),
            flags,
            window,
            options: Options::None,
        }
    }

    const SYN_ACK: Flags = Flags(0x12);

    #[test]
    fn beside_a_connection_it_begins_as_theirs() {
        let mut flow = Flow::beside(1, 2, 216);
        assert!(flow.next_header(9).is_none());
        // Says nothing of what we have sent.
        flow.on_segment(&segment(7, 0, Flags::SYN, 1152), 0);
        flow.on_segment(&segment(7, 1000, Flags::RST.with(Flags::ACK), 0), 0);
        assert!(!flow.is_open());
        flow.on_segment(&segment(2_701_797_026, 3_274_203_555, SYN_ACK, 1152), 0);
        let header = flow.next_header(63).expect("open");
        assert_eq!(
            (header.seq.0, header.ack.0, header.window, header.flags),
            (3_274_205_047, 2_701_797_027, 32_748, Flags::DATA)
        );
        flow.on_congestion();
        assert_eq!(
            flow.next_header(1).expect("open").flags,
            Flags::DATA.with(ECE)
        );
        assert_eq!(flow.next_header(1).expect("open").flags, Flags::DATA);
        // A longer request moves the peer's window further.
        let mut flow = Flow::beside(1, 2, 500);
        flow.on_segment(&segment(0, 0, SYN_ACK, 1152), 0);
        assert!(flow.next_header(1).expect("open").seq.0 > 500 + 1152);
    }

    #[test]
    fn the_window_is_announced_to_kernels_only() {
        let mut flow = Flow::beside(1, 2, 216);
        let theirs = segment(100, 5000, SYN_ACK, 1152);
        let ours = flow.announcement(&theirs, 0).expect("said");
        assert_eq!(
            (ours.seq.0, ours.ack.0, ours.flags),
            (5000, 101, Flags::ACK)
        );
        assert_eq!(ours.window, WINDOW_BESIDE);
        assert!(
            flow.announcement(&segment(1, 2, Flags::ACK, WINDOW_BESIDE), 0)
                .is_none()
        );
        assert!(
            flow.announcement(&segment(1, 2, Flags::SYN, 1152), 0)
                .is_none()
        );
        assert!(
            flow.announcement(&segment(1, 2, Flags(0x11), 1152), 0)
                .is_none()
        );
        for _ in 0..3 {
            let ours = flow.announcement(&segment(101, 5216, Flags::DATA, 936), 103);
            assert_eq!(ours.map(|h| (h.seq.0, h.ack.0)), Some((5216, 204)));
        }
        assert!(flow.announcement(&theirs, 0).is_none());
        let mut alone = Flow::answering(1, 2, Seq(3), Seq(4));
        assert!(alone.announcement(&theirs, 0).is_none());
    }

    #[test]
    fn numbers_stay_within_the_window_and_out_of_the_kernels() {
        for acknowledges in [false, true] {
            let first = 3_000_000_000_u32;
            let mut flow = Flow::beside(1, 2, 216);
            flow.on_segment(&segment(50, first, SYN_ACK, 1152), 0);
            let mut acked = Seq(first).plus(BEYOND);
            let (mut jumps, mut total) = (0, 0_u64);
            while total < 5 << 30 {
                // Large steps, so that the test is short.
                let header = flow.next_header(16_000).expect("open");
                let from_kernel = header.seq.0.wrapping_sub(first);
                assert!(from_kernel >= BEYOND, "{header:?}");
                assert!(from_kernel < u32::MAX - 16_000);
                // Over the numbers of the kernel, once in 4 GiB.
                jumps += u32::from(header.seq.plus(16_000).diff(acked) > 32_748);
                if acknowledges {
                    acked = header.seq.plus(16_000);
                    flow.on_segment(&segment(9000, acked.0, Flags::DATA, WINDOW_BESIDE), 10);
                }
                total += 16_000;
            }
            assert_eq!(jumps, u32::from(acknowledges));
        }
    }

    #[test]
    fn acknowledgements_follow_the_peer() {
        let mut flow = Flow::beside(1, 2, 216);
        flow.on_segment(&segment(100, 5000, SYN_ACK, 1152), 0);
        // The kernel's own words are not of the stream.
        flow.on_segment(&segment(101, 5000, Flags::DATA, 936), 300);
        assert_eq!(flow.next_header(1).expect("open").ack.0, 101);
        flow.on_segment(&segment(1600, 5000, Flags::DATA, WINDOW_BESIDE), 300);
        assert_eq!(flow.next_header(1).expect("open").ack.0, 1900);
        flow.on_segment(&segment(1600, 5000, Flags::DATA, WINDOW_BESIDE), 100);
        assert_eq!(flow.next_header(1).expect("open").ack.0, 1900);
    }

    #[test]
    fn alone_they_are_sums() {
        let mut client = Flow::dialling(1, 2, Seq(u32::MAX));
        let first = client.first();
        assert_eq!(
            (first.seq.0, first.ack.0, first.flags),
            (u32::MAX, 0, Flags::SYN)
        );
        assert_eq!(first.window, 32_768);
        let mut server = Flow::answering(2, 1, Seq(70), first.seq);
        let answer = server.answer(first.seq);
        assert_eq!((answer.seq.0, answer.ack.0, answer.flags), (70, 0, SYN_ACK));
        assert!(client.next_header(1).is_none());
        assert!(!client.on_answer(&segment(70, 3, SYN_ACK, 1)));
        assert!(client.on_answer(&answer));
        let data = client.next_header(64).expect("open");
        assert_eq!((data.seq.0, data.ack.0), (0, 71));
        server.on_segment(&data, 64);
        let data = server.next_header(56).expect("open");
        assert_eq!((data.seq.0, data.ack.0), (71, 64));
        client.on_segment(&data, 56);
        let data = client.next_header(1).expect("open");
        assert_eq!((data.seq.0, data.ack.0), (64, 127));
    }
}
