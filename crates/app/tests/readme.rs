//! What README and the guides tell people to type works, or is at least a command line.
#![cfg(unix)]

#[allow(dead_code, reason = "some of it is for the tests of others")]
mod kit;

use std::ffi::OsString;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;

use fulmar_config::{Environment, Invocation, Side, from_args};
use kit::{Program, Service, connect, fulmar, service, try_echo};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The lines of a page that begin with `fulmar`, without their remarks, and with lines that go on put together.
fn commands(page: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(page)
        .expect("page")
        .replace("\\\n", " ");
    let lines = text
        .lines()
        .map(|line| line.split(" #").next().unwrap_or(line).trim());
    // "old program → fulmar …"
    let lines = lines.map(|line| line.split_once('→').map_or(line, |(_, new)| new.trim()));
    let lines = lines.filter(|line| line.starts_with("fulmar ") && !line.contains('…'));
    lines.map(str::to_owned).collect()
}

#[test]
fn the_tunnel_between_two_machines_works() {
    let page = root().join("README.md");
    let lines = commands(&page);
    let line = |start: &str| {
        let found = lines
            .iter()
            .find(|line| line.starts_with(start) && line.contains("tunnel.key"));
        found
            .unwrap_or_else(|| panic!("README has no {start}"))
            .clone()
    };
    let dir = tempfile::TempDir::new().expect("dir");
    let command = |line: &str| {
        let mut command = fulmar();
        command
            .args(line.split_whitespace().skip(1))
            .current_dir(dir.path());
        command
    };
    // Ports that are free, in the place of those that are written there.
    let swap = |line: &str, from: &str, to: &str| {
        assert!(line.contains(from), "{line}: no {from}");
        line.replace(from, to)
    };
    assert!(
        command(&line("fulmar genpsk"))
            .status()
            .expect("ran")
            .success()
    );
    let target = service(Service::Echo).to_string();
    let server = swap(&line("fulmar server"), "127.0.0.1:8080", &target);
    // A UDP port that was free a moment ago.
    let free = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let free = free.expect("bound").to_string();
    let server = Program::start(command(&swap(&server, " :29900", &format!(" {free}"))));
    server.line("listening on ");
    let client = swap(&line("fulmar client"), "127.0.0.1:8000", "127.0.0.1:0");
    let client = Program::start(command(&swap(&client, "SERVER:29900", &free)));
    let mut conn = connect(client.address(""));
    try_echo(&mut conn, "through the tunnel").expect("echo");
}

#[test]
fn a_command_line_in_a_page_is_one() {
    let mut pages: Vec<PathBuf> = std::fs::read_dir(root().join("docs/guide"))
        .expect("guides")
        .map(|entry| entry.expect("entry").path())
        .collect();
    pages.push(root().join("README.md"));
    let known = Command::new(env!("CARGO_BIN_EXE_fulmar"))
        .arg("--help")
        .output()
        .expect("ran");
    let known = String::from_utf8_lossy(&known.stdout).into_owned();
    let mut tried = 0;
    for page in pages {
        for line in commands(&page) {
            tried += 1;
            let mut words = line.split_whitespace().skip(1);
            let side = match words.next() {
                Some("client") => Side::Client,
                Some("server") => Side::Server,
                Some(command) => {
                    let is_known = known
                        .lines()
                        .any(|l| l.trim_start().starts_with(&format!("{command} ")));
                    assert!(is_known, "{}: {line}", page.display());
                    continue;
                }
                None => panic!("{}: {line}", page.display()),
            };
            let words: Vec<&str> = words.collect();
            if words.contains(&"-c") {
                continue;
            }
            // There is no such file here.
            let words = words
                .iter()
                .map(|word| if *word == "--key-file" { "--key" } else { word });
            let words: Vec<OsString> = words.map(Into::into).collect();
            let read = from_args(side, &words, &Environment::default());
            assert!(
                matches!(read, Ok(Invocation::Run(_))),
                "{}: {line}: {read:?}",
                page.display()
            );
        }
    }
    assert!(tried > 15, "{tried} command lines");
}
