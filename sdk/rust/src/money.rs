//! Exact money: micros of the reference currency, written as decimal strings.

use std::fmt;
use std::str::FromStr;

use crate::pattern::{ParseError, string_setting};

/// Digits behind the point: one unit is 10^6 micros.
const DECIMALS: usize = 6;
const MICROS_PER_UNIT: u64 = 1_000_000;
/// The contract keeps micros below 2^53 so that every guest language holds them exactly.
const MAX_MICROS: u64 = (1 << 53) - 1;

/// An amount of the operator's reference currency, exact to a millionth.
///
/// In settings and in text it is a decimal string such as `"1.00"`: digits, optionally a point and
/// one to six digits. JSON numbers are refused because they are floating point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(u64);

impl Money {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// From millionths.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// In millionths.
    #[must_use]
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// Parses `"1"`, `"1.00"`, `"0.000001"`. Exact; never rounds.
    ///
    /// # Errors
    /// Says what about the text is not a decimal amount.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        parse(text)
            .map(Self)
            .map_err(|why| ParseError::new(format!("`{}` is not an amount: {why}", text.escape_debug())))
    }
}

fn parse(text: &str) -> Result<u64, &'static str> {
    const TOO_LARGE: &str = "it must be below 9007199254.740992";
    if text.is_empty() {
        return Err("it is empty; write a decimal such as 1.00");
    }
    if text.starts_with('-') {
        return Err("it must not be negative");
    }
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    if !all_digits(whole) || !fraction.is_none_or(all_digits) {
        return Err("write digits only, with at most one point between them, such as 1.00");
    }
    if whole.len() > 1 && whole.starts_with('0') {
        return Err("it must not have leading zeros");
    }
    let fraction = fraction.unwrap_or("0");
    if fraction.len() > DECIMALS {
        return Err("it has more than 6 decimals");
    }
    let whole: u64 = whole.parse().map_err(|_| TOO_LARGE)?;
    let fraction: u64 = format!("{fraction:0<DECIMALS$}").parse().map_err(|_| TOO_LARGE)?;
    whole
        .checked_mul(MICROS_PER_UNIT)
        .and_then(|micros| micros.checked_add(fraction))
        .filter(|micros| *micros <= MAX_MICROS)
        .ok_or(TOO_LARGE)
}

fn all_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// At least two decimals, no needless zeros behind: `1.00`, `0.05`, `0.001`.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.0 / MICROS_PER_UNIT;
        let fraction = self.0 % MICROS_PER_UNIT;
        let digits = format!("{fraction:0DECIMALS$}");
        f.pad(&format!("{whole}.{:0<2}", digits.trim_end_matches('0')))
    }
}

impl FromStr for Money {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::parse(text)
    }
}

impl From<Money> for u64 {
    fn from(money: Money) -> Self {
        money.0
    }
}

string_setting!(Money, "a decimal string such as \"1.00\"");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_both_ways() {
        for (text, micros, shown) in [
            ("0", 0, "0.00"),
            ("0.000001", 1, "0.000001"),
            ("0.001", 1_000, "0.001"),
            ("0.05", 50_000, "0.05"),
            ("0.5", 500_000, "0.50"),
            ("1", 1_000_000, "1.00"),
            ("1.00", 1_000_000, "1.00"),
            ("1.000000", 1_000_000, "1.00"),
            ("20.10", 20_100_000, "20.10"),
            ("9007199254.740991", MAX_MICROS, "9007199254.740991"),
        ] {
            let money = Money::parse(text).unwrap();
            assert_eq!(money.micros(), micros, "{text}");
            assert_eq!(money.to_string(), shown, "{text}");
            assert_eq!(Money::parse(shown).unwrap(), money, "{shown}");
        }
    }

    #[test]
    fn refuses_with_a_cause() {
        for (text, cause) in [
            ("", "empty"),
            ("-1", "negative"),
            ("+1", "digits only"),
            (".5", "digits only"),
            ("1.", "digits only"),
            ("1.2.3", "digits only"),
            ("1,000", "digits only"),
            ("1e3", "digits only"),
            (" 1", "digits only"),
            ("1_000", "digits only"),
            ("٣", "digits only"),
            ("$1", "digits only"),
            ("01", "leading zeros"),
            ("0.0000001", "more than 6 decimals"),
            ("1.0000000", "more than 6 decimals"),
            ("9007199254.740992", "below"),
            ("99999999999999999999999", "below"),
        ] {
            let error = Money::parse(text).unwrap_err().to_string();
            assert!(error.contains(cause), "{text}: {error}");
        }
    }
}
