//! Metrics, pulled and pushed, and that nothing is in any of it that must not be.

use countersign_tests::{
    config::SCOUT_TOKEN,
    http::Request,
    till::{bought, text},
    wait_for,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    io::Write,
    process::{Command, Stdio},
};

use super::{SOON, Scene, receiver::tool};

fn metrics_page(scene: &Scene) -> String {
    scene.gateway.operator().get("/metrics").text()
}

#[test]
fn promtool_and_prometheus_have_nothing_to_say_against_the_page() {
    let scene = Scene::with(|config| config);
    bought(&scene.gateway.agent().fetch(&scene.url("/quote"), json!({})), "0.001");
    scene.gateway.agent().fetch(&scene.url("/report"), json!({}));
    let page = metrics_page(&scene);
    let mut check = Command::new(tool("promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let checked = check.wait_with_output().unwrap();
    let said = [checked.stdout, checked.stderr].map(|said| String::from_utf8(said).unwrap()).concat();
    assert!(checked.status.success() && said.is_empty(), "{}: {said}", checked.status);

    let families = scene.receiver.parse(&page);
    let counted = families.iter().find(|f| f["name"] == "countersign_purchases").unwrap();
    let paid = json!({"door": "fetch", "outcome": "paid"});
    let sample = counted["samples"].as_array().unwrap().iter().find(|s| s["labels"] == paid).unwrap();
    assert_eq!((text(counted, "/kind"), sample["value"].as_f64()), ("counter", Some(1.0)));
    for family in families.iter().filter(|f| f["kind"] == "histogram") {
        let mut last = (Value::Null, 0.0);
        for sample in family["samples"].as_array().unwrap() {
            if !sample["name"].as_str().unwrap().ends_with("_bucket") {
                continue;
            }
            let (mut labels, value) = (sample["labels"].clone(), sample["value"].as_f64().unwrap());
            labels.as_object_mut().unwrap().remove("le");
            assert!(labels != last.0 || value >= last.1, "a bucket has less than the one before: {sample}");
            last = (labels, value);
        }
    }
}

#[test]
fn what_is_pushed_is_what_is_pulled() {
    let scene = Scene::with(|config| {
        config
            .set(&["telemetry", "headers", "authorization", "env"], "OTLP_AUTHORIZATION")
            .env("OTLP_AUTHORIZATION", "Bearer canary-otlp-key")
    });
    bought(&scene.gateway.agent().fetch(&scene.url("/quote"), json!({})), "0.001");
    let paid = json!({"door": "fetch", "outcome": "paid"});
    let counts =
        |m: &&Value| m["name"] == "countersign_purchases_total" && m["attributes"] == paid && m["value"] == 1.0;
    let seen = wait_for(SOON, || {
        let seen = scene.receiver.seen();
        seen["metrics"].as_array().unwrap().iter().find(counts).is_some().then_some(seen)
    });
    let seen = seen.expect("metrics are pushed");
    let pushed = || -> BTreeSet<String> {
        let seen = scene.receiver.seen();
        seen["metrics"].as_array().unwrap().iter().map(|m| text(m, "/name").to_owned()).collect()
    };
    let pulled = || -> BTreeSet<String> {
        let page = metrics_page(&scene);
        page.lines().filter_map(|l| Some(l.strip_prefix("# TYPE ")?.split(' ').next()?.to_owned())).collect()
    };
    // Some are only there once something was read.
    let same = wait_for(SOON, || (pushed() == pulled()).then_some(()));
    assert!(same.is_some(), "{:?} {:?}", pushed(), pulled());
    let page = metrics_page(&scene);
    let headers = seen["headers"].as_array().unwrap();
    assert!(headers.iter().all(|h| h["authorization"] == "Bearer canary-otlp-key"), "{headers:?}");
    assert!(!scene.gateway.log().contains("canary-otlp-key") && !page.contains("canary-otlp-key"));
}

/// Words that were planted everywhere an agent or a seller can plant them.
#[test]
fn no_secret_path_query_body_or_claim_is_told_to_anybody() {
    let scene = Scene::with(|config| config);
    let call = json!({
        "url": scene.url("/quote?q=canary-query"),
        "headers": {"X-Canary": "canary-header", "Authorization": "Bearer canary-credential", "traceparent": "canary-trace"},
        "purpose": "canary-purpose", "task": "canary-task", "claims": {"canary-claim": "canary-value"},
    });
    let request = Request::new("POST", &format!("{}/v1/fetch", scene.gateway.url)).bearer(SCOUT_TOKEN);
    let answer = request.header("traceparent", "canary-parent").header("baggage", "canary=baggage").json(&call).send();
    let payment = bought(&answer, "0.001");
    let agent = scene.gateway.agent();
    // Another path, a body, a refusal, an address that is not allowed, a stranger.
    agent.fetch(&scene.url("/canary-path"), json!({"method": "POST", "body": "canary-body"}));
    agent.fetch(&scene.url("/report?canary-denied"), json!({"claims": {"x": "canary-claim-2"}}));
    agent.fetch("http://10.9.8.7/canary-internal", json!({}));
    scene.gateway.agent_with("canary-stranger").fetch(&scene.url("/quote"), json!({}));
    agent.quote(&scene.url("/quote?canary-quote"), json!({}));
    scene.receiver.trace("countersign.payment.id", &payment);
    let quoted =
        wait_for(SOON, || scene.receiver.spans().iter().any(|s| s["name"] == "countersign.quote").then_some(()));
    quoted.expect("everything before it is told too");
    let told = scene.receiver.seen()["raw"].to_string();
    let page = metrics_page(&scene);
    for (where_, what) in [("OTLP", &told), ("/metrics", &page), ("the log", &scene.gateway.log())] {
        for secret in
            ["canary", SCOUT_TOKEN, countersign_tests::config::ALICE_TOKEN, countersign_tests::peers::BUYER.key]
        {
            let at = what.find(secret).map(|at| &what[at.saturating_sub(200)..(at + 40).min(what.len())]);
            assert_eq!(at, None, "{secret} is in {where_}");
        }
        assert!(!what.contains("/quote"), "a path is in {where_}");
    }
}
