//! smux frames, versions 1 and 2 (docs/spec/kcptun.md, section 9.1), and the private signals between two Fulmar ends.
//!
//! ```text
//! 0 version u8   1 command u8   2 length u16 LE   4 stream id u32 LE   8 payload
//! ```
//!
//! A frame has at most 65535 bytes of payload. `SYN`, `FIN` and `NOP` have none, `UPD` has eight.
//!
//! # Private signals
//!
//! A Go end ignores the stream id of a `NOP`, which always is 0 there. [`Hello`] is a `NOP` whose id carries a
//! magic number and a set of [`Features`]. Only to an end that answered with a hello of its own may
//! [`Command::Rst`] and, with that feature, [`Command::Token`] be sent: to a Go end these are protocol errors.

use core::fmt;

/// Bytes of the header in front of every frame.
pub const HEADER_LEN: usize = 8;
/// Bytes of the payload of a `UPD` frame.
pub const UPDATE_LEN: usize = 8;
/// Bytes of the payload of a private reset frame.
pub const RESET_LEN: usize = 4;
/// Bytes of the payload of a private token frame.
pub const TOKEN_LEN: usize = 8;
/// Most payload bytes of one frame.
pub const MAX_PAYLOAD: usize = 65535;
/// Bytes that a version 2 sender may have in flight on a stream before the first `UPD` (section 9.5).
pub const INITIAL_WINDOW: u32 = 262_144;

/// Why bytes are not a smux frame header. The bytes are at fault.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum ParseError {
    /// Fewer bytes than the structure has.
    Short,
    /// The version byte is neither 1 nor 2.
    Version(u8),
    /// No command has this number.
    Command(u8),
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => write!(f, "truncated smux frame"),
            Self::Version(v) => write!(f, "smux version byte {v:#04x}"),
            Self::Command(c) => write!(f, "smux command {c:#04x}"),
        }
    }
}

impl core::error::Error for ParseError {}

/// Version of the protocol; both ends must use the same.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Version {
    /// No flow control per stream.
    V1,
    /// A window per stream.
    V2,
}

impl Version {
    /// The version of that number, which is also the byte on the wire.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::V1),
            2 => Some(Self::V2),
            _ => None,
        }
    }

    /// 1 or 2.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }
}

/// What a frame says.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Command {
    /// Opens a stream.
    Syn,
    /// Ends a stream.
    Fin,
    /// Carries bytes of a stream.
    Psh,
    /// Keeps the session alive.
    Nop,
    /// Version 2: tells how much was read and how much may be in flight.
    Upd,
    /// Private: resets a stream, with a reason.
    Rst,
    /// Private: gives the token that [`crate::ended::Ended`] has to carry.
    Token,
}

impl Command {
    /// The byte of the private reset; upstream's commands are 0 to 4.
    const RST: u8 = 0x52;
    /// The byte of the private token.
    const TOKEN: u8 = 0x54;

    /// The command of that number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Syn),
            1 => Some(Self::Fin),
            2 => Some(Self::Psh),
            3 => Some(Self::Nop),
            4 => Some(Self::Upd),
            Self::RST => Some(Self::Rst),
            Self::TOKEN => Some(Self::Token),
            _ => None,
        }
    }

    /// The byte on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Syn => 0,
            Self::Fin => 1,
            Self::Psh => 2,
            Self::Nop => 3,
            Self::Upd => 4,
            Self::Rst => Self::RST,
            Self::Token => Self::TOKEN,
        }
    }

    /// The payload length that every correct sender puts into a frame of this command, `None` for `PSH`.
    #[must_use]
    pub const fn fixed_len(self) -> Option<usize> {
        match self {
            Self::Syn | Self::Fin | Self::Nop => Some(0),
            Self::Psh => None,
            Self::Upd => Some(UPDATE_LEN),
            Self::Rst => Some(RESET_LEN),
            Self::Token => Some(TOKEN_LEN),
        }
    }
}

/// The fields of a header where they lie, without judging them.
#[derive(Copy, Clone, Debug)]
pub struct HeaderView<'a>(&'a [u8; HEADER_LEN]);

impl<'a> HeaderView<'a> {
    /// A view of the first [`HEADER_LEN`] bytes, `None` if there are fewer.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        bytes.first_chunk().map(Self)
    }

    /// The version byte.
    #[must_use]
    pub const fn version(self) -> u8 {
        self.0[0]
    }

    /// The command byte.
    #[must_use]
    pub const fn command(self) -> u8 {
        self.0[1]
    }

    /// Bytes of payload that are said to follow.
    #[must_use]
    pub const fn len(self) -> u16 {
        u16::from_le_bytes([self.0[2], self.0[3]])
    }

    /// Whether no payload is said to follow.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The stream id.
    #[must_use]
    pub const fn stream(self) -> u32 {
        u32::from_le_bytes([self.0[4], self.0[5], self.0[6], self.0[7]])
    }
}

/// The header of a frame.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct Header {
    /// Protocol version.
    pub version: Version,
    /// What the frame says.
    pub command: Command,
    /// Bytes of payload behind the header.
    pub len: u16,
    /// The stream it is about; 0 in a `NOP`.
    pub stream: u32,
}

impl Header {
    /// Reads the header at the start of `bytes`. The length is not compared with
    /// [`Command::fixed_len`], because ends differ in what they do about it.
    ///
    /// # Errors
    /// [`ParseError`] when bytes are missing or when version or command do not exist.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let view = HeaderView::new(bytes).ok_or(ParseError::Short)?;
        Ok(Self {
            version: Version::from_number(view.version())
                .ok_or(ParseError::Version(view.version()))?,
            command: Command::from_number(view.command())
                .ok_or(ParseError::Command(view.command()))?,
            len: view.len(),
            stream: view.stream(),
        })
    }

    /// The bytes of the header.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; HEADER_LEN] {
        let [l0, l1] = self.len.to_le_bytes();
        let [s0, s1, s2, s3] = self.stream.to_le_bytes();
        [
            self.version.number(),
            self.command.number(),
            l0,
            l1,
            s0,
            s1,
            s2,
            s3,
        ]
    }

    /// Writes the header to the start of `out`, which must have room for it.
    pub fn emit(self, out: &mut [u8]) {
        debug_assert!(out.len() >= HEADER_LEN, "no room for a header");
        if let Some(room) = out.first_chunk_mut() {
            *room = self.to_bytes();
        }
    }
}

/// The payload of `UPD` (section 9.5).
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct Update {
    /// Bytes that the receiver has read from the stream since it was opened, modulo 2^32.
    pub consumed: u32,
    /// Bytes that may be in flight beyond `consumed`.
    pub window: u32,
}

impl Update {
    /// Reads the payload at the start of `bytes`.
    ///
    /// # Errors
    /// [`ParseError::Short`] when bytes are missing.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let &[a, b, c, d, e, f, g, h] = bytes.first_chunk().ok_or(ParseError::Short)?;
        Ok(Self {
            consumed: u32::from_le_bytes([a, b, c, d]),
            window: u32::from_le_bytes([e, f, g, h]),
        })
    }

    /// The bytes of the payload.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; UPDATE_LEN] {
        let [a, b, c, d] = self.consumed.to_le_bytes();
        let [e, f, g, h] = self.window.to_le_bytes();
        [a, b, c, d, e, f, g, h]
    }

    /// Writes the payload to the start of `out`, which must have room for it.
    pub fn emit(self, out: &mut [u8]) {
        debug_assert!(out.len() >= UPDATE_LEN, "no room for an update");
        if let Some(room) = out.first_chunk_mut() {
            *room = self.to_bytes();
        }
    }
}

/// The payload of the private reset frame: why the stream ended.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct Reset {
    /// A number that both ends know, or an unknown one that is passed on.
    pub reason: u32,
}

impl Reset {
    /// Reads the payload at the start of `bytes`.
    ///
    /// # Errors
    /// [`ParseError::Short`] when bytes are missing.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let &reason = bytes.first_chunk().ok_or(ParseError::Short)?;
        Ok(Self {
            reason: u32::from_le_bytes(reason),
        })
    }

    /// The bytes of the payload.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; RESET_LEN] {
        self.reason.to_le_bytes()
    }

    /// Writes the payload to the start of `out`, which must have room for it.
    pub fn emit(self, out: &mut [u8]) {
        debug_assert!(out.len() >= RESET_LEN, "no room for a reset");
        if let Some(room) = out.first_chunk_mut() {
            *room = self.to_bytes();
        }
    }
}

/// What an end can do beyond the Go program, one bit each. An end uses what both have.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Default)]
pub struct Features(pub u16);

impl Features {
    /// `FIN` ends one direction only, and [`Command::Rst`] is understood.
    pub const HALF_CLOSE: Self = Self(1);
    /// Acknowledgements of KCP may be ranges (docs/design/sender.md), and are not counted.
    pub const ACK_RANGES: Self = Self(2);

    /// A [`Command::Token`] follows, and a session that has ended is told of ([`crate::ended`]).
    pub const SESSION_TOKEN: Self = Self(4);

    /// These and those.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all features of `other` are here.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The features that both have.
    #[must_use]
    pub const fn common(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Features({:#06x})", self.0)
    }
}

/// The `NOP` that says "a Fulmar end speaks": its stream id is a magic number and a set of features.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct Hello {
    /// What the sender can do.
    pub features: Features,
}

impl Hello {
    /// Upper half of the stream id.
    const MAGIC: u32 = 0x4675;

    /// The hello in this frame, if it is one.
    #[must_use]
    pub const fn parse(header: &Header) -> Option<Self> {
        if matches!(header.command, Command::Nop)
            && header.len == 0
            && header.stream >> 16 == Self::MAGIC
        {
            // The lower half is what remains.
            #[allow(clippy::cast_possible_truncation)]
            let features = Features(header.stream as u16);
            Some(Self { features })
        } else {
            None
        }
    }

    /// The frame that says it.
    #[must_use]
    pub const fn header(self, version: Version) -> Header {
        Header {
            version,
            command: Command::Nop,
            len: 0,
            stream: Self::MAGIC << 16 | self.features.0 as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_testkit::vectors::{self, Value};
    use proptest::prelude::*;

    /// Splits a stream of whole frames.
    fn frames(mut stream: &[u8]) -> Vec<(Header, Vec<u8>)> {
        let mut all = Vec::new();
        while !stream.is_empty() {
            let header = Header::parse(stream).expect("header");
            let end = HEADER_LEN + usize::from(header.len);
            all.push((header, stream[HEADER_LEN..end].to_vec()));
            stream = &stream[end..];
        }
        all
    }

    fn command_name(command: Command) -> &'static str {
        match command {
            Command::Syn => "SYN",
            Command::Fin => "FIN",
            Command::Psh => "PSH",
            Command::Nop => "NOP",
            Command::Upd => "UPD",
            Command::Rst => "RST",
            Command::Token => "TOKEN",
        }
    }

    /// Parses `stream`, compares with what the vectors say about each frame, writes it again.
    fn check_stream(stream: &[u8], expected: &[Value], version: u64) {
        let got = frames(stream);
        assert_eq!(got.len(), expected.len());
        let mut again = Vec::new();
        for ((header, payload), want) in got.iter().zip(expected) {
            assert_eq!(u64::from(header.version.number()), version);
            assert_eq!(u64::from(header.version.number()), want["ver"]);
            assert_eq!(command_name(header.command), want["cmd"]);
            assert_eq!(u64::from(header.stream), want["sid"]);
            assert_eq!(u64::from(header.len), want["len"]);
            if let Some(fixed) = header.command.fixed_len() {
                assert_eq!(fixed, payload.len());
            }
            let mut bytes = [0; HEADER_LEN];
            header.emit(&mut bytes);
            again.extend_from_slice(&bytes);
            if header.command == Command::Upd {
                let update = Update::parse(payload).expect("update");
                assert_eq!(u64::from(update.consumed), want["consumed"]);
                assert_eq!(u64::from(update.window), want["window"]);
                again.extend_from_slice(&update.to_bytes());
            } else {
                again.extend_from_slice(payload);
            }
        }
        assert_eq!(again, stream);
    }

    fn list<'a>(v: &'a Value, key: &str) -> &'a [Value] {
        v[key].as_array().map_or(&[], Vec::as_slice)
    }

    #[test]
    fn scripted_exchange() {
        for (file, version) in [("kcptun/smux_v1.json", 1), ("kcptun/smux_v2.json", 2)] {
            let file = vectors::load(file);
            let mut seen = 0;
            let mut whole: [Vec<Value>; 2] = Default::default();
            for step in list(&file, "script") {
                for (way, side) in ["c2s", "s2c"].into_iter().enumerate() {
                    if step[format!("{side}_hex")].is_string() {
                        let bytes = vectors::bytes(step, &format!("{side}_hex"));
                        let expected = list(step, &format!("{side}_frames"));
                        check_stream(&bytes, expected, version);
                        whole[way].extend_from_slice(expected);
                        seen += 1;
                    }
                }
            }
            assert!(seen >= 10);
            for (way, key) in ["c2s_all_hex", "s2c_all_hex"].into_iter().enumerate() {
                check_stream(&vectors::bytes(&file, key), &whole[way], version);
            }
            let nop = Header {
                version: Version::from_number(u8::try_from(version).expect("small"))
                    .expect("known"),
                command: Command::Nop,
                len: 0,
                stream: 0,
            };
            assert_eq!(
                nop.to_bytes().to_vec(),
                vectors::bytes(&file, "keepalive_nop_hex")
            );
            assert_eq!(Hello::parse(&nop), None);
        }
    }

    #[test]
    fn captured_sessions() {
        for (file, version) in [
            ("kcptun/session_smux_v1.json", 1),
            ("kcptun/session_smux_v2.json", 2),
        ] {
            let file = vectors::load(file);
            let sessions = list(&file, "sessions");
            assert!(sessions.len() >= 4);
            for session in sessions {
                for side in ["c2s", "s2c"] {
                    let bytes = vectors::bytes(session, &format!("smux_{side}_hex"));
                    let expected = list(session, &format!("smux_{side}_frames"));
                    assert!(!expected.is_empty());
                    check_stream(&bytes, expected, version);
                }
            }
        }
    }

    #[test]
    fn truncation() {
        let header = Header {
            version: Version::V2,
            command: Command::Upd,
            len: 8,
            stream: 0x0102_0304,
        };
        let update = Update {
            consumed: u32::MAX,
            window: 65536,
        };
        for cut in 0..HEADER_LEN {
            assert_eq!(
                Header::parse(&header.to_bytes()[..cut]),
                Err(ParseError::Short)
            );
            assert_eq!(
                Update::parse(&update.to_bytes()[..cut]),
                Err(ParseError::Short)
            );
        }
        let reset = Reset { reason: 7 };
        for cut in 0..RESET_LEN {
            assert_eq!(
                Reset::parse(&reset.to_bytes()[..cut]),
                Err(ParseError::Short)
            );
        }
    }

    #[test]
    fn unknown_numbers() {
        assert_eq!(
            Header::parse(&[3, 0, 0, 0, 0, 0, 0, 0]),
            Err(ParseError::Version(3))
        );
        assert_eq!(
            Header::parse(&[0xff, 0, 0, 0, 0, 0, 0, 0]),
            Err(ParseError::Version(0xff))
        );
        assert_eq!(
            Header::parse(&[1, 5, 0, 0, 0, 0, 0, 0]),
            Err(ParseError::Command(5))
        );
        for number in 0..=u8::MAX {
            if let Some(command) = Command::from_number(number) {
                assert_eq!(command.number(), number);
            }
        }
    }

    #[test]
    fn hello_is_a_nop_with_a_name() {
        let hello = Hello {
            features: Features(0x8001),
        };
        let header = hello.header(Version::V2);
        assert_eq!(header.to_bytes(), [2, 3, 0, 0, 0x01, 0x80, 0x75, 0x46]);
        assert_eq!(Hello::parse(&header), Some(hello));
        for other in [
            Header { len: 1, ..header },
            Header {
                command: Command::Syn,
                ..header
            },
            Header {
                stream: 0x8001,
                ..header
            },
        ] {
            assert_eq!(Hello::parse(&other), None);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn arbitrary_bytes_parse_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..32)) {
            if let Ok(header) = Header::parse(&bytes) {
                prop_assert_eq!(&header.to_bytes()[..], &bytes[..HEADER_LEN]);
                if let Some(hello) = Hello::parse(&header) {
                    prop_assert_eq!(hello.header(header.version), header);
                }
            }
            if let Ok(update) = Update::parse(&bytes) {
                prop_assert_eq!(&update.to_bytes()[..], &bytes[..UPDATE_LEN]);
            }
            if let Ok(reset) = Reset::parse(&bytes) {
                prop_assert_eq!(&reset.to_bytes()[..], &bytes[..RESET_LEN]);
            }
        }

        #[test]
        fn headers_round_trip(v2: bool, number in prop_oneof![0u8..5, Just(Command::RST), Just(Command::TOKEN)], len: u16, stream: u32) {
            let header = Header {
                version: if v2 { Version::V2 } else { Version::V1 },
                command: Command::from_number(number).unwrap_or(Command::Rst),
                len,
                stream,
            };
            prop_assert_eq!(Header::parse(&header.to_bytes()), Ok(header));
        }
    }
}
