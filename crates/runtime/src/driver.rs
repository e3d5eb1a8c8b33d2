//! The task that owns a socket, all its sessions and all their local connections.
//!
//! One turn: take what arrived, move bytes between streams and local sockets, write what may be sent into runs and
//! hand them to the socket. Nothing in it is shared, so nothing is locked and nothing hops between tasks. A turn is
//! bounded; when there is more to do the task yields and is woken again at once.

mod own;
mod pumps;
mod reach;
mod stop;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use fulmar_netio::{RecvBuffers, RecvMeta, Transmit, Trouble};
use fulmar_session::dialect::PathEvent;
use fulmar_session::dialect::libev::Settings;
use fulmar_session::endpoint::Event;
use fulmar_session::layer::{Notice, StreamEvent, StreamId};
use fulmar_session::memory::Memory;
use fulmar_session::session::Session;
use fulmar_session::transmit::{Path, Run};
use fulmar_session::{Endpoint, Reason, SessionKey};
use fulmar_wire::seq::Seq;
use fulmar_wire::time::Instant;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use crate::access::{AccessLog, Opened};
use crate::advice::Advice;
use crate::clock::Clock;
use crate::describe::{Description, Questions, SessionInfo};
use crate::dial::Dial;
use crate::inquiry::Question;
use crate::log_kind;
use crate::pump::{self, Ended, Orphan, Pump, Turn};
use crate::registry::Exchange;
use crate::socket::Datagrams;
use crate::stats::{Hub, Published};
use crate::wake::ReadyList;
use own::Own;
use pumps::Pumps;
use reach::{Reach, tell_opened};

/// Rounds of work before a driver lets other tasks run, and its thread learns what else is ready: local sockets of other streams, for
/// one. More make those wait, fewer cost system calls (6: a tenth more CPU time for each byte).
const ROUNDS: usize = 16;
/// Most runs taken from the socket in one call; raw sockets give every packet as a run of its own.
const RECV_METAS: usize = 32;
/// Bytes taken from the socket in one round.
const RECV_BYTES: usize = 512 * 1024;
/// Runs given to the socket in one call.
const SEND_RUNS: usize = 16;
/// How often pumps that need watching are looked at.
const TICK: Duration = Duration::from_secs(1);
/// After this long with next to no traffic, memory that a burst took is given back.
const QUIET: Duration = Duration::from_secs(5);
/// Bytes through the socket within [`QUIET`] that are next to no traffic: a shell, a call, many keep-alives.
const QUIET_BYTES: usize = 256 * 1024;
/// What the end of a stream counts for: the memory that it leaves.
const STREAM_BYTES: usize = 1024;

/// The log target of lines about single streams, which `--quiet` turns off.
pub const STREAM_LOG: &str = "fulmar::stream";

/// What a driver is told.
pub(crate) enum Command {
    /// Carry this connection on a new stream.
    Carry(Orphan),
    /// Names were looked up again: where the other end is, best first.
    Resolved(Vec<SocketAddr>),
    /// Our own addresses are these.
    LocalChanged(Vec<SocketAddr>),
    /// Another socket takes the place of the one that there is, and these are its addresses.
    Rebind(Box<Datagrams>, Vec<SocketAddr>),
    /// New sessions are built from these settings, and a client pings after so much silence.
    Reload(Box<Settings>, Option<Duration>),
    /// New streams go to another target, which has this name.
    Target(Box<dyn Fn() -> Dial + Send>, String),
    /// Ask the server whether it is there, unless it has said so a short while ago; and say whether it is being asked.
    Inquire(Option<Question>),
    /// Whether the server is down: connections that wait for it are given up soon.
    Down(bool),
    /// Give connections back that another session may carry: nothing has been heard of the server. Then end.
    Surrender,
    /// End: the session has expired or the program stops.
    Stop,
}

/// What a driver of a client tells.
pub(crate) enum Report {
    /// Something of the server has opened for the first time.
    Answers,
    /// The session does not answer; new connections should go elsewhere.
    Suspect,
    /// It answers again.
    Recovered,
    /// These connections have to be carried by another session.
    Orphans(Vec<Orphan>),
    /// The number of its streams.
    Streams(usize),
    /// Something was found out about the path beside conversations.
    Path(PathEvent),
}

/// Which end it is, and what belongs to that.
pub(crate) enum Side {
    /// A client: connections come as commands.
    Client {
        /// Whether it goes on after a session has ended.
        lasts: bool,
        /// Where reports go.
        reports: mpsc::UnboundedSender<(u64, Report)>,
        /// What reports are signed with.
        id: u64,
    },
    /// A server: streams are joined to a target.
    Server {
        /// Makes a connection to the target.
        dial: Box<dyn Fn() -> Dial + Send>,
        /// Its name, for the log.
        target: String,
        /// Where clients of streams are named.
        access: AccessLog,
        /// Where reports go, if somebody wants them, and what they are signed with.
        reports: Option<(mpsc::UnboundedSender<(u64, Report)>, u64)>,
    },
}

/// Everything a driver is made of.
pub(crate) struct Setup {
    pub(crate) clock: Clock,
    pub(crate) socket: Datagrams,
    pub(crate) endpoint: Endpoint,
    pub(crate) side: Side,
    pub(crate) commands: mpsc::Receiver<Command>,
    /// Its place among the drivers of its port, if there are several.
    pub(crate) exchange: Option<Exchange>,
    pub(crate) hub: Hub,
    /// What the log says of the other end.
    pub(crate) advice: Advice,
    /// Where a client looks for its server.
    pub(crate) servers: Vec<SocketAddr>,
    pub(crate) close_wait: Duration,
}

/// See the module's documentation. Ends when it is told to, when its commands end, or, at a client, with its session.
pub(crate) struct Driver {
    clock: Clock,
    socket: Datagrams,
    own: Own,
    endpoint: Endpoint,
    side: Side,
    commands: mpsc::Receiver<Command>,
    questions: Questions,
    exchange: Option<Exchange>,
    hub: Hub,
    published: Arc<Published>,
    advice: Advice,
    reach: Reach,
    close_wait: Duration,
    buffers: RecvBuffers,
    metas: Vec<RecvMeta>,
    pumps: Pumps<SessionKey, StreamId, Pump>,
    watched: usize,
    woken: ReadyList,
    queue: Vec<usize>,
    /// Runs that the socket has not taken yet, and how much of the first one it has.
    unsent: std::collections::VecDeque<Run>,
    unsent_bytes: usize,
    timer: Pin<Box<tokio::time::Sleep>>,
    timer_at: Option<Instant>,
    next_tick: Option<Instant>,
    /// Bytes that have come in or gone out since the watch for quiet began, and when that was.
    traffic: usize,
    traffic_since: Instant,
    /// Memory has been given back since the last burst.
    shrunk: bool,
    ending: Option<Reason>,
    /// It was told to end: until when it may take ([`stop`]).
    stopping: Option<Instant>,
    troubles: Troubles,
}

/// Send errors already told, each once until it has been quiet for a while.
#[derive(Default)]
struct Troubles {
    last: Option<(Trouble, Instant)>,
}

/// What the sessions of all drivers of this process hold.
static MEMORY: LazyLock<Arc<Memory>> = LazyLock::new(Arc::default);

impl Driver {
    pub(crate) fn new(setup: Setup) -> Self {
        let Setup {
            clock,
            socket,
            mut endpoint,
            side,
            commands,
            exchange,
            hub,
            advice,
            servers,
            close_wait,
        } = setup;
        let (published, questions) = hub.register();
        endpoint.share_memory(MEMORY.clone());
        let buffers = RecvBuffers::default();
        Self {
            traffic: 0,
            traffic_since: clock.now(),
            reach: Reach::new(clock.now(), servers),
            own: Own::new(socket.local_addr(), clock.now()),
            clock,
            socket,
            endpoint,
            side,
            commands,
            questions,
            exchange,
            hub,
            published,
            advice,
            close_wait,
            buffers,
            metas: vec![RecvMeta::EMPTY; RECV_METAS],
            pumps: Pumps::default(),
            watched: 0,
            woken: ReadyList::default(),
            queue: Vec::new(),
            unsent: std::collections::VecDeque::new(),
            unsent_bytes: 0,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            timer_at: None,
            next_tick: None,
            shrunk: true,
            ending: None,
            stopping: None,
            troubles: Troubles::default(),
        }
    }

    /// One round: `Ok(true)` when anything was done.
    fn round(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut worked = self.take_commands(cx);
        worked |= self.take_questions(cx);
        if let Some(exchange) = &mut self.exchange {
            worked |= exchange.take(cx, &mut self.endpoint, self.clock.now());
        }
        worked |= self.receive(cx)?;
        let now = self.clock.now();
        self.events(now);
        worked |= self.pump(cx, now);
        worked |= self.transmit(cx, now)?;
        self.icmp_errors(now);
        self.events(now);
        Ok(worked || !self.queue.is_empty())
    }

    fn take_commands(&mut self, cx: &mut Context<'_>) -> bool {
        let mut worked = false;
        while self.ending.is_none()
            && let Poll::Ready(command) = self.commands.poll_recv(cx)
        {
            if command.is_none() && self.stopping.is_some() {
                break;
            }
            worked = true;
            match command {
                Some(Command::Carry(orphan)) if self.stopping.is_some() => orphan.conn.abort(),
                Some(Command::Carry(orphan)) => self.carry(orphan),
                Some(Command::Resolved(addrs)) => {
                    self.socket.resolved(&addrs);
                    self.reach.resolved(&addrs);
                    self.endpoint.resolved(self.clock.now(), addrs);
                }
                Some(Command::LocalChanged(local)) => self.endpoint.local_changed(local),
                Some(Command::Rebind(socket, local)) => {
                    self.socket = *socket;
                    self.own = Own::new(self.socket.local_addr(), self.clock.now());
                    // What the old one had taken a part of begins anew.
                    self.unsent_bytes = 0;
                    self.endpoint.local_changed(local);
                }
                Some(Command::Reload(settings, keepalive)) => {
                    self.endpoint.reload(&settings, keepalive);
                }
                Some(Command::Target(to, name)) => {
                    if let Side::Server { dial, target, .. } = &mut self.side {
                        (*dial, *target) = (to, name);
                    }
                }
                Some(Command::Inquire(question)) => {
                    let asked = self.endpoint.inquire(self.clock.now());
                    if let Some(question) = question {
                        // Who asked may have gone.
                        let _ = question.send(asked);
                    }
                }
                Some(Command::Down(down)) => self.set_down(down),
                Some(Command::Surrender) => {
                    let keys: Vec<_> = self.endpoint.sessions().collect();
                    for key in keys {
                        self.surrender(key);
                    }
                }
                Some(Command::Stop) => self.stop(),
                None => self.ending = Some(Reason::Closed),
            }
        }
        worked
    }

    /// Tells the status page about all sessions.
    fn take_questions(&mut self, cx: &mut Context<'_>) -> bool {
        let mut worked = false;
        while let Poll::Ready(Some(to)) = self.questions.poll_recv(cx) {
            let now = self.clock.now();
            let sessions = self.endpoint.sessions();
            // Who asked may have gone.
            let _ = to.send(Description {
                sessions: sessions.filter_map(|key| self.describe(key, now)).collect(),
                obfs: self.socket.obfs_contexts(),
            });
            worked = true;
        }
        worked
    }

    /// Takes what has arrived: all of it, so that what follows is done once, but no more than fits a cache.
    fn receive(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut received = 0;
        while received < RECV_BYTES {
            let now = self.clock.now();
            let hurry = self.endpoint.is_held_back();
            let n = match self
                .socket
                .poll_recv(cx, now, hurry, &mut self.buffers, &mut self.metas)
            {
                Poll::Pending => break,
                Poll::Ready(n) => n?,
            };
            for meta in &self.metas[..n] {
                let path = Path {
                    remote: meta.src,
                    local: meta.dst_ip,
                };
                let run = self.buffers.run_mut(meta);
                received += run.len();
                if self.own.is(now, meta.src, meta.dst_ip) {
                    let datagrams = run.len().div_ceil(meta.segment.max(1));
                    self.endpoint.reflected(datagrams as u64);
                    continue;
                }
                let opened = self.endpoint.opened();
                self.endpoint.handle_run(now, path, run, meta.segment);
                if self.socket.has_strangers() && self.endpoint.opened() != opened {
                    self.socket.authenticate(meta.src);
                }
                if let Some(exchange) = &self.exchange {
                    exchange.pass_on(&mut self.endpoint);
                }
            }
            if !self.reach.answers() && self.endpoint.opened() > 0 {
                self.first_answer(now);
            }
            // A crowd of streams that opens at once need not queue up.
            self.events(now);
            // Where nothing was of use, something else may be.
            received += 1;
        }
        self.traffic += received;
        Ok(received > 0)
    }

    /// Gives streams whose socket is ready, or that have something, their turn.
    fn pump(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut woken = Vec::new();
        std::mem::swap(&mut woken, &mut self.queue);
        self.woken.take(cx.waker(), &mut woken);
        let worked = !woken.is_empty();
        for index in woken.drain(..) {
            self.drive(index, now);
        }
        // The list that was drained keeps its memory; what was queued meanwhile is short.
        woken.append(&mut self.queue);
        self.queue = woken;
        worked
    }

    fn drive(&mut self, index: usize, now: Instant) {
        let Some(pump) = self.pumps.get_mut(index) else {
            return;
        };
        pump.queued = false;
        let was = pump.is_watched();
        let turn = pump.drive(&mut self.endpoint, now);
        self.after_turn(index, was, turn);
    }

    fn after_turn(&mut self, index: usize, was_watched: bool, turn: Turn) {
        let Some(pump) = self.pumps.get_mut(index) else {
            return;
        };
        match turn {
            Turn::Idle => {}
            Turn::Again => enqueue(&mut self.queue, pump, index),
            Turn::Over(ended) => {
                self.watched -= usize::from(was_watched);
                let (session, stream) = (pump.session, pump.stream);
                return self.over(session, stream, &ended);
            }
        }
        match (was_watched, pump.is_watched()) {
            (false, true) => self.watched += 1,
            (true, false) => self.watched -= 1,
            _ => {}
        }
    }

    fn over(&mut self, session: SessionKey, stream: StreamId, ended: &Ended) {
        let Some(pump) = self.pumps.remove(session, stream) else {
            return;
        };
        self.traffic += STREAM_BYTES;
        let name = match &self.side {
            Side::Client { .. } => pump.name.as_deref().unwrap_or("?"),
            Side::Server { target, .. } => target,
        };
        let stream = pump.stream.wire();
        match ended {
            Ended::Clean => {
                info!(name: log_kind::STREAMS_CLOSED, target: STREAM_LOG, "stream closed: {name} ({stream})");
            }
            Ended::DialFailed(e) => {
                self.advice.warn(&format!(
                    "cannot reach the target {name}: {e}; streams are reset"
                ));
                info!(name: log_kind::STREAMS_RESET, target: STREAM_LOG, "stream reset: {name} ({stream}): {e}");
            }
            Ended::LocalError(e) => {
                info!(name: log_kind::STREAMS_RESET, target: STREAM_LOG, "stream reset: {name} ({stream}): {e}");
            }
            Ended::PeerReset => {
                info!(name: log_kind::STREAMS_RESET, target: STREAM_LOG, "stream reset by the other end: {name} ({stream})");
            }
            Ended::PeerStopped => {
                info!(name: log_kind::STREAMS_RESET, target: STREAM_LOG, "stream reset: {name} ({stream}) went on sending after the other end had closed");
            }
            Ended::ServerDown => {
                info!(name: log_kind::STREAMS_RESET, target: STREAM_LOG, "stream reset: {name} ({stream}): the server is down");
            }
            Ended::Stalled => {
                info!(name: log_kind::STREAMS_RESET, target: STREAM_LOG, "stream reset: {name} ({stream}) stood still half-closed");
            }
        }
        self.report_streams();
    }

    fn report_streams(&self) {
        if let Side::Client { reports, id, .. } = &self.side {
            // The manager outlives its drivers; when it is gone, nobody counts any more.
            let _ = reports.send((*id, Report::Streams(self.pumps.len())));
        }
    }

    /// Writes what may be sent and hands it to the socket, until the socket is full.
    fn transmit(&mut self, cx: &mut Context<'_>, now: Instant) -> io::Result<bool> {
        let mut worked = false;
        loop {
            let done = self.unsent.is_empty() && self.endpoint.flush(now);
            self.unsent.append(self.endpoint.waiting_runs());
            if self.unsent.is_empty() {
                return Ok(worked);
            }
            if !self.send(cx, now)? {
                return Ok(worked);
            }
            worked = true;
            if done {
                return Ok(worked);
            }
        }
    }

    /// Sends all waiting runs; `false` when the socket is full.
    fn send(&mut self, cx: &mut Context<'_>, now: Instant) -> io::Result<bool> {
        while !self.unsent.is_empty() {
            let sent = {
                let mut skip = self.unsent_bytes;
                let mut batch: [Transmit<'_>; SEND_RUNS] = [EMPTY; SEND_RUNS];
                let mut n = 0;
                for run in self.unsent.iter().take(SEND_RUNS) {
                    batch[n] = Transmit {
                        dst: run.path().remote,
                        src_ip: run.path().local,
                        ecn: None,
                        segment: run.segment(),
                        probe: run.is_probe(),
                        data: &run.data()[std::mem::take(&mut skip)..],
                    };
                    n += 1;
                }
                match self.socket.poll_send(cx, &batch[..n]) {
                    Poll::Pending => return Ok(false),
                    Poll::Ready(sent) => sent?,
                }
            };
            if let Some(trouble) = sent.trouble {
                self.troubles.tell(now, trouble, sent.lost);
            }
            for _ in 0..sent.runs {
                if let Some(run) = self.unsent.pop_front() {
                    self.traffic += run.data().len();
                    self.endpoint.recycle(run);
                }
            }
            self.unsent_bytes = if sent.runs > 0 {
                sent.bytes
            } else {
                self.unsent_bytes + sent.bytes
            };
        }
        Ok(true)
    }

    /// What the status page says of a session.
    fn describe(&self, key: SessionKey, now: Instant) -> Option<SessionInfo> {
        let session = self.endpoint.session(key)?;
        let kcp = session.kcp();
        let counters = kcp.counters();
        Some(SessionInfo {
            conv: kcp.conv(),
            peer: session.path().remote,
            seen: kcp.last_heard().map(|at| now - at),
            lingers: session.is_lingering(),
            rtt: kcp.srtt(),
            rto: kcp.rto(),
            waiting: kcp.waiting(),
            bytes: (counters.bytes_received, counters.bytes_sent),
        })
    }

    /// Starts a stream for a connection.
    fn carry(&mut self, orphan: Orphan) {
        let Side::Client { reports, id, .. } = &self.side else {
            return;
        };
        let now = self.clock.now();
        match self.endpoint.open(now) {
            Ok((session, stream)) => {
                let first_sn = self
                    .endpoint
                    .session(session)
                    .map_or(Seq(0), |s| s.kcp().snd_nxt());
                if !pump::replay(&mut self.endpoint, now, session, stream, &orphan) {
                    self.endpoint.reset(now, session, stream);
                    let _ = reports.send((*id, Report::Orphans(vec![orphan])));
                    return;
                }
                let answers = self.reach.answers();
                self.insert(session, stream, |waker| {
                    let pump = Pump::carry(session, stream, orphan, first_sn, waker, now);
                    tell_opened(&pump, answers);
                    pump
                });
            }
            Err(_) => {
                let _ = reports.send((*id, Report::Orphans(vec![orphan])));
            }
        }
        self.report_streams();
    }

    fn insert(
        &mut self,
        session: SessionKey,
        stream: StreamId,
        make: impl FnOnce(std::task::Waker) -> Pump,
    ) {
        let Self {
            pumps,
            woken,
            queue,
            watched,
            ..
        } = self;
        pumps.insert(session, stream, |index| {
            let mut pump = make(woken.waker(index));
            enqueue(queue, &mut pump, index);
            *watched += usize::from(pump.is_watched());
            pump
        });
    }

    fn events(&mut self, now: Instant) {
        while let Some(event) = self.endpoint.poll_event() {
            match event {
                Event::Stream(key, StreamEvent::Opened(id)) => self.opened(now, key, id),
                Event::Stream(
                    key,
                    StreamEvent::Readable(id) | StreamEvent::Writable(id) | StreamEvent::Reset(id),
                ) => {
                    if let Some(index) = self.pumps.index_of(key, id)
                        && let Some(pump) = self.pumps.get_mut(index)
                    {
                        enqueue(&mut self.queue, pump, index);
                    }
                }
                Event::Opened(_, path) => {
                    debug!(name: log_kind::SESSIONS_BEGUN, "session begins: {}", path.remote);
                }
                Event::Proven(key) => {
                    debug!(name: log_kind::SESSIONS_BEGUN, "session is alive");
                    if let Side::Client { .. } = self.side
                        && let Some(session) = self.endpoint.session(key)
                        && let Some(text) = self.advice.speaks(session.path().remote)
                    {
                        self.advice.info(&text);
                    }
                }
                Event::Suspect(key) => {
                    match self.side {
                        // One is lost in a crowd.
                        Side::Client { lasts: true, .. } => {
                            debug!(name: log_kind::SESSIONS_SILENT, "session {key:?} does not answer");
                        }
                        Side::Client { .. } => self.advice.info(
                            "the other end does not answer; new connections use a new session",
                        ),
                        // It may have gone without a word, as kcptun's do.
                        Side::Server { .. } => {
                            debug!(name: log_kind::SESSIONS_SILENT, "a client does not answer");
                        }
                    }
                    self.move_on(key);
                    self.report(Report::Suspect);
                }
                Event::Recovered(key) => {
                    match self.side {
                        Side::Client { lasts: false, .. } => {
                            info!(name: log_kind::SERVER_STATE, "the other end answers again");
                        }
                        _ => {
                            debug!(name: log_kind::SESSIONS_SILENT, "session {key:?} answers again");
                        }
                    }
                    self.report(Report::Recovered);
                }
                Event::Moved(key, path) => {
                    let conv = self.endpoint.session(key).map_or(0, Session::conv);
                    info!(
                        name: log_kind::SESSIONS_MOVED, "session {conv:08X} follows its client to another address: {}",
                        path.remote
                    );
                }
                Event::Beside(event) => {
                    self.beside(&event);
                    self.report(Report::Path(event));
                }
                Event::Notice(_, notice) => tell(&notice),
                Event::Suspicion(_, suspicion) => self.suspicion(now, &suspicion),
                Event::Stranger(from, suspicion) => {
                    warn!(
                        name: log_kind::STRANGERS, "datagrams from {from}: {}",
                        self.advice.suspicion(&suspicion)
                    );
                }
                Event::WindowSmall(_, window) => {
                    warn!(name: log_kind::SMALL_WINDOWS, "{}", self.advice.window(&window));
                }
                Event::Closed(key, path, reason) => self.closed(key, path, &reason),
            }
        }
    }

    /// Takes the pumps of a session off. Connections that another session may `carry` come back, the others are reset.
    fn take_pumps(&mut self, key: SessionKey, carry: bool) -> Vec<Orphan> {
        let mut orphans = Vec::new();
        while let Some(pump) = self.pumps.pop_of(key) {
            self.traffic += STREAM_BYTES;
            self.watched -= usize::from(pump.is_watched());
            orphans.extend(pump.orphan(carry));
        }
        orphans
    }

    fn report(&self, report: Report) {
        match &self.side {
            Side::Client { reports, id, .. }
            | Side::Server {
                reports: Some((reports, id)),
                ..
            } => {
                let _ = reports.send((*id, report));
            }
            Side::Server { reports: None, .. } => {}
        }
    }

    fn opened(&mut self, now: Instant, session: SessionKey, stream: StreamId) {
        let Side::Server {
            dial,
            target,
            access,
            ..
        } = &self.side
        else {
            // A server opens no streams in this dialect.
            return self.endpoint.reset(now, session, stream);
        };
        if let Some(of) = self.endpoint.session(session) {
            let opened = Opened {
                client: of.path().remote,
                session: of.conv(),
                stream: stream.wire(),
                target,
                proven: self.endpoint.is_vouched(session),
            };
            access.opened(now, opened);
        }
        let dial = dial();
        info!(name: log_kind::STREAMS_OPENED, target: STREAM_LOG, "stream opened: {target} ({})", stream.wire());
        self.insert(session, stream, |waker| {
            Pump::dial(session, stream, dial, waker, now)
        });
    }

    fn closed(&mut self, key: SessionKey, path: Path, reason: &Reason) {
        let carry = matches!(
            reason,
            Reason::PeerLostState | Reason::PeerReset | Reason::PeerEnded
        );
        let orphans = match reason {
            // Nothing was left of it.
            Reason::Finished => Vec::new(),
            _ => self.take_pumps(key, carry),
        };
        match (&self.side, reason) {
            (_, Reason::Closed | Reason::Replaced | Reason::Finished) => {
                debug!(name: log_kind::SESSIONS_ENDED, "session closed: {}: {reason}", path.remote);
            }
            (_, Reason::Unproven(_) | Reason::Crowded) => {
                debug!(name: log_kind::SESSIONS_ENDED, "session dropped: {}: {reason}", path.remote);
            }
            (_, Reason::PeerReset) => {
                info!(name: log_kind::SESSIONS_ENDED, target: STREAM_LOG, "session ended: {}: {reason}", path.remote);
            }
            _ => info!(name: log_kind::SESSIONS_ENDED, "session ended: {}: {reason}", path.remote),
        }
        if let Side::Client { lasts, .. } = self.side {
            if !orphans.is_empty() {
                self.report(Report::Orphans(orphans));
            }
            if !lasts {
                self.ending.get_or_insert(reason.clone());
            }
        }
    }

    /// Looks at pumps that need watching.
    fn tick(&mut self, now: Instant) {
        let waits = self.reach.is_down() && !self.pumps.is_empty();
        if self.watched == 0 && !waits {
            self.next_tick = None;
            return;
        }
        match self.next_tick {
            None => self.next_tick = Some(now + TICK),
            Some(at) if at > now => {}
            Some(_) => {
                self.next_tick = Some(now + TICK);
                for index in 0..self.pumps.end() {
                    if let Some(pump) = self.pumps.get_mut(index)
                        && pump.is_watched()
                    {
                        let turn = pump.tick(&mut self.endpoint, now, self.close_wait);
                        self.after_turn(index, true, turn);
                    }
                }
                self.give_up(now);
            }
        }
    }

    /// Sets the timer to what is due next; `true` when that is now.
    fn sleep(&mut self, cx: &mut Context<'_>) -> bool {
        let quiet = (!self.shrunk).then(|| self.traffic_since + QUIET);
        let next = [
            self.endpoint.poll_timeout(),
            self.next_tick,
            quiet,
            self.stopping,
        ]
        .into_iter()
        .flatten()
        .min();
        let Some(at) = next else {
            self.timer_at = None;
            return false;
        };
        if self.timer_at != Some(at) {
            self.timer_at = Some(at);
            self.timer.as_mut().reset(self.clock.system(at));
        }
        let due = self.timer.as_mut().poll(cx).is_ready();
        if due {
            self.timer_at = None;
        }
        due
    }

    /// Gives memory back when a burst is over.
    fn quiet(&mut self, now: Instant) {
        let burst = self.traffic > QUIET_BYTES;
        if !burst && now < self.traffic_since + QUIET {
            return;
        }
        self.traffic = 0;
        self.traffic_since = now;
        if !std::mem::replace(&mut self.shrunk, !burst) && !burst {
            self.endpoint.shrink();
            self.buffers.release();
            self.queue.shrink_to_fit();
            self.unsent.shrink_to_fit();
            self.woken.shrink();
            self.pumps.shrink();
            fulmar_netio::return_free_memory();
        }
    }

    fn end(&mut self) {
        let keys: Vec<_> = self.endpoint.sessions().collect();
        for key in keys {
            self.endpoint.close_session(key);
        }
        let now = self.clock.now();
        self.events(now);
        // What peers are told at the end; the socket takes it or it does not.
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let _ = self.transmit(&mut cx, now);
        self.published.store(now, &self.endpoint.counters());
        debug!(name: log_kind::SOCKETS, "socket: {:?}", self.socket.counters());
    }
}

impl Future for Driver {
    type Output = io::Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        for _ in 0..ROUNDS {
            let worked = match this.round(cx) {
                Ok(worked) => worked,
                Err(e) => {
                    this.end();
                    return Poll::Ready(Err(e));
                }
            };
            let now = this.clock.now();
            if this.ending.is_some() || this.has_stopped(now) {
                this.end();
                return Poll::Ready(Ok(()));
            }
            this.tick(now);
            if !worked {
                this.published
                    .store(this.clock.now(), &this.endpoint.counters());
                this.quiet(now);
                if !this.sleep(cx) {
                    return Poll::Pending;
                }
            }
        }
        this.published
            .store(this.clock.now(), &this.endpoint.counters());
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.hub.retire(&self.published);
    }
}

/// A transmit of nothing, to fill an array with.
const EMPTY: Transmit<'static> = Transmit {
    dst: SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0),
    src_ip: None,
    ecn: None,
    segment: 0,
    probe: false,
    data: &[],
};

fn enqueue(queue: &mut Vec<usize>, pump: &mut Pump, index: usize) {
    if !std::mem::replace(&mut pump.queued, true) {
        queue.push(index);
    }
}

fn tell(notice: &Notice) {
    match notice {
        Notice::PeerIsFulmar => {
            debug!(name: log_kind::PEER_SETTINGS, "the other end is Fulmar: half-close and resets work");
        }
        Notice::Variant(name) => {
            info!(name: log_kind::PEER_SETTINGS, "the client speaks variant {name}");
        }
        Notice::SmuxVersion { theirs, ours } => {
            warn!(
                name: log_kind::PEER_SETTINGS, "the client speaks smux version {theirs}, this server was told {ours}: {theirs} is used for it"
            );
        }
        Notice::Compression { theirs, ours } => warn!(
            name: log_kind::PEER_SETTINGS, "the client {} compression, this server was told {}: the client's choice is used for it",
            if *theirs { "uses" } else { "does not use" },
            if *ours { "to use it" } else { "not to" },
        ),
    }
}

impl Troubles {
    /// Tells the first of a kind, and again after a minute.
    fn tell(&mut self, now: Instant, trouble: Trouble, datagrams: usize) {
        let fresh = self
            .last
            .is_none_or(|(t, at)| t != trouble || now - at > Duration::from_secs(60));
        if fresh {
            self.last = Some((trouble, now));
            warn!(
                name: log_kind::SOCKETS, "{} not sent: {trouble}; what is missed will be retransmitted",
                fulmar_config::text::count(datagrams as u64, "datagram")
            );
        }
    }
}
