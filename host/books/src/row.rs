//! What every export says of a payment, once: names in order, with values that each format then writes its own way.

use std::borrow::Cow;

use countersign_core::budget;
use countersign_core::ledger::{HoldView, RefundSource, UseReport, Vote};
use countersign_core::money::Micros;
use countersign_core::time::Timestamp;
use countersign_core::verdict::{Mode, Opinion, Reason, Unit, Verdict, Window};

use crate::Entry;
use crate::figures::{self, Places, Sum};

/// One value.
#[derive(Clone, Copy)]
pub(crate) enum Cell<'a> {
    /// Nothing is known, or nothing applies.
    Absent,
    /// Text that somebody else may have chosen.
    Text(&'a str),
    /// Text of ours: letters, digits, `-`, `_`, `.`, `:` and `/`.
    Plain(&'a str),
    /// A count.
    Number(u64),
    /// An amount in the smallest unit, and how many decimals the whole unit has.
    Amount(u128, u8),
    /// Yes or no.
    Flag(bool),
    /// A moment.
    Time(Timestamp),
    /// Bytes as `0x` and hex.
    Hex(&'a [u8]),
    /// A prefix and an identifier's bytes.
    Id(&'static str, &'a [u8; 16]),
}

impl<'a> Cell<'a> {
    pub(crate) fn text(value: Option<&'a String>) -> Self {
        value.map_or(Self::Absent, |text| Self::Text(text))
    }

    pub(crate) fn time(value: Option<Timestamp>) -> Self {
        value.map_or(Self::Absent, Self::Time)
    }

    pub(crate) fn number(value: Option<u64>) -> Self {
        value.map_or(Self::Absent, Self::Number)
    }

    /// Appends what is not foreign. Foreign text is for the format to escape: it is returned.
    pub(crate) fn plain(self, out: &mut String) -> Option<&'a str> {
        match self {
            Cell::Absent => {}
            Cell::Text(text) => return Some(text),
            Cell::Plain(text) => out.push_str(text),
            Cell::Number(n) => figures::number(out, n, 1),
            Cell::Amount(units, decimals) => figures::decimal(out, units, decimals, Places::Least),
            Cell::Flag(yes) => out.push_str(if yes { "true" } else { "false" }),
            Cell::Time(at) => figures::moment(out, at),
            Cell::Hex(bytes) => {
                out.push_str("0x");
                hex(out, bytes);
            }
            Cell::Id(prefix, bytes) => {
                out.push_str(prefix);
                hex(out, bytes);
            }
        }
        None
    }
}

fn hex(out: &mut String, bytes: &[u8]) {
    let digit = |n: u8| if n < 10 { b'0'.saturating_add(n) } else { b'a'.saturating_add(n.saturating_sub(10)) };
    for some in bytes.chunks(32) {
        let mut digits = [0_u8; 64];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(some) {
            pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
        }
        let written = digits.get(..some.len().saturating_mul(2)).unwrap_or_default();
        out.push_str(std::str::from_utf8(written).unwrap_or_default());
    }
}

/// What takes a row's values, in order.
pub(crate) trait Sink {
    /// One value.
    fn cell(&mut self, name: &'static str, cell: Cell<'_>);
    /// A list begins.
    fn open(&mut self, name: &'static str);
    /// One item of it.
    fn item(&mut self, cells: &[(&'static str, Cell<'_>)]);
    /// The list ends.
    fn close(&mut self);
}

pub(crate) const fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Deny => "deny",
        Verdict::Review => "review",
        Verdict::Allow => "allow",
        Verdict::Abstain => "abstain",
    }
}

/// What a policy answered: its verdict and the codes of its reasons.
pub(crate) fn answer(opinion: &Opinion) -> (Verdict, Cow<'_, str>) {
    match &opinion.outcome {
        Err(failure) => (Verdict::Deny, Cow::Borrowed(failure.kind.code())),
        Ok(decision) => (decision.verdict, codes(&decision.reasons)),
    }
}

fn codes(reasons: &[Reason]) -> Cow<'_, str> {
    match reasons {
        [] => Cow::Borrowed(""),
        [one] => Cow::Borrowed(&one.code),
        many => Cow::Owned(many.iter().map(|r| r.code.as_str()).collect::<Vec<_>>().join(" ")),
    }
}

/// A window as people read it.
pub(crate) fn window(window: &Window) -> Cow<'_, str> {
    match window {
        Window::Rolling(3_600) => Cow::Borrowed("hour"),
        Window::Rolling(seconds) => Cow::Owned(format!("rolling {seconds} s")),
        Window::Day(zone) => Cow::Owned(format!("day {zone}")),
        Window::Month(zone) => Cow::Owned(format!("month {zone}")),
        Window::Lifetime => Cow::Borrowed("lifetime"),
    }
}

/// The votes for the approval.
pub(crate) fn approvers<'a>(entry: &Entry<'a>) -> impl Iterator<Item = &'a Vote> {
    entry.approval.into_iter().flat_map(|approval| approval.votes.iter().filter(|vote| vote.approve))
}

/// The verdict on the purchase: a refused one was denied, whatever policies said.
pub(crate) fn outcome(entry: &Entry<'_>) -> Verdict {
    if entry.payment.refusal.is_some() { Verdict::Deny } else { entry.payment.decision.verdict }
}

/// What the agent said it was for.
pub(crate) fn purpose<'a>(entry: &Entry<'a>) -> Option<&'a String> {
    entry.payment.facts.claims.get("purpose")
}

/// Hands a payment's values over, in the order of the columns.
pub(crate) fn write(entry: &Entry<'_>, currency: &str, sink: &mut impl Sink) {
    money(entry, currency, sink);
    why(entry, sink);
    proof(entry, sink);
}

fn money(entry: &Entry<'_>, currency: &str, sink: &mut impl Sink) {
    let payment = entry.payment;
    let facts = &payment.facts;
    let amount = |units| Cell::Amount(units, facts.asset_decimals);
    let value = |micros: u64| Cell::Amount(u128::from(micros), Micros::DECIMALS);
    let (settled, refunded, in_doubt) = (Sum::settled(payment), Sum::refunded(payment), Sum::in_doubt(payment));

    sink.cell("id", Cell::Id("pay_", payment.id.as_bytes()));
    sink.cell("purchase", Cell::Text(payment.key.purchase.as_str()));
    sink.cell("attempt", Cell::Number(u64::from(payment.attempt)));
    sink.cell("state", Cell::Plain(payment.state.public()));
    sink.cell("created_at", Cell::Time(payment.created_at));
    sink.cell("settled_at", Cell::time(figures::settled_at(payment)));
    sink.cell("updated_at", Cell::Time(payment.updated_at));
    sink.cell("method", Cell::Text(&facts.method));
    sink.cell("url", Cell::Text(&facts.url));
    sink.cell("seller", Cell::Text(&facts.host));
    sink.cell("pay_to", Cell::Text(&facts.pay_to));
    sink.cell("value", value(facts.value.get()));
    sink.cell("currency", Cell::Text(currency));
    sink.cell("amount", amount(facts.amount.get()));
    sink.cell("asset_symbol", Cell::Text(&facts.asset_symbol));
    sink.cell("asset", Cell::Text(&facts.asset));
    sink.cell("network", Cell::Text(&facts.network));
    sink.cell("settled_value", value(settled.value));
    sink.cell("settled_amount", amount(settled.amount));
    sink.cell("refunded_value", value(refunded.value));
    sink.cell("refunded_amount", amount(refunded.amount));
    sink.cell("in_doubt_value", value(in_doubt.value));
    sink.cell("in_doubt_amount", amount(in_doubt.amount));
}

fn why(entry: &Entry<'_>, sink: &mut impl Sink) {
    let payment = entry.payment;
    let facts = &payment.facts;
    let principal = &facts.principal;

    sink.cell("workspace", Cell::text(principal.workspace.as_ref()));
    sink.cell("agent", Cell::Text(&principal.agent));
    sink.cell("user", Cell::text(principal.user.as_ref()));
    sink.cell("session", Cell::text(principal.session.as_ref()));
    sink.cell("client", Cell::text(principal.client.as_ref()));
    sink.cell("project", Cell::text(principal.project.as_ref()));
    sink.cell("task", Cell::text(principal.task.as_ref()));
    sink.cell("purpose", Cell::text(purpose(entry)));
    sink.cell("mandate", Cell::Text(&facts.mandate));
    sink.cell("wallet", Cell::Text(&facts.wallet));
    sink.cell("decision", Cell::Id("dec_", payment.decision.id.as_bytes()));
    sink.cell("generation", Cell::Number(payment.decision.judgement.generation));
    sink.cell("verdict", Cell::Plain(verdict(outcome(entry))));
    sink.cell("code", Cell::text(payment.refusal.as_ref()));
    sink.open("reasons");
    for reason in &payment.decision.reasons {
        sink.item(&[("policy", Cell::Text(&reason.policy)), ("code", Cell::Text(&reason.reason.code))]);
    }
    sink.close();
    sink.open("policies");
    for opinion in &payment.decision.judgement.opinions {
        let (said, codes) = answer(opinion);
        let mode = match opinion.mode {
            Mode::Enforce => "enforce",
            Mode::Monitor => "monitor",
        };
        sink.item(&[
            ("name", Cell::Text(&opinion.policy)),
            ("version", Cell::Text(&opinion.version)),
            ("mode", Cell::Plain(mode)),
            ("verdict", Cell::Plain(verdict(said))),
            ("codes", Cell::Text(&codes)),
            ("module_sha256", Cell::Text(&opinion.module_sha256)),
            ("settings_sha256", Cell::Text(&opinion.settings_sha256)),
        ]);
    }
    sink.close();
    sink.open("budgets");
    for hold in &payment.holds {
        held(hold, sink);
    }
    sink.close();
    sink.cell("approval", payment.approval.as_ref().map_or(Cell::Absent, |id| Cell::Id("apr_", id.as_bytes())));
    sink.open("approvers");
    for vote in approvers(entry) {
        sink.item(&[("operator", Cell::Text(&vote.operator)), ("at", Cell::Time(vote.at))]);
    }
    sink.close();
}

fn held(view: &HoldView, sink: &mut impl Sink) {
    let hold = &view.hold;
    let (unit, decimals) = match hold.unit {
        Unit::Micros => ("value", Micros::DECIMALS),
        Unit::Count => ("count", 0),
    };
    let figure = |n: u64| Cell::Amount(u128::from(n), decimals);
    let name = if hold.owner == budget::HOST { Cow::Borrowed(hold.name.as_str()) } else { Cow::Owned(hold.label()) };
    sink.item(&[
        ("budget", Cell::Text(&name)),
        ("window", Cell::Text(&window(&hold.window))),
        ("starts_at", if hold.win == 0 { Cell::Absent } else { Cell::Time(Timestamp::from_millis(hold.win)) }),
        ("unit", Cell::Plain(unit)),
        ("amount", figure(hold.amount)),
        ("limit", figure(hold.limit)),
        ("open", Cell::Flag(view.open)),
        ("spent", figure(view.spent)),
        ("refunded", figure(view.refunded)),
    ]);
}

fn proof(entry: &Entry<'_>, sink: &mut impl Sink) {
    let payment = entry.payment;
    let evidence = payment.evidence.as_deref();
    let authorization = payment.authorization.as_ref();

    sink.cell("transaction", Cell::text(payment.transaction.as_ref()));
    sink.cell("block", Cell::number(evidence.and_then(|e| e.block)));
    sink.cell("block_time", Cell::time(evidence.and_then(|e| e.block_time).map(Timestamp::from_secs)));
    sink.cell("payer", authorization.map_or(Cell::Absent, |a| Cell::Hex(a.from.as_bytes())));
    sink.cell("nonce", authorization.map_or(Cell::Absent, |a| Cell::Hex(&a.nonce)));
    sink.cell("valid_before", Cell::time(authorization.map(|a| Timestamp::from_secs(a.valid_before))));
    sink.cell("offer_sha256", Cell::Text(&payment.facts.offer_sha256));
    sink.open("refunds");
    for (refund, sum) in Sum::refunds(payment) {
        let (source, reference) = match &refund.source {
            RefundSource::Chain { transaction, .. } => ("chain", transaction),
            RefundSource::Person { reference, .. } => ("person", reference),
        };
        let by = match &refund.source {
            RefundSource::Chain { .. } => Cell::Absent,
            RefundSource::Person { by, .. } => Cell::Text(by),
        };
        sink.item(&[
            ("at", Cell::Time(refund.at)),
            ("amount", Cell::Amount(sum.amount, payment.facts.asset_decimals)),
            ("value", Cell::Amount(u128::from(sum.value), Micros::DECIMALS)),
            ("source", Cell::Plain(source)),
            ("reference", Cell::Text(reference)),
            ("by", by),
        ]);
    }
    sink.close();
    sink.cell("delivered", Cell::Flag(payment.delivered));
    sink.open("uses");
    for report in &payment.uses {
        used(report, sink);
    }
    sink.close();
    sink.cell("repeats", Cell::Number(u64::from(payment.repeats)));
    sink.cell("why", payment.history.last().map_or(Cell::Absent, |step| Cell::Text(&step.why)));
    sink.cell("record", Cell::number(entry.record));
}

fn used(report: &UseReport, sink: &mut impl Sink) {
    let reporter = match report.reporter {
        countersign_core::ledger::Reporter::Agent => "agent",
        countersign_core::ledger::Reporter::Person => "person",
    };
    sink.item(&[
        ("used", Cell::Plain(report.used.as_str())),
        ("reporter", Cell::Plain(reporter)),
        ("by", Cell::Text(&report.by)),
        ("note", Cell::text(report.note.as_ref())),
        ("artifact", Cell::text(report.artifact.as_ref())),
        ("at", Cell::Time(report.at)),
    ]);
}
