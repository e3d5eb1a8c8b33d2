//! Whole sessions of the real program, datagram by datagram: decoded, sealed again, and replayed into our ends.

use std::collections::BTreeMap;

use fulmar_arq::Profile;
use fulmar_cipher::NonceSource;
use fulmar_codec::snappy;
use fulmar_session::addresses::Addresses;
use fulmar_session::endpoint::Event;
use fulmar_session::layer::{Readable, StreamEvent, StreamId, Writable};
use fulmar_session::transmit::Path;
use fulmar_session::{Endpoint, SessionKey};
use fulmar_testkit::vectors::{self, Value, bytes};
use fulmar_wire::fec;
use fulmar_wire::kcp::{Command, Format};
use fulmar_wire::kcptun::Method;
use fulmar_wire::time::Instant;

use crate::harness::{at, ms, secs, stranger};
use crate::raw;
use crate::setup::{KEY, Options};

/// A recorded session.
struct Recording {
    name: String,
    json: Value,
    options: Options,
    conv: u32,
}

/// One datagram of it.
struct Datagram<'a> {
    json: &'a Value,
    at_ms: u64,
    up: bool,
    wire: Vec<u8>,
}

fn number(v: &Value, key: &str) -> u64 {
    v[key].as_u64().unwrap_or_else(|| panic!("no {key} in {v}"))
}

fn text<'a>(v: &'a Value, key: &str) -> &'a str {
    v[key].as_str().unwrap_or_else(|| panic!("no {key} in {v}"))
}

fn recordings() -> Vec<Recording> {
    let files = ["kcptun/session_smux_v1.json", "kcptun/session_smux_v2.json"];
    let mut all = Vec::new();
    for file in files.map(vectors::load) {
        for json in file["sessions"].as_array().expect("sessions") {
            all.push(Recording::new(json.clone()));
        }
    }
    assert_eq!(all.len(), 11);
    all
}

impl Recording {
    fn new(json: Value) -> Self {
        let c = &json["config"];
        assert_eq!(text(c, "key"), KEY);
        let shards = [number(c, "datashard"), number(c, "parityshard")];
        let [data, parity] = shards.map(|n| usize::try_from(n).expect("small"));
        let four: Vec<_> = c["nodelay_interval_resend_nc"]
            .as_array()
            .expect("four numbers")
            .iter()
            .map(|n| u32::try_from(n.as_u64().expect("a number")).expect("small"))
            .collect();
        let options = Options {
            method: Method::from_name(text(c, "crypt")).expect("a method"),
            profile: Profile::new(four[0], four[1], four[2], four[3] == 0),
            fec: (data > 0).then_some((data, parity)),
            smux: u8::try_from(number(c, "smuxver")).expect("small"),
            compression: c["nocomp"] == false,
            qpp: c["QPP"] == true,
            mtu: usize::try_from(number(c, "mtu")).expect("small"),
            ..Options::client()
        };
        Self {
            name: text(&json, "name").into(),
            conv: u32::try_from(number(&json, "conv")).expect("32 bits"),
            options,
            json,
        }
    }

    fn datagrams(&self) -> impl Iterator<Item = Datagram<'_>> {
        let all = self.json["datagrams"].as_array().expect("datagrams");
        all.iter().map(|json| Datagram {
            at_ms: number(json, "t_ms"),
            up: text(json, "dir") == "c2s",
            wire: bytes(json, "wire_hex"),
            json,
        })
    }

    /// What `side` wrote or read, one after the other.
    fn script(&self, side: &str, action: &str) -> Vec<Vec<u8>> {
        let all = self.json["app_script"].as_array().expect("a script");
        all.iter()
            .filter(|step| text(step, "side") == side && text(step, "action") == action)
            .map(|step| bytes(step, "bytes_hex"))
            .collect()
    }
}

#[test]
fn every_datagram_opens_and_is_sealed_the_same_again() {
    let (mut opened, mut sealed) = (0, 0);
    for recording in recordings() {
        let mut cipher = recording.options.cipher(recording.options.method, 1);
        for datagram in recording.datagrams() {
            let body = raw::open(&mut *cipher, &datagram.wire).expect("it opens");
            opened += 1;
            // Where the clear bytes are not given, they are what it opened to.
            if datagram.json.get("clear_hex").is_some() {
                assert_eq!(body, bytes(datagram.json, "clear_hex"));
            }
            if datagram.json.get("nonce_hex").is_some() {
                let nonce = NonceSource::fixed(bytes(datagram.json, "nonce_hex"));
                let key = recording.options.master_key();
                let mut cipher = fulmar_cipher::kcptun(recording.options.method, &key, nonce);
                assert_eq!(raw::seal(&mut *cipher, &body), datagram.wire);
                sealed += 1;
            }
        }
    }
    assert!(opened > 250 && sealed > 200, "{opened} {sealed}");
}

#[test]
fn every_datagram_says_what_was_written_down() {
    for recording in recordings() {
        let mut cipher = recording.options.cipher(recording.options.method, 1);
        // Payloads by number, up and down.
        let mut streams = [BTreeMap::new(), BTreeMap::new()];
        for datagram in recording.datagrams() {
            let body = raw::open(&mut *cipher, &datagram.wire).expect("it opens");
            let mut rest = &body[..];
            if recording.options.fec.is_some() {
                let told = &datagram.json["fec"];
                let packet = fec::Packet::parse(&body).expect("an FEC packet");
                assert_eq!(u64::from(packet.seqid().0), number(told, "seqid"));
                let Some(segments) = fulmar_session::admission::fec_payload(&body)
                    .filter(|_| packet.kind() == fec::Kind::Data)
                else {
                    assert!(datagram.json.get("segs").is_none());
                    continue;
                };
                rest = segments;
            }
            for told in datagram.json["segs"].as_array().expect("segments") {
                let view = Format::LittleEndian.view(rest).expect("a segment");
                let (header, payload, behind) = view.parse().expect("a sound one");
                let command = match header.command {
                    Command::Push => "PUSH",
                    Command::Ack => "ACK",
                    Command::WindowAsk => "WASK",
                    Command::WindowTell => "WINS",
                };
                assert_eq!(command, text(told, "cmd"));
                let fields = [
                    ("conv", header.conv),
                    ("frg", header.frg.into()),
                    ("wnd", header.wnd.into()),
                    ("ts", header.ts.0),
                    ("sn", header.sn.0),
                    ("una", header.una.0),
                    ("len", header.len),
                ];
                for (name, value) in fields {
                    assert_eq!(u64::from(value), number(told, name), "{name}");
                }
                if header.command == Command::Push {
                    streams[usize::from(!datagram.up)].insert(header.sn.0, payload.to_vec());
                }
                rest = behind;
            }
            assert!(rest.is_empty());
        }
        for (stream, dir) in streams.iter().zip(["c2s", "s2c"]) {
            let stream: Vec<u8> = stream.values().flatten().copied().collect();
            let mut plain = stream.clone();
            if recording.options.compression {
                assert_eq!(
                    stream,
                    bytes(&recording.json, &format!("kcp_stream_{dir}_hex"))
                );
                plain.clear();
                snappy::Decoder::default()
                    .decode(&stream, &mut |b| plain.extend_from_slice(b))
                    .expect("it decompresses");
            }
            assert_eq!(plain, bytes(&recording.json, &format!("smux_{dir}_hex")));
        }
    }
}

/// One of our ends, fed with a recording.
struct End {
    endpoint: Endpoint,
    stream: Option<(SessionKey, StreamId)>,
    /// What is still to be written, each after as many bytes have been read.
    answers: Vec<(usize, Vec<u8>)>,
    read: Vec<u8>,
    finished: bool,
    /// Writes that the peer no longer wanted.
    stopped: bool,
    ended: Option<Event>,
}

impl End {
    fn new(endpoint: Endpoint, answers: Vec<(usize, Vec<u8>)>) -> Self {
        Self {
            endpoint,
            stream: None,
            answers,
            read: Vec::new(),
            finished: false,
            stopped: false,
            ended: None,
        }
    }

    fn turn(&mut self, now: Instant) {
        loop {
            while !self.endpoint.flush(now) {
                self.drop_runs();
            }
            self.drop_runs();
            let mut any = self.app(now);
            while let Some(event) = self.endpoint.poll_event() {
                any = true;
                match event {
                    Event::Stream(key, StreamEvent::Opened(id)) => self.stream = Some((key, id)),
                    Event::Closed(..) => self.ended = Some(event),
                    _ => {}
                }
            }
            if !any && !self.endpoint.wants_flush() {
                return;
            }
        }
    }

    fn drop_runs(&mut self) {
        while let Some(run) = self.endpoint.next_run() {
            self.endpoint.recycle(run);
        }
    }

    fn app(&mut self, now: Instant) -> bool {
        let Some((key, id)) = self.stream else {
            return false;
        };
        let before = self.read.len();
        while let Readable::Bytes(bytes) = self.endpoint.read(key, id) {
            self.read.extend_from_slice(bytes);
            let n = bytes.len();
            self.endpoint.consume(now, key, id, n);
        }
        self.finished = matches!(self.endpoint.read(key, id), Readable::Finished);
        let due = |(after, _): &mut (usize, Vec<u8>)| self.read.len() >= *after;
        for (_, answer) in self.answers.extract_if(.., due).collect::<Vec<_>>() {
            let mut rest = &answer[..];
            while !rest.is_empty() {
                match self.endpoint.write(key, id, rest.len()) {
                    Writable::Room(room) => {
                        let n = room.len().min(rest.len());
                        room[..n].copy_from_slice(&rest[..n]);
                        self.endpoint.commit(key, id, n);
                        rest = &rest[n..];
                    }
                    Writable::Full => panic!("so little is written"),
                    Writable::Stopped => {
                        self.stopped = true;
                        rest = &[];
                    }
                }
            }
        }
        self.read.len() > before
    }

    /// Takes the datagrams of one direction at their times.
    fn replay(&mut self, recording: &Recording, up: bool) {
        let path = Path {
            remote: stranger(1),
            local: None,
        };
        let start = at(10_000);
        self.turn(start);
        let all = recording.datagrams().filter(|d| d.up == up);
        for mut datagram in all {
            let now = start + ms(datagram.at_ms);
            while let Some(due) = self.endpoint.poll_timeout().filter(|due| *due < now) {
                self.turn(due);
            }
            self.endpoint.handle_run(now, path, &mut datagram.wire, 0);
            self.turn(now);
        }
        let end = start + secs(2);
        while let Some(due) = self.endpoint.poll_timeout().filter(|due| *due < end) {
            self.turn(due);
        }
    }
}

/// What an end writes, and after how many bytes read.
fn answers(recording: &Recording, side: &str) -> Vec<(usize, Vec<u8>)> {
    let mut read = 0;
    let mut answers = Vec::new();
    for step in recording.json["app_script"].as_array().expect("a script") {
        if text(step, "side") != side {
            continue;
        }
        match text(step, "action") {
            "read" => read += bytes(step, "bytes_hex").len(),
            "write" => answers.push((read, bytes(step, "bytes_hex"))),
            _ => {}
        }
    }
    answers
}

fn server_of(recording: &Recording, options: &Options) -> End {
    let mut endpoint = options.build_server(7);
    // A recording echoes nothing of ours, so it would never show where it is.
    let addresses = Addresses::default();
    addresses.validate(at(10_000), stranger(1));
    endpoint.share_addresses(addresses);
    let mut server = End::new(endpoint, answers(recording, "server"));
    server.replay(recording, true);
    server
}

#[test]
fn our_server_hears_what_their_client_said() {
    for recording in recordings() {
        let said = recording.script("client", "write").concat();
        assert_eq!(said, recording.script("server", "read").concat());
        let same = Options {
            snd_wnd: 1024,
            rcv_wnd: 1024,
            ..recording.options.clone()
        };
        // It finds out everything but key and QPP by itself.
        let other = Options {
            auto: true,
            method: Method::Sm4,
            fec: Some((7, 2)),
            smux: 3 - same.smux,
            compression: !same.compression,
            ..same.clone()
        };
        for options in [same, other] {
            let server = server_of(&recording, &options);
            assert!(server.read == said, "{}", recording.name);
            assert!(server.finished, "{}", recording.name);
            assert!(server.ended.is_none(), "{:?}", server.ended);
            let counters = server.endpoint.counters();
            assert_eq!((counters.passive_opens, counters.streams_opened), (1, 1));
            assert_eq!((counters.kcp_in_errors, counters.in_csum_errors), (0, 0));
        }
    }
}

#[test]
fn our_client_hears_what_their_server_said() {
    for recording in recordings() {
        let said = recording.script("server", "write").concat();
        assert_eq!(said, recording.script("client", "read").concat());
        for fec in [recording.options.fec, None] {
            let options = Options {
                fec,
                ..recording.options.clone()
            };
            let path = Path {
                remote: stranger(1),
                local: None,
            };
            let start = at(10_000);
            let (mut endpoint, key) = options.build_client(path, recording.conv, 7, start);
            let key = key.expect("a session");
            let id = endpoint.open_stream(start, key).expect("a stream");
            assert_eq!(id.wire(), 3);
            let mut client = End::new(endpoint, answers(&recording, "client"));
            client.stream = Some((key, id));
            client.replay(&recording, false);
            assert!(client.read == said, "{}", recording.name);
            assert!(client.finished && !client.stopped, "{}", recording.name);
            assert!(client.ended.is_none(), "{:?}", client.ended);
        }
    }
}
