//! The pre-shared secret: wiped from memory on drop, never printed.

use core::fmt;
use zeroize::Zeroizing;

/// The raw bytes of a pre-shared secret (docs/spec/kcptun.md, section 4.1), of any length, also none.
///
/// Wiped on drop; [`fmt::Debug`] prints only how long it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Zeroizing<Vec<u8>>);

impl Key {
    /// The key that consists of `bytes`.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes that go into the key derivation.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// How many bytes the key has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the key has no bytes at all, which kcptun allows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} bytes)", self.0.len())
    }
}

/// A key of exactly 32 bytes that is not derived from anything (docs/spec/kcptun-libev.md, section 4.2).
///
/// Wiped on drop; [`fmt::Debug`] prints nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Psk(Zeroizing<[u8; 32]>);

impl Psk {
    /// The key that is `bytes`.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Psk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Psk(32 bytes)")
    }
}

#[cfg(test)]
mod tests {
    use super::{Key, Psk};

    #[test]
    fn debug_shows_no_byte_of_it() {
        let key = Key::new(b"swordfish".to_vec());
        assert_eq!(format!("{key:?}"), "Key(9 bytes)");
        assert_eq!(key.as_bytes(), b"swordfish");
        let psk = Psk::new([b'x'; 32]);
        assert_eq!(format!("{psk:?}"), "Psk(32 bytes)");
        assert_eq!(psk.as_bytes(), &[b'x'; 32]);
    }
}
