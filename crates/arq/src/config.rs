//! What one conversation is built from: profile, windows, sizes and the constants of its dialect
//! (docs/spec/kcptun.md, sections 3.3, 3.5, 5.2 and 7.2).

use fulmar_wire::kcp::{Format, HEADER_LEN};
use fulmar_wire::kcptun::MIN_KCP_MTU;

use crate::control::StrategyKind;

/// Largest window, in segments: what the 16-bit field on the wire can say.
pub const MAX_WINDOW: u32 = 65_535;
/// The window of a conversation that was not told another (section 7.2), in segments.
pub const DEFAULT_WINDOW: u32 = 32;
/// The `kcp_mtu` of a conversation that was not told another (section 7.2), in bytes.
pub const DEFAULT_MTU: usize = 1400;

/// How eagerly a conversation sends: the four numbers behind `--mode` (section 3.3).
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Profile {
    /// 0: retransmission timeouts start at 100 ms and grow by a whole timeout each time.
    /// Anything else: they start at 30 ms and grow by half of one.
    pub nodelay: u32,
    /// Longest time that acknowledgements and unsent data wait for company, in milliseconds; taken as 10..=5000.
    pub interval_ms: u32,
    /// Acknowledgements of later segments after which one counts as lost; 0 = never, more than 255 acts as 255.
    pub resend: u32,
    /// Whether a congestion window limits the sender (`nc` = 0). Every named profile has it off.
    pub congestion_control: bool,
}

impl Profile {
    /// `--mode normal`.
    pub const NORMAL: Self = Self::new(0, 40, 2, false);
    /// `--mode fast`, the default.
    pub const FAST: Self = Self::new(0, 30, 2, false);
    /// `--mode fast2`.
    pub const FAST2: Self = Self::new(1, 20, 2, false);
    /// `--mode fast3`.
    pub const FAST3: Self = Self::new(1, 10, 2, false);
    /// `--mode manual` with none of its four numbers given.
    pub const MANUAL: Self = Self::new(0, 50, 0, true);

    /// A profile from its four numbers.
    #[must_use]
    pub const fn new(
        nodelay: u32,
        interval_ms: u32,
        resend: u32,
        congestion_control: bool,
    ) -> Self {
        Self {
            nodelay,
            interval_ms,
            resend,
            congestion_control,
        }
    }

    /// The profile of that exact name. `manual` is none: it names no numbers of its own, nor does any
    /// string that is not in the table.
    #[must_use]
    pub fn from_mode(mode: &str) -> Option<Self> {
        match mode {
            "normal" => Some(Self::NORMAL),
            "fast" => Some(Self::FAST),
            "fast2" => Some(Self::FAST2),
            "fast3" => Some(Self::FAST3),
            _ => None,
        }
    }
}

impl Default for Profile {
    fn default() -> Self {
        Self::FAST
    }
}

/// The constants in which KCP dialects differ (section 7.2). Times are milliseconds.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Rules {
    /// Byte order of the segment headers.
    pub format: Format,
    /// Retransmission timeout before the first round trip has been measured.
    pub initial_rto_ms: u32,
    /// Smallest computed timeout with `nodelay` 0.
    pub min_rto_ms: u32,
    /// Smallest computed timeout with any other `nodelay`.
    pub min_rto_nodelay_ms: u32,
    /// Largest computed timeout. What one segment waits can grow beyond it.
    pub max_rto_ms: u32,
    /// The window of the other side until it tells, in segments.
    pub initial_remote_window: u32,
    /// First wait before a closed window is asked about.
    pub first_probe_ms: u32,
    /// Longest wait between two such questions.
    pub max_probe_ms: u32,
}

impl Rules {
    /// kcp-go 5.6.64, which kcptun runs on.
    pub const KCPTUN: Self = Self {
        format: Format::LittleEndian,
        initial_rto_ms: 200,
        min_rto_ms: 100,
        min_rto_nodelay_ms: 30,
        max_rto_ms: 60_000,
        initial_remote_window: 32,
        first_probe_ms: 500,
        max_probe_ms: 120_000,
    };

    /// kcptun-libev (docs/spec/kcptun-libev.md, section 7.2); but a closed window is asked about as early as elsewhere, which
    /// costs nothing.
    pub const LIBEV: Self = Self {
        format: Format::BigEndian,
        max_rto_ms: 4000,
        initial_remote_window: 128,
        ..Self::KCPTUN
    };
}

impl Default for Rules {
    fn default() -> Self {
        Self::KCPTUN
    }
}

/// What a conversation is built from. Every value is taken: out of range ones act as the nearest in range
/// (or as the default where upstream ignores them), so construction cannot fail.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Largest datagram this machine emits, in bytes: the `kcp_mtu` of docs/spec/kcptun.md, section 5.2. At least 50 and at most 65,535;
    /// smaller acts as [`DEFAULT_MTU`], as upstream. Too large and the path or the peer drops datagrams.
    pub mtu: usize,
    /// What decides about sending.
    pub strategy: StrategyKind,
    /// How eagerly to send, for [`StrategyKind::Classic`].
    pub profile: Profile,
    /// Whether a strategy may send copies of segments, to arrive when they do not.
    pub copies: bool,
    /// Bytes that a segment costs on the path besides its payload: its header and those of all layers below. For
    /// strategies that measure and pace; what is not exact there shifts rates by as much.
    pub overhead: usize,
    /// Most segments in flight or queued before [`crate::Kcp::has_room`] says no; 1..=[`MAX_WINDOW`], 0 acts as 32.
    /// Costs up to `mtu` bytes each. Too small caps throughput at `snd_wnd * mtu / RTT`; too large only adds delay.
    pub snd_wnd: u32,
    /// Most segments kept for a slow reader, and again as many out of order; 1..=[`MAX_WINDOW`], 0 acts as 32.
    /// Costs up to `2 * max_payload` bytes each.
    pub rcv_wnd: u32,
    /// Send acknowledgements at once (`--acknodelay`) instead of after at most `interval_ms`.
    pub ack_no_delay: bool,
    /// Message mode (docs/spec/kcptun2016.md, section 6): what is sent up to [`crate::Kcp::end_message`] is cut into so many fragments at most,
    /// no more than the receive window of the other end. 0: stream mode, in which every segment stands for itself. Received fragments
    /// are understood in both.
    pub max_fragments: u8,
    /// Let data wait for the next timer, at most `interval_ms`, instead of asking for a flush after each write.
    pub write_delay: bool,
    /// Measure round trips as upstream does, by whatever is acknowledged: also by what had been acknowledged before, and by
    /// what parity rebuilt, with the time of the transmission that got lost. On lossy paths with parity that inflates
    /// the timeouts of both ends to seconds. Off, what parity brings twice is not acknowledged, what it brings first is acknowledged
    /// with the latest time that has arrived, and only news counts as a measurement.
    pub measure_repairs: bool,
    /// Largest payload of one received segment, in bytes; the default fits every kcptun peer, whose datagrams end at
    /// 1500. A larger one is an error and is not acknowledged.
    pub max_payload: usize,
    /// What the clock on the wire says at the caller's epoch, in milliseconds. Peers echo it and look at differences only. Drawn at random, an
    /// echo shows that what it answers has arrived where it was sent to.
    pub clock: u32,
    /// The dialect's constants.
    pub rules: Rules,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mtu: DEFAULT_MTU,
            strategy: StrategyKind::default(),
            profile: Profile::default(),
            copies: true,
            // KCP's header, 20 bytes of nonce and checksum, UDP and IPv4.
            overhead: HEADER_LEN + 20 + 28,
            snd_wnd: DEFAULT_WINDOW,
            rcv_wnd: DEFAULT_WINDOW,
            ack_no_delay: false,
            max_fragments: 0,
            write_delay: false,
            measure_repairs: true,
            max_payload: 1500 - HEADER_LEN,
            clock: 0,
            rules: Rules::default(),
        }
    }
}

impl Config {
    /// The same with every value in range; what the machine works with.
    #[must_use]
    pub fn normalized(mut self) -> Self {
        if self.mtu < MIN_KCP_MTU {
            self.mtu = DEFAULT_MTU;
        }
        self.mtu = self.mtu.min(usize::from(u16::MAX));
        self.snd_wnd = window(self.snd_wnd);
        self.rcv_wnd = window(self.rcv_wnd);
        let most = u8::try_from(self.snd_wnd).unwrap_or(u8::MAX);
        self.max_fragments = self.max_fragments.min(most);
        self.max_payload = self.max_payload.clamp(1, usize::from(u16::MAX));
        self.profile.interval_ms = self.profile.interval_ms.clamp(10, 5000);
        self.profile.resend = self.profile.resend.min(255);
        self
    }

    /// Largest payload of one segment this machine sends, in bytes.
    #[must_use]
    pub fn mss(&self) -> usize {
        self.normalized().mtu - HEADER_LEN
    }
}

pub(crate) fn window(segments: u32) -> u32 {
    if segments == 0 {
        DEFAULT_WINDOW
    } else {
        segments.min(MAX_WINDOW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_of_the_table() {
        let rows = [
            ("normal", (0, 40, 2, false)),
            ("fast", (0, 30, 2, false)),
            ("fast2", (1, 20, 2, false)),
            ("fast3", (1, 10, 2, false)),
        ];
        for (mode, (nodelay, interval, resend, cc)) in rows {
            assert_eq!(
                Profile::from_mode(mode),
                Some(Profile::new(nodelay, interval, resend, cc))
            );
        }
        for other in ["manual", "default", "Fast", ""] {
            assert_eq!(Profile::from_mode(other), None);
        }
        assert_eq!(Profile::MANUAL, Profile::new(0, 50, 0, true));
    }

    #[test]
    fn out_of_range_values_act_as_the_nearest() {
        let c = Config {
            mtu: 49,
            snd_wnd: 0,
            rcv_wnd: 65_536,
            profile: Profile::new(0, 1, 1000, false),
            ..Config::default()
        }
        .normalized();
        assert_eq!((c.mtu, c.mss()), (1400, 1376));
        assert_eq!((c.snd_wnd, c.rcv_wnd), (32, 65_535));
        assert_eq!((c.profile.interval_ms, c.profile.resend), (10, 255));
        assert_eq!(c.normalized(), c);
    }
}
