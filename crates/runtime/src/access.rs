//! Who uses a server: the log target `access`, which names the client of each stream, so that abuse can be traced.
//!
//! [`Access`] decides what is said, and when; it reads no clock and writes nothing. [`AccessLog`] is what the drivers of a process
//! share: it writes to the log. Its lock is taken when a stream opens, never for a packet.
//!
//! * The first [`FEW`] streams of a client address within [`WINDOW`] get a line each, with session and target. If there are more,
//!   one line sums up all of them when that time is over.
//! * There are at most [`PROVEN_LINES`] lines in any second, so nobody fills a disk by opening streams. What does not get its own line
//!   has another chance in the sum; addresses whose sum does not fit are counted in the last of these lines, with their streams.
//! * Addresses of sessions that are proven have these lines to themselves. Others, which can be forged, have [`UNPROVEN_LINES`] of their
//!   own, and share the limit of all other lines that somebody outside can cause.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fulmar_wire::time::Instant;
use tokio::sync::Notify;
use tracing::{Level, info};

use crate::clock::Clock;
use crate::log_kind;

/// The log target of lines that name the clients of a server.
pub const ACCESS_LOG: &str = "access";

/// Streams of a client address that get a line each within [`WINDOW`].
const FEW: u32 = 5;
/// Time from the first stream of a client address until its streams are summed up and it begins anew.
const WINDOW: Duration = Duration::from_secs(10);
/// Lines in any second about addresses of proven sessions, with the one that counts what was left out.
const PROVEN_LINES: usize = 10;
/// The same about other addresses.
const UNPROVEN_LINES: usize = 3;
/// Client addresses that are known at one time, 0.2 KB each. Streams of others are only counted.
const MAX_CLIENTS: usize = 4096;

/// A stream that a client has opened.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Opened<'a> {
    /// Where the client is.
    pub(crate) client: SocketAddr,
    /// The conversation of its session.
    pub(crate) session: u32,
    /// The stream's number in it.
    pub(crate) stream: u32,
    /// Where the stream goes.
    pub(crate) target: &'a str,
    /// Whether the client is known to be at its address, see [`Endpoint::is_vouched`](fulmar_session::Endpoint::is_vouched).
    pub(crate) proven: bool,
}

/// See the module.
pub(crate) struct Access {
    clients: HashMap<SocketAddr, Client>,
    /// When the time of each of them is over, the earliest first.
    ends: VecDeque<(Instant, SocketAddr)>,
    proven: Budget,
    unproven: Budget,
}

/// Streams of a client address.
struct Client {
    target: Box<str>,
    proven: bool,
    /// All of them, and how many had a line of their own.
    streams: u32,
    named: u32,
    session: u32,
    /// Whether they belong to more than that one.
    several: bool,
}

/// The lines about one kind of addresses.
struct Budget {
    /// What stands before "address" where some are counted.
    whose: &'static str,
    /// Lines in any second.
    most: usize,
    /// When the latest of them were written, as many as one second permits.
    said: VecDeque<Instant>,
    /// Addresses that got no line, and their streams, since the first one of them.
    left_out: (u64, u64),
    since: Instant,
    lines: Vec<String>,
}

impl Budget {
    const fn new(whose: &'static str, most: usize) -> Self {
        Self {
            whose,
            most,
            said: VecDeque::new(),
            left_out: (0, 0),
            since: Instant::from_millis(0),
            lines: Vec::new(),
        }
    }

    /// Whether there is room for one more line, which is then used. The line that counts keeps its place.
    fn take(&mut self, now: Instant) -> bool {
        while self.said.pop_front_if(|at| *at + SECOND <= now).is_some() {}
        let room = self.said.len() + 1 < self.most;
        if room {
            self.said.push_back(now);
        }
        room
    }

    /// An address gets no line about so many streams.
    fn leave_out(&mut self, now: Instant, streams: u64) {
        if self.left_out.0 == 0 {
            self.since = now;
        }
        self.left_out.0 += 1;
        self.left_out.1 += streams;
    }

    /// When it is said what was left out, if anything was.
    fn poll_timeout(&self) -> Option<Instant> {
        (self.left_out.0 > 0).then(|| self.since + SECOND)
    }

    /// Says what was left out, if that is due.
    fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_some_and(|at| at <= now) {
            let (addresses, streams) = std::mem::take(&mut self.left_out);
            self.lines.push(format!(
                "{} with {} not named: more than {} lines in a second",
                counted(addresses, &format!("{}address", self.whose), "es"),
                counted(streams, "stream", "s"),
                self.most - 1,
            ));
        }
    }
}

impl Default for Access {
    fn default() -> Self {
        Self {
            clients: HashMap::new(),
            ends: VecDeque::new(),
            proven: Budget::new("", PROVEN_LINES),
            unproven: Budget::new("unproven ", UNPROVEN_LINES),
        }
    }
}

/// The time that limits of lines are for.
const SECOND: Duration = Duration::from_secs(1);

/// Lines to write.
#[derive(Default, Debug, PartialEq, Eq)]
pub(crate) struct Lines {
    /// About addresses of proven sessions.
    proven: Vec<String>,
    /// About others.
    unproven: Vec<String>,
}

impl Access {
    /// A stream was opened.
    pub(crate) fn opened(&mut self, now: Instant, opened: Opened<'_>) {
        self.handle_timeout(now);
        let budget = match opened.proven {
            true => &mut self.proven,
            false => &mut self.unproven,
        };
        let room = self.clients.len() < MAX_CLIENTS;
        let client = match self.clients.get_mut(&opened.client) {
            Some(client) => client,
            None if room => {
                self.ends.push_back((now + WINDOW, opened.client));
                let client = Client::new(&opened);
                self.clients.entry(opened.client).or_insert(client)
            }
            None => {
                match budget.take(now) {
                    true => budget.lines.push(line(&opened)),
                    false => budget.leave_out(now, 1),
                }
                return;
            }
        };
        if *client.target != *opened.target {
            // The configuration was read again meanwhile.
            let before = std::mem::replace(client, Client::new(&opened));
            before.sum_up(now, opened.client, budget);
        }
        client.streams = client.streams.saturating_add(1);
        client.several |= client.session != opened.session;
        client.proven |= opened.proven;
        if client.named < FEW && budget.take(now) {
            client.named += 1;
            budget.lines.push(line(&opened));
        }
    }

    /// The next lines to write.
    pub(crate) fn take_lines(&mut self) -> Lines {
        Lines {
            proven: std::mem::take(&mut self.proven.lines),
            unproven: std::mem::take(&mut self.unproven.lines),
        }
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let ends = self.ends.front().map(|(at, _)| *at);
        let counts = [self.proven.poll_timeout(), self.unproven.poll_timeout()];
        counts.into_iter().flatten().chain(ends).min()
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.proven.handle_timeout(now);
        self.unproven.handle_timeout(now);
        while let Some((_, addr)) = self.ends.pop_front_if(|(at, _)| *at <= now) {
            if let Some(client) = self.clients.remove(&addr) {
                let budget = match client.proven {
                    true => &mut self.proven,
                    false => &mut self.unproven,
                };
                client.sum_up(now, addr, budget);
            }
        }
    }

    /// Sums up what there is, at the end of the process.
    pub(crate) fn finish(&mut self, now: Instant) {
        self.handle_timeout(now + WINDOW);
        // And what did not fit into that.
        self.handle_timeout(now + WINDOW + SECOND);
    }
}

impl Client {
    fn new(opened: &Opened<'_>) -> Self {
        Self {
            target: opened.target.into(),
            proven: opened.proven,
            streams: 0,
            named: 0,
            session: opened.session,
            several: false,
        }
    }

    /// Its time is over.
    fn sum_up(self, now: Instant, addr: SocketAddr, budget: &mut Budget) {
        if self.streams == self.named {
            return;
        }
        if !budget.take(now) {
            return budget.leave_out(now, u64::from(self.streams - self.named));
        }
        let streams = counted(self.streams.into(), "stream", "s");
        let session = match self.several {
            true => "several sessions".to_owned(),
            false => format!("session {:08X}", self.session),
        };
        budget.lines.push(format!(
            "{addr}: {streams} to {} in {} s, {session}",
            self.target,
            WINDOW.as_secs()
        ));
    }
}

/// What is said of one stream.
fn line(opened: &Opened<'_>) -> String {
    let Opened {
        client,
        session,
        stream,
        target,
        ..
    } = opened;
    format!("{client}: stream {stream} of session {session:08X} to {target}")
}

fn counted(n: u64, name: &str, plural: &str) -> String {
    format!("{n} {name}{}", if n == 1 { "" } else { plural })
}

/// [`Access`] for all drivers of a process.
#[derive(Clone)]
pub(crate) struct AccessLog(Arc<Shared>);

struct Shared {
    access: Mutex<Access>,
    clock: Clock,
    /// Something is due earlier than before.
    earlier: Notify,
}

impl AccessLog {
    pub(crate) fn new(clock: Clock) -> Self {
        Self(Arc::new(Shared {
            access: Mutex::default(),
            clock,
            earlier: Notify::new(),
        }))
    }

    /// A stream was opened.
    pub(crate) fn opened(&self, now: Instant, opened: Opened<'_>) {
        if !tracing::enabled!(target: ACCESS_LOG, Level::INFO) {
            return;
        }
        let mut access = self.lock();
        let before = access.poll_timeout();
        access.opened(now, opened);
        let after = access.poll_timeout();
        let lines = access.take_lines();
        drop(access);
        write(lines);
        if after != before {
            self.0.earlier.notify_one();
        }
    }

    /// Writes what is due, until it is dropped.
    pub(crate) async fn run(self) {
        loop {
            let due = self.lock().poll_timeout();
            let due = async {
                match due {
                    Some(at) => tokio::time::sleep_until(self.0.clock.system(at)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                () = self.0.earlier.notified() => {}
            }
            let mut access = self.lock();
            access.handle_timeout(self.0.clock.now());
            let lines = access.take_lines();
            drop(access);
            write(lines);
        }
    }

    /// Writes what was not written yet.
    pub(crate) fn finish(&self) {
        let mut access = self.lock();
        access.finish(self.0.clock.now());
        let lines = access.take_lines();
        drop(access);
        write(lines);
    }

    fn lock(&self) -> MutexGuard<'_, Access> {
        // Nothing that panics is done under it.
        self.0.access.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write(lines: Lines) {
    for line in lines.proven {
        info!(name: log_kind::CLIENTS, target: ACCESS_LOG, "{line}");
    }
    for line in lines.unproven {
        info!(name: log_kind::UNPROVEN_CLIENTS, target: ACCESS_LOG, "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: &str = "127.0.0.1:22";

    fn at(ms: u64) -> Instant {
        Instant::from_millis(1000 + ms)
    }

    fn client(n: u16) -> SocketAddr {
        ([203, 0, 113, 9], n).into()
    }

    fn stream(client: SocketAddr, stream: u32) -> Opened<'static> {
        Opened {
            client,
            session: 0xA1_B2C3,
            stream,
            target: TARGET,
            proven: true,
        }
    }

    /// The lines to write, those about proven sessions first.
    fn said(access: &mut Access) -> Vec<String> {
        let lines = access.take_lines();
        [lines.proven, lines.unproven].concat()
    }

    /// Everything that is said until nothing is due any more, with when.
    fn rest(access: &mut Access) -> Vec<(Instant, String)> {
        let mut all = Vec::new();
        while let Some(due) = access.poll_timeout() {
            access.handle_timeout(due);
            all.extend(said(access).into_iter().map(|line| (due, line)));
        }
        all
    }

    #[test]
    fn each_of_a_few_streams_is_named() {
        let mut access = Access::default();
        for n in 0..FEW {
            access.opened(at(u64::from(n)), stream(client(4711), 2 * n + 1));
        }
        assert_eq!(
            said(&mut access),
            [1, 3, 5, 7, 9].map(|n| format!(
                "203.0.113.9:4711: stream {n} of session 00A1B2C3 to 127.0.0.1:22"
            ))
        );
        assert_eq!(rest(&mut access), []);
        assert!(access.clients.is_empty() && access.ends.is_empty());
    }

    #[test]
    fn more_than_a_few_are_summed_up_after_ten_seconds() {
        let mut access = Access::default();
        for n in 0..214 {
            access.opened(at(n * 40), stream(client(4711), 1));
        }
        assert_eq!(said(&mut access).len(), 5);
        let sum = "203.0.113.9:4711: 214 streams to 127.0.0.1:22 in 10 s, session 00A1B2C3";
        assert_eq!(rest(&mut access), [(at(10_000), sum.to_owned())]);
        // Then it begins anew, and sessions that differ are not named as one.
        for n in 0..6 {
            let session = n;
            let opened = Opened {
                session,
                ..stream(client(4711), 1)
            };
            access.opened(at(20_000), opened);
        }
        assert_eq!(said(&mut access).len(), 5);
        let sum = "203.0.113.9:4711: 6 streams to 127.0.0.1:22 in 10 s, several sessions";
        assert_eq!(rest(&mut access), [(at(30_000), sum.to_owned())]);
    }

    #[test]
    fn a_crowd_of_addresses_has_ten_lines_per_second_and_the_rest_is_counted() {
        let mut access = Access::default();
        for n in 0..30 {
            for _ in 0..2 {
                access.opened(at(0), stream(client(n), 1));
            }
        }
        // Four addresses with two streams each, and one of another; the tenth is for the line that counts.
        let said = said(&mut access);
        assert_eq!(said.len(), 9);
        assert!(said[8].starts_with("203.0.113.9:4: "), "{said:?}");
        // The others have another ten seconds later, and what is left is counted a second after that.
        let mut said = rest(&mut access);
        let left = said.pop();
        assert_eq!(said.len(), 9);
        assert!(said.iter().all(|(due, _)| *due == at(10_000)));
        let sum = "203.0.113.9:4: 2 streams to 127.0.0.1:22 in 10 s, session 00A1B2C3";
        assert_eq!(said[0].1, sum);
        assert_eq!(
            left,
            Some((
                at(11_000),
                "17 addresses with 34 streams not named: more than 9 lines in a second".to_owned()
            ))
        );
    }

    #[test]
    fn every_second_has_its_lines() {
        let mut access = Access::default();
        for second in 0..3 {
            for n in 0..20 {
                access.opened(at(second * 1000), stream(client(second as u16 * 20 + n), 1));
            }
            assert_eq!(said(&mut access).len(), 9, "{second}");
        }
    }

    /// Ten lines at the end of one second and ten at the beginning of the next were twenty in one.
    #[test]
    fn no_second_has_more_wherever_it_begins() {
        let mut access = Access::default();
        let mut times = Vec::new();
        for n in 0..6000u64 {
            let now = at(n);
            let proven = n % 2 == 0;
            let client = ([10, 1, (n >> 8) as u8, n as u8], 1).into();
            access.opened(
                now,
                Opened {
                    proven,
                    ..stream(client, 1)
                },
            );
            let lines = access.take_lines();
            times.extend(lines.proven.iter().map(|_| (true, now)));
            times.extend(lines.unproven.iter().map(|_| (false, now)));
        }
        for (whose, most) in [(true, PROVEN_LINES), (false, UNPROVEN_LINES)] {
            let times: Vec<_> = times.iter().filter(|(p, _)| *p == whose).collect();
            assert!(times.len() > 4 * most);
            let fits = |w: &[&(bool, Instant)]| w[most].1 - w[0].1 >= SECOND;
            assert!(times.windows(most + 1).all(fits), "{whose}");
        }
    }

    #[test]
    fn forged_addresses_take_no_lines_from_proven_ones() {
        let mut access = Access::default();
        for n in 0..1000 {
            let forged = Opened {
                proven: false,
                ..stream(([198, 51, 100, 1], n).into(), 1)
            };
            access.opened(at(0), forged);
        }
        assert_eq!(said(&mut access).len(), 2);
        access.opened(at(0), stream(client(1), 1));
        assert_eq!(said(&mut access).len(), 1);
        let said = rest(&mut access);
        let last = said.last().map(|(_, line)| line.as_str());
        assert_eq!(
            last,
            Some(
                "996 unproven addresses with 996 streams not named: more than 2 lines in a second"
            )
        );
    }

    /// Whatever comes, every stream is named, summed up or counted, and what is remembered and said is limited.
    #[test]
    fn no_stream_is_forgotten_and_nothing_grows() {
        let mut access = Access::default();
        let (mut streams, mut told, mut seconds) = (0u64, 0u64, HashMap::new());
        let mut named: HashMap<String, u64> = HashMap::new();
        let mut count = |now: Instant, lines: Vec<String>| {
            for line in lines {
                let number = |text: &str| text.parse::<u64>().expect("a number");
                let words: Vec<_> = line.split(' ').collect();
                *seconds.entry(now.as_millis() / 1000).or_insert(0) += 1;
                if words[1].starts_with("address") {
                    told += number(words[3]);
                    continue;
                }
                told += if words[1] == "stream" {
                    *named.entry(words[0].to_owned()).or_default() += 1;
                    1
                } else {
                    // A sum has those that were named before in it.
                    number(words[1]) - named.remove(words[0]).unwrap_or(0)
                };
            }
        };
        for n in 0..40_000u64 {
            let now = at(n / 2);
            // Few with many streams, and many with one.
            let addr = if n % 2 == 0 { n % 6 } else { n };
            let addr = SocketAddr::from(([10, 0, (addr >> 8) as u8, addr as u8], 1));
            access.opened(now, stream(addr, 1));
            streams += 1;
            count(now, said(&mut access));
            assert!(access.clients.len() <= MAX_CLIENTS && access.ends.len() <= MAX_CLIENTS);
        }
        while let Some(due) = access.poll_timeout() {
            access.handle_timeout(due);
            count(due, said(&mut access));
        }
        // Where a sum was left out, this test takes those that were named before it for part of the next one.
        assert!(told >= streams - 3 * 3 * u64::from(FEW), "{told} {streams}");
        assert!(told <= streams);
        assert!(seconds.values().all(|n| *n <= PROVEN_LINES));
        assert!(access.clients.is_empty() && access.ends.is_empty());
    }

    #[test]
    fn another_target_begins_anew() {
        let mut access = Access::default();
        for _ in 0..7 {
            access.opened(at(0), stream(client(1), 1));
        }
        let elsewhere = Opened {
            target: "[::1]:80",
            ..stream(client(1), 9)
        };
        access.opened(at(1), elsewhere);
        let said = said(&mut access);
        assert_eq!(
            said[5..],
            [
                "203.0.113.9:1: 7 streams to 127.0.0.1:22 in 10 s, session 00A1B2C3",
                "203.0.113.9:1: stream 9 of session 00A1B2C3 to [::1]:80",
            ]
        );
        assert_eq!(rest(&mut access), []);
    }

    #[test]
    fn the_end_of_a_process_leaves_nothing_untold() {
        let mut access = Access::default();
        for n in 0..40 {
            for _ in 0..7 {
                access.opened(at(0), stream(client(n), 1));
            }
        }
        said(&mut access);
        access.finish(at(5));
        let said = said(&mut access);
        assert_eq!(said.len(), 10, "{said:?}");
        assert_eq!(access.poll_timeout(), None);
    }
}
