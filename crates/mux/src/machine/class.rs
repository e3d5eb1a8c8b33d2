//! Which frames are worth sending more than once.
//!
//! The layers below can trade bytes for latency: repeat what somebody waits for, so that a loss costs no round trip.
//! For a download that would waste the link; for a key press, a query or a game it costs next to nothing. The
//! multiplexer sees which is which, and says so with each frame.

use fulmar_wire::time::Instant;

/// Tokens that a stream has when it is opened, and can save up at most. A sparse frame takes two for each byte.
pub const SPARSE_BURST: u32 = 16 * 1024;
/// Tokens that a stream gains per second. Half of it in own bytes is 64 kbit/s, the rate of a telephone call or a game.
pub const SPARSE_RATE: u32 = 16_000;
/// Tokens for a byte of a frame.
const PRICE: u32 = 2;
/// Bytes gained in a millisecond: a whole number, so that counting in milliseconds loses nothing.
const PER_MILLI: u32 = SPARSE_RATE / 1000;

/// Whether copies of a frame are worth their bytes.
///
/// A stream is sparse while its own bytes (headers included) stay below half of [`SPARSE_RATE`] on average, with half of
/// [`SPARSE_BURST`] at once; data beyond that is bulk. A frame with more than 8184 bytes of data always is: it costs more than
/// a full budget. How many copies a sparse frame gets, up to three, is decided below by what the path loses.
///
/// `SYN` and `FIN` are paid for from the same budget, but are sparse even when it is used up: they are 8 bytes, once per
/// stream. What is said without data (window updates, keep-alives, resets) is sparse and costs nothing.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// Somebody is likely to wait for it, and it is of a stream that sends little: control frames; and data that is among
    /// the first 8 KiB of its stream, or the last of what the stream has to send now.
    Sparse,
    /// The rest: its loss is repaired in time by what follows it.
    Bulk,
}

/// The tokens of one stream.
#[derive(Debug)]
pub(crate) struct Budget {
    tokens: u32,
    /// When they were counted: the low half of the milliseconds. A stream that sends nothing sparse for 50 days is the
    /// poorer for what the wrapping hides.
    at: u32,
}

impl Budget {
    /// A full one.
    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            tokens: SPARSE_BURST,
            at: now.as_millis() as u32,
        }
    }

    /// Pays for a sparse frame of `len` bytes; `false`, and nothing is paid, if it cannot.
    pub(crate) const fn pay(&mut self, now: Instant, len: usize) -> bool {
        let cost = self.gain(now, len);
        match self.tokens.checked_sub(cost) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }

    /// Pays for a sparse frame of `len` bytes what it can.
    pub(crate) const fn pay_anyhow(&mut self, now: Instant, len: usize) {
        let cost = self.gain(now, len);
        self.tokens = self.tokens.saturating_sub(cost);
    }

    /// Counts what was gained since the last time; returns what a frame of `len` bytes costs.
    const fn gain(&mut self, now: Instant, len: usize) -> u32 {
        let millis = now.as_millis() as u32;
        let gained = millis.wrapping_sub(self.at).saturating_mul(PER_MILLI);
        let tokens = self.tokens.saturating_add(gained);
        self.tokens = if tokens < SPARSE_BURST {
            tokens
        } else {
            SPARSE_BURST
        };
        self.at = millis;
        // A frame has no more than 65543 bytes.
        PRICE * len as u32
    }
}
