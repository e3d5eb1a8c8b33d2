//! What flipping bits can still do where packets are not authenticated, done: the CRC of kcptun's packets is linear, and a flipped bit
//! of ciphertext passes through some modes as it is. docs/design/security.md has the list, by cipher.

use std::net::SocketAddr;

use fulmar_netem::{Direction, Rng};
use fulmar_session::session::Reason;
use fulmar_wire::kcp::{Command, Header};
use fulmar_wire::kcptun::CRC_HEADER_LEN;
use fulmar_wire::seq::Seq;
use fulmar_wire::time::Millis;

use super::history::scene;
use super::invariants::ends_of;
use super::observer::{Attack, Fate, Hand, Seen};
use super::setups::{Class, Flips, Setup, of_class, setups};
use crate::apps::{Expect, Program, Step, bulk};
use crate::harness::{Sim, link, ms, secs, seeds, stranger};
use crate::raw::{open, seal};

/// Where the CRC is.
const CRC: usize = CRC_HEADER_LEN - 4;
/// Bytes before they are sealed: of a lone acknowledgement, the same with a header for parity, two, and some payload.
const BODIES: [usize; 4] = [24, 32, 48, 250];

/// CRC-32 of IEEE 802.3, bit by bit.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 }
        })
    })
}

/// By how much the CRC is wrong when a datagram is changed by `mask`: a sum of what each of its bits does.
fn error(mask: &[u8]) -> u32 {
    let body = &mask[CRC_HEADER_LEN..];
    let stored = u32::from_le_bytes(mask[CRC..CRC_HEADER_LEN].try_into().expect("4 bytes"));
    crc(body) ^ crc(&vec![0; body.len()]) ^ stored
}

/// Bits of a datagram of `len` bytes that an outsider can flip in the clear text without another change.
fn reachable(flips: Flips, len: usize) -> std::ops::Range<usize> {
    match flips {
        Flips::None => 0..0,
        Flips::LastBlock(block) => 8 * ((len - 1) / block * block)..8 * len,
        Flips::Stream => 8 * 8..8 * len,
    }
}

fn flip(mask: &mut [u8], bit: usize) {
    mask[bit / 8] ^= 1 << (bit % 8);
}

/// Masks that leave the CRC right: each of their sums does too. By elimination: a bit whose error is a sum of those of
/// others makes a mask with them.
struct Masks {
    len: usize,
    /// By the highest bit of its error: a mask and the error.
    pivots: Vec<Option<(Vec<u8>, u32)>>,
    basis: Vec<Vec<u8>>,
}

impl Masks {
    /// Of those bits of a datagram of `len` bytes. The first ones are taken to make up for the others.
    fn new(len: usize, bits: impl Iterator<Item = usize>) -> Self {
        let mut masks = Self {
            len,
            pivots: vec![None; 32],
            basis: Vec::new(),
        };
        for bit in bits {
            let mut mask = vec![0; len];
            flip(&mut mask, bit);
            let (mask, left) = masks.reduce(mask);
            match left {
                0 => masks.basis.push(mask),
                left => masks.pivots[left.ilog2() as usize] = Some((mask, left)),
            }
        }
        masks
    }

    /// Adds others to a mask until its error is as small as can be.
    fn reduce(&self, mask: Vec<u8>) -> (Vec<u8>, u32) {
        let left = error(&mask);
        self.reduce_by(mask, left)
    }

    /// The same for a mask with another error.
    fn reduce_by(&self, mut mask: Vec<u8>, mut left: u32) -> (Vec<u8>, u32) {
        for (i, pivot) in self.pivots.iter().enumerate().rev() {
            if let Some((other, its)) = pivot
                && left >> i & 1 == 1
            {
                left ^= its;
                xor(&mut mask, other);
            }
        }
        (mask, left)
    }

    /// Flips these bits and what makes up for them, if something does.
    fn with(&self, bits: &[usize]) -> Option<Vec<u8>> {
        let mut mask = vec![0; self.len];
        for &bit in bits {
            flip(&mut mask, bit);
        }
        let (mask, left) = self.reduce(mask);
        (left == 0).then_some(mask)
    }
}

fn xor(a: &mut [u8], b: &[u8]) {
    for (a, b) in a.iter_mut().zip(b) {
        *a ^= b;
    }
}

/// Whether a member takes the datagram for another body, the one that `mask` makes of it.
fn is_taken(setup: &Setup, body: &[u8], mask: &[u8]) -> bool {
    let (mut sender, mut receiver) = (setup.cipher(1), setup.cipher(2));
    let mut datagram = seal(&mut *sender, body);
    xor(&mut datagram, mask);
    let Some(opened) = open(&mut *receiver, &datagram) else {
        return false;
    };
    let mut want = body.to_vec();
    xor(&mut want, &mask[sender.overhead().front..]);
    assert_eq!(opened, want, "{}", setup.name);
    true
}

/// Two to the power of this many alterations of a datagram with so long a body go unnoticed, the nonce aside: the number that
/// security.md names.
fn alterations(flips: Flips, body: usize) -> usize {
    match flips {
        Flips::None => 0,
        // What is left of the last block after 32 bits are made up for.
        Flips::LastBlock(block) => {
            (8 * ((CRC_HEADER_LEN + body - 1) % block + 1)).saturating_sub(32)
        }
        Flips::Stream => 8 * body,
    }
}

#[test]
fn a_datagram_has_as_many_alterations_as_its_cipher_leaves_open() {
    for setup in setups().iter().filter(|s| s.class != Class::Open) {
        for body_len in BODIES {
            let mut body = vec![0; body_len];
            let mut rng = Rng::new(body_len as u64);
            rng.fill(&mut body);
            let len = seal(&mut *setup.cipher(1), &body).len();
            let bits = reachable(setup.flips, len);
            let masks = Masks::new(len, bits.clone());
            let nonce = if setup.flips == Flips::Stream { 64 } else { 0 };
            let number = alterations(setup.flips, body_len) + nonce;
            assert_eq!(masks.basis.len(), number, "{}, {body_len}", setup.name);
            for _ in 0..20.min(number) {
                let mut mask = vec![0; len];
                for base in masks.basis.iter().filter(|_| rng.chance(0.5)) {
                    xor(&mut mask, base);
                }
                assert!(is_taken(setup, &body, &mask), "{}", setup.name);
            }
            // No bit alone, wherever it is, and no other few, but in what is left of the nonce.
            let ignored = match setup.flips {
                Flips::LastBlock(8) => 0..8,
                Flips::Stream => 8..16,
                _ => 0..0,
            };
            for _ in 0..200 {
                let mut mask = vec![0; len];
                for _ in 0..=rng.below(3) {
                    flip(&mut mask, rng.below(8 * len as u64) as usize);
                }
                let mut left = mask.clone();
                left[ignored.clone()].fill(0);
                if left.iter().any(|b| *b != 0) {
                    assert!(!is_taken(setup, &body, &mask), "{}", setup.name);
                }
            }
        }
    }
    let lone = |flips| alterations(flips, 24);
    assert_eq!(
        [lone(Flips::LastBlock(16)), lone(Flips::LastBlock(8))],
        [64, 0]
    );
}

/// Flips bits of datagrams that go up, and what makes up for them, and sends the result ahead.
#[derive(Debug)]
struct Forgery {
    flips: Flips,
    /// Which bits of a datagram of so many bytes, for each copy that is sent ahead.
    bits: fn(len: usize) -> Vec<Vec<usize>>,
    /// From there, or from where the original comes.
    from: Option<SocketAddr>,
}

impl Attack for Forgery {
    fn sees(&mut self, seen: &Seen<'_>, hand: &mut Hand) -> Fate {
        if seen.direction == Direction::Down {
            return Fate::Passes;
        }
        let len = seen.data.len();
        for bits in (self.bits)(len) {
            // A few bits make up for all others.
            let masks = Masks::new(len, reachable(self.flips, len).take(160));
            if let Some(mask) = masks.with(&bits) {
                let mut data = seen.data.to_vec();
                xor(&mut data, &mask);
                let from = self.from.unwrap_or(seen.from);
                hand.forward(ms(1), from, Direction::Up, data);
            }
        }
        Fate::Passes
    }
}

/// A transfer without parity and compression under a forgery, in a setup whose flips pass like this.
fn under(name: &'static str, seed: u64, setup: &Setup, forgery: Forgery) -> Sim {
    let mut sim = scene(name, seed, setup, &setup.ends(false), link(20, 0.0));
    let (ours, theirs) = bulk(60_000, 0);
    sim.open((ours.tolerant(), theirs.tolerant()));
    // What comes down drop by drop is acknowledged the same way.
    let drops = (0..400).flat_map(|_| [Step::Wait(ms(2)), Step::Write(1200)]);
    let theirs = Program::new(Expect::Anything, drops.collect::<Vec<_>>());
    let ours = Program::new(Expect::Anything, [Step::ReadEnd]);
    sim.open((ours.tolerant(), theirs.tolerant()));
    sim.observer.as_mut().expect("it is there").begin(forgery);
    sim
}

/// Bytes of a lone acknowledgement, sealed.
const LONE_ACK: usize = CRC_HEADER_LEN + 24;

/// The bits that stand for 4 and for 8 in the `una` of the last one of an odd number of acknowledgements: then the last block has it.
fn una(len: usize) -> Vec<Vec<usize>> {
    let una = 8 * len.saturating_sub(8);
    if len % 48 == LONE_ACK {
        vec![vec![una + 2], vec![una + 3]]
    } else {
        vec![]
    }
}

fn checked(flips: Flips) -> impl Iterator<Item = Setup> {
    let all = of_class(Class::Checked).into_iter();
    all.filter(move |s| s.flips == flips)
}

/// The server believes that more has arrived than has. What was lost then is not sent again, and the stream hangs.
#[test]
fn under_blocks_of_16_bytes_an_acknowledgement_can_be_made_to_say_more() {
    for seed in seeds(1) {
        for setup in checked(Flips::LastBlock(16)).chain(checked(Flips::Stream)) {
            let forgery = Forgery {
                flips: setup.flips,
                bits: una,
                from: None,
            };
            let mut sim = under("una", seed, &setup, forgery);
            let believed = |sim: &Sim| {
                let una = |h: &crate::harness::Host| {
                    let key = h.endpoint.sessions().next()?;
                    Some(h.endpoint.session(key)?.kcp().state())
                };
                let (Some(server), Some(client)) = (sim.servers().find_map(una), una(sim.client()))
                else {
                    return false;
                };
                client.rcv_nxt.before(server.snd_una)
            };
            let end = sim.now + secs(5);
            assert!(sim.run_until(end, believed), "{}", setup.name);
        }
    }
}

/// Under blocks of eight bytes the last block of a lone acknowledgement is its length, which the CRC decides about.
#[test]
fn under_blocks_of_8_bytes_a_lone_acknowledgement_stays_as_it_is() {
    for setup in checked(Flips::LastBlock(8)) {
        let masks = Masks::new(LONE_ACK, reachable(setup.flips, LONE_ACK));
        assert!(masks.basis.is_empty(), "{}", setup.name);
    }
}

/// The last bytes of the payload become others; an application reads them, as nothing above has a checksum.
#[test]
fn the_end_of_a_payload_can_be_changed() {
    for seed in seeds(1) {
        for setup in of_class(Class::Checked) {
            if setup.flips == Flips::None {
                continue;
            }
            let forgery = Forgery {
                flips: setup.flips,
                // Of the last byte.
                bits: |len| match len {
                    500.. => vec![vec![8 * len - 1, 8 * len - 3]],
                    _ => vec![],
                },
                from: None,
            };
            let mut sim = under("payload", seed, &setup, forgery);
            sim.run_for(secs(3));
            let misled = |h: &crate::harness::Host| h.apps.iter().any(|(_, app)| app.misled);
            assert!(sim.servers().any(misled), "{}", setup.name);
            // The session goes on.
            assert_eq!(ends_of(sim.client()), [], "{}", setup.name);
        }
    }
}

/// Under a stream of key bytes anything can be changed: here the version of a frame, which ends the session.
#[test]
fn with_salsa20_any_byte_can_be_changed() {
    for seed in seeds(1) {
        for setup in checked(Flips::Stream) {
            let forgery = Forgery {
                flips: setup.flips,
                bits: |len| match len {
                    100.. => vec![vec![8 * LONE_ACK + 6]],
                    _ => vec![],
                },
                from: None,
            };
            let mut sim = under("frame", seed, &setup, forgery);
            sim.run_for(secs(1));
            let ends: Vec<_> = sim.servers().flat_map(ends_of).collect();
            let layer = |r: &Reason| matches!(r, Reason::Layer(_));
            assert!(ends.iter().any(layer), "{}: {ends:?}", setup.name);
        }
    }
}

/// What is acknowledged by forgery moves nothing: the time that an acknowledgement echoes is in a block that cannot be changed.
#[test]
fn forged_acknowledgements_from_elsewhere_move_nothing() {
    for seed in seeds(2) {
        for setup in checked(Flips::LastBlock(16)).chain(checked(Flips::Stream)) {
            let forgery = Forgery {
                flips: setup.flips,
                bits: una,
                from: Some(stranger(3)),
            };
            let mut sim = under("moving", seed, &setup, forgery);
            sim.run_for(secs(5));
            super::invariants::assert_stays(&sim, &setup.name);
        }
    }
}

/// The clear text of a datagram gives away the key bytes of each of its blocks: it can end with any of them, and that one
/// can be made to say anything but the four bytes that make up the CRC.
#[test]
fn under_known_clear_text_a_datagram_can_end_early_and_say_another_thing() {
    for setup in of_class(Class::Checked) {
        let Flips::LastBlock(block) = setup.flips else {
            continue;
        };
        let push = Header {
            conv: 0x1122_3344,
            command: Command::Push,
            frg: 0,
            wnd: 128,
            ts: Millis(5000),
            sn: Seq(70),
            una: Seq(60),
            len: 1000,
        };
        let mut body = setup.format.emit(&push).to_vec();
        body.extend((0..1000u32).map(|i| i as u8));
        let (mut sender, mut receiver) = (setup.cipher(1), setup.cipher(2));
        let mut datagram = seal(&mut *sender, &body);
        // It ends with the block in which its header ends, where there is a little room for what makes up. With blocks of eight
        // bytes the number is in the block before, and stays.
        let len = (CRC_HEADER_LEN + 24 + 4).next_multiple_of(block);
        let lie = Header {
            sn: Seq(if block == 16 { 71 } else { 70 }),
            len: (len - CRC_HEADER_LEN - 24) as u32,
            ..push
        };
        datagram.truncate(len);
        let mut want = setup.format.emit(&lie).to_vec();
        want.resize(len - CRC_HEADER_LEN, 0);
        // What the receiver is to see differs in the last block only.
        let mut mask = vec![0; len];
        for (i, byte) in want.iter().enumerate() {
            mask[CRC_HEADER_LEN + i] = byte ^ body[i];
        }
        let last = (len - 1) / block * block;
        assert!(mask[..last].iter().all(|b| *b == 0), "{}", setup.name);
        // The CRC is of the whole body, so that of what is left is off by a constant.
        let off = crc(&body) ^ crc(&want);
        let masks = Masks::new(len, 8 * (len - 4)..8 * len);
        let (fix, left) = masks.reduce_by(vec![0; len], off);
        assert_eq!(left, 0);
        xor(&mut mask, &fix);
        xor(&mut datagram, &mask);
        let opened = open(&mut *receiver, &datagram).expect("it opens");
        assert_eq!(opened[..24], want[..24], "{}", setup.name);
    }
}
