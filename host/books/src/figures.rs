//! Numbers, moments and shares, written exactly and without floating point.

use countersign_core::ledger::{PaymentView, Refund};
use countersign_core::money::{Atomic, Micros};
use countersign_core::payment::State;
use countersign_core::time::Timestamp;

/// How many decimals a figure shows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Places {
    /// As few as say it.
    Least,
    /// All that the unit has.
    All,
}

/// The digits of a number, with zeros before it so that there are at least `width` (20 at most).
pub(crate) fn number(out: &mut String, n: u64, width: usize) {
    digits::<20>(n.into(), width, |text| out.push_str(text));
}

/// The last `N` digits of a number, at least `width` of them.
fn digits<const N: usize>(n: u128, width: usize, with: impl FnOnce(&str)) {
    let mut digits = [b'0'; N];
    let mut rest = n;
    let mut used = 0_usize;
    for digit in digits.iter_mut().rev() {
        if rest == 0 {
            break;
        }
        // Dividing 64 bits is much the cheaper.
        let (more, last) = match u64::try_from(rest) {
            Ok(rest) => (u128::from(rest / 10), rest % 10),
            Err(_) => (rest / 10, u64::try_from(rest % 10).unwrap_or(0)),
        };
        *digit = b'0'.saturating_add(u8::try_from(last).unwrap_or(0));
        rest = more;
        used = used.saturating_add(1);
    }
    let from = N.saturating_sub(used.max(width));
    with(std::str::from_utf8(digits.get(from..).unwrap_or_default()).unwrap_or_default());
}

/// `units` of the smallest unit in whole units.
pub(crate) fn decimal(out: &mut String, units: u128, decimals: u8, places: Places) {
    // The longest number has 39 digits, and no asset more than 255 decimals.
    digits::<256>(units, usize::from(decimals).saturating_add(1), |text| {
        let (whole, fraction) = text.split_at(text.len().saturating_sub(usize::from(decimals)));
        let fraction = if places == Places::Least { fraction.trim_end_matches('0') } else { fraction };
        out.push_str(whole);
        if !fraction.is_empty() {
            out.push('.');
            out.push_str(fraction);
        }
    });
}

/// A UTC calendar day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Day {
    year: u64,
    month: u64,
    day: u64,
}

impl Day {
    /// The day that contains a moment. (H. Hinnant, "chrono-compatible low-level date algorithms".)
    pub(crate) const fn of(at: Timestamp) -> Self {
        // 719,468 days lie between 0000-03-01 and 1970-01-01; an era is 400 years.
        let days = at.as_secs() / 86_400 + 719_468;
        let era = days / 146_097;
        let in_era = days % 146_097;
        let year_of_era = (in_era - in_era / 1_460 + in_era / 36_524 - in_era / 146_096) / 365;
        let in_year = in_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * in_year + 2) / 153;
        let day = in_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
        Self { year, month, day }
    }

    /// `2026-11-23`.
    pub(crate) fn write(self, out: &mut String) {
        number(out, self.year, 4);
        for part in [self.month, self.day] {
            out.push('-');
            number(out, part, 2);
        }
    }

    /// The first day of its month and of the next one.
    pub(crate) const fn month_bounds(self) -> (Self, Self) {
        let first = Self { day: 1, ..self };
        let next = if self.month == 12 {
            Self { year: self.year + 1, month: 1, day: 1 }
        } else {
            Self { month: self.month + 1, day: 1, ..self }
        };
        (first, next)
    }
}

/// RFC 3339 in UTC with milliseconds.
pub(crate) fn moment(out: &mut String, at: Timestamp) {
    to_second(out, at);
    out.push('.');
    number(out, at.as_millis() % 1_000, 3);
    out.push('Z');
}

/// RFC 3339 in UTC with whole seconds.
pub(crate) fn second(out: &mut String, at: Timestamp) {
    to_second(out, at);
    out.push('Z');
}

fn to_second(out: &mut String, at: Timestamp) {
    Day::of(at).write(out);
    let secs = at.as_secs() % 86_400;
    for (before, part) in [('T', secs / 3_600), (':', secs / 60 % 60), (':', secs % 60)] {
        out.push(before);
        number(out, part, 2);
    }
}

/// Towards which side a share is rounded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Round {
    Up,
    Down,
}

/// `value * part / whole`, exactly, whatever the size of `part` and `whole`; all of it if `part >= whole`.
fn share(value: u64, part: u128, whole: u128, round: Round) -> u64 {
    if part >= whole {
        return value;
    }
    // Long multiplication by the bits of `value`, dividing as it goes: the remainder stays below `whole`.
    let (mut quotient, mut rest) = (0_u64, 0_u128);
    for bit in (0..u64::BITS).rev() {
        let (doubled, carried) = rest.overflowing_mul(2);
        quotient = quotient.saturating_mul(2);
        rest = doubled;
        if carried || rest >= whole {
            rest = rest.wrapping_sub(whole);
            quotient = quotient.saturating_add(1);
        }
        if value >> bit & 1 == 1 {
            let (sum, carried) = rest.overflowing_add(part);
            rest = sum;
            if carried || rest >= whole {
                rest = rest.wrapping_sub(whole);
                quotient = quotient.saturating_add(1);
            }
        }
    }
    if round == Round::Up && rest > 0 { quotient.saturating_add(1) } else { quotient }
}

/// An amount of the asset with its value in the reference currency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) amount: u128,
    pub(crate) value: u64,
}

impl Sum {
    /// What may be redeemed, of a payment that nobody has proven used or unused.
    pub(crate) fn in_doubt(payment: &PaymentView) -> Self {
        if !payment.state.is_open() {
            return Self::default();
        }
        Self { amount: payment.facts.amount.get(), value: payment.facts.value.get() }
    }

    /// What was redeemed, of a payment that the chain has proven. Less than all of it is valued by its share of the
    /// recorded value, rounded up like the value itself.
    pub(crate) fn settled(payment: &PaymentView) -> Self {
        if !payment.state.is_spent() {
            return Self::default();
        }
        let all = payment.facts.amount.get();
        let redeemed = payment.evidence.as_ref().and_then(|e| e.redeemed).map_or(all, Atomic::get);
        Self { amount: redeemed, value: share(payment.facts.value.get(), redeemed, all, Round::Up) }
    }

    /// What came back, refund by refund. Each is what the refunds up to it are worth less what those before it were,
    /// so that a payment that came back whole came back at exactly its value.
    pub(crate) fn refunds(payment: &PaymentView) -> impl Iterator<Item = (&Refund, Self)> {
        let settled = Self::settled(payment);
        payment.refunds.iter().scan(Self::default(), move |before, refund| {
            let amount = before.amount.saturating_add(refund.amount.get());
            let value = share(settled.value, amount, settled.amount, Round::Down);
            let one = Self { amount: refund.amount.get(), value: value.saturating_sub(before.value) };
            *before = Self { amount, value };
            Some((refund, one))
        })
    }

    /// What came back in all.
    pub(crate) fn refunded(payment: &PaymentView) -> Self {
        Self::refunds(payment).fold(Self::default(), |all, (_, one)| Self {
            amount: all.amount.saturating_add(one.amount),
            value: all.value.saturating_add(one.value),
        })
    }

    /// Appends the value.
    pub(crate) fn write_value(self, out: &mut String, places: Places) {
        decimal(out, u128::from(self.value), Micros::DECIMALS, places);
    }
}

/// When the money moved: the time of the block that proves it, else when the ledger learned of it.
pub(crate) fn settled_at(payment: &PaymentView) -> Option<Timestamp> {
    if !payment.state.is_spent() {
        return None;
    }
    let block = payment.evidence.as_ref().and_then(|e| e.block_time).map(Timestamp::from_secs);
    let learned = || payment.history.iter().find(|step| step.state == State::Settled).map(|step| step.at);
    Some(block.or_else(learned).unwrap_or(payment.updated_at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_exact() {
        let check = |units, decimals, places, want: &str| {
            let mut out = String::from("x");
            decimal(&mut out, units, decimals, places);
            assert_eq!(out, format!("x{want}"));
        };
        check(0, 6, Places::Least, "0");
        check(0, 6, Places::All, "0.000000");
        check(1_500_000, 6, Places::Least, "1.5");
        check(1_000_000, 6, Places::All, "1.000000");
        check(1_000, 0, Places::Least, "1000");
        check(1, 18, Places::Least, "0.000000000000000001");
        check(u128::MAX, 18, Places::All, "340282366920938463463.374607431768211455");
    }

    #[test]
    fn moments_are_those_of_the_core() {
        // Every day until 2120, a leap century and the last moment there is.
        let days = (0..55_000_u64).map(|day| day * 86_400_000 + day % 86_400 * 1_000 + day % 1_000);
        for millis in days.chain([4_107_542_399_999, 13_574_000_000_000, u64::MAX]) {
            let at = Timestamp::from_millis(millis);
            let mut out = String::new();
            moment(&mut out, at);
            assert_eq!(out, at.to_string());
        }
    }

    #[test]
    fn months_end_where_the_next_begins() {
        let (first, next) = Day::of(Timestamp::from_secs(1_798_675_200)).month_bounds();
        let mut out = String::new();
        first.write(&mut out);
        next.write(&mut out);
        assert_eq!(out, "2026-12-012027-01-01");
    }

    #[test]
    fn shares_are_exact() {
        assert_eq!(share(10, 1, 3, Round::Down), 3);
        assert_eq!(share(10, 1, 3, Round::Up), 4);
        assert_eq!(share(10, 3, 3, Round::Down), 10);
        assert_eq!(share(10, 0, 0, Round::Up), 10, "nothing of nothing is all of it");
        assert_eq!(share(1_000_000_000_000_000, u128::MAX - 1, u128::MAX, Round::Down), 999_999_999_999_999);
        assert_eq!(share(1_000_000_000_000_000, u128::MAX / 2, u128::MAX, Round::Up), 500_000_000_000_000);
        for value in 0..50_u64 {
            for whole in 1..40_u128 {
                for part in 0..whole {
                    let exact = u128::from(value) * part;
                    assert_eq!(u128::from(share(value, part, whole, Round::Down)), exact / whole);
                    assert_eq!(u128::from(share(value, part, whole, Round::Up)), exact.div_ceil(whole));
                }
            }
        }
    }
}
