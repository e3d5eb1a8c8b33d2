//! Every kernel against the portable code, over all shapes of runs; and bytes of any kind.

use fulmar_cipher::{
    Kernel, MasterKey, Method, NonceSource, PacketCipher, Prober, Verdict, kcptun, kcptun_on, probe,
};
use fulmar_testkit::vectors::xs;
use proptest::prelude::*;

fn key() -> MasterKey {
    MasterKey::from_bytes(xs(77, 32).try_into().expect("32 bytes"))
}

/// What seals.
fn make(kernel: Kernel, method: Method) -> Box<dyn PacketCipher> {
    kcptun_on(kernel, method, &key(), NonceSource::seeded([3; 32]))
}

/// What opens: an end does not open its own packets.
fn peer(kernel: Kernel, method: Method) -> Box<dyn PacketCipher> {
    kcptun_on(kernel, method, &key(), NonceSource::seeded([4; 32]))
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
        peer(kernel, method).open(&mut run, segment, &mut verdicts);
        assert_eq!(verdicts.len(), packets);
        let overhead = cipher.overhead();
        for (i, verdict) in verdicts.iter().enumerate() {
            let from = i * segment;
            let to = (from + segment).min(run.len());
            if to - from < overhead.total() {
                assert_eq!(*verdict, Verdict::TooShort, "{}", what());
            } else {
                assert_eq!(*verdict, Verdict::Ok, "{}", what());
                let body = from + overhead.front..to - overhead.back;
                assert!(run[body.clone()] == clear[body], "open {}", what());
            }
        }
    }
}

#[test]
fn every_count_of_packets() {
    for method in Method::ALL {
        for packets in 1..=45 {
            check_shape(method, packets, 83, 1 + packets * 2 % 83);
            check_shape(method, packets, 64, 64);
        }
    }
}

#[test]
fn every_length_of_a_packet() {
    for method in Method::ALL {
        for len in 1..400 {
            check_shape(method, 1, len, len);
        }
        for last in 1..=70 {
            check_shape(method, 3, 70, last);
        }
    }
}

#[test]
fn full_runs() {
    for method in Method::ALL {
        check_shape(method, 44, 1350, 1350);
        check_shape(method, 44, 1350, 17);
        check_shape(method, 33, 1500, 1499);
        check_shape(method, 2, 20_000, 9_999);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_shape(
        method in prop::sample::select(Method::ALL.to_vec()),
        packets in 1usize..70,
        segment in 1usize..900,
        last in 1usize..900,
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
        for method in Method::ALL {
            let mut cipher = make(Kernel::best(), method);
            let mut run = bytes.clone();
            cipher.open(&mut run, segment, &mut verdicts);
            prop_assert_eq!(verdicts.len(), len.div_ceil(stride));
            if method != Method::Null {
                prop_assert!(!verdicts.contains(&Verdict::Ok), "{:?}", method);
            }
            cipher.seal(&mut run, segment);
            peer(Kernel::best(), method).open(&mut run, segment, &mut verdicts);
            prop_assert!(!verdicts.contains(&Verdict::Forged), "{:?}", method);
        }
    }
}

/// A flipped bit anywhere is found, and only in its own packet.
#[test]
fn damage_stays_in_its_packet() {
    let mut verdicts = Vec::new();
    for method in Method::ALL.into_iter().filter(|&m| m != Method::Null) {
        for kernel in Kernel::available() {
            let mut cipher = peer(kernel, method);
            let mut sealed = xs(5, 5 * 90);
            make(kernel, method).seal(&mut sealed, 90);
            for at in 0..90 {
                let mut run = sealed.clone();
                run[2 * 90 + at] ^= 0x10;
                cipher.open(&mut run, 90, &mut verdicts);
                let mut want = [Verdict::Ok; 5];
                want[2] = Verdict::Forged;
                // No checksum covers the nonce, and not every method spreads a change in it.
                if at < 16 && method != Method::Aes128Gcm {
                    want[2] = verdicts[2];
                }
                assert_eq!(verdicts, want, "{method:?} {kernel:?} {at}");
            }
        }
    }
}

#[test]
fn a_wrong_key_or_method_does_not_open() {
    let other = MasterKey::from_bytes([9; 32]);
    let mut verdicts = Vec::new();
    for method in Method::ALL {
        if method.is_plaintext() {
            continue;
        }
        let mut run = xs(5, 200);
        make(Kernel::best(), method).seal(&mut run, 0);
        let mut wrong = run.clone();
        kcptun(method, &other, NonceSource::seeded([0; 32])).open(&mut wrong, 0, &mut verdicts);
        assert_eq!(verdicts, [Verdict::Forged], "{method:?}");
    }
}

/// Bodies as strangers send them first: one KCP segment, with and without a FEC header.
fn bodies() -> [Vec<u8>; 2] {
    let mut segment = vec![0x78, 0x56, 0x34, 0x12, 0x51, 0, 0x80, 0];
    segment.extend_from_slice(&[1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 40, 0, 0, 0]);
    segment.extend_from_slice(&xs(8, 40));
    let mut fec = vec![0, 0, 0, 0, 0xF1, 0, 66, 0];
    fec.extend_from_slice(&segment);
    [segment, fec]
}

#[test]
fn probes_find_every_method() {
    let mut prober = Prober::new(&key(), &Method::ALL);
    for method in Method::ALL {
        for body in bodies() {
            let mut cipher = make(Kernel::best(), method);
            let room = cipher.overhead();
            let mut datagram = vec![0; room.front];
            datagram.extend_from_slice(&body);
            datagram.resize(datagram.len() + room.back, 0);
            cipher.seal(&mut datagram, 0);
            let before = datagram.clone();
            assert_eq!(prober.probe(&datagram), Some(method));
            assert_eq!(datagram, before);
            assert_eq!(probe(&key(), &[method], &datagram), Some(method));
            let others: Vec<_> = Method::ALL.into_iter().filter(|&m| m != method).collect();
            assert_eq!(probe(&key(), &others, &datagram), None, "{method:?}");
        }
    }
}

#[test]
fn probes_refuse_noise() {
    let mut prober = Prober::new(&key(), &Method::ALL);
    for len in (0..100).chain([1499, 1500, 1501, 65_507]) {
        for seed in 1..20 {
            assert_eq!(prober.probe(&xs(seed, len)), None, "{len} {seed}");
        }
    }
    assert_eq!(Prober::new(&key(), &[]).probe(&xs(1, 100)), None);
}
