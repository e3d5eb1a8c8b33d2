//! The server: one driver for each port, streams joined to the target.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fulmar_config::{Config, Server, StreamAddr};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::driver::{Command, Driver, Setup, Side};
use crate::link::Link;
use crate::socket::Datagrams;
use crate::stats::Hub;
use crate::{Error, dial, open};

/// Pause before a listener that failed is opened again.
const REOPEN: Duration = Duration::from_secs(1);

/// Runs a server until `shutdown` completes.
///
/// # Errors
/// When a port cannot be had.
pub(crate) async fn run(
    config: Arc<Config>,
    server: Server,
    clock: Clock,
    hub: Hub,
    ready: impl FnOnce(&str),
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let link = Arc::new(Link::new(&config));
    let mut drivers = JoinSet::new();
    let mut commands = Vec::new();
    let mut names = Vec::new();
    for port in server.listen.ports() {
        let addr = addr(&server, port).await?;
        let mut sockets = Vec::new();
        if config.tunnel.tcp {
            for addr in raw_addrs(addr) {
                match open::raw_server(&config, addr).await {
                    Ok(socket) => {
                        names.push(format!("{addr}/tcp"));
                        sockets.push((socket, Some(addr)));
                    }
                    // As upstream does: UDP still runs (section 11.2).
                    Err(e) => warn!("no TCP-looking packets on {addr}: {e}; UDP is served"),
                }
            }
        }
        sockets.push((open::udp(&config, addr, true)?, None));
        names.push(format!("{addr}/udp"));
        for (socket, raw) in sockets {
            let (sender, receiver) = mpsc::channel(1);
            let (config, server, link, hub) = (
                Arc::clone(&config),
                server.clone(),
                Arc::clone(&link),
                hub.clone(),
            );
            commands.push(sender);
            drivers.spawn(serve(
                config, server, link, clock, hub, addr, raw, socket, receiver,
            ));
        }
    }
    ready(&names.join(", "));
    tokio::pin!(shutdown);
    tokio::select! {
        () = &mut shutdown => {}
        // Each ends only with its commands.
        Some(_) = drivers.join_next() => {}
    }
    for sender in commands {
        let _ = sender.try_send(Command::Stop);
    }
    let all = async { while drivers.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(Duration::from_secs(2), all).await;
    Ok(())
}

/// Runs the driver of one socket; a socket that fails is opened again.
#[allow(clippy::too_many_arguments)]
async fn serve(
    config: Arc<Config>,
    server: Server,
    link: Arc<Link>,
    clock: Clock,
    hub: Hub,
    addr: SocketAddr,
    raw: Option<SocketAddr>,
    first: Datagrams,
    mut commands: mpsc::Receiver<Command>,
) {
    let mut socket = Some(first);
    loop {
        let opened = match socket.take() {
            Some(socket) => Ok(socket),
            None => match raw {
                Some(addr) => open::raw_server(&config, addr).await,
                None => open::udp(&config, addr, true),
            },
        };
        let made = opened.and_then(|socket| Ok((socket, open::random()?)));
        match made {
            Ok((socket, random)) => {
                let (sender, receiver) = mpsc::channel(1);
                let driver = Driver::new(Setup {
                    clock,
                    socket,
                    endpoint: link.server(random.seed),
                    side: Side::Server {
                        dial: dialer(&server.target),
                        target: server.target.to_string(),
                    },
                    commands: receiver,
                    hub: hub.clone(),
                    close_wait: config.tunnel.close_wait,
                });
                tokio::pin!(driver);
                tokio::select! {
                    ended = &mut driver => match ended {
                        Ok(()) => return,
                        Err(e) => warn!("the socket on {addr} failed and is opened again: {e}"),
                    },
                    _ = commands.recv() => {
                        let _ = sender.try_send(Command::Stop);
                        if let Err(e) = driver.await {
                            info!("the socket on {addr} failed while stopping: {e}");
                        }
                        return;
                    }
                }
            }
            Err(e) => warn!("{e}; trying again"),
        }
        tokio::select! {
            () = tokio::time::sleep(REOPEN) => {}
            _ = commands.recv() => return,
        }
    }
}

/// The local address of `port`. An empty host is every address, of both families where the system has both.
async fn addr(server: &Server, port: u16) -> Result<SocketAddr, Error> {
    if server.listen.host.is_empty() {
        return Ok(([0u16; 8], port).into());
    }
    let found = dial::resolve(&server.listen.host, port).await;
    found.map(|all| all[0]).map_err(|e| Error::Resolve {
        host: server.listen.host.clone(),
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

fn dialer(target: &StreamAddr) -> Box<dyn Fn() -> crate::pump::Dial + Send> {
    let target = target.clone();
    Box::new(move || dial::target(target.clone()))
}
