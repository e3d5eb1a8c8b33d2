//! The numbers of one raw TCP flow: what makes its segments look like a connection to what stands on the
//! path.
//!
//! Nothing here is ever retransmitted; that is the business of the protocol inside. But a firewall or a NAT
//! that tracks connections drops segments beyond the window that the receiver announced, so:
//!
//! * Our sequence number advances with every byte sent. When it would get further ahead of what the peer has
//!   acknowledged than the window allows, it goes back to that number, as a TCP that retransmits does.
//! * Our acknowledgement number is the end of the newest segment that arrived. Lost ones count as arrived,
//!   because nobody will send them again. A peer that takes its own sequence number from it, as kcptun does,
//!   thereby advances as well.
//!
//! kcptun's acknowledgement number stops at the first lost segment and goes on only when a segment starts
//! exactly there (docs/spec/kcptun.md, section 13); going back to it, as above, is what sets it free again.

use std::time::Instant;

use fulmar_wire::rawtcp::{Flags, Header, Options, Timestamps, WINDOW};
use fulmar_wire::seq::Seq;

/// The furthest ahead of the peer's acknowledgement that we send, in bytes, however large a window the peer
/// announces. It need not be more: the acknowledgement lags by a round trip, and going back costs nothing.
const MOST_AHEAD: u32 = 1 << 20;

/// The longest jump forward of a peer's number that is believed, in bytes. Twice what it may get ahead of
/// us, in windows of the largest usual scale; anything else is noise or not for this flow.
const BELIEVED_JUMP: u32 = 1 << 24;

/// What the two kernels agreed on when they connected.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Agreed {
    /// By how many bits the peer's window is scaled, in all segments but SYNs.
    pub(crate) peer_scale: u8,
    /// Both sides send timestamps; what our kernel's clock says, in milliseconds.
    pub(crate) timestamps: Option<u32>,
}

/// The numbers of one flow.
#[derive(Debug)]
pub(crate) struct Flow {
    local_port: u16,
    remote_port: u16,
    /// The number of the next byte that we send; unknown until the peer's first segment tells.
    next: Option<Seq>,
    /// The highest number that we have sent up to.
    highest: Seq,
    /// What the peer has acknowledged.
    acked: Seq,
    /// The end of the newest segment of the peer.
    seen: Seq,
    /// The largest window that the peer has announced, at most [`MOST_AHEAD`].
    window: u32,
    peer_scale: u8,
    clock: Option<Clock>,
    /// The peer's clock as last seen.
    peer_clock: u32,
    /// Whether the peer's last segment had timestamps.
    peer_stamps: bool,
}

/// Our side's timestamps: the kernel's clock of this connection, continued.
#[derive(Copy, Clone, Debug)]
struct Clock {
    at_start: u32,
    start: Instant,
}

impl Flow {
    /// A flow whose numbers will be known from the peer's first segment.
    pub(crate) fn new(local_port: u16, remote_port: u16, agreed: Agreed, now: Instant) -> Self {
        Self {
            local_port,
            remote_port,
            next: None,
            highest: Seq(0),
            acked: Seq(0),
            seen: Seq(0),
            window: 0,
            // More than 14 is not allowed (RFC 7323).
            peer_scale: agreed.peer_scale.min(14),
            clock: agreed.timestamps.map(|at_start| Clock {
                at_start,
                start: now,
            }),
            peer_clock: 0,
            peer_stamps: agreed.timestamps.is_some(),
        }
    }

    /// Takes the numbers of a segment of the peer that carries `len` bytes (a SYN counts as one).
    pub(crate) fn on_segment(&mut self, header: &Header, len: usize) {
        let syn = usize::from(header.flags.has(Flags::SYN));
        let len = u32::try_from(len + syn).unwrap_or(0);
        let end = header.seq.plus(len);
        if self.next.is_none() {
            if !header.flags.has(Flags::ACK) {
                return;
            }
            self.next = Some(header.ack);
            self.highest = header.ack;
            self.acked = header.ack;
            self.seen = end;
        }
        let scale = if syn == 0 { self.peer_scale } else { 0 };
        self.window = self
            .window
            .max((u32::from(header.window) << scale).min(MOST_AHEAD));
        if is_ahead(end, self.seen) {
            self.seen = end;
        }
        // Never beyond what was sent: that would be another connection's, or a lie.
        if header.flags.has(Flags::ACK)
            && is_ahead(header.ack, self.acked)
            && self.highest.at_or_after(header.ack)
        {
            self.acked = header.ack;
            // After going back, what was under way before may still arrive.
            self.next = self.next.map(|next| {
                if next.before(self.acked) {
                    self.acked
                } else {
                    next
                }
            });
        }
        match header.options.timestamps() {
            Some(stamps) => {
                self.peer_clock = stamps.value;
                self.peer_stamps = true;
            }
            // The handshake has shown what the kernels do; datagrams show what the peer's program does.
            None => self.peer_stamps = self.peer_stamps && syn != 0,
        }
    }

    /// The header of the next segment, which carries `len` bytes; `None` while the numbers are unknown.
    pub(crate) fn next_header(&mut self, len: usize, flags: Flags, now: Instant) -> Option<Header> {
        let next = self.next?;
        let len = u32::try_from(len).unwrap_or(0);
        let ahead = next.plus(len).diff(self.acked);
        let seq = if u32::try_from(ahead).is_ok_and(|ahead| ahead > self.window) {
            self.acked
        } else {
            next
        };
        let end = seq.plus(len);
        self.next = Some(end);
        if self.highest.before(end) {
            self.highest = end;
        }
        Some(Header {
            src_port: self.local_port,
            dst_port: self.remote_port,
            seq,
            ack: self.seen,
            flags,
            window: WINDOW,
            options: self.options(now),
        })
    }

    /// The number of the next byte; with [`Flow::unsend`], for segments that the socket had no room for.
    pub(crate) fn position(&self) -> Option<Seq> {
        self.next
    }

    /// Makes the next segment start at `position` again.
    pub(crate) fn unsend(&mut self, position: Option<Seq>) {
        self.next = position.or(self.next);
    }

    /// Whether a segment that ends the connection is of the connection as the peer sees it now: its number
    /// is the one that we acknowledged last.
    pub(crate) fn is_current(&self, header: &Header) -> bool {
        self.next.is_some() && header.seq == self.seen
    }

    fn options(&self, now: Instant) -> Options {
        match self.clock {
            Some(clock) if self.peer_stamps => {
                // The wire's clock wraps by definition.
                let passed = now.saturating_duration_since(clock.start).as_millis() as u32;
                Options::Timestamps(Timestamps {
                    value: clock.at_start.wrapping_add(passed),
                    echo: self.peer_clock,
                })
            }
            _ => Options::None,
        }
    }
}

/// Whether `new` lies ahead of `old`, and not further than is believable.
fn is_ahead(new: Seq, old: Seq) -> bool {
    u32::try_from(new.diff(old)).is_ok_and(|by| by > 0 && by <= BELIEVED_JUMP)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn segment(seq: u32, ack: u32, options: Options) -> Header {
        Header {
            src_port: 2,
            dst_port: 1,
            seq: Seq(seq),
            ack: Seq(ack),
            flags: Flags::DATA,
            window: WINDOW,
            options,
        }
    }

    fn stamped(value: u32) -> Options {
        Options::LongTimestamps(Timestamps { value, echo: 0 })
    }

    fn flow(agreed: Agreed) -> (Flow, Instant) {
        let now = Instant::now();
        (Flow::new(1, 2, agreed, now), now)
    }

    #[test]
    fn numbers_advance_and_do_not_go_back() {
        let (mut flow, now) = flow(Agreed::default());
        assert_eq!(flow.next_header(10, Flags::DATA, now), None);
        // Close below the wrap in both directions.
        flow.on_segment(&segment(u32::MAX - 4, u32::MAX - 9, Options::None), 100);
        let send = |flow: &mut Flow, len| {
            let header = flow.next_header(len, Flags::DATA, now).expect("known");
            assert_eq!(
                (header.src_port, header.dst_port, header.window),
                (1, 2, u16::MAX)
            );
            (header.seq.0, header.ack.0)
        };
        assert_eq!(send(&mut flow, 20), (u32::MAX - 9, 95));
        assert_eq!(send(&mut flow, 20), (10, 95));
        // An old segment, and one after a loss.
        flow.on_segment(&segment(0, 10, Options::None), 5);
        assert_eq!(send(&mut flow, 0), (30, 95));
        flow.on_segment(&segment(5000, 10, Options::None), 50);
        assert_eq!(send(&mut flow, 0), (30, 5050));
        // Lies: an acknowledgement of what was never sent, a jump of gigabytes.
        flow.on_segment(&segment(5050, 5000, Options::None), 0);
        flow.on_segment(&segment(0x4000_0000, 10, Options::None), 50);
        assert_eq!(send(&mut flow, 1), (30, 5050));
    }

    #[test]
    fn the_window_is_kept_by_going_back() {
        for (peer_scale, window) in [(0, 65_535), (2, 4 * 65_535), (7, MOST_AHEAD)] {
            let (mut flow, now) = flow(Agreed {
                peer_scale,
                timestamps: None,
            });
            // The window of a SYN is not scaled.
            let mut syn = segment(6, 1000, Options::None);
            syn.flags = Flags::SYN.with(Flags::ACK);
            flow.on_segment(&syn, 0);
            assert_eq!(flow.window, 65_535);
            flow.on_segment(&segment(7, 1000, Options::None), 1);
            let mut furthest = 0;
            for _ in 0..window / 1000 * 3 {
                let seq = flow.next_header(1000, Flags::DATA, now).expect("known").seq;
                let end = seq.plus(1000).diff(Seq(1000));
                assert!(end <= i32::try_from(window).expect("fits"), "{end}");
                furthest = furthest.max(end);
            }
            assert!(furthest > i32::try_from(window).expect("fits") - 1000);
            // A peer that stopped at the first loss sees a segment that starts exactly there, and goes on.
            flow.on_segment(&segment(8, 3000, Options::None), 1);
            let mut starts = Vec::new();
            for _ in 0..window / 1000 + 2 {
                starts.push(flow.next_header(1000, Flags::DATA, now).expect("known").seq);
            }
            assert!(starts.contains(&Seq(3000)));
        }
    }

    #[test]
    fn after_going_back_a_late_acknowledgement_counts() {
        let (mut flow, now) = flow(Agreed::default());
        flow.on_segment(&segment(7, 0, Options::None), 1);
        for _ in 0..66 {
            flow.next_header(1000, Flags::DATA, now);
        }
        // It went back to 0 once; the peer had everything before that.
        flow.on_segment(&segment(8, 60_000, Options::None), 1);
        assert_eq!(
            flow.next_header(1000, Flags::DATA, now).expect("known").seq,
            Seq(60_000)
        );
    }

    #[test]
    fn timestamps_continue_the_kernels_clock_and_mirror_the_peer() {
        let (mut flow, now) = flow(Agreed {
            peer_scale: 7,
            timestamps: Some(u32::MAX - 1),
        });
        let options = |flow: &mut Flow, ms| {
            let header = flow
                .next_header(1, Flags::DATA, now + Duration::from_millis(ms))
                .expect("known");
            header.options
        };
        // A handshake whose SYN-ACK carries them.
        let mut syn = segment(7, 0, Options::Timestamps(Timestamps { value: 50, echo: 9 }));
        syn.flags = Flags::SYN.with(Flags::ACK);
        flow.on_segment(&syn, 0);
        assert_eq!(
            options(&mut flow, 1),
            Options::Timestamps(Timestamps {
                value: u32::MAX,
                echo: 50
            })
        );
        flow.on_segment(&segment(8, 0, stamped(77)), 5);
        assert_eq!(
            options(&mut flow, 3),
            Options::Timestamps(Timestamps { value: 1, echo: 77 })
        );
        // A peer of the form without options gets none either.
        flow.on_segment(&segment(13, 0, Options::None), 5);
        assert_eq!(options(&mut flow, 3), Options::None);
    }

    #[test]
    fn what_had_no_room_is_numbered_again() {
        let (mut flow, now) = flow(Agreed::default());
        flow.on_segment(&segment(7, 100, Options::None), 1);
        flow.next_header(10, Flags::DATA, now);
        let position = flow.position();
        flow.next_header(10, Flags::DATA, now);
        flow.unsend(position);
        assert_eq!(
            flow.next_header(10, Flags::DATA, now).expect("known").seq,
            Seq(110)
        );
    }

    #[test]
    fn only_the_current_number_ends_a_connection() {
        let (mut flow, _) = flow(Agreed::default());
        let mut reset = segment(8, 100, Options::None);
        reset.flags = Flags::RST;
        assert!(!flow.is_current(&reset));
        flow.on_segment(&segment(7, 100, Options::None), 1);
        assert!(flow.is_current(&reset));
        reset.seq = Seq(9);
        assert!(!flow.is_current(&reset));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn the_window_holds_whatever_the_peer_says(
            steps in proptest::collection::vec((any::<u32>(), any::<u32>(), 0_usize..70_000, any::<bool>()), 1..60)
        ) {
            let (mut flow, now) = flow(Agreed::default());
            for (seq, ack, len, from_peer) in steps {
                if from_peer {
                    flow.on_segment(&segment(seq, ack, Options::None), len);
                } else if let Some(header) = flow.next_header(len.min(60_000), Flags::DATA, now) {
                    let end = header.seq.plus(u32::try_from(len.min(60_000)).expect("fits"));
                    let ahead = end.diff(flow.acked);
                    prop_assert!((0..=65_535).contains(&ahead));
                }
            }
        }
    }
}
