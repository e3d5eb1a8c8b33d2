//! Writes the seeds of all fuzz targets to `fuzz/corpus`, made from the golden vectors.
//!
//! Files that are not seeds (finds of the fuzzer) are left alone.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs;
use std::path::Path;

use fulmar_cipher::{Method, NonceSource, Verdict, derive_key, kcptun};
use fulmar_fuzzing::{Script, TARGETS};
use fulmar_testkit::vectors::{Value, bytes, load, xs};
use fulmar_wire::smux::{Features, Hello, Version};

/// Longer seeds are cut or left out: coverage comes from variety.
const MAX_LEN: usize = 1500;

fn main() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for target in TARGETS {
        let dir = corpus.join(target.name);
        fs::create_dir_all(&dir).unwrap();
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if name.starts_with("seed-") {
                fs::remove_file(path).unwrap();
            }
        }
        let mut seeds = seeds(target.name);
        seeds.retain(|s| s.len() <= MAX_LEN);
        seeds.dedup();
        for (i, seed) in seeds.iter().enumerate() {
            fs::write(dir.join(format!("seed-{i:02}")), seed).unwrap();
        }
        println!("{}: {} seeds", target.name, seeds.len());
    }
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "cipher_open" => cipher_open(),
        "command_line" => command_line(),
        "config_json" => config_json(),
        "libev_endpoint" => libev_endpoint(),
        "libev_json" => libev_json(),
        "libev_stream" => libev_stream(),
        "kcp_input" => kcp_input(),
        "kcptun2016_endpoint" => kcptun2016_endpoint(),
        "rawtcp_packet" => rawtcp_packet(),
        "sip003_options" => sip003_options(),
        "sealed_libev" => sealed_libev(),
        "session0" => session0(),
        "session_endpoint" => session_endpoint(),
        "smux_input" => smux_input(),
        "smux_pair" => smux_pair(),
        "fec_decoder" => fec_decoder(),
        "fec_roundtrip" => fec_roundtrip(),
        "fec_packet" => fec_packet(),
        "kcp_segments" => kcp_segments(),
        "smux_frames" => smux_frames(),
        "snappy_decoder" => snappy_decoder(),
        "snappy_roundtrip" => snappy_roundtrip(),
        "yamux_input" => yamux_input(),
        other => panic!("no seeds for {other}"),
    }
}

/// The elements of the array in a field.
fn list<'a>(v: &'a Value, key: &str) -> &'a [Value] {
    v[key].as_array().unwrap_or_else(|| panic!("no list {key}"))
}

fn cipher_open() -> Vec<Vec<u8>> {
    let number = |name: &str| {
        let index = Method::ALL.iter().position(|m| m.name() == name).unwrap();
        u8::try_from(index).unwrap()
    };
    let mut seeds = Vec::new();
    let file = load("kcptun/crypt_packets.json");
    for method in list(&file, "methods") {
        if method["password"] != "it's a secrect" {
            continue;
        }
        let name = method["method"].as_str().unwrap();
        for packet in list(method, "packets").iter().take(7).step_by(3) {
            let script = Script::new().byte(number(name)).u16(0).byte(30);
            seeds.push(script.rest(&bytes(packet, "wire_hex")).finish());
        }
    }
    let file = load("kcptun/aead.json");
    for packet in list(&file, "packets").iter().chain(list(&file, "rejected")) {
        let script = Script::new().byte(number("aes-128-gcm")).u16(0).byte(30);
        seeds.push(script.rest(&bytes(packet, "wire_hex")).finish());
    }
    for method in Method::ALL {
        let index = number(method.name());
        for (segment, len) in [(100, 350), (21, 64)] {
            let script = Script::new().byte(index).u16(segment).byte(255);
            seeds.push(script.rest(&xs(u32::from(index), len)).finish());
        }
    }
    seeds
}

fn sealed_libev() -> Vec<Vec<u8>> {
    let methods = fulmar_wire::libev::Method::SEALED;
    let mut seeds = Vec::new();
    let file = load("kcptun-libev/seal.json");
    for (number, method) in (0..).zip(methods) {
        let own = list(&file, "vectors").iter().filter(|v| {
            let (name, key) = (v["method"].as_str(), v["key"].as_str());
            name == Some(method.name()) && key == Some("counting")
        });
        for case in own.step_by(2) {
            let script = Script::new().byte(number).u16(0).byte(30);
            seeds.push(script.rest(&bytes(case, "packet_hex")).finish());
        }
        // Runs, with the last packet as long as the others, shorter, and too short for a body.
        for (segment, len) in [(100, 300), (70, 250), (60, 199)] {
            let script = Script::new().byte(number).u16(segment).byte(150);
            seeds.push(script.rest(&xs(u32::from(number) + 1, len)).finish());
        }
    }
    for case in list(&file, "must_reject") {
        let script = Script::new().byte(0).u16(0).byte(255);
        seeds.push(script.rest(&bytes(case, "packet_hex")).finish());
    }
    seeds
}

fn fec_packet() -> Vec<Vec<u8>> {
    let file = load("kcptun/fec_encode.json");
    let mut seeds = vec![bytes(&file["oob_packet"], "packet_hex"), Vec::new()];
    for group in list(&file, "groups") {
        for kind in ["data_packets_hex", "parity_packets_hex"] {
            let packet = list(group, kind).first().unwrap().as_str().unwrap();
            seeds.push(fulmar_testkit::vectors::hex(packet));
        }
    }
    seeds
}

fn fec_decoder() -> Vec<Vec<u8>> {
    let file = load("kcptun/fec_decode.json");
    let mut seeds = Vec::new();
    for case in list(&file, "cases") {
        let shard = |key: &str| u8::try_from(case[key].as_u64().unwrap()).unwrap();
        let (data, parity) = (shard("start_datashard"), shard("start_parityshard"));
        for late in [0, 128] {
            // As many packets as fit: the beginning of a case is what it is about, or its preparation.
            let mut seed = Script::new().byte(data).byte(parity).byte(late).finish();
            for step in list(case, "steps") {
                let packet = bytes(step, "in_hex");
                if seed.len() + 2 + packet.len() <= MAX_LEN {
                    seed.extend(Script::new().chunk(&packet).finish());
                }
            }
            seeds.push(seed);
        }
    }
    seeds
}

fn fec_roundtrip() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (data, parity) in [(0, 0), (2, 1), (9, 2), (15, 7)] {
        for fate in [0, 0b11, 0x0100_0005, 0xf400_0003, 0x00ff_ffff] {
            let mut script = Script::new().byte(data).byte(parity).u16(u16::from(data));
            for group in 0..3 {
                let fate: u32 = if group == 1 { 0 } else { fate };
                let [low, high] = [fate & 0xffff, fate >> 16].map(|f| u16::try_from(f).unwrap());
                script = script.u16(low).u16(high);
                for packet in 0..=data {
                    let len = usize::from(packet) * 5 % 24;
                    script = script.chunk(&xs(1 + u32::from(packet), len));
                }
            }
            seeds.push(script.finish());
        }
    }
    seeds
}

fn kcp_segments() -> Vec<Vec<u8>> {
    let file = load("kcptun/kcp_segments.json");
    let mut seeds = Vec::new();
    let mut all = Vec::new();
    for case in list(&file, "encoding") {
        let segment = bytes(case, "segment_hex");
        all.extend_from_slice(&segment);
        seeds.push(Script::new().byte(0).rest(&segment).finish());
        seeds.push(Script::new().byte(1).rest(&segment).finish());
    }
    seeds.push(Script::new().byte(0).rest(&all).finish());
    for case in list(&file, "input") {
        seeds.push(Script::new().byte(0).rest(&bytes(case, "in_hex")).finish());
    }
    seeds
}

/// What each side of the scripted sessions sends, step by step.
fn smux_steps(file: &Value) -> Vec<Vec<u8>> {
    let mut steps = Vec::new();
    for step in list(file, "script") {
        for side in ["c2s_hex", "s2c_hex"] {
            if step[side].is_string() {
                let mut step = bytes(step, side);
                step.truncate(400);
                steps.push(step);
            }
        }
    }
    steps
}

fn smux_frames() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for version in [1, 2] {
        let file = load(&format!("kcptun/smux_v{version}.json"));
        seeds.push(bytes(&file, "keepalive_nop_hex"));
        seeds.push(bytes(&file, "c2s_all_hex"));
        seeds.extend(smux_steps(&file));
    }
    seeds
}

fn snappy_decoder() -> Vec<Vec<u8>> {
    let file = load("kcptun/snappy_compstream.json");
    let mut seeds = Vec::new();
    for case in list(&file, "cases") {
        if !case["stream_hex"].is_string() {
            continue;
        }
        let stream = bytes(case, "stream_hex");
        seeds.push(Script::new().chunk(&stream).finish());
        for piece in [5, 100] {
            let script = stream.chunks(piece).fold(Script::new(), Script::chunk);
            seeds.push(script.finish());
        }
        // Padding and a repeated identifier between chunks.
        let (head, tail) = stream.split_at(10);
        let script = Script::new()
            .chunk(head)
            .chunk(b"\xfe\x03\x00\x00abc")
            .chunk(head)
            .chunk(tail);
        seeds.push(script.finish());
    }
    seeds
}

fn snappy_roundtrip() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (i, len) in [0usize, 1, 8, 20, 100, 500, 1000].into_iter().enumerate() {
        let seed = u32::try_from(i).unwrap();
        let random = xs(seed + 1, len);
        let dull = vec![b'a' + random.first().copied().unwrap_or(0) % 26; len];
        seeds.push(Script::new().chunk(&random).finish());
        seeds.push(
            Script::new()
                .chunk(&dull)
                .chunk(&random[..len / 2])
                .finish(),
        );
    }
    seeds
}

/// What follows from the recorded starts of the real programs: (0 for a client, arguments, file).
fn starts() -> Vec<(u8, Vec<String>, Option<String>)> {
    let file = load("kcptun/startup.json");
    let starts = list(&file, "cases").iter().map(|case| {
        let side = u8::from(case["program"] != "client");
        let args = list(case, "args")
            .iter()
            .map(|a| a.as_str().unwrap().to_owned());
        let json = &case["config_json"];
        let text = match json {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        (side, args.collect(), text)
    });
    starts.collect()
}

fn command_line() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (side, args, _) in starts() {
        seeds.push(
            Script::new()
                .byte(side)
                .rest(args.join("\n").as_bytes())
                .finish(),
        );
    }
    let lines = [
        "--help",
        "-v",
        "-r\n127.0.0.1:3000-4000\n--mtu=1200\n-mode\nmanual\n-nodelay\n1",
        "--datashard=200\n--parityshard=100",
        "-QPP\n--QPPCount\n0\n-key\nsecret",
        "--crypt=aes-128-gcm\n-sndwnd\n70000\n--dscp\n46\n-tcp",
        "-snmplog\n./snmp-20060102.log\n--snmpperiod=60\n-quiet=t",
        "--\n-l\n:1",
    ];
    for line in lines {
        for side in [0, 1] {
            seeds.push(Script::new().byte(side).rest(line.as_bytes()).finish());
        }
    }
    seeds.sort();
    seeds
}

fn libev_json() -> Vec<Vec<u8>> {
    const PSK: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let client = format!(
        r#"{{"listen":":8080","kcp_connect":"[::1]:https","kcp_bind":":0","method":"xchacha20poly1305_ietf","psk":"{PSK}",
        "obfs":"dpi/tcp-wnd","keepalive":25,"timeout":600,"linger":30,"time_wait":120,"loglevel":4,"log":"stderr","user":"nobody:",
        "netdev":"eth0","http_listen":"127.0.0.1:8081","kcp":{{"mtu":1400,"sndwnd":256,"rcvwnd":65536,"nodelay":1,"interval":100,
        "resend":0,"nc":1,"flush":2}},"tcp":{{"reuseport":false,"keepalive":true,"nodelay":true,"sndbuf":0,"rcvbuf":4095}},
        "udp":{{"reuseport":1,"sndbuf":1048576,"rcvbuf":1048576}},"fulmar":{{"mode":"auto","redundancy":25,"memory":67108864,
        "delay_eof":true,"accept_bad_checksums":false,"accept_keyless":false}}}}"#
    );
    let texts = [
        client.as_str(),
        r#"{"connect":"127.0.0.1:80","kcp_bind":"0.0.0.0:12345","password":"x","method":"aes256gcm"}"#,
        r#"{"connect":"h:80","rendezvous_server":"r:1","service_id":"svc","kcp_bind":":1","keepalive":30,"psk":null}"#,
        r#"{"listen":":1","udp_connect":"h:2","udp_bind":":3"}"#,
        r#"{"kcp_bind":":1","rendezvous_server":"r:1"}"#,
        r#"{"kcp_bind":":1"}"#,
        r#"{"method":"aes256gcm","listen":":1","kcp_connect":"h:2","fulmar":{"accept_keyless":true}}"#,
        r#"{"listen":":1","connect":"h:2","keepalive":0,"rendezvous_server":"r:1","psk":"x","password":"y"}"#,
        r#"{"kcp":{"mtu":300},"kcp":{"mtu":1},"kcp":null,"mtu":1400.0,"tcp":3}"#,
        "{\"listen\":\":1\"} trailing",
        "{\"kcp\": {\"mtu\": [{}, {\"a\": 1}]},}",
    ];
    texts
        .into_iter()
        .map(|text| text.as_bytes().to_vec())
        .collect()
}

fn config_json() -> Vec<Vec<u8>> {
    let mut files: Vec<(u8, String)> = Vec::new();
    for (side, _, json) in starts() {
        files.extend(json.map(|text| (side, text)));
    }
    let client = r#"{"localaddr":":12948","remoteaddr":"vps:29900-29999","key":"k","crypt":"aes-128","mode":"fast3",
        "conn":2,"autoexpire":600,"scavengettl":300,"mtu":1350,"sndwnd":512,"rcvwnd":1024,"datashard":10,"parityshard":3,
        "dscp":46,"nocomp":true,"acknodelay":false,"nodelay":1,"interval":20,"resend":2,"nc":1,"sockbuf":16777217,
        "smuxbuf":16777217,"streambuf":4194304,"keepalive":10,"log":"x.log","snmplog":"./s-20060102.log","quiet":true,"tcp":false}"#;
    let server = r#"{"listen":":29900-29999","target":"127.0.0.1:12948","qpp":true,"QPPCount":61,"pprof":false,"closewait":30,
        "ratelimit":1000000,"framesize":8192,"smuxver":2}"#;
    for text in [
        client,
        server,
        "{}",
        "null",
        "[1,2]",
        "{\"mtu\": 1350,}",
        "{\"mtu\": \"big\", \"key\": 1}",
        "{\"MTU\": 1e3, \"mtu\": 1400, \"unknown\": {\"a\": [1, {\"b\": null}]}}",
        "// comment\n{\"key\": \"\\u00e9\\ud83d\\ude00\\n\"}",
        "{\"key\": \"a\"} trailing",
        "{\"key\": \"unfinished",
    ] {
        for side in 0..3 {
            files.push((side, text.to_owned()));
        }
    }
    files.sort();
    files
        .iter()
        .map(|(side, text)| Script::new().byte(*side).rest(text.as_bytes()).finish())
        .collect()
}

fn sip003_options() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for options in [
        "",
        "server",
        "key=secret;crypt=aes;mode=fast3",
        "mtu=1200;sndwnd=512;nocomp",
        r"key=a\;b\=c\\;quiet=true",
        "server;key=k;datashard=0;parityshard=0",
        "unknown=1;=2;;conn=",
        "__android_vpn;fast-open",
    ] {
        for (side, remote, local) in [
            (0, "192.0.2.1", "127.0.0.1"),
            (1, "::", "::1"),
            (0, "", "x"),
        ] {
            let script = Script::new()
                .byte(side)
                .chunk(remote.as_bytes())
                .chunk(b"29900");
            let script = script.chunk(local.as_bytes()).chunk(b"8388");
            seeds.push(script.rest(options.as_bytes()).finish());
        }
    }
    seeds
}

fn kcp_input() -> Vec<Vec<u8>> {
    let file = load("kcptun/kcp_arq_trace.json");
    let mut seeds = Vec::new();
    for scenario in list(&file, "scenarios") {
        for end in ["A", "B"] {
            let config = &scenario[end]["config"];
            let number =
                |key: &str| u8::try_from(config[key].as_u64().unwrap_or(0) & 0x3f).unwrap();
            let mut seed = Script::new()
                .byte(number("nodelay") | number("interval") << 1)
                .byte(u8::from(number("nc") == 0) | number("resend") << 1)
                .byte(number("sndwnd"))
                .byte(number("rcvwnd"))
                .byte(1)
                .finish();
            let mut clock = scenario["clock_start"].as_u64().unwrap();
            for event in list(&scenario[end], "events") {
                let mut script = Script::new();
                let t = event["t"].as_u64().unwrap();
                if t > clock {
                    script = script
                        .byte(2)
                        .u16(u16::try_from(t - clock).unwrap_or(u16::MAX));
                    clock = t;
                }
                script = match event["ev"].as_str().unwrap() {
                    "write" => {
                        let len = event["hex"].as_str().unwrap().len() / 2;
                        script.byte(3).u16(u16::try_from(len).unwrap())
                    }
                    "input" => {
                        let recovered = u8::from(event["fec"] == true);
                        script.byte(recovered).chunk(&bytes(event, "hex"))
                    }
                    "update" => script.byte(6),
                    "recv" => script.byte(4),
                    other => panic!("unknown event {other}"),
                };
                let more = script.finish();
                if seed.len() + more.len() > MAX_LEN {
                    break;
                }
                seed.extend(more);
            }
            seeds.push(seed);
        }
    }
    // Datagrams that are refused or odd.
    let file = load("kcptun/kcp_segments.json");
    let mut script = Script::new().byte(60).byte(4).byte(32).byte(32).byte(4);
    for case in list(&file, "input") {
        let mut datagram = bytes(case, "in_hex");
        if let Some(conv) = datagram.first_chunk_mut::<4>() {
            *conv = 195_939_070u32.to_le_bytes();
        }
        script = script.byte(0).chunk(&datagram).byte(4);
    }
    seeds.push(script.finish());
    seeds
}

fn rawtcp_packet() -> Vec<Vec<u8>> {
    use fulmar_wire::rawtcp::{Flags, Header, MAX_EMITTED_LEN, Options, Timestamps, WINDOW, seal};
    use fulmar_wire::seq::Seq;
    use std::net::IpAddr;

    let addresses: [IpAddr; 2] = [[192, 0, 2, 1].into(), [192, 0, 2, 2].into()];
    let times = Timestamps { value: 1, echo: 2 };
    let mut seeds = Vec::new();
    for options in [
        Options::None,
        Options::Timestamps(times),
        Options::LongTimestamps(times),
    ] {
        for (flags, payload) in [(Flags::SYN, 0), (Flags::DATA, 40), (Flags::RST, 0)] {
            let header = Header {
                src_port: 29900,
                dst_port: 40000,
                seq: Seq(1),
                ack: Seq(0xffff_fff0),
                flags,
                window: WINDOW,
                options,
            };
            let mut segment = vec![0; MAX_EMITTED_LEN];
            let len = header.emit(&mut segment);
            segment.truncate(len);
            let payload = xs(7, payload);
            seal(&mut segment, &payload, addresses[0], addresses[1]);
            segment.extend(payload);
            seeds.push(Script::new().byte(1).rest(&segment).finish());
            let total = u16::try_from(20 + segment.len()).unwrap().to_be_bytes();
            let ip = [
                0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2,
            ];
            seeds.push(Script::new().byte(0).rest(&ip).rest(&segment).finish());
        }
    }
    seeds
}

fn smux_input() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (file, v1) in [("kcptun/smux_v1.json", 1), ("kcptun/smux_v2.json", 0)] {
        let file = load(file);
        for (side, flags) in [("c2s_hex", 0), ("s2c_hex", 2), ("c2s_hex", 4)] {
            for reply in [false, true] {
                let mut seed = Script::new().byte(v1 | flags).finish();
                for (i, step) in list(&file, "script").iter().enumerate() {
                    let mut script = Script::new();
                    if flags == 2 && step["action"].as_str().unwrap().contains("OpenStream") {
                        script = script.byte(2);
                    }
                    if step[side].is_string() {
                        script = script.byte(0).chunk(&bytes(step, side));
                    }
                    if reply {
                        let which = u8::try_from(i).unwrap();
                        script = script.byte(4).byte(which).u16(1500);
                        script = script.byte(3).byte(which).u16(900).byte(7).byte(200);
                    }
                    let more = script.finish();
                    if seed.len() + more.len() <= MAX_LEN {
                        seed.extend(more);
                    }
                }
                seeds.push(seed);
            }
        }
        // The hello of one of our own ends, a stream, its end, and a silence.
        let hello = Hello {
            features: Features::HALF_CLOSE,
        };
        let version = if v1 == 1 { Version::V1 } else { Version::V2 };
        let mut script = Script::new()
            .byte(v1)
            .byte(0)
            .chunk(&hello.header(version).to_bytes());
        for frame in [
            [version.number(), 0, 0, 0, 3, 0, 0, 0],
            [version.number(), 1, 0, 0, 3, 0, 0, 0],
        ] {
            script = script.byte(0).chunk(&frame).byte(3).byte(0).u16(2000);
        }
        script = script.byte(5).byte(0).byte(7).byte(255);
        seeds.push(script.byte(1).u16(30_000).byte(1).u16(30_000).finish());
    }
    seeds
}

/// Random operations: the target gives each a meaning.
fn smux_pair() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for flags in [0, 1, 4, 5, 8, 12] {
        // Open, write, carry, read, answer, finish both ways.
        let mut script = Script::new().byte(flags).byte(0).byte(0);
        for round in 0..3 {
            script = script.byte(1).byte(round).u16(2500).byte(4).u16(u16::MAX);
            script = script
                .byte(0x83)
                .byte(round)
                .u16(1000)
                .byte(0x81)
                .byte(round)
                .u16(800);
            script = script.byte(0x84).u16(333).byte(3).byte(round).u16(900);
        }
        script = script.byte(5).byte(0).byte(0x85).byte(1).byte(4).u16(5000);
        seeds.push(script.clone().byte(6).byte(1).byte(0x84).u16(9).finish());
        seeds.push(script.byte(7).byte(255).byte(0x86).byte(0).finish());
        for seed in 1..5 {
            let ops = xs(seed, 300);
            seeds.push(
                Script::new()
                    .byte(flags)
                    .byte(0)
                    .byte(0)
                    .rest(&ops)
                    .finish(),
            );
        }
    }
    seeds
}

fn session_endpoint() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for version in [1, 2] {
        let file = load(&format!("kcptun/session_smux_v{version}.json"));
        for session in list(&file, "sessions") {
            let config = &session["config"];
            let mut flags = 0;
            for (bit, set) in [
                (2, config["datashard"] != 0),
                (4, version == 1),
                (8, config["nocomp"] == false),
                (16, config["QPP"] == true),
            ] {
                flags |= if set { bit } else { 0 };
            }
            let key = derive_key(config["key"].as_str().unwrap().as_bytes());
            let method = Method::from_name(config["crypt"].as_str().unwrap()).unwrap();
            let mut cipher = kcptun(method, &key, NonceSource::seeded([0; 32]));
            let mut verdicts = Vec::new();
            for (dir, role) in [("c2s", 0), ("s2c", 1)] {
                let mut seed = Script::new().byte(role).byte(flags).finish();
                let mut clock = 0;
                for datagram in list(session, "datagrams") {
                    if datagram["dir"] != dir {
                        continue;
                    }
                    let t = datagram["t_ms"].as_u64().unwrap();
                    let wait = u8::try_from(t - clock).unwrap_or(u8::MAX);
                    clock = t;
                    let mut body = bytes(datagram, "wire_hex");
                    cipher.open(&mut body, 0, &mut verdicts);
                    assert_eq!(verdicts, [Verdict::Ok]);
                    body.drain(..cipher.overhead().front);
                    body.truncate(body.len() - cipher.overhead().back);
                    let script = Script::new().byte(7).byte(wait).byte(0).byte(0);
                    let more = script.chunk(&body).byte(4).finish();
                    if seed.len() + more.len() <= MAX_LEN {
                        seed.extend(more);
                    }
                }
                let end = Script::new().byte(5).byte(0).u16(2000).byte(6).byte(0);
                seed.extend(end.finish());
                seeds.push(seed);
            }
        }
    }
    // What else a session of each kind can do with few bytes.
    for role in 0..8 {
        for flags in [0, 0x2f, 0x54] {
            let mut push = [0; 32];
            push[..6].copy_from_slice(b"TPCKQ\0");
            push[20] = 8;
            push[24..].copy_from_slice(&[2, 0, 0, 0, 3, 0, 0, 0]);
            let script = Script::new()
                .byte(role)
                .byte(flags)
                .byte(0)
                .byte(1)
                .chunk(&push);
            let script = script
                .byte(8)
                .byte(2)
                .chunk(&push)
                .byte(5)
                .byte(0)
                .u16(9000);
            seeds.push(
                script
                    .byte(2)
                    .byte(1)
                    .u16(32)
                    .chunk(&push.repeat(3))
                    .byte(3)
                    .u16(60_000)
                    .finish(),
            );
        }
    }
    seeds
}

fn kcptun2016_endpoint() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (name, variant) in [
        ("fixed_iv", 0),
        ("readme", 2),
        ("notuncrypt", 6),
        ("tuncrypt", 22),
        // The variant of which there is no capture is this one with a shorter first message.
        ("notuncrypt", 4),
        // A server without a key.
        ("readme", 2 | 64),
    ] {
        let session = load(&format!("kcptun-2016/session_{name}.json"));
        for (dir, role) in [("c2s", 0), ("s2c", 1)] {
            for sealed in [0, 1] {
                let mut seed = Script::new().byte(role).byte(variant | sealed).finish();
                let mut clock = 0;
                for datagram in list(&session, "datagrams") {
                    if datagram["dir"] != dir {
                        continue;
                    }
                    let t = datagram["t_ms"].as_u64().unwrap();
                    let wait = u8::try_from(t - clock).unwrap_or(u8::MAX);
                    clock = t;
                    let script = Script::new().byte(7).byte(wait).byte(0).byte(0);
                    let mut body = bytes(datagram, "kcp_hex");
                    if variant == 4 && body.len() == 24 + 32 && body[4] == 81 {
                        body.truncate(24 + 16);
                        body[20] = 16;
                    }
                    let more = script.chunk(&body).byte(4).finish();
                    if seed.len() + more.len() <= MAX_LEN {
                        seed.extend(more);
                    }
                }
                let end = Script::new().byte(5).byte(0).u16(2000).byte(6).byte(0);
                seed.extend(end.finish());
                seeds.push(seed);
            }
        }
    }
    seeds
}

fn yamux_input() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let file = load("kcptun-2016/session_readme.json");
    for (stream, flags) in [
        ("yamux_c2s_hex", 0),
        ("yamux_s2c_hex", 2),
        ("yamux_c2s_hex", 4),
    ] {
        let bytes = bytes(&file, stream);
        for cut in [40, 300] {
            let mut script = Script::new().byte(flags);
            if flags == 2 {
                script = script.byte(2).byte(2);
            }
            let mut seed = script.finish();
            for piece in bytes.chunks(cut) {
                let script = Script::new().byte(0).chunk(piece).byte(4).byte(0).u16(2000);
                let more = script.byte(3).byte(1).u16(900).byte(7).byte(200).finish();
                if seed.len() + more.len() <= MAX_LEN - 20 {
                    seed.extend(more);
                }
            }
            let script = Script::new()
                .byte(5)
                .byte(0)
                .byte(6)
                .byte(1)
                .byte(7)
                .byte(250);
            seed.extend(script.byte(1).u16(40_000).byte(7).byte(250).finish());
            seeds.push(seed);
        }
    }
    // A hello, a stream that is opened and ends, credit, a ping, and each kind of refusal.
    let frame = |kind: u8, flags: u16, stream: u32, length: u32| {
        let mut bytes = vec![0, kind];
        bytes.extend(flags.to_be_bytes());
        bytes.extend(stream.to_be_bytes());
        bytes.extend(length.to_be_bytes());
        bytes
    };
    let sound = [
        frame(2, 1, 0, 0xF01A_0001),
        frame(1, 1, 1, 0),
        frame(0, 4, 1, 0),
        frame(1, 0, 1, u32::MAX),
        frame(2, 1, 0, 7),
        frame(1, 1, 3, 9),
        frame(1, 8, 3, 0),
        frame(3, 0, 0, 0),
    ];
    for end in [
        frame(1, 1, 2, 0),
        frame(1, 1, 1, 0),
        frame(0, 0, 1, 300_000),
        frame(3, 0, 0, 1),
        frame(9, 0, 0, 0),
        vec![1; 12],
    ] {
        let mut script = Script::new().byte(0);
        for frame in sound.iter().chain([&end]) {
            script = script.byte(0).chunk(frame).byte(7).byte(90);
        }
        seeds.push(script.finish());
    }
    seeds
}

fn session0() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let file = load("kcptun-libev/session0.json");
    for message in list(&file, "messages") {
        let body = bytes(message, "plaintext_hex");
        // In each place: from the server or relay, and from somebody else.
        for place in [0, 1, 2, 7] {
            let script = Script::new().byte(place).byte(place << 4).byte(0).byte(0);
            let script = script.chunk(&body).byte(5).byte(1).byte(0).byte(3);
            seeds.push(script.chunk(&body).finish());
        }
    }
    let file = load("kcptun-libev/rendezvous_blackbox.json");
    for (place, to) in [(0, "rendezvous"), (2, "client"), (3, "server")] {
        let mut seed = Script::new().byte(place).byte(0).finish();
        for record in list(&file, "records") {
            let dir = record["dir"].as_str().unwrap_or_default();
            let Some((from, _)) = dir.split_once("->").filter(|(_, end)| *end == to) else {
                continue;
            };
            if record["plain_hex"].is_string() {
                let from = match from {
                    "rendezvous" => 0,
                    "client" => 1,
                    _ => 2,
                };
                let script = Script::new().byte(0).byte(from);
                let script = script.chunk(&bytes(record, "plain_hex"));
                let more = script.byte(4).u16(130).finish();
                if seed.len() + more.len() <= MAX_LEN {
                    seed.extend(more);
                }
            }
        }
        seeds.push(seed);
    }
    for place in 0..8 {
        for flags in [3, 0x17, 0x2b, 0x35] {
            // Found; named by the relay; silent; suspected; elsewhere.
            let script = Script::new().byte(place).byte(flags);
            let punch = b"\0\xc0\0\x02\x03\x0f\xa0\0\xc0\0\x02\x04\x0f\xa0";
            let script = script.byte(2).byte(0).byte(5).chunk(punch).byte(4).u16(100);
            let script = script.byte(3).byte(2).byte(20).byte(4).u16(900);
            let script = script.byte(2).byte(3).byte(0).chunk(b"time").byte(6);
            let script = [5, 1, 5, 1, 5, 1, 5, 90]
                .into_iter()
                .fold(script, Script::byte);
            let script = script
                .byte(7)
                .byte(0b1_0010)
                .byte(5)
                .byte(1)
                .byte(15)
                .byte(2);
            seeds.push(script.byte(3).byte(4).byte(7).byte(23).byte(2).finish());
        }
    }
    seeds
}

fn libev_stream() -> Vec<Vec<u8>> {
    let file = load("kcptun-libev/session_stream.json");
    let all = list(&file, "messages").iter();
    let all: Vec<u8> = all.flat_map(|m| bytes(m, "hex")).take(1000).collect();
    let mut seeds = Vec::new();
    for role in 0..4 {
        seeds.push(Script::new().byte(role).byte(0).chunk(&all).finish());
        for case in list(&file, "protocol_errors") {
            let script = Script::new().byte(role).byte(2).byte(0);
            seeds.push(script.chunk(&bytes(case, "hex")).byte(4).u16(9).finish());
        }
        // Dialled; data both ways, in pieces; keep-alives; ends.
        let script = Script::new().byte(role).byte(2).byte(5).u16(9).byte(1);
        let script = script.byte(1).byte(3).chunk(b"hello").byte(4).u16(2);
        let script = script.byte(3).u16(3500).byte(5).u16(700).byte(2);
        let script = script.byte(1).byte(90).chunk(&xs(1, 300)).byte(6).u16(2500);
        let script = script.byte(18).byte(13).u16(0).byte(9).byte(23);
        let script = script.byte(7).byte(5).u16(1).byte(200).byte(10);
        seeds.push(script.byte(39).byte(23).byte(5).u16(90).byte(200).finish());
    }
    seeds
}

fn libev_endpoint() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    // What one end of upstream has said, in the clear and sealed.
    for (name, method) in [
        ("client_close_none", 0),
        ("server_close", 0),
        ("half_close", 7),
        ("loss_retransmit", 4),
        ("keepalive", 0),
        ("reset_unknown_conv", 5),
        ("zero_window_probe", 6),
    ] {
        let file = load(&format!("kcptun-libev/session_{name}.json"));
        for (dir, end) in [("c2s", 0), ("s2c", 8)] {
            let mut seed = Script::new().byte(method).byte(0).finish();
            for record in list(&file, "records") {
                let plain = if record["plain_hex"].is_string() {
                    "plain_hex"
                } else {
                    "packet_hex"
                };
                if record["dir"] != dir || !record[plain].is_string() {
                    continue;
                }
                // The client is at the second place, the server at the first.
                let from = u8::from(end == 0);
                let script = Script::new().byte(end).byte(from).byte(0);
                let script = script.chunk(&bytes(record, plain));
                let more = script.byte(4 | end).byte(0xff).finish();
                if seed.len() + more.len() <= MAX_LEN {
                    seed.extend(more);
                }
            }
            seeds.push(seed);
        }
    }
    for method in [0, 4, 5, 6, 7] {
        for flags in [0, 1, 0x1e, 0x70, 0x22] {
            let mut seed = Script::new().byte(method).byte(flags).finish();
            // Two streams; data there and back; losses, damage, another address; ends.
            for (op, arguments) in [
                (1, &[9][..]),
                (0x0e, &[0]),
                (0x0e, &[0]),
                (0x0d, &[200, 5]),
                (1, &[3]),
                (2, &[0]),
                (0x12, &[30]),
                (1, &[9]),
                (5, &[0, 9]),
                (0x1d, &[0, 9]),
                (1, &[20]),
                (3, &[44, 1]),
                (0x2a, &[6]),
                (1, &[30]),
                (4, &[]),
                (0x0c, &[]),
                (0x0a, &[0]),
                (0x2e, &[0]),
                (1, &[30]),
                (3, &[200, 0]),
                (0x26, &[0]),
                (1, &[30]),
                (0x3e, &[1]),
                (1, &[9]),
                (3, &[0, 40]),
                (1, &[30]),
                (3, &[0, 80]),
            ] {
                seed.push(op);
                seed.extend(arguments);
            }
            seeds.push(seed);
        }
    }
    seeds
}
