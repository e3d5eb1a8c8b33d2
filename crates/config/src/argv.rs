//! kcptun's command line (docs/spec/kcptun.md, section 3.1): Go's flag rules, exactly.

use std::ffi::{OsStr, OsString};

use crate::golang::parse_bool;
use crate::options::{self, Id, Kind, Opt, Side};
use crate::origin::Origin;
use crate::problem::{Place, Problem, Severity};
use crate::text::{self, printable, quoted};
use crate::values::{Raw, Values, meant, wanted};

/// What a command line asks for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Asked {
    Run,
    Help,
    Version,
}

/// Reads the arguments behind the program's name into `values`.
pub(crate) fn read(args: &[OsString], values: &mut Values, problems: &mut Vec<Problem>) -> Asked {
    let side = values.side();
    let mut asked = Asked::Run;
    let mut seen: Vec<(&'static Opt, String)> = Vec::new();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let number = args.len() - rest.len();
        let token = match Token::read(arg) {
            Token::Positional => {
                if matches!(arg.to_str(), Some("help" | "h")) {
                    return Asked::Help;
                }
                problems.push(ignored(number, arg, rest.as_slice(), seen.last()));
                break;
            }
            Token::End => {
                if let Some((first, more)) = rest.as_slice().split_first() {
                    if matches!(first.to_str(), Some("help" | "h")) {
                        return Asked::Help;
                    }
                    problems.push(ignored(number + 1, first, more, None));
                }
                break;
            }
            Token::Bad => {
                problems.push(
                    Problem::error(
                        Place::CommandLine,
                        format!("{} is not a flag", quoted(before_value(arg))),
                    )
                    .hint("write --name value or --name=value"),
                );
                break;
            }
            Token::Flag(token) => token,
        };
        let spelled = printable(&token.spelled);
        let Some(opt) = token.name.to_str().and_then(|name| find(side, name)) else {
            match token.name.to_str() {
                Some("help" | "h") => {
                    asked = Asked::Help;
                    continue;
                }
                Some("version" | "v") => {
                    if asked == Asked::Run {
                        asked = Asked::Version;
                    }
                    continue;
                }
                _ => {
                    // Whether it takes a value is unknown, so nothing behind it can be read.
                    problems.push(unknown(side, &token.name.to_string_lossy(), &spelled));
                    break;
                }
            }
        };
        let origin = Origin::Flag(spelled.clone());
        if let Some((_, other)) = seen
            .iter()
            .find(|(known, other)| known.id == opt.id && names_differ(other, &spelled))
        {
            problems.push(
                Problem::error(
                    Place::CommandLine,
                    format!("{other} and {spelled} are two names of one flag"),
                )
                .hint("give one of them"),
            );
        }
        seen.push((opt, spelled));
        let value = match token.value {
            Some(value) => value,
            None if opt.kind == Kind::Bool => {
                values.set(opt.id, Raw::Bool(true), origin);
                continue;
            }
            None => match rest.next() {
                Some(value) => value.clone(),
                None => {
                    problems.push(
                        Problem::error(Place::Value(origin), "the value is missing")
                            .hint(wanted(opt)),
                    );
                    break;
                }
            },
        };
        if let Err(problem) = values.set_text(opt, value, origin) {
            problems.push(problem);
        }
    }
    asked
}

/// What of a command line tells whose it is, where the name of the program does not.
#[derive(Default, PartialEq, Eq, Debug)]
pub(crate) struct Hints {
    /// The first flag that only a client has, and the first that only a server has.
    pub(crate) only: [Option<String>; 2],
    /// The file that is named.
    pub(crate) file: Option<OsString>,
    /// Help or the version is asked for.
    pub(crate) asks: bool,
}

/// Looks through the arguments behind the program's name. Mistakes end it; who reads them all finds them.
pub(crate) fn hints(args: &[OsString]) -> Hints {
    let mut hints = Hints::default();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let token = match Token::read(arg) {
            Token::Flag(token) => token,
            Token::Positional => {
                hints.asks |= matches!(arg.to_str(), Some("help" | "h"));
                break;
            }
            Token::End | Token::Bad => break,
        };
        let name = token.name.to_str().unwrap_or_default();
        let Some(opt) = find(Side::Client, name).or_else(|| find(Side::Server, name)) else {
            if matches!(name, "help" | "h" | "version" | "v") {
                hints.asks = true;
                continue;
            }
            break;
        };
        // Both have -l.
        if let Some(side) = opt.only.filter(|side| find(side.other(), name).is_none()) {
            let place = &mut hints.only[usize::from(side == Side::Server)];
            place.get_or_insert_with(|| printable(&token.spelled));
        }
        if opt.kind == Kind::Bool {
            continue;
        }
        let value = token.value.or_else(|| rest.next().cloned());
        if opt.id == Id::Config {
            hints.file = value.filter(|path| !path.is_empty());
        }
    }
    hints
}

enum Token {
    Flag(Flag),
    /// Not a flag, also a lone hyphen.
    Positional,
    /// Two hyphens alone.
    End,
    Bad,
}

struct Flag {
    /// With its hyphens.
    spelled: OsString,
    name: OsString,
    value: Option<OsString>,
}

impl Token {
    fn read(arg: &OsStr) -> Self {
        let bytes = arg.as_encoded_bytes();
        let hyphens = match bytes {
            [b'-', b'-'] => return Self::End,
            [b'-', b'-', ..] => 2,
            [b'-', _, ..] => 1,
            _ => return Self::Positional,
        };
        let body = &bytes[hyphens..];
        if matches!(body, [b'-' | b'=', ..]) {
            return Self::Bad;
        }
        match body.iter().position(|b| *b == b'=') {
            None => Self::Flag(Flag {
                spelled: arg.into(),
                name: os(body),
                value: None,
            }),
            Some(at) => Self::Flag(Flag {
                spelled: os(&bytes[..hyphens + at]),
                name: os(&body[..at]),
                value: Some(os(&body[at + 1..])),
            }),
        }
    }
}

/// A part of an argument, cut at an ASCII character.
#[cfg(unix)]
fn os(bytes: &[u8]) -> OsString {
    use std::os::unix::ffi::OsStrExt;
    OsStr::from_bytes(bytes).into()
}

/// A part of an argument, cut at an ASCII character.
#[cfg(not(unix))]
fn os(bytes: &[u8]) -> OsString {
    String::from_utf8_lossy(bytes).into_owned().into()
}

fn find(side: Side, name: &str) -> Option<&'static Opt> {
    options::of(side).find(|opt| opt.flags().any(|flag| flag == name))
}

/// Whether two spellings differ by more than the number of their hyphens.
fn names_differ(a: &str, b: &str) -> bool {
    a.trim_start_matches('-') != b.trim_start_matches('-')
}

/// `arg` up to an equals sign: what may stand behind it is nobody's business.
fn before_value(arg: &OsStr) -> OsString {
    let bytes = arg.as_encoded_bytes();
    match bytes.iter().position(|b| *b == b'=') {
        Some(at) => os(&bytes[..=at]),
        None => arg.into(),
    }
}

fn unknown(side: Side, name: &str, spelled: &str) -> Problem {
    let near = find(side.other(), name).or_else(|| meant(side, name));
    // A value that sticks to the flag, as in -keySECRET, must not be shown.
    let shown = match name.to_ascii_lowercase().strip_prefix("key") {
        Some(rest) if near.is_none() && !rest.is_empty() => {
            let hyphens = spelled.len() - spelled.trim_start_matches('-').len();
            format!("\"{}key…\"", "-".repeat(hyphens))
        }
        _ => quoted(spelled),
    };
    let problem = Problem::error(
        Place::CommandLine,
        format!("the {} has no flag {shown}", side.name()),
    );
    match near {
        Some(opt) if find(side.other(), name).is_some() => problem.hint(format!(
            "--{} is a flag of the {}",
            opt.flag,
            side.other().name()
        )),
        Some(opt) => problem.hint(format!("did you mean --{}?", opt.flag)),
        None => problem.hint("--help lists them"),
    }
}

/// kcptun ignores the first argument that is no flag and all behind it. What is said names flags only: anything else may
/// be a key. `number`: which argument `first` is, from 1.
fn ignored(
    number: usize,
    first: &OsStr,
    rest: &[OsString],
    last: Option<&(&'static Opt, String)>,
) -> Problem {
    let dash = first
        .to_str()
        .and_then(|word| word.chars().next())
        .filter(|c| text::lookalike(*c).is_some_and(|(_, meant)| meant == '-'));
    let flags = flags_among(first, rest);
    let what = match (rest.is_empty() && flags.is_empty(), dash) {
        (true, _) => format!("ignored: argument {number}, which is no flag"),
        (false, None) => format!("ignored from argument {number} on, which is no flag"),
        (false, Some(c)) => format!(
            "ignored from argument {number} on, which begins with {} and so is no flag",
            text::name(c)
        ),
    };
    let what = if flags.is_empty() {
        what
    } else {
        format!("{what}: {}", flags.join(", "))
    };
    let problem = Problem::new(Severity::Mistake, Place::CommandLine, what);
    let switch = last.filter(|(opt, _)| opt.kind == Kind::Bool);
    match (switch, first.to_str().and_then(parse_bool)) {
        (Some((_, spelled)), Some(value)) => problem.hint(format!("write {spelled}={value}")),
        _ if dash.is_some() => problem.hint("write a hyphen: -"),
        _ => problem.hint("everything is a flag; write --name value"),
    }
}

/// The flags that `first` and `rest` would be, in their order: only names that one of the sides has, without their values.
fn flags_among(first: &OsStr, rest: &[OsString]) -> Vec<String> {
    let known = |name: &str| find(Side::Client, name).or_else(|| find(Side::Server, name));
    let mut flags = Vec::new();
    let mut words = core::iter::once(first).chain(rest.iter().map(OsString::as_os_str));
    while let Some(word) = words.next() {
        let Some(word) = word.to_str() else { continue };
        let dashed = |c: char| c == '-' || text::lookalike(c).is_some_and(|(_, c)| c == '-');
        let name = word.trim_start_matches(dashed);
        let (name, value) = match name.split_once('=') {
            Some((name, _)) => (name, true),
            None => (name, false),
        };
        if !word.starts_with(dashed) {
            continue;
        }
        if let Some(opt) = known(name) {
            flags.push(format!(
                "{}{name}",
                if name.len() == 1 { "-" } else { "--" }
            ));
            if opt.kind != Kind::Bool && !value {
                words.next();
            }
        }
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(side: Side, args: &[&str]) -> (Values, Vec<String>, Asked) {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        let mut values = Values::defaults(side, false);
        let mut problems = Vec::new();
        let asked = read(&args, &mut values, &mut problems);
        let problems = problems
            .iter()
            .map(|p| format!("{:?} {p}", p.severity))
            .collect();
        (values, problems, asked)
    }

    fn client(args: &[&str]) -> (Values, Vec<String>, Asked) {
        run(Side::Client, args)
    }

    fn number(values: &Values, id: Id) -> i64 {
        match values.given(id).raw {
            Raw::Int(n) => n,
            ref other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_role_is_told_by_flags_that_only_one_side_has() {
        let of = |args: &[&str]| {
            let args: Vec<OsString> = args.iter().map(OsString::from).collect();
            hints(&args)
        };
        let only = |client: Option<&str>, server: Option<&str>| {
            [client, server].map(|f| f.map(String::from))
        };
        for (args, told) in [
            (&["-r", "h:1"][..], only(Some("-r"), None)),
            (
                &["--remoteaddr=h:1", "--conn", "2"],
                only(Some("--remoteaddr"), None),
            ),
            (&["-l", ":1", "-t", "h:2"], only(None, Some("-t"))),
            (
                &["-key", "-t", "--target", "h:2"],
                only(None, Some("--target")),
            ),
            (&["--key", "-t"], only(None, None)),
            (&["-t=h:1", "-r=h:2"], only(Some("-r"), Some("-t"))),
            (&["-l", ":1", "--nocomp", "--mtu", "1"], only(None, None)),
            // What nobody knows may take a value, and behind a word nothing is read.
            (&["--what", "-t", "h:1"], only(None, None)),
            (&["word", "-t", "h:1"], only(None, None)),
            (&["-l"], only(None, None)),
        ] {
            assert_eq!(of(args).only, told, "{args:?}");
        }
        let file = of(&["-h", "-c", "x.json"]);
        assert_eq!((file.file, file.asks), (Some("x.json".into()), true));
        assert_eq!(of(&["-c="]), Hints::default());
        assert!(of(&["help"]).asks && of(&["-v"]).asks && !of(&["-l", "-h"]).asks);
    }

    #[test]
    fn one_hyphen_or_two_and_a_value_either_way() {
        let (values, problems, asked) = client(&[
            "-mtu",
            "1",
            "--sndwnd=2",
            "-rcvwnd=0x3",
            "--ds",
            "4",
            "-ps=0b101",
            "--key",
            "-k=v=",
            "--nocomp",
        ]);
        assert_eq!(problems, [""; 0]);
        assert_eq!(asked, Asked::Run);
        let got = [
            Id::Mtu,
            Id::SndWnd,
            Id::RcvWnd,
            Id::DataShard,
            Id::ParityShard,
        ]
        .map(|id| number(&values, id));
        assert_eq!(got, [1, 2, 3, 4, 5]);
        assert_eq!(values.given(Id::Key).raw, Raw::Text("-k=v=".into()));
        assert_eq!(values.given(Id::Mtu).origin, Origin::Flag("-mtu".into()));
        assert_eq!(values.given(Id::NoComp).raw, Raw::Bool(true));
    }

    #[test]
    fn the_last_of_several_wins_but_only_under_one_name() {
        let (values, problems, _) = client(&["-mtu", "1", "--mtu=2"]);
        assert_eq!((number(&values, Id::Mtu), problems.len()), (2, 0));
        let (_, problems, _) = client(&["--ds", "1", "--datashard", "2"]);
        assert_eq!(
            problems,
            [
                "Error command line: --ds and --datashard are two names of one flag; give one of them"
            ]
        );
    }

    #[test]
    fn booleans_take_a_value_only_with_an_equals_sign() {
        let (values, problems, _) = client(&["--nocomp=false", "--quiet=T"]);
        assert_eq!(values.given(Id::NoComp).raw, Raw::Bool(false));
        assert_eq!(values.given(Id::Quiet).raw, Raw::Bool(true));
        assert_eq!(problems, [""; 0]);
        let (values, problems, _) = client(&["--nocomp", "false", "--mtu", "1000"]);
        assert_eq!(values.given(Id::NoComp).raw, Raw::Bool(true));
        assert_eq!(number(&values, Id::Mtu), 1350);
        assert_eq!(
            problems,
            [
                "Mistake command line: ignored from argument 2 on, which is no flag: --mtu; write --nocomp=false"
            ]
        );
    }

    #[test]
    fn where_flags_end() {
        for args in [
            &["--", "--mtu", "1000"],
            &["-", "--mtu", "1000"],
            &["x", "--mtu", "1000"],
        ] {
            let (values, problems, asked) = client(args);
            assert_eq!(
                (number(&values, Id::Mtu), problems.len(), asked),
                (1350, 1, Asked::Run)
            );
        }
        assert_eq!(client(&["--"]).1, [""; 0]);
    }

    #[test]
    fn what_is_asked_for() {
        for (args, asked) in [
            (&["-h"][..], Asked::Help),
            (&["--help"], Asked::Help),
            (&["--mtu", "9", "help"], Asked::Help),
            (&["h", "x"], Asked::Help),
            (&["-v"], Asked::Version),
            (&["--version"], Asked::Version),
            (&["-h", "-v"], Asked::Help),
            (&["-v", "-h"], Asked::Help),
            (&[], Asked::Run),
        ] {
            assert_eq!(client(args).2, asked, "{args:?}");
        }
    }

    #[test]
    fn errors_name_the_flag_and_what_to_write() {
        for (args, text) in [
            (
                &["--nosuchflag"][..],
                "Error command line: the client has no flag \"--nosuchflag\"; --help lists them",
            ),
            (
                &["-sndwdn", "3"],
                "Error command line: the client has no flag \"-sndwdn\"; did you mean --sndwnd?",
            ),
            (
                &["--target=x"],
                "Error command line: the client has no flag \"--target\"; --target is a flag of the server",
            ),
            (
                &["--mtu", "x"],
                "Error command line, --mtu: \"x\" is not a whole number; write 50 to 1500 bytes",
            ),
            (
                &["--mtu="],
                "Error command line, --mtu: \"\" is not a whole number; write 50 to 1500 bytes",
            ),
            (
                &["-mtu"],
                "Error command line, -mtu: the value is missing; write 50 to 1500 bytes",
            ),
            (
                &["--nocomp=x"],
                "Error command line, --nocomp: \"x\" is neither true nor false; write true or false",
            ),
            (
                &["---mtu"],
                "Error command line: \"---mtu\" is not a flag; write --name value or --name=value",
            ),
            (
                &["-=1"],
                "Error command line: \"-=\" is not a flag; write --name value or --name=value",
            ),
        ] {
            assert_eq!(client(args).1, [text], "{args:?}");
        }
        assert_eq!(
            run(Side::Server, &["-conn=3"]).1,
            [
                "Error command line: the server has no flag \"-conn\"; --conn is a flag of the client"
            ]
        );
    }

    #[test]
    fn what_is_ignored_is_told_without_values_and_words() {
        for (args, text) in [
            (
                &["-l", ":1", "oops", "--key", "S3CRET"][..],
                "ignored from argument 3 on, which is no flag: --key; everything is a flag; write --name value",
            ),
            (
                &[
                    "oops",
                    "-key=S3CRET",
                    "S3CRET",
                    "-S3CRET",
                    "--mtu",
                    "-r",
                    "-listen",
                ],
                "ignored from argument 1 on, which is no flag: --key, --mtu, --listen; everything is a flag; write --name value",
            ),
            (
                &["S3CRET"],
                "ignored: argument 1, which is no flag; everything is a flag; write --name value",
            ),
            (
                &["--", "--key", "--S3CRET"],
                "ignored from argument 2 on, which is no flag: --key; everything is a flag; write --name value",
            ),
            (
                &["–key", "S3CRET", "—mtu=9"],
                "ignored from argument 1 on, which begins with a typographic dash (U+2013) and so is no flag: --key, --mtu; write a hyphen: -",
            ),
            (
                &["-nocomp", "true", "-mode", "fast2"],
                "ignored from argument 2 on, which is no flag: --mode; write -nocomp=true",
            ),
        ] {
            assert_eq!(client(args).1, [format!("Mistake command line: {text}")]);
        }
        for args in [&["-keyS3CRET"][..], &["--=S3CRET"], &["---key=S3CRET"]] {
            let problems = client(args).1;
            assert_eq!(problems.len(), 1);
            assert!(!problems[0].contains("S3CRET"), "{problems:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_key_may_have_any_bytes() {
        use std::os::unix::ffi::OsStringExt;
        let key = OsString::from_vec(vec![b'a', 0xff, b'=', 0xfe]);
        let mut arg = OsString::from("--key=");
        arg.push(&key);
        let mut values = Values::defaults(Side::Client, false);
        read(&[arg], &mut values, &mut Vec::new());
        assert_eq!(values.given(Id::Key).raw, Raw::Text(key));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn any_arguments_are_read_without_panic(args in proptest::collection::vec("(-{0,3}(mtu|key|ds|nocomp|é|v)?=?.{0,4})", 0..6)) {
            let args: Vec<OsString> = args.into_iter().map(OsString::from).collect();
            let mut problems = Vec::new();
            read(&args, &mut Values::defaults(Side::Server, true), &mut problems);
            prop_assert!(problems.len() <= args.len());
            prop_assert!(problems.iter().all(|p| !p.to_string().contains('\n')));
        }
    }
}
