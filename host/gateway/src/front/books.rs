//! `GET /v1/export` and `GET /v1/audit/…`: the books and the records, for operators.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, HeaderValue};
use http_body_util::BodyExt;
use http_body_util::channel::Channel;

use super::Answer;
use crate::books;
use crate::config::Config;
use crate::egress::CallError;
use crate::problem::{Code, Problem};
use crate::state::Gateway;

/// Pages of an export that may wait for a slow reader.
const AHEAD: usize = 2;

/// The books, streamed: nothing of them is kept in memory beyond a few pages.
pub(super) fn export(
    gateway: &Arc<Gateway>,
    config: &Config,
    query: &[(String, String)],
) -> Result<Answer, Problem> {
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
