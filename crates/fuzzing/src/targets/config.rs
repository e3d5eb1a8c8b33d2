//! Targets of `fulmar-config`. No input opens a file but the system's list of services.

use std::ffi::OsString;
use std::path::Path;

use fulmar_config::{
    AnyLoaded, Dialect, Environment, Failure, Invocation, Loaded, Side, any_from_bytes, from_args,
    from_bytes, libev_from_bytes, plugin_side, recognise, report,
};

use crate::input::Input;

/// The key of the environment: no message and no report may show it.
const SECRET: &str = "never-to-be-shown-31415926";

/// A kcptun JSON file.
///
/// Input: a byte for the side (client, server, to be found out), then the file.
pub fn config_json(data: &[u8]) {
    let mut input = Input::new(data);
    let side = match input.byte() % 3 {
        0 => Some(Side::Client),
        1 => Some(Side::Server),
        _ => None,
    };
    let environment = Environment::from_iter([("KCPTUN_KEY", SECRET)]);
    let path = Path::new("fuzz.json");
    judge(from_bytes(path, input.rest(), side, &environment).as_ref());
}

/// A kcptun-libev JSON file.
///
/// Input: the file. Whatever is refused as that must not be accepted where files are recognised by their content.
pub fn libev_json(data: &[u8]) {
    let path = Path::new("fuzz.json");
    let ours = libev_from_bytes(path, data);
    let (problems, shown) = match &ours {
        Ok(loaded) => {
            let lines = report::libev_lines(&loaded.config);
            assert!(!lines.is_empty());
            (&loaded.problems, format!("{lines:?}\n{loaded:?}"))
        }
        Err(failure) => (&failure.problems, format!("{failure}\n{failure:?}")),
    };
    assert!(!shown.is_empty());
    assert_eq!(ours.is_err(), problems.iter().any(|p| p.is_fatal(false)));
    for problem in problems {
        assert!(!problem.message.is_empty());
        assert!(!problem.to_string().contains('\n'), "{problem}");
    }
    let environment = Environment::default();
    match (
        recognise(data),
        any_from_bytes(path, data, None, &environment),
    ) {
        (Dialect::Kcptun, any) => assert!(!matches!(any, Ok(AnyLoaded::Libev(_)))),
        (Dialect::Libev, Ok(AnyLoaded::Libev(loaded))) => assert_eq!(ours, Ok(*loaded)),
        (Dialect::Libev, any) => assert_eq!(ours.err(), any.err()),
    }
}

/// A kcptun command line.
///
/// Input: a byte for the side, then the arguments, one per line.
pub fn command_line(data: &[u8]) {
    let mut input = Input::new(data);
    let side = if input.byte().is_multiple_of(2) {
        Side::Client
    } else {
        Side::Server
    };
    let args: Vec<OsString> = input.rest().split(|b| *b == b'\n').map(os_string).collect();
    // What `-c` names would be opened.
    let names_a_file = args.iter().any(|arg| {
        let arg = arg.as_encoded_bytes();
        let name = arg.iter().position(|b| *b != b'-').map(|at| &arg[at..]);
        name.is_some_and(|name| name == b"c" || name.starts_with(b"c="))
    });
    if names_a_file {
        return;
    }
    let environment = Environment::from_iter([("KCPTUN_KEY", SECRET)]);
    match from_args(side, &args, &environment) {
        Ok(Invocation::Help(_) | Invocation::Version) => {}
        Ok(Invocation::Run(loaded)) => judge(Ok(&loaded)),
        Err(failure) => judge(Err(&failure)),
    }
}

/// The options that a shadowsocks host gives its plugin, and its addresses.
///
/// Input: a byte for the side, four chunks for the addresses, then the options.
pub fn sip003_options(data: &[u8]) {
    const VARIABLES: [&str; 4] = [
        "SS_REMOTE_HOST",
        "SS_REMOTE_PORT",
        "SS_LOCAL_HOST",
        "SS_LOCAL_PORT",
    ];
    let mut input = Input::new(data);
    let server = !input.byte().is_multiple_of(2);
    let mut variables = vec![("KCPTUN_KEY", OsString::from(SECRET))];
    for name in VARIABLES {
        variables.push((name, os_string(input.chunk().unwrap_or_default())));
    }
    variables.push(("SS_PLUGIN_OPTIONS", os_string(input.rest())));
    let environment = Environment::from_iter(variables);
    let asked = match plugin_side(&environment) {
        Ok(asked) => asked,
        Err(failure) => return judge(Err(&failure)),
    };
    let side = match asked {
        Some(side) => side,
        None if server => Side::Server,
        None => Side::Client,
    };
    match from_args(side, &[], &environment) {
        Ok(Invocation::Run(loaded)) => judge(Ok(&loaded)),
        Ok(other) => panic!("{other:?} was not asked for"),
        Err(failure) => judge(Err(&failure)),
    }
}

/// What holds for any outcome: a failure has a reason, a success has none, everything can be shown, and the key is in
/// none of it.
fn judge(outcome: Result<&Loaded, &Failure>) {
    let (problems, mut shown) = match outcome {
        Ok(loaded) => {
            let lines = report::lines(&loaded.config).join("\n");
            (&loaded.problems, format!("{lines}\n{loaded:?}"))
        }
        Err(failure) => (&failure.problems, format!("{failure}\n{failure:?}")),
    };
    assert_eq!(outcome.is_err(), problems.iter().any(|p| p.is_fatal(false)));
    for problem in problems {
        assert!(!problem.message.is_empty());
        shown += &problem.to_string();
    }
    assert!(!shown.contains(SECRET), "{shown}");
}

#[cfg(unix)]
fn os_string(bytes: &[u8]) -> OsString {
    std::os::unix::ffi::OsStringExt::from_vec(bytes.to_vec())
}

#[cfg(not(unix))]
fn os_string(bytes: &[u8]) -> OsString {
    String::from_utf8_lossy(bytes).into_owned().into()
}
