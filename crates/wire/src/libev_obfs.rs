//! Packets and texts of kcptun-libev's obfuscation: a sealed datagram as the payload of a TCP segment, with the IP
//! header that a raw socket is given, and the HTTP exchange of `dpi/tcp-wnd` (docs/spec/kcptun-libev.md, section 13).
//!
//! The TCP part is that of [`crate::rawtcp`], always without options.

use core::fmt::Write as _;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::rawtcp::{self, Error, HEADER_LEN, Header, Ipv4, PROTOCOL, Segment};

/// Bytes of an IPv6 header.
pub const IPV6_HEADER_LEN: usize = 40;
/// Bytes of the longest header that [`Frame::emit`] writes: IPv6 and TCP.
pub const MAX_FRAME_LEN: usize = IPV6_HEADER_LEN + HEADER_LEN;
/// The window of every segment that `dpi/tcp-wnd` makes (section 13.3).
pub const WINDOW_BESIDE: u16 = 32_748;
/// The window of every segment of `dpi/tcp` (section 13.3).
pub const WINDOW_ALONE: u16 = 32_768;
/// How far from the peer's first acknowledgement number the data of `dpi/tcp-wnd` begins, in bytes: beyond the 1152
/// that the peer's kernel takes (section 13.3).
pub const BEYOND: u32 = 1492;
/// Longest request that a server takes, in bytes (section 13.4).
pub const MAX_REQUEST: usize = 4095;

/// Hops that a packet may make.
const HOPS: u8 = 64;

/// The headers of one packet, as a value.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// Our address. Of the family of `dst`.
    pub src: IpAddr,
    /// The peer's address.
    pub dst: IpAddr,
    /// TOS byte or traffic class: code point and congestion bits.
    pub class: u8,
    /// IPv4: the number of the packet.
    pub id: u16,
    /// IPv6: the flow label, 20 bits.
    pub label: u32,
    /// The TCP header. Its options are not sent.
    pub tcp: Header,
}

impl Frame {
    /// Bytes of the headers: 40 with IPv4, 60 with IPv6.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self.dst {
            IpAddr::V4(_) => rawtcp::IPV4_HEADER_LEN + HEADER_LEN,
            IpAddr::V6(_) => MAX_FRAME_LEN,
        }
    }

    /// Never: headers have bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Writes both headers, with right checksums for `payload`; returns how many bytes they have, or 0 when the
    /// addresses are of two families or the packet would be longer than IP packets can be.
    pub fn emit(&self, payload: &[u8], out: &mut [u8; MAX_FRAME_LEN]) -> usize {
        let mut tcp = [0; HEADER_LEN];
        let header = Header {
            options: rawtcp::Options::None,
            ..self.tcp
        };
        header.emit(&mut tcp);
        rawtcp::seal(&mut tcp, payload, self.src, self.dst);
        out.fill(0);
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let Ok(total) = u16::try_from(self.len() + payload.len()) else {
                    return 0;
                };
                out[0] = 0x45;
                out[1] = self.class;
                out[2..4].copy_from_slice(&total.to_be_bytes());
                out[4..6].copy_from_slice(&self.id.to_be_bytes());
                // "Don't fragment".
                out[6] = 0x40;
                out[8] = HOPS;
                out[9] = PROTOCOL;
                out[12..16].copy_from_slice(&src.octets());
                out[16..20].copy_from_slice(&dst.octets());
                let sum = header_sum(&out[..20]);
                out[10..12].copy_from_slice(&sum.to_be_bytes());
                out[20..40].copy_from_slice(&tcp);
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let Ok(length) = u16::try_from(HEADER_LEN + payload.len()) else {
                    return 0;
                };
                let first = 6 << 28 | u32::from(self.class) << 20 | (self.label & 0xf_ffff);
                out[..4].copy_from_slice(&first.to_be_bytes());
                out[4..6].copy_from_slice(&length.to_be_bytes());
                out[6] = PROTOCOL;
                out[7] = HOPS;
                out[8..24].copy_from_slice(&src.octets());
                out[24..40].copy_from_slice(&dst.octets());
                out[40..].copy_from_slice(&tcp);
            }
            _ => return 0,
        }
        self.len()
    }
}

/// The checksum of an IPv4 header whose own field is 0.
fn header_sum(header: &[u8]) -> u16 {
    let mut sum: u32 = header
        .as_chunks::<2>()
        .0
        .iter()
        .map(|&pair| u32::from(u16::from_be_bytes(pair)))
        .sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A whole IP packet that carries TCP, taken apart.
#[derive(Copy, Clone, Debug)]
pub struct Packet<'a> {
    /// The sender. An IPv6 address has no scope here.
    pub src: SocketAddr,
    /// The receiver.
    pub dst: SocketAddr,
    /// TOS byte or traffic class.
    pub class: u8,
    /// The flow label; 0 with IPv4.
    pub label: u32,
    /// Where in the packet the payload of TCP begins, in bytes.
    pub at: usize,
    /// The TCP segment, up to the end that the IP header says.
    pub segment: Segment<'a>,
}

impl<'a> Packet<'a> {
    /// The packet that `bytes` are, of either version of IP. TCP has to follow the IP header at once.
    ///
    /// # Errors
    ///
    /// Any [`Error`]; [`Error::NotIpv4`] means neither version. The checksum is a separate question:
    /// [`Packet::checksum_is_right`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let version = bytes.first().ok_or(Error::Truncated)? >> 4;
        if version != 6 {
            let ip = Ipv4::parse(bytes)?;
            let segment = Segment::parse(ip.payload)?;
            return Ok(Self {
                src: (ip.src, segment.src_port()).into(),
                dst: (ip.dst, segment.dst_port()).into(),
                class: ip.tos,
                label: 0,
                at: ip.header_len + segment.header_len(),
                segment,
            });
        }
        let (header, rest) = bytes
            .split_first_chunk::<IPV6_HEADER_LEN>()
            .ok_or(Error::Truncated)?;
        if header[6] != PROTOCOL {
            return Err(Error::NotTcp);
        }
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        // Short packets may have been padded by the link.
        let segment = Segment::parse(rest.get(..length).ok_or(Error::Truncated)?)?;
        let address = |at: usize| {
            let mut octets = [0; 16];
            octets.copy_from_slice(&header[at..at + 16]);
            Ipv6Addr::from(octets)
        };
        let first = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
        Ok(Self {
            src: (address(8), segment.src_port()).into(),
            dst: (address(24), segment.dst_port()).into(),
            class: (first >> 20 & 0xff) as u8,
            label: first & 0xf_ffff,
            at: IPV6_HEADER_LEN + segment.header_len(),
            segment,
        })
    }

    /// Whether the TCP checksum fits.
    #[must_use]
    pub fn checksum_is_right(&self) -> bool {
        self.segment.checksum_is_right(self.src.ip(), self.dst.ip())
    }
}

/// What a client of `dpi/tcp-wnd` says first. `host` is the server as it was configured, address and port; what cannot
/// stand in a header line is left out of it.
#[must_use]
pub fn request(host: &str) -> String {
    let host: String = host.chars().filter(char::is_ascii_graphic).collect();
    format!(
        "GET /generate_204 HTTP/1.1\r\nHost: {host}\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 \
         (KHTML, like Gecko) Chrome/60.0.3112.32 Safari/537.36\r\nAccept-Encoding: gzip\r\nConnection: \
         keep-alive\r\n\r\n"
    )
}

/// What to do about the bytes of a request.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It is not whole yet.
    Wait,
    /// [`no_content`]; the connection stays open.
    NoContent,
    /// [`error_page`] of that number, then close: 400 for another method, 404 for another path.
    Page(u16),
    /// Close without a word.
    Close,
}

/// What a server answers to a request, of which `bytes` have come so far.
#[must_use]
pub fn answer(bytes: &[u8]) -> Answer {
    let whole = head(bytes);
    if whole.is_none() && bytes.len() < MAX_REQUEST {
        return Answer::Wait;
    }
    let Some(head) = whole.filter(|head| head.len() <= MAX_REQUEST) else {
        return Answer::Close;
    };
    let mut lines = head.split(|&b| b == b'\n').map(<[u8]>::trim_ascii);
    let first = lines.next().unwrap_or_default();
    let mut words = first.split(|&b| b == b' ');
    let (method, path, version) = (words.next(), words.next(), words.next());
    let fields_are_fields = lines
        .filter(|line| !line.is_empty())
        .all(|line| line.contains(&b':'));
    if version != Some(b"HTTP/1.1") || words.next().is_some() || !fields_are_fields {
        return Answer::Close;
    }
    match (method, path) {
        (Some(b"GET"), Some(b"/generate_204")) => Answer::NoContent,
        (Some(b"GET"), _) => Answer::Page(404),
        _ => Answer::Page(400),
    }
}

/// The head of a message with the empty line that ends it, if that has come.
fn head(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
    bytes.get(..end + 4)
}

/// The answer to a request of one of ours. `time`: seconds since 1970.
#[must_use]
pub fn no_content(time: u64) -> String {
    format!(
        "HTTP/1.1 204 No Content\r\nServer: nginx\r\nDate: {}\r\nConnection: keep-alive\r\n\r\n",
        date(time)
    )
}

/// The answer to a request that is none of ours: 400, or 404 for any other number. `time`: seconds since 1970.
#[must_use]
pub fn error_page(status: u16, time: u64) -> String {
    let name = if status == 400 {
        "400 Bad Request"
    } else {
        "404 Not Found"
    };
    let body = format!(
        "<html>\r\n<head><title>{name}</title></head>\r\n<body>\r\n<center><h1>{name}</h1></center>\r\n\
         <hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
    );
    format!(
        "HTTP/1.1 {name}\r\nServer: nginx\r\nDate: {}\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        date(time),
        body.len()
    )
}

/// Whether a server has answered as one of ours does, by what has come of its answer so far; `None`: not yet known.
#[must_use]
pub fn is_accepted(bytes: &[u8]) -> Option<bool> {
    let Some(head) = head(bytes) else {
        return (bytes.len() >= MAX_REQUEST).then_some(false);
    };
    let mut words = head.split(u8::is_ascii_whitespace);
    Some(words.next() == Some(b"HTTP/1.1") && words.next() == Some(b"204"))
}

/// Whether the payload of a segment is a text of this exchange. Sealed datagrams begin with random bytes.
#[must_use]
pub fn is_text(payload: &[u8]) -> bool {
    payload.starts_with(b"GET /gene") || payload.starts_with(b"HTTP/1.1 ")
}

/// A time as HTTP has it. `time`: seconds since 1970.
fn date(time: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    // A date has four digits of year.
    let time = time.min(253_402_300_799);
    let (mut days, seconds) = (time / 86_400, time % 86_400);
    let day_name = DAYS[(days % 7) as usize];
    let mut year = 1970;
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let mut month = 0;
    for (i, len) in [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
        .into_iter()
        .enumerate()
    {
        let len = len + u64::from(i == 1 && leap(year));
        month = i;
        if days < len {
            break;
        }
        days -= len;
    }
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write!(
        out,
        "{day_name}, {:02} {} {year} {:02}:{:02}:{:02} GMT",
        days + 1,
        MONTHS[month],
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rawtcp::Flags;
    use crate::seq::Seq;
    use fulmar_testkit::vectors;
    use proptest::prelude::*;

    fn number(value: &vectors::Value) -> u64 {
        value.as_u64().expect("a number")
    }

    fn flags(text: &str) -> Flags {
        text.chars().fold(Flags::default(), |sum, letter| {
            let bit = "FSRPAUEC".find(letter).expect("a flag");
            sum.with(Flags(1 << bit))
        })
    }

    #[test]
    fn their_packets_are_parsed_and_their_raw_ones_made_again() {
        let mut raw = 0;
        for name in ["tcp_wnd_ipv4", "tcp_wnd_ipv6", "tcp_ipv4", "tcp_ipv6"] {
            let file = vectors::load(&format!("kcptun-libev/obfs_{name}.json"));
            for row in file["frames"].as_array().expect("frames") {
                let bytes = vectors::bytes(row, "ip_packet_hex");
                let packet = Packet::parse(&bytes).expect("a packet");
                assert!(packet.checksum_is_right(), "{row}");
                let ip = &row["ip"];
                let addr = |ip: &vectors::Value, port: &vectors::Value| {
                    let ip: IpAddr = ip.as_str().expect("text").parse().expect("address");
                    SocketAddr::new(ip, u16::try_from(number(port)).expect("port"))
                };
                assert_eq!(packet.src, addr(&ip["src"], &row["sport"]));
                assert_eq!(packet.dst, addr(&ip["dst"], &row["dport"]));
                let class = if packet.src.is_ipv6() {
                    &ip["tclass"]
                } else {
                    &ip["tos"]
                };
                assert_eq!(u64::from(packet.class), number(class));
                let tcp = packet.segment.header();
                assert_eq!(u64::from(tcp.seq.0), number(&row["seq"]));
                assert_eq!(u64::from(tcp.ack.0), number(&row["ack"]));
                assert_eq!(u64::from(tcp.window), number(&row["window"]));
                assert_eq!(tcp.flags, flags(row["flags"].as_str().expect("flags")));
                let payload = packet.segment.payload();
                assert_eq!(payload.len() as u64, number(&row["payload_len"]));
                assert_eq!(
                    bytes.get(packet.at..packet.at + payload.len()),
                    Some(payload)
                );
                if packet.src.is_ipv6() {
                    assert_eq!(u64::from(packet.label), number(&ip["flow"]));
                }
                if row["origin"] != "obfs raw socket" {
                    continue;
                }
                raw += 1;
                if row.get("sealed_payload_hex").is_some() {
                    assert_eq!(vectors::bytes(row, "sealed_payload_hex"), payload);
                }
                let frame = Frame {
                    src: packet.src.ip(),
                    dst: packet.dst.ip(),
                    class: packet.class,
                    id: ip["id"].as_u64().map_or(0, |id| id as u16),
                    label: packet.label,
                    tcp,
                };
                let mut front = [0; MAX_FRAME_LEN];
                let len = frame.emit(payload, &mut front);
                assert_eq!([&front[..len], payload].concat(), bytes, "{row}");
            }
        }
        assert!(raw > 30);
    }

    #[test]
    fn data_of_wnd_begins_where_theirs_does() {
        for name in ["tcp_wnd_ipv4", "tcp_wnd_ipv6"] {
            let file = vectors::load(&format!("kcptun-libev/obfs_{name}.json"));
            let frames = file["frames"].as_array().expect("frames");
            let raw = frames
                .iter()
                .find(|f| f["origin"] == "obfs raw socket")
                .expect("a raw one");
            let number = |key: &str, row: &vectors::Value| number(&row[key]) as u32;
            // The second frame is the answer to the handshake.
            let first = number("ack", &frames[1]);
            assert_eq!(Seq(first).plus(BEYOND).0, number("seq", raw));
            assert_eq!(number("window", raw), u32::from(WINDOW_BESIDE));
        }
    }

    #[test]
    fn texts() {
        let file = vectors::load("kcptun-libev/obfs_http.json");
        let text = |key: &str| file[key].as_str().expect(key).to_owned();
        let ours = request("10.9.0.2:8080");
        assert_eq!(ours, text("client_request_ascii"));
        assert_eq!(request("a\r\nb c:1"), request("abc:1"));
        // Fri, 20 Nov 2026 20:44:46 GMT.
        let time = 1_795_207_486;
        assert_eq!(no_content(time), text("server_ok_ascii"));
        assert_eq!(error_page(404, time), text("server_404_ascii"));
        assert!(error_page(400, time).starts_with("HTTP/1.1 400 Bad Request\r\n"));
        assert_eq!(date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(date(951_782_400), "Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(date(u64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
        for request in [ours, text("v2_3_4_client_request_ascii")] {
            assert_eq!(answer(request.as_bytes()), Answer::NoContent);
            for cut in 0..request.len() {
                assert_eq!(answer(&request.as_bytes()[..cut]), Answer::Wait);
            }
            assert!(is_text(request.as_bytes()));
        }
        let ok = no_content(time);
        assert_eq!(is_accepted(ok.as_bytes()), Some(true));
        assert_eq!(is_accepted(&ok.as_bytes()[..ok.len() - 1]), None);
        assert_eq!(is_accepted(error_page(404, time).as_bytes()), Some(false));
        assert!(is_text(ok.as_bytes()));
    }

    #[test]
    fn other_requests() {
        for (request, want) in [
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", Answer::Page(404)),
            ("HEAD /generate_204 HTTP/1.1\r\n\r\n", Answer::Page(400)),
            ("GET /generate_204 HTTP/1.0\r\n\r\n", Answer::Close),
            ("GET /generate_204\r\n\r\n", Answer::Close),
            ("GET /generate_204 HTTP/1.1 x\r\n\r\n", Answer::Close),
            (
                "GET /generate_204 HTTP/1.1\r\nnothing\r\n\r\n",
                Answer::Close,
            ),
            ("\r\n\r\n", Answer::Close),
            ("GET /gen", Answer::Wait),
        ] {
            assert_eq!(answer(request.as_bytes()), want, "{request}");
        }
        assert_eq!(answer(&[b'x'; MAX_REQUEST]), Answer::Close);
        assert_eq!(answer(&[b'x'; MAX_REQUEST - 1]), Answer::Wait);
    }

    #[test]
    fn packets_that_cannot_be() {
        let tcp = Header {
            src_port: 1,
            dst_port: 2,
            seq: Seq(3),
            ack: Seq(4),
            flags: Flags::DATA,
            window: 5,
            options: rawtcp::Options::None,
        };
        let v4 = "192.0.2.1".parse().expect("address");
        let v6 = "2001:db8::1".parse().expect("address");
        let mut out = [0; MAX_FRAME_LEN];
        let frame = |src, dst| Frame {
            src,
            dst,
            class: 2,
            id: 1,
            label: 9,
            tcp,
        };
        assert_eq!(frame(v4, v6).emit(&[], &mut out), 0);
        assert_eq!(frame(v4, v4).emit(&[0; 65_500], &mut out), 0);
        assert_eq!(frame(v4, v4).emit(&[0; 65_495], &mut out), 40);
        assert_eq!(frame(v6, v6).emit(&[0; 65_520], &mut out), 0);
        assert_eq!(frame(v6, v6).emit(&[], &mut out), 60);
        assert!(Packet::parse(&out).is_ok());
        out[6] = 17;
        assert_eq!(Packet::parse(&out).expect_err("UDP"), Error::NotTcp);
        assert_eq!(Packet::parse(&[]).expect_err("nothing"), Error::Truncated);
        assert_eq!(
            Packet::parse(&[0x60; 39]).expect_err("short"),
            Error::Truncated
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..160),
            version in 0..3_u8,
        ) {
            if let Some(first) = bytes.first_mut() && version > 0 {
                *first = [0x45, 0x60][usize::from(version) - 1];
            }
            for at in [6, 9] {
                if let Some(byte) = bytes.get_mut(at) && version > 0 {
                    *byte = if at == usize::from(3 * version) { 6 } else { 0 };
                }
            }
            if let Ok(packet) = Packet::parse(&bytes) {
                let payload = packet.segment.payload();
                prop_assert_eq!(bytes.get(packet.at..packet.at + payload.len()), Some(payload));
                let _ = packet.checksum_is_right();
            }
            let _ = (answer(&bytes), is_accepted(&bytes), is_text(&bytes));
        }
    }
}
