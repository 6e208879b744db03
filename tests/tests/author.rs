//! The author's bench, as an author uses it: a policy is started, built, checked, tested and measured with the real
//! binary, and its mistakes are found.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test: whatever is not as expected must fail it loudly"
)]

use countersign::builtin;
use countersign_engine::{Engine, EngineConfig, PolicySpec, cases::Cases};
use countersign_sdk::testing::try_cases;
use countersign_tests::process::binary;
use serde_json::{Value, json};
use spend_caps::SpendCaps;
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tempfile::TempDir;

/// A folder in which commands are run.
struct Desk(TempDir);

/// How a command ended and what it said.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `countersign policy …`.
    fn policy(&self, args: &[&str]) -> Said {
        let mut command = Command::new(binary());
        command.current_dir(self.0.path()).arg("policy").args(args).stdin(Stdio::null());
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// The same, which must end well.
    fn good(&self, args: &[&str]) -> String {
        let said = self.policy(args);
        assert_eq!(said.code, Some(0), "{args:?}: {}{}", said.out, said.err);
        said.out
    }

    /// The same, which must fail.
    fn bad(&self, args: &[&str]) -> Said {
        let said = self.policy(args);
        assert_eq!(said.code, Some(1), "{args:?}: {}{}", said.out, said.err);
        assert!(said.err.starts_with("error: ") || said.err.contains("\nerror: "), "{args:?}: {}", said.err);
        said
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.good(args)).unwrap()
    }

    /// A document written to a file.
    fn put(&self, name: &str, document: &Value) {
        fs::write(self.path(name), document.to_string()).unwrap();
    }

    fn edit(&self, name: &str, change: impl FnOnce(String) -> String) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        fs::write(self.path(name), change(text)).unwrap();
    }
}

/// Keeps the target folder from run to run, so that only the policy and its SDK are compiled again.
fn frugal(project: &Path) {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("author");
    fs::create_dir_all(&target).unwrap();
    symlink(target, project.join("target")).unwrap();
}

/// The commands of the handbook's first five minutes.
fn handbook() -> Vec<Vec<String>> {
    let text = include_str!("../../docs/policies.md");
    let (_, block) = text.split_once("```sh author\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let words = |line: &str| line.strip_prefix("countersign policy ").unwrap().split(' ').map(str::to_owned).collect();
    block.lines().map(words).collect()
}

#[test]
fn a_first_policy_and_its_mistakes() {
    let desk = Desk::new();
    let mut lines = handbook().into_iter();
    let mut next = |verb: &str| {
        let line = lines.next().unwrap();
        assert_eq!(line[0], verb);
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        desk.good(&line)
    };
    let said = next("new");
    for next in ["policy build client-day", "policy check client-day", "policy test client-day"] {
        assert!(said.contains(next), "{said}");
    }
    let contract = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("wit/v0.1/policy.wit");
    assert_eq!(fs::read(desk.path("client-day/wit/policy.wit")).unwrap(), fs::read(contract).unwrap());
    let unbuilt = desk.bad(&["test", "client-day"]);
    assert!(unbuilt.err.contains("countersign policy build client-day"), "{}", unbuilt.err);

    frugal(&desk.path("client-day"));
    assert!(next("build").starts_with("client-day/policy.wasm: "));
    assert!(next("check").ends_with("ok, with the settings {\"per-client-day\":\"5.00\"}\n"));
    let checked = desk.json(&["check", "client-day", "--json"]);
    assert_eq!((&checked["ok"], &checked["findings"]), (&json!(true), &json!([])), "{checked}");
    assert_eq!(checked["settings"], json!({ "per-client-day": "5.00" }), "those of the cases");
    let tested = next("test");
    assert!(tested.contains("7 passed; 0 failed") && tested.contains("zero-value"), "{tested}");
    let said = next("bench");
    assert!(said.contains("us p99") && said.contains("KiB at most"), "{said}");
    let measured = desk.json(&["bench", "client-day", "--seconds", "0.1", "--json"]);
    assert!(measured["served"]["p50_us"].as_f64().unwrap() > 0.0, "{measured}");
    assert!(measured["served"]["decisions"].as_u64().unwrap() >= 50, "{measured}");
    let fuel = measured["fuel"].as_u64().unwrap();
    assert!(fuel > 100 && fuel < measured["fuel_limit"].as_u64().unwrap(), "{measured}");
    let memory = measured["memory_bytes"].as_u64().unwrap();
    assert!(memory >= 64 << 10 && memory < measured["memory_limit_bytes"].as_u64().unwrap(), "{measured}");
    assert_eq!(desk.json(&["inspect", "client-day", "--json"])["name"], json!("client-day"));

    wrong_expectations(&desk);
    wrong_code(&desk);
}

/// Cases that expect something else fail, and say what.
fn wrong_expectations(desk: &Desk) {
    let nobody = json!({ "name": "nobody is welcome", "expect": { "verdict": "allow" } });
    let dear = json!({
        "name": "never allows above 2.00",
        "vary": { "payment.value": { "to": 9_000_000 }, "principal.client": ["acme", "globex"], "principal.agent": ["a", "b"] },
        "when": { "payment.value": { "from": 2_000_001 } },
        "never": { "verdict": "allow" },
    });
    desk.put(
        "wrong.json",
        &json!({
            "settings": { "per-client-day": "5.00" }, "codes": ["no-client", "never-given"],
            "cases": [nobody], "properties": [dear],
        }),
    );
    let failed = desk.bad(&["test", "client-day", "--cases", "wrong.json"]);
    for part in
        ["test nobody is welcome ... FAILED", r#"- expected "allow""#, r#"+ got      "deny""#, "test result: FAILED"]
    {
        assert!(failed.out.contains(part), "no {part}: {}", failed.out);
    }
    let smallest = r#"smallest request that breaks it  {"payment":{"value":2000001},"principal":{"client":"acme"}}"#;
    assert!(failed.out.contains(smallest), "{}", failed.out);
    assert!(failed.err.contains("2 of 2 cases failed; no case gives never-given"), "{}", failed.err);
    let failed = desk.bad(&["test", "client-day", "--cases", "wrong.json", "--json"]);
    let report: Value = serde_json::from_str(&failed.out).unwrap();
    assert_eq!((&report["ok"], &report["missing"]), (&json!(false), &json!(["never-given"])));
    assert_eq!(
        report["outcomes"][0]["failure"]["differences"][0],
        json!({"part": "verdict", "expected": "allow", "got": "deny"})
    );

    // A gateway's own settings stand in for those that a case does not name.
    desk.put("six.json", &json!({ "per-client-day": "6.00" }));
    desk.put("held.json", &json!({ "cases": [{
        "name": "six", "request": { "principal": { "client": "acme" } },
        "expect": { "verdict": "allow", "holds": [
            { "budget": "client/acme", "unit": "micros", "window": { "day": "UTC" }, "limit": 6_000_000, "amount": 50_000 }] },
    }] }));
    desk.good(&["test", "client-day", "--cases", "held.json", "--settings", "six.json"]);
    desk.bad(&["test", "client-day", "--cases", "held.json"]);
    desk.put("typo.json", &json!({ "cases": [{ "name": "one", "expects": {} }] }));
    let typo = desk.bad(&["test", "client-day", "--cases", "typo.json"]);
    assert!(typo.err.contains("typo.json: case `one`: unknown field `expects`"), "{}", typo.err);
    desk.put("bad.json", &json!({ "per-client-dya": "6.00" }));
    let refused = desk.bad(&["check", "client-day", "--settings", "bad.json"]);
    assert!(refused.out.contains("error [settings]") && refused.out.contains("/per-client-dya"), "{}", refused.out);
}

/// A policy that hangs on the order of a hash map, or trusts a list not to be empty, is caught.
fn wrong_code(desk: &Desk) {
    desk.edit("client-day/src/lib.rs", |code| {
        let broken = r#"
        match self.limit.micros() {
            6_000_000 => {
                let order: std::collections::HashMap<u32, ()> = (0..20).map(|n| (n, ())).collect();
                let order: Vec<String> = order.into_keys().map(|n| n.to_string()).collect();
                return Ok(Decision::allow().note("order", order.join(" ")));
            }
            7_000_000 => drop(request.principal.roles[0].clone()),
            8_000_000 => return Err("no idea".to_owned()),
            _ => {}
        }
        let budget ="#;
        assert_eq!(code.matches("let budget =").count(), 1);
        code.replace("let budget =", broken)
    });
    assert_eq!(desk.json(&["build", "client-day", "--json"])["module"], json!("client-day/policy.wasm"));
    desk.good(&["check", "client-day"]);
    let finding = |limit: &str| {
        desk.put("broken.json", &json!({ "per-client-day": limit }));
        let said = desk.bad(&["check", "client-day", "--settings", "broken.json", "--json"]);
        let report: Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!(report["ok"], json!(false));
        let findings = report["findings"].as_array().unwrap().clone();
        assert_eq!(findings.len(), 1, "told once: {findings:?}");
        findings[0].clone()
    };
    assert_eq!(finding("6.00")["code"], json!("not-deterministic"));
    let trap = finding("7.00");
    assert_eq!(trap["code"], json!("policy-trap"));
    assert!(trap["at"].as_str().unwrap().starts_with("principal.roles empty: "), "{trap}");
    assert_eq!(finding("8.00")["code"], json!("policy-error"));
}

#[test]
fn every_builtin_passes_its_cases_and_the_self_test() {
    let desk = Desk::new();
    for name in builtin::names() {
        let builtin = format!("builtin:{name}");
        let tested = desk.json(&["test", &builtin, "--json"]);
        assert!(tested["outcomes"].as_array().unwrap().len() > 3, "{tested}");
        let checked = desk.json(&["check", &builtin, "--json"]);
        assert_eq!(checked["ok"], json!(true), "{checked}");
        assert!(!checked["settings"].is_null(), "{checked}");
    }
}

#[test]
fn what_cannot_be_done_is_said_with_what_to_do() {
    let desk = Desk::new();
    let check = |args: &[&str], says: &[&str]| {
        let said = desk.bad(args);
        says.iter().for_each(|part| assert!(said.err.contains(part), "{args:?}: {}", said.err));
    };
    check(&["new", "Foo", "--lang", "rust"], &["`Foo` is no name", "client-day"]);
    check(&["new", "foo", "--lang", "cobol"], &["no template for `cobol`", "there are", "rust"]);
    assert!(!desk.path("foo").exists());
    fs::create_dir(desk.path("taken")).unwrap();
    fs::write(desk.path("taken/mine"), "x").unwrap();
    check(&["new", "taken", "--lang", "rust"], &["nothing is overwritten"]);
    assert_eq!(fs::read_dir(desk.path("taken")).unwrap().count(), 1);
    check(&["build", "taken"], &["neither template.json nor Cargo.toml", "policy new"]);
    check(&["check", "builtin:nothing"], &["no builtin `nothing`", "spend-caps"]);
    fs::write(desk.path("a.wasm"), b"\0asm\x01\0\0\0").unwrap();
    check(&["test", "a.wasm"], &["no cases for a", "--cases FILE", "a.cases.json"]);
    fs::write(desk.path("a.cases.json"), r#"{"cases":[{"name":"a","expect":{"verdict":"deny"}}]}"#).unwrap();
    check(&["test", "a.wasm"], &["a core module, not a component"]);
    check(&["bench", "builtin:spend-caps", "--seconds", "0"], &["--seconds 0"]);

    let recipe = |build: &str, tool: &str| {
        desk.put(
            "taken/template.json",
            &json!({ "build": ["sh", "-c", build], "output": "out.wasm", "tools": [tool] }),
        );
    };
    recipe("true", "no-such-tool-here");
    check(&["build", "taken"], &["needs what is not here: no-such-tool-here", "put it in PATH"]);
    recipe("exit 7", "sh");
    check(&["build", "taken"], &["`sh -c exit 7` failed", "7"]);
    recipe("true", "sh");
    check(&["build", "taken"], &["left no taken/out.wasm", "`output`"]);
    recipe("printf x > out.wasm", "sh");
    desk.good(&["build", "taken"]);
    assert_eq!(fs::read(desk.path("taken/policy.wasm")).unwrap(), b"x");
}

/// What a file of cases means does not depend on who runs it.
#[test]
fn native_code_and_the_component_give_the_same_report() {
    let vectors: Value = serde_json::from_str(include_str!("../../sdk/cases/vectors.json")).unwrap();
    let engine = Engine::new(EngineConfig::default()).unwrap();
    let spec = PolicySpec::new("spend-caps", builtin::module("spend-caps").unwrap());
    for vector in vectors["vectors"].as_array().unwrap() {
        let (name, document) = (&vector["name"], vector["document"].to_string());
        let native = try_cases::<SpendCaps>(&document).unwrap();
        let component = Cases::parse(&document).unwrap().run_alone(&engine, &spec);
        assert_eq!(format!("{native:#?}"), format!("{component:#?}"), "{name}");
        let failed: Vec<&str> = component.failures().map(|(name, _)| name).collect();
        assert_eq!(json!(failed), vector["failed"], "{name}: {component}");
        assert_eq!(json!(component.missing), vector["missing"], "{name}");
        assert_eq!(json!(component.unlisted), vector["unlisted"], "{name}");
        if let Some(requests) = vector.get("requests") {
            let found: Vec<&Value> = component.failures().map(|(_, failure)| &failure.request).collect();
            assert_eq!(json!(found), *requests, "{name}");
        }
    }
}
