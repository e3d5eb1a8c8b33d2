//! The thread of a server of `dpi/tcp-wnd`: accepts the kernel's connections and answers what is asked there.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use fulmar_wire::libev_obfs::{Answer, answer, error_page, no_content};

use super::flow::Flow;
use super::table::{Context, UNPROVED, key};
use super::{Shared, local_of};
use crate::sys::{self, Wanted};

/// Connections that wait for the thread (docs/spec/kcptun-libev.md, section 13.4).
pub(super) const BACKLOG: i32 = 16;

/// Bytes that our kernel says at most of a connection on which data follows: the answer to the request.
const SPOKEN: usize = 216;

/// How often contexts are looked at while there are any.
const ROUND: Duration = Duration::from_secs(1);

/// How long to leave a listener alone that has an error, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection whose request has not come yet.
struct Asking {
    peer: std::net::SocketAddr,
    serial: u64,
    since: Instant,
    connection: Arc<TcpStream>,
    bytes: Vec<u8>,
}

/// Starts the thread; it ends when `ending` is set and the listener is shut down.
pub(super) fn start(listener: &TcpListener, shared: &Arc<Shared>) -> io::Result<JoinHandle<()>> {
    let listener = listener.try_clone()?;
    listener.set_nonblocking(true)?;
    let shared = Arc::clone(shared);
    std::thread::Builder::new()
        .name("obfs-accept".to_owned())
        .stack_size(128 * 1024)
        .spawn(move || run(&listener, &shared))
}

fn run(listener: &TcpListener, shared: &Shared) {
    let mut asking: Vec<Asking> = Vec::new();
    while !shared.ending.load(Relaxed) {
        let mut wanted = vec![(listener.as_fd(), Wanted::Readable)];
        wanted.extend(
            asking
                .iter()
                .map(|a| (a.connection.as_fd(), Wanted::Readable)),
        );
        // An idle server sleeps until somebody connects.
        let timeout = if asking.is_empty() && shared.table().is_empty() {
            None
        } else {
            Some(ROUND.min(shared.idle_timeout / 4))
        };
        let Ok(ready) = sys::wait(&wanted, timeout) else {
            std::thread::sleep(PAUSE);
            continue;
        };
        let now = Instant::now();
        let mut ready = ready.into_iter();
        let knocked = ready.next().unwrap_or(false);
        asking.retain_mut(|a| {
            let asked = ready.next().unwrap_or(false);
            (!asked || !hear(shared, a)) && now.saturating_duration_since(a.since) < UNPROVED
        });
        if knocked {
            loop {
                match listener.accept() {
                    Ok((connection, peer)) => {
                        asking.extend(admit(shared, connection, key(peer, 0), now));
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) if shared.ending.load(Relaxed) => return,
                    Err(_) => {
                        std::thread::sleep(PAUSE);
                        break;
                    }
                }
            }
        }
        shared.table().expire(now, shared.idle_timeout);
    }
}

/// Makes a context of an accepted connection, unless it is refused.
fn admit(
    shared: &Shared,
    connection: TcpStream,
    peer: std::net::SocketAddr,
    now: Instant,
) -> Option<Asking> {
    let local = key(local_of(&connection).ok()?, 0);
    connection.set_nonblocking(true).ok()?;
    let connection = Arc::new(connection);
    let mut table = shared.table();
    if let Some(old) = table.get(&peer) {
        // The kernel has one connection with these numbers, so an older context is that of a dead one.
        if old.local != local && old.connection.as_ref().is_some_and(|c| is_open(c)) {
            table.totals.refused += 1;
            return None;
        }
        table.remove(&peer);
    }
    if !table.accepts(shared.max_contexts) {
        return None;
    }
    let flow = Flow::beside(local.port(), peer.port(), SPOKEN);
    let mut context = Context::new(flow, local, now);
    context.connection = Some(Arc::clone(&connection));
    let serial = table.insert(peer, context);
    Some(Asking {
        peer,
        serial,
        since: now,
        connection,
        bytes: Vec::new(),
    })
}

/// Whether the kernel's connection still stands.
pub(super) fn is_open(connection: &TcpStream) -> bool {
    match connection.peek(&mut [0]) {
        Ok(0) => false,
        Ok(_) => true,
        Err(e) => matches!(
            e.kind(),
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
        ),
    }
}

/// Reads what has come of a request and answers it; returns whether that is done with.
fn hear(shared: &Shared, asking: &mut Asking) -> bool {
    let mut connection = &*asking.connection;
    let mut buffer = [0; 1024];
    loop {
        match connection.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => asking
                .bytes
                .extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return false,
            Err(_) => break,
        }
        let time = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |t| t.as_secs());
        match answer(&asking.bytes) {
            Answer::Wait => {}
            Answer::NoContent => {
                // It is short enough to be taken at once.
                if connection.write_all(no_content(time).as_bytes()).is_err() {
                    break;
                }
                // Nothing is read there any more; the context holds it open.
                return true;
            }
            Answer::Page(status) => {
                let _ = connection.write_all(error_page(status, time).as_bytes());
                break;
            }
            Answer::Close => break,
        }
    }
    // Whoever it was, it is none of ours.
    let mut table = shared.table();
    if table
        .get(&asking.peer)
        .is_some_and(|c| c.serial() == asking.serial && !c.is_authenticated())
    {
        table.remove(&asking.peer);
    }
    true
}
