//! Unmodified clients behind `countersign run` buy from the official seller over TLS.

use std::path::{Path, PathBuf};

use countersign_tests::peers::Peers;
use countersign_tests::till::Till;
use serde_json::Value;

use crate::support::{run, said, shop, till};

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/clients")
}

/// Buys once at the TLS seller with a command, and looks that the money moved: once, on the chain and in the ledger.
fn buys(till: &Till<'_>, command: &[&str]) -> Value {
    let before = till.amounts().len();
    let url = shop().url("/cheap");
    let command = [command, &[&url]].concat();
    let arguments = ["--agent", "scout", "--limit", "0.10", "--task", "t-42", "--intercept", "localhost:*"];
    let answer: Value = serde_json::from_str(&said(&run(&till.gateway, &arguments, &command))).unwrap();
    assert_eq!(answer["status"], 200, "{answer}");
    let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    assert_eq!(body["route"], "cheap");
    assert_eq!(answer["headers"]["countersign-amount"], "0.001 USD", "{answer}");
    let payment = answer["headers"]["countersign-payment"].as_str().unwrap();
    till.until(payment, "settled");
    assert_eq!(&till.amounts()[before..], [1_000], "exactly one payment for {command:?}");
    let recorded = till.gateway.operator().payment(payment);
    assert_eq!(recorded["task"], "t-42");
    assert_eq!(recorded["resource"]["url"], url);
    answer
}

#[test]
fn curl_buys_over_http_2_and_over_http_1_1() {
    let till = till(&[], |config| config);
    let script = |version: &str| {
        format!(
            "curl -sS {version} -D head -o body -w '%{{http_version}}' \"$1\" >version && \
             python3 -c 'import json; h = dict(l.strip().split(\": \", 1) for l in open(\"head\") if \": \" in l); \
             print(json.dumps({{\"status\": 200, \"headers\": {{k.lower(): v for k, v in h.items()}}, \"body\": open(\"body\").read()}}))'"
        )
    };
    for (option, version) in [("", "2"), ("--http1.1", "1.1")] {
        buys(&till, &["sh", "-c", &script(option), "sh"]);
        assert_eq!(std::fs::read_to_string(till.gateway.dir().join("version")).unwrap(), version);
    }
}

#[test]
fn python_clients_buy() {
    let till = till(&[], |config| config);
    let python = clients().join(".tools/bin/python");
    assert!(python.exists(), "the clients are not installed: run `make test`");
    let script = clients().join("buy.py");
    for client in ["urllib", "requests", "httpx", "aiohttp"] {
        buys(&till, &[python.to_str().unwrap(), script.to_str().unwrap(), client]);
    }
}

#[test]
fn node_clients_buy() {
    let till = till(&[], |config| config);
    let script = clients().join("buy.mjs");
    assert!(clients().join("node_modules").exists(), "the clients are not installed: run `make test`");
    for client in ["fetch", "axios"] {
        buys(&till, &["node", script.to_str().unwrap(), client]);
    }
}

#[test]
fn java_buys() {
    let till = till(&[], |config| config);
    buys(&till, &["java", clients().join("Buy.java").to_str().unwrap()]);
}

#[test]
fn a_client_buys_over_plain_http_where_that_may_be_paid() {
    let till = till(&[], |config| config);
    let url = format!("{}/cheap", Peers::shared().v2);
    let output = run(&till.gateway, &["--agent", "scout"], &["curl", "-sS", "-i", &url]);
    let answer = said(&output);
    assert!(answer.contains("countersign-amount: 0.001 USD") && answer.contains("\"cheap\""), "{answer}");
    assert_eq!(till.amounts(), [1_000]);
}
