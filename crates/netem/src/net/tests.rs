use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::path::{Bursts, Policer, Reordering};

fn client() -> SocketAddr {
    "10.0.0.1:5000".parse().unwrap()
}

fn server() -> SocketAddr {
    "10.0.0.2:29900".parse().unwrap()
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

/// Everything that arrives from now on, in order.
fn drain(net: &mut Net) -> Vec<Delivery> {
    let mut all = Vec::new();
    while let Some(now) = net.next_arrival() {
        while let Some(delivery) = net.poll(now) {
            all.push(delivery);
        }
    }
    assert!(all.is_sorted_by_key(|d| d.at));
    all
}

/// `n` numbered datagrams of `len` bytes upwards, `gap_micros` apart, over `path`; what arrives.
fn run(path: Path, n: u32, len: usize, gap_micros: u64) -> (Vec<Delivery>, Counters) {
    let mut net = Net::new(7, path, Path::default());
    for i in 0..n {
        let mut data = vec![0; len];
        data[..4].copy_from_slice(&i.to_be_bytes());
        let now = Instant::from_micros(u64::from(i) * gap_micros);
        net.send(now, Direction::Up, client(), server(), &data);
    }
    let all = drain(&mut net);
    (all, *net.counters(Direction::Up))
}

fn numbers(all: &[Delivery]) -> Vec<u32> {
    all.iter()
        .map(|d| u32::from_be_bytes(d.data[..4].try_into().unwrap()))
        .collect()
}

#[test]
fn perfect_path_delivers_at_once_and_in_order() {
    let (all, counters) = run(Path::default(), 100, 20, 0);
    assert_eq!(numbers(&all), (0..100).collect::<Vec<_>>());
    assert!(all.iter().all(|d| d.at == Instant::ZERO));
    assert_eq!(counters.delivered, 100);
    assert_eq!(counters.delivered_bytes, 2000);
    assert_eq!(counters.sent_bytes, 2000);
    assert_eq!(counters.lost(), 0);
}

#[test]
fn nothing_arrives_before_its_time() {
    let path = Path {
        delay: ms(40),
        ..Path::default()
    };
    let mut net = Net::new(1, path, Path::default());
    net.send(at(5), Direction::Up, client(), server(), b"x");
    net.send(at(5), Direction::Down, server(), client(), b"y");
    assert_eq!(net.next_arrival(), Some(at(5)));
    assert_eq!(net.poll(at(5)).unwrap().data, b"y");
    assert_eq!(net.next_arrival(), Some(at(45)));
    assert_eq!(net.poll(at(44)), None);
    let delivery = net.poll(at(60)).unwrap();
    assert_eq!(
        delivery,
        Delivery {
            at: at(45),
            direction: Direction::Up,
            from: client(),
            to: server(),
            data: b"x".to_vec()
        }
    );
    assert_eq!((net.next_arrival(), net.in_flight()), (None, 0));
}

#[test]
fn runs_are_cut_into_datagrams() {
    let mut net = Net::new(1, Path::default(), Path::default());
    net.send_run(at(0), Direction::Up, client(), server(), b"aaabbbcc", 3);
    net.send_run(at(0), Direction::Up, client(), server(), b"whole", 0);
    let data: Vec<_> = drain(&mut net).into_iter().map(|d| d.data).collect();
    assert_eq!(data, [&b"aaa"[..], b"bbb", b"cc", b"whole"]);
}

#[test]
fn random_loss_is_as_frequent_as_set() {
    let path = Path {
        loss: 0.1,
        ..Path::default()
    };
    let (all, counters) = run(path, 20_000, 10, 10);
    assert!((1850..2150).contains(&counters.lost_random));
    assert_eq!(all.len() as u64, 20_000 - counters.lost_random);
}

#[test]
fn bursts_are_as_long_and_as_frequent_as_set() {
    let path = Path {
        bursts: Some(Bursts {
            enter: 0.01,
            leave: 0.2,
            loss_good: 0.0,
            loss_bad: 1.0,
        }),
        ..Path::default()
    };
    let (all, counters) = run(path, 50_000, 10, 10);
    let share = counters.lost_burst as f64 / 50_000.0;
    assert!((0.042..0.054).contains(&share), "{share}");
    let numbers = numbers(&all);
    let gaps = numbers.windows(2).filter(|w| w[1] != w[0] + 1).count();
    let mean = counters.lost_burst as f64 / gaps as f64;
    assert!((4.4..5.6).contains(&mean), "{mean}");
}

#[test]
fn jitter_delays_within_its_range_and_keeps_order() {
    let path = Path {
        delay: ms(10),
        jitter: ms(20),
        ..Path::default()
    };
    let (all, _) = run(path, 1000, 10, 100_000);
    let delays: Vec<_> = all
        .iter()
        .zip(0..)
        .map(|(d, i)| d.at - Instant::from_micros(i * 100_000))
        .collect();
    assert!(delays.iter().all(|d| (ms(10)..=ms(30)).contains(d)));
    let mean = delays.iter().sum::<Duration>() / 1000;
    assert!((ms(19)..ms(21)).contains(&mean), "{mean:?}");

    let path = Path {
        jitter: ms(20),
        ..Path::default()
    };
    let (all, _) = run(path, 1000, 10, 100);
    assert_eq!(numbers(&all), (0..1000).collect::<Vec<_>>());
}

#[test]
fn held_back_datagrams_are_overtaken() {
    let path = Path {
        delay: ms(10),
        reordering: Some(Reordering {
            probability: 0.1,
            by: ms(5),
        }),
        ..Path::default()
    };
    let (all, counters) = run(path, 2000, 10, 1000);
    assert!((150..250).contains(&counters.reordered));
    let order = numbers(&all);
    let late = order.windows(2).filter(|w| w[1] < w[0]).count();
    assert!((80..=counters.reordered as usize).contains(&late), "{late}");
    let mut sorted = order;
    sorted.sort_unstable();
    assert_eq!(sorted, (0..2000).collect::<Vec<_>>());
}

#[test]
fn copies_arrive_right_behind() {
    let path = Path {
        duplication: 0.25,
        ..Path::default()
    };
    let (all, counters) = run(path, 1000, 10, 10);
    assert!((200..300).contains(&counters.duplicated));
    assert_eq!(all.len() as u64, 1000 + counters.duplicated);
    let pairs = all.windows(2).filter(|w| w[0] == w[1]).count();
    assert_eq!(pairs as u64, counters.duplicated);
}

#[test]
fn corruption_flips_few_bits_and_always_some() {
    let path = Path {
        corruption: 0.5,
        ..Path::default()
    };
    let mut net = Net::new(3, path, Path::default());
    for len in (1..=2).cycle().take(2000) {
        net.send(at(0), Direction::Up, client(), server(), &vec![0; len]);
    }
    let mut flipped = [0u32; 9];
    for delivery in drain(&mut net) {
        let bits: u32 = delivery.data.iter().map(|b| b.count_ones()).sum();
        flipped[bits as usize] += 1;
    }
    let damaged = flipped[1..].iter().sum::<u32>();
    assert_eq!(u64::from(damaged), net.counters(Direction::Up).corrupted);
    assert!((900..1100).contains(&damaged));
    assert!(flipped.iter().all(|n| *n > 50), "{flipped:?}");
}

#[test]
fn truncation_takes_at_least_a_byte() {
    let path = Path {
        truncation: 0.5,
        ..Path::default()
    };
    let mut net = Net::new(3, path, Path::default());
    for _ in 0..1000 {
        net.send(at(0), Direction::Up, client(), server(), b"abcd");
    }
    let mut lens = [0; 5];
    for delivery in drain(&mut net) {
        assert!(b"abcd".starts_with(&delivery.data));
        lens[delivery.data.len()] += 1;
    }
    let truncated = net.counters(Direction::Up).truncated;
    assert_eq!(lens[..4].iter().sum::<u64>(), truncated);
    assert!(lens.iter().all(|n| *n > 80), "{lens:?}");
}

#[test]
fn rate_limits_and_queue_drops() {
    // 1000 bytes on the wire at 8 Mbit/s: one per millisecond, ten in the queue.
    let path = Path {
        rate: Some(Rate {
            bits_per_second: 8_000_000,
            queue_bytes: 10_000,
        }),
        ..Path::default()
    };
    let (all, counters) = run(path.clone(), 100, 972, 0);
    let times: Vec<_> = all.iter().map(|d| d.at.as_millis()).collect();
    assert_eq!(times, (1..=10).collect::<Vec<_>>());
    assert_eq!(counters.lost_queue, 90);

    // Offered twice the rate for a second: half of it passes.
    let (all, _) = run(path.clone(), 2000, 972, 500);
    assert!((1000..=1011).contains(&all.len()), "{}", all.len());
    // Offered less: all of it, each with its own time on the wire.
    let (all, _) = run(path, 500, 972, 2000);
    assert!(
        all.iter()
            .zip(0..)
            .all(|(d, i)| d.at == Instant::from_millis(2 * i + 1))
    );
    assert_eq!(all.len(), 500);
}

#[test]
fn rate_is_exact_below_a_microsecond_per_datagram() {
    let path = Path {
        rate: Some(Rate {
            bits_per_second: 10_000_000_000,
            queue_bytes: 1 << 30,
        }),
        ..Path::default()
    };
    // 100 bytes on the wire take 80 ns.
    let (all, _) = run(path, 10_000, 72, 0);
    assert_eq!(all.last().unwrap().at, Instant::from_micros(800));
}

#[test]
fn queue_time_makes_a_queue_of_that_delay() {
    let rate = Rate::with_queue_time(20_000_000, ms(50));
    assert_eq!(rate.queue_bytes, 125_000);
    assert_eq!(Rate::with_queue_time(1000, ms(1)).queue_bytes, 1500);
    assert_eq!(Rate::with_queue_time(0, ms(1)).bits_per_second, 0);
}

#[test]
fn zero_rate_and_full_flight_let_nothing_pass() {
    let dead = Path {
        rate: Some(Rate {
            bits_per_second: 0,
            queue_bytes: 1000,
        }),
        ..Path::default()
    };
    assert_eq!(run(dead, 10, 10, 0).1.lost_queue, 10);
    let narrow = Path {
        delay: ms(1),
        duplication: 1.0,
        max_in_flight: 4,
        ..Path::default()
    };
    let (all, counters) = run(narrow, 10, 10, 0);
    assert_eq!((all.len(), counters.lost_queue), (4, 8));
}

#[test]
fn a_policer_passes_a_burst_and_then_its_rate() {
    // 1000 bytes on the wire at 8 Mbit/s: one per millisecond, ten in the bucket.
    let path = Path {
        policer: Some(Policer {
            bits_per_second: 8_000_000,
            burst_bytes: 10_000,
        }),
        ..Path::default()
    };
    // All at once: what the bucket holds, without a queue.
    let (all, counters) = run(path.clone(), 100, 972, 0);
    assert_eq!(numbers(&all), (0..10).collect::<Vec<_>>());
    assert!(all.iter().all(|d| d.at == Instant::ZERO));
    assert_eq!((counters.lost_policer, counters.lost()), (90, 90));
    // Offered twice the rate for a second: half of it passes, and nothing is late.
    let (all, _) = run(path.clone(), 2000, 972, 500);
    assert!((1000..=1010).contains(&all.len()), "{}", all.len());
    assert!(
        all.iter()
            .zip(numbers(&all))
            .all(|(d, i)| d.at == Instant::from_micros(u64::from(i) * 500))
    );
    // Offered the rate, or less: all of it.
    let (_, counters) = run(path.clone(), 500, 972, 1000);
    assert_eq!(counters.delivered, 500);
    // A pause fills the bucket, and not above its rim.
    let mut net = Net::new(1, path, Path::default());
    for now in [0, 5, 1000] {
        for _ in 0..50 {
            net.send(at(now), Direction::Up, client(), server(), &[0; 972]);
        }
    }
    let times: Vec<_> = drain(&mut net).iter().map(|d| d.at.as_millis()).collect();
    let passed = [0, 5, 1000].map(|t| times.iter().filter(|at| **at == t).count());
    assert_eq!(passed, [10, 5, 10]);
}

#[test]
fn a_policer_without_a_rate_or_with_too_small_a_bucket_lets_nothing_pass() {
    for (bits_per_second, burst_bytes) in [(0, 10_000), (8_000_000, 999)] {
        let path = Path {
            policer: Some(Policer {
                bits_per_second,
                burst_bytes,
            }),
            ..Path::default()
        };
        assert_eq!(run(path, 10, 972, 1000).1.lost_policer, 10);
    }
}

#[test]
fn mtu_swallows_what_is_too_large() {
    let path = Path {
        mtu: Some(100),
        ..Path::default()
    };
    assert_eq!(run(path.clone(), 10, 100, 0).1.delivered, 10);
    assert_eq!(run(path, 10, 101, 0).1.lost_mtu, 10);
}

#[test]
fn blackouts_begin_and_end() {
    let path = Path {
        delay: ms(50),
        blackouts: vec![at(10)..at(20), at(30)..at(31)],
        ..Path::default()
    };
    let (all, counters) = run(path, 40, 10, 1000);
    let expect: Vec<u32> = (0..10).chain(20..30).chain(31..40).collect();
    assert_eq!(numbers(&all), expect);
    assert_eq!(counters.lost_blackout, 11);
}

#[test]
fn address_change_shows_outside_and_closes_the_old_way_back() {
    let mut net = Net::new(1, Path::default(), Path::default());
    let host: IpAddr = "192.0.2.1".parse().unwrap();
    net.change_address(at(10), Direction::Up, Some(host));

    net.send(at(1), Direction::Up, client(), server(), b"a");
    assert_eq!(net.poll(at(1)).unwrap().from, client());
    net.send(at(2), Direction::Down, server(), client(), b"b");
    assert_eq!(net.poll(at(2)).unwrap().to, client());

    // Sent before the change, arrives after it.
    net.path_mut(Direction::Down).delay = ms(5);
    net.send(at(8), Direction::Down, server(), client(), b"c");
    assert_eq!(net.poll(at(20)), None);
    assert_eq!(net.counters(Direction::Down).lost_address, 1);

    net.send(at(21), Direction::Up, client(), server(), b"d");
    let seen = net.poll(at(21)).unwrap().from;
    assert_eq!(seen.ip(), host);
    net.send(at(22), Direction::Down, server(), seen, b"e");
    let delivery = net.poll(at(30)).unwrap();
    assert_eq!((delivery.to, delivery.from), (client(), server()));
    net.send(at(31), Direction::Down, server(), client(), b"f");
    assert_eq!(net.poll(at(40)), None);
}

#[test]
fn fate_of_one_setting_does_not_depend_on_another() {
    let lossy = Path {
        loss: 0.2,
        ..Path::default()
    };
    let stormy = Path {
        delay: ms(30),
        jitter: ms(10),
        corruption: 0.5,
        ..lossy.clone()
    };
    let (a, counters) = run(lossy, 500, 100, 50_000);
    let (b, _) = run(stormy, 500, 100, 50_000);
    assert!(counters.lost_random > 50);
    // The number may be corrupted, the time of sending cannot: 50 ms apart, delayed by at most 40.
    let sent =
        |all: &[Delivery]| -> Vec<u64> { all.iter().map(|d| d.at.as_millis() / 50).collect() };
    assert_eq!(sent(&a), sent(&b));
}

#[test]
fn buffers_are_reused() {
    let mut net = Net::new(1, Path::default(), Path::default());
    net.send(at(0), Direction::Up, client(), server(), &[1; 100]);
    let first = net.poll(at(0)).unwrap().data;
    let place = first.as_ptr();
    net.recycle(first);
    net.send(at(0), Direction::Up, client(), server(), &[2; 50]);
    let second = net.poll(at(0)).unwrap().data;
    assert_eq!((second.as_ptr(), &second[..]), (place, &[2; 50][..]));
}

prop_compose! {
    fn any_path()(
        delay in 0u64..50, jitter in 0u64..50, loss in 0.0..1.0f64,
        reordering in prop::option::of((0.0..1.0f64, 0u64..50)),
        bursts in prop::option::of((0.0..1.0f64, 0.0..1.0f64, 0.0..0.2f64, 0.0..1.0f64)),
        damage in (0.0..1.0f64, 0.0..1.0f64, 0.0..1.0f64),
        rate in prop::option::of((0u64..100_000_000, 0usize..100_000)),
        policer in prop::option::of((0u64..100_000_000, 0usize..100_000)),
        mtu in prop::option::of(0usize..300),
        blackout in (0u64..100, 0u64..100),
        max_in_flight in 0usize..100,
    ) -> Path {
        Path {
            delay: ms(delay),
            jitter: ms(jitter),
            loss,
            reordering: reordering.map(|(probability, by)| Reordering { probability, by: ms(by) }),
            bursts: bursts.map(|(enter, leave, loss_good, loss_bad)| Bursts { enter, leave, loss_good, loss_bad }),
            duplication: damage.0,
            corruption: damage.1,
            truncation: damage.2,
            rate: rate.map(|(bits_per_second, queue_bytes)| Rate { bits_per_second, queue_bytes }),
            policer: policer.map(|(bits_per_second, burst_bytes)| Policer { bits_per_second, burst_bytes }),
            mtu,
            blackouts: vec![at(blackout.0)..at(blackout.1)],
            max_in_flight,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Nothing is invented, nothing is forgotten, and the same seed gives the same again.
    #[test]
    fn accounts_balance_and_runs_repeat(
        up in any_path(),
        down in any_path(),
        change in 0u64..150,
        sends in prop::collection::vec((0u64..150, any::<bool>(), 0usize..300), 0..200),
    ) {
        let simulate = || {
            let mut net = Net::new(99, up.clone(), down.clone());
            net.change_address(at(change), Direction::Up, None);
            let mut got = Vec::new();
            for (time, upwards, len) in &sends {
                let data = vec![*len as u8; *len];
                if *upwards {
                    net.send(at(*time), Direction::Up, client(), server(), &data);
                } else {
                    net.send(at(*time), Direction::Down, server(), client(), &data);
                }
                got.extend(net.poll(at(*time)));
                for direction in [Direction::Up, Direction::Down] {
                    let c = net.counters(direction);
                    prop_assert!(c.delivered + c.lost() <= c.sent + c.duplicated);
                }
            }
            got.extend(drain(&mut net));
            let (up, down) = (*net.counters(Direction::Up), *net.counters(Direction::Down));
            for c in [up, down] {
                prop_assert_eq!(c.sent + c.duplicated, c.delivered + c.lost());
            }
            prop_assert_eq!(up.delivered + down.delivered, got.len() as u64);
            prop_assert!(got.is_sorted_by_key(|d| d.at));
            Ok((got, up, down))
        };
        prop_assert_eq!(simulate()?, simulate()?);
    }
}
