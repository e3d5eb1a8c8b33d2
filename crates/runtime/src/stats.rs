//! Counters of the whole process.
//!
//! Each driver owns plain integers and publishes a copy after a turn in which something happened; whoever shows
//! totals adds the copies up. What a driver counted stays in the totals when it ends.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use fulmar_session::Counters;
use fulmar_wire::time::Instant;
use tokio::sync::{mpsc, oneshot};

use crate::describe::{self, Description, Questions};
use portable_atomic::AtomicU64;

/// The copy of one driver.
#[derive(Debug)]
pub(crate) struct Published {
    values: [AtomicU64; Counters::LEN],
    /// When something that opened last arrived, in microseconds of its clock; 0: never.
    heard: AtomicU64,
    /// Sessions that this driver has added to those of the process.
    sessions: AtomicU64,
    all: Arc<Sessions>,
    /// To ask it for its sessions.
    line: mpsc::Sender<oneshot::Sender<Description>>,
}

impl Published {
    fn new(all: Arc<Sessions>, line: mpsc::Sender<oneshot::Sender<Description>>) -> Self {
        Self {
            values: std::array::from_fn(|_| AtomicU64::new(0)),
            heard: AtomicU64::new(0),
            sessions: AtomicU64::new(0),
            all,
            line,
        }
    }

    /// Publishes `counters`.
    pub(crate) fn store(&self, now: Instant, counters: &Counters) {
        if self.load().in_pkts != counters.in_pkts {
            self.heard.store(now.as_micros(), Relaxed);
        }
        for (to, value) in self.values.iter().zip(counters.values()) {
            to.store(value, Relaxed);
        }
        self.count_sessions(counters.curr_estab);
    }

    fn count_sessions(&self, now: u64) {
        let before = self.sessions.swap(now, Relaxed);
        if before != now {
            self.all.change(before, now);
        }
    }

    fn load(&self) -> Counters {
        Counters::from_values(&std::array::from_fn(|i| self.values[i].load(Relaxed)))
    }
}

/// Sessions of the process, now and at most: several drivers need not have theirs at the same time.
#[derive(Debug, Default)]
struct Sessions {
    now: AtomicU64,
    most: AtomicU64,
}

impl Sessions {
    fn change(&self, before: u64, now: u64) {
        let difference = now.wrapping_sub(before);
        let sum = self
            .now
            .fetch_add(difference, Relaxed)
            .wrapping_add(difference);
        self.most.fetch_max(sum, Relaxed);
    }
}

#[derive(Debug, Default)]
struct Inner {
    live: Vec<Arc<Published>>,
    ended: Counters,
    /// When something that opened last arrived at a driver that has ended.
    heard: u64,
    sessions: Arc<Sessions>,
}

/// All drivers of the process.
#[derive(Clone, Debug, Default)]
pub struct Hub(Arc<Mutex<Inner>>);

impl Hub {
    /// A place for a driver to publish to, and what it is asked.
    pub(crate) fn register(&self) -> (Arc<Published>, Questions) {
        let (line, questions) = mpsc::channel(describe::LINE);
        let mut inner = self.lock();
        let published = Arc::new(Published::new(Arc::clone(&inner.sessions), line));
        inner.live.push(Arc::clone(&published));
        (published, questions)
    }

    /// The lines to all drivers that run now.
    pub(crate) fn lines(&self) -> Vec<mpsc::Sender<oneshot::Sender<Description>>> {
        self.lock().live.iter().map(|p| p.line.clone()).collect()
    }

    /// A driver has ended: its sessions are gone, what it counted stays.
    pub(crate) fn retire(&self, published: &Arc<Published>) {
        let mut inner = self.lock();
        inner.live.retain(|p| !Arc::ptr_eq(p, published));
        published.count_sessions(0);
        let mut last = published.load();
        last.curr_estab = 0;
        last.fec_shard_set = 0;
        last.forget_path();
        inner.heard = inner.heard.max(published.heard.load(Relaxed));
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
        sum.max_conn = sum.max_conn.max(inner.sessions.most.load(Relaxed));
        sum
    }

    /// When something that opened last arrived, by the clock of the drivers.
    #[must_use]
    pub fn last_heard(&self) -> Option<Instant> {
        let inner = self.lock();
        let heard = inner.live.iter().map(|p| p.heard.load(Relaxed));
        let heard = heard.max().unwrap_or(0).max(inner.heard);
        Some(heard).filter(|at| *at > 0).map(Instant::from_micros)
    }

    /// The counters of each driver that runs now, in the order in which they began.
    #[must_use]
    pub fn drivers(&self) -> Vec<Counters> {
        self.lock().live.iter().map(|p| p.load()).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The line that upstream writes on SIGUSR1 (docs/spec/kcptun.md, section 14.3).
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

/// Our own counters, those that are not 0, and with mode auto what the sender has decided. After [`dump`].
#[must_use]
pub fn dump_own(counters: &Counters) -> String {
    let own = Counters::NAMES
        .iter()
        .zip(counters.values())
        .skip(Counters::UPSTREAM)
        .filter(|(_, value)| *value > 0)
        .map(|(name, value)| format!("{name}:{value}"));
    format!("Fulmar:{{{}}}", own.collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_ended_driver_counted_stays() {
        let hub = Hub::default();
        let ((a, _a), (b, _b)) = (hub.register(), hub.register());
        a.store(
            Instant::from_millis(3),
            &Counters {
                in_pkts: 5,
                curr_estab: 2,
                ..Counters::default()
            },
        );
        b.store(
            Instant::ZERO,
            &Counters {
                in_pkts: 7,
                curr_estab: 1,
                ..Counters::default()
            },
        );
        assert_eq!((hub.totals().in_pkts, hub.totals().curr_estab), (12, 3));
        let heard = hub.last_heard();
        assert!(heard.is_some());
        hub.retire(&a);
        assert_eq!((hub.totals().in_pkts, hub.totals().curr_estab), (12, 1));
        hub.retire(&b);
        assert_eq!(hub.last_heard(), heard, "a session that ended was proof");
    }

    #[test]
    fn most_sessions_are_those_of_all_drivers_at_one_time() {
        let hub = Hub::default();
        let ((a, _a), (b, _b)) = (hub.register(), hub.register());
        let sessions = |now, most| Counters {
            curr_estab: now,
            max_conn: most,
            ..Counters::default()
        };
        a.store(Instant::ZERO, &sessions(3, 3));
        b.store(Instant::ZERO, &sessions(2, 2));
        assert_eq!(hub.totals().max_conn, 5);
        // One leaves; what the other has had by then was not had together with it.
        hub.retire(&a);
        b.store(Instant::ZERO, &sessions(4, 4));
        assert_eq!((hub.totals().curr_estab, hub.totals().max_conn), (4, 5));
        b.store(Instant::ZERO, &sessions(6, 6));
        assert_eq!(hub.totals().max_conn, 6);
        assert_eq!(hub.drivers(), [sessions(6, 6)]);
        // Between two copies more may have been there.
        b.store(Instant::ZERO, &sessions(1, 9));
        assert_eq!((hub.totals().curr_estab, hub.totals().max_conn), (1, 9));
    }

    #[test]
    fn our_own_counters_follow_when_they_have_something_to_say() {
        let text = dump_own(&Counters {
            bytes_sent: 3,
            streams_opened: 7,
            path_loss_ppm: 50_000,
            ..Counters::default()
        });
        assert_eq!(text, "Fulmar:{StreamsOpened:7 PathLossPpm:50000}");
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
