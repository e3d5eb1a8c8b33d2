//! Whole sessions, endpoint to endpoint: per 1,298 bytes of a stream that the server fills, what the sending end does
//! and what the receiving one does, parity and acknowledgements included; and a small message there and back.

use fulmar_cipher::Kernel;

use crate::count::{Parts, charge};

#[path = "../../../../crates/session/benches/pair/mod.rs"]
mod pair;

use pair::{Flags, Nobody, PAYLOAD, Pair, Side, Watch};

/// Turns to warm up with, and as many that are counted.
const TURNS: usize = 60;
/// Messages that are counted.
const ECHOES: usize = 20;

pub(crate) fn parts(parts: &mut Parts, kernel: Kernel) {
    for (name, flags) in [
        ("defaults", Flags::defaults(kernel)),
        ("null, no parity, no snappy", Flags::bare(kernel)),
    ] {
        for (does, side) in [("sending", Side::Server), ("receiving", Side::Client)] {
            parts.part(&format!("session, {does}, {name}"), || bulk(flags, side));
        }
    }
    parts.part(
        "session, 100 bytes there and back, defaults, both ends",
        || {
            let mut pair = Pair::new(Flags::defaults(kernel));
            (0..ECHOES).for_each(|_| pair.echo(100, &mut Nobody));
            (0..ECHOES).for_each(|_| pair.echo(100, &mut Both));
            ECHOES as u64
        },
    );
}

/// Counts what `side` does while the client reads; returns how many payloads that were.
fn bulk(flags: Flags, side: Side) -> u64 {
    let mut pair = Pair::new(flags);
    (0..TURNS).for_each(|_| pair.bulk(&mut Nobody));
    let before = pair.received();
    (0..TURNS).for_each(|_| pair.bulk(&mut Only(side)));
    (pair.received() - before) / PAYLOAD as u64
}

/// Counts the work of one side.
struct Only(Side);

impl Watch for Only {
    fn watch<R>(&mut self, side: Side, work: impl FnOnce() -> R) -> R {
        charge(side == self.0, work)
    }
}

/// Counts the work of both sides.
struct Both;

impl Watch for Both {
    fn watch<R>(&mut self, _: Side, work: impl FnOnce() -> R) -> R {
        charge(true, work)
    }
}
