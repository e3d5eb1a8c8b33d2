//! The client: local connections in, sessions out.
//!
//! One task accepts and keeps the pool; each session is a driver of its own with its own UDP socket. A connection goes to
//! the pool's slots in turn. A slot whose session has expired, does not answer, or is gone gets a new session; the
//! connections that come meanwhile wait for it, and nothing else waits. What the pool replaced lives on until its
//! streams are done or its time is up.

mod reload;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fulmar_config::{Client, Config};
use fulmar_session::transmit::Path;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::conn::Tuning;
use crate::driver::{Command, Driver, Report, Setup, Side};
use crate::link::Link;
use crate::listen::Listener;
use crate::pump::Orphan;
use crate::reload::Reload;
use crate::socket::Datagrams;
use crate::stats::Hub;
use crate::{Error, dial, open};

/// Connections that wait for a session of one slot; more are reset. Each is an open file, so systems usually limit it
/// further.
const MAX_WAITING: usize = 16_384;
/// How long a connection waits for a session.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// Pause after a failed attempt to make a session.
const RETRY: Duration = Duration::from_secs(1);
/// How often expired sessions are looked at.
const SCAVENGE: Duration = Duration::from_secs(1);
/// Commands on their way to a driver: every connection of a burst.
const COMMANDS: usize = MAX_WAITING;

/// A session's driver, seen from the pool.
struct Live {
    id: u64,
    commands: mpsc::Sender<Command>,
    streams: usize,
    suspect: bool,
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
    waiting: VecDeque<(Instant, Orphan)>,
}

/// What a finished attempt to make a session brings.
struct Dialed {
    slot: usize,
    /// Of the configuration that it was made from.
    generation: u64,
    made: Result<Driver, Error>,
    live: Option<Live>,
}

/// The pool and what feeds it.
struct Manager {
    config: Arc<Config>,
    client: Client,
    link: Arc<Link>,
    clock: Clock,
    hub: Hub,
    slots: Vec<Slot>,
    next: usize,
    retired: Vec<Live>,
    drivers: JoinSet<(u64, io::Result<()>)>,
    dials: JoinSet<Dialed>,
    reports: mpsc::UnboundedSender<(u64, Report)>,
    last_id: u64,
    /// Counts the configurations that sessions were made from.
    generation: u64,
}

/// Runs a client until `shutdown` completes. `reloads` brings configurations that were read again.
///
/// # Errors
/// When the local address cannot be had.
pub(crate) async fn run(
    config: Arc<Config>,
    client: Client,
    clock: Clock,
    hub: Hub,
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
    let link = Arc::new(Link::new(&config));
    ready(&listener.name());
    let (reports, mut inbox) = mpsc::unbounded_channel();
    let mut manager = Manager {
        slots: (0..client.conn).map(|_| Slot::default()).collect(),
        config,
        client,
        link,
        clock,
        hub,
        next: 0,
        retired: Vec::new(),
        drivers: JoinSet::new(),
        dials: JoinSet::new(),
        reports,
        last_id: 0,
        generation: 0,
    };
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
        !self.retired.is_empty()
            || self.slots.iter().any(|s| {
                !s.waiting.is_empty() || s.live.as_ref().is_some_and(|l| l.expires.is_some())
            })
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
        let orphan = if fit && let Some(live) = &slot.live {
            match live.commands.try_send(Command::Carry(orphan)) {
                Ok(()) => return,
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
            warn!(target: crate::driver::STREAM_LOG, "too many connections wait for a session; one is reset");
            return orphan.conn.abort();
        }
        slot.waiting.push_back((now, orphan));
        self.dial(index);
    }

    /// Starts making a session for a slot, unless that is going on already.
    fn dial(&mut self, index: usize) {
        if std::mem::replace(&mut self.slots[index].dialing, true) {
            return;
        }
        self.last_id += 1;
        let id = self.last_id;
        let (config, client, link) = (
            Arc::clone(&self.config),
            self.client.clone(),
            Arc::clone(&self.link),
        );
        let (clock, hub, reports) = (self.clock, self.hub.clone(), self.reports.clone());
        let generation = self.generation;
        self.dials.spawn(async move {
            let (commands, receiver) = mpsc::channel(COMMANDS);
            let made = make(&config, &client, &link, clock, hub, reports, id, receiver).await;
            if made.is_err() {
                tokio::time::sleep(RETRY).await;
            }
            let now = Instant::now();
            let expires = client.autoexpire.map(|after| now + after);
            let live = made.is_ok().then_some(Live {
                id,
                commands,
                streams: 0,
                suspect: false,
                expires,
                dies: expires.zip(client.scavenge_ttl).map(|(at, ttl)| at + ttl),
            });
            Dialed {
                slot: index,
                generation,
                made,
                live,
            }
        });
    }

    fn dialed(&mut self, dialed: Dialed) {
        let Dialed {
            slot: index,
            generation,
            made,
            live,
        } = dialed;
        self.slots[index].dialing = false;
        match (made, live) {
            // The configuration was read again meanwhile.
            (Ok(_), _) if generation != self.generation => self.dial(index),
            (Ok(driver), Some(live)) => {
                let id = live.id;
                self.drivers.spawn(async move { (id, driver.await) });
                if let Some(old) = self.slots[index].live.replace(live) {
                    self.retire(old);
                }
                for (_, orphan) in std::mem::take(&mut self.slots[index].waiting) {
                    self.assign_to(index, orphan);
                }
            }
            (Err(e), _) => {
                warn!("cannot make a session, trying again: {e}");
                self.give_up_waiting(index);
                if !self.slots[index].waiting.is_empty() {
                    self.dial(index);
                }
            }
            (Ok(_), None) => {}
        }
    }

    /// Resets connections that have waited too long.
    fn give_up_waiting(&mut self, index: usize) {
        let waiting = &mut self.slots[index].waiting;
        while let Some((since, _)) = waiting.front()
            && since.elapsed() > MAX_WAIT
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
            Report::Suspect => {
                if let Some(live) = self.live_mut(id) {
                    live.suspect = true;
                }
            }
            Report::Recovered => {
                if let Some(live) = self.live_mut(id) {
                    live.suspect = false;
                }
            }
            Report::Streams(n) => {
                if let Some(live) = self.live_mut(id) {
                    live.streams = n;
                }
                if n == 0
                    && let Some(at) = self.retired.iter().position(|l| l.id == id)
                {
                    let live = self.retired.swap_remove(at);
                    info!("session closed normally after it expired");
                    let _ = live.commands.try_send(Command::Stop);
                }
            }
        }
    }

    fn live_mut(&mut self, id: u64) -> Option<&mut Live> {
        let live = self.slots.iter_mut().filter_map(|s| s.live.as_mut());
        live.chain(&mut self.retired).find(|l| l.id == id)
    }

    fn ended(&mut self, id: u64, result: io::Result<()>) {
        if let Err(e) = result {
            warn!("a session's socket failed: {e}");
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
        let now = Instant::now();
        for index in 0..self.slots.len() {
            self.give_up_waiting(index);
            let expired = |l: &Live| l.expires.is_some_and(|at| now >= at);
            if self.slots[index].live.as_ref().is_some_and(expired)
                && let Some(live) = self.slots[index].live.take()
            {
                self.retire(live);
            }
        }
        self.retired.retain(|live| {
            let dies = live.dies.is_some_and(|at| now >= at);
            if dies {
                info!("session closed: its time is up (autoexpire + scavengettl)");
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

/// Makes a session: resolves the server's name anew, draws a port and a conversation, opens a socket.
#[allow(clippy::too_many_arguments)]
async fn make(
    config: &Config,
    client: &Client,
    link: &Link,
    clock: Clock,
    hub: Hub,
    reports: mpsc::UnboundedSender<(u64, Report)>,
    id: u64,
    commands: mpsc::Receiver<Command>,
) -> Result<Driver, Error> {
    let random = open::random()?;
    let span = u64::from(client.remote.max - client.remote.min) + 1;
    let port = client.remote.min + u16::try_from(random.number % span).unwrap_or(0);
    let remote = dial::resolve(&client.remote.host, port)
        .await
        .map_err(|e| Error::Resolve {
            host: client.remote.host.clone(),
            source: e,
        })?[0];
    let socket = socket(config, remote).await?;
    let path = Path {
        remote,
        local: None,
    };
    let (endpoint, _) = link.client(path, random.conv, random.seed, clock.now());
    info!("session to {remote} opened, {}", config.tunnel.spoken());
    Ok(Driver::new(Setup {
        clock,
        socket,
        endpoint,
        side: Side::Client {
            lasts: false,
            reports,
            id,
        },
        commands,
        exchange: None,
        hub,
        close_wait: config.tunnel.close_wait,
    }))
}

async fn socket(config: &Config, remote: SocketAddr) -> Result<Datagrams, Error> {
    if config.tunnel.tcp {
        return open::raw_client(config, remote).await;
    }
    let any: SocketAddr = match remote {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0; 16], 0).into(),
    };
    open::udp(config, any, false)
}
