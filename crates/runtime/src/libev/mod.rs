//! kcptun-libev's processes: client, server and relay (docs/spec/kcptun-libev.md).
//!
//! One driver owns the one socket of the process with all its sessions. What may take long goes on beside it: accepting,
//! looking names up, answering the status page, reading the configuration again.
//!
//! [`Libev::open`] opens everything that may need privileges, [`Libev::run`] does the rest.

mod link;
mod sockets;
mod status;

use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fulmar_config::StreamAddr;
use fulmar_config::libev::{HostPort, LibevConfig, LibevRole, Obfs, Place};
use fulmar_config::text;
use fulmar_session::dialect::PathEvent;
use fulmar_session::reachability::GIVE_UP;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::access::AccessLog;
use crate::advice::Advice;
use crate::clock::Clock;
use crate::conn::Conn;
use crate::dial::Dial;
use crate::driver::{Command, Driver, Report, Setup, Side};
use crate::listen::Listener;
use crate::log_kind;
use crate::log_limit::LogLimit;
use crate::pump::Orphan;
use crate::reload::{Change, libev_changes};
use crate::resolve::Resolver;
use crate::socket::Datagrams;
use crate::stats::Hub;
use crate::{Error, open};

use link::Link;
use status::Status;

/// Connections that wait for a peer that has not been found yet; more are reset.
const MAX_WAITING: usize = 4096;
/// How long a connection waits for it.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// Pause before a connection whose session was lost is carried again.
const CARRY_AGAIN: Duration = Duration::from_millis(200);
/// Pause before a socket that failed is opened again (section 11.2).
const REOPEN: Duration = Duration::from_secs(5);
/// Least time from one dialling of `dpi/tcp` to the next that sessions without answers ask for.
const DIAL_AGAIN: Duration = Duration::from_secs(10);
/// How long a start waits for a name; what takes longer is waited for beside everything else.
const LOOK_UP: Duration = Duration::from_secs(2);
/// How long drivers may take to end.
const STOP: Duration = Duration::from_secs(2);

/// A process that is about to run, with everything open.
pub struct Libev {
    config: Arc<LibevConfig>,
    clock: Clock,
    hub: Hub,
    link: Link,
    resolver: Arc<Resolver>,
    /// Not there yet where it needs an address of the other end that is not known yet.
    socket: Option<Datagrams>,
    listener: Option<Listener>,
    http: Option<tokio::net::TcpListener>,
    addrs: Addrs,
}

/// Where the other end, or the relay, is; and where we are.
#[derive(Clone, Debug, Default)]
struct Addrs {
    /// Empty while the name does not resolve, and where peers come by themselves.
    remote: Vec<SocketAddr>,
    /// The local port of the tunnel.
    port: Option<u16>,
    local: Vec<SocketAddr>,
}

/// A configuration that was read again, and where to tell what became of it.
pub type Reload = crate::reload::Reload<LibevConfig>;

impl Libev {
    /// Opens sockets and looks names up, in the order of section 14.1. A name that does not resolve yet is looked up
    /// again while the process runs; with obfuscation it is waited for here if the process `loses_rights` afterwards, since its
    /// socket cannot be opened without.
    ///
    /// # Errors
    /// When an address cannot be had.
    pub async fn open(config: LibevConfig, loses_rights: bool) -> Result<Self, Error> {
        Self::open_with(config, loses_rights, Resolver::system()).await
    }

    async fn open_with(
        config: LibevConfig,
        loses_rights: bool,
        resolver: Arc<Resolver>,
    ) -> Result<Self, Error> {
        let config = Arc::new(config);
        let listener = match &config.role {
            LibevRole::Client { listen, .. } => Some(sockets::listener(listen, &config).await?),
            _ => None,
        };
        let http = match &config.http_listen {
            Some(addr) => Some(sockets::tcp(addr, &config).await?),
            None => None,
        };
        if let LibevRole::Server { connect, .. } = &config.role {
            // Each stream looks it up for itself; that it does not resolve is said before the first one comes.
            tokio::spawn(Arc::clone(&resolver).until_found(connect.host_or_any().to_owned()));
        }
        let mut addrs = Addrs::default();
        if let Some(other) = other_end(&config) {
            let found = lookup(&resolver, other);
            // What is wrong with it has been logged.
            if let Ok(Ok(found)) = tokio::time::timeout(LOOK_UP, found).await {
                addrs.remote = found;
            }
            if addrs.remote.is_empty() && loses_rights && dials(&config) {
                let host = other.host_or_any().to_owned();
                Arc::clone(&resolver).until_found(host).await;
                addrs.remote = lookup(&resolver, other).await?;
            }
        }
        let socket = if addrs.remote.is_empty() && dials(&config) {
            None
        } else {
            Some(sockets::datagrams(&config, &addrs.remote).await?)
        };
        if let Some(socket) = &socket {
            addrs.port = socket.local_addr().map(|addr| addr.port());
            addrs.local = sockets::local_addresses(addrs.port, &addrs.remote);
        }
        let link = Link::new(&config)?;
        let mut config = Arc::unwrap_or_clone(config);
        config.crypto.wipe();
        Ok(Self {
            config: Arc::new(config),
            clock: Clock::start(),
            hub: Hub::default(),
            link,
            resolver,
            socket,
            listener,
            http,
            addrs,
        })
    }

    /// Its counters, which can be read while it runs.
    #[must_use]
    pub fn hub(&self) -> Hub {
        self.hub.clone()
    }

    /// What is open, for the log.
    #[must_use]
    pub fn describe(&self) -> String {
        let listener = self.listener.as_ref().map(|l| format!("{}/tcp", l.name()));
        let socket = self.socket.as_ref().map(Datagrams::describe);
        let http = self.http.as_ref().and_then(|l| l.local_addr().ok());
        let http = http.map(|addr| format!("http://{addr}"));
        let all: Vec<_> = [listener, socket, http].into_iter().flatten().collect();
        all.join(", ")
    }

    /// Runs until `shutdown` completes. `reloads` brings configurations that were read again (section 3.4).
    ///
    /// # Errors
    /// When the system has no randomness. Nothing that happens later ends a process.
    pub async fn run(
        self,
        mut reloads: mpsc::Receiver<Reload>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let (reports, mut inbox) = mpsc::unbounded_channel();
        let (status, mut questions) = Status::new(&self.config, self.hub.clone(), self.clock);
        let http = self.http.map(|listener| status.serve(listener));
        let mut manager = Manager {
            advice: Advice::libev(&self.config),
            config: self.config,
            clock: self.clock,
            hub: self.hub,
            link: self.link,
            resolver: self.resolver,
            addrs: self.addrs,
            reports,
            status,
            access: AccessLog::new(self.clock),
            driver: None,
            waiting: VecDeque::new(),
            found: false,
            down: false,
            rtt: None,
            failures: LogLimit::default(),
            looking: None,
            redialled: None,
        };
        let unresolved = manager.addrs.remote.is_empty() && other_end(&manager.config).is_some();
        manager.found = !manager.is_rendezvous_client() && !unresolved;
        if unresolved {
            manager.look(Why::Unknown);
        } else if manager.is_client()
            && let Some(other) = other_end(&manager.config)
        {
            info!(name: log_kind::SERVER_STATE, "contacting {other}");
        }
        if let Some(socket) = self.socket {
            manager.start(socket)?;
        }
        let naming = tokio::spawn(manager.access.clone().run());
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tokio::pin!(shutdown);
        loop {
            let waits = !manager.waiting.is_empty();
            tokio::select! {
                () = &mut shutdown => break,
                conn = accept(self.listener.as_ref()) => manager.carry(Orphan::new(conn)),
                Some((_, report)) = inbox.recv() => manager.report(report),
                Some((config, told)) = reloads.recv() => {
                    let done = manager.reload(config).await;
                    // Who asked may have gone.
                    let _ = told.send(done);
                }
                Some(question) = questions.recv() => {
                    // One that a driver does not take is answered by that.
                    let _ = manager.command(Command::Inquire(Some(question)));
                }
                found = looked_up(&mut manager.looking) => manager.resolved(found).await?,
                () = ended(&mut manager.driver) => manager.restart().await?,
                _ = tick.tick(), if waits => manager.give_up_waiting(),
            }
        }
        let access = manager.access.clone();
        manager.stop().await;
        naming.abort();
        access.finish();
        if let Some(task) = http {
            task.abort();
        }
        Ok(())
    }
}

/// The driver that runs now.
struct Running {
    commands: mpsc::Sender<Command>,
    task: JoinHandle<std::io::Result<()>>,
}

/// Why names are looked up.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Why {
    /// Nothing has been heard for long: a client also gets another port.
    Silence,
    /// The configuration was read again.
    Reload,
    /// No address is known yet.
    Unknown,
}

/// Names that are being looked up: the addresses of the other end.
struct Looking {
    why: Why,
    task: JoinHandle<Result<Vec<SocketAddr>, Error>>,
}

/// Looks after the driver.
struct Manager {
    advice: Advice,
    config: Arc<LibevConfig>,
    clock: Clock,
    hub: Hub,
    link: Link,
    resolver: Arc<Resolver>,
    addrs: Addrs,
    reports: mpsc::UnboundedSender<(u64, Report)>,
    status: Arc<Status>,
    access: AccessLog,
    driver: Option<Running>,
    /// Connections that come before the peer has been found.
    waiting: VecDeque<(Instant, Orphan)>,
    /// It is known where the other end is.
    found: bool,
    /// The server does not answer.
    down: bool,
    /// The latest round trip.
    rtt: Option<Duration>,
    /// Why the socket could not be opened again.
    failures: LogLimit,
    looking: Option<Looking>,
    /// When obfuscation was last dialled anew for the sake of sessions without answers.
    redialled: Option<Instant>,
}

impl Manager {
    fn is_client(&self) -> bool {
        matches!(self.config.role, LibevRole::Client { .. })
    }

    fn is_rendezvous_client(&self) -> bool {
        self.is_client() && matches!(self.config.role.place(), Some(Place::Rendezvous { .. }))
    }

    /// Starts the driver on `socket`.
    fn start(&mut self, socket: Datagrams) -> Result<(), Error> {
        let random = open::random()?;
        let endpoint = self
            .link
            .endpoint(&self.config, &self.addrs, &random, self.clock.now());
        let side = match &self.config.role {
            LibevRole::Client { .. } => Side::Client {
                lasts: true,
                reports: self.reports.clone(),
                id: 0,
            },
            LibevRole::Server { connect, .. } => Side::Server {
                dial: dialer(connect, &self.config, &self.resolver),
                target: connect.to_string(),
                access: self.access.clone(),
                reports: Some((self.reports.clone(), 0)),
            },
            LibevRole::Relay { .. } => Side::Server {
                dial: Box::new(Dial::refused),
                target: String::new(),
                access: self.access.clone(),
                reports: Some((self.reports.clone(), 0)),
            },
        };
        let (commands, receiver) = mpsc::channel(MAX_WAITING);
        let driver = Driver::new(Setup {
            clock: self.clock,
            socket,
            endpoint,
            side,
            commands: receiver,
            exchange: None,
            hub: self.hub.clone(),
            advice: self.advice.clone(),
            servers: self.addrs.remote.clone(),
            close_wait: self.config.linger,
        });
        self.driver = Some(Running {
            commands,
            task: tokio::spawn(driver),
        });
        Ok(())
    }

    /// The driver's socket failed: another one takes its place.
    async fn restart(&mut self) -> Result<(), Error> {
        self.driver = None;
        loop {
            match sockets::datagrams(&self.config, &self.addrs.remote).await {
                Ok(socket) => {
                    self.failures.over();
                    self.has_socket(&socket);
                    return self.start(socket);
                }
                Err(e) => {
                    let text = format!("{e}; trying again");
                    if let Some(line) = self.failures.line(Instant::now(), &text) {
                        warn!(name: log_kind::SOCKETS, "{line}");
                    }
                }
            }
            tokio::time::sleep(REOPEN).await;
        }
    }

    /// The tunnel has this socket from now on.
    fn has_socket(&mut self, socket: &Datagrams) {
        self.addrs.port = socket.local_addr().map(|addr| addr.port());
        self.addrs.local = sockets::local_addresses(self.addrs.port, &self.addrs.remote);
    }

    fn command(&self, command: Command) -> Result<(), Command> {
        let Some(driver) = &self.driver else {
            return Err(command);
        };
        driver.commands.try_send(command).map_err(|e| match e {
            mpsc::error::TrySendError::Full(c) | mpsc::error::TrySendError::Closed(c) => c,
        })
    }

    /// Gives a connection to the driver, or lets it wait for the peer.
    fn carry(&mut self, orphan: Orphan) {
        let orphan = if self.found {
            match self.command(Command::Carry(orphan)) {
                Err(Command::Carry(orphan)) => orphan,
                _ => return,
            }
        } else {
            orphan
        };
        if self.waiting.len() >= MAX_WAITING {
            self.advice
                .warn("too many connections wait for the other end; more are reset");
            return orphan.conn.abort();
        }
        self.waiting.push_back((Instant::now(), orphan));
    }

    /// Carries what has waited; what has waited too long is reset.
    fn give_up_waiting(&mut self) {
        let now = Instant::now();
        let limit = if self.down { GIVE_UP } else { MAX_WAIT };
        for (since, orphan) in std::mem::take(&mut self.waiting) {
            if now - since > limit {
                orphan.conn.abort();
            } else if self.found {
                self.carry(orphan);
            } else {
                self.waiting.push_back((since, orphan));
            }
        }
    }

    fn report(&mut self, report: Report) {
        match report {
            Report::Orphans(orphans) => {
                let now = Instant::now();
                for orphan in orphans {
                    // Not at once: whoever has lost a session is starting, or is not there yet.
                    self.waiting.push_back((now - CARRY_AGAIN, orphan));
                }
            }
            Report::Path(event) => self.path(event),
            Report::Suspect => self.dial_again(),
            Report::Answers | Report::Recovered | Report::Streams(_) => {}
        }
    }

    /// A session gets no answer. A server with `dpi/tcp` that was started again does not know our connection, and nothing of
    /// the kernel's shows it; on a new one it says what it makes of the sessions, or follows them there.
    fn dial_again(&mut self) {
        let now = Instant::now();
        let lately = self.redialled.is_some_and(|at| now - at < DIAL_AGAIN);
        if !self.is_client() || self.config.obfs != Some(Obfs::Tcp) || lately {
            return;
        }
        self.redialled = Some(now);
        debug!(name: log_kind::SERVER_STATE, "dialling anew");
        // A driver that is busy is asked again by the next session.
        let _ = self.command(Command::Resolved(self.addrs.remote.clone()));
    }

    fn path(&mut self, event: PathEvent) {
        self.status.path(&event);
        match event {
            PathEvent::Rtt(rtt) => self.rtt = Some(rtt),
            PathEvent::PeerFound { peer } | PathEvent::PeerChanged { peer } => {
                if self.is_rendezvous_client() {
                    info!(name: log_kind::RENDEZVOUS, "rendezvoused at {peer}");
                } else if let Some(other) = other_end(&self.config) {
                    self.resolver.works(other.host_or_any(), peer.ip());
                }
                if self.is_client() {
                    let text = self.advice.answers(peer, self.rtt.unwrap_or_default());
                    self.advice.fresh();
                    // Told again after silence, but not with every ping.
                    self.advice.info(&text);
                }
                self.found = true;
                self.give_up_waiting();
            }
            PathEvent::Down => {
                self.down = true;
                let name = other_end(&self.config).map(ToString::to_string);
                warn!(
                    name: log_kind::SERVER_STATE, "{} is down: no answer for 6 s; until there is one, connections are reset after 5 s",
                    name.as_deref().unwrap_or("the server")
                );
                self.next_address();
            }
            PathEvent::Up => {
                self.down = false;
                self.advice.fresh();
                info!(name: log_kind::SERVER_STATE, "the server answers again");
            }
            PathEvent::PeerLost => {
                if self.is_rendezvous_client() {
                    info!(name: log_kind::RENDEZVOUS, "the server is not at its address any more: asking the relay again");
                    self.found = false;
                }
            }
            PathEvent::Resolve => {
                if self.is_client() {
                    self.advice
                        .warn("the other end does not answer: looking up addresses again");
                } else {
                    debug!(name: log_kind::NAMES, "idle: looking up addresses again");
                }
                self.look(Why::Silence);
            }
            PathEvent::UnknownService { relay } => {
                let id = String::from_utf8_lossy(&self.config.service_id);
                warn!(
                    name: log_kind::RENDEZVOUS, "the relay {relay} answers, but knows no service {}: \"service_id\" has to be the server's, and the server \
                     has to be running",
                    text::quoted(&*id)
                );
            }
            PathEvent::RelaySilent => warn!(
                name: log_kind::RENDEZVOUS, "the relay does not answer: \"rendezvous_server\" is not there, or \"method\" or the key differs"
            ),
            PathEvent::Registered { from } => {
                info!(name: log_kind::RENDEZVOUS, "a service is made known from {from}");
            }
            PathEvent::NoSuchService { from } => {
                warn!(name: log_kind::RENDEZVOUS, "{from} asks for a service that nobody has made known");
            }
            other => debug!(name: log_kind::RENDEZVOUS, "{other:?}"),
        }
    }

    /// Obfuscation has one connection: when nothing comes from an address of the server, it goes to the next one. Without,
    /// all of them are pinged.
    fn next_address(&mut self) {
        if self.config.obfs.is_some()
            && self.is_client()
            && let Some(other) = other_end(&self.config)
            && let Some(first) = self.addrs.remote.first()
            && self.resolver.silent(other.host_or_any(), first.ip())
        {
            self.look(Why::Silence);
        }
    }

    /// Looks names up again, unless that is going on.
    fn look(&mut self, why: Why) {
        let Some(other) = other_end(&self.config).cloned() else {
            return;
        };
        if self.looking.is_none() || why == Why::Reload {
            let resolver = Arc::clone(&self.resolver);
            let task = tokio::spawn(async move {
                if why == Why::Unknown {
                    // There is nothing to go on with.
                    let host = other.host_or_any().to_owned();
                    Arc::clone(&resolver).until_found(host).await;
                }
                lookup(&resolver, &other).await
            });
            self.looking = Some(Looking { why, task });
        }
    }

    /// Names were looked up: the driver learns of it. A client that has heard nothing for long also gets another port, because
    /// what is between may have forgotten the old one, or may have taken a dislike to it.
    async fn resolved(&mut self, (why, found): LookedUp) -> Result<(), Error> {
        let first = self.addrs.remote.is_empty();
        match found {
            Ok(addrs) => {
                if first {
                    info!(name: log_kind::SERVER_STATE, "contacting {}", addrs[0]);
                }
                self.addrs.remote.clone_from(&addrs);
                // A driver that is busy learns of it the next time.
                let _ = self.command(Command::Resolved(addrs));
            }
            Err(e) if first => {
                debug!(name: log_kind::NAMES, "{e}");
                self.look(Why::Unknown);
                return Ok(());
            }
            Err(e) => debug!(name: log_kind::NAMES, "{e}; the old addresses stay"),
        }
        if first && self.driver.is_none() {
            // Its socket could not be opened without an address.
            self.restart().await?;
        } else if first || (why == Why::Silence && self.is_client()) {
            // With obfuscation the connection is dialled anew instead. The first address may be of the other family.
            if self.config.obfs.is_none() && !sockets::is_bound(&self.config) {
                self.rebind().await;
            } else if first {
                self.addrs.local = sockets::local_addresses(self.addrs.port, &self.addrs.remote);
                let _ = self.command(Command::LocalChanged(self.addrs.local.clone()));
            }
        }
        if first && !self.is_rendezvous_client() {
            self.found = true;
            self.give_up_waiting();
        }
        Ok(())
    }

    /// Gives the driver another socket.
    async fn rebind(&mut self) {
        match sockets::datagrams(&self.config, &self.addrs.remote).await {
            Ok(socket) => {
                self.has_socket(&socket);
                let local = self.addrs.local.clone();
                let _ = self.command(Command::Rebind(Box::new(socket), local));
            }
            Err(e) => warn!(name: log_kind::NAMES, "{e}; the old socket stays"),
        }
    }

    /// Takes another configuration over (section 3.4).
    async fn reload(&mut self, config: LibevConfig) -> Result<Vec<Change>, String> {
        if config.role.name() != self.config.role.name() {
            return Err(format!(
                "the file now describes a {}, this is a {}: start it anew",
                config.role.name(),
                self.config.role.name()
            ));
        }
        let meets = |c: &LibevConfig| matches!(c.role.place(), Some(Place::Rendezvous { .. }));
        if meets(&config) != meets(&self.config) || config.service_id != self.config.service_id {
            return Err(
                "where the ends meet (rendezvous_server, service_id) changes with a new start only"
                    .into(),
            );
        }
        let changes = libev_changes(&self.config, &config);
        let moved = sockets::place(&config) != sockets::place(&self.config);
        self.config = Arc::new(self.link.keep(&self.config, config));
        self.status.configure(&self.config);
        let settings = self.link.settings(&self.config);
        let reload = Command::Reload(Box::new(settings), self.config.keepalive);
        let mut taken = self.command(reload).is_ok();
        if let LibevRole::Server { connect, .. } = &self.config.role {
            let dial = dialer(connect, &self.config, &self.resolver);
            let target = Command::Target(dial, connect.to_string());
            taken &= self.command(target).is_ok();
        }
        if !taken {
            return Err("the driver is too busy".into());
        }
        // The addresses that are known stay in use meanwhile.
        self.look(Why::Reload);
        if moved {
            self.rebind().await;
        }
        Ok(changes)
    }

    /// Ends the driver.
    async fn stop(mut self) {
        let Some(driver) = self.driver.take() else {
            return;
        };
        let _ = driver.commands.try_send(Command::Stop);
        let _ = tokio::time::timeout(STOP, driver.task).await;
    }
}

/// Silence after which names are looked up again: T of section 11.2.
fn silence_limit(config: &LibevConfig) -> Duration {
    let keepalive = config.keepalive.unwrap_or_default();
    (3 * keepalive + Duration::from_secs(4))
        .clamp(Duration::from_secs(10), Duration::from_secs(1800))
}

/// The next connection, if there is a listener.
async fn accept(listener: Option<&Listener>) -> Conn {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

/// Ready when the driver has ended.
async fn ended(driver: &mut Option<Running>) {
    match driver {
        Some(running) => match (&mut running.task).await {
            Ok(Err(e)) => {
                warn!(name: log_kind::SOCKETS, "the socket failed and is opened again: {e}");
            }
            Ok(Ok(())) => {}
            Err(e) => warn!(name: log_kind::SOCKETS, "the driver failed and is started again: {e}"),
        },
        None => std::future::pending().await,
    }
}

/// Why names were looked up, and what was found.
type LookedUp = (Why, Result<Vec<SocketAddr>, Error>);

/// Ready when names have been looked up.
async fn looked_up(looking: &mut Option<Looking>) -> LookedUp {
    let Some(running) = looking else {
        return std::future::pending().await;
    };
    let (why, done) = (running.why, (&mut running.task).await);
    *looking = None;
    let failed = |e| Err(Error::Io(std::io::Error::other(e)));
    (why, done.unwrap_or_else(failed))
}

/// The server or the relay that the configuration names; none where peers come by themselves.
const fn other_end(config: &LibevConfig) -> Option<&HostPort> {
    match &config.role {
        LibevRole::Client {
            place: Place::Direct(server),
            ..
        } => Some(server),
        LibevRole::Client {
            place: Place::Rendezvous { relay, .. },
            ..
        }
        | LibevRole::Server {
            place: Place::Rendezvous { relay, .. },
            ..
        } => Some(relay),
        LibevRole::Server { .. } | LibevRole::Relay { .. } => None,
    }
}

/// Whether the socket of the tunnel cannot be opened without an address of the other end.
const fn dials(config: &LibevConfig) -> bool {
    config.obfs.is_some() && matches!(config.role, LibevRole::Client { .. })
}

async fn lookup(resolver: &Resolver, addr: &HostPort) -> Result<Vec<SocketAddr>, Error> {
    resolver
        .addresses(addr.host_or_any(), addr.port.number)
        .await
        .map_err(|source| Error::Resolve {
            host: addr.host.clone(),
            source,
        })
}

fn dialer(
    connect: &HostPort,
    config: &LibevConfig,
    resolver: &Arc<Resolver>,
) -> Box<dyn Fn() -> Dial + Send> {
    let target = StreamAddr::Tcp {
        host: connect.host.clone(),
        port: connect.port.number,
    };
    let (tuning, resolver) = (sockets::tuning(config), Arc::clone(resolver));
    Box::new(move || Dial::target(target.clone(), tuning, &resolver))
}
