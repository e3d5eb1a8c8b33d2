//! A reference end that behaves like the Go program (docs/spec/kcptun.md, section 9): simple, slow, and written from the
//! specification alone. No half-close: `FIN` is the end of a stream in both directions.

use fulmar_wire::smux::{Command, HEADER_LEN, Header, Update, Version};
use std::collections::{BTreeMap, VecDeque};

#[derive(Default)]
pub(super) struct GoStream {
    received: VecDeque<u8>,
    pub(super) fin_received: bool,
    /// What a blocked writer still has in its hands.
    blocked: VecDeque<u8>,
    sent: u32,
    peer_consumed: u32,
    peer_window: u32,
    read: u32,
    read_untold: u32,
}

pub(super) struct GoEnd {
    version: Version,
    frame_size: usize,
    stream_buffer: u32,
    next: u32,
    pub(super) streams: BTreeMap<u32, GoStream>,
    input: Vec<u8>,
    output: Vec<u8>,
    /// The receive loop has stopped.
    pub(super) failed: Option<&'static str>,
}

impl GoEnd {
    pub(super) fn new(version: Version, frame_size: usize, stream_buffer: u32) -> Self {
        Self {
            version,
            frame_size,
            stream_buffer,
            next: 1,
            streams: BTreeMap::new(),
            input: Vec::new(),
            output: Vec::new(),
            failed: None,
        }
    }

    pub(super) fn open(&mut self) -> u32 {
        self.next += 2;
        self.emit(Command::Syn, self.next, &[]);
        self.add(self.next);
        self.next
    }

    /// Starts to write; what the window does not let go waits.
    pub(super) fn write(&mut self, id: u32, data: &[u8]) -> Result<(), &'static str> {
        match self.streams.get_mut(&id) {
            None => Err("closed pipe"),
            Some(stream) if stream.fin_received => Err("EOF"),
            Some(stream) => {
                stream.blocked.extend(data);
                self.pump(id);
                Ok(())
            }
        }
    }

    /// Bytes of this stream that have left.
    pub(super) fn sent(&self, id: u32) -> usize {
        self.streams.get(&id).map_or(0, |s| s.sent as usize)
    }

    pub(super) fn is_blocked(&self, id: u32) -> bool {
        self.streams.get(&id).is_some_and(|s| !s.blocked.is_empty())
    }

    pub(super) fn read(&mut self, id: u32, max: usize) -> Vec<u8> {
        let (half, window) = (self.stream_buffer / 2, self.stream_buffer);
        let Some(stream) = self.streams.get_mut(&id) else {
            return Vec::new();
        };
        let n = max.min(stream.received.len());
        let bytes: Vec<u8> = stream.received.drain(..n).collect();
        if n > 0 {
            let first = stream.read == 0;
            stream.read += n as u32;
            stream.read_untold += n as u32;
            if self.version == Version::V2 && (first || stream.read_untold >= half) {
                stream.read_untold = 0;
                let consumed = stream.read;
                self.emit(Command::Upd, id, &Update { consumed, window }.to_bytes());
            }
        }
        bytes
    }

    /// Everything was read and nothing more comes.
    pub(super) fn at_eof(&self, id: u32) -> bool {
        self.streams
            .get(&id)
            .is_some_and(|s| s.fin_received && s.received.is_empty())
    }

    pub(super) fn close(&mut self, id: u32) {
        if self.streams.remove(&id).is_some() {
            self.emit(Command::Fin, id, &[]);
        }
    }

    pub(super) fn keep_alive(&mut self) {
        self.emit(Command::Nop, 0, &[]);
    }

    pub(super) fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    pub(super) fn input(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        while self.failed.is_none() && self.input.len() >= HEADER_LEN {
            let [version, command, l0, l1, s0, s1, s2, s3] =
                *self.input.first_chunk().expect("header");
            let len = usize::from(u16::from_le_bytes([l0, l1]));
            let id = u32::from_le_bytes([s0, s1, s2, s3]);
            if version != self.version.number() {
                self.failed = Some("invalid protocol: version");
                return;
            }
            // Only `PSH` has its payload skipped by length, and `UPD` always has eight bytes.
            let body = match command {
                0 | 1 | 3 => 0,
                2 => len,
                4 if self.version == Version::V2 => 8,
                _ => {
                    self.failed = Some("invalid protocol: command");
                    return;
                }
            };
            if self.input.len() < HEADER_LEN + body {
                return;
            }
            let body: Vec<u8> = self
                .input
                .drain(..HEADER_LEN + body)
                .skip(HEADER_LEN)
                .collect();
            match command {
                0 if self.streams.contains_key(&id) => {}
                0 => self.add(id),
                1 => {
                    if let Some(stream) = self.streams.get_mut(&id) {
                        stream.fin_received = true;
                        // The blocked write returns with an error.
                        stream.blocked.clear();
                    }
                }
                2 => {
                    if let Some(stream) = self.streams.get_mut(&id) {
                        stream.received.extend(body);
                    }
                }
                4 => {
                    if let Some(stream) = self.streams.get_mut(&id) {
                        let update = Update::parse(&body).expect("eight bytes");
                        stream.peer_consumed = update.consumed;
                        stream.peer_window = update.window;
                        self.pump(id);
                    }
                }
                _ => {}
            }
        }
    }

    fn add(&mut self, id: u32) {
        let stream = GoStream {
            peer_window: 262_144,
            ..GoStream::default()
        };
        self.streams.insert(id, stream);
    }

    fn pump(&mut self, id: u32) {
        loop {
            let v2 = self.version == Version::V2;
            let Some(stream) = self.streams.get_mut(&id) else {
                return;
            };
            let in_flight = stream.sent.wrapping_sub(stream.peer_consumed);
            assert!(in_flight < 1 << 31, "peer consumed more than sent");
            let window = if v2 {
                stream.peer_window.saturating_sub(in_flight) as usize
            } else {
                usize::MAX
            };
            let n = window.min(self.frame_size).min(stream.blocked.len());
            if n == 0 {
                return;
            }
            stream.sent += n as u32;
            let data: Vec<u8> = stream.blocked.drain(..n).collect();
            self.emit(Command::Psh, id, &data);
        }
    }

    fn emit(&mut self, command: Command, stream: u32, payload: &[u8]) {
        let header = Header {
            version: self.version,
            command,
            len: payload.len() as u16,
            stream,
        };
        self.output.extend_from_slice(&header.to_bytes());
        self.output.extend_from_slice(payload);
    }
}

impl super::plain_end::PlainEnd for GoEnd {
    fn open(&mut self) -> u32 {
        self.open()
    }
    fn write(&mut self, id: u32, data: &[u8]) -> bool {
        self.write(id, data).is_ok()
    }
    fn sent(&self, id: u32) -> usize {
        self.sent(id)
    }
    fn is_blocked(&self, id: u32) -> bool {
        self.is_blocked(id)
    }
    fn read(&mut self, id: u32, max: usize) -> Vec<u8> {
        self.read(id, max)
    }
    fn has(&self, id: u32) -> bool {
        self.streams.contains_key(&id)
    }
    fn at_eof(&self, id: u32) -> bool {
        self.at_eof(id)
    }
    fn can_write(&self, id: u32) -> bool {
        self.streams.get(&id).is_some_and(|s| !s.fin_received)
    }
    fn close(&mut self, id: u32) {
        self.close(id);
    }
    fn keep_alive(&mut self) {
        self.keep_alive();
    }
    fn take_output(&mut self) -> Vec<u8> {
        self.take_output()
    }
    fn input(&mut self, bytes: &[u8]) {
        self.input(bytes);
    }
    fn failed(&self) -> Option<&'static str> {
        self.failed
    }
    fn streams(&self) -> usize {
        self.streams.len()
    }
}
