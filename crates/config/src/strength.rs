//! Secrets that somebody finds by trying.
//!
//! A key is derived from the secret with a salt that everybody knows, so whoever has recorded one datagram can try out secrets elsewhere
//! and as fast as their machines permit. What is found here is what they try first; what is not found need not be good.

use core::fmt;

use crate::text;

/// A secret of fewer bytes is short: letters and digits at random give 95 bits in 16, words far less.
const SHORT: usize = 16;
/// A secret has few different bytes if they are fewer than this.
const FEW_BYTES: usize = 6;
/// A piece of at most so many bytes that is repeated is no longer than itself.
const PIECE: usize = SHORT - 1;

/// Why a secret is easily found. Reads well behind "secrets".
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Weakness {
    /// It has so many bytes.
    Short(usize),
    /// It has so many different bytes.
    FewBytes(usize),
    /// It is a short piece again and again.
    Repeated,
    /// Each byte follows from the one before, as in `abcdef`.
    Sequence,
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short(n) => write!(f, "of {}", text::count(*n as u64, "byte")),
            Self::FewBytes(n) => write!(f, "of only {}", text::count(*n as u64, "different byte")),
            Self::Repeated => f.write_str("that repeat a few bytes"),
            Self::Sequence => f.write_str("that are a sequence"),
        }
    }
}

/// What makes `secret` easy to find, if anything obvious does.
pub(crate) fn weakness(secret: &[u8]) -> Option<Weakness> {
    if secret.len() < SHORT {
        return Some(Weakness::Short(secret.len()));
    }
    let mut seen = [false; 256];
    for byte in secret {
        seen[usize::from(*byte)] = true;
    }
    let different = seen.iter().filter(|seen| **seen).count();
    if different < FEW_BYTES {
        return Some(Weakness::FewBytes(different));
    }
    if (1..=PIECE).any(|n| secret.iter().zip(&secret[n..]).all(|(a, b)| a == b)) {
        return Some(Weakness::Repeated);
    }
    let steps = |step: u8| secret.windows(2).all(|w| w[1] == w[0].wrapping_add(step));
    (steps(1) || steps(u8::MAX)).then_some(Weakness::Sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tried_first_is_found() {
        for (secret, said) in [
            ("", "of 0 bytes"),
            ("a", "of 1 byte"),
            ("correct horse", "of 13 bytes"),
            ("aaaaaaaaaaaaaaaaaaaaaa", "of only 1 different byte"),
            ("01010101101010101111", "of only 2 different bytes"),
            ("passwordpasswordpass", "that repeat a few bytes"),
            ("abcdefghijklmnopqrstuvwxyz", "that are a sequence"),
            ("zyxwvutsrqponmlkjihgfedcba", "that are a sequence"),
        ] {
            let found = weakness(secret.as_bytes()).map(|w| w.to_string());
            assert_eq!(found.as_deref(), Some(said), "{secret}");
        }
    }

    #[test]
    fn a_secret_at_random_is_none_of_these() {
        for secret in [
            "nV7pY2sQ0xLk9RtW",
            "a long sentence that nobody has written before",
            "4e0f3a9b5c7d2816",
        ] {
            assert_eq!(weakness(secret.as_bytes()), None, "{secret}");
        }
        let bytes: Vec<u8> = (0..16u32).map(|n| (n * 37 + n * n * 11) as u8).collect();
        assert_eq!(weakness(&bytes), None);
    }
}
