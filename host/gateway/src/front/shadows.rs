//! `/v1/policies/{name}/shadow`: a candidate beside a policy, and what monitoring policies would have
//! done.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use countersign_core::ledger::Note;
use countersign_engine::PolicySpec;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Value, json as value};

use super::admin::{Admin, parse, said};
use super::policies::one_of_few;
use super::{Answer, json, not_found};
use crate::builtin;
use crate::config::{OperatorRole, canonical_settings};
use crate::problem::{Code, Problem};
use crate::shadow::{Candidate, NotStarted, Shadows};
use crate::state::Gateway;

/// A module in base64 and settings around it.
const MAX_CALL: usize = 48 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// `builtin:NAME`.
    module: Option<String>,
    module_base64: Option<String>,
    settings: Option<Value>,
}

/// Starts a candidate: a component's bytes, or JSON with `module_base64` or `module`, and `settings`.
pub(super) async fn start(admin: &Admin, name: &str, request: Request<Incoming>) -> Result<Answer, Problem> {
    let gateway = &admin.gateway;
    let place = one_of_few(admin)?;
    let (sent, operator) = said(gateway, request, MAX_CALL, OperatorRole::PolicyAdmin).await?;
    let by = operator.name.as_str();
    let configured = operator.snapshot.config.policies.get(name).ok_or_else(|| not_found("policy of this name"))?;
    if !gateway.shadows.has_room_for(name) {
        return Err(too_many());
    }
    let (module, own) = candidate(&sent)?;
    let at = gateway.clock.now()?;
    let spec = PolicySpec {
        deadline_ms: configured.deadline_ms,
        claims: configured.claims,
        settings: own.clone().unwrap_or_else(|| configured.settings.clone()),
        ..PolicySpec::new(name, module)
    };
    let candidate = Candidate { spec, own_settings: own.is_some(), by: by.to_owned(), since: at };
    let shadows = std::sync::Arc::clone(gateway);
    let put = tokio::task::spawn_blocking(move || {
        let _place = place;
        shadows.shadows.put(candidate)
    });
    let put = put.await;
    match put {
        Ok(Ok(())) => {}
        Ok(Err(NotStarted::Stage(error))) => {
            return Err(Problem::new(Code::BadRequest, format!("the candidate cannot be loaded: {error}"))
                .with("stage", error.stage.code()));
        }
        Ok(Err(NotStarted::TooMany)) => {
            return Err(too_many());
        }
        Err(_) => return Err(Problem::new(Code::Overloaded, "staging the candidate ended abnormally")),
    }
    // What serves may have changed while it was staged.
    gateway.shadows.follow(&gateway.live.load().config.policies);
    let report = report(gateway, name)?;
    note(gateway, "shadow-started", by, &report).await?;
    Ok(json(StatusCode::CREATED, &report))
}

/// Ends a candidate; answers its last report, with single decisions only for those who may see any.
pub(super) async fn end(gateway: &Gateway, by: &str, views: bool, name: &str) -> Result<Answer, Problem> {
    note(gateway, "shadow-dropped", by, &report(gateway, name)?).await?;
    let (mut report, _) = gateway.shadows.remove(name).ok_or_else(none)?;
    if let Some(map) = report.as_object_mut()
        && !views
    {
        map.remove("last");
    }
    Ok(json(StatusCode::OK, &report))
}

/// What a shadow has found so far.
pub(super) fn report(gateway: &Gateway, name: &str) -> Result<Value, Problem> {
    gateway.shadows.report(name).ok_or_else(none)
}

/// Adds to every monitoring policy of a status what it would have done.
pub(super) fn with_monitors(shadows: &Shadows, mut status: Value) -> Value {
    let policies = status.get_mut("policies").and_then(Value::as_array_mut);
    for policy in policies.into_iter().flatten().filter_map(Value::as_object_mut) {
        if policy.get("mode").and_then(Value::as_str) == Some("monitor")
            && let Some(name) = policy.get("name").and_then(Value::as_str).map(str::to_owned)
        {
            policy.insert("monitor".into(), shadows.monitor(&name));
        }
    }
    status
}

fn too_many() -> Problem {
    Problem::new(Code::Conflict, "as many shadows as there may be are running; drop one")
}

fn none() -> Problem {
    not_found("shadow of a policy of this name")
}

fn candidate(bytes: &Bytes) -> Result<(Vec<u8>, Option<String>), Problem> {
    let bad = |detail: String| Problem::new(Code::BadRequest, detail);
    if bytes.starts_with(b"\0asm") {
        return Ok((bytes.to_vec(), None));
    }
    let wanted: Wanted = parse(bytes)?;
    let module = match (wanted.module, wanted.module_base64) {
        (None, Some(text)) => STANDARD.decode(text).map_err(|e| bad(format!("module_base64: {e}")))?,
        (Some(text), None) => {
            let found = text.strip_prefix("builtin:").and_then(builtin::module);
            found.map(<[u8]>::to_vec).ok_or_else(|| {
                bad(format!("module: there is no `{text}`; there are builtin:{}", builtin::names().join(", builtin:")))
            })?
        }
        _ => return Err(bad("send a component's bytes, or one of module_base64 and module".to_owned())),
    };
    let settings = wanted.settings.filter(|s| !s.is_null());
    let settings = settings.map(|s| canonical_settings(&s)).transpose().map_err(bad)?;
    Ok((module, settings))
}

/// The record names who tried what, by digest.
async fn note(gateway: &Gateway, kind: &'static str, by: &str, report: &Value) -> Result<(), Problem> {
    let part = |key: &str| report.get(key).cloned().unwrap_or_default();
    let body = value!({
        "policy": part("policy"), "module_sha256": part("module_sha256"),
        "settings_sha256": part("settings_sha256"), "decisions": part("decisions"),
    });
    let note = Note { kind, by: by.to_owned(), body, at: gateway.clock.now()? };
    Ok(gateway.ledger.note(note).await?)
}
