//! What serves, and changing it, through the running gateway.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use http::Method;
use serde_json::{Value, json};

use crate::cli::admin::{Client, encode};
use crate::cli::listing::{column, print};
use crate::cli::{Failure, Outcome, Remote, say};
use crate::config::Environment;

/// `countersign policy activate`.
#[derive(Args)]
pub(in crate::cli) struct Activate {
    #[command(flatten)]
    remote: Remote,
    /// The policy, as the configuration names it.
    #[arg(required_unless_present = "files")]
    name: Option<String>,
    /// The module to serve in place of the file's, until the file changes.
    #[arg(long, required_unless_present = "files")]
    module: Option<PathBuf>,
    /// A JSON file with its settings; those it has, if not given.
    #[arg(long)]
    settings: Option<PathBuf>,
    /// With a shared ledger: let what this gateway's files say serve at every gateway.
    #[arg(long, conflicts_with_all = ["name", "module", "settings"])]
    files: bool,
}

/// `countersign policy rollback`.
#[derive(Args)]
pub(in crate::cli) struct Rollback {
    #[command(flatten)]
    remote: Remote,
    /// The generation to go back to; the one before, if not given.
    #[arg(long, value_name = "GENERATION")]
    to: Option<u64>,
}

pub(super) async fn list(remote: &Remote, environment: &Environment) -> Outcome {
    let answer = Client::new(remote, environment)?.must(Method::GET, "/v1/policies", None).await?;
    if remote.listing.json {
        say(format_args!("{answer:#}"));
        return Ok(());
    }
    let text = |pointer: &str| {
        answer.pointer(pointer).map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).unwrap_or_default()
    };
    say(serving(&answer));
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
        column("START", "/start"),
        column("DECISIONS", "/decisions"),
        column("P50 us", "/p50_us"),
        column("P99 us", "/p99_us"),
        column("MODULE", "/module_sha256"),
    ];
    print(false, &json!({"items": answer.get("policies")}), &columns);
    Ok(())
}

pub(super) async fn activate(command: &Activate, environment: &Environment) -> Outcome {
    let unread = |path: &Path, e: &dyn std::fmt::Display| Failure::new(format!("{}: {e}", path.display()));
    let (Some(name), Some(module)) = (&command.name, &command.module) else {
        let client = Client::new(&command.remote, environment)?;
        tell(&command.remote, &client.must(Method::POST, "/v1/policies/files", None).await?);
        return Ok(());
    };
    let module = std::fs::read(module).map_err(|e| unread(module, &e))?;
    let settings = match &command.settings {
        None => None,
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|e| unread(path, &e))?;
            let settings: Value = serde_json::from_str(&text).map_err(|e| unread(path, &e))?;
            Some(settings)
        }
    };
    let body = json!({"module_base64": STANDARD.encode(module), "settings": settings});
    let path = format!("/v1/policies/{}/module", encode(name));
    let answer = Client::new(&command.remote, environment)?.must(Method::PUT, &path, Some(body)).await?;
    tell(&command.remote, &answer);
    Ok(())
}

pub(super) async fn rollback(command: &Rollback, environment: &Environment) -> Outcome {
    let body = command.to.map(|to| json!({"to": to}));
    let answer = Client::new(&command.remote, environment)?.must(Method::POST, "/v1/policies/rollback", body).await?;
    tell(&command.remote, &answer);
    Ok(())
}

pub(super) async fn generations(remote: &Remote, environment: &Environment) -> Outcome {
    let answer = Client::new(remote, environment)?.must(Method::GET, "/v1/policies/generations", None).await?;
    let columns = [
        column("GENERATION", "/generation"),
        column("SINCE", "/activated_at"),
        column("ORIGIN", "/origin"),
        column("BY", "/by"),
        column("RESTORES", "/restores"),
        column("WHOLE", "/whole"),
        column("LIVE", "/live"),
    ];
    print(remote.listing.json, &answer, &columns);
    Ok(())
}

fn tell(remote: &Remote, status: &Value) {
    if remote.listing.json {
        return say(format_args!("{status:#}"));
    }
    // Nothing is changed yet: other operators must ask for the same.
    match status.get("detail").and_then(Value::as_str) {
        Some(waits) => say(waits),
        None => say(serving(status)),
    }
}

/// What serves, in a line.
fn serving(status: &Value) -> String {
    let text = |name: &str| match status.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    };
    let restores = Some(text("restores")).filter(|n| !n.is_empty()).map(|n| format!(" of generation {n}"));
    let by = Some(text("by")).filter(|by| !by.is_empty()).map(|by| format!(" by {by}"));
    let drift = status.get("config_drift").and_then(Value::as_bool).unwrap_or_default();
    format!(
        "generation {} since {}, origin {}{}{}{}",
        text("generation"),
        text("activated_at"),
        text("origin"),
        restores.unwrap_or_default(),
        by.unwrap_or_default(),
        if drift { "; the files say something else" } else { "" }
    )
}
