//! What passed, failed and was skipped, and the lines at the end that say so.

use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Counts over all steps.
#[derive(Debug)]
pub(crate) struct Tally {
    passed: usize,
    failed: usize,
    skipped: usize,
    failures: Vec<String>,
    skips: Vec<String>,
    times: Vec<(String, Duration)>,
    begin: Instant,
}

/// Three numbers found in the output of a program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            passed: 0,
            failed: 0,
            skipped: 0,
            failures: Vec::new(),
            skips: Vec::new(),
            times: Vec::new(),
            begin: Instant::now(),
        }
    }
}

impl Tally {
    /// A check that is one thing: it counts as one.
    pub(crate) fn check(&mut self, name: &str, ok: bool) {
        if ok {
            self.passed += 1;
        } else {
            self.fail(name.to_owned());
        }
    }

    /// One failure.
    pub(crate) fn fail(&mut self, what: String) {
        self.failed += 1;
        self.failures.push(what);
    }

    /// Something that was not run, counted `count` times.
    pub(crate) fn skip(&mut self, count: usize, why: String) {
        self.skipped += count;
        self.skips.push(why);
    }

    /// The totals of a program that counts for itself. Its exit status must agree with them.
    pub(crate) fn add(&mut self, name: &str, totals: Totals, ok: bool) {
        self.passed += totals.passed;
        self.skipped += totals.skipped;
        if totals.failed > 0 {
            self.failed += totals.failed;
            self.failures
                .push(format!("{name}: {} failed", totals.failed));
        } else if !ok {
            self.fail(format!("{name}: ended with an error"));
        } else if totals.passed == 0 {
            self.fail(format!("{name}: nothing was run"));
        }
    }

    /// Says how long a step took, at the end.
    pub(crate) fn timed(&mut self, name: &str, took: Duration) {
        self.times.push((name.to_owned(), took));
    }

    /// Prints the end and gives the exit status.
    pub(crate) fn conclude(&self) -> ExitCode {
        println!();
        let times: Vec<String> = self
            .times
            .iter()
            .map(|(name, t)| format!("{name} {:.0} s", t.as_secs_f64()))
            .collect();
        println!(
            "{}; all {:.0} s",
            times.join(", "),
            self.begin.elapsed().as_secs_f64()
        );
        for failure in &self.failures {
            println!("FAILED   {failure}");
        }
        if !self.skips.is_empty() {
            println!("******** NOT EVERYTHING WAS RUN ********");
            for skip in &self.skips {
                println!("SKIPPED  {skip}");
            }
        }
        println!(
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        );
        if self.failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

impl Totals {
    /// Adds the numbers of one line of `cargo test`; other lines add nothing.
    pub(crate) fn add_cargo_test_line(&mut self, line: &str) {
        let Some(result) = line.trim_start().strip_prefix("test result: ") else {
            return;
        };
        for part in result.split([';', '.']) {
            let mut words = part.split_ascii_whitespace();
            let (Some(Ok(n)), Some(word)) = (words.next().map(str::parse::<usize>), words.next())
            else {
                continue;
            };
            match word {
                "passed" => self.passed += n,
                "failed" => self.failed += n,
                "ignored" => self.skipped += n,
                _ => {}
            }
        }
    }

    /// Reads a closing line `N passed, N failed, N skipped`.
    pub(crate) fn from_closing_line(line: &str) -> Option<Self> {
        let mut parts = line.split(", ").map(|part| part.split_once(' '));
        let mut number = |word: &str| match parts.next()? {
            Some((n, w)) if w == word => n.parse().ok(),
            _ => None,
        };
        let totals = Self {
            passed: number("passed")?,
            failed: number("failed")?,
            skipped: number("skipped")?,
        };
        parts.next().is_none().then_some(totals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_cargo_test() {
        let mut totals = Totals::default();
        totals.add_cargo_test_line(
            "test result: ok. 21 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.58s",
        );
        totals.add_cargo_test_line(
            "test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 5 filtered out",
        );
        totals.add_cargo_test_line("running 21 tests");
        assert_eq!(
            totals,
            Totals {
                passed: 24,
                failed: 1,
                skipped: 2
            }
        );
    }

    #[test]
    fn closing_lines() {
        let totals = Totals {
            passed: 5,
            failed: 0,
            skipped: 12,
        };
        assert_eq!(
            Totals::from_closing_line("5 passed, 0 failed, 12 skipped"),
            Some(totals)
        );
        assert_eq!(Totals::from_closing_line("5 passed, 0 failed"), None);
        assert_eq!(
            Totals::from_closing_line("5 passed, 0 failed, 1 skipped, 2 more"),
            None
        );
        assert_eq!(
            Totals::from_closing_line("x passed, 0 failed, 1 skipped"),
            None
        );
    }

    #[test]
    fn a_program_that_ran_nothing_or_died_has_failed() {
        let mut tally = Tally::default();
        tally.add("a", Totals::default(), true);
        tally.add(
            "b",
            Totals {
                passed: 3,
                ..Totals::default()
            },
            false,
        );
        assert_eq!((tally.passed, tally.failed), (3, 2));
    }
}
