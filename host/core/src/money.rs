//! Money as integers. There is no floating point in this crate.
//!
//! Two units exist. [`Atomic`] is what moves on a chain, in the asset's smallest unit. [`Micros`]
//! is what budgets are kept in: millionths of the operator's reference currency, always rounded
//! *up* from the atomic amount, so that a budget never undercounts.

use std::fmt;
use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

/// Why an amount was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoneyError {
    /// Not decimal digits in the one accepted spelling.
    Malformed,
    /// More decimals than the unit has.
    TooPrecise,
    /// Above what a ledger entry may hold.
    TooLarge,
}

impl MoneyError {
    /// Stable code for programs.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Malformed => "amount-malformed",
            Self::TooPrecise => "amount-too-precise",
            Self::TooLarge => "amount-too-large",
        }
    }
}

impl fmt::Display for MoneyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "expected a plain decimal number such as \"1.50\"",
            Self::TooPrecise => "more decimals than the unit has (6 for the reference currency)",
            Self::TooLarge => "larger than a ledger entry may be (1,000,000,000.00)",
        })
    }
}

impl std::error::Error for MoneyError {}

/// An amount of an asset in its smallest unit.
///
/// The wire allows 256 bits; we pay nothing near 2^128, and refusing more keeps every product
/// below inside checked 128-bit arithmetic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Atomic(u128);

impl Atomic {
    /// Wraps a count of atomic units.
    #[must_use]
    pub const fn new(units: u128) -> Self {
        Self(units)
    }

    /// The count of atomic units.
    #[must_use]
    pub const fn get(self) -> u128 {
        self.0
    }

    /// Parses the wire's spelling: decimal digits, no sign, no leading zero, not zero itself.
    ///
    /// # Errors
    /// [`MoneyError::Malformed`] for any other spelling, [`MoneyError::TooLarge`] from 2^128 on.
    pub fn parse_price(text: &str) -> Result<Self, MoneyError> {
        let digits = !text.is_empty() && text.len() <= 78 && text.bytes().all(|b| b.is_ascii_digit());
        if !digits || text.starts_with('0') {
            return Err(MoneyError::Malformed);
        }
        text.parse().map(Self).map_err(|_| MoneyError::TooLarge)
    }

    /// Parses whole units: `0.001` with 6 decimals is 1000.
    ///
    /// # Errors
    /// [`MoneyError`] for any other spelling, more decimals than the asset has, or 2^128 and more.
    pub fn parse(text: &str, decimals: u8) -> Result<Self, MoneyError> {
        parse_decimal(text, decimals).map(Self)
    }

    /// Big-endian in 32 bytes, as the EVM and the ledger keep it.
    #[must_use]
    pub fn to_be_bytes32(self) -> [u8; 32] {
        let mut out = [0_u8; 32];
        let (_, low) = out.split_at_mut(16);
        low.copy_from_slice(&self.0.to_be_bytes());
        out
    }

    /// The inverse of [`Atomic::to_be_bytes32`]; none above 2^128.
    #[must_use]
    pub fn from_be_bytes32(bytes: &[u8; 32]) -> Option<Self> {
        let (high, low) = bytes.split_first_chunk::<16>()?;
        let low: [u8; 16] = low.try_into().ok()?;
        (*high == [0; 16]).then(|| Self(u128::from_be_bytes(low)))
    }

    /// Of `units` that stand for `whole`, those that this part of it stands for, rounded up; all of them,
    /// if it is not less than the whole.
    #[must_use]
    pub fn share_up(self, whole: Self, units: u64) -> u64 {
        let down = self.share_down(whole, units);
        let exact = down == units || widening(whole.0, down) == widening(self.0, units);
        down.saturating_add(u64::from(!exact))
    }

    /// As [`Atomic::share_up`], rounded down.
    #[must_use]
    pub fn share_down(self, whole: Self, units: u64) -> u64 {
        if self >= whole {
            return units;
        }
        // The largest share with `share * whole <= units * part`: the products may pass 128 bits.
        let target = widening(self.0, units);
        let (mut low, mut high) = (0, units);
        while low < high {
            let middle = high.saturating_sub(high.saturating_sub(low) / 2);
            if widening(whole.0, middle) <= target {
                low = middle;
            } else {
                high = middle.saturating_sub(1);
            }
        }
        low
    }

    /// The amount in whole units: `1000` with 6 decimals prints `0.001`.
    #[must_use]
    pub fn display(self, decimals: u8) -> String {
        decimal(self.0, decimals)
    }
}

impl fmt::Display for Atomic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Serialize for Atomic {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Atomic {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        let plain = text.bytes().all(|b| b.is_ascii_digit());
        if !plain {
            return Err(serde::de::Error::custom(MoneyError::Malformed));
        }
        text.parse().map(Self).map_err(|_| serde::de::Error::custom(MoneyError::TooLarge))
    }
}

/// Millionths of the reference currency, at most [`Micros::MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Micros(u64);

impl Micros {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// A thousand million whole units. Below 2^53, so that every guest language holds it exactly,
    /// and small enough that no sum a ledger row may hold can overflow.
    pub const MAX: Self = Self(1_000_000_000_000_000);
    /// Decimals of the reference currency.
    pub const DECIMALS: u8 = 6;

    /// Wraps a count of millionths.
    ///
    /// # Errors
    /// [`MoneyError::TooLarge`] above [`Micros::MAX`].
    pub const fn new(micros: u64) -> Result<Self, MoneyError> {
        if micros > Self::MAX.0 { Err(MoneyError::TooLarge) } else { Ok(Self(micros)) }
    }

    /// The count of millionths.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Parses what people write: `"1"`, `"1.5"`, `"0.000001"`. No sign, no exponent, no blanks.
    ///
    /// # Errors
    /// See [`MoneyError`].
    pub fn parse(text: &str) -> Result<Self, MoneyError> {
        let units = parse_decimal(text, Self::DECIMALS)?;
        u64::try_from(units).map_err(|_| MoneyError::TooLarge).and_then(Self::new)
    }
}

/// In whole units without trailing zeros: `0.001`, `2.5`, `100`.
impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&decimal(u128::from(self.0), Self::DECIMALS))
    }
}

impl<'de> Deserialize<'de> for Micros {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::new(u64::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

/// What one whole unit of an asset costs in the reference currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    micros_per_whole: NonZeroU64,
    decimals: u8,
}

impl Price {
    /// A price for an asset with `decimals` decimals (at most 24).
    ///
    /// # Errors
    /// [`MoneyError::Malformed`] for a zero price, [`MoneyError::TooPrecise`] above 24 decimals.
    pub fn new(per_whole: Micros, decimals: u8) -> Result<Self, MoneyError> {
        if decimals > 24 {
            return Err(MoneyError::TooPrecise);
        }
        let micros_per_whole = NonZeroU64::new(per_whole.get()).ok_or(MoneyError::Malformed)?;
        Ok(Self { micros_per_whole, decimals })
    }

    /// The reference-currency value of `amount`, rounded up.
    ///
    /// # Errors
    /// [`MoneyError::TooLarge`] when the value passes [`Micros::MAX`].
    pub fn value(&self, amount: Atomic) -> Result<Micros, MoneyError> {
        let whole = 10_u128.checked_pow(u32::from(self.decimals)).ok_or(MoneyError::TooLarge)?;
        let product = amount.get().checked_mul(u128::from(self.micros_per_whole.get())).ok_or(MoneyError::TooLarge)?;
        u64::try_from(product.div_ceil(whole)).map_err(|_| MoneyError::TooLarge).and_then(Micros::new)
    }
}

/// The product in 192 bits: its upper 64 and its lower 128.
fn widening(a: u128, b: u64) -> (u128, u128) {
    let b = u128::from(b);
    // Two products of 64 bits each fit 128, and so does the carry.
    let low = (a & u128::from(u64::MAX)).wrapping_mul(b);
    let high = (a >> 64).wrapping_mul(b).wrapping_add(low >> 64);
    (high >> 64, (high << 64) | (low & u128::from(u64::MAX)))
}

/// Digits with at most one dot, scaled to `decimals`.
fn parse_decimal(text: &str, decimals: u8) -> Result<u128, MoneyError> {
    let (whole, fraction) = match text.split_once('.') {
        None => (text, ""),
        Some((_, "")) => return Err(MoneyError::Malformed),
        Some(parts) => parts,
    };
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let canonical = !whole.is_empty() && (whole == "0" || !whole.starts_with('0'));
    if !canonical || !digits(whole) || !digits(fraction) {
        return Err(MoneyError::Malformed);
    }
    let places = usize::from(decimals);
    if fraction.len() > places {
        return Err(MoneyError::TooPrecise);
    }
    if whole.len() > 20 {
        return Err(MoneyError::TooLarge);
    }
    format!("{whole}{fraction:0<places$}").parse().map_err(|_| MoneyError::TooLarge)
}

fn decimal(units: u128, decimals: u8) -> String {
    let places = usize::from(decimals);
    let digits = format!("{units:0>width$}", width = places.saturating_add(1));
    let (whole, fraction) = digits.split_at(digits.len().saturating_sub(places));
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_amounts_have_one_spelling() {
        assert_eq!(Atomic::parse_price("1000"), Ok(Atomic::new(1000)));
        for bad in ["", "0", "00", "01", "+1", "-1", " 1", "1 ", "1e3", "0x3e8", "1.0", "１"] {
            assert_eq!(Atomic::parse_price(bad), Err(MoneyError::Malformed), "{bad:?}");
        }
        let max = u128::MAX.to_string();
        assert_eq!(Atomic::parse_price(&max), Ok(Atomic::new(u128::MAX)));
        let two_to_the_256 = "115792089237316195423570985008687907853269984665640564039457584007913129639936";
        for big in ["340282366920938463463374607431768211456", two_to_the_256] {
            assert_eq!(Atomic::parse_price(big), Err(MoneyError::TooLarge), "{big}");
        }
    }

    #[test]
    fn people_write_decimals() {
        let check = |text: &str, want: Result<u64, MoneyError>| {
            assert_eq!(Micros::parse(text).map(Micros::get), want, "{text:?}");
        };
        check("0", Ok(0));
        check("1", Ok(1_000_000));
        check("1.5", Ok(1_500_000));
        check("0.000001", Ok(1));
        check("1000000000", Ok(1_000_000_000_000_000));
        check("1000000000.000001", Err(MoneyError::TooLarge));
        check("0.0000001", Err(MoneyError::TooPrecise));
        for bad in ["", ".5", "5.", "1,5", "-1", "+1", "1e3", "01", " 1", "0x1", "1.2.3", "∞"] {
            check(bad, Err(MoneyError::Malformed));
        }
    }

    #[test]
    fn values_round_up_and_never_overflow() -> Result<(), MoneyError> {
        let usdc = Price::new(Micros::parse("1")?, 6)?;
        assert_eq!(usdc.value(Atomic::new(1000))?, Micros::new(1000)?);
        let eighteen = Price::new(Micros::parse("1")?, 18)?;
        assert_eq!(eighteen.value(Atomic::new(1))?, Micros::new(1)?, "dust costs a micro, not nothing");
        assert_eq!(eighteen.value(Atomic::new(1_000_000_000_001))?, Micros::new(2)?);
        assert_eq!(eighteen.value(Atomic::new(u128::MAX)), Err(MoneyError::TooLarge));
        assert_eq!(usdc.value(Atomic::new(1_000_000_000_000_001)), Err(MoneyError::TooLarge));
        let euro = Price::new(Micros::parse("1.08")?, 6)?;
        assert_eq!(euro.value(Atomic::new(1))?, Micros::new(2)?);
        Ok(())
    }

    #[test]
    fn shares_are_exact_at_any_size() {
        let check = |part: u128, whole: u128, units: u64, down: u64, up: u64| {
            let (part, whole) = (Atomic::new(part), Atomic::new(whole));
            assert_eq!(part.share_down(whole, units), down, "{part} of {whole}, {units} units");
            assert_eq!(part.share_up(whole, units), up, "{part} of {whole}, {units} units");
        };
        check(0, 3, 10, 0, 0);
        check(1, 3, 10, 3, 4);
        check(2, 3, 9, 6, 6);
        check(3, 3, 10, 10, 10);
        check(4, 3, 10, 10, 10);
        check(u128::MAX - 1, u128::MAX, u64::MAX, u64::MAX - 1, u64::MAX);
        check(u128::MAX / 5, u128::MAX, 1_000_000_000_000_000, 200_000_000_000_000, 200_000_000_000_000);
        check(1, u128::MAX, u64::MAX, 0, 1);
        for part in 0..60_u64 {
            for whole in 1..40_u64 {
                for units in 0..25_u64 {
                    let product = units * part.min(whole);
                    check(part.into(), whole.into(), units, product / whole, product.div_ceil(whole));
                }
            }
        }
    }

    #[test]
    fn prints_what_it_parses() {
        for text in ["0", "0.001", "2.5", "100", "999999999.999999"] {
            assert_eq!(Micros::parse(text).map(|m| m.to_string()).as_deref(), Ok(text));
        }
        assert_eq!(Atomic::new(1).display(18), "0.000000000000000001");
        assert_eq!(Atomic::new(15).display(0), "15");
    }

    #[test]
    fn thirty_two_bytes_round_trip() {
        for n in [0, 1, u128::MAX] {
            assert_eq!(Atomic::from_be_bytes32(&Atomic::new(n).to_be_bytes32()), Some(Atomic::new(n)));
        }
        let mut high = [0_u8; 32];
        high[15] = 1;
        assert_eq!(Atomic::from_be_bytes32(&high), None);
    }
}
