//! What applications do on streams, written as programs; every byte that they read is checked.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use fulmar_session::layer::{Readable, StreamEvent, StreamId, Writable};
use fulmar_session::{Endpoint, Reason, SessionKey};
use fulmar_wire::time::Instant;

/// One step of an application. Reading goes on beside the steps.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Writes so many bytes.
    Write(u64),
    /// Waits until so many bytes have been read since the stream began.
    Read(u64),
    /// Waits for the peer's end.
    ReadEnd,
    /// Waits.
    Wait(Duration),
    /// Ends our direction.
    Finish,
    /// Cuts the stream; the program is over.
    Reset,
}

/// How an application reads: at most so many bytes each time, so often, beginning at a time.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Pace {
    pub(crate) from: Instant,
    pub(crate) bytes: usize,
    pub(crate) every: Duration,
}

/// How a stream is to end.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Expect {
    /// After exactly so many bytes, orderly.
    End(u64),
    /// It is cut, by us or by the peer.
    Cut,
    /// With its session.
    Lost,
    /// In any way.
    Anything,
}

/// What one end of a stream does.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) steps: Vec<Step>,
    pub(crate) pace: Option<Pace>,
    pub(crate) expect: Expect,
    /// Whether what it reads is what an application of ours writes.
    checked: bool,
}

impl Program {
    /// Reads whatever somebody else has written.
    pub(crate) fn unchecked(self) -> Self {
        Self {
            checked: false,
            ..self
        }
    }

    /// Reads anything, and ends in any way.
    pub(crate) fn tolerant(self) -> Self {
        Self {
            expect: Expect::Anything,
            ..self.unchecked()
        }
    }

    pub(crate) fn new(expect: Expect, steps: impl Into<Vec<Step>>) -> Self {
        Self {
            steps: steps.into(),
            pace: None,
            expect,
            checked: true,
        }
    }

    pub(crate) fn paced(self, pace: Pace) -> Self {
        Self {
            pace: Some(pace),
            ..self
        }
    }
}

/// The programs of both ends of a stream.
pub(crate) type Pair = (Program, Program);

/// Both ends send at the same time, and end.
pub(crate) fn bulk(up: u64, down: u64) -> Pair {
    let end = |send, receive| Program::new(Expect::End(receive), [Step::Write(send), Step::Finish]);
    (end(up, down), end(down, up))
}

/// The client sends and half-closes; the server answers after the end and closes.
pub(crate) fn half_close(up: u64, down: u64, after: Duration) -> Pair {
    (
        Program::new(Expect::End(down), [Step::Write(up), Step::Finish]),
        Program::new(
            Expect::End(up),
            [
                Step::ReadEnd,
                Step::Wait(after),
                Step::Write(down),
                Step::Finish,
            ],
        ),
    )
}

/// `count` requests and answers, one after the other, `gap` apart. The client notes how long each took.
pub(crate) fn requests(count: u64, request: u64, answer: u64, gap: Duration) -> Pair {
    let (mut client, mut server) = (Vec::new(), Vec::new());
    for i in 1..=count {
        client.extend([
            Step::Wait(gap),
            Step::Write(request),
            Step::Read(i * answer),
        ]);
        server.extend([Step::Read(i * request), Step::Write(answer)]);
    }
    client.push(Step::Finish);
    server.extend([Step::ReadEnd, Step::Finish]);
    (
        Program::new(Expect::End(count * answer), client),
        Program::new(Expect::End(count * request), server),
    )
}

/// How a stream did end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// All was sent, all was read.
    Done,
    /// It was cut.
    Cut,
    /// Its session ended.
    Lost(Reason),
}

/// An application at one end of a stream.
#[derive(Debug)]
pub(crate) struct App {
    program: Program,
    /// Seeds of what is sent and of what is expected.
    send: u64,
    receive: u64,
    step: usize,
    /// Bytes written in this step.
    step_bytes: u64,
    pub(crate) wrote: u64,
    pub(crate) read: u64,
    ended: bool,
    /// Whether it has read what the other end did not write.
    pub(crate) misled: bool,
    /// Whether the program waits for time.
    until: Option<Instant>,
    read_next: Option<Instant>,
    asked: Instant,
    /// From the beginning of a [`Step::Write`] to the end of the [`Step::Read`] that follows.
    pub(crate) latencies: Vec<Duration>,
    /// The longest time without anything read, and when something last was.
    pub(crate) longest_gap: Duration,
    pub(crate) last_read: Instant,
    pub(crate) done_at: Option<Instant>,
    pub(crate) outcome: Option<Outcome>,
    queued: bool,
}

impl App {
    fn new(program: Program, send: u64, receive: u64, now: Instant) -> Self {
        Self {
            program,
            send,
            receive,
            step: 0,
            step_bytes: 0,
            wrote: 0,
            read: 0,
            ended: false,
            misled: false,
            until: None,
            read_next: None,
            asked: now,
            latencies: Vec::new(),
            longest_gap: Duration::ZERO,
            last_read: now,
            done_at: None,
            outcome: None,
            queued: false,
        }
    }

    /// What is wrong with how it ended, if anything.
    pub(crate) fn complaint(&self) -> Option<String> {
        let fits = match (&self.outcome, self.program.expect) {
            (None, _) => false,
            (Some(Outcome::Done), Expect::End(n)) => self.read == n,
            (Some(Outcome::Cut), Expect::Cut) | (Some(Outcome::Lost(_)), Expect::Lost) => true,
            (_, Expect::Anything) => true,
            _ => false,
        };
        (!fits).then(|| {
            format!(
                "step {:?} (#{}), wrote {}, read {}, ended {}, outcome {:?}, expected {:?}",
                self.program.steps.get(self.step),
                self.step,
                self.wrote,
                self.read,
                self.ended,
                self.outcome,
                self.program.expect
            )
        })
    }
}

/// The applications of one end.
#[derive(Debug, Default)]
pub(crate) struct Apps {
    apps: BTreeMap<(SessionKey, StreamId), App>,
    ready: VecDeque<(SessionKey, StreamId)>,
    alarms: BTreeMap<(Instant, SessionKey, StreamId), ()>,
    /// Applications without an outcome.
    pub(crate) open: usize,
    /// Bytes read by all.
    pub(crate) read: u64,
}

impl Apps {
    pub(crate) fn start(
        &mut self,
        now: Instant,
        at: (SessionKey, StreamId),
        program: Program,
        send: u64,
        receive: u64,
    ) {
        self.apps.insert(at, App::new(program, send, receive, now));
        self.open += 1;
        self.wake(at);
    }

    pub(crate) fn wake(&mut self, at: (SessionKey, StreamId)) {
        if let Some(app) = self.apps.get_mut(&at)
            && app.outcome.is_none()
            && !std::mem::replace(&mut app.queued, true)
        {
            self.ready.push_back(at);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&(SessionKey, StreamId), &App)> {
        self.apps.iter()
    }

    pub(crate) fn get(&self, at: (SessionKey, StreamId)) -> &App {
        &self.apps[&at]
    }

    /// When an application wants to go on.
    pub(crate) fn next_alarm(&self) -> Option<Instant> {
        self.alarms.keys().next().map(|&(at, ..)| at)
    }

    pub(crate) fn on_event(&mut self, key: SessionKey, event: StreamEvent) {
        let (StreamEvent::Opened(id)
        | StreamEvent::Readable(id)
        | StreamEvent::Writable(id)
        | StreamEvent::Reset(id)) = event;
        self.wake((key, id));
    }

    /// The session is gone, and all streams with it.
    pub(crate) fn lost(&mut self, now: Instant, key: SessionKey, reason: &Reason) {
        for ((k, _), app) in &mut self.apps {
            if *k == key && app.outcome.is_none() {
                app.outcome = Some(Outcome::Lost(reason.clone()));
                app.done_at = Some(now);
                self.open -= 1;
            }
        }
    }

    /// Lets everyone go on who can; whether anyone could.
    pub(crate) fn run(&mut self, endpoint: &mut Endpoint, now: Instant) -> Result<bool, String> {
        while let Some((&(at, key, id), ())) = self.alarms.first_key_value()
            && at <= now
        {
            self.alarms.pop_first();
            self.wake((key, id));
        }
        let mut any = false;
        while let Some(at) = self.ready.pop_front() {
            let Some(app) = self.apps.get_mut(&at) else {
                continue;
            };
            app.queued = false;
            if app.outcome.is_some() {
                continue;
            }
            any = true;
            let before = app.read;
            app.go(endpoint, now, at)
                .map_err(|e| format!("{at:?}: {e}; {:?}", app.complaint()))?;
            self.read += app.read - before;
            if app.outcome.is_some() {
                app.done_at = Some(now);
                self.open -= 1;
                continue;
            }
            let alarms = [app.until, app.read_next].into_iter().flatten();
            for alarm in alarms.filter(|alarm| *alarm > now) {
                self.alarms.insert((alarm, at.0, at.1), ());
            }
        }
        Ok(any)
    }
}

impl App {
    fn go(
        &mut self,
        endpoint: &mut Endpoint,
        now: Instant,
        (key, id): (SessionKey, StreamId),
    ) -> Result<(), String> {
        loop {
            let mut moved = self.read_some(endpoint, now, key, id)?;
            if self.outcome.is_some() {
                return Ok(());
            }
            moved |= self.step(endpoint, now, key, id)?;
            if self.outcome.is_some() {
                return Ok(());
            }
            if self.step >= self.program.steps.len() && self.ended {
                endpoint.close(now, key, id);
                self.outcome = Some(Outcome::Done);
                return Ok(());
            }
            if !moved {
                return Ok(());
            }
        }
    }

    fn read_some(
        &mut self,
        endpoint: &mut Endpoint,
        now: Instant,
        key: SessionKey,
        id: StreamId,
    ) -> Result<bool, String> {
        let mut room = usize::MAX;
        if let Some(pace) = self.program.pace {
            let next = *self.read_next.get_or_insert(pace.from);
            if now < next {
                // Only bytes are kept waiting; a cut is noticed at once.
                room = 0;
            } else {
                room = pace.bytes;
            }
        }
        let mut moved = false;
        while !self.ended {
            match endpoint.read(key, id) {
                Readable::Bytes(bytes) if room > 0 => {
                    let n = bytes.len().min(room);
                    match check(self.receive, self.read, &bytes[..n]) {
                        Err(wrong) if self.program.checked => return Err(wrong),
                        checked => self.misled |= checked.is_err(),
                    }
                    endpoint.consume(now, key, id, n);
                    self.read += n as u64;
                    self.longest_gap = self.longest_gap.max(now - self.last_read);
                    self.last_read = now;
                    room -= n;
                    moved = true;
                }
                Readable::Bytes(_) | Readable::Pending => break,
                Readable::Finished => {
                    self.ended = true;
                    moved = true;
                }
                Readable::Reset => {
                    endpoint.reset(now, key, id);
                    self.outcome = Some(Outcome::Cut);
                    return Ok(true);
                }
            }
        }
        if let Some(pace) = self.program.pace
            && room == 0
            && self.read_next.is_some_and(|at| at <= now)
        {
            self.read_next = Some(now + pace.every);
        }
        Ok(moved)
    }

    fn step(
        &mut self,
        endpoint: &mut Endpoint,
        now: Instant,
        key: SessionKey,
        id: StreamId,
    ) -> Result<bool, String> {
        let Some(step) = self.program.steps.get(self.step) else {
            return Ok(false);
        };
        let done = match *step {
            Step::Write(n) => {
                if self.step_bytes == 0 {
                    self.asked = now;
                }
                let left = usize::try_from(n - self.step_bytes).unwrap_or(usize::MAX);
                match endpoint.write(key, id, left) {
                    Writable::Room(room) => {
                        let len = room.len().min(left);
                        fill(self.send, self.wrote, &mut room[..len]);
                        endpoint.commit(key, id, len);
                        self.wrote += len as u64;
                        self.step_bytes += len as u64;
                        if self.step_bytes < n {
                            return Ok(true);
                        }
                        true
                    }
                    Writable::Full => return Ok(false),
                    Writable::Stopped => {
                        // The peer wants no more: that is as good as a cut.
                        endpoint.reset(now, key, id);
                        self.outcome = Some(Outcome::Cut);
                        return Ok(true);
                    }
                }
            }
            Step::Read(n) => {
                let there = self.read >= n;
                if there {
                    self.latencies.push(now - self.asked);
                }
                there
            }
            Step::ReadEnd => self.ended,
            Step::Wait(time) => {
                let until = *self.until.get_or_insert(now + time);
                until <= now
            }
            Step::Finish => {
                endpoint.finish(now, key, id);
                true
            }
            Step::Reset => {
                endpoint.reset(now, key, id);
                self.outcome = Some(Outcome::Cut);
                return Ok(true);
            }
        };
        if done {
            self.step += 1;
            self.step_bytes = 0;
            self.until = None;
        }
        Ok(done)
    }
}

/// Eight bytes of the endless stream `seed`. Streams of odd seeds are easy to compress.
fn word(seed: u64, index: u64) -> [u8; 8] {
    let mut z = seed
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(index.wrapping_mul(0xd1b5_4a32_d192_ed03));
    z = (z ^ (z >> 32)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^= z >> 29;
    if seed % 2 == 1 {
        z = z & 0x0101_0101_0101_0101 | 0x6060_6060_6060_6060;
    }
    z.to_le_bytes()
}

/// Fills `out` with what stands at `offset` of the stream `seed`.
pub(crate) fn fill(seed: u64, offset: u64, out: &mut [u8]) {
    each(seed, offset, out.len(), |range, bytes| {
        out[range].copy_from_slice(bytes);
    });
}

/// Compares `got` with what stands at `offset` of the stream `seed`.
fn check(seed: u64, offset: u64, got: &[u8]) -> Result<(), String> {
    let mut wrong = None;
    each(seed, offset, got.len(), |range, bytes| {
        if wrong.is_none() && got[range.clone()] != *bytes {
            wrong = Some(offset + range.start as u64);
        }
    });
    wrong.map_or(Ok(()), |at| Err(format!("wrong bytes near {at}")))
}

fn each(seed: u64, offset: u64, len: usize, mut f: impl FnMut(core::ops::Range<usize>, &[u8])) {
    let mut at = 0;
    while at < len {
        let position = offset + at as u64;
        let skip = (position % 8) as usize;
        let n = (8 - skip).min(len - at);
        f(at..at + n, &word(seed, position / 8)[skip..skip + n]);
        at += n;
    }
}
