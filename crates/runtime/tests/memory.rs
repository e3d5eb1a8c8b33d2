//! What a held stream costs both ends together: real tunnels over loopback, a counting allocator looks on.
//!
//! This is a test binary of its own because the allocator is the process's, and it has one test because all threads count.
#![cfg(target_os = "linux")]
// An allocator cannot be written without.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicIsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use fulmar_config::{Config, Environment, Invocation, Side, from_args};
use fulmar_runtime::Tunnel;
use tokio::sync::oneshot;

struct Counting;

/// Bytes that the process holds, and the most since that was last asked for.
static HELD: AtomicIsize = AtomicIsize::new(0);
static MOST: AtomicIsize = AtomicIsize::new(0);

fn note(freed: usize, taken: usize) {
    let change = taken.cast_signed() - freed.cast_signed();
    MOST.fetch_max(HELD.fetch_add(change, Relaxed) + change, Relaxed);
}

// SAFETY: every call is passed on to the system's allocator as it is; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(0, layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        note(layout.size(), 0);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        note(layout.size(), new_size);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Each is a connection to the client and one to the target, so four open files; systems give a process 1024.
const STREAMS: usize = 200;
/// Longer than anything here takes on a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(120);

fn config(side: Side, flags: &[&str]) -> Config {
    let args = [&["--key", "k", "--quiet", "--mode", "fast3"], flags].concat();
    let args: Vec<OsString> = args.into_iter().map(OsString::from).collect();
    match from_args(side, &args, &Environment::default()) {
        Ok(Invocation::Run(loaded)) => loaded.config,
        other => panic!("{other:?}"),
    }
}

/// Runs an end for as long as the test takes; what it says when it is ready.
async fn start(config: Config) -> String {
    let (ready, said) = oneshot::channel();
    tokio::spawn(Tunnel::new(config).run(
        move |text| drop(ready.send(text.to_owned())),
        std::future::pending(),
    ));
    said.await.expect("it starts")
}

/// A target that sends eight bytes of each connection back and keeps it until the other side ends it: one connection, then
/// [`STREAMS`] at a time. One thread, and
/// nothing that is kept grows with the streams beyond its first crowd.
fn target() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let addr = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        let mut held = Vec::with_capacity(STREAMS);
        for size in std::iter::once(1).chain(std::iter::repeat(STREAMS)) {
            for _ in 0..size {
                let (mut connection, _) = listener.accept().expect("a connection");
                let mut bytes = [0; 8];
                connection.read_exact(&mut bytes).expect("eight bytes");
                connection.write_all(&bytes).expect("an answer");
                held.push(connection);
            }
            for mut connection in held.drain(..) {
                assert_eq!(connection.read(&mut [0]).expect("the end"), 0);
            }
        }
    });
    addr
}

/// Opens `size` connections at once and waits until each has its answer.
fn crowd(entry: SocketAddr, size: usize) -> Vec<TcpStream> {
    let mut all: Vec<TcpStream> = Vec::with_capacity(size);
    for i in 0..size {
        let mut connection = TcpStream::connect(entry).expect("connected");
        connection.write_all(&i.to_le_bytes()).expect("written");
        all.push(connection);
    }
    for (i, connection) in all.iter_mut().enumerate() {
        let mut bytes = [0; 8];
        connection.read_exact(&mut bytes).expect("an echo");
        assert_eq!(usize::from_le_bytes(bytes), i);
    }
    all
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("files").count()
}

fn wait_for_files(n: usize) {
    let begin = Instant::now();
    while open_files() > n {
        assert!(begin.elapsed() < PATIENCE, "{} files", open_files());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_held_stream_costs_less_than_two_kilobytes_at_each_end() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let target = target();
    let entry: SocketAddr = runtime.block_on(async {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let server = socket.local_addr().expect("bound").to_string();
        drop(socket);
        let flags = ["-l", &server, "-t", &target.to_string()];
        start(config(Side::Server, &flags)).await;
        let flags = ["-l", "127.0.0.1:0", "-r", &server];
        let said = start(config(Side::Client, &flags)).await;
        said.parse().expect("an address")
    });
    let idle = open_files();
    // One stream, so that the session is there with what it has of its own.
    drop(crowd(entry, 1));
    wait_for_files(idle + 8);
    // The first crowd makes tables and buffers that all streams share: nobody gets 16 KiB of its own.
    let cold = HELD.load(Relaxed);
    MOST.store(cold, Relaxed);
    let first = crowd(entry, STREAMS);
    let shared = MOST.load(Relaxed) - cold;
    assert!(shared < 6 << 20, "{shared} bytes for the first crowd");
    drop(first);
    // The session's own stay.
    wait_for_files(idle + 8);
    let before = HELD.load(Relaxed);
    MOST.store(before, Relaxed);
    let second = crowd(entry, STREAMS);
    let each = |bytes: isize| (bytes - before) / (2 * STREAMS.cast_signed());
    let (held, most) = (each(HELD.load(Relaxed)), each(MOST.load(Relaxed)));
    assert!(held < 1536, "{held} bytes per stream and end");
    assert!(most < 2048, "{most} bytes per stream and end at most");
    drop(second);
}
