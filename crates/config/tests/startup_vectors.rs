//! The real programs' start-up behaviour (vectors/kcptun/startup.json): same meaning, or a difference that is listed
//! here with its reason.

use std::ffi::OsString;

use fulmar_config::{
    Config, Crypt, Environment, Failure, Invocation, Loaded, Role, Severity, Side, from_args,
};
use fulmar_testkit::vectors;

/// What the real programs refuse with exit code 0, as if all were well. Here it is exit code 2, as for every mistake.
const ENDS_WELL_UPSTREAM: &[&str] = &[
    "--nosuchflag",
    "--mtu x",
    "--ds 1 --datashard 2",
    "-l :0",
    "-l nonsense",
];

/// What the real program refuses at start and we refuse later, with exit code 1, because only the system can tell.
const REFUSED_LATER: &[(&str, &str)] = &[
    (
        "-l 256.1.1.1:1",
        "names are looked up when the listener is opened",
    ),
    (
        "-l 1.2.3.4:29900",
        "whether an address is ours is found out when the socket is opened",
    ),
];

#[test]
fn same_meaning_as_the_real_programs() {
    let file = vectors::load("kcptun/startup.json");
    let cases = file["cases"].as_array().expect("cases");
    assert!(cases.len() >= 40);
    let dir = tempfile::tempdir().expect("dir");
    for (i, case) in cases.iter().enumerate() {
        let side = match case["program"].as_str() {
            Some("client") => Side::Client,
            Some("server") => Side::Server,
            other => panic!("{other:?}"),
        };
        if let Some(text) = case["config_json"].as_str() {
            std::fs::write(dir.path().join(format!("{i}.json")), text).expect("write");
        }
        let arguments: Vec<&str> = strings(case, "args");
        let args: Vec<OsString> = arguments
            .iter()
            .map(|arg| match *arg {
                "config.json" => dir.path().join(format!("{i}.json")).into(),
                "missing.json" => dir.path().join("missing.json").into(),
                arg => arg.into(),
            })
            .collect();
        let environment: Environment = case["env"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.clone(), value.as_str().expect("text").to_owned()))
            .collect();
        let line = arguments.join(" ");
        let got = from_args(side, &args, &environment);
        let runs = case["still_running"].as_bool().expect("still_running");
        let later = REFUSED_LATER.iter().any(|(args, _)| *args == line);
        let log = strings(case, "stderr");
        let out = strings(case, "stdout");
        match got {
            Ok(Invocation::Run(loaded)) => {
                assert!(runs || later, "case {i}, {line}: accepted\n{case}");
                if runs {
                    assert_eq!(
                        described(&loaded.config),
                        settings(&log),
                        "case {i}, {line}"
                    );
                    assert_eq!(warned(&loaded), warnings(&log, &out), "case {i}, {line}");
                }
            }
            Ok(Invocation::Version) => assert!(out[0].starts_with("kcptun version "), "case {i}"),
            Ok(Invocation::Help(_)) => panic!("case {i}: no case asks for help"),
            Err(failure) => {
                assert!(!runs, "case {i}, {line}: refused: {failure}");
                let ends_well = case["exit_code"] == 0;
                assert_eq!(
                    ends_well,
                    ENDS_WELL_UPSTREAM.contains(&line.as_str()),
                    "{line}"
                );
                assert!(!later, "case {i}: {failure}");
                assert_names_the_place(&failure, case["config_json"].is_string());
            }
        }
    }
}

/// The lines of the real log that say how the tunnel behaves, in our words for comparison.
fn settings(log: &[&str]) -> Vec<String> {
    const SAME: [&str; 20] = [
        "smux version: ",
        "listening on: ",
        "target: ",
        "nodelay parameters: ",
        "remote address: ",
        "sndwnd: ",
        "compression: ",
        "mtu: ",
        "ratelimit: ",
        "datashard: ",
        "acknodelay: ",
        "dscp: ",
        "sockbuf: ",
        "smuxbuf: ",
        "framesize: ",
        "streambuf: ",
        "keepalive: ",
        "conn: ",
        "autoexpire: ",
        "quiet: ",
    ];
    let number = |text: &str| text.parse::<i64>().expect("number");
    log.iter()
        .filter(|line| SAME.iter().any(|start| line.starts_with(start)))
        .map(|line| match line.split_once(": ") {
            // KCP clamps the interval; ours is what it comes to.
            Some(("nodelay parameters", values)) => {
                let mut values: Vec<i64> = values.split(' ').map(number).collect();
                values[1] = values[1].clamp(10, 5000);
                format!("nodelay parameters: {values:?}")
            }
            Some(("ratelimit", rate)) => format!("ratelimit: {}", number(rate).max(0)),
            _ => (*line).to_owned(),
        })
        .collect()
}

/// The same lines from our model.
fn described(config: &Config) -> Vec<String> {
    let tunnel = &config.tunnel;
    let mut lines = vec![format!("smux version: {}", tunnel.smux.version)];
    match &config.role {
        Role::Client(client) => lines.push(format!("listening on: {}", client.listen)),
        Role::Server(server) => lines.extend([
            format!("listening on: {}", server.listen),
            format!("target: {}", server.target),
        ]),
    }
    let nodelay = [
        i64::from(tunnel.nodelay),
        i64::try_from(tunnel.interval.as_millis()).expect("small"),
        i64::from(tunnel.resend),
        i64::from(!tunnel.congestion_control),
    ];
    lines.push(format!("nodelay parameters: {nodelay:?}"));
    if let Role::Client(client) = &config.role {
        lines.push(format!("remote address: {}", client.remote));
    }
    let fec = tunnel.fec.map_or((0, 0), |fec| (fec.data, fec.parity));
    lines.extend([
        format!("sndwnd: {} rcvwnd: {}", tunnel.snd_wnd, tunnel.rcv_wnd),
        format!("compression: {}", tunnel.compression),
        format!("mtu: {}", tunnel.mtu),
        format!("ratelimit: {}", tunnel.rate_limit.unwrap_or(0)),
        format!("datashard: {} parityshard: {}", fec.0, fec.1),
        format!("acknodelay: {}", tunnel.ack_no_delay),
        format!("dscp: {}", tunnel.dscp),
        format!("sockbuf: {}", tunnel.sock_buf),
        format!("smuxbuf: {}", tunnel.smux.buffer),
        format!("framesize: {}", tunnel.smux.frame_size),
        format!("streambuf: {}", tunnel.smux.stream_buffer),
        format!("keepalive: {}", tunnel.smux.keep_alive.as_secs()),
    ]);
    if let Role::Client(client) = &config.role {
        let autoexpire = client.autoexpire.map_or(0, |time| time.as_secs());
        lines.push(format!("conn: {}", client.conn));
        lines.push(format!("autoexpire: {autoexpire}"));
    }
    lines.push(format!("quiet: {}", config.log.quiet));
    lines
}

/// Which of the real program's warnings are in its output.
fn warnings(log: &[&str], out: &[&str]) -> Vec<&'static str> {
    let mut all = Vec::new();
    let has = |lines: &[&str], text: &str| lines.iter().any(|line| line.contains(text));
    for (name, lines, text) in [
        ("rate", log, "is negative, falling back to 0"),
        ("qpp key", out, "required 211 bytes"),
        ("qpp prime", out, "choose a prime number"),
        ("scavenger", out, "scavengettl is bigger than autoexpire"),
    ] {
        if has(lines, text) {
            all.push(name);
        }
    }
    all
}

/// Which of them are among ours.
fn warned(loaded: &Loaded) -> Vec<&'static str> {
    let says = |text: &str| loaded.problems.iter().any(|p| p.message.contains(text));
    [
        ("rate", "means no limit"),
        ("qpp key", "211 are advised"),
        ("qpp prime", "a prime number is advised"),
        ("scavenger", "are longer than autoexpire"),
    ]
    .into_iter()
    .filter_map(|(name, text)| says(text).then_some(name))
    .collect()
}

fn assert_names_the_place(failure: &Failure, json: bool) {
    let text = failure.to_string();
    assert!(
        failure
            .problems
            .iter()
            .any(|p| p.severity == Severity::Error)
    );
    assert!(
        if json {
            text.contains(".json")
        } else {
            text.contains("command line") || text.contains("missing.json")
        },
        "{text}"
    );
}

fn strings<'a>(case: &'a vectors::Value, key: &str) -> Vec<&'a str> {
    let list = case[key].as_array().expect(key);
    list.iter().map(|text| text.as_str().expect(key)).collect()
}

#[test]
fn the_environment_gives_the_key_unless_the_command_line_or_file_does() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("c.json");
    std::fs::write(&path, r#"{"key":"from file"}"#).expect("write");
    let key = |args: &[&str], environment: &[(&str, &str)]| {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        let environment = environment.iter().copied().collect();
        match from_args(Side::Client, &args, &environment) {
            Ok(Invocation::Run(loaded)) => {
                let tunnel = loaded.config.tunnel;
                (
                    String::from_utf8(tunnel.key.as_bytes().to_vec()).expect("text"),
                    tunnel.key_is_default,
                )
            }
            other => panic!("{other:?}"),
        }
    };
    let file = path.to_str().expect("path");
    assert_eq!(key(&[], &[]), ("it's a secrect".into(), true));
    assert_eq!(key(&[], &[("KCPTUN_KEY", "env")]), ("env".into(), false));
    assert_eq!(key(&[], &[("KCPTUN_KEY", "")]), (String::new(), false));
    assert_eq!(
        key(&["--key", "flag"], &[("KCPTUN_KEY", "env")]),
        ("flag".into(), false)
    );
    assert_eq!(
        key(&["--key", "flag", "-c", file], &[("KCPTUN_KEY", "env")]),
        ("from file".into(), false)
    );
    let plugin = [
        ("SS_REMOTE_HOST", "h"),
        ("SS_REMOTE_PORT", "1"),
        ("SS_LOCAL_HOST", "127.0.0.1"),
        ("SS_LOCAL_PORT", "2"),
        ("SS_PLUGIN_OPTIONS", "key=option"),
    ];
    assert_eq!(key(&["-c", file], &plugin), ("option".into(), false));
}

#[test]
fn an_unknown_cipher_keeps_its_name() {
    let args = ["--crypt", "aes-256"].map(OsString::from);
    let Ok(Invocation::Run(loaded)) = from_args(Side::Client, &args, &Environment::default())
    else {
        panic!("accepted upstream");
    };
    let tunnel = loaded.config.tunnel;
    assert_eq!(
        tunnel.crypt,
        Crypt::Method(fulmar_wire::kcptun::Method::Aes)
    );
    assert_eq!(tunnel.crypt_unknown_name.as_deref(), Some("aes-256"));
}
