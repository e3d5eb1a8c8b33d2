//! Settings in TOML: the same keys, values and checks as in kcptun's JSON file, found by content, and a role.

use std::ffi::OsString;
use std::path::Path;

use fulmar_config::options::{self, Kind, Preset};
use fulmar_config::{
    AnyLoaded, Compat, Config, Environment, Invocation, Loaded, Mode, Origin, Severity, Side,
    any_from_bytes, from_args, from_bytes, from_file,
};
use fulmar_wire::kcptun2016::Variant;

fn read(text: &str, side: Option<Side>) -> Result<Loaded, Vec<String>> {
    // The name says nothing.
    from_bytes(
        Path::new("c.json"),
        text.as_bytes(),
        side,
        &Environment::default(),
    )
    .map_err(|failure| failure.problems.iter().map(ToString::to_string).collect())
}

fn accepted(text: &str) -> Config {
    let loaded = read(text, None).unwrap_or_else(|problems| panic!("{text}\n{problems:?}"));
    let mistakes: Vec<_> = loaded
        .problems
        .iter()
        .filter(|p| p.severity >= Severity::Mistake)
        .collect();
    assert!(mistakes.is_empty(), "{text}\n{mistakes:?}");
    loaded.config
}

const CLIENT: &str = "\
# A client of the first kcptun.
role = \"client\"
localaddr = \"127.0.0.1:1\"
remoteaddr = \"h:2-3\"

key = 'mine'
";

#[test]
fn settings_and_where_they_are() {
    let text = "\
# A client.
localaddr = \"127.0.0.1:1\"   # of this machine only
remoteaddr = \"h:2-3\"
key = 'mine'
mode = \"auto\"
mtu = 0x500
conn = 1_0
quiet = true
";
    let config = accepted(text);
    assert_eq!(config.role.name(), "client");
    let tunnel = &config.tunnel;
    assert_eq!((tunnel.key.as_bytes(), tunnel.mtu), (&b"mine"[..], 1280));
    assert_eq!(
        (tunnel.compat, tunnel.mode.clone()),
        (Compat::Current, Mode::Auto)
    );
    assert!(config.log.quiet);
    let origin = config.provenance.of("mtu").expect("given").clone();
    assert_eq!(origin.to_string(), "c.json:6:7, \"mtu\"");
    let Origin::Json { line, column, .. } = config.provenance.of("quiet").expect("given") else {
        panic!("a file");
    };
    assert_eq!((*line, *column), (8, 9));
    let lines = fulmar_config::report::lines(&config).join("\n");
    assert!(lines.contains("<- c.json:6"), "{lines}");
}

#[test]
fn every_key_of_a_json_file_is_one_here() {
    for side in [Side::Client, Side::Server] {
        let mut text = format!("role = \"{}\"\n", side.name());
        for opt in options::of(side) {
            let Some(key) = opt.key else { continue };
            let value = match (opt.kind, opt.preset(side)) {
                (Kind::Bool, _) => "false".to_owned(),
                (_, Preset::Int(n)) => n.to_string(),
                (_, Preset::Text(text)) => format!("\"{text}\""),
                (_, Preset::Off) => panic!("{key}"),
            };
            // Given both, they contradict each other.
            if key != "key-file" {
                text += &format!("{key} = {value}\n");
            }
        }
        let config = accepted(&text);
        assert_eq!(config.role.name(), side.name());
        for opt in options::of(side).filter(|opt| opt.key.is_some_and(|key| key != "key-file")) {
            assert!(config.provenance.is_explicit(opt.flag), "{}", opt.flag);
        }
    }
}

#[test]
fn whose_file_it_is() {
    let name = |text: &str, side| read(text, side).map(|loaded| loaded.config.role.name());
    assert_eq!(name("listen = \":1\"", None), Ok("server"));
    assert_eq!(name("remoteaddr = \"h:1\"", None), Ok("client"));
    assert_eq!(name("role = \"server\"", None), Ok("server"));
    assert_eq!(
        name("role = \"client\"\nkey = \"k\"", Some(Side::Client)),
        Ok("client")
    );
    assert_eq!(name("key = \"k\"", Some(Side::Server)), Ok("server"));
    assert_eq!(
        name("key = \"k\"", None).expect_err("not told"),
        [
            "c.json: the file does not tell whether it is a client's (localaddr, remoteaddr) or a server's (listen, target); say so with role = \"client\" or role = \"server\""
        ]
    );
    for (text, side, problem) in [
        (
            "key = \"k\"\nrole = \"client\"",
            Some(Side::Server),
            "c.json:2:1: the file is a client's, and a server was asked for; ask for the other, or mend the role",
        ),
        (
            "role = \"relay\"",
            None,
            "c.json:1:8: the role is neither client nor server; write \"client\" or \"server\", in double quotes",
        ),
        (
            "role = 1",
            None,
            "c.json:1:8: the role is neither client nor server; write \"client\" or \"server\", in double quotes",
        ),
    ] {
        let problems = name(text, side).expect_err(text);
        assert!(problems.contains(&problem.to_owned()), "{problems:?}");
    }
}

#[test]
fn the_kcptun_of_2016_in_toml() {
    let text = CLIENT.to_owned() + "compat = \"2016c\"\ntuncrypt = true\n";
    let first = accepted(&text).tunnel.compat.first().expect("2016");
    assert_eq!((first.variant, first.tuncrypt), (Variant::C, true));
}

#[test]
fn mistakes_have_their_place() {
    for (text, problem) in [
        (
            "role = \"client\"\nkey = \"k\"\nQPPCount = 7\n",
            "c.json:3:1: \"QPPCount\" is ignored: kcptun's client has no such key; did you mean \"qpp-count\"?",
        ),
        (
            "role = \"client\"\nkey = \"k\"\nmdoe = \"auto\"\n",
            "c.json:3:1: \"mdoe\" is ignored: kcptun's client has no such key; did you mean \"mode\"?",
        ),
        (
            "role = \"client\"\nkey = \"k\"\ntarget = \"h:1\"\n",
            "c.json:3:1: \"target\" is ignored: it is a server's key and this is a client; remove it",
        ),
        (
            "role = \"client\"\nkey = \"k\"\n[client]\nmtu = 1300\n",
            "c.json:3:2: \"client\" is ignored: kcptun's client has no such key",
        ),
        (
            "role = \"client\"\nkey = \"k\"\nmtu = 1000\nMTU = 1001\n",
            "c.json:4:1: \"MTU\" is given again, as \"mtu\" before; the last one counts; remove one of them",
        ),
    ] {
        let loaded = read(text, None).expect("starts");
        let problems = &loaded.problems;
        let found = problems
            .iter()
            .find(|p| p.severity == Severity::Mistake)
            .unwrap_or_else(|| panic!("{problems:?}"));
        assert_eq!(found.to_string(), problem);
        assert!(found.is_fatal(true) && !found.is_fatal(false));
    }
    for (text, problem) in [
        (
            "role = \"client\"\nmtu = \"1300\"\n",
            "c.json:2:7, \"mtu\": \"1300\" is in quotes; write 50 to 1500 bytes, without quotes, fraction or exponent",
        ),
        (
            "role = \"client\"\nmtu = 1300.5\n",
            "c.json:2:7, \"mtu\": 1300.5 is not a whole number; write 50 to 1500 bytes, without quotes, fraction or exponent",
        ),
        (
            "role = \"client\"\nkeepalive = 9000\n",
            "c.json:2:13, \"keepalive\": 9000 is too large; write 1 to 30 seconds",
        ),
        (
            "role = \"client\"\nmtu = 99999999999999999999\n",
            "c.json:2:7, \"mtu\": 99999999999999999999 is too large; write 50 to 1500 bytes, without quotes, fraction or exponent",
        ),
        (
            "role = \"client\"\nkey = 2026-01-26\n",
            "c.json:2:7, \"key\": this is a date or time; write a text in double quotes",
        ),
        (
            "role = \"client\"\nlog = [\"f\"]\n",
            "c.json:2:7, \"log\": this is a list; write a text in double quotes",
        ),
        (
            "role = \"client\"\nlog.file = \"f\"\n",
            "c.json:2:1, \"log\": this is a table; write a text in double quotes",
        ),
        (
            "role = \"client\"\nquiet = 1\n",
            "c.json:2:9, \"quiet\": this is a number; write true or false without quotes",
        ),
    ] {
        let problems = read(text, None).expect_err(text);
        assert!(problems.contains(&problem.to_owned()), "{problems:?}");
    }
    for (text, problem) in [
        (
            "mtu = 1\nmtu = 2\n",
            "c.json:2:1: this is not TOML: duplicate key",
        ),
        ("mtu = 1\nmode = fast\n", "c.json:2:8: this is not TOML: "),
        ("key = \"k\n", "c.json:1:9: this is not TOML: "),
    ] {
        let problems = read(text, None).expect_err(text);
        assert!(problems[0].starts_with(problem), "{problems:?}");
        assert!(problems[0].ends_with("; write key = value, texts in plain double quotes"));
        assert_eq!(problems.len(), 1);
    }
}

#[test]
fn a_command_line_takes_it_as_well() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("fulmar.toml");
    std::fs::write(&path, "key = \"k\"\nmtu = 1200\n").expect("write");
    let args: Vec<OsString> = vec!["--mtu=1300".into(), "-c".into(), path.clone().into()];
    let Ok(Invocation::Run(loaded)) = from_args(Side::Server, &args, &Environment::default())
    else {
        panic!("accepted");
    };
    assert_eq!(loaded.config.tunnel.mtu, 1200);
    std::fs::write(&path, "role = \"client\"\nkey = \"k\"\n").expect("write");
    let refused = from_args(Side::Server, &args, &Environment::default()).expect_err("a client's");
    assert!(refused.to_string().ends_with("mend the role"), "{refused}");
    let loaded = from_file(&path, None, &Environment::default()).expect("file");
    assert_eq!(loaded.config.role.name(), "client");
    let any = any_from_bytes(&path, b"listen = \":1\"", None, &Environment::default());
    assert!(matches!(any, Ok(AnyLoaded::Kcptun(_))), "{any:?}");
}

#[test]
fn json_stays_json() {
    let problems = read("{\"mtu\": 1300,}", None).expect_err("a comma");
    assert!(
        problems[0].contains("a comma with nothing behind it"),
        "{problems:?}"
    );
    let problems = read("{\"role\":\"client\"}", None).expect_err("not told");
    assert!(problems[0].contains("with --role client"), "{problems:?}");
    let problems = read("", None).expect_err("empty");
    assert!(problems[0].contains("the file is empty"), "{problems:?}");
}
