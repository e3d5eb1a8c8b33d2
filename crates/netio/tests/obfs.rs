//! kcptun-libev's obfuscation, end to end, in network namespaces of the tests' own.
//!
//! Each test starts itself again inside a new namespace; most have a second one, with a server that sends back what it
//! gets, at the other end of a virtual cable. Such a cable leaves checksums to a device that is not there, as
//! containers' do. Where that is not permitted the test says so and does nothing.
#![cfg(target_os = "linux")]
#![allow(clippy::print_stderr)]

use std::io::{self, BufRead as _, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fulmar_netio::{
    FirewallUse, Obfs, ObfsError, ObfsKind, ObfsOptions, ObfsState, RecvBuffers, RecvMeta,
    SocketOptions, Transmit, Trouble,
};
use fulmar_wire::libev_obfs::{Frame, MAX_FRAME_LEN};
use fulmar_wire::rawtcp::{Flags, Header, Options};
use fulmar_wire::seq::Seq;
use tokio::io::Interest;
use tokio::net::UdpSocket;

mod namespace;
mod skipped;
use namespace::{INSIDE, in_namespace, shell};
use skipped::skipped;

const KINDS: [ObfsKind; 2] = [ObfsKind::TcpWnd, ObfsKind::Tcp];
const V4: &str = "10.9.0.2:8080";
const V6: &str = "[fd09::2]:8080";

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("address")
}

fn options() -> ObfsOptions {
    ObfsOptions {
        socket: SocketOptions {
            recv_buffer: Some(4 << 20),
            send_buffer: Some(4 << 20),
            ..SocketOptions::default()
        },
        idle_timeout: Duration::from_secs(1),
        ..ObfsOptions::default()
    }
}

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime")
        .block_on(async { tokio::time::timeout(Duration::from_secs(60), future).await })
        .expect("nothing happens any more")
}

/// An end under a runtime, as a driver holds it.
struct End {
    obfs: Obfs,
    readable: UdpSocket,
    writable: UdpSocket,
    buffers: RecvBuffers,
    metas: [RecvMeta; 32],
}

impl End {
    fn new(obfs: Obfs) -> Self {
        let register = |socket: io::Result<std::net::UdpSocket>| {
            UdpSocket::from_std(socket.expect("descriptor")).expect("registered")
        };
        Self {
            readable: register(obfs.readiness()),
            writable: register(obfs.send_readiness()),
            obfs,
            buffers: RecvBuffers::new(1),
            metas: [RecvMeta::EMPTY; 32],
        }
    }

    fn dial(kind: ObfsKind, remote: &str) -> Self {
        Self::new(Obfs::dial(kind, addr(remote), None, &options()).expect("dial"))
    }

    async fn send(&self, dst: SocketAddr, segment: usize, data: &[u8]) {
        let run = Transmit {
            dst,
            src_ip: None,
            ecn: None,
            segment,
            probe: false,
            data,
        };
        let mut at = 0;
        while at < data.len() {
            let sent = self
                .writable
                .async_io(Interest::WRITABLE, || self.obfs.send(&run.rest(at)))
                .await
                .expect("send");
            // A peer that has just dialled anew has another context, and what was for the old one is lost.
            assert!(matches!(sent.trouble, None | Some(Trouble::NoFlow)));
            at = if sent.runs == 1 {
                data.len()
            } else {
                at + sent.bytes
            };
        }
    }

    /// What comes; all of it counts as opened.
    async fn recv(&mut self) -> Vec<(RecvMeta, Vec<u8>)> {
        let (buffers, metas) = (&mut self.buffers, &mut self.metas);
        let count = self
            .readable
            .async_io(Interest::READABLE, || self.obfs.recv(buffers, metas))
            .await
            .expect("recv");
        for meta in &self.metas[..count] {
            self.obfs.authenticate(meta.src);
        }
        self.metas[..count]
            .iter()
            .map(|meta| (*meta, self.buffers.run(meta).to_vec()))
            .collect()
    }

    /// Receives until `what` is true, throwing away what comes.
    async fn until(&mut self, what: impl Fn(&Obfs) -> bool) {
        while !what(&self.obfs) {
            let _ = tokio::time::timeout(Duration::from_millis(10), self.recv()).await;
        }
    }

    async fn ready(&mut self) {
        self.until(Obfs::is_ready).await;
    }

    /// Sends datagrams to an echoing server and checks what comes back.
    async fn echoed(&mut self, server: SocketAddr, segment: usize, data: &[u8]) {
        self.send(server, segment, data).await;
        let want = data.chunks(segment);
        let mut got = Vec::new();
        while got.len() < want.len() {
            for (meta, bytes) in self.recv().await {
                assert_eq!(meta.src, server);
                got.extend(bytes.chunks(meta.segment).map(<[u8]>::to_vec));
            }
        }
        assert!(want.eq(got.iter().map(Vec::as_slice)), "{segment}");
    }

    /// One datagram, sent again and again until it is back: the way there or the server may be gone.
    async fn echoed_at_last(&mut self, server: SocketAddr, data: &[u8]) {
        loop {
            let run = Transmit {
                dst: server,
                src_ip: None,
                ecn: None,
                segment: 0,
                probe: false,
                data,
            };
            let _ = self.obfs.send(&run);
            let got = tokio::time::timeout(Duration::from_millis(50), self.recv()).await;
            if got.is_ok_and(|runs| runs.iter().any(|(_, bytes)| bytes.starts_with(data))) {
                return;
            }
        }
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32)
        .flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes())
        .take(len)
        .collect()
}

/// A host at the other end of a virtual cable, with a server that sends back what it gets.
struct Neighbour {
    child: Child,
    lines: io::Lines<io::BufReader<std::process::ChildStdout>>,
}

impl Neighbour {
    /// Starts the host, with a server of `kind` on `listen`.
    fn new(kind: ObfsKind, listen: &str) -> Self {
        let mut child = Command::new("unshare")
            .arg("--net")
            .arg(std::env::current_exe().expect("this program"))
            .args([
                "helper_server",
                "--exact",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(INSIDE, format!("server {} {listen}", kind.name()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare");
        let stdout = child.stdout.take().expect("stdout");
        let mut new = Self {
            child,
            lines: io::BufReader::new(stdout).lines(),
        };
        new.hear("inside");
        shell(&format!(
            "ip link del near 2>/dev/null; \
             ip link add near type veth peer name far netns {pid}; \
             ip addr add 10.9.0.1/24 dev near; ip addr add 10.9.0.3/24 dev near; \
             ip -6 addr add fd09::1/64 dev near nodad; ip -6 addr add fe80::1/64 dev near nodad; \
             ip link set near up; \
             ns='nsenter --net=/proc/{pid}/ns/net'; \
             $ns ip link set lo up; $ns ip addr add 10.9.0.2/24 dev far; \
             $ns ip -6 addr add fd09::2/64 dev far nodad; \
             $ns ip -6 addr add fe80::2/64 dev far nodad; $ns ip link set far up",
            pid = new.child.id()
        ));
        new.say("start");
        new
    }

    fn hear(&mut self, what: &str) {
        loop {
            let line = self.lines.next().expect("it lives").expect("a line");
            if line.ends_with(what) {
                return;
            }
        }
    }

    /// Has the server started again.
    fn say(&mut self, what: &str) {
        let stdin = self.child.stdin.as_mut().expect("stdin");
        writeln!(stdin, "{what}").expect("it lives");
        self.hear("ready");
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if self.child.try_wait().is_ok_and(|status| status.is_some()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not a test of its own: the host with the server. Each line of input starts the server anew.
#[test]
fn helper_server() {
    let Ok(inside) = std::env::var(INSIDE) else {
        return;
    };
    let mut words = inside.split(' ').skip(1);
    let (Some(kind), Some(listen)) = (words.next().and_then(ObfsKind::from_name), words.next())
    else {
        return;
    };
    let listen = addr(listen);
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for _ in io::stdin().lines().map_while(Result::ok) {
            let _ = tell.send(());
        }
    });
    println!("\ninside");
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime")
        .block_on(async {
            let mut more = told.recv().await;
            while more.is_some() {
                let mut server = End::new(Obfs::listen(kind, listen, &options()).expect("listen"));
                println!("\nready");
                more = loop {
                    tokio::select! {
                        more = told.recv() => break more,
                        runs = server.recv() => for (meta, bytes) in runs {
                            server.send(meta.src, meta.segment, &bytes).await;
                        },
                    }
                };
            }
        });
}

#[test]
fn datagrams_pass_both_ways() {
    in_namespace("datagrams_pass_both_ways", || {
        for kind in KINDS {
            for (listen, dial) in [(V4, V4), ("0.0.0.0:8080", V4), (V6, V6), ("[::]:8080", V6)] {
                let neighbour = Neighbour::new(kind, listen);
                run(async {
                    let data = pattern(40_000);
                    let mut client = End::dial(kind, dial);
                    client.ready().await;
                    client.echoed_at_last(addr(dial), b"first").await;
                    let before = client.obfs.counters();
                    for (segment, len) in [(1350, 28 * 1350), (1000, 4321), (1400, 1400), (1, 9)] {
                        client.echoed(addr(dial), segment, &data[..len]).await;
                    }
                    for _ in 0..100 {
                        client.echoed(addr(dial), 1300, &data[..28 * 1300]).await;
                    }
                    let c = client.obfs.counters();
                    assert_eq!(
                        (
                            c.sent_datagrams - before.sent_datagrams,
                            c.recv_datagrams - before.recv_datagrams
                        ),
                        (2843, 2843)
                    );
                    assert_eq!((c.raw_malformed, c.raw_bad_checksum), (0, 0), "{c:?}");
                    assert_eq!((c.recv_truncated, c.recv_overflows), (0, 0));
                    let contexts = client.obfs.contexts();
                    assert_eq!(contexts.len(), 1);
                    assert_eq!(contexts[0].peer, addr(dial));
                    assert_eq!(contexts[0].state, ObfsState::Authenticated);
                    assert_eq!(Some(contexts[0].local), client.obfs.local_addr());
                    assert!(contexts[0].rx_bytes > 100 * 28 * 1300);
                    assert!(contexts[0].tx_bytes > 100 * 28 * 1300);
                    let totals = client.obfs.totals();
                    assert_eq!(
                        (totals.dials, totals.connected),
                        (1, 1),
                        "{kind:?} {listen}"
                    );

                    // No kernel has taken any of that for its own.
                    assert_eq!(out_of_order("self"), 0);
                    assert_eq!(out_of_order(&neighbour.child.id().to_string()), 0);

                    // What is too long for the link costs itself only.
                    let long = Transmit {
                        dst: addr(dial),
                        src_ip: None,
                        ecn: None,
                        segment: 1600,
                        probe: false,
                        data: &data[..3300],
                    };
                    let sent = client.obfs.send(&long).expect("send");
                    assert_eq!((sent.runs, sent.lost, sent.datagrams), (1, 2, 1));
                    assert_eq!(sent.trouble, Some(Trouble::TooLong));
                });
            }
        }
    });
}

/// How many segments the kernel of a process's namespace has kept because others were missing before them.
fn out_of_order(process: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/net/netstat")).expect("numbers");
    let mut lines = text.lines().filter(|l| l.starts_with("TcpExt:"));
    let names = lines.next().expect("names").split(' ');
    let numbers = lines.next().expect("numbers").split(' ');
    let (_, number) = names
        .zip(numbers)
        .find(|(name, _)| *name == "TCPOFOQueue")
        .expect("that number");
    number.parse().expect("a number")
}

#[test]
fn link_local_peers_have_a_scope() {
    in_namespace("link_local_peers_have_a_scope", || {
        for kind in KINDS {
            let _neighbour = Neighbour::new(kind, "[::]:8080");
            let device = shell("ip -o link show near");
            let device = device.split(':').next().expect("a number").to_owned();
            run(async {
                let server = addr(&format!("[fe80::2%{device}]:8080"));
                let mut client =
                    End::new(Obfs::dial(kind, server, None, &options()).expect("dial"));
                client.ready().await;
                client.echoed_at_last(server, b"near").await;
            });
        }
    });
}

#[test]
fn what_tracks_connections_lets_it_pass() {
    in_namespace("what_tracks_connections_lets_it_pass", || {
        for kind in KINDS {
            let _neighbour = Neighbour::new(kind, V4);
            shell(
                "nft 'delete table ip t' 2>/dev/null; nft add table ip t; \
                 nft 'add chain ip t o { type filter hook output priority 0; }'; \
                 nft 'add rule ip t o ct state invalid counter drop'; \
                 nft 'add chain ip t i { type filter hook prerouting priority 0; }'; \
                 nft 'add rule ip t i ct state invalid counter'",
            );
            run(async {
                let mut client = End::dial(kind, V4);
                client.ready().await;
                client.echoed_at_last(addr(V4), b"there").await;
                let data = pattern(28 * 1300);
                for _ in 0..100 {
                    client.echoed(addr(V4), 1300, &data).await;
                }
            });
            let table = shell("nft list table ip t");
            assert_eq!(
                table.matches("packets 0 bytes 0").count(),
                2,
                "{kind:?} {table}"
            );
        }
    });
}

#[test]
fn several_clients_and_the_same_again() {
    in_namespace("several_clients_and_the_same_again", || {
        for kind in KINDS {
            let _neighbour = Neighbour::new(kind, V4);
            run(async {
                let bind = |ip: &str| {
                    let bound = Obfs::dial(kind, addr(V4), Some(addr(ip)), &options());
                    End::new(bound.expect("dial"))
                };
                let mut one = bind("10.9.0.1:0");
                let mut two = bind("10.9.0.3:50000");
                one.ready().await;
                two.ready().await;
                let data = pattern(20_000);
                for _ in 0..3 {
                    one.echoed_at_last(addr(V4), b"one").await;
                    two.echoed_at_last(addr(V4), b"two").await;
                    assert_eq!(two.obfs.local_addr(), Some(addr("10.9.0.3:50000")));
                    two.until(|_| true).await;
                    // From the same port again.
                    drop(two);
                    two = bind("10.9.0.3:50000");
                    two.ready().await;
                }
                two.echoed_at_last(addr(V4), b"still").await;
                one.echoed_at_last(addr(V4), b"here").await;
                one.echoed(addr(V4), 1200, &data).await;
            });
        }
    });
}

#[test]
fn a_server_that_starts_again_is_found() {
    in_namespace("a_server_that_starts_again_is_found", || {
        for kind in KINDS {
            let mut neighbour = Neighbour::new(kind, V4);
            run(async {
                let mut client = End::dial(kind, V4);
                client.ready().await;
                client.echoed_at_last(addr(V4), b"before").await;
                neighbour.say("again");
                client.echoed_at_last(addr(V4), b"after").await;
                assert!(client.obfs.totals().dials >= 2);
                // And when its owner wants it to.
                let dials = client.obfs.totals().dials;
                client.obfs.redial(addr(V4));
                client.until(|obfs| obfs.totals().dials > dials).await;
                client.ready().await;
                client.echoed_at_last(addr(V4), b"wanted").await;
            });
        }
    });
}

#[test]
fn a_lost_first_segment_is_sent_again() {
    in_namespace("a_lost_first_segment_is_sent_again", || {
        let _neighbour = Neighbour::new(ObfsKind::Tcp, V4);
        shell(
            "nft add table ip t; nft 'add chain ip t o { type filter hook output priority 0; }'; \
             nft 'add rule ip t o tcp flags syn counter drop'",
        );
        run(async {
            let mut client = End::dial(ObfsKind::Tcp, V4);
            let lost = || shell("nft list table ip t").contains("packets 2");
            client.until(|_| lost()).await;
            assert!(!client.obfs.is_ready());
            shell("nft delete table ip t");
            client.ready().await;
            client.echoed_at_last(addr(V4), b"there").await;
            assert_eq!(client.obfs.totals().dials, 1);
        });
    });
}

#[test]
fn rules_are_set_and_no_kernel_resets() {
    in_namespace("rules_are_set_and_no_kernel_resets", || {
        shell(
            "ip addr add 10.1.0.1/32 dev lo; ip addr add 10.1.0.2/32 dev lo; \
             nft add table ip t; nft 'add chain ip t o { type filter hook output priority 0; }'; \
             nft 'add rule ip t o tcp flags rst counter'",
        );
        run(async {
            let rules = || shell("nft list tables").matches("fulmar_").count();
            let server = addr("10.1.0.1:8080");
            for kind in KINDS {
                let mut listening =
                    End::new(Obfs::listen(kind, server, &options()).expect("listen"));
                let mut client = End::new(
                    Obfs::dial(kind, server, Some(addr("10.1.0.2:0")), &options()).expect("dial"),
                );
                let expected = if kind == ObfsKind::Tcp { 2 } else { 0 };
                assert_eq!(rules(), expected);
                assert_eq!(client.obfs.firewall().is_some(), expected > 0);
                assert_eq!(client.obfs.firewall_error(), None);
                while !client.obfs.is_ready() {
                    let short = Duration::from_millis(10);
                    let _ = tokio::time::timeout(short, listening.recv()).await;
                    let _ = tokio::time::timeout(short, client.recv()).await;
                }
                client.send(server, 100, &[7; 1000]).await;
                let (meta, bytes) = listening.recv().await.remove(0);
                assert!(bytes.starts_with(&[7; 100]));
                listening.send(meta.src, 100, &[8; 1000]).await;
                client.recv().await;
                let nat = shell("nft list table ip t");
                assert!(nat.contains("packets 0"), "{nat}");
                drop((client, listening));
                assert_eq!(rules(), 0);
            }
        });
    });
}

/// A packet of anyone's making.
fn packet(src: SocketAddr, dst: SocketAddr, flags: Flags, seq: u32, payload: &[u8]) -> Vec<u8> {
    let frame = Frame {
        src: src.ip(),
        dst: dst.ip(),
        class: 2,
        id: 77,
        label: 0,
        tcp: Header {
            src_port: src.port(),
            dst_port: dst.port(),
            seq: Seq(seq),
            ack: Seq(1),
            flags,
            window: 32_768,
            options: Options::None,
        },
    };
    let mut front = [0; MAX_FRAME_LEN];
    let len = frame.emit(payload, &mut front);
    [&front[..len], payload].concat()
}

#[test]
fn garbage_reaches_nobody_and_a_flood_pushes_out_nobody() {
    in_namespace(
        "garbage_reaches_nobody_and_a_flood_pushes_out_nobody",
        || {
            shell("ip addr add 10.1.0.1/32 dev lo; ip addr add 10.1.0.2/32 dev lo");
            run(async {
                let raw = socket2::Socket::new(
                    socket2::Domain::IPV4,
                    socket2::Type::RAW,
                    Some(socket2::Protocol::from(255)),
                )
                .expect("raw socket");
                let anyone = |bytes: &[u8]| {
                    let to = socket2::SockAddr::from(addr("10.1.0.1:0"));
                    raw.send_to(bytes, &to).expect("sent");
                };
                let listen = addr("10.1.0.1:8080");
                let narrow = ObfsOptions {
                    max_contexts: 50,
                    ..options()
                };
                let mut server =
                    End::new(Obfs::listen(ObfsKind::Tcp, listen, &narrow).expect("listen"));
                let peer = |port: u16| SocketAddr::from(([10, 1, 0, 2], port));
                let quiet = async |server: &mut End| {
                    let short = Duration::from_millis(200);
                    assert!(tokio::time::timeout(short, server.recv()).await.is_err());
                };

                // A first segment with a wrong sum makes no context, and data of nobody is nobody's.
                let mut broken = packet(peer(1), listen, Flags::SYN, 5, &[]);
                broken[36] ^= 1;
                anyone(&broken);
                anyone(&packet(peer(2), listen, Flags::DATA, 5, b"stray"));
                // A header that is longer than the packet.
                let mut cut = packet(peer(3), listen, Flags::DATA, 5, &[]);
                cut[32] = 0xf0;
                anyone(&cut);
                quiet(&mut server).await;
                assert!(server.obfs.contexts().is_empty());
                let c = server.obfs.counters();
                assert_eq!(
                    (c.raw_bad_checksum, c.raw_strangers, c.raw_malformed),
                    (1, 1, 1)
                );

                // Unless such sums are to be taken.
                server.obfs.accept_bad_checksums(true);
                anyone(&broken);
                server.until(|obfs| obfs.contexts().len() == 1).await;
                server.obfs.accept_bad_checksums(false);

                // A peer that knows the key.
                anyone(&packet(peer(9), listen, Flags::SYN, 100, &[]));
                anyone(&packet(peer(9), listen, Flags::DATA, 101, b"sealed"));
                let (meta, bytes) = server.recv().await.remove(0);
                assert_eq!((meta.src, &bytes[..]), (peer(9), &b"sealed"[..]));
                for port in 1000..3000 {
                    anyone(&packet(peer(port), listen, Flags::SYN, 5, &[]));
                    // And somebody in its name.
                    if port % 100 == 0 {
                        anyone(&packet(peer(9), listen, Flags::SYN, u32::from(port), &[]));
                        anyone(&packet(peer(9), listen, Flags::RST, 0, &[]));
                    }
                    if port % 50 == 0 {
                        server
                            .until(|obfs| obfs.contexts().iter().any(|c| c.peer == peer(port)))
                            .await;
                    }
                }
                anyone(&packet(peer(9), listen, Flags::DATA, 107, b"still"));
                let (meta, bytes) = server.recv().await.remove(0);
                assert_eq!((meta.src, &bytes[..]), (peer(9), &b"still"[..]));
                assert_eq!(server.obfs.contexts().len(), 50);
                assert!(server.obfs.totals().evicted > 1900);

                // What is proved and then silent is forgotten.
                server
                    .until(|obfs| obfs.contexts().iter().all(|c| c.peer != peer(9)))
                    .await;
                assert!(server.obfs.totals().expired >= 1);
            });
        },
    );
}

#[test]
fn strangers_are_answered_as_a_web_server_does() {
    in_namespace("strangers_are_answered_as_a_web_server_does", || {
        let _neighbour = Neighbour::new(ObfsKind::TcpWnd, V4);
        let ask = |request: &str| {
            let mut stream = TcpStream::connect(addr(V4)).expect("connect");
            stream
                .set_read_timeout(Some(Duration::from_secs(20)))
                .expect("timeout");
            stream.write_all(request.as_bytes()).expect("write");
            let mut answer = String::new();
            // It may be closed with a reset.
            let _ = stream.read_to_string(&mut answer);
            answer
        };
        let missing = ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(missing.starts_with("HTTP/1.1 404 Not Found\r\nServer: nginx\r\n"));
        assert!(missing.ends_with("</html>\r\n"));
        assert!(ask("POST /generate_204 HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 400 Bad"));
        assert_eq!(ask("GET /generate_204 HTTP/1.0\r\n\r\n"), "");
        assert_eq!(ask("nonsense\r\n\r\n"), "");
        // A stranger that asks the right thing is answered, and forgotten as it proves nothing.
        let mut stream = TcpStream::connect(addr(V4)).expect("connect");
        stream
            .write_all(b"GET /generate_204 HTTP/1.1\r\nHost: x\r\n\r\n")
            .expect("write");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 204");
        // None of that keeps clients out.
        run(async {
            let mut client = End::dial(ObfsKind::TcpWnd, V4);
            client.ready().await;
            client.echoed_at_last(addr(V4), b"there").await;
        });
    });
}

#[test]
fn errors_say_what_is_wrong() {
    in_namespace("errors_say_what_is_wrong", || {
        let (v4, v6) = (addr("127.0.0.1:4000"), addr("[::1]:0"));
        for kind in KINDS {
            let listen = |local, options: &ObfsOptions| Obfs::listen(kind, local, options);
            let error = listen(addr("127.0.0.1:0"), &options()).expect_err("no port");
            assert!(matches!(error, ObfsError::NoPort));
            let error = Obfs::dial(kind, v4, Some(v6), &options()).expect_err("families");
            assert!(matches!(error, ObfsError::Families));
            let mut nowhere = options();
            nowhere.socket.device = Some("no-such-device".to_owned());
            let error = listen(v4, &nowhere).expect_err("no device");
            assert!(
                error
                    .to_string()
                    .starts_with("network device no-such-device: ")
            );
            let taken = std::net::TcpListener::bind("127.0.0.1:4001").expect("bind");
            let error = listen(taken.local_addr().expect("address"), &options());
            assert!(
                matches!(&error, Err(ObfsError::Listen(e)) if e.kind() == io::ErrorKind::AddrInUse),
                "{error:?}"
            );
            let mut here = options();
            here.socket.device = Some("lo".to_owned());
            here.firewall = FirewallUse::Off;
            let server = listen(v4, &here).expect("listen");
            assert_eq!(server.firewall(), None);
            assert_eq!(server.local_addr(), Some(v4));
            assert_eq!(server.kind(), kind);
            assert!(server.granted().recv_buffer >= 4 << 20);
            assert!(server.granted().send_buffer >= 4 << 20);
            assert!(!shell("nft list tables").contains("fulmar_"));
            drop(server);
            // A client without a way waits for one, and ends at once when it is not wanted any more.
            let client = Obfs::dial(kind, addr("192.0.2.1:9"), None, &options()).expect("dial");
            assert!(!client.is_ready());
            let dropped = Instant::now();
            drop(client);
            assert!(dropped.elapsed() < Duration::from_secs(3));
        }
    });
}

#[test]
fn without_the_capability_that_is_the_error() {
    let listen =
        |options: &ObfsOptions| Obfs::listen(ObfsKind::Tcp, addr("127.0.0.1:4000"), options);
    match std::env::var(INSIDE).as_deref() {
        Ok("without net_raw") => {
            let error = listen(&options()).expect_err("powerless");
            assert!(matches!(error, ObfsError::MissingCapability), "{error:?}");
            assert!(error.to_string().contains("CAP_NET_RAW"));
            return;
        }
        Ok("without net_admin") => {
            // Sockets, but no rule: said by default, with the rule that is needed, and permitted if asked for.
            let error = listen(&options()).expect_err("powerless").to_string();
            assert!(
                error.contains("meta nfproto ipv4 tcp dport 4000 ip daddr 127.0.0.1 drop"),
                "{error}"
            );
            let optional = ObfsOptions {
                firewall: FirewallUse::Optional,
                ..options()
            };
            let server = listen(&optional).expect("listen");
            assert!(server.firewall().is_none() && server.firewall_error().is_some());
            return;
        }
        _ => {}
    }
    let is_root = shell("id -u").trim() == "0";
    for missing in ["net_raw", "net_admin"] {
        let me = std::env::current_exe().expect("this program");
        let mut command = if is_root {
            let mut command = Command::new("setpriv");
            command.arg(format!("--bounding-set=-{missing}")).arg(&me);
            command
        } else if missing == "net_raw" {
            // An ordinary user has none already.
            Command::new(&me)
        } else {
            skipped("in part: run the tests as root to see a missing CAP_NET_ADMIN");
            continue;
        };
        command
            .args([
                "without_the_capability_that_is_the_error",
                "--exact",
                "--nocapture",
            ])
            .env(INSIDE, format!("without {missing}"));
        match command.status() {
            Ok(status) => assert!(status.success(), "{missing}"),
            Err(e) => skipped(&format!("setpriv: {e}")),
        }
    }
}
