//! `--compat 2016`: the flags, defaults, modes and numbers of the kcptun of spring 2016 (docs/spec/kcptun2016.md, section 3),
//! written down independently of our tables, and what is refused or noted beside it.

use std::ffi::OsString;

use fulmar_config::options::{self, first};
use fulmar_config::{
    Compat, Config, Crypt, Environment, First, Invocation, Mode, Origin, Program, Role, Severity,
    Side, StreamAddr, from_args, from_bytes, report,
};
use fulmar_wire::kcptun::Method;
use fulmar_wire::kcptun2016::{Method as Method2016, Variant};
use proptest::prelude::*;

const SIDES: [Side; 2] = [Side::Client, Side::Server];
const NAMES: [(&str, Variant); 5] = [
    ("2016", Variant::B),
    ("2016a", Variant::A),
    ("2016b", Variant::B),
    ("2016bt", Variant::Bt),
    ("2016c", Variant::C),
];

/// What comes of `args` behind `--compat name`, and everything that is said but notes about the dialect in general and the
/// warning about its protection.
fn say(side: Side, name: &str, args: &[&str]) -> (Option<Config>, Vec<String>) {
    let compat = format!("--compat={name}");
    let all: Vec<OsString> = [compat.as_str()]
        .iter()
        .chain(args)
        .map(OsString::from)
        .collect();
    let environment = Environment::from_iter([("KCPTUN_KEY", "Xq7Lw2Rt9Kp4Vz1N")]);
    let (config, problems) = match from_args(side, &all, &environment) {
        Ok(Invocation::Run(loaded)) => (Some(loaded.config), loaded.problems),
        Ok(other) => panic!("{other:?}"),
        Err(failure) => (None, failure.problems),
    };
    let of_compat = format!("{:?}", Origin::Flag("--compat".into()));
    let problems = problems
        .iter()
        .filter(|p| {
            p.severity >= Severity::Mistake || !format!("{:?}", p.place).contains(&of_compat)
        })
        .filter(|p| !p.message.contains("process list") && !p.message.contains("will be looked up"))
        .map(|p| format!("{:?}: {p}", p.severity))
        .collect();
    (config, problems)
}

fn accepted(side: Side, name: &str, args: &[&str]) -> Config {
    let (config, problems) = say(side, name, args);
    assert_eq!(problems, [""; 0], "{name} {args:?}");
    config.expect("accepted")
}

#[test]
fn defaults_of_that_program() {
    for (name, variant) in NAMES {
        for side in SIDES {
            let config = accepted(side, name, &[]);
            let tunnel = &config.tunnel;
            let first = First {
                variant,
                tuncrypt: !matches!(variant, Variant::Bt | Variant::C),
                methods: &[Method2016::Sealed],
            };
            assert_eq!(tunnel.compat, Compat::First(first));
            assert_eq!(tunnel.compat.first(), Some(first));
            assert_eq!(tunnel.crypt, Crypt::Method(Method::Aes));
            assert_eq!((tunnel.fec, tunnel.auto, tunnel.qpp), (None, None, None));
            assert!(!tunnel.compression && !tunnel.tcp && !tunnel.ack_no_delay);
            assert_eq!((tunnel.mode.clone(), tunnel.mtu), (Mode::Fast, 1400));
            // A server's clients may be of any variant; only A has another receive window at the server, 128.
            let windows = match side {
                Side::Client => (128, 1024),
                Side::Server => (1024, 1024),
            };
            assert_eq!((tunnel.snd_wnd, tunnel.rcv_wnd), windows);
            let smux = tunnel.smux;
            assert_eq!((smux.frame_size, smux.keep_alive.as_secs()), (32768, 10));
            assert_eq!((smux.buffer, smux.stream_buffer), (4 << 20, 2 << 20));
            assert_eq!(tunnel.mtu, fulmar_wire::kcptun2016::DEFAULT_MTU);
            let mtu = config.provenance.of("mtu");
            assert_eq!(mtu, Some(&Origin::Default(Program::KcptunFirst)));
        }
    }
    let Role::Client(client) = accepted(Side::Client, "2016", &[]).role else {
        panic!("client");
    };
    assert_eq!(
        client.listen,
        StreamAddr::Tcp {
            host: String::new(),
            port: 12948
        }
    );
    assert_eq!(client.remote.to_string(), "vps:29900");
    let Role::Server(server) = accepted(Side::Server, "2016", &[]).role else {
        panic!("server");
    };
    assert_eq!(server.listen.to_string(), ":29900");
    assert_eq!(server.target.to_string(), "127.0.0.1:12948");
}

#[test]
fn without_it_everything_is_todays() {
    for side in SIDES {
        for args in [
            &[][..],
            &["--compat="],
            &["--compat", "", "--tuncrypt=false"],
        ] {
            let args: Vec<OsString> = args.iter().map(OsString::from).collect();
            let environment = Environment::from_iter([("KCPTUN_KEY", "Xq7Lw2Rt9Kp4Vz1N")]);
            let Ok(Invocation::Run(loaded)) = from_args(side, &args, &environment) else {
                panic!("{args:?}");
            };
            let tunnel = &loaded.config.tunnel;
            assert_eq!(tunnel.compat, Compat::Current);
            assert_eq!((tunnel.compat.first(), tunnel.mtu), (None, 1350));
            let problems = &loaded.problems;
            assert!(
                !problems.iter().any(|p| p.message.contains("2016")),
                "{problems:?}"
            );
            let lines = report::lines(&loaded.config).join("\n");
            assert!(
                !lines.contains("compat") && !lines.contains("tuncrypt"),
                "{lines}"
            );
        }
    }
}

#[test]
fn the_flags_of_that_program() {
    let config = accepted(
        Side::Client,
        "2016c",
        &[
            "-l",
            ":1",
            "-r",
            "h:2",
            "--mode",
            "fast2",
            "--tuncrypt",
            "--mtu=1200",
            "--sndwnd",
            "9",
            "--rcvwnd",
            "8",
        ],
    );
    let tunnel = &config.tunnel;
    assert_eq!(
        tunnel.compat.first().map(|first| first.tuncrypt),
        Some(true)
    );
    assert_eq!((tunnel.mtu, tunnel.snd_wnd, tunnel.rcv_wnd), (1200, 9, 8));
    assert_eq!(
        (tunnel.key.as_bytes(), tunnel.key_is_default),
        (&b"Xq7Lw2Rt9Kp4Vz1N"[..], false)
    );
    accepted(
        Side::Client,
        "2016",
        &["--localaddr=:1", "--remoteaddr=h:2", "--mode=normal"],
    );
    accepted(
        Side::Server,
        "2016",
        &["--listen=:1", "--target=h:2", "--mode=default"],
    );
    accepted(Side::Server, "2016b", &["-l=:1", "-t=h:2"]);
    let off = accepted(Side::Client, "2016c", &["--tuncrypt=false"]).tunnel;
    assert_eq!(off.compat.first().map(|first| first.tuncrypt), Some(false));
}

#[test]
fn modes_and_their_numbers() {
    use Variant::{A, B, Bt, C};
    type Row = (Variant, &'static str, Mode, (bool, u128, u32, bool));
    // nodelay, interval, resend, nc, as the specification has them.
    let rows: &[Row] = &[
        (A, "fast", Mode::Fast, (true, 10, 2, true)),
        (A, "normal", Mode::Normal, (false, 20, 0, true)),
        (A, "default", Mode::Default, (false, 40, 0, false)),
        (B, "fast", Mode::Fast, (true, 10, 2, true)),
        (B, "normal", Mode::Normal, (false, 20, 0, true)),
        (B, "default", Mode::Default, (false, 40, 0, false)),
        (Bt, "fast", Mode::Fast, (true, 10, 2, true)),
        (Bt, "normal", Mode::Normal, (false, 20, 0, true)),
        (Bt, "default", Mode::Default, (false, 40, 0, false)),
        (C, "fast", Mode::Fast, (true, 20, 2, true)),
        (C, "normal", Mode::Normal, (false, 20, 2, true)),
        (C, "default", Mode::Default, (false, 20, 2, false)),
        (C, "fast2", Mode::Fast2, (true, 10, 2, true)),
    ];
    for side in SIDES {
        for (variant, name, mode, numbers) in rows {
            let compat = format!("2016{}", variant.name().to_lowercase());
            let tunnel = accepted(side, &compat, &["--mode", name]).tunnel;
            let got = (
                tunnel.nodelay,
                tunnel.interval.as_millis(),
                tunnel.resend,
                !tunnel.congestion_control,
            );
            assert_eq!((&tunnel.mode, &got), (mode, numbers), "{compat} {name}");
            assert_eq!((tunnel.mode.name(), tunnel.auto), (*name, None));
        }
    }
    let known: usize = Variant::ALL.iter().map(|v| first::modes(*v).len()).sum();
    assert_eq!(known, rows.len());
    for (compat, mode, problem) in [
        (
            "2016",
            "fast2",
            "is no mode of the kcptun of 2016, variant B; write one of fast, normal, default, auto, or compat 2016c",
        ),
        (
            "2016a",
            "manual",
            "is no mode of the kcptun of 2016, variant A; write one of fast, normal, default, auto",
        ),
        (
            "2016c",
            "fast3",
            "is no mode of the kcptun of 2016, variant C; did you mean fast?",
        ),
        (
            "2016c",
            "noraml",
            "is no mode of the kcptun of 2016, variant C; did you mean normal?",
        ),
    ] {
        for side in SIDES {
            let (config, problems) = say(side, compat, &["--mode", mode]);
            assert!(config.is_none());
            assert_eq!(
                problems,
                [format!("Error: command line, --mode: \"{mode}\" {problem}")]
            );
        }
    }
}

#[test]
fn mode_auto_without_parity() {
    for (name, _) in NAMES {
        for side in SIDES {
            let tunnel =
                accepted(side, name, &["--mode=auto", "--redundancy=9", "--memory=8"]).tunnel;
            let auto = tunnel.auto.expect("auto");
            assert_eq!(
                (auto.redundancy, auto.memory, auto.parity),
                (9, 8 << 20, false)
            );
            assert!(auto.snd_wnd && auto.rcv_wnd);
            assert_eq!((tunnel.snd_wnd, tunnel.rcv_wnd), (65535, 5592));
            assert_eq!((tunnel.fec, tunnel.mtu), (None, 1400));
            assert_eq!(
                (tunnel.smux.buffer, tunnel.smux.stream_buffer),
                (8 << 20, 8 << 20)
            );
        }
    }
}

#[test]
fn options_of_later_programs_and_ours_work() {
    let dir = tempfile::tempdir().expect("dir");
    let key = dir.path().join("key");
    std::fs::write(&key, "Xq7Lw2Rt9Kp4Vz1N").expect("write");
    let key = format!("--key-file={}", key.display());
    let config = accepted(
        Side::Client,
        "2016",
        &[
            &key,
            "--threads=3",
            "--conn=2",
            "--autoexpire=900",
            "--scavengettl=5",
            "--sockbuf=9999",
            "--dscp=46",
            "--ratelimit=1000",
            "--streambuf=300000",
            "--smuxbuf=400000",
            "--framesize=1000",
            "--keepalive=7",
            "--closewait=3",
            "--snmplog=f",
            "--snmpperiod=9",
            "--http-listen=127.0.0.1:1",
            "--log=l",
            "--quiet",
            "--acknodelay",
        ],
    );
    let tunnel = &config.tunnel;
    assert_eq!(tunnel.key.as_bytes(), b"Xq7Lw2Rt9Kp4Vz1N");
    assert_eq!(config.threads.map(u16::from), Some(3));
    assert_eq!(
        (tunnel.sock_buf, tunnel.dscp, tunnel.rate_limit),
        (9999, 46, Some(1000))
    );
    assert_eq!(
        (tunnel.smux.stream_buffer, tunnel.smux.buffer),
        (300_000, 400_000)
    );
    assert_eq!(
        (tunnel.smux.frame_size, tunnel.smux.keep_alive.as_secs()),
        (1000, 7)
    );
    assert_eq!(
        (tunnel.close_wait.as_secs(), tunnel.ack_no_delay),
        (3, true)
    );
    assert!(config.stats.http_listen.is_some() && config.stats.snmp_log.is_some());
    assert!(config.log.quiet && config.log.file.is_some());
    let Role::Client(client) = config.role else {
        panic!("client");
    };
    assert_eq!(
        (client.conn, client.scavenge_ttl.map(|ttl| ttl.as_secs())),
        (2, Some(5))
    );
}

#[test]
fn what_that_time_lacks_is_refused_where_it_is_asked_for() {
    for (arg, why) in [
        (
            "--crypt=salsa20",
            "it has one cipher, AES-256; write aes, or remove it",
        ),
        (
            "--crypt=none",
            "it has one cipher, AES-256; write aes, or remove it",
        ),
        (
            "--crypt=auto",
            "it has one cipher, AES-256; write aes, or remove it",
        ),
        ("--QPP", "it has no QPP; remove it"),
        ("--datashard=10", "it has no parity; write 0, or remove it"),
        ("--ds=1", "it has no parity; write 0, or remove it"),
        ("--parityshard=3", "it has no parity; write 0, or remove it"),
        ("--ps=255", "it has no parity; write 0, or remove it"),
        (
            "--smuxver=1",
            "its multiplexer is yamux, not smux; remove it",
        ),
        (
            "--smuxver=2",
            "its multiplexer is yamux, not smux; remove it",
        ),
        ("--tcp", "its packets are plain UDP; remove it"),
        ("--nodelay=0", "it has no mode manual; remove it"),
        ("--interval=10", "it has no mode manual; remove it"),
        ("--resend=2", "it has no mode manual; remove it"),
        ("--nc=1", "it has no mode manual; remove it"),
    ] {
        for (name, _) in NAMES {
            for side in SIDES {
                let (config, problems) = say(side, name, &[arg]);
                assert!(config.is_none(), "{arg}");
                let flag = arg.split('=').next().expect("flag");
                let problem =
                    format!("Error: command line, {flag}: not with the kcptun of 2016: {why}");
                assert!(problems.contains(&problem), "{problem}\n{problems:?}");
            }
        }
    }
    // Together, each is named.
    let (_, problems) = say(Side::Client, "2016", &["--QPP", "--ps=3", "--mode=fast3"]);
    assert_eq!(problems.len(), 3, "{problems:?}");
    // What asks for nothing is no contradiction.
    for arg in [
        "--crypt=aes",
        "--QPP=false",
        "--ds=0",
        "--ps=0",
        "--ds=-1",
        "--tcp=false",
    ] {
        accepted(Side::Client, "2016", &[arg]);
    }
    // The other options that are refused are refused as ever.
    let (_, problems) = say(Side::Server, "2016", &["--pprof", "-V"]);
    assert_eq!(problems.len(), 2, "{problems:?}");
}

#[test]
fn what_has_no_effect_is_noted() {
    let idle = |arg: &str, why: &str| {
        let (config, problems) = say(Side::Client, "2016", &[arg]);
        assert!(config.is_some());
        let flag = arg.split('=').next().expect("flag");
        let note = format!(
            "Note: command line, {flag}: has no effect with the kcptun of 2016: {why}; remove it"
        );
        assert_eq!(problems, [note]);
    };
    idle("--nocomp", "it has no compression");
    idle("--nocomp=false", "it has no compression");
    idle("--QPPCount=7", "it has no QPP");
    idle("--qpp-compat=2024", "it has no QPP");
    for (side, name, args, note) in [
        (
            Side::Client,
            "2016",
            &["--tuncrypt"],
            "variants A and B always encrypt the stream",
        ),
        (
            Side::Client,
            "2016a",
            &["--tuncrypt=false"],
            "variants A and B always encrypt the stream",
        ),
        (
            Side::Server,
            "2016",
            &["--tuncrypt"],
            "a server finds out whether a client does it",
        ),
        (
            Side::Server,
            "2016c",
            &["--tuncrypt"],
            "a server finds out whether a client does it",
        ),
    ] {
        let (config, problems) = say(side, name, args);
        let first = config.and_then(|config| config.tunnel.compat.first());
        assert!(first.is_some_and(|first| first.tuncrypt), "{name} {args:?}");
        let note = format!("Note: command line, --tuncrypt: has no effect: {note}; remove it");
        assert_eq!(problems, [note]);
    }
    let note = &say(Side::Client, "2016", &["--memory=7"]).1;
    assert_eq!(
        *note,
        [
            "Note: command line, --memory: has no effect with mode fast; write mode auto to use it, or remove it"
        ]
    );
}

#[test]
fn names_that_are_none_and_tuncrypt_alone() {
    let refused = |args: &[&str], problem: &str| {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        let environment = Environment::from_iter([("KCPTUN_KEY", "Xq7Lw2Rt9Kp4Vz1N")]);
        let failure = from_args(Side::Server, &args, &environment).expect_err("refused");
        assert_eq!(failure.to_string(), problem);
    };
    for name in ["2015", "2016d", "2016A", " 2016"] {
        refused(
            &["--compat", name],
            &format!(
                "command line, --compat: \"{name}\" is no kcptun that is known here; write one of 2016, 2016a, 2016b, 2016bt, 2016c, or leave it out for today's kcptun"
            ),
        );
    }
    refused(
        &["--tuncrypt"],
        "command line, --tuncrypt: only the kcptun of 2016 has this; write compat 2016bt or 2016c, too, or remove it",
    );
}

#[test]
fn its_protection_is_one_warning_and_an_empty_key_another() {
    let warnings = |side, args: &[&str]| {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        let Ok(Invocation::Run(loaded)) = from_args(side, &args, &Environment::default()) else {
            panic!("{args:?}");
        };
        let warnings = loaded.problems.iter().filter(|p| {
            p.severity >= Severity::Warning && !p.message.contains("will be looked up")
        });
        warnings.map(ToString::to_string).collect::<Vec<_>>()
    };
    let protection = "command line, --compat: the kcptun of 2016 protects little: its key is one SHA-256 without salt, MD5 inside CFB \
                      is no authentication, old packets can be sent again, and who learns the key can read what was recorded; use a \
                      long random key (fulmar genpsk makes one), and TLS or ssh inside the tunnel";
    for side in SIDES {
        for (name, _) in NAMES {
            assert_eq!(
                warnings(side, &["--compat", name, "--key=Xq7Lw2Rt9Kp4Vz1N"]),
                [protection]
            );
            assert_eq!(
                warnings(side, &["--compat", name, "--key="]),
                [
                    "command line, --key: the key is empty: anyone can read and forge packets; give the same key to both ends (fulmar \
                     genpsk makes one)"
                ]
            );
            let public = warnings(side, &["--compat", name]);
            assert_eq!(public.len(), 2, "{public:?}");
            assert!(
                public[0].contains("kcptun's default, which everybody knows"),
                "{public:?}"
            );
            assert_eq!(public[1], protection);
        }
    }
}

#[test]
fn without_a_key_the_variants_differ_and_a_server_takes_all() {
    use Method2016::{Plain, Sealed};
    let note = "the key is empty, so packets travel in clear, as in variant C from 13 May 2016 on";
    let methods = |side, name, more: &[&str]| {
        let (config, problems) = say(side, name, &[&["--key="], more].concat());
        let first = config.expect("accepted").tunnel.compat.first();
        let noted = problems.iter().any(|p| p.contains(note));
        (first.expect("of 2016").methods, noted)
    };
    for (name, variant) in NAMES {
        let alone: &[_] = match variant {
            Variant::A | Variant::C => &[Plain],
            Variant::B | Variant::Bt => &[Sealed],
        };
        // The release of 7 May is a C that seals, and is asked for by name.
        let with_aes: &[_] = match variant {
            Variant::A => &[Plain],
            _ => &[Sealed],
        };
        assert_eq!(methods(Side::Client, name, &[]).0, alone, "{name}");
        assert_eq!(
            methods(Side::Client, name, &["--crypt=aes"]).0,
            with_aes,
            "{name}"
        );
        assert_eq!(
            methods(Side::Server, name, &[]),
            (&[Sealed, Plain][..], false)
        );
    }
    let lines = |side, name, args: &[&str]| {
        let (config, _) = say(side, name, args);
        report::lines(&config.expect("accepted")).join("\n")
    };
    assert!(lines(Side::Client, "2016c", &["--key="]).contains("crypt       no encryption (2016)"));
    // Room for a header is needed where one is written.
    for (side, name, accepted) in [
        (Side::Client, "2016", false),
        (Side::Client, "2016a", true),
        (Side::Server, "2016a", false),
    ] {
        let (config, _) = say(side, name, &["--key=", "--mtu=60"]);
        assert_eq!(config.is_some(), accepted, "{name}");
    }
}

#[test]
fn a_check_explains_the_period() {
    let notes = |content: &str| {
        let path = std::path::Path::new("c.json");
        let loaded =
            from_bytes(path, content.as_bytes(), None, &Environment::default()).expect("good");
        let notes = loaded
            .problems
            .iter()
            .filter(|p| p.severity == Severity::Note);
        notes
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    };
    let server = notes(r#"{"listen":":1","key":"Xq7Lw2Rt9Kp4Vz1N","compat":"2016c"}"#);
    for text in [
        "c.json:1:50, \"compat\": a server finds out which variant each client speaks; ",
        "has no parity, no compression, no QPP and no look of TCP",
        "closes both directions of a connection when one ends",
    ] {
        assert!(server.contains(text), "{text}\n{server}");
    }
    let client = notes(r#"{"remoteaddr":"h:1","key":"Xq7Lw2Rt9Kp4Vz1N","compat":"2016"}"#);
    assert!(client.contains("cannot find out which variant the server speaks; this is variant B; write 2016a, 2016b, 2016bt or 2016c"));
}

#[test]
fn from_every_syntax() {
    let expected = |config: &Config| {
        let first = First {
            variant: Variant::C,
            tuncrypt: true,
            methods: &[Method2016::Sealed],
        };
        assert_eq!(config.tunnel.compat, Compat::First(first));
        assert_eq!((config.tunnel.mtu, config.tunnel.rcv_wnd), (1400, 1024));
    };
    expected(&accepted(Side::Client, "2016c", &["-tuncrypt"]));
    let json = r#"{"remoteaddr":"h:1","key":"Xq7Lw2Rt9Kp4Vz1N","Compat":"2016c","TunCrypt":true}"#;
    let path = std::path::Path::new("c.json");
    let loaded = from_bytes(path, json.as_bytes(), None, &Environment::default()).expect("file");
    assert_eq!(loaded.config.role.name(), "client");
    expected(&loaded.config);
    // The file decides, the flag stands below it; what the command line says of sizes stays.
    let dir = tempfile::tempdir().expect("dir");
    let file = dir.path().join("c.json");
    std::fs::write(&file, r#"{"compat":""}"#).expect("write");
    let (config, _) = say(Side::Client, "2016", &["-c", file.to_str().expect("path")]);
    let tunnel = config.expect("accepted").tunnel;
    assert_eq!((tunnel.compat, tunnel.mtu), (Compat::Current, 1350));
    let plugin = Environment::from_iter([
        ("SS_REMOTE_HOST", "127.0.0.1"),
        ("SS_REMOTE_PORT", "1"),
        ("SS_LOCAL_HOST", "127.0.0.1"),
        ("SS_LOCAL_PORT", "2"),
        ("SS_PLUGIN_OPTIONS", "key=k;compat=2016c;tuncrypt"),
    ]);
    let Ok(Invocation::Run(loaded)) = from_args(Side::Client, &[], &plugin) else {
        panic!("accepted");
    };
    expected(&loaded.config);
}

#[test]
fn a_file_with_status_page_and_compat_is_no_libev_file() {
    let recognised = |text: &str| fulmar_config::recognise(text.as_bytes());
    assert_eq!(
        recognised(r#"{"listen":":1","http_listen":":2","compat":"2016"}"#),
        fulmar_config::Dialect::Kcptun
    );
}

#[test]
fn help_knows_for_which_kcptun_it_is_asked() {
    let help = |args: &[&str]| {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        match from_args(Side::Client, &args, &Environment::default()) {
            Ok(Invocation::Help(compat)) => compat,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(help(&["--help"]), None);
    assert_eq!(help(&["--help", "--compat", "2016c"]), Some(Variant::C));
    assert_eq!(help(&["--compat=2016", "-h"]), Some(Variant::B));
    assert_eq!(help(&["--compat=no", "-h"]), None);
}

#[test]
fn the_block_at_start() {
    let block = |side, name: &str, args: &[&str]| report::lines(&accepted(side, name, args));
    let shown = |lines: &[String], wanted: &[&str]| {
        for line in wanted {
            let found = lines.iter().any(|known| known.starts_with(line));
            assert!(found, "{line}\n{}", lines.join("\n"));
        }
    };
    let client = block(Side::Client, "2016", &["--mode=default"]);
    shown(
        &client,
        &[
            "  compat      kcptun of spring 2016, variant B  <- command line, --compat",
            "  crypt       aes-256-cfb with md5 (2016)",
            "  mode        default: nodelay 0, interval 40 ms, resend 0, nc 0  <- ",
            "  rcvwnd      1024 packets",
            "  mtu         1400 bytes",
            "  keepalive   10 s",
        ],
    );
    let client = client.join("\n");
    for absent in [
        "tuncrypt", "QPP", "qpp", "shard", "nocomp", "smuxver", "tcp ", "parity",
    ] {
        assert!(!client.contains(absent), "{absent}\n{client}");
    }
    shown(
        &block(Side::Client, "2016c", &[]),
        &[
            "  compat      kcptun of spring 2016, variant C",
            "  tuncrypt    off",
        ],
    );
    for name in ["2016bt", "2016c"] {
        shown(
            &block(Side::Client, name, &["--tuncrypt"]),
            &["  tuncrypt    on "],
        );
    }
    shown(
        &block(Side::Client, "2016bt", &[]),
        &[
            "  compat      kcptun of spring 2016, variant BT",
            "  tuncrypt    off",
        ],
    );
    shown(
        &block(Side::Server, "2016a", &["--mode=auto"]),
        &[
            "  compat      kcptun of spring 2016, the variant that a client speaks  <- ",
            "  tuncrypt    as a client does",
            "  mode        auto: retransmission, send window and receive window follow the path  <- ",
            "  redundancy  25: copies of small messages",
        ],
    );
    shown(
        &block(
            Side::Server,
            "2016",
            &["--mode=auto", "--redundancy=0", "--sndwnd=5"],
        ),
        &[
            "  mode        auto: retransmission and receive window follow the path; fixed: send window  <- ",
            "  redundancy  0: no copies",
        ],
    );
    let (config, _) = say(Side::Server, "2016", &["--key="]);
    shown(
        &report::lines(&config.expect("accepted")),
        &["  crypt       aes-256-cfb with md5 (2016) or no encryption (2016)"],
    );
}

#[test]
fn a_stream_has_at_least_the_window_that_it_begins_with() {
    for (args, problem) in [
        (&["--streambuf=262144"][..], None),
        (&["--streambuf=262144", "--smuxbuf=262144"], None),
        (
            &["--streambuf=262143"],
            Some("--streambuf: 262143 is too small"),
        ),
        (
            &["--mode=auto", "--smuxbuf=262143"],
            Some("--smuxbuf: 262143 is too small"),
        ),
    ] {
        let (config, problems) = say(Side::Server, "2016", args);
        assert_eq!(config.is_none(), problem.is_some(), "{args:?}");
        let expected = problem.map(|text| {
            format!(
                "Error: command line, {text}: with the kcptun of 2016 a stream begins with 262144 bytes; write 262144 or more"
            )
        });
        assert_eq!(problems, Vec::from_iter(expected));
    }
}

#[test]
fn the_size_has_room_for_the_header() {
    // In variant A packets without a key have no header.
    for (args, problem) in [
        (
            &["--mtu=81"][..],
            Some(
                "81 leaves no room beside the header of aes-256-cfb with md5 (2016); write 82 to 1500 bytes",
            ),
        ),
        (
            &["--mtu=49", "--key="],
            Some("49 is too small; write 50 to 1500 bytes"),
        ),
        (&["--mtu=82"], None),
        (&["--mtu=50", "--key="], None),
    ] {
        let (config, problems) = say(Side::Client, "2016a", args);
        assert_eq!(config.is_none(), problem.is_some(), "{args:?}");
        let error = problems.iter().find(|p| p.starts_with("Error"));
        let expected = problem.map(|text| format!("Error: command line, --mtu: {text}"));
        assert_eq!(error, expected.as_ref());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever is given: refused, or within the promises of the model.
    #[test]
    fn the_model_keeps_its_promises(
        numbers in proptest::collection::vec((0..options::TABLE.len(), prop_oneof![-2i64..100, 40i64..70_000, any::<i64>()]), 0..4),
        name in "2016([abc]|bt)?",
        mode in "(normal|fast|fast2|default|manual|auto)",
        key in "[a-z]{0,3}",
        tuncrypt: bool,
        server: bool,
    ) {
        let side = if server { Side::Server } else { Side::Client };
        let mut args: Vec<OsString> = vec![
            format!("--compat={name}").into(),
            format!("--mode={mode}").into(),
            format!("--key={key}").into(),
            format!("--tuncrypt={tuncrypt}").into(),
        ];
        for (index, n) in numbers {
            let opt = &options::TABLE[index];
            if opt.is_for(side) && matches!(opt.kind, options::Kind::Int { .. }) {
                args.push(format!("--{}={n}", opt.flag).into());
            }
        }
        match from_args(side, &args, &Environment::default()) {
            Err(failure) => prop_assert!(failure.problems.iter().any(|p| p.severity == Severity::Error)),
            Ok(Invocation::Run(loaded)) => {
                let tunnel = &loaded.config.tunnel;
                let first = tunnel.compat.first().expect("2016");
                prop_assert!(first.tuncrypt == (tuncrypt || !first.variant.has_tuncrypt()));
                prop_assert!(key.is_empty() || first.methods == [Method2016::Sealed]);
                prop_assert!(first.methods.iter().all(|method| method.kcp_mtu(tunnel.mtu).is_some()));
                prop_assert!(!first.methods.is_empty() && tunnel.mtu <= 1500);
                prop_assert!(tunnel.fec.is_none() && tunnel.qpp.is_none() && !tunnel.compression && !tunnel.tcp);
                prop_assert!(tunnel.crypt == Crypt::Method(Method::Aes));
                prop_assert_eq!(tunnel.auto.is_some(), tunnel.mode == Mode::Auto);
                prop_assert!(tunnel.auto.is_none_or(|auto| !auto.parity));
                prop_assert!(!matches!(tunnel.mode, Mode::Manual(_) | Mode::Fast3));
                prop_assert!((10..=40).contains(&tunnel.interval.as_millis()));
                prop_assert!((1..=65535).contains(&tunnel.snd_wnd) && (1..=65535).contains(&tunnel.rcv_wnd));
                prop_assert!(tunnel.smux.stream_buffer >= 262_144 && tunnel.smux.stream_buffer <= tunnel.smux.buffer);
                prop_assert!((1..=30).contains(&tunnel.smux.keep_alive.as_secs()) && tunnel.smux.frame_size >= 1);
                prop_assert!(!report::lines(&loaded.config).is_empty());
            }
            Ok(other) => prop_assert!(false, "{:?}", other),
        }
    }
}
