//! What a packet cipher is called and what an opened datagram is worth, in any dialect.

use fulmar_wire::{kcptun, kcptun2016, libev};

/// A method of packet protection together with the dialect that it belongs to.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Scheme {
    /// Of kcptun (docs/spec/kcptun.md, section 4.2).
    Kcptun(kcptun::Method),
    /// Of kcptun as it was in spring 2016 (docs/spec/kcptun2016.md, section 5).
    Kcptun2016(kcptun2016::Method),
    /// Of kcptun-libev (docs/spec/kcptun-libev.md, section 4.1).
    Libev(libev::Method),
}

impl Scheme {
    /// The method's name in the configuration of its dialect.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kcptun(method) => method.name(),
            Self::Kcptun2016(method) => method.name(),
            Self::Libev(method) => method.name(),
        }
    }

    /// Whether the bodies travel unencrypted.
    #[must_use]
    pub const fn is_plaintext(self) -> bool {
        match self {
            Self::Kcptun(method) => method.is_plaintext(),
            Self::Kcptun2016(method) => matches!(method, kcptun2016::Method::Plain),
            Self::Libev(method) => matches!(method, libev::Method::Plain),
        }
    }

    /// Whether a datagram that opens can be believed to come from somebody who has the key: not if the bodies are
    /// clear, nor with kcptun's `xor`, whose pad anybody can work out from packets.
    #[must_use]
    pub const fn proves_key(self) -> bool {
        !self.is_plaintext() && !matches!(self, Self::Kcptun(kcptun::Method::Xor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_opens_proves_the_key_unless_anybody_can_seal() {
        for method in kcptun::Method::ALL {
            let scheme = Scheme::Kcptun(method);
            use kcptun::Method::{None, Null, Xor};
            assert_eq!(scheme.name(), method.name());
            assert_eq!(scheme.is_plaintext(), matches!(method, None | Null));
            assert_eq!(scheme.proves_key(), !matches!(method, None | Null | Xor));
        }
        for method in libev::Method::SEALED {
            assert_eq!(Scheme::Libev(method).name(), method.name());
            assert!(Scheme::Libev(method).proves_key());
        }
        assert!(Scheme::Libev(libev::Method::Plain).is_plaintext());
        assert!(!Scheme::Libev(libev::Method::Plain).proves_key());
    }
}
