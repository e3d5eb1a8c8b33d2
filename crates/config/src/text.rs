//! Text that others wrote, as it appears in messages: on one line, with nothing invisible in it, and not endless. And
//! characters that people take for others, by name.

use std::ffi::OsStr;

/// Most characters of a text that a message shows.
const LONGEST: usize = 80;

/// `text` for a message: control characters and invisible ones as escapes, and cut when it is long, or where a key may
/// follow: options that ran together, as in `mode=fast,key=…`.
///
/// Every text from a file, a command line or the environment goes through here or through [`quoted`] before it is shown.
#[must_use]
pub fn printable(text: impl AsRef<OsStr>) -> String {
    let whole = text.as_ref().to_string_lossy();
    let text = before_secret(&whole);
    let mut out = visible(text.chars().take(LONGEST));
    if text.len() < whole.len() || text.chars().nth(LONGEST).is_some() {
        out.push('…');
    }
    out
}

/// `text` up to the value of an option that is a key.
fn before_secret(text: &str) -> &str {
    const NAMES: [&str; 3] = ["key", "psk", "password"];
    // No change of length, so that offsets are those of the text.
    let lower = text.to_ascii_lowercase();
    let ends = NAMES.iter().flat_map(|name| lower.match_indices(name));
    let ends = ends.map(|(at, name)| at + name.len());
    let value = |end: &usize| lower[*end..].starts_with(['=', ':', '"', ' ']);
    match ends.filter(value).min() {
        Some(end) => &text[..=end],
        None => text,
    }
}

/// As [`printable`], in double quotes: a value.
#[must_use]
pub fn quoted(text: impl AsRef<OsStr>) -> String {
    format!("\"{}\"", printable(text))
}

/// As [`printable`], but whole: a path, which is of no use without its end.
#[must_use]
pub fn path(path: impl AsRef<OsStr>) -> String {
    visible(path.as_ref().to_string_lossy().chars())
}

/// `text` on one line, as a last resort for what others have put together.
#[must_use]
pub fn one_line(text: &str) -> String {
    visible(text.chars())
}

fn visible(chars: impl Iterator<Item = char>) -> String {
    let mut out = String::new();
    for c in chars {
        if c.is_control() || is_invisible(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Whether `c` shows as nothing, as a blank that is none, or changes the direction of what follows.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{a0}' | '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{1680}' | '\u{180e}'
        | '\u{2000}'..='\u{200f}' | '\u{2028}'..='\u{202f}' | '\u{205f}'..='\u{206f}' | '\u{3000}'
        | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// What `c` is if it is one of those that word processors, web pages and input methods put in the place of ASCII's, and the
/// character that is meant; `None` of all others.
#[must_use]
pub fn lookalike(c: char) -> Option<(&'static str, char)> {
    Some(match c {
        '“' | '”' | '„' | '‟' | '«' | '»' | '″' | '‘' | '’' | '‚' | '‛' | '‹' | '›' | '′' => {
            ("a typographic quote", '"')
        }
        '‐' | '‑' | '‒' | '–' | '—' | '―' | '−' => ("a typographic dash", '-'),
        '\u{a0}' | '\u{2007}' | '\u{202f}' => ("a no-break space", ' '),
        '\u{3000}' => ("a full-width blank", ' '),
        // The full-width forms of ASCII stand in its order.
        '\u{ff01}'..='\u{ff5e}' => {
            let ascii = u32::from(c) - 0xff01 + u32::from('!');
            let ascii = char::from_u32(ascii)?;
            let what = match ascii {
                ':' => "a full-width colon",
                ',' => "a full-width comma",
                '"' | '\'' => "a full-width quote",
                _ => "a full-width character",
            };
            (what, ascii)
        }
        '、' => ("a full-width comma", ','),
        '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{205f}' | '\u{85}' | '\u{2028}' | '\u{2029}' => {
            ("a blank that is not ASCII's", ' ')
        }
        c if is_invisible(c) => ("an invisible character", ' '),
        _ => return None,
    })
}

/// The name of `c`, with its number: `a no-break space (U+00A0)`; an ordinary character is `the character "c" (U+0063)`.
#[must_use]
pub fn name(c: char) -> String {
    let number = u32::from(c);
    match lookalike(c) {
        Some((what, _)) => format!("{what} (U+{number:04X})"),
        None => format!("the character {} (U+{number:04X})", quoted(c.to_string())),
    }
}

/// The first character of `text` that is [`lookalike`] another, with its offset in bytes.
#[must_use]
pub fn first_lookalike(text: &str) -> Option<(usize, char)> {
    text.char_indices().find(|(_, c)| lookalike(*c).is_some())
}

/// `n` of `what`, which takes an s: `1 packet`, `2 packets`.
#[must_use]
pub fn count(n: impl Into<u64>, what: &str) -> String {
    let n = n.into();
    format!("{n} {}", plural(n, what))
}

/// `what` as it stands behind the number `n`.
#[must_use]
pub fn plural(n: impl Into<u64>, what: &str) -> String {
    if n.into() == 1 || what.is_empty() {
        what.into()
    } else {
        format!("{what}s")
    }
}

/// `line` in pieces of at most `width` characters, broken at blanks where there are some; all but the first begin with
/// `indent` blanks, which have to be fewer than `width`.
#[must_use]
pub fn wrap(line: &str, width: usize, indent: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest = line.trim_end();
    let mut start = 0;
    while rest.chars().count() + start > width {
        let room = width - start;
        let (at, _) = rest.char_indices().nth(room).unwrap_or((rest.len(), ' '));
        // One right behind the last character that fits will do; one in the indentation of the line will not.
        let body = rest.len() - rest.trim_start().len();
        let blank = match rest[at..].starts_with(' ') {
            true => Some(at),
            false => rest[..at].rfind(' '),
        };
        let blank = blank.filter(|at| *at > body);
        let at = blank.unwrap_or(at);
        let (piece, more) = rest.split_at(at);
        lines.push(format!("{:start$}{}", "", piece.trim_end()));
        rest = more.trim_start();
        start = indent;
    }
    lines.push(format!("{:start$}{rest}", ""));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_stay_on_their_line() {
        assert_eq!(printable("a\nb\r\u{1b}[31m"), "a\\nb\\r\\u{1b}[31m");
        assert_eq!(printable("a\u{a0}b\u{202e}c"), "a\\u{a0}b\\u{202e}c");
        assert_eq!(quoted("é x"), "\"é x\"");
        assert_eq!(printable("x".repeat(200)).chars().count(), 81);
        assert_eq!(path("x".repeat(200)).len(), 200);
        assert_eq!(printable("fast,Key=abc"), "fast,Key=…");
        assert_eq!(printable("é\"psk\":\"abc\""), "é\"psk\"…");
        assert_eq!(printable("--key"), "--key");
    }

    #[test]
    fn lookalikes_are_named() {
        for (c, text) in [
            ('“', "a typographic quote (U+201C)"),
            ('\u{a0}', "a no-break space (U+00A0)"),
            ('：', "a full-width colon (U+FF1A)"),
            ('，', "a full-width comma (U+FF0C)"),
            ('–', "a typographic dash (U+2013)"),
            ('\u{200b}', "an invisible character (U+200B)"),
            ('%', "the character \"%\" (U+0025)"),
        ] {
            assert_eq!(name(c), text);
        }
        assert_eq!(lookalike('｛').map(|(_, ascii)| ascii), Some('{'));
        assert_eq!(first_lookalike("ab：c"), Some((2, '：')));
        assert_eq!(first_lookalike("plain: é 中"), None);
        assert!((0..128_u8).all(|b| lookalike(char::from(b)).is_none()));
    }

    #[test]
    fn lines_are_broken_at_blanks() {
        assert_eq!(wrap("short", 10, 2), ["short"]);
        assert_eq!(
            wrap("one two three four", 10, 2),
            ["one two", "  three", "  four"]
        );
        assert_eq!(wrap("exactly 10", 10, 2), ["exactly 10"]);
        assert_eq!(wrap("exactly 10 more", 10, 2), ["exactly 10", "  more"]);
        assert_eq!(wrap("abcdefghijklmnop", 10, 2), ["abcdefghij", "  klmnop"]);
        assert_eq!(
            wrap("  abcdefghijklmnop", 10, 4),
            ["  abcdefgh", "    ijklmn", "    op"]
        );
        assert_eq!(wrap("ééééé ééééé é", 5, 0), ["ééééé", "ééééé", "é"]);
    }

    #[test]
    fn one_is_singular() {
        assert_eq!(
            (count(1_u8, "packet"), count(0_u8, "packet")),
            ("1 packet".into(), "0 packets".into())
        );
    }

    proptest! {
        #[test]
        fn wrapped_lines_fit_and_lose_nothing(line in "( {0,3}[a-zé]{1,30}){0,8}", width in 8_usize..40, indent in 0_usize..6) {
            let lines = wrap(&line, width, indent);
            prop_assert!(lines.iter().all(|l| l.chars().count() <= width), "{lines:?}");
            let solid = |text: &str| text.split_whitespace().collect::<String>();
            prop_assert_eq!(solid(&lines.concat()), solid(&line));
        }

        #[test]
        fn nothing_invisible_is_left(text in "\\PC{0,20}|[\\x00-\\x20\u{80}-\u{a0}\u{200b}-\u{2030}]{0,20}") {
            for shown in [printable(&text), quoted(&text), path(&text), one_line(&text)] {
                prop_assert!(!shown.chars().any(|c| c.is_control() || is_invisible(c)));
            }
        }
    }
}
