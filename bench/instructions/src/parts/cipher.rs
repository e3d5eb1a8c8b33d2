//! Sealing and opening runs of 44 packets: nonces, checksums or tags, and the cipher.

use fulmar_cipher::{Kernel, Method, NonceSource, Verdict, derive_key, kcptun_on};

use super::PACKET;
use crate::count::{Parts, counted};

/// Packets of a run: what one system call takes.
const RUN: usize = 44;
/// Runs that are counted.
const RUNS: u64 = 4;

pub(crate) fn parts(parts: &mut Parts, kernel: Kernel) {
    for (method, name) in [
        (Method::Aes, "aes"),
        (Method::Aes128Gcm, "aes-128-gcm"),
        (Method::Salsa20, "salsa20"),
        (Method::Null, "null"),
    ] {
        let made = || {
            let key = derive_key(b"it's a secrect");
            let mut cipher = kcptun_on(kernel, method, &key, NonceSource::seeded([1; 32]));
            let mut run = super::noise(RUN * PACKET);
            cipher.seal(&mut run, PACKET);
            (cipher, run)
        };
        parts.part(&format!("seal, {name}"), || {
            let (mut cipher, mut run) = made();
            for _ in 0..RUNS {
                counted(|| cipher.seal(&mut run, PACKET));
            }
            RUNS * RUN as u64
        });
        parts.part(&format!("open, {name}"), || {
            let (_, sealed) = made();
            let key = derive_key(b"it's a secrect");
            let mut cipher = kcptun_on(kernel, method, &key, NonceSource::seeded([2; 32]));
            let mut verdicts = Vec::with_capacity(RUN);
            for _ in 0..RUNS {
                let mut run = sealed.clone();
                counted(|| cipher.open(&mut run, PACKET, &mut verdicts));
                assert_eq!(verdicts, [Verdict::Ok; RUN]);
            }
            RUNS * RUN as u64
        });
    }
}
