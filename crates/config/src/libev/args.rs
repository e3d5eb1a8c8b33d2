//! kcptun-libev's command line (docs/spec/kcptun-libev.md, section 2).

use core::fmt;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use fulmar_wire::libev::Method;

use crate::hint::nearest;
use crate::text::printable;

/// What a command line asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LibevInvocation {
    /// `-h`: the usage, on standard error, exit code 0.
    Help,
    /// `--list-methods`: the names, on standard error, exit code 0.
    ListMethods,
    /// `--genpsk`: a random key, on standard output.
    Genpsk(Method),
    /// Run this.
    Run(LibevArgs),
}

/// The arguments of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LibevArgs {
    /// `-c`.
    pub config: PathBuf,
    /// `-d`: go into the background once everything is open.
    pub daemonize: bool,
    /// `-u`: goes before the file's `user`.
    pub user: Option<String>,
    /// How many `-v` minus how many `-s`.
    pub verbosity: i32,
}

impl LibevArgs {
    /// The level that is logged, 0 to 8, where the file says `loglevel`.
    #[must_use]
    pub fn level(&self, loglevel: u8) -> u8 {
        let level = i32::from(loglevel).saturating_add(self.verbosity);
        u8::try_from(level.clamp(0, 8)).unwrap_or(8)
    }
}

/// A command line that cannot be used. The exit code is 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LibevArgsError {
    /// An argument that there is not, with what to write instead.
    Unknown(String, Option<String>),
    /// An option without its value.
    NoValue(&'static str),
    /// A method that there is not, with the nearest.
    Method(String, Option<&'static str>),
    /// A user that is no text.
    NoText(&'static str),
    /// No `-c`.
    NoConfig,
}

impl fmt::Display for LibevArgsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(argument, hint) => {
                write!(f, "unknown argument: \"{argument}\"")?;
                match hint {
                    Some(hint) => write!(f, "; {hint}"),
                    None => Ok(()),
                }
            }
            Self::NoValue(option) => write!(f, "{option}: its value is missing"),
            Self::Method(name, meant) => {
                write!(f, "--genpsk: \"{name}\" is no method; ")?;
                match meant {
                    Some(meant) => write!(f, "did you mean {meant}?"),
                    None => write!(
                        f,
                        "write one of {}",
                        Method::SEALED.map(Method::name).join(", ")
                    ),
                }
            }
            Self::NoText(option) => write!(f, "{option}: the value is not UTF-8"),
            Self::NoConfig => f.write_str("no configuration is given; write -c FILE"),
        }
    }
}

impl core::error::Error for LibevArgsError {}

/// Every option, with what takes a value and what it is for.
const OPTIONS: [(&str, &str, &str); 9] = [
    ("-h, --help", "", "print this"),
    (
        "-c, --config",
        "FILE",
        "the configuration, a JSON file; always needed",
    ),
    (
        "-d, --daemonize",
        "",
        "go into the background after the start, log to syslog",
    ),
    (
        "-u, --user",
        "[USER][:[GROUP]]",
        "become this user and group after the start",
    ),
    ("-v, --verbose", "", "log more; may be repeated"),
    ("-s, --silence", "", "log less; may be repeated"),
    (
        "    --list-methods",
        "",
        "print the names of the encryption methods",
    ),
    ("    --genpsk", "METHOD", "print a random key for \"psk\""),
    ("    --", "", "ignore what follows"),
];

/// The usage, for a program called `name`; ends with a line end.
#[must_use]
pub fn libev_usage(name: &str) -> String {
    let mut text = format!("usage: {name} -c FILE [OPTION]...\n\n");
    for (option, value, about) in OPTIONS {
        let left = format!("{option} {value}");
        text += &format!("  {:<35}{about}\n", left.trim_end());
    }
    text
}

/// Reads a command line without the program's name.
///
/// Options count in their order: `-h`, `--list-methods` and `--genpsk` end the reading at once. The last `-c` and `-u`
/// hold.
///
/// # Errors
/// See [`LibevArgsError`].
pub fn libev_args(args: &[OsString]) -> Result<LibevInvocation, LibevArgsError> {
    let mut config = None;
    let mut user = None;
    let mut daemonize = false;
    let mut verbosity = 0_i32;
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = |option| args.next().ok_or(LibevArgsError::NoValue(option));
        match arg.to_str().unwrap_or_default() {
            "-h" | "--help" => return Ok(LibevInvocation::Help),
            "-c" | "--config" => config = Some(PathBuf::from(value("-c")?)),
            "-d" | "--daemonize" => daemonize = true,
            "-u" | "--user" => {
                let text = value("-u")?.to_str();
                user = Some(text.ok_or(LibevArgsError::NoText("-u"))?.to_owned());
            }
            "-v" | "--verbose" => verbosity = verbosity.saturating_add(1),
            "-s" | "--silence" => verbosity = verbosity.saturating_sub(1),
            "--list-methods" => return Ok(LibevInvocation::ListMethods),
            "--genpsk" => return genpsk(value("--genpsk")?),
            "--" => break,
            _ => return Err(unknown(arg)),
        }
    }
    let config = config.ok_or(LibevArgsError::NoConfig)?;
    Ok(LibevInvocation::Run(LibevArgs {
        config,
        daemonize,
        user,
        verbosity,
    }))
}

fn genpsk(name: &OsStr) -> Result<LibevInvocation, LibevArgsError> {
    let name = name.to_string_lossy();
    match Method::from_name(&name) {
        Some(method) => Ok(LibevInvocation::Genpsk(method)),
        None => {
            let meant = nearest(&name, Method::SEALED.map(Method::name));
            Err(LibevArgsError::Method(printable(&*name), meant))
        }
    }
}

fn unknown(arg: &OsStr) -> LibevArgsError {
    let text = arg.to_string_lossy();
    let letters = text.strip_prefix('-').filter(|rest| !rest.is_empty());
    let names = OPTIONS
        .iter()
        .flat_map(|(names, ..)| names.split(", "))
        .map(str::trim)
        .filter(|name| name.len() > 2);
    let near = nearest(&text, names).filter(|_| text.starts_with('-'));
    let hint = if let Some((name, _)) = text.split_once('=').filter(|_| text.starts_with("--")) {
        let known = OPTIONS.iter().any(|(names, ..)| names.ends_with(name));
        known.then(|| "write the value as an argument of its own".to_owned())
    } else if let Some(near) = near {
        Some(format!("did you mean {near}?"))
    } else if letters.is_some_and(|rest| rest.chars().all(|c| "hcduvs".contains(c))) {
        Some("write each letter with its own hyphen".into())
    } else if text.starts_with('-') {
        None
    } else {
        Some("write -c before the file".into())
    };
    // No option of its takes a value behind an equals sign, and what stands there may be a key.
    let shown = match text.split_once('=') {
        Some((name, _)) => format!("{name}=…"),
        None => text.into_owned(),
    };
    LibevArgsError::Unknown(printable(shown), hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(args: &[&str]) -> Result<LibevInvocation, LibevArgsError> {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        libev_args(&args)
    }

    fn run(args: &[&str]) -> LibevArgs {
        match read(args) {
            Ok(LibevInvocation::Run(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_option() {
        let plain = run(&["-c", "a.json"]);
        assert_eq!(
            plain,
            LibevArgs {
                config: "a.json".into(),
                daemonize: false,
                user: None,
                verbosity: 0,
            }
        );
        for args in [
            ["-c", "a.json", "-d", "-u", "nobody:", "-v", "-v", "-s"],
            [
                "--config",
                "a.json",
                "--daemonize",
                "--user",
                "nobody:",
                "--verbose",
                "--verbose",
                "--silence",
            ],
        ] {
            let args = run(&args);
            assert!(args.daemonize);
            assert_eq!(args.user.as_deref(), Some("nobody:"));
            assert_eq!(args.verbosity, 1);
        }
        assert_eq!(run(&["-c", "a", "-c", "-v"]).config, PathBuf::from("-v"));
        assert_eq!(run(&["-c", "a", "--", "-x", "y"]), run(&["-c", "a"]));
        for help in [&["-h"][..], &["--help", "-x"], &["-c", "a", "-h"]] {
            assert_eq!(read(help), Ok(LibevInvocation::Help));
        }
        assert_eq!(read(&["--list-methods"]), Ok(LibevInvocation::ListMethods));
        for method in Method::SEALED {
            assert_eq!(
                read(&["--genpsk", method.name()]),
                Ok(LibevInvocation::Genpsk(method))
            );
        }
    }

    #[test]
    fn refusals() {
        for (args, message) in [
            (&[][..], "no configuration is given; write -c FILE"),
            (&["-v"], "no configuration is given; write -c FILE"),
            (
                &["--", "-c", "a"],
                "no configuration is given; write -c FILE",
            ),
            (&["-c"], "-c: its value is missing"),
            (&["-u"], "-u: its value is missing"),
            (&["--genpsk"], "--genpsk: its value is missing"),
            (
                &["--genpsk", "aes256gmc"],
                "--genpsk: \"aes256gmc\" is no method; did you mean aes256gcm?",
            ),
            (
                &["--genpsk", "none"],
                "--genpsk: \"none\" is no method; write one of xchacha20poly1305_ietf, xsalsa20poly1305, chacha20poly1305_ietf, aes256gcm",
            ),
            (&["--version"], "unknown argument: \"--version\""),
            (&["-x", "-h"], "unknown argument: \"-x\""),
            (&["--key=k"], "unknown argument: \"--key=…\""),
            (
                &["-c", "a", "--daemonise"],
                "unknown argument: \"--daemonise\"; did you mean --daemonize?",
            ),
            (&["-"], "unknown argument: \"-\""),
            (
                &["-vv"],
                "unknown argument: \"-vv\"; write each letter with its own hyphen",
            ),
            (
                &["--config=a.json"],
                "unknown argument: \"--config=…\"; write the value as an argument of its own",
            ),
            (
                &["a.json"],
                "unknown argument: \"a.json\"; write -c before the file",
            ),
        ] {
            assert_eq!(
                read(args).expect_err(message).to_string(),
                message,
                "{args:?}"
            );
        }
    }

    #[test]
    fn levels_are_clamped() {
        let level = |verbosity, loglevel| {
            LibevArgs {
                verbosity,
                ..run(&["-c", "a"])
            }
            .level(loglevel)
        };
        assert_eq!((level(0, 4), level(2, 4), level(-2, 4)), (4, 6, 2));
        assert_eq!((level(9, 4), level(-9, 4)), (8, 0));
        assert_eq!((level(i32::MAX, 8), level(i32::MIN, 0)), (8, 0));
    }

    #[test]
    fn the_usage_names_every_option() {
        let text = libev_usage("kcptun-libev");
        for option in [
            "-h",
            "--help",
            "-c",
            "--config",
            "-d",
            "--daemonize",
            "-u",
            "--user",
            "-v",
            "--verbose",
            "-s",
            "--silence",
            "--list-methods",
            "--genpsk",
        ] {
            assert!(text.contains(option), "{option}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn any_arguments_are_read(args in proptest::collection::vec("-{0,2}[a-z=]{0,6}|-[cduvsh]|--genpsk", 0..6)) {
            let args: Vec<OsString> = args.iter().map(OsString::from).collect();
            if let Err(e) = libev_args(&args) {
                prop_assert!(!e.to_string().contains('\n'));
            }
        }
    }
}
