//! Names of services as ports.

use std::sync::OnceLock;

/// Looks up the number of a service by name.
pub(crate) type Services<'a> = &'a dyn Fn(&str) -> Option<u16>;

/// Services that programs in Go know without a file, with those that a tunnel is likely to lead to.
const BUILT_IN: &str = "ftp 21/tcp\nssh 22/tcp\ntelnet 23/tcp\nsmtp 25/tcp\ndomain 53/tcp\nhttp 80/tcp\npop3 110/tcp\n\
    imap2 143/tcp imap\nimap3 220/tcp\nhttps 443/tcp\nsubmissions 465/tcp\nftps 990/tcp\nimaps 993/tcp\npop3s 995/tcp\n\
    socks 1080/tcp";

/// The services that this machine knows, read once, and behind them those that every machine has.
pub(crate) fn system(name: &str) -> Option<u16> {
    static TABLE: OnceLock<String> = OnceLock::new();
    #[cfg(not(windows))]
    const FILE: &str = "/etc/services";
    #[cfg(windows)]
    const FILE: &str = r"C:\Windows\System32\drivers\etc\services";
    let table = TABLE.get_or_init(|| {
        std::fs::read(FILE).map_or(String::new(), |bytes| {
            String::from_utf8_lossy(&bytes).into_owned()
        })
    });
    find(table, name).or_else(|| find(BUILT_IN, name))
}

/// The port of the first service in `table` that is called `name`, whatever its protocol: they hardly ever differ.
pub(crate) fn find(table: &str, name: &str) -> Option<u16> {
    table.lines().find_map(|line| {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        let first = words.next()?;
        let number = words.next()?.split('/').next()?.parse().ok()?;
        (first == name || words.any(|alias| alias == name)).then_some(number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_a_file() {
        for (name, port) in [
            ("https", Some(443)),
            ("imap", Some(143)),
            ("domain", Some(53)),
            ("htpp", None),
            ("", None),
        ] {
            assert_eq!(find(BUILT_IN, name), port, "{name}");
            assert_eq!(system(name), port, "{name}");
        }
    }
}
