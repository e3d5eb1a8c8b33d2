//! One stream: its two directions and what it has to say next.

use crate::event::{ReadState, ResetReason, StreamInfo, WriteState};
use crate::machine::Terms;
use crate::machine::class::Budget;
use crate::machine::schedule::Turn;
use crate::pool::Buf;
use fulmar_wire::time::Instant;

/// Our direction.
///
/// ```text
///           finish/close          drained, FIN emitted
///   Open ───────────────▶ Ending ─────────────────────▶ Ended
///    │  ▲ peer stops        │ ▲
///    │  └──▶ Stopped ───────┼─┘ finish/close (towards a peer without half-close)
///    │          │           │
///    └──────────┴───reset───┴──▶ Cut ── FIN emitted (peer without half-close) ──▶ Ended
/// ```
/// A Fulmar peer that reads nothing more takes us from any state to Ended: it needs no `FIN`. A private reset of both
/// directions, sent or received, sets [`Stream::gone`], which silences the stream in any state.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Outbound {
    /// The application writes.
    Open,
    /// Nothing more will be written; the buffer drains and then `FIN` leaves, unless it is held.
    Ending,
    /// `FIN` has been emitted, or the peer does not need it.
    Ended,
    /// The peer takes nothing more; it has not been told that we noticed.
    Stopped,
    /// Cut from here; the peer has not been told yet.
    Cut,
}

/// The peer's direction.
///
/// ```text
///          FIN received
///   Open ───────────────▶ Finished (buffered bytes remain readable)
///    ├──── private reset received ───▶ Reset
///    └──── close/reset from here ────▶ Discarded
/// ```
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Inbound {
    /// Bytes may come.
    Open,
    /// The peer ended its direction.
    Finished,
    /// The peer cut the stream.
    Reset(ResetReason),
    /// Nobody here wants the bytes.
    Discarded,
}

/// Who answers for a stream.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Holder {
    /// Opened by the peer, not yet handed to the application.
    Queue,
    /// The application.
    Application,
    /// Nobody: the multiplexer still has something to say about it, then forgets it.
    Nobody,
}

/// Events that wait to be handed out, one bit each, lowest first.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Changes(u8);

impl Changes {
    pub(super) const READABLE: Self = Self(1);
    pub(super) const WRITABLE: Self = Self(2);
    pub(super) const STOPPED: Self = Self(4);
    pub(super) const FINISHED: Self = Self(8);
    pub(super) const RESET: Self = Self(16);

    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) const fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub(super) const fn remove(&mut self, other: Self) {
        self.0 &= !other.0;
    }

    /// Takes the lowest out.
    pub(super) const fn take_first(&mut self) -> Self {
        let first = Self(self.0 & self.0.wrapping_neg());
        self.0 &= !first.0;
        first
    }
}

/// The next frame of a stream.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Next {
    Syn,
    Upd,
    /// At most so many bytes of payload.
    Psh(u32),
    Fin,
    Rst(ResetReason),
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) wire: u32,
    pub(super) holder: Holder,
    pub(super) changes: Changes,

    pub(super) outbound: Outbound,
    pub(super) unsent: Buf,
    /// Its place among the streams that send.
    pub(super) turn: Turn,
    /// What it may have sent more than once.
    pub(super) budget: Budget,
    /// `SYN`, or in yamux the acceptor's `ACK`, has not been emitted.
    pub(super) syn_due: bool,
    /// A window update has to be emitted.
    pub(super) update_due: bool,
    /// `FIN` waits for the peer's answer.
    pub(super) fin_held: bool,
    /// A writer waits for it to be empty: see [`Mux::starve`](super::Mux::starve).
    pub(super) starved: bool,
    /// Tell the peer that the stream is cut, or, with [`ResetReason::CLOSED`], that nobody reads here.
    pub(super) reset_due: Option<ResetReason>,
    /// Why the peer takes no more.
    pub(super) stopped: Option<ResetReason>,
    /// The peer has forgotten the stream or is told to: no frame may be emitted any more.
    pub(super) gone: bool,
    pub(super) sent: u64,
    pub(super) sent_at: Instant,
    /// What the peer takes.
    pub(super) flow: Flow,

    pub(super) inbound: Inbound,
    pub(super) unread: Buf,
    pub(super) read: u64,
    /// Bytes consumed since the last update.
    pub(super) read_untold: u32,
    pub(super) arrived_at: Instant,
    pub(super) read_at: Instant,

    /// When the timer of this stream runs out: of a held `FIN`, or of the last bytes of a closed stream.
    pub(super) timer: Option<Instant>,
}

/// What the peer takes.
#[derive(Copy, Clone, Debug)]
pub(super) enum Flow {
    /// Whatever comes: smux version 1.
    Unlimited,
    /// smux version 2 (docs/spec/kcptun.md, section 9.5): what it said last.
    Told { consumed: u32, window: u32 },
    /// yamux: so many bytes more.
    Credit(u32),
}

impl Stream {
    pub(super) const fn new(wire: u32, holder: Holder, flow: Flow, now: Instant) -> Self {
        Self {
            wire,
            holder,
            changes: Changes(0),
            outbound: Outbound::Open,
            unsent: Buf::new(),
            turn: Turn::new(),
            budget: Budget::new(now),
            syn_due: false,
            update_due: false,
            fin_held: false,
            starved: false,
            reset_due: None,
            stopped: None,
            gone: false,
            sent: 0,
            sent_at: now,
            flow,
            inbound: Inbound::Open,
            unread: Buf::new(),
            read: 0,
            read_untold: 0,
            arrived_at: now,
            read_at: now,
            timer: None,
        }
    }

    /// What the stream has to send now: control before data, data before the end.
    pub(super) fn next(&self, terms: Terms) -> Option<Next> {
        if self.gone {
            return None;
        }
        if self.syn_due {
            return Some(Next::Syn);
        }
        // In yamux what was written goes before what says that nobody reads.
        let says_all = !terms.yamux || matches!(self.outbound, Outbound::Cut | Outbound::Ended);
        if let Some(reason) = self.reset_due
            && terms.resets()
            && says_all
        {
            return Some(Next::Rst(reason));
        }
        if self.update_due {
            return Some(Next::Upd);
        }
        if !self.unsent.is_empty() {
            return match self.window() {
                0 => None,
                window => Some(Next::Psh(window)),
            };
        }
        match self.outbound {
            Outbound::Ending if !self.fin_held => Some(Next::Fin),
            Outbound::Cut if terms.cuts_by_fin() => Some(Next::Fin),
            _ => None,
        }
    }

    /// Whether nobody needs the stream any more.
    pub(super) fn is_over(&self, terms: Terms) -> bool {
        let said_all = self.outbound == Outbound::Ended
            && (self.reset_due.is_none() || terms.cuts_by_fin())
            // In yamux who goes on sending has to be told.
            && (!terms.yamux || self.inbound == Inbound::Finished);
        self.holder == Holder::Nobody && (self.gone || said_all)
    }

    /// Bytes that the peer's window lets go.
    pub(super) const fn window(&self) -> u32 {
        match self.flow {
            Flow::Unlimited => u32::MAX,
            Flow::Told { consumed, window } => window.saturating_sub(self.in_flight(consumed)),
            Flow::Credit(left) => left,
        }
    }

    /// So many bytes leave.
    pub(super) const fn send(&mut self, n: usize) {
        self.sent += n as u64;
        if let Flow::Credit(left) = &mut self.flow {
            *left = left.saturating_sub(n as u32);
        }
    }

    /// Bytes sent beyond `consumed`, which wraps as the counter on the wire does.
    pub(super) const fn in_flight(&self, consumed: u32) -> u32 {
        (self.sent as u32).wrapping_sub(consumed)
    }

    /// When either direction last moved.
    pub(super) fn moved_at(&self) -> Instant {
        self.sent_at.max(self.arrived_at).max(self.read_at)
    }

    pub(super) const fn read_state(&self) -> ReadState {
        match self.inbound {
            Inbound::Open => ReadState::Open,
            Inbound::Finished if self.unread.is_empty() => ReadState::Finished,
            Inbound::Finished => ReadState::Open,
            Inbound::Reset(reason) => ReadState::Reset(reason),
            Inbound::Discarded => ReadState::Closed,
        }
    }

    pub(super) const fn write_state(&self) -> WriteState {
        if let Some(reason) = self.stopped {
            return WriteState::Stopped(reason);
        }
        match self.outbound {
            Outbound::Open => WriteState::Open,
            Outbound::Ending => WriteState::Finishing,
            Outbound::Ended => WriteState::Finished,
            Outbound::Stopped | Outbound::Cut => WriteState::Closed,
        }
    }

    pub(super) const fn info(&self) -> StreamInfo {
        StreamInfo {
            write: self.write_state(),
            read: self.read_state(),
            unsent: self.unsent.len(),
            unread: self.unread.len(),
            sent: self.sent,
            read_total: self.read,
            window_closed: !self.unsent.is_empty() && self.window() == 0,
            sent_at: self.sent_at,
            arrived_at: self.arrived_at,
            read_at: self.read_at,
        }
    }
}

#[cfg(test)]
mod tests {
    /// There may be many thousands.
    #[test]
    #[cfg(target_pointer_width = "64")]
    fn a_stream_is_small() {
        assert!(size_of::<super::Stream>() <= 160);
    }
}
