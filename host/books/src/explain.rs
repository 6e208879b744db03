//! One payment's story: the eight questions every purchase must answer, with what proves each answer.
//!
//! Words of ours and words of others never mix: what a seller, an agent or an operator wrote stands between “ and ”, with
//! every such mark and every hidden character inside it named, and who wrote it is said.

use std::fmt::Write as _;

use countersign_core::ledger::{ApprovalState, PaymentView, RefundSource, Reporter};
use countersign_core::money::Micros;
use countersign_core::payment::State;
use countersign_core::time::Timestamp;
use countersign_core::verdict::{Mode, Unit, Verdict};
use serde_json::{Value, json};

use crate::Entry;
use crate::figures::{self, Places, Sum};
use crate::{row, text};

/// One piece of evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// What it is, such as `transaction`.
    pub name: &'static str,
    /// Its exact value.
    pub value: String,
    /// Whose words they are, if not the host's: they prove nothing but that they were said.
    pub said_by: Option<&'static str>,
}

/// One question with its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The question.
    pub question: &'static str,
    /// Whether the ledger knows the answer.
    pub answered: bool,
    /// The answer in words, one paragraph.
    pub answer: String,
    /// What it rests on.
    pub evidence: Vec<Evidence>,
}

/// A payment's story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Story {
    /// The payment.
    pub payment: String,
    /// The questions, in their order.
    pub answers: Vec<Answer>,
}

impl Story {
    /// Tells it. `currency` is the reference currency.
    #[must_use]
    pub fn of(entry: &Entry<'_>, currency: &str) -> Self {
        let answers = vec![
            bought(entry),
            triggered(entry),
            started(entry),
            allowed(entry, currency),
            cost(entry, currency),
            paid(entry),
            became(entry, currency),
            useful(entry),
        ];
        Self { payment: entry.payment.id.to_string(), answers }
    }

    /// How many of the eight questions are answered.
    #[must_use]
    pub fn answered(&self) -> usize {
        self.answers.iter().filter(|answer| answer.answered).count()
    }

    /// For people, in plain text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = format!("Payment {}\n", self.payment);
        for (i, answer) in self.answers.iter().enumerate() {
            // Writing to a string does not fail.
            let _infallible = write!(out, "\n{}. {}\n   {}\n", i.saturating_add(1), answer.question, answer.answer);
            for evidence in &answer.evidence {
                let _infallible = write!(out, "     {}: ", evidence.name);
                match evidence.said_by {
                    None => text::visible(&mut out, &evidence.value, "“”"),
                    Some(who) => {
                        quote(&mut out, &evidence.value);
                        let _infallible = write!(out, " ({who}, untrusted)");
                    }
                }
                out.push('\n');
            }
        }
        let _infallible = write!(out, "\n{} of {} questions are answered.\n", self.answered(), self.answers.len());
        out
    }

    /// For programs. Values are exact; whose words they are is told beside them.
    #[must_use]
    pub fn json(&self) -> Value {
        let answers = self.answers.iter().map(|answer| {
            let evidence = answer.evidence.iter().map(|evidence| {
                json!({
                    "name": evidence.name,
                    "value": evidence.value,
                    "said_by": evidence.said_by,
                    "trusted": evidence.said_by.is_none(),
                })
            });
            json!({
                "question": answer.question,
                "answered": answer.answered,
                "answer": answer.answer,
                "evidence": evidence.collect::<Vec<_>>(),
            })
        });
        json!({
            "payment": self.payment,
            "answered": self.answered(),
            "questions": self.answers.len(),
            "answers": answers.collect::<Vec<_>>(),
        })
    }
}

/// Somebody else's words.
fn quote(out: &mut String, words: &str) {
    out.push('“');
    text::visible(out, words, "“”");
    out.push('”');
}

fn quoted(words: &str) -> String {
    let mut out = String::new();
    quote(&mut out, words);
    out
}

/// A configured name, shown as it is.
fn name(text: &str) -> String {
    let mut out = String::from("`");
    text::visible(&mut out, text, "`“”");
    out.push('`');
    out
}

fn moment(at: Timestamp) -> String {
    let mut out = String::new();
    figures::moment(&mut out, at);
    out
}

fn value(sum: Sum, currency: &str) -> String {
    let mut out = String::new();
    sum.write_value(&mut out, Places::Least);
    out.push(' ');
    text::visible(&mut out, currency, "");
    out
}

fn asset(payment: &PaymentView, amount: u128) -> String {
    let mut out = String::new();
    figures::decimal(&mut out, amount, payment.facts.asset_decimals, Places::Least);
    out.push(' ');
    text::visible(&mut out, &payment.facts.asset_symbol, "");
    out
}

/// Evidence being collected: what is unknown leaves no trace.
#[derive(Default)]
struct Proof(Vec<Evidence>);

impl Proof {
    fn ours(mut self, name: &'static str, value: Option<impl ToString>) -> Self {
        self.0.extend(value.map(|value| Evidence { name, value: value.to_string(), said_by: None }));
        self
    }

    fn said(mut self, name: &'static str, who: &'static str, value: Option<&String>) -> Self {
        self.0.extend(value.map(|value| Evidence { name, value: value.clone(), said_by: Some(who) }));
        self
    }
}

const SELLER: &str = "the seller's words";
const AGENT: &str = "the agent's words";
const PERSON: &str = "an operator's words";

fn bought(entry: &Entry<'_>) -> Answer {
    let facts = &entry.payment.facts;
    let asked = &entry.payment.decision.request.purchase;
    let mut answer = format!("{} {} from {}", name(&facts.method), quoted(&facts.url), quoted(&facts.host));
    answer.push_str(if asked.observed {
        ", as the host itself fetched the offer."
    } else {
        ". Only the agent says that this is what the payment was for."
    });
    let evidence = Proof::default()
        .ours("purchase", Some(&entry.payment.key.purchase))
        .ours("attempt", Some(entry.payment.attempt))
        .ours("offer sha256", Some(&facts.offer_sha256))
        .ours("query digest", asked.query_digest.as_ref())
        .ours("body digest", asked.body_digest.as_ref())
        .said("description", SELLER, asked.description.as_ref())
        .said("media type", SELLER, asked.media_type.as_ref())
        .said("category", SELLER, asked.category.as_ref());
    Answer { question: "What was bought?", answered: true, answer, evidence: evidence.0 }
}

fn triggered(entry: &Entry<'_>) -> Answer {
    let principal = &entry.payment.facts.principal;
    let answer = match (&principal.task, row::purpose(entry)) {
        (Some(task), _) => format!("Task {}, which the session was opened for.", name(task)),
        (None, Some(_)) => "No session names a task. The agent states a purpose of its own.".to_owned(),
        (None, None) => "Not known: no session names a task, and the agent stated no purpose.".to_owned(),
    };
    let evidence = Proof::default()
        .ours("session", principal.session.as_ref())
        .said("purpose", AGENT, row::purpose(entry))
        .said("task as claimed", AGENT, entry.payment.facts.claims.get("task"));
    let answered = principal.task.is_some() || row::purpose(entry).is_some();
    Answer { question: "Which task triggered it?", answered, answer, evidence: evidence.0 }
}

fn started(entry: &Entry<'_>) -> Answer {
    let principal = &entry.payment.facts.principal;
    let mut answer = format!("Agent {}", name(&principal.agent));
    for (link, who) in [
        (" for user ", &principal.user),
        (" in workspace ", &principal.workspace),
        (" for client ", &principal.client),
        (" on project ", &principal.project),
    ] {
        if let Some(who) = who {
            answer.push_str(link);
            answer.push_str(&name(who));
        }
    }
    if !principal.roles.is_empty() {
        let roles: Vec<_> = principal.roles.iter().map(|role| name(role)).collect();
        let _infallible = write!(answer, ", with role {}", roles.join(", "));
    }
    let _infallible = write!(answer, ", on {}.", moment(entry.payment.created_at));
    let evidence = Proof::default()
        .ours("session", principal.session.as_ref())
        .ours("mandate", Some(&entry.payment.facts.mandate))
        .ours("wallet", Some(&entry.payment.facts.wallet));
    Answer { question: "Which user, team or system started it?", answered: true, answer, evidence: evidence.0 }
}

fn allowed(entry: &Entry<'_>, currency: &str) -> Answer {
    let payment = entry.payment;
    let judgement = &payment.decision.judgement;
    let mut answer = match (row::outcome(entry), payment.state) {
        (Verdict::Deny, _) => "No policy allowed it: it was denied".to_owned(),
        (_, State::Review) => "It waits for people".to_owned(),
        (Verdict::Review, _) => "Policies asked for people".to_owned(),
        (Verdict::Allow | Verdict::Abstain, _) => "It was allowed".to_owned(),
    };
    let _infallible = write!(
        answer,
        " under mandate {}, by the policies of generation {}.",
        name(&payment.facts.mandate),
        judgement.generation
    );
    for opinion in &judgement.opinions {
        let (verdict, codes) = row::answer(opinion);
        let _infallible = write!(answer, " {} {} said {}", name(&opinion.policy), name(&opinion.version), verdict);
        if !codes.is_empty() {
            let _infallible = write!(answer, " ({})", name(&codes));
        }
        answer.push_str(if opinion.mode == Mode::Monitor { ", only watching." } else { "." });
    }
    if let Some(refusal) = &payment.refusal {
        let _infallible = write!(answer, " The agent was told {}.", name(refusal));
    }
    approved(entry, &mut answer);
    for hold in &payment.holds {
        let figure = |units: u64| match hold.hold.unit {
            Unit::Count => units.to_string(),
            Unit::Micros => {
                let mut out = String::new();
                figures::decimal(&mut out, u128::from(units), Micros::DECIMALS, Places::Least);
                let _infallible = write!(out, " {currency}");
                out
            }
        };
        let _infallible = write!(
            answer,
            " Budget {} ({}) held {} of at most {}.",
            name(&hold.hold.label()),
            row::window(&hold.hold.window),
            figure(hold.hold.amount),
            figure(hold.hold.limit)
        );
    }
    let mut evidence = Proof::default()
        .ours("decision", Some(payment.decision.id))
        .ours("audit record", entry.record)
        .ours("approval", payment.approval)
        .ours("approved exactly", entry.approval.map(|a| &a.frozen));
    for opinion in &judgement.opinions {
        evidence = evidence
            .ours("policy", Some(format!("{} {}", opinion.policy, opinion.version)))
            .ours("module sha256", Some(&opinion.module_sha256))
            .ours("settings sha256", Some(&opinion.settings_sha256));
    }
    for vote in entry.approval.into_iter().flat_map(|approval| &approval.votes) {
        evidence = evidence.said("vote note", PERSON, Some(&vote.note).filter(|note| !note.is_empty()));
    }
    Answer { question: "Which policy allowed it?", answered: true, answer, evidence: evidence.0 }
}

fn approved(entry: &Entry<'_>, answer: &mut String) {
    let Some(approval) = entry.approval else {
        if entry.payment.approval.is_some() {
            answer.push_str(" It went through review; who spoke is in the approval.");
        }
        return;
    };
    for vote in &approval.votes {
        let word = if vote.approve { "approved" } else { "refused" };
        let _infallible = write!(answer, " {} {word} it on {}.", name(&vote.operator), moment(vote.at));
    }
    let _infallible = match approval.state {
        ApprovalState::Pending => {
            write!(answer, " It needs {} and waits until {}.", approval.terms.quorum, moment(approval.expires_at))
        }
        ApprovalState::Expired => write!(answer, " Nobody answered before {}.", moment(approval.expires_at)),
        ApprovalState::Approved | ApprovalState::Denied | ApprovalState::Used => Ok(()),
    };
}

fn cost(entry: &Entry<'_>, currency: &str) -> Answer {
    let payment = entry.payment;
    let asked = Sum { amount: payment.facts.amount.get(), value: payment.facts.value.get() };
    let (settled, refunded, doubt) = (Sum::settled(payment), Sum::refunded(payment), Sum::in_doubt(payment));
    let both = |sum: Sum| format!("{} ({})", value(sum, currency), asset(payment, sum.amount));
    let answer = if payment.state.is_spent() {
        let mut answer = format!("{} was paid", both(settled));
        if settled.amount < asked.amount {
            let _infallible = write!(answer, ", of {} signed for", both(asked));
        }
        if refunded.amount > 0 {
            let _infallible = write!(answer, "; {} came back", both(refunded));
        }
        answer + "."
    } else if doubt.amount > 0 {
        format!("At most {}: it is signed for, and neither proven paid nor proven unpaid.", both(doubt))
    } else {
        format!("Nothing. {} was asked.", both(asked))
    };
    let evidence = Proof::default()
        .ours("atomic units asked", Some(payment.facts.amount))
        .ours("atomic units redeemed", payment.state.is_spent().then_some(settled.amount))
        .ours("asset", Some(&payment.facts.asset))
        .ours("network", Some(&payment.facts.network));
    Answer { question: "How much?", answered: true, answer, evidence: evidence.0 }
}

fn paid(entry: &Entry<'_>) -> Answer {
    let payment = entry.payment;
    let facts = &payment.facts;
    let payee = format!("{} on {}, for {}", name(&facts.pay_to), name(&facts.network), quoted(&facts.host));
    let wallet = name(&facts.wallet);
    let answer = if payment.state.is_spent() {
        format!("{payee}, from wallet {wallet}.")
    } else if payment.state.is_open() {
        format!("Nobody for certain; {payee} may have been, or may still be, from wallet {wallet}.")
    } else {
        format!("Nobody. It would have been {payee}, from wallet {wallet}.")
    };
    let evidence = Proof::default()
        .ours("payee", Some(&facts.pay_to))
        .ours("payer", payment.authorization.as_ref().map(|a| a.from))
        .ours("scheme", Some(format!("{} {}", facts.rail, facts.scheme)));
    Answer { question: "Who was paid?", answered: true, answer, evidence: evidence.0 }
}

fn became(entry: &Entry<'_>, currency: &str) -> Answer {
    let payment = entry.payment;
    let mut answer = match payment.state {
        State::Denied => "It was denied; nothing was signed.".to_owned(),
        State::Review => "It waits for people; nothing is signed.".to_owned(),
        State::Signed => "It is signed, and the call is running.".to_owned(),
        State::Redeemable => "Unknown: it was signed, and the call ended without a valid receipt.".to_owned(),
        State::Seen => "The seller says it is settled; the chain has not proven it yet.".to_owned(),
        State::Settled => "It is settled: the chain proves it.".to_owned(),
        State::Released => "It failed, and nothing redeemable is left: its budgets were given back.".to_owned(),
        State::Refunded => "It is settled, and money came back.".to_owned(),
        State::Disputed => "It is settled, and contested.".to_owned(),
        State::Stuck => {
            "Unknown: what the chain shows contradicts itself or what was signed. People must look.".to_owned()
        }
    };
    if payment.repeats > 1 {
        let _infallible = write!(answer, " It stands for {} equal denials.", payment.repeats);
    }
    if payment.attempt > 1 {
        let _infallible = write!(answer, " It is attempt {} of its purchase.", payment.attempt);
    }
    if payment.delivered {
        answer.push_str(" The seller's answer reached the agent whole.");
    } else if payment.state.is_spent() {
        answer.push_str(" No whole answer of the seller reached the agent.");
    }
    for (refund, sum) in Sum::refunds(payment) {
        let _infallible = write!(answer, " {} came back, booked on {}", value(sum, currency), moment(refund.at));
        match &refund.source {
            RefundSource::Chain { .. } => answer.push_str(", as the chain shows."),
            RefundSource::Person { by, .. } => {
                let _infallible = write!(answer, ", on the word of {}.", name(by));
            }
        }
    }
    let shown = payment.evidence.as_deref();
    let mut evidence = Proof::default()
        .ours("transaction", payment.transaction.as_ref())
        .ours("block", shown.and_then(|e| e.block))
        .ours("block hash", shown.and_then(|e| e.block_hash.as_ref()))
        .ours("block time", shown.and_then(|e| e.block_time).map(|secs| moment(Timestamp::from_secs(secs))))
        .ours("nodes that agree", shown.and_then(|e| e.nodes))
        .ours("document sha256", shown.and_then(|e| e.document.as_ref()))
        .ours("nonce", payment.authorization.as_ref().map(|a| format!("0x{}", hex::encode(a.nonce))))
        .ours(
            "redeemable before",
            payment.authorization.as_ref().map(|a| moment(Timestamp::from_secs(a.valid_before))),
        );
    for refund in &payment.refunds {
        evidence = match &refund.source {
            RefundSource::Chain { transaction, .. } => evidence.ours("refund transaction", Some(transaction)),
            RefundSource::Person { reference, .. } => evidence.said("refund reference", PERSON, Some(reference)),
        };
    }
    for step in &payment.history {
        // Its reason may quote a seller, so it is shown like any foreign words.
        let said = format!("{} {}: {}", moment(step.at), step.state.public(), step.why);
        evidence = evidence.said("step", "as recorded", Some(&said));
    }
    let question = "Did it succeed, fail, retry, or get denied?";
    Answer { question, answered: true, answer, evidence: evidence.0 }
}

fn useful(entry: &Entry<'_>) -> Answer {
    let mut answer = String::new();
    let mut evidence = Proof::default();
    for report in &entry.payment.uses {
        let (who, words) = match report.reporter {
            Reporter::Agent => ("The agent", AGENT),
            Reporter::Person => ("Operator", PERSON),
        };
        let separator = if answer.is_empty() { "" } else { " " };
        let _infallible = write!(
            answer,
            "{separator}{who} {} said `{}` on {}.",
            name(&report.by),
            report.used.as_str(),
            moment(report.at)
        );
        evidence = evidence.said("note", words, report.note.as_ref()).said("artifact", words, report.artifact.as_ref());
    }
    let answered = !answer.is_empty();
    if !answered {
        answer.push_str(if entry.payment.state.has_authorization() {
            "Not known: nobody has said."
        } else {
            "Nothing was bought, so nothing could be used."
        });
    }
    let answered = answered || !entry.payment.state.has_authorization();
    Answer { question: "Was it used?", answered, answer, evidence: evidence.0 }
}
