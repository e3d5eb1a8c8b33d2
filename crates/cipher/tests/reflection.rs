//! Our own packets, sent back to us, with every cipher and kernel.

use fulmar_cipher::{
    Kernel, LibevKey, MasterKey, Method, NonceSource, NonceSpace, PacketCipher, Verdict, kcptun_on,
    kcptun2016_key, kcptun2016_on, libev_on,
};
use fulmar_testkit::vectors::xs;
use fulmar_wire::{kcptun2016, libev};

/// Makes a cipher with nonces of the source.
type Make = Box<dyn Fn(NonceSource) -> Box<dyn PacketCipher>>;

/// All ciphers that have nonces, and whether their packets notice any change.
fn ciphers() -> Vec<(String, bool, Make)> {
    let mut all: Vec<(String, bool, Make)> = Vec::new();
    for kernel in Kernel::available() {
        let name = |method: &dyn std::fmt::Debug| format!("{method:?}, {kernel:?}");
        for method in Method::ALL {
            if method == Method::Null {
                continue;
            }
            let keyed = !matches!(method, Method::Xor | Method::None);
            let make: Make = Box::new(move |nonces| {
                kcptun_on(kernel, method, &MasterKey::from_bytes([5; 32]), nonces)
            });
            all.push((name(&method), keyed, make));
        }
        let method = kcptun2016::Method::Sealed;
        let make: Make =
            Box::new(move |nonces| kcptun2016_on(kernel, method, &kcptun2016_key(b"k"), nonces));
        all.push((name(&"2016"), true, make));
        for method in libev::Method::SEALED {
            let make: Make = Box::new(move |nonces| {
                libev_on(kernel, method, &LibevKey::from_bytes([6; 32]), nonces)
            });
            all.push((name(&method), true, make));
        }
    }
    all
}

/// A run that `cipher` has sealed.
fn sealed(cipher: &mut dyn PacketCipher, packets: usize, segment: usize) -> Vec<u8> {
    let mut run = xs(5, packets * segment);
    cipher.seal(&mut run, segment);
    run
}

fn open(cipher: &mut dyn PacketCipher, run: &[u8], segment: usize) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    cipher.open(&mut run.to_vec(), segment, &mut verdicts);
    verdicts
}

#[test]
fn own_packets_do_not_open() {
    for (name, _, make) in ciphers() {
        let space = NonceSpace::new([1; 32]);
        let (mut one, mut sibling) = (make(space.source()), make(space.source()));
        let mut peer = make(NonceSource::seeded([2; 32]));
        for (packets, segment) in [(1, 300), (9, 100), (40, 777)] {
            let ours = sealed(&mut *one, packets, segment);
            let all = |verdict| vec![verdict; packets];
            assert_eq!(
                open(&mut *one, &ours, segment),
                all(Verdict::Reflected),
                "{name}"
            );
            assert_eq!(
                open(&mut *sibling, &ours, segment),
                all(Verdict::Reflected),
                "{name}"
            );
            assert_eq!(open(&mut *peer, &ours, segment), all(Verdict::Ok), "{name}");
        }
    }
}

/// Packets of both ends in one run, as an attacker can arrange them.
#[test]
fn a_reflected_packet_between_honest_ones() {
    for (name, _, make) in ciphers() {
        let [mut ours, mut peer] = [1, 2].map(|seed| make(NonceSource::seeded([seed; 32])));
        let mut run = sealed(&mut *peer, 9, 100);
        let mine = sealed(&mut *ours, 2, 100);
        run[300..500].copy_from_slice(&mine);
        for (i, verdict) in open(&mut *ours, &run, 100).into_iter().enumerate() {
            let own = (3..5).contains(&i);
            let want = if own { Verdict::Reflected } else { Verdict::Ok };
            assert_eq!(verdict, want, "{name}, packet {i}");
        }
    }
}

/// Flipping a bit of the nonce does not make a packet of ours one of the peer's.
#[test]
fn own_packets_with_a_changed_nonce_do_not_open() {
    for (name, keyed, make) in ciphers() {
        if !keyed {
            continue;
        }
        let mut cipher = make(NonceSource::seeded([1; 32]));
        let packet = sealed(&mut *cipher, 1, 120);
        for bit in 0..packet.len() * 8 {
            let mut changed = packet.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let verdicts = open(&mut *cipher, &changed, 0);
            assert_ne!(verdicts, [Verdict::Ok], "{name}, bit {bit}");
        }
    }
}

/// What peers do with our nonces: they take no notice, also of packets that are all header.
#[test]
fn short_packets_keep_their_bytes() {
    for (name, _, make) in ciphers() {
        let mut ours = make(NonceSource::seeded([1; 32]));
        let overhead = ours.overhead();
        for body in 1..40 {
            let mut packet = xs(7, overhead.total() + body);
            let clear = packet[overhead.front..packet.len() - overhead.back].to_vec();
            ours.seal(&mut packet, 0);
            let mut verdicts = Vec::new();
            make(NonceSource::seeded([2; 32])).open(&mut packet, 0, &mut verdicts);
            let got = &packet[overhead.front..packet.len() - overhead.back];
            // kcptun of 2016 takes nothing that is shorter than a segment.
            if verdicts == [Verdict::Ok] || !name.starts_with("\"2016\"") {
                assert_eq!(
                    (&verdicts[..], got),
                    (&[Verdict::Ok][..], &clear[..]),
                    "{name}"
                );
            }
        }
        for len in 0..=overhead.total() {
            let mut packet = xs(7, len);
            ours.seal(&mut packet, 0);
        }
    }
}
