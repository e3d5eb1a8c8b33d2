//! The FEC packet: a sequence number, a kind, and a shard of the error-correcting code
//! (docs/spec/kcptun.md, sections 5.1, 6.3 and 6.6).
//!
//! ```text
//! 0   seqid   u32
//! 4   kind    u16   0x00F1 data, 0x00F2 parity, 0x00F3 out of band
//! 6   size    u16   payload length + 2      data and out of band only
//! 8   payload       a KCP datagram (data); a conversation number and opaque bytes (out of band)
//! ```
//!
//! The code protects everything from offset 6 on, so behind the kind a parity packet holds nothing but code
//! words: its size field and payload appear only after reconstruction. [`Packet`] looks at received bytes;
//! [`Header`] and the `emit_*` functions write. Groups and recovery are the business of the `fec` crate.

use core::fmt;

use crate::seq::Seq;

/// Bytes of the FEC header of a data packet: sequence number, kind and size.
pub const HEADER_LEN: usize = 8;
/// Where the protected bytes (the shard) begin: behind sequence number and kind.
pub const SHARD_OFFSET: usize = 6;
/// Bytes of the size field, which counts itself.
pub const SIZE_LEN: usize = 2;
/// Longest payload whose size still fits the size field.
pub const MAX_PAYLOAD: usize = u16::MAX as usize - SIZE_LEN;
/// The sequence number of every out-of-band packet.
pub const OUT_OF_BAND_SEQID: Seq = Seq(u32::MAX);
/// Bytes of an out-of-band packet in front of its opaque bytes.
pub const OUT_OF_BAND_HEADER_LEN: usize = HEADER_LEN + 4;

/// What a FEC packet carries.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// A KCP datagram.
    Data,
    /// Redundancy for a group of data packets.
    Parity,
    /// Bytes beside the KCP stream, outside of any group.
    OutOfBand,
}

impl Kind {
    /// The value on the wire.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Data => 0x00f1,
            Self::Parity => 0x00f2,
            Self::OutOfBand => 0x00f3,
        }
    }

    /// The kind with this value on the wire.
    #[must_use]
    pub const fn from_code(code: u16) -> Option<Self> {
        match code {
            0x00f1 => Some(Self::Data),
            0x00f2 => Some(Self::Parity),
            0x00f3 => Some(Self::OutOfBand),
            _ => None,
        }
    }

    /// Tells a FEC packet from a plain KCP datagram: the kind at offset 4 of a packet body, `None` when the body
    /// is something else or shorter than sequence number and kind.
    ///
    /// A KCP segment has its command (0x51 to 0x54) in the low byte there, so the two cannot be confused.
    #[must_use]
    pub fn of(body: &[u8]) -> Option<Self> {
        Self::from_code(u16_at(body, 4)?)
    }
}

/// Why bytes are not a FEC packet.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Error {
    /// Shorter than [`HEADER_LEN`], or than [`OUT_OF_BAND_HEADER_LEN`] for an out-of-band packet.
    Truncated {
        /// The length found, in bytes.
        len: usize,
    },
    /// The kind is none of the three; the body may be a plain KCP datagram.
    UnknownKind(u16),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { len } => write!(f, "{len} bytes are too short for a FEC packet"),
            Self::UnknownKind(code) => write!(f, "{code:#06x} is not a kind of FEC packet"),
        }
    }
}

impl core::error::Error for Error {}

/// A received FEC packet, checked for kind and minimum length.
#[derive(Copy, Clone, Debug)]
pub struct Packet<'a> {
    bytes: &'a [u8],
    header: Header,
}

impl<'a> Packet<'a> {
    /// Looks at `bytes`, which begin with the sequence number.
    ///
    /// # Errors
    /// [`Error`] when the bytes are too short or of another kind. The size field is not judged: receivers take
    /// all bytes of a data packet behind the header, whatever it says.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let truncated = Error::Truncated { len: bytes.len() };
        let seqid = Seq(u32_at(bytes, 0).ok_or(truncated)?);
        let code = u16_at(bytes, 4).ok_or(truncated)?;
        let kind = Kind::from_code(code).ok_or(Error::UnknownKind(code))?;
        let least = match kind {
            Kind::Data | Kind::Parity => HEADER_LEN,
            Kind::OutOfBand => OUT_OF_BAND_HEADER_LEN,
        };
        if bytes.len() < least {
            return Err(truncated);
        }
        Ok(Self {
            bytes,
            header: Header { seqid, kind },
        })
    }

    /// Sequence number and kind.
    #[must_use]
    pub const fn header(&self) -> Header {
        self.header
    }

    /// The sequence number.
    #[must_use]
    pub const fn seqid(&self) -> Seq {
        self.header.seqid
    }

    /// The kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.header.kind
    }

    /// The bytes that the code protects: the size field and the payload of a data packet, the code words of a
    /// parity packet. At least [`SIZE_LEN`] long.
    #[must_use]
    pub fn shard(&self) -> &'a [u8] {
        &self.bytes[SHARD_OFFSET..]
    }

    /// The KCP datagram of a data packet: all bytes behind the header. Meaningless for parity.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[HEADER_LEN..]
    }

    /// The conversation number and the opaque bytes of an out-of-band packet, `None` for other kinds.
    #[must_use]
    pub fn out_of_band(&self) -> Option<(u32, &'a [u8])> {
        match self.header.kind {
            Kind::OutOfBand => Some((
                u32_at(self.bytes, HEADER_LEN)?,
                &self.bytes[OUT_OF_BAND_HEADER_LEN..],
            )),
            Kind::Data | Kind::Parity => None,
        }
    }
}

/// The payload of a reconstructed shard (size field, payload, zeros), or `None` when the size field is
/// impossible (section 6.4).
#[must_use]
pub fn shard_payload(shard: &[u8]) -> Option<&[u8]> {
    let size = usize::from(u16_at(shard, 0)?);
    shard.get(SIZE_LEN..size)
}

/// Sequence number and kind: what every FEC packet begins with.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// The sequence number.
    pub seqid: Seq,
    /// The kind.
    pub kind: Kind,
}

impl Header {
    /// Writes the first [`SHARD_OFFSET`] bytes of `packet`. A shorter `packet` is left alone; that is a bug of
    /// the caller, which debug builds assert.
    pub fn emit(self, packet: &mut [u8]) {
        debug_assert!(packet.len() >= SHARD_OFFSET, "no room for a FEC header");
        if let Some(out) = packet.first_chunk_mut::<SHARD_OFFSET>() {
            let [s0, s1, s2, s3] = self.seqid.0.to_le_bytes();
            let [k0, k1] = self.kind.code().to_le_bytes();
            *out = [s0, s1, s2, s3, k0, k1];
        }
    }
}

/// Makes a data packet of `packet`, whose payload already lies behind [`HEADER_LEN`] bytes of room.
///
/// A payload longer than [`MAX_PAYLOAD`] is a bug of the caller, which debug builds assert.
pub fn emit_data(seqid: Seq, packet: &mut [u8]) {
    emit_sized(
        Header {
            seqid,
            kind: Kind::Data,
        },
        packet,
    );
}

/// Makes an out-of-band packet of `packet` for conversation `conv`; the opaque bytes already lie behind
/// [`OUT_OF_BAND_HEADER_LEN`] bytes of room (section 6.6).
pub fn emit_out_of_band(conv: u32, packet: &mut [u8]) {
    debug_assert!(packet.len() >= OUT_OF_BAND_HEADER_LEN, "no room for conv");
    emit_sized(
        Header {
            seqid: OUT_OF_BAND_SEQID,
            kind: Kind::OutOfBand,
        },
        packet,
    );
    if let Some(field) = packet.get_mut(HEADER_LEN..OUT_OF_BAND_HEADER_LEN) {
        field.copy_from_slice(&conv.to_le_bytes());
    }
}

fn emit_sized(header: Header, packet: &mut [u8]) {
    debug_assert!(packet.len() <= HEADER_LEN + MAX_PAYLOAD, "size overflows");
    header.emit(packet);
    let size = u16::try_from(packet.len().saturating_sub(SHARD_OFFSET)).unwrap_or(u16::MAX);
    if let Some(field) = packet.get_mut(SHARD_OFFSET..HEADER_LEN) {
        field.copy_from_slice(&size.to_le_bytes());
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_le_bytes(*field))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*field))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Kind; 3] = [Kind::Data, Kind::Parity, Kind::OutOfBand];

    #[test]
    fn kinds_round_trip_and_nothing_else_is_one() {
        for kind in ALL {
            assert_eq!(Kind::from_code(kind.code()), Some(kind));
        }
        let known = (0..=u16::MAX).filter(|&c| Kind::from_code(c).is_some());
        assert_eq!(known.count(), ALL.len());
    }

    #[test]
    fn data_packet_round_trips() {
        let mut bytes = *b"........payload";
        emit_data(Seq(0x0403_0201), &mut bytes);
        assert_eq!(bytes[..8], [1, 2, 3, 4, 0xf1, 0, 9, 0]);
        let packet = Packet::parse(&bytes).expect("a data packet");
        assert_eq!(packet.seqid(), Seq(0x0403_0201));
        assert_eq!(packet.kind(), Kind::Data);
        assert_eq!(packet.payload(), b"payload");
        assert_eq!(packet.shard(), b"\x09\x00payload");
        assert_eq!(shard_payload(packet.shard()), Some(&b"payload"[..]));
        assert_eq!(packet.out_of_band(), None);
    }

    #[test]
    fn out_of_band_packet_round_trips() {
        let mut bytes = *b"............hello";
        emit_out_of_band(0x1122_3344, &mut bytes);
        assert_eq!(
            bytes,
            *b"\xff\xff\xff\xff\xf3\x00\x0b\x00\x44\x33\x22\x11hello"
        );
        let packet = Packet::parse(&bytes).expect("an out-of-band packet");
        assert_eq!(packet.seqid(), OUT_OF_BAND_SEQID);
        assert_eq!(packet.out_of_band(), Some((0x1122_3344, &b"hello"[..])));
    }

    #[test]
    fn header_round_trips_for_every_kind() {
        for kind in ALL {
            let header = Header {
                seqid: Seq(77),
                kind,
            };
            let mut bytes = [0xaa; OUT_OF_BAND_HEADER_LEN];
            header.emit(&mut bytes);
            assert_eq!(bytes[SHARD_OFFSET..], [0xaa; 6]);
            assert_eq!(Packet::parse(&bytes).map(|p| p.header()), Ok(header));
        }
    }

    #[test]
    fn truncated_packets_are_refused() {
        for kind in ALL {
            let mut bytes = [0; 16];
            Header {
                seqid: Seq(0),
                kind,
            }
            .emit(&mut bytes);
            let least = if kind == Kind::OutOfBand { 12 } else { 8 };
            for len in 0..bytes.len() {
                let parsed = Packet::parse(&bytes[..len]);
                if len < least {
                    assert_eq!(parsed.err(), Some(Error::Truncated { len }));
                } else {
                    assert_eq!(parsed.map(|p| p.shard().len()), Ok(len - SHARD_OFFSET));
                }
            }
        }
    }

    #[test]
    fn a_plain_kcp_segment_is_not_a_fec_packet() {
        for cmd in 81..=84 {
            let segment = [1, 2, 3, 4, cmd, 0, 32, 0, 0, 0, 0, 0];
            assert_eq!(Kind::of(&segment), None);
            assert_eq!(
                Packet::parse(&segment).err(),
                Some(Error::UnknownKind(u16::from(cmd)))
            );
        }
        assert_eq!(Kind::of(&[0, 0, 0, 0, 0xf2]), None);
        assert_eq!(Kind::of(&[0, 0, 0, 0, 0xf2, 0]), Some(Kind::Parity));
    }

    #[test]
    fn impossible_sizes_of_reconstructed_shards() {
        assert_eq!(shard_payload(&[]), None);
        assert_eq!(shard_payload(&[2]), None);
        assert_eq!(shard_payload(&[1, 0, 7, 7]), None);
        assert_eq!(shard_payload(&[5, 0, 7, 7]), None);
        assert_eq!(shard_payload(&[2, 0, 7, 7]), Some(&[][..]));
        assert_eq!(shard_payload(&[3, 0, 7, 7]), Some(&[7][..]));
        assert_eq!(shard_payload(&[4, 0, 7, 7]), Some(&[7, 7][..]));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_packet_or_an_error(
            mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..40), kind in 0u16..5,
        ) {
            if let Some(field) = bytes.get_mut(4..6) {
                field.copy_from_slice(&(0xf0 + kind).to_le_bytes());
            }
            match Packet::parse(&bytes) {
                Ok(packet) => {
                    proptest::prop_assert_eq!(Some(packet.kind()), Kind::of(&bytes));
                    proptest::prop_assert_eq!(packet.payload().len() + HEADER_LEN, bytes.len());
                    let payload = shard_payload(packet.shard()).map_or(0, <[u8]>::len);
                    proptest::prop_assert!(payload <= packet.payload().len());
                    let out_of_band = packet.out_of_band().map(|(_, opaque)| opaque.len());
                    let expected = (packet.kind() == Kind::OutOfBand).then(|| bytes.len() - 12);
                    proptest::prop_assert_eq!(out_of_band, expected);
                }
                Err(Error::UnknownKind(code)) => proptest::prop_assert_eq!(Kind::from_code(code), None),
                Err(Error::Truncated { len }) => {
                    proptest::prop_assert_eq!(len, bytes.len());
                    proptest::prop_assert!(len < OUT_OF_BAND_HEADER_LEN);
                }
            }
        }
    }
}
