//! Whose turn it is: which stream sends the next frame.
//!
//! The manner is that of FQ-CoDel's scheduler (RFC 8290, section 4; what it does about delay, section 4.2, has no
//! place here): deficit round robin by bytes, in which queues that were empty go before those with a backlog. Three
//! lanes, served in this order:
//!
//! | lane | streams in it |
//! |---|---|
//! | control | have a frame without data to send (`UPD`, private reset, `FIN`): a few bytes that somebody may wait for |
//! | sparse | have data, and credit of the present round left: the RFC's new queues |
//! | bulk | used their credit up and have more to send: the RFC's old queues |
//!
//! A round is one turn of each stream in the bulk lane. Every stream has credit for one full frame a round, in
//! whichever lane it spends it, and what it overdraws is taken off its next credit. So a stream that looks new all the
//! time gets no more than the others: once its credit is used up it waits in the bulk lane, and leaves it only by
//! sending all it has. The RFC reaches the same by keeping a queue that ran empty in the old list for a round (section
//! 4.1); with credit that belongs to a round, the second small message of a round need not wait for a turn.
//!
//! What is left is a crowd: many streams with a little each, or new streams without end. Of every
//! [`CROWD`]` + 1` bytes of data, one at least is left to the bulk lane.

use crate::list::Lists;
use fulmar_wire::smux::HEADER_LEN;

/// While the bulk lane waits, the sparse lane gets so many bytes for each of its: 256 KiB between two full frames of the
/// default size. It only counts when sparse streams alone want more than the link carries.
const CROWD: u32 = 32;

/// Where a stream waits.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Lane {
    Control,
    Sparse,
    Bulk,
}

/// What the schedule knows of one stream.
#[derive(Debug)]
pub(super) struct Turn {
    /// Bytes that it may still send in `round`, headers included; overdrawn by less than a frame.
    credit: i32,
    /// The round that the credit is of. It wraps, and then a stream goes without new credit for one round.
    round: u32,
    pub(super) lane: Option<Lane>,
    /// It was in the bulk lane and has not sent all it has since.
    backlogged: bool,
}

impl Turn {
    /// A new stream: the first of its data finds fresh credit.
    pub(super) const fn new() -> Self {
        Self {
            credit: 0,
            round: 0,
            lane: None,
            backlogged: false,
        }
    }
}

#[derive(Debug)]
pub(super) struct Schedule {
    lanes: Lists<3>,
    /// Credit of a stream for one round, bytes: a full frame.
    quantum: i32,
    round: u32,
    /// How far the sparse lane is ahead of [`CROWD`] times the bulk lane, bytes.
    ahead: u32,
}

impl Schedule {
    pub(super) const fn new(max_frame: u32) -> Self {
        Self {
            lanes: Lists::new(),
            // No more than 65543.
            quantum: (max_frame + HEADER_LEN as u32).cast_signed(),
            // Not that of new streams.
            round: 1,
            ahead: 0,
        }
    }

    /// Whether no stream waits.
    pub(super) const fn is_empty(&self) -> bool {
        self.lanes.is_empty(Lane::Control as usize)
            && self.lanes.is_empty(Lane::Sparse as usize)
            && self.lanes.is_empty(Lane::Bulk as usize)
    }

    pub(super) fn contains(&self, slot: u32) -> bool {
        self.lanes.contains(slot)
    }

    /// The stream to send the next frame.
    pub(super) fn front(&self) -> Option<u32> {
        if let Some(slot) = self.lanes.front(Lane::Control as usize) {
            return Some(slot);
        }
        let sparse = self.lanes.front(Lane::Sparse as usize);
        let bulk = self.lanes.front(Lane::Bulk as usize);
        if bulk.is_some() && self.ahead >= CROWD * self.quantum.unsigned_abs() {
            return bulk;
        }
        sparse.or(bulk)
    }

    /// The stream has a frame without data to send. It comes back with the turn in this round that it still has, if it
    /// has one, before the others.
    pub(super) fn enter_control(&mut self, slot: u32, turn: &mut Turn) {
        if turn.lane != Some(Lane::Control) {
            self.leave(slot, turn);
            self.lanes.push_back(Lane::Control as usize, slot);
            turn.lane = Some(Lane::Control);
        }
    }

    /// The stream has data to send, or its `SYN`; nothing happens if it waits for that already.
    pub(super) fn enter_data(&mut self, slot: u32, turn: &mut Turn) {
        if matches!(turn.lane, Some(Lane::Sparse | Lane::Bulk)) {
            return;
        }
        let returns = turn.lane == Some(Lane::Control);
        self.leave(slot, turn);
        if turn.round != self.round {
            self.renew(turn);
        }
        // Who has credit in the bulk lane has not had its turn in this round, and those stand before those who had.
        let (lane, first) = if turn.credit > 0 && !turn.backlogged {
            (Lane::Sparse, returns)
        } else {
            turn.backlogged = true;
            (Lane::Bulk, turn.credit > 0)
        };
        if first {
            self.lanes.push_front(lane as usize, slot);
        } else {
            self.lanes.push_back(lane as usize, slot);
        }
        turn.lane = Some(lane);
    }

    /// The stream has nothing to send.
    pub(super) fn leave(&mut self, slot: u32, turn: &mut Turn) {
        if let Some(lane) = turn.lane.take() {
            self.lanes.remove(lane as usize, slot);
        }
    }

    /// The stream at the [`front`](Self::front) sent a frame of so many bytes. It leaves if it is `drained`, that is, has
    /// no more data; else it stays in a lane until something else is told.
    pub(super) fn charge(&mut self, slot: u32, turn: &mut Turn, bytes: usize, drained: bool) {
        // A frame, which has no more than 65543.
        let bytes = bytes as u32;
        let bulk = turn.lane == Some(Lane::Bulk);
        if bulk {
            if turn.credit <= 0 {
                if turn.round == self.round {
                    // It had its turn, and so had all behind it.
                    self.round = self.round.wrapping_add(1);
                }
                self.renew(turn);
            }
            self.ahead = self.ahead.saturating_sub(CROWD * bytes);
        } else if self.lanes.is_empty(Lane::Bulk as usize) {
            self.ahead = 0;
        } else {
            self.ahead += bytes;
        }
        turn.credit -= bytes.cast_signed();
        let spent = turn.credit <= 0;
        turn.backlogged = !drained && (turn.backlogged || spent);
        if drained {
            self.leave(slot, turn);
        } else if spent && bulk {
            self.lanes.rotate(Lane::Bulk as usize, slot);
        } else if spent {
            self.leave(slot, turn);
            self.lanes.push_back(Lane::Bulk as usize, slot);
            turn.lane = Some(Lane::Bulk);
        }
    }

    /// Credit for the present round. What was not used of an earlier one is lost, what was overdrawn is not.
    fn renew(&self, turn: &mut Turn) {
        // More than nothing: it is overdrawn by less than a full frame.
        turn.credit = turn.credit.min(0) + self.quantum;
        turn.round = self.round;
    }

    /// Gives the memory of slots from `end` on back, none of which may wait.
    pub(super) fn shrink(&mut self, end: u32) {
        self.lanes.shrink(end);
    }
}
