//! QPP: a keyed byte substitution on the payload of every mux stream (docs/spec/kcptun.md, section 11).
//!
//! [`Pads`] are derived once per process from the key and shared by all streams; a [`Stream`] is the state
//! of one mux stream. Only the position of a byte within its direction matters, not how the bytes are cut into
//! calls.
//!
//! QPP adds no protection to an encrypted tunnel: both directions of all streams use the same substitutions
//! from position 0, so known plaintext in one stream reads the others. It exists to talk to peers that have it on.

mod check;
mod pads;

pub use check::{ParameterError, Parameters, Warning, check};
pub use pads::Pads;

/// Which of the three incompatible derivations of the pads to use. Nothing on the wire tells them apart: with
/// the wrong one the application receives garbage (section 11.3).
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Generation {
    /// kcptun releases v20240729 to v20251212.
    V2024,
    /// kcptun release v20251219, sources of 18 to 21 December 2025.
    V20251219,
    /// kcptun since 22 December 2025.
    #[default]
    Current,
}

impl Generation {
    /// All of them, oldest first.
    pub const ALL: [Self; 3] = [Self::V2024, Self::V20251219, Self::Current];

    /// As a configuration names it: `2024`, `20251219`, `current`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V2024 => "2024",
            Self::V20251219 => "20251219",
            Self::Current => "current",
        }
    }

    /// The generation of that [`name`](Self::name).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|g| g.name() == name)
    }

    /// Bytes of key that would fill the state of a permutation of 256; what a shorter key is warned about.
    #[must_use]
    pub const fn recommended_key_len(self) -> usize {
        match self {
            Self::V2024 => 210,
            Self::V20251219 | Self::Current => 211,
        }
    }

    /// Chunks that the key is stretched to, and the number of pads below which a warning is due.
    const fn chunks(self) -> usize {
        match self {
            Self::V2024 => 6,
            Self::V20251219 | Self::Current => 7,
        }
    }

    /// Whether a shuffle step encrypts both halves of the digest, or only the first.
    const fn shuffles_both_halves(self) -> bool {
        matches!(self, Self::Current)
    }
}

/// The generator that selects pads: xoshiro256**, one word per eight bytes of the stream.
#[derive(Clone)]
struct Prng {
    state: [u64; 4],
    /// The word of the next byte.
    word: u64,
    /// Bytes of `word` that are used up, 0 to 7.
    used: u32,
}

impl Prng {
    /// At position 0, from 32 bytes of key.
    fn new(key: &[u8; 32]) -> Self {
        let mut state = [0; 4];
        for (word, bytes) in state.iter_mut().zip(key.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        let mut prng = Self {
            state,
            word: 0,
            used: 0,
        };
        prng.step();
        prng
    }

    /// Draws the next word.
    #[inline]
    fn step(&mut self) {
        let [s0, s1, s2, s3] = &mut self.state;
        self.word = s1.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let t = *s1 << 17;
        *s2 ^= *s0;
        *s3 ^= *s1;
        *s1 ^= *s2;
        *s0 ^= *s3;
        *s2 ^= t;
        *s3 = s3.rotate_left(45);
    }
}

/// The two directions of one mux stream, each at its own position.
///
/// Made by [`Pads::stream`]; about 100 bytes, since the pads stay shared.
#[derive(Clone)]
pub struct Stream {
    pads: Pads,
    write: Prng,
    read: Prng,
}

impl Stream {
    fn new(pads: Pads) -> Self {
        let start = pads.prng();
        Self {
            write: start.clone(),
            read: start,
            pads,
        }
    }

    /// Encrypts the next bytes of the sending direction in place.
    pub fn encrypt(&mut self, data: &mut [u8]) {
        let pads = &self.pads;
        transform(
            &mut self.write,
            data,
            |word| pads.forward(word),
            |pad, word, bytes| {
                let mixed = (u64::from_le_bytes(bytes) ^ word).to_le_bytes();
                mixed.map(|b| pad[usize::from(b)])
            },
        );
    }

    /// Decrypts the next bytes of the receiving direction in place.
    pub fn decrypt(&mut self, data: &mut [u8]) {
        let pads = &self.pads;
        transform(
            &mut self.read,
            data,
            |word| pads.inverse(word),
            |pad, word, bytes| {
                let plain = bytes.map(|b| pad[usize::from(b)]);
                (u64::from_le_bytes(plain) ^ word).to_le_bytes()
            },
        );
    }
}

impl core::fmt::Debug for Stream {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Stream").finish_non_exhaustive()
    }
}

/// Runs `data` through the generator: what is left of the current word, then whole words, then the rest.
/// `substitute` does eight bytes with one word and its pad.
#[inline(always)]
fn transform<'p>(
    prng: &mut Prng,
    data: &mut [u8],
    pad: impl Fn(u64) -> &'p [u8; 256],
    substitute: impl Fn(&[u8; 256], u64, [u8; 8]) -> [u8; 8],
) {
    // A part of a word: lay the bytes where the word has theirs, and take them from there.
    let partial = |prng: &mut Prng, data: &mut [u8]| {
        let used = prng.used as usize;
        let mut lane = [0; 8];
        lane[used..used + data.len()].copy_from_slice(data);
        let lane = substitute(pad(prng.word), prng.word, lane);
        data.copy_from_slice(&lane[used..used + data.len()]);
        // At most 8.
        #[allow(clippy::cast_possible_truncation)]
        let len = data.len() as u32;
        prng.used += len;
        if prng.used == 8 {
            prng.used = 0;
            prng.step();
        }
    };

    let head_len = if prng.used == 0 {
        0
    } else {
        data.len().min(8 - prng.used as usize)
    };
    let (head, data) = data.split_at_mut(head_len);
    if !head.is_empty() {
        partial(prng, head);
    }
    let (words, tail) = data.as_chunks_mut::<8>();
    for bytes in words {
        *bytes = substitute(pad(prng.word), prng.word, *bytes);
        prng.step();
    }
    if !tail.is_empty() {
        partial(prng, tail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::num::NonZeroU16;
    use fulmar_testkit::vectors::{Value, bytes, load, to_hex, xs};
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    fn pads(case: &Value, generation: Generation) -> Pads {
        let count = u16::try_from(case["num_pads"].as_u64().unwrap()).unwrap();
        Pads::new(
            &bytes(case, "seed_hex"),
            NonZeroU16::new(count).unwrap(),
            generation,
        )
    }

    fn field<'a>(case: &'a Value, name: &str) -> &'a [Value] {
        case[name].as_array().unwrap()
    }

    /// The bytes of a `xs(seed,n)` description.
    fn described(text: &str) -> Vec<u8> {
        let (seed, n) = text
            .strip_prefix("xs(")
            .and_then(|t| t.strip_suffix(')'))
            .and_then(|t| t.split_once(','))
            .unwrap();
        xs(seed.parse().unwrap(), n.parse().unwrap())
    }

    #[test]
    fn vectors_current() {
        let file = load("kcptun/qpp.json");
        assert_eq!(
            file["min_seed_len"],
            Generation::Current.recommended_key_len()
        );
        assert_eq!(file["min_pads"], Generation::Current.chunks());
        let cases = field(&file, "cases");
        assert!(cases.len() > 10);
        for case in cases {
            let name = case["name"].as_str().unwrap();
            let pads = pads(case, Generation::Current);
            check_pads(case, &pads);
            let prng = pads.prng();
            let state: Vec<_> = prng.state.iter().map(|s| format!("{s:016x}")).collect();
            assert_eq!(
                state,
                *field(&case["prng"], "xoshiro_state_after_first_output")
            );
            assert_eq!(format!("{:016x}", prng.word), case["prng"]["first_word"]);
            for transform in field(case, "transform") {
                let plain = bytes(transform, "plain_hex");
                let cipher = bytes(transform, "cipher_hex");
                let mut stream = pads.stream();
                let (mut sent, mut got) = (plain.clone(), cipher.clone());
                let (mut out, mut back) = (&mut sent[..], &mut got[..]);
                for len in field(transform, "write_lengths") {
                    let len = usize::try_from(len.as_u64().unwrap()).unwrap();
                    stream.encrypt(out.split_off_mut(..len).unwrap());
                    stream.decrypt(back.split_off_mut(..len).unwrap());
                }
                assert!(out.is_empty() && back.is_empty());
                assert_eq!(sent, cipher, "{name}");
                assert_eq!(got, plain, "{name}");
            }
            let both = &case["both_directions_of_one_stream"];
            if both.is_object() {
                let text = |key: &str| both[key].as_str().unwrap().as_bytes().to_vec();
                let (mut client, mut server) = (pads.stream(), pads.stream());
                let mut data = text("c2s_plain_utf8");
                client.encrypt(&mut data);
                assert_eq!(to_hex(&data), both["c2s_cipher_hex"]);
                server.decrypt(&mut data);
                assert_eq!(data, text("c2s_plain_utf8"));
                let mut data = text("s2c_plain_utf8");
                server.encrypt(&mut data);
                assert_eq!(to_hex(&data), both["s2c_cipher_hex"]);
                client.decrypt(&mut data);
                assert_eq!(data, text("s2c_plain_utf8"));
            }
        }
    }

    #[test]
    fn vectors_of_older_generations() {
        let file = load("kcptun/qpp_legacy.json");
        let cases = field(&file, "cases");
        assert!(cases.len() > 10);
        for case in cases {
            let generation = Generation::from_name(case["variant"].as_str().unwrap()).unwrap();
            let pads = pads(case, generation);
            check_pads(case, &pads);
            let plain = described(case["plain"].as_str().unwrap());
            let mut data = plain.clone();
            pads.stream().encrypt(&mut data);
            assert_eq!(to_hex(&data), case["cipher_hex"], "{}", case["name"]);
            pads.stream().decrypt(&mut data);
            assert_eq!(data, plain);
        }
    }

    /// Compares whatever a case tells about its pads.
    fn check_pads(case: &Value, pads: &Pads) {
        let (forward, inverse) = pads.tables();
        let flat = forward.as_flattened();
        assert_eq!(to_hex(&flat[..256]), case["pad0_hex"]);
        assert_eq!(to_hex(&Sha256::digest(flat)), case["pads_sha256"]);
        if case["last_pad_hex"].is_string() {
            assert_eq!(to_hex(&flat[flat.len() - 256..]), case["last_pad_hex"]);
        }
        if case["all_pads_hex"].is_string() {
            assert_eq!(to_hex(flat), case["all_pads_hex"]);
        }
        if case["rpads_sha256"].is_string() {
            assert_eq!(
                to_hex(&Sha256::digest(inverse.as_flattened())),
                case["rpads_sha256"]
            );
        }
    }

    #[test]
    fn names_go_both_ways() {
        for generation in Generation::ALL {
            assert_eq!(Generation::from_name(generation.name()), Some(generation));
        }
        assert_eq!(Generation::from_name("2025"), None);
    }

    #[test]
    fn nothing_secret_is_shown() {
        let pads = Pads::new(b"hidden", NonZeroU16::MIN, Generation::Current);
        assert_eq!(format!("{pads:?}"), "Pads { count: 1, .. }");
        assert_eq!(format!("{:?}", pads.stream()), "Stream { .. }");
    }

    /// The definition, one byte at a time.
    fn naive(pads: &Pads, data: &mut [u8]) {
        let mut prng = pads.prng();
        let (forward, _) = pads.tables();
        for (i, b) in data.iter_mut().enumerate() {
            let pad = (prng.word % 65536) as usize % forward.len();
            *b = forward[pad][usize::from(*b ^ prng.word.to_le_bytes()[i % 8])];
            if i % 8 == 7 {
                prng.step();
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn cuts_do_not_matter(
            data in prop::collection::vec(any::<u8>(), 0..600),
            cuts in prop::collection::vec(0usize..40, 1..10),
            count in 1u16..20,
        ) {
            prop_assume!(cuts.iter().any(|c| *c > 0));
            let pads = Pads::new(b"key", NonZeroU16::new(count).unwrap(), Generation::V2024);
            let mut expect = data.clone();
            naive(&pads, &mut expect);
            let mut got = data.clone();
            let mut stream = pads.stream();
            let mut rest = &mut got[..];
            for cut in cuts.iter().cycle() {
                let cut = (*cut).min(rest.len());
                stream.encrypt(rest.split_off_mut(..cut).unwrap());
                if rest.is_empty() { break; }
            }
            prop_assert_eq!(&got, &expect);
            let mut rest = &mut got[..];
            for cut in cuts.iter().rev().cycle() {
                let cut = (*cut).min(rest.len());
                stream.decrypt(rest.split_off_mut(..cut).unwrap());
                if rest.is_empty() { break; }
            }
            prop_assert_eq!(got, data);
        }
    }
}
