//! Lines on their way from those who log to the one thread that writes.
//!
//! Nobody who logs ever waits for a terminal, a pipe or a disk: a line is put into a queue of [`QUEUE_BYTES`] and is dropped
//! when there is no room. What was dropped is counted, and told in a line of its own at the place where it is missing.
//!
//! The writer has one buffer and the queue has another; they are exchanged. The writer must not allocate (see [`start_plain_thread`]): only those who
//! log let a buffer grow, and always leave room for what the writer itself adds.

use std::fmt::Write as _;
use std::io;
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fulmar_runtime::{PlainThread, start_plain_thread};

/// Bytes of lines that wait. As many again may be at the writer.
pub(super) const QUEUE_BYTES: usize = 256 * 1024;
/// Bytes beyond that for what is said when the program ends.
const URGENT_BYTES: usize = 16 * 1024;
/// Room for the line that tells how many were dropped.
const NOTICE_BYTES: usize = 512;
/// Of which so many for what comes behind the head.
const COUNT_BYTES: usize = 128;
/// Bytes of the writer's stack.
const STACK_BYTES: usize = 64 * 1024;
/// Bytes before each record: its length, and where it goes.
const HEADER: usize = 5;

/// Room that is always left in a buffer.
const RESERVED: usize = HEADER + NOTICE_BYTES;

/// Where a record goes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The log file.
    File,
    /// The system's log.
    Syslog,
}

impl Output {
    const ALL: [Self; 4] = [Self::Stdout, Self::Stderr, Self::File, Self::Syslog];
}

/// What the writer writes to. It may block; it must not allocate, but when it is asked to reopen.
pub(super) trait Outlets: Send + 'static {
    /// Writes one record whole.
    ///
    /// # Errors
    /// When it, or a part of it, is lost.
    fn write(&mut self, output: Output, record: &[u8]) -> io::Result<()>;

    /// Opens the log file again by its path; without success the old one stays.
    ///
    /// # Errors
    /// When the file cannot be opened.
    fn reopen(&mut self) -> io::Result<()>;
}

/// The queue and its writer.
pub(super) struct Queue<O> {
    state: Mutex<State>,
    /// The writer waits here for records.
    more: Condvar,
    /// Who flushes waits here for the writer.
    idle: Condvar,
    /// The writer's own; the thread holds it while it runs.
    writer: Mutex<Writer<O>>,
}

struct State {
    /// Records, one behind the other.
    waiting: Vec<u8>,
    /// Lines that were dropped, or could not be written, and have not been told yet.
    lost: u64,
    /// A line did not fit: what comes behind it is dropped as well until the writer has made room.
    full: bool,
    /// How the line begins that tells, and where it goes; empty until somebody who logs has seen that something is lost.
    head: String,
    head_output: Output,
    /// Behind this many bytes of `waiting` the log file is to be opened again.
    reopen: Option<usize>,
    /// What became of that.
    reopened: Option<io::Result<()>>,
    /// The writer waits for records.
    idle: bool,
}

struct Writer<O> {
    records: Vec<u8>,
    outlets: O,
}

impl<O: Outlets> Queue<O> {
    /// Starts the writer.
    ///
    /// # Errors
    /// When the system permits no further thread.
    pub(super) fn start(outlets: O) -> io::Result<&'static Self> {
        let buffer = || Vec::with_capacity(RESERVED);
        let queue: &'static Self = Box::leak(Box::new(Self {
            state: Mutex::new(State {
                waiting: buffer(),
                lost: 0,
                full: false,
                head: String::with_capacity(NOTICE_BYTES),
                head_output: Output::Stderr,
                reopen: None,
                reopened: None,
                idle: false,
            }),
            more: Condvar::new(),
            idle: Condvar::new(),
            writer: Mutex::new(Writer {
                records: buffer(),
                outlets,
            }),
        }));
        start_plain_thread(STACK_BYTES, queue)?;
        Ok(queue)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a line, or drops it. `head` makes the beginning of a line; it is asked for when something has been lost.
    pub(super) fn push(&self, output: Output, line: &[u8], head: impl FnOnce() -> String) {
        let mut guard = self.state();
        let state = &mut *guard;
        state.full = state.full || !append(&mut state.waiting, output, line, QUEUE_BYTES);
        state.lost += u64::from(state.full);
        let silent = state.lost > 0 && state.head.is_empty();
        self.wake(guard);
        if silent {
            let head = head();
            let mut state = self.state();
            if state.head.is_empty() {
                state.head_output = output;
                state.head.push_str(&head);
                state.head.reserve(COUNT_BYTES);
            }
            self.wake(state);
        }
    }

    /// As [`push`](Self::push), for what matters more than the log: it may use what lines may not.
    pub(super) fn push_urgent(&self, output: Output, text: &[u8]) {
        let mut state = self.state();
        // Without room there is nobody to tell, either.
        let _ = append(&mut state.waiting, output, text, QUEUE_BYTES + URGENT_BYTES);
        self.wake(state);
    }

    /// Asks the writer to open the log file again, behind what has been queued so far. [`reopened`](Self::reopened) tells how it went.
    pub(super) fn reopen(&self) {
        let mut state = self.state();
        state.reopen = Some(state.waiting.len());
        state.reopened = None;
        self.wake(state);
    }

    /// What became of the last [`reopen`](Self::reopen); `None` while it has not been done, and from the second time on.
    pub(super) fn reopened(&self) -> Option<io::Result<()>> {
        self.state().reopened.take()
    }

    /// Waits until everything is written, but no longer than `limit`; whether it is.
    pub(super) fn flush(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        let mut state = self.state();
        while !state.idle || state.has_work() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.idle.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        // A writer that is busy looks again by itself; waking it would be a system call for each line.
        let idle = mem::take(&mut state.idle);
        drop(state);
        if idle {
            self.more.notify_one();
        }
    }
}

/// Puts a record behind the others in `records`, if it fits into `limit` bytes with them and there is memory for it.
fn append(records: &mut Vec<u8>, output: Output, text: &[u8], limit: usize) -> bool {
    let len = records.len() + HEADER + text.len();
    let needed = len + RESERVED;
    if len > limit {
        return false;
    }
    if needed > records.capacity() {
        let wanted = needed.max((2 * records.capacity()).min(limit + RESERVED));
        if records.try_reserve_exact(wanted - records.len()).is_err() {
            return false;
        }
    }
    put(records, output, text);
    true
}

/// Puts a record behind the others in `records`.
fn put(records: &mut Vec<u8>, output: Output, text: &[u8]) {
    // No record is longer than the queue.
    let len = u32::try_from(text.len()).unwrap_or(0);
    records.extend_from_slice(&len.to_le_bytes());
    records.push(output as u8);
    records.extend_from_slice(&text[..usize::try_from(len).unwrap_or(0)]);
}

/// The record at the beginning of `records`, and what is behind it.
fn split(records: &[u8]) -> Option<(Output, &[u8], &[u8])> {
    let (len, rest) = records.split_first_chunk::<4>()?;
    let (output, rest) = rest.split_first()?;
    let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
    let (text, rest) = rest.split_at_checked(len)?;
    Some((*Output::ALL.get(usize::from(*output))?, text, rest))
}

impl<O: Outlets> PlainThread for Queue<O> {
    /// Writes for ever.
    fn run(&self) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let writer = &mut *writer;
        let mut state = self.state();
        loop {
            if !state.has_work() {
                state.idle = true;
                self.idle.notify_all();
                let woken = self.more.wait(state);
                state = woken.unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.idle = false;
            mem::swap(&mut state.waiting, &mut writer.records);
            state.full = false;
            let reopen = state.reopen.take();
            let told = state.tell(&mut writer.records);
            drop(state);
            let (lost, reopened) = writer.write(reopen, told);
            state = self.state();
            state.lost += lost;
            if reopened.is_some() && state.reopen.is_none() {
                state.reopened = reopened;
            }
        }
    }
}

impl State {
    fn has_work(&self) -> bool {
        let can_tell = self.lost > 0 && !self.head.is_empty();
        !self.waiting.is_empty() || self.reopen.is_some() || can_tell
    }

    /// Puts the line behind `records` that tells what is lost, if somebody has said how it begins. Returns how many lines it
    /// tells of.
    fn tell(&mut self, records: &mut Vec<u8>) -> u64 {
        if self.lost == 0 || self.head.is_empty() {
            return 0;
        }
        let told = mem::take(&mut self.lost);
        let lines = if told == 1 { "line" } else { "lines" };
        let _ = writeln!(
            self.head,
            "{told} log {lines} dropped here: the log could not be written, or not quickly enough"
        );
        put(records, self.head_output, self.head.as_bytes());
        self.head.clear();
        told
    }
}

impl<O: Outlets> Writer<O> {
    /// Writes all records, and opens the file again behind the first `reopen` bytes. The last record tells of `told` lines. Returns
    /// how many lines were lost, and what became of the file.
    fn write(&mut self, reopen: Option<usize>, told: u64) -> (u64, Option<io::Result<()>>) {
        let mut lost = 0;
        let mut reopened = None;
        let mut rest = &self.records[..];
        loop {
            let done = self.records.len() - rest.len();
            if reopened.is_none() && reopen.is_some_and(|at| at <= done) {
                reopened = Some(self.outlets.reopen());
            }
            let Some((output, text, after)) = split(rest) else {
                break;
            };
            rest = after;
            if self.outlets.write(output, text).is_err() {
                // The lines that the last one tells of have still not been told.
                lost += match rest.is_empty() {
                    true => told.max(1),
                    false => 1,
                };
            }
        }
        self.records.clear();
        (lost, reopened)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    /// Writes nothing before it is let, and then keeps what it was given.
    struct Gate {
        let_in: Receiver<bool>,
        written: Arc<Mutex<Vec<String>>>,
    }

    impl Outlets for Gate {
        fn write(&mut self, _: Output, record: &[u8]) -> io::Result<()> {
            // A gate that is gone is open.
            if !self.let_in.recv().unwrap_or(true) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let text = String::from_utf8_lossy(record).trim_end().to_owned();
            self.written.lock().expect("lock").push(text);
            Ok(())
        }

        fn reopen(&mut self) -> io::Result<()> {
            self.written.lock().expect("lock").push("reopened".into());
            Ok(())
        }
    }

    struct Bench {
        queue: &'static Queue<Gate>,
        gate: Option<Sender<bool>>,
        written: Arc<Mutex<Vec<String>>>,
    }

    impl Bench {
        fn new() -> Self {
            let (gate, let_in) = channel();
            let written = Arc::new(Mutex::new(Vec::new()));
            let queue = Queue::start(Gate {
                let_in,
                written: Arc::clone(&written),
            });
            Self {
                queue: queue.expect("thread"),
                gate: Some(gate),
                written,
            }
        }

        fn push(&self, line: &str) {
            let head = || "WARN ".to_owned();
            self.queue.push(Output::Stderr, line.as_bytes(), head);
        }

        /// Gives the writer a line that it cannot write: from now on lines only wait.
        fn block(&self) {
            self.push("first");
            let end = Instant::now() + LONG;
            while !self.queue.state().waiting.is_empty() {
                assert!(Instant::now() < end, "the writer does not run");
                std::thread::yield_now();
            }
        }

        /// Lets everything be written; what was.
        fn open(&mut self) -> Vec<String> {
            self.gate = None;
            assert!(self.queue.flush(LONG));
            self.written.lock().expect("lock").clone()
        }
    }

    /// How many lines a line tells of that are missing.
    fn dropped(line: &str) -> Option<u64> {
        let (count, rest) = line.strip_prefix("WARN ")?.split_once(' ')?;
        assert!(rest.starts_with("log lines dropped here: "), "{line}");
        count.parse().ok()
    }

    #[test]
    fn a_log_that_blocks_drops_counts_and_tells_where() {
        let mut bench = Bench::new();
        bench.block();
        let line = "x".repeat(1000);
        for _ in 0..1000 {
            bench.push(&line);
        }
        assert!(!bench.queue.flush(Duration::from_millis(1)));
        let written = bench.open();
        let kept = written.iter().filter(|text| **text == line).count();
        let told: u64 = written.iter().filter_map(|text| dropped(text)).sum();
        assert_eq!(told, 1000 - kept as u64);
        assert!((200..=600).contains(&kept), "{kept}");
        assert!(written.last().is_some_and(|text| dropped(text).is_some()));
        // And it goes on as before.
        bench.push("after");
        assert_eq!(bench.open().last().map(String::as_str), Some("after"));
    }

    #[test]
    fn a_disk_that_was_full_is_told_of() {
        let bench = Bench::new();
        let gate = bench.gate.as_ref().expect("gate");
        for ok in [false, false, false, true, true] {
            gate.send(ok).expect("gate");
        }
        for line in ["one", "two", "three"] {
            bench.push(line);
            assert!(bench.queue.flush(LONG));
        }
        let written = bench.written.lock().expect("lock").clone();
        assert_eq!(written[0], "three");
        assert_eq!(dropped(&written[1]), Some(2));
    }

    #[test]
    fn the_file_is_opened_again_between_two_lines() {
        let mut bench = Bench::new();
        bench.push("old");
        bench.push("old too");
        bench.queue.reopen();
        bench.push("new");
        assert_eq!(bench.open(), ["old", "old too", "reopened", "new"]);
        assert!(bench.queue.reopened().is_some_and(|r| r.is_ok()));
        assert!(bench.queue.reopened().is_none());
    }

    #[test]
    fn an_error_at_the_end_has_room_left() {
        let mut bench = Bench::new();
        bench.block();
        for _ in 0..3000 {
            bench.push(&"x".repeat(500));
        }
        bench.queue.push_urgent(Output::Stderr, b"error: oh dear\n");
        let written = bench.open();
        assert!(written.contains(&"error: oh dear".to_owned()));
        assert!(written.last().is_some_and(|last| last.contains("dropped")));
    }

    /// The writer cannot allocate, so there must be room for what it adds.
    #[test]
    fn there_is_always_room_for_the_line_that_counts() {
        let mut bench = Bench::new();
        for _ in 0..100_000 {
            bench.push("a line of some length");
        }
        bench.queue.push_urgent(Output::Stderr, &[b'x'; 9000]);
        let room = |buffer: &Vec<u8>| buffer.capacity() - buffer.len();
        let most = QUEUE_BYTES + URGENT_BYTES + RESERVED;
        {
            let state = bench.queue.state();
            assert!(room(&state.waiting) >= RESERVED);
            assert!(state.waiting.capacity() <= most);
            assert!(state.head.capacity() >= NOTICE_BYTES);
        }
        bench.open();
        let state = bench.queue.state();
        assert!(room(&state.waiting) >= RESERVED);
        assert!(state.waiting.capacity() <= most);
        assert!(state.head.capacity() >= NOTICE_BYTES);
    }
}
