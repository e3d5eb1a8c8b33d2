//! Tables of numbers that are committed, and compared with what is measured now: cell by cell, with a tolerance, and with
//! a sense of which way is worse. A change for the better fails too, so that the next one is compared with it.

use std::fmt::Write;
use std::path::Path;

/// What a column tells, and so how much its numbers may differ and which way is worse.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Percent of what could be had.
    Share,
    /// Bytes on the wire per useful byte.
    Overhead,
    /// Milliseconds; infinite is never.
    Millis,
    /// Things that should not happen, as repetitions.
    Count,
    /// Jain's index.
    Fairness,
    /// Percent that are as good as more or less of them, as one of several parts.
    Part,
}

impl Kind {
    fn text(self, value: f64) -> String {
        if value.is_nan() {
            return "-".into();
        }
        if value.is_infinite() {
            return "never".into();
        }
        match self {
            Self::Share | Self::Part => format!("{value:.1}"),
            Self::Overhead | Self::Fairness => format!("{value:.3}"),
            Self::Millis | Self::Count => format!("{value:.0}"),
        }
    }

    /// What is to be said of `now`, where `then` was committed.
    fn verdict(self, now: f64, then: f64) -> Option<&'static str> {
        const WORSE: &str = "WORSE";
        const BETTER: &str = "better than committed: FULMAR_SIM_UPDATE=1 writes it anew";
        const DIFFERENT: &str = "different: FULMAR_SIM_UPDATE=1 writes it anew";
        if now.is_nan() || then.is_nan() {
            return (now.is_nan() != then.is_nan()).then_some(DIFFERENT);
        }
        if now == then {
            return None;
        }
        // Numbers are compared as they are written, so what is binary about them must not tip the scales.
        let tolerance = 1e-9
            + match self {
                Self::Share => 1.0,
                Self::Overhead => 0.02,
                Self::Millis if then.is_infinite() => 2.0,
                Self::Millis => f64::max(2.0, 0.1 * then),
                Self::Count => f64::max(20.0, 0.1 * then),
                Self::Fairness => 0.01,
                Self::Part => 5.0,
            };
        let more = now - then;
        let worse = match self {
            Self::Share | Self::Fairness => -more,
            Self::Overhead | Self::Millis | Self::Count => more,
            Self::Part => return (more.abs() > tolerance).then_some(DIFFERENT),
        };
        if worse > tolerance {
            Some(WORSE)
        } else {
            (worse < -tolerance).then_some(BETTER)
        }
    }
}

/// A value that does not exist, as of a cell that would take too long.
pub(crate) const NONE: f64 = f64::NAN;

/// A table in the making: words that name a row, then numbers.
pub(crate) struct Table {
    text: String,
    columns: Vec<(&'static str, Kind)>,
    /// The kinds of the numbers in each line of `text`.
    kinds: Vec<Vec<(&'static str, Kind)>>,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self {
            text: String::new(),
            columns: Vec::new(),
            kinds: Vec::new(),
        }
    }

    /// Begins a part: what it shows, the names of the words, and the columns.
    pub(crate) fn part(&mut self, about: &str, words: &[&str], columns: &[(&'static str, Kind)]) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(about.trim_end());
        self.text.push_str("\n\n");
        let names = columns.iter().map(|(name, _)| (*name).to_owned());
        self.columns = columns.to_vec();
        let line = self.line(words, &names.collect::<Vec<_>>());
        self.push(&line);
        self.kinds.resize(self.text.lines().count(), Vec::new());
    }

    pub(crate) fn row(&mut self, words: &[&str], values: &[f64]) {
        assert_eq!(values.len(), self.columns.len());
        let cells = self.columns.iter().zip(values);
        let cells: Vec<_> = cells.map(|((_, kind), v)| kind.text(*v)).collect();
        let line = self.line(words, &cells);
        self.push(&line);
        self.kinds.push(self.columns.clone());
    }

    fn line(&self, words: &[&str], cells: &[String]) -> String {
        let mut out = String::new();
        for word in words {
            let _ = write!(out, "{word:<12} ");
        }
        for (cell, (name, _)) in cells.iter().zip(&self.columns) {
            let _ = write!(out, " {cell:>width$}", width = name.len().max(7));
        }
        out
    }

    fn push(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    /// Compares with `tables/<name>.txt`, or writes it.
    pub(crate) fn is_as_committed(&self, name: &str) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/sim/tables")
            .join(format!("{name}.txt"));
        if std::env::var_os("FULMAR_SIM_UPDATE").is_some() {
            std::fs::write(&file, &self.text).expect("the file can be written");
        }
        let committed = std::fs::read_to_string(&file).unwrap_or_default();
        let mut complaints = String::new();
        if self.text.lines().count() != committed.lines().count() {
            complaints.push_str("another number of lines\n");
        }
        let lines = self.text.lines().zip(committed.lines()).zip(&self.kinds);
        for ((now, then), columns) in lines {
            compare(&mut complaints, now, then, columns);
        }
        assert!(
            complaints.is_empty(),
            "{name}.txt:\n{complaints}\nnow:\n{}",
            self.text
        );
    }
}

fn compare(complaints: &mut String, now: &str, then: &str, columns: &[(&'static str, Kind)]) {
    let split = |line| split_cells(line, columns.len());
    let ((words, cells), (words_then, cells_then)) = (split(now), split(then));
    if words != words_then || cells.len() != cells_then.len() {
        let _ = writeln!(
            complaints,
            "other words: FULMAR_SIM_UPDATE=1 writes it anew\n  {then}\n  {now}"
        );
        return;
    }
    for ((now, then), (name, kind)) in cells.iter().zip(&cells_then).zip(columns) {
        let number = |text: &str| match text {
            "-" => f64::NAN,
            "never" => f64::INFINITY,
            _ => text.parse().expect("a number"),
        };
        if let Some(verdict) = kind.verdict(number(now), number(then)) {
            let row = words.join(" ");
            let _ = writeln!(complaints, "{row}, {name}: {now}, was {then}: {verdict}");
        }
    }
}

/// The words of a line, and its last `n` cells.
fn split_cells(line: &str, n: usize) -> (Vec<&str>, Vec<&str>) {
    let mut words: Vec<_> = line.split_whitespace().collect();
    let cells = words.split_off(words.len().saturating_sub(n));
    (words, cells)
}

#[test]
fn snapshot_verdicts() {
    let verdict = |kind: Kind, now, then| kind.verdict(now, then).map(|v| &v[..5]);
    assert_eq!(verdict(Kind::Share, 89.0, 90.0), None);
    assert_eq!(verdict(Kind::Share, 88.9, 90.0), Some("WORSE"));
    assert_eq!(verdict(Kind::Share, 91.1, 90.0), Some("bette"));
    assert_eq!(verdict(Kind::Overhead, 1.120, 1.100), None);
    assert_eq!(verdict(Kind::Overhead, 1.121, 1.100), Some("WORSE"));
    assert_eq!(verdict(Kind::Millis, 12.0, 10.0), None);
    assert_eq!(verdict(Kind::Millis, 13.0, 10.0), Some("WORSE"));
    assert_eq!(verdict(Kind::Millis, 109.0, 100.0), None);
    assert_eq!(verdict(Kind::Millis, 89.0, 100.0), Some("bette"));
    let never = f64::INFINITY;
    assert_eq!(verdict(Kind::Millis, never, 100.0), Some("WORSE"));
    assert_eq!(verdict(Kind::Millis, 100.0, never), Some("bette"));
    assert_eq!(verdict(Kind::Millis, never, never), None);
    assert_eq!(verdict(Kind::Share, NONE, NONE), None);
    assert_eq!(verdict(Kind::Share, 1.0, NONE), Some("diffe"));
    assert_eq!(verdict(Kind::Part, 40.0, 46.0), Some("diffe"));
    let mut complaints = String::new();
    let columns = [("share", Kind::Share), ("p99", Kind::Millis)];
    compare(&mut complaints, "a b 90.0 5", "a b 92.0 5", &columns);
    assert_eq!(complaints, "a b, share: 90.0, was 92.0: WORSE\n");
}
