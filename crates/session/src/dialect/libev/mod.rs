//! The kcptun-libev dialect (docs/spec/kcptun-libev.md): one conversation of big-endian KCP for each stream, no parity, no
//! compression; messages beside all conversations for liveness, resets and rendezvous.
//!
//! | module | what |
//! |---|---|
//! | `stream` | the two ends of a conversation as those of a stream |
//! | [`control`] | what is said beside conversations: where the other end is, and whether it is there |
//! | `memory` | what is remembered of what is over |
//!
//! # What opens a conversation
//! A number belongs to an address and begins at any value. Who begins one has not heard anything yet, so a first flight has
//! `una` 0 and, with the window that a peer has until it tells another, no segment beyond 128 (section 17). Anything else
//! of an unknown conversation is of one that was lost: it follows its client to a new address if its state fits, else the
//! sender is told that it is not known.

pub mod control;
mod memory;
mod stream;

use core::time::Duration;
use std::collections::VecDeque;
use std::net::SocketAddr;

use fulmar_arq::{self as arq, Kcp};
use fulmar_cipher::{NonceSource, Scheme};
use fulmar_mux::single;
use fulmar_wire::kcp::{Command, Format, HEADER_LEN};
use fulmar_wire::libev::{self as wire, Carrier, MAX_PADDING, Method, Session0};
use fulmar_wire::time::{Instant, Millis};

use crate::admission::{Body, Peek};
use crate::dialect::muxed::Tokens;
use crate::dialect::{Beside, Dialect, Opening, PathEvent, Stranger};
use crate::measuring;
use crate::session::{Parts, Silence};
use crate::transmit::Path;

use control::{Control, Told};
use memory::{Begun, Ended, Nonces};
use stream::Layer;

/// A client that has sent nothing of a conversation for so long sends a keep-alive in it (section 17): below the time after
/// which an old server drops what it carries, if that has not sent anything.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(15));
/// How long the first answer may take (section 9.4).
const CONNECT: Duration = Duration::from_secs(30);
/// Resets that may be sent at once, and how many more in a second. They are no longer than what they answer.
const RESETS: u32 = 256;
/// Peers whose paths' sizes are remembered.
const SIZES: usize = 256;
/// Resets that wait for the socket.
const WAITING_RESETS: usize = 256;

/// What sessions of this dialect are built from. Ranges are checked by the configuration; see there for defaults.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether peers open sessions; else we do. A relay is a server that accepts none.
    pub role: Role,
    /// How datagrams are sealed.
    pub method: Method,
    /// What is below them.
    pub carrier: Carrier,
    /// Largest IP packet, bytes (`kcp.mtu`, 300 to 1500).
    pub ip_mtu: usize,
    /// KCP's four numbers.
    pub profile: arq::Profile,
    /// Send window, segments.
    pub snd_wnd: u32,
    /// Receive window, segments.
    pub rcv_wnd: u32,
    /// Data waits for the next tick (`kcp.flush` 0).
    pub write_delay: bool,
    /// Acknowledgements leave at once (`kcp.flush` 2).
    pub ack_no_delay: bool,
    /// The sender measures the path; then [`Self::profile`] only says how long acknowledgements wait at most. What it
    /// holds of parity and of sizes is not used: the first does not exist here, the second follows from the path.
    pub auto: Option<measuring::Settings>,
    /// How long a peer may be silent (`timeout`).
    pub timeout: Duration,
    /// How long a conversation whose ends have both come is answered for (`linger`).
    pub linger: Duration,
    /// How long a conversation that is over cannot begin again (`time_wait`).
    pub time_wait: Duration,
    /// Bytes that wait for a slow reader beside KCP's window, for each stream.
    pub receive_buffer: usize,
    /// A client holds its end back from servers that would drop the answer.
    pub hold_end: bool,
}

/// Who opens sessions.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Role {
    /// We do.
    Client,
    /// Peers do.
    Server,
    /// Nobody: only messages beside conversations are answered.
    Relay,
}

/// Counts what was drawn. What depends on it is no secret: padding, and conversation numbers, which go up by one.
#[derive(Debug)]
struct Draw(u64);

impl Draw {
    /// SplitMix64.
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Finds out which method opens a datagram with our key.
pub type Probe = Box<dyn Fn(&[u8]) -> Option<Method> + Send>;

/// Builds sessions of this dialect, and speaks beside them.
pub struct Libev {
    settings: Settings,
    control: Control,
    nonces: Nonces,
    ended: Ended,
    begun: Begun,
    draw: Draw,
    next_conv: u32,
    /// What paths were found to carry, UDP payload in bytes: a session is short, a path is not.
    sizes: VecDeque<(SocketAddr, usize)>,
    resets: VecDeque<(Path, u32)>,
    /// Resets that may still be sent, and since when that is counted.
    allowance: (u32, Instant),
    /// The latest time seen, and whether something may have to be said since.
    now: Instant,
    stirred: bool,
    /// Finds out the method of a datagram that does not open.
    probe: Probe,
    /// Makes what sessions' clocks show at the beginning.
    clocks: Option<Tokens>,
}

impl Libev {
    /// Sessions with `settings`. `seed` is random and makes conversation numbers and padding; `probe` finds out which of the methods
    /// opens a datagram with our key.
    #[must_use]
    pub fn new(settings: Settings, control: Control, seed: u64, probe: Probe) -> Self {
        let mut draw = Draw(seed);
        Self {
            settings,
            control,
            nonces: Nonces::default(),
            ended: Ended::default(),
            begun: Begun::default(),
            next_conv: draw.next() as u32,
            draw,
            sizes: VecDeque::new(),
            resets: VecDeque::new(),
            allowance: (RESETS, Instant::ZERO),
            now: Instant::ZERO,
            stirred: true,
            probe,
            clocks: None,
        }
    }

    /// The same; clocks of sessions begin at random, drawn from `random`.
    #[must_use]
    pub fn with_clocks(mut self, random: NonceSource) -> Self {
        self.clocks = Some(Tokens::new(random));
        self
    }

    /// What is said beside conversations.
    #[must_use]
    pub const fn control(&self) -> &Control {
        &self.control
    }

    fn parts(&mut self, now: Instant, path: Path, conv: u32) -> Parts {
        let clock = self.clocks.as_mut().map_or(0, Tokens::draw_clock);
        let s = &self.settings;
        let v6 = path.remote.is_ipv6();
        let headers = s.carrier.headers(v6);
        // The configuration refuses an MTU that leaves nothing.
        let mtu = wire::kcp_mtu(s.method, s.carrier, v6, s.ip_mtu)
            .unwrap_or(fulmar_wire::kcptun::MIN_KCP_MTU);
        let opener = s.role == Role::Client;
        let config = arq::Config {
            mtu,
            overhead: HEADER_LEN + s.method.overhead() + headers,
            copies: s.auto.is_some_and(|a| a.redundancy > 0),
            strategy: match s.auto {
                Some(_) => arq::StrategyKind::Auto,
                None => arq::StrategyKind::Classic,
            },
            profile: s.profile,
            snd_wnd: s.snd_wnd,
            rcv_wnd: s.rcv_wnd,
            ack_no_delay: s.ack_no_delay,
            write_delay: s.write_delay,
            measure_repairs: false,
            clock,
            rules: arq::Rules::LIBEV,
            ..arq::Config::default()
        };
        let stream = single::Config {
            opener,
            number: conv,
            send_buffer: if s.auto.is_some() {
                256 * 1024
            } else {
                64 * 1024
            },
            receive_buffer: s.receive_buffer,
            keepalive: (s.linger / 2).clamp(KEEPALIVE.0, KEEPALIVE.1),
            hold_end: s.hold_end,
        };
        let layer = Layer::new(stream, s.linger, now);
        Parts {
            kcp: Kcp::new(conv, config),
            encoder: None,
            decoder: None,
            layer: Box::new(layer),
            path,
            cipher: 0,
            rate_limit: None,
            padding: (s.method != Method::Plain).then(|| self.draw.next()),
            silence: Some(Silence {
                first: if opener { CONNECT } else { s.timeout },
                then: s.timeout,
            }),
            thrifty: true,
            watches_quiet: opener,
            measuring: s.auto.map(|a| measuring::Settings {
                parity: false,
                mtu: s.ip_mtu.saturating_sub(headers),
                known: self.known_size(path.remote),
                ..a
            }),
        }
    }

    fn known_size(&self, peer: SocketAddr) -> usize {
        let known = self.sizes.iter().find(|(addr, _)| *addr == peer);
        known.map_or(0, |(_, size)| *size)
    }

    /// Something has happened after which there may be something to say.
    const fn stir(&mut self, now: Instant) {
        self.now = now;
        self.stirred = true;
    }

    /// Whether one more reset may be sent.
    fn may_reset(&mut self, now: Instant) -> bool {
        let (left, since) = &mut self.allowance;
        if now.since(*since) >= Duration::from_secs(1) {
            (*left, *since) = (RESETS, now);
        }
        let may = *left > 0;
        *left = left.saturating_sub(1);
        may
    }

    fn reset(&mut self, now: Instant, path: Path, conv: u32) {
        if conv != 0
            && self.resets.len() < WAITING_RESETS
            && !self.resets.contains(&(path, conv))
            && self.may_reset(now)
        {
            self.resets.push_back((path, conv));
        }
    }

    fn pad(&mut self, remote: SocketAddr, out: &mut Vec<u8>) {
        let s = &self.settings;
        if s.method == Method::Plain {
            return;
        }
        let most = wire::kcp_mtu(s.method, s.carrier, remote.is_ipv6(), s.ip_mtu);
        let room = most.unwrap_or(0).saturating_sub(out.len()).min(MAX_PADDING);
        let n = self.draw.next() as usize % (room + 1);
        out.resize(out.len() + n, n as u8);
    }
}

impl Dialect for Libev {
    fn peek(&self, body: &[u8]) -> Option<Peek> {
        let conv = u32::from_be_bytes(*body.first_chunk()?);
        if conv == 0 {
            return Some(Peek {
                body: Body::Beside,
                conv: Some(0),
                opens: false,
                first: false,
                time: Millis(0),
            });
        }
        let first = Format::BigEndian.view(body).ok()?.parse().ok();
        // The header tells: who has not heard anything expects the first segment of ours.
        let opens = first.is_some_and(|(h, ..)| {
            h.command == Command::Push
                && h.una.0 == 0
                && h.sn.0 < arq::Rules::LIBEV.initial_remote_window
        });
        Some(Peek {
            body: Body::Plain,
            conv: Some(conv),
            opens: opens && self.settings.role == Role::Server,
            first: opens && first.is_some_and(|(h, ..)| h.sn.0 == 0),
            time: first.map_or(Millis(0), |(h, ..)| h.ts),
        })
    }

    fn accept(&mut self, now: Instant, stranger: Stranger) -> Parts {
        if self.settings.method != Method::Plain {
            self.begun.insert(stranger.conv, stranger.time);
        }
        self.parts(now, stranger.path, stranger.conv)
    }

    fn probe(&mut self, datagram: &[u8]) -> Option<Scheme> {
        (self.probe)(datagram).map(Scheme::Libev)
    }

    fn conversations_are_unique(&self) -> bool {
        false
    }

    fn open(&mut self, now: Instant) -> Opening {
        let Some(remote) = self.control.server() else {
            return Opening::NoPeer;
        };
        // 0 is what is said beside conversations.
        let conv = self.next_conv.max(1);
        self.next_conv = conv.wrapping_add(1);
        let path = Path {
            remote,
            local: None,
        };
        Opening::Session(self.parts(now, path, conv))
    }

    fn is_replay(&mut self, sealed: &[u8]) -> bool {
        let n = self.settings.method.nonce_len();
        // Without encryption nothing makes a datagram unique.
        n > 0 && sealed.len() >= n && self.nonces.seen(&sealed[sealed.len() - n..])
    }

    fn handle_beside(&mut self, now: Instant, path: Path, body: &[u8]) -> Option<Beside> {
        self.stir(now);
        let before = self.peer_at(path.remote);
        let told = self.control.handle(now, path, body, true);
        if let Some(Told::Reset { conv }) = told {
            return Some(Beside::Reset { conv });
        }
        let after = self.peer_at(path.remote);
        after
            .filter(|_| before != after)
            .map(|ack_ranges| Beside::Fulmar { ack_ranges })
    }

    fn heard(&mut self, now: Instant, from: SocketAddr) {
        self.control.heard(now, from);
    }

    fn sent(&mut self, now: Instant) {
        self.control.sent(now);
    }

    fn has_ended(&self, now: Instant, conv: u32, peer: SocketAddr) -> bool {
        self.ended.contains(now, conv, peer)
    }

    fn is_copy(&self, now: Instant, conv: u32, time: Millis) -> bool {
        self.begun.contains(now, conv, time)
    }

    fn unknown(&mut self, now: Instant, path: Path, conv: u32) {
        self.stir(now);
        self.reset(now, path, conv);
    }

    fn ended(&mut self, now: Instant, path: Path, conv: u32, tell: bool) {
        self.stir(now);
        if self.settings.role == Role::Server {
            let until = now + self.settings.time_wait;
            self.ended.insert(now, conv, path.remote, until);
            self.begun.end(now, conv, until);
        }
        if tell {
            self.reset(now, path, conv);
        }
    }

    fn carried(&mut self, peer: SocketAddr, bytes: usize) {
        if bytes == 0 {
            return;
        }
        match self.sizes.iter_mut().find(|(addr, _)| *addr == peer) {
            Some((_, size)) => *size = bytes,
            None => {
                if self.sizes.len() >= SIZES {
                    self.sizes.pop_front();
                }
                self.sizes.push_back((peer, bytes));
            }
        }
    }

    fn suspect(&mut self, now: Instant) {
        self.stir(now);
        self.control.suspect(now);
    }

    fn peer_at(&self, addr: SocketAddr) -> Option<bool> {
        let hello = self.control.hello(addr)?;
        Some(hello.features & wire::Hello::ACK_RANGES != 0)
    }

    fn poll_beside(&mut self, _now: Instant, out: &mut Vec<u8>) -> Option<Path> {
        let path = match self.resets.pop_front() {
            Some((path, conv)) => {
                Session0::Reset { conv }.emit(out);
                path
            }
            None => match self.control.poll_transmit(out) {
                Some(path) => path,
                None => {
                    self.stirred = false;
                    return None;
                }
            },
        };
        self.pad(path.remote, out);
        Some(path)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.stirred || !self.resets.is_empty() {
            Some(self.now)
        } else {
            self.control.poll_timeout()
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.control.handle_timeout(now);
    }

    fn poll_event(&mut self) -> Option<PathEvent> {
        self.control.poll_event()
    }

    fn inquire(&mut self, now: Instant) -> Option<bool> {
        self.stir(now);
        Some(self.control.inquire(now))
    }

    fn resolved(&mut self, now: Instant, addrs: Vec<SocketAddr>) {
        self.stir(now);
        self.control.resolved(now, addrs);
    }

    fn local_changed(&mut self, addrs: Vec<SocketAddr>) {
        self.stirred = true;
        self.control.local_changed(addrs);
    }

    fn reload(&mut self, settings: &Settings, keepalive: Option<Duration>) {
        self.stirred = true;
        self.settings = settings.clone();
        self.control.set_keepalive(keepalive, settings.timeout);
    }

    fn shrink(&mut self) {
        self.ended.shrink();
        self.begun.shrink();
        self.resets.shrink_to_fit();
    }
}
