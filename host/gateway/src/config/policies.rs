//! `[policy.NAME]`: which modules judge, and with what settings.

use std::path::{Path, PathBuf};

use countersign_core::budget::HOST;
use countersign_core::json;
use countersign_core::verdict::Mode;
use serde_json::Value;
use toml::de::DeValue;

use super::reader::{Item, Read};

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

/// TOML as JSON, without what the two do not both have.
fn to_json(item: &Item<'_>) -> Read<Value> {
    Ok(match item.value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Boolean(truth) => Value::Bool(*truth),
        DeValue::Integer(integer) => {
            let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
            let exact = number.filter(|n| (-EXACT..=EXACT).contains(n));
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
