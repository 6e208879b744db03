//! Policies in any language on the engine, asked what files of cases ask. The format is in `docs/policies.md`.

use std::{fs, path::Path, sync::Arc};

use countersign_core::{id::DecisionId, seams::Judge, spend::SpendRequest, verdict::Opinion};
use countersign_engine::{Engine, EngineConfig, PolicySpec, Stage, StageError, Start};
use countersign_sdk::testing::request;
use serde_json::{Map, Value, json};

/// What every policy is staged as, so that answers of several can be compared.
const NAME: &str = "policy";
/// Nothing here is about time, and the machine may be busy.
const DEADLINE_MS: u32 = 60_000;

/// An engine on which only instructions and memory are short.
pub fn engine() -> Arc<Engine> {
    let config = EngineConfig { configure_deadline_ms: DEADLINE_MS, ..EngineConfig::default() };
    Engine::new(config).unwrap()
}

/// The cases of a file.
pub fn read(file: &str) -> Vec<Value> {
    let file: Value = serde_json::from_str(file).unwrap();
    let cases = file["cases"].as_array().unwrap();
    assert!(!cases.is_empty(), "a file of cases without a case");
    cases.clone()
}

/// What a policy answers a case: its opinion, or why the settings were refused.
pub fn answer(engine: &Arc<Engine>, module: &Arc<[u8]>, case: &Value) -> Result<Opinion, StageError> {
    let mut spec = PolicySpec::new(NAME, Arc::clone(module));
    spec.settings = case["settings"].to_string();
    spec.deadline_ms = DEADLINE_MS;
    spec.start = Start::Plain;
    spec.claims = true;
    let set = engine.stage(1, &[spec])?;
    Ok(set.judge(&[NAME.to_owned()], &asked(case)).opinions.remove(0))
}

/// The case's fragment over the ordinary request.
fn asked(case: &Value) -> SpendRequest {
    let ordinary = request();
    let fragment = case.get("request").cloned().unwrap_or_else(|| Map::new().into());
    let request = ordinary.merge(&fragment).unwrap_or_else(|why| panic!("{}: {why}", case["name"])).build();
    let mut request = in_core_names(serde_json::to_value(request).unwrap());
    request["id"] = DecisionId::from_bytes([1; 16]).to_string().into();
    serde_json::from_value(request).unwrap_or_else(|why| panic!("{}: {why}", case["name"]))
}

/// The WIT's names as core spells them.
pub fn in_core_names(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            members.into_iter().map(|(name, value)| (name.replace('-', "_"), in_core_names(value))).collect()
        }
        Value::Array(items) => items.into_iter().map(in_core_names).collect(),
        other => other,
    }
}

/// A module, from its file.
pub fn module(path: &Path) -> Arc<[u8]> {
    fs::read(path).unwrap_or_else(|e| panic!("{}: {e}; build it with: make guests", path.display())).into()
}

/// How an answer differs from what a case expects; nothing if it does not.
pub fn difference(case: &Value, answer: &Result<Opinion, StageError>) -> Option<String> {
    let expect = &case["expect"];
    let decision = match answer {
        // Where the problems are is the native harness's to check; the engine only says that there are some.
        Err(refusal) if expect.get("problems").is_some() && refusal.stage == Stage::Settings => return None,
        Err(refusal) => return Some(refusal.to_string()),
        Ok(opinion) => match &opinion.outcome {
            Ok(decision) => decision,
            Err(failure) => return Some(format!("{failure:?}")),
        },
    };
    let codes: Vec<&str> = decision.reasons.iter().map(|reason| reason.code.as_str()).collect();
    let none = || Value::from(Vec::<Value>::new());
    let same = expect["verdict"] == json!(decision.verdict)
        && expect.get("reasons").cloned().unwrap_or_else(none) == json!(codes)
        && holds(expect.get("holds").cloned().unwrap_or_else(none)) == json!(decision.holds);
    (!same).then(|| format!("{decision:?}"))
}

/// Holds of a case or of the SDK, as core writes them.
pub fn holds(holds: Value) -> Value {
    let mut holds = in_core_names(holds);
    for hold in holds.as_array_mut().into_iter().flatten() {
        hold["window"] = match &hold["window"] {
            Value::Object(window) => {
                window.iter().map(|(kind, of)| json!({ "kind": kind, "of": of })).next().unwrap_or_default()
            }
            lifetime => json!({ "kind": lifetime }),
        };
        for level in ["alert_at", "review_at"] {
            hold.as_object_mut().unwrap().entry(level).or_insert(Value::Null);
        }
    }
    holds
}
