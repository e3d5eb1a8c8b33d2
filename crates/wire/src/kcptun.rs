//! The kcptun datagram: packet-cipher methods, header sizes and MTU arithmetic
//! (docs/spec/kcptun.md, sections 4.2, 5.1 and 5.2).

/// Largest UDP payload that a kcptun peer reads, in bytes (section 5.2).
pub const MAX_DATAGRAM: usize = 1500;
/// Bytes of the nonce in front of a packet of a method without authentication.
pub const NONCE_LEN: usize = 16;
/// Bytes of nonce and CRC-32 in front of the body of such a packet.
pub const CRC_HEADER_LEN: usize = 20;
/// Bytes of the nonce in front of an `aes-128-gcm` packet.
pub const AEAD_NONCE_LEN: usize = 12;
/// Bytes of the tag behind an `aes-128-gcm` packet.
pub const AEAD_TAG_LEN: usize = 16;
/// Smallest `kcp_mtu` that KCP accepts; smaller ones are ignored upstream.
pub const MIN_KCP_MTU: usize = 50;

/// A packet cipher of kcptun (section 4.2).
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Method {
    /// AES-256 in CFB; what every unknown name means upstream.
    Aes,
    /// AES-128 in CFB.
    Aes128,
    /// AES-192 in CFB.
    Aes192,
    /// AES-128-GCM, the only authenticated method.
    Aes128Gcm,
    /// Salsa20/20 with an 8-byte nonce in clear.
    Salsa20,
    /// Blowfish in CFB with a 32-byte key.
    Blowfish,
    /// Twofish-256 in CFB.
    Twofish,
    /// CAST-128 in CFB.
    Cast5,
    /// DES-EDE3 in CFB.
    TripleDes,
    /// TEA with 8 cycles, in CFB.
    Tea,
    /// XTEA with 32 cycles, in CFB.
    Xtea,
    /// A fixed 1500-byte pad.
    Xor,
    /// SM4 in CFB.
    Sm4,
    /// Nonce and CRC, no encryption.
    None,
    /// No crypto header at all.
    Null,
}

impl Method {
    /// Every method, in the order of upstream's help text.
    pub const ALL: [Self; 15] = [
        Self::Aes,
        Self::Aes128,
        Self::Aes128Gcm,
        Self::Aes192,
        Self::Salsa20,
        Self::Blowfish,
        Self::Twofish,
        Self::Cast5,
        Self::TripleDes,
        Self::Tea,
        Self::Xtea,
        Self::Xor,
        Self::Sm4,
        Self::None,
        Self::Null,
    ];

    /// The name on the command line; exact and case-sensitive.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes => "aes",
            Self::Aes128 => "aes-128",
            Self::Aes192 => "aes-192",
            Self::Aes128Gcm => "aes-128-gcm",
            Self::Salsa20 => "salsa20",
            Self::Blowfish => "blowfish",
            Self::Twofish => "twofish",
            Self::Cast5 => "cast5",
            Self::TripleDes => "3des",
            Self::Tea => "tea",
            Self::Xtea => "xtea",
            Self::Xor => "xor",
            Self::Sm4 => "sm4",
            Self::None => "none",
            Self::Null => "null",
        }
    }

    /// The method of that exact name. Upstream takes any other name for [`Method::Aes`].
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.name() == name)
    }

    /// How many leading bytes of the derived key the cipher takes.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::Aes | Self::Salsa20 | Self::Blowfish | Self::Twofish | Self::Xor => 32,
            Self::Aes192 | Self::TripleDes => 24,
            Self::Aes128 | Self::Aes128Gcm | Self::Cast5 | Self::Tea | Self::Xtea | Self::Sm4 => 16,
            Self::None | Self::Null => 0,
        }
    }

    /// Bytes in front of the body.
    #[must_use]
    pub const fn front(self) -> usize {
        match self {
            Self::Null => 0,
            Self::Aes128Gcm => AEAD_NONCE_LEN,
            _ => CRC_HEADER_LEN,
        }
    }

    /// Bytes behind the body.
    #[must_use]
    pub const fn back(self) -> usize {
        match self {
            Self::Aes128Gcm => AEAD_TAG_LEN,
            _ => 0,
        }
    }

    /// Whether a packet that opens must have been made by a holder of the key.
    #[must_use]
    pub const fn is_authenticated(self) -> bool {
        matches!(self, Self::Aes128Gcm)
    }

    /// Whether anyone can make a packet that opens.
    #[must_use]
    pub const fn is_plaintext(self) -> bool {
        matches!(self, Self::None | Self::Null)
    }
}

/// What `--mtu` leaves for KCP (section 5.2), or `None` when less than [`MIN_KCP_MTU`] bytes remain.
///
/// `mtu` is the largest UDP payload in bytes; more than [`MAX_DATAGRAM`] acts as [`MAX_DATAGRAM`].
#[must_use]
pub fn kcp_mtu(method: Method, fec: bool, mtu: usize) -> Option<usize> {
    // Upstream puts the tag of an AEAD on top of the 12 bytes in front, never a CRC.
    let headers = method.front() + method.back() + if fec { crate::fec::HEADER_LEN } else { 0 };
    mtu.min(MAX_DATAGRAM)
        .checked_sub(headers)
        .filter(|&left| left >= MIN_KCP_MTU)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_testkit::vectors;

    #[test]
    fn mtu_table() {
        let file = vectors::load("kcptun/mtu.json");
        let rows = file["rows"].as_array().expect("rows");
        assert!(rows.len() > 20);
        for row in rows {
            let name = row["crypt"].as_str().expect("crypt");
            let method = Method::from_name(name).unwrap_or(Method::Aes);
            let shards = |key: &str| row[key].as_u64().unwrap_or(0);
            let fec = shards("datashard") > 0 && shards("parityshard") > 0;
            let mtu = usize::try_from(row["mtu"].as_i64().expect("mtu").max(0)).expect("fits");
            let got = kcp_mtu(method, fec, mtu);
            assert_eq!(
                got.is_some(),
                row["accepted"].as_bool().expect("accepted"),
                "{row}"
            );
            if let Some(got) = got {
                assert_eq!(
                    got as u64,
                    row["kcp_mtu"].as_u64().expect("kcp_mtu"),
                    "{row}"
                );
                assert_eq!(got as u64 - 24, row["mss"].as_u64().expect("mss"), "{row}");
            }
        }
    }

    #[test]
    fn names_round_trip() {
        for m in Method::ALL {
            assert_eq!(Method::from_name(m.name()), Some(m));
        }
        assert_eq!(Method::from_name("AES"), None);
        assert_eq!(Method::from_name("aes-256"), None);
    }
}
