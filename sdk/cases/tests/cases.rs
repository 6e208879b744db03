//! Cases find every way in which an answer can differ, properties find and shrink what breaks them,
//! and a file that says nothing sensible is refused with the place.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test: whatever is not as expected must fail it loudly"
)]

use countersign_cases::{
    Cases, Decision, Hold, Judge, Obligation, Problem, Reason, Refusal, Report, ReviewTerms, Subject, Unit, Verdict,
    Window,
};
use serde_json::{Value, json};

/// A policy as a function of settings and request.
struct Script(fn(&Value, &Value) -> Result<Decision, String>);

struct Configured<'a> {
    script: &'a Script,
    settings: Value,
}

impl Subject for Script {
    fn configure(&self, settings: &Value) -> Result<Box<dyn Judge + '_>, Refusal> {
        match settings.get("refuse").and_then(Value::as_str) {
            Some("fail") => Err(Refusal::Failed("it trapped".into())),
            Some(path) => Err(Refusal::Problems(vec![Problem { path: path.into(), message: "bad".into() }])),
            None => Ok(Box::new(Configured { script: self, settings: settings.clone() })),
        }
    }
}

impl Judge for Configured<'_> {
    fn judge(&self, request: &Value) -> Result<Decision, String> {
        (self.script.0)(&self.settings, request)
    }
}

fn answer(verdict: Verdict, codes: &[&str]) -> Decision {
    Decision {
        verdict,
        reasons: codes.iter().map(|code| Reason { code: (*code).into(), message: "m".into() }).collect(),
        holds: vec![],
        review: None,
        obligations: vec![],
        notes: vec![],
    }
}

/// Everything a case can compare.
fn full(_: &Value, _: &Value) -> Result<Decision, String> {
    let hold = Hold {
        budget: "client/acme".into(),
        unit: Unit::Micros,
        window: Window::Day("UTC".into()),
        limit: 5,
        amount: 1,
        alert_at: None,
        review_at: Some(4),
    };
    Ok(Decision {
        holds: vec![hold],
        review: Some(ReviewTerms { group: Some("finance".into()), quorum: 2, expires_in_seconds: 60 }),
        obligations: vec![Obligation { kind: "tag".into(), params: vec![] }],
        ..answer(Verdict::Review, &["a", "b"])
    })
}

fn full_expectation() -> Value {
    json!({
        "verdict": "review",
        "reasons": ["a", "b"],
        "holds": [{ "budget": "client/acme", "unit": "micros", "window": { "day": "UTC" }, "limit": 5, "amount": 1, "review-at": 4 }],
        "review": { "group": "finance", "quorum": 2, "expires-in-seconds": 60 },
        "obligations": [{ "kind": "tag", "params": [] }],
    })
}

fn run(script: fn(&Value, &Value) -> Result<Decision, String>, document: &Value) -> Report {
    Cases::parse(&document.to_string()).unwrap().run(&Script(script), None)
}

/// The parts that differ when the only case expects `expect`.
fn parts(script: fn(&Value, &Value) -> Result<Decision, String>, settings: Value, expect: &Value) -> Vec<String> {
    let report = run(script, &json!({ "cases": [{ "name": "one", "settings": settings, "expect": expect }] }));
    let failures: Vec<_> = report.failures().collect();
    assert_eq!(failures.is_empty(), report.passed());
    failures.iter().flat_map(|(_, failure)| failure.differences.iter().map(|d| d.part.clone())).collect()
}

#[test]
fn every_part_of_an_answer_is_compared() {
    let nothing: Vec<String> = vec![];
    assert_eq!(parts(full, json!({}), &full_expectation()), nothing);
    let but = |pointer: &str, value: Value| {
        let mut expect = full_expectation();
        *expect.pointer_mut(pointer).unwrap() = value;
        parts(full, json!({}), &expect)
    };
    assert_eq!(but("/verdict", json!("deny")), ["verdict"]);
    assert_eq!(but("/reasons", json!(["b", "a"])), ["reasons"]);
    assert_eq!(but("/reasons", json!(["a"])), ["reasons"]);
    for (pointer, value) in [
        ("/holds/0/budget", json!("client/globex")),
        ("/holds/0/unit", json!("count")),
        ("/holds/0/window", json!({ "day": "" })),
        ("/holds/0/window", json!("lifetime")),
        ("/holds/0/limit", json!(6)),
        ("/holds/0/amount", json!(2)),
        ("/holds/0/review-at", json!(5)),
        ("/holds", json!([])),
    ] {
        assert_eq!(but(pointer, value), ["holds"], "{pointer}");
    }
    for (pointer, value) in [
        ("/review", Value::Null),
        ("/review/group", Value::Null),
        ("/review/quorum", json!(1)),
        ("/review/expires-in-seconds", json!(0)),
    ] {
        assert_eq!(but(pointer, value), ["review"], "{pointer}");
    }
    assert_eq!(but("/obligations/0/kind", json!("redact")), ["obligations"]);
    assert_eq!(
        parts(full, json!({}), &json!({ "verdict": "deny" })),
        ["verdict", "reasons", "holds", "review", "obligations"]
    );
}

#[test]
fn errors_and_problems_are_expected_by_name() {
    let fails = |_: &Value, _: &Value| Err("no rate for EUR".to_owned());
    let nothing: Vec<String> = vec![];
    assert_eq!(parts(fails, json!({}), &json!({ "error": "rate for" })), nothing);
    assert_eq!(parts(fails, json!({}), &json!({ "error": "rates" })), ["error"]);
    assert_eq!(parts(fails, json!({}), &json!({ "verdict": "deny" })), ["answer"]);
    assert_eq!(parts(full, json!({}), &json!({ "error": "rate" })), ["error"]);
    let refuse = |path: &str| json!({ "refuse": path });
    assert_eq!(parts(full, refuse("/a"), &json!({ "problems": ["/a"] })), nothing);
    assert_eq!(parts(full, refuse("/a"), &json!({ "problems": ["/b"] })), ["problems"]);
    assert_eq!(parts(full, refuse("/a"), &json!({ "problems": ["/a", "/b"] })), ["problems"]);
    assert_eq!(parts(full, refuse("fail"), &json!({ "problems": ["/a"] })), ["problems"]);
    assert_eq!(parts(full, json!({}), &json!({ "problems": ["/a"] })), ["problems"]);
    assert_eq!(parts(full, refuse("/a"), &json!({ "verdict": "allow" })), ["settings"]);
    assert_eq!(parts(full, refuse("fail"), &json!({ "error": "trapped" })), ["settings"]);
}

/// Says which settings it was given.
fn tells(settings: &Value, _: &Value) -> Result<Decision, String> {
    Ok(answer(Verdict::Deny, &[settings["say"].as_str().unwrap_or("nothing")]))
}

#[test]
fn settings_are_the_cases_own_then_those_given_then_the_files() {
    let says = |code: &str| json!({ "verdict": "deny", "reasons": [code] });
    let text = |file: bool, expected: &str| {
        let mut document = json!({ "cases": [
            { "name": "own", "settings": { "say": "own" }, "expect": says("own") },
            { "name": "other", "expect": says(expected) },
        ] });
        if file {
            document["settings"] = json!({ "say": "file" });
        }
        document.to_string()
    };
    for (file, given, expected) in [
        (true, Some(json!({ "say": "given" })), "given"),
        (true, None, "file"),
        (false, Some(json!({ "say": "given" })), "given"),
        (false, None, "nothing"),
    ] {
        let report = Cases::parse(&text(file, expected)).unwrap().run(&Script(tells), given.as_ref());
        assert!(report.passed(), "{report}");
    }
}

#[test]
fn codes_that_no_case_gives_and_codes_nobody_listed_fail() {
    let report = |codes: Value| {
        run(full, &json!({ "codes": codes, "cases": [{ "name": "one", "expect": full_expectation() }] }))
    };
    assert!(report(json!(["a", "b"])).passed());
    let missing = report(json!(["a", "b", "c"]));
    assert_eq!((missing.missing.as_slice(), missing.passed()), (&["c".to_owned()][..], false));
    assert_eq!(missing.codes["c"], 0);
    assert_eq!(missing.codes["a"], 1);
    let unlisted = report(json!(["a"]));
    assert_eq!((unlisted.unlisted.as_slice(), unlisted.passed()), (&["b".to_owned()][..], false));
    assert!(unlisted.to_string().contains("does not list b"));
    let document = json!({ "codes": ["c"], "cases": [{ "name": "one", "expect": full_expectation() }] });
    let given = Cases::parse(&document.to_string()).unwrap().run(&Script(full), Some(&json!({})));
    assert!(given.passed(), "under an operator's settings other codes may be given: {given}");
}

/// Allows up to 1,000,000 for a client, with a hold of the value; a bug allows 777,777 for anybody and
/// holds one too little above 500,000.
fn buggy(_: &Value, request: &Value) -> Result<Decision, String> {
    let value = request["payment"]["value"].as_u64().unwrap();
    let client = request["principal"]["client"].as_str();
    if value > 1_000_000 || (client.is_none() && value < 777_777) {
        return Ok(answer(Verdict::Deny, &["no"]));
    }
    let amount = if value > 500_000 { value - 1 } else { value };
    let hold = Hold {
        budget: format!("client/{}", client.unwrap_or("nobody")),
        unit: Unit::Micros,
        window: Window::Lifetime,
        limit: 9,
        amount,
        alert_at: None,
        review_at: None,
    };
    Ok(Decision { holds: vec![hold], ..answer(Verdict::Allow, &[]) })
}

fn property(rest: Value) -> Report {
    let mut property = json!({
        "name": "p",
        "vary": {
            "payment.value": { "from": 0, "to": 5_000_000 },
            "principal.agent": ["scout", "buyer"],
            "principal.client": ["acme", "globex", null],
        },
        "samples": 400,
    });
    property.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    run(buggy, &json!({ "properties": [property] }))
}

/// The counterexample's request.
fn broken(rest: Value) -> Value {
    let report = property(rest);
    let (_, failure) = report.failures().next().expect("the property is broken");
    failure.request.clone()
}

#[test]
fn properties_that_hold_hold() {
    for rest in [
        json!({ "when": { "payment.value": { "from": 1_000_001 } }, "never": { "verdict": "allow" } }),
        json!({ "when": { "verdict": "allow" }, "always": { "hold": { "budget": "client/*", "unit": "micros" } } }),
        json!({ "when": { "verdict": ["allow"], "payment.value": { "to": 500_000 } },
                "always": { "hold": { "window": "lifetime", "amount": { "from": "payment.value", "to": "payment.value" } } } }),
        json!({ "when": { "principal.client": null, "payment.value": { "to": 777_776 } }, "never": { "verdict": "allow" } }),
        json!({ "never": { "verdict": ["review", "abstain"] } }),
        json!({ "when": { "verdict": "deny" }, "always": { "reason": "no" } }),
        json!({ "never": { "verdict": "deny", "reason": ["yes", "maybe"] } }),
    ] {
        let report = property(rest.clone());
        assert!(report.passed(), "{rest}: {report}");
        assert!(report.outcomes[0].requests > 10, "{rest}");
    }
}

#[test]
fn a_broken_property_is_shrunk_to_what_breaks_it() {
    let above = json!({ "when": { "payment.value": { "from": 700_000 } }, "never": { "verdict": "allow" } });
    let least = json!({ "payment": { "value": 700_000 }, "principal": { "client": "acme" } });
    assert_eq!(broken(above), least, "the agent does not matter");
    let holds =
        json!({ "when": { "verdict": "allow" }, "always": { "hold": { "amount": { "from": "payment.value" } } } });
    let request = broken(holds);
    assert!(
        request == json!({ "payment": { "value": 777_777 } })
            || request == json!({ "payment": { "value": 500_001 }, "principal": { "client": "acme" } }),
        "{request}"
    );
    let nobody = json!({ "when": { "principal.client": null }, "never": { "verdict": "allow" } });
    assert_eq!(broken(nobody), json!({ "payment": { "value": 777_777 } }));
    assert_eq!(broken(json!({ "never": { "verdict": "deny" } })), json!({}), "the ordinary request does it");
    assert_eq!(
        property(json!({ "never": { "verdict": "deny" } })),
        property(json!({ "never": { "verdict": "deny" } }))
    );
}

#[test]
fn a_boundary_is_found_without_luck() {
    fn off_by_one(_: &Value, request: &Value) -> Result<Decision, String> {
        let above = request["payment"]["value"].as_u64().unwrap() > 4_321_987;
        Ok(answer(if above { Verdict::Deny } else { Verdict::Allow }, &[]))
    }
    // Allowed at 4,321,987, which the rule says is one too many.
    let report = run(
        off_by_one,
        &json!({ "properties": [{
        "name": "p", "samples": 10, "vary": { "payment.value": { "to": 1_000_000_000_000_000_u64 } },
        "when": { "payment.value": { "from": 4_321_987 } }, "never": { "verdict": "allow" },
    }] }),
    );
    let (_, failure) = report.failures().next().expect("found");
    assert_eq!(failure.request, json!({ "payment": { "value": 4_321_987 } }));
}

#[test]
fn a_property_fails_on_errors_and_when_it_checks_nothing() {
    let fails = |_: &Value, request: &Value| match request["principal"]["roles"].as_array().unwrap().len() {
        0 => Err("index out of bounds".to_owned()),
        _ => Ok(answer(Verdict::Deny, &[])),
    };
    let vary = json!({ "principal.roles": [["analyst"], [], ["a", "b"]] });
    let report = run(fails, &json!({ "properties": [{ "name": "p", "vary": vary, "never": { "verdict": "allow" } }] }));
    let (_, failure) = report.failures().next().unwrap();
    assert_eq!(failure.request, json!({ "principal": { "roles": [] } }));
    assert_eq!(failure.differences[0].got, json!("index out of bounds"));
    let idle = property(json!({ "when": { "payment.value": { "from": 6_000_000 } }, "never": { "verdict": "allow" } }));
    assert!(idle.to_string().contains("nothing was checked"), "{idle}");
    let refused = run(
        full,
        &json!({ "settings": { "refuse": "/a" }, "properties": [
        { "name": "p", "vary": { "at": { "to": 9 } }, "never": { "verdict": "allow" } }] }),
    );
    assert!(refused.to_string().contains("p: settings: expected"), "{refused}");
}

#[test]
fn toml_is_the_same_document() {
    let text = r#"
        codes = ["no"]
        [settings]
        say = "x"
        [[cases]]
        name = "one"
        request = { principal = { workspace = [] }, payment = { value = 2000000 } }
        expect = { verdict = "deny", reasons = ["no"] }
        [[properties]]
        name = "never without a client"
        vary = { "principal.client" = ["acme", []], "payment.value" = { to = 700000 } }
        when = { "principal.client" = [[]] }
        never = { verdict = "allow" }
    "#;
    let report = Cases::parse(text).unwrap().run(&Script(buggy), None);
    assert!(report.passed(), "{report}");
    assert_eq!(report.outcomes.len(), 2);
    let json = json!({
        "codes": ["no"], "settings": { "say": "x" },
        "cases": [{ "name": "one", "request": { "principal": { "workspace": null }, "payment": { "value": 2_000_000 } },
                    "expect": { "verdict": "deny", "reasons": ["no"] } }],
        "properties": [{ "name": "never without a client",
            "vary": { "principal.client": ["acme", null], "payment.value": { "to": 700_000 } },
            "when": { "principal.client": null }, "never": { "verdict": "allow" } }],
    });
    assert_eq!(run(buggy, &json), report);
}

#[test]
fn questions_are_what_cases_ask_of_a_policy_that_decides() {
    let cases = Cases::parse(
        &json!({ "settings": { "a": 1 }, "cases": [
            { "name": "one", "request": { "payment": { "value": 7 } }, "expect": { "verdict": "allow" } },
            { "name": "two", "settings": { "b": 2 }, "expect": { "problems": [""] } },
            { "name": "three", "settings": { "b": 2 }, "expect": { "error": "x" } },
            { "name": "four", "settings": { "b": 2 }, "expect": { "verdict": "deny", "reasons": ["x"] } },
        ] })
        .to_string(),
    )
    .unwrap();
    let asked = cases.questions(None);
    let names: Vec<&str> = asked.iter().map(|q| q.name.as_str()).collect();
    assert_eq!(names, ["one", "four"]);
    assert_eq!(asked[0].settings, json!({ "a": 1 }));
    assert_eq!(asked[0].request["payment"]["amount"], json!("7"));
    assert_eq!(cases.questions(Some(&json!({ "c": 3 })))[0].settings, json!({ "c": 3 }));
    assert_eq!(asked[1].settings, json!({ "b": 2 }));
}

#[test]
fn files_that_say_nothing_sensible_are_refused_with_the_place() {
    let check = |document: Value, place: &str, says: &str| {
        let error = Cases::parse(&document.to_string()).unwrap_err();
        assert_eq!(error.place, place, "{error}");
        assert!(error.message.contains(says), "{error}");
    };
    let case = |rest: Value| {
        let mut case = json!({ "name": "one", "expect": { "verdict": "deny" } });
        case.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        json!({ "cases": [case] })
    };
    check(json!({}), "", "without a case");
    check(json!({ "case": [] }), "", "unknown field `case`");
    check(json!({ "cases": [{ "expect": {} }] }), "case number 1", "missing field `name`");
    check(case(json!({ "setings": {} })), "case `one`", "unknown field `setings`");
    check(case(json!({ "expect": {} })), "case `one`, expect", "expect one of");
    check(case(json!({ "expect": { "verdict": "deny", "error": "x" } })), "case `one`, expect", "expect one of");
    check(case(json!({ "expect": { "problems": [], "reasons": ["a"] } })), "case `one`, expect", "expect one of");
    check(case(json!({ "expect": { "verdict": "permit" } })), "case `one`, expect", "unknown variant `permit`");
    check(
        case(json!({ "request": { "payment": { "vlaue": 1 } } })),
        "case `one`",
        "request/payment/vlaue: unknown key",
    );
    let two = json!({ "name": "one", "expect": { "verdict": "deny" } });
    check(json!({ "cases": [two, two] }), "case `one`", "another case has this name");

    let of = |rest: Value| {
        let mut property =
            json!({ "name": "p", "vary": { "payment.value": { "to": 9 } }, "never": { "verdict": "allow" } });
        property.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        json!({ "properties": [property] })
    };
    check(of(json!({ "vary": {} })), "property `p`, vary", "names no field");
    check(of(json!({ "vary": { "payment.vlaue": [1] } })), "property `p`, vary", "there is no field `payment.vlaue`");
    check(of(json!({ "vary": { "payment.value": ["1"] } })), "property `p`, vary", "expected a whole number");
    check(of(json!({ "vary": { "payment.value": { "from": 1 } } })), "property `p`, vary", "`to`");
    check(of(json!({ "vary": { "payment.value": { "from": 9, "to": 1 } } })), "property `p`, vary", "ends before");
    check(of(json!({ "vary": { "payment.value": { "to": u64::MAX } } })), "property `p`, vary", "never asks above");
    check(of(json!({ "vary": { "principal.agent": { "to": 1 } } })), "property `p`, vary", "not a number");
    check(of(json!({ "vary": { "principal.client": [] } })), "property `p`, vary", "no choices");
    check(of(json!({ "when": { "verdict": "permit" } })), "property `p`, when", "expected a verdict");
    check(of(json!({ "when": { "payment.value": {} } })), "property `p`, when", "`from`, `to` or both");
    check(of(json!({ "never": {} })), "property `p`, never", "says nothing");
    check(of(json!({ "never": { "verdikt": "allow" } })), "property `p`, never", "unknown field");
    check(
        of(json!({ "always": { "hold": { "amount": { "from": "payment.vlaue" } } } })),
        "property `p`, always",
        "there is no field",
    );
    check(of(json!({ "never": null })), "property `p`", "`never` or `always`");
    let many: Vec<Value> = (0..11)
        .map(|n| json!({ "name": n.to_string(), "samples": 10_000, "vary": { "at": { "to": 9 } }, "never": { "verdict": "allow" } }))
        .collect();
    check(json!({ "properties": many }), "", "110000 samples over all properties, at most 100000");
    check(of(json!({ "samples": 0 })), "property `p`, samples", "outside 1 to 10000");
    assert!(Cases::parse("{").unwrap_err().message.starts_with("not JSON"));
    assert!(Cases::parse("cases = ").unwrap_err().message.starts_with("not TOML"));
}
