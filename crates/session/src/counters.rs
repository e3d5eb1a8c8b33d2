//! Every counter of an endpoint, defined once.
//!
//! The SNMP log, the signal dump, status and tests read the same [`Counters`]. The first block has
//! upstream's names and meanings (docs/spec/kcptun.md, section 14.2); the second is ours; the third is no total but what one
//! session in mode auto has measured and decided. An endpoint owns plain integers; whoever shows them takes a copy.

/// Whether a value only grows.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A total: it only grows, from 0 at the start of the process.
    Counter,
    /// A state, which goes up and down.
    Gauge,
}

/// What one of the [`Counters`] is, for those who show it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Its field, in snake case.
    pub name: &'static str,
    /// What it counts: the field's documentation. Begins with a space, as the source has it.
    help: &'static str,
    /// Whether it only grows.
    pub kind: Kind,
}

impl About {
    /// What it counts, one sentence or two on one line.
    #[must_use]
    pub fn help(&self) -> &'static str {
        self.help.trim()
    }
}

macro_rules! counters {
    (
        upstream { $($(#[doc = $um:literal])+ $uk:ident $uf:ident = $uname:literal,)* }
        ours { $($(#[doc = $om:literal])+ $ok:ident $of:ident = $oname:literal,)* }
        path { $($(#[doc = $pm:literal])+ $pk:ident $pf:ident = $pname:literal,)* }
    ) => {
        /// Totals of one endpoint, or of several added up.
        #[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[doc = $um])+ pub $uf: u64,)*
            $($(#[doc = $om])+ pub $of: u64,)*
            $($(#[doc = $pm])+ pub $pf: u64,)*
        }

        impl Counters {
            /// Number of counters, of both blocks.
            pub const LEN: usize = Self::NAMES.len();

            /// Names in the order of [`Counters::values`]: upstream's first, in the order of the SNMP log.
            pub const NAMES: &'static [&'static str] = &[$($uname,)* $($oname,)* $($pname,)*];

            /// What each is, in the same order.
            pub const ABOUT: &'static [About] = &[
                $(About { name: stringify!($uf), help: concat!($($um),+), kind: Kind::$uk },)*
                $(About { name: stringify!($of), help: concat!($($om),+), kind: Kind::$ok },)*
                $(About { name: stringify!($pf), help: concat!($($pm),+), kind: Kind::$pk },)*
            ];

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
        Counter bytes_sent = "BytesSent",
        /// Bytes that the layer above read from KCP.
        Counter bytes_received = "BytesReceived",
        /// Most sessions at one time.
        Gauge max_conn = "MaxConn",
        /// Sessions that we opened.
        Counter active_opens = "ActiveOpens",
        /// Sessions that peers opened.
        Counter passive_opens = "PassiveOpens",
        /// Sessions that exist now.
        Gauge curr_estab = "CurrEstab",
        /// Datagrams of the wrong conversation or source.
        Counter in_errs = "InErrs",
        /// Datagrams whose CRC or tag did not fit: another key or cipher, or damage.
        Counter in_csum_errors = "InCsumErrors",
        /// Datagrams that opened but that KCP rejected.
        Counter kcp_in_errors = "KCPInErrors",
        /// Datagrams that opened.
        Counter in_pkts = "InPkts",
        /// Datagrams sent, parity included.
        Counter out_pkts = "OutPkts",
        /// KCP segments received.
        Counter in_segs = "InSegs",
        /// KCP segments sent.
        Counter out_segs = "OutSegs",
        /// Bytes received after the crypto header.
        Counter in_bytes = "InBytes",
        /// Bytes of UDP payload sent.
        Counter out_bytes = "OutBytes",
        /// Segments sent again, for whatever reason.
        Counter retrans_segs = "RetransSegs",
        /// Segments sent again because later ones were acknowledged.
        Counter fast_retrans_segs = "FastRetransSegs",
        /// The same, early because nothing new was there to send.
        Counter early_retrans_segs = "EarlyRetransSegs",
        /// Segments sent again after their timeout.
        Counter lost_segs = "LostSegs",
        /// Segments that arrived a second time.
        Counter repeat_segs = "RepeatSegs",
        /// FEC groups that arrived complete.
        Counter fec_full_shards = "FECFullShards",
        /// Parity packets received.
        Counter fec_parity_shards = "FECParityShards",
        /// FEC groups that could not be rebuilt.
        Counter fec_errs = "FECErrs",
        /// Packets rebuilt from parity.
        Counter fec_recovered = "FECRecovered",
        /// FEC groups held now.
        Gauge fec_shard_set = "FECShardSet",
        /// Number of the newest FEC group.
        Gauge fec_shard_min = "FECShardMin",
        /// Segments waiting for the window, of the session that flushed last.
        Gauge ring_buffer_snd_queue = "RingBufferSndQueue",
        /// Segments waiting to be read, of the session that flushed last.
        Gauge ring_buffer_rcv_queue = "RingBufferRcvQueue",
        /// Segments in flight, of the session that flushed last.
        Gauge ring_buffer_snd_buffer = "RingBufferSndBuffer",
        /// Out-of-band packets received and ignored.
        Counter oob_packets = "OOBPackets",
    }
    ours {
        /// Datagrams too short for their headers.
        Counter short_datagrams = "ShortDatagrams",
        /// Datagrams from strangers that open no session.
        Counter stranger_datagrams = "StrangerDatagrams",
        /// Datagrams of our own that somebody sent back to us.
        Counter reflected_datagrams = "ReflectedDatagrams",
        /// Sessions that the other end cut, or did not know.
        Counter resets_received = "ResetsReceived",
        /// Fulmar peers that were told that they still use a session that has ended here.
        Counter ended_told = "EndedTold",
        /// Sessions that ended because the peer told us so.
        Counter ended_by_peer = "EndedByPeer",
        /// Sessions refused because their conversation was used before: a replay.
        Counter refused_replays = "RefusedReplays",
        /// Sessions refused because too many unproven ones exist, in all or from one address.
        Counter refused_sessions = "RefusedSessions",
        /// Sessions that ended before they carried a valid stream.
        Counter unproven_sessions = "UnprovenSessions",
        /// Sessions that ended because the peer sent frames that lie.
        Counter misbehaved_sessions = "MisbehavedSessions",
        /// Sessions that ended because the peer fell silent.
        Counter silent_sessions = "SilentSessions",
        /// Sessions that ended because the peer had lost their state.
        Counter restarted_peers = "RestartedPeers",
        /// Times that a session followed its peer to another address.
        Counter moved_peers = "MovedPeers",
        /// Sessions at rest, of which only numbers are kept.
        Gauge stub_sessions = "StubSessions",
        /// Times that a session at rest became whole again, because of its peer or to say something.
        Counter woken_stubs = "WokenStubs",
        /// Sessions without streams that ended because there were too many.
        Counter crowded_sessions = "CrowdedSessions",
        /// Times that a stream got no room for sending, because of what all of them hold.
        Counter send_limited = "SendLimited",
        /// Times that a session got less receive window than it has, because of what all of them hold.
        Counter receive_limited = "ReceiveLimited",
        /// Times that an address was asked whether a peer has moved there.
        Counter asked_moves = "AskedMoves",
        /// Times that it had not, or nobody there has answered.
        Counter declined_moves = "DeclinedMoves",
        /// Addresses that were shown to be their peer's, by the echo of a time that was sent nowhere else.
        Counter validated_addresses = "ValidatedAddresses",
        /// Times that a session had more to send than may go to an address that is not validated.
        Counter credit_waits = "CreditWaits",
        /// Segments sent again to addresses that are not validated, beyond what they may get otherwise.
        Counter credit_repeats = "CreditRepeats",
        /// Addresses that were forgotten too early, because there were too many.
        Counter forgotten_addresses = "ForgottenAddresses",
        /// Datagrams that arrived at another driver than their session's, and were handed over.
        Counter handovers = "Handovers",
        /// The same, dropped because the other driver did not keep up.
        Counter handovers_lost = "HandoversLost",
        /// Streams opened, by us or by peers.
        Counter streams_opened = "StreamsOpened",
        /// Streams that ended by a reset.
        Counter streams_reset = "StreamsReset",
        /// Copies sent of segments of sparse flows, and of segments that were lost before.
        Counter copied_segs = "CopiedSegs",
        /// Ranges in acknowledgements sent, between two Fulmar ends in mode auto.
        Counter ack_ranges = "AckRanges",
        /// Segments sent again to find out whether the path is alive.
        Counter probed_segs = "ProbedSegs",
        /// Mode auto: bytes sent that are neither parity nor copies.
        Counter auto_own_bytes = "AutoOwnBytes",
        /// Mode auto: bytes of parity.
        Counter auto_parity_bytes = "AutoParityBytes",
        /// Mode auto: payload bytes of copies.
        Counter auto_copy_bytes = "AutoCopyBytes",
        /// Probes of the size of datagrams.
        Counter size_probes = "SizeProbes",
        /// Times that datagrams of a size stopped passing.
        Counter black_holes = "BlackHoles",
    }
    path {
        /// Bytes of UDP payload that a datagram may have now, of the session that flushed last (as all that follows).
        Gauge path_datagram_size = "PathDatagramSize",
        /// Bytes per second that the path delivers.
        Gauge path_bandwidth = "PathBandwidth",
        /// Bytes per second at which data leaves.
        Gauge path_pacing_rate = "PathPacingRate",
        /// Shortest round trip, microseconds: in mode auto of late, in others since the session began and in whole milliseconds.
        Gauge path_min_rtt_us = "PathMinRttUs",
        /// Smoothed round trip, microseconds; in whole milliseconds except in mode auto.
        Gauge path_srtt_us = "PathSrttUs",
        /// Segments that may be in flight.
        Gauge path_flight_limit = "PathFlightLimit",
        /// Losses in a million packets; except in mode auto, segments that were sent again in a million sent.
        Gauge path_loss_ppm = "PathLossPpm",
        /// 1 while there is more to send than the path takes.
        Gauge path_network_limited = "PathNetworkLimited",
        /// Shape of parity now: 1000 times its data packets and its parity packets; 0: none.
        Gauge auto_parity_shape = "AutoParityShape",
        /// Copies that segments of sparse flows get now.
        Gauge auto_copies = "AutoCopies",
    }
}

impl Counters {
    /// Adds `other` to `self`; [`Counters::max_conn`] becomes the greater, and what is said of a path is that of the
    /// one with the greater [`Counters::path_bandwidth`], or, where that is not known, the longer round trip.
    pub fn add(&mut self, other: &Self) {
        let max_conn = self.max_conn.max(other.max_conn);
        let (mut sum, values) = (self.values(), other.values());
        for (a, b) in sum.iter_mut().zip(values).take(Self::PATH) {
            *a = a.wrapping_add(b);
        }
        let order = |c: &Self| (c.path_bandwidth, c.path_datagram_size, c.path_srtt_us);
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
        // docs/spec/kcptun.md, section 14.1
        let header = "BytesSent,BytesReceived,MaxConn,ActiveOpens,PassiveOpens,CurrEstab,InErrs,InCsumErrors,\
            KCPInErrors,InPkts,OutPkts,InSegs,OutSegs,InBytes,OutBytes,RetransSegs,FastRetransSegs,EarlyRetransSegs,\
            LostSegs,RepeatSegs,FECFullShards,FECParityShards,FECErrs,FECRecovered,FECShardSet,FECShardMin,\
            RingBufferSndQueue,RingBufferRcvQueue,RingBufferSndBuffer,OOBPackets";
        assert_eq!(Counters::NAMES[..Counters::UPSTREAM].join(","), header);
    }

    #[test]
    fn each_is_described() {
        assert_eq!(Counters::ABOUT.len(), Counters::LEN);
        let of = |name| {
            let found = Counters::ABOUT.iter().find(|about| about.name == name);
            found.expect("described")
        };
        assert_eq!(of("in_pkts").help(), "Datagrams that opened.");
        assert_eq!(of("in_pkts").kind, Kind::Counter);
        assert_eq!(of("curr_estab").kind, Kind::Gauge);
        for about in &Counters::ABOUT[Counters::PATH..] {
            assert_eq!(about.kind, Kind::Gauge, "{}", about.name);
        }
        for about in Counters::ABOUT {
            assert!(!about.help().is_empty() && !about.help().contains('\n'));
        }
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
