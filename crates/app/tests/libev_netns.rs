//! kcptun-libev's processes between network namespaces: behind NATs, with addresses that change, in the clothes of TCP.
//!
//! Each test runs in namespaces of its own (`kit::namespaces`), and makes more of them there.
#![cfg(target_os = "linux")]

#[expect(
    dead_code,
    reason = "some of it is for the tests on the loopback device"
)]
mod kit;

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use kit::namespaces::{connect_in, isolated, run_in, service_in, shell, shell_in};
use kit::{Program, Service, download, echo, file, pattern, run, say, service, try_echo, wait_for};
use tempfile::TempDir;

const KEY: &str = r#""method": "chacha20poly1305_ietf", "password": "a rather long password""#;
/// How long after which a server that has another address is known to the relay, at most.
const REGISTERED: Duration = Duration::from_secs(40);
/// How long a rendezvous, or coming back after an address has changed, may take on a slow machine.
const FOUND: Duration = Duration::from_secs(20);

/// A network behind a NAT on the public segment: the host `name`, and `nat-name` which masquerades it and drops what nobody
/// has asked for. `n` makes its addresses.
fn site(name: &str, n: u8) {
    shell(&format!(
        "ip netns add {name}; ip netns add nat-{name}
         ip link add {name}-wan type veth peer name wan netns nat-{name}
         ip link set {name}-wan master br0 up
         ip link add lan netns nat-{name} type veth peer name eth0 netns {name}"
    ));
    shell_in(
        &format!("nat-{name}"),
        &format!(
            "echo 1 > /proc/sys/net/ipv4/ip_forward
             echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
             ip link set lo up; ip link set wan up; ip link set lan up
             ip addr add 203.0.113.{n}/24 dev wan
             ip addr add 10.{n}.0.1/24 dev lan
             ip -6 addr add 2001:db8::{n}/64 dev wan nodad
             ip -6 addr add fd00:{n}::1/64 dev lan nodad
             nft add table inet nat
             nft add chain inet nat post '{{ type nat hook postrouting priority srcnat; }}'
             nft add rule inet nat post oifname wan masquerade
             nft add chain inet nat in '{{ type filter hook input priority filter; }}'
             nft add rule inet nat in iifname wan meta l4proto udp drop"
        ),
    );
    shell_in(
        name,
        &format!(
            "ip link set lo up; ip link set eth0 up
             ip addr add 10.{n}.0.2/24 dev eth0; ip route add default via 10.{n}.0.1
             ip -6 addr add fd00:{n}::2/64 dev eth0 nodad; ip -6 route add default via fd00:{n}::1"
        ),
    );
}

/// Opens a connection in `name` that gets an answer: what cannot be carried yet is tried again.
fn new_stream(name: &str, addr: SocketAddr) -> TcpStream {
    wait_for("a new connection works", FOUND, || {
        let mut conn = connect_in(name, addr);
        conn.set_read_timeout(Some(Duration::from_secs(10)))
            .expect("limit");
        try_echo(&mut conn, "new").ok().map(|()| conn)
    })
}

fn rendezvous(relay: &str) {
    shell(
        "ip link add br0 type bridge; ip link set br0 up
         ip addr add 203.0.113.1/24 dev br0; ip -6 addr add 2001:db8::1/64 dev br0 nodad",
    );
    site("server", 11);
    site("client", 12);
    let dir = TempDir::new().expect("dir");
    let members = format!(r#""kcp_bind": "{relay}", {KEY}"#);
    let relay_program = run(&file(dir.path(), "relay.json", &members));
    relay_program.line("listening on");

    let there = format!(r#""rendezvous_server": "{relay}", "service_id": "echo", {KEY}"#);
    let target = service_in("server", Service::Echo);
    let members = format!(r#""connect": "{target}", {there}"#);
    let server = run_in("server", &file(dir.path(), "server.json", &members));
    server.line("listening on");
    let members = format!(r#""listen": "127.0.0.1:0", {there}"#);
    let client = run_in("client", &file(dir.path(), "client.json", &members));
    let listen = client.address("/tcp");

    // A connection that comes before the server has been found waits for it.
    let started = Instant::now();
    let mut conn = connect_in("client", listen);
    echo(&mut conn, "through two NATs");
    say(&format!("found after {:?}", started.elapsed()));
    client.line("rendezvoused at");

    let from = client.lines();
    another_address("client", 12, 13);
    let started = Instant::now();
    conn.set_read_timeout(Some(FOUND)).expect("limit");
    echo(&mut conn, "through another NAT");
    say(&format!("the stream went on after {:?}", started.elapsed()));
    client.line_from(from, "rendezvoused at", FOUND);
    let mut new = new_stream("client", listen);
    say(&format!("a new stream after {:?}", started.elapsed()));
    echo(&mut new, "new");
    echo(&mut conn, "old");

    // The same at the server, which tells the relay of itself every 25 seconds: what begins then works.
    let started = Instant::now();
    another_address("server", 11, 21);
    let from = client.lines();
    client.line_from(from, "rendezvoused at", REGISTERED);
    new_stream("client", listen);
    say(&format!(
        "the moved server was found after {:?}",
        started.elapsed()
    ));
}

/// A provider gives a site another address, and its NAT other ports: what was known of it is gone.
fn another_address(name: &str, old: u8, new: u8) {
    shell_in(
        &format!("nat-{name}"),
        &format!(
            "nft flush chain inet nat post
             nft add rule inet nat post oifname wan meta l4proto udp masquerade to :40000-41000
             ip addr del 203.0.113.{old}/24 dev wan; ip addr add 203.0.113.{new}/24 dev wan
             ip -6 addr del 2001:db8::{old}/64 dev wan; ip -6 addr add 2001:db8::{new}/64 dev wan nodad"
        ),
    );
}

#[test]
fn rendezvous_ipv4() {
    isolated("rendezvous_ipv4", || rendezvous("203.0.113.1:4000"));
}

#[test]
fn rendezvous_ipv6() {
    isolated("rendezvous_ipv6", || rendezvous("[2001:db8::1]:4000"));
}

/// A host `client` at one end of a cable, and this one at the other.
fn cable() {
    shell(
        "ip netns add client
         ip link add eth0 type veth peer name eth0 netns client
         ip link set eth0 up
         ip addr add 10.3.0.1/24 dev eth0; ip -6 addr add fd03::1/64 dev eth0 nodad",
    );
    shell_in(
        "client",
        "ip link set lo up; ip link set eth0 up
         ip addr add 10.3.0.2/24 dev eth0; ip -6 addr add fd03::2/64 dev eth0 nodad",
    );
}

/// A server here and a client there, both with `more`.
fn direct(dir: &Path, target: SocketAddr, at: &str, more: &str) -> (Program, Program) {
    let server = direct_server(dir, target, at, more);
    let members = format!(r#""listen": "127.0.0.1:0", "kcp_connect": "{at}", {more}"#);
    let client = run_in("client", &file(dir, "client.json", &members));
    client.line("listening on");
    (server, client)
}

fn direct_server(dir: &Path, target: SocketAddr, at: &str, more: &str) -> Program {
    let members = format!(r#""connect": "{target}", "kcp_bind": "{at}", {more}"#);
    let server = run(&file(dir, "server.json", &members));
    server.line("listening on");
    server
}

fn address_change(at: &str, commands: &str) {
    let dir = TempDir::new().expect("dir");
    let (_server, client) = direct(dir.path(), service(Service::Echo), at, KEY);
    let listen = client.address("/tcp");
    let mut conn = connect_in("client", listen);
    echo(&mut conn, "before");
    shell_in("client", commands);
    let started = Instant::now();
    conn.set_read_timeout(Some(FOUND)).expect("limit");
    echo(&mut conn, "after");
    say(&format!("the stream went on after {:?}", started.elapsed()));
    // Bulk, there and back, from the new address.
    let bulk = pattern(1_000_000);
    let mut half = conn.try_clone().expect("cloned");
    let sent = bulk.clone();
    let sender = thread::spawn(move || std::io::Write::write_all(&mut half, &sent));
    let mut back = vec![0; bulk.len()];
    std::io::Read::read_exact(&mut conn, &mut back).expect("read");
    sender.join().expect("joined").expect("sent");
    assert!(back == bulk);
    echo(&mut connect_in("client", listen), "new");
}

#[test]
fn a_client_changes_its_address() {
    isolated("a_client_changes_its_address", || {
        cable();
        address_change(
            "10.3.0.1:4000",
            "ip addr del 10.3.0.2/24 dev eth0; ip addr add 10.3.0.3/24 dev eth0",
        );
        address_change(
            "[fd03::1]:4000",
            "ip -6 addr del fd03::2/64 dev eth0; ip -6 addr add fd03::3/64 dev eth0 nodad",
        );
    });
}

#[test]
fn without_a_key_nobody_is_followed() {
    isolated("without_a_key_nobody_is_followed", || {
        cable();
        let dir = TempDir::new().expect("dir");
        let more = r#""keepalive": 10"#;
        let at = "10.3.0.1:4000";
        let (_server, client) = direct(dir.path(), service(Service::Echo), at, more);
        let mut conn = connect_in("client", client.address("/tcp"));
        echo(&mut conn, "before");
        shell_in(
            "client",
            "ip addr del 10.3.0.2/24 dev eth0; ip addr add 10.3.0.3/24 dev eth0",
        );
        // The application is told so, and can begin anew.
        let lost = try_echo(&mut conn, "after").expect_err("lost");
        assert_eq!(lost.kind(), std::io::ErrorKind::ConnectionReset);
        new_stream("client", client.address("/tcp"));
    });
}

#[test]
fn a_path_with_small_packets() {
    isolated("a_path_with_small_packets", || {
        cable();
        // Somewhere between the two, and neither is told.
        let narrow = "ip link set eth0 gso_max_segs 1
             nft add table inet path
             nft add chain inet path in '{ type filter hook input priority filter; }'
             nft add rule inet path in iifname eth0 meta length '>' 1300 drop";
        shell(narrow);
        shell_in("client", narrow);
        for at in ["10.3.0.1:4000", "[fd03::1]:4001"] {
            let dir = TempDir::new().expect("dir");
            let target = service(Service::Source);
            let (_server, client) = direct(dir.path(), target, at, KEY);
            let started = Instant::now();
            download(connect_in("client", client.address("/tcp")), 1_000_000);
            say(&format!("{at}: 1 MB in {:?}", started.elapsed()));
        }
    });
}

fn obfuscated(kind: &str, at: &str) {
    let dir = TempDir::new().expect("dir");
    let more = format!(r#""obfs": "{kind}", {KEY}"#);
    let target = service(Service::Source);
    let (mut server, client) = direct(dir.path(), target, at, &more);
    let listen = client.address("/tcp");
    let started = Instant::now();
    download(connect_in("client", listen), 5_000_000);
    say(&format!("{kind} {at}: 5 MB in {:?}", started.elapsed()));

    // One that is in the middle of much.
    let mut old = connect_in("client", listen);
    std::io::Write::write_all(&mut old, &100_000_000_u64.to_be_bytes()).expect("sent");
    std::io::Read::read_exact(&mut old, &mut [0; 1000]).expect("read");
    // A server that was started again knows nothing: the client comes back to it.
    server.end("KILL");
    let server = direct_server(dir.path(), service(Service::Echo), at, &more);
    let started = Instant::now();
    let lost = std::io::Read::read_to_end(&mut old, &mut Vec::new()).expect_err("lost");
    assert_eq!(lost.kind(), std::io::ErrorKind::ConnectionReset);
    say(&format!("the old is lost after {:?}", started.elapsed()));
    new_stream("client", listen);
    say(&format!("a new one after {:?}", started.elapsed()));
    drop(server);
}

#[test]
fn in_the_clothes_of_tcp() {
    isolated("in_the_clothes_of_tcp", || {
        cable();
        for kind in ["dpi/tcp-wnd", "dpi/tcp"] {
            for (n, host) in ["10.3.0.1", "[fd03::1]"].into_iter().enumerate() {
                obfuscated(kind, &format!("{host}:{}", 4000 + n));
            }
        }
    });
}
