//! Base64 with the standard alphabet and mandatory padding, as strict as kcptun-libev's (docs/spec/kcptun-libev.md, section 4.2).

use zeroize::Zeroizing;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// Characters of 32 bytes: 43 of data and one of padding.
const LEN: usize = 44;

/// The text of a `psk`.
#[must_use]
pub fn encode_psk(key: &[u8; 32]) -> String {
    let mut text = String::with_capacity(LEN);
    for chunk in key.chunks(3) {
        let word = chunk
            .iter()
            .chain([&0, &0])
            .take(3)
            .fold(0, |word, byte| word << 8 | usize::from(*byte));
        for i in 0..4 {
            text.push(if i > chunk.len() {
                '='
            } else {
                char::from(ALPHABET[word >> (18 - 6 * i) & 63])
            });
        }
    }
    text
}

/// Why a text is no `psk`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum PskError {
    /// White space at an end.
    Space,
    /// A character of the alphabet for file names.
    UrlSafe,
    /// Another character that has no place there.
    Character,
    /// No padding where there should be one, or not as many characters as groups of four need.
    Padding,
    /// So many bytes instead of 32.
    Length(usize),
    /// Bits behind the last byte that are not 0.
    Trailing,
}

impl core::fmt::Display for PskError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Space => f.write_str("it has white space"),
            Self::UrlSafe => f.write_str("it has - or _, which are base64 of another alphabet"),
            Self::Character => f.write_str("it has characters that are no base64"),
            Self::Padding => f.write_str("the = at the end is missing or misplaced"),
            Self::Length(n) => write!(f, "it has {n} bytes instead of 32"),
            Self::Trailing => f.write_str("its last character is not one that 32 bytes end with"),
        }
    }
}

/// The key of a `psk`.
pub(super) fn decode_psk(text: &str) -> Result<Zeroizing<[u8; 32]>, PskError> {
    let bytes = text.as_bytes();
    if bytes.iter().any(u8::is_ascii_whitespace) {
        return Err(PskError::Space);
    }
    let padding = bytes.iter().rev().take_while(|b| **b == b'=').count();
    let data = &bytes[..bytes.len() - padding];
    if data.iter().any(|b| matches!(b, b'-' | b'_')) {
        return Err(PskError::UrlSafe);
    }
    if data.contains(&b'=') {
        return Err(PskError::Padding);
    }
    if data.iter().any(|b| value(*b).is_none()) {
        return Err(PskError::Character);
    }
    if !bytes.len().is_multiple_of(4) || padding > 2 {
        return Err(PskError::Padding);
    }
    if bytes.len() != LEN || padding != 1 {
        return Err(PskError::Length(bytes.len() / 4 * 3 - padding));
    }
    let mut key = Zeroizing::new([0; 32]);
    let mut place = key.iter_mut();
    let (mut word, mut bits) = (0_u32, 0);
    for byte in data.iter().filter_map(|b| value(*b)) {
        word = word << 6 | byte;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            if let Some(place) = place.next() {
                *place = (word >> bits) as u8;
            }
            word &= (1 << bits) - 1;
        }
    }
    if word != 0 {
        return Err(PskError::Trailing);
    }
    Ok(key)
}

fn value(byte: u8) -> Option<u32> {
    Some(match byte {
        b'A'..=b'Z' => u32::from(byte - b'A'),
        b'a'..=b'z' => u32::from(byte - b'a') + 26,
        b'0'..=b'9' => u32::from(byte - b'0') + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden() {
        let vectors = fulmar_testkit::vectors::load("kcptun-libev/kdf.json");
        let list = |name: &str| vectors[name].as_array().expect(name).clone();
        for case in list("psk") {
            let text = case["psk"].as_str().expect("psk");
            let key = decode_psk(text).expect(text);
            let hex: String = key.iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(hex, case["key_hex"].as_str().expect("key_hex"), "{text}");
            assert_eq!(encode_psk(&key), text);
        }
        let mut seen = 0;
        for case in list("psk_rejected") {
            let text = case["psk"].as_str().expect("psk");
            decode_psk(text).expect_err(text);
            seen += 1;
        }
        assert!(seen >= 6);
    }

    #[test]
    fn refusals() {
        let zeros = "A".repeat(43);
        for (text, why) in [
            (format!("{zeros}="), None),
            (zeros.clone(), Some(PskError::Padding)),
            (format!("{zeros}A"), Some(PskError::Length(33))),
            (format!("{}==", "A".repeat(42)), Some(PskError::Length(31))),
            (format!("{zeros}= "), Some(PskError::Space)),
            (format!("{}B=", "A".repeat(42)), Some(PskError::Trailing)),
            (format!("{}-=", "A".repeat(42)), Some(PskError::UrlSafe)),
            (format!("{}é=", "A".repeat(41)), Some(PskError::Character)),
            (format!("{}=A=", "A".repeat(41)), Some(PskError::Padding)),
            ("====".into(), Some(PskError::Padding)),
            (String::new(), Some(PskError::Length(0))),
        ] {
            assert_eq!(decode_psk(&text).err(), why, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn round_trip(key in any::<[u8; 32]>()) {
            let back = decode_psk(&encode_psk(&key));
            prop_assert_eq!(back.map(|k| *k), Ok(key));
        }

        #[test]
        fn any_text_is_judged(text in "[A-Za-z0-9+/=_ é-]{0,60}") {
            if let Ok(key) = decode_psk(&text) {
                prop_assert_eq!(encode_psk(&key), text);
            }
        }
    }
}
