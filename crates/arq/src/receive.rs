//! What has arrived: in order and waiting for the reader, or ahead of a gap (docs/spec/kcptun.md, section 7.8).
//!
//! Both live in one ring that is indexed by segment number, `head..nxt` in order and `nxt..` with gaps, so a segment
//! is copied once, on arrival, and the filling of a gap moves nothing. The ring grows to what the window allows, and only
//! when segments really arrive that far ahead.

use fulmar_wire::kcp::Format;
use fulmar_wire::seq::Seq;

use crate::ranges;
use crate::slab::Slab;

/// No segment here.
const ABSENT: u32 = u32::MAX;
/// A segment without data: it has a number but no slot.
const EMPTY: u32 = u32::MAX - 1;
/// Places of the first ring.
const FIRST_RING: usize = 8;

#[derive(Copy, Clone, Debug)]
struct Place {
    slot: u32,
    len: u16,
    /// Fragments of its message that follow.
    frg: u8,
}

const NOTHING: Place = Place {
    slot: ABSENT,
    len: 0,
    frg: 0,
};

/// What became of a segment.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Arrival {
    /// Stored.
    New,
    /// It had arrived before.
    Repeated,
    /// Beyond the window: neither stored nor to be acknowledged.
    Outside,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct ReceiveBuffer {
    ring: Vec<Place>,
    slab: Slab,
    /// First segment that has not been read.
    head: Seq,
    /// First segment that is not available to the reader.
    nxt: Seq,
    /// Segments at or after `nxt` that are here.
    ahead: u32,
    /// One past the highest segment that has arrived.
    end: Seq,
    window: u32,
}

impl ReceiveBuffer {
    pub(crate) fn new(first: Seq, window: u32, max_payload: usize) -> Self {
        Self {
            ring: Vec::new(),
            slab: Slab::new(max_payload.next_multiple_of(64)),
            head: first,
            nxt: first,
            ahead: 0,
            end: first,
            window,
        }
    }

    pub(crate) fn set_window(&mut self, window: u32) {
        self.window = window;
        self.advance();
    }

    pub(crate) const fn window(&self) -> u32 {
        self.window
    }

    pub(crate) const fn nxt(&self) -> Seq {
        self.nxt
    }

    /// Segments in order, unread.
    #[inline]
    pub(crate) fn queued(&self) -> u32 {
        self.nxt.0.wrapping_sub(self.head.0)
    }

    /// Segments ahead of a gap, or of a full queue.
    pub(crate) const fn ahead(&self) -> u32 {
        self.ahead
    }

    /// Free places in the queue, as advertised.
    #[inline]
    pub(crate) fn free(&self) -> u16 {
        u16::try_from(self.window.saturating_sub(self.queued())).unwrap_or(u16::MAX)
    }

    /// Takes in the segment `sn`, which `frg` fragments of its message follow. `payload` must not be longer than what this was built
    /// for.
    pub(crate) fn insert(&mut self, sn: Seq, frg: u8, payload: &[u8]) -> Arrival {
        if !sn.before(self.nxt.plus(self.window)) {
            return Arrival::Outside;
        }
        if sn.before(self.nxt) {
            return Arrival::Repeated;
        }
        // At most two windows: `queued` is at most one (or what an earlier, larger window left), and so is sn - nxt.
        let offset = sn.0.wrapping_sub(self.head.0) as usize;
        if offset >= self.ring.len() {
            self.grow(offset + 1);
        }
        let at = self.at(sn);
        if self.ring[at].slot != ABSENT {
            return Arrival::Repeated;
        }
        let slot = if payload.is_empty() {
            EMPTY
        } else {
            let slot = self.slab.alloc();
            self.slab.slot_mut(slot)[..payload.len()].copy_from_slice(payload);
            slot
        };
        self.ring[at] = Place {
            slot,
            len: u16::try_from(payload.len()).unwrap_or(0),
            frg,
        };
        self.ahead += 1;
        if self.end.before(sn.next()) {
            self.end = sn.next();
        }
        self.advance();
        Arrival::New
    }

    /// Whether the next unread segment has no data.
    #[inline]
    pub(crate) fn front_is_empty(&self) -> bool {
        self.head != self.nxt && self.ring[self.at(self.head)].slot == EMPTY
    }

    /// The data of the next unread segment, if that has arrived and has any.
    #[inline]
    pub(crate) fn front(&self) -> Option<&[u8]> {
        self.front_fragment().map(|(data, _)| data)
    }

    /// The same, and how many fragments of its message follow.
    #[inline]
    pub(crate) fn front_fragment(&self) -> Option<(&[u8], u8)> {
        if self.head == self.nxt {
            return None;
        }
        let place = self.ring[self.at(self.head)];
        (place.slot != EMPTY).then(|| (self.slab.bytes(place.slot, place.len.into()), place.frg))
    }

    /// Drops the next unread segment, if there is one.
    #[inline]
    pub(crate) fn pop(&mut self) {
        if self.head == self.nxt {
            return;
        }
        let at = self.at(self.head);
        let place = std::mem::replace(&mut self.ring[at], NOTHING);
        if place.slot < EMPTY {
            self.slab.free(place.slot);
        }
        self.head = self.head.next();
        self.advance();
    }

    /// Bytes of memory held.
    pub(crate) fn held_bytes(&self) -> usize {
        self.slab.held_bytes() + self.ring.capacity() * size_of::<Place>()
    }

    /// Gives memory back if nothing is stored.
    pub(crate) fn release(&mut self) {
        if self.head == self.nxt && self.ahead == 0 {
            self.ring = Vec::new();
            self.slab.release();
        }
    }

    /// What has arrived ahead of a gap, as ranges from the highest downwards (see [`crate::ranges`]), as far as `out` has room and at most
    /// `span` segments far. Also the lowest segment that they name; nothing when nothing is ahead.
    pub(crate) fn ranges<'a>(
        &self,
        format: Format,
        span: u32,
        out: &'a mut [u8],
    ) -> (&'a [u8], Option<Seq>) {
        let mut len = 0;
        let mut lowest = None;
        let mut sn = self.end;
        let reach = self.end.0.wrapping_sub(self.nxt.0).min(span);
        let floor = Seq(self.end.0.wrapping_sub(reach));
        // `nxt` itself may be there already, behind a queue that is full; `una` is no place for a range.
        let floor = if floor == self.nxt {
            floor.next()
        } else {
            floor
        };
        if self.ahead == 0 {
            return (&[], None);
        }
        let here = |sn: Seq| self.ring[self.at(sn)].slot != ABSENT;
        for place in out.chunks_exact_mut(ranges::LEN) {
            let mut gap = u32::from(lowest.is_some());
            while floor.before(sn) && !here(Seq(sn.0.wrapping_sub(1))) {
                sn = Seq(sn.0.wrapping_sub(1));
                gap += 1;
            }
            let top = Seq(sn.0.wrapping_sub(1));
            let mut count = 0;
            while floor.before(sn) && here(Seq(sn.0.wrapping_sub(1))) {
                sn = Seq(sn.0.wrapping_sub(1));
                count += 1;
            }
            if lowest.is_none() {
                gap = top.0.wrapping_sub(self.nxt.0);
            }
            let (Ok(gap), Ok(count)) = (u16::try_from(gap), u16::try_from(count)) else {
                break;
            };
            if count == 0 {
                break;
            }
            let Ok(place) = place.try_into() else {
                break;
            };
            ranges::emit(format, gap, count, place);
            len += ranges::LEN;
            lowest = Some(sn);
        }
        (&out[..len], lowest)
    }

    /// Makes segments that follow without a gap available, as far as the queue has places.
    #[inline]
    fn advance(&mut self) {
        while self.ahead > 0 && self.queued() < self.window {
            if self.ring[self.at(self.nxt)].slot == ABSENT {
                break;
            }
            self.nxt = self.nxt.next();
            self.ahead -= 1;
        }
    }

    /// Where `sn` lies. The ring's length is a power of two.
    #[inline]
    fn at(&self, sn: Seq) -> usize {
        sn.0 as usize & (self.ring.len() - 1)
    }

    #[cold]
    fn grow(&mut self, places: usize) {
        let len = places.next_power_of_two().max(FIRST_RING);
        let mut ring = vec![NOTHING; len];
        let old = self.ring.len();
        for i in 0..old {
            let sn = self.head.plus(u32::try_from(i).unwrap_or(0));
            ring[sn.0 as usize & (len - 1)] = self.ring[sn.0 as usize & (old - 1)];
        }
        self.ring = ring;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(b: &mut ReceiveBuffer) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        while b.queued() > 0 {
            out.extend(b.front().map(<[u8]>::to_vec));
            b.pop();
        }
        out
    }

    #[test]
    fn a_gap_that_fills_delivers_everything_behind_it() {
        let first = Seq(u32::MAX - 1);
        let mut b = ReceiveBuffer::new(first, 8, 10);
        for i in [3u8, 1, 2] {
            assert_eq!(b.insert(first.plus(u32::from(i)), 0, &[i]), Arrival::New);
        }
        assert_eq!((b.queued(), b.ahead(), b.free()), (0, 3, 8));
        assert_eq!(b.insert(first.plus(2), 0, &[9]), Arrival::Repeated);
        assert_eq!(b.insert(first, 0, &[0]), Arrival::New);
        assert_eq!((b.queued(), b.ahead(), b.free()), (4, 0, 4));
        assert_eq!(drain(&mut b), [[0], [1], [2], [3]]);
        assert_eq!(b.insert(first, 0, &[0]), Arrival::Repeated);
    }

    #[test]
    fn a_full_queue_holds_the_edge_and_keeps_one_window_ahead() {
        let mut b = ReceiveBuffer::new(Seq(0), 4, 10);
        for i in 0..8u32 {
            assert_eq!(b.insert(Seq(i), 0, &[1]), Arrival::New, "{i}");
        }
        assert_eq!(b.insert(Seq(8), 0, &[1]), Arrival::Outside);
        assert_eq!(
            (b.nxt(), b.queued(), b.ahead(), b.free()),
            (Seq(4), 4, 4, 0)
        );
        b.pop();
        assert_eq!(
            (b.nxt(), b.queued(), b.ahead(), b.free()),
            (Seq(5), 4, 3, 0)
        );
        assert_eq!(drain(&mut b).len(), 7);
        b.release();
        assert_eq!(b.held_bytes(), 0);
    }

    #[test]
    fn segments_without_data_have_a_place_and_nothing_to_read() {
        let mut b = ReceiveBuffer::new(Seq(0), 4, 10);
        b.insert(Seq(0), 0, &[]);
        b.insert(Seq(1), 0, &[7]);
        b.insert(Seq(2), 0, &[]);
        assert_eq!(b.queued(), 3);
        assert!(b.front_is_empty() && b.front().is_none());
        assert_eq!(drain(&mut b), [[7]]);
        assert_eq!(b.queued(), 0);
    }

    #[test]
    fn ranges_name_what_is_ahead() {
        let first = Seq(u32::MAX - 20);
        let format = Format::LittleEndian;
        for span in [1000, 25] {
            let mut b = ReceiveBuffer::new(first, 1000, 4);
            let there = [1u32, 2, 5, 9, 10, 11, 30, 40];
            for i in there {
                b.insert(first.plus(i), 0, &[1]);
            }
            let mut out = [0; ranges::MOST * ranges::LEN];
            let (bytes, lowest) = b.ranges(format, span, &mut out);
            let named: Vec<u32> = ranges::parse(format, b.nxt(), bytes)
                .flat_map(|(from, count)| {
                    (0..count).map(move |i| from.plus(i).0.wrapping_sub(first.0))
                })
                .collect();
            let mut sorted = named.clone();
            sorted.sort_unstable();
            let from = if span == 25 { 16 } else { 1 };
            assert_eq!(
                sorted,
                there.into_iter().filter(|i| *i >= from).collect::<Vec<_>>()
            );
            assert_eq!(lowest, Some(first.plus(if span == 25 { 30 } else { 1 })));
        }
        let mut b = ReceiveBuffer::new(first, 1000, 4);
        b.insert(first, 0, &[1]);
        let mut out = [0; ranges::MOST * ranges::LEN];
        assert_eq!(b.ranges(format, 1000, &mut out), (&[][..], None));
        // One segment in each of more gaps than there is room for.
        for i in 1..200 {
            b.insert(first.plus(2 * i), 0, &[1]);
        }
        let (bytes, lowest) = b.ranges(format, 1000, &mut out);
        assert_eq!(bytes.len(), ranges::MOST * ranges::LEN);
        assert_eq!(lowest, Some(first.plus(2 * (200 - 64))));
    }

    #[test]
    fn growing_keeps_what_is_there() {
        let first = Seq(u32::MAX - 40);
        let mut b = ReceiveBuffer::new(first, 1000, 4);
        for i in (0..1000u32).rev() {
            assert_eq!(b.insert(first.plus(i), 0, &i.to_le_bytes()), Arrival::New);
        }
        let got = drain(&mut b);
        assert_eq!(got.len(), 1000);
        assert!(
            got.iter()
                .zip(0u32..)
                .all(|(g, i)| g[..] == i.to_le_bytes())
        );
    }
}
