//! The table `bench/instructions.txt`: a heading, then a name and a number per row.

use std::fmt::Write as _;
use std::path::Path;

use crate::callgrind::Measured;

/// How much more than its row a part may cost.
const TOLERANCE: f64 = 1.03;
/// Instructions that are always allowed, for parts that cost next to nothing.
const SLACK: f64 = 1.0;

const HEADING: &str = "\
# Instructions that each part spends on one packet of 1350 bytes, as callgrind counts them on x86-64: ciphers and parity on
# their AVX2 kernels, since valgrind has no AVX-512. What is counted for each part is said in bench/instructions/src/parts.
# `cargo xtask instructions` fails when a part costs 3 % (and an instruction) more; `--update` writes this file.
";
const TOOLS: &str = "# counted with ";

/// Names and instructions per packet.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Table {
    tools: Option<String>,
    rows: Vec<(String, f64)>,
}

/// What became of a part.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// It costs what it did, or less.
    Fine,
    /// It costs more than its row.
    Dear,
    /// Table and parts do not fit, or a window costs.
    Wrong,
}

/// The outcome and what to say of it.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) outcome: Outcome,
    pub(crate) text: String,
}

impl Verdict {
    fn new(outcome: Outcome, text: &str) -> Self {
        let word = if outcome == Outcome::Fine {
            "ok"
        } else {
            "FAILED"
        };
        Self {
            outcome,
            text: format!("{word:<6} {text}"),
        }
    }
}

impl Table {
    /// The table of a file; one that is not there has no rows.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error.to_string()),
        }
    }

    pub(crate) fn write(&self, path: &Path) -> std::io::Result<()> {
        std::fs::write(path, self.text())
    }

    /// The compiler, C library and valgrind that it was made with.
    pub(crate) fn tools(&self) -> Option<&str> {
        self.tools.as_deref()
    }

    /// The same with what was measured. Rows of parts that are no more go, unless only `some` parts were measured.
    pub(crate) fn updated(&self, measured: &Measured, some: bool) -> Self {
        let mut rows = Vec::new();
        if some {
            rows.clone_from(&self.rows);
        }
        for (name, count) in &measured.parts {
            match rows.iter_mut().find(|(row, _)| row == name) {
                Some(row) => row.1 = *count,
                None => rows.push((name.clone(), *count)),
            }
        }
        Self {
            tools: Some(measured.tools.clone()),
            rows,
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut table = Self::default();
        for line in text.lines().map(str::trim) {
            if let Some(tools) = line.strip_prefix(TOOLS) {
                table.tools = Some(tools.to_owned());
            } else if !line.is_empty() && !line.starts_with('#') {
                let row = line.rsplit_once(' ').and_then(|(name, count)| {
                    Some((name.trim().to_owned(), count.parse::<f64>().ok()?))
                });
                table
                    .rows
                    .push(row.ok_or_else(|| format!("no row: {line:?}"))?);
            }
        }
        Ok(table)
    }

    fn text(&self) -> String {
        let mut text = HEADING.to_owned();
        if let Some(tools) = &self.tools {
            let _ = writeln!(text, "{TOOLS}{tools}");
        }
        text.push('\n');
        for (name, count) in &self.rows {
            let _ = writeln!(text, "{name:<60}{count:>12.1}");
        }
        text
    }

    fn row(&self, name: &str) -> Option<f64> {
        self.rows
            .iter()
            .find_map(|(row, count)| (row == name).then_some(*count))
    }
}

/// A verdict for each part. Rows without a part are wrong, unless only `some` parts were measured.
pub(crate) fn compare(table: &Table, measured: &Measured, some: bool) -> Vec<Verdict> {
    let mut verdicts: Vec<Verdict> = measured
        .parts
        .iter()
        .map(|(name, count)| {
            let (outcome, remark) = match table.row(name) {
                None => (Outcome::Wrong, "   is not in the table".to_owned()),
                Some(row) if (count - row).abs() <= SLACK => (Outcome::Fine, String::new()),
                Some(row) => {
                    let outcome = if *count > row * TOLERANCE + SLACK {
                        Outcome::Dear
                    } else {
                        Outcome::Fine
                    };
                    let change = 100.0 * (count - row) / row;
                    (outcome, format!("   {change:+.1} % of {row:.1}"))
                }
            };
            Verdict::new(outcome, &format!("{name:<60}{count:>12.1}{remark}"))
        })
        .collect();
    if !some {
        let gone = |row: &&(String, f64)| !measured.parts.iter().any(|part| part.0 == row.0);
        verdicts.extend(table.rows.iter().filter(gone).map(|(name, _)| {
            Verdict::new(
                Outcome::Wrong,
                &format!("{name:<60} is in the table and is no part"),
            )
        }));
    }
    verdicts
}

/// Whether `large` costs no more than `small`, if both were measured.
pub(crate) fn no_more(measured: &Measured, small: &str, large: &str) -> Option<Verdict> {
    let count = |name| {
        let part = measured.parts.iter().find(|part| part.0 == name);
        part.map(|part| part.1)
    };
    let outcome = if count(large)? > count(small)? * TOLERANCE + SLACK {
        Outcome::Wrong
    } else {
        Outcome::Fine
    };
    Some(Verdict::new(
        outcome,
        &format!("{large}: no more than {small}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(parts: &[(&str, f64)]) -> Measured {
        Measured {
            parts: parts.iter().map(|(n, c)| ((*n).to_owned(), *c)).collect(),
            tools: "rustc 1, valgrind 2".to_owned(),
        }
    }

    fn outcomes(table: &Table, parts: &[(&str, f64)], some: bool) -> Vec<Outcome> {
        let verdicts = compare(table, &measured(parts), some);
        verdicts.iter().map(|verdict| verdict.outcome).collect()
    }

    #[test]
    fn a_table_reads_what_it_wrote() {
        let parts = measured(&[("seal, window 128", 1234.5), ("open", 0.1)]);
        let table = Table::default().updated(&parts, false);
        assert_eq!(Table::parse(&table.text()), Ok(table));
        assert!(Table::parse("a row without a number").is_err());
    }

    #[test]
    fn three_percent_and_an_instruction_are_allowed() {
        let table = Table::default().updated(&measured(&[("a", 1000.0), ("b", 0.2)]), false);
        let fine = |a, b| outcomes(&table, &[("a", a), ("b", b)], false);
        assert_eq!(fine(1031.0, 1.2), [Outcome::Fine; 2]);
        assert_eq!(fine(1031.1, 1.3), [Outcome::Dear; 2]);
        assert_eq!(fine(1.0, 0.0), [Outcome::Fine; 2]);
    }

    #[test]
    fn parts_and_rows_belong_together() {
        let table = Table::default().updated(&measured(&[("a", 10.0), ("b", 10.0)]), false);
        assert_eq!(
            outcomes(&table, &[("a", 10.0), ("c", 10.0)], false),
            [Outcome::Fine, Outcome::Wrong, Outcome::Wrong]
        );
        assert_eq!(outcomes(&table, &[("a", 10.0)], true), [Outcome::Fine]);
    }

    #[test]
    fn an_update_of_some_keeps_the_rest() {
        let table = Table::default().updated(&measured(&[("a", 10.0), ("b", 20.0)]), false);
        let some = table.updated(&measured(&[("b", 30.0)]), true);
        assert_eq!((some.row("a"), some.row("b")), (Some(10.0), Some(30.0)));
        let all = table.updated(&measured(&[("b", 30.0)]), false);
        assert_eq!((all.row("a"), all.row("b")), (None, Some(30.0)));
    }

    #[test]
    fn large_windows_cost_no_more() {
        let parts = measured(&[("a", 1000.0), ("b", 1031.0), ("c", 1032.0)]);
        let outcome = |small, large| no_more(&parts, small, large).map(|v| v.outcome);
        assert_eq!(outcome("a", "b"), Some(Outcome::Fine));
        assert_eq!(outcome("c", "a"), Some(Outcome::Fine));
        assert_eq!(outcome("a", "c"), Some(Outcome::Wrong));
        assert_eq!(outcome("a", "d"), None);
    }
}
