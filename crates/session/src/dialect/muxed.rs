//! What dialects with a multiplexer share: its words in those of a stream layer.

use core::time::Duration;

use fulmar_cipher::NonceSource;
use fulmar_mux::{self as mux, Event as MuxEvent, Mux, ReadState, WriteState};
use fulmar_wire::smux::Features;
use fulmar_wire::time::Instant;

use crate::layer::{
    LayerError, Notice, OpenError, Progress, Readable, Stillness, StreamEvent, StreamId, Writable,
};
use crate::memory::Held;

/// Why the session cannot go on; `silence` is how long a peer may be silent.
pub(super) fn fault(e: mux::Error, silence: Duration) -> LayerError {
    match e {
        mux::Error::PeerSilent => LayerError::Silent(silence),
        mux::Error::GoneAway(code) => LayerError::Ended(code),
        mux::Error::BadVersion { .. }
        | mux::Error::BadCommand(_)
        | mux::Error::BadFrame(_)
        | mux::Error::BadLength { .. } => LayerError::Malformed(e.to_string()),
        e => LayerError::Misbehaved(e.to_string()),
    }
}

/// The next change of a stream; what it says of the peer goes to `notices`.
pub(super) fn poll_event(mux: &mut Mux, notices: &mut Vec<Notice>) -> Option<StreamEvent> {
    loop {
        return Some(match mux.poll_event()? {
            MuxEvent::Opened(id) => StreamEvent::Opened(id),
            MuxEvent::Readable(id) | MuxEvent::Finished(id) => StreamEvent::Readable(id),
            MuxEvent::Writable(id) | MuxEvent::Stopped(id, _) => StreamEvent::Writable(id),
            MuxEvent::Reset(id, _) => StreamEvent::Reset(id),
            MuxEvent::PeerHello(_) => {
                notices.push(Notice::PeerIsFulmar);
                continue;
            }
            MuxEvent::PeerPlain => continue,
        });
    }
}

pub(super) const fn peer_is_fulmar(mux: &Mux) -> bool {
    matches!(mux.peer(), mux::Peer::Fulmar(_))
}

pub(super) const fn peer_takes_ack_ranges(mux: &Mux) -> bool {
    matches!(mux.peer(), mux::Peer::Fulmar(f) if f.contains(Features::ACK_RANGES))
}

pub(super) fn open(mux: Option<&mut Mux>, now: Instant) -> Result<StreamId, OpenError> {
    let mux = mux.ok_or(OpenError::Closed)?;
    mux.open(now).map_err(|e| match e {
        mux::OpenError::Exhausted | mux::OpenError::TooMany => OpenError::Exhausted,
        _ => OpenError::Closed,
    })
}

pub(super) fn read(mux: &Mux, id: StreamId) -> Readable<'_> {
    if mux.readable(id) > 0 {
        return Readable::Bytes(mux.read_chunks(id)[0]);
    }
    match mux.read_state(id) {
        ReadState::Open => Readable::Pending,
        ReadState::Finished => Readable::Finished,
        ReadState::Reset(_) | ReadState::Closed => Readable::Reset,
    }
}

pub(super) fn pieces<'a>(mux: &'a Mux, id: StreamId, pieces: &mut [&'a [u8]]) -> usize {
    let mut found = 0;
    for (to, piece) in pieces.iter_mut().zip(mux.read_slices(id)) {
        *to = piece;
        found += 1;
    }
    found
}

pub(super) fn write(mux: Option<&mut Mux>, id: StreamId, max: usize) -> Writable<'_> {
    let Some(mux) = mux else {
        return Writable::Stopped;
    };
    if !matches!(mux.write_state(id), WriteState::Open) {
        return Writable::Stopped;
    }
    if mux.write_space(id) == 0 {
        return Writable::Full;
    }
    mux.write_reserve(id, max)
        .map_or(Writable::Stopped, Writable::Room)
}

/// How far a session is from being at rest; `told`: all that there was to tell of its peer.
pub(super) fn stillness(mux: &Mux, told: bool) -> Stillness {
    if mux.streams() > 0 {
        Stillness::Streams
    } else if told && mux.is_restful() {
        Stillness::Still
    } else {
        Stillness::Busy
    }
}

pub(super) fn held(mux: Option<&Mux>) -> Held {
    mux.map_or_else(Held::default, |mux| Held {
        sending: mux.send_memory(),
        receiving: mux.receive_memory(),
    })
}

/// Does what is due.
pub(super) fn handle_timeout(mux: &mut Mux, now: Instant) -> Result<(), LayerError> {
    let patience = mux.patience();
    mux.handle_timeout(now).map_err(|e| fault(e, patience))
}

/// Tokens of sessions (docs/design/liveness.md): unpredictable, so that only who was given one knows it.
#[derive(Debug)]
pub(super) struct Tokens(NonceSource);

impl Tokens {
    pub(super) const fn new(random: NonceSource) -> Self {
        Self(random)
    }

    pub(super) fn draw(&mut self) -> u64 {
        let mut token = [0; 8];
        self.0.fill(&mut token);
        u64::from_le_bytes(token)
    }

    /// What a session's clock shows at the beginning, as little to be guessed.
    pub(super) fn draw_clock(&mut self) -> u32 {
        let mut clock = [0; 4];
        self.0.fill(&mut clock);
        u32::from_le_bytes(clock)
    }
}

/// Keeps nothing for the next burst.
pub(super) fn shrink(mux: &mut Mux) {
    mux.trim();
    mux.trim();
}

pub(super) fn progress(mux: &Mux, id: StreamId) -> Option<Progress> {
    let info = mux.stream_info(id)?;
    Some(Progress {
        received: Some(info.arrived_at),
        sent: Some(info.sent_at),
        unsent: info.unsent > 0,
    })
}
