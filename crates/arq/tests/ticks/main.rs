//! The strategy that measures the path, towards a receiver that acknowledges when its clock ticks, whatever arrived when: what
//! kcptun-libev does every 50 to 100 ms, and kcp-go every interval unless a datagram is full of acknowledgements before. The
//! round trips of what one flush acknowledges differ by the time between two.
//!
//! `FULMAR_TICKS="tick 100,window 256,loss 0"` picks cells by the words of their names, `FULMAR_TICKS_TRACE=1` prints what the sender does.

// Cells that miss their goal are told to whoever runs it.
#![allow(clippy::print_stdout)]

#[path = "../common/mod.rs"]
mod common;

mod ideal;
mod link;

use std::collections::VecDeque;
use std::fmt::Write;

use common::Datagrams;
use fulmar_arq::{Config, Flush, Kcp, Origin, StrategyKind};
use fulmar_wire::kcp::{Command, Format, HEADER_LEN, Header};
use fulmar_wire::time::Instant;
use link::{Cell, Fate, Kind, Lane, MTU, Receiver};

/// What came of a cell.
#[derive(Copy, Clone, Debug)]
struct Outcome {
    /// Segments that arrived in order in a second; of several histories, the sum.
    rate: f64,
    /// Of all that arrived, the share that had arrived before.
    repeated: f64,
}

/// When there is much to send.
const BULK: u64 = 300_000;

/// A sender that has something to send from [`BULK`] to `until`; what arrives counts from `from` on.
fn run(cell: &Cell, seed: u64, from: u64, until: u64) -> Outcome {
    let mut kcp = Kcp::new(
        1,
        Config {
            mtu: MTU,
            strategy: StrategyKind::Auto,
            snd_wnd: 65_535,
            measure_repairs: false,
            ..Config::default()
        },
    );
    let mut out = Datagrams::default();
    let mut lane = Lane::new(cell, seed);
    let mut receiver = Receiver::new(cell, seed + 1);
    let mut flying = VecDeque::new();
    let mut back: VecDeque<(u64, Vec<u8>)> = VecDeque::new();
    let chunk = vec![7; MTU - HEADER_LEN];
    // Not at zero: nothing may depend on where the clock begins.
    let begin = Instant::from_millis(5_000);
    let micros = |at: Instant| at.as_micros() - begin.as_micros();
    let at = |micros: u64| Instant::from_micros(begin.as_micros() + micros);
    let (mut before, mut arrived, mut sampled) = (0, 0u64, 0);
    let trace = std::env::var_os("FULMAR_TICKS_TRACE").is_some();
    // A greeting before there is much to send: what it measures is a matter of luck.
    let mut words = VecDeque::from([0, 110_000, 230_000, BULK]);
    let bulk = BULK;
    let mut now = 0;
    loop {
        loop {
            while now >= bulk && kcp.has_room() {
                kcp.send(&chunk);
            }
            match kcp.flush_wanted().kind() {
                Some(kind) => kcp.flush(at(now), kind, &mut out),
                None if kcp.poll_timeout().is_some_and(|t| t <= at(now)) => {
                    kcp.flush(at(now), Flush::Full, &mut out);
                }
                None => {}
            }
            if now < bulk {
                kcp.drained(at(now));
                break;
            }
            if !kcp.has_room() {
                break;
            }
        }
        for datagram in out.take() {
            let (header, ..) = Format::LittleEndian
                .view(&datagram)
                .and_then(|v| v.parse())
                .expect("sound");
            let fate = lane.send(now, datagram.len());
            if let (Fate::Arrives(at), Command::Push) = (fate, header.command) {
                flying.push_back((at, header.sn.0, header.ts));
            }
        }
        let arrival = flying.front().map_or(u64::MAX, |f| f.0);
        let ack = back.front().map_or(u64::MAX, |b| b.0);
        let timer = kcp.poll_timeout().map_or(u64::MAX, micros).max(now);
        now = arrival.min(ack).min(timer).min(receiver.due());
        if let Some(&word) = words.front().filter(|w| **w <= now) {
            now = word;
            words.pop_front();
            kcp.send(&chunk[..100]);
        }
        if now > until {
            let in_order = f64::from(receiver.next - before);
            return Outcome {
                rate: in_order * 1e6 / (until - from) as f64,
                repeated: receiver.repeated as f64 / arrived.max(1) as f64,
            };
        }
        if now < from {
            (before, arrived, receiver.repeated) = (receiver.next, 0, 0);
        }
        if trace && now >= sampled {
            sampled += 20_000;
            println!(
                "{:.3} in-order {} flight {} {:?}",
                now as f64 / 1e6,
                receiver.next,
                kcp.in_flight(),
                kcp.path().expect("auto tells")
            );
        }
        if now == ack {
            // All that arrives at the same moment is one run.
            while back.front().is_some_and(|b| b.0 <= now) {
                let (_, datagram) = back.pop_front().expect("seen");
                kcp.handle_datagram(at(now), &datagram, Origin::Wire)
                    .expect("sound");
            }
        } else if now == arrival || now == receiver.due() {
            let at_once = if now == arrival {
                let (_, sn, ts) = flying.pop_front().expect("seen");
                arrived += 1;
                receiver.arrived(sn, ts)
            } else {
                receiver.ticked();
                true
            };
            if at_once {
                for (i, acks) in receiver.flush().iter().enumerate() {
                    let mut datagram = Vec::new();
                    for &(sn, ts) in &acks.acks {
                        datagram.extend(Format::LittleEndian.emit(&Header {
                            conv: 1,
                            command: Command::Ack,
                            frg: 0,
                            wnd: u16::try_from(cell.window).expect("small"),
                            ts,
                            sn,
                            una: acks.una,
                            len: 0,
                        }));
                    }
                    // They leave one after the other.
                    back.push_back((now + cell.rtt / 2 + 20 * i as u64, datagram));
                }
            }
        }
    }
}

/// How long a cell takes to settle, and how long it is looked at.
fn times(cell: &Cell) -> (u64, u64) {
    let cycle = cell.rtt + cell.tick;
    let rate = cell.link_rate().min(cell.window_rate());
    let settle = (20 * cycle).clamp(1_000_000, 4_000_000);
    // Many packets tell as much in less time.
    let look = (60_000.0 / rate * 1e6) as u64;
    (
        settle,
        settle + look.clamp(15 * cycle, 8_000_000.max(15 * cycle)),
    )
}

/// Histories of a cell in which something gets lost. Which losses fall together decides there: between a window that is full and a
/// tick a single one makes a difference of half.
const HISTORIES: u64 = 3;

/// What a cell reaches, of what it should.
fn judge(cell: &Cell) -> (f64, Outcome) {
    let (from, until) = times(cell);
    let seed = std::env::var("FULMAR_TICKS_SEED").map_or(1, |s| s.parse().expect("a number"));
    if cell.loss == 0 {
        let outcome = run(cell, seed, from, until);
        return (
            outcome.rate / cell.link_rate().min(cell.window_rate()),
            outcome,
        );
    }
    let mut all = Outcome {
        rate: 0.0,
        repeated: 0.0,
    };
    let mut goal = 0.0;
    for seed in seed..seed + HISTORIES {
        let one = run(cell, seed, from, until);
        all.rate += one.rate;
        all.repeated += one.repeated / HISTORIES as f64;
        goal += ideal::rate(cell, seed, from, until);
    }
    (all.rate / goal, all)
}

/// The cells of a tick, in milliseconds.
fn cells(tick: u64) -> Vec<Cell> {
    let mut cells = Vec::new();
    for kind in [Kind::Libev, Kind::Go] {
        for window in [32, 128, 256, 1024] {
            for rtt in [100, 1_000, 10_000, 50_000, 200_000] {
                for mbit in [1, 20, 200, 1000] {
                    for queue in [20_000, 200_000] {
                        for loss in [0, 1, 5, 10] {
                            cells.push(Cell {
                                tick: tick * 1000,
                                window,
                                rtt,
                                mbit,
                                queue,
                                loss,
                                kind,
                            });
                        }
                    }
                }
            }
        }
    }
    cells
}

/// The share of the goal that is to be reached, and the share of repeated segments that is allowed: the last copies of what was
/// lost twice are a part of it.
const GOAL: (f64, f64) = (0.9, 0.02);

/// Cells that miss a goal, each with what it reaches: known, and not to get worse.
const SHORTFALLS: &str = include_str!("shortfalls.txt");

/// What a line of that file says of a cell.
fn known(name: &str) -> Option<(f64, f64)> {
    let (_, rest) = SHORTFALLS
        .lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(of, _)| *of == name)?;
    let number = |text: &str| text.trim().trim_end_matches(" %").parse::<f64>().ok();
    let (share, repeated) = rest.split_once(", repeated ")?;
    Some((number(share)? / 100.0, number(repeated)? / 100.0))
}

/// Judges cells. Those that miss the goal are printed as the file has them; any that is not in it, or has become worse, fails.
fn hold(cells: impl IntoIterator<Item = Cell>) {
    let filter = std::env::var("FULMAR_TICKS").unwrap_or_default();
    let mut worse = String::new();
    let (mut n, mut missed) = (0, 0);
    for cell in cells {
        let name = cell.name();
        let mut words = filter.split(',');
        if !words.all(|f| format!("{name} ").contains(&format!("{f} "))) {
            continue;
        }
        let (share, outcome) = judge(&cell);
        n += 1;
        if share >= GOAL.0 && outcome.repeated <= GOAL.1 {
            continue;
        }
        missed += 1;
        let line = format!(
            "{name}: {:.1} %, repeated {:.1} %",
            share * 100.0,
            outcome.repeated * 100.0
        );
        println!("{line}");
        let (least, most) = known(&name).map_or(GOAL, |(share, repeated)| {
            ((share - 0.03).min(GOAL.0), (repeated + 0.01).max(GOAL.1))
        });
        if share < least || outcome.repeated > most {
            let _ = writeln!(worse, "{line}, where {:.1} % is known", least * 100.0);
        }
    }
    println!("{missed} of {n} cells miss the goal");
    assert!(worse.is_empty(), "worse than known:\n{worse}");
}

#[test]
fn a_receiver_that_acknowledges_by_a_clock_starves_nobody() {
    // Each third or so of what takes little time; the steps share no factor with the lists.
    let some = [10, 30, 50, 100, 200].into_iter().flat_map(cells);
    hold(some.filter(|c| c.loss == 0 && c.mbit < 200).step_by(7));
}

#[test]
fn fast_links_towards_a_clock() {
    let some = [10, 50, 100].into_iter().flat_map(cells);
    let fast = some.filter(|c| c.loss == 0 && c.mbit >= 200 && c.queue == 20_000);
    hold(fast.step_by(13));
}

#[test]
fn losses_are_repaired_as_fast_as_ticks_allow() {
    let some = [30, 100].into_iter().flat_map(cells);
    hold(some.filter(|c| c.loss > 0 && c.mbit == 20).step_by(17));
}

/// All cells of a tick.
macro_rules! long {
    ($($name:ident: $tick:literal),*) => {$(
        #[test]
        #[ignore = "takes minutes: cargo xtask long ticks"]
        fn $name() {
            hold(cells($tick));
        }
    )*};
}

long! { long_tick_10: 10, long_tick_30: 30, long_tick_50: 50, long_tick_100: 100, long_tick_200: 200 }
