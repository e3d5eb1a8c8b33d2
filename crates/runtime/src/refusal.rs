//! What to do about an address that cannot be had.

use std::io;

/// What an address is of, by how it is shown: `host:port`, perhaps with `/udp` or `/tcp` behind it, or the path of a Unix socket.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Of {
    Udp(u16),
    Tcp(u16),
    Unix,
}

impl Of {
    fn shown(addr: &str) -> Self {
        let (addr, make): (_, fn(u16) -> Self) = match addr.strip_suffix("/udp") {
            Some(addr) => (addr, Self::Udp),
            None => (addr.strip_suffix("/tcp").unwrap_or(addr), Self::Tcp),
        };
        let port = addr.rsplit_once(':').map(|(_, port)| port.parse());
        match port {
            Some(Ok(port)) => make(port),
            _ => Self::Unix,
        }
    }
}

/// What helps against `error` at `addr`, behind a semicolon; empty where nothing is known to.
pub(crate) fn advice(addr: &str, error: &io::Error) -> String {
    let text = match (error.kind(), Of::shown(addr)) {
        (io::ErrorKind::PermissionDenied, Of::Udp(1..1024) | Of::Tcp(1..1024)) => {
            "ports below 1024 need root or the capability CAP_NET_BIND_SERVICE (AmbientCapabilities= in a unit), or a smaller \
             net.ipv4.ip_unprivileged_port_start"
                .into()
        }
        (io::ErrorKind::PermissionDenied, Of::Unix) => {
            "its directory has to be one that this user may write to".into()
        }
        (io::ErrorKind::AddrInUse, Of::Udp(port)) => {
            format!("another program has this port: ss -lunp 'sport = :{port}' shows which")
        }
        (io::ErrorKind::AddrInUse, Of::Tcp(port)) => {
            format!("another program has this port: ss -ltnp 'sport = :{port}' shows which")
        }
        (io::ErrorKind::AddrInUse, Of::Unix) => {
            "another program listens there: ss -lxp shows which".into()
        }
        (io::ErrorKind::AddrNotAvailable, _) => {
            "no interface of this machine has this address: ip address shows them; leave the host out for all".into()
        }
        _ => return String::new(),
    };
    format!("; {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_cannot_be_had_comes_with_what_helps() {
        use io::ErrorKind::{AddrInUse, AddrNotAvailable, NotFound, PermissionDenied};
        for (addr, kind, words) in [
            ("[::]:443/udp", PermissionDenied, "CAP_NET_BIND_SERVICE"),
            ("127.0.0.1:80", PermissionDenied, "CAP_NET_BIND_SERVICE"),
            ("/run/x.sock", PermissionDenied, "directory"),
            ("[::]:29900/udp", AddrInUse, "ss -lunp 'sport = :29900'"),
            ("h:12948", AddrInUse, "ss -ltnp 'sport = :12948'"),
            ("h:80/tcp", AddrInUse, "ss -ltnp 'sport = :80'"),
            ("/run/x.sock", AddrInUse, "ss -lxp"),
            ("192.0.2.1:5/udp", AddrNotAvailable, "ip address"),
        ] {
            let text = advice(addr, &kind.into());
            assert!(
                text.starts_with("; ") && text.contains(words),
                "{addr}: {text}"
            );
        }
        assert_eq!(advice("h:8080", &PermissionDenied.into()), "");
        assert_eq!(advice("h:8080", &NotFound.into()), "");
    }
}
