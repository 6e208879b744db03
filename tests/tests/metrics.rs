//! `/metrics`: who may read it, what it says, what it never says; and that the manual and the example board name
//! exactly what there is.
#![expect(clippy::unwrap_used, reason = "a test: whatever is not as expected must fail it loudly")]

use countersign::telemetry::{attributes, catalog};
use countersign_tests::{
    config::{Config, Policy, SCOUT_TOKEN},
    http::{self, raw},
    process::Gateway,
    refusal::refusal,
    till::{bought, caps},
    wait_for,
    world::LocalWorld,
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, fs, path::Path, time::Duration};

fn scene(change: impl FnOnce(Config) -> Config) -> (LocalWorld, Gateway) {
    let world = LocalWorld::start();
    let asks = Policy::new("review", "builtin:review-threshold").setting("above", "0.4");
    let config = world.config(&["honest"], [Policy::vendors(), caps("2.00"), asks]);
    (world, Gateway::start(change(config)))
}

fn url(world: &LocalWorld, path: &str) -> String {
    world.world().seller("honest").unwrap().url(path)
}

fn page(gateway: &Gateway) -> String {
    let answer = gateway.operator().get("/metrics");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    answer.text()
}

/// Where operators are served.
fn listener(gateway: &Gateway) -> &str {
    gateway.admin_url.strip_prefix("http://").unwrap()
}

/// The figure of a sample as it is written.
fn figure(page: &str, sample: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
}

#[track_caller]
fn says(page: &str, sample: &str, expected: f64) {
    assert_eq!(figure(page, sample), Some(expected), "{sample}\n{page}");
}

fn file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).unwrap()
}

#[test]
fn only_who_may_look_reads_it() {
    let (_world, gateway) =
        scene(|config| config.operator("dora", "test-operator-token-of-dora-0123456789abcdef", &["approver"]));
    let at = format!("{}/metrics", gateway.admin_url);
    refusal(&http::get(&at).send(), 401, "unauthenticated");
    refusal(&http::get(&at).bearer(SCOUT_TOKEN).send(), 401, "unauthenticated");
    refusal(&http::get(&at).bearer("test-operator-token-of-dora-0123456789abcdef").send(), 403, "forbidden");
    page(&gateway);
    // Agents have no such page.
    assert_ne!(gateway.agent().get("/metrics").status, 200);
}

#[test]
fn an_open_page_is_open_to_this_machine_by_its_own_name() {
    let (_world, gateway) = scene(|config| config.set(&["telemetry", "open-metrics"], true));
    assert_eq!(http::get(&format!("{}/metrics", gateway.admin_url)).send().status, 200);
    let asked = |host: &str| {
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        String::from_utf8(raw(listener(&gateway), request.as_bytes())).unwrap()
    };
    assert!(asked(listener(&gateway)).starts_with("HTTP/1.1 200"));
    // A page in a browser may make its own name resolve to this machine.
    assert!(asked("rebound.example").starts_with("HTTP/1.1 401"));
    // Nothing else is open.
    refusal(&http::get(&format!("{}/v1/alerts", gateway.admin_url)).send(), 401, "unauthenticated");
}

#[test]
fn purchases_policies_and_open_payments_are_counted() {
    let (world, gateway) = scene(|config| config);
    let empty = page(&gateway);
    says(&empty, "countersign_purchases_total{door=\"fetch\",outcome=\"paid\"}", 0.0);
    let agent = gateway.agent();
    bought(&agent.fetch(&url(&world, "/quote"), json!({})), "0.001");
    bought(&agent.fetch(&url(&world, "/quote"), json!({})), "0.001");
    assert_eq!(agent.fetch(&url(&world, "/free"), json!({})).status, 200);
    refusal(&agent.fetch(&url(&world, "/report"), json!({})), 403, "policy-denied");
    world.world().seller("honest").unwrap().set_price("/quote", 500_000);
    refusal(&agent.fetch(&url(&world, "/quote"), json!({})), 202, "approval-required");
    refusal(&gateway.agent_with("nobody").fetch(&url(&world, "/quote"), json!({})), 401, "unauthenticated");
    agent.post("/v1/quote", &json!({"url": url(&world, "/free")}));
    assert_eq!(gateway.operator().post("/v1/sessions", &json!({"agent": "scout", "limit": "1"})).status, 201);

    let waits = "countersign_payments_open{state=\"pending-approval\"}";
    let told = wait_for(Duration::from_secs(30), || Some(page(&gateway)).filter(|p| figure(p, waits) == Some(1.0)));
    let told = told.unwrap_or_else(|| panic!("{}", page(&gateway)));
    let purchases = |outcome| format!("countersign_purchases_total{{door=\"fetch\",outcome=\"{outcome}\"}}");
    for (outcome, count) in [("paid", 2.0), ("free", 1.0), ("refused", 1.0), ("waiting", 1.0), ("failed", 0.0)] {
        says(&told, &purchases(outcome), count);
        let took = format!("countersign_purchase_duration_seconds_count{{outcome=\"{outcome}\"}}");
        says(&told, &took, count);
    }
    for (code, count) in [("policy-denied", 1.0), ("approval-required", 1.0), ("unauthenticated", 1.0)] {
        says(&told, &format!("countersign_refusals_total{{door=\"fetch\",code=\"{code}\"}}"), count);
    }
    for (step, count) in [("identify", 5.0), ("fetch", 6.0), ("decide", 4.0), ("hold", 3.0), ("sign", 2.0)] {
        says(&told, &format!("countersign_step_duration_seconds_count{{step=\"{step}\"}}"), count);
    }
    let policies = gateway.operator().get("/v1/policies").json();
    for policy in policies["policies"].as_array().unwrap() {
        let name = policy["name"].as_str().unwrap();
        let label = format!("policy=\"{name}\",generation=\"1\"");
        // What status says, too: counted once.
        let count = format!("countersign_policy_decision_duration_seconds_count{{{label}}}");
        says(&told, &count, policy["decisions"].as_f64().unwrap());
        says(&told, &format!("countersign_policy_valid{{{label}}}"), 1.0);
    }
    says(&told, "countersign_policy_decisions_total{policy=\"caps\",generation=\"1\",answer=\"deny\"}", 1.0);
    says(&told, "countersign_payments_open_value{state=\"pending-approval\"}", 0.5);
    says(&told, "countersign_approvals_waiting", 1.0);
    says(&told, "countersign_sessions_open", 1.0);
    says(&told, "countersign_ledger_up", 1.0);
    says(&told, "countersign_generation", 1.0);
    says(&told, "countersign_last_reload_ok", 1.0);
    assert!(figure(&told, "countersign_ledger_commit_duration_seconds_count").unwrap() > 5.0, "{told}");
    assert!(figure(&told, "countersign_chain_final_block{network=\"eip155:84532\"}").is_some(), "{told}");
    assert!(figure(&told, "process_resident_memory_bytes").unwrap() > 1e6, "{told}");
}

#[test]
fn a_reload_takes_the_old_generations_labels_with_it() {
    let (_world, mut gateway) = scene(|config| config);
    let config = gateway.config();
    gateway.write_config(config.clone().set(&["policy", "caps", "settings", "per-payment"], "0.75"));
    let new = "countersign_policy_valid{policy=\"caps\",generation=\"2\"}";
    let told = wait_for(Duration::from_secs(60), || Some(page(&gateway)).filter(|p| figure(p, new).is_some()));
    let told = told.unwrap_or_else(|| panic!("{}", page(&gateway)));
    assert!(!told.contains("generation=\"1\""), "{told}");
    says(&told, "countersign_reloads_total{result=\"activated\"}", 1.0);
    gateway.write_config(config.set(&["policy", "caps", "settings", "per-payment"], "many"));
    let refused = "countersign_reloads_total{result=\"refused\"}";
    let told = wait_for(Duration::from_secs(60), || Some(page(&gateway)).filter(|p| figure(p, refused) == Some(1.0)));
    says(&told.expect("the edit is refused"), "countersign_last_reload_ok", 0.0);
}

#[test]
fn what_nobody_configured_is_no_label() {
    let (world, gateway) = scene(|config| config);
    let agent = gateway.agent();
    for path in ["/quote?canary-query=1", "/canary-path"] {
        agent.fetch(&url(&world, path), json!({"purpose": "canary-purpose", "purchase_id": "canary-purchase"}));
    }
    agent.fetch("http://canary-host.invalid/", json!({}));
    gateway.agent_with("canary-token").fetch(&url(&world, "/quote"), json!({}));
    let told = page(&gateway);
    assert!(!told.contains("canary") && !told.contains("127.0.0.1"), "{told}");
    let labels: BTreeSet<&str> =
        told.split(['{', ',']).filter_map(|part| part.split_once("=\"")).map(|(n, _)| n).collect();
    let known: BTreeSet<&str> = catalog::ALL.iter().flat_map(|m| m.labels).copied().chain(["le"]).collect();
    assert!(labels.is_subset(&known), "{labels:?}");
}

#[test]
fn what_would_tell_strangers_is_refused() {
    let config = |path: &[&str], value: toml::Value| Config::new([Policy::vendors(), caps("2.00")]).set(path, value);
    let hook = |secret: &str| {
        let config = config(&["alerts", "webhook"], "https://hooks.example".into()).env("HOOK", secret);
        config.set(&["alerts", "secret", "env"], "HOOK")
    };
    let mistakes = [
        (config(&["telemetry", "otlp"], "http://otlp.example:4318".into()), "telemetry.otlp"),
        (config(&["telemetry", "headers", "authorization"], "Bearer x".into()), "telemetry.headers.authorization"),
        (config(&["telemetry", "every"], "10ms".into()), "telemetry.every"),
        (config(&["telemetry", "otpl"], "http://127.0.0.1:1".into()), "did you mean `otlp`"),
        (config(&["alerts", "webhook"], "https://hooks.example".into()), "alerts.secret"),
        (config(&["alerts", "webhook"], "http://hooks.example".into()), "alerts.webhook"),
        (hook("whsec_c2hvcnQ="), "alerts.secret"),
        (hook("no-secret-of-standard-webhooks"), "alerts.secret"),
    ];
    for (config, word) in mistakes {
        let (status, said) = Gateway::refused(config);
        assert!(!status.success() && said.contains(word), "{word}: {said}");
    }
}

/// What stands in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn the_manual_names_every_metric_and_attribute_and_no_other() {
    let manual = file("docs/observability.md");
    for metric in catalog::ALL {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let row = format!("| `{}` | {} | {} |", metric.name, labels.join(", "), metric.help);
        assert!(manual.contains(&row), "docs/observability.md does not say:\n{row}");
    }
    for key in attributes::ALL {
        let alias = key.alias.map(|alias| format!("`{alias}`")).unwrap_or_default();
        let row = format!("| `{}` | {alias} | {} |", key.name, key.help);
        assert!(manual.contains(&row), "docs/observability.md does not say:\n{row}");
    }
    for name in quoted(&manual) {
        if name.starts_with("countersign_") || name.starts_with("process_") {
            assert!(catalog::ALL.iter().any(|m| m.name == name), "there is no metric {name}");
        }
        if name.starts_with("countersign.") && !name.ends_with(".toml") {
            let traced = ["countersign.purchase", "countersign.quote", "countersign.upload"].contains(&name);
            assert!(traced || attributes::ALL.iter().any(|k| k.name == name), "there is no attribute {name}");
        }
    }
}

/// Every `expr` of a board, panels of rows and variables' queries included.
fn queries(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value.as_str() {
                    Some(text) if key == "expr" || key == "query" && text.contains('(') => found.push(text.to_owned()),
                    _ => queries(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| queries(item, found)),
        _ => {}
    }
}

#[test]
fn every_query_of_the_board_is_about_what_there_is() {
    let board: Value = serde_json::from_str(&file("examples/grafana/countersign.json")).unwrap();
    let mut found = Vec::new();
    queries(&board, &mut found);
    assert!(found.len() >= 15, "{found:?}");
    let mut used = BTreeSet::new();
    for query in found {
        let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let names: Vec<&str> = words.filter(|w| w.starts_with("countersign_") || w.starts_with("process_")).collect();
        assert!(!names.is_empty(), "{query}");
        let mut labels: BTreeSet<&str> = BTreeSet::from(["le", "job"]);
        for name in names {
            let metric = catalog::ALL.iter().find(|m| {
                let parts = ["_bucket", "_sum", "_count"].map(|part| format!("{}{part}", m.name));
                if m.kind == catalog::Kind::Histogram { parts.iter().any(|p| p == name) } else { m.name == name }
            });
            let metric = metric.unwrap_or_else(|| panic!("{name} in {query}"));
            labels.extend(metric.labels);
            used.insert(metric.name);
        }
        let selectors = query.split('{').skip(1).flat_map(|part| part.split('}').next().unwrap().split(','));
        let selected = selectors.filter_map(|part| part.split_once('=').map(|(n, _)| n.trim_end_matches(['!', '~'])));
        let grouped = query.split("by (").skip(1).flat_map(|part| part.split(')').next().unwrap().split(','));
        for label in
            selected.chain(grouped).map(str::trim).filter(|l| l.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
        {
            assert!(labels.contains(label), "{label} in {query}");
        }
    }
    assert!(used.len() >= 15, "{used:?}");
}
