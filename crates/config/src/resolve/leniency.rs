//! Numbers that kcptun takes although they mean nothing as they stand: what it makes of them, with a warning (docs/spec/kcptun.md,
//! section 3.5). A tunnel that starts there has to start here.

use core::time::Duration;

use super::{LARGEST_WINDOW, Resolver};
use crate::options::{self, Id, Kind, TABLE};
use crate::text::count;
use crate::values::wanted;

/// The window that KCP begins with, in segments: what is not positive leaves it.
const FIRST_WINDOW: i64 = 32;
/// The interval that KCP begins with, in milliseconds: a negative one leaves it.
const FIRST_INTERVAL_MS: i64 = 100;
/// The default of socket buffers, in bytes.
const USUAL_BUFFER: i64 = 4_194_304;
/// The bits of a DSCP value.
const DSCP_BITS: i64 = 63;

/// What an odd number comes to.
struct Meaning {
    /// The number that counts.
    counts: i64,
    /// What the odd one does, as the end of a sentence that begins with it.
    does: String,
    /// What to write instead.
    hint: String,
}

impl Meaning {
    fn new(counts: i64, does: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            counts,
            does: does.into(),
            hint: hint.into(),
        }
    }
}

impl Resolver<'_> {
    /// The number; out of its range, what `meaning` makes of it, with a warning. Where `meaning` makes nothing of it, it is an
    /// error.
    fn lenient<T: TryFrom<i64> + Default>(
        &mut self,
        id: Id,
        meaning: impl FnOnce(i64) -> Option<Meaning>,
    ) -> T {
        if self.in_range(id) {
            return self.int(id);
        }
        let n = self.number(id);
        match meaning(n) {
            Some(Meaning { counts, does, hint }) => {
                self.mistake(id, format!("{n} {does}"), hint);
                T::try_from(counts).unwrap_or_default()
            }
            None => self.int(id),
        }
    }

    /// A time in seconds; negative ones mean `negative`, which counts as 0.
    fn time(&mut self, id: Id, negative: &str) -> Duration {
        Duration::from_secs(self.lenient(id, |n| {
            Some(if n < 0 {
                Meaning::new(0, format!("means {negative}"), "write 0 for that")
            } else {
                longest(id)
            })
        }))
    }

    pub(super) fn autoexpire(&mut self) -> Duration {
        self.time(Id::AutoExpire, "never, as in kcptun")
    }

    pub(super) fn close_wait(&mut self) -> Duration {
        self.time(Id::CloseWait, "0, as in kcptun")
    }

    /// `None`: an expired session lives as long as its streams do, which -1 meant in kcptun's manual.
    pub(super) fn scavenge_ttl(&mut self) -> Option<Duration> {
        let n = self.number(Id::ScavengeTtl);
        if n < 0 {
            self.mistake(
                Id::ScavengeTtl,
                format!("{n} means no limit, as in kcptun's manual"),
                "write 316224000 for ten years",
            );
            return None;
        }
        let seconds = self.lenient(Id::ScavengeTtl, |_| Some(longest(Id::ScavengeTtl)));
        Some(Duration::from_secs(seconds))
    }

    /// Without a file for counters it does not matter; with one, kcptun crashes on a negative one.
    pub(super) fn snmp_period(&mut self) -> Duration {
        let log = !self.text(Id::SnmpLog).is_empty();
        Duration::from_secs(self.lenient(Id::SnmpPeriod, |n| match (n < 0, log) {
            (true, true) => None,
            (true, false) => Some(Meaning::new(
                0,
                "has no effect without snmplog",
                "remove it",
            )),
            (false, _) => Some(longest(Id::SnmpPeriod)),
        }))
    }

    pub(super) fn dscp(&mut self) -> u8 {
        self.lenient(Id::Dscp, |n| {
            let sent = n & DSCP_BITS;
            Some(Meaning::new(
                sent,
                format!("has more than the six bits of the field: {sent} is sent, as by kcptun"),
                format!("write {sent}"),
            ))
        })
    }

    pub(super) fn sock_buf(&mut self) -> usize {
        self.lenient(Id::SockBuf, |n| {
            let hint = "write 4194304, or what the system allows";
            Some(if n == 0 {
                Meaning::new(
                    1,
                    "means the smallest buffer of the system, as in kcptun",
                    hint,
                )
            } else {
                // There it is as much as net.core.rmem_max allows; here it must not be more than that.
                Meaning::new(
                    USUAL_BUFFER,
                    format!("counts as {USUAL_BUFFER}, the default"),
                    hint,
                )
            })
        })
    }

    pub(super) fn rate_limit(&mut self) -> Option<u64> {
        let rate: u64 = self.lenient(Id::RateLimit, |n| {
            Some(if n < 0 {
                Meaning::new(0, "means no limit, as in kcptun", "write 0 for that")
            } else {
                let rest = n & i64::from(u32::MAX);
                let does = match rest {
                    0 => "means no limit".into(),
                    rest => format!("counts as {}", count(rest.unsigned_abs(), "byte")),
                };
                Meaning::new(
                    rest,
                    format!("{does}, as in kcptun: only 32 bits of it count"),
                    wanted(options::get(Id::RateLimit)),
                )
            })
        });
        Some(rate).filter(|rate| *rate > 0)
    }

    pub(super) fn window(&mut self, id: Id) -> u32 {
        self.lenient(id, |n| {
            Some(if n <= 0 {
                Meaning::new(
                    FIRST_WINDOW,
                    format!("counts as {FIRST_WINDOW}, as in kcptun"),
                    wanted(options::get(id)),
                )
            } else {
                Meaning::new(
                    LARGEST_WINDOW.into(),
                    format!("counts as {LARGEST_WINDOW}: the packet format cannot say more"),
                    wanted(options::get(id)),
                )
            })
        })
    }

    /// One of mode manual's numbers. Negative ones leave what KCP begins with.
    pub(super) fn manual_number(&mut self, id: Id) -> u64 {
        self.lenient(id, |n| {
            let first = match id {
                Id::Interval => FIRST_INTERVAL_MS,
                _ => 0,
            };
            let counts = if n < 0 { first } else { i32::MAX.into() };
            Some(Meaning::new(
                counts,
                format!("counts as {counts}, as in kcptun"),
                wanted(options::get(id)),
            ))
        })
    }
}

/// A time above the longest.
fn longest(id: Id) -> Meaning {
    let Kind::Int { max, .. } = TABLE[id as usize].kind else {
        return Meaning::new(0, "means nothing", "remove it");
    };
    Meaning::new(
        max,
        format!("counts as {max}, which is ten years"),
        wanted(options::get(id)),
    )
}
