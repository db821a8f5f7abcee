//! Rate limits by the hour of the week, as in `mon-fri 08:00-18:00 500kB`.

use std::{fmt, str::FromStr};

use crate::{config::Rate, units};

/// Days of a week and minutes of a day in which a rate applies, in local time.
///
/// A span that ends before it begins runs past midnight and belongs to the day on which it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleLine {
    /// Bit 0 is Monday.
    days: u8,
    /// Minutes since midnight; the first that counts.
    from: u16,
    /// Minutes since midnight, up to 1440; the first that counts no more.
    to: u16,
    rate: Rate,
    text: Box<str>,
}

impl ScheduleLine {
    /// The limit that applies at a weekday (0 is Monday) and minute of the day (0 to 1439): that of the
    /// first line that covers it, else `otherwise`.
    pub fn rate_at(lines: &[Self], weekday: u8, minute: u16, otherwise: Rate) -> Rate {
        lines.iter().find(|line| line.covers(weekday, minute)).map_or(otherwise, |line| line.rate)
    }

    fn covers(&self, weekday: u8, minute: u16) -> bool {
        let on = |day: u8| self.days & (1 << (day % 7)) != 0;
        if self.from < self.to {
            return on(weekday) && (self.from..self.to).contains(&minute);
        }
        (on(weekday) && minute >= self.from) || (on(weekday + 6) && minute < self.to)
    }
}

impl FromStr for ScheduleLine {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let mut words = text.split_whitespace();
        let (Some(days), Some(hours), Some(rate), None) = (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(ScheduleError::Words(text.into()));
        };
        let (from, to) = hours.split_once('-').ok_or_else(|| ScheduleError::Hours(hours.into()))?;
        let from = minute_of_day(from).filter(|&from| from < MINUTES_A_DAY);
        let (Some(from), Some(to)) = (from, minute_of_day(to)) else {
            return Err(ScheduleError::Hours(hours.into()));
        };
        if from == to {
            return Err(ScheduleError::Hours(hours.into()));
        }
        let rate = match rate.to_ascii_lowercase().as_str() {
            "off" => Rate::UNLIMITED,
            _ => match units::parse_rate(rate)? {
                0 => return Err(ScheduleError::Zero),
                rate => Rate::new(rate),
            },
        };
        Ok(Self { days: parse_days(days)?, from, to, rate, text: text.into() })
    }
}

impl fmt::Display for ScheduleLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why a text is no line of a schedule. The fault is the writer's; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// Not exactly three words.
    #[error("`{0}` is no line such as `mon-fri 08:00-18:00 500kB`")]
    Words(String),
    /// The days cannot be read.
    #[error("`{0}` is no list of days such as `mon-fri`, `sat,sun` or `daily`")]
    Days(String),
    /// The hours cannot be read, or begin where they end.
    #[error("`{0}` is no span of hours such as `08:00-18:00`")]
    Hours(String),
    /// The rate cannot be read.
    #[error(transparent)]
    Rate(#[from] units::QuantityError),
    /// A rate of nothing.
    #[error("a rate of 0 stops all transfers; write a small rate, or `off` for none")]
    Zero,
}

const MINUTES_A_DAY: u16 = 24 * 60;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// `daily`, or days and ranges of days between commas; a range may run past Sunday.
fn parse_days(text: &str) -> Result<u8, ScheduleError> {
    let lower = text.to_ascii_lowercase();
    if lower == "daily" {
        return Ok(0x7f);
    }
    let day = |name: &str| DAYS.iter().position(|day| *day == name).ok_or_else(|| ScheduleError::Days(text.into()));
    let mut days = 0;
    for part in lower.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        let count = (last + 7 - first) % 7;
        for offset in 0..=count {
            days |= 1 << ((first + offset) % 7);
        }
    }
    Ok(days)
}

/// Minutes of `HH:MM`, up to `24:00`.
fn minute_of_day(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let two_digits = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
    if !two_digits(hours) || !two_digits(minutes) {
        return None;
    }
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    (minutes < 60 && hours * 60 + minutes <= MINUTES_A_DAY).then_some(hours * 60 + minutes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate_at(lines: &[&str], weekday: u8, minute: u16) -> Option<u64> {
        let lines: Vec<ScheduleLine> = lines.iter().map(|line| line.parse().unwrap()).collect();
        ScheduleLine::rate_at(&lines, weekday, minute, Rate::new(7)).bytes_per_second()
    }

    #[test]
    fn the_first_line_that_covers_the_minute_applies() {
        let lines = ["mon-fri 08:00-18:00 500kB", "sat,sun 00:00-24:00 off", "daily 22:00-06:00 1MB"];
        assert_eq!(rate_at(&lines, 0, 8 * 60), Some(500_000));
        assert_eq!(rate_at(&lines, 0, 18 * 60), Some(7));
        assert_eq!(rate_at(&lines, 5, 0), None);
        assert_eq!(rate_at(&lines, 0, 5 * 60), Some(1_000_000));
        assert_eq!(rate_at(&["sun 22:00-06:00 1MB"], 0, 60), Some(1_000_000));
        assert_eq!(rate_at(&["sun 22:00-06:00 1MB"], 6, 60), Some(7));
        assert_eq!(rate_at(&["fri-mon 00:00-24:00 1MB"], 1, 60), Some(7));
        assert_eq!(rate_at(&["fri-mon 00:00-24:00 1MB"], 6, 60), Some(1_000_000));
    }

    #[test]
    fn malformed_lines_say_why() {
        for (text, want) in [
            ("mon 08:00-18:00", ScheduleError::Words("mon 08:00-18:00".into())),
            ("day 08:00-18:00 1MB", ScheduleError::Days("day".into())),
            ("mon 8:00-18:00 1MB", ScheduleError::Hours("8:00-18:00".into())),
            ("mon 24:00-18:00 1MB", ScheduleError::Hours("24:00-18:00".into())),
            ("mon 08:00-08:00 1MB", ScheduleError::Hours("08:00-08:00".into())),
            ("mon 08:60-09:00 1MB", ScheduleError::Hours("08:60-09:00".into())),
            ("mon 08:00-24:01 1MB", ScheduleError::Hours("08:00-24:01".into())),
            ("mon 08:00-18:00 0", ScheduleError::Zero),
        ] {
            assert_eq!(text.parse::<ScheduleLine>(), Err(want));
        }
        assert!(matches!("mon 08:00-18:00 5x".parse::<ScheduleLine>(), Err(ScheduleError::Rate(_))));
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "[a-z0-9:, -]{0,30}") {
            let _ = text.parse::<ScheduleLine>();
        }

        #[test]
        fn a_span_covers_what_counting_minutes_covers(day in 0u8..7, from in 0u16..1440, length in 1u16..1440, probe_day in 0u8..7, probe in 0u16..1440) {
            let to = (from + length) % 1440;
            let line = format!("{} {:02}:{:02}-{:02}:{:02} 1kB", DAYS[usize::from(day)], from / 60, from % 60, to / 60, to % 60);
            let start = u32::from(day) * 1440 + u32::from(from);
            let week = 7 * 1440;
            let at = u32::from(probe_day) * 1440 + u32::from(probe);
            let covered = (0..u32::from(length)).any(|offset| (start + offset) % week == at);
            let line: ScheduleLine = line.parse().unwrap();
            prop_assert_eq!(line.covers(probe_day, probe), covered);
        }
    }
}
