//! Time as an argument.
//!
//! Machines never read a clock. Their callers pass [`Instant`]s: microseconds since an epoch that the
//! caller chose (a driver: its start; a simulation: zero). [`Millis`] is the 32-bit millisecond clock that
//! KCP carries on the wire (docs/spec/kcptun.md, section 7.1); it wraps every 49.7 days, so it has no order,
//! only a wrapped difference.

use core::fmt;
use core::ops::{Add, AddAssign, Sub};
use core::time::Duration;

/// A point in time, in microseconds since the caller's epoch.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The caller's epoch.
    pub const ZERO: Self = Self(0);
    /// Later than any instant a caller passes.
    pub const FAR_FUTURE: Self = Self(u64::MAX);

    /// `micros` microseconds after the epoch.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// `millis` milliseconds after the epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1000))
    }

    /// Microseconds since the epoch.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since the epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0 / 1000
    }

    /// The time from `earlier` to `self`, zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// The wire clock at this instant.
    #[must_use]
    pub const fn wire_millis(self) -> Millis {
        // Truncation is the definition of the 32-bit clock.
        #[allow(clippy::cast_possible_truncation)]
        Millis(self.as_millis() as u32)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, d: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(d.as_micros()).unwrap_or(u64::MAX)),
        )
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, d: Duration) {
        *self = *self + d;
    }
}

impl Sub for Instant {
    type Output = Duration;
    /// Same as [`Instant::since`].
    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}s", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// The 32-bit millisecond clock on the wire.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Millis(pub u32);

impl Millis {
    /// The wrapped difference `self - earlier` in milliseconds; negative when `earlier` is later.
    #[must_use]
    pub const fn diff(self, earlier: Self) -> i32 {
        #[allow(clippy::cast_possible_wrap)]
        {
            self.0.wrapping_sub(earlier.0) as i32
        }
    }

    /// `ms` milliseconds later.
    #[must_use]
    pub const fn plus(self, ms: u32) -> Self {
        Self(self.0.wrapping_add(ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_clock_wraps() {
        let before = Instant::from_millis(u64::from(u32::MAX));
        let after = before + Duration::from_millis(3);
        assert_eq!(before.wire_millis(), Millis(u32::MAX));
        assert_eq!(after.wire_millis(), Millis(2));
        assert_eq!(after.wire_millis().diff(before.wire_millis()), 3);
        assert_eq!(before.wire_millis().diff(after.wire_millis()), -3);
    }

    #[test]
    fn instants_saturate() {
        assert_eq!(Instant::ZERO - Instant::from_millis(5), Duration::ZERO);
        assert_eq!(
            Instant::FAR_FUTURE + Duration::from_secs(1),
            Instant::FAR_FUTURE
        );
    }
}
