//! yamux's frames (docs/spec/kcptun2016.md, section 9): what each that arrives means, and how what is to be said is written.
//!
//! # Peers of 2016
//! They die of an `ACK` when no stream of theirs waits for one, end the session at a second `FIN`, and keep a token for each stream that they
//! open until its `ACK` comes: 256 of those, and they open no more. A reset gives it back only if they have not closed the stream meanwhile. So an accepted
//! stream gets one `ACK`, before anything else is said of it, a refusal too; none is sent for streams that we open; and every frame of ours
//! has one flag at most.

use std::collections::VecDeque;

use super::input::Expect;
use super::output::{Draft, Say};
use super::{Config, Mux, Role};
use crate::Error;
use crate::event::{Peer, ResetReason};
use crate::machine::stream::{Flow, Inbound};
use fulmar_wire::smux::Features;
use fulmar_wire::time::Instant;
use fulmar_wire::yamux::{Flags, Header, Hello, INITIAL_WINDOW, ParseError, Type};

/// Answers to pings that wait for room. Who asks more often gets no answer to some.
const MAX_ANSWERS: usize = 16;

/// Codes of the last frame (section 9). After 0, which is no fault, an old peer keeps the session and its streams.
const PROTOCOL_ERROR: u32 = 1;
const INTERNAL_ERROR: u32 = 2;

/// What a session has beside the machine's.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Values of pings to be answered.
    answers: VecDeque<u32>,
    /// The value of our next ping.
    next_ping: u32,
    /// The peer takes no new streams.
    pub(super) peer_goes_away: bool,
    /// The code of our last frame, while it waits.
    farewell: Option<u32>,
}

impl State {
    pub(super) fn owes_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Whether nothing waits to be said.
    pub(super) fn is_restful(&self) -> bool {
        self.answers.is_empty() && self.farewell.is_none()
    }

    /// The next answer.
    pub(super) fn answer(&mut self) -> Option<Draft> {
        let value = self.answers.pop_front()?;
        Some(Draft::control(&Header::ping(Flags::ACK, value).to_bytes()))
    }

    /// The last frame, if there is to be one.
    pub(super) fn farewell(&mut self) -> Option<Draft> {
        let header = Header {
            kind: Type::GoAway,
            flags: Flags::NONE,
            stream: 0,
            length: self.farewell.take()?,
        };
        Some(Draft::control(&header.to_bytes()))
    }

    pub(super) const fn owes_farewell(&self) -> bool {
        self.farewell.is_some()
    }

    /// A ping of ours.
    pub(super) fn ping(&mut self) -> Draft {
        let value = self.next_ping;
        self.next_ping = (value + 1) % Hello::BEYOND_PINGS;
        Draft::control(&Header::ping(Flags::SYN, value).to_bytes())
    }
}

impl Mux {
    /// The session ends here: the next frame says so, if there is a word for that and somebody has spoken, and then there are none. `fault`:
    /// because of what the peer did. A peer of 2016 ends the session when it hears it, with every stream, and its next one opens another.
    /// Whether there is such a frame.
    pub fn farewell(&mut self, fault: bool) -> bool {
        let nobody_listens = matches!(self.over, Some(Error::GoneAway(_) | Error::PeerSilent));
        if !self.terms().yamux || !self.heard || nobody_listens {
            return false;
        }
        self.yamux.farewell = Some(if fault {
            PROTOCOL_ERROR
        } else {
            INTERNAL_ERROR
        });
        true
    }

    /// A header has arrived.
    pub(super) fn on_yamux(&mut self, now: Instant, bytes: &[u8]) -> Result<(), Error> {
        let header = match Header::parse(bytes) {
            Ok(header) => header,
            // It is complete.
            Err(ParseError::Short) => return Ok(()),
            Err(e) => return self.fail(Error::BadFrame(e)),
        };
        self.counters.frames_received += 1;
        self.heard = true;
        self.heard_since_check = true;
        self.heard_at = now;
        let hello = Hello::parse(&header);
        if self.peer == Peer::Unknown && self.config.role == Role::Acceptor {
            let theirs = hello.filter(|hello| !hello.answer);
            self.meet(now, theirs.map(|hello| hello.features));
        }
        match header.kind {
            Type::Data | Type::WindowUpdate => self.on_stream(now, &header),
            Type::Ping => {
                self.on_ping(now, &header, hello);
                Ok(())
            }
            Type::GoAway => {
                self.yamux.peer_goes_away = true;
                match header.length {
                    0 => Ok(()),
                    code => self.fail(Error::GoneAway(code)),
                }
            }
            Type::Token if self.exchanges_tokens() => {
                let token = u64::from(header.stream) << 32 | u64::from(header.length);
                self.peer_token.get_or_insert(token);
                Ok(())
            }
            Type::Token => self.fail(Error::BadFrame(ParseError::Type(header.kind.number()))),
        }
    }

    fn on_ping(&mut self, now: Instant, header: &Header, hello: Option<Hello>) {
        self.counters.nops_received += 1;
        let undecided = self.peer == Peer::Unknown;
        if header.flags.has(Flags::SYN) {
            if let Some(hello) = hello.filter(|hello| hello.answer && undecided) {
                self.meet(now, Some(hello.features));
            }
            if self.yamux.answers.len() < MAX_ANSWERS {
                self.yamux.answers.push_back(header.length);
            }
        } else if undecided && header.length == first_hello(self.config.features).value() {
            // Our hello was answered as every ping is, and no other stood before that.
            self.meet(now, None);
        }
    }

    fn on_stream(&mut self, now: Instant, header: &Header) -> Result<(), Error> {
        let (wire, flags) = (header.stream, header.flags);
        if flags.has(Flags::SYN) {
            if self.config.role == Role::Opener {
                self.counters.syns_ignored += 1;
            } else if wire % 2 == 0 || self.find(wire).is_some() {
                return self.fail(Error::BadStream { stream: wire });
            } else {
                self.on_syn(now, wire)?;
            }
        }
        let Some(slot) = self.find_or_count(wire) else {
            if header.kind == Type::Data && header.length > 0 {
                self.parser.expect = Expect::Bytes(None, header.length as usize);
            }
            return Ok(());
        };
        match header.kind {
            Type::WindowUpdate => {
                self.on_credit(slot, header.length);
                if flags.has(Flags::FIN) {
                    self.on_fin(wire);
                }
            }
            _ if header.length > 0 => {
                self.on_data(slot, header)?;
                self.parser.ends = flags.has(Flags::FIN).then_some(wire);
            }
            _ => {
                self.counters.empty_frames += u64::from(flags == Flags::NONE);
                if flags.has(Flags::FIN) {
                    self.on_fin(wire);
                }
            }
        }
        if flags.has(Flags::RST) {
            self.counters.resets_received += 1;
            self.on_cut(slot, ResetReason::ABORTED);
        }
        Ok(())
    }

    fn on_credit(&mut self, slot: u32, credit: u32) {
        self.counters.updates_received += 1;
        if let Some(stream) = self.streams.at_mut(slot)
            && let Flow::Credit(left) = &mut stream.flow
        {
            *left = left.saturating_add(credit);
        }
        self.refresh(slot);
    }

    fn on_data(&mut self, slot: u32, header: &Header) -> Result<(), Error> {
        let mut target = None;
        if let Some(stream) = self.streams.at_mut(slot) {
            match stream.inbound {
                Inbound::Open => {
                    let held = stream.unread.len() as u64 + u64::from(stream.read_untold);
                    let unread = held + u64::from(header.length);
                    if unread > u64::from(self.config.stream_buffer) {
                        return self.fail(Error::WindowOverrun {
                            stream: header.stream,
                            unread,
                        });
                    }
                    target = self.streams.key(slot);
                }
                // Nobody reads here any more, and the peer goes on: it is told once. One of 2016 would throw away what it has not read
                // yet; it ends by itself when it has.
                Inbound::Discarded if self.peer.half_close() => {
                    stream.reset_due.get_or_insert(ResetReason::ABORTED);
                    self.refresh(slot);
                }
                Inbound::Discarded | Inbound::Finished | Inbound::Reset(_) => {}
            }
        }
        self.parser.expect = Expect::Bytes(target, header.length as usize);
        Ok(())
    }
}

/// The frame that says it.
pub(super) fn draft(config: &Config, wire: u32, say: Say) -> Draft {
    let (kind, flags, length) = match say {
        Say::Open => {
            let flag = match config.role {
                Role::Opener => Flags::SYN,
                Role::Acceptor => Flags::ACK,
            };
            let beyond = config.stream_buffer.saturating_sub(INITIAL_WINDOW);
            (Type::WindowUpdate, flag, beyond)
        }
        Say::Update { credit, .. } => (Type::WindowUpdate, Flags::NONE, credit),
        // No more than `max_frame`, which fits.
        Say::Data(n) => (Type::Data, Flags::NONE, n as u32),
        Say::End => (Type::WindowUpdate, Flags::FIN, 0),
        Say::Cut(_) => (Type::WindowUpdate, Flags::RST, 0),
    };
    let header = Header {
        kind,
        flags,
        stream: wire,
        length,
    };
    Draft::control(&header.to_bytes())
}

/// The ping by which a Fulmar end tells what it is.
pub(super) fn hello(role: Role, features: Features) -> Draft {
    let hello = Hello {
        answer: role == Role::Acceptor,
        features,
    };
    Draft::control(&Header::ping(Flags::SYN, hello.value()).to_bytes())
}

/// The frame behind it, between two that have [`Features::SESSION_TOKEN`].
pub(super) fn token(token: u64) -> Draft {
    Draft::control(&Header::token(token).to_bytes())
}

/// That of the opener.
const fn first_hello(features: Features) -> Hello {
    Hello {
        answer: false,
        features,
    }
}
