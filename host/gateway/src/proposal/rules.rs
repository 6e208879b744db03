//! Which setting answers which question of the standard policies; and where none does, that there is none.

use countersign_core::budget::HOST;
use countersign_core::ledger::PaymentView;
use serde_json::Value;

use super::edit::{Change, Edit};
use crate::config::{Config, HostPattern, Module};

/// What can be done about one reason.
pub(super) enum Rule {
    /// These settings answer it from now on.
    Change(Vec<Edit>),
    /// The approval itself does.
    Settled,
    /// No setting does that is about this purchase only.
    None,
}

impl Rule {
    pub(super) const fn word(&self) -> &'static str {
        match self {
            Self::Change(_) => "change",
            Self::Settled => "settled",
            Self::None => "none",
        }
    }

    pub(super) fn edits(&self) -> &[Edit] {
        match self {
            Self::Change(edits) => edits,
            Self::Settled | Self::None => &[],
        }
    }
}

/// One reason with what can be done about it.
pub(super) struct Answer {
    pub(super) policy: String,
    pub(super) code: String,
    pub(super) rule: Rule,
    /// For people: what it would mean.
    pub(super) says: String,
}

/// What can be done about a reason for which people were asked about this payment.
pub(super) fn answer(config: &Config, (policy, code): (&str, &str), payment: &PaymentView) -> Answer {
    let (rule, says) = match config.policies.get(policy).map(|p| (&p.module, p.settings.as_str())) {
        Some((Module::Builtin(name), settings)) => {
            let settings: Value = serde_json::from_str(settings).unwrap_or_default();
            of_builtin(name, (policy, code), &settings, payment)
        }
        Some(_) => none("the policy is a module of your own: its rule is in its module or its settings"),
        None if policy == HOST => none(
            "a budget reached its `review`: this approval lets its window pass; to be asked later, raise `review` of \
             that [budget] by hand, for everybody whom it counts",
        ),
        None => none("the policy is not configured any more"),
    };
    Answer { policy: policy.to_owned(), code: code.to_owned(), rule, says }
}

fn none(says: &str) -> (Rule, String) {
    (Rule::None, says.to_owned())
}

fn of_builtin(module: &str, (policy, code): (&str, &str), settings: &Value, payment: &PaymentView) -> (Rule, String) {
    let facts = &payment.facts;
    let edit = |key: &str, change| Edit { policy: policy.to_owned(), path: vec![key.to_owned()], change };
    match (module, code) {
        ("review-threshold", "above-review-threshold") => {
            let value = facts.value.to_string();
            let says = format!("raises `above` to {value}, for every vendor and everybody whom `{policy}` judges");
            (Rule::Change(vec![edit("above", Change::Set(value))]), says)
        }
        ("review-threshold", "first-time-vendor" | "first-time-payee" | "payee-changed") => (
            Rule::Settled,
            "once this purchase is settled it is no longer the first, or the last, of its kind; until then the \
             question stays"
                .to_owned(),
        ),
        ("first-vendor", "first-time-vendor") if payment.decision.request.purchase.observed => {
            let says = format!("`{}` counts as known, at whatever price other policies let pass", facts.host);
            (Rule::Change(vec![edit("known", Change::Push(facts.host.clone()))]), says)
        }
        // Of a purchase that only the agent describes, the account is all that is known to be true.
        ("first-vendor", "first-time-vendor" | "first-time-payee") => {
            let says = format!("the account {} counts as known, whoever asks for money to it", facts.pay_to);
            (Rule::Change(vec![edit("known-payees", Change::Push(facts.pay_to.clone()))]), says)
        }
        ("payee-pin", "payee-not-pinned") => pinned(policy, settings, payment, "pay-to", |path| {
            let says = format!("the account {} may be paid by this pin too", facts.pay_to);
            (Edit { policy: policy.to_owned(), path, change: Change::Push(facts.pay_to.clone()) }, says)
        }),
        ("payee-pin", "price-drift")
            if pin_of(settings, payment).is_some_and(|(_, pin)| pin.get("price").is_some()) =>
        {
            pinned(policy, settings, payment, "price", |path| {
                let value = facts.value.to_string();
                let says = format!("the pinned price is {value} from now on");
                (Edit { policy: policy.to_owned(), path, change: Change::Set(value) }, says)
            })
        }
        ("payee-pin", "payee-changed" | "payee-unknown" | "price-drift") => (
            Rule::Settled,
            "the approval itself is the rule: from now on vendor and path are held to the account and price that a \
             person approved last"
                .to_owned(),
        ),
        _ => none("no setting of this policy lets this purchase pass and no other: change the policy by hand"),
    }
}

fn pinned(
    policy: &str,
    settings: &Value,
    payment: &PaymentView,
    key: &str,
    edit: impl FnOnce(Vec<String>) -> (Edit, String),
) -> (Rule, String) {
    match pin_of(settings, payment) {
        Some((index, _)) => {
            let path = ["pins", &index.to_string(), key].map(str::to_owned).to_vec();
            let (edit, says) = edit(path);
            (Rule::Change(vec![edit]), says)
        }
        None => none(&format!("`{policy}` has no pin for this host and path any more")),
    }
}

/// The pin that counts: the first that matches host and path.
fn pin_of<'s>(settings: &'s Value, payment: &PaymentView) -> Option<(usize, &'s Value)> {
    let facts = &payment.facts;
    let (host, port) = split_port(&facts.host);
    // A host of policies has a port only where it is not the scheme's own.
    let default = if facts.url.starts_with("http:") { 80 } else { 443 };
    let text = |pin: &'s Value, key: &str| pin.get(key).and_then(Value::as_str);
    let matches = |pin: &'s Value| {
        let host_is = text(pin, "host").and_then(HostPattern::parse);
        let path_is = text(pin, "path").is_none_or(|path| match path.strip_suffix('*') {
            Some(below) => facts.path.starts_with(below),
            None => facts.path == path,
        });
        path_is && host_is.is_some_and(|pattern| pattern.matches(host, port.unwrap_or(default), default))
    };
    settings.get("pins")?.as_array()?.iter().enumerate().find(|(_, pin)| matches(pin))
}

fn split_port(host: &str) -> (&str, Option<u16>) {
    match host.rsplit_once(':').and_then(|(name, port)| Some((name, port.parse().ok()?))) {
        // The last colon of an address in brackets is not a port's.
        Some((name, port)) if !name.starts_with('[') || name.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    }
}
