//! What a component may import and must export, checked before any of it runs.

use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

use crate::stage::{Problem, Stage};
use crate::{POLICY_INTERFACE, wasi};

const LOG: &str = "countersign:policy/log@0.1.0";
const TYPES: &str = "countersign:policy/types@0.1.0";
/// The package, whatever its version.
const PACKAGE: &str = "countersign:policy/";

/// Names of a component's imports and exports, sorted.
#[derive(Debug)]
pub(crate) struct Surface {
    pub(crate) imports: Vec<String>,
    pub(crate) exports: Vec<String>,
}

/// Checks every import against what is granted, and the export every policy must have.
pub(crate) fn audit(engine: &Engine, component: &Component) -> Result<Surface, Problem> {
    let ty = component.component_type();
    let mut imports = Vec::new();
    for (name, item) in ty.imports(engine) {
        import(engine, name, &item.ty)?;
        imports.push(name.to_owned());
    }
    let mut exports: Vec<String> = ty.exports(engine).map(|(name, _)| name.to_owned()).collect();
    imports.sort();
    exports.sort();
    export(&exports)?;
    Ok(Surface { imports, exports })
}

fn import(engine: &Engine, name: &str, item: &ComponentItem) -> Result<(), Problem> {
    let refuse = |why: String| Err(Problem::new(Stage::Imports, why));
    let functions: &[&str] = match name {
        LOG => &["log"],
        TYPES => &[],
        _ if wasi::granted(name).is_some() => return instance_only(name, item),
        _ if name.starts_with(PACKAGE) => {
            return refuse(format!(
                "imports `{}`, which this host does not have; it speaks `{LOG}` and `{TYPES}`",
                shown(name)
            ));
        }
        _ => return refuse(format!("imports `{}`; {}", shown(name), allowed())),
    };
    instance_only(name, item)?;
    let ComponentItem::ComponentInstance(instance) = item else {
        return Ok(());
    };
    for (function, item) in instance.exports(engine) {
        let type_only = matches!(item.ty, ComponentItem::Type(_));
        if !type_only && !functions.contains(&function) {
            return refuse(format!("imports `{name}#{}`, which does not exist", shown(function)));
        }
    }
    Ok(())
}

fn instance_only(name: &str, item: &ComponentItem) -> Result<(), Problem> {
    match item {
        ComponentItem::ComponentInstance(_) => Ok(()),
        _ => {
            Err(Problem::new(Stage::Imports, format!("imports `{}` as something other than an interface", shown(name))))
        }
    }
}

fn export(exports: &[String]) -> Result<(), Problem> {
    if exports.iter().any(|e| e == POLICY_INTERFACE) {
        return Ok(());
    }
    let other = exports.iter().find(|e| e.starts_with("countersign:policy/policy"));
    let message = match other {
        Some(other) => format!(
            "wrong version: exports `{}`, this host runs `{POLICY_INTERFACE}`; rebuild the policy \
             against that version",
            shown(other)
        ),
        None if exports.is_empty() => {
            format!("exports nothing; a policy exports `{POLICY_INTERFACE}`")
        }
        None => format!(
            "does not export `{POLICY_INTERFACE}`; it exports {}",
            exports.iter().take(8).map(|e| format!("`{}`", shown(e))).collect::<Vec<_>>().join(", ")
        ),
    };
    Err(Problem::new(Stage::Exports, message))
}

/// What a policy may import, for people.
fn allowed() -> String {
    format!(
        "a policy may import only `countersign:policy/log`, `countersign:policy/types` and, inert, \
         these of WASI 0.2: {}",
        wasi::GRANTED.map(|g| g.strip_prefix("wasi:").unwrap_or(g)).join(", ")
    )
}

/// A foreign name, cut to what a message can carry.
fn shown(name: &str) -> String {
    name.chars().take(120).collect()
}
