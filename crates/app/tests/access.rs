//! Whose a stream is: what a server's log and its status page say, in every dialect.
#![cfg(unix)]

#[allow(dead_code, reason = "some of it is for the tests of others")]
mod kit;

use kit::pair::Pair;
use kit::{SOON, Service, http, service};

#[test]
fn a_servers_log_names_the_client_of_a_stream_and_the_status_page_its_session() {
    for compat in ["", "2016", "2016bt", "libev"] {
        let target = service(Service::Echo);
        let mut pair = Pair::start(compat, target, None, None);
        pair.echo();
        let line = pair.server.line(" of session ");
        let (client, rest) = line.split_once(": stream ").expect("a client");
        let client = client.rsplit(' ').next().expect("an address");
        let (_, rest) = rest.split_once(" of session ").expect("a session");
        let (session, to) = rest.split_once(" to ").expect("a target");
        assert_eq!(to, target.to_string(), "{compat}: {line}");
        let page = pair.server.address("http://");
        let (status, text) = http(page, "GET", "/stats?sessions=all");
        assert_eq!(status, 200);
        let row = text
            .lines()
            .find(|row| row.starts_with(&format!("[{session}] ")));
        let row = row.unwrap_or_else(|| panic!("{compat}: {session} in {text}"));
        assert!(row.contains(&format!(" peer={client} ")), "{compat}: {row}");
        assert!(text.contains("  = 1 sessions: "), "{compat}: {text}");
        let (_, text) = http(page, "GET", "/stats?sessions=none");
        assert!(!text.contains("peer="), "{compat}: {text}");
        // Many streams are summed up, at the end of the process at the latest.
        for _ in 0..29 {
            pair.echo();
        }
        let from = pair.server.lines();
        pair.server.end("TERM");
        let sum = pair.server.line_from(from, " streams to ", SOON);
        assert!(
            sum.contains(&format!(": 30 streams to {target} in 10 s, ")),
            "{sum}"
        );
    }
}

/// `--quiet` is about streams; whom a server serves is told all the same, unless it is turned off by name.
#[test]
fn it_is_a_log_target_of_its_own() {
    for (flag, levels, told) in [
        (Some("--quiet"), None, true),
        (None, Some("info,access=off"), false),
        (None, Some("warn,fulmar=info,access=info"), true),
    ] {
        let target = service(Service::Echo);
        let mut pair = Pair::start("", target, flag, levels);
        pair.echo();
        pair.server.end("TERM");
        if told {
            pair.server.line(" of session ");
        } else {
            assert!(!pair.server.log().contains(" of session "), "{levels:?}");
        }
    }
}
