//! Targets of `fulmar-session`: whole datagrams from anybody.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::OnceLock;
use std::time::Duration;

use fulmar_cipher::{
    MasterKey, Method, NonceSource, PacketCipher, derive_key, kcptun, kcptun2016_key,
};
use fulmar_codec::qpp;
use fulmar_session::admission::Limits;
use fulmar_session::arq::Profile;
use fulmar_session::dialect::kcptun::{Kcptun, Settings};
use fulmar_session::dialect::kcptun2016::{self as first, Kcptun2016, Vectors};
use fulmar_session::layer::{Readable, StreamEvent, StreamId, Writable};
use fulmar_session::transmit::{MAX_RUN_BYTES, MAX_SEGMENTS, Path};
use fulmar_session::{Endpoint, Event, SessionKey};
use fulmar_wire::kcptun2016::{self, Variant};
use fulmar_wire::time::Instant;

use crate::input::Input;

const MTU: usize = 1350;
/// The conversation of the golden sessions.
const CONV: u32 = 1_262_702_676;
const SESSIONS: usize = 6;

/// An endpoint with its sessions, to which anybody sends anything, and an application that reads and answers.
///
/// Input: a byte each for the role, method and dialect; then operations, each a byte and what it needs.
pub fn session_endpoint(data: &[u8]) {
    let mut input = Input::new(data);
    let world = World::kcptun(input.byte(), input.byte());
    play(world, input);
}

/// The same with kcptun of spring 2016: the second byte chooses how packets are protected and what a client speaks.
pub fn kcptun2016_endpoint(data: &[u8]) {
    let mut input = Input::new(data);
    let world = World::kcptun2016(input.byte(), input.byte());
    play(world, input);
}

fn play(mut world: World, mut input: Input<'_>) {
    for _ in 0..300 {
        if input.is_empty() {
            break;
        }
        let op = input.byte();
        match op % 8 {
            // Datagrams as they are, or, with a cipher, as somebody with the key would send them.
            0 | 1 => {
                let from = input.byte();
                if let Some(body) = input.chunk() {
                    world.receive(from, body, 0, op & 8 == 0);
                }
            }
            2 => {
                let from = input.byte();
                let segment = usize::from(input.u16());
                if let Some(run) = input.chunk() {
                    world.receive(from, run, segment, false);
                }
            }
            3 => world.now += Duration::from_millis(u64::from(input.u16())),
            4 => world.read_all(),
            5 => world.write(input.byte(), input.u16()),
            6 => world.end(input.byte(), op),
            _ => world.now += Duration::from_millis(u64::from(input.byte())),
        }
        world.drive();
    }
    // Whatever it was: sessions end when nobody is there, and nothing stays behind.
    for _ in 0..8 {
        world.now += Duration::from_secs(20);
        world.drive();
        world.read_all();
    }
    world.endpoint.shrink();
    if world.server {
        assert_eq!(world.endpoint.sessions().count(), 0);
        assert!(world.streams.is_empty());
    }
}

struct World {
    endpoint: Endpoint,
    server: bool,
    now: Instant,
    streams: Vec<(SessionKey, StreamId)>,
    /// What a peer with the key seals with: its place in [`SEALERS`].
    sealer: usize,
    buffer: Vec<u8>,
}

impl World {
    fn kcptun(role: u8, flags: u8) -> Self {
        let server = role.is_multiple_of(2);
        let method = match (role >> 1) % 4 {
            0 | 1 => Method::Null,
            2 => Method::Aes128Gcm,
            _ => Method::Aes,
        };
        let settings = Settings {
            server,
            mtu: MTU,
            profile: Profile::FAST3,
            snd_wnd: 32,
            rcv_wnd: 32,
            ack_no_delay: flags & 1 != 0,
            fec: (flags & 2 != 0).then_some((3, 2)),
            smux_version: if flags & 4 == 0 { 2 } else { 1 },
            smux_buffer: 65_536,
            frame_size: 4096,
            stream_buffer: 32_768,
            keep_alive: Duration::from_secs(10),
            fin_hold: Duration::from_secs(3),
            compression: flags & 8 != 0,
            qpp: (flags & 16 != 0).then(|| pads().clone()),
            rate_limit: (flags & 32 != 0).then_some(100_000),
            auto: None,
        };
        let mut dialect =
            Kcptun::new(settings, key().clone()).with_tokens(NonceSource::seeded([3; 32]));
        let now = Instant::from_millis(1000);
        let cipher = kcptun(method, key(), NonceSource::seeded([1; 32]));
        let endpoint = if server {
            let mut ciphers = vec![cipher];
            if flags & 64 != 0 {
                ciphers.push(kcptun(Method::None, key(), NonceSource::seeded([2; 32])));
            }
            Endpoint::server(Box::new(dialect), ciphers, limits())
        } else {
            let parts = dialect.open(path(0), CONV, method, now);
            Endpoint::client(Box::new(dialect), cipher, parts, now).0
        };
        let sealer = Method::ALL.iter().position(|m| *m == method);
        Self::with(endpoint, server, now, sealer.unwrap_or(0))
    }

    fn kcptun2016(role: u8, flags: u8) -> Self {
        let server = role.is_multiple_of(2);
        use kcptun2016::Method::{Plain, Sealed};
        // A server without a key takes both.
        let methods: &[_] = match flags {
            _ if server && flags & 64 != 0 => &[Sealed, Plain],
            _ if flags & 1 == 0 => &[Plain],
            _ => &[Sealed],
        };
        let variant = Variant::ALL[usize::from(flags >> 1) % Variant::ALL.len()];
        let settings = first::Settings {
            server,
            methods,
            mtu: MTU,
            profile: Profile::FAST3,
            snd_wnd: 32,
            rcv_wnd: 32,
            ack_no_delay: flags & 8 != 0,
            mux_buffer: 524_288,
            frame_size: 4096,
            stream_buffer: 262_144,
            keep_alive: Duration::from_secs(10),
            fin_hold: Duration::from_secs(3),
            rate_limit: (flags & 32 != 0).then_some(100_000),
            auto: None,
        };
        let mut dialect = Kcptun2016::new(settings, first_key().clone(), Box::new(|_| None))
            .with_tokens(NonceSource::seeded([3; 32]));
        let now = Instant::from_millis(1000);
        let cipher =
            |&method| fulmar_cipher::kcptun2016(method, first_key(), NonceSource::seeded([1; 32]));
        let endpoint = if server {
            let ciphers = methods.iter().map(cipher).collect();
            Endpoint::server(Box::new(dialect), ciphers, limits())
        } else {
            let cipher = cipher(&methods[0]);
            let vectors = Vectors::new(variant, flags & 16 != 0, [7; 32]);
            let parts = dialect.open(path(0), CONV, vectors, now);
            Endpoint::client(Box::new(dialect), cipher, parts, now).0
        };
        let sealer = Method::ALL.len() + usize::from(flags & 1);
        Self::with(endpoint, server, now, sealer)
    }

    const fn with(endpoint: Endpoint, server: bool, now: Instant, sealer: usize) -> Self {
        Self {
            endpoint,
            server,
            now,
            streams: Vec::new(),
            sealer,
            buffer: Vec::new(),
        }
    }

    /// A run arrives.
    fn receive(&mut self, from: u8, run: &[u8], segment: usize, seal: bool) {
        self.buffer.clear();
        if seal {
            SEALERS.with_borrow_mut(|sealers| {
                let sealer = &mut sealers[self.sealer];
                let overhead = sealer.overhead();
                self.buffer.resize(overhead.front, 0);
                self.buffer.extend_from_slice(run);
                self.buffer.resize(overhead.total() + run.len(), 0);
                sealer.seal(&mut self.buffer, 0);
            });
        } else {
            self.buffer.extend_from_slice(run);
        }
        self.endpoint
            .handle_run(self.now, path(from), &mut self.buffer, segment);
    }

    /// What a driver does between two waits.
    fn drive(&mut self) {
        let mut rounds = 0;
        loop {
            let done = self.endpoint.flush(self.now);
            while let Some(run) = self.endpoint.next_run() {
                assert!((1..=MTU).contains(&run.segment()));
                assert!(run.data().len() <= MAX_RUN_BYTES && run.count() <= MAX_SEGMENTS);
                assert_eq!(run.data().len().div_ceil(run.segment()), run.count());
                self.endpoint.recycle(run);
            }
            if done {
                break;
            }
            rounds += 1;
            assert!(rounds < 1000, "flushing does not end");
        }
        let mut events = 0;
        while let Some(event) = self.endpoint.poll_event() {
            events += 1;
            assert!(events < 10_000, "events do not end");
            match event {
                Event::Opened(key, _) => {
                    if !self.server
                        && let Ok(id) = self.endpoint.open_stream(self.now, key)
                    {
                        self.streams.push((key, id));
                    }
                }
                Event::Stream(key, StreamEvent::Opened(id)) => self.streams.push((key, id)),
                Event::Stream(key, StreamEvent::Reset(id)) => {
                    self.streams.retain(|s| *s != (key, id));
                    self.endpoint.close(self.now, key, id);
                }
                Event::Closed(key, ..) => self.streams.retain(|s| s.0 != key),
                _ => {}
            }
        }
        while !self.endpoint.flush(self.now) {
            while let Some(run) = self.endpoint.next_run() {
                self.endpoint.recycle(run);
            }
        }
        let due = self.endpoint.poll_timeout();
        assert!(due.is_none_or(|due| due > self.now), "a timer stands still");
        assert!(self.endpoint.sessions().count() <= SESSIONS);
    }

    fn read_all(&mut self) {
        for (key, id) in self.streams.clone() {
            while let Readable::Bytes(bytes) = self.endpoint.read(key, id) {
                let n = bytes.len();
                assert!(n > 0);
                self.endpoint.consume(self.now, key, id, n);
            }
        }
    }

    fn write(&mut self, which: u8, len: u16) {
        if let Some((key, id)) = self.pick(which) {
            let n = match self.endpoint.write(key, id, usize::from(len)) {
                Writable::Room(room) => {
                    assert!(room.len() <= usize::from(len));
                    room.fill(which);
                    room.len()
                }
                Writable::Full | Writable::Stopped => return,
            };
            self.endpoint.commit(key, id, n);
        }
    }

    fn end(&mut self, which: u8, how: u8) {
        if let Some((key, id)) = self.pick(which) {
            match how >> 4 & 3 {
                0 => return self.endpoint.finish(self.now, key, id),
                1 => self.endpoint.reset(self.now, key, id),
                2 => self.endpoint.close(self.now, key, id),
                _ => return self.endpoint.close_session(key),
            }
            self.streams.retain(|s| *s != (key, id));
        }
    }

    fn pick(&self, which: u8) -> Option<(SessionKey, StreamId)> {
        let at = usize::from(which) % self.streams.len().max(1);
        self.streams.get(at).copied()
    }
}

/// One of a few places.
fn path(from: u8) -> Path {
    let host = [192, 0, 2, 1 + (from & 3)];
    Path {
        remote: SocketAddr::from((host, 1000 + u16::from(from >> 2 & 3))),
        local: None,
    }
}

fn key() -> &'static MasterKey {
    static KEY: OnceLock<MasterKey> = OnceLock::new();
    KEY.get_or_init(|| derive_key(b"it's a secrect"))
}

fn first_key() -> &'static MasterKey {
    static KEY: OnceLock<MasterKey> = OnceLock::new();
    KEY.get_or_init(|| kcptun2016_key(b"it's a secrect"))
}

fn limits() -> Limits {
    Limits {
        unproven: 4,
        unproven_per_ip: 2,
        sessions: SESSIONS,
        ..Limits::default()
    }
}

fn pads() -> &'static qpp::Pads {
    static PADS: OnceLock<qpp::Pads> = OnceLock::new();
    PADS.get_or_init(|| {
        let count = NonZeroU16::MIN.saturating_add(60);
        qpp::Pads::new(b"it's a secrect", count, qpp::Generation::Current)
    })
}

thread_local! {
    /// A cipher per method for whoever has the key, those of 2016 last. The nonces drawn are all that one input leaves to the next.
    static SEALERS: RefCell<Vec<Box<dyn PacketCipher>>> = RefCell::new({
        let nonces = || NonceSource::seeded([3; 32]);
        let today = Method::ALL.into_iter().map(|method| kcptun(method, key(), nonces()));
        let first = [kcptun2016::Method::Plain, kcptun2016::Method::Sealed];
        let first = first.map(|method| fulmar_cipher::kcptun2016(method, first_key(), nonces()));
        today.chain(first).collect()
    });
}
