//! What members and outsiders can make a server hold: conversations without end, streams that nobody reads.

use std::net::SocketAddr;

use fulmar_session::endpoint::Event;
use fulmar_session::{Reason, admission::Limits};
use fulmar_wire::kcp::{Command, Format, Header};
use fulmar_wire::libev;
use fulmar_wire::seq::Seq;
use fulmar_wire::time::Millis;

use super::invariants::ends_of;
use crate::harness::{Sim, link, secs, seeds};
use crate::raw::seal;
use crate::setup::{Options, libev_cipher};

/// One of very many hosts.
fn host(n: u32) -> SocketAddr {
    let [_, a, b, c] = n.to_be_bytes();
    ([203, a, b, c], 4000).into()
}

/// The datagram with which a conversation of kcptun-libev begins with these bytes.
fn opening(conv: u32, bytes: &[u8]) -> Vec<u8> {
    let header = Header {
        conv,
        command: Command::Push,
        frg: 0,
        wnd: 256,
        ts: Millis(0),
        sn: Seq(0),
        una: Seq(0),
        len: u32::try_from(bytes.len()).expect("short"),
    };
    let mut body = Format::BigEndian.emit(&header).to_vec();
    body.extend_from_slice(bytes);
    body
}

/// A message that takes no target proves nothing: however many say it, no more than unproven sessions stay, none of them for
/// long, and no answer but the acknowledgement is sent.
#[test]
fn keepalives_without_a_dial_keep_nothing() {
    const N: u32 = 33_000;
    for seed in seeds(1) {
        for method in [libev::Method::Plain, libev::Method::XChaCha20Poly1305] {
            let (_, options) = Options::libev(method, false);
            let l = link(5, 0.0);
            let mut sim = Sim::empty("keep-alives", seed, l.clone(), l, &options);
            let mut cipher = libev_cipher(method, 77);
            let mut most = 0;
            let mut asked = 0;
            for n in 0..N {
                let body = opening(n + 1, b"\0\x03\0\x04");
                let datagram = seal(&mut *cipher, &body);
                asked += body.len() as u64;
                sim.inject(host(n), &datagram);
                most = most.max(sim.server.endpoint.sessions().count());
            }
            assert!(most <= Limits::default().unproven, "{most} sessions");
            sim.run_for(secs(12));
            assert_eq!(sim.server.endpoint.sessions().count(), 0);
            let proven = |e: &Event| matches!(e, Event::Proven(_));
            assert!(sim.server.times_of(proven).is_empty());
            let ends = ends_of(&sim.server);
            let unproven = |r: &Reason| matches!(r, Reason::Unproven(_) | Reason::Crowded);
            assert!(ends.len() == N as usize && ends.iter().all(unproven));
            let said = sim.server.endpoint.counters().out_bytes;
            assert!(said <= 3 * asked, "{said} bytes for {asked}");
        }
    }
}
