//! Addresses: `host:port`, Unix sockets, and port ranges (spec/kcptun.md, sections 2.2, 2.3 and 2.6).

use core::fmt;
use std::path::PathBuf;

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

impl fmt::Display for StreamAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => write!(f, "{}:{port}", Bracketed(host)),
            Self::Unix(path) => write!(f, "{}", path.display()),
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
