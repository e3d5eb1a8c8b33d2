//! One stream and nothing else: the messages that kcptun-libev puts into the stream of a conversation
//! (docs/spec/kcptun-libev.md, sections 8 and 9). There is no multiplexer: a conversation is a connection.
//!
//! ```text
//!   opener                                   acceptor
//!   DIAL ──────────────────────────────────▶ opened: the target is dialled
//!   PUSH* ◀────────────────────────────────▶ PUSH*
//!   KEEPALIVE ─────────────────────────────▶ the same comes back
//!   EOF ◀──────────────────────────────────▶ EOF       each direction ends by itself
//! ```
//! The format has no message for a cut; whoever carries this says it beside the conversation.

use core::time::Duration;

use fulmar_wire::libev::{MAX_PUSH, MESSAGE_HEADER_LEN, Message};
use fulmar_wire::time::Instant;

use crate::error::Error;
use crate::machine::Class;
use crate::machine::class::Budget;
use crate::pool::{Buf, Pool, Slices, Span};
use crate::slab::StreamId;

/// Bytes at the head of a stream that count as awaited.
const FIRST_BYTES: u64 = 8 * 1024;

/// After a write of fewer bytes the room behind them is given back: there may be thousands of streams that send little, and each has room of
/// its own.
const SMALL_WRITE: usize = 1024;

/// What is chosen when a stream is made.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Whether we open it; else the peer does.
    pub opener: bool,
    /// Its number in logs: the conversation.
    pub number: u32,
    /// Bytes that may wait to be sent. Too few and a fast path runs dry between two turns.
    pub send_buffer: usize,
    /// Bytes that may wait to be read before nothing more is taken in.
    pub receive_buffer: usize,
    /// An opener that has sent nothing for so long sends a keep-alive. An acceptor sends none.
    pub keepalive: Duration,
    /// Hold the end of our direction back until the peer's has come: old acceptors drop what they would have answered
    /// (section 9.5).
    pub hold_end: bool,
}

/// What has changed. See [`Single::poll_event`].
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum SingleEvent {
    /// The peer opened the stream.
    Opened,
    /// Bytes, or the end of them, can be read.
    Readable,
    /// There is room to write again, or writing has become pointless.
    Writable,
}

/// Our direction.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Outbound {
    /// The application writes.
    Open,
    /// Nothing more will be written; EOF leaves behind what waits.
    Ending,
    /// EOF has left.
    Ended,
}

/// The stream of one conversation. See the module.
#[derive(Debug)]
pub struct Single {
    config: Config,
    /// Made when there is something to hold, gone when there is nothing.
    pool: Option<Box<Pool>>,
    unsent: Buf,
    received: Buf,
    /// A header that has not come whole, and how much of it has.
    header: [u8; MESSAGE_HEADER_LEN],
    have: u8,
    /// Bytes of a push that are still to come.
    body: u16,
    /// DIAL has to leave, or has come.
    dial_due: bool,
    dialled: bool,
    outbound: Outbound,
    /// The peer's EOF has come.
    finished: bool,
    /// Nobody here wants the bytes.
    discarding: bool,
    keepalive_due: bool,
    /// A message has come: the peer speaks this.
    proven: bool,
    relieved: bool,
    /// A writer waits for all that waits to leave.
    starved: bool,
    readable: bool,
    opened: bool,
    peer_is_fulmar: bool,
    bytes_received: u64,
    bytes_sent: u64,
    budget: Budget,
    /// When a message of ours last left.
    sent_at: Instant,
    /// When bytes of the peer last came.
    arrived_at: Option<Instant>,
    /// When bytes of ours last left.
    data_at: Option<Instant>,
}

/// A message to send: its bytes in up to three pieces.
#[derive(Debug)]
pub struct SingleFrame<'a> {
    head: [u8; MESSAGE_HEADER_LEN],
    payload: [&'a [u8]; 2],
    class: Class,
}

impl SingleFrame<'_> {
    /// The pieces, some of them perhaps empty.
    #[must_use]
    pub fn parts(&self) -> [&[u8]; 3] {
        [&self.head, self.payload[0], self.payload[1]]
    }

    /// Whether it is worth being carried more than once.
    #[must_use]
    pub const fn class(&self) -> Class {
        self.class
    }
}

impl Single {
    /// A stream at its beginning. An opener's is open at once.
    #[must_use]
    pub fn new(config: Config, now: Instant) -> Self {
        Self {
            config,
            pool: None,
            unsent: Buf::new(),
            received: Buf::new(),
            header: [0; MESSAGE_HEADER_LEN],
            have: 0,
            body: 0,
            dial_due: config.opener,
            dialled: false,
            outbound: Outbound::Open,
            finished: false,
            discarding: false,
            keepalive_due: false,
            proven: false,
            relieved: false,
            starved: false,
            readable: false,
            opened: false,
            peer_is_fulmar: false,
            bytes_received: 0,
            bytes_sent: 0,
            budget: Budget::new(now),
            sent_at: now,
            arrived_at: None,
            data_at: None,
        }
    }

    /// The one stream that there is.
    #[must_use]
    pub const fn id(&self) -> StreamId {
        StreamId {
            slot: 0,
            generation: 0,
            wire: self.config.number,
        }
    }

    /// Whether it takes bytes now.
    #[must_use]
    pub const fn wants_input(&self) -> bool {
        self.received.len() < self.config.receive_buffer
    }

    /// Takes the next bytes of the conversation, cut anywhere.
    ///
    /// # Errors
    /// When they are no messages, or come in an order that the format does not have (section 8).
    pub fn handle_input(&mut self, now: Instant, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            if self.body > 0 {
                let n = bytes.len().min(self.body.into());
                let (now_here, later) = bytes.split_at(n);
                self.bytes_received += n as u64;
                self.arrived_at = Some(now);
                if !self.discarding {
                    let hint = usize::from(self.body);
                    let pool = self.pool.get_or_insert_default();
                    pool.append(&mut self.received, now_here, hint);
                    self.readable = true;
                }
                self.body -= n as u16;
                bytes = later;
                continue;
            }
            let have = usize::from(self.have);
            let n = bytes.len().min(MESSAGE_HEADER_LEN - have);
            self.header[have..have + n].copy_from_slice(&bytes[..n]);
            self.have += n as u8;
            bytes = &bytes[n..];
            if usize::from(self.have) == MESSAGE_HEADER_LEN {
                self.have = 0;
                let message = Message::parse(self.header).map_err(Error::BadMessage)?;
                self.take(message)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, message: Message) -> Result<(), Error> {
        let began = self.config.opener || self.dialled;
        match message {
            Message::Dial if self.config.opener || self.dialled => {
                return Err(Error::OutOfOrder("DIAL"));
            }
            Message::Dial => {
                self.dialled = true;
                self.opened = true;
            }
            Message::Push(_) if !began || self.finished => return Err(Error::OutOfOrder("PUSH")),
            Message::Push(len) => self.body = len,
            Message::Eof if !began => return Err(Error::OutOfOrder("EOF")),
            Message::Eof => {
                self.readable |= !self.finished;
                self.finished = true;
            }
            // Before DIAL it means nothing: it is not answered and proves nothing, or who knows no more than how to write one would be
            // given a session that lasts.
            Message::KeepAlive if !began => return Ok(()),
            // An opener's own comes back.
            Message::KeepAlive => self.keepalive_due |= !self.config.opener,
        }
        self.proven = true;
        Ok(())
    }

    /// The next message to send, with at most `limit` bytes of data; 0 counts as 1.
    pub fn poll_frame(&mut self, now: Instant, limit: u32) -> Option<SingleFrame<'_>> {
        let control = |message: Message| SingleFrame {
            head: message.emit(),
            payload: [&[], &[]],
            class: Class::Sparse,
        };
        if core::mem::take(&mut self.dial_due) {
            self.sent_at = now;
            self.budget.pay_anyhow(now, MESSAGE_HEADER_LEN);
            return Some(control(Message::Dial));
        }
        if core::mem::take(&mut self.keepalive_due) {
            self.sent_at = now;
            // Nobody waits for it.
            return Some(SingleFrame {
                class: Class::Bulk,
                ..control(Message::KeepAlive)
            });
        }
        if self.unsent.is_empty() {
            if self.outbound != Outbound::Ending || self.is_end_held() {
                return None;
            }
            self.outbound = Outbound::Ended;
            self.sent_at = now;
            self.budget.pay_anyhow(now, MESSAGE_HEADER_LEN);
            return Some(control(Message::Eof));
        }
        let before = self.unsent.len();
        let most = usize::try_from(limit.max(1)).map_or(MAX_PUSH, |n| n.min(MAX_PUSH));
        let pool = self.pool.get_or_insert_default();
        let spans = pool.take(&mut self.unsent, most);
        let n = spans[0].len() + spans[1].len();
        self.bytes_sent += n as u64;
        (self.sent_at, self.data_at) = (now, Some(now));
        let half = self.config.send_buffer / 2;
        self.relieved |= before > half && before - n <= half;
        self.relieved |= self.unsent.is_empty() && core::mem::take(&mut self.starved);
        let awaited = self.unsent.is_empty() || self.bytes_sent <= FIRST_BYTES;
        let sparse = awaited && self.budget.pay(now, MESSAGE_HEADER_LEN + n);
        Some(SingleFrame {
            // No more than `MAX_PUSH`.
            head: Message::Push(n as u16).emit(),
            payload: spans.map(|span: Span| pool.span(span)),
            class: if sparse { Class::Sparse } else { Class::Bulk },
        })
    }

    const fn is_end_held(&self) -> bool {
        self.config.hold_end && !self.finished && !self.peer_is_fulmar
    }

    /// The next change.
    pub const fn poll_event(&mut self) -> Option<SingleEvent> {
        if core::mem::replace(&mut self.opened, false) {
            return Some(SingleEvent::Opened);
        }
        if core::mem::replace(&mut self.readable, false) {
            return Some(SingleEvent::Readable);
        }
        if core::mem::replace(&mut self.relieved, false) {
            return Some(SingleEvent::Writable);
        }
        None
    }

    /// When [`Self::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        // After EOF only a peer of ours is sure to bear anything.
        let may = self.outbound != Outbound::Ended || self.peer_is_fulmar;
        (self.config.opener && may && !(self.finished && self.outbound == Outbound::Ended))
            .then(|| self.sent_at + self.config.keepalive)
    }

    /// Sends a keep-alive, if one is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_some_and(|at| at <= now) {
            self.ping();
            // Once, although it may wait for room.
            self.sent_at = now;
        }
    }

    /// Sends a keep-alive, which the peer acknowledges, if the format has a place for it: an acceptor's would look like an
    /// answer, and behind our end only a peer of ours bears one.
    pub fn ping(&mut self) {
        if self.config.opener && (self.outbound != Outbound::Ended || self.peer_is_fulmar) {
            self.keepalive_due = true;
        }
    }

    /// The other end is known to be one of ours: it takes what comes after an end.
    pub const fn set_peer_is_fulmar(&mut self) {
        self.peer_is_fulmar = true;
    }

    /// Whether the other end is known to be one of ours.
    #[must_use]
    pub const fn peer_is_fulmar(&self) -> bool {
        self.peer_is_fulmar
    }

    /// Whether a message of the peer has come.
    #[must_use]
    pub const fn is_proven(&self) -> bool {
        self.proven
    }

    /// Bytes of data that have come.
    #[must_use]
    pub const fn bytes_received(&self) -> u64 {
        self.bytes_received
    }

    /// Bytes of data that have left.
    #[must_use]
    pub const fn bytes_sent(&self) -> u64 {
        self.bytes_sent
    }

    /// Bytes that can be read.
    #[must_use]
    pub const fn readable(&self) -> usize {
        self.received.len()
    }

    /// Whether the peer has ended its direction. What came before may still wait to be read.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        self.finished
    }

    /// Whether our end has left.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.outbound == Outbound::Ended
    }

    /// Whether the application may write.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.outbound == Outbound::Open
    }

    /// What waits to be read, in pieces.
    #[must_use]
    pub fn read_slices(&self) -> Slices<'_> {
        match &self.pool {
            Some(pool) => pool.slices(&self.received),
            None => Slices::none(),
        }
    }

    /// Drops the first `n` bytes of what waits to be read.
    pub fn consume(&mut self, n: usize) {
        if let Some(pool) = &mut self.pool {
            pool.consume(&mut self.received, n);
        }
    }

    /// Bytes that may still be written now: none behind our end, which would follow it to the peer.
    #[must_use]
    pub const fn write_space(&self) -> usize {
        if matches!(self.outbound, Outbound::Open) {
            self.config.send_buffer.saturating_sub(self.unsent.len())
        } else {
            0
        }
    }

    /// Room for at most `max` bytes to send; empty when there is none now.
    pub fn write_reserve(&mut self, max: usize) -> &mut [u8] {
        let room = self.write_space().min(max);
        let pool = self.pool.get_or_insert_default();
        pool.reserve(&mut self.unsent, room)
    }

    /// Sends the first `n` bytes of that room; 0 gives it back.
    pub fn write_commit(&mut self, n: usize) {
        let Some(pool) = &mut self.pool else {
            return;
        };
        pool.commit(&mut self.unsent, n);
        if n < SMALL_WRITE {
            pool.drop_spare_room();
        }
    }

    /// Bytes that wait to leave.
    #[must_use]
    pub const fn unsent(&self) -> usize {
        self.unsent.len()
    }

    /// Whoever writes takes no more room than it has taken, for reasons of its own: [`SingleEvent::Writable`] is to tell when all that waits
    /// has left. To be called while something waits.
    pub const fn starve(&mut self) {
        self.starved = !self.unsent.is_empty();
    }

    /// Bytes of memory that hold what waits to leave and to be read, the second with what is lost at the ends of pieces.
    #[must_use]
    pub fn held(&self) -> [usize; 2] {
        let all = self.pool.as_ref().map_or(0, |pool| pool.bytes_in_use());
        let unsent = self.unsent.len();
        let reading = if self.received.is_empty() {
            0
        } else {
            all.saturating_sub(unsent)
        };
        [all - reading, reading]
    }

    /// Nothing more will be written.
    pub fn finish(&mut self) {
        if self.outbound == Outbound::Open {
            self.outbound = Outbound::Ending;
        }
    }

    /// Nobody reads any more.
    pub fn discard(&mut self) {
        self.discarding = true;
        if let Some(pool) = &mut self.pool {
            pool.clear(&mut self.received);
        }
    }

    /// The peer will say nothing more, although it has not said so: as if its end had come.
    pub const fn assume_finished(&mut self) {
        self.readable |= !self.finished;
        self.finished = true;
    }

    /// When bytes of the peer last came.
    #[must_use]
    pub const fn arrived_at(&self) -> Option<Instant> {
        self.arrived_at
    }

    /// When bytes of ours last left.
    #[must_use]
    pub const fn data_at(&self) -> Option<Instant> {
        self.data_at
    }

    /// When a message of ours last left.
    #[must_use]
    pub const fn sent_at(&self) -> Instant {
        self.sent_at
    }

    /// Whether it holds no bytes and has nothing to say or tell.
    #[must_use]
    pub fn is_restful(&self) -> bool {
        let says = self.dial_due || self.keepalive_due || !self.unsent.is_unused();
        let tells = self.opened || self.readable || self.relieved;
        let ending = self.outbound == Outbound::Ending && !self.is_end_held();
        !says && !tells && !ending && self.received.is_unused()
    }

    /// Gives back memory that a burst took.
    pub fn trim(&mut self) {
        if self.unsent.is_unused() && self.received.is_unused() {
            self.pool = None;
        } else if let Some(pool) = &mut self.pool {
            pool.trim();
            pool.trim();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_testkit::vectors;

    fn config(opener: bool) -> Config {
        Config {
            opener,
            number: 7,
            send_buffer: 64 * 1024,
            receive_buffer: 64 * 1024,
            keepalive: Duration::from_secs(15),
            hold_end: false,
        }
    }

    fn pair() -> (Single, Single) {
        (
            Single::new(config(true), Instant::ZERO),
            Single::new(config(false), Instant::ZERO),
        )
    }

    fn write(s: &mut Single, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = s.write_reserve(bytes.len());
            let n = room.len();
            assert!(n > 0);
            room.copy_from_slice(&bytes[..n]);
            s.write_commit(n);
            bytes = &bytes[n..];
        }
    }

    fn frames(s: &mut Single, limit: u32) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some(frame) = s.poll_frame(Instant::ZERO, limit) {
            frame.parts().iter().for_each(|p| out.extend_from_slice(p));
        }
        out
    }

    fn read(s: &mut Single) -> Vec<u8> {
        let all: Vec<u8> = s.read_slices().flatten().copied().collect();
        s.consume(all.len());
        all
    }

    #[test]
    fn a_stream_opens_carries_and_ends_each_way_by_itself() {
        let (mut a, mut b) = pair();
        write(&mut a, b"hello");
        a.finish();
        let wire = frames(&mut a, u32::MAX);
        assert_eq!(wire, b"\0\0\0\x04\0\x01\0\x09hello\0\x02\0\x04");
        for byte in wire {
            b.handle_input(Instant::ZERO, &[byte]).expect("messages");
        }
        assert_eq!(b.poll_event(), Some(SingleEvent::Opened));
        assert_eq!(b.poll_event(), Some(SingleEvent::Readable));
        assert_eq!(b.poll_event(), None);
        assert_eq!(read(&mut b), b"hello");
        assert!(b.is_finished() && b.is_writable() && a.is_ended() && !a.is_finished());
        write(&mut b, &[9; 40_000]);
        b.finish();
        let back = frames(&mut b, u32::MAX);
        assert_eq!(&back[..4], &[0, 1, 0x3a, 0x24]);
        a.handle_input(Instant::ZERO, &back).expect("messages");
        assert_eq!(read(&mut a), vec![9; 40_000]);
        assert!(a.is_finished() && b.is_ended());
        assert_eq!(a.poll_timeout(), None);
    }

    #[test]
    fn errors_of_order_and_form() {
        let file = vectors::load("kcptun-libev/session_stream.json");
        for case in file["protocol_errors"].as_array().expect("cases") {
            let name = case["name"].as_str().expect("a name");
            let (_, mut b) = pair();
            if !name.contains("before DIAL") && !name.contains("DIAL") {
                b.handle_input(Instant::ZERO, b"\0\0\0\x04").expect("DIAL");
            }
            assert!(
                b.handle_input(Instant::ZERO, &vectors::bytes(case, "hex"))
                    .is_err(),
                "{name}"
            );
        }
        // What is dialled here is reflected.
        let (mut a, _) = pair();
        assert!(a.handle_input(Instant::ZERO, b"\0\0\0\x04").is_err());
        // Nothing follows an end but another one.
        let (mut a, _) = pair();
        a.handle_input(Instant::ZERO, b"\0\x02\0\x04\0\x02\0\x04")
            .expect("twice");
        assert!(a.handle_input(Instant::ZERO, b"\0\x01\0\x05x").is_err());
    }

    #[test]
    fn keepalives_go_there_and_back_and_nothing_else_does() {
        let (mut a, mut b) = pair();
        let late = Instant::from_millis(15_000);
        b.handle_input(Instant::ZERO, &frames(&mut a, 1))
            .expect("DIAL");
        assert_eq!(a.poll_timeout(), Some(late));
        assert_eq!(b.poll_timeout(), None);
        a.handle_timeout(late);
        assert_eq!(a.poll_timeout(), Some(late + Duration::from_secs(15)));
        let wire = frames(&mut a, 1);
        assert_eq!(wire, [0, 3, 0, 4]);
        // However many come, one waits.
        b.handle_input(Instant::ZERO, &wire.repeat(1000))
            .expect("keepalives");
        assert_eq!(frames(&mut b, 1), [0, 3, 0, 4]);
        a.handle_input(Instant::ZERO, &wire).expect("the echo");
        assert!(frames(&mut a, 1).is_empty());
    }

    /// 33,000 of them had 33,000 sessions for ten minutes, and as many answers.
    #[test]
    fn a_keepalive_without_a_dial_proves_nothing_and_is_not_answered() {
        let (_, mut b) = pair();
        b.handle_input(Instant::ZERO, &b"\0\x03\0\x04".repeat(3))
            .expect("nothing wrong");
        assert!(!b.is_proven() && frames(&mut b, 9).is_empty());
        assert_eq!(b.poll_event(), None);
        b.handle_input(Instant::ZERO, b"\0\0\0\x04\0\x03\0\x04")
            .expect("DIAL and another");
        assert!(b.is_proven());
        assert_eq!(frames(&mut b, 9), b"\0\x03\0\x04");
    }

    #[test]
    fn an_end_is_held_for_old_peers_only() {
        for fulmar in [false, true] {
            let mut held = Single::new(
                Config {
                    hold_end: true,
                    ..config(true)
                },
                Instant::ZERO,
            );
            if fulmar {
                held.set_peer_is_fulmar();
            }
            frames(&mut held, 9);
            held.finish();
            assert_eq!(frames(&mut held, 9).is_empty(), !fulmar);
            held.handle_input(Instant::ZERO, b"\0\x02\0\x04")
                .expect("EOF");
            frames(&mut held, 9);
            assert!(held.is_ended());
        }
    }

    #[test]
    fn a_slow_reader_holds_the_peer_back_and_idleness_costs_nothing() {
        let (mut a, mut b) = pair();
        b.handle_input(Instant::ZERO, &frames(&mut a, 1))
            .expect("DIAL");
        write(&mut a, &[1; 64 * 1024]);
        assert!(a.write_reserve(1).is_empty());
        b.handle_input(Instant::ZERO, &frames(&mut a, 500))
            .expect("messages");
        assert_eq!(a.poll_event(), Some(SingleEvent::Writable));
        assert!(!b.wants_input());
        b.consume(1);
        assert!(b.wants_input());
        b.consume(64 * 1024);
        for s in [&mut a, &mut b] {
            s.trim();
            assert!(s.pool.is_none());
        }
    }

    #[test]
    fn nothing_is_written_behind_an_end() {
        let (mut a, _) = pair();
        write(&mut a, b"all");
        a.finish();
        assert!(a.write_reserve(10).is_empty() && a.write_space() == 0);
        let all = frames(&mut a, u32::MAX);
        assert_eq!(all, b"\0\0\0\x04\0\x01\0\x07all\0\x02\0\x04");
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(0u8..6, 0..600), cut in 1usize..40) {
            let mut s = Single::new(config(false), Instant::ZERO);
            for piece in bytes.chunks(cut) {
                if s.handle_input(Instant::ZERO, piece).is_err() {
                    break;
                }
            }
        }
    }
}
