//! Ciphers of kcptun as it was in spring 2016 (docs/spec/kcptun2016.md, sections 4, 5 and 7).

use fulmar_wire::kcptun2016::{HEADER_LEN, IV_LEN, MIN_SEALED, Method, NONCE_LEN};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::cfb::LaneCipher;
use crate::framed::Transform;
use crate::kernel::Kernel;
use crate::md5::{Digest, digests};
use crate::run::{datagrams, stride};
use crate::{MasterKey, NonceSource, Overhead, PacketCipher, Scheme, Verdict, aes, null};

/// The key of a password (section 4): one SHA-256, for packets and streams, both directions.
#[must_use]
pub fn kcptun2016_key(password: &[u8]) -> MasterKey {
    let hash = Zeroizing::new(<[u8; 32]>::from(Sha256::digest(password)));
    MasterKey::from_bytes(*hash)
}

/// The packet cipher (section 5), for one direction or both. Ciphers that seal with the same key must have independent nonce sources.
#[must_use]
pub fn kcptun2016(method: Method, key: &MasterKey, nonces: NonceSource) -> Box<dyn PacketCipher> {
    kcptun2016_on(Kernel::best(), method, key, nonces)
}

/// [`kcptun2016()`] with a chosen kernel, for tests and measurements.
#[must_use]
pub fn kcptun2016_on(
    kernel: Kernel,
    method: Method,
    key: &MasterKey,
    nonces: NonceSource,
) -> Box<dyn PacketCipher> {
    match method {
        Method::Plain => Box::new(null::Null(Scheme::Kcptun2016(method))),
        Method::Sealed => Box::new(Sealed {
            kernel,
            transform: aes::transform(key.as_bytes(), kernel),
            nonces,
            digests: Vec::new(),
        }),
    }
}

/// Nonce and MD5 in front of the body, all encrypted as one message.
struct Sealed {
    kernel: Kernel,
    transform: Box<dyn Transform>,
    nonces: NonceSource,
    /// Of the run in progress.
    digests: Vec<Digest>,
}

impl Sealed {
    fn digest(&mut self, run: &[u8], segment: usize) {
        let stride = stride(run.len(), segment);
        digests(self.kernel, run, stride, HEADER_LEN, &mut self.digests);
    }
}

impl PacketCipher for Sealed {
    fn overhead(&self) -> Overhead {
        Overhead {
            front: HEADER_LEN,
            back: 0,
        }
    }

    fn scheme(&self) -> Scheme {
        Scheme::Kcptun2016(Method::Sealed)
    }

    fn seal(&mut self, run: &mut [u8], segment: usize) {
        self.digest(run, segment);
        for (datagram, digest) in datagrams(run, segment).zip(&self.digests) {
            let Some(header) = datagram.first_chunk_mut::<HEADER_LEN>() else {
                datagram.fill(0);
                continue;
            };
            let (nonce, place) = header.split_at_mut(NONCE_LEN);
            self.nonces.fill_at(0, nonce);
            place.copy_from_slice(digest);
        }
        let from = self.nonces.sealed_len(NONCE_LEN);
        self.transform.encrypt(run, segment, from);
    }

    fn open(&mut self, run: &mut [u8], segment: usize, verdicts: &mut Vec<Verdict>) {
        self.nonces.judge(0, run, segment, verdicts);
        self.transform.decrypt(run, segment);
        self.digest(run, segment);
        let judged = datagrams(run, segment).zip(&self.digests);
        for (verdict, (datagram, digest)) in verdicts.iter_mut().zip(judged) {
            if datagram.len() < MIN_SEALED {
                *verdict = Verdict::TooShort;
            } else if *verdict == Verdict::Ok && datagram[NONCE_LEN..HEADER_LEN] != *digest {
                *verdict = Verdict::Forged;
            }
        }
    }
}

/// AES-256 in cipher feedback over a stream of bytes, one direction (section 7): a block that is not full carries over to the next call.
pub struct StreamCfb {
    cipher: Box<dyn Feedback>,
    /// The last whole block of ciphertext, or the vector that the stream began with.
    last: [u8; IV_LEN],
    /// The block that is being filled: its keystream, its ciphertext so far, and how much that is.
    keystream: [u8; IV_LEN],
    partial: [u8; IV_LEN],
    filled: usize,
}

/// Where a [`StreamCfb`] stands. It has keystream in it, which is as secret as what it will encrypt.
pub struct Position {
    last: [u8; IV_LEN],
    keystream: [u8; IV_LEN],
    partial: [u8; IV_LEN],
    filled: u8,
}

impl StreamCfb {
    /// A stream that begins with `iv`.
    #[must_use]
    pub fn new(key: &MasterKey, iv: [u8; IV_LEN]) -> Self {
        Self::on(Kernel::best(), key, iv)
    }

    fn on(kernel: Kernel, key: &MasterKey, iv: [u8; IV_LEN]) -> Self {
        Self {
            cipher: aes::feedback(key.as_bytes(), kernel),
            last: iv,
            keystream: [0; IV_LEN],
            partial: [0; IV_LEN],
            filled: 0,
        }
    }

    /// How far the stream has come: all that has to be known beside the key.
    #[must_use]
    pub const fn position(&self) -> Position {
        Position {
            last: self.last,
            keystream: self.keystream,
            partial: self.partial,
            filled: self.filled as u8,
        }
    }

    /// A stream that goes on at `position`.
    #[must_use]
    pub fn resumed(key: &MasterKey, position: &Position) -> Self {
        Self {
            last: position.last,
            keystream: position.keystream,
            partial: position.partial,
            filled: usize::from(position.filled),
            ..Self::new(key, position.last)
        }
    }

    /// Encrypts the next bytes of the stream in place.
    pub fn encrypt(&mut self, bytes: &mut [u8]) {
        self.apply(bytes, true);
    }

    /// Decrypts the next bytes of the stream in place.
    pub fn decrypt(&mut self, bytes: &mut [u8]) {
        self.apply(bytes, false);
    }

    fn apply(&mut self, bytes: &mut [u8], encrypt: bool) {
        let open = if self.filled == 0 {
            0
        } else {
            bytes.len().min(IV_LEN - self.filled)
        };
        let (head, rest) = bytes.split_at_mut(open);
        self.fill(head, encrypt);
        let whole = rest.len() - rest.len() % IV_LEN;
        let (blocks, tail) = rest.split_at_mut(whole);
        if encrypt {
            self.encrypt_blocks(blocks);
        } else {
            self.decrypt_blocks(blocks);
        }
        if !tail.is_empty() {
            self.keystream = self.cipher.keystream(self.last);
            self.fill(tail, encrypt);
        }
    }

    /// Encrypts whole blocks: the first here, which makes it the one that the kernel begins with.
    fn encrypt_blocks(&mut self, blocks: &mut [u8]) {
        let Some(first) = blocks.first_chunk_mut::<IV_LEN>() else {
            return;
        };
        *first = xor(*first, self.cipher.keystream(self.last));
        self.cipher.encrypt(blocks);
        if let Some(last) = blocks.last_chunk::<IV_LEN>() {
            self.last = *last;
        }
    }

    /// Decrypts whole blocks: the first here, but it takes its place only when the kernel has read what was there.
    fn decrypt_blocks(&mut self, blocks: &mut [u8]) {
        let (Some(first), Some(last)) = (blocks.first_chunk(), blocks.last_chunk()) else {
            return;
        };
        let clear = xor(*first, self.cipher.keystream(self.last));
        self.last = *last;
        self.cipher.decrypt(blocks);
        if let Some(first) = blocks.first_chunk_mut() {
            *first = clear;
        }
    }

    /// Goes on with the block that is being filled.
    fn fill(&mut self, bytes: &mut [u8], encrypt: bool) {
        for b in bytes {
            let at = self.filled;
            let other = *b ^ self.keystream[at];
            self.partial[at] = if encrypt { other } else { *b };
            *b = other;
            self.filled += 1;
        }
        if self.filled == IV_LEN {
            self.last = self.partial;
            self.filled = 0;
        }
    }
}

fn xor(a: [u8; IV_LEN], b: [u8; IV_LEN]) -> [u8; IV_LEN] {
    (u128::from_ne_bytes(a) ^ u128::from_ne_bytes(b)).to_ne_bytes()
}

/// CFB over whole blocks that follow the block in front of them, which is the first of `run`.
pub(crate) trait Feedback: Send {
    /// Encrypts what is behind the first block.
    fn encrypt(&self, run: &mut [u8]);
    /// Decrypts what is behind the first block, which is left with anything.
    fn decrypt(&self, run: &mut [u8]);
    /// What the next block is combined with.
    fn keystream(&self, last: [u8; IV_LEN]) -> [u8; IV_LEN];
}

/// With `L` lanes.
pub(crate) struct Lanes<const L: usize, C>(pub(crate) C);

impl<const L: usize, C: LaneCipher<16>> Feedback for Lanes<L, C> {
    fn encrypt(&self, run: &mut [u8]) {
        let len = run.len();
        self.0.chain::<1>(run, len, 1, IV_LEN..len);
    }

    fn decrypt(&self, run: &mut [u8]) {
        // The first block comes out wrong, as its vector is another; nobody looks at it.
        self.0.unchain::<L>(run);
    }

    fn keystream(&self, last: [u8; IV_LEN]) -> [u8; IV_LEN] {
        let mut block = [last];
        self.0.encrypt(&mut block);
        block[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_testkit::vectors::{self, bytes, xs};

    fn key(v: &vectors::Value) -> MasterKey {
        kcptun2016_key(v["key_utf8"].as_str().expect("a key").as_bytes())
    }

    fn list<'a>(v: &'a vectors::Value, key: &str) -> &'a [vectors::Value] {
        v[key].as_array().expect("a list")
    }

    #[test]
    fn keys_of_passwords() {
        let file = vectors::load("kcptun-2016/key_derivation.json");
        assert_eq!(bytes(&file, "packet_iv_hex"), crate::cfb::iv::<16>());
        let fixed = fulmar_wire::kcptun2016::FIXED_IV;
        assert_eq!(bytes(&file, "stream_iv_fixed_hex"), fixed);
        for case in list(&file, "cases") {
            let key = kcptun2016_key(&bytes(case, "key_hex"));
            assert_eq!(key.as_bytes()[..], bytes(case, "aes256_key_hex"));
            let mut block = [0; 16];
            StreamCfb::new(&key, crate::cfb::iv()).encrypt(&mut block);
            assert_eq!(block[..], bytes(case, "first_keystream_block_hex"));
        }
    }

    #[test]
    fn packets_with_every_kernel() {
        let file = vectors::load("kcptun-2016/packets.json");
        for kernel in Kernel::available() {
            for packet in list(&file, "packets") {
                let nonces = NonceSource::fixed(bytes(packet, "nonce_hex"));
                let mut cipher = kcptun2016_on(kernel, Method::Sealed, &key(packet), nonces);
                let (body, wire) = (bytes(packet, "kcp_hex"), bytes(packet, "wire_hex"));
                let mut run = vec![0xEE; HEADER_LEN];
                run.extend_from_slice(&body);
                cipher.seal(&mut run, 0);
                assert_eq!(run, wire);
                let mut verdicts = Vec::new();
                cipher.open(&mut run, 0, &mut verdicts);
                assert_eq!(verdicts, [Verdict::Ok]);
                assert_eq!(run[HEADER_LEN..], body);
            }
            for packet in list(&file, "must_drop") {
                let nonces = NonceSource::seeded([0; 32]);
                let mut cipher = kcptun2016_on(kernel, Method::Sealed, &key(packet), nonces);
                let mut verdicts = Vec::new();
                cipher.open(&mut bytes(packet, "wire_hex"), 0, &mut verdicts);
                assert_ne!(verdicts, [Verdict::Ok], "{packet}");
            }
        }
    }

    #[test]
    fn streams_cut_anywhere() {
        let file = vectors::load("kcptun-2016/stream_cipher.json");
        for stream in list(&file, "streams") {
            let iv: [u8; 16] = bytes(stream, "iv_hex").try_into().expect("16 bytes");
            let mut both = [(); 2].map(|()| StreamCfb::new(&key(stream), iv));
            for write in list(stream, "writes") {
                let (plain, sealed) = (bytes(write, "plain_hex"), bytes(write, "cipher_hex"));
                let mut text = plain.clone();
                both[0].encrypt(&mut text);
                assert_eq!(text, sealed);
                both[1].decrypt(&mut text);
                assert_eq!(text, plain);
            }
        }
        let key = kcptun2016_key(b"k");
        let plain = xs(7, 70_000);
        let mut whole = plain.clone();
        StreamCfb::new(&key, [3; 16]).encrypt(&mut whole);
        for kernel in Kernel::available() {
            for cut in [1, 15, 16, 17, 32, 100, 511, 20_000, 70_000] {
                let [mut seal, mut open] = [(); 2].map(|()| StreamCfb::on(kernel, &key, [3; 16]));
                let mut text = plain.clone();
                text.chunks_mut(cut).for_each(|piece| seal.encrypt(piece));
                assert!(text == whole, "{cut}, {kernel:?}");
                text.chunks_mut(cut + 1)
                    .for_each(|piece| open.decrypt(piece));
                assert!(text == plain, "{cut}, {kernel:?}");
            }
        }
    }
}
