//! A module once it is compiled, audited, linked and has said what it is.

use serde_json::Value;
use wasmtime::component::HasSelf;
use wasmtime::component::{Component, Linker, types::ComponentItem};

use crate::artifacts::{Artifacts, Made};
use crate::audit::{self, Surface};
use crate::bindings::SpendPolicyPre;
use crate::bindings::countersign::policy::{log, types};
use crate::cache::Digest;
use crate::failure::cut;
use crate::guest::Guest;
use crate::stage::{Problem, Stage};
use crate::wasi;

/// Largest settings schema a policy may carry.
const SCHEMA_BYTES: usize = 64 << 10;
const NAME_BYTES: usize = 128;
const VERSION_BYTES: usize = 64;
const SUMMARY_BYTES: usize = 4 << 10;

/// What a module says and what it touches, for tools and people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// SHA-256 of the module, lower-case hex.
    pub sha256: String,
    /// Bytes of the module.
    pub size: usize,
    /// The name it gives itself.
    pub name: String,
    /// The version it gives itself.
    pub version: String,
    /// One line or a few, from its author.
    pub summary: String,
    /// JSON Schema of its settings, as text.
    pub settings_schema: String,
    /// Everything it imports, sorted; all of it granted.
    pub imports: Vec<String>,
    /// Everything it exports, sorted.
    pub exports: Vec<String>,
}

pub(crate) struct Compiled {
    pub(crate) digest: Digest,
    pub(crate) pre: SpendPolicyPre<Guest>,
    pub(crate) about: Inspection,
}

/// Compiles the module, or finds it compiled.
pub(crate) fn component(
    engine: &wasmtime::Engine,
    artifacts: &Artifacts,
    module: &[u8],
    digest: &Digest,
) -> Result<(Component, Origin), Problem> {
    if let Some(component) = artifacts.get(engine, Made::Module(digest)) {
        return Ok((component, Origin::Cache));
    }
    let component = Component::from_binary(engine, module).map_err(|e| not_compiled(module, &e))?;
    artifacts.put(Made::Module(digest), &component);
    Ok((component, Origin::Compiler))
}

/// Where compiled code came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The cache on disk.
    Cache,
    /// It was compiled now.
    Compiler,
}

/// Audits and links; runs nothing.
pub(crate) fn prepare(
    engine: &wasmtime::Engine,
    component: &Component,
) -> Result<(SpendPolicyPre<Guest>, Surface), Problem> {
    let surface = audit::audit(engine, component)?;
    let linker = link(engine, component).map_err(|e| Problem::new(Stage::Imports, cut(&format!("{e:#}"), 400)))?;
    let pre =
        linker.instantiate_pre(component).map_err(|e| Problem::new(Stage::Imports, cut(&format!("{e:#}"), 400)))?;
    let pre = SpendPolicyPre::new(pre).map_err(|e| Problem::new(Stage::Exports, cut(&format!("{e:#}"), 400)))?;
    Ok((pre, surface))
}

/// Links a component that imports what an audited one does.
pub(crate) fn linked(engine: &wasmtime::Engine, component: &Component) -> wasmtime::Result<SpendPolicyPre<Guest>> {
    SpendPolicyPre::new(link(engine, component)?.instantiate_pre(component)?)
}

fn not_compiled(module: &[u8], error: &wasmtime::Error) -> Problem {
    let header = module.get(..8).unwrap_or_default();
    let message = match header {
        [b'\0', b'a', b's', b'm', 1, 0, 0, 0] => {
            "a core module, not a component; build it for a component target such as wasm32-wasip2, \
             or pass it through `wasm-tools component new`"
                .to_owned()
        }
        [b'\0', b'a', b's', b'm', ..] => {
            let text = cut(&format!("{error:#}"), 400);
            if text.contains("exceeds the configured maximum") || text.contains("does not fit in pooling") {
                format!("does not fit the engine's instance pool: {text}")
            } else {
                text
            }
        }
        _ => "not a WebAssembly file".to_owned(),
    };
    Problem::new(Stage::Compile, message)
}

/// A linker with exactly what this component imports.
fn link(engine: &wasmtime::Engine, component: &Component) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    types::add_to_linker::<Guest, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    log::add_to_linker::<Guest, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    linker.allow_shadowing(true);
    for (name, item) in component.component_type().imports(engine) {
        if let (Some(interface), ComponentItem::ComponentInstance(wanted)) = (wasi::granted(name), item.ty) {
            wasi::define(engine, interface, &wanted, &mut linker.instance(name)?)?;
        }
    }
    Ok(linker)
}

/// Checks what `describe` returned.
pub(crate) fn about(
    sha256: String,
    size: usize,
    surface: Surface,
    d: types::Description,
) -> Result<Inspection, Problem> {
    let bad = |message: String| Err(Problem::new(Stage::Describe, message));
    let lines = [("name", &d.name, NAME_BYTES), ("version", &d.version, VERSION_BYTES)];
    for (what, text, max) in lines {
        if !(1..=max).contains(&text.len()) || text.chars().any(char::is_control) {
            return bad(format!("its {what} is not 1 to {max} bytes of printable text"));
        }
    }
    if d.summary.len() > SUMMARY_BYTES {
        return bad(format!("its summary is above {SUMMARY_BYTES} bytes"));
    }
    if let Err(message) = check_schema(&d.settings_schema) {
        return bad(message);
    }
    Ok(Inspection {
        sha256,
        size,
        name: d.name,
        version: d.version,
        summary: d.summary,
        settings_schema: d.settings_schema,
        imports: surface.imports,
        exports: surface.exports,
    })
}

/// A schema is shown to operators and given to validators: it must be small, JSON, and must not
/// make anybody fetch anything.
fn check_schema(text: &str) -> Result<(), String> {
    if text.len() > SCHEMA_BYTES {
        return Err(format!("its settings schema is above {SCHEMA_BYTES} bytes"));
    }
    let schema: Value = serde_json::from_str(text).map_err(|e| format!("its settings schema is not JSON: {e}"))?;
    if !schema.is_object() {
        return Err("its settings schema is not a JSON object".to_owned());
    }
    match outside(&schema) {
        None => Ok(()),
        Some(target) => Err(format!("its settings schema refers outside itself, to {:?}", cut(target, 120))),
    }
}

/// The first reference that does not stay in the document.
fn outside(value: &Value) -> Option<&str> {
    match value {
        Value::Array(items) => items.iter().find_map(outside),
        Value::Object(members) => members.iter().find_map(|(key, value)| match value {
            Value::String(target) if matches!(key.as_str(), "$ref" | "$dynamicRef" | "$recursiveRef") => {
                (!target.starts_with('#')).then_some(target.as_str())
            }
            other => outside(other),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_are_small_json_objects_that_stay_at_home() {
        let check = |text: &str, want: Option<&str>| match (check_schema(text), want) {
            (Ok(()), None) => {}
            (Err(e), Some(part)) => assert!(e.contains(part), "{text}: {e}"),
            (got, want) => panic!("{text}: {got:?}, wanted {want:?}"),
        };
        check("{}", None);
        check(r##"{"$ref":"#/$defs/a","$defs":{"a":{"type":"object"}}}"##, None);
        check(r#"{"properties":{"$ref":{"type":"string"}}}"#, None);
        check("", Some("not JSON"));
        check("[]", Some("not a JSON object"));
        check(r#"{"a":[{"$ref":"https://evil.example/s.json"}]}"#, Some("evil.example"));
        check(r#"{"$dynamicRef":"other.json#x"}"#, Some("other.json"));
        check(&format!("{{\"a\":\"{}\"}}", "x".repeat(SCHEMA_BYTES)), Some("above"));
        check(&"[".repeat(10_000), Some("not JSON"));
    }

    #[test]
    fn files_that_are_no_components_are_named_for_what_they_are() {
        let engine = wasmtime::Engine::new(&crate::EngineConfig::default().wasmtime(true)).unwrap();
        let none = Artifacts::open(None, &engine, 0).unwrap();
        let check = |bytes: &[u8], want: &str| {
            let problem = component(&engine, &none, bytes, &[0; 32]).map(|_| ()).unwrap_err();
            assert_eq!(problem.stage, Stage::Compile);
            assert!(problem.message.contains(want), "{}", problem.message);
        };
        check(b"", "not a WebAssembly file");
        check(b"(component)", "not a WebAssembly file");
        check(b"\0asm\x01\0\0\0", "a core module, not a component");
        check(b"\0asm\x0d\0\x01\0\xff\xff", "");
    }
}
