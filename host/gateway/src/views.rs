//! How ledger values look to people and programs: one place, so that every door says the same.

use countersign_core::budget::{self, HOST};
use countersign_core::ledger::{
    Approval, BudgetView, HoldView, KeptAlert, PaymentFacts, PaymentView, Refund, Reporter, Session, Suspension, Told,
    UseReport, Vote,
};
use countersign_core::money::Micros;
use countersign_core::notice::Notice;
use countersign_core::spend::Principal;
use countersign_core::time::Timestamp;
use countersign_core::verdict::{Attributed, Opinion, Unit, Verdict, Window};
use serde_json::{Value, json};

use crate::config::{BudgetConfig, Config};

/// For whom a view is made.
#[derive(Clone, Copy, Debug)]
pub enum Viewer<'a> {
    /// An operator sees everything.
    Operator,
    /// An agent sees codes, and figures only of its own session's and its own budgets.
    Agent(&'a Principal),
}

impl Viewer<'_> {
    /// Whether figures of the budget of this name are shown.
    #[must_use]
    pub fn sees(self, name: &str) -> bool {
        match self {
            Self::Operator => true,
            Self::Agent(principal) => {
                let session = principal.session.as_ref().map(|s| format!("session/{s}"));
                name == format!("agent/{}", principal.agent) || session.is_some_and(|s| s == name)
            }
        }
    }
}

/// An alert, and what came of telling somebody.
#[must_use]
pub fn alert(kept: &KeptAlert, currency: &str) -> Value {
    delivered(alert_data(kept, currency), kept.told, kept.attempts, kept.last.as_ref())
}

/// An alert as its receiver reads it.
#[must_use]
pub fn alert_data(kept: &KeptAlert, currency: &str) -> Value {
    let figure = |n| amount(n, kept.unit);
    json!({
        "id": kept.id.to_string(),
        "at": kept.at.to_string(),
        "budget": kept.alert.budget,
        "unit": unit(kept.unit, currency),
        "threshold": figure(kept.alert.at),
        "used": figure(kept.alert.used),
        "limit": figure(kept.limit),
        "payment": kept.payment,
    })
}

/// A notice of the delivery log: what was to be told, and what came of it.
#[must_use]
pub fn notice(notice: &Notice) -> Value {
    let view = json!({
        "id": notice.id.to_string(),
        "at": notice.at.to_string(),
        "type": notice.event.kind(),
        "approval": notice.approval.id,
        "state": notice.approval.state,
    });
    delivered(view, notice.told, notice.attempts, notice.last.as_ref())
}

/// A notice as its receiver reads it. Nothing that a seller or an agent wrote stands outside `untrusted`, and the link
/// is good for nothing without an operator's token.
#[must_use]
pub fn notice_data(notice: &Notice, currency: &str, admin: &str) -> Value {
    let (approval, facts) = (&notice.approval, &notice.facts);
    let principal = &facts.principal;
    json!({
        "approval": approval.id,
        "state": approval.state,
        "digest": approval.frozen,
        "created_at": approval.created_at.to_string(),
        "expires_at": approval.expires_at.to_string(),
        "quorum": approval.terms.quorum,
        "groups": approval.terms.groups,
        "reasons": shown(approval),
        "votes": votes(approval),
        "payment": approval.payment,
        "method": facts.method,
        "seller": {"host": facts.host, "pay_to": facts.pay_to},
        "amount": {
            "value": facts.value.to_string(),
            "currency": currency,
            "atomic": facts.amount,
            "asset": facts.asset_symbol,
            "network": facts.network,
        },
        "agent": principal.agent,
        "user": principal.user,
        "workspace": principal.workspace,
        "session": principal.session,
        "client": principal.client,
        "project": principal.project,
        "task": principal.task,
        "mandate": facts.mandate,
        "wallet": facts.wallet,
        "url": format!("{admin}/v1/approvals/{}", approval.id),
        "warnings": warnings(facts),
        "untrusted": {"url": facts.url, "claims": facts.claims, "resource_url": facts.resource_elsewhere},
    })
}

/// What came of telling somebody of something.
fn delivered(mut view: Value, told: Told, attempts: u32, last: Option<&(Timestamp, String)>) -> Value {
    let (state, next) = match told {
        Told::Not(due) => ("waiting", Some(due.to_string())),
        Told::Delivered => ("delivered", None),
        Told::GivenUp => ("given-up", None),
    };
    let last = last.map(|(at, outcome)| json!({"at": at.to_string(), "outcome": outcome}));
    if let Some(map) = view.as_object_mut() {
        let delivery = json!({"state": state, "attempts": attempts, "next": next, "last": last});
        map.insert("delivery".into(), delivery);
    }
    view
}

/// A payment.
#[must_use]
pub fn payment(payment: &PaymentView, viewer: Viewer<'_>, config: &Config) -> Value {
    let facts = &payment.facts;
    let principal = &facts.principal;
    let currency = &config.gateway.currency;
    let decision = &payment.decision;
    let policies: Vec<_> = decision.judgement.opinions.iter().map(|o| opinion(o, viewer, config)).collect();
    let seen = payment.holds.iter().filter(|h| viewer.sees(&h.hold.name));
    let holds: Vec<_> = seen.map(|h| hold(h, currency)).collect();
    let history: Vec<_> = payment
        .history
        .iter()
        .map(|s| json!({"at": s.at.to_string(), "state": s.state.public(), "why": s.why}))
        .collect();
    let valid_before = payment.authorization.as_ref().map(|a| Timestamp::from_secs(a.valid_before).to_string());
    let mut view = json!({
        "id": payment.id,
        "purchase": payment.key.purchase,
        "attempt": payment.attempt,
        "state": payment.state.public(),
        "created_at": payment.created_at.to_string(),
        "updated_at": payment.updated_at.to_string(),
        "agent": principal.agent,
        "user": principal.user,
        "workspace": principal.workspace,
        "session": principal.session,
        "client": principal.client,
        "project": principal.project,
        "task": principal.task,
        "mandate": facts.mandate,
        "wallet": facts.wallet,
        "rail": facts.rail,
        "resource": {"method": facts.method, "url": facts.url},
        "observed": decision.request.purchase.observed,
        "seller": {"host": facts.host, "pay_to": facts.pay_to},
        "amount": {
            "value": facts.value.to_string(),
            "currency": currency,
            "atomic": facts.amount,
            "asset": facts.asset_symbol,
            "network": facts.network,
        },
        "code": payment.refusal,
        "repeats": payment.repeats,
        "decision": {
            "id": decision.id,
            "verdict": if payment.refusal.is_some() { Verdict::Deny } else { decision.verdict },
            "reasons": reasons(&decision.reasons, viewer, config),
            "generation": decision.judgement.generation,
            "policies": policies,
        },
        "holds": holds,
        "approval": payment.approval,
        "transaction": payment.transaction,
        "evidence": payment.evidence,
        "refunds": payment.refunds.iter().map(|r| refund(r, facts.asset_decimals)).collect::<Vec<_>>(),
        "valid_before": valid_before,
        "claims": facts.claims,
        "history": history,
        "use": used(&payment.uses, viewer),
    });
    if let (Some(map), Viewer::Operator) = (view.as_object_mut(), viewer) {
        map.insert("warnings".into(), warnings(facts).into());
        map.insert("untrusted".into(), json!({"resource_url": facts.resource_elsewhere}));
    }
    view
}

/// What people should look at before they believe what they see. What others wrote is not repeated here.
fn warnings(facts: &PaymentFacts) -> Vec<Value> {
    let elsewhere = facts.resource_elsewhere.iter().map(|_| {
        let message = "the seller says that this is bought at another host than was called";
        json!({"code": "resource-elsewhere", "message": message})
    });
    elsewhere.collect()
}

/// Money that came back, in whole units of the paid asset.
fn refund(refund: &Refund, decimals: u8) -> Value {
    json!({"amount": refund.amount.display(decimals), "at": refund.at.to_string(), "source": refund.source})
}

/// What became of it: the word of a person, or else of the agent, and every word there is. Agents do
/// not read who judged them, nor in which words.
fn used(uses: &[UseReport], viewer: Viewer<'_>) -> Value {
    let one = |report: &UseReport| {
        let mut view = json!({"used": report.used, "reporter": report.reporter, "at": report.at.to_string()});
        let own = report.reporter == Reporter::Agent;
        if let (Some(map), true) = (view.as_object_mut(), own || matches!(viewer, Viewer::Operator)) {
            map.insert("by".into(), report.by.clone().into());
            map.insert("note".into(), json!(report.note));
            map.insert("artifact".into(), json!(report.artifact));
        }
        view
    };
    let mut view = uses.first().map(one).unwrap_or_default();
    if let Some(map) = view.as_object_mut() {
        map.insert("reports".into(), uses.iter().map(one).collect());
    }
    view
}

fn opinion(opinion: &Opinion, viewer: Viewer<'_>, config: &Config) -> Value {
    let verdict = opinion.outcome.as_ref().map_or(Verdict::Deny, |d| d.verdict);
    let given = match &opinion.outcome {
        Ok(decision) => decision.reasons.clone(),
        Err(failure) => vec![countersign_core::verdict::Reason::new(failure.kind.code(), failure.message.clone())],
    };
    let attributed: Vec<_> =
        given.into_iter().map(|reason| Attributed { policy: opinion.policy.clone(), reason }).collect();
    json!({
        "name": opinion.policy,
        "version": opinion.version,
        "module_sha256": opinion.module_sha256,
        "settings_sha256": opinion.settings_sha256,
        "mode": opinion.mode,
        "verdict": verdict,
        "reasons": reasons(&attributed, viewer, config),
        "fuel": opinion.fuel,
        "micros": opinion.micros,
    })
}

/// Reasons: codes for everybody, a policy's own words for operators and where configured.
#[must_use]
pub fn reasons(reasons: &[Attributed], viewer: Viewer<'_>, config: &Config) -> Vec<Value> {
    let told = reasons.iter().map(|a| {
        let own_words = matches!(viewer, Viewer::Operator)
            || a.policy == HOST
            || config.policies.get(&a.policy).is_some_and(|p| p.tell_agent);
        let message = if own_words {
            a.reason.message.clone()
        } else {
            format!("policy `{}` answered `{}`", a.policy, a.reason.code)
        };
        json!({"policy": a.policy, "code": a.reason.code, "message": message})
    });
    told.collect()
}

fn hold(view: &HoldView, currency: &str) -> Value {
    let hold = &view.hold;
    json!({
        "budget": hold.label(),
        "window": window(&hold.window),
        "amount": amount(hold.amount, hold.unit),
        "limit": amount(hold.limit, hold.unit),
        "unit": unit(hold.unit, currency),
        "open": view.open,
        "spent": amount(view.spent, hold.unit),
        "refunded": amount(view.refunded, hold.unit),
    })
}

/// What a figure counts: the currency, or `count`.
#[must_use]
pub fn unit(unit: Unit, currency: &str) -> &str {
    match unit {
        Unit::Micros => currency,
        Unit::Count => "count",
    }
}

/// A budget's figure as people read it.
#[must_use]
pub fn amount(amount: u64, unit: Unit) -> String {
    match unit {
        // Sums may pass what one amount may be; they print all the same.
        Unit::Micros => countersign_core::money::Atomic::new(u128::from(amount)).display(Micros::DECIMALS),
        Unit::Count => amount.to_string(),
    }
}

/// A window as people read it.
#[must_use]
pub fn window(window: &Window) -> String {
    match window {
        Window::Rolling(3_600) => "hour".to_owned(),
        Window::Rolling(seconds) => format!("rolling {seconds} s"),
        Window::Day(zone) => format!("day {zone}"),
        Window::Month(zone) => format!("month {zone}"),
        Window::Lifetime => "lifetime".to_owned(),
    }
}

/// Budgets: those in use, and the declared ones nobody has used yet.
#[must_use]
pub fn budgets(used: &[BudgetView], config: &Config, viewer: Viewer<'_>, now: Timestamp) -> Value {
    let currency = &config.gateway.currency;
    let mut all: Vec<BudgetView> = used.to_vec();
    for declared in &config.budgets {
        let fresh = unused(declared, now);
        let same = |b: &BudgetView| b.owner == HOST && b.name == fresh.name && b.window == fresh.window;
        match all.iter_mut().find(|b| same(b)) {
            Some(found) => found.limit = fresh.limit,
            None => all.push(fresh),
        }
    }
    all.retain(|b| viewer.sees(&b.name));
    all.sort_by(|a, b| (&a.owner, &a.name).cmp(&(&b.owner, &b.name)));
    let items: Vec<_> = all.iter().map(|b| budget(b, currency, now)).collect();
    json!({"items": items, "next": null})
}

fn unused(declared: &BudgetConfig, now: Timestamp) -> BudgetView {
    let window = match &declared.window {
        Window::Day(zone) if zone.is_empty() => Window::Day("UTC".to_owned()),
        Window::Month(zone) if zone.is_empty() => Window::Month("UTC".to_owned()),
        other => other.clone(),
    };
    BudgetView {
        owner: HOST.to_owned(),
        name: declared.name.clone(),
        unit: Unit::Micros,
        win: budget::starts_at(&window, now).ok().flatten().map_or(0, Timestamp::as_millis),
        window,
        limit: declared.limit.get(),
        held: 0,
        spent: 0,
    }
}

fn budget(view: &BudgetView, currency: &str, now: Timestamp) -> Value {
    let resets_at = budget::resets_at(&view.window, now).ok().flatten();
    let available = view.limit.saturating_sub(view.held.saturating_add(view.spent));
    json!({
        "budget": budget::label(&view.owner, &view.name),
        "owner": view.owner,
        "unit": unit(view.unit, currency),
        "window": window(&view.window),
        "starts_at": (view.win > 0).then(|| Timestamp::from_millis(view.win).to_string()),
        "resets_at": resets_at.map(|t| t.to_string()),
        "limit": amount(view.limit, view.unit),
        "held": amount(view.held, view.unit),
        "spent": amount(view.spent, view.unit),
        "available": amount(available, view.unit),
    })
}

/// An approval, with the frozen purchase it is about.
#[must_use]
pub fn approval(approval: &Approval, payment: Option<&PaymentView>, viewer: Viewer<'_>, config: &Config) -> Value {
    let mut view = json!({
        "id": approval.id,
        "state": approval.state,
        "payment": approval.payment,
        "frozen": approval.frozen,
        "quorum": approval.terms.quorum,
        "created_at": approval.created_at.to_string(),
        "expires_at": approval.expires_at.to_string(),
        "reasons": shown(approval),
    });
    if let (Some(map), Some(payment)) = (view.as_object_mut(), payment) {
        map.insert("purchase".into(), self::payment(payment, viewer, config));
    }
    if let (Some(map), Viewer::Operator) = (view.as_object_mut(), viewer) {
        let yes = approval.votes.iter().filter(|v| v.approve).map(|v| v.groups.as_slice());
        map.insert("groups".into(), json!(approval.terms.groups));
        map.insert("missing".into(), json!(approval.terms.missing(yes)));
        map.insert("votes".into(), votes(approval).into());
    }
    view
}

/// The (policy, reason code) pairs that people are asked about.
fn shown(approval: &Approval) -> Vec<Value> {
    approval.shown.iter().map(|(policy, code)| json!({"policy": policy, "code": code})).collect()
}

fn votes(approval: &Approval) -> Vec<Value> {
    let vote = |v: &Vote| {
        json!({
            "operator": v.operator, "approve": v.approve, "at": v.at.to_string(), "note": v.note,
            "groups": v.groups, "channel": v.channel,
        })
    };
    approval.votes.iter().map(vote).collect()
}

/// A session, without its token.
#[must_use]
pub fn session(session: &Session, config: &Config) -> Value {
    json!({
        "id": session.id,
        "agent": session.agent,
        "user": session.user,
        "client": session.client,
        "project": session.project,
        "task": session.task,
        "intercept": session.intercept,
        "limit": session.limit.to_string(),
        "currency": config.gateway.currency,
        "max_payments": session.max_payments,
        "created_at": session.created_at.to_string(),
        "expires_at": session.expires_at.to_string(),
        "closed_at": session.closed_at.map(|t| t.to_string()),
        "opened_by": session.opened_by,
    })
}

/// A suspension.
#[must_use]
pub fn suspension(suspension: &Suspension) -> Value {
    let mut view = serde_json::to_value(suspension).unwrap_or_default();
    if let Some(map) = view.as_object_mut() {
        map.insert("at".into(), suspension.at.to_string().into());
    }
    view
}
