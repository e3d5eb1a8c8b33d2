//! Restraint for the log: what happens again and again is told once, and from then on once in a while with its number.

use std::time::Duration;

use tokio::time::Instant;

/// Time from one line about the same thing to the next.
const AGAIN: Duration = Duration::from_secs(60);
/// Texts that are told within that time: an error that is another one each time is no news either.
const TEXTS: usize = 12;

/// Lines about things that go wrong repeatedly.
#[derive(Debug, Default)]
pub(crate) struct LogLimit {
    told: Vec<Told>,
}

/// A line that was told.
#[derive(Debug)]
struct Told {
    text: String,
    at: Instant,
    /// How often it was not told since.
    untold: u64,
}

impl LogLimit {
    /// It has happened, and this is what is to be said of it: the line to log, if there should be one.
    pub(crate) fn line(&mut self, now: Instant, text: &str) -> Option<String> {
        let old = |told: &Told| now - told.at >= AGAIN;
        if let Some(told) = self.told.iter_mut().find(|told| told.text == text) {
            if !old(told) {
                told.untold += 1;
                return None;
            }
            told.at = now;
            return Some(match std::mem::take(&mut told.untold) {
                0 => text.to_owned(),
                n => format!("{text} (and {n} times before)"),
            });
        }
        if self.told.len() >= TEXTS {
            self.told.retain(|told| !old(told));
        }
        (self.told.len() < TEXTS).then(|| {
            self.told.push(Told {
                text: text.to_owned(),
                at: now,
                untold: 0,
            });
            text.to_owned()
        })
    }

    /// It is over: how often it has happened, if that was not told. The next time is told at once.
    pub(crate) fn over(&mut self) -> Option<u64> {
        let untold = self.told.drain(..).map(|told| told.untold).sum();
        (untold > 0).then_some(untold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hundreds_of_the_same_are_one_line_a_minute() {
        let mut limit = LogLimit::default();
        let start = Instant::now();
        let mut lines = Vec::new();
        for n in 0..361 {
            let now = start + Duration::from_millis(200 * n);
            lines.extend(limit.line(now, "cannot accept a connection: too many open files"));
        }
        let text = "cannot accept a connection: too many open files";
        assert_eq!(
            lines,
            [text.to_owned(), format!("{text} (and 299 times before)")]
        );
        assert_eq!(limit.over(), Some(60));
        assert_eq!(limit.over(), None);
        // What begins again is told at once.
        assert_eq!(limit.line(start, text).as_deref(), Some(text));
    }

    #[test]
    fn another_text_is_told_but_not_hundreds() {
        let mut limit = LogLimit::default();
        let now = Instant::now();
        let told = |n: &u32| limit.line(now, &format!("cannot reach port {n}")).is_some();
        assert_eq!((0..400).filter(told).count(), TEXTS);
    }
}
