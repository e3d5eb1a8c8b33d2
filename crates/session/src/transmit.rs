//! Runs of sealed datagrams on their way to the socket.
//!
//! A run is datagrams to one peer, stored back to back, each [`Run::segment`] bytes long; only the last may
//! be shorter. That is the layout that the kernel's segmentation offload takes in one call and that a packet
//! cipher seals in one call. A session writes datagrams straight into a run by reserve, fill, commit; a
//! datagram that does not fit the layout closes the run and opens the next one, so order is kept. A datagram that finds out
//! which size passes is a run of its own, with a mark that the socket obeys.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use fulmar_cipher::PacketCipher;

/// Where datagrams go to, and which of our addresses they come from.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct Path {
    /// The peer's address.
    pub remote: SocketAddr,
    /// Our address; `None` lets the system choose.
    pub local: Option<IpAddr>,
}

/// Most datagrams in one run: what every kernel with UDP segmentation offload accepts.
pub const MAX_SEGMENTS: usize = 64;
/// Most bytes in one run: the largest UDP payload over IPv4, rounded down to leave room for options.
pub const MAX_RUN_BYTES: usize = 65_000;
/// Bytes of a buffer for one or a few small datagrams.
const SMALL_BUFFER: usize = 2 * 1024;
/// Bytes of a buffer for a whole run: the limit, and room for one more datagram being written.
const LARGE_BUFFER: usize = MAX_RUN_BYTES + 2 * 1024;
/// Buffers of each size that are kept for reuse.
const KEEP_SMALL: usize = 64;
const KEEP_LARGE: usize = 24;

/// One run, sealed and ready for the socket.
#[derive(Debug)]
pub struct Run {
    buf: Vec<u8>,
    len: usize,
    segment: usize,
    count: usize,
    path: Path,
    probe: bool,
}

impl Run {
    /// The datagrams, back to back.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.buf[..self.len]
    }

    /// Length of each datagram in bytes; the last may be shorter.
    #[must_use]
    pub const fn segment(&self) -> usize {
        self.segment
    }

    /// Number of datagrams.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Where it goes.
    #[must_use]
    pub const fn path(&self) -> Path {
        self.path
    }

    /// Whether it is one datagram that asks for the size that passes: nothing may cut it into fragments.
    #[must_use]
    pub const fn is_probe(&self) -> bool {
        self.probe
    }
}

/// Buffers for runs, kept for reuse.
#[derive(Debug, Default)]
pub struct BufferPool {
    small: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
}

impl BufferPool {
    fn small(&mut self) -> Vec<u8> {
        self.small.pop().unwrap_or_else(|| vec![0; SMALL_BUFFER])
    }

    fn large(&mut self) -> Vec<u8> {
        self.large.pop().unwrap_or_else(|| vec![0; LARGE_BUFFER])
    }

    fn put(&mut self, buf: Vec<u8>) {
        let (list, keep) = if buf.len() >= LARGE_BUFFER {
            (&mut self.large, KEEP_LARGE)
        } else {
            (&mut self.small, KEEP_SMALL)
        };
        if list.len() < keep {
            list.push(buf);
        }
    }

    /// Gives back what a burst took: keeps one small buffer, for the next sign of life.
    pub fn shrink(&mut self) {
        self.small.truncate(1);
        self.large = Vec::new();
    }
}

/// Writes the datagrams of one session into runs.
///
/// Room for the cipher's bytes in front of and behind each body is left by [`RunWriter::reserve`]; the run is
/// sealed when it closes.
pub struct RunWriter<'a> {
    /// Finished runs.
    out: &'a mut VecDeque<Run>,
    pool: &'a mut BufferPool,
    cipher: &'a mut dyn PacketCipher,
    path: Path,
    front: usize,
    back: usize,
    max_segments: usize,
    open: Option<Run>,
    /// Bytes and datagrams written so far.
    written: Written,
}

/// What a [`RunWriter`] wrote.
#[derive(Copy, Clone, Default, Debug, PartialEq, Eq)]
pub struct Written {
    /// Datagrams.
    pub datagrams: u64,
    /// Bytes of UDP payload.
    pub bytes: u64,
}

impl<'a> RunWriter<'a> {
    /// A writer of datagrams along `path`, sealed by `cipher`, at most `max_segments` to a run.
    pub fn new(
        out: &'a mut VecDeque<Run>,
        pool: &'a mut BufferPool,
        cipher: &'a mut dyn PacketCipher,
        path: Path,
        max_segments: usize,
    ) -> Self {
        let overhead = cipher.overhead();
        Self {
            out,
            pool,
            cipher,
            path,
            front: overhead.front,
            back: overhead.back,
            max_segments: max_segments.clamp(1, MAX_SEGMENTS),
            open: None,
            written: Written::default(),
        }
    }

    /// Room for one body of at most `max_len` bytes. Nothing is sent until [`RunWriter::commit`].
    pub fn reserve(&mut self, max_len: usize) -> &mut [u8] {
        let need = self.front + max_len + self.back;
        debug_assert!(
            need <= SMALL_BUFFER,
            "a datagram is at most {SMALL_BUFFER} bytes"
        );
        let mut run = match self.open.take() {
            Some(run) => run,
            None => self.fresh(),
        };
        self.grow(&mut run, need);
        let run = self.open.insert(run);
        let start = run.len + self.front;
        &mut run.buf[start..start + max_len]
    }

    /// Makes a datagram of the first `len` bytes of the room reserved last.
    pub fn commit(&mut self, len: usize) {
        let total = self.front + len + self.back;
        let Some(mut run) = self.open.take() else {
            debug_assert!(false, "commit without reserve");
            return;
        };
        if run.count > 0 && total > run.segment {
            // Longer than its predecessors: it starts the next run.
            run = self.split(run, total);
        }
        if run.count == 0 {
            run.segment = total;
        }
        run.len += total;
        run.count += 1;
        self.written.datagrams += 1;
        self.written.bytes += total as u64;
        let full = run.count == self.max_segments || run.len + run.segment > MAX_RUN_BYTES;
        if total < run.segment || full {
            self.close(run);
        } else {
            self.open = Some(run);
        }
    }

    /// As [`Self::commit`], for a datagram that finds out whether its size passes: it is a run of its own, and marked.
    pub fn commit_probe(&mut self, len: usize) {
        let total = self.front + len + self.back;
        let Some(mut run) = self.open.take() else {
            debug_assert!(false, "commit without reserve");
            return;
        };
        if run.count > 0 {
            run = self.split(run, total);
        }
        run.segment = total;
        run.len = total;
        run.count = 1;
        run.probe = true;
        self.written.datagrams += 1;
        self.written.bytes += total as u64;
        self.close(run);
    }

    /// Closes `run`; what is written behind it, `total` bytes, is at the beginning of the run that is returned.
    fn split(&mut self, run: Run, total: usize) -> Run {
        let mut next = self.fresh();
        next.buf[..total].copy_from_slice(&run.buf[run.len..run.len + total]);
        self.close(run);
        next
    }

    fn fresh(&mut self) -> Run {
        Run {
            buf: self.pool.small(),
            len: 0,
            segment: 0,
            count: 0,
            path: self.path,
            probe: false,
        }
    }

    /// The first `len` bytes of the room reserved last, before they are committed.
    pub fn reserved(&mut self, len: usize) -> &mut [u8] {
        match &mut self.open {
            Some(run) => {
                let start = run.len + self.front;
                &mut run.buf[start..start + len]
            }
            None => &mut [],
        }
    }

    /// Whether `n` bodies of `len` bytes each can stand in one run.
    #[must_use]
    pub const fn fits_one_run(&self, n: usize, len: usize) -> bool {
        n <= MAX_SEGMENTS && n * (self.front + len + self.back) <= MAX_RUN_BYTES
    }

    /// Appends `n` bodies of `len` bytes each, written by `fill` in one go.
    ///
    /// `fill` gets a buffer, the distance between bodies and the offset of the first one. They stay in one run; if
    /// the open one has no place for them all, it is closed. They must [fit one run](Self::fits_one_run).
    pub fn append_equal(
        &mut self,
        n: usize,
        len: usize,
        fill: impl FnOnce(&mut [u8], usize, usize),
    ) {
        debug_assert!(self.fits_one_run(n, len));
        if n == 0 {
            return;
        }
        let total = self.front + len + self.back;
        if let Some(run) = self.open.take() {
            let fits = run.count > 0
                && run.segment == total
                && run.count + n <= self.max_segments
                && run.len + n * total <= MAX_RUN_BYTES;
            if fits || run.count == 0 {
                self.open = Some(run);
            } else {
                self.close(run);
            }
        }
        let mut run = match self.open.take() {
            Some(run) => run,
            None => self.fresh(),
        };
        run.segment = total;
        self.grow(&mut run, n * total);
        let end = run.len + n * total;
        fill(&mut run.buf[run.len..end], total, self.front);
        run.len = end;
        run.count += n;
        self.written.datagrams += n as u64;
        self.written.bytes += (n * total) as u64;
        if run.count >= self.max_segments || run.len + total > MAX_RUN_BYTES {
            self.close(run);
        } else {
            self.open = Some(run);
        }
    }

    /// Makes room for `more` bytes behind what `run` holds.
    fn grow(&mut self, run: &mut Run, more: usize) {
        if run.len + more > run.buf.len() {
            // Grown once from the small size to the full one.
            let mut large = self.pool.large();
            // All of it: a datagram that is not committed yet moves along.
            large[..run.buf.len()].copy_from_slice(&run.buf);
            self.pool.put(std::mem::replace(&mut run.buf, large));
        }
    }

    /// Bytes around each body.
    pub(crate) const fn overhead(&self) -> usize {
        self.front + self.back
    }

    /// What was written so far.
    #[must_use]
    pub const fn written(&self) -> Written {
        self.written
    }

    /// Closes and seals what is open.
    pub fn finish(mut self) -> Written {
        if let Some(run) = self.open.take() {
            self.close(run);
        }
        self.written
    }

    fn close(&mut self, mut run: Run) {
        if run.count == 0 {
            self.pool.put(run.buf);
            return;
        }
        let (len, segment) = (run.len, run.segment);
        self.cipher.seal(&mut run.buf[..len], segment);
        self.out.push_back(run);
    }
}

/// Takes the buffer of a run that was sent.
pub fn recycle(pool: &mut BufferPool, run: Run) {
    pool.put(run.buf);
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_cipher::{MasterKey, NonceSource};
    use fulmar_wire::kcptun::Method;

    fn path() -> Path {
        Path {
            remote: ([127, 0, 0, 1], 1).into(),
            local: None,
        }
    }

    /// Segment, datagrams and bytes of a run.
    type Shape = (usize, usize, usize);

    fn write(lens: &[usize]) -> (Vec<Shape>, Vec<Vec<u8>>) {
        let key: MasterKey = fulmar_cipher::derive_key(b"k");
        let mut cipher = fulmar_cipher::kcptun(Method::None, &key, NonceSource::seeded([1; 32]));
        let (mut out, mut pool) = (VecDeque::new(), BufferPool::default());
        let mut w = RunWriter::new(&mut out, &mut pool, &mut *cipher, path(), MAX_SEGMENTS);
        for (i, &len) in lens.iter().enumerate() {
            let room = w.reserve(1400);
            room[..len].fill(u8::try_from(i % 251).expect("small"));
            w.commit(len);
        }
        let written = w.finish();
        assert_eq!(written.datagrams, lens.len() as u64);
        let shapes = out
            .iter()
            .map(|r| (r.segment(), r.count(), r.data().len()))
            .collect();
        let bodies = out
            .iter()
            .flat_map(|r| {
                r.data()
                    .chunks(r.segment())
                    .map(|d| d[20..].to_vec())
                    .collect::<Vec<_>>()
            })
            .collect();
        (shapes, bodies)
    }

    #[test]
    fn equal_sizes_share_a_run_and_order_is_kept() {
        let lens = [1000, 1000, 1000, 300, 1000, 1200, 40, 40];
        let (shapes, bodies) = write(&lens);
        assert_eq!(
            shapes,
            [
                (1020, 4, 3 * 1020 + 320),
                (1020, 1, 1020),
                (1220, 2, 1220 + 60),
                (60, 1, 60)
            ]
        );
        for (i, (body, len)) in bodies.iter().zip(lens).enumerate() {
            assert_eq!(body, &vec![i as u8; len]);
        }
    }

    #[test]
    fn a_probe_of_a_size_stands_alone() {
        let key: MasterKey = fulmar_cipher::derive_key(b"k");
        let mut cipher = fulmar_cipher::kcptun(Method::None, &key, NonceSource::seeded([1; 32]));
        let (mut out, mut pool) = (VecDeque::new(), BufferPool::default());
        let mut w = RunWriter::new(&mut out, &mut pool, &mut *cipher, path(), MAX_SEGMENTS);
        // Behind a run with room for it, before one of its size, and where there is none.
        for (i, (len, probe)) in [
            (1000, false),
            (1000, true),
            (1000, false),
            (900, false),
            (1400, true),
            (1300, true),
            (20, false),
        ]
        .into_iter()
        .enumerate()
        {
            w.reserve(1400)[..len].fill(i as u8);
            if probe {
                w.commit_probe(len);
            } else {
                w.commit(len);
            }
        }
        assert_eq!(w.finish().datagrams, 7);
        let runs: Vec<_> = out
            .iter()
            .map(|r| (r.is_probe(), r.count(), r.data().len(), r.data()[20]))
            .collect();
        assert_eq!(
            runs,
            [
                (false, 1, 1020, 0),
                (true, 1, 1020, 1),
                (false, 2, 1020 + 920, 2),
                (true, 1, 1420, 4),
                (true, 1, 1320, 5),
                (false, 1, 40, 6)
            ]
        );
    }

    #[test]
    fn a_run_is_bounded_in_datagrams_and_bytes() {
        let (shapes, bodies) = write(&[10; 150]);
        assert_eq!(shapes.iter().map(|s| s.1).collect::<Vec<_>>(), [64, 64, 22]);
        assert_eq!(bodies.len(), 150);
        let (shapes, bodies) = write(&[1380; 100]);
        assert!(shapes.iter().all(|s| s.2 <= MAX_RUN_BYTES && s.0 == 1400));
        assert_eq!(bodies.len(), 100);
    }
}
