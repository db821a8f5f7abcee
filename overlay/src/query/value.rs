//! Values of filters: numbers, sizes, durations, ages, dates, and comparisons of them.
//!
//! Readers work on a [`Piece`], a stretch of the source that knows where it stands, so every refusal
//! names the first character that cannot be meant.

use std::fmt;

/// Seconds of a day.
const DAY_S: i64 = 86_400;

/// A comparison of a file's value with one or two given ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compare<T> {
    /// `=x` or a bare `x`.
    Equal(T),
    /// `>x`.
    Above(T),
    /// `>=x` or `x..`.
    AtLeast(T),
    /// `<x`.
    Below(T),
    /// `<=x` or `..x`.
    AtMost(T),
    /// `x..y`, both ends included; the first is at most the second.
    Between(T, T),
}

impl<T: Copy + Ord> Compare<T> {
    /// True if `value` satisfies the comparison.
    pub fn holds(&self, value: T) -> bool {
        match *self {
            Self::Equal(x) => value == x,
            Self::Above(x) => value > x,
            Self::AtLeast(x) => value >= x,
            Self::Below(x) => value < x,
            Self::AtMost(x) => value <= x,
            Self::Between(x, y) => (x..=y).contains(&value),
        }
    }

    /// Writes it in the language of queries, each value by `show`.
    fn write(&self, f: &mut fmt::Formatter<'_>, show: impl Fn(T) -> String) -> fmt::Result {
        match *self {
            Self::Equal(x) => write!(f, "{}", show(x)),
            Self::Above(x) => write!(f, ">{}", show(x)),
            Self::AtLeast(x) => write!(f, ">={}", show(x)),
            Self::Below(x) => write!(f, "<{}", show(x)),
            Self::AtMost(x) => write!(f, "<={}", show(x)),
            Self::Between(x, y) => write!(f, "{}..{}", show(x), show(y)),
        }
    }
}

impl fmt::Display for Compare<u64> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, |x| x.to_string())
    }
}

/// A comparison of a file's time of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Modified {
    /// How long ago it was, in seconds before the moment of evaluation; never [`Compare::Equal`].
    Age(Compare<i64>),
    /// So many whole hours, days, weeks or years ago: `=30d` is from 30 up to 31 days.
    Aged(i64, AgeUnit),
    /// On which day it was: days since 1970-01-01, UTC.
    Day(Compare<i64>),
}

impl Modified {
    /// True if a file changed at `modified_s` satisfies it at `now_s` (both seconds since 1970 UTC).
    pub fn holds(&self, modified_s: i64, now_s: i64) -> bool {
        match self {
            Self::Age(compare) => compare.holds(now_s.saturating_sub(modified_s)),
            Self::Aged(count, unit) => now_s.saturating_sub(modified_s).div_euclid(unit.seconds()) == *count,
            Self::Day(compare) => compare.holds(modified_s.div_euclid(DAY_S)),
        }
    }
}

impl fmt::Display for Modified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Age(compare) => compare.write(f, |seconds| format!("{}h", seconds / 3600)),
            Self::Aged(count, unit) => write!(f, "={count}{}", unit.letter()),
            Self::Day(compare) => compare.write(f, date_of_day),
        }
    }
}

/// What ages are counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AgeUnit {
    /// 3,600 seconds.
    Hour,
    /// 24 hours.
    Day,
    /// 7 days.
    Week,
    /// 365 days.
    Year,
}

impl AgeUnit {
    fn from_letter(letter: &str) -> Option<Self> {
        [Self::Hour, Self::Day, Self::Week, Self::Year]
            .into_iter()
            .find(|unit| letter.eq_ignore_ascii_case(unit.letter()))
    }

    const fn letter(self) -> &'static str {
        match self {
            Self::Hour => "h",
            Self::Day => "d",
            Self::Week => "w",
            Self::Year => "y",
        }
    }

    const fn seconds(self) -> i64 {
        match self {
            Self::Hour => 3600,
            Self::Day => DAY_S,
            Self::Week => 7 * DAY_S,
            Self::Year => 365 * DAY_S,
        }
    }
}

/// A stretch of a query.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece<'a> {
    pub(super) text: &'a str,
    /// Of its first character, from 1.
    pub(super) position: usize,
}

impl Piece<'_> {
    /// What stands from byte `start` on.
    pub(super) fn from(self, start: usize) -> Self {
        Self { text: &self.text[start..], position: self.position + self.text[..start].chars().count() }
    }

    /// What stands before byte `end`.
    fn until(self, end: usize) -> Self {
        Self { text: &self.text[..end], position: self.position }
    }

    /// What stands before and after the first `separator`.
    pub(super) fn split_once(self, separator: &str) -> Option<(Self, Self)> {
        let at = self.text.find(separator)?;
        Some((self.until(at), self.from(at + separator.len())))
    }

    fn unreadable(self) -> ValueError {
        ValueError::Unreadable(self.position)
    }

    fn too_large(self) -> ValueError {
        ValueError::TooLarge(self.position)
    }
}

/// Why a value cannot be read, with the position of the first offending character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValueError {
    Empty(usize),
    Unreadable(usize),
    UnknownKind(usize),
    TooLarge(usize),
    NoMonth(usize),
    NoDay { position: usize, days: u8 },
    Swapped(usize),
    ExactAge(usize),
}

type Read<T> = Result<T, ValueError>;

/// Reads a comparison or a range of what `read` reads.
pub(super) fn compare<'a, T: Ord + Copy>(value: Piece<'a>, read: impl Fn(Piece<'a>) -> Read<T>) -> Read<Compare<T>> {
    let read =
        |piece: Piece<'a>| if piece.text.is_empty() { Err(ValueError::Empty(piece.position)) } else { read(piece) };
    type Make<T> = fn(T) -> Compare<T>;
    let operators: [(&str, Make<T>); 5] = [
        (">=", Compare::AtLeast),
        ("<=", Compare::AtMost),
        (">", Compare::Above),
        ("<", Compare::Below),
        ("=", Compare::Equal),
    ];
    for (operator, make) in operators {
        if value.text.starts_with(operator) {
            return read(value.from(operator.len())).map(make);
        }
    }
    match value.split_once("..") {
        None => read(value).map(Compare::Equal),
        Some((low, high)) if low.text.is_empty() => read(high).map(Compare::AtMost),
        Some((low, high)) if high.text.is_empty() => read(low).map(Compare::AtLeast),
        Some((low, high)) => match (read(low)?, read(high)?) {
            (low, high) if low <= high => Ok(Compare::Between(low, high)),
            _ => Err(ValueError::Swapped(value.position)),
        },
    }
}

/// Reads the value of `modified`.
pub(super) fn modified(value: Piece<'_>) -> Read<Modified> {
    if value.text.contains('-') {
        return compare(value, day).map(Modified::Day);
    }
    let seconds = |piece| age(piece).map(|(count, unit)| count * unit.seconds());
    match compare(value, seconds)? {
        Compare::Equal(_) if !value.text.starts_with('=') => Err(ValueError::ExactAge(value.position)),
        Compare::Equal(_) => age(value.from(1)).map(|(count, unit)| Modified::Aged(count, unit)),
        ages => Ok(Modified::Age(ages)),
    }
}

/// Reads a whole number.
pub(super) fn whole(value: Piece<'_>) -> Read<u64> {
    let (number, rest) = digits(value)?;
    if rest.text.is_empty() { Ok(number) } else { Err(rest.unreadable()) }
}

/// Reads a size in bytes. Fractions of a byte are dropped.
pub(super) fn size(value: Piece<'_>) -> Read<u64> {
    let (whole, mut rest) = digits(value)?;
    let mut fraction = "";
    if let Some(after_dot) = rest.text.strip_prefix('.') {
        let count = after_dot.bytes().take_while(u8::is_ascii_digit).count();
        if count == 0 {
            return Err(rest.unreadable());
        }
        fraction = &after_dot[..count];
        rest = rest.from(1 + count);
    }
    let unit = unit_bytes(rest.text).ok_or_else(|| rest.unreadable())?;
    let tail = fraction_of(fraction, unit);
    whole.checked_mul(unit).and_then(|bytes| bytes.checked_add(tail)).ok_or_else(|| value.too_large())
}

/// Reads a duration in seconds: a number alone, or hours, minutes and seconds in that order.
pub(super) fn duration(value: Piece<'_>) -> Read<u64> {
    let (number, rest) = digits(value)?;
    if rest.text.is_empty() {
        return Ok(number);
    }
    let mut units = &[('h', 3600), ('m', 60), ('s', 1)][..];
    let mut rest = value;
    let mut total = 0u64;
    loop {
        let (number, after) = digits(rest)?;
        let letter = after.text.chars().next().ok_or_else(|| after.unreadable())?;
        let found =
            units.iter().position(|(unit, _)| letter.eq_ignore_ascii_case(unit)).ok_or_else(|| after.unreadable())?;
        let seconds = number.checked_mul(units[found].1).ok_or_else(|| rest.too_large())?;
        total = total.checked_add(seconds).ok_or_else(|| rest.too_large())?;
        units = &units[found + 1..];
        rest = after.from(1);
        if rest.text.is_empty() {
            return Ok(total);
        }
    }
}

/// Reads an age: a number and one unit, together seconds that fit.
fn age(value: Piece<'_>) -> Read<(i64, AgeUnit)> {
    let (number, rest) = digits(value)?;
    let unit = AgeUnit::from_letter(rest.text).ok_or_else(|| rest.unreadable())?;
    let count = i64::try_from(number).ok().filter(|count| count.checked_mul(unit.seconds()).is_some());
    count.map(|count| (count, unit)).ok_or_else(|| value.too_large())
}

/// Reads a date `2026-01-31`, as days since 1970-01-01.
fn day(value: Piece<'_>) -> Read<i64> {
    let (year, rest) = fixed(value, 4)?;
    let (month, rest_of_date) = fixed(dash(rest)?, 2)?;
    if !(1..=12).contains(&month) {
        return Err(ValueError::NoMonth(dash(rest)?.position));
    }
    let day_piece = dash(rest_of_date)?;
    let (day, end) = fixed(day_piece, 2)?;
    let days = days_of_month(year, month);
    if !(1..=i64::from(days)).contains(&day) {
        return Err(ValueError::NoDay { position: day_piece.position, days });
    }
    if !end.text.is_empty() {
        return Err(end.unreadable());
    }
    Ok(day_of_date(year, month, day))
}

fn dash(value: Piece<'_>) -> Read<Piece<'_>> {
    if value.text.starts_with('-') { Ok(value.from(1)) } else { Err(value.unreadable()) }
}

/// Reads exactly `count` digits.
fn fixed(value: Piece<'_>, count: usize) -> Read<(i64, Piece<'_>)> {
    let have = value.text.bytes().take(count).take_while(u8::is_ascii_digit).count();
    if have < count {
        return Err(value.from(have).unreadable());
    }
    let number = value.text[..count].bytes().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
    Ok((number, value.from(count)))
}

/// Reads one or more digits.
fn digits(value: Piece<'_>) -> Read<(u64, Piece<'_>)> {
    let count = value.text.bytes().take_while(u8::is_ascii_digit).count();
    if count == 0 {
        return Err(value.unreadable());
    }
    let number = value.text[..count].parse().map_err(|_| value.too_large())?;
    Ok((number, value.from(count)))
}

fn unit_bytes(unit: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 10] = [
        ("", 1),
        ("b", 1),
        ("kb", 1_000),
        ("mb", 1_000_000),
        ("gb", 1_000_000_000),
        ("tb", 1_000_000_000_000),
        ("kib", 1 << 10),
        ("mib", 1 << 20),
        ("gib", 1 << 30),
        ("tib", 1 << 40),
    ];
    UNITS.iter().find(|(name, _)| unit.eq_ignore_ascii_case(name)).map(|(_, bytes)| *bytes)
}

/// `0.fraction * unit`, rounded down: each digit from the last on hands a tenth of what it has to the next.
fn fraction_of(fraction: &str, unit: u64) -> u64 {
    fraction.bytes().rev().fold(0, |carry, digit| (carry + u64::from(digit - b'0') * unit) / 10)
}

const fn days_of_month(year: i64, month: i64) -> u8 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar. Years begin in March here, so that the leap
/// day is a year's last and the months before a date sum up without exception.
const fn day_of_date(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

/// The date of a day that [`day_of_date`] gave: years 0 to 9999.
fn date_of_day(day: i64) -> String {
    // A year's estimate is at most one too high or too low, months are at most twelve: a search is enough.
    let mut year = (day + 719_528).div_euclid(366).max(0);
    while day_of_date(year + 1, 1, 1) <= day {
        year += 1;
    }
    let month = (1..=12).rev().find(|&month| day_of_date(year, month, 1) <= day).unwrap_or(1);
    format!("{year:04}-{month:02}-{:02}", day - day_of_date(year, month, 1) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_are_exact() {
        for (text, want) in [
            ("0", Some(0)),
            ("10MB", Some(10_000_000)),
            ("1.5GiB", Some(1_610_612_736)),
            ("0.5b", Some(0)),
            ("1.000000000000000000009kb", Some(1000)),
            ("0.0000000000009094947017729282379150390625TiB", Some(1)),
            ("0.0000000000009094947017729282379150390624TiB", Some(0)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("99999999TB", None),
            ("1.MB", None),
            (".5MB", None),
            ("10 MB", None),
            ("10M", None),
            ("", None),
        ] {
            assert_eq!(size(Piece { text, position: 1 }).ok(), want, "{text:?}");
        }
        for (text, want) in [
            ("90", Some(90)),
            ("1h2m3s", Some(3723)),
            ("90m", Some(5400)),
            ("7h12M", Some(25_920)),
            ("1m2h", None),
            ("1h2", None),
            ("1x", None),
            ("", None),
        ] {
            assert_eq!(duration(Piece { text, position: 1 }).ok(), want, "{text:?}");
        }
    }

    #[test]
    fn dates_and_days_are_inverse() {
        assert_eq!(day_of_date(1970, 1, 1), 0);
        assert_eq!(day_of_date(2000, 3, 1), 11_017);
        assert_eq!(day_of_date(2026, 1, 31), 20_484);
        let first = day_of_date(0, 1, 1);
        for day in (first..day_of_date(9999, 12, 31)).step_by(97).chain(11_000..11_500) {
            let text = date_of_day(day);
            assert_eq!(super::day(Piece { text: &text, position: 1 }), Ok(day), "{text}");
        }
    }
}
