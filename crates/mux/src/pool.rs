//! Byte queues made of chunks that all streams of a session share.
//!
//! An empty queue holds no memory. Chunks come in two sizes, so that a stream with a few bytes waiting costs
//! 2 KiB and a stream at full speed moves 16 KiB at a time. Chunks that come back are kept for the next burst;
//! [`Pool::trim`] returns to the allocator what the time since the last call did not need.

use core::fmt;

/// Bytes of a small chunk.
pub(crate) const SMALL: usize = 2 * 1024;
/// Bytes of a large chunk.
pub(crate) const LARGE: usize = 16 * 1024;

/// "No chunk".
const NONE: u32 = u32::MAX;
const SIZES: [usize; 2] = [SMALL, LARGE];

struct Chunk {
    data: Box<[u8]>,
    /// The bytes that wait are `data[start..end]`.
    start: u32,
    end: u32,
    /// The chunk behind this one in the same queue.
    next: u32,
}

/// Without the bytes, which are somebody's.
impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{} of {}", self.start, self.end, self.data.len())
    }
}

impl Chunk {
    fn waiting(&self) -> &[u8] {
        &self.data[self.start as usize..self.end as usize]
    }

    const fn room(&self) -> usize {
        self.data.len() - self.end as usize
    }
}

/// A queue of bytes in some pool. All access is through that pool.
#[derive(Debug)]
pub(crate) struct Buf {
    head: u32,
    tail: u32,
    len: u32,
    chunks: u16,
    /// The room at the tail has been lent by [`Pool::reserve`].
    reserved: bool,
}

impl Buf {
    pub(crate) const fn new() -> Self {
        Self {
            head: NONE,
            tail: NONE,
            len: 0,
            chunks: 0,
            reserved: false,
        }
    }

    /// Bytes that wait.
    pub(crate) const fn len(&self) -> usize {
        self.len as usize
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// A piece of a chunk that was taken from a queue; readable until the pool is changed.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Span {
    chunk: u32,
    start: u32,
    end: u32,
}

impl Span {
    pub(crate) const fn len(self) -> usize {
        (self.end - self.start) as usize
    }
}

/// The chunks of one direction of a session.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    chunks: Vec<Chunk>,
    /// Chunks with memory that nobody uses, by size.
    free: [Vec<u32>; 2],
    /// Entries of `chunks` without memory.
    bare: Vec<u32>,
    in_use: [usize; 2],
    /// Most of `in_use` since the last trim.
    peak: [usize; 2],
}

impl Pool {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Bytes of memory in chunks that queues use.
    pub(crate) fn bytes_in_use(&self) -> usize {
        self.in_use[0] * SMALL + self.in_use[1] * LARGE
    }

    /// Bytes of memory in all chunks, used or kept for the next burst.
    pub(crate) fn bytes_held(&self) -> usize {
        self.bytes_in_use() + self.free[0].len() * SMALL + self.free[1].len() * LARGE
    }

    /// Appends `data`. `hint` is how many bytes, `data` included, are known to come; it only chooses the size
    /// of chunks.
    pub(crate) fn append(&mut self, buf: &mut Buf, mut data: &[u8], mut hint: usize) {
        debug_assert!(!buf.reserved, "a reservation is open");
        buf.reserved = false;
        while !data.is_empty() {
            if self.tail_room(buf) == 0 {
                self.extend(buf, hint);
            }
            let chunk = &mut self.chunks[buf.tail as usize];
            let n = chunk.room().min(data.len());
            let (now, later) = data.split_at(n);
            let end = chunk.end as usize;
            chunk.data[end..end + n].copy_from_slice(now);
            chunk.end += n as u32;
            buf.len += n as u32;
            data = later;
            hint = hint.saturating_sub(n);
        }
    }

    /// Room for at most `want` bytes at the end of the queue, to be filled and then committed. Until then the
    /// same call gives the same room again.
    pub(crate) fn reserve(&mut self, buf: &mut Buf, want: usize) -> &mut [u8] {
        if want == 0 {
            return &mut [];
        }
        // Reading a socket into the last few bytes of a chunk would cost a system call for little.
        if !buf.reserved && self.tail_room(buf) < want.min(SMALL) {
            self.extend(buf, want);
        }
        buf.reserved = true;
        let chunk = &mut self.chunks[buf.tail as usize];
        let n = chunk.room().min(want);
        let end = chunk.end as usize;
        &mut chunk.data[end..end + n]
    }

    /// Makes the first `n` bytes of the room that was reserved part of the queue; returns how many there were.
    pub(crate) fn commit(&mut self, buf: &mut Buf, n: usize) -> usize {
        if !core::mem::take(&mut buf.reserved) {
            return 0;
        }
        let chunk = &mut self.chunks[buf.tail as usize];
        let n = n.min(chunk.room());
        chunk.end += n as u32;
        buf.len += n as u32;
        if buf.is_empty() {
            self.clear(buf);
        }
        n
    }

    /// Takes at most `max` bytes from the front, and no more than lie in two pieces.
    pub(crate) fn take(&mut self, buf: &mut Buf, max: usize) -> [Span; 2] {
        let mut spans = [Span::default(); 2];
        let mut left = max;
        let mut at = buf.head;
        let mut found = 0;
        while at != NONE && left > 0 && found < 2 {
            let chunk = &self.chunks[at as usize];
            let n = chunk.waiting().len().min(left);
            if n > 0 {
                spans[found] = Span {
                    chunk: at,
                    start: chunk.start,
                    end: chunk.start + n as u32,
                };
                found += 1;
                left -= n;
            }
            at = chunk.next;
        }
        self.consume(buf, spans[0].len() + spans[1].len());
        spans
    }

    /// The bytes of a span that [`Pool::take`] returned last. A chunk that became free keeps its bytes until it is
    /// used again.
    pub(crate) fn span(&self, span: Span) -> &[u8] {
        if span.len() == 0 {
            return &[];
        }
        &self.chunks[span.chunk as usize].data[span.start as usize..span.end as usize]
    }

    /// Drops the first `n` bytes, at most all.
    pub(crate) fn consume(&mut self, buf: &mut Buf, n: usize) {
        let mut left = n.min(buf.len());
        buf.len -= left as u32;
        while left > 0 {
            let chunk = &mut self.chunks[buf.head as usize];
            let n = chunk.waiting().len().min(left);
            chunk.start += n as u32;
            left -= n;
            if chunk.start == chunk.end && buf.head != buf.tail {
                self.drop_head(buf);
            }
        }
        if buf.is_empty() && !buf.reserved {
            self.clear(buf);
        }
    }

    /// Drops everything, an open reservation included.
    pub(crate) fn clear(&mut self, buf: &mut Buf) {
        while buf.head != NONE {
            self.drop_head(buf);
        }
        *buf = Buf::new();
    }

    /// The bytes of a queue in order.
    pub(crate) fn slices<'a>(&'a self, buf: &Buf) -> Slices<'a> {
        Slices {
            chunks: &self.chunks,
            at: buf.head,
        }
    }

    /// The first two pieces of a queue, to be changed in place.
    pub(crate) fn first_two_mut(&mut self, buf: &Buf) -> [&mut [u8]; 2] {
        let (first, second) = match self.chunks.get(buf.head as usize) {
            None => return [&mut [], &mut []],
            Some(chunk) => (buf.head as usize, chunk.next as usize),
        };
        fn waiting(chunk: &mut Chunk) -> &mut [u8] {
            &mut chunk.data[chunk.start as usize..chunk.end as usize]
        }
        if second == NONE as usize {
            return [waiting(&mut self.chunks[first]), &mut []];
        }
        match self.chunks.get_disjoint_mut([first, second]) {
            Ok([a, b]) => [waiting(a), waiting(b)],
            Err(_) => [&mut [], &mut []],
        }
    }

    /// Returns memory that was not needed since the last call.
    pub(crate) fn trim(&mut self) {
        for size in 0..2 {
            let keep = self.peak[size] - self.in_use[size];
            while self.free[size].len() > keep {
                if let Some(index) = self.free[size].pop() {
                    self.chunks[index as usize].data = Box::default();
                    self.bare.push(index);
                }
            }
            self.free[size].shrink_to(2 * keep);
            self.peak[size] = self.in_use[size];
        }
        if self.bare.len() == self.chunks.len() {
            self.chunks = Vec::new();
            self.bare = Vec::new();
        }
    }

    fn tail_room(&self, buf: &Buf) -> usize {
        self.chunks.get(buf.tail as usize).map_or(0, Chunk::room)
    }

    /// Adds a chunk to the end of the queue.
    fn extend(&mut self, buf: &mut Buf, want: usize) {
        // A queue that keeps growing is not a trickle.
        let size = usize::from(want > SMALL || buf.chunks >= 2);
        let index = self.allocate(size);
        match buf.tail {
            NONE => buf.head = index,
            tail => self.chunks[tail as usize].next = index,
        }
        buf.tail = index;
        buf.chunks = buf.chunks.saturating_add(1);
    }

    fn allocate(&mut self, size: usize) -> u32 {
        self.in_use[size] += 1;
        self.peak[size] = self.peak[size].max(self.in_use[size]);
        if let Some(index) = self.free[size].pop() {
            return index;
        }
        let data = vec![0; SIZES[size]].into_boxed_slice();
        match self.bare.pop() {
            Some(index) => {
                self.chunks[index as usize].data = data;
                index
            }
            None => {
                self.chunks.push(Chunk {
                    data,
                    start: 0,
                    end: 0,
                    next: NONE,
                });
                (self.chunks.len() - 1) as u32
            }
        }
    }

    fn drop_head(&mut self, buf: &mut Buf) {
        let index = buf.head;
        let chunk = &mut self.chunks[index as usize];
        buf.head = chunk.next;
        if buf.head == NONE {
            buf.tail = NONE;
        }
        buf.chunks = buf.chunks.saturating_sub(1);
        chunk.start = 0;
        chunk.end = 0;
        chunk.next = NONE;
        let size = usize::from(chunk.data.len() == LARGE);
        self.in_use[size] -= 1;
        self.free[size].push(index);
    }
}

/// The pieces of a queue, front first, none of them empty.
#[derive(Clone)]
pub struct Slices<'a> {
    chunks: &'a [Chunk],
    at: u32,
}

impl Slices<'_> {
    pub(crate) const fn none() -> Self {
        Self {
            chunks: &[],
            at: NONE,
        }
    }
}

impl fmt::Debug for Slices<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: usize = self.clone().map(<[u8]>::len).sum();
        write!(f, "Slices({bytes} bytes)")
    }
}

impl<'a> Iterator for Slices<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let chunk = self.chunks.get(self.at as usize)?;
            self.at = chunk.next;
            if !chunk.waiting().is_empty() {
                return Some(chunk.waiting());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[test]
    fn empty_queues_hold_nothing_and_bursts_are_returned() {
        let mut pool = Pool::new();
        let mut buf = Buf::new();
        pool.append(&mut buf, &[1; 100], 100);
        assert_eq!(pool.bytes_in_use(), SMALL);
        pool.append(&mut buf, &[2; 100_000], 100_000);
        assert_eq!(pool.slices(&buf).map(<[u8]>::len).sum::<usize>(), 100_100);
        let burst = pool.bytes_in_use();
        assert!((100_100..100_100 + LARGE + SMALL).contains(&burst));
        pool.consume(&mut buf, 100_100);
        assert_eq!((buf.len(), pool.bytes_in_use()), (0, 0));
        assert_eq!(pool.bytes_held(), burst);
        pool.trim();
        assert_eq!(pool.bytes_held(), burst, "needed since the last trim");
        pool.trim();
        assert_eq!(pool.bytes_held(), 0);
    }

    #[test]
    fn a_reservation_survives_draining_and_is_returned_unused() {
        let mut pool = Pool::new();
        let mut buf = Buf::new();
        pool.append(&mut buf, b"abc", 3);
        let room = pool.reserve(&mut buf, 10);
        room.copy_from_slice(b"defghijklm");
        pool.consume(&mut buf, 3);
        assert_eq!(pool.reserve(&mut buf, 4), b"defg");
        assert_eq!(pool.commit(&mut buf, 4), 4);
        assert_eq!(pool.slices(&buf).collect::<Vec<_>>(), [b"defg"]);
        assert_eq!(pool.commit(&mut buf, 4), 0, "nothing is reserved");
        pool.consume(&mut buf, 4);
        assert_eq!(pool.reserve(&mut buf, 1 << 20).len(), LARGE);
        assert_eq!(pool.commit(&mut buf, 0), 0);
        assert_eq!(pool.bytes_in_use(), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn behaves_like_a_byte_queue(ops in proptest::collection::vec((0u8..6, 0usize..40_000), 1..40)) {
            let mut pool = Pool::new();
            let mut bufs = [Buf::new(), Buf::new()];
            let mut models: [VecDeque<u8>; 2] = Default::default();
            let mut stamp = 0u8;
            for (op, n) in ops {
                let which = n % 2;
                let (buf, model) = (&mut bufs[which], &mut models[which]);
                stamp = stamp.wrapping_add(1);
                match op {
                    0 | 1 => {
                        let data: Vec<u8> = (0..n).map(|i| stamp ^ i as u8).collect();
                        pool.append(buf, &data, n);
                        model.extend(data);
                    }
                    2 => {
                        let room = pool.reserve(buf, n);
                        room.fill(stamp);
                        let n = room.len() / 2;
                        prop_assert_eq!(pool.commit(buf, n), n);
                        model.extend(std::iter::repeat_n(stamp, n));
                    }
                    3 => {
                        let spans = pool.take(buf, n);
                        let got = [pool.span(spans[0]), pool.span(spans[1])].concat();
                        prop_assert!(got.len() <= n);
                        prop_assert!(!got.is_empty() || model.is_empty() || n == 0);
                        prop_assert_eq!(got.clone(), model.drain(..got.len()).collect::<Vec<_>>());
                    }
                    4 => {
                        pool.consume(buf, n);
                        model.drain(..n.min(model.len()));
                    }
                    _ => pool.trim(),
                }
                for (buf, model) in bufs.iter().zip(&models) {
                    prop_assert_eq!(buf.len(), model.len());
                    prop_assert!(pool.slices(buf).flatten().eq(model.iter()));
                    let two = pool.slices(buf).take(2).map(<[u8]>::to_vec).collect::<Vec<_>>().concat();
                    prop_assert_eq!(pool.first_two_mut(buf).concat(), two);
                }
            }
            for buf in &mut bufs {
                pool.clear(buf);
            }
            prop_assert_eq!(pool.bytes_in_use(), 0);
        }
    }
}
