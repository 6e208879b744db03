//! `countersign policy`: the policies that serve, and modules that might.

mod past;
mod progress;

use std::path::PathBuf;
use std::sync::Arc;

use clap::Subcommand;
use countersign_engine::{Engine, EngineConfig, Inspection, PolicySpec};
use http::Method;
use serde_json::{Value, json};

use crate::builtin;
use crate::cli::admin::Client;
use crate::cli::listing::{column, print};
use crate::cli::{Failure, Outcome, Remote, runtime, say};
use crate::config::Environment;

/// Policies.
#[derive(Subcommand)]
pub(in crate::cli) enum Policy {
    /// The policies of the running gateway.
    List(Remote),
    /// Make recorded decisions again, from the record alone; they must come out bit for bit.
    Replay(past::ReplayArgs),
    /// What recorded purchases would have come to under another policy.
    Backtest(past::BacktestArgs),
    /// Let a candidate judge beside a policy: start, look, drop.
    Shadow(past::ShadowArgs),
    /// Whether a module would be loaded: imports, exports, description, settings.
    Check {
        /// The module, or builtin:NAME.
        module: String,
        /// A JSON file with the settings to configure it with.
        #[arg(long)]
        settings: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// What a module says about itself and what it touches.
    Inspect {
        /// The module, or builtin:NAME.
        module: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(in crate::cli) fn run(command: Policy, environment: &Environment) -> Outcome {
    match command {
        Policy::List(remote) => runtime()?.block_on(list(&remote, environment)),
        Policy::Replay(args) => runtime()?.block_on(past::replay(&args)),
        Policy::Backtest(args) => runtime()?.block_on(past::backtest(&args)),
        Policy::Shadow(args) => runtime()?.block_on(past::shadow(&args, environment)),
        Policy::Check { module, settings, json } => check(&module, settings, json),
        Policy::Inspect { module, json } => {
            let bytes = read(&module)?;
            let inspected = Engine::new(EngineConfig::default())?.inspect(&bytes)?;
            show(&inspected, json);
            Ok(())
        }
    }
}

async fn list(remote: &Remote, environment: &Environment) -> Outcome {
    let answer = Client::new(remote, environment)?.must(Method::GET, "/v1/policies", None).await?;
    if remote.listing.json {
        say(format_args!("{answer:#}"));
        return Ok(());
    }
    let text = |pointer: &str| {
        answer.pointer(pointer).map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).unwrap_or_default()
    };
    say(format_args!("generation {} since {}", text("/generation"), text("/activated_at")));
    if answer.get("last_error").is_some_and(|e| !e.is_null()) {
        say(format_args!(
            "last error: {} {}: {}",
            text("/last_error/stage"),
            text("/last_error/policy"),
            text("/last_error/message")
        ));
    }
    let columns = [
        column("NAME", "/name"),
        column("STATE", "/state"),
        column("VERSION", "/version"),
        column("MODE", "/mode"),
        column("DECISIONS", "/decisions"),
        column("P50 us", "/p50_us"),
        column("P99 us", "/p99_us"),
        column("MODULE", "/module_sha256"),
    ];
    print(false, &json!({"items": answer.get("policies")}), &columns);
    Ok(())
}

fn check(module: &str, settings: Option<PathBuf>, as_json: bool) -> Outcome {
    let bytes = read(module)?;
    let engine = Engine::new(EngineConfig::default())?;
    let Some(path) = settings else {
        let inspected = engine.inspect(&bytes)?;
        show(&inspected, as_json);
        if !as_json {
            say("ok; give --settings FILE to try settings too");
        }
        return Ok(());
    };
    let text = std::fs::read_to_string(&path).map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
    let settings: Value = serde_json::from_str(&text).map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
    let spec =
        PolicySpec { settings: countersign_core::json::canonical(&settings), ..PolicySpec::new("candidate", bytes) };
    let inspected = engine.check(&spec)?;
    show(&inspected, as_json);
    if !as_json {
        say("ok, with these settings");
    }
    Ok(())
}

fn read(module: &str) -> Result<Arc<[u8]>, Failure> {
    if let Some(name) = module.strip_prefix("builtin:") {
        let bytes = builtin::module(name).ok_or_else(|| {
            Failure::new(format!("there is no builtin `{name}`"))
                .hint(format!("there are {}", builtin::names().join(", ")))
        })?;
        return Ok(bytes.into());
    }
    std::fs::read(module).map(Into::into).map_err(|e| Failure::new(format!("{module}: {e}")))
}

fn show(inspected: &Inspection, as_json: bool) {
    let schema: Value = serde_json::from_str(&inspected.settings_schema).unwrap_or_default();
    let value = json!({
        "name": inspected.name,
        "version": inspected.version,
        "summary": inspected.summary,
        "sha256": inspected.sha256,
        "size": inspected.size,
        "imports": inspected.imports,
        "exports": inspected.exports,
        "settings_schema": schema,
    });
    if as_json {
        return say(format_args!("{value:#}"));
    }
    say(format_args!("{} {}: {}", inspected.name, inspected.version, inspected.summary));
    say(format_args!("sha256   {}", inspected.sha256));
    say(format_args!("size     {} bytes", inspected.size));
    say(format_args!("imports  {}", inspected.imports.join("\n         ")));
    say(format_args!("exports  {}", inspected.exports.join("\n         ")));
}
