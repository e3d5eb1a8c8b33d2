//! The stream of a conversation of kcptun-libev.

use std::collections::VecDeque;
use std::time::Duration;

use fulmar_mux::Single;
use fulmar_mux::single::Config;
use fulmar_wire::libev::{MAX_PUSH, MESSAGE_HEADER_LEN, Message};
use fulmar_wire::time::Instant;

use crate::input::Input;

/// Small buffers, so that inputs of a few hundred bytes meet them.
const SEND: usize = 3000;
const RECEIVE: usize = 2000;

/// One end of a stream whose other end sends anything, beside a model that knows what must come of it.
///
/// Input: a byte for the role; then operations, each a byte and what it needs.
pub fn libev_stream(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new(input.byte());
    for _ in 0..500 {
        if input.is_empty() {
            break;
        }
        let op = input.byte();
        match op % 8 {
            // Anything.
            0 => {
                if let Some(bytes) = input.chunk() {
                    world.feed(bytes);
                }
            }
            // A push, cut somewhere.
            1 => {
                let cut = usize::from(input.byte());
                if let Some(body) = input.chunk() {
                    let body = &body[..body.len().min(MAX_PUSH)];
                    let head = Message::Push(u16::try_from(body.len()).unwrap_or(0)).emit();
                    let whole = [&head, body].concat();
                    let (first, second) = whole.split_at(cut.min(whole.len()));
                    world.feed(first);
                    world.feed(second);
                }
            }
            2 => world.feed(
                &match op >> 3 & 3 {
                    0 => Message::Dial,
                    1 => Message::Eof,
                    _ => Message::KeepAlive,
                }
                .emit(),
            ),
            3 => world.write(usize::from(input.u16() % 4000)),
            4 => world.consume(usize::from(input.u16())),
            5 => {
                let (limit, most) = (input.u16(), input.byte());
                let limit = if op & 8 == 0 { limit.into() } else { u32::MAX };
                world.send(limit, most);
            }
            6 => {
                world.now += Duration::from_millis(u64::from(input.u16()));
                let now = world.now;
                world.single.handle_timeout(now);
                assert!(world.single.poll_timeout().is_none_or(|at| at > now));
            }
            _ => world.change(op >> 3),
        }
        world.check();
    }
    // All that was written leaves, and all that has come is read.
    world.single.finish();
    world.single.assume_finished();
    world.model.finished = true;
    world.send(u32::MAX, u8::MAX);
    world.send(1000, u8::MAX);
    assert!(world.single.is_ended() && world.single.unsent() == 0);
    assert_eq!(world.written, world.sent);
    world.consume(usize::MAX);
    world.check();
    assert!(world.single.wants_input());
}

struct World {
    single: Single,
    opener: bool,
    now: Instant,
    model: Model,
    /// Bytes written, and bytes that have left; they are numbered.
    written: u64,
    sent: u64,
    dials: usize,
    ends: usize,
    keepalives: u64,
}

/// What the peer has said, read in the simplest way.
#[derive(Default)]
struct Model {
    waiting: Vec<u8>,
    unread: VecDeque<u8>,
    body: usize,
    began: bool,
    finished: bool,
    discarding: bool,
    /// Has said what it must not; nothing more is taken.
    dead: bool,
    keepalives: u64,
    total: u64,
}

impl Model {
    fn feed(&mut self, opener: bool, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
        while !self.dead {
            if self.body > 0 {
                let n = self.body.min(self.waiting.len());
                if n == 0 {
                    return;
                }
                let taken = self.waiting.drain(..n);
                if self.discarding {
                    drop(taken);
                } else {
                    self.unread.extend(taken);
                }
                self.total += n as u64;
                self.body -= n;
                continue;
            }
            let Some(&[a, kind, c, d]) = self.waiting.first_chunk::<4>() else {
                return;
            };
            let len = usize::from(c) * 256 + usize::from(d);
            let began = opener || self.began;
            let fine = a == 0
                && (4..=14_884).contains(&len)
                && (kind == 1 || len == 4)
                && match kind {
                    0 => !began,
                    1 => began && !self.finished,
                    2 => began,
                    kind => kind == 3,
                };
            if !fine {
                self.dead = true;
                return;
            }
            self.waiting.drain(..4);
            match kind {
                0 => self.began = true,
                1 => self.body = len - 4,
                2 => self.finished = true,
                _ => self.keepalives += 1,
            }
        }
    }
}

impl World {
    fn new(flags: u8) -> Self {
        let opener = flags & 1 == 0;
        let now = Instant::from_millis(1000);
        let config = Config {
            opener,
            number: 7,
            send_buffer: SEND,
            receive_buffer: RECEIVE,
            keepalive: Duration::from_secs(2),
            hold_end: flags & 2 != 0,
        };
        Self {
            single: Single::new(config, now),
            opener,
            now,
            model: Model::default(),
            written: 0,
            sent: 0,
            dials: 0,
            ends: 0,
            keepalives: 0,
        }
    }

    /// The peer says something. What it must not say ends all.
    fn feed(&mut self, bytes: &[u8]) {
        if self.model.dead || !self.single.wants_input() {
            return;
        }
        self.model.feed(self.opener, bytes);
        let result = self.single.handle_input(self.now, bytes);
        assert_eq!(result.is_err(), self.model.dead, "{result:?}");
        assert!(self.single.readable() < RECEIVE + bytes.len().max(1));
    }

    fn write(&mut self, len: usize) {
        let space = self.single.write_space();
        let room = self.single.write_reserve(len);
        assert!(room.len() <= space.min(len));
        for (byte, number) in room.iter_mut().zip(self.written..) {
            *byte = numbered(number);
        }
        let n = room.len();
        self.written += n as u64;
        self.single.write_commit(n);
        assert!(self.single.unsent() <= SEND);
        assert!(
            self.single.is_writable() || n == 0,
            "written behind the end"
        );
    }

    fn consume(&mut self, n: usize) {
        let n = n.min(self.single.readable());
        self.single.consume(n);
        self.model.unread.drain(..n);
    }

    fn send(&mut self, limit: u32, most: u8) {
        for _ in 0..most {
            let Some(frame) = self.single.poll_frame(self.now, limit) else {
                return;
            };
            let frame = frame.parts().concat();
            let Some((head, body)) = frame.split_first_chunk::<MESSAGE_HEADER_LEN>() else {
                panic!("a message without a header");
            };
            match Message::parse(*head) {
                Ok(Message::Push(len)) => {
                    assert_eq!(usize::from(len), body.len());
                    assert!((1..=limit.max(1)).contains(&u32::from(len)));
                    assert!(body.iter().zip(self.sent..).all(|(b, n)| *b == numbered(n)));
                    assert_eq!(self.ends, 0, "data behind the end");
                    self.sent += u64::from(len);
                }
                Ok(Message::Dial) => {
                    assert!(self.sent == 0 && self.ends == 0);
                    self.dials += 1;
                }
                Ok(Message::Eof) => self.ends += 1,
                Ok(Message::KeepAlive) => self.keepalives += 1,
                Err(error) => panic!("{error}"),
            }
            assert!(self.dials == usize::from(self.opener), "not dialled first");
        }
    }

    fn change(&mut self, what: u8) {
        match what % 8 {
            0 => self.single.finish(),
            1 => {
                self.single.discard();
                self.model.discarding = true;
                self.model.unread.clear();
            }
            2 => self.single.ping(),
            3 => {
                self.single.assume_finished();
                self.model.finished = true;
            }
            4 => self.single.set_peer_is_fulmar(),
            _ => self.single.trim(),
        }
    }

    /// What holds at any time.
    fn check(&mut self) {
        assert_eq!(self.single.readable(), self.model.unread.len());
        assert!(
            self.single
                .read_slices()
                .flatten()
                .eq(self.model.unread.iter())
        );
        assert_eq!(self.single.bytes_received(), self.model.total);
        assert_eq!(self.single.is_finished(), self.model.finished);
        assert_eq!(self.single.bytes_sent(), self.sent);
        assert_eq!(self.single.is_ended(), self.ends == 1);
        if !self.opener {
            assert!(self.keepalives <= self.model.keepalives);
            assert_eq!(self.single.poll_timeout(), None);
        }
        let events = std::iter::from_fn(|| self.single.poll_event()).count();
        assert!(events <= 3);
    }
}

/// The byte at this place of the stream.
const fn numbered(place: u64) -> u8 {
    (place % 251) as u8
}
