//! Golden vectors of kcptun: every packet sealed and opened, alone and in runs.

use fulmar_cipher::{MasterKey, Method, NonceSource, Scheme, Verdict, derive_key, kcptun};
use fulmar_testkit::vectors::{self, Value};

struct Packet {
    nonce: Vec<u8>,
    body: Vec<u8>,
    wire: Vec<u8>,
}

fn array<'a>(value: &'a Value, key: &str) -> &'a Vec<Value> {
    value[key].as_array().unwrap_or_else(|| panic!("no {key}"))
}

/// Method, key and packets of every entry of crypt_packets.json and of aead.json.
fn all() -> Vec<(Method, MasterKey, Vec<Packet>)> {
    let file = vectors::load("kcptun/crypt_packets.json");
    let payloads = array(&file, "payloads");
    let mut all: Vec<_> = array(&file, "methods")
        .iter()
        .map(|entry| {
            let method = entry["method"].as_str().expect("method");
            let method = Method::from_name(method).expect(method);
            let key = derive_key(entry["password"].as_str().expect("password").as_bytes());
            assert_eq!(
                key.as_bytes().as_slice(),
                vectors::bytes(entry, "session_key_hex")
            );
            let packets = array(entry, "packets").iter().map(|packet| {
                let index = packet["payload"].as_u64().expect("index");
                let payload = &payloads[usize::try_from(index).expect("small")];
                Packet {
                    nonce: vectors::bytes(payload, "nonce_hex"),
                    body: vectors::bytes(payload, "payload_hex"),
                    wire: vectors::bytes(packet, "wire_hex"),
                }
            });
            (method, key, packets.collect::<Vec<_>>())
        })
        .collect();
    assert_eq!(all.iter().map(|(_, _, p)| p.len()).sum::<usize>(), 208);

    let file = vectors::load("kcptun/aead.json");
    let key = derive_key(file["password"].as_str().expect("password").as_bytes());
    let packets: Vec<_> = array(&file, "packets")
        .iter()
        .map(|packet| Packet {
            nonce: vectors::bytes(packet, "nonce_hex"),
            body: vectors::bytes(packet, "payload_hex"),
            wire: vectors::bytes(packet, "wire_hex"),
        })
        .collect();
    assert!(packets.len() >= 10);
    all.push((Method::Aes128Gcm, key, packets));
    all
}

#[test]
fn packets_seal_and_open() {
    for (method, key, packets) in all() {
        let mut verdicts = Vec::new();
        for packet in packets {
            let mut cipher = kcptun(method, &key, NonceSource::fixed(packet.nonce));
            let room = cipher.overhead();
            let mut run = vec![0x55; room.front];
            run.extend_from_slice(&packet.body);
            run.resize(run.len() + room.back, 0x55);
            cipher.seal(&mut run, 0);
            assert_eq!(run, packet.wire, "{method:?} {}", packet.wire.len());

            cipher.open(&mut run, 0, &mut verdicts);
            assert_eq!(verdicts, [Verdict::Ok], "{method:?}");
            assert_eq!(run[room.front..run.len() - room.back], packet.body);
        }
    }
}

#[test]
fn runs_of_one_packet_repeated() {
    for (method, key, packets) in all() {
        let mut verdicts = Vec::new();
        for packet in packets {
            for copies in [2, 3, 7, 8, 9, 17] {
                let mut cipher = kcptun(method, &key, NonceSource::fixed(packet.nonce.clone()));
                let len = packet.wire.len();
                let mut run = packet.wire.repeat(copies);
                cipher.open(&mut run, len, &mut verdicts);
                assert_eq!(verdicts, vec![Verdict::Ok; copies], "{method:?}");
                cipher.seal(&mut run, len);
                assert!(
                    run == packet.wire.repeat(copies),
                    "{method:?} {copies} x {len}"
                );
            }
        }
    }
}

#[test]
fn tampered_packets_are_refused() {
    let file = vectors::load("kcptun/aead.json");
    let key = derive_key(file["password"].as_str().expect("password").as_bytes());
    let mut cipher = kcptun(Method::Aes128Gcm, &key, NonceSource::seeded([0; 32]));
    let mut verdicts = Vec::new();
    let rejected = array(&file, "rejected");
    assert!(!rejected.is_empty());
    for case in rejected {
        let mut wire = vectors::bytes(case, "wire_hex");
        let want = if wire.len() < 28 {
            Verdict::TooShort
        } else {
            Verdict::Forged
        };
        cipher.open(&mut wire, 0, &mut verdicts);
        assert_eq!(verdicts, [want], "{case}");
    }
}

/// What upstream makes of each name on the command line.
#[test]
fn names_select_methods() {
    let file = vectors::load("kcptun/crypt_select.json");
    let cases = array(&file, "cases");
    assert!(cases.len() > 15);
    for case in cases {
        let requested = case["requested"].as_str().expect("requested");
        let method = Method::from_name(requested).unwrap_or(Method::Aes);
        assert_eq!(method.name(), case["effective"].as_str().expect("name"));
        let is_nil = case["is_nil_cipher"].as_bool().expect("flag");
        assert_eq!(method == Method::Null, is_nil, "{requested}");
        let cipher = kcptun(
            method,
            &MasterKey::from_bytes([1; 32]),
            NonceSource::seeded([0; 32]),
        );
        assert_eq!(cipher.scheme(), Scheme::Kcptun(method));
        assert_eq!(cipher.overhead().front, method.front());
        assert_eq!(cipher.overhead().back, method.back());
    }
}
