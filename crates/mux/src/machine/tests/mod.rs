//! Tests of the machine. They live inside the crate so that its invariants can be checked after every step.

mod class;
mod fairness;
mod go_end;
mod halfclose;
mod hostile;
mod limits;
mod model;
mod old_end;
mod plain_end;
mod timers;
mod token;
mod vectors;
mod yamux;

use super::config::FEATURES;
use super::schedule::Lane;
use super::stream::Holder;
use super::*;
use crate::event::Event;
use fulmar_wire::smux::{Command, HEADER_LEN, Header, Hello};

/// Everything that `smux` has to send at `now`.
fn drain(smux: &mut Mux, now: Instant) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(frame) = smux.poll_frame(now) {
        assert_eq!(frame.len(), frame.parts().concat().len());
        bytes.extend_from_slice(&frame.parts().concat());
    }
    assert!(!smux.has_frames());
    bytes
}

fn events(smux: &mut Mux) -> Vec<Event> {
    std::iter::from_fn(|| smux.poll_event()).collect()
}

/// All bytes that wait on a stream, consumed.
fn read(smux: &mut Mux, now: Instant, id: StreamId) -> Vec<u8> {
    let bytes = smux.read_slices(id).collect::<Vec<_>>().concat();
    assert_eq!(bytes.len(), smux.readable(id));
    smux.consume(now, id, bytes.len());
    bytes
}

/// Moves frames both ways until neither has any.
fn settle(a: &mut Mux, b: &mut Mux, now: Instant) {
    while a.has_frames() || b.has_frames() {
        let bytes = drain(a, now);
        b.handle_input(now, &bytes).expect("a misbehaves");
        let bytes = drain(b, now);
        a.handle_input(now, &bytes).expect("b misbehaves");
    }
    check(a);
    check(b);
}

/// A frame on the wire, with `len` as it says it is.
fn frame(version: Version, command: Command, stream: u32, len: u16, payload: &[u8]) -> Vec<u8> {
    let header = Header {
        version,
        command,
        len,
        stream,
    };
    [&header.to_bytes(), payload].concat()
}

/// The command and the payload length of each frame in `bytes`, which are whole frames.
fn commands(mut bytes: &[u8]) -> Vec<(Command, u32, u16)> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let header = Header::parse(bytes).expect("header");
        all.push((header.command, header.stream, header.len));
        bytes = &bytes[HEADER_LEN + usize::from(header.len)..];
    }
    all
}

/// Asserts what must be true between any two calls.
fn check(smux: &Mux) {
    let mut unread = 0;
    let mut held = 0;
    let mut timers = 0;
    let mut arrivals = 0;
    let mut existing = 0;
    for slot in 0..smux.streams.end() {
        let Some(stream) = smux.streams.at(slot) else {
            assert!(!smux.schedule.contains(slot), "a dead stream is ready");
            assert!(!smux.changed.contains(slot), "a dead stream has changes");
            assert!(!smux.arrivals.contains(slot), "a dead stream waits");
            continue;
        };
        existing += 1;
        unread += stream.unread.len() as u64;
        assert_eq!(smux.slots.get(&stream.wire), Some(&slot));
        assert_eq!(
            smux.schedule.contains(slot),
            stream.next(smux.terms()).is_some(),
            "schedule and state differ: {stream:?}"
        );
        assert_eq!(stream.turn.lane.is_some(), smux.schedule.contains(slot));
        assert_eq!(
            stream.turn.lane == Some(Lane::Control),
            matches!(
                stream.next(smux.terms()),
                Some(Next::Upd | Next::Fin | Next::Rst(_))
            ),
            "{stream:?}"
        );
        assert!(
            !stream.is_over(smux.terms()),
            "not forgotten: {stream:?} {:?}",
            smux.peer
        );
        let app = stream.holder == Holder::Application;
        held += u32::from(app);
        assert!(app || !smux.changed.contains(slot));
        assert!(!app || stream.changes.is_empty() || smux.changed.contains(slot));
        let queued = stream.holder == Holder::Queue;
        assert_eq!(smux.arrivals.contains(slot), queued);
        arrivals += u32::from(queued);
        assert!(stream.holder != Holder::Nobody || stream.unread.is_empty());
        assert!(stream.unsent.len() <= smux.config.send_buffer as usize);
        if let Some(at) = stream.timer {
            timers += 1;
            assert!(smux.timers.contains(&(at, slot)));
        }
        if stream.fin_held {
            assert!(stream.outbound == Outbound::Ending && stream.inbound == Inbound::Open);
            assert_eq!(stream.timer.is_some(), smux.peer == Peer::Plain);
        }
    }
    assert_eq!(smux.unread, unread);
    assert_eq!(smux.held, held);
    assert_eq!(smux.timers.len(), timers);
    assert_eq!(smux.slots.len(), existing);
    assert_eq!(smux.streams.len(), existing);
    assert!(arrivals <= smux.config.max_streams + ACCEPT_QUEUE);
    if existing == 0 {
        assert_eq!(smux.inbox.bytes_in_use() + smux.outbox.bytes_in_use(), 0);
    }
}
