//! Datagrams into packets.

use std::io;
use std::net::SocketAddr;

use fulmar_wire::libev_obfs::Frame;
use fulmar_wire::rawtcp::Header;

use super::table::{Context, Table, key};
use super::{Obfs, Shared};
use crate::counters::add;
use crate::rawtcp::BATCH;
use crate::run::{Ecn, Sent, Transmit, Trouble};
use crate::sys::{self, Whole};

impl Obfs {
    /// Sends a run, a segment for each datagram. See [`crate::UdpState::send`]; a peer of whom nothing was captured
    /// yet is [`Trouble::NoFlow`]. `src_ip` is not looked at: a context has its address. Without `ecn` packets say that
    /// they are capable of it, as docs/spec/kcptun-libev.md, section 13.3 wants.
    ///
    /// Not ready means that [`Obfs::send_readiness`] is to be waited for.
    ///
    /// # Errors
    ///
    /// See [`crate::UdpState::send`].
    pub fn send(&self, transmit: &Transmit<'_>) -> io::Result<Sent> {
        self.send_many(std::slice::from_ref(transmit))
    }

    /// Sends runs of any sizes to any peers, in their order.
    ///
    /// # Errors
    ///
    /// See [`Obfs::send`].
    pub fn send_many(&self, transmits: &[Transmit<'_>]) -> io::Result<Sent> {
        let shared = &*self.shared;
        let mut sent = Sent::default();
        let mut table = shared.table();
        for transmit in transmits {
            let peer = key(transmit.dst, 0);
            if table.get(&peer).is_some_and(|c| c.flow.is_open()) {
                if let Err(e) = shared.send_run(&mut table, peer, transmit, &mut sent) {
                    if e.kind() != io::ErrorKind::WouldBlock || sent.datagrams + sent.lost == 0 {
                        return Err(e);
                    }
                    return Ok(sent);
                }
            } else {
                sent.give_up(Trouble::NoFlow, transmit.datagrams(), &shared.counters);
            }
            sent.runs += 1;
            sent.bytes = 0;
        }
        Ok(sent)
    }
}

impl Shared {
    /// Sends the datagrams of a run. An error ends the call: no room, or no socket.
    fn send_run(
        &self,
        table: &mut Table,
        peer: SocketAddr,
        transmit: &Transmit<'_>,
        sent: &mut Sent,
    ) -> io::Result<()> {
        let counters = &self.counters;
        let class = self.dscp << 2 | transmit.ecn.unwrap_or(Ecn::Ect0).bits();
        loop {
            let rest = transmit.rest(sent.bytes);
            if rest.data.is_empty() {
                return Ok(());
            }
            let mut batch = [Whole::EMPTY; BATCH];
            let mut before = [None; BATCH];
            let mut count = 0;
            let mut id = table.random();
            let Some(context) = table.get_mut(&peer) else {
                return Ok(());
            };
            for ((payload, whole), before) in rest.iter().zip(&mut batch).zip(&mut before) {
                *before = Some(context.flow);
                let Some(header) = context.flow.next_header(payload.len()) else {
                    break;
                };
                id = id.wrapping_mul(0x915f_77f5).wrapping_add(1);
                let frame = frame(peer, context, id, class, header);
                whole.header_len = frame.emit(payload, &mut whole.header);
                whole.payload = payload;
                count += 1;
            }
            let batch = batch.get(..count).unwrap_or_default();
            // What is no packet at all would not even be refused.
            let whole = batch.iter().take_while(|w| w.header_len != 0).count();
            add(&counters.send_calls, 1);
            let (taken, error) = if whole == 0 {
                (0, Some(Trouble::TooLong))
            } else {
                match self
                    .injector
                    .send(peer, batch.get(..whole).unwrap_or_default())
                {
                    Ok(taken) => (taken, None),
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => (0, None),
                    Err(e) => {
                        if let Some(Some(before)) = before.first() {
                            context.flow = *before;
                        }
                        if e.kind() == io::ErrorKind::WouldBlock {
                            add(&counters.send_would_block, 1);
                            return Err(e);
                        }
                        if sys::is_fatal(&e) {
                            return Err(e);
                        }
                        (0, Some(sys::trouble(&e)))
                    }
                }
            };
            if let Some(Some(before)) = before.get(taken).filter(|_| taken < count) {
                context.flow = *before;
            }
            let bytes: usize = batch.iter().take(taken).map(|s| s.payload.len()).sum();
            context.tx += bytes as u64;
            sent.datagrams += taken;
            sent.bytes += bytes;
            add(&counters.sent_datagrams, taken);
            add(&counters.sent_bytes, bytes);
            if let Some(trouble) = error {
                sent.bytes += batch.first().map_or(0, |s| s.payload.len());
                sent.give_up(trouble, 1, counters);
            }
        }
    }

    /// Sends a segment without a datagram.
    pub(super) fn inject(
        &self,
        peer: SocketAddr,
        context: &Context,
        id: u32,
        header: &Header,
    ) -> io::Result<usize> {
        let class = self.dscp << 2 | Ecn::Ect0.bits();
        let mut whole = Whole::EMPTY;
        whole.header_len = frame(peer, context, id, class, *header).emit(&[], &mut whole.header);
        self.injector.send(peer, &[whole])
    }
}

fn frame(peer: SocketAddr, context: &Context, id: u32, class: u8, tcp: Header) -> Frame {
    Frame {
        src: context.local.ip(),
        dst: peer.ip(),
        class,
        // The kernel would choose another for 0.
        id: ((id >> 16) as u16).max(1),
        label: context.label.unwrap_or(0),
        tcp,
    }
}
