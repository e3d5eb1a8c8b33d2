//! What has been given to send: queued, numbered, in flight (docs/spec/kcptun.md, sections 7.3 to 7.6).
//!
//! One ring, indexed by segment number, holds everything between `una` and `end`:
//!
//! ```text
//!   una ............. unsent ............. nxt .............. end
//!    | sent, some acked |  numbered, not sent  |  not yet numbered |
//! ```
//!
//! Upstream scans all of `una..nxt` on every acknowledgement and every flush. Here nothing is scanned, and cost follows
//! what changed:
//!
//! * Segments sent once and unacknowledged are threaded on the list `fresh`, in order.
//! * How often a segment sent once was skipped (acknowledgements of later ones, "fast-ack") is not stored in it. As such an
//!   acknowledgement counts for *all* earlier segments, the counts never rise along the ring, and [`Skips`] keeps the few places where they fall.
//! * Segments sent again after a timeout are counted one by one, on the list `again` in order of that transmission; an
//!   acknowledgement looks only at those that left before what it echoes. Once counted to the threshold they move to the list `skipped`.
//! * After a fast or early retransmission a segment does not count again until its next timeout: it is `Settled`, on no list.
//! * Timeouts are in [`Deadlines`].
//!
//! A strategy that finds losses by time ([`SenderControl::skip_threshold`](crate::SenderControl::skip_threshold) is `None`) needs
//! neither counts nor timeouts of segments: what was sent again is on the list `resent`, in order of that transmission, until it is acknowledged, and
//! what is overdue stands at the heads of `fresh` and `resent`.

use fulmar_wire::kcp::HEADER_LEN;
use fulmar_wire::seq::Seq;
use fulmar_wire::time::Millis;

use crate::deadlines::Deadlines;
use crate::skips::Skips;
use crate::slab::Slab;

/// No neighbour.
const NIL: u32 = u32::MAX;
/// Places of the first ring: a conversation at rest sends one segment now and then, and there may be thousands of those.
const FIRST_RING: usize = 8;
/// A segment that shares a datagram with an ended one has at least so many bytes; else it gets a datagram of its own.
const SHARED: usize = 16;
/// How many segments of the lists `again` and `skipped` one datagram may make us look at. Far above what an honest
/// datagram needs; it bounds what a hostile one costs.
pub(crate) const LOOK_BUDGET: u32 = 4096;

/// How a segment stands. See the module.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// Queued or numbered.
    Unsent,
    /// Sent once. On the list `fresh` until acknowledged.
    Fresh,
    /// Sent again by its timeout. On the list `again`, acknowledged or not.
    Again,
    /// The same, and counted to the threshold. On the list `skipped`, acknowledged or not.
    Skipped,
    /// Sent again by acknowledgements.
    Settled,
    /// Sent again where nothing is counted. On the list `resent` until acknowledged.
    Resent,
}

#[derive(Copy, Clone, Debug)]
pub(crate) struct Segment {
    /// When it times out, in milliseconds since the caller's epoch.
    pub(crate) due: u64,
    /// Last transmission.
    pub(crate) sent: Millis,
    /// What it waits until it times out, in milliseconds.
    pub(crate) waits: u32,
    pub(crate) transmissions: u32,
    slot: u32,
    prev: u32,
    next: u32,
    len: u16,
    /// Fragments of its message that follow; 0 in stream mode.
    pub(crate) frg: u8,
    /// Acknowledgements of later segments, in the states `Again` and `Skipped`.
    count: u8,
    pub(crate) state: State,
    pub(crate) acked: bool,
    /// All of its bytes belong to sparse flows.
    pub(crate) sparse: bool,
    /// Already in `candidates`.
    listed: bool,
}

const VACANT: Segment = Segment {
    due: 0,
    sent: Millis(0),
    waits: 0,
    transmissions: 0,
    slot: 0,
    prev: NIL,
    next: NIL,
    len: 0,
    frg: 0,
    count: 0,
    state: State::Unsent,
    acked: false,
    sparse: false,
    listed: false,
};

/// Ends of a list that is threaded through the ring.
#[derive(Copy, Clone, Debug)]
struct List {
    head: u32,
    tail: u32,
}

impl List {
    const EMPTY: Self = Self {
        head: NIL,
        tail: NIL,
    };
}

/// What [`SendBuffer::acknowledge_before`] and [`SendBuffer::acknowledge`] tell of each delivered segment.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Done {
    pub(crate) sn: Seq,
    pub(crate) len: usize,
    pub(crate) sent: Millis,
    pub(crate) transmissions: u32,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct SendBuffer {
    ring: Vec<Segment>,
    slab: Slab,
    mss: usize,
    /// The largest [`Self::mss`] that slots have room for.
    most: usize,
    una: Seq,
    unsent: Seq,
    nxt: Seq,
    end: Seq,
    /// The last queued segment is not to be filled up.
    ended: bool,
    /// Bytes that the last queued segment can hold.
    capacity: usize,
    /// First segment of the message that is being pushed, in message mode.
    message: Seq,
    /// The first message has not ended.
    first_message: bool,
    /// Most fragments of a message; 0 in stream mode.
    max_fragments: u8,
    in_flight: u32,
    fresh: List,
    again: List,
    skipped: List,
    resent: List,
    /// Acknowledgements of later segments are counted, and segments time out one by one.
    counting: bool,
    skips: Skips,
    /// No segment before it, from `una` on, is `Fresh`.
    first_fresh: Seq,
    /// Segments counted one by one for which a count speaks; each at most once.
    candidates: Vec<Seq>,
    pub(crate) deadlines: Deadlines,
    budget: u32,
}

impl SendBuffer {
    /// `max_fragments`: see [`crate::Config`]; `threshold`: see
    /// [`SenderControl::skip_threshold`](crate::SenderControl::skip_threshold).
    pub(crate) fn new(first: Seq, mss: usize, max_fragments: u8, threshold: Option<u32>) -> Self {
        Self {
            ring: Vec::new(),
            slab: Slab::new(mss.next_multiple_of(64)),
            mss,
            most: mss,
            una: first,
            unsent: first,
            nxt: first,
            end: first,
            ended: false,
            capacity: mss,
            message: first,
            first_message: true,
            max_fragments,
            in_flight: 0,
            fresh: List::EMPTY,
            again: List::EMPTY,
            skipped: List::EMPTY,
            resent: List::EMPTY,
            counting: threshold.is_some(),
            skips: Skips::new(threshold.unwrap_or(1).min(255), first),
            first_fresh: first,
            candidates: Vec::new(),
            deadlines: Deadlines::default(),
            budget: LOOK_BUDGET,
        }
    }

    pub(crate) const fn una(&self) -> Seq {
        self.una
    }

    /// First segment that was never sent.
    pub(crate) const fn unsent(&self) -> Seq {
        self.unsent
    }

    pub(crate) const fn nxt(&self) -> Seq {
        self.nxt
    }

    /// Segments sent and unacknowledged.
    pub(crate) const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// `snd_nxt - snd_una`.
    #[inline]
    pub(crate) fn outstanding(&self) -> u32 {
        self.nxt.0.wrapping_sub(self.una.0)
    }

    /// One past the last queued segment.
    pub(crate) const fn end(&self) -> Seq {
        self.end
    }

    /// Segments that were never sent, with a number or without.
    #[inline]
    pub(crate) fn not_sent(&self) -> u32 {
        self.end.0.wrapping_sub(self.unsent.0)
    }

    /// Segments without a number.
    #[inline]
    pub(crate) fn queued(&self) -> u32 {
        self.end.0.wrapping_sub(self.nxt.0)
    }

    /// Whether the last queued segment takes what is pushed next.
    #[inline]
    fn has_open_end(&self) -> bool {
        self.queued() > 0 && !self.ended && {
            let last = &self.ring[self.at(self.end.plus(u32::MAX))];
            usize::from(last.len) < self.capacity
        }
    }

    /// Everything between `una` and the end of the queue.
    #[inline]
    pub(crate) fn waiting(&self) -> u32 {
        self.end.0.wrapping_sub(self.una.0)
    }

    /// The last queued segment stays as it is: the next bytes begin another one, which is no longer than what the datagram
    /// of the former still has room for.
    pub(crate) const fn end_segment(&mut self) {
        self.ended = true;
    }

    /// In message mode, a message may end here (docs/spec/kcptun2016.md, section 6): it does if it is the first one, which stands alone, or
    /// longer than a segment; then its segments count down to 0, and the next bytes begin another one. What is shorter is joined by what
    /// follows, as each message takes a segment at least; a segment that leaves before that is a message by itself. More
    /// segments than the other end may have room for are several messages.
    pub(crate) fn end_message(&mut self) {
        if self.max_fragments == 0 {
            return;
        }
        if self.message.before(self.unsent) {
            self.message = self.unsent;
        }
        let pushed = self.end.0.wrapping_sub(self.message.0);
        if pushed == 0 || pushed == 1 && !self.first_message {
            return;
        }
        let (mut sn, mut frg) = (self.end, 0);
        while sn != self.message {
            sn = Seq(sn.0.wrapping_sub(1));
            let at = self.at(sn);
            self.ring[at].frg = frg;
            frg = (frg + 1) % self.max_fragments;
        }
        self.message = self.end;
        self.first_message = false;
        self.ended = true;
    }

    /// In message mode, the first message has left long ago.
    pub(crate) const fn first_message_is_over(&mut self) {
        self.first_message = false;
    }

    /// Largest payload of a segment from now on, at most what this was built for. What has not been sent is cut anew.
    #[cold]
    pub(crate) fn set_mss(&mut self, mss: usize) {
        let smaller = mss < self.mss;
        self.mss = mss.clamp(1, self.most);
        self.capacity = self.capacity.min(self.mss);
        if !smaller || self.unsent == self.end {
            return;
        }
        // In stream mode all of it is one piece, else each message. What is left of one that was sent in part counts down as a whole one
        // does: receivers look for the end, not for a number.
        let mut bytes = Vec::new();
        let mut pieces = Vec::new();
        let mut sn = self.unsent;
        while sn != self.end {
            let segment = self.ring[self.at(sn)];
            bytes.extend_from_slice(self.slab.bytes(segment.slot, usize::from(segment.len)));
            self.slab.free(segment.slot);
            if self.max_fragments > 0 && segment.frg == 0 {
                pieces.push(bytes.len());
            }
            sn = sn.next();
        }
        self.nxt = self.unsent;
        self.end = self.unsent;
        self.message = self.unsent;
        self.ended = false;
        let mut from = 0;
        for to in pieces {
            self.push(&bytes[from..to], false);
            self.end_message();
            from = to;
        }
        self.push(&bytes[from..], false);
    }

    /// Payload bytes of a full segment.
    pub(crate) const fn mss(&self) -> usize {
        self.mss
    }

    /// Appends bytes: first to the last queued segment if that is short and was not ended, then as new ones. A segment is
    /// sparse if all that is in it was pushed as such.
    pub(crate) fn push(&mut self, mut data: &[u8], sparse: bool) {
        if data.is_empty() {
            return;
        }
        let ended = std::mem::take(&mut self.ended);
        let mut capacity = self.mss;
        if self.queued() > 0 {
            let at = self.at(self.end.plus(u32::MAX));
            let segment = &mut self.ring[at];
            let len = usize::from(segment.len);
            if !ended {
                let (now, later) = data.split_at(data.len().min(self.capacity.saturating_sub(len)));
                self.slab.slot_mut(segment.slot)[len..len + now.len()].copy_from_slice(now);
                segment.len = length(len + now.len());
                segment.sparse &= sparse || now.is_empty();
                data = later;
            } else if self.capacity == self.mss {
                // Both in one datagram, and that full: datagrams of one size leave the machine in one call.
                capacity = match self.mss.checked_sub(len + HEADER_LEN) {
                    Some(left) if left >= SHARED => left,
                    _ => self.mss,
                };
            }
        }
        while !data.is_empty() {
            let (now, later) = data.split_at(data.len().min(capacity));
            let slot = self.slab.alloc();
            self.slab.slot_mut(slot)[..now.len()].copy_from_slice(now);
            if self.waiting() as usize >= self.ring.len() {
                self.grow();
            }
            let at = self.at(self.end);
            self.ring[at] = Segment {
                slot,
                len: length(now.len()),
                sparse,
                ..VACANT
            };
            self.end = self.end.next();
            self.capacity = std::mem::replace(&mut capacity, self.mss);
            data = later;
        }
    }

    /// Numbers queued segments while fewer than `window` are outstanding; whether there was any. `fills_up`: not the last one, if it
    /// is still to be filled up.
    #[inline]
    pub(crate) fn number(&mut self, window: u32, fills_up: bool) -> bool {
        let queued = self.queued() - u32::from(fills_up && self.has_open_end());
        let more = window.saturating_sub(self.outstanding()).min(queued);
        self.nxt = self.nxt.plus(more);
        more > 0
    }

    /// The payload of a segment that is not acknowledged.
    #[inline]
    pub(crate) fn payload(&self, sn: Seq) -> &[u8] {
        let segment = &self.ring[self.at(sn)];
        self.slab.bytes(segment.slot, usize::from(segment.len))
    }

    #[inline]
    pub(crate) fn get(&self, sn: Seq) -> &Segment {
        &self.ring[self.at(sn)]
    }

    /// Records that `sn`, numbered and unacknowledged, has been sent.
    #[inline]
    pub(crate) fn sent(&mut self, sn: Seq, state: State, now: Millis, due: u64, waits: u32) {
        let at = self.at(sn);
        match self.ring[at].state {
            State::Unsent => self.in_flight += 1,
            State::Fresh => self.unlink(at, Lists::Fresh),
            State::Again => self.unlink(at, Lists::Again),
            State::Skipped => self.unlink(at, Lists::Skipped),
            State::Resent => self.unlink(at, Lists::Resent),
            State::Settled => {}
        }
        let segment = &mut self.ring[at];
        segment.state = state;
        segment.sent = now;
        segment.due = due;
        segment.waits = waits;
        segment.count = 0;
        segment.transmissions = segment.transmissions.saturating_add(1);
        match state {
            State::Fresh => self.link(at, Lists::Fresh),
            State::Again => self.link(at, Lists::Again),
            State::Resent => self.link(at, Lists::Resent),
            State::Unsent | State::Skipped | State::Settled => {}
        }
        if sn == self.unsent {
            self.unsent = sn.next();
        }
        if self.counting {
            self.deadlines.set(sn, due);
        }
    }

    /// Everything before `una` has arrived. Whether that was news; `None` when `una` names what was never sent.
    #[inline]
    pub(crate) fn acknowledge_before(
        &mut self,
        una: Seq,
        mut done: impl FnMut(Done),
    ) -> Option<bool> {
        if self.unsent.before(una) {
            return None;
        }
        if !self.una.before(una) {
            return Some(false);
        }
        while self.una != una {
            let sn = self.una;
            let at = self.at(sn);
            let segment = self.ring[at];
            match segment.state {
                State::Fresh if !segment.acked => self.unlink(at, Lists::Fresh),
                State::Again => self.unlink(at, Lists::Again),
                State::Skipped => self.unlink(at, Lists::Skipped),
                State::Resent if !segment.acked => self.unlink(at, Lists::Resent),
                State::Unsent | State::Fresh | State::Settled | State::Resent => {}
            }
            if !segment.acked {
                self.finish(sn, segment, &mut done);
            }
            self.una = sn.next();
        }
        self.skips.forget_before(una);
        if self.first_fresh.before(una) {
            self.first_fresh = una;
        }
        if self.una == self.unsent {
            self.deadlines.clear();
            self.candidates.clear();
        }
        Some(true)
    }

    /// Segment `sn` has arrived. `false` when it was never sent.
    #[inline]
    pub(crate) fn acknowledge(&mut self, sn: Seq, mut done: impl FnMut(Done)) -> bool {
        if sn.before(self.una) {
            return true;
        }
        if !sn.before(self.unsent) {
            return false;
        }
        let at = self.at(sn);
        let segment = self.ring[at];
        if !segment.acked {
            match segment.state {
                State::Fresh => self.unlink(at, Lists::Fresh),
                State::Resent => self.unlink(at, Lists::Resent),
                _ => {}
            }
            self.ring[at].acked = true;
            self.finish(sn, segment, &mut done);
        }
        true
    }

    /// An acknowledgement of `sn`, in `una..unsent`, that echoes `ts`, counts for each earlier segment that left no later than
    /// that. Whether it brought any to the threshold or beyond. Segments that were acknowledged themselves take part,
    /// because upstream's decision to flush depends on them.
    #[inline]
    pub(crate) fn skip(&mut self, sn: Seq, ts: Millis) -> bool {
        if !self.counting || sn.before(self.una) || !sn.before(self.unsent) {
            return false;
        }
        let mut reached = false;
        let segment = &self.ring[self.at(sn)];
        // Earlier segments were sent for the first time earlier, so an honest echo of any transmission of `sn` covers all of them.
        if segment.state != State::Fresh || ts.diff(segment.sent) >= 0 {
            while self.first_fresh != self.unsent
                && self.ring[self.at(self.first_fresh)].state != State::Fresh
            {
                self.first_fresh = self.first_fresh.next();
            }
            if self.first_fresh.before(sn) {
                self.skips.add(sn);
                reached = self.skips.reached(self.first_fresh);
            }
        }
        if self.again.head != NIL {
            self.count_again(sn, ts);
        }
        if !reached && self.skipped.head != NIL {
            reached = self.was_skipped(sn, ts);
        }
        reached
    }

    /// Allows the next datagram its work. See [`LOOK_BUDGET`].
    #[inline]
    pub(crate) fn refill_budget(&mut self) {
        self.budget = LOOK_BUDGET;
    }

    /// How many acknowledgements of later segments count for `sn`, up to the threshold.
    #[inline]
    pub(crate) fn skips_of(&self, sn: Seq) -> u32 {
        let segment = self.get(sn);
        match segment.state {
            State::Fresh => self.skips.of(sn),
            State::Again | State::Skipped => u32::from(segment.count),
            State::Unsent | State::Settled | State::Resent => 0,
        }
    }

    /// Whether some unacknowledged segment has been skipped, so that the next flush may send it again.
    pub(crate) fn has_skipped(&self) -> bool {
        self.counting
            && (self.fresh.head != NIL && self.skips.of(self.sn_at(self.fresh.head)) > 0
                || !self.candidates.is_empty())
    }

    /// Collects into `work` what might have to be sent again at `now_ms`, in order, each once.
    ///
    /// `new_data`: this flush numbered segments, so less than the threshold will not do.
    /// `horizon`: everything that left at or before it is wanted as well.
    /// `limit`: no more than so many of those whose time is up, on each list; the others are found the next time.
    pub(crate) fn collect(
        &mut self,
        now_ms: u64,
        new_data: bool,
        horizon: Option<Millis>,
        limit: usize,
        work: &mut Vec<Seq>,
    ) {
        work.clear();
        let enough = if new_data {
            self.skips.threshold.max(1)
        } else {
            1
        };
        let mut at = self.fresh.head;
        while at != NIL {
            let sn = self.sn_at(at);
            let segment = &self.ring[at as usize];
            let overdue = horizon.is_some_and(|h| segment.sent.diff(h) <= 0);
            let skipped = self.counting && self.skips.of(sn) >= enough;
            if !skipped && !overdue || !self.counting && work.len() >= limit {
                break;
            }
            work.push(sn);
            at = segment.next;
        }
        if let Some(horizon) = horizon {
            let mut at = self.again.head;
            while at != NIL {
                let segment = &self.ring[at as usize];
                if segment.sent.diff(horizon) > 0 {
                    break;
                }
                if !segment.acked {
                    work.push(self.sn_at(at));
                }
                at = segment.next;
            }
            let mut at = self.resent.head;
            let most = work.len().saturating_add(limit);
            while at != NIL && work.len() < most {
                let segment = &self.ring[at as usize];
                if segment.sent.diff(horizon) > 0 {
                    break;
                }
                work.push(self.sn_at(at));
                at = segment.next;
            }
        }
        if !self.counting {
            let una = self.una;
            work.sort_unstable_by_key(|sn| sn.0.wrapping_sub(una.0));
            return;
        }
        let (una, ring) = (self.una, &mut self.ring);
        let mask = ring.len().wrapping_sub(1);
        self.candidates.retain(|&sn| {
            if sn.before(una) {
                return false;
            }
            let segment = &mut ring[sn.0 as usize & mask];
            segment.listed = !segment.acked && segment.count > 0;
            if segment.listed {
                work.push(sn);
            }
            segment.listed
        });
        let ring = &self.ring;
        self.deadlines.expire(
            now_ms,
            una,
            limit,
            |sn, due| alive(ring, sn, due),
            |sn| work.push(sn),
        );
        if work.len() > 1 {
            work.sort_unstable_by_key(|sn| sn.0.wrapping_sub(una.0));
            work.dedup();
        }
    }

    /// When the segment that was last sent longest ago was sent, where nothing is counted.
    #[inline]
    pub(crate) fn oldest_sent(&self) -> Option<Millis> {
        let sent = |head: u32| (head != NIL).then(|| self.ring[head as usize].sent);
        match (sent(self.fresh.head), sent(self.resent.head)) {
            (Some(a), Some(b)) => Some(if a.diff(b) <= 0 { a } else { b }),
            (a, b) => a.or(b),
        }
    }

    /// Of the segments at the ends of the lists the one with the highest number, where nothing is counted: one of the newest in flight.
    pub(crate) fn newest_in_flight(&self) -> Option<Seq> {
        let last = |tail: u32| (tail != NIL).then(|| self.sn_at(tail));
        match (last(self.fresh.tail), last(self.resent.tail)) {
            (Some(a), Some(b)) => Some(if a.before(b) { b } else { a }),
            (a, b) => a.or(b),
        }
    }

    /// Whether `sn` has been sent and not been acknowledged.
    #[inline]
    pub(crate) fn is_in_flight(&self, sn: Seq) -> bool {
        !sn.before(self.una) && sn.before(self.unsent) && !self.get(sn).acked
    }

    /// Puts back what [`Self::collect`] found and this flush could not send.
    pub(crate) fn put_back(&mut self, work: &[Seq]) {
        if !self.counting {
            // They are where they were, at the heads of their lists.
            return;
        }
        for &sn in work {
            let due = self.get(sn).due;
            self.deadlines.set(sn, due);
        }
        self.deadlines.close();
    }

    /// Gives `sn` a new timeout without sending it.
    pub(crate) fn postpone(&mut self, sn: Seq, due: u64) {
        let at = self.at(sn);
        self.ring[at].due = due;
        self.deadlines.set(sn, due);
    }

    /// Makes everything in flight due at `now`, as if it had never waited. Where nothing is counted, that is up to the caller.
    pub(crate) fn hasten(&mut self, now: u64) {
        if !self.counting {
            return;
        }
        let mut sn = self.una;
        while sn.before(self.unsent) {
            let at = self.at(sn);
            let segment = &mut self.ring[at];
            if !segment.acked {
                segment.due = now;
                segment.waits = 0;
                self.deadlines.set(sn, now);
            }
            sn = sn.next();
        }
        self.deadlines.close();
    }

    /// The earliest timeout, in milliseconds since the caller's epoch.
    #[inline]
    pub(crate) fn next_timeout(&mut self) -> Option<u64> {
        if self.in_flight == 0 || !self.counting {
            return None;
        }
        let (ring, una) = (&self.ring, self.una);
        self.deadlines.next(una, |sn, due| alive(ring, sn, due))
    }

    /// Ends the transmissions of a flush.
    pub(crate) fn settle(&mut self) {
        self.deadlines.close();
        let (ring, una) = (&self.ring, self.una);
        self.deadlines
            .tidy(self.in_flight as usize, una, |sn, due| alive(ring, sn, due));
    }

    /// Bytes of memory held.
    pub(crate) fn held_bytes(&self) -> usize {
        self.slab.held_bytes() + self.ring.capacity() * size_of::<Segment>()
    }

    /// Gives memory back if nothing is waiting.
    pub(crate) fn release(&mut self) {
        if self.waiting() == 0 {
            self.ring = Vec::new();
            self.candidates = Vec::new();
            self.slab.release();
            self.deadlines.release();
        }
    }

    /// Frees the payload of a segment that has arrived, and reports it.
    #[inline]
    fn finish(&mut self, sn: Seq, segment: Segment, done: &mut impl FnMut(Done)) {
        self.slab.free(segment.slot);
        self.in_flight -= 1;
        done(Done {
            sn,
            len: usize::from(segment.len),
            sent: segment.sent,
            transmissions: segment.transmissions,
        });
    }

    /// Counts one by one, on the list `again`.
    #[cold]
    fn count_again(&mut self, sn: Seq, ts: Millis) {
        let threshold = self.skips.threshold.max(1);
        let mut at = self.again.head;
        while at != NIL && self.budget > 0 {
            let segment = self.ring[at as usize];
            if segment.sent.diff(ts) > 0 {
                break;
            }
            self.budget -= 1;
            let own = self.sn_at(at);
            if own.before(sn) {
                let place = &mut self.ring[at as usize];
                place.count += 1;
                if u32::from(place.count) >= threshold {
                    place.state = State::Skipped;
                    self.unlink(at as usize, Lists::Again);
                    self.link(at as usize, Lists::Skipped);
                }
                let place = &mut self.ring[at as usize];
                if !place.acked && !place.listed {
                    place.listed = true;
                    self.candidates.push(own);
                }
            }
            at = segment.next;
        }
    }

    /// Whether a segment at the threshold is skipped once more.
    #[cold]
    fn was_skipped(&mut self, sn: Seq, ts: Millis) -> bool {
        let mut at = self.skipped.head;
        while at != NIL && self.budget > 0 {
            self.budget -= 1;
            let segment = &self.ring[at as usize];
            if self.sn_at(at).before(sn) && segment.sent.diff(ts) <= 0 {
                return true;
            }
            at = segment.next;
        }
        false
    }

    /// Where `sn` lies. The ring's length is a power of two, or 0 before anything was queued.
    #[inline]
    fn at(&self, sn: Seq) -> usize {
        sn.0 as usize & self.ring.len().wrapping_sub(1)
    }

    /// Which segment lies at `at`.
    #[inline]
    fn sn_at(&self, at: u32) -> Seq {
        let mask = u32::try_from(self.ring.len().wrapping_sub(1)).unwrap_or(u32::MAX);
        self.una.plus(at.wrapping_sub(self.una.0) & mask)
    }

    #[inline]
    fn list(&mut self, which: Lists) -> &mut List {
        match which {
            Lists::Fresh => &mut self.fresh,
            Lists::Again => &mut self.again,
            Lists::Skipped => &mut self.skipped,
            Lists::Resent => &mut self.resent,
        }
    }

    /// Appends to a list.
    #[inline]
    fn link(&mut self, at: usize, which: Lists) {
        let own = u32::try_from(at).unwrap_or(NIL);
        let list = self.list(which);
        let tail = std::mem::replace(&mut list.tail, own);
        if tail == NIL {
            list.head = own;
        }
        self.ring[at].prev = tail;
        self.ring[at].next = NIL;
        if tail != NIL {
            self.ring[tail as usize].next = own;
        }
    }

    #[inline]
    fn unlink(&mut self, at: usize, which: Lists) {
        let Segment { prev, next, .. } = self.ring[at];
        if prev == NIL {
            self.list(which).head = next;
        } else {
            self.ring[prev as usize].next = next;
        }
        if next == NIL {
            self.list(which).tail = prev;
        } else {
            self.ring[next as usize].prev = prev;
        }
    }

    #[cold]
    fn grow(&mut self) {
        let old = self.ring.len();
        let len = (2 * old).max(FIRST_RING);
        let mut ring = vec![VACANT; len];
        let una = self.una;
        // Where the neighbour at `at` of the old ring will be.
        let moved = |at: u32| {
            if at == NIL {
                return NIL;
            }
            let mask = u32::try_from(old.wrapping_sub(1)).unwrap_or(u32::MAX);
            let sn = una.0.wrapping_add(at.wrapping_sub(una.0) & mask);
            u32::try_from(sn as usize & (len - 1)).unwrap_or(NIL)
        };
        for i in 0..self.waiting() {
            let sn = una.plus(i);
            let mut segment = self.ring[sn.0 as usize & (old - 1)];
            segment.prev = moved(segment.prev);
            segment.next = moved(segment.next);
            ring[sn.0 as usize & (len - 1)] = segment;
        }
        for list in [
            &mut self.fresh,
            &mut self.again,
            &mut self.skipped,
            &mut self.resent,
        ] {
            list.head = moved(list.head);
            list.tail = moved(list.tail);
        }
        self.ring = ring;
    }
}

#[derive(Copy, Clone)]
enum Lists {
    Fresh,
    Again,
    Skipped,
    Resent,
}

/// Whether the timeout `due` of segment `sn` still stands.
#[inline]
fn alive(ring: &[Segment], sn: Seq, due: u64) -> bool {
    let segment = &ring[sn.0 as usize & (ring.len() - 1)];
    segment.due == due && !segment.acked
}

/// A payload length; never more than 16 bits by construction.
fn length(bytes: usize) -> u16 {
    u16::try_from(bytes).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `n` segments, sent one per millisecond from 1000 on.
    fn sent(n: u32, threshold: u32, first: Seq) -> SendBuffer {
        let mut tx = SendBuffer::new(first, 10, 0, Some(threshold));
        tx.push(&vec![7; 10 * n as usize], false);
        tx.number(n, false);
        for i in 0..n {
            let now = Millis(1000 + i);
            tx.sent(first.plus(i), State::Fresh, now, u64::from(2000 + i), 1000);
        }
        tx.settle();
        tx
    }

    #[test]
    fn counts_of_segments_sent_once_are_those_of_counting_each() {
        for threshold in [0, 1, 2, 3, 7] {
            let first = Seq(u32::MAX - 30);
            let mut tx = sent(64, threshold, first);
            let mut naive = [0u32; 64];
            let mut x = 1u32;
            for _ in 0..200 {
                x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let i = (x >> 16) % 64;
                // Acknowledgements of what is far ahead are rare, so that counts differ.
                let i = if x.is_multiple_of(7) { i } else { i / 4 };
                let reached = tx.skip(first.plus(i), Millis(1000 + i));
                naive[..i as usize].iter_mut().for_each(|n| *n += 1);
                assert_eq!(reached, i > 0 && naive[0] >= threshold);
                for (k, n) in (0..).zip(naive) {
                    assert_eq!(tx.skips_of(first.plus(k)), n.min(threshold.max(1)));
                }
            }
        }
    }

    #[test]
    fn one_datagram_cannot_make_us_look_at_everything() {
        let n = 20_000;
        let mut tx = sent(n, 200, Seq(0));
        for i in 0..n {
            tx.sent(Seq(i), State::Again, Millis(5000), 9000, 1000);
        }
        tx.settle();
        tx.refill_budget();
        for _ in 0..60 {
            tx.skip(Seq(n - 1), Millis(5000));
        }
        assert_eq!(tx.budget, 0);
        assert!((0..n).map(|i| tx.skips_of(Seq(i))).sum::<u32>() == LOOK_BUDGET);
        tx.refill_budget();
        tx.skip(Seq(10), Millis(5000));
        assert!(tx.budget < LOOK_BUDGET);
    }

    #[test]
    fn what_is_collected_is_in_order_and_once() {
        let mut tx = sent(10, 2, Seq(0));
        // 0 and 1 are skipped often enough, 2 once; 1 and 7 have timed out as well.
        for sn in [2, 2, 3] {
            tx.skip(Seq(sn), Millis(1000 + sn));
        }
        let mut work = Vec::new();
        tx.collect(2001, true, None, usize::MAX, &mut work);
        assert_eq!(work, [Seq(0), Seq(1)]);
        tx.collect(0, false, None, usize::MAX, &mut work);
        assert_eq!(work, [Seq(0), Seq(1), Seq(2)]);
        tx.collect(0, true, Some(Millis(1003)), usize::MAX, &mut work);
        assert_eq!(work, [0, 1, 2, 3].map(Seq));
        tx.collect(2007, true, None, usize::MAX, &mut work);
        assert_eq!(work, [0, 1, 2, 3, 4, 5, 6, 7].map(Seq));
    }

    #[test]
    fn what_could_not_be_sent_is_found_again() {
        let mut tx = sent(5, 2, Seq(0));
        let mut work = Vec::new();
        tx.collect(2002, true, None, usize::MAX, &mut work);
        assert_eq!(work, [0, 1, 2].map(Seq));
        tx.put_back(&work[1..]);
        assert_eq!(tx.next_timeout(), Some(2001));
        tx.collect(2002, true, None, usize::MAX, &mut work);
        assert_eq!(work, [1, 2].map(Seq));
    }

    #[test]
    fn a_short_segment_is_filled_up_until_it_has_a_number() {
        let mut tx = SendBuffer::new(Seq(0), 10, 0, Some(2));
        tx.push(b"abc", false);
        tx.push(b"defghijKL", false);
        assert_eq!(tx.queued(), 2);
        assert_eq!(
            (tx.payload(Seq(0)), tx.payload(Seq(1))),
            (&b"abcdefghij"[..], &b"KL"[..])
        );
        tx.number(2, false);
        tx.push(b"m", false);
        assert_eq!((tx.queued(), tx.payload(Seq(2))), (1, &b"m"[..]));
    }

    #[test]
    fn an_ended_segment_shares_its_datagram_with_the_next() {
        let lens = |first: usize, second: usize| {
            let mut tx = SendBuffer::new(Seq(0), 1000, 0, Some(2));
            tx.push(&vec![1; first], false);
            tx.end_segment();
            tx.push(&vec![2; second], false);
            tx.push(&[3; 100], false);
            let n = tx.queued();
            tx.number(n, false);
            (0..n).map(|i| tx.payload(Seq(i)).len()).collect::<Vec<_>>()
        };
        assert_eq!(lens(2300, 2000), [1000, 1000, 300, 676, 1000, 424]);
        // What is appended to the one that shares does not make the datagram longer.
        assert_eq!(lens(2300, 600), [1000, 1000, 300, 676, 24]);
        // No room for a header and something behind it.
        assert_eq!(lens(1970, 2000), [1000, 970, 1000, 1000, 100]);
        assert_eq!(lens(2000, 2000), [1000, 1000, 1000, 1000, 100]);
    }
}
