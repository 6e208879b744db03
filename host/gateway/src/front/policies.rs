//! Policies through the operators' door: what serves, what served, and changing it without the files.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::OwnedSemaphorePermit;

use super::admin::{Admin, Operator, said};
use super::quorum::{Change, agreed};
use super::{Answer, json, not_found};
use crate::config::OperatorRole;
use crate::problem::{Code, Problem};
use crate::reload::{Refused, Reloader};

/// Largest module that can be put, in bytes: what the engine accepts.
const MAX_MODULE: usize = 32 << 20;
/// Largest call that carries a module as text, with its settings.
const MAX_CALL: usize = 46 << 20;
/// Largest number of a generation: the store counts in 63 bits.
const MAX_NUMBER: u64 = i64::MAX.unsigned_abs();
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
            "before" | "cursor" => before = Some(number(MAX_NUMBER)?),
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
pub(super) async fn put_module(admin: &Admin, name: &str, request: Request<Incoming>) -> Result<Answer, Problem> {
    let place = one_of_few(admin)?;
    let bad = |detail: String| Problem::new(Code::BadRequest, detail);
    let told = request.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let as_json = told.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
    let limit = if as_json { MAX_CALL } else { MAX_MODULE };
    let (sent, operator) = said(&admin.gateway, request, limit, OperatorRole::PolicyAdmin).await?;
    let (module, settings) = if as_json {
        let put: Put = serde_json::from_slice(&sent).map_err(|e| bad(format!("the body is not as documented: {e}")))?;
        let module = STANDARD.decode(put.module_base64).map_err(|e| bad(format!("module_base64: {e}")))?;
        (module, put.settings.map(|s| s.to_string()))
    } else {
        (sent.to_vec(), None)
    };
    let by = agreed(admin, &operator, of_module("module", name, &module, settings.as_deref())).await?;
    let (reloader, name) = (Arc::clone(&admin.reloader), name.to_owned());
    let done = to_its_end(async move {
        let _place = place;
        reloader.put_module(&name, module, settings, &by).await
    });
    activated(admin, done.await)
}

/// `POST /v1/policies/{name}/shadow/activate`: the candidate serves in the policy's place, through the gate
/// that every module passes, and stops being a shadow.
pub(super) async fn activate_shadow(admin: &Admin, operator: &Operator, name: &str) -> Result<Answer, Problem> {
    let (number, candidate) =
        admin.gateway.shadows.candidate(name).ok_or_else(|| not_found("shadow of a policy of this name"))?;
    let place = one_of_few(admin)?;
    let module = candidate.spec.module.to_vec();
    let settings = candidate.own_settings.then_some(candidate.spec.settings);
    let by = agreed(admin, operator, of_module("shadow", name, &module, settings.as_deref())).await?;
    let (owner, name) = (admin.clone(), name.to_owned());
    let done = to_its_end(async move {
        let _place = place;
        let done = owner.reloader.put_module(&name, module, settings, &by).await;
        if done.is_ok() {
            owner.gateway.shadows.remove_this(&name, number);
        }
        done
    });
    activated(admin, done.await)
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Rollback {
    to: Option<u64>,
}

/// `POST /v1/policies/rollback`.
pub(super) async fn rollback(admin: &Admin, request: Request<Incoming>) -> Result<Answer, Problem> {
    let (sent, operator) = said(&admin.gateway, request, MAX_WORD, OperatorRole::PolicyAdmin).await?;
    let wanted: Rollback = if sent.is_empty() {
        Rollback::default()
    } else {
        serde_json::from_slice(&sent)
            .map_err(|e| Problem::new(Code::BadRequest, format!("the body is not as documented: {e}")))?
    };
    let change = Change { what: "rollback", policy: None, to: wanted.to, sha256: None, settings_sha256: None };
    let by = agreed(admin, &operator, change).await?;
    let reloader = Arc::clone(&admin.reloader);
    let done = to_its_end(async move { reloader.rollback(wanted.to, &by).await });
    activated(admin, done.await)
}

/// `POST /v1/policies/files`: what this gateway's files say serves at every gateway on the shared ledger.
pub(super) async fn activate_files(admin: &Admin, operator: &Operator) -> Result<Answer, Problem> {
    let place = one_of_few(admin)?;
    let sha256 = Some(of_files(&admin.reloader).await?);
    let change = Change { what: "files", policy: None, to: None, sha256, settings_sha256: None };
    let by = agreed(admin, operator, change).await?;
    let reloader = Arc::clone(&admin.reloader);
    let done = to_its_end(async move {
        let _place = place;
        reloader.activate_files(&by).await
    });
    activated(admin, done.await)
}

fn of_module(what: &'static str, policy: &str, module: &[u8], settings: Option<&str>) -> Change {
    let sha256 = |bytes: &[u8]| hex::encode(Sha256::digest(bytes));
    let settings_sha256 = settings.map(|text| sha256(text.as_bytes()));
    Change { what, policy: Some(policy.to_owned()), to: None, sha256: Some(sha256(module)), settings_sha256 }
}

/// SHA-256 of everything that this gateway's files say.
async fn of_files(reloader: &Reloader) -> Result<String, Problem> {
    let files = reloader.files();
    let read = tokio::task::spawn_blocking(move || {
        let mut all = Sha256::new();
        for file in files {
            let bytes = std::fs::read(&file).unwrap_or_default();
            all.update(Sha256::digest(file.as_os_str().as_encoded_bytes()));
            all.update(Sha256::digest(bytes));
        }
        hex::encode(all.finalize())
    });
    read.await.map_err(|e| Problem::new(Code::Overloaded, format!("the files could not be read: {e}")))
}

/// A place among the few calls that carry and compile modules at a time: memory is finite. Taken before
/// anything is read, and kept until the work has ended, whoever still waits for it.
pub(super) fn one_of_few(admin: &Admin) -> Result<OwnedSemaphorePermit, Problem> {
    let busy = || Problem::new(Code::Overloaded, "other modules are being staged; nothing was changed");
    Arc::clone(&admin.gateway.staging).try_acquire_owned().map_err(|_| busy())
}

/// Runs a change in a task of its own: a client that hangs up must not leave a generation in the ledger
/// that does not serve.
async fn to_its_end(change: impl Future<Output = Result<u64, Refused>> + Send + 'static) -> Result<u64, Refused> {
    tokio::spawn(change).await.unwrap_or_else(|error| {
        let message = format!("the change ended abnormally: {error}");
        Err(Refused { stage: "stage".to_owned(), policy: String::new(), message })
    })
}

/// The status afterwards, or why it was refused.
fn activated(admin: &Admin, done: Result<u64, Refused>) -> Result<Answer, Problem> {
    match done {
        Ok(_) => Ok(json(StatusCode::OK, &admin.reloader.report())),
        Err(why) => {
            let code = match why.stage.as_str() {
                "not-found" => Code::NotFound,
                "forbidden" => Code::Forbidden,
                "pinned" | "mandate" | "superseded" | "needs-restart" => Code::Conflict,
                "record" => Code::LedgerUnavailable,
                _ => Code::BadRequest,
            };
            let problem = Problem::new(code, format!("{}: {}", why.stage, why.message)).with("stage", why.stage);
            Err(if why.policy.is_empty() { problem } else { problem.with("policy", why.policy) })
        }
    }
}
