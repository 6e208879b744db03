//! An operator's word as a signed message. Who speaks is said in the message, and only their own key makes it true.

use bytes::Bytes;
use countersign_core::id::ApprovalId;
use countersign_core::ledger::{Channel, Quoted};
use http::{HeaderMap, Request, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::Value;

use super::admin::parse;
use super::{Answer, body, json};
use crate::config::{OperatorConfig, OperatorRole, signing_key};
use crate::problem::{Code, Problem};
use crate::state::Gateway;
use crate::views::{self, Viewer};
use crate::voting::{Voter, Word, speak};
use crate::webhook;

/// Largest message, in bytes.
const MAX_MESSAGE: usize = 16 * 1024;

/// Yes or no.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Decision {
    Approve,
    Deny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    operator: String,
    approval: ApprovalId,
    digest: String,
    expires_at: String,
    decision: Decision,
    #[serde(default)]
    note: String,
}

/// `POST /v1/approvals/webhook`.
pub(super) async fn take(gateway: &Gateway, request: Request<Incoming>) -> Result<Answer, Problem> {
    let headers = request.headers().clone();
    let bytes = body(gateway, request, MAX_MESSAGE).await?;
    // After the body: whoever was removed while it arrived is gone.
    let snapshot = gateway.live.load_full();
    let config = &snapshot.config;
    let now = gateway.clock.now()?;
    let named = said_by(&bytes).and_then(|name| config.operators.get_key_value(&name));
    let (name, operator) = named.ok_or_else(|| unauthenticated("`operator` is nobody who sends messages here"))?;
    let message = believed(operator, &headers, &bytes, now)?.to_owned();
    let said: Message = parse(&bytes)?;
    if !operator.roles.contains(&OperatorRole::Approver) || said.operator != *name {
        let detail = format!("operator `{name}` does not have the role `{}`", OperatorRole::Approver.as_str());
        return Err(Problem::new(Code::Forbidden, detail));
    }
    let word = Word {
        approval: said.approval,
        approve: said.decision == Decision::Approve,
        note: said.note,
        channel: Channel::Webhook,
        quoted: Some(Quoted { message, frozen: said.digest, expires_at: said.expires_at }),
    };
    let spoken = speak(&*gateway.ledger, Voter { name, operator, config }, word, now).await?;
    gateway.asked.notify_one();
    let mut view = views::approval(&spoken.approval, Some(&spoken.payment), Viewer::Operator, config);
    if let Some(map) = view.as_object_mut() {
        map.insert("replayed".into(), spoken.replayed.into());
    }
    Ok(json(StatusCode::OK, &view))
}

fn unauthenticated(why: &str) -> Problem {
    Problem::new(Code::Unauthenticated, why)
}

/// Whose message it says it is.
fn said_by(bytes: &Bytes) -> Option<String> {
    let message: Value = serde_json::from_slice(bytes).ok()?;
    message.get("operator")?.as_str().map(str::to_owned)
}

/// The message's id, if it is this operator's.
fn believed<'h>(
    operator: &OperatorConfig,
    headers: &'h HeaderMap,
    bytes: &Bytes,
    now: countersign_core::time::Timestamp,
) -> Result<&'h str, Problem> {
    let key = operator.approval_key.as_ref().and_then(signing_key);
    let key = key.ok_or_else(|| unauthenticated("`operator` is nobody who sends messages here"))?;
    webhook::verify(&key, headers, bytes, now).map_err(unauthenticated)
}
