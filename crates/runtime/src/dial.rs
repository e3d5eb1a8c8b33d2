//! Names and connections: whatever may take long and fail, away from the drivers.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use fulmar_config::StreamAddr;
use tokio::net::TcpStream;

use crate::conn::Conn;
use crate::pump::Dial;

/// How long a connection to a target may take.
const CONNECT: Duration = Duration::from_secs(20);
/// How long a name may take to resolve.
const RESOLVE: Duration = Duration::from_secs(10);

/// The addresses of `host`, IPv4 first as upstream prefers it (spec/kcptun.md, section 2.6). Numbers are not looked up.
///
/// # Errors
/// When the name does not resolve in time.
pub(crate) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let bare = host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(vec![(ip, port).into()]);
    }
    if bare.is_empty() {
        return Ok(vec![(IpAddr::from([127, 0, 0, 1]), port).into()]);
    }
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

/// Connects to a target, trying each of its addresses.
pub(crate) fn target(addr: StreamAddr) -> Dial {
    Box::pin(async move {
        let connect = async {
            match &addr {
                StreamAddr::Tcp { host, port } => {
                    let mut last = None;
                    for addr in resolve(host, *port).await? {
                        match TcpStream::connect(addr).await {
                            Ok(s) => return Ok(Conn::Tcp(s)),
                            Err(e) => last = Some(e),
                        }
                    }
                    Err(last.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
                }
                StreamAddr::Unix(path) => unix(path).await,
            }
        };
        tokio::time::timeout(CONNECT, connect)
            .await
            .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer")))
    })
}

/// A leading `@` names an abstract socket, as in Go (section 2.3).
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
