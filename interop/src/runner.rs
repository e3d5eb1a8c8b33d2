//! Runs rows: several at a time, each with a deadline, and keeps the results in the order of the rows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::isolation;
use crate::program::{Pair, Program, Programs};
use crate::rows::{Cell, Context, Load, Row};

/// A cell that takes longer than this has failed.
const DEADLINE: Duration = Duration::from_secs(170);

/// What came out of one cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As expected; the observation.
    Passed(String),
    /// Not as expected; what was seen.
    Failed(String),
    /// Not run; why.
    Skipped(String),
    /// Not possible with these programs; why.
    Impossible(String),
}

/// All results: by row (its position) and pair.
pub type Results = BTreeMap<(usize, Pair), Outcome>;

/// A result as it comes.
#[derive(Clone, Debug)]
pub struct Report {
    /// Position of the row.
    pub row: usize,
    /// The pair.
    pub pair: Pair,
    /// What came out.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
}

/// Which rows and pairs to run.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Part of the row's id; all when empty.
    pub filter: String,
    /// Pairs; each row's default when empty.
    pub pairs: Vec<Pair>,
}

impl Choice {
    /// True when this cell is to be run. kcptun with itself is run by default only where the answer is not "ok":
    /// elsewhere it would test nothing of ours.
    #[must_use]
    pub fn wants(&self, row: &Row, pair: Pair) -> bool {
        let pair_wanted = if self.pairs.is_empty() {
            pair != Pair::KCPTUN || !crate::rows::is_transfer(row)
        } else {
            self.pairs.contains(&pair)
        };
        pair_wanted && row.id().contains(&self.filter)
    }
}

/// Runs the chosen cells with at most `jobs` busy ones at a time; `report` hears of each as it ends.
pub async fn run(
    rows: &[Row],
    programs: &Programs,
    choice: &Choice,
    jobs: usize,
    mut report: impl FnMut(&Report),
) -> Results {
    let (tx, mut rx) = mpsc::unbounded_channel();
    let permits = Arc::new(Semaphore::new(jobs.max(1)));
    let mut tasks = JoinSet::new();
    for (index, row) in rows.iter().enumerate() {
        for (pair, cell) in &row.cells {
            if !choice.wants(row, *pair) {
                continue;
            }
            let send = |outcome| {
                let _ = tx.send(Report {
                    row: index,
                    pair: *pair,
                    outcome,
                    took: Duration::ZERO,
                });
            };
            let expected = match cell {
                Cell::No(reason) => {
                    send(Outcome::Impossible(reason.clone()));
                    continue;
                }
                Cell::Expect(observation) => observation.clone(),
            };
            if let Some(reason) = programs.missing(*pair) {
                // A foreign program may be absent. Ours may not: without it nothing would be tested, and nothing fail.
                let ours = pair.has(Program::Fulmar) && programs.fulmar.is_err();
                let reason = reason.to_owned();
                send(if ours {
                    Outcome::Failed(reason)
                } else {
                    Outcome::Skipped(reason)
                });
                continue;
            }
            if let (true, Err(reason)) = (row.own_network, isolation::available()) {
                send(Outcome::Skipped(reason));
                continue;
            }
            let context = Context {
                programs: programs.clone(),
                pair: *pair,
            };
            let (row, pair, tx, permits) = (row.clone(), *pair, tx.clone(), Arc::clone(&permits));
            tasks.spawn(async move {
                // Rows that only wait begin at once; the others pass one gate.
                let permit = match row.load {
                    Load::Waits => None,
                    Load::Busy => permits.acquire_owned().await.ok(),
                };
                let begin = Instant::now();
                let work = async {
                    if row.own_network {
                        let programs = context.programs;
                        let cell = tokio::task::spawn_blocking(move || {
                            isolation::run(&programs, index, pair)
                        });
                        cell.await.unwrap_or_else(|e| Err(e.to_string()))
                    } else {
                        row.run(context).await
                    }
                };
                let outcome = match tokio::time::timeout(DEADLINE, work).await {
                    Err(_) => Outcome::Failed(format!("not done after {} s", DEADLINE.as_secs())),
                    Ok(Err(failure)) => Outcome::Failed(failure),
                    Ok(Ok(seen)) if seen == expected => Outcome::Passed(seen),
                    Ok(Ok(seen)) => Outcome::Failed(format!("{seen} (expected: {expected})")),
                };
                drop(permit);
                let _ = tx.send(Report {
                    row: index,
                    pair,
                    outcome,
                    took: begin.elapsed(),
                });
            });
        }
    }
    drop(tx);
    let mut results = Results::new();
    while let Some(done) = rx.recv().await {
        report(&done);
        results.insert((done.row, done.pair), done.outcome);
    }
    // A task that panicked sent nothing; its cell must not vanish.
    while let Some(joined) = tasks.join_next().await {
        joined.unwrap_or_default();
    }
    for (index, row) in rows.iter().enumerate() {
        for (pair, _) in row
            .cells
            .iter()
            .filter(|(pair, _)| choice.wants(row, *pair))
        {
            results
                .entry((index, *pair))
                .or_insert_with(|| Outcome::Failed("the test itself crashed".to_owned()));
        }
    }
    results
}

/// Sums: passed, failed, skipped. What is impossible is not counted.
#[must_use]
pub fn totals(results: &Results) -> (usize, usize, usize) {
    results
        .values()
        .fold((0, 0, 0), |(p, f, s), outcome| match outcome {
            Outcome::Passed(_) => (p + 1, f, s),
            Outcome::Failed(_) => (p, f + 1, s),
            Outcome::Skipped(_) => (p, f, s + 1),
            Outcome::Impossible(_) => (p, f, s),
        })
}
