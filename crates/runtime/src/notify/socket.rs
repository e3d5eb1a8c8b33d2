//! The socket of the service manager.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use nix::time::{ClockId, clock_gettime};

/// The variable that names the socket.
const SOCKET: &str = "NOTIFY_SOCKET";

/// The clock by which a reload is told apart from others, in microseconds.
///
/// # Errors
/// When the system has no such clock.
pub(super) fn monotonic_us() -> io::Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    let us = i128::from(now.tv_sec()) * 1_000_000 + i128::from(now.tv_nsec()) / 1000;
    u64::try_from(us).map_err(io::Error::other)
}

/// Sends `text`, if somebody asked to be told.
///
/// # Errors
/// When the socket cannot be written to.
pub(super) fn tell(text: &str) -> io::Result<()> {
    match std::env::var_os(SOCKET) {
        Some(socket) if !socket.is_empty() => send(&socket, text),
        _ => Ok(()),
    }
}

/// Sends `text` to `socket`: a path, or a name in the abstract namespace behind an `@`.
fn send(socket: &OsStr, text: &str) -> io::Result<()> {
    let sender = UnixDatagram::unbound()?;
    // Who does not read must not stop a tunnel.
    sender.set_nonblocking(true)?;
    let sent = sender.send_to_addr(text.as_bytes(), &address(socket)?)?;
    match sent == text.len() {
        true => Ok(()),
        false => Err(io::ErrorKind::WriteZero.into()),
    }
}

fn address(socket: &OsStr) -> io::Result<SocketAddr> {
    match socket.as_bytes() {
        [b'@', name @ ..] => abstract_address(name),
        [b'/', ..] => SocketAddr::from_pathname(socket),
        _ => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("{SOCKET} is neither an absolute path nor an abstract name"),
        )),
    }
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &[u8]) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt;
    SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_name: &[u8]) -> io::Result<SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// What arrives at `receiver`.
    fn received(receiver: &UnixDatagram) -> String {
        receiver
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("timeout");
        let mut buf = [0; 256];
        let n = receiver.recv(&mut buf).expect("receive");
        String::from_utf8(buf[..n].to_vec()).expect("text")
    }

    #[test]
    fn a_socket_with_a_path() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("notify");
        let receiver = UnixDatagram::bind(&path).expect("bind");
        send(path.as_os_str(), "READY=1\n").expect("send");
        assert_eq!(received(&receiver), "READY=1\n");
        drop(receiver);
        assert!(send(path.as_os_str(), "READY=1\n").is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_abstract_socket() {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("fulmar-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("name");
        let receiver = UnixDatagram::bind_addr(&address).expect("bind");
        send(OsStr::new(&format!("@{name}")), "STOPPING=1\n").expect("send");
        assert_eq!(received(&receiver), "STOPPING=1\n");
    }

    #[test]
    fn other_sockets_are_refused() {
        for bad in ["", "relative", "vsock:2:1"] {
            assert!(send(OsStr::new(bad), "READY=1\n").is_err(), "{bad}");
        }
    }
}
