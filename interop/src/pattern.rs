//! The bytes that travel through a tunnel under test.
//!
//! Every byte of every stream is a pure function of (kind, stream number, offset), so both ends know what must
//! arrive without talking to each other, and a byte that is lost, doubled, changed or delivered to another stream
//! shows at once with its offset. The tables repeat after a prime number of bytes, which no buffer, frame or packet
//! size divides.

use std::sync::OnceLock;

/// Length of the repeating table: a prime below 2^20.
const PERIOD: usize = 1_048_573;

/// What the bytes look like to a compressor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Random-looking: a compressor stores it.
    Noise,
    /// Words: a compressor shrinks it to less than half.
    Text,
}

/// The byte sequence of one stream in one direction.
#[derive(Clone, Copy, Debug)]
pub struct Pattern {
    table: &'static [u8],
    start: usize,
}

impl Pattern {
    /// The sequence of stream number `stream`; different numbers start at different places of the table.
    #[must_use]
    pub fn new(kind: Kind, stream: u32) -> Self {
        let start = usize::try_from(u64::from(stream).wrapping_mul(0x9E37_79B9) % PERIOD as u64)
            .unwrap_or(0);
        Self {
            table: table(kind),
            start,
        }
    }

    /// The bytes from `offset` on: at least one, at most `max`.
    #[must_use]
    pub fn slice(&self, offset: u64, max: usize) -> &'static [u8] {
        let at = (usize::try_from(offset % PERIOD as u64).unwrap_or(0) + self.start) % PERIOD;
        &self.table[at..at + max.clamp(1, PERIOD)]
    }

    /// Compares `data`, which was received at `offset`, with what belongs there.
    ///
    /// # Errors
    /// The offset of the first wrong byte.
    pub fn check(&self, offset: u64, data: &[u8]) -> Result<(), u64> {
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let want = self.slice(at, data.len() - done);
            let got = &data[done..done + want.len()];
            if got != want {
                let wrong = got.iter().zip(want).position(|(a, b)| a != b).unwrap_or(0);
                return Err(at + wrong as u64);
            }
            done += want.len();
        }
        Ok(())
    }
}

fn table(kind: Kind) -> &'static [u8] {
    static NOISE: OnceLock<Vec<u8>> = OnceLock::new();
    static TEXT: OnceLock<Vec<u8>> = OnceLock::new();
    match kind {
        Kind::Noise => NOISE.get_or_init(|| doubled(noise())),
        Kind::Text => TEXT.get_or_init(|| doubled(text())),
    }
}

/// The table twice, so that any slice of up to [`PERIOD`] bytes is contiguous.
fn doubled(mut once: Vec<u8>) -> Vec<u8> {
    once.truncate(PERIOD);
    let copy = once.clone();
    once.extend_from_slice(&copy);
    once
}

fn noise() -> Vec<u8> {
    let mut random = SplitMix(0x66_75_6c_6d_61_72);
    let mut out = Vec::with_capacity(PERIOD + 8);
    while out.len() < PERIOD {
        out.extend_from_slice(&random.next().to_le_bytes());
    }
    out
}

fn text() -> Vec<u8> {
    const WORDS: [&str; 16] = [
        "storm ", "wave ", "north ", "feather ", "gale ", "spray ", "glide ", "petrel ", "swell ",
        "horizon ", "foam ", "cliff ", "current ", "drift ", "squall ", "wing\n",
    ];
    let mut random = SplitMix(0x67_75_6c_6c);
    let mut out = Vec::with_capacity(PERIOD + 16);
    while out.len() < PERIOD {
        let pick = usize::try_from(random.next() >> 60).unwrap_or(0);
        out.extend_from_slice(WORDS[pick].as_bytes());
    }
    out
}

/// A small seeded generator, good enough to fill tables.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_agree_however_they_are_cut() {
        let p = Pattern::new(Kind::Noise, 7);
        let mut whole = Vec::new();
        while whole.len() < 2 * PERIOD + 100 {
            whole.extend_from_slice(p.slice(whole.len() as u64, 65_521));
        }
        assert_eq!(p.check(0, &whole), Ok(()));
        assert_eq!(p.check(1_000_000, &whole[1_000_000..1_100_000]), Ok(()));
    }

    #[test]
    fn a_changed_shifted_or_foreign_byte_is_found() {
        let p = Pattern::new(Kind::Text, 1);
        let mut data = p.slice(5000, 4096).to_vec();
        data[100] ^= 1;
        assert_eq!(p.check(5000, &data), Err(5100));
        assert!(p.check(5001, &p.slice(5000, 4096)[..4000]).is_err());
        assert!(
            Pattern::new(Kind::Text, 2)
                .check(0, p.slice(0, 4096))
                .is_err()
        );
    }
}
