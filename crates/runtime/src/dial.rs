//! Connections to targets: whatever may take long and fail, away from the drivers.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use fulmar_config::StreamAddr;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::conn::{Conn, Tuning};
use crate::resolve::{Resolver, number};

/// How long an address of a target has to accept a connection before the next one is tried as well (RFC 8305, section 5).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// A connection that is being made. It may take for ever: who waits sets the limit, without a timer for each of what may
/// be thousands.
pub(crate) enum Dial {
    /// The target is a number and the kernel at work: nothing else has to be remembered.
    Kernel(Option<Conn>),
    /// A name has to be looked up first, or there is more to it.
    Future(Pin<Box<dyn Future<Output = io::Result<Conn>> + Send>>),
}

impl Dial {
    /// Connects to a target. The addresses of a name are tried in turn.
    pub(crate) fn target(addr: StreamAddr, tuning: Tuning, resolver: &Arc<Resolver>) -> Self {
        match addr {
            StreamAddr::Tcp { host, port } => match number(&host) {
                Some(ip) => match connect((ip, port).into(), tuning) {
                    Ok(conn) => Self::Kernel(Some(conn)),
                    Err(e) => Self::Future(Box::pin(async { Err(e) })),
                },
                None => {
                    let resolver = Arc::clone(resolver);
                    Self::Future(Box::pin(by_name(resolver, host, port, tuning)))
                }
            },
            StreamAddr::Unix(path) => Self::Future(Box::pin(async move { unix(&path).await })),
        }
    }

    /// There is no target.
    pub(crate) fn refused() -> Self {
        Self::Future(Box::pin(async {
            Err(io::ErrorKind::ConnectionRefused.into())
        }))
    }

    /// The connection, once; registers the waker of `cx` while it is not there.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Conn>> {
        match self {
            Self::Kernel(conn) => {
                if let Some(conn) = conn {
                    ready!(conn.poll_connected(cx))?;
                }
                Poll::Ready(
                    conn.take()
                        .ok_or_else(|| io::ErrorKind::NotConnected.into()),
                )
            }
            Self::Future(future) => future.as_mut().poll(cx),
        }
    }
}

/// Lets the kernel begin to connect.
fn connect(addr: SocketAddr, tuning: Tuning) -> io::Result<Conn> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&addr.into()) {
        Err(e) if !goes_on(&e) => Err(e),
        _ => {
            let conn = TcpStream::from_std(socket.into()).map(Conn::Tcp)?;
            conn.tune(tuning);
            Ok(conn)
        }
    }
}

/// Whether a connection is being made in spite of the error.
#[cfg(unix)]
fn goes_on(e: &io::Error) -> bool {
    e.raw_os_error() == Some(libc::EINPROGRESS)
}

#[cfg(not(unix))]
fn goes_on(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::WouldBlock
}

async fn by_name(
    resolver: Arc<Resolver>,
    host: String,
    port: u16,
    tuning: Tuning,
) -> io::Result<Conn> {
    let addrs = resolver.addresses(&host, port).await?;
    let told = |addr: SocketAddr, accepts| match accepts {
        true => resolver.works(&host, addr.ip()),
        false => drop(resolver.silent(&host, addr.ip())),
    };
    let conn = Conn::Tcp(in_turn(addrs, told).await?);
    conn.tune(tuning);
    Ok(conn)
}

/// A connection to one of `addrs`: each is tried when the one before has failed or has taken long, and the first that accepts
/// is taken. Nothing is sent before, so no request runs twice. `told` is told which accept and which do not.
async fn in_turn(addrs: Vec<SocketAddr>, told: impl Fn(SocketAddr, bool)) -> io::Result<TcpStream> {
    let mut error = io::ErrorKind::NotFound.into();
    let mut late = Vec::new();
    let mut attempts = JoinSet::new();
    let mut rest = addrs.into_iter();
    loop {
        if let Some(addr) = rest.next() {
            late.push(addr);
            attempts.spawn(async move { (addr, TcpStream::connect(addr).await) });
        }
        let more = rest.len() > 0;
        let done = tokio::select! {
            done = attempts.join_next() => done,
            () = tokio::time::sleep(NEXT_ADDRESS), if more => continue,
        };
        match done {
            Some(Ok((addr, Ok(stream)))) => {
                for silent in late.into_iter().take_while(|other| *other != addr) {
                    told(silent, false);
                }
                told(addr, true);
                return Ok(stream);
            }
            Some(Ok((addr, Err(e)))) => {
                late.retain(|other| *other != addr);
                told(addr, false);
                error = e;
            }
            Some(Err(e)) => error = io::Error::other(e),
            None => return Err(error),
        }
    }
}

/// A leading `@` names an abstract socket, as in Go (section 3.4).
#[cfg(unix)]
async fn unix(path: &std::path::Path) -> io::Result<Conn> {
    use std::os::unix::ffi::OsStrExt;
    let addr = match path.as_os_str().as_bytes().strip_prefix(b"@") {
        #[cfg(target_os = "linux")]
        Some(name) => {
            use std::os::linux::net::SocketAddrExt;
            let addr = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
            let stream = std::os::unix::net::UnixStream::connect_addr(&addr)?;
            stream.set_nonblocking(true)?;
            return tokio::net::UnixStream::from_std(stream).map(Conn::Unix);
        }
        _ => path,
    };
    tokio::net::UnixStream::connect(addr).await.map(Conn::Unix)
}

#[cfg(not(unix))]
async fn unix(path: &std::path::Path) -> io::Result<Conn> {
    let message = format!(
        "{}: this system has no Unix sockets",
        fulmar_config::text::path(path)
    );
    Err(io::Error::new(io::ErrorKind::Unsupported, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn dial(host: &str, port: u16) -> io::Result<Conn> {
        dial_with(&Resolver::system(), host, port).await
    }

    async fn dial_with(resolver: &Arc<Resolver>, host: &str, port: u16) -> io::Result<Conn> {
        let host = host.to_owned();
        let mut dial = Dial::target(StreamAddr::Tcp { host, port }, Tuning::KCPTUN, resolver);
        std::future::poll_fn(|cx| dial.poll(cx)).await
    }

    #[tokio::test]
    async fn numbers_and_names_are_connected_to() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        for host in ["127.0.0.1", "", "localhost"] {
            let Ok(Conn::Tcp(ours)) = dial(host, port).await else {
                panic!("not connected to {host:?}");
            };
            let (theirs, from) = listener.accept().await.expect("a connection");
            assert_eq!(ours.local_addr().expect("an address"), from);
            drop(theirs);
        }
        drop(listener);
        for host in ["127.0.0.1", "localhost"] {
            let refused = dial(host, port)
                .await
                .map(|_| ())
                .expect_err("nobody is there");
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{host}");
        }
        let refused = dial("no such name", port).await.map(|_| ());
        assert!(
            refused
                .expect_err("no name")
                .to_string()
                .contains("look up")
        );
    }

    /// Two addresses of which the first refuses, and one that accepts nothing and refuses nothing.
    #[tokio::test]
    async fn a_target_behind_a_dead_first_address_is_reached() {
        let listener = tokio::net::TcpListener::bind("127.0.0.3:0")
            .await
            .expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        let resolver = Resolver::fixed(&["127.0.0.2", "127.0.0.3"]);
        for first in ["127.0.0.2", "127.0.0.3"] {
            let all = resolver.addresses("target", port).await.expect("known");
            assert_eq!(all[0].ip().to_string(), first);
            dial_with(&resolver, "target", port).await.expect("reached");
        }
        // A listener whose queue is full answers no more.
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket
            .bind("127.0.0.2:0".parse().expect("an address"))
            .expect("bound");
        let full = socket.listen(0).expect("a listener");
        let full_addr = full.local_addr().expect("an address");
        let mut queued = Vec::new();
        while let Ok(conn) =
            tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(full_addr)).await
        {
            queued.push(conn.expect("queued"));
        }
        let slow = [full_addr, listener.local_addr().expect("an address")];
        let told = std::sync::Mutex::new(Vec::new());
        let note = |addr: SocketAddr, accepts| told.lock().expect("told").push((addr, accepts));
        in_turn(slow.to_vec(), note).await.expect("reached");
        assert_eq!(
            *told.lock().expect("told"),
            [(slow[0], false), (slow[1], true)]
        );
    }
}
