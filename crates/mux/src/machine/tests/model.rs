//! Sequences of operations on two ends joined back to back, compared with a simple model: no byte is lost, repeated
//! or out of place, and no stream stays behind. Pairs: Fulmar with Fulmar, Fulmar with a Go server, a Go client with
//! Fulmar.

use super::go_end::GoEnd;
use super::old_end::OldEnd;
use super::plain_end::PlainEnd;
use super::*;
use crate::{ReadState, WriteState};
use core::time::Duration;
use proptest::prelude::*;
use std::collections::VecDeque;

const START: Instant = Instant::from_millis(123);

/// How the peer's direction of a stream looks to the application.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Seen {
    Open,
    Finished,
    Reset,
}

/// An end of either kind.
#[allow(clippy::large_enum_variant)]
enum End {
    Fulmar(Fulmar),
    Plain(Box<dyn PlainEnd>),
}

/// A machine and what its events have told about each stream.
struct Fulmar {
    smux: Mux,
    streams: Vec<Known>,
}

struct Known {
    id: StreamId,
    /// `Readable` was told since the stream was last empty.
    readable: bool,
    finished: bool,
    reset: bool,
    stopped: bool,
    /// There was no space, and `Writable` has not been told since.
    full: bool,
}

impl Fulmar {
    fn id(&self, wire: u32) -> Option<StreamId> {
        Some(self.streams.iter().find(|s| s.id.wire() == wire)?.id)
    }

    fn known(&mut self, id: StreamId) -> &mut Known {
        self.streams
            .iter_mut()
            .find(|s| s.id == id)
            .expect("an event for a stream that is not held")
    }

    /// Takes the events and compares them with what can be seen.
    fn listen(&mut self) {
        while let Some(event) = self.smux.poll_event() {
            match event {
                Event::PeerHello(_) | Event::PeerPlain => {}
                Event::Opened(id) => self.streams.push(Known::new(id)),
                Event::Readable(id) => {
                    let known = self.known(id);
                    assert!(!known.readable, "told twice");
                    known.readable = true;
                }
                Event::Writable(id) => self.known(id).full = false,
                Event::Finished(id) => {
                    let known = self.known(id);
                    assert!(!known.finished && !known.reset);
                    known.finished = true;
                }
                Event::Stopped(id, _) => {
                    let known = self.known(id);
                    assert!(!known.stopped && !known.reset);
                    known.stopped = true;
                }
                Event::Reset(id, _) => {
                    let known = self.known(id);
                    assert!(!known.finished && !known.reset);
                    known.reset = true;
                    known.readable = false;
                }
            }
        }
        for known in &self.streams {
            let smux = &self.smux;
            assert_eq!(known.readable, smux.readable(known.id) > 0);
            let state = smux.read_state(known.id);
            assert_eq!(known.finished, state == ReadState::Finished);
            assert_eq!(known.reset, matches!(state, ReadState::Reset(_)));
            let write = smux.write_state(known.id);
            assert_eq!(
                known.stopped || known.reset,
                matches!(write, WriteState::Stopped(_))
            );
            if known.full && write == WriteState::Open {
                let half = smux.config().send_buffer as usize / 2;
                assert!(smux.write_space(known.id) < half, "Writable was not told");
            }
        }
        check(&self.smux);
    }
}

impl Known {
    const fn new(id: StreamId) -> Self {
        Self {
            id,
            readable: false,
            finished: false,
            reset: false,
            stopped: false,
            full: false,
        }
    }
}

impl End {
    fn fulmar(protocol: Protocol, role: Role) -> Self {
        // A window of yamux cannot be smaller.
        let (session_buffer, stream_buffer) = match protocol {
            Protocol::Smux(_) => (60_000, 9_000),
            Protocol::Yamux => (300_000, 262_144),
        };
        let config = Config {
            max_frame: 1000,
            session_buffer,
            stream_buffer,
            send_buffer: 20_000,
            // The link stands still for as long as the operations say.
            keepalive_timeout: Duration::from_secs(1_000_000),
            linger: Duration::from_secs(1_000_000),
            ..Config::new(protocol, role)
        };
        Self::Fulmar(Fulmar {
            smux: Mux::new(config, START).expect("valid"),
            streams: Vec::new(),
        })
    }

    fn open(&mut self, now: Instant) -> u32 {
        match self {
            Self::Fulmar(end) => {
                let id = end.smux.open(now).expect("open");
                end.streams.push(Known::new(id));
                id.wire()
            }
            Self::Plain(go) => go.open(),
        }
    }

    /// Whether the application of this end has the stream.
    fn has(&self, wire: u32) -> bool {
        match self {
            Self::Fulmar(end) => end.id(wire).is_some(),
            Self::Plain(go) => go.has(wire),
        }
    }

    /// Takes bytes of `data`; returns how many are the end's business from now on.
    fn write(&mut self, wire: u32, data: &[u8]) -> usize {
        match self {
            Self::Fulmar(end) => {
                let Some(id) = end.id(wire) else { return 0 };
                let taken = if data.len().is_multiple_of(2) {
                    end.smux.write(id, data).unwrap_or(0)
                } else {
                    match end.smux.write_reserve(id, data.len()) {
                        Ok(room) => {
                            let n = room.len();
                            room.copy_from_slice(&data[..n]);
                            end.smux.write_commit(id, n).expect("just reserved")
                        }
                        Err(_) => 0,
                    }
                };
                if end.smux.write_space(id) == 0 {
                    end.known(id).full = true;
                }
                taken
            }
            Self::Plain(go) => {
                // One write at a time, as the copy loop does.
                if go.is_blocked(wire) || !go.write(wire, data) {
                    0
                } else {
                    data.len()
                }
            }
        }
    }

    fn read(&mut self, wire: u32, max: usize, now: Instant) -> Vec<u8> {
        match self {
            Self::Fulmar(end) => {
                let Some(id) = end.id(wire) else {
                    return Vec::new();
                };
                let mut bytes = end.smux.read_slices(id).collect::<Vec<_>>().concat();
                assert!(bytes.starts_with(&end.smux.read_chunks(id).concat()));
                bytes.truncate(max);
                end.smux.consume(now, id, bytes.len());
                if end.smux.readable(id) == 0 {
                    end.known(id).readable = false;
                }
                bytes
            }
            Self::Plain(go) => go.read(wire, max),
        }
    }

    fn finish(&mut self, wire: u32, now: Instant) {
        if let Self::Fulmar(end) = self
            && let Some(id) = end.id(wire)
        {
            end.smux.finish(now, id);
        }
    }

    fn close(&mut self, wire: u32, cut: bool, now: Instant) {
        match self {
            Self::Fulmar(end) => {
                if let Some(id) = end.id(wire) {
                    if cut {
                        end.smux.reset(id, ResetReason::ABORTED);
                    } else {
                        end.smux.close(now, id);
                    }
                    end.streams.retain(|known| known.id != id);
                }
            }
            Self::Plain(go) => go.close(wire),
        }
    }

    /// Frames, at most so many; a Go end has no patience.
    fn emit(&mut self, frames: usize, now: Instant) -> Vec<u8> {
        match self {
            Self::Fulmar(end) => {
                let mut bytes = Vec::new();
                for n in 0..frames {
                    // Frames of all sizes.
                    let limit = if n % 3 == 0 { 1 << (n % 16) } else { u32::MAX };
                    match end.smux.poll_frame_within(now, limit) {
                        Some(frame) => bytes.extend_from_slice(&frame.parts().concat()),
                        None => break,
                    }
                }
                bytes
            }
            Self::Plain(go) => go.take_output(),
        }
    }

    fn wants_input(&self) -> bool {
        match self {
            Self::Fulmar(end) => end.smux.wants_input(),
            Self::Plain(_) => true,
        }
    }

    fn input(&mut self, bytes: &[u8], now: Instant) {
        match self {
            Self::Fulmar(end) => end.smux.handle_input(now, bytes).expect("protocol error"),
            Self::Plain(go) => {
                go.input(bytes);
                assert_eq!(go.failed(), None);
            }
        }
    }

    fn tick(&mut self, now: Instant) {
        match self {
            Self::Fulmar(end) => {
                if end.smux.poll_timeout().is_some_and(|at| at <= now) {
                    end.smux.handle_timeout(now).expect("alive");
                }
            }
            Self::Plain(go) => go.keep_alive(),
        }
    }

    fn seen(&self, wire: u32) -> Seen {
        match self {
            Self::Fulmar(end) => match end.id(wire).map(|id| end.smux.read_state(id)) {
                Some(ReadState::Open) => Seen::Open,
                Some(ReadState::Finished) => Seen::Finished,
                Some(ReadState::Reset(_)) => Seen::Reset,
                Some(ReadState::Closed) | None => panic!("not held"),
            },
            Self::Plain(go) if go.at_eof(wire) => Seen::Finished,
            Self::Plain(_) => Seen::Open,
        }
    }

    /// Whether the application could go on writing.
    fn can_write(&self, wire: u32) -> bool {
        match self {
            Self::Fulmar(end) => end
                .id(wire)
                .is_some_and(|id| end.smux.write_state(id) == WriteState::Open),
            Self::Plain(go) => go.can_write(wire),
        }
    }

    fn streams(&self) -> usize {
        match self {
            Self::Fulmar(end) => end.smux.streams(),
            Self::Plain(go) => go.streams(),
        }
    }

    fn listen(&mut self) {
        if let Self::Fulmar(end) = self {
            end.listen();
        }
    }
}

/// What the model remembers of one end of a stream.
#[derive(Copy, Clone, Default, Debug)]
struct Side {
    /// Bytes that the end took from its application.
    written: usize,
    /// Bytes that its application got.
    read: usize,
    finished: bool,
    closed: bool,
    cut: bool,
}

struct World {
    yamux: bool,
    ends: [End; 2],
    /// Bytes on their way to each end.
    links: [VecDeque<u8>; 2],
    streams: Vec<(u32, [Side; 2])>,
    now: Instant,
}

/// The byte at `offset` of what `side` writes to a stream.
fn pattern(wire: u32, side: usize, offset: usize) -> u8 {
    (offset as u32)
        .wrapping_mul(2_654_435_761)
        .wrapping_add(wire * 7 + side as u32)
        .to_le_bytes()[2]
}

#[derive(Clone, Debug)]
enum Op {
    Open,
    Write(usize, usize, usize),
    Read(usize, usize, usize),
    Finish(usize, usize),
    Close(usize, usize),
    Cut(usize, usize),
    Emit(usize, usize),
    Deliver(usize, usize),
    Wait(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let side = 0usize..2;
    let which = 0usize..6;
    let len = prop_oneof![1usize..200, 1usize..30_000];
    let op = prop_oneof![
        2 => Just(Op::Open),
        6 => (side.clone(), which.clone(), len.clone()).prop_map(|(s, w, n)| Op::Write(s, w, n)),
        5 => (side.clone(), which.clone(), len.clone()).prop_map(|(s, w, n)| Op::Read(s, w, n)),
        2 => (side.clone(), which.clone()).prop_map(|(s, w)| Op::Finish(s, w)),
        1 => (side.clone(), which.clone()).prop_map(|(s, w)| Op::Close(s, w)),
        1 => (side.clone(), which).prop_map(|(s, w)| Op::Cut(s, w)),
        6 => (side.clone(), 1usize..20).prop_map(|(s, n)| Op::Emit(s, n)),
        8 => (side, len).prop_map(|(s, n)| Op::Deliver(s, n)),
        1 => (1u64..4000).prop_map(Op::Wait),
    ];
    proptest::collection::vec(op, 1..120)
}

impl World {
    fn new(ends: [End; 2]) -> Self {
        let yamux = ends.iter().any(
            |end| matches!(end, End::Fulmar(end) if end.smux.config().protocol == Protocol::Yamux),
        );
        Self {
            yamux,
            ends,
            links: Default::default(),
            streams: Vec::new(),
            now: START,
        }
    }

    fn run(&mut self, op: &Op) {
        let count = self.streams.len();
        let pick = |which: usize| (count > 0).then(|| which % count);
        match *op {
            Op::Open => {
                if count < 6 {
                    let wire = self.ends[0].open(self.now);
                    self.streams.push((wire, Default::default()));
                }
            }
            Op::Write(side, which, n) => {
                if let Some(index) = pick(which) {
                    self.write(side, index, n);
                }
            }
            Op::Read(side, which, n) => {
                if let Some(index) = pick(which) {
                    self.read(side, index, n);
                }
            }
            Op::Finish(side, which) => {
                if let Some(index) = pick(which)
                    && self.ends[side].has(self.streams[index].0)
                {
                    // A Go application cannot say that it finished.
                    if matches!(self.ends[side], End::Fulmar(_)) {
                        self.streams[index].1[side].finished = true;
                    }
                    self.ends[side].finish(self.streams[index].0, self.now);
                }
            }
            Op::Close(side, which) | Op::Cut(side, which) => {
                if let Some(index) = pick(which) {
                    self.close(side, index, matches!(op, Op::Cut(..)));
                }
            }
            Op::Emit(side, n) => self.emit(side, n),
            Op::Deliver(side, n) => self.deliver(side, n),
            Op::Wait(millis) => {
                self.now += Duration::from_millis(millis);
                for end in &mut self.ends {
                    end.tick(self.now);
                }
            }
        }
        for end in &mut self.ends {
            end.listen();
        }
    }

    fn write(&mut self, side: usize, index: usize, n: usize) {
        let (wire, sides) = &mut self.streams[index];
        let from = sides[side].written;
        let data: Vec<u8> = (from..from + n).map(|i| pattern(*wire, side, i)).collect();
        sides[side].written += self.ends[side].write(*wire, &data);
    }

    fn read(&mut self, side: usize, index: usize, n: usize) {
        let (wire, sides) = &mut self.streams[index];
        let from = sides[side].read;
        let bytes = self.ends[side].read(*wire, n, self.now);
        for (i, byte) in bytes.iter().enumerate() {
            assert_eq!(*byte, pattern(*wire, 1 - side, from + i), "byte {from}+{i}");
        }
        sides[side].read += bytes.len();
        assert!(sides[side].read <= sides[1 - side].written);
    }

    fn close(&mut self, side: usize, index: usize, cut: bool) {
        let (wire, sides) = &mut self.streams[index];
        if !self.ends[side].has(*wire) {
            return;
        }
        if let End::Plain(go) = &self.ends[side]
            && go.is_blocked(*wire)
        {
            // A blocked write fails when its stream is closed; what left is what was written.
            sides[side].written = go.sent(*wire);
        }
        sides[side].closed = true;
        sides[side].cut = cut && matches!(self.ends[side], End::Fulmar(_));
        self.ends[side].close(*wire, cut, self.now);
    }

    fn emit(&mut self, side: usize, frames: usize) {
        let bytes = self.ends[side].emit(frames, self.now);
        self.links[1 - side].extend(bytes);
    }

    fn deliver(&mut self, side: usize, n: usize) {
        if self.ends[side].wants_input() {
            let n = n.min(self.links[side].len());
            let bytes: Vec<u8> = self.links[side].drain(..n).collect();
            self.ends[side].input(&bytes, self.now);
        }
        self.ends[side].listen();
    }

    /// Lets everything happen that can happen, with applications that read whatever comes.
    fn settle(&mut self) {
        for _ in 0..10 {
            loop {
                let mut moved = false;
                for side in 0..2 {
                    moved |= self.read_all(side);
                    self.emit(side, usize::MAX);
                    while !self.links[side].is_empty() {
                        moved = true;
                        self.deliver(side, 1400);
                        self.read_all(side);
                    }
                }
                if !moved {
                    break;
                }
            }
            self.now += Duration::from_secs(1);
            for end in &mut self.ends {
                end.tick(self.now);
            }
        }
        for end in &mut self.ends {
            end.listen();
        }
    }

    fn read_all(&mut self, side: usize) -> bool {
        let total = |world: &Self| -> usize { world.streams.iter().map(|s| s.1[side].read).sum() };
        let before = total(self);
        for index in 0..self.streams.len() {
            self.read(side, index, usize::MAX);
        }
        self.ends[side].listen();
        total(self) > before
    }

    /// What each application must have seen once nothing moves any more.
    fn judge(&mut self) {
        let half_close = self.ends.iter().all(|end| matches!(end, End::Fulmar(_)));
        for &(wire, sides) in &self.streams {
            for (me, peer) in [(0, 1), (1, 0)] {
                if sides[me].closed || !self.ends[me].has(wire) {
                    continue;
                }
                let (mine, theirs) = (sides[me], sides[peer]);
                let seen = self.ends[me].seen(wire);
                let what = format!("stream {wire} side {me}: {seen:?} {sides:?}");
                // What a blocked Go writer could not get rid of when it was told to stop counts as not written.
                let blocked_go = matches!(self.ends[peer], End::Plain(_)) && mine.finished;
                // Bytes that a plain peer sent before it learned that we stop it, or we learned that it stopped us.
                if !theirs.cut && !blocked_go {
                    assert_eq!(mine.read, theirs.written, "{what}");
                }
                if theirs.cut && half_close {
                    assert_ne!(seen, Seen::Open, "{what}");
                } else if theirs.closed || theirs.finished {
                    assert_eq!(seen, Seen::Finished, "{what}");
                } else {
                    assert_eq!(seen, Seen::Open, "{what}");
                }
                if self.yamux && half_close && theirs.closed {
                    // It is told when it sends something.
                    continue;
                }
                // A direction that nobody reads is not open.
                let writes = self.ends[me].can_write(wire);
                let peer_listens = !theirs.closed && (half_close || !theirs.finished);
                assert_eq!(writes, !mine.finished && peer_listens, "{what}");
            }
        }
    }

    fn finale(mut self, ops: &[Op]) {
        for op in ops {
            self.run(op);
        }
        self.settle();
        self.judge();
        for side in [1, 0] {
            for index in 0..self.streams.len() {
                self.close(side, index, false);
            }
            self.settle();
        }
        for end in &mut self.ends {
            end.listen();
            assert_eq!(end.streams(), 0, "left behind");
            if let End::Fulmar(end) = end {
                assert_eq!(end.smux.unread(), 0);
                assert_eq!(end.smux.held_streams(), 0);
                assert!(end.smux.timers.is_empty());
            }
        }
    }
}

fn protocol(which: usize) -> Protocol {
    [
        Protocol::Smux(Version::V1),
        Protocol::Smux(Version::V2),
        Protocol::Yamux,
    ][which]
}

/// An end of the replaced program.
fn plain(which: usize, opener: bool) -> End {
    End::Plain(match protocol(which) {
        Protocol::Smux(version) => Box::new(GoEnd::new(version, 1024, 9_000)),
        Protocol::Yamux => Box::new(OldEnd::new(opener, 1024)),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(384))]

    #[test]
    fn fulmar_and_fulmar(ops in ops(), which in 0usize..3) {
        let ends = [Role::Opener, Role::Acceptor].map(|role| End::fulmar(protocol(which), role));
        World::new(ends).finale(&ops);
    }

    #[test]
    fn fulmar_and_a_server_of_theirs(ops in ops(), which in 0usize..3) {
        let fulmar = End::fulmar(protocol(which), Role::Opener);
        World::new([fulmar, plain(which, false)]).finale(&ops);
    }

    #[test]
    fn a_client_of_theirs_and_fulmar(ops in ops(), which in 0usize..3) {
        let fulmar = End::fulmar(protocol(which), Role::Acceptor);
        World::new([plain(which, true), fulmar]).finale(&ops);
    }
}
