//! Whose frame is next: shares of streams that want all they can get, and what waits for what.

use super::*;
use core::time::Duration;
use proptest::prelude::*;

const NOW: Instant = Instant::from_millis(1);
static DATA: [u8; 64 * 1024] = [7; 64 * 1024];

/// How an application writes.
#[derive(Copy, Clone, Debug)]
enum Writer {
    /// As much as there is room for.
    Fills,
    /// So many bytes whenever the buffer is empty.
    Refills(usize),
    /// So many bytes at every frame of anybody.
    Drips(usize),
    /// So many bytes at every so many frames of anybody.
    Sometimes(usize, usize),
}

/// An opener whose frames lead nowhere, and what each stream sent.
struct Sender {
    smux: Mux,
    streams: Vec<(StreamId, Writer)>,
    /// Bytes on the wire, by stream.
    sent: Vec<usize>,
    /// Bytes on the wire, all streams.
    total: usize,
    frames: usize,
}

impl Sender {
    fn new(max_frame: u32, writers: &[Writer]) -> Self {
        let config = Config {
            max_frame,
            hello: false,
            max_streams: 100_000,
            ..Config::new(Version::V1, Role::Opener)
        };
        let mut smux = Mux::new(config, NOW).expect("valid");
        let streams = writers
            .iter()
            .map(|&writer| (smux.open(NOW).expect("open"), writer))
            .collect();
        drain(&mut smux, NOW);
        Self {
            smux,
            streams,
            sent: vec![0; writers.len()],
            total: 0,
            frames: 0,
        }
    }

    fn write(&mut self) {
        for &(id, writer) in &self.streams {
            let unsent = self.smux.stream_info(id).expect("held").unsent;
            let n = match writer {
                Writer::Fills => usize::MAX,
                Writer::Refills(n) if unsent == 0 => n,
                Writer::Drips(n) => n,
                Writer::Sometimes(n, every) if self.frames.is_multiple_of(every) => n,
                Writer::Refills(_) | Writer::Sometimes(..) => 0,
            };
            let n = n.min(self.smux.write_space(id));
            self.smux.write(id, &DATA[..n]).expect("open");
        }
    }

    /// Sends a frame; returns whose it was.
    fn send(&mut self, limit: u32) -> usize {
        self.frames += 1;
        let frame = self.smux.poll_frame_within(NOW, limit).expect("a frame");
        let header = Header::parse(frame.head()).expect("header");
        assert!(u32::from(header.len) <= limit);
        let index = (header.stream - 3) as usize / 2;
        self.total += frame.len();
        if let Some(sent) = self.sent.get_mut(index) {
            *sent += frame.len();
        }
        index
    }

    fn run(&mut self, frames: usize) {
        for _ in 0..frames {
            self.write();
            self.send(u32::MAX);
        }
    }
}

/// Jain's index: 1 when all have the same, 1/n when one has everything.
fn jain(shares: &[usize]) -> f64 {
    let sum: f64 = shares.iter().map(|&x| x as f64).sum();
    let squares: f64 = shares.iter().map(|&x| (x as f64).powi(2)).sum();
    sum * sum / (shares.len() as f64 * squares)
}

#[test]
fn who_wants_all_gets_the_same() {
    let writers = [
        Writer::Fills,
        Writer::Fills,
        Writer::Refills(1),
        Writer::Refills(100),
        Writer::Refills(4000),
        Writer::Refills(8192),
        Writer::Refills(8193),
        Writer::Refills(20_000),
        Writer::Drips(1),
        Writer::Drips(5000),
    ];
    for max_frame in [1000, 8192, 65535] {
        let mut sender = Sender::new(max_frame, &writers);
        // The smallest pieces need the most frames.
        while sender.sent[0] < 20 * (max_frame as usize) {
            sender.run(100);
        }
        let index = jain(&sender.sent);
        assert!(index > 0.98, "{index} {:?}", sender.sent);
        check(&sender.smux);
    }
}

#[test]
fn an_echo_waits_for_no_frame_of_a_backlog() {
    let mut writers = vec![Writer::Fills; 10];
    writers.extend([Writer::Sometimes(100, 3), Writer::Sometimes(64, 7)]);
    let mut sender = Sender::new(8192, &writers);
    for _ in 0..10_000 {
        let echo = sender.frames.is_multiple_of(3);
        let other = sender.frames.is_multiple_of(7);
        sender.write();
        let index = sender.send(u32::MAX);
        // While the backlogs are new they are as sparse as anybody; one frame of theirs has left by the time.
        if sender.frames > 20 && (echo || other) {
            assert!(index >= 10, "stream {index} before an echo");
        }
    }
    let bulk = &sender.sent[..10];
    assert!(jain(bulk) > 0.999, "{bulk:?}");
}

#[test]
fn of_two_echoes_at_a_time_none_waits_long() {
    let mut sender = Sender::new(
        8192,
        &[
            Writer::Fills,
            Writer::Sometimes(100, 5),
            Writer::Sometimes(100, 5),
        ],
    );
    for _ in 0..1000 {
        let turn: Vec<usize> = (0..5)
            .map(|_| {
                sender.write();
                sender.send(u32::MAX)
            })
            .collect();
        assert!(sender.frames < 20 || turn[..2] == [1, 2], "{turn:?}");
    }
}

#[test]
fn a_crowd_of_short_messages_leaves_a_download_its_share() {
    let mut writers = vec![Writer::Refills(100); 1000];
    writers.push(Writer::Fills);
    let mut sender = Sender::new(8192, &writers);
    sender.run(12_000);
    let (download, total) = (sender.sent[1000], sender.total);
    assert!(download * 35 > total, "{download} of {total}");
    // The crowd is not put off either.
    assert!(download * 20 < total, "{download} of {total}");
    let crowd = &sender.sent[..1000];
    assert!(jain(crowd) > 0.99);
}

#[test]
fn new_streams_without_end_leave_a_download_its_share() {
    let mut sender = Sender::new(8192, &[Writer::Fills]);
    for _ in 0..20_000 {
        let id = sender.smux.open(NOW).expect("open");
        sender.smux.write(id, &[1; 5000]).expect("open");
        sender.smux.close(NOW, id);
        sender.write();
        // SYN, data, and FIN of three: more comes in than leaves.
        sender.send(u32::MAX);
        sender.send(u32::MAX);
    }
    let (download, total) = (sender.sent[0], sender.total);
    assert!(download * 35 > total, "{download} of {total}");
    assert!(download * 20 < total, "{download} of {total}");
}

#[test]
fn single_bytes_get_no_more_than_their_share() {
    for writer in [Writer::Drips(1), Writer::Refills(1), Writer::Drips(3)] {
        let mut sender = Sender::new(8192, &[Writer::Fills, writer]);
        sender.run(50_000);
        let [download, drip] = sender.sent[..] else {
            panic!("two streams");
        };
        assert!(download * 100 > drip * 98, "{download} {drip}");
    }
}

#[test]
fn small_frames_share_by_bytes_too() {
    let mut sender = Sender::new(
        8192,
        &[Writer::Fills, Writer::Fills, Writer::Sometimes(50, 10)],
    );
    for round in 0..10_000u32 {
        let echo = sender.frames.is_multiple_of(10);
        sender.write();
        // As an answer to how much room is left in a packet.
        let index = sender.send(1 + (round * 7919) % 1400);
        assert!(!echo || index == 2 || sender.frames < 50);
    }
    assert!(jain(&sender.sent[..2]) > 0.999, "{:?}", sender.sent);
    // Zero is one.
    let frame = sender.smux.poll_frame_within(NOW, 0).expect("data");
    assert_eq!(frame.len(), HEADER_LEN + 1);
}

#[test]
fn a_backlog_that_waited_for_its_window_is_still_one() {
    let config = Config {
        hello: false,
        send_buffer: 1 << 20,
        ..Config::new(Version::V2, Role::Opener)
    };
    let mut a = Mux::new(config, NOW).expect("valid");
    let [x, y, echo] = [(); 3].map(|()| a.open(NOW).expect("open"));
    a.write(x, &vec![0; 500_000]).expect("open");
    drain(&mut a, NOW);
    assert!(a.stream_info(x).expect("held").window_closed);
    a.write(y, &vec![0; 100_000]).expect("open");
    for _ in 0..4 {
        a.poll_frame(NOW).expect("y");
    }
    // The window of `x` opens, and then `echo` has something.
    let update = fulmar_wire::smux::Update {
        consumed: 262_144,
        window: 262_144,
    };
    let update = frame(Version::V2, Command::Upd, 3, 8, &update.to_bytes());
    a.handle_input(NOW, &update).expect("update");
    a.write(echo, b"echo").expect("open");
    let first: Vec<_> = (0..3)
        .map(|_| commands(&a.poll_frame(NOW).expect("a frame").parts().concat())[0].1)
        .collect();
    assert_eq!(first[0], echo.wire());
    assert!(first.contains(&x.wire()) && first.contains(&y.wire()));
    check(&a);
}

#[test]
fn what_is_said_without_data_goes_first() {
    let mut b = Mux::new(
        Config {
            hello: false,
            stream_buffer: 1000,
            ..Config::new(Version::V2, Role::Acceptor)
        },
        NOW,
    )
    .expect("valid");
    let psh = |id, len| frame(Version::V2, Command::Psh, id, len, &vec![0; len.into()]);
    for id in [3, 5, 7] {
        b.handle_input(NOW, &frame(Version::V2, Command::Syn, id, 0, &[]))
            .expect("syn");
    }
    let ids: Vec<StreamId> = events(&mut b)
        .into_iter()
        .filter_map(|event| match event {
            Event::Opened(id) => Some(id),
            _ => None,
        })
        .collect();
    for &id in &ids[..2] {
        b.write(id, &[0; 40_000]).expect("open");
    }
    for _ in 0..3 {
        b.poll_frame(NOW).expect("data");
    }
    // An update of the stream whose turn it is, the end of another, and a keep-alive.
    b.handle_input(NOW, &psh(5, 800)).expect("data");
    b.consume(NOW, ids[1], 800);
    b.finish(NOW, ids[2]);
    b.ping();
    let sent = commands(&drain(&mut b, NOW));
    assert_eq!(
        sent[..5],
        [
            (Command::Nop, 0, 0),
            (Command::Upd, 5, 8),
            (Command::Fin, 7, 0),
            (Command::Psh, 5, 8192),
            (Command::Psh, 3, 8192),
        ],
        "and the stream kept its turn"
    );
}

fn writer() -> impl Strategy<Value = Writer> {
    prop_oneof![
        Just(Writer::Fills),
        (1usize..20_000).prop_map(Writer::Refills),
        (1usize..3000).prop_map(Writer::Drips),
        (1usize..9000, 1usize..30).prop_map(|(n, every)| Writer::Sometimes(n, every)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the others do, and at any time, nobody is more than two turns ahead of a stream that always has more.
    #[test]
    fn nobody_outruns_a_backlog(
        writers in proptest::collection::vec(writer(), 1..12),
        limits in proptest::collection::vec(prop_oneof![1u32..3000, Just(u32::MAX)], 1..8),
    ) {
        let mut writers = writers;
        writers.push(Writer::Fills);
        let turn = 1008;
        let mut sender = Sender::new(1000, &writers);
        for limit in limits.into_iter().cycle().take(3000) {
            sender.write();
            sender.send(limit);
            let backlog = sender.sent[writers.len() - 1];
            let most = sender.sent.iter().max().expect("streams");
            prop_assert!(*most <= backlog + 2 * turn, "{:?}", sender.sent);
        }
        check(&sender.smux);
    }
}

#[test]
fn an_idle_stream_comes_back_as_a_new_one() {
    let mut sender = Sender::new(8192, &[Writer::Fills, Writer::Sometimes(30_000, 1000)]);
    // Its first 8 KiB go at once, the rest takes turns with the download.
    for _ in 0..10 {
        let order: Vec<usize> = (0..1000)
            .map(|_| {
                sender.write();
                sender.send(u32::MAX)
            })
            .collect();
        if sender.frames > 1000 {
            assert_eq!(order[..8], [1, 0, 1, 0, 1, 0, 1, 0]);
            assert!(order[8..].iter().all(|&index| index == 0));
        }
    }
    assert_eq!(
        sender.smux.poll_timeout(),
        Some(NOW + Duration::from_secs(10))
    );
}
