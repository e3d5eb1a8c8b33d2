//! Targets of `fulmar-mux`.

use std::collections::BTreeMap;
use std::time::Duration;

use fulmar_mux::machine::{Config, Protocol, Role, Version};
use fulmar_mux::{Error, Event, Mux, ReadState, ResetReason, StreamId, WriteState};
use fulmar_wire::smux::Header;
use fulmar_wire::time::Instant;
use fulmar_wire::yamux;

use crate::input::Input;

/// Small limits, so that inputs of a few hundred bytes meet them.
fn config(version: Version, role: Role, hello: bool) -> Config {
    Config {
        max_frame: 700,
        session_buffer: 16 * 1024,
        stream_buffer: 6 * 1024,
        send_buffer: 3000,
        max_streams: 8,
        hello,
        ..Config::new(version, role)
    }
}

fn new(config: Config) -> Mux {
    match Mux::new(config, Instant::ZERO) {
        Ok(smux) => smux,
        Err(error) => panic!("{error}"),
    }
}

fn version(flags: u8) -> Version {
    if flags & 1 == 0 {
        Version::V2
    } else {
        Version::V1
    }
}

/// One end of a session whose other end sends anything.
///
/// Input: a byte for version, role and hello; then operations, each a byte and what it needs.
pub fn smux_input(data: &[u8]) {
    let mut input = Input::new(data);
    let flags = input.byte();
    let role = if flags & 2 == 0 {
        Role::Acceptor
    } else {
        Role::Opener
    };
    one_end(&config(version(flags), role, flags & 4 == 0), input);
}

/// The same in yamux. Input: a byte for role and hello; then operations.
pub fn yamux_input(data: &[u8]) {
    let mut input = Input::new(data);
    let flags = input.byte();
    let role = if flags & 2 == 0 {
        Role::Acceptor
    } else {
        Role::Opener
    };
    one_end(&yamux_config(role, flags & 4 == 0), input);
}

/// A window of yamux is never smaller than this one.
fn yamux_config(role: Role, hello: bool) -> Config {
    Config {
        max_frame: 700,
        session_buffer: 300_000,
        stream_buffer: yamux::INITIAL_WINDOW,
        send_buffer: 3000,
        max_streams: 8,
        hello,
        ..Config::new(Protocol::Yamux, role)
    }
}

fn one_end(config: &Config, mut input: Input<'_>) {
    let mut smux = new(config.clone());
    let mut now = Instant::ZERO;
    let mut held: Vec<StreamId> = Vec::new();
    for _ in 0..500 {
        let op = input.byte();
        match op % 9 {
            0 | 8 => {
                let Some(bytes) = input.chunk() else {
                    break;
                };
                if !smux.wants_input() {
                    for id in &held {
                        smux.consume(now, *id, smux.readable(*id));
                    }
                }
                if smux.wants_input() {
                    let before = smux.unread();
                    let result = smux.handle_input(now, bytes);
                    assert_eq!(result.err(), smux.error());
                    assert!(smux.unread() <= before + bytes.len() as u64);
                }
            }
            1 => {
                now += Duration::from_millis(u64::from(input.u16()));
                if smux.poll_timeout().is_some_and(|due| due <= now) {
                    let result = smux.handle_timeout(now);
                    assert_eq!(result.err(), smux.error());
                }
                assert!(smux.poll_timeout().is_none_or(|due| due > now));
            }
            2 => match smux.open(now) {
                Ok(id) => held.push(id),
                Err(error) => assert!(!error.to_string().is_empty()),
            },
            3 => {
                let id = pick(&held, input.byte());
                let data = vec![op; usize::from(input.u16() % 4000)];
                let space = id.map_or(0, |id| smux.write_space(id));
                if let Some(Ok(taken)) = id.map(|id| smux.write(id, &data)) {
                    assert_eq!(taken, space.min(data.len()));
                }
            }
            4 => {
                if let Some(id) = pick(&held, input.byte()) {
                    let n = usize::from(input.u16());
                    let before = smux.readable(id);
                    smux.consume(now, id, n);
                    assert_eq!(smux.readable(id), before - n.min(before));
                }
            }
            5 => {
                if let Some(id) = pick(&held, input.byte()) {
                    smux.finish(now, id);
                }
            }
            6 => {
                if let Some(id) = take(&mut held, input.byte()) {
                    smux.close(now, id);
                    assert_eq!(smux.read_state(id), ReadState::Closed);
                }
            }
            _ => {
                let how = input.byte();
                if how < 64
                    && let Some(id) = take(&mut held, how)
                {
                    smux.reset(id, ResetReason(u32::from(how)));
                    assert_eq!(smux.write_state(id), WriteState::Closed);
                }
                for _ in 0..how {
                    let expected = smux.has_frames();
                    // Small frames as well, even of zero bytes, which is one.
                    let limit = if op < 128 { u32::MAX } else { u32::from(how) };
                    let frame = smux.poll_frame_within(now, limit);
                    assert_eq!(frame.is_some(), expected);
                    let Some(frame) = frame else {
                        break;
                    };
                    assert!(frame.payload().concat().len() <= limit.max(1) as usize);
                    check_frame(config, &frame.parts().concat());
                }
            }
        }
        while let Some(event) = smux.poll_event() {
            let id = match event {
                Event::PeerHello(_) | Event::PeerPlain => continue,
                Event::Opened(id) => {
                    held.push(id);
                    id
                }
                Event::Readable(id) => {
                    assert!(smux.readable(id) > 0);
                    id
                }
                Event::Writable(id)
                | Event::Finished(id)
                | Event::Stopped(id, _)
                | Event::Reset(id, _) => id,
            };
            assert!(held.contains(&id), "{event:?} of a stream that is not held");
        }
        assert_eq!(smux.held_streams(), held.len());
        assert!(held.len() <= config.max_streams as usize);
        assert!(smux.streams() <= 1024 + 500 + held.len());
        assert!(smux.buffer_memory() < 1 << 20);
        let unread: u64 = held.iter().map(|id| smux.readable(*id) as u64).sum();
        assert!(unread <= smux.unread());
    }
}

/// Two ends, honest to each other, whose application and pipes do things in any order: what one writes the other reads, in
/// order; and what was finished arrives whole once both keep reading.
///
/// Input: a byte for protocol (8 is yamux), version and hello; then operations, each a byte and what it needs.
pub fn smux_pair(data: &[u8]) {
    let mut input = Input::new(data);
    let flags = input.byte();
    let hello = flags & 4 == 0;
    let mut pair = Pair {
        now: Instant::ZERO,
        ends: [Role::Opener, Role::Acceptor].map(|role| End {
            smux: new(if flags & 8 == 0 {
                config(version(flags), role, hello)
            } else {
                yamux_config(role, hello)
            }),
            held: Vec::new(),
            pipe: Vec::new(),
            flows: BTreeMap::new(),
        }),
        broken: false,
    };
    for _ in 0..500 {
        if input.is_empty() || pair.broken {
            break;
        }
        let op = input.byte();
        let side = usize::from(op >> 7);
        let now = pair.now;
        let end = &mut pair.ends[side];
        match op % 8 {
            0 => {
                if let Ok(id) = end.smux.open(now) {
                    end.held.push(id);
                    end.flows.entry(id.wire()).or_default();
                }
            }
            1 | 2 => {
                if let Some(id) = pick(&end.held, input.byte()) {
                    end.write(side, id, usize::from(input.u16() % 4096));
                }
            }
            3 => {
                if let Some(id) = pick(&end.held, input.byte()) {
                    end.read(side, now, id, usize::from(input.u16()));
                }
            }
            4 => pair.carry(side, usize::from(input.u16())),
            5 => {
                if let Some(id) = pick(&end.held, input.byte()) {
                    end.smux.finish(now, id);
                    end.flow(id).finished = true;
                }
            }
            6 => {
                let how = input.byte();
                if let Some(id) = take(&mut end.held, how) {
                    end.flow(id).cut = true;
                    if how & 1 == 0 {
                        end.smux.close(now, id);
                    } else {
                        end.smux.reset(id, ResetReason::ABORTED);
                    }
                }
            }
            _ => pair.sleep(Duration::from_millis(u64::from(input.byte()) * 20)),
        }
        pair.events();
    }
    pair.settle(hello);
}

/// One direction of a stream, as its writer and as its reader see it.
#[derive(Default)]
struct Flow {
    written: u64,
    read: u64,
    finished: bool,
    /// This end closed or reset the stream.
    cut: bool,
    /// The peer takes no more.
    stopped: bool,
}

struct End {
    smux: Mux,
    held: Vec<StreamId>,
    /// Bytes on their way to this end.
    pipe: Vec<u8>,
    flows: BTreeMap<u32, Flow>,
}

impl End {
    fn flow(&mut self, id: StreamId) -> &mut Flow {
        self.flows.entry(id.wire()).or_default()
    }

    fn write(&mut self, side: usize, id: StreamId, len: usize) {
        let start = self.flow(id).written;
        let data: Vec<u8> = (start..start + len as u64)
            .map(|at| pattern(side, id.wire(), at))
            .collect();
        if let Ok(taken) = self.smux.write(id, &data) {
            self.flow(id).written += taken as u64;
        }
    }

    fn read(&mut self, side: usize, now: Instant, id: StreamId, most: usize) {
        let mut at = self.flow(id).read;
        let mut n = 0;
        for slice in self.smux.read_slices(id) {
            for byte in slice.iter().take(most - n) {
                assert_eq!(*byte, pattern(1 - side, id.wire(), at), "{id} at {at}");
                at += 1;
                n += 1;
            }
        }
        self.smux.consume(now, id, n);
        self.flow(id).read = at;
    }
}

struct Pair {
    now: Instant,
    ends: [End; 2],
    /// An end gave its session up.
    broken: bool,
}

impl Pair {
    /// Carries about `len` bytes from one end to the other.
    fn carry(&mut self, from: usize, len: usize) {
        let [a, b] = &mut self.ends;
        let (from, to) = if from == 0 { (a, b) } else { (b, a) };
        while to.pipe.len() < len
            && let Some(frame) = from.smux.poll_frame(self.now)
        {
            to.pipe.extend(frame.parts().concat());
        }
        let mut carried = 0;
        while carried < len.min(to.pipe.len()) && to.smux.wants_input() {
            let piece = (len.min(to.pipe.len()) - carried).min(997);
            let result = to.smux.handle_input(self.now, &to.pipe[carried..][..piece]);
            carried += piece;
            self.broken |= over(result);
            if self.broken {
                break;
            }
        }
        to.pipe.drain(..carried);
    }

    fn sleep(&mut self, time: Duration) {
        self.now += time;
        for end in &mut self.ends {
            if end.smux.poll_timeout().is_some_and(|due| due <= self.now) {
                self.broken |= over(end.smux.handle_timeout(self.now));
            }
        }
    }

    fn events(&mut self) {
        for end in &mut self.ends {
            while let Some(event) = end.smux.poll_event() {
                match event {
                    Event::Opened(id) => {
                        end.held.push(id);
                        end.flow(id);
                    }
                    Event::Stopped(id, _) | Event::Reset(id, _) => end.flow(id).stopped = true,
                    _ => {}
                }
            }
        }
    }

    /// Lets everything arrive and be read; then looks whether it has.
    fn settle(&mut self, hello: bool) {
        for _ in 0..200 {
            if self.broken {
                return;
            }
            for side in [0, 1] {
                self.carry(side, 1 << 20);
                self.events();
                let end = &mut self.ends[1 - side];
                for id in end.held.clone() {
                    end.read(1 - side, self.now, id, usize::MAX);
                }
            }
            // Held ends and lingering streams need their time, and keep-alives have to come.
            self.sleep(Duration::from_millis(500));
            self.events();
        }
        // A peer without half-close drops what a finished stream would still bring.
        if !hello {
            return;
        }
        let [a, b] = &self.ends;
        for (from, to) in [(a, b), (b, a)] {
            for (wire, flow) in &from.flows {
                let Some(other) = to.flows.get(wire) else {
                    // Never seen there: opened and cut at once, or not taken by an end that has too many.
                    assert!(
                        flow.cut || flow.stopped || to.held.len() >= 8,
                        "stream {wire} vanished"
                    );
                    continue;
                };
                assert!(other.read <= flow.written);
                if flow.cut || flow.stopped || other.cut || other.stopped {
                    continue;
                }
                assert_eq!(other.read, flow.written, "stream {wire}");
                let reader = to.held.iter().find(|id| id.wire() == *wire);
                let state = reader.map(|id| to.smux.read_state(*id));
                let expect = if flow.finished {
                    ReadState::Finished
                } else {
                    ReadState::Open
                };
                assert_eq!(state, Some(expect), "stream {wire}");
            }
        }
    }
}

/// Whether a session is over. Between honest ends only silence ends one.
fn over(result: Result<(), Error>) -> bool {
    match result {
        Ok(()) => false,
        Err(Error::PeerSilent) => true,
        Err(error) => panic!("honest peers fall out: {error}"),
    }
}

fn pattern(side: usize, wire: u32, at: u64) -> u8 {
    let [a, b, ..] = at.to_le_bytes();
    let [c, ..] = wire.to_le_bytes();
    a ^ b.wrapping_mul(29) ^ c.wrapping_mul(97) ^ if side == 0 { 0 } else { 0x5a }
}

fn pick(held: &[StreamId], which: u8) -> Option<StreamId> {
    held.get(usize::from(which) % held.len().max(1)).copied()
}

fn take(held: &mut Vec<StreamId>, which: u8) -> Option<StreamId> {
    (!held.is_empty()).then(|| held.remove(usize::from(which) % held.len()))
}

fn check_frame(config: &Config, frame: &[u8]) {
    if config.protocol == Protocol::Yamux {
        let header = match yamux::Header::parse(frame) {
            Ok(header) => header,
            Err(error) => panic!("{error}"),
        };
        let body = frame.len() - yamux::HEADER_LEN;
        let is_data = header.kind == yamux::Type::Data;
        assert_eq!(if is_data { header.length as usize } else { 0 }, body);
        assert!(body <= config.max_frame as usize);
        // Each thing is said by itself.
        assert!(header.flags.0.count_ones() <= 1);
        return;
    }
    let header = match Header::parse(frame) {
        Ok(header) => header,
        Err(error) => panic!("{error}"),
    };
    let body = frame.len() - fulmar_wire::smux::HEADER_LEN;
    assert_eq!(Protocol::Smux(header.version), config.protocol);
    assert_eq!(usize::from(header.len), body);
    assert!(body <= config.max_frame as usize);
    assert!(header.command.fixed_len().is_none_or(|len| len == body));
}
