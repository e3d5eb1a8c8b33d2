//! kcptun-libev's addresses (docs/spec/kcptun-libev.md, section 3.3).

use std::net::Ipv6Addr;

use crate::libev::model::{HostPort, Port};
use crate::services::Services;
use crate::text::{self, printable, quoted};

/// Longest address, in bytes.
const LONGEST: usize = 260;

/// What is wrong with an address, and what to write instead.
pub(super) struct AddrError {
    pub(super) what: String,
    pub(super) hint: &'static str,
}

/// Reads `text`; with `local` the host may be empty and the port 0.
pub(super) fn parse(
    text: &str,
    local: bool,
    services: Services<'_>,
) -> Result<HostPort, AddrError> {
    const PORT: &str = "write a port from 1 to 65535 behind a colon";
    let fail = |what: String, hint| Err(AddrError { what, hint });
    let shown = printable(text);
    if text.len() > LONGEST {
        return fail(
            format!(
                "\"{shown}\" has {} bytes, and an address at most {LONGEST}",
                text.len()
            ),
            "write \"host:port\"",
        );
    }
    if let Some((_, c)) = text::first_lookalike(text) {
        let (_, meant) = text::lookalike(c).unwrap_or(("", ' '));
        return fail(
            format!("\"{shown}\" has {} in it", text::name(c)),
            if meant == ' ' {
                "remove it"
            } else {
                "write ASCII's own character"
            },
        );
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return fail(
            format!("\"{shown}\" has no port"),
            if local {
                "write \"host:port\", or \":port\" for any address"
            } else {
                "write \"host:port\""
            },
        );
    };
    let host = match host.strip_prefix('[') {
        Some(rest) => {
            // A link-local address has its device behind a percent sign.
            let inner = rest.strip_suffix(']').filter(|inner| {
                let (ip, zone) = match inner.split_once('%') {
                    Some((ip, zone)) => (ip, Some(zone)),
                    None => (*inner, None),
                };
                ip.parse::<Ipv6Addr>().is_ok()
                    && zone.is_none_or(|zone| !zone.is_empty() && is_word(zone))
            });
            match inner {
                Some(inner) => inner,
                None => {
                    return fail(
                        format!("\"{shown}\": there is no IPv6 address in the brackets"),
                        "write \"[::1]:port\"; names and IPv4 addresses go without brackets",
                    );
                }
            }
        }
        None if host.contains(':') => {
            return fail(
                format!("\"{shown}\" has several colons"),
                "write IPv6 addresses in brackets: \"[::1]:port\"",
            );
        }
        None if !is_word(host) => {
            return fail(
                format!("\"{shown}\": the host has characters that no host has"),
                "write a name or an address",
            );
        }
        None => host,
    };
    if host.is_empty() && !local {
        return fail(
            format!("\"{shown}\" has no host"),
            "write the host to connect to before the colon",
        );
    }
    if port.is_empty() {
        return fail(format!("\"{shown}\" has no port"), PORT);
    }
    let port = if port.bytes().all(|b| b.is_ascii_digit()) {
        match port.parse::<u16>() {
            Ok(0) if !local => {
                return fail(
                    format!("\"{shown}\": nothing can be reached at port 0"),
                    PORT,
                );
            }
            Ok(number) => Port::from(number),
            Err(_) => return fail(format!("\"{shown}\": the port is above 65535"), PORT),
        }
    } else {
        match is_word(port).then(|| services(port)).flatten() {
            Some(number) if local || number != 0 => Port {
                number,
                service: Some(port.into()),
            },
            _ => {
                return fail(
                    format!(
                        "\"{shown}\": this machine knows no service {}",
                        quoted(port)
                    ),
                    "write the port as a number",
                );
            }
        }
    };
    Ok(HostPort {
        host: host.into(),
        port,
    })
}

/// Whether all of `text` may be in a name: no spaces, no control characters, no brackets.
fn is_word(text: &str) -> bool {
    !text
        .chars()
        .any(|c| c.is_control() || c.is_whitespace() || matches!(c, '[' | ']' | '"' | '/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn services(name: &str) -> Option<u16> {
        crate::services::find(
            "# x\nhttp 80/tcp www # web\nnone\nbad x/tcp\nhttp 81/udp\nzero 0/tcp",
            name,
        )
    }

    fn local(text: &str) -> Result<String, String> {
        parse(text, true, &services).map_or_else(
            |e| Err(format!("{}; {}", e.what, e.hint)),
            |a| Ok(format!("{} {}", a.host, a.port.number)),
        )
    }

    fn remote(text: &str) -> Result<String, String> {
        parse(text, false, &services).map_or_else(
            |e| Err(format!("{}; {}", e.what, e.hint)),
            |a| Ok(format!("{} {}", a.host, a.port.number)),
        )
    }

    #[test]
    fn what_is_accepted() {
        for (text, address) in [
            ("example.com:1", "example.com 1"),
            ("127.0.0.1:65535", "127.0.0.1 65535"),
            ("[::1]:80", "::1 80"),
            ("[fe80::1%eth0]:80", "fe80::1%eth0 80"),
            ("h:http", "h 80"),
            ("h:www", "h 80"),
            ("h:0080", "h 80"),
        ] {
            assert_eq!(local(text).as_deref(), Ok(address), "{text}");
            assert_eq!(remote(text).as_deref(), Ok(address), "{text}");
            let parsed = parse(text, true, &services).ok().expect("address");
            if !text.contains("00") {
                assert_eq!(parsed.to_string(), text);
            }
        }
        assert_eq!(local(":1").as_deref(), Ok(" 1"));
        assert_eq!(local("[::]:0").as_deref(), Ok(":: 0"));
        let any = parse(":http", true, &services).ok().expect("address");
        assert_eq!(
            (any.host_or_any(), any.to_string().as_str()),
            ("0.0.0.0", ":http")
        );
        let long = format!("{}:80", "a".repeat(257));
        assert!(remote(&long).is_ok());
    }

    #[test]
    fn what_is_refused() {
        for (text, error) in [
            ("", "\"\" has no port; write \"host:port\""),
            ("host", "\"host\" has no port; write \"host:port\""),
            (
                "h:",
                "\"h:\" has no port; write a port from 1 to 65535 behind a colon",
            ),
            (
                ":80",
                "\":80\" has no host; write the host to connect to before the colon",
            ),
            (
                "h:0",
                "\"h:0\": nothing can be reached at port 0; write a port from 1 to 65535 behind a colon",
            ),
            (
                "h:65536",
                "\"h:65536\": the port is above 65535; write a port from 1 to 65535 behind a colon",
            ),
            (
                "h:-1",
                "\"h:-1\": this machine knows no service \"-1\"; write the port as a number",
            ),
            (
                "h:htpp",
                "\"h:htpp\": this machine knows no service \"htpp\"; write the port as a number",
            ),
            (
                "h:zero",
                "\"h:zero\": this machine knows no service \"zero\"; write the port as a number",
            ),
            (
                "h:none",
                "\"h:none\": this machine knows no service \"none\"; write the port as a number",
            ),
            (
                "::1:80",
                "\"::1:80\" has several colons; write IPv6 addresses in brackets: \"[::1]:port\"",
            ),
            (
                "[h]:80",
                "\"[h]:80\": there is no IPv6 address in the brackets; write \"[::1]:port\"; names and IPv4 addresses go without brackets",
            ),
            (
                "[::1%]:80",
                "\"[::1%]:80\": there is no IPv6 address in the brackets; write \"[::1]:port\"; names and IPv4 addresses go without brackets",
            ),
            (
                "[::1]",
                "\"[::1]\": there is no IPv6 address in the brackets; write \"[::1]:port\"; names and IPv4 addresses go without brackets",
            ),
            (
                "a b:80",
                "\"a b:80\": the host has characters that no host has; write a name or an address",
            ),
        ] {
            assert_eq!(remote(text).expect_err(text), error, "{text}");
        }
        assert_eq!(
            local("80").expect_err("no port"),
            "\"80\" has no port; write \"host:port\", or \":port\" for any address"
        );
        let long = format!("{}:80", "a".repeat(258));
        assert!(
            remote(&long)
                .expect_err("long")
                .contains("has 261 bytes, and an address at most 260")
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn any_text_is_judged(text in "\\PC{0,12}|[\\[\\]:%a0.]{0,12}", local: bool) {
            if let Ok(address) = parse(&text, local, &services) {
                prop_assert!(local || (!address.host.is_empty() && address.port.number > 0));
                let again = parse(&address.to_string(), local, &services);
                prop_assert_eq!(again.ok(), Some(address));
            }
        }
    }
}
