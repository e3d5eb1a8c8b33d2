//! Raw TCP, end to end, in network namespaces of the tests' own: against itself, and against the real kcptun
//! where that is installed.
//!
//! Each test starts itself again inside a new namespace, so nothing it does is seen outside, and everything
//! is gone when it ends. Where that is not permitted the test says so and does nothing.
#![cfg(target_os = "linux")]
#![allow(clippy::print_stderr)]

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fulmar_netio::{
    Ecn, FirewallUse, RawTcp, RawTcpError, RawTcpOptions, RecvBuffers, RecvMeta, SocketOptions,
    Transmit, Trouble, UdpState, bind, firewall,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;

mod namespace;
mod skipped;
use namespace::{INSIDE, in_namespace, shell};
use skipped::skipped;

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime")
        .block_on(async { tokio::time::timeout(Duration::from_secs(60), future).await })
        .expect("nothing happens any more")
}

/// A raw end under a runtime, as a driver holds it.
struct End {
    raw: RawTcp,
    ready: UdpSocket,
    buffers: RecvBuffers,
    metas: [RecvMeta; 32],
}

impl End {
    fn new(raw: RawTcp) -> Self {
        Self {
            ready: UdpSocket::from_std(raw.readiness().expect("descriptor")).expect("registered"),
            raw,
            buffers: RecvBuffers::new(1),
            metas: [RecvMeta::EMPTY; 32],
        }
    }

    fn get(&self) -> &RawTcp {
        &self.raw
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
                .ready
                .async_io(Interest::WRITABLE, || self.raw.send(&run.rest(at)))
                .await
                .expect("send");
            assert_eq!((sent.lost, sent.trouble), (0, None));
            at = if sent.runs == 1 {
                data.len()
            } else {
                at + sent.bytes
            };
        }
    }

    async fn recv(&mut self) -> Vec<(RecvMeta, Vec<u8>)> {
        let (buffers, metas) = (&mut self.buffers, &mut self.metas);
        let count = self
            .ready
            .async_io(Interest::READABLE, || self.raw.recv(buffers, metas))
            .await
            .expect("recv");
        self.metas[..count]
            .iter()
            .map(|meta| (*meta, self.buffers.run(meta).to_vec()))
            .collect()
    }

    /// The next `count` datagrams.
    async fn datagrams(&mut self, count: usize) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        while out.len() < count {
            for (meta, bytes) in self.recv().await {
                assert_eq!(bytes.chunks(meta.segment).count(), meta.datagrams());
                out.extend(bytes.chunks(meta.segment).map(<[u8]>::to_vec));
            }
        }
        out
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32)
        .flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes())
        .take(len)
        .collect()
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("address")
}

fn buffered() -> RawTcpOptions {
    RawTcpOptions {
        socket: SocketOptions {
            recv_buffer: Some(4 << 20),
            send_buffer: Some(4 << 20),
            ..SocketOptions::default()
        },
        ..RawTcpOptions::default()
    }
}

#[test]
fn datagrams_pass_both_ways() {
    in_namespace("datagrams_pass_both_ways", || {
        run(async {
            let data = pattern(40_000);
            for (listen, dial) in [
                ("127.0.0.1:4000", "127.0.0.1:4000"),
                ("0.0.0.0:4001", "127.0.0.9:4001"),
                ("[::1]:4002", "[::1]:4002"),
                ("[::]:4003", "[::1]:4003"),
            ] {
                let mut server =
                    End::new(RawTcp::listen(addr(listen), &buffered()).expect("listen"));
                let mut client = End::new(RawTcp::dial(addr(dial), &buffered()).expect("dial"));
                // A full run, a run with a short end, a single datagram, single bytes.
                for (segment, len) in [(1350, 28 * 1350), (1000, 4321), (0, 1400), (1, 9)] {
                    let data = &data[..len];
                    let want: Vec<_> = data
                        .chunks(if segment == 0 { len } else { segment })
                        .collect();
                    client.send(addr(dial), segment, data).await;
                    assert_eq!(server.datagrams(want.len()).await, want, "{listen}");
                    let peer = client.get().local_addr();
                    server.send(peer, segment, data).await;
                    assert_eq!(client.datagrams(want.len()).await, want, "{listen}");
                }
                assert_eq!(server.get().flows(), 1);
                for end in [&server, &client] {
                    let c = end.get().counters();
                    assert_eq!(
                        (c.sent_datagrams, c.recv_datagrams),
                        (28 + 5 + 1 + 9, 28 + 5 + 1 + 9)
                    );
                    assert_eq!(
                        (c.raw_malformed, c.raw_bad_checksum, c.raw_strangers),
                        (0, 0, 0)
                    );
                    assert_eq!((c.recv_truncated, c.recv_overflows), (0, 0));
                }
                assert!(!client.get().peer_reset());
            }
        });
    });
}

#[test]
fn a_run_arrives_as_a_run_of_its_flow() {
    in_namespace("a_run_arrives_as_a_run_of_its_flow", || {
        run(async {
            let data = pattern(20_000);
            let server_addr = addr("0.0.0.0:4000");
            let mut server = End::new(RawTcp::listen(server_addr, &buffered()).expect("listen"));
            let one = End::new(RawTcp::dial(addr("127.0.0.2:4000"), &buffered()).expect("dial"));
            let two = End::new(RawTcp::dial(addr("127.0.0.3:4000"), &buffered()).expect("dial"));
            one.send(addr("127.0.0.2:4000"), 1000, &data[..7500]).await;
            two.send(addr("127.0.0.3:4000"), 1000, &data[..2000]).await;
            one.send(addr("127.0.0.2:4000"), 500, &data[..1000]).await;
            let mut got = Vec::new();
            while got.len() < 3 {
                got.extend(server.recv().await);
            }
            let shape: Vec<_> = got
                .iter()
                .map(|(m, _)| (m.src, m.dst_ip, m.segment, m.len))
                .collect();
            let ip = |last| Some([127, 0, 0, last].into());
            assert_eq!(
                shape,
                [
                    (one.get().local_addr(), ip(2), 1000, 7500),
                    (two.get().local_addr(), ip(3), 1000, 2000),
                    (one.get().local_addr(), ip(2), 500, 1000),
                ]
            );
            assert!(got.iter().all(|(m, bytes)| *bytes == data[..m.len]));
        });
    });
}

#[test]
fn strangers_reach_nobody() {
    in_namespace("strangers_reach_nobody", || {
        run(async {
            let mut server =
                End::new(RawTcp::listen(addr("127.0.0.1:4000"), &buffered()).expect("listen"));
            // Nobody has connected from there.
            let sent = server
                .get()
                .send(&Transmit {
                    dst: addr("127.0.0.1:5"),
                    src_ip: None,
                    ecn: None,
                    segment: 10,
                    probe: false,
                    data: &[0; 25],
                })
                .expect("no error of the socket");
            assert_eq!((sent.runs, sent.datagrams, sent.lost), (1, 0, 3));
            assert_eq!(sent.trouble, Some(Trouble::NoFlow));
            assert_eq!(server.get().counters().lost_no_flow, 3);

            // Another server's client, whose own server is gone and whose segments are sent on to this one.
            let other = RawTcp::listen(addr("127.0.0.1:4001"), &buffered()).expect("listen");
            let stray = End::new(RawTcp::dial(addr("127.0.0.1:4001"), &buffered()).expect("dial"));
            shell(
                "nft add table ip nat; nft 'add chain ip nat o { type nat hook output priority -100; }'",
            );
            shell("nft 'add chain ip nat x { type filter hook output priority raw; }'");
            shell(
                "nft 'add rule ip nat x ip ttl 64 tcp dport 4001 tcp flags & (psh|ack) == (psh|ack) tcp dport set 4000'",
            );
            stray.send(addr("127.0.0.1:4001"), 0, b"stray").await;
            shell("nft delete table ip nat");
            drop(other);

            let client = End::new(RawTcp::dial(addr("127.0.0.1:4000"), &buffered()).expect("dial"));
            client.send(addr("127.0.0.1:4000"), 0, b"ours").await;
            assert_eq!(server.datagrams(1).await, [b"ours"]);
            let c = server.get().counters();
            // The port is part of the sum, so what was sent on may fail that first.
            assert_eq!(c.raw_strangers + c.raw_bad_checksum, 1, "{c:?}");
        });
    });
}

#[test]
fn congestion_bits_and_code_point_arrive() {
    in_namespace("congestion_bits_and_code_point_arrive", || {
        run(async {
            for host in ["127.0.0.1:4000", "[::1]:4000"] {
                let mut options = buffered();
                options.socket.dscp = Some(46);
                let mut server = End::new(RawTcp::listen(addr(host), &options).expect("listen"));
                let mut client = End::new(RawTcp::dial(addr(host), &options).expect("dial"));
                assert_eq!(client.get().granted().dscp, Some(46));
                let count = |what: &str| {
                    let family = if host.starts_with('[') { "ip6" } else { "ip" };
                    shell(&format!("nft add table inet {what}"));
                    shell(&format!(
                        "nft 'add chain inet {what} c {{ type filter hook input priority 0; }}'"
                    ));
                    shell(&format!(
                        "nft 'add rule inet {what} c {family} dscp 46 tcp flags & psh == psh counter'"
                    ));
                };
                count("seen");
                for ecn in [None, Some(Ecn::Ect0), Some(Ecn::Ce)] {
                    let run = Transmit {
                        dst: addr(host),
                        src_ip: None,
                        ecn,
                        segment: 0,
                        probe: false,
                        data: b"marked",
                    };
                    client.get().send(&run).expect("send");
                    let (meta, _) = server.recv().await.remove(0);
                    assert_eq!(meta.ecn, ecn);
                    let answer = Transmit {
                        dst: meta.src,
                        ..run
                    };
                    server.get().send(&answer).expect("send");
                    assert_eq!(client.recv().await[0].0.ecn, ecn);
                }
                let seen = shell("nft list table inet seen");
                assert!(seen.contains("packets 6"), "{seen}");
                shell("nft delete table inet seen");
            }
        });
    });
}

#[test]
fn the_kernel_is_kept_quiet() {
    in_namespace("the_kernel_is_kept_quiet", || {
        run(async {
            // Counts what would leave, behind the rules that drop it.
            shell("nft add table inet watch");
            shell("nft 'add chain inet watch c { type filter hook output priority 100; }'");
            shell("nft 'add rule inet watch c ip ttl 1 counter'");
            shell("nft 'add rule inet watch c tcp flags & rst == rst counter'");
            let host = addr("127.0.0.1:4000");
            let mut server = End::new(RawTcp::listen(host, &buffered()).expect("listen"));
            let mut client = End::new(RawTcp::dial(host, &buffered()).expect("dial"));
            assert!(
                client
                    .get()
                    .firewall()
                    .is_some_and(|f| f.contains("nft table fulmar_"))
            );
            let data = pattern(100_000);
            for _ in 0..5 {
                client.send(host, 1000, &data[..30_000]).await;
                server.datagrams(30).await;
                server
                    .send(client.get().local_addr(), 1000, &data[..30_000])
                    .await;
                client.datagrams(30).await;
            }
            let tables = shell("nft list tables");
            assert_eq!(tables.matches("fulmar_").count(), 2, "{tables}");
            let watch = shell("nft list table inet watch");
            assert_eq!(watch.matches("packets 0").count(), 2, "{watch}");
            drop(client);
            drop(server);
            let tables = shell("nft list tables");
            assert_eq!(tables.matches("fulmar_").count(), 0, "{tables}");
        });
    });
}

#[test]
fn iptables_when_there_is_no_nft() {
    in_namespace("iptables_when_there_is_no_nft", || {
        if Command::new("iptables").arg("-S").output().is_err() {
            skipped("iptables is not installed");
            return;
        }
        // A directory that has everything but nft comes first in the path and has a broken one.
        let dir = std::env::temp_dir().join(format!("fulmar-netio-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("directory");
        std::fs::write(dir.join("nft"), "#!/bin/sh\necho not today >&2\nexit 1\n").expect("script");
        shell(&format!("chmod +x {}/nft", dir.display()));
        let path = format!("{}:{}", dir.display(), std::env::var("PATH").expect("PATH"));
        // Rules of this process are set by a process of its own, whose environment can be changed.
        for host in ["127.0.0.1:4000", "[::1]:4001"] {
            let mut child = spawn_server(host, Some(&path));
            let program = if host.starts_with('[') {
                "ip6tables"
            } else {
                "iptables"
            };
            let rules = shell(&format!("{program} -S OUTPUT"));
            assert!(
                rules.contains("--comment fulmar_") && rules.contains("--sport 400"),
                "{rules}"
            );
            child.kill().expect("kill");
            child.wait().expect("wait");
            // It stays behind, and the next one that sets a rule removes it.
            assert!(shell(&format!("{program} -S OUTPUT")).contains("fulmar_"));
            let server = RawTcp::listen(addr(host), &RawTcpOptions::default()).expect("listen");
            assert!(!shell(&format!("{program} -S OUTPUT")).contains("fulmar_"));
            drop(server);
        }
        std::fs::remove_dir_all(dir).expect("directory");
    });
}

#[test]
fn rules_of_a_crashed_run_are_removed() {
    in_namespace("rules_of_a_crashed_run_are_removed", || {
        let names = || -> Vec<String> {
            shell("nft list tables")
                .lines()
                .filter(|l| l.contains("fulmar_"))
                .map(str::to_owned)
                .collect()
        };
        let mut child = spawn_server("127.0.0.1:4000", None);
        let theirs = names();
        assert_eq!(theirs.len(), 1);
        // While it lives, its rule stays.
        assert_eq!(firewall::remove_stale(), 0);
        assert_eq!(firewall::cleanup(), 0);
        let ours =
            RawTcp::listen(addr("127.0.0.1:4001"), &RawTcpOptions::default()).expect("listen");
        assert_eq!(names().len(), 2);
        child.kill().expect("kill");
        child.wait().expect("wait");
        assert!(names().contains(&theirs[0]));
        let more =
            RawTcp::listen(addr("127.0.0.1:4002"), &RawTcpOptions::default()).expect("listen");
        assert_eq!(names().len(), 2);
        assert!(!names().contains(&theirs[0]));
        // The end of a program, whatever objects are still around.
        assert_eq!(firewall::cleanup(), 2);
        assert!(names().is_empty());
        drop((ours, more));
    });
}

/// Not a test of its own: the process that is killed by others.
#[test]
fn helper_server() {
    let Some(host) = std::env::var(INSIDE)
        .ok()
        .and_then(|v| v.strip_prefix("listen ").map(str::to_owned))
    else {
        return;
    };
    let server = RawTcp::listen(addr(&host), &RawTcpOptions::default()).expect("listen");
    eprintln!("READY {}", server.firewall().expect("rule"));
    // Until killed; or until whoever started it is gone, and its input with it.
    let _ = io::stdin().read(&mut [0]);
}

fn spawn_server(host: &str, path: Option<&str>) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command
        .args(["helper_server", "--exact", "--nocapture"])
        .env(INSIDE, format!("listen {host}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    if let Some(path) = path {
        command.env("PATH", path);
    }
    let mut child = command.spawn().expect("helper");
    let mut seen = Vec::new();
    let stderr = child.stderr.as_mut().expect("stderr");
    let mut byte = [0];
    while !seen.windows(5).any(|w| w == b"READY") {
        assert_eq!(
            stderr.read(&mut byte).expect("stderr"),
            1,
            "{}",
            String::from_utf8_lossy(&seen)
        );
        seen.push(byte[0]);
    }
    child
}

#[test]
fn what_is_missing_is_said() {
    in_namespace("what_is_missing_is_said", || {
        // Nobody listens.
        let error =
            RawTcp::dial(addr("127.0.0.1:4000"), &RawTcpOptions::default()).expect_err("refused");
        assert!(
            matches!(&error, RawTcpError::Connect(e) if e.kind() == io::ErrorKind::ConnectionRefused),
            "{error}"
        );
        // The port is taken.
        let _taken = TcpListener::bind("127.0.0.1:4001").expect("bind");
        let error =
            RawTcp::listen(addr("127.0.0.1:4001"), &RawTcpOptions::default()).expect_err("taken");
        assert!(
            matches!(&error, RawTcpError::Listen(e) if e.kind() == io::ErrorKind::AddrInUse),
            "{error}"
        );
        // No rule is left behind by either.
        assert!(!shell("nft list tables").contains("fulmar_"));
        let off = RawTcpOptions {
            firewall: FirewallUse::Off,
            ..RawTcpOptions::default()
        };
        let server = RawTcp::listen(addr("127.0.0.1:4002"), &off).expect("listen");
        assert_eq!(server.firewall(), None);
        assert!(!shell("nft list tables").contains("fulmar_"));
    });
}

#[test]
fn without_the_capability_that_is_the_error() {
    let listen = || RawTcp::listen(addr("127.0.0.1:0"), &RawTcpOptions::default());
    match std::env::var(INSIDE).as_deref() {
        Ok("without net_raw") => {
            let error = listen().expect_err("powerless");
            assert!(matches!(error, RawTcpError::MissingCapability), "{error:?}");
            assert!(error.to_string().contains("CAP_NET_RAW"));
            return;
        }
        Ok("without net_admin") => {
            // Sockets, but no rule: said by default, and permitted if asked for.
            let error = listen().expect_err("powerless");
            let refused = matches!(
                error,
                RawTcpError::Firewall(firewall::FirewallError::Refused { .. })
            );
            assert!(refused, "{error:?}");
            let options = RawTcpOptions {
                firewall: FirewallUse::Optional,
                ..RawTcpOptions::default()
            };
            let server = RawTcp::listen(addr("127.0.0.1:0"), &options).expect("listen");
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

#[test]
fn a_restarted_server_is_noticed() {
    in_namespace("a_restarted_server_is_noticed", || {
        run(async {
            let host = addr("127.0.0.1:4000");
            let mut server = End::new(RawTcp::listen(host, &buffered()).expect("listen"));
            let mut client = End::new(RawTcp::dial(host, &buffered()).expect("dial"));
            client.send(host, 0, b"one").await;
            server.datagrams(1).await;
            server.send(client.get().local_addr(), 0, b"two").await;
            client.datagrams(1).await;
            assert!(!client.get().peer_reset());
            drop(server);
            // It says goodbye.
            read_until(&mut client, RawTcp::peer_reset).await;

            // One that was killed says nothing; its successor's kernel does.
            let mut child = spawn_server("127.0.0.1:4001", None);
            let host = addr("127.0.0.1:4001");
            let mut client = End::new(RawTcp::dial(host, &buffered()).expect("dial"));
            client.send(host, 0, b"one").await;
            child.kill().expect("kill");
            child.wait().expect("wait");
            // The kernel of the dead one may have said FIN already, with a number that is long gone.
            assert!(!client.get().peer_reset());
            let _server = RawTcp::listen(host, &buffered()).expect("listen");
            client.send(host, 0, b"three").await;
            read_until(&mut client, RawTcp::peer_reset).await;
        });
    });
}

/// Receives until something that brings no datagram has been noticed.
async fn read_until(end: &mut End, noticed: fn(&RawTcp) -> bool) {
    while !noticed(end.get()) {
        let (buffers, metas) = (&mut end.buffers, &mut end.metas);
        end.ready.readable().await.expect("readable");
        let _ = end
            .ready
            .try_io(Interest::READABLE, || end.raw.recv(buffers, metas));
    }
}

#[test]
fn silent_flows_are_forgotten() {
    in_namespace("silent_flows_are_forgotten", || {
        run(async {
            let host = addr("127.0.0.1:4000");
            let options = RawTcpOptions {
                idle_timeout: Duration::from_millis(1),
                ..buffered()
            };
            let server = RawTcp::listen(host, &options).expect("listen");
            let client = RawTcp::dial(host, &buffered()).expect("dial");
            let plain = TcpStream::connect(host).expect("connect");
            // Until the thread has looked.
            while server.flows() == 0 {
                tokio::task::yield_now().await;
            }
            while server.flows() > 0 {
                tokio::task::yield_now().await;
            }
            drop((client, plain));
            drop(server);

            // More than the limit are turned away.
            let host = addr("127.0.0.1:4001");
            let options = RawTcpOptions {
                max_flows: 2,
                ..buffered()
            };
            let server = RawTcp::listen(host, &options).expect("listen");
            let streams: Vec<_> = (0..4)
                .map(|_| TcpStream::connect(host).expect("connect"))
                .collect();
            // The last one is told at once, and then the others have been accepted.
            let end = (&streams[3]).read(&mut [0]);
            assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
            assert_eq!(server.flows(), 2);
        });
    });
}

#[test]
fn numbers_keep_a_tracking_firewall_content() {
    in_namespace("numbers_keep_a_tracking_firewall_content", || {
        run(async {
            // Drops what a connection tracker takes for no part of a connection, before the raw socket.
            shell("nft add table inet track");
            shell("nft 'add chain inet track c { type filter hook input priority 0; }'");
            shell("nft 'add rule inet track c ct state invalid counter drop'");
            let host = addr("127.0.0.1:4000");
            let mut server = End::new(RawTcp::listen(host, &buffered()).expect("listen"));
            let mut client = End::new(RawTcp::dial(host, &buffered()).expect("dial"));
            let data = pattern(30_000);
            // Several windows' worth, one way, so that nothing but our own numbers limits it: the other side
            // acknowledges once in a while only.
            for round in 0..400 {
                client.send(host, 1000, &data).await;
                assert_eq!(server.datagrams(30).await.len(), 30);
                if round % 150 == 149 {
                    server.send(client.get().local_addr(), 0, b"ack").await;
                    client.datagrams(1).await;
                }
            }
            let track = shell("nft list table inet track");
            assert!(track.contains("packets 0"), "{track}");
        });
    });
}

// ---- against the real program -------------------------------------------------------------------------

const KEY: [&str; 8] = [
    "--key",
    "netio",
    "--crypt",
    "aes",
    "--smuxver",
    "1",
    "--mtu",
    "1350",
];

fn kcptun_is_missing() -> bool {
    let missing = Command::new("kcptun-server")
        .arg("--version")
        .output()
        .is_err();
    if missing {
        skipped("kcptun is not installed");
    }
    missing
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn kcptun(role: &str, arguments: &[&str]) -> Running {
    let child = Command::new(format!("kcptun-{role}"))
        .args(arguments)
        .args(KEY)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("kcptun");
    Running(child)
}

/// A TCP service that sends back what it gets.
fn echo(host: &str) {
    let listener = TcpListener::bind(host).expect("bind");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("stream");
            std::thread::spawn(move || {
                let mut buffer = [0; 16_384];
                while let Ok(n) = stream.read(&mut buffer) {
                    if n == 0 || stream.write_all(&buffer[..n]).is_err() {
                        break;
                    }
                }
            });
        }
    });
}

/// Copies datagrams between a raw end and a UDP socket, both ways, until the test ends.
async fn relay(
    mut raw: End,
    raw_peer: Option<SocketAddr>,
    udp_host: &str,
    udp_peer: Option<SocketAddr>,
) {
    let (socket, _) = bind(addr(udp_host), &buffered().socket).expect("bind");
    let state = UdpState::new((&socket).into()).expect("state");
    let socket = UdpSocket::from_std(socket).expect("socket");
    let mut udp_buffers = RecvBuffers::default();
    let mut udp_metas = [RecvMeta::EMPTY; 4];
    let (mut raw_peer, mut udp_peer) = (raw_peer, udp_peer);
    loop {
        tokio::select! {
            runs = raw.recv() => for (meta, data) in runs {
                raw_peer = Some(meta.src);
                let Some(dst) = udp_peer else { continue };
                let run = Transmit { dst, src_ip: None, ecn: None, segment: meta.segment, probe: false, data: &data };
                let sent = socket.async_io(Interest::WRITABLE, || state.send((&socket).into(), &run)).await;
                assert_eq!(sent.expect("send").runs, 1);
            },
            count = socket.async_io(Interest::READABLE, || {
                state.recv((&socket).into(), &mut udp_buffers, &mut udp_metas)
            }) => for meta in &udp_metas[..count.expect("recv")] {
                udp_peer = Some(meta.src);
                if let Some(dst) = raw_peer {
                    raw.send(dst, meta.segment, udp_buffers.run(meta)).await;
                }
            },
        }
    }
}

/// Sends data through the tunnel and back again.
fn through_the_tunnel(entry: &str) {
    let data = pattern(400_000);
    let mut last = None;
    for _ in 0..50 {
        let Ok(mut stream) = TcpStream::connect(entry) else {
            // Not listening yet.
            std::thread::sleep(Duration::from_millis(100));
            continue;
        };
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("timeout");
        let mut writer = stream.try_clone().expect("stream");
        let sending = data.clone();
        let thread = std::thread::spawn(move || writer.write_all(&sending));
        let mut got = vec![0; data.len()];
        last = Some(stream.read_exact(&mut got));
        if last.as_ref().is_some_and(Result::is_ok) {
            assert!(got == data);
            thread.join().expect("thread").expect("write");
            return;
        }
    }
    panic!("nothing came back: {last:?}");
}

fn wait_for_listener(host: &str) {
    for _ in 0..100 {
        let port = host.rsplit(':').next().expect("port");
        if shell("ss -Hltn || true").contains(&format!(":{port} ")) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{host}: nobody listens");
}

#[test]
fn a_real_client_speaks_to_our_server() {
    in_namespace("a_real_client_speaks_to_our_server", || {
        if kcptun_is_missing() {
            return;
        }
        for (host, port) in [("127.0.0.1", 4000), ("[::1]", 4100)] {
            let at = |offset: u16| format!("{host}:{}", port + offset);
            echo(&at(1));
            let _server = kcptun("server", &["-l", &at(2), "-t", &at(1)]);
            run(async {
                let raw = End::new(RawTcp::listen(addr(&at(3)), &buffered()).expect("listen"));
                let (udp_server, udp_local) = (addr(&at(2)), at(0));
                let relay = relay(raw, None, &udp_local, Some(udp_server));
                let _client = kcptun("client", &["-r", &at(3), "-l", &at(4), "--tcp"]);
                let entry = at(4);
                let transfer = tokio::task::spawn_blocking(move || through_the_tunnel(&entry));
                tokio::select! {
                    result = transfer => result.expect("transfer"),
                    () = relay => {}
                }
            });
        }
    });
}

#[test]
fn our_client_speaks_to_a_real_server() {
    in_namespace("our_client_speaks_to_a_real_server", || {
        if kcptun_is_missing() {
            return;
        }
        for (host, port) in [("127.0.0.1", 4000), ("[::1]", 4100)] {
            let at = |offset: u16| format!("{host}:{}", port + offset);
            echo(&at(1));
            let _server = kcptun("server", &["-l", &at(2), "-t", &at(1), "--tcp"]);
            wait_for_listener(&at(2));
            run(async {
                let server = addr(&at(2));
                let raw = End::new(RawTcp::dial(server, &buffered()).expect("dial"));
                let udp_local = at(3);
                let relay = relay(raw, Some(server), &udp_local, None);
                let _client = kcptun("client", &["-r", &at(3), "-l", &at(4)]);
                let entry = at(4);
                let transfer = tokio::task::spawn_blocking(move || through_the_tunnel(&entry));
                tokio::select! {
                    result = transfer => result.expect("transfer"),
                    () = relay => {}
                }
            });
        }
    });
}
