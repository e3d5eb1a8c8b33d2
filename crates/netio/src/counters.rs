//! What happened on a socket, for the operator.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use portable_atomic::AtomicU64;

use crate::run::Trouble;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A snapshot of the counters of one socket. All of them only ever grow, except the flag.
        #[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
        #[non_exhaustive]
        pub struct IoCounters {
            $($(#[$doc])* pub $name: u64,)*
            /// Whether segmentation offload is off for this socket, for some or all runs, because the kernel
            /// refused it lately or because it was switched off.
            pub segmentation_off: bool,
        }

        /// The counters while they are being written.
        #[derive(Default, Debug)]
        pub(crate) struct Live {
            $(pub(crate) $name: AtomicU64,)*
            pub(crate) segmentation_off: AtomicBool,
        }

        impl Live {
            pub(crate) fn snapshot(&self) -> IoCounters {
                IoCounters {
                    $($name: self.$name.load(Relaxed),)*
                    segmentation_off: self.segmentation_off.load(Relaxed),
                }
            }
        }
    };
}

counters! {
    /// System calls that send.
    send_calls,
    /// Datagrams that the kernel took.
    sent_datagrams,
    /// Bytes of them, without headers of UDP and IP.
    sent_bytes,
    /// Runs of more than one datagram that the kernel took whole.
    sent_segmented_runs,
    /// Times the kernel refused to segment a run, which then left datagram by datagram.
    segmentation_refused,
    /// Times the wanted source address was refused and the system chose one.
    source_refused,
    /// Times the socket reported what became of an earlier datagram in place of sending one, which was offered again.
    send_errors,
    /// Times the socket had no room.
    send_would_block,
    /// Datagrams given up on: too long for the path.
    lost_too_long,
    /// Datagrams given up on: a port refused.
    lost_refused,
    /// Datagrams given up on: no route.
    lost_unreachable,
    /// Datagrams given up on: no buffers.
    lost_no_buffers,
    /// Datagrams given up on: forbidden on this host.
    lost_not_permitted,
    /// Datagrams given up on: raw TCP without a connection of that peer.
    lost_no_flow,
    /// Datagrams given up on: any other error.
    lost_other,
    /// System calls that receive.
    recv_calls,
    /// ICMP errors about datagrams that were sent, at a socket that watches for them.
    icmp_errors,
    /// Datagrams received.
    recv_datagrams,
    /// Bytes of them, without headers of UDP and IP.
    recv_bytes,
    /// Runs of more than one datagram that came in one piece.
    recv_coalesced_runs,
    /// Datagrams, or pieces of a run, that did not fit into the buffer.
    recv_truncated,
    /// Datagrams without a byte.
    recv_empty,
    /// Errors that the socket reported instead of a datagram, such as a refused port.
    recv_errors,
    /// Datagrams that the kernel dropped because nobody took them out of the receive buffer in time.
    recv_overflows,
    /// Raw TCP: segments that are no TCP of ours or are cut short.
    raw_malformed,
    /// Raw TCP: segments with a wrong checksum.
    raw_bad_checksum,
    /// Raw TCP: segments of peers without an accepted connection.
    raw_strangers,
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Relaxed);
}

impl Live {
    /// Counts `datagrams` that were given up on.
    pub(crate) fn lost(&self, trouble: Trouble, datagrams: usize) {
        let counter = match trouble {
            Trouble::TooLong => &self.lost_too_long,
            Trouble::Refused => &self.lost_refused,
            Trouble::Unreachable => &self.lost_unreachable,
            Trouble::NoBuffers => &self.lost_no_buffers,
            Trouble::NotPermitted => &self.lost_not_permitted,
            Trouble::NoFlow => &self.lost_no_flow,
            Trouble::Other(_) => &self.lost_other,
        };
        add(counter, datagrams);
    }
}
