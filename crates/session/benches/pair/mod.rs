//! A server and a client back to back in virtual time, with one stream between them: the load of the criterion benches
//! and of the instruction counts (`bench/instructions`).
//!
//! What a socket would do, copying a run from one end to the other, happens between the two and can be told apart
//! from their work by a [`Watch`].

use std::time::Duration;

use fulmar_arq::Profile;
use fulmar_cipher::{Kernel, MasterKey, NonceSource};
use fulmar_session::admission::Limits;
use fulmar_session::dialect::kcptun::{Kcptun, Settings};
use fulmar_session::endpoint::Event;
use fulmar_session::layer::{Readable, StreamEvent, StreamId, Writable};
use fulmar_session::transmit::Path;
use fulmar_session::{Endpoint, SessionKey};
use fulmar_wire::kcptun::Method;
use fulmar_wire::time::Instant;

/// Bytes of a stream in one packet of 1350 bytes with aes and parity: less nonce and checksum, FEC and KCP header.
pub(crate) const PAYLOAD: usize = 1350 - 20 - 8 - 24;
/// From one turn to the next.
const TURN: Duration = Duration::from_millis(1);
/// What the application hands over at a time.
const WRITE: usize = 64 * 1024;

/// One of the two ends.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    /// The end that sends in bulk.
    Server,
    /// The end that opened the stream.
    Client,
}

/// Sees the work of either end go by.
pub(crate) trait Watch {
    /// Does `work`, which is `side`'s.
    fn watch<R>(&mut self, side: Side, work: impl FnOnce() -> R) -> R;
}

/// Looks at nothing.
pub(crate) struct Nobody;

impl Watch for Nobody {
    fn watch<R>(&mut self, _: Side, work: impl FnOnce() -> R) -> R {
        work()
    }
}

/// What differs between the loads. The rest are kcptun's defaults.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Flags {
    /// `--crypt`.
    pub(crate) method: Method,
    /// `--datashard`, `--parityshard`.
    pub(crate) fec: Option<(usize, usize)>,
    /// The opposite of `--nocomp`.
    pub(crate) compression: bool,
    /// The cipher's instructions.
    pub(crate) kernel: Kernel,
}

impl Flags {
    /// What both ends use when they are told nothing.
    pub(crate) fn defaults(kernel: Kernel) -> Self {
        Self {
            method: Method::Aes,
            fec: Some((10, 3)),
            compression: true,
            kernel,
        }
    }

    /// `--crypt null --datashard 0 --parityshard 0 --nocomp`: what is left is KCP and smux.
    pub(crate) fn bare(kernel: Kernel) -> Self {
        Self {
            method: Method::Null,
            fec: None,
            compression: false,
            kernel,
        }
    }

    fn settings(self, server: bool) -> Settings {
        Settings {
            server,
            mtu: 1350,
            profile: Profile::FAST,
            snd_wnd: if server { 1024 } else { 128 },
            rcv_wnd: if server { 1024 } else { 512 },
            ack_no_delay: false,
            fec: self.fec,
            smux_version: 2,
            smux_buffer: 4 << 20,
            frame_size: 8192,
            stream_buffer: 2 << 20,
            keep_alive: Duration::from_secs(10),
            fin_hold: Duration::from_secs(30),
            compression: self.compression,
            qpp: None,
            rate_limit: None,
            auto: None,
        }
    }
}

struct End {
    side: Side,
    endpoint: Endpoint,
    stream: Option<(SessionKey, StreamId)>,
    /// Runs that arrive with the next turn, and their segments. Buffers are used again.
    inbox: Vec<(Vec<u8>, usize)>,
    spare: Vec<Vec<u8>>,
    /// Bytes of the stream that were read.
    read: u64,
}

/// Both ends. See the module's documentation.
pub(crate) struct Pair {
    now: Instant,
    server: End,
    client: End,
    /// What is written: neither compressible nor the same for long.
    noise: Vec<u8>,
}

impl Pair {
    /// Both ends with a stream that has carried its first bytes both ways.
    pub(crate) fn new(flags: Flags) -> Self {
        let now = Instant::from_millis(1000);
        let key = MasterKey::from_bytes([7; 32]);
        let cipher = |seed| {
            fulmar_cipher::kcptun_on(flags.kernel, flags.method, &key, NonceSource::seeded(seed))
        };
        let path = path();
        let dialect = Kcptun::new(flags.settings(true), key.clone());
        let server = Endpoint::server(Box::new(dialect), vec![cipher([1; 32])], Limits::default());
        let mut dialect = Kcptun::new(flags.settings(false), key.clone());
        let parts = dialect.open(path, 1, flags.method, now);
        let (mut client, session) =
            Endpoint::client(Box::new(dialect), cipher([2; 32]), parts, now);
        let stream = client.open_stream(now, session).expect("a stream");
        let mut pair = Self {
            now,
            server: End::new(Side::Server, server, None),
            client: End::new(Side::Client, client, Some((session, stream))),
            noise: noise(1 << 20),
        };
        pair.echo(100, &mut Nobody);
        pair
    }

    /// Bytes of bulk data that the client has read.
    pub(crate) fn received(&self) -> u64 {
        self.client.read
    }

    /// A turn in which the server writes as much as it can.
    pub(crate) fn bulk(&mut self, watch: &mut impl Watch) {
        self.turn([usize::MAX, 0], watch);
    }

    /// `len` bytes from the client to the server and as many back. Both ends are quiet before and after.
    pub(crate) fn echo(&mut self, len: usize, watch: &mut impl Watch) {
        let (there, back) = (self.server.read + len as u64, self.client.read + len as u64);
        self.turn([0, len], watch);
        self.turns_until(watch, |pair| pair.server.read == there);
        self.turn([len, 0], watch);
        self.turns_until(watch, |pair| pair.client.read == back);
        // The acknowledgements, too.
        self.turns_until(watch, |pair| pair.server.quiet() && pair.client.quiet());
    }

    fn turns_until(&mut self, watch: &mut impl Watch, done: impl Fn(&Self) -> bool) {
        let mut turns = 0;
        while !done(self) {
            self.turn([0, 0], watch);
            turns += 1;
            assert!(turns < 10_000, "it does not arrive");
        }
    }

    /// A millisecond later: what was sent has arrived; server and client write at most so many bytes.
    fn turn(&mut self, write: [usize; 2], watch: &mut impl Watch) {
        self.now += TURN;
        let (server, client) = (&mut self.server, &mut self.client);
        server.work(self.now, write[0], &self.noise, watch);
        client.work(self.now, write[1], &self.noise, watch);
        while !server.flush(self.now, client, watch) {}
        while !client.flush(self.now, server, watch) {}
    }
}

impl End {
    fn new(side: Side, endpoint: Endpoint, stream: Option<(SessionKey, StreamId)>) -> Self {
        Self {
            side,
            endpoint,
            stream,
            inbox: Vec::new(),
            spare: Vec::new(),
            read: 0,
        }
    }

    /// Takes in what has arrived, reads, writes.
    fn work(&mut self, now: Instant, write: usize, noise: &[u8], watch: &mut impl Watch) {
        for (mut run, segment) in self.inbox.drain(..) {
            let endpoint = &mut self.endpoint;
            watch.watch(self.side, || {
                endpoint.handle_run(now, path(), &mut run, segment);
            });
            run.clear();
            self.spare.push(run);
        }
        watch.watch(self.side, || {
            while let Some(event) = self.endpoint.poll_event() {
                match event {
                    Event::Stream(session, StreamEvent::Opened(stream)) => {
                        self.stream = Some((session, stream));
                    }
                    Event::Closed(.., reason) => panic!("{reason}"),
                    _ => {}
                }
            }
            let Some((session, stream)) = self.stream else {
                return;
            };
            while let Readable::Bytes(bytes) = self.endpoint.read(session, stream) {
                let n = bytes.len();
                self.endpoint.consume(now, session, stream, n);
                self.read += n as u64;
            }
            let mut left = write;
            while left > 0
                && let Writable::Room(room) = self.endpoint.write(session, stream, left.min(WRITE))
            {
                let n = room.len().min(left);
                room[..n].copy_from_slice(&noise[..n]);
                self.endpoint.commit(session, stream, n);
                left -= n;
            }
        });
    }

    /// Sends to `peer`. `false` when there is more.
    fn flush(&mut self, now: Instant, peer: &mut Self, watch: &mut impl Watch) -> bool {
        let endpoint = &mut self.endpoint;
        let due = endpoint.poll_timeout().is_some_and(|at| at <= now);
        if !(due || endpoint.wants_flush()) {
            return true;
        }
        let done = watch.watch(self.side, || endpoint.flush(now));
        while let Some(run) = endpoint.next_run() {
            let mut copy = peer.spare.pop().unwrap_or_default();
            copy.extend_from_slice(run.data());
            peer.inbox.push((copy, run.segment()));
            watch.watch(self.side, || endpoint.recycle(run));
        }
        done
    }

    /// Whether nothing is under way in either direction.
    fn quiet(&self) -> bool {
        let mut sessions = self.endpoint.sessions();
        self.inbox.is_empty()
            && sessions.all(|key| {
                let session = self.endpoint.session(key);
                session.is_some_and(|session| session.kcp().is_idle())
            })
    }
}

fn path() -> Path {
    Path {
        remote: ([192, 0, 2, 1], 29900).into(),
        local: None,
    }
}

/// Bytes that do not compress.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(len).collect()
}
