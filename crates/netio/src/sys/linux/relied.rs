//! Options that a UDP socket is relied on to have, whatever the system's defaults are: set, read back, named.

use std::io;

use socket2::Socket;

use super::options::{int, set_int};
use crate::options::{KernelSetting, OptionError};

/// An option and what it should be: the first of `wanted` that the kernel takes.
struct Relied {
    name: &'static str,
    level: libc::c_int,
    option: libc::c_int,
    wanted: &'static [(libc::c_int, &'static str)],
}

/// IPv4, and IPv4 peers of a dual-stack socket, which obey these alone.
const V4: &[Relied] = &[
    // No DF, on single datagrams and trains alike: routers may cut what was sent larger before a path became narrow. OMIT
    // moreover ignores what ICMP says of path MTUs, which may be forged; with DONT each train that is larger is refused.
    Relied {
        name: "IP_MTU_DISCOVER",
        level: libc::IPPROTO_IP,
        option: libc::IP_MTU_DISCOVER,
        wanted: &[
            (libc::IP_PMTUDISC_OMIT, "OMIT"),
            (libc::IP_PMTUDISC_DONT, "DONT"),
        ],
    },
    // Off, or calls fail because of what ICMP says.
    Relied {
        name: "IP_RECVERR",
        level: libc::IPPROTO_IP,
        option: libc::IP_RECVERR,
        wanted: &[(0, "0")],
    },
];

const V6: &[Relied] = &[
    // Routers never cut IPv6: this host has to, by what ICMP says of path MTUs, which OMIT and PROBE would ignore.
    Relied {
        name: "IPV6_MTU_DISCOVER",
        level: libc::IPPROTO_IPV6,
        option: libc::IPV6_MTU_DISCOVER,
        wanted: &[(libc::IPV6_PMTUDISC_WANT, "WANT")],
    },
    Relied {
        name: "IPV6_DONTFRAG",
        level: libc::IPPROTO_IPV6,
        option: libc::IPV6_DONTFRAG,
        wanted: &[(0, "0")],
    },
    Relied {
        name: "IPV6_RECVERR",
        level: libc::IPPROTO_IPV6,
        option: libc::IPV6_RECVERR,
        wanted: &[(0, "0")],
    },
];

/// Sets all of them on a UDP socket of IPv6 (`v6`) or IPv4. Returns what they are, and appends what the kernel refused.
pub(crate) fn set_relied(
    socket: &Socket,
    v6: bool,
    refused: &mut Vec<OptionError>,
) -> Vec<KernelSetting> {
    let both = V4.iter().chain(if v6 { V6 } else { &[] });
    both.map(|relied| {
        if let Err(source) = relied.set(socket) {
            let what = format!("{} {}", relied.name, relied.wanted[0].1);
            refused.push(OptionError { what, source });
        }
        relied.get(socket)
    })
    .collect()
}

impl Relied {
    fn set(&self, socket: &Socket) -> io::Result<()> {
        let mut result = Ok(());
        for &(value, _) in self.wanted {
            result = set_int(socket, self.level, self.option, value);
            if result.is_ok() {
                break;
            }
        }
        result
    }

    fn get(&self, socket: &Socket) -> KernelSetting {
        let value = match int(socket, self.level, self.option) {
            Ok(value) => self
                .wanted
                .iter()
                .find(|(wanted, _)| *wanted == value)
                .map_or_else(|| value.to_string(), |(_, name)| (*name).to_owned()),
            Err(e) => e.to_string(),
        };
        KernelSetting {
            name: self.name,
            value,
        }
    }
}

/// Switches a socket so that what is sent to an IPv4 or IPv6 peer leaves in one piece or not at all, for as long as
/// `send` takes.
///
/// # Errors
///
/// Those of `send`; or the socket cannot be switched, and nothing was sent.
pub(super) fn in_one_piece<T>(
    socket: &Socket,
    v4: bool,
    send: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let (level, option, probe) = if v4 {
        (
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            libc::IP_PMTUDISC_PROBE,
        )
    } else {
        (
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU_DISCOVER,
            libc::IPV6_PMTUDISC_PROBE,
        )
    };
    let before = int(socket, level, option)?;
    set_int(socket, level, option, probe)?;
    let result = send();
    // The kernel had this value before, so it takes it again.
    let back = set_int(socket, level, option, before);
    debug_assert!(back.is_ok(), "{back:?}");
    result
}
