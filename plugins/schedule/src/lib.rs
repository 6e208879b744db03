//! Keeps spending to the hours, weekdays and dates at which it is meant to happen.
//!
//! - **Settings** ([`Settings`]): `hours`, `weekdays`, `dates` and `closed-dates`, at least one of them,
//!   in the time zone `timezone` (IANA, default UTC). What is left out does not restrict.
//! - **Verdict**: *deny*, or *review* with `action = "review"`, outside, with every reason that applies;
//!   *abstain* inside. It never allows: combine it with a policy that does.
//! - **Holds**: none.
//!
//! | code | when |
//! |---|---|
//! | `outside-hours` | the time is in none of `hours` |
//! | `outside-weekdays` | the day is none of `weekdays` |
//! | `outside-dates` | the date is none of `dates` |
//! | `closed-date` | the date is one of `closed-dates` |
//!
//! Hours begin with their first minute and end before their last. `22:00-06:00` ends on the next day and
//! belongs to the day on which it begins: with `weekdays = ["fri"]`, it is still Friday at 05:59 on
//! Saturday. Hours are as clocks show them: what a clock skips in spring does not happen, and what it
//! shows twice in autumn happens twice. The only time is `request.at`, when the gateway decides.

mod calendar;

use std::collections::BTreeSet;

use countersign_sdk::{
    Action, Decision, Objection, Policy, Problem, ReviewSettings, SpendRequest, ZoneName, export_policy,
};
use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use serde::Deserialize;

pub use calendar::{Dates, Day, Hours};

/// When may be spent.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// At these hours; at any if left out.
    pub hours: Option<Vec<Hours>>,
    /// On these days; on any if left out.
    pub weekdays: Option<BTreeSet<Day>>,
    /// On these dates; on any if left out.
    pub dates: Option<Vec<Dates>>,
    /// Never on these dates.
    pub closed_dates: Option<Vec<Dates>>,
    /// IANA time zone of all of them; UTC if left out.
    pub timezone: Option<ZoneName>,
    /// What to do outside; refuse if left out.
    pub action: Option<Action>,
    /// The operator group that must approve; any approver if left out.
    pub group: Option<String>,
    /// How many must approve.
    pub quorum: Option<u8>,
    /// After how many seconds silence is a no.
    pub expires_in_seconds: Option<u32>,
}

/// The configured policy.
#[derive(Debug)]
pub struct Schedule {
    hours: Option<Vec<Hours>>,
    weekdays: Option<BTreeSet<Day>>,
    dates: Option<Vec<Dates>>,
    closed_dates: Vec<Dates>,
    zone_name: ZoneName,
    zone: TimeZone,
    action: Action,
    review: ReviewSettings,
}

impl Policy for Schedule {
    type Settings = Settings;
    const NAME: &'static str = "schedule";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Keeps spending to hours, weekdays and dates in a time zone.";

    fn settings_schema() -> &'static str {
        include_str!("../settings.schema.json")
    }

    fn configure(settings: Settings) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let Settings { hours, weekdays, dates, closed_dates, group, quorum, expires_in_seconds, .. } = settings;
        let lists = [
            ("/hours", hours.as_ref().map(Vec::len)),
            ("/weekdays", weekdays.as_ref().map(BTreeSet::len)),
            ("/dates", dates.as_ref().map(Vec::len)),
            ("/closed-dates", closed_dates.as_ref().map(Vec::len)),
        ];
        let empty = lists.iter().filter(|(_, length)| *length == Some(0));
        problems.extend(empty.map(|(path, _)| Problem::at(*path, "list at least one, or leave the key out")));
        if lists.iter().all(|(_, length)| length.is_none()) {
            problems.push(Problem::document(
                "set at least one of `hours`, `weekdays`, `dates`, `closed-dates`: without any it is always open",
            ));
        }
        let zone_name = settings.timezone.unwrap_or_default();
        let zone = TimeZone::get(zone_name.as_str()).ok().filter(|zone| !zone.is_unknown()).unwrap_or_else(|| {
            problems.push(Problem::at("/timezone", format!("there is no IANA time zone `{zone_name}`")));
            TimeZone::UTC
        });
        let policy = Self {
            hours,
            weekdays,
            dates,
            closed_dates: closed_dates.unwrap_or_default(),
            zone_name,
            zone,
            action: settings.action.unwrap_or(Action::Deny),
            review: ReviewSettings::check(group, quorum, expires_in_seconds, &mut problems),
        };
        if problems.is_empty() { Ok(policy) } else { Err(problems) }
    }

    fn evaluate(&self, request: &SpendRequest) -> Result<Decision, String> {
        let now = self.local(request.at)?;
        let days = self.business_days(now);
        let objections = if days.is_empty() {
            let closed = self.object("outside-hours", now, "not within the hours");
            std::iter::once(closed).chain(self.objections_to(now.date(), now)).collect()
        } else {
            let by_day: Vec<Vec<Objection>> = days.iter().map(|day| self.objections_to(*day, now)).collect();
            // Open if any of the days is; else why the first of them is not.
            by_day.iter().min_by_key(|found| !found.is_empty()).cloned().unwrap_or_default()
        };
        Ok(self.review.decide(objections))
    }
}

impl Schedule {
    /// What a clock in the time zone shows.
    fn local(&self, at: u64) -> Result<DateTime, String> {
        let millis = i64::try_from(at).ok();
        let instant = millis.and_then(|millis| Timestamp::from_millisecond(millis).ok());
        instant.map(|instant| self.zone.to_datetime(instant)).ok_or_else(|| format!("{at} ms is beyond the calendar"))
    }

    /// The days whose hours it is: today's, or yesterday's that have not ended.
    fn business_days(&self, now: DateTime) -> Vec<Date> {
        let Some(hours) = &self.hours else {
            return vec![now.date()];
        };
        let today = hours.iter().any(|hours| hours.has_begun(now.time()));
        let yesterday = hours.iter().any(|hours| hours.goes_on(now.time()));
        let yesterday = yesterday.then(|| now.date().yesterday().ok()).flatten();
        today.then(|| now.date()).into_iter().chain(yesterday).collect()
    }

    fn objections_to(&self, day: Date, now: DateTime) -> Vec<Objection> {
        let within = |dates: &[Dates]| dates.iter().any(|dates| dates.contain(day));
        let mut found = Vec::new();
        if self.weekdays.as_ref().is_some_and(|days| !days.contains(&Day::of(day))) {
            found.push(self.object("outside-weekdays", now, "not one of the weekdays"));
        }
        if self.dates.as_ref().is_some_and(|dates| !within(dates)) {
            found.push(self.object("outside-dates", now, "not one of the dates"));
        }
        if within(&self.closed_dates) {
            found.push(self.object("closed-date", now, "closed on that date"));
        }
        found
    }

    fn object(&self, code: &str, now: DateTime, what: &str) -> Objection {
        let (date, day, time, zone) = (now.date(), Day::of(now.date()), now.time(), &self.zone_name);
        let message = format!("{day} {date} {:02}:{:02} in {zone}: {what}", time.hour(), time.minute());
        self.action.because(code, message)
    }
}

export_policy!(Schedule);

#[cfg(test)]
mod tests;
