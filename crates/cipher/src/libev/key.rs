//! Keys of kcptun-libev: from passwords and from base64 (docs/spec/kcptun-libev.md, section 4.2).

use core::fmt;

use zeroize::Zeroizing;

/// Bytes of a key, for all methods.
const LEN: usize = 32;
/// Characters of a key in base64, the padding included.
const TEXT_LEN: usize = LEN.div_ceil(3) * 4;
/// BLAKE2b with 16 bytes of output over the name `kcptun-libev`.
const SALT: [u8; 16] = [
    0xCD, 0xA3, 0xB5, 0x0A, 0xAB, 0x79, 0xE7, 0x41, 0x82, 0x60, 0x65, 0x1F, 0xBD, 0xE9, 0x8E, 0xDC,
];
const PASSES: u32 = 2;
const MEMORY_KIB: u32 = 8;
const LANES: u32 = 1;

/// The 32 bytes that seal all packets of kcptun-libev. Wiped from memory on drop; never shown by `Debug`.
#[derive(Clone)]
pub struct LibevKey(Zeroizing<[u8; LEN]>);

impl LibevKey {
    /// A key from its bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; LEN]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The key that kcptun-libev makes of the bytes of `password` (section 4.2): Argon2id in version 1.3, two passes
    /// over 8 KiB.
    ///
    /// An empty password is allowed. So little memory makes guessing cheap: prefer [`Self::from_psk`].
    #[must_use]
    pub fn from_password(password: &[u8]) -> Self {
        // Fails for parameters out of range, which these are not, and for passwords of 4 GiB and more. Those all have
        // the key of their first 4 GiB, rather than none.
        let limit = password.len().min(argon2::MAX_PWD_LEN);
        let mut key = Zeroizing::new([0; LEN]);
        let params = argon2::Params::new(MEMORY_KIB, PASSES, LANES, Some(LEN)).unwrap_or_default();
        let argon =
            argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        let result = argon.hash_password_into(&password[..limit], &SALT, key.as_mut_slice());
        debug_assert!(result.is_ok());
        Self(key)
    }

    /// The key that `psk` says in base64 (section 4.2): the standard alphabet, 43 characters and one `=`, nothing around
    /// them.
    ///
    /// # Errors
    /// [`PskError`] says what is wrong.
    pub fn from_psk(psk: &str) -> Result<Self, PskError> {
        if psk.trim() != psk {
            return Err(PskError::Space);
        }
        // The alphabet first: somebody who pastes the wrong thing learns more from it than from the length.
        let text = psk.strip_suffix('=').unwrap_or(psk);
        if let Some((at, what)) = text.char_indices().find(|&(_, c)| sextet(c).is_none()) {
            return Err(match what {
                '=' => PskError::Padding,
                what => PskError::Character { at, what },
            });
        }
        let padded = text.len() < psk.len();
        if !padded && (psk.len() == TEXT_LEN - 1 || psk.len() == TEXT_LEN) {
            return Err(PskError::Padding);
        }
        if psk.len() != TEXT_LEN {
            return Err(PskError::Length(psk.len()));
        }
        let mut key = Zeroizing::new([0; LEN]);
        let (mut bits, mut count, mut out) = (0u32, 0, key.iter_mut());
        for value in text.chars().filter_map(sextet) {
            bits = bits << 6 | u32::from(value);
            count += 6;
            if count >= 8 {
                count -= 8;
                if let Some(byte) = out.next() {
                    *byte = (bits >> count) as u8;
                }
                bits &= (1 << count) - 1;
            }
        }
        if bits != 0 {
            return Err(PskError::Trailing);
        }
        Ok(Self(key))
    }

    /// The base64 of a key, as [`Self::from_psk`] reads it. For new keys: `bytes` are random and secret, and so is what
    /// this returns.
    #[must_use]
    pub fn generate(bytes: [u8; LEN]) -> String {
        let bytes = Zeroizing::new(bytes);
        let mut text = String::with_capacity(TEXT_LEN);
        for group in bytes.chunks(3) {
            let at = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
            let bits = at(0) << 16 | at(1) << 8 | at(2);
            for i in 0..=group.len() {
                text.push(character(bits >> (18 - 6 * i)));
            }
            for _ in group.len()..3 {
                text.push('=');
            }
        }
        text
    }

    /// The bytes of the key. Keep them out of logs.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; LEN] {
        &self.0
    }
}

impl fmt::Debug for LibevKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LibevKey(..)")
    }
}

/// Why a text is no key.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum PskError {
    /// White space in front of it or behind it.
    Space,
    /// A character that base64 does not have, that many bytes from the start.
    Character {
        /// Where, in bytes.
        at: usize,
        /// Which.
        what: char,
    },
    /// The `=` at the end is missing, or there is one elsewhere.
    Padding,
    /// Not 44 characters but this many.
    Length(usize),
    /// The last character has bits that belong to no byte.
    Trailing,
}

impl fmt::Display for PskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Space => f.write_str("white space around the key"),
            Self::Character { at, what } => {
                write!(f, "{what:?} at offset {at} is not a character of base64")
            }
            Self::Padding => f.write_str("a key ends in exactly one `=` and has no other"),
            Self::Length(len) => write!(
                f,
                "a key is 32 bytes in base64, {TEXT_LEN} characters; this has {len}"
            ),
            Self::Trailing => {
                f.write_str("the last character before the `=` is none that 32 bytes end in")
            }
        }
    }
}

impl core::error::Error for PskError {}

/// The value of a character.
fn sextet(c: char) -> Option<u8> {
    let c = u8::try_from(c).ok()?;
    match c {
        b'A'..=b'Z' => Some(c - b'A'),
        b'a'..=b'z' => Some(c - b'a' + 26),
        b'0'..=b'9' => Some(c - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

/// The character of the low six bits.
fn character(bits: u32) -> char {
    let value = (bits & 63) as u8;
    char::from(match value {
        0..26 => b'A' + value,
        26..52 => b'a' + value - 26,
        52..62 => b'0' + value - 52,
        62 => b'+',
        _ => b'/',
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_testkit::vectors;

    #[test]
    fn golden_vectors() {
        let file = vectors::load("kcptun-libev/kdf.json");
        assert_eq!(vectors::bytes(&file, "salt_hex"), SALT);
        let cases = |key: &str| file[key].as_array().expect("cases").clone();
        assert!(cases("passwords").len() >= 8);
        for case in cases("passwords") {
            let key = LibevKey::from_password(&vectors::bytes(&case, "password_utf8_hex"));
            assert_eq!(
                key.as_bytes()[..],
                vectors::bytes(&case, "key_hex"),
                "{case}"
            );
        }
        for case in cases("psk") {
            let psk = case["psk"].as_str().expect("a psk");
            let key = LibevKey::from_psk(psk).expect("a key");
            assert_eq!(
                key.as_bytes()[..],
                vectors::bytes(&case, "key_hex"),
                "{case}"
            );
            assert_eq!(LibevKey::generate(*key.as_bytes()), psk);
        }
        assert!(cases("psk_rejected").len() >= 6);
        for case in cases("psk_rejected") {
            let psk = case["psk"].as_str().expect("a psk");
            assert!(LibevKey::from_psk(psk).is_err(), "{case}");
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let good = LibevKey::generate([0xFF; 32]);
        assert_eq!(good.len(), TEXT_LEN);
        let refused = |psk: &str| LibevKey::from_psk(psk).expect_err("refused");
        assert_eq!(refused(""), PskError::Length(0));
        assert_eq!(refused("="), PskError::Length(1));
        assert_eq!(refused(&format!(" {good}")), PskError::Space);
        assert_eq!(refused(&good[..43]), PskError::Padding);
        assert_eq!(refused(&format!("{good}=")), PskError::Padding);
        assert_eq!(refused(&good[4..]), PskError::Length(40));
        assert_eq!(refused(&good.replace("8=", "9=")), PskError::Trailing);
        let dash = PskError::Character { at: 0, what: '-' };
        assert_eq!(refused(&format!("-{}", &good[1..])), dash);
        let umlaut = PskError::Character { at: 1, what: 'ä' };
        assert_eq!(refused(&format!("Aä{}", &good[3..])), umlaut);
        assert!(dash.to_string().contains("'-' at offset 0"));
    }

    #[test]
    fn debug_shows_no_key() {
        let text = format!("{:?}", LibevKey::from_bytes([0xAB; 32]));
        assert_eq!(text, "LibevKey(..)");
    }

    proptest::proptest! {
        #[test]
        fn keys_survive_their_text(bytes: [u8; 32]) {
            let key = LibevKey::from_psk(&LibevKey::generate(bytes));
            proptest::prop_assert_eq!(key.map(|k| *k.as_bytes()), Ok(bytes));
        }

        #[test]
        fn any_text_is_a_key_or_is_not(text in "[A-Za-z0-9+/= ä-]{40,46}") {
            if let Ok(key) = LibevKey::from_psk(&text) {
                proptest::prop_assert_eq!(LibevKey::generate(*key.as_bytes()), text);
            }
        }
    }
}
