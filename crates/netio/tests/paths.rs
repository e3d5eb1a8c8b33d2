//! UDP over links that loopback is not: too narrow for a segment, or without a neighbour.
#![cfg(target_os = "linux")]
#![allow(clippy::print_stderr)]

use std::io::{ErrorKind, Read as _};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fulmar_netio::{
    Offload, RecvBuffers, RecvMeta, SocketOptions, Transmit, Trouble, UdpState, bind,
};

mod namespace;
mod skipped;
use namespace::{INSIDE, in_namespace, shell};

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("address")
}

fn run<'a>(dst: SocketAddr, segment: usize, data: &'a [u8]) -> Transmit<'a> {
    Transmit {
        dst,
        src_ip: None,
        ecn: None,
        segment,
        probe: false,
        data,
    }
}

/// Blocks until there is something to receive.
fn wait(socket: &UdpSocket) {
    socket.set_nonblocking(false).expect("blocking");
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("timeout");
    socket.peek_from(&mut [0; 1]).expect("a datagram");
    socket.set_nonblocking(true).expect("non-blocking");
}

/// A host at the other end of a virtual cable, which sends back what it gets. It ends with its input.
fn neighbour(mtu: u32) -> Child {
    let child = isolated_echo();
    shell(&format!(
        "ip link add near mtu {mtu} type veth peer name far mtu {mtu} netns {pid}; \
         ip addr add 10.77.0.1/24 dev near; ip -6 addr add fd77::1/64 dev near nodad; ip link set near up; \
         ns='nsenter --net=/proc/{pid}/ns/net'; \
         $ns ip addr add 10.77.0.2/24 dev far; $ns ip -6 addr add fd77::2/64 dev far nodad; $ns ip link set far up",
        pid = child.id()
    ));
    child
}

/// A host without a cable, which sends back what it gets. It ends with its input.
fn isolated_echo() -> Child {
    let mut child = Command::new("unshare")
        .arg("--net")
        .arg(std::env::current_exe().expect("this program"))
        .args(["helper_echo", "--exact", "--nocapture"])
        .env(INSIDE, "echo")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("unshare");
    let stderr = child.stderr.as_mut().expect("stderr");
    assert_eq!(stderr.read(&mut [0; 6]).expect("it is inside"), 6);
    child
}

/// A host behind a router whose other cable takes `mtu` bytes: it sends back what it gets, at 10.78.0.2 and fd78::2, port 7000.
/// `icmp`: whether the router says what it cannot pass on. The router and the host, which end with their inputs.
fn behind_a_router(mtu: u32, icmp: bool) -> [Child; 2] {
    let router = neighbour(1500);
    let far = isolated_echo();
    shell(&format!(
        "ip route add 10.78.0.0/24 via 10.77.0.2; ip -6 route add fd78::/64 via fd77::2; \
         ns='nsenter --net=/proc/{router}/ns/net'; \
         $ns sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding'; \
         $ns ip link add out mtu {mtu} type veth peer name far mtu {mtu} netns {far}; \
         $ns ip addr add 10.78.0.1/24 dev out; $ns ip -6 addr add fd78::1/64 dev out nodad; \
         $ns ip link set out up; \
         ns='nsenter --net=/proc/{far}/ns/net'; \
         $ns ip addr add 10.78.0.2/24 dev far; $ns ip -6 addr add fd78::2/64 dev far nodad; \
         $ns ip link set far up; \
         $ns ip route add default via 10.78.0.1; $ns ip -6 route add default via fd78::1",
        router = router.id(),
        far = far.id()
    ));
    if !icmp {
        shell(&format!(
            "ns='nsenter --net=/proc/{}/ns/net'; $ns nft add table inet no; \
             $ns nft 'add chain inet no c {{ type filter hook output priority 0; }}'; \
             $ns nft add rule inet no c icmp type destination-unreachable drop; \
             $ns nft add rule inet no c icmpv6 type packet-too-big drop",
            router.id()
        ));
    }
    [router, far]
}

/// Not a test of its own: the neighbour.
#[test]
fn helper_echo() {
    if std::env::var(INSIDE).is_ok_and(|v| v == "echo") {
        let socket = bind(addr("[::]:7000"), &SocketOptions::default())
            .expect("bind")
            .0;
        let state = UdpState::new((&socket).into()).expect("state");
        std::thread::spawn(move || {
            let mut buffers = RecvBuffers::default();
            let mut metas = [RecvMeta::EMPTY; 4];
            loop {
                let mut byte = [0];
                socket.set_nonblocking(false).expect("blocking");
                socket.peek_from(&mut byte).expect("a datagram");
                let count = state
                    .recv((&socket).into(), &mut buffers, &mut metas)
                    .expect("recv");
                for meta in &metas[..count] {
                    let answer = Transmit {
                        src_ip: meta.dst_ip,
                        ..run(meta.src, meta.segment, buffers.run(meta))
                    };
                    state.send((&socket).into(), &answer).expect("send");
                }
            }
        });
        eprint!("INSIDE");
        // Until whoever started it is gone.
        let _ = std::io::stdin().read(&mut [0]);
    }
}

#[test]
fn a_narrow_path_gets_fragments_and_a_wide_one_runs() {
    in_namespace("a_narrow_path_gets_fragments_and_a_wide_one_runs", || {
        let mut far = neighbour(1300);
        // Differing lengths, and segments that fit the link and that do not.
        let data: Vec<u8> = (0..30_000_u32)
            .flat_map(|i| (i / 7).to_le_bytes())
            .take(30_000)
            .collect();
        for (local, remote) in [
            ("0.0.0.0:0", "10.77.0.2:7000"),
            ("[::]:0", "[fd77::2]:7000"),
            ("[::]:0", "10.77.0.2:7000"),
        ] {
            let (socket, _) = bind(addr(local), &SocketOptions::default()).expect("bind");
            let state = UdpState::new((&socket).into()).expect("state");
            let mut buffers = RecvBuffers::default();
            let mut metas = [RecvMeta::EMPTY; 4];
            for (segment, fits) in [(1400, false), (1200, true), (1400, false), (1200, true)] {
                let before = state.counters();
                let run = run(addr(remote), segment, &data[..20 * segment]);
                let sent = state.send((&socket).into(), &run).expect("send");
                assert_eq!(
                    (sent.datagrams, sent.lost),
                    (20, 0),
                    "{remote} {segment} {sent:?}"
                );
                let mut got = Vec::new();
                while got.len() < run.data.len() {
                    wait(&socket);
                    let count = state
                        .recv((&socket).into(), &mut buffers, &mut metas)
                        .expect("recv");
                    for meta in &metas[..count] {
                        assert_eq!((meta.src, meta.segment), (addr(remote), segment));
                        got.extend_from_slice(buffers.run(meta));
                    }
                }
                assert!(got == run.data, "{remote} {segment}");
                let after = state.counters();
                assert_eq!(
                    after.sent_segmented_runs - before.sent_segmented_runs,
                    u64::from(fits)
                );
            }
            let counters = state.counters();
            // The kernel was asked in vain once, and the size that fits was never affected.
            assert_eq!(counters.segmentation_refused, 1, "{counters:?}");
            assert!(counters.segmentation_off);
            assert_eq!(counters.lost_too_long, 0);
        }
        far.kill().expect("kill");
        far.wait().expect("wait");
    });
}

#[test]
fn a_full_socket_says_so_and_goes_on_where_it_stopped() {
    in_namespace("a_full_socket_says_so_and_goes_on_where_it_stopped", || {
        // A link on which nobody answers for the address: the kernel holds datagrams back while it asks.
        shell("ip link add near type veth peer name far; ip link set near up; ip link set far up");
        shell("ip addr add 10.77.0.1/24 dev near");
        let data = vec![1; 60_000];
        for offload in [Offload::Full, Offload::Batch, Offload::Single] {
            let options = SocketOptions {
                send_buffer: Some(0),
                ..SocketOptions::default()
            };
            let (socket, _) = bind(addr("0.0.0.0:0"), &options).expect("bind");
            let state = UdpState::with_offload((&socket).into(), offload).expect("state");
            let nobody = addr("10.77.0.9:9");
            let runs = [
                run(nobody, 1000, &data),
                run(nobody, 1000, &data),
                run(nobody, 1000, &data),
            ];
            let sent = state.send_many((&socket).into(), &runs).expect("begins");
            assert!(sent.runs < 3 && sent.lost == 0, "{offload:?} {sent:?}");
            assert!(sent.bytes.is_multiple_of(1000) && sent.bytes < data.len());
            assert_eq!(sent.runs * 60 + sent.bytes / 1000, sent.datagrams);
            let rest = [runs[sent.runs].rest(sent.bytes)];
            let error = state.send_many((&socket).into(), &rest).expect_err("full");
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            assert!(state.counters().send_would_block >= 2);
            assert_eq!(state.counters().sent_datagrams, sent.datagrams as u64);
            // Full is not broken.
            assert_eq!(state.counters().segmentation_refused, 0);
        }
    });
}

#[test]
fn trouble_has_a_name_and_passes() {
    in_namespace("trouble_has_a_name_and_passes", || {
        let (socket, _) = bind(addr("0.0.0.0:0"), &SocketOptions::default()).expect("bind");
        let state = UdpState::new((&socket).into()).expect("state");
        let local = socket.local_addr().expect("address").port();
        let data = [5; 2500];
        let send = |to: &str| {
            state
                .send((&socket).into(), &run(addr(to), 1000, &data))
                .expect("no error of the socket")
        };
        // No route.
        let sent = send("192.0.2.1:5");
        assert_eq!(
            (sent.runs, sent.lost, sent.trouble),
            (1, 3, Some(Trouble::Unreachable))
        );
        // A firewall of this host.
        shell(
            "nft add table ip no; nft 'add chain ip no c { type filter hook output priority 0; }'",
        );
        shell("nft add rule ip no c udp dport 6 drop");
        let sent = send("127.0.0.1:6");
        assert_eq!(
            (sent.runs, sent.lost, sent.trouble),
            (1, 3, Some(Trouble::NotPermitted))
        );
        // Nonsense.
        let sent = send("127.0.0.1:0");
        assert!(matches!(sent.trouble, Some(Trouble::Other(_))), "{sent:?}");
        let c = state.counters();
        assert_eq!((c.lost_unreachable, c.lost_not_permitted), (3, 3));
        assert_eq!(c.sent_datagrams, 0);
        // And the next run passes, whole.
        let sent = send(&format!("127.0.0.1:{local}"));
        assert_eq!((sent.datagrams, sent.lost), (3, 0));
        assert!(c.segmentation_refused <= 1, "{c:?}");
    });
}

/// Sends `runs` in one call and receives what comes back of them: the lengths, until a datagram of `last` bytes.
fn lengths_back(
    socket: &UdpSocket,
    state: &UdpState,
    runs: &[Transmit<'_>],
    last: usize,
) -> Vec<usize> {
    let sent = state.send_many(socket.into(), runs).expect("send");
    assert_eq!((sent.runs, sent.trouble), (runs.len(), None));
    let mut buffers = RecvBuffers::default();
    let mut metas = [RecvMeta::EMPTY; 4];
    let mut lengths = Vec::new();
    while lengths.last() != Some(&last) {
        wait(socket);
        let count = state
            .recv(socket.into(), &mut buffers, &mut metas)
            .expect("recv");
        for meta in &metas[..count] {
            lengths.extend(buffers.run(meta).chunks(meta.segment).map(<[u8]>::len));
        }
    }
    lengths
}

fn end(children: [Child; 2]) {
    for mut child in children {
        child.kill().expect("kill");
        child.wait().expect("wait");
    }
}

const ROUTED: [(&str, &str); 3] = [
    ("0.0.0.0:0", "10.78.0.2:7000"),
    ("[::]:0", "10.78.0.2:7000"),
    ("[::]:0", "[fd78::2]:7000"),
];

#[test]
fn single_datagrams_and_runs_pass_a_router_that_says_nothing() {
    in_namespace(
        "single_datagrams_and_runs_pass_a_router_that_says_nothing",
        || {
            let hosts = behind_a_router(1280, false);
            let data = vec![7; 20 * 1400];
            // IPv6 that is dropped without a word cannot be cured here.
            for (local, remote) in &ROUTED[..2] {
                let (socket, _) = bind(addr(local), &SocketOptions::default()).expect("bind");
                let state = UdpState::new((&socket).into()).expect("state");
                let remote = addr(remote);
                let single = run(remote, 0, &data[..1400]);
                let train = run(remote, 1400, &data);
                let last = run(remote, 0, &data[..9]);
                let got = lengths_back(&socket, &state, &[single, train, single, last], 9);
                assert_eq!(got, [vec![1400; 22], vec![9]].concat(), "{local}");
                assert_eq!(state.counters().sent_segmented_runs, 1);
            }
            end(hosts);
        },
    );
}

#[test]
fn a_probe_passes_in_one_piece_or_not_at_all() {
    in_namespace("a_probe_passes_in_one_piece_or_not_at_all", || {
        for icmp in [false, true] {
            let hosts = behind_a_router(1280, icmp);
            let data = vec![7; 20 * 1200];
            for (local, remote) in ROUTED {
                let (socket, _) = bind(addr(local), &SocketOptions::default()).expect("bind");
                let state = UdpState::new((&socket).into()).expect("state");
                let remote = addr(remote);
                let most = 1280 - 8 - if remote.is_ipv4() { 20 } else { 40 };
                let probe = |len: usize| Transmit {
                    probe: true,
                    ..run(remote, 0, &data[..len])
                };
                // Twice: what a router has said meanwhile changes nothing.
                for round in 0..2 {
                    let runs = [
                        run(remote, 1200, &data[..2400]),
                        probe(most + 1),
                        run(remote, 1200, &data),
                        probe(1400),
                        probe(most),
                        run(remote, 0, &data[..9]),
                    ];
                    let got = lengths_back(&socket, &state, &runs, 9);
                    let want = [vec![1200; 22], vec![most, 9]].concat();
                    assert_eq!(got, want, "{local} {remote} {icmp} {round}");
                }
                // One that this host itself cannot send, and what is not a probe goes on as ever.
                let long = vec![1; 1600];
                let too_long = Transmit {
                    probe: true,
                    ..run(remote, 0, &long)
                };
                let got = lengths_back(&socket, &state, &[too_long, run(remote, 0, &data[..9])], 9);
                assert_eq!(got, [9]);
                assert_eq!(state.counters().lost_too_long, 1);
                if remote.is_ipv4() || icmp {
                    let larger = [run(remote, 0, &long), run(remote, 0, &data[..9])];
                    assert_eq!(lengths_back(&socket, &state, &larger, 9), [1600, 9]);
                }
            }
            end(hosts);
            // It may have gone with the namespace of its other end.
            shell("ip link del near 2>/dev/null || true");
        }
    });
}
