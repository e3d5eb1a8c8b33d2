//! The tables of docs/compatibility.md: made from results, put between two markers of the file.

use std::fmt::Write as _;

use crate::program::Pair;
use crate::rows::{self, Row};
use crate::runner::{Outcome, Results};

/// First marker: what follows is replaced.
pub const BEGIN: &str = "<!-- interop table -->";
/// Last marker.
pub const END: &str = "<!-- end of interop table -->";

/// The tables as Markdown. The same results give the same text.
#[must_use]
pub fn markdown(rows: &[Row], results: &Results) -> String {
    let mut out = String::new();
    out.push_str("Every byte of every stream is checked at both ends. \"kcptun\" is Debian's package, release 20210922;\n");
    out.push_str("both ends are told the same smux version, because its default is 1. `-` marks what that release lacks.\n");
    let (transfer, behaviour): (Vec<_>, Vec<_>) = rows
        .iter()
        .enumerate()
        .partition(|(_, row)| rows::is_transfer(row));
    section(
        &mut out,
        "What arrives",
        &transfer,
        results,
        &[Pair::FULMAR_KCPTUN, Pair::KCPTUN_FULMAR, Pair::FULMAR],
    );
    section(&mut out, "What happens", &behaviour, results, &Pair::ALL);
    out
}

fn section(
    out: &mut String,
    title: &str,
    rows: &[(usize, &Row)],
    results: &Results,
    pairs: &[Pair],
) {
    let _ = writeln!(out, "\n#### {title}\n");
    let mut header = String::from("| |");
    let mut rule = String::from("|---|");
    for pair in pairs {
        let column = match (pair.client == pair.server, pair.client.name()) {
            (true, name) => format!("{name} at both ends"),
            (false, client) => format!("{client} client, {} server", pair.server.name()),
        };
        let _ = write!(header, " {column} |");
        rule.push_str("---|");
    }
    let _ = writeln!(out, "{header}\n{rule}");
    let mut group = "";
    for (index, row) in rows {
        if row.group != group {
            group = row.group;
            let _ = writeln!(out, "| **{group}** |{}", " |".repeat(pairs.len()));
        }
        let _ = write!(out, "| {} |", row.title);
        for pair in pairs {
            let text = match results.get(&(*index, *pair)) {
                Some(Outcome::Passed(seen)) => seen.clone(),
                // Without the details, which differ from run to run; they are in the output of the run.
                Some(Outcome::Failed(_)) => "**FAILED**".to_owned(),
                Some(Outcome::Skipped(_)) => "not run".to_owned(),
                Some(Outcome::Impossible(_)) | None => "-".to_owned(),
            };
            let _ = write!(out, " {text} |");
        }
        out.push('\n');
    }
}

/// `document` with everything between the markers replaced by `tables`.
///
/// # Errors
/// When the document does not have both markers, each once and in order.
pub fn put(document: &str, tables: &str) -> Result<String, String> {
    let one = |marker: &str| {
        let mut found = document.match_indices(marker).map(|(at, _)| at);
        match (found.next(), found.next()) {
            (Some(at), None) => Ok(at),
            _ => Err(format!(
                "`{marker}` must stand in the document exactly once"
            )),
        }
    };
    let (begin, end) = (one(BEGIN)? + BEGIN.len(), one(END)?);
    if begin > end {
        return Err("the markers are in the wrong order".to_owned());
    }
    Ok(format!(
        "{}\n\n{tables}\n{}",
        &document[..begin],
        &document[end..]
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let document = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let new = put(&document, "new").unwrap();
        assert_eq!(new, format!("before\n{BEGIN}\n\nnew\n{END}\nafter\n"));
        assert_eq!(put(&new, "new").unwrap(), new);
        assert!(put("no markers", "x").is_err());
        assert!(put(&format!("{END}{BEGIN}"), "x").is_err());
        assert!(put(&format!("{BEGIN}{BEGIN}{END}"), "x").is_err());
    }

    #[test]
    fn every_row_stands_in_a_table_once() {
        let rows = rows::all();
        let text = markdown(&rows, &Results::new());
        assert_eq!(
            text.lines()
                .filter(|l| l.starts_with("| ") && !l.starts_with("| **") && *l != "| |")
                .count()
                - 2,
            rows.len()
        );
    }
}
