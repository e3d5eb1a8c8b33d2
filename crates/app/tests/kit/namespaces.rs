//! Tests in namespaces of their own.
//!
//! A test starts itself again in a network and a mount namespace of its own; what it mounts there, and the namespaces whose
//! names it makes in its own `/run`, are gone when it ends, however it ends. Only root can do that.

use std::process::{Command, Stdio};

/// Set in the process that is inside.
const INSIDE: &str = "FULMAR_TEST_NAMESPACE";

/// Runs `body` in namespaces of its own.
pub(crate) fn isolated(test: &str, body: fn()) {
    if std::env::var_os(INSIDE).is_some() {
        shell("mount -t tmpfs none /run && mkdir /run/netns && ip link set lo up");
        return body();
    }
    if !nix::unistd::geteuid().is_root() {
        return super::skipped(&format!("{test}: only root can make network namespaces"));
    }
    for program in ["unshare", "ip", "nft"] {
        if Command::new(program).arg("--version").output().is_err() {
            return super::skipped(&format!("{test}: the program {program} is not installed"));
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
        return super::skipped(&format!("{test}: no network namespace can be made here"));
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
