//! smux frames of 8 KiB on one stream, version 2; counts are per packet's worth of payload. Sending takes the application's
//! bytes and puts frames where KCP would take them from; receiving takes KCP's segments and shows the application its
//! bytes.

use std::hint::black_box;

use fulmar_mux::machine::{Config, Role, Version};
use fulmar_mux::{Event, Mux, StreamId};
use fulmar_wire::time::Instant;

use super::PAYLOAD;
use crate::count::{Parts, charge};

const NOW: Instant = Instant::from_millis(1);
/// Bytes that are written, and read, at a time.
const STEP: usize = 64 * 1024;
/// Steps to warm up with, and as many that are counted.
const STEPS: usize = 16;

pub(crate) fn parts(parts: &mut Parts) {
    for (name, sender) in [("smux, sending", true), ("smux, receiving", false)] {
        parts.part(name, || {
            let mut ends = Ends::new();
            (0..STEPS).for_each(|_| ends.step(false, false));
            (0..STEPS).for_each(|_| ends.step(sender, !sender));
            (STEPS * STEP / PAYLOAD) as u64
        });
    }
}

/// An opener that sends and an acceptor that reads, with one stream.
struct Ends {
    a: Mux,
    b: Mux,
    stream: StreamId,
    data: Vec<u8>,
    wire: Vec<u8>,
}

impl Ends {
    fn new() -> Self {
        let config = |role| Config {
            max_frame: 8192,
            hello: false,
            ..Config::new(Version::V2, role)
        };
        let mut a = Mux::new(config(Role::Opener), NOW).expect("valid");
        let b = Mux::new(config(Role::Acceptor), NOW).expect("valid");
        let stream = a.open(NOW).expect("a stream");
        Self {
            a,
            b,
            stream,
            data: super::noise(STEP),
            wire: Vec::with_capacity(2 * STEP),
        }
    }

    /// A step's bytes from one end to the other; whose work counts.
    fn step(&mut self, sender: bool, receiver: bool) {
        self.wire.clear();
        charge(sender, || {
            let mut left = &self.data[..];
            while !left.is_empty() {
                let room = self.a.write_reserve(self.stream, left.len());
                let room = room.expect("an open stream");
                let n = room.len().min(left.len());
                room[..n].copy_from_slice(&left[..n]);
                self.a.write_commit(self.stream, n).expect("open");
                left = &left[n..];
            }
            frames(&mut self.a, &mut self.wire);
        });
        let mut read = 0;
        charge(receiver, || {
            for segment in self.wire.chunks(PAYLOAD) {
                self.b.handle_input(NOW, segment).expect("frames");
            }
            while let Some(event) = self.b.poll_event() {
                if let Event::Readable(stream) = event {
                    let n = self.b.read_slices(stream).map(|s| black_box(s).len()).sum();
                    self.b.consume(NOW, stream, n);
                    read += n;
                }
            }
        });
        assert_eq!(read, STEP);
        // Windows.
        self.wire.clear();
        frames(&mut self.b, &mut self.wire);
        self.a.handle_input(NOW, &self.wire).expect("frames");
        while self.a.poll_event().is_some() {}
    }
}

fn frames(from: &mut Mux, wire: &mut Vec<u8>) {
    while let Some(frame) = from.poll_frame(NOW) {
        for part in frame.parts() {
            wire.extend_from_slice(part);
        }
    }
}
