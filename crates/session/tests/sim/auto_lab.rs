//! Experiments with mode auto.
#![allow(clippy::print_stdout)]
use fulmar_netem::{Bursts, Direction, Path as Link, Rate};

use crate::apps::{Expect, Program, Step, requests};
use crate::harness::{Sim, link, ms, secs};
use crate::setup::Options;

fn get(name: &'static str, path: &Link, seconds: u64, trace: bool, seed: u64) -> (f64, f64) {
    let (c, s) = (Options::client().measuring(), Options::server().measuring());
    let mut sim = Sim::new(name, seed, path.clone(), path.clone(), (&c, &s));
    let p = |n| Program::new(Expect::Anything, [Step::Write(n), Step::ReadEnd]);
    let at = sim.open((p(9), p(1 << 40)));
    let start = sim.now;
    let mut read = 0;
    let step = if trace { 50 } else { 1000 * seconds };
    while sim.now < start + secs(seconds) {
        sim.run_for(ms(step));
        if trace {
            let now = sim.client().apps.get(at).read;
            let server = &sim.server;
            let key = server.endpoint.sessions().next();
            let k = key
                .and_then(|k| server.endpoint.session(k))
                .map(|s| s.kcp());
            let p = k.and_then(|k| k.path()).unwrap_or_default();
            println!(
                "{:>6} ms {:>7.1} Mbit/s bw {:>6.1} pace {:>6.1} min {:>6.1} srtt {:>6.1} limit {:>5} flight {:>5} out {:>6} loss {:.3} {} spurious {} probes {} q {}",
                (sim.now - start).as_millis(),
                (now - read) as f64 * 8.0 / (step as f64) / 1e3,
                p.bandwidth as f64 * 8e-6,
                p.pacing_rate as f64 * 8e-6,
                p.min_rtt.as_secs_f64() * 1e3,
                p.srtt.as_secs_f64() * 1e3,
                p.flight_limit,
                k.map_or(0, |k| k.in_flight()),
                k.map_or(0, |k| k.snd_nxt().diff(k.snd_una())),
                p.loss,
                p.phase,
                p.spurious,
                p.probes,
                sim.net.counters(Direction::Down).lost_queue,
            );
            read = now;
        }
    }
    let got = sim.client().apps.get(at).read;
    let wire = sim.net.counters(Direction::Down).sent_bytes
        + sim.net.counters(Direction::Up).sent_bytes
        + 28 * (sim.net.counters(Direction::Down).sent + sim.net.counters(Direction::Up).sent);
    let loss = path.loss + path.bursts.map_or(0.0, |b| b.enter / (b.enter + b.leave));
    let could = path.rate.map_or(0.0, |r| {
        r.bits_per_second as f64 * 1e-6 * 0.93 * (1.0 - loss)
    });
    let mbit = got as f64 * 8.0 / seconds as f64 / 1e6;
    let c = sim.server.endpoint.counters();
    println!(
        "{name:12} {mbit:>7.2} Mbit/s {:>5.1} % wire/byte {:.3} (max {:.3}) queue drops {} retrans {} out {} copies {} up {} kB",
        100.0 * mbit / could,
        wire as f64 / got as f64,
        1.1 / (1.0 - loss) + 0.03,
        sim.net.counters(Direction::Down).lost_queue,
        c.retrans_segs,
        c.out_pkts,
        sim.server
            .endpoint
            .sessions()
            .next()
            .and_then(|k| sim.server.endpoint.session(k))
            .map_or(0, |s| s.kcp().counters().copied_segs),
        sim.net.counters(Direction::Up).sent_bytes / 1000
    );
    (100.0 * mbit / could, wire as f64 / got as f64)
}

fn path(rate: u64, delay: u64, loss: f64, queue: usize) -> Link {
    Link {
        rate: Some(Rate {
            bits_per_second: rate * 1_000_000,
            queue_bytes: queue * 1378,
        }),
        ..link(delay, loss)
    }
}

#[test]
#[ignore = "an experiment"]
fn bulk() {
    let trace = std::env::var("TRACE").unwrap_or_default();
    let burst5 = Link {
        bursts: Some(Bursts {
            enter: 0.25 * 0.05 / 0.95,
            leave: 0.25,
            loss_good: 0.0,
            loss_bad: 1.0,
        }),
        ..path(200, 50, 0.0, 2000)
    };
    for (name, p, s) in [
        ("clean-100", path(200, 50, 0.0, 2000), 12),
        ("loss1-100", path(200, 50, 0.01, 2000), 12),
        ("loss5-100", path(200, 50, 0.05, 2000), 12),
        ("loss10-100", path(200, 50, 0.1, 2000), 12),
        ("loss20-200", path(100, 100, 0.2, 2000), 15),
        ("burst5-100", burst5, 12),
        ("thin-60", path(10, 30, 0.01, 60), 12),
        ("20-40", path(20, 20, 0.0, 1000), 12),
    ] {
        if trace.is_empty() || trace == name {
            let seeds = if trace.is_empty() { 3 } else { 1 };
            let (mut a, mut b) = (0.0, 0.0);
            for seed in 1..=seeds {
                let (x, y) = get(name, &p, s, !trace.is_empty(), seed);
                a += x / seeds as f64;
                b += y / seeds as f64;
            }
            println!("MEAN {name} {a:.1} % {b:.3}");
        }
    }
}

#[test]
#[ignore = "an experiment"]
fn games() {
    for (name, loss, jitter) in [
        ("game-0", 0.0, 0),
        ("game-5", 0.05, 0),
        ("game-10", 0.1, 5),
        ("game-20", 0.2, 5),
    ] {
        let p = Link {
            jitter: ms(jitter),
            ..link(40, loss)
        };
        let (c, s) = (Options::client().measuring(), Options::server().measuring());
        let mut sim = Sim::new(name, 1, p.clone(), p, (&c, &s));
        // Open loop: a stream for each message would be another load, so both ends write on their own.
        let mut steps = Vec::new();
        for i in 1..=600u64 {
            steps.extend([Step::Wait(ms(20)), Step::Write(120)]);
            let _ = i;
        }
        steps.push(Step::Finish);
        let mut back = Vec::new();
        for i in 1..=600u64 {
            back.extend([Step::Read(120 * i), Step::Write(120)]);
        }
        back.extend([Step::ReadEnd, Step::Finish]);
        let at = sim.open((
            Program::new(Expect::Anything, steps),
            Program::new(Expect::Anything, back),
        ));
        let start = sim.now;
        let mut seen = 0;
        let mut lat = Vec::new();
        while lat.len() < 600 && sim.now < start + secs(60) {
            sim.run_for(ms(1));
            let read = sim.client().apps.get(at).read;
            if std::env::var_os("TRACE").is_some() && (sim.now - start).as_millis() % 500 == 0 {
                let k = sim
                    .client()
                    .endpoint
                    .session(sim.clients[0].key)
                    .unwrap()
                    .kcp();
                println!(
                    "{:?} {:?} {:?} copies {}",
                    sim.now - start,
                    k.path(),
                    k.counters(),
                    sim.client().endpoint.counters().auto_copies
                );
            }
            while seen < read / 120 {
                seen += 1;
                lat.push((sim.now - start).as_millis() as i64 - 20 * seen as i64);
            }
        }
        lat.sort_unstable();
        let c = sim.net.counters(Direction::Up);
        println!(
            "{name}: p50 {} p90 {} p99 {} max {} wire up {} kB",
            lat[300],
            lat[540],
            lat[593],
            lat[599],
            c.sent_bytes / 1000
        );
    }
    let _ = requests;
}
