//! Settings of kcptun-libev's dialect (docs/spec/kcptun-libev.md, section 3.4).

use fulmar_config::libev::{
    Crypto, HostPort, KcpSettings, LibevConfig, LibevLog, LibevRole, Ours, Place, Secret,
    TcpSettings, UdpSettings,
};

use super::{Change, Changes, Effect};

/// What has changed from `old` to `new`, which is of the same role.
pub(crate) fn changes(old: &LibevConfig, new: &LibevConfig) -> Vec<Change> {
    let mut found = Changes::new(&old.provenance, &new.provenance);
    let LibevConfig {
        role,
        crypto,
        obfs,
        netdev,
        // Refused with the place where the ends meet.
        service_id: _,
        client_bind: _,
        http_listen,
        keepalive,
        timeout,
        linger,
        time_wait,
        kcp,
        tcp,
        udp,
        log,
        user,
        ours,
        provenance: _,
    } = old;
    let next = Effect::NextStart;
    addresses(&mut found, role, &new.role);
    found.note("kcp_bind", bind(old), bind(new), Effect::Now);
    // Another address takes another socket.
    let socket = match bind(old) == bind(new) {
        true => Effect::NextSocket,
        false => Effect::Now,
    };
    found.note("http_listen", http_listen, &new.http_listen, next);
    secrets(&mut found, crypto, &new.crypto);
    found.note("obfs", obfs, &new.obfs, next);
    found.note("netdev", netdev, &new.netdev, socket);
    found.note("keepalive", keepalive, &new.keepalive, Effect::Now);
    let streams = match role {
        LibevRole::Relay { .. } => Effect::Now,
        _ => Effect::NewConnections,
    };
    found.note("timeout", timeout, &new.timeout, streams);
    found.note("linger", linger, &new.linger, streams);
    found.note("time_wait", time_wait, &new.time_wait, Effect::Now);
    kcp_settings(&mut found, kcp, &new.kcp);
    tcp_settings(&mut found, tcp, &new.tcp, role);
    let UdpSettings {
        reuseport,
        sndbuf,
        rcvbuf,
    } = udp;
    found.note("udp.reuseport", reuseport, &new.udp.reuseport, socket);
    found.note("udp.sndbuf", sndbuf, &new.udp.sndbuf, socket);
    found.note("udp.rcvbuf", rcvbuf, &new.udp.rcvbuf, socket);
    let LibevLog { level, sink } = log;
    found.note("loglevel", level, &new.log.level, Effect::Now);
    found.note("log", sink, &new.log.sink, Effect::Now);
    found.note("user", user, &new.user, next);
    let Ours {
        mode,
        redundancy,
        memory,
        delay_eof,
        accept_bad_checksums,
    } = ours;
    found.note("fulmar.mode", mode, &new.ours.mode, streams);
    found.note(
        "fulmar.redundancy",
        redundancy,
        &new.ours.redundancy,
        streams,
    );
    found.note("fulmar.memory", memory, &new.ours.memory, streams);
    found.note("fulmar.delay_eof", delay_eof, &new.ours.delay_eof, streams);
    let (was, is) = (accept_bad_checksums, &new.ours.accept_bad_checksums);
    found.note("fulmar.accept_bad_checksums", was, is, socket);
    found.found
}

/// The local address of the tunnel.
fn bind(config: &LibevConfig) -> Option<&HostPort> {
    match &config.role {
        LibevRole::Client { place, .. } => match place {
            Place::Direct(_) => config.client_bind.as_ref(),
            Place::Rendezvous { bind, .. } => bind.as_ref(),
        },
        LibevRole::Server { place, .. } => match place {
            Place::Direct(bind) => Some(bind),
            Place::Rendezvous { bind, .. } => bind.as_ref(),
        },
        LibevRole::Relay { bind, .. } => Some(bind),
    }
}

fn addresses(found: &mut Changes<'_>, old: &LibevRole, new: &LibevRole) {
    if let (LibevRole::Client { listen: was, .. }, LibevRole::Client { listen: is, .. }) =
        (old, new)
    {
        found.note("listen", was, is, Effect::NextStart);
    }
    if let (LibevRole::Server { connect: was, .. }, LibevRole::Server { connect: is, .. }) =
        (old, new)
    {
        found.note("connect", was, is, Effect::NewConnections);
    }
    match (old.place(), new.place()) {
        (Some(Place::Direct(was)), Some(Place::Direct(is)))
            if matches!(old, LibevRole::Client { .. }) =>
        {
            found.note("kcp_connect", was, is, Effect::Now);
        }
        (Some(Place::Rendezvous { relay: was, .. }), Some(Place::Rendezvous { relay: is, .. })) => {
            found.note("rendezvous_server", was, is, Effect::Now);
        }
        _ => {}
    }
}

fn secrets(found: &mut Changes<'_>, old: &Crypto, new: &Crypto) {
    found.note("method", old.method(), new.method(), Effect::NextStart);
    let secret = |crypto: &Crypto| match crypto {
        Crypto::Plain => (None, None),
        Crypto::Sealed { secret, .. } => match secret {
            Secret::Password(password) => (Some(password.clone()), None),
            Secret::Psk(psk) => (None, Some(psk.clone())),
        },
    };
    let (was, is) = (secret(old), secret(new));
    found.note("password", was.0, is.0, Effect::NextStart);
    found.note("psk", was.1, is.1, Effect::NextStart);
}

fn kcp_settings(found: &mut Changes<'_>, old: &KcpSettings, new: &KcpSettings) {
    let KcpSettings {
        mtu,
        sndwnd,
        rcvwnd,
        nodelay,
        interval,
        resend,
        nc,
        flush,
        explicit: _,
    } = old;
    let streams = Effect::NewConnections;
    found.note("kcp.mtu", mtu, &new.mtu, streams);
    found.note("kcp.sndwnd", sndwnd, &new.sndwnd, streams);
    found.note("kcp.rcvwnd", rcvwnd, &new.rcvwnd, streams);
    found.note("kcp.nodelay", nodelay, &new.nodelay, streams);
    found.note("kcp.interval", interval, &new.interval, streams);
    found.note("kcp.resend", resend, &new.resend, streams);
    found.note("kcp.nc", nc, &new.nc, streams);
    found.note("kcp.flush", flush, &new.flush, streams);
}

/// A server dials with them; at the other ends they are a listener's.
fn tcp_settings(found: &mut Changes<'_>, old: &TcpSettings, new: &TcpSettings, role: &LibevRole) {
    let TcpSettings {
        reuseport,
        keepalive,
        nodelay,
        sndbuf,
        rcvbuf,
    } = old;
    let effect = match role {
        LibevRole::Server { .. } => Effect::NewConnections,
        LibevRole::Client { .. } | LibevRole::Relay { .. } => Effect::NextStart,
    };
    found.note(
        "tcp.reuseport",
        reuseport,
        &new.reuseport,
        Effect::NextStart,
    );
    found.note("tcp.keepalive", keepalive, &new.keepalive, effect);
    found.note("tcp.nodelay", nodelay, &new.nodelay, effect);
    found.note("tcp.sndbuf", sndbuf, &new.sndbuf, effect);
    found.note("tcp.rcvbuf", rcvbuf, &new.rcvbuf, effect);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use fulmar_config::libev_from_bytes;

    use super::*;

    fn said(old: &str, new: &str) -> Vec<String> {
        let config = |members: &str| {
            let text = format!("{{{members}}}");
            let loaded = libev_from_bytes(Path::new("file.json"), text.as_bytes());
            loaded.expect("a configuration").config
        };
        let changes = changes(&config(old), &config(new));
        changes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_a_reload_does_not_take_over_is_named() {
        let old = r#""connect": "127.0.0.1:1", "kcp_bind": "127.0.0.1:2",
            "method": "xchacha20poly1305_ietf", "password": "a rather long password""#;
        let new = r#""connect": "127.0.0.1:9", "kcp_bind": "127.0.0.1:2",
            "method": "aes256gcm", "password": "another long password", "loglevel": 6,
            "udp": {"sndbuf": 65536}, "kcp": {"mtu": 1300}, "http_listen": "127.0.0.1:3""#;
        assert_eq!(
            said(old, new),
            [
                "connect changed: in effect for new connections",
                "http_listen changed: takes effect at the next start",
                "method changed: takes effect at the next start",
                "password changed: takes effect at the next start",
                "kcp.mtu changed: in effect for new connections",
                "udp.sndbuf changed: takes effect with the next UDP socket",
                "loglevel changed: in effect",
            ]
        );
        assert!(said(old, old).is_empty());
        let moved = old.replace(":2", ":4") + r#", "udp": {"sndbuf": 65536}"#;
        assert_eq!(
            said(old, &moved),
            [
                "kcp_bind changed: in effect",
                "udp.sndbuf changed: in effect"
            ]
        );
    }

    #[test]
    fn a_client_s_listener_stays() {
        let old = r#""listen": "127.0.0.1:1", "kcp_connect": "127.0.0.1:2""#;
        let new =
            r#""listen": "127.0.0.1:5", "kcp_connect": "127.0.0.1:3", "tcp": {"nodelay": false}"#;
        assert_eq!(
            said(old, new),
            [
                "listen changed: takes effect at the next start",
                "kcp_connect changed: in effect",
                "tcp.nodelay changed: takes effect at the next start",
            ]
        );
    }
}
