//! Datagrams out of captured packets.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use fulmar_wire::libev_obfs::{Packet, is_text};
use fulmar_wire::rawtcp::{Flags, Header};
use fulmar_wire::seq::Seq;

use super::flow::{ECE, Flow};
use super::table::{Context, Table, key};
use super::{Obfs, ObfsKind, Shared};
use crate::counters::add;
use crate::rawtcp::{BATCH, Found, Gather, Incoming, SLOT};
use crate::run::{Ecn, RecvBuffers, RecvMeta};
use crate::sys;

/// How often in a row a call that brings nothing of use is repeated before the caller gets its turn back.
const MAX_ROUNDS: usize = 16;

impl Obfs {
    /// Receives datagrams into `buffers` and describes them in the first of `metas`; returns how many runs. See
    /// [`crate::RawTcp::recv`]. Answers the first segments of new peers (`dpi/tcp`), too, so it has to be called even
    /// when no datagram is expected.
    ///
    /// # Errors
    ///
    /// See [`crate::UdpState::recv`].
    pub fn recv(&self, buffers: &mut RecvBuffers, metas: &mut [RecvMeta]) -> io::Result<usize> {
        let shared = &*self.shared;
        let counters = &shared.counters;
        let mut arrived = [Incoming::default(); BATCH];
        let Some(room) = buffers.offer().next() else {
            return Ok(0);
        };
        for _ in 0..MAX_ROUNDS {
            let most = metas.len().min(BATCH);
            let arrived = arrived.get_mut(..most).unwrap_or_default();
            let count = match shared.capture.recv(room, arrived, counters) {
                Ok(count) => count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock || sys::is_fatal(&e) => {
                    return Err(e);
                }
                Err(_) => {
                    // Such as a device that went down.
                    add(&counters.recv_errors, 1);
                    continue;
                }
            };
            let arrived = arrived.get(..count).unwrap_or_default();
            let runs = shared.sort(room, arrived, metas);
            if runs > 0 {
                return Ok(runs);
            }
        }
        Ok(0)
    }
}

impl Shared {
    /// Takes the datagrams out of the packets and makes runs of them; returns how many.
    fn sort(&self, room: &mut [u8], arrived: &[Incoming], metas: &mut [RecvMeta]) -> usize {
        let counters = &self.counters;
        let now = Instant::now();
        let mut gather = Gather::new(metas);
        let mut table = self.table();
        if self.is_server {
            table.expire(now, self.idle_timeout);
        }
        for (i, incoming) in arrived.iter().enumerate() {
            let slot = i * SLOT;
            let Some(packet) = room.get(slot..slot + incoming.len.min(SLOT)) else {
                break;
            };
            if incoming.truncated {
                add(&counters.recv_truncated, 1);
                continue;
            }
            if let Some(found) = self.find(packet, incoming, &mut table, now) {
                gather.push(room, slot, &found);
            }
        }
        drop(table);
        gather.finish(counters)
    }

    /// The datagram in a packet, if it is one of ours (docs/spec/kcptun-libev.md, section 13.2).
    fn find(
        &self,
        bytes: &[u8],
        incoming: &Incoming,
        table: &mut Table,
        now: Instant,
    ) -> Option<Found> {
        let counters = &self.counters;
        let Ok(packet) = Packet::parse(bytes) else {
            add(&counters.raw_malformed, 1);
            return None;
        };
        let src = key(packet.src, incoming.device);
        let header = packet.segment.header();
        let is_first = self.kind == ObfsKind::Tcp
            && self.is_server
            && header.flags.has(Flags::SYN)
            && !header.flags.has(Flags::ACK);
        let known = table.get(&src).is_some_and(|c| {
            c.local.ip() == packet.dst.ip() && c.local.port() == packet.dst.port()
        });
        if !known && !is_first {
            add(&counters.raw_strangers, 1);
            return None;
        }
        if !incoming.unsummed
            && !packet.checksum_is_right()
            && !src.ip().is_loopback()
            && !self.accept_bad_checksums.load(Relaxed)
        {
            add(&counters.raw_bad_checksum, 1);
            return None;
        }
        if is_first {
            self.answer_first(&packet, src, &header, incoming.device, table, now);
            return None;
        }
        let id = table.random();
        let context = table.get_mut(&src)?;
        let payload = packet.segment.payload();
        let was_open = context.flow.is_open();
        if self.kind == ObfsKind::Tcp {
            if header.flags.has(Flags::RST) {
                return None;
            }
            if header.flags.has(Flags::SYN) {
                if !self.is_server
                    && header.flags.has(Flags::ACK)
                    && context.flow.on_answer(&header)
                {
                    context.label.get_or_insert(packet.label);
                    context.heard = now;
                    if !was_open {
                        context.created = now;
                        table.ready = true;
                        table.totals.connected += 1;
                    }
                }
                return None;
            }
            // The answer to our first segment may be lost; a server that speaks has seen it, though.
            if !was_open && header.ack != context.flow.first().seq.next() {
                return None;
            }
        }
        context.flow.on_segment(&header, payload.len());
        if !context.flow.is_open() {
            return None;
        }
        context.label.get_or_insert(packet.label);
        if let Some(announcement) = context.flow.announcement(&header, payload.len()) {
            // It is said again when there is no room for it.
            let _ = self.inject(src, context, id, &announcement);
        }
        let ecn = Ecn::from_bits(packet.class);
        if ecn == Some(Ecn::Ce) {
            context.ecn += 1;
            context.flow.on_congestion();
        }
        context.ece += u64::from(header.flags.has(ECE));
        if self.kind == ObfsKind::TcpWnd
            && (!header.flags.has(Flags::PSH)
                || header.flags.has(Flags::SYN)
                || header.flags.has(Flags::RST)
                || is_text(payload))
        {
            return None;
        }
        if payload.is_empty() {
            return None;
        }
        context.heard = now;
        context.rx += payload.len() as u64;
        if !was_open && !self.is_server && self.kind == ObfsKind::Tcp {
            context.created = now;
            table.ready = true;
            table.totals.connected += 1;
        }
        Some(Found {
            src,
            dst: packet.dst.ip(),
            ecn,
            at: packet.at,
            len: payload.len(),
        })
    }

    /// `dpi/tcp`: answers the first segment of a client.
    fn answer_first(
        &self,
        packet: &Packet<'_>,
        peer: std::net::SocketAddr,
        header: &Header,
        device: u32,
        table: &mut Table,
        now: Instant,
    ) {
        let local = packet.dst;
        let theirs = header.seq;
        let known = table
            .get(&peer)
            .map(|c| (c.local == local, c.theirs == theirs.0, c.is_authenticated()));
        let first = Seq(table.random());
        let flow = Flow::answering(local.port(), peer.port(), first, theirs);
        match known {
            // It has not heard our answer.
            Some((true, true, _)) => {}
            // Anyone can send this in a peer's name: it changes numbers that nobody looks at, and nothing else.
            Some((true, false, _)) => {
                if let Some(context) = table.get_mut(&peer) {
                    context.flow = flow;
                    context.theirs = theirs.0;
                }
            }
            // The same peer, to another address of ours.
            Some((false, _, true)) => {
                table.totals.refused += 1;
                return;
            }
            Some((false, _, false)) | None => {
                if self.local.ip().is_unspecified() && !table.is_ours(local.ip(), device)
                    || known.is_none() && !table.make_room(self.max_contexts)
                {
                    return;
                }
                let mut context = Context::new(flow, local, now);
                context.label = Some(packet.label);
                context.theirs = theirs.0;
                table.insert(peer, context);
            }
        }
        let id = table.random();
        if let Some(context) = table.get(&peer) {
            let answer = context.flow.answer(theirs);
            // When there is no room for it, the client will ask again.
            let _ = self.inject(peer, context, id, &answer);
        }
    }
}
