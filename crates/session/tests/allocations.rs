//! In the steady state nothing is allocated per packet: two endpoints pass bulk data, a counting allocator looks on.
//!
//! This is a test binary of its own because the allocator is the process's. Only the thread that measures counts.

// An allocator cannot be written without.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::VecDeque;
use std::time::Duration;

use fulmar_arq::Profile;
use fulmar_cipher::{MasterKey, NonceSource};
use fulmar_session::admission::Limits;
use fulmar_session::dialect::kcptun::{Kcptun, Settings};
use fulmar_session::endpoint::Event;
use fulmar_session::layer::{Readable, StreamEvent, StreamId, Writable};
use fulmar_session::transmit::{MAX_RUN_BYTES, Path};
use fulmar_session::{Endpoint, SessionKey};
use fulmar_wire::kcptun::Method;
use fulmar_wire::time::Instant;

struct Counting;

thread_local! {
    /// Allocations of this thread, and the bytes that it holds.
    static COUNT: Cell<u64> = const { Cell::new(0) };
    static HELD: Cell<i64> = const { Cell::new(0) };
}

fn note(bytes: i64) {
    // A thread that is ending has no place to count in, and nobody who asks.
    let _ = HELD.try_with(|held| held.set(held.get() + bytes));
    if bytes > 0 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
    }
}

fn size(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

// SAFETY: every call is passed on to the system's allocator as it is; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(size(layout.size()));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        note(-size(layout.size()));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        note(-size(layout.size()));
        note(size(new_size));
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One way between two endpoints: runs that arrive some milliseconds later. Its buffers are used again.
struct Pipe {
    under_way: VecDeque<(Instant, Vec<u8>, usize)>,
    spare: Vec<Vec<u8>>,
    /// Of each so many datagrams one gets lost; 0 for none.
    lose_one_of: u64,
    datagrams: u64,
}

const DELAY: Duration = Duration::from_millis(10);

impl Pipe {
    fn new(lose_one_of: u64) -> Self {
        Self {
            under_way: VecDeque::with_capacity(4096),
            spare: (0..512)
                .map(|_| Vec::with_capacity(MAX_RUN_BYTES))
                .collect(),
            lose_one_of,
            datagrams: 0,
        }
    }

    fn send(&mut self, now: Instant, endpoint: &mut Endpoint) {
        while let Some(run) = endpoint.next_run() {
            let mut copy = self.spare.pop().expect("enough spare buffers");
            for datagram in run.data().chunks(run.segment()) {
                self.datagrams += 1;
                let lost = self.lose_one_of > 0 && self.datagrams.is_multiple_of(self.lose_one_of);
                if !lost {
                    copy.extend_from_slice(datagram);
                }
            }
            self.under_way.push_back((now + DELAY, copy, run.segment()));
            endpoint.recycle(run);
        }
    }

    fn arrive(&mut self, now: Instant, endpoint: &mut Endpoint, path: Path) {
        while let Some((at, ..)) = self.under_way.front()
            && *at <= now
            && let Some((_, mut run, segment)) = self.under_way.pop_front()
        {
            endpoint.handle_run(now, path, &mut run, segment);
            run.clear();
            self.spare.push(run);
        }
    }
}

#[derive(Copy, Clone, Debug)]
struct Case {
    method: Method,
    fec: Option<(usize, usize)>,
    smux: u8,
    compression: bool,
    lose_one_of: u64,
    window: u32,
}

const PLAIN: Case = Case {
    method: Method::Aes,
    fec: None,
    smux: 2,
    compression: false,
    lose_one_of: 0,
    window: 512,
};

fn settings(case: Case, server: bool) -> Settings {
    Settings {
        server,
        mtu: 1350,
        profile: Profile::FAST,
        snd_wnd: case.window,
        rcv_wnd: case.window,
        ack_no_delay: false,
        fec: case.fec,
        smux_version: case.smux,
        smux_buffer: 4 << 20,
        frame_size: 8192,
        stream_buffer: 2 << 20,
        keep_alive: Duration::from_secs(10),
        fin_hold: Duration::from_secs(30),
        compression: case.compression,
        qpp: None,
        rate_limit: None,
        auto: None,
    }
}

fn path() -> Path {
    Path {
        remote: ([192, 0, 2, 1], 29900).into(),
        local: None,
    }
}

fn key() -> MasterKey {
    MasterKey::from_bytes([7; 32])
}

fn server(case: Case, limits: Limits) -> Endpoint {
    let cipher = fulmar_cipher::kcptun(case.method, &key(), NonceSource::seeded([1; 32]));
    let dialect =
        Kcptun::new(settings(case, true), key()).with_tokens(NonceSource::seeded([3; 32]));
    Endpoint::server(Box::new(dialect), vec![cipher], limits)
}

fn measuring_server(case: Case, limits: Limits) -> Endpoint {
    let cipher = fulmar_cipher::kcptun(case.method, &key(), NonceSource::seeded([1; 32]));
    let settings = Settings {
        auto: Some(fulmar_session::measuring::Settings {
            redundancy: 25,
            parity: true,
            mtu: 1350,
            known: 0,
        }),
        ..settings(case, true)
    };
    let dialect = Kcptun::new(settings, key()).with_tokens(NonceSource::seeded([3; 32]));
    Endpoint::server(Box::new(dialect), vec![cipher], limits)
}

fn client(case: Case, conv: u32, now: Instant) -> (Endpoint, SessionKey) {
    let mut seed = [2; 32];
    seed[..4].copy_from_slice(&conv.to_le_bytes());
    let cipher = fulmar_cipher::kcptun(case.method, &key(), NonceSource::seeded(seed));
    let mut dialect =
        Kcptun::new(settings(case, false), key()).with_tokens(NonceSource::seeded([4; 32]));
    let parts = dialect.open(path(), conv, case.method, now);
    Endpoint::client(Box::new(dialect), cipher, parts, now)
}

fn write_all(endpoint: &mut Endpoint, at: (SessionKey, StreamId)) {
    while let Writable::Room(room) = endpoint.write(at.0, at.1, usize::MAX) {
        let n = room.len();
        // Neither all the same nor random, so that compression has something to do.
        for (i, b) in room.iter_mut().enumerate() {
            *b = ((i * i) >> 3) as u8;
        }
        endpoint.commit(at.0, at.1, n);
    }
}

/// As a pump does it: nobody knows how much will come.
fn write_some(endpoint: &mut Endpoint, at: (SessionKey, StreamId), n: usize) {
    let Writable::Room(room) = endpoint.write(at.0, at.1, 64 * 1024) else {
        panic!("no room for {n} bytes");
    };
    room[..n].fill(7);
    endpoint.commit(at.0, at.1, n);
}

fn read_all(endpoint: &mut Endpoint, now: Instant, at: (SessionKey, StreamId)) -> u64 {
    let mut all = 0;
    while let Readable::Bytes(bytes) = endpoint.read(at.0, at.1) {
        let n = bytes.len();
        endpoint.consume(now, at.0, at.1, n);
        all += n as u64;
    }
    all
}

/// A client and a server, both ways of a path between them, and one stream.
struct Pair {
    now: Instant,
    ends: [Endpoint; 2],
    pipes: [Pipe; 2],
    streams: [Option<(SessionKey, StreamId)>; 2],
    read: u64,
    /// Answers to streams other than that one: the server sends back what they bring.
    echoes: usize,
}

impl Pair {
    fn new(case: Case) -> Self {
        let now = Instant::from_millis(1000);
        let (mut client, session) = client(case, 1, now);
        let stream = client.open_stream(now, session).expect("a stream");
        Self {
            now,
            ends: [client, server(case, Limits::default())],
            pipes: [(); 2].map(|()| Pipe::new(case.lose_one_of)),
            streams: [Some((session, stream)), None],
            read: 0,
            echoes: 0,
        }
    }

    fn packets(&self) -> u64 {
        self.pipes[0].datagrams + self.pipes[1].datagrams
    }

    /// A millisecond later; both ends write what they can, if they are to.
    fn turn(&mut self, write: bool) {
        self.now += Duration::from_millis(1);
        let now = self.now;
        for i in [0, 1] {
            self.pipes[i].arrive(now, &mut self.ends[1 - i], path());
        }
        for i in [0, 1] {
            let (endpoint, pipe) = (&mut self.ends[i], &mut self.pipes[i]);
            if let Some(stream) = self.streams[i] {
                self.read += read_all(endpoint, now, stream);
                if write {
                    write_all(endpoint, stream);
                }
            }
            let due = endpoint.poll_timeout().is_some_and(|at| at <= now);
            if due || endpoint.wants_flush() {
                while !endpoint.flush(now) {
                    pipe.send(now, endpoint);
                }
                pipe.send(now, endpoint);
            }
            while let Some(event) = endpoint.poll_event() {
                match event {
                    Event::Stream(key, StreamEvent::Opened(id)) => {
                        self.streams[i].get_or_insert((key, id));
                    }
                    Event::Stream(key, StreamEvent::Readable(id))
                        if self.streams[i] != Some((key, id)) =>
                    {
                        let n = read_all(endpoint, now, (key, id)) as usize;
                        match i {
                            0 => self.echoes += usize::from(n > 0),
                            _ => write_some(endpoint, (key, id), n),
                        }
                    }
                    Event::Closed(.., reason) => panic!("{reason}"),
                    _ => {}
                }
            }
        }
    }
}

/// Allocations per packet and packets, while bulk data goes both ways.
fn measure(case: Case) -> (f64, u64) {
    let mut pair = Pair::new(case);
    // A second to warm up, then what counts.
    (0..1000).for_each(|_| pair.turn(true));
    let start = (COUNT.get(), pair.packets());
    (0..1000).for_each(|_| pair.turn(true));
    let packets = pair.packets() - start.1;
    assert!(pair.read > 1_000_000, "{case:?}: {} bytes", pair.read);
    ((COUNT.get() - start.0) as f64 / packets as f64, packets)
}

#[test]
fn bulk_allocates_nothing_per_packet() {
    let fec = Some((10, 3));
    let cases = [
        PLAIN,
        Case { fec, ..PLAIN },
        Case {
            fec,
            lose_one_of: 19,
            ..PLAIN
        },
        Case {
            lose_one_of: 19,
            ..PLAIN
        },
        Case {
            method: Method::Aes128Gcm,
            ..PLAIN
        },
        Case {
            method: Method::Salsa20,
            fec,
            ..PLAIN
        },
        Case {
            method: Method::Null,
            ..PLAIN
        },
        Case { smux: 1, ..PLAIN },
        Case {
            compression: true,
            ..PLAIN
        },
        Case {
            window: 4096,
            ..PLAIN
        },
        Case {
            window: 32,
            ..PLAIN
        },
    ];
    let mut told = Vec::new();
    for case in cases {
        let (per_packet, packets) = measure(case);
        told.push(format!("{per_packet:.5} of {packets} packets: {case:?}"));
        assert!(per_packet < 0.001, "{told:#?}");
    }
}

/// Bytes that this thread holds more after `f` than before.
fn held_by<T>(f: impl FnOnce() -> T) -> (T, i64) {
    let before = HELD.get();
    let made = f();
    (made, HELD.get() - before)
}

/// The opening datagrams of so many clients, each from an address of its own, that reach the server too late by one.
fn strangers(case: Case, n: u16) -> Vec<(Path, Vec<u8>)> {
    let now = Instant::from_millis(1000);
    let mut all = Vec::new();
    for i in 0..n {
        let (mut client, session) = client(case, u32::from(i) + 1, now);
        let id = client.open_stream(now, session).expect("a stream");
        write_all(&mut client, (session, id));
        assert!(client.flush(now));
        let run = client.next_run().expect("a run");
        let path = Path {
            remote: ([198, 51, (i >> 8) as u8, i as u8], 1000).into(),
            ..path()
        };
        let second = run.data().chunks(run.segment()).nth(1);
        all.push((path, second.expect("more than one").to_vec()));
    }
    all
}

#[test]
fn strangers_cost_little() {
    for fec in [None, Some((10, 3))] {
        let case = Case { fec, ..PLAIN };
        let now = Instant::from_millis(1000);
        let mut server = server(case, Limits::default());
        let mut crowd = strangers(case, 1000);
        let ((), held) = held_by(|| {
            for (path, datagram) in &mut crowd {
                server.handle_run(now, *path, datagram, 0);
                while !server.flush(now) {
                    while let Some(run) = server.next_run() {
                        server.recycle(run);
                    }
                }
                while server.poll_event().is_some() {}
            }
        });
        assert_eq!(server.sessions().count(), 1000);
        // Two received segments, what names a session, and the first group of parity.
        assert!(held / 1000 < 32 * 1024, "{} bytes each", held / 1000);
    }
}

#[test]
fn a_burst_gives_its_memory_back() {
    let case = Case {
        fec: Some((10, 3)),
        window: 4096,
        ..PLAIN
    };
    let before = HELD.get();
    let mut pair = Pair::new(case);
    // The pipes' own buffers are no part of it.
    let pipes = HELD.get() - before;
    (0..500).for_each(|_| pair.turn(true));
    let busy = HELD.get() - before - pipes;
    (0..25_000).for_each(|_| pair.turn(false));
    for endpoint in &mut pair.ends {
        endpoint.shrink();
    }
    let idle = HELD.get() - before - pipes;
    assert!(busy > 4 << 20, "{busy} bytes while busy");
    // Both ends together: what names a session, two segments each way, a group of parity.
    assert!(idle < 128 << 10, "{idle} bytes at rest");
}

/// Opens so many streams at once, each of which carries a few bytes there and back and then stays. What both ends hold for
/// them: at most, and when all is quiet again.
fn hold(case: Case, n: usize) -> (i64, i64) {
    let mut pair = Pair::new(case);
    let settle = |pair: &mut Pair| {
        (0..500).for_each(|_| pair.turn(false));
        pair.ends.iter_mut().for_each(Endpoint::shrink);
        HELD.get()
    };
    let before = settle(&mut pair);
    let (key, _) = pair.streams[0].expect("a session");
    for _ in 0..n {
        let id = pair.ends[0].open_stream(pair.now, key);
        write_some(&mut pair.ends[0], (key, id.expect("a stream")), 25);
    }
    let mut most = HELD.get();
    for _ in 0..5000 {
        pair.turn(false);
        most = most.max(HELD.get());
    }
    assert_eq!(pair.echoes, n);
    (most - before, settle(&mut pair) - before)
}

#[test]
fn idle_streams_cost_little_and_crowds_not_much_more() {
    let n = 2000;
    for smux in [1, 2] {
        let case = Case {
            fec: Some((10, 3)),
            smux,
            ..PLAIN
        };
        let (most, idle) = hold(case, n);
        let each = |bytes: i64| bytes / (2 * size(n));
        // Of the 2 KiB that a stream may cost an end; the rest is the runtime's.
        assert!(each(idle) <= 384, "{} bytes per stream and end", each(idle));
        // What is on its way, and tables that have doubled.
        assert!(
            each(most) <= 1024,
            "{} bytes per stream and end",
            each(most)
        );
    }
}

/// An end of kcptun-libev, with the defaults of its files.
fn libev(server: bool, auto: bool, now: Instant) -> Endpoint {
    use fulmar_session::dialect::libev::control::{self, Control, Place};
    use fulmar_session::dialect::libev::{Libev, Role, Settings};
    let place = if server {
        Place::Bound
    } else {
        let servers = vec![path().remote];
        Place::Client { servers }
    };
    let control = control::Settings {
        place,
        keepalive: Some(Duration::from_secs(25)),
        timeout: Duration::from_secs(600),
        seed: 7,
        allow_loopback: false,
    };
    let method = fulmar_wire::libev::Method::XChaCha20Poly1305;
    let settings = Settings {
        role: if server { Role::Server } else { Role::Client },
        method,
        carrier: fulmar_wire::libev::Carrier::Udp,
        ip_mtu: 1400,
        profile: Profile::new(1, if auto { 10 } else { 50 }, 0, false),
        snd_wnd: if auto { fulmar_arq::MAX_WINDOW } else { 256 },
        rcv_wnd: if auto { 6000 } else { 256 },
        write_delay: false,
        ack_no_delay: false,
        auto: auto.then_some(fulmar_session::measuring::Settings {
            redundancy: 25,
            parity: false,
            mtu: 1400,
            known: 0,
        }),
        timeout: Duration::from_secs(600),
        linger: Duration::from_secs(30),
        time_wait: Duration::from_secs(120),
        receive_buffer: 256 * 1024,
        hold_end: false,
    };
    let key = fulmar_cipher::LibevKey::from_bytes([7; 32]);
    let nonces = NonceSource::seeded([1 + u8::from(server); 32]);
    let cipher = fulmar_cipher::libev(method, &key, nonces);
    let probe = Box::new(|_: &[u8]| None);
    let control = Control::new(control, now);
    let dialect = Box::new(Libev::new(settings, control, 9, probe));
    if server {
        let limits = Limits {
            unproven_per_ip: 1024,
            ..Limits::default()
        };
        Endpoint::server(dialect, vec![cipher], limits)
    } else {
        Endpoint::opener(dialect, cipher)
    }
}

/// Two ends of kcptun-libev, and bytes that each of them holds.
struct Conversations {
    now: Instant,
    ends: [Endpoint; 2],
    pipes: [Pipe; 2],
    held: [i64; 2],
}

impl Conversations {
    fn new(auto: bool) -> Self {
        let now = Instant::from_millis(1000);
        Self {
            now,
            ends: [libev(false, auto, now), libev(true, auto, now)],
            pipes: [(); 2].map(|()| Pipe::new(0)),
            held: [0; 2],
        }
    }

    /// Does something at one end, and counts what it holds more afterwards.
    fn at<T>(
        &mut self,
        end: usize,
        f: impl FnOnce(&mut Endpoint, &mut [Pipe; 2], Instant) -> T,
    ) -> T {
        let (done, held) = held_by(|| f(&mut self.ends[end], &mut self.pipes, self.now));
        self.held[end] += held;
        done
    }

    /// Opens so many that each send a few bytes.
    fn open(&mut self, n: usize) {
        self.at(0, |client, _, now| {
            for _ in 0..n {
                let (key, id) = client.open(now).expect("a stream");
                write_some(client, (key, id), 25);
            }
        });
    }

    /// Passes time and datagrams, 10 ms at once. The server sends back what it reads.
    fn turns(&mut self, turns: u32) {
        for _ in 0..turns {
            self.now += Duration::from_millis(10);
            for i in [0, 1] {
                self.at(1 - i, |end, pipes, now| pipes[i].arrive(now, end, path()));
            }
            for i in [0, 1] {
                self.at(i, |end, pipes, now| {
                    while let Some(event) = end.poll_event() {
                        if let Event::Stream(key, StreamEvent::Readable(id)) = event {
                            let n = read_all(end, now, (key, id)) as usize;
                            if i == 1 && n > 0 {
                                write_some(end, (key, id), n);
                            }
                        }
                    }
                    while !end.flush(now) {
                        pipes[i].send(now, end);
                    }
                    pipes[i].send(now, end);
                });
            }
        }
    }
}

/// Where each connection is a session, a thousand of them that did nothing took 15 MB at the server and 23 MB at the client.
#[test]
fn idle_conversations_of_libev_cost_little() {
    const N: usize = 500;
    for (auto, limit) in [(false, 2400), (true, 4200)] {
        let mut pair = Conversations::new(auto);
        pair.turns(100);
        pair.held = [0; 2];
        for _ in 0..N / 50 {
            pair.open(50);
            pair.turns(20);
        }
        pair.turns(2000);
        for end in [0, 1] {
            pair.at(end, |end, _, _| end.shrink());
            assert_eq!(pair.ends[end].sessions().count(), N);
        }
        let each = pair.held.map(|held| held / size(N));
        assert!(
            each.iter().all(|bytes| *bytes <= limit),
            "auto {auto}: {each:?} bytes at the client, at the server"
        );
    }
}

/// Bytes that a server holds at most while a client that reads nothing has so many streams open, all of which the server fills as
/// far as they go.
fn unread(case: Case, n: usize) -> i64 {
    let mut pair = Pair::new(case);
    let (key, first) = pair.streams[0].take().expect("a session");
    let mut opened = vec![first];
    for _ in 1..n {
        opened.push(pair.ends[0].open_stream(pair.now, key).expect("a stream"));
    }
    let mut held = 0;
    let mut most = 0;
    let mut streams = Vec::new();
    for turn in 0..6000 {
        pair.now += Duration::from_millis(1);
        let now = pair.now;
        pair.pipes[1].arrive(now, &mut pair.ends[0], path());
        let ((), more) = held_by(|| {
            pair.pipes[0].arrive(now, &mut pair.ends[1], path());
            while let Some(event) = pair.ends[1].poll_event() {
                match event {
                    Event::Stream(key, StreamEvent::Opened(id)) => {
                        streams.push((key, id));
                        write_all(&mut pair.ends[1], (key, id));
                    }
                    Event::Stream(key, StreamEvent::Writable(id)) => {
                        write_all(&mut pair.ends[1], (key, id));
                    }
                    Event::Closed(.., reason) => panic!("{reason}"),
                    _ => {}
                }
            }
        });
        held += more;
        for i in [0, 1] {
            let ((), more) = held_by(|| {
                while !pair.ends[i].flush(now) {
                    pair.pipes[i].send(now, &mut pair.ends[i]);
                }
                pair.pipes[i].send(now, &mut pair.ends[i]);
            });
            held += if i == 1 { more } else { 0 };
        }
        most = most.max(held);
        while pair.ends[0].poll_event().is_some() {}
        assert!(
            turn < 3000 || streams.len() == n,
            "{} streams",
            streams.len()
        );
    }
    most
}

/// Each of them took 86 KB: 8,000 of them 692 MB.
#[test]
fn streams_that_nobody_reads_do_not_take_a_buffer_each() {
    use fulmar_session::memory::SESSION_SEND_LIMIT;
    let n = 4000;
    for smux in [1, 2] {
        let held = unread(Case { smux, ..PLAIN }, n);
        // Beside the limit: what is in KCP's window, and each stream with the little that it may always hold.
        let limit = size(SESSION_SEND_LIMIT) + (1 << 20) + 2048 * size(n);
        assert!(
            held <= limit,
            "{held} bytes, and {limit} would be all right"
        );
    }
}

/// Where each connection is a session, the limits of all sessions hold: at a server whose targets send as much as they can, and at a client
/// whose applications read nothing.
#[test]
fn conversations_that_nobody_reads_share_one_limit() {
    use fulmar_session::memory::{RECEIVE_LIMIT, SEND_LIMIT};
    const N: usize = 800;
    for auto in [false, true] {
        let mut pair = Conversations::new(auto);
        for pipe in &mut pair.pipes {
            // All of them send in each turn.
            let more = (0..8 * N).map(|_| Vec::with_capacity(MAX_RUN_BYTES));
            pipe.spare.extend(more);
        }
        pair.turns(100);
        pair.held = [0; 2];
        pair.open(N);
        let mut most = [0; 2];
        for _ in 0..1500 {
            pair.now += Duration::from_millis(10);
            for i in [0, 1] {
                pair.at(1 - i, |end, pipes, now| pipes[i].arrive(now, end, path()));
                most[1 - i] = pair.held[1 - i].max(most[1 - i]);
            }
            for i in [0, 1] {
                pair.at(i, |end, pipes, now| {
                    while let Some(event) = end.poll_event() {
                        match event {
                            Event::Stream(key, StreamEvent::Readable(id)) if i == 1 => {
                                read_all(end, now, (key, id));
                                write_all(end, (key, id));
                            }
                            Event::Stream(key, StreamEvent::Writable(id)) => {
                                write_all(end, (key, id));
                            }
                            Event::Closed(.., reason) => panic!("{reason}"),
                            _ => {}
                        }
                    }
                    while !end.flush(now) {
                        pipes[i].send(now, end);
                    }
                    pipes[i].send(now, end);
                });
                most[i] = pair.held[i].max(most[i]);
            }
        }
        for (held, limit) in most.into_iter().zip([RECEIVE_LIMIT, SEND_LIMIT]) {
            // What was promised to each of them when there was plenty may arrive; and the sessions themselves.
            let limit = size(limit) * 2 + 8192 * size(N);
            assert!(
                held <= limit,
                "auto {auto}: {held} bytes, and {limit} would be all right: {most:?}"
            );
            assert!(
                held >= size(SEND_LIMIT) / 4,
                "auto {auto}: {held} bytes only: {most:?}"
            );
        }
        for end in &pair.ends {
            assert_eq!(end.sessions().count(), N);
        }
    }
}

/// Bytes that a server holds at most, from a second after the last of so many clients has come: each of them, from an address of its own, has
/// begun a session and gone.
fn abandoned(case: Case, auto: bool, n: u32) -> i64 {
    let mut now = Instant::from_millis(1000);
    let mut crowd = Vec::new();
    for i in 0..n {
        let (mut client, _) = client(case, i + 1, now);
        assert!(client.flush(now));
        let run = client.next_run().expect("a run");
        let [_, a, b, c] = i.to_be_bytes();
        let path = Path {
            remote: ([198, a, b, c], 1000).into(),
            ..path()
        };
        crowd.push((path, run.data().to_vec()));
    }
    let limits = Limits {
        unproven_per_ip: 1024,
        ..Limits::default()
    };
    let mut server = if auto {
        measuring_server(case, limits)
    } else {
        server(case, limits)
    };
    let drain = |server: &mut Endpoint, now| {
        while !server.flush(now) {
            while let Some(run) = server.next_run() {
                server.recycle(run);
            }
        }
        while let Some(run) = server.next_run() {
            server.recycle(run);
        }
        while server.poll_event().is_some() {}
    };
    let before = HELD.get();
    for (i, (path, datagram)) in crowd.iter_mut().enumerate() {
        server.handle_run(now, *path, datagram, 0);
        drain(&mut server, now);
        if i % 4 == 0 {
            now += Duration::from_millis(1);
        }
    }
    assert_eq!(server.sessions().count(), n as usize);
    let mut most = 0;
    let began = now;
    while server.sessions().count() == n as usize && now < began + Duration::from_secs(90) {
        now += Duration::from_millis(100);
        drain(&mut server, now);
        if now > began + Duration::from_secs(1) {
            most = most.max(HELD.get() - before);
        }
    }
    assert!(
        now > began + Duration::from_secs(50),
        "they ended after {:?}",
        now - began
    );
    most
}

/// 40,000 of them took 432 MB for a minute: 11 KB each, and more the longer they were gone.
#[test]
fn abandoned_conversations_are_stubs() {
    let whole = i64::try_from(Limits::default().resting).expect("few");
    let n = 3000;
    let fec = Some((10, 3));
    for (case, auto) in [
        (PLAIN, false),
        (Case { fec, ..PLAIN }, false),
        (Case { smux: 1, ..PLAIN }, false),
        (
            Case {
                compression: true,
                ..PLAIN
            },
            false,
        ),
        (PLAIN, true),
        (Case { fec, ..PLAIN }, true),
    ] {
        let held = abandoned(case, auto, n);
        let stubs = i64::from(n) - whole;
        // A stub of 1 KiB, and what finds it and counts it; those that are whole are as they always were.
        let scratch = if case.compression { 16 * 1024 } else { 0 };
        let limit = stubs * 1280 + whole * (16 * 1024 + scratch);
        assert!(
            held <= limit,
            "auto {auto}, {case:?}: {held} bytes, and {limit} would be all right"
        );
    }
}
