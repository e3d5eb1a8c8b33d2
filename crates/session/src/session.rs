//! One session: a KCP conversation, its parity in both directions, and the streams on top.
//!
//! The way in: `handle_body` takes the opened bodies of datagrams, `deliver` moves what has come
//! into order to the stream layer. The way out: `flush` pulls frames from the layer while the ARQ has
//! room and writes datagrams into runs. Nothing here knows of sockets, and the cipher belongs to the endpoint.

use core::time::Duration;
use std::collections::VecDeque;
use std::net::IpAddr;

use fulmar_arq::{self as arq, DatagramSink, Flush, Kcp, Origin};
use fulmar_cipher::PacketCipher;
use fulmar_fec as fec;
use fulmar_wire::fec::HEADER_LEN as FEC_HEADER_LEN;
use fulmar_wire::kcp::HEADER_LEN;
use fulmar_wire::libev::MAX_PADDING;
use fulmar_wire::time::Instant;

use crate::addresses::{Allowance, REFRESH_EVERY, REMEMBERED_FOR, REPEAT_BYTES, SEGMENT};
use crate::admission::{self, Body, Peek};
use crate::counters::Counters;
use crate::diagnosis::Traces;
use crate::endpoint::Line;
use crate::layer::{Class, LayerError, StreamLayer};
use crate::liveness::{Change, Liveness};
use crate::loss::Resent;
use crate::measuring::{self, Measuring};
use crate::memory::{self, Held, SEGMENTS_FLOOR, WINDOW_FLOOR};
use crate::pacer::Pacer;
use crate::transmit::{BufferPool, MAX_SEGMENTS, Path, Run, RunWriter, Written};

/// Why a session ended.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Reason {
    /// The stream layer cannot go on.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The peer has no state of this session any more: it was restarted, or it refused the session.
    #[error("the other end has lost this session (it was restarted, or it refuses our streams)")]
    PeerLostState,
    /// No valid frame arrived in time.
    #[error("no valid stream within {0:?}")]
    Unproven(Duration),
    /// It made room for newer ones, before a valid frame arrived.
    #[error("no valid stream yet, and too many such sessions")]
    Crowded,
    /// The other end says that it has ended this session, and what it says is to be believed.
    #[error("the other end had ended this session (it had not heard from us for too long)")]
    PeerEnded,
    /// The other end says that it does not know this session (any more).
    #[error("reset by the other end")]
    PeerReset,
    /// Both directions have ended.
    #[error("finished")]
    Finished,
    /// Nothing of the peer has arrived for this long.
    #[error("nothing was heard for {0:?}")]
    Silent(Duration),
    /// The peer opened another session from the same address.
    #[error("replaced by a new session of the same peer")]
    Replaced,
    /// We closed it.
    #[error("closed")]
    Closed,
}

/// Bytes that one flush takes from the streams at most: some runs full, so that no session keeps the others waiting
/// and a large window does not become one burst of buffers.
const FILL_BYTES: usize = 256 * 1024;

/// UDP payload of a client's first datagram, bytes: what every path carries, and what QUIC's have (RFC 9000, section 14.1).
const FIRST_DATAGRAM: usize = 1200;

/// An address is asked again after a retransmission timeout, or after so long if that has grown.
const LONGEST_PATIENCE: Duration = Duration::from_secs(1);

/// Payload of a frame for an address that is not validated: one fills a segment.
const FIRST_FRAME: usize = SEGMENT - 8;

/// Times that streams are asked in one flush, where the ARQ keeps its queue short.
const FLUSHES: usize = 4;

/// Datagrams of one flush, before it lets other sessions go on: some runs full.
const FLUSH_DATAGRAMS: u64 = 4 * MAX_SEGMENTS as u64;

/// Bytes between two moments of rest that are a transfer.
const RESTLESS: u64 = 16 * 1024;

/// How long after its last payload a peer with open streams is asked whether it is still there. A sender that died in
/// the middle of a download is noticed by that; the regular keep-alive comes much later.
const QUIET_CHECK: Duration = Duration::from_secs(2);
/// How often it is looked at whether a window limits a transfer.
const WINDOW_CHECK: Duration = Duration::from_secs(5);
/// Round trips below this need no larger windows.
const WINDOW_RTT: Duration = Duration::from_millis(20);

/// A window that kept data back for most of some seconds.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct WindowSmall {
    /// Whether it is our send window; else it is the peer's receive window.
    pub ours: bool,
    /// Its size in segments.
    pub segments: u32,
    /// The round-trip time.
    pub rtt: Duration,
    /// Bits per second that this window carries at most at this round-trip time.
    pub ceiling: u64,
    /// A size to try instead: four times as much, since what the path could carry is not known before.
    pub suggested: u32,
}

/// Another address that datagrams of a conversation come from, while it is found out whether its peer is there.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Candidate {
    /// Where that is.
    pub(crate) path: Path,
    /// When something came from there last.
    pub(crate) heard: Instant,
    /// When the first question left.
    pub(crate) asked: Option<Instant>,
    /// When the next one is due.
    pub(crate) next: Instant,
    /// Questions that have left.
    pub(crate) tries: u32,
    /// Since when it is known that who is there gets what is sent there.
    pub(crate) shown: Option<Instant>,
}

impl Candidate {
    /// When the peer is believed to be there, unless the other address answers before that: `patience` after the question, and half of it
    /// after the answer, which the other one's may follow.
    pub(crate) fn over_at(&self, patience: Duration) -> Option<Instant> {
        let shown = self.shown?;
        let answered = shown + patience / 2;
        Some(
            self.asked
                .map_or(answered, |asked| answered.max(asked + patience)),
        )
    }
}

/// A validated address is still heard.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Refresh {
    /// When it was heard last.
    pub(crate) heard: Instant,
}

/// What is known of the address that a session sends to.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Standing {
    /// When it was last told that the validated address is heard; never for those that are configured. `None`: it is not validated.
    since: Option<Instant>,
    /// The last flush left something behind for which there is no allowance.
    blocked: bool,
    /// It may still repeat something.
    repeats: bool,
}

impl Default for Standing {
    /// That of an address that is configured.
    fn default() -> Self {
        Self {
            since: Some(Instant::FAR_FUTURE),
            blocked: false,
            repeats: true,
        }
    }
}

impl Standing {
    pub(crate) const fn is_known(&self) -> bool {
        self.since.is_some()
    }
}

/// What [`Session::fill`] found.
#[derive(Copy, Clone, Default, Debug)]
struct Filled {
    /// It stopped because that was enough for once.
    more: bool,
    /// The streams have nothing more.
    empty: bool,
}

/// What a flush found.
#[derive(Copy, Clone, Default, Debug)]
pub(crate) struct Flushed {
    pub(crate) change: Option<Change>,
    /// Whether the streams have more to write at once.
    pub(crate) more: bool,
    pub(crate) window: Option<WindowSmall>,
    /// Whether datagrams were written.
    pub(crate) sent: bool,
}

/// Everything that is chosen when a session is built.
pub struct Parts {
    /// The conversation.
    pub kcp: Kcp,
    /// Parity on our packets, if any.
    pub encoder: Option<fec::Encoder>,
    /// Recovery of the peer's packets, in dialects that have parity.
    pub decoder: Option<fec::Decoder>,
    /// Its streams.
    pub layer: Box<dyn StreamLayer>,
    /// Where it sends to.
    pub path: Path,
    /// Index of its cipher at the endpoint.
    pub cipher: usize,
    /// Bytes of UDP payload per second, if limited.
    pub rate_limit: Option<u64>,
    /// Seed of the padding of datagrams that are not full, in dialects that pad: up to 15 bytes, each with their number as its value.
    pub padding: Option<u64>,
    /// How long the peer may be silent, in dialects whose streams do not watch that.
    pub silence: Option<Silence>,
    /// Whether it holds no buffers while it is at rest: worth the allocations where a session is one stream, and there may be
    /// thousands at rest.
    pub thrifty: bool,
    /// Whether it asks a peer that has fallen quiet with streams open whether it is still there, and one that seems to
    /// have forgotten the conversation whether it has; one end should.
    pub watches_quiet: bool,
    /// What goes with a sender that measures the path.
    pub measuring: Option<measuring::Settings>,
}

/// How long a peer may be silent: nothing of it that opens and belongs to the conversation.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Silence {
    /// From the beginning, until something has arrived.
    pub first: Duration,
    /// Afterwards.
    pub then: Duration,
}

/// Puts a few bytes behind datagrams that are not full, before they are sealed (docs/spec/kcptun-libev.md, section 4.3): as many
/// as their value says, 0 to 15, so that lengths tell less. Receivers ignore what is too short for a segment.
#[derive(Copy, Clone, Debug)]
struct Padding(u64);

impl Padding {
    /// How many bytes go behind `len`, where `most` may be.
    const fn draw(&mut self, len: usize, most: usize) -> usize {
        let room = most.saturating_sub(len);
        if room == 0 {
            return 0;
        }
        // Xorshift: what it hides is no secret.
        let mut x = self.0 | 1;
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0 = x;
        let room = if room < MAX_PADDING {
            room
        } else {
            MAX_PADDING
        };
        ((x >> 32) % (room as u64 + 1)) as usize
    }
}

/// A conversation with one peer.
pub struct Session {
    pub(crate) kcp: Kcp,
    encoder: Option<Box<fec::Encoder>>,
    decoder: Option<Box<fec::Decoder>>,
    pub(crate) layer: Box<dyn StreamLayer>,
    pub(crate) path: Path,
    pub(crate) cipher: usize,
    pacer: Option<Pacer>,
    padding: Option<Padding>,
    pub(crate) silence: Option<Silence>,
    thrifty: bool,
    /// Bytes carried when it was last at rest.
    carried_at_rest: u64,
    pub(crate) liveness: Liveness,
    measuring: Option<Box<Measuring>>,
    pub(crate) standing: Standing,
    /// Whether this end checks a peer that has fallen quiet: only one end does, or they would keep each other awake.
    watches_quiet: bool,
    payload_seen: u64,
    quiet_check: Option<Instant>,
    pub(crate) traces: Traces,
    pub(crate) opened_at: Instant,
    /// Whether a valid frame has arrived and the endpoint knows.
    pub(crate) proven: bool,
    /// Where the peer may have moved to.
    pub(crate) candidate: Option<Box<Candidate>>,
    /// Whose limit on unproven sessions it counts against.
    pub(crate) first_ip: IpAddr,
    /// The receive window that it was built with, segments.
    rcv_wnd: u32,
    /// What it held when that was last looked at.
    pub(crate) held: Held,
    /// Whether a window kept data back at the last flush.
    pub(crate) held_back: bool,
    /// Since when something in flight has not been answered, as of the last flush.
    unanswered: Option<Instant>,
    /// How often what is unacknowledged was sent by a stub since the peer was heard.
    pub(crate) resends: u8,
    /// The line to become a stub that it stands in, and when its peer had been heard when it joined.
    pub(crate) line: Option<Line>,
    pub(crate) lined_up: Instant,
    /// What of the parts' own counters is in the endpoint's already.
    counted: (arq::Counters, fec::Counters),
    /// What is known of the path if nothing measures it.
    pub(crate) resent: Resent,
    /// When windows were last looked at, and for how long they had kept data back then; `None` once it was told.
    windows: Option<(Instant, arq::WindowLimited)>,
}

impl Session {
    pub(crate) fn new(mut parts: Parts, now: Instant) -> Self {
        let measuring = parts
            .measuring
            .map(|s| Box::new(Measuring::new(s, &mut parts.kcp)));
        Self {
            rcv_wnd: parts.kcp.config().rcv_wnd,
            held: Held::default(),
            measuring,
            kcp: parts.kcp,
            encoder: parts.encoder.map(Box::new),
            decoder: parts.decoder.map(Box::new),
            layer: parts.layer,
            path: parts.path,
            cipher: parts.cipher,
            pacer: parts.rate_limit.map(Pacer::new),
            padding: parts.padding.map(Padding),
            silence: parts.silence,
            thrifty: parts.thrifty,
            carried_at_rest: 0,
            liveness: Liveness::default(),
            standing: Standing::default(),
            watches_quiet: parts.watches_quiet,
            payload_seen: 0,
            quiet_check: None,
            traces: Traces::default(),
            opened_at: now,
            proven: false,
            candidate: None,
            first_ip: parts.path.remote.ip(),
            held_back: false,
            unanswered: None,
            resends: 0,
            line: None,
            lined_up: Instant::ZERO,
            counted: (arq::Counters::default(), fec::Counters::default()),
            resent: Resent::default(),
            windows: Some((now, arq::WindowLimited::default())),
        }
    }

    /// Until [`Session::lift_limits`] a stranger's session takes in only what an honest client sends before it has heard
    /// anything, so that many of them cost little.
    pub(crate) fn limit_until_proven(&mut self) {
        let config = self.kcp.config();
        self.rcv_wnd = config.rcv_wnd;
        let first = config.rcv_wnd.min(config.rules.initial_remote_window);
        self.kcp.set_windows(config.snd_wnd, first);
    }

    /// The peer is no longer a stranger.
    pub(crate) fn lift_limits(&mut self) {
        let snd_wnd = self.kcp.config().snd_wnd;
        self.kcp.set_windows(snd_wnd, self.rcv_wnd);
    }

    /// The conversation number.
    #[must_use]
    pub fn conv(&self) -> u32 {
        self.kcp.conv()
    }

    /// Where it sends to.
    #[must_use]
    pub const fn path(&self) -> Path {
        self.path
    }

    /// UDP payload that the path has been found to carry, bytes; 0 when that is not looked for, or nothing has arrived.
    pub(crate) fn carried(&self) -> usize {
        let size = self.measuring.as_ref().map_or(0, |m| m.size());
        if self.kcp.snd_una().0 == 0 { 0 } else { size }
    }

    /// Whether the peer is known to be where it seems to be: it has been shown, or the address is configured.
    pub(crate) const fn is_known(&self) -> bool {
        self.standing.is_known()
    }

    /// When the peer was last heard from an address that has been shown to be its.
    pub(crate) fn known_heard(&self) -> Option<Instant> {
        let shown = self.standing.since? != Instant::FAR_FUTURE;
        self.kcp.last_heard().filter(|_| shown)
    }

    /// The first datagram has so many bytes of UDP payload at least, where that may be, until the other side was heard: what a server
    /// that does not know where its peers are may answer is three times as much. `around`: bytes around what KCP writes.
    pub(crate) fn pad_first(&mut self, around: usize) {
        let header = if self.encoder.is_some() {
            FEC_HEADER_LEN
        } else {
            0
        };
        self.kcp
            .pad_until_heard(FIRST_DATAGRAM.saturating_sub(around + header));
    }

    /// Whether it has something to say, and may not: nobody has shown to be where that would go.
    pub(crate) const fn is_silenced(&self) -> bool {
        self.standing.blocked && !self.standing.is_known()
    }

    /// Whether it has more to send than may go to its address.
    pub(crate) const fn is_blocked(&self) -> bool {
        self.standing.blocked
    }

    /// Whether the peer has shown that it gets what is sent to it, since this was asked last.
    pub(crate) fn take_echo(&mut self) -> bool {
        self.kcp.take_echo()
    }

    /// Anybody may have forged the address of the peer.
    pub(crate) fn distrust(&mut self) {
        self.standing = Standing {
            since: None,
            ..Standing::default()
        };
        self.kcp.expect_echo(true);
        self.kcp.set_datagram_size(SEGMENT + HEADER_LEN);
    }

    /// The peer is where it seems to be. Its address is to be told to be heard from time to time, beginning at `now`.
    pub(crate) fn trust(&mut self, now: Instant) {
        self.standing = Standing {
            since: Some(now),
            ..Standing::default()
        };
        self.kcp.expect_echo(false);
        let size = self.measuring.as_ref().map(|m| m.datagram_size());
        let size = size.unwrap_or(self.kcp.config().mtu);
        self.kcp.set_datagram_size(size);
        if self.measuring.is_none() && self.kcp.snd_una() != self.kcp.snd_nxt() {
            // The timeouts of what leaves now, all at once, are those of a path that nobody has measured.
            self.kcp.measure_from(Some(now));
        }
    }

    /// What is to be told of the address of a peer that has been shown to be there, if anything.
    pub(crate) fn check_standing(&mut self, now: Instant) -> Option<Refresh> {
        let since = self.standing.since?;
        if since == Instant::FAR_FUTURE || now.since(since) < REFRESH_EVERY {
            return None;
        }
        let heard = self.kcp.last_heard().unwrap_or(self.opened_at);
        if now.since(heard) >= REMEMBERED_FOR {
            self.distrust();
            return None;
        }
        self.standing.since = Some(now);
        Some(Refresh { heard })
    }

    /// Whether it only answers what may still arrive.
    #[must_use]
    pub fn is_lingering(&self) -> bool {
        self.proven && self.layer.streams() == 0
    }

    /// The ARQ, to look at.
    #[must_use]
    pub const fn kcp(&self) -> &Kcp {
        &self.kcp
    }

    /// Whether the peer has been silent for too long.
    #[must_use]
    pub const fn is_suspect(&self) -> bool {
        self.liveness.is_suspect()
    }

    /// Takes the opened body of one datagram of the peer.
    pub(crate) fn handle_body(
        &mut self,
        now: Instant,
        body: &[u8],
        peek: Peek,
        counters: &mut Counters,
    ) {
        let outside = self.kcp.counters().outside_segs;
        match peek.body {
            Body::Plain => self.input(now, body),
            Body::FecData | Body::FecParity => {
                if peek.body == Body::FecData
                    && let Some(segments) = admission::fec_payload(body)
                {
                    self.input(now, segments);
                }
                let Self { decoder, kcp, .. } = self;
                if let Some(decoder) = decoder {
                    // What does not parse is counted by the decoder, or by KCP.
                    let _ = decoder.handle_packet(body, &mut |segments| {
                        let _ = kcp.handle_datagram(now, segments, Origin::Recovered);
                    });
                }
            }
            Body::OutOfBand | Body::Ended | Body::Beside => counters.oob_packets += 1,
        }
        if !self.proven && self.kcp.counters().outside_segs > outside {
            // A stranger in the middle of a conversation that we do not know (any more): let it find out.
            self.kcp.tell_window(now);
        }
    }

    fn input(&mut self, now: Instant, segments: &[u8]) {
        // KCP counts what it rejects.
        let _ = self.kcp.handle_datagram(now, segments, Origin::Wire);
    }

    /// Whether datagrams wait for the rate limit.
    pub(crate) fn is_paced(&self) -> bool {
        self.pacer.as_ref().is_some_and(Pacer::is_backlogged)
    }

    /// The shape of its groups for parity, and the number of the next packet, if there are some.
    pub(crate) fn groups(&self) -> Option<(fec::Shape, u32)> {
        match (&self.encoder, &self.measuring) {
            (Some(encoder), _) => Some((encoder.shape(), encoder.next_seqid().0)),
            (None, Some(measuring)) => measuring.groups(),
            (None, None) => None,
        }
    }

    /// It was a stub until now.
    pub(crate) fn go_on(&mut self, now: Instant, groups: Option<(fec::Shape, u32)>) {
        // What is counted already is not counted again.
        self.counted.0 = *self.kcp.counters();
        self.payload_seen = self.layer.payload_received();
        // Nothing is known of what was sent before: who slept, and for how long.
        self.kcp.measure_from(Some(now));
        self.unanswered = self.unanswered(now);
        let Some((shape, seqid)) = groups else {
            return;
        };
        if let Some(measuring) = &mut self.measuring {
            measuring.set_groups(shape, seqid);
        }
        if self.encoder.is_some() {
            // The group in progress is given up: its packets have arrived, or were sent again.
            let step = u32::try_from(shape.total()).unwrap_or(1);
            let next = fec::Encoder::new(shape).starting_at(seqid.div_ceil(step));
            self.encoder = Some(Box::new(next));
        }
    }

    /// What it holds.
    pub(crate) fn memory(&self) -> Held {
        let held = self.layer.held();
        Held {
            sending: held.sending + self.kcp.send_memory(),
            receiving: held.receiving + self.kcp.receive_memory(),
        }
    }

    /// Keeps the receive window within what may be held (`allowance`, bytes). Whether that is less than it was built with.
    fn fit_window(&mut self, allowance: usize) -> bool {
        let config = self.kcp.config();
        let fits = u32::try_from(allowance / config.mtu).unwrap_or(u32::MAX);
        let window = fits.max(WINDOW_FLOOR).min(self.rcv_wnd);
        if window != config.rcv_wnd {
            let snd_wnd = config.snd_wnd;
            self.kcp.set_windows(snd_wnd, window);
        }
        window < self.rcv_wnd
    }

    /// Moves what has come into order to the stream layer, of which it may hold `allowance` bytes; at least what comes at once.
    ///
    /// # Errors
    /// When the session cannot go on.
    pub(crate) fn deliver(
        &mut self,
        now: Instant,
        allowance: usize,
        counters: &mut Counters,
    ) -> Result<(), Reason> {
        if self.proven && self.fit_window(allowance) {
            counters.receive_limited += 1;
        }
        let Self { kcp, layer, .. } = self;
        // A piece fits in any case if there is none.
        let held = layer.held().receiving;
        let mut room = allowance.saturating_sub(held).max(usize::from(held == 0));
        while room > 0 && layer.wants_input() {
            let fragment = |bytes: &[u8], last| {
                room = room.saturating_sub(bytes.len());
                layer.handle_fragment(now, bytes, last)
            };
            let Some(outcome) = kcp.recv_fragment(fragment) else {
                break;
            };
            outcome?;
        }
        if self.layer.is_proven() {
            self.traces.frame();
            self.kcp.send_ack_ranges(self.layer.peer_takes_ack_ranges());
        }
        let payload = self.layer.payload_received();
        if self.watches_quiet && payload != self.payload_seen {
            self.payload_seen = payload;
            self.quiet_check = Some(now + QUIET_CHECK);
        }
        Ok(())
    }

    /// Does what is due and writes what may be sent into runs, which go to `out` (or wait for the rate limit).
    ///
    /// # Errors
    /// When the session cannot go on.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn flush(
        &mut self,
        now: Instant,
        cipher: &mut dyn PacketCipher,
        pool: &mut BufferPool,
        out: &mut VecDeque<Run>,
        allowance: Held,
        counters: &mut Counters,
        credit: &mut Allowance,
    ) -> Result<Flushed, Reason> {
        if let Some((at, limit)) = self.silent_at()
            && at <= now
        {
            return Err(Reason::Silent(limit));
        }
        self.layer.acknowledged(now, self.kcp.waiting() == 0);
        if self.layer.poll_timeout().is_some_and(|at| at <= now) {
            self.layer.handle_timeout(now)?;
            // A few times a minute, and mostly a keep-alive: nothing has happened for a while.
            self.kcp.release_memory();
        }
        self.deliver(now, allowance.receiving, counters)?;
        if self.quiet_check.is_some_and(|at| at <= now) {
            self.quiet_check = None;
            if self.layer.streams() > 0 && self.kcp.is_idle() {
                self.layer.ping();
            }
        }
        let rto = self.kcp.rto();
        let change = self.liveness.check(now, self.unanswered(now), rto);
        if change == Some(Change::Suspected) {
            // What it answers when it is back tells how long it was away.
            self.kcp.measure_from(None);
        }
        if self.liveness.take_probe(now, rto) {
            self.kcp.probe(now);
        }
        if let Some(pacer) = &mut self.pacer {
            pacer.release(now, out);
            if pacer.is_backlogged() {
                self.unanswered = self.unanswered(now);
                return Ok(Flushed {
                    change,
                    ..Flushed::default()
                });
            }
        }
        // To an address that is not validated no question about sizes goes, and no copies.
        if let Some(measuring) = &mut self.measuring
            && self.standing.is_known()
        {
            let ours = self.layer.peer_is_fulmar();
            measuring.before_flush(now, &mut self.kcp, &mut self.encoder, ours);
        }
        let mut more = false;
        let mut left = false;
        let mut flushed = false;
        let before = counters.out_pkts;
        for _ in 0..FLUSHES {
            let filled = self.fill(now, allowance.sending, credit);
            more = filled.more;
            left = !filled.empty;
            let due = self.kcp.poll_timeout().is_some_and(|at| at <= now);
            let wanted = if due {
                Some(Flush::Full)
            } else {
                self.kcp.flush_wanted().kind()
            };
            let Some(kind) = wanted else {
                break;
            };
            flushed = true;
            let written = self.write(now, kind, cipher, pool, out, credit);
            counters.out_pkts += written.datagrams;
            counters.out_bytes += written.bytes;
            if filled.empty {
                self.kcp.drained(now);
            } else if credit.is_limited() {
                self.kcp.starved(now);
            }
            // A strategy that keeps its queue short has taken only a part of what may leave now.
            if self.measuring.is_none()
                || filled.empty
                || written.datagrams == 0
                || !self.kcp.has_room()
            {
                break;
            }
            more = true;
        }
        self.standing.blocked = false;
        if credit.is_limited() {
            flushed |= self.repeat(now, cipher, pool, out, credit, counters);
            let spent = credit.bytes < REPEAT_BYTES as u64;
            more &= !spent && !self.kcp.is_blocked();
            self.standing.blocked = self.kcp.is_blocked() || left && spent;
            // What cannot leave although it is time, as it is too long, has to wait for other things.
            let stuck = self.kcp.oldest_due().is_some_and(|at| at <= now);
            self.standing.repeats = !stuck && (!spent || credit.repeats > 0);
        }
        if !flushed {
            self.rest(allowance);
            self.unanswered = self.unanswered(now);
            return Ok(Flushed {
                change,
                more,
                ..Flushed::default()
            });
        }
        if let Some(pacer) = &mut self.pacer {
            pacer.release(now, out);
        }
        self.unanswered = self.unanswered(now);
        self.count(counters);
        self.rest(allowance);
        // A flush that ran out of room goes on in the next round.
        let blocked = self.standing.blocked && self.kcp.is_blocked();
        let wanted = self.kcp.flush_wanted().kind().is_some() && !blocked;
        let more = more || wanted;
        let window = self.check_windows(now);
        Ok(Flushed {
            change,
            more,
            window,
            sent: counters.out_pkts != before,
        })
    }

    /// Writes what the ARQ has to say into runs.
    fn write(
        &mut self,
        now: Instant,
        kind: Flush,
        cipher: &mut dyn PacketCipher,
        pool: &mut BufferPool,
        out: &mut VecDeque<Run>,
        allowance: &mut Allowance,
    ) -> Written {
        self.write_with(cipher, pool, out, allowance, now, |kcp, sink| {
            kcp.flush(now, kind, sink);
        })
    }

    /// Writes what `what` has to say to `path`, which is not where the session sends to: no parity, which would protect what goes elsewhere.
    #[allow(clippy::too_many_arguments)]
    fn write_away(
        &mut self,
        path: Path,
        cipher: &mut dyn PacketCipher,
        pool: &mut BufferPool,
        out: &mut VecDeque<Run>,
        allowance: &mut Allowance,
        now: Instant,
        what: impl FnOnce(&mut Kcp, &mut Sink<'_>),
    ) -> Written {
        let encoder = self.encoder.take();
        let home = std::mem::replace(&mut self.path, path);
        let written = self.write_with(cipher, pool, out, allowance, now, what);
        self.path = home;
        self.encoder = encoder;
        written
    }

    /// Sends what acknowledgements are owed to `path`.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn acknowledge(
        &mut self,
        now: Instant,
        path: Path,
        cipher: &mut dyn PacketCipher,
        pool: &mut BufferPool,
        out: &mut VecDeque<Run>,
        allowance: &mut Allowance,
    ) -> Written {
        self.write_away(path, cipher, pool, out, allowance, now, |kcp, sink| {
            kcp.acknowledge(now, sink);
        })
    }

    /// Asks whether the peer is at `path`, and, with the next flush, whether it is where it was. Nothing is written if there is nothing to ask with.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn ask_away(
        &mut self,
        now: Instant,
        path: Path,
        cipher: &mut dyn PacketCipher,
        pool: &mut BufferPool,
        out: &mut VecDeque<Run>,
        allowance: &mut Allowance,
    ) -> Written {
        self.write_away(path, cipher, pool, out, allowance, now, |kcp, sink| {
            kcp.ask_away(now, sink);
        })
    }

    /// How long an address is asked before the next question, and how long the other one may take to say that the peer is still there.
    pub(crate) fn patience(&self) -> Duration {
        self.kcp.rto().min(LONGEST_PATIENCE)
    }

    /// Who sent the last datagram, as far as that has answered something.
    pub(crate) fn take_answers(&mut self) -> arq::Answers {
        self.kcp.take_answers()
    }

    /// The peer is not at the other address, or has moved there.
    pub(crate) fn end_question(&mut self) {
        self.candidate = None;
        self.kcp.end_question();
    }

    /// The peer is now at `path`; where it was. What is under way to there is sent again.
    pub(crate) fn move_to(&mut self, now: Instant, path: Path) -> Path {
        self.end_question();
        let old = std::mem::replace(&mut self.path, path);
        self.trust(now);
        self.kcp.resend_all(now);
        old
    }

    /// When something is to be done about the other address.
    fn candidate_due(&self) -> Option<Instant> {
        let candidate = self.candidate.as_ref()?;
        Some(match candidate.asked {
            Some(_) => candidate.over_at(self.patience()).unwrap_or(candidate.next),
            None => candidate.next,
        })
    }

    /// Sends the oldest segment in flight again to an address that may get nothing else, if it is time. Whether it left.
    fn repeat(
        &mut self,
        now: Instant,
        cipher: &mut dyn PacketCipher,
        pool: &mut BufferPool,
        out: &mut VecDeque<Run>,
        allowance: &mut Allowance,
        counters: &mut Counters,
    ) -> bool {
        let paid = allowance.bytes >= REPEAT_BYTES as u64;
        let may = paid || allowance.repeats > 0;
        if !may || self.kcp.oldest_due().is_none_or(|at| at > now) {
            return false;
        }
        let mut one = Allowance {
            bytes: REPEAT_BYTES as u64,
            repeats: 0,
        };
        let written = self.write_with(cipher, pool, out, &mut one, now, |kcp, sink| {
            kcp.repeat_oldest(now, sink);
        });
        if paid {
            allowance.spend(written.bytes);
        } else {
            allowance.repeats -= u8::from(written.datagrams > 0);
            counters.credit_repeats += written.datagrams;
        }
        counters.out_pkts += written.datagrams;
        counters.out_bytes += written.bytes;
        written.datagrams > 0
    }

    fn write_with(
        &mut self,
        cipher: &mut dyn PacketCipher,
        pool: &mut BufferPool,
        out: &mut VecDeque<Run>,
        allowance: &mut Allowance,
        now: Instant,
        what: impl FnOnce(&mut Kcp, &mut Sink<'_>),
    ) -> Written {
        let flush_datagrams = self.pacer.as_ref().map_or(0, Pacer::flush_datagrams);
        let (queue, segments, limit) = match &mut self.pacer {
            Some(pacer) => (pacer.queue(), crate::pacer::RUN_SEGMENTS, flush_datagrams),
            None => (&mut *out, MAX_SEGMENTS, FLUSH_DATAGRAMS),
        };
        let mut sink = Sink {
            writer: RunWriter::new(queue, pool, cipher, self.path, segments),
            encoder: self.encoder.as_deref_mut(),
            padding: self.padding.as_mut(),
            full: self.kcp.mss() + HEADER_LEN,
            now,
            limit,
            bytes: allowance.bytes,
            measuring: self.measuring.as_deref(),
            parity: 0,
        };
        what(&mut self.kcp, &mut sink);
        let parity = sink.parity;
        let written = sink.writer.finish();
        allowance.spend(written.bytes);
        if let Some(measuring) = &mut self.measuring {
            measuring.after_flush(&self.kcp, written, parity);
        }
        if written.datagrams > 0 {
            self.traces.sent(now);
        }
        written
    }

    /// Holds no buffers while there is nothing in them, where that is wanted, or others need the memory. In the middle of a transfer there is nothing in them now
    /// and then; what is left behind that goes when the endpoint is quiet.
    fn rest(&mut self, allowance: Held) {
        let thrifty = self.thrifty || memory::is_scarce(allowance);
        if !thrifty || !self.kcp.is_idle() || self.kcp.is_readable() {
            return;
        }
        let counters = self.kcp.counters();
        let carried = counters.bytes_sent + counters.bytes_received;
        if carried - std::mem::replace(&mut self.carried_at_rest, carried) < RESTLESS {
            self.shrink();
        }
    }

    /// Gives back memory that a burst took, of what is empty now.
    pub(crate) fn shrink(&mut self) {
        self.kcp.release_memory();
        self.layer.shrink();
    }

    /// Pulls frames into the ARQ while it has room, not more than [`FILL_BYTES`] at a time, while it holds less than `allowance`, and what may leave
    /// by `credit`.
    fn fill(&mut self, now: Instant, allowance: usize, credit: &Allowance) -> Filled {
        let Self {
            kcp,
            layer,
            measuring,
            ..
        } = self;
        // Old decoders, told another group shape, rebuild packets before they have found out ours. Rebuilt from packets of
        // unequal length, a packet is garbage that shows; from packets of equal length, KCP takes it for data. So a
        // frame's last segment stays short, unless the peer is one of ours.
        let uneven = self.encoder.is_some() && !layer.peer_is_fulmar();
        let mss = kcp.mss();
        // Where copies are worth having, so that the beginning of a long answer is not one piece with the rest.
        let copies = measuring.as_ref().is_some_and(|m| m.has_copies());
        let network_limited = kcp.path().is_some_and(|p| p.network_limited);
        let limit = if copies && !network_limited {
            u32::try_from(mss).unwrap_or(u32::MAX)
        } else {
            u32::MAX
        };
        let mut filled = Filled::default();
        let mut bytes = 0;
        let mtu = kcp.config().mtu;
        let most = (allowance / mtu).max(SEGMENTS_FLOOR);
        // What the credit does not cover stays in the streams.
        let limited = credit.is_limited();
        // Without streams that is a keep-alive now and then.
        let held = limited && layer.streams() > 0;
        let limit = if limited {
            limit.min(u32::try_from(FIRST_FRAME).unwrap_or(limit))
        } else {
            limit
        };
        while kcp.has_room() && kcp.waiting() < most {
            // One is taken in any case, if it may leave in the place of a repeat.
            let first = kcp.waiting() == 0 && credit.repeats > 0;
            if held && !first && (kcp.not_sent() * REPEAT_BYTES) as u64 >= credit.bytes {
                break;
            }
            if bytes >= FILL_BYTES {
                filled.more = true;
                break;
            }
            let before = bytes;
            let more = layer.poll_output(now, limit, &mut |piece, class| {
                bytes += piece.len();
                kcp.send_as(piece, class == Class::Sparse);
            });
            if !more {
                filled.empty = true;
                break;
            }
            kcp.end_message();
            if uneven && bytes - before >= mss {
                kcp.end_segment();
            }
        }
        // The periodic sender keeps to what upstream's sends. Behind a limit of memory nothing follows before something is acknowledged, nor
        // where the credit is used up.
        let more = !filled.empty && kcp.waiting() < most && !limited;
        kcp.more_follows(measuring.is_some() && more);
        filled
    }

    /// Whether a window has kept data back for most of the last seconds; told once.
    fn check_windows(&mut self, now: Instant) -> Option<WindowSmall> {
        let (since, before) = self.windows?;
        if now - since < WINDOW_CHECK {
            return None;
        }
        let limited = self.kcp.window_limited(now);
        self.windows = Some((now, limited));
        let rtt = self.kcp.srtt().filter(|rtt| *rtt >= WINDOW_RTT)?;
        let most = (now - since) * 3 / 5;
        let (ours, segments) = if limited.local.saturating_sub(before.local) > most {
            (true, self.kcp.config().snd_wnd)
        } else if limited.remote.saturating_sub(before.remote) > most {
            (false, self.kcp.remote_window())
        } else {
            return None;
        };
        self.windows = None;
        let bits = u64::from(segments) * self.kcp.mss() as u64 * 8;
        let ceiling = bits * 1_000_000 / u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX).max(1);
        Some(WindowSmall {
            ours,
            segments,
            rtt,
            ceiling,
            suggested: segments
                .saturating_mul(4)
                .next_power_of_two()
                .min(32_768)
                .max(segments),
        })
    }

    /// When the peer has been silent for too long, and what is too long.
    fn silent_at(&self) -> Option<(Instant, Duration)> {
        let silence = self.silence?;
        Some(match self.kcp.last_heard() {
            None => (self.opened_at + silence.first, silence.first),
            Some(heard) => (heard + silence.then, silence.then),
        })
    }

    fn unanswered(&self, now: Instant) -> Option<Instant> {
        let waited = self.kcp.unanswered_since(now)?;
        Some(Instant::from_micros(
            now.as_micros() - u64::try_from(waited.as_micros()).ok()?.min(now.as_micros()),
        ))
    }

    /// Adds what the parts have counted since the last time.
    fn count(&mut self, to: &mut Counters) {
        let fec = self
            .decoder
            .as_ref()
            .map_or_else(Default::default, |d| d.counters());
        let kcp = *self.kcp.counters();
        let (k, f) = std::mem::replace(&mut self.counted, (kcp, fec));
        to.bytes_sent += kcp.bytes_sent - k.bytes_sent;
        to.bytes_received += kcp.bytes_received - k.bytes_received;
        to.kcp_in_errors += kcp.kcp_in_errors - k.kcp_in_errors;
        to.in_segs += kcp.in_segs - k.in_segs;
        to.out_segs += kcp.out_segs - k.out_segs;
        to.retrans_segs += kcp.retrans_segs - k.retrans_segs;
        // With mode auto, what is found lost by time counts here: later ones have been acknowledged.
        to.fast_retrans_segs += kcp.fast_retrans_segs - k.fast_retrans_segs;
        to.fast_retrans_segs += kcp.overdue_segs - k.overdue_segs;
        to.early_retrans_segs += kcp.early_retrans_segs - k.early_retrans_segs;
        to.lost_segs += kcp.lost_segs - k.lost_segs;
        to.repeat_segs += kcp.repeat_segs - k.repeat_segs;
        to.fec_full_shards += fec.full_shards - f.full_shards;
        to.fec_parity_shards += fec.parity_shards - f.parity_shards;
        to.fec_errs += fec.errors - f.errors;
        to.fec_recovered += fec.recovered - f.recovered;
        to.fec_shard_set = fec.shard_sets;
        to.fec_shard_min = fec.newest_group.into();
        to.copied_segs += kcp.copied_segs - k.copied_segs;
        to.ack_ranges += kcp.out_ranges - k.out_ranges;
        to.probed_segs += kcp.probed_segs - k.probed_segs;
        match &mut self.measuring {
            Some(measuring) => measuring.count(&self.kcp, to),
            None => {
                let again = kcp.retrans_segs - k.retrans_segs;
                self.resent.add(&self.kcp, again);
                self.resent.count(&self.kcp, to);
            }
        }
        let state = self.kcp.state();
        to.ring_buffer_snd_queue = u64::from(state.len_snd_queue);
        to.ring_buffer_rcv_queue = u64::from(state.len_rcv_queue);
        to.ring_buffer_snd_buffer = u64::from(state.len_snd_buf);
    }

    /// When [`Session::flush`] is due without anything new arriving.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let paced = self.pacer.as_ref().and_then(Pacer::poll_timeout);
        let arq = if paced.is_some() {
            None
        } else if self.standing.is_known() {
            self.kcp.poll_timeout()
        } else {
            self.limited_timeout()
        };
        let liveness = self.liveness.poll_timeout(self.unanswered, self.kcp.rto());
        [
            paced,
            arq,
            liveness,
            self.quiet_check,
            self.silent_at().map(|(at, _)| at),
            self.layer.poll_timeout(),
            self.candidate_due(),
            // While runs wait for the rate limit nothing is asked.
            self.measuring
                .as_ref()
                .filter(|_| paced.is_none())
                .and_then(|m| m.poll_timeout()),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The same of KCP, while little may leave: what is held back waits for an allowance, which comes with a datagram.
    fn limited_timeout(&self) -> Option<Instant> {
        let repeat = self.kcp.oldest_due().filter(|_| self.standing.repeats);
        let held = self.standing.blocked && self.kcp.is_blocked();
        let other = self.kcp.poll_timeout().filter(|_| !held);
        [repeat, other].into_iter().flatten().min()
    }

    /// This end has not run for a while.
    pub(crate) fn stalled(&mut self, now: Instant) {
        if !self.liveness.is_suspect() {
            self.kcp.measure_from(Some(now));
        }
    }

    /// Datagrams of the peer opened and were taken.
    pub(crate) fn heard(&mut self, now: Instant, datagrams: u64) -> Option<Change> {
        self.traces.opened(datagrams);
        if let Some(measuring) = &mut self.measuring
            && self.standing.is_known()
        {
            measuring.heard(now, &mut self.kcp);
        }
        if self.watches_quiet && self.kcp.take_doubt() {
            self.kcp.challenge(now);
            if self.kcp.in_flight() == 0 {
                // The question may get lost; this is sent until it is answered.
                self.layer.ping();
            }
        }
        let change = if self.kcp.last_answer() == Some(now) {
            self.liveness.answered(now)
        } else if self.liveness.stirred(now) {
            self.kcp.resend_all(now);
            None
        } else {
            None
        };
        if change.is_some() {
            // The path is back: do not wait for timeouts that have grown meanwhile.
            self.kcp.measure_from(Some(now));
            self.kcp.resend_all(now);
        }
        change
    }
}

/// Datagrams from the ARQ, given their FEC header and followed by their parity.
struct Sink<'a> {
    writer: RunWriter<'a>,
    encoder: Option<&'a mut fec::Encoder>,
    padding: Option<&'a mut Padding>,
    /// Bytes of a full datagram.
    full: usize,
    now: Instant,
    /// Datagrams of one flush.
    limit: u64,
    /// Bytes of UDP payload that may leave.
    bytes: u64,
    /// Who keeps the budget.
    measuring: Option<&'a Measuring>,
    /// Bytes of parity written.
    parity: u64,
}

impl Sink<'_> {
    /// Bytes that the next body may have.
    #[inline]
    fn room_for_body(&self) -> usize {
        if self.bytes == u64::MAX {
            return usize::MAX;
        }
        let left = self.bytes.saturating_sub(self.writer.written().bytes);
        let header = if self.encoder.is_some() {
            FEC_HEADER_LEN
        } else {
            0
        };
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        left.saturating_sub(self.writer.overhead() + header)
    }
}

impl DatagramSink for Sink<'_> {
    fn room(&self) -> usize {
        usize::try_from(self.limit.saturating_sub(self.writer.written().datagrams))
            .unwrap_or(usize::MAX)
    }

    fn reserve(&mut self, max_len: usize) -> &mut [u8] {
        // A shorter room is none for what is longer.
        let allowed = self.room_for_body();
        if self.encoder.is_some() {
            let body = &mut self.writer.reserve(max_len + FEC_HEADER_LEN)[FEC_HEADER_LEN..];
            &mut body[..max_len.min(allowed)]
        } else if self.padding.is_some() {
            &mut self.writer.reserve(max_len + MAX_PADDING)[..(max_len + MAX_PADDING).min(allowed)]
        } else {
            &mut self.writer.reserve(max_len)[..max_len.min(allowed)]
        }
    }

    fn commit_probe(&mut self, len: usize) {
        let Some(encoder) = &mut self.encoder else {
            return self.writer.commit_probe(len);
        };
        let len = len + FEC_HEADER_LEN;
        encoder.push(self.now, self.writer.reserved(len));
        // Rebuilt from parity it would be answered, although it did not pass.
        encoder.withhold();
        self.writer.commit_probe(len);
    }

    fn commit(&mut self, len: usize) {
        let allowed = self.room_for_body();
        let Some(encoder) = &mut self.encoder else {
            let padded = match &mut self.padding {
                Some(padding) => {
                    let n = padding.draw(len, self.full.min(allowed));
                    self.writer.reserved(len + n)[len..].fill(n as u8);
                    len + n
                }
                None => len,
            };
            self.writer.commit(padded);
            return;
        };
        let len = len + FEC_HEADER_LEN;
        let parity = encoder.push(self.now, self.writer.reserved(len));
        self.writer.commit(len);
        let parity_len = encoder.parity_len();
        let all = parity * parity_len;
        // What is not sent, receivers bear.
        let so_far = usize::try_from(self.parity).unwrap_or(usize::MAX);
        let sealed = (all + parity * self.writer.overhead()) as u64;
        let allowed = self
            .measuring
            .is_none_or(|m| m.allows(so_far.saturating_add(all)))
            && self.writer.written().bytes.saturating_add(sealed) <= self.bytes;
        if parity > 0 && allowed {
            self.parity += all as u64;
            if self.writer.fits_one_run(parity, parity_len) {
                self.writer
                    .append_equal(parity, parity_len, |out, stride, offset| {
                        encoder.emit_parity(out, stride, offset);
                    });
            } else {
                // Only with some fifty parity shards or more.
                let mut all = vec![0; parity * parity_len];
                encoder.emit_parity(&mut all, parity_len, 0);
                for packet in all.chunks(parity_len) {
                    self.writer.reserve(parity_len).copy_from_slice(packet);
                    self.writer.commit(parity_len);
                }
            }
        }
    }
}
