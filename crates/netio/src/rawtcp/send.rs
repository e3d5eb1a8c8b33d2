//! Datagrams into segments.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use fulmar_wire::rawtcp::{self as wire, Flags, MAX_EMITTED_LEN};

use super::{BATCH, Entry, RawTcp};
use crate::counters::{Live, add};
use crate::run::{Sent, Transmit, Trouble};
use crate::sys;

/// A segment to send.
#[derive(Copy, Clone)]
pub(crate) struct Outgoing<'a> {
    pub(crate) header: [u8; MAX_EMITTED_LEN],
    pub(crate) header_len: usize,
    pub(crate) payload: &'a [u8],
}

impl Outgoing<'_> {
    const EMPTY: Self = Self {
        header: [0; MAX_EMITTED_LEN],
        header_len: 0,
        payload: &[],
    };
}

impl RawTcp {
    /// Sends a run, a segment for each datagram. See [`crate::UdpState::send`]; a peer without an accepted
    /// connection is [`Trouble::NoFlow`]. `src_ip` is not looked at: a flow has its address.
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
    /// See [`crate::UdpState::send`].
    pub fn send_many(&self, transmits: &[Transmit<'_>]) -> io::Result<Sent> {
        let counters = &self.shared.counters;
        let mut sent = Sent::default();
        let mut flows = self.shared.flows();
        let now = Instant::now();
        for transmit in transmits {
            let entry = flows
                .get_mut(&transmit.dst)
                .filter(|e| e.flow.position().is_some());
            let Some(entry) = entry else {
                let datagrams = transmit.datagrams();
                sent.give_up(Trouble::NoFlow, datagrams, counters);
                sent.runs += 1;
                continue;
            };
            if let Err(e) = self.send_run(entry, transmit, now, &mut sent) {
                if e.kind() != io::ErrorKind::WouldBlock || sent.datagrams + sent.lost == 0 {
                    return Err(e);
                }
                return Ok(sent);
            }
            sent.runs += 1;
            sent.bytes = 0;
        }
        Ok(sent)
    }

    /// Sends the datagrams of a run. An error ends the call: no room, or no socket.
    fn send_run(
        &self,
        entry: &mut Entry,
        transmit: &Transmit<'_>,
        now: Instant,
        sent: &mut Sent,
    ) -> io::Result<()> {
        let counters = &self.shared.counters;
        let (dst, src) = match self.remote {
            // Its socket is connected.
            Some(_) => (None, None),
            None => (
                Some(transmit.dst),
                self.local.ip().is_unspecified().then_some(entry.local_ip),
            ),
        };
        let mut again = false;
        loop {
            let rest = transmit.rest(sent.bytes);
            if rest.data.is_empty() {
                return Ok(());
            }
            let mut batch = [Outgoing::EMPTY; BATCH];
            let mut positions = [None; BATCH];
            let mut count = 0;
            for ((payload, outgoing), position) in rest.iter().zip(&mut batch).zip(&mut positions) {
                *position = entry.flow.position();
                let Some(header) = entry.flow.next_header(payload.len(), Flags::DATA, now) else {
                    break;
                };
                outgoing.header_len = header.emit(&mut outgoing.header);
                if let Some(header) = outgoing.header.get_mut(..outgoing.header_len) {
                    wire::seal(header, payload, entry.local_ip, transmit.dst.ip());
                }
                outgoing.payload = payload;
                count += 1;
            }
            let batch = batch.get(..count).unwrap_or_default();
            add(&counters.send_calls, 1);
            let (taken, error) = match self.raw.send(dst, src, transmit.ecn, batch) {
                Ok(taken) => (taken, None),
                Err(e) => (0, Some(e)),
            };
            let bytes: usize = batch.iter().take(taken).map(|s| s.payload.len()).sum();
            sent.datagrams += taken;
            sent.bytes += bytes;
            add(&counters.sent_datagrams, taken);
            add(&counters.sent_bytes, bytes);
            if let Some(&position) = positions.get(taken).filter(|_| taken < count) {
                entry.flow.unsend(position);
            }
            let Some(e) = error else {
                again = false;
                continue;
            };
            match e.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => {
                    add(&counters.send_would_block, 1);
                    return Err(e);
                }
                _ if sys::is_fatal(&e) => return Err(e),
                // A connected socket reports what became of an earlier segment in place of sending this one.
                io::ErrorKind::ConnectionRefused
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable
                    if !again =>
                {
                    again = true;
                }
                _ => {
                    again = false;
                    sent.bytes += batch.first().map_or(0, |s| s.payload.len());
                    sent.give_up(sys::trouble(&e), 1, counters);
                }
            }
        }
    }

    /// Tells whoever tracks the connection that it ends, with numbers that they believe.
    pub(super) fn say_goodbye(&self, peer: SocketAddr, entry: &mut Entry, now: Instant) {
        let Some(header) = entry.flow.next_header(0, Flags::FIN.with(Flags::ACK), now) else {
            return;
        };
        let mut outgoing = Outgoing::EMPTY;
        outgoing.header_len = header.emit(&mut outgoing.header);
        if let Some(header) = outgoing.header.get_mut(..outgoing.header_len) {
            wire::seal(header, &[], entry.local_ip, peer.ip());
        }
        let (dst, src) = match self.remote {
            Some(_) => (None, None),
            None => (
                Some(peer),
                self.local.ip().is_unspecified().then_some(entry.local_ip),
            ),
        };
        let _ = self.raw.send(dst, src, None, &[outgoing]);
    }
}

impl Sent {
    /// Counts datagrams as lost.
    pub(crate) fn give_up(&mut self, trouble: Trouble, datagrams: usize, counters: &Live) {
        counters.lost(trouble, datagrams);
        self.lost += datagrams;
        self.trouble = Some(trouble);
    }
}
