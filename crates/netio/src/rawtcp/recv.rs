//! Datagrams out of packets.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use fulmar_wire::rawtcp::{self as wire, Flags, Segment};

use super::flow::Flow;
use super::{BATCH, Entry, RawTcp, SLOT};
use crate::counters::{Live, add};
use crate::run::{Ecn, RecvBuffers, RecvMeta};
use crate::sys;

/// How often in a row a call that brings nothing of use is repeated before the caller gets its turn back.
const MAX_ROUNDS: usize = 16;

/// What is known of a packet besides its bytes. With IPv4 the addresses are in the bytes.
#[derive(Copy, Clone, Default)]
#[cfg_attr(
    not(any(target_os = "linux", target_os = "android")),
    expect(dead_code, reason = "packet sockets are of Linux")
)]
pub(crate) struct Incoming {
    pub(crate) len: usize,
    pub(crate) truncated: bool,
    /// The sender; its port means nothing.
    pub(crate) src: Option<SocketAddr>,
    pub(crate) dst: Option<IpAddr>,
    pub(crate) class: u8,
    /// Packet sockets: the number of the device that it came by.
    pub(crate) device: u32,
    /// Packet sockets: its checksum has not been filled in yet.
    pub(crate) unsummed: bool,
}

impl RawTcp {
    /// Receives datagrams into `buffers` and describes them in the first of `metas`; returns how many
    /// runs. See [`crate::UdpState::recv`]: datagrams of one size and peer that come together are one run.
    ///
    /// At most as many datagrams are received as there are `metas`, and at most 32: give it 32.
    ///
    /// # Errors
    ///
    /// See [`crate::UdpState::recv`].
    pub fn recv(&self, buffers: &mut RecvBuffers, metas: &mut [RecvMeta]) -> io::Result<usize> {
        let counters = &self.shared.counters;
        let mut arrived = [Incoming::default(); BATCH];
        let Some(room) = buffers.offer().next() else {
            return Ok(0);
        };
        for _ in 0..MAX_ROUNDS {
            let most = metas.len().min(BATCH);
            let count =
                match self
                    .raw
                    .recv(room, arrived.get_mut(..most).unwrap_or_default(), counters)
                {
                    Ok(count) => count,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock || sys::is_fatal(&e) => {
                        return Err(e);
                    }
                    Err(_) => {
                        // What became of a segment that was sent from here.
                        add(&counters.recv_errors, 1);
                        continue;
                    }
                };
            let runs = self.sort(room, arrived.get(..count).unwrap_or_default(), metas);
            if runs > 0 {
                return Ok(runs);
            }
        }
        Ok(0)
    }

    /// Takes the datagrams out of the packets and makes runs of them; returns how many.
    fn sort(&self, room: &mut [u8], arrived: &[Incoming], metas: &mut [RecvMeta]) -> usize {
        let counters = &self.shared.counters;
        let now = Instant::now();
        let mut gather = Gather::new(metas);
        let mut flows = self.shared.flows();
        for (i, incoming) in arrived.iter().enumerate() {
            let slot = i * SLOT;
            let Some(packet) = room.get(slot..slot + incoming.len.min(SLOT)) else {
                break;
            };
            if incoming.truncated {
                add(&counters.recv_truncated, 1);
                continue;
            }
            let Some(found) = self.find(packet, incoming, &mut flows, now) else {
                continue;
            };
            gather.push(room, slot, &found);
        }
        drop(flows);
        gather.finish(counters)
    }

    /// The datagram in a packet, if it is one of ours.
    fn find(
        &self,
        packet: &[u8],
        incoming: &Incoming,
        flows: &mut HashMap<SocketAddr, Entry>,
        now: Instant,
    ) -> Option<Found> {
        let counters = &self.shared.counters;
        let parsed = Parsed::new(packet, incoming, self.raw.is_v6(), self.local.ip())
            .filter(|p| p.segment.dst_port() == self.local.port());
        let Some(Parsed {
            src,
            dst,
            class,
            at,
            segment,
        }) = parsed
        else {
            add(&counters.raw_malformed, 1);
            return None;
        };
        let header = segment.header();
        let payload = segment.payload();
        let Some(entry) = flows.get_mut(&src) else {
            add(&counters.raw_strangers, 1);
            return None;
        };
        // The ports of a peer may serve it for connections to several addresses of ours.
        if entry.local_ip != dst {
            add(&counters.raw_strangers, 1);
            return None;
        }
        if !segment.checksum_is_right(src.ip(), dst) {
            add(&counters.raw_bad_checksum, 1);
            return None;
        }
        if header.flags.has(Flags::RST) || header.flags.has(Flags::FIN) {
            if self.remote.is_some() && entry.flow.is_current(&header) {
                self.shared.reset.store(true, Relaxed);
            }
            return None;
        }
        if !header.flags.has(Flags::PSH) || header.flags.has(Flags::SYN) {
            return None;
        }
        if payload.is_empty() {
            add(&counters.recv_empty, 1);
            return None;
        }
        entry.flow.on_segment(&header, payload.len());
        entry.heard = now;
        entry.confirmed = true;
        if self.remote.is_some() {
            self.shared.reset.store(false, Relaxed);
        }
        Some(Found {
            src,
            dst,
            ecn: Ecn::from_bits(class),
            at,
            len: payload.len(),
        })
    }
}

/// Finds the server's answer of the handshake among the packets that have arrived.
pub(super) fn learn_handshake(raw: &sys::RawSocket, flow: &mut Flow, remote: SocketAddr) -> bool {
    let counters = Live::default();
    let mut room = vec![0; SLOT * BATCH];
    let mut arrived = [Incoming::default(); BATCH];
    loop {
        let count = match raw.recv(&mut room, &mut arrived, &counters) {
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return false,
        };
        for (packet, incoming) in room.chunks_exact(SLOT).zip(&arrived).take(count) {
            let packet = packet.get(..incoming.len).unwrap_or_default();
            let Some(parsed) = Parsed::new(packet, incoming, raw.is_v6(), remote.ip()) else {
                continue;
            };
            // Its checksum may not have been filled in, if it comes from this host. The kernel has looked at
            // the same packet and connected.
            let header = parsed.segment.header();
            if parsed.src == remote && header.flags.has(Flags::SYN.with(Flags::ACK)) {
                flow.on_segment(&header, 0);
                return true;
            }
        }
    }
}

/// A datagram in a packet.
pub(crate) struct Found {
    pub(crate) src: SocketAddr,
    pub(crate) dst: IpAddr,
    pub(crate) ecn: Option<Ecn>,
    /// Where in the packet.
    pub(crate) at: usize,
    pub(crate) len: usize,
}

/// Makes runs of datagrams that are found in packets side by side.
pub(crate) struct Gather<'a> {
    metas: &'a mut [RecvMeta],
    runs: usize,
    datagrams: usize,
    bytes: usize,
}

impl<'a> Gather<'a> {
    /// `metas`: one for each packet at most.
    pub(crate) fn new(metas: &'a mut [RecvMeta]) -> Self {
        Self {
            metas,
            runs: 0,
            datagrams: 0,
            bytes: 0,
        }
    }

    /// Adds the datagram that was found in the packet that begins at `slot` of `room`. In the order of the packets.
    pub(crate) fn push(&mut self, room: &mut [u8], slot: usize, found: &Found) {
        let (from, len) = (slot + found.at, found.len);
        self.datagrams += 1;
        self.bytes += len;

        // Behind the last run, if it is of the same peer and all of one length so far: there is always
        // room between it and this datagram, because the packets have headers.
        let last = self
            .runs
            .checked_sub(1)
            .and_then(|last| self.metas.get_mut(last))
            .filter(|last| {
                last.src == found.src
                    && last.dst_ip == Some(found.dst)
                    && last.ecn == found.ecn
                    && len <= last.segment
                    && last.len.is_multiple_of(last.segment)
            });
        if let Some(last) = last {
            room.copy_within(from..from + len, last.offset + last.len);
            last.len += len;
        } else if let Some(meta) = self.metas.get_mut(self.runs) {
            *meta = RecvMeta {
                src: found.src,
                dst_ip: Some(found.dst),
                ecn: found.ecn,
                len,
                segment: len,
                buffer: 0,
                offset: from,
            };
            self.runs += 1;
        }
    }

    /// Counts what was gathered; returns how many runs there are, in the first of the metas.
    pub(crate) fn finish(self, counters: &Live) -> usize {
        let coalesced = self
            .metas
            .iter()
            .take(self.runs)
            .filter(|m| m.len > m.segment)
            .count();
        add(&counters.recv_coalesced_runs, coalesced);
        add(&counters.recv_datagrams, self.datagrams);
        add(&counters.recv_bytes, self.bytes);
        self.runs
    }
}

/// A packet, taken apart.
struct Parsed<'a> {
    src: SocketAddr,
    dst: IpAddr,
    /// Traffic class.
    class: u8,
    /// Where in the packet the payload begins.
    at: usize,
    segment: Segment<'a>,
}

impl<'a> Parsed<'a> {
    /// `local` is our address, or a wildcard.
    fn new(packet: &'a [u8], incoming: &Incoming, v6: bool, local: IpAddr) -> Option<Self> {
        if v6 {
            let segment = Segment::parse(packet).ok()?;
            // With the scope, without which a link-local peer would not be found.
            let mut src = incoming.src?;
            src.set_port(segment.src_port());
            Some(Self {
                src,
                dst: incoming
                    .dst
                    .or(Some(local).filter(|ip| !ip.is_unspecified()))?,
                class: incoming.class,
                at: segment.header_len(),
                segment,
            })
        } else {
            let packet = wire::Ipv4::parse(packet).ok()?;
            let segment = Segment::parse(packet.payload).ok()?;
            Some(Self {
                src: (packet.src, segment.src_port()).into(),
                dst: IpAddr::V4(packet.dst),
                class: packet.tos,
                at: packet.header_len + segment.header_len(),
                segment,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn arbitrary_packets_never_panic(
            mut packet in proptest::collection::vec(any::<u8>(), 0..200),
            v6 in any::<bool>(),
            version in any::<bool>(),
        ) {
            // Half of them get as far as the TCP header.
            if let (true, Some(first), false) = (version, packet.first_mut(), v6) {
                *first = 0x45;
            }
            if let (true, Some(protocol)) = (version, packet.get_mut(9)) {
                *protocol = 6;
            }
            let incoming = Incoming {
                len: packet.len(),
                src: Some("[::1]:0".parse().expect("address")),
                dst: Some("::1".parse().expect("address")),
                ..Incoming::default()
            };
            let local = "::".parse().expect("address");
            if let Some(parsed) = Parsed::new(&packet, &incoming, v6, local) {
                let payload = parsed.segment.payload();
                prop_assert_eq!(packet.get(parsed.at..parsed.at + payload.len()), Some(payload));
            }
        }
    }
}
