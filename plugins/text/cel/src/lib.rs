//! Rules written in the Common Expression Language.
//!
//! - **Settings** ([`Settings`]): `rules`, each a name, a condition and what then; `holds`, budgets whose
//!   braces are expressions too.
//! - **Verdict**: every rule is evaluated; the strongest of those that apply counts (deny, review, allow), with
//!   all its reasons. None: *abstain*.
//! - **Holds**: those of `holds` whose `when` is true.
//!
//! | code | when |
//! |---|---|
//! | a rule's `code`, else its name | the rule applies |
//! | `rule-error` | a condition could not be evaluated, or is not true or false |
//! | `hold-scope-missing` | what fills a budget's path is empty |
//! | `hold-scope-unusable` | what fills a budget's path cannot be a step of one |
//! | `zero-value` | money is to be held for a payment that is worth nothing |
//! | `review-groups-differ` | rules that apply ask two groups |
//!
//! Expressions see the request as `principal`, `purchase`, `seller`, `payment`, `history`, `claims`, `facts`,
//! `at`, `id` and `purchase_id`. What is not set is not there: `has(principal.client)` asks; reading it is
//! an error, and an error denies.

mod expression;

use countersign_sdk::{Decision, Policy, Problem, Reason, ReviewTerms, SpendRequest, export_policy};
use expression::{Expression, Language, Scope};
use rules_as_text::hold::{self, HoldRule, HoldSettings};
use rules_as_text::{Ruling, full_request, is_code, text};
use serde::Deserialize;

/// The rules and the holds.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// All are evaluated.
    #[serde(default)]
    pub rules: Vec<RuleSettings>,
    /// What is reserved, whatever the rules say.
    #[serde(default)]
    pub holds: Vec<HoldSettings>,
}

/// One rule.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RuleSettings {
    /// Stable kebab-case name; also the reason's code if there is no other.
    pub name: String,
    /// A CEL expression that is true or false.
    pub when: String,
    /// What follows if it is true.
    pub then: Then,
    /// Code of the reason.
    pub code: Option<String>,
    /// Message of the reason.
    pub message: Option<String>,
    /// The operator group that must approve.
    pub group: Option<String>,
    /// How many must approve.
    pub quorum: Option<u8>,
    /// After how long silence is a no.
    pub expires_in_seconds: Option<u32>,
}

/// What follows from a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Then {
    /// Object.
    Deny,
    /// Ask people.
    Review,
    /// Approve.
    Allow,
}

/// The configured policy.
#[derive(Debug)]
pub struct Cel {
    language: Language,
    rules: Vec<Rule>,
    holds: Vec<Held>,
    /// What of a request any expression reads.
    sections: Vec<&'static str>,
}

#[derive(Debug)]
struct Rule {
    /// What messages call it.
    label: String,
    when: Expression,
    then: Then,
    /// None for an allow that says nothing.
    reason: Option<Reason>,
    terms: Option<ReviewTerms>,
}

#[derive(Debug)]
struct Held {
    label: String,
    when: Option<Expression>,
    rule: HoldRule<Expression>,
}

impl Policy for Cel {
    type Settings = Settings;
    const NAME: &'static str = "cel";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Judges by rules and holds written in the Common Expression Language.";

    fn settings_schema() -> &'static str {
        include_str!("../settings.schema.json")
    }

    fn configure(settings: Settings) -> Result<Self, Vec<Problem>> {
        let language = Language::new();
        let mut problems = bounds(&settings);
        let rules: Vec<Rule> = read_all(&settings.rules, &mut problems, |index, rule| {
            read_rule(&language, &format!("/rules/{index}"), rule, settings.rules.iter().take(index))
        });
        let holds: Vec<Held> = read_all(&settings.holds, &mut problems, |index, hold| {
            read_hold(&language, &format!("/holds/{index}"), index, hold)
        });
        let checked: Vec<&HoldRule<Expression>> = holds.iter().map(|held| &held.rule).collect();
        problems.extend(if problems.is_empty() { hold::clashes(&checked) } else { Vec::new() });
        let mut policy = Self { language, rules, holds, sections: Vec::new() };
        policy.sections = expression::sections(policy.expressions());
        if problems.is_empty() {
            problems = policy.rehearse();
        }
        if problems.is_empty() { Ok(policy) } else { Err(problems) }
    }

    fn evaluate(&self, request: &SpendRequest) -> Result<Decision, String> {
        let scope = self.language.scope(request, &self.sections);
        let mut ruling = Ruling::default();
        for rule in &self.rules {
            match rule.when.truth(&scope) {
                Ok(true) => rule.apply(&mut ruling),
                Ok(false) => {}
                Err(why) => ruling.fail(&rule.label, &why),
            }
        }
        for held in &self.holds {
            match held.when.as_ref().map_or(Ok(true), |when| when.truth(&scope)) {
                Ok(true) => ruling.hold(held.hold(&scope, request)),
                Ok(false) => {}
                Err(why) => ruling.fail(&held.label, &why),
            }
        }
        Ok(ruling.decide())
    }
}

impl Cel {
    fn expressions(&self) -> impl Iterator<Item = &Expression> {
        let holds = self.holds.iter().flat_map(|held| held.when.iter().chain(held.rule.budget.scopes()));
        self.rules.iter().map(|rule| &rule.when).chain(holds)
    }

    /// Evaluates everything once on a request that has everything. What is wrong with its types is wrong for
    /// every request, and better said now. It also leaves whatever is made on first use made.
    fn rehearse(&self) -> Vec<Problem> {
        let request = full_request();
        let scope = self.language.scope(&request, &self.sections);
        let truths = self.rules.iter().map(|rule| &rule.when).chain(self.holds.iter().filter_map(|h| h.when.as_ref()));
        let texts = self.holds.iter().flat_map(|held| held.rule.budget.scopes());
        truths
            .filter_map(|expression| expression.rehearse(&scope, Expression::truth))
            .chain(texts.filter_map(|expression| expression.rehearse(&scope, Expression::text)))
            .collect()
    }
}

impl Rule {
    fn apply(&self, ruling: &mut Ruling) {
        match (self.then, self.reason.clone()) {
            (Then::Deny, Some(reason)) => ruling.deny(reason),
            (Then::Review, Some(reason)) => ruling.review(reason, self.terms.clone()),
            (Then::Allow, reason) => ruling.allow(reason),
            // Unreachable, as every other rule has a reason; without one it would still be an objection.
            (Then::Deny | Then::Review, None) => ruling.fail(&self.label, "it has no reason"),
        }
    }
}

impl Held {
    fn hold(&self, scope: &Scope<'_, '_>, request: &SpendRequest) -> Result<countersign_sdk::Hold, Reason> {
        let budget = self.rule.budget.fill(|expression| {
            expression.text(scope).map_err(|why| {
                Reason::new(rules_as_text::RULE_ERROR, format!("{} could not be evaluated: {why}", self.label))
            })
        })?;
        self.rule.hold(budget, request)
    }
}

fn bounds(settings: &Settings) -> Vec<Problem> {
    let length = settings.rules.iter().map(|rule| rule.when.len()).sum::<usize>();
    let mut problems: Vec<Problem> = [
        text::few("/rules", settings.rules.len()),
        text::few("/holds", settings.holds.len()),
        text::short("/rules", length),
    ]
    .into_iter()
    .filter_map(Result::err)
    .collect();
    if settings.rules.is_empty() && settings.holds.is_empty() {
        problems.push(Problem::document("there are neither `rules` nor `holds`"));
    }
    problems
}

/// Whatever can be read, if there are not too many to try.
fn read_all<S, T>(
    settings: &[S],
    problems: &mut Vec<Problem>,
    mut read: impl FnMut(usize, &S) -> Result<T, Vec<Problem>>,
) -> Vec<T> {
    let mut all = Vec::new();
    for (index, settings) in settings.iter().take(text::MAX_RULES).enumerate() {
        match read(index, settings) {
            Ok(one) => all.push(one),
            Err(found) => problems.extend(found),
        }
    }
    all
}

fn read_rule<'s>(
    language: &Language,
    path: &str,
    rule: &RuleSettings,
    mut before: impl Iterator<Item = &'s RuleSettings>,
) -> Result<Rule, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut refuse = |key: &str, why: String| problems.push(Problem::at(format!("{path}/{key}"), why));
    if !is_code(&rule.name) {
        refuse("name", format!("`{}` is not a kebab-case name such as `above-limit`", rule.name.escape_debug()));
    }
    if before.any(|other| other.name == rule.name) {
        refuse("name", format!("there is another rule `{}`", rule.name));
    }
    if let Some(code) = rule.code.as_ref().filter(|code| !is_code(code)) {
        refuse("code", format!("`{}` is not a kebab-case code such as `above-limit`", code.escape_debug()));
    }
    if rule.then != Then::Review {
        let terms = [
            ("group", rule.group.is_some()),
            ("quorum", rule.quorum.is_some()),
            ("expires-in-seconds", rule.expires_in_seconds.is_some()),
        ];
        for (key, _) in terms.into_iter().filter(|(_, said)| *said) {
            refuse(key, "only a rule with `then = \"review\"` says who must approve".to_owned());
        }
    }
    let when = language.compile(&format!("{path}/when"), &rule.when);
    match when {
        Ok(when) if problems.is_empty() => Ok(Rule {
            label: format!("rule `{}`", rule.name),
            when,
            then: rule.then,
            reason: reason(rule),
            terms: terms(rule),
        }),
        Ok(_) => Err(problems),
        Err(found) => {
            problems.extend(found);
            Err(problems)
        }
    }
}

fn reason(rule: &RuleSettings) -> Option<Reason> {
    if rule.then == Then::Allow && rule.code.is_none() && rule.message.is_none() {
        return None;
    }
    let code = rule.code.as_ref().unwrap_or(&rule.name);
    let message = rule.message.clone().unwrap_or_else(|| format!("rule `{}` applies", rule.name));
    Some(Reason::new(code, message))
}

fn terms(rule: &RuleSettings) -> Option<ReviewTerms> {
    let said = rule.group.is_some() || rule.quorum.is_some() || rule.expires_in_seconds.is_some();
    said.then(|| ReviewTerms {
        group: rule.group.clone(),
        quorum: rule.quorum.unwrap_or_default(),
        expires_in_seconds: rule.expires_in_seconds.unwrap_or_default(),
    })
}

fn read_hold(language: &Language, path: &str, index: usize, settings: &HoldSettings) -> Result<Held, Vec<Problem>> {
    let mut problems = Vec::new();
    let when = settings.when.as_ref().map(|when| language.compile(&format!("{path}/when"), when)).transpose();
    let when = when.map_err(|found| problems.extend(found)).ok();
    let scope = |text: &str| {
        let compiled = language.compile(&format!("{path}/budget"), text);
        compiled.map_err(|found| found.into_iter().map(|problem| problem.message).collect::<Vec<_>>().join("; "))
    };
    let rule = HoldRule::new(path, settings, scope).map_err(|found| problems.extend(found)).ok();
    match (when, rule) {
        (Some(when), Some(rule)) => Ok(Held { label: format!("hold {index} on `{}`", settings.budget), when, rule }),
        _ => Err(problems),
    }
}

export_policy!(Cel);

#[cfg(test)]
mod tests;
