//! Addresses: `host:port`, Unix sockets, and port ranges (docs/spec/kcptun.md, sections 3.2 and 3.4).

use core::fmt;
use core::net::Ipv6Addr;
use std::ffi::OsStr;
use std::path::PathBuf;

use crate::services;
use crate::text::{self, quoted};

/// Where a stream listener or a target is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StreamAddr {
    /// A TCP address.
    Tcp {
        /// A name, or an IP address without brackets. Empty only for a listener: every address.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix socket. A leading `@` means Linux's abstract namespace.
    Unix(PathBuf),
}

impl StreamAddr {
    /// Reads `text` as kcptun does: what does not split into host and port is the path of a Unix socket. A port may be the
    /// name of a service that this machine knows.
    ///
    /// # Errors
    /// When it does split, but the port is neither a number from 0 to 65535 nor a service, or the host has a character that no
    /// host has; when it does not split because of a character that only looks like a colon; and when `text` is empty.
    pub fn parse(text: &OsStr) -> Result<Self, AddrError> {
        if text.is_empty() {
            return Err(AddrError::Empty);
        }
        match text.to_str().and_then(split_host_port) {
            None => {
                let path = Self::Unix(text.into());
                match text.to_str().and_then(text::first_lookalike) {
                    Some((_, c)) if path.looks_mistaken() => Err(AddrError::Character(c)),
                    _ => Ok(path),
                }
            }
            Some((host, port)) => {
                check_host(host)?;
                Ok(Self::Tcp {
                    host: host.into(),
                    port: self::port(port)?,
                })
            }
        }
    }

    /// Whether this is a Unix socket's path only because a port is missing or an IPv6 address has no brackets.
    #[must_use]
    pub fn looks_mistaken(&self) -> bool {
        match self {
            Self::Tcp { .. } => false,
            Self::Unix(path) => {
                let bytes = path.as_os_str().as_encoded_bytes();
                !bytes.starts_with(b"@")
                    && !bytes.iter().any(|b| matches!(b, b'/' | b'\\'))
                    && !bytes.ends_with(b".sock")
            }
        }
    }
}

impl fmt::Display for StreamAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => write!(f, "{}:{port}", Bracketed(host)),
            Self::Unix(path) => f.write_str(&text::path(path)),
        }
    }
}

/// A host with one port or a range of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortRange {
    /// A name, or an IP address without brackets. Empty only for a listener: every address.
    pub host: String,
    /// First port, at least 1.
    pub min: u16,
    /// Last port, at least `min`.
    pub max: u16,
}

impl PortRange {
    /// Reads `text` as kcptun does, and then wants the host to be one that can be looked up.
    ///
    /// Returns with it what stands behind the ports; kcptun ignores that text.
    ///
    /// # Errors
    /// When there is no port, when the ports are not `1 <= min <= max <= 65535`, or when the host has a colon
    /// without being an IPv6 address, or a character that no host has.
    pub fn parse(text: &str) -> Result<(Self, &str), AddrError> {
        let parts = match Multiport::parse(text) {
            Err(AddrError::NoPort) => by_service(text)?,
            parts => parts?,
        };
        let host = parts
            .host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(parts.host);
        // A zone, as in fe80::1%eth0, is the system's business.
        let address = host.split('%').next().unwrap_or(host);
        if host.contains(':') && address.parse::<Ipv6Addr>().is_err() || host.contains(['[', ']']) {
            return Err(AddrError::Host(parts.host.into()));
        }
        check_host(host)?;
        let range = Self {
            host: host.into(),
            min: parts.min,
            max: parts.max,
        };
        Ok((range, parts.rest))
    }

    /// How many ports there are, at least 1.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::from(self.max) - u32::from(self.min) + 1
    }

    /// Every port in order.
    pub fn ports(&self) -> impl Iterator<Item = u16> + use<> {
        self.min..=self.max
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", Bracketed(&self.host), self.min)?;
        if self.max == self.min {
            Ok(())
        } else {
            write!(f, "-{}", self.max)
        }
    }
}

/// What the pattern of section 3.4 makes of a text: "anything, colon, 1-5 digits, optional hyphen, optional 1-5 digits".
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Multiport<'a> {
    /// What stands before the last colon that a digit follows; brackets included.
    pub host: &'a str,
    /// First port.
    pub min: u16,
    /// Last port.
    pub max: u16,
    /// What stands behind the match and is ignored.
    pub rest: &'a str,
}

impl<'a> Multiport<'a> {
    /// Matches `text`.
    ///
    /// # Errors
    /// [`AddrError::NoPort`] when the pattern does not match, [`AddrError::Range`] when it does and the ports are not
    /// `1 <= min <= max <= 65535`.
    pub fn parse(text: &'a str) -> Result<Self, AddrError> {
        let (host, after) = text
            .rmatch_indices(':')
            .map(|(at, _)| (&text[..at], &text[at + 1..]))
            .find(|(_, after)| after.starts_with(|c: char| c.is_ascii_digit()))
            .ok_or(AddrError::NoPort)?;
        let (min, rest) = digits(after);
        let (max, rest) = digits(rest.strip_prefix('-').unwrap_or(rest));
        let min = min.unwrap_or(0);
        let max = max.unwrap_or(min);
        match (u16::try_from(min), u16::try_from(max)) {
            (Ok(first), Ok(last)) if first >= 1 && first <= last => Ok(Self {
                host,
                min: first,
                max: last,
                rest,
            }),
            _ => Err(AddrError::Range { min, max }),
        }
    }
}

/// Why a text is not an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AddrError {
    /// Nothing at all.
    Empty,
    /// No colon with a number behind it.
    NoPort,
    /// The port is not a number from 0 to 65535.
    Port(String),
    /// The ports are not `1 <= min <= max <= 65535`.
    Range {
        /// The first port as read.
        min: u32,
        /// The last port as read.
        max: u32,
    },
    /// The host is neither a name nor an address.
    Host(String),
    /// A blank, a control character, or one that only looks like another.
    Character(char),
}

impl fmt::Display for AddrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the address is empty"),
            Self::NoPort => f.write_str("the port is missing"),
            Self::Port(port) => write!(
                f,
                "the port {} is neither a number from 0 to 65535 nor a service that this machine knows",
                quoted(port)
            ),
            Self::Range { min, max } if min == max => {
                write!(f, "the port {min} is not one of 1 to 65535")
            }
            Self::Range { min, max } if max < min && *min <= 65535 => {
                write!(f, "the port range {min}-{max} is upside down")
            }
            Self::Range { min, max } => {
                write!(f, "the port range {min}-{max} does not lie in 1 to 65535")
            }
            Self::Host(host) => {
                write!(
                    f,
                    "the host {} is neither a name nor an IP address",
                    quoted(host)
                )
            }
            Self::Character(c) => write!(f, "it has {} in it", text::name(*c)),
        }
    }
}

impl core::error::Error for AddrError {}

/// Up to five digits at the start of `text`, and what follows them.
fn digits(text: &str) -> (Option<u32>, &str) {
    let len = text.bytes().take(5).take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(len);
    (number.parse().ok(), rest)
}

/// Host and port by Go's strict rules: brackets around anything with a colon, exactly one port.
fn split_host_port(text: &str) -> Option<(&str, &str)> {
    let (before, port) = text.rsplit_once(':')?;
    let host = match before.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']')?,
        None if before.contains(':') => return None,
        None => before,
    };
    (!host.contains(['[', ']']) && !port.contains(['[', ']'])).then_some((host, port))
}

/// A port by its number or by the name of a service.
fn port(text: &str) -> Result<u16, AddrError> {
    let number = text.parse().ok();
    // What begins like a number is none of the services.
    let named = || {
        let word = text.starts_with(|c: char| c.is_ascii_alphabetic());
        word.then(|| services::system(text)).flatten()
    };
    number
        .or_else(named)
        .ok_or_else(|| AddrError::Port(text.into()))
}

/// `host:service`, which the pattern of section 3.4 does not know.
fn by_service(text: &str) -> Result<Multiport<'_>, AddrError> {
    if let Some((_, c)) = text::first_lookalike(text) {
        return Err(AddrError::Character(c));
    }
    match text.rsplit_once(':') {
        Some((host, word)) if !word.is_empty() => {
            let port = port(word)?;
            Ok(Multiport {
                host,
                min: port,
                max: port,
                rest: "",
            })
        }
        _ => Err(AddrError::NoPort),
    }
}

fn check_host(host: &str) -> Result<(), AddrError> {
    let odd = |c: &char| c.is_control() || c.is_whitespace() || text::lookalike(*c).is_some();
    match host.chars().find(odd) {
        Some(c) => Err(AddrError::Character(c)),
        None => Ok(()),
    }
}

struct Bracketed<'a>(&'a str);

impl fmt::Display for Bracketed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.contains(':') {
            write!(f, "[{}]", self.0)
        } else {
            f.write_str(self.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_testkit::vectors;
    use proptest::prelude::*;

    fn stream(text: &str) -> Result<StreamAddr, AddrError> {
        StreamAddr::parse(OsStr::new(text))
    }

    fn tcp(host: &str, port: u16) -> Result<StreamAddr, AddrError> {
        Ok(StreamAddr::Tcp {
            host: host.into(),
            port,
        })
    }

    #[test]
    fn multiport_vectors() {
        let file = vectors::load("kcptun/multiport.json");
        let cases = file["cases"].as_array().expect("cases");
        assert!(cases.len() > 25);
        for case in cases {
            let addr = case["addr"].as_str().expect("addr");
            match (Multiport::parse(addr), case["error"].as_str()) {
                (Ok(got), None) => {
                    assert_eq!(got.host, case["host"], "{case}");
                    assert_eq!(got.min, case["min"].as_u64().expect("min") as u16, "{case}");
                    assert_eq!(got.max, case["max"].as_u64().expect("max") as u16, "{case}");
                }
                (Err(AddrError::NoPort), Some(text)) => {
                    assert!(text.starts_with("malformed"), "{case}");
                }
                (Err(AddrError::Range { min, max }), Some(text)) => {
                    assert_eq!(
                        text,
                        format!("invalid port range specified: minport:{min} -> maxport {max}")
                    );
                }
                (got, _) => panic!("{case}: {got:?}"),
            }
        }
    }

    #[test]
    fn a_range_needs_a_host_that_can_be_looked_up() {
        let ok = |text| PortRange::parse(text).map(|(range, rest)| (range.host, range.min, rest));
        assert_eq!(ok("[::1]:5"), Ok(("::1".into(), 5, "")));
        assert_eq!(ok("::1:5"), Ok(("::1".into(), 5, "")));
        assert_eq!(ok("[fe80::1%eth0]:5"), Ok(("fe80::1%eth0".into(), 5, "")));
        assert_eq!(ok("h:5,6"), Ok(("h".into(), 5, ",6")));
        assert_eq!(ok("a:1:2"), Err(AddrError::Host("a:1".into())));
        assert_eq!(ok("[h:2"), Err(AddrError::Host("[h".into())));
        assert_eq!(ok("h\n:2"), Err(AddrError::Character('\n')));
        assert_eq!(ok(" h:2"), Err(AddrError::Character(' ')));
        assert_eq!(ok("h\u{a0}:2"), Err(AddrError::Character('\u{a0}')));
        assert_eq!(ok("h：2"), Err(AddrError::Character('：')));
        assert_eq!(ok("h:https"), Ok(("h".into(), 443, "")));
        assert_eq!(ok("h:htpp"), Err(AddrError::Port("htpp".into())));
        assert_eq!(ok("h:"), Err(AddrError::NoPort));
    }

    #[test]
    fn what_does_not_split_is_a_unix_path() {
        assert_eq!(stream(":12948"), tcp("", 12948));
        assert_eq!(stream("127.0.0.1:0"), tcp("127.0.0.1", 0));
        assert_eq!(stream("[::1]:80"), tcp("::1", 80));
        assert_eq!(stream("h:http"), tcp("h", 80));
        assert_eq!(stream("h:htpp"), Err(AddrError::Port("htpp".into())));
        assert_eq!(stream("h:80\r"), Err(AddrError::Port("80\r".into())));
        assert_eq!(stream("127.0.0.1：80"), Err(AddrError::Character('：')));
        assert_eq!(stream("h \u{a0}:80"), Err(AddrError::Character(' ')));
        assert_eq!(stream("h:"), Err(AddrError::Port(String::new())));
        assert_eq!(stream(""), Err(AddrError::Empty));
        for path in [
            "localhost",
            "::1:80",
            "/run/app.sock",
            "@name",
            "[::1]",
            "[a]b:1",
            "a]:1",
        ] {
            assert_eq!(stream(path), Ok(StreamAddr::Unix(path.into())), "{path}");
        }
        let mistaken = |text| stream(text).is_ok_and(|addr| addr.looks_mistaken());
        assert!(mistaken("localhost") && mistaken("::1:80") && mistaken("[::1]"));
        assert!(!mistaken("/run/app") && !mistaken("@name") && !mistaken("app.sock"));
    }

    #[test]
    fn errors_show_no_control_characters() {
        for text in ["h:80\r", "h\u{1b}[2J:80", "a\r:1:2", "[h\n:2", "h:\u{202e}"] {
            for error in [stream(text).err(), PortRange::parse(text).err()] {
                let shown = error.map(|e| e.to_string()).unwrap_or_default();
                assert!(!shown.contains(char::is_control), "{shown:?}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn any_text_is_read_without_panic(text in "[\\PC\n:\\[\\]0-9,-]{0,40}") {
            let _ = stream(&text);
            if let Ok((range, rest)) = PortRange::parse(&text) {
                prop_assert!(range.min >= 1 && range.min <= range.max);
                prop_assert!(text.ends_with(rest));
                // What we print is what we read.
                let printed = range.to_string();
                prop_assert_eq!(PortRange::parse(&printed), Ok((range, "")));
            }
        }
    }

    #[test]
    fn displayed_as_typed() {
        let range = |host: &str, min, max| PortRange {
            host: host.into(),
            min,
            max,
        };
        assert_eq!(range("", 1, 1).to_string(), ":1");
        assert_eq!(range("::1", 1, 3).to_string(), "[::1]:1-3");
        assert_eq!(range("h", 1, 65535).count(), 65535);
        assert_eq!(range("h", 7, 9).ports().collect::<Vec<_>>(), [7, 8, 9]);
    }
}
