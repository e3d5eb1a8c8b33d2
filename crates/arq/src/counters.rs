//! What one conversation has counted. Names follow upstream's SNMP log (docs/spec/kcptun.md, section 14) in snake case.

/// Totals since the conversation began; they only grow. Those of bytes alone outlive a [`crate::Rest`].
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Counters {
    /// `BytesSent`: bytes given to [`crate::Kcp::send`].
    pub bytes_sent: u64,
    /// `BytesReceived`: bytes handed out by [`crate::Kcp::recv`] and its relatives.
    pub bytes_received: u64,
    /// `KCPInErrors`: datagrams that were refused, as a whole or from some segment on.
    pub kcp_in_errors: u64,
    /// `InSegs`: segments taken in, of every kind.
    pub in_segs: u64,
    /// `OutSegs`: segments written, of every kind, retransmissions included.
    pub out_segs: u64,
    /// `RetransSegs`: the sum of the three below, and of any other reason a strategy has; without copies.
    pub retrans_segs: u64,
    /// `FastRetransSegs`: retransmitted because `resend` later ones were acknowledged.
    pub fast_retrans_segs: u64,
    /// `EarlyRetransSegs`: retransmitted because some later one was acknowledged and nothing new could be sent.
    pub early_retrans_segs: u64,
    /// `LostSegs`: retransmitted because their time ran out.
    pub lost_segs: u64,
    /// Retransmitted because a strategy's clock said that they were lost ([`crate::control::Cause::Overdue`]). Not in upstream's log.
    pub overdue_segs: u64,
    /// Copies of segments that were sent beside them, to arrive when they do not. Not in upstream's log.
    pub copied_segs: u64,
    /// Payload bytes of these.
    pub copied_bytes: u64,
    /// Ranges in acknowledgements sent ([`crate::Kcp::send_ack_ranges`]). Not in upstream's log.
    pub out_ranges: u64,
    /// Probes of a silent path: segments that were sent again for their acknowledgement. Not in upstream's log.
    pub probed_segs: u64,
    /// `RepeatSegs`: data segments that had already arrived, in datagrams from the wire.
    pub repeat_segs: u64,
    /// Data segments beyond the receive window, ignored. Not in upstream's log.
    pub outside_segs: u64,
    /// Segments whose acknowledgement (`una`, or `sn` of an ACK) names what was never sent. Not in upstream's log.
    pub invalid_acks: u64,
    /// Flushes that wrote at least one datagram. Not in upstream's log.
    pub flushes: u64,
    /// Datagrams written. Not in upstream's log, which counts them behind FEC.
    pub out_datagrams: u64,
}

impl Counters {
    /// A copy of a segment with `len` bytes of payload was written.
    pub(crate) const fn copied(&mut self, len: usize) {
        self.out_segs += 1;
        self.copied_segs += 1;
        self.copied_bytes += len as u64;
    }
}
