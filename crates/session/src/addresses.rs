//! What may be sent to an address before it is known that the peer is there.
//!
//! The source of a datagram can be forged. Who forges it must not be able to send much to others by that: until an address is
//! *validated*, at most three times what came from there goes there (RFC 9000, section 8), and a few repeats. It is validated by an
//! acknowledgement from there that echoes the exact time of a segment that was sent nowhere else ([`fulmar_arq::Kcp::take_echo`]).
//!
//! An address belongs to a service: all its sessions, drivers and ports share what is known ([`Addresses`] is cheap to clone). Once an
//! address is validated its sessions know it themselves and ask no more, but for telling once a minute that they are still there. So
//! the lock is taken for newcomers only.
//!
//! Both memories are bounded, because an outsider can bring any number of addresses. Strangers are forgotten in the order in which
//! they came: to have one forgotten, so that its address gets repeats anew, takes more datagrams than these. Of validated addresses that are
//! forgotten, the next session takes one more round trip to begin.

use core::time::Duration;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fulmar_wire::time::Instant;

/// Bytes that may go to an address for each that came from there, before it is validated.
pub const FACTOR: u64 = 3;
/// Repeats that an address gets beside that, for all its sessions together: a peer whose answer got lost may wait in silence.
pub const REPEATS: u8 = 10;
/// Most bytes of a repeat, UDP payload.
pub const REPEAT_BYTES: usize = 320;
/// Payload bytes of a new segment for an address that is not validated: any segment may have to be a repeat, which then has no more than
/// [`REPEAT_BYTES`] with the headers of every dialect.
pub const SEGMENT: usize = 256;
/// An address that was not heard for so long is a stranger's.
pub const REMEMBERED_FOR: Duration = Duration::from_secs(300);
/// How often a session tells that its address is still heard.
pub(crate) const REFRESH_EVERY: Duration = Duration::from_secs(60);
/// Addresses that are not validated, at most (about 150 bytes each).
pub const MOST_STRANGERS: usize = 16_384;
/// Validated addresses, at most (about 120 bytes each); as many as sessions.
pub const MOST_VALIDATED: usize = 65_536;
/// Addresses of those that would be forgotten next that are spared in a row because they were heard since.
const SPARED: usize = 8;

/// What is known of the addresses of a service. See the module.
#[derive(Clone, Debug, Default)]
pub struct Addresses(Arc<Mutex<Table>>);

#[derive(Debug)]
struct Table {
    strangers: Recent<Stranger>,
    validated: Recent<()>,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            strangers: Recent::new(MOST_STRANGERS),
            validated: Recent::new(MOST_VALIDATED),
        }
    }
}

/// An address that is not validated.
#[derive(Copy, Clone, Debug)]
struct Stranger {
    /// Bytes of UDP payload that may still go there.
    credit: u64,
    repeats: u8,
}

/// What may be sent to an address now.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Allowance {
    /// Bytes of UDP payload.
    pub(crate) bytes: u64,
    /// Repeats of at most [`REPEAT_BYTES`] beyond that.
    pub(crate) repeats: u8,
}

impl Allowance {
    /// For peers that are where they seem to be.
    pub(crate) const UNLIMITED: Self = Self {
        bytes: u64::MAX,
        repeats: 0,
    };
    /// One repeat.
    pub(crate) const ONE_REPEAT: Self = Self {
        bytes: REPEAT_BYTES as u64,
        repeats: 0,
    };

    pub(crate) const fn is_limited(&self) -> bool {
        self.bytes != u64::MAX
    }

    /// So many bytes have been used.
    pub(crate) const fn spend(&mut self, bytes: u64) {
        if self.is_limited() {
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }
}

impl Addresses {
    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing that panics is done under it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the peer at `addr` has been shown to be there.
    pub(crate) fn is_validated(&self, now: Instant, addr: SocketAddr) -> bool {
        self.lock().validated.get(now, addr).is_some()
    }

    /// A datagram of `bytes` has come from `addr`, which was not known to be validated. Whether another address was forgotten for it.
    pub(crate) fn heard(&self, now: Instant, addr: SocketAddr, bytes: usize) -> bool {
        let mut table = self.lock();
        if table.validated.refresh(now, addr) {
            return false;
        }
        let credit = FACTOR * bytes as u64;
        table.strangers.refresh(now, addr);
        match table.strangers.get(now, addr) {
            Some(stranger) => {
                stranger.credit = stranger.credit.saturating_add(credit);
                false
            }
            None => {
                let repeats = REPEATS;
                let stranger = Stranger { credit, repeats };
                table.strangers.insert(now, addr, stranger)
            }
        }
    }

    /// Takes all that may be sent to `addr` now; what is left of it is to be [given back](Self::give_back). `None`: it is validated, there is
    /// no limit.
    pub(crate) fn take(&self, now: Instant, addr: SocketAddr) -> Option<Allowance> {
        let mut table = self.lock();
        if table.validated.get(now, addr).is_some() {
            return None;
        }
        let nothing = Allowance {
            bytes: 0,
            repeats: 0,
        };
        let stranger = table.strangers.get(now, addr);
        Some(stranger.map_or(nothing, |s| Allowance {
            bytes: std::mem::take(&mut s.credit),
            repeats: std::mem::take(&mut s.repeats),
        }))
    }

    /// What is left of what was taken.
    pub(crate) fn give_back(&self, now: Instant, addr: SocketAddr, left: Allowance) {
        if let Some(stranger) = self.lock().strangers.get(now, addr) {
            stranger.credit = stranger.credit.saturating_add(left.bytes);
            stranger.repeats = stranger.repeats.saturating_add(left.repeats).min(REPEATS);
        }
    }

    /// The peer is at `addr`, or still there. Whether another address was forgotten for it.
    pub fn validate(&self, now: Instant, addr: SocketAddr) -> bool {
        let mut table = self.lock();
        table.strangers.remove(addr);
        !table.validated.refresh(now, addr) && table.validated.insert(now, addr, ())
    }
}

/// Values of addresses that were heard lately, in a bounded number.
#[derive(Debug)]
struct Recent<V> {
    entries: HashMap<SocketAddr, Entry<V>>,
    /// In the order in which they would be forgotten, each with its [`Entry::stamp`]; others are no longer there.
    order: VecDeque<(SocketAddr, u64)>,
    most: usize,
    stamp: u64,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    heard: Instant,
    /// When it was put into the order.
    queued: Instant,
    stamp: u64,
}

impl<V> Recent<V> {
    fn new(most: usize) -> Self {
        Self {
            entries: HashMap::new(),
            order: VecDeque::new(),
            most,
            stamp: 0,
        }
    }

    /// The value of `addr`, if that was heard lately.
    fn get(&mut self, now: Instant, addr: SocketAddr) -> Option<&mut V> {
        let entry = self.entries.get_mut(&addr)?;
        (now.since(entry.heard) < REMEMBERED_FOR).then_some(&mut entry.value)
    }

    /// It was heard again; whether it is there.
    fn refresh(&mut self, now: Instant, addr: SocketAddr) -> bool {
        match self.entries.get_mut(&addr) {
            Some(entry) if now.since(entry.heard) < REMEMBERED_FOR => {
                entry.heard = entry.heard.max(now);
                true
            }
            _ => false,
        }
    }

    /// Whether another address had to be forgotten before its time.
    fn insert(&mut self, now: Instant, addr: SocketAddr, value: V) -> bool {
        self.stamp += 1;
        let entry = Entry {
            value,
            heard: now,
            queued: now,
            stamp: self.stamp,
        };
        self.entries.insert(addr, entry);
        self.order.push_back((addr, self.stamp));
        self.tidy(now)
    }

    fn remove(&mut self, addr: SocketAddr) {
        self.entries.remove(&addr);
    }

    /// Forgets what was not heard for long, and what is too much.
    fn tidy(&mut self, now: Instant) -> bool {
        let mut spared = 0;
        let mut forgotten = false;
        while let Some(&(addr, stamp)) = self.order.front() {
            let entry = self.entries.get_mut(&addr).filter(|e| e.stamp == stamp);
            let Some(entry) = entry else {
                self.order.pop_front();
                continue;
            };
            let old = now.since(entry.heard) >= REMEMBERED_FOR;
            let full = self.order.len() > self.most;
            if !old && !full && now.since(entry.queued) < REMEMBERED_FOR {
                break;
            }
            self.order.pop_front();
            if !old && entry.heard > entry.queued && spared < SPARED {
                spared += 1;
                entry.queued = now;
                self.order.push_back((addr, stamp));
                continue;
            }
            self.entries.remove(&addr);
            forgotten |= !old;
        }
        forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::from_millis(1000 * secs)
    }

    fn addr(n: u32) -> SocketAddr {
        (n.to_be_bytes(), 9).into()
    }

    fn allowance(bytes: u64, repeats: u8) -> Allowance {
        Allowance { bytes, repeats }
    }

    #[test]
    fn a_stranger_gets_three_times_what_it_sent_and_a_few_repeats() {
        let all = Addresses::default();
        assert_eq!(all.take(at(1), addr(1)), Some(allowance(0, 0)));
        all.heard(at(1), addr(1), 100);
        all.heard(at(1), addr(1), 20);
        // Of another driver of the service.
        let other = all.clone();
        assert_eq!(other.take(at(1), addr(1)), Some(allowance(360, 10)));
        assert_eq!(all.take(at(1), addr(1)), Some(allowance(0, 0)), "taken");
        other.give_back(at(1), addr(1), allowance(60, 7));
        all.heard(at(2), addr(1), 1);
        assert_eq!(all.take(at(2), addr(1)), Some(allowance(63, 7)));
        assert!(!all.is_validated(at(2), addr(1)));
        all.validate(at(2), addr(1));
        assert!(other.is_validated(at(2), addr(1)));
        assert_eq!(all.take(at(2), addr(1)), None);
        assert_eq!(all.take(at(2), addr(2)), Some(allowance(0, 0)));
    }

    #[test]
    fn it_lasts_until_five_minutes_of_silence() {
        let all = Addresses::default();
        all.validate(at(0), addr(1));
        all.validate(at(250), addr(1));
        assert!(all.is_validated(at(549), addr(1)));
        assert!(!all.is_validated(at(550), addr(1)));
        all.heard(at(0), addr(2), 10);
        all.heard(at(299), addr(2), 10);
        assert_eq!(all.take(at(300), addr(2)), Some(allowance(60, 10)));
        // After that it is somebody else's, who begins anew.
        all.heard(at(600), addr(2), 10);
        assert_eq!(all.take(at(600), addr(2)), Some(allowance(30, 10)));
    }

    #[test]
    fn both_memories_are_bounded_and_what_is_heard_stays() {
        let all = Addresses::default();
        let mut forgotten = 0;
        all.heard(at(0), addr(0), 1);
        for n in 1..3 * MOST_STRANGERS as u32 {
            forgotten += u32::from(all.heard(at(1), addr(n), 1));
            all.heard(at(1), addr(0), 1);
        }
        assert_eq!(forgotten, 2 * MOST_STRANGERS as u32);
        assert!(all.take(at(1), addr(0)).expect("a stranger").bytes > 0);
        assert_eq!(all.take(at(1), addr(1)), Some(allowance(0, 0)));
        for n in 0..2 * MOST_VALIDATED as u32 {
            all.validate(at(2), addr(n));
        }
        let table = all.lock();
        assert_eq!(table.validated.entries.len(), MOST_VALIDATED);
        assert!(table.validated.order.len() <= MOST_VALIDATED);
        assert!(table.strangers.order.len() <= MOST_STRANGERS);
        drop(table);
        // What was not heard for long goes, whether there is room or not.
        all.validate(at(900), addr(7));
        assert_eq!(all.lock().validated.entries.len(), 1);
    }

    #[test]
    fn an_address_that_is_validated_again_and_again_takes_no_memory() {
        let all = Addresses::default();
        for n in 0..100_000 {
            all.heard(at(n / 100), addr(1), 1);
            all.validate(at(n / 100), addr(1));
            all.heard(at(n / 100), addr((n % 7) as u32), 1);
        }
        let table = all.lock();
        assert!(table.validated.order.len() < 10 && table.strangers.order.len() < 10);
    }
}
