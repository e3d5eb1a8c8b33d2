//! TCP-looking packets of `--tcp` (docs/spec/kcptun.md, section 13): the TCP header, its checksum, and as much of
//! the IPv4 header as a raw socket shows.
//!
//! # Which form is sent
//!
//! kcptun has had two forms: without options (releases up to 2021), and with a timestamps option that says
//! 12 bytes where RFC 7323 says 10 ([`Options::LongTimestamps`]). A receiver of either generation looks at
//! the ports, at PSH and at the payload only, so Fulmar sends what a real TCP would: the well-formed option
//! where the connection negotiated timestamps, no option where it did not. All three forms are parsed.
//!
//! Every segment carries PSH: receivers demand it, and it keeps the receiving kernel from gluing segments
//! together (generic receive offload ends a packet at PSH), which would lose the datagrams' boundaries.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr};

use crate::seq::Seq;

/// Bytes of a TCP header without options.
pub const HEADER_LEN: usize = 20;
/// Bytes of the longest TCP header.
pub const MAX_HEADER_LEN: usize = 60;
/// Bytes of the timestamps option, with the two bytes that align it.
pub const TIMESTAMPS_LEN: usize = 12;
/// Bytes of kcptun's timestamps option, with the four bytes that align it.
pub const LONG_TIMESTAMPS_LEN: usize = 16;
/// Bytes of the longest header that [`Header::emit`] writes.
pub const MAX_EMITTED_LEN: usize = HEADER_LEN + LONG_TIMESTAMPS_LEN;
/// Bytes of the shortest IPv4 header.
pub const IPV4_HEADER_LEN: usize = 20;
/// The window that is advertised; it is scaled as the connection negotiated.
pub const WINDOW: u16 = u16::MAX;
/// The number of TCP in an IP header.
pub const PROTOCOL: u8 = 6;

const KIND_END: u8 = 0;
const KIND_NOP: u8 = 1;
const KIND_TIMESTAMPS: u8 = 8;

/// Why bytes are no segment.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Error {
    /// Shorter than the header says, or than any header is.
    Truncated,
    /// The header length is less than the shortest header.
    BadHeaderLen,
    /// Not IPv4.
    NotIpv4,
    /// IPv4 that carries something else.
    NotTcp,
    /// A piece of a packet; kernels hand out whole ones.
    Fragment,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "segment is cut short",
            Self::BadHeaderLen => "impossible header length",
            Self::NotIpv4 => "not IPv4",
            Self::NotTcp => "not TCP",
            Self::Fragment => "a fragment",
        })
    }
}

impl core::error::Error for Error {}

/// The flags of a segment.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Beginning of a connection.
    pub const SYN: Self = Self(0x02);
    /// The connection is refused or ended.
    pub const RST: Self = Self(0x04);
    /// Hand this to the application.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgement number counts.
    pub const ACK: Self = Self(0x10);
    /// What every datagram is sent with.
    pub const DATA: Self = Self(Self::PSH.0 | Self::ACK.0);

    /// Whether all of `other` are set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bit, letter) in "FSRPAUEC".chars().enumerate() {
            if self.0 >> bit & 1 != 0 {
                write!(f, "{letter}")?;
            }
        }
        Ok(())
    }
}

/// The values of a timestamps option, in milliseconds of clocks that only their owners know.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Timestamps {
    /// The sender's clock.
    pub value: u32,
    /// The receiver's clock, as last seen by the sender.
    pub echo: u32,
}

/// The options that a header carries.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Default, Debug)]
pub enum Options {
    /// None, or none that matters here.
    #[default]
    None,
    /// Timestamps as RFC 7323 has them.
    Timestamps(Timestamps),
    /// Timestamps with a length byte of 12: kcptun since 2024.
    LongTimestamps(Timestamps),
}

impl Options {
    /// The timestamps of either form.
    #[must_use]
    pub const fn timestamps(self) -> Option<Timestamps> {
        match self {
            Self::None => None,
            Self::Timestamps(t) | Self::LongTimestamps(t) => Some(t),
        }
    }

    /// Bytes on the wire.
    #[must_use]
    pub const fn len(self) -> usize {
        match self {
            Self::None => 0,
            Self::Timestamps(_) => TIMESTAMPS_LEN,
            Self::LongTimestamps(_) => LONG_TIMESTAMPS_LEN,
        }
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// A TCP header, as a value.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// The sender's port.
    pub src_port: u16,
    /// The receiver's port.
    pub dst_port: u16,
    /// Number of the first payload byte.
    pub seq: Seq,
    /// Number of the next byte that the sender expects.
    pub ack: Seq,
    /// What the segment is for.
    pub flags: Flags,
    /// How much the sender is ready to take, unscaled.
    pub window: u16,
    /// Options that matter here.
    pub options: Options,
}

impl Header {
    /// Bytes on the wire.
    #[must_use]
    pub const fn len(&self) -> usize {
        HEADER_LEN + self.options.len()
    }

    /// Never: a header has at least [`HEADER_LEN`] bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Writes the header, with an empty checksum, to the beginning of `out`; returns its length in bytes.
    ///
    /// Too short an `out`, less than [`Header::len`] bytes, is a bug of the caller: nothing is written.
    pub fn emit(&self, out: &mut [u8]) -> usize {
        let len = self.len();
        let Some(out) = out.get_mut(..len) else {
            debug_assert!(false, "no room for the header");
            return 0;
        };
        out[..2].copy_from_slice(&self.src_port.to_be_bytes());
        out[2..4].copy_from_slice(&self.dst_port.to_be_bytes());
        out[4..8].copy_from_slice(&self.seq.0.to_be_bytes());
        out[8..12].copy_from_slice(&self.ack.0.to_be_bytes());
        // At most 9 words of 4 bytes; the count is in the upper half.
        out[12] = ((len / 4) as u8) << 4;
        out[13] = self.flags.0;
        out[14..16].copy_from_slice(&self.window.to_be_bytes());
        // Checksum and urgent pointer.
        out[16..20].fill(0);
        if let Some(stamps) = self.options.timestamps() {
            let value_len = if matches!(self.options, Options::LongTimestamps(_)) {
                12
            } else {
                10
            };
            out[20..].fill(0);
            out[20..24].copy_from_slice(&[KIND_NOP, KIND_NOP, KIND_TIMESTAMPS, value_len]);
            out[24..28].copy_from_slice(&stamps.value.to_be_bytes());
            out[28..32].copy_from_slice(&stamps.echo.to_be_bytes());
        }
        len
    }
}

/// A TCP segment, as a view of its bytes: header, options, payload.
#[derive(Copy, Clone, Debug)]
pub struct Segment<'a> {
    bytes: &'a [u8],
}

impl<'a> Segment<'a> {
    /// The segment that `bytes` are.
    ///
    /// # Errors
    ///
    /// [`Error::Truncated`] or [`Error::BadHeaderLen`]. The checksum is a separate question:
    /// [`Segment::checksum_is_right`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let &len = bytes.get(12).ok_or(Error::Truncated)?;
        let len = usize::from(len >> 4) * 4;
        if len < HEADER_LEN {
            return Err(Error::BadHeaderLen);
        }
        if bytes.len() < len {
            return Err(Error::Truncated);
        }
        Ok(Self { bytes })
    }

    fn be16(&self, at: usize) -> u16 {
        match self.bytes.get(at..at + 2) {
            Some(&[a, b]) => u16::from_be_bytes([a, b]),
            _ => 0,
        }
    }

    fn be32(&self, at: usize) -> u32 {
        u32::from(self.be16(at)) << 16 | u32::from(self.be16(at + 2))
    }

    /// Bytes of header and options.
    #[must_use]
    pub fn header_len(&self) -> usize {
        usize::from(self.bytes.get(12).copied().unwrap_or(0) >> 4) * 4
    }

    /// The sender's port.
    #[must_use]
    pub fn src_port(&self) -> u16 {
        self.be16(0)
    }

    /// The receiver's port.
    #[must_use]
    pub fn dst_port(&self) -> u16 {
        self.be16(2)
    }

    /// The payload: one datagram.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.bytes.get(self.header_len()..).unwrap_or_default()
    }

    /// The header as a value.
    #[must_use]
    pub fn header(&self) -> Header {
        Header {
            src_port: self.src_port(),
            dst_port: self.dst_port(),
            seq: Seq(self.be32(4)),
            ack: Seq(self.be32(8)),
            flags: Flags(self.bytes.get(13).copied().unwrap_or(0)),
            window: self.be16(14),
            options: self.options(),
        }
    }

    /// The options. What is malformed ends them, and the segment is of use without.
    fn options(&self) -> Options {
        let mut rest = self
            .bytes
            .get(HEADER_LEN..self.header_len())
            .unwrap_or_default();
        loop {
            match *rest {
                [KIND_NOP, ref tail @ ..] => rest = tail,
                [KIND_TIMESTAMPS, len @ (10 | 12), a, b, c, d, e, f, g, h, ..]
                    if rest.len() >= usize::from(len) =>
                {
                    let stamps = Timestamps {
                        value: u32::from_be_bytes([a, b, c, d]),
                        echo: u32::from_be_bytes([e, f, g, h]),
                    };
                    return if len == 10 {
                        Options::Timestamps(stamps)
                    } else {
                        Options::LongTimestamps(stamps)
                    };
                }
                [KIND_END, ..] => return Options::None,
                [_, len, ..] if len >= 2 => match rest.get(usize::from(len)..) {
                    Some(tail) => rest = tail,
                    None => return Options::None,
                },
                _ => return Options::None,
            }
        }
    }

    /// Whether the checksum fits the bytes and the addresses.
    ///
    /// Segments of this host's own kernel, seen before a device has filled the sum in, do not.
    #[must_use]
    pub fn checksum_is_right(&self, src: IpAddr, dst: IpAddr) -> bool {
        checksum(src, dst, self.bytes, &[]) == 0
    }
}

/// Writes the checksum of a segment of `header` and `payload` into `header`.
///
/// A `header` of less than [`HEADER_LEN`] bytes is a bug of the caller: nothing is written.
pub fn seal(header: &mut [u8], payload: &[u8], src: IpAddr, dst: IpAddr) {
    if header.len() < HEADER_LEN {
        debug_assert!(false, "not a header");
        return;
    }
    header[16..18].fill(0);
    let sum = checksum(src, dst, header, payload);
    header[16..18].copy_from_slice(&sum.to_be_bytes());
}

/// The internet checksum of a segment in two parts, the first of even length, with the pseudo header of the
/// addresses' family. 0 for a segment that carries its right checksum already.
///
/// Both addresses have to be of one family; an IPv4 address written as IPv6 counts as IPv4.
#[must_use]
pub fn checksum(src: IpAddr, dst: IpAddr, header: &[u8], payload: &[u8]) -> u16 {
    debug_assert!(
        header.len().is_multiple_of(2) || payload.is_empty(),
        "only the last part may be odd"
    );
    let mut sum = sum_of(header) + sum_of(payload);
    for ip in [src.to_canonical(), dst.to_canonical()] {
        sum += match ip {
            IpAddr::V4(ip) => sum_of(&ip.octets()),
            IpAddr::V6(ip) => sum_of(&ip.octets()),
        };
    }
    // Lengths have at most 32 bits, in two words. As everything above, they are added in network order.
    let len = (header.len() + payload.len()) as u64;
    sum += u64::from((len as u16).to_be()) + u64::from(((len >> 16) as u16).to_be());
    sum += u64::from(u16::from(PROTOCOL).to_be());
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::from_be(sum as u16)
}

/// The sum of the 16-bit words of `bytes`, taken as this machine would load them.
///
/// Ones' complement sums do not care about the order of bytes, as long as it is undone at the end. Words of
/// 32 bits in a 64-bit sum leave room for 2^32 of them before anything is lost.
fn sum_of(bytes: &[u8]) -> u64 {
    let (words, tail) = bytes.as_chunks::<4>();
    let mut sum: u64 = words
        .iter()
        .map(|&w| u64::from(u32::from_ne_bytes(w)))
        .sum();
    let mut last = [0; 4];
    last[..tail.len()].copy_from_slice(tail);
    sum += u64::from(u32::from_ne_bytes(last));
    sum
}

/// An IPv4 packet that carries TCP, as a raw socket hands it out.
#[derive(Copy, Clone, Debug)]
pub struct Ipv4<'a> {
    /// Who sent it.
    pub src: Ipv4Addr,
    /// To which address of ours.
    pub dst: Ipv4Addr,
    /// Code point and congestion bits.
    pub tos: u8,
    /// Bytes of the header, behind which the payload begins.
    pub header_len: usize,
    /// The TCP segment.
    pub payload: &'a [u8],
}

impl<'a> Ipv4<'a> {
    /// The packet that `bytes` are.
    ///
    /// # Errors
    ///
    /// Any [`Error`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let header = bytes
            .first_chunk::<IPV4_HEADER_LEN>()
            .ok_or(Error::Truncated)?;
        if header[0] >> 4 != 4 {
            return Err(Error::NotIpv4);
        }
        let header_len = usize::from(header[0] & 15) * 4;
        let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if header_len < IPV4_HEADER_LEN || total_len < header_len {
            return Err(Error::BadHeaderLen);
        }
        // More fragments, or an offset.
        if u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0 {
            return Err(Error::Fragment);
        }
        if header[9] != PROTOCOL {
            return Err(Error::NotTcp);
        }
        // Short packets may have been padded by the link.
        let payload = bytes.get(header_len..total_len).ok_or(Error::Truncated)?;
        Ok(Self {
            src: Ipv4Addr::new(header[12], header[13], header[14], header[15]),
            dst: Ipv4Addr::new(header[16], header[17], header[18], header[19]),
            tos: header[1],
            header_len,
            payload,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v4(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    fn header(options: Options) -> Header {
        Header {
            src_port: 29900,
            dst_port: 40001,
            seq: Seq(0xffff_fff0),
            ack: Seq(7),
            flags: Flags::DATA,
            window: WINDOW,
            options,
        }
    }

    const STAMPS: Timestamps = Timestamps {
        value: 0x0102_0304,
        echo: 0xf1f2_f3f4,
    };

    fn forms() -> [Options; 3] {
        [
            Options::None,
            Options::Timestamps(STAMPS),
            Options::LongTimestamps(STAMPS),
        ]
    }

    #[test]
    fn every_form_round_trips() {
        for (options, len) in forms().into_iter().zip([20, 32, 36]) {
            let mut bytes = [0xee; MAX_EMITTED_LEN + 5];
            let header = header(options);
            assert_eq!(header.emit(&mut bytes), len);
            let segment = Segment::parse(&bytes[..len + 5]).expect("segment");
            assert_eq!(segment.header(), header);
            assert_eq!(segment.header_len(), len);
            assert_eq!(segment.payload(), [0xee; 5]);
            for cut in 0..len {
                assert_eq!(
                    Segment::parse(&bytes[..cut]).expect_err("cut"),
                    Error::Truncated
                );
            }
        }
    }

    #[test]
    fn the_long_form_has_the_bytes_that_kcptun_sends() {
        let mut bytes = [0xee; 36];
        header(Options::LongTimestamps(STAMPS)).emit(&mut bytes);
        assert_eq!(bytes[12], 0x90);
        assert_eq!(bytes[13], 0x18);
        assert_eq!(
            bytes[20..],
            [1, 1, 8, 12, 1, 2, 3, 4, 0xf1, 0xf2, 0xf3, 0xf4, 0, 0, 0, 0]
        );
    }

    #[test]
    fn the_checksum_is_the_one_of_a_kernel() {
        // A SYN of a Linux kernel, with its IPv4 header, without its checksum.
        let syn: [u8; 40] = [
            0x45, 0x00, 0x00, 0x28, 0x00, 0x01, 0x00, 0x00, 0x40, 0x06, 0xf6, 0xcc, 0xc0, 0x00,
            0x02, 0x01, 0xc6, 0x33, 0x64, 0x02, 0x9c, 0x41, 0x00, 0x50, 0x00, 0x00, 0x00, 0x01,
            0x00, 0x00, 0x00, 0x00, 0x50, 0x02, 0x20, 0x00, 0, 0, 0x00, 0x00,
        ];
        let packet = Ipv4::parse(&syn).expect("packet");
        let (src, dst) = (IpAddr::V4(packet.src), IpAddr::V4(packet.dst));
        assert_eq!((src, dst), (v4("192.0.2.1"), v4("198.51.100.2")));
        let mut segment = packet.payload.to_vec();
        seal(&mut segment, &[], src, dst);
        assert_eq!(
            u16::from_be_bytes([segment[16], segment[17]]),
            reference(src, dst, packet.payload)
        );
        assert!(
            Segment::parse(&segment)
                .expect("segment")
                .checksum_is_right(src, dst)
        );
    }

    /// RFC 1071, word by word.
    fn reference(src: IpAddr, dst: IpAddr, segment: &[u8]) -> u16 {
        let mut bytes = Vec::new();
        match (src, dst) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                bytes.extend(a.octets());
                bytes.extend(b.octets());
                bytes.extend([0, PROTOCOL]);
                bytes.extend((segment.len() as u16).to_be_bytes());
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                bytes.extend(a.octets());
                bytes.extend(b.octets());
                bytes.extend((segment.len() as u32).to_be_bytes());
                bytes.extend([0, 0, 0, PROTOCOL]);
            }
            _ => unreachable!("one family"),
        }
        bytes.extend(segment);
        let mut sum = 0_u32;
        for word in bytes.chunks(2) {
            sum += u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn flags_have_their_letters() {
        assert_eq!(format!("{:?}", Flags::DATA), "PA");
        assert_eq!(format!("{:?}", Flags::SYN.with(Flags::ACK)), "SA");
        assert!(Flags::DATA.has(Flags::PSH) && !Flags::DATA.has(Flags::RST));
    }

    #[test]
    fn odd_options_do_no_harm() {
        let mut bytes = [0_u8; 60];
        header(Options::None).emit(&mut bytes);
        bytes[12] = 0xf0;
        // Timestamps behind others: MSS, SACK permitted, window scale.
        let others = [
            2, 4, 5, 0xb4, 4, 2, 3, 3, 7, 1, 8, 10, 1, 2, 3, 4, 0xf1, 0xf2, 0xf3, 0xf4,
        ];
        bytes[20..40].copy_from_slice(&others);
        let options = |bytes: &[u8]| Segment::parse(bytes).expect("segment").header().options;
        assert_eq!(options(&bytes), Options::Timestamps(STAMPS));
        // A length of zero, or one that runs over the end, must neither loop nor read on.
        for len in [0, 1, 200] {
            bytes[21] = len;
            assert_eq!(options(&bytes), Options::None);
        }
        // Cut off by the end of the header.
        bytes[20..60].fill(1);
        bytes[52..54].copy_from_slice(&[8, 10]);
        assert_eq!(options(&bytes), Options::None);
    }

    #[test]
    fn packets_that_are_something_else() {
        let mut good = [0_u8; 45];
        good[0] = 0x45;
        good[3] = 44;
        good[9] = PROTOCOL;
        let packet = Ipv4::parse(&good).expect("packet");
        assert_eq!((packet.header_len, packet.payload.len()), (20, 24));
        let with = |at: usize, value: u8| {
            let mut bytes = good;
            bytes[at] = value;
            Ipv4::parse(&bytes).expect_err("no packet")
        };
        assert_eq!(with(0, 0x65), Error::NotIpv4);
        assert_eq!(with(0, 0x44), Error::BadHeaderLen);
        assert_eq!(with(3, 19), Error::BadHeaderLen);
        assert_eq!(with(3, 46), Error::Truncated);
        assert_eq!(with(6, 0x20), Error::Fragment);
        assert_eq!(with(7, 1), Error::Fragment);
        assert_eq!(with(9, 17), Error::NotTcp);
        // "Don't fragment" is no fragment.
        let mut bytes = good;
        bytes[6] = 0x40;
        assert!(Ipv4::parse(&bytes).is_ok());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            if let Ok(packet) = Ipv4::parse(&bytes) {
                prop_assert!(packet.payload.len() <= bytes.len());
            }
            if let Ok(segment) = Segment::parse(&bytes) {
                prop_assert!(segment.header_len() + segment.payload().len() == bytes.len());
                let _ = segment.header();
            }
        }

        #[test]
        fn checksums_of_any_length(payload in proptest::collection::vec(any::<u8>(), 0..100), v6 in any::<bool>()) {
            let (src, dst) = if v6 {
                ("2001:db8::1".parse().expect("address"), "fe80::ff:1".parse().expect("address"))
            } else {
                (v4("192.0.2.1"), v4("255.255.255.254"))
            };
            let mut bytes = vec![0; 20];
            header(Options::None).emit(&mut bytes);
            prop_assert_eq!(checksum(src, dst, &bytes, &payload), reference(src, dst, &[&bytes[..], &payload].concat()));
            seal(&mut bytes, &payload, src, dst);
            bytes.extend(&payload);
            prop_assert!(Segment::parse(&bytes).expect("segment").checksum_is_right(src, dst));
            bytes[4] ^= 1;
            prop_assert!(!Segment::parse(&bytes).expect("segment").checksum_is_right(src, dst));
        }
    }
}
