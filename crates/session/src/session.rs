//! One session: a KCP conversation, its parity in both directions, and the streams on top.
//!
//! The way in: `handle_body` takes the opened bodies of datagrams, `deliver` moves what has come
//! into order to the stream layer. The way out: `flush` pulls frames from the layer while the ARQ has
//! room and writes datagrams into runs (`packets`), as far as the peer is known to be where they go (`whereabouts`). Nothing here knows of sockets, and the cipher belongs to the endpoint.

mod packets;
mod whereabouts;

pub(crate) use packets::Outlet;
use packets::Padding;
pub(crate) use whereabouts::{Candidate, Standing};

use core::time::Duration;
use std::net::IpAddr;

use fulmar_arq::{self as arq, Flush, Kcp, Origin};
use fulmar_fec as fec;
use fulmar_wire::time::Instant;

use crate::addresses::{Allowance, REPEAT_BYTES, SEGMENT};
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
use crate::transmit::Path;

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

/// Payload of a frame for an address that is not validated: one fills a segment.
const FIRST_FRAME: usize = SEGMENT - 8;

/// Times that streams are asked in one flush, where the ARQ keeps its queue short.
const FLUSHES: usize = 4;

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
    pub(crate) fn flush(
        &mut self,
        now: Instant,
        outlet: &mut Outlet<'_>,
        allowance: Held,
        counters: &mut Counters,
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
            pacer.release(now, outlet.out);
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
            let filled = self.fill(now, allowance.sending, outlet.credit);
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
            let written = self.write(now, outlet, |kcp, sink| kcp.flush(now, kind, sink));
            counters.out_pkts += written.datagrams;
            counters.out_bytes += written.bytes;
            if filled.empty {
                self.kcp.drained(now);
            } else if outlet.credit.is_limited() {
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
        if outlet.credit.is_limited() {
            flushed |= self.repeat(now, outlet, counters);
            let spent = outlet.credit.bytes < REPEAT_BYTES as u64;
            more &= !spent && !self.kcp.is_blocked();
            self.standing.blocked = self.kcp.is_blocked() || left && spent;
            // What cannot leave although it is time, as it is too long, has to wait for other things.
            let stuck = self.kcp.oldest_due().is_some_and(|at| at <= now);
            self.standing.repeats = !stuck && (!spent || outlet.credit.repeats > 0);
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
            pacer.release(now, outlet.out);
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
