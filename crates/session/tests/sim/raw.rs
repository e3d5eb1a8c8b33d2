//! A client that keeps to KCP and the cipher and says whatever a test wants above it.

use std::net::SocketAddr;

use fulmar_arq::{Config, DatagramSink, Flush, Kcp, Origin};
use fulmar_cipher::{PacketCipher, Verdict};
use fulmar_netem::Direction;
use fulmar_wire::kcptun;
use fulmar_wire::kcptun2016::MAX_FRAGMENTS;
use fulmar_wire::smux::{Command, Features, Header, Hello, Version};
use fulmar_wire::time::Instant;

use crate::harness::{Sim, ms};
use crate::setup::Options;

/// See the module. It sends no parity.
pub(crate) struct Raw {
    pub(crate) kcp: Kcp,
    pub(crate) addr: SocketAddr,
    cipher: Box<dyn PacketCipher>,
    version: Version,
    /// Bytes of the stream that came back.
    pub(crate) heard: Vec<u8>,
}

/// Datagrams that a machine wrote.
#[derive(Default)]
pub(crate) struct Datagrams {
    pub(crate) done: Vec<Vec<u8>>,
    room: Vec<u8>,
}

impl DatagramSink for Datagrams {
    fn reserve(&mut self, max_len: usize) -> &mut [u8] {
        self.room.resize(max_len.max(self.room.len()), 0);
        &mut self.room
    }

    fn commit(&mut self, len: usize) {
        self.done.push(self.room[..len].to_vec());
    }
}

/// Puts the cipher's bytes around a body.
pub(crate) fn seal(cipher: &mut dyn PacketCipher, body: &[u8]) -> Vec<u8> {
    let overhead = cipher.overhead();
    let mut datagram = vec![0; overhead.front];
    datagram.extend_from_slice(body);
    datagram.resize(datagram.len() + overhead.back, 0);
    cipher.seal(&mut datagram, 0);
    datagram
}

/// The body of a datagram that opens.
pub(crate) fn open(cipher: &mut dyn PacketCipher, datagram: &[u8]) -> Option<Vec<u8>> {
    let mut copy = datagram.to_vec();
    let mut verdicts = Vec::new();
    cipher.open(&mut copy, 0, &mut verdicts);
    let overhead = cipher.overhead();
    (verdicts == [Verdict::Ok]).then(|| copy[overhead.front..copy.len() - overhead.back].to_vec())
}

/// The segments behind an FEC header, if there is one.
fn segments(body: &[u8]) -> Option<&[u8]> {
    match body.get(4..6)? {
        [0xf1, 0] => body.get(8..),
        [0xf2 | 0xf3, 0] => None,
        _ => Some(body),
    }
}

impl Raw {
    pub(crate) fn new(options: &Options, addr: SocketAddr, conv: u32) -> Self {
        let config = Config {
            mtu: kcptun::kcp_mtu(options.method, false, options.mtu).expect("an MTU"),
            profile: options.profile,
            snd_wnd: 2048,
            rcv_wnd: 2048,
            max_fragments: if options.is_first() { MAX_FRAGMENTS } else { 0 },
            ..Config::default()
        };
        Self {
            kcp: Kcp::new(conv, config),
            addr,
            cipher: options.cipher(options.method, u64::from(conv)),
            version: if options.smux == 1 {
                Version::V1
            } else {
                Version::V2
            },
            heard: Vec::new(),
        }
    }

    /// Says bytes on the conversation's stream, one message where there are messages.
    pub(crate) fn say(&mut self, bytes: &[u8]) {
        self.kcp.send(bytes);
        self.kcp.end_message();
    }

    /// A frame, with whatever payload and length.
    pub(crate) fn frame(&mut self, command: Command, stream: u32, len: u16, payload: &[u8]) {
        let header = Header {
            version: self.version,
            command,
            len,
            stream,
        };
        self.say(&header.to_bytes());
        self.say(payload);
    }

    /// The first frame of a Fulmar.
    pub(crate) fn hello(&mut self) {
        let hello = Hello {
            features: Features::HALF_CLOSE,
        };
        let header = hello.header(self.version).to_bytes();
        self.say(&header);
    }

    /// The next datagrams, sealed.
    pub(crate) fn datagrams(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut out = Datagrams::default();
        self.kcp.flush(now, Flush::Full, &mut out);
        let cipher = &mut *self.cipher;
        out.done.iter().map(|body| seal(cipher, body)).collect()
    }

    /// Takes what arrived, sends what is due.
    pub(crate) fn turn(&mut self, sim: &mut Sim) {
        let strays = std::mem::take(&mut sim.strays);
        for stray in strays {
            if stray.to != self.addr {
                sim.strays.push(stray);
                continue;
            }
            if let Some(body) = open(&mut *self.cipher, &stray.data)
                && let Some(segments) = segments(&body)
            {
                let _ = self.kcp.handle_datagram(sim.now, segments, Origin::Wire);
            }
        }
        while let Some(bytes) = self.kcp.recv(<[u8]>::to_vec) {
            self.heard.extend_from_slice(&bytes);
        }
        let (now, addr) = (sim.now, self.addr);
        for datagram in self.datagrams(now) {
            sim.net
                .send(now, Direction::Up, addr, sim.server.addr, &datagram);
        }
    }

    /// Lets 10 ms pass, `n` times.
    pub(crate) fn live(&mut self, sim: &mut Sim, n: usize) {
        for _ in 0..n {
            self.turn(sim);
            sim.run_for(ms(10));
        }
    }
}
