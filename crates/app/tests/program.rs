//! The built program: commands, names, exit codes, and which words go where. No network.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// What came out, and the exit code.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn program() -> Command {
    command(Path::new(env!("CARGO_BIN_EXE_fulmar")))
}

/// A command whose environment says nothing to us.
fn command(path: &Path) -> Command {
    let mut command = Command::new(path);
    command.stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("SS_") || text.starts_with("KCPTUN_") || text.starts_with("FULMAR_") {
            command.env_remove(&name);
        }
    }
    command
}

fn ran(command: &mut Command) -> Ran {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("started");
    Ran {
        code: status.code().expect("exited"),
        out: String::from_utf8(stdout).expect("text"),
        err: String::from_utf8(stderr).expect("text"),
    }
}

/// What `check` says of a file with this content, which is called FILE, in lines that are not broken.
fn check(name: &str, text: &str, more: &[&str]) -> Ran {
    let dir = TempDir::new().expect("dir");
    let path = dir.path().join(name);
    std::fs::write(&path, text).expect("write");
    let mut ran = ran(program().args(["check", "-c"]).arg(&path).args(more));
    let mut lines: Vec<String> = Vec::new();
    for line in ran.out.lines() {
        assert!(line.chars().count() <= 80, "{line}");
        match lines.last_mut() {
            // What goes on stands further in than a setting does, or belongs to a problem.
            Some(last) if line.starts_with("    ") => {
                last.push(' ');
                last.push_str(line.trim_start());
            }
            _ => lines.push(line.to_owned()),
        }
    }
    let shown = path.display().to_string();
    assert_eq!(
        ran.out.replace('\n', "").matches(&shown).count(),
        1,
        "{}",
        ran.out
    );
    ran.out = lines.join("\n").replace(&shown, "FILE") + "\n";
    assert_eq!(ran.err, "");
    assert!(ran.out.starts_with("FILE"), "{}", ran.out);
    let last = ran.out.lines().last().expect("a line");
    assert!(last.starts_with("verdict: "), "{}", ran.out);
    ran
}

fn fulmar<S: AsRef<OsStr>>(args: &[S]) -> Ran {
    ran(program().args(args))
}

/// The program under another name.
fn named(dir: &TempDir, name: &str) -> PathBuf {
    let path = dir.path().join(name);
    let ours = env!("CARGO_BIN_EXE_fulmar");
    #[cfg(unix)]
    std::os::unix::fs::symlink(ours, &path).expect("link");
    #[cfg(not(unix))]
    std::fs::copy(ours, &path).map(drop).expect("copy");
    path
}

#[test]
fn help_and_version_end_well() {
    for args in [
        &["--help"][..],
        &["-h"],
        &["help"],
        &["client", "--help"],
        &["client", "-help"],
        &["client", "help"],
        &["server", "-h"],
        &["help", "server"],
        &["run", "--help"],
        &["check", "--help"],
        &["genpsk", "--help"],
        &["demo", "--help"],
        &["man", "--help"],
        &["completions", "--help"],
    ] {
        let ran = fulmar(args);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{args:?}");
        assert!(ran.out.contains("Usage: "), "{args:?}");
    }
    for args in [
        &["--version"][..],
        &["-v"],
        &["version"],
        &["client", "-v"],
        &["server", "--version"],
    ] {
        let ran = fulmar(args);
        assert_eq!(
            (ran.code, ran.out),
            (
                0,
                concat!("fulmar ", env!("CARGO_PKG_VERSION"), "\n").into()
            )
        );
    }
}

#[test]
fn the_help_shows_every_flag_under_a_heading() {
    let help = fulmar(&["client", "--help"]).out;
    for text in [
        "Usage: fulmar client [OPTIONS]",
        "Addresses:",
        "Manual mode:",
        "--redundancy <PCT>",
        "--memory <MIB>",
        "--interval <MS>",
        "--datashard <N>",
        "[alias: --ds]",
        "[default: 10]",
        "-l, --localaddr <ADDR>",
        "-c <FILE>",
    ] {
        assert!(help.contains(text), "{text}\n{help}");
    }
    assert!(
        !help.contains("--fast-open") && !help.contains("--target"),
        "{help}"
    );
    assert!(
        help.lines().all(|line| line.chars().count() <= 100),
        "{help}"
    );
}

#[test]
fn mistakes_end_with_2_and_say_what_to_write() {
    for (args, text) in [
        (
            &["client", "--nosuchflag"][..],
            "error: command line: the client has no flag \"--nosuchflag\"; --help lists them\n",
        ),
        (
            &["server", "-keepalive", "9000"],
            "error: command line, -keepalive: 9000 is too large; write 1 to 30 seconds\n",
        ),
        (
            &["server", "-ds=1", "-datashard=2"],
            "error: command line: -ds and -datashard are two names of one flag; give one of them\n",
        ),
        (
            &["client", "-c", "/nonexistent/c.json"],
            "error: /nonexistent/c.json: the file cannot be read: ",
        ),
        (
            &["run", "-c", "/nonexistent/c.json"],
            "error: /nonexistent/c.json: the file cannot be read: ",
        ),
        (
            &["genpsk", "aes128"],
            "error: genpsk: \"aes128\" is no cipher; did you mean aes-128?\n",
        ),
        (
            &["genpsk", "aes256gmc"],
            "error: genpsk: \"aes256gmc\" is no cipher; did you mean aes256gcm?\n",
        ),
        (
            &["man", "clinet"],
            "error: man: there is no command \"clinet\"; did you mean client?\n",
        ),
        (&["serve"], "error: unrecognized subcommand 'serve'"),
        (
            &["run"],
            "error: the following required arguments were not provided",
        ),
        (&[], "Carries TCP connections"),
    ] {
        let ran = fulmar(args);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{args:?}");
        assert!(ran.err.starts_with(text), "{args:?}: {}", ran.err);
    }
}

#[test]
fn an_unusable_log_file_is_named() {
    let ran = fulmar(&["client", "--log", "/nonexistent/log"]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.err
            .starts_with("error: the log file /nonexistent/log cannot be opened: "),
        "{}",
        ran.err
    );
    let ran = ran_with_levels("loud=loud");
    assert_eq!(ran.code, 2);
    assert!(
        ran.err.starts_with(
            "error: environment, FULMAR_LOG: \"loud\" is no part of the program that logs; "
        ),
        "{}",
        ran.err
    );
}

#[test]
fn the_kcptun_of_2016() {
    let help = fulmar(&["client", "--compat", "2016", "--help"]).out;
    for text in [
        "for the kcptun of spring 2016",
        "[possible values: fast, normal, default, auto]",
        "--mtu <BYTES>      Largest UDP payload [default: 1400]",
        "--tuncrypt",
        "--compat <NAME>",
    ] {
        assert!(help.contains(text), "{text}\n{help}");
    }
    for text in [
        "--datashard",
        "--QPP",
        "--crypt",
        "--nocomp",
        "--smuxver",
        "--tcp",
        "--interval",
    ] {
        assert!(!help.contains(text), "{text}\n{help}");
    }
    let late = fulmar(&["server", "-h", "-compat=2016c"]).out;
    assert!(
        late.contains("fast, normal, default, fast2, auto]"),
        "{late}"
    );
    for side in ["client", "server"] {
        let today = fulmar(&[side, "--help"]).out;
        for text in [
            "--compat <NAME>",
            "[possible values: 2016, 2016a,",
            "--tuncrypt",
            "--crypt",
        ] {
            assert!(today.contains(text), "{text}\n{today}");
        }
        for (args, err) in [
            (
                &["--compat=2016", "--mode=fast3"][..],
                "error: command line, --mode: \"fast3\" is no mode of the kcptun of 2016, variant B; did you mean fast?\n",
            ),
            (
                &["--compat", "2016", "--ds", "10"],
                "error: command line, --ds: not with the kcptun of 2016: it has no parity; write 0, or remove it\n",
            ),
            (
                &["--tuncrypt"],
                "error: command line, --tuncrypt: only the kcptun of 2016 has this; write compat 2016bt or 2016c, too, or remove it\n",
            ),
        ] {
            let ran = fulmar(&[&[side], args].concat());
            let errors = (ran.code, ran.out.as_str(), ran.err.as_str());
            assert_eq!(errors, (2, "", err), "{args:?}");
        }
    }
}

#[test]
fn check_knows_the_kcptun_of_2016_and_toml() {
    let good = check(
        "c.json",
        r#"{"listen":":29900","target":"127.0.0.1:80","key":"Xq7Lw2Rt9Kp4Vz1N","compat":"2016"}"#,
        &["--all"],
    );
    assert_eq!(good.code, 0, "{}", good.out);
    assert!(
        good.out
            .starts_with("FILE: a kcptun-2016 server's configuration\n")
            && good.out.ends_with("verdict: good, with 1 warning\n"),
        "{}",
        good.out
    );
    for text in [
        "kcptun of spring 2016, the variant that a client speaks",
        "no parity, no compression",
        "finds out which variant",
    ] {
        assert!(good.out.contains(text), "{text}\n{}", good.out);
    }
    assert!(!good.out.contains("parityshard"), "{}", good.out);
    let warnings: Vec<_> = good
        .out
        .lines()
        .filter(|line| line.starts_with("warning: "))
        .collect();
    assert_eq!(warnings.len(), 1, "{}", good.out);
    assert!(warnings[0].contains("protects little"), "{}", good.out);

    // The name of a file says nothing.
    for name in ["c.toml", "c.json", "c"] {
        let good = check(
            name,
            "# ours\nrole = \"client\"\nremoteaddr = \"h:1\"\nkey = \"Xq7Lw2Rt9Kp4Vz1N\"\nmode = \"auto\"\n",
            &[],
        );
        assert_eq!(good.code, 0);
        assert!(
            good.out
                .starts_with("FILE: a kcptun client's configuration\n")
                && good.out.ends_with("\nverdict: good\n"),
            "{}",
            good.out
        );
        assert!(good.out.contains("<- line 3"), "{}", good.out);
    }
    for (text, problem) in [
        (
            "listen = \":1\"\nkey = \"Xq7Lw2Rt9Kp4Vz1N\"\nmdoe = \"auto\"\n",
            "\nerror: 3:1: \"mdoe\" is ignored: kcptun's server has no such key; did you mean \"mode\"?\n",
        ),
        (
            "listen = \":1\"\nkey = \"Xq7Lw2Rt9Kp4Vz1N\"\nkeepalive = 9000\n",
            "\nerror: 3:13, \"keepalive\": 9000 is too large; write 1 to 30 seconds\n",
        ),
        ("listen = :29900\n", "\nerror: 1:10: this is not TOML: "),
    ] {
        let ran = check("c.toml", text, &[]);
        assert_eq!(ran.code, 2);
        assert!(ran.out.contains(problem), "{}", ran.out);
    }
    let dir = TempDir::new().expect("dir");
    let path = dir.path().join("c.toml");
    std::fs::write(&path, "listen = :29900\n").expect("write");
    let run = fulmar(&["run", "-c", &path.display().to_string()]);
    assert_eq!(run.code, 2);
    assert!(run.err.contains("this is not TOML"), "{}", run.err);
}

fn ran_with_levels(levels: &str) -> Ran {
    ran(program().args(["client"]).env("FULMAR_LOG", levels))
}

#[test]
fn names_of_replaced_programs_take_their_command_lines() {
    let dir = TempDir::new().expect("dir");
    for (name, usage) in [
        ("kcptun-client", "Usage: kcptun-client [OPTIONS]"),
        ("client_linux_amd64", "Usage: kcptun-client [OPTIONS]"),
        ("kcptun-server.exe", "Usage: kcptun-server [OPTIONS]"),
        ("server_windows_386.exe", "Usage: kcptun-server [OPTIONS]"),
        (
            "kcptun_client_linux_amd64",
            "Usage: kcptun-client [OPTIONS]",
        ),
        ("kcps", "Usage: kcptun-server [OPTIONS]"),
    ] {
        let path = named(&dir, name);
        let help = ran(command(&path).arg("-h"));
        assert_eq!(help.code, 0);
        assert!(help.out.contains(usage), "{name}: {}", help.out);
        let version = ran(command(&path).arg("-v"));
        assert_eq!(version.code, 0);
        assert!(
            version.out.starts_with("kcptun version 20260126 (fulmar "),
            "{}",
            version.out
        );
        // Exit code 2 here, too.
        let mistake = ran(command(&path).args(["-mtu", "x"]));
        assert_eq!((mistake.code, mistake.out.as_str()), (2, ""));
        assert_eq!(
            mistake.err,
            "error: command line, -mtu: \"x\" is not a whole number; write 50 to 1500 bytes\n"
        );
    }
}

/// `kcptun` alone does not say which of the two it is.
#[test]
fn a_name_without_a_role_takes_it_from_flags_or_the_file() {
    let dir = TempDir::new().expect("dir");
    let path = named(&dir, "kcptun");
    let said = |args: &[&str], text: &str| {
        let ran = ran(command(&path).args(args));
        let all = format!("{}{}", ran.out, ran.err);
        assert!(all.contains(text), "{args:?}: {all}");
        ran.code
    };
    assert_eq!(said(&["-h"], "Usage: kcptun -r HOST:PORT"), 0);
    assert_eq!(said(&["-v"], "kcptun version 20260126 (fulmar "), 0);
    assert_eq!(said(&["-r", "h:1", "-h"], "--remoteaddr"), 0);
    assert_eq!(said(&["-t", "h:1", "-h"], "--target"), 0);
    let unknown = "nothing tells whether this is a client (-r) or a server (-t); write -r HOST:PORT or -t HOST:PORT";
    // With a mistake in them, so that nothing starts where a role is found.
    assert_eq!(said(&["--mtu", "x"], unknown), 2);
    assert_eq!(said(&["-l", ":1", "--key", "-r", "--mtu", "x"], unknown), 2);
    let both = "-r is a flag of the client and -t one of the server";
    assert_eq!(said(&["-t", "h:1", "-r", "h:2"], both), 2);
    // A mistake shows who reads the file.
    for (file, flag) in [
        (r#"{"remoteaddr":"h:1","conn":0}"#, "\"conn\""),
        (r#"{"target":"h:1","listen":"x"}"#, "\"listen\""),
        (r#"{"mtu":1400}"#, "does not tell whether it is a client's"),
    ] {
        let config = dir.path().join("config.json");
        std::fs::write(&config, file).expect("written");
        let config = config.to_str().expect("a path");
        assert_eq!(said(&["-c", config], flag), 2);
    }
    // As a plugin it is what its host says.
    let mut plugin = plugin("server;listen=x");
    let program = plugin
        .get_envs()
        .fold(command(&path), |mut command, (name, value)| {
            command.env(name, value.expect("set"));
            command
        });
    plugin = program;
    let ran = ran(&mut plugin);
    assert!(ran.err.contains("SS_PLUGIN_OPTIONS, listen"), "{}", ran.err);
}

#[test]
fn a_taken_port_comes_with_how_to_see_by_whom() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").expect("bound");
    let port = taken.local_addr().expect("address").port();
    let ran = fulmar(&["server", "-key=k", "-l", &format!("127.0.0.1:{port}")]);
    assert_eq!(ran.code, 1);
    let last = ran.err.lines().last().expect("a line");
    assert!(
        last.starts_with(&format!("error: cannot listen on 127.0.0.1:{port}/udp: "))
            && last.ends_with(&format!(
                "; another program has this port: ss -lunp 'sport = :{port}' shows which"
            )),
        "{}",
        ran.err
    );
}

fn plugin(options: &str) -> Command {
    let mut command = program();
    command
        .env("SS_REMOTE_HOST", "192.0.2.1")
        .env("SS_REMOTE_PORT", "8388")
        .env("SS_LOCAL_HOST", "127.0.0.1")
        .env("SS_LOCAL_PORT", "1984")
        .env("SS_PLUGIN_OPTIONS", options);
    command
}

#[test]
fn a_plugin_knows_its_side() {
    let refused = |command: &mut Command, text: &str| {
        let ran = ran(command);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{text}");
        assert!(ran.err.contains(text), "{}", ran.err);
    };
    // An address that only one side has tells them apart.
    let client = "SS_PLUGIN_OPTIONS, localaddr: \"h:x\"";
    let server = "SS_PLUGIN_OPTIONS, listen: \"x\"";
    refused(&mut plugin("localaddr=h:x"), client);
    refused(&mut plugin("server;listen=x"), server);
    refused(plugin("listen=x").arg("server"), server);
    refused(
        plugin("localaddr=h:x").args(["--fast-open", "-mode", "fast3"]),
        client,
    );
    refused(
        plugin("server").arg("client"),
        "the options ask for a server, but this was started as a client",
    );
    refused(&mut plugin("mtu=1;=x"), "option 2 has no name");
    refused(plugin("listen=x").arg("s"), server);
    refused(&mut plugin(" s ; listen=x"), server);
    let dir = TempDir::new().expect("dir");
    let mut as_server = command(&named(&dir, "kcptun-server"));
    for (name, value) in plugin("listen=x").get_envs() {
        if let Some(value) = value {
            as_server.env(name, value);
        }
    }
    refused(&mut as_server, server);
    // Without all four addresses it is no plugin.
    assert!(
        ran(plugin("listen=x").env("SS_LOCAL_PORT", ""))
            .err
            .contains("Usage: fulmar")
    );
}

#[test]
fn check_is_stricter_than_a_start() {
    let good = check(
        "c.json",
        r#"{"listen":":29900","target":"127.0.0.1:80","key":"Xq7Lw2Rt9Kp4Vz1N"}"#,
        &[],
    );
    assert_eq!(good.code, 0);
    assert!(
        good.out
            .starts_with("FILE: a kcptun server's configuration\nAddresses\n")
            && good.out.ends_with("\nverdict: good\n"),
        "{}",
        good.out
    );
    assert!(
        good.out.contains("\n  target  127.0.0.1:80"),
        "{}",
        good.out
    );
    // Defaults are shown on demand.
    assert!(!good.out.contains("keepalive"), "{}", good.out);
    let all = check("c.json", r#"{"listen":":29900","key":"k"}"#, &["--all"]);
    assert!(all.out.contains("\n  keepalive    10 s\n"), "{}", all.out);

    let unknown = check(
        "c.json",
        r#"{"listen":":29900","key":"k","QPPCount":7}"#,
        &[],
    );
    assert_eq!(unknown.code, 2);
    assert!(
        unknown.out.contains(
            "\nerror: 1:30: \"QPPCount\" is ignored: kcptun's server has no such key; did you mean \"qpp-count\"?\n"
        ) && unknown.out.ends_with("\nverdict: would start, but has 1 error\n"),
        "{}",
        unknown.out
    );

    for (text, more, problem) in [
        (
            "{\n  \"listen\": \":1\", // here\n}",
            &[][..],
            "error: 2:19: a comment; JSON has no comments; remove it",
        ),
        (
            "{\"listen\": \":1\",\n}",
            &[],
            "error: 1:16: a comma with nothing behind it; remove the comma",
        ),
        (
            "{}",
            &[],
            "error: the file does not tell whether it is a client's (localaddr, remoteaddr) or a server's (listen, target); say so with --role client or --role server",
        ),
        (
            "{\"listen\":\":1\",\"datashard\":250,\"parityshard\":7,\"key\":\"Xq7Lw2Rt9Kp4Vz1N\"}",
            &[],
            "error: 1:46, \"parityshard\": 250 data and 7 parity packets are more than 256 in a group; make their sum 256 or less",
        ),
        (
            "{\"keepalive\": 9000, \"key\":\"Xq7Lw2Rt9Kp4Vz1N\"}",
            &["--role", "server"],
            "error: 1:15, \"keepalive\": 9000 is too large; write 1 to 30 seconds",
        ),
        (
            "{\"remoteaddr\": \"vps\u{a0}:1\", \"key\":\"Xq7Lw2Rt9Kp4Vz1N\"}",
            &[],
            "error: 1:16, \"remoteaddr\": \"vps\\u{a0}:1\": it has a no-break space (U+00A0) in it; write host:port or host:min-max",
        ),
        (
            "{\"target\": \"h:80\\r\", \"key\":\"Xq7Lw2Rt9Kp4Vz1N\"}",
            &[],
            "error: 1:12, \"target\": \"h:80\\r\": the port \"80\\r\" is neither a number from 0 to 65535 nor a service that this machine knows; write host:port, or the path of a Unix socket",
        ),
    ] {
        let ran = check("c.json", text, more);
        let expected = format!("FILE\n{problem}\nverdict: does not start: 1 error\n");
        assert_eq!((ran.code, ran.out), (2, expected), "{text}");
    }
}

#[test]
fn the_command_line_of_kcptun_libev() {
    let dir = TempDir::new().expect("dir");
    for name in ["kcptun-libev", "kcptun-libev.exe"] {
        let path = named(&dir, name);
        let libev = |args: &[&str]| ran(command(&path).args(args));
        let help = libev(&["-h"]);
        assert_eq!((help.code, help.out.as_str()), (0, ""));
        assert!(
            help.err.starts_with("usage: kcptun-libev -c FILE "),
            "{}",
            help.err
        );
        let methods = libev(&["--list-methods"]);
        assert_eq!((methods.code, methods.out.as_str()), (0, ""));
        assert_eq!(
            methods.err,
            "xchacha20poly1305_ietf\nxsalsa20poly1305\nchacha20poly1305_ietf\naes256gcm\n"
        );
        let keys = ["aes256gcm", "xsalsa20poly1305"].map(|name| libev(&["--genpsk", name]));
        for key in &keys {
            assert_eq!((key.code, key.err.as_str(), key.out.len()), (0, "", 45));
        }
        assert_ne!(keys[0].out, keys[1].out);
        for (args, err) in [
            (
                &["--genpsk", "x"][..],
                "error: --genpsk: \"x\" is no method; ",
            ),
            (&["--version"], "error: unknown argument: \"--version\"\n"),
            (&["run", "-c", "x"], "error: unknown argument: \"run\""),
            (&["-d"], "usage: kcptun-libev -c FILE "),
            (
                &["-c", "/nonexistent/c.json"],
                "error: /nonexistent/c.json: the file cannot be read: ",
            ),
        ] {
            let ran = libev(args);
            assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{args:?}");
            assert!(ran.err.starts_with(err), "{args:?}: {}", ran.err);
        }
    }
}

#[test]
fn check_knows_the_files_of_kcptun_libev() {
    let check = |text: &str| check("c.json", text, &[]);
    let psk = fulmar(&["genpsk", "aes256gcm"]).out;
    let psk = psk.trim_end();
    let good = check(&format!(
        r#"{{"connect":"127.0.0.1:80","kcp_bind":":12345","method":"aes256gcm","psk":"{psk}"}}"#
    ));
    assert_eq!(good.code, 0);
    assert!(
        good.out
            .starts_with("FILE: a kcptun-libev server's configuration\naddresses\n")
            && good.out.ends_with("\nverdict: good\n"),
        "{}",
        good.out
    );
    assert!(!good.out.contains(psk));
    let unknown = check(&format!(
        r#"{{"kcp_bind":":1","method":"aes256gcm","psk":"{psk}","linge":3}}"#
    ));
    assert_eq!(unknown.code, 2);
    assert!(
        unknown.out.contains("did you mean \"linger\"?"),
        "{}",
        unknown.out
    );
    let plain = check(r#"{"kcp_bind":":1","password":"x"}"#);
    assert_eq!(plain.code, 2);
    assert!(plain.out.contains("NOTHING IS ENCRYPTED"), "{}", plain.out);
    let marked = check("\u{feff}{\"kcp_bind\":\":1\"}");
    assert!(
        marked
            .out
            .contains("\nnote: the byte-order mark at its beginning is skipped; "),
        "{}",
        marked.out
    );
}

#[test]
fn check_tells_what_mode_auto_may_choose() {
    let check = |text: &str| check("c.json", text, &["--all"]);
    let auto = check(r#"{"listen":":1","key":"k","mode":"auto","sndwnd":512,"redundancy":10}"#);
    assert_eq!(auto.code, 0);
    for line in [
        "\n  mode         auto: retransmission, receive window and parity follow the path; fixed: send window <- line 1\n",
        "\n  redundancy   up to 10 % of bulk            <- line 1\n",
        "\n  memory       64 MiB for each session\n",
        "\n  sndwnd       512 packets, fixed            <- line 1\n",
        "\n  rcvwnd       follows the path, up to 44739 packets\n",
        "\n  parityshard  follows the path\n",
    ] {
        assert!(auto.out.contains(line), "{line}\n{}", auto.out);
    }
    let idle = check(r#"{"listen":":1","key":"k","memory":8}"#);
    assert_eq!(idle.code, 0);
    assert!(
        idle.out.contains(
            "\nnote: 1:35, \"memory\": has no effect with mode fast; write mode auto to use it, or remove it\n"
        ),
        "{}",
        idle.out
    );
    assert!(!idle.out.contains("  memory"), "{}", idle.out);
    let large = check(r#"{"listen":":1","key":"k","mode":"auto","memory":2000}"#);
    assert_eq!(large.code, 2);
    assert!(
        large
            .out
            .contains("\nerror: 1:49, \"memory\": 2000 is too large; write 1 to 1024 MiB\n"),
        "{}",
        large.out
    );
}

#[test]
fn the_environment_variable_is_used_and_never_shown() {
    let dir = TempDir::new().expect("dir");
    let path = dir.path().join("c.json");
    std::fs::write(&path, r#"{"listen":":29900"}"#).expect("write");
    let ran = ran(program()
        .env("KCPTUN_KEY", "swordfish")
        .args(["check", "-c"])
        .arg(&path));
    assert_eq!(ran.code, 0, "{}", ran.err);
    let key = ran.out.lines().find(|line| line.contains("(9 bytes)"));
    assert!(
        key.is_some_and(|line| line.ends_with("<- environment, KCPTUN_KEY")),
        "{}",
        ran.out
    );
    assert!(!ran.out.contains("swordfish") && !ran.err.contains("swordfish"));
}

#[test]
fn keys_are_random_and_fit_a_key_file() {
    let first = fulmar(&["genpsk"]);
    let second = fulmar(&["genpsk", "aes-128-gcm"]);
    assert_eq!((first.code, second.code), (0, 0));
    assert_eq!(first.out.trim_end().len(), 43);
    assert_ne!(first.out, second.out);
    assert!(fulmar(&["genpsk", "qpp"]).out.trim_end().len() >= 211);

    let libev = fulmar(&["genpsk", "xsalsa20poly1305"]).out;
    assert_eq!(
        (libev.trim_end().len(), libev.trim_end().ends_with('=')),
        (44, true)
    );

    let dir = TempDir::new().expect("dir");
    let key = dir.path().join("key");
    let out = |path: &Path| ran(program().args(["genpsk", "-o"]).arg(path));
    assert_eq!(out(&key).code, 0);
    assert_eq!(std::fs::read_to_string(&key).expect("key").len(), 43);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(&key).expect("key").permissions().mode();
        assert_eq!(mode & 0o077, 0);
    }
    // An existing key is not replaced.
    assert_eq!(out(&key).code, 1);
    let config = dir.path().join("c.json");
    let text = format!(
        r#"{{"listen":":1","key-file":{:?}}}"#,
        key.to_str().expect("path")
    );
    std::fs::write(&config, text).expect("write");
    let ran = ran(program().args(["check", "-c"]).arg(&config));
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
}

#[test]
fn completions_and_manual_pages() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let ran = fulmar(&["completions", shell]);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{shell}");
        assert!(ran.out.contains("scavengettl"), "{shell}");
        assert!(ran.out.contains("redundancy"), "{shell}");
    }
    let page = fulmar(&["man", "server"]);
    assert_eq!(page.code, 0);
    assert!(
        page.out.contains(".TH") && page.out.contains("parityshard"),
        "{}",
        page.out
    );
    let dir = TempDir::new().expect("dir");
    assert_eq!(
        ran(program().args(["man", "--dir"]).arg(dir.path())).code,
        0
    );
    for page in ["fulmar.1", "fulmar-client.1", "fulmar-check.1"] {
        assert!(dir.path().join(page).exists(), "{page}");
    }
}

#[cfg(unix)]
#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut child = program()
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("ended").code(), Some(0));
}
