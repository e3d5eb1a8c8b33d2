//! The foreign programs of the interoperability rows: Debian's packages, installed where that is possible.

use std::path::PathBuf;
use std::process::Command;

/// A program that rows need, and the package that has it.
const NEEDED: [(&str, &str); 5] = [
    ("kcptun-client", "kcptun"),
    ("kcptun-server", "kcptun"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("nft", "nftables"),
];

/// Makes the programs available. Returns what is still missing, in words.
pub(crate) fn install() -> Vec<String> {
    let missing = missing();
    if missing.is_empty() {
        return Vec::new();
    }
    let mut packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    packages.dedup();
    if let Err(reason) = apt(&packages) {
        return vec![format!(
            "{} cannot be installed: {reason}",
            packages.join(", ")
        )];
    }
    self::missing()
        .iter()
        .map(|(program, package)| format!("{program} (package {package}) is missing"))
        .collect()
}

fn missing() -> Vec<(&'static str, &'static str)> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Administrators' programs are not on everybody's path.
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend(["/usr/sbin".into(), "/sbin".into()]);
    NEEDED
        .into_iter()
        .filter(|(program, _)| !folders.iter().any(|dir| dir.join(program).is_file()))
        .collect()
}

fn apt(packages: &[&str]) -> Result<(), String> {
    let root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|o| o.stdout.trim_ascii() == b"0");
    if !root {
        return Err("this needs root".to_owned());
    }
    let apt = |arguments: &[&str]| {
        Command::new("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["-q", "-y"])
            .args(arguments)
            .output()
            .map_err(|e| format!("apt-get: {e}"))
            .and_then(|o| {
                let stderr = String::from_utf8_lossy(&o.stderr).trim().to_owned();
                if o.status.success() {
                    Ok(())
                } else {
                    Err(stderr)
                }
            })
    };
    let install = [&["install", "--no-install-recommends"], packages].concat();
    println!("installing {}", packages.join(", "));
    // A fresh machine has no package lists yet.
    apt(&install).or_else(|_| apt(&["update"]).and_then(|()| apt(&install)))
}
