//! Go time layouts, as kcptun's `--snmplog` takes them (docs/spec/kcptun.md, section 14.1).
//!
//! A layout is the moment "Mon Jan 2 15:04:05 MST 2006" written in the wished form; whatever is not an
//! element of that moment is copied. This module computes; what time it is, its caller says.

use core::fmt::Write;

/// A moment in local time, broken down.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalTime {
    /// Year, for instance 2026.
    pub year: i32,
    /// Month, 1 to 12.
    pub month: u8,
    /// Day of the month, 1 to 31.
    pub day: u8,
    /// Hour, 0 to 23.
    pub hour: u8,
    /// Minute, 0 to 59.
    pub minute: u8,
    /// Second, 0 to 59.
    pub second: u8,
    /// Nanosecond, 0 to 999 999 999.
    pub nanosecond: u32,
    /// Day of the week, 0 (Sunday) to 6.
    pub weekday: u8,
    /// Day of the year, 1 to 366.
    pub yearday: u16,
    /// Seconds east of UTC.
    pub offset: i32,
    /// Abbreviation of the zone, for instance `CET`; may be empty.
    pub zone: String,
}

/// The file that `--snmplog path` means at the moment `t`: the last element of `path` is a layout, the rest is literal.
#[must_use]
pub fn file_name(path: &str, t: &LocalTime) -> String {
    let separators: &[char] = if cfg!(windows) {
        &['/', '\\', ':']
    } else {
        &['/']
    };
    let base = path.rfind(separators).map_or(0, |at| at + 1);
    format!("{}{}", &path[..base], format(&path[base..], t))
}

/// The moment `t` written in `layout`.
#[must_use]
pub fn format(layout: &str, t: &LocalTime) -> String {
    let mut out = String::with_capacity(layout.len() + 8);
    let mut rest = layout;
    while let Some(c) = rest.chars().next() {
        if let Some((element, len)) = element(rest) {
            element.write(&mut out, t);
            rest = &rest[len..];
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    out
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

#[derive(Copy, Clone)]
enum Element {
    LongYear,
    ShortYear,
    LongMonth,
    ShortMonth,
    LongWeekday,
    ShortWeekday,
    Month(Pad),
    Day(Pad),
    YearDay(Pad),
    Hour24,
    Hour12(Pad),
    Minute(Pad),
    Second(Pad),
    UpperPm,
    LowerPm,
    ZoneName,
    Offset {
        parts: u8,
        colons: bool,
        z: bool,
    },
    Fraction {
        separator: char,
        digits: usize,
        trim: bool,
    },
}

#[derive(Copy, Clone)]
enum Pad {
    None,
    Zero,
    Blank,
}

/// Elements that are recognised by their text alone, longer ones before their prefixes.
const FIXED: [(&str, Element); 30] = [
    ("January", Element::LongMonth),
    ("Monday", Element::LongWeekday),
    ("MST", Element::ZoneName),
    ("2006", Element::LongYear),
    ("002", Element::YearDay(Pad::Zero)),
    ("__2", Element::YearDay(Pad::Blank)),
    ("01", Element::Month(Pad::Zero)),
    ("02", Element::Day(Pad::Zero)),
    ("03", Element::Hour12(Pad::Zero)),
    ("04", Element::Minute(Pad::Zero)),
    ("05", Element::Second(Pad::Zero)),
    ("06", Element::ShortYear),
    ("15", Element::Hour24),
    ("PM", Element::UpperPm),
    ("pm", Element::LowerPm),
    ("1", Element::Month(Pad::None)),
    ("2", Element::Day(Pad::None)),
    ("3", Element::Hour12(Pad::None)),
    ("4", Element::Minute(Pad::None)),
    ("5", Element::Second(Pad::None)),
    (
        "-070000",
        Element::Offset {
            parts: 3,
            colons: false,
            z: false,
        },
    ),
    (
        "-07:00:00",
        Element::Offset {
            parts: 3,
            colons: true,
            z: false,
        },
    ),
    (
        "-0700",
        Element::Offset {
            parts: 2,
            colons: false,
            z: false,
        },
    ),
    (
        "-07:00",
        Element::Offset {
            parts: 2,
            colons: true,
            z: false,
        },
    ),
    (
        "-07",
        Element::Offset {
            parts: 1,
            colons: false,
            z: false,
        },
    ),
    (
        "Z070000",
        Element::Offset {
            parts: 3,
            colons: false,
            z: true,
        },
    ),
    (
        "Z07:00:00",
        Element::Offset {
            parts: 3,
            colons: true,
            z: true,
        },
    ),
    (
        "Z0700",
        Element::Offset {
            parts: 2,
            colons: false,
            z: true,
        },
    ),
    (
        "Z07:00",
        Element::Offset {
            parts: 2,
            colons: true,
            z: true,
        },
    ),
    (
        "Z07",
        Element::Offset {
            parts: 1,
            colons: false,
            z: true,
        },
    ),
];

/// The element that `text` starts with, and its length.
fn element(text: &str) -> Option<(Element, usize)> {
    if let Some((name, element)) = FIXED.iter().find(|(name, _)| text.starts_with(name)) {
        return Some((*element, name.len()));
    }
    // "Jan" and "Mon" are no elements at the start of another word.
    let word = |name: &str| {
        text.strip_prefix(name)
            .is_some_and(|after| !after.starts_with(|c: char| c.is_ascii_lowercase()))
    };
    if word("Jan") {
        return Some((Element::ShortMonth, 3));
    }
    if word("Mon") {
        return Some((Element::ShortWeekday, 3));
    }
    // "_2006" is an underscore and the year.
    if text.starts_with("_2") && !text.starts_with("_2006") {
        return Some((Element::Day(Pad::Blank), 2));
    }
    fraction(text)
}

/// A point or comma and a run of one of the digits 0 and 9 that no other digit follows.
fn fraction(text: &str) -> Option<(Element, usize)> {
    let separator = text.chars().next().filter(|c| matches!(c, '.' | ','))?;
    let after = &text[1..];
    let digit = after.chars().next().filter(|c| matches!(c, '0' | '9'))?;
    let end = after.trim_start_matches(digit);
    if end.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let digits = after.len() - end.len();
    let trim = digit == '9';
    Some((
        Element::Fraction {
            separator,
            digits,
            trim,
        },
        1 + digits,
    ))
}

impl Element {
    fn write(self, out: &mut String, t: &LocalTime) {
        let name = |names: &[&'static str], index: u8| {
            names.get(usize::from(index)).copied().unwrap_or("?")
        };
        let month = name(&MONTHS, t.month.wrapping_sub(1));
        let weekday = name(&DAYS, t.weekday);
        let hour12 = match t.hour % 12 {
            0 => 12,
            hour => hour,
        };
        // Writing to a string cannot fail.
        let _ = match self {
            Self::LongYear => write!(out, "{:04}", t.year),
            Self::ShortYear => write!(out, "{:02}", t.year.rem_euclid(100)),
            Self::LongMonth => out.write_str(month),
            Self::ShortMonth => out.write_str(month.get(..3).unwrap_or(month)),
            Self::LongWeekday => out.write_str(weekday),
            Self::ShortWeekday => out.write_str(weekday.get(..3).unwrap_or(weekday)),
            Self::Month(pad) => pad.write(out, t.month.into(), 2),
            Self::Day(pad) => pad.write(out, t.day.into(), 2),
            Self::YearDay(pad) => pad.write(out, t.yearday, 3),
            Self::Hour24 => Pad::Zero.write(out, t.hour.into(), 2),
            Self::Hour12(pad) => pad.write(out, hour12.into(), 2),
            Self::Minute(pad) => pad.write(out, t.minute.into(), 2),
            Self::Second(pad) => pad.write(out, t.second.into(), 2),
            Self::UpperPm => out.write_str(if t.hour < 12 { "AM" } else { "PM" }),
            Self::LowerPm => out.write_str(if t.hour < 12 { "am" } else { "pm" }),
            Self::ZoneName if !t.zone.is_empty() => out.write_str(&t.zone),
            Self::ZoneName => offset(out, t.offset, 2, false),
            Self::Offset { z: true, .. } if t.offset == 0 => out.write_str("Z"),
            Self::Offset { parts, colons, .. } => offset(out, t.offset, parts, colons),
            Self::Fraction {
                separator,
                digits,
                trim,
            } => {
                let all = format!("{:09}", t.nanosecond);
                let mut digits = all.get(..digits.min(9)).unwrap_or(&all);
                if trim {
                    digits = digits.trim_end_matches('0');
                }
                if digits.is_empty() {
                    Ok(())
                } else {
                    write!(out, "{separator}{digits}")
                }
            }
        };
    }
}

impl Pad {
    fn write(self, out: &mut String, value: u16, width: usize) -> core::fmt::Result {
        match self {
            Self::None => write!(out, "{value}"),
            Self::Zero => write!(out, "{value:0width$}"),
            Self::Blank => write!(out, "{value:width$}"),
        }
    }
}

fn offset(out: &mut String, seconds: i32, parts: u8, colons: bool) -> core::fmt::Result {
    // The sign is that of the whole minutes.
    let sign = if seconds / 60 < 0 { '-' } else { '+' };
    let seconds = seconds.unsigned_abs();
    let colon = if colons { ":" } else { "" };
    write!(out, "{sign}{:02}", seconds / 3600)?;
    if parts > 1 {
        write!(out, "{colon}{:02}", seconds / 60 % 60)?;
    }
    if parts > 2 {
        write!(out, "{colon}{:02}", seconds % 60)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_testkit::vectors;
    use proptest::prelude::*;

    /// Reads the time stamps of the vectors; their weekdays are known by rule (Zeller).
    fn moment(rfc3339: &str, zone: &str) -> LocalTime {
        let number = |at: usize, len: usize| rfc3339[at..at + len].parse::<i32>().expect("number");
        let (year, month, day) = (number(0, 4), number(5, 2), number(8, 2));
        let rest = &rfc3339[19..];
        let (fraction, rest) = match rest.strip_prefix('.') {
            Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).expect("zone")),
            None => ("0", rest),
        };
        let offset = match rest {
            "Z" => 0,
            _ => {
                let minutes: i32 = rest[1..3].parse::<i32>().expect("h") * 60
                    + rest[4..6].parse::<i32>().expect("m");
                minutes * if rest.starts_with('-') { -60 } else { 60 }
            }
        };
        let lengths = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let (m, y) = if month < 3 {
            (month + 12, year - 1)
        } else {
            (month, year)
        };
        let zeller = (day + 13 * (m + 1) / 5 + y + y / 4 - y / 100 + y / 400) % 7;
        LocalTime {
            year,
            month: month as u8,
            day: day as u8,
            hour: number(11, 2) as u8,
            minute: number(14, 2) as u8,
            second: number(17, 2) as u8,
            nanosecond: format!("{fraction:0<9}").parse().expect("ns"),
            weekday: ((zeller + 6) % 7) as u8,
            yearday: (lengths[..month as usize - 1].iter().sum::<i32>() + day) as u16,
            offset,
            zone: zone.into(),
        }
    }

    #[test]
    fn file_name_vectors() {
        let file = vectors::load("kcptun/snmplog_timeformat.json");
        let cases = file["cases"].as_array().expect("cases");
        assert!(cases.len() > 30);
        for case in cases {
            let text = |key: &str| case[key].as_str().expect("text");
            let t = moment(text("time_rfc3339"), text("zone"));
            assert_eq!(file_name(text("snmplog"), &t), text("file"), "{case}");
        }
    }

    #[test]
    fn elements_that_the_vectors_leave_out() {
        let mut t = moment("2026-02-03T00:05:06.120000000-03:30", "NST");
        for (layout, want) in [
            ("__2", " 34"),
            ("_2006", "_2026"),
            ("3:4:5 pm", "12:5:6 am"),
            ("-07:00:00", "-03:30:00"),
            ("-070000", "-033000"),
            ("-07", "-03"),
            ("Z07:00", "-03:30"),
            ("Monk Janus", "Monk Janus"),
            ("Mon Jan", "Tue Feb"),
            ("05,000000", "06,120000"),
            ("05.9999", "06.12"),
            ("05.0001", "06.0002"),
            ("05.000000000000", "06.120000000"),
            ("é2ü", "é3ü"),
        ] {
            assert_eq!(format(layout, &t), want, "{layout}");
        }
        t.zone.clear();
        assert_eq!(format("MST", &t), "-0330");
        t.offset = 0;
        assert_eq!(format("Z070000 Z07 Z07:00:00", &t), "Z Z Z");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn any_layout_is_formatted(layout in "([-_0-9:.,ZMSTJanMonPp/é]{0,3}|2006|Mon|January){0,12}") {
            let t = moment("2026-11-25T21:30:59.123456789+08:00", "CST");
            let out = file_name(&layout, &t);
            prop_assert!(out.len() <= layout.len() * 9 + 16);
            let dir = layout.rfind('/').map_or("", |at| &layout[..=at]);
            prop_assert!(out.starts_with(dir));
        }
    }
}
