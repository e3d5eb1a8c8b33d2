//! The client: local connections in, sessions out.
//!
//! One task accepts and keeps the pool; each session is a driver of its own with its own UDP socket. A connection goes to
//! the pool's slots in turn. A slot whose session has expired, does not answer, or is gone gets a new session; the
//! connections that come meanwhile wait for it, and nothing else waits. What the pool replaced lives on until its
//! streams are done or its time is up.
//!
//! The first session is made at the start, to find out whether the server is there; unless it is used it ends soon. When
//! nothing comes from an address of the server, the next session takes the next one, and the connections of the session that
//! nothing was heard from move along (docs/design/liveness.md).

mod reload;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fulmar_config::{Client, Config, PortRange};
use fulmar_session::reachability::{Change, GIVE_UP, Reachability};
use fulmar_session::transmit::Path;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::advice::Advice;
use crate::conn::Tuning;
use crate::driver::{Command, Driver, Report, Setup, Side};
use crate::inquiry::Question;
use crate::link::Link;
use crate::listen::Listener;
use crate::log_kind;
use crate::log_limit::LogLimit;
use crate::pump::Orphan;
use crate::reload::Reload;
use crate::socket::Datagrams;
use crate::{Common, Error, open};

/// Connections that wait for a session of one slot; more are reset. Each is an open file, so systems usually limit it
/// further.
const MAX_WAITING: usize = 16_384;
/// How long a connection waits for a session.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// Pause after a failed attempt to make a session.
const RETRY: Duration = Duration::from_secs(1);
/// How long a session that was made only to ask is kept, unless it is used or asked again.
const UNUSED: Duration = Duration::from_secs(30);
/// How often expired sessions, and those that do not answer, are looked at.
const SCAVENGE: Duration = Duration::from_secs(1);
/// Commands on their way to a driver: every connection of a burst.
const COMMANDS: usize = MAX_WAITING;

/// A session's driver, seen from the pool.
struct Live {
    id: u64,
    commands: mpsc::Sender<Command>,
    remote: SocketAddr,
    streams: usize,
    /// Something of the server has opened.
    heard: bool,
    suspect: bool,
    /// It is ended then: it has not been used yet.
    unused_until: Option<Instant>,
    /// It gets no new connections from then on, if it expires.
    expires: Option<Instant>,
    /// It is closed then, even with streams.
    dies: Option<Instant>,
}

/// A place in the pool.
#[derive(Default)]
struct Slot {
    live: Option<Live>,
    dialing: bool,
    /// The session that is being made is to ask, not to be used.
    asks: bool,
    waiting: VecDeque<(Instant, Orphan)>,
}

/// What a finished attempt to make a session brings.
struct Dialed {
    slot: usize,
    /// Of the configuration that it was made from.
    generation: u64,
    made: Result<(Driver, Live), Error>,
}

/// The pool and what feeds it.
struct Manager {
    maker: Arc<Maker>,
    slots: Vec<Slot>,
    next: usize,
    retired: Vec<Live>,
    drivers: JoinSet<(u64, io::Result<()>)>,
    dials: JoinSet<Dialed>,
    last_id: u64,
    /// Counts the configurations that sessions were made from.
    generation: u64,
    reachability: Reachability,
    /// The last proof that drivers had published when it was looked at.
    heard: Option<fulmar_wire::time::Instant>,
    /// Why sessions could not be made.
    failures: LogLimit,
}

/// What sessions are made from.
struct Maker {
    common: Common,
    client: Client,
    link: Link,
    advice: Advice,
    reports: mpsc::UnboundedSender<(u64, Report)>,
}

/// Runs a client until `shutdown` completes. `questions` come from whoever wants to know whether the server lives, `reloads`
/// brings configurations that were read again.
///
/// # Errors
/// When the local address cannot be had.
pub(crate) async fn run(
    mut common: Common,
    client: Client,
    mut questions: mpsc::Receiver<Question>,
    mut reloads: mpsc::Receiver<Reload<Config>>,
    ready: impl FnOnce(&str),
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let listener = Listener::bind(&client.listen, Tuning::KCPTUN)
        .await
        .map_err(|e| Error::Listen {
            addr: client.listen.to_string(),
            source: e,
        })?;
    let (reports, mut inbox) = mpsc::unbounded_channel();
    let link = Link::new(&common.config, open::nonces()?);
    let advice = Advice::kcptun(&common.config);
    Arc::make_mut(&mut common.config).tunnel.key.wipe();
    let mut manager = Manager {
        slots: (0..client.conn).map(|_| Slot::default()).collect(),
        maker: Arc::new(Maker {
            link,
            advice,
            common,
            client,
            reports,
        }),
        next: 0,
        retired: Vec::new(),
        drivers: JoinSet::new(),
        dials: JoinSet::new(),
        last_id: 0,
        generation: 0,
        reachability: Reachability::default(),
        heard: None,
        failures: LogLimit::default(),
    };
    ready(&listener.name());
    manager.ask();
    let mut scavenge = tokio::time::interval(SCAVENGE);
    scavenge.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    tokio::pin!(shutdown);
    loop {
        let busy = manager.has_timers();
        tokio::select! {
            () = &mut shutdown => break,
            conn = listener.accept() => manager.assign(Orphan::new(conn)),
            Some((id, report)) = inbox.recv() => manager.report(id, report),
            Some((config, told)) = reloads.recv() => {
                // Who asked may have gone.
                let _ = told.send(manager.reload(config));
            }
            Some(question) = questions.recv() => {
                // Who asked may have gone.
                let _ = question.send(manager.inquire());
            }
            Some(done) = manager.dials.join_next(), if !manager.dials.is_empty() => {
                if let Ok(dialed) = done { manager.dialed(dialed) }
            }
            Some(done) = manager.drivers.join_next(), if !manager.drivers.is_empty() => {
                if let Ok((id, result)) = done { manager.ended(id, result) }
            }
            _ = scavenge.tick(), if busy => manager.scavenge(),
        }
    }
    manager.stop().await;
    Ok(())
}

impl Manager {
    /// Whether anything depends on the passing of time.
    fn has_timers(&self) -> bool {
        let timed = |l: &Live| l.expires.is_some() || l.unused_until.is_some() || l.is_asking();
        !self.retired.is_empty()
            || self
                .slots
                .iter()
                .any(|s| !s.waiting.is_empty() || s.live.as_ref().is_some_and(timed))
    }

    fn now(&self) -> fulmar_wire::time::Instant {
        self.maker.common.clock.now()
    }

    fn host(&self) -> &str {
        &self.maker.client.remote.host
    }

    fn lives(&self) -> impl Iterator<Item = &Live> {
        let live = self.slots.iter().filter_map(|s| s.live.as_ref());
        live.chain(&self.retired)
    }

    /// Somebody wants to know whether the server lives: asks it, unless it has answered or was asked a short while ago.
    /// Whether it is being asked.
    fn inquire(&mut self) -> bool {
        self.hear();
        if self.reachability.inquire(self.now()) {
            self.ask();
            return true;
        }
        // A session that is new may still be answered.
        self.reachability.is_contacting() && self.reachability.down_since().is_none()
    }

    /// Asks the server: with the session that there is, or with one that ends soon.
    fn ask(&mut self) {
        let until = Instant::now() + UNUSED;
        let slot = &mut self.slots[0];
        match &mut slot.live {
            Some(live) if !live.suspect => {
                live.unused_until = live.unused_until.map(|_| until);
                let _ = live.commands.try_send(Command::Inquire(None));
            }
            _ => {
                slot.asks = true;
                self.dial(0);
            }
        }
    }

    /// Gives a connection to the next slot.
    fn assign(&mut self, orphan: Orphan) {
        let slot = self.next % self.slots.len();
        self.next = self.next.wrapping_add(1);
        self.assign_to(slot, orphan);
    }

    fn assign_to(&mut self, index: usize, orphan: Orphan) {
        let now = Instant::now();
        let slot = &mut self.slots[index];
        let fit = slot
            .live
            .as_ref()
            .is_some_and(|l| !l.suspect && l.expires.is_none_or(|at| now < at));
        let orphan = if fit && let Some(live) = &mut slot.live {
            match live.commands.try_send(Command::Carry(orphan)) {
                Ok(()) => {
                    live.unused_until = None;
                    return;
                }
                Err(
                    mpsc::error::TrySendError::Full(Command::Carry(o))
                    | mpsc::error::TrySendError::Closed(Command::Carry(o)),
                ) => o,
                Err(_) => return,
            }
        } else {
            orphan
        };
        if slot.waiting.len() >= MAX_WAITING {
            self.maker
                .advice
                .warn("too many connections wait for a session; more are reset");
            return orphan.conn.abort();
        }
        slot.waiting.push_back((now, orphan));
        slot.asks = false;
        self.dial(index);
    }

    /// Starts making a session for a slot, unless that is going on already.
    fn dial(&mut self, index: usize) {
        if std::mem::replace(&mut self.slots[index].dialing, true) {
            return;
        }
        self.last_id += 1;
        let id = self.last_id;
        let generation = self.generation;
        let maker = Arc::clone(&self.maker);
        self.dials.spawn(async move {
            let made = maker.make(id).await;
            match &made {
                Err(Error::Resolve { host, .. }) => maker.common.resolver.pause(host).await,
                Err(_) => tokio::time::sleep(RETRY).await,
                Ok(_) => {}
            }
            Dialed {
                slot: index,
                generation,
                made,
            }
        });
    }

    fn dialed(&mut self, dialed: Dialed) {
        let Dialed {
            slot: index,
            generation,
            made,
        } = dialed;
        self.slots[index].dialing = false;
        let asks = std::mem::take(&mut self.slots[index].asks);
        match made {
            // The configuration was read again meanwhile.
            Ok(_) if generation != self.generation => {
                self.slots[index].asks = asks;
                self.dial(index);
            }
            Ok((driver, mut live)) => {
                if let Some(n) = self.failures.over() {
                    debug!(name: log_kind::CLIENT_SESSIONS, "sessions can be made again, after {n} more failures");
                }
                live.unused_until = asks.then(|| Instant::now() + UNUSED);
                let text = format!("contacting {}", live.remote);
                self.maker.advice.info(&text);
                self.asked();
                if self.reachability.down_since().is_some() {
                    let _ = live.commands.try_send(Command::Down(true));
                }
                let id = live.id;
                self.drivers.spawn(async move { (id, driver.await) });
                if let Some(old) = self.slots[index].live.replace(live) {
                    self.retire(old);
                }
                for (_, orphan) in std::mem::take(&mut self.slots[index].waiting) {
                    self.assign_to(index, orphan);
                }
            }
            Err(e) => {
                // A name that does not resolve has been logged, and is tried until it does.
                let unresolved = matches!(e, Error::Resolve { .. });
                let text = format!("cannot make a session, trying again: {e}");
                if !unresolved && let Some(line) = self.failures.line(Instant::now(), &text) {
                    warn!(name: log_kind::CLIENT_SESSIONS, "{line}");
                }
                self.give_up_waiting(index);
                if unresolved || !self.slots[index].waiting.is_empty() {
                    self.slots[index].asks = self.slots[index].waiting.is_empty();
                    self.dial(index);
                }
            }
        }
    }

    /// Resets connections that have waited too long.
    fn give_up_waiting(&mut self, index: usize) {
        let limit = match self.reachability.down_since() {
            Some(_) => GIVE_UP,
            None => MAX_WAIT,
        };
        let waiting = &mut self.slots[index].waiting;
        while let Some((since, _)) = waiting.front()
            && since.elapsed() > limit
        {
            if let Some((_, orphan)) = waiting.pop_front() {
                orphan.conn.abort();
            }
        }
    }

    /// A session that gets no more connections.
    fn retire(&mut self, live: Live) {
        if live.streams == 0 {
            let _ = live.commands.try_send(Command::Stop);
        } else {
            self.retired.push(live);
        }
    }

    fn report(&mut self, id: u64, report: Report) {
        match report {
            Report::Orphans(orphans) => {
                // Their session is as good as gone: they must not come back to it.
                if let Some(live) = self.live_mut(id) {
                    live.suspect = true;
                }
                for orphan in orphans {
                    self.assign(orphan);
                }
            }
            Report::Path(_) => {}
            Report::Answers => self.answers(id),
            Report::Suspect => self.suspect(id),
            Report::Recovered => {
                if let Some(live) = self.live_mut(id) {
                    live.suspect = false;
                }
                self.proven(self.now());
            }
            Report::Streams(n) => {
                if let Some(live) = self.live_mut(id) {
                    live.streams = n;
                    if n > 0 {
                        live.unused_until = None;
                    }
                }
                if n == 0
                    && let Some(at) = self.retired.iter().position(|l| l.id == id)
                {
                    let live = self.retired.swap_remove(at);
                    debug!(name: log_kind::CLIENT_SESSIONS, "the session that was replaced has no more streams: closed");
                    let _ = live.commands.try_send(Command::Stop);
                }
            }
        }
    }

    /// The session has been answered for the first time.
    fn answers(&mut self, id: u64) {
        if let Some(live) = self.live_mut(id) {
            live.heard = true;
            let ip = live.remote.ip();
            self.maker.common.resolver.works(self.host(), ip);
        }
        self.maker.advice.fresh();
        self.proven(self.now());
    }

    /// Drivers say only of the first answer, and publish the rest.
    fn hear(&mut self) {
        let heard = self.maker.common.hub.last_heard();
        if heard > self.heard
            && let Some(at) = heard
        {
            self.heard = heard;
            self.proven(at);
        }
    }

    /// Something is asked over and over that nobody answers. It says nothing where another session is well.
    fn asked(&mut self) {
        if !self.lives().any(|live| live.heard && !live.suspect) {
            let now = self.now();
            self.reachability.asked(now);
        }
    }

    fn proven(&mut self, at: fulmar_wire::time::Instant) {
        if self.reachability.proven(at) == Some(Change::Up) {
            for live in self.lives() {
                let _ = live.commands.try_send(Command::Down(false));
            }
        }
    }

    /// A session does not answer.
    fn suspect(&mut self, id: u64) {
        let Some(live) = self.live_mut(id) else {
            return;
        };
        live.suspect = true;
        let (heard, ip, commands) = (live.heard, live.remote.ip(), live.commands.clone());
        self.asked();
        if heard {
            return;
        }
        // Nothing was acknowledged, so nothing runs twice when its connections move to another address.
        let other = self.maker.common.resolver.silent(self.host(), ip);
        // When all of them are silent the search is over: connections wait where they are, for as long as one waits then.
        if other && self.reachability.down_since().is_none() {
            let _ = commands.try_send(Command::Surrender);
        }
    }

    /// Counts questions, and finds out that the server is down.
    fn check(&mut self) {
        self.hear();
        if self.lives().any(Live::is_asking) {
            // Each of them sends something every second until it is answered.
            self.asked();
        }
        let now = self.now();
        if self.reachability.check(now) == Some(Change::Down) {
            warn!(
                name: log_kind::CLIENT_SESSIONS, "{} is down: no answer for 6 s; until there is one, connections are reset after 5 s",
                self.maker.client.remote
            );
            for live in self.lives() {
                let _ = live.commands.try_send(Command::Down(true));
            }
        }
    }

    fn live_mut(&mut self, id: u64) -> Option<&mut Live> {
        let live = self.slots.iter_mut().filter_map(|s| s.live.as_mut());
        live.chain(&mut self.retired).find(|l| l.id == id)
    }

    fn ended(&mut self, id: u64, result: io::Result<()>) {
        if let Err(e) = result {
            warn!(name: log_kind::CLIENT_SESSIONS, "a session's socket failed: {e}");
        }
        self.retired.retain(|l| l.id != id);
        for slot in &mut self.slots {
            if slot.live.as_ref().is_some_and(|l| l.id == id) {
                slot.live = None;
            }
        }
    }

    /// Ends sessions whose time is up (docs/spec/kcptun.md, section 12.1) and connections that have waited too long.
    fn scavenge(&mut self) {
        self.check();
        let now = Instant::now();
        for index in 0..self.slots.len() {
            self.give_up_waiting(index);
            let expired = |l: &Live| {
                [l.expires, l.unused_until]
                    .into_iter()
                    .flatten()
                    .any(|at| now >= at)
            };
            if self.slots[index].live.as_ref().is_some_and(expired)
                && let Some(live) = self.slots[index].live.take()
            {
                self.retire(live);
            }
        }
        self.retired.retain(|live| {
            let dies = live.dies.is_some_and(|at| now >= at);
            if dies {
                info!(name: log_kind::CLIENT_SESSIONS, "session closed: its time is up (autoexpire + scavengettl)");
                let _ = live.commands.try_send(Command::Stop);
            }
            !dies
        });
    }

    /// Ends all sessions and waits for their drivers.
    async fn stop(mut self) {
        let live = self.slots.drain(..).filter_map(|s| s.live);
        for live in live.chain(self.retired.drain(..)) {
            let _ = live.commands.try_send(Command::Stop);
        }
        self.dials.abort_all();
        // Drivers end within one turn.
        let all = async { while self.drivers.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(Duration::from_secs(2), all).await;
    }
}

impl Live {
    /// Whether it sends something every second that nobody has answered.
    const fn is_asking(&self) -> bool {
        !self.heard || self.suspect
    }
}

impl Maker {
    /// Makes a session: looks the server's name up, draws a port and a conversation, opens a socket.
    async fn make(&self, id: u64) -> Result<(Driver, Live), Error> {
        let Common {
            config,
            clock,
            hub,
            resolver,
        } = &self.common;
        let PortRange { host, min, max } = &self.client.remote;
        let random = open::random()?;
        let span = u64::from(max - min) + 1;
        let port = min + u16::try_from(random.number % span).unwrap_or(0);
        let found = resolver.addresses(host, port).await;
        let remote = found.map_err(|source| Error::Resolve {
            host: host.clone(),
            source,
        })?[0];
        let socket = socket(config, remote).await.inspect_err(|_| {
            // Where packets look like TCP, an address that accepts nothing is found out here.
            let _ = resolver.silent(host, remote.ip());
        })?;
        let path = Path {
            remote,
            local: None,
        };
        let (endpoint, _) = self.link.client(path, random.conv, clock.now());
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let driver = Driver::new(Setup {
            clock: *clock,
            socket,
            endpoint,
            side: Side::Client {
                lasts: false,
                reports: self.reports.clone(),
                id,
            },
            commands: receiver,
            exchange: None,
            hub: hub.clone(),
            advice: self.advice.clone(),
            servers: vec![remote],
            close_wait: config.tunnel.close_wait,
        });
        let expires = self.client.autoexpire.map(|after| Instant::now() + after);
        let live = Live {
            id,
            commands,
            remote,
            streams: 0,
            heard: false,
            suspect: false,
            unused_until: None,
            expires,
            dies: expires
                .zip(self.client.scavenge_ttl)
                .map(|(at, ttl)| at + ttl),
        };
        Ok((driver, live))
    }
}

async fn socket(config: &Config, remote: SocketAddr) -> Result<Datagrams, Error> {
    if config.tunnel.tcp {
        return open::raw_client(config, remote).await;
    }
    let any: SocketAddr = match remote {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0; 16], 0).into(),
    };
    let socket = open::udp(config, any, false)?;
    socket.watch_icmp();
    Ok(socket)
}
