//! What can only be seen or provoked by system calls of the test's own.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use socket2::{SockRef, Socket};

use super::Native;
use super::control::{self, Control};
use super::options::{int, set_int};
use crate::counters::{IoCounters, Live};
use crate::options::{SocketOptions, adopt, bind};
use crate::run::{Ecn, Sent, Transmit};

fn socket(local: &str, options: &SocketOptions) -> UdpSocket {
    bind(local.parse().expect("address"), options)
        .expect("bind")
        .0
}

fn native(socket: &UdpSocket) -> Native {
    Native::new(&SockRef::from(socket), true).expect("state")
}

fn send(native: &Native, socket: &UdpSocket, transmits: &[Transmit<'_>], live: &Live) -> Sent {
    native
        .send(&SockRef::from(socket), transmits, live)
        .expect("send")
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

/// Receives one datagram, or one coalesced run; returns its length and traffic class.
fn recv_with_class(socket: &UdpSocket) -> (usize, Option<u8>) {
    socket.set_nonblocking(false).expect("blocking");
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("timeout");
    let mut bytes = [0_u8; 65_536];
    let mut control = Control::EMPTY;
    let mut vector = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: all-zero bytes are a valid `msghdr`.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1 as _;
    header.msg_control = control.as_mut_ptr();
    header.msg_controllen = Control::LEN as _;
    // SAFETY: the header describes locals that outlive the call.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, 0) };
    assert!(len >= 0, "{}", io::Error::last_os_error());
    // SAFETY: the kernel has filled in the header, and its control buffer is still there.
    let class = unsafe { control::read(&header) }.class;
    (usize::try_from(len).expect("length"), class)
}

#[test]
fn the_code_point_survives_segmentation_and_congestion_bits() {
    let options = SocketOptions {
        dscp: Some(46),
        ..SocketOptions::default()
    };
    let data = [7; 3000];
    for local in ["127.0.0.1:0", "[::1]:0"] {
        let receiver = socket(local, &SocketOptions::default());
        native(&receiver);
        let sender = socket(local, &options);
        let state = native(&sender);
        let dst = receiver.local_addr().expect("address");
        let live = Live::default();
        for (segment, ecn, class) in [
            (1000, None, 0xb8),
            (1000, Some(Ecn::Ect0), 0xba),
            (1000, Some(Ecn::Ce), 0xbb),
            (0, None, 0xb8),
            (0, Some(Ecn::Ect1), 0xb9),
        ] {
            let run = Transmit {
                ecn,
                ..run(dst, segment, &data)
            };
            send(&state, &sender, &[run], &live);
            let mut len = 0;
            while len < data.len() {
                let (n, got) = recv_with_class(&receiver);
                assert_eq!(got, Some(class), "{local} {segment} {ecn:?}");
                len += n;
            }
        }
    }
}

/// What the options are that decide on fragments, by family.
fn discovery(socket: &UdpSocket) -> (i32, Option<i32>) {
    let get = |level, name| int(socket, level, name);
    (
        get(libc::IPPROTO_IP, libc::IP_MTU_DISCOVER).expect("option"),
        get(libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER).ok(),
    )
}

#[test]
fn no_df_on_ipv4_whatever_the_socket_was_told_before() {
    for (local, v6) in [("127.0.0.1:0", false), ("[::1]:0", true), ("[::]:0", true)] {
        let Ok(inherited) = UdpSocket::bind(local) else {
            continue;
        };
        // As systems make sockets, and the opposite of what is relied on.
        set_int(
            &inherited,
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            libc::IP_PMTUDISC_DO,
        )
        .expect("option");
        set_int(&inherited, libc::IPPROTO_IP, libc::IP_RECVERR, 1).expect("option");
        if v6 {
            for (name, value) in [
                (libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO),
                (libc::IPV6_DONTFRAG, 1),
                (libc::IPV6_RECVERR, 1),
            ] {
                set_int(&inherited, libc::IPPROTO_IPV6, name, value).expect("option");
            }
        }
        let options = SocketOptions::default();
        let granted = adopt(&inherited, &options).expect("adopted");
        let (fresh, also) = bind(local.parse().expect("address"), &options).expect("bind");
        let mut names = vec!["IP_MTU_DISCOVER OMIT", "IP_RECVERR 0"];
        if v6 {
            names.extend([
                "IPV6_MTU_DISCOVER WANT",
                "IPV6_DONTFRAG 0",
                "IPV6_RECVERR 0",
            ]);
        }
        for (socket, granted) in [(&inherited, granted), (&fresh, also)] {
            assert!(granted.refused.is_empty(), "{:?}", granted.refused);
            let told: Vec<_> = granted.relied.iter().map(ToString::to_string).collect();
            assert_eq!(told, names, "{local}");
            // What a state adds changes none of it.
            native(socket);
            let wanted = (
                libc::IP_PMTUDISC_OMIT,
                v6.then_some(libc::IPV6_PMTUDISC_WANT),
            );
            assert_eq!(discovery(socket), wanted, "{local}");
        }
    }
}

#[test]
fn a_raw_socket_keeps_its_df() {
    let Ok(raw) = Socket::new(
        socket2::Domain::IPV4,
        socket2::Type::RAW,
        Some(socket2::Protocol::TCP),
    ) else {
        return;
    };
    let get = || int(&raw, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER).expect("option");
    let before = get();
    let granted = crate::options::apply(&raw, false, &SocketOptions::default()).expect("applied");
    assert_eq!((get(), granted.relied), (before, Vec::new()));
}

#[test]
fn a_probe_switches_its_call_and_nothing_else() {
    let data = [3; 3000];
    for (local, remote) in [
        ("0.0.0.0:0", "127.0.0.1:0"),
        ("[::]:0", "[::1]:0"),
        ("[::]:0", "127.0.0.1:0"),
    ] {
        let receiver = socket(remote, &SocketOptions::default());
        let sender = socket(local, &SocketOptions::default());
        let before = discovery(&sender);
        let state = native(&sender);
        let live = Live::default();
        let dst = receiver.local_addr().expect("address");
        let probe = Transmit {
            probe: true,
            ..run(dst, 0, &data[..1400])
        };
        let runs = [
            run(dst, 1000, &data),
            run(dst, 1000, &data),
            probe,
            run(dst, 1000, &data),
            run(dst, 1000, &data),
            probe,
        ];
        let sent = send(&state, &sender, &runs, &live);
        assert_eq!((sent.runs, sent.datagrams, sent.lost), (6, 14, 0));
        assert_eq!(discovery(&sender), before);
        // Two of the runs share a call each time; the probes share none.
        assert_eq!(live.snapshot().send_calls, 4);
        receiver.set_nonblocking(false).expect("blocking");
        for (len, count) in [(1000, 6), (1400, 1), (1000, 6), (1400, 1)] {
            for _ in 0..count {
                assert_eq!(receiver.recv(&mut [0; 2000]).expect("a datagram"), len);
            }
        }
    }
}

/// Makes the kernel refuse to segment on this socket: without checksums it cannot.
fn forbid_segmentation(socket: &UdpSocket) {
    set_int(socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).expect("option");
}

#[test]
fn a_refusal_to_segment_costs_nothing_but_time() {
    let receiver = socket(
        "127.0.0.1:0",
        &SocketOptions {
            recv_buffer: Some(4 << 20),
            ..SocketOptions::default()
        },
    );
    let sender = socket("127.0.0.1:0", &SocketOptions::default());
    forbid_segmentation(&sender);
    let state = native(&sender);
    let dst = receiver.local_addr().expect("address");
    let live = Live::default();
    let data: Vec<u8> = (0..60_000_u32).map(|i| (i / 1000) as u8).collect();
    receiver.set_nonblocking(false).expect("blocking");
    receiver
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("timeout");
    let expect = |segment: usize, len: usize| {
        let mut buffer = [0; 2048];
        for want in data[..len].chunks(segment) {
            let n = receiver.recv(&mut buffer).expect("datagram");
            assert_eq!(&buffer[..n], want);
        }
    };

    // One run, longer than a batch; then others behind it in the same call.
    let sent = send(&state, &sender, &[run(dst, 1000, &data)], &live);
    assert_eq!((sent.runs, sent.datagrams, sent.lost), (1, 60, 0));
    expect(1000, 60_000);
    let runs = [
        run(dst, 900, &data[..2000]),
        run(dst, 0, &data[..5]),
        run(dst, 1000, &data[..3500]),
    ];
    let sent = send(&state, &sender, &runs, &live);
    assert_eq!((sent.runs, sent.datagrams, sent.lost), (3, 3 + 1 + 4, 0));
    expect(900, 2000);
    expect(5, 5);
    expect(1000, 3500);

    let IoCounters {
        segmentation_refused,
        segmentation_off,
        sent_segmented_runs,
        sent_datagrams,
        ..
    } = live.snapshot();
    // The first run and the smaller segment of the second call; what is known to be refused is not tried.
    assert_eq!((segmentation_refused, sent_segmented_runs), (2, 0));
    assert_eq!(sent_datagrams, 68);
    assert!(segmentation_off);

    // The reason ends; after some runs it is tried again, and is back.
    set_int(&sender, libc::SOL_SOCKET, libc::SO_NO_CHECK, 0).expect("option");
    let mut runs = 0;
    while live.snapshot().segmentation_off {
        send(&state, &sender, &[run(dst, 1000, &data[..2000])], &live);
        expect(1000, 2000);
        runs += 1;
        assert!(runs < 2000);
    }
    assert_eq!(live.snapshot().sent_segmented_runs, 1);
    assert_eq!(live.snapshot().segmentation_refused, 2);
}

#[test]
fn a_bad_source_is_told_from_a_refusal_to_segment() {
    // Both at once: neither the segmentation nor the wanted source address works.
    let receiver = socket("127.0.0.1:0", &SocketOptions::default());
    let sender = socket("0.0.0.0:0", &SocketOptions::default());
    forbid_segmentation(&sender);
    let state = native(&sender);
    let live = Live::default();
    let data = [1; 2500];
    let dst = receiver.local_addr().expect("address");
    let run = Transmit {
        src_ip: Some("203.0.113.5".parse().expect("address")),
        ..run(dst, 1000, &data)
    };
    let sent = send(&state, &sender, &[run], &live);
    assert_eq!((sent.datagrams, sent.lost), (3, 0));
    let counters = live.snapshot();
    assert_eq!(
        (counters.segmentation_refused, counters.source_refused),
        (1, 3)
    );
}

#[test]
fn errors_of_the_descriptor_are_errors() {
    // Something that is a descriptor, but no socket.
    let file = std::fs::File::open("/dev/null").expect("file");
    let real = socket("127.0.0.1:0", &SocketOptions::default());
    let state = native(&real);
    // SAFETY: the descriptor is taken out of its owner and given to exactly one other.
    let fake: Socket = unsafe {
        use std::os::fd::{FromRawFd, IntoRawFd};
        Socket::from_raw_fd(file.into_raw_fd())
    };
    let live = Live::default();
    let dst = real.local_addr().expect("address");
    let error = state
        .send(&fake, &[run(dst, 0, &[1])], &live)
        .expect_err("no socket");
    assert_eq!(error.raw_os_error(), Some(libc::ENOTSOCK));
    let mut buffers = crate::run::RecvBuffers::new(1);
    let error = state
        .recv(
            &fake,
            &mut buffers,
            &mut [crate::run::RecvMeta::EMPTY],
            &live,
        )
        .expect_err("no socket");
    assert_eq!(error.raw_os_error(), Some(libc::ENOTSOCK));
}
