//! Paths that are narrower than a packet, in every dialect: with routers that fragment and say nothing, and with routers that drop.
#![cfg(target_os = "linux")]

#[allow(dead_code, reason = "some of it is for the tests of others")]
mod kit;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use kit::namespaces::{connect_in, isolated, output_in, shell, shell_in, start_in};
use kit::{Program, SOON, Service, download, echo, file, fulmar, say, wait_for};
use tempfile::TempDir;

/// What a router can do with a packet that the next link does not take.
#[derive(Copy, Clone)]
enum Narrow {
    /// Fragments what has no DF, and drops the rest. IPv4 only.
    Fragments,
    /// Drops it.
    Drops,
}

/// The client's host, two routers between which a packet may have 1280 bytes, and this one, which sends at most 20 Mbit/s. No
/// router says anything.
fn narrow(kind: Narrow) {
    let mtu = match kind {
        Narrow::Fragments => 1280,
        Narrow::Drops => 1500,
    };
    shell(&format!(
        "ip netns add client; ip netns add near; ip netns add far
         ip link add eth0 netns client type veth peer name left netns near
         ip link add right netns near mtu {mtu} type veth peer name left mtu {mtu} netns far
         ip link add right netns far type veth peer name eth0
         tc qdisc add dev eth0 root tbf rate 20mbit burst 64kb latency 100ms
         ip link set eth0 up; ip link set eth0 gso_max_segs 1
         ip addr add 10.4.2.2/24 dev eth0; ip -6 addr add fd04:2::2/64 dev eth0 nodad
         ip route add 10.4.0.0/16 via 10.4.2.1; ip -6 route add fd04::/16 via fd04:2::1"
    ));
    shell_in(
        "client",
        "ip link set lo up; ip link set eth0 up; ip link set eth0 gso_max_segs 1
         ip addr add 10.4.0.2/24 dev eth0; ip -6 addr add fd04:0::2/64 dev eth0 nodad
         ip route add default via 10.4.0.1; ip -6 route add default via fd04:0::1",
    );
    for (name, left, right) in [("near", "0::1", "1::1"), ("far", "1::2", "2::1")] {
        let v4 = |end: &str| format!("10.4.{}", end.replace("::", "."));
        let (next4, next6) = match name {
            "near" => ("10.4.2.0/24 via 10.4.1.2", "fd04:2::/64 via fd04:1::2"),
            _ => ("10.4.0.0/24 via 10.4.1.1", "fd04:0::/64 via fd04:1::1"),
        };
        shell_in(
            name,
            &format!(
                "echo 1 > /proc/sys/net/ipv4/ip_forward
                 echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
                 ip link set left up; ip link set right up
                 ip addr add {}/24 dev left; ip addr add {}/24 dev right
                 ip -6 addr add fd04:{left}/64 dev left nodad; ip -6 addr add fd04:{right}/64 dev right nodad
                 ip route add {next4}; ip -6 route add {next6}
                 nft add table inet path
                 nft add chain inet path out '{{ type filter hook output priority filter; }}'
                 nft add rule inet path out icmp type destination-unreachable drop
                 nft add rule inet path out icmpv6 type packet-too-big drop",
                v4(left),
                v4(right)
            ),
        );
    }
    if matches!(kind, Narrow::Drops) {
        shell_in(
            "far",
            "nft add chain inet path forward '{ type filter hook forward priority filter; }'
             nft add rule inet path forward meta length '>' 1280 drop",
        );
    }
}

/// Fragments that the routers have made.
fn fragments() -> u64 {
    let count = |name| {
        let text = output_in(name, "cat /proc/net/snmp");
        let mut lines = text.lines().filter(|line| line.starts_with("Ip: "));
        let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
        let at = names.split(' ').position(|n| n == "FragCreates");
        let value = values.split(' ').nth(at.expect("it is counted"));
        value.and_then(|v| v.parse::<u64>().ok()).expect("number")
    };
    count("near") + count("far")
}

/// Where the server is.
const HERE: &str = "10.4.2.2:4000";
const KEY: &str = "a rather long password";

/// A server here and a client in its namespace, of one dialect.
struct Tunnel {
    server: Program,
    _client: Program,
    listen: SocketAddr,
    _dir: TempDir,
}

impl Tunnel {
    fn kcptun(at: &str, target: SocketAddr, flags: &[&str]) -> Self {
        Self::kcptun_at(at, at, target, flags)
    }

    fn kcptun_at(bind: &str, at: &str, target: SocketAddr, flags: &[&str]) -> Self {
        let both = ["--key", KEY].iter().chain(flags);
        let mut command = fulmar();
        command.args(["server", "-l", bind, "-t", &target.to_string()]);
        command.args(both.clone());
        let server = Program::start(command);
        server.line("listening on");
        let first = ["client", "-l", "127.0.0.1:0", "-r", at];
        let client = start_in("client", first.iter().chain(both));
        let listen = client.address("");
        Self {
            server,
            _client: client,
            listen,
            _dir: TempDir::new().expect("dir"),
        }
    }

    fn libev(at: &str, target: SocketAddr, more: &str) -> Self {
        let dir = TempDir::new().expect("dir");
        let both = format!(r#""method": "chacha20poly1305_ietf", "password": "{KEY}"{more}"#);
        let members = format!(r#""connect": "{target}", "kcp_bind": "{at}", {both}"#);
        let server = kit::run(&file(dir.path(), "server.json", &members));
        server.line("listening on");
        let members = format!(r#""listen": "127.0.0.1:0", "kcp_connect": "{at}", {both}"#);
        let client = kit::namespaces::run_in("client", &file(dir.path(), "client.json", &members));
        let listen = client.address("/tcp");
        Self {
            server,
            _client: client,
            listen,
            _dir: dir,
        }
    }

    /// Each dialect, with the sender that follows the path or with a fixed size of packets.
    fn all(at: &str, target: SocketAddr, auto: bool, mut each: impl FnMut(&str, &Self)) {
        let mode = if auto { "auto" } else { "fast" };
        let flags = ["--mode", mode, "--mtu", "1350", "--nocomp"];
        each("kcptun", &Self::kcptun(at, target, &flags));
        let flags = ["--compat", "2016", "--mode", mode];
        each("kcptun of 2016", &Self::kcptun(at, target, &flags));
        let more = if auto { "" } else { r#", "kcp.nodelay": 1"# };
        each("kcptun-libev", &Self::libev(at, target, more));
    }

    fn connect(&self) -> TcpStream {
        connect_in("client", self.listen)
    }

    /// A counter of the server's; those that are 0 are not printed.
    fn counter(&self, name: &str) -> u64 {
        let from = self.server.lines();
        self.server.signal("USR1");
        let line = self.server.line_from(from, "Fulmar:{", SOON);
        let Some((_, rest)) = line.split_once(&format!("{name}:")) else {
            return 0;
        };
        let end = rest.find(|c: char| !c.is_ascii_digit());
        rest[..end.unwrap_or(rest.len())].parse().expect(name)
    }

    /// Downloads until the server has found out which size passes: at most `most` bytes of UDP payload. What follows on that
    /// connection makes no fragments.
    fn settle(&self, what: &str, most: u64) {
        let started = Instant::now();
        // One connection, which in some dialects is a session of its own.
        let mut conn = self.connect();
        let mut reader = conn.try_clone().expect("cloned");
        conn.write_all(&1_000_000_000_u64.to_be_bytes())
            .expect("asked");
        let read = Arc::new(AtomicUsize::new(0));
        let so_far = Arc::clone(&read);
        let reading = thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while let Ok(n @ 1..) = reader.read(&mut buffer) {
                read.fetch_add(n, Relaxed);
            }
        });
        let size = wait_for("the size is found", Duration::from_secs(60), || {
            let size = self.counter("PathDatagramSize");
            (size > most - 20).then_some(size)
        });
        assert!(size <= most, "{what}: {size}");
        say(&format!("{what}: {size} after {:?}", started.elapsed()));
        // What was sent before it was found arrives.
        let more = |bytes| {
            let until = so_far.load(Relaxed) + bytes;
            wait_for("more arrives", SOON, || {
                (so_far.load(Relaxed) >= until).then_some(())
            });
        };
        more(2_000_000);
        let before = fragments();
        more(2_000_000);
        assert_eq!(fragments(), before, "{what}");
        assert_eq!(self.counter("BlackHoles"), 0, "{what}");
        // However the connection ends now.
        let _ = conn.shutdown(Shutdown::Both);
        reading.join().expect("read");
    }
}

fn target(service: Service) -> SocketAddr {
    kit::service(service)
}

#[test]
fn auto_finds_what_passes_in_one_piece_where_routers_fragment() {
    isolated(
        "auto_finds_what_passes_in_one_piece_where_routers_fragment",
        || {
            narrow(Narrow::Fragments);
            Tunnel::all(HERE, target(Service::Source), true, |what, t| {
                t.settle(what, 1252);
            });
        },
    );
}

/// Messages of one packet each way, one after the other: each leaves by itself, so none travels in a train.
fn single_packets(tunnel: &Tunnel, what: &str) {
    let started = Instant::now();
    let mut conn = tunnel.connect();
    let text = "x".repeat(1250);
    for _ in 0..20 {
        echo(&mut conn, &text);
    }
    say(&format!("{what}: 20 echoes in {:?}", started.elapsed()));
}

#[test]
fn a_fixed_size_passes_in_fragments() {
    isolated("a_fixed_size_passes_in_fragments", || {
        narrow(Narrow::Fragments);
        Tunnel::all(HERE, target(Service::Echo), false, |what, t| {
            let before = fragments();
            single_packets(t, what);
            assert!(fragments() >= before + 40, "{what}");
        });
        // The IPv4 side of a socket for both families, in bulk.
        let target = target(Service::Source);
        let flags = ["--mode", "fast", "--mtu", "1350", "--nocomp"];
        let tunnel = Tunnel::kcptun_at(":4001", "10.4.2.2:4001", target, &flags);
        let before = fragments();
        download(tunnel.connect(), 1_000_000);
        assert!(fragments() > before + 500);
    });
}

#[test]
fn auto_passes_a_router_that_drops_what_is_large() {
    isolated("auto_passes_a_router_that_drops_what_is_large", || {
        narrow(Narrow::Drops);
        for (at, most) in [("10.4.2.2:4000", 1252), ("[fd04:2::2]:4000", 1232)] {
            Tunnel::all(at, target(Service::Source), true, |what, t| {
                t.settle(&format!("{what} {at}"), most);
            });
        }
    });
}
