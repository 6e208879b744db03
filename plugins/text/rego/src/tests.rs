use countersign_sdk::Window;
use countersign_sdk::testing::{Harness, assert_schema_agrees, json, problems, request, run_cases};

use super::*;

fn policy(rules: &str) -> Harness<Rego> {
    Harness::new(json!({ "policy": format!("package countersign\n{rules}\n") }))
}

fn deny_if(condition: &str) -> Harness<Rego> {
    policy(&format!("deny contains {{\"code\": \"it\", \"message\": \"it\"}} if {condition}"))
}

#[test]
fn cases() {
    run_cases::<Rego>(include_str!("../cases.json"));
}

#[test]
fn schema() {
    assert_schema_agrees::<Rego>();
}

#[test]
fn every_field_of_a_request_can_be_read() {
    let full = full_request();
    for condition in [
        r#"{ input.id == "decision"; input.purchase_id == "purchase"; input.at == 1768478400000 }"#,
        r#"{ input.principal.agent == "agent"; input.principal.user == "user"; input.principal.workspace == "workspace" }"#,
        r#"{ "role" in input.principal.roles; input.principal.session == "session"; input.principal.client == "client" }"#,
        r#"{ input.principal.project == "project"; input.principal.task == "task" }"#,
        r#"{ input.purchase.method == "GET"; input.purchase.host == "api.example.com"; startswith(input.purchase.path, "/v1/") }"#,
        r#"{ input.purchase.query_digest == "query"; input.purchase.body_digest == "body"; input.purchase.observed }"#,
        r#"{ input.purchase.description; input.purchase.media_type; input.purchase["category"] == "category" }"#,
        r#"{ glob.match("*.example.com", ["."], input.seller.host); input.seller.pay_to; not input.seller.pay_to_changed }"#,
        r#"{ input.seller.host_first_paid <= input.at; input.seller.pay_to_first_paid <= input.at }"#,
        r#"{ input.seller.last_price == 50000; input.seller.judged == 1; input.seller.useful == 1 }"#,
        r#"{ input.payment.rail == "x402"; input.payment.scheme == "exact"; input.payment.commitment == "fixed" }"#,
        r#"{ input.payment.network == "eip155:84532"; input.payment.asset; input.payment.asset_symbol == "USDC" }"#,
        r#"{ input.payment.asset_decimals == 6; to_number(input.payment.amount) == 50000; input.payment.value == 50000 }"#,
        r#"{ input.payment.valid_for_seconds == 60; input.payment.wallet == "wallet"; input.history.repeats == 0 }"#,
        r#"{ input.history.agent_hour.count == 1; input.history.agent_day.value == 50000; input.history.session.count == 1 }"#,
        r#"{ input.history.seller_day.count == 1; input.history.seller_lifetime.count == 1 }"#,
        r#"{ input.claims.claim == "sample"; input.facts["fact"] == "sample"; count(input.facts) == 1 }"#,
    ] {
        deny_if(condition).evaluate(&full).assert_denies("it");
    }
}

#[test]
fn what_is_not_set_is_null() {
    // With undefined instead, the rule would silently not apply.
    deny_if(r#"input.principal.client != "acme""#).evaluate(&request()).assert_denies("it");
    deny_if("input.principal.client == null").evaluate(&request()).assert_denies("it");
    deny_if(r#"startswith(input.principal.client, "a")"#).evaluate(&request()).assert_codes(&["rule-error"]);
    deny_if(r#"not input.facts.category"#).evaluate(&request()).assert_denies("it");
}

#[test]
fn the_first_of_two_facts_counts() {
    let policy = deny_if(r#"input.facts.a == "1""#);
    policy.evaluate(&request().fact("a", "1").fact("a", "2")).assert_denies("it");
    policy.evaluate(&request().fact("a", "2").fact("a", "1")).assert_abstains();
}

#[test]
fn an_error_says_where() {
    let outcome = policy("allow if true\ndeny contains {\"code\": \"it\", \"message\": \"\"} if {\n  to_number(input.purchase.host) > 1\n}")
        .evaluate(&request());
    let message = &outcome.assert_codes(&["rule-error"]).reason("rule-error").unwrap().message;
    assert!(message.starts_with("the policy could not be evaluated: line 4, column"), "{message}");
}

#[test]
fn problems_say_where() {
    let deny = |condition: &str| format!("deny contains {{\"code\": \"it\", \"message\": \"\"}} if {condition}");
    for (rules, place, why) in [
        (deny("input.payment.value >"), "line 2, column", ""),
        (deny("{\n  input.payment.vlaue > 5 }"), "line 3, column 3", "did you mean `value`?"),
        (deny("input[\"paymnet\"].value > 5"), "line 2, column", "did you mean `payment`?"),
        (deny("money > 5"), "line 2, column", "money"),
        (deny("no_such_function(1)"), "line 2, column", "no_such_function"),
        (deny("time.now_ns() > 1"), "line 2, column", "time.now_ns"),
        (deny("http.send({})"), "line 2, column", "http.send"),
        ("allow if true\ndenny contains 1".to_owned(), "line 3, column 1", "if it is not `deny`"),
        ("allowed if true".to_owned(), "there is none of the rules", ""),
        ("allow := 1".to_owned(), "", "`allow` is a number, not true or false"),
        ("deny := \"no\"".to_owned(), "", "`deny` is a string, not a set"),
        ("deny contains \"no\"".to_owned(), "", "`deny` has a string in it, not an object"),
        ("deny contains {\"code\": \"a\"}".to_owned(), "", "an object in `deny` has no `message`"),
        ("deny contains {\"code\": \"A b\", \"message\": \"\"}".to_owned(), "", "not kebab-case"),
        ("deny contains {\"code\": \"a\", \"message\": \"\", \"group\": \"x\"}".to_owned(), "", "unknown key `group`"),
        ("review contains {\"code\": \"a\", \"message\": \"\", \"quorum\": 256}".to_owned(), "", "at most 255"),
        ("holds contains {\"budget\": \"a/b\", \"per\": \"day\", \"limit\": 1}".to_owned(), "", "not a list of steps"),
        ("holds contains {\"budget\": [], \"per\": \"day\", \"limit\": 1}".to_owned(), "", "no steps"),
        (
            "holds contains {\"budget\": [1], \"per\": \"day\", \"limit\": 1}".to_owned(),
            "",
            "is a number, not a string",
        ),
        (
            "holds contains {\"budget\": [\"a\"], \"per\": \"week\", \"limit\": 1}".to_owned(),
            "",
            "unknown window `week`",
        ),
        ("holds contains {\"budget\": [\"a\"], \"per\": 0, \"limit\": 1}".to_owned(), "", "a window of seconds"),
        ("holds contains {\"budget\": [\"a\"], \"per\": \"day\", \"limit\": 1.5}".to_owned(), "", "not a whole number"),
        ("holds contains {\"budget\": [\"a\"], \"per\": \"day\", \"limit\": -1}".to_owned(), "", "not a whole number"),
        ("holds contains {\"budget\": [\"a\"], \"per\": \"day\", \"limit\": \"x\"}".to_owned(), "", "not an amount"),
        (
            "holds contains {\"budget\": [\"a\"], \"per\": \"day\", \"limit\": 1, \"unit\": \"eur\"}".to_owned(),
            "",
            "no unit",
        ),
        (
            "holds contains {\"budget\": [\"a\"], \"per\": \"day\", \"limit\": 1, \"amount\": 1}".to_owned(),
            "",
            "unknown key",
        ),
        (
            "holds contains {\"budget\": [\"a\"], \"per\": \"hour\", \"timezone\": \"UTC\", \"limit\": 1}".to_owned(),
            "",
            "time zone",
        ),
    ] {
        let found = problems::<Rego>(json!({ "policy": format!("package countersign\n{rules}") }));
        let Some(problem) = found.first() else { panic!("accepted: {rules}") };
        assert_eq!(problem.path, "/policy", "{rules}");
        assert!(problem.message.contains(place) && problem.message.contains(why), "{rules}: {}", problem.message);
    }
    let other = problems::<Rego>(json!({ "policy": "# mine\npackage policy\nallow if true" }));
    assert!(other[0].message.starts_with("line 2, column 1: the package must be `countersign`"), "{other:?}");
}

#[test]
fn an_answer_that_is_wrong_for_some_request_denies() {
    let policy = policy("allow if true\ndeny contains reason if { input.facts.x; reason := input.facts.x }");
    policy.evaluate(&request()).assert_allows();
    policy.evaluate(&request().fact("x", "y")).assert_codes(&["rule-error"]);
}

#[test]
fn names_in_strings_and_comments_are_not_checked() {
    policy("# input.nothing\nallow if input.purchase.host != \"input.nothing\"\nx := `input.nothing`")
        .evaluate(&request())
        .assert_allows();
}

#[test]
fn budgets_are_lists_of_steps() {
    let policy = policy(
        "allow if true\nholds contains {\"budget\": [\"client\", input.principal.client], \"per\": 600, \"limit\": \"5.00\", \
         \"alert_at\": \"1.00\", \"review_at\": 2000000}",
    );
    let outcome = policy.evaluate(&request().client("acme"));
    let hold = outcome.assert_allows().hold("client/acme");
    assert_eq!((hold.window.clone(), hold.limit, hold.amount), (Window::rolling(600), 5_000_000, 50_000));
    assert_eq!((hold.alert_at, hold.review_at), (Some(1_000_000), Some(2_000_000)));
    policy.evaluate(&request()).assert_codes(&["hold-scope-missing"]);
    policy.evaluate(&request().client("")).assert_codes(&["hold-scope-missing"]);
    for client in ["a/b", "..", "a b", "ä", "{x}"] {
        policy.evaluate(&request().client(client)).assert_codes(&["hold-scope-unusable"]).assert_no_holds();
    }
}

#[test]
fn bounds_are_problems() {
    let many = |count: usize| {
        let rules: String = (0..count).map(|n| format!("allow if input.payment.value == {n}\n")).collect();
        json!({ "policy": format!("package countersign\n{rules}") })
    };
    assert_eq!(problems::<Rego>(many(499)), []);
    assert!(problems::<Rego>(many(501))[0].message.contains("rules, at most 500"));
    let long = format!("package countersign\n# {}\n", "x".repeat(text::MAX_TEXT));
    assert!(problems::<Rego>(json!({ "policy": long }))[0].message.contains("bytes of text"));
    let deep = format!("package countersign\nallow if {}true{}", "(".repeat(200), ")".repeat(200));
    assert!(!problems::<Rego>(json!({ "policy": deep })).is_empty());
}
