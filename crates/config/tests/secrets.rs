//! A key never appears in what the program says: neither in messages about mistakes next to it, nor in the block at start, nor
//! in the debugging output of what was read.

use std::ffi::OsString;
use std::path::Path;

use fulmar_config::{
    AnyLoaded, Environment, Failure, Invocation, Problem, Side, any_from_bytes, from_args,
    libev_args, report,
};

/// The key. It is also tried cut in two, so half of it has to be as unmistakable.
const SECRET: &str = "S3CRETs3cret";
const HALVES: [&str; 2] = ["S3CRET", "s3cret"];

fn assert_silent(said: &str, about: &str) {
    for half in HALVES {
        assert!(!said.contains(half), "{about}\nsays: {said}");
    }
}

fn words(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(|problem| format!("{problem}\n{problem:?}\n"))
        .collect()
}

fn of_failure(failure: &Failure) -> String {
    format!("{failure}\n{failure:?}\n{}", words(&failure.problems))
}

/// All that is ever said about a file.
fn of_file(content: &[u8], side: Option<Side>) -> String {
    match any_from_bytes(Path::new("c.json"), content, side, &Environment::default()) {
        Ok(AnyLoaded::Kcptun(loaded)) => format!(
            "{loaded:?}\n{}\n{}",
            report::lines(&loaded.config).join("\n"),
            words(&loaded.problems)
        ),
        Ok(AnyLoaded::Libev(loaded)) => format!(
            "{loaded:?}\n{}\n{}",
            report::libev_lines(&loaded.config).join("\n"),
            words(&loaded.problems)
        ),
        Err(failure) => of_failure(&failure),
    }
}

/// All that is ever said about a command line and an environment.
fn of_args(side: Side, args: &[OsString], environment: &Environment) -> String {
    match from_args(side, args, environment) {
        Ok(Invocation::Run(loaded)) => format!(
            "{:?}\n{}\n{}",
            loaded.config.tunnel.key,
            report::lines(&loaded.config).join("\n"),
            words(&loaded.problems)
        ),
        Ok(other) => format!("{other:?}"),
        Err(failure) => of_failure(&failure),
    }
}

/// `text` with each character lost, doubled, or replaced by one that means something.
fn slips(text: &str) -> Vec<String> {
    let mut all = vec![text.to_owned()];
    for (at, c) in text.char_indices() {
        let (before, after) = (&text[..at], &text[at + c.len_utf8()..]);
        all.push(format!("{before}{after}"));
        all.push(format!("{before}{c}{c}{after}"));
        for other in [
            "\"", "'", ",", ":", "=", "{", "}", "[", "#", "\\", ";", "\n", " ", "“", "\u{a0}", "7",
        ] {
            all.push(format!("{before}{other}{after}"));
        }
    }
    all
}

#[test]
fn files_with_a_slip_of_the_finger() {
    let mut tried = 0;
    for text in [
        format!("{{\"listen\": \":1\", \"key\": \"{SECRET}\", \"mtu\": 1350}}"),
        format!("{{\n\"key\": \"{SECRET}\",\n\"remoteaddr\": \"h:1\"\n}}\n"),
        format!("listen = \":1\"\nkey = \"{SECRET}\"\nmtu = 1350\n"),
        format!(
            "{{\"listen\":\":1\",\"kcp_connect\":\"h:1\",\"method\":\"aes256gcm\",\"password\":\"{SECRET}\"}}"
        ),
        format!(
            "{{\"connect\":\"h:1\",\"kcp_bind\":\":1\",\"method\":\"aes256gcm\",\"psk\":\"{SECRET}=\"}}"
        ),
    ] {
        for slip in slips(&text) {
            assert_silent(&of_file(slip.as_bytes(), None), &slip);
            tried += 1;
        }
        for side in [Side::Client, Side::Server] {
            assert_silent(&of_file(text.as_bytes(), Some(side)), &text);
        }
        let mut bytes = text.into_bytes();
        bytes.push(0xff);
        assert_silent(&of_file(&bytes, None), "bytes that are not UTF-8");
    }
    assert!(tried > 5000, "{tried}");
}

#[test]
fn keys_of_the_wrong_type() {
    // 32 digits, all of the key.
    const NUMBER: &str = "31415926535897932384626433832795";
    for text in [
        format!("{{\"listen\": \":1\", \"key\": {NUMBER}}}"),
        format!("{{\"listen\": \":1\", \"key-file\": {NUMBER}}}"),
        format!("listen = \":1\"\nkey = {NUMBER}\n"),
        format!("{{\"kcp_bind\": \":1\", \"method\": \"aes256gcm\", \"psk\": {NUMBER}}}"),
        format!("{{\"kcp_bind\": \":1\", \"method\": \"aes256gcm\", \"password\": {NUMBER}}}"),
    ] {
        let said = of_file(text.as_bytes(), None);
        assert!(!said.contains("31415"), "{said}");
        assert!(said.contains("this is a number"), "{said}");
    }
}

#[test]
fn command_lines_with_a_slip_of_the_finger() {
    let none = Environment::default();
    let line = [
        "-l", ":1", "-nocomp", "--key", SECRET, "-c", "", "--mtu", "1350", "-quiet",
    ];
    let try_all = |args: &[&str]| {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        for side in [Side::Client, Side::Server] {
            let said = of_args(side, &args, &none);
            assert_silent(&said, &format!("{args:?}"));
        }
        if let Err(e) = libev_args(&args) {
            // It has no such option, and stops at the first argument that it does not know.
            assert_silent(&e.to_string(), &format!("{args:?}"));
        }
    };
    try_all(&line);
    for at in 0..line.len() {
        let (before, after) = line.split_at(at);
        for word in [
            "oops", "true", "-x", "--", "-", "–x", "--=", "---key", "help2", "-c=",
        ] {
            try_all(&[before, &[word], after].concat());
        }
        // One is missing; but then nothing may take the key for an address.
        try_all(&[before, &after[1..]].concat());
        if let [a, b, rest @ ..] = after {
            try_all(&[before, &[*b, *a], rest].concat());
        }
    }
    for arg in [
        "--key=",
        "-key=",
        "--kye=",
        "--keyfile=",
        "---key=",
        "--=",
        "–key=",
        "--KEY=",
    ] {
        let stuck = format!("{arg}{SECRET}");
        try_all(&[&stuck]);
        try_all(&["-l", ":1", &stuck, "oops", &stuck]);
    }
    let stuck = [OsString::from(format!("--key{SECRET}"))];
    assert_silent(
        &of_args(Side::Client, &stuck, &none),
        "a key that sticks to its flag",
    );
    // The key in the place of its file.
    try_all(&["--key-file", SECRET]);
}

#[test]
fn environments_with_a_slip_of_the_finger() {
    let plugin = |options: OsString| {
        let mut all: Vec<(String, OsString)> = ["SS_REMOTE_HOST", "SS_LOCAL_HOST"]
            .map(|name| (name.to_owned(), "127.0.0.1".into()))
            .into();
        all.extend(["SS_REMOTE_PORT", "SS_LOCAL_PORT"].map(|name| (name.to_owned(), "1".into())));
        all.push(("SS_PLUGIN_OPTIONS".into(), options));
        Environment::from_iter(all)
    };
    for slip in slips(&format!("mode=fast;key={SECRET};mtu=1350")) {
        // Half of a key that has become a name of its own, behind a semicolon, is what must not be shown.
        for side in [Side::Client, Side::Server] {
            let said = of_args(side, &[], &plugin(OsString::from(&slip)));
            assert_silent(&said, &slip);
        }
    }
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStringExt;
        let bytes = format!("key={SECRET}").into_bytes();
        let options = OsString::from_vec([bytes, vec![0xff]].concat());
        assert_silent(&of_args(Side::Client, &[], &plugin(options)), "not UTF-8");
    }
    let environment = Environment::from_iter([("KCPTUN_KEY", SECRET)]);
    let args = [OsString::from("oops")];
    assert_silent(&of_args(Side::Server, &args, &environment), "KCPTUN_KEY");
}
