//! What a 1350-byte datagram costs to send and to receive over loopback, one thread, in nanoseconds.
//!
//! Each figure is the least of many short rounds: send some runs, take the time, receive them, take the
//! time. `cargo bench -p fulmar-netio`.
//!
//! With `FULMAR_BENCH_RAW` set, raw TCP as well, which needs root and sets firewall rules for a moment: run it
//! in a network namespace (`unshare --net sh -c "ip link set lo up; FULMAR_BENCH_RAW=1 cargo bench …"`).
#![allow(clippy::print_stdout)]

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use fulmar_netio::{
    Ecn, Offload, RawTcp, RawTcpOptions, RecvBuffers, RecvMeta, SocketOptions, Transmit, UdpState,
    bind,
};

const PACKET: usize = 1350;
/// Packets of a round: a few runs of 44, well within the receive buffer.
const ROUND: usize = 176;
const ROUNDS: usize = 400;

struct Bench {
    from: UdpSocket,
    to: UdpSocket,
    sender: UdpState,
    receiver: UdpState,
    buffers: RecvBuffers,
}

impl Bench {
    fn new(send: Offload, recv: Offload, buffers: usize, local: &str) -> Self {
        let options = SocketOptions {
            recv_buffer: Some(4 << 20),
            ..SocketOptions::default()
        };
        let socket = || {
            bind(local.parse().expect("address"), &options)
                .expect("bind")
                .0
        };
        let (from, to) = (socket(), socket());
        Self {
            sender: UdpState::with_offload((&from).into(), send).expect("state"),
            receiver: UdpState::with_offload((&to).into(), recv).expect("state"),
            buffers: RecvBuffers::new(buffers),
            from,
            to,
        }
    }

    /// Nanoseconds for each packet to send and to receive, in runs of `run` packets, `calls` runs to a call.
    fn measure(&mut self, run: usize, calls: usize, ecn: Option<Ecn>) -> (f64, f64) {
        let data = vec![0x5a; run * PACKET];
        let transmit = Transmit {
            dst: self.to.local_addr().expect("address"),
            src_ip: None,
            ecn,
            segment: PACKET,
            probe: false,
            data: &data,
        };
        let transmits = vec![transmit; calls];
        let per_call = run * calls;
        let packets = ROUND / per_call * per_call;
        let mut metas = [RecvMeta::EMPTY; 32];
        let mut least = (Duration::MAX, Duration::MAX);
        for _ in 0..ROUNDS {
            let start = Instant::now();
            for _ in 0..packets / per_call {
                let sent = self
                    .sender
                    .send_many((&self.from).into(), &transmits)
                    .expect("send");
                assert_eq!(sent.datagrams, per_call);
            }
            let sent = Instant::now();
            let mut got = 0;
            while got < packets {
                match self
                    .receiver
                    .recv((&self.to).into(), &mut self.buffers, &mut metas)
                {
                    Ok(count) => {
                        got += metas[..count]
                            .iter()
                            .map(RecvMeta::datagrams)
                            .sum::<usize>();
                    }
                    Err(e) if e.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                    Err(e) => panic!("{e}"),
                }
            }
            let received = Instant::now();
            least = (least.0.min(sent - start), least.1.min(received - sent));
        }
        let per_packet = |d: Duration| d.as_secs_f64() * 1e9 / packets as f64;
        (per_packet(least.0), per_packet(least.1))
    }
}

/// The same for raw TCP.
fn measure_raw(run: usize) -> (f64, f64) {
    let mut options = RawTcpOptions::default();
    options.socket.recv_buffer = Some(4 << 20);
    options.socket.send_buffer = Some(4 << 20);
    let host = "127.0.0.1:40404".parse().expect("address");
    let server = RawTcp::listen(host, &options).expect("listen");
    let client = RawTcp::dial(host, &options).expect("dial");
    let data = vec![0x5a; run * PACKET];
    let transmit = Transmit {
        dst: host,
        src_ip: None,
        ecn: None,
        segment: PACKET,
        probe: false,
        data: &data,
    };
    let packets = ROUND / run * run;
    let mut buffers = RecvBuffers::new(1);
    let mut metas = [RecvMeta::EMPTY; 32];
    let mut least = (Duration::MAX, Duration::MAX);
    // The kernel's connections have to meet first.
    while server.flows() == 0 {
        std::thread::yield_now();
    }
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..packets / run {
            assert_eq!(client.send(&transmit).expect("send").datagrams, run);
        }
        let sent = Instant::now();
        let mut got = 0;
        while got < packets {
            match server.recv(&mut buffers, &mut metas) {
                Ok(count) => {
                    got += metas[..count]
                        .iter()
                        .map(RecvMeta::datagrams)
                        .sum::<usize>();
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(e) => panic!("{e}"),
            }
        }
        let received = Instant::now();
        least = (least.0.min(sent - start), least.1.min(received - sent));
    }
    let per_packet = |d: Duration| d.as_secs_f64() * 1e9 / packets as f64;
    (per_packet(least.0), per_packet(least.1))
}

fn main() {
    println!(
        "{:<52} {:>9} {:>9}",
        "1350-byte datagrams over loopback, ns each", "send", "receive"
    );
    let line =
        |name: &str, (send, recv): (f64, f64)| println!("{name:<52} {send:>9.0} {recv:>9.0}");
    let v4 = "127.0.0.1:0";

    let mut single = Bench::new(Offload::Single, Offload::Single, 4, v4);
    line("one call each", single.measure(1, 1, None));
    let mut batch = Bench::new(Offload::Batch, Offload::Batch, 4, v4);
    line("sendmmsg of 44, recvmmsg of 4", batch.measure(44, 1, None));
    let mut batch = Bench::new(Offload::Batch, Offload::Batch, 8, v4);
    line("sendmmsg of 44, recvmmsg of 8", batch.measure(44, 1, None));

    let mut full = Bench::new(Offload::Full, Offload::Full, 4, v4);
    for run in [1, 2, 4, 8, 16, 44] {
        line(&format!("runs of {run}"), full.measure(run, 1, None));
    }
    line(
        "runs of 44, with congestion bits",
        full.measure(44, 1, Some(Ecn::Ect0)),
    );
    line("4 runs of 11 in a call", full.measure(11, 4, None));
    let mut one = Bench::new(Offload::Full, Offload::Full, 1, v4);
    line("runs of 44, one receive buffer", one.measure(44, 1, None));
    let mut any = Bench::new(Offload::Full, Offload::Full, 4, "0.0.0.0:0");
    any.to.set_nonblocking(true).expect("non-blocking");
    line("runs of 44, wildcard address", any.measure(44, 1, None));
    let mut half = Bench::new(Offload::Full, Offload::Batch, 4, v4);
    line(
        "runs of 44, receiver without coalescing",
        half.measure(44, 1, None),
    );
    let mut v6 = Bench::new(Offload::Full, Offload::Full, 4, "[::1]:0");
    line("runs of 44, IPv6", v6.measure(44, 1, None));
    if std::env::var_os("FULMAR_BENCH_RAW").is_some() {
        line("raw TCP, runs of 1", measure_raw(1));
        line("raw TCP, runs of 44", measure_raw(44));
    }
}
