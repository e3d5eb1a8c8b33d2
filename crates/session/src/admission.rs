//! Which datagram of a stranger opens a session (docs/spec/kcptun.md, sections 5.3 and 8.2).
//!
//! Upstream opens a session for nearly anything; every conversation here begins with a PUSH segment that
//! parses, because that is the only thing a real client begins with. A client's later packets may overtake its
//! first, so the sequence number need not be 0: such a session is *unproven* until a valid frame has arrived,
//! lives briefly, and is limited in number, per address and in all. A conversation number is drawn at random for
//! every session, so one that was used before is a recording being played back: it is refused.

use std::collections::{HashSet, VecDeque};

use fulmar_wire::ended::Ended;
use fulmar_wire::fec::{self, Kind};
use fulmar_wire::kcp;
use fulmar_wire::time::Millis;

/// Shortest body that means anything (section 5.3).
pub const MIN_BODY: usize = 12;

/// What the body of a datagram is.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// KCP segments without FEC header.
    Plain,
    /// An FEC data packet; the KCP segments begin behind its header.
    FecData,
    /// An FEC parity packet. It does not name its conversation.
    FecParity,
    /// An out-of-band packet.
    OutOfBand,
    /// The peer has ended the conversation: see [`Ended`].
    Ended,
    /// A message beside all conversations, for [`crate::dialect::Dialect::handle_beside`].
    Beside,
}

/// What can be told of a body without any session.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Peek {
    /// What it is.
    pub body: Body,
    /// The conversation, where it is named.
    pub conv: Option<u32>,
    /// Whether a stranger who sends this may get a session: its first segment is a PUSH that parses.
    pub opens: bool,
    /// Whether it has the very first segment of a conversation.
    pub first: bool,
    /// When its first segment left, by its sender's clock; 0 where there is none.
    pub time: Millis,
}

/// Looks at a body, or returns `None` when it is too short to be anything.
#[must_use]
pub fn peek(body: &[u8]) -> Option<Peek> {
    if body.len() < MIN_BODY {
        return None;
    }
    let (what, segments) = match Kind::of(body) {
        Some(Kind::Data) => (Body::FecData, fec_payload(body)),
        Some(Kind::Parity) => (Body::FecParity, None),
        Some(Kind::OutOfBand) => (Body::OutOfBand, None),
        None if body.len() < kcp::HEADER_LEN => return None,
        None if let Some(ended) = Ended::parse(body) => {
            return Some(Peek {
                body: Body::Ended,
                conv: Some(ended.conv),
                opens: false,
                first: false,
                time: Millis(0),
            });
        }
        None => (Body::Plain, Some(body)),
    };
    let named = if what == Body::OutOfBand {
        body.get(fec::HEADER_LEN..)
    } else {
        segments
    };
    let conv = named
        .and_then(|b| b.first_chunk::<4>())
        .map(|b| u32::from_le_bytes(*b));
    let first = segments.and_then(|s| kcp::Format::LittleEndian.view(s).ok()?.parse().ok());
    let time = first.map_or(Millis(0), |(header, ..)| header.ts);
    let opens = first.is_some_and(|(header, ..)| header.command == kcp::Command::Push);
    let first = opens && first.is_some_and(|(header, ..)| header.sn.0 == 0);
    Some(Peek {
        body: what,
        conv,
        opens,
        first,
        time,
    })
}

/// The KCP segments of an FEC data packet: what its size field covers.
#[must_use]
pub fn fec_payload(body: &[u8]) -> Option<&[u8]> {
    fec::shard_payload(body.get(fec::SHARD_OFFSET..)?)
}

/// The latest time on data of `conv` in the body of a datagram, by its sender's clock.
#[must_use]
pub fn newest_push(conv: u32, peek: Peek, body: &[u8]) -> Option<Millis> {
    let mut rest = match peek.body {
        Body::Plain => body,
        Body::FecData => fec_payload(body)?,
        Body::FecParity | Body::OutOfBand | Body::Ended | Body::Beside => return None,
    };
    let mut newest: Option<Millis> = None;
    while let Ok(view) = kcp::Format::LittleEndian.view(rest)
        && let Ok((header, _, behind)) = view.parse()
        && header.conv == conv
    {
        if header.command == kcp::Command::Push && newest.is_none_or(|t| header.ts.diff(t) > 0) {
            newest = Some(header.ts);
        }
        rest = behind;
    }
    newest
}

/// Limits on sessions that have not proven themselves.
#[derive(Copy, Clone, Debug)]
pub struct Limits {
    /// Unproven sessions in all; default 1024. More are refused, which costs an honest client one retransmission.
    pub unproven: usize,
    /// Unproven sessions of one IP address; default 64: a NAT may hide many clients.
    pub unproven_per_ip: usize,
    /// How long a session may stay unproven; default 10 s: several retransmissions of a lost first packet.
    pub unproven_for: std::time::Duration,
    /// Sessions in all; default 65,536.
    pub sessions: usize,
    /// Whole sessions of peers without streams; default 512. More of them rest as stubs, those first that were not heard for
    /// longest; and those that were not heard for 20 s in any case. Their peers do not notice.
    pub resting: usize,
    /// Whole sessions of peers without streams that cannot rest, because data has arrived behind a gap, or was sent and not acknowledged, and does not
    /// fit into a stub; default 512. An honest client's has such a thing for as long as a loss is repaired. Those that were not heard for
    /// longest end.
    pub full: usize,
    /// Stubs; default 24,576, of at most 1 KiB, and as much again for what finds them. The ones that were not heard for longest end.
    pub stubs: usize,
    /// Sessions of one IP address; default 65,536, which is no limit of its own.
    pub sessions_per_ip: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            unproven: 1024,
            unproven_per_ip: 64,
            unproven_for: std::time::Duration::from_secs(10),
            sessions: 65_536,
            resting: 512,
            full: 512,
            stubs: 24_576,
            sessions_per_ip: 65_536,
        }
    }
}

/// Conversations of proven sessions, so that recordings of them are refused. Bounded: the oldest are forgotten.
#[derive(Debug)]
pub struct UsedConversations {
    order: VecDeque<u32>,
    known: HashSet<u32>,
    keep: usize,
}

impl UsedConversations {
    /// Remembers at most `keep` conversations (8 to 16 bytes each).
    #[must_use]
    pub fn new(keep: usize) -> Self {
        Self {
            order: VecDeque::new(),
            known: HashSet::new(),
            keep,
        }
    }

    /// Remembers `conv`.
    pub fn insert(&mut self, conv: u32) {
        if self.known.insert(conv) {
            self.order.push_back(conv);
            if self.order.len() > self.keep
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
    }

    /// Whether `conv` was used.
    #[must_use]
    pub fn contains(&self, conv: u32) -> bool {
        self.known.contains(&conv)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_testkit::vectors;

    #[test]
    fn used_conversations_are_bounded() {
        let mut used = UsedConversations::new(3);
        for c in [1, 2, 3, 3, 4] {
            used.insert(c);
        }
        assert!(!used.contains(1));
        assert!([2, 3, 4].iter().all(|&c| used.contains(c)));
    }

    /// Wherever upstream opens a session, we open one too if the packet is a PUSH that parses, and never else.
    #[test]
    fn only_a_push_opens() {
        let file = vectors::load("kcptun/listener_accept.json");
        let mut opened = 0;
        for case in file["cases"].as_array().expect("cases") {
            for step in case["steps"].as_array().expect("steps") {
                let packet = vectors::bytes(step, "packet_hex");
                let upstream_opens = step["result"]
                    .as_str()
                    .expect("result")
                    .contains("new session");
                let peek = peek(&packet);
                let opens = peek.is_some_and(|p| p.opens);
                let note = step["note"].as_str().unwrap_or("");
                if upstream_opens && !opens {
                    assert!(
                        note.contains("ACK") || note.contains("0x41") || note.contains("OOB"),
                        "{step}"
                    );
                }
                if upstream_opens && opens {
                    opened += 1;
                    assert_eq!(
                        peek.and_then(|p| p.conv).map(u64::from),
                        step["session_conv"].as_u64(),
                        "{step}"
                    );
                }
                if step["result"].as_str() == Some("dropped, no session") {
                    assert!(!opens, "{step}");
                }
            }
        }
        assert!(opened >= 5);
    }

    #[test]
    fn the_newest_time_is_that_of_data_of_the_conversation() {
        let segment = |conv: u32, command, ts| {
            let header = kcp::Header {
                conv,
                command,
                frg: 0,
                wnd: 1,
                ts: Millis(ts),
                sn: fulmar_wire::seq::Seq(0),
                una: fulmar_wire::seq::Seq(0),
                len: 0,
            };
            kcp::Format::LittleEndian.emit(&header)
        };
        let (push, ack) = (kcp::Command::Push, kcp::Command::Ack);
        for (segments, newest) in [
            (vec![segment(7, ack, 900)], None),
            (vec![segment(7, ack, 900), segment(7, push, 5)], Some(5)),
            (
                vec![segment(7, push, u32::MAX), segment(7, push, 3)],
                Some(3),
            ),
            (vec![segment(7, push, 3), segment(8, push, 9)], Some(3)),
        ] {
            let body = segments.concat();
            let peek = peek(&body).expect("a body");
            assert_eq!(newest_push(7, peek, &body), newest.map(Millis));
            let mut packet = vec![0; fec::HEADER_LEN];
            packet[4] = 0xf1;
            packet[6..8].copy_from_slice(&(body.len() as u16 + 2).to_le_bytes());
            packet.extend_from_slice(&body);
            let peek = super::peek(&packet).expect("a body");
            assert_eq!(peek.body, Body::FecData);
            assert_eq!(newest_push(7, peek, &packet), newest.map(Millis));
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bodies_never_panic(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80)) {
            if let Some(peek) = peek(&body) {
                let _ = newest_push(peek.conv.unwrap_or(0), peek, &body);
            }
            let _ = fec_payload(&body);
        }
    }
}
