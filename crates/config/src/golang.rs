//! Integers and booleans as Go's command-line flags read them (docs/spec/kcptun.md, section 3.1).

/// An integer literal: decimal, `0x…`, `0o…` or `0…`, `0b…`, a sign, underscores between digits.
///
/// `None` when `text` is none, or does not fit 64 bits.
#[must_use]
pub fn parse_int(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let prefix = digits.get(..2).map(str::to_ascii_lowercase);
    let (radix, body, prefixed) = match prefix.as_deref() {
        Some("0x") => (16, &digits[2..], true),
        Some("0o") => (8, &digits[2..], true),
        Some("0b") => (2, &digits[2..], true),
        // The zero itself counts as the base prefix: an underscore may follow it.
        _ if digits.len() > 1 && digits.starts_with('0') => (8, &digits[1..], true),
        _ => (10, digits, false),
    };
    let mut value: i128 = 0;
    let mut after_digit = prefixed;
    for c in body.chars() {
        if c == '_' {
            if !after_digit {
                return None;
            }
            after_digit = false;
            continue;
        }
        value = value * i128::from(radix) + i128::from(c.to_digit(radix)?);
        // One more than an i64 reaches, for its lowest value; bounded so that long texts cannot overflow.
        if value > 1 << 63 {
            return None;
        }
        after_digit = true;
    }
    if body.is_empty() || !after_digit {
        return None;
    }
    i64::try_from(if negative { -value } else { value }).ok()
}

/// A boolean: `1 t T true True TRUE` and their opposites.
#[must_use]
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Some(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn integers() {
        for (text, value) in [
            ("0", 0),
            ("1350", 1350),
            ("+5", 5),
            ("-5", -5),
            ("0x54A", 1354),
            ("0X54a", 1354),
            ("017", 15),
            ("0o17", 15),
            ("0O17", 15),
            ("0b101", 5),
            ("-0b101", -5),
            ("1_350", 1350),
            ("0_17", 15),
            ("0x_ff", 255),
            ("00", 0),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ] {
            assert_eq!(parse_int(text), Some(value), "{text}");
        }
        for text in [
            "",
            "+",
            "-",
            "x",
            " 5",
            "5 ",
            "1__0",
            "_1",
            "1_",
            "0x",
            "0x_",
            "0b2",
            "08",
            "0o8",
            "1.5",
            "1e3",
            "--5",
            "+-5",
            "9223372036854775808",
            "-9223372036854775809",
            "0_",
            "٣",
            "1é",
            "0é",
            "99999999999999999999999999999999999999999999999999",
        ] {
            assert_eq!(parse_int(text), None, "{text}");
        }
    }

    #[test]
    fn booleans() {
        assert_eq!(parse_bool("T"), Some(true));
        assert_eq!(parse_bool("FALSE"), Some(false));
        for text in ["", "yes", "tRUE", "on", "01"] {
            assert_eq!(parse_bool(text), None, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn plain_and_prefixed_numbers_round_trip(n: i64, text in "[-+0-9a-fxobé_]{0,12}") {
            prop_assert_eq!(parse_int(&n.to_string()), Some(n));
            let magnitude = n.unsigned_abs();
            let sign = if n < 0 { "-" } else { "" };
            prop_assert_eq!(parse_int(&format!("{sign}{magnitude:#x}")), Some(n));
            prop_assert_eq!(parse_int(&format!("{sign}{magnitude:#o}")), Some(n));
            prop_assert_eq!(parse_int(&format!("{sign}{magnitude:#b}")), Some(n));
            let _ = parse_int(&text);
        }
    }
}
