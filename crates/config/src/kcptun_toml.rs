//! Our own syntax for the same settings: TOML with the keys of kcptun's JSON file, and `role` if they do not tell whose it is.
//!
//! The parser is the `toml` crate's; this turns its table into the members that a JSON file has, each with its place.

use ::toml::Spanned;
use ::toml::de::{DeTable, DeValue};

use crate::json::{Member, Position, Positions, Value};
use crate::text;

/// Why a text is not TOML.
#[derive(Debug)]
pub(crate) struct NotToml {
    pub(crate) at: Option<Position>,
    /// What the parser says. It may show a part of the text.
    pub(crate) what: String,
    /// A character in that line that only looks like one of TOML's.
    pub(crate) lookalike: Option<char>,
}

/// Whether `content` is meant as TOML: its first line that is neither empty nor a comment begins with a key and an equals
/// sign, or is the heading of a table; or there are only comments, which JSON does not have.
pub(crate) fn meant(content: &[u8]) -> bool {
    let mut lines = content
        .split(|b| *b == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty())
        .peekable();
    if lines.peek().is_none() {
        return false;
    }
    let Some(line) = lines.find(|line| !line.starts_with(b"#")) else {
        return true;
    };
    let in_key = |b: &u8| b.is_ascii_alphanumeric() || b"_-. \t\"'".contains(b);
    match line.strip_prefix(b"[") {
        Some(heading) => {
            let name = heading.split(|b| *b == b']').next().unwrap_or_default();
            let name = name.strip_prefix(b"[").unwrap_or(name).trim_ascii();
            // Otherwise a list of JSON.
            let word = matches!(name, b"true" | b"false" | b"null");
            heading.contains(&b']')
                && !word
                && name.first().is_some_and(u8::is_ascii_alphabetic)
                && name.iter().all(in_key)
        }
        None => {
            let key = line.split(|b| *b == b'=').next().unwrap_or_default();
            key.len() < line.len() && !key.is_empty() && key.iter().all(in_key)
        }
    }
}

/// The entries of the top table of `content`, in order.
pub(crate) fn read(content: &[u8]) -> Result<Vec<Member>, NotToml> {
    let positions = Positions::new(content);
    let source = core::str::from_utf8(content).map_err(|e| NotToml {
        at: Some(positions.of(e.valid_up_to())),
        what: "bytes that are not UTF-8".into(),
        lookalike: None,
    })?;
    let table = DeTable::parse(source).map_err(|e| NotToml {
        at: e.span().map(|span| positions.of(span.start)),
        // One line, whatever the parser says.
        what: e.message().split_whitespace().collect::<Vec<_>>().join(" "),
        lookalike: e.span().and_then(|span| {
            let from = source.get(..span.start)?.rfind('\n').map_or(0, |at| at + 1);
            let line = source.get(from..)?.lines().next()?;
            text::first_lookalike(line).map(|(_, c)| c)
        }),
    })?;
    let mut entries: Vec<_> = table.into_inner().into_iter().collect();
    // The parser's order is that of the alphabet. Places are found quickest in the order of the file.
    entries.sort_by_key(|(key, _)| key.span().start);
    Ok(entries
        .into_iter()
        .map(|(key, value)| member(&positions, &key, &value))
        .collect())
}

fn member(
    positions: &Positions<'_>,
    key: &Spanned<impl AsRef<str>>,
    value: &Spanned<DeValue<'_>>,
) -> Member {
    let key_at = positions.of(key.span().start);
    Member {
        key: key.get_ref().as_ref().to_owned(),
        key_at,
        value: plain(value.get_ref()),
        at: positions.of(value.span().start),
    }
}

/// `value` as a JSON file would have it.
fn plain(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::String {
            text: text.to_string(),
            replaced: false,
        },
        DeValue::Integer(n) => match i128::from_str_radix(n.as_str(), n.radix()) {
            Ok(n) => Value::Number(n.to_string()),
            Err(_) => Value::Other("a number that is too large"),
        },
        DeValue::Float(n) if n.as_str().contains(['.', 'e', 'E']) => {
            Value::Number(n.as_str().to_owned())
        }
        DeValue::Float(_) => Value::Other("not a whole number"),
        DeValue::Boolean(on) => Value::Bool(*on),
        DeValue::Datetime(_) => Value::Other("a date or time"),
        DeValue::Array(_) => Value::Array,
        DeValue::Table(_) => Value::Other("a table"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_meant_as_toml() {
        for text in [
            "key = \"k\"",
            "\n\n  # words\n\tmode='auto'\n",
            "# nothing is set",
            "\"mtu\" = 1",
            "[client]\nmtu = 1",
            "[[client]]",
            "a.b = 1",
            "mtu = ",
        ] {
            assert!(meant(text.as_bytes()), "{text}");
        }
        for text in [
            "",
            " \n\t\n",
            "{\"key\": \"a=b\"}",
            "{\n\"key\": \"a=b\"}",
            "\"key\": \"a=b\"",
            "// words = 1\n{}",
            "# words\n{}",
            "null",
            "[]",
            "[1, 2]",
            "[true]",
            "[\"a\"]",
            "[a",
            "= 1",
            "just words",
        ] {
            assert!(!meant(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn entries_in_order_with_their_places() {
        let text = "# é\nmtu = 0x546 # é\n\"conn\" = 1_0\n  key = \"k\\u00e9\"\nquiet=true\nx.y = 1\nlog = [1]\n\n[t]\n";
        let members = read(text.as_bytes()).expect("toml");
        let rows: Vec<_> = members
            .iter()
            .map(|m| (m.key.as_str(), m.key_at, m.at, m.value.clone()))
            .collect();
        let text = |text: &str| Value::String {
            text: text.into(),
            replaced: false,
        };
        let number = |n: &str| Value::Number(n.into());
        assert_eq!(
            rows[..4],
            [
                ("mtu", (2, 1), (2, 7), number("1350")),
                ("conn", (3, 1), (3, 10), number("10")),
                ("key", (4, 3), (4, 9), text("ké")),
                ("quiet", (5, 1), (5, 7), Value::Bool(true)),
            ]
        );
        let rest: Vec<_> = rows[4..].iter().map(|row| (row.0, row.1)).collect();
        assert_eq!(rest, [("x", (6, 1)), ("log", (7, 1)), ("t", (9, 2))]);
        assert_eq!(rows[4].3.kind(), "a table");
        assert_eq!(rows[5].3.kind(), "a list");
    }

    #[test]
    fn numbers_and_other_values() {
        let value = |text: &str| {
            let members = read(format!("x = {text}").as_bytes()).expect(text);
            members.into_iter().next().expect("one").value
        };
        assert_eq!(value("-5"), Value::Number("-5".into()));
        assert_eq!(value("+0"), Value::Number("0".into()));
        assert_eq!(value("1e3"), Value::Number("1e3".into()));
        assert_eq!(
            value("99999999999999999999"),
            Value::Number("99999999999999999999".into())
        );
        let huge = format!("0x{}", "f".repeat(99));
        assert_eq!(value(&huge).kind(), "a number that is too large");
        assert_eq!(value("inf").kind(), "not a whole number");
        assert_eq!(value("2026-01-26").kind(), "a date or time");
        assert_eq!(value("{ a = 1 }").kind(), "a table");
    }

    #[test]
    fn what_is_no_toml_is_named_with_its_place() {
        for (text, at, what) in [
            (&b"a = 1\nmode = auto\n"[..], (2, 8), "quoted"),
            (b"a = 1\na = 2\n", (2, 1), "duplicate key"),
            (b"a = \"x\n", (1, 7), "string"),
            (b"a = 1 b = 2", (1, 9), "newline"),
            (b"a = 1\nb = \"\xff\"", (2, 6), "bytes that are not UTF-8"),
        ] {
            let error = read(text).expect_err("no TOML");
            assert_eq!(error.at, Some(at), "{}", error.what);
            assert!(error.what.contains(what), "{}", error.what);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "([a-c\"'=\\[\\]{}#.,1 \n\u{e9}]|\\\\u|\"\"\"){0,40}") {
            if let Err(error) = read(text.as_bytes()) {
                prop_assert!(!error.what.is_empty() && !error.what.contains('\n'));
            }
            meant(text.as_bytes());
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = read(&bytes);
            meant(&bytes);
        }
    }
}
