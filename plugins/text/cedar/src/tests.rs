use countersign_sdk::Window;
use countersign_sdk::testing::{Harness, assert_schema_agrees, json, problems, request, run_cases};

use super::*;

fn policy(text: &str) -> Harness<Cedar> {
    Harness::new(json!({ "policy": text }))
}

fn forbid_when(condition: &str) -> Harness<Cedar> {
    policy(&format!("@code(\"it\") forbid (principal, action, resource) when {{ {condition} }};"))
}

#[test]
fn cases() {
    run_cases::<Cedar>(include_str!("../cases.json"));
}

#[test]
fn schema() {
    assert_schema_agrees::<Cedar>();
}

#[test]
fn every_field_of_a_request_can_be_read() {
    let full = full_request();
    for condition in [
        r#"principal == Agent::"agent" && action == Action::"pay" && resource == Vendor::"api.example.com""#,
        r#"context.id == "decision" && context.purchase_id == "purchase" && context.at == 1768478400000"#,
        r#"principal.agent like "age*" && principal.roles.contains("role")"#,
        r#"principal has user && principal.user == "user" && principal has workspace && principal.workspace != """#,
        r#"principal has session && principal.session == "session" && principal has client && principal.client == "client""#,
        r#"principal has project && principal.project == "project" && principal has task && principal.task == "task""#,
        r#"context.purchase.method == "GET" && context.purchase.host == resource.host && context.purchase.observed"#,
        r#"context.purchase.url like "https://*" && context.purchase.path == resource.path && resource.path like "/v1/*""#,
        r#"context.purchase has query_digest && context.purchase.query_digest == "query""#,
        r#"context.purchase has body_digest && context.purchase.body_digest == "body""#,
        r#"context.purchase has description && context.purchase.description != """#,
        r#"context.purchase has media_type && context.purchase.media_type == "application/json""#,
        r#"context.purchase has category && context.purchase.category == "category""#,
        r#"resource.pay_to like "0x2096*" && !resource.pay_to_changed && resource.judged == 1 && resource.useful == 1"#,
        r#"resource has host_first_paid && resource.host_first_paid <= context.at"#,
        r#"resource has pay_to_first_paid && resource.pay_to_first_paid <= context.at"#,
        r#"resource has last_price && resource.last_price == 50000"#,
        r#"context.payment.rail == "x402" && context.payment.scheme == "exact" && context.payment.commitment == "fixed""#,
        r#"context.payment.network == "eip155:84532" && context.payment.asset like "0x*""#,
        r#"context.payment.asset_symbol == "USDC" && context.payment.asset_decimals == 6 && context.payment.amount == "50000""#,
        r#"context.payment.value == 50000 && context.payment.valid_for_seconds == 60 && context.payment.wallet == "wallet""#,
        r#"context.history.agent_hour.count == 1 && context.history.agent_day.value == 50000 && context.history.repeats == 0"#,
        r#"context.history.session.count + context.history.seller_day.count + context.history.seller_lifetime.count == 3"#,
        r#"context.claims.hasTag("claim") && context.claims.getTag("claim") == "sample""#,
        r#"context.facts.hasTag("fact") && context.facts.getTag("fact") == "sample" && !context.facts.hasTag("claim")"#,
    ] {
        forbid_when(condition).evaluate(&full).assert_denies("it");
    }
}

#[test]
fn the_first_of_two_facts_counts() {
    let policy = forbid_when(r#"context.facts.hasTag("a") && context.facts.getTag("a") == "1""#);
    policy.evaluate(&request().fact("a", "1").fact("a", "2")).assert_denies("it");
    policy.evaluate(&request().fact("a", "2").fact("a", "1")).assert_abstains();
}

#[test]
fn an_agent_cannot_name_itself_into_another() {
    let policy = policy(r#"permit (principal == Agent::"scout", action, resource);"#);
    policy.evaluate(&request()).assert_allows();
    for name in ["scout\"", "scout\", action, resource);", "\u{73}cout ", "Scout", "ѕcout"] {
        policy.evaluate(&request().agent(name)).assert_abstains();
    }
}

#[test]
fn a_policy_that_cannot_be_evaluated_denies() {
    // Arithmetic is checked when it happens, so that a type checker cannot see it.
    let overflow = "context.payment.value * 9223372036854775807 > 1";
    let text = format!(
        "permit (principal, action, resource);\n@id(\"big\") forbid (principal, action, resource) when {{ {overflow} }};"
    );
    let outcome = policy(&text).evaluate(&request());
    let message = &outcome.assert_codes(&["rule-error"]).reason("rule-error").unwrap().message;
    assert!(message.starts_with("policy `big` could not be evaluated: integer overflow"), "{message}");
    // So does a permit: nobody knows what its author meant to say with it.
    let text =
        format!("permit (principal, action, resource);\npermit (principal, action, resource) when {{ {overflow} }};");
    policy(&text).evaluate(&request()).assert_codes(&["rule-error"]);
    let held = Harness::<Cedar>::new(json!({ "policy": "permit (principal, action, resource);",
        "holds": [{ "budget": "all", "per": "day", "limit": "1", "when": overflow }] }));
    held.evaluate(&request()).assert_codes(&["rule-error"]);
}

#[test]
fn problems_say_where() {
    let scope = "(principal, action, resource)";
    for (text, place, why) in [
        ("permit (principal, action);".to_owned(), "line 1, column 26", "scope"),
        (
            format!("permit {scope};\nforbid {scope} when {{ context.payment.value > }};"),
            "line 2, column",
            "unexpected token",
        ),
        (format!("forbid {scope}\n  when {{ context.payment.vlaue > 5 }};"), "line 2, column", "vlaue"),
        (format!("forbid {scope} when {{ principal.client == \"acme\" }};"), "line 1, column", "client"),
        (format!("forbid {scope} when {{ context.payment.value > \"5\" }};"), "line 1, column", "expected"),
        ("forbid (principal == User::\"x\", action, resource);".to_owned(), "line 1, column", "User"),
        ("forbid (principal, action == Action::\"buy\", resource);".to_owned(), "line 1, column", "buy"),
        (format!("forbid {scope} when {{ context.payment.rail == 5 }};"), "line 1, column", ""),
        ("permit (principal == ?principal, action, resource);".to_owned(), "line 1, column 22", "template"),
        (format!("@code(\"Bad Code\")\nforbid {scope};"), "line 1, column 7", "kebab-case"),
        (format!("@severity(\"high\")\nforbid {scope};"), "line 1, column 1", "unknown annotation `@severity`"),
        (format!("forbid {scope};\n@review(\"x\")\npermit {scope};"), "line 2, column 1", "only a forbid"),
        (format!("@quorum(\"2\")\nforbid {scope};"), "line 1, column 1", "belongs to"),
        (format!("@review(\"x\") @quorum(\"300\")\nforbid {scope};"), "line 1, column 22", "whole number"),
        (
            format!("forbid {scope} when {{ {}true{} }};", "(".repeat(60), ")".repeat(60)),
            "line 1, column",
            "nest deeper",
        ),
        ("// nothing".to_owned(), "there are no policies", ""),
    ] {
        let found = problems::<Cedar>(json!({ "policy": text }));
        let as_told = |problem: &Problem| problem.message.contains(place) && problem.message.contains(why);
        assert!(
            found.iter().any(as_told) && found.iter().all(|problem| problem.path == "/policy"),
            "{text}: {found:?}"
        );
    }
}

#[test]
fn problems_of_a_hold_say_where() {
    let of = |when: &str| {
        let hold = json!({ "budget": "all", "per": "day", "limit": "1", "when": when });
        problems::<Cedar>(json!({ "policy": "permit (principal, action, resource);", "holds": [hold] }))
    };
    for (when, place, why) in [
        ("context.payment.vlaue > 5", "line 1, column", "vlaue"),
        ("true &&\n context.payment.value", "line 2, column", "expected"),
        ("true }; permit (principal, action, resource) when { true", "line 1, column", ""),
        ("", "there are no rules", ""),
    ] {
        let found = of(when);
        assert_eq!(found[0].path, "/holds/0/when", "{when}");
        assert!(found[0].message.contains(place) && found[0].message.contains(why), "{when}: {}", found[0].message);
    }
    assert_eq!(of("context.payment.value > 5"), []);
}

#[test]
fn budgets_are_filled_by_names() {
    let of = |budget: &str| {
        let hold = json!({ "budget": budget, "per": 60, "limit": "1.00" });
        json!({ "policy": "permit (principal, action, resource);", "holds": [hold] })
    };
    let full = full_request();
    for (budget, path) in [
        ("agent/{principal.agent}", "agent/agent"),
        ("client/{principal.client}/project/{principal.project}", "client/client/project/project"),
        ("host/{resource.host}", "host/api.example.com"),
        ("to/{resource.pay_to}", "to/0x209693bc6afc0c5328ba36faf03c514ef312287c"),
        ("on/{context.payment.network}", "on/eip155:84532"),
        ("fact/{context.facts.fact}", "fact/sample"),
    ] {
        let outcome = Harness::<Cedar>::new(of(budget)).evaluate(&full);
        assert_eq!(outcome.assert_allows().hold(path).window, Window::rolling(60));
    }
    for (budget, why) in [
        ("client/{principal.clinet}", "did you mean `client`?"),
        ("client/{client}", "is no name such as"),
        ("client/{principal}", "is no name such as"),
        ("roles/{principal.roles}", "is not a string"),
        ("value/{context.payment.value}", "is not a string"),
        ("claim/{context.claims.purpose}", "said by the agent"),
    ] {
        let found = problems::<Cedar>(of(budget));
        assert_eq!(found[0].path, "/holds/0/budget");
        assert!(found[0].message.contains(why), "{budget}: {}", found[0].message);
    }
    let facts = Harness::<Cedar>::new(of("fact/{context.facts.category}"));
    facts.evaluate(&request()).assert_codes(&["hold-scope-missing"]);
    facts.evaluate(&request().fact("category", "a/b")).assert_codes(&["hold-scope-unusable"]);
}

#[test]
fn bounds_are_problems() {
    let many = |count: usize| "permit (principal, action, resource);\n".repeat(count);
    assert_eq!(problems::<Cedar>(json!({ "policy": many(500) })), []);
    assert!(problems::<Cedar>(json!({ "policy": many(501) }))[0].message.contains("501 rules"));
    let with = |operators: usize| {
        let condition = " || context.payment.rail == \"|| - ;\"".repeat(operators);
        let policy = format!("forbid (principal, action, resource) when {{ false{condition} }};\n");
        problems::<Cedar>(json!({ "policy": policy.repeat(2) }))
    };
    assert_eq!(with(64), []);
    assert!(with(65)[0].message.contains("line 1, column") && with(65)[0].message.contains("more than 64 operators"));
    let long = format!("// {}\n", "x".repeat(text::MAX_TEXT));
    assert!(problems::<Cedar>(json!({ "policy": long }))[0].message.contains("bytes of text"));
}
