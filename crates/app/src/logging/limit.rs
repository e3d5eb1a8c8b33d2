//! How many lines there are: whatever peers and strangers do, they cannot fill a disk.
//!
//! Everything that does not come from the program itself shares [`LINES`] lines in any second, the one that counts what was left out
//! included. A kind of lines is an event's name ([`log_kind`]). No kind takes more than [`MOST_OF_KIND`] of them, and all lines about single
//! streams together count as one kind. Some are kept for kinds that were not shown lately, so a flood does not hide what is rare.
//!
//! Not limited: what this crate says, because an operator asked for it (start, signals, reload); what the runtime says while it opens
//! sockets; lines that name the clients of proven sessions, of which the runtime writes at most ten in a second by itself.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fulmar_config::text::quoted;
use fulmar_runtime::{ACCESS_LOG, log_kind};
use tokio::sync::Notify;
use tracing::Metadata;

use super::levels::STREAMS;
use crate::exit::Exit;

/// Lines in any second that somebody outside can cause, with the one that counts what was left out.
pub(super) const LINES: usize = 10;
/// How many of these are of one kind.
const MOST_OF_KIND: usize = 3;
/// How many are kept for kinds that were not shown lately.
const KEPT: usize = 2;
/// After this long without a line a kind was not shown lately.
const LATELY: Duration = Duration::from_secs(10);
/// The time that limits are for.
const SECOND: Duration = Duration::from_secs(1);
/// Kinds that the line names that counts; of others only the number is told.
const NAMED: usize = 4;

/// Decides which lines are shown. It reads no clock.
#[derive(Debug, Default)]
struct Limiter {
    /// When lines of the last second were shown, and what counts as their kind.
    shown: VecDeque<(Instant, &'static str)>,
    /// No more than the program has.
    kinds: HashMap<&'static str, Shown>,
    /// Lines that were left out, since the first one of them.
    left_out: u64,
    since: Option<Instant>,
}

/// Lines of one kind.
#[derive(Debug, Default)]
struct Shown {
    last: Option<Instant>,
    left_out: u64,
}

impl Limiter {
    /// Whether a line of `kind` is shown that counts as one of `group`. If not, it is counted.
    fn admit(&mut self, now: Instant, kind: &'static str, group: &'static str) -> bool {
        while self
            .shown
            .pop_front_if(|(at, _)| *at + SECOND <= now)
            .is_some()
        {}
        let of_group = self.shown.iter().filter(|(_, of)| *of == group).count();
        let of_kind = self.kinds.entry(kind).or_default();
        let lately = of_kind.last.is_some_and(|at| at + LATELY > now);
        // One line is for the count.
        let room = LINES - 1 - if lately { KEPT } else { 0 };
        if self.shown.len() < room && of_group < MOST_OF_KIND {
            self.shown.push_back((now, group));
            of_kind.last = Some(now);
            return true;
        }
        of_kind.left_out += 1;
        self.left_out += 1;
        self.since.get_or_insert(now);
        false
    }

    /// When [`Self::handle_timeout`] has something to say.
    fn poll_timeout(&self) -> Option<Instant> {
        self.since.map(|since| since + SECOND)
    }

    /// Says what was left out, if that is due.
    fn handle_timeout(&mut self, now: Instant) -> Option<String> {
        self.poll_timeout()
            .filter(|at| *at <= now)
            .and_then(|_| self.sum_up())
    }

    /// Says what was left out, if anything was.
    fn sum_up(&mut self) -> Option<String> {
        self.since.take()?;
        let total = std::mem::take(&mut self.left_out);
        let mut of_kinds: Vec<_> = self
            .kinds
            .iter_mut()
            .filter(|(_, of_kind)| of_kind.left_out > 0)
            .map(|(kind, of_kind)| (std::mem::take(&mut of_kind.left_out), *kind))
            .collect();
        of_kinds.sort_by(|a, b| b.cmp(a));
        let lines = if total == 1 { "line" } else { "lines" };
        let mut text =
            format!("{total} log {lines} left out, at most {LINES} are shown per second: ");
        // Events of libraries have no name but their place in the source.
        let named = of_kinds
            .iter()
            .filter(|(_, kind)| !kind.starts_with("event "));
        let mut others = total;
        for (n, kind) in named.take(NAMED) {
            others -= n;
            let _ = write!(text, "{n} {kind}, ");
        }
        match others {
            0 => text.truncate(text.len() - ", ".len()),
            n => {
                let _ = write!(text, "{n} others");
            }
        }
        Some(text)
    }
}

/// The variable that lifts the limit: `all`, for who looks for a fault.
const LINES_VARIABLE: &str = "FULMAR_LOG_LINES";

/// The limit of a log.
#[derive(Debug, Default)]
pub(super) struct Limit {
    /// Every line is shown.
    lifted: bool,
    limiter: Mutex<Limiter>,
    /// Something is left out, and was not before.
    first: Notify,
}

impl Limit {
    /// The limit that the environment asks for.
    ///
    /// # Errors
    /// When it cannot be understood.
    pub(super) fn of_environment() -> Result<Self, Exit> {
        Self::parse(std::env::var(LINES_VARIABLE).ok().as_deref())
    }

    fn parse(lines: Option<&str>) -> Result<Self, Exit> {
        let lifted = match lines {
            None | Some("" | "limited") => false,
            Some("all") => true,
            Some(other) => {
                return Err(Exit::usage(format!(
                    "environment, {LINES_VARIABLE}: {} is neither limited nor all",
                    quoted(other)
                )));
            }
        };
        Ok(Self {
            lifted,
            ..Self::default()
        })
    }

    fn limiter(&self) -> MutexGuard<'_, Limiter> {
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a line is shown.
    pub(super) fn admit(&self, metadata: &'static Metadata<'static>) -> bool {
        if self.lifted || is_own(metadata.target(), metadata.name()) {
            return true;
        }
        let mut limiter = self.limiter();
        let quiet = limiter.since.is_none();
        let group = match metadata.target() {
            STREAMS => STREAMS,
            _ => metadata.name(),
        };
        let shown = limiter.admit(Instant::now(), metadata.name(), group);
        let first = quiet && limiter.since.is_some();
        drop(limiter);
        if first {
            self.first.notify_one();
        }
        shown
    }

    /// Gives `tell` each line about what was left out when it is due, until it is dropped.
    pub(super) async fn run(&self, tell: impl Fn(&str)) {
        loop {
            let due = self.limiter().poll_timeout();
            match due {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => self.first.notified().await,
            }
            let said = self.limiter().handle_timeout(Instant::now());
            if let Some(text) = said {
                tell(&text);
            }
        }
    }

    /// What was left out and not told yet.
    pub(super) fn finish(&self) -> Option<String> {
        self.limiter().sum_up()
    }
}

/// Whether a line is the program's own: nobody outside can cause it again and again.
fn is_own(target: &str, name: &str) -> bool {
    let part = target.split("::").next();
    (part == Some("fulmar") && target != STREAMS)
        || (target == ACCESS_LOG && name == log_kind::CLIENTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A flood of lines, and what is shown of it.
    #[derive(Default)]
    struct Flood {
        limiter: Limiter,
        shown: Vec<(Instant, &'static str)>,
        sums: Vec<(Instant, String)>,
        sent: u64,
    }

    impl Flood {
        fn line(&mut self, now: Instant, kind: &'static str) {
            if let Some(text) = self.limiter.handle_timeout(now) {
                self.sums.push((now, text));
            }
            self.sent += 1;
            if self.limiter.admit(now, kind, kind) {
                self.shown.push((now, kind));
            }
        }

        fn of(&self, kind: &str) -> usize {
            self.shown.iter().filter(|(_, k)| *k == kind).count()
        }

        /// Nothing was forgotten, and no second has too many lines, wherever it begins.
        fn check(mut self) {
            let told = |(_, text): &(Instant, String)| {
                let n = text.split(' ').next().and_then(|n| n.parse::<u64>().ok());
                n.expect("a number")
            };
            let end = self.limiter.poll_timeout();
            if let Some(at) = end {
                let text = self.limiter.handle_timeout(at).expect("a sum");
                self.sums.push((at, text));
            }
            let left_out: u64 = self.sums.iter().map(told).sum();
            assert_eq!(self.shown.len() as u64 + left_out, self.sent);
            let mut times: Vec<_> = self.shown.iter().map(|(at, _)| *at).collect();
            times.extend(self.sums.iter().map(|(at, _)| *at));
            times.sort_unstable();
            assert!(times.windows(LINES + 1).all(|w| w[LINES] - w[0] >= SECOND));
        }
    }

    #[test]
    fn a_flood_of_one_kind_hides_no_other() {
        let mut flood = Flood::default();
        let start = Instant::now();
        for ms in 0..30_000 {
            let now = start + Duration::from_millis(ms);
            for _ in 0..10 {
                flood.line(now, "strangers");
            }
            if ms % 10_000 == 5_000 {
                flood.line(now, "sessions ended");
                flood.line(now, "changes of the server's state");
            }
        }
        assert_eq!(flood.of("sessions ended"), 3);
        assert_eq!(flood.of("changes of the server's state"), 3);
        assert!((3 * 30..=3 * 31).contains(&flood.of("strangers")));
        flood.check();
    }

    #[test]
    fn a_flood_of_every_kind_is_limited_as_one() {
        const KINDS: [&str; 26] = [
            "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q",
            "r", "s", "t", "u", "v", "w", "x", "y", "z",
        ];
        let mut flood = Flood::default();
        let start = Instant::now();
        for ms in 0..20_000 {
            for kind in KINDS {
                flood.line(start + Duration::from_millis(ms), kind);
            }
        }
        for kind in KINDS {
            assert!(flood.of(kind) > 0, "{kind}");
        }
        flood.check();
    }

    #[test]
    fn what_is_left_out_is_named() {
        let mut limiter = Limiter::default();
        let now = Instant::now();
        for _ in 0..10 {
            limiter.admit(now, "streams opened", STREAMS);
            limiter.admit(now, "event lib.rs:7", "event lib.rs:7");
        }
        limiter.admit(now, "streams closed", STREAMS);
        assert_eq!(limiter.handle_timeout(now + SECOND / 2), None);
        assert_eq!(
            limiter.handle_timeout(now + SECOND).as_deref(),
            Some(
                "15 log lines left out, at most 10 are shown per second: 7 streams opened, 1 streams closed, 7 others"
            )
        );
        assert_eq!(limiter.poll_timeout(), None);
        assert_eq!(limiter.sum_up(), None);
    }

    #[test]
    fn the_limit_is_lifted_by_name_only() {
        assert!(Limit::parse(Some("all")).is_ok_and(|limit| limit.lifted));
        for lines in [None, Some(""), Some("limited")] {
            assert!(Limit::parse(lines).is_ok_and(|limit| !limit.lifted));
        }
        match Limit::parse(Some("20")) {
            Err(Exit::Usage(text)) => assert_eq!(
                text,
                "environment, FULMAR_LOG_LINES: \"20\" is neither limited nor all"
            ),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_program_s_own_lines_are_not_limited() {
        for target in ["fulmar", "fulmar::launch", log_kind::START_LOG] {
            assert!(is_own(target, "event"), "{target}");
        }
        assert!(is_own(ACCESS_LOG, log_kind::CLIENTS));
        assert!(!is_own(ACCESS_LOG, log_kind::UNPROVEN_CLIENTS));
        for target in [STREAMS, "fulmar_runtime::driver", "fulmarine"] {
            assert!(!is_own(target, log_kind::CLIENTS), "{target}");
        }
    }
}
