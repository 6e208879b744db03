//! Holds a vendor to the account and the price that the settings pin, or that a person approved last.
//!
//! - **Settings** ([`Settings`]): `pins`, of which the first that matches host and path counts;
//!   `changed-payee` says what to do about another account, `drift-percent` how far a price may rise and
//!   `action` what to do about more, `unknown` what to do where no account is pinned or approved.
//! - **Verdict**: *review* or *deny* as those say, with every reason that applies; else *abstain*. It
//!   never allows: combine it with a policy that does.
//! - **Holds**: none.
//!
//! | code | when |
//! |---|---|
//! | `payee-not-pinned` | the pin does not list the account |
//! | `payee-changed` | there is no pin, and a person approved another account last |
//! | `payee-unknown` | there is no pin, and no person approved any account |
//! | `price-drift` | the value is more than `drift-percent` above the pinned price, or where none is pinned above the value a person approved last |
//!
//! What was merely paid last is no measure: an attacker would change account or price twice. What a
//! person approved are the facts `approved-pay-to` and `approved-value`, which the host gives.

use std::collections::BTreeSet;

use countersign_sdk::{
    Action, Address, Decision, HostPattern, Money, Objection, PathPattern, Policy, Problem, ReviewSettings,
    SpendRequest, export_policy,
};
use serde::Deserialize;

/// Far beyond any price worth watching; a typo is more likely.
const MOST_PERCENT: u32 = 10_000;

/// What vendors are held to.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// Accounts and prices of vendors, most special first.
    #[serde(default)]
    pub pins: Vec<Pin>,
    /// What to do about another account; refuse if left out.
    pub changed_payee: Option<Action>,
    /// How far a price may rise, in percent of the pinned or approved one; any price if left out.
    pub drift_percent: Option<u32>,
    /// What to do about a price above that; ask people if left out.
    pub action: Option<Action>,
    /// What to do about an account that is neither pinned nor approved; nothing if left out.
    pub unknown: Option<Unknown>,
    /// The operator group that must approve; any approver if left out.
    pub group: Option<String>,
    /// How many must approve.
    pub quorum: Option<u8>,
    /// After how many seconds silence is a no.
    pub expires_in_seconds: Option<u32>,
}

/// The accounts, and perhaps the price, of what a vendor sells.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Pin {
    /// Whose.
    pub host: HostPattern,
    /// For what; everything if left out.
    pub path: Option<PathPattern>,
    /// The accounts that may be paid for it.
    pub pay_to: BTreeSet<Address>,
    /// What it costs; as approved last if left out.
    pub price: Option<Money>,
}

/// What to do about an account of which nothing is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unknown {
    /// Leave it to other policies.
    Abstain,
    /// Ask people.
    Review,
    /// Refuse.
    Deny,
}

/// The configured policy.
#[derive(Debug)]
pub struct PayeePin {
    pins: Vec<Pin>,
    changed: Action,
    drift: Option<(u32, Action)>,
    unknown: Option<Action>,
    review: ReviewSettings,
}

impl Policy for PayeePin {
    type Settings = Settings;
    const NAME: &'static str = "payee-pin";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Holds vendors to the account and price that are pinned or a person approved.";

    fn settings_schema() -> &'static str {
        include_str!("../settings.schema.json")
    }

    fn configure(settings: Settings) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        for (index, pin) in settings.pins.iter().enumerate() {
            let mut problem = |key, message| problems.push(Problem::at(format!("/pins/{index}/{key}"), message));
            if pin.pay_to.is_empty() {
                problem("pay-to", "list at least one account");
            }
            if pin.price.is_some() && settings.drift_percent.is_none() {
                problem("price", "set `drift-percent` too, or nobody looks at prices; 0 permits no rise");
            }
        }
        if settings.drift_percent.is_some_and(|percent| percent > MOST_PERCENT) {
            problems.push(Problem::at("/drift-percent", format!("from 0 to {MOST_PERCENT}")));
        }
        if settings.action.is_some() && settings.drift_percent.is_none() {
            problems.push(Problem::at("/action", "it is for prices that rise, and `drift-percent` is not set"));
        }
        let Settings { group, quorum, expires_in_seconds, .. } = settings;
        let review = ReviewSettings::check(group, quorum, expires_in_seconds, &mut problems);
        let policy = Self {
            pins: settings.pins,
            changed: settings.changed_payee.unwrap_or(Action::Deny),
            drift: settings.drift_percent.map(|percent| (percent, settings.action.unwrap_or(Action::Review))),
            unknown: match settings.unknown {
                None | Some(Unknown::Abstain) => None,
                Some(Unknown::Review) => Some(Action::Review),
                Some(Unknown::Deny) => Some(Action::Deny),
            },
            review,
        };
        if problems.is_empty() { Ok(policy) } else { Err(problems) }
    }

    fn evaluate(&self, request: &SpendRequest) -> Result<Decision, String> {
        let purchase = &request.purchase;
        let covers = |pin: &&Pin| {
            pin.host.matches(purchase) && pin.path.as_ref().is_none_or(|path| path.matches(&purchase.path))
        };
        let pin = self.pins.iter().find(covers);
        let payee = self.payee(request, pin)?;
        let price = self.price(request, pin)?;
        Ok(self.review.decide(payee.into_iter().chain(price).collect()))
    }
}

impl PayeePin {
    fn payee(&self, request: &SpendRequest, pin: Option<&Pin>) -> Result<Option<Objection>, String> {
        let (host, paid) = (&request.seller.host, &request.seller.pay_to);
        if let Some(pin) = pin {
            let pinned = pin.pay_to.iter().any(|account| account.matches(paid));
            let message = || format!("the account {paid} is not pinned for {host}");
            return Ok((!pinned).then(|| self.changed.because("payee-not-pinned", message())));
        }
        let Some(approved) = request.fact("approved-pay-to") else {
            let message = || format!("no person has approved an account of {host} yet");
            return Ok(self.unknown.map(|action| action.because("payee-unknown", message())));
        };
        let account = Address::parse(approved).map_err(|why| format!("the fact `approved-pay-to`: {why}"))?;
        let message = || format!("for {host} a person approved the account {account}, not {paid}");
        Ok((!account.matches(paid)).then(|| self.changed.because("payee-changed", message())))
    }

    fn price(&self, request: &SpendRequest, pin: Option<&Pin>) -> Result<Option<Objection>, String> {
        let Some((percent, action)) = self.drift else {
            return Ok(None);
        };
        let (price, whence) = match pin.and_then(|pin| pin.price) {
            Some(price) => (Some(price), "pinned"),
            None => (request.figure("approved-value")?.map(Money::from_micros), "approved"),
        };
        let Some(price) = price.filter(|price| drifted(request.value(), *price, percent)) else {
            return Ok(None);
        };
        let message =
            format!("the price of {} is more than {percent} % above the {price} that is {whence}", request.value());
        Ok(Some(action.because("price-drift", message)))
    }
}

/// Whether `value` is more than `percent` above `price`. Exact: a 64-bit amount times a 32-bit one
/// fits 128 bits.
fn drifted(value: Money, price: Money, percent: u32) -> bool {
    let hundredths = |amount: Money, times: u64| u128::from(amount.micros()) * u128::from(times);
    hundredths(value, 100) > hundredths(price, 100 + u64::from(percent))
}

export_policy!(PayeePin);

#[cfg(test)]
mod tests {
    use countersign_sdk::testing::{Harness, assert_schema_agrees, json, problems, request, run_cases};

    use super::*;

    const PAYEE: &str = "0x209693bc6afc0c5328ba36faf03c514ef312287c";
    const OTHER: &str = "0x0000000000000000000000000000000000000001";

    #[test]
    fn cases() {
        run_cases::<PayeePin>(include_str!("../cases.json"));
    }

    #[test]
    fn schema() {
        assert_schema_agrees::<PayeePin>();
    }

    #[test]
    fn drift_is_exact_to_a_micro() {
        for (price, percent, most) in [
            ("0.05", 0, 50_000),
            ("0.05", 20, 60_000),
            ("0.000001", 99, 1),
            ("0.000001", 100, 2),
            ("0.000003", 50, 4),
            ("1.00", 10_000, 101_000_000),
        ] {
            let pin = json!({ "host": "api.example.com", "pay-to": [PAYEE], "price": price });
            let policy = Harness::<PayeePin>::new(json!({ "pins": [pin], "drift-percent": percent }));
            policy.evaluate(&request().micros(most)).assert_abstains();
            policy.evaluate(&request().micros(most + 1)).assert_reviews("price-drift");
        }
    }

    #[test]
    fn no_amount_overflows() {
        let most = Money::from_micros(u64::MAX);
        assert!(!drifted(most, most, 0));
        assert!(!drifted(most, most, u32::MAX));
        assert!(drifted(most, Money::from_micros(u64::MAX - 1), 0));
        assert!(drifted(Money::from_micros(1), Money::ZERO, u32::MAX), "nothing was approved at a price of nothing");
        let policy = Harness::<PayeePin>::new(json!({ "drift-percent": 10_000 }));
        let dear =
            request().micros(u64::MAX).fact("approved-pay-to", PAYEE).fact("approved-value", "18446744073709551615");
        policy.evaluate(&dear).assert_abstains();
    }

    #[test]
    fn the_first_pin_that_matches_counts() {
        let policy = Harness::<PayeePin>::new(json!({ "pins": [
            { "host": "api.example.com", "path": "/v1/*", "pay-to": [PAYEE] },
            { "host": "api.example.com", "pay-to": [OTHER] }
        ] }));
        policy.evaluate(&request()).assert_abstains();
        policy.evaluate(&request().pay_to(OTHER)).assert_denies("payee-not-pinned");
        policy.evaluate(&request().path("/v2/quote").pay_to(OTHER)).assert_abstains();
        policy.evaluate(&request().path("/v1/../v2")).assert_denies("payee-not-pinned");
    }

    #[test]
    fn what_was_paid_last_is_no_measure() {
        let policy = Harness::<PayeePin>::new(json!({ "drift-percent": 0 }));
        let approved = || request().fact("approved-pay-to", PAYEE).fact("approved-value", "50000");
        // Paid elsewhere and dearer last time, approved as it is now: as it should be.
        policy.evaluate(&approved().pay_to_changed().with(|r| r.seller.last_price = Some(10))).assert_abstains();
        // As it was last, not as it was approved.
        let crept = approved().pay_to(OTHER).micros(60_000).with(|r| r.seller.last_price = Some(60_000));
        policy.evaluate(&crept).assert_denies("payee-changed").assert_codes(&["payee-changed", "price-drift"]);
    }

    #[test]
    fn what_the_agent_says_was_approved_is_no_approval() {
        let policy = Harness::<PayeePin>::new(json!({ "drift-percent": 0, "unknown": "review" }));
        let said = request().claim("approved-pay-to", PAYEE).claim("approved-value", "50000");
        policy.evaluate(&said).assert_codes(&["payee-unknown"]);
    }

    #[test]
    fn facts_that_cannot_be_read_are_errors() {
        let policy = Harness::<PayeePin>::new(json!({ "drift-percent": 0 }));
        let error = |name: &str, value: &str| {
            policy.evaluate(&request().fact(name, value)).error().map(|error| error.contains(name))
        };
        assert_eq!(error("approved-pay-to", "0x12"), Some(true));
        assert_eq!(error("approved-pay-to", ""), Some(true));
        assert_eq!(error("approved-value", "0.05"), Some(true));
    }

    #[test]
    fn every_problem_is_reported() {
        let found = problems::<PayeePin>(json!({
            "pins": [
                { "host": "a.example", "pay-to": [PAYEE] },
                { "host": "b.example", "pay-to": [], "price": "1.00" }
            ],
            "action": "deny", "quorum": 0
        }));
        let paths: Vec<&str> = found.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["/pins/1/pay-to", "/pins/1/price", "/action", "/quorum"]);
        assert_eq!(problems::<PayeePin>(json!({ "drift-percent": 10_000 })), []);
        assert_eq!(problems::<PayeePin>(json!({ "drift-percent": 10_001 }))[0].path, "/drift-percent");
    }
}
