//! yamux frames, version 0 (docs/spec/kcptun2016.md, section 9), and the ping by which two Fulmar ends recognise each other.
//!
//! ```text
//! 0 version u8   1 type u8   2 flags u16 BE   4 stream id u32 BE   8 length u32 BE   12 payload, of data only
//! ```
//!
//! # Private signal
//!
//! Every end answers a ping with its value. [`Hello`] is a ping whose value no end counts to: it carries a magic number and a set of
//! [`Features`]. A Fulmar end answers with a hello of its own in front of the answer that every end gives. Between two that both have
//! that feature, [`Type::Token`] follows.

use core::fmt;

use crate::smux::Features;

/// Bytes of the header in front of every frame.
pub const HEADER_LEN: usize = 12;
/// Bytes that either end may have in flight on a stream before any window update.
pub const INITIAL_WINDOW: u32 = 262_144;
/// The only version.
const VERSION: u8 = 0;

/// Why bytes are not a yamux frame header. The bytes are at fault.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum ParseError {
    /// Fewer bytes than a header has.
    Short,
    /// The version byte is not 0.
    Version(u8),
    /// No type has this number.
    Type(u8),
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => write!(f, "truncated yamux frame"),
            Self::Version(v) => write!(f, "yamux version byte {v:#04x}"),
            Self::Type(t) => write!(f, "yamux frame type {t:#04x}"),
        }
    }
}

impl core::error::Error for ParseError {}

/// What a frame says.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Type {
    /// Carries bytes of a stream; the length is theirs.
    Data,
    /// Lets the other end send more; the length is how much.
    WindowUpdate,
    /// Asks for an answer ([`Flags::SYN`]) or is one ([`Flags::ACK`]); the length is its value.
    Ping,
    /// No new streams, or the end of the session; the length is the reason.
    GoAway,
    /// Private: gives the token that [`crate::ended::Ended`] has to carry; stream and length are its halves.
    Token,
}

impl Type {
    /// The byte of the private token; upstream's types are 0 to 3.
    const TOKEN: u8 = 0x54;

    /// The type of that number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Data),
            1 => Some(Self::WindowUpdate),
            2 => Some(Self::Ping),
            3 => Some(Self::GoAway),
            Self::TOKEN => Some(Self::Token),
            _ => None,
        }
    }

    /// The byte on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Data => 0,
            Self::WindowUpdate => 1,
            Self::Ping => 2,
            Self::GoAway => 3,
            Self::Token => Self::TOKEN,
        }
    }
}

/// What a frame means for its stream, one bit each, in any combination.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u16);

impl Flags {
    /// None of them.
    pub const NONE: Self = Self(0);
    /// Opens the stream, or asks a ping.
    pub const SYN: Self = Self(1);
    /// The stream was accepted, or answers a ping.
    pub const ACK: Self = Self(2);
    /// The sender's direction ends.
    pub const FIN: Self = Self(4);
    /// Both directions are cut.
    pub const RST: Self = Self(8);

    /// Whether that flag is set.
    #[must_use]
    pub const fn has(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flags({:#x})", self.0)
    }
}

/// The header of a frame.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct Header {
    /// What it says.
    pub kind: Type,
    /// What it means for the stream.
    pub flags: Flags,
    /// The stream; 0 in frames of the session.
    pub stream: u32,
    /// Bytes of payload, credit, value or reason, as the type says.
    pub length: u32,
}

impl Header {
    /// The header at the beginning of `bytes`.
    ///
    /// # Errors
    /// See [`ParseError`]. Flags, stream and length may be anything.
    pub const fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let Some(&[version, kind, f0, f1, s0, s1, s2, s3, l0, l1, l2, l3]) =
            bytes.first_chunk::<HEADER_LEN>()
        else {
            return Err(ParseError::Short);
        };
        if version != VERSION {
            return Err(ParseError::Version(version));
        }
        let Some(kind) = Type::from_number(kind) else {
            return Err(ParseError::Type(kind));
        };
        Ok(Self {
            kind,
            flags: Flags(u16::from_be_bytes([f0, f1])),
            stream: u32::from_be_bytes([s0, s1, s2, s3]),
            length: u32::from_be_bytes([l0, l1, l2, l3]),
        })
    }

    /// The bytes on the wire.
    #[must_use]
    pub const fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let [f0, f1] = self.flags.0.to_be_bytes();
        let [s0, s1, s2, s3] = self.stream.to_be_bytes();
        let [l0, l1, l2, l3] = self.length.to_be_bytes();
        let kind = self.kind.number();
        [VERSION, kind, f0, f1, s0, s1, s2, s3, l0, l1, l2, l3]
    }

    /// The frame that gives a token.
    #[must_use]
    pub const fn token(token: u64) -> Self {
        // Its upper and its lower half.
        #[allow(clippy::cast_possible_truncation)]
        Self {
            kind: Type::Token,
            flags: Flags::NONE,
            stream: (token >> 32) as u32,
            length: token as u32,
        }
    }

    /// A ping, or the answer to one.
    #[must_use]
    pub const fn ping(flags: Flags, value: u32) -> Self {
        Self {
            kind: Type::Ping,
            flags,
            stream: 0,
            length: value,
        }
    }
}

/// The ping that says "a Fulmar end speaks".
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct Hello {
    /// Whether it is the answer to another one.
    pub answer: bool,
    /// What the sender can do.
    pub features: Features,
}

impl Hello {
    /// Upper half of the value of the first one, and of the answer.
    const MAGIC: [u32; 2] = [0xF01A, 0xF01B];
    /// Values of ordinary pings stay below this.
    pub const BEYOND_PINGS: u32 = 0xF000_0000;

    /// The hello in this frame, if it is one.
    #[must_use]
    pub fn parse(header: &Header) -> Option<Self> {
        if header.kind != Type::Ping || !header.flags.has(Flags::SYN) {
            return None;
        }
        let magic = header.length >> 16;
        let answer = Self::MAGIC.iter().position(|m| *m == magic)? == 1;
        // The lower half is what remains.
        #[allow(clippy::cast_possible_truncation)]
        let features = Features(header.length as u16);
        Some(Self { answer, features })
    }

    /// The value of the ping that says it.
    #[must_use]
    pub const fn value(self) -> u32 {
        let magic = Self::MAGIC[self.answer as usize];
        magic << 16 | self.features.0 as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_testkit::vectors::{self, bytes};
    use proptest::prelude::*;

    #[test]
    fn captured_streams_are_frames() {
        let mut seen = 0;
        for name in ["fixed_iv", "readme", "notuncrypt", "tuncrypt"] {
            let file = vectors::load(&format!("kcptun-2016/session_{name}.json"));
            for dir in ["c2s", "s2c"] {
                let stream = bytes(&file, &format!("yamux_{dir}_hex"));
                let mut rest = &stream[..];
                let frames = file[format!("yamux_frames_{dir}")].as_array();
                for told in frames.expect("frames") {
                    let header = Header::parse(rest).expect("a header");
                    let kind = match header.kind {
                        Type::Data => "data",
                        Type::WindowUpdate => "window_update",
                        Type::Ping => "ping",
                        Type::GoAway => "go_away",
                        Type::Token => "token",
                    };
                    assert_eq!(told["type"], kind);
                    assert_eq!(told["stream"], header.stream);
                    assert_eq!(told["length"], header.length);
                    let flags = told["flags"].as_array().expect("flags");
                    let named = |name: &str| flags.iter().any(|f| f == name);
                    for (name, flag) in [
                        ("SYN", Flags::SYN),
                        ("ACK", Flags::ACK),
                        ("FIN", Flags::FIN),
                        ("RST", Flags::RST),
                    ] {
                        assert_eq!(named(name), header.flags.has(flag));
                    }
                    assert_eq!(header.to_bytes(), rest[..HEADER_LEN]);
                    rest = &rest[HEADER_LEN..];
                    if header.kind == Type::Data {
                        rest = &rest[header.length as usize..];
                    }
                    seen += 1;
                }
                assert!(rest.is_empty());
            }
        }
        assert!(seen >= 40, "{seen}");
    }

    #[test]
    fn hellos_are_pings_that_nobody_counts_to() {
        for answer in [false, true] {
            let hello = Hello {
                answer,
                features: Features::HALF_CLOSE.with(Features::ACK_RANGES),
            };
            assert!(hello.value() >= Hello::BEYOND_PINGS);
            let header = Header::ping(Flags::SYN, hello.value());
            assert_eq!(Hello::parse(&header), Some(hello));
            assert_eq!(Hello::parse(&Header::ping(Flags::ACK, hello.value())), None);
        }
        assert_eq!(Hello::parse(&Header::ping(Flags::SYN, 0)), None);
    }

    proptest! {
        #[test]
        fn what_parses_is_emitted_the_same(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            match Header::parse(&bytes) {
                Ok(header) => prop_assert_eq!(&header.to_bytes()[..], &bytes[..HEADER_LEN]),
                Err(ParseError::Short) => prop_assert!(bytes.len() < HEADER_LEN),
                Err(ParseError::Version(v)) => prop_assert_eq!(v, bytes[0]),
                Err(ParseError::Type(t)) => prop_assert_eq!(t, bytes[1]),
            }
        }

        #[test]
        fn every_header_comes_back(kind in prop_oneof![0u8..4, Just(Type::TOKEN)], flags: u16, stream: u32, length: u32) {
            let kind = Type::from_number(kind).expect("a type");
            let header = Header { kind, flags: Flags(flags), stream, length };
            prop_assert_eq!(Header::parse(&header.to_bytes()), Ok(header));
        }
    }
}
