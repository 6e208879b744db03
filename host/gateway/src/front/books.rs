//! `GET /v1/export` and `GET /v1/audit/…`: the books and the records, for operators.

use std::sync::Arc;

use bytes::Bytes;
use countersign_audit::verify::{checkpoint_line, partial_line};
use countersign_core::id::PaymentId;
use countersign_core::ledger::KeptCheckpoint;
use countersign_core::time::Timestamp;
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use serde::Deserialize;
use serde_json::json as value;

use super::admin::parse;
use super::{Answer, json, not_found};
use crate::config::Config;
use crate::egress::CallError;
use crate::problem::{Code, Problem};
use crate::purchase::full;
use crate::state::Gateway;
use crate::{books, reconcile};

/// Pages of an export that may wait for a slow reader.
const AHEAD: usize = 2;

/// The books, streamed: nothing of them is kept in memory beyond a few pages.
pub(super) fn export(gateway: &Arc<Gateway>, config: &Config, query: &[(String, String)]) -> Result<Answer, Problem> {
    let wanted =
        books::wanted(query, &config.gateway.currency).map_err(|detail| Problem::new(Code::BadRequest, detail))?;
    let (media, name) = (wanted.format.media_type(), wanted.format.as_str());
    let (mut sender, channel) = Channel::<Bytes, CallError>::new(AHEAD);
    let gateway = Arc::clone(gateway);
    tokio::spawn(async move {
        if let Err(error) = books::export(&*gateway.ledger, wanted, &mut sender).await {
            tracing::warn!(%error, "an export ended early");
            // Broken off, so that nobody takes it for a whole one.
            sender.abort(CallError::Broken(error.to_string()));
        }
    });
    let mut response = Response::new(channel.boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("countersign-source", HeaderValue::from_static("gateway"));
    if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"countersign.{name}\"")) {
        headers.insert(CONTENT_DISPOSITION, value);
    }
    Ok(response)
}

/// `GET /v1/audit/checkpoint`: what the records are, signed. Whoever keeps it can later be shown that nothing
/// before it was changed.
pub(super) async fn checkpoint(gateway: &Gateway) -> Result<Answer, Problem> {
    let KeptCheckpoint { size, note } = signed(gateway).await?;
    // The note's third line, as it is signed.
    let root = note.lines().nth(2).unwrap_or_default();
    let key = gateway.log.verifier().to_string();
    Ok(json(StatusCode::OK, &value!({"checkpoint": note, "key": key, "size": size, "root": root})))
}

/// `GET /v1/audit/proof?payment=…` or `?record=…`: those records, each with the proof that the signed log has it;
/// `countersign ledger verify` checks what this answers.
pub(super) async fn proof(gateway: &Gateway, query: &[(String, String)]) -> Result<Answer, Problem> {
    let bad = |detail: &str| Problem::new(Code::BadRequest, detail);
    let [(name, wanted)] = query else { return Err(bad("name one payment=pay_… or one record=N")) };
    let records: Vec<u64> = match name.as_str() {
        "payment" => {
            let id: PaymentId = wanted.parse().map_err(|_| not_found("payment with this id"))?;
            gateway.ledger.records_of(id).await?
        }
        "record" => vec![wanted.parse().map_err(|_| bad("record: a number from 1"))?],
        _ => return Err(bad("name one payment=pay_… or one record=N")),
    };
    let KeptCheckpoint { size, note } = signed(gateway).await?;
    let mut lines = String::new();
    for record in records.into_iter().filter(|record| (1..=size).contains(record)) {
        let line = gateway.ledger.records(record.saturating_sub(1), 1).await?.pop();
        let line = line.ok_or_else(|| not_found("record with this number"))?;
        let proof = gateway.ledger.inclusion(record, size).await?;
        lines.push_str(&partial_line(&line, &proof, size));
        lines.push('\n');
    }
    if lines.is_empty() {
        return Err(not_found("record of it"));
    }
    lines.push_str(&checkpoint_line(&note));
    lines.push('\n');
    let mut response = Response::new(full(lines));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert("countersign-source", HeaderValue::from_static("gateway"));
    Ok(response)
}

/// The newest checkpoint, over everything that is recorded by now.
async fn signed(gateway: &Gateway) -> Result<KeptCheckpoint, Problem> {
    let signed = gateway.log.checkpoint(&*gateway.ledger).await;
    let note = signed.map_err(|e| Problem::new(Code::LedgerUnavailable, e.to_string()))?;
    note.ok_or_else(|| not_found("record yet"))
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Since {
    since: Option<String>,
}

/// `POST /v1/reconcile`: compares with the chain, and books the refunds that are beyond doubt.
pub(super) async fn reconcile(gateway: &Gateway, body: &[u8]) -> Result<Answer, Problem> {
    let said: Since = if body.is_empty() { Since::default() } else { parse(body)? };
    let since = match said.since {
        Some(text) => Timestamp::parse(&text)
            .ok_or_else(|| Problem::new(Code::BadRequest, format!("since: {text:?} is no RFC 3339 moment")))?,
        None => gateway.clock.now()?.minus_millis(reconcile::FIRST_MS),
    };
    let compared = reconcile::run(gateway, since).await;
    let compared = compared.map_err(|e| Problem::new(Code::LedgerUnavailable, e.to_string()))?;
    let mut view = compared.report.json();
    if let Some(map) = view.as_object_mut() {
        map.insert("booked".into(), value!(compared.refunds));
        map.insert("problems".into(), value!(compared.problems));
    }
    Ok(json(StatusCode::OK, &view))
}
