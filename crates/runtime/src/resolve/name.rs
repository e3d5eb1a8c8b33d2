//! One name: its addresses, when it may be looked up, and in which order its addresses are tried.
//!
//! A machine: it takes the time and the results of look-ups as arguments, and gives what is to be done and logged.
//!
//! ```text
//!            plan: Start            answered: Ok
//!   idle ───────────────▶ running ────────────────▶ idle
//!    ▲                       │ answered: Err
//!    └── RETRY, doubled ─────┘   the last good answer stays in use
//! ```

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;

/// Pause after the first failed look-up and the longest one; each failure doubles it.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// How long an address from which nothing came is tried after the others.
const AVOID: Duration = Duration::from_secs(600);
/// Addresses of one name that are used.
const MAX_ADDRESSES: usize = 16;

/// What somebody who needs the addresses should do.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Plan {
    /// Look the name up, and give the result to [`Name::answered`].
    Start,
    /// Wait for the look-up that has been running since then.
    Wait(Instant),
    /// A look-up failed a moment ago: use what is known; the next one may start then.
    Later(Instant),
}

/// What a look-up has changed, for the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// The first answer.
    Found,
    /// It does not resolve, for the first time since it last did. `known`: addresses of an earlier answer stay in use.
    Lost {
        /// Whether there are such addresses.
        known: bool,
    },
    /// It resolves again.
    Back,
    /// Its addresses are others than before.
    Moved,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Name {
    /// The last good answer, IPv4 first. Ports mean nothing; link-local addresses have their scope.
    addrs: Vec<SocketAddr>,
    /// Since when a look-up has been running.
    running: Option<Instant>,
    /// Look-ups that have failed since the last good one.
    failures: u32,
    next: Option<Instant>,
    /// Addresses from which nothing came, and when that was.
    silent: Vec<(IpAddr, Instant)>,
    /// Why the last look-up failed.
    error: Option<String>,
}

impl Name {
    /// What to do for somebody who needs the addresses now.
    pub(super) fn plan(&mut self, now: Instant) -> Plan {
        if let Some(since) = self.running {
            return Plan::Wait(since);
        }
        if let Some(at) = self.next.filter(|at| now < *at) {
            return Plan::Later(at);
        }
        self.running = Some(now);
        Plan::Start
    }

    /// The look-up that [`Plan::Start`] asked for has ended.
    pub(super) fn answered(
        &mut self,
        now: Instant,
        result: Result<Vec<SocketAddr>, String>,
    ) -> Option<Change> {
        self.running = None;
        let found = match result {
            Ok(found) if found.is_empty() => Err("it has no address".to_owned()),
            other => other,
        };
        let mut found = match found {
            Ok(found) => found,
            Err(e) => {
                let pause = RETRY
                    .0
                    .saturating_mul(1 << self.failures.min(8))
                    .min(RETRY.1);
                self.next = Some(now + pause);
                self.failures = self.failures.saturating_add(1);
                self.error = Some(e);
                let known = !self.addrs.is_empty();
                return (self.failures == 1).then_some(Change::Lost { known });
            }
        };
        // As kcptun prefers it (docs/spec/kcptun.md, section 3.4); otherwise in the order of the system, which spreads load.
        found.sort_by_key(SocketAddr::is_ipv6);
        let mut seen: Vec<IpAddr> = Vec::new();
        found.retain(|addr| {
            let news = !seen.contains(&addr.ip()) && seen.len() < MAX_ADDRESSES;
            seen.extend(news.then(|| addr.ip()));
            news
        });
        let change = if self.failures > 0 {
            Some(Change::Back)
        } else if self.addrs.is_empty() {
            Some(Change::Found)
        } else {
            let stays = |ip| self.addrs.iter().any(|addr| addr.ip() == ip);
            (!seen.into_iter().any(stays)).then_some(Change::Moved)
        };
        self.failures = 0;
        self.next = None;
        self.error = None;
        self.silent
            .retain(|(ip, _)| found.iter().any(|addr| addr.ip() == *ip));
        self.addrs = found;
        change
    }

    /// The addresses in the order in which they should be tried; empty while it has never resolved.
    pub(super) fn addresses(&self, now: Instant) -> Vec<SocketAddr> {
        let mut all = self.addrs.clone();
        // Stable: those that are not avoided keep the order of the answer.
        all.sort_by_key(|addr| self.avoided(addr.ip(), now));
        all
    }

    /// When nothing came from it, if that is to be remembered.
    fn avoided(&self, ip: IpAddr, now: Instant) -> Option<Instant> {
        let silent = self.silent.iter().find(|(other, _)| *other == ip);
        silent.map(|(_, at)| *at).filter(|at| now < *at + AVOID)
    }

    /// Nothing came from `ip`: the others are tried before it. Whether there are others.
    pub(super) fn silent(&mut self, now: Instant, ip: IpAddr) -> bool {
        if !self.addrs.iter().any(|addr| addr.ip() == ip) {
            // The name has moved meanwhile.
            return !self.addrs.is_empty();
        }
        self.silent.retain(|(other, _)| *other != ip);
        self.silent.push((ip, now));
        self.addrs.len() > 1
    }

    /// Something came from `ip`.
    pub(super) fn works(&mut self, ip: IpAddr) {
        self.silent.retain(|(other, _)| *other != ip);
    }

    /// When the next look-up may start, after one that failed.
    pub(super) const fn retry_at(&self) -> Option<Instant> {
        self.next
    }

    /// Why it does not resolve, if the last look-up failed.
    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn ips(text: &str) -> Vec<SocketAddr> {
        let all = text.split(' ').map(|text| (ip(text), 0).into());
        all.collect()
    }

    fn ok(text: &str) -> Result<Vec<SocketAddr>, String> {
        Ok(ips(text))
    }

    fn failed() -> Result<Vec<SocketAddr>, String> {
        Err("no answer".into())
    }

    #[test]
    fn one_look_up_at_a_time_and_pauses_that_grow() {
        let mut name = Name::default();
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..7 {
            assert_eq!(name.plan(now), Plan::Start);
            assert_eq!(name.plan(now), Plan::Wait(now));
            name.answered(now, failed());
            let Plan::Later(at) = name.plan(now) else {
                panic!("it may be looked up at once");
            };
            pauses.push((at - now).as_secs());
            now = at;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 10, 10, 10]);
        assert_eq!(name.plan(now), Plan::Start);
        name.answered(now, ok("192.0.2.1"));
        // After a good answer the next one who asks gets a fresh one.
        assert_eq!(name.plan(now), Plan::Start);
    }

    #[test]
    fn a_change_is_told_once() {
        let mut name = Name::default();
        let now = Instant::now();
        let lost = |known| Some(Change::Lost { known });
        assert_eq!(name.answered(now, failed()), lost(false));
        for _ in 0..100 {
            assert_eq!(name.answered(now, failed()), None);
        }
        assert_eq!(name.error(), Some("no answer"));
        assert_eq!(name.answered(now, ok("192.0.2.1")), Some(Change::Back));
        assert_eq!(name.error(), None);
        assert_eq!(name.answered(now, ok("192.0.2.1 192.0.2.2")), None);
        assert_eq!(name.answered(now, ok("192.0.2.3")), Some(Change::Moved));
        assert_eq!(name.answered(now, Ok(Vec::new())), lost(true));
        let mut name = Name::default();
        assert_eq!(name.answered(now, ok("192.0.2.1")), Some(Change::Found));
    }

    #[test]
    fn remembered_addresses_are_used_only_when_the_look_up_fails() {
        let mut name = Name::default();
        let now = Instant::now();
        name.answered(now, ok("192.0.2.1"));
        name.answered(now, failed());
        assert_eq!(name.addresses(now), ips("192.0.2.1"));
        // A fresh answer wins, whatever was known.
        name.answered(now, ok("198.51.100.1"));
        assert_eq!(name.addresses(now), ips("198.51.100.1"));
    }

    #[test]
    fn the_next_address_comes_after_one_from_which_nothing_came() {
        let mut name = Name::default();
        let mut now = Instant::now();
        assert_eq!(name.addresses(now), []);
        name.answered(now, ok("2001:db8::1 192.0.2.1 192.0.2.2 192.0.2.1"));
        assert_eq!(name.addresses(now), ips("192.0.2.1 192.0.2.2 2001:db8::1"));
        let mut tried = Vec::new();
        for _ in 0..5 {
            let first = name.addresses(now)[0];
            tried.push(first);
            now += Duration::from_secs(2);
            assert!(name.silent(now, first.ip()), "there are others");
        }
        let want = "192.0.2.1 192.0.2.2 2001:db8::1 192.0.2.1 192.0.2.2";
        assert_eq!(tried, ips(want));
        name.works(ip("192.0.2.2"));
        assert_eq!(name.addresses(now)[0].ip(), ip("192.0.2.2"));
        // The same answer, in whatever order, does not make it forget.
        name.answered(now, ok("192.0.2.1 192.0.2.2 2001:db8::1"));
        assert_eq!(name.addresses(now)[0].ip(), ip("192.0.2.2"));
        // Later the first one has another chance.
        now += AVOID;
        assert_eq!(name.addresses(now)[0].ip(), ip("192.0.2.1"));
    }

    #[test]
    fn a_single_address_has_no_other() {
        let mut name = Name::default();
        let now = Instant::now();
        name.answered(now, ok("192.0.2.1"));
        assert!(!name.silent(now, ip("192.0.2.1")));
        assert_eq!(name.addresses(now), ips("192.0.2.1"));
        // Until the name moves.
        assert!(name.silent(now, ip("198.51.100.1")));
    }

    #[test]
    fn a_long_answer_is_cut() {
        let mut name = Name::default();
        let now = Instant::now();
        let many = (0..=255).map(|n| ([192, 0, 2, n], 0).into()).collect();
        name.answered(now, Ok(many));
        assert_eq!(name.addresses(now).len(), MAX_ADDRESSES);
    }
}
