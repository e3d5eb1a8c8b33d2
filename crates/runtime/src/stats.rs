//! Counters of the whole process.
//!
//! Each driver owns plain integers and publishes a copy after a turn in which something happened; whoever shows
//! totals adds the copies up. What a driver counted stays in the totals when it ends.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use fulmar_session::Counters;

/// The copy of one driver.
#[derive(Debug)]
pub(crate) struct Published([AtomicU64; Counters::LEN]);

impl Published {
    fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    /// Publishes `counters`.
    pub(crate) fn store(&self, counters: &Counters) {
        for (to, value) in self.0.iter().zip(counters.values()) {
            to.store(value, Relaxed);
        }
    }

    fn load(&self) -> Counters {
        Counters::from_values(&std::array::from_fn(|i| self.0[i].load(Relaxed)))
    }
}

#[derive(Debug, Default)]
struct Inner {
    live: Vec<Arc<Published>>,
    ended: Counters,
}

/// All drivers of the process.
#[derive(Clone, Debug, Default)]
pub struct Hub(Arc<Mutex<Inner>>);

impl Hub {
    /// A place for a driver to publish to.
    pub(crate) fn register(&self) -> Arc<Published> {
        let published = Arc::new(Published::new());
        self.lock().live.push(Arc::clone(&published));
        published
    }

    /// A driver has ended: its sessions are gone, what it counted stays.
    pub(crate) fn retire(&self, published: &Arc<Published>) {
        let mut inner = self.lock();
        inner.live.retain(|p| !Arc::ptr_eq(p, published));
        let mut last = published.load();
        last.curr_estab = 0;
        last.fec_shard_set = 0;
        inner.ended.add(&last);
    }

    /// Totals of the process.
    #[must_use]
    pub fn totals(&self) -> Counters {
        let inner = self.lock();
        let mut sum = inner.ended;
        for published in &inner.live {
            sum.add(&published.load());
        }
        sum
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The line that upstream writes on SIGUSR1 (spec/kcptun.md, section 13.3).
#[must_use]
pub fn dump(counters: &Counters) -> String {
    let all: Vec<_> = Counters::NAMES
        .iter()
        .copied()
        .zip(counters.values())
        .take(Counters::UPSTREAM)
        .collect();
    let at = |name: &str| all.iter().position(|(n, _)| *n == name).unwrap_or(0);
    // Declaration order there: the log's order up to RepeatSegs, then another one.
    let tail = [
        ("FECFullShardSet", "FECFullShards"),
        ("FECRecovered", "FECRecovered"),
        ("FECErrs", "FECErrs"),
        ("FECParityShards", "FECParityShards"),
        ("FECShardSet", "FECShardSet"),
        ("FECShardMin", "FECShardMin"),
        ("RingBufferSndQueue", "RingBufferSndQueue"),
        ("RingBufferRcvQueue", "RingBufferRcvQueue"),
        ("RingBufferSndBuffer", "RingBufferSndBuffer"),
        ("OOBPackets", "OOBPackets"),
    ];
    let head = all
        .iter()
        .take(at("RepeatSegs") + 1)
        .map(|(n, v)| format!("{n}:{v}"));
    let tail = tail
        .iter()
        .map(|(shown, name)| format!("{shown}:{}", all[at(name)].1));
    format!(
        "KCP SNMP:&{{{}}}",
        head.chain(tail).collect::<Vec<_>>().join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_ended_driver_counted_stays() {
        let hub = Hub::default();
        let (a, b) = (hub.register(), hub.register());
        a.store(&Counters {
            in_pkts: 5,
            curr_estab: 2,
            ..Counters::default()
        });
        b.store(&Counters {
            in_pkts: 7,
            curr_estab: 1,
            ..Counters::default()
        });
        assert_eq!((hub.totals().in_pkts, hub.totals().curr_estab), (12, 3));
        hub.retire(&a);
        assert_eq!((hub.totals().in_pkts, hub.totals().curr_estab), (12, 1));
    }

    #[test]
    fn the_dump_has_upstreams_order() {
        let text = dump(&Counters {
            bytes_sent: 3,
            fec_full_shards: 9,
            oob_packets: 4,
            ..Counters::default()
        });
        assert!(text.starts_with("KCP SNMP:&{BytesSent:3 BytesReceived:0 MaxConn:0 "));
        assert!(text.ends_with(
            "RepeatSegs:0 FECFullShardSet:9 FECRecovered:0 FECErrs:0 FECParityShards:0 FECShardSet:0 FECShardMin:0 \
             RingBufferSndQueue:0 RingBufferRcvQueue:0 RingBufferSndBuffer:0 OOBPackets:4}"
        ));
    }
}
