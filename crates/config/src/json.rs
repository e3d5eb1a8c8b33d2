//! Reads one JSON object as Go does, and knows where everything stands.
//!
//! The grammar is strict JSON. Strings are decoded like Go's: bytes that are not UTF-8 and lone surrogates become
//! U+FFFD. Only the first value of a text counts. Lists and objects below the first are checked and skipped, not kept;
//! [`read_nested`] keeps the objects in the first.

use core::cell::Cell;
use core::fmt;

use crate::text;

/// A position in a text: line and column, both from 1, columns in characters.
pub(crate) type Position = (u32, u32);

/// A text that was read.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) top: Top,
    /// Where text stands behind the value.
    pub(crate) trailing: Option<Position>,
}

#[derive(Debug)]
pub(crate) enum Top {
    /// Members in order, duplicates included.
    Object(Vec<Member>),
    Null,
    /// Neither: what it is instead.
    Other(&'static str),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Member {
    pub(crate) key: String,
    pub(crate) key_at: Position,
    pub(crate) value: Value,
    pub(crate) at: Position,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    /// As written.
    Number(String),
    /// `replaced`: something in it was no text and became U+FFFD.
    String {
        text: String,
        replaced: bool,
    },
    Array,
    /// Its members where nested objects are kept, and otherwise none.
    Object(Vec<Member>),
    /// What JSON does not have, and other syntaxes do: what it is.
    Other(&'static str),
}

impl Value {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::String { .. } => "a text",
            Self::Array => "a list",
            Self::Object(_) => "an object",
            Self::Other(kind) => kind,
        }
    }
}

/// Why a text is not JSON.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SyntaxError {
    pub(crate) at: Position,
    pub(crate) what: What,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum What {
    Empty,
    Utf16,
    /// A character that only looks like one of JSON's.
    Lookalike(char),
    Comment,
    TrailingComma,
    MissingComma,
    MissingColon,
    KeyExpected,
    SingleQuotes,
    BareKey,
    ValueExpected,
    Word,
    Number,
    Control,
    Escape,
    Ends,
    Deep,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the file is empty",
            Self::Utf16 => "the file is in UTF-16",
            Self::Lookalike(c) => return write!(f, "{}", text::name(*c)),
            Self::Comment => "a comment",
            Self::TrailingComma => "a comma with nothing behind it",
            Self::MissingComma => "a comma is missing",
            Self::MissingColon => "a colon is missing behind the key",
            Self::KeyExpected => "a key is missing",
            Self::SingleQuotes => "single quotes",
            Self::BareKey => "a key without quotes",
            Self::ValueExpected => "a value is missing",
            Self::Word => "a word without quotes",
            Self::Number => "this is not a JSON number",
            Self::Control => "a line break or control character in a text",
            Self::Escape => "an unknown escape in a text",
            Self::Ends => "the file ends in the middle",
            Self::Deep => "too many brackets in each other",
        })
    }
}

impl What {
    /// What to do about it.
    pub(crate) fn hint(self) -> &'static str {
        match self {
            Self::Empty => "write {} for all defaults",
            Self::Utf16 => "save it as UTF-8",
            Self::Lookalike(c) => match text::lookalike(c) {
                Some((_, '"')) => "write texts and keys in plain double quotes",
                Some((_, ' ')) | None => "remove it, or write an ordinary blank",
                Some(_) => "write ASCII's own character",
            },
            Self::Comment => "JSON has no comments; remove it",
            Self::TrailingComma => "remove the comma",
            Self::MissingComma => "write one between two entries",
            Self::MissingColon => "write \"key\": value",
            Self::KeyExpected => "write \"key\": value, keys in double quotes",
            Self::SingleQuotes | Self::BareKey | Self::Word => {
                "write texts and keys in double quotes"
            }
            Self::ValueExpected => "write a text in double quotes, a number, true, false or null",
            Self::Number => "write digits only, without leading zeros",
            Self::Control => "write \\n or \\u000a, or close the quotes",
            Self::Escape => "write a backslash as \\\\",
            Self::Ends => "close all quotes and brackets",
            Self::Deep => "this is no configuration",
        }
    }
}

/// How deep lists and objects may stand in each other: as deep as Go goes.
const DEEPEST: usize = 10_000;
/// The same where nested objects are kept (docs/spec/kcptun-libev.md, section 3.1).
const DEEPEST_NESTED: usize = 256;

/// `bytes` without the mark that some editors put in front of UTF-8, and whether it was there.
pub(crate) fn without_mark(bytes: &[u8]) -> (&[u8], bool) {
    match bytes.strip_prefix(b"\xef\xbb\xbf") {
        Some(rest) => (rest, true),
        None => (bytes, false),
    }
}

/// Whether `bytes` are text in UTF-16: by its mark, or because every other byte of what begins it is zero.
pub(crate) fn is_utf16(bytes: &[u8]) -> bool {
    match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => true,
        [a, b, ..] => (*a == 0) != (*b == 0),
        _ => false,
    }
}

/// Reads the first value in `bytes`.
pub(crate) fn read(bytes: &[u8]) -> Result<Document, SyntaxError> {
    Scanner::new(bytes, false).document()
}

/// As [`read`], but keeps the members of objects that are values in the first one.
pub(crate) fn read_nested(bytes: &[u8]) -> Result<Document, SyntaxError> {
    Scanner::new(bytes, true).document()
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Whether the objects in the first one are kept.
    nested: bool,
    positions: Positions<'a>,
}

/// Lines and columns of offsets in a text.
pub(crate) struct Positions<'a> {
    bytes: &'a [u8],
    /// An offset and its position.
    mark: Cell<(usize, Position)>,
}

impl<'a> Positions<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            mark: Cell::new((0, (1, 1))),
        }
    }

    /// Line and column of byte `offset`. Counts on from the last answer, so that asking often is cheap.
    pub(crate) fn of(&self, offset: usize) -> Position {
        let (mut from, (mut line, mut column)) = self.mark.get();
        if offset < from {
            (from, line, column) = (0, 1, 1);
        }
        for byte in self.bytes.get(from..offset).unwrap_or_default() {
            match byte {
                b'\n' => (line, column) = (line.saturating_add(1), 1),
                // The rest of a character.
                0x80..=0xbf => {}
                _ => column = column.saturating_add(1),
            }
        }
        self.mark.set((offset, (line, column)));
        (line, column)
    }
}

impl<'a> Scanner<'a> {
    fn new(bytes: &'a [u8], nested: bool) -> Self {
        Self {
            bytes,
            at: 0,
            nested,
            positions: Positions::new(bytes),
        }
    }

    fn document(mut self) -> Result<Document, SyntaxError> {
        if is_utf16(self.bytes) {
            return Err(self.error(What::Utf16));
        }
        self.blank();
        let top = match self.peek() {
            None => return Err(self.error(What::Empty)),
            Some(b'{') => Top::Object(self.object(self.nested)?),
            Some(_) => match self.value(false)? {
                Value::Null => Top::Null,
                other => Top::Other(other.kind()),
            },
        };
        self.blank();
        let trailing = self.peek().map(|_| self.position(self.at));
        Ok(Document { top, trailing })
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn error(&self, what: What) -> SyntaxError {
        SyntaxError {
            at: self.position(self.at),
            what,
        }
    }

    fn position(&self, offset: usize) -> Position {
        self.positions.of(offset)
    }

    fn blank(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// The error for an unexpected byte where `otherwise` is what was missing.
    fn unexpected(&self, otherwise: What) -> SyntaxError {
        self.error(match self.peek() {
            None => What::Ends,
            Some(b'/' | b'#') => What::Comment,
            Some(b'\'') => What::SingleQuotes,
            Some(_) => self.lookalike().unwrap_or(otherwise),
        })
    }

    /// What is here if it is a character that only looks like one of JSON's.
    fn lookalike(&self) -> Option<What> {
        const LONGEST_CHARACTER: usize = 4;
        let rest = &self.bytes[self.at..];
        let rest = rest.get(..LONGEST_CHARACTER).unwrap_or(rest);
        let valid = match core::str::from_utf8(rest) {
            Ok(text) => text,
            Err(e) => core::str::from_utf8(&rest[..e.valid_up_to()]).unwrap_or_default(),
        };
        let c = valid.chars().next()?;
        text::lookalike(c).map(|_| What::Lookalike(c))
    }

    /// An object; with `keep` the objects in it are kept, too.
    fn object(&mut self, keep: bool) -> Result<Vec<Member>, SyntaxError> {
        let mut members = Vec::new();
        self.at += 1;
        self.blank();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(members);
        }
        loop {
            let (key, key_at) = self.key()?;
            let at = self.position(self.at);
            let value = self.value(keep)?;
            members.push(Member {
                key,
                key_at,
                value,
                at,
            });
            if self.next_entry(b'}')? {
                return Ok(members);
            }
        }
    }

    /// A key and its colon, up to the value.
    fn key(&mut self) -> Result<(String, Position), SyntaxError> {
        let at = self.position(self.at);
        match self.peek() {
            Some(b'"') => {}
            Some(c) if c.is_ascii_alphabetic() || c == b'_' => {
                return Err(self.error(What::BareKey));
            }
            _ => return Err(self.unexpected(What::KeyExpected)),
        }
        let start = self.at + 1;
        let (key, _) = self.string()?;
        self.blank();
        if self.peek() != Some(b':') {
            // A typographic quote does not end a text, so what follows looks odd instead.
            let written = core::str::from_utf8(&self.bytes[start..self.at]).unwrap_or_default();
            if let Some((offset, c)) = text::first_lookalike(written) {
                return Err(SyntaxError {
                    at: self.position(start + offset),
                    what: What::Lookalike(c),
                });
            }
            return Err(self.unexpected(What::MissingColon));
        }
        self.at += 1;
        self.blank();
        Ok((key, at))
    }

    /// Behind an entry of an object or list that ends with `close`: whether it ended.
    fn next_entry(&mut self, close: u8) -> Result<bool, SyntaxError> {
        self.blank();
        match self.peek() {
            Some(c) if c == close => {
                self.at += 1;
                Ok(true)
            }
            Some(b',') => {
                let comma = self.at;
                self.at += 1;
                self.blank();
                if self.peek() == Some(close) {
                    self.at = comma;
                    return Err(self.error(What::TrailingComma));
                }
                Ok(false)
            }
            _ => Err(self.unexpected(What::MissingComma)),
        }
    }

    /// Any value; lists, and objects without `keep`, are checked and skipped.
    fn value(&mut self, keep: bool) -> Result<Value, SyntaxError> {
        match self.peek() {
            Some(b'{') if keep => self.object(false).map(Value::Object),
            Some(b'{') => self.skip().map(|()| Value::Object(Vec::new())),
            Some(b'[') => self.skip().map(|()| Value::Array),
            Some(b'"') => self
                .string()
                .map(|(text, replaced)| Value::String { text, replaced }),
            Some(b'-' | b'0'..=b'9') => self.number().map(Value::Number),
            Some(b'+' | b'.') => Err(self.error(What::Number)),
            Some(c) if c.is_ascii_alphabetic() || c == b'_' => self.word(),
            _ => Err(self.unexpected(What::ValueExpected)),
        }
    }

    /// A whole object or list without recursion.
    fn skip(&mut self) -> Result<(), SyntaxError> {
        let deepest = if self.nested { DEEPEST_NESTED } else { DEEPEST };
        let mut open = Vec::new();
        loop {
            // Here a value begins.
            match self.peek() {
                Some(bracket @ (b'{' | b'[')) => {
                    if open.len() == deepest {
                        return Err(self.error(What::Deep));
                    }
                    let close = if bracket == b'{' { b'}' } else { b']' };
                    self.at += 1;
                    self.blank();
                    if self.peek() == Some(close) {
                        self.at += 1;
                    } else {
                        open.push(close);
                        if close == b'}' {
                            self.key()?;
                        }
                        continue;
                    }
                }
                _ => {
                    self.value(false)?;
                }
            }
            // Here a value has ended.
            loop {
                let Some(&close) = open.last() else {
                    return Ok(());
                };
                if self.next_entry(close)? {
                    open.pop();
                } else {
                    if close == b'}' {
                        self.key()?;
                    }
                    break;
                }
            }
        }
    }

    fn word(&mut self) -> Result<Value, SyntaxError> {
        let start = self.at;
        let rest = &self.bytes[start..];
        let len = rest
            .iter()
            .take_while(|b| b.is_ascii_alphanumeric() || **b == b'_')
            .count();
        let value = match &rest[..len] {
            b"null" => Value::Null,
            b"true" => Value::Bool(true),
            b"false" => Value::Bool(false),
            _ => return Err(self.error(What::Word)),
        };
        self.at += len;
        Ok(value)
    }

    fn number(&mut self) -> Result<String, SyntaxError> {
        let start = self.at;
        let rest = &self.bytes[start..];
        let len = rest
            .iter()
            .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.' | b'_'))
            .count();
        let text = &rest[..len];
        if !is_number(text) {
            return Err(self.error(What::Number));
        }
        self.at += len;
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    fn string(&mut self) -> Result<(String, bool), SyntaxError> {
        let mut text = String::new();
        let mut replaced = false;
        self.at += 1;
        loop {
            let rest = &self.bytes[self.at..];
            let plain = rest
                .iter()
                .take_while(|b| !matches!(b, b'"' | b'\\' | 0..=0x1f))
                .count();
            replaced |= push_utf8(&mut text, &rest[..plain]);
            self.at += plain;
            match self.peek() {
                None => return Err(self.error(What::Ends)),
                Some(b'"') => {
                    self.at += 1;
                    return Ok((text, replaced));
                }
                Some(b'\\') => {
                    let c = self.escape()?;
                    replaced |= c.is_none();
                    text.push(c.unwrap_or(char::REPLACEMENT_CHARACTER));
                }
                Some(_) => return Err(self.error(What::Control)),
            }
        }
    }

    /// One escape; `None` for a lone surrogate.
    fn escape(&mut self) -> Result<Option<char>, SyntaxError> {
        let c = match self.bytes.get(self.at + 1) {
            None => {
                self.at = self.bytes.len();
                return Err(self.error(What::Ends));
            }
            Some(c @ (b'"' | b'\\' | b'/')) => char::from(*c),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let unit = self.unit(self.at).ok_or_else(|| self.error(What::Escape))?;
                self.at += 6;
                let pair = self
                    .unit(self.at)
                    .filter(|_| (0xd800..0xdc00).contains(&unit));
                if let Some(Ok(c)) = pair.and_then(|low| char::decode_utf16([unit, low]).next()) {
                    self.at += 6;
                    return Ok(Some(c));
                }
                return Ok(char::from_u32(unit.into()));
            }
            Some(_) => return Err(self.error(What::Escape)),
        };
        self.at += 2;
        Ok(Some(c))
    }

    /// The UTF-16 unit of the `\uXXXX` at `at`.
    fn unit(&self, at: usize) -> Option<u16> {
        let digits = self.bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
        let text = core::str::from_utf8(digits).ok()?;
        // A sign would be accepted by the conversion.
        if !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        u16::from_str_radix(text, 16).ok()
    }
}

/// Appends `bytes`, each byte that is not part of a character as U+FFFD; whether there was one.
fn push_utf8(text: &mut String, mut bytes: &[u8]) -> bool {
    let mut replaced = false;
    loop {
        match core::str::from_utf8(bytes) {
            Ok(good) => {
                text.push_str(good);
                return replaced;
            }
            Err(e) => {
                let (good, bad) = bytes.split_at(e.valid_up_to());
                text.push_str(core::str::from_utf8(good).unwrap_or_default());
                text.push(char::REPLACEMENT_CHARACTER);
                replaced = true;
                bytes = bad.get(1..).unwrap_or_default();
            }
        }
    }
}

/// `-? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)?`
fn is_number(text: &[u8]) -> bool {
    let digits = |text: &[u8]| text.iter().take_while(|b| b.is_ascii_digit()).count();
    let text = text.strip_prefix(b"-").unwrap_or(text);
    let whole = digits(text);
    if whole == 0 || (whole > 1 && text.starts_with(b"0")) {
        return false;
    }
    let mut rest = &text[whole..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let len = digits(fraction);
        if len == 0 {
            return false;
        }
        rest = &fraction[len..];
    }
    if let Some(exponent) = rest.strip_prefix(b"e").or_else(|| rest.strip_prefix(b"E")) {
        let exponent = exponent
            .strip_prefix(b"+")
            .or_else(|| exponent.strip_prefix(b"-"))
            .unwrap_or(exponent);
        let len = digits(exponent);
        if len == 0 {
            return false;
        }
        rest = &exponent[len..];
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn members(text: &str) -> Vec<(String, Value)> {
        match read(text.as_bytes()).expect(text).top {
            Top::Object(members) => members.into_iter().map(|m| (m.key, m.value)).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn string(text: &str) -> (String, bool) {
        match members(&format!("{{\"k\":{text}}}")).remove(0).1 {
            Value::String { text, replaced } => (text, replaced),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn values_and_positions() {
        let text = "{\n \"é\": -12.5e+3,\r\n\t\"b\" : [1, {\"x\": []}, \"]\"] , \"n\":null,\"t\":true, \"o\":{}}";
        let Top::Object(members) = read(text.as_bytes()).expect("JSON").top else {
            panic!("object");
        };
        let got: Vec<_> = members
            .iter()
            .map(|m| (m.key.as_str(), m.key_at, m.at))
            .collect();
        assert_eq!(
            got,
            [
                ("é", (2, 2), (2, 7)),
                ("b", (3, 2), (3, 8)),
                ("n", (3, 30), (3, 34)),
                ("t", (3, 39), (3, 43)),
                ("o", (3, 49), (3, 53)),
            ]
        );
        assert_eq!(members[0].value, Value::Number("-12.5e+3".into()));
        assert_eq!(members[1].value, Value::Array);
        assert_eq!(members[4].value, Value::Object(Vec::new()));
    }

    #[test]
    fn strings_as_go_decodes_them() {
        assert_eq!(
            string(r#""a\"\\\/\b\f\n\r\té""#),
            ("a\"\\/\u{8}\u{c}\n\r\té".into(), false)
        );
        assert_eq!(string(r#""\ud83d\ude00""#), ("😀".into(), false));
        assert_eq!(
            string(r#""\ud83dx\ude00""#),
            ("\u{fffd}x\u{fffd}".into(), true)
        );
        assert_eq!(string(r#""\ud83d\u0041""#), ("\u{fffd}A".into(), true));
        let bytes = b"{\"k\":\"a\xf0\x9f\xffb\"}";
        let Top::Object(members) = read(bytes).expect("JSON").top else {
            panic!("object");
        };
        let text = "a\u{fffd}\u{fffd}\u{fffd}b".into();
        assert_eq!(
            members[0].value,
            Value::String {
                text,
                replaced: true
            }
        );
    }

    #[test]
    fn only_the_first_value_counts() {
        let document = read(b"{\"a\":1}\n  trailing").expect("JSON");
        assert_eq!(document.trailing, Some((2, 3)));
        assert_eq!(read(b" {} \n").expect("JSON").trailing, None);
        assert!(matches!(read(b"null").expect("JSON").top, Top::Null));
        assert!(matches!(
            read(b"[1]").expect("JSON").top,
            Top::Other("a list")
        ));
    }

    #[test]
    fn mistakes_say_where_and_what() {
        for (text, at, what) in [
            ("", (1, 1), What::Empty),
            (" \n ", (2, 2), What::Empty),
            ("{\"a\":1, // x\n}", (1, 9), What::Comment),
            ("{\"a\":1 /* x */}", (1, 8), What::Comment),
            ("# x\n{}", (1, 1), What::Comment),
            ("{\n\"a\":1,\n}", (2, 6), What::TrailingComma),
            ("{\"a\":[1,]}", (1, 8), What::TrailingComma),
            ("{\"a\":1 \"b\":2}", (1, 8), What::MissingComma),
            ("{\"a\":010}", (1, 6), What::Number),
            ("{\"a\":0x10}", (1, 6), What::Number),
            ("{\"a\":+1}", (1, 6), What::Number),
            ("{\"a\":.5}", (1, 6), What::Number),
            ("{\"a\":1.}", (1, 6), What::Number),
            ("{\"a\":1e}", (1, 6), What::Number),
            ("{\"a\":-}", (1, 6), What::Number),
            ("{\"a\" 1}", (1, 6), What::MissingColon),
            ("{a:1}", (1, 2), What::BareKey),
            ("{'a':1}", (1, 2), What::SingleQuotes),
            ("{\"a\":'1'}", (1, 6), What::SingleQuotes),
            ("{1:1}", (1, 2), What::KeyExpected),
            ("{,}", (1, 2), What::KeyExpected),
            ("{\"a\":}", (1, 6), What::ValueExpected),
            ("{\"a\":yes}", (1, 6), What::Word),
            ("{\"a\":True}", (1, 6), What::Word),
            ("not json", (1, 1), What::Word),
            ("{“a”: 1}", (1, 2), What::Lookalike('“')),
            ("{\"a”: \"b\"}", (1, 4), What::Lookalike('”')),
            ("{\"a\": “b”}", (1, 7), What::Lookalike('“')),
            ("{\"a\"：1}", (1, 5), What::Lookalike('：')),
            ("{\"a\":1，\"b\":2}", (1, 7), What::Lookalike('，')),
            ("{\u{a0}\"a\":1}", (1, 2), What::Lookalike('\u{a0}')),
            ("{\"a\":\u{a0}1}", (1, 6), What::Lookalike('\u{a0}')),
            ("｛\"a\":1}", (1, 1), What::Lookalike('｛')),
            ("{\u{0}\"\u{0}a\u{0}", (1, 1), What::Utf16),
            ("{\"a\":\"x\ny\"}", (1, 8), What::Control),
            ("{\"a\":\"\\x\"}", (1, 7), What::Escape),
            ("{\"a\":\"\\u12+4\"}", (1, 7), What::Escape),
            ("{\"a\":\"x", (1, 8), What::Ends),
            ("{\"a\":\"\\", (1, 8), What::Ends),
            ("{\"a\":1", (1, 7), What::Ends),
            ("{\"a\":", (1, 6), What::Ends),
            ("{", (1, 2), What::Ends),
            ("[[", (1, 3), What::Ends),
        ] {
            assert_eq!(
                read(text.as_bytes()).expect_err(text),
                SyntaxError { at, what },
                "{text}"
            );
        }
    }

    #[test]
    fn nested_objects_are_kept_on_demand() {
        let text = b"{\"a\":{\"b\":1,\n \"c\":{\"d\":2}},\"e\":[{}]}";
        let Top::Object(members) = read_nested(text).expect("JSON").top else {
            panic!("object");
        };
        let Value::Object(inner) = &members[0].value else {
            panic!("{members:?}");
        };
        assert_eq!(inner[0].value, Value::Number("1".into()));
        assert_eq!((inner[1].key_at, inner[1].at), ((2, 2), (2, 6)));
        assert_eq!(inner[1].value, Value::Object(Vec::new()));
        assert_eq!(members[1].value, Value::Array);
        let Top::Object(members) = read(text).expect("JSON").top else {
            panic!("object");
        };
        assert_eq!(members[0].value, Value::Object(Vec::new()));
        let deep = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n), "]".repeat(n));
        assert!(read_nested(deep(256).as_bytes()).is_ok());
        assert_eq!(
            read_nested(deep(257).as_bytes()).expect_err("deep").what,
            What::Deep
        );
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(read(nested(10_000).as_bytes()).is_ok());
        assert_eq!(
            read(nested(10_001).as_bytes()).expect_err("deep").what,
            What::Deep
        );
        assert_eq!(
            read("{\"a\":".repeat(20_000).as_bytes())
                .expect_err("deep")
                .what,
            What::Deep
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
        }

        /// Agrees with an independent reader about what is JSON, on texts that look like it.
        #[test]
        fn agrees_with_another_reader(text in "\\{(\"[a-c\\\\\\\\u0d8]{0,3}\" ?:? ?(-?[0-9.eE]{1,4}|true|nul|null|\"x\"|\\[[1,]{0,3}\\]|\\{\\}|\\{\"a\":[01]\\}),?){0,3}\\}") {
            let ours = read(text.as_bytes());
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            // Go takes a lone surrogate as U+FFFD and any size of number; the other reader does not.
            let special = text.contains("\\u") || text.contains(['e', 'E']);
            if special {
                prop_assert!(ours.is_ok() || theirs.is_err());
            } else {
                prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{}", text);
            }
        }
    }
}
