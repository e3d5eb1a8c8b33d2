//! What a session writes: datagrams of the ARQ, given their FEC header, padded, and followed by their parity.

use std::collections::VecDeque;

use fulmar_arq::{DatagramSink, Kcp};
use fulmar_cipher::PacketCipher;
use fulmar_fec as fec;
use fulmar_wire::fec::HEADER_LEN as FEC_HEADER_LEN;
use fulmar_wire::kcp::HEADER_LEN;
use fulmar_wire::libev::MAX_PADDING;
use fulmar_wire::time::Instant;

use super::Session;
use crate::addresses::Allowance;
use crate::measuring::Measuring;
use crate::pacer::{self, Pacer};
use crate::transmit::{BufferPool, MAX_SEGMENTS, Run, RunWriter, Written};

/// Datagrams of one flush, before it lets other sessions go on: some runs full.
const FLUSH_DATAGRAMS: u64 = 4 * MAX_SEGMENTS as u64;

/// Where datagrams of a session go, sealed, and how many may.
pub(crate) struct Outlet<'a> {
    pub(crate) cipher: &'a mut dyn PacketCipher,
    pub(crate) pool: &'a mut BufferPool,
    pub(crate) out: &'a mut VecDeque<Run>,
    /// What may go to the address; what was written has been taken from it.
    pub(crate) credit: &'a mut Allowance,
}

/// Puts a few bytes behind datagrams that are not full, before they are sealed (docs/spec/kcptun-libev.md, section 4.3): as many
/// as their value says, 0 to 15, so that lengths tell less. Receivers ignore what is too short for a segment.
#[derive(Copy, Clone, Debug)]
pub(super) struct Padding(pub(super) u64);

impl Padding {
    /// How many bytes go behind `len`, where `most` may be.
    const fn draw(&mut self, len: usize, most: usize) -> usize {
        let room = most.saturating_sub(len);
        if room == 0 {
            return 0;
        }
        // Xorshift: what it hides is no secret.
        let mut x = self.0 | 1;
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0 = x;
        let room = if room < MAX_PADDING {
            room
        } else {
            MAX_PADDING
        };
        ((x >> 32) % (room as u64 + 1)) as usize
    }
}

impl Session {
    /// Writes what `what` has to say into runs.
    pub(super) fn write(
        &mut self,
        now: Instant,
        outlet: &mut Outlet<'_>,
        what: impl FnOnce(&mut Kcp, &mut Sink<'_>),
    ) -> Written {
        let flush_datagrams = self.pacer.as_ref().map_or(0, Pacer::flush_datagrams);
        let (queue, segments, limit) = match &mut self.pacer {
            Some(pacer) => (pacer.queue(), pacer::RUN_SEGMENTS, flush_datagrams),
            None => (&mut *outlet.out, MAX_SEGMENTS, FLUSH_DATAGRAMS),
        };
        let mut sink = Sink {
            writer: RunWriter::new(queue, outlet.pool, outlet.cipher, self.path, segments),
            encoder: self.encoder.as_deref_mut(),
            padding: self.padding.as_mut(),
            full: self.kcp.mss() + HEADER_LEN,
            now,
            limit,
            bytes: outlet.credit.bytes,
            measuring: self.measuring.as_deref(),
            parity: 0,
        };
        what(&mut self.kcp, &mut sink);
        let parity = sink.parity;
        let written = sink.writer.finish();
        outlet.credit.spend(written.bytes);
        if let Some(measuring) = &mut self.measuring {
            measuring.after_flush(&self.kcp, written, parity);
        }
        if written.datagrams > 0 {
            self.traces.sent(now);
        }
        written
    }
}

/// Datagrams from the ARQ, given their FEC header and followed by their parity.
pub(super) struct Sink<'a> {
    writer: RunWriter<'a>,
    encoder: Option<&'a mut fec::Encoder>,
    padding: Option<&'a mut Padding>,
    /// Bytes of a full datagram.
    full: usize,
    now: Instant,
    /// Datagrams of one flush.
    limit: u64,
    /// Bytes of UDP payload that may leave.
    bytes: u64,
    /// Who keeps the budget.
    measuring: Option<&'a Measuring>,
    /// Bytes of parity written.
    parity: u64,
}

impl Sink<'_> {
    /// Bytes that the next body may have.
    #[inline]
    fn room_for_body(&self) -> usize {
        if self.bytes == u64::MAX {
            return usize::MAX;
        }
        let left = self.bytes.saturating_sub(self.writer.written().bytes);
        let header = if self.encoder.is_some() {
            FEC_HEADER_LEN
        } else {
            0
        };
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        left.saturating_sub(self.writer.overhead() + header)
    }
}

impl DatagramSink for Sink<'_> {
    fn room(&self) -> usize {
        usize::try_from(self.limit.saturating_sub(self.writer.written().datagrams))
            .unwrap_or(usize::MAX)
    }

    fn reserve(&mut self, max_len: usize) -> &mut [u8] {
        // A shorter room is none for what is longer.
        let allowed = self.room_for_body();
        if self.encoder.is_some() {
            let body = &mut self.writer.reserve(max_len + FEC_HEADER_LEN)[FEC_HEADER_LEN..];
            &mut body[..max_len.min(allowed)]
        } else if self.padding.is_some() {
            &mut self.writer.reserve(max_len + MAX_PADDING)[..(max_len + MAX_PADDING).min(allowed)]
        } else {
            &mut self.writer.reserve(max_len)[..max_len.min(allowed)]
        }
    }

    fn commit_probe(&mut self, len: usize) {
        let Some(encoder) = &mut self.encoder else {
            return self.writer.commit_probe(len);
        };
        let len = len + FEC_HEADER_LEN;
        encoder.push(self.now, self.writer.reserved(len));
        // Rebuilt from parity it would be answered, although it did not pass.
        encoder.withhold();
        self.writer.commit_probe(len);
    }

    fn commit(&mut self, len: usize) {
        let allowed = self.room_for_body();
        let Some(encoder) = &mut self.encoder else {
            let padded = match &mut self.padding {
                Some(padding) => {
                    let n = padding.draw(len, self.full.min(allowed));
                    self.writer.reserved(len + n)[len..].fill(n as u8);
                    len + n
                }
                None => len,
            };
            self.writer.commit(padded);
            return;
        };
        let len = len + FEC_HEADER_LEN;
        let parity = encoder.push(self.now, self.writer.reserved(len));
        self.writer.commit(len);
        let parity_len = encoder.parity_len();
        let all = parity * parity_len;
        // What is not sent, receivers bear.
        let so_far = usize::try_from(self.parity).unwrap_or(usize::MAX);
        let sealed = (all + parity * self.writer.overhead()) as u64;
        let allowed = self
            .measuring
            .is_none_or(|m| m.allows(so_far.saturating_add(all)))
            && self.writer.written().bytes.saturating_add(sealed) <= self.bytes;
        if parity > 0 && allowed {
            self.parity += all as u64;
            if self.writer.fits_one_run(parity, parity_len) {
                self.writer
                    .append_equal(parity, parity_len, |out, stride, offset| {
                        encoder.emit_parity(out, stride, offset);
                    });
            } else {
                // Only with some fifty parity shards or more.
                let mut all = vec![0; parity * parity_len];
                encoder.emit_parity(&mut all, parity_len, 0);
                for packet in all.chunks(parity_len) {
                    self.writer.reserve(parity_len).copy_from_slice(packet);
                    self.writer.commit(parity_len);
                }
            }
        }
    }
}
