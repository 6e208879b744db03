//! `[policy.NAME]`: which modules judge, and with what settings.

use std::path::{Path, PathBuf};

use countersign_core::budget::HOST;
use countersign_core::json;
use countersign_core::verdict::Mode;
use serde_json::Value;
use toml::de::DeValue;

use super::reader::{Item, Read, join};

/// One policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyConfig {
    /// Where its module is.
    pub module: Module,
    /// What the module's bytes must hash to: lower-case hex.
    pub sha256: Option<String>,
    /// Whether its verdicts count.
    pub mode: Mode,
    /// How long one evaluation may take.
    pub deadline_ms: u32,
    /// Whether it sees what the agent says.
    pub claims: bool,
    /// Whether agents see its messages.
    pub tell_agent: bool,
    /// Its settings as canonical JSON: an object with sorted keys.
    pub settings: String,
    /// Its file of cases, if it is not beside the module.
    pub cases: Option<PathBuf>,
}

/// Where a module is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Module {
    /// One that comes with the gateway.
    Builtin(String),
    /// A WebAssembly file.
    File(PathBuf),
    /// Bytes the ledger keeps, by their SHA-256: never what a file says, but what an operator put in
    /// its place.
    Kept(String),
}

const KEYS: &[&str] = &["module", "sha256", "mode", "deadline-ms", "claims", "tell-agent", "settings", "cases"];
const DEADLINE_MS: u32 = 50;
const MAX_DEADLINE_MS: u32 = 5_000;
/// Beyond this, languages whose only numbers are doubles read another number.
const EXACT: i64 = (1 << 53) - 1;

impl PolicyConfig {
    pub(super) fn read(item: &Item<'_>) -> Read<Self> {
        let mut table = item.table(KEYS)?;
        let module = module(&table.need("module", "\"builtin:NAME\" or the path of a .wasm file")?)?;
        let sha256 = table.take("sha256").map(|i| i.sha256("pin what `sha256sum module.wasm` prints")).transpose()?;
        let modes = [("enforce", Mode::Enforce), ("monitor", Mode::Monitor)];
        let mode = table.take("mode").map(|i| i.choice(&modes)).transpose()?.unwrap_or_default();
        let deadline = table.take("deadline-ms").map(|i| i.u32(1..=MAX_DEADLINE_MS)).transpose()?;
        let settings = table.take("settings").map(|i| settings(&i)).transpose()?;
        Ok(Self {
            module,
            sha256,
            mode,
            deadline_ms: deadline.unwrap_or(DEADLINE_MS),
            claims: table.take("claims").map(|i| i.bool()).transpose()?.unwrap_or(false),
            tell_agent: table.take("tell-agent").map(|i| i.bool()).transpose()?.unwrap_or(false),
            settings: settings.unwrap_or_else(|| "{}".to_owned()),
            cases: table.take("cases").map(|i| i.path()).transpose()?,
        })
    }

    /// Where its cases may be: where `cases` says, else beside its module. Builtins have passed theirs.
    #[must_use]
    pub fn case_files(&self) -> Vec<PathBuf> {
        match (&self.cases, &self.module) {
            (Some(named), _) => vec![named.clone()],
            (None, Module::File(module)) => cases_beside(module).to_vec(),
            (None, Module::Builtin(_) | Module::Kept(_)) => Vec::new(),
        }
    }
}

/// The files that are a module's cases if they are there: `X.cases.json` or `X.cases.toml` beside `X.wasm`.
#[must_use]
pub fn cases_beside(module: &Path) -> [PathBuf; 2] {
    ["cases.json", "cases.toml"].map(|extension| module.with_extension(extension))
}

/// A policy's name. Its budgets carry it, so it must not be the name that the host's own carry.
pub(super) fn name(item: &Item<'_>, text: &str) -> Read<String> {
    let name = item.named(text)?;
    if name == HOST { Err(item.error("this name is the gateway's own")) } else { Ok(name) }
}

fn module(item: &Item<'_>) -> Read<Module> {
    match item.str()?.strip_prefix("builtin:") {
        Some("") => Err(item.error("`builtin:` needs a name, such as \"builtin:vendor-allowlist\"")),
        Some(name) => Ok(Module::Builtin(name.to_owned())),
        None => item.path().map(Module::File),
    }
}

fn settings(item: &Item<'_>) -> Read<String> {
    if !item.value.is_table() {
        return Err(item.wrong("a table").hint("write the settings as a table of their own: [policy.NAME.settings]"));
    }
    Ok(json::canonical(&to_json(item)?))
}

/// Settings that came as JSON, held to what a configuration may say: an object without floats and without
/// numbers that are not exact in every language. Canonical.
///
/// # Errors
/// What is wrong and where.
pub fn canonical_settings(settings: &Value) -> Result<String, String> {
    if !settings.is_object() {
        return Err("the settings are not a JSON object".to_owned());
    }
    check_exact(settings, "settings")?;
    Ok(json::canonical(settings))
}

fn check_exact(value: &Value, place: &str) -> Result<(), String> {
    match value {
        Value::Number(number) if number.is_f64() => {
            Err(format!("{place}: settings must not contain floats: they cannot hold money; write it in quotes"))
        }
        Value::Number(number) if !number.as_i64().is_some_and(is_exact) => {
            Err(format!("{place}: a number this large is not exact in every language; write it in quotes"))
        }
        Value::Array(items) => {
            items.iter().enumerate().try_for_each(|(n, item)| check_exact(item, &format!("{place}[{n}]")))
        }
        Value::Object(members) => members.iter().try_for_each(|(key, member)| check_exact(member, &join(place, key))),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

fn is_exact(number: i64) -> bool {
    (-EXACT..=EXACT).contains(&number)
}

/// TOML as JSON, without what the two do not both have.
fn to_json(item: &Item<'_>) -> Read<Value> {
    Ok(match item.value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Boolean(truth) => Value::Bool(*truth),
        DeValue::Integer(integer) => {
            let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
            let exact = number.filter(|n| is_exact(*n));
            let large = || item.error("a number this large is not exact in every language").hint("write it in quotes");
            Value::from(exact.ok_or_else(large)?)
        }
        DeValue::Float(float) => {
            let hint = format!("write it in quotes: \"{}\"", float.as_str());
            return Err(item.error("settings must not contain floats: they cannot hold money").hint(hint));
        }
        DeValue::Datetime(moment) => {
            let hint = format!("write it in quotes: \"{moment}\"");
            return Err(item.error("settings must not contain dates: JSON has none").hint(hint));
        }
        DeValue::Array(_) => Value::Array(item.list()?.iter().map(to_json).collect::<Read<_>>()?),
        DeValue::Table(_) => {
            let members = item.members();
            Value::Object(
                members.iter().map(|(key, item)| Ok(((*key).to_owned(), to_json(item)?))).collect::<Read<_>>()?,
            )
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn settings_from_the_api_are_held_to_the_rule_of_the_file() {
        let good = json!({"b": [1, -9_007_199_254_740_991_i64], "a": {"c": null, "d": "1.5"}});
        assert_eq!(canonical_settings(&good).unwrap(), r#"{"a":{"c":null,"d":"1.5"},"b":[1,-9007199254740991]}"#);
        for (bad, place) in [
            (json!({"a": 1.5}), "settings.a: "),
            (json!({"a": [0, {"b": 9_007_199_254_740_992_u64}]}), "settings.a[1].b: "),
            (json!({"a": u64::MAX}), "settings.a: "),
            (json!([]), "not a JSON object"),
        ] {
            let why = canonical_settings(&bad).unwrap_err();
            assert!(why.contains(place), "{why}");
        }
    }
}
