//! Every flag and JSON key of kcptun is accepted with the same meaning: they are written down here independently of our table, and
//! compared with the help texts and sample files of Debian's package where it is installed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use fulmar_config::options::{self, Kind, Opt, Preset};
use fulmar_config::{
    Environment, Invocation, Loaded, Program, Severity, Side, from_args, from_file,
};

/// Flags (first the long one), JSON key, default of the client, default of the server; `-` where a side lacks it.
const KCPTUN: &[(&str, &str, &str, &str)] = &[
    ("localaddr l", "localaddr", ":12948", "-"),
    ("remoteaddr r", "remoteaddr", "vps:29900", "-"),
    ("listen l", "listen", "-", ":29900"),
    ("target t", "target", "-", "127.0.0.1:12948"),
    ("key", "key", "it's a secrect", "it's a secrect"),
    ("crypt", "crypt", "aes", "aes"),
    ("mode", "mode", "fast", "fast"),
    ("QPP", "qpp", "false", "false"),
    ("QPPCount", "qpp-count", "61", "61"),
    ("conn", "conn", "1", "-"),
    ("autoexpire", "autoexpire", "0", "-"),
    ("scavengettl", "scavengettl", "600", "-"),
    ("mtu", "mtu", "1350", "1350"),
    ("ratelimit", "ratelimit", "0", "0"),
    ("sndwnd", "sndwnd", "128", "1024"),
    ("rcvwnd", "rcvwnd", "512", "1024"),
    ("datashard ds", "datashard", "10", "10"),
    ("parityshard ps", "parityshard", "3", "3"),
    ("dscp", "dscp", "0", "0"),
    ("nocomp", "nocomp", "false", "false"),
    ("acknodelay", "acknodelay", "false", "false"),
    ("nodelay", "nodelay", "0", "0"),
    ("interval", "interval", "50", "50"),
    ("resend", "resend", "0", "0"),
    ("nc", "nc", "0", "0"),
    ("sockbuf", "sockbuf", "4194304", "4194304"),
    ("smuxver", "smuxver", "2", "2"),
    ("smuxbuf", "smuxbuf", "4194304", "4194304"),
    ("framesize", "framesize", "8192", "8192"),
    ("streambuf", "streambuf", "2097152", "2097152"),
    ("keepalive", "keepalive", "10", "10"),
    ("closewait", "closewait", "0", "30"),
    ("snmplog", "snmplog", "", ""),
    ("snmpperiod", "snmpperiod", "60", "60"),
    ("log", "log", "", ""),
    ("quiet", "quiet", "false", "false"),
    ("tcp", "tcp", "false", "false"),
    ("c", "-", "", ""),
    ("pprof", "pprof", "false", "false"),
];

const SIDES: [Side; 2] = [Side::Client, Side::Server];

/// The option that `flag` means on `side`, found by using it.
fn used(side: Side, flag: &str) -> &'static Opt {
    options::of(side)
        .find(|opt| opt.flags().any(|known| known == flag))
        .unwrap_or_else(|| panic!("{}: {flag}", side.name()))
}

fn preset(opt: &Opt, side: Side) -> String {
    match opt.preset(side) {
        Preset::Text(text) => text.into(),
        Preset::Int(n) => n.to_string(),
        Preset::Off => "false".into(),
    }
}

/// Runs the command-line front end with a harmless value for `flag`.
fn run(side: Side, flag: &str) -> Result<Loaded, String> {
    let opt = used(side, flag);
    let args: Vec<OsString> = match opt.kind {
        Kind::Bool if opt.flag == "pprof" => vec![format!("-{flag}=false").into()],
        Kind::Bool => vec![format!("-{flag}").into()],
        _ => vec![format!("--{flag}").into(), preset(opt, side).into()],
    };
    match from_args(side, &args, &Environment::default()) {
        Ok(Invocation::Run(loaded)) => Ok(*loaded),
        Ok(other) => Err(format!("{other:?}")),
        Err(failure) => Err(failure.to_string()),
    }
}

#[test]
fn every_flag_has_kcptuns_names_and_defaults() {
    for (flags, key, client, server) in KCPTUN {
        for (side, default) in SIDES.into_iter().zip([client, server]) {
            let names: Vec<&str> = flags.split(' ').collect();
            if *default == "-" {
                let known = options::of(side).any(|opt| opt.flag == names[0]);
                assert!(!known, "{flags}");
                continue;
            }
            for flag in &names {
                let opt = used(side, flag);
                assert_eq!(opt.flags().collect::<Vec<_>>(), names);
                assert_eq!(opt.key.unwrap_or("-"), *key, "{flag}");
                assert_eq!(preset(opt, side), **default, "{flag}");
                if cfg!(target_os = "linux") || *flag != "tcp" {
                    let loaded = run(side, flag).unwrap_or_else(|e| panic!("{flag}: {e}"));
                    assert!(loaded.config.provenance.is_explicit(names[0]), "{flag}");
                }
            }
        }
    }
}

#[test]
fn what_kcptun_does_not_have_is_marked_as_ours() {
    for opt in options::TABLE.iter() {
        let listed = KCPTUN
            .iter()
            .any(|(flags, ..)| flags.split(' ').next() == Some(opt.flag));
        assert_eq!(listed, opt.program == Program::Kcptun, "{}", opt.flag);
    }
}

#[test]
fn every_key_is_accepted_on_its_sides() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("c.json");
    for side in SIDES {
        let default = |row: &(&'static str, &'static str, &'static str, &'static str)| match side {
            Side::Client => row.2,
            Side::Server => row.3,
        };
        let entries: Vec<String> = KCPTUN
            .iter()
            .filter(|row| row.1 != "-" && default(row) != "-")
            .map(|row| {
                let opt = used(side, row.0.split(' ').next().unwrap_or_default());
                let quote = if matches!(opt.kind, Kind::Int { .. } | Kind::Bool) {
                    ""
                } else {
                    "\""
                };
                format!("\"{}\": {quote}{}{quote}", row.1, default(row))
            })
            .collect();
        std::fs::write(&path, format!("{{{}}}", entries.join(",\n"))).expect("write");
        let loaded = from_file(&path, None, &Environment::default()).expect("all keys");
        assert!(
            !loaded
                .problems
                .iter()
                .any(|p| p.severity >= Severity::Mistake),
            "{:?}",
            loaded.problems
        );
        assert_eq!(loaded.config.role.name(), side.name());
    }
}

/// Where Debian's 20210922 has another default than the last state of kcptun, which is ours.
const OTHER_IN_DEBIAN: &[(&str, &str)] = &[("smuxver", "1")];

#[test]
fn debians_flags_are_accepted_with_the_same_defaults() {
    for side in SIDES {
        let program = format!("kcptun-{}", side.name());
        let Ok(output) = Command::new(&program).arg("--help").output() else {
            eprintln!("{program} is not installed: skipped");
            continue;
        };
        let help = String::from_utf8(output.stdout).expect("text");
        let mut seen = 0;
        for line in help
            .lines()
            .map(str::trim)
            .filter(|line| line.starts_with('-'))
        {
            // "--name value, -n value   text (default: x)"
            let (names, text) = line.split_once("  ").expect(line);
            let names: Vec<&str> = names
                .split(',')
                .map(|name| {
                    name.trim()
                        .trim_start_matches('-')
                        .split(' ')
                        .next()
                        .unwrap_or_default()
                })
                .collect();
            if names.contains(&"help") || names.contains(&"version") {
                continue;
            }
            seen += 1;
            for name in &names {
                run(side, name).unwrap_or_else(|e| panic!("{program} --{name}: {e}"));
            }
            let opt = used(side, names[0]);
            assert_eq!(opt.flags().collect::<Vec<_>>(), names);
            assert_eq!(opt.kind == Kind::Bool, !line.contains(" value"), "{line}");
            if let Some((_, default)) = text.split_once("(default: ") {
                let default = default.split_once(')').expect(line).0.trim_matches('"');
                let ours = preset(opt, side);
                let listed = OTHER_IN_DEBIAN.contains(&(opt.flag, default));
                assert!(ours == default || listed, "{line}: ours is {ours}");
            }
        }
        assert!(seen > 20, "{help}");
    }
}

#[test]
fn debians_hidden_flags_are_accepted() {
    for side in SIDES {
        for flag in ["acknodelay", "nodelay", "interval", "resend", "nc"] {
            assert!(used(side, flag).hidden);
            run(side, flag).unwrap_or_else(|e| panic!("{flag}: {e}"));
        }
    }
}

#[test]
fn debians_sample_files_are_accepted_but_for_their_key() {
    let dir = Path::new("/usr/share/doc/kcptun/examples");
    let samples: [(PathBuf, &str); 2] = [
        (dir.join("local.json"), "client"),
        (dir.join("server.json"), "server"),
    ];
    for (path, role) in samples {
        if !path.exists() {
            eprintln!("{} is not installed: skipped", path.display());
            continue;
        }
        let loaded = from_file(&path, None, &Environment::default()).expect("sample");
        assert_eq!(loaded.config.role.name(), role);
        assert_eq!(loaded.config.tunnel.mtu, 1400);
        let warnings: Vec<_> = loaded
            .problems
            .iter()
            .filter(|p| p.severity >= Severity::Warning)
            .map(|p| p.message.as_str())
            .collect();
        assert_eq!(
            warnings,
            ["whoever records packets can try out keys of 8 bytes cheaply"]
        );
    }
}
