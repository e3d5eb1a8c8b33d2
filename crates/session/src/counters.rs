//! Every counter of an endpoint, defined once.
//!
//! The SNMP log, the signal dump, status and tests read the same [`Counters`]. The first block has
//! upstream's names and meanings (spec/kcptun.md, section 13.2); the second is ours; the third is no total but what one
//! session in mode auto has measured and decided. An endpoint owns plain integers; whoever shows them takes a copy.

macro_rules! counters {
    (
        upstream { $($(#[$um:meta])* $uf:ident = $uname:literal,)* }
        ours { $($(#[$om:meta])* $of:ident = $oname:literal,)* }
        path { $($(#[$pm:meta])* $pf:ident = $pname:literal,)* }
    ) => {
        /// Totals of one endpoint, or of several added up.
        #[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$um])* pub $uf: u64,)*
            $($(#[$om])* pub $of: u64,)*
            $($(#[$pm])* pub $pf: u64,)*
        }

        impl Counters {
            /// Number of counters, of both blocks.
            pub const LEN: usize = Self::NAMES.len();

            /// Names in the order of [`Counters::values`]: upstream's first, in the order of the SNMP log.
            pub const NAMES: &'static [&'static str] = &[$($uname,)* $($oname,)* $($pname,)*];

            /// Number of upstream's counters, the columns of the SNMP log after the time.
            pub const UPSTREAM: usize = [$($uname),*].len();

            /// Where in [`Counters::values`] stands what is no total: what one sender has measured and decided.
            const PATH: usize = Self::UPSTREAM + [$($oname),*].len();

            /// All values, in the order of [`Counters::NAMES`].
            #[must_use]
            pub const fn values(&self) -> [u64; Self::LEN] {
                [$(self.$uf,)* $(self.$of,)* $(self.$pf,)*]
            }

            /// The counters whose [`Counters::values`] these are.
            #[must_use]
            pub const fn from_values(values: &[u64; Self::LEN]) -> Self {
                let [$($uf,)* $($of,)* $($pf,)*] = *values;
                Self { $($uf,)* $($of,)* $($pf,)* }
            }
        }
    };
}

counters! {
    upstream {
        /// Bytes that the layer above wrote to KCP.
        bytes_sent = "BytesSent",
        /// Bytes that the layer above read from KCP.
        bytes_received = "BytesReceived",
        /// Most sessions at one time.
        max_conn = "MaxConn",
        /// Sessions that we opened.
        active_opens = "ActiveOpens",
        /// Sessions that peers opened.
        passive_opens = "PassiveOpens",
        /// Sessions that exist now.
        curr_estab = "CurrEstab",
        /// Datagrams of the wrong conversation or source.
        in_errs = "InErrs",
        /// Datagrams whose CRC or tag did not fit: another key or cipher, or damage.
        in_csum_errors = "InCsumErrors",
        /// Datagrams that opened but that KCP rejected.
        kcp_in_errors = "KCPInErrors",
        /// Datagrams that opened.
        in_pkts = "InPkts",
        /// Datagrams sent, parity included.
        out_pkts = "OutPkts",
        /// KCP segments received.
        in_segs = "InSegs",
        /// KCP segments sent.
        out_segs = "OutSegs",
        /// Bytes received after the crypto header.
        in_bytes = "InBytes",
        /// Bytes of UDP payload sent.
        out_bytes = "OutBytes",
        /// Segments sent again, for whatever reason.
        retrans_segs = "RetransSegs",
        /// Segments sent again because later ones were acknowledged.
        fast_retrans_segs = "FastRetransSegs",
        /// The same, early because nothing new was there to send.
        early_retrans_segs = "EarlyRetransSegs",
        /// Segments sent again after their timeout.
        lost_segs = "LostSegs",
        /// Segments that arrived a second time.
        repeat_segs = "RepeatSegs",
        /// FEC groups that arrived complete.
        fec_full_shards = "FECFullShards",
        /// Parity packets received.
        fec_parity_shards = "FECParityShards",
        /// FEC groups that could not be rebuilt.
        fec_errs = "FECErrs",
        /// Packets rebuilt from parity.
        fec_recovered = "FECRecovered",
        /// FEC groups held now.
        fec_shard_set = "FECShardSet",
        /// Number of the newest FEC group.
        fec_shard_min = "FECShardMin",
        /// Segments waiting for the window, of the session that flushed last.
        ring_buffer_snd_queue = "RingBufferSndQueue",
        /// Segments waiting to be read, of the session that flushed last.
        ring_buffer_rcv_queue = "RingBufferRcvQueue",
        /// Segments in flight, of the session that flushed last.
        ring_buffer_snd_buffer = "RingBufferSndBuffer",
        /// Out-of-band packets received and ignored.
        oob_packets = "OOBPackets",
    }
    ours {
        /// Datagrams too short for their headers.
        short_datagrams = "ShortDatagrams",
        /// Datagrams from strangers that open no session.
        stranger_datagrams = "StrangerDatagrams",
        /// Datagrams of our own that somebody sent back to us.
        reflected_datagrams = "ReflectedDatagrams",
        /// Sessions that the other end cut, or did not know.
        resets_received = "ResetsReceived",
        /// Sessions refused because their conversation was used before: a replay.
        refused_replays = "RefusedReplays",
        /// Sessions refused because too many unproven ones exist, in all or from one address.
        refused_sessions = "RefusedSessions",
        /// Sessions that ended before they carried a valid stream.
        unproven_sessions = "UnprovenSessions",
        /// Sessions that ended because the peer sent frames that lie.
        misbehaved_sessions = "MisbehavedSessions",
        /// Sessions that ended because the peer fell silent.
        silent_sessions = "SilentSessions",
        /// Sessions that ended because the peer had lost their state.
        restarted_peers = "RestartedPeers",
        /// Times that a session followed its peer to another address.
        moved_peers = "MovedPeers",
        /// Datagrams that arrived at another driver than their session's, and were handed over.
        handovers = "Handovers",
        /// The same, dropped because the other driver did not keep up.
        handovers_lost = "HandoversLost",
        /// Streams opened, by us or by peers.
        streams_opened = "StreamsOpened",
        /// Streams that ended by a reset.
        streams_reset = "StreamsReset",
        /// Segments of sparse flows, or lost before, that were sent once more beside the first.
        copied_segs = "CopiedSegs",
        /// Ranges in acknowledgements sent, between two Fulmar ends in mode auto.
        ack_ranges = "AckRanges",
        /// Segments sent again to find out whether the path is alive.
        probed_segs = "ProbedSegs",
        /// Mode auto: bytes sent that are neither parity nor copies.
        auto_own_bytes = "AutoOwnBytes",
        /// Mode auto: bytes of parity.
        auto_parity_bytes = "AutoParityBytes",
        /// Mode auto: payload bytes of copies.
        auto_copy_bytes = "AutoCopyBytes",
        /// Probes of the size of datagrams.
        size_probes = "SizeProbes",
        /// Times that datagrams of a size stopped passing.
        black_holes = "BlackHoles",
    }
    path {
        /// Bytes of UDP payload that a datagram may have now, of the session that flushed last (as all that follows).
        path_datagram_size = "PathDatagramSize",
        /// Bytes per second that the path delivers.
        path_bandwidth = "PathBandwidth",
        /// Bytes per second at which data leaves.
        path_pacing_rate = "PathPacingRate",
        /// Shortest round trip of late, microseconds.
        path_min_rtt_us = "PathMinRttUs",
        /// Smoothed round trip, microseconds.
        path_srtt_us = "PathSrttUs",
        /// Segments that may be in flight.
        path_flight_limit = "PathFlightLimit",
        /// Losses in a million packets.
        path_loss_ppm = "PathLossPpm",
        /// 1 while there is more to send than the path takes.
        path_network_limited = "PathNetworkLimited",
        /// Shape of parity now: 1000 times its data packets and its parity packets; 0: none.
        auto_parity_shape = "AutoParityShape",
        /// Copies that segments of sparse flows get now.
        auto_copies = "AutoCopies",
    }
}

impl Counters {
    /// Adds `other` to `self`; [`Counters::max_conn`] becomes the greater, and what is said of a path is that of the
    /// one with the greater [`Counters::path_bandwidth`].
    pub fn add(&mut self, other: &Self) {
        let max_conn = self.max_conn.max(other.max_conn);
        let (mut sum, values) = (self.values(), other.values());
        for (a, b) in sum.iter_mut().zip(values).take(Self::PATH) {
            *a = a.wrapping_add(b);
        }
        let order = |c: &Self| (c.path_bandwidth, c.path_datagram_size);
        if order(other) > order(self) {
            sum[Self::PATH..].copy_from_slice(&values[Self::PATH..]);
        }
        *self = Self::from_values(&sum);
        self.max_conn = max_conn;
    }

    /// Totals stay, nothing is said of a path any more: its sessions are gone.
    pub fn forget_path(&mut self) {
        let mut values = self.values();
        values[Self::PATH..].fill(0);
        *self = Self::from_values(&values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_has_upstreams_columns() {
        // spec/kcptun.md, section 13.1
        let header = "BytesSent,BytesReceived,MaxConn,ActiveOpens,PassiveOpens,CurrEstab,InErrs,InCsumErrors,\
            KCPInErrors,InPkts,OutPkts,InSegs,OutSegs,InBytes,OutBytes,RetransSegs,FastRetransSegs,EarlyRetransSegs,\
            LostSegs,RepeatSegs,FECFullShards,FECParityShards,FECErrs,FECRecovered,FECShardSet,FECShardMin,\
            RingBufferSndQueue,RingBufferRcvQueue,RingBufferSndBuffer,OOBPackets";
        assert_eq!(Counters::NAMES[..Counters::UPSTREAM].join(","), header);
    }

    #[test]
    fn values_round_trip_and_add() {
        let mut values = [0; Counters::LEN];
        for (i, v) in values.iter_mut().enumerate() {
            *v = i as u64 + 1;
        }
        let one = Counters::from_values(&values);
        assert_eq!(one.values(), values);
        let mut two = one;
        two.add(&one);
        assert_eq!(two.bytes_sent, 2);
        assert_eq!(two.max_conn, one.max_conn);
        assert_eq!(two.auto_copy_bytes, 2 * one.auto_copy_bytes);
        assert_eq!(two.values()[Counters::PATH..], values[Counters::PATH..]);
        let mut faster = one;
        (faster.path_bandwidth, faster.path_srtt_us) = (u64::MAX, 3);
        two.add(&faster);
        assert_eq!(
            two.values()[Counters::PATH..],
            faster.values()[Counters::PATH..]
        );
        two.forget_path();
        assert!(two.values()[Counters::PATH..].iter().all(|v| *v == 0));
        assert_eq!(two.bytes_sent, 3);
    }
}
