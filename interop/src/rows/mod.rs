//! What is tried: one row per question, one cell per pair of programs.
//!
//! A cell's job answers with an *observation*: "ok" where bytes had to arrive, or a few words where the question is
//! what happens. The observation is compared with what the row expects for this pair and then stands in the table,
//! so the table says what was seen in this run. Observations carry no figures that differ between runs.

mod behaviour;
mod network;
mod transfer;

use std::pin::Pin;
use std::sync::Arc;

use crate::program::{Pair, Programs};
use crate::tunnel::{Setup, Tunnel};

/// Observation of a row where everything had to arrive and did.
pub const OK: &str = "ok";

/// A job's result: an observation, or why there is none.
pub type Observed = Result<String, String>;

type Job = Arc<dyn Fn(Context) -> Pin<Box<dyn Future<Output = Observed> + Send>> + Send + Sync>;

/// What a job works with.
#[derive(Clone, Debug)]
pub struct Context {
    /// Where the programs are.
    pub programs: Programs,
    /// The pair to run.
    pub pair: Pair,
}

impl Context {
    /// Starts a tunnel.
    ///
    /// # Errors
    /// See [`Tunnel::start`].
    pub async fn tunnel(&self, setup: Setup) -> Result<Tunnel, String> {
        Tunnel::start(&self.programs, setup).await
    }
}

/// How much of the machine a row needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Keeps a core busy: few at a time.
    Busy,
    /// Mostly waits for a timeout: all at once.
    Waits,
}

/// One cell of a row.
#[derive(Clone, Debug)]
pub enum Cell {
    /// Run, and expect this observation.
    Expect(String),
    /// Not possible with these programs: the reason.
    No(String),
}

/// One question.
#[derive(Clone)]
pub struct Row {
    /// Heading under which it stands in the table.
    pub group: &'static str,
    /// The question.
    pub title: String,
    /// How much of the machine it needs.
    pub load: Load,
    /// It changes firewall rules, needs raw sockets or the wildcard address: runs in a network namespace of its own.
    pub own_network: bool,
    /// What to do per pair. Pairs that are not listed are not part of the row.
    pub cells: Vec<(Pair, Cell)>,
    job: Job,
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Row")
            .field("group", &self.group)
            .field("title", &self.title)
            .finish_non_exhaustive()
    }
}

impl Row {
    fn new<F, R>(group: &'static str, title: impl Into<String>, job: F) -> Self
    where
        F: Fn(Context) -> R + Send + Sync + 'static,
        R: Future<Output = Observed> + Send + 'static,
    {
        Self {
            group,
            title: title.into(),
            load: Load::Busy,
            own_network: false,
            cells: Vec::new(),
            job: Arc::new(move |context| Box::pin(job(context))),
        }
    }

    fn expect(mut self, pair: Pair, observation: &str) -> Self {
        self.cells
            .push((pair, Cell::Expect(observation.to_owned())));
        self
    }

    fn no(mut self, pair: Pair, reason: &str) -> Self {
        self.cells.push((pair, Cell::No(reason.to_owned())));
        self
    }

    /// The same observation from every pair, kcptun with itself included.
    fn everywhere(self, observation: &str) -> Self {
        Pair::ALL
            .into_iter()
            .fold(self, |row, pair| row.expect(pair, observation))
    }

    fn waits(mut self) -> Self {
        self.load = Load::Waits;
        self
    }

    fn own_network(mut self) -> Self {
        self.own_network = true;
        self
    }

    /// Name for filters and reports.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}: {}", self.group, self.title)
    }

    /// What is planned for a pair.
    #[must_use]
    pub fn cell(&self, pair: Pair) -> Option<&Cell> {
        self.cells
            .iter()
            .find(|(p, _)| *p == pair)
            .map(|(_, cell)| cell)
    }

    /// Runs one cell.
    pub fn run(&self, context: Context) -> Pin<Box<dyn Future<Output = Observed> + Send>> {
        (self.job)(context)
    }
}

/// Every row, in the order of the tables.
#[must_use]
pub fn all() -> Vec<Row> {
    let mut rows = transfer::rows();
    rows.extend(network::rows());
    rows.extend(behaviour::rows());
    rows
}

/// True for rows whose answer is "ok": they make the first table; the others say what happens.
#[must_use]
pub fn is_transfer(row: &Row) -> bool {
    row.cells
        .iter()
        .all(|(_, cell)| matches!(cell, Cell::No(_)) || matches!(cell, Cell::Expect(o) if o == OK))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn rows_have_distinct_names_and_cells() {
        let rows = all();
        let ids: BTreeSet<String> = rows.iter().map(Row::id).collect();
        assert_eq!(ids.len(), rows.len());
        for row in &rows {
            let pairs: BTreeSet<Pair> = row.cells.iter().map(|(p, _)| *p).collect();
            assert_eq!(pairs.len(), row.cells.len(), "{}", row.id());
            assert!(!row.title.contains('|'), "{}", row.title);
        }
    }

    #[test]
    fn every_cipher_of_the_package_is_tried_in_both_directions() {
        let rows = all();
        for name in [
            "aes", "aes-128", "aes-192", "salsa20", "blowfish", "twofish", "cast5", "3des", "tea",
            "xtea", "xor", "sm4", "none",
        ] {
            for smux in 1..=2 {
                let title = format!("{name}, smux {smux}");
                let row = rows
                    .iter()
                    .find(|r| r.title == title)
                    .unwrap_or_else(|| panic!("no row {title}"));
                for pair in Pair::ALL {
                    assert!(
                        matches!(row.cell(pair), Some(Cell::Expect(o)) if o == OK),
                        "{title} {pair}"
                    );
                }
            }
        }
    }
}
