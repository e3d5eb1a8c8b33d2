//! KCP segments: 24 bytes of header and up to `len` bytes of data (docs/spec/kcptun.md, section 7.1).
//!
//! ```text
//! 0 conv u32 | 4 cmd u8 | 5 frg u8 | 6 wnd u16 | 8 ts u32 | 12 sn u32 | 16 una u32 | 20 len u32 | 24 data
//! ```
//!
//! A datagram holds one or more segments of one conversation back to back; a tail shorter than a header
//! is ignored. [`View`] names the fields of bytes that lie somewhere else, [`Header`] is the value. Dialects differ in
//! byte order only, which is why [`Format`] is a value that is chosen once, when a conversation is built.

use core::fmt;

use crate::seq::Seq;
use crate::time::Millis;

/// Bytes of a segment header.
pub const HEADER_LEN: usize = 24;

/// How the integers of a header are written.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub enum Format {
    /// The common form.
    #[default]
    LittleEndian,
    /// The form of kcptun-libev.
    BigEndian,
}

/// What a segment is for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Command {
    /// Carries data.
    Push = 81,
    /// Acknowledges the segment `sn`, echoing its `ts`.
    Ack = 82,
    /// Asks for the window of the other side.
    WindowAsk = 83,
    /// Tells the window.
    WindowTell = 84,
}

impl Command {
    /// The command with this number.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            81 => Some(Self::Push),
            82 => Some(Self::Ack),
            83 => Some(Self::WindowAsk),
            84 => Some(Self::WindowTell),
            _ => None,
        }
    }
}

/// Why bytes are not a segment.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Error {
    /// Fewer than [`HEADER_LEN`] bytes.
    Header {
        /// Bytes that were there.
        have: usize,
    },
    /// The length field reaches beyond the datagram.
    Data {
        /// What the header claims, in bytes.
        claimed: u32,
        /// Bytes behind the header.
        have: usize,
    },
    /// No such command.
    Command(u8),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header { have } => write!(f, "{have} bytes are too few for a segment header"),
            Self::Data { claimed, have } => {
                write!(
                    f,
                    "segment claims {claimed} bytes of data, {have} are there"
                )
            }
            Self::Command(byte) => write!(f, "unknown segment command {byte}"),
        }
    }
}

impl core::error::Error for Error {}

/// The header as a value.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// Conversation.
    pub conv: u32,
    /// What the segment is for.
    pub command: Command,
    /// Fragments of the same message that follow; 0 in stream mode.
    pub frg: u8,
    /// Free places in the receive queue of the sender of this segment, in segments.
    pub wnd: u16,
    /// When the segment left, or for an [`Command::Ack`], when the acknowledged one did.
    pub ts: Millis,
    /// Number of the segment, or for an [`Command::Ack`], of the acknowledged one.
    pub sn: Seq,
    /// The next number that the sender of this segment expects: everything before has arrived there.
    pub una: Seq,
    /// Bytes of data behind the header.
    pub len: u32,
}

impl Format {
    /// Looks at `bytes` as at something that begins with a header.
    ///
    /// # Errors
    /// [`Error::Header`] when it is shorter than that.
    #[inline]
    pub fn view(self, bytes: &[u8]) -> Result<View<'_>, Error> {
        match bytes.split_first_chunk::<HEADER_LEN>() {
            Some((header, rest)) => Ok(View {
                format: self,
                header,
                rest,
            }),
            None => Err(Error::Header { have: bytes.len() }),
        }
    }

    /// The header as bytes.
    #[inline]
    #[must_use]
    pub fn emit(self, h: &Header) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[0..4].copy_from_slice(&self.put32(h.conv));
        out[4] = h.command as u8;
        out[5] = h.frg;
        out[6..8].copy_from_slice(&match self {
            Self::LittleEndian => h.wnd.to_le_bytes(),
            Self::BigEndian => h.wnd.to_be_bytes(),
        });
        out[8..12].copy_from_slice(&self.put32(h.ts.0));
        out[12..16].copy_from_slice(&self.put32(h.sn.0));
        out[16..20].copy_from_slice(&self.put32(h.una.0));
        out[20..24].copy_from_slice(&self.put32(h.len));
        out
    }

    const fn put32(self, v: u32) -> [u8; 4] {
        match self {
            Self::LittleEndian => v.to_le_bytes(),
            Self::BigEndian => v.to_be_bytes(),
        }
    }

    const fn get32(self, b: [u8; 4]) -> u32 {
        match self {
            Self::LittleEndian => u32::from_le_bytes(b),
            Self::BigEndian => u32::from_be_bytes(b),
        }
    }
}

/// A segment somewhere at the start of a byte slice. Only the presence of the header has been checked.
#[derive(Copy, Clone, Debug)]
pub struct View<'a> {
    format: Format,
    header: &'a [u8; HEADER_LEN],
    rest: &'a [u8],
}

impl<'a> View<'a> {
    /// Conversation.
    #[inline]
    #[must_use]
    pub const fn conv(&self) -> u32 {
        self.u32_at(0)
    }

    /// The command byte, known or not.
    #[inline]
    #[must_use]
    pub const fn command_byte(&self) -> u8 {
        self.header[4]
    }

    /// Number of the segment.
    #[inline]
    #[must_use]
    pub const fn sn(&self) -> Seq {
        Seq(self.u32_at(12))
    }

    /// The header as a value, the data, and what lies behind.
    ///
    /// # Errors
    /// [`Error::Data`] when the data is cut short, then [`Error::Command`] when the command is unknown.
    #[inline]
    pub fn parse(&self) -> Result<(Header, &'a [u8], &'a [u8]), Error> {
        let len = self.u32_at(20);
        let split = usize::try_from(len)
            .ok()
            .and_then(|len| self.rest.split_at_checked(len));
        let Some((data, rest)) = split else {
            return Err(Error::Data {
                claimed: len,
                have: self.rest.len(),
            });
        };
        let byte = self.command_byte();
        let command = Command::from_byte(byte).ok_or(Error::Command(byte))?;
        let wnd = [self.header[6], self.header[7]];
        let header = Header {
            conv: self.conv(),
            command,
            frg: self.header[5],
            wnd: match self.format {
                Format::LittleEndian => u16::from_le_bytes(wnd),
                Format::BigEndian => u16::from_be_bytes(wnd),
            },
            ts: Millis(self.u32_at(8)),
            sn: self.sn(),
            una: Seq(self.u32_at(16)),
            len,
        };
        Ok((header, data, rest))
    }

    /// Four bytes at a fixed offset of the header.
    #[inline]
    const fn u32_at(&self, at: usize) -> u32 {
        let h = self.header;
        self.format.get32([h[at], h[at + 1], h[at + 2], h[at + 3]])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_testkit::vectors;

    fn sample() -> Header {
        Header {
            conv: 0x1122_3344,
            command: Command::Push,
            frg: 3,
            wnd: 0x0102,
            ts: Millis(0xfffe_fdfc),
            sn: Seq(7),
            una: Seq(0x8000_0001),
            len: 5,
        }
    }

    fn number(v: &vectors::Value, key: &str) -> u32 {
        u32::try_from(v[key].as_u64().expect(key)).expect("32 bits")
    }

    #[test]
    fn golden_segments() {
        for case in vectors::load("kcptun/kcp_segments.json")["encoding"]
            .as_array()
            .expect("encoding")
        {
            let want = vectors::bytes(case, "segment_hex");
            let data = vectors::bytes(case, "data_hex");
            let header = Header {
                conv: number(case, "conv"),
                command: Command::from_byte(u8::try_from(number(case, "cmd")).expect("byte"))
                    .expect("command"),
                frg: u8::try_from(number(case, "frg")).expect("byte"),
                wnd: u16::try_from(number(case, "wnd")).expect("wnd"),
                ts: Millis(number(case, "ts")),
                sn: Seq(number(case, "sn")),
                una: Seq(number(case, "una")),
                len: u32::try_from(data.len()).expect("len"),
            };
            let mut got = Format::LittleEndian.emit(&header).to_vec();
            got.extend_from_slice(&data);
            assert_eq!(got, want, "{case}");
            let (back, body, rest) = Format::LittleEndian
                .view(&want)
                .and_then(|v| v.parse())
                .expect("parses");
            assert_eq!((back, body, rest), (header, &data[..], &[][..]));
        }
    }

    #[test]
    fn both_byte_orders_round_trip_and_differ() {
        let h = sample();
        for format in [Format::LittleEndian, Format::BigEndian] {
            let mut bytes = format.emit(&h).to_vec();
            bytes.extend_from_slice(b"helloTAIL");
            let view = format.view(&bytes).expect("header");
            assert_eq!((view.conv(), view.sn()), (h.conv, h.sn));
            assert_eq!(view.parse(), Ok((h, &b"hello"[..], &b"TAIL"[..])));
        }
        assert_eq!(
            Format::BigEndian.emit(&h)[..8],
            [0x11, 0x22, 0x33, 0x44, 81, 3, 1, 2]
        );
        assert_eq!(
            Format::LittleEndian.emit(&h)[..8],
            [0x44, 0x33, 0x22, 0x11, 81, 3, 2, 1]
        );
    }

    #[test]
    fn every_truncation_is_an_error() {
        let mut bytes = Format::LittleEndian.emit(&sample()).to_vec();
        bytes.extend_from_slice(b"hello");
        for len in 0..bytes.len() {
            let got = Format::LittleEndian
                .view(&bytes[..len])
                .and_then(|v| v.parse());
            let want = if len < HEADER_LEN {
                Error::Header { have: len }
            } else {
                Error::Data {
                    claimed: 5,
                    have: len - HEADER_LEN,
                }
            };
            assert_eq!(got, Err(want));
        }
    }

    #[test]
    fn errors_come_in_upstreams_order() {
        let mut bytes = Format::LittleEndian.emit(&sample());
        bytes[4] = 80;
        let parse = |b: &[u8]| {
            Format::LittleEndian
                .view(b)
                .and_then(|v| v.parse().map(|_| ()))
        };
        // Too long and unknown at once: the length is looked at first.
        assert!(matches!(
            parse(&bytes),
            Err(Error::Data {
                claimed: 5,
                have: 0
            })
        ));
        bytes[20] = 0;
        assert_eq!(parse(&bytes), Err(Error::Command(80)));
        bytes[20..24].fill(0xff);
        assert!(matches!(
            parse(&bytes),
            Err(Error::Data {
                claimed: u32::MAX,
                ..
            })
        ));
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(256))]

        #[test]
        fn arbitrary_bytes_parse_to_what_emits_the_same_bytes(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80),
            big in proptest::prelude::any::<bool>(),
            // Mostly plausible headers, so that the good path is taken too.
            cmd in 80u8..86,
            len in 0u8..40,
        ) {
            let format = if big { Format::BigEndian } else { Format::LittleEndian };
            let mut bytes = bytes;
            if bytes.len() >= HEADER_LEN {
                bytes[4] = cmd;
                bytes[20..24].copy_from_slice(&format.put32(u32::from(len)));
            }
            if let Ok((header, data, rest)) = format.view(&bytes).and_then(|v| v.parse()) {
                let mut again = format.emit(&header).to_vec();
                again.extend_from_slice(data);
                again.extend_from_slice(rest);
                assert_eq!(again, bytes);
                assert_eq!(data.len(), usize::from(len));
            }
        }
    }
}
