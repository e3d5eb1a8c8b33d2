//! kcptun's command line (docs/spec/kcptun.md, section 3.1): Go's flag rules, exactly.

use std::ffi::{OsStr, OsString};

use crate::golang::parse_bool;
use crate::options::{self, Kind, Opt, Side};
use crate::origin::Origin;
use crate::problem::{Place, Problem, Severity};
use crate::values::{Raw, Values, meant, printable, wanted};

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
        let token = match Token::read(arg) {
            Token::Positional => {
                if matches!(arg.to_str(), Some("help" | "h")) {
                    return Asked::Help;
                }
                problems.extend(ignored(arg, rest.as_slice(), seen.last()));
                break;
            }
            Token::End => {
                if let Some((first, more)) = rest.as_slice().split_first() {
                    if matches!(first.to_str(), Some("help" | "h")) {
                        return Asked::Help;
                    }
                    problems.extend(ignored(first, more, None));
                }
                break;
            }
            Token::Bad => {
                problems.push(
                    Problem::error(
                        Place::CommandLine,
                        format!("\"{}\" is not a flag", printable(arg)),
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
                    problems.push(unknown(side, &printable(&token.name), &spelled));
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

fn unknown(side: Side, name: &str, spelled: &str) -> Problem {
    let problem = Problem::error(
        Place::CommandLine,
        format!("the {} has no flag {spelled}", side.name()),
    );
    if let Some(opt) = find(side.other(), name) {
        return problem.hint(format!(
            "--{} is a flag of the {}",
            opt.flag,
            side.other().name()
        ));
    }
    match meant(side, name) {
        Some(opt) => problem.hint(format!("did you mean --{}?", opt.flag)),
        None => problem.hint("--help lists them"),
    }
}

/// kcptun ignores the first argument that is no flag and all behind it.
fn ignored(
    first: &OsStr,
    rest: &[OsString],
    last: Option<&(&'static Opt, String)>,
) -> Option<Problem> {
    let mut all: Vec<String> = rest.iter().take(4).map(printable).collect();
    all.insert(0, printable(first));
    if rest.len() > 4 {
        all.push("…".into());
    }
    let problem = Problem::new(
        Severity::Mistake,
        Place::CommandLine,
        format!("ignored: {}", all.join(" ")),
    );
    let switch = last.filter(|(opt, _)| opt.kind == Kind::Bool);
    Some(match (switch, first.to_str().and_then(parse_bool)) {
        (Some((_, spelled)), Some(value)) => problem.hint(format!("write {spelled}={value}")),
        _ => problem.hint("everything is a flag; write --name value"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Id;
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
            ["Mistake command line: ignored: false --mtu 1000; write --nocomp=false"]
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
                "Error command line: the client has no flag --nosuchflag; --help lists them",
            ),
            (
                &["-sndwdn", "3"],
                "Error command line: the client has no flag -sndwdn; did you mean --sndwnd?",
            ),
            (
                &["--target=x"],
                "Error command line: the client has no flag --target; --target is a flag of the server",
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
                "Error command line: \"-=1\" is not a flag; write --name value or --name=value",
            ),
        ] {
            assert_eq!(client(args).1, [text], "{args:?}");
        }
        assert_eq!(
            run(Side::Server, &["-conn=3"]).1,
            ["Error command line: the server has no flag -conn; --conn is a flag of the client"]
        );
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
