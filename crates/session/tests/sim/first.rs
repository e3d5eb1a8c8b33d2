//! kcptun of spring 2016: what is particular to it. Everything else holds for it as for the others, see [`Options::dialects`].

use std::collections::BTreeMap;
use std::net::SocketAddr;

use fulmar_cipher::{NonceSource, Scheme, StreamCfb, kcptun2016_key};
use fulmar_netem::Direction;
use fulmar_session::Reason;
use fulmar_session::diagnosis::Suspicion;
use fulmar_session::dialect::kcptun2016::Vectors;
use fulmar_session::endpoint::Event;
use fulmar_session::layer::{LayerError, Notice, Readable, StreamEvent, StreamId, Writable};
use fulmar_session::transmit::Path;
use fulmar_session::{Endpoint, SessionKey};
use fulmar_testkit::vectors::{self, Value, bytes, to_hex};
use fulmar_wire::kcp::{Command, Format, HEADER_LEN};
use fulmar_wire::kcptun::Method;
use fulmar_wire::kcptun2016::{FIXED_IV, IV_LEN, Method as Sealing, Variant};
use fulmar_wire::time::Instant;

use crate::apps::{Expect, Program, Step, bulk, requests};
use crate::harness::{Host, Sim, at, link, ms, secs, seeds, stranger};
use crate::raw::{self, Raw};
use crate::setup::{KEY, OTHER_KEY, Options, Wire};

/// A captured session, and who speaks in it.
struct Capture {
    json: Value,
    wire: Wire,
}

fn captures() -> Vec<Capture> {
    let names = [
        ("fixed_iv", Wire::First(Variant::A, true)),
        ("readme", Wire::First(Variant::B, true)),
        ("notuncrypt", Wire::First(Variant::C, false)),
        ("tuncrypt", Wire::First(Variant::C, true)),
    ];
    let capture = |(name, wire)| Capture {
        json: vectors::load(&format!("kcptun-2016/session_{name}.json")),
        wire,
    };
    let mut all: Vec<_> = names.map(capture).into();
    // Its bytes are those of variant B.
    all.push(Capture {
        wire: Wire::First(Variant::Bt, true),
        ..capture(names[1])
    });
    all.push(Capture::without_tuncrypt(capture(names[2])));
    all
}

fn number(v: &Value, key: &str) -> u64 {
    v[key].as_u64().unwrap_or_else(|| panic!("no {key} in {v}"))
}

impl Capture {
    /// What variant BT makes of a session of variant C whose stream is in clear: the first message, which stands alone in its
    /// packet, has the first half of its bytes (docs/spec/kcptun2016.md, section 7). All else is the same.
    fn without_tuncrypt(mut of_c: Self) -> Self {
        let json = &mut of_c.json;
        let hex = |bytes: &[u8]| Value::from(to_hex(bytes));
        for name in ["iv_hex", "kcp_stream_c2s_hex"] {
            let mut all = bytes(json, name);
            all.drain(IV_LEN..2 * IV_LEN);
            json[name] = hex(&all);
        }
        let key = kcptun2016_key(KEY.as_bytes());
        for d in json["datagrams"].as_array_mut().expect("datagrams") {
            let mut body = bytes(d, "kcp_hex");
            if d["dir"] != "c2s" || d["segs"][0]["sn"] != 0 || d["segs"][0]["cmd"] != 81 {
                continue;
            }
            assert_eq!(body.len(), HEADER_LEN + 2 * IV_LEN);
            body.truncate(HEADER_LEN + IV_LEN);
            body[HEADER_LEN - 4..HEADER_LEN].copy_from_slice(&16u32.to_le_bytes());
            let nonce = NonceSource::fixed(bytes(d, "nonce_hex"));
            let mut cipher = fulmar_cipher::kcptun2016(Sealing::Sealed, &key, nonce);
            d["wire_hex"] = hex(&raw::seal(&mut *cipher, &body));
            d["segs"][0]["data_hex"] = hex(&body[HEADER_LEN..]);
            d["kcp_hex"] = hex(&body);
        }
        Self {
            wire: Wire::First(Variant::Bt, false),
            ..of_c
        }
    }

    fn options(&self, server: bool) -> Options {
        assert_eq!(self.json["key_utf8"], KEY);
        let ends = Options::first(false).swap_remove(1);
        Options {
            wire: self.wire,
            ..if server { ends.1 } else { ends.0 }
        }
    }

    fn datagrams(&self, up: bool) -> Vec<(u64, Vec<u8>)> {
        let dir = if up { "c2s" } else { "s2c" };
        let all = self.json["datagrams"].as_array().expect("datagrams");
        all.iter()
            .filter(|d| d["dir"] == dir)
            .map(|d| (number(d, "t_ms"), bytes(d, "wire_hex")))
            .collect()
    }

    /// What was written on each stream, and what came back.
    fn script(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let all = self.json["app_script"].as_array().expect("a script");
        all.iter()
            .map(|s| (bytes(s, "written_hex"), bytes(s, "read_hex")))
            .collect()
    }
}

#[test]
fn every_datagram_opens_and_is_sealed_the_same_again() {
    let mut seen = 0;
    for capture in captures() {
        let key = kcptun2016_key(KEY.as_bytes());
        for d in capture.json["datagrams"].as_array().expect("datagrams") {
            let wire = bytes(d, "wire_hex");
            let nonce = NonceSource::fixed(bytes(d, "nonce_hex"));
            let mut cipher = fulmar_cipher::kcptun2016(Sealing::Sealed, &key, nonce);
            let body = raw::open(&mut *cipher, &wire).expect("it opens");
            assert_eq!(body, bytes(d, "kcp_hex"));
            assert_eq!(raw::seal(&mut *cipher, &body), wire);
            seen += 1;
        }
    }
    assert!(seen > 110, "{seen}");
}

/// Fragments in order are the stream, and under its second encryption lies yamux.
#[test]
fn every_stream_says_what_was_written_down() {
    for capture in captures() {
        let Wire::First(variant, encrypted) = capture.wire else {
            panic!("not of this dialect");
        };
        let message = bytes(&capture.json, "iv_hex");
        assert_eq!(message.len(), variant.message_len());
        let iv = |at: usize| message[at..at + IV_LEN].try_into().expect("16 bytes");
        let ivs = match variant {
            Variant::A => [FIXED_IV; 2],
            Variant::B | Variant::Bt => [iv(0); 2],
            Variant::C => [iv(0), iv(IV_LEN)],
        };
        for (dir, iv) in ["c2s", "s2c"].into_iter().zip(ivs) {
            let mut segments = BTreeMap::new();
            for d in capture.json["datagrams"].as_array().expect("datagrams") {
                if d["dir"] != dir {
                    continue;
                }
                let body = bytes(d, "kcp_hex");
                let mut rest = &body[..];
                for told in d["segs"].as_array().expect("segments") {
                    let view = Format::LittleEndian.view(rest).expect("a segment");
                    let (header, data, behind) = view.parse().expect("sound");
                    let command = match header.command {
                        Command::Push => 81,
                        Command::Ack => 82,
                        Command::WindowAsk => 83,
                        Command::WindowTell => 84,
                    };
                    assert_eq!(command, number(told, "cmd"));
                    assert_eq!(u64::from(header.frg), number(told, "frg"));
                    assert_eq!(u64::from(header.sn.0), number(told, "sn"));
                    assert_eq!(data, bytes(told, "data_hex"));
                    if header.command == Command::Push {
                        segments.insert(header.sn.0, data.to_vec());
                    }
                    rest = behind;
                }
                assert!(rest.is_empty());
            }
            let mut stream: Vec<u8> = segments.into_values().flatten().collect();
            let field = |what: &str| bytes(&capture.json, &format!("{what}_{dir}_hex"));
            assert_eq!(stream, field("kcp_stream"));
            if dir == "c2s" {
                assert_eq!(stream.drain(..message.len()).as_slice(), message);
            }
            if encrypted {
                let key = kcptun2016_key(KEY.as_bytes());
                StreamCfb::new(&key, iv).decrypt(&mut stream);
            }
            assert_eq!(stream, field("yamux"));
        }
    }
}

/// One of our ends with what its applications have read, fed with one direction of a capture.
struct End {
    endpoint: Endpoint,
    read: BTreeMap<u32, Vec<u8>>,
    streams: Vec<(SessionKey, StreamId)>,
    ended: Option<Event>,
}

impl End {
    fn turn(&mut self, now: Instant) {
        loop {
            while !self.endpoint.flush(now) {
                while let Some(run) = self.endpoint.next_run() {
                    self.endpoint.recycle(run);
                }
            }
            while let Some(run) = self.endpoint.next_run() {
                self.endpoint.recycle(run);
            }
            while let Some(event) = self.endpoint.poll_event() {
                match event {
                    Event::Stream(key, StreamEvent::Opened(id)) => self.streams.push((key, id)),
                    Event::Closed(..) => self.ended = Some(event),
                    _ => {}
                }
            }
            for &(key, id) in &self.streams {
                while let Readable::Bytes(bytes) = self.endpoint.read(key, id) {
                    self.read.entry(id.wire()).or_default().extend(bytes);
                    let n = bytes.len();
                    self.endpoint.consume(now, key, id, n);
                }
            }
            if !self.endpoint.wants_flush() {
                return;
            }
        }
    }

    fn replay(&mut self, capture: &Capture, up: bool) {
        let path = Path {
            remote: stranger(1),
            local: None,
        };
        let start = at(10_000);
        self.turn(start);
        for (t, mut datagram) in capture.datagrams(up) {
            let now = start + ms(t);
            while let Some(due) = self.endpoint.poll_timeout().filter(|due| *due < now) {
                self.turn(due);
            }
            self.endpoint.handle_run(now, path, &mut datagram, 0);
            self.turn(now);
        }
    }
}

#[test]
fn our_server_hears_what_their_client_said() {
    for capture in captures() {
        // Whatever it was told to expect.
        for (_, options) in Options::first(false) {
            let mut server = End {
                endpoint: options.build_server(7),
                read: BTreeMap::new(),
                streams: Vec::new(),
                ended: None,
            };
            server.replay(&capture, true);
            let read: Vec<_> = server.read.values().cloned().collect();
            let said: Vec<_> = capture.script().into_iter().map(|(said, _)| said).collect();
            assert_eq!(read, said);
            assert_eq!(server.read.keys().copied().collect::<Vec<_>>(), [1, 3]);
            assert!(server.ended.is_none(), "{:?}", server.ended);
            let counters = server.endpoint.counters();
            assert_eq!((counters.passive_opens, counters.streams_opened), (1, 2));
            assert_eq!((counters.kcp_in_errors, counters.in_csum_errors), (0, 0));
        }
    }
}

#[test]
fn our_client_hears_what_their_server_said() {
    for capture in captures() {
        let path = Path {
            remote: stranger(1),
            local: None,
        };
        let start = at(10_000);
        let conv = u32::try_from(number(&capture.json, "conv")).expect("32 bits");
        let message = bytes(&capture.json, "iv_hex");
        let mut random = [0; 2 * IV_LEN];
        random[..message.len()].copy_from_slice(&message);
        let Wire::First(variant, encrypted) = capture.wire else {
            panic!("not of this dialect");
        };
        let vectors = Vectors::new(variant, encrypted, random);
        let options = capture.options(false);
        let (mut endpoint, key) = options.build_first(path, conv, 7, vectors, start);
        let mut streams = Vec::new();
        for (said, _) in capture.script() {
            let id = endpoint.open_stream(start, key).expect("a stream");
            match endpoint.write(key, id, said.len()) {
                Writable::Room(room) => room.copy_from_slice(&said),
                other => panic!("{other:?}"),
            }
            endpoint.commit(key, id, said.len());
            streams.push((key, id));
        }
        let mut client = End {
            endpoint,
            read: BTreeMap::new(),
            streams,
            ended: None,
        };
        client.replay(&capture, false);
        let read: Vec<_> = client.read.values().cloned().collect();
        let answers: Vec<_> = capture.script().into_iter().map(|(_, a)| a).collect();
        assert_eq!(read, answers);
        assert!(client.ended.is_none(), "{:?}", client.ended);
    }
}

fn closed(host: &Host) -> Vec<Reason> {
    let closed = host.events.iter().filter_map(|(_, e)| match e {
        Event::Closed(_, _, reason) => Some(reason.clone()),
        _ => None,
    });
    closed.collect()
}

/// The first message leaves at once and alone, as servers of that time want it.
#[test]
fn a_session_begins_with_its_vectors() {
    for (client, server) in Options::first(false) {
        let Wire::First(variant, _) = client.wire else {
            panic!("not of this dialect");
        };
        let l = link(20, 0.0);
        let mut sim = Sim::new("beginning", 1, l.clone(), l, (&client, &server));
        sim.record = Some(Vec::new());
        sim.open(bulk(1000, 1000));
        sim.finish(secs(5));
        let record = sim.record.take().expect("it was on");
        let first = record.first().expect("a datagram");
        let mut cipher = client.cipher(Method::Aes, 1);
        let body = raw::open(&mut *cipher, &first.data).expect("it opens");
        let view = Format::LittleEndian.view(&body).expect("a segment");
        let (header, data, _) = view.parse().expect("sound");
        assert_eq!((header.sn.0, header.frg), (0, 0));
        let len = match variant {
            // The header of the first frame.
            Variant::A => 12,
            _ => variant.message_len(),
        };
        assert_eq!(data.len(), len);
        let told = |e: &Event| matches!(e, Event::Notice(_, Notice::Variant(_)));
        assert_eq!(sim.server.times_of(told).len(), 1);
    }
}

/// A client that was started and is not used says nothing behind its first message for half a minute.
#[test]
fn a_client_with_nothing_to_say_keeps_its_session() {
    for variant in [Variant::B, Variant::Bt, Variant::C] {
        let (_, server) = Options::first(false).swap_remove(1);
        let l = link(20, 0.0);
        let mut sim = Sim::empty("unused", 1, l.clone(), l, &server);
        let addr = SocketAddr::from(([10, 0, 0, 1], 40_000));
        let mut raw = Raw::new(&server, addr, 77);
        raw.say(&vec![7; variant.message_len()]);
        raw.live(&mut sim, 3000);
        assert_eq!(sim.server.endpoint.sessions().count(), 1);
        assert_eq!(closed(&sim.server), []);
        // Nothing of the mux was said to somebody who may not have understood it.
        assert!(raw.heard.is_empty());
        // Its first ping comes now, in clear or encrypted, and is answered.
        let mut ping = [0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut key = None;
        if variant == Variant::B {
            let key = key.insert(kcptun2016_key(server.key.as_bytes()));
            StreamCfb::new(key, [7; IV_LEN]).encrypt(&mut ping);
        }
        raw.say(&ping);
        raw.live(&mut sim, 50);
        let mut answer = raw.heard.clone();
        if let Some(key) = &key {
            StreamCfb::new(key, [7; IV_LEN]).decrypt(&mut answer);
        }
        assert_eq!(answer[..12], [0, 2, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0]);
        // And if it is gone, so is the session, soon.
        sim.run_for(secs(100));
        assert_eq!(sim.server.endpoint.sessions().count(), 0);
    }
}

/// A client that began and never says whether its stream is encrypted is given up.
#[test]
fn a_client_that_only_begins_is_given_up() {
    for variant in [Variant::B, Variant::C] {
        let (_, server) = Options::first(false).swap_remove(1);
        let l = link(20, 0.0);
        let mut sim = Sim::empty("only begun", 1, l.clone(), l, &server);
        let mut raw = Raw::new(&server, stranger(1), 77);
        raw.say(&vec![7; variant.message_len()]);
        raw.live(&mut sim, 100);
        assert_eq!(sim.server.endpoint.sessions().count(), 1);
        sim.run_for(secs(100));
        assert_eq!(sim.server.endpoint.sessions().count(), 0);
        assert!(
            matches!(
                closed(&sim.server)[..],
                [Reason::Layer(LayerError::Silent(_))]
            ),
            "{:?}",
            sim.server.events
        );
    }
}

/// Who has the key and begins with what no variant does.
#[test]
fn strange_beginnings_end_only_their_session() {
    let frame = [0, 9, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0];
    for beginning in [
        vec![&[1; 5][..]],
        vec![&[1; 33][..]],
        vec![&[1; 4000][..]],
        // Vectors, and then no frame.
        vec![&[1; 16][..], &frame[..]],
        vec![&[1; 32][..], &frame[..]],
        vec![&[1; 12][..]],
    ] {
        let (client, server) = Options::first(false).swap_remove(1);
        let l = link(20, 0.0);
        let mut sim = Sim::new("strange", 1, l.clone(), l, (&client, &server));
        sim.open(bulk(100_000, 100_000));
        let mut raw = Raw::new(&server, stranger(1), 77);
        for message in &beginning {
            raw.say(message);
        }
        raw.live(&mut sim, 100);
        let closed = closed(&sim.server);
        // It says so again and again, and opens a session each time.
        let malformed = |r: &Reason| matches!(r, Reason::Layer(LayerError::Malformed(_)));
        assert!(
            !closed.is_empty() && closed.iter().all(malformed),
            "{beginning:?}: {closed:?}"
        );
        sim.finish(secs(10));
        assert_eq!(sim.server.endpoint.sessions().count(), 1);
    }
}

/// A client that is stopped before it was used says that it goes, in clear or not, and the server takes it for what it is.
#[test]
fn a_client_that_ends_unused_breaks_no_rule() {
    for encrypted in [false, true] {
        let (_, server) = Options::first(false).swap_remove(1);
        let l = link(20, 0.0);
        let mut sim = Sim::empty("unused end", 1, l.clone(), l, &server);
        let mut raw = Raw::new(&server, stranger(1), 77);
        raw.say(&[7; IV_LEN]);
        // What a Fulmar says at its end, so that old clients let go.
        let mut go_away = [0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
        if encrypted {
            let key = kcptun2016_key(server.key.as_bytes());
            StreamCfb::new(&key, [7; IV_LEN]).encrypt(&mut go_away);
        }
        raw.say(&go_away);
        raw.live(&mut sim, 100);
        let ended = |r: &Reason| matches!(r, Reason::Layer(LayerError::Ended(2)));
        let closed = closed(&sim.server);
        assert!(closed.iter().all(ended) && !closed.is_empty(), "{closed:?}");
        assert_eq!(sim.server.endpoint.sessions().count(), 0);
    }
}

/// With an empty key A and C leave packets in clear, and B and BT seal them with the hash of nothing (docs/spec/kcptun2016.md, section 4): one
/// server takes them all, at the same time.
#[test]
fn a_server_without_a_key_takes_bare_and_sealed_packets() {
    let keyless = |end: Options| Options { key: "", ..end };
    let ends = Options::first(false);
    let server = keyless(ends[0].1.clone());
    let l = link(20, 0.02);
    let mut sim = Sim::empty("no key", 1, l.clone(), l, &server);
    sim.record = Some(Vec::new());
    for (client, _) in &ends {
        let client = sim.add_client(&keyless(client.clone()));
        sim.open_on(client, bulk(100_000, 200_000));
    }
    sim.finish(secs(20));
    assert_eq!(closed(&sim.server), []);
    assert_eq!(sim.server.endpoint.sessions().count(), ends.len());
    // The largest datagrams of both kinds are as large as the option says.
    let record = sim.record.take().expect("it was on");
    assert_eq!(record.iter().map(|r| r.data.len()).max(), Some(1400));
    // With a key nothing in clear is taken.
    let l = link(20, 0.0);
    let mut sim = Sim::empty("a key", 1, l.clone(), l, &ends[0].1);
    let client = sim.add_client(&keyless(ends[0].0.clone()));
    let lost = Program::new(Expect::Lost, [Step::Write(300), Step::ReadEnd]);
    sim.open_on(client, (lost.clone(), lost));
    sim.run_for(secs(9));
    assert_eq!(sim.server.endpoint.counters().passive_opens, 0);
}

/// What variant A took without looking at the digest.
#[test]
fn bare_short_packets_open_nothing() {
    let (_, server) = Options::first(false).swap_remove(1);
    let l = link(20, 0.0);
    let mut sim = Sim::empty("bare", 1, l.clone(), l, &server);
    let mut sent = 0;
    for len in 0..32u32 {
        let mut packet = Vec::from([7, 0, 0, 0, 81, 0, 0, 4]);
        packet.extend([0; 12]);
        packet.extend(len.to_le_bytes());
        packet.extend(vec![7; len as usize]);
        assert!((24..56).contains(&packet.len()));
        sim.inject(stranger(1), &packet);
        sent += 1;
    }
    let c = sim.server.endpoint.counters();
    assert_eq!(
        (c.short_datagrams, c.passive_opens, c.out_pkts),
        (sent, 0, 0)
    );
}

/// On a clean path nothing goes twice, however much is in flight.
#[test]
fn nothing_is_sent_again_without_need() {
    for measuring in [false, true] {
        for (client, server) in Options::first(measuring) {
            let l = link(5, 0.0);
            let mut sim = Sim::new("clean", 1, l.clone(), l, (&client, &server));
            sim.open(bulk(1_500_000, 1_500_000));
            sim.open(requests(20, 100, 3000, ms(10)));
            sim.finish(secs(30));
            for host in [sim.client(), &sim.server] {
                let c = host.endpoint.counters();
                assert_eq!(c.retrans_segs, 0, "{}: {c:?}", client.dialect());
            }
            assert_eq!(sim.net.counters(Direction::Up).lost_random, 0);
        }
    }
}

fn suspicion(e: &Event) -> Option<Suspicion> {
    match e {
        Event::Suspicion(_, s) | Event::Stranger(_, s) => Some(s.clone()),
        _ => None,
    }
}

#[test]
fn another_key_and_another_kcptun_are_named() {
    let (client, server) = Options::first(false).swap_remove(1);
    let other_key = Options {
        key: OTHER_KEY,
        ..client.clone()
    };
    let today = Options {
        method: Method::Salsa20,
        ..Options::client()
    };
    let theirs = Scheme::Kcptun(Method::Salsa20);
    let ours = Scheme::Kcptun2016(Sealing::Sealed);
    for (client, at_server) in [
        (other_key, Suspicion::NothingOpens),
        (today, Suspicion::OtherCipher { theirs, ours }),
    ] {
        let l = link(20, 0.0);
        let mut sim = Sim::new("mismatch", 1, l.clone(), l, (&client, &server));
        let lost = Program::new(Expect::Lost, [Step::Write(300), Step::ReadEnd]);
        sim.open((lost.clone(), lost));
        sim.run_for(secs(9));
        let (_, found) = sim.server.first(suspicion).expect("named");
        assert_eq!(found, at_server);
        let (_, found) = sim.client().first(suspicion).expect("named");
        assert_eq!(found, Suspicion::Silence);
        assert_eq!(sim.server.endpoint.counters().passive_opens, 0);
    }
}

/// A target that cannot be had ends its stream, and nobody else's.
#[test]
fn a_refused_stream_is_cut_alone() {
    for seed in seeds(1) {
        for (client, server) in Options::first(false) {
            let l = link(20, 0.02);
            let mut sim = Sim::new("refused", seed, l.clone(), l, (&client, &server));
            sim.open(bulk(100_000, 100_000));
            for _ in 0..300 {
                sim.open((
                    Program::new(Expect::Cut, [Step::Write(100), Step::ReadEnd]),
                    Program::new(Expect::Cut, [Step::Reset]),
                ));
            }
            sim.open(bulk(100_000, 100_000));
            sim.finish(secs(20));
            assert_eq!(closed(sim.client()), []);
            assert_eq!(closed(&sim.server), []);
        }
    }
}
