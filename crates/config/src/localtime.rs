//! The local time of this machine, broken down: the one clock of this crate, for log lines and file names only.

use std::sync::OnceLock;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::gotime::LocalTime;

/// Now, in the zone of `TZ` or of the system as it was at the first call; UTC when neither is known.
#[must_use]
pub fn now() -> LocalTime {
    static ZONE: OnceLock<TimeZone> = OnceLock::new();
    at(Timestamp::now(), ZONE.get_or_init(zone))
}

fn zone() -> TimeZone {
    // The system's file says all that is needed. Jiff asks for its name, and to find that it reads and keeps the names of
    // all zones of the world.
    let file = match std::env::var_os("TZ") {
        None => std::fs::read("/etc/localtime").ok(),
        Some(_) => None,
    };
    file.and_then(|data| TimeZone::tzif("local", &data).ok())
        .or_else(|| TimeZone::try_system().ok())
        .unwrap_or(TimeZone::UTC)
}

fn at(timestamp: Timestamp, zone: &TimeZone) -> LocalTime {
    let info = zone.to_offset_info(timestamp);
    let t = info.offset().to_datetime(timestamp);
    // Jiff's values are within their ranges; none of these conversions can fail.
    let small = |n: i8| u8::try_from(n).unwrap_or_default();
    LocalTime {
        year: t.year().into(),
        month: small(t.month()),
        day: small(t.day()),
        hour: small(t.hour()),
        minute: small(t.minute()),
        second: small(t.second()),
        nanosecond: u32::try_from(t.subsec_nanosecond()).unwrap_or_default(),
        weekday: small(t.weekday().to_sunday_zero_offset()),
        yearday: u16::try_from(t.day_of_year()).unwrap_or_default(),
        offset: info.offset().seconds(),
        zone: info.abbreviation().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gotime::format;

    #[test]
    fn broken_down_in_a_zone_with_summer_time() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("zone");
        let shown = |seconds| {
            let t = at(Timestamp::from_second(seconds).expect("time"), &zone);
            format("Mon 2006-01-02 15:04:05 MST -07:00 __2", &t)
        };
        assert_eq!(
            shown(1_767_604_023),
            "Mon 2026-01-05 10:07:03 CET +01:00   5"
        );
        assert_eq!(
            shown(1_782_898_200),
            "Wed 2026-07-01 11:30:00 CEST +02:00 182"
        );
    }

    #[test]
    fn now_is_a_moment() {
        let t = now();
        assert!(t.year >= 2024 && (1..=12).contains(&t.month) && (1..=366).contains(&t.yearday));
        assert!(t.hour < 24 && t.minute < 60 && t.second < 60 && t.weekday < 7);
    }
}
