//! Members: they have the key, as every other user of the service, and lie. A server that lies to its client is one too.
//!
//! A liar is an honest end whose datagrams are opened on the path, changed and sealed again. So each lie is told in the middle of a
//! conversation that is sound otherwise, in every dialect.

use std::net::SocketAddr;

use fulmar_cipher::PacketCipher;
use fulmar_netem::Direction;
use fulmar_wire::kcp::{Format, HEADER_LEN, Header};
use fulmar_wire::seq::Seq;
use fulmar_wire::time::{Instant, Millis};

use super::history::scene;
use super::invariants::{MAX_STALL, assert_bounded};
use super::observer::{Attack, Fate, Hand, Seen};
use super::setups::{Setup, setups};
use crate::apps::{Expect, Pace, Program, Step, bulk, requests};
use crate::harness::{Host, Sim, link, ms, secs, seeds, stranger};
use crate::raw::{open, seal};
use crate::storm::pick;

/// What a lie is about.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Lie {
    Number,
    Acknowledged,
    Window,
    /// It has no room, ever.
    Closed,
    Fragment,
    Time,
    Length,
    Command,
    /// Every bit of a header may be another.
    Header,
    /// Bytes of what is carried.
    Payload,
    /// What is carried is a frame out of the table instead.
    Frame,
}

/// What bytes 4 and 5 of a datagram with data are where there is parity.
const SHARD: [u8; 2] = [0xf1, 0];

/// Changes what an end sends.
struct Liar {
    cipher: Box<dyn PacketCipher>,
    format: Format,
    frames: Vec<Vec<u8>>,
    direction: Direction,
    lie: Lie,
    /// Of how many datagrams.
    share: f64,
    /// How many are true in the beginning.
    honest: usize,
}

impl std::fmt::Debug for Liar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Liar({:?})", self.lie)
    }
}

/// Numbers around a true one and far from it.
fn near(hand: &mut Hand, n: u32) -> u32 {
    let by = pick(&mut hand.rng, &[1, 2, 100, 70_000, 1 << 31]);
    match hand.rng.below(5) {
        0 => 0,
        1 => u32::MAX,
        2 => n.wrapping_sub(by),
        _ => n.wrapping_add(by),
    }
}

impl Liar {
    /// The segments of a body, changed.
    fn lies(&self, body: &[u8], hand: &mut Hand) -> Vec<u8> {
        // A shard has a header of its own, which says how long it is.
        let shard = if body.get(4..6) == Some(&SHARD) { 8 } else { 0 };
        let (head, mut rest) = body.split_at(shard);
        let mut out = head.to_vec();
        while let Ok(view) = self.format.view(rest)
            && let Ok((mut header, data, behind)) = view.parse()
        {
            let mut data = data.to_vec();
            self.tell(&mut header, &mut data, hand);
            let mut bytes = self.format.emit(&header);
            if self.lie == Lie::Command {
                bytes[4] = hand.rng.bits() as u8;
            } else if self.lie == Lie::Header {
                let at = 4 + hand.rng.below(HEADER_LEN as u64 - 4) as usize;
                bytes[at] = hand.rng.bits() as u8;
            }
            out.extend_from_slice(&bytes);
            out.extend_from_slice(&data);
            rest = behind;
        }
        out.extend_from_slice(rest);
        if shard > 0 {
            let size = (out.len() - shard + 2) as u16;
            out[6..8].copy_from_slice(&size.to_le_bytes());
        }
        out
    }

    fn tell(&self, header: &mut Header, data: &mut Vec<u8>, hand: &mut Hand) {
        match self.lie {
            Lie::Number => header.sn = Seq(near(hand, header.sn.0)),
            Lie::Acknowledged => header.una = Seq(near(hand, header.una.0)),
            Lie::Window => header.wnd = pick(&mut hand.rng, &[0, 1, u16::MAX]),
            Lie::Closed => header.wnd = 0,
            Lie::Fragment => header.frg = hand.rng.bits() as u8,
            Lie::Time => header.ts = Millis(near(hand, header.ts.0)),
            Lie::Length => header.len = near(hand, header.len),
            Lie::Payload => {
                for _ in 0..1 + hand.rng.below(3) {
                    if !data.is_empty() {
                        let at = hand.rng.below(data.len().min(20) as u64) as usize;
                        data[at] = pick(&mut hand.rng, &[0, 1, 2, 3, 4, 127, 255]);
                    }
                }
            }
            Lie::Frame => {
                if !data.is_empty() {
                    let frame = hand.rng.below(self.frames.len() as u64) as usize;
                    data.clone_from(&self.frames[frame]);
                    header.len = data.len() as u32;
                }
            }
            Lie::Command | Lie::Header => {}
        }
    }
}

impl Attack for Liar {
    fn sees(&mut self, seen: &Seen<'_>, hand: &mut Hand) -> Fate {
        let theirs: SocketAddr = match self.direction {
            Direction::Up => seen.from,
            Direction::Down => seen.to,
        };
        if seen.direction != self.direction || theirs != hand.client {
            return Fate::Passes;
        }
        if self.honest > 0 {
            self.honest -= 1;
            return Fate::Passes;
        }
        if !hand.rng.chance(self.share) {
            return Fate::Passes;
        }
        let body = open(&mut *self.cipher, seen.data).expect("it has the key");
        let body = self.lies(&body, hand);
        Fate::Becomes(seal(&mut *self.cipher, &body))
    }
}

/// Most bytes that one session may hold for its windows, whatever is said to it: the largest that these settings allow.
const MOST_HELD: usize = 4 << 20;

fn assert_small(host: &Host, what: &str) {
    for key in host.endpoint.sessions() {
        let session = host.endpoint.session(key).expect("it is there");
        let held = session.kcp().held_bytes();
        assert!(held <= MOST_HELD, "{what}: {held} bytes");
    }
}

/// An honest client beside the first one, with something to do.
fn add_neighbour(sim: &mut Sim, setup: &Setup, measuring: bool) -> usize {
    let (client, _) = setup.ends(measuring);
    let neighbour = sim.add_client(&client);
    for load in [bulk(20_000, 20_000), requests(5, 100, 300, ms(20))] {
        sim.open_on(neighbour, load);
    }
    neighbour
}

/// It gets all that it asked for, and does not wait.
fn assert_served(sim: &mut Sim, neighbour: usize, what: &str) {
    let done = |sim: &Sim| sim.clients[neighbour].host.apps.open == 0;
    let end = sim.now + secs(20);
    assert!(sim.run_until(end, done), "{what}: the neighbour waits");
    for (_, app) in sim.clients[neighbour].host.apps.iter() {
        assert_eq!(app.complaint(), None, "{what}");
        assert!(app.longest_gap < MAX_STALL, "{what}: {:?}", app.longest_gap);
    }
}

/// A liar and its server, or a lying server and its client, and an honest client beside them.
fn under(lie: Lie, direction: Direction) {
    for seed in seeds(1) {
        for (i, setup) in setups().iter().enumerate() {
            for measuring in [false, true] {
                // From the first datagram on, or in the middle.
                let honest = if (i % 2 == 0) == measuring { 5 } else { 0 };
                let what = format!("{} {lie:?} {direction:?} {honest}", setup.name);
                let mut sim = liar(seed, setup, measuring, (lie, direction, honest));
                let neighbour = add_neighbour(&mut sim, setup, measuring);
                assert_served(&mut sim, neighbour, &what);
                sim.run_for(secs(3));
                for host in sim.servers().chain(sim.clients.iter().map(|c| &c.host)) {
                    assert_small(host, &what);
                }
                let observer = sim.observer.as_ref().expect("it is there");
                assert!(observer.changed > 0, "{what}: nobody lied");
            }
        }
    }
}

fn liar(
    seed: u64,
    setup: &Setup,
    measuring: bool,
    (lie, direction, honest): (Lie, Direction, usize),
) -> Sim {
    let ends = setup.ends(measuring);
    let mut sim = scene("liar", seed, setup, &ends, link(10, 0.0));
    for (ours, theirs) in [bulk(60_000, 60_000), requests(9, 100, 300, ms(20))] {
        sim.open((ours.tolerant(), theirs.tolerant()));
    }
    let observer = sim.observer.as_mut().expect("it is there");
    observer.begin(Liar {
        cipher: setup.cipher(77),
        format: setup.format,
        frames: (setup.frames)(),
        direction,
        lie,
        share: 0.5,
        honest,
    });
    sim
}

/// Takes everything that comes from there off the path, from then on.
#[derive(Debug)]
struct Silence {
    of: SocketAddr,
    from: Instant,
}

impl Attack for Silence {
    fn sees(&mut self, seen: &Seen<'_>, hand: &mut Hand) -> Fate {
        if seen.from == self.of && hand.now >= self.from {
            Fate::Taken
        } else {
            Fate::Passes
        }
    }
}

/// It asks for a lot and says no more: nobody knows whether it is there at all.
#[test]
fn a_member_that_falls_silent_draws_little() {
    for seed in seeds(1) {
        for setup in setups() {
            for measuring in [false, true] {
                let ends = setup.ends(measuring);
                let mut sim = scene("silent", seed, &setup, &ends, link(10, 0.0));
                let of = stranger(99);
                let silent = sim.add_client_at(of, &ends.0);
                // Before anything can have come back.
                let from = sim.now + ms(19);
                let observer = sim.observer.as_mut().expect("it is there");
                observer.begin(Silence { of, from });
                let (ours, theirs) = bulk(100, 3_000_000);
                sim.open_on(silent, (ours.tolerant(), theirs.tolerant()));
                let neighbour = add_neighbour(&mut sim, &setup, measuring);
                assert_served(&mut sim, neighbour, &setup.name);
                sim.run_for(secs(60));
                assert_bounded(&sim, &setup.name);
            }
        }
    }
}

/// It acknowledges and takes nothing in.
#[test]
fn a_member_that_never_reads_hurts_nobody_else() {
    for seed in seeds(1) {
        for setup in setups() {
            for measuring in [false, true] {
                let ends = setup.ends(measuring);
                let mut sim = scene("never", seed, &setup, &ends, link(10, 0.0));
                let pace = Pace {
                    from: sim.now + secs(365 * 86_400),
                    bytes: 1,
                    every: secs(1),
                };
                for _ in 0..20 {
                    let asks = Program::new(Expect::Anything, [Step::Write(100), Step::ReadEnd]);
                    let talks = Program::new(Expect::Anything, [Step::Write(1 << 30)]);
                    sim.open((asks.paced(pace), talks));
                }
                let neighbour = add_neighbour(&mut sim, &setup, measuring);
                assert_served(&mut sim, neighbour, &setup.name);
            }
        }
    }
}

/// One test for each lie, told by a client and by a server.
macro_rules! lies {
    ($($name:ident: $lie:ident,)*) => {
        $(
            #[test]
            fn $name() {
                under(Lie::$lie, Direction::Up);
                under(Lie::$lie, Direction::Down);
            }
        )*
    };
}

lies! {
    lies_about_numbers_hurt_nobody_else: Number,
    lies_about_what_has_arrived_hurt_nobody_else: Acknowledged,
    lies_about_windows_hurt_nobody_else: Window,
    a_window_that_stays_closed_hurts_nobody_else: Closed,
    lies_about_fragments_hurt_nobody_else: Fragment,
    lies_about_time_hurt_nobody_else: Time,
    lies_about_lengths_hurt_nobody_else: Length,
    lies_about_commands_hurt_nobody_else: Command,
    lies_anywhere_in_headers_hurt_nobody_else: Header,
    lies_in_payloads_hurt_nobody_else: Payload,
    lies_in_frames_hurt_nobody_else: Frame,
}
