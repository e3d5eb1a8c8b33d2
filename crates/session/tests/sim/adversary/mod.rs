//! Attackers that speak the formats: one file for each kind of attack, every dialect and cipher.
//!
//! An *outsider* has no key: it sees what passes, sends it again, changed or not, from any address. docs/design/security.md
//! lists what each of them can do, by cipher, and names the test that shows it.

mod reflection;

use fulmar_session::endpoint::Event;
use fulmar_session::session::Reason;
use fulmar_wire::kcptun::Method;
use fulmar_wire::libev;

use crate::harness::Host;
use crate::setup::{Options, Wire};

/// What an outsider can do to the packets of a cipher.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    /// Nothing: packets are authenticated.
    Authenticated,
    /// Packets have a checksum under a cipher, which a change of any bit breaks, and one that is computed with care does not.
    Checked,
    /// Anybody can make packets that open.
    Open,
}

/// The class of what `end` speaks.
pub(crate) fn class(end: &Options) -> Class {
    match (end.wire, end.method) {
        (Wire::Libev(libev::Method::Plain), _) => Class::Open,
        (Wire::Libev(_), _) | (Wire::Kcptun, Method::Aes128Gcm) => Class::Authenticated,
        (Wire::Kcptun, Method::Null | Method::None | Method::Xor) => Class::Open,
        _ => Class::Checked,
    }
}

/// Both ends with each cipher of each dialect. Without parity and compression, so that nothing but the cipher stands in the way.
pub(crate) fn everything(measuring: bool) -> Vec<(Options, Options)> {
    let with = |(client, server): (Options, Options), method| {
        let set = |end: Options| Options {
            method,
            fec: None,
            ..end
        };
        (set(client), set(server))
    };
    let mut all: Vec<_> = Method::ALL
        .into_iter()
        .map(|method| with(Options::ends(measuring), method))
        .collect();
    all.extend(Options::first(measuring));
    let methods = libev::Method::SEALED
        .into_iter()
        .chain([libev::Method::Plain]);
    all.extend(methods.map(|method| Options::libev(method, measuring)));
    all
}

/// Why sessions of this host have ended.
pub(crate) fn ends_of(host: &Host) -> Vec<Reason> {
    let closed = host.events.iter().filter_map(|(_, e)| match e {
        Event::Closed(_, _, reason) => Some(reason.clone()),
        _ => None,
    });
    closed.collect()
}
