//! `examples/policies/text` has one rule set in three languages. All three answer every request of a grid as a plain
//! function does.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test: whatever is not as expected must fail it loudly"
)]

use cedar::Cedar;
use cel::Cel;
use countersign_sdk::testing::{Harness, RequestBuilder, request};
use countersign_sdk::{Decision, Hold, Policy, Reason, SpendRequest, Verdict, Window};
use rego::Rego;
use serde_json::Value;

const LISTED: [&str; 2] = ["api.example.com", "data.example.org"];

fn harness<P: Policy>(config: &str) -> Harness<P> {
    let config: Value = toml::from_str(config).unwrap();
    let rules = &config["policy"]["rules"];
    assert_eq!(rules["module"], format!("builtin:{}", P::NAME));
    Harness::new(rules["settings"].clone())
}

/// The rules in Rust.
fn plainly(request: &SpendRequest) -> Decision {
    let mut denies = Vec::new();
    if !LISTED.contains(&request.purchase.host.as_str()) {
        denies.push("vendor-not-listed");
    }
    if request.payment.value > 1_000_000 {
        denies.push("above-per-payment");
    }
    let client = request.principal.client.as_deref();
    let usable = |client: &str| client.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._@:-".contains(&byte));
    match client {
        None | Some("") => denies.push("hold-scope-missing"),
        Some(client) if !usable(client) || client == ".." => denies.push("hold-scope-unusable"),
        Some(_) if request.payment.value == 0 => denies.push("zero-value"),
        Some(_) => {}
    }
    if !denies.is_empty() {
        return Decision::new(Verdict::Deny).reasons(denies.into_iter().map(|code| Reason::new(code, "")));
    }
    let decision = if request.payment.value > 500_000 {
        Decision::review("above-review-threshold", "").group("finance")
    } else {
        Decision::allow()
    };
    let budget = format!("client/{}", client.unwrap());
    decision.hold(Hold::micros(budget, Window::day("UTC"), 5_000_000_u64, request.value()))
}

fn grid() -> Vec<RequestBuilder> {
    let hosts =
        ["api.example.com", "data.example.org", "api.example.org", "api.example.com:8443", "xn--pi-6kc.example.com"];
    let values = [0, 1, 50_000, 499_999, 500_000, 500_001, 1_000_000, 1_000_001, (1 << 53) - 1];
    let clients = [None, Some("acme"), Some("Umbrella-2.eu"), Some(""), Some("a/b"), Some(".."), Some("ümlaut")];
    let agents = ["scout", "buyer", "агент\"; permit"];
    let mut all = Vec::new();
    for host in hosts {
        for value in values {
            for client in clients {
                for agent in agents {
                    let one = request().host(host).micros(value).agent(agent);
                    all.push(one.with(|request| request.principal.client = client.map(str::to_owned)));
                }
            }
        }
    }
    all
}

/// What must be alike: order and words of the reasons are a language's own.
fn compared(mut decision: Decision) -> Decision {
    decision.reasons.iter_mut().for_each(|reason| reason.message.clear());
    decision.reasons.sort_by(|a, b| a.code.cmp(&b.code));
    decision
}

#[test]
fn all_answer_as_a_plain_function_does() {
    let cedar = harness::<Cedar>(include_str!("../../../../examples/policies/text/cedar.toml"));
    let rego = harness::<Rego>(include_str!("../../../../examples/policies/text/rego.toml"));
    let cel = harness::<Cel>(include_str!("../../../../examples/policies/text/cel.toml"));
    let grid = grid();
    assert!(grid.len() >= 500);
    let mut seen = [0; 3];
    for request in &grid {
        let expected = compared(plainly(request.as_ref()));
        match expected.verdict {
            Verdict::Deny => seen[0] += 1,
            Verdict::Review => seen[1] += 1,
            Verdict::Allow => seen[2] += 1,
            Verdict::Abstain => {}
        }
        let answers =
            [("cedar", cedar.evaluate(request)), ("rego", rego.evaluate(request)), ("cel", cel.evaluate(request))];
        for (language, answer) in answers {
            assert_eq!(compared(answer.decision().clone()), expected, "{language}: {request:?}");
        }
    }
    assert!(seen.iter().all(|count| *count > 20), "deny, review, allow: {seen:?}");
}
