//! kcptun-libev's JSON file (docs/spec/kcptun-libev.md, section 3.1): keys and types, before anything is made of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::hint::nearest;
use crate::json::{self, Document, Member, Top, Value};
use crate::kcptun_file::mark_skipped;
use crate::libev::keys::{self, LIBEV_KEYS, LibevKey, LibevKind, OBJECTS, OLD_NAMES};
use crate::origin::Origin;
use crate::problem::{Place, Problem, Severity};
use crate::text::printable;

/// Reading a file ends after so many problems.
const MOST_PROBLEMS: usize = 100;

/// A value as written, of the type that its key has. It may be a key.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Raw {
    Text(String),
    Int(u64),
    Bool(bool),
}

/// A value that somebody gave.
pub(super) struct Given {
    pub(super) raw: Raw,
    pub(super) origin: Origin,
}

/// What a file says.
pub(super) struct LibevFile<'a> {
    pub(super) path: &'a Path,
    pub(super) given: BTreeMap<&'static str, Given>,
    pub(super) problems: Vec<Problem>,
    /// Keys that stand in the file, also those whose value does not count.
    seen: BTreeSet<&'static str>,
}

impl<'a> LibevFile<'a> {
    /// Reads `text`, the content of the file at `path`.
    pub(super) fn parse(path: &'a Path, text: &[u8]) -> Result<Self, Problem> {
        let place = |at| Place::File {
            path: path.into(),
            at,
        };
        let (text, marked) = json::without_mark(text);
        let Document { top, trailing } = json::read_nested(text).map_err(|e| {
            Problem::error(place(Some(e.at)), e.what.to_string()).hint(e.what.hint())
        })?;
        let kind = match top {
            Top::Object(members) if trailing.is_none() => {
                let mut file = Self {
                    path,
                    given: BTreeMap::new(),
                    problems: Vec::new(),
                    seen: BTreeSet::new(),
                };
                if marked {
                    file.problems.push(mark_skipped(path));
                }
                file.members("", members);
                return Ok(file);
            }
            Top::Object(_) => {
                return Err(
                    Problem::error(place(trailing), "text behind the closing bracket")
                        .hint("remove it"),
                );
            }
            Top::Null => "null",
            Top::Other(kind) => kind,
        };
        Err(Problem::error(place(None), format!("the file is {kind}"))
            .hint("write an object: {\"key\": value, …}"))
    }

    /// The members of the object whose keys begin with `prefix`; whether reading goes on.
    fn members(&mut self, prefix: &str, members: Vec<Member>) -> bool {
        for member in members {
            if self.problems.len() >= MOST_PROBLEMS {
                self.problems.push(
                    Problem::error(
                        self.place(member.key_at),
                        "too much is wrong to go on reading",
                    )
                    .hint("mend what is said above"),
                );
                return false;
            }
            let object = OBJECTS
                .into_iter()
                .find(|name| prefix.is_empty() && *name == member.key);
            let goes_on = match object {
                Some(name) => self.object(name, member),
                None => {
                    self.member(prefix, member);
                    true
                }
            };
            if !goes_on {
                return false;
            }
        }
        true
    }

    fn object(&mut self, name: &'static str, member: Member) -> bool {
        if !self.seen.insert(name) {
            self.mistake(
                member.key_at,
                format!(
                    "\"{name}\" is given again; what the one before says counts no more, as in kcptun-libev"
                ),
                "write one object",
            );
        }
        let prefix = format!("{name}.");
        self.given.retain(|key, _| !key.starts_with(&prefix));
        self.seen.retain(|key| !key.starts_with(&prefix));
        let origin = self.origin(name, member.at);
        match member.value {
            Value::Object(members) => return self.members(&prefix, members),
            Value::Null => self.null(origin),
            other => self.problems.push(
                Problem::error(Place::Value(origin), format!("this is {}", other.kind()))
                    .hint("write an object: {\"key\": value, …}"),
            ),
        }
        true
    }

    fn member(&mut self, prefix: &str, member: Member) {
        let written = format!("{prefix}{}", member.key);
        let current = OLD_NAMES
            .into_iter()
            .find(|(old, _)| *old == written)
            .map_or(written.as_str(), |(_, current)| current);
        let Some(key) = keys::find(current).filter(|_| !member.key.contains('.')) else {
            self.unknown(prefix, &member);
            return;
        };
        if key.name != written {
            self.problems.push(
                Problem::new(
                    Severity::Note,
                    self.place(member.key_at),
                    format!("\"{written}\" is the old name of \"{}\"", key.name),
                )
                .hint(format!("write \"{}\"", key.name)),
            );
        }
        if !self.seen.insert(key.name) {
            self.mistake(
                member.key_at,
                format!("\"{written}\" is given again; the last one counts"),
                "remove one of them",
            );
        }
        let origin = self.origin(&written, member.at);
        match self.value(key, member.value, &origin) {
            Some(raw) => self.given.insert(key.name, Given { raw, origin }),
            None => self.given.remove(key.name),
        };
    }

    /// The value of `key`; `None` with a problem, also for one that does not count.
    fn value(&mut self, key: &LibevKey, value: Value, origin: &Origin) -> Option<Raw> {
        let what = match (key.kind, value) {
            (_, Value::Null) => {
                self.null(origin.clone());
                return None;
            }
            (
                LibevKind::Int {
                    min, max, default, ..
                },
                Value::Number(text),
            ) => {
                if text.contains(['.', 'e', 'E']) {
                    format!("{} is not a whole number", printable(text))
                } else {
                    match text.parse::<u64>() {
                        Ok(n) if (min..=max).contains(&n) => return Some(Raw::Int(n)),
                        _ => format!("{} is out of range, default {default}", printable(text)),
                    }
                }
            }
            (LibevKind::Bool(_), Value::Bool(on)) => return Some(Raw::Bool(on)),
            (LibevKind::Bool(_), Value::Number(text)) if text == "0" || text == "1" => {
                let on = text == "1";
                self.problems.push(
                    Problem::new(
                        Severity::Warning,
                        Place::Value(origin.clone()),
                        format!("{text} counts as {on}, as it did until v2.3.4"),
                    )
                    .hint(format!("write {on}")),
                );
                return Some(Raw::Bool(on));
            }
            (LibevKind::Int { .. } | LibevKind::Bool(_), Value::String { text, .. }) => {
                format!("\"{}\" is in quotes", printable(text))
            }
            (LibevKind::Int { .. } | LibevKind::Bool(_), other) => {
                format!("this is {}", other.kind())
            }
            (_, Value::String { replaced: true, .. }) => {
                self.problems.push(
                    Problem::error(
                        Place::Value(origin.clone()),
                        "the text has bytes that are not UTF-8, or half a surrogate pair",
                    )
                    .hint("save the file as UTF-8"),
                );
                return None;
            }
            (_, Value::String { text, .. }) if text.contains('\0') => {
                self.problems.push(
                    Problem::error(
                        Place::Value(origin.clone()),
                        "the text has a NUL character in it",
                    )
                    .hint("remove \\u0000"),
                );
                return None;
            }
            (_, Value::String { text, .. }) => return Some(Raw::Text(text)),
            // A number may be the password itself.
            (LibevKind::Secret, other) => format!("this is {}, not a text", other.kind()),
            (_, Value::Number(text)) => format!("{} is not in quotes", printable(text)),
            (_, other) => format!("this is {}", other.kind()),
        };
        let mut hint = key.kind.wanted();
        if matches!(key.kind, LibevKind::Int { .. }) {
            hint += ", without sign, quotes, fraction or exponent";
        }
        self.problems
            .push(Problem::error(Place::Value(origin.clone()), what).hint(hint));
        None
    }

    fn unknown(&mut self, prefix: &str, member: &Member) {
        let shown = printable(&member.key);
        let here = |key: &&'static LibevKey| match prefix {
            "" => !key.name.contains('.'),
            prefix => key.name.starts_with(prefix),
        };
        let short = |key: &'static LibevKey| key.name.rsplit('.').next().unwrap_or(key.name);
        let objects = if prefix.is_empty() { &OBJECTS[..] } else { &[] };
        let names = LIBEV_KEYS.iter().filter(here).map(short);
        // A key in the wrong object is likelier than a slip of the finger.
        let hint = LIBEV_KEYS
            .iter()
            .find(|key| short(key) == member.key)
            .map(|key| match key.name.split_once('.') {
                Some((object, name)) => {
                    format!("write it in an object: \"{object}\": {{\"{name}\": …}}")
                }
                None => format!("\"{}\" stands in no object", key.name),
            })
            .or_else(|| {
                nearest(&member.key, names.chain(objects.iter().copied()))
                    .map(|meant| format!("did you mean \"{meant}\"?"))
            });
        let whose = match prefix.strip_suffix('.') {
            None => "kcptun-libev has no such key".to_owned(),
            Some(object) => format!("\"{object}\" has no such key"),
        };
        let problem = Problem::new(
            Severity::Mistake,
            self.place(member.key_at),
            format!("\"{shown}\" is ignored: {whose}"),
        );
        self.problems.push(match hint {
            Some(hint) => problem.hint(hint),
            None => problem,
        });
    }

    fn null(&mut self, origin: Origin) {
        self.problems.push(
            Problem::new(
                Severity::Warning,
                Place::Value(origin),
                "null counts as not given; kcptun-libev refuses it since v2.3.5",
            )
            .hint("remove the key"),
        );
    }

    fn mistake(&mut self, at: json::Position, what: String, hint: &str) {
        let problem = Problem::new(Severity::Mistake, self.place(at), what);
        self.problems.push(problem.hint(hint));
    }

    fn place(&self, at: json::Position) -> Place {
        Place::File {
            path: self.path.into(),
            at: Some(at),
        }
    }

    fn origin(&self, key: &str, (line, column): json::Position) -> Origin {
        Origin::Json {
            file: self.path.into(),
            key: key.into(),
            line,
            column,
        }
    }
}
