//! Agents that hold no key buy from the official sellers: x402 clients through the remote signer, and the tools of
//! agent frameworks, each called by a stub where its model would be. The chain and the ledger say what was bought.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test: whatever is not as expected must fail it loudly"
)]

use countersign_tests::{
    config::{Config, SCOUT_TOKEN},
    till::{Till, items, text},
    wait_for,
};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};
use tempfile::TempDir;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/agents")
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/agents")
}

/// What runs a script of these tests: its interpreter, with nothing of the wallet's.
fn python(tools: &str, script: &str) -> Command {
    let python = folder().join(tools).join("bin/python");
    assert!(python.exists(), "{} is not installed: run `make test`", python.display());
    let mut command = Command::new(python);
    command.arg(folder().join(script)).env("PYTHONPATH", examples()).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn node(script: &str) -> Command {
    assert!(examples().join("node_modules").exists(), "the clients are not installed: run `make test`");
    let mut command = Command::new("node");
    command.arg(folder().join(script));
    command
}

/// Runs it as an agent with this token would, and reads the last line that it says.
fn said(till: &Till<'_>, token: &str, mut command: Command) -> Value {
    let home = TempDir::new().unwrap();
    command.env("COUNTERSIGN_URL", &till.gateway.url).env("COUNTERSIGN_TOKEN", token);
    command.env("HOME", home.path()).env("NO_PROXY", "127.0.0.1").stdin(Stdio::null());
    command
        .env("CREWAI_DISABLE_TELEMETRY", "true")
        .env("CREWAI_TRACING_ENABLED", "false")
        .env("OTEL_SDK_DISABLED", "true");
    let output = command.output().unwrap();
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let last = out.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|e| panic!("{command:?} said {out:?} ({e}): {errors}"))
}

/// A gateway that hands payments out.
fn signer(change: impl FnOnce(Config) -> Config) -> Till<'static> {
    Till::open_with(|config| change(config.mandate(&["doors"], vec!["fetch", "sign"])))
}

/// Buys at both sellers, with and without a body, with an x402 client that has no key; then asks for too much.
fn pays(command: impl Fn() -> Command) {
    let till = signer(|config| config);
    let call = |method: &str, url: &str, body: &[&str]| {
        let mut command = command();
        command.args([method, url]).args(body);
        said(&till, SCOUT_TOKEN, command)
    };
    let body = r#"{"question":"how much?"}"#;
    let purchases = [
        ("GET", till.v2("/cheap"), &[][..], 1_000, json!({"peer": "x402-express-v2", "route": "cheap"})),
        ("GET", till.v1("/cheap"), &[][..], 1_000, json!({"peer": "x402-express-v1", "route": "cheap"})),
        (
            "POST",
            till.v2("/echo"),
            &[body][..],
            2_000,
            json!({"peer": "x402-express-v2", "echo": {"question": "how much?"}}),
        ),
    ];
    for (done, (method, url, body, price, answer)) in purchases.into_iter().enumerate() {
        let got = call(method, &url, body);
        assert_eq!(got["status"], 200, "{method} {url}: {got}");
        assert_eq!(serde_json::from_str::<Value>(text(&got, "/body")).unwrap(), answer);
        // The seller, not the gateway, was called.
        assert!(got["headers"].get("countersign-source").is_none(), "{got}");
        let payments = till.payments();
        assert_eq!(payments.len(), done + 1);
        let newest = payments.first().unwrap();
        assert_eq!((&newest["resource"]["url"], &newest["resource"]["method"]), (&json!(url), &json!(method)));
        let settled = till.until(text(newest, "/id"), "settled");
        let spent = till.spent();
        assert_eq!((spent.len(), spent.last().unwrap().value), (done + 1, price), "{spent:?}");
        assert_eq!(settled["transaction"], json!(spent.last().unwrap().transaction));
    }
    let refused = call("GET", &till.v2("/report"), &[]);
    assert!(
        text(&refused, "/error").contains("policy-denied") && text(&refused, "/error").contains("caps"),
        "{refused}"
    );
    let free = call("GET", &till.v2("/free"), &[]);
    assert_eq!(free["status"], 200, "{free}");
    assert_eq!(till.amounts(), [1_000, 1_000, 2_000]);
}

fn client(mut command: Command, name: &str) -> Command {
    command.arg(name);
    command
}

#[test]
fn x402_fetch_pays_without_a_key() {
    pays(|| client(node("pay.mjs"), "fetch"));
}

#[test]
fn x402_axios_pays_without_a_key() {
    pays(|| client(node("pay.mjs"), "axios"));
}

#[test]
fn x402_for_requests_pays_without_a_key() {
    pays(|| client(python(".tools", "pay.py"), "requests"));
}

#[test]
fn x402_for_httpx_pays_without_a_key() {
    pays(|| client(python(".tools", "pay.py"), "httpx"));
}

#[test]
fn an_adapter_has_at_most_thirty_lines() {
    for name in ["x402-fetch.mjs", "x402-axios.mjs", "x402_requests.py", "x402_httpx.py"] {
        let lines = std::fs::read_to_string(examples().join(name)).unwrap().lines().count();
        assert!(lines <= 30, "{name}: {lines}");
    }
}

/// The stub fetches, fetches again under the id that it was told, and asks for what is too dear.
fn buys(command: impl FnOnce() -> Command) {
    let till = Till::open();
    let mut command = command();
    command.args([till.v2("/cheap"), till.v2("/report")]);
    let said = said(&till, SCOUT_TOKEN, command);
    let wanted = ["body", "max_price", "method", "purchase_id", "purpose", "url", "wait_seconds"];
    assert_eq!(said["arguments"], json!(wanted), "what a model may say");
    let told = said["told"].as_array().unwrap();
    let [first, second, third] = told.as_slice() else { panic!("{said}") };
    for (one, replayed) in [(first, false), (second, true)] {
        assert_eq!((&one["status"], &one["payment"]["amount"]), (&json!(200), &json!("0.001 USD")), "{one}");
        assert_eq!(one["payment"]["replayed"], replayed, "{one}");
        let body: Value = serde_json::from_str(text(one, "/untrusted/body")).unwrap();
        assert_eq!(body["route"], "cheap");
        assert_eq!(one["purchase_id"], first["purchase_id"]);
    }
    assert_eq!(third["error"]["code"], "policy-denied", "{third}");
    assert_eq!(third["error"]["retry"], false);
    assert!(text(third, "/next").contains("will not help"), "{third}");

    till.until(text(first, "/payment/id"), "settled");
    assert_eq!(till.amounts(), [1_000], "one id is one payment");
    let denied = till.agent().payment(text(third, "/error/payment"));
    assert_eq!((&denied["state"], &denied["claims"]["purpose"]), (&json!("denied"), &json!("the other")));
    assert_eq!(denied["purchase"], third["purchase_id"]);
}

#[test]
fn langgraph_buys() {
    buys(|| client(python(".tools", "model.py"), "langchain"));
}

#[test]
fn llamaindex_buys() {
    buys(|| client(python(".tools", "model.py"), "llamaindex"));
}

#[test]
fn strands_buys() {
    buys(|| client(python(".tools", "model.py"), "strands"));
}

#[test]
fn openai_agents_buys() {
    buys(|| client(python(".tools", "model.py"), "openai"));
}

#[test]
fn crewai_buys() {
    buys(|| client(python("crewai/.tools", "model.py"), "crewai"));
}

#[test]
fn vercel_ai_buys() {
    buys(|| node("model.mjs"));
}

/// One call of the Python tool with these arguments.
fn tool(till: &Till<'_>, arguments: &Value) -> Value {
    let call =
        "import json, sys; from countersign_tool import paid_fetch; print(paid_fetch(**json.loads(sys.argv[1])))";
    let mut command = Command::new(folder().join(".tools/bin/python"));
    command.args(["-c", call, &arguments.to_string()]).env("PYTHONPATH", examples());
    said(till, SCOUT_TOKEN, command)
}

#[test]
fn the_tool_is_honest_about_people_and_accidents() {
    let review =
        countersign_tests::config::Policy::new("review", "builtin:review-threshold").setting("above", "0.000999");
    let mut till = Till::open_with(|config| config.policy(review));
    let url = till.v2("/cheap");
    let asked = tool(&till, &json!({"url": url}));
    assert_eq!((&asked["error"]["code"], &asked["error"]["retry"]), (&json!("approval-required"), &json!(true)));
    let (id, next) = (text(&asked, "/purchase_id"), text(&asked, "/next"));
    assert!(next.contains("person must decide") && next.contains(id), "{asked}");
    assert!(asked.get("status").is_none() && asked.get("payment").is_none(), "nothing was bought: {asked}");
    // Without the id it is still the purchase that waits, and the tool says which that is.
    let again = tool(&till, &json!({"url": url}));
    assert_eq!((&again["error"]["code"], &again["purchase_id"]), (&json!("payment-unknown"), &json!(id)), "{again}");
    assert!(text(&again, "/next").contains("not finished") && text(&again, "/next").contains(id), "{again}");

    let operator = till.gateway.operator();
    let approved = thread::scope(|scope| {
        let call = scope.spawn(|| tool(&till, &json!({"url": url, "purchase_id": id, "wait_seconds": 60})));
        let waiting = wait_for(Duration::from_secs(30), || items(&operator.get("/v1/approvals")).pop()).unwrap();
        let answer = operator.post(&format!("/v1/approvals/{}/approve", text(&waiting, "/id")), &json!({}));
        assert_eq!(answer.status, 200, "{}", answer.text());
        call.join().unwrap()
    });
    assert_eq!((&approved["status"], &approved["purchase_id"]), (&json!(200), &json!(id)), "{approved}");

    let body = json!({"url": till.v2("/no-such-route"), "method": "POST", "body": "plain"});
    let missing = tool(&till, &body);
    assert_eq!((&missing["status"], &missing["payment"]), (&json!(404), &Value::Null), "{missing}");
    let malformed = tool(&till, &json!({"url": "ftp://x"}));
    assert_eq!(malformed["error"]["code"], "bad-request");

    // A gateway that does not answer: the id was there before the call, so the call can be repeated.
    till.gateway.kill();
    let lost = tool(&till, &json!({"url": url}));
    assert_eq!(lost["error"]["code"], "outcome-unknown", "{lost}");
    assert!(text(&lost, "/next").contains(text(&lost, "/purchase_id")), "{lost}");
}
