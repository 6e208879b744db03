//! The pilot checklist: a table of scenarios, and the tale that each of them tells.

use countersign_core::ledger::Fut;
use serde_json::Value;

use super::agent::{Agent, Answer, Trouble, items, number, text};
use super::report::{Screen, Tone, foreign};
use super::stage::Stage;
use super::{buying, hostile, policies, trouble};

/// One point of the checklist.
pub(super) struct Scenario {
    /// What is shown.
    pub(super) title: &'static str,
    /// Plays it.
    play: for<'a> fn(&'a Stage, &'a mut Tale) -> Fut<'a, Result<(), Trouble>>,
}

/// The checklist, in the order in which it is played.
pub(super) static CHECKLIST: &[Scenario] = &[
    Scenario { title: "An approved vendor is bought from", play: |s, t| Box::pin(buying::approved(s, t)) },
    Scenario { title: "A vendor nobody approved is refused", play: |s, t| Box::pin(buying::unapproved(s, t)) },
    Scenario {
        title: "A price above the cap per payment is refused",
        play: |s, t| Box::pin(buying::per_payment(s, t)),
    },
    Scenario { title: "The cap per session holds", play: |s, t| Box::pin(buying::per_session(s, t)) },
    Scenario { title: "The cap per agent and day holds", play: |s, t| Box::pin(buying::per_day(s, t)) },
    Scenario { title: "A first-time vendor waits for a person", play: |s, t| Box::pin(buying::first_time(s, t)) },
    Scenario { title: "A wallet without enough money is not used", play: |s, t| Box::pin(buying::insufficient(s, t)) },
    Scenario { title: "The seller takes the money and hangs up", play: |s, t| Box::pin(trouble::hangs_up(s, t)) },
    Scenario { title: "The price changes once it is paid", play: |s, t| Box::pin(trouble::raises_price(s, t)) },
    Scenario { title: "A storm of repeats pays once", play: |s, t| Box::pin(trouble::storm(s, t)) },
    Scenario { title: "A session uses up what it was given", play: |s, t| Box::pin(buying::session_budget(s, t)) },
    Scenario { title: "A policy is replaced while it is in use", play: |s, t| Box::pin(policies::replaced(s, t)) },
    Scenario {
        title: "A broken policy is refused, the last good one serves",
        play: |s, t| Box::pin(policies::broken(s, t)),
    },
    Scenario { title: "Hostile sellers get nothing", play: |s, t| Box::pin(hostile::nothing_lost(s, t)) },
];

/// A line of a tale.
struct Line {
    label: &'static str,
    text: String,
    tone: Tone,
}

/// What happened in a scenario, what was expected of it, and what proves it.
#[derive(Default)]
pub(super) struct Tale {
    lines: Vec<Line>,
    failed: bool,
    evidence: String,
}

impl Tale {
    /// Something worth knowing.
    pub(super) fn note(&mut self, label: &'static str, text: impl Into<String>) {
        self.lines.push(Line { label, text: text.into(), tone: Tone::Plain });
    }

    /// Something that must be so.
    pub(super) fn expect(&mut self, holds: bool, what: impl Into<String>) {
        let (label, tone) = if holds { ("checked", Tone::Good) } else { ("NOT SO", Tone::Bad) };
        self.failed |= !holds;
        self.lines.push(Line { label, text: what.into(), tone });
    }

    /// Something that must not be so; it is not worth a line when it is not.
    pub(super) fn fail_if(&mut self, wrong: bool, what: impl Into<String>) {
        if wrong {
            self.expect(false, what);
        }
    }

    /// What the table of results says of it.
    pub(super) fn prove(&mut self, evidence: impl Into<String>) {
        self.evidence = evidence.into();
    }

    /// Who called and what came back.
    pub(super) fn call(&mut self, stage: &Stage, agent: &Agent, answer: &Answer) {
        self.note("agent", format!("{} asks for {}", agent.name, stage.place(&answer.url)));
        self.answer(answer);
    }

    /// What came back.
    pub(super) fn answer(&mut self, answer: &Answer) {
        let mut text = answer.status.to_string();
        let told = [Some(answer.code.as_str()), answer.state.as_deref(), answer.amount.as_deref()];
        for part in told.into_iter().flatten().filter(|part| !part.is_empty()) {
            text.push_str(", ");
            text.push_str(part);
        }
        if answer.replayed {
            text.push_str(", the kept answer");
        }
        if answer.code.is_empty() && !answer.body.is_empty() {
            text.push_str(&format!(": {}", answer.body.chars().take(60).collect::<String>()));
        }
        self.note("answer", foreign(&text));
    }

    /// Why, and by which policies, from the ledger: what an operator can look up months later.
    pub(super) async fn explain(&mut self, stage: &Stage, answer: &Answer) -> Result<Value, Trouble> {
        let Some(id) = &answer.payment else {
            self.note("why", foreign(&answer.detail));
            return Ok(Value::Null);
        };
        let payment = stage.operator.payment(id).await?;
        self.note("ledger", summary(&payment));
        for reason in items(&payment, "/decision/reasons") {
            let (policy, code, message) = (text(reason, "/policy"), text(reason, "/code"), text(reason, "/message"));
            self.note("why", foreign(&format!("{policy}: {code}: {message}")));
        }
        for opinion in items(&payment, "/decision/policies") {
            self.note("policy", policy(opinion, number(&payment, "/decision/generation")));
        }
        Ok(payment)
    }

    fn print(&self, screen: Screen) {
        for line in &self.lines {
            screen.entry(line.label, &line.text, line.tone);
        }
    }
}

/// A payment in one line.
fn summary(payment: &Value) -> String {
    let (value, currency) = (text(payment, "/amount/value"), text(payment, "/amount/currency"));
    let mut line = format!("{}, {value} {currency}, {}", text(payment, "/state"), text(payment, "/id"));
    let transaction = text(payment, "/transaction");
    if !transaction.is_empty() {
        line.push_str(&format!(", transaction {}", short(transaction)));
    }
    line
}

/// A policy's opinion in one line: which code, which settings' generation, what it said.
fn policy(opinion: &Value, generation: Option<u64>) -> String {
    let digest: String = text(opinion, "/module_sha256").chars().take(12).collect();
    let (name, version, verdict) = (text(opinion, "/name"), text(opinion, "/version"), text(opinion, "/verdict"));
    format!("{name} {version}, module {digest}, generation {}: {verdict}", generation.unwrap_or_default())
}

/// The beginning of a long hexadecimal number.
pub(super) fn short(hex: &str) -> String {
    let start: String = hex.chars().take(14).collect();
    if start == hex { start } else { format!("{start}…") }
}

/// How a scenario ended.
pub(super) struct Ending {
    /// Its title.
    pub(super) title: &'static str,
    /// Whether all was as expected.
    pub(super) passed: bool,
    /// What proves it.
    pub(super) evidence: String,
}

/// Plays one scenario and prints it.
pub(super) async fn play(screen: Screen, stage: &Stage, number: usize, scenario: &Scenario) -> Ending {
    let mut tale = Tale::default();
    if let Err(trouble) = (scenario.play)(stage, &mut tale).await {
        tale.expect(false, format!("the scenario could not be played: {}", foreign(&trouble.to_string())));
    }
    let passed = !tale.failed;
    screen.title(number, scenario.title, passed);
    tale.print(screen);
    Ending { title: scenario.title, passed, evidence: tale.evidence }
}
