//! Hours, weekdays and dates as settings write them.

use std::fmt;

use jiff::civil::{Date, Time, Weekday};
use serde::Deserialize;

const DAY_MINUTES: u16 = 24 * 60;

/// `09:00-17:30`; `22:00-06:00` goes on into the next day; `00:00-24:00` is all day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Hours {
    from: u16,
    to: u16,
}

impl Hours {
    /// Whether a day's hours have begun at `time` of it, and have not ended.
    pub(crate) fn has_begun(self, time: Time) -> bool {
        let minute = minute_of(time);
        if self.from < self.to { (self.from..self.to).contains(&minute) } else { minute >= self.from }
    }

    /// Whether the hours of the day before still go on at `time`.
    pub(crate) fn goes_on(self, time: Time) -> bool {
        self.from > self.to && minute_of(time) < self.to
    }
}

fn minute_of(time: Time) -> u16 {
    let part = |number: i8| u16::from(number.unsigned_abs());
    part(time.hour()) * 60 + part(time.minute())
}

impl TryFrom<String> for Hours {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let shown = text.escape_debug();
        let minutes = text.split_once('-').and_then(|(from, to)| Some((read_time(from)?, read_time(to)?)));
        match minutes {
            Some((from, to)) if from == to => Err(format!("`{shown}` is no time at all; all day is `00:00-24:00`")),
            Some((from, to)) if from < DAY_MINUTES => Ok(Self { from, to }),
            _ => Err(format!("`{shown}` are not hours; write them as `09:00-17:30`")),
        }
    }
}

/// `HH:MM` as minutes, up to `24:00`.
fn read_time(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let two_digits = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !two_digits(hours) || !two_digits(minutes) {
        return None;
    }
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    let total = hours * 60 + minutes;
    (minutes < 60 && total <= DAY_MINUTES).then_some(total)
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "they are called what they are")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Day {
    pub(crate) fn of(date: Date) -> Self {
        match date.weekday() {
            Weekday::Monday => Self::Mon,
            Weekday::Tuesday => Self::Tue,
            Weekday::Wednesday => Self::Wed,
            Weekday::Thursday => Self::Thu,
            Weekday::Friday => Self::Fri,
            Weekday::Saturday => Self::Sat,
            Weekday::Sunday => Self::Sun,
        }
    }
}

/// As settings write it.
impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mon => "mon",
            Self::Tue => "tue",
            Self::Wed => "wed",
            Self::Thu => "thu",
            Self::Fri => "fri",
            Self::Sat => "sat",
            Self::Sun => "sun",
        })
    }
}

/// `2026-12-24`, or `2026-12-24/2027-01-01` with both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Dates {
    first: Date,
    last: Date,
}

impl Dates {
    pub(crate) fn contain(&self, date: Date) -> bool {
        (self.first..=self.last).contains(&date)
    }
}

impl TryFrom<String> for Dates {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let shown = text.escape_debug();
        let (first, last) = text.split_once('/').unwrap_or((&text, &text));
        match (read_date(first), read_date(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            (Some(_), Some(_)) => Err(format!("`{shown}` ends before it begins")),
            _ => Err(format!("`{shown}` is no date; write `2026-12-24`, or `2026-12-24/2027-01-01` for several")),
        }
    }
}

/// `YYYY-MM-DD` and nothing else of what ISO 8601 knows.
fn read_date(text: &str) -> Option<Date> {
    let plain = |(index, byte): (usize, u8)| if matches!(index, 4 | 7) { byte == b'-' } else { byte.is_ascii_digit() };
    (text.len() == 10 && text.bytes().enumerate().all(plain)).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(text: &str) -> Result<Hours, String> {
        Hours::try_from(text.to_owned())
    }

    fn dates(text: &str) -> Result<Dates, String> {
        Dates::try_from(text.to_owned())
    }

    #[test]
    fn hours_are_two_times() {
        for (text, from, to) in
            [("09:00-17:30", 540, 1050), ("00:00-24:00", 0, 1440), ("22:00-06:00", 1320, 360), ("23:59-00:00", 1439, 0)]
        {
            assert_eq!(hours(text), Ok(Hours { from, to }), "{text}");
        }
        for text in [
            "",
            "-",
            "09:00",
            "9:00-17:00",
            "09:00-17",
            "09:00 - 17:00",
            "09:60-17:00",
            "25:00-26:00",
            "24:00-06:00",
            "09:00-24:01",
            "09:00-09:00",
            "00:00-00:00",
            "09:00-17:00-18:00",
            "+9:00-17:00",
            "09:00-17:00:00",
        ] {
            assert!(hours(text).is_err(), "{text}");
        }
    }

    #[test]
    fn dates_are_one_or_two() {
        assert!(dates("2028-02-29").is_ok());
        assert!(dates("2026-12-24/2026-12-24").is_ok());
        for text in [
            "",
            "/",
            "2027-02-29",
            "2026-13-01",
            "2026-12-32",
            "20261224",
            "2026-12-24T00:00",
            "2026-12-24/",
            "2027-01-01/2026-12-24",
            "24.12.2026",
            "2026-W52-4",
            "+026-12-24",
            "2026/12/24",
        ] {
            assert!(dates(text).is_err(), "{text}");
        }
    }
}
