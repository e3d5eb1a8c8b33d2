//! Both ends of kcptun-libev, with a network between that does anything.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use fulmar_cipher::{LibevKey, NonceSource, PacketCipher, libev, libev_probe};
use fulmar_session::admission::Limits;
use fulmar_session::arq::Profile;
use fulmar_session::dialect::libev::control::{Control, Place, Settings as ControlSettings};
use fulmar_session::dialect::libev::{Libev, Role, Settings};
use fulmar_session::layer::{Readable, StreamEvent, StreamId, Writable};
use fulmar_session::transmit::{MAX_RUN_BYTES, MAX_SEGMENTS, Path};
use fulmar_session::{Endpoint, Event, SessionKey, measuring};
use fulmar_wire::libev::{Carrier, Method};
use fulmar_wire::time::Instant;

use crate::input::Input;

/// Largest IP packet, bytes.
const MTU: usize = 1400;
/// Sessions of the server, and of the client, which opens no more.
const SESSIONS: usize = 6;
/// Datagrams on their way; more are lost.
const ON_THE_WAY: usize = 64;

/// A server and a client, between which datagrams are lost, repeated, damaged and made up, and applications that read
/// and write at both.
///
/// Input: a byte each for the method and the settings; then operations, each a byte and what it needs.
pub fn libev_endpoint(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new(input.byte(), input.byte());
    for _ in 0..300 {
        if input.is_empty() {
            break;
        }
        let op = input.byte();
        let end = usize::from(op >> 3 & 1);
        match op % 8 {
            // A datagram or a run as it is, or as somebody with the key would send it, or that damaged.
            0 => {
                let (from, damage) = (input.byte(), input.byte());
                if let Some(body) = input.chunk() {
                    let segment = if op & 128 == 0 { 0 } else { damage.into() };
                    let seal = op & 16 == 0;
                    world.receive(end, path(from), body, segment, seal, |bytes| {
                        if op & 32 != 0
                            && let Some(byte) = bytes.get_mut(usize::from(damage))
                        {
                            *byte ^= 1 << (op >> 6 & 1);
                        }
                    });
                }
            }
            1 => world.pass(usize::from(input.byte())),
            // The next on its way: lost, said twice, damaged, or said by somebody else.
            2 => world.disturb(op >> 3, input.byte()),
            3 => world.now += Duration::from_millis(u64::from(input.u16())),
            4 => world.ends[end].read_all(world.now),
            5 => {
                let len = usize::from(input.u16());
                world.ends[end].write(op >> 4, len);
            }
            6 => world.command(end, op >> 4, input.byte()),
            _ => world.now += Duration::from_millis(u64::from(op >> 3)),
        }
        world.drive();
    }
    // Nothing passes any more. Whatever it was: sessions end, and nothing stays behind.
    for _ in 0..8 {
        world.wire.clear();
        world.now += Duration::from_secs(20);
        world.drive();
        for end in &mut world.ends {
            end.read_all(world.now);
            end.close_all(world.now);
        }
        world.drive();
    }
    for end in &mut world.ends {
        end.endpoint.shrink();
        assert_eq!(end.endpoint.sessions().count(), 0);
        assert!(end.streams.is_empty());
    }
}

struct World {
    /// The server and the client.
    ends: [End; 2],
    now: Instant,
    method: Method,
    /// For which end, from where, and what.
    wire: VecDeque<(usize, Path, Vec<u8>)>,
    /// Where the client is seen.
    client: Path,
}

struct End {
    endpoint: Endpoint,
    streams: Vec<(SessionKey, StreamId)>,
    opened: usize,
}

impl World {
    fn new(method: u8, flags: u8) -> Self {
        let method = match method % 8 {
            0..4 => Method::Plain,
            n => Method::SEALED[usize::from(n - 4)],
        };
        let now = Instant::from_millis(1000);
        let limits = Limits {
            unproven: 4,
            unproven_per_ip: 2,
            sessions: SESSIONS,
            ..Limits::default()
        };
        let server = Endpoint::server(
            dialect(Role::Server, Place::Bound, method, flags, now),
            vec![cipher(method, 1)],
            limits,
        );
        let mut servers = vec![path(0).remote];
        if flags & 1 != 0 {
            servers.push(path(5).remote);
        }
        let place = Place::Client { servers };
        let client = Endpoint::opener(
            dialect(Role::Client, place, method, flags, now),
            cipher(method, 2),
        );
        Self {
            ends: [server, client].map(End::new),
            now,
            method,
            wire: VecDeque::new(),
            client: path(1),
        }
    }

    /// A run arrives, perhaps sealed, and what is done to it then.
    fn receive(
        &mut self,
        end: usize,
        from: Path,
        run: &[u8],
        segment: usize,
        seal: bool,
        after: impl FnOnce(&mut [u8]),
    ) {
        let mut bytes = run.to_vec();
        if seal {
            SEALERS.with_borrow_mut(|sealers| {
                let index = METHODS.iter().position(|m| *m == self.method);
                let sealer = &mut sealers[index.unwrap_or(0)];
                bytes.resize(run.len() + sealer.overhead().back, 0);
                sealer.seal(&mut bytes, segment);
            });
        }
        after(&mut bytes);
        self.ends[end]
            .endpoint
            .handle_run(self.now, from, &mut bytes, segment);
    }

    /// What is on its way arrives, so many of it.
    fn pass(&mut self, most: usize) {
        for _ in 0..most {
            let Some((to, from, mut bytes)) = self.wire.pop_front() else {
                return;
            };
            let endpoint = &mut self.ends[to].endpoint;
            endpoint.handle_run(self.now, from, &mut bytes, 0);
            self.drive();
        }
    }

    fn disturb(&mut self, how: u8, which: u8) {
        let Some((to, from, mut bytes)) = self.wire.pop_front() else {
            return;
        };
        let now = self.now;
        match how % 6 {
            0 => return,
            1 => {
                let mut copy = bytes.clone();
                self.ends[to].endpoint.handle_run(now, from, &mut copy, 0);
            }
            2 => {
                let at = usize::from(which) % bytes.len().max(1);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << (which % 8);
                }
            }
            3 => bytes.truncate(which.into()),
            // Later.
            4 => return self.wire.push_back((to, from, bytes)),
            // The client has another address from now on.
            _ => self.client = path(which),
        }
        let from = if to == 0 { self.client } else { from };
        self.ends[to].endpoint.handle_run(now, from, &mut bytes, 0);
    }

    fn command(&mut self, end: usize, what: u8, which: u8) {
        let now = self.now;
        let end = &mut self.ends[end];
        match what % 8 {
            0 | 1 if end.opened < SESSIONS => {
                if let Ok(stream) = end.endpoint.open(now) {
                    end.opened += 1;
                    end.streams.push(stream);
                }
            }
            0..=2 => end.end(which, |endpoint, key, id| {
                endpoint.finish(now, key, id);
                false
            }),
            3 => end.end(which, |endpoint, key, id| {
                endpoint.reset(now, key, id);
                true
            }),
            4 => end.end(which, |endpoint, key, id| {
                endpoint.close(now, key, id);
                true
            }),
            5 => end.end(which, |endpoint, key, _| {
                endpoint.close_session(key);
                true
            }),
            6 => end.endpoint.resolved(now, vec![path(which & 3).remote]),
            _ => end.endpoint.local_changed(vec![path(which).remote]),
        }
    }

    /// What drivers do between two waits.
    fn drive(&mut self) {
        for at in 0..self.ends.len() {
            let mut rounds = 0;
            loop {
                let end = &mut self.ends[at];
                let done = end.endpoint.flush(self.now);
                while let Some(run) = end.endpoint.next_run() {
                    assert!((1..=MTU).contains(&run.segment()));
                    assert!(run.data().len() <= MAX_RUN_BYTES && run.count() <= MAX_SEGMENTS);
                    assert_eq!(run.data().len().div_ceil(run.segment()), run.count());
                    let from = if at == 0 { path(0) } else { self.client };
                    for datagram in run.data().chunks(run.segment()) {
                        if self.wire.len() < ON_THE_WAY {
                            self.wire.push_back((1 - at, from, datagram.to_vec()));
                        }
                    }
                    end.endpoint.recycle(run);
                }
                let more = end.take_events(self.now);
                if done && !more {
                    break;
                }
                rounds += 1;
                assert!(rounds < 1000, "flushing does not end");
            }
            let endpoint = &self.ends[at].endpoint;
            let due = endpoint.poll_timeout();
            assert!(due.is_none_or(|due| due > self.now), "a timer stands still");
            assert!(endpoint.sessions().count() <= SESSIONS);
        }
    }
}

impl End {
    const fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            streams: Vec::new(),
            opened: 0,
        }
    }

    /// Whether there were any that made work.
    fn take_events(&mut self, now: Instant) -> bool {
        let mut events = 0;
        let mut more = false;
        while let Some(event) = self.endpoint.poll_event() {
            events += 1;
            assert!(events < 10_000, "events do not end");
            match event {
                Event::Stream(key, StreamEvent::Opened(id)) => self.streams.push((key, id)),
                Event::Stream(key, StreamEvent::Reset(id)) => {
                    self.streams.retain(|s| *s != (key, id));
                    self.endpoint.close(now, key, id);
                    more = true;
                }
                Event::Closed(key, ..) => self.streams.retain(|s| s.0 != key),
                _ => {}
            }
        }
        more
    }

    fn read_all(&mut self, now: Instant) {
        for (key, id) in self.streams.clone() {
            while let Readable::Bytes(bytes) = self.endpoint.read(key, id) {
                let n = bytes.len();
                assert!(n > 0);
                self.endpoint.consume(now, key, id, n);
            }
        }
    }

    fn close_all(&mut self, now: Instant) {
        for (key, id) in self.streams.drain(..) {
            self.endpoint.close(now, key, id);
        }
    }

    fn write(&mut self, which: u8, len: usize) {
        let Some((key, id)) = self.pick(which) else {
            return;
        };
        let n = match self.endpoint.write(key, id, len) {
            Writable::Room(room) => {
                assert!(room.len() <= len);
                room.fill(which);
                room.len()
            }
            Writable::Full | Writable::Stopped => return,
        };
        self.endpoint.commit(key, id, n);
    }

    /// Does that to a stream; whether nothing holds it afterwards.
    fn end(&mut self, which: u8, how: impl FnOnce(&mut Endpoint, SessionKey, StreamId) -> bool) {
        if let Some((key, id)) = self.pick(which)
            && how(&mut self.endpoint, key, id)
        {
            self.streams.retain(|s| *s != (key, id));
        }
    }

    fn pick(&self, which: u8) -> Option<(SessionKey, StreamId)> {
        let at = usize::from(which) % self.streams.len().max(1);
        self.streams.get(at).copied()
    }
}

fn dialect(role: Role, place: Place, method: Method, flags: u8, now: Instant) -> Box<Libev> {
    let (timeout, linger) = (Duration::from_secs(60), Duration::from_secs(10));
    let control = Control::new(
        ControlSettings {
            place,
            keepalive: (flags & 2 == 0).then_some(Duration::from_secs(25)),
            timeout,
            seed: 3,
            allow_loopback: false,
        },
        now,
    );
    let settings = Settings {
        role,
        method,
        carrier: Carrier::Udp,
        ip_mtu: MTU,
        profile: Profile::new(1, 100, 0, false),
        snd_wnd: 32,
        rcv_wnd: 32,
        write_delay: flags & 4 != 0,
        ack_no_delay: flags & 8 != 0,
        auto: (flags & 16 != 0).then_some(measuring::Settings {
            redundancy: 25,
            parity: false,
            mtu: MTU,
            known: 0,
        }),
        timeout,
        linger,
        time_wait: Duration::from_secs(if flags & 64 == 0 { 120 } else { 1 }),
        receive_buffer: 32 * 1024,
        hold_end: flags & 32 != 0,
    };
    let probe = |datagram: &[u8]| libev_probe(&key(), datagram);
    Box::new(Libev::new(settings, control, 5, Box::new(probe)))
}

/// One of a few places; the first is the server's.
fn path(from: u8) -> Path {
    let host = [192, 0, 2, 1 + (from & 3)];
    Path {
        remote: SocketAddr::from((host, 1000 + u16::from(from >> 2 & 3))),
        local: None,
    }
}

fn key() -> LibevKey {
    LibevKey::from_bytes([7; 32])
}

fn cipher(method: Method, seed: u8) -> Box<dyn PacketCipher> {
    libev(method, &key(), NonceSource::seeded([seed; 32]))
}

/// All of them.
const METHODS: [Method; 5] = [
    Method::Plain,
    Method::SEALED[0],
    Method::SEALED[1],
    Method::SEALED[2],
    Method::SEALED[3],
];

thread_local! {
    /// A cipher per method for whoever has the key. The nonces drawn are all that one input leaves to the next.
    static SEALERS: RefCell<Vec<Box<dyn PacketCipher>>> =
        RefCell::new(METHODS.map(|method| cipher(method, 3)).into());
}
