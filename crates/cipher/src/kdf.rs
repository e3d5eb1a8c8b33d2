//! From a password to key bytes (docs/spec/kcptun.md, sections 4.1 and 4.4).

use core::fmt;

use sha1::Sha1;
use zeroize::Zeroizing;

const KEY_SALT: &[u8] = b"kcp-go";
const KEY_ROUNDS: u32 = 4096;
const PAD_SALT: &[u8] = b"sH3CIVoF#rWLtJo6";
const PAD_ROUNDS: u32 = 32;

/// Bytes of the pad of method `xor`.
pub(crate) const PAD_LEN: usize = 1500;

/// The 32 bytes that all methods take their keys from. Wiped from memory on drop; never shown by `Debug`.
#[derive(Clone)]
pub struct MasterKey(Zeroizing<[u8; 32]>);

impl MasterKey {
    /// A key from its bytes: what [`derive_key`] returned elsewhere.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes of the key. Keep them out of logs.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first `N` bytes, at most 32: the key of one cipher.
    pub(crate) fn prefix<const N: usize>(&self) -> &[u8; N] {
        const { assert!(N <= 32) };
        // The assertion above makes the alternative unreachable.
        self.0.first_chunk().unwrap_or(&[0; N])
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(..)")
    }
}

/// The key that kcptun makes of the raw bytes of `--key` (section 4.1): PBKDF2-HMAC-SHA1 over 4096 rounds.
///
/// An empty password is allowed. Takes more than half a millisecond; call it once per configured key.
#[must_use]
pub fn derive_key(password: &[u8]) -> MasterKey {
    let mut key = Zeroizing::new([0; 32]);
    pbkdf2::pbkdf2_hmac::<Sha1>(password, KEY_SALT, KEY_ROUNDS, key.as_mut_slice());
    MasterKey(key)
}

/// The pad of method `xor` (section 4.4).
pub(crate) fn xor_pad(key: &MasterKey) -> Zeroizing<[u8; PAD_LEN]> {
    let mut pad = Zeroizing::new([0; PAD_LEN]);
    pbkdf2::pbkdf2_hmac::<Sha1>(key.as_bytes(), PAD_SALT, PAD_ROUNDS, pad.as_mut_slice());
    pad
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_testkit::vectors;

    #[test]
    fn golden_vectors() {
        let file = vectors::load("kcptun/pbkdf2.json");
        let cases = file["cases"].as_array().expect("cases");
        let (mut keys, mut pads) = (0, 0);
        for case in cases {
            let password = vectors::bytes(case, "password_hex");
            let want = vectors::bytes(case, "output_hex");
            match case["salt_utf8"].as_str().expect("salt").as_bytes() {
                KEY_SALT => {
                    assert_eq!(derive_key(&password).as_bytes().as_slice(), want);
                    keys += 1;
                }
                PAD_SALT => {
                    let key = MasterKey::from_bytes(password.try_into().expect("32 bytes"));
                    assert_eq!(xor_pad(&key).as_slice(), want);
                    pads += 1;
                }
                other => panic!("unknown salt {other:?}"),
            }
        }
        assert!(keys >= 5 && pads == 2, "{keys} keys, {pads} pads");
    }

    #[test]
    fn debug_shows_no_key() {
        let key = MasterKey::from_bytes([0xAB; 32]);
        let text = format!("{key:?}");
        assert_eq!(text, "MasterKey(..)");
    }
}
