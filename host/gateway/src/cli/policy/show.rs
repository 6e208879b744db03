//! What a module says about itself and what it touches.

use clap::Args;
use countersign_engine::{Engine, EngineConfig, Inspection};
use serde_json::{Value, json};

use super::source::Source;
use crate::cli::{Outcome, say};

/// What a module says about itself and what it touches.
#[derive(Args)]
pub(in crate::cli) struct Inspect {
    /// A module, a policy's folder, or builtin:NAME.
    path: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Inspect) -> Outcome {
    let source = Source::find(&args.path, None)?;
    let inspected = Engine::new(EngineConfig::default())?.inspect(&source.module)?;
    if args.json {
        say(format_args!("{:#}", facts(&inspected)));
    } else {
        print(&inspected);
    }
    Ok(())
}

pub(super) fn facts(inspected: &Inspection) -> Value {
    let schema: Value = serde_json::from_str(&inspected.settings_schema).unwrap_or_default();
    json!({
        "name": inspected.name,
        "version": inspected.version,
        "summary": inspected.summary,
        "sha256": inspected.sha256,
        "size": inspected.size,
        "imports": inspected.imports,
        "exports": inspected.exports,
        "settings_schema": schema,
    })
}

pub(super) fn print(inspected: &Inspection) {
    say(format_args!("{} {}: {}", inspected.name, inspected.version, inspected.summary));
    say(format_args!("sha256   {}", inspected.sha256));
    say(format_args!("size     {} bytes", inspected.size));
    say(format_args!("imports  {}", inspected.imports.join("\n         ")));
    say(format_args!("exports  {}", inspected.exports.join("\n         ")));
}
