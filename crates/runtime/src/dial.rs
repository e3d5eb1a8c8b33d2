//! Names and connections: whatever may take long and fail, away from the drivers.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use fulmar_config::StreamAddr;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpStream;

use crate::conn::{Conn, Tuning};

/// How long a name may take to resolve.
const RESOLVE: Duration = Duration::from_secs(10);

/// The addresses of `host`, IPv4 first as upstream prefers it (docs/spec/kcptun.md, section 3.4). Numbers are not looked up.
///
/// # Errors
/// When the name does not resolve in time.
pub(crate) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Some(ip) = number(host) {
        return Ok(vec![(ip, port).into()]);
    }
    let bare = bare(host);
    let found = tokio::time::timeout(RESOLVE, tokio::net::lookup_host((bare, port)))
        .await
        .map_err(|_| {
            io::Error::new(
                io::ErrorKind::TimedOut,
                format!("looking up {bare} took too long"),
            )
        })?
        .map_err(|e| io::Error::new(e.kind(), format!("cannot look up {bare}: {e}")))?;
    let mut all: Vec<_> = found.collect();
    all.sort_by_key(SocketAddr::is_ipv6);
    if all.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("{bare} has no address"),
        ));
    }
    Ok(all)
}

/// The address that `host` is, when it is one already. An empty host is this machine.
fn number(host: &str) -> Option<IpAddr> {
    match bare(host) {
        "" => Some([127, 0, 0, 1].into()),
        bare => bare.parse().ok(),
    }
}

/// A host without the brackets around an IPv6 address.
fn bare(host: &str) -> &str {
    host.strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host)
}

/// A connection that is being made. It may take for ever: who waits sets the limit, without a timer for each of what may
/// be thousands.
pub(crate) enum Dial {
    /// The target is a number and the kernel at work: nothing else has to be remembered.
    Kernel(Option<Conn>),
    /// A name has to be looked up first, or there is more to it.
    Future(Pin<Box<dyn Future<Output = io::Result<Conn>> + Send>>),
}

impl Dial {
    /// Connects to a target. Each address of a name is tried.
    pub(crate) fn target(addr: StreamAddr, tuning: Tuning) -> Self {
        match addr {
            StreamAddr::Tcp { host, port } => match number(&host) {
                Some(ip) => match connect((ip, port).into(), tuning) {
                    Ok(conn) => Self::Kernel(Some(conn)),
                    Err(e) => Self::Future(Box::pin(async { Err(e) })),
                },
                None => Self::Future(Box::pin(by_name(host, port, tuning))),
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

async fn by_name(host: String, port: u16, tuning: Tuning) -> io::Result<Conn> {
    let mut last = None;
    for addr in resolve(&host, port).await? {
        match TcpStream::connect(addr).await {
            Ok(s) => {
                let conn = Conn::Tcp(s);
                conn.tune(tuning);
                return Ok(conn);
            }
            Err(e) => last = Some(e),
        }
    }
    Err(last.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
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
    let message = format!("{}: this system has no Unix sockets", path.display());
    Err(io::Error::new(io::ErrorKind::Unsupported, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn dial(host: &str, port: u16) -> io::Result<Conn> {
        let host = host.to_owned();
        let mut dial = Dial::target(StreamAddr::Tcp { host, port }, Tuning::KCPTUN);
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
}
