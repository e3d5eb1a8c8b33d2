//! One conversation: its parts, its commands and what it tells about itself.
//!
//! `input.rs` takes datagrams in, `flush.rs` writes them, `timer.rs` says when something is due.

use std::time::Duration;

use fulmar_wire::kcp::{Error as SegmentError, HEADER_LEN};
use fulmar_wire::seq::Seq;
use fulmar_wire::time::{Instant, Millis};

use crate::config::{Config, window};
use crate::control::{Auto, Classic, Congestion, PathStats, SenderControl, Strategy, StrategyKind};
use crate::copies::Copies;
use crate::counters::Counters;
use crate::echo::{Away, Echoes};
use crate::receive::ReceiveBuffer;
use crate::restart::Restart;
use crate::rtt::Rtt;
use crate::send::SendBuffer;

/// Where a datagram comes from.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// From the network.
    Wire,
    /// Rebuilt from parity. Older than what arrived meanwhile, so its window and its echo of time are not believed.
    Recovered,
}

/// What a flush writes.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Flush {
    /// Acknowledgements and window messages.
    AckOnly,
    /// These and data: what is new, and what has to go again.
    Full,
}

/// Whether a flush would be useful now rather than at [`Kcp::poll_timeout`].
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum FlushWanted {
    /// No.
    #[default]
    None,
    /// [`Flush::AckOnly`] will do.
    AckOnly,
    /// [`Flush::Full`].
    Full,
}

impl FlushWanted {
    /// The flush to do, if any.
    #[must_use]
    pub const fn kind(self) -> Option<Flush> {
        match self {
            Self::None => None,
            Self::AckOnly => Some(Flush::AckOnly),
            Self::Full => Some(Flush::Full),
        }
    }
}

/// Why a datagram was refused. Segments before the offending one have been taken in, as upstream.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// The bytes are not a segment.
    #[error(transparent)]
    Malformed(#[from] SegmentError),
    /// The segment belongs to another conversation.
    #[error("segment of conversation {0:#010x}")]
    OtherConversation(u32),
    /// The segment carries more than [`Config::max_payload`].
    #[error("segment with {len} bytes of data")]
    TooLarge {
        /// Its bytes of data.
        len: usize,
    },
}

/// Largest probe of a size, in bytes: what receivers take (docs/spec/kcptun.md, section 5.2).
pub(crate) const LARGEST_PROBE: usize = 1500;

/// What [`Kcp::take_answers`] tells.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Answers {
    /// Whoever sent the datagram gets what goes to the other address.
    pub away: bool,
    /// Whoever sent it gets all the rest.
    pub elsewhere: bool,
}

/// How often the oldest segment is sent before its wait doubles each time, and how often that doubles: ten repeats are over after 26 seconds with
/// the first timeout, and four of them, on a path that loses much, within one.
const EVEN_TRIES: u32 = 4;
const MOST_DOUBLINGS: u32 = 6;

/// Where datagrams are written to: the transmit run of the caller.
///
/// The machine reserves once per segment and commits once per datagram. Until then the same bytes must be given
/// again, with what was written into them.
pub trait DatagramSink {
    /// At least `max_len` writable bytes for the datagram that comes next. A shorter slice acts as no [`Self::room`].
    fn reserve(&mut self, max_len: usize) -> &mut [u8];

    /// The reserved bytes up to `len` are a datagram.
    fn commit(&mut self, len: usize);

    /// The reserved bytes up to `len` are a datagram that asks whether its size passes ([`Kcp::probe_size`]). It finds out
    /// the truth only if it leaves unpadded, is never cut into fragments, and cannot be rebuilt from parity.
    fn commit_probe(&mut self, len: usize) {
        self.commit(len);
    }

    /// How many more datagrams are welcome. At 0 a flush stops without losing anything, and [`Kcp::flush_wanted`] keeps asking
    /// for another.
    fn room(&self) -> usize {
        usize::MAX
    }
}

/// Numbers of the state machine, named as in docs/spec/kcptun.md, section 7, for tests and for display.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
#[non_exhaustive]
pub struct State {
    pub snd_una: Seq,
    pub snd_nxt: Seq,
    pub rcv_nxt: Seq,
    pub rx_rto: u32,
    pub rx_srtt: u32,
    pub rx_rttvar: u32,
    pub rmt_wnd: u32,
    pub congestion: Congestion,
    pub len_snd_queue: u32,
    pub len_snd_buf: u32,
    pub len_rcv_queue: u32,
    pub len_rcv_buf: u32,
    pub len_acklist: usize,
    /// 1: a window probe is to be sent; 2: the window is to be told.
    pub probe: u8,
    pub probe_wait: u32,
}

/// For how long each window has kept data back: long compared with the transfer means that it is too small for the path.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct WindowLimited {
    /// Our own `snd_wnd`.
    pub local: Duration,
    /// The window of the other side.
    pub remote: Duration,
    /// The strategy's.
    pub control: Duration,
}

#[derive(Copy, Clone, Debug)]
pub(crate) enum LimitedBy {
    Local,
    Remote,
    Control,
}

/// One KCP conversation. See the crate's documentation for how it is driven.
#[derive(Debug)]
pub struct Kcp<C = Strategy> {
    pub(crate) conv: u32,
    pub(crate) config: Config,
    pub(crate) control: C,
    pub(crate) tx: SendBuffer,
    pub(crate) rx: ReceiveBuffer,
    pub(crate) rtt: Rtt,
    pub(crate) rmt_wnd: u32,
    /// Segments to acknowledge, in order of arrival, with the times to echo.
    pub(crate) acks: Vec<(Seq, Millis)>,
    /// When the first of them arrived.
    pub(crate) acks_since: Instant,
    /// A window probe is to be sent.
    pub(crate) ask: bool,
    /// An old segment is to be sent once more, for its acknowledgement.
    pub(crate) challenge: bool,
    /// The window is to be told.
    pub(crate) tell: bool,
    /// Milliseconds between probes of a closed window; 0 while it is open.
    pub(crate) probe_wait: u32,
    /// Time of the next such probe, in milliseconds since the caller's epoch.
    pub(crate) probe_at: u64,
    pub(crate) wanted: FlushWanted,
    /// The last flush ended for want of room.
    pub(crate) blocked: bool,
    pub(crate) last_flush: Instant,
    /// Latest time seen.
    pub(crate) clock: Instant,
    /// Earliest retransmission timeout, in milliseconds since the caller's epoch.
    pub(crate) next_timeout: Option<u64>,
    /// Round trips are measured with what was sent from then on.
    pub(crate) measured_from: Instant,
    pub(crate) last_heard: Option<Instant>,
    pub(crate) last_answer: Option<Instant>,
    /// The latest time on data of the other side, by its clock.
    pub(crate) newest_push: Option<Millis>,
    /// The same, of data that did not fit the window as well.
    pub(crate) newest_heard: Option<Millis>,
    /// When something was last acknowledged, or the flight began.
    pub(crate) progress: Instant,
    pub(crate) restart: Restart,
    pub(crate) limited: Option<(LimitedBy, Instant)>,
    pub(crate) limited_for: WindowLimited,
    pub(crate) counters: Counters,
    /// Kept between flushes for its memory.
    pub(crate) work: Vec<Seq>,
    /// Everything last sent at or before it is to be sent again, whatever the strategy says.
    pub(crate) lost_until: Option<Millis>,
    pub(crate) copies: Copies,
    /// Acknowledgements are sent as ranges.
    pub(crate) ack_ranges: bool,
    /// What the last flush acknowledged one by one beside the ranges.
    pub(crate) said: Vec<(Seq, Millis)>,
    /// A datagram of so many bytes is to ask for the window, to see whether it arrives.
    pub(crate) keeps_to_size: bool,
    /// See [`Self::more_follows`].
    pub(crate) more_follows: bool,
    pub(crate) size_probe: Option<usize>,
    /// The window has been told since such a question was sent.
    pub(crate) size_answer: bool,
    /// The other side's window was full since the probe.
    pub(crate) window_met: bool,
    /// Questions without padding whose answers are still to come, as far as is known: the answers look alike, and one to these
    /// shows nothing about sizes.
    pub(crate) plain_asks: u8,
    /// Bytes that the last datagram of a flush with the first segment has at least, until something was heard; 0: any.
    pub(crate) pad: usize,
    /// This is such a flush.
    pub(crate) pad_due: bool,
    /// What shows that the other side is where it seems to be, while that is open.
    pub(crate) home: Option<Box<Echoes>>,
    /// The same of another address that it may have moved to.
    pub(crate) away: Option<Box<Away>>,
    /// The old segment that is to be sent once more is the one that asks about an address.
    pub(crate) ask_home: bool,
    /// Data segments that arrived lately: when the present count began, the count, and the one before.
    pub(crate) arrivals: (Instant, u32, u32),
}

impl Kcp {
    /// A conversation with the strategy of `config`, from segment number 0 on in both directions.
    #[must_use]
    pub fn new(conv: u32, config: Config) -> Self {
        let control = match config.strategy {
            StrategyKind::Classic => Strategy::Classic(Classic::new(&config)),
            StrategyKind::Auto => Strategy::Auto(Box::new(Auto::new(&config, conv))),
        };
        Self::with_control(conv, config, control)
    }
}

impl<C: SenderControl> Kcp<C> {
    /// A conversation that sends by the rules of `control`.
    #[must_use]
    pub fn with_control(conv: u32, config: Config, control: C) -> Self {
        Self::with_numbers(conv, config, control, Seq(0), Seq(0))
    }

    /// The same, with the first segment numbers of either direction. Both sides have to agree on them; KCP itself
    /// begins with 0.
    #[must_use]
    pub fn with_numbers(conv: u32, config: Config, control: C, snd: Seq, rcv: Seq) -> Self {
        let config = config.normalized();
        Self {
            conv,
            config,
            tx: SendBuffer::new(
                snd,
                config.mss(),
                config.max_fragments,
                control.skip_threshold(),
            ),
            rx: ReceiveBuffer::new(rcv, config.rcv_wnd, config.max_payload),
            control,
            rtt: Rtt::new(config.rules.initial_rto_ms),
            rmt_wnd: config.rules.initial_remote_window,
            acks: Vec::new(),
            acks_since: Instant::ZERO,
            ask: false,
            challenge: false,
            tell: false,
            probe_wait: 0,
            probe_at: 0,
            wanted: FlushWanted::None,
            blocked: false,
            last_flush: Instant::ZERO,
            clock: Instant::ZERO,
            next_timeout: None,
            measured_from: Instant::ZERO,
            last_heard: None,
            last_answer: None,
            newest_push: None,
            newest_heard: None,
            progress: Instant::ZERO,
            restart: Restart::new(snd),
            limited: None,
            limited_for: WindowLimited::default(),
            counters: Counters::default(),
            work: Vec::new(),
            lost_until: None,
            copies: Copies::default(),
            ack_ranges: false,
            said: Vec::new(),
            keeps_to_size: false,
            more_follows: false,
            size_probe: None,
            size_answer: false,
            window_met: false,
            plain_asks: 0,
            pad: 0,
            pad_due: false,
            home: None,
            away: None,
            ask_home: false,
            arrivals: (Instant::ZERO, 0, 0),
        }
    }

    /// Queues bytes of the stream: the last queued segment is filled up first, the rest is cut into segments of
    /// [`Self::mss`] bytes (section 7.3). Nothing is refused, so callers ask [`Self::has_room`] before each write and keep one
    /// write small; memory grows with what is queued.
    ///
    /// Unless [`Config::write_delay`] is set, [`Self::flush_wanted`] then asks for a full flush.
    pub fn send(&mut self, data: &[u8]) {
        self.send_as(data, false);
    }

    /// The same; `sparse` bytes belong to flows whose latency is worth more than what they take.
    pub fn send_as(&mut self, data: &[u8], sparse: bool) {
        if data.is_empty() {
            return;
        }
        self.counters.bytes_sent += data.len() as u64;
        self.tx.push(data, sparse);
        if !self.config.write_delay {
            self.wanted = FlushWanted::Full;
        }
    }

    /// Ends the segment that [`Self::send`] has begun, however short it is.
    pub const fn end_segment(&mut self) {
        self.tx.end_segment();
    }

    /// Whether more bytes of the stream are at hand than have been given so far. A last segment that is not full then waits for them,
    /// since a window counts segments: a full one and a rest by turns would halve what it allows. To be said before each flush;
    /// whoever has said so looks for [`Self::has_room`] before the next.
    pub const fn more_follows(&mut self, more: bool) {
        self.more_follows = more;
    }

    /// A message may end here, if [`Config::max_fragments`] asks for messages: the first one does, and any that is longer than a segment.
    /// The others go on, to share a segment with what follows. To be called before the next flush.
    pub fn end_message(&mut self) {
        self.tx.end_message();
    }

    /// Hands the next segment's data to `f` and takes it off the queue. `None` when nothing is there. Segments without data are skipped.
    ///
    /// Not reading is how a slow reader slows the other side down: the advertised window shrinks by what is queued.
    #[inline]
    pub fn recv<R>(&mut self, f: impl FnOnce(&[u8]) -> R) -> Option<R> {
        self.recv_fragment(|data, _| f(data))
    }

    /// The same, and whether it ends a message: in stream mode every segment does.
    #[inline]
    pub fn recv_fragment<R>(&mut self, f: impl FnOnce(&[u8], bool) -> R) -> Option<R> {
        self.skip_empty();
        let (data, frg) = self.rx.front_fragment()?;
        let len = data.len() as u64;
        let result = f(data, frg == 0);
        self.counters.bytes_received += len;
        self.drop_front();
        Some(result)
    }

    /// The next segment's data, which stays in the queue.
    #[inline]
    pub fn peek(&mut self) -> Option<&[u8]> {
        self.skip_empty();
        self.rx.front()
    }

    #[inline]
    fn skip_empty(&mut self) {
        while self.rx.front_is_empty() {
            self.drop_front();
        }
    }

    /// Takes the segment that [`Self::peek`] showed off the queue.
    pub fn consume(&mut self) {
        let _ = self.recv(|_| ());
    }

    /// Whenever the first segment leaves, the last datagram is padded to `bytes` until something of the other side was heard, as far as the
    /// [size](Self::set_datagram_size) of datagrams allows it: with a segment that tells the window, whose data nobody looks at.
    pub fn pad_until_heard(&mut self, bytes: usize) {
        self.pad = bytes;
    }

    /// Whether it is to be shown that the other side gets what is sent: see [`Self::take_echo`]. Until then no copies are sent.
    pub fn expect_echo(&mut self, on: bool) {
        self.home = on.then(|| Box::new(Echoes::new()));
    }

    /// Whether an acknowledgement has come from the network that echoes the time of a segment that was sent since [`Self::expect_echo`]; told
    /// once. Who sends everything to one address in that time knows that the other side is there.
    pub fn take_echo(&mut self) -> bool {
        self.home.as_mut().is_some_and(|home| home.take())
    }

    /// Whether, since [`Self::ask_away`] was called first, an acknowledgement has come that answers a question of it, and whether one has come
    /// that answers something else that left since then; told once. Asked after each datagram, that tells who gets what.
    pub fn take_answers(&mut self) -> Answers {
        self.away
            .as_mut()
            .map_or_else(Answers::default, |away| Answers {
                away: away.asked.take(),
                elsewhere: std::mem::take(&mut away.elsewhere),
            })
    }

    /// Nothing is asked about another address any more.
    pub fn end_question(&mut self) {
        self.away = None;
    }

    /// When the oldest segment in flight has waited for long enough to be sent again by [`Self::repeat_oldest`], where little else may leave. If nothing is in flight: now, where
    /// something waits; else `None`.
    #[must_use]
    pub fn oldest_due(&self) -> Option<Instant> {
        let una = self.tx.una();
        if self.tx.in_flight() == 0 && self.tx.unsent() != self.tx.nxt() {
            return Some(self.clock);
        }
        if !self.tx.is_in_flight(una) {
            return None;
        }
        let oldest = self.tx.get(una);
        let clock = self.clock;
        let age = u64::from(clock.wire_millis().0.wrapping_sub(oldest.sent.0));
        let doublings = oldest.transmissions.saturating_sub(EVEN_TRIES);
        let waits = self.rto() * (1 << doublings.min(MOST_DOUBLINGS));
        Some(Instant::from_millis(clock.as_millis().saturating_sub(age)) + waits)
    }

    /// Segments given to send that never left.
    #[must_use]
    pub fn not_sent(&self) -> usize {
        self.tx.not_sent() as usize
    }

    /// Makes the next flush ask the other side for its window, and for the acknowledgement of an old segment. It answers
    /// at once or within its interval, so this finds out whether it is alive and remembers the conversation: see
    /// [`Self::last_answer`] and [`Self::peer_restarted`].
    pub fn probe(&mut self, now: Instant) {
        self.tick(now);
        self.ask = true;
        self.challenge = true;
        self.wanted = self.wanted.max(FlushWanted::AckOnly);
    }

    /// Makes the next flush ask for the acknowledgement of an old segment, which shows whether the other side remembers
    /// the conversation: see [`Self::peer_restarted`]. `false` when too little has been acknowledged to ask with; then two pieces
    /// of new data do the same.
    pub fn challenge(&mut self, now: Instant) -> bool {
        self.tick(now);
        self.challenge = self.restart.old_segment(self.tx.una()).is_some();
        if self.challenge {
            self.wanted = self.wanted.max(FlushWanted::AckOnly);
        }
        self.challenge
    }

    /// Whether the other side has said something, since the last call, that could come from someone who does not
    /// remember the conversation; late datagrams can, too. [`Self::challenge`] resolves it.
    pub fn take_doubt(&mut self) -> bool {
        self.restart.take_doubt()
    }

    /// Makes the next flush tell the other side our window, and with it what we have of the conversation.
    pub fn tell_window(&mut self, now: Instant) {
        self.tick(now);
        self.acks_since_now(now);
        self.tell = true;
        self.wanted = self.wanted.max(FlushWanted::AckOnly);
    }

    /// Lets everything in flight time out now, and wait no longer than at first from then on: for a path that was dead,
    /// while timeouts grew, and is back.
    pub fn resend_all(&mut self, now: Instant) {
        self.tick(now);
        self.tx.hasten(now.as_millis());
        // What left within this millisecond has hardly gone.
        self.lost_until =
            (self.tx.in_flight() > 0).then(|| Millis(now.wire_millis().0.wrapping_sub(1)));
        self.next_timeout = self.tx.next_timeout();
        self.wanted = FlushWanted::Full;
    }

    /// Changes both windows; the ranges are those of [`Config`]. What is already queued or in flight stays.
    pub fn set_windows(&mut self, snd_wnd: u32, rcv_wnd: u32) {
        self.config.snd_wnd = window(snd_wnd);
        self.config.rcv_wnd = window(rcv_wnd);
        self.rx.set_window(self.config.rcv_wnd);
    }

    /// Gives the memory of buffers that are empty back. Worth calling when a conversation has been quiet for a
    /// second; the next segment allocates again.
    pub fn release_memory(&mut self) {
        self.tx.release();
        self.rx.release();
        self.copies.release();
        if self.tx.waiting() == 0 {
            self.control.release();
        }
        if self.acks.is_empty() {
            self.acks = Vec::new();
        }
        self.work = Vec::new();
        self.said = Vec::new();
    }

    /// Conversation number.
    #[must_use]
    pub const fn conv(&self) -> u32 {
        self.conv
    }

    /// What it was built from, in range, with the present windows.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The strategy.
    #[must_use]
    pub const fn control(&self) -> &C {
        &self.control
    }

    /// The strategy, to be told what is decided above.
    pub const fn control_mut(&mut self) -> &mut C {
        &mut self.control
    }

    /// Payload bytes of a full segment.
    #[must_use]
    pub const fn mss(&self) -> usize {
        self.tx.mss()
    }

    /// Datagrams are at most so many bytes from now on, and never more than [`Config::mtu`]. What has not been sent yet is cut
    /// anew; what has, cannot be.
    pub fn set_datagram_size(&mut self, bytes: usize) {
        let mss = bytes.min(self.config.mtu).saturating_sub(HEADER_LEN).max(1);
        if mss != self.tx.mss() {
            self.tx.set_mss(mss);
            self.control.set_mss(mss);
        }
    }

    /// Whether new data behind other segments of a datagram keep to the size of [`Self::set_datagram_size`] as well, because
    /// what is larger is known not to pass; otherwise they may fill [`Config::mtu`]. All else always keeps to it.
    pub const fn keep_to_size(&mut self, on: bool) {
        self.keeps_to_size = on;
    }

    /// Makes the next flush ask for the window with a datagram of `bytes`, at most 1500, that holds nothing else: when it
    /// is answered ([`Self::take_size_answer`]), such datagrams pass. Receivers skip what a question carries (section 7.4).
    pub fn probe_size(&mut self, now: Instant, bytes: usize) {
        self.tick(now);
        self.size_probe = Some(bytes.clamp(HEADER_LEN, LARGEST_PROBE));
        self.size_answer = false;
        self.window_met = self.meets_window();
        self.wanted = self.wanted.max(FlushWanted::AckOnly);
    }

    /// Whether the other side has told its window since the last [`Self::probe_size`] left; told once. A receiver whose
    /// buffer was full tells its window without being asked as well: see [`Self::size_answer_is_doubtful`].
    pub const fn take_size_answer(&mut self) -> bool {
        std::mem::replace(&mut self.size_answer, false)
    }

    /// Whether the window of the other side was full at some time since the last [`Self::probe_size`], so that what it tells of
    /// its window may not be the answer.
    #[must_use]
    pub const fn size_answer_is_doubtful(&self) -> bool {
        self.window_met
    }

    /// Whether what is outstanding fills the window of the other side.
    pub(crate) fn meets_window(&self) -> bool {
        self.tx.outstanding() >= self.rmt_wnd
    }

    /// From now on what has arrived behind a gap is acknowledged in ranges, several times. Only for a peer that is known to
    /// understand it, and that finds losses by time: it counts no acknowledgements.
    pub fn send_ack_ranges(&mut self, on: bool) {
        self.ack_ranges = on;
        self.control.set_prompt_peer(on);
    }

    /// Everything that the streams had has been sent: to be called after a flush, when there is nothing more.
    pub fn drained(&mut self, now: Instant) {
        if self.tx.unsent() == self.tx.end() {
            self.control.on_drained(now, self.tx.in_flight());
        }
    }

    /// What is left to send may not leave now, for reasons that are not the path's: to be called after a flush.
    pub fn starved(&mut self, now: Instant) {
        self.control.on_drained(now, self.tx.in_flight());
    }

    /// What the strategy has found out about the path.
    #[must_use]
    pub fn path(&self) -> Option<PathStats> {
        self.control.path()
    }

    /// Segments given to send and not acknowledged, in a row: queued, numbered, in flight, or acknowledged behind a gap.
    #[inline]
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.tx.waiting() as usize
    }

    /// Whether the next write may proceed (section 8.6).
    #[inline]
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.tx.waiting() < self.config.snd_wnd && self.tx.not_sent() < self.control.queue_limit()
    }

    /// Segments sent and not acknowledged.
    #[must_use]
    pub const fn in_flight(&self) -> u32 {
        self.tx.in_flight()
    }

    /// Whether acknowledgements are owed to the other side.
    #[must_use]
    pub const fn owes(&self) -> bool {
        !self.acks.is_empty()
    }

    /// Whether nothing is queued, in flight, or owed to the other side.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.tx.waiting() == 0 && self.acks.is_empty() && !(self.ask || self.challenge || self.tell)
    }

    /// Whether [`Self::recv`] has something (or at least a segment without data to drop).
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.rx.queued() > 0
    }

    /// Smoothed round-trip time, once measured. Millisecond resolution; 0 counts as not measured.
    #[must_use]
    pub fn srtt(&self) -> Option<Duration> {
        let ms = self.rtt.srtt();
        (ms > 0).then(|| Duration::from_millis(u64::from(ms)))
    }

    /// Retransmission timeout of a segment that is sent now.
    #[must_use]
    pub fn rto(&self) -> Duration {
        Duration::from_millis(u64::from(self.rtt.rto()))
    }

    /// Smallest round trip ever measured.
    #[must_use]
    pub fn min_rtt(&self) -> Option<Duration> {
        self.rtt
            .min()
            .map(|ms| Duration::from_millis(u64::from(ms)))
    }

    /// What the other side last said it could take, in segments.
    #[must_use]
    pub const fn remote_window(&self) -> u32 {
        self.rmt_wnd
    }

    /// Everything before it has been acknowledged.
    #[must_use]
    pub const fn snd_una(&self) -> Seq {
        self.tx.una()
    }

    /// The next number that will be given to a segment.
    #[must_use]
    pub const fn snd_nxt(&self) -> Seq {
        self.tx.nxt()
    }

    /// The next number that is expected.
    #[must_use]
    pub const fn rcv_nxt(&self) -> Seq {
        self.rx.nxt()
    }

    /// For how long segments have been in flight with nothing at all being acknowledged. `None` when nothing is in flight.
    /// Several [`Self::rto`] mean that the path, or the other side, is gone.
    #[must_use]
    pub fn unanswered_since(&self, now: Instant) -> Option<Duration> {
        (self.tx.in_flight() > 0).then(|| now.since(self.progress))
    }

    /// When the last datagram of this conversation arrived that had at least one sound segment.
    #[must_use]
    pub const fn last_heard(&self) -> Option<Instant> {
        self.last_heard
    }

    /// No round trips are measured with what was sent before `from`: one of both ends has slept meanwhile, and what its socket held says how
    /// long. A single such sample would make timeouts grow to a minute. `None`: with nothing, until this is called again.
    pub fn measure_from(&mut self, from: Option<Instant>) {
        self.measured_from = from.unwrap_or(Instant::FAR_FUTURE);
    }

    /// When something last arrived that the other side says only when it has heard us: an acknowledgement, or what its
    /// window is. Its data proves nothing of the kind. An answer from before the latest ones, or from someone who does not
    /// remember them, does not count.
    #[must_use]
    pub const fn last_answer(&self) -> Option<Instant> {
        self.last_answer
    }

    /// The latest time, by the other side's clock, at which it sent data that has arrived here. Every transmission
    /// carries a new one, so a datagram that raises it is no recording of what has arrived, or of anything sent before that.
    #[must_use]
    pub const fn newest_push(&self) -> Option<Millis> {
        self.newest_push
    }

    /// The latest time on data of the other side, by its clock, of data beyond the window as well: whatever has been here, recorded and sent
    /// again, is not later.
    #[must_use]
    pub const fn newest_heard(&self) -> Option<Millis> {
        self.newest_heard
    }

    /// Whether the other side is proven to have lost its state. Reordering, repetition and delay never cause it: it takes
    /// two datagrams with an acknowledgement of something sent *after* the other side's `una` was heard to be U, which nevertheless say
    /// less than U. A conversation cannot recover from that; open another.
    #[must_use]
    pub const fn peer_restarted(&self) -> bool {
        self.restart.is_proven()
    }

    /// Whether the last flush ended for want of room.
    #[must_use]
    pub const fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Whether a window keeps data back now, so that acknowledgements are waited for.
    #[must_use]
    pub const fn is_window_limited(&self) -> bool {
        self.limited.is_some()
    }

    /// For how long windows have kept data back, until `now`.
    #[must_use]
    pub fn window_limited(&self, now: Instant) -> WindowLimited {
        let mut total = self.limited_for;
        if let Some((by, since)) = self.limited {
            *total.part(by) += now.since(since);
        }
        total
    }

    /// Totals.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Bytes of memory for what was given to send and has not been acknowledged, used or not.
    #[inline]
    #[must_use]
    pub fn send_memory(&self) -> usize {
        self.tx.held_bytes()
    }

    /// Bytes of memory for what has arrived and was not read, used or not.
    #[inline]
    #[must_use]
    pub fn receive_memory(&self) -> usize {
        self.rx.held_bytes()
    }

    /// Bytes of buffer memory held, used or not.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.tx.held_bytes() + self.rx.held_bytes()
    }

    /// A flush that would be useful now. Asked for by [`Self::send`], by acknowledgements that moved the window or
    /// reached the resend threshold, by enough acknowledgements to fill a datagram, by a window that has opened, and by [`Self::probe`];
    /// stands until a flush of that kind. Callers look at it once per run of received datagrams or of writes.
    #[inline]
    #[must_use]
    pub const fn flush_wanted(&self) -> FlushWanted {
        self.wanted
    }

    /// Numbers of the state machine.
    #[must_use]
    pub fn state(&self) -> State {
        State {
            snd_una: self.tx.una(),
            snd_nxt: self.tx.nxt(),
            rcv_nxt: self.rx.nxt(),
            rx_rto: self.rtt.rto(),
            rx_srtt: self.rtt.srtt(),
            rx_rttvar: self.rtt.rttvar(),
            rmt_wnd: self.rmt_wnd,
            congestion: self.control.congestion(),
            len_snd_queue: self.tx.queued(),
            len_snd_buf: self.tx.outstanding(),
            len_rcv_queue: self.rx.queued(),
            len_rcv_buf: self.rx.ahead(),
            len_acklist: self.acks.len(),
            probe: u8::from(self.ask) | u8::from(self.tell) << 1,
            probe_wait: self.probe_wait,
        }
    }

    /// What the clock on the wire shows when ours shows `ts`.
    #[inline]
    pub(crate) const fn on_wire(&self, ts: Millis) -> Millis {
        ts.plus(self.config.clock)
    }

    /// What our clock showed when the one on the wire showed `ts`.
    #[inline]
    pub(crate) const fn off_wire(&self, ts: Millis) -> Millis {
        Millis(ts.0.wrapping_sub(self.config.clock))
    }

    /// Remembers the time.
    #[inline]
    pub(crate) fn tick(&mut self, now: Instant) {
        self.clock = self.clock.max(now);
    }

    /// Takes the next segment off the receive queue; when that had been full and is no longer, the other side is to be
    /// told (section 7.8).
    #[inline]
    fn drop_front(&mut self) {
        let was_full = self.rx.queued() >= self.rx.window();
        self.rx.pop();
        if was_full && self.rx.queued() < self.rx.window() {
            self.tell = true;
            self.wanted = self.wanted.max(FlushWanted::AckOnly);
        }
    }
}

impl WindowLimited {
    pub(crate) fn part(&mut self, by: LimitedBy) -> &mut Duration {
        match by {
            LimitedBy::Local => &mut self.local,
            LimitedBy::Remote => &mut self.remote,
            LimitedBy::Control => &mut self.control,
        }
    }
}
