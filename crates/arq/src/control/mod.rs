//! The seam where it is decided what may be sent and when.
//!
//! The machine keeps segments, numbers, acknowledgements and clocks. Everything that is a *choice* of the sender is asked
//! of a [`SenderControl`]: how many segments may be in flight, when the next may leave, which evidence is enough to send one
//! again, and how long one then waits. In return it is told what was sent, delivered, found lost or timed out. A receiver
//! accepts any pattern within its window, so strategies can differ freely between the two ends.
//!
//! | strategy | what it is |
//! |---|---|
//! | [`Classic`] | KCP as it was: the profiles of kcptun, exact |
//! | [`Auto`] | measures the path: paced, losses by time, copies for what is sparse |
//!
//! # Writing another one
//!
//! Add a file beside `classic.rs` with a type that implements [`SenderControl`], a variant of [`Strategy`], and a way to name
//! it in [`Config::strategy`](crate::Config::strategy); `cargo nextest run -p fulmar-session auto_tables` then shows what it
//! does over loss, round trip, rate and queue. docs/design/sender.md says what `auto` does and why.
//!
//! Methods come in three kinds. All have a default that does what KCP does, so a strategy overrides what it changes.
//!
//! 1. *Choices*, asked often, that must not change anything: [`window`](SenderControl::window),
//!    [`flight_limit`](SenderControl::flight_limit), [`queue_limit`](SenderControl::queue_limit),
//!    [`next_send_time`](SenderControl::next_send_time), [`resend`](SenderControl::resend), [`copies`](SenderControl::copies),
//!    [`ack_delay`](SenderControl::ack_delay).
//! 2. *Times* that become part of the machine's timer: [`next_send_time`](SenderControl::next_send_time),
//!    [`overdue_at`](SenderControl::overdue_at), [`probe_at`](SenderControl::probe_at).
//! 3. *News*, told in the order in which it happened: [`on_sent`](SenderControl::on_sent) for each transmission,
//!    [`on_delivered`](SenderControl::on_delivered) for each segment and [`on_echo`](SenderControl::on_echo) for each
//!    acknowledgement, [`on_acked`](SenderControl::on_acked) once per datagram, [`on_lost`](SenderControl::on_lost),
//!    [`on_timeout`](SenderControl::on_timeout), [`on_flush`](SenderControl::on_flush) and [`on_flushed`](SenderControl::on_flushed) once per flush,
//!    [`on_drained`](SenderControl::on_drained) when the application has nothing more to send.

use std::time::Duration;

use fulmar_wire::seq::Seq;
use fulmar_wire::time::{Instant, Millis};

pub mod auto;
mod classic;

pub use auto::Auto;
pub use classic::Classic;

/// Why a segment is transmitted.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Cause {
    /// For the first time.
    First,
    /// `resend` later segments have been acknowledged.
    Fast,
    /// Some later segment has been acknowledged, and there is nothing new to send.
    Early,
    /// A strategy's clock says that it is lost ([`SenderControl::lost_before`]).
    Overdue,
    /// Its retransmission timeout has passed.
    Timeout,
    /// Nothing has been acknowledged for a while: it is sent again for its acknowledgement ([`SenderControl::probe_at`]).
    Probe,
}

/// What speaks for sending a segment again.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Evidence {
    /// Acknowledgements of later segments since the last transmission that counts; stops at
    /// [`SenderControl::skip_threshold`] (at 1 when that is 0). 0 after a fast or early retransmission, until the next timeout.
    pub skipped: u32,
    /// Its retransmission timeout has passed.
    pub expired: bool,
    /// It was last sent at or before [`SenderControl::lost_before`].
    pub overdue: bool,
    /// This flush numbered new segments.
    pub new_data: bool,
}

/// The sizes that limit a window, in segments.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Configured.
    pub snd_wnd: u32,
    /// Last told by the other side.
    pub rmt_wnd: u32,
}

/// One transmission.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Sent {
    /// Which segment.
    pub sn: Seq,
    /// Payload bytes.
    pub len: usize,
    /// Why.
    pub cause: Cause,
    /// Segments sent and unacknowledged, this one included.
    pub in_flight: u32,
    /// Segments from the oldest unacknowledged one to this one: what a window limits.
    pub outstanding: u32,
    /// How often it has been transmitted, this time included.
    pub transmissions: u32,
    /// All of it belongs to flows that are sparse, so that its latency is worth more than its bytes.
    pub sparse: bool,
}

/// One segment that turned out to be delivered.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Delivered {
    /// Which segment.
    pub sn: Seq,
    /// Payload bytes.
    pub len: usize,
    /// When it was last transmitted.
    pub sent: Millis,
    /// How often it was transmitted.
    pub transmissions: u32,
    /// How it is known.
    pub source: Source,
}

/// How it is known that a segment has arrived.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// An acknowledgement of its own, which echoes the time of the transmission that arrived.
    Echo(Millis),
    /// A range in an acknowledgement ([`crate::Kcp::send_ack_ranges`]): one of its transmissions arrived not long ago.
    Range,
    /// Everything up to a later one has arrived; it may have been the first of them.
    Una,
}

/// What one datagram acknowledged.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Acked {
    /// Segments that were in flight and are no longer.
    pub segments: u32,
    /// Their payload bytes.
    pub bytes: u64,
    /// Whether `snd_una` moved.
    pub advanced: bool,
    /// A round trip measured by it, in milliseconds. Free of ambiguity: the time is echoed.
    pub rtt_ms: Option<u32>,
    /// Segments still in flight.
    pub in_flight: u32,
    /// The other side's window now.
    pub rmt_wnd: u32,
}

/// What one flush sent again, for one kind of reason.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Lost {
    /// How many segments.
    pub segments: u32,
    /// `snd_nxt - snd_una`.
    pub outstanding: u32,
    /// The window that this flush worked with.
    pub window: u32,
}

/// Numbers for the status page; zeros where a strategy has none.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Congestion {
    /// Congestion window, in segments.
    pub cwnd: u32,
    /// Slow-start threshold, in segments.
    pub ssthresh: u32,
    /// Bytes gathered towards the next increase.
    pub incr: u32,
}

/// What a strategy has found out about the path, for decisions above and for display.
#[derive(Copy, Clone, PartialEq, Debug, Default)]
pub struct PathStats {
    /// Bytes per second that the path delivers, headers included; 0 before it is known.
    pub bandwidth: u64,
    /// Bytes per second at which data leaves now.
    pub pacing_rate: u64,
    /// Shortest round trip of late.
    pub min_rtt: Duration,
    /// Smoothed round trip.
    pub srtt: Duration,
    /// Limit of segments in flight.
    pub flight_limit: u32,
    /// Share of what is sent that gets lost without the sender's fault, 0 to 1.
    pub loss: f32,
    /// Packets that [`Self::loss`] rests on.
    pub loss_samples: u32,
    /// Mean number of packets that are lost in a row, at least 1.
    pub burst: f32,
    /// There was more to send of late than the path takes.
    pub network_limited: bool,
    /// What it is doing: `startup`, `drain`, `cruise`, `probe-up`, `probe-rtt`; empty when a strategy has no phases.
    pub phase: &'static str,
    /// Retransmissions that turned out to be needless.
    pub spurious: u64,
    /// Probes of a silent path.
    pub probes: u64,
}

/// What became of large and of small segments since the last look, for whoever searches the size that a path carries.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Sizes {
    /// A full segment has arrived.
    pub large_delivered: bool,
    /// One of at most a third of the full size has.
    pub small_delivered: bool,
    /// Full segments that were lost after the latest that arrived.
    pub large_lost: u32,
}

/// See the module.
pub trait SenderControl {
    /// How far `snd_nxt` may run ahead of `snd_una`, in segments.
    fn window(&self, now: Instant, limits: Limits) -> u32;

    /// Segments in flight above which no new data leaves. What is sent again is not held back by it.
    #[inline]
    fn flight_limit(&self) -> u32 {
        u32::MAX
    }

    /// Segments that may wait for their first transmission before [`crate::Kcp::has_room`] says no. Few keep the choice of what
    /// is sent next with the streams above, so that a small flow does not wait behind another's backlog.
    #[inline]
    fn queue_limit(&self) -> u32 {
        u32::MAX
    }

    /// Before when no data segment may leave. `None`, or a time that has come: now.
    #[inline]
    fn next_send_time(&self, _now: Instant) -> Option<Instant> {
        None
    }

    /// How many acknowledgements of later segments are counted, at most 255. From this count on, a flush is asked for as
    /// soon as a datagram adds one. `None`: they are not counted, losses are found by time alone, and no segment has a
    /// timeout of its own: [`Self::overdue_at`] and [`Self::probe_at`] are its timers.
    fn skip_threshold(&self) -> Option<u32>;

    /// Segments last sent at or before this time are overdue.
    #[inline]
    fn lost_before(&self, _now: Instant) -> Option<Instant> {
        None
    }

    /// When a segment last sent at this time will be overdue if nothing more is heard; `None`: not at all.
    #[inline]
    fn overdue_at(&self, _sent: Instant) -> Option<Instant> {
        None
    }

    /// When the oldest and the newest segment in flight are sent again because nothing is heard. Asked while something is in flight.
    #[inline]
    fn probe_at(&self) -> Option<Instant> {
        None
    }

    /// Whether to send a segment again. Asked in a full flush about segments for which anything speaks.
    fn resend(&self, evidence: &Evidence) -> Option<Cause>;

    /// How long the segment that is being sent waits until its timeout. `waited` is what it had before (0 at first), `rto` the
    /// current estimate, all in milliseconds. Not asked without [`Self::skip_threshold`].
    #[inline]
    fn timeout(&self, _cause: Cause, _waited: u32, rto: u32) -> u32 {
        rto
    }

    /// How many more times the segment that is being sent goes out, 0 to 4: the first copy at once in a datagram of its own, the others
    /// with what is sent next, or after [`Self::copy_delay`].
    #[inline]
    fn copies(&self, _sent: &Sent) -> u8 {
        0
    }

    /// How long a further copy waits for a datagram to go along with.
    #[inline]
    fn copy_delay(&self) -> Duration {
        Duration::from_millis(20)
    }

    /// How long acknowledgements wait for company. `interval` is the profile's; `busy`: data arrives so fast that company is near.
    #[inline]
    fn ack_delay(&self, interval: Duration, _busy: bool) -> Duration {
        interval
    }

    /// A segment has been sent.
    #[inline]
    fn on_sent(&mut self, _now: Instant, _sent: &Sent) {}

    /// A copy of a segment with `len` bytes of payload has been sent.
    #[inline]
    fn on_copied(&mut self, _now: Instant, _len: usize) {}

    /// A segment has been delivered. Called for each, before [`Self::on_acked`].
    #[inline]
    fn on_delivered(&mut self, _now: Instant, _delivered: &Delivered) {}

    /// An acknowledgement names segment `sn`, perhaps not for the first time, and echoes `ts`. After [`Self::on_delivered`].
    #[inline]
    fn on_echo(&mut self, _now: Instant, _sn: Seq, _ts: Millis) {}

    /// A datagram has been taken in that acknowledged something or brought a round-trip sample.
    #[inline]
    fn on_acked(&mut self, _now: Instant, _acked: &Acked) {}

    /// A flush has sent segments again because of acknowledgements or by [`Self::lost_before`].
    #[inline]
    fn on_lost(&mut self, _now: Instant, _lost: &Lost) {}

    /// A flush has sent segments again because of their timeouts, or by [`Self::probe_at`]. After [`Self::on_lost`] when both happened.
    #[inline]
    fn on_timeout(&mut self, _now: Instant, _lost: &Lost) {}

    /// A flush begins: what has become known with time can be taken in before anything is decided.
    #[inline]
    fn on_flush(&mut self, _now: Instant) {}

    /// A flush has ended.
    #[inline]
    fn on_flushed(&mut self, _now: Instant) {}

    /// Everything that there was has been sent, and more could be: what is measured of it says little about the path.
    #[inline]
    fn on_drained(&mut self, _now: Instant, _in_flight: u32) {}

    /// Nothing is waiting or in flight: memory can be given back.
    #[inline]
    fn release(&mut self) {}

    /// For display.
    #[inline]
    fn congestion(&self) -> Congestion {
        Congestion::default()
    }

    /// What it knows of the path.
    #[inline]
    fn path(&self) -> Option<PathStats> {
        None
    }

    /// What became of large and small segments since the last call.
    #[inline]
    fn take_sizes(&mut self) -> Sizes {
        Sizes::default()
    }

    /// Whether the other side acknowledges within a few milliseconds of an arrival, as ours does: then acknowledgements that come in bursts
    /// are none of its making.
    #[inline]
    fn set_prompt_peer(&mut self, _prompt: bool) {}

    /// Full segments have so many bytes of payload from now on.
    #[inline]
    fn set_mss(&mut self, _mss: usize) {}

    /// How many copies segments of sparse flows get from now on, 0 to 4; decided above, where the budget is kept.
    #[inline]
    fn set_copies(&mut self, _copies: u8) {}
}

/// Which strategy a conversation is built with.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum StrategyKind {
    /// KCP's own rules, from [`Config::profile`](crate::Config::profile).
    #[default]
    Classic,
    /// What the path is measured to want.
    Auto,
}

/// The strategies that a configuration can name.
#[derive(Debug)]
#[non_exhaustive]
pub enum Strategy {
    /// KCP's own rules.
    Classic(Classic),
    /// What the path is measured to want.
    Auto(Box<Auto>),
}

/// Calls the same method of whichever strategy it is.
macro_rules! each {
    ($self:expr, $control:ident => $call:expr) => {
        match $self {
            Strategy::Classic($control) => $call,
            Strategy::Auto($control) => $call,
        }
    };
}

/// Hands each method on. What is not in this list would silently get its default.
macro_rules! delegate {
    ($(
        $(#[$inline:meta])? fn $name:ident(&$($m:ident)? ; $($arg:ident: $ty:ty),*) $(-> $ret:ty)?;
    )*) => {
        $(delegate!(@one $(#[$inline])? [$($m)?] $name ($($arg: $ty),*) $(-> $ret)?);)*
    };
    (@one $(#[$inline:meta])? [] $name:ident ($($arg:ident: $ty:ty),*) $(-> $ret:ty)?) => {
        $(#[$inline])?
        fn $name(&self, $($arg: $ty),*) $(-> $ret)? {
            each!(self, c => c.$name($($arg),*))
        }
    };
    (@one $(#[$inline:meta])? [mut] $name:ident ($($arg:ident: $ty:ty),*) $(-> $ret:ty)?) => {
        $(#[$inline])?
        fn $name(&mut self, $($arg: $ty),*) $(-> $ret)? {
            each!(self, c => c.$name($($arg),*))
        }
    };
}

impl SenderControl for Strategy {
    delegate! {
        #[inline] fn window(&; now: Instant, limits: Limits) -> u32;
        #[inline] fn flight_limit(&;) -> u32;
        #[inline] fn queue_limit(&;) -> u32;
        #[inline] fn next_send_time(&; now: Instant) -> Option<Instant>;
        #[inline] fn skip_threshold(&;) -> Option<u32>;
        #[inline] fn lost_before(&; now: Instant) -> Option<Instant>;
        #[inline] fn overdue_at(&; sent: Instant) -> Option<Instant>;
        #[inline] fn probe_at(&;) -> Option<Instant>;
        #[inline] fn resend(&; evidence: &Evidence) -> Option<Cause>;
        #[inline] fn timeout(&; cause: Cause, waited: u32, rto: u32) -> u32;
        #[inline] fn copies(&; sent: &Sent) -> u8;
        #[inline] fn copy_delay(&;) -> Duration;
        #[inline] fn ack_delay(&; interval: Duration, busy: bool) -> Duration;
        #[inline] fn on_sent(&mut; now: Instant, sent: &Sent);
        #[inline] fn on_copied(&mut; now: Instant, len: usize);
        #[inline] fn on_delivered(&mut; now: Instant, delivered: &Delivered);
        #[inline] fn on_echo(&mut; now: Instant, sn: Seq, ts: Millis);
        #[inline] fn on_acked(&mut; now: Instant, acked: &Acked);
        #[inline] fn on_lost(&mut; now: Instant, lost: &Lost);
        #[inline] fn on_timeout(&mut; now: Instant, lost: &Lost);
        #[inline] fn on_flush(&mut; now: Instant);
        #[inline] fn on_flushed(&mut; now: Instant);
        #[inline] fn on_drained(&mut; now: Instant, in_flight: u32);
        fn release(&mut;);
        fn congestion(&;) -> Congestion;
        fn path(&;) -> Option<PathStats>;
        fn set_copies(&mut; copies: u8);
        fn take_sizes(&mut;) -> Sizes;
        fn set_prompt_peer(&mut; prompt: bool);
        fn set_mss(&mut; mss: usize);
    }
}
