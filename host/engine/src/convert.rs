//! Between core's types and the world's, and every limit on what a policy may answer.

use countersign_core::spend::{Attribute, Commitment, SpendRequest, Tally};
use countersign_core::time::Timestamp;
use countersign_core::verdict::{
    Decision, Failure, FailureKind, Hold, Obligation, Reason, ReviewTerms, Unit, Verdict, Window,
};

use crate::bindings::countersign::policy::types as wit;
use crate::failure::failure;

/// The most of each a decision may hold.
const HOLDS: usize = 16;
const REASONS: usize = 64;
const OBLIGATIONS: usize = 16;
const OBLIGATION_PARAMS: usize = 16;
const NOTES: usize = 32;
/// Bytes of any one string.
pub(crate) const STRING_BYTES: usize = 4 << 10;

const HOLD_AMOUNTS: std::ops::RangeInclusive<u64> = 1..=1_000_000_000_000_000;
const HOLD_LIMIT: u64 = 4_000_000_000_000_000_000;
const BUDGET_BYTES: usize = 200;
const CODE_BYTES: usize = 64;
const ZONE_BYTES: usize = 64;

/// The question in the guests' types, borrowed from ours: made once for all policies of a judgement.
pub(crate) struct Question<'a> {
    request: &'a SpendRequest,
    pub(crate) id: String,
    amount: String,
    roles: Vec<&'a str>,
    claims: Vec<wit::AttributeParam<'a>>,
    facts: Vec<wit::AttributeParam<'a>>,
}

impl<'a> Question<'a> {
    pub(crate) fn new(request: &'a SpendRequest) -> Self {
        Self {
            request,
            id: request.id.to_string(),
            amount: request.payment.amount.to_string(),
            roles: request.principal.roles.iter().map(String::as_str).collect(),
            claims: attributes(&request.claims),
            facts: attributes(&request.facts),
        }
    }

    /// Now, for the policies.
    pub(crate) fn at(&self) -> Timestamp {
        self.request.at
    }

    /// As a policy is asked it.
    pub(crate) fn ask(&self, claims: bool) -> wit::SpendRequest<'_> {
        let r = self.request;
        let millis = |t: Timestamp| t.as_millis();
        wit::SpendRequest {
            id: &self.id,
            purchase_id: r.purchase_id.as_str(),
            at: r.at.as_millis(),
            principal: wit::Principal {
                agent: &r.principal.agent,
                user: r.principal.user.as_deref(),
                workspace: r.principal.workspace.as_deref(),
                roles: &self.roles,
                session: r.principal.session.as_deref(),
                client: r.principal.client.as_deref(),
                project: r.principal.project.as_deref(),
                task: r.principal.task.as_deref(),
            },
            purchase: wit::Purchase {
                method: &r.purchase.method,
                url: &r.purchase.url,
                host: &r.purchase.host,
                path: &r.purchase.path,
                query_digest: r.purchase.query_digest.as_deref(),
                body_digest: r.purchase.body_digest.as_deref(),
                observed: r.purchase.observed,
                description: r.purchase.description.as_deref(),
                media_type: r.purchase.media_type.as_deref(),
                category: r.purchase.category.as_deref(),
            },
            seller: wit::Seller {
                host: &r.seller.host,
                pay_to: &r.seller.pay_to,
                host_first_paid: r.seller.host_first_paid.map(millis),
                pay_to_first_paid: r.seller.pay_to_first_paid.map(millis),
                pay_to_changed: r.seller.pay_to_changed,
                last_price: r.seller.last_price.map(|m| m.get()),
                judged: r.seller.judged,
                useful: r.seller.useful,
            },
            payment: wit::Payment {
                rail: &r.payment.rail,
                scheme: &r.payment.scheme,
                commitment: match r.payment.commitment {
                    Commitment::Fixed => wit::Commitment::Fixed,
                    Commitment::Ceiling => wit::Commitment::Ceiling,
                    Commitment::Deposit => wit::Commitment::Deposit,
                    Commitment::Recurring => wit::Commitment::Recurring,
                },
                network: &r.payment.network,
                asset: &r.payment.asset,
                asset_symbol: &r.payment.asset_symbol,
                asset_decimals: r.payment.asset_decimals,
                amount: &self.amount,
                value: r.payment.value.get(),
                valid_for_seconds: r.payment.valid_for_seconds,
                wallet: &r.payment.wallet,
            },
            history: wit::History {
                agent_hour: tally(r.history.agent_hour),
                agent_day: tally(r.history.agent_day),
                session: tally(r.history.session),
                seller_day: tally(r.history.seller_day),
                seller_lifetime: tally(r.history.seller_lifetime),
                repeats: r.history.repeats,
            },
            claims: if claims { &self.claims } else { &[] },
            facts: &self.facts,
        }
    }
}

fn tally(t: Tally) -> wit::Tally {
    wit::Tally { count: t.count, value: t.value.get() }
}

fn attributes(from: &[Attribute]) -> Vec<wit::AttributeParam<'_>> {
    from.iter().map(|a| wit::AttributeParam { name: &a.name, value: &a.value }).collect()
}

/// The answer, if it keeps to the contract and its limits.
pub(crate) fn decision(d: wit::Decision) -> Result<Decision, Failure> {
    count("reasons", d.reasons.len(), REASONS)?;
    count("holds", d.holds.len(), HOLDS)?;
    count("obligations", d.obligations.len(), OBLIGATIONS)?;
    count("notes", d.notes.len(), NOTES)?;
    let holds = d.holds.into_iter().map(hold).collect::<Result<Vec<_>, _>>()?;
    for (i, a) in holds.iter().enumerate() {
        if holds.iter().skip(i + 1).any(|b| a.budget == b.budget && a.window == b.window) {
            return Err(broken(format!("two holds for budget `{}` over the same window", a.budget)));
        }
    }
    Ok(Decision {
        verdict: match d.verdict {
            wit::Verdict::Deny => Verdict::Deny,
            wit::Verdict::Review => Verdict::Review,
            wit::Verdict::Allow => Verdict::Allow,
            wit::Verdict::Abstain => Verdict::Abstain,
        },
        reasons: d.reasons.into_iter().map(reason).collect::<Result<_, _>>()?,
        holds,
        review: d.review.map(review).transpose()?,
        obligations: d.obligations.into_iter().map(obligation).collect::<Result<_, _>>()?,
        notes: d.notes.into_iter().map(attribute).collect::<Result<_, _>>()?,
    })
}

fn reason(r: wit::Reason) -> Result<Reason, Failure> {
    let kebab = (1..=CODE_BYTES).contains(&r.code.len())
        && r.code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    string("reason code", &r.code)?;
    string("reason message", &r.message)?;
    if !kebab {
        return Err(broken(format!(
            "reason code {:?} is not 1 to {CODE_BYTES} of [a-z0-9-]",
            crate::failure::cut(&r.code, 80)
        )));
    }
    Ok(Reason { code: r.code, message: r.message })
}

fn hold(h: wit::Hold) -> Result<Hold, Failure> {
    string("budget", &h.budget)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._/@:-".contains(&b);
    if !(1..=BUDGET_BYTES).contains(&h.budget.len()) || !h.budget.bytes().all(plain) {
        return Err(broken(format!(
            "budget {:?} is not 1 to {BUDGET_BYTES} of [A-Za-z0-9._/@:-]",
            crate::failure::cut(&h.budget, 80)
        )));
    }
    if !HOLD_AMOUNTS.contains(&h.amount) {
        return Err(broken(format!("hold amount {} is not in 1..=10^15", h.amount)));
    }
    for limit in [Some(h.limit), h.alert_at, h.review_at].into_iter().flatten() {
        if limit > HOLD_LIMIT {
            return Err(broken(format!("hold limit {limit} is above 4*10^18")));
        }
    }
    Ok(Hold {
        budget: h.budget,
        unit: match h.unit {
            wit::Unit::Micros => Unit::Micros,
            wit::Unit::Count => Unit::Count,
        },
        window: match h.window {
            wit::Window::Rolling(0) => {
                return Err(broken("a rolling window of no seconds".to_owned()));
            }
            wit::Window::Rolling(seconds) => Window::Rolling(seconds),
            wit::Window::Day(zone) => Window::Day(time_zone(zone)?),
            wit::Window::Month(zone) => Window::Month(time_zone(zone)?),
            wit::Window::Lifetime => Window::Lifetime,
        },
        limit: h.limit,
        amount: h.amount,
        alert_at: h.alert_at,
        review_at: h.review_at,
    })
}

/// The shape of a time-zone name; whether it exists is the budget's business.
fn time_zone(zone: String) -> Result<String, Failure> {
    string("time zone", &zone)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_+/-".contains(&b);
    if zone.len() <= ZONE_BYTES && zone.bytes().all(plain) {
        Ok(zone)
    } else {
        Err(broken(format!("{:?} is not a time zone", crate::failure::cut(&zone, 80))))
    }
}

fn review(r: wit::ReviewTerms) -> Result<ReviewTerms, Failure> {
    if let Some(group) = &r.group {
        string("review group", group)?;
    }
    Ok(ReviewTerms { group: r.group, quorum: r.quorum, expires_in_seconds: r.expires_in_seconds })
}

fn obligation(o: wit::Obligation) -> Result<Obligation, Failure> {
    string("obligation kind", &o.kind)?;
    count("obligation parameters", o.params.len(), OBLIGATION_PARAMS)?;
    let params = o.params.into_iter().map(attribute).collect::<Result<_, _>>()?;
    Ok(Obligation { kind: o.kind, params })
}

fn attribute(a: wit::AttributeResult) -> Result<Attribute, Failure> {
    string("attribute name", &a.name)?;
    string("attribute value", &a.value)?;
    Ok(Attribute { name: a.name, value: a.value })
}

fn count(what: &str, n: usize, max: usize) -> Result<(), Failure> {
    if n > max {
        return Err(failure(FailureKind::Oversize, format!("evaluate: {n} {what}, at most {max}")));
    }
    Ok(())
}

fn string(what: &str, text: &str) -> Result<(), Failure> {
    let bytes = text.len();
    if bytes > STRING_BYTES {
        let message = format!("evaluate: a {what} of {bytes} bytes, at most {STRING_BYTES}");
        return Err(failure(FailureKind::Oversize, message));
    }
    Ok(())
}

fn broken(what: String) -> Failure {
    failure(FailureKind::Error, format!("evaluate: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> wit::Decision {
        wit::Decision {
            verdict: wit::Verdict::Allow,
            reasons: vec![],
            holds: vec![],
            review: None,
            obligations: vec![],
            notes: vec![],
        }
    }

    fn a_hold() -> wit::Hold {
        wit::Hold {
            budget: "client/acme".into(),
            unit: wit::Unit::Micros,
            window: wit::Window::Day(String::new()),
            limit: 5,
            amount: 1,
            alert_at: None,
            review_at: None,
        }
    }

    fn a_reason(code: &str, message: String) -> wit::Reason {
        wit::Reason { code: code.into(), message }
    }

    fn kind(d: wit::Decision) -> Option<FailureKind> {
        decision(d).err().map(|f| f.kind)
    }

    #[test]
    fn sizes_at_the_limit_pass_and_one_more_is_oversize() {
        let check = |make: &dyn Fn(usize) -> wit::Decision, max: usize| {
            assert_eq!(kind(make(max)), None, "{max}");
            assert_eq!(kind(make(max + 1)), Some(FailureKind::Oversize), "{max}");
        };
        let note = || wit::AttributeResult { name: "a".into(), value: "b".into() };
        check(&|n| wit::Decision { reasons: vec![a_reason("x", String::new()); n], ..empty() }, 64);
        check(&|n| wit::Decision { notes: vec![note(); n], ..empty() }, 32);
        check(
            &|n| {
                let hold = |i| wit::Hold { budget: format!("b{i}"), ..a_hold() };
                wit::Decision { holds: (0..n).map(hold).collect(), ..empty() }
            },
            16,
        );
        let obligation = |n| wit::Obligation { kind: "k".into(), params: vec![note(); n] };
        check(&|n| wit::Decision { obligations: vec![obligation(0); n], ..empty() }, 16);
        check(&|n| wit::Decision { obligations: vec![obligation(n)], ..empty() }, 16);
        check(&|n| wit::Decision { reasons: vec![a_reason("x", "m".repeat(n))], ..empty() }, 4096);
        check(
            &|n| {
                let note = wit::AttributeResult { name: "a".into(), value: "v".repeat(n) };
                wit::Decision { notes: vec![note], ..empty() }
            },
            4096,
        );
        check(
            &|n| {
                let review = wit::ReviewTerms { group: Some("g".repeat(n)), quorum: 1, expires_in_seconds: 1 };
                wit::Decision { review: Some(review), ..empty() }
            },
            4096,
        );
    }

    #[test]
    fn reason_codes_are_kebab_case() {
        let check = |code: &str, want| {
            let d = wit::Decision { reasons: vec![a_reason(code, String::new())], ..empty() };
            assert_eq!(kind(d), want, "{code:?}");
        };
        check("above-per-payment", None);
        check(&"x".repeat(64), None);
        for bad in ["", "A", "a b", "a_b", "é", &"x".repeat(65)] {
            check(bad, Some(FailureKind::Error));
        }
    }

    #[test]
    fn holds_keep_to_their_contract() {
        let check = |hold: wit::Hold, ok: bool| {
            let want = (!ok).then_some(FailureKind::Error);
            assert_eq!(kind(wit::Decision { holds: vec![hold.clone()], ..empty() }), want, "{hold:?}");
        };
        check(a_hold(), true);
        for (amount, ok) in [(0, false), (1, true), (10_u64.pow(15), true), (10_u64.pow(15) + 1, false)] {
            check(wit::Hold { amount, ..a_hold() }, ok);
        }
        let most = 4 * 10_u64.pow(18);
        for (limit, ok) in [(0, true), (most, true), (most + 1, false)] {
            check(wit::Hold { limit, ..a_hold() }, ok);
            check(wit::Hold { alert_at: Some(limit), ..a_hold() }, ok);
            check(wit::Hold { review_at: Some(limit), ..a_hold() }, ok);
        }
        for (budget, ok) in [
            ("a.B_/@:-9", true),
            (&*"b".repeat(200), true),
            (&*"b".repeat(201), false),
            ("", false),
            ("a b", false),
            ("ä", false),
            ("a\n", false),
        ] {
            check(wit::Hold { budget: budget.into(), ..a_hold() }, ok);
        }
        for (window, ok) in [
            (wit::Window::Rolling(0), false),
            (wit::Window::Rolling(1), true),
            (wit::Window::Month("Europe/Berlin".into()), true),
            (wit::Window::Day("Etc/GMT+3".into()), true),
            (wit::Window::Day("../etc".into()), false),
            (wit::Window::Day("x".repeat(65)), false),
            (wit::Window::Lifetime, true),
        ] {
            check(wit::Hold { window, ..a_hold() }, ok);
        }
    }

    #[test]
    fn one_hold_per_budget_and_window() {
        let with = |second: wit::Hold| kind(wit::Decision { holds: vec![a_hold(), second], ..empty() });
        assert_eq!(with(wit::Hold { amount: 2, ..a_hold() }), Some(FailureKind::Error));
        assert_eq!(with(wit::Hold { window: wit::Window::Lifetime, ..a_hold() }), None);
        assert_eq!(with(wit::Hold { budget: "client/other".into(), ..a_hold() }), None);
    }
}
