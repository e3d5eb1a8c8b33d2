//! smux's frames (docs/spec/kcptun.md, section 9): what each that arrives means, and how what is to be said is written.

use super::input::Expect;
use super::output::{Draft, Say};
use super::{Mux, Role, Version};
use crate::Error;
use crate::event::{Peer, ResetReason};
use crate::machine::stream::{Flow, Inbound, Outbound};
use fulmar_wire::smux::{
    Command, Features, Header, Hello, INITIAL_WINDOW, MAX_PAYLOAD, ParseError, Reset, TOKEN_LEN,
    Update,
};
use fulmar_wire::time::Instant;

/// Bytes that a version 2 peer may be over its window: one frame, in case its arithmetic is a frame behind ours.
const TOLERANCE: u32 = MAX_PAYLOAD as u32;

impl Mux {
    /// A header has arrived.
    pub(super) fn on_smux(
        &mut self,
        now: Instant,
        ours: Version,
        bytes: &[u8],
    ) -> Result<(), Error> {
        // The version first: in bytes that are not smux at all the command means nothing.
        let got = bytes.first().copied().unwrap_or_default();
        if got != ours.number() {
            return self.fail(Error::BadVersion { got, ours });
        }
        let header = match Header::parse(bytes) {
            Ok(header) => header,
            Err(ParseError::Command(command)) => return self.fail(Error::BadCommand(command)),
            // Neither is possible: the header is complete and its version was looked at.
            Err(ParseError::Version(got)) => return self.fail(Error::BadVersion { got, ours }),
            Err(ParseError::Short) => return Ok(()),
        };
        if let Some(error) = self.misuse(ours, &header) {
            return self.fail(error);
        }
        self.counters.frames_received += 1;
        self.heard = true;
        self.heard_since_check = true;
        self.heard_at = now;
        if self.peer == Peer::Unknown {
            self.meet(now, Hello::parse(&header).map(|hello| hello.features));
        }
        match header.command {
            Command::Syn
                if self.config.role == Role::Opener || self.find(header.stream).is_some() =>
            {
                self.counters.syns_ignored += 1;
            }
            Command::Syn => self.on_syn(now, header.stream)?,
            Command::Fin => self.on_fin(header.stream),
            Command::Psh => self.on_psh(&header)?,
            Command::Nop => self.counters.nops_received += 1,
            Command::Upd => self.parser.expect = Expect::Update(header.stream),
            Command::Rst => self.parser.expect = Expect::Reset(header.stream),
            Command::Token => self.parser.expect = Expect::Token,
        }
        Ok(())
    }

    /// What is wrong with a header of our version, if anything.
    fn misuse(&self, ours: Version, header: &Header) -> Option<Error> {
        let command = header.command.number();
        let agreed = match header.command {
            Command::Rst => self.peer.half_close(),
            Command::Token => self.exchanges_tokens(),
            _ => true,
        };
        if !agreed {
            return Some(Error::BadCommand(command));
        }
        if header.command == Command::Upd && ours == Version::V1 {
            return Some(Error::UpdInV1);
        }
        // Upstream would read the announced payload as the next header, or a longer update as its first 8 bytes; no
        // correct sender gets that far.
        match header.command.fixed_len() {
            Some(len) if len != usize::from(header.len) => Some(Error::BadLength {
                command,
                len: header.len,
            }),
            _ => None,
        }
    }

    fn on_psh(&mut self, header: &Header) -> Result<(), Error> {
        let len = usize::from(header.len);
        if len == 0 {
            self.counters.empty_frames += 1;
            return Ok(());
        }
        let mut target = None;
        if let Some(slot) = self.find_or_count(header.stream)
            && let Some(stream) = self.streams.at(slot)
            && stream.inbound == Inbound::Open
        {
            if matches!(stream.flow, Flow::Told { .. }) {
                let unread = stream.unread.len() as u64 + len as u64;
                let window = self.config.stream_buffer.max(INITIAL_WINDOW);
                if unread > u64::from(window) + u64::from(TOLERANCE) {
                    return self.fail(Error::WindowOverrun {
                        stream: header.stream,
                        unread,
                    });
                }
            }
            target = self.streams.key(slot);
        }
        self.parser.expect = Expect::Bytes(target, len);
        Ok(())
    }

    /// The peer tells what it has read.
    pub(super) fn on_update(&mut self, wire: u32, update: Update) -> Result<(), Error> {
        self.counters.updates_received += 1;
        let Some(slot) = self.find_or_count(wire) else {
            return Ok(());
        };
        let Some(stream) = self.streams.at_mut(slot) else {
            return Ok(());
        };
        if stream.in_flight(update.consumed) > i32::MAX as u32 {
            return self.fail(Error::ConsumedAhead { stream: wire });
        }
        stream.flow = Flow::Told {
            consumed: update.consumed,
            // More could not be told from a negative number in the check above.
            window: update.window.min(i32::MAX as u32),
        };
        self.refresh(slot);
        Ok(())
    }

    /// The peer cuts a stream, or with [`ResetReason::CLOSED`] says that it reads nothing more.
    pub(super) fn on_smux_reset(&mut self, wire: u32, reason: ResetReason) {
        self.counters.resets_received += 1;
        let Some(slot) = self.find_or_count(wire) else {
            return;
        };
        if reason == ResetReason::CLOSED {
            self.on_deaf(slot);
        } else {
            self.on_cut(slot, reason);
        }
    }

    /// The peer reads nothing more of this stream; what it sends goes on to its end.
    fn on_deaf(&mut self, slot: u32) {
        self.stop(slot, ResetReason::CLOSED);
        if let Some(stream) = self.streams.at_mut(slot) {
            // Nobody waits for our end there.
            if stream.outbound != Outbound::Cut {
                stream.outbound = Outbound::Ended;
            }
        }
        self.release_fin(slot);
        self.refresh(slot);
    }
}

/// The frame that says it.
pub(super) fn draft(version: Version, wire: u32, say: Say) -> Draft {
    let header = |command, len: usize| Header {
        version,
        command,
        // No more than `max_frame`, which fits.
        len: len as u16,
        stream: wire,
    };
    match say {
        Say::Open => Draft::control(&header(Command::Syn, 0).to_bytes()),
        Say::Update {
            consumed, window, ..
        } => {
            let update = Update { consumed, window }.to_bytes();
            Draft::with(&header(Command::Upd, update.len()).to_bytes(), &update)
        }
        Say::Data(n) => Draft::control(&header(Command::Psh, n).to_bytes()),
        Say::End => Draft::control(&header(Command::Fin, 0).to_bytes()),
        Say::Cut(reason) => {
            let reset = Reset { reason: reason.0 }.to_bytes();
            Draft::with(&header(Command::Rst, reset.len()).to_bytes(), &reset)
        }
    }
}

/// The first frame of a Fulmar.
pub(super) fn hello(version: Version, features: Features) -> Draft {
    Draft::control(&Hello { features }.header(version).to_bytes())
}

/// The frame behind it, between two that have [`Features::SESSION_TOKEN`].
pub(super) fn token(version: Version, token: u64) -> Draft {
    let header = Header {
        version,
        command: Command::Token,
        // 8.
        len: TOKEN_LEN as u16,
        stream: 0,
    };
    Draft::with(&header.to_bytes(), &token.to_le_bytes())
}

/// The frame that only keeps the session alive.
pub(super) fn nop(version: Version) -> Draft {
    let nop = Header {
        version,
        command: Command::Nop,
        len: 0,
        stream: 0,
    };
    Draft::control(&nop.to_bytes())
}
