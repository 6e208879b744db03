//! What was decided is decided again: replay, backtest, shadow and monitor, and the facts they rest on. Against the
//! real gateway, driven as an operator drives it.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test: whatever is not as expected must fail it loudly"
)]

use countersign_core::ledger::{Ledger, Past, PastDecision};
use countersign_ledger::SqliteLedger;
use countersign_ledger::text::{pack, unpack};
use countersign_tests::{
    agent::Client,
    config::{Config, Policy},
    guests,
    http::Response,
    process::Gateway,
    refusal::refusal,
    till::{bought, caps, items, text},
    wait_for,
    world::LocalWorld,
};
use serde_json::{Value, json};
use std::{fs, os::unix::fs::PermissionsExt, process::Output, time::Duration};

const SOON: Duration = Duration::from_secs(20);
const RIVAL_TOKEN: &str = "test-agent-token-of-rival-0123456789abcdef";
const VIEWER_TOKEN: &str = "test-operator-token-of-victor-0123456789";

/// An honest seller of quotes at 0.001 and reports at 2.50, and a gateway in front of it.
struct Lab {
    gateway: Gateway,
    world: LocalWorld,
}

impl Lab {
    fn new(policies: impl IntoIterator<Item = Policy>, change: impl FnOnce(Config) -> Config) -> Self {
        let world = LocalWorld::start();
        let config = world.config(&["honest"], policies).set(&["policy", "caps", "settings", "per-payment"], "5.00");
        let config = change(config.operator("victor", VIEWER_TOKEN, &["viewer"]).agent("rival", RIVAL_TOKEN));
        Self { gateway: Gateway::start(config), world }
    }

    fn plain() -> Self {
        Self::new([Policy::vendors(), caps("5.00")], |config| config)
    }

    fn ask(&self, agent: &Client, path: &str) -> Response {
        agent.fetch(&self.world.world().seller("honest").unwrap().url(path), json!({"purpose": "a test"}))
    }

    /// Buys quotes at 0.001; the ids of their payments.
    fn quotes(&self, names: &[&str]) -> Vec<String> {
        let quote = |name: &&str| bought(&self.ask(&self.gateway.agent(), &format!("/quote?for={name}")), "0.001");
        names.iter().map(quote).collect()
    }

    fn settled(&self, payment: &str) {
        let agent = self.gateway.agent();
        let found = wait_for(SOON, || (agent.payment(payment)["state"] == "settled").then_some(()));
        found.unwrap_or_else(|| panic!("not settled: {}", agent.payment(payment)));
    }

    /// Writes a file of this test's own beside the configuration.
    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.gateway.dir().join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn policy(&self, args: &[&str]) -> Output {
        self.gateway.command(&[&["policy"], args].concat())
    }

    /// What a command prints as JSON; it must end so.
    #[track_caller]
    fn json(&self, args: &[&str], code: i32) -> Value {
        let output = self.policy(&[args, &["--json"]].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}{}", String::from_utf8_lossy(&output.stdout));
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}: {said}"))
    }

    /// Every decision in the ledger, as recorded.
    fn decisions(&self) -> Vec<PastDecision> {
        let ledger = SqliteLedger::open_read_only(&self.gateway.dir().join("countersign.db")).unwrap();
        self.world.wait(ledger.past(Past::since(Default::default()), 1_000)).unwrap()
    }

    /// What a policy was told as a fact when it was last asked.
    fn fact(&self, name: &str) -> Option<String> {
        let last = self.decisions().pop().unwrap().record.request;
        last.facts.into_iter().find(|f| f.name == name).map(|f| f.value)
    }

    fn shadow(&self, policy: &str) -> Value {
        let answer = self.gateway.operator().get(&format!("/v1/policies/{policy}/shadow"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// The shadow's report once it has seen so many decisions.
    #[track_caller]
    fn shadow_of(&self, policy: &str, decisions: u64) -> Value {
        let found = wait_for(SOON, || Some(self.shadow(policy)).filter(|r| r["decisions"] == decisions));
        found.unwrap_or_else(|| panic!("not {decisions}: {:#}", self.shadow(policy)))
    }

    /// Held and spent, by budget.
    fn budgets(&self) -> Vec<(String, String, String)> {
        let rows = items(&self.gateway.operator().get("/v1/budgets"));
        let of = |row: &Value, key: &str| text(row, key).to_owned();
        rows.iter().map(|row| (of(row, "/budget"), of(row, "/held"), of(row, "/spent"))).collect()
    }

    fn say(&self, client: &Client, payment: &str, used: &str) -> Response {
        client.post(&format!("/v1/payments/{payment}/use"), &json!({"used": used}))
    }

    /// Changes the store behind everybody's back.
    fn tamper(&mut self, sql: &str) {
        self.gateway.kill();
        let db = rusqlite::Connection::open(self.gateway.dir().join("countersign.db")).unwrap();
        db.execute_batch(sql).unwrap();
    }

    /// Changes a text of the first decision behind everybody's back.
    fn forge(&mut self, column: &str, from: &str, to: &str) {
        self.gateway.kill();
        let db = rusqlite::Connection::open(self.gateway.dir().join("countersign.db")).unwrap();
        let first = "(SELECT id FROM decision ORDER BY seq,ord LIMIT 1)";
        let read = format!("SELECT {column} FROM decision WHERE id={first}");
        let stored: Vec<u8> = db.query_row(&read, [], |r| r.get(0)).unwrap();
        let forged = pack(&unpack(&stored).unwrap().replace(from, to));
        db.execute(&format!("UPDATE decision SET {column}=?1 WHERE id={first}"), [forged]).unwrap();
    }
}

fn review() -> Policy {
    Policy::new("review", "builtin:review-threshold").setting("above", "1.00")
}

// ---- Replay

#[test]
fn recorded_decisions_are_replayed_bit_for_bit_beside_a_running_gateway() {
    let lab = Lab::new(
        [Policy::vendors().key(&["claims"], true), caps("5.00"), review().key(&["mode"], "monitor")],
        |config| config,
    );
    let payments = lab.quotes(&["a", "b", "c"]);
    bought(&lab.ask(&lab.gateway.agent(), "/report"), "2.5");
    refusal(&lab.ask(&lab.gateway.agent(), "/report?n=2"), 403, "budget-exceeded"); // 2.5 + 0.003 of 5.00 are left over
    let found = lab.json(&["replay", "--since", "1h"], 0);
    assert_eq!((&found["decisions"], &found["matched"], &found["mismatched"]), (&json!(5), &json!(15), &json!(0)));
    assert_eq!(found["not_replayable"], json!({}), "{found:#}");
    let one = lab.json(&["replay", &payments[1]], 0);
    assert_eq!((&one["decisions"], &one["matched"]), (&json!(1), &json!(3)));
    let decision = lab.decisions()[0].record.clone();
    assert_eq!(lab.json(&["replay", &decision.id.to_string()], 0)["matched"], 3);
    // Which policies saw claims is in the record: without it, the first could not be asked the same.
    let shown: Vec<bool> = decision.judgement.opinions.iter().map(|o| o.claims).collect();
    assert_eq!((shown, decision.request.claims.is_empty()), (vec![true, false, false], false));
    assert_eq!(lab.policy(&["replay", "pay_00000000000000000000000000000000"]).status.code(), Some(1));
    assert_eq!(lab.policy(&["replay"]).status.code(), Some(2), "neither an id nor --since is usage");
}

#[test]
fn a_tampered_record_or_a_changed_module_is_found() {
    let mut lab = Lab::plain();
    lab.quotes(&["a", "b"]);
    assert_eq!(lab.json(&["replay", "--since", "1h"], 0)["matched"], 4);

    // What was asked: the answer may be the same, the record is not.
    let agents = r#""agent":"scout""#;
    lab.forge("request", agents, r#""agent":"snout""#);
    let found = lab.json(&["replay", "--since", "1h"], 1);
    assert_eq!(found["mismatched"], 1, "{found:#}");
    assert!(found["mismatches"].to_string().contains("its request is not the one that was recorded"), "{found:#}");
    lab.forge("request", r#""agent":"snout""#, agents);
    assert_eq!(lab.json(&["replay", "--since", "1h"], 0)["mismatched"], 0);

    // What was answered.
    lab.forge("judgement", r#""fuel":"#, r#""fuel":1"#);
    let found = lab.json(&["replay", "--since", "1h"], 1);
    let differs: Vec<&Value> =
        found["mismatches"].as_array().unwrap().iter().flat_map(|m| m["differs"].as_array().unwrap()).collect();
    assert!(differs.iter().any(|d| d["at"] == "/fuel" && d["recorded"] != d["replayed"]), "{found:#}");
    lab.forge("judgement", r#""fuel":1"#, r#""fuel":"#);

    // What judged.
    let digest = lab.decisions()[0].record.judgement.opinions[0].module_sha256.clone();
    lab.tamper(&format!("UPDATE blob SET bytes=CAST(bytes||x'00' AS BLOB) WHERE digest=x'{digest}'"));
    let found = lab.json(&["replay", "--since", "1h"], 1);
    assert_eq!(found["mismatches"][0]["differs"][0]["at"], "/module_sha256", "{found:#}");
    assert_eq!(found["matched"], 2, "the other policy's is whole");
    lab.tamper(&format!("DELETE FROM blob WHERE digest=x'{digest}'"));
    let found = lab.json(&["replay", "--since", "1h"], 0);
    assert_eq!(found["not_replayable"]["module-missing"]["count"], 2, "{found:#}");
}

#[test]
fn what_cannot_be_replayed_is_named_and_is_no_mismatch() {
    let modules = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o700)).tempdir().unwrap();
    let file = modules.path().join("broken.wasm");
    fs::write(&file, b"no module").unwrap();
    let broken = Policy::new("broken", file.to_str().unwrap());
    let lab = Lab::new([Policy::vendors(), caps("5.00"), broken], |config| config);
    refusal(&lab.ask(&lab.gateway.agent(), "/quote"), 403, "policy-denied");
    let found = lab.json(&["replay", "--since", "1h"], 0);
    assert_eq!((&found["matched"], &found["not_replayable"]["policy-unavailable"]["count"]), (&json!(2), &json!(1)));
    let decision = lab.decisions()[0].record.id.to_string();
    assert_eq!(found["not_replayable"]["policy-unavailable"]["decisions"], json!([decision]));
}

// ---- Backtest

#[test]
fn a_candidate_that_would_deny_is_reported_with_the_money_and_the_useful_purchases() {
    let lab = Lab::plain();
    let quotes = lab.quotes(&["a", "b", "c"]);
    let report = bought(&lab.ask(&lab.gateway.agent(), "/report"), "2.5");
    let strict =
        lab.write("strict.json", r#"{"per-payment": "1.00", "per-agent-hour": "5.00", "per-agent-day": "20.00"}"#);
    let args = ["backtest", "builtin:spend-caps", "--since", "1h", "--settings", &strict];
    let found = lab.json(&args, 0);
    assert_eq!((&found["decisions"], &found["disagreements"], &found["amount"]), (&json!(4), &json!(1), &json!("2.5")));
    let flip = &found["flips"][0];
    assert_eq!((&flip["from"], &flip["to"], &flip["count"]), (&json!("allow"), &json!("deny"), &json!(1)));
    assert_eq!(flip["codes"], json!([{"code": "above-per-payment", "count": 1, "amount": "2.5"}]));
    assert_eq!(found["by_agent"], json!([{"name": "scout", "count": 1, "amount": "2.5"}]));
    assert_eq!(found["useful_lost"]["count"], 0);

    // What was useful is what would be missed.
    assert_eq!(lab.say(&lab.gateway.agent(), &report, "cited").status, 200);
    assert_eq!(lab.say(&lab.gateway.agent(), &quotes[0], "cited").status, 200);
    let lost = lab.json(&args, 0)["useful_lost"].clone();
    assert_eq!(
        (&lost["count"], &lost["amount"], &lost["items"][0]["payment"]),
        (&json!(1), &json!("2.5"), &json!(report))
    );
    let table = String::from_utf8(lab.policy(&args).stdout).unwrap();
    for shown in ["allow", "deny", "above-per-payment", "2.5", &report] {
        assert!(table.contains(shown), "{shown} is not in {table}");
    }
    // People have the last word on that.
    assert_eq!(lab.say(&lab.gateway.operator(), &report, "unused").status, 200);
    assert_eq!(lab.json(&args, 0)["useful_lost"]["count"], 0);

    // The policy that judged, in its own place: nothing flips.
    let same = lab.json(&["backtest", "builtin:spend-caps", "--since", "1h"], 0);
    assert_eq!((&same["decisions"], &same["disagreements"]), (&json!(4), &json!(0)), "{same:#}");
}

#[test]
fn a_backtest_counts_budgets_of_its_own() {
    let lab = Lab::plain();
    lab.quotes(&["a", "b", "c", "d", "e"]).iter().for_each(|payment| lab.settled(payment));
    let before = lab.budgets();
    let tight =
        lab.write("tight.json", r#"{"per-payment": "1.00", "per-agent-hour": "0.003", "per-agent-day": "20.00"}"#);
    let args = ["backtest", "builtin:spend-caps", "--policy", "caps", "--since", "1h", "--settings", &tight];
    let found = lab.json(&args, 0);
    assert_eq!((&found["would_refuse"], &found["amount"]), (&json!(2), &json!("0.002")), "{found:#}");
    assert_eq!(found["flips"][0]["codes"][0]["code"], "budget-exceeded");
    assert_eq!(lab.budgets(), before, "a backtest held something");

    // As one file, with everything in it.
    let config = lab.gateway.config().set(&["policy", "caps", "settings", "per-agent-hour"], "0.004");
    let file = lab.write("candidate.toml", config.to_toml());
    let found = lab.json(&["backtest", &file, "--since", "1h"], 0);
    assert_eq!((&found["would_refuse"], &found["disagreements"]), (&json!(1), &json!(1)), "{found:#}");
}

#[test]
fn a_backtest_finds_what_would_be_allowed_and_what_would_be_asked() {
    let lab = Lab::new([Policy::vendors(), caps("5.00").setting("per-payment", "1.00")], |config| {
        config.set(&["policy", "caps", "settings", "per-payment"], "1.00")
    });
    lab.quotes(&["a"]);
    refusal(&lab.ask(&lab.gateway.agent(), "/report"), 403, "policy-denied");
    let wide = lab.write("wide.json", r#"{"per-payment": "3.00", "per-agent-hour": "5.00", "per-agent-day": "20.00"}"#);
    let found = lab.json(&["backtest", "builtin:spend-caps", "--settings", &wide], 0);
    assert_eq!((&found["flips"][0]["from"], &found["flips"][0]["to"]), (&json!("deny"), &json!("allow")), "{found:#}");
    assert_eq!(found["amount"], "2.5");
    let asks = lab.write("asks.json", r#"{"above": "0.0005"}"#);
    let args = ["backtest", "builtin:review-threshold", "--policy", "caps", "--settings", &asks];
    let found = lab.json(&args, 0);
    let kinds: Vec<String> =
        found["flips"].as_array().unwrap().iter().map(|f| format!("{}>{}", f["from"], f["to"])).collect();
    assert_eq!(kinds, [r#""deny">"review""#, r#""allow">"review""#], "{found:#}");
}

#[test]
fn rule_25_a_candidates_words_do_not_leave_a_backtest_or_a_shadow() {
    const WORDS: &str = "The client is ACME, and it buys: quotes";
    let lab = Lab::plain();
    lab.quotes(&["a"]);
    let module = lab.write("talkative.wasm", guests::talkative(WORDS));
    let empty = lab.write("empty.json", "{}");
    let args = ["backtest", &module, "--policy", "caps", "--settings", &empty, "--since", "1h"];
    let found = lab.json(&args, 0);
    assert_eq!((&found["disagreements"], &found["flips"][0]["codes"][0]["code"]), (&json!(1), &json!("said-too-much")));
    let table = lab.policy(&args);
    let start = lab.policy(&["shadow", "caps", "--module", &module, "--settings", &empty]);
    assert!(start.status.success(), "{start:?}");
    lab.quotes(&["b"]);
    let shadow = lab.shadow_of("caps", 1);
    assert_eq!(shadow["disagreements"], 1, "{shadow:#}");
    for said in [found.to_string(), format!("{table:?}"), shadow.to_string(), lab.gateway.log()] {
        assert!(!said.contains("ACME") && !said.contains("buys"), "{said}");
    }
}

// ---- Shadow and monitor

#[test]
fn a_shadow_sees_disagreements_and_never_holds_or_denies() {
    let lab = Lab::plain();
    lab.quotes(&["before"]);
    let tight =
        lab.write("tight.json", r#"{"per-payment": "5.00", "per-agent-hour": "0.002", "per-agent-day": "20.00"}"#);
    let start = lab.policy(&["shadow", "caps", "--module", "builtin:spend-caps", "--settings", &tight]);
    assert!(start.status.success(), "{start:?}");
    let started: Value = serde_json::from_slice(&start.stdout).unwrap();
    assert_eq!(
        (&started["policy"], &started["decisions"], &started["by"]),
        (&json!("caps"), &json!(0), &json!("alice"))
    );

    // Three fit into the real hour, two into the shadow's.
    lab.quotes(&["a", "b", "c"]);
    let report = lab.shadow_of("caps", 3);
    assert_eq!(
        (&report["disagreements"], &report["would_refuse"], &report["amount"]),
        (&json!(1), &json!(1), &json!("0.001"))
    );
    assert_eq!(report["flips"][0]["codes"][0]["code"], "budget-exceeded", "{report:#}");
    let last = &report["last"][0];
    assert_eq!(
        (&last["from"], &last["to"], &last["codes"]),
        (&json!("allow"), &json!("deny"), &json!(["budget-exceeded"]))
    );
    // Nothing real has noticed.
    let held: Vec<_> = lab.budgets().into_iter().filter(|(name, ..)| name.starts_with("caps/")).collect();
    assert!(
        !held.is_empty()
            && held.iter().all(|(_, held, spent)| {
                let number = |text: &str| text.parse::<f64>().unwrap_or(0.0);
                (number(held) + number(spent) - 0.004).abs() < 1e-9
            }),
        "{held:?}"
    );
    for decision in lab.decisions() {
        assert_eq!(decision.record.judgement.opinions.len(), 2, "a shadow is in no record");
    }

    let shown = lab.policy(&["shadow", "caps"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("budget-exceeded"), "{shown:?}");
    assert!(lab.policy(&["shadow", "caps", "--drop"]).status.success());
    assert_eq!(lab.gateway.operator().get("/v1/policies/caps/shadow").status, 404);
    assert_eq!(lab.policy(&["shadow", "caps", "--drop"]).status.code(), Some(1));
}

#[test]
fn a_shadow_that_cannot_be_loaded_or_may_not_be_started_does_not_start() {
    let lab = Lab::plain();
    let post = |client: &Client, name: &str, body: &Value| client.post(&format!("/v1/policies/{name}/shadow"), body);
    let (alice, victor) = (lab.gateway.operator(), Client::new(&lab.gateway.admin_url, VIEWER_TOKEN));
    let good = json!({"module": "builtin:spend-caps"});
    assert_eq!(post(&victor, "caps", &good).status, 403);
    assert_eq!(post(&alice, "nobody", &good).status, 404);
    for bad in [json!({"module_base64": "AGFzbQ=="}), json!({"module": "builtin:none"}), json!({}), json!({"modul": 1})]
    {
        refusal(&post(&alice, "caps", &bad), 400, "bad-request");
    }
    let settings = json!({"module": "builtin:spend-caps", "settings": {"per-paymnt": "1.00"}});
    let body = refusal(&post(&alice, "caps", &settings), 400, "bad-request");
    assert_eq!(body["stage"], "settings", "{body}");
    assert_eq!(alice.get("/v1/policies/caps/shadow").status, 404);
    assert_eq!(post(&alice, "caps", &good).status, 201);
    assert_eq!(victor.delete("/v1/policies/caps/shadow").status, 403);
}

#[test]
fn a_policy_cannot_tell_in_which_mode_it_runs() {
    let modules = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o700)).tempdir().unwrap();
    let file = modules.path().join("echo.wasm");
    fs::write(&file, guests::echo()).unwrap();
    let echo = |name: &str| Policy::new(name, file.to_str().unwrap());
    let policies = [echo("first"), echo("second").key(&["mode"], "monitor").setting("deny", true)];
    let lab = Lab::new([Policy::vendors(), caps("5.00")].into_iter().chain(policies), |config| config);
    let deny = lab.write("deny.json", r#"{"deny": true}"#);
    let start = lab.policy(&["shadow", "first", "--module", file.to_str().unwrap(), "--settings", &deny]);
    assert!(start.status.success(), "{start:?}");
    lab.quotes(&["a", "b"]);
    let report = lab.shadow_of("first", 2);
    let listed = lab.gateway.operator().get("/v1/policies").json();
    let monitored = &listed["policies"].as_array().unwrap().iter().find(|p| p["name"] == "second").unwrap()["monitor"];
    assert_eq!((&monitored["decisions"], &monitored["disagreements"]), (&json!(2), &json!(2)), "{monitored:#}");
    let code = |told: &Value, decision: &str| {
        let last = told["last"].as_array().unwrap();
        text(last.iter().find(|l| l["decision"] == decision).unwrap(), "/codes/0").to_owned()
    };
    let mut digests = Vec::new();
    for decision in lab.decisions() {
        let record = decision.record;
        let said = |policy: &str| {
            let opinion = record.judgement.opinions.iter().find(|o| o.policy == policy).unwrap();
            opinion.outcome.as_ref().unwrap().reasons[0].code.clone()
        };
        let (id, enforced) = (record.id.to_string(), said("first"));
        assert_eq!(said("second"), enforced, "monitor");
        assert_eq!(code(monitored, &id), enforced, "monitor, as reported");
        assert_eq!(code(&report, &id), enforced, "shadow");
        digests.push(enforced);
    }
    assert_ne!(digests[0], digests[1], "the digest is of the question");
    assert_eq!(lab.json(&["replay", "--since", "1h"], 0)["matched"], 8, "and replay");
}

#[test]
fn a_monitors_budgets_are_its_own_and_what_it_would_refuse_is_counted() {
    let tight = Policy::new("tight", "builtin:spend-caps")
        .setting("per-payment", "5.00")
        .setting("per-agent-hour", "0.002")
        .setting("per-agent-day", "20.00")
        .key(&["mode"], "monitor");
    let lab = Lab::new([Policy::vendors(), caps("5.00"), tight], |config| config);
    lab.quotes(&["a", "b", "c"]);
    let found = wait_for(SOON, || {
        let listed = lab.gateway.operator().get("/v1/policies").json();
        let tight = listed["policies"].as_array().unwrap().iter().find(|p| p["name"] == "tight").unwrap().clone();
        Some(tight["monitor"].clone()).filter(|m| m["decisions"] == 3)
    });
    let monitor = found.unwrap();
    assert_eq!((&monitor["disagreements"], &monitor["would_refuse"]), (&json!(1), &json!(1)), "{monitor:#}");
    assert!(lab.budgets().iter().all(|(name, ..)| !name.starts_with("tight/")), "{:?}", lab.budgets());
    let listed = lab.gateway.operator().get("/v1/policies").json();
    let others = listed["policies"].as_array().unwrap().iter().filter(|p| p["mode"] == "enforce");
    assert!(others.clone().count() == 2 && others.clone().all(|p| p.get("monitor").is_none()));
}

// ---- Use reports

#[test]
fn the_use_of_a_purchase_is_reported_by_its_agent_and_by_approvers() {
    let lab = Lab::plain();
    let (scout, alice) = (lab.gateway.agent(), lab.gateway.operator());
    let [payment, other] = lab.quotes(&["a", "b"]).try_into().unwrap();
    assert_eq!(scout.payment(&payment)["use"], Value::Null);
    let path = format!("/v1/payments/{payment}/use");
    let said = json!({"used": "cited", "note": "n".repeat(1_000), "artifact": "brief-42"});
    let answer = scout.post(&path, &said);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = answer.json()["use"].clone();
    assert_eq!(
        (&seen["used"], &seen["reporter"], &seen["artifact"]),
        (&json!("cited"), &json!("agent"), &json!("brief-42"))
    );
    assert!(text(&seen, "/note").len() < 400, "foreign text is cut");
    assert_eq!(scout.post(&path, &json!({"used": "wrong"})).json()["use"]["used"], "wrong", "the last word counts");

    let person = alice.post(&path, &json!({"used": "partly", "note": "seen it"})).json()["use"].clone();
    assert_eq!(
        (&person["used"], &person["by"], &person["reports"][1]["used"]),
        (&json!("partly"), &json!("alice"), &json!("wrong"))
    );
    let agents = scout.payment(&payment)["use"].clone();
    assert_eq!((&agents["used"], agents.get("by"), agents.get("note")), (&json!("partly"), None, None), "{agents}");
    let shown = lab.gateway.command(&["payments", "show", &payment]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("seen it"), "{shown:?}");

    let victor = Client::new(&lab.gateway.admin_url, VIEWER_TOKEN);
    assert_eq!(lab.say(&victor, &payment, "used").status, 403, "looking is not judging");
    refusal(&lab.say(&scout, &other, "splendid"), 400, "bad-request");
    refusal(&scout.post(&format!("/v1/payments/{other}/use"), &json!({"used": "used", "x": 1})), 400, "bad-request");
}

#[test]
fn rule_02_only_ones_own_purchases_are_judged() {
    let lab = Lab::plain();
    let payment = lab.quotes(&["a"]).remove(0);
    let rival = lab.gateway.agent_with(RIVAL_TOKEN);
    let unknown = lab.say(&rival, "pay_00000000000000000000000000000000", "used");
    let foreign = lab.say(&rival, &payment, "used");
    assert_eq!((foreign.status, &foreign.body), (404, &unknown.body));
    let wish = json!({"agent": "scout", "limit": "1.00"});
    let opened = lab.gateway.operator().post("/v1/sessions", &wish).json();
    let session = lab.gateway.agent_with(text(&opened, "/token"));
    assert_eq!(lab.say(&session, &payment, "used").status, 404, "a session judges its own");
    let own = bought(&lab.ask(&session, "/quote?for=session"), "0.001");
    assert_eq!(lab.say(&session, &own, "used").status, 200);
    assert_eq!(lab.gateway.agent().payment(&payment)["use"], Value::Null);
    // What was refused was not bought.
    lab.quotes(&["b"]);
    bought(&lab.ask(&lab.gateway.agent(), "/report"), "2.5");
    let denied = refusal(&lab.ask(&lab.gateway.agent(), "/report?2"), 403, "budget-exceeded");
    refusal(&lab.say(&lab.gateway.agent(), text(&denied, "/payment"), "used"), 409, "conflict");
}

// ---- What policies are told

#[test]
fn rule_15_category_and_data_class_come_from_the_operator() {
    let mut lab = Lab::new([Policy::vendors(), caps("5.00")], |config| {
        config
            .set(&["vendor", "a-other", "hosts"], vec!["other.example"])
            .set(&["vendor", "a-other", "facts", "category"], "nonsense")
            .set(&["vendor", "local", "hosts"], vec!["127.0.0.1:*"])
            .set(&["vendor", "local", "facts", "category"], "market-data")
            .set(&["vendor", "local", "facts", "data-class"], "public")
    });
    lab.quotes(&["a"]);
    assert_eq!(
        (lab.fact("category").as_deref(), lab.fact("data-class").as_deref()),
        (Some("market-data"), Some("public"))
    );
    assert_eq!(lab.fact("mandate").as_deref(), Some("all"));
    // It changes without a restart.
    let client = lab.gateway.operator();
    let generation = || client.get("/v1/policies").json()["generation"].as_u64().unwrap();
    let before = generation();
    let config = lab.gateway.config().set(&["vendor", "local", "facts", "category"], "news");
    lab.gateway.write_config(config);
    wait_for(SOON, || (generation() > before).then_some(())).unwrap();
    lab.quotes(&["b"]);
    assert_eq!(lab.fact("category").as_deref(), Some("news"));
}

#[test]
fn rule_15_policies_are_told_what_a_person_approved_and_who_judged() {
    let lab = Lab::new([Policy::vendors(), caps("5.00"), review()], |config| config);
    let url = lab.world.world().seller("honest").unwrap().url("/report");
    let order = json!({"purchase_id": "report"});
    let body = refusal(&lab.gateway.agent().fetch(&url, order.clone()), 202, "approval-required");
    assert_eq!(lab.fact("approved-value"), None);
    let approve = format!("/v1/approvals/{}/approve", text(&body, "/approval/id"));
    assert_eq!(lab.gateway.operator().post(&approve, &json!({})).status, 200);
    let payment = bought(&lab.gateway.agent().fetch(&url, order), "2.5");
    assert_eq!(lab.fact("approved-value").as_deref(), Some("2500000"));
    let payee = lab.gateway.agent().payment(&payment);
    assert_eq!(lab.fact("approved-pay-to").as_deref(), Some(text(&payee, "/seller/pay_to")));
    // Both decisions of it are replayed: the one that asked, and the one that carried on.
    assert_eq!(lab.json(&["replay", &payment], 0)["decisions"], 2);
    let same = lab.json(&["backtest", "builtin:review-threshold", "--since", "1h"], 0);
    assert_eq!(same["disagreements"], 0, "{same:#}");

    lab.settled(&payment);
    assert_eq!(lab.say(&lab.gateway.agent(), &payment, "cited").status, 200);
    lab.quotes(&["a"]);
    assert_eq!((lab.fact("agent-judged").as_deref(), lab.fact("agent-useful").as_deref()), (Some("1"), Some("1")));
    let told = |lab: &Lab| lab.decisions().pop().unwrap().record.request.seller;
    assert_eq!((told(&lab).judged, told(&lab).useful), (0, 0), "an agent's praise is no person's");
    assert_eq!(lab.say(&lab.gateway.operator(), &payment, "unused").status, 200);
    lab.quotes(&["b"]);
    assert_eq!((told(&lab).judged, told(&lab).useful), (1, 0));
}
