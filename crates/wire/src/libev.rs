//! The kcptun-libev datagram: sealing methods and header sizes, MTU arithmetic, the messages beside conversations
//! (`session0`), and the messages in the stream of a conversation (docs/spec/kcptun-libev.md, sections 4, 5, 8 and 10).
//!
//! All integers are big-endian. KCP segments are those of [`crate::kcp`] in [`Format::BigEndian`](crate::kcp::Format).

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::kcp::HEADER_LEN;

/// Longest datagram that a peer takes, in bytes of UDP payload (section 5).
pub const MAX_DATAGRAM: usize = 1500;
/// Bytes of the tag of every sealed datagram.
pub const TAG_LEN: usize = 16;
/// What the three AEAD methods authenticate besides the packet: the name with its terminating NUL (section 4.1).
pub const ASSOCIATED_DATA: &[u8; 13] = b"kcptun-libev\0";
/// Most bytes of padding that peers put behind a datagram before they seal it (section 4.3).
pub const MAX_PADDING: usize = 15;
/// Longest service id, in bytes (section 3.2).
pub const MAX_SERVICE_ID: usize = 256;

/// How datagrams are sealed (section 4.1).
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Method {
    /// XChaCha20-Poly1305, random nonces of 24 bytes.
    XChaCha20Poly1305,
    /// The secretbox of NaCl with the tag behind the ciphertext, random nonces of 24 bytes.
    XSalsa20Poly1305,
    /// ChaCha20-Poly1305 of RFC 8439, nonces of 12 bytes.
    ChaCha20Poly1305,
    /// AES-256-GCM, nonces of 12 bytes.
    Aes256Gcm,
    /// No encryption at all: no `method` is configured.
    Plain,
}

impl Method {
    /// The methods that encrypt, in the order in which they are listed upstream.
    pub const SEALED: [Self; 4] = [
        Self::XChaCha20Poly1305,
        Self::XSalsa20Poly1305,
        Self::ChaCha20Poly1305,
        Self::Aes256Gcm,
    ];

    /// The name in the configuration; `none` for [`Self::Plain`], which has none there.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::XChaCha20Poly1305 => "xchacha20poly1305_ietf",
            Self::XSalsa20Poly1305 => "xsalsa20poly1305",
            Self::ChaCha20Poly1305 => "chacha20poly1305_ietf",
            Self::Aes256Gcm => "aes256gcm",
            Self::Plain => "none",
        }
    }

    /// The sealing method of that exact name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::SEALED.into_iter().find(|m| m.name() == name)
    }

    /// Bytes of nonce at the very end of a datagram.
    #[must_use]
    pub const fn nonce_len(self) -> usize {
        match self {
            Self::XChaCha20Poly1305 | Self::XSalsa20Poly1305 => 24,
            Self::ChaCha20Poly1305 | Self::Aes256Gcm => 12,
            Self::Plain => 0,
        }
    }

    /// Bytes behind the ciphertext: tag and nonce.
    #[must_use]
    pub const fn overhead(self) -> usize {
        match self {
            Self::Plain => 0,
            _ => TAG_LEN + self.nonce_len(),
        }
    }
}

/// What carries a datagram below the sealed packet.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Carrier {
    /// UDP.
    Udp,
    /// A TCP header without options, of obfuscation.
    Tcp,
}

impl Carrier {
    /// Bytes of the IP header and of the carrier's own.
    #[must_use]
    pub const fn headers(self, v6: bool) -> usize {
        let ip = if v6 { 40 } else { 20 };
        match self {
            Self::Udp => ip + 8,
            Self::Tcp => ip + 20,
        }
    }
}

/// Largest datagram that KCP may emit when IP packets are at most `ip_mtu` bytes (`kcp.mtu`, docs/spec/kcptun-libev.md, section 5), or `None` when
/// nothing of use is left.
#[must_use]
pub const fn kcp_mtu(method: Method, carrier: Carrier, v6: bool, ip_mtu: usize) -> Option<usize> {
    let below = carrier.headers(v6) + method.overhead();
    if ip_mtu <= below + HEADER_LEN {
        None
    } else {
        Some(ip_mtu - below)
    }
}

/// A service id: any bytes, at most [`MAX_SERVICE_ID`] of them where we choose it.
pub type ServiceId<'a> = &'a [u8];

/// A message beside all conversations: conversation number 0 (section 10).
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Session0<'a> {
    /// Asks for a [`Self::Pong`] with the same time.
    Ping {
        /// The sender's clock, ms.
        time: u32,
        /// What a sender of ours tells of itself; others ignore what is behind the time.
        hello: Option<Hello>,
    },
    /// Answers a [`Self::Ping`].
    Pong {
        /// The time of the ping.
        time: u32,
        /// What a sender of ours tells of itself.
        hello: Option<Hello>,
    },
    /// The sender knows no such conversation.
    Reset {
        /// Which.
        conv: u32,
    },
    /// A server makes itself known to a relay.
    Listen {
        /// The server's local address.
        local: SocketAddr,
        /// Its service; empty if none was sent.
        id: ServiceId<'a>,
    },
    /// A client asks a relay for a server.
    Connect {
        /// The client's local address.
        local: SocketAddr,
        /// The service that it wants; empty if none was sent.
        id: ServiceId<'a>,
    },
    /// A relay tells one of two peers the addresses of the other.
    Punch {
        /// What the other says its address is.
        local: SocketAddr,
        /// Where the relay hears it from.
        observed: SocketAddr,
    },
}

/// What one of ours says about itself behind the time of a ping or pong. Not in the format of upstream, which ignores it.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub struct Hello {
    /// Bits of what it understands; see the constants.
    pub features: u32,
}

impl Hello {
    /// It understands acknowledgements in ranges.
    pub const ACK_RANGES: u32 = 1;
    /// What it begins with; padding never looks like that.
    const MAGIC: [u8; 4] = *b"flmr";

    fn read(bytes: &[u8]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<4>()?;
        let features = rest.first_chunk::<4>()?;
        (*magic == Self::MAGIC).then_some(Self {
            features: u32::from_be_bytes(*features),
        })
    }
}

/// Why bytes are no message beside conversations.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Session0Error {
    /// Too short for what it says it is.
    Short,
    /// The conversation is not 0.
    Conversation(u32),
    /// No such message.
    Unknown(u16),
    /// An address of a family that does not exist.
    Family(u8),
}

impl fmt::Display for Session0Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("the message is cut short"),
            Self::Conversation(conv) => write!(f, "conversation {conv:08X} is not 0"),
            Self::Unknown(what) => write!(f, "unknown message {what}"),
            Self::Family(family) => write!(f, "unknown address family {family}"),
        }
    }
}

impl core::error::Error for Session0Error {}

impl<'a> Session0<'a> {
    /// Longest message that we write, in bytes: a [`Self::Connect`] over IPv6 with the longest id.
    pub const MAX_LEN: usize = 6 + 19 + 2 + MAX_SERVICE_ID;

    /// Reads a whole datagram that begins with conversation 0. What is behind a message is ignored: it is padding.
    ///
    /// # Errors
    /// See [`Session0Error`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Session0Error> {
        let (conv, rest) = take::<4>(bytes)?;
        let conv = u32::from_be_bytes(conv);
        if conv != 0 {
            return Err(Session0Error::Conversation(conv));
        }
        let (what, body) = take::<2>(rest)?;
        match u16::from_be_bytes(what) {
            what @ (0 | 1) => {
                let (time, rest) = take::<4>(body)?;
                let (time, hello) = (u32::from_be_bytes(time), Hello::read(rest));
                Ok(if what == 0 {
                    Self::Ping { time, hello }
                } else {
                    Self::Pong { time, hello }
                })
            }
            2 => {
                let (conv, _) = take::<4>(body)?;
                Ok(Self::Reset {
                    conv: u32::from_be_bytes(conv),
                })
            }
            what @ (3 | 4) => {
                let (local, rest) = address(body)?;
                let id = service_id(rest);
                Ok(if what == 3 {
                    Self::Listen { local, id }
                } else {
                    Self::Connect { local, id }
                })
            }
            5 => {
                let (local, rest) = address(body)?;
                let (observed, _) = address(rest)?;
                Ok(Self::Punch { local, observed })
            }
            what => Err(Session0Error::Unknown(what)),
        }
    }

    /// Appends the message to `out`. An id longer than 65,535 bytes is cut.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[0; 4]);
        let what = |out: &mut Vec<u8>, what: u16| out.extend_from_slice(&what.to_be_bytes());
        match self {
            Self::Ping { time, hello } | Self::Pong { time, hello } => {
                what(out, u16::from(matches!(self, Self::Pong { .. })));
                out.extend_from_slice(&time.to_be_bytes());
                if let Some(hello) = hello {
                    out.extend_from_slice(&Hello::MAGIC);
                    out.extend_from_slice(&hello.features.to_be_bytes());
                }
            }
            Self::Reset { conv } => {
                what(out, 2);
                out.extend_from_slice(&conv.to_be_bytes());
            }
            Self::Listen { local, id } | Self::Connect { local, id } => {
                what(
                    out,
                    if matches!(self, Self::Listen { .. }) {
                        3
                    } else {
                        4
                    },
                );
                emit_address(out, *local);
                let len = u16::try_from(id.len()).unwrap_or(u16::MAX);
                out.extend_from_slice(&len.to_be_bytes());
                out.extend_from_slice(&id[..usize::from(len)]);
            }
            Self::Punch { local, observed } => {
                what(out, 5);
                emit_address(out, *local);
                emit_address(out, *observed);
            }
        }
    }
}

fn take<const N: usize>(bytes: &[u8]) -> Result<([u8; N], &[u8]), Session0Error> {
    let (head, rest) = bytes.split_first_chunk::<N>().ok_or(Session0Error::Short)?;
    Ok((*head, rest))
}

fn address(bytes: &[u8]) -> Result<(SocketAddr, &[u8]), Session0Error> {
    let (family, rest) = take::<1>(bytes)?;
    let (ip, rest): (IpAddr, _) = match family[0] {
        0 => take::<4>(rest).map(|(ip, rest)| (Ipv4Addr::from(ip).into(), rest))?,
        1 => take::<16>(rest).map(|(ip, rest)| (Ipv6Addr::from(ip).into(), rest))?,
        family => return Err(Session0Error::Family(family)),
    };
    let (port, rest) = take::<2>(rest)?;
    Ok((SocketAddr::new(ip, u16::from_be_bytes(port)), rest))
}

/// The id behind an address. One that does not fit is none: then it is the padding of a message of v2.3.0, which had no ids.
fn service_id(bytes: &[u8]) -> ServiceId<'_> {
    let Some((len, rest)) = bytes.split_first_chunk::<2>() else {
        return &[];
    };
    rest.get(..usize::from(u16::from_be_bytes(*len)))
        .unwrap_or_default()
}

fn emit_address(out: &mut Vec<u8>, addr: SocketAddr) {
    match addr.ip() {
        IpAddr::V4(ip) => {
            out.push(0);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(1);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&addr.port().to_be_bytes());
}

/// Bytes of a message's header in the stream of a conversation.
pub const MESSAGE_HEADER_LEN: usize = 4;
/// Longest message there, its header included (section 8).
pub const MAX_MESSAGE: usize = 14_884;
/// Most bytes of data in one message.
pub const MAX_PUSH: usize = MAX_MESSAGE - MESSAGE_HEADER_LEN;

/// What a message in the stream of a conversation is.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// The first one: the server is to connect to its target.
    Dial,
    /// So many bytes of data follow.
    Push(u16),
    /// Nothing more will be pushed.
    Eof,
    /// Nothing; a server sends it back.
    KeepAlive,
}

/// Why a header is none.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum MessageError {
    /// A length that no message has.
    Length(u16),
    /// No such message.
    Unknown(u16),
    /// A body where there must be none.
    Body(u16),
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(len) => write!(f, "a message of {len} bytes"),
            Self::Unknown(kind) => write!(f, "a message of unknown type {kind}"),
            Self::Body(kind) => write!(f, "a message of type {kind} with a body"),
        }
    }
}

impl core::error::Error for MessageError {}

impl Message {
    /// Reads a header.
    ///
    /// # Errors
    /// See [`MessageError`].
    pub fn parse(header: [u8; MESSAGE_HEADER_LEN]) -> Result<Self, MessageError> {
        let kind = u16::from_be_bytes([header[0], header[1]]);
        let len = u16::from_be_bytes([header[2], header[3]]);
        if !(MESSAGE_HEADER_LEN..=MAX_MESSAGE).contains(&usize::from(len)) {
            return Err(MessageError::Length(len));
        }
        let body = len - MESSAGE_HEADER_LEN as u16;
        match (kind, body) {
            (1, body) => Ok(Self::Push(body)),
            (0, 0) => Ok(Self::Dial),
            (2, 0) => Ok(Self::Eof),
            (3, 0) => Ok(Self::KeepAlive),
            (0 | 2 | 3, _) => Err(MessageError::Body(kind)),
            _ => Err(MessageError::Unknown(kind)),
        }
    }

    /// The header. A push of more than [`MAX_PUSH`] bytes is not a message.
    #[must_use]
    pub const fn emit(self) -> [u8; MESSAGE_HEADER_LEN] {
        let (kind, body) = match self {
            Self::Dial => (0, 0),
            Self::Push(body) => (1, body),
            Self::Eof => (2, 0),
            Self::KeepAlive => (3, 0),
        };
        let len = body.saturating_add(MESSAGE_HEADER_LEN as u16).to_be_bytes();
        [0, kind, len[0], len[1]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_testkit::vectors;

    #[test]
    fn mtu_table() {
        let file = vectors::load("kcptun-libev/mtu.json");
        let rows = file["table"].as_array().expect("rows");
        assert!(rows.len() > 50);
        for row in rows {
            let name = row["method"].as_str().expect("a method");
            let method = Method::from_name(name).unwrap_or(Method::Plain);
            assert_eq!(method.name(), name);
            let carrier = if row["obfs"].is_null() {
                Carrier::Udp
            } else {
                Carrier::Tcp
            };
            let v6 = row["family"] == "ipv6";
            let number = |key: &str| usize::try_from(row[key].as_u64().expect(key)).expect(key);
            let got = kcp_mtu(method, carrier, v6, number("kcp.mtu"));
            assert_eq!(got, Some(number("kcp_mtu")), "{row}");
            assert_eq!(number("kcp_mtu") - HEADER_LEN, number("kcp_mss"));
        }
    }

    #[test]
    fn messages_beside_conversations() {
        let file = vectors::load("kcptun-libev/session0.json");
        let messages = file["messages"].as_array().expect("messages");
        assert!(messages.len() > 8);
        let text = |v: &vectors::Value| v.as_str().unwrap_or_default().to_owned();
        let addr = |v: &vectors::Value| text(v).parse::<SocketAddr>().expect("an address");
        for case in messages {
            let (name, fields) = (text(&case["name"]), &case["fields"]);
            let bytes = vectors::bytes(case, "plaintext_hex");
            let message = Session0::parse(&bytes).expect("parses");
            let time = fields["tstamp"].as_u64();
            let id = text(&fields["service_id"]);
            match message {
                Session0::Ping { time: t, hello } => {
                    assert_eq!((Some(u64::from(t)), hello), (time, None));
                    assert_eq!(name, "PING");
                }
                Session0::Pong { time: t, hello } => {
                    assert_eq!((Some(u64::from(t)), hello), (time, None));
                    assert_eq!(name, "PONG");
                }
                Session0::Reset { conv } => {
                    assert_eq!(format!("{conv:08X}"), text(&fields["conv"]));
                }
                Session0::Listen { local, id: got } | Session0::Connect { local, id: got } => {
                    assert_eq!((local, got), (addr(&fields["local"]), id.as_bytes()));
                }
                Session0::Punch { .. } => assert!(name.starts_with("PUNCH"), "{name}"),
            }
            let mut again = Vec::new();
            message.emit(&mut again);
            if !name.contains("2.3.0") {
                assert_eq!(again, bytes, "{name}");
            }
            for padding in 1..=MAX_PADDING {
                let mut padded = bytes.clone();
                padded.resize(bytes.len() + padding, padding as u8);
                assert_eq!(Session0::parse(&padded), Ok(message), "{name} {padding}");
            }
            for len in 0..bytes.len() {
                // Only the id may be missing.
                if let Ok(shorter) = Session0::parse(&bytes[..len]) {
                    assert!(matches!(
                        shorter,
                        Session0::Listen { id: [], .. } | Session0::Connect { id: [], .. }
                    ));
                }
            }
        }
    }

    #[test]
    fn a_hello_is_behind_the_time() {
        let hello = Some(Hello { features: 5 });
        for message in [
            Session0::Ping { time: 7, hello },
            Session0::Pong { time: 7, hello },
        ] {
            let mut bytes = Vec::new();
            message.emit(&mut bytes);
            assert_eq!(Session0::parse(&bytes), Ok(message));
            bytes.resize(bytes.len() + 9, 9);
            assert_eq!(Session0::parse(&bytes), Ok(message));
            assert!(Session0::parse(&bytes[..13]).is_ok_and(|m| m != message));
        }
    }

    #[test]
    fn messages_in_a_stream() {
        let file = vectors::load("kcptun-libev/session_stream.json");
        let header = |case: &vectors::Value| -> [u8; 4] {
            vectors::bytes(case, "hex")[..4].try_into().expect("four")
        };
        for case in file["messages"].as_array().expect("messages") {
            let message = Message::parse(header(case)).expect("a message");
            assert_eq!(message.emit(), header(case), "{case}");
        }
        for case in file["protocol_errors"].as_array().expect("errors") {
            let name = case["name"].as_str().expect("a name");
            // The others are errors by their order.
            let here = ["length", "body", "unknown"]
                .iter()
                .any(|w| name.contains(w));
            assert_eq!(Message::parse(header(case)).is_err(), here, "{name}");
        }
        assert_eq!(MAX_PUSH as u64, file["max_payload"].as_u64().expect("max"));
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..320)) {
            if let Ok(message) = Session0::parse(&bytes) {
                let mut again = Vec::new();
                message.emit(&mut again);
                proptest::prop_assert_eq!(Session0::parse(&again), Ok(message));
            }
            if let Some(header) = bytes.first_chunk() && let Ok(message) = Message::parse(*header) {
                proptest::prop_assert_eq!(message.emit(), *header);
            }
        }
    }
}
