//! A key is nowhere to be seen while the program runs: not in its log, not in the list of processes, not on its status pages.
#![cfg(unix)]

#[allow(dead_code, reason = "some of it is for the tests of others")]
mod kit;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Command, Stdio};

use kit::{Program, SOON, connect, echo, fulmar};

const SECRET: &str = "S3CRETs3cret";

fn free_port() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
    socket.local_addr().expect("address").port()
}

fn assert_silent(text: &str, about: &str) {
    assert!(!text.contains(SECRET), "{about}: {text}");
}

/// The arguments of a process as others see them.
#[cfg(target_os = "linux")]
fn arguments(id: u32) -> String {
    let line = std::fs::read(format!("/proc/{id}/cmdline")).expect("a process");
    String::from_utf8_lossy(&line).replace('\0', " ")
}

fn page(addr: SocketAddr, path: &str) -> String {
    let mut conn = TcpStream::connect(addr).expect("connected");
    conn.set_read_timeout(Some(SOON)).expect("limit");
    write!(conn, "GET {path} HTTP/1.0\r\n\r\n").expect("asked");
    let mut text = String::new();
    conn.read_to_string(&mut text).expect("answered");
    text
}

#[test]
fn a_key_behind_a_word_that_is_no_flag_is_not_logged() {
    let mut command = fulmar();
    let listen = format!("127.0.0.1:{}", free_port());
    command.args(["server", "-l", &listen, "-t", "127.0.0.1:1"]);
    command.args(["oops", "--key", SECRET, "-nocomp"]);
    let mut server = Program::start(command);
    let line = server.line("ignored");
    assert!(
        line.ends_with(
            "command line: ignored from argument 5 on, which is no flag: --key, --nocomp; everything is a flag; write --name value"
        ),
        "{line}"
    );
    server.line("listening on ");
    #[cfg(target_os = "linux")]
    assert!(arguments(server.id()).contains("oops --key xxxxxxxxxxxx -nocomp"));
    server.end("TERM");
    assert_silent(&server.log(), "the log");
}

#[test]
fn a_key_is_shown_nowhere_while_a_tunnel_runs() {
    let target = kit::service(kit::Service::Echo);
    let key = format!("--key={SECRET}");
    let port = free_port();
    let start = |side: &str, flags: &[&str]| {
        let mut command = fulmar();
        command.arg(side).args(flags).args([&key, "--mode", "auto"]);
        command.args(["--http-listen", "127.0.0.1:0"]);
        Program::start_with_levels(command, "trace")
    };
    let at = format!("127.0.0.1:{port}");
    let mut server = start("server", &["-l", &at, "-t", &target.to_string()]);
    server.line("listening on 127.0.0.1:");
    let mut client = start("client", &["-r", &at, "-l", "127.0.0.1:0"]);
    client.line("listening on 127.0.0.1:");
    let local = client.line("listening on 127.0.0.1:");
    let local = local
        .rsplit(' ')
        .next()
        .expect("address")
        .parse()
        .expect("address");
    echo(&mut connect(local), "through the tunnel");
    for program in [&mut client, &mut server] {
        #[cfg(target_os = "linux")]
        {
            let shown = arguments(program.id());
            assert!(shown.contains("--key=xxxxxxxxxxxx"), "{shown}");
        }
        let http = program.address("http://");
        for path in [
            "/",
            "/healthy",
            "/stats",
            "/stats?sessions=all",
            "/metrics",
            "/nothing",
        ] {
            assert_silent(&page(http, path), path);
        }
        program.signal("USR1");
        program.line("KCP SNMP");
        program.end("TERM");
        assert_silent(&program.log(), "the log");
    }
}

#[test]
fn refusals_and_help_show_no_key() {
    for args in [
        &["client", "--key", SECRET, "--mtu", "x"][..],
        &["client", "help", "--key", SECRET],
        &["server", "-l", "nonsense", "oops", SECRET],
        &["server", "--key", SECRET, "-h"],
        &["client", "--kye", SECRET],
        &["client", "--key-file", SECRET],
        &["run", "--key", SECRET],
        &["run", &format!("--key={SECRET}")],
        &["run", "-c", "/nonexistent", SECRET],
        &["check", "-c", "/nonexistent", "oops", "--key", SECRET],
        &["genpsk", "aes", SECRET],
        &["--key", SECRET],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_fulmar"))
            .args(args)
            .env_remove("KCPTUN_KEY")
            .stdin(Stdio::null())
            .output()
            .expect("started");
        assert_silent(
            &String::from_utf8_lossy(&output.stdout),
            &format!("{args:?}"),
        );
        assert_silent(
            &String::from_utf8_lossy(&output.stderr),
            &format!("{args:?}"),
        );
    }
}

/// `/proc/PID` belongs to root where a process is closed to its own user, and to the user where it is not.
#[test]
#[cfg(target_os = "linux")]
fn a_process_with_a_key_is_closed_to_others_of_its_user() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::process::CommandExt;

    /// Nobody's.
    const USER: u32 = 54_321;
    let dir = tempfile::TempDir::new().expect("dir");
    let all = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(dir.path(), all).expect("readable");
    let program = dir.path().join("fulmar");
    std::fs::copy(env!("CARGO_BIN_EXE_fulmar"), &program).expect("copied");
    let me = std::fs::metadata("/proc/self").expect("here").uid();
    let config = dir.path().join("libev.json");
    std::fs::write(
        &config,
        r#"{"log": "stderr", "listen": "127.0.0.1:0", "kcp_connect": "127.0.0.1:9", "method": "xchacha20poly1305_ietf",
            "password": "a rather long password"}"#,
    )
    .expect("written");
    let config = config.to_str().expect("text");
    let client = &[
        "client",
        "-l",
        "127.0.0.1:0",
        "-r",
        "127.0.0.1:9",
        "--key",
        SECRET,
    ][..];
    for (args, open) in [
        (client, "no"),
        (client, "yes"),
        (&["run", "-c", config], "no"),
        (&["run", "-c", config], "yes"),
    ] {
        let mut command = Command::new(&program);
        command.args(args);
        let user = match me {
            0 => {
                command.uid(USER).gid(USER);
                USER
            }
            me => me,
        };
        let mut program = Program::start_with(command, &[("FULMAR_DUMPABLE", open)]);
        program.line("listening on ");
        let owner = std::fs::metadata(format!("/proc/{}/fd", program.id()));
        let owner = owner.expect("a process").uid();
        assert_eq!(owner == user, open == "yes", "{args:?}: of {owner}");
        // What is not closed by that: the key is out of the list of processes all the same.
        assert_silent(&arguments(program.id()), "the arguments");
        program.end("TERM");
    }
}
