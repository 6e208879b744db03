//! Policies through the operators' door: what serves, what served, and changing it without the files.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::Value;

use super::admin::Admin;
use super::{Answer, body, json, not_found};
use crate::problem::{Code, Problem};
use crate::reload::Refused;

/// Largest module that can be put, in bytes: what the engine accepts.
const MAX_MODULE: usize = 32 << 20;
/// Largest call that carries a module as text, with its settings.
const MAX_CALL: usize = 46 << 20;
/// Largest body of other calls, in bytes.
const MAX_WORD: usize = 4 * 1024;

/// `GET /v1/policies/generations?before=…&limit=…`.
pub(super) async fn generations(admin: &Admin, query: &[(String, String)]) -> Result<Answer, Problem> {
    let (mut before, mut limit) = (None, 20);
    for (name, text) in query {
        let number = |most: u64| {
            let number = text.parse().ok().filter(|n| (1..=most).contains(n));
            number.ok_or_else(|| Problem::new(Code::BadRequest, format!("{name}: 1 to {most}")))
        };
        match name.as_str() {
            "before" | "cursor" => before = Some(number(u64::MAX)?),
            "limit" => limit = number(500)?,
            other => {
                let detail = format!("`{other}` is not a parameter here; before and limit are");
                return Err(Problem::new(Code::BadRequest, detail));
            }
        }
    }
    let limit = u32::try_from(limit).unwrap_or(u32::MAX);
    Ok(json(StatusCode::OK, &admin.reloader.generations(before, limit).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Put {
    module_base64: String,
    settings: Option<Value>,
}

/// `PUT /v1/policies/{name}/module`: the module's bytes; or, as JSON, the module and its settings.
pub(super) async fn put_module(
    admin: &Admin,
    operator: &str,
    name: &str,
    request: Request<Incoming>,
) -> Result<Answer, Problem> {
    let bad = |detail: String| Problem::new(Code::BadRequest, detail);
    let told = request.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let as_json = told.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
    let (module, settings) = if as_json {
        let put: Put = serde_json::from_slice(&body(request, MAX_CALL).await?)
            .map_err(|e| bad(format!("the body is not as documented: {e}")))?;
        let module = STANDARD.decode(put.module_base64).map_err(|e| bad(format!("module_base64: {e}")))?;
        (module, put.settings.map(|s| s.to_string()))
    } else {
        (body(request, MAX_MODULE).await?.to_vec(), None)
    };
    let done = admin.reloader.put_module(name, module, settings, operator).await;
    activated(admin, done)
}

/// `POST /v1/policies/{name}/shadow/activate`: the candidate serves in the policy's place, through the gate
/// that every module passes, and stops being a shadow.
pub(super) async fn activate_shadow(admin: &Admin, operator: &str, name: &str) -> Result<Answer, Problem> {
    let candidate =
        admin.gateway.shadows.candidate(name).ok_or_else(|| not_found("shadow of a policy of this name"))?;
    let settings = candidate.own_settings.then_some(candidate.spec.settings);
    let done = admin.reloader.put_module(name, candidate.spec.module.to_vec(), settings, operator).await;
    if done.is_ok() {
        admin.gateway.shadows.remove(name);
    }
    activated(admin, done)
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Rollback {
    to: Option<u64>,
}

/// `POST /v1/policies/rollback`.
pub(super) async fn rollback(admin: &Admin, operator: &str, request: Request<Incoming>) -> Result<Answer, Problem> {
    let said = body(request, MAX_WORD).await?;
    let said: Rollback = if said.is_empty() {
        Rollback::default()
    } else {
        serde_json::from_slice(&said)
            .map_err(|e| Problem::new(Code::BadRequest, format!("the body is not as documented: {e}")))?
    };
    let done = admin.reloader.rollback(said.to, operator).await;
    activated(admin, done)
}

/// The status afterwards, or why it was refused.
fn activated(admin: &Admin, done: Result<u64, Refused>) -> Result<Answer, Problem> {
    match done {
        Ok(_) => Ok(json(StatusCode::OK, &admin.reloader.report())),
        Err(why) => {
            let code = match why.stage.as_str() {
                "not-found" => Code::NotFound,
                "pinned" | "mandate" => Code::Conflict,
                "record" => Code::LedgerUnavailable,
                _ => Code::BadRequest,
            };
            let problem = Problem::new(code, format!("{}: {}", why.stage, why.message)).with("stage", why.stage);
            Err(if why.policy.is_empty() { problem } else { problem.with("policy", why.policy) })
        }
    }
}
