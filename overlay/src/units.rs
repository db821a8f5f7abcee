//! Quantities as people write and read them: sizes, rates, durations.
//!
//! Reading is exact: a decimal such as `1.5MB` is computed in integers and a remainder below one byte is
//! dropped. One grammar serves the query language, the configuration and the command line, so `10MB`
//! means the same everywhere:
//!
//! ```text
//!   size      number [unit]         B kB MB GB TB = powers of 1000, KiB MiB GiB TiB = of 1024, no case
//!   rate      size ["/s"]           also kbit Mbit Gbit: an eighth of as many bytes
//!   duration  seconds | parts       parts from the largest to the smallest: 1d2h3m4s
//! ```
//!
//! Printing is for people: three significant digits and powers of 1000, as file managers do.

use std::{fmt, time::Duration};

use crate::limits;

/// Bytes of `number [unit]`; a number without a unit counts bytes.
///
/// # Errors
/// Says what is wrong with the text, which is the writer's fault. 0 is a size; whoever refuses it says so.
pub fn parse_size(text: &str) -> Result<u64, QuantityError> {
    scaled(text.trim(), SIZE_UNITS)
}

/// Bytes a second of `number [unit] ["/s"]`, with the units of [`parse_size`] and bits.
///
/// # Errors
/// As [`parse_size`].
pub fn parse_rate(text: &str) -> Result<u64, QuantityError> {
    let text = text.trim();
    let text = text.strip_suffix("/s").or_else(|| text.strip_suffix("/S")).unwrap_or(text).trim_end();
    match scaled(text, BIT_UNITS) {
        Err(QuantityError::Unit(_)) => scaled(text, SIZE_UNITS),
        result => result,
    }
}

/// Time of whole seconds (`90`) or of parts such as `1h2m3s` or `3m`, each unit once and the larger first.
///
/// # Errors
/// As [`parse_size`].
pub fn parse_duration(text: &str) -> Result<Duration, QuantityError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(QuantityError::Empty);
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map(Duration::from_secs).map_err(|_| QuantityError::TooLarge);
    }
    let mut seconds = 0u64;
    let mut larger = u64::MAX;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, tail) = rest.split_at(digits);
        let number: u64 = match number.parse() {
            Ok(number) => number,
            Err(_) if number.is_empty() => return Err(QuantityError::Number(text.into())),
            Err(_) => return Err(QuantityError::TooLarge),
        };
        let unit = tail.chars().next().ok_or_else(|| QuantityError::Unit(String::new()))?;
        let unit_seconds = duration_unit(unit).ok_or_else(|| QuantityError::Unit(unit.to_string()))?;
        if unit_seconds >= larger {
            return Err(QuantityError::Order(text.into()));
        }
        larger = unit_seconds;
        let part = number.checked_mul(unit_seconds).ok_or(QuantityError::TooLarge)?;
        seconds = seconds.checked_add(part).ok_or(QuantityError::TooLarge)?;
        rest = &tail[unit.len_utf8()..];
    }
    Ok(Duration::from_secs(seconds))
}

/// Why a text is no quantity. The fault is the writer's; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QuantityError {
    /// Nothing was given.
    #[error("a number is missing")]
    Empty,
    /// What stands where a number must be is none.
    #[error("`{0}` does not begin with a number")]
    Number(String),
    /// The unit is not known.
    #[error("unknown unit `{0}`")]
    Unit(String),
    /// The parts of a duration are not in the order days, hours, minutes, seconds.
    #[error("`{0}` names a unit twice or a smaller one before a larger one")]
    Order(String),
    /// The value is above 2^53 - 1 bytes or 2^64 - 1 seconds.
    #[error("the value is too large")]
    TooLarge,
}

/// A size for people: `0 B`, `999 B`, `1.50 MB`.
pub fn size(bytes: u64) -> impl fmt::Display {
    Scaled { value: bytes as f64, units: ["B", "kB", "MB", "GB", "TB", "PB"] }
}

/// A rate for people: `1.50 MB/s`.
pub fn rate(bytes_per_second: f64) -> impl fmt::Display {
    Scaled { value: bytes_per_second, units: ["B/s", "kB/s", "MB/s", "GB/s", "TB/s", "PB/s"] }
}

/// A time span for people, in its two largest units: `0s`, `42s`, `3m 05s`, `2h 10m`, `12d 3h`.
pub fn duration(span: Duration) -> impl fmt::Display {
    Span(span.as_secs())
}

const KILO: u64 = 1000;
const KIBI: u64 = 1024;

/// Unit in lower case, and the bytes it stands for as a fraction.
type Units = &'static [(&'static str, u64, u64)];

const SIZE_UNITS: Units = &[
    ("", 1, 1),
    ("b", 1, 1),
    ("kb", KILO, 1),
    ("mb", KILO.pow(2), 1),
    ("gb", KILO.pow(3), 1),
    ("tb", KILO.pow(4), 1),
    ("kib", KIBI, 1),
    ("mib", KIBI.pow(2), 1),
    ("gib", KIBI.pow(3), 1),
    ("tib", KIBI.pow(4), 1),
];

const BIT_UNITS: Units = &[("kbit", KILO, 8), ("mbit", KILO.pow(2), 8), ("gbit", KILO.pow(3), 8)];

/// Digits behind the decimal point that count. A TiB has 13 digits, so more cannot change a byte.
const FRACTION_DIGITS: usize = 13;

fn duration_unit(unit: char) -> Option<u64> {
    Some(match unit.to_ascii_lowercase() {
        'd' => 86_400,
        'h' => 3_600,
        'm' => 60,
        's' => 1,
        _ => return None,
    })
}

/// Reads `digits[.digits] [unit]` and multiplies, rounding down.
fn scaled(text: &str, units: Units) -> Result<u64, QuantityError> {
    if text.is_empty() {
        return Err(QuantityError::Empty);
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..end], text[end..].trim_start());
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let dot_without_digits = number.contains('.') && fraction.is_empty();
    if whole.is_empty() || dot_without_digits || fraction.contains('.') {
        return Err(QuantityError::Number(text.into()));
    }
    let unit = unit.to_ascii_lowercase();
    let &(_, times, over) =
        units.iter().find(|(name, ..)| *name == unit).ok_or_else(|| QuantityError::Unit(text[end..].trim().into()))?;
    let whole: u64 = whole.parse().map_err(|_| QuantityError::TooLarge)?;
    let fraction = &fraction[..fraction.len().min(FRACTION_DIGITS)];
    let denominator = 10u128.pow(fraction.len() as u32);
    let fraction: u128 = if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| QuantityError::TooLarge)? };
    // At most 2^64 * 10^13 * 2^40 < 2^148: the multiplication by the unit is checked.
    let numerator =
        (u128::from(whole) * denominator + fraction).checked_mul(u128::from(times)).ok_or(QuantityError::TooLarge)?;
    let bytes = numerator / (denominator * u128::from(over));
    u64::try_from(bytes).ok().filter(|&bytes| bytes <= limits::FILE_BYTES).ok_or(QuantityError::TooLarge)
}

struct Scaled {
    value: f64,
    units: [&'static str; 6],
}

impl fmt::Display for Scaled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = if self.value.is_finite() { self.value.max(0.0) } else { 0.0 };
        let mut unit = 0;
        // 999.5 would print as a fourth digit, so it already counts as one of the next unit.
        while value >= 999.5 && unit + 1 < self.units.len() {
            value /= 1000.0;
            unit += 1;
        }
        let decimals = if unit == 0 || value >= 99.95 {
            0
        } else if value >= 9.995 {
            1
        } else {
            2
        };
        f.pad(&format!("{value:.decimals$} {}", self.units[unit]))
    }
}

struct Span(u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, hours, minutes, seconds) = (self.0 / 86_400, self.0 / 3_600 % 24, self.0 / 60 % 60, self.0 % 60);
        let text = match (days, hours, minutes) {
            (0, 0, 0) => format!("{seconds}s"),
            (0, 0, _) => format!("{minutes}m {seconds:02}s"),
            (0, ..) => format!("{hours}h {minutes:02}m"),
            _ => format!("{days}d {hours}h"),
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_exact() {
        for (text, bytes) in [
            ("0", 0),
            ("1", 1),
            ("10B", 10),
            ("1kB", 1000),
            ("1.5 mb", 1_500_000),
            ("512MiB", 512 << 20),
            ("0.1KiB", 102),
            ("1TiB", 1 << 40),
            ("0.0000000000009TiB", 0),
            ("9007199254740991", limits::FILE_BYTES),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for (text, bytes) in [("10Mbit", 1_250_000), ("8 kbit/s", 1000), ("500kB/s", 500_000), ("1MiB", 1 << 20)] {
            assert_eq!(parse_rate(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn malformed_sizes_say_why() {
        assert_eq!(parse_size(""), Err(QuantityError::Empty));
        assert_eq!(parse_size("many"), Err(QuantityError::Number("many".into())));
        assert_eq!(parse_size("-1"), Err(QuantityError::Number("-1".into())));
        assert_eq!(parse_size("1."), Err(QuantityError::Number("1.".into())));
        assert_eq!(parse_size("1.2.3"), Err(QuantityError::Number("1.2.3".into())));
        assert_eq!(parse_size("5 bananas"), Err(QuantityError::Unit("bananas".into())));
        assert_eq!(parse_size("1Mbit"), Err(QuantityError::Unit("Mbit".into())));
        assert_eq!(parse_size("9007199254740992"), Err(QuantityError::TooLarge));
        assert_eq!(parse_size("99999999999999999999"), Err(QuantityError::TooLarge));
        assert_eq!(parse_size("18446744073709551615.9999999999999TiB"), Err(QuantityError::TooLarge));
    }

    #[test]
    fn durations_are_seconds_or_parts_in_order() {
        for (text, seconds) in [("0", 0), ("90", 90), ("1h2m3s", 3723), ("3m", 180), ("2D", 172_800), ("1d1s", 86_401)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert!(matches!(parse_duration("1s1m"), Err(QuantityError::Order(_))));
        assert!(matches!(parse_duration("1m1m"), Err(QuantityError::Order(_))));
        assert!(matches!(parse_duration("1y"), Err(QuantityError::Unit(_))));
        assert!(matches!(parse_duration("1h30"), Err(QuantityError::Unit(_))));
        assert!(matches!(parse_duration("h"), Err(QuantityError::Number(_))));
        assert!(matches!(parse_duration("99999999999999999999d"), Err(QuantityError::TooLarge)));
    }

    #[test]
    fn people_get_three_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (1_234_567, "1.23 MB"),
            (12_345_678, "12.3 MB"),
            (999_499_999, "999 MB"),
            (999_500_000, "1.00 GB"),
        ] {
            assert_eq!(size(bytes).to_string(), text);
        }
        assert_eq!(rate(f64::NAN).to_string(), "0 B/s");
        for (seconds, text) in [(0, "0s"), (185, "3m 05s"), (7_800, "2h 10m"), (1_047_600, "12d 3h")] {
            assert_eq!(duration(Duration::from_secs(seconds)).to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "\\PC{0,24}") {
            let _ = parse_size(&text);
            let _ = parse_rate(&text);
            let _ = parse_duration(&text);
        }

        #[test]
        fn whole_numbers_scale_by_their_unit(number in 0u64..8000, unit in 0..SIZE_UNITS.len(), upper: bool) {
            let (name, times, _) = SIZE_UNITS[unit];
            let name = if upper { name.to_uppercase() } else { name.to_owned() };
            prop_assert_eq!(parse_size(&format!("{number}{name}")), Ok(number * times));
            prop_assert_eq!(parse_rate(&format!("{number} {name}/s")), Ok(number * times));
        }

        #[test]
        fn decimals_agree_with_thousandths(whole in 0u64..1000, thousandths in 0u64..1000) {
            let text = format!("{whole}.{thousandths:03}kB");
            prop_assert_eq!(parse_size(&text), Ok(whole * 1000 + thousandths));
        }

        #[test]
        fn durations_add_up_their_parts(days in 0u64..100, hours in 0u64..100, minutes in 0u64..100, seconds in 0u64..100) {
            let text = format!("{days}d{hours}h{minutes}m{seconds}s");
            let sum = ((days * 24 + hours) * 60 + minutes) * 60 + seconds;
            prop_assert_eq!(parse_duration(&text), Ok(Duration::from_secs(sum)));
        }
    }
}
