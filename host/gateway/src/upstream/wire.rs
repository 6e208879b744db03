//! One POST to an MCP server, and the one message in its answer.

use countersign_core::json::Json;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use super::{Session, Talk, broken};
use crate::egress::{CallError, frame};
use crate::events::Events;
use crate::purchase::{Body, full};

/// Largest answer read, in bytes; of a stream, everything that comes before the answer included.
pub(super) const MAX_ANSWER: usize = 4 << 20;

const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");

/// What came of a POST.
pub(super) enum Posted {
    /// The message that answers it; empty for a notification.
    Message(Vec<u8>),
    /// The server does not know the session.
    Gone,
}

/// Sends `body` and waits for the answer to the request `id`; for a notification only for its being taken.
pub(super) async fn post(
    talk: &Talk<'_>,
    session: Option<&Session>,
    body: String,
    id: Option<u64>,
) -> Result<Posted, CallError> {
    let response = send(talk, session, body).await?;
    if response.status() == StatusCode::NOT_FOUND && session.is_some_and(|session| session.id.is_some()) {
        return Ok(Posted::Gone);
    }
    taken(&response)?;
    match id {
        Some(id) => Ok(Posted::Message(message(talk, response, id).await?)),
        None => Ok(Posted::Message(Vec::new())),
    }
}

/// As [`post`], for the request that begins a session: its answer and the session's id.
pub(super) async fn initialize(
    talk: &Talk<'_>,
    body: String,
    id: u64,
) -> Result<(Vec<u8>, Option<HeaderValue>), CallError> {
    let response = send(talk, None, body).await?;
    taken(&response)?;
    let session = response.headers().get(SESSION).cloned();
    Ok((message(talk, response, id).await?, session))
}

async fn send(talk: &Talk<'_>, session: Option<&Session>, body: String) -> Result<Response<Incoming>, CallError> {
    let request = request(talk, session, body).map_err(CallError::Unreachable)?;
    let mut connection = talk.dialer.connect(talk.route).await?;
    talk.dialer.send(&mut connection, request).await
}

fn request(talk: &Talk<'_>, session: Option<&Session>, body: String) -> Result<Request<Body>, String> {
    let target = &talk.route.target;
    let mut request = Request::new(full(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = target.path_and_query().parse().map_err(|_| "url: the path cannot be sent".to_owned())?;
    let headers = request.headers_mut();
    for (name, value) in &talk.server.headers {
        let name: HeaderName = name.parse().map_err(|_| "headers: a name cannot be sent".to_owned())?;
        let mut value =
            HeaderValue::from_str(value.expose()).map_err(|_| format!("headers: `{name}` cannot be sent"))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    let agent = HeaderValue::from_static(concat!("countersign/", env!("CARGO_PKG_VERSION")));
    headers.entry(USER_AGENT).or_insert(agent);
    headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let host = HeaderValue::from_str(&target.host_header()).map_err(|_| "url: the host cannot be sent".to_owned())?;
    headers.insert(HOST, host);
    if let Some(session) = session {
        headers.insert(VERSION, HeaderValue::from_static(session.version));
        if let Some(id) = &session.id {
            headers.insert(SESSION, id.clone());
        }
    }
    Ok(request)
}

/// Redirects are answers, and never followed; so is a 402, which no tool has asked for.
fn taken(response: &Response<Incoming>) -> Result<(), CallError> {
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let what = match status {
        StatusCode::PAYMENT_REQUIRED => "asks to be paid over HTTP; only what its tools ask for is paid",
        _ if status.is_redirection() => "redirects, and redirects are not followed; correct its url",
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "does not accept the gateway's credentials; see its headers"
        }
        _ => "refuses the request",
    };
    Err(CallError::Broken(format!("the MCP server answers {} and {what}", status.as_u16())))
}

/// The answer to our request, out of JSON or a stream of events, within the bounds of size and time.
async fn message(talk: &Talk<'_>, mut response: Response<Incoming>, id: u64) -> Result<Vec<u8>, CallError> {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let streams = match kind.as_str() {
        "text/event-stream" => true,
        "application/json" => false,
        _ => return Err(broken("the MCP server answers neither JSON nor events")),
    };
    let whole = talk.dialer.whole(find(response.body_mut(), id, streams)).await;
    whole.unwrap_or_else(|| Err(broken("the MCP server's answer did not arrive in time")))
}

async fn find(body: &mut Incoming, id: u64, streams: bool) -> Result<Vec<u8>, CallError> {
    let (mut events, mut whole, mut read) = (Events::default(), Vec::new(), 0_usize);
    while let Some(frame) = frame(body).await? {
        let Ok(data) = frame.into_data() else { continue };
        read = read.saturating_add(data.len());
        if read > MAX_ANSWER {
            return Err(CallError::Broken(format!("the MCP server's answer is above {MAX_ANSWER} bytes")));
        }
        if !streams {
            whole.extend_from_slice(&data);
            continue;
        }
        // Progress, logs, requests of its own and answers to others: none of them is for us.
        if let Some(message) = events.add(&data).into_iter().find(|message| answers(message, id)) {
            return Ok(message);
        }
    }
    if !streams && answers(&whole, id) {
        return Ok(whole);
    }
    Err(broken("the MCP server's answer ended without an answer to this request"))
}

/// Whether a message is the one answer to our request: its id is ours, and it is no request.
fn answers(message: &[u8], id: u64) -> bool {
    #[derive(serde::Deserialize)]
    struct Envelope {
        #[serde(default)]
        jsonrpc: Option<String>,
        #[serde(default)]
        id: Option<serde_json::Value>,
        #[serde(default)]
        method: Option<serde::de::IgnoredAny>,
        #[serde(default)]
        result: Option<serde::de::IgnoredAny>,
        #[serde(default)]
        error: Option<serde::de::IgnoredAny>,
    }
    let Ok(envelope) = serde_json::from_slice::<Envelope>(message) else { return false };
    envelope.jsonrpc.as_deref() == Some("2.0")
        && envelope.id.as_ref().and_then(serde_json::Value::as_u64) == Some(id)
        && envelope.method.is_none()
        && envelope.result.is_some() != envelope.error.is_some()
}

/// A message, strictly: where nothing is said twice.
pub(super) fn strict(message: &[u8]) -> Result<Json<'_>, String> {
    Json::parse(message, MAX_ANSWER).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_answer_to_our_request_is_one() {
        let check = |message: &str, is: bool| assert_eq!(answers(message.as_bytes(), 7), is, "{message}");
        check(r#"{"jsonrpc":"2.0","id":7,"result":{}}"#, true);
        check(r#"{"jsonrpc":"2.0","id":7,"error":{"code":1,"message":""}}"#, true);
        for other in [
            r#"{"jsonrpc":"2.0","id":8,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":"7","result":{}}"#,
            r#"{"jsonrpc":"2.0","id":7.0,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":null,"result":{}}"#,
            r#"{"jsonrpc":"2.0","result":{}}"#,
            r#"{"jsonrpc":"1.0","id":7,"result":{}}"#,
            r#"{"id":7,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":7}"#,
            r#"{"jsonrpc":"2.0","id":7,"id":8,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":7,"result":{},"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":7,"result":{},"error":{}}"#,
            r#"{"jsonrpc":"2.0","id":7,"method":"ping","result":{}}"#,
            r#"[{"jsonrpc":"2.0","id":7,"result":{}}]"#,
            "",
            "null",
        ] {
            check(other, false);
        }
    }
}
