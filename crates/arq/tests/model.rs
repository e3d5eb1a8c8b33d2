//! The machine against the specification written down naively: the same operations, and after each of them the same
//! datagrams and the same state. The other end is a naive one too, so that all traffic is honest, however late, often
//! or disordered it arrives.

mod common;

use common::Datagrams;
use common::model::{Model, Settings};
use fulmar_arq::control::Classic;
use fulmar_arq::{Config, Flush, Kcp, Origin, Profile};
use fulmar_testkit::vectors::xs;
use fulmar_wire::seq::Seq;
use fulmar_wire::time::{Instant, Millis};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    /// Time passes.
    Wait(u32),
    /// We write that many bytes and flush; with `false` without flushing.
    Write(usize, bool),
    /// We read up to that many segments.
    Read(usize),
    /// The periodic flush.
    Update,
    /// The other end writes, reads, flushes.
    PeerWrite(usize),
    PeerRead(usize),
    PeerUpdate,
    /// One datagram on its way to us arrives: which, and whether by recovery; it stays on its way if it is to arrive twice.
    Deliver {
        pick: usize,
        recovered: bool,
        again: bool,
    },
    PeerDeliver {
        pick: usize,
        again: bool,
    },
    /// One on its way gets lost.
    Lose(usize),
    PeerLose(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let pick = || prop_oneof![6 => Just(0usize), 2 => 0usize..40];
    prop_oneof![
        4 => (0u32..40).prop_map(Op::Wait),
        1 => (0u32..600).prop_map(Op::Wait),
        4 => (0usize..900, any::<bool>()).prop_map(|(n, f)| Op::Write(n, f)),
        2 => (0usize..8).prop_map(Op::Read),
        4 => Just(Op::Update),
        2 => (0usize..500).prop_map(Op::PeerWrite),
        3 => (0usize..12).prop_map(Op::PeerRead),
        4 => Just(Op::PeerUpdate),
        12 => (pick(), any::<bool>(), prop::bool::weighted(0.1))
            .prop_map(|(pick, r, again)| Op::Deliver { pick, recovered: r && again, again }),
        12 => (pick(), prop::bool::weighted(0.1)).prop_map(|(pick, again)| Op::PeerDeliver { pick, again }),
        2 => pick().prop_map(Op::Lose),
        2 => pick().prop_map(Op::PeerLose),
    ]
}

fn settings() -> impl Strategy<Value = Settings> {
    (
        (50usize..160, any::<bool>(), 10u32..60),
        (0u32..4, prop::bool::weighted(0.3)),
        (1u32..40, 1u32..40, prop::bool::weighted(0.2)),
    )
        .prop_map(
            |((mtu, nodelay, interval), (resend, cc), (snd_wnd, rcv_wnd, ack_no_delay))| Settings {
                mtu,
                nodelay,
                interval,
                resend,
                cc,
                snd_wnd,
                rcv_wnd,
                ack_no_delay,
            },
        )
}

fn config(s: &Settings) -> Config {
    Config {
        mtu: s.mtu,
        profile: Profile::new(u32::from(s.nodelay), s.interval, s.resend, s.cc),
        snd_wnd: s.snd_wnd,
        rcv_wnd: s.rcv_wnd,
        ack_no_delay: s.ack_no_delay,
        ..Config::default()
    }
}

fn assert_same(kcp: &Kcp<Classic>, model: &Model) {
    let s = kcp.state();
    let c = s.congestion;
    assert_eq!(
        (
            s.snd_una,
            s.snd_nxt,
            s.rcv_nxt,
            s.rx_rto,
            i64::from(s.rx_srtt),
            i64::from(s.rx_rttvar)
        ),
        (
            model.una,
            model.nxt,
            model.rcv_nxt,
            model.rto,
            model.srtt,
            model.rttvar
        ),
    );
    assert_eq!(
        (s.rmt_wnd, c.cwnd, c.ssthresh, c.incr, s.probe, s.probe_wait),
        (
            model.rmt_wnd,
            model.cwnd,
            model.ssthresh,
            model.incr,
            model.probe,
            model.probe_wait
        ),
    );
    assert_eq!(
        [
            s.len_snd_queue,
            s.len_snd_buf,
            s.len_rcv_queue,
            s.len_rcv_buf
        ]
        .map(|n| n as usize),
        model.lengths()[..4],
    );
    assert_eq!(s.len_acklist, model.lengths()[4]);
}

fn run(ours: &Settings, theirs: &Settings, first: [u32; 2], start: u64, ops: &[Op]) {
    let config = config(ours);
    let (snd, rcv) = (Seq(first[0]), Seq(first[1]));
    let mut kcp = Kcp::with_numbers(9, config, Classic::new(&config), snd, rcv);
    let mut model = Model::new(9, *ours, snd, rcv);
    let mut peer = Model::new(9, *theirs, rcv, snd);
    let mut out = Datagrams::default();
    let (mut to_us, mut to_peer) = (Vec::new(), Vec::new());
    let mut ms = start;
    for op in ops {
        let now = Instant::from_millis(ms);
        let wire: Millis = now.wire_millis();
        match *op {
            Op::Wait(by) => ms += u64::from(by),
            Op::Write(n, flush) => {
                let data = xs(u32::try_from(n).expect("small") + 1, n);
                kcp.send(&data);
                model.send(&data);
                if flush {
                    kcp.flush(now, Flush::Full, &mut out);
                    model.flush(wire, true);
                }
            }
            Op::Read(n) => {
                for _ in 0..n {
                    assert_eq!(kcp.recv(<[u8]>::to_vec), model.recv());
                }
            }
            Op::Update => {
                let next = kcp.update(now, &mut out);
                assert_eq!(next.as_millis(), u128::from(model.flush(wire, true)));
            }
            Op::PeerWrite(n) => {
                peer.send(&xs(7, n));
                peer.flush(wire, true);
            }
            Op::PeerRead(n) => {
                for _ in 0..n {
                    peer.recv();
                }
            }
            Op::PeerUpdate => {
                peer.flush(wire, true);
            }
            Op::Deliver {
                pick,
                recovered,
                again,
            } => {
                if let Some(datagram) = pick_one(&mut to_us, pick, again) {
                    let origin = if recovered {
                        Origin::Recovered
                    } else {
                        Origin::Wire
                    };
                    let wanted = kcp.handle_datagram(now, &datagram, origin).expect("sound");
                    if let Some(kind) = wanted.kind() {
                        kcp.flush(now, kind, &mut out);
                    }
                    model.input(wire, &datagram, !recovered);
                }
            }
            Op::PeerDeliver { pick, again } => {
                if let Some(datagram) = pick_one(&mut to_peer, pick, again) {
                    peer.input(wire, &datagram, true);
                }
            }
            Op::Lose(pick) => {
                pick_one(&mut to_us, pick, false);
            }
            Op::PeerLose(pick) => {
                pick_one(&mut to_peer, pick, false);
            }
        }
        let sent = out.take();
        assert_eq!(sent, std::mem::take(&mut model.out), "after {op:?}");
        to_peer.extend(sent);
        to_us.append(&mut peer.out);
        assert_same(&kcp, &model);
        assert!(!kcp.peer_restarted());
    }
}

fn pick_one(queue: &mut Vec<Vec<u8>>, pick: usize, again: bool) -> Option<Vec<u8>> {
    if queue.is_empty() {
        return None;
    }
    let at = pick % queue.len();
    Some(if again {
        queue[at].clone()
    } else {
        queue.remove(at)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn same_operations_same_datagrams(
        ours in settings(),
        theirs in settings(),
        first in prop_oneof![Just([0, 0]), any::<[u32; 2]>(), Just([u32::MAX - 20, u32::MAX - 3])],
        start in prop_oneof![Just(0u64), Just((1u64 << 32) - 300), Just((1u64 << 31) - 300)],
        ops in prop::collection::vec(op(), 1..400),
    ) {
        run(&ours, &theirs, first, start, &ops);
    }
}
