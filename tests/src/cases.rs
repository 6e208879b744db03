//! Policies in any language on the engine, asked what files of cases ask. The format is in `docs/policies.md`.

use std::{fs, path::Path, sync::Arc};

use countersign_core::{seams::Judge, verdict::Opinion};
use countersign_engine::{Engine, EngineConfig, PolicySpec, StageError, Start, cases};
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
    let cases = file.get("cases").and_then(Value::as_array).unwrap();
    assert!(!cases.is_empty(), "a file of cases without a case");
    cases.clone()
}

/// What a policy answers a case: its opinion, or why the settings were refused.
pub fn answer(engine: &Arc<Engine>, module: &Arc<[u8]>, case: &Value) -> Result<Opinion, StageError> {
    let mut spec = PolicySpec::new(NAME, Arc::clone(module));
    spec.settings = case.get("settings").unwrap_or(&Value::Null).to_string();
    spec.deadline_ms = DEADLINE_MS;
    spec.start = Start::Plain;
    spec.claims = true;
    let set = engine.stage(1, &[spec])?;
    let fragment = case.get("request").cloned().unwrap_or_else(|| Map::new().into());
    let request = cases::request(&fragment).unwrap_or_else(|why| panic!("{:?}: {why}", case.get("name")));
    Ok(set.judge(&[NAME.to_owned()], &request).opinions.remove(0))
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
