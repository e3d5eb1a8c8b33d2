//! What kcptun-libev says beside conversations: one message, and the machine that takes them from anybody.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use fulmar_session::dialect::libev::control::{Control, Place, Settings, Told, may_punch};
use fulmar_session::transmit::Path;
use fulmar_wire::libev::{Hello, Session0};
use fulmar_wire::time::Instant;

use crate::input::Input;

/// Messages that wait for the socket at most.
const MOST_MESSAGES: usize = 256;
/// Events that one step can make at most: what it sends is bounded, and each message or timer tells one or two things.
const MOST_EVENTS: usize = 16;

/// A machine beside conversations that hears anything from a few addresses, at any time.
///
/// Input: a byte for the place and one for the settings; then operations, each a byte and what it needs.
pub fn session0(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new(input.byte(), input.byte());
    for _ in 0..400 {
        if input.is_empty() {
            break;
        }
        let op = input.byte();
        match op % 8 {
            0 | 1 => {
                let from = input.byte();
                if let Some(body) = input.chunk() {
                    world.hear(from, body, op & 8 == 0);
                }
            }
            // One that has at least a head.
            2 => {
                let (from, what) = (input.byte(), input.byte() % 7);
                if let Some(rest) = input.chunk() {
                    let body = [&[0, 0, 0, 0, 0, what], rest].concat();
                    world.hear(from, &body, op & 8 == 0);
                }
            }
            // A pong to the last ping.
            3 => {
                let (from, late) = (input.byte(), input.byte());
                let hello = (op & 8 == 0).then_some(Hello {
                    features: late.into(),
                });
                let (mut body, time) = (Vec::new(), world.pinged);
                Session0::Pong { time, hello }.emit(&mut body);
                world.now += Duration::from_millis(late.into());
                world.hear(from, &body, true);
            }
            4 => world.now += Duration::from_millis(u64::from(input.u16())),
            5 => world.now += Duration::from_secs(u64::from(input.byte())),
            6 => match op >> 3 & 3 {
                0 => world.control.suspect(world.now),
                1 => {
                    let from = world.sender(input.byte());
                    world.control.heard(world.now, from);
                }
                _ => world.control.sent(world.now),
            },
            _ => world.change(op >> 3, input.byte()),
        }
        world.settle();
    }
    // Silence for an hour: it goes on, and it rests between.
    for _ in 0..30 {
        world.now += Duration::from_secs(120);
        world.settle();
    }
}

struct World {
    control: Control,
    bound: bool,
    /// It is a client that asks a relay for its server.
    asks_relay: bool,
    v6: bool,
    now: Instant,
    /// Time of the last ping that left.
    pinged: u32,
    /// Who was heard.
    senders: Vec<SocketAddr>,
}

impl World {
    fn new(place: u8, flags: u8) -> Self {
        let v6 = place & 4 != 0;
        let local = || vec![host(v6, 77), host(!v6, 77)];
        // Both families, as a name may give.
        let mut others: Vec<_> = (0..=flags & 1).map(|n| host(v6, n)).collect();
        if flags & 2 != 0 {
            others.push(host(!v6, 0));
        }
        let id = b"service".to_vec();
        let (servers, relays) = (others.clone(), others);
        let place = match place % 4 {
            0 => Place::Bound,
            1 => Place::Client { servers },
            2 => Place::RendezvousClient {
                relays,
                id,
                local: local(),
            },
            _ => Place::RendezvousServer {
                relays,
                id: if flags & 4 == 0 { id } else { vec![7; 256] },
                local: local(),
            },
        };
        let now = Instant::from_millis(1000);
        let bound = place == Place::Bound;
        let asks_relay = matches!(place, Place::RendezvousClient { .. });
        let settings = Settings {
            place,
            keepalive: keepalive(flags >> 4),
            timeout: Duration::from_secs(60),
            seed: flags.into(),
            allow_loopback: false,
        };
        let mut this = Self {
            control: Control::new(settings, now),
            bound,
            asks_relay,
            v6,
            now,
            pinged: 0,
            senders: Vec::new(),
        };
        this.settle();
        this
    }

    fn sender(&self, from: u8) -> SocketAddr {
        host(self.v6 ^ (from & 8 != 0), from & 7)
    }

    fn hear(&mut self, from: u8, body: &[u8], fresh: bool) {
        let remote = self.sender(from);
        let message = round_trip(body);
        let path = Path {
            remote,
            local: None,
        };
        let before = self.control.poll_timeout();
        let heard = self.control.last_heard();
        let told = self.control.handle(self.now, path, body, fresh);
        let reset = match message {
            Some(Session0::Reset { conv }) if fresh => Some(Told::Reset { conv }),
            _ => None,
        };
        assert_eq!(told, reset);
        if !fresh || message.is_none() {
            assert_eq!(self.control.poll_timeout(), before, "it was not to count");
        } else {
            self.senders.push(remote);
            // A relay's answer to whether it is there is no sign of life of the server's.
            let relays = matches!(message, Some(Session0::Pong { .. })) && self.asks_relay;
            let now = self.control.last_heard();
            assert!(now == Some(self.now) || relays && now == heard);
        }
    }

    fn change(&mut self, what: u8, how: u8) {
        match what % 3 {
            0 => {
                let addrs = (0..how & 3).map(|n| host(self.v6, (how >> 2 & 7) + n));
                self.control.resolved(self.now, addrs.collect());
            }
            1 => {
                let addrs = (0..how & 3).map(|n| host(self.v6, n));
                self.control.local_changed(addrs.collect());
            }
            _ => {
                let timeout = Duration::from_secs(u64::from(how >> 2) + 1);
                self.control.set_keepalive(keepalive(how), timeout);
            }
        }
    }

    /// What an owner does between two waits.
    fn settle(&mut self) {
        if self.control.poll_timeout().is_some_and(|at| at <= self.now) {
            self.control.handle_timeout(self.now);
        }
        let mut messages = 0;
        let mut bytes = Vec::new();
        while let Some(path) = self.control.poll_transmit(&mut bytes) {
            messages += 1;
            self.check(path, &bytes);
            bytes.clear();
        }
        let events = std::iter::from_fn(|| self.control.poll_event()).count();
        assert!(messages <= MOST_MESSAGES && events <= MOST_EVENTS);
        let due = self.control.poll_timeout();
        assert!(due.is_none_or(|at| at > self.now), "a timer stands still");
    }

    /// A message that leaves.
    fn check(&mut self, path: Path, bytes: &[u8]) {
        assert!(bytes.len() <= Session0::MAX_LEN);
        match round_trip(bytes) {
            Some(Session0::Ping { time, .. }) => {
                self.pinged = time;
                // All addresses here that somebody has are such.
                assert!(may_punch(path.remote, false), "pings {}", path.remote);
            }
            Some(_) => {}
            None => panic!("says what is no message"),
        }
        if self.bound {
            assert!(self.senders.contains(&path.remote), "talks to strangers");
        }
    }
}

/// What parses is written again as it was, but for padding.
fn round_trip(body: &[u8]) -> Option<Session0<'_>> {
    let message = match Session0::parse(body) {
        Ok(message) => message,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return None;
        }
    };
    let mut again = Vec::new();
    message.emit(&mut again);
    assert_eq!(Session0::parse(&again), Ok(message));
    let nameless = matches!(message, Session0::Listen { id, .. } | Session0::Connect { id, .. } if id.is_empty());
    // One without an id may have had padding in its place.
    assert!(nameless || body.starts_with(&again));
    Some(message)
}

/// One that the configuration allows; 0 seconds are none there.
const fn keepalive(which: u8) -> Option<Duration> {
    match which % 4 {
        0 => Some(Duration::from_secs(25)),
        1 => None,
        2 => Some(Duration::from_secs(1)),
        _ => Some(Duration::from_secs(600)),
    }
}

fn host(v6: bool, n: u8) -> SocketAddr {
    if v6 {
        let ip = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(n) + 1);
        SocketAddr::from((ip, 4000))
    } else {
        SocketAddr::from(([192, 0, 2, n + 1], 4000))
    }
}
