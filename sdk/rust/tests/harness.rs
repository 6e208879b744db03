//! The harness finds what a host would find, and its assertions can fail.

use std::sync::atomic::{AtomicU64, Ordering};

use countersign_sdk::testing::{Harness, assert_schema_agrees, json, problems, request, run_cases};
use countersign_sdk::{
    Decision, Hold, NoSettings, Policy, Problem, Slot, SpendRequest, Verdict, Window, export_policy,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Settings {
    answer: String,
}

/// Answers what its settings say.
struct Scripted {
    answer: String,
    calls: AtomicU64,
}

impl Policy for Scripted {
    type Settings = Settings;
    const NAME: &'static str = "scripted";
    const VERSION: &'static str = "0.1.0";
    const SUMMARY: &'static str = "Answers what its settings say.";

    fn settings_schema() -> &'static str {
        r#"{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object",
            "properties":{"anwser":{"description":"misspelt"}},"additionalProperties":false}"#
    }

    fn configure(settings: Settings) -> Result<Self, Vec<Problem>> {
        if settings.answer == "silence" {
            return Err(Vec::new());
        }
        Ok(Self { answer: settings.answer, calls: AtomicU64::new(0) })
    }

    fn evaluate(&self, _request: &SpendRequest) -> Result<Decision, String> {
        let held = |amount: u64| Hold::micros("agent/scout", Window::day("UTC"), 10_u64, amount);
        match self.answer.as_str() {
            "allow" => Ok(Decision::allow()),
            "deny" => Ok(Decision::deny("no", "never")),
            "review" => Ok(Decision::review("large", "look")),
            "error" => Err("out of order".to_owned()),
            "impure" => Ok(Decision::allow().note("calls", self.calls.fetch_add(1, Ordering::Relaxed).to_string())),
            "zero-hold" => Ok(Decision::allow().hold(held(0))),
            "same-hold" => Ok(Decision::allow().hold(held(1)).hold(held(2))),
            "many-holds" => Ok(Decision::allow().holds((1..18).map(|n| Hold::count("a", Window::rolling(n), 1, 1)))),
            "bad-code" => Ok(Decision::deny("Not Kebab", "")),
            "no-reason" => Ok(Decision::new(Verdict::Deny)),
            other => Err(format!("not scripted: {other}")),
        }
    }
}

export_policy!(Scripted);

fn answering(answer: &str) -> Harness<Scripted> {
    Harness::new(json!({ "answer": answer }))
}

#[test]
fn assertions_hold() {
    answering("allow").evaluate(&request()).assert_allows().assert_codes(&[]).assert_no_holds();
    answering("deny").evaluate(&request()).assert_denies("no").assert_codes(&["no"]);
    answering("review").evaluate(&request()).assert_reviews("large");
    assert_eq!(answering("error").evaluate(&request().build()).error(), Some("out of order"));
}

#[test]
fn assertions_can_fail() {
    let checks: [(&str, fn()); 14] = [
        ("expected Verdict::Allow", || drop(answering("deny").evaluate(&request()).assert_allows().clone())),
        ("expected Verdict::Abstain", || drop(answering("allow").evaluate(&request()).assert_abstains().clone())),
        ("expected Verdict::Deny", || drop(answering("review").evaluate(&request()).assert_denies("large").clone())),
        ("no reason `yes`", || drop(answering("deny").evaluate(&request()).assert_denies("yes").clone())),
        ("evaluate failed: out of order", || drop(answering("error").evaluate(&request()).assert_allows().clone())),
        ("no hold on `agent/scout`", || drop(answering("allow").evaluate(&request()).hold("agent/scout").clone())),
        ("not a pure function", || drop(answering("impure").evaluate(&request()))),
        ("hold on `agent/scout` of 0", || drop(answering("zero-hold").evaluate(&request()))),
        ("two holds on `agent/scout`", || drop(answering("same-hold").evaluate(&request()))),
        ("17 holds", || drop(answering("many-holds").evaluate(&request()))),
        ("not kebab-case", || drop(answering("bad-code").evaluate(&request()))),
        ("without a reason", || drop(answering("no-reason").evaluate(&request()))),
        ("/answer: expected a string", || drop(Harness::<Scripted>::new(json!({ "answer": 1 })))),
        ("the schema's keys", assert_schema_agrees::<Scripted>),
    ];
    for (message, check) in checks {
        let panic = std::panic::catch_unwind(check).unwrap_err();
        let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
        assert!(text.contains(message), "expected `{message}`, got `{text}`");
    }
}

#[test]
fn cases_can_fail() {
    let case = |rest: &str| format!(r#"{{"cases":[{{"name":"one","settings":{{"answer":"deny"}},{rest}}}]}}"#);
    run_cases::<Scripted>(&case(r#""expect":{"verdict":"deny","reasons":["no"]}"#));
    run_cases::<Scripted>(r#"{"settings":{"answer":"error"},"cases":[{"name":"one","expect":{"error":"of order"}}]}"#);
    let never = |answer: &str| {
        format!(
            r#"{{"settings":{{"answer":"{answer}"}},"properties":[{{"name":"never allows",
                "vary":{{"payment.value":{{"to":9}}}},"never":{{"verdict":"allow"}}}}]}}"#
        )
    };
    run_cases::<Scripted>(&never("deny"));
    for (file, message) in [
        (case(r#""expect":{"verdict":"allow"}"#), r#"one: verdict: expected "allow", got "deny""#),
        (case(r#""expect":{"verdict":"deny"}"#), r#"one: reasons: expected [], got ["no"]"#),
        (case(r#""expect":{"problems":[""]}"#), "the settings were accepted"),
        (case(r#""expect":{"error":"no"}"#), "one: error: expected"),
        (case(r#""expect":{"reasons":["no"]}"#), "case `one`, expect: expect one of"),
        (case(r#""expect":{"verdict":"deny","reason":["no"]}"#), "case `one`, expect: unknown field `reason`"),
        (
            case(r#""request":{"purchase":{"hots":"x"}},"expect":{"verdict":"deny"}"#),
            "case `one`: request/purchase/hots: unknown key",
        ),
        (
            case(r#""expect":{"verdict":"deny"}"#).replace(r#"{"answer":"deny"}"#, "{}"),
            "one: settings: expected \"accepted\", got [\": `answer` is required\"]",
        ),
        (r#"{"cases":[]}"#.to_owned(), "without a case"),
        (never("allow"), r#"never allows: answer: expected {"never":{"verdict":"allow"}}, got {"#),
        (never("error"), "never allows: answer: expected \"a decision\", got \"evaluate: out of order\"; asked {}"),
    ] {
        let panic = std::panic::catch_unwind(|| run_cases::<Scripted>(&file)).unwrap_err();
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_default();
        assert!(text.contains(message), "expected `{message}`, got `{text}`");
    }
}

#[test]
fn an_instance_is_configured_once() {
    let request = request().build();
    let slot = Slot::<Scripted>::new();
    assert_eq!(slot.evaluate(&request).unwrap_err(), "evaluate before configure");
    slot.configure(r#"{"answer":"allow"}"#).unwrap();
    assert!(slot.configure(r#"{"answer":"deny"}"#).unwrap_err()[0].message.contains("already configured"));
    assert_eq!(slot.evaluate(&request).unwrap().verdict, Verdict::Allow);

    let refused = Slot::<Scripted>::new();
    assert_eq!(refused.configure("{}").unwrap_err()[0].message, "`answer` is required");
    assert!(refused.configure(r#"{"answer":"allow"}"#).is_err());
    assert!(refused.evaluate(&request).unwrap_err().contains("refused the settings"));
}

#[test]
fn unknown_keys_are_problems_even_when_nobody_asked() {
    let found = problems::<Scripted>(json!({ "answer": "allow", "anwser": "deny" }));
    assert_eq!(found[0].path, "/anwser");
    assert_eq!(found[0].message, "unknown key `anwser`; allowed: `answer`");
    assert_eq!(problems::<Scripted>(json!({ "answer": "silence" })).len(), 1);
}

struct Plain;

impl Policy for Plain {
    type Settings = NoSettings;
    const NAME: &'static str = "plain";
    const VERSION: &'static str = "0.1.0";
    const SUMMARY: &'static str = "Has no settings.";

    fn settings_schema() -> &'static str {
        NoSettings::SCHEMA
    }

    fn configure(_settings: NoSettings) -> Result<Self, Vec<Problem>> {
        Ok(Self)
    }

    fn evaluate(&self, _request: &SpendRequest) -> Result<Decision, String> {
        Ok(Decision::abstain())
    }
}

#[test]
fn a_policy_without_settings() {
    assert_schema_agrees::<Plain>();
    Harness::<Plain>::new(json!({})).evaluate(&request()).assert_abstains();
}
