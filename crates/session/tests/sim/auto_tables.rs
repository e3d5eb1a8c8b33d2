//! What mode auto achieves, as tables that a person can judge: how much of a link a download gets and what it costs, how
//! long others wait meanwhile, what a change of the path does, and how two share a bottleneck. Each is compared with a
//! file in `tables/`, see [`crate::snapshot`].
//!
//! Both ends measure. Everything is counted from the opening of a stream, so the search for the rate is part of it.
//! With large packets and few acknowledgements a share may be a little above 100 %.

use std::cell::RefCell;

use fulmar_netem::{Bursts, Direction, Path as Link, Policer, Rate, Reordering};
use fulmar_session::SessionKey;
use fulmar_session::layer::StreamId;
use fulmar_wire::time::Instant;

use crate::apps::{Expect, Program, Step};
use crate::harness::{Sim, ms, secs};
use crate::setup::Options;
use crate::snapshot::{Kind, NONE, Table};

type Stream = (SessionKey, StreamId);

/// A full datagram on the wire, headers included.
const PACKET: usize = 1350 + Rate::HEADERS;
/// What of a rate is left for streams at best: headers of IP, UDP, the cipher, KCP and smux, and acknowledgements of the
/// other direction, take the rest.
const USEFUL: f64 = 0.93;

/// A link of this round trip.
fn round_trip(rtt_ms: u64) -> Link {
    Link {
        delay: ms(rtt_ms) / 2,
        ..Link::default()
    }
}

fn bottleneck(mbit: u64, queue_ms: u64) -> Option<Rate> {
    Some(Rate::with_queue_time(mbit * 1_000_000, ms(queue_ms)))
}

/// In mode auto, and without the frames of tokens: a few bytes more at the beginning are another history for all random events.
fn bare(end: Options) -> Options {
    Options {
        tokens: false,
        ..end.measuring()
    }
}

fn sim(name: &'static str, seed: u64, up: Link, down: Link) -> Sim {
    let (client, server) = (bare(Options::client()), bare(Options::server()));
    Sim::new(name, seed, up, down, (&client, &server))
}

/// A download without an end.
fn download(sim: &mut Sim, client: usize) -> Stream {
    let writes = |n| Program::new(Expect::Anything, [Step::Write(n), Step::ReadEnd]);
    sim.open_on(client, (writes(9), writes(1 << 40)))
}

fn read(sim: &Sim, client: usize, at: Stream) -> u64 {
    sim.clients[client].host.apps.get(at).read
}

/// Bytes sent in that direction so far, headers included.
fn wire(sim: &Sim, direction: Direction) -> u64 {
    let c = sim.net.counters(direction);
    c.sent_bytes + Rate::HEADERS as u64 * c.sent
}

/// Percent of what a link of `mbit` can carry at best, in `seconds`, if it loses that share.
fn share(bytes: u64, seconds: f64, mbit: u64, loss: f64) -> f64 {
    let best = mbit as f64 * 1e6 / 8.0 * (1.0 - loss) * USEFUL;
    100.0 * bytes as f64 / seconds / best
}

/// Lets everything happen until `end`, and looks after each event.
fn watch(sim: &mut Sim, end: Instant, look: impl FnMut(&Sim)) {
    let look = RefCell::new(look);
    sim.run_until(end, |sim| {
        look.borrow_mut()(sim);
        false
    });
    sim.now = sim.now.max(end);
}

fn mean<const N: usize>(all: &[[f64; N]]) -> [f64; N] {
    std::array::from_fn(|i| all.iter().map(|v| v[i]).sum::<f64>() / all.len() as f64)
}

/// Messages of an open loop: one each so often, whatever becomes of those before, and each is sent back.
const MESSAGE: u64 = 120;
const EVERY: u64 = 20;

/// Milliseconds that each of so many messages takes there and back, from when it is due; infinite if more than three
/// seconds after the last was sent it is not back. Sorted.
fn echoes(sim: &mut Sim, count: u64) -> Vec<f64> {
    let (mut client, mut server) = (Vec::new(), Vec::new());
    for i in 1..=count {
        client.extend([Step::Wait(ms(EVERY)), Step::Write(MESSAGE)]);
        server.extend([Step::Read(MESSAGE * i), Step::Write(MESSAGE)]);
    }
    let program = |steps| Program::new(Expect::Anything, steps);
    let at = sim.open((program(client), program(server)));
    let start = sim.now;
    let mut all = Vec::new();
    let mut look = |sim: &Sim| {
        let back = sim.client().apps.get(at).read / MESSAGE;
        while (all.len() as u64) < back {
            let due = start + ms(EVERY) * (all.len() as u32 + 1);
            all.push((sim.now - due).as_secs_f64() * 1e3);
        }
    };
    watch(sim, start + ms(EVERY * count), &mut look);
    watch(sim, start + ms(EVERY * count) + secs(3), &mut look);
    all.resize(count as usize, f64::INFINITY);
    all.sort_by(f64::total_cmp);
    all
}

fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted[sorted.len() * percent / 100]
}

#[test]
fn auto_tables_latency() {
    let mut table = Table::new();
    table.part(
        "\
Echoes of 120 bytes, one each 20 ms whatever becomes of those before, beside a download that began 2 s earlier, over a
bottleneck with a round trip of 40 ms and a queue of 200 ms: how long they take, and what the download gets meanwhile.
400 echoes, 3 seeds (one at 200 Mbit/s).",
        &["Mbit/s"],
        &[("p50 ms", Kind::Millis), ("p99 ms", Kind::Millis), ("share %", Kind::Share)],
    );
    for mbit in [5, 20, 200] {
        let (mut all, mut shares) = (Vec::new(), Vec::new());
        let seeds = if mbit == 200 { 1 } else { 3 };
        for seed in 1..=seeds {
            let path = Link {
                rate: bottleneck(mbit, 200),
                ..round_trip(40)
            };
            let mut sim = sim("beside a download", seed, path.clone(), path);
            let at = download(&mut sim, 0);
            sim.run_for(secs(2));
            let (before, start) = (read(&sim, 0, at), sim.now);
            all.extend(echoes(&mut sim, 400));
            let got = read(&sim, 0, at) - before;
            shares.push([share(got, (sim.now - start).as_secs_f64(), mbit, 0.0)]);
        }
        all.sort_by(f64::total_cmp);
        let [share] = mean(&shares);
        table.row(
            &[&mbit.to_string()],
            &[percentile(&all, 50), percentile(&all, 99), share],
        );
    }
    table.part(
        "\
The same echoes alone on a link without a limit, with a round trip of 80 ms; loss and jitter each way. wire/byte: bytes
of datagrams, with 28 of headers each, from the client per byte that its application sent. 600 echoes, 5 seeds.",
        &["loss %", "jitter ms"],
        &[("p50 ms", Kind::Millis), ("p99 ms", Kind::Millis), ("wire/byte", Kind::Overhead)],
    );
    for loss in [0, 5, 10, 20] {
        for jitter in [0, 5] {
            let (mut all, mut costs) = (Vec::new(), Vec::new());
            for seed in 1..=5 {
                let path = Link {
                    loss: f64::from(loss) / 100.0,
                    jitter: ms(jitter),
                    ..round_trip(80)
                };
                let mut sim = sim("sparse", seed, path.clone(), path);
                all.extend(echoes(&mut sim, 600));
                let sent = (600 * MESSAGE) as f64;
                costs.push([wire(&sim, Direction::Up) as f64 / sent]);
            }
            all.sort_by(f64::total_cmp);
            let [cost] = mean(&costs);
            table.row(
                &[&loss.to_string(), &jitter.to_string()],
                &[percentile(&all, 50), percentile(&all, 99), cost],
            );
        }
    }
    table.is_as_committed("auto_latency");
}

/// Of messages that are sent one each 20 ms, 99 of 100 are answered within a round trip and 40 ms, whatever is lost of them up to 15 %:
/// once the server knows where its client is, since before that it sends no copies.
#[test]
fn small_messages_wait_40_ms_for_what_is_lost() {
    let mut late = Vec::new();
    for rtt in [20, 60, 120, 200, 300] {
        for loss in [5, 10, 15] {
            for jitter in [0, 6] {
                let mut all = Vec::new();
                for seed in 1..=6 {
                    let path = Link {
                        loss: f64::from(loss) / 100.0,
                        jitter: ms(jitter),
                        ..round_trip(rtt)
                    };
                    let mut sim = sim("messages", seed, path.clone(), path);
                    sim.know_clients();
                    all.extend(echoes(&mut sim, 600));
                }
                all.sort_by(f64::total_cmp);
                let p99 = percentile(&all, 99);
                if p99 > rtt as f64 + 40.5 {
                    late.push(format!(
                        "{rtt} ms, {loss} %, jitter of {jitter} ms: p99 {p99:.0} ms"
                    ));
                }
            }
        }
    }
    assert!(late.is_empty(), "{late:#?}");
}

#[test]
fn auto_tables_fairness() {
    let mut table = Table::new();
    table.part(
        "\
Downloads of two clients of one server over one bottleneck of 50 Mbit/s with a round trip of 40 ms; the second begins 2 s
after the first. Of the last 10 of 20 s: what each got in percent of what the link carries at best, both together, and
Jain's index of the two (1 is equal, 0.5 is all for one). Means of 3 seeds.",
        &["queue ms"],
        &[
            ("first %", Kind::Part),
            ("second %", Kind::Part),
            ("both %", Kind::Share),
            ("Jain", Kind::Fairness),
        ],
    );
    for queue in [24, 96] {
        let all: Vec<_> = (1..=3).map(|seed| two_clients(seed, queue)).collect();
        table.row(&[&queue.to_string()], &mean(&all));
    }
    table.is_as_committed("auto_fairness");
}

fn two_clients(seed: u64, queue: u64) -> [f64; 4] {
    let path = Link {
        rate: bottleneck(50, queue),
        ..round_trip(40)
    };
    let mut sim = sim("fairness", seed, path.clone(), path);
    let first = download(&mut sim, 0);
    sim.run_for(secs(2));
    sim.add_client(&bare(Options::client()));
    let second = download(&mut sim, 1);
    sim.run_for(secs(8));
    let both = |sim: &Sim| [read(sim, 0, first), read(sim, 1, second)];
    let before = both(&sim);
    sim.run_for(secs(10));
    let after = both(&sim);
    let [a, b] = std::array::from_fn(|i| share(after[i] - before[i], 10.0, 50, 0.0));
    [a, b, a + b, (a + b).powi(2) / (2.0 * (a * a + b * b))]
}

/// One download per cell: so long, and the dice of so many seeds.
struct Bulk {
    mbit: u64,
    seconds: fn(rtt_ms: u64) -> f64,
    seeds: u64,
    rtts: &'static [u64],
    /// Names of [`LOSSES`].
    losses: &'static [&'static str],
    short_queue: fn(rtt_ms: u64, loss: &str) -> bool,
}

const LOSSES: [&str; 7] = ["0", "1", "5", "10", "20", "30", "5-bursts"];

/// A link that loses as that name of [`LOSSES`] says, and its share.
fn lossy(rtt: u64, name: &str) -> (Link, f64) {
    let (percent, bursts) = match name.strip_suffix("-bursts") {
        Some(percent) => (percent, true),
        None => (name, false),
    };
    let loss = percent.parse::<f64>().expect("a number") / 100.0;
    let leave = 0.25;
    let link = Link {
        loss: if bursts { 0.0 } else { loss },
        bursts: bursts.then_some(Bursts {
            enter: leave * loss / (1.0 - loss),
            leave,
            loss_good: 0.0,
            loss_bad: 1.0,
        }),
        ..round_trip(rtt)
    };
    (link, loss)
}

/// Queues that are worth 20 ms but at least 16 packets, and 200 ms.
fn queue(mbit: u64, short: bool) -> Option<Rate> {
    let mut rate = Rate::with_queue_time(mbit * 1_000_000, ms(if short { 20 } else { 200 }));
    rate.queue_bytes = rate.queue_bytes.max(16 * PACKET);
    Some(rate)
}

/// The share that a download gets, and what it costs.
fn download_for(bulk: &Bulk, seed: u64, rtt: u64, loss: &str, short: bool) -> [f64; 2] {
    let (path, loss) = lossy(rtt, loss);
    let path = Link {
        rate: queue(bulk.mbit, short),
        ..path
    };
    let seconds = (bulk.seconds)(rtt);
    let mut sim = sim("bulk", seed, path.clone(), path);
    let at = download(&mut sim, 0);
    sim.run_for(ms((seconds * 1e3) as u64));
    let got = read(&sim, 0, at);
    let sent = wire(&sim, Direction::Up) + wire(&sim, Direction::Down);
    [
        share(got, seconds, bulk.mbit, loss),
        sent as f64 / got as f64,
    ]
}

fn bulk_table(name: &str, time: &str, bulk: &Bulk) {
    let mut table = Table::new();
    table.part(
        &format!(
            "\
A download over {} Mbit/s, counted from its beginning. Loss is each way, 5-bursts in bursts of 4 packets on average.
short: a queue of 20 ms but at least 16 packets, long: of 200 ms. share: of the rate without what is lost, times {USEFUL}
for headers. wire/byte: bytes of datagrams both ways, with 28 of headers each, per byte that was read.
{time}",
            bulk.mbit,
        ),
        &["rtt ms", "loss %"],
        &[
            ("short share %", Kind::Share),
            ("wire/byte", Kind::Overhead),
            ("long share %", Kind::Share),
            ("wire/byte", Kind::Overhead),
        ],
    );
    for &rtt in bulk.rtts {
        for &loss in bulk.losses {
            let cell = |short: bool| {
                if short && !(bulk.short_queue)(rtt, loss) {
                    return [NONE; 2];
                }
                let all: Vec<_> = (1..=bulk.seeds)
                    .map(|seed| download_for(bulk, seed, rtt, loss, short))
                    .collect();
                mean(&all)
            };
            let ([a, b], [c, d]) = (cell(true), cell(false));
            table.row(&[&rtt.to_string(), loss], &[a, b, c, d]);
        }
    }
    table.is_as_committed(name);
}

#[test]
fn auto_tables_bulk_1() {
    let bulk = Bulk {
        mbit: 1,
        seconds: |rtt| f64::max(4.0, 0.03 * rtt as f64),
        seeds: 3,
        rtts: &[5, 50, 200, 600],
        losses: &LOSSES,
        short_queue: |_, _| true,
    };
    let time = "30 round trips but at least 4 s; means of 3 seeds.";
    bulk_table("auto_bulk_1", time, &bulk);
}

#[test]
fn auto_tables_bulk_10() {
    let bulk = Bulk {
        mbit: 10,
        seconds: |rtt| f64::max(4.0, 0.03 * rtt as f64),
        seeds: 2,
        rtts: &[5, 50, 200, 600],
        losses: &LOSSES,
        short_queue: |_, _| true,
    };
    let time = "30 round trips but at least 4 s; means of 2 seeds.";
    bulk_table("auto_bulk_10", time, &bulk);
}

#[test]
fn auto_tables_bulk_200() {
    let bulk = Bulk {
        mbit: 200,
        seconds: |rtt| f64::max(2.4, 0.012 * rtt as f64),
        seeds: 1,
        rtts: &[5, 50, 200, 600],
        losses: &LOSSES,
        short_queue: |rtt, loss| rtt < 600 && matches!(loss, "0" | "5" | "20"),
    };
    let time = "12 round trips but at least 2.4 s; one seed. The short queue in some cells only: it costs time.";
    bulk_table("auto_bulk_200", time, &bulk);
}

#[test]
fn auto_tables_bulk_1000() {
    let bulk = Bulk {
        mbit: 1000,
        seconds: |_| 1.0,
        seeds: 1,
        rtts: &[5, 50],
        losses: &["0", "1", "10"],
        short_queue: |_, _| false,
    };
    let time = "1 s, so the search for the rate is a good part of it; one seed, and few cells: it costs time.";
    bulk_table("auto_bulk_1000", time, &bulk);
}

/// What a download of `mbit` goes through when the path changes.
struct Change {
    name: &'static str,
    before: Link,
    /// Of either direction, and when what is bad about it is over.
    change: fn(&mut Link, Instant) -> Instant,
    /// The rate from then on.
    mbit: u64,
}

/// Time until a window of 500 ms has 80 % of what the link carries, the longest time without a byte, and the share of the
/// 4 s after.
fn after_change(seed: u64, change: &Change) -> [f64; 3] {
    const WINDOW: u64 = 500;
    const STEP: u64 = 10;
    let path = &change.before;
    let mut sim = sim(change.name, seed, path.clone(), path.clone());
    let at = download(&mut sim, 0);
    sim.run_for(secs(4));
    let now = sim.now;
    let over = [Direction::Up, Direction::Down]
        .map(|direction| (change.change)(sim.net.path_mut(direction), now))[0];
    let (mut last, mut seen, mut gap) = (now, read(&sim, 0, at), 0.0_f64);
    let mut look = |sim: &Sim| {
        let bytes = read(sim, 0, at);
        // Also what has not ended yet.
        gap = gap.max((sim.now - last).as_secs_f64() * 1e3);
        if bytes > seen {
            (seen, last) = (bytes, sim.now);
        }
    };
    watch(&mut sim, over, &mut look);
    let mut reads = vec![read(&sim, 0, at)];
    let window = (WINDOW / STEP) as usize;
    let mut back = f64::INFINITY;
    while sim.now < over + secs(4) || (back.is_infinite() && sim.now < over + secs(15)) {
        let end = sim.now + ms(STEP);
        watch(&mut sim, end, &mut look);
        reads.push(read(&sim, 0, at));
        if back.is_infinite()
            && let Some(before) = reads.len().checked_sub(window + 1)
        {
            let got = reads[reads.len() - 1] - reads[before];
            if share(got, WINDOW as f64 / 1e3, change.mbit, 0.0) >= 80.0 {
                back = (sim.now - over).as_secs_f64() * 1e3;
            }
        }
    }
    let after = reads[(4000 / STEP) as usize] - reads[0];
    [back, gap, share(after, 4.0, change.mbit, 0.0)]
}

fn changes(table: &mut Table) {
    table.part(
        "\
A download over 200 Mbit/s with a round trip of 100 ms and a queue of 100 ms (of whatever rate), and no loss, when the path
changes both ways after 4 s. 80 % ms: until a window of 500 ms that begins after the change (or the blackout) has 80 % of
what the link then carries. gap ms: the longest time without a byte since the change. share: of what the link carries,
in the 4 s after. Means of 2 seeds.",
        &["change"],
        &[
            ("80 % ms", Kind::Millis),
            ("gap ms", Kind::Millis),
            ("share %", Kind::Share),
        ],
    );
    let before = Link {
        rate: bottleneck(200, 100),
        ..round_trip(100)
    };
    let all = [
        Change {
            name: "200-to-20",
            before: before.clone(),
            change: |link, now| {
                link.rate = bottleneck(20, 100);
                now
            },
            mbit: 20,
        },
        Change {
            name: "20-to-200",
            before: Link {
                rate: bottleneck(20, 100),
                ..before.clone()
            },
            change: |link, now| {
                link.rate = bottleneck(200, 100);
                now
            },
            mbit: 200,
        },
        Change {
            name: "rtt-50-150",
            before: Link {
                rate: bottleneck(200, 100),
                ..round_trip(50)
            },
            change: |link, now| {
                link.delay = ms(75);
                now
            },
            mbit: 200,
        },
        Change {
            name: "blackout-2s",
            before,
            change: |link, now| {
                let end = now + secs(2);
                link.blackouts.push(now..end);
                end
            },
            mbit: 200,
        },
    ];
    for change in &all {
        let seeds: Vec<_> = (1..=2).map(|seed| after_change(seed, change)).collect();
        table.row(&[change.name], &mean(&seeds));
    }
}

/// What deceives a sender that takes loss, disorder or the rhythm of acknowledgements at their word.
fn deceptions(table: &mut Table) {
    table.part(
        "\
A download of 4 s in which something is other than it seems; means of 2 seeds. Disorder: 200 Mbit/s, a round trip of
50 ms, that share of the packets is held back by up to 30 ms, both ways. Only on the way back (of acknowledgements, round
trip 100 ms, 200 Mbit/s): 20 % loss; 20 ms of jitter, which compresses them. Policer: 20 Mbit/s with a bucket of 64 KiB,
round trip 50 ms, both ways. repeated: segments that the client had already.",
        &["what"],
        &[
            ("share %", Kind::Share),
            ("wire/byte", Kind::Overhead),
            ("repeated", Kind::Count),
        ],
    );
    let plain = |rtt| Link {
        rate: bottleneck(200, 100),
        ..round_trip(rtt)
    };
    let disorder = |probability| Link {
        reordering: Some(Reordering {
            probability,
            by: ms(30),
        }),
        ..plain(50)
    };
    let policed = Link {
        policer: Some(Policer {
            bits_per_second: 20_000_000,
            burst_bytes: 64 << 10,
        }),
        ..round_trip(50)
    };
    let back_loss = Link {
        loss: 0.2,
        ..plain(100)
    };
    let back_jitter = Link {
        jitter: ms(20),
        ..plain(100)
    };
    for (name, up, down, mbit) in [
        ("disorder-5", disorder(0.05), disorder(0.05), 200),
        ("disorder-30", disorder(0.3), disorder(0.3), 200),
        ("back-loss-20", back_loss, plain(100), 200),
        ("back-jitter", back_jitter, plain(100), 200),
        ("policer", policed.clone(), policed, 20),
    ] {
        let one = |seed| {
            let mut sim = sim(name, seed, up.clone(), down.clone());
            let at = download(&mut sim, 0);
            sim.run_for(secs(4));
            let got = read(&sim, 0, at);
            let sent = wire(&sim, Direction::Up) + wire(&sim, Direction::Down);
            [
                share(got, 4.0, mbit, 0.0),
                sent as f64 / got as f64,
                sim.client().endpoint.counters().repeat_segs as f64,
            ]
        };
        table.row(&[name], &mean(&[one(1), one(2)]));
    }
}

#[test]
fn auto_tables_changes() {
    let mut table = Table::new();
    changes(&mut table);
    deceptions(&mut table);
    table.is_as_committed("auto_changes");
}
