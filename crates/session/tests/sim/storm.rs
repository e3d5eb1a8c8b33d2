//! Everything at once, drawn from a seed: settings, links, loads, and what befalls them. Whatever it is, every byte
//! arrives, in order and once, or the stream is cut at both ends.

use std::net::IpAddr;

use fulmar_arq::Profile;
use fulmar_netem::{Bursts, Direction, Path as Link, Rate, Reordering, Rng};
use fulmar_session::endpoint::Event;
use fulmar_wire::kcptun::Method;

use crate::apps::{Expect, Pace, Pair, Program, Step, bulk, half_close, requests};
use crate::harness::{Sim, at, ms, secs, seeds};
use crate::setup::Options;

pub(crate) fn pick<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    let i = rng.below(of.len() as u64);
    of[usize::try_from(i).expect("small")]
}

fn options(rng: &mut Rng) -> (Options, Options) {
    let shapes = [
        None,
        Some((10, 3)),
        Some((1, 1)),
        Some((3, 2)),
        Some((20, 10)),
    ];
    let mut end = |server: bool| {
        let defaults = if server {
            Options::server()
        } else {
            Options::client()
        };
        Options {
            profile: pick(
                rng,
                &[
                    Profile::NORMAL,
                    Profile::FAST,
                    Profile::FAST2,
                    Profile::FAST3,
                ],
            ),
            fec: pick(rng, &shapes),
            smux: pick(rng, &[1, 2]),
            compression: rng.chance(0.4),
            mtu: pick(rng, &[300, 1000, 1350, 1500]),
            snd_wnd: pick(rng, &[32, 128, 1024]),
            rcv_wnd: pick(rng, &[64, 512, 1024]),
            ack_no_delay: rng.chance(0.2),
            stream_buffer: pick(rng, &[64 << 10, 2 << 20]),
            rate_limit: rng.chance(0.1).then_some(400_000),
            ..defaults
        }
    };
    let (client, server) = (end(false), end(true));
    let method = pick(rng, &Method::ALL);
    let qpp = rng.chance(0.2);
    if rng.chance(0.3) {
        let first = Options::first(false);
        let wire = first[rng.below(first.len() as u64) as usize].0.wire;
        let first = |end: Options| Options {
            wire,
            fec: None,
            ..end
        };
        return (first(client), first(server));
    }
    (
        Options {
            method,
            qpp,
            ..client
        },
        Options {
            method,
            qpp,
            auto: rng.chance(0.3),
            ..server
        },
    )
}

fn link(rng: &mut Rng, checked: bool) -> Link {
    let mut maybe = |chance: f64, most: f64| {
        if rng.chance(chance) {
            most * rng.below(1000) as f64 / 1000.0
        } else {
            0.0
        }
    };
    let loss = maybe(0.7, 0.25);
    let duplication = maybe(0.3, 0.2);
    // What has no checksum cannot notice damage.
    let [corruption, truncation] = [maybe(0.3, 0.05), maybe(0.2, 0.05)];
    let reordering = maybe(0.4, 0.3);
    Link {
        delay: ms(pick(rng, &[1, 10, 40, 120])),
        jitter: ms(pick(rng, &[0, 0, 5, 30])),
        loss,
        duplication,
        corruption: if checked { corruption } else { 0.0 },
        truncation: if checked { truncation } else { 0.0 },
        reordering: (reordering > 0.0).then_some(Reordering {
            probability: reordering,
            by: ms(60),
        }),
        bursts: rng.chance(0.2).then_some(Bursts {
            enter: 0.01,
            leave: 0.2,
            loss_good: 0.0,
            loss_bad: 0.8,
        }),
        rate: rng
            .chance(0.2)
            .then(|| Rate::with_queue_time(20_000_000, ms(250))),
        ..Link::default()
    }
}

/// What two applications do, and how slowly one of them reads.
fn load(rng: &mut Rng, start: fulmar_wire::time::Instant) -> Pair {
    let most = pick(rng, &[0, 100, 10_000, 150_000]);
    let [up, down] = [(); 2].map(|()| rng.below(most + 1));
    let (mut ours, mut theirs) = match rng.below(5) {
        0 | 1 => bulk(up, down),
        2 => half_close(up, down, ms(rng.below(500))),
        3 => requests(
            1 + rng.below(12),
            1 + rng.below(300),
            1 + rng.below(3000),
            ms(rng.below(60)),
        ),
        _ => {
            let wait = Step::Wait(ms(rng.below(400)));
            let cut = Program::new(Expect::Cut, [Step::Write(up), wait, Step::Reset]);
            let other = Program::new(Expect::Cut, [Step::Write(down), Step::ReadEnd]);
            if rng.chance(0.5) {
                (cut, other)
            } else {
                (other, cut)
            }
        }
    };
    for program in [&mut ours, &mut theirs] {
        if rng.chance(0.15) {
            program.pace = Some(Pace {
                from: start + ms(rng.below(1500)),
                bytes: 4000,
                every: ms(10),
            });
        }
    }
    (ours, theirs)
}

fn storm(seed: u64) {
    let rng = &mut Rng::new(seed ^ 0x5707_0000);
    let (mut client, mut server) = options(rng);
    // Some ends measure. This draws nothing, so the storms of other seeds are what they were.
    if matches!(seed % 8, 1 | 3) {
        client = client.measuring();
    }
    if matches!(seed % 8, 2 | 3) {
        server = server.measuring();
    }
    let checked = client.method != Method::Null;
    let keyed = checked && !matches!(client.method, Method::None | Method::Xor);
    let [up, down] = [(); 2].map(|()| link(rng, checked));
    let mut sim = Sim::empty("storm", seed, up, down, &server);
    // Also where the clocks on the wire are about to wrap.
    sim.now = pick(rng, &[at(5000), at((1 << 31) - 700), at((1 << 32) - 700)]);
    sim.add_client(&client);
    let streams = 1 + rng.below(12);
    let mut opened = 0;
    let mut misfortunes = 0;
    while opened < streams || misfortunes < 4 {
        if opened < streams {
            let pair = load(rng, sim.now);
            sim.open(pair);
            opened += 1;
        }
        if misfortunes < 4 && rng.chance(0.4) {
            misfortunes += 1;
            let now = sim.now;
            match rng.below(5) {
                0 if keyed => {
                    let host: Option<IpAddr> =
                        rng.chance(0.5).then(|| [198, 51, 100, misfortunes].into());
                    sim.net.change_address(now, Direction::Up, host);
                }
                1 => {
                    for direction in [Direction::Up, Direction::Down] {
                        let window = now..now + ms(rng.below(4000));
                        sim.net.path_mut(direction).blackouts.push(window);
                    }
                }
                2 => {
                    let direction = pick(rng, &[Direction::Up, Direction::Down]);
                    let window = now..now + ms(rng.below(3000));
                    sim.net.path_mut(direction).blackouts.push(window);
                }
                3 => sim.server.sends_from = Some(([10, 7, 7, 7], 1000).into()),
                _ => {
                    let mut noise = vec![0; 1 + usize::try_from(rng.below(1500)).expect("small")];
                    rng.fill(&mut noise);
                    let from = sim.client().addr;
                    sim.inject(from, &noise);
                }
            }
        }
        sim.run_for(ms(rng.below(300)));
    }
    sim.finish(secs(150));
    // Then all is quiet. Whoever was left waiting hears at least the keep-alives.
    sim.run_for(secs(25));
    for host in [sim.client(), &sim.server] {
        let closed = |e: &Event| matches!(e, Event::Closed(..));
        assert_eq!(host.times_of(closed), [], "{}", sim.report());
        assert_eq!(host.endpoint.sessions().count(), 1);
    }
    let trusted = |sim: &Sim| {
        [sim.client(), &sim.server].into_iter().all(|host| {
            let mut sessions = host.endpoint.sessions();
            sessions.all(|key| host.endpoint.session(key).is_some_and(|s| !s.is_suspect()))
        })
    };
    let patience = sim.now + secs(60);
    assert!(sim.run_until(patience, trusted), "{}", sim.report());
    sim.assert_quiet_minute();
}

#[test]
fn storms() {
    for seed in seeds(60) {
        storm(seed);
    }
}
