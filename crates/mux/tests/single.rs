//! Two ends of a conversation's stream and any sequence of operations: what was written is read, and in the end both know
//! that it has ended.

use core::time::Duration;

use fulmar_mux::Single;
use fulmar_mux::single::{Config, SingleEvent};
use fulmar_wire::time::Instant;
use proptest::prelude::*;

/// One thing that an application, the network or the clock does. Ends are 0, which opens, and 1.
#[derive(Clone, Debug)]
enum Op {
    Write(usize, usize),
    Read(usize, usize),
    /// So many messages leave, each with at most so much data.
    Send(usize, usize, u32),
    /// So many bytes arrive at that end, in pieces that long.
    Arrive(usize, usize, usize),
    Finish(usize),
    Ping(usize),
    Wait(u64),
    Trim(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let end = 0usize..2;
    prop_oneof![
        3 => (end.clone(), 0usize..5000).prop_map(|(e, n)| Op::Write(e, n)),
        3 => (end.clone(), 0usize..5000).prop_map(|(e, n)| Op::Read(e, n)),
        4 => (end.clone(), 1usize..6, 0u32..3000).prop_map(|(e, n, limit)| Op::Send(e, n, limit)),
        4 => (end.clone(), 0usize..6000, 1usize..900).prop_map(|(e, n, cut)| Op::Arrive(e, n, cut)),
        1 => end.clone().prop_map(Op::Finish),
        1 => end.clone().prop_map(Op::Ping),
        1 => (0u64..4000).prop_map(Op::Wait),
        1 => end.prop_map(Op::Trim),
    ]
}

struct End {
    single: Single,
    /// Bytes for it that have left the other end.
    coming: Vec<u8>,
    written: Vec<u8>,
    read: Vec<u8>,
    opened: bool,
}

struct World {
    ends: [End; 2],
    now: Instant,
}

impl World {
    fn new(hold_end: bool) -> Self {
        let now = Instant::from_millis(1000);
        let end = |opener| End {
            single: Single::new(
                Config {
                    opener,
                    number: 7,
                    send_buffer: 8000,
                    receive_buffer: 4000,
                    keepalive: Duration::from_secs(3),
                    // Openers are told to, and not both: they would wait for each other.
                    hold_end: hold_end && opener,
                },
                now,
            ),
            coming: Vec::new(),
            written: Vec::new(),
            read: Vec::new(),
            opened: opener,
        };
        Self {
            ends: [end(true), end(false)],
            now,
        }
    }

    fn run(&mut self, op: &Op) {
        let now = self.now;
        match *op {
            Op::Write(e, n) => {
                let end = &mut self.ends[e];
                // As its owner does: nothing before it is opened, nothing behind its end.
                if end.opened && end.single.is_writable() {
                    let from = end.written.len();
                    let room = end.single.write_reserve(n);
                    for (byte, number) in room.iter_mut().zip(from..) {
                        *byte = (number % 253) as u8;
                    }
                    end.written.extend_from_slice(room);
                    let n = room.len();
                    end.single.write_commit(n);
                }
            }
            Op::Read(e, n) => {
                let end = &mut self.ends[e];
                let n = n.min(end.single.readable());
                let all = end.single.read_slices().flatten();
                end.read.extend(all.take(n));
                end.single.consume(n);
            }
            Op::Send(e, n, limit) => {
                for _ in 0..n {
                    let Some(frame) = self.ends[e].single.poll_frame(now, limit) else {
                        break;
                    };
                    let frame = frame.parts().concat();
                    self.ends[1 - e].coming.extend(frame);
                }
            }
            Op::Arrive(e, n, cut) => {
                let end = &mut self.ends[e];
                let n = n.min(end.coming.len());
                let mut taken = 0;
                for piece in end.coming[..n].chunks(cut) {
                    if !end.single.wants_input() {
                        break;
                    }
                    end.single.handle_input(now, piece).expect("messages");
                    taken += piece.len();
                }
                end.coming.drain(..taken);
                while let Some(event) = end.single.poll_event() {
                    end.opened |= event == SingleEvent::Opened;
                }
            }
            Op::Finish(e) => self.ends[e].single.finish(),
            Op::Ping(e) => self.ends[e].single.ping(),
            Op::Wait(ms) => {
                self.now += Duration::from_millis(ms);
                for end in &mut self.ends {
                    end.single.handle_timeout(self.now);
                    assert!(end.single.poll_timeout().is_none_or(|at| at > self.now));
                }
            }
            Op::Trim(e) => self.ends[e].single.trim(),
        }
        for (end, other) in [(0, 1), (1, 0)] {
            assert!(self.ends[other].written.starts_with(&self.ends[end].read));
        }
    }
}

proptest! {
    #[test]
    fn what_was_written_is_read(
        hold_end in any::<bool>(),
        ops in proptest::collection::vec(op(), 0..120),
    ) {
        let mut world = World::new(hold_end);
        for op in &ops {
            world.run(op);
        }
        // To the end: the acceptor ends first, which a held end waits for.
        for _ in 0..20 {
            for e in [1, 0] {
                for op in [
                    Op::Finish(e),
                    Op::Send(e, 100, u32::MAX),
                    Op::Arrive(1 - e, usize::MAX, 500),
                    Op::Read(1 - e, usize::MAX),
                ] {
                    world.run(&op);
                }
            }
        }
        for (end, other) in [(0, 1), (1, 0)] {
            let single = &world.ends[end].single;
            prop_assert!(world.ends[end].read == world.ends[other].written);
            prop_assert!(single.is_finished() && single.is_ended());
            prop_assert_eq!(single.poll_timeout(), None);
        }
    }
}
