//! ICMP errors on loopback: they are told, and they cost no datagram.
#![cfg(target_os = "linux")]

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use fulmar_netio::{
    IcmpError, IcmpKind, RecvBuffers, RecvMeta, SocketOptions, Transmit, UdpState, bind,
};

mod namespace;
mod skipped;
use namespace::{in_namespace, shell};
use skipped::skipped;

struct Client {
    socket: UdpSocket,
    state: UdpState,
}

impl Client {
    fn new(local: &str, watch: bool) -> Option<Self> {
        let options = SocketOptions::default();
        let Ok((socket, _)) = bind(local.parse().expect("address"), &options) else {
            skipped(&format!("no address {local} here"));
            return None;
        };
        let state = UdpState::new((&socket).into()).expect("state");
        if watch {
            state.watch_icmp((&socket).into()).expect("watched");
        }
        Some(Self { socket, state })
    }

    /// Sends so many runs of three datagrams in one call; none may be lost.
    fn send(&self, to: SocketAddr, runs: usize) {
        let run = Transmit {
            dst: to,
            src_ip: None,
            ecn: None,
            segment: 100,
            probe: false,
            data: &[7; 250],
        };
        let sent = self
            .state
            .send_many((&self.socket).into(), &vec![run; runs])
            .expect("no error of the socket");
        assert_eq!((sent.runs, sent.datagrams, sent.lost), (runs, 3 * runs, 0));
    }

    fn drain(&self) -> Vec<IcmpError> {
        let mut errors = Vec::new();
        self.state
            .drain_icmp((&self.socket).into(), |e| errors.push(e));
        errors
    }

    /// Receives until there is nothing, without waiting.
    fn recv(&self) -> usize {
        let (mut buffers, mut metas) = (RecvBuffers::default(), [RecvMeta::EMPTY; 4]);
        let mut found = 0;
        loop {
            match self
                .state
                .recv((&self.socket).into(), &mut buffers, &mut metas)
            {
                Ok(n) => found += metas[..n].iter().map(RecvMeta::datagrams).sum::<usize>(),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return found,
                Err(e) => panic!("{e}"),
            }
        }
    }
}

/// Sends until something comes back.
fn until_told(client: &Client, to: SocketAddr) -> IcmpError {
    let patience = Instant::now() + Duration::from_secs(20);
    loop {
        client.send(to, 1);
        client.recv();
        if let Some(&error) = client.drain().first() {
            return error;
        }
        assert!(Instant::now() < patience, "nothing comes back");
    }
}

const FAMILIES: [(&str, &str); 3] = [
    ("0.0.0.0:0", "127.0.0.1"),
    ("[::]:0", "::1"),
    ("[::]:0", "127.0.0.1"),
];

#[test]
fn a_closed_port_is_named_and_every_datagram_leaves() {
    for (local, host) in FAMILIES {
        let Some(client) = Client::new(local, true) else {
            continue;
        };
        let host = host.parse().expect("address");
        let server = UdpSocket::bind((host, 0)).expect("bind");
        let to = server.local_addr().expect("address");
        drop(server);
        let error = until_told(&client, to);
        assert_eq!((error.remote, error.kind), (to, IcmpKind::PortUnreachable));
        assert_eq!(error.reporter, Some(host));
        // Many, in one call: an error waits in front of each message.
        client.send(to, 40);
        client.recv();
        assert!(!client.drain().is_empty());

        // The port opens, with errors still in the queue: what is sent next arrives.
        client.send(to, 1);
        let server = UdpSocket::bind(to).expect("bind");
        server
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("timeout");
        client.send(to, 1);
        for len in [100, 100, 50] {
            assert_eq!(server.recv(&mut [0; 200]).expect("a datagram"), len);
        }
        client.drain();
        let counters = client.state.counters();
        assert!(counters.icmp_errors > 0 && counters.send_errors > 0);
        assert_eq!(counters.segmentation_refused, 0, "{counters:?}");
        // And nothing is left of it.
        assert!(client.drain().is_empty());
        assert_eq!(client.recv(), 0);
    }
}

#[test]
fn who_does_not_ask_is_not_told() {
    for (local, host) in FAMILIES {
        let Some(client) = Client::new(local, false) else {
            continue;
        };
        let server = UdpSocket::bind((host, 0)).expect("bind");
        let to = server.local_addr().expect("address");
        drop(server);
        for _ in 0..10 {
            client.send(to, 2);
            assert_eq!(client.recv(), 0);
        }
        assert!(client.drain().is_empty());
        let counters = client.state.counters();
        assert_eq!((counters.send_errors, counters.recv_errors), (0, 0));
    }
}

#[test]
fn errors_do_not_pile_up() {
    let Some(client) = Client::new("0.0.0.0:0", true) else {
        return;
    };
    let server = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let to = server.local_addr().expect("address");
    drop(server);
    // Nobody drains: the kernel's queue ends somewhere, and sending goes on.
    for _ in 0..2000 {
        client.send(to, 2);
    }
    let mut rounds = 0;
    let mut told = 0;
    loop {
        let errors = client.drain().len();
        assert!(errors <= fulmar_netio::MAX_ICMP_ERRORS);
        if errors == 0 {
            break;
        }
        told += errors;
        rounds += 1;
    }
    assert!(
        rounds > 1 && told < 12_000,
        "{rounds} rounds, {told} errors"
    );
}

#[test]
fn routers_and_firewalls_are_named() {
    in_namespace("routers_and_firewalls_are_named", || {
        // Nobody is at 10.77.0.9; a firewall of the way forbids port 7 and a whole network.
        shell("ip link add near type veth peer name far; ip link set near up; ip link set far up");
        shell("ip addr add 10.77.0.1/24 dev near");
        shell("ip addr add 192.0.2.1/32 dev lo");
        shell(
            "nft add table ip no; nft 'add chain ip no c { type filter hook input priority 0; }'",
        );
        shell("nft add rule ip no c udp dport 7 reject with icmp type admin-prohibited");
        shell(
            "nft add rule ip no c ip daddr 192.0.2.1 udp dport 8 reject with icmp type net-unreachable",
        );
        for local in ["0.0.0.0:0", "[::]:0"] {
            let Some(client) = Client::new(local, true) else {
                continue;
            };
            for (to, kind) in [
                ("127.0.0.1:7", IcmpKind::Prohibited),
                ("192.0.2.1:8", IcmpKind::NetworkUnreachable),
                ("10.77.0.9:9", IcmpKind::HostUnreachable),
            ] {
                let to = to.parse().expect("address");
                let error = until_told(&client, to);
                assert_eq!((error.remote, error.kind), (to, kind));
                while !client.drain().is_empty() {}
            }
        }
    });
}
