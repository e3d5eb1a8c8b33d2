//! Endpoints that share a port: which of them a conversation belongs to, and what they hand to each other.
//!
//! On a server with several drivers the kernel chooses a socket by the addresses of a datagram, and nothing else. So a
//! client whose address has changed may arrive at an endpoint that does not know it. That endpoint opens the
//! datagram as it would any stranger's, asks the [`Directory`] whose conversation it is, and hands it over opened; the
//! owner decides by its own rules whether the session follows. See docs/design/threads.md.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use crate::transmit::{MAX_SEGMENTS, Path};

/// Batches that wait to be handed over; more are dropped. A run belongs to one or two peers' conversations.
const MAX_WAITING: usize = 16;
/// Addresses of other endpoints' sessions that are remembered; when there are more, all are forgotten and learned again.
const MAX_GUESTS: usize = 1024;

/// Whose a conversation is.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Owner {
    /// Nobody's, or of the endpoint that asks.
    Free,
    /// Of another endpoint, by its number.
    Other(usize),
    /// It has ended. Conversations are drawn at random, so this is a replay, or comes from a peer that does not know it yet. Another endpoint
    /// that had it, by its number, may remember more.
    Past(Option<usize>),
}

/// What endpoints behind one port know together. It is asked about conversations that an endpoint does not know, never
/// for datagrams of those that it does.
pub trait Directory: Send {
    /// Whose `conv` is.
    fn owner(&mut self, conv: u32) -> Owner;

    /// The endpoint that asks opens a session for `conv`; `false` if somebody else was faster.
    fn claim(&mut self, conv: u32) -> bool;

    /// Its session has ended. `proven`: it carried something valid, so the conversation must not begin again.
    fn release(&mut self, conv: u32, proven: bool);
}

/// Who has, or had, a conversation.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Claim {
    Held(usize),
    /// Who had it, if that endpoint is still there.
    Past(Option<usize>),
}

/// A [`Directory`] without the lock that it needs.
///
/// Conversations of sessions that live are all in it, and as many as `keep` of those that have ended; older ones are forgotten, and
/// could be replayed. Unproven sessions leave nothing behind, so whoever makes many of them displaces nothing.
#[derive(Debug)]
pub struct Conversations {
    owners: HashMap<u32, Claim>,
    /// Those that have ended, the oldest first.
    past: VecDeque<u32>,
    keep: usize,
}

impl Conversations {
    /// Remembers at most `keep` conversations that have ended (16 to 40 bytes each).
    #[must_use]
    pub fn new(keep: usize) -> Self {
        Self {
            owners: HashMap::new(),
            past: VecDeque::new(),
            keep,
        }
    }

    /// Whose `conv` is, for endpoint `me`.
    #[must_use]
    pub fn owner(&self, me: usize, conv: u32) -> Owner {
        match self.owners.get(&conv) {
            None => Owner::Free,
            Some(Claim::Held(owner)) if *owner == me => Owner::Free,
            Some(Claim::Held(owner)) => Owner::Other(*owner),
            Some(Claim::Past(had_it)) => Owner::Past(had_it.filter(|it| *it != me)),
        }
    }

    /// Gives `conv` to `me`, if it is free.
    pub fn claim(&mut self, me: usize, conv: u32) -> bool {
        let free = self.owner(me, conv) == Owner::Free;
        if free {
            self.owners.insert(conv, Claim::Held(me));
        }
        free
    }

    /// The session of `me` for `conv` has ended.
    pub fn release(&mut self, me: usize, conv: u32, proven: bool) {
        self.end(me, conv, proven, Some(me));
    }

    fn end(&mut self, me: usize, conv: u32, proven: bool, had_it: Option<usize>) {
        if self.owners.get(&conv) != Some(&Claim::Held(me)) {
            return;
        }
        if !proven || self.keep == 0 {
            self.owners.remove(&conv);
            return;
        }
        self.owners.insert(conv, Claim::Past(had_it));
        self.past.push_back(conv);
        if self.past.len() > self.keep
            && let Some(oldest) = self.past.pop_front()
        {
            self.owners.remove(&oldest);
        }
    }

    /// All of `me`'s sessions have ended, and nobody knows which were proven: none may begin again.
    pub fn release_all(&mut self, me: usize) {
        let of_me = |claim: &Claim| *claim == Claim::Held(me);
        let all = self.owners.iter().filter(|(_, claim)| of_me(claim));
        let all: Vec<u32> = all.map(|(conv, _)| *conv).collect();
        for conv in all {
            self.end(me, conv, true, None);
        }
        for conv in &self.past {
            if let Some(claim) = self.owners.get_mut(conv)
                && *claim == Claim::Past(Some(me))
            {
                *claim = Claim::Past(None);
            }
        }
    }
}

/// Opened bodies of datagrams for another endpoint: all from one place, back to back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Handover {
    /// The number of the endpoint that is to have them.
    pub to: usize,
    /// Where they came from, and to which of our addresses.
    pub path: Path,
    /// Index of the cipher that opened them; the endpoints of one port have the same ciphers in the same order.
    pub cipher: usize,
    segment: usize,
    bodies: Vec<u8>,
}

impl Handover {
    /// The bodies, one by one.
    pub fn bodies(&self) -> impl Iterator<Item = &[u8]> {
        self.bodies.chunks(self.segment.max(1))
    }

    /// How many datagrams they were.
    #[must_use]
    pub fn datagrams(&self) -> u64 {
        self.bodies.len().div_ceil(self.segment.max(1)) as u64
    }

    /// Adds `body` if it belongs here and fits behind the others: equal sizes, except that the last may be shorter.
    fn add(&mut self, to: usize, path: Path, cipher: usize, body: &[u8]) -> bool {
        let fits = (self.to, self.path, self.cipher) == (to, path, cipher)
            && body.len() <= self.segment
            && self.bodies.len() < MAX_SEGMENTS * self.segment
            && self.bodies.len().is_multiple_of(self.segment);
        if fits {
            self.bodies.extend_from_slice(body);
        }
        fits
    }
}

/// Somebody whose session another endpoint has.
#[derive(Copy, Clone, Debug)]
struct Guest {
    owner: usize,
    cipher: usize,
}

/// The part of an endpoint that knows of others.
pub(crate) struct Sharing {
    pub(crate) directory: Box<dyn Directory>,
    guests: HashMap<SocketAddr, Guest>,
    waiting: VecDeque<Handover>,
}

impl Sharing {
    pub(crate) fn new(directory: Box<dyn Directory>) -> Self {
        Self {
            directory,
            guests: HashMap::new(),
            waiting: VecDeque::new(),
        }
    }

    /// The cipher of the session of another endpoint whose peer is at `addr`.
    pub(crate) fn cipher_of(&self, addr: SocketAddr) -> Option<usize> {
        self.guests.get(&addr).map(|g| g.cipher)
    }

    /// The endpoint that has the session of the peer at `addr`.
    pub(crate) fn owner_of(&self, addr: SocketAddr) -> Option<usize> {
        self.guests.get(&addr).map(|g| g.owner)
    }

    /// Nothing from `addr` opens with what is remembered.
    pub(crate) fn forget(&mut self, addr: SocketAddr) {
        self.guests.remove(&addr);
    }

    /// Puts a body into the line to endpoint `to`; `false` when the line is full.
    pub(crate) fn hand_over(&mut self, to: usize, path: Path, cipher: usize, body: &[u8]) -> bool {
        if self.guests.len() >= MAX_GUESTS && !self.guests.contains_key(&path.remote) {
            self.guests.clear();
        }
        self.guests.insert(path.remote, Guest { owner: to, cipher });
        if let Some(last) = self.waiting.back_mut()
            && last.add(to, path, cipher, body)
        {
            return true;
        }
        if self.waiting.len() >= MAX_WAITING {
            return false;
        }
        self.waiting.push_back(Handover {
            to,
            path,
            cipher,
            segment: body.len(),
            bodies: body.to_vec(),
        });
        true
    }

    pub(crate) fn poll(&mut self) -> Option<Handover> {
        self.waiting.pop_front()
    }

    pub(crate) fn shrink(&mut self) {
        self.guests = HashMap::new();
        self.waiting.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl Directory for Nobody {
        fn owner(&mut self, _: u32) -> Owner {
            Owner::Free
        }
        fn claim(&mut self, _: u32) -> bool {
            true
        }
        fn release(&mut self, _: u32, _: bool) {}
    }

    fn path(port: u16) -> Path {
        Path {
            remote: ([192, 0, 2, 1], port).into(),
            local: None,
        }
    }

    #[test]
    fn a_conversation_has_one_owner_and_one_life() {
        let mut all = Conversations::new(2);
        assert_eq!(all.owner(0, 7), Owner::Free);
        assert!(all.claim(0, 7));
        assert!(!all.claim(1, 7), "it is taken");
        assert_eq!(all.owner(0, 7), Owner::Free);
        assert_eq!(all.owner(1, 7), Owner::Other(0));
        // Only its owner gives it up.
        all.release(1, 7, true);
        assert_eq!(all.owner(1, 7), Owner::Other(0));
        // Unproven: as if it had never been.
        all.release(0, 7, false);
        assert!(all.claim(1, 7));
        all.release(1, 7, true);
        assert_eq!(all.owner(0, 7), Owner::Past(Some(1)));
        assert_eq!(all.owner(1, 7), Owner::Past(None));
        assert!(!all.claim(0, 7) && !all.claim(1, 7));
    }

    #[test]
    fn the_past_is_bounded_and_the_living_are_safe_from_it() {
        let mut all = Conversations::new(3);
        assert!(all.claim(2, 1000));
        for conv in 0..100 {
            assert!(all.claim(0, conv));
            all.release(0, conv, true);
        }
        for conv in 100..10_000 {
            assert!(conv == 1000 || all.claim(1, conv));
            all.release(1, conv, false);
        }
        assert_eq!(all.owner(0, 1000), Owner::Other(2));
        let past: Vec<u32> = (0..100)
            .filter(|c| all.owner(1, *c) == Owner::Past(Some(0)))
            .collect();
        assert_eq!(past, [97, 98, 99]);
        assert_eq!((all.owners.len(), all.past.len()), (4, 3));
        // An endpoint that goes without a word.
        all.release_all(2);
        assert_eq!(all.owner(0, 1000), Owner::Past(None));
    }

    #[test]
    fn bodies_come_out_as_they_went_in() {
        let mut sharing = Sharing::new(Box::new(Nobody));
        let bodies: [(usize, u16, &[u8]); 7] = [
            (1, 9, b"aaaa"),
            (1, 9, b"bbbb"),
            (1, 9, b"cc"),
            // Behind a shorter one nothing fits; nor does what is longer, or somebody else's.
            (1, 9, b"dd"),
            (1, 9, b"eeeee"),
            (1, 10, b"f"),
            (2, 10, b"g"),
        ];
        for (to, port, body) in bodies {
            assert!(sharing.hand_over(to, path(port), 0, body));
        }
        let mut seen = Vec::new();
        let mut batches = Vec::new();
        while let Some(handover) = sharing.poll() {
            batches.push(handover.datagrams());
            for body in handover.bodies() {
                seen.push((handover.to, handover.path.remote.port(), body.to_vec()));
            }
        }
        let wanted: Vec<_> = bodies
            .iter()
            .map(|(to, port, body)| (*to, *port, body.to_vec()))
            .collect();
        assert_eq!(seen, wanted);
        assert_eq!(batches, [3, 1, 1, 1, 1]);
        assert_eq!(sharing.owner_of(path(10).remote), Some(2));
    }

    #[test]
    fn lines_and_memories_are_bounded() {
        let mut sharing = Sharing::new(Box::new(Nobody));
        for i in 0..MAX_GUESTS as u16 {
            let fits = usize::from(i) < MAX_WAITING;
            assert_eq!(sharing.hand_over(1, path(i), 0, b"body"), fits);
        }
        assert_eq!(sharing.guests.len(), MAX_GUESTS);
        sharing.hand_over(1, path(40_000), 0, b"body");
        assert_eq!(sharing.guests.len(), 1);
        while sharing.poll().is_some() {}
        for _ in 0..MAX_WAITING * MAX_SEGMENTS {
            assert!(sharing.hand_over(1, path(1), 0, b"body"));
        }
        assert!(!sharing.hand_over(1, path(1), 0, b"body"));
        assert_eq!(sharing.poll().map(|h| h.datagrams()), Some(64));
    }
}
