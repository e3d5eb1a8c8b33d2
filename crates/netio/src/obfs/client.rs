//! The thread of a client: dials, and dials again when the link is gone.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fulmar_wire::libev_obfs::{is_accepted, request};
use fulmar_wire::seq::Seq;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::flow::Flow;
use super::table::{Context, UNPROVED};
use super::{ObfsKind, Shared, local_of};
use crate::options::{Granted, SocketOptions, route};
use crate::sys::{self, Wanted};

/// How long to wait before each attempt, in milliseconds; the last for all that follow (docs/spec/kcptun-libev.md, section 13.4).
const DELAYS: [u64; 13] = [
    0, 200, 2000, 2000, 5000, 5000, 15_000, 15_000, 15_000, 60_000, 60_000, 120_000, 300_000,
];

/// A link that lasted so long was a good one, even if nothing was proved.
const LASTED: Duration = Duration::from_secs(10);

/// How often a link is looked at.
const ROUND: Duration = Duration::from_secs(1);

/// `dpi/tcp`: how long to wait for an answer before the first segment is sent again, doubled each time.
const FIRST_PATIENCE: Duration = Duration::from_millis(250);

/// What the thread needs besides what is shared.
pub(super) struct Dialler {
    pub(super) shared: Arc<Shared>,
    /// Readable when the thread is to end, or to dial again.
    pub(super) bell: UnixStream,
    pub(super) host: String,
    pub(super) options: SocketOptions,
    pub(super) connect_timeout: Duration,
    pub(super) bind: Option<SocketAddr>,
}

/// Why an attempt is over.
enum End {
    /// The link was good and is gone.
    Good,
    /// There was none, or it was of no use.
    Bad,
    /// The owner wants another.
    Wanted,
    /// The owner wants no more.
    Dropped,
}

impl Dialler {
    pub(super) fn start(self) -> io::Result<JoinHandle<()>> {
        self.bell.set_nonblocking(true)?;
        std::thread::Builder::new()
            .name("obfs-dial".to_owned())
            .stack_size(128 * 1024)
            .spawn(move || self.run())
    }

    fn run(&self) {
        let mut attempt = 0;
        loop {
            let delay = DELAYS.get(attempt).or(DELAYS.last()).map_or(0, |&ms| ms);
            if self.pause(Duration::from_millis(delay), &[]).is_some() && self.is_over() {
                return;
            }
            let end = match self.shared.kind {
                ObfsKind::TcpWnd => self.link_beside(),
                ObfsKind::Tcp => self.link_alone(),
            };
            self.shared.table().ready = false;
            match end {
                Ok(End::Dropped) => return,
                Ok(End::Wanted) => attempt = 0,
                // Not at once, because a good link may be followed by one that ends as soon as it is there.
                Ok(End::Good) => attempt = 1,
                Ok(End::Bad) | Err(_) => attempt += 1,
            }
        }
    }

    fn is_over(&self) -> bool {
        self.shared.ending.load(Relaxed)
    }

    /// Waits; returns early, with what has come true, if something does. The first is the bell, which is silenced.
    fn pause(&self, time: Duration, also: &[(BorrowedFd<'_>, Wanted)]) -> Option<Vec<bool>> {
        let until = Instant::now() + time;
        let mut wanted = vec![(self.bell.as_fd(), Wanted::Readable)];
        wanted.extend_from_slice(also);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match sys::wait(&wanted, Some(left)) {
                Ok(ready) if ready.contains(&true) => {
                    if ready.first() == Some(&true) {
                        let mut sink = [0; 64];
                        while (&self.bell).read(&mut sink).is_ok_and(|n| n > 0) {}
                    }
                    return Some(ready);
                }
                Ok(_) if left.is_zero() => return None,
                Ok(_) => {}
                // Out of memory; there is nothing to do but wait.
                Err(_) => std::thread::sleep(left.min(ROUND)),
            }
        }
    }

    /// What the bell means.
    fn rung(&self) -> End {
        if self.is_over() {
            End::Dropped
        } else {
            End::Wanted
        }
    }

    fn remote(&self) -> io::Result<SocketAddr> {
        self.shared
            .table()
            .remote
            .ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))
    }

    /// Our address towards the server, with the port that was asked for.
    fn source(&self, remote: SocketAddr) -> io::Result<SocketAddr> {
        let port = self.bind.map_or(0, |b| b.port());
        if let Some(bind) = self.bind.filter(|b| !b.ip().is_unspecified()) {
            return Ok(bind);
        }
        let wildcard = match remote {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        // Connecting a UDP socket sends nothing and tells which address the system would use.
        let socket = UdpSocket::bind((wildcard, 0))?;
        route(
            &SockRef::from(&socket),
            &self.options,
            &mut Granted::default(),
        )?;
        socket.connect(remote)?;
        let mut local = socket.local_addr()?;
        local.set_port(port);
        Ok(local)
    }

    fn tcp_socket(&self, local: SocketAddr) -> io::Result<Socket> {
        let socket = Socket::new(
            Domain::for_address(local),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        route(&socket, &self.options, &mut Granted::default())?;
        if local.port() != 0 {
            socket.set_reuse_address(true)?;
        }
        Ok(socket)
    }

    /// Puts a new context in place of the last one.
    fn begin(&self, remote: SocketAddr, context: Context) -> io::Result<()> {
        let local = context.local;
        let mut table = self.shared.table();
        let old: Vec<_> = table.list(Instant::now());
        for old in old {
            table.remove(&old.peer);
        }
        table.ready = false;
        table.totals.dials += 1;
        table.insert(remote, context);
        drop(table);
        self.shared.capture.only(local, Some(remote))
    }

    /// `dpi/tcp-wnd`: dials, and returns when the link is gone.
    fn link_beside(&self) -> io::Result<End> {
        let remote = self.remote()?;
        let bind = self.source(remote)?;
        let socket = self.tcp_socket(bind)?;
        sys::narrow(&socket)?;
        socket.bind(&bind.into())?;
        socket.set_nonblocking(true)?;
        let connection = TcpStream::from(socket);
        let local = local_of(&connection)?;
        let host = if self.host.is_empty() {
            remote.to_string()
        } else {
            self.host.clone()
        };
        let request = request(&host);
        let flow = Flow::beside(local.port(), remote.port(), request.len());
        // Before the handshake, which is what the numbers are learned from.
        self.begin(remote, Context::new(flow, local, Instant::now()))?;

        match SockRef::from(&connection).connect(&remote.into()) {
            Ok(()) => {}
            Err(e)
                if e.kind() == io::ErrorKind::WouldBlock
                    || e.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(e) => return Err(e),
        }
        let ready = self.pause(
            self.connect_timeout,
            &[(connection.as_fd(), Wanted::Writable)],
        );
        match ready.as_deref() {
            Some([true, ..]) => return Ok(self.rung()),
            Some(_) => {}
            None => return Ok(End::Bad),
        }
        if let Some(e) = connection.take_error()? {
            return Err(e);
        }
        // It is short enough to be taken at once.
        (&connection).write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        let until = Instant::now() + self.connect_timeout;
        let accepted = loop {
            let left = until.saturating_duration_since(Instant::now());
            let ready = self.pause(left, &[(connection.as_fd(), Wanted::Readable)]);
            match ready.as_deref() {
                Some([true, ..]) => return Ok(self.rung()),
                Some(_) => {}
                None => return Ok(End::Bad),
            }
            let mut buffer = [0; 1024];
            match (&connection).read(&mut buffer) {
                Ok(0) => return Ok(End::Bad),
                Ok(count) => answer.extend_from_slice(buffer.get(..count).unwrap_or_default()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
            if let Some(accepted) = is_accepted(&answer) {
                break accepted;
            }
        };
        if !accepted {
            return Ok(End::Bad);
        }
        self.is_up(remote);
        self.watch(remote, &[(connection.as_fd(), Wanted::Readable)])
    }

    fn is_up(&self, remote: SocketAddr) {
        let mut table = self.shared.table();
        table.ready = true;
        table.totals.connected += 1;
        if let Some(context) = table.get_mut(&remote) {
            context.created = Instant::now();
        }
    }

    /// `dpi/tcp`: dials, and returns when the link is gone.
    fn link_alone(&self) -> io::Result<End> {
        let remote = self.remote()?;
        let (local, _reserved) = self.port(self.source(remote)?)?;
        let first = Seq(self.shared.table().random());
        let flow = Flow::dialling(local.port(), remote.port(), first);
        self.begin(remote, Context::new(flow, local, Instant::now()))?;
        let mut patience = FIRST_PATIENCE;
        let until = Instant::now() + UNPROVED;
        while Instant::now() < until {
            {
                let mut table = self.shared.table();
                let id = table.random();
                let Some(context) = table.get(&remote) else {
                    return Ok(End::Bad);
                };
                if context.flow.is_open() {
                    drop(table);
                    return self.watch(remote, &[]);
                }
                // Whatever keeps it from leaving may be over the next time.
                let _ = self
                    .shared
                    .inject(remote, context, id, &context.flow.first());
            }
            if self.pause(patience, &[]).is_some() {
                return Ok(self.rung());
            }
            patience = (patience * 2).min(Duration::from_secs(8));
        }
        Ok(End::Bad)
    }

    /// A port that no connection of the kernel has, kept by the socket.
    fn port(&self, mut local: SocketAddr) -> io::Result<(SocketAddr, Socket)> {
        let any = local.port() == 0;
        let mut last = None;
        for _ in 0..16 {
            if any {
                let random = self.shared.table().random();
                // Section 13.5.
                local.set_port(49_152 + (random % 16_384) as u16);
            }
            let socket = self.tcp_socket(local)?;
            match socket.bind(&local.into()) {
                Ok(()) => return Ok((local, socket)),
                Err(e) => last = Some(e),
            }
            if !any {
                break;
            }
        }
        Err(last.unwrap_or_else(|| io::ErrorKind::AddrInUse.into()))
    }

    /// Waits for the end of a link that is up. Anything on the kernel's connection is one.
    fn watch(&self, remote: SocketAddr, also: &[(BorrowedFd<'_>, Wanted)]) -> io::Result<End> {
        let since = Instant::now();
        loop {
            let ready = self.pause(ROUND.min(self.shared.idle_timeout / 4), also);
            if let Some([true, ..]) = ready.as_deref() {
                return Ok(self.rung());
            }
            let now = Instant::now();
            let table = self.shared.table();
            let context = table.get(&remote);
            let over =
                ready.is_some() || context.is_none_or(|c| c.is_over(now, self.shared.idle_timeout));
            if over {
                let good = now.saturating_duration_since(since) >= LASTED
                    || context.is_some_and(Context::is_authenticated);
                return Ok(if good { End::Good } else { End::Bad });
            }
        }
    }
}
