//! What `--compat 2016` makes of the options: names, defaults and modes of the kcptun of spring 2016, and what it lacks
//! (docs/spec/kcptun2016.md, section 3).

use fulmar_wire::kcptun2016::Variant;

use super::{Id, Opt, Preset, Side};
use crate::model::Mode;

/// What `--compat` takes, and the variant that each name means.
pub const NAMES: [(&str, Variant); 5] = [
    ("2016", Variant::B),
    ("2016a", Variant::A),
    ("2016b", Variant::B),
    ("2016bt", Variant::Bt),
    ("2016c", Variant::C),
];

/// The variant that `--compat name` means.
#[must_use]
pub fn variant(name: &str) -> Option<Variant> {
    NAMES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, variant)| *variant)
}

/// The default of `opt` at `side`.
///
/// The variants have the same ones but for a server's receive window, 128 in A and 1024 in the others (section 3.1). A server does
/// not know its clients' variant before they speak, and a window that is too large harms nobody.
#[must_use]
pub fn preset(opt: &Opt, side: Side) -> Preset {
    match opt.id {
        Id::Mtu => Preset::Int(1400),
        Id::RcvWnd => Preset::Int(1024),
        // What one read of that program takes at most (section 9).
        Id::FrameSize => Preset::Int(32768),
        _ => opt.preset(side),
    }
}

/// Why option `id` is refused when it asks for something, as the end of a sentence; `None`: it is not.
#[must_use]
pub const fn lacking(id: Id) -> Option<&'static str> {
    Some(match id {
        Id::Crypt => "it has one cipher, AES-256",
        Id::Qpp => "it has no QPP",
        Id::DataShard | Id::ParityShard => "it has no parity",
        Id::SmuxVer => "its multiplexer is yamux, not smux",
        Id::Tcp => "its packets are plain UDP",
        Id::NoDelay | Id::Interval | Id::Resend | Id::Nc => "it has no mode manual",
        _ => return None,
    })
}

/// Why option `id` has no effect, as the end of a sentence; `None`: it has one.
#[must_use]
pub const fn idle(id: Id) -> Option<&'static str> {
    match id {
        Id::NoComp => Some("it has no compression"),
        Id::QppCount | Id::QppCompat => Some("it has no QPP"),
        _ => None,
    }
}

/// A mode and its numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Numbers {
    /// Which.
    pub mode: Mode,
    /// KCP's nodelay.
    pub nodelay: bool,
    /// KCP's flush interval in milliseconds.
    pub interval_ms: u64,
    /// Acknowledgements of later segments that make a segment be sent again; 0: never.
    pub resend: u32,
    /// Whether there is a congestion window (`nc` 0).
    pub congestion_control: bool,
}

static EARLY: [Numbers; 3] = [
    Numbers {
        mode: Mode::Fast,
        nodelay: true,
        interval_ms: 10,
        resend: 2,
        congestion_control: false,
    },
    Numbers {
        mode: Mode::Normal,
        nodelay: false,
        interval_ms: 20,
        resend: 0,
        congestion_control: false,
    },
    Numbers {
        mode: Mode::Default,
        nodelay: false,
        interval_ms: 40,
        resend: 0,
        congestion_control: true,
    },
];
static LATE: [Numbers; 4] = [
    Numbers {
        mode: Mode::Fast,
        nodelay: true,
        interval_ms: 20,
        resend: 2,
        congestion_control: false,
    },
    Numbers {
        mode: Mode::Normal,
        nodelay: false,
        interval_ms: 20,
        resend: 2,
        congestion_control: false,
    },
    Numbers {
        mode: Mode::Default,
        nodelay: false,
        interval_ms: 20,
        resend: 2,
        congestion_control: true,
    },
    Numbers {
        mode: Mode::Fast2,
        nodelay: true,
        interval_ms: 10,
        resend: 2,
        congestion_control: false,
    },
];

/// The modes of `variant`, its default first. Variant A has no option for it and always B's `fast`. C has the early numbers until
/// 14 May and the late ones, with `fast2`, from 17 May on (section 3.2); ends need not agree in them, so it has the late ones here.
#[must_use]
pub fn modes(variant: Variant) -> &'static [Numbers] {
    match variant {
        Variant::A | Variant::B | Variant::Bt => &EARLY,
        Variant::C => &LATE,
    }
}
