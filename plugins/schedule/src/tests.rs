use countersign_sdk::testing::{Harness, RequestBuilder, assert_schema_agrees, json, problems, request, run_cases};

use super::*;

#[test]
fn cases() {
    run_cases::<Schedule>(include_str!("../cases.json"));
}

#[test]
fn schema() {
    assert_schema_agrees::<Schedule>();
}

fn at(instant: &str) -> RequestBuilder {
    let instant: Timestamp = instant.parse().unwrap();
    request().at(u64::try_from(instant.as_millisecond()).unwrap())
}

#[track_caller]
fn check(policy: &Harness<Schedule>, instants: &[(&str, &[&str])]) {
    for (instant, codes) in instants {
        let outcome = policy.evaluate(&at(instant));
        assert_eq!(outcome.codes(), *codes, "{instant}: {:?}", outcome.decision().reasons);
        outcome.assert_no_holds();
        if codes.is_empty() {
            outcome.assert_abstains();
        }
    }
}

const OPEN: &[&str] = &[];
const HOURS: &[&str] = &["outside-hours"];
const WEEKDAYS: &[&str] = &["outside-weekdays"];

#[test]
fn hours_begin_with_their_first_minute_and_end_before_their_last() {
    check(
        &Harness::new(json!({ "hours": ["09:00-17:30"] })),
        &[
            ("2026-01-15T08:59:59.999Z", HOURS),
            ("2026-01-15T09:00:00Z", OPEN),
            ("2026-01-15T17:29:59.999Z", OPEN),
            ("2026-01-15T17:30:00Z", HOURS),
        ],
    );
    check(
        &Harness::new(json!({ "hours": ["00:00-24:00"] })),
        &[("2026-01-15T00:00:00Z", OPEN), ("2026-01-15T23:59:59.999Z", OPEN)],
    );
    check(
        &Harness::new(json!({ "hours": ["09:00-12:00", "13:00-17:00"] })),
        &[("2026-01-15T11:59:00Z", OPEN), ("2026-01-15T12:00:00Z", HOURS), ("2026-01-15T13:00:00Z", OPEN)],
    );
}

#[test]
fn hours_across_midnight_belong_to_the_day_they_begin() {
    // 2026-01-16 is a Friday.
    check(
        &Harness::new(json!({ "hours": ["22:00-06:00"], "weekdays": ["fri"] })),
        &[
            ("2026-01-16T05:59:00Z", WEEKDAYS), // still Thursday's
            ("2026-01-16T06:00:00Z", HOURS),
            ("2026-01-16T21:59:00Z", HOURS),
            ("2026-01-16T22:00:00Z", OPEN),
            ("2026-01-17T00:00:00Z", OPEN),
            ("2026-01-17T05:59:59.999Z", OPEN),
            ("2026-01-17T06:00:00Z", &["outside-hours", "outside-weekdays"]),
            ("2026-01-17T22:00:00Z", WEEKDAYS),
        ],
    );
    check(
        &Harness::new(json!({ "hours": ["22:00-06:00"], "closed-dates": ["2026-01-16"] })),
        &[
            ("2026-01-16T05:59:00Z", OPEN),
            ("2026-01-16T23:00:00Z", &["closed-date"]),
            ("2026-01-17T05:59:00Z", &["closed-date"]),
        ],
    );
    // Two that overlap: open if the day of either is.
    check(
        &Harness::new(json!({ "hours": ["22:00-06:00", "05:00-12:00"], "weekdays": ["fri"] })),
        &[("2026-01-16T05:30:00Z", OPEN), ("2026-01-16T04:30:00Z", WEEKDAYS), ("2026-01-17T05:30:00Z", OPEN)],
    );
}

#[test]
fn hours_are_what_clocks_show_when_they_change() {
    // Berlin springs from 02:00 to 03:00 at 01:00Z, and falls from 03:00 to 02:00 at 01:00Z.
    check(
        &Harness::new(json!({ "hours": ["02:00-03:00"], "timezone": "Europe/Berlin" })),
        &[
            ("2026-03-28T01:00:00Z", OPEN),
            ("2026-03-29T00:59:59.999Z", HOURS),
            ("2026-03-29T01:00:00Z", HOURS),
            ("2026-03-30T00:30:00Z", OPEN),
            ("2026-10-25T00:30:00Z", OPEN),
            ("2026-10-25T01:30:00Z", OPEN),
            ("2026-10-25T02:00:00Z", HOURS),
        ],
    );
    check(
        &Harness::new(json!({ "hours": ["09:00-17:00"], "timezone": "America/New_York" })),
        &[
            ("2026-03-07T13:59:00Z", HOURS), // the day before the change: UTC-5
            ("2026-03-07T14:00:00Z", OPEN),
            ("2026-03-08T12:59:00Z", HOURS), // from 07:00Z on UTC-4
            ("2026-03-08T13:00:00Z", OPEN),
            ("2100-07-01T13:00:00Z", OPEN), // beyond any table
            ("2100-01-01T13:30:00Z", HOURS),
        ],
    );
}

#[test]
fn dates_are_those_of_the_zone() {
    let new_year = json!(["2027-01-01"]);
    check(
        &Harness::new(json!({ "dates": new_year, "timezone": "Pacific/Kiritimati" })), // UTC+14
        &[
            ("2026-12-31T09:59:59.999Z", &["outside-dates"]),
            ("2026-12-31T10:00:00Z", OPEN),
            ("2027-01-01T09:59:59.999Z", OPEN),
            ("2027-01-01T10:00:00Z", &["outside-dates"]),
        ],
    );
    check(
        &Harness::new(json!({ "dates": new_year, "timezone": "Etc/GMT+12" })), // UTC-12
        &[
            ("2027-01-01T11:59:59.999Z", &["outside-dates"]),
            ("2027-01-01T12:00:00Z", OPEN),
            ("2027-01-02T11:59:59.999Z", OPEN),
            ("2027-01-02T12:00:00Z", &["outside-dates"]),
        ],
    );
}

#[test]
fn leap_days_are_days() {
    check(
        &Harness::new(json!({ "closed-dates": ["2028-02-29"] })),
        &[
            ("2028-02-28T23:59:59.999Z", OPEN),
            ("2028-02-29T00:00:00Z", &["closed-date"]),
            ("2028-02-29T23:59:59.999Z", &["closed-date"]),
            ("2028-03-01T00:00:00Z", OPEN),
        ],
    );
    // 29 February 2028 is a Tuesday; its night goes on into March.
    check(
        &Harness::new(json!({ "hours": ["22:00-06:00"], "weekdays": ["tue"], "dates": ["2028-02-28/2028-02-29"] })),
        &[("2028-03-01T05:59:00Z", OPEN), ("2028-03-01T22:00:00Z", &["outside-weekdays", "outside-dates"])],
    );
}

#[test]
fn every_day_of_the_week() {
    // 2026-01-12 is a Monday.
    for (index, day) in ["mon", "tue", "wed", "thu", "fri", "sat", "sun"].into_iter().enumerate() {
        let policy = Harness::<Schedule>::new(json!({ "weekdays": [day] }));
        for other in 0..7 {
            let outcome = policy.evaluate(&at(&format!("2026-01-{}T12:00:00Z", 12 + other)));
            assert_eq!(outcome.codes(), if other == index { OPEN } else { WEEKDAYS }, "{day} {other}");
        }
    }
}

#[test]
fn reasons_tell_what_a_clock_shows() {
    let policy = Harness::<Schedule>::new(json!({ "hours": ["09:00-17:00"], "timezone": "Asia/Tokyo" }));
    let outcome = policy.evaluate(&at("2026-01-15T20:05:00Z"));
    let reason = outcome.assert_denies("outside-hours").reason("outside-hours").unwrap();
    assert_eq!(reason.message, "fri 2026-01-16 05:05 in Asia/Tokyo: not within the hours");
}

#[test]
fn a_time_beyond_the_calendar_is_an_error() {
    let policy = Harness::<Schedule>::new(json!({ "weekdays": ["mon"] }));
    for millis in [u64::MAX, 253_402_300_800_000] {
        assert!(policy.evaluate(&request().at(millis)).error().is_some());
    }
    let first = policy.evaluate(&request().at(0));
    first.assert_codes(WEEKDAYS);
}

#[test]
fn zones_must_exist() {
    for zone in ["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/Argentina/Buenos_Aires", "Pacific/Chatham"] {
        assert_eq!(problems::<Schedule>(json!({ "weekdays": ["mon"], "timezone": zone })), [], "{zone}");
    }
    for zone in ["Europe/Atlantis", "Etc/Unknown", "CEST", "+02:00", ""] {
        let found = problems::<Schedule>(json!({ "weekdays": ["mon"], "timezone": zone }));
        assert_eq!(found.len(), 1, "{zone}");
        assert_eq!(found[0].path, "/timezone", "{zone}");
    }
}

#[test]
fn every_problem_is_reported() {
    let found = problems::<Schedule>(json!({
        "hours": [], "weekdays": [], "dates": [], "closed-dates": [], "timezone": "Europe/Atlantis", "quorum": 0
    }));
    let paths: Vec<&str> = found.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(paths, ["/hours", "/weekdays", "/dates", "/closed-dates", "/timezone", "/quorum"]);
}
