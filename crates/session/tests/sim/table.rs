//! Behaviour as tables that a person can judge: goodput, overhead, latency, recovery. They are compared with
//! `table.txt` next to this file; `FULMAR_SIM_UPDATE=1` writes it anew, and the difference is then read before it is
//! committed.

use std::fmt::Write;
use std::path::Path as FilePath;
use std::time::Duration;

use fulmar_arq::Profile;
use fulmar_netem::{Direction, Path as Link, Rate};
use fulmar_session::endpoint::Event;

use crate::apps::{Expect, Program, Step, bulk, requests};
use crate::harness::{Sim, link, ms, secs};
use crate::setup::Options;

const SEEDS: u64 = 3;

fn ends(profile: Profile, fec: Option<(usize, usize)>) -> (Options, Options) {
    let client = Options {
        profile,
        fec,
        tokens: false,
        ..Options::client()
    };
    let server = Options {
        profile,
        fec,
        tokens: false,
        ..Options::server()
    };
    (client, server)
}

fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.into_iter().collect();
    values.iter().sum::<f64>() / values.len() as f64
}

/// Goodput in Mbit/s and bytes on the wire per useful byte of one download.
fn download(seed: u64, options: &(Options, Options), path: &Link, bytes: u64) -> (f64, f64) {
    let ends = (&options.0, &options.1);
    let mut sim = Sim::new("download", seed, path.clone(), path.clone(), ends);
    sim.open(bulk(100, bytes));
    let took = sim.finish(secs(600));
    let wire = [Direction::Up, Direction::Down].map(|d| sim.net.counters(d).sent_bytes);
    (
        bytes as f64 * 8.0 / took.as_secs_f64() / 1e6,
        (wire[0] + wire[1]) as f64 / bytes as f64,
    )
}

/// How long echoes take with nothing else going on, sorted.
fn echoes(options: &(Options, Options), path: &Link) -> Vec<Duration> {
    let mut all = Vec::new();
    for seed in 1..=SEEDS {
        let ends = (&options.0, &options.1);
        let mut sim = Sim::new("echo", seed, path.clone(), path.clone(), ends);
        let at = sim.open(requests(100, 64, 64, ms(50)));
        sim.finish(secs(600));
        all.extend_from_slice(&sim.client().apps.get(at).latencies);
    }
    all.sort_unstable();
    all
}

fn profiles() -> [(&'static str, Profile); 4] {
    ["normal", "fast", "fast2", "fast3"]
        .map(|name| (name, Profile::from_mode(name).expect("a profile")))
}

fn transfer(out: &mut String) {
    out.push_str(
        "\
Download of 3 MB over 50 Mbit/s with a queue of 100 ms, upstream's windows, and 64-byte echoes 50 ms apart on an
otherwise idle session. rtt: of the link, both ways; loss: each way. overhead: bytes of UDP payload, both ways, per
useful byte.

profile  parity   rtt ms  loss %   goodput Mbit/s  overhead   echo p50 ms  p99 ms
",
    );
    let all = profiles().map(|(name, profile)| (name, profile, Some((10, 3))));
    let plain = ("fast", Profile::FAST, None);
    for (name, profile, fec) in all.into_iter().chain([plain]) {
        for rtt in [50, 200] {
            for loss in [0, 5, 20] {
                let options = ends(profile, fec);
                let path = Link {
                    rate: Some(Rate::with_queue_time(50_000_000, ms(100))),
                    ..link(rtt / 2, f64::from(loss) / 100.0)
                };
                let downloads: Vec<_> = (1..=SEEDS)
                    .map(|seed| download(seed, &options, &path, 3_000_000))
                    .collect();
                let goodput = mean(downloads.iter().map(|d| d.0));
                let overhead = mean(downloads.iter().map(|d| d.1));
                let echoes = echoes(&options, &path);
                let echo = |share: usize| echoes[echoes.len() * share / 100].as_millis();
                let parity = fec.map_or("none".into(), |(d, p)| format!("{d}+{p}"));
                let _ = writeln!(
                    out,
                    "{name:<8} {parity:<7} {rtt:>7} {loss:>7} {goodput:>16.1} {overhead:>9.2} {:>13} {:>7}",
                    echo(50),
                    echo(99),
                );
            }
        }
    }
}

fn slow_links(out: &mut String) {
    out.push_str(
        "
Download of 500 kB in mode fast over slow links, 40 ms round trip, no other loss than the queue's. window: the
server's, in packets. share: goodput per capacity.

rate Mbit/s  queue ms  window  goodput Mbit/s  share %  overhead
",
    );
    for rate in [1, 10] {
        for queue in [20, 200] {
            for window in [32, 128, 1024] {
                let (client, mut server) = ends(Profile::FAST, Some((10, 3)));
                server.snd_wnd = window;
                let path = Link {
                    rate: Some(Rate::with_queue_time(rate * 1_000_000, ms(queue))),
                    ..link(20, 0.0)
                };
                let (goodput, overhead) = download(1, &(client, server), &path, 500_000);
                let share = 100.0 * goodput / rate as f64;
                let _ = writeln!(
                    out,
                    "{rate:>11} {queue:>9} {window:>7} {goodput:>15.2} {share:>8.0} {overhead:>9.2}",
                );
            }
        }
    }
}

/// Milliseconds from the end of a blackout to the first byte of a download.
fn back_after(profile: Profile, seconds: u64) -> u128 {
    let options = ends(profile, Some((10, 3)));
    let path = link(25, 0.01);
    let mut sim = Sim::new("back", 1, path.clone(), path, (&options.0, &options.1));
    let at = sim.open(bulk(100, 1 << 40));
    sim.run_for(secs(1));
    let end = sim.now + secs(seconds);
    for direction in [Direction::Up, Direction::Down] {
        let window = sim.now..end;
        sim.net.path_mut(direction).blackouts.push(window);
    }
    sim.run_to(end);
    let back = |sim: &Sim| sim.client().apps.get(at).last_read > end;
    assert!(sim.run_until(end + secs(30), back));
    (sim.now - end).as_millis()
}

/// Milliseconds from the restart of a server to the end of the client's session.
fn restart_noticed(profile: Profile, up: u64, down: u64) -> u128 {
    let options = ends(profile, Some((10, 3)));
    let path = link(25, 0.01);
    let mut sim = Sim::new("restart", 1, path.clone(), path, (&options.0, &options.1));
    let lost = |n| Program::new(Expect::Lost, [Step::Write(n), Step::ReadEnd]);
    sim.open((lost(up), lost(down)));
    sim.run_for(secs(3));
    let start = sim.now;
    sim.restart_server();
    let over = |sim: &Sim| {
        let closed = |e: &Event| matches!(e, Event::Closed(..));
        !sim.client().times_of(closed).is_empty()
    };
    assert!(sim.run_until(start + secs(70), over));
    (sim.now - start).as_millis()
}

fn recovery(out: &mut String) {
    out.push_str(
        "
Milliseconds that it takes, 50 ms round trip, 1 % loss: until a download goes on after a blackout of so many seconds;
until a client knows that its server has been restarted.

profile   after 2 s    10 s    25 s   restart: uploading  downloading    idle
",
    );
    for (name, profile) in profiles() {
        let back = [2, 10, 25].map(|seconds| back_after(profile, seconds));
        let noticed =
            [(1 << 40, 0), (100, 1 << 40), (100, 100)].map(|(u, d)| restart_noticed(profile, u, d));
        let _ = writeln!(
            out,
            "{name:<8} {:>10} {:>7} {:>7} {:>20} {:>12} {:>7}",
            back[0], back[1], back[2], noticed[0], noticed[1], noticed[2],
        );
    }
}

#[test]
fn the_tables_are_as_committed() {
    let mut tables = String::new();
    transfer(&mut tables);
    slow_links(&mut tables);
    recovery(&mut tables);
    let file = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("tests/sim/table.txt");
    if std::env::var_os("FULMAR_SIM_UPDATE").is_some() {
        std::fs::write(&file, &tables).expect("the file can be written");
    }
    let committed = std::fs::read_to_string(&file).expect("table.txt");
    for (now, then) in tables.lines().zip(committed.lines()) {
        assert_eq!(now, then, "FULMAR_SIM_UPDATE=1 writes table.txt anew");
    }
    assert_eq!(tables.lines().count(), committed.lines().count());
}
