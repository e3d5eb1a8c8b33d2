//! Time: keep-alive (docs/spec/kcptun.md, section 9.6), held ends, and closed streams that cannot get rid of their bytes.

use super::{Mux, Peer, Role};
use crate::Error;
use crate::event::ResetReason;
use crate::machine::stream::{Holder, Outbound};
use fulmar_wire::time::Instant;

impl Mux {
    /// Sends a keep-alive with the next frames. Whoever answers it at the layer below is alive: a way to find out sooner
    /// than the regular ones do.
    pub const fn ping(&mut self) {
        self.nop_due = true;
    }

    /// When [`handle_timeout`](Self::handle_timeout) has to be called, `None` when the session is over.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.over.is_some() {
            return None;
        }
        let session = self.nop_at.min(self.check_at);
        Some(match self.timers.first() {
            Some(&(at, _)) => session.min(at),
            None => session,
        })
    }

    /// Does what is due at `now`; calling it early does no harm.
    ///
    /// # Errors
    /// [`Error::PeerSilent`] when no frame arrived since the last check, which happens every
    /// [`keepalive_timeout`](super::Config::keepalive_timeout) and is passed over while
    /// [`wants_input`](Self::wants_input) says no; with a peer that has given a token, when none arrived for
    /// [`token_timeout`](super::Config::token_timeout). When the session is over, why.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        if let Some(error) = self.over {
            return Err(error);
        }
        if now >= self.check_at {
            self.check_silence(now)?;
        }
        if now >= self.nop_at {
            self.keep_alive(now);
        }
        while let Some(&(at, slot)) = self.timers.first() {
            if at > now {
                break;
            }
            self.set_timer(slot, None);
            self.on_timer(slot, now);
        }
        Ok(())
    }

    fn check_silence(&mut self, now: Instant) -> Result<(), Error> {
        let every = self.patience();
        let mut heard = core::mem::take(&mut self.heard_since_check);
        self.check_at = next_tick(self.check_at, now, every);
        if self.exchanges_tokens() {
            // To the second: both ends count, and one that gives up early breaks connections for nothing.
            let due = self.heard_at + every;
            heard = due > now;
            if heard {
                self.check_at = due;
            }
        }
        if !heard && self.wants_input() {
            return self.fail(Error::PeerSilent);
        }
        Ok(())
    }

    fn keep_alive(&mut self, now: Instant) {
        // Any frame is a sign of life, so one is only made up when there was none for the whole interval.
        let due = self.emitted_at + self.config.keepalive;
        if due > now {
            self.nop_at = due;
        } else {
            self.nop_at = now + self.config.keepalive;
            // An acceptor's first frame answers the opener's.
            self.nop_due = self.heard || self.config.role == Role::Opener;
        }
        self.trim();
    }

    /// Gives back the memory that was not needed since the last call; the session does it by itself with every
    /// [`keepalive`](super::Config::keepalive). Called twice, nothing is kept for the next burst.
    pub fn trim(&mut self) {
        self.outbox.trim();
        self.inbox.trim();
        let end = self.streams.shrink();
        self.schedule.shrink(end);
        self.changed.shrink(end);
        self.arrivals.shrink(end);
    }

    fn on_timer(&mut self, slot: u32, now: Instant) {
        let roomy = self.wants_input();
        let yamux = self.terms().yamux;
        let Some(stream) = self.streams.at_mut(slot) else {
            return;
        };
        if stream.holder != Holder::Nobody {
            let quiet_at = stream.moved_at() + self.config.fin_hold;
            if !stream.unsent.is_empty() || !stream.unread.is_empty() || !roomy {
                // The request is not sent, or the answer is not read, or it could not come in.
                self.set_timer(slot, Some(now + self.config.fin_hold));
            } else if quiet_at > now {
                self.set_timer(slot, Some(quiet_at));
            } else {
                self.release_fin(slot);
                self.refresh(slot);
            }
        } else if !stream.unsent.is_empty() {
            let patient_until = stream.sent_at + self.config.linger;
            if patient_until > now {
                self.set_timer(slot, Some(patient_until));
            } else if self.schedule.contains(slot) {
                // Not the peer's window but the layer below holds it up, and has its own ways to give up.
                self.set_timer(slot, Some(now + self.config.linger));
            } else {
                stream.outbound = Outbound::Cut;
                stream.reset_due = Some(ResetReason::TIMEOUT);
                self.counters.lingers_cut += 1;
                self.drop_unsent(slot);
                self.refresh(slot);
            }
        } else if yamux && self.schedule.contains(slot) {
            self.set_timer(slot, Some(now + self.config.linger));
        } else if yamux && self.peer.half_close() {
            // The peer neither ends nor sends; it may have forgotten the stream.
            stream.reset_due = Some(ResetReason::CLOSED);
            self.refresh(slot);
        } else if yamux {
            // It may not have read everything yet, and would not after a reset.
            self.forget(slot);
        }
    }

    /// Holds the `FIN` of a finishing stream back: until the peer is known, or for `fin_hold` from now.
    pub(super) fn hold_fin(&mut self, slot: u32, now: Instant) {
        let hold = self.config.fin_hold;
        let plain = self.peer == Peer::Plain;
        let Some(stream) = self.streams.at_mut(slot) else {
            return;
        };
        if plain && hold.is_zero() {
            stream.fin_held = false;
            return;
        }
        if !core::mem::replace(&mut stream.fin_held, true) {
            self.counters.fins_held += 1;
        }
        if plain {
            self.set_timer(slot, Some(now + hold));
        }
    }

    /// Lets a held `FIN` go.
    pub(super) fn release_fin(&mut self, slot: u32) {
        if let Some(stream) = self.streams.at_mut(slot)
            && core::mem::take(&mut stream.fin_held)
        {
            self.set_timer(slot, None);
        }
    }

    pub(super) fn set_timer(&mut self, slot: u32, at: Option<Instant>) {
        let Some(stream) = self.streams.at_mut(slot) else {
            return;
        };
        if let Some(old) = core::mem::replace(&mut stream.timer, at) {
            self.timers.remove(&(old, slot));
        }
        if let Some(at) = at {
            self.timers.insert((at, slot));
        }
    }
}

/// The first tick after `now`, of ticks `every` apart of which `tick` is one. After a long pause the rhythm starts
/// anew.
fn next_tick(tick: Instant, now: Instant, every: core::time::Duration) -> Instant {
    let next = tick + every;
    if next > now { next } else { now + every }
}
