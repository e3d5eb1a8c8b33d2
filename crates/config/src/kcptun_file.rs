//! kcptun's JSON file (docs/spec/kcptun.md, section 3.6), and the same settings in TOML, which is ours.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use zeroize::Zeroizing;

use crate::json::{self, Document, Member, Position, Top, Value};
use crate::kcptun_toml;
use crate::options::{self, Kind, Opt, Side};
use crate::origin::Origin;
use crate::problem::{Place, Problem, Severity};
use crate::text::{self, printable};
use crate::values::{Raw, Values, meant, wanted};

/// Files above this size, in bytes, are no configuration. Kcptun's own are below 1 KiB.
const LARGEST: u64 = 1 << 20;
/// Reading a file ends after so many problems.
const MOST_PROBLEMS: usize = 100;

/// The key that tells whose a TOML file is. Kcptun's JSON file has no such key.
const ROLE: &str = "role";

/// A file that is one JSON object (or `null`), or a table of TOML.
pub(crate) struct SettingsFile<'a> {
    path: &'a Path,
    members: Vec<Member>,
    /// Whose it says it is, and where.
    role: Option<(Side, Position)>,
    /// How a role would be said in it.
    role_hint: &'static str,
    problems: Vec<Problem>,
}

impl<'a> SettingsFile<'a> {
    /// Reads the file at `path`.
    pub(crate) fn open(path: &'a Path) -> Result<Self, Problem> {
        Self::parse(path, &read(path)?)
    }

    /// Reads `text`, the content of the file at `path`. Its content tells which syntax it has, not its name.
    pub(crate) fn parse(path: &'a Path, text: &[u8]) -> Result<Self, Problem> {
        let (text, marked) = json::without_mark(text);
        let mut file = if kcptun_toml::meant(text) {
            Self::parse_toml(path, text)
        } else {
            Self::parse_json(path, text)
        }?;
        if marked {
            file.problems.push(mark_skipped(path));
        }
        Ok(file)
    }

    fn parse_toml(path: &'a Path, text: &[u8]) -> Result<Self, Problem> {
        let place = |at| Place::File {
            path: path.into(),
            at,
        };
        let mut members = kcptun_toml::read(text).map_err(|e| {
            let what = match e.lookalike {
                Some(c) => format!("{} in the line", text::name(c)),
                None => printable(e.what),
            };
            Problem::error(place(e.at), format!("this is not TOML: {what}"))
                .hint("write key = value, texts in plain double quotes")
        })?;
        let role = members.iter().position(|member| member.key == ROLE);
        let role = match role.map(|index| members.remove(index)) {
            None => None,
            Some(Member {
                key_at, value, at, ..
            }) => {
                let side = match &value {
                    Value::String { text, .. } => [Side::Client, Side::Server]
                        .into_iter()
                        .find(|side| side.name() == text),
                    _ => None,
                };
                let Some(side) = side else {
                    return Err(Problem::error(
                        place(Some(at)),
                        "the role is neither client nor server",
                    )
                    .hint("write \"client\" or \"server\", in double quotes"));
                };
                Some((side, key_at))
            }
        };
        Ok(Self {
            path,
            members,
            role,
            role_hint: "say so with role = \"client\" or role = \"server\"",
            problems: Vec::new(),
        })
    }

    fn parse_json(path: &'a Path, text: &[u8]) -> Result<Self, Problem> {
        let place = |at| Place::File {
            path: path.into(),
            at,
        };
        let Document { top, trailing } = json::read(text).map_err(|e| {
            Problem::error(place(Some(e.at)), e.what.to_string()).hint(e.what.hint())
        })?;
        let mut problems = Vec::new();
        let members = match top {
            Top::Object(members) => members,
            Top::Null => {
                problems.push(
                    Problem::new(
                        Severity::Mistake,
                        place(None),
                        "the file says only null, so all defaults hold",
                    )
                    .hint("write {} for that"),
                );
                Vec::new()
            }
            Top::Other(kind) => {
                return Err(Problem::error(place(None), format!("the file is {kind}"))
                    .hint("write an object: {\"key\": value, …}"));
            }
        };
        if trailing.is_some() {
            problems.push(
                Problem::new(
                    Severity::Mistake,
                    place(trailing),
                    "the text behind the closing bracket is ignored",
                )
                .hint("remove it"),
            );
        }
        Ok(Self {
            path,
            members,
            role: None,
            role_hint: "say so with --role client or --role server",
            problems,
        })
    }

    /// Whose file it is: as it says, or by the address keys in it, and failing these by the keys that only one side has.
    pub(crate) fn side(&self) -> Result<Side, Problem> {
        if let Some((side, _)) = self.role {
            return Ok(side);
        }
        let has = |side: Side, addresses: bool| {
            self.members
                .iter()
                .filter_map(|m| find(side, &m.key))
                .any(|opt| {
                    opt.only == Some(side) && (!addresses || opt.group == options::Group::Addresses)
                })
        };
        let by = |addresses| match [Side::Client, Side::Server].map(|side| has(side, addresses)) {
            [true, false] => Some(Side::Client),
            [false, true] => Some(Side::Server),
            _ => None,
        };
        by(true).or_else(|| by(false)).ok_or_else(|| {
            let both = has(Side::Client, true) && has(Side::Server, true);
            let what = if both {
                "the file has both a client's and a server's addresses"
            } else {
                "the file does not tell whether it is a client's (localaddr, remoteaddr) or a server's (listen, target)"
            };
            Problem::error(
                Place::File {
                    path: self.path.into(),
                    at: None,
                },
                what,
            )
            .hint(self.role_hint)
        })
    }

    /// Writes what the file says into `values`.
    pub(crate) fn apply(self, values: &mut Values, problems: &mut Vec<Problem>) {
        problems.extend(self.problems);
        if let Some((side, at)) = self.role
            && side != values.side()
        {
            let place = Place::File {
                path: self.path.into(),
                at: Some(at),
            };
            let what = format!(
                "the file is a {}'s, and a {} was asked for",
                side.name(),
                values.side().name()
            );
            problems.push(Problem::error(place, what).hint("ask for the other, or mend the role"));
        }
        let mut seen: Vec<(&'static Opt, String)> = Vec::new();
        for member in self.members {
            let place = Place::File {
                path: self.path.into(),
                at: Some(member.key_at),
            };
            if problems.len() >= MOST_PROBLEMS {
                problems.push(
                    Problem::error(place, "too much is wrong to go on reading")
                        .hint("mend what is said above"),
                );
                return;
            }
            let Some(opt) = find(values.side(), &member.key) else {
                problems.push(unknown(values.side(), &member.key, place));
                continue;
            };
            if let Some((_, before)) = seen.iter().find(|(known, _)| known.id == opt.id) {
                problems.push(
                    Problem::new(
                        Severity::Mistake,
                        place,
                        format!(
                            "\"{}\" is given again, as \"{before}\" before; the last one counts",
                            printable(&member.key)
                        ),
                    )
                    .hint("remove one of them"),
                );
            }
            seen.push((opt, printable(&member.key)));
            let (line, column) = member.at;
            let origin = Origin::Json {
                file: self.path.into(),
                key: printable(&member.key),
                line,
                column,
            };
            set(values, opt, member.value, origin, problems);
        }
    }
}

fn set(
    values: &mut Values,
    opt: &'static Opt,
    value: Value,
    origin: Origin,
    problems: &mut Vec<Problem>,
) {
    let mut refuse = |origin, what: String| {
        problems.push(Problem::error(Place::Value(origin), what).hint(wanted_json(opt)));
    };
    match (opt.kind, value) {
        (_, Value::Null) => {}
        (Kind::Int { .. }, Value::Number(text)) => match text.parse() {
            Ok(n) => values.set(opt.id, Raw::Int(n), origin),
            Err(_) if text.contains(['.', 'e', 'E']) => {
                refuse(origin, format!("{} is not a whole number", printable(text)));
            }
            Err(_) => refuse(origin, format!("{} is too large", printable(text))),
        },
        (Kind::Bool, Value::Bool(on)) => values.set(opt.id, Raw::Bool(on), origin),
        (Kind::Text | Kind::Name { .. } | Kind::Path, Value::String { text, replaced }) => {
            if replaced {
                problems.push(
                    Problem::new(
                        Severity::Mistake,
                        Place::Value(origin.clone()),
                        "bytes that are not UTF-8 count as U+FFFD, as in kcptun",
                    )
                    .hint("save the file as UTF-8"),
                );
            }
            values.set(opt.id, Raw::Text(text.into()), origin);
        }
        (Kind::Int { .. } | Kind::Bool, Value::String { text, .. }) => {
            refuse(origin, format!("\"{}\" is in quotes", printable(text)));
        }
        (_, other) => refuse(origin, format!("this is {}", other.kind())),
    }
}

fn wanted_json(opt: &Opt) -> String {
    match opt.kind {
        Kind::Text | Kind::Path => "write a text in double quotes".into(),
        Kind::Name { .. } => format!("{}, in double quotes", wanted(opt)),
        Kind::Int { .. } => format!("{}, without quotes, fraction or exponent", wanted(opt)),
        Kind::Bool => "write true or false without quotes".into(),
    }
}

/// The option of `side` whose key is `key`, by Go's comparison without case.
fn find(side: Side, key: &str) -> Option<&'static Opt> {
    let folded: String = key.chars().map(fold).collect();
    options::of(side).find(|opt| opt.key == Some(folded.as_str()))
}

/// ASCII without case; two letters outside ASCII fold into it, too.
fn fold(c: char) -> char {
    match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    }
}

fn unknown(side: Side, key: &str, place: Place) -> Problem {
    let name = side.name();
    if let Some(opt) = find(side.other(), key) {
        let other = side.other().name();
        return Problem::new(
            Severity::Mistake,
            place,
            format!(
                "\"{}\" is ignored: it is a {other}'s key and this is a {name}",
                opt.key.unwrap_or(opt.flag)
            ),
        )
        .hint("remove it");
    }
    let problem = Problem::new(
        Severity::Mistake,
        place,
        format!(
            "\"{}\" is ignored: kcptun's {name} has no such key",
            printable(key)
        ),
    );
    match meant(side, key).and_then(|opt| opt.key) {
        Some(known) => problem.hint(format!("did you mean \"{known}\"?")),
        None => problem,
    }
}

/// The note about a byte-order mark at the beginning of the file at `path`.
pub(crate) fn mark_skipped(path: &Path) -> Problem {
    let place = Place::File {
        path: path.into(),
        at: None,
    };
    Problem::new(
        Severity::Note,
        place,
        "the byte-order mark at its beginning is skipped",
    )
    .hint("save it as UTF-8 without one")
}

/// The content of a configuration file, in which there may be a key: wiped from memory on drop.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let place = || Place::File {
        path: path.into(),
        at: None,
    };
    let mut content = Zeroizing::new(Vec::new());
    File::open(path)
        .and_then(|file| {
            // Room for all of it, or what it grows out of would keep a copy.
            let len = file.metadata().map_or(0, |data| data.len().min(LARGEST));
            content.reserve_exact(usize::try_from(len).unwrap_or(0) + 64);
            file.take(LARGEST + 1).read_to_end(&mut content)
        })
        .map_err(|e| Problem::error(place(), format!("the file cannot be read: {e}")))?;
    if content.len() as u64 > LARGEST {
        return Err(Problem::error(place(), "the file is larger than 1 MiB")
            .hint("give a configuration file"));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Id;
    use proptest::prelude::*;

    fn apply(side: Side, text: &str) -> (Values, Vec<String>) {
        let mut values = Values::defaults(side, false);
        let mut problems = Vec::new();
        match SettingsFile::parse(Path::new("c.json"), text.as_bytes()) {
            Ok(file) => file.apply(&mut values, &mut problems),
            Err(problem) => problems.push(problem),
        }
        let problems = problems
            .iter()
            .map(|p| format!("{:?} {p}", p.severity))
            .collect();
        (values, problems)
    }

    fn client(text: &str) -> Vec<String> {
        apply(Side::Client, text).1
    }

    #[test]
    fn keys_match_without_case_and_null_says_nothing() {
        let (values, problems) = apply(
            Side::Client,
            r#"{"LOCALADDR":"x:1","QPP-Count":7,"\u212aey":"k","ſndwnd":9,"mtu":null,"nocomp":true,"log":"f"}"#,
        );
        assert_eq!(problems, [""; 0]);
        assert_eq!(values.given(Id::LocalAddr).raw, Raw::Text("x:1".into()));
        assert_eq!(values.given(Id::QppCount).raw, Raw::Int(7));
        assert_eq!(values.given(Id::Key).raw, Raw::Text("k".into()));
        assert_eq!(values.given(Id::SndWnd).raw, Raw::Int(9));
        assert_eq!(values.given(Id::NoComp).raw, Raw::Bool(true));
        assert!(values.given(Id::Mtu).origin.is_default());
    }

    #[test]
    fn a_byte_order_mark_is_skipped_with_a_note() {
        let note = "Note c.json: the byte-order mark at its beginning is skipped; save it as UTF-8 without one";
        for text in ["\u{feff}{\"mtu\":1100}", "\u{feff}mtu = 1100"] {
            let (values, problems) = apply(Side::Client, text);
            assert_eq!(problems, [note]);
            assert_eq!(values.given(Id::Mtu).raw, Raw::Int(1100));
        }
        // Columns count without it.
        assert!(client("\u{feff}{\"mtu\":x}")[0].starts_with("Error c.json:1:8: a word"));
    }

    #[test]
    fn what_editors_make_of_quotes_blanks_and_encodings_is_named() {
        for (text, problem) in [
            (
                "{“mtu”: 1}",
                "Error c.json:1:2: a typographic quote (U+201C); write texts and keys in plain double quotes",
            ),
            (
                "{\"mtu\"：1}",
                "Error c.json:1:7: a full-width colon (U+FF1A); write ASCII's own character",
            ),
            (
                "{\u{a0}\"mtu\": 1}",
                "Error c.json:1:2: a no-break space (U+00A0); remove it, or write an ordinary blank",
            ),
            (
                "mtu = 1\nkey = “x”\n",
                "Error c.json:2:7: this is not TOML: a typographic quote (U+201C) in the line; write key = value, texts in plain double quotes",
            ),
        ] {
            assert_eq!(client(text), [problem]);
        }
        for utf16 in [
            &b"\xff\xfe{\0}\0"[..],
            b"\xfe\xff\0{\0}",
            b"{\0}\0",
            b"\xff\xfem\0t\0u\0=\0",
        ] {
            let Err(problem) = SettingsFile::parse(Path::new("c.json"), utf16) else {
                panic!("{utf16:?}");
            };
            assert_eq!(
                problem.to_string(),
                "c.json:1:1: the file is in UTF-16; save it as UTF-8"
            );
        }
    }

    #[test]
    fn the_last_of_several_counts() {
        let (values, problems) = apply(Side::Client, "{\"mtu\":1100,\n \"MTU\":1000,\"mtu\":null}");
        assert_eq!(values.given(Id::Mtu).raw, Raw::Int(1000));
        assert_eq!(
            problems[0],
            "Mistake c.json:2:2: \"MTU\" is given again, as \"mtu\" before; the last one counts; remove one of them"
        );
    }

    #[test]
    fn errors_name_file_key_value_and_what_to_write() {
        for (text, problem) in [
            (
                r#"{"mtu":"1200"}"#,
                "Error c.json:1:8, \"mtu\": \"1200\" is in quotes; write 50 to 1500 bytes, without quotes, fraction or exponent",
            ),
            (
                r#"{"mtu":1200.5}"#,
                "Error c.json:1:8, \"mtu\": 1200.5 is not a whole number; write 50 to 1500 bytes, without quotes, fraction or exponent",
            ),
            (
                r#"{"mtu":1.2e3}"#,
                "Error c.json:1:8, \"mtu\": 1.2e3 is not a whole number; write 50 to 1500 bytes, without quotes, fraction or exponent",
            ),
            (
                r#"{"dscp":99999999999999999999}"#,
                "Error c.json:1:9, \"dscp\": 99999999999999999999 is too large; write 0 to 63, without quotes, fraction or exponent",
            ),
            (
                r#"{"nocomp":"true"}"#,
                "Error c.json:1:11, \"nocomp\": \"true\" is in quotes; write true or false without quotes",
            ),
            (
                r#"{"nocomp":1}"#,
                "Error c.json:1:11, \"nocomp\": this is a number; write true or false without quotes",
            ),
            (
                r#"{"log":[]}"#,
                "Error c.json:1:8, \"log\": this is a list; write a text in double quotes",
            ),
            (
                "[]",
                "Error c.json: the file is a list; write an object: {\"key\": value, …}",
            ),
            (
                "{\"mtu\": 1,\n}",
                "Error c.json:1:10: a comma with nothing behind it; remove the comma",
            ),
            (
                "{\n// c\n}",
                "Error c.json:2:1: a comment; JSON has no comments; remove it",
            ),
            (
                "",
                "Error c.json:1:1: the file is empty; write {} for all defaults",
            ),
            (
                "{} x",
                "Mistake c.json:1:4: the text behind the closing bracket is ignored; remove it",
            ),
            (
                "null",
                "Mistake c.json: the file says only null, so all defaults hold; write {} for that",
            ),
            (
                r#"{"QPPCount":3}"#,
                "Mistake c.json:1:2: \"QPPCount\" is ignored: kcptun's client has no such key; did you mean \"qpp-count\"?",
            ),
            (
                r#"{"ds":3}"#,
                "Mistake c.json:1:2: \"ds\" is ignored: kcptun's client has no such key; did you mean \"datashard\"?",
            ),
            (
                r#"{"xyzzy":3}"#,
                "Mistake c.json:1:2: \"xyzzy\" is ignored: kcptun's client has no such key",
            ),
            (
                r#"{"Target":3}"#,
                "Mistake c.json:1:2: \"target\" is ignored: it is a server's key and this is a client; remove it",
            ),
        ] {
            assert_eq!(client(text), [problem], "{text}");
        }
    }

    #[test]
    fn whose_file_it_is() {
        let side = |text: &str| {
            SettingsFile::parse(Path::new("c.json"), text.as_bytes())
                .expect(text)
                .side()
        };
        assert_eq!(side(r#"{"LocalAddr":":1"}"#), Ok(Side::Client));
        assert_eq!(side(r#"{"remoteaddr":"h:1","conn":1}"#), Ok(Side::Client));
        assert_eq!(side(r#"{"listen":":1"}"#), Ok(Side::Server));
        assert_eq!(side(r#"{"target":"h:1","conn":1}"#), Ok(Side::Server));
        assert_eq!(side(r#"{"autoexpire":1}"#), Ok(Side::Client));
        for text in ["{}", r#"{"mtu":1}"#, r#"{"listen":":1","localaddr":":2"}"#] {
            let hint = side(text).expect_err(text).hint;
            assert_eq!(
                hint.as_deref(),
                Some("say so with --role client or --role server")
            );
        }
    }

    #[test]
    fn unreadable_files_are_named() {
        let problem = SettingsFile::open(Path::new("/nonexistent/c.json"))
            .err()
            .expect("missing");
        let text = problem.to_string();
        assert!(
            text.starts_with("/nonexistent/c.json: the file cannot be read: "),
            "{text}"
        );
        let dir = tempfile::tempdir().expect("dir");
        assert!(SettingsFile::open(dir.path()).is_err());
        let large = dir.path().join("large");
        std::fs::write(&large, vec![b' '; 1 << 21]).expect("write");
        assert!(
            SettingsFile::open(&large)
                .err()
                .expect("large")
                .message
                .contains("1 MiB")
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn any_file_is_read_without_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..60),
            text in "\\{(\"(mtu|KEY|mode|nocomp|x)\":(-?[0-9]{1,22}|null|true|\"[a-z]{0,3}\"|\\[\\]),?){0,4}\\}",
        ) {
            for bytes in [&bytes[..], text.as_bytes()] {
                let mut values = Values::defaults(Side::Client, false);
                let mut problems = Vec::new();
                if let Ok(file) = SettingsFile::parse(Path::new("c.json"), bytes) {
                    let _ = file.side();
                    file.apply(&mut values, &mut problems);
                }
                prop_assert!(problems.iter().all(|p| !p.to_string().contains('\n')));
            }
        }
    }
}
