//! What a long transfer gets of a link in the long run, over rate, round trip, loss and queue: two ends that measure, with ranges in
//! their acknowledgements. How soon it gets it is in the tables of the session's simulator.

// Cells that miss their goal are told to whoever runs it.
#![allow(clippy::print_stdout)]

mod common;
#[allow(dead_code)]
#[path = "ticks/link.rs"]
mod link;

use std::collections::VecDeque;
use std::fmt::Write;

use common::Datagrams;
use fulmar_arq::{Config, Flush, Kcp, Origin, StrategyKind};
use fulmar_wire::kcp::HEADER_LEN;
use fulmar_wire::time::Instant;
use link::{Cell, Fate, Kind, Lane, MTU};

/// Segments in a second that arrive in order, from `from` to `until` microseconds.
fn run(cell: &Cell, from: u64, until: u64) -> f64 {
    let config = Config {
        mtu: MTU,
        strategy: StrategyKind::Auto,
        snd_wnd: 65_535,
        rcv_wnd: 65_535,
        measure_repairs: false,
        ..Config::default()
    };
    let mut ends = [Kcp::new(1, config), Kcp::new(1, config)];
    ends.iter_mut().for_each(|kcp| kcp.send_ack_ranges(true));
    let mut lanes = [Lane::new(cell, 1), Lane::new(cell, 2)];
    let mut flying: [VecDeque<(u64, Vec<u8>)>; 2] = Default::default();
    let mut out = Datagrams::default();
    let chunk = vec![7; MTU - HEADER_LEN];
    let begin = Instant::from_millis(5_000);
    let micros = |at: Instant| at.as_micros() - begin.as_micros();
    let at = |micros: u64| Instant::from_micros(begin.as_micros() + micros);
    let trace = std::env::var_os("FULMAR_PATHS_TRACE").is_some();
    let (mut received, mut sampled) = (0u64, 0);
    let mut now = 0;
    loop {
        for (i, kcp) in ends.iter_mut().enumerate() {
            loop {
                while i == 0 && kcp.has_room() {
                    kcp.send(&chunk);
                }
                match kcp.flush_wanted().kind() {
                    Some(kind) => kcp.flush(at(now), kind, &mut out),
                    None if kcp.poll_timeout().is_some_and(|t| t <= at(now)) => {
                        kcp.flush(at(now), Flush::Full, &mut out);
                    }
                    None => {}
                }
                if i == 1 || !kcp.has_room() {
                    break;
                }
            }
            for datagram in out.take() {
                if let Fate::Arrives(at) = lanes[i].send(now, datagram.len()) {
                    flying[1 - i].push_back((at, datagram));
                }
            }
        }
        let timers = ends.iter().filter_map(Kcp::poll_timeout).map(micros);
        let arrivals = flying.iter().filter_map(|f| Some(f.front()?.0));
        let next = timers.chain(arrivals).min().expect("endless").max(now);
        if next > until {
            return received as f64 * 1e6 / (until - from) as f64;
        }
        now = next;
        for (kcp, flying) in ends.iter_mut().zip(&mut flying) {
            while flying.front().is_some_and(|f| f.0 <= now) {
                let (_, datagram) = flying.pop_front().expect("seen");
                kcp.handle_datagram(at(now), &datagram, Origin::Wire)
                    .expect("sound");
            }
        }
        while ends[1].recv(|_| ()).is_some() {
            received += u64::from(now >= from);
        }
        if trace && now >= sampled {
            sampled += 50_000;
            println!(
                "{:.3} in-order {received} flight {} {:?}",
                now as f64 / 1e6,
                ends[0].in_flight(),
                ends[0].path().expect("auto tells")
            );
        }
    }
}

/// The share of what the link can carry.
fn judge(cell: &Cell) -> f64 {
    let from = (60 * cell.rtt).max(5_000_000);
    let until = from + (60 * cell.rtt).clamp(3_000_000, 12_000_000);
    run(cell, from, until) / (cell.link_rate() * (1.0 - cell.loss as f64 / 100.0))
}

fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for mbit in [5, 20, 40, 100, 200] {
        for rtt in [20, 50, 100, 200, 300] {
            for loss in [0, 1, 3, 5, 10] {
                for queue in [30, 60, 200] {
                    cells.push(Cell {
                        tick: 0,
                        window: 65_535,
                        rtt: rtt * 1000,
                        mbit,
                        queue: queue * 1000,
                        loss,
                        kind: Kind::Go,
                    });
                }
            }
        }
    }
    cells
}

fn hold(cells: impl IntoIterator<Item = Cell>) {
    let filter = std::env::var("FULMAR_PATHS").unwrap_or_default();
    let mut missed = String::new();
    let mut n = 0;
    for cell in cells {
        let name = cell.name();
        let mut words = filter.split(',');
        if !words.all(|f| format!("{name} ").contains(&format!("{f} "))) {
            continue;
        }
        n += 1;
        let share = judge(&cell);
        if share < 0.9 {
            println!("{name}: {:.1} %", share * 100.0);
            let _ = writeln!(missed, "{name}: {:.1} %", share * 100.0);
        }
    }
    println!("{} of {n} cells miss the goal", missed.lines().count());
    assert!(missed.is_empty(), "{missed}");
}

#[test]
fn a_short_queue_on_a_long_way_costs_no_fifth_of_the_link() {
    // What was found first, and some of the others.
    let first = Cell {
        tick: 0,
        window: 65_535,
        rtt: 250_000,
        mbit: 40,
        queue: 33_600,
        loss: 3,
        kind: Kind::Go,
    };
    let some = cells().into_iter().filter(|c| c.mbit <= 40).step_by(23);
    hold(std::iter::once(first).chain(some));
}

#[test]
#[ignore = "takes minutes: cargo xtask long paths"]
fn long_paths() {
    hold(cells());
}
