//! `countersign mcp`: the gateway's tools over standard input and output. Every call becomes one call of
//! `/mcp` at the running gateway, with the agent's own token: nothing is decided here.

use bytes::Bytes;
use clap::Args;
use countersign_core::web::Target;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use http::{HeaderName, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ListToolsResult, PaginatedRequestParams,
    ProgressNotificationParam, ResultType, ServerConfig,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler, ServiceExt};
use serde_json::{Value, json};

use super::admin::{NotRunning, connect};
use super::{Failure, Outcome};
use crate::config::{Environment, Secret};
use crate::events::Events;
use crate::front::mcp::tools;

/// Where the agent's or session's token is.
const TOKEN: &str = "COUNTERSIGN_AGENT_TOKEN";
/// The version of the protocol that is spoken with the gateway, whatever the client speaks.
const VERSION: &str = "2025-06-18";
/// Largest answer read, in bytes: a seller's megabyte, twice, the second time escaped twice.
const MAX_ANSWER: usize = 16 << 20;

/// How to reach the gateway.
#[derive(Args)]
pub(super) struct Mcp {
    /// Where the gateway serves agents.
    #[arg(long, default_value = "http://127.0.0.1:8402")]
    gateway: String,
}

/// Serves until standard input ends.
pub(super) async fn run(args: &Mcp, environment: &Environment) -> Outcome {
    let token = environment.get(TOKEN).ok_or_else(|| {
        Failure::new("this needs an agent's or session's token")
            .hint(format!("set {TOKEN} to the token that `countersign init` or `sessions open` printed"))
    })?;
    let base = Target::parse(&args.gateway).map_err(|e| Failure::new(format!("--gateway: {e}")))?;
    let bridge = Bridge { base, token: Secret::new(token) };
    let running = bridge.serve(rmcp::transport::stdio()).await?;
    running.waiting().await?;
    Ok(())
}

/// Passes calls on.
struct Bridge {
    base: Target,
    token: Secret,
}

impl ServerHandler for Bridge {
    fn get_info(&self) -> ServerConfig {
        tools::info()
    }

    async fn list_tools(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(tools::all()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let answered = tokio::select! {
            answered = self.pass_on(&request, &context) => answered,
            // The connection closes: the gateway knows that nobody took the answer.
            () = context.ct.cancelled() => Err(Failure::new("the call was cancelled")),
        };
        answered.unwrap_or_else(|failure| Ok(unreachable_gateway(&failure).into()))
    }
}

impl Bridge {
    /// The gateway's own answer: a result, or a JSON-RPC error.
    async fn pass_on(
        &self,
        request: &CallToolRequestParams,
        context: &RequestContext<RoleServer>,
    ) -> Result<Result<CallToolResponse, ErrorData>, Failure> {
        let mut response = self.post(request).await?;
        let kind = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if response.status() != StatusCode::OK || !kind.starts_with("text/event-stream") {
            return refusal(response).await;
        }
        let (mut events, mut read) = (Events::default(), 0_usize);
        while let Some(frame) = response.body_mut().frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            read = read.saturating_add(data.len());
            if read > MAX_ANSWER {
                return Err(Failure::new(format!("the gateway's answer is above {MAX_ANSWER} bytes")));
            }
            for message in events.add(&data) {
                let mut message: Value = serde_json::from_slice(&message)?;
                if let Some(result) = message.get_mut("result") {
                    let mut result: CallToolResult = serde_json::from_value(result.take())?;
                    // The version spoken with the gateway has no such member; the client's may require it.
                    result.result_type = Some(ResultType::COMPLETE);
                    return Ok(Ok(result.into()));
                }
                if let Some(error) = message.get_mut("error") {
                    return Ok(Err(serde_json::from_value(error.take())?));
                }
                tell_progress(&message, context).await;
            }
        }
        Err(Failure::new("the gateway's answer ended early"))
    }

    async fn post(&self, request: &CallToolRequestParams) -> Result<Response<Incoming>, Failure> {
        let mut sender = connect(&self.base)
            .await?
            .map_err(|NotRunning(why)| Failure::new(why).hint("start it with `countersign serve`"))?;
        let params = json!({"name": request.name, "arguments": request.arguments.clone().unwrap_or_default(),
            "_meta": {"progressToken": 1}});
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
        let mut request = Request::new(Full::new(Bytes::from(call.to_string())));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = http::Uri::from_static("/mcp");
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_str(&self.base.host_header())?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        headers.insert(HeaderName::from_static("mcp-protocol-version"), HeaderValue::from_static(VERSION));
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", self.token.expose()))?;
        bearer.set_sensitive(true);
        headers.insert(AUTHORIZATION, bearer);
        Ok(sender.send_request(request).await?)
    }
}

/// What the gateway refused before it looked at the tool: a problem, such as an unknown token.
async fn refusal(response: Response<Incoming>) -> Result<Result<CallToolResponse, ErrorData>, Failure> {
    let status = response.status();
    let body = http_body_util::Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    let body = body.map_err(|e| Failure::new(e.to_string()))?.to_bytes();
    match serde_json::from_slice::<Value>(&body) {
        Ok(problem) if problem.get("code").is_some() => Ok(Ok(tools::refused(problem).into())),
        _ => Err(Failure::new(format!("the gateway answered {status}: {}", String::from_utf8_lossy(&body)))),
    }
}

async fn tell_progress(message: &Value, context: &RequestContext<RoleServer>) {
    let Some(token) = context.meta.get_progress_token() else { return };
    let number = |name: &str| message.pointer(&format!("/params/{name}")).and_then(Value::as_f64);
    let Some(progress) = number("progress") else { return };
    let mut note = ProgressNotificationParam::new(token, progress);
    if let Some(total) = number("total") {
        note = note.with_total(total);
    }
    if let Some(text) = message.pointer("/params/message").and_then(Value::as_str) {
        note = note.with_message(text);
    }
    if let Err(error) = context.peer.notify_progress(note).await {
        tracing::debug!(%error, "nobody hears how the call goes");
    }
}

/// The gateway was not reached, or not understood: nobody here knows what became of the call.
fn unreachable_gateway(failure: &Failure) -> CallToolResult {
    let hint = failure.hint.as_deref().unwrap_or("repeat the call; if it was paid_fetch, with the same purchase_id");
    tools::refused(json!({
        "code": "gateway-unreachable",
        "title": "The gateway did not answer",
        "detail": format!("{}; {hint}", failure.message),
        "retry": true,
    }))
}
