//! Moments and spans. Core is told the time; it never asks.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The latest moment this type admits: the year 9999, so that it always prints as RFC 3339
    /// and always fits SQLite's signed integers.
    pub const MAX: Self = Self(253_402_207_200_000);

    /// A moment from milliseconds since the epoch; anything after [`Timestamp::MAX`] becomes it.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        if millis > Self::MAX.0 { Self::MAX } else { Self(millis) }
    }

    /// A moment from whole seconds since the epoch.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self::from_millis(secs.saturating_mul(1_000))
    }

    /// A moment as RFC 3339 with its offset; none for anything else, or before 1970.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let at = text.parse::<jiff::Timestamp>().ok()?;
        u64::try_from(at.as_millisecond()).ok().map(Self::from_millis)
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000
    }

    /// This moment plus `millis`, at most [`Timestamp::MAX`].
    #[must_use]
    pub const fn plus_millis(self, millis: u64) -> Self {
        Self::from_millis(self.0.saturating_add(millis))
    }

    /// This moment minus `millis`, at least the epoch.
    #[must_use]
    pub const fn minus_millis(self, millis: u64) -> Self {
        Self(self.0.saturating_sub(millis))
    }

    /// Milliseconds from `earlier` to `self`; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// RFC 3339 in UTC with milliseconds: `2026-11-22T11:31:11.000Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = i64::try_from(self.0).map_err(|_| fmt::Error)?;
        let at = jiff::Timestamp::from_millisecond(millis).map_err(|_| fmt::Error)?;
        write!(f, "{at:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_rfc_3339() {
        let check = |millis: u64, want: &str| {
            assert_eq!(Timestamp::from_millis(millis).to_string(), want);
        };
        check(0, "1970-01-01T00:00:00.000Z");
        check(1_795_346_471_005, "2026-11-22T11:21:11.005Z");
        check(u64::MAX, "9999-12-30T22:00:00.000Z");
    }

    #[test]
    fn reads_rfc_3339() {
        let read = |text: &str| Timestamp::parse(text).map(Timestamp::as_millis);
        assert_eq!(read("2026-11-22T11:21:11.005Z"), Some(1_795_346_471_005));
        assert_eq!(read("2026-11-22T12:21:11+01:00"), Some(1_795_346_471_000));
        for bad in ["", "2026-11-22", "2026-11-22T11:21:11", "1969-12-31T23:59:59Z", "now"] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
