//! What an end answers to data of a conversation that it has ended, if the sender is a Fulmar: "this is over". See
//! docs/design/liveness.md.
//!
//! ```text
//! 0 conv u32 LE | 4 0x45 | 5 zero, 3 bytes | 8 token u64 LE | 16 zero, 8 bytes
//! ```
//!
//! It has the length and the outline of a KCP segment without data, so it is never longer than what it answers. No KCP has this command; one
//! that receives it nevertheless ignores the datagram. The token is the one that the receiver gave in this session, behind its hello
//! ([`crate::smux::Command::Token`]): only who has had that session can know it.

use crate::kcp::HEADER_LEN;

/// The message.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    /// The conversation that is over.
    pub conv: u32,
    /// The receiver's token.
    pub token: u64,
}

impl Ended {
    /// Bytes of the message.
    pub const LEN: usize = HEADER_LEN;
    /// Where KCP's segments have their command. Theirs are 81 to 84.
    const COMMAND: u8 = 0x45;

    /// The message in a body, if it is one: nothing else may be in it.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        let body: &[u8; Self::LEN] = body.try_into().ok()?;
        let (conv, rest) = body.split_first_chunk::<4>()?;
        let (head, rest) = rest.split_first_chunk::<4>()?;
        let (token, rest) = rest.split_first_chunk::<8>()?;
        (*head == [Self::COMMAND, 0, 0, 0] && rest == [0; 8]).then_some(Self {
            conv: u32::from_le_bytes(*conv),
            token: u64::from_le_bytes(*token),
        })
    }

    /// The bytes of the message.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..4].copy_from_slice(&self.conv.to_le_bytes());
        out[4] = Self::COMMAND;
        out[8..16].copy_from_slice(&self.token.to_le_bytes());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fec::Kind;
    use crate::kcp::{Error, Format};
    use proptest::prelude::*;

    #[test]
    fn as_it_is_written_down() {
        let ended = Ended {
            conv: 0x0403_0201,
            token: 0x1817_1615_1413_1211,
        };
        let bytes = ended.to_bytes();
        let mut expected = [0; 24];
        expected[..5].copy_from_slice(&[1, 2, 3, 4, 0x45]);
        expected[8..16].copy_from_slice(&[0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18]);
        assert_eq!(bytes, expected);
        assert_eq!(Ended::parse(&bytes), Some(ended));
        // What KCP and FEC make of it: nothing.
        let view = Format::LittleEndian.view(&bytes).expect("long enough");
        assert_eq!(view.parse().err(), Some(Error::Command(0x45)));
        assert_eq!(Kind::of(&bytes), None);
        for cut in 0..bytes.len() {
            assert_eq!(Ended::parse(&bytes[..cut]), None);
        }
        for i in [4, 5, 6, 7, 16, 23] {
            let mut other = bytes;
            other[i] ^= 1;
            assert_eq!(Ended::parse(&other), None);
        }
    }

    proptest! {
        #[test]
        fn round_trip(conv: u32, token: u64, junk in prop::collection::vec(any::<u8>(), 0..40)) {
            let ended = Ended { conv, token };
            prop_assert_eq!(Ended::parse(&ended.to_bytes()), Some(ended));
            if let Some(found) = Ended::parse(&junk) {
                prop_assert_eq!(&found.to_bytes()[..], &junk[..]);
            }
        }
    }
}
