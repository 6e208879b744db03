//! Holds that settings ask for.

use std::fmt;

use countersign_sdk::{Hold, Money, Problem, Reason, SpendRequest, Unit, Window};
use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

use crate::budget::Template;

/// Reason code: a hold of money for a payment that is worth nothing.
pub const ZERO_VALUE: &str = "zero-value";

const UTC: &str = "UTC";
const HOUR_SECONDS: u32 = 3_600;
/// What the host takes as a limit.
const MAX_LIMIT: u64 = 4_000_000_000_000_000_000;

/// One of `holds` in the settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct HoldSettings {
    /// A path such as `client/{principal.client}`.
    pub budget: String,
    /// Over which window.
    pub per: Per,
    /// At most this much in it: money, or a number of payments.
    pub limit: Limit,
    /// IANA time zone in which days and months begin; UTC if left out.
    pub timezone: Option<String>,
    /// What is held; micros if left out.
    pub unit: Option<UnitName>,
    /// Reaching this tells the operator.
    pub alert_at: Option<Limit>,
    /// Reaching this turns an allow into a review.
    pub review_at: Option<Limit>,
    /// Only for requests of which this is true.
    pub when: Option<String>,
}

/// A window by name, or rolling seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Per {
    /// The last n seconds.
    Seconds(u32),
    /// A calendar day.
    Day,
    /// A calendar month.
    Month,
    /// For ever.
    Lifetime,
}

/// What a hold counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnitName {
    /// Money.
    Micros,
    /// Payments.
    Count,
}

/// A decimal string is money, a whole number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Of the reference currency.
    Money(Money),
    /// Of payments.
    Count(u64),
}

impl Per {
    /// `hour`, `day`, `month`, `lifetime`.
    ///
    /// # Errors
    /// What would have been accepted.
    pub fn named(name: &str) -> Result<Self, String> {
        match name {
            "hour" => Ok(Self::Seconds(HOUR_SECONDS)),
            "day" => Ok(Self::Day),
            "month" => Ok(Self::Month),
            "lifetime" => Ok(Self::Lifetime),
            _ => Err(format!(
                "unknown window `{}`; allowed: `hour`, `day`, `month`, `lifetime`, or a number of seconds",
                name.escape_debug()
            )),
        }
    }

    /// The last `seconds` seconds.
    ///
    /// # Errors
    /// If that is no window.
    pub fn seconds(seconds: u64) -> Result<Self, String> {
        let seconds = u32::try_from(seconds).ok().filter(|seconds| *seconds > 0);
        seconds.map(Self::Seconds).ok_or_else(|| "a window of seconds is 1 to 4294967295 of them".to_owned())
    }

    /// The window in a time zone.
    ///
    /// # Errors
    /// If it is none.
    pub fn window(self, zone: Option<&str>) -> Result<Window, String> {
        if zone.is_some() && !matches!(self, Self::Day | Self::Month) {
            return Err("only days and months begin in a time zone".to_owned());
        }
        let zone = zone.unwrap_or(UTC);
        if !looks_like_zone(zone) {
            return Err(format!("`{}` is not an IANA time zone such as UTC or Europe/Berlin", zone.escape_debug()));
        }
        Ok(match self {
            Self::Seconds(seconds) => Window::rolling(seconds),
            Self::Day => Window::day(zone),
            Self::Month => Window::month(zone),
            Self::Lifetime => Window::lifetime(),
        })
    }
}

/// Whether the host could know such a zone. It alone has the time zone database.
fn looks_like_zone(zone: &str) -> bool {
    let in_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'+');
    let part = |part: &str| part.starts_with(|first: char| first.is_ascii_alphabetic()) && part.bytes().all(in_part);
    zone.len() <= 64 && zone.split('/').all(part)
}

impl<'de> Deserialize<'de> for Per {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Per;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`hour`, `day`, `month`, `lifetime` or a number of seconds")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Per, E> {
                Per::named(name).map_err(E::custom)
            }

            fn visit_u64<E: Error>(self, seconds: u64) -> Result<Per, E> {
                Per::seconds(seconds).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Limit;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a decimal string such as \"5.00\", or a whole number of payments")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Limit, E> {
                Money::parse(text).map(Limit::Money).map_err(E::custom)
            }

            fn visit_u64<E: Error>(self, count: u64) -> Result<Limit, E> {
                Ok(Limit::Count(count))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl Limit {
    /// In units.
    fn of(self, unit: Unit) -> Result<u64, String> {
        match (self, unit) {
            (Self::Money(money), Unit::Micros) => Ok(money.micros()),
            (Self::Count(count), Unit::Count) if count <= MAX_LIMIT => Ok(count),
            (Self::Count(_), Unit::Count) => Err(format!("a limit is at most {MAX_LIMIT}")),
            (Self::Money(_), Unit::Count) => Err("payments are counted with a whole number, without quotes".to_owned()),
            (Self::Count(_), Unit::Micros) => Err("money is written as a decimal string such as \"5.00\"; \
                                                   for a number of payments say `unit = \"count\"`"
                .to_owned()),
        }
    }
}

/// A hold that settings ask for, checked.
#[derive(Debug)]
pub struct HoldRule<T> {
    /// Where it is charged.
    pub budget: Template<T>,
    window: Window,
    unit: Unit,
    limit: u64,
    alert_at: Option<u64>,
    review_at: Option<u64>,
}

impl<T> HoldRule<T> {
    /// Checks what settings ask for; `scope` reads what is between the braces of a budget.
    ///
    /// # Errors
    /// Every problem, each at its place below `path`.
    pub fn new(
        path: &str,
        settings: &HoldSettings,
        scope: impl FnMut(&str) -> Result<T, String>,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let unit = match settings.unit {
            Some(UnitName::Count) => Unit::Count,
            Some(UnitName::Micros) | None => Unit::Micros,
        };
        let mut read = |key: &str, limit: Option<Limit>| {
            limit.and_then(|limit| {
                limit.of(unit).map_err(|why| problems.push(Problem::at(format!("{path}/{key}"), why))).ok()
            })
        };
        let limit = read("limit", Some(settings.limit));
        let (alert_at, review_at) = (read("alert-at", settings.alert_at), read("review-at", settings.review_at));
        let window = settings.per.window(settings.timezone.as_deref());
        let window = window.map_err(|why| problems.push(Problem::at(format!("{path}/timezone"), why))).ok();
        let budget = Template::parse(&format!("{path}/budget"), &settings.budget, scope);
        let budget = budget.map_err(|problem| problems.push(problem)).ok();
        match (limit, window, budget) {
            (Some(limit), Some(window), Some(budget)) if problems.is_empty() => {
                Ok(Self { budget, window, unit, limit, alert_at, review_at })
            }
            _ => Err(problems),
        }
    }

    /// The hold for a request.
    ///
    /// # Errors
    /// The reason to deny.
    pub fn hold(&self, budget: String, request: &SpendRequest) -> Result<Hold, Reason> {
        hold(budget, &self.window, self.unit, self.limit, request).map(|hold| Hold {
            alert_at: self.alert_at,
            review_at: self.review_at,
            ..hold
        })
    }
}

/// A hold of the payment's value, or of one payment.
///
/// # Errors
/// The reason to deny: nothing cannot be held.
pub fn hold(budget: String, window: &Window, unit: Unit, limit: u64, request: &SpendRequest) -> Result<Hold, Reason> {
    let window = window.clone();
    match unit {
        Unit::Count => Ok(Hold::count(budget, window, limit, 1)),
        Unit::Micros if request.payment.value == 0 => Err(Reason::new(
            ZERO_VALUE,
            format!("the payment is worth nothing, so the budget `{budget}` cannot hold it"),
        )),
        Unit::Micros => Ok(Hold::micros(budget, window, limit, request.value())),
    }
}

/// Refuses holds whose budgets could turn out to be one, each at its place in `/holds`.
#[must_use]
pub fn clashes<T>(rules: &[&HoldRule<T>]) -> Vec<Problem> {
    let first = |index: usize, rule: &HoldRule<T>| {
        rules.iter().take(index).position(|other| other.budget.may_meet(&rule.budget))
    };
    rules
        .iter()
        .enumerate()
        .filter_map(|(index, rule)| first(index, rule).map(|other| (index, other)))
        .map(|(index, other)| {
            let why = format!(
                "can be the same path as the budget of hold {other}, for some request; begin them with different words"
            );
            Problem::at(format!("/holds/{index}/budget"), why)
        })
        .collect()
}
