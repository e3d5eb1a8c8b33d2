//! A reference end that behaves like kcptun of April 2016 with the yamux of its time (docs/spec/kcptun2016.md, sections 9 and 10): simple, slow,
//! and written from the specification alone, with everything that such a program dies of. No half-close: when either direction ends
//! it closes the stream.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::plain_end::PlainEnd;
use fulmar_wire::yamux::{Flags, HEADER_LEN, Header, INITIAL_WINDOW, Type};

/// Streams that may wait for their `ACK`; the next one would block for ever.
const BACKLOG: usize = 256;

#[derive(Default)]
struct Stream {
    received: VecDeque<u8>,
    fin_received: bool,
    /// What a blocked writer still has in its hands.
    blocked: VecDeque<u8>,
    sent: usize,
    send_window: u32,
    recv_window: u32,
    /// We have closed it, and wait for the other end.
    closed: bool,
}

pub(super) struct OldEnd {
    frame_size: usize,
    opener: bool,
    next: u32,
    streams: BTreeMap<u32, Stream>,
    unacknowledged: BTreeSet<u32>,
    pings: u32,
    input: Vec<u8>,
    output: Vec<u8>,
    failed: Option<&'static str>,
}

impl OldEnd {
    pub(super) fn new(opener: bool, frame_size: usize) -> Self {
        Self {
            frame_size,
            opener,
            next: 1,
            streams: BTreeMap::new(),
            unacknowledged: BTreeSet::new(),
            pings: 0,
            input: Vec::new(),
            output: Vec::new(),
            failed: None,
        }
    }

    fn emit(&mut self, kind: Type, flags: Flags, stream: u32, length: u32) {
        let header = Header {
            kind,
            flags,
            stream,
            length,
        };
        self.output.extend_from_slice(&header.to_bytes());
    }

    fn add(&mut self, id: u32) {
        let stream = Stream {
            send_window: INITIAL_WINDOW,
            recv_window: INITIAL_WINDOW,
            ..Stream::default()
        };
        self.streams.insert(id, stream);
    }

    fn pump(&mut self, id: u32) {
        loop {
            let Some(stream) = self.streams.get_mut(&id) else {
                return;
            };
            let most = self.frame_size.min(stream.send_window as usize);
            let n = most.min(stream.blocked.len());
            if n == 0 {
                return;
            }
            stream.send_window -= n as u32;
            stream.sent += n;
            let data: Vec<u8> = stream.blocked.drain(..n).collect();
            self.emit(Type::Data, Flags::NONE, id, n as u32);
            self.output.extend_from_slice(&data);
        }
    }

    fn on_frame(&mut self, header: &Header, body: &[u8]) -> Result<(), &'static str> {
        let id = header.stream;
        match header.kind {
            Type::Ping if header.flags.has(Flags::SYN) => {
                self.emit(Type::Ping, Flags::ACK, 0, header.length);
                return Ok(());
            }
            Type::Ping => return Ok(()),
            Type::GoAway => return Err("go away"),
            Type::Token => return Err("a type that does not exist"),
            Type::Data | Type::WindowUpdate => {}
        }
        if header.flags.has(Flags::SYN) {
            if self.streams.contains_key(&id) {
                return Err("duplicate stream");
            }
            if self.opener {
                return Err("a server opened a stream");
            }
            self.add(id);
            self.emit(Type::WindowUpdate, Flags::ACK, id, 0);
        }
        if !self.streams.contains_key(&id) {
            return Ok(());
        }
        if header.flags.has(Flags::ACK) && !self.unacknowledged.remove(&id) {
            return Err("panic: established stream without inflight SYN");
        }
        if header.flags.has(Flags::FIN) {
            let stream = self.streams.get_mut(&id).expect("it is there");
            if stream.fin_received {
                return Err("unexpected FIN flag");
            }
            stream.fin_received = true;
            stream.blocked.clear();
            if stream.closed {
                self.streams.remove(&id);
                return Ok(());
            }
        }
        if header.flags.has(Flags::RST) {
            let stream = self.streams.get_mut(&id).expect("it is there");
            if !stream.closed {
                self.unacknowledged.remove(&id);
            }
            if stream.closed {
                self.streams.remove(&id);
                return Ok(());
            }
            // What was not read is lost, and the copy loops end.
            stream.received.clear();
            stream.blocked.clear();
            stream.fin_received = true;
        }
        let stream = self.streams.get_mut(&id).expect("it is there");
        if header.kind == Type::WindowUpdate {
            stream.send_window = stream
                .send_window
                .checked_add(header.length)
                .ok_or("a window beyond its number")?;
            self.pump(id);
            return Ok(());
        }
        if header.length > stream.recv_window {
            return Err("receive window exceeded");
        }
        stream.recv_window -= header.length;
        if !stream.closed {
            stream.received.extend(body);
        }
        Ok(())
    }
}

impl PlainEnd for OldEnd {
    fn open(&mut self) -> u32 {
        let id = self.next;
        self.next += 2;
        assert!(self.unacknowledged.len() < BACKLOG, "it would hang");
        self.unacknowledged.insert(id);
        self.add(id);
        self.emit(Type::WindowUpdate, Flags::SYN, id, 0);
        id
    }

    fn write(&mut self, id: u32, data: &[u8]) -> bool {
        match self.streams.get_mut(&id) {
            Some(stream) if !stream.fin_received && !stream.closed => {
                stream.blocked.extend(data);
                self.pump(id);
                true
            }
            _ => false,
        }
    }

    fn sent(&self, id: u32) -> usize {
        self.streams.get(&id).map_or(0, |s| s.sent)
    }

    fn is_blocked(&self, id: u32) -> bool {
        self.streams.get(&id).is_some_and(|s| !s.blocked.is_empty())
    }

    fn read(&mut self, id: u32, max: usize) -> Vec<u8> {
        let Some(stream) = self.streams.get_mut(&id).filter(|s| !s.closed) else {
            return Vec::new();
        };
        let n = max.min(stream.received.len());
        let bytes: Vec<u8> = stream.received.drain(..n).collect();
        // What was received counts, read or not.
        let credit = INITIAL_WINDOW - stream.recv_window;
        if n > 0 && credit >= INITIAL_WINDOW / 2 {
            stream.recv_window += credit;
            self.emit(Type::WindowUpdate, Flags::NONE, id, credit);
        }
        bytes
    }

    fn has(&self, id: u32) -> bool {
        self.streams.get(&id).is_some_and(|s| !s.closed)
    }

    fn at_eof(&self, id: u32) -> bool {
        self.streams
            .get(&id)
            .is_some_and(|s| s.fin_received && s.received.is_empty())
    }

    fn can_write(&self, id: u32) -> bool {
        self.streams
            .get(&id)
            .is_some_and(|s| !s.fin_received && !s.closed)
    }

    fn close(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id).filter(|s| !s.closed) else {
            return;
        };
        stream.closed = true;
        stream.received.clear();
        stream.blocked.clear();
        let done = stream.fin_received;
        self.emit(Type::WindowUpdate, Flags::FIN, id, 0);
        if done {
            self.streams.remove(&id);
        }
    }

    fn keep_alive(&mut self) {
        self.emit(Type::Ping, Flags::SYN, 0, self.pings);
        self.pings += 1;
    }

    fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    fn input(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        while self.failed.is_none() && self.input.len() >= HEADER_LEN {
            let Ok(header) = Header::parse(&self.input) else {
                self.failed = Some("invalid protocol version or type");
                return;
            };
            let body = match header.kind {
                Type::Data => header.length as usize,
                _ => 0,
            };
            if self.input.len() < HEADER_LEN + body {
                return;
            }
            let frame: Vec<u8> = self.input.drain(..HEADER_LEN + body).collect();
            self.failed = self.on_frame(&header, &frame[HEADER_LEN..]).err();
        }
    }

    fn failed(&self) -> Option<&'static str> {
        self.failed
    }

    /// Also those that wait for the other end, and tokens of streams that were never acknowledged.
    fn streams(&self) -> usize {
        self.streams.len() + self.unacknowledged.len()
    }
}
