//! UDP sockets over loopback: every way of sending to every way of receiving.
#![cfg_attr(not(target_os = "linux"), allow(unused_imports, dead_code))]

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use fulmar_netio::{
    DEFAULT_BUFFERS, Details, Ecn, MAX_RUN_BYTES, Offload, RecvBuffers, RecvMeta, Sent,
    SocketOptions, Transmit, UdpState, bind, bind_wildcard,
};

mod skipped;
use skipped::skipped;

const WAYS: [Offload; 3] = [Offload::Full, Offload::Batch, Offload::Single];

/// A socket with its state and room to receive.
struct End {
    socket: UdpSocket,
    state: UdpState,
    buffers: RecvBuffers,
}

impl End {
    fn new(addr: &str, offload: Offload) -> Self {
        let options = SocketOptions {
            recv_buffer: Some(4 << 20),
            ..SocketOptions::default()
        };
        let (socket, _) = bind(addr.parse().expect("address"), &options).expect("bind");
        Self::of(socket, offload)
    }

    fn of(socket: UdpSocket, offload: Offload) -> Self {
        let state = UdpState::with_offload((&socket).into(), offload).expect("state");
        Self {
            socket,
            state,
            buffers: RecvBuffers::new(DEFAULT_BUFFERS),
        }
    }

    fn addr(&self) -> SocketAddr {
        self.socket.local_addr().expect("address")
    }

    fn port(&self) -> u16 {
        self.addr().port()
    }

    fn send(&self, transmit: &Transmit<'_>) -> io::Result<Sent> {
        self.state.send((&self.socket).into(), transmit)
    }

    fn send_many(&self, transmits: &[Transmit<'_>]) -> io::Result<Sent> {
        self.state.send_many((&self.socket).into(), transmits)
    }

    /// The next runs, waiting for them.
    fn recv_runs(&mut self) -> Vec<(RecvMeta, Vec<u8>)> {
        let mut metas = [RecvMeta::EMPTY; DEFAULT_BUFFERS];
        loop {
            match self
                .state
                .recv((&self.socket).into(), &mut self.buffers, &mut metas)
            {
                Ok(n) if n > 0 => {
                    return metas[..n]
                        .iter()
                        .map(|m| (*m, self.buffers.run_mut(m).to_vec()))
                        .collect();
                }
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.wait(),
                Err(e) => panic!("{e}"),
            }
        }
    }

    /// The next `count` datagrams, in order.
    fn recv(&mut self, count: usize) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        while out.len() < count {
            for (meta, bytes) in self.recv_runs() {
                assert_eq!(bytes.chunks(meta.segment).count(), meta.datagrams());
                out.extend(bytes.chunks(meta.segment).map(<[u8]>::to_vec));
            }
        }
        out
    }

    /// Blocks until there is something to receive.
    fn wait(&self) {
        self.socket.set_nonblocking(false).expect("blocking");
        self.socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("timeout");
        match self.socket.peek_from(&mut [0; 1]) {
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("nothing arrives")
            }
            _ => {}
        }
        self.socket.set_nonblocking(true).expect("non-blocking");
    }
}

fn transmit<'a>(dst: SocketAddr, segment: usize, data: &'a [u8]) -> Transmit<'a> {
    Transmit {
        dst,
        src_ip: None,
        ecn: None,
        segment,
        probe: false,
        data,
    }
}

/// Bytes that differ from datagram to datagram.
fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32)
        .flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes())
        .take(len)
        .collect()
}

#[test]
fn every_way_of_sending_delivers_the_same() {
    let data = pattern(200_000);
    // Segment and length: a full run, a short last datagram, one datagram, tiny ones, more than 64, more
    // than 65,507 bytes, and datagrams so long that no two fit into one run.
    let runs = [
        (1350, 44 * 1350),
        (1350, 20 * 1350 + 7),
        (1350, 1350),
        (1350, 3),
        (1, 64),
        (100, 200 * 100 + 1),
        (1400, 100 * 1400),
        (40_000, 80_001),
        (0, 1200),
    ];
    for from in WAYS {
        for to in WAYS {
            let mut receiver = End::new("127.0.0.1:0", to);
            let sender = End::new("127.0.0.1:0", from);
            for (segment, len) in runs {
                let run = transmit(receiver.addr(), segment, &data[..len]);
                let sent = sender.send(&run).expect("send");
                assert_eq!(
                    sent,
                    Sent {
                        runs: 1,
                        datagrams: run.datagrams(),
                        ..Sent::default()
                    },
                    "{from:?} {segment} {len}"
                );
                let got = receiver.recv(run.datagrams());
                let want: Vec<_> = run.iter().map(<[u8]>::to_vec).collect();
                assert!(got == want, "{from:?} -> {to:?}, {segment} x {len}");
            }
            let (sent, received) = (sender.state.counters(), receiver.state.counters());
            let total: usize = runs
                .iter()
                .map(|&(s, l)| transmit(receiver.addr(), s, &data[..l]).datagrams())
                .sum();
            assert_eq!(sent.sent_datagrams, total as u64);
            assert_eq!(received.recv_datagrams, total as u64);
            assert_eq!(sent.sent_bytes, received.recv_bytes);
            assert_eq!(
                received.recv_truncated + received.recv_overflows + received.recv_empty,
                0
            );
            assert_eq!(sent.segmentation_off, !sender.state.segmentation());
        }
    }
}

#[test]
fn many_runs_of_many_sizes_keep_their_order() {
    let data = pattern(60_000);
    for way in WAYS {
        let mut one = End::new("127.0.0.1:0", way);
        let mut two = End::new("127.0.0.1:0", way);
        let sender = End::new("127.0.0.1:0", way);
        // More runs than one call takes, to two peers in turn, an empty one among them.
        let runs: Vec<_> = (0..100_usize)
            .map(|i| {
                let to = if i % 2 == 0 { one.addr() } else { two.addr() };
                let len = if i == 50 { 0 } else { 1 + i * 37 };
                transmit(to, 1 + (i * 13) % 1200, &data[i..i + len])
            })
            .collect();
        let mut at = 0;
        while at < runs.len() {
            let sent = sender.send_many(&runs[at..]).expect("send");
            assert_eq!((sent.bytes, sent.lost, sent.trouble), (0, 0, None));
            at += sent.runs;
        }
        for end in [&mut one, &mut two] {
            let want: Vec<_> = runs
                .iter()
                .filter(|r| r.dst == end.addr())
                .flat_map(Transmit::iter)
                .map(<[u8]>::to_vec)
                .collect();
            assert!(end.recv(want.len()) == want, "{way:?}");
        }
    }
}

#[test]
fn families_meet() {
    let data = pattern(5000);
    for way in WAYS {
        let (socket, _) = bind_wildcard(0, &SocketOptions::default()).expect("bind");
        let mut both = End::of(socket, way);
        let Ok(probe) = UdpSocket::bind("[::1]:0") else {
            skipped("this host has no IPv6");
            return;
        };
        drop(probe);
        let port = both.port();
        for (local, remote) in [
            ("127.0.0.1:0", SocketAddr::from(([127, 0, 0, 1], port))),
            ("[::1]:0", format!("[::1]:{port}").parse().expect("address")),
        ] {
            let mut peer = End::new(local, way);
            peer.send(&transmit(remote, 1000, &data)).expect("send");
            let mut got = Vec::new();
            let mut asked = None;
            while got.len() < data.len() {
                for (meta, bytes) in both.recv_runs() {
                    // The peer is of its own family, and so is our address that it asked.
                    assert_eq!(meta.src, peer.addr());
                    if way != Offload::Single {
                        assert_eq!(meta.dst_ip, Some(remote.ip()));
                    }
                    asked = meta.dst_ip;
                    got.extend(bytes);
                }
            }
            assert!(got == data);
            let mut answer = transmit(peer.addr(), 1000, &data);
            answer.src_ip = asked;
            assert_eq!(both.send(&answer).expect("send").datagrams, 5);
            assert_eq!(peer.recv(5).concat(), data);
        }
    }
}

#[test]
fn only_v6_refuses_v4() {
    let options = SocketOptions {
        only_v6: true,
        ..SocketOptions::default()
    };
    let Ok((socket, _)) = bind("[::]:0".parse().expect("address"), &options) else {
        skipped("this host has no IPv6");
        return;
    };
    let port = socket.local_addr().expect("address").port();
    let v4 = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    v4.connect((Ipv4Addr::LOCALHOST, port)).expect("connect");
    v4.send(b"x").expect("send");
    v4.set_read_timeout(Some(Duration::from_secs(20)))
        .expect("timeout");
    // The refusal comes back at once.
    assert_eq!(
        v4.recv(&mut [0; 1]).expect_err("refused").kind(),
        ErrorKind::ConnectionRefused
    );
}

#[cfg(target_os = "linux")]
#[test]
fn the_answer_comes_from_the_address_that_was_asked() {
    let data = pattern(4000);
    for way in [Offload::Full, Offload::Batch] {
        let mut server = End::new("0.0.0.0:0", way);
        let mut client = End::new("127.0.0.1:0", way);
        let asked = SocketAddr::from(([127, 0, 0, 2], server.port()));
        client.send(&transmit(asked, 0, b"hello")).expect("send");
        let (meta, _) = server.recv_runs().remove(0);
        assert_eq!(meta.dst_ip, Some(asked.ip()));
        for segment in [1000, 4000] {
            let answer = Transmit {
                src_ip: meta.dst_ip,
                ..transmit(meta.src, segment, &data)
            };
            server.send(&answer).expect("send");
            for (meta, _) in client.recv_runs() {
                assert_eq!(meta.src, asked);
            }
            // Whatever is left of a run that came in pieces.
            while client
                .state
                .recv(
                    (&client.socket).into(),
                    &mut client.buffers,
                    &mut [RecvMeta::EMPTY; 4],
                )
                .is_ok()
            {}
        }
        // An address that is not ours, or no longer: the system's choice is better than silence.
        for segment in [1000, 4000] {
            let answer = Transmit {
                src_ip: Some(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9))),
                ..transmit(client.addr(), segment, &data)
            };
            let sent = server.send(&answer).expect("send");
            assert_eq!((sent.datagrams, sent.lost), (4000 / segment, 0), "{way:?}");
            assert_eq!(client.recv(4000 / segment).concat(), data);
        }
        let counters = server.state.counters();
        assert!(counters.source_refused >= 2, "{counters:?}");
        // It was not the segmentation that was refused.
        assert_eq!(counters.segmentation_refused, 0);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn congestion_bits_arrive() {
    let data = pattern(3000);
    for way in [Offload::Full, Offload::Batch] {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let mut receiver = End::new(local, way);
            let sender = End::new(local, way);
            for ecn in [None, Some(Ecn::Ect0), Some(Ecn::Ect1), Some(Ecn::Ce)] {
                let run = Transmit {
                    ecn,
                    ..transmit(receiver.addr(), 1000, &data)
                };
                sender.send(&run).expect("send");
                let mut count = 0;
                while count < 3 {
                    for (meta, _) in receiver.recv_runs() {
                        assert_eq!(meta.ecn, ecn);
                        count += meta.datagrams();
                    }
                }
            }
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn what_is_not_asked_for_is_not_told() {
    let data = pattern(3000);
    for local in ["0.0.0.0:0", "[::]:0"] {
        let mut receiver = End::new(local, Offload::Full);
        let mut to = receiver.addr();
        to.set_ip(if to.is_ipv4() {
            [127, 0, 0, 1].into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
        let sender = End::new(local, Offload::Full);
        for (destination, congestion) in
            [(true, true), (false, true), (true, false), (false, false)]
        {
            let details = Details {
                destination,
                congestion,
            };
            receiver.state.ask((&receiver.socket).into(), details);
            let run = Transmit {
                ecn: Some(Ecn::Ect0),
                ..transmit(to, 1000, &data)
            };
            sender.send(&run).expect("send");
            let mut count = 0;
            while count < 3 {
                for (meta, _) in receiver.recv_runs() {
                    assert_eq!(meta.dst_ip, destination.then_some(to.ip()));
                    assert_eq!(meta.ecn, congestion.then_some(Ecn::Ect0));
                    count += meta.datagrams();
                }
            }
        }
    }
}

#[test]
fn a_refused_port_breaks_neither_direction() {
    let data = pattern(3000);
    for way in WAYS {
        let mut end = End::new("127.0.0.1:0", Offload::Single);
        let mut peer = End::new("127.0.0.1:0", way);
        // Only a connected socket is told that a port refuses.
        end.socket.connect(peer.addr()).expect("connect");
        let local = end.addr();
        let remote = peer.addr();
        end.state = UdpState::with_offload((&end.socket).into(), way).expect("state");
        drop(peer);
        for _ in 0..4 {
            let sent = end
                .send(&transmit(remote, 1000, &data))
                .expect("no error of the socket");
            assert_eq!(sent.runs, 1);
            assert_eq!(sent.datagrams + sent.lost, 3);
        }
        match end.state.recv(
            (&end.socket).into(),
            &mut end.buffers,
            &mut [RecvMeta::EMPTY; 1],
        ) {
            Ok(0) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(end.state.counters().segmentation_refused, 0);
        // The port opens again, and everything passes in both directions.
        peer = End::of(UdpSocket::bind(remote).expect("bind"), way);
        peer.socket.set_nonblocking(true).expect("non-blocking");
        let sent = end.send(&transmit(remote, 1000, &data)).expect("send");
        assert_eq!(sent.datagrams, 3, "{way:?} {sent:?}");
        assert_eq!(peer.recv(3).concat(), data);
        peer.send(&transmit(local, 1000, &data)).expect("send");
        assert_eq!(end.recv(3).concat(), data);
    }
}

#[test]
fn what_is_too_long_is_lost_alone() {
    let data = pattern(70_000);
    for way in WAYS {
        let mut receiver = End::new("127.0.0.1:0", way);
        let sender = End::new("127.0.0.1:0", way);
        let to = receiver.addr();
        let runs = [
            transmit(to, 0, &data[..10]),
            transmit(to, 0, &data[..MAX_RUN_BYTES + 1]),
            transmit(to, 10, &data[..40]),
        ];
        let sent = sender.send_many(&runs).expect("send");
        assert_eq!((sent.runs, sent.datagrams, sent.lost), (3, 5, 1), "{way:?}");
        assert_eq!(sent.trouble, Some(fulmar_netio::Trouble::TooLong));
        assert_eq!(sender.state.counters().lost_too_long, 1);
        assert_eq!(
            receiver.recv(5).concat(),
            [&data[..10], &data[..40]].concat()
        );
    }
}

#[test]
fn what_does_not_fit_is_counted_and_dropped() {
    let data = pattern(20_000);
    for way in WAYS {
        let mut receiver = End::new("127.0.0.1:0", way);
        receiver.buffers = RecvBuffers::with_len(2, 4096);
        let sender = End::new("127.0.0.1:0", Offload::Full);
        let to = receiver.addr();
        // One that is too long, an empty one, one that fits.
        sender.send(&transmit(to, 0, &data[..5000])).expect("send");
        sender.socket.send_to(&[], to).expect("send");
        sender.send(&transmit(to, 0, &data[..4096])).expect("send");
        assert_eq!(receiver.recv(1).concat(), data[..4096]);
        let counters = receiver.state.counters();
        assert_eq!(
            (counters.recv_truncated, counters.recv_empty),
            (1, 1),
            "{way:?}"
        );
        assert_eq!((counters.recv_datagrams, counters.recv_bytes), (1, 4096));

        // Of a coalesced run that is too long, what fits in whole datagrams arrives.
        sender
            .send(&transmit(to, 1000, &data[..10_000]))
            .expect("send");
        let want = if way == Offload::Full { 4 } else { 10 };
        if receiver.state.segmentation() || way != Offload::Full {
            assert_eq!(receiver.recv(want).concat(), data[..want * 1000]);
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn an_overflowing_receive_buffer_shows() {
    let data = pattern(60_000);
    let options = SocketOptions {
        recv_buffer: Some(16 << 10),
        ..SocketOptions::default()
    };
    let (socket, _) = bind("127.0.0.1:0".parse().expect("address"), &options).expect("bind");
    let mut receiver = End::of(socket, Offload::Full);
    let sender = End::new("127.0.0.1:0", Offload::Full);
    for _ in 0..50 {
        let sent = sender
            .send(&transmit(receiver.addr(), 1000, &data))
            .expect("send");
        assert_eq!(sent.datagrams, 60);
    }
    // The number of drops is told by a datagram that arrives after them.
    let mut arrived = 0;
    while let Ok(n) = receiver.state.recv(
        (&receiver.socket).into(),
        &mut receiver.buffers,
        &mut [RecvMeta::EMPTY; 4],
    ) {
        arrived += n;
    }
    assert!(arrived > 0);
    sender
        .send(&transmit(receiver.addr(), 0, b"last"))
        .expect("send");
    receiver.recv_runs();
    assert!(receiver.state.counters().recv_overflows > 0);
}

#[test]
fn nothing_to_receive_and_nothing_to_send() {
    for way in WAYS {
        let mut end = End::new("127.0.0.1:0", way);
        let error = end
            .state
            .recv(
                (&end.socket).into(),
                &mut end.buffers,
                &mut [RecvMeta::EMPTY; 4],
            )
            .expect_err("nothing");
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert_eq!(end.send_many(&[]).expect("nothing"), Sent::default());
        let nothing = transmit(end.addr(), 100, &[]);
        assert_eq!(end.send(&nothing).expect("nothing").runs, 1);
        assert_eq!(end.state.counters().sent_datagrams, 0);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_run_is_one_call_and_arrives_in_one() {
    let data = pattern(44 * 1350);
    for local in ["127.0.0.1:0", "[::1]:0"] {
        let mut receiver = End::new(local, Offload::Full);
        let sender = End::new(local, Offload::Full);
        if !sender.state.segmentation() {
            skipped("this kernel does not segment UDP");
            return;
        }
        sender
            .send(&transmit(receiver.addr(), 1350, &data))
            .expect("send");
        let runs = receiver.recv_runs();
        assert_eq!(runs.len(), 1);
        assert_eq!((runs[0].0.len, runs[0].0.segment), (44 * 1350, 1350));
        assert!(runs[0].1 == data);
        let (sent, received) = (sender.state.counters(), receiver.state.counters());
        assert_eq!((sent.send_calls, sent.sent_segmented_runs), (1, 1));
        assert_eq!(received.recv_coalesced_runs, 1);
        assert!(!sent.segmentation_off);
    }
}
