//! Budgets: their identity, their windows, and the arithmetic of rolling time.
//!
//! A hold is charged to the window of its *decision* and everything that later happens to it goes
//! back to that same window. The host computes windows from one reading of its clock; a policy
//! only names them.

use std::fmt;

use jiff::tz::TimeZone;
use jiff::{Timestamp as Instant, ToSpan};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::time::Timestamp;
use crate::verdict::{Hold, Unit, Window};

/// The largest amount one hold may reserve: a thousand million whole units.
pub const MAX_AMOUNT: u64 = 1_000_000_000_000_000;
/// The largest limit. `held + spent <= limit` and `amount <= MAX_AMOUNT`, so no sum in a ledger row
/// can pass 4.001e18, which fits a signed 64-bit integer.
pub const MAX_LIMIT: u64 = 4_000_000_000_000_000_000;
/// Holds one policy may ask for.
pub const MAX_HOLDS_PER_POLICY: usize = 16;
/// Holds one decision may place, the host's own among them.
pub const MAX_HOLDS_PER_DECISION: usize = 64;
/// Buckets a rolling window is divided into.
const RING: u64 = 288;
/// The owner of the budgets that the host itself holds.
pub const HOST: &str = "host";

/// Names one budget for ever: a hash of owner, name, unit and window. Two policies, or one policy
/// with two windows, never share a counter by accident.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BudgetId([u8; 16]);

impl BudgetId {
    /// Hashes length-prefixed canonical fields, so that no two field lists collide.
    #[must_use]
    pub fn of(owner: &str, name: &str, unit: Unit, window: &Window) -> Self {
        let (kind, detail) = match window {
            Window::Rolling(seconds) => ("rolling", seconds.to_string()),
            Window::Day(zone) => ("day", zone_or_utc(zone).to_owned()),
            Window::Month(zone) => ("month", zone_or_utc(zone).to_owned()),
            Window::Lifetime => ("lifetime", String::new()),
        };
        let unit = match unit {
            Unit::Micros => "micros",
            Unit::Count => "count",
        };
        let mut hash = Sha256::new_with_prefix(b"countersign/budget/v1");
        for field in [owner, name, unit, kind, &detail] {
            let length = u64::try_from(field.len()).unwrap_or(u64::MAX);
            hash.update(length.to_be_bytes());
            hash.update(field.as_bytes());
        }
        let digest: [u8; 32] = hash.finalize().into();
        let mut id = [0_u8; 16];
        id.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        Self(id)
    }

    /// The sixteen bytes a store keeps.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// From the sixteen bytes a store keeps.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for BudgetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// Why a hold cannot be placed whatever the counters say. Always the policy's (or operator's) error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HoldError {
    /// Amount zero or above [`MAX_AMOUNT`].
    Amount(u64),
    /// Limit above [`MAX_LIMIT`].
    Limit(u64),
    /// A rolling window of zero seconds or more than 400 days.
    Width(u32),
    /// Not an IANA time zone we know.
    Zone(String),
    /// Two holds of one decision name the same budget and window.
    Duplicate(String),
    /// More than [`MAX_HOLDS_PER_DECISION`] holds.
    TooMany(usize),
}

impl fmt::Display for HoldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Amount(n) => write!(f, "a hold of {n} is outside 1 to {MAX_AMOUNT}"),
            Self::Limit(n) => write!(f, "a limit of {n} is above {MAX_LIMIT}"),
            Self::Width(n) => write!(f, "a rolling window of {n} s is outside 1 s to 400 days"),
            Self::Zone(zone) => write!(f, "`{zone}` is not an IANA time zone"),
            Self::Duplicate(name) => write!(f, "budget `{name}` is held twice over the same window"),
            Self::TooMany(n) => write!(f, "{n} holds in one decision; at most {MAX_HOLDS_PER_DECISION}"),
        }
    }
}

impl std::error::Error for HoldError {}

/// A hold with its budget's identity and its window's key worked out: all a ledger needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedHold {
    /// Who asked: a policy's configured name, or [`HOST`].
    pub owner: String,
    /// The budget's path as its owner named it.
    pub name: String,
    /// What it counts.
    pub unit: Unit,
    /// Over which span.
    pub window: Window,
    /// The window's start in milliseconds since the epoch; 0 for lifetime and rolling windows.
    pub win: u64,
    /// The most the window may hold.
    pub limit: u64,
    /// What is reserved.
    pub amount: u64,
    /// Reaching this tells the operator, once per window.
    pub alert_at: Option<u64>,
    /// Reaching this turns an allow into a review.
    pub review_at: Option<u64>,
}

impl PlacedHold {
    /// Works out the window that contains `at`.
    ///
    /// # Errors
    /// When the hold is outside the contract: see [`HoldError`].
    pub fn place(owner: &str, hold: &Hold, at: Timestamp) -> Result<Self, HoldError> {
        if hold.amount == 0 || hold.amount > MAX_AMOUNT {
            return Err(HoldError::Amount(hold.amount));
        }
        if hold.limit > MAX_LIMIT {
            return Err(HoldError::Limit(hold.limit));
        }
        let (win, window) = match &hold.window {
            Window::Lifetime => (0, Window::Lifetime),
            Window::Rolling(seconds) if (1..=400 * 86_400).contains(seconds) => (0, Window::Rolling(*seconds)),
            Window::Rolling(seconds) => return Err(HoldError::Width(*seconds)),
            Window::Day(zone) => (Span::Day.bounds(zone, at)?.0, Window::Day(zone_or_utc(zone).to_owned())),
            Window::Month(zone) => (Span::Month.bounds(zone, at)?.0, Window::Month(zone_or_utc(zone).to_owned())),
        };
        Ok(Self {
            owner: owner.to_owned(),
            name: hold.budget.clone(),
            unit: hold.unit,
            window,
            win,
            limit: hold.limit,
            amount: hold.amount,
            alert_at: hold.alert_at,
            review_at: hold.review_at,
        })
    }

    /// The budget's identity.
    #[must_use]
    pub fn budget(&self) -> BudgetId {
        BudgetId::of(&self.owner, &self.name, self.unit, &self.window)
    }

    /// What people call the budget: `caps/agent/scout`; the host's own carry no prefix.
    #[must_use]
    pub fn label(&self) -> String {
        label(&self.owner, &self.name)
    }
}

/// `owner/name`, or `name` alone for the host's own budgets.
#[must_use]
pub fn label(owner: &str, name: &str) -> String {
    if owner == HOST { name.to_owned() } else { format!("{owner}/{name}") }
}

/// Checks a whole decision's holds: not too many, no budget and window twice.
///
/// # Errors
/// [`HoldError::TooMany`] or [`HoldError::Duplicate`].
pub fn check_set(holds: &[PlacedHold]) -> Result<(), HoldError> {
    if holds.len() > MAX_HOLDS_PER_DECISION {
        return Err(HoldError::TooMany(holds.len()));
    }
    let mut seen = std::collections::BTreeSet::new();
    for hold in holds {
        if !seen.insert((hold.budget(), hold.win)) {
            return Err(HoldError::Duplicate(hold.label()));
        }
    }
    Ok(())
}

/// When the window that contains `at` began; none for rolling and lifetime windows.
///
/// # Errors
/// [`HoldError::Zone`].
pub fn starts_at(window: &Window, at: Timestamp) -> Result<Option<Timestamp>, HoldError> {
    match window {
        Window::Rolling(_) | Window::Lifetime => Ok(None),
        Window::Day(zone) => Ok(Some(Timestamp::from_millis(Span::Day.bounds(zone, at)?.0))),
        Window::Month(zone) => Ok(Some(Timestamp::from_millis(Span::Month.bounds(zone, at)?.0))),
    }
}

/// When the window that contains `at` ends; none for rolling and lifetime windows.
///
/// # Errors
/// [`HoldError::Zone`].
pub fn resets_at(window: &Window, at: Timestamp) -> Result<Option<Timestamp>, HoldError> {
    let end = |span: Span, zone: &str| Ok(Some(Timestamp::from_millis(span.bounds(zone, at)?.1)));
    match window {
        Window::Rolling(_) | Window::Lifetime => Ok(None),
        Window::Day(zone) => end(Span::Day, zone),
        Window::Month(zone) => end(Span::Month, zone),
    }
}

/// Whether day and month windows can be counted in this zone: an IANA name, or empty for UTC.
#[must_use]
pub fn is_zone(zone: &str) -> bool {
    TimeZone::get(zone_or_utc(zone)).is_ok()
}

fn zone_or_utc(zone: &str) -> &str {
    if zone.is_empty() { "UTC" } else { zone }
}

#[derive(Clone, Copy)]
enum Span {
    Day,
    Month,
}

impl Span {
    /// Start (inclusive) and end (exclusive), in milliseconds since the epoch.
    fn bounds(self, zone: &str, at: Timestamp) -> Result<(u64, u64), HoldError> {
        let bad = || HoldError::Zone(zone.to_owned());
        let tz = TimeZone::get(zone_or_utc(zone)).map_err(|_| bad())?;
        let millis = i64::try_from(at.as_millis()).map_err(|_| bad())?;
        let local = Instant::from_millisecond(millis).map_err(|_| bad())?.to_zoned(tz);
        let first = match self {
            Self::Day => local.start_of_day(),
            Self::Month => local.first_of_month().and_then(|d| d.start_of_day()),
        }
        .map_err(|_| bad())?;
        let span = match self {
            Self::Day => 1.day(),
            Self::Month => 1.month(),
        };
        let next = first.checked_add(span).and_then(|d| d.start_of_day()).map_err(|_| bad())?;
        let millis = |at: &jiff::Zoned| u64::try_from(at.timestamp().as_millisecond()).unwrap_or(0);
        Ok((millis(&first), millis(&next)))
    }
}

/// The arithmetic of a rolling window: a ring of buckets beside a running total.
///
/// In every interval as long as the window the sum stays at or under the limit; an amount may stay
/// counted up to one bucket longer. It errs on the safe side only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ring {
    width: u64,
    granule: u64,
}

impl Ring {
    /// The ring of a rolling window of `seconds`.
    #[must_use]
    pub fn new(seconds: u32) -> Self {
        let width = u64::from(seconds).saturating_mul(1_000);
        Self { width, granule: width.div_ceil(RING).max(1_000) }
    }

    /// Start of the bucket that `at` falls in, in milliseconds since the epoch.
    #[must_use]
    pub fn bucket(&self, at: Timestamp) -> u64 {
        let millis = at.as_millis();
        millis.saturating_sub(millis.checked_rem(self.granule).unwrap_or(0))
    }

    /// Buckets that start at or before this have left the window at `now`; none has, if none.
    #[must_use]
    pub fn gone(&self, now: Timestamp) -> Option<u64> {
        now.as_millis().checked_sub(self.width.saturating_add(self.granule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        let t: Instant = text.parse().unwrap();
        Timestamp::from_millis(u64::try_from(t.as_millisecond()).unwrap())
    }

    fn hold(window: Window) -> Hold {
        Hold { budget: "b".into(), unit: Unit::Micros, window, limit: 10, amount: 1, alert_at: None, review_at: None }
    }

    #[test]
    fn windows_follow_the_zone_across_daylight_saving() {
        let check = |window: Window, now: &str, start: &str, end: &str| {
            let placed = PlacedHold::place("p", &hold(window.clone()), at(now)).unwrap();
            assert_eq!(Timestamp::from_millis(placed.win), at(start), "{window:?} at {now}");
            assert_eq!(resets_at(&window, at(now)).unwrap(), Some(at(end)), "{window:?} at {now}");
        };
        let day = |z: &str| Window::Day(z.into());
        let month = |z: &str| Window::Month(z.into());
        check(day(""), "2026-11-22T23:59:59.999Z", "2026-11-22T00:00:00Z", "2026-11-23T00:00:00Z");
        check(day("Europe/Berlin"), "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"); // 23 h
        check(day("Europe/Berlin"), "2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"); // 25 h
        check(day("Asia/Kathmandu"), "2026-11-22T18:14:59Z", "2026-11-21T18:15:00Z", "2026-11-22T18:15:00Z");
        check(month("America/New_York"), "2026-03-01T04:59:00Z", "2026-02-01T05:00:00Z", "2026-03-01T05:00:00Z");
        check(month("UTC"), "2028-02-29T10:00:00Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z");
        // Midnight that does not exist: the day starts at 01:00 local.
        check(day("America/Sao_Paulo"), "2018-11-04T12:00:00Z", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z");
    }

    #[test]
    fn holds_outside_the_contract_are_refused() {
        let check = |edit: fn(&mut Hold), want: HoldError| {
            let mut h = hold(Window::Lifetime);
            edit(&mut h);
            assert_eq!(PlacedHold::place("p", &h, Timestamp::default()), Err(want));
        };
        check(|h| h.amount = 0, HoldError::Amount(0));
        check(|h| h.amount = MAX_AMOUNT + 1, HoldError::Amount(MAX_AMOUNT + 1));
        check(|h| h.limit = MAX_LIMIT + 1, HoldError::Limit(MAX_LIMIT + 1));
        check(|h| h.window = Window::Rolling(0), HoldError::Width(0));
        check(|h| h.window = Window::Day("Mars/Olympus".into()), HoldError::Zone("Mars/Olympus".into()));
    }

    #[test]
    fn identity_separates_every_field() {
        let ids = [
            BudgetId::of("a", "b", Unit::Micros, &Window::Lifetime),
            BudgetId::of("ab", "", Unit::Micros, &Window::Lifetime),
            BudgetId::of("", "ab", Unit::Micros, &Window::Lifetime),
            BudgetId::of("a", "b", Unit::Count, &Window::Lifetime),
            BudgetId::of("a", "b", Unit::Micros, &Window::Rolling(60)),
            BudgetId::of("a", "b", Unit::Micros, &Window::Rolling(61)),
            BudgetId::of("a", "b", Unit::Micros, &Window::Day("UTC".into())),
            BudgetId::of("a", "b", Unit::Micros, &Window::Month("UTC".into())),
        ];
        let unique: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(unique.len(), ids.len());
        assert_eq!(
            BudgetId::of("a", "b", Unit::Micros, &Window::Day(String::new())),
            BudgetId::of("a", "b", Unit::Micros, &Window::Day("UTC".into())),
            "an unnamed zone is UTC, not a second budget"
        );
    }

    #[test]
    fn one_budget_and_window_is_held_once() {
        let place = |w| PlacedHold::place("p", &hold(w), at("2026-11-22T00:00:00Z")).unwrap();
        assert_eq!(check_set(&[place(Window::Lifetime), place(Window::Day(String::new()))]), Ok(()));
        let twice = [place(Window::Day(String::new())), place(Window::Day("UTC".into()))];
        assert_eq!(check_set(&twice), Err(HoldError::Duplicate("p/b".into())));
    }

    #[test]
    fn a_bucket_leaves_only_when_all_of_it_is_older_than_the_window() {
        let hour = Ring::new(3_600);
        assert_eq!(hour.granule, 12_500);
        let spent = at("2026-11-22T10:00:07Z");
        let bucket = hour.bucket(spent);
        assert!(bucket <= spent.as_millis());
        let counted = |now: Timestamp| hour.gone(now).is_none_or(|gone| bucket > gone);
        assert!(counted(spent.plus_millis(3_600_000)));
        assert!(!counted(spent.plus_millis(3_600_000 + 12_500)));
        assert_eq!(Ring::new(10).granule, 1_000);
        assert_eq!(hour.gone(Timestamp::from_secs(5)), None);
    }
}
