//! Each rule about values: what is refused, what is said, and that it names place, value and what to write.

use std::ffi::OsString;
use std::time::Duration;

use fulmar_config::{
    Auto, Config, Crypt, Environment, Invocation, Loaded, Mode, QppGeneration, Role, Severity,
    Shards, Side, StreamAddr, from_args, from_file,
};
use proptest::prelude::*;

/// Everything that a start says, worst first, with a key that is not worth a word.
fn say(side: Side, args: &[&str]) -> (Option<Config>, Vec<String>) {
    let args: Vec<OsString> = ["-key=Xq7Lw2Rt9Kp4Vz1N"]
        .iter()
        .chain(args)
        .map(OsString::from)
        .collect();
    let (config, problems) = match from_args(side, &args, &Environment::default()) {
        Ok(Invocation::Run(loaded)) => (Some(loaded.config), loaded.problems),
        Ok(other) => panic!("{other:?}"),
        Err(failure) => (None, failure.problems),
    };
    let problems = problems
        .iter()
        .filter(|p| !p.message.contains("process list") && !p.message.contains("will be looked up"))
        .map(|p| format!("{:?}: {p}", p.severity))
        .collect();
    (config, problems)
}

fn accepted(side: Side, args: &[&str]) -> Config {
    let (config, problems) = say(side, args);
    assert_eq!(problems, [""; 0], "{args:?}");
    config.expect("accepted")
}

fn complaint(side: Side, args: &[&str]) -> String {
    let (_, problems) = say(side, args);
    assert_eq!(problems.len(), 1, "{args:?}: {problems:?}");
    problems.into_iter().next().expect("one")
}

#[test]
fn values_that_are_refused() {
    use Side::{Client, Server};
    for (side, args, problem) in [
        (
            Client,
            &["--conn", "0"][..],
            "Error: command line, --conn: 0 is too small; write 1 to 65535 sessions",
        ),
        (
            Client,
            &["--conn=65536"],
            "Error: command line, --conn: 65536 is too large; write 1 to 65535 sessions",
        ),
        (
            Server,
            &["--threads=257"],
            "Error: command line, --threads: 257 is too large; write 0 to 256 threads",
        ),
        (
            Client,
            &["--threads", "-1"],
            "Error: command line, --threads: -1 is too small; write 0 to 256 threads",
        ),
        (
            Client,
            &["--mode=auto", "--redundancy=101"],
            "Error: command line, --redundancy: 101 is too large; write 0 to 100 percent",
        ),
        (
            Server,
            &["--mode=auto", "--redundancy", "-1"],
            "Error: command line, --redundancy: -1 is too small; write 0 to 100 percent",
        ),
        (
            Server,
            &["--redundancy", "5%"],
            "Error: command line, --redundancy: \"5%\" is not a whole number; write 0 to 100 percent",
        ),
        (
            Client,
            &["--mode=auto", "--memory=0"],
            "Error: command line, --memory: 0 is too small; write 1 to 1024 MiB",
        ),
        (
            Client,
            &["--mode=auto", "--memory=1025"],
            "Error: command line, --memory: 1025 is too large; write 1 to 1024 MiB",
        ),
        (
            Client,
            &["--mode=auto", "--memory=1", "--streambuf=1048577"],
            "Error: command line, --streambuf: streambuf (1048577) is larger than memory (1048576); make streambuf smaller, or give more memory",
        ),
        (
            Client,
            &["-smuxver=3"],
            "Error: command line, -smuxver: 3 is too large; write 1 to 2",
        ),
        (
            Client,
            &["-keepalive=31"],
            "Error: command line, -keepalive: 31 is too large; write 1 to 30 seconds",
        ),
        (
            Client,
            &["-framesize=65536"],
            "Error: command line, -framesize: 65536 is too large; write 1 to 65535 bytes",
        ),
        (
            Client,
            &["-framesize=0"],
            "Error: command line, -framesize: 0 is too small; write 1 to 65535 bytes",
        ),
        (
            Client,
            &["-snmpperiod=-1", "-snmplog=x"],
            "Error: command line, -snmpperiod: -1 is too small; write 0 to 316224000 seconds",
        ),
        (
            Client,
            &["-streambuf=4194305"],
            "Error: command line, -streambuf: streambuf (4194305) is larger than smuxbuf (4194304); make smuxbuf at least as large as streambuf",
        ),
        (
            Client,
            &["-smuxbuf=1000"],
            "Error: command line, -smuxbuf: streambuf (2097152) is larger than smuxbuf (1000); make smuxbuf at least as large as streambuf",
        ),
        (
            Client,
            &["-ds=200", "-ps=57"],
            "Error: command line, -ps: 200 data and 57 parity packets are more than 256 in a group; make their sum 256 or less",
        ),
        (
            Client,
            &["-ds=256"],
            "Error: command line, -ds: 256 is too large; write 0 to 255 packets",
        ),
        (
            Client,
            &["-r=h:10-5"],
            "Error: command line, -r: \"h:10-5\": the port range 10-5 is upside down; write host:port or host:min-max",
        ),
        (
            Server,
            &["-l=nonsense"],
            "Error: command line, -l: \"nonsense\": the port is missing; write host:port or host:min-max",
        ),
        (
            Server,
            &["-l=:0"],
            "Error: command line, -l: \":0\": the port 0 is not one of 1 to 65535; write host:port or host:min-max",
        ),
        (
            Server,
            &["-l=h:1-70000"],
            "Error: command line, -l: \"h:1-70000\": the port range 1-70000 does not lie in 1 to 65535; write host:port or host:min-max",
        ),
        (
            Client,
            &["-r=a:1:2"],
            "Error: command line, -r: \"a:1:2\": the host \"a:1\" is neither a name nor an IP address; write host:port or host:min-max",
        ),
        (
            Server,
            &["-t=h:htpp"],
            "Error: command line, -t: \"h:htpp\": the port \"htpp\" is neither a number from 0 to 65535 nor a service that this machine knows; write host:port, or the path of a Unix socket",
        ),
        (
            Server,
            &["-t=h:0"],
            "Error: command line, -t: nobody can be reached at port 0; write a port from 1 to 65535",
        ),
        (
            Client,
            &["-l="],
            "Error: command line, -l: \"\": the address is empty; write host:port, or the path of a Unix socket",
        ),
        (
            Client,
            &["-crypt=auto"],
            "Error: command line, -crypt: \"auto\" is for servers: a client speaks first; write the server's cipher",
        ),
        (
            Client,
            &["-QPPCount=0", "-QPP"],
            "Error: command line, -QPPCount: 0 is too small; write 1 to 65535 pads",
        ),
        (
            Client,
            &["-qpp-compat=2025"],
            "Error: command line, -qpp-compat: \"2025\" is none of them; write one of current, 20251219, 2024",
        ),
        (
            Server,
            &["--pprof"],
            "Error: command line, --pprof: there is no Go profiler in this program; remove it, and use perf record -p PID",
        ),
        (
            Client,
            &["-V"],
            "Error: command line, -V: this program cannot ask an Android VPN service to exempt its sockets; exempt the whole program from the VPN",
        ),
    ] {
        let args: Vec<&str> = args.to_vec();
        let (config, problems) = say(side, &args);
        assert!(config.is_none(), "{args:?}");
        assert_eq!(
            problems.first().map(String::as_str),
            Some(problem),
            "{args:?}"
        );
    }
}

#[test]
fn several_errors_are_told_together() {
    let (config, problems) = say(Side::Client, &["-conn=0", "-keepalive=99", "-r=x"]);
    assert!(config.is_none());
    assert_eq!(problems.len(), 3, "{problems:?}");
}

#[test]
fn values_that_are_accepted_with_a_word() {
    use Side::{Client, Server};
    for (side, args, problem) in [
        (
            Client,
            &["-crypt=aes-256"][..],
            "Mistake: command line, -crypt: \"aes-256\" is no cipher, and means aes as in kcptun; write aes, which is AES-256",
        ),
        (
            Client,
            &["-mode=fats2"],
            "Mistake: command line, -mode: \"fats2\" is no mode, and means manual as in kcptun; did you mean fast2? Otherwise write manual",
        ),
        (
            Client,
            &["-mode=manual", "-interval=5"],
            "Mistake: command line, -interval: 5 ms counts as 10 ms, as in kcptun; write 10 to 5000 milliseconds",
        ),
        (
            Client,
            &["-ratelimit=-5"],
            "Mistake: command line, -ratelimit: -5 means no limit, as in kcptun; write 0 for that",
        ),
        (
            Client,
            &["-ds=-1"],
            "Mistake: command line, -ds: -1 means no parity, as in kcptun; write 0 for that",
        ),
        (
            Server,
            &["-t=localhost"],
            "Mistake: command line, -t: \"localhost\" has no port and is taken for the path of a Unix socket; write host:port, [address]:port for IPv6, or ./name for a path",
        ),
        (
            Server,
            &["-l=:3000,4000"],
            "Mistake: command line, -l: \",4000\" behind the ports is ignored; write :3000",
        ),
        (
            Server,
            &["-crypt=none"],
            "Warning: command line, -crypt: none neither hides nor protects anything; anyone can read and forge packets; choose aes-128-gcm if both ends have it, or aes",
        ),
        (
            Client,
            &["-key="],
            "Warning: command line, -key: the key is empty; give the same key to both ends (fulmar genpsk makes one)",
        ),
        (
            Client,
            &["-autoexpire=60"],
            "Warning: --scavengettl is not given: 600 s are longer than autoexpire (60 s), so several sessions compete for the line; make scavengettl shorter",
        ),
        (
            Client,
            &["-snmplog=x", "-snmpperiod=0"],
            "Warning: command line, -snmpperiod: a period of 0 means that no counters are written; write a number of seconds",
        ),
        (
            Client,
            &["-interval=20"],
            "Note: command line, -interval: has no effect with mode fast; write mode manual to use it, or remove it",
        ),
        (
            Client,
            &["-mode=auto", "-interval=20"],
            "Note: command line, -interval: has no effect with mode auto; write mode manual to use it, or remove it",
        ),
        (
            Server,
            &["-redundancy=25"],
            "Note: command line, -redundancy: has no effect with mode fast; write mode auto to use it, or remove it",
        ),
        (
            Client,
            &["-mode=manual", "-memory=3"],
            "Note: command line, -memory: has no effect with mode manual; write mode auto to use it, or remove it",
        ),
        (
            Client,
            &["-mode=auto", "-redundancy=0", "-ps=1"],
            "Note: command line, -redundancy: the parity that datashard and parityshard ask for is sent all the same; write parityshard 0, or remove both",
        ),
        (
            Client,
            &["-mode=auot"],
            "Mistake: command line, -mode: \"auot\" is no mode, and means manual as in kcptun; did you mean auto? Otherwise write manual",
        ),
    ] {
        assert_eq!(complaint(side, args), problem, "{args:?}");
        assert!(say(side, args).0.is_some(), "{args:?}");
    }
}

#[test]
fn the_public_key_and_the_placeholder_server_are_told() {
    let Ok(Invocation::Run(loaded)) = from_args(Side::Client, &[], &Environment::default()) else {
        panic!("defaults are accepted");
    };
    let problems: Vec<_> = loaded.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            "--remoteaddr is not given: the server \"vps\" will be looked up; give --remoteaddr host:port",
            "--key is not given: the key is kcptun's default, which everybody knows; give the same key of your own to both ends (fulmar genpsk makes one)",
        ]
    );
}

#[test]
fn what_qpp_says() {
    let (config, problems) = say(Side::Client, &["-QPP", "-QPPCount=4", "-qpp-compat=2024"]);
    let qpp = config.expect("accepted").tunnel.qpp.expect("on");
    assert_eq!((qpp.count, qpp.generation), (4, QppGeneration::V2024));
    assert_eq!(problems.len(), 3, "{problems:?}");
    let long: String = (0..211u32)
        .map(|n| char::from(b'a' + (n * n % 23) as u8))
        .collect();
    let long = format!("-key={long}");
    assert_eq!(say(Side::Client, &["-QPP", &long]).1, [""; 0]);
    // Off, its number does not matter.
    assert!(
        accepted(Side::Client, &["-QPPCount=-1"])
            .tunnel
            .qpp
            .is_none()
    );
}

#[test]
fn meanings() {
    let config = accepted(
        Side::Client,
        &["-mode=fast3", "-ds=0", "-autoexpire=900", "-conn=9"],
    );
    let Role::Client(client) = config.role else {
        panic!("client");
    };
    assert_eq!(
        (client.conn, client.autoexpire),
        (9, Some(Duration::from_secs(900)))
    );
    assert_eq!((config.tunnel.mode, config.tunnel.fec), (Mode::Fast3, None));
    let config = accepted(
        Side::Server,
        &[
            "-mode=manual",
            "-nc=1",
            "-crypt=auto",
            "-ds=200",
            "-ps=56",
            "-t=:80",
        ],
    );
    let tunnel = config.tunnel;
    assert_eq!(tunnel.crypt, Crypt::Auto);
    assert_eq!(
        tunnel.fec,
        Some(Shards {
            data: 200,
            parity: 56
        })
    );
    assert_eq!(
        (tunnel.nodelay, tunnel.interval.as_millis(), tunnel.resend),
        (false, 50, 0)
    );
    assert!(!tunnel.congestion_control && !tunnel.close_wait_explicit);
    assert_eq!(tunnel.close_wait, Duration::from_secs(30));
    let Role::Server(server) = config.role else {
        panic!("server");
    };
    let here = StreamAddr::Tcp {
        host: "127.0.0.1".into(),
        port: 80,
    };
    assert_eq!(server.target, here);
    assert!(
        accepted(Side::Client, &["-closewait=0"])
            .tunnel
            .close_wait_explicit
    );
    assert!(
        accepted(Side::Client, &["-pprof=false", "-fast-open"])
            .log
            .file
            .is_none()
    );
}

#[test]
fn threads_from_every_syntax() {
    let threads = |args: &[&str]| accepted(Side::Server, args).threads.map(u16::from);
    assert_eq!(threads(&[]), None);
    assert_eq!(threads(&["--threads", "0"]), None);
    assert_eq!(threads(&["-threads=1"]), Some(1));
    assert_eq!(threads(&["--threads", "256"]), Some(256));
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("c.json");
    std::fs::write(&path, r#"{"key":"Xq7Lw2Rt9Kp4Vz1N","threads":3}"#).expect("write");
    let file = path.to_str().expect("path");
    assert_eq!(threads(&["-c", file]), Some(3));
    let plugin: Environment = [
        ("SS_REMOTE_HOST", "127.0.0.1"),
        ("SS_REMOTE_PORT", "1"),
        ("SS_LOCAL_HOST", "127.0.0.1"),
        ("SS_LOCAL_PORT", "2"),
        ("SS_PLUGIN_OPTIONS", "key=k;threads=5"),
    ]
    .into_iter()
    .collect();
    let Ok(Invocation::Run(loaded)) = from_args(Side::Client, &[], &plugin) else {
        panic!("accepted");
    };
    assert_eq!(loaded.config.threads.map(u16::from), Some(5));
    assert!(
        fulmar_config::report::lines(&loaded.config)
            .iter()
            .any(|line| line.starts_with("  threads      5 "))
    );
}

const MIB: u32 = 1 << 20;

#[test]
fn what_mode_auto_comes_to_when_nothing_else_is_given() {
    for side in [Side::Client, Side::Server] {
        let tunnel = accepted(side, &["-mode=auto"]).tunnel;
        let auto = Auto {
            redundancy: 25,
            memory: 64 << 20,
            parity: true,
            snd_wnd: true,
            rcv_wnd: true,
        };
        assert_eq!((tunnel.mode, tunnel.auto), (Mode::Auto, Some(auto)));
        assert_eq!((tunnel.snd_wnd, tunnel.rcv_wnd), (65535, 44739));
        assert_eq!(tunnel.fec, None);
        assert_eq!(tunnel.smux.buffer, 64 * MIB);
        assert_eq!(tunnel.smux.stream_buffer, 64 * MIB);
        assert!(tunnel.nodelay && !tunnel.congestion_control && !tunnel.ack_no_delay);
        assert_eq!((tunnel.interval.as_millis(), tunnel.resend), (10, 0));
        assert_eq!(tunnel.mtu, 1350);
    }
    // The default stays kcptun's.
    let tunnel = accepted(Side::Client, &[]).tunnel;
    assert_eq!((tunnel.mode, tunnel.auto), (Mode::Fast, None));
}

#[test]
fn memory_bounds_windows_and_buffers() {
    for (memory, rcv_wnd) in [
        (1, 1024),
        (2, 1398),
        (93, 65011),
        (94, 65535),
        (1024, 65535),
    ] {
        let flag = format!("-memory={memory}");
        let tunnel = accepted(Side::Client, &["-mode=auto", &flag]).tunnel;
        assert_eq!(tunnel.rcv_wnd, rcv_wnd, "{memory}");
        assert_eq!(tunnel.snd_wnd, 65535);
        assert_eq!(tunnel.smux.buffer, memory * MIB);
        assert_eq!(tunnel.smux.stream_buffer, memory * MIB);
    }
}

#[test]
fn mode_auto_obeys_what_is_given() {
    let auto = |args: &[&str]| {
        let args: Vec<&str> = ["-mode=auto"].iter().chain(args).copied().collect();
        let tunnel = accepted(Side::Client, &args).tunnel;
        (tunnel.auto.expect("auto"), tunnel)
    };
    let (bounds, tunnel) = auto(&["-sndwnd=128", "-mtu=1200", "-ratelimit=5", "-acknodelay"]);
    assert!(!bounds.snd_wnd && bounds.rcv_wnd && bounds.parity);
    assert_eq!((tunnel.snd_wnd, tunnel.mtu), (128, 1200));
    assert_eq!((tunnel.rate_limit, tunnel.ack_no_delay), (Some(5), true));
    let (bounds, tunnel) = auto(&["-rcvwnd=512"]);
    assert!(bounds.snd_wnd && !bounds.rcv_wnd);
    assert_eq!(tunnel.rcv_wnd, 512);
    // Of the two numbers of parity, the one that is missing is kcptun's default.
    for (args, fec) in [
        (&["-ds=20"][..], Some((20, 3))),
        (&["-ps=1"], Some((10, 1))),
        (&["-ds=10", "-ps=3"], Some((10, 3))),
        (&["-ds=0"], None),
        (&["-ps=0"], None),
        (&["-ds=0", "-ps=0"], None),
    ] {
        let (bounds, tunnel) = auto(args);
        assert!(!bounds.parity, "{args:?}");
        let fec = fec.map(|(data, parity)| Shards { data, parity });
        assert_eq!(tunnel.fec, fec, "{args:?}");
    }
    assert_eq!(auto(&["-redundancy=0"]).0.redundancy, 0);
    assert_eq!(auto(&["-redundancy=100"]).0.redundancy, 100);
    for (args, sizes) in [
        (&["-smuxbuf=1000"][..], (1000, 1000)),
        (&["-smuxbuf=9000", "-streambuf=1000"], (9000, 1000)),
        (&["-streambuf=1000"], (64 * MIB, 1000)),
        (&["-memory=2", "-smuxbuf=9000000"], (9_000_000, 9_000_000)),
    ] {
        let smux = auto(args).1.smux;
        assert_eq!((smux.buffer, smux.stream_buffer), sizes, "{args:?}");
    }
    // Parity that cannot come needs no room.
    assert_eq!(auto(&["-ds=0", "-mtu=70"]).1.mtu, 70);
}

#[test]
fn mode_auto_from_every_syntax() {
    let expected = |config: &Config| {
        let auto = config.tunnel.auto.expect("auto");
        assert_eq!((auto.redundancy, auto.memory), (10, 8 << 20));
        assert_eq!(config.tunnel.mode, Mode::Auto);
    };
    let flags = ["--mode", "auto", "--redundancy", "10", "--memory", "8"];
    for side in [Side::Client, Side::Server] {
        expected(&accepted(side, &flags));
    }
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("c.json");
    let text = r#"{"key":"Xq7Lw2Rt9Kp4Vz1N","Mode":"auto","redundancy":10,"memory":8}"#;
    std::fs::write(&path, text).expect("write");
    for side in [Side::Client, Side::Server] {
        let loaded = from_file(&path, Some(side), &Environment::default()).expect("file");
        expected(&loaded.config);
    }
    let text = r#"{"key":"Xq7Lw2Rt9Kp4Vz1N","listen":":1","redundancy":10,"memory":8}"#;
    std::fs::write(&path, text).expect("write");
    let loaded = from_file(&path, None, &Environment::default()).expect("file");
    let notes = loaded
        .problems
        .iter()
        .filter(|p| p.severity == Severity::Note)
        .map(|p| p.message.as_str());
    assert_eq!(
        notes.collect::<Vec<_>>(),
        ["has no effect with mode fast"; 2]
    );
    for side in ["", ";server"] {
        let options = format!("key=Xq7Lw2Rt9Kp4Vz1N;mode=auto;redundancy=10;memory=8{side}");
        let plugin: Environment = [
            ("SS_REMOTE_HOST", "127.0.0.1"),
            ("SS_REMOTE_PORT", "1"),
            ("SS_LOCAL_HOST", "127.0.0.1"),
            ("SS_LOCAL_PORT", "2"),
            ("SS_PLUGIN_OPTIONS", options.as_str()),
        ]
        .into_iter()
        .collect();
        let side = if side.is_empty() {
            Side::Client
        } else {
            Side::Server
        };
        let Ok(Invocation::Run(loaded)) = from_args(side, &[], &plugin) else {
            panic!("accepted");
        };
        assert_eq!(loaded.problems, [], "{options}");
        expected(&loaded.config);
        assert_eq!(loaded.config.tunnel.smux.version, 1);
    }
}

#[test]
fn the_block_at_start_with_mode_auto() {
    let shown = |args: &[&str], lines: &[&str]| {
        let args: Vec<&str> = ["-mode=auto"].iter().chain(args).copied().collect();
        let all = fulmar_config::report::lines(&accepted(Side::Server, &args));
        for line in lines {
            assert!(
                all.iter().any(|known| known.starts_with(line)),
                "{line}\n{}",
                all.join("\n")
            );
        }
        all
    };
    let all = shown(
        &[],
        &[
            "  mode         auto: retransmission, send window, receive window and parity follow the path",
            "  redundancy   up to 25 % of bulk",
            "  memory       64 MiB for each session",
            "  sndwnd       follows the path, up to 65535 packets",
            "  rcvwnd       follows the path, up to 44739 packets",
            "  datashard    follows the path",
            "  parityshard  follows the path",
            "  smuxbuf      64 MiB, as memory",
            "  streambuf    64 MiB, as smuxbuf",
        ],
    );
    assert!(!all.join("\n").contains("fixed"));
    shown(
        &["-sndwnd=99", "-ds=8", "-streambuf=2048", "-memory=2"],
        &[
            "  mode         auto: retransmission and receive window follow the path; fixed: send window, parity  <- ",
            "  memory       2 MiB for each session        <- command line, -memory",
            "  sndwnd       99 packets, fixed             <- command line, -sndwnd",
            "  rcvwnd       follows the path, up to 1398 packets",
            "  datashard    8 packets, fixed              <- command line, -ds",
            "  parityshard  3 packets, fixed",
            "  smuxbuf      2 MiB, as memory",
            "  streambuf    2 KiB, fixed                  <- command line, -streambuf",
        ],
    );
    shown(
        &["-redundancy=0", "-sndwnd=1", "-rcvwnd=1"],
        &[
            "  mode         auto: retransmission follows the path; fixed: send window, receive window, parity",
            "  redundancy   0: no parity, no copies",
            "  datashard    no parity",
        ],
    );
    shown(
        &["-redundancy=0", "-ps=0"],
        &[
            "  redundancy   0: no copies",
            "  parityshard  no parity, fixed",
        ],
    );
    // Without effect: not shown.
    let text = fulmar_config::report::lines(&accepted(Side::Server, &[])).join("\n");
    assert!(!text.contains("redundancy") && !text.contains("  memory"));
}

#[test]
fn key_files() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("key");
    let flag = format!("-key-file={}", path.display());
    let run = |content: &[u8], more: &[&str], environment: Environment| {
        std::fs::write(&path, content).expect("write");
        let args: Vec<OsString> = [flag.as_str()]
            .iter()
            .chain(more)
            .map(OsString::from)
            .collect();
        match from_args(Side::Server, &args, &environment) {
            Ok(Invocation::Run(loaded)) => Ok(loaded.config.tunnel.key.as_bytes().to_vec()),
            Ok(other) => panic!("{other:?}"),
            Err(failure) => Err(failure.to_string()),
        }
    };
    let none = Environment::default;
    let env = || Environment::from_iter([("KCPTUN_KEY", "env")]);
    assert_eq!(run(b" k\xff", &[], none()), Ok(b" k\xff".to_vec()));
    assert_eq!(run(b"file", &[], env()), Ok(b"file".to_vec()));
    for (content, what) in [
        (&b"key\n"[..], "ends in a newline"),
        (b"key\r\n", "ends in a newline"),
        (b"a\nb", "more than one line"),
    ] {
        let text = run(content, &[], none()).expect_err("newline");
        assert!(
            text.contains(what) && !text.contains(path.to_str().expect("path")),
            "{text}"
        );
        assert!(!text.contains("key\n"), "{text}");
    }
    assert!(
        run(b"Xq7Lw2Rt9Kp4Vz1N", &["-key=x"], none())
            .expect_err("both")
            .contains("both a key and a key file")
    );
    // The file's key stands above the command line's key file.
    let json = dir.path().join("c.json");
    std::fs::write(&json, r#"{"key":"json"}"#).expect("write");
    assert_eq!(
        run(
            b"Xq7Lw2Rt9Kp4Vz1N",
            &["-c", json.to_str().expect("path")],
            none()
        ),
        Ok(b"json".to_vec())
    );
    std::fs::remove_file(&path).expect("remove");
    let args = [OsString::from(&flag)];
    let text = from_args(Side::Server, &args, &none())
        .expect_err("missing")
        .to_string();
    assert!(text.contains("cannot be read"), "{text}");
}

#[test]
fn nothing_ever_shows_the_key() {
    let secret = "swordfish";
    let Ok(Invocation::Run(loaded)) = from_args(
        Side::Client,
        &["-key", secret, "-mode", "x", "-crypt", "y", "-QPP"].map(OsString::from),
        &Environment::default(),
    ) else {
        panic!("accepted");
    };
    let shown = format!(
        "{loaded:?} {:?} {:?}",
        fulmar_config::report::lines(&loaded.config),
        loaded
            .problems
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    );
    assert!(!shown.contains(secret));
}

#[test]
fn files_by_content() {
    let dir = tempfile::tempdir().expect("dir");
    let load = |text: &str, side| {
        let path = dir.path().join("c.json");
        std::fs::write(&path, text).expect("write");
        from_file(&path, side, &Environment::default())
    };
    let role = |loaded: Loaded| loaded.config.role.name();
    assert_eq!(
        load(r#"{"localaddr":":1","remoteaddr":"h:2"}"#, None).map(role),
        Ok("client")
    );
    assert_eq!(load(r#"{"listen":":1"}"#, None).map(role), Ok("server"));
    assert_eq!(load("{}", Some(Side::Server)).map(role), Ok("server"));
    let text = load("{}", None).expect_err("unclear").to_string();
    assert!(
        text.ends_with("say so with --role client or --role server"),
        "{text}"
    );
    // A check refuses what a start only mentions.
    let loaded = load(r#"{"listen":":1","mtuu":3,"key":"Xq7Lw2Rt9Kp4Vz1N"}"#, None).expect("start");
    let worst = loaded.problems.first().expect("unknown key");
    assert!(worst.is_fatal(true) && !worst.is_fatal(false));
    assert_eq!(worst.severity, Severity::Mistake);
}

#[test]
fn the_block_at_start() {
    let config = accepted(
        Side::Client,
        &[
            "-l",
            "127.0.0.1:1",
            "-r",
            "[::1]:5-9",
            "-mode=manual",
            "-resend=3",
            "-snmplog=s.csv",
            "-QPPCount=7",
            "-log",
            "f",
        ],
    );
    let lines = fulmar_config::report::lines(&config);
    let text = lines.join("\n");
    for line in [
        "Addresses",
        "  localaddr    127.0.0.1:1                   <- command line, -l",
        "  remoteaddr   [::1]:5-9                     <- command line, -r",
        "  key          (16 bytes)                    <- command line, -key",
        "  mode         manual: nodelay 0, interval 50 ms, resend 3, nc 0  <- command line, -mode",
        "  resend       3                             <- command line, -resend",
        "  smuxbuf      4 MiB",
        "  nocomp       no (compression on)",
        "  snmpperiod   60 s",
        "  log          f                             <- command line, -log",
    ] {
        assert!(lines.iter().any(|known| known == line), "{line}\n{text}");
    }
    // Without effect: not shown.
    assert!(!text.contains("QPPCount") && !text.contains("scavengettl") && !text.contains("pprof"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever numbers are given: refused, or within the promises of the model.
    #[test]
    fn the_model_keeps_its_promises(
        numbers in proptest::collection::vec((0..fulmar_config::options::TABLE.len(), prop_oneof![-2i64..70, 40i64..70_000, any::<i64>()]), 0..6),
        crypt in prop_oneof!["[a-z0-9-]{1,5}", Just("null".to_owned()), Just("aes-128-gcm".to_owned()), Just("auto".to_owned())],
        mode in "(normal|fast3|manual|x|auto)",
        server: bool,
    ) {
        let side = if server { Side::Server } else { Side::Client };
        let mut args: Vec<OsString> = vec![format!("--crypt={crypt}").into(), format!("--mode={mode}").into(), "--QPP".into()];
        for (index, n) in numbers {
            let opt = &fulmar_config::options::TABLE[index];
            if opt.is_for(side) && matches!(opt.kind, fulmar_config::options::Kind::Int { .. }) {
                args.push(format!("--{}={n}", opt.flag).into());
            }
        }
        match from_args(side, &args, &Environment::default()) {
            Err(failure) => prop_assert!(failure.problems.iter().any(|p| p.severity == Severity::Error)),
            Ok(Invocation::Run(loaded)) => {
                let tunnel = &loaded.config.tunnel;
                prop_assert!((50..=1500).contains(&tunnel.mtu));
                if let Crypt::Method(method) = tunnel.crypt {
                    let parity = tunnel.fec.is_some() || tunnel.auto.is_some_and(|auto| auto.parity);
                    prop_assert!(fulmar_wire::kcptun::kcp_mtu(method, parity, tunnel.mtu).is_some());
                }
                prop_assert_eq!(tunnel.auto.is_some(), tunnel.mode == Mode::Auto);
                if let Some(auto) = tunnel.auto {
                    prop_assert!(auto.redundancy <= 100 && (1 << 20..=1 << 30).contains(&auto.memory));
                    prop_assert!(!auto.parity || tunnel.fec.is_none());
                }
                prop_assert!((1..=65535).contains(&tunnel.snd_wnd) && (1..=65535).contains(&tunnel.rcv_wnd));
                prop_assert!((10..=5000).contains(&tunnel.interval.as_millis()));
                prop_assert!(tunnel.dscp < 64 && tunnel.sock_buf >= 1);
                prop_assert!(tunnel.fec.is_none_or(|f| f.data >= 1 && f.parity >= 1 && u16::from(f.data) + u16::from(f.parity) <= 256));
                prop_assert!(tunnel.smux.stream_buffer >= 1 && tunnel.smux.stream_buffer <= tunnel.smux.buffer);
                prop_assert!((1..=2).contains(&tunnel.smux.version) && tunnel.smux.frame_size >= 1);
                prop_assert!((1..=30).contains(&tunnel.smux.keep_alive.as_secs()));
                prop_assert!(tunnel.rate_limit != Some(0) && tunnel.qpp.is_some_and(|qpp| qpp.count >= 1));
                prop_assert!(!loaded.config.stats.period.is_zero());
                prop_assert!(!fulmar_config::report::lines(&loaded.config).is_empty());
            }
            Ok(other) => prop_assert!(false, "{:?}", other),
        }
    }
}
