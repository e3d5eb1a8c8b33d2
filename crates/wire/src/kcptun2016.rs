//! The datagram and the first message of kcptun as it was in spring 2016 (docs/spec/kcptun2016.md, sections 1, 5, 7 and 8).

/// Bytes of the random block in front of a sealed packet (section 5).
pub const NONCE_LEN: usize = 16;
/// Bytes of the MD5 digest behind it.
pub const DIGEST_LEN: usize = 16;
/// Bytes of both.
pub const HEADER_LEN: usize = NONCE_LEN + DIGEST_LEN;
/// Shortest sealed packet that means anything: header and one KCP segment without data. Shorter ones are dropped; variant A took
/// them without looking at the digest.
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
    /// Bare KCP: what [`Variant::without_key`] makes of an empty password in some states of the program.
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

/// Which of four neighbouring states of the program is spoken (section 1). They differ in the first message of a client and in
/// what it means for the stream.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Variant {
    /// 18 to 21 April 2016: no such message, a fixed vector for all streams.
    A,
    /// 21 to 28 April, the README's: 16 random bytes, the vector of both directions.
    B,
    /// 28 April to 6 May: the same 16 bytes, but the stream is encrypted only if both ends say so.
    Bt,
    /// 7 to 20 May: 32 random bytes, one vector for each direction; the stream is encrypted only if both ends say so.
    C,
}

impl Variant {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::A, Self::B, Self::Bt, Self::C];

    /// Its name in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
            Self::Bt => "BT",
            Self::C => "C",
        }
    }

    /// Bytes of the message that a client begins with; 0: none.
    #[must_use]
    pub const fn message_len(self) -> usize {
        match self {
            Self::A => 0,
            Self::B | Self::Bt => IV_LEN,
            Self::C => 2 * IV_LEN,
        }
    }

    /// Whether `--tuncrypt` decides if the stream is encrypted; the others always encrypt it.
    #[must_use]
    pub const fn has_tuncrypt(self) -> bool {
        matches!(self, Self::Bt | Self::C)
    }

    /// What protects packets when the password is empty (section 4). Of C both exist: its release of 7 May seals them, from 13 May on
    /// they travel in clear, which is the answer here.
    #[must_use]
    pub const fn without_key(self) -> Method {
        match self {
            Self::A | Self::C => Method::Plain,
            Self::B | Self::Bt => Method::Sealed,
        }
    }
}

/// What the first KCP message of a client is, by its length (section 8).
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum FirstMessage {
    /// The header of the first frame, encrypted: a client of [`Variant::A`].
    Frame,
    /// Vectors. Whether the first frame behind them is encrypted tells the rest.
    Vectors {
        /// Who speaks if it is in clear.
        clear: Variant,
        /// Who speaks if it is encrypted. In [`Variant::Bt`] with `--tuncrypt` the bytes are those of [`Variant::B`].
        encrypted: Variant,
    },
}

impl FirstMessage {
    /// Of a message of `len` bytes; `None`: no variant begins with that.
    #[must_use]
    pub const fn of(len: usize) -> Option<Self> {
        match len {
            12 => Some(Self::Frame),
            IV_LEN => Some(Self::Vectors {
                clear: Variant::Bt,
                encrypted: Variant::B,
            }),
            32 => Some(Self::Vectors {
                clear: Variant::C,
                encrypted: Variant::C,
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_message_names_the_variant_and_16_bytes_name_two() {
        for variant in Variant::ALL {
            let len = match variant.message_len() {
                0 => 12,
                len => len,
            };
            match FirstMessage::of(len) {
                Some(FirstMessage::Frame) => assert_eq!(variant, Variant::A),
                Some(FirstMessage::Vectors { clear, encrypted }) => {
                    assert!([clear, encrypted].contains(&variant));
                    assert!(clear.has_tuncrypt());
                    assert_eq!(clear.message_len(), encrypted.message_len());
                }
                None => panic!("{variant:?}"),
            }
        }
        for len in [0, 1, 15, 17, 31, 33] {
            assert_eq!(FirstMessage::of(len), None);
        }
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
