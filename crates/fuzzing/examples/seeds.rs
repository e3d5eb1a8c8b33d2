//! Writes the seeds of all fuzz targets to `fuzz/corpus`, made from the golden vectors.
//!
//! Files that are not seeds (finds of the fuzzer) are left alone.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs;
use std::path::Path;

use fulmar_cipher::Method;
use fulmar_fuzzing::{Script, TARGETS};
use fulmar_testkit::vectors::{Value, bytes, load, xs};

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
        "fec_decoder" => fec_decoder(),
        "fec_roundtrip" => fec_roundtrip(),
        "fec_packet" => fec_packet(),
        "kcp_segments" => kcp_segments(),
        "smux_frames" => smux_frames(),
        "snappy_decoder" => snappy_decoder(),
        "snappy_roundtrip" => snappy_roundtrip(),
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
