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
    shell(&format!(
        "ip link add near mtu {mtu} type veth peer name far mtu {mtu} netns {pid}; \
         ip addr add 10.77.0.1/24 dev near; ip -6 addr add fd77::1/64 dev near nodad; ip link set near up; \
         ns='nsenter --net=/proc/{pid}/ns/net'; \
         $ns ip addr add 10.77.0.2/24 dev far; $ns ip -6 addr add fd77::2/64 dev far nodad; $ns ip link set far up",
        pid = child.id()
    ));
    child
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
