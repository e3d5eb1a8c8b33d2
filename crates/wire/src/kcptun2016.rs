//! The datagram and the first message of kcptun as it was in spring 2016 (spec/kcptun-2016.md, sections 1, 5, 7 and 9).

/// Bytes of the random block in front of a sealed packet (section 5).
pub const NONCE_LEN: usize = 16;
/// Bytes of the MD5 digest behind it.
pub const DIGEST_LEN: usize = 16;
/// Bytes of both.
pub const HEADER_LEN: usize = NONCE_LEN + DIGEST_LEN;
/// Shortest sealed packet that means anything: header and one KCP segment without data. Shorter ones are dropped; the program of
/// April 2016 took them without looking at the digest.
pub const MIN_SEALED: usize = HEADER_LEN + crate::kcp::HEADER_LEN;
/// Largest UDP payload unless another is configured, bytes (section 6).
pub const DEFAULT_MTU: usize = 1400;
/// Bytes of an initialisation vector.
pub const IV_LEN: usize = 16;
/// The initialisation vector of all streams of [`Variant::A`] (section 7).
pub const FIXED_IV: [u8; IV_LEN] = [
    0x93, 0xF3, 0xC9, 0x6D, 0x53, 0xCF, 0xBE, 0x99, 0xCC, 0x6A, 0x56, 0x7A, 0x47, 0x87, 0xC8, 0x14,
];
/// Most fragments of one message: the smallest receive window of the time, which has to hold all of them (section 6).
pub const MAX_FRAGMENTS: u8 = 128;

/// What protects packets (section 4).
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Method {
    /// Nonce, MD5, AES-256 in CFB.
    Sealed,
    /// An empty password: bare KCP.
    Plain,
}

impl Method {
    /// Its name in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sealed => "aes-256-cfb with md5 (2016)",
            Self::Plain => "no encryption (2016)",
        }
    }

    /// Bytes in front of a body.
    #[must_use]
    pub const fn front(self) -> usize {
        match self {
            Self::Sealed => HEADER_LEN,
            Self::Plain => 0,
        }
    }

    /// Largest KCP datagram when a UDP payload is at most `mtu` bytes; `None` when nothing useful would be left.
    #[must_use]
    pub const fn kcp_mtu(self, mtu: usize) -> Option<usize> {
        match mtu.checked_sub(self.front()) {
            Some(left) if left >= crate::kcptun::MIN_KCP_MTU => Some(left),
            _ => None,
        }
    }
}

/// Which of three neighbouring states of the program is spoken (section 1). They differ in the first message of a client and in what it
/// means for the stream.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Variant {
    /// April 2016: no such message, a fixed vector for all streams.
    A,
    /// The README's: 16 random bytes, the vector of both directions.
    B,
    /// From 7 May: 32 random bytes, one vector for each direction; the stream is encrypted only if both ends say so.
    C,
}

impl Variant {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::A, Self::B, Self::C];

    /// Its letter.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
        }
    }

    /// Bytes of the message that a client begins with; 0: none.
    #[must_use]
    pub const fn message_len(self) -> usize {
        match self {
            Self::A => 0,
            Self::B => IV_LEN,
            Self::C => 2 * IV_LEN,
        }
    }

    /// By the length of the first KCP message of a client (section 9): in the first variant that is a frame header.
    #[must_use]
    pub const fn of_first_message(len: usize) -> Option<Self> {
        match len {
            12 => Some(Self::A),
            IV_LEN => Some(Self::B),
            32 => Some(Self::C),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_message_names_the_variant() {
        for variant in [Variant::B, Variant::C] {
            assert_eq!(
                Variant::of_first_message(variant.message_len()),
                Some(variant)
            );
        }
        assert_eq!(Variant::of_first_message(12), Some(Variant::A));
        assert_eq!(Variant::of_first_message(0), None);
        assert_eq!(Variant::of_first_message(17), None);
    }

    #[test]
    fn sizes_of_the_specification() {
        assert_eq!(Method::Sealed.kcp_mtu(DEFAULT_MTU), Some(1368));
        assert_eq!(Method::Plain.kcp_mtu(DEFAULT_MTU), Some(1400));
        assert_eq!(Method::Sealed.kcp_mtu(81), None);
        assert_eq!(Method::Sealed.kcp_mtu(82), Some(50));
        assert_eq!(Method::Sealed.kcp_mtu(3), None);
        assert_eq!(MIN_SEALED, 56);
    }
}
