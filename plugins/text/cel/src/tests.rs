use countersign_sdk::testing::{Harness, assert_schema_agrees, json, problems, request, run_cases};
use countersign_sdk::{Verdict, Window};

use super::*;

fn one_rule(when: &str) -> Harness<Cel> {
    Harness::new(json!({ "rules": [{ "name": "it", "when": when, "then": "deny" }] }))
}

/// Place and message of the first problem with a rule's condition.
fn problem(when: &str) -> (String, String) {
    let found = problems::<Cel>(json!({ "rules": [{ "name": "it", "when": when, "then": "deny" }] }));
    assert!(!found.is_empty(), "accepted: {when}");
    (found[0].path.clone(), found[0].message.clone())
}

#[test]
fn cases() {
    run_cases::<Cel>(include_str!("../cases.json"));
}

#[test]
fn schema() {
    assert_schema_agrees::<Cel>();
}

#[test]
fn every_field_of_a_request_can_be_read() {
    let full = full_request();
    for when in [
        "id == 'decision' && purchase_id == 'purchase' && at == 1768478400000",
        "principal.agent == 'agent' && principal.user == 'user' && principal.workspace == 'workspace'",
        "'role' in principal.roles && principal.session == 'session' && principal.client == 'client'",
        "principal.project == 'project' && principal.task == 'task'",
        "purchase.method == 'GET' && purchase.host == 'api.example.com' && purchase.path.startsWith('/v1/')",
        "purchase.query_digest == 'query' && purchase.body_digest == 'body' && purchase.observed",
        "purchase.description != '' && purchase.media_type != '' && purchase.category == 'category'",
        "seller.host == 'api.example.com' && seller.pay_to != '' && seller.host_first_paid <= at",
        "seller.pay_to_first_paid <= at && !seller.pay_to_changed && seller.last_price == 50000",
        "seller.judged == 1 && seller.useful == 1",
        "payment.rail == 'x402' && payment.scheme == 'exact' && payment.commitment == 'fixed'",
        "payment.network == 'eip155:84532' && payment.asset != '' && payment.asset_symbol == 'USDC'",
        "payment.asset_decimals == 6 && payment.amount == '50000' && payment.value == 50000",
        "payment.valid_for_seconds == 60 && payment.wallet == 'wallet'",
        "history.agent_hour.count == 1 && history.agent_day.value == 50000 && history.session.count == 1",
        "history.seller_day.count == 1 && history.seller_lifetime.count == 1 && history.repeats == 0",
        "claims.claim == 'sample' && facts['fact'] == 'sample' && size(facts) == 1",
        "principal.roles.exists(role, role == 'role') && facts.all(name, name.size() > 0)",
    ] {
        one_rule(when).evaluate(&full).assert_denies("it");
    }
}

#[test]
fn what_is_not_set_is_an_error_unless_asked_for() {
    let reads = one_rule("principal.client == 'acme'");
    let outcome = reads.evaluate(&request());
    let message = &outcome.assert_denies("rule-error").reason("rule-error").unwrap().message;
    assert_eq!(message, "rule `it` could not be evaluated: No such key: client");
    reads.evaluate(&request().client("acme")).assert_denies("it");
    one_rule("has(principal.client) && principal.client == 'acme'").evaluate(&request()).assert_abstains();
    one_rule("!('category' in facts)").evaluate(&request()).assert_denies("it");
}

#[test]
fn the_first_of_two_facts_counts() {
    let policy = one_rule("facts.category == 'data'");
    policy.evaluate(&request().fact("category", "data").fact("category", "other")).assert_denies("it");
    policy.evaluate(&request().fact("category", "other").fact("category", "data")).assert_abstains();
}

#[test]
fn problems_say_where() {
    for (when, place, why) in [
        ("payment.value >", "line 1, column 16", "mismatched input"),
        ("payment.value\n  = 5", "line 2, column 3", "token recognition error"),
        ("payment.vlaue > 5", "line 1, column", "`payment` has no `vlaue`; did you mean `value`?"),
        ("true ||\n  paymnet.value > 5", "line 2, column", "a request has no `paymnet`; did you mean `payment`?"),
        ("[1].exists(x, x > amount)", "line 1, column", "a request has no `amount`"),
        ("has(principal.clinet)", "line 1, column", "did you mean `client`?"),
        ("payment.value > '5'", "line 1, column 1", "no matching overload"),
        ("payment.value", "line 1, column 1", "it is a int, not true or false"),
        ("money(payment.value) > 5", "line 1, column 1", "Undeclared reference to 'money'"),
        ("  ", "there are no rules", ""),
    ] {
        let (path, message) = problem(when);
        assert_eq!(path, "/rules/0/when", "{when}");
        assert!(message.contains(place) && message.contains(why), "{when}: {message}");
    }
}

#[test]
fn what_depends_on_the_request_is_no_problem() {
    for when in ["facts.category == 'data'", "100 / history.repeats > 1", "principal.roles[3] == 'x'"] {
        one_rule(when).evaluate(&request()).assert_denies("rule-error");
    }
}

#[test]
fn an_error_counts_even_beside_an_allow() {
    let policy = Harness::<Cel>::new(json!({ "rules": [
        { "name": "fine", "when": "true", "then": "allow" },
        { "name": "broken", "when": "facts.category == 'x'", "then": "review" }
    ] }));
    policy.evaluate(&request()).assert_codes(&["rule-error"]);
    policy.evaluate(&request().fact("category", "y")).assert_allows();
}

#[test]
fn bounds_are_problems() {
    let rule = |index: usize| json!({ "name": format!("r{index}"), "when": "true", "then": "deny" });
    let many = |count: usize| json!({ "rules": (0..count).map(rule).collect::<Vec<_>>() });
    assert_eq!(problems::<Cel>(many(500)), []);
    assert_eq!(problems::<Cel>(many(501))[0].path, "/rules");
    let long = format!("'{}' == ''", "x".repeat(text::MAX_TEXT));
    assert!(problem(&long).1.contains("bytes of text"));
    let (_, deep) = problem(&format!("{}true{}", "(".repeat(400), ")".repeat(400)));
    assert!(deep.contains("line 1, column 49: brackets nest deeper than 48"), "{deep}");
    let (_, deep) = problem(&format!("{}true", "false ? true : ".repeat(400)));
    assert!(deep.contains("the expression nests too deep"), "{deep}");
}

#[test]
fn budgets_are_filled_by_expressions() {
    let policy = Harness::<Cel>::new(json!({ "holds": [
        { "budget": "client/{has(principal.client) ? principal.client : 'none'}", "per": "day", "limit": "5.00" },
        { "budget": "category/{facts.category}/all", "per": 600, "limit": 20, "unit": "count", "alert-at": 10, "review-at": 15,
          "when": "'category' in facts" }
    ] }));
    let outcome = policy.evaluate(&request());
    assert_eq!(outcome.assert_abstains().hold("client/none").limit, 5_000_000);
    let outcome = policy.evaluate(&request().client("acme").fact("category", "data"));
    assert_eq!(outcome.hold("client/acme").amount, 50_000);
    let hold = outcome.hold("category/data/all");
    assert_eq!((hold.window.clone(), hold.limit, hold.amount), (Window::rolling(600), 20, 1));
    assert_eq!((hold.alert_at, hold.review_at), (Some(10), Some(15)));
    for client in ["a/b", "..", "a b", "ä"] {
        policy.evaluate(&request().client(client)).assert_codes(&["hold-scope-unusable"]).assert_no_holds();
    }
    policy.evaluate(&request().client("")).assert_codes(&["hold-scope-missing"]);
}

#[test]
fn a_budget_that_cannot_be_evaluated_denies() {
    let policy = Harness::<Cel>::new(json!({ "rules": [{ "name": "a", "when": "true", "then": "allow" }],
        "holds": [{ "budget": "client/{principal.client}", "per": "day", "limit": "5.00" }] }));
    assert_eq!(policy.evaluate(&request()).decision().verdict, Verdict::Deny);
    policy.evaluate(&request()).assert_codes(&["hold-scope-missing"]);
}
