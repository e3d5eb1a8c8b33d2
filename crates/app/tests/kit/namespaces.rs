//! Tests in namespaces of their own.
//!
//! A test starts itself again in a network and a mount namespace of its own; what it mounts there, and the namespaces whose
//! names it makes in its own `/run`, are gone when it ends, however it ends. Only root can do that.

use std::ffi::OsStr;
use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use nix::sched::{CloneFlags, setns};

use super::{Program, Service, connect, fulmar, serve, skipped};

/// Set in the process that is inside.
const INSIDE: &str = "FULMAR_TEST_NAMESPACE";

/// Runs `body` in namespaces of its own.
pub(crate) fn isolated(test: &str, body: fn()) {
    if std::env::var_os(INSIDE).is_some() {
        shell("mount -t tmpfs none /run && mkdir /run/netns && ip link set lo up");
        return body();
    }
    if !nix::unistd::geteuid().is_root() {
        return skipped(&format!("{test}: only root can make network namespaces"));
    }
    for program in ["unshare", "ip", "nft"] {
        if Command::new(program).arg("--version").output().is_err() {
            return skipped(&format!("{test}: the program {program} is not installed"));
        }
    }
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "--propagation", "private"]);
        command
    };
    let possible = unshare()
        .args([
            "sh",
            "-c",
            "mount -t tmpfs none /run && echo 1 > /proc/sys/net/ipv4/ip_forward",
        ])
        .stderr(Stdio::null())
        .status();
    if !possible.is_ok_and(|s| s.success()) {
        return skipped(&format!("{test}: no network namespace can be made here"));
    }
    let status = unshare()
        .arg(std::env::current_exe().expect("this program"))
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "yes")
        .status()
        .expect("unshare");
    assert!(status.success(), "{test} failed inside");
}

/// Runs `commands`, which have to succeed.
pub(crate) fn shell(commands: &str) {
    let output = Command::new("sh")
        .args(["-ec", commands])
        .output()
        .expect("sh");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{commands}: {text}");
}

/// Runs `commands` in the namespace `name`.
pub(crate) fn shell_in(name: &str, commands: &str) {
    output_in(name, commands);
}

/// What `commands` print in the namespace `name`.
pub(crate) fn output_in(name: &str, commands: &str) -> String {
    let output = Command::new("ip")
        .args(["netns", "exec", name, "sh", "-ec", commands])
        .output()
        .expect("ip");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {commands}: {text}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Does something on a thread in the namespace; sockets that it makes stay there.
pub(crate) fn inside<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> T {
    let namespace = File::open(format!("/run/netns/{name}")).expect("namespace");
    let thread = thread::spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).expect("entered");
        body()
    });
    thread.join().expect("done")
}

pub(crate) fn connect_in(name: &str, addr: SocketAddr) -> TcpStream {
    inside(name, move || connect(addr))
}

pub(crate) fn service_in(name: &str, service: Service) -> SocketAddr {
    let bind = || TcpListener::bind("127.0.0.1:0").expect("bound");
    serve(inside(name, bind), service)
}

pub(crate) fn run_in(name: &str, file: &Path) -> Program {
    start_in(name, ["run".as_ref(), "-c".as_ref(), file.as_os_str()])
}

/// Starts the program with `args` in the namespace `name`.
pub(crate) fn start_in(name: &str, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Program {
    let mut command = Command::new("ip");
    command
        .args(["netns", "exec", name])
        .arg(fulmar().get_program())
        .args(args);
    Program::start(command)
}
