//! What an observer without the key can do with what it sees. Each is small; a history is several of them at once.

use std::net::SocketAddr;
use std::time::Duration;

use fulmar_netem::Direction;

use super::observer::{Attack, Fate, Hand, Seen, To};
use super::setups::Nonce;
use crate::harness::stranger;

/// Where something comes from.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Whence {
    /// From where the original came.
    Same,
    /// From an address of the observer's.
    Elsewhere,
    /// From either.
    Both,
}

impl Whence {
    fn addresses(self, original: SocketAddr, hand: &Hand) -> Vec<SocketAddr> {
        match self {
            Self::Same => vec![original],
            Self::Elsewhere => vec![hand.address()],
            Self::Both => vec![original, hand.address()],
        }
    }
}

/// A time between these two.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Span(pub(crate) Duration, pub(crate) Duration);

impl Span {
    fn draw(self, hand: &mut Hand) -> Duration {
        let width = (self.1 - self.0).as_micros() as u64;
        self.0 + Duration::from_micros(hand.rng.below(width))
    }
}

/// What is changed in a copy.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    Nothing,
    /// Flips a bit of the nonce.
    Nonce(Nonce),
    /// Flips so many bits anywhere.
    Bits(u64),
    /// Takes bytes off the end, or adds some.
    Length,
    /// The end is another datagram's, from a multiple of eight bytes on: modes of feedback go on after a block.
    Splice,
    /// Nothing is left but the length.
    Noise,
}

impl Change {
    fn apply(self, data: &mut Vec<u8>, hand: &mut Hand) {
        let place = |hand: &mut Hand, n: usize| hand.rng.below(n as u64) as usize;
        match self {
            Self::Nothing => {}
            Self::Nonce(nonce) => {
                let range = nonce.range(data.len());
                if !range.is_empty() {
                    let at = range.start + place(hand, range.len());
                    data[at] ^= 1 << place(hand, 8);
                }
            }
            Self::Bits(n) => {
                for _ in 0..n {
                    let at = place(hand, data.len());
                    data[at] ^= 1 << place(hand, 8);
                }
            }
            Self::Length => {
                if hand.rng.chance(0.5) {
                    data.truncate(1 + place(hand, data.len()));
                } else {
                    let more = 1 + place(hand, 40);
                    data.resize(data.len() + more, 0);
                }
            }
            Self::Splice => {
                // Of what went between the two.
                let parties = [hand.client, hand.server];
                let other = place(hand, hand.records.len());
                let theirs = hand.records[other..].iter();
                let Some(tail) = theirs.rev().find(|r| parties.contains(&r.to)) else {
                    return;
                };
                let tail = tail.data.clone();
                let most = data.len().min(tail.len()) / 8;
                let cut = 8 * (1 + place(hand, most));
                data.truncate(cut);
                data.extend_from_slice(tail.get(cut..).unwrap_or_default());
            }
            Self::Noise => hand.rng.fill(data),
        }
    }
}

/// Copies go where the original goes.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Copies {
    pub(crate) whence: Whence,
    /// To another port of the service.
    pub(crate) other_port: bool,
    /// When one arrives after the original has left: before it, if that is less than the path takes.
    pub(crate) after: Span,
    pub(crate) change: Change,
    /// Of how many datagrams there are some.
    pub(crate) chance: f64,
}

impl Attack for Copies {
    fn sees(&mut self, seen: &Seen<'_>, hand: &mut Hand) -> Fate {
        if seen.to == hand.client || seen.to == hand.server {
            if !hand.rng.chance(self.chance) {
                return Fate::Passes;
            }
            for from in self.whence.addresses(seen.from, hand) {
                let after = self.after.draw(hand);
                let mut data = seen.data.to_vec();
                self.change.apply(&mut data, hand);
                let to = match seen.direction {
                    Direction::Up => To::Server {
                        other_port: self.other_port,
                    },
                    Direction::Down => To::Client,
                };
                hand.send(after, from, to, data);
            }
        }
        Fate::Passes
    }
}

/// What an end sends comes back to it.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Reflection {
    pub(crate) change: Change,
    pub(crate) after: Duration,
}

impl Attack for Reflection {
    fn sees(&mut self, seen: &Seen<'_>, hand: &mut Hand) -> Fate {
        let from = if seen.to == hand.client || seen.to == hand.server {
            seen.to
        } else {
            // What the server sends to an address of ours comes back from there.
            return Fate::Passes;
        };
        let elsewhere = hand.address();
        for from in [from, elsewhere] {
            let mut data = seen.data.to_vec();
            self.change.apply(&mut data, hand);
            hand.forward(self.after, from, seen.direction.reverse(), data);
        }
        Fate::Passes
    }
}

/// What the server sends to an address of the observer's comes back from there.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Echo;

impl Attack for Echo {
    fn sees(&mut self, seen: &Seen<'_>, hand: &mut Hand) -> Fate {
        if seen.to != hand.client && seen.to != hand.server {
            hand.inhabited.insert(seen.to);
            hand.forward(
                Duration::from_millis(1),
                seen.to,
                Direction::Up,
                seen.data.to_vec(),
            );
        }
        Fate::Passes
    }
}

/// A host beside the path gives the server what the client sends, from its own address, and the client what the server sends there.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Redirection {
    pub(crate) relay: SocketAddr,
    /// What the detour takes.
    pub(crate) after: Duration,
}

impl Attack for Redirection {
    fn sees(&mut self, seen: &Seen<'_>, hand: &mut Hand) -> Fate {
        // The client answers from there, if the server asks.
        hand.inhabited.insert(self.relay);
        let data = seen.data.to_vec();
        if seen.to == self.relay {
            let server = hand.server;
            hand.forward(self.after, server, Direction::Down, data);
            return Fate::Passes;
        }
        if seen.to != hand.server {
            return Fate::Passes;
        }
        hand.forward(self.after, self.relay, Direction::Up, data);
        Fate::Passes
    }
}

/// The first datagrams of the client, from so many addresses.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Openings {
    /// How many of the first datagrams.
    pub(crate) first: usize,
    pub(crate) addresses: u16,
    pub(crate) after: Span,
}

impl Attack for Openings {
    fn sees(&mut self, seen: &Seen<'_>, hand: &mut Hand) -> Fate {
        if seen.to == hand.server && self.first > 0 {
            self.first -= 1;
            for i in 0..self.addresses {
                let after = self.after.draw(hand);
                let from = match i {
                    0 => hand.address(),
                    _ => stranger(10 + i),
                };
                hand.forward(after, from, Direction::Up, seen.data.to_vec());
            }
        }
        Fate::Passes
    }
}

/// Sends everything that was seen again, in order, a millisecond apart.
pub(crate) fn send_all_again(hand: &mut Hand, whence: Whence, other_port: bool) {
    let records = std::mem::take(&mut hand.records);
    let parties = [hand.client, hand.server];
    for (i, kept) in records.iter().enumerate() {
        if !parties.contains(&kept.to) {
            continue;
        }
        let after = Duration::from_millis(1 + i as u64);
        for from in whence.addresses(kept.from, hand) {
            let to = match kept.direction {
                Direction::Up => To::Server { other_port },
                Direction::Down => To::Client,
            };
            hand.send(after, from, to, kept.data.clone());
        }
    }
    hand.records = records;
}
