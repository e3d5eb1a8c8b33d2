//! What a sender that measures (`--mode auto`) never does, whatever the path: lose or repeat bytes, overrun the other side's
//! window, spend more on redundancy than its budget, stop while the path delivers, or work on when there is nothing to do.
//!
//! Histories are drawn from a seed: settings, links, streams and misfortunes. Half of them have such a sender at both
//! ends, the others a classic one at one end.

use std::time::Duration;

use fulmar_netem::{Bursts, Direction, Path as Link, Rate, Reordering, Rng};
use fulmar_session::endpoint::Event;
use fulmar_session::measuring;
use fulmar_session::redundancy::BURST;
use fulmar_wire::kcptun::Method;
use fulmar_wire::seq::Seq;
use fulmar_wire::time::Instant;

use crate::apps::{Pace, Pair, bulk, half_close, requests};
use crate::harness::{Host, Sim, at, ms, secs, seeds};
use crate::setup::Options;
use crate::storm::pick;

/// Time without a byte, beside ten round trips, that counts as a stall.
const STALL: Duration = Duration::from_secs(3);

/// Which ends measure.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Ends {
    Both,
    Client,
    Server,
}

/// One end in mode auto, with some of the settings that this mode leaves to its user.
fn measures(rng: &mut Rng, defaults: &Options) -> Options {
    let mut end = Options {
        mtu: pick(rng, &[600, 1350, 1350, 1472]),
        ..defaults.clone()
    }
    .measuring();
    end.sender = Some(measuring::Settings {
        redundancy: pick(rng, &[0, 10, 25, 25]),
        parity: true,
        mtu: end.mtu,
        known: 0,
    });
    if rng.chance(0.15) {
        // Parity of a fixed shape, as the operator may want.
        end.fec = Some((10, 3));
        end.sender = end
            .sender
            .map(|s| measuring::Settings { parity: false, ..s });
    }
    if rng.chance(0.3) {
        // A peer with little memory.
        end.rcv_wnd = pick(rng, &[32, 256]);
        end.stream_buffer = 64 << 10;
    }
    if rng.chance(0.1) {
        end.rate_limit = Some(400_000);
    }
    end
}

fn options(rng: &mut Rng, ends: Ends) -> (Options, Options) {
    let both = Options {
        method: pick(rng, &[Method::Aes, Method::Aes128Gcm, Method::Salsa20]),
        smux: pick(rng, &[1, 2, 2]),
        compression: rng.chance(0.3),
        ..Options::client()
    };
    let (client, server) = (
        both.clone(),
        Options {
            snd_wnd: 1024,
            rcv_wnd: 1024,
            ..both
        },
    );
    let client = match ends {
        Ends::Server => client,
        Ends::Both | Ends::Client => measures(rng, &client),
    };
    let server = match ends {
        Ends::Client => server,
        Ends::Both | Ends::Server => measures(rng, &server),
    };
    if rng.chance(0.3) {
        let wire = Options::first(false)[rng.below(4) as usize].0.wire;
        let first = |end: Options| Options {
            wire,
            fec: None,
            sender: end
                .sender
                .map(|s| measuring::Settings { parity: false, ..s }),
            ..end
        };
        return (first(client), first(server));
    }
    (client, server)
}

fn up_to(rng: &mut Rng, chance: f64, most: f64) -> f64 {
    if rng.chance(chance) {
        most * rng.below(1000) as f64 / 1000.0
    } else {
        0.0
    }
}

/// The rates of links. A classic sender does not notice how little a link takes; what it does to one is another test's matter.
fn rate(rng: &mut Rng, ends: Ends) -> Option<Rate> {
    let rates: &[u64] = match ends {
        Ends::Both => &[0, 0, 1, 4, 20, 100],
        Ends::Client | Ends::Server => &[0, 50],
    };
    let queue = pick(rng, &[20, 100, 300]);
    match pick(rng, rates) {
        0 => None,
        mbit => Some(Rate::with_queue_time(mbit * 1_000_000, ms(queue))),
    }
}

fn link(rng: &mut Rng, ends: Ends) -> Link {
    let reordering = up_to(rng, 0.4, 0.3);
    Link {
        delay: ms(pick(rng, &[1, 10, 40, 150])),
        jitter: ms(pick(rng, &[0, 0, 5, 30])),
        loss: up_to(rng, 0.7, 0.25),
        duplication: up_to(rng, 0.3, 0.2),
        corruption: up_to(rng, 0.3, 0.05),
        truncation: up_to(rng, 0.2, 0.05),
        reordering: (reordering > 0.0).then_some(Reordering {
            probability: reordering,
            by: ms(60),
        }),
        bursts: rng.chance(0.3).then_some(Bursts {
            enter: 0.013,
            leave: 0.25,
            loss_good: 0.0,
            loss_bad: 1.0,
        }),
        rate: rate(rng, ends),
        ..Link::default()
    }
}

fn load(rng: &mut Rng, start: Instant) -> Pair {
    let most = pick(rng, &[100, 20_000, 300_000, 1_000_000]);
    let [up, down] = [(); 2].map(|()| rng.below(most + 1));
    let (mut ours, theirs) = match rng.below(4) {
        0 | 1 => bulk(up, down),
        2 => half_close(up.min(200_000), down, ms(rng.below(500))),
        _ => requests(
            1 + rng.below(100),
            1 + rng.below(300),
            1 + rng.below(3000),
            ms(rng.below(60)),
        ),
    };
    if rng.chance(0.15) {
        ours.pace = Some(Pace {
            from: start,
            bytes: 4000,
            every: ms(10),
        });
    }
    (ours, theirs)
}

/// Watches both ends after each event.
struct Watch {
    ends: Ends,
    /// Of the client and of the server: the newest segment number.
    sent: [Option<Seq>; 2],
    /// What the client's and the server's applications have read, and since when they wait for more.
    read: [u64; 2],
    since: [Instant; 2],
    /// What was sent down to an address that the client no longer has.
    astray: u64,
    /// The longest round trip that the links of the history make, queues included.
    round_trip: Duration,
}

impl Watch {
    fn new(sim: &Sim, ends: Ends) -> Self {
        let mut it = Self {
            ends,
            sent: [None; 2],
            read: [0; 2],
            since: [sim.now; 2],
            astray: 0,
            round_trip: Duration::ZERO,
        };
        it.links_changed(sim);
        it
    }

    fn links_changed(&mut self, sim: &Sim) {
        let one_way = |direction| {
            let path = sim.net.path(direction);
            let queue = path.rate.map_or(0.0, |r| {
                8.0 * r.queue_bytes as f64 / r.bits_per_second as f64
            });
            path.delay + path.jitter + Duration::from_secs_f64(queue)
        };
        let round_trip = one_way(Direction::Up) + one_way(Direction::Down);
        self.round_trip = self.round_trip.max(round_trip);
    }

    /// Nothing arrives before `until`, and nobody is to blame.
    fn excuse(&mut self, until: Instant) {
        self.since = self.since.map(|since| since.max(until));
    }

    fn look(&mut self, sim: &Sim) {
        let hosts = [sim.client(), &sim.server];
        for (host, sent) in hosts.iter().zip(&mut self.sent) {
            windows(host, sent, sim);
        }
        // Until the client says something, nobody can know where it is.
        let astray = sim.net.counters(Direction::Down).lost_address;
        if std::mem::replace(&mut self.astray, astray) != astray {
            self.excuse(sim.now);
        }
        let wrote = hosts.map(|h| h.apps.iter().map(|(_, a)| a.wrote).sum::<u64>());
        for (i, sender) in [(0, Ends::Server), (1, Ends::Client)] {
            let read = hosts[i].apps.read;
            let waits = wrote[1 - i] > read;
            if !waits || read > self.read[i] {
                self.since[i] = self.since[i].max(sim.now);
            }
            self.read[i] = read;
            let measured = self.ends == Ends::Both || self.ends == sender;
            let bound = STALL + self.round_trip * 10;
            let stalled = measured && sim.now.since(self.since[i]) > bound;
            assert!(
                !stalled,
                "{} waits since {:?}, more than {bound:?}: {}",
                ["client", "server"][i],
                self.since[i],
                sim.report()
            );
        }
    }
}

/// New segments leave only within the window of the other side: a window may close over what is on its way already.
fn windows(host: &Host, sent: &mut Option<Seq>, sim: &Sim) {
    let key = host.endpoint.sessions().next();
    let Some(kcp) = key
        .and_then(|key| host.endpoint.session(key))
        .map(fulmar_session::session::Session::kcp)
    else {
        return;
    };
    let out = kcp.snd_nxt().diff(kcp.snd_una());
    if sent.replace(kcp.snd_nxt()) != Some(kcp.snd_nxt()) {
        let window = kcp.remote_window();
        assert!(
            i64::from(out) <= i64::from(window),
            "{out} segments out, the window is {window}: {}",
            sim.report()
        );
    }
}

/// Parity stays within its percentage and the first burst, copies within their number.
fn budget(host: &Host, options: &Options, sim: &Sim) {
    let Some(settings) = options.sender else {
        return;
    };
    let c = host.endpoint.counters();
    let share = u64::from(settings.redundancy) * c.auto_own_bytes / 100;
    let burst = if settings.redundancy == 0 { 0 } else { BURST };
    assert!(
        !settings.parity || c.auto_parity_bytes <= share + burst,
        "{} of parity for {}: {}",
        c.auto_parity_bytes,
        c.auto_own_bytes,
        sim.report()
    );
    assert!(
        c.auto_copy_bytes <= 4 * c.auto_own_bytes,
        "{}",
        sim.report()
    );
    if settings.redundancy == 0 {
        assert_eq!(c.auto_copy_bytes, 0, "{}", sim.report());
    }
}

/// Something befalls the link, or the client's address.
fn misfortune(rng: &mut Rng, sim: &mut Sim, watch: &mut Watch) {
    let now = sim.now;
    let direction = pick(rng, &[Direction::Up, Direction::Down]);
    match rng.below(7) {
        0 => {
            for direction in [Direction::Up, Direction::Down] {
                let window = now..now + ms(rng.below(4000));
                watch.excuse(window.end);
                sim.net.path_mut(direction).blackouts.push(window);
            }
        }
        1 => {
            let window = now..now + ms(rng.below(3000));
            watch.excuse(window.end);
            sim.net.path_mut(direction).blackouts.push(window);
        }
        2 => {
            let host = rng.chance(0.5).then(|| [198, 51, 100, 7].into());
            sim.net.change_address(now, Direction::Up, host);
        }
        3 => sim.net.path_mut(direction).rate = rate(rng, watch.ends),
        4 => sim.net.path_mut(direction).delay = ms(pick(rng, &[1, 20, 80, 200])),
        5 => sim.net.path_mut(direction).loss = up_to(rng, 0.7, 0.3),
        _ => *sim.net.path_mut(direction) = link(rng, watch.ends),
    }
    watch.links_changed(sim);
}

fn history(seed: u64, ends: Ends) {
    let rng = &mut Rng::new(seed ^ 0xa070_0000);
    let (client, server) = options(rng, ends);
    let [up, down] = [(); 2].map(|()| link(rng, ends));
    let mut sim = Sim::empty("history", seed, up, down, &server);
    // Also where the clocks on the wire are about to wrap.
    sim.now = pick(rng, &[at(5000), at((1 << 31) - 700), at((1 << 32) - 700)]);
    sim.add_client(&client);
    let mut watch = Watch::new(&sim, ends);
    let streams = 1 + rng.below(6);
    let (mut opened, mut misfortunes) = (0, 0);
    while opened < streams || misfortunes < 6 {
        if opened < streams && rng.chance(0.7) {
            let pair = load(rng, sim.now);
            sim.open(pair);
            opened += 1;
        }
        if misfortunes < 6 && rng.chance(0.5) {
            misfortunes += 1;
            misfortune(rng, &mut sim, &mut watch);
        }
        let end = sim.now + ms(rng.below(1000));
        run(&mut sim, end, &mut watch, |_| false);
        sim.now = sim.now.max(end);
    }
    let limit = sim.now + secs(150);
    let done = |sim: &Sim| sim.client().apps.open == 0;
    assert!(run(&mut sim, limit, &mut watch, done), "{}", sim.report());
    sim.finish(secs(30));
    let ends = [(sim.client(), &client), (&sim.server, &server)];
    for (host, options) in ends {
        budget(host, options, &sim);
        let closed = |e: &Event| matches!(e, Event::Closed(..));
        assert_eq!(host.times_of(closed), [], "{}", sim.report());
        assert_eq!(host.endpoint.sessions().count(), 1);
    }
    rests(&mut sim);
}

fn run(sim: &mut Sim, end: Instant, watch: &mut Watch, found: impl Fn(&Sim) -> bool) -> bool {
    let watch = std::cell::RefCell::new(watch);
    sim.run_until(end, |sim| {
        watch.borrow_mut().look(sim);
        found(sim)
    })
}

/// Then all is quiet: nothing is out, and hardly a timer fires.
fn rests(sim: &mut Sim) {
    sim.run_for(secs(25));
    let idle = |sim: &Sim| {
        [sim.client(), &sim.server].into_iter().all(|host| {
            let mut sessions = host.endpoint.sessions();
            sessions.all(|key| {
                let session = host.endpoint.session(key);
                session.is_some_and(|s| s.kcp().is_idle() && !s.is_suspect())
            })
        })
    };
    let patience = sim.now + secs(60);
    assert!(sim.run_until(patience, idle), "{}", sim.report());
    sim.assert_quiet_minute();
}

#[test]
fn histories_of_two_measuring_ends() {
    for seed in seeds(40) {
        history(seed, Ends::Both);
    }
}

/// A blackout took the first flight, so all that was known of the path was what a greeting had needed; the flight that was sent again was more
/// than a queue of two packets held, and what was left at the rate of the greeting: 4 s without progress.
#[test]
fn a_greeting_is_no_measure_of_the_path_when_the_first_flight_was_lost() {
    history(257, Ends::Both);
}

#[test]
fn histories_of_a_measuring_and_a_classic_end() {
    for seed in seeds(40) {
        history(seed, [Ends::Client, Ends::Server][seed as usize % 2]);
    }
}

/// What little an application had to say in between is not taken for what the path carries.
#[test]
fn a_transfer_after_requests_is_as_fast_as_the_one_before() {
    for seed in seeds(1) {
        for (loss, requested, gap) in [(0.0, 10, 20), (0.0, 20, 200), (0.01, 20, 1000)] {
            let path = Link {
                rate: Some(Rate::with_queue_time(50_000_000, ms(100))),
                ..crate::harness::link(20, loss)
            };
            let ends = (
                &Options::client().measuring(),
                &Options::server().measuring(),
            );
            let mut sim = Sim::new("in between", seed, path.clone(), path, ends);
            sim.open(bulk(100, 10_000_000));
            let first = sim.finish(secs(60));
            sim.open(requests(requested, 100, 100, ms(gap)));
            sim.finish(secs(60));
            sim.open(bulk(100, 10_000_000));
            let second = sim.finish(secs(60));
            assert!(
                second <= first + ms(200),
                "{first:?}, then {second:?} after {requested} requests {gap} ms apart"
            );
        }
    }
}
