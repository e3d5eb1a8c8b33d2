//! What a sender would reach that sends whatever the window allows at once, and knows of each loss as soon as the flush
//! comes in that would have acknowledged it.

use std::collections::VecDeque;

use fulmar_wire::time::Millis;

use crate::link::{Cell, Fate, Lane, MTU, Receiver};

/// Segments that arrive in order in a second, from `from` to `until`.
pub(crate) fn rate(cell: &Cell, seed: u64, from: u64, until: u64) -> f64 {
    let mut lane = Lane::new(cell, seed);
    let mut receiver = Receiver::new(cell, seed + 1);
    let (mut next, mut una) = (0u32, 0u32);
    let mut lost: VecDeque<(u64, u32)> = VecDeque::new();
    let mut flying: VecDeque<(u64, u32)> = VecDeque::new();
    // When a flush comes in, when it was made, and what it says.
    let mut flushes: VecDeque<(u64, u64, u32)> = VecDeque::new();
    let mut before = 0;
    let mut again = Vec::new();
    let mut now = 0;
    loop {
        let mut send = |now, sn| match lane.send(now, MTU) {
            Fate::Arrives(at) => flying.push_back((at, sn)),
            Fate::Lost(at) => lost.push_back((at, sn)),
        };
        again.drain(..).for_each(|sn| send(now, sn));
        while next < una + cell.window {
            send(now, next);
            next += 1;
        }
        let arrival = flying.front().map_or(u64::MAX, |f| f.0);
        let flush = flushes.front().map_or(u64::MAX, |f| f.0);
        now = arrival.min(flush).min(receiver.due());
        if now > until {
            return f64::from(receiver.next - before) * 1e6 / (until - from) as f64;
        }
        if now < from {
            before = receiver.next;
        }
        if now == flush {
            let (_, made, told) = flushes.pop_front().expect("seen");
            una = told;
            while lost.front().is_some_and(|l| l.0 <= made) {
                again.extend(lost.pop_front().map(|l| l.1));
            }
        } else {
            let at_once = if now == arrival {
                let (_, sn) = flying.pop_front().expect("seen");
                receiver.arrived(sn, Millis(0))
            } else {
                receiver.ticked();
                true
            };
            if at_once {
                receiver.flush();
                flushes.push_back((now + cell.rtt / 2, now, receiver.next));
            }
        }
    }
}
