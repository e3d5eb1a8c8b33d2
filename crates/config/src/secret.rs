//! The pre-shared secret: wiped from memory on drop, never printed.

use core::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

use zeroize::Zeroizing;

/// The raw bytes of a pre-shared secret (docs/spec/kcptun.md, section 4.1), of any length, also none.
///
/// Wiped on drop, and earlier by [`Self::wipe`]; [`fmt::Debug`] prints only how long it is.
#[derive(Clone)]
pub struct Key {
    /// Those of the secret, or of its print.
    bytes: Zeroizing<Vec<u8>>,
    /// Bytes of the secret.
    len: usize,
    wiped: bool,
}

impl Key {
    /// The key that consists of `bytes`.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self {
            len: bytes.len(),
            bytes: Zeroizing::new(bytes),
            wiped: false,
        }
    }

    /// The bytes that go into the key derivation. After [`Self::wipe`] they are others, which nobody knows: what is derived from them
    /// opens nothing.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many bytes the key has, also when it was wiped.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether the key has no bytes at all, which kcptun allows.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets the secret, once everything has been derived from it that is needed. It can still be compared with others.
    pub fn wipe(&mut self) {
        if !self.wiped {
            self.bytes = Zeroizing::new(self.print().to_vec());
            self.wiped = true;
        }
    }

    /// Tells secrets apart, for as long as this process lives.
    fn print(&self) -> [u8; 8] {
        static PRINTS: OnceLock<RandomState> = OnceLock::new();
        if let (true, Some(print)) = (self.wiped, self.bytes.first_chunk()) {
            return *print;
        }
        let prints = PRINTS.get_or_init(RandomState::new);
        prints.hash_one(self.bytes.as_slice()).to_le_bytes()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        match self.wiped || other.wiped {
            true => self.len == other.len && self.print() == other.print(),
            false => self.bytes == other.bytes,
        }
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} bytes)", self.len)
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
    fn a_key_that_was_wiped_is_known_again() {
        let key = |text: &[u8]| Key::new(text.to_vec());
        let mut wiped = key(b"swordfish");
        wiped.wipe();
        assert!(wiped.as_bytes() != b"swordfish" && !wiped.as_bytes().is_empty());
        assert_eq!((wiped.len(), wiped.is_empty()), (9, false));
        let print = wiped.clone();
        wiped.wipe();
        assert_eq!(wiped, print);
        assert_eq!(wiped, key(b"swordfish"));
        assert_eq!(key(b"swordfish"), wiped);
        assert_ne!(wiped, key(b"swordfisj"));
        assert_ne!(wiped, key(b"swordfish "));
        // Its print is no key.
        assert_ne!(wiped, key(wiped.as_bytes()));
        let mut none = key(b"");
        none.wipe();
        assert_eq!((none.len(), none.as_bytes().len()), (0, 8));
        assert_eq!(none, key(b""));
    }

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
