//! What the Go program put on the wire, and what it understood.

use super::*;
use crate::{ReadState, WriteError};
use fulmar_testkit::vectors::{self, Value};

const NOW: Instant = Instant::from_millis(1000);

fn config(version: Version, role: Role) -> Config {
    Config {
        // The bytes are those of two Go ends.
        hello: false,
        ..Config::new(version, role)
    }
}

/// A client and a server of the script.
struct Script {
    ends: [Mux; 2],
    streams: [Vec<StreamId>; 2],
}

impl Script {
    fn new(change: impl Fn(Role) -> Config) -> Self {
        let ends =
            [Role::Opener, Role::Acceptor].map(|role| Mux::new(change(role), NOW).expect("valid"));
        Self {
            ends,
            streams: Default::default(),
        }
    }

    fn id(&self, side: usize, wire: u32) -> StreamId {
        *self.streams[side]
            .iter()
            .find(|id| id.wire() == wire)
            .expect("no such stream")
    }

    fn open(&mut self, wire: u32) {
        let id = self.ends[0].open(NOW).expect("open");
        assert_eq!(id.wire(), wire);
        self.streams[0].push(id);
    }

    fn write(&mut self, side: usize, wire: u32, data: &[u8]) {
        let id = self.id(side, wire);
        assert_eq!(self.ends[side].write(id, data), Ok(data.len()));
    }

    fn close(&mut self, side: usize, wire: u32) {
        let id = self.id(side, wire);
        self.ends[side].close(NOW, id);
    }

    /// Reads everything as upstream does: a frame at a time. Returns the bytes and what the reader put on the wire.
    fn read(&mut self, side: usize, wire: u32, frame: usize) -> (Vec<u8>, Vec<u8>) {
        let id = self.id(side, wire);
        let end = &mut self.ends[side];
        let mut got = Vec::new();
        let mut sent = Vec::new();
        while end.readable(id) > 0 {
            let bytes = end.read_slices(id).collect::<Vec<_>>().concat();
            let n = frame.min(bytes.len());
            got.extend_from_slice(&bytes[..n]);
            end.consume(NOW, id, n);
            sent.extend(drain(end, NOW));
        }
        (got, sent)
    }

    /// Lets `side` send; the other end gets it a byte at a time and accepts streams. Returns the bytes.
    fn send(&mut self, side: usize, already: Vec<u8>) -> Vec<u8> {
        let mut bytes = already;
        bytes.extend(drain(&mut self.ends[side], NOW));
        let other = &mut self.ends[1 - side];
        for byte in &bytes {
            other
                .handle_input(NOW, std::slice::from_ref(byte))
                .expect("protocol");
            check(other);
        }
        for event in events(other) {
            if let Event::Opened(id) = event {
                self.streams[1 - side].push(id);
            }
        }
        bytes
    }
}

#[test]
fn scripted_exchange() {
    for (file, version) in [
        ("kcptun/smux_v1.json", Version::V1),
        ("kcptun/smux_v2.json", Version::V2),
    ] {
        let file = vectors::load(file);
        let mut s = Script::new(|role| Config {
            max_frame: 1024,
            stream_buffer: 4096,
            session_buffer: 65536,
            ..config(version, role)
        });
        let mut whole = [Vec::new(), Vec::new()];
        for step in file["script"].as_array().expect("script") {
            let action = step["action"].as_str().expect("action");
            let mut sent = [Vec::new(), Vec::new()];
            let mut read = |s: &mut Script, side: usize, wire, want: &[u8]| {
                let (got, updates) = s.read(side, wire, 1024);
                assert_eq!(got, want, "{action}");
                sent[side].extend(s.send(side, updates));
            };
            match action.split([',', '(']).next().expect("text").trim_end() {
                "sessions created" => {}
                "client OpenStream -> stream 3" => s.open(3),
                "client writes 'GET /\\r\\n' on stream 3" => s.write(0, 3, b"GET /\r\n"),
                "server accepts stream 3 and reads 7 bytes in one read" => {
                    read(&mut s, 1, 3, b"GET /\r\n");
                }
                "server writes xs" if action.contains("77") => {
                    s.write(1, 3, &vectors::xs(77, 2500));
                }
                "server writes xs" => s.write(1, 3, &vectors::xs(78, 2000)),
                "client reads everything" => {
                    let want = match s.ends[0].readable(s.id(0, 3)) {
                        2500 => vectors::xs(77, 2500),
                        _ => vectors::xs(78, 2000),
                    };
                    read(&mut s, 0, 3, &want);
                }
                "client OpenStream -> stream 5 and writes one byte 0x5a" => {
                    s.open(5);
                    s.write(0, 5, &[0x5a]);
                }
                "server closes stream 3" => s.close(1, 3),
                "client reads EOF on stream 3; a write on stream 3 after the peer's FIN fails with EOF and sends nothing" =>
                {
                    let id = s.id(0, 3);
                    assert_eq!(s.ends[0].read_state(id), ReadState::Finished);
                    assert_eq!(s.ends[0].write(id, b"x"), Err(WriteError::Stopped));
                }
                "client closes stream 3" => s.close(0, 3),
                "client closes stream 5" => s.close(0, 5),
                "server accepts stream 5" => {
                    read(&mut s, 1, 5, &[0x5a]);
                    assert_eq!(s.ends[1].read_state(s.id(1, 5)), ReadState::Finished);
                }
                "server closes stream 5" => s.close(1, 5),
                "client opens stream 7" => {
                    s.open(7);
                    sent[0].extend(s.send(0, Vec::new()));
                    s.write(1, 7, b"server speaks first");
                    sent[1].extend(s.send(1, Vec::new()));
                    let (got, updates) = s.read(0, 7, 1024);
                    assert_eq!(got, b"server speaks first");
                    sent[0].extend(s.send(0, updates));
                }
                "client closes the session" => {}
                other => panic!("unknown step {other}"),
            }
            for (side, key) in ["c2s_hex", "s2c_hex"].into_iter().enumerate() {
                sent[side].extend(s.send(side, Vec::new()));
                let want = step[key].as_str().map(vectors::hex).unwrap_or_default();
                assert_eq!(
                    vectors::to_hex(&sent[side]),
                    vectors::to_hex(&want),
                    "{action} {key}"
                );
                whole[side].extend_from_slice(&want);
            }
        }
        assert_eq!(whole[0], vectors::bytes(&file, "c2s_all_hex"));
        assert_eq!(whole[1], vectors::bytes(&file, "s2c_all_hex"));
        // Of the three streams the last one was left to die with the session.
        assert_eq!((s.ends[0].streams(), s.ends[1].streams()), (1, 1));
    }
}

#[test]
fn keepalive_frame() {
    for (file, version) in [
        ("kcptun/smux_v1.json", Version::V1),
        ("kcptun/smux_v2.json", Version::V2),
    ] {
        let file = vectors::load(file);
        let mut end = Mux::new(config(version, Role::Opener), NOW).expect("valid");
        let at = end.poll_timeout().expect("keep-alive");
        end.handle_timeout(at).expect("alive");
        assert_eq!(
            drain(&mut end, at),
            vectors::bytes(&file, "keepalive_nop_hex")
        );
    }
}

#[test]
fn flow_control() {
    let file = vectors::load("kcptun/smux_v2.json");
    let flow = &file["flow_control"];
    let frame = flow["frame_size"].as_u64().expect("frame_size") as usize;
    let buffer = flow["stream_buffer_of_reader"].as_u64().expect("buffer") as u32;
    let mut s = Script::new(|role| Config {
        max_frame: frame as u32,
        stream_buffer: buffer,
        send_buffer: 1 << 20,
        ..config(Version::V2, role)
    });
    s.open(3);
    s.send(0, Vec::new());
    let payload = vectors::xs(9, 400_000);
    s.write(0, 3, &payload);
    let mut got = Vec::new();
    for (step, event) in flow["events"]
        .as_array()
        .expect("events")
        .iter()
        .enumerate()
    {
        if step > 0 {
            // The reader takes one frame.
            let id = s.id(1, 3);
            let bytes = s.ends[1].read_slices(id).collect::<Vec<_>>().concat();
            let n = frame.min(bytes.len());
            assert!(n > 0);
            got.extend_from_slice(&bytes[..n]);
            s.ends[1].consume(NOW, id, n);
        }
        let updates: Vec<Value> = updates_in(&s.send(1, Vec::new()));
        assert_eq!(
            updates,
            array(&event["reader"]["upd_consumed_window"]),
            "{event}"
        );
        let lengths: Vec<Value> = commands(&s.send(0, Vec::new()))
            .into_iter()
            .map(|(command, _, len)| {
                assert_eq!(command, Command::Psh);
                Value::from(len)
            })
            .collect();
        assert_eq!(lengths, array(&event["writer"]["psh_lengths"]), "{event}");
    }
    assert!(got == payload, "bytes differ");
}

fn array(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

/// `[consumed, window]` of each update in `bytes`, which are updates only.
fn updates_in(bytes: &[u8]) -> Vec<Value> {
    bytes
        .chunks(16)
        .map(|frame| {
            assert_eq!(Header::parse(frame).expect("header").command, Command::Upd);
            let update = fulmar_wire::smux::Update::parse(&frame[8..]).expect("update");
            Value::from(vec![update.consumed, update.window])
        })
        .collect()
}

/// The payloads of one direction, end to end.
fn payload_of(mut bytes: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let header = Header::parse(bytes).expect("header");
        let end = HEADER_LEN + usize::from(header.len);
        if header.command == Command::Psh {
            all.extend_from_slice(&bytes[HEADER_LEN..end]);
        }
        bytes = &bytes[end..];
    }
    all
}

/// Whole sessions: the applications do what they did, and both ends produce the bytes that the Go ends produced.
#[test]
fn captured_sessions() {
    for (file, version) in [
        ("kcptun/session_smux_v1.json", Version::V1),
        ("kcptun/session_smux_v2.json", Version::V2),
    ] {
        let file = vectors::load(file);
        for session in file["sessions"].as_array().expect("sessions") {
            let setting = |key: &str| session["config"][key].as_u64().expect("number") as u32;
            let qpp = session["config"]["QPP"].as_bool().expect("flag");
            let mut s = Script::new(|role| Config {
                max_frame: setting("framesize"),
                stream_buffer: setting("streambuf"),
                ..config(version, role)
            });
            let expected = ["smux_c2s_hex", "smux_s2c_hex"].map(|key| vectors::bytes(session, key));
            // With QPP on, the mux sees the substituted bytes.
            let payload = [payload_of(&expected[0]), payload_of(&expected[1])];
            let mut written = [0, 0];
            let mut read = [0, 0];
            let mut sent = [Vec::new(), Vec::new()];
            s.open(3);
            for step in session["app_script"].as_array().expect("script") {
                let side = usize::from(step["side"] == "server");
                let bytes = step["bytes_hex"].as_str().map(vectors::hex);
                match (step["action"].as_str(), bytes) {
                    (Some("write"), Some(plain)) => {
                        let from = written[side];
                        written[side] += plain.len();
                        let data = payload[side][from..written[side]].to_vec();
                        assert!(qpp || data == plain);
                        s.write(side, 3, &data);
                        let out = s.send(side, Vec::new());
                        sent[side].extend(out);
                    }
                    (Some("read"), Some(plain)) => {
                        let (got, updates) = s.read(side, 3, setting("framesize") as usize);
                        let from = read[side];
                        read[side] += plain.len();
                        assert_eq!(got, payload[1 - side][from..read[side]]);
                        let out = s.send(side, updates);
                        sent[side].extend(out);
                    }
                    (Some("close stream"), _) => {
                        s.close(side, 3);
                        let out = s.send(side, Vec::new());
                        sent[side].extend(out);
                    }
                    other => panic!("unknown step {other:?}"),
                }
            }
            for side in 0..2 {
                assert_eq!(
                    vectors::to_hex(&sent[side]),
                    vectors::to_hex(&expected[side]),
                    "{} side {side}",
                    session["name"]
                );
                assert_eq!(s.ends[side].streams(), 0);
            }
        }
    }
}
