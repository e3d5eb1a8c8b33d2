//! The thread of a server: accepts the kernel's connections, and forgets flows that are silent.

use std::io::{self, Read as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::flow::Flow;
use super::{Entry, Shared, quieten};
use crate::addr::unmapped;
use crate::sys;

/// Connections that wait for the thread; Go's default as well as most systems' limit of old.
pub(super) const BACKLOG: i32 = 128;

/// How long a connection without a single datagram is kept. Anyone can make those; a client sends at once.
const UNCONFIRMED: Duration = Duration::from_secs(5);

/// How often flows are looked at while there are any; more often if they are forgotten sooner than that, but
/// not all the time.
const ROUND: Duration = Duration::from_secs(1);
const SHORTEST_ROUND: Duration = Duration::from_millis(10);

/// How long to leave a listener alone that has an error, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// Starts the thread; it ends when `ending` is set and the listener is shut down.
pub(super) fn start(listener: &TcpListener, shared: &Arc<Shared>) -> io::Result<JoinHandle<()>> {
    let listener = listener.try_clone()?;
    let shared = Arc::clone(shared);
    std::thread::Builder::new()
        .name("rawtcp-accept".to_owned())
        .stack_size(128 * 1024)
        .spawn(move || run(&listener, &shared))
}

fn run(listener: &TcpListener, shared: &Shared) {
    let round = ROUND.min(shared.idle_timeout).max(SHORTEST_ROUND);
    let mut looked = Instant::now();
    while !shared.ending.load(Relaxed) {
        // An idle server sleeps until somebody connects.
        let wait = if shared.flows().is_empty() {
            None
        } else {
            Some(round)
        };
        let _ = SockRef::from(listener).set_read_timeout(wait);
        match listener.accept() {
            Ok((connection, peer)) => admit(shared, connection, unmapped(peer)),
            Err(e) if is_timeout(&e) || e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) if shared.ending.load(Relaxed) => return,
            Err(_) => std::thread::sleep(PAUSE),
        }
        let now = Instant::now();
        if now.duration_since(looked) >= round {
            looked = now;
            expire(shared, now);
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// Makes a flow of an accepted connection.
fn admit(shared: &Shared, connection: TcpStream, peer: SocketAddr) {
    let Ok(local) = connection.local_addr().map(unmapped) else {
        return;
    };
    if shared.flows().len() >= shared.max_flows || quieten(&connection, local.is_ipv6()).is_err() {
        return;
    }
    let now = Instant::now();
    let entry = Entry {
        flow: Flow::new(local.port(), peer.port(), sys::agreed(&connection), now),
        connection,
        local_ip: local.ip(),
        heard: now,
        confirmed: false,
    };
    // The kernel has at most one connection with these four numbers, so an older flow is dead.
    let old = shared.flows().insert(peer, entry);
    if let Some(old) = old {
        sys::close_silently(old.connection);
    }
}

/// Forgets flows that are silent, or whose connection the kernel has given up.
fn expire(shared: &Shared, now: Instant) {
    let over: Vec<_> = shared
        .flows()
        .extract_if(|_, entry| {
            let patience = if entry.confirmed {
                shared.idle_timeout
            } else {
                UNCONFIRMED.min(shared.idle_timeout)
            };
            now.saturating_duration_since(entry.heard) >= patience || !is_open(&entry.connection)
        })
        .collect();
    for (_, entry) in over {
        sys::close_silently(entry.connection);
    }
}

/// Whether the kernel's connection still stands. Discards what the kernel took for data.
fn is_open(mut connection: &TcpStream) -> bool {
    let mut sink = [0; 4096];
    loop {
        match connection.read(&mut sink) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return is_timeout(&e),
        }
    }
}
