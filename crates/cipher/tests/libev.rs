//! Packets of kcptun-libev: golden vectors, every kernel against the portable code, and bytes of any kind.

use fulmar_cipher::{
    Kernel, LibevKey, NonceSource, NonceSpace, PacketCipher, Scheme, Verdict, libev, libev_on,
    libev_probe,
};
use fulmar_testkit::vectors::{self, Value, xs};
use fulmar_wire::libev::Method;
use proptest::prelude::*;

const ALL: [Method; 5] = [
    Method::XChaCha20Poly1305,
    Method::XSalsa20Poly1305,
    Method::ChaCha20Poly1305,
    Method::Aes256Gcm,
    Method::Plain,
];

fn array<'a>(value: &'a Value, key: &str) -> &'a Vec<Value> {
    value[key].as_array().unwrap_or_else(|| panic!("no {key}"))
}

fn key_of(case: &Value) -> LibevKey {
    LibevKey::from_bytes(
        vectors::bytes(case, "key_hex")
            .try_into()
            .expect("32 bytes"),
    )
}

fn method_of(case: &Value) -> Method {
    Method::from_name(case["method"].as_str().expect("a method")).expect("known")
}

fn key() -> LibevKey {
    LibevKey::from_bytes(xs(77, 32).try_into().expect("32 bytes"))
}

fn fixed() -> NonceSource {
    NonceSource::fixed(Vec::new())
}

/// Nonces without end that are nobody's: 24 bytes do not divide the length.
fn make(kernel: Kernel, method: Method) -> Box<dyn PacketCipher> {
    libev_on(kernel, method, &key(), NonceSource::fixed(xs(4, 1021)))
}

fn open(cipher: &mut dyn PacketCipher, datagram: &[u8]) -> (Verdict, Vec<u8>) {
    let mut copy = datagram.to_vec();
    let mut verdicts = Vec::new();
    cipher.open(&mut copy, 0, &mut verdicts);
    assert_eq!(verdicts.len(), 1);
    copy.truncate(copy.len().saturating_sub(cipher.overhead().back));
    (verdicts[0], copy)
}

#[test]
fn golden_packets() {
    let file = vectors::load("kcptun-libev/seal.json");
    let cases = array(&file, "vectors");
    assert!(cases.len() >= 40);
    for kernel in Kernel::available() {
        for case in cases {
            let (method, key) = (method_of(case), key_of(case));
            let nonce = vectors::bytes(case, "nonce_hex");
            let (clear, packet) = (
                vectors::bytes(case, "plaintext_hex"),
                vectors::bytes(case, "packet_hex"),
            );
            let mut cipher = libev_on(kernel, method, &key, NonceSource::fixed(nonce));
            assert_eq!(cipher.scheme(), Scheme::Libev(method));
            assert_eq!(cipher.overhead().back, packet.len() - clear.len());
            let mut sealed = clear.clone();
            sealed.resize(packet.len(), 0xEE);
            cipher.seal(&mut sealed, 0);
            assert_eq!(sealed, packet, "{kernel:?} {case}");
            assert_eq!(open(&mut *cipher, &packet), (Verdict::Ok, clear));
            assert_eq!(libev_probe(&key, &packet), Some(method));
        }
    }
}

#[test]
fn packets_to_refuse() {
    let file = vectors::load("kcptun-libev/seal.json");
    let cases = array(&file, "must_reject");
    assert!(cases.len() >= 5);
    for kernel in Kernel::available() {
        for case in cases {
            let packet = vectors::bytes(case, "packet_hex");
            let mut cipher = libev_on(kernel, method_of(case), &key_of(case), fixed());
            let want = if packet.len() <= cipher.overhead().back {
                Verdict::TooShort
            } else {
                Verdict::Forged
            };
            assert_eq!(open(&mut *cipher, &packet).0, want, "{kernel:?} {case}");
            assert_eq!(libev_probe(&key_of(case), &packet), None);
        }
    }
}

#[test]
fn recorded_sessions() {
    for method in ALL {
        let name = method.name();
        let file = vectors::load(&format!("kcptun-libev/session_client_close_{name}.json"));
        let records = array(&file, "records");
        assert!(records.len() >= 5);
        for kernel in Kernel::available() {
            let key = match method {
                Method::Plain => key(),
                _ => key_of(&file),
            };
            let mut cipher = libev_on(kernel, method, &key, NonceSource::seeded([1; 32]));
            for record in records {
                // Between the packets are notes of what the applications did.
                if record["packet_hex"].is_null() {
                    continue;
                }
                let packet = vectors::bytes(record, "packet_hex");
                let clear = match method {
                    Method::Plain => packet.clone(),
                    _ => vectors::bytes(record, "plain_hex"),
                };
                assert_eq!(
                    open(&mut *cipher, &packet),
                    (Verdict::Ok, clear),
                    "{record}"
                );
            }
        }
    }
}

/// Seals `packets` of `segment` bytes, the last of `last` bytes, with every kernel, compares, opens again.
fn check_shape(method: Method, packets: usize, segment: usize, last: usize) {
    let clear = xs(1, (packets - 1) * segment + last);
    let mut want = clear.clone();
    make(Kernel::PORTABLE, method).seal(&mut want, segment);
    let mut verdicts = Vec::new();
    for kernel in Kernel::available() {
        let what = || format!("{method:?} {kernel:?} {packets} x {segment}, last {last}");
        let mut cipher = make(kernel, method);
        let mut run = clear.clone();
        cipher.seal(&mut run, segment);
        assert!(run == want, "seal {}", what());
        cipher.open(&mut run, segment, &mut verdicts);
        assert_eq!(verdicts.len(), packets);
        let back = cipher.overhead().back;
        for (i, verdict) in verdicts.iter().enumerate() {
            let from = i * segment;
            let to = (from + segment).min(run.len());
            if back > 0 && to - from <= back {
                assert_eq!(*verdict, Verdict::TooShort, "{}", what());
                assert!(run[from..to].iter().all(|b| *b == 0), "{}", what());
            } else {
                assert_eq!(*verdict, Verdict::Ok, "{}", what());
                assert!(
                    run[from..to - back] == clear[from..to - back],
                    "open {}",
                    what()
                );
            }
        }
    }
}

#[test]
fn every_count_of_packets() {
    for method in ALL {
        for packets in 1..=35 {
            check_shape(method, packets, 83, 1 + packets * 2 % 83);
            check_shape(method, packets, 104, 104);
            check_shape(method, packets, 300, 299);
        }
    }
}

#[test]
fn every_length_of_a_packet() {
    for method in ALL {
        for len in 1..400 {
            check_shape(method, 1, len, len);
        }
        for len in 1..200 {
            check_shape(method, 9, len, len);
        }
        for len in 1300..=1500 {
            check_shape(method, 4, len, len - len / 3);
        }
        for last in 1..=110 {
            check_shape(method, 3, 110, last);
        }
    }
}

#[test]
fn full_runs() {
    for method in ALL {
        check_shape(method, 44, 1400, 1400);
        check_shape(method, 44, 1350, 45);
        check_shape(method, 33, 1500, 1499);
        check_shape(method, 2, 20_000, 9_999);
    }
}

/// Bytes of one value are where carries go wrong.
#[test]
fn bodies_of_one_byte_value() {
    for method in ALL {
        for kernel in Kernel::available() {
            for byte in [0, 0xFF] {
                let clear = vec![byte; 20 * 500];
                let mut want = clear.clone();
                make(Kernel::PORTABLE, method).seal(&mut want, 500);
                let mut run = clear.clone();
                make(kernel, method).seal(&mut run, 500);
                assert!(run == want, "{method:?} {kernel:?}");
            }
        }
    }
}

/// A flipped bit anywhere is found, and only in its own packet.
#[test]
fn damage_stays_in_its_packet() {
    let mut verdicts = Vec::new();
    for method in Method::SEALED {
        for kernel in Kernel::available() {
            let mut cipher = make(kernel, method);
            let mut sealed = xs(5, 11 * 120);
            cipher.seal(&mut sealed, 120);
            for at in 0..120 {
                for packet in [2, 8] {
                    let mut run = sealed.clone();
                    run[packet * 120 + at] ^= 0x10;
                    cipher.open(&mut run, 120, &mut verdicts);
                    let mut want = [Verdict::Ok; 11];
                    want[packet] = Verdict::Forged;
                    assert_eq!(verdicts, want, "{method:?} {kernel:?} {at}");
                }
            }
        }
    }
}

#[test]
fn own_packets_are_not_opened() {
    for method in Method::SEALED {
        for kernel in Kernel::available() {
            let seeded = |seed| libev_on(kernel, method, &key(), NonceSource::seeded([seed; 32]));
            let (mut alice, mut bob) = (seeded(1), seeded(2));
            let mut sealed = xs(5, 9 * 100);
            alice.seal(&mut sealed, 100);
            let mut verdicts = Vec::new();
            alice.open(&mut sealed.clone(), 100, &mut verdicts);
            assert_eq!(verdicts, [Verdict::Reflected; 9]);
            // A run of both: of the packets between others' none is decrypted.
            let mut theirs = sealed.clone();
            bob.seal(&mut theirs[200..500], 100);
            let before = theirs.clone();
            alice.open(&mut theirs, 100, &mut verdicts);
            for (i, verdict) in verdicts.iter().enumerate() {
                let own = !(2..5).contains(&i);
                assert_eq!(*verdict == Verdict::Reflected, own, "{i}");
                assert!(!own || theirs[i * 100..][..100] == before[i * 100..][..100]);
            }
            bob.open(&mut sealed, 100, &mut verdicts);
            assert_eq!(verdicts, [Verdict::Ok; 9]);
        }
    }
}

#[test]
fn siblings_do_not_open_each_others_packets() {
    let space = NonceSpace::new([6; 32]);
    let [mut one, mut other] = [(); 2].map(|()| libev(Method::Aes256Gcm, &key(), space.source()));
    let mut sealed = xs(5, 100);
    one.seal(&mut sealed, 0);
    assert_eq!(open(&mut *other, &sealed).0, Verdict::Reflected);
}

#[test]
fn a_wrong_key_or_method_does_not_open() {
    let other = LibevKey::from_bytes([9; 32]);
    for method in Method::SEALED {
        let mut sealed = xs(5, 200);
        libev(method, &key(), NonceSource::seeded([1; 32])).seal(&mut sealed, 0);
        assert_eq!(libev_probe(&key(), &sealed), Some(method));
        assert_eq!(libev_probe(&other, &sealed), None);
        for wrong in Method::SEALED {
            let (verdict, _) = open(&mut *libev(wrong, &key(), fixed()), &sealed);
            assert_eq!(verdict == Verdict::Ok, wrong == method);
        }
    }
    for len in 0..100 {
        assert_eq!(libev_probe(&key(), &xs(3, len)), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_shape(
        method in prop::sample::select(ALL.to_vec()),
        packets in 1usize..40,
        segment in 1usize..1500,
        last in 1usize..1500,
    ) {
        check_shape(method, packets, segment, last.min(segment));
    }

    #[test]
    fn any_bytes(
        len in 0usize..70_000,
        segment in prop_oneof![Just(0usize), 1usize..100, 100usize..2000, Just(usize::MAX), 60_000usize..80_000],
        seed in any::<u32>(),
    ) {
        let bytes = xs(seed, len);
        let stride = if segment == 0 || segment > len { len.max(1) } else { segment };
        let mut verdicts = vec![Verdict::Ok; 3];
        for method in Method::SEALED {
            for kernel in Kernel::available() {
                let mut cipher = make(kernel, method);
                let mut run = bytes.clone();
                cipher.open(&mut run, segment, &mut verdicts);
                prop_assert_eq!(verdicts.len(), len.div_ceil(stride));
                prop_assert!(!verdicts.contains(&Verdict::Ok), "{:?}", method);
                cipher.seal(&mut run, segment);
                cipher.open(&mut run, segment, &mut verdicts);
                prop_assert!(!verdicts.contains(&Verdict::Forged), "{:?}", method);
            }
        }
    }

    #[test]
    fn tampered_or_cut_packets_do_not_open(
        method in prop::sample::select(Method::SEALED.to_vec()),
        len in 1usize..1400,
        at in any::<prop::sample::Index>(),
        flip in 1u8..,
    ) {
        let mut cipher = make(Kernel::best(), method);
        let mut sealed = xs(9, len + method.overhead());
        cipher.seal(&mut sealed, 0);
        let at = at.index(sealed.len());
        let mut tampered = sealed.clone();
        tampered[at] ^= flip;
        prop_assert_eq!(open(&mut *cipher, &tampered).0, Verdict::Forged);
        if at > 0 {
            prop_assert_ne!(open(&mut *cipher, &sealed[..at]).0, Verdict::Ok);
            prop_assert_ne!(open(&mut *cipher, &sealed[at..]).0, Verdict::Ok);
        }
        sealed.push(flip);
        prop_assert_eq!(open(&mut *cipher, &sealed).0, Verdict::Forged);
    }
}
