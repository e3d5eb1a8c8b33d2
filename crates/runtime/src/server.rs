//! The server: one driver for each port, or several where there are threads for them; streams joined to the target.

mod reload;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fulmar_config::{Config, PortRange, Server, StreamAddr};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use crate::access::AccessLog;
use crate::advice::Advice;
use crate::clock::Clock;
use crate::conn::Tuning;
use crate::dial::Dial;
use crate::driver::{Command, Driver, Setup, Side};
use crate::link::Link;
use crate::log_kind;
use crate::log_kind::START_LOG;
use crate::log_limit::LogLimit;
use crate::open::Group;
use crate::registry::{Registry, drivers_per_port};
use crate::reload::Reload;
use crate::resolve::{self, Resolver};
use crate::socket::Datagrams;
use crate::stats::Hub;
use crate::{Common, Error, open};
use reload::Reloadable;

/// Pause before a listener that failed is opened again.
const REOPEN: Duration = Duration::from_secs(1);

/// Runs a server until `shutdown` completes. `reloads` brings configurations that were read again.
///
/// # Errors
/// When a port cannot be had.
pub(crate) async fn run(
    common: Common,
    server: Server,
    mut reloads: mpsc::Receiver<Reload<Config>>,
    ready: impl FnOnce(&str),
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let Common {
        mut config,
        clock,
        hub,
        resolver,
    } = common;
    let mut names = Vec::new();
    let mut all = Vec::new();
    let link = Link::new(&config, open::nonces()?);
    Arc::make_mut(&mut config).tunnel.key.wipe();
    let ranges = || std::iter::once(&server.listen).chain(&server.also);
    let ports = ranges().map(|range| range.count() as usize).sum();
    let each = drivers_per_port(crate::threads(&config), ports);
    let mut ports_served = 0;
    for (range, port) in ranges().flat_map(|range| range.ports().map(move |port| (range, port))) {
        let addr = addr(range, port).await?;
        if config.tunnel.tcp {
            for addr in raw_addrs(addr) {
                match open::raw_server(&config, addr).await {
                    Ok(socket) => {
                        names.push(format!("{addr}/tcp"));
                        all.push((ports_served, Place::Raw(addr), socket));
                        ports_served += 1;
                    }
                    // As upstream does: UDP still runs (docs/spec/kcptun.md, section 12.2).
                    Err(e) => {
                        warn!(target: START_LOG, "no TCP-looking packets on {addr}: {e}; UDP is served");
                    }
                }
            }
        }
        let places = places(&config, addr, each)?.into_iter();
        all.extend(places.map(|(place, socket)| (ports_served, place, socket)));
        ports_served += 1;
        names.push(format!("{addr}/udp"));
    }
    let access = AccessLog::new(clock);
    if let StreamAddr::Tcp { host, .. } = &server.target {
        // Each stream looks it up for itself; that it does not resolve is said before the first one comes.
        tokio::spawn(Arc::clone(&resolver).until_found(host.clone()));
    }
    let mut reloadable = Reloadable::new(Config::clone(&config), server.target);
    let ends = Arc::new(Ends {
        advice: Advice::kcptun(&config),
        resolver,
        link,
        config,
        target: reloadable.target(),
        clock,
        hub,
        access: access.clone(),
    });
    let naming = tokio::spawn(access.clone().run());
    let mut drivers = JoinSet::new();
    let mut commands = Vec::new();
    let registry = Registry::new(all.iter().map(|(port, ..)| *port).collect());
    for (me, (_, place, socket)) in all.into_iter().enumerate() {
        let (sender, receiver) = mpsc::channel(1);
        commands.push(sender);
        let seat = Seat {
            place,
            registry: Arc::clone(&registry),
            me,
        };
        drivers.spawn(Arc::clone(&ends).serve(seat, socket, receiver));
    }
    ready(&names.join(", "));
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            // Each ends only with its commands.
            Some(_) = drivers.join_next() => break,
            Some((config, told)) = reloads.recv() => {
                // Who asked may have gone.
                let _ = told.send(reloadable.reload(&config));
            }
        }
    }
    for sender in commands {
        let _ = sender.try_send(Command::Stop);
    }
    let all = async { while drivers.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(Duration::from_secs(2), all).await;
    naming.abort();
    access.finish();
    Ok(())
}

/// Where a driver serves.
enum Place {
    /// TCP-looking packets on this address.
    Raw(SocketAddr),
    /// UDP on this address, alone.
    Udp(SocketAddr),
    /// UDP as one of several drivers of a port.
    Shared {
        group: Arc<Group>,
        /// Its number among them.
        nth: usize,
    },
}

/// A driver's place, and its number among all drivers of the service.
struct Seat {
    place: Place,
    registry: Arc<Registry>,
    me: usize,
}

impl Place {
    async fn open(&self, config: &Config) -> Result<Datagrams, Error> {
        match self {
            Self::Raw(addr) => open::raw_server(config, *addr).await,
            Self::Udp(addr) => open::udp(config, *addr, true),
            Self::Shared { group, .. } => group.open(config),
        }
    }

    /// The socket is closed.
    fn closed(&self) {
        if let Self::Shared { group, .. } = self {
            group.closed();
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Raw(addr) => write!(f, "{addr}/tcp"),
            Self::Udp(addr) => write!(f, "{addr}/udp"),
            Self::Shared { group, nth } => write!(f, "{}/udp, number {nth}", group.addr()),
        }
    }
}

/// Places for `drivers` drivers on one port, with their sockets. Where only one is to be had, it is one, as if nobody had
/// asked for more.
///
/// # Errors
/// When the port cannot be had.
fn places(
    config: &Config,
    addr: SocketAddr,
    drivers: usize,
) -> Result<Vec<(Place, Datagrams)>, Error> {
    let alone = || Ok(vec![(Place::Udp(addr), open::udp(config, addr, true)?)]);
    if drivers < 2 || !fulmar_netio::GROUPS_BALANCE {
        return alone();
    }
    let made = Group::new(config, addr).and_then(|(group, first)| {
        let mut sockets = vec![first];
        for _ in 1..drivers {
            sockets.push(group.open(config)?);
        }
        Ok((Arc::new(group), sockets))
    });
    match made {
        Ok((group, sockets)) => {
            debug!(target: START_LOG, "{drivers} drivers share {addr}/udp");
            let place = |nth| Place::Shared {
                group: Arc::clone(&group),
                nth,
            };
            let sockets = sockets.into_iter().enumerate();
            Ok(sockets.map(|(nth, socket)| (place(nth), socket)).collect())
        }
        Err(e) => {
            let place = alone()?;
            warn!(target: START_LOG, "{e}; so one driver serves {addr}/udp, not {drivers}");
            Ok(place)
        }
    }
}

/// What all drivers have in common.
struct Ends {
    advice: Advice,
    resolver: Arc<Resolver>,
    config: Arc<Config>,
    /// Where new streams go.
    target: watch::Receiver<StreamAddr>,
    link: Link,
    clock: Clock,
    hub: Hub,
    access: AccessLog,
}

impl Ends {
    /// Runs the driver of one socket; a socket that fails is opened again.
    async fn serve(
        self: Arc<Self>,
        seat: Seat,
        first: Datagrams,
        mut commands: mpsc::Receiver<Command>,
    ) {
        let place = &seat.place;
        let mut socket = Some(first);
        let mut failures = LogLimit::default();
        loop {
            let opened = match socket.take() {
                Some(socket) => Ok(socket),
                None => place.open(&self.config).await,
            };
            match opened {
                Ok(socket) => {
                    let over = self.drive(&seat, socket, &mut commands).await;
                    place.closed();
                    match over {
                        Ok(()) => return,
                        Err(e) => {
                            warn!(name: log_kind::SOCKETS, "the socket on {place} failed and is opened again: {e}");
                        }
                    }
                }
                Err(e) => {
                    let text = format!("{e}; trying again");
                    if let Some(line) = failures.line(tokio::time::Instant::now(), &text) {
                        warn!(name: log_kind::SOCKETS, "{line}");
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(REOPEN) => {}
                _ = commands.recv() => return,
            }
        }
    }

    /// Runs a driver until it is told to stop.
    ///
    /// # Errors
    /// When its socket fails, or the system has no randomness.
    async fn drive(
        &self,
        seat: &Seat,
        socket: Datagrams,
        commands: &mut mpsc::Receiver<Command>,
    ) -> Result<(), Error> {
        let (sender, receiver) = mpsc::channel(1);
        let mut targets = self.target.clone();
        let target = targets.borrow_and_update().clone();
        let Seat {
            registry,
            me,
            place,
        } = seat;
        let mut endpoint = self.link.server(registry.on_port_of(*me));
        let (directory, exchange) = registry.enter(*me);
        endpoint.share(directory);
        endpoint.share_addresses(registry.addresses());
        let driver = Driver::new(Setup {
            clock: self.clock,
            socket,
            endpoint,
            side: Side::Server {
                dial: dialer(&target, &self.resolver),
                target: target.to_string(),
                access: self.access.clone(),
                reports: None,
            },
            commands: receiver,
            exchange: Some(exchange),
            hub: self.hub.clone(),
            advice: self.advice.clone(),
            servers: Vec::new(),
            close_wait: self.config.tunnel.close_wait,
        });
        tokio::pin!(driver);
        let mut changed = false;
        loop {
            tokio::select! {
                ended = &mut driver => return Ok(ended?),
                Ok(()) = targets.changed() => changed = true,
                Ok(permit) = sender.reserve(), if changed => {
                    changed = false;
                    let target = targets.borrow_and_update().clone();
                    let dial = dialer(&target, &self.resolver);
                    permit.send(Command::Target(dial, target.to_string()));
                }
                _ = commands.recv() => {
                    let _ = sender.try_send(Command::Stop);
                    if let Err(e) = driver.await {
                        info!(name: log_kind::SOCKETS, "the socket on {place} failed while stopping: {e}");
                    }
                    return Ok(());
                }
            }
        }
    }
}

/// The local address of `port`. An empty host is every address, of both families where the system has both.
async fn addr(range: &PortRange, port: u16) -> Result<SocketAddr, Error> {
    if range.host.is_empty() {
        return Ok(([0u16; 8], port).into());
    }
    let found = resolve::local(&range.host, port).await;
    found.map(|all| all[0]).map_err(|e| Error::Resolve {
        host: range.host.clone(),
        source: e,
    })
}

/// Where TCP-looking packets are served: a raw socket serves one family.
fn raw_addrs(addr: SocketAddr) -> Vec<SocketAddr> {
    if addr.ip().is_unspecified() {
        vec![
            ([0; 4], addr.port()).into(),
            ([0u16; 8], addr.port()).into(),
        ]
    } else {
        vec![addr]
    }
}

fn dialer(target: &StreamAddr, resolver: &Arc<Resolver>) -> Box<dyn Fn() -> Dial + Send> {
    let (target, resolver) = (target.clone(), Arc::clone(resolver));
    Box::new(move || Dial::target(target.clone(), Tuning::KCPTUN, &resolver))
}
