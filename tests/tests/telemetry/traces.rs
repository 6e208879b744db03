//! One trace for each purchase.

use countersign_tests::{
    config::SCOUT_TOKEN,
    http::Request,
    refusal::refusal,
    stub::Stub,
    till::{bought, header, text},
    wait_for,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

use super::{SOON, Scene};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

fn named<'a>(trace: &'a [Value], name: &str) -> Vec<&'a Value> {
    trace.iter().filter(|span| span["name"] == name).collect()
}

/// Spans form one tree, and no part leaves its whole by more than what clocks round away.
#[track_caller]
fn whole(trace: &[Value]) {
    let ids: BTreeSet<&str> = trace.iter().map(|span| text(span, "/span")).collect();
    assert_eq!(ids.len(), trace.len(), "spans share an id");
    for span in &trace[1..] {
        let parent = trace.iter().find(|p| p["span"] == span["parent"]).unwrap_or_else(|| panic!("an orphan: {span}"));
        let at = |span: &Value, which: &str| span[which].as_u64().unwrap();
        assert!(at(span, "start") <= at(span, "end"), "{span}");
        assert!(at(parent, "start") <= at(span, "start"), "{span} in {parent}");
    }
}

#[test]
fn a_purchase_is_one_trace_of_the_callers_with_every_step_and_every_policy() {
    let scene = Scene::with(|config| config);
    let bought_at = scene.url("/quote?secret-query=1");
    let request = Request::new("POST", &format!("{}/v1/fetch", scene.gateway.url)).bearer(SCOUT_TOKEN);
    let answer = request
        .header("traceparent", &format!("00-{TRACE}-{SPAN}-01"))
        .json(&json!({"url": bought_at, "purchase_id": "purchase-1"}))
        .send();
    let payment = bought(&answer, "0.001");
    let trace = scene.receiver.trace("countersign.payment.id", &payment);
    whole(&trace);
    let root = &trace[0];
    assert_eq!(
        (text(root, "/trace"), text(root, "/parent"), text(root, "/name")),
        (TRACE, SPAN, "countersign.purchase")
    );
    assert_eq!((&root["kind"], &root["error"]), (&json!(2), &Value::Null));
    let said = &root["attributes"];
    let view = scene.gateway.operator().payment(&payment);
    let seller = scene.world.world().seller("honest").unwrap();
    let expected = json!({
        "countersign.purchase.id": "purchase-1", "countersign.payment.id": payment, "countersign.door": "fetch",
        "countersign.outcome": "paid", "countersign.agent": "scout", "payment_agent_name": "scout",
        "countersign.workspace": "research", "countersign.mandate": "all", "countersign.wallet": "research",
        "payment_instrument_id": "research", "countersign.generation": 1, "http.request.method": "GET",
        "server.address": seller.authority(), "merchant": seller.authority(), "http.response.status_code": 200,
        "countersign.verdict": "allow", "countersign.payment.amount": "1000", "countersign.payment.asset_symbol": "USDC",
        "countersign.payment.asset": view["amount"]["asset"], "countersign.payment.network": "eip155:84532",
        "countersign.payment.scheme": "exact", "countersign.payment.payee": view["seller"]["pay_to"],
        "countersign.payment.value": "0.001", "spend_amount": "0.001", "countersign.payment.currency": "USD",
        "spend_currency": "USD", "countersign.payment.state": header(&answer, "countersign-state"),
        "countersign.payment.transaction": header(&answer, "countersign-transaction"),
    });
    for (name, value) in expected.as_object().unwrap() {
        if name != "countersign.payment.asset" {
            assert_eq!(&said[name], value, "{name}: {said}");
        }
    }
    assert_eq!(root["resource"]["service.name"], "countersign");
    for step in ["identify", "mandate", "fetch", "offers", "decide", "hold", "sign", "present", "settle", "answer"] {
        let [span] = named(&trace, step)[..] else { panic!("not one {step}: {trace:#?}") };
        assert_eq!(span["parent"], root["span"], "{span}");
        assert_eq!(span["error"], Value::Null);
    }
    let decide = named(&trace, "decide")[0];
    for (policy, verdict) in [("vendors", "allow"), ("caps", "allow")] {
        let [span] = named(&trace, &format!("policy {policy}"))[..] else { panic!("{trace:#?}") };
        assert_eq!(span["parent"], decide["span"]);
        assert_eq!(
            (&span["attributes"]["countersign.verdict"], &span["attributes"]["countersign.policy.name"]),
            (&json!(verdict), &json!(policy))
        );
        assert!(span["end"].as_u64() <= decide["end"].as_u64(), "{span} in {decide}");
    }
    assert_eq!(trace.len(), 13, "{trace:#?}");
}

#[test]
fn refusals_failures_and_repeats_are_traces_of_their_own() {
    let scene = Scene::with(|config| config);
    let agent = scene.gateway.agent();
    let denied = refusal(&agent.fetch(&scene.url("/report"), json!({})), 403, "policy-denied");
    let trace = scene.receiver.trace("countersign.payment.id", text(&denied, "/payment"));
    whole(&trace);
    let said = &trace[0]["attributes"];
    assert_eq!((text(said, "/countersign.outcome"), text(said, "/countersign.code")), ("refused", "policy-denied"));
    assert_eq!(said["countersign.reasons"], json!(["caps/above-per-payment"]));
    assert_eq!(trace[0]["error"], Value::Null, "a refusal is an answer");
    assert_eq!(trace[0]["parent"], "", "nobody's part");
    assert!(named(&trace, "sign").is_empty() && named(&trace, "hold").is_empty(), "{trace:#?}");

    let lost = json!({"purchase_id": "lost"});
    let nowhere = agent.fetch("http://127.0.0.1:9/x", lost);
    assert_eq!(nowhere.status, 400, "{}", nowhere.text());
    let trace = scene.receiver.trace("countersign.purchase.id", "lost");
    assert_eq!(named(&trace, "fetch")[0]["error"], "egress-forbidden");

    let order = json!({"purchase_id": "twice"});
    let first = bought(&agent.fetch(&scene.url("/quote"), order.clone()), "0.001");
    let trace = scene.receiver.trace("countersign.payment.id", &first);
    let again = agent.fetch(&scene.url("/quote"), order);
    assert_eq!(header(&again, "countersign-replayed"), "true");
    let other = wait_for(SOON, || {
        let spans = scene.receiver.spans();
        spans.into_iter().find(|s| s["attributes"]["countersign.outcome"] == "replayed")
    });
    let other = other.expect("the repeat is told");
    assert_ne!(other["trace"], trace[0]["trace"]);

    assert_eq!(agent.quote(&scene.url("/quote"), json!({"purchase_id": "asked"})).status, 200);
    let spans = wait_for(SOON, || {
        let spans = scene.receiver.spans();
        spans.iter().any(|s| s["name"] == "countersign.quote").then_some(spans)
    });
    spans.expect("quotes are told");
}

#[test]
fn logs_say_which_trace_and_which_payment() {
    let scene = Scene::with(|config| config);
    let payment = bought(&scene.gateway.agent().fetch(&scene.url("/quote"), json!({})), "0.001");
    let trace = scene.receiver.trace("countersign.payment.id", &payment);
    let id = text(&trace[0], "/trace").to_owned();
    let log = scene.gateway.log();
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let of_it = |line: &&Value| {
        line["spans"].as_array().is_some_and(|s| s.iter().any(|s| s["trace"] == *id)) || line["span"]["trace"] == *id
    };
    let told: Vec<&Value> = lines.iter().filter(of_it).collect();
    assert!(told.len() >= 5, "{log}");
    assert!(told.iter().any(|line| line.to_string().contains(&payment)), "{told:#?}");
}

#[test]
fn sellers_learn_of_traces_only_if_they_are_to() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    for tells in [false, true] {
        let seller = Stub::start(answer);
        let scene =
            Scene::with(|config| config.set(&["telemetry", "tell-sellers"], tells).allow_private(&seller.authority));
        let parent = format!("00-{TRACE}-{SPAN}-01");
        let call = json!({"url": seller.url("/x"), "purchase_id": "told", "headers": {"traceparent": parent, "TraceState": "vendor=canary"}});
        let request = Request::new("POST", &format!("{}/v1/fetch", scene.gateway.url)).bearer(SCOUT_TOKEN);
        assert_eq!(request.header("traceparent", &parent).json(&call).send().status, 200);
        let trace = scene.receiver.trace("countersign.purchase.id", "told");
        let seen = seller.seen().join("\n").to_ascii_lowercase();
        assert!(!seen.contains("tracestate") && !seen.contains(SPAN), "{seen}");
        let fetch = text(named(&trace, "fetch")[0], "/span");
        let told = format!("traceparent: 00-{TRACE}-{fetch}-01");
        assert_eq!(seen.contains(&told), tells, "{seen}");
        assert_eq!(seen.matches("traceparent").count(), usize::from(tells), "{seen}");
    }
}
