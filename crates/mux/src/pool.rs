//! Byte queues made of chunks that all streams of a session share.
//!
//! An empty queue holds no memory. Chunks come in a few sizes, each four times the one before, and a queue takes
//! the next one by what it already holds: a stream with a few bytes waiting costs 64 bytes, a stream at full speed
//! moves 64 KiB at a time. Nobody knows how much a socket will give before it is read: the room to read into is a page
//! at first, and larger once readers fill it; if only little came, it is copied into a chunk of its size and the room
//! serves the next reader. Chunks that come back are kept for the next burst; [`Pool::trim`] returns to the allocator
//! what the time since the last call did not need.

use core::fmt;

/// Bytes of the chunks of each size.
const SIZES: [usize; 6] = [64, 256, 1024, 4096, 16 * 1024, LARGE];
/// Bytes of the largest chunks.
pub(crate) const LARGE: usize = 64 * 1024;
/// Their place in [`SIZES`].
const LARGEST: usize = SIZES.len() - 1;
/// The place of the smallest chunks that are lent to readers.
const SMALLEST_LENT: usize = 3;
/// With less room than this at the end of a queue, a reader gets a new chunk: a system call for a few bytes is dear.
const WORTHWHILE: usize = 2 * 1024;

/// "No chunk".
const NONE: u32 = u32::MAX;

struct Chunk {
    data: Box<[u8]>,
    /// The bytes that wait are `data[start..end]`.
    start: u32,
    end: u32,
    /// The chunk behind this one in the same queue.
    next: u32,
    /// The place of its size in [`SIZES`].
    size: u8,
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

    /// Appends `bytes`, for which there is room.
    fn push(&mut self, bytes: &[u8]) {
        let end = self.end as usize;
        self.data[end..end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len() as u32;
    }
}

/// A queue of bytes in some pool. All access is through that pool.
#[derive(Debug)]
pub(crate) struct Buf {
    head: u32,
    tail: u32,
    len: u32,
    /// The chunk whose room has been lent by [`Pool::reserve`]: the tail, or one that is not in the queue yet.
    lent: u32,
}

impl Buf {
    pub(crate) const fn new() -> Self {
        Self {
            head: NONE,
            tail: NONE,
            len: 0,
            lent: NONE,
        }
    }

    /// Bytes that wait.
    pub(crate) const fn len(&self) -> usize {
        self.len as usize
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it has no chunk in its pool, none lent either.
    pub(crate) const fn is_unused(&self) -> bool {
        self.head == NONE && self.lent == NONE
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
    free: [Vec<u32>; SIZES.len()],
    /// Entries of `chunks` without memory.
    bare: Vec<u32>,
    in_use: [usize; SIZES.len()],
    /// Bytes of them.
    used: usize,
    /// Most of `in_use` since the last trim.
    peak: [usize; SIZES.len()],
    /// How much larger than the smallest the next chunk for a reader is.
    appetite: usize,
}

impl Pool {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Bytes of memory in chunks that queues use.
    pub(crate) const fn bytes_in_use(&self) -> usize {
        self.used
    }

    /// Bytes of memory in all chunks, used or kept for the next burst.
    pub(crate) fn bytes_held(&self) -> usize {
        let free = self.free.iter().zip(SIZES);
        self.bytes_in_use() + free.map(|(list, size)| list.len() * size).sum::<usize>()
    }

    /// Appends `data`. `hint` is how many bytes, `data` included, are known to come; it only chooses the size
    /// of chunks.
    pub(crate) fn append(&mut self, buf: &mut Buf, mut data: &[u8], mut hint: usize) {
        debug_assert!(buf.lent == NONE, "a reservation is open");
        while !data.is_empty() {
            if self.tail_room(buf) == 0 {
                let index = self.allocate(size_for(buf, hint));
                self.link(buf, index);
            }
            let chunk = &mut self.chunks[buf.tail as usize];
            let (now, later) = data.split_at(chunk.room().min(data.len()));
            chunk.push(now);
            buf.len += now.len() as u32;
            data = later;
            hint = hint.saturating_sub(now.len());
        }
    }

    /// Room for at most `want` bytes at the end of the queue, to be filled and then committed. Until then the
    /// same call gives the same room again.
    pub(crate) fn reserve(&mut self, buf: &mut Buf, want: usize) -> &mut [u8] {
        if want == 0 {
            return &mut [];
        }
        if buf.lent == NONE {
            buf.lent = if self.tail_room(buf) < want.min(WORTHWHILE) {
                self.allocate(SMALLEST_LENT + self.appetite)
            } else {
                buf.tail
            };
        }
        let chunk = &mut self.chunks[buf.lent as usize];
        let n = chunk.room().min(want);
        let end = chunk.end as usize;
        &mut chunk.data[end..end + n]
    }

    /// Makes the first `n` bytes of the room that was reserved part of the queue; returns how many there were.
    pub(crate) fn commit(&mut self, buf: &mut Buf, n: usize) -> usize {
        let lent = core::mem::replace(&mut buf.lent, NONE);
        if lent == NONE {
            return 0;
        }
        let room = self.chunks[lent as usize].room();
        let n = n.min(room);
        if n == room {
            self.appetite = LARGEST.min(SMALLEST_LENT + self.appetite + 1) - SMALLEST_LENT;
        }
        if lent == buf.tail {
            self.chunks[lent as usize].end += n as u32;
        } else {
            self.adopt(buf, lent, n);
        }
        buf.len += n as u32;
        if buf.is_empty() {
            self.clear(buf);
        }
        n
    }

    /// Gives back the room that no reader has taken: worth it where a pool has one queue, so that no other reader comes.
    pub(crate) fn drop_spare_room(&mut self) {
        while let Some(index) = self.free[SMALLEST_LENT].pop() {
            self.chunks[index as usize].data = Box::default();
            self.bare.push(index);
        }
        self.peak[SMALLEST_LENT] = self.in_use[SMALLEST_LENT];
    }

    /// Appends the first `n` bytes of the room of `lent`, which is in no queue: with the chunk, or a copy if they are few
    /// for it.
    fn adopt(&mut self, buf: &mut Buf, lent: u32, n: usize) {
        let to = if n <= self.tail_room(buf) {
            buf.tail
        } else {
            let size = size_for(buf, n);
            let chunk = &mut self.chunks[lent as usize];
            if usize::from(chunk.size) <= size {
                chunk.end = n as u32;
                return self.link(buf, lent);
            }
            let index = self.allocate(size);
            self.link(buf, index);
            index
        };
        if n > 0
            && let Ok([to, lent]) = self.chunks.get_disjoint_mut([to as usize, lent as usize])
        {
            to.push(&lent.data[..n]);
        }
        self.release(lent);
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
        if buf.is_empty() && buf.lent != buf.tail {
            // What is lent and in no queue stays lent.
            let lent = core::mem::replace(&mut buf.lent, NONE);
            self.clear(buf);
            buf.lent = lent;
        }
    }

    /// Drops everything, an open reservation included.
    pub(crate) fn clear(&mut self, buf: &mut Buf) {
        if buf.lent != NONE && buf.lent != buf.tail {
            self.release(buf.lent);
        }
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
        for size in 0..SIZES.len() {
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
        self.appetite = self.appetite.saturating_sub(1);
        let used = self.chunks.iter().rposition(|chunk| !chunk.data.is_empty());
        let end = used.map_or(0, |last| last + 1);
        if end < self.chunks.len() {
            self.chunks.truncate(end);
            self.bare.retain(|&index| (index as usize) < end);
        }
        self.chunks.shrink_to_fit();
        self.bare.shrink_to_fit();
    }

    fn tail_room(&self, buf: &Buf) -> usize {
        self.chunks.get(buf.tail as usize).map_or(0, Chunk::room)
    }

    /// Adds a chunk to the end of the queue.
    fn link(&mut self, buf: &mut Buf, index: u32) {
        match buf.tail {
            NONE => buf.head = index,
            tail => self.chunks[tail as usize].next = index,
        }
        buf.tail = index;
    }

    fn allocate(&mut self, size: usize) -> u32 {
        self.in_use[size] += 1;
        self.used += SIZES[size];
        self.peak[size] = self.peak[size].max(self.in_use[size]);
        if let Some(index) = self.free[size].pop() {
            return index;
        }
        let chunk = Chunk {
            data: vec![0; SIZES[size]].into_boxed_slice(),
            start: 0,
            end: 0,
            next: NONE,
            size: size as u8,
        };
        match self.bare.pop() {
            Some(index) => {
                self.chunks[index as usize] = chunk;
                index
            }
            None => {
                self.chunks.push(chunk);
                (self.chunks.len() - 1) as u32
            }
        }
    }

    fn drop_head(&mut self, buf: &mut Buf) {
        let index = buf.head;
        buf.head = self.chunks[index as usize].next;
        if buf.head == NONE {
            buf.tail = NONE;
        }
        self.release(index);
    }

    /// Keeps a chunk that no queue has for the next one that asks.
    fn release(&mut self, index: u32) {
        let chunk = &mut self.chunks[index as usize];
        chunk.start = 0;
        chunk.end = 0;
        chunk.next = NONE;
        let size = usize::from(chunk.size);
        self.in_use[size] -= 1;
        self.used -= SIZES[size];
        self.free[size].push(index);
    }
}

/// The size of the next chunk of a queue for `want` more bytes: what they need, and more than all that wait.
fn size_for(buf: &Buf, want: usize) -> usize {
    let want = want.max(buf.len() + 1);
    SIZES
        .iter()
        .position(|&size| want <= size)
        .unwrap_or(LARGEST)
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
        assert_eq!(pool.bytes_in_use(), SIZES[1]);
        pool.append(&mut buf, &[2; 100_000], 100_000);
        assert_eq!(pool.slices(&buf).map(<[u8]>::len).sum::<usize>(), 100_100);
        let burst = pool.bytes_in_use();
        assert!((100_100..100_100 + LARGE + SIZES[1]).contains(&burst));
        pool.consume(&mut buf, 100_100);
        assert_eq!((buf.len(), pool.bytes_in_use()), (0, 0));
        assert_eq!(pool.bytes_held(), burst);
        pool.trim();
        assert_eq!(pool.bytes_held(), burst, "needed since the last trim");
        pool.append(&mut buf, &[3], 1);
        pool.trim();
        pool.trim();
        assert_eq!(pool.bytes_held(), SIZES[0]);
        assert_eq!(pool.slices(&buf).collect::<Vec<_>>(), [[3]]);
        pool.clear(&mut buf);
        pool.trim();
        pool.trim();
        assert_eq!(pool.bytes_held(), 0);
        assert!(pool.chunks.is_empty());
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
        assert_eq!(pool.reserve(&mut buf, 1 << 20).len(), SIZES[SMALLEST_LENT]);
        assert_eq!(pool.commit(&mut buf, 0), 0);
        assert_eq!(pool.bytes_in_use(), 0);
        pool.reserve(&mut buf, 1 << 20);
        pool.clear(&mut buf);
        assert_eq!(pool.bytes_in_use(), 0);
    }

    #[test]
    fn readers_of_little_share_one_chunk() {
        let mut pool = Pool::new();
        let mut bufs: Vec<Buf> = (0..100).map(|_| Buf::new()).collect();
        for (i, buf) in bufs.iter_mut().enumerate() {
            let room = pool.reserve(buf, 1 << 20);
            assert_eq!(room.len(), SIZES[SMALLEST_LENT]);
            room[..i].fill(i as u8);
            pool.commit(buf, i);
        }
        let little = 64 * SIZES[0] + 35 * SIZES[1];
        assert_eq!(pool.bytes_in_use(), little);
        assert_eq!(pool.bytes_held(), little + SIZES[SMALLEST_LENT]);
        for (i, buf) in bufs.iter().enumerate() {
            assert_eq!(
                pool.slices(buf).collect::<Vec<_>>().concat(),
                vec![i as u8; i]
            );
        }
    }

    #[test]
    fn room_grows_while_readers_fill_it() {
        let mut pool = Pool::new();
        let mut buf = Buf::new();
        let mut lens = Vec::new();
        for _ in 0..5 {
            let n = pool.reserve(&mut buf, 1 << 20).len();
            lens.push(n);
            pool.commit(&mut buf, n);
        }
        assert_eq!(lens, [4096, 16 * 1024, LARGE, LARGE, LARGE]);
        assert_eq!(pool.bytes_in_use(), buf.len(), "nothing was copied");
        pool.clear(&mut buf);
        pool.trim();
        pool.trim();
        assert_eq!(pool.reserve(&mut buf, 1 << 20).len(), 4096);
        pool.commit(&mut buf, 0);
    }

    #[test]
    fn chunks_grow_with_what_waits() {
        let mut pool = Pool::new();
        let mut buf = Buf::new();
        for _ in 0..100_000 {
            pool.append(&mut buf, &[1], 1);
        }
        let lens: Vec<usize> = pool.slices(&buf).map(<[u8]>::len).collect();
        assert_eq!(
            lens,
            [64, 256, 1024, 4096, 16_384, LARGE, 100_000 - 21_824 - LARGE]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn behaves_like_a_byte_queue(ops in proptest::collection::vec((0u8..6, 0usize..140_000), 1..40)) {
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
                        let n = room.len() >> (stamp % 12);
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
