//! Medians and spread, as a Markdown table.

use std::fmt::Write as _;

use crate::cases::TunnelKind;
use crate::measure::Figures;

/// The figures of one tunnel in one case, over the repetitions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples {
    columns: [Vec<f64>; COLUMNS.len()],
}

/// Heading and decimals of each column.
const COLUMNS: [(&str, usize); 11] = [
    ("Mbit/s", 0),
    ("% of the path", 0),
    ("CPU s/GB", 2),
    ("CPU s client", 2),
    ("CPU s server", 2),
    ("p50 ms", 1),
    ("p99 ms", 1),
    ("max ms", 1),
    ("MB client", 1),
    ("MB server", 1),
    ("bytes per byte", 2),
];

impl Samples {
    /// Adds one measurement.
    pub(crate) fn push(&mut self, f: &Figures) {
        let values = [
            f.goodput,
            f.share,
            f.cpu_per_gb,
            Some(f.cpu.0),
            Some(f.cpu.1),
            f.latency.map(|l| l.0),
            f.latency.map(|l| l.1),
            f.latency.map(|l| l.2),
            Some(f.memory.0),
            Some(f.memory.1),
            f.overhead,
        ];
        for (column, value) in self.columns.iter_mut().zip(values) {
            column.extend(value);
        }
    }
}

/// One row per tunnel: median, and in brackets the lowest and highest where they differ.
pub(crate) fn table(tunnels: &[TunnelKind], samples: &[Samples]) -> String {
    let used: Vec<usize> = (0..COLUMNS.len())
        .filter(|&c| samples.iter().any(|s| !s.columns[c].is_empty()))
        .collect();
    let mut out = String::from("| tunnel |");
    for &column in &used {
        let _ = write!(out, " {} |", COLUMNS[column].0);
    }
    let _ = writeln!(out, "\n|---|{}", "---|".repeat(used.len()));
    for (tunnel, samples) in tunnels.iter().zip(samples) {
        let _ = write!(out, "| {} |", tunnel.name);
        for &column in &used {
            let _ = write!(
                out,
                " {} |",
                cell(&samples.columns[column], COLUMNS[column].1)
            );
        }
        out.push('\n');
    }
    out
}

fn cell(values: &[f64], decimals: usize) -> String {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (Some(low), Some(high)) = (sorted.first(), sorted.last()) else {
        return "-".to_owned();
    };
    let median = sorted[sorted.len() / 2];
    let text = |v: f64| format!("{v:.decimals$}");
    if text(*low) == text(*high) {
        text(median)
    } else {
        format!("{} ({}..{})", text(median), text(*low), text(*high))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_spread() {
        assert_eq!(cell(&[3.0, 1.0, 2.0], 0), "2 (1..3)");
        assert_eq!(cell(&[2.0, 2.0], 1), "2.0");
        assert_eq!(cell(&[], 1), "-");
    }

    #[test]
    fn columns_without_figures_are_left_out() {
        let mut samples = Samples::default();
        samples.push(&Figures {
            goodput: Some(100.0),
            ..Figures::default()
        });
        let text = table(&[TunnelKind::named("fulmar").unwrap()], &[samples]);
        assert!(text.contains("Mbit/s") && !text.contains("p99"), "{text}");
        assert!(text.contains("| fulmar | 100 |"), "{text}");
    }
}
