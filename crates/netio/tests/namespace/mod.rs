//! Tests in network namespaces of their own.
//!
//! A test starts itself again inside a new namespace, so nothing that it does is seen outside, and everything
//! is gone when it ends. Where that is not permitted it says so and does nothing.

use std::process::{Command, Stdio};

use crate::skipped::skipped;

/// Set inside the namespace, to what the process is there for.
pub(crate) const INSIDE: &str = "FULMAR_TEST_NAMESPACE";

/// Runs `body` in a network namespace with a loopback device.
pub(crate) fn in_namespace(test: &str, body: fn()) {
    if std::env::var_os(INSIDE).is_some() {
        shell("ip link set lo up");
        body();
        return;
    }
    for program in ["unshare", "nsenter", "ip", "nft"] {
        if Command::new(program).arg("--version").output().is_err() {
            skipped(&format!("{test}: the program {program} is not installed"));
            return;
        }
    }
    let ways: [&[&str]; 2] = [&["--net"], &["--user", "--map-root-user", "--net"]];
    let Some(way) = ways.into_iter().find(|way| {
        Command::new("unshare")
            .args(*way)
            .arg("true")
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    }) else {
        skipped(&format!(
            "{test}: no privilege to make a network namespace (run the tests as root)"
        ));
        return;
    };
    let status = Command::new("unshare")
        .args(way)
        .arg(std::env::current_exe().expect("this program"))
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "yes")
        .status()
        .expect("unshare");
    assert!(status.success(), "{test} failed inside the namespace");
}

pub(crate) fn shell(command: &str) -> String {
    let output = Command::new("sh")
        .args(["-c", command])
        .output()
        .expect("sh");
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
